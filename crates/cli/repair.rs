//! `repair`: old and new weights → models between them, scored on held-out rows → the one to deploy. Trains nothing.
//!
//! A model between is α·old + (1 − α)·new, weight by weight (Schumann et al. 2024, BCWI), so the new one must have been
//! trained from the old one. Without a budget the choice is theirs: the largest α that keeps the new model's accuracy.

mod curve;
mod models;
mod written;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use lowchurn_churn::{Budget, Candidate, Certificate, Flips, Measurements, exit_code, walk};
use lowchurn_data::{Example, Split};
use serde_json::{Value, json};

use self::curve::{
    CurvePoint, Holdout, Tried, curve_point, holdout, numbers, plain_new, rows_of, try_all,
};
use self::models::{By, Models, columns, fisher_rows, open_models, weights};
use self::written::{already_done, write_manifest, write_model, write_report};
pub use self::written::{model_files, other_model};
use crate::args::Repair;
use crate::chosen;
use crate::console::Console;
use crate::failure::Usage;
use crate::found;
use crate::golden::GoldenRows;
use crate::progress::count;
use crate::{earlier, golden, grid, output, reporting};

pub fn repair(args: &Repair, console: &mut Console) -> Result<u8> {
    let alphas = grid::grid("--alpha", &args.alpha, (0.0, 1.0))?;
    if !alphas.iter().any(|alpha| *alpha < 1.0) {
        let said = "expected at least one share below 1: all of the old weights is the old model";
        return Err(Usage(format!("--alpha {}: {said}", args.alpha)).into());
    }
    if args.budget.max_slice_nfr.is_some() || args.budget.max_class_nfr.is_some() {
        let flag = if args.budget.max_slice_nfr.is_some() { "slice" } else { "class" };
        let what = if flag == "slice" { "slices" } else { "classes" };
        return Err(Usage(format!("--max-{flag}-nfr: repair knows no {what}; use compare")).into());
    }
    let models = open_models(args, console)?;
    let output = args.output.clone().unwrap_or_else(|| default_output(&args.new[0]));
    output::check(&output)?;
    for found in std::iter::once(&models.old).chain(&models.new) {
        output::refuse_foreign(&output, &found.folder)?;
    }
    let golden = match &args.budget.golden {
        Some(path) => {
            let (labels, columns) = (&models.old.labels, columns(args));
            Some(golden::read(path, labels, &columns, &models.hub, console)?)
        }
        None => None,
    };
    let budget = crate::update::budget(&args.budget, golden.as_ref())?;
    let (split, alignment, unknown) = rows_of(args, &models, budget.as_ref(), console)?;
    let golden = golden::among(golden, &split)?;
    let fisher_rows = match args.fisher {
        Some(n) => Some((n as usize, fisher_rows(args, &models, console)?)),
        None => None,
    };
    let made_from = made_from(args, &models, &split, golden.as_ref(), fisher_rows.as_ref())?;
    if !args.fresh
        && let Some(code) = already_done(&output, &made_from, console)?
    {
        return Ok(code);
    }
    let weights = weights(args, &models, fisher_rows.as_ref(), console)?;
    let holdout = holdout(&models, &weights, split, alignment, golden, args, console)?;
    let tried = try_all(args, &models, &weights, &holdout, &alphas, console)?;
    let accuracy_of_new = plain_new(&models, &weights, &holdout, &tried, console)?;
    tell_curve(&holdout, &tried, &accuracy_of_new, console)?;
    let (chosen, mut certificate, why) = choose(args, &tried, &accuracy_of_new, budget.as_ref())?;
    if let Some(certificate) = &mut certificate {
        let rows = holdout.measuring.iter().map(|row| &holdout.split.examples[*row as usize]);
        certificate.notes.extend(chosen::said_of_repeats(rows));
        certificate.notes.extend(unknown);
    }
    let chosen = &tried[chosen];
    if args.fresh {
        output::start_over(&output)?;
    }
    let _lock = output::lock(&output)?;
    let code = certificate.as_ref().map_or(0, |certificate| exit_code(certificate.verdict));
    let curve: Vec<CurvePoint> = tried.iter().map(curve_point).collect();
    let record = json!({
        "made_from": made_from, "measured_rows": holdout.measuring.len(),
        "calibration_rows": holdout.calibration.len(), "new": accuracy_of_new, "points": curve,
        "chosen": chosen.name(), "why": why, "certificate": certificate, "exit_code": code,
    });
    // Its manifest first, so that a kill in between leaves no half of it believed.
    let _ = fs::remove_file(output.join("manifest.json"));
    lowchurn_distill::write_json(&output.join("curve.json"), &record)?;
    let written = write_model(&models, &weights, chosen, &holdout, certificate.is_some(), &output)?;
    write_report(args, &models, &holdout, chosen, certificate.clone(), &made_from, &written)?;
    write_manifest(&written, chosen, &made_from, code)?;
    console.tell(&why)?;
    if let Some(certificate) = &certificate {
        for line in reporting::check_lines(certificate) {
            console.tell(&line)?;
        }
    }
    console.tell(&format!("{}: {}", output.display(), chosen.line()))?;
    console.tell(&format!("report: {}", output.join("report.html").display()))?;
    console.event(&json!({
        "event": "finished", "output": output, "chosen": chosen.name(), "alpha": chosen.alpha,
        "flips": chosen.measured, "certificate": certificate, "why": why,
    }));
    Ok(code)
}

