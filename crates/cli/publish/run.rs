//! A finished run's folder → what a release says of it. Believes the folder only as far as its manifest's hashes go.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use lowchurn_churn::{Certificate, Report};
use lowchurn_distill::{Scores, sha256_of_file, sha256_of_model, sha256_of_text};
use serde_json::Value;

use crate::args::Publish;
use crate::failure::Usage;
use crate::found::{Found, describe};
use crate::publish::stage::RESULTS;
use crate::rows::settings_of;
use crate::settings::Settings;
use crate::{gate, output};

/// What lies in the folder.
pub struct Run {
    pub folder: PathBuf,
    pub model: Found,
    pub config: serde_json::Map<String, Value>,
    /// What `run.toml` says.
    pub settings: Settings,
    pub manifest: Value,
    /// Files that the manifest lists, with their SHA-256.
    pub files: BTreeMap<String, String>,
    /// On the run's evaluation rows.
    pub scores: Option<Scores>,
    pub report: Option<Report>,
    pub gate: Gate,
}

/// What the gate says of a release.
#[derive(Clone, Debug, PartialEq)]
pub enum Gate {
    /// There is no earlier model that it was compared with.
    First,
    /// There is, and no limit was ever given.
    NotJudged,
    Judged(Box<Certificate>),
}

/// # Errors
/// A folder without a finished run, a file that isn't what the run wrote, a report of another model.
pub fn read(args: &Publish) -> Result<Run> {
    let folder = &args.run;
    let shown = folder.display();
    let path = folder.join("manifest.json");
    if !path.is_file() {
        return Err(Usage(format!(
            "{shown} holds no finished run: there is no manifest.json in it; publish the folder that finetune, update, distil, \
             repair or post-shift says it wrote"
        ))
        .into());
    }
    let manifest: Value = read_json(&path)?;
    let files = listed(&manifest, &path)?;
    for (name, expected) in &files {
        let place = folder.join(name);
        let found = sha256_of_file(&place)?;
        if found != *expected {
            return Err(anyhow::anyhow!(
                "{}: it isn't what the run wrote there (sha256 {expected} then, {found} now); run it again, or put the file back",
                place.display()
            ));
        }
    }
    let model = describe(&shown.to_string(), folder.clone())?;
    let config = read_json(&folder.join("config.json"))?;
    let results = folder.join(RESULTS);
    let scores = match results.is_file() {
        true => read_json::<Value>(&results)?.get("scores").cloned(),
        false => None,
    };
    let scores = scores.and_then(|scores| serde_json::from_value(scores).ok());
    let path = args.report.clone().unwrap_or_else(|| folder.join("report.json"));
    let report = match args.report.is_some() || path.is_file() {
        true => {
            output::refuse_missing(&path)?;
            Some(Report::read(&path)?)
        }
        false => None,
    };
    let settings = settings_of(folder)?;
    let gate = match &report {
        None if args.budget.is_set() => {
            return Err(Usage(format!(
                "{shown}: there is no report.json to hold limits against; compare it with the deployed model first, and name that \
                 report with --report"
            ))
            .into());
        }
        None => match (earlier(&manifest, &settings), args.force) {
            (None, _) => Gate::First,
            (Some(_), true) => Gate::NotJudged,
            // An update's model is there before its report is, and a report can be deleted.
            (Some(old), false) => {
                return Err(Usage(format!(
                    "{shown}: it was made from {old}, and there is no report.json that says how close to it it is; run the command that \
                     made it again, or compare it with the deployed model and name that report with --report; --force publishes it all \
                     the same"
                ))
                .into());
            }
        },
        Some(report) => {
            refuse_other_model(report, &model, &path)?;
            match report.certificate.is_some() || args.budget.is_set() {
                true => Gate::Judged(Box::new(gate::judged(&args.budget, report, &path)?)),
                false => Gate::NotJudged,
            }
        }
    };
    let folder = folder.clone();
    Ok(Run { folder, model, config, settings, manifest, files, scores, report, gate })
}

