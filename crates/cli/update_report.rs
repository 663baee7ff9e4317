//! The report of an update: measured on the rows that nothing was chosen by.

use std::path::{Path, PathBuf};

use anyhow::Result;
use lowchurn_churn::{Asked, Certificate, Side, compare};
use lowchurn_data::Example;

use crate::args::Update;
use crate::console::Console;
use crate::found;
use crate::nearest;
use crate::reporting::{self, Told};
use crate::update::{Trial, certification_rows};
use crate::updating::Updating;

pub fn write(
    updating: &Updating,
    args: &Update,
    trial: &Trial,
    certificate: Option<Certificate>,
    output: &Path,
    console: &mut Console,
) -> Result<Vec<PathBuf>> {
    let rows: Vec<u32> = match &certificate {
        Some(_) => certification_rows(updating).into_iter().map(|row| row as u32).collect(),
        None => (0..trial.pair.ids.len() as u32).collect(),
    };
    let pair = trial.pair.subset(&rows);
    let texts: Vec<String> =
        rows.iter().map(|&row| updating.rows.holdout.examples[row as usize].text.clone()).collect();
    let is_new: Vec<bool> =
        rows.iter().map(|&row| row as usize >= updating.rows.n_old_holdout).collect();
    let of_rows =
        |values: &Vec<String>| rows.iter().map(|&row| values[row as usize].clone()).collect();
    let columns: Vec<(String, Vec<String>)> = updating
        .rows
        .holdout_columns
        .iter()
        .map(|(column, values)| (column.clone(), of_rows(values)))
        .collect();
    let asked = Asked {
        confidence: args.budget.confidence,
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
    let holdout = &updating.rows.holdout;
    let flips: Vec<(usize, Example)> = reporting::flipped(&pair)
        .into_iter()
        .map(|at| (at, holdout.examples[rows[at] as usize].clone()))
        .collect();
    let nearest =
        nearest::of(&new, &flips, &updating.rows.train, NEAREST, &updating.device, console)?;
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
        provenance: provenance(updating, args, trial),
    };
    reporting::write(&reporting::report(told), output)?;
    Ok(vec![output.join("report.html"), output.join("report.md"), output.join("report.json")])
}

/// Training rows shown for each changed row.
const NEAREST: usize = 3;

fn provenance(updating: &Updating, args: &Update, trial: &Trial) -> Vec<(String, String)> {
    let rows = &updating.rows;
    let mut all = vec![
        ("method".to_string(), trial.plan.method.to_string()),
        ("start".into(), args.init.name().into()),
        ("share of the old weights".into(), trial.share.to_string()),
        ("seed".into(), trial.plan.seed.to_string()),
        ("old model".into(), format!("{} ({})", updating.old.name, updating.old.sha256)),
        ("training rows".into(), format!("{} ({})", rows.train.name, rows.train.sha256)),
        (
            "old, new, unlabelled rows".into(),
            format!("{}, {}, {}", rows.n_old, rows.n_new, rows.n_unlabelled),
        ),
        ("lowchurn".into(), env!("CARGO_PKG_VERSION").into()),
        ("device".into(), crate::device::kind(&updating.device).into()),
    ];
    let Ok(serde_json::Value::Object(plan)) = serde_json::to_value(&trial.plan) else { return all };
    all.extend(plan.into_iter().map(|(key, value)| (format!("plan {key}"), value.to_string())));
    all
}
