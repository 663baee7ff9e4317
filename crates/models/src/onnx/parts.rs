//! The parts that encoders share, as operators: linear layers, norms, activations, heads, masks, distances between tokens.
//! The slow twins in the kernels crate say what each computes.

use std::f32::consts::{FRAC_1_SQRT_2, PI};

use lowchurn_kernels::{Activation, Buckets, Gelu};

use super::graph::{Attribute, Graph, Name};
use super::{IDS, MASK};

/// What a masked score is: its exponential is 0, and a row of nothing else is still finite.
const FAR_BELOW: f32 = -1e9;

impl Graph {
    pub(crate) fn add(&mut self, a: &str, b: &str) -> Name {
        self.node("Add", &[a, b], &[])
    }

    pub(crate) fn mul(&mut self, a: &str, b: &str) -> Name {
        self.node("Mul", &[a, b], &[])
    }

    pub(crate) fn matmul(&mut self, a: &str, b: &str) -> Name {
        self.node("MatMul", &[a, b], &[])
    }

    pub(crate) fn transpose(&mut self, x: &str, order: &[i64]) -> Name {
        self.node("Transpose", &[x], &[Attribute::Ints("perm", order)])
    }

    pub(crate) fn reshape(&mut self, x: &str, shape: &[i64]) -> Name {
        let shape = self.ints(&[shape.len()], shape);
        self.node("Reshape", &[x, &shape], &[])
    }

    pub(crate) fn gather(&mut self, table: &str, rows: &str, axis: i64) -> Name {
        self.node("Gather", &[table, rows], &[Attribute::Int("axis", axis)])
    }

    pub(crate) fn unsqueeze(&mut self, x: &str, axes: &[i64]) -> Name {
        let axes = self.ints(&[axes.len()], axes);
        self.node("Unsqueeze", &[x, &axes], &[])
    }

    /// Part `at` of parts of `size` along the last axis.
    pub(crate) fn part(&mut self, x: &str, at: usize, size: usize) -> Name {
        let (start, end) = ((at * size) as i64, ((at + 1) * size) as i64);
        let (start, end) = (self.ints(&[1], &[start]), self.ints(&[1], &[end]));
        let last = self.ints(&[1], &[-1]);
        self.node("Slice", &[x, &start, &end, &last], &[])
    }

    /// To FLOAT = 1 or INT64 = 7.
    pub(crate) fn cast(&mut self, x: &str, to: i64) -> Name {
        self.node("Cast", &[x], &[Attribute::Int("to", to)])
    }

    /// x·Wᵀ + b, (B, T, I) → (B, T, O).
    pub(crate) fn linear(&mut self, x: &str, layer: &str) -> Name {
        let y = self.linear_without_bias(x, &format!("{layer}.weight"));
        let bias = self.parameter(&format!("{layer}.bias"));
        self.add(&y, &bias)
    }

    pub(crate) fn linear_without_bias(&mut self, x: &str, weight: &str) -> Name {
        let weight = self.transposed(weight);
        self.matmul(x, &weight)
    }

    /// The same of one row a text, (B, I) → (B, O); the layer's own bias or none.
    pub(crate) fn head_linear(&mut self, x: &str, layer: &str, has_bias: bool) -> Name {
        let weight = self.parameter(&format!("{layer}.weight"));
        let bias = has_bias.then(|| self.parameter(&format!("{layer}.bias")));
        let inputs: Vec<&str> = [x, &weight].into_iter().chain(bias.as_deref()).collect();
        self.node("Gemm", &inputs, &[Attribute::Int("transB", 1)])
    }

    /// (…, C) → (…, C).
    pub(crate) fn norm(&mut self, x: &str, layer: &str, eps: f64) -> Name {
        let weight = self.parameter(&format!("{layer}.weight"));
        let bias = self.parameter(&format!("{layer}.bias"));
        let attributes = [Attribute::Int("axis", -1), Attribute::Float("epsilon", eps as f32)];
        self.node("LayerNormalization", &[x, &weight, &bias], &attributes)
    }

    pub(crate) fn norm_without_bias(&mut self, x: &str, layer: &str, eps: f64) -> Name {
        let weight = self.parameter(&format!("{layer}.weight"));
        let attributes = [Attribute::Int("axis", -1), Attribute::Float("epsilon", eps as f32)];
        self.node("LayerNormalization", &[x, &weight], &attributes)
    }