/// The deployed model that the run is to take the place of, where its records name one.
fn earlier(manifest: &Value, settings: &Settings) -> Option<String> {
    let of_repair = &manifest["repair"]["made_from"]["old"]["name"];
    let of_shift = &manifest["post_shift"]["made_from"]["model"]["name"];
    let of_old = &manifest["provenance"]["old"][0];
    let recorded = [of_repair, of_shift, of_old].into_iter().find_map(|name| name.as_str());
    recorded.map(str::to_string).or(settings.base.clone())
}

fn refuse_other_model(report: &Report, model: &Found, path: &Path) -> Result<()> {
    match &report.new.sha256 {
        Some(found) if *found != model.sha256 => Err(anyhow::anyhow!(
            "{}: it is of another model: {} (sha256 {found}), and {} has {}; compare this one with the deployed model, and name \
             that report with --report",
            path.display(),
            report.new.name,
            model.name,
            sha256_of_model(&model.folder)?,
        )),
        _ => Ok(()),
    }
}

pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    serde_json::from_slice(&bytes).with_context(|| path.display().to_string())
}

/// The manifest's files. A name that would leave the folder is refused: what it leads to would be published.
fn listed(manifest: &Value, path: &Path) -> Result<BTreeMap<String, String>> {
    let files = manifest.get("files").cloned().unwrap_or_default();
    let files: BTreeMap<String, String> =
        serde_json::from_value(files).with_context(|| format!("{}: files", path.display()))?;
    let stays = |name: &String| {
        let mut parts = Path::new(name).components();
        !name.is_empty() && parts.all(|part| matches!(part, Component::Normal(_)))
    };
    match files.keys().find(|name| !stays(name)) {
        Some(name) => {
            Err(anyhow::anyhow!("{}: the name {name:?} leaves the folder", path.display()))
        }
        None if files.contains_key("model.safetensors") => Ok(files),
        None => Err(Usage(format!(
            "{}: it lists no model.safetensors, so there is nothing to publish",
            path.display()
        ))
        .into()),
    }
}

impl Run {
    /// Names of the models that it was made from, the nearest first.
    pub fn made_from(&self) -> Vec<String> {
        let provenance = &self.manifest["provenance"];
        // `minilm-l6 (owner/name@commit)`; a folder's name may have blanks.
        let base = provenance["base"].as_str().map(|text| match text.split_once(" (") {
            Some((name, _)) => name.to_string(),
            None => text.trim_end_matches(" with its head").to_string(),
        });
        let names = [self.settings.base.clone(), self.settings.model.clone(), base];
        let mut all = Vec::new();
        for name in names.into_iter().flatten() {
            if !all.contains(&name) {
                all.push(name);
            }
        }
        all
    }

    /// Lines for the card, the weights' metadata and whoever asks what this was made of.
    pub fn provenance(&self) -> Vec<(String, String)> {
        let mut lines = Vec::new();
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        if let Value::Object(all) = &self.manifest["provenance"] {
            for (key, value) in all {
                match (key.as_str(), value) {
                    ("plan", plan) => {
                        lines.push(("plan_sha256".into(), sha256_of_text(&plan.to_string())))
                    }
                    ("labels", _) | (_, Value::Null) => {}
                    (key, Value::Array(pair)) => {
                        let parts: Vec<String> = pair.iter().map(text).collect();
                        lines.push((key.into(), parts.join(" ")));
                    }
                    (_, Value::String(empty)) if empty.is_empty() => {}
                    (key, value) => lines.push((key.into(), text(value))),
                }
            }
        }
        if let Value::Object(all) = &self.manifest["repair"]["made_from"] {
            lines.extend(all.iter().map(|(key, value)| (key.clone(), text(value))));
        }
        let weights = self.files.get("model.safetensors").cloned().unwrap_or_default();
        lines.push(("run_weights_sha256".into(), weights));
        lines.push(("published_by".into(), concat!("lowchurn ", env!("CARGO_PKG_VERSION")).into()));
        lines
    }
}
