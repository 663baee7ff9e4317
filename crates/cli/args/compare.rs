//! Flags of the verbs that judge two models.

use std::path::PathBuf;

use clap::ValueEnum;

use super::update::without;
use super::{BudgetFlags, Scoring};
use crate::served::{Form, form};

#[derive(clap::Args, Default)]
#[command(allow_negative_numbers = true)]
pub struct Compare {
    /// The deployed model: a folder in the hub's layout, a hub id, a name from models/; or its predictions: a file (csv, tsv,
    /// jsonl, parquet) with id and label or scores, or a folder of such files
    #[arg(value_name = "OLD")]
    pub old: String,

    /// The model to take its place, or its predictions
    #[arg(value_name = "NEW")]
    pub new: String,

    /// Rows to compare on: models are scored on them; predictions get their texts, labels and slices from them, by id
    #[arg(long, value_name = "TASK|DATASET|FILE")]
    pub data: Option<String>,

    /// The split, such as `validation` or `train[:10%]`
    #[arg(long, value_name = "SPLIT")]
    pub split: Option<String>,

    /// Folder of the report [default: NEW/compare where NEW is a run's folder, else compare-OLD-NEW]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,

    /// A column to slice by, of --data, else of a prediction file; may be given several times
    #[arg(long, value_name = "COLUMN")]
    pub slice: Vec<String>,

    /// A slice of the rows whose text has this word in it; may be given several times
    #[arg(long, value_name = "WORD")]
    pub keyword: Vec<String>,

    /// Slices with fewer rows are left out, and counted
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub min_slice_rows: u64,

    /// Count rows whose score of this label moves across this value; may be given several times
    #[arg(long, value_name = "LABEL=SCORE", value_parser = threshold)]
    pub threshold: Vec<(String, f64)>,

    /// Rows that the old model wasn't made for: a file with their ids, a data set, `task:split` or `file:split`
    #[arg(long, value_name = "FILE|DATA")]
    pub new_rows: Option<String>,

    /// A plain retrain on the new model's rows, as model or predictions: its churn is what the new one's is divided by
    #[arg(long, value_name = "FILE|DIR")]
    pub retrain: Option<String>,

    /// A run that differs from NEW by its seed alone, as model or predictions; may be given several times
    #[arg(long, value_name = "FILE|DIR")]
    pub seed_run: Vec<String>,

    /// What became of labels of the old model: `OLD=NEW,...`
    #[arg(long, value_name = "OLD=NEW,...")]
    pub label_map: Option<String>,

    /// Compare the rows that are on both sides, count the others
    #[arg(long)]
    pub allow_partial: bool,

    /// In prediction files: the column of the prediction [default: found by its name]
    #[arg(long, value_name = "COLUMN")]
    pub prediction_column: Option<String>,

    /// In prediction files: the column of the true class, or `none`
    #[arg(long, value_name = "COLUMN")]
    pub gold_column: Option<String>,

    /// In prediction files: the column of all scores, or how the names of columns with one each begin, or `none`
    #[arg(long, value_name = "COLUMN|PREFIX")]
    pub score_column: Option<String>,

    /// In prediction files: the classes of scores that stand in a list, in its order
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub labels: Vec<String>,

    /// Of regressions: how far apart two numbers may be to count as the same answer, and an answer from the truth to be right
    #[arg(long, value_name = "NUMBER")]
    pub tolerance: Option<f64>,

    /// Prediction files have no ids, but the same rows in the same order
    #[arg(long)]
    pub by_position: bool,

    /// How models are computed, both sides: `trained`; `served`, as servers compute what is published; or parts of that: `f16`,
    /// `tanh-gelu`, `length` (cut where the tokenizer says), `length=N`
    #[arg(long = "as", value_name = "FORM", value_parser = form, conflicts_with_all = ["old_as", "new_as"])]
    pub both_as: Option<Form>,

    /// The same of the old side alone; OLD twice with `--new-as served` is the churn that serving makes by itself
    #[arg(long, value_name = "FORM", value_parser = form)]
    pub old_as: Option<Form>,

    /// The same of the new side, its --retrain and --seed-run
    #[arg(long, value_name = "FORM", value_parser = form)]
    pub new_as: Option<Form>,

    #[command(flatten)]
    pub budget: BudgetFlags,

    /// Flips that report.json holds; flips.jsonl has all
    #[arg(long, value_name = "N", default_value_t = crate::reporting::MAX_FLIPS)]
    pub max_flips: usize,

    /// Training rows shown beside each flip; 0 for none
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub nearest: usize,

    /// Rows that the new model was trained on: they are left out where they are compared, and those near a flip are shown [default:
    /// those that its run.toml names]
    #[arg(long, value_name = "DATA")]
    pub train: Option<String>,

    #[command(flatten)]
    pub scoring: Scoring,
}

#[derive(clap::Args)]
#[command(allow_negative_numbers = true, mut_args(|arg| without(&["golden"], arg)))]
pub struct Gate {
    /// The report.json of an update or a comparison, or the folder with it; of a report whose rows chose the model (a sweep, a repair without a budget)
    /// no limit passes
    #[arg(value_name = "REPORT.json|DIR")]
    pub report: PathBuf,

    #[arg(long, value_enum, default_value_t = GateFormat::Text)]
    pub format: GateFormat,

    /// Where the verdict goes [default: stdout]
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    #[command(flatten)]
    pub budget: BudgetFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GateFormat {
    /// A line a check
    Text,
    /// JUnit's XML: a test case a check
    Junit,
    /// A table for a pull request
    Markdown,
    /// The certificate as it stands in the report
    Json,
    /// Flat names and numbers, for MLflow's `log_metrics` and Weights & Biases' `log`
    Metrics,
}

/// `LABEL=0.5`; the label may hold `=` itself.
fn threshold(text: &str) -> Result<(String, f64), String> {
    let expected =
        || "expected LABEL=SCORE with a score between 0 and 1, such as spam=0.5".to_string();
    let (label, score) = text.rsplit_once('=').ok_or_else(expected)?;
    let score = score.trim().parse::<f64>().ok().filter(|score| *score > 0.0 && *score < 1.0);
    match label.is_empty() {
        true => Err(expected()),
        false => Ok((label.into(), score.ok_or_else(expected)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds() {
        assert_eq!(threshold("spam=0.5"), Ok(("spam".into(), 0.5)));
        assert_eq!(threshold("a=b=.25"), Ok(("a=b".into(), 0.25)));
        for text in ["spam", "=0.5", "spam=", "spam=1", "spam=0", "spam=NaN", "spam=x"] {
            let expected = "expected LABEL=SCORE with a score between 0 and 1, such as spam=0.5";
            assert_eq!(threshold(text), Err(expected.into()), "{text}");
        }
    }
}
