//! BERT and its relatives as operators; see `post_norm.rs` for what they compute.

use lowchurn_kernels::{Activation, Gelu};

use super::attention::{Scores, block};
use super::graph::{Attribute, Graph, Name};
use super::{IDS, TYPES, has_types};
use crate::Config;
use crate::layout::{BIAS_BUCKETS, HeadActivation, Layout};

/// Logits (B, K).
pub(crate) fn post_norm(graph: &mut Graph, layout: &Layout, config: &Config) -> Name {
    let mut x = embeddings(graph, layout, config); // (B, T, C)
    let mask = graph.mask();
    let added = match layout.relative_bias {
        Some(name) => {
            let table = graph.parameter(&format!("{}{name}", layout.prefix)); // (R, H)
            let rows = graph.buckets(BIAS_BUCKETS, config.max_positions); // (T, T)
            let bias = graph.gather(&table, &rows, 0); // (T, T, H)
            let bias = graph.transpose(&bias, &[2, 0, 1]);
            graph.add(&bias, &mask) // (B, H, T, T)
        }
        None => mask,
    };
    let layers = layout.layer_names(config);
    for at in layout.layer_order(config) {
        x = block(graph, &layout.block, &layers[at], config, &x, &Scores::Added(&added));
    }
    let x = graph.first_tokens(&x); // (B, C)
    let x = graph.head_linear(&x, layout.head.dense, true);
    let x = match layout.head.activation {
        HeadActivation::Tanh => graph.node("Tanh", &[&x], &[]),
        HeadActivation::Gelu => graph.activation(&x, Activation::Gelu(Gelu::Erf)),
        HeadActivation::Relu => graph.activation(&x, Activation::Relu),
    };
    graph.head_linear(&x, layout.head.last, true)
}

/// projection(norm(word + type + position)), (B, T, C).
fn embeddings(graph: &mut Graph, layout: &Layout, config: &Config) -> Name {
    let table = |name: &str| format!("{}embeddings.{name}_embeddings.weight", layout.prefix);
    let words = graph.parameter(&table("word"));
    let mut x = graph.gather(&words, IDS, 0);
    if config.type_vocab_size > 0 {
        let types = graph.parameter(&table("token_type"));
        let rows = if has_types(config) { TYPES.into() } else { graph.int(0) };
        let types = graph.gather(&types, &rows, 0);
        x = graph.add(&x, &types);
    }
    let positions = positions(graph, &table("position"), config);
    let x = graph.add(&x, &positions);
    let x =
        graph.norm(&x, &format!("{}embeddings.LayerNorm", layout.prefix), config.layer_norm_eps);
    match layout.projection(config) {
        Some(name) => graph.linear(&x, &name),
        None => x,
    }
}

/// Rows of the position table: the first T, or those behind the padding token's by the count of other tokens.
pub(crate) fn positions(graph: &mut Graph, table: &str, config: &Config) -> Name {
    let table = graph.parameter(table);
    let Some(padding) = config.first_position.checked_sub(1) else {
        let (width, zero, one) = (graph.width(), graph.ints(&[1], &[0]), graph.ints(&[1], &[1]));
        let width = graph.node("Reshape", &[&width, &one], &[]);
        return graph.node("Slice", &[&table, &zero, &width, &zero], &[]); // (T, E)
    };
    let padding = graph.int(padding as i64);
    let is_padding = graph.node("Equal", &[IDS, &padding], &[]);
    let is_token = graph.node("Not", &[&is_padding], &[]);
    let is_token = graph.cast(&is_token, 7);
    let axis = graph.int(1);
    let count = graph.node("CumSum", &[&is_token, &axis], &[Attribute::Int("exclusive", 0)]);
    let count = graph.mul(&count, &is_token);
    let rows = graph.add(&count, &padding);
    graph.gather(&table, &rows, 0) // (B, T, E)
}
