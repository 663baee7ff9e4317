//! Config, safetensors and token ids → logits. Knows no datasets and no losses; reads and writes weights and nothing else.
//!
//! Modules in the order of the data: the config, the checkpoint's tensors, the parameters, the batch, the layers, the
//! architectures, the model, and back to disk.

mod model_type;

mod keys;

mod config;

mod weights;

mod params;

mod load;

mod input;

mod layers;

mod layout;

mod states;

mod post_norm;

mod albert;
mod bert;
mod deberta;
mod distilbert;
mod electra;
mod modernbert;
mod mpnet;
mod roberta;

mod architecture;

mod classifier;

mod save;

mod onnx;

mod lora;

mod adapter;

mod student;

mod error;

pub use adapter::{
    ADAPTER_CONFIG, ADAPTER_WEIGHTS, AdapterBase, AdapterFiles, adapter_base, open_adapted,
    save_adapter,
};
pub use albert::Groups;
pub use architecture::{depth, shapes as parameter_shapes};
pub use classifier::Classifier;
pub use config::{Config, Details, check_vocabulary};
pub use deberta::{Deberta, RelativeTerms};
pub use error::{Error, Misfit, Misshaped, Result};
pub use input::{Input, Mix, Mode};
pub use layout::Depth;
pub use load::{Head, LoadReport, Stored, read_params_into, read_safetensors};
pub use lora::{Matrix, adapted, matrices, usual_targets};
pub use model_type::ModelType;
pub use modernbert::{HeadBias, LayerAttention, Modern, Pooling};
pub use onnx::{Exported, ONNX_OPSET, write_onnx, write_onnx_within};
pub use params::{Params, is_decayed, is_head};
pub use save::{
    FORMAT_PT, TOKENIZER_FILES, Values, copy_tokenizer, save, save_base, write_safetensors,
};
pub use states::{Attended, States, Wanted};
pub use student::{Cut, Sizes, cut, resized, spread_layers};
pub use weights::has_weights;
