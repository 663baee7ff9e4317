//! How an operation that holds parameters besides its input takes part in candle's graph: candle knows of the input and of
//! one parameter, and all parameters' gradients are handed over.

use candle_core::{Result, Tensor, bail};

use crate::backward;
use crate::buffers::Buffer;
use crate::gradient::Host;
use crate::host::tensor;

/// Whether all gradients can go that way: each parameter is a variable or needs no gradient.
pub fn can_hand_over(parameters: &[&Tensor]) -> bool {
    parameters.iter().all(|parameter| parameter.is_variable() || !parameter.track_op())
}

/// The second operand beside x: a variable among the parameters, so that the backward pass comes by even where x needs no
/// gradient.
pub fn anchor(x: &Tensor, parameters: &[&Tensor]) -> Tensor {
    let variable = parameters.iter().find(|parameter| parameter.is_variable());
    variable.map_or_else(|| x.detach(), |variable| (*variable).clone())
}

/// What the backward pass of such an operation returns.
pub fn gradients(x: &Tensor, dx: &[f32]) -> Result<(Option<Tensor>, Option<Tensor>)> {
    Ok((if x.track_op() { Some(tensor(dx.to_vec(), x)?) } else { None }, None))
}

/// Hands over a variable's gradient; without `backward` of this crate nobody would take it.
pub fn hand_over(variable: &Tensor, grad: Buffer) -> Result<()> {
    match backward::hand_over_host(variable, Host::new(grad, variable.shape()))? {
        Some(_) => {
            bail!("fused operations need the backward pass of lowchurn-kernels, not candle's")
        }
        None => Ok(()),
    }
}
