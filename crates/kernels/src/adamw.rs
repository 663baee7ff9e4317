//! AdamW in one pass over parameter, gradient and both moments, and the sum of squares behind the clip.

use std::cell::Cell;

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Tensor, Var, bail};
use rayon::prelude::*;

use crate::deferred::{Missed, settle};
use crate::host::{BLOCK, host, is_fused};
use crate::lanes::{sum_of, wide};

/// The numbers of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    pub learning_rate: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    pub weight_decay: f64,
    /// 1 for the first update.
    pub step: u64,
    /// Each gradient is multiplied by this first: min(1, max norm/norm).
    pub gradient_scale: f64,
}

/// Running means of a parameter's gradient and of its square, as long as the parameter.
pub enum Moments {
    /// Beside the fused update on the CPU, with the updates that some rows have yet to get.
    Host { m: Vec<f32>, v: Vec<f32>, missed: Missed },
    /// On the parameter's device.
    Device { m: Tensor, v: Tensor },
}

impl Moments {
    pub fn zeros(param: &Tensor) -> Result<Moments> {
        if is_fused(param) {
            let n = param.elem_count();
            let missed = Missed::default();
            return Ok(Moments::Host { m: vec![0.0; n], v: vec![0.0; n], missed });
        }
        Ok(Moments::Device { m: param.zeros_like()?.detach(), v: param.zeros_like()?.detach() })
    }
}

/// One update, Loshchilov and Hutter, 1711.05101, algorithm 2, with the usual defaults of PyTorch's AdamW:
///
///   g ← scale·g; p ← p·(1 − lr·decay); m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²;
///   p ← p − lr/(1−β₁ᵗ)·m / (√v/√(1−β₂ᵗ) + ε)
///
/// On the CPU a moment below the smallest normal number is zero: without a gradient m gets there in 800 updates, and
/// arithmetic with such numbers is many times slower.
pub fn adamw(param: &Var, grad: &Tensor, moments: &mut Moments, update: &AdamW) -> Result<()> {
    if grad.dims() != param.dims() {
        bail!("adamw: parameter {:?} and gradient {:?}", param.dims(), grad.dims());
    }
    if is_fused(param) {
        let grad = grad.contiguous()?;
        return adamw_on_host(param, &host(&grad)?, moments, update);
    }
    match moments {
        Moments::Host { .. } => bail!("adamw: a parameter on a device and moments on the host"),
        Moments::Device { m, v } => {
            let (new_param, new_m, new_v) = composed(param, grad, m, v, update)?;
            (*m, *v) = (new_m, new_v);
            param.set(&new_param)
        }
    }
}

/// The same from a gradient's numbers on the host, for a parameter on the CPU.
pub fn adamw_on_host(
    param: &Var,
    grad: &[f32],
    moments: &mut Moments,
    update: &AdamW,
) -> Result<()> {
    settle(param, moments)?;
    let Moments::Host { m, v, missed } = moments else {
        bail!("adamw: a parameter on the CPU and moments on a device")
    };
    *missed = Missed::default(); // now all rows may have moments
    let numbers = Numbers::of(update);
    lend(param, |param| {
        if [grad.len(), m.len(), v.len()] != [param.len(); 3] {
            let (n_grad, n_m, n_v) = (grad.len(), m.len(), v.len());
            bail!("adamw: {} parameters, {n_grad} gradients, {n_m} and {n_v} moments", param.len());
        }
        param
            .par_chunks_mut(BLOCK)
            .zip(grad.par_chunks(BLOCK))
            .zip(m.par_chunks_mut(BLOCK).zip(v.par_chunks_mut(BLOCK)))
            .for_each(|((param, grad), (m, v))| update_block(param, grad, m, v, numbers));
        Ok(())
    })
}

/// The slow twin: the formula in candle's own operations.
pub fn composed(
    param: &Tensor,
    grad: &Tensor,
    m: &Tensor,
    v: &Tensor,
    update: &AdamW,
) -> Result<(Tensor, Tensor, Tensor)> {
    let n = Numbers::of(update);
    let times = |x: &Tensor, factor: f32| x.affine(f64::from(factor), 0.0);
    let grad = times(&grad.detach(), n.scale)?;
    let m = (times(m, n.beta1)? + times(&grad, 1.0 - n.beta1)?)?;
    let v = (times(v, n.beta2)? + times(&grad.sqr()?, 1.0 - n.beta2)?)?;
    let denominator =
        times(&v.sqrt()?, n.inverse_sqrt_correction2)?.affine(1.0, n.epsilon.into())?;
    let param = (times(&param.detach(), n.keep)? - times(&(&m / denominator)?, n.rate)?)?;
    Ok((param, m, v))
}

/// An update's numbers as both forms use them, rounded to f32 once.
#[derive(Clone, Copy)]
pub struct Numbers {
    pub scale: f32,
    pub keep: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub rate: f32,
    pub inverse_sqrt_correction2: f32,
    pub epsilon: f32,
}

