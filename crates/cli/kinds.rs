//! What the kind of a task decides: the metric, which settings mean something, the weights of classes, and how a model's outputs
//! become answers to compare.

use anyhow::Result;
use lowchurn_churn::Predicted;
use lowchurn_data::error::nearest;
use lowchurn_data::{Example, Kind, Metric, Split, parse_map};
use lowchurn_distill::{Outputs, Plan, SelectBy, Threshold};

use crate::failure::Usage;
use crate::job::{Job, Rows};

/// Fills in what only the rows say, and refuses what their kind has no use for.
pub fn settle(job: &mut Job, rows: &Rows) -> Result<()> {
    let kind = Kind::of(&rows.train.examples);
    let settings = &job.layers.settings;
    let by_task = job.data.task.as_ref().map(|task| task.metric);
    job.plan.select_by = match (settings.select_by, by_task) {
        (Some(typed @ (SelectBy::Loss | SelectBy::WorstClass)), _) => typed,
        (Some(typed), _) => {
            let metric: Metric = typed.name().parse()?;
            metric.check(kind).map_err(|error| Usage(error.to_string()))?.into()
        }
        (None, Some(metric)) if metric.check(kind).is_ok() => metric.into(),
        (None, _) => Metric::default_of(kind).into(),
    };
    job.plan.class_weight = class_weights(settings.class_weights.as_deref(), &rows.train)?;
    if job.plan.threshold == Some(Threshold::Tuned) && rows.eval.is_none() {
        let said = "threshold tuned: thresholds are tuned on the rows of the evaluation, and there is none; give a number, or an \
                    --eval-split";
        return Err(Usage(said.into()).into());
    }
    check(&job.plan, kind, rows.train.labels.len())
}

/// The same of an update, whose kind is the deployed model's.
pub fn settle_update(
    plan: &mut Plan,
    weights: Option<&str>,
    train: &Split,
    kind: Kind,
) -> Result<()> {
    plan.class_weight = class_weights(weights, train)?;
    if plan.threshold == Some(Threshold::Tuned) {
        let said = "threshold tuned: held-out rows choose nothing while an update trains; give a number, or leave it out to keep \
                    the deployed model's";
        return Err(Usage(said.into()).into());
    }
    check(plan, kind, train.labels.len())
}

/// Refuses what means nothing for a kind of task.
pub fn check(plan: &Plan, kind: Kind, classes: usize) -> Result<()> {
    let outputs = Outputs { kind, ..Outputs::default() };
    Ok(outputs.check(plan, classes).map_err(|error| Usage(error.to_string()))?)
}

/// Verbs that know one class a row alone.
pub fn refuse_other(kind: Kind, verb: &str) -> Result<()> {
    match kind {
        Kind::SingleLabel => Ok(()),
        kind => Err(Usage(format!(
            "{verb} is for single-label tasks, and the model is a {} one; lowchurn update and lowchurn compare know all kinds",
            kind.name()
        ))
        .into()),
    }
}

/// How far apart two numbers may be; a regression needs it, and nothing else has a use for it.
pub fn tolerance(kind: Kind, tolerance: Option<f64>) -> Result<Option<f64>> {
    let said = match (kind, tolerance) {
        (Kind::Regression, None) => {
            "the model is a regression, and no two numbers are quite the same; say how far apart two may be to count as one answer: \
             --tolerance 0.25"
                .to_string()
        }
        (Kind::Regression, Some(value)) if !(value.is_finite() && value >= 0.0) => {
            format!("--tolerance {value}: expected a number of at least 0")
        }
        (Kind::SingleLabel | Kind::MultiLabel, Some(value)) => format!(
            "--tolerance {value} is for regressions, and the model is a {} one; leave it out",
            kind.name()
        ),
        (_, tolerance) => return Ok(tolerance),
    };
    Err(Usage(said).into())
}

