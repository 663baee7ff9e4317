//! `predict`: a line of JSON a row, with id, label, scores, and logits where asked for, in the order of the input.

use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Result;
use lowchurn_data::{
    Kind, Labels, PredictionRow, SetRow, Targets, ValueRow, write_row, write_set_row,
    write_value_row,
};
use lowchurn_distill::evaluate_targets;
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
        refuse_other_format(path)?;
        output::check_file("--output", path)?;
    }
    let asked = Asked {
        model: &args.model,
        data: &args.data,
        split: args.split.as_deref(),
        labels: Labels::IfPresent,
        scoring: &args.scoring,
        threshold: args.threshold,
        label_map: args.label_map.as_deref(),
        output: args.output.as_deref(),
    };
    let scored = score(&asked, console)?;
    let mut rows = (0..scored.predictions.rows()).map(|row| prediction(&scored, row, &args));
    match &args.output {
        None => {
            let mut out = BufWriter::new(&mut console.out);
            for row in rows {
                row.write(&mut out)?;
            }
            out.flush()?;
        }
        Some(path) => {
            output::write_file(path, |out| {
                rows.try_for_each(|row| row.write(out).map_err(std::io::Error::other))
            })?;
            let n = count(scored.predictions.rows() as u64);
            console.tell(&format!("{}: {n} rows", path.display()))?;
        }
    }
    let gold: Vec<Option<u32>> = scored.split.examples.iter().map(|row| row.label).collect();
    let metrics = match gold.iter().any(Option::is_some) {
        true => {
            let targets = Targets::of(&scored.split.examples);
            Some(evaluate_targets(&scored.predictions, &gold, &targets, &scored.outputs)?)
        }
        false => None,
    };
    console.event(&json!({
        "event": "finished", "rows": scored.predictions.rows(), "output": args.output, "metrics": metrics,
        "truncated": scored.n_truncated, "seconds": scored.seconds, "peak_rss_mib": peak_rss_mib(),
    }));
    Ok(0)
}

/// Lines of JSON under another format's name would be taken for that by whoever reads them.
fn refuse_other_format(path: &Path) -> Result<()> {
    let suffix = path.extension().map(|suffix| suffix.to_string_lossy().to_lowercase());
    match suffix.as_deref() {
        Some("csv" | "tsv" | "parquet") => Err(Usage(format!(
            "--output {}: predictions are written as lines of JSON; call the file {}",
            path.display(),
            path.with_extension("jsonl").display()
        ))
        .into()),
        _ => Ok(()),
    }
}

/// A line of one of the kinds.
enum Line {
    Class(PredictionRow),
    Set(SetRow),
    Value(ValueRow),
}

impl Line {
    fn write(&self, out: &mut dyn Write) -> Result<()> {
        match self {
            Line::Class(row) => write_row(out, row)?,
            Line::Set(row) => write_set_row(out, row)?,
            Line::Value(row) => write_value_row(out, row)?,
        }
        Ok(())
    }
}

fn prediction(scored: &Scored, row: usize, args: &Predict) -> Line {
    let example = &scored.split.examples[row];
    let name = |label: u32| scored.labels.get(label as usize).cloned().unwrap_or_default();
    let (id, predictions) = (example.id.clone(), &scored.predictions);
    let scores = |scores: Vec<f32>| scored.labels.iter().cloned().zip(scores).collect();
    let logits = args.logits.then(|| predictions.logits_of(row).to_vec());
    match scored.outputs.kind {
        Kind::SingleLabel => Line::Class(PredictionRow {
            id,
            label: name(predictions.predicted(row)),
            gold: example.label.map(name),
            scores: scores(predictions.probabilities(row)),
            logits,
        }),
        Kind::MultiLabel => Line::Set(SetRow {
            id,
            labels: scored
                .outputs
                .labels_of(predictions.logits_of(row))
                .into_iter()
                .map(name)
                .collect(),
            gold: example.classes().map(|set| set.into_iter().map(name).collect()),
            scores: scores(predictions.label_probabilities(row)),
            logits,
        }),
        Kind::Regression => {
            let value = predictions.logits_of(row).first().copied().unwrap_or_default();
            Line::Value(ValueRow { id, value, gold: example.value() })
        }
    }
}
