//! Config, safetensors and token ids → logits. Knows no datasets and no losses; reads and writes weights and nothing else.
//!
//! Modules in the order of the data: the config, the checkpoint's tensors, the parameters, the batch, the layers, the
//! architectures, the model, and back to disk.
//!
//! ```
//! use candle_core::Device;
//! use lowchurn_models::{Classifier, Head, Input, Mode};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let labels = vec!["no".into(), "yes".into()];
//! let head = Head::Fresh { labels, normal: &mut || 0.5 }; // numbers from a generator, for a real one
//! let (model, report) = Classifier::open("../../models/tiny".as_ref(), head, &Device::Cpu)?;
//! assert_eq!(report.fresh, ["classifier.bias", "classifier.weight"]);
//!
//! // Two texts of 4 and 3 tokens, the second one padded: ids, types, lengths, width.
//! let input = Input::new(&[2, 7, 9, 3, 2, 8, 3, 0], &[0; 8], &[4, 3], 4, &Device::Cpu)?;
//! let logits = model.forward(&input, Mode::Eval)?;
//! assert_eq!(logits.dims(), [2, 2]); // (B, K)
//! # Ok(())
//! # }
//! ```

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

mod served;

mod save;

mod onnx;

mod recast;

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
pub use load::{Head, LoadReport, Stored, labels_of, read_params_into, read_safetensors};
pub use lora::{Matrix, adapted, matrices, usual_targets};
pub use model_type::ModelType;
pub use modernbert::{HeadBias, LayerAttention, Modern, Pooling};
pub use onnx::{Exported, ONNX_OPSET, write_onnx, write_onnx_within};
pub use params::{Params, is_decayed, is_head};
pub use recast::{NumberFormat, recast};
pub use save::{
    FORMAT_PT, TOKENIZER_FILES, Values, copy_tokenizer, save, save_base, write_safetensors,
};
pub use served::{GeluForm, Numbers, Numerics};
pub use states::{Attended, States, Wanted};
pub use student::{Cut, Sizes, cut, resized, spread_layers};
pub use weights::{WEIGHTS_INDEX, has_weights, shard_names, weight_files};