impl Numbers {
    pub fn of(update: &AdamW) -> Numbers {
        let t = update.step as f64;
        Numbers {
            scale: update.gradient_scale as f32,
            keep: (1.0 - update.learning_rate * update.weight_decay) as f32,
            beta1: update.beta1 as f32,
            beta2: update.beta2 as f32,
            rate: (update.learning_rate / (1.0 - update.beta1.powf(t))) as f32,
            inverse_sqrt_correction2: (1.0 / (1.0 - update.beta2.powf(t)).sqrt()) as f32,
            epsilon: update.epsilon as f32,
        }
    }
}

/// Lends the elements of a variable on the CPU for writing.
pub fn lend(param: &Var, write: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<()> {
    param.inplace_op1(&Lend(Cell::new(Some(write))))
}

struct Lend<F>(Cell<Option<F>>);

impl<F: FnOnce(&mut [f32]) -> Result<()>> InplaceOp1 for Lend<F> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, param: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let CpuStorage::F32(param) = param else { bail!("adamw: expected f32 parameters") };
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("adamw: parameter is not contiguous")
        };
        self.0.take().map_or(Ok(()), |write| write(&mut param[start..end]))
    }
}

wide! {
pub fn update_block(param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32], n: Numbers) {
    for (((param, &grad), m), v) in param.iter_mut().zip(grad).zip(m).zip(v) {
        update_number(param, grad, m, v, &n);
    }
}
}

#[inline(always)]
pub fn update_number(param: &mut f32, grad: f32, m: &mut f32, v: &mut f32, n: &Numbers) {
    let grad = grad * n.scale;
    *m = flushed(*m * n.beta1 + grad * (1.0 - n.beta1));
    *v = flushed(*v * n.beta2 + grad * grad * (1.0 - n.beta2));
    *param = *param * n.keep - *m / (v.sqrt() * n.inverse_sqrt_correction2 + n.epsilon) * n.rate;
}

#[inline(always)]
pub fn flushed(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { 0.0 } else { x }
}

/// Σ x² in a fixed order: f32 inside a block, f64 across blocks.
pub fn sum_of_squares(x: &Tensor) -> Result<f64> {
    if !is_fused(x) {
        return Ok(f64::from(x.detach().sqr()?.sum_all()?.to_scalar::<f32>()?));
    }
    let x = x.contiguous()?;
    Ok(squares(&host(&x)?))
}

pub(crate) fn squares(x: &[f32]) -> f64 {
    let blocks: Vec<f32> = x.par_chunks(BLOCK).map(squares_block).collect();
    blocks.into_iter().map(f64::from).sum()
}

wide! {
pub(crate) fn squares_block(x: &[f32]) -> f32 {
    sum_of(x, |x| x * x)
}
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn fused_equals_composed_over_steps() {
        let n = 3 * BLOCK + 5;
        let wave = |k: f32| (0..n).map(|i| (i as f32 * k).sin()).collect::<Vec<f32>>();
        let make = |data| Tensor::from_vec(data, n, &Device::Cpu).unwrap();
        let fast = Var::from_tensor(&make(wave(0.1))).unwrap();
        let mut moments = Moments::zeros(&fast).unwrap();
        let mut slow = (make(wave(0.1)), make(vec![0.0; n]), make(vec![0.0; n]));
        for step in 1..=5 {
            let update = AdamW {
                learning_rate: 0.01,
                beta1: 0.9,
                beta2: 0.999,
                epsilon: 1e-8,
                weight_decay: 0.1,
                step,
                gradient_scale: 0.5,
            };
            let grad = make(wave(0.3 * step as f32));
            adamw(&fast, &grad, &mut moments, &update).unwrap();
            slow = composed(&slow.0, &grad, &slow.1, &slow.2, &update).unwrap();
            let difference = (fast.as_tensor() - &slow.0).unwrap().abs().unwrap().max(0).unwrap();
            assert!(difference.to_scalar::<f32>().unwrap() < 1e-6, "step {step}");
        }
    }

    #[test]
    fn sum_of_squares_of_many() {
        let n = 2 * BLOCK + 3;
        let x = Tensor::full(0.5f32, n, &Device::Cpu).unwrap();
        assert_eq!(sum_of_squares(&x).unwrap(), n as f64 * 0.25);
    }

    #[test]
    fn a_gradient_of_another_shape_is_refused() {
        let param = Var::zeros(3, candle_core::DType::F32, &Device::Cpu).unwrap();
        let mut moments = Moments::zeros(&param).unwrap();
        let grad = Tensor::zeros(4, candle_core::DType::F32, &Device::Cpu).unwrap();
        let update = AdamW {
            learning_rate: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            step: 1,
            gradient_scale: 1.0,
        };
        let error = adamw(&param, &grad, &mut moments, &update).unwrap_err();
        assert!(error.to_string().contains("parameter [3] and gradient [4]"), "{error}");
    }
}