fn default_output(new: &str) -> PathBuf {
    let new = new.trim_end_matches('/');
    match Path::new(new).is_dir() {
        true => PathBuf::from(format!("{new}-repaired")),
        false => {
            Path::new("runs").join(format!("{}-repaired", new.rsplit('/').next().unwrap_or(new)))
        }
    }
}

/// What the result depends on.
fn made_from(
    args: &Repair,
    models: &Models,
    split: &Split,
    golden: Option<&GoldenRows>,
    fisher_rows: Option<&(usize, Vec<Example>)>,
) -> Result<Value> {
    let named = |found: &found::Found| json!({ "name": found.name, "sha256": found.sha256 });
    let b = &args.budget;
    let mut all = json!({
        "old": named(&models.old),
        "new": models.new.iter().map(named).collect::<Vec<_>>(),
        "holdout": { "name": split.name, "sha256": split.sha256 },
        "alpha": args.alpha,
        "fisher_rows": args.fisher,
        "fisher_data": args.fisher_data,
        "refit": args.refit.name(),
        "towards": args.towards.name(),
        "budget": {
            "max_churn": b.max_churn, "max_nfr": b.max_nfr, "min_accuracy_gain": b.min_accuracy_gain,
            "golden": b.golden, "confidence": b.confidence(),
        },
        "lowchurn_version": env!("CARGO_PKG_VERSION"),
    });
    // Records of before there was a choice are of f32.
    if args.bf16 {
        all["precision"] = json!("bf16");
    }
    if let Some(golden) = golden {
        all["budget"]["golden_sha256"] = json!(golden.sha256(&split.labels));
    }
    if let Some((_, rows)) = fisher_rows {
        all["fisher_sha256"] = json!(earlier::fingerprint(rows, split.labels.names())?);
    }
    Ok(all)
}

fn tell_curve(
    holdout: &Holdout,
    tried: &[Tried],
    new: &Flips,
    console: &mut Console,
) -> Result<()> {
    let (n, all) = (holdout.measuring.len() as u64, holdout.split.examples.len() as u64);
    let of = match n == all {
        true => format!("{} held-out rows", count(n)),
        false => format!("{} of {} held-out rows, the others were looked at", count(n), count(all)),
    };
    let accuracy =
        new.accuracy_old().map_or("–".into(), |share| format!("{:.2} %", 100.0 * share));
    console.tell(&format!("on {of}: old accuracy {accuracy}; new {}", numbers(new)))?;
    for one in tried {
        console.tell(&format!("  {}", one.line()))?;
    }
    Ok(())
}

