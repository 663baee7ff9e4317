//! Blocks with the norm after the sum, as operators: self-attention with or without terms of distance, then the feed-forward
//! layer.

use super::graph::{Attribute, Graph, Name};
use crate::Config;
use crate::layout::BlockNames;

/// What is added to the scaled scores, and terms of relative position.
pub(crate) enum Scores<'a> {
    /// (B, 1, 1, T), or with a bias for each head (B, H, T, T).
    Added(&'a str),
    Disentangled(&'a Disentangled, &'a str),
}

/// DeBERTa's terms, shared by all layers.
pub(crate) struct Disentangled {
    /// (R, C), after its norm.
    pub(crate) table: Name,
    /// The table's row for query i and key j, (T, T), and for key i and query j.
    pub(crate) rows: Name,
    pub(crate) rows_of_keys: Name,
    /// Of a layer: its projections of positions, behind the layer's own name; content to position, position to content.
    pub(crate) key: Option<&'static str>,
    pub(crate) query: Option<&'static str>,
}

/// norm(x + outer(activation(inner(..)))) of norm(x + output(attention(x))), (B, T, C) → (B, T, C).
pub(crate) fn block(
    graph: &mut Graph,
    names: &BlockNames,
    layer: &str,
    config: &Config,
    x: &str,
    scores: &Scores,
) -> Name {
    let part = |part: &str| format!("{layer}.{part}");
    let (heads, c) = (config.heads, config.hidden_size);
    let d = c / heads;
    let q = graph.linear(x, &part(names.query));
    let k = graph.linear(x, &part(names.key));
    let v = graph.linear(x, &part(names.value));
    let [q, k, v] = [q, k, v].map(|x| graph.split_heads(&x, heads, d)); // (B, H, T, D)
    let k_turned = graph.transpose(&k, &[0, 1, 3, 2]);
    let products = graph.matmul(&q, &k_turned); // (B, H, T, T)
    let (products, terms, added) = match scores {
        Scores::Added(added) => (products, 0, *added),
        Scores::Disentangled(terms, mask) => {
            let (sum, n) = disentangled(graph, terms, layer, (heads, d), (&q, &k), products);
            (sum, n, *mask)
        }
    };
    let scale = graph.float(1.0 / ((d * (1 + terms)) as f32).sqrt());
    let scaled = graph.mul(&products, &scale);
    let scaled = graph.add(&scaled, added);
    let probabilities = graph.node("Softmax", &[&scaled], &[Attribute::Int("axis", -1)]);
    let y = graph.matmul(&probabilities, &v);
    let y = graph.join_heads(&y, c);
    let y = graph.linear(&y, &part(names.output));
    let sum = graph.add(&y, x);
    let x = graph.norm(&sum, &part(names.attention_norm), config.layer_norm_eps);
    let y = graph.linear(&x, &part(names.inner));
    let y = graph.activation(&y, config.activation);
    let y = graph.linear(&y, &part(names.outer));
    let sum = graph.add(&y, &x);
    graph.norm(&sum, &part(names.norm), config.layer_norm_eps)
}

/// qᵢ·kⱼ + qᵢ·key(e) + query(e)·kⱼ with e the table's row for the pair, and how many terms were added.
fn disentangled(
    graph: &mut Graph,
    terms: &Disentangled,
    layer: &str,
    (heads, d): (usize, usize),
    (q, k): (&str, &str),
    products: Name,
) -> (Name, usize) {
    let shape = graph.node("Shape", &[&products], &[]);
    let mut sum = products;
    // (R, C) → (1, H, D, R)
    let project = |graph: &mut Graph, name: &str| {
        let x = graph.linear(&terms.table, &format!("{layer}.{name}"));
        let x = graph.reshape(&x, &[1, -1, heads as i64, d as i64]);
        graph.transpose(&x, &[0, 2, 3, 1])
    };
    let pick = |graph: &mut Graph, of_rows: &str, rows: &str| {
        let rows = graph.node("Expand", &[rows, &shape], &[]);
        graph.node("GatherElements", &[of_rows, &rows], &[Attribute::Int("axis", 3)])
    };
    if let Some(name) = terms.key {
        let positions = project(graph, name);
        let of_rows = graph.matmul(q, &positions); // (B, H, T, R)
        let term = pick(graph, &of_rows, &terms.rows);
        sum = graph.add(&sum, &term);
    }
    if let Some(name) = terms.query {
        let positions = project(graph, name);
        let of_rows = graph.matmul(k, &positions); // (B, H, T, R), key after key
        let term = pick(graph, &of_rows, &terms.rows_of_keys);
        let term = graph.transpose(&term, &[0, 1, 3, 2]);
        sum = graph.add(&sum, &term);
    }
    (sum, usize::from(terms.key.is_some()) + usize::from(terms.query.is_some()))
}
