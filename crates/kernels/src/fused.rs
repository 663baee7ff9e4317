//! How an operation that holds parameters besides its input takes part in candle's graph: candle knows of the input and of
//! one parameter, and all parameters' gradients are handed over.

use candle_core::{CustomOp2, Result, Tensor, bail};

use crate::backward;
use crate::buffers::Buffer;
use crate::gradient::Host;
use crate::host::tensor;

/// Whether all gradients can go that way: each parameter is a variable or needs no gradient.
pub fn can_hand_over(parameters: &[&Tensor]) -> bool {
    parameters.iter().all(|parameter| parameter.is_variable() || !parameter.track_op())
}

/// Applies `op` to x. A variable among the parameters is its second operand, so that the backward pass comes by even where
/// x needs no gradient.
pub fn apply(x: &Tensor, parameters: &[&Tensor], op: impl CustomOp2 + Send + Sync + 'static) -> Result<Tensor> {
    let variable = parameters.iter().find(|parameter| parameter.is_variable());
    match variable {
        Some(variable) => x.apply_op2(variable, op),
        None => x.apply_op2(&x.detach(), op),
    }
}

/// What the backward pass of such an operation returns.
pub fn gradients(x: &Tensor, dx: Vec<f32>) -> Result<(Option<Tensor>, Option<Tensor>)> {
    Ok((if x.track_op() { Some(tensor(dx, x)?) } else { None }, None))
}

/// Hands over a variable's gradient; without `backward` of this crate nobody would take it.
pub fn hand_over(variable: &Tensor, grad: Buffer) -> Result<()> {
    match backward::hand_over_host(variable, Host::new(grad, variable.shape()))? {
        Some(_) => bail!("fused operations need the backward pass of lowchurn-kernels, not candle's"),
        None => Ok(()),
    }
}
