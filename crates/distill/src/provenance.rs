//! What a run used, and whether another run used the same: the same folder is gone on with by the same run alone.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, Plan, Result};

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
