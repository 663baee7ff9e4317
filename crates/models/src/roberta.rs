//! RoBERTa (Liu et al. 2019, arXiv 1907.11692), XLM-RoBERTa (Conneau et al. 2020, arXiv 1911.02116) and CamemBERT (Martin
//! et al. 2020, arXiv 1911.03894), as transformers' `RobertaForSequenceClassification` and its like: one network, three names
//! in config.json. Positions begin behind the padding token's, all tokens have one type, and the head has its own dense layer:
//! a pooler in the checkpoint belongs to another task.

use crate::bert;
use crate::config::{Dialect, Positions, TokenTypes};
use crate::layout::{HeadActivation, HeadNames, Layout, Site};

pub(crate) const DIALECT: Dialect = Dialect {
    token_types: TokenTypes::First { default: 2 },
    positions: Positions::AfterPadding,
    pad_token_id: 1,
    ..bert::DIALECT
};

pub(crate) const LAYOUT: Layout = Layout {
    prefix: "roberta.",
    parts: &["embeddings.", "encoder."],
    other_heads: &["lm_head.", "pooler.", "qa_outputs."],
    head: HEAD,
    ..bert::LAYOUT
};

pub(crate) const HEAD: HeadNames = HeadNames {
    dense: "classifier.dense",
    activation: HeadActivation::Tanh,
    last: "classifier.out_proj",
    first_dropout: Site::Dropped,
};
