//! The end of a run: the best weights at the top of its folder, in the hub's layout, with a manifest of their own.

use std::path::Path;

use candle_core::{Tensor, Var};
use lowchurn_models::{
    AdapterBase, AdapterFiles, Depth, depth, save as save_model, save_adapter, save_base,
};
use serde::{Deserialize, Serialize};

use crate::checkpoint::{
    self, ADAPTER, ADAPTER_FILES, MANIFEST, MODEL, TRAINER_STATE, check_files, load_best,
    move_over, read_manifest, remove_if_there, write_manifest, write_trainer_state,
};
use crate::provenance::{Provenance, refuse_other_run};
use crate::trained::{LORA_ALPHA, targets};
use crate::{Error, Method, Outputs, Plan, Result, Scores, State, files};

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
    let adapter = |to: &Path| match state.trained.has_adapters() {
        true => write_adapter(to, state, provenance, tokenizer_from).map(|()| true),
        false => Ok(false),
    };
    write_over(run, state, provenance, tokenizer_from, (total, epoch), &adapter)
}

/// [`release`] of a model that was trained in another folder, with the adapter that lies there where `keeps_adapter`.
///
/// # Errors
/// Those of [`release`]; an adapter that can't be read.
pub fn release_of(
    trained: &Path,
    keeps_adapter: bool,
    run: &Path,
    state: &State,
    provenance: &Provenance,
) -> Result<Release> {
    let adapter = |to: &Path| {
        if !keeps_adapter || !trained.join(ADAPTER).is_dir() {
            return Ok(false);
        }
        let written = |source| Error::Write { path: to.into(), source };
        std::fs::create_dir_all(to).map_err(written)?;
        for name in ADAPTER_FILES {
            let from = trained.join(name);
            let to = to.join(name.trim_start_matches("adapter/"));
            std::fs::copy(&from, to).map_err(|source| Error::Read { path: from, source })?;
        }
        files::sync_folder(to);
        Ok(true)
    };
    write_over(run, state, provenance, trained, (0, 0.0), &adapter)
}

/// `adapter` writes into a folder, and says whether there is one.
fn write_over(
    run: &Path,
    state: &State,
    provenance: &Provenance,
    tokenizer_from: &Path,
    (total, epoch): (u64, f64),
    adapter: &dyn Fn(&Path) -> Result<bool>,
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
        let mut config = model.config.clone();
        if let Some(thresholds) = best.and_then(|best| best.thresholds.clone()) {
            Outputs { thresholds, ..Outputs::of(&config)? }.write(&mut config);
        }
        let hash = match provenance.plan.method {
            Method::TaskAgnostic => save_base(&partial, &config, &model.params, tokenizer_from)?,
            _ => save_model(&partial, &config, &model.params, tokenizer_from)?,
        };
        write_trainer_state(&partial, state, &provenance.plan, total, epoch)?;
        files::write_json(&partial.join(RESULTS), &release)?;
        let mut known = vec![(MODEL, hash)];
        let has_adapter = adapter(&partial.join(ADAPTER))?;
        if has_adapter {
            for name in ADAPTER_FILES {
                known.push((name, files::sha256(&partial.join(name))?));
            }
        }
        let manifest = write_manifest(&partial, step, provenance, known)?;
        withdraw(run)?;
        if has_adapter {
            let dir = run.join(ADAPTER);
            std::fs::create_dir_all(&dir).map_err(|source| Error::Write { path: dir, source })?;
        }
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
    if !provenance.plan.keep_checkpoints {
        checkpoint::remove_checkpoints(run, &[])?;
    }
    Ok(release)
}

/// What was trained, apart from its base, in PEFT's layout.
fn write_adapter(
    dir: &Path,
    state: &State,
    provenance: &Provenance,
    base_folder: &Path,
) -> Result<()> {
    let Plan { lora_rank, lora_alpha, freeze, .. } = provenance.plan;
    let config = &state.model.config;
    let factors = state.trained.factors();
    let factors = factors.map(|(name, a, b)| (name, Var::as_tensor(a), Var::as_tensor(b)));
    let factors: Vec<(&str, &Tensor, &Tensor)> = factors.collect();
    // PEFT would look for the same modules in the layers that stand still, too.
    let module = |(name, ..): &(&str, _, _)| name.trim_end_matches(".weight").to_string();
    let targets = match freeze.layers {
        0 => targets(&provenance.plan, config),
        _ => factors.iter().map(module).collect(),
    };
    let is_head = |(name, _): &(&str, &Tensor)| depth(config, name) == Depth::Head;
    let (name, revision) = named(base_folder);
    let hash = provenance.base_sha256.split('+').next().unwrap_or_default();
    let files = AdapterFiles {
        base: &AdapterBase { name, revision, sha256: Some(hash.into()) },
        rank: lora_rank.unwrap_or_default(),
        alpha: lora_alpha.unwrap_or(LORA_ALPHA),
        targets,
        factors,
        whole: state.model.params.tensors().filter(is_head).collect(),
    };
    save_adapter(dir, config, &files)?;
    files::sync_folder(dir);
    Ok(())
}

/// A folder of the hub's cache by the id and the commit that it is of, any other as itself.
fn named(folder: &Path) -> (String, Option<String>) {
    let parts: Vec<_> =
        folder.components().rev().take(3).map(|part| part.as_os_str().to_string_lossy()).collect();
    match &parts[..] {
        [commit, snapshots, repo] if snapshots == "snapshots" && repo.starts_with("models--") => {
            (repo["models--".len()..].replacen("--", "/", 1), Some(commit.to_string()))
        }
        _ => (folder.display().to_string(), None),
    }
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

/// The update whose weights lie at the top of a finished run's folder, and how many updates the run was to have; `None` of another
/// folder.
pub fn kept_update(run: &Path) -> Result<Option<(u64, u64)>> {
    let Some(manifest) = read_manifest(run)? else { return Ok(None) };
    let path = run.join(TRAINER_STATE);
    let text = std::fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
    let state: serde_json::Value = serde_json::from_slice(&text)
        .map_err(|error| Error::Checkpoint { path, reason: error.to_string() })?;
    Ok(state["max_steps"].as_u64().map(|total| (manifest.step, total)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_by_their_folders() {
        let check = |folder: &str, name: &str, revision: Option<&str>| {
            assert_eq!(named(Path::new(folder)), (name.into(), revision.map(String::from)));
        };
        check("/c/hub/models--a--b-l6/snapshots/1f2e", "a/b-l6", Some("1f2e"));
        check("/c/models--bert/snapshots/1f2e", "bert", Some("1f2e"));
        check("runs/sst2", "runs/sst2", None);
        check("/c/x/snapshots/1f2e", "/c/x/snapshots/1f2e", None);
        check("models/tiny", "models/tiny", None);
    }
}
