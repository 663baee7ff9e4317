//! Penalties that pull weights back to the old model's while they are trained: L2 to the old weights and elastic weight
//! consolidation. They enter as gradients, before clipping, so the optimizer sees them like any other loss.
//!
//! This is not the decoupled form θ ← θ − rate·v·(θ − θ_old) ("prior weight decay"), which passes Adam's moments by.

use std::collections::BTreeMap;

use candle_core::Tensor;
use lowchurn_kernels::Gradient;
use lowchurn_models::Params;

use super::{FISHER, check_equal, check_grown, check_range, shapes, shapes_of};
use crate::{Error, Grads, Result};

/// The old model's weights, on the device of the new one, and how much each of them matters.
#[derive(Clone, Debug)]
pub struct OldWeights {
    pub params: BTreeMap<String, Tensor>,
    pub fisher: Option<BTreeMap<String, Tensor>>,
}

/// What is added to the loss, once an update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pull {
    /// strength/2·Σ (θ − θ_old)².
    L2 { strength: f64 },
    /// strength/2·Σ F·(θ − θ_old)² (Kirkpatrick et al. 2017, 1612.00796, equation 3). Where a coefficient c stands before
    /// Σ F·(θ − θ_old)² without the half, as in Schumann et al. 2024, strength is 2·c.
    Ewc { strength: f64 },
}

impl OldWeights {
    /// The very tensors, of a model that isn't trained.
    pub fn of(params: &Params) -> OldWeights {
        let tensor = |(name, tensor): (&str, &Tensor)| (name.to_string(), tensor.clone());
        OldWeights { params: params.tensors().map(tensor).collect(), fisher: None }
    }

    /// A copy: a variable's tensor would follow the training.
    pub fn copy_of(params: &Params) -> Result<OldWeights> {
        let copy = |(name, var): (&str, &Tensor)| Ok((name.to_string(), var.copy()?.detach()));
        Ok(OldWeights { params: params.tensors().map(copy).collect::<Result<_>>()?, fisher: None })
    }
}

/// Adds the gradient of the penalty, strength·[F·](θ − θ_old). Once an update, whatever the number of micro-batches: the penalty is not divided by rows. Rows of classes that the old model lacks are left alone.
pub fn add_pull(grads: &mut Grads, params: &Params, old: &OldWeights, pull: Pull) -> Result<()> {
    let (strength, fisher) = match pull {
        Pull::L2 { strength } => (strength, None),
        Pull::Ewc { strength } => (strength, Some(old.fisher.as_ref().ok_or(Error::NoFisher)?)),
    };
    check_range("strength", strength, f64::MAX, "a number of at least 0")?;
    check_grown(shapes_of(&old.params), shapes(params))?;
    if let Some(fisher) = fisher {
        check_equal(("the old model", shapes_of(&old.params)), (FISHER, shapes_of(fisher)))?;
    }
    for ((name, old), var) in old.params.iter().zip(params.0.values()) {
        let (n_old, n_new) = (old.dim(0)?, var.dim(0)?);
        let moved = (var.as_detached_tensor().narrow(0, 0, n_old)? - old)?;
        let weighted = match fisher.and_then(|fisher| fisher.get(name)) {
            Some(fisher) => (moved * fisher)?,
            None => moved,
        };
        let pull = (weighted * strength)?.pad_with_zeros(0, 0, n_new - n_old)?;
        let pull = Gradient::Whole(pull);
        let grad = match grads.0.remove(name) {
            Some(grad) => grad.plus(pull)?,
            None => pull,
        };
        grads.0.insert(name.clone(), grad);
    }
    Ok(())
}
