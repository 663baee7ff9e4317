//! Config, safetensors and token ids → logits. Knows no datasets and no losses; reads and writes weights and nothing else.
//!
//! Modules in the order of the data: the config, the checkpoint's tensors, the parameters, the batch, the layers, the
//! model, and back to disk.

mod config;

mod weights;

mod params;

mod load;

mod input;

mod layers;

mod bert;

mod classifier;

mod save;

mod error;

pub use classifier::Classifier;
pub use config::{Config, ModelType, check_vocabulary};
pub use error::{Error, Misfit, Misshaped, Result};
pub use input::{Input, Mix, Mode};
pub use load::{Head, LoadReport, Stored, read_params_into, read_safetensors};
pub use params::{Params, is_decayed, is_head};
pub use save::{FORMAT_PT, Values, save, write_safetensors};
