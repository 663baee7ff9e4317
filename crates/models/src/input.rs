//! One padded batch on a device, checked, and what a forward pass is for.

use candle_core::{Device, Tensor};
use lowchurn_kernels::Keys;

use crate::Result;

/// A padded batch. B rows, T columns; in row b the first `lengths[b]` tokens are real.
pub struct Input {
    pub ids: Tensor,       // (B, T) u32
    pub types: Tensor,     // (B, T) u32
    pub lengths: Vec<u32>, // (B,)
    pub(crate) max_id: u32,
    pub(crate) max_type: u32,
}

impl Input {
    /// `tokens` and `types` hold B·`width` numbers, row after row, already padded.
    pub fn new(
        tokens: &[u32],
        types: &[u32],
        lengths: &[u32],
        width: usize,
        device: &Device,
    ) -> Result<Input> {
        let shape = (lengths.len(), width);
        Ok(Input {
            ids: Tensor::from_slice(tokens, shape, device)?,
            types: Tensor::from_slice(types, shape, device)?,
            lengths: lengths.to_vec(),
            max_id: 0,
            max_type: 0,
        })
    }
}

/// Train draws one dropout key a site from the given stream; Eval drops nothing and builds no graph.
pub enum Mode<'k> {
    Eval,
    Train(&'k mut Keys),
}
