//! State ↔ folder. A checkpoint is written as a whole beside its place, its manifest last, and renamed: a folder without a
//! manifest is not a checkpoint, and a run that is killed at any moment finds the one before.

use std::collections::{BTreeMap, btree_map::Entry};
use std::fs;
use std::path::{Path, PathBuf};

use lowchurn_models::{read_params_into, save as save_model, write_safetensors};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::state::{Peer, Progress};
use crate::{Error, Optimizer, Plan, Result, State, files};

pub const MANIFEST: &str = "manifest.json";
pub const MODEL: &str = "model.safetensors";
const MOMENTS: &str = "optimizer.safetensors";
const PEER: &str = "peer.safetensors";
const PEER_MOMENTS: &str = "peer_optimizer.safetensors";
const TRAINER_STATE: &str = "trainer_state.json";
const FORMAT: u32 = 1;

/// What a run used: with the code, all that its weights depend on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    pub plan: Plan,
    /// Base checkpoint as the user named it, and the hash of its weights, config and tokenizer.
    pub base: String,
    pub base_sha256: String,
    pub train: String,
    pub train_sha256: String,
    pub eval: String,
    pub eval_sha256: String,
    /// The deployed model that this run updates: its name and the hash of its weights, config and tokenizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<(String, String)>,
    /// Names of the teachers and the hash over their tables' fingerprints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<(String, String)>,
    /// The weights are share·old + (1 − share)·trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_of_old: Option<f64>,
    /// Held-out rows that steer the run, and their hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buffer: Option<(String, String)>,
    pub labels: Vec<String>,
    /// "cpu", "cuda" or "metal": bytes are the same only on the same kind.
    pub device: String,
    /// Not compared: a newer program may go on where an older one stopped.
    pub lowchurn_version: String,
}

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
        let (model, optimizer) = (&state.model, &state.optimizer);
        let mut hashes = vec![
            (MODEL, save_model(&partial, &model.config, &model.params, tokenizer_from)?),
            (MOMENTS, optimizer.save(&partial.join(MOMENTS), &model.params)?),
        ];
        if let Some(Peer { model, optimizer }) = &state.peer {
            let (weights, moments) = (partial.join(PEER), partial.join(PEER_MOMENTS));
            hashes.push((PEER, write_safetensors(&weights, model.params.tensors(), &[])?));
            hashes.push((PEER_MOMENTS, optimizer.save(&moments, &model.params)?));
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
        "train_batch_size": plan.batch_size,
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
) -> Result<()> {
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
    Ok(())
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
pub fn load(run: &Path, path: &Path, manifest: &Manifest, state: &mut State) -> Result<()> {
    check_files(path, manifest, &[MODEL, MOMENTS, TRAINER_STATE])?;
    read_params_into(&state.model.params, &path.join(MODEL))?;
    state.optimizer = Optimizer::load(&path.join(MOMENTS), &state.model.params)?;
    if let Some(peer) = &mut state.peer {
        check_files(path, manifest, &[PEER, PEER_MOMENTS])?;
        read_params_into(&peer.model.params, &path.join(PEER))?;
        peer.optimizer = Optimizer::load(&path.join(PEER_MOMENTS), &peer.model.params)?;
    }
    let file = path.join(TRAINER_STATE);
    let text = fs::read(&file).map_err(|source| Error::Read { path: file.clone(), source })?;
    let saved: TrainerState = serde_json::from_slice(&text)
        .map_err(|error| Error::Checkpoint { path: file, reason: error.to_string() })?;
    state.step = saved.global_step;
    state.progress = saved.lowchurn;
    match &state.progress.best {
        Some(best) if best.step != state.step => check_best(run, best.step),
        _ => Ok(()),
    }
}

/// Puts only the best weights into the model.
pub fn load_best(run: &Path, step: u64, state: &State) -> Result<()> {
    check_best(run, step)?;
    Ok(read_params_into(&state.model.params, &folder(run, step).join(MODEL))?)
}

fn check_best(run: &Path, step: u64) -> Result<()> {
    let path = folder(run, step);
    let check = || match read_manifest(&path)? {
        Some(manifest) => check_files(&path, &manifest, &[MODEL]),
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
        if Path::new(name).file_name() != Some(name.as_ref()) {
            return refuse(MANIFEST, format!("{name:?} is not the name of a file in this folder"));
        }
        let file = dir.join(name);
        if !file.is_file() {
            return refuse(name, "it is missing".into());
        }
        let found = files::sha256(&file)?;
        if found != *expected {
            return refuse(
                name,
                format!("its sha256 is {found}, but the manifest says {expected}"),
            );
        }
    }
    Ok(())
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

/// An error that names the first thing that differs.
pub fn refuse_other_run(path: &Path, found: &Provenance, expected: &Provenance) -> Result<()> {
    let other = |what: &str, found: String, expected: String| {
        let what = what.to_string();
        Err(Error::OtherRun { path: path.into(), what, found, expected })
    };
    let (old, new) = (settings(&found.plan), settings(&expected.plan));
    let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for key in keys {
        if old.get(key) != new.get(key) {
            let show = |value: Option<&Value>| value.map_or("not set".into(), Value::to_string);
            return other(key, show(old.get(key)), show(new.get(key)));
        }
    }
    let pairs = [
        ("base checkpoint", &found.base_sha256, &expected.base_sha256, &found.base, &expected.base),
        (
            "training data",
            &found.train_sha256,
            &expected.train_sha256,
            &found.train,
            &expected.train,
        ),
        ("evaluation data", &found.eval_sha256, &expected.eval_sha256, &found.eval, &expected.eval),
        ("device", &found.device, &expected.device, &found.device, &expected.device),
    ];
    let none = (String::from("none"), String::new());
    let guides = [
        ("old model", &found.old, &expected.old),
        ("teacher", &found.teacher, &expected.teacher),
        ("held-out rows", &found.buffer, &expected.buffer),
    ];
    let guides = guides.map(|(what, old, new)| {
        let ((old_name, old_hash), (new_name, new_hash)) =
            (old.as_ref().unwrap_or(&none), new.as_ref().unwrap_or(&none));
        (what, old_hash, new_hash, old_name, new_name)
    });
    for (what, old_hash, new_hash, old_name, new_name) in pairs.into_iter().chain(guides) {
        if old_hash != new_hash {
            let name = |name: &str, hash: &str| match what {
                "device" => name.to_string(),
                _ => format!("{name} ({})", hash.get(..12).unwrap_or(hash)),
            };
            return other(what, name(old_name, old_hash), name(new_name, new_hash));
        }
    }
    if found.labels != expected.labels {
        return other("label set", found.labels.join(", "), expected.labels.join(", "));
    }
    Ok(())
}

fn settings(plan: &Plan) -> serde_json::Map<String, Value> {
    match serde_json::to_value(plan) {
        Ok(Value::Object(mut settings)) => {
            // Plans leave it out where it is f32, and a message that compares two needs both.
            settings.entry("precision").or_insert_with(|| "f32".into());
            settings
        }
        _ => serde_json::Map::new(),
    }
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
        let scores = Scores { rows: n, loss: x[0], accuracy: x[1], f1, matthews: None };
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
            best: Some(Best { step: n, value: x[4], scores }),
            n_evals_without_gain: 3,
            is_stopped_early: false,
            multiplier: x[2],
            log: vec![
                LogEntry::Train {
                    step: n,
                    epoch,
                    loss,
                    accuracy,
                    grad_norm,
                    learning_rate,
                    lambda: Some(x[1]),
                    agreement: None,
                },
                LogEntry::Eval {
                    step: n,
                    epoch,
                    eval_loss: eval.0,
                    eval_accuracy: eval.1,
                    eval_f1: f1,
                    eval_matthews: None,
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
