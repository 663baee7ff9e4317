//! Flags of `post-shift`, which adds a number a class to the logits of a trained model.

use std::path::PathBuf;

use clap::ValueEnum;

use super::Scoring;
use super::update::share;

#[derive(clap::Args)]
#[command(allow_negative_numbers = true)]
pub struct PostShift {
    /// A trained classifier: a folder in the hub's layout, a hub id, a name from models/
    #[arg(value_name = "DIR|ID")]
    pub model: String,

    /// Labelled rows to fit on, never trained on: a file, a data set, `task:split` or `file:split`
    #[arg(long, value_name = "DATA")]
    pub data: String,

    /// The split, where the data has several
    #[arg(long, value_name = "SPLIT")]
    pub split: Option<String>,

    /// Labelled rows to measure on, neither trained on nor fitted to: a file, a data set, `task:split` or `file:split` [default: those of --data,
    /// where a shift looks better than it is]
    #[arg(long, value_name = "DATA")]
    pub holdout: Option<String>,

    /// Rows whose shares of labels are those that the model was trained on; only labels are read [default: those that its own record
    /// names, else those of --data]
    #[arg(long, value_name = "DATA")]
    pub trained_on: Option<String>,

    /// Whom the shift is for: every class the same, or the class that is worst off
    #[arg(long, value_enum, default_value_t = ShiftFor::Robust)]
    pub objective: ShiftFor,

    /// Of the robust objective: 0 is the mean of the classes' errors, 1 the worst class alone [default: 1]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub worst_class_weight: Option<f64>,

    /// The rest of the robust objective: the mean over classes (balanced) or over rows (standard) [default: balanced]
    #[arg(long, value_enum)]
    pub base: Option<ShiftBase>,

    /// How far the robust objective moves the weights of classes in a round [default: 0.1]
    #[arg(long, value_name = "NUMBER")]
    pub step: Option<f64>,

    /// Rounds of the robust objective's search, of which the best is taken [default: 500]
    #[arg(long, value_name = "N")]
    pub rounds: Option<usize>,

    #[command(flatten)]
    pub scoring: Scoring,

    /// Folder of the shifted model [default: the model's name with -shifted]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,

    /// Remove what is in the output folder and start over
    #[arg(long)]
    pub fresh: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ShiftFor {
    Balanced,
    Robust,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ShiftBase {
    Balanced,
    Standard,
}
