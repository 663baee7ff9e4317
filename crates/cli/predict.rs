//! `predict`: a line of JSON a row, with id, label, scores, and logits where asked for, in the order of the input.

use std::fs::{self, File};
use std::io::{BufWriter, Write};

use anyhow::{Context, Result};
use lowchurn_data::{Labels, PredictionRow, write_row};
use serde_json::json;

use crate::args::Predict;
use crate::console::Console;
use crate::eval::{Scored, score};
use crate::progress::count;

pub fn predict(args: Predict, console: &mut Console) -> Result<u8> {
    let scored = score(&args.model, &args.data, args.split.as_deref(), Labels::IfPresent, &args.scoring, console)?;
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
            let partial = path.with_extension("jsonl.partial");
            let failed = || format!("{}: can't be written", path.display());
            let mut out = BufWriter::new(File::create(&partial).with_context(failed)?);
            for row in rows {
                write_row(&mut out, &row)?;
            }
            out.into_inner().map_err(|error| error.into_error()).with_context(failed)?.sync_all().with_context(failed)?;
            fs::rename(&partial, path).with_context(failed)?;
            let n = count(scored.predictions.rows() as u64);
            console.tell(&format!("{}: {n} rows", path.display()))?;
            console.event(&json!({ "event": "finished", "rows": scored.predictions.rows(), "output": path }));
        }
    }
    Ok(0)
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
