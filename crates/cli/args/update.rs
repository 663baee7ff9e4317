//! Flags of the verbs around a deployed model.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Arg, ValueEnum};
use lowchurn_distill::Moment;

use crate::failure::Usage;
use crate::settings::Settings;

/// What an update is made of, whatever is done with it.
#[derive(clap::Args, Clone)]
pub struct Deployed {
    /// The deployed model: a run's folder, a hub id, any folder in the hub's layout; must be given
    // Not by clap: a sweep that only merges has none.
    #[arg(long, value_name = "DIR|ID", default_value = "", hide_default_value = true)]
    pub base: String,

    /// New labelled rows: a file, a data set, `task:split` or `file:split`; may be given several times
    #[arg(long, value_name = "DATA")]
    pub new: Vec<String>,

    /// Rows that the base was trained on, or `none` [default: those that its run.toml names]
    #[arg(long, value_name = "DATA")]
    pub old: Option<String>,

    /// Rows without labels, which follow the teacher alone
    #[arg(long, value_name = "DATA")]
    pub unlabelled: Vec<String>,

    /// Rows to measure on, never trained on; labels are not needed for churn [default: a cut of the new rows]
    #[arg(long, value_name = "DATA")]
    pub holdout: Option<String>,

    /// Held-out rows of the kind that the base was made for, told apart in the report as old rows
    #[arg(long, value_name = "DATA")]
    pub old_holdout: Option<String>,

    /// Share of the new rows that is held out where no --holdout is given
    #[arg(long, value_name = "SHARE", default_value_t = 0.2)]
    pub holdout_fraction: f64,

    /// A column of the held-out rows to slice the report by; may be given several times
    #[arg(long, value_name = "COLUMN")]
    pub slice: Vec<String>,

    /// Who is followed [default: the base]; several are an ensemble
    #[arg(long, value_name = "DIR|ID")]
    pub teacher: Vec<String>,

    /// How several teachers are one
    #[arg(long, value_enum, default_value_t = Ensemble::Probabilities)]
    pub ensemble: Ensemble,

    /// Names of labels that are called otherwise by the model: `DATA=MODEL,...`
    #[arg(long, value_name = "A=B,...")]
    pub label_map: Option<String>,

    /// Of a regression: how far apart two numbers may be to count as the same answer, and an answer from the truth to be right
    #[arg(long, value_name = "NUMBER")]
    pub tolerance: Option<f64>,

    /// Let labels that the model lacks become new classes
    #[arg(long)]
    pub allow_new_classes: bool,

    /// Folder of the teacher's tables, which every run may share
    #[arg(long, value_name = "DIR", default_value = "runs/tables")]
    pub tables: PathBuf,

    /// A plan in TOML; flags win over it, and it over the base's own run.toml
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,

    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Ensemble {
    /// The mean of their probabilities
    Probabilities,
    /// The mean of their logits
    Logits,
}

/// Which weights an update starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Init {
    /// The deployed model's
    Warm,
    /// The encoder that it was fine-tuned from, with a new head
    Cold,
}

impl Init {
    pub fn name(self) -> &'static str {
        match self {
            Init::Warm => "warm",
            Init::Cold => "cold",
        }
    }
}

/// How one run is trained. A sweep has lists of the same flags.
#[derive(clap::Args, Clone, Debug, Default, PartialEq)]
pub struct MethodFlags {
    /// How it is trained, such as `distil:lambda=0.5,temperature=2` or `mixup:alpha=0.4` [default: retrain in finetune, else distil]
    #[arg(long, value_name = "METHOD[:KEY=VALUE,...]")]
    pub method: Option<String>,

    /// The teacher's weight, for methods with a teacher: 0.5, 0.9..0.1, 0.9..0.1~cosine, 1..0@STEP, 1..0@50%, 0.7*1.047@100<=0.9 or
    /// churn<=LIMIT; of an update also a list, one training each: 0.3,0.5 [default: 0.5]
    #[arg(long, value_name = "LAMBDA")]
    pub lambda: Option<String>,

