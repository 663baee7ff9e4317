//! Mixout: in every update some columns of each weight are the old model's. As dropout it needs no stored mask and no
//! generator: the mask comes from a key and the column's index.

use std::collections::BTreeMap;

use candle_core::{CpuStorage, CustomOp2, DType, Device, Layout, Shape, Tensor, bail};
use lowchurn_kernels::{Dropout, Keys};
use lowchurn_models::Params;

use super::{OldWeights, check_grown, shapes, shapes_of};
use crate::{Error, Result};

/// w′ = (k∘w + (1 − k)∘w_old − p·w_old)/(1 − p), k ~ Bernoulli(1 − p), for every tensor; its mean over masks is w.
/// Lee, Cho and Kang 2020, 1909.11299. To be given to `Classifier::forward_with`, in place of dropout.
///
/// One row of the mask serves all rows of a matrix or table, as in the authors' code; a vector has an element of its own
/// each. Each tensor takes one key, in name order. Gradients flow to the variables: 1/(1 − p) where k is 1, otherwise 0.
/// p = 0 gives the variables themselves. Rows of classes that the old model lacks stay as they are.
pub fn mixout(
    params: &Params,
    old: &OldWeights,
    p: f64,
    keys: &mut Keys,
) -> Result<BTreeMap<String, Tensor>> {
    if !(0.0..1.0).contains(&p) {
        let (value, expected) = (p.to_string(), "a number from 0 to below 1");
        return Err(Error::PlanValue { key: "mixout", value, expected });
    }
    check_grown(shapes_of(&old.params), shapes(params))?;
    let mut all = BTreeMap::new();
    for ((name, var), old) in params.0.iter().zip(old.params.values()) {
        let dropped = Dropout { p: p as f32, key: keys.next() };
        let mixed = if p == 0.0 { var.as_tensor().clone() } else { grown(var, old, dropped)? };
        all.insert(name.clone(), mixed);
    }
    Ok(all)
}

fn grown(w: &Tensor, old: &Tensor, dropped: Dropout) -> candle_core::Result<Tensor> {
    let (n_old, n_new) = (old.dim(0)?, w.dim(0)?);
    if n_old == n_new {
        return mixed(w, old, dropped);
    }
    let shared = mixed(&w.narrow(0, 0, n_old)?, old, dropped)?;
    Tensor::cat(&[&shared, &w.narrow(0, n_old, n_new - n_old)?], 0)
}

/// f·w + (1 − f)·w_old with f = k/(1 − p), which is the formula above in other words. Shapes (.., C), (.., C) → (.., C).
fn mixed(w: &Tensor, old: &Tensor, dropped: Dropout) -> candle_core::Result<Tensor> {
    let is_fused = |x: &Tensor| matches!(x.device(), Device::Cpu) && x.dtype() == DType::F32;
    match is_fused(w) && is_fused(old) {
        // One pass over the embedding table where candle's operations take three, and four more on the way back.
        true => w.contiguous()?.apply_op2(&old.contiguous()?, Mixed(dropped)),
        false => composed(w, old, dropped),
    }
}

fn composed(w: &Tensor, old: &Tensor, dropped: Dropout) -> candle_core::Result<Tensor> {
    let factors = factors(dropped, w)?;
    let old_factors = factors.affine(-1.0, 1.0)?;
    w.broadcast_mul(&factors)? + old.broadcast_mul(&old_factors)?
}

/// (C,)
fn factors(dropped: Dropout, like: &Tensor) -> candle_core::Result<Tensor> {
    let c = like.dims().last().copied().unwrap_or(1) as u32;
    let factors: Vec<f32> = (0..c).map(|column| dropped.factor(column)).collect();
    Tensor::new(factors, like.device())?.to_dtype(like.dtype())
}

struct Mixed(Dropout);

impl CustomOp2 for Mixed {
    fn name(&self) -> &'static str {
        "mixout"
    }

    fn cpu_fwd(
        &self,
        w: &CpuStorage,
        w_layout: &Layout,
        old: &CpuStorage,
        old_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (Some((w_start, w_end)), Some((old_start, old_end))) =
            (w_layout.contiguous_offsets(), old_layout.contiguous_offsets())
        else {
            bail!("mixout: operand is not contiguous")
        };
        let (w, old) =
            (&w.as_slice::<f32>()?[w_start..w_end], &old.as_slice::<f32>()?[old_start..old_end]);
        let c = w_layout.dims().last().copied().unwrap_or(1);
        let factors: Vec<f32> = (0..c as u32).map(|column| self.0.factor(column)).collect();
        let mut mixed = Vec::with_capacity(w.len());
        for (w, old) in w.chunks(c.max(1)).zip(old.chunks(c.max(1))) {
            let columns = w.iter().zip(old).zip(&factors);
            mixed.extend(columns.map(|((w, old), f)| f * w + (1.0 - f) * old));
        }
        Ok((CpuStorage::F32(mixed), w_layout.shape().clone()))
    }

    fn bwd(
        &self,
        w: &Tensor,
        _old: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(grad.broadcast_mul(&factors(self.0, w)?)?), None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;
    use lowchurn_kernels::backward;

    /// The pass of its own and candle's operations, values and gradients.
    #[test]
    fn fused_equals_composed() {
        for shape in [vec![5], vec![4, 9], vec![2, 3, 4]] {
            let random = || Tensor::randn(0f32, 1.0, shape.as_slice(), &Device::Cpu).unwrap();
            let (w, old, weights) = (Var::from_tensor(&random()).unwrap(), random(), random());
            for p in [0.25, 0.999] {
                let dropped = Dropout { p, key: Keys::new(3).next() };
                let run = |y: Tensor| {
                    let loss = (&y * &weights).unwrap().sum_all().unwrap();
                    let grad = backward(&loss).unwrap().remove(&w).unwrap().unwrap();
                    let grad = grad.to_tensor().unwrap();
                    [y, grad].map(|x| x.flatten_all().unwrap().to_vec1::<f32>().unwrap())
                };
                let (fast, slow) = (
                    run(mixed(&w, &old, dropped).unwrap()),
                    run(composed(&w, &old, dropped).unwrap()),
                );
                for (a, b) in fast.iter().flatten().zip(slow.iter().flatten()) {
                    assert!((a - b).abs() <= 1e-6 * (1.0 + b.abs()), "{shape:?} {p}: {a} {b}");
                }
            }
        }
    }
}
