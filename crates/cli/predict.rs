//! `predict`: a line of JSON a row, with id, label, scores, and logits where asked for, in the order of the input.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use lowchurn_data::{Labels, PredictionRow, write_row};
use lowchurn_distill::evaluate;
use serde_json::json;

use crate::args::Predict;
use crate::console::Console;
use crate::eval::{Asked, Scored, score};
use crate::failure::Usage;
use crate::machine::peak_rss_mib;
use crate::output;
use crate::progress::count;

pub fn predict(args: Predict, console: &mut Console) -> Result<u8> {
    if let Some(path) = &args.output {
        check_file(path)?;
    }
    let asked = Asked {
        model: &args.model,
        data: &args.data,
        split: args.split.as_deref(),
        labels: Labels::IfPresent,
        scoring: &args.scoring,
        output: args.output.as_deref(),
    };
    let scored = score(&asked, console)?;
    let rows = (0..scored.predictions.rows()).map(|row| prediction(&scored, row, &args));
    match &args.output {
        None => {
            let mut out = BufWriter::new(&mut console.out);
            for row in rows {
                write_row(&mut out, &row)?;
            }
            out.flush()?;
        }
        Some(path) => {
            write_file(path, rows)?;
            let n = count(scored.predictions.rows() as u64);
            console.tell(&format!("{}: {n} rows", path.display()))?;
        }
    }
    let gold: Vec<Option<u32>> = scored.split.examples.iter().map(|row| row.label).collect();
    let metrics = match gold.iter().any(Option::is_some) {
        true => Some(evaluate(&scored.predictions, &gold)?),
        false => None,
    };
    console.event(&json!({
        "event": "finished", "rows": scored.predictions.rows(), "output": args.output, "metrics": metrics,
        "truncated": scored.n_truncated, "seconds": scored.seconds, "peak_rss_mib": peak_rss_mib(),
    }));
    Ok(0)
}

/// Refuses a place that can't be written before the work is done.
fn check_file(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Err(
            Usage(format!("--output {} is a folder; name a file in it", path.display())).into()
        );
    }
    let parent = |path: &Path| path.parent().unwrap_or(Path::new("")).to_path_buf();
    let folder = parent(path);
    output::check(&folder)?;
    // One folder is made; more of them that aren't there are a typo.
    let above = parent(&folder);
    if !above.as_os_str().is_empty() && !above.exists() {
        let (path, above) = (path.display(), above.display());
        return Err(Usage(format!("--output {path}: there is no folder {above}")).into());
    }
    Ok(())
}

/// Beside its place first: a reader never finds half of the rows.
fn write_file(path: &Path, rows: impl Iterator<Item = PredictionRow>) -> Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let write = || -> Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut out = BufWriter::new(File::create(&partial)?);
        for row in rows {
            write_row(&mut out, &row)?;
        }
        out.into_inner().map_err(|error| error.into_error())?.sync_all()?;
        Ok(fs::rename(&partial, path)?)
    };
    write().with_context(|| format!("{}: can't be written", path.display())).inspect_err(|_| {
        let _ = fs::remove_file(&partial);
    })
}

fn prediction(scored: &Scored, row: usize, args: &Predict) -> PredictionRow {
    let example = &scored.split.examples[row];
    let name = |label: u32| scored.labels.get(label as usize).cloned().unwrap_or_default();
    PredictionRow {
        id: example.id.clone(),
        label: name(scored.predictions.predicted(row)),
        gold: example.label.map(name),
        scores: scored.labels.iter().cloned().zip(scored.predictions.probabilities(row)).collect(),
        logits: args.logits.then(|| scored.predictions.logits_of(row).to_vec()),
    }
}
