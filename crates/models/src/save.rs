//! A classifier → the folder that `transformers` loads without a warning.

use std::path::Path;

use candle_core::Tensor;

use crate::{Config, Params, Result};

/// The metadata that tells readers whose tensor layout a file follows.
pub const FORMAT_PT: &[(&str, &str)] = &[("format", "pt")];

/// Writes config.json, model.safetensors and the tokenizer's files (byte for byte from `tokenizer_from`) into `dir`.
pub fn save(_dir: &Path, _config: &Config, _params: &Params, _tokenizer_from: &Path) -> Result<()> {
    Err(crate::Error::NotBuilt)
}

/// Writes f32 tensors in the given order; beside `path` first, then renamed over it.
pub fn write_safetensors<'t>(
    _path: &Path,
    _tensors: impl IntoIterator<Item = (&'t str, &'t Tensor)>,
    _metadata: &[(&str, &str)],
) -> Result<()> {
    Err(crate::Error::NotBuilt)
}

/// Sets every parameter from the file of the same names and shapes; a difference is an error and sets nothing.
pub fn read_params_into(_params: &Params, _path: &Path) -> Result<()> {
    Err(crate::Error::NotBuilt)
}
