//! BERT for sequence classification, as Devlin et al. 2019 (arXiv 1810.04805) and transformers'
//! `BertForSequenceClassification` have it: embeddings → encoder → pooler on the first token → head.

use lowchurn_kernels::{Activation, Gelu};

use crate::config::{ClassifierDropout, Dialect, Positions, TokenTypes};
use crate::layout::{BlockNames, HeadActivation, HeadNames, Layout, Projection, Site};

pub(crate) const DIALECT: Dialect = Dialect {
    hidden_size: "hidden_size",
    embedding_size: None,
    layers: "num_hidden_layers",
    heads: "num_attention_heads",
    intermediate_size: "intermediate_size",
    activation: ("hidden_act", Activation::Gelu(Gelu::Erf)),
    hidden_dropout: ("hidden_dropout_prob", 0.1),
    attention_dropout: ("attention_probs_dropout_prob", 0.1),
    classifier_dropout: ClassifierDropout::OrHidden("classifier_dropout"),
    token_types: TokenTypes::Read { least: 1, default: 2 },
    positions: Positions::FromZero,
    pad_token_id: 0,
    layer_norm_eps: (Some("layer_norm_eps"), 1e-12),
};

pub(crate) const LAYOUT: Layout = Layout {
    prefix: "bert.",
    parts: &["embeddings.", "encoder.", "pooler."],
    other_heads: &["cls.", "qa_outputs."],
    projection: Projection::None,
    layers: "encoder.layer",
    block: BLOCK,
    relative_bias: None,
    head: HeadNames {
        dense: "bert.pooler.dense",
        activation: HeadActivation::Tanh,
        last: "classifier",
        first_dropout: Site::Kept,
    },
};

/// RoBERTa and ELECTRA were made of the same code.
pub(crate) const BLOCK: BlockNames = BlockNames {
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    inner: "intermediate.dense",
    outer: "output.dense",
    norm: "output.LayerNorm",
    output_dropout: Site::Dropped,
    outer_dropout: Site::Dropped,
};
