//! `diagnose`: why a student isn't its teacher. Their confidence on the same rows → slopes in words, a picture, and what to do.
//!
//! For single-label tasks: of a set of labels or a number there is no predicted class to be sure of.

use std::path::Path;

use anyhow::{Context, Result, bail};
use lowchurn_churn::{
    Asked, Fit, Interval, Logits, Part, Report, RowsOf, Side, compare, deviations, diagnosis, part,
};
use lowchurn_data::table::Format;
use lowchurn_data::{Example, Kind, Labels, Split, parse_map, read_predictions};
use lowchurn_hub::Hub;
use serde_json::json;

use crate::args::Diagnose;
use crate::console::Console;
use crate::device::{self, Compute};
use crate::eval::{self, score};
use crate::failure::{INTERRUPTED, Usage};
use crate::machine::peak_rss_mib;
use crate::progress::{count, printable};
use crate::reporting::{self, Told, both_texts, default_output, provenance_of};
use crate::served::Form;
use crate::sides::{self, Source};
use crate::{directions, gradients, kinds, output, places};

/// What one model says of rows, and what is known of the rows besides.
struct Rows {
    logits: Logits,
    data: String,
    data_sha256: Option<String>,
    /// (N,), of a model alone.
    examples: Vec<Example>,
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

    let told = rows(&teacher, args.data.as_deref(), args.split.as_deref(), args, console)?;
    let says = rows(&student, args.data.as_deref(), args.split.as_deref(), args, console)?;
    let (pair, points) = deviations(&told.logits, &says.logits, &map)?;
    let of_test = (RowsOf::Test, told.data.as_str());
    let mut parts = vec![part(of_test, &pair, &points, args.quantile, args.confidence)?];
    if let Some((teacher, student)) = trained_on(args, &teacher, &student, &hub, console)? {
        let data = args.train_data.as_deref();
        let told = rows(&teacher, data, None, args, console).context("on the training rows")?;
        let says = rows(&student, data, None, args, console).context("on the training rows")?;
        let (pair, points) = deviations(&told.logits, &says.logits, &map)?;
        let of_train = (RowsOf::Train, told.data.as_str());
        parts.push(part(of_train, &pair, &points, args.quantile, args.confidence)?);
    }

