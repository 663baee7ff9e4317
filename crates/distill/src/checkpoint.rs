//! State ↔ folder. A checkpoint is written as a whole beside its place, its manifest last, and renamed: a folder without a
//! manifest is not a checkpoint, and a run that is killed at any moment finds the one before.

use std::collections::{BTreeMap, btree_map::Entry};
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use lowchurn_models::{
    Params, Stored, read_params_into, read_safetensors, save as save_model, write_safetensors,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::provenance::{Provenance, refuse_other_run};
use crate::state::{Peer, Progress, Projections};
use crate::variance::{from_saved, to_save};
use crate::{Error, Guides, Optimizer, OptimizerName, Plan, Result, State, Trained, files};

pub const MANIFEST: &str = "manifest.json";
pub const MODEL: &str = "model.safetensors";
const MOMENTS: &str = "optimizer.safetensors";
const PEER: &str = "peer.safetensors";
const PEER_MOMENTS: &str = "peer_optimizer.safetensors";
const FACTORS: &str = "factors.safetensors";
const PEER_FACTORS: &str = "peer_factors.safetensors";
const PROJECTIONS: &str = "projections.safetensors";
const PROJECTION_MOMENTS: &str = "projections_optimizer.safetensors";
const CONTROL: &str = "control.safetensors";
pub const TRAINER_STATE: &str = "trainer_state.json";
const FORMAT: u32 = 1;

/// The one folder that a release has, and what lies in it.
pub const ADAPTER: &str = "adapter";
pub const ADAPTER_FILES: [&str; 3] =
    ["adapter/adapter_config.json", "adapter/adapter_model.safetensors", "adapter/config.json"];

/// What makes a folder a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub step: u64,
    pub provenance: Provenance,
    /// SHA-256 of each file.
    pub files: BTreeMap<String, String>,
}

