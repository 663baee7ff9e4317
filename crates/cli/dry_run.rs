//! `--dry-run`: what would be downloaded, how many rows and updates, how much memory. Fetches neither weights nor rows:
//! what is in the cache is looked at, for the rest the hub's listing and the card are believed.

use std::path::Path;

use anyhow::Result;
use lowchurn_hub::Hub;
use lowchurn_models::Config;
use serde_json::json;

use crate::console::Console;
use crate::data::EvalChoice;
use crate::finetune::Job;
use crate::machine::disk_free;
use crate::progress::{bytes, count};
use crate::{base, data};

pub fn tell(job: &Job, source: &str, console: &mut Console) -> Result<u8> {
    // A hub without a network answers from the cache alone.
    let offline = Hub::from_vars(&|name| match name {
        "HF_HUB_OFFLINE" => Some("1".into()),
        _ => std::env::var(name).ok(),
    })?;
    let mut missing = Vec::new();
    let rows = match rows_here(job, source, &offline, console) {
        Ok(rows) => Some(rows),
        // Rows that need no hub: what is wrong with them would stop the run too.
        Err(error) if job.data.remote_files(&job.wanted.train)?.is_empty() => return Err(error),
        Err(_) => {
            missing.extend(job.data.remote_files(&job.wanted.train)?);
            if let EvalChoice::Split(split) = job.data.eval_choice(&job.wanted) {
                missing.extend(job.data.remote_files(&split)?);
            }
            job.data.promised_rows(&job.wanted.train)?
        }
    };
    let folder = match base::find(&job.base.name)?.folder(&offline, &mut console.silent()) {
        Ok(folder) => Some(folder),
        Err(error) if !is_of_hub(&error) => return Err(error),
        Err(_) => None,
    };
    if folder.is_none() {
        missing.extend(job.base.remote_files(&job.hub, console)?);
    }
    let steps = rows.map(|rows| job.plan.total_steps(rows as usize));
    let to_download: u64 = missing.iter().map(|(_, size)| size).sum();
    let memory = memory(job, folder.as_deref(), &missing);

    console.tell(&match missing.len() {
        0 => "to download: nothing, all is here".to_string(),
        n => format!("to download: {} in {n} files", bytes(to_download)),
    })?;
    for (path, size) in &missing {
        console.tell(&format!("  {path}  {}", bytes(*size)))?;
    }
    let known = |n: Option<u64>| n.map_or("not known before the download".into(), count);
    console.tell(&format!("rows to train on: {}", known(rows)))?;
    console.tell(&format!(
        "updates: {} of {} rows",
        known(steps),
        job.plan.batch_size * job.plan.accumulation
    ))?;
    console.tell(&match memory.activations {
        Some(activations) => format!("memory: about {} at most", bytes(memory.state + activations)),
        None => format!(
            "memory: {} for weights, gradients and moments; that of a batch depends on config.json, which isn't here yet",
            bytes(memory.state)
        ),
    })?;
    let free =
        disk_free(&job.output).map_or_else(String::new, |free| format!(" ({} free)", bytes(free)));
    console.tell(&format!("output: {}{free}", job.output.display()))?;
    console.event(&json!({
        "event": "dry_run", "download_bytes": to_download,
        "files": missing.iter().map(|(path, size)| json!({ "file": path, "bytes": size })).collect::<Vec<_>>(),
        "rows": rows, "steps": steps, "memory_bytes": memory.activations.map(|n| memory.state + n), "output": job.output,
    }));
    Ok(0)
}

fn is_of_hub(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<lowchurn_hub::Error>())
}

/// Rows to train on where all files are here already; an error where some are not.
fn rows_here(job: &Job, source: &str, offline: &Hub, console: &Console) -> Result<u64> {
    let mut silent = console.silent();
    let data = data::open(source, offline, &mut silent)?;
    let (train, _) = data.train_and_eval(&job.wanted, offline, &mut silent)?;
    Ok(train.examples.iter().filter(|row| row.label.is_some()).count() as u64)
}

/// What a run needs at most; bytes.
struct Memory {
    /// Weights, gradients and two moments.
    state: u64,
    /// Of a batch as wide as a row may be; `None` where the config isn't here.
    activations: Option<u64>,
}

/// A layer keeps about 12 tensors of the hidden width and 3 of the intermediate width for the way back.
fn memory(job: &Job, folder: Option<&Path>, missing: &[(String, u64)]) -> Memory {
    let is_weights = |path: &str| path.ends_with(".safetensors") || path.ends_with(".bin");
    let weights: u64 = match folder {
        Some(folder) => std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let path = entry.path();
                is_weights(path.to_str()?).then(|| path.metadata().ok())?.map(|found| found.len())
            })
            .sum(),
        None => missing.iter().filter(|(path, _)| is_weights(path)).map(|(_, size)| size).sum(),
    };
    let activations = folder.and_then(|folder| Config::open(folder).ok()).map(|config| {
        let tokens = job.plan.batch_size * job.plan.max_length;
        let per_layer = 12 * config.hidden_size + 3 * config.intermediate_size;
        (4 * tokens * config.layers * per_layer) as u64
    });
    Memory { state: 4 * weights, activations }
}
