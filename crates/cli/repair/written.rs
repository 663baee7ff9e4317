//! The folder of a repaired model: an ordinary checkpoint with a report, the whole curve and a manifest of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lowchurn_churn::{Asked, Certificate, Side, compare};
use lowchurn_distill::{distance, sha256_of_file, sha256_of_model, write_file, write_json};
use lowchurn_models::{TOKENIZER_FILES, save};
use serde_json::{Value, json};

use super::curve::{Holdout, Tried, pair};
use super::models::{By, Models, Weights, between};
use crate::args::Repair;
use crate::chosen::{self, Chosen};
use crate::console::Console;
use crate::earlier::{self, Record};
use crate::failure::Usage;
use crate::reporting::{self, Told};
use crate::rows::settings_of;
use crate::settings::{self, Settings};

/// The exit code of the same repair where it is in the folder already; another one there is an error, and one that was
/// interrupted while it was written begins anew.
pub fn already_done(output: &Path, made_from: &Value, console: &mut Console) -> Result<Option<u8>> {
    let path = output.join("manifest.json");
    if !path.exists() {
        if output.join("config.json").exists() && begun(output).as_ref() != Some(made_from) {
            return Err(other_model(output, "a model without a manifest"));
        }
        return Ok(None);
    }
    let text = fs::read(&path).with_context(|| path.display().to_string())?;
    let there: Value = serde_json::from_slice(&text).unwrap_or_default();
    let Some(found) = there.get("repair").and_then(|repair| repair.get("made_from")) else {
        return Err(other_model(output, "a model that no repair made"));
    };
    let (Value::Object(found), Value::Object(expected)) = (found, made_from) else {
        return Err(other_model(output, "a model that no repair made"));
    };
    let differs =
        |key: &&String| *key != "lowchurn_version" && found.get(*key) != expected.get(*key);
    if let Some(key) = expected.keys().find(differs) {
        return Err(other_model(output, &format!("a repair with another {key}")));
    }
    console.tell(&format!("{} is finished; --fresh starts over", output.display()))?;
    let code = there["repair"]["exit_code"].as_u64().and_then(|code| u8::try_from(code).ok());
    Ok(Some(code.unwrap_or(0)))
}

/// What the repair was made from whose curve lies here: it is written before the model.
fn begun(output: &Path) -> Option<Value> {
    let text = fs::read(output.join("curve.json")).ok()?;
    let mut curve: Value = serde_json::from_slice(&text).ok()?;
    Some(curve["made_from"].take())
}

pub fn other_model(output: &Path, what: &str) -> anyhow::Error {
    let output = output.display();
    Usage(format!("{output} holds {what}; choose another --output, or --fresh to start over here"))
        .into()
}

/// The model as it was written.
pub struct Written {
    pub folder: PathBuf,
    /// Its files.
    pub names: Vec<String>,
    /// √Σ (θ_old − θ)² over what both have.
    pub distance: f64,
}

/// Weights, config, tokenizer and `run.toml`.
pub fn write_model(
    models: &Models,
    weights: &Weights,
    chosen: &Tried,
    holdout: &Holdout,
    is_certified: bool,
    output: &Path,
) -> Result<Written> {
    let model = between(weights, chosen.alpha, chosen.by)?;
    let params = match &chosen.rescaling {
        Some(rescaling) => rescaling.fold(&model.params)?,
        None => model.params,
    };
    let new = &models.new[0];
    save(output, &model.config, &params, &new.folder)?;
    // What the next update reads: the rows, the length and the recipe of the model that this one is made of.
    write_file(&output.join("run.toml"), &run_of(models)?)?;
    let folders: Vec<&Path> = models.new.iter().map(|new| new.folder.as_path()).collect();
    // Without a budget the rows that measure choose too.
    let chose = |row: usize| {
        let row = row as u32;
        !is_certified && holdout.measuring.contains(&row) || holdout.calibration.contains(&row)
    };
    Chosen::new("the share of the old weights", &holdout.split.examples, chose)
        .with(&folders)?
        .write(output)?;
    let names = model_files(output)?;
    let distance = distance(&weights.old.params, &params)?;
    Ok(Written { folder: output.into(), names, distance })
}

