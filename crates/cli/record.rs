//! What a run tells other tools while it goes on: `metrics.jsonl` and TensorBoard's event files, with the time of day, and
//! the events of `--json`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use lowchurn_distill::{Event, LogEntry};
use serde_json::{Value, json};

use crate::tensorboard::EventFile;

pub struct Record {
    path: PathBuf,
    metrics: File,
    events: EventFile,
}

impl Record {
    pub fn open(run: &Path) -> Result<Record> {
        let path = run.join("metrics.jsonl");
        let metrics = append(&path)?;
        let events = EventFile::create(&run.join("tensorboard"), now())
            .with_context(|| format!("{}: can't be written", run.join("tensorboard").display()))?;
        Ok(Record { path, metrics, events })
    }

    pub fn take(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Resumed { step, .. } => self.forget_after(*step),
            // A run that was killed before its first checkpoint starts anew.
            Event::Stepped { step: 1, .. } if self.metrics.metadata()?.len() > 0 => {
                self.forget_after(0)
            }
            Event::Logged(entry) => self.log(entry),
            _ => Ok(()),
        }
    }

    fn log(&mut self, entry: &LogEntry) -> Result<()> {
        let time = now();
        let mut line = serde_json::to_value(entry)?;
        line["time"] = json!(time);
        writeln!(self.metrics, "{line}").with_context(|| self.cannot_write())?;
        self.events.log(time, entry).with_context(|| self.cannot_write())?;
        self.events.flush().with_context(|| self.cannot_write())
    }

    fn cannot_write(&self) -> String {
        format!("{}: can't be written", self.path.display())
    }

    /// Drops the lines of updates that will be done again.
    fn forget_after(&mut self, step: u64) -> Result<()> {
        let lines = BufReader::new(File::open(&self.path)?).lines();
        let mut kept = String::new();
        for line in lines.map_while(std::io::Result::ok) {
            // A line that was cut off by a kill is no line.
            let at =
                serde_json::from_str::<Value>(&line).ok().and_then(|line| line["step"].as_u64());
            if at.is_some_and(|at| at <= step) {
                kept.push_str(&line);
                kept.push('\n');
            }
        }
        lowchurn_distill::write_file(&self.path, kept.as_bytes())?;
        self.metrics = append(&self.path)?;
        self.events.restart(now(), step + 1).with_context(|| self.cannot_write())
    }
}

fn append(path: &Path) -> Result<File> {
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("{}: can't be written", path.display()))
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// An event for `--json`.
pub fn as_json(event: &Event) -> Value {
    match event {
        Event::Resumed { step, total } => {
            json!({ "event": "resumed", "step": step, "total": total })
        }
        Event::Stepped { step, total, report: r } => json!({
            "event": "step", "step": step, "total": total, "loss": r.loss_sum / r.n_rows as f64,
            "correct": r.n_correct, "rows": r.n_rows, "unlabelled": r.n_unlabelled, "tokens": r.n_tokens,
            "learning_rate": r.learning_rate, "gradient_norm": r.gradient_norm,
        }),
        Event::Churned { step, churn, lambda } => {
            json!({ "event": "churned", "step": step, "churn": churn, "lambda": lambda })
        }
        Event::Steered { step, worst, loss, weight } => json!({
            "event": "steered", "step": step, "worst": worst, "loss": loss, "weight": weight,
        }),
        Event::Logged(entry) => json!({ "event": "log", "log": entry }),
        Event::Evaluating { done, rows } => {
            json!({ "event": "evaluating", "done": done, "rows": rows })
        }
        Event::Evaluated { step, scores, is_best } => {
            json!({ "event": "evaluated", "step": step, "metrics": scores, "is_best": is_best })
        }
        Event::Saved { step, path } => json!({ "event": "saved", "step": step, "path": path }),
        Event::StoppedEarly { step, n_evals } => {
            json!({ "event": "stopped_early", "step": step, "evaluations_without_gain": n_evals })
        }
    }
}