    /// Temperature of the teacher's term, for teacher and student; the term is multiplied by T² [default: 1]
    #[arg(long, value_name = "T")]
    pub temperature: Option<f64>,

    /// Whose mistakes count how much: standard, balanced (each class the same) or robust (the worst class), such as
    /// `robust:step=0.1,every=50`; also ada-margin and ada-alpha, for contrast [default: standard]
    #[arg(long, value_name = "OBJECTIVE[:KEY=VALUE,...]")]
    pub objective: Option<String>,

    /// Share of the worst class in the robust objective: 0 is the mean over classes, 1 the worst class alone [default: 1]
    #[arg(long, alias = "worst_class_weight", value_name = "SHARE", value_parser = share)]
    pub worst_class_weight: Option<f64>,

    /// A column whose values are the groups of an objective, in place of the classes
    #[arg(long, alias = "group_by", value_name = "COLUMN")]
    pub group_by: Option<String>,

    /// Switch the loss in the middle: before update 200, or after 50% of all
    #[arg(long, value_name = "STEP|SHARE%", value_parser = moment, requires = "switch_to")]
    pub switch_at: Option<Moment>,

    /// What is learnt from then on: teacher (at weight --lambda) after labels, or labels after the teacher [default of --lambda: 1]
    #[arg(long, value_enum, requires = "switch_at")]
    pub switch_to: Option<SwitchTo>,
}

/// Where a switched loss ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SwitchTo {
    Labels,
    Teacher,
}

impl MethodFlags {
    pub fn onto(&self, settings: &Settings) -> Result<Settings> {
        let MethodFlags { method, temperature, objective, worst_class_weight, group_by, .. } =
            self.clone();
        let lambda = self.lambda()?;
        Ok(Settings {
            method,
            lambda,
            temperature,
            objective,
            worst_class_weight,
            group_by,
            ..settings.clone()
        })
    }

    /// λ as it is typed, or its switch: `--lambda 0.8 --switch-at 50% --switch-to labels` is `0.8..0@50%`.
    fn lambda(&self) -> Result<Option<String>> {
        let (Some(at), Some(to)) = (self.switch_at, self.switch_to) else {
            return Ok(self.lambda.clone());
        };
        let typed = self.lambda.as_deref().unwrap_or("1");
        let is_number = |lambda: &str| lambda.trim().parse::<f64>().is_ok();
        if let Some(odd) = typed.split(',').find(|lambda| !is_number(lambda)) {
            return Err(Usage(format!(
                "--switch-at {at} beside --lambda {typed}: {odd:?} is no number; with --switch-at λ is what the teacher weighs while it \
                 is followed, such as 0.8, and without it --lambda may be the whole schedule"
            ))
            .into());
        }
        let switched = |lambda: &str| match to {
            SwitchTo::Labels => format!("{lambda}..0@{at}"),
            SwitchTo::Teacher => format!("0..{lambda}@{at}"),
        };
        let each = typed.split(',').map(|lambda| switched(lambda.trim()));
        Ok(Some(each.collect::<Vec<_>>().join(",")))
    }
}

fn moment(text: &str) -> Result<Moment, String> {
    match text.parse()? {
        Moment::Step(0) | Moment::Share(0.0) => {
            Err("nothing comes before the first update; expected an update from 1 on, or a share above 0%".into())
        }
        Moment::Share(1.0) => Err("nothing comes after the last update; expected a share below 100%".into()),
        moment => Ok(moment),
    }
}

/// What must hold of an update.
#[derive(clap::Args, Clone, Default)]
pub struct BudgetFlags {
    /// Certify that at most this share of predictions changes: `2%` or `0.02`
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub max_churn: Option<f64>,

    /// At most this share of rows goes from right to wrong; needs labels
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub max_nfr: Option<f64>,

    /// At most this share of each slice's rows goes from right to wrong; slices with too few labelled rows aren't judged
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub max_slice_nfr: Option<f64>,

    /// At most this share of each true class's rows goes from right to wrong
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub max_class_nfr: Option<f64>,

