//! Flags of `repair`, which makes a model of models without training.

use std::path::PathBuf;

use clap::ValueEnum;

use super::BudgetFlags;
use super::update::without;

#[derive(clap::Args)]
#[command(allow_negative_numbers = true, mut_args(|arg| without(&["max_slice_nfr", "max_class_nfr"], arg)))]
pub struct Repair {
    /// The deployed model: a folder in the hub's layout, a hub id, a name from models/
    #[arg(value_name = "OLD")]
    pub old: String,

    /// A model that was trained from it; the weights of several are averaged first
    #[arg(value_name = "NEW", required = true)]
    pub new: Vec<String>,

    /// Rows to measure on, never trained on: a file, a data set, `task:split` or `file:split`; labels are needed where no budget is given
    #[arg(long, value_name = "DATA")]
    pub holdout: String,

    /// Shares of the old weights to try
    #[arg(long, value_name = "GRID", default_value = "0:1:0.05")]
    pub alpha: String,

    /// Try weights that keep near the old ones where those matter, too; by Fisher information of so many rows [default: 512]
    #[arg(
        long,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "512",
        value_parser = clap::value_parser!(u32).range(1..),
        value_name = "ROWS"
    )]
    pub fisher: Option<u32>,

    /// Rows for --fisher, like those that the old model was trained on; labels aren't read [default: as its run.toml says]
    #[arg(long, value_name = "DATA")]
    pub fisher_data: Option<String>,

    /// Fit temperature, or temperature and bias, on a part of the held-out rows; the rest measures
    #[arg(long, value_enum, default_value_t = Refit::None)]
    pub refit: Refit,

    /// What the re-fit brings the scores near to
    #[arg(long, value_enum, default_value_t = Towards::Labels)]
    pub towards: Towards,

    #[command(flatten)]
    pub budget: BudgetFlags,

    /// Names of labels that are called otherwise by the model: `DATA=MODEL,...`
    #[arg(long, value_name = "A=B,...")]
    pub label_map: Option<String>,

    /// Column that holds the text
    #[arg(long, value_name = "COLUMN")]
    pub text_column: Option<String>,

    /// Column that holds the second text of a pair
    #[arg(long, value_name = "COLUMN")]
    pub pair_column: Option<String>,

    /// Column that holds the label
    #[arg(long, value_name = "COLUMN")]
    pub label_column: Option<String>,

    /// Column that holds the row's id
    #[arg(long, value_name = "COLUMN")]
    pub id_column: Option<String>,

    /// auto, cpu, cuda[:N] or metal
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: String,

    /// Matrix products in bf16 where any of the models is scored; sums and weights stay f32 [default: f32]
    #[arg(long)]
    pub bf16: bool,

    /// Folder of the repaired model [default: NEW's name with -repaired]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,

    /// Remove what is in the output folder and start over
    #[arg(long)]
    pub fresh: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Refit {
    /// Scores as they are
    None,
    /// One number for all scores; no prediction changes
    Temperature,
    /// A number for each class too; predictions change
    Bias,
}

impl Refit {
    pub fn name(self) -> &'static str {
        match self {
            Refit::None => "none",
            Refit::Temperature => "temperature",
            Refit::Bias => "bias",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Towards {
    /// The true classes
    Labels,
    /// The old model's probabilities; needs no labels
    Old,
}

impl Towards {
    pub fn name(self) -> &'static str {
        match self {
            Towards::Labels => "labels",
            Towards::Old => "old",
        }
    }
}
