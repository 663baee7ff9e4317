//! DeBERTa-v2 and -v3 (He et al. 2020, arXiv 2006.03654, and 2021, 2111.09543), as transformers'
//! `DebertaV2ForSequenceClassification`: scores with terms of relative position, from one table for all layers, and a pooler
//! with dropout before it and GELU. Refuses the convolution of the largest v2 checkpoints.

use candle_core::Tensor;
use lowchurn_kernels::{
    self as kernels, Activation, Affine, Buckets, Disentangled, Gelu, Half, Precision, Relation,
};
use serde_json::Value;

use crate::bert;
use crate::config::{ClassifierDropout, Details, Dialect, TokenTypes};
use crate::keys::{Keys, SIZES};
use crate::layers::{Named, affine, dropout, linear, mixed};
use crate::layout::{BlockNames, HeadActivation, HeadNames, Layout, Projection, Role, Site};
use crate::post_norm::Block;
use crate::states::{Kept, Rows, encode};
use crate::{Config, Input, Mode, Result, States, Wanted};

pub(crate) const DIALECT: Dialect = Dialect {
    embedding_size: Some(("embedding_size", None)),
    classifier_dropout: ClassifierDropout::OrHidden("cls_dropout"),
    token_types: TokenTypes::Read { least: 0, default: 0 },
    layer_norm_eps: (Some("layer_norm_eps"), 1e-7),
    ..bert::DIALECT
};

/// For roles and depths; shapes are this file's own.
pub(crate) const LAYOUT: Layout = Layout {
    prefix: "deberta.",
    parts: &["embeddings.", "encoder."],
    other_heads: &["cls.", "lm_predictions.", "mask_predictions.", "qa_outputs."],
    projection: Projection::None,
    block: BlockNames {
        query: "attention.self.query_proj",
        key: "attention.self.key_proj",
        value: "attention.self.value_proj",
        ..bert::BLOCK
    },
    head: HeadNames {
        dense: POOLER,
        activation: HeadActivation::Gelu,
        last: "classifier",
        first_dropout: Site::Dropped,
    },
    ..bert::LAYOUT
};

const POOLER: &str = "pooler.dense";
pub(crate) const PROJECTION: &str = "deberta.embeddings.embed_proj.weight";
pub(crate) const POSITIONS: &str = "deberta.embeddings.position_embeddings.weight";
pub(crate) const TABLE: &str = "deberta.encoder.rel_embeddings.weight";
pub(crate) const TABLE_NORM: &str = "deberta.encoder.LayerNorm";

/// What only this architecture's config says.
#[derive(Clone, Debug, PartialEq)]
pub struct Deberta {
    /// Whether absolute positions are added to the words.
    pub has_positions: bool,
    pub terms: Option<RelativeTerms>,
    pub pooler_dropout: f32,
    pub pooler_activation: Activation,
}

/// Which terms of relative position the scores have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelativeTerms {
    pub buckets: Buckets,
    /// Whether the table has a norm.
    pub is_normed: bool,
    /// Whether queries' and keys' own projections serve positions too.
    pub is_shared: bool,
    /// Content to position, `c2p`.
    pub has_keys: bool,
    /// Position to content, `p2c`.
    pub has_queries: bool,
}

pub(crate) fn details(keys: &Keys, hidden_size: usize, heads: usize) -> Result<Deberta> {
    if let Some(found) = keys.get("conv_kernel_size").filter(|found| **found != 0) {
        let expected = "0 or nothing: the convolution of deberta-v2-xlarge and -xxlarge isn't \
                        supported; take a checkpoint without it, such as microsoft/deberta-v3-base";
        return Err(keys.wrong("conv_kernel_size", found, expected));
    }
    keys.only("attention_head_size", (hidden_size / heads).into())?;
    keys.only("pooler_hidden_size", hidden_size.into())?;
    Ok(Deberta {
        has_positions: flag(keys, "position_biased_input", true)?,
        terms: relative_terms(keys)?,
        pooler_dropout: keys.dropout("pooler_dropout", 0.0)?,
        pooler_activation: keys.activation("pooler_hidden_act", Activation::Gelu(Gelu::Erf))?,
    })
}

