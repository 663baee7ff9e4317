//! The trainable tensors, in name order, by their canonical hub names (`roberta.…`, `classifier.…`).
//! The order is that of every sum, draw and file, so it must not depend on a hash.

use std::collections::BTreeMap;

use candle_core::{CpuStorage, DType, Storage, Tensor, Var};
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
            for_each_piece(name, tensor, |bytes| {
                hash.update(bytes);
                Ok::<_, Error>(())
            })?;
        }
        Ok(hex(hash))
    }
}

/// Weight decay belongs on matrices and tables only: LayerNorm weights and all biases have rank 1.
pub fn is_decayed(tensor: &Tensor) -> bool {
    tensor.rank() >= 2
}

/// Whether a parameter is the last layer's, with one row a class. What stands between the encoder and it is not.
pub fn is_head(name: &str) -> bool {
    ["classifier", "classifier.out_proj"]
        .iter()
        .any(|last| matches!(name.strip_prefix(last), Some(".weight" | ".bias")))
}

/// Gives `take` the values of an f32 tensor as little-endian bytes, piece by piece: whole, a table of words would lie in memory
/// a second and a third time.
pub(crate) fn for_each_piece<E: From<Error>>(
    name: &str,
    tensor: &Tensor,
    take: impl FnMut(&[u8]) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    if tensor.dtype() != DType::F32 {
        let dtype = format!("{:?}", tensor.dtype());
        return Err(Error::SaveDtype { name: name.into(), dtype }.into());
    }
    let (storage, layout) = tensor.storage_and_layout();
    if let (Storage::Cpu(CpuStorage::F32(all)), Some((start, end))) =
        (&*storage, layout.contiguous_offsets())
    {
        return for_each_piece_of(&all[start..end], take);
    }
    drop(storage);
    let values = tensor.flatten_all().and_then(|flat| flat.to_vec1()).map_err(Error::from)?;
    for_each_piece_of(&values, take)
}

/// The same of a matrix (O, I) as (I, O), a few rows of the result at a time.
pub(crate) fn for_each_transposed<E: From<Error>>(
    name: &str,
    tensor: &Tensor,
    mut take: impl FnMut(&[u8]) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    const ROWS: usize = 64;
    let (_, columns) = tensor.dims2().map_err(Error::from)?;
    for start in (0..columns).step_by(ROWS) {
        let part = tensor.narrow(1, start, ROWS.min(columns - start));
        let part = part.and_then(|part| part.t()?.contiguous()).map_err(Error::from)?;
        for_each_piece(name, &part, &mut take)?;
    }
    Ok(())
}

/// The same for numbers that are no tensor's.
pub(crate) fn for_each_piece_of<E>(
    values: &[f32],
    mut take: impl FnMut(&[u8]) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    const PIECE: usize = 1 << 16;
    let mut bytes = Vec::with_capacity(4 * values.len().min(PIECE));
    for piece in values.chunks(PIECE) {
        bytes.clear();
        bytes.extend(piece.iter().flat_map(|value| value.to_le_bytes()));
        take(&bytes)?;
    }
    Ok(())
}

pub(crate) fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
