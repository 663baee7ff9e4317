//! Gradients of a loss. candle's store makes a block of zeros for every tensor and adds to it, which for parameters costs
//! several passes over the whole model's size; here the operations of this crate hand a parameter's gradient over as it is.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, TensorId};

use crate::gradient::{Gradient, Host, Rows};

thread_local! {
    /// Open while `backward` runs on this thread.
    static HANDED_OVER: RefCell<Option<HashMap<TensorId, Gradient>>> = const { RefCell::new(None) };
    /// Whether the pass on this thread leaves what the operations saved for another one.
    static KEEPS: Cell<bool> = const { Cell::new(false) };
}

/// The gradients that a backward pass found.
pub struct Gradients {
    handed_over: HashMap<TensorId, Gradient>,
    store: GradStore,
}

/// Gradients of a scalar with respect to everything it was made from.
pub fn backward(loss: &Tensor) -> Result<Gradients> {
    go_back(loss, false)
}

/// The same, and the pass can be followed by one of another loss over the part of the graph that both share, which spares its
/// forward pass. Costs a copy of what the operations have saved.
pub fn backward_keeping(loss: &Tensor) -> Result<Gradients> {
    go_back(loss, true)
}

fn go_back(loss: &Tensor, keeps: bool) -> Result<Gradients> {
    // A thread that waits inside an operation may take up another job, with a backward pass of its own.
    let outer = (HANDED_OVER.replace(Some(HashMap::new())), KEEPS.replace(keeps));
    let store = loss.backward();
    KEEPS.set(outer.1);
    let handed_over = HANDED_OVER.replace(outer.0).unwrap_or_default();
    Ok(Gradients { handed_over, store: store? })
}

/// Asked by an operation on its way back.
pub(crate) fn keeps() -> bool {
    KEEPS.get()
}

impl Gradients {
    /// Takes a parameter's gradient out; `None` where the loss doesn't depend on it.
    pub fn remove(&mut self, parameter: &Tensor) -> Result<Option<Gradient>> {
        let stored = self.store.remove(parameter).map(Gradient::Whole);
        Ok(match (self.handed_over.remove(&parameter.id()), stored) {
            (Some(a), Some(b)) => Some(a.plus(b)?),
            (a, b) => a.or(b),
        })
    }
}

/// What an operation returns as the gradient of `operand`: nothing where it could be handed over.
///
/// Only a variable's gradient may be: candle looks for those of other tensors on its way back.
pub(crate) fn hand_over(operand: &Tensor, grad: Tensor) -> Result<Option<Tensor>> {
    hand_over_any(operand, Gradient::Whole(grad))
}

/// The same for a gradient on the host. `None`: it was handed over.
pub(crate) fn hand_over_host(operand: &Tensor, grad: Host) -> Result<Option<Tensor>> {
    hand_over_any(operand, Gradient::Host(grad))
}

/// The same for some rows of a table.
pub(crate) fn hand_over_rows(table: &Tensor, grad: Rows) -> Result<Option<Tensor>> {
    hand_over_any(table, Gradient::Rows(grad))
}

fn hand_over_any(operand: &Tensor, grad: Gradient) -> Result<Option<Tensor>> {
    if !operand.is_variable() {
        return grad.to_tensor().map(Some);
    }
    HANDED_OVER.with_borrow_mut(|open| {
        let Some(all) = open else { return grad.to_tensor().map(Some) };
        let sum = match all.remove(&operand.id()) {
            Some(sum) => sum.plus(grad)?,
            None => grad,
        };
        all.insert(operand.id(), sum);
        Ok(None)
    })
}
