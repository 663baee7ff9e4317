//! `diagnose`: why a student isn't its teacher. Their confidence on the same rows → slopes in words, a picture, and what to do.
//!
//! For single-label tasks: of a set of labels or a number there is no predicted class to be sure of.

mod rows;
mod told;
mod training;

use std::collections::HashMap;

use anyhow::{Context, Result};
use lowchurn_churn::{
    Asked, Diagnosis, Logits, Pair, Part, Report, RowsOf, Side, Switch, compare, deviations,
    diagnosis, part, switch_ahead_said, switch_said,
};
use lowchurn_data::{Kind, parse_map};
use lowchurn_hub::Hub;

use self::rows::{Rows, Trained, labels_of, of_file, says};
use self::told::tell;
use crate::args::Diagnose;
use crate::console::Console;
use crate::device::{self, Compute};
use crate::failure::{INTERRUPTED, Usage};
use crate::found::Found;
use crate::reporting::{self, Told, both_texts, default_output, provenance_of};
use crate::served::Form;
use crate::sides::{self, Source};
use crate::{directions, gradients, kinds, output, places};

/// Both sides on the same rows.
struct Both {
    pair: Pair,
    part: Part,
    teacher: Logits,
    student: Logits,
    /// Where a model was asked.
    rows: Option<Rows>,
    data: String,
}

pub fn diagnose(args: &Diagnose, console: &mut Console) -> Result<u8> {
    let map = args.label_map.as_deref().map(parse_map).transpose()?.unwrap_or_default();
    let hub = places::hub()?;
    let teacher = find(&args.teacher, args, &hub, console)?;
    let student = find(&args.student, args, &hub, console)?;
    check(args, &teacher, &student)?;
    let is_model = student.model().is_some();
    let names = (args.teacher.as_str(), args.student.as_str());
    let output = args
        .output
        .clone()
        .unwrap_or_else(|| default_output(("diagnose", "diagnosis"), names, is_model));
    output::check(&output)?;
    output::refuse_report_of_run(&output)?;
    let precision = device::precision(args.scoring.bf16);
    let compute = Compute::open(&args.scoring.device, precision, console)?;

    let (sides, asked) = ((&teacher, &student), (args, &map[..], &compute));
    let (both, on_train) = read(sides, asked, &hub, console)?;
    let training = training::of(teacher.model(), student.model());
    let parts = [Some(&both), on_train.as_ref()].into_iter().flatten();
    let parts = parts.map(|both| both.part.clone()).collect();
    let mut diagnosis = diagnosis(parts, args.quantile, &training);
    diagnosis.switch = switched(&student, &both, asked, console)?;
    if let (Some(count), Some(rows)) = (args.directions, &both.rows) {
        let pair = models(sides, DIRECTIONS)?;
        diagnosis.directions =
            Some(directions::of(pair, &rows.examples, count, &compute, console)?);
    }
    let on = on_train.as_ref().unwrap_or(&both);
    if let (Some(n), Some(rows)) = (args.gradients, &on.rows) {
        let pair = models(sides, GRADIENTS)?;
        let measured = gradients::On {
            rows_of: rows.rows_of,
            data: &rows.name,
            examples: &rows.examples_of(&pair.1.labels),
            teacher_says: &on.teacher.logits,
        };
        match gradients::tell(pair, &measured, n, &compute, &output, console)? {
            Some(found) => diagnosis.gradients = Some(found),
            None => return Ok(INTERRUPTED),
        }
    }
    let report = report(sides, &both, diagnosis, args)?;
    reporting::write(&report, &output)?;
    tell(&report, &output, console)?;
    Ok(0)
}

fn report(
    (teacher, student): (&Source, &Source),
    both: &Both,
    diagnosis: Diagnosis,
    args: &Diagnose,
) -> Result<Report> {
    let texts = texts(both);
    let asked = Asked { confidence: args.confidence, ..Asked::default() };
    let report = reporting::report(Told {
        title: format!("{} → {}", args.teacher, args.student),
        old: side(teacher, &both.teacher),
        new: side(student, &both.student),
        data: &both.data,
        data_sha256: both.rows.as_ref().map(|rows| rows.sha256.clone()),
        comparison: compare(&both.pair, &asked)?,
        pair: &both.pair,
        texts: texts.as_deref(),
        certificate: None,
        rows_chose: (both.part.rows_of == RowsOf::Train)
            .then(|| "the weights of a side, which was trained on them".into()),
        nearest: Default::default(),
        frontier: Vec::new(),
        provenance: provenance_of(
            teacher.model().or(student.model()).map(|_| args.scoring.bf16),
            &[("label map", &args.label_map), ("training rows", &args.train_data)],
        ),
    });
    Ok(Report { diagnosis: Some(diagnosis), ..report })
}

