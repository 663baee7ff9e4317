//! Models between two: share·old + (1 − share)·new, weight by weight (Schumann et al. 2024, BCWI). No training, no teacher.

use std::path::{Path, PathBuf};

use anyhow::Result;
use lowchurn_churn::Predicted;
use lowchurn_data::{Encoded, Example};
use lowchurn_distill::{Outputs, interpolate};
use lowchurn_models::{Classifier, Params};

use crate::console::Console;
use crate::found;
use crate::kinds::{self, Reading};
use crate::updating::Updating;

/// The models between the old weights and one that was trained from them.
pub struct Line {
    old: Classifier,
    new: Classifier,
    tokens: Encoded,
    folder: PathBuf,
}

impl Line {
    pub fn open(updating: &Updating, folder: &Path) -> Result<Line> {
        let open = |folder: &Path| -> Result<Classifier> {
            found::open_model(&found::describe("", folder.into())?, &updating.compute)
        };
        let tokens = updating.tokens_for(folder, &updating.rows.holdout.examples)?;
        let (old, new) = (open(&updating.old.folder)?, open(folder)?);
        Ok(Line { old, new, tokens, folder: folder.into() })
    }

    /// share·old + (1 − share)·new. Without a share the old model may be of another architecture.
    pub fn model(&self, share: f64) -> Result<Classifier> {
        let params: Params = match share {
            0.0 => self.new.params.clone(),
            share => interpolate(&self.old.params, &self.new.params, share)?,
        };
        let mut model = Classifier::new(self.new.config.clone(), params)?;
        model.precision = self.new.precision;
        Ok(model)
    }

    /// Predicted classes of any rows.
    pub fn predict(
        &self,
        updating: &Updating,
        share: f64,
        examples: &[Example],
        console: &mut Console,
    ) -> Result<Vec<u32>> {
        let model = self.model(share)?;
        let tokens = updating.tokens_for(&self.folder, examples)?;
        let found = updating.logits(&model, &tokens, console)?;
        Ok((0..found.rows()).map(|row| found.predicted(row)).collect())
    }

    /// Predictions of the held-out rows.
    pub fn score(
        &self,
        updating: &Updating,
        share: f64,
        console: &mut Console,
    ) -> Result<Predicted> {
        let model = self.model(share)?;
        let logits = updating.logits(&model, &self.tokens, console)?.logits;
        let split = &updating.rows.holdout;
        let outputs = Outputs::of(&model.config)?;
        let (labels, tolerance) = (model.labels(), updating.tolerance);
        let reading = Reading { outputs: &outputs, labels, rows: split, tolerance };
        kinds::answers(&format!("interpolate α {share}"), &reading, &logits)
    }
}