    /// Certify that accuracy grows by at least this; -0.5% allows a loss of half a point; needs labels
    #[arg(long, value_name = "SHARE", value_parser = signed_share, allow_hyphen_values = true)]
    pub min_accuracy_gain: Option<f64>,

    /// Rows whose prediction must not change: a file with their ids, or with rows of their own
    #[arg(long, value_name = "FILE")]
    pub golden: Option<PathBuf>,

    /// Confidence of the verdict [default: 0.95; of a report that is judged again, its own]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub confidence: Option<f64>,
}

const CONFIDENCE: f64 = 0.95;

impl BudgetFlags {
    pub fn confidence(&self) -> f64 {
        self.confidence.unwrap_or(CONFIDENCE)
    }

    pub fn is_set(&self) -> bool {
        self.max_churn.is_some()
            || self.max_nfr.is_some()
            || self.max_slice_nfr.is_some()
            || self.max_class_nfr.is_some()
            || self.min_accuracy_gain.is_some()
            || self.golden.is_some()
    }
}

/// Settings of a fine-tuning that mean nothing here, and are refused.
const FOREIGN: [&str; 6] =
    ["train_split", "eval_split", "eval_fraction", "fresh_head", "patience", "problem_type"];

fn without_foreign(arg: Arg) -> Arg {
    without(&FOREIGN, arg)
}

/// What flags of several verbs have and one of them refuses isn't in its help.
pub fn without(names: &[&str], arg: Arg) -> Arg {
    if names.contains(&arg.get_id().as_str()) { arg.hide(true) } else { arg }
}

#[derive(clap::Args)]
#[command(allow_negative_numbers = true, mut_args(without_foreign))]
pub struct Update {
    #[command(flatten)]
    pub deployed: Deployed,

    #[command(flatten)]
    pub method: MethodFlags,

    #[command(flatten)]
    pub budget: BudgetFlags,

    /// Which weights training starts from
    #[arg(long, value_enum, default_value_t = Init::Warm)]
    pub init: Init,

    /// Under a budget, with a warm start: models between old and new weights to choose among, as shares of the old ones, or `none`
    #[arg(long, value_name = "FROM:TO:STEP", default_value = "0:1:0.1")]
    pub interpolate: String,

    /// Folder of the new model [default: the base's name with -v2, -v3, …]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,

    /// Say what would be trained, with every setting; do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Remove what is in the output folder and start over
    #[arg(long)]
    pub fresh: bool,

    /// Choose again, by another budget, among the models that are trained in the output folder; what isn't there is trained. The
    /// certificate says what these rows answered before
    #[arg(long, conflicts_with = "fresh")]
    pub choose_again: bool,
}

#[derive(clap::Args)]
#[command(allow_negative_numbers = true, mut_args(without_foreign))]
pub struct Sweep {
    #[command(flatten)]
    pub deployed: Deployed,

    /// A method to compare; may be given several times [default: retrain and distil]
    #[arg(long, value_name = "METHOD[:KEY=VALUE,...]")]
    pub method: Vec<String>,

    /// Grid of the teacher's weight, for methods with a teacher that don't set it: `0.2,0.5` or `0:1:0.1` [default: the
    /// method's own, 0.5]
    #[arg(long, value_name = "GRID")]
    pub lambda: Option<String>,

    /// Grid of temperatures, for methods that have one and don't set it [default: the method's own]
    #[arg(long, value_name = "GRID")]
    pub temperature: Option<String>,

    /// Grid of label smoothing: a retrain each, from each start
    #[arg(long, value_name = "GRID")]
    pub smoothing: Option<String>,

    /// What of the model is trained: `full`, or settings such as `lora-rank=8,learning-rate=5e-4` or `freeze=embeddings+layers:3`;
    /// may be given several times [default: as the other flags say]
    #[arg(long, value_name = "KEY=VALUE,...")]
    pub trained: Vec<String>,

    /// Weights to start from
    #[arg(long, value_enum, value_delimiter = ',', default_value = "cold,warm")]
    pub init: Vec<Init>,

    /// Seeds, from --seed upwards
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub seeds: u32,

