//! `gate`: the verdict of a report, for people and for machines, and its exit code.
//!
//! Nothing is measured again. Limits on the command line take the place of the report's own of the same kind, and the counts in the
//! report are judged by all of them; a report holds no ids of rows that didn't change, so golden rows are `compare`'s to look up.
//! Rows that took part in choosing the model certify nothing: of a report on such rows (a sweep's, a repair's without a budget) no
//! verdict is PASS.

use std::path::{Path, PathBuf};

use anyhow::Result;
use lowchurn_churn::{
    Certificate, Golden, Measurements, Report, certify_again, class_flips, exit_code, flat_metrics,
    gate_markdown, junit, withhold_pass,
};
use serde_json::json;

use crate::args::{BudgetFlags, Gate, GateFormat};
use crate::compare::budget;
use crate::console::Console;
use crate::failure::Usage;
use crate::output;
use crate::reporting::check_lines;

pub fn gate(args: &Gate, console: &mut Console) -> Result<u8> {
    if let Some(path) = &args.output {
        output::check_file("--output", path)?;
    }
    let path = report_of(&args.report)?;
    let report = Report::read(&path)?;
    let certificate = judged(&args.budget, &report, &path)?;
    let name = format!("lowchurn {} → {}", report.old.name, report.new.name);
    let text = match args.format {
        GateFormat::Text => text(&certificate),
        GateFormat::Junit => junit(&certificate, &name),
        GateFormat::Markdown => gate_markdown(&certificate),
        GateFormat::Json => serde_json::to_string_pretty(&certificate)? + "\n",
        GateFormat::Metrics => {
            serde_json::to_string_pretty(&flat_metrics(&report, &certificate))? + "\n"
        }
    };
    let code = exit_code(certificate.verdict);
    match &args.output {
        Some(path) => output::write_file(path, |out| out.write_all(text.as_bytes()))?,
        None => console.tell(text.trim_end())?,
    }
    console.event(&json!({
        "event": "finished", "verdict": certificate.verdict, "exit_code": code, "certificate": certificate,
        "output": args.output,
    }));
    Ok(code)
}

/// The file as it was typed, or that of a run's folder.
fn report_of(asked: &Path) -> Result<PathBuf> {
    let path = if asked.is_dir() { asked.join("report.json") } else { asked.to_path_buf() };
    output::refuse_missing(&path)?;
    Ok(path)
}

/// The verdict of a report, by its own limits or by those that were given now. Rows that chose the model certify nothing.
pub fn judged(flags: &BudgetFlags, report: &Report, path: &Path) -> Result<Certificate> {
    let made = certificate(flags, report, path)?;
    Ok(match &report.rows_chose {
        Some(what) => withhold_pass(&made, what),
        None => made,
    })
}

/// The report's own, or one by the limits that were given now over its own.
fn certificate(flags: &BudgetFlags, report: &Report, path: &Path) -> Result<Certificate> {
    let shown = path.display();
    let of = [("history", report.history.is_some()), ("diagnose", report.diagnosis.is_some())];
    if let Some((verb, _)) = of.iter().find(|(_, is)| *is) {
        return Err(Usage(format!(
            "{shown}: a report of {verb}, among whose rows may be some that chose a model; for a verdict make one with compare"
        ))
        .into());
    }
    if flags.golden.is_some() {
        return Err(Usage(
            "--golden: a report doesn't hold the ids of rows that didn't change; give it to compare or update".into(),
        )
        .into());
    }
    let own = report.certificate.as_ref();
    match own {
        Some(own) if !flags.is_set() && flags.confidence.is_none() => return Ok(own.clone()),
        None if !flags.is_set() => {
            return Err(Usage(format!(
                "{shown}: there is no verdict in it, for no budget was given when it was made; give limits now, such as \
                 --max-churn 2%"
            ))
            .into());
        }
        Some(own) if !flags.is_set() && own.limits.is_none() => {
            return Err(Usage(format!(
                "{shown}: it was made before reports kept their limits; give them beside --confidence, such as --max-churn 2%"
            ))
            .into());
        }
        _ => {}
    }
    let mut given = budget(flags, Vec::new());
    if let (None, Some(own)) = (flags.confidence, own) {
        given.confidence = own.confidence;
    }
    let slices = &report.comparison.column_slices;
    if given.max_slice_nfr.is_some() && slices.is_empty() {
        return Err(Usage(format!(
            "--max-slice-nfr: {shown} has no slices by a column; make it again with --slice COLUMN"
        ))
        .into());
    }
    let rows = Measurements {
        all: report.comparison.all.flips,
        slices: slices.clone(),
        classes: class_flips(&report.comparison.classes),
        golden: Golden::default(),
    };
    let mut certificate = certify_again(own, &given, &rows)?;
    let limits = own.and_then(|own| own.limits.as_ref());
    certificate.notes.push(match (own, limits) {
        (None, _) => "judged by the limits given now, from the counts in the report".into(),
        (Some(_), Some(_)) => "judged by the limits given now, and by the report's own where none was given in their place, from \
            the counts in the report"
            .into(),
        (Some(_), None) => "judged by the limits given now alone, from the counts in the report; it was made before reports kept \
            their limits"
            .into(),
    });
    if own.is_some_and(|own| !own.walked.is_empty()) {
        certificate.notes.push(
            "the model was chosen among candidates under the limits of its own certificate; other limits don't account for that \
             choice"
                .into(),
        );
    }
    Ok(certificate)
}

fn text(certificate: &Certificate) -> String {
    check_lines(certificate).join("\n") + "\n"
}
