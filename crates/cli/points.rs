//! The folders of a sweep's points.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lowchurn_churn::{Flips, Predicted, RunPoint};
use lowchurn_data::{PredictionRow, write_row};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::Usage;

/// What a point's folder says of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointFile {
    pub point: RunPoint,
    pub flips: Flips,
    /// What it depends on: plan, start, hashes of the deployed model, training and held-out rows.
    pub made_from: Value,
    pub train_seconds: f64,
}

pub fn read_point(dir: &Path) -> Result<Option<PointFile>> {
    let path = dir.join("point.json");
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read(&path).with_context(|| path.display().to_string())?;
    let bad = |error| {
        Usage(format!("{}: {error}; remove this folder to compute it again", path.display()))
    };
    Ok(Some(serde_json::from_slice(&text).map_err(bad)?))
}

/// Every point below the given sweeps' folders; the same point in two of them with other results is an error, and so are
/// points whose numbers can't be held against each other.
pub fn read_points(folders: &[PathBuf]) -> Result<Vec<(PathBuf, PointFile)>> {
    let mut all: BTreeMap<(String, String, String, u64), (PathBuf, PointFile)> = BTreeMap::new();
    for folder in folders {
        let mut dirs = Vec::new();
        for setting in entries(&folder.join("points"))? {
            dirs.extend(entries(&setting)?);
        }
        for dir in dirs {
            let Some(file) = read_point(&dir)? else { continue };
            let p = &file.point;
            let key = (p.method.clone(), p.init.clone(), p.setting.clone(), p.seed);
            let other = |there: &PointFile| {
                there.flips != file.flips || !is_same(&there.made_from, &file.made_from)
            };
            if let Some((first, there)) = all.get(&key)
                && other(there)
            {
                let (first, dir) = (first.display(), dir.display());
                return Err(Usage(format!(
                    "{first} and {dir} are the same point with other results; merge one of them"
                ))
                .into());
            }
            all.insert(key, (dir, file));
        }
    }
    let all: Vec<(PathBuf, PointFile)> = all.into_values().collect();
    let places = all.iter().map(|(dir, file)| (dir.display().to_string(), file));
    let shared: Vec<Shared> = places
        .map(|(place, file)| Shared { place, seed: file.point.seed, made_from: &file.made_from })
        .collect();
    refuse_mixed(&shared)?;
    Ok(all)
}

/// Whether two points were made from the same. An older program named the encoder of a cold start and didn't hash it.
pub fn is_same(a: &Value, b: &Value) -> bool {
    const HASH: &str = "encoder_sha256";
    let is_hashed = a.get(HASH).is_some() && b.get(HASH).is_some();
    let left_out = if is_hashed { "encoder" } else { HASH };
    let compared = |all: &Value| {
        let mut all = all.clone();
        if let Value::Object(all) = &mut all {
            all.remove(left_out);
        }
        all
    };
    compared(a) == compared(b)
}

/// What must agree between points for their numbers to be held against each other.
struct Shared<'p> {
    place: String,
    seed: u64,
    made_from: &'p Value,
}

/// Refuses to go on in a folder with points of other rows, or of another deployed model for this seed.
pub fn refuse_other_rows(folder: &Path, now: &Value, seed: u64) -> Result<()> {
    let there = read_points(&[folder.to_path_buf()])?;
    let here = Shared { place: "this sweep".into(), seed, made_from: now };
    let others = there.iter().map(|(dir, file)| Shared {
        place: dir.display().to_string(),
        seed: file.point.seed,
        made_from: &file.made_from,
    });
    refuse_mixed(&others.chain([here]).collect::<Vec<Shared>>())
}

fn refuse_mixed(all: &[Shared]) -> Result<()> {
    let Some(first) = all.first() else { return Ok(()) };
    let mut of_seeds: BTreeMap<u64, &Shared> = BTreeMap::new();
    for one in all {
        let same_seed = of_seeds.entry(one.seed).or_insert(one);
        let held = [
            (first, "train_sha256", "training rows"),
            (first, "holdout_sha256", "held-out rows"),
            (same_seed, "old_sha256", "deployed models of one seed"),
            (first, "precision", "precisions"),
            (first, "old_max_length", "lengths of the deployed model's texts"),
        ];
        for (other, key, what) in held {
            let unsaid = if key == "precision" { "f32" } else { "none" };
            let [a, b] =
                [other, one].map(|shared| shared.made_from[key].as_str().unwrap_or(unsaid));
            if a != b {
                let (first, second) = (&other.place, &one.place);
                let [a, b] = [a, b].map(|hash| hash.get(..12).unwrap_or(hash));
                return Err(Usage(format!(
                    "{first} and {second} have other {what} ({a}, {b}), so that their numbers can't be held against each \
                     other; choose another --output, or leave out or remove one of them"
                ))
                .into());
            }
        }
    }
    Ok(())
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    for entry in fs::read_dir(dir)? {
        all.push(entry?.path());
    }
    all.sort();
    Ok(all)
}

