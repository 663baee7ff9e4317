//! MPNet (Song et al. 2020, arXiv 2004.09297), as transformers' `MPNetForSequenceClassification`: RoBERTa without token
//! types, and with a bias by relative position on the attention scores, from one table for all layers.

use crate::Result;
use crate::config::{ClassifierDropout, Dialect, TokenTypes};
use crate::keys::Keys;
use crate::layout::{BlockNames, Layout};
use crate::{bert, roberta};

pub(crate) const DIALECT: Dialect = Dialect {
    classifier_dropout: ClassifierDropout::Hidden,
    token_types: TokenTypes::None,
    ..roberta::DIALECT
};

pub(crate) const LAYOUT: Layout = Layout {
    prefix: "mpnet.",
    block: BlockNames {
        query: "attention.attn.q",
        key: "attention.attn.k",
        value: "attention.attn.v",
        output: "attention.attn.o",
        attention_norm: "attention.LayerNorm",
        ..bert::BLOCK
    },
    relative_bias: Some("encoder.relative_attention_bias.weight"),
    ..roberta::LAYOUT
};

/// The original counts positions from behind 1 and distances in 32 buckets whatever its config says.
pub(crate) fn check(keys: &Keys) -> Result<()> {
    keys.only("pad_token_id", 1.into())?;
    keys.only("relative_attention_num_buckets", 32.into())
}
