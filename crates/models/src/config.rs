//! A published config.json → a checked, typed config. Refuses what would run but not mean the same:
//! other architectures, other position embeddings, decoders, labels without a clear order.

use std::{collections::BTreeMap, fs, ops::RangeInclusive, path::Path};

use lowchurn_kernels::{Activation, Gelu};
use serde_json::{Map, Value};

use crate::{Error, Result};

/// A checked config.json of a supported architecture.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub model_type: ModelType,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub intermediate_size: usize,
    pub max_positions: usize,
    pub type_vocab_size: usize,
    pub layer_norm_eps: f64,
    pub hidden_dropout: f32,
    pub attention_dropout: f32,
    /// Falls back to `hidden_dropout` where the file has null or nothing.
    pub classifier_dropout: f32,
    pub activation: Activation,
    pub pad_token_id: u32,
    pub initializer_range: f64,
    /// Class names in index order; empty where the file has no `id2label`.
    pub labels: Vec<String>,
    /// The file as published. This, not the fields above, is what a save writes back.
    pub raw: Map<String, Value>,
}

/// The architectures there are; each is a file of this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelType {
    Bert,
}

impl ModelType {
    pub fn name(self) -> &'static str {
        match self {
            ModelType::Bert => "bert",
        }
    }
}

impl Config {
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
        let file = File { path, raw: &raw };
        let model_type = file.model_type()?;
        file.refuse_variants()?;
        let hidden_size = file.size("hidden_size", SIZES)?;
        let heads = file.size("num_attention_heads", SIZES)?;
        if !hidden_size.is_multiple_of(heads) {
            let expected = format!("a divisor of hidden_size, {hidden_size}");
            return Err(file.wrong("num_attention_heads", &heads, &expected));
        }
        let vocab_size = file.size("vocab_size", SIZES)?;
        let pad_token_id = file.size_or("pad_token_id", 0..=*SIZES.end(), 0)?;
        if pad_token_id >= vocab_size {
            let expected = format!("an id below vocab_size, {vocab_size}");
            return Err(file.wrong("pad_token_id", &pad_token_id, &expected));
        }
        let hidden_dropout = file.dropout("hidden_dropout_prob", 0.1)?;
        Ok(Config {
            model_type,
            vocab_size,
            hidden_size,
            layers: file.size("num_hidden_layers", LAYERS)?,
            heads,
            intermediate_size: file.size("intermediate_size", SIZES)?,
            max_positions: file.size("max_position_embeddings", SIZES)?,
            type_vocab_size: file.size_or("type_vocab_size", SIZES, 2)?,
            layer_norm_eps: file.number("layer_norm_eps", POSITIVE, 1e-12)?,
            hidden_dropout,
            attention_dropout: file.dropout("attention_probs_dropout_prob", 0.1)?,
            classifier_dropout: file.dropout("classifier_dropout", hidden_dropout)?,
            activation: file.activation()?,
            pad_token_id: pad_token_id as u32,
            initializer_range: file.number("initializer_range", POSITIVE, 0.02)?,
            labels: file.labels()?,
            raw,
        })
    }
}

/// Holds a tokenizer's size (added tokens included) against the embedding of the model in `dir`.
///
/// A tokenizer with more tokens than rows would fail in the middle of a run. One that is smaller by more than an
/// embedding is rounded up is another model's: cased and uncased BERT differ by 1,526 and would train without a word.
pub fn check_vocabulary(config: &Config, tokenizer_vocab_size: usize, dir: &Path) -> Result<()> {
    const ROUNDED_UP_BY: usize = 1024;
    let (dir, tokenizer, embedding) = (dir.to_path_buf(), tokenizer_vocab_size, config.vocab_size);
    if tokenizer > embedding {
        return Err(Error::TokenizerTooLarge { dir, tokenizer, embedding });
    }
    if embedding - tokenizer >= ROUNDED_UP_BY {
        return Err(Error::TokenizerTooSmall { dir, tokenizer, embedding });
    }
    Ok(())
}

/// Wide enough for any encoder, narrow enough that no product of two can overflow.
const SIZES: RangeInclusive<u64> = 1..=1 << 24;
/// Each layer is sixteen names, so this one bounds memory.
const LAYERS: RangeInclusive<u64> = 1..=1024;
const POSITIVE: RangeInclusive<f64> = f64::MIN_POSITIVE..=1.0;

struct File<'a> {
    path: &'a Path,
    raw: &'a Map<String, Value>,
}