fn relative_terms(keys: &Keys) -> Result<Option<RelativeTerms>> {
    let is_relative = flag(keys, "relative_attention", false)?;
    let types = position_types(keys)?;
    let [has_keys, has_queries] = ["c2p", "p2c"].map(|term| types.iter().any(|name| name == term));
    let norm =
        keys.get("norm_rel_ebd").map(|norm| norm.as_str().unwrap_or_default().to_lowercase());
    let is_normed = match norm.as_deref().map(str::trim) {
        None | Some("none") => false,
        Some("layer_norm") => true,
        Some(_) => {
            let found = keys.get("norm_rel_ebd").unwrap_or(&Value::Null);
            return Err(keys.wrong("norm_rel_ebd", found, "none or layer_norm"));
        }
    };
    // The original would scale scores for terms that aren't there, and keep a table that no gradient reaches.
    if is_relative != (has_keys || has_queries) || !is_relative && is_normed {
        let found = keys.get("pos_att_type").unwrap_or(&Value::Null);
        let expected =
            "c2p, p2c or both where relative_attention is true, else nothing and no norm_rel_ebd";
        return Err(keys.wrong("pos_att_type", found, expected));
    }
    if !is_relative {
        return Ok(None);
    }
    let farthest = match positive(keys, "max_relative_positions")? {
        Some(farthest) => farthest,
        None => keys.size("max_position_embeddings", SIZES)?,
    };
    let buckets = match positive(keys, "position_buckets")? {
        Some(span) => Buckets::Centred { span, farthest: Some(farthest) },
        None => Buckets::Centred { span: farthest, farthest: None },
    };
    if buckets.check().is_err() {
        let found = keys.get("position_buckets").unwrap_or(&Value::Null);
        let expected =
            format!("2 or more, and less than twice max_relative_positions, {farthest}, less 2");
        return Err(keys.wrong("position_buckets", found, &expected));
    }
    let is_shared = flag(keys, "share_att_key", false)?;
    Ok(Some(RelativeTerms { buckets, is_normed, is_shared, has_keys, has_queries }))
}

/// `pos_att_type`, as a list or as text with bars between.
fn position_types(keys: &Keys) -> Result<Vec<String>> {
    let Some(value) = keys.get("pos_att_type") else { return Ok(Vec::new()) };
    let types: Option<Vec<String>> = match value {
        Value::String(text) => {
            Some(text.split('|').map(|term| term.trim().to_lowercase()).collect())
        }
        Value::Array(list) => list.iter().map(|term| term.as_str().map(str::to_string)).collect(),
        _ => None,
    };
    let is_known = |term: &String| ["c2p", "p2c"].contains(&term.as_str());
    types
        .map(|types| types.into_iter().filter(|term| !term.is_empty()).collect::<Vec<_>>())
        .filter(|types| types.iter().all(is_known))
        .ok_or_else(|| {
            keys.wrong("pos_att_type", value, "c2p, p2c or both, as a list or as \"p2c|c2p\"")
        })
}

fn flag(keys: &Keys, key: &str, default: bool) -> Result<bool> {
    match keys.get(key) {
        None => Ok(default),
        Some(value) => value.as_bool().ok_or_else(|| keys.wrong(key, value, "true or false")),
    }
}

/// A size, or nothing where the file has none or a number below 1.
fn positive(keys: &Keys, key: &str) -> Result<Option<usize>> {
    match keys.get(key) {
        None => Ok(None),
        Some(value) if value.as_i64().is_some_and(|n| n < 1) => Ok(None),
        Some(_) => keys.size(key, SIZES).map(Some),
    }
}

/// What a config says that says nothing of it.
const PLAIN: Deberta = Deberta {
    has_positions: true,
    terms: None,
    pooler_dropout: 0.0,
    pooler_activation: Activation::Gelu(Gelu::Erf),
};

