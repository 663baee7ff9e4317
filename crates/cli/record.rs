//! What a run tells other tools while it goes on: `metrics.jsonl` and TensorBoard's event files, with the time of day, and
//! the events of `--json`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use lowchurn_distill::{Event, LogEntry, Steered};
use serde_json::{Map, Value, json};

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
            Event::Steered { step, all, .. } => {
                let line = json!({
                    "step": step, "losses": losses(all), WEIGHTS: weights(all), "time": now(),
                });
                writeln!(self.metrics, "{line}").with_context(|| self.cannot_write())
            }
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

    /// Drops the lines of what will be done again: later updates, and the look at held-out rows before the next one.
    fn forget_after(&mut self, step: u64) -> Result<()> {
        let lines = BufReader::new(File::open(&self.path)?).lines();
        let mut kept = String::new();
        for line in lines.map_while(std::io::Result::ok) {
            // A line that was cut off by a kill is no line.
            let Ok(value) = serde_json::from_str::<Value>(&line) else { continue };
            let is_kept = |at: u64| at < step || (at == step && value.get(WEIGHTS).is_none());
            if value["step"].as_u64().is_some_and(is_kept) {
                kept.push_str(&line);
                kept.push('\n');
            }
        }
        lowchurn_distill::write_file(&self.path, kept.as_bytes())?;
        self.metrics = append(&self.path)?;
        self.events.restart(now(), step + 1).with_context(|| self.cannot_write())
    }
}

const WEIGHTS: &str = "weights";

/// By the names of classes or groups.
fn losses(all: &[Steered]) -> Map<String, Value> {
    all.iter().map(|one| (one.name.clone(), one.loss.into())).collect()
}

fn weights(all: &[Steered]) -> Map<String, Value> {
    all.iter().map(|one| (one.name.clone(), one.weight.into())).collect()
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
        Event::Steered { step, worst, all } => {
            let worst = all.get(*worst);
            json!({
                "event": "steered", "step": step, "worst": worst.map(|one| &one.name), "loss": worst.map(|one| one.loss),
                "weight": worst.map(|one| one.weight), "losses": losses(all), WEIGHTS: weights(all),
            })
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A checkpoint is older than the look at held-out rows that follows it, so whoever goes on from it looks again.
    #[test]
    fn a_look_is_in_the_record_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = Record::open(dir.path()).unwrap();
        let look = |step| {
            let all = vec![Steered { name: "late".into(), loss: 0.5, weight: 1.0 }];
            Event::Steered { step, worst: 0, all }
        };
        let logged = |step| {
            Event::Logged(LogEntry::Train {
                step,
                epoch: 0.0,
                loss: 1.0,
                accuracy: None,
                grad_norm: 1.0,
                learning_rate: 1e-5,
                lambda: None,
                agreement: None,
            })
        };
        let before = [look(2), logged(4), look(4), logged(5)];
        let after = [Event::Resumed { step: 4, total: 9 }, look(4), logged(5)];
        for event in before.iter().chain(&after) {
            record.take(event).unwrap();
        }
        let text = fs::read_to_string(dir.path().join("metrics.jsonl")).unwrap();
        let of = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            (line["step"].as_u64().unwrap(), line["weights"]["late"].as_f64())
        };
        let found: Vec<(u64, Option<f64>)> = text.lines().map(of).collect();
        assert_eq!(found, [(2, Some(1.0)), (4, None), (4, Some(1.0)), (5, None)]);
    }
}
