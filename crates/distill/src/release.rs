//! The end of a run: the best weights at the top of its folder, in the hub's layout, with a manifest of their own.

use std::path::Path;

use lowchurn_models::save as save_model;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{
    self, MANIFEST, MODEL, Provenance, check_files, load_best, move_over, read_manifest,
    refuse_other_run, remove_if_there, write_manifest, write_trainer_state,
};
use crate::{Error, Result, Scores, State, files};

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
///
/// All files are written and flushed beside their place first: a full disk leaves folder and checkpoints as they were.
/// The manifest lists these files only, not what else lies or grows in the folder.
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
        load_best(run, step, state)?;
    }
    let release = Release { step, scores: best.map(|best| best.scores.clone()) };
    let partial = run.join(".release.partial");
    let write = || -> Result<()> {
        remove_if_there(&partial)?;
        let model = &state.model;
        let hash = save_model(&partial, &model.config, &model.params, tokenizer_from)?;
        write_trainer_state(&partial, state, &provenance.plan, total, epoch)?;
        files::write_json(&partial.join(RESULTS), &release)?;
        write_manifest(&partial, step, provenance, vec![(MODEL, hash)])?;
        let Some(manifest) = read_manifest(&partial)? else { return Ok(()) };
        withdraw(run)?;
        for name in manifest.files.keys().map(String::as_str).chain([MANIFEST]) {
            move_over(&partial.join(name), &run.join(name))?;
        }
        Ok(())
    };
    write().inspect_err(|_| {
        let _ = std::fs::remove_dir_all(&partial);
    })?;
    files::sync_folder(run);
    remove_if_there(&partial)?;
    checkpoint::remove_checkpoints(run, &[])?;
    Ok(release)
}

/// Takes away the word that a run is finished here: what follows changes what it stands for.
pub fn withdraw(run: &Path) -> Result<()> {
    let path = run.join(MANIFEST);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Write { path, source: error })
        }
        _ => Ok(()),
    }
}

/// What a finished run was made from.
pub fn finished_provenance(run: &Path) -> Result<Provenance> {
    match read_manifest(run)? {
        Some(manifest) => Ok(manifest.provenance),
        None => Err(Error::Release { path: run.join(MANIFEST), reason: "it is missing".into() }),
    }
}

/// Whether this very run is finished here, its files unchanged. Another finished run in the folder is an error that says what differs.
pub fn finished(run: &Path, provenance: &Provenance) -> Result<Option<Finished>> {
    let check = || {
        let Some(manifest) = read_manifest(run)? else { return Ok(None) };
        refuse_other_run(run, &manifest.provenance, provenance)?;
        check_files(run, &manifest, &[MODEL, RESULTS])?;
        let path = run.join(RESULTS);
        let text =
            std::fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        let release = serde_json::from_slice(&text)
            .map_err(|error| Error::Checkpoint { path, reason: error.to_string() })?;
        Ok(Some(Finished { release, provenance: manifest.provenance }))
    };
    check().map_err(|error| match error {
        Error::Checkpoint { path, reason } => Error::Release { path, reason },
        error => error,
    })
}