pub(crate) fn of(config: &Config) -> &Deberta {
    match &config.details {
        Details::DebertaV2(details) => details,
        _ => &PLAIN,
    }
}

/// What a tensor of a published checkpoint is. Some have a table of absolute positions that their models don't.
pub(crate) fn role(config: &Config, name: &str) -> Role {
    match LAYOUT.role(name) {
        Role::Parameter(name) if name == POSITIONS && !of(config).has_positions => Role::OtherHead,
        role => role,
    }
}

/// Name and shape of each parameter, with K classes.
pub(crate) fn shapes(config: &Config, classes: usize) -> Vec<(String, Vec<usize>)> {
    let &Config { hidden_size: c, embedding_size: e, intermediate_size: f, .. } = config;
    let (details, block) = (of(config), &LAYOUT.block);
    let mut shapes = Vec::new();
    let mut add = |name: &str, shape: &[usize]| shapes.push((name.to_string(), shape.to_vec()));
    add("deberta.embeddings.word_embeddings.weight", &[config.vocab_size, e]);
    if details.has_positions {
        add(POSITIONS, &[config.max_positions, e]);
    }
    if config.type_vocab_size > 0 {
        add("deberta.embeddings.token_type_embeddings.weight", &[config.type_vocab_size, e]);
    }
    if e != c {
        add(PROJECTION, &[c, e]);
    }
    if let Some(terms) = details.terms {
        add(TABLE, &[terms.buckets.rows(), c]);
    }
    let mut add_pair = |name: String, weight: &[usize]| {
        add(&format!("{name}.weight"), weight);
        add(&format!("{name}.bias"), &weight[..1]);
    };
    for layer in LAYOUT.layer_names(config) {
        for name in [block.query, block.key, block.value, block.output] {
            add_pair(format!("{layer}.{name}"), &[c, c]);
        }
        for name in own_projections(details.terms).into_iter().flatten() {
            add_pair(format!("{layer}.{name}"), &[c, c]);
        }
        add_pair(format!("{layer}.{}", block.inner), &[f, c]);
        add_pair(format!("{layer}.{}", block.outer), &[c, f]);
        add_pair(format!("{layer}.{}", block.attention_norm), &[c]);
        add_pair(format!("{layer}.{}", block.norm), &[c]);
    }
    add_pair("deberta.embeddings.LayerNorm".into(), &[c]);
    if details.terms.is_some_and(|terms| terms.is_normed) {
        add_pair(TABLE_NORM.into(), &[c]);
    }
    add_pair(LAYOUT.head.dense.into(), &[c, c]);
    add_pair(LAYOUT.head.last.into(), &[classes, c]);
    shapes
}

/// Names of a layer's projections of positions where they aren't those of its queries and keys: keys', then queries'.
pub(crate) fn own_projections(terms: Option<RelativeTerms>) -> [Option<&'static str>; 2] {
    match terms {
        Some(RelativeTerms { is_shared: false, has_keys, has_queries, .. }) => [
            has_keys.then_some("attention.self.pos_key_proj"),
            has_queries.then_some("attention.self.pos_query_proj"),
        ],
        _ => [None, None],
    }
}

pub(crate) struct DebertaV2 {
    embeddings: Embeddings,
    blocks: Vec<Block>,
    pooler: Affine,
    classifier: Affine,
}

/// E is C but for models that project.
struct Embeddings {
    word: Tensor,               // (V, E)
    position: Option<Tensor>,   // (P, E)
    token_type: Option<Tensor>, // (types, E)
    projection: Option<Tensor>, // (C, E)
    norm: Affine,
}

impl DebertaV2 {
    pub(crate) fn new(config: &Config, named: Named) -> Result<DebertaV2> {
        let details = of(config);
        let layers = LAYOUT.layer_names(config);
        let blocks = layers.iter().map(|layer| {
            let block = Block::new(&LAYOUT.block, layer, config, named)?;
            match details.terms {
                Some(terms) => {
                    let relation = relation(terms, &block, layer, named)?;
                    Ok(block.related(relation))
                }
                None => Ok(block),
            }
        });
        Ok(DebertaV2 {
            blocks: blocks.collect::<Result<_>>()?,
            embeddings: Embeddings::new(config, details, named)?,
            pooler: affine(named, LAYOUT.head.dense)?,
            classifier: affine(named, LAYOUT.head.last)?,
        })
    }