/// A line a row, as `predict` writes them.
pub fn write_predictions(new: &Predicted, out: &mut dyn std::io::Write) -> Result<()> {
    let classes = new.labels.len();
    let name = |label: u32| new.labels.get(label as usize).cloned().unwrap_or_default();
    for (row, id) in new.ids.iter().enumerate() {
        let scores = new.scores.as_ref().map_or(&[][..], |all| &all[row * classes..][..classes]);
        let row = PredictionRow {
            id: id.clone(),
            label: name(new.predicted[row]),
            gold: new.gold[row].map(name),
            scores: new.labels.iter().cloned().zip(scores.iter().copied()).collect(),
            logits: None,
        };
        write_row(out, &row)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn write(folder: &Path, setting: &str, seed: u64, made_from: Value) {
        let dir = folder.join("points").join(setting).join(format!("seed-{seed}"));
        fs::create_dir_all(&dir).unwrap();
        let point = RunPoint {
            method: setting.into(),
            init: String::new(),
            setting: String::new(),
            seed,
            accuracy: 0.9,
            churn: 0.1,
            ..RunPoint::default()
        };
        let file = PointFile { point, flips: Flips::default(), made_from, train_seconds: 1.0 };
        fs::write(dir.join("point.json"), serde_json::to_vec(&file).unwrap()).unwrap();
    }

    fn made(train: &str, holdout: &str, old: &str) -> Value {
        json!({ "train_sha256": train, "holdout_sha256": holdout, "old_sha256": old })
    }

    #[test]
    fn points_of_other_rows_or_models_are_not_mixed() {
        let check = |other: (u64, Value), expected: Option<&str>| {
            let dir = tempfile::tempdir().unwrap();
            let (a, b) = (dir.path().join("a"), dir.path().join("b"));
            write(&a, "retrain", 1, made("t", "h", "o1"));
            write(&a, "retrain", 2, made("t", "h", "o2"));
            write(&b, "shrink-perturb", other.0, other.1.clone());
            let found = read_points(&[a.clone(), b]).map(|points| points.len());
            let now = refuse_other_rows(&a, &other.1, other.0);
            let place = |text: String| text.replace(&dir.path().display().to_string(), "DIR");
            let Some(expected) = expected else {
                assert_eq!(found.unwrap(), 3);
                return now.unwrap();
            };
            let rest = "so that their numbers can't be held against each other; choose another --output, or leave out or \
                        remove one of them";
            let found = place(found.unwrap_err().to_string());
            assert!(found.ends_with(&format!(" have other {expected}, {rest}")), "{found}");
            assert!(found.contains("DIR/a/points/retrain/seed-"), "{found}");
            assert!(
                found.contains(&format!("DIR/b/points/shrink-perturb/seed-{}", other.0)),
                "{found}"
            );
            let now = place(now.unwrap_err().to_string());
            assert!(now.contains(" and this sweep have other "), "{now}");
        };
        check((1, made("t", "h", "o1")), None);
        check((3, made("t", "h", "o3")), None);
        check((3, made("x", "h", "o3")), Some("training rows (t, x)"));
        check((3, made("t", "x", "o3")), Some("held-out rows (h, x)"));
        check((2, made("t", "h", "o1")), Some("deployed models of one seed (o2, o1)"));
    }

    #[test]
    fn an_encoder_is_compared_by_its_hash_where_both_have_one() {
        let check = |a: Value, b: Value, expected: bool| {
            assert_eq!((is_same(&a, &b), is_same(&b, &a)), (expected, expected), "{a} {b}");
        };
        let hashed = |name: &str, hash: &str| json!({ "encoder": name, "encoder_sha256": hash });
        check(hashed("tiny", "1"), hashed("models/tiny", "1"), true);
        check(hashed("tiny", "1"), hashed("tiny", "2"), false);
        check(json!({ "encoder": "tiny" }), hashed("tiny", "1"), true);
        check(json!({ "encoder": "small" }), hashed("tiny", "1"), false);
        check(json!({}), json!({ "encoder_sha256": "1" }), true);
        check(json!({ "plan": 1 }), json!({ "plan": 2 }), false);
    }
}
