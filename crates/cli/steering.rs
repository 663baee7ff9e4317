//! What an objective asks for besides the rows to train on: held-out rows that steer it, and the groups of rows by a column.
//!
//! Of an update these are calibration rows, so that nothing is certified by what has steered; of a fine-tuning and a
//! distillation they are the rows of the evaluation, which choose its best weights too.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::path::Path;

use anyhow::Result;
use lowchurn_data::{Example, Labels, Split, TextEncoder, encode};
use lowchurn_distill::{
    Buffer, Groups, Plan, SteeredBy, Steering, Teacher, sha256_of_text, steering_rows,
};

use crate::console::Console;
use crate::data::EvalChoice;
use crate::failure::Usage;
use crate::found::{self, Teachers};
use crate::job::{Job, Rows};
use crate::progress::{count, printable};
use crate::settings;
use crate::updating::Updating;

/// The flag, and as what a column is asked for.
pub const GROUP_BY: &str = "group-by";

/// To be lent to a run's guides; nothing of it without an objective that asks.
#[derive(Default)]
pub struct Steered {
    pub steering: Option<Steering>,
    pub groups: Option<Groups>,
    /// For the provenance: their name, and the hash of all that they decide.
    pub named: Option<(String, String)>,
}

/// The rows that may steer, of which a part is taken.
struct Held<'h> {
    rows: &'h Split,
    /// The teacher's scores of them, where its labels steer.
    teacher: Option<Teacher>,
}

/// Whether calibration rows steer the trainings of an update.
pub fn is_steered(updating: &Updating) -> bool {
    settings::objective(&updating.layers.settings).is_ok_and(|found| found.robust().is_some())
}

/// Of an update, for a student that reads with the tokenizer in `folder`. `None` where it was interrupted.
pub fn of_update(
    updating: &Updating,
    plan: &Plan,
    folder: &Path,
    console: &mut Console,
) -> Result<Option<Steered>> {
    if plan.objective.is_standard() {
        return Ok(Some(Steered::default()));
    }
    let asked = &updating.asked_teachers();
    let holdout = &updating.rows.holdout;
    let calibration: Vec<usize> =
        (0..holdout.examples.len()).filter(|row| updating.is_calibration[*row]).collect();
    let teacher = match asks_teacher(plan) {
        // All held-out rows are scored, since the table of the deployed model is there already.
        true => match found::teacher(asked, holdout, &updating.hub, &updating.compute, console)? {
            Some((teacher, _)) => Some(rows_of_teacher(&teacher, &calibration)),
            None => return Ok(None),
        },
        false => None,
    };
    let values = updating.rows.groups.as_ref().map(|(train, held)| {
        (train.clone(), calibration.iter().map(|&row| held[row].clone()).collect())
    });
    let rows = calibration.iter().map(|&row| holdout.examples[row].clone()).collect();
    let rows = Split::new(&holdout.name, rows, holdout.labels.clone());
    let held = Held { rows: &rows, teacher };
    let steered = steered(plan, folder, Some(held), values, console)?;
    let sha256 = |own: String| format!("{}{own}", holdout.sha256);
    let named = steered.named.map(|(name, groups)| (name, sha256(groups)));
    // An update evaluates nothing while it trains.
    let groups = steered.groups.map(|groups| Groups { of_eval: Vec::new(), ..groups });
    Ok(Some(Steered { named, groups, ..steered }))
}

