//! The activations of feed-forward layers, elementwise and vectorised.

use std::f32::consts::{FRAC_1_SQRT_2, PI};

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::buffers::Buffer;
use crate::composed;
use crate::host::{BLOCK, host, is_fused, output, slice, tensor};
use crate::lanes::{erf, exp, tanh, wide};

/// Which of the two usual forms of GELU a model was trained with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gelu {
    /// x·Φ(x) with the exact normal distribution function (`gelu` in a published config).
    Erf,
    /// ½x(1 + tanh(√(2/π)(x + 0.044715x³))) (`gelu_new`, `gelu_pytorch_tanh`).
    Tanh,
}

/// What stands between the two linear layers of a feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    Gelu(Gelu),
    Relu,
}

impl Activation {
    /// Of every element, any shape.
    pub fn of(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Activation::Gelu(kind) => gelu(x, kind),
            Activation::Relu => composed::relu(x),
        }
    }

    pub(crate) fn block(self, x: &[f32], y: &mut [f32]) {
        match self {
            Activation::Gelu(Gelu::Erf) => erf_block(x, y),
            Activation::Gelu(Gelu::Tanh) => tanh_block(x, y),
            Activation::Relu => y.iter_mut().zip(x).for_each(|(y, &x)| *y = relu(x)),
        }
    }

    /// `grad` becomes the gradient of x, `y` the activation again.
    pub(crate) fn backward_block(self, x: &[f32], grad: &mut [f32], y: &mut [f32]) {
        match self {
            Activation::Gelu(Gelu::Erf) => erf_both_block(x, grad, y),
            Activation::Gelu(Gelu::Tanh) => tanh_both_block(x, grad, y),
            Activation::Relu => {
                for ((grad, y), &x) in grad.iter_mut().zip(y).zip(x) {
                    *grad = if x > 0.0 { *grad } else { 0.0 };
                    *y = relu(x);
                }
            }
        }
    }
}

/// `f32::max` would make 0 of what is no number.
fn relu(x: f32) -> f32 {
    if x <= 0.0 { 0.0 } else { x }
}

/// GELU of every element, any shape. Hendrycks and Gimpel, 1606.08415.
pub fn gelu(x: &Tensor, kind: Gelu) -> Result<Tensor> {
    if !is_fused(x) {
        return composed::gelu(x, kind);
    }
    x.contiguous()?.apply_op1(kind)
}

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(x, layout)?;
        let mut y = vec![0f32; x.len()];
        y.par_chunks_mut(BLOCK)
            .zip(x.par_chunks(BLOCK))
            .for_each(|(y, x)| Activation::Gelu(*self).block(x, y));
        Ok(output(y, layout.shape()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let (values, grad) = (host(x)?, host(&grad)?);
        let (mut dx, mut y) = (grad.to_vec(), Buffer::of(values.len()));
        dx.par_chunks_mut(BLOCK)
            .zip(values.par_chunks(BLOCK).zip(y.par_chunks_mut(BLOCK)))
            .for_each(|(dx, (x, y))| Activation::Gelu(*self).backward_block(x, dx, y));
        Ok(Some(tensor(dx, x)?))
    }
}

const CUBIC: f32 = 0.044_715;

#[inline(always)]
fn sqrt_2_over_pi() -> f32 {
    (2.0 / PI).sqrt()
}

wide! {
fn erf_block(x: &[f32], y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = 0.5 * x * (1.0 + erf(x * FRAC_1_SQRT_2));
    }
}
}

wide! {
/// Gradient: Φ(x) + x·φ(x).
fn erf_both_block(x: &[f32], grad: &mut [f32], y: &mut [f32]) {
    let density_at_0 = 1.0 / (2.0 * PI).sqrt();
    for ((grad, y), &x) in grad.iter_mut().zip(y).zip(x) {
        let distribution = 0.5 * (1.0 + erf(x * FRAC_1_SQRT_2));
        *grad *= distribution + x * density_at_0 * exp(-0.5 * x * x);
        *y = x * distribution;
    }
}
}

wide! {
fn tanh_block(x: &[f32], y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = 0.5 * x * (1.0 + tanh(sqrt_2_over_pi() * (x + CUBIC * x * x * x)));
    }
}
}

wide! {
fn tanh_both_block(x: &[f32], grad: &mut [f32], y: &mut [f32]) {
    for ((grad, y), &x) in grad.iter_mut().zip(y).zip(x) {
        let t = tanh(sqrt_2_over_pi() * (x + CUBIC * x * x * x));
        let slope = sqrt_2_over_pi() * (1.0 + 3.0 * CUBIC * x * x);
        *grad *= 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * slope;
        *y = 0.5 * x * (1.0 + t);
    }
}
}
