//! The release's folder: what transformers, text-embeddings-inference and this program read, and nothing else of the run.
//! Written beside its place and renamed; the same run gives the same bytes.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lowchurn_churn::{Flip, Report};
use lowchurn_data::BatchSize;
use lowchurn_distill::{sha256_of_file, write_file, write_json};
use lowchurn_hub::LocalFile;
use lowchurn_models::{NumberFormat, TOKENIZER_FILES, recast};
use serde_json::{Map, Value, json};

use crate::args::Dtype;
use crate::chosen;
use crate::failure::Usage;
use crate::publish::card::{self, Told};
use crate::publish::run::{Run, read_json};
use crate::reporting;
use crate::settings::Settings;

pub const FOLDER: &str = "release";
/// Where `export` puts it, and Optimum and the hub look for it.
const ONNX: &str = "onnx/model.onnx";
pub const RESULTS: &str = "eval_results.json";
const MANIFEST: &str = "manifest.json";
pub const CARD: &str = "README.md";

/// The folder while it is filled; gone when it is dropped before [`Stage::finish`].
pub struct Stage {
    partial: PathBuf,
    place: PathBuf,
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.partial);
    }
}

impl Stage {
    /// # Errors
    /// A folder of that name that no `publish` made: it isn't ours to replace.
    pub fn begin(run: &Run) -> Result<Stage> {
        let place = run.folder.join(FOLDER);
        if place.exists() && !is_release(&place) {
            return Err(Usage(format!(
                "{} is in the way: publish writes the release there, and it holds something else; move it away",
                place.display()
            ))
            .into());
        }
        let partial = run.folder.join(".release-to-publish.partial");
        if partial.exists() {
            fs::remove_dir_all(&partial).with_context(|| partial.display().to_string())?;
        }
        fs::create_dir_all(&partial)
            .with_context(|| format!("{}: can't be made", partial.display()))?;
        Ok(Stage { partial, place })
    }

    pub fn path(&self) -> &Path {
        &self.partial
    }

    /// Weights in the wanted format, with what they were made of in their metadata; the config that says so; the tokenizer.
    pub fn write_model(&self, run: &Run, dtype: Dtype) -> Result<()> {
        let (format, to) = (number_format(dtype), &self.partial);
        let provenance: Map<String, Value> =
            run.provenance().into_iter().map(|(key, value)| (key, value.into())).collect();
        let provenance = Value::Object(provenance).to_string();
        let metadata = [("format", "pt"), ("lowchurn", provenance.as_str())];
        recast(&run.folder, &to.join("model.safetensors"), format, &metadata)?;
        let mut config = run.config.clone();
        if dtype != Dtype::F32 {
            for key in ["dtype", "torch_dtype"] {
                if key == "dtype" || config.contains_key(key) {
                    config.insert(key.into(), format.in_config().into());
                }
            }
        }
        write_json(&to.join("config.json"), &config)?;
        for name in TOKENIZER_FILES.iter().filter(|name| run.files.contains_key(**name)) {
            copy(&run.folder.join(name), &to.join(name))?;
        }
        Ok(())
    }

    /// The model as ONNX, where it was exported.
    ///
    /// # Errors
    /// A file of another model: the export was made before the run's weights.
    pub fn write_onnx(&self, run: &Run) -> Result<()> {
        let from = run.folder.join(ONNX);
        if !from.is_file() {
            return Ok(());
        }
        // `export` notes the model's hash in the file.
        if !holds(&from, run.model.sha256.as_bytes()).with_context(|| from.display().to_string())? {
            return Err(Usage(format!(
                "{}: it is of another model; make it again with lowchurn export {} --onnx, or take it away",
                from.display(),
                run.folder.display()
            ))
            .into());
        }
        copy(&from, &self.partial.join(ONNX))
    }

    /// What the run says of itself: plan, course, curves.
    pub fn write_records(&self, run: &Run) -> Result<()> {
        let to = &self.partial;
        for name in ["run.toml", "trainer_state.json", "all_results.json", chosen::FILE] {
            if run.folder.join(name).is_file() {
                copy(&run.folder.join(name), &to.join(name))?;
            }
        }
        for name in run.files.keys().filter(|name| name.starts_with("adapter/")) {
            copy(&run.folder.join(name), &to.join(name))?;
        }
        write_json(&to.join("training_args.json"), &training_args(&run.settings))?;
        let curves = run.folder.join("tensorboard");
        let entries = fs::read_dir(&curves).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        for (n, name) in names.iter().filter(|name| name.contains("tfevents")).enumerate() {
            // The name says on which host it was made, which is nobody's business: time and number are enough.
            let time = name.split('.').find(|part| part.len() == 10 && is_digits(part));
            let time = time.unwrap_or("0");
            let name_there = format!("events.out.tfevents.{time}.lowchurn.{n}");
            copy(&curves.join(name), &to.join("runs/train").join(name_there))?;
        }
        Ok(())
    }

    /// Scores of the run's own evaluation, and what the report measured: an update has no other numbers.
    pub fn write_results(&self, told: &Told) -> Result<()> {
        let from = told.run.folder.join(RESULTS);
        let mut results: Map<String, Value> = match from.is_file() {
            true => read_json(&from)?,
            false => Map::new(),
        };
        if told.run.report.is_some() {
            let metrics = json!(card::results(told));
            results.insert(
                "report".into(),
                json!({ "rows": card::rows_of_results(told), "metrics": metrics }),
            );
        }
        match results.is_empty() {
            true => Ok(()),
            false => Ok(write_json(&self.partial.join(RESULTS), &results)?),
        }
    }