/// Of a fine-tuning or distillation whose base, with its tokenizer, is in `folder`. `None` where it was interrupted.
pub fn of_run(
    job: &Job,
    rows: &Rows,
    folder: &Path,
    asked: Option<&Teachers>,
    console: &mut Console,
) -> Result<Option<Steered>> {
    let plan = &job.plan;
    if plan.objective.is_standard() {
        return Ok(Some(Steered::default()));
    }
    let teacher = match (asks_teacher(plan), asked, &rows.eval) {
        (true, Some(asked), Some(eval)) => {
            match found::teacher(asked, eval, &job.hub, &job.compute, console)? {
                Some((teacher, _)) => Some(teacher),
                None => return Ok(None),
            }
        }
        _ => None,
    };
    let values = match plan.objective.group_by() {
        Some(column) => Some(values_of_run(job, rows, column, console)?),
        None => None,
    };
    let held = rows.eval.as_ref().map(|rows| Held { rows, teacher });
    let steered = steered(plan, folder, held, values, console)?;
    let sha256 = rows.eval.as_ref().map_or("", |eval| &eval.sha256);
    let named = steered.named.map(|(name, groups)| (name, format!("{sha256}{groups}")));
    Ok(Some(Steered { named, ..steered }))
}

/// Says what [`of_run`] would, as far as it goes without a teacher's scores, and without the base where it isn't here yet.
pub fn rehearse(
    job: &Job,
    rows: &Rows,
    folder: Option<&Path>,
    console: &mut Console,
) -> Result<()> {
    match (folder, job.plan.objective.group_by()) {
        (Some(folder), _) if !asks_teacher(&job.plan) => {
            of_run(job, rows, folder, None, console).map(drop)
        }
        (_, Some(column)) => values_of_run(job, rows, column, console).map(drop),
        (_, None) => Ok(()),
    }
}

/// Whether a teacher scores the rows that steer.
pub fn asks_teacher(plan: &Plan) -> bool {
    plan.objective.robust().is_some_and(|robust| robust.labels == SteeredBy::Teacher)
}

/// `values` are the column's, of the rows to train on and of those that may steer. The hash in the name is that of the groups
/// alone.
fn steered(
    plan: &Plan,
    folder: &Path,
    held: Option<Held>,
    values: Option<(Vec<String>, Vec<String>)>,
    console: &mut Console,
) -> Result<Steered> {
    let (name, robust) = (plan.objective.name(), plan.objective.robust());
    let groups = match (plan.objective.group_by(), &values) {
        (Some(column), Some((train, held))) => {
            tell_without_value(column, train, held, console);
            Some(groups(column, train, held)?)
        }
        _ => None,
    };
    let of_held = groups.as_ref().map(|groups| groups.of_eval.clone());
    let sha256 = values.as_ref().map_or(String::new(), |(train, held)| {
        let all: Vec<&str> = train.iter().chain(held).map(String::as_str).collect();
        format!("+groups {}", sha256_of_text(&all.join("\u{0}")))
    });
    let Some(robust) = robust else {
        let column = plan.objective.group_by();
        let named = column.map(|column| (format!("column {column} of the rows"), sha256));
        return Ok(Steered { steering: None, groups, named });
    };
    let Some(held) = held else { return Ok(Steered { steering: None, groups, named: None }) };
    // Held-out rows of groups that nothing is trained on say nothing that training could mend.
    let examples = &held.rows.examples;
    let usable: Vec<usize> = (0..examples.len())
        .filter(|&row| of_held.as_ref().is_none_or(|groups| groups[row].is_some()))
        .collect();
    if let (Some(of_held), Some((_, values))) = (&of_held, &values) {
        tell_strange(of_held, values, console);
    }
    let labels: Vec<Option<u32>> = usable.iter().map(|&row| examples[row].label).collect();
    let usable_groups: Option<Vec<u32>> =
        of_held.map(|groups| usable.iter().map(|&row| groups[row].unwrap_or_default()).collect());
    let picked = steering_rows(&labels, usable_groups.as_deref(), robust.labels, robust.rows);
    let rows: Vec<usize> = picked.iter().map(|&at| usable[at]).collect();
    let chosen: Vec<Example> = rows.iter().map(|&row| examples[row].clone()).collect();
    let steering = Steering {
        rows: encode(&TextEncoder::open(folder)?, &chosen, plan.max_length)?,
        teacher: held.teacher.as_ref().map(|teacher| rows_of_teacher(teacher, &rows)),
        groups: usable_groups.map(|groups| picked.iter().map(|&at| groups[at]).collect()),
    };
    steering.check(robust, held.rows.labels.names(), groups.as_ref())?;
    let names = match &groups {
        Some(groups) => &groups.names[..],
        None => held.rows.labels.names(),
    };
    let fewest = fewest(&steering, robust.labels, names);
    let smallest = fewest.map_or(String::new(), |(n, name)| {
        format!(", fewest of {}: {}", printable(name), count(n as u64))
    });
    console.tell(&format!(
        "objective {name}: {} of {} held-out rows steer{smallest}",
        count(rows.len() as u64),
        count(examples.len() as u64)
    ))?;
    if let Some((n, name)) = fewest.filter(|(n, _)| *n < FEW) {
        console.say(&format!(
            "of so few rows each moves the loss of {} by {:.0} points, so weights follow chance; hold out more of them, or let more \
             steer (rows=)",
            printable(name),
            100.0 / n as f64
        ));
    }
    Ok(Steered { steering: Some(steering), groups, named: Some((held.rows.name.clone(), sha256)) })
}

