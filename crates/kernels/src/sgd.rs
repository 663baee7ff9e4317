//! Plain stochastic gradient descent: no momentum, no state. What the theory of variance reduction is about, and what AdamW is
//! not: AdamW divides the gradient's scale away.

use candle_core::{Result, Tensor, Var, bail};
use rayon::prelude::*;

use crate::adamw::lend;
use crate::gradient::{Gradient, Rows};
use crate::host::{BLOCK, host, is_fused};

/// The numbers of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    pub learning_rate: f64,
    pub weight_decay: f64,
    /// Each gradient is multiplied by this first: min(1, max norm/norm).
    pub gradient_scale: f64,
}

impl Sgd {
    /// What parameter and gradient are multiplied by, rounded to f32 once.
    fn factors(&self) -> (f32, f32) {
        let keep = 1.0 - self.learning_rate * self.weight_decay;
        (keep as f32, (self.learning_rate * self.gradient_scale) as f32)
    }
}

/// p ← p·(1 − lr·decay) − lr·scale·g. Rows of a table that the batch didn't read have no gradient, and with a decay of 0 no
/// update. Gradients of another shape are an error.
pub fn sgd(param: &Var, grad: &Gradient, update: &Sgd) -> Result<()> {
    match grad {
        Gradient::Rows(rows) if update.weight_decay == 0.0 && is_fused(param) => {
            sgd_rows(param, rows, update)
        }
        _ if is_fused(param) => {
            let grad = grad.to_tensor()?.contiguous()?;
            sgd_on_host(param, grad.dims(), &host(&grad)?, update)
        }
        _ => {
            let moved = composed(param, &grad.to_tensor()?, update)?;
            param.set(&moved)
        }
    }
}

fn sgd_on_host(param: &Var, shape: &[usize], grad: &[f32], update: &Sgd) -> Result<()> {
    if shape != param.dims() {
        bail!("sgd: parameter {:?} and gradient {shape:?}", param.dims());
    }
    let (keep, rate) = update.factors();
    lend(param, |param| {
        param.par_chunks_mut(BLOCK).zip(grad.par_chunks(BLOCK)).for_each(|(param, grad)| {
            param.iter_mut().zip(grad).for_each(|(p, g)| *p = *p * keep - g * rate);
        });
        Ok(())
    })
}

fn sgd_rows(param: &Var, rows: &Rows, update: &Sgd) -> Result<()> {
    let (n_rows, c) = param.dims2()?;
    if rows.shape() != (n_rows, c) {
        bail!("sgd: parameter {:?} and gradient {:?}", param.dims(), rows.shape());
    }
    let (_, rate) = update.factors();
    lend(param, |param| {
        for (id, grad) in rows.iter() {
            let row = &mut param[id as usize * c..][..c];
            row.iter_mut().zip(grad).for_each(|(p, g)| *p -= g * rate);
        }
        Ok(())
    })
}

/// The slow twin: the formula in candle's own operations.
pub fn composed(param: &Tensor, grad: &Tensor, update: &Sgd) -> Result<Tensor> {
    let (keep, rate) = update.factors();
    let times = |x: &Tensor, factor: f32| x.detach().affine(f64::from(factor), 0.0);
    times(param, keep)? - times(grad, rate)?
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn numbers(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn fused_equals_composed_and_rows_equal_the_whole() {
        let values = |n: usize, step: f32| -> Vec<f32> {
            (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) * step).collect()
        };
        for (v, c, weight_decay) in [(3, 5, 0.0), (700, 33, 0.01), (5, 1, 0.5)] {
            let update = Sgd { learning_rate: 0.05, weight_decay, gradient_scale: 0.7 };
            let start = Tensor::from_vec(values(v * c, 0.02), (v, c), &Device::Cpu).unwrap();
            let ids = vec![0, v as u32 - 1];
            let rows = Rows::new(ids, values(2 * c, 0.3), (v, c));
            let whole = rows.to_tensor().unwrap();
            let slow = numbers(&composed(&start, &whole, &update).unwrap());
            for grad in [Gradient::Rows(rows), Gradient::Whole(whole)] {
                let param = Var::from_tensor(&start).unwrap();
                sgd(&param, &grad, &update).unwrap();
                let far = |(a, b): (&f32, &f32)| (a - b).abs() > 1e-6 * b.abs().max(1.0);
                assert!(!numbers(&param).iter().zip(&slow).any(far), "{v} {c} {weight_decay}");
            }
        }
    }

    #[test]
    fn shapes_must_agree() {
        let param = Var::zeros((2, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        let grad =
            Gradient::Whole(Tensor::zeros((2, 3), candle_core::DType::F32, &Device::Cpu).unwrap());
        let update = Sgd { learning_rate: 0.1, weight_decay: 0.0, gradient_scale: 1.0 };
        let said = sgd(&param, &grad, &update).unwrap_err().to_string();
        assert!(said.contains("parameter [2, 2] and gradient [2, 3]"), "{said}");
    }
}