    /// Of every element.
    pub(crate) fn activation(&mut self, x: &str, activation: Activation) -> Name {
        let (one, half) = (self.float(1.0), self.float(0.5));
        let inner = match activation {
            Activation::Relu => return self.node("Relu", &[x], &[]),
            Activation::Gelu(Gelu::Erf) => {
                let scale = self.float(FRAC_1_SQRT_2);
                let scaled = self.mul(x, &scale);
                self.node("Erf", &[&scaled], &[])
            }
            Activation::Gelu(Gelu::Tanh) => {
                let (cubic, scale) = (self.float(0.044_715), self.float((2.0 / PI).sqrt()));
                let square = self.mul(x, x);
                let cube = self.mul(&square, x);
                let cube = self.mul(&cube, &cubic);
                let sum = self.add(x, &cube);
                let scaled = self.mul(&sum, &scale);
                self.node("Tanh", &[&scaled], &[])
            }
        };
        let weight = self.add(&inner, &one);
        let product = self.mul(x, &weight);
        self.mul(&product, &half)
    }

    /// Each text's first row, (B, T, C) → (B, C).
    pub(crate) fn first_tokens(&mut self, x: &str) -> Name {
        let zero = self.int(0);
        self.gather(x, &zero, 1)
    }

    /// (B, T, C) → (B, H, T, C/H).
    pub(crate) fn split_heads(&mut self, x: &str, heads: usize, d: usize) -> Name {
        let x = self.reshape(x, &[0, 0, heads as i64, d as i64]);
        self.transpose(&x, &[0, 2, 1, 3])
    }

    /// (B, H, T, D) → (B, T, C).
    pub(crate) fn join_heads(&mut self, x: &str, c: usize) -> Name {
        let x = self.transpose(x, &[0, 2, 1, 3]);
        self.reshape(&x, &[0, 0, c as i64])
    }

    /// What is added to a score: 0 where the key is a token, far below where it is padding. (B, 1, 1, T).
    pub(crate) fn mask(&mut self) -> Name {
        let (one, far) = (self.float(1.0), self.float(FAR_BELOW));
        let mask = self.cast(MASK, 1);
        let padding = self.node("Sub", &[&one, &mask], &[]);
        let mask = self.mul(&padding, &far);
        self.unsqueeze(&mask, &[1, 2])
    }

    /// 0 where query and key are at most `reach` places apart, far below elsewhere, (T, T).
    pub(crate) fn window(&mut self, distances: &str, reach: usize) -> Name {
        let (reach, zero, far) = (self.int(reach as i64), self.float(0.0), self.float(FAR_BELOW));
        let distances = self.node("Abs", &[distances], &[]);
        let is_far = self.node("Greater", &[&distances, &reach], &[]);
        self.node("Where", &[&is_far, &far, &zero], &[])
    }

    /// T of the batch, a number.
    pub(crate) fn width(&mut self) -> Name {
        let (shape, one) = (self.node("Shape", &[IDS], &[]), self.int(1));
        self.gather(&shape, &one, 0)
    }

    /// 0, 1, 2 and so on, (T,).
    pub(crate) fn places(&mut self) -> Name {
        let (zero, one, width) = (self.int(0), self.int(1), self.width());
        self.node("Range", &[&zero, &width, &one], &[])
    }

    /// j − i for query i and key j, (T, T).
    pub(crate) fn distances(&mut self) -> Name {
        let places = self.places();
        let (keys, queries) = (self.unsqueeze(&places, &[0]), self.unsqueeze(&places, &[1]));
        self.node("Sub", &[&keys, &queries], &[])
    }

    /// Row of the table for each pair, (T, T): looked up by the distance, for texts of up to `positions` tokens.
    pub(crate) fn buckets(&mut self, buckets: Buckets, positions: usize) -> Name {
        let most = positions as i64 - 1;
        let rows: Vec<i64> = (-most..=most).map(|distance| buckets.row(distance) as i64).collect();
        let (rows, most) = (self.ints(&[rows.len()], &rows), self.int(most));
        let distances = self.distances();
        let places = self.add(&distances, &most);
        self.gather(&rows, &places, 0)
    }
}
