//! The trainable tensors, in name order, by their canonical hub names (`bert.…`, `classifier.…`).
//! The order is that of every sum, draw and file, so it must not depend on a hash.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor, Var};
use sha2::{Digest, Sha256};

use crate::{Error, Result};

#[derive(Clone, Debug)]
pub struct Params(pub BTreeMap<String, Var>);

impl Params {
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub fn tensors(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(name, var)| (name.as_str(), var.as_tensor()))
    }

    /// SHA-256 over names, shapes and little-endian values, in hex: equal exactly where the weights are.
    pub fn fingerprint(&self) -> Result<String> {
        let mut hash = Sha256::new();
        for (name, tensor) in self.tensors() {
            hash.update(format!("{name} {:?}\n", tensor.dims()));
            hash.update(bytes(name, tensor)?);
        }
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// Weight decay belongs on matrices and tables only: LayerNorm weights and all biases have rank 1.
pub fn is_decayed(tensor: &Tensor) -> bool {
    tensor.rank() >= 2
}

/// Whether a parameter is the head's, with one row a class.
pub fn is_head(name: &str) -> bool {
    name.starts_with(crate::bert::HEAD)
}

/// The values of an f32 tensor as little-endian bytes.
pub(crate) fn bytes(name: &str, tensor: &Tensor) -> Result<Vec<u8>> {
    if tensor.dtype() != DType::F32 {
        let dtype = format!("{:?}", tensor.dtype());
        return Err(Error::SaveDtype { name: name.into(), dtype });
    }
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    let mut bytes = Vec::with_capacity(values.len() * 4);
    for value in values {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    Ok(bytes)
}
