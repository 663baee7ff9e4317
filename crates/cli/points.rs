//! The folders of a sweep's points.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lowchurn_churn::{Flips, Predicted, RunPoint};
use lowchurn_data::{PredictionRow, write_row};
use serde::{Deserialize, Serialize};

use crate::failure::Usage;

/// What a point's folder says of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointFile {
    pub point: RunPoint,
    pub flips: Flips,
    /// What it depends on: plan, start, hashes of the deployed model, training and held-out rows.
    pub made_from: serde_json::Value,
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

/// Every point below the given sweeps' folders; the same point in two of them is an error.
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
            let other =
                |there: &PointFile| there.flips != file.flips || there.made_from != file.made_from;
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
    Ok(all.into_values().collect())
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
