//! Flags of `export`: a model in another program's form.

use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Export {
    /// A folder in the hub's layout, a hub id, or a name from models/
    #[arg(value_name = "ID|DIR")]
    pub model: String,

    /// As ONNX, for onnxruntime and what stands on it [FILE: DIR/onnx/model.onnx where none is given]
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    pub onnx: Option<Option<PathBuf>>,
}