    /// Points between old and retrained weights (warm), by the share of the old ones; `none` for none
    #[arg(long, value_name = "GRID", default_value = "0:1:0.1")]
    pub interpolate: String,

    /// Ensembles of so many retrains, one seed after the other: the mean of their probabilities; `3,5` needs five seeds, and an
    /// ensemble of 3 that doesn't use all of them is in the table alone
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(2..))]
    pub ensemble_of: Vec<u32>,

    /// After the first seed, leave out settings that another beats clearly in both accuracy and churn
    #[arg(long)]
    pub drop_dominated: bool,

    /// Train only every n-th point, from the i-th: `1/3`, `2/3`, `3/3` on three machines, then --merge
    #[arg(long, value_name = "I/N")]
    pub shard: Option<String>,

    /// Train nothing; put the points of these folders together
    #[arg(long, value_name = "DIR", num_args = 1..)]
    pub merge: Vec<PathBuf>,

    /// Say which settings would be trained on how many rows; do nothing
    #[arg(long, conflicts_with = "merge")]
    pub dry_run: bool,

    /// Keep each point's weights
    #[arg(long)]
    pub keep_models: bool,

    /// Folder of the sweep [default: the base's folder with -sweep]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// `2%`, `0.02`.
pub fn share(text: &str) -> Result<f64, String> {
    match signed_share(text) {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("expected a share such as 2% or 0.02".into()),
    }
}

fn signed_share(text: &str) -> Result<f64, String> {
    let (number, by) = match text.trim().strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text.trim(), 1.0),
    };
    let value = number.trim().parse::<f64>().ok().map(|value| value / by);
    value
        .filter(|value| (-1.0..=1.0).contains(value))
        .ok_or_else(|| "expected a share such as 2% or 0.02".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_is_a_schedule_of_the_teachers_weight() {
        let check = |lambda: Option<&str>,
                     at: Option<&str>,
                     to,
                     expected: Result<Option<&str>, &str>| {
            let flags = MethodFlags {
                lambda: lambda.map(str::to_string),
                switch_at: at.map(|at| moment(at).unwrap()),
                switch_to: to,
                ..MethodFlags::default()
            };
            let settings = flags.onto(&Settings::default());
            match (settings, expected) {
                (Ok(settings), Ok(expected)) => assert_eq!(settings.lambda.as_deref(), expected),
                (found, expected) => {
                    assert_eq!(
                        found.map_err(|error| error.to_string()).err(),
                        expected.err().map(String::from)
                    );
                }
            }
        };
        check(None, None, None, Ok(None));
        check(Some("0.4"), None, None, Ok(Some("0.4")));
        check(None, Some("50%"), Some(SwitchTo::Labels), Ok(Some("1..0@50%")));
        let both = "0..0.8@20,0..0.5@20";
        check(Some("0.8, 0.5"), Some("20"), Some(SwitchTo::Teacher), Ok(Some(both)));
        let said = "--switch-at 50% beside --lambda 1..0@20%: \"1..0@20%\" is no number; with --switch-at λ is what the teacher weighs \
                    while it is followed, such as 0.8, and without it --lambda may be the whole schedule";
        check(Some("1..0@20%"), Some("50%"), Some(SwitchTo::Labels), Err(said));
        let refused = |text: &str, expected: &str| assert_eq!(moment(text), Err(expected.into()));
        refused(
            "x",
            "\"x\" is no moment of a run; expected an update such as 200, or a share of all such as 50%",
        );
        for text in ["0", "0%"] {
            refused(
                text,
                "nothing comes before the first update; expected an update from 1 on, or a share above 0%",
            );
        }
        refused("100%", "nothing comes after the last update; expected a share below 100%");
    }

    #[test]
    fn shares_are_read_both_ways() {
        assert_eq!((share("2%"), share("0.02"), share(" 50 % ")), (Ok(0.02), Ok(0.02), Ok(0.5)));
        for text in ["", "x", "2", "-1%", "101%", "NaN"] {
            assert_eq!(share(text), Err("expected a share such as 2% or 0.02".into()), "{text}");
        }
        assert_eq!(signed_share("-0.5%"), Ok(-0.005));
    }
}
