//! Text on disk to integer batches: sources, hub layout, reading, labels, inspection, tokens, batches, predictions, metrics.
//!
//! The modules are listed in the order in which data flows through them. This crate refuses to know candle, devices and
//! the network: ids of the hub are only parsed here, and which files of a repository are wanted is a pure function of its
//! listing. It never prints, exits, reads the environment or the clock.
//!
//! ```
//! use lowchurn_data::{BatchSize, Columns, Dataset, Labels, Request, TextEncoder, collate, encode, epoch_order, read};
//!
//! # fn main() -> lowchurn_data::Result<()> {
//! let files = ["../../datasets/tickets/month-1.jsonl".into()];
//! let request = Request { columns: Columns::default(), labels: Labels::Required, label_set: None, kind: None };
//! let split = read(&Dataset::of_files(&files)?, "train[:100]", &request)?;
//! assert_eq!(split.examples.len(), 100);
//!
//! let encoder = TextEncoder::open("../../models/tiny".as_ref())?;
//! let encoded = encode(&encoder, &split.examples, 128)?;
//! let epoch = epoch_order(&encoded.lengths(), BatchSize::Rows(16), 42, 0); // batches of rows of like length
//! let batch = collate(&encoded, &epoch[0], 0);
//! assert_eq!(batch.tokens.len(), batch.lengths.len() * batch.width); // (B, T)
//! # Ok(())
//! # }
//! ```

pub mod error;
pub mod example;
pub mod kind;
pub mod rng;

pub mod source;
pub mod task;

pub mod glob;

pub mod features;

pub mod card;

pub mod layout;

pub mod dataset;

pub mod slice;

mod delimited;
mod json_lines;
mod parquet_columns;
mod parquet_file;
mod parquet_lists;
pub mod table;

pub mod columns;
pub mod labels;

pub mod read;

pub mod alignment;

pub mod cut;
pub mod inspect;

mod byte_level;

pub mod encode;
pub mod vocabulary;

pub mod batch_size;

pub mod batch;

pub mod correlation;
pub mod label_counts;
pub mod metrics;
pub mod predictions;

pub use alignment::{
    Alignment, NewClasses, align_teacher, align_update, entries_for, parse_map, refuse_unused,
};
pub use batch::{Batch, batches_per_epoch, collate, epoch_order, eval_order, padding_share};
pub use batch_size::BatchSize;
pub use columns::{Columns, Labels};
pub use correlation::{Correlation, correlation};
pub use cut::stratified_cut;
pub use dataset::Dataset;
pub use encode::{Encoded, TextEncoder, encode, tokenizer_files};
pub use error::{Error, Result};
pub use example::{Example, LabelSet, Split, labelled};
pub use inspect::{Inspection, inspect};
pub use kind::{Kind, Target, Targets};
pub use label_counts::LabelCounts;
pub use layout::{Layout, layout};
pub use metrics::{Confusion, Metric};
pub use predictions::{
    PredictionRow, SetRow, ValueRow, first_largest, read_predictions, write_row, write_set_row,
    write_value_row,
};
pub use read::{Request, read, read_columns};
pub use rng::Rng;
pub use source::Source;
pub use task::Task;
pub use vocabulary::{Trimmed, trim_vocabulary};
