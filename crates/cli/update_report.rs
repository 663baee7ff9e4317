//! The report of an update: measured on the rows that nothing was chosen by.

use std::path::{Path, PathBuf};

use anyhow::Result;
use lowchurn_churn::{Asked, Certificate, Side, compare};
use lowchurn_data::Example;
use lowchurn_distill::{PrecisionName, device_kind, finished_provenance};

use crate::args::Update;
use crate::certification::rows_of;
use crate::console::Console;
use crate::found;
use crate::nearest;
use crate::reporting::{self, Told, both_texts};
use crate::update::Trial;
use crate::update_record::combined;
use crate::updating::Updating;

pub fn write(
    updating: &Updating,
    args: &Update,
    trial: &Trial,
    (rows, certificate): (&[usize], Option<Certificate>),
    output: &Path,
    console: &mut Console,
) -> Result<Vec<PathBuf>> {
    let of_pair: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
    let mut pair = trial.pair.subset(&of_pair);
    pair.alignment.extend(updating.rows.alignment.iter().chain(&updating.rows.unknown).cloned());
    let holdout = &updating.rows.holdout;
    let texts: Vec<String> = rows.iter().map(|&row| both_texts(&holdout.examples[row])).collect();
    let is_new: Vec<bool> = rows.iter().map(|&row| row >= updating.rows.n_old_holdout).collect();
    let columns = rows_of(&updating.rows.holdout_columns, rows);
    let asked = Asked {
        confidence: args.budget.confidence(),
        texts: Some(&texts),
        slice_columns: &columns,
        is_new_row: (updating.rows.n_old_holdout > 0).then_some(&is_new[..]),
        ..Asked::default()
    };
    let comparison = compare(&pair, &asked)?;
    let new = found::describe(&output.display().to_string(), output.to_path_buf())?;
    let side = |found: &found::Found| Side {
        name: found.name.clone(),
        sha256: Some(found.sha256.clone()),
        labels: found.labels.clone(),
    };
    let flips: Vec<(usize, Example)> = reporting::flipped(&pair)
        .into_iter()
        .map(|at| (at, holdout.examples[rows[at]].clone()))
        .collect();
    let nearest =
        nearest::of(&new, &flips, &updating.rows.train, NEAREST, &updating.compute, console)?;
    let told = Told {
        title: format!("{} → {}", updating.old.name, output.display()),
        old: side(&updating.old),
        new: side(&new),
        data: &holdout.name,
        data_sha256: Some(holdout.sha256.clone()),
        pair: &pair,
        texts: Some(&texts),
        comparison,
        certificate,
        rows_chose: None,
        nearest,
        frontier: Vec::new(),
        provenance: provenance(updating, args, trial, rows.len())?,
    };
    reporting::write(&reporting::report(told), output)?;
    Ok(vec![output.join("report.html"), output.join("report.md"), output.join("report.json")])
}

/// Training rows shown for each changed row.
const NEAREST: usize = 3;

fn provenance(
    updating: &Updating,
    args: &Update,
    trial: &Trial,
    n_reported: usize,
) -> Result<Vec<(String, String)>> {
    let rows = &updating.rows;
    let n_held_out = rows.holdout.examples.len();
    let rows_said = match n_reported == n_held_out {
        true => format!("all {n_held_out}, which chose nothing"),
        false => format!(
            "{n_reported} of {n_held_out}; the other {} are calibration rows, which may choose or steer",
            n_held_out - n_reported
        ),
    };
    let trained = finished_provenance(&trial.trained)?;
    let mut all = vec![
        ("method".to_string(), trial.plan.method.to_string()),
        ("start".into(), args.init.name().into()),
        ("share of the old weights".into(), trial.share.to_string()),
        ("seed".into(), trial.plan.seed.to_string()),
        ("old model".into(), format!("{} ({})", updating.old.name, updating.old.sha256)),
        ("weights trained from".into(), format!("{} ({})", trained.base, trained.base_sha256)),
        ("training rows".into(), format!("{} ({})", rows.train.name, rows.train.sha256)),
        (
            "old, new, unlabelled rows".into(),
            format!("{}, {}, {}", rows.n_old, rows.n_new, rows.n_unlabelled),
        ),
        ("held-out rows of this report".into(), rows_said),
    ];
    if rows.n_dropped > 0 {
        let said = "left out, for their text is or was trained on";
        all.push(("other held-out rows".into(), format!("{} {said}", rows.n_dropped)));
    }
    // Only what this update made use of.
    if let Some((names, tables)) = &trained.teacher {
        all.push(("teacher".into(), names.clone()));
        all.push(("tables of the teacher".into(), tables.clone()));
        if args.deployed.teacher.len() > 1 {
            all.push(("several teachers".into(), combined(updating.combine).into()));
        }
    }
    if let Some((name, sha256)) = &trained.buffer {
        all.push(("rows that steered".into(), format!("calibration rows of {name} ({sha256})")));
    }
    if let Some(map) = &args.deployed.label_map {
        all.push(("label map".into(), map.clone()));
    }
    all.push(("lowchurn".into(), env!("CARGO_PKG_VERSION").into()));
    all.push(("device".into(), device_kind(&updating.compute.device).into()));
    let precision = PrecisionName::of(updating.compute.precision);
    all.push(("matrix products of both models".into(), precision.into()));
    let plan = serde_json::to_value(&trial.plan)?;
    let settings = plan.as_object().into_iter().flatten();
    all.extend(settings.map(|(key, value)| (format!("plan {key}"), value.to_string())));
    Ok(all)
}