/// Of fewer rows a mean says little.
const FEW: usize = 10;

/// The class or group that the fewest rows are of. `None` where a teacher says what a row is of, for then each is of all classes.
fn fewest<'n>(steering: &Steering, by: SteeredBy, names: &'n [String]) -> Option<(usize, &'n str)> {
    let of_row: Vec<Option<u32>> = match (&steering.groups, by) {
        (Some(groups), _) => groups.iter().copied().map(Some).collect(),
        (None, SteeredBy::OneHot) => steering.rows.labels.clone(),
        (None, SteeredBy::Teacher) => return None,
    };
    let n_of = |at: usize| of_row.iter().filter(|of| **of == Some(at as u32)).count();
    let each = names.iter().enumerate().map(|(at, name)| (n_of(at), name.as_str()));
    each.min_by_key(|(n, _)| *n)
}

/// Groups by name in the order of their values, the held-out rows' in the place of the evaluation's.
///
/// # Errors
/// Values that hardly two rows share, as those of an id.
fn groups(column: &str, train: &[String], held: &[String]) -> Result<Groups> {
    let values: BTreeSet<&str> = train.iter().map(String::as_str).collect();
    let values: Vec<&str> = values.into_iter().collect();
    if 2 * values.len() > train.len() {
        let (groups, rows) = (count(values.len() as u64), count(train.len() as u64));
        return Err(Usage(format!(
            "{GROUP_BY} {column}: {groups} groups for {rows} rows to train on; name a column whose values are shared by many rows"
        ))
        .into());
    }
    let place = |value: &String| values.binary_search(&value.as_str()).ok().map(|at| at as u32);
    Ok(Groups {
        of_row: train.iter().filter_map(place).collect(),
        of_eval: held.iter().map(place).collect(),
        names: values.into_iter().map(|value| shown(value).to_string()).collect(),
    })
}

/// What a group is called whose rows have no value in the column.
fn shown(value: &str) -> &str {
    if value.is_empty() { "(none)" } else { value }
}

fn tell_without_value(column: &str, train: &[String], held: &[String], console: &mut Console) {
    let n = |values: &[String]| values.iter().filter(|value| value.is_empty()).count() as u64;
    let (of_train, of_held) = (n(train), n(held));
    if of_train + of_held > 0 {
        console.say(&format!(
            "{GROUP_BY} {column}: {} of {} rows to train on and {} of {} held-out rows have no value; they are a group too, {}",
            count(of_train),
            count(train.len() as u64),
            count(of_held),
            count(held.len() as u64),
            shown("")
        ));
    }
}

