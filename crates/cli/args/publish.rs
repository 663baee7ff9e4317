//! Flags of `publish`, which brings a finished run to the hub.

use std::path::PathBuf;

use clap::ValueEnum;

use super::BudgetFlags;
use super::update::{share, without};

#[derive(clap::Args)]
#[command(allow_negative_numbers = true, mut_args(|arg| without(&["golden"], arg)))]
pub struct Publish {
    /// The folder of a finished run: of finetune, update, distil, repair or post-shift
    #[arg(value_name = "DIR")]
    pub run: PathBuf,

    /// The repository of the hub; made where it isn't there
    #[arg(long, value_name = "OWNER/NAME")]
    pub to: String,

    /// The branch to write to; made where it isn't there [default: main]
    #[arg(long, value_name = "BRANCH")]
    pub revision: Option<String>,

    /// Where the repository is made: only its owner sees it
    #[arg(long)]
    pub private: bool,

    /// A pull request to the branch in place of a commit
    #[arg(long)]
    pub create_pr: bool,

    /// Write the release's folder, show its files and its card, and send nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Publish although the gate didn't pass, which the card then says; write over what others put there
    #[arg(long)]
    pub force: bool,

    /// Licence by the hub's name for it, such as apache-2.0 [default: the base model's]
    #[arg(long, value_name = "ID")]
    pub license: Option<String>,

    /// A model card of your own in place of the one that is made: Markdown with a YAML front matter
    #[arg(long, value_name = "FILE.md")]
    pub card: Option<PathBuf>,

    /// How the weights are stored; what the rounding changes is measured on the run's evaluation rows
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    pub dtype: Dtype,

    /// Rows on which the rounding is measured; labels aren't needed [default: the run's evaluation rows]
    #[arg(long, value_name = "DATA")]
    pub data: Option<String>,

    /// The largest share of predictions that rounding may change
    #[arg(long, value_name = "SHARE", value_parser = share, default_value = "0.5%")]
    pub max_cast_churn: f64,

    /// Put in the logits of the rows that the model was trained on: the next update then scores new rows alone
    #[arg(long)]
    pub with_table: bool,

    /// Publish the rows' texts in the report; without this only ids, labels and scores are
    #[arg(long)]
    pub with_texts: bool,

    /// The report to be judged by [default: DIR/report.json]
    #[arg(long, value_name = "REPORT.json")]
    pub report: Option<PathBuf>,

    /// auto, cpu, cuda[:N] or metal
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: String,

    #[command(flatten)]
    pub budget: BudgetFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    F32,
    F16,
    Bf16,
}