/// With a budget the walk's choice, or where nothing is certified the safest. Without one, of each kind the largest α that
/// keeps the new model's accuracy, and of these the one with less churn.
fn choose(
    args: &Repair,
    tried: &[Tried],
    new: &Flips,
    budget: Option<&Budget>,
) -> Result<(usize, Option<Certificate>, String)> {
    // All of the old weights is the old model, and no update.
    let mut open: Vec<usize> = (0..tried.len()).filter(|at| tried[*at].alpha < 1.0).collect();
    if let Some(budget) = budget {
        // Of equals the walk takes the first: the one nearest to the old model.
        open.sort_by(|a, b| tried[*b].alpha.total_cmp(&tried[*a].alpha));
        let candidate = |at: &usize| Candidate {
            name: tried[*at].name(),
            calibration: tried[*at].calibration.clone(),
            certification: Measurements {
                all: tried[*at].measured,
                slices: Vec::new(),
                classes: Vec::new(),
                golden: tried[*at].golden.clone(),
            },
            merit: None,
        };
        let candidates: Vec<Candidate> = open.iter().map(candidate).collect();
        let (chosen, certificate) = walk(&candidates, budget)?;
        let safest = certificate.walked.first().map(|step| step.name.clone());
        let why = match chosen {
            Some(_) => "chosen: the most accurate model that is certified, from the safest on",
            None => "none is certified; this is the safest one",
        };
        let chosen =
            chosen.or_else(|| candidates.iter().position(|one| Some(&one.name) == safest.as_ref()));
        return Ok((open[chosen.unwrap_or(0)], Some(certificate), why.into()));
    }
    let keeps = |at: &&usize| tried[**at].measured.right_new() >= new.right_new();
    let largest = |by: By| {
        let of_kind = open.iter().filter(|at| tried[**at].by == by).filter(keeps);
        of_kind.copied().max_by(|a, b| tried[*a].alpha.total_cmp(&tried[*b].alpha))
    };
    let both = [largest(By::Share), largest(By::Fisher)].into_iter().flatten();
    let Some(chosen) = both.min_by_key(|at| tried[*at].measured.changed) else {
        return Err(Usage(format!(
            "no α of {} keeps the new model's accuracy ({}); try other ones with --alpha, no --refit bias, or give a \
             budget",
            args.alpha,
            numbers(new)
        ))
        .into());
    };
    let mut why = format!(
        "chosen: {}, the largest α whose accuracy on these rows isn't below the new model's",
        tried[chosen].name()
    );
    if tried[chosen].alpha == 0.0 && tried[chosen].rescaling.is_none() {
        why += "; that is the new model itself";
    }
    if new.right_old() >= new.right_new() {
        why += "; the old model's accuracy isn't below it either, so that nothing speaks for an update";
    }
    Ok((chosen, None, why))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use lowchurn_churn::{Golden, Judged};

    use super::*;
    use crate::args::{Args, Verb};

    fn flips(rows: u64, changed: u64) -> Flips {
        let mut flips = Flips::default();
        flips.count_times(Judged { is_changed: true, is_right: None }, changed);
        flips.count_times(Judged { is_changed: false, is_right: None }, rows - changed);
        flips
    }

    /// On few calibration rows nothing changes at any of them; the nearest to the old model is walked first, and told of.
    #[test]
    fn of_equals_the_nearest_to_the_old_model_is_the_safest() {
        let line = "lowchurn repair a b --holdout c --max-churn 2%";
        let Verb::Repair(args) = Args::try_parse_from(line.split(' ')).unwrap().verb else {
            panic!("{line}")
        };
        let tried = |alpha: f64, by, changed| Tried {
            alpha,
            by,
            rescaling: None,
            logits: Vec::new(),
            calibration: Measurements { all: flips(100, 0), ..Measurements::default() },
            measured: flips(350, changed),
            golden: Golden::default(),
        };
        let tried = [
            tried(0.85, By::Share, 8),
            tried(0.95, By::Share, 1),
            tried(0.9, By::Fisher, 5),
            tried(1.0, By::Share, 0),
        ];
        let budget = crate::update::budget(&args.budget, None).unwrap().unwrap();
        let (chosen, certificate, _) =
            choose(&args, &tried, &tried[0].measured, Some(&budget)).unwrap();
        assert_eq!(tried[chosen].alpha, 0.95);
        let certificate = certificate.unwrap();
        let walked: Vec<&str> = certificate.walked.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(walked, ["α 0.95", "α 0.9 by Fisher information", "α 0.85"]);
        assert_eq!(exit_code(certificate.verdict), 0);
    }
}
