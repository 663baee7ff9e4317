//! Predictions of one model, from a file of any stack or from memory.

use std::path::Path;

use lowchurn_data::error::{Error as DataError, Result as DataResult};

use crate::names::Names;
use crate::read;
use crate::{Answers, Error, Result};

/// What one model said about a set of rows. All columns have N entries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Predicted {
    /// For messages and the report: the file or the model.
    pub name: String,
    /// Class names; indices below point here.
    pub labels: Vec<String>,
    /// `Some(k)`: `labels[..k]` are all that the model can say, the others only occur as true classes. `None`: the file has
    /// no scores, so that only the labels that occur are known.
    pub n_declared: Option<usize>,
    pub ids: Vec<String>,
    /// The class of the highest score, the first of equals; or what the file says, where it has a column for it.
    pub predicted: Vec<u32>,
    /// The true class, where it is known.
    pub gold: Vec<Option<u32>>,
    /// Probabilities (N·K), row-major, where the file has scores; 0 for classes that only occur as true ones.
    pub scores: Option<Vec<f32>>,
    /// What a reader of the numbers should know, a sentence each.
    pub notes: Vec<String>,
    /// Where an answer isn't one class a row.
    pub answers: Answers,
}

impl Predicted {
    /// Reads a CSV, TSV, JSON-lines or parquet file, told apart by its suffix. Columns are found as `Names` says.
    ///
    /// # Errors
    /// Where a column isn't clear or isn't there, an id is empty or there twice, a score isn't a probability, the scores of
    /// a row don't sum to 1 (within 0.001), or the file has no rows.
    pub fn read(path: &Path, names: &Names) -> Result<Predicted> {
        read::read(path, names)
    }

    /// Softmax in f64; predicted is the class of the highest logit, the first of equals. `logits` is (N·K).
    pub fn from_logits(
        name: &str,
        labels: &[String],
        ids: Vec<String>,
        gold: Vec<Option<u32>>,
        logits: &[f32],
    ) -> Result<Predicted> {
        let classes = labels.len();
        length("gold labels", gold.len(), ids.len())?;
        length("logits", logits.len(), ids.len() * classes)?;
        if let Some(class) = gold.iter().flatten().find(|class| **class as usize >= classes) {
            return Err(Error::ClassOutside { name: name.to_owned(), class: *class, classes });
        }
        let mut scores = vec![0f32; logits.len()]; // (N, K)
        let mut predicted = Vec::with_capacity(ids.len());
        let rows = logits.chunks_exact(classes.max(1)).zip(scores.chunks_exact_mut(classes.max(1)));
        for ((logits, scores), id) in rows.zip(&ids) {
            finite(id, labels, logits)?;
            let top = first_highest(logits);
            predicted.push(top as u32);
            let highest = f64::from(logits[top]);
            let sum: f64 = logits.iter().map(|z| (f64::from(*z) - highest).exp()).sum();
            for (score, z) in scores.iter_mut().zip(logits) {
                *score = ((f64::from(*z) - highest).exp() / sum) as f32;
            }
        }
        Ok(Predicted {
            name: name.to_owned(),
            labels: labels.to_vec(),
            n_declared: Some(classes),
            ids,
            predicted,
            gold,
            scores: Some(scores),
            ..Predicted::default()
        })
    }

    /// N.
    pub fn rows(&self) -> usize {
        self.ids.len()
    }
}

/// The place of the highest value, the first of equals; 0 of nothing.
pub(crate) fn first_highest(values: &[f32]) -> usize {
    let mut top = 0;
    for (at, value) in values.iter().enumerate() {
        if *value > values[top] {
            top = at;
        }
    }
    top
}

pub(crate) fn length(what: &str, found: usize, expected: usize) -> Result<()> {
    match found == expected {
        true => Ok(()),
        false => Err(Error::Length { what: what.to_owned(), found, expected }),
    }
}

fn finite(id: &str, labels: &[String], logits: &[f32]) -> DataResult<()> {
    match labels.iter().zip(logits).find(|(_, logit)| !logit.is_finite()) {
        None => Ok(()),
        Some((label, value)) => Err(DataError::NotFinite {
            id: id.to_owned(),
            what: "the logit",
            label: label.clone(),
            value: *value,
        }),
    }
}
