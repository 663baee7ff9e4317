//! ModernBERT as operators; see `modernbert.rs` for what it computes.

use lowchurn_kernels::Rotary;

use super::graph::{Attribute, Graph, Name};
use super::{IDS, MASK};
use crate::modernbert::{HeadBias, LayerAttention, Modern, Pooling};
use crate::{Config, Result};

/// Cosines and sines of the angles of T places, (T, D/2) each.
struct Angles {
    cos: Name,
    sin: Name,
}

/// Logits (B, K).
pub(crate) fn modernbert(graph: &mut Graph, config: &Config, modern: &Modern) -> Result<Name> {
    let (eps, d) = (config.layer_norm_eps, config.hidden_size / config.heads);
    let words = graph.parameter("model.embeddings.tok_embeddings.weight");
    let x = graph.gather(&words, IDS, 0);
    let mut x = graph.norm_without_bias(&x, "model.embeddings.norm", eps); // (B, T, C)
    let mask = graph.mask(); // (B, 1, 1, T)
    let distances = graph.distances();
    let window = graph.window(&distances, modern.reach);
    let near = graph.add(&mask, &window); // (B, 1, T, T)
    let global = angles(graph, modern.global_theta, d)?;
    let local = angles(graph, modern.local_theta, d)?;
    for (n, attention) in modern.attention.iter().enumerate() {
        let part = |part: &str| format!("model.layers.{n}.{part}");
        let (added, angles) = match attention {
            LayerAttention::Global => (&mask, &global),
            LayerAttention::Local => (&near, &local),
        };
        let normed = match n {
            0 => x.clone(),
            _ => graph.norm_without_bias(&x, &part("attn_norm"), eps),
        };
        let y = attention_of(graph, config, &part("attn"), &normed, added, angles);
        x = graph.add(&x, &y);
        let y = graph.norm_without_bias(&x, &part("mlp_norm"), eps);
        let y = graph.linear_without_bias(&y, &part("mlp.Wi.weight")); // (B, T, 2·F)
        let (a, b) = (
            graph.part(&y, 0, config.intermediate_size),
            graph.part(&y, 1, config.intermediate_size),
        );
        let a = graph.activation(&a, config.activation);
        let y = graph.mul(&a, &b);
        let y = graph.linear_without_bias(&y, &part("mlp.Wo.weight"));
        x = graph.add(&x, &y);
    }
    let x = graph.norm_without_bias(&x, "model.final_norm", eps);
    let x = match modern.pooling {
        Pooling::First => graph.first_tokens(&x),
        Pooling::Mean => mean(graph, &x),
    }; // (B, C)
    let x = graph.head_linear(&x, "head.dense", modern.head_bias == HeadBias::With);
    let x = graph.activation(&x, modern.head_activation);
    let x = graph.norm_without_bias(&x, "head.norm", eps);
    Ok(graph.head_linear(&x, "classifier", true))
}

fn angles(graph: &mut Graph, theta: f64, d: usize) -> Result<Angles> {
    let frequencies = Rotary::frequencies(theta, d)?;
    let frequencies = graph.floats(&[1, d / 2], &frequencies);
    let places = graph.places();
    let places = graph.cast(&places, 1);
    let places = graph.unsqueeze(&places, &[1]);
    let angles = graph.mul(&places, &frequencies); // (T, D/2)
    Ok(Angles { cos: graph.node("Cos", &[&angles], &[]), sin: graph.node("Sin", &[&angles], &[]) })
}

/// output(softmax(q·kᵀ/√D + added)·v) with q and k turned, (B, T, C) → (B, T, C).
fn attention_of(
    graph: &mut Graph,
    config: &Config,
    layer: &str,
    x: &str,
    added: &str,
    angles: &Angles,
) -> Name {
    let (heads, c) = (config.heads, config.hidden_size);
    let d = c / heads;
    let together = graph.linear_without_bias(x, &format!("{layer}.Wqkv.weight")); // (B, T, 3·C)
    let [q, k, v] = [0, 1, 2].map(|at| {
        let x = graph.part(&together, at, c);
        graph.split_heads(&x, heads, d) // (B, H, T, D)
    });
    let [q, k] = [q, k].map(|x| rotated(graph, &x, d / 2, angles));
    let k = graph.transpose(&k, &[0, 1, 3, 2]);
    let scale = graph.float(1.0 / (d as f32).sqrt());
    let scores = graph.matmul(&q, &k);
    let scores = graph.mul(&scores, &scale);
    let scores = graph.add(&scores, added);
    let probabilities = graph.node("Softmax", &[&scores], &[Attribute::Int("axis", -1)]);
    let y = graph.matmul(&probabilities, &v);
    let y = graph.join_heads(&y, c);
    graph.linear_without_bias(&y, &format!("{layer}.Wo.weight"))
}

/// Channel i of D turned with channel i + D/2.
fn rotated(graph: &mut Graph, x: &str, half: usize, Angles { cos, sin }: &Angles) -> Name {
    let (x_1, x_2) = (graph.part(x, 0, half), graph.part(x, 1, half));
    let (a, b) = (graph.mul(&x_1, cos), graph.mul(&x_2, sin));
    let y_1 = graph.node("Sub", &[&a, &b], &[]);
    let (a, b) = (graph.mul(&x_2, cos), graph.mul(&x_1, sin));
    let y_2 = graph.add(&a, &b);
    graph.node("Concat", &[&y_1, &y_2], &[Attribute::Int("axis", -1)])
}

/// Mean over the tokens of each text, (B, T, C) → (B, C).
fn mean(graph: &mut Graph, x: &str) -> Name {
    let mask = graph.cast(MASK, 1);
    let mask = graph.unsqueeze(&mask, &[2]); // (B, T, 1)
    let axis = graph.ints(&[1], &[1]);
    let kept = graph.mul(x, &mask);
    let without = [Attribute::Int("keepdims", 0)];
    let sum = graph.node("ReduceSum", &[&kept, &axis], &without);
    let length = graph.node("ReduceSum", &[&mask, &axis], &without);
    graph.node("Div", &[&sum, &length], &[])
}
