//! What a run used, and whether another run used the same: the same folder is gone on with by the same run alone.

use std::path::{Path, PathBuf};

use candle_core::Device;
use lowchurn_data::Split;
use lowchurn_models::{TOKENIZER_FILES, has_weights, weight_files};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, Plan, Result, files};

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
    /// How many of the training rows come first as old ones, where that decides something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_rows: Option<usize>,
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

impl Provenance {
    /// Of a run that starts from the folder `base` and has neither a teacher nor an old model; those are set on it.
    ///
    /// # Errors
    /// Those of [`sha256_of_model`].
    pub fn of(
        plan: Plan,
        base: &Path,
        train: &Split,
        eval: Option<&Split>,
        device: &Device,
    ) -> Result<Provenance> {
        Ok(Provenance {
            plan,
            base: base.display().to_string(),
            base_sha256: sha256_of_model(base)?,
            train: train.name.clone(),
            train_sha256: train.sha256.clone(),
            eval: eval.map_or_else(|| "none".into(), |eval| eval.name.clone()),
            eval_sha256: eval.map_or_else(String::new, |eval| eval.sha256.clone()),
            old: None,
            teacher: None,
            old_rows: None,
            share_of_old: None,
            buffer: None,
            labels: train.labels.names().to_vec(),
            device: device_kind(device).into(),
            lowchurn_version: env!("CARGO_PKG_VERSION").into(),
        })
    }
}

/// "cpu", "cuda" or "metal".
pub fn device_kind(device: &Device) -> &'static str {
    match device {
        Device::Cpu => "cpu",
        Device::Cuda(_) => "cuda",
        Device::Metal(_) => "metal",
    }
}

/// SHA-256 in hex over all that a model's folder contributes: config, tokenizer and weights. What else lies beside them, such as
/// tables, is nothing of the model's. A folder to be trained from scratch has no weights.
///
/// # Errors
/// Those of [`weight_files`]; [`Error::Read`].
pub fn sha256_of_model(folder: &Path) -> Result<String> {
    let small = std::iter::once("config.json").chain(TOKENIZER_FILES);
    let mut names: Vec<String> =
        small.filter(|name| folder.join(name).is_file()).map(String::from).collect();
    if has_weights(folder) {
        names.extend(weight_files(folder)?);
    }
    names.sort();
    let paths: Vec<PathBuf> = names.iter().map(|name| folder.join(name)).collect();
    files::sha256_of_files(&paths)
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
    if found.old_rows != expected.old_rows {
        let show = |n: Option<usize>| n.map_or("not set".into(), |n| n.to_string());
        return other("number of old rows", show(found.old_rows), show(expected.old_rows));
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