/// A teacher says what its student learns: their kinds are the same.
pub fn refuse_other_teacher(name: &str, teacher: Kind, student: Kind) -> Result<()> {
    match teacher == student {
        true => Ok(()),
        false => Err(Usage(format!(
            "teacher {name} is a {} model, but the rows are of a {} task; take a teacher of the same kind",
            teacher.name(),
            student.name()
        ))
        .into()),
    }
}

/// (K,) `balanced`, or a number for each class that is named and 1 for the others; empty where nothing is asked.
///
/// Balanced, a class weighs N / (K · its rows), as scikit-learn has it; of a multi-label task, where a label holds, its other rows
/// over its own, as PyTorch's `pos_weight` is meant.
pub fn class_weights(asked: Option<&str>, rows: &Split) -> Result<Vec<f64>> {
    let (Some(asked), names) = (asked, rows.labels.names()) else { return Ok(Vec::new()) };
    let kind = Kind::of(&rows.examples);
    if kind == Kind::Regression {
        let said = "class weights are for single-label and multi-label tasks, and this is a regression; leave them out";
        return Err(Usage(said.into()).into());
    }
    if asked == "balanced" {
        let labels = |row: &Example| row.classes().or(row.label.map(|label| vec![label]));
        let mut counts = vec![0u64; names.len()];
        let mut n = 0;
        for set in rows.examples.iter().filter_map(labels) {
            n += 1;
            set.iter().for_each(|label| counts[*label as usize] += 1);
        }
        let odd = |count: &u64| *count == 0 || (kind == Kind::MultiLabel && *count == n);
        if let Some(at) = counts.iter().position(odd) {
            let what = if counts[at] == 0 { "no row has" } else { "every row has" };
            return Err(Usage(format!(
                "class weights balanced: {what} the label {}; name the weights instead, such as {}=2",
                names[at], names[at]
            ))
            .into());
        }
        let weight = |count: &u64| match kind {
            Kind::MultiLabel => (n - count) as f64 / *count as f64,
            _ => n as f64 / (names.len() as f64 * *count as f64),
        };
        return Ok(counts.iter().map(weight).collect());
    }
    let mut weights = vec![1.0; names.len()];
    for (name, weight) in parse_map(asked).map_err(|error| {
        Usage(format!("class weights {asked:?}: expected balanced, or NAME=NUMBER with commas between ({error})"))
    })? {
        let at = names.iter().position(|known| *known == name).ok_or_else(|| {
            let near = nearest(&name, names.iter().map(String::as_str));
            let hint = near.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
            Usage(format!("class weights: {name:?} isn't a label (labels: {}){hint}", names.join(", ")))
        })?;
        let number = weight.parse::<f64>().ok().filter(|weight| weight.is_finite() && *weight > 0.0);
        weights[at] = number.ok_or_else(|| {
            Usage(format!("class weights: {name} is {weight:?}, expected a number above 0"))
        })?;
    }
    Ok(weights)
}

/// Rows, and how a model's logits on them are read.
pub struct Reading<'r> {
    pub outputs: &'r Outputs,
    /// The model's.
    pub labels: &'r [String],
    /// Their labels are the model's, in their order, and perhaps more.
    pub rows: &'r Split,
    pub tolerance: Option<f64>,
}

/// A model's logits (N·K) as answers beside the true ones. Classes that the model doesn't know are no truth that it can be
/// held against.
pub fn answers(name: &str, reading: &Reading, logits: &[f32]) -> Result<Predicted> {
    let Reading { outputs, labels, rows, tolerance } = *reading;
    let all = rows.labels.names();
    let ids = rows.examples.iter().map(|row| row.id.clone()).collect();
    Ok(match outputs.kind {
        Kind::SingleLabel => {
            let is_known = |label: &u32| labels == all || (*label as usize) < labels.len();
            let gold = rows.examples.iter().map(|row| row.label.filter(is_known)).collect();
            Predicted::from_logits(name, labels, ids, gold, logits)?
        }
        Kind::MultiLabel => {
            let gold = rows.examples.iter().map(Example::classes).collect();
            let sets = logits.chunks_exact(labels.len().max(1)).map(|z| outputs.labels_of(z));
            let names = if all.len() >= labels.len() { all } else { labels };
            Predicted::from_sets(name, names, ids, gold, sets.collect())?
        }
        Kind::Regression => {
            let gold = rows.examples.iter().map(Example::value).collect();
            let tolerance = self::tolerance(Kind::Regression, tolerance)?.unwrap_or_default();
            Predicted::from_values(name, ids, gold, logits.to_vec(), tolerance)?
        }
    })
}

