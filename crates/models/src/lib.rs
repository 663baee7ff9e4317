//! Config, safetensors and token ids → logits. Knows no datasets and no losses; reads and writes weights and nothing else.
//!
//! Modules in the order of the data: what is published, what is checked, the layers, the classifier, and back to disk.

mod classifier;
mod config;
mod error;
mod input;
mod params;
mod save;

pub use classifier::{Classifier, Head, LoadReport};
pub use config::{Activation, Config, check_vocabulary};
pub use error::{Error, Result};
pub use input::{Input, Mode};
pub use params::{Params, is_decayed};
pub use save::{FORMAT_PT, read_params_into, save, write_safetensors};
