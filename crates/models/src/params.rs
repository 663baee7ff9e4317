//! The trainable tensors, in name order, by their canonical hub names (`bert.…`, `classifier.…`).

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};

#[derive(Clone, Debug)]
pub struct Params(pub BTreeMap<String, Var>);

/// Weight decay belongs on matrices and tables only: LayerNorm weights and all biases have rank 1.
pub fn is_decayed(tensor: &Tensor) -> bool {
    tensor.rank() >= 2
}