/// Both sides on the rows of `--data`, and on those that the student was trained on, where they are given. What is known of the rows
/// is in the first one's alignment.
fn read(
    sides: (&Source, &Source),
    asked: Wanted,
    hub: &Hub,
    console: &mut Console,
) -> Result<(Both, Option<Both>)> {
    let ((teacher, student), args) = (sides, asked.0);
    let on_training_rows = trained_on(args, teacher, student, hub, console)?;
    let read = |data: Option<&String>, split: Option<&str>, console: &mut Console| {
        data.map(|data| rows::read(data, split, [teacher, student], args, hub, console)).transpose()
    };
    let of_test = read(args.data.as_ref(), args.split.as_deref(), console)?;
    let of_train = read(args.train_data.as_ref(), None, console).context("on the training rows")?;
    if let (Some(train), Some(test)) = (&of_train, &of_test)
        && train.has_the_texts_of(test)
    {
        return Err(Usage(format!(
            "--train-data: {} has the texts of --data; name the rows that the student was trained on, or leave it out",
            train.name
        ))
        .into());
    }
    let trained = Trained::of(sides, hub, console);
    let names = (args.teacher.as_str(), args.student.as_str());
    let mut both = on(sides, of_test, asked, console, &mut |rows, console| {
        rows.leave_out_seen(names, &trained, console);
        Ok(())
    })?;
    let on_train = match &on_training_rows {
        Some((teacher, student)) => {
            let keep = &mut |rows: &mut Rows, console: &mut Console| {
                rows.keep_seen(names.1, &trained, console)
            };
            let found = on((teacher, student), of_train, asked, console, keep);
            Some(found.context("on the training rows")?)
        }
        None => None,
    };
    let notes = [Some(&both), on_train.as_ref()].into_iter().flatten();
    let notes = notes.flat_map(|both| both.rows.iter().flat_map(|rows| rows.notes.clone()));
    let notes: Vec<String> = trained.notes.into_iter().chain(notes).collect();
    both.pair.alignment.extend(notes);
    Ok((both, on_train))
}

type Wanted<'a> = (&'a Diagnose, &'a [(String, String)], &'a Compute);

/// Lets both sides say what they say of the rows, but for those whose class one of them lacks and those that `choose` takes out.
fn on(
    (teacher, student): (&Source, &Source),
    mut rows: Option<Rows>,
    (args, map, compute): Wanted,
    console: &mut Console,
    choose: &mut dyn FnMut(&mut Rows, &mut Console) -> Result<()>,
) -> Result<Both> {
    let (told, said) = (of_file(teacher)?, of_file(student)?);
    if let Some(rows) = &mut rows {
        let sides = [
            (&args.teacher[..], labels_of(teacher, told.as_ref())),
            (&args.student[..], labels_of(student, said.as_ref())),
        ];
        rows.leave_out_classes(sides, map, console)?;
        choose(rows, console)?;
    }
    let told = says(teacher, told, rows.as_ref(), args, compute, console)?;
    let said = says(student, said, rows.as_ref(), args, compute, console)?;
    let (pair, points) = deviations(&told, &said, map)?;
    let data = rows.as_ref().map_or(format!("rows of {}", told.name), |rows| rows.name.clone());
    // Files of training rows are what they are called.
    let is_train_file = rows.is_none() && args.teacher_train.as_deref() == Some(&told.name);
    let of_files = if is_train_file { RowsOf::Train } else { RowsOf::Test };
    let rows_of = rows.as_ref().map_or(of_files, |rows| rows.rows_of);
    let part = part((rows_of, &data), &pair, &points, args.quantile, args.confidence)?;
    Ok(Both { pair, part, teacher: told, student: said, rows, data })
}

/// A loss that was switched in the middle, with the slope of before it where the run kept a checkpoint from there.
fn switched(
    student: &Source,
    both: &Both,
    (args, map, compute): Wanted,
    console: &mut Console,
) -> Result<Option<Switch>> {
    let Some(found) = student.model() else { return Ok(None) };
    let Some(switched) = training::switched(found) else { return Ok(None) };
    let at = switched.at.to_string();
    let (before, after) = switched.lambdas;
    if let (Some(step), Some(total)) = (switched.ahead_of, switched.total) {
        let said = switch_ahead_said(&at, switched.lambdas, (step, total));
        return Ok(Some(Switch { at, before, after, kept: None, said }));
    }
    let kept = match (switched.before(found), &both.rows) {
        (Some((step, earlier)), Some(rows)) => {
            let said = rows::score(&earlier, rows, args.scoring.batch_size, compute, console)?;
            let (pair, points) = deviations(&both.teacher, &said, map)?;
            let of = (rows.rows_of, both.data.as_str());
            Some((step, part(of, &pair, &points, args.quantile, args.confidence)?.all))
        }
        _ => None,
    };
    let said = switch_said(&at, switched.lambdas, kept.as_ref(), &both.part.all);
    Ok(Some(Switch { at, before, after, kept, said }))
}

