//! Flags of `history`: several releases of one model.

use std::path::PathBuf;

use super::Scoring;

#[derive(clap::Args)]
pub struct History {
    /// The newest release, whose earlier ones are found by what their folders say; or all of them, the oldest first, as folders,
    /// hub ids or files of predictions
    #[arg(value_name = "RELEASE", required = true)]
    pub releases: Vec<String>,

    /// Rows to ask every release about; predictions get their texts and labels from them, by id
    #[arg(long, value_name = "TASK|DATASET|FILE")]
    pub data: Option<String>,

    /// The split, such as `validation` or `train[:10%]`
    #[arg(long, value_name = "SPLIT")]
    pub split: Option<String>,

    /// Folder of the report: the newest release against the one before, with the history [default: NEWEST/history, else history]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,

    /// Of regressions: how far apart two numbers may be to count as the same answer, and an answer from the truth to be right
    #[arg(long, value_name = "NUMBER")]
    pub tolerance: Option<f64>,

    /// Confidence of all intervals
    #[arg(long, value_name = "SHARE", default_value_t = 0.95)]
    pub confidence: f64,

    #[command(flatten)]
    pub scoring: Scoring,
}
