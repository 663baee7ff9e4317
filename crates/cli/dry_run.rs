//! `--dry-run`: what would be downloaded, how many rows and updates, how much memory. Fetches neither weights nor rows:
//! what is in the cache is looked at, for the rest the hub's listing and the card are believed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use anyhow::Result;
use lowchurn_data::BatchSize;
use lowchurn_distill::{Method, Plan, TextVector, find_latest, finished};
use lowchurn_hub::Hub;
use lowchurn_models::Config;
use serde_json::json;

use crate::args::{Finetune, Init};
use crate::console::Console;
use crate::data::EvalChoice;
use crate::found::{describe, open_encoder, open_model};
use crate::job::{self, Job, Rows};
use crate::machine::disk_free;
use crate::progress::{bytes, count};
use crate::settings::Settings;
use crate::training::{HeadOf, WeightsFrom};
use crate::updating::Updating;
use crate::{base, data, kinds, output, steering};

pub fn tell(
    job: &mut Job,
    args: &Finetune,
    start: fn(&Settings, &Path) -> Result<WeightsFrom>,
    console: &mut Console,
) -> Result<u8> {
    output::check(&job.output)?;
    // A hub without a network answers from the cache alone.
    let offline = Hub::from_vars(&|name| match name {
        "HF_HUB_OFFLINE" => Some("1".into()),
        _ => std::env::var(name).ok(),
    })?;
    let folder =
        match base::find("--model", &job.base.name)?.folder(&offline, &mut console.silent()) {
            Ok(folder) => Some(folder),
            Err(error) if !is_of_hub(&error) => return Err(error),
            Err(_) => None,
        };
    let config = match &folder {
        Some(folder) => Some(job::open_base(job, folder)?.0),
        None => None,
    };
    // No weights, or half a file of them, are refused here too.
    if let Some(folder) = &folder
        && start(&job.layers.settings, folder)? == WeightsFrom::Folder
    {
        open_encoder(&job.base.name, folder, TextVector::Mean, &job.compute)?;
    }
    let mut missing = Vec::new();
    let found = match rows_here(job, folder.as_deref().zip(config.as_ref()), &offline, console) {
        Ok(rows) => {
            kinds::settle(job, &rows)?;
            // With a teacher a run depends on its tables too, and with an objective on what steers it, which a dry run doesn't make.
            let is_plain = !job.plan.method.needs().teacher && job.plan.objective.is_standard();
            if let Some(folder) = folder.as_ref().filter(|_| is_plain) {
                refuse_other_runs(job, args, folder, &rows)?;
            }
            Some(rows)
        }
        // Rows that need no hub: what is wrong with them would stop the run too.
        Err(error) if job.data.remote_files(&job.wanted.train)?.is_empty() => return Err(error),
        Err(_) => {
            missing.extend(job.data.remote_files(&job.wanted.train)?);
            if let EvalChoice::Split(split) = job.data.eval_choice(&job.wanted) {
                missing.extend(job.data.remote_files(&split)?);
            }
            None
        }
    };
    job::tell_settings(job, console)?;
    let rows = match &found {
        Some(rows) => {
            steering::rehearse(job, rows, folder.as_deref(), console)?;
            Some(rows.train.examples.len() as u64)
        }
        None => job.data.promised_rows(&job.wanted)?,
    };
    if folder.is_none() {
        missing.extend(job.base.remote_files(&job.hub, console)?);
    }
    let steps = rows.and_then(|rows| job.plan.total_steps_of_rows(rows as usize));
    if let (Some(rows), Some(steps)) = (rows, steps) {
        // Where a batch has so many tokens, nothing hangs on the length of an epoch.
        let per_epoch = job.plan.steps_per_epoch_of_rows(rows as usize).unwrap_or(steps);
        job::tell_remarks(&job.plan, (steps, per_epoch), console)?;
    }
    let to_download: u64 = missing.iter().map(|(_, size)| size).sum();
    let memory = memory(job, folder.as_deref(), config.as_ref(), &missing);

    console.tell(&match missing.len() {
        0 => "to download: nothing, all is here".to_string(),
        n => format!("to download: {} in {n} files", bytes(to_download)),
    })?;
    for (path, size) in &missing {
        console.tell(&format!("  {path}  {}", bytes(*size)))?;
    }
    let known = |n: Option<u64>| n.map_or("not known before the download".into(), count);
    console.tell(&format!("rows to train on: {}", known(rows)))?;
    let accumulation = job.plan.accumulation;
    console.tell(&match job.plan.batch_size {
        BatchSize::Rows(n) => format!("updates: {} of {} rows", known(steps), n * accumulation),
        BatchSize::Tokens(n) => format!(
            "updates: {}, each of at most {} tokens",
            steps.map_or("not known before tokenising".into(), count),
            count(n.saturating_mul(accumulation) as u64)
        ),
    })?;
    console.tell(&match memory.activations {
        Some(activations) => format!("memory: about {}", bytes(memory.state + activations)),
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

/// The rows where all files are here already; an error where some are not.
fn rows_here(
    job: &Job,
    base: Option<(&Path, &Config)>,
    offline: &Hub,
    console: &Console,
) -> Result<Rows> {
    let mut silent = console.silent();
    let source = job.layers.settings.data.as_deref().unwrap_or_default();
    let data = data::open(source, offline, &mut silent)?;
    match base {
        Some(base) => job::rows(&data, job, base, offline, &mut silent)?.labelled(),
        None => {
            let (train, eval) = data.train_and_eval(&job.wanted, offline, &mut silent)?;
            Rows { train, eval, head: HeadOf::Seed }.labelled()
        }
    }
}

/// What trainings from a deployed model would do: their plans, updates and places. Opens what they would start from and follow,
/// and tokenises, so that what stops them stops this too.
pub fn of_updating(
    updating: &Updating,
    trainings: &[Planned],
    console: &mut Console,
) -> Result<()> {
    for name in updating.asked_teachers().names {
        let follows = |training: &Planned| training.plan.method.needs().teacher;
        if trainings.iter().any(follows) {
            let folder = base::find("--teacher", name)?.folder(&updating.hub, console)?;
            open_model(&describe(name, folder)?, &updating.compute)?;
        }
    }
    let mut tokens: BTreeMap<(PathBuf, usize, bool), Vec<u32>> = BTreeMap::new();
    let mut told = None;
    for Planned { name, plan, init, output } in trainings {
        let start = updating.start(plan, *init, console)?;
        let key = (start.folder.clone(), plan.max_length, plan.method.needs().teacher);
        if start.weights == WeightsFrom::Folder && !tokens.contains_key(&key) {
            let shown = start.folder.display().to_string();
            open_encoder(&shown, &start.folder, TextVector::Mean, &updating.compute)?;
        }
        let lengths = match tokens.entry(key) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(free) => free.insert(updating.train_tokens(&start, plan)?.lengths()),
        };
        // What a sweep's trainings differ in stands in their names.
        let shared =
            Plan { method: Method::Retrain, label_smoothing: 0.0, seed: 0, ..plan.clone() };
        if told.as_ref() != Some(&shared) {
            job::tell_plan(plan, &updating.layers, &updating.old.name, console)?;
            if !steering::asks_teacher(plan) {
                steering::of_update(updating, plan, &start.folder, console)?;
            }
            told = Some(shared);
        }
        let (steps, rows) = (plan.total_steps(lengths), lengths.len());
        job::tell_remarks(plan, (steps, plan.steps_per_epoch(lengths)), console)?;
        let (shown_steps, shown_rows) = (count(steps), count(rows as u64));
        console.tell(&format!(
            "would train {name} for {shown_steps} updates on {shown_rows} rows into {}",
            output.display()
        ))?;
        console.event(&json!({
            "event": "dry_run", "name": name, "rows": rows, "steps": steps, "output": output,
        }));
    }
    Ok(())
}

/// A training that a dry run speaks of.
pub struct Planned {
    pub name: String,
    pub plan: Plan,
    pub init: Init,
    pub output: PathBuf,
}

/// Another run, or somebody's model, in the folder would stop the run.
fn refuse_other_runs(job: &Job, args: &Finetune, base: &Path, rows: &Rows) -> Result<()> {
    for (plan, output) in job::plans(job, args) {
        output::refuse_foreign(&output, base)?;
        if !args.fresh {
            let provenance = job::provenance(job, base, rows, plan)?;
            finished(&output, &provenance)?;
            find_latest(&output, &provenance)?;
        }
    }
    Ok(())
}

/// What a run needs, about; bytes.
struct Memory {
    /// Weights, gradients and two moments.
    state: u64,
    /// Of a batch as wide as a row may be; `None` where the config isn't here.
    activations: Option<u64>,
}

/// A layer keeps about 12 tensors of the hidden width and 3 of the intermediate width for the way back.
fn memory(
    job: &Job,
    folder: Option<&Path>,
    config: Option<&Config>,
    missing: &[(String, u64)],
) -> Memory {
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
    let activations = config.map(|config| {
        let tokens = match job.plan.batch_size {
            BatchSize::Rows(n) => n * job.plan.max_length,
            BatchSize::Tokens(n) => n,
        };
        let per_layer = 12 * config.hidden_size + 3 * config.intermediate_size;
        (4 * tokens * config.layers * per_layer) as u64
    });
    Memory { state: 4 * weights, activations }
}