#[cfg(test)]
mod tests {
    use lowchurn_data::{LabelSet, Target};

    use super::*;

    fn split(sets: &[&[u32]], is_multi: bool) -> Split {
        let names = ["a", "b", "c"].map(str::to_string).to_vec();
        let row = |(at, set): (usize, &&[u32])| Example {
            id: at.to_string(),
            text: "t".into(),
            pair: None,
            label: set.first().copied(),
            target: is_multi.then(|| Target::Classes(set.to_vec())),
        };
        let rows = sets.iter().enumerate().map(row).collect();
        Split::new("x", rows, LabelSet::new(names).unwrap())
    }

    /// Expected of single rows by scikit-learn's `compute_class_weight("balanced", ...)`: 4 / (3 · 2), 4 / 3, 4 / 3.
    #[test]
    fn weights_of_classes() {
        let single = split(&[&[0], &[1], &[0], &[2]], false);
        let multi = split(&[&[0, 1], &[1], &[2], &[2, 1]], true);
        let check = |asked: &str, rows: &Split, expected: Result<&[f64], &str>| match (
            class_weights(Some(asked), rows),
            expected,
        ) {
            (Ok(found), Ok(expected)) => {
                let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-12;
                assert!(found.iter().zip(expected).all(close), "{asked}: {found:?}");
            }
            (found, expected) => {
                assert_eq!(
                    found.map_err(|error| error.to_string()),
                    expected.map(<[f64]>::to_vec).map_err(str::to_string)
                );
            }
        };
        check("balanced", &single, Ok(&[2.0 / 3.0, 4.0 / 3.0, 4.0 / 3.0]));
        check("balanced", &multi, Ok(&[3.0, 1.0 / 3.0, 1.0]));
        check("b=2,c=0.5", &single, Ok(&[1.0, 2.0, 0.5]));
        let lacking = split(&[&[0], &[1]], false);
        let said =
            "class weights balanced: no row has the label c; name the weights instead, such as c=2";
        check("balanced", &lacking, Err(said));
        let full = split(&[&[0, 2], &[1, 2]], true);
        check("balanced", &full, Err(&said.replace("no row", "every row")));
        check("d=1", &single, Err("class weights: \"d\" isn't a label (labels: a, b, c)"));
        check("a=0", &single, Err("class weights: a is \"0\", expected a number above 0"));
        check("a=x", &single, Err("class weights: a is \"x\", expected a number above 0"));
        let said = "class weights \"even\": expected balanced, or NAME=NUMBER with commas between (label map \"even\": expected \
                    FROM=TO, or several with commas between)";
        check("even", &single, Err(said));
        assert_eq!(class_weights(None, &single).unwrap(), Vec::<f64>::new());
    }

    #[test]
    fn a_tolerance_is_for_numbers() {
        let said = |kind, value| tolerance(kind, value).map_err(|error| error.to_string());
        assert_eq!(said(Kind::Regression, Some(0.25)), Ok(Some(0.25)));
        assert_eq!(said(Kind::MultiLabel, None), Ok(None));
        let error = said(Kind::Regression, None).unwrap_err();
        assert!(
            error
                .ends_with("say how far apart two may be to count as one answer: --tolerance 0.25"),
            "{error}"
        );
        assert_eq!(
            said(Kind::Regression, Some(-1.0)).unwrap_err(),
            "--tolerance -1: expected a number of at least 0"
        );
        assert_eq!(
            said(Kind::SingleLabel, Some(1.0)).unwrap_err(),
            "--tolerance 1 is for regressions, and the model is a single-label one; leave it out"
        );
    }
}