/// The first new model's, with what the others that are mixed in have learnt besides.
fn run_of(models: &Models) -> Result<Vec<u8>> {
    let new = &models.new[0];
    let run = new.folder.join("run.toml");
    if !run.is_file() {
        let max_length = Some(new.max_length);
        let plain = Settings { max_length, ..Settings::default() };
        return Ok(settings::to_toml(&plain)?.into_bytes());
    }
    let mut learnt = Record::default();
    for other in models.new[1..].iter().chain([&models.old]) {
        if !earlier::names_all_of(&new.folder, &other.folder)? {
            let others = earlier::learnt_by(&other.folder)?;
            learnt.seen.extend(others.seen);
            learnt.unrecorded.extend(others.unrecorded);
        }
    }
    if learnt == Record::default() {
        return fs::read(&run).with_context(|| run.display().to_string());
    }
    let mut own = settings_of(&new.folder)?;
    learnt.seen.splice(..0, own.seen.take().unwrap_or_default());
    learnt.unrecorded.splice(..0, own.unrecorded.take().unwrap_or_default());
    learnt.behind(&mut own);
    Ok(settings::to_toml(&own)?.into_bytes())
}

/// The names of a model's files in a folder, ascending: those that its manifest lists.
pub fn model_files(output: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(output)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let is_models = name.ends_with(".safetensors")
            || name.ends_with(".json")
                && !["curve.json", "report.json", chosen::FILE].contains(&name.as_str())
            || name == "run.toml"
            || TOKENIZER_FILES.contains(&name.as_str());
        if is_models {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

pub fn write_report(
    args: &Repair,
    models: &Models,
    holdout: &Holdout,
    chosen: &Tried,
    certificate: Option<Certificate>,
    made_from: &Value,
    written: &Written,
) -> Result<()> {
    let output = &written.folder;
    let pair = pair(models, holdout, &chosen.logits)?.subset(&holdout.measuring);
    let of_row = |row: &u32| reporting::both_texts(&holdout.split.examples[*row as usize]);
    let texts: Vec<String> = holdout.measuring.iter().map(of_row).collect();
    let asked =
        Asked { confidence: args.budget.confidence(), texts: Some(&texts), ..Asked::default() };
    let comparison = compare(&pair, &asked)?;
    let old = &models.old;
    let side = |name: &str, sha256: Option<String>, labels: &[String]| Side {
        name: name.into(),
        sha256,
        labels: labels.to_vec(),
    };
    let provenance = match made_from {
        Value::Object(all) => all.iter().map(|(key, value)| (key.clone(), value.to_string())),
        _ => return Err(anyhow::anyhow!("the repair's record is no object")),
    };
    let mut pair = pair;
    pair.alignment.extend(holdout.alignment.iter().cloned());
    let report = reporting::report(Told {
        title: format!("{} repaired towards {}", args.new.join(" + "), old.name),
        old: side(&old.name, Some(old.sha256.clone()), &old.labels),
        new: side(
            &output.display().to_string(),
            Some(sha256_of_model(output)?),
            &models.new[0].labels,
        ),
        data: &holdout.split.name,
        data_sha256: Some(holdout.split.sha256.clone()),
        pair: &pair,
        texts: Some(&texts),
        comparison,
        rows_chose: certificate.is_none().then(|| "the share of the old weights".into()),
        certificate,
        nearest: BTreeMap::new(),
        frontier: Vec::new(),
        provenance: provenance
            .chain([
                ("chosen".to_string(), chosen.name()),
                ("distance to the old weights".into(), format!("{:.4}", written.distance)),
            ])
            .collect(),
    });
    reporting::write(&report, output)
}

/// Last of all: a folder with it is whole. Not the manifest of a training, so that no training goes on here.
pub fn write_manifest(
    written: &Written,
    chosen: &Tried,
    made_from: &Value,
    exit_code: u8,
) -> Result<()> {
    let mut files = BTreeMap::new();
    for name in &written.names {
        files.insert(name, sha256_of_file(&written.folder.join(name))?);
    }
    let manifest = json!({
        "format": 1,
        "repair": {
            "made_from": made_from, "chosen": chosen.name(), "alpha": chosen.alpha,
            "is_fisher": chosen.by == By::Fisher,
            "temperature": chosen.rescaling.as_ref().map(|found| found.temperature),
            "bias": chosen.rescaling.as_ref().map(|found| found.bias.clone()),
            "exit_code": exit_code,
        },
        "files": files,
    });
    Ok(write_json(&written.folder.join("manifest.json"), &manifest)?)
}
