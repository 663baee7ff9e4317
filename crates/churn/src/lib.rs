//! Old and new predictions → pairs → counts → intervals → verdict → report. Statistics only: no candle, no models.
//!
//! The modules are listed in the order in which a comparison goes through them. Nothing here prints, exits, reads the
//! environment or the clock.

mod names;

mod label_names;

mod gather;

mod json_row;

mod read;
mod read_kinds;

mod predicted;

mod answers;

mod pair;

mod flips;

mod soft;

mod interval;

mod slices;

mod classes;

mod compare;

mod budget;

mod gain;

mod certify;

mod walk;

mod again;

mod frontier;

mod slope;

mod runs;

mod deviation;

mod gate;

mod history;

mod report;

mod format;

mod plot;

mod markdown;

mod html;

mod error;

pub use again::*;
pub use answers::{Answers, Judged, OfAnswers, OfLabel, PairAnswers};
pub use budget::*;
pub use certify::*;
pub use classes::*;
pub use compare::*;
pub use deviation::*;
pub use error::{Error, Result};
pub use flips::*;
pub use format::markdown_cell;
pub use frontier::*;
pub use gain::gain_interval;
pub use gate::*;
pub use history::*;
pub use html::html;
pub use interval::*;
pub use markdown::markdown;
pub use names::{Names, RowsBy};
pub use pair::*;
pub use plot::frontier_svg;
pub use predicted::*;
pub use report::*;
pub use runs::churn_of_runs;
pub use slices::{column_slices, fisher_exact, holm};
pub use slope::*;
pub use soft::*;
pub use walk::*;
