//! A published config.json → a checked, typed config. Refuses what would run but not mean the same:
//! other architectures, other position embeddings, decoders, labels without a clear order.

use std::{fs, path::Path};

use lowchurn_kernels::Activation;
use serde_json::{Map, Value};

use crate::keys::{Keys, LAYERS, POSITIVE, SIZES};
use crate::{Error, ModelType, Result, albert, architecture, deberta, modernbert, mpnet};

/// A checked config.json of a supported architecture.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub model_type: ModelType,
    pub vocab_size: usize,
    pub hidden_size: usize,
    /// Width of the embedding tables; what is narrower than `hidden_size` is projected to it.
    pub embedding_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub intermediate_size: usize,
    /// The longest text, in tokens.
    pub max_positions: usize,
    /// The row of the position table at which texts begin.
    pub first_position: usize,
    /// 0 where the model has no token types.
    pub type_vocab_size: usize,
    pub layer_norm_eps: f64,
    pub hidden_dropout: f32,
    pub attention_dropout: f32,
    /// Falls back to `hidden_dropout` where the file has null or nothing, if the original does.
    pub classifier_dropout: f32,
    pub activation: Activation,
    pub pad_token_id: u32,
    pub initializer_range: f64,
    /// What only some architectures have.
    pub details: Details,
    /// Class names in index order; empty where the file has no `id2label`.
    pub labels: Vec<String>,
    /// The file as published. This, not the fields above, is what a save writes back.
    pub raw: Map<String, Value>,
}

/// What only some architectures have; each is read in its architecture's file.
#[derive(Clone, Debug, PartialEq)]
pub enum Details {
    Plain,
    Albert(albert::Groups),
    DebertaV2(deberta::Deberta),
    ModernBert(modernbert::Modern),
}