/// Held-out rows of groups that nothing is trained on.
fn tell_strange(of_held: &[Option<u32>], values: &[String], console: &mut Console) {
    const NAMED: usize = 5;
    let strange = || of_held.iter().zip(values).filter(|(group, _)| group.is_none());
    let n = strange().count();
    if n == 0 {
        return;
    }
    let names: BTreeSet<&str> = strange().map(|(_, value)| shown(value)).collect();
    let more = if names.len() > NAMED { ", …" } else { "" };
    let names: Vec<String> = names.into_iter().take(NAMED).map(printable).collect();
    console.say(&format!(
        "{} held-out rows are of groups that no row to train on is of ({}{more}); they don't steer",
        count(n as u64),
        names.join(", ")
    ));
}

fn rows_of_teacher(teacher: &Teacher, rows: &[usize]) -> Teacher {
    let logits = rows.iter().flat_map(|&row| teacher.logits_of(row)).copied().collect();
    Teacher { logits, ..teacher.clone() }
}

/// The column's values of the rows to train on and of the evaluation's.
fn values_of_run(
    job: &Job,
    rows: &Rows,
    column: &str,
    console: &mut Console,
) -> Result<(Vec<String>, Vec<String>)> {
    let mut by_id = |split: &str| -> Result<HashMap<String, String>> {
        let (data, wishes) = (&job.data, &job.wanted.wishes);
        let read = data.read(split, wishes, Labels::Required, None, &job.hub, console)?;
        let wanted = [column.to_string()];
        let values = data.read_columns(split, &wanted, GROUP_BY, &job.hub, console)?;
        let ids = read.examples.into_iter().map(|row| row.id);
        Ok(ids.zip(values.into_iter().flatten()).collect())
    };
    let train = by_id(&job.wanted.train)?;
    let eval = match job.data.eval_choice(&job.wanted) {
        EvalChoice::Split(split) => Some(by_id(&split)?),
        EvalChoice::None | EvalChoice::Cut(_) => None,
    };
    let of = |values: &HashMap<String, String>, examples: &[Example]| -> Result<Vec<String>> {
        let value = |row: &Example| {
            let lacks = || {
                Usage(format!(
                    "group-by {column}: row {} isn't of the data that has the column; leave --unlabelled out",
                    row.id
                ))
            };
            Ok(values.get(&row.id).cloned().ok_or_else(lacks)?)
        };
        examples.iter().map(value).collect()
    };
    let held = match &rows.eval {
        Some(rows) => of(eval.as_ref().unwrap_or(&train), &rows.examples)?,
        None => Vec::new(),
    };
    Ok((of(&train, &rows.train.examples)?, held))
}

/// Calibration rows with the deployed model's predictions, on which dual ascent measures churn.
pub fn buffer(updating: &Updating, folder: &Path, plan: &Plan) -> Result<Buffer> {
    let holdout = &updating.rows.holdout.examples;
    let rows: Vec<usize> = (0..holdout.len()).filter(|row| updating.is_calibration[*row]).collect();
    let examples: Vec<Example> = rows.iter().map(|&row| holdout[row].clone()).collect();
    let old = rows.iter().map(|&row| updating.old_on_holdout.predicted[row]).collect();
    Ok(Buffer { rows: encode(&TextEncoder::open(folder)?, &examples, plan.max_length)?, old })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_those_that_are_trained_on() {
        let values = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        let train = values(&["b", "a", "b", "", "a", "b"]);
        let found = groups("shop", &train, &values(&["a", "new", "b"])).unwrap();
        assert_eq!(found.names, ["(none)", "a", "b"]);
        assert_eq!(found.of_row, [2, 1, 2, 0, 1, 2]);
        assert_eq!(found.of_eval, [Some(1), None, Some(2)]);
        let ids = groups("id", &values(&["1", "2", "3"]), &[]);
        assert_eq!(
            ids.unwrap_err().to_string(),
            "group-by id: 3 groups for 3 rows to train on; name a column whose values are shared by many rows"
        );
    }
}