    /// The report, without the rows' texts unless they are asked for: they may be nobody else's to read.
    pub fn write_report(&self, run: &Run, texts: bool) -> Result<()> {
        let Some(report) = &run.report else { return Ok(()) };
        let mut report = with_all_flips(report, &run.folder.join("flips.jsonl"));
        if !texts {
            for flip in &mut report.flips {
                flip.text = None;
                flip.nearest.clear();
            }
        }
        reporting::write(&report, &self.partial)
    }

    pub fn write_card(&self, card: &str) -> Result<()> {
        Ok(write_file(&self.partial.join(CARD), card.as_bytes())?)
    }

    /// The manifest over all files, then the folder in its place.
    pub fn finish(self, run: &Run, release: Value) -> Result<PathBuf> {
        let mut files = BTreeMap::new();
        for (name, place) in files_of(&self.partial)? {
            files.insert(name, sha256_of_file(&place)?);
        }
        let mut manifest = run.manifest.clone();
        manifest["files"] = json!(files);
        manifest["release"] = release;
        write_json(&self.partial.join(MANIFEST), &manifest)?;
        if self.place.exists() {
            fs::remove_dir_all(&self.place).with_context(|| self.place.display().to_string())?;
        }
        fs::rename(&self.partial, &self.place)
            .with_context(|| format!("{}: can't be written", self.place.display()))?;
        Ok(self.place.clone())
    }
}

pub fn number_format(dtype: Dtype) -> NumberFormat {
    match dtype {
        Dtype::F32 => NumberFormat::F32,
        Dtype::F16 => NumberFormat::F16,
        Dtype::Bf16 => NumberFormat::Bf16,
    }
}

/// Whether a folder's manifest is that of a release.
fn is_release(folder: &Path) -> bool {
    let is_empty = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    is_empty || fs::read(folder.join(MANIFEST)).is_ok_and(|bytes| released(&bytes).is_some())
}

/// Files with their hashes, where the bytes are the manifest of a release.
pub fn released(manifest: &[u8]) -> Option<BTreeMap<String, String>> {
    let manifest: Value = serde_json::from_slice(manifest).ok()?;
    manifest.get("release")?.as_object()?;
    serde_json::from_value(manifest.get("files")?.clone()).ok()
}

/// Every file below the folder, by its path with `/`, in order.
pub fn local_files(folder: &Path) -> Result<Vec<LocalFile>> {
    let files = files_of(folder)?;
    Ok(files.into_iter().map(|(path, place)| LocalFile { path, place }).collect())
}

fn files_of(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![(String::new(), folder.to_path_buf())];
    while let Some((prefix, folder)) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let entry = entry?;
            let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
            match entry.file_type()?.is_dir() {
                true => folders.push((format!("{path}/"), entry.path())),
                false => drop(found.insert(path, entry.path())),
            }
        }
    }
    Ok(found)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let failed = || format!("{} can't be copied to {}", from.display(), to.display());
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(failed)?;
    }
    fs::copy(from, to).with_context(failed).map(|_| ())
}

/// Whether a file has these bytes somewhere in it.
fn holds(path: &Path, wanted: &[u8]) -> std::io::Result<bool> {
    let mut file = fs::File::open(path)?;
    let (mut seen, mut chunk) = (Vec::new(), vec![0; 1 << 20]);
    loop {
        let n = file.read(&mut chunk)?;
        if n == 0 {
            return Ok(false);
        }
        seen.extend_from_slice(&chunk[..n]);
        if seen.windows(wanted.len()).any(|part| part == wanted) {
            return Ok(true);
        }
        seen.drain(..seen.len().saturating_sub(wanted.len()));
    }
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A report holds some of the flips; the file beside it holds all.
fn with_all_flips(report: &Report, path: &Path) -> Report {
    let text = fs::read_to_string(path).unwrap_or_default();
    let flips: Option<Vec<Flip>> =
        text.lines().map(|line| serde_json::from_str(line).ok()).collect();
    match flips {
        Some(flips) if flips.len() as u64 == report.n_flips => Report { flips, ..report.clone() },
        _ => report.clone(),
    }
}

/// The plan under the names that tools around transformers look for.
fn training_args(s: &Settings) -> Value {
    let all = json!({
        "learning_rate": s.learning_rate,
        "num_train_epochs": s.epochs,
        "max_steps": s.max_steps,
        "per_device_train_batch_size": s.batch_size.and_then(BatchSize::rows),
        "per_device_eval_batch_size": s.eval_batch_size,
        "gradient_accumulation_steps": s.accumulation,
        "max_seq_length": s.max_length,
        "lr_scheduler_type": s.schedule,
        "warmup_steps": s.warmup_steps,
        "weight_decay": s.weight_decay,
        "adam_beta1": s.beta1,
        "adam_beta2": s.beta2,
        "adam_epsilon": s.epsilon,
        "max_grad_norm": s.max_grad_norm,
        "label_smoothing_factor": s.label_smoothing,
        "seed": s.seed,
        "eval_steps": s.eval_steps,
        "save_steps": s.save_steps,
        "logging_steps": s.logging_steps,
        "metric_for_best_model": s.select_by,
    });
    match all {
        Value::Object(all) => {
            Value::Object(all.into_iter().filter(|(_, v)| !v.is_null()).collect())
        }
        other => other,
    }
}
