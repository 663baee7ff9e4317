//! GELU in both usual forms, elementwise and vectorised.

use std::f32::consts::{FRAC_1_SQRT_2, PI};

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

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
        y.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK)).for_each(|(y, x)| match self {
            Gelu::Erf => erf_block(x, y),
            Gelu::Tanh => tanh_block(x, y),
        });
        Ok(output(y, layout.shape()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let (values, grad) = (host(x)?, host(&grad)?);
        let mut dx = vec![0f32; values.len()];
        dx.par_chunks_mut(BLOCK)
            .zip(values.par_chunks(BLOCK).zip(grad.par_chunks(BLOCK)))
            .for_each(|(dx, (x, grad))| match self {
                Gelu::Erf => erf_backward_block(x, grad, dx),
                Gelu::Tanh => tanh_backward_block(x, grad, dx),
            });
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
/// Φ(x) + x·φ(x)
fn erf_backward_block(x: &[f32], grad: &[f32], dx: &mut [f32]) {
    let density_at_0 = 1.0 / (2.0 * PI).sqrt();
    for ((dx, &x), &grad) in dx.iter_mut().zip(x).zip(grad) {
        let distribution = 0.5 * (1.0 + erf(x * FRAC_1_SQRT_2));
        *dx = grad * (distribution + x * density_at_0 * exp(-0.5 * x * x));
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
fn tanh_backward_block(x: &[f32], grad: &[f32], dx: &mut [f32]) {
    for ((dx, &x), &grad) in dx.iter_mut().zip(x).zip(grad) {
        let t = tanh(sqrt_2_over_pi() * (x + CUBIC * x * x * x));
        let slope = sqrt_2_over_pi() * (1.0 + 3.0 * CUBIC * x * x);
        *dx = grad * (0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * slope);
    }
}
}
