//! ALBERT (Lan et al. 2020, arXiv 1909.11942), as transformers' `AlbertForSequenceClassification`: narrow tables that are
//! projected, and layers that share their parameters, group by group. Nothing is dropped behind the feed-forward layer.

use lowchurn_kernels::{Activation, Gelu};

use crate::Result;
use crate::bert;
use crate::config::{ClassifierDropout, Dialect};
use crate::keys::{Keys, LAYERS};
use crate::layout::{BlockNames, HeadActivation, HeadNames, Layout, Projection, Site};

/// Layers of one group are the same `inner` blocks, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    pub groups: usize,
    pub inner: usize,
}

pub(crate) const DIALECT: Dialect = Dialect {
    embedding_size: Some(("embedding_size", Some(128))),
    activation: ("hidden_act", Activation::Gelu(Gelu::Tanh)),
    hidden_dropout: ("hidden_dropout_prob", 0.0),
    attention_dropout: ("attention_probs_dropout_prob", 0.0),
    classifier_dropout: ClassifierDropout::Or("classifier_dropout_prob", 0.1),
    ..bert::DIALECT
};

pub(crate) const LAYOUT: Layout = Layout {
    prefix: "albert.",
    other_heads: &["predictions.", "sop_classifier.", "qa_outputs."],
    projection: Projection::Always("encoder.embedding_hidden_mapping_in"),
    block: BlockNames {
        query: "attention.query",
        key: "attention.key",
        value: "attention.value",
        output: "attention.dense",
        attention_norm: "attention.LayerNorm",
        inner: "ffn",
        outer: "ffn_output",
        norm: "full_layer_layer_norm",
        output_dropout: Site::Dropped,
        outer_dropout: Site::Kept,
    },
    head: HeadNames {
        dense: "albert.pooler",
        activation: HeadActivation::Tanh,
        last: "classifier",
        first_dropout: Site::Kept,
    },
    ..bert::LAYOUT
};

pub(crate) fn groups(keys: &Keys, layers: usize) -> Result<Groups> {
    // A group of layers is a loop over blocks, and their number times the layers' is what runs.
    const INNER: u64 = 64;
    let groups = keys.size_or("num_hidden_groups", 1..=layers as u64, 1)?;
    let blocks = (LAYERS.end() / groups as u64).min(INNER);
    Ok(Groups { groups, inner: keys.size_or("inner_group_num", 1..=blocks, 1)? })
}

pub(crate) fn layer_names(&Groups { groups, inner }: &Groups) -> Vec<String> {
    let name = |group: usize, block: usize| {
        format!("albert.encoder.albert_layer_groups.{group}.albert_layers.{block}")
    };
    (0..groups).flat_map(|group| (0..inner).map(move |block| name(group, block))).collect()
}

/// Layer i belongs to group ⌊i / (layers / groups)⌋, the division in floating point as the original has it. (layers,)
pub(crate) fn group_of(&Groups { groups, .. }: &Groups, layers: usize) -> Vec<usize> {
    let of = |layer: usize| layer as f64 / (layers as f64 / groups as f64);
    (0..layers).map(|layer| (of(layer) as usize).min(groups - 1)).collect()
}

/// Blocks in the order in which they run.
pub(crate) fn layer_order(groups: &Groups, layers: usize) -> Vec<usize> {
    let inner = groups.inner;
    let blocks = group_of(groups, layers).into_iter();
    blocks.flat_map(|group| (0..inner).map(move |block| group * inner + block)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The orders are those of Python's `int(i / (layers / groups))`.
    #[test]
    fn layers_of_a_group_follow_each_other() {
        let order = |groups, inner, layers| layer_order(&Groups { groups, inner }, layers);
        assert_eq!(order(1, 1, 3), [0, 0, 0]);
        assert_eq!(order(2, 1, 3), [0, 0, 1]);
        assert_eq!(order(2, 2, 2), [0, 1, 2, 3]);
        assert_eq!(order(5, 1, 7), [0, 0, 1, 2, 2, 3, 4]);
        assert_eq!(
            layer_names(&Groups { groups: 2, inner: 2 })[1..3],
            [
                "albert.encoder.albert_layer_groups.0.albert_layers.1",
                "albert.encoder.albert_layer_groups.1.albert_layers.0",
            ]
        );
    }
}
