//! ELECTRA's discriminator (Clark et al. 2020, arXiv 2003.10555), as transformers' `ElectraForSequenceClassification`: BERT
//! with narrow tables that are projected to the layers' width, and RoBERTa's head with GELU.

use crate::config::Dialect;
use crate::layout::{HeadActivation, HeadNames, Layout, Projection};
use crate::{bert, roberta};

pub(crate) const DIALECT: Dialect =
    Dialect { embedding_size: Some(("embedding_size", Some(128))), ..bert::DIALECT };

pub(crate) const LAYOUT: Layout = Layout {
    prefix: "electra.",
    parts: &["embeddings.", "embeddings_project.", "encoder."],
    other_heads: &[
        "discriminator_predictions.",
        "generator_predictions.",
        "generator_lm_head.",
        "qa_outputs.",
    ],
    projection: Projection::WhereSizesDiffer("embeddings_project"),
    head: HeadNames { activation: HeadActivation::Gelu, ..roberta::HEAD },
    ..bert::LAYOUT
};