    let mut diagnosis = diagnosis(parts, args.quantile);
    if let Some(count) = args.directions {
        let (Some(teacher), Some(student)) = (teacher.model(), student.model()) else {
            let said = "--directions needs the folders of two runs, not their predictions";
            return Err(Usage(said.into()).into());
        };
        let precision = device::precision(args.scoring.bf16);
        let compute = Compute::open(&args.scoring.device, precision, console)?;
        let pair = (teacher, student);
        diagnosis.directions =
            Some(directions::of(pair, &told.examples, count, &compute, console)?);
    }
    if let Some(n) = args.gradients {
        let (Some(of_teacher), Some(of_student)) = (teacher.model(), student.model()) else {
            let said = "--gradients needs the folders of two models, not their predictions";
            return Err(Usage(said.into()).into());
        };
        let precision = device::precision(args.scoring.bf16);
        let compute = Compute::open(&args.scoring.device, precision, console)?;
        let sides = (
            &gradients::Side { model: of_teacher, logits: &told.logits.logits },
            &gradients::Side { model: of_student, logits: &says.logits.logits },
        );
        if gradients::tell(sides, &says.examples, n, &compute, &output, console)?.is_none() {
            return Ok(INTERRUPTED);
        }
    }
    let texts: Vec<String> = told.examples.iter().map(both_texts).collect();
    let asked = Asked { confidence: args.confidence, ..Asked::default() };
    let mut report = reporting::report(Told {
        title: format!("{} → {}", args.teacher, args.student),
        old: side(&teacher, &told),
        new: side(&student, &says),
        data: &told.data,
        data_sha256: told.data_sha256.clone(),
        comparison: compare(&pair, &asked)?,
        pair: &pair,
        texts: (!texts.is_empty()).then_some(&texts[..]),
        certificate: None,
        rows_chose: None,
        nearest: Default::default(),
        frontier: Vec::new(),
        provenance: provenance_of(
            teacher.model().or(student.model()).map(|_| args.scoring.bf16),
            &[("label map", &args.label_map), ("training rows", &args.train_data)],
        ),
    });
    report.diagnosis = Some(diagnosis);
    reporting::write(&report, &output)?;
    tell(&report, &output, console)?;
    Ok(0)
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
    let models = [(&args.teacher, teacher), (&args.student, student)];
    let model = models.iter().find(|(_, source)| source.model().is_some()).map(|(name, _)| *name);
    match (model, &args.data) {
        (Some(name), None) => {
            Err(Usage(format!("{name} is a model; say which rows to score it on with --data"))
                .into())
        }
        (None, Some(data)) => Err(Usage(format!(
            "--data {data}: both sides are predictions already, and no model is there to be scored on it; leave it out"
        ))
        .into()),
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

fn rows(
    source: &Source,
    data: Option<&str>,
    split: Option<&str>,
    args: &Diagnose,
    console: &mut Console,
) -> Result<Rows> {
    match (source, data) {
        (Source::Files { name, paths, .. }, _) => {
            let data = format!("rows of {name}");
            Ok(Rows { logits: read(name, paths)?, data, data_sha256: None, examples: Vec::new() })
        }
        (Source::Model(found, _), Some(data)) => {
            let scored = score(
                &eval::Asked {
                    model: &found.name,
                    data,
                    split,
                    labels: Labels::IfPresent,
                    scoring: &args.scoring,
                    threshold: None,
                    label_map: None,
                    output: None,
                },
                console,
            )?;
            let examples = &scored.split.examples;
            let logits = Logits {
                name: found.name.clone(),
                labels: scored.labels,
                ids: examples.iter().map(|row| row.id.clone()).collect(),
                gold: examples.iter().map(|row| row.label).collect(),
                logits: scored.predictions.logits,
            };
            let Split { name, sha256, examples, .. } = scored.split;
            Ok(Rows { logits, data: name, data_sha256: Some(sha256), examples })
        }
        (Source::Model(found, _), None) => {
            Err(Usage(format!("{} is a model; say which rows to score it on", found.name)).into())
        }
    }
}

/// Predictions with logits, as `predict --logits` writes them.
fn read(name: &str, paths: &[std::path::PathBuf]) -> Result<Logits> {
    let mut all = Logits { name: name.into(), ..Logits::default() };
    for path in paths {
        if Format::of(path)? != Format::JsonLines {
            bail!(
                "{}: logits are read from JSON lines, as lowchurn predict --logits writes them",
                path.display()
            );
        }
        for row in read_predictions(path)? {
            let labels: Vec<String> = row.scores.into_iter().map(|(label, _)| label).collect();
            if all.ids.is_empty() {
                all.labels = labels;
            } else if all.labels != labels {
                bail!(
                    "{}: row {:?} has scores of {}, and the rows before it of {}; a file is of one model",
                    path.display(),
                    row.id,
                    labels.join(", "),
                    all.labels.join(", ")
                );
            }
            let Some(logits) = row.logits else {
                bail!(
                    "{}: row {:?} has no logits, and probabilities are too coarse to tell how sure a model is; write them with \
                     lowchurn predict --logits",
                    path.display(),
                    row.id
                );
            };
            let class = |gold: String| {
                let at = all.labels.iter().position(|label| *label == gold);
                at.map(|at| at as u32).with_context(|| {
                    format!(
                        "{}: row {:?} has the true class {gold:?}, which isn't one of the model's ({})",
                        path.display(),
                        row.id,
                        all.labels.join(", ")
                    )
                })
            };
            all.gold.push(row.gold.map(class).transpose()?);
            all.ids.push(row.id);
            all.logits.extend(logits);
        }
    }
    if all.ids.is_empty() {
        bail!("{name}: no rows in it");
    }
    Ok(all)
}

fn side(source: &Source, rows: &Rows) -> Side {
    let Logits { name, labels, .. } = &rows.logits;
    Side { name: name.clone(), sha256: Some(source.sha256().into()), labels: labels.clone() }
}

fn tell(report: &Report, output: &Path, console: &mut Console) -> Result<()> {
    let Some(diagnosis) = &report.diagnosis else { return Ok(()) };
    for part in &diagnosis.parts {
        for line in lines(part, diagnosis.quantile) {
            console.tell(&line)?;
        }
    }
    if let Some(directions) = &diagnosis.directions {
        console.tell(&format!("directions: {}", directions.said))?;
    }
    console.tell(&format!("what to do: {}", diagnosis.advice))?;
    let path = output.join("report.html");
    console
        .tell(&format!("report: {} (and report.json, report.md, flips.jsonl)", path.display()))?;
    let parts = diagnosis.parts.iter().map(|part| Part { points: Vec::new(), ..part.clone() });
    console.event(&json!({
        "event": "finished", "output": output, "report": output.join("report.json"),
        "parts": parts.collect::<Vec<_>>(), "advice": diagnosis.advice, "directions": diagnosis.directions, "peak_rss_mib": peak_rss_mib(),
    }));
    Ok(())
}

/// A part for a terminal.
fn lines(part: &Part, quantile: f64) -> Vec<String> {
    let percent = |rate: &Option<lowchurn_churn::Rate>| {
        rate.as_ref().map_or("–".into(), |rate| format!("{:.2} %", 100.0 * rate.value))
    };
    let mut lines = vec![
        format!("{}: {}", part.data, part.said),
        format!(
            "  right: teacher {}, student {}; they agree on {}",
            percent(&part.teacher_accuracy),
            percent(&part.student_accuracy),
            percent(&part.agreement)
        ),
        format!("  {:<14} {:>8}  {:<26} mean y − x", "by confidence", "rows", "slope"),
    ];
    let share = |share: f64| format!("{:.0} %", 100.0 * share);
    let mut fits = vec![
        ("all".to_string(), &part.all),
        (format!("lowest {}", share(quantile)), &part.low),
        (format!("highest {}", share(1.0 - quantile)), &part.high),
    ];
    let quarters = part.quarters.iter().enumerate();
    fits.extend(quarters.map(|(at, fit)| (format!("quarter {}", at + 1), fit)));
    lines.extend(fits.into_iter().map(|(name, fit)| line(&name, fit)));
    lines.extend(part.class_gaps.as_ref().map(|gaps| format!("  {}", gaps.said)));
    lines.iter().map(|line| printable(line)).collect()
}

fn line(name: &str, fit: &Fit) -> String {
    let with = |value: f64, interval: &Option<Interval>| match interval {
        Some(interval) => format!("{value:.3} ({:.3} to {:.3})", interval.low, interval.high),
        None => format!("{value:.3} (no interval)"),
    };
    let slope = fit.line.map_or("–".into(), |line| with(line.slope, &line.interval));
    let mean = with(fit.mean_deviation, &fit.mean_interval);
    format!("  {name:<14} {:>8}  {slope:<26} {mean}", count(fit.rows))
}
