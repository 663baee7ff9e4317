//! Gradients of a loss. candle's store makes a block of zeros for every tensor and adds to it, which for parameters costs
//! several passes over the whole model's size; here the operations of this crate hand a parameter's gradient over as it is.

use std::cell::RefCell;
use std::collections::HashMap;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, TensorId};

thread_local! {
    /// Open while `backward` runs on this thread.
    static HANDED_OVER: RefCell<Option<HashMap<TensorId, Tensor>>> = const { RefCell::new(None) };
}

/// The gradients that a backward pass found.
pub struct Gradients {
    handed_over: HashMap<TensorId, Tensor>,
    store: GradStore,
}

/// Gradients of a scalar with respect to everything it was made from.
pub fn backward(loss: &Tensor) -> Result<Gradients> {
    // A thread that waits inside an operation may take up another job, with a backward pass of its own.
    let outer = HANDED_OVER.replace(Some(HashMap::new()));
    let store = loss.backward();
    let handed_over = HANDED_OVER.replace(outer).unwrap_or_default();
    Ok(Gradients { handed_over, store: store? })
}

impl Gradients {
    /// Takes a parameter's gradient out; `None` where the loss doesn't depend on it.
    pub fn remove(&mut self, parameter: &Tensor) -> Result<Option<Tensor>> {
        Ok(match (self.handed_over.remove(&parameter.id()), self.store.remove(parameter)) {
            (Some(a), Some(b)) => Some((a + b)?),
            (a, b) => a.or(b),
        })
    }
}

/// What an operation returns as the gradient of `operand`: nothing where it could be handed over.
///
/// Only a variable's gradient may be: candle looks for those of other tensors on its way back.
pub(crate) fn hand_over(operand: &Tensor, grad: Tensor) -> Result<Option<Tensor>> {
    if !operand.is_variable() {
        return Ok(Some(grad));
    }
    HANDED_OVER.with_borrow_mut(|open| {
        let Some(all) = open else { return Ok(Some(grad)) };
        let sum = match all.remove(&operand.id()) {
            Some(sum) => (sum + grad)?,
            None => grad,
        };
        all.insert(operand.id(), sum);
        Ok(None)
    })
}
