//! Text on disk to integer batches: sources, hub layout, reading, labels, inspection, tokens, batches, predictions, metrics.
//!
//! The modules are listed in the order in which data flows through them. This crate refuses to know candle, devices and
//! the network: ids of the hub are only parsed here, and which files of a repository are wanted is a pure function of its
//! listing. It never prints, exits, reads the environment or the clock.

pub mod error;
pub mod example;
pub mod rng;

pub mod encode;

pub mod batch;

pub mod metrics;
pub mod predictions;

pub use batch::{Batch, collate, epoch_order, eval_order, padding_share};
pub use encode::{Encoded, TextEncoder, encode};
pub use error::{Error, Result};
pub use example::{Example, LabelSet, Split};
pub use metrics::{Confusion, Metric};
pub use predictions::{PredictionRow, read_predictions, write_row};
pub use rng::Rng;
