//! What opens and closes half of an encoder block that has its norm in front, without bias: h = x + dropout(f(norm(x))).

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use crate::buffers::Buffer;
use crate::fused::hand_over;
use crate::host::host;
use crate::lanes::wide;
use crate::layer_norm::{add_in_order, backward_row, norm_rows};
use crate::residual_norm::{Norm, block_of_rows};
use crate::{Dropout, Sequences, layer_norm};

/// (x − mean)/√(variance + eps)·weight, a norm without bias.
#[derive(Clone, Debug)]
pub struct PreNorm {
    pub weight: Tensor, // (C,)
    pub eps: f64,
}

impl PreNorm {
    pub(crate) fn check(&self, c: usize) -> Result<()> {
        if self.weight.dims() != [c] {
            bail!("norm in front: {c} channels and a norm of {:?}", self.weight.dims());
        }
        Ok(())
    }

    /// (N, C) → (N, C), from smaller operations.
    pub fn of(&self, x: &Tensor) -> Result<Tensor> {
        layer_norm(x, &self.weight, &self.weight.zeros_like()?.detach(), self.eps)
    }

    pub(crate) fn forward(&self, x: &[f32]) -> Result<Buffer> {
        let weight = host(&self.weight)?;
        let bias = vec![0f32; weight.len()];
        let mut y = Buffer::of(x.len());
        norm_rows(x, Norm { weight: &weight, bias: &bias, eps: self.eps as f32 }, &mut y);
        Ok(y)
    }

    /// `dx` becomes grad, that of the residual, and what the norm makes of `dy`, its gradient; hands over the weight's.
    pub(crate) fn backward(
        &self,
        x: &[f32],
        dy: &[f32],
        grad: &[f32],
        dx: &mut [f32],
    ) -> Result<()> {
        let weight = host(&self.weight)?;
        let c = weight.len();
        let block = block_of_rows(c);
        let partials = dx
            .par_chunks_mut(block)
            .zip(x.par_chunks(block).zip(dy.par_chunks(block).zip(grad.par_chunks(block))))
            .map(|(dx, (x, (dy, grad)))| {
                let mut sums = vec![0f32; 2 * c]; // d weight, and what would be d bias
                backward_block(x, &weight, dy, grad, self.eps as f32, dx, &mut sums);
                sums
            })
            .collect();
        let sums = add_in_order(partials, 2 * c);
        drop(weight);
        if self.weight.is_variable() {
            hand_over(&self.weight, Buffer::from_slice(&sums[..c]))?;
        }
        Ok(())
    }
}

/// `y` becomes x + dropout(y), (N, C).
pub(crate) fn add_dropped(
    y: &mut [f32],
    x: &[f32],
    sequences: &Sequences,
    dropped: Option<Dropout>,
) {
    let dropped = dropped.filter(|dropped| dropped.p > 0.0);
    let c = x.len() / sequences.rows().max(1);
    let block = block_of_rows(c);
    y.par_chunks_mut(block)
        .zip(x.par_chunks(block).zip(sequences.places().par_chunks(block / c)))
        .for_each(|(y, (x, places))| match dropped {
            Some(dropped) => add_dropped_block(y, x, places, dropped),
            None => add_block(y, x),
        });
}

/// The gradient of y in `add_dropped`; `None` where it is `grad` itself.
pub(crate) fn dropped_gradient(
    grad: &[f32],
    sequences: &Sequences,
    dropped: Option<Dropout>,
) -> Option<Buffer> {
    let dropped = dropped.filter(|dropped| dropped.p > 0.0)?;
    let c = grad.len() / sequences.rows().max(1);
    let block = block_of_rows(c);
    let mut dy = Buffer::of(grad.len());
    dy.par_chunks_mut(block)
        .zip(grad.par_chunks(block).zip(sequences.places().par_chunks(block / c)))
        .for_each(|(dy, (grad, places))| drop_block(grad, places, dropped, dy));
    Some(dy)
}

wide! {
fn backward_block(
    x: &[f32], weight: &[f32], dy: &[f32], grad: &[f32], eps: f32, dx: &mut [f32], sums: &mut [f32],
) {
    let c = weight.len();
    let rows = x.chunks_exact(c).zip(dy.chunks_exact(c)).zip(grad.chunks_exact(c).zip(dx.chunks_exact_mut(c)));
    for ((x, dy), (grad, dx)) in rows {
        backward_row(x, weight, dy, eps, dx, sums);
        dx.iter_mut().zip(grad).for_each(|(dx, &grad)| *dx += grad);
    }
}
}

wide! {
fn add_block(y: &mut [f32], x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, &x)| *y += x);
}
}

wide! {
fn add_dropped_block(y: &mut [f32], x: &[f32], places: &[u32], dropped: Dropout) {
    let c = x.len() / places.len();
    for ((y, x), &place) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)).zip(places) {
        let first = place.wrapping_mul(c as u32);
        for (i, (y, &x)) in y.iter_mut().zip(x).enumerate() {
            *y = x + *y * dropped.factor(first.wrapping_add(i as u32));
        }
    }
}
}

wide! {
fn drop_block(grad: &[f32], places: &[u32], dropped: Dropout, dy: &mut [f32]) {
    let c = grad.len() / places.len();
    for ((dy, grad), &place) in dy.chunks_exact_mut(c).zip(grad.chunks_exact(c)).zip(places) {
        let first = place.wrapping_mul(c as u32);
        for (i, (dy, &grad)) in dy.iter_mut().zip(grad).enumerate() {
            *dy = grad * dropped.factor(first.wrapping_add(i as u32));
        }
    }
}
}