    /// Logits (B, K) and the pooled vectors (B, C), before their dropout.
    pub(crate) fn forward(
        &self,
        config: &Config,
        input: &Input,
        mut mode: Mode,
        precision: Precision,
        wanted: &Wanted,
    ) -> Result<States> {
        let (details, mode) = (of(config), &mut mode);
        let x = self.embeddings.forward(config, input, mode, precision)?; // (N, C)
        let (x, sequences) = mixed(x, input)?;
        let halves: Vec<Half> =
            self.blocks.iter().flat_map(|block| block.halves(config, mode)).collect();
        let (first, Kept { hidden, attention }) =
            encode(&x, &sequences, halves, Rows::First, wanted, precision)?; // (B, C)
        let first = dropout(first, details.pooler_dropout, mode)?;
        let pooled = details.pooler_activation.of(&linear(&first, &self.pooler)?)?;
        let dropped = dropout(pooled.clone(), config.classifier_dropout, mode)?;
        let logits = linear(&dropped, &self.classifier)?;
        Ok(States { logits, pooled, hidden, attention, sequences })
    }
}

/// The terms of one layer; table and norm are the same variables in all of them.
fn relation(terms: RelativeTerms, block: &Block, layer: &str, named: Named) -> Result<Relation> {
    let [own_key, own_query] = own_projections(Some(terms))
        .map(|name| name.map(|name| affine(named, &format!("{layer}.{name}"))).transpose());
    let shared = |has: bool, affine: &Affine| (terms.is_shared && has).then(|| affine.clone());
    let (query, key) = block.query_and_key();
    Ok(Relation::Disentangled(Disentangled {
        table: named(TABLE)?,
        norm: if terms.is_normed { Some(affine(named, TABLE_NORM)?) } else { None },
        key: own_key?.or_else(|| shared(terms.has_keys, key)),
        query: own_query?.or_else(|| shared(terms.has_queries, query)),
        buckets: terms.buckets,
    }))
}

impl Embeddings {
    fn new(config: &Config, details: &Deberta, named: Named) -> Result<Embeddings> {
        let if_there = |is_there: bool, name: &str| is_there.then(|| named(name)).transpose();
        Ok(Embeddings {
            word: named("deberta.embeddings.word_embeddings.weight")?,
            position: if_there(details.has_positions, POSITIONS)?,
            token_type: if_there(
                config.type_vocab_size > 0,
                "deberta.embeddings.token_type_embeddings.weight",
            )?,
            projection: if_there(config.embedding_size != config.hidden_size, PROJECTION)?,
            norm: affine(named, "deberta.embeddings.LayerNorm")?,
        })
    }

    /// dropout(norm(projection(word + position + type))), (N, C).
    fn forward(
        &self,
        config: &Config,
        input: &Input,
        mode: &mut Mode,
        precision: Precision,
    ) -> Result<Tensor> {
        let mut x = kernels::embedding(&self.word, &input.ids)?; // (N, E)
        if let Some(table) = &self.position {
            x = kernels::add(&x, &kernels::embedding(table, &input.positions_for(config)?)?)?;
        }
        if let Some(table) = &self.token_type {
            x = kernels::add(&x, &kernels::embedding(table, &input.types_for(config)?)?)?;
        }
        if let Some(weight) = &self.projection {
            x = kernels::linear(&x, weight, None, precision)?; // (N, C)
        }
        let x = kernels::layer_norm(&x, &self.norm.weight, &self.norm.bias, config.layer_norm_eps)?;
        let dropped = mode.dropout(config.hidden_dropout);
        Ok(kernels::dropout_rows(&x, &input.sequences, dropped)?)
    }
}
