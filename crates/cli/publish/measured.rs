//! What a release is measured on: the rows that its run was trained on, for the table that goes with it, and those that the run was
//! judged by, for what the rounding of weights changes. Both sides of that, the run's model and its release, have products in f32.

use anyhow::Result;
use lowchurn_churn::{Rate, upper_bound};
use lowchurn_data::{Columns, Example, Kind, Labels, Split};
use lowchurn_distill::Predictions;
use serde::Serialize;

use crate::args::Publish;
use crate::console::Console;
use crate::data::{self, EvalChoice, Wanted, Wishes};
use crate::device::Compute;
use crate::earlier;
use crate::eval::chosen_split;
use crate::failure::Usage;
use crate::found::{Found, logits, open_model, tokens_of};
use crate::progress::count;
use crate::publish::run::Run;

/// As it is said in the card and in the manifest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cast {
    pub dtype: &'static str,
    pub rows: String,
    /// Rows whose prediction is another one after rounding.
    pub changed: u64,
    pub of: u64,
    pub limit: f64,
    /// Exact one-sided bound at 95 %.
    pub at_most: f64,
    /// Over all logits.
    pub largest_difference: f64,
}

impl Cast {
    pub fn is_within(&self) -> bool {
        self.changed as f64 <= self.limit * self.of as f64
    }

    pub fn said(&self) -> String {
        format!(
            "{}: {} of {} rows of {} change their prediction ({:.2} %; with 95 % confidence at most {:.2} %), the limit is {:.2} %",
            self.dtype,
            count(self.changed),
            count(self.of),
            self.rows,
            100.0 * self.changed as f64 / self.of as f64,
            100.0 * self.at_most,
            100.0 * self.limit,
        )
    }
}

/// The rows to measure on, with a name. Read before anything is written: without rows there is nothing to publish.
pub fn rows(args: &Publish, run: &Run, console: &mut Console) -> Result<(String, Vec<Example>)> {
    let hub = crate::places::hub()?;
    let kind = run.model.outputs.kind;
    if kind == Kind::Regression {
        let said = "--dtype: the model is a regression, and no number stays quite the same when weights are rounded; publish it as f32";
        return Err(Usage(said.into()).into());
    }
    let s = run.settings.clone();
    let columns = Columns {
        text: s.text_column,
        pair: s.pair_column,
        label: s.label_column,
        id: s.id_column,
    };
    let wishes = Wishes { columns, kind: Some(kind) };
    let split = match (&args.data, &s.data) {
        (Some(text), _) => {
            let data = data::open(text, &hub, console)?;
            let split = chosen_split(None, &data)?;
            data.read(&split, &wishes, Labels::Ignored, None, &hub, console)?
        }
        // An update's held-out rows aren't in its record.
        (None, Some(text)) if s.base.is_none() => {
            let data = data::open(text, &hub, console)?;
            let wanted = Wanted {
                train: s.train_split.or(data.split.clone()).unwrap_or_else(|| "train".into()),
                eval: s.eval_split,
                eval_fraction: s.eval_fraction,
                wishes,
            };
            if data.eval_choice(&wanted) == EvalChoice::None {
                return Err(no_rows(run));
            }
            let (_, eval) = data.train_and_eval(&wanted, &hub, console)?;
            eval.ok_or_else(|| no_rows(run))?
        }
        (None, _) => return Err(no_rows(run)),
    };
    match split.examples.is_empty() {
        true => Err(no_rows(run)),
        false => Ok((split.name, split.examples)),
    }
}

fn no_rows(run: &Run) -> anyhow::Error {
    Usage(format!(
        "--dtype: what rounding changes has to be measured, and {} names no evaluation rows; name some with --data, labels aren't \
         needed",
        run.folder.join("run.toml").display()
    ))
    .into()
}

/// Scores the rows with both models.
pub fn measure(
    (old, new): (&Found, &Found),
    (rows, examples): &(String, Vec<Example>),
    dtype: &'static str,
    limit: f64,
    compute: &Compute,
    console: &mut Console,
) -> Result<Cast> {
    let mut of = |found: &Found| -> Result<Predictions> {
        let model = open_model(found, compute)?;
        let tokens = tokens_of(found, &model.config, examples)?;
        logits(&model, &tokens, compute, console)
    };
    let (before, after) = (of(old)?, of(new)?);
    let is_changed = |row: &usize| match old.outputs.kind {
        Kind::MultiLabel => {
            let labels = |p: &Predictions| old.outputs.labels_of(p.logits_of(*row));
            labels(&before) != labels(&after)
        }
        _ => before.predicted(*row) != after.predicted(*row),
    };
    let changed = (0..before.rows()).filter(is_changed).count() as u64;
    let of = before.rows() as u64;
    let pairs = before.logits.iter().zip(&after.logits);
    let largest_difference = pairs.map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
    let at_most = upper_bound(changed, of, 0.95);
    Ok(Cast { dtype, rows: rows.clone(), changed, of, limit, at_most, largest_difference })
}

/// The rows that the run was trained on, as its record names them.
pub fn trained_on(run: &Run, console: &mut Console) -> Result<Split> {
    let rows = earlier::trained_on(&run.model, &crate::places::hub()?, console)?;
    let rows = rows.ok_or_else(|| {
        Usage(format!(
            "--with-table: {} doesn't say which rows it was trained on",
            run.folder.join("run.toml").display()
        ))
    })?;
    rows.whole()
}

/// A rate as the card shows it.
pub fn percent(rate: &Option<Rate>) -> Option<String> {
    let rate = rate.as_ref()?;
    let [value, low, high] = [rate.value, rate.interval.low, rate.interval.high].map(|x| 100.0 * x);
    Some(format!("{value:.2} % ({low:.2} to {high:.2})"))
}