/// `trainer_state.json`: the keys that tools around transformers read, and ours.
#[derive(Serialize, Deserialize)]
struct TrainerState {
    global_step: u64,
    lowchurn: Progress,
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

/// Writes `run/checkpoint-STEP` and gives its path.
pub fn save(
    run: &Path,
    state: &State,
    provenance: &Provenance,
    tokenizer_from: &Path,
    total: u64,
    epoch: f64,
) -> Result<PathBuf> {
    let partial = run.join(format!(".checkpoint-{}.partial", state.step));
    let path = folder(run, state.step);
    let write = || -> Result<()> {
        remove_if_there(&partial)?;
        fs::create_dir_all(&partial)
            .map_err(|source| Error::Write { path: partial.clone(), source })?;
        let State { model, trained, optimizer, .. } = state;
        let mut hashes = vec![
            (MODEL, save_model(&partial, &model.config, &model.params, tokenizer_from)?),
            (MOMENTS, optimizer.save(&partial.join(MOMENTS), &trained.moved)?),
        ];
        if trained.has_adapters() {
            hashes.push((FACTORS, trained.save_factors(&partial.join(FACTORS))?));
        }
        if let Some(Peer { model, trained, optimizer }) = &state.peer {
            let (weights, moments) = (partial.join(PEER), partial.join(PEER_MOMENTS));
            hashes.push((PEER, write_safetensors(&weights, model.params.tensors(), &[])?));
            hashes.push((PEER_MOMENTS, optimizer.save(&moments, &trained.moved)?));
            if trained.has_adapters() {
                hashes.push((PEER_FACTORS, trained.save_factors(&partial.join(PEER_FACTORS))?));
            }
        }
        if let Some(Projections { params, optimizer }) = &state.projections {
            let (weights, moments) = (partial.join(PROJECTIONS), partial.join(PROJECTION_MOMENTS));
            hashes.push((PROJECTIONS, write_safetensors(&weights, params.tensors(), &[])?));
            hashes.push((PROJECTION_MOMENTS, optimizer.save(&moments, params)?));
        }
        if let Some(control) = &state.control {
            let tensors = to_save(&provenance.plan, control);
            let tensors = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
            hashes.push((CONTROL, write_safetensors(&partial.join(CONTROL), tensors, &[])?));
        }
        write_trainer_state(&partial, state, &provenance.plan, total, epoch)?;
        write_manifest(&partial, state.step, provenance, hashes)?;
        make_room(run, state.step)?;
        fs::rename(&partial, &path).map_err(|source| Error::Write { path: path.clone(), source })
    };
    write().inspect_err(|_| {
        let _ = fs::remove_dir_all(&partial);
    })?;
    files::sync_folder(run);
    Ok(path)
}

pub fn write_trainer_state(
    dir: &Path,
    state: &State,
    plan: &Plan,
    total: u64,
    epoch: f64,
) -> Result<()> {
    let best = state.progress.best.as_ref();
    let rest = json!({
        "epoch": epoch,
        "max_steps": total,
        "num_train_epochs": plan.epochs,
        "train_batch_size": plan.batch_size.rows(),
        "logging_steps": plan.logging_steps,
        "eval_steps": plan.eval_steps,
        "save_steps": plan.save_steps,
        "num_input_tokens_seen": state.progress.n_tokens_seen,
        "best_metric": best.and_then(|best| plan.select_by.of(&best.scores)),
        "best_global_step": best.map(|best| best.step),
        "best_model_checkpoint": best.map(|best| format!("checkpoint-{}", best.step)),
        "log_history": state.progress.log,
        "is_local_process_zero": true,
        "is_world_process_zero": true,
        "is_hyper_param_search": false,
        "trial_name": null,
        "trial_params": null,
        "stateful_callbacks": {},
    });
    let Value::Object(rest) = rest else { unreachable!("a JSON object is written above") };
    let content = TrainerState { global_step: state.step, lowchurn: state.progress.clone(), rest };
    files::write_json(&dir.join(TRAINER_STATE), &content)
}

/// Lists all files of a folder with their hashes, of which those of the large ones are `known`, and writes the manifest, after
/// everything else.
pub fn write_manifest(
    dir: &Path,
    step: u64,
    provenance: &Provenance,
    known: Vec<(&str, String)>,
) -> Result<Manifest> {
    let mut hashes: BTreeMap<String, String> =
        known.into_iter().map(|(name, hash)| (name.to_string(), hash)).collect();
    for name in file_names(dir)?.into_iter().filter(|name| name != MANIFEST) {
        if let Entry::Vacant(place) = hashes.entry(name) {
            let hash = files::sha256(&dir.join(place.key()))?;
            place.insert(hash);
        }
    }
    let manifest = Manifest { format: FORMAT, step, provenance: provenance.clone(), files: hashes };
    files::write_json(&dir.join(MANIFEST), &manifest)?;
    files::sync_folder(dir);
    Ok(manifest)
}

/// The newest checkpoint of this very run, or `None`. Checkpoints of another run in the folder are an error that says
/// what differs.
pub fn find_latest(run: &Path, provenance: &Provenance) -> Result<Option<(PathBuf, Manifest)>> {
    let mut steps: Vec<u64> = entries(run)?.iter().filter_map(|name| step_of(name)).collect();
    steps.sort_unstable();
    while let Some(step) = steps.pop() {
        let path = folder(run, step);
        let Some(manifest) = read_manifest(&path)? else { continue };
        refuse_other_run(&path, &manifest.provenance, provenance)?;
        return Ok(Some((path, manifest)));
    }
    Ok(None)
}

/// Puts a checkpoint's weights, moments and progress into `state`, after checking every file's hash, and those of the
/// best weights so far: better to hear of a loss now than at the end of the run.
///
/// # Errors
/// [`Error::Checkpoint`] of a file that is missing, was changed or doesn't parse, [`Error::Moments`] of the optimizer's,
/// [`Error::Best`] of the best weights; [`Error::Read`]; [`Error::Models`] of tensors that aren't this model's.
pub fn load(
    run: &Path,
    path: &Path,
    manifest: &Manifest,
    plan: &Plan,
    guides: &Guides,
    state: &mut State,
) -> Result<()> {
    check_files(path, manifest, &[MODEL, MOMENTS, TRAINER_STATE])?;
    read_params_into(&state.model.params, &path.join(MODEL))?;
    state.optimizer = load_moments(&path.join(MOMENTS), plan, &state.trained.moved)?;
    load_factors(path, manifest, FACTORS, &state.trained)?;
    if let Some(peer) = &mut state.peer {
        check_files(path, manifest, &[PEER, PEER_MOMENTS])?;
        read_params_into(&peer.model.params, &path.join(PEER))?;
        peer.optimizer = load_moments(&path.join(PEER_MOMENTS), plan, &peer.trained.moved)?;
        load_factors(path, manifest, PEER_FACTORS, &peer.trained)?;
    }
    if let Some(Projections { params, optimizer }) = &mut state.projections {
        check_files(path, manifest, &[PROJECTIONS, PROJECTION_MOMENTS])?;
        read_params_into(params, &path.join(PROJECTIONS))?;
        *optimizer = load_moments(&path.join(PROJECTION_MOMENTS), plan, params)?;
    }
    let file = path.join(TRAINER_STATE);
    let text = fs::read(&file).map_err(|source| Error::Read { path: file.clone(), source })?;
    let saved: TrainerState = serde_json::from_slice(&text)
        .map_err(|error| Error::Checkpoint { path: file, reason: error.to_string() })?;
    state.step = saved.global_step;
    state.progress = saved.lowchurn;
    if state.progress.control_at.is_some() {
        check_files(path, manifest, &[CONTROL])?;
        let device = state.device();
        let tensor = |(name, Stored { shape, values })| {
            Ok((name, Tensor::from_vec::<_, f32>(values, shape, &device)?))
        };
        let saved = read_safetensors(&path.join(CONTROL))?.into_iter().map(tensor);
        state.control = Some(from_saved(plan, guides, saved.collect::<Result<_>>()?, state)?);
    }
    match &state.progress.best {
        Some(best) if best.step != state.step => check_best(run, best.step, &state.trained),
        _ => Ok(()),
    }
}

/// Puts only the best weights into the model.
pub fn load_best(run: &Path, step: u64, state: &State) -> Result<()> {
    check_best(run, step, &state.trained)?;
    let path = folder(run, step);
    read_params_into(&state.model.params, &path.join(MODEL))?;
    match state.trained.has_adapters() {
        true => state.trained.load_factors(&path.join(FACTORS)),
        false => Ok(()),
    }
}

/// An optimizer without state has written none.
fn load_moments(path: &Path, plan: &Plan, params: &Params) -> Result<Optimizer> {
    match plan.optimizer {
        OptimizerName::AdamW => Optimizer::load(path, params),
        OptimizerName::Sgd => Optimizer::of(plan, params),
    }
}

/// Adapters' factors; the matrices that they make are in the model's file.
fn load_factors(path: &Path, manifest: &Manifest, name: &str, trained: &Trained) -> Result<()> {
    if !trained.has_adapters() {
        return Ok(());
    }
    check_files(path, manifest, &[name])?;
    trained.load_factors(&path.join(name))
}

fn check_best(run: &Path, step: u64, trained: &Trained) -> Result<()> {
    let path = folder(run, step);
    let needed: &[&str] = if trained.has_adapters() { &[MODEL, FACTORS] } else { &[MODEL] };
    let check = || match read_manifest(&path)? {
        Some(manifest) => check_files(&path, &manifest, needed),
        None => {
            Err(Error::Checkpoint { path: path.join(MANIFEST), reason: "it is missing".into() })
        }
    };
    check().map_err(|error| match error {
        Error::Checkpoint { path, reason } => Error::Best { path, step, reason },
        error => error,
    })
}

/// Compares every file with the hash in the manifest, which has to list at least the files in `needed`.
pub fn check_files(dir: &Path, manifest: &Manifest, needed: &[&str]) -> Result<()> {
    let refuse =
        |name: &str, reason: String| Err(Error::Checkpoint { path: dir.join(name), reason });
    if let Some(name) = needed.iter().find(|name| !manifest.files.contains_key(**name)) {
        return refuse(name, "the manifest doesn't list it".into());
    }
    for (name, expected) in &manifest.files {
        let is_in_it = Path::new(name).file_name() == Some(name.as_ref());
        if !is_in_it && !ADAPTER_FILES.contains(&name.as_str()) {
            return refuse(MANIFEST, format!("{name:?} is not the name of a file in this folder"));
        }
        let file = dir.join(name);
        if !file.is_file() {
            return refuse(name, "it is missing".into());
        }
        let found = files::sha256(&file)?;
        if found != *expected {
            let reason = format!("its sha256 is {found}, but the manifest says {expected}");
            return refuse(name, reason);
        }
    }
    Ok(())
}

/// The checkpoints that are whole, by their updates.
pub fn checkpoints(run: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for step in entries(run)?.iter().filter_map(|name| step_of(name)) {
        let path = folder(run, step);
        if read_manifest(&path)?.is_some() {
            found.push((step, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Removes all checkpoints but those of the given steps, and what an interrupted save left. Folders without a manifest
/// are somebody else's and stay.
pub fn remove_checkpoints(run: &Path, keep: &[u64]) -> Result<()> {
    for name in entries(run)? {
        if name.starts_with(".checkpoint-") && name.ends_with(".partial") {
            remove_if_there(&run.join(&name))?;
        }
        if step_of(&name).is_some_and(|step| !keep.contains(&step))
            && run.join(&name).join(MANIFEST).exists()
        {
            discard(run, &name)?;
        }
    }
    Ok(())
}

/// Removes a checkpoint: renamed first, so that a kill leaves what the next save sweeps up, not a folder without manifest.
fn discard(run: &Path, name: &str) -> Result<()> {
    let rubbish = run.join(format!(".{name}.old.partial"));
    remove_if_there(&rubbish)?;
    move_over(&run.join(name), &rubbish)?;
    remove_if_there(&rubbish)
}

/// What stands where a checkpoint is to go: an older one of the same step goes, anything else is put aside.
fn make_room(run: &Path, step: u64) -> Result<()> {
    let path = folder(run, step);
    if path.join(MANIFEST).exists() {
        return discard(run, &format!("checkpoint-{step}"));
    }
    if path.exists() {
        return move_over(&path, &run.join(format!("checkpoint-{step}.aside")));
    }
    Ok(())
}

pub fn move_over(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|source| Error::Write { path: to.into(), source })
}

pub fn read_manifest(dir: &Path) -> Result<Option<Manifest>> {
    let path = dir.join(MANIFEST);
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
    let refuse = |reason: String| Error::Checkpoint { path: path.clone(), reason };
    let value: Value = serde_json::from_slice(&text).map_err(|error| refuse(error.to_string()))?;
    let format = value.get("format").unwrap_or(&Value::Null);
    if *format != FORMAT {
        return Err(refuse(format!("format {format}, this program reads {FORMAT}")));
    }
    serde_json::from_value(value).map(Some).map_err(|error| refuse(error.to_string()))
}

fn folder(run: &Path, step: u64) -> PathBuf {
    run.join(format!("checkpoint-{step}"))
}

fn step_of(name: &str) -> Option<u64> {
    let step = name.strip_prefix("checkpoint-")?.parse().ok()?;
    (name == format!("checkpoint-{step}")).then_some(step) // not "+4", not "04"
}

fn entries(dir: &Path) -> Result<Vec<String>> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let read = || -> std::io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    };
    read().map_err(|source| Error::Read { path: dir.into(), source })
}

fn file_names(dir: &Path) -> Result<Vec<String>> {
    Ok(entries(dir)?.into_iter().filter(|name| dir.join(name).is_file()).collect())
}

pub fn remove_if_there(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Write { path: dir.into(), source: error })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Best, Sums};
    use crate::{LogEntry, Scores};
    use proptest::prelude::*;

    fn progress(x: &[f64], n: u64, f1: Option<f64>) -> Progress {
        let scores = Scores { rows: n, loss: x[0], accuracy: Some(x[1]), f1, ..Scores::default() };
        let (epoch, loss, accuracy, grad_norm, learning_rate) = (x[2], x[3], x[4], x[5], x[0]);
        let eval = (x[1], x[2]);
        Progress {
            n_tokens_seen: n,
            since_log: Sums {
                loss_sum: x[5],
                n_correct: n / 2,
                n_rows: n,
                n_agreed: n / 3,
                n_unlabelled: n / 4,
            },
            best: Some(Best { step: n, value: x[4], scores, thresholds: Some(vec![x[2]]) }),
            n_evals_without_gain: 3,
            is_stopped_early: false,
            multiplier: x[2],
            log_weights: vec![x[3], x[4]],
            control_at: Some(n / 5),
            log: vec![
                LogEntry::Train {
                    step: n,
                    epoch,
                    loss,
                    accuracy: Some(accuracy),
                    grad_norm,
                    learning_rate,
                    lambda: Some(x[1]),
                    agreement: None,
                },
                LogEntry::Eval {
                    step: n,
                    epoch,
                    eval_loss: eval.0,
                    eval_accuracy: Some(eval.1),
                    eval_f1: f1,
                    eval_matthews: None,
                    eval_macro_f1: f1,
                    eval_pearson: f1,
                    eval_spearman: None,
                    eval_worst_class: f1,
                    eval_worst_group: f1,
                },
            ],
        }
    }

    proptest! {
        /// Every finite number comes back with its bits; the text is written again and compared, so that −0 is not 0.
        #[test]
        fn progress_survives_the_file(
            x in prop::collection::vec(prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO, 6),
            n: u64,
            f1 in prop::option::of(0.0..=1.0f64),
        ) {
            let lowchurn = progress(&x, n, f1);
            let rest = serde_json::Map::from_iter([("epoch".to_string(), json!(x[0]))]);
            let state = TrainerState { global_step: n, lowchurn: lowchurn.clone(), rest };
            let text = serde_json::to_string_pretty(&state).unwrap();
            let back: TrainerState = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&back.lowchurn, &lowchurn);
            prop_assert_eq!(serde_json::to_string_pretty(&back).unwrap(), text);
        }

        #[test]
        fn no_manifest_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(MANIFEST), bytes).unwrap();
            let is_refused = matches!(read_manifest(dir.path()), Err(Error::Checkpoint { .. }));
            prop_assert!(is_refused);
        }
    }

    #[test]
    fn names_of_checkpoints() {
        let check = |name: &str, step: Option<u64>| assert_eq!(step_of(name), step, "{name}");
        check("checkpoint-0", Some(0));
        check("checkpoint-18446744073709551615", Some(u64::MAX));
        for name in [
            "checkpoint-",
            "checkpoint-+4",
            "checkpoint-04",
            "checkpoint-4.aside",
            "checkpoint-18446744073709551616",
        ] {
            check(name, None);
        }
    }
}