impl File<'_> {
    /// Null means the same as a missing key, as it does in transformers.
    fn get(&self, key: &str) -> Option<&Value> {
        self.raw.get(key).filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, found: &dyn std::fmt::Display, expected: &str) -> Error {
        Error::Key {
            path: self.path.into(),
            key: key.into(),
            found: found.to_string(),
            expected: expected.into(),
        }
    }

    /// Checkpoints of 2018 and 2019 have no model_type. RoBERTa's tensors look like BERT's, so a guess needs a reason.
    fn model_type(&self) -> Result<ModelType> {
        let first_class = self.get("architectures").and_then(|list| list.get(0)?.as_str());
        match (self.get("model_type"), first_class) {
            (Some(Value::String(name)), _) if name == ModelType::Bert.name() => Ok(ModelType::Bert),
            (Some(Value::String(name)), _) => Err(Error::Architecture {
                path: self.path.into(),
                found: name.clone(),
                nearest: ModelType::Bert.name(),
            }),
            (None, Some(class)) if class.starts_with("Bert") => Ok(ModelType::Bert),
            (None, _) => Err(self.wrong(
                "model_type",
                &"missing",
                "the name of an architecture, such as \"bert\"",
            )),
            (Some(other), _) => Err(self.wrong("model_type", other, "text, such as \"bert\"")),
        }
    }

    /// Keys that change what the same weights compute; only the usual value is built.
    fn refuse_variants(&self) -> Result<()> {
        let usual = [
            ("position_embedding_type", Value::from("absolute")),
            ("is_decoder", Value::from(false)),
            ("add_cross_attention", Value::from(false)),
        ];
        for (key, usual) in usual {
            if let Some(found) = self.get(key).filter(|found| **found != usual) {
                return Err(self.wrong(key, found, &format!("{usual}, the only form supported")));
            }
        }
        Ok(())
    }

    fn size(&self, key: &str, range: RangeInclusive<u64>) -> Result<usize> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let value = self.get(key).ok_or_else(|| self.wrong(key, &"missing", &expected))?;
        match value.as_u64().filter(|n| range.contains(n)) {
            Some(n) => Ok(n as usize),
            None => Err(self.wrong(key, value, &expected)),
        }
    }

    fn size_or(&self, key: &str, range: RangeInclusive<u64>, default: usize) -> Result<usize> {
        if self.get(key).is_some() { self.size(key, range) } else { Ok(default) }
    }

    fn number(&self, key: &str, range: RangeInclusive<f64>, default: f64) -> Result<f64> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let number = value.as_f64().filter(|x| range.contains(x));
        let expected = format!("a number from {} to {}", range.start(), range.end());
        let expected = if range == POSITIVE { "a number above 0, at most 1" } else { &expected };
        number.ok_or_else(|| self.wrong(key, value, expected))
    }

    fn dropout(&self, key: &str, default: f32) -> Result<f32> {
        let p = self.number(key, 0.0..=1.0, f64::from(default))? as f32;
        if p < 1.0 { Ok(p) } else { Err(self.wrong(key, &p, "a probability below 1")) }
    }

    fn activation(&self) -> Result<Activation> {
        match self.get("hidden_act").map(|value| (value.as_str(), value)) {
            None | Some((Some("gelu"), _)) => Ok(Activation::Gelu(Gelu::Erf)),
            Some((Some("gelu_new" | "gelu_pytorch_tanh"), _)) => Ok(Activation::Gelu(Gelu::Tanh)),
            Some((Some("relu"), _)) => Ok(Activation::Relu),
            Some((_, other)) => {
                Err(self.wrong("hidden_act", other, "gelu, gelu_new, gelu_pytorch_tanh or relu"))
            }
        }
    }

    fn labels(&self) -> Result<Vec<String>> {
        let Some(value) = self.get("id2label") else { return Ok(Vec::new()) };
        let wrong = |expected: &str| self.wrong("id2label", value, expected);
        let by_id = value.as_object().ok_or_else(|| wrong("an object from ids to class names"))?;
        let mut ordered = BTreeMap::new();
        for (id, name) in by_id {
            let (Ok(id), Some(name)) = (id.parse::<usize>(), name.as_str()) else {
                return Err(wrong("an object from ids to class names"));
            };
            ordered.insert(id, name.to_string());
        }
        if ordered.len() != by_id.len() || !ordered.keys().copied().eq(0..ordered.len()) {
            return Err(wrong("the ids 0, 1, 2 and so on without a gap"));
        }
        let labels: Vec<String> = ordered.into_values().collect();
        let ids = label2id(&labels);
        if ids.len() != labels.len() {
            return Err(wrong("a different name for each id"));
        }
        if let Some(found) = self.get("label2id").filter(|found| **found != Value::from(ids)) {
            return Err(self.wrong(
                "label2id",
                found,
                &format!("the inverse of id2label, {value}"),
            ));
        }
        if let Some(found) = self.get("num_labels").filter(|found| **found != labels.len()) {
            let expected = format!("{}, the number of labels in id2label", labels.len());
            return Err(self.wrong("num_labels", found, &expected));
        }
        Ok(labels)
    }
}

/// Class name → index, in index order.
pub(crate) fn label2id(labels: &[String]) -> Map<String, Value> {
    labels.iter().enumerate().map(|(id, label)| (label.clone(), Value::from(id))).collect()
}
