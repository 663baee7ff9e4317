//! The end of a run: the best weights at the top of its folder, in the hub's layout, with a manifest of their own.

use std::path::Path;

use lowchurn_models::save as save_model;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{
    self, Provenance, load_weights, read_manifest, refuse_other_run, write_manifest, write_trainer_state,
};
use crate::{Result, Scores, State, files};

/// What a finished run says of itself, in `eval_results.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Release {
    /// The update whose weights these are.
    pub step: u64,
    /// `None` where there was nothing to evaluate on.
    pub scores: Option<Scores>,
}

/// A run folder that holds a finished run.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    pub release: Release,
    pub provenance: Provenance,
}

const RESULTS: &str = "eval_results.json";

/// Writes the best weights (the last ones without evaluation) to the top of the run's folder and removes the checkpoints.
pub fn release(
    run: &Path,
    state: &State,
    provenance: &Provenance,
    tokenizer_from: &Path,
    total: u64,
    epoch: f64,
) -> Result<Release> {
    let best = state.progress.best.as_ref();
    let step = best.map_or(state.step, |best| best.step);
    if step != state.step {
        load_weights(run, step, state)?;
    }
    save_model(run, &state.model.config, &state.model.params, tokenizer_from)?;
    write_trainer_state(run, state, &provenance.plan, total, epoch)?;
    let release = Release { step, scores: best.map(|best| best.scores.clone()) };
    files::write_json(&run.join(RESULTS), &release)?;
    write_manifest(run, step, provenance)?;
    checkpoint::remove_checkpoints(run, &[])?;
    Ok(release)
}

/// Whether this very run is finished here. Another finished run in the folder is an error that says what differs.
pub fn finished(run: &Path, provenance: &Provenance) -> Result<Option<Finished>> {
    let Some(manifest) = read_manifest(run)? else { return Ok(None) };
    refuse_other_run(run, &manifest.provenance, provenance)?;
    let path = run.join(RESULTS);
    let text = std::fs::read(&path)
        .map_err(|source| crate::Error::Read { path: path.clone(), source })?;
    let release = serde_json::from_slice(&text)
        .map_err(|error| crate::Error::Checkpoint { path, reason: error.to_string() })?;
    Ok(Some(Finished { release, provenance: manifest.provenance }))
}
