//! Layer normalisation in one pass a row; the backward pass computes mean and deviation again instead of storing them.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::backward::hand_over;
use crate::composed;
use crate::host::{host, is_fused, output, slice, tensor};
use crate::lanes::{sum_of, sum_of_pairs, wide};
use crate::residual_norm::{Norm, block_of_rows};

/// (x − mean)/√(variance + eps)·weight + bias over the last dimension, variance without Bessel's correction.
/// Shapes (.., C), (C,), (C,) → (.., C). Ba, Kiros and Hinton, 1607.06450.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    if !is_fused(x) {
        return composed::layer_norm(x, weight, bias, eps);
    }
    let c = weight.dims1()?;
    if x.dims().last() != Some(&c) || bias.dims() != [c] || c == 0 {
        bail!("layer norm: shapes {:?}, {:?}, {:?}", x.dims(), weight.dims(), bias.dims());
    }
    let op = LayerNorm { eps: eps as f32 };
    x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, op)
}

struct LayerNorm {
    eps: f32,
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = slice(x, x_layout)?;
        let (weight, bias) = (slice(weight, weight_layout)?, slice(bias, bias_layout)?);
        let mut y = vec![0f32; x.len()];
        norm_rows(x, Norm { weight, bias, eps: self.eps }, &mut y);
        Ok(output(y, x_layout.shape()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (values, scale, grad) = (host(x)?, host(weight)?, host(&grad)?);
        let mut dx = vec![0f32; values.len()];
        let sums = norm_rows_backward(&values, &scale, &grad, self.eps, &mut dx);
        let (dweight, dbias) = sums.split_at(scale.len());
        Ok((
            Some(tensor(dx, x)?),
            hand_over(weight, tensor(dweight.to_vec(), weight)?)?,
            hand_over(bias, tensor(dbias.to_vec(), bias)?)?,
        ))
    }
}

/// Sum of vectors of n elements, first to last: the same bytes whichever thread made which.
pub fn add_in_order(partials: Vec<Vec<f32>>, n: usize) -> Vec<f32> {
    let mut sums = vec![0f32; n];
    for partial in partials {
        for (sum, part) in sums.iter_mut().zip(partial) {
            *sum += part;
        }
    }
    sums
}

/// Mean and 1/√(variance + eps) of a row.
#[inline(always)]
fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = sum_of(x, |x| x) / n;
    let variance = sum_of(x, |x| (x - mean) * (x - mean)) / n;
    (mean, 1.0 / (variance + eps).sqrt())
}

/// The norm of each row, (N, C) → (N, C).
pub fn norm_rows(x: &[f32], norm: Norm, y: &mut [f32]) {
    let block = block_of_rows(norm.weight.len());
    y.par_chunks_mut(block)
        .zip(x.par_chunks(block))
        .for_each(|(y, x)| forward_block(x, norm.weight, norm.bias, norm.eps, y));
}

/// The gradient of the rows into `dx`; gives the sums of d weight and d bias, (2·C).
pub fn norm_rows_backward(
    x: &[f32],
    weight: &[f32],
    grad: &[f32],
    eps: f32,
    dx: &mut [f32],
) -> Vec<f32> {
    let c = weight.len();
    let block = block_of_rows(c);
    let partials: Vec<Vec<f32>> = dx
        .par_chunks_mut(block)
        .zip(x.par_chunks(block).zip(grad.par_chunks(block)))
        .map(|(dx, (x, grad))| {
            let mut sums = vec![0f32; 2 * c]; // d weight, then d bias
            backward_block(x, weight, grad, eps, dx, &mut sums);
            sums
        })
        .collect();
    add_in_order(partials, 2 * c)
}

/// One row of the norm.
#[inline(always)]
pub fn forward_row(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, y: &mut [f32]) {
    let (mean, rstd) = moments(x, eps);
    for (((y, &x), &weight), &bias) in y.iter_mut().zip(x).zip(weight).zip(bias) {
        *y = (x - mean) * rstd * weight + bias;
    }
}

/// With n = (x − mean)·rstd and g = grad·weight: dx = rstd·(g − mean(g) − n·mean(g·n)); adds d weight = grad·n and
/// d bias = grad to `sums`, (2·C).
#[inline(always)]
pub fn backward_row(
    x: &[f32],
    weight: &[f32],
    grad: &[f32],
    eps: f32,
    dx: &mut [f32],
    sums: &mut [f32],
) {
    let (dweight, dbias) = sums.split_at_mut(weight.len());
    let (mean, rstd) = moments(x, eps);
    let n_columns = weight.len() as f32;
    // dx holds g for a moment.
    for ((g, &grad), &weight) in dx.iter_mut().zip(grad).zip(weight) {
        *g = grad * weight;
    }
    let mean_g = sum_of(dx, |g| g) / n_columns;
    let mean_gn = sum_of_pairs(dx, x, |g, x| g * ((x - mean) * rstd)) / n_columns;
    let all = dx.iter_mut().zip(x).zip(grad).zip(dweight.iter_mut().zip(dbias));
    for (((dx, &x), &grad), (dweight, dbias)) in all {
        let n = (x - mean) * rstd;
        *dx = rstd * (*dx - mean_g - n * mean_gn);
        *dweight += grad * n;
        *dbias += grad;
    }
}

wide! {
fn forward_block(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, y: &mut [f32]) {
    let c = weight.len();
    for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
        forward_row(x, weight, bias, eps, y);
    }
}
}

wide! {
fn backward_block(x: &[f32], weight: &[f32], grad: &[f32], eps: f32, dx: &mut [f32], sums: &mut [f32]) {
    let c = weight.len();
    for ((x, grad), dx) in x.chunks_exact(c).zip(grad.chunks_exact(c)).zip(dx.chunks_exact_mut(c)) {
        backward_row(x, weight, grad, eps, dx, sums);
    }
}
}
