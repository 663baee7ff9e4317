//! A checkpoint's weights → the file of a release: the same tensors under the same names, in the number format that is
//! asked for, with metadata of one's own. Reads the tensors one after the other and never holds two.

use std::path::Path;

use half::{bf16, f16};

use crate::save::write_file;
use crate::weights::{Entry, Weights};
use crate::{Error, Result};

/// How a number is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberFormat {
    F32,
    /// 11 significant bits, largest value 65,504.
    F16,
    /// 8 significant bits, the range of f32.
    Bf16,
}

impl NumberFormat {
    /// In a safetensors header.
    fn in_header(self) -> &'static str {
        match self {
            NumberFormat::F32 => "F32",
            NumberFormat::F16 => "F16",
            NumberFormat::Bf16 => "BF16",
        }
    }

    /// In a config.json of transformers.
    pub fn in_config(self) -> &'static str {
        match self {
            NumberFormat::F32 => "float32",
            NumberFormat::F16 => "float16",
            NumberFormat::Bf16 => "bfloat16",
        }
    }

    fn bytes(self) -> usize {
        match self {
            NumberFormat::F32 => 4,
            NumberFormat::F16 | NumberFormat::Bf16 => 2,
        }
    }
}

/// Writes the weights of the checkpoint in `from` to the file `to`, rounded to nearest, ties to even. Gives its SHA-256.
///
/// # Errors
/// As reading and writing; a value that is finite in f32 and not in `format`.
pub fn recast(
    from: &Path,
    to: &Path,
    format: NumberFormat,
    metadata: &[(&str, &str)],
) -> Result<String> {
    let weights = Weights::open(from)?;
    let entries = weights.entries();
    let bytes = |entry: &Entry| entry.shape.iter().product::<usize>() * format.bytes();
    let infos = entries
        .iter()
        .map(|entry| (&entry.name[..], format.in_header(), &entry.shape[..], bytes(entry)));
    write_file(to, infos, metadata, |put| {
        for entry in &entries {
            let values = weights.read(entry)?;
            let lost = values.iter().find(|x| x.is_finite() && !stays_finite(**x, format));
            if let Some(value) = lost {
                let (path, name, format) = (from.into(), entry.name.clone(), format.in_config());
                return Err(Error::Overflow { path, name, value: *value, format }.into());
            }
            // Pieces, so that a table of words isn't in memory twice.
            for piece in values.chunks(1 << 16) {
                put(&bytes_of(piece, format))?;
            }
        }
        Ok(())
    })
}

fn stays_finite(value: f32, format: NumberFormat) -> bool {
    match format {
        NumberFormat::F32 => true,
        NumberFormat::F16 => f16::from_f32(value).is_finite(),
        NumberFormat::Bf16 => bf16::from_f32(value).is_finite(),
    }
}

fn bytes_of(values: &[f32], format: NumberFormat) -> Vec<u8> {
    match format {
        NumberFormat::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        NumberFormat::F16 => values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
        NumberFormat::Bf16 => {
            values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect()
        }
    }
}