/// What an architecture's config.json calls things, and what it means where it says nothing.
pub(crate) struct Dialect {
    pub(crate) hidden_size: &'static str,
    /// Key and default, else the width of the layers, where tables may be narrower than these.
    pub(crate) embedding_size: Option<(&'static str, Option<usize>)>,
    pub(crate) layers: &'static str,
    pub(crate) heads: &'static str,
    pub(crate) intermediate_size: &'static str,
    pub(crate) activation: (&'static str, Activation),
    pub(crate) hidden_dropout: (&'static str, f32),
    pub(crate) attention_dropout: (&'static str, f32),
    pub(crate) classifier_dropout: ClassifierDropout,
    pub(crate) token_types: TokenTypes,
    pub(crate) positions: Positions,
    pub(crate) pad_token_id: usize,
    /// Key, where it can be set, and default.
    pub(crate) layer_norm_eps: (Option<&'static str>, f64),
}

#[derive(Clone, Copy)]
pub(crate) enum ClassifierDropout {
    /// That of the hidden states.
    Hidden,
    /// This key's, else that of the hidden states.
    OrHidden(&'static str),
    /// This key's, else the number.
    Or(&'static str, f32),
}

/// Each with the default of `type_vocab_size`.
#[derive(Clone, Copy)]
pub(crate) enum TokenTypes {
    /// There are none, whatever the file and the tokenizer say.
    None,
    /// Every token has the first.
    First { default: usize },
    /// As the tokenizer says; the table may have as few as `least` rows.
    Read { least: u64, default: usize },
}

#[derive(Clone, Copy)]
pub(crate) enum Positions {
    /// A text's first token stands at 0.
    FromZero,
    /// It stands behind the padding token, whose id is also a position (fairseq's way).
    AfterPadding,
}

impl Config {
    /// Each share of dropout that the model has.
    pub fn dropouts(&self) -> Vec<f32> {
        let pooler = match &self.details {
            Details::DebertaV2(deberta) => Some(deberta.pooler_dropout),
            _ => None,
        };
        let all = [self.hidden_dropout, self.attention_dropout, self.classifier_dropout];
        all.into_iter().chain(pooler).collect()
    }

    /// The same share everywhere.
    pub fn set_dropout(&mut self, p: f32) {
        (self.hidden_dropout, self.attention_dropout, self.classifier_dropout) = (p, p, p);
        if let Details::DebertaV2(deberta) = &mut self.details {
            deberta.pooler_dropout = p;
        }
    }

    /// Reads and checks `dir/config.json`.
    pub fn open(dir: &Path) -> Result<Config> {
        let path = dir.join("config.json");
        let text = fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        let raw = serde_json::from_slice(&text)
            .map_err(|source| Error::Json { path: path.clone(), source })?;
        Config::parse(raw, &path)
    }

    /// Checks a config; `path` is for messages only.
    pub fn parse(raw: Map<String, Value>, path: &Path) -> Result<Config> {
        let keys = Keys { path, raw: &raw };
        let model_type = keys.model_type()?;
        let dialect = architecture::dialect(model_type);
        keys.only("position_embedding_type", "absolute".into())?;
        keys.only("is_decoder", false.into())?;
        keys.only("add_cross_attention", false.into())?;
        let hidden_size = keys.size(dialect.hidden_size, SIZES)?;
        let heads = keys.size(dialect.heads, SIZES)?;
        if !hidden_size.is_multiple_of(heads) {
            let expected = format!("a divisor of {}, {hidden_size}", dialect.hidden_size);
            return Err(keys.wrong(dialect.heads, &heads, &expected));
        }
        let vocab_size = keys.size("vocab_size", SIZES)?;
        let pad_token_id = keys.size_or("pad_token_id", 0..=*SIZES.end(), dialect.pad_token_id)?;
        if pad_token_id >= vocab_size {
            let expected = format!("an id below vocab_size, {vocab_size}");
            return Err(keys.wrong("pad_token_id", &pad_token_id, &expected));
        }
        let positions = keys.size("max_position_embeddings", SIZES)?;
        let first_position = match dialect.positions {
            Positions::FromZero => 0,
            Positions::AfterPadding => pad_token_id + 1,
        };
        if positions <= first_position {
            let expected = format!("more than pad_token_id + 1, {first_position}");
            return Err(keys.wrong("max_position_embeddings", &positions, &expected));
        }
        let layers = keys.size(dialect.layers, LAYERS)?;
        let hidden_dropout = keys.dropout(dialect.hidden_dropout.0, dialect.hidden_dropout.1)?;
        Ok(Config {
            model_type,
            vocab_size,
            hidden_size,
            embedding_size: match dialect.embedding_size {
                Some((key, default)) => keys.size_or(key, SIZES, default.unwrap_or(hidden_size))?,
                None => hidden_size,
            },
            layers,
            heads,
            intermediate_size: keys.size(dialect.intermediate_size, SIZES)?,
            max_positions: positions - first_position,
            first_position,
            type_vocab_size: match dialect.token_types {
                TokenTypes::None => 0,
                TokenTypes::First { default } => keys.size_or("type_vocab_size", SIZES, default)?,
                TokenTypes::Read { least, default } => {
                    keys.size_or("type_vocab_size", least..=*SIZES.end(), default)?
                }
            },
            layer_norm_eps: match dialect.layer_norm_eps {
                (Some(key), default) => keys.number(key, POSITIVE, default)?,
                (None, fixed) => fixed,
            },
            hidden_dropout,
            attention_dropout: keys
                .dropout(dialect.attention_dropout.0, dialect.attention_dropout.1)?,
            classifier_dropout: match dialect.classifier_dropout {
                ClassifierDropout::Hidden => hidden_dropout,
                ClassifierDropout::OrHidden(key) => keys.dropout(key, hidden_dropout)?,
                ClassifierDropout::Or(key, default) => keys.dropout(key, default)?,
            },
            activation: keys.activation(dialect.activation.0, dialect.activation.1)?,
            pad_token_id: pad_token_id as u32,
            initializer_range: keys.number("initializer_range", POSITIVE, 0.02)?,
            details: match model_type {
                ModelType::Albert => Details::Albert(albert::groups(&keys, layers)?),
                ModelType::DebertaV2 => {
                    Details::DebertaV2(deberta::details(&keys, hidden_size, heads)?)
                }
                ModelType::ModernBert => {
                    Details::ModernBert(modernbert::modern(&keys, layers, hidden_size, heads)?)
                }
                ModelType::Mpnet => mpnet::check(&keys).map(|()| Details::Plain)?,
                _ => Details::Plain,
            },
            labels: keys.labels()?,
            raw,
        })
    }

    /// Whether a text of `width` tokens has a row of the position table for each.
    pub fn check_width(&self, width: usize) -> Result<()> {
        let &Config { max_positions, first_position, .. } = self;
        match width > max_positions {
            true => Err(Error::TooLong { width, max_positions, first_position }),
            false => Ok(()),
        }
    }

    /// Whether it matters which types a batch's tokens have.
    pub(crate) fn reads_types(&self) -> bool {
        let types = architecture::dialect(self.model_type).token_types;
        self.type_vocab_size > 0 && matches!(types, TokenTypes::Read { .. })
    }
}

/// Holds a tokenizer's size (added tokens included) and padding token against the model in `dir`.
///
/// A tokenizer with more tokens than rows would fail in the middle of a run. One that is smaller by more than an
/// embedding is rounded up is another model's: cased and uncased BERT differ by 1,526 and would train without a word.
/// BERT's and MPNet's differ by 5, but not in the padding token, which every tokenizer but BERT's own relatives' has elsewhere.
pub fn check_vocabulary(
    config: &Config,
    tokenizer_vocab_size: usize,
    tokenizer_pad_id: u32,
    dir: &Path,
) -> Result<()> {
    const ROUNDED_UP_BY: usize = 1024;
    let (dir, tokenizer, embedding) = (dir.to_path_buf(), tokenizer_vocab_size, config.vocab_size);
    if tokenizer > embedding {
        return Err(Error::TokenizerTooLarge { dir, tokenizer, embedding });
    }
    if embedding - tokenizer >= ROUNDED_UP_BY {
        return Err(Error::TokenizerTooSmall { dir, tokenizer, embedding });
    }
    // BERT's texts are the same wherever its padding stands, and custom vocabularies put it anywhere. Others are held to what
    // their config says, or to the default where positions are counted from it.
    let is_said = config.raw.get("pad_token_id").is_some_and(|id| !id.is_null());
    let is_held = config.model_type != ModelType::Bert && is_said || config.first_position > 0;
    if is_held && tokenizer_pad_id != config.pad_token_id {
        let (tokenizer, model) = (tokenizer_pad_id, config.pad_token_id);
        return Err(Error::TokenizerPadding { dir, tokenizer, model });
    }
    Ok(())
}

/// Class name → index, in index order.
pub(crate) fn label2id(labels: &[String]) -> Map<String, Value> {
    labels.iter().enumerate().map(|(id, label)| (label.clone(), Value::from(id))).collect()
}