/// A flag that needs two models, and what they are there.
type OfModels = (&'static str, &'static str);
const DIRECTIONS: OfModels = ("--directions", "runs");
const GRADIENTS: OfModels = ("--gradients", "models");

fn models<'b>(
    (teacher, student): (&'b Source, &'b Source),
    (flag, what): OfModels,
) -> Result<(&'b Found, &'b Found)> {
    match (teacher.model(), student.model()) {
        (Some(teacher), Some(student)) => Ok((teacher, student)),
        _ => {
            Err(Usage(format!("{flag} needs the folders of two {what}, not their predictions"))
                .into())
        }
    }
}

/// By row of the pair.
fn texts(both: &Both) -> Option<Vec<String>> {
    let rows = both.rows.as_ref()?;
    let by_id: HashMap<&str, String> =
        rows.examples.iter().map(|row| (row.id.as_str(), both_texts(row))).collect();
    let text = |id: &String| by_id.get(id.as_str()).cloned().unwrap_or_default();
    Some(both.pair.ids.iter().map(text).collect())
}

/// A model or files, of one class a row.
fn find(text: &str, args: &Diagnose, hub: &Hub, console: &mut Console) -> Result<Source> {
    let found = sides::find(text, &args.scoring, Form::default(), hub, console)?;
    let kind = found.model().map_or(Kind::SingleLabel, |model| model.outputs.kind);
    kinds::refuse_other(kind, "diagnose")?;
    Ok(found)
}

/// What can be refused before a row is scored.
fn check(args: &Diagnose, teacher: &Source, student: &Source) -> Result<()> {
    if !(args.quantile > 0.0 && args.quantile < 1.0) {
        return Err(lowchurn_churn::Error::QuantileOutside { quantile: args.quantile }.into());
    }
    if !(args.confidence > 0.5 && args.confidence < 1.0) {
        let confidence = args.confidence;
        return Err(lowchurn_churn::Error::ConfidenceOutside { confidence }.into());
    }
    if args.directions.is_some() {
        models((teacher, student), DIRECTIONS)?;
    }
    if args.gradients.is_some() {
        models((teacher, student), GRADIENTS)?;
    }
    let sides = [(&args.teacher, teacher), (&args.student, student)];
    let model = sides.iter().find(|(_, source)| source.model().is_some()).map(|(name, _)| *name);
    let has_train_file = args.teacher_train.is_some() || args.student_train.is_some();
    let refuse = |reason: String| Err(Usage(reason).into());
    let is_for_a_model = |flag: &str, data: &String| {
        format!(
            "{flag} {data}: both sides are predictions already, and no model is there to be scored on it; leave it out"
        )
    };
    match (model, &args.data, &args.train_data) {
        (Some(name), None, _) => {
            refuse(format!("{name} is a model; say which rows to score it on with --data"))
        }
        (Some(name), _, None) if has_train_file => refuse(format!(
            "{name} is a model; say which of its training rows to score it on with --train-data"
        )),
        (None, Some(data), _) => refuse(is_for_a_model("--data", data)),
        (None, None, Some(data)) => refuse(is_for_a_model("--train-data", data)),
        _ => Ok(()),
    }
}

/// Both sides on the rows that the student was trained on, where those are known.
fn trained_on(
    args: &Diagnose,
    teacher: &Source,
    student: &Source,
    hub: &Hub,
    console: &mut Console,
) -> Result<Option<(Source, Source)>> {
    let given = [&args.teacher_train, &args.student_train];
    if args.train_data.is_none() && given.iter().all(|text| text.is_none()) {
        return Ok(None);
    }
    let mut of = |(source, flag): (&Source, &str), text: Option<&String>| {
        match (source, text) {
        (Source::Files { .. }, Some(text)) => find(text, args, hub, console),
        (Source::Files { name, .. }, None) => Err(Usage(format!(
            "{name} is a file, so its predictions of the training rows are needed too: --{flag} FILE.jsonl"
        ))
        .into()),
        (Source::Model(found, form), None) => Ok(Source::Model(found.clone(), *form)),
        (Source::Model(found, _), Some(_)) => Err(Usage(format!(
            "--{flag}: {} is a model, which is scored on --train-data",
            found.name
        ))
        .into()),
    }
    };
    let teacher = of((teacher, "teacher-train"), given[0].as_ref())?;
    let student = of((student, "student-train"), given[1].as_ref())?;
    Ok(Some((teacher, student)))
}

fn side(source: &Source, says: &Logits) -> Side {
    let Logits { name, labels, .. } = says;
    Side { name: name.clone(), sha256: Some(source.sha256().into()), labels: labels.clone() }
}
