//! `finetune`: settings → base checkpoint and data → inspection → tokens → training → the run's folder.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use lowchurn_data::{Encoded, encode, epoch_order, inspect, padding_share};
use lowchurn_distill::{
    Guides, OldWeights, Plan, Provenance, Scores, SelectBy, Teacher, Threshold, write_json,
};
use serde_json::json;

use crate::args::Finetune;
use crate::chosen::Chosen;
use crate::console::Console;
use crate::earlier::{Record, learnt_by};
use crate::failure::{INTERRUPTED, Usage};
use crate::job::{self, Job, Rows, Verb};
use crate::machine::peak_rss_mib;
use crate::probe::Features;
use crate::progress::count;
use crate::settings::Settings;
use crate::shows::Shows;
use crate::steering::{self, Steered};
use crate::training::{self, Ended, Start, Training, WeightsFrom};
use crate::{dry_run, kinds, output, probe, settings, signals};

/// Everything read and tokenised.
pub struct Ready {
    pub base_folder: PathBuf,
    pub weights: WeightsFrom,
    pub rows: Rows,
    pub train_tokens: Encoded,
    eval_tokens: Option<Encoded>,
    /// Where the last layer alone is trained.
    pub features: Features,
    /// The rows of the evaluation, where they choose.
    chose: Chosen,
}

/// Teachers on the rows that are trained on.
pub struct Followed {
    pub teacher: Teacher,
    pub shows: Shows,
    /// The one teacher's, where its own gradients are asked for.
    pub weights: Option<OldWeights>,
    /// Their names, and the names of their tables.
    pub named: (String, String),
}

pub fn finetune(args: &Finetune, console: &mut Console) -> Result<u8> {
    let started = Instant::now();
    signals::listen()?;
    let verb = Verb {
        base_flag: "--model",
        example: "lowchurn finetune sst2",
        lowest: Settings::default(),
    };
    let mut job = job::open(args, &verb, console)?;
    refuse_guided(&job.plan)?;
    if args.dry_run {
        return dry_run::tell(&mut job, args, WeightsFrom::asked, console);
    }
    output::check(&job.output)?;
    let mut ready = prepare(&mut job, &[], console)?;
    let Some(steered) = steering::of_run(&job, &ready.rows, &ready.base_folder, None, console)?
    else {
        return Ok(INTERRUPTED);
    };
    let features = probe::features(&ready, &job, &probe::tables_of(&job), console)?;
    let Some(features) = features else { return Ok(INTERRUPTED) };
    ready.features = features;
    // From here on a row is its tokens, and the texts' memory is better spent on weights.
    ready.rows.forget_texts();
    train(&job, args, &ready, None, &steered, started, console)
}

/// Methods that follow a teacher or a deployed model have a verb that brings one.
fn refuse_guided(plan: &Plan) -> Result<()> {
    let (method, needs) = (plan.method.name(), plan.method.needs());
    job::refuse_deployed(plan, "finetune")?;
    if needs.states || plan.states.is_some() {
        return Err(Usage(
            "task-agnostic, and weights of hidden states, attention, relations and vectors, follow a teacher, and finetune has none; \
             use lowchurn distil --teacher DIR"
                .into(),
        )
        .into());
    }
    match needs.teacher {
        true => Err(Usage(format!(
            "method {method} follows a teacher, and finetune has none; use lowchurn distil --teacher DIR, or lowchurn \
             update --base DIR to follow a deployed model"
        ))
        .into()),
        false => Ok(()),
    }
}

/// Whether rows of the evaluation decide anything: the best of several checkpoints, thresholds, or what a robust objective steers by.
fn chooses(plan: &Plan, ready: &Ready, steered: &Steered) -> bool {
    let lengths = ready.train_tokens.lengths();
    let every = if plan.eval_steps > 0 { plan.eval_steps } else { plan.steps_per_epoch(&lengths) };
    let is_tuned = plan.threshold == Some(Threshold::Tuned);
    plan.total_steps(&lengths) > every || is_tuned || steered.steering.is_some()
}

/// Every seed, one after the other.
pub fn train(
    job: &Job,
    args: &Finetune,
    ready: &Ready,
    followed: Option<&Followed>,
    steered: &Steered,
    mut started: Instant,
    console: &mut Console,
) -> Result<u8> {
    let plans = job::plans(job, args);
    let mut ended = Vec::new();
    for (plan, output) in plans.clone() {
        let provenance = job::provenance(job, &ready.base_folder, &ready.rows, plan.clone())?;
        let training = Training {
            start: Start {
                folder: ready.base_folder.clone(),
                labels: ready.rows.train.labels.names().to_vec(),
                head: ready.rows.head,
                weights: ready.weights,
            },
            provenance: Provenance {
                teacher: followed.map(|followed| followed.named.clone()),
                buffer: steered.named.clone(),
                ..provenance
            },
            settings: settings::resolved(&job::settled(job), &plan)?,
            chose: match chooses(&plan, ready, steered) {
                true => ready.chose.clone(),
                false => Chosen::default(),
            },
            output: &output,
            train: &ready.train_tokens,
            eval: ready.eval_tokens.as_ref(),
            guides: Guides {
                teacher: followed.map(|followed| &followed.teacher),
                shown: followed.map(|followed| followed.shows.lend()).unwrap_or_default(),
                steering: steered.steering.as_ref(),
                groups: steered.groups.as_ref(),
                teacher_weights: followed.and_then(|followed| followed.weights.as_ref()),
                features: ready.features.train.as_ref(),
                eval_features: ready.features.eval.as_ref(),
                ..Guides::default()
            },
            device: &job.compute.device,
            is_fresh: args.fresh,
        };
        match training::run(&training, started, console)? {
            Some(run) => ended.push(run),
            None => return Ok(INTERRUPTED),
        }
        started = Instant::now();
    }
    if plans.len() > 1 {
        let seeds: Vec<u64> = plans.iter().map(|(plan, _)| plan.seed).collect();
        summarise(job, &seeds, &ended, console)?;
    }
    Ok(0)
}

/// `unlabelled` rows, which are for a teacher, stand behind the others.
pub fn prepare(job: &mut Job, unlabelled: &[String], console: &mut Console) -> Result<Ready> {
    let base_folder = job.base.folder(&job.hub, console)?;
    let (config, encoder) = job::open_base(job, &base_folder)?;
    let rows = job::rows(&job.data, job, (&base_folder, &config), &job.hub, console)?;
    kinds::settle(job, &rows)?;
    job::tell_settings(job, console)?;
    let inspection = inspect(&rows.train, rows.eval.as_ref());
    for line in inspect::lines(&inspection) {
        console.tell(&line)?;
    }
    console.event(&json!({
        "event": "data", "train": rows.train.name, "rows": inspection.rows, "classes": inspection.classes,
        "unlabelled": inspection.unlabelled, "empty": inspection.empty_texts,
        "duplicates": inspection.duplicates, "conflicting_texts": inspection.conflicting_texts,
        "shared_with_eval": inspection.shared.map(|shared| shared.rows),
    }));
    let (rows, followed) = rows.labelled()?.with_unlabelled(unlabelled, job, console)?;
    let length = job.plan.max_length;
    let train_tokens = encode(&encoder, &rows.train.examples, length)?;
    let eval_tokens =
        rows.eval.as_ref().map(|eval| encode(&encoder, &eval.examples, length)).transpose()?;
    tell_tokens(&train_tokens, eval_tokens.as_ref(), &job.plan, console)?;
    let weights = WeightsFrom::asked(&job.layers.settings, &base_folder)?;
    let mut learnt = match weights {
        WeightsFrom::Folder => learnt_by(&base_folder)?,
        WeightsFrom::Seed => Record::default(),
    };
    learnt.seen.extend(followed);
    learnt.behind(&mut job.layers.settings);
    let features = Features::default();
    let examples = rows.eval.as_ref().map_or(&[][..], |eval| &eval.examples);
    let chose = Chosen::new("the checkpoint", examples, |_| true);
    Ok(Ready { base_folder, weights, rows, train_tokens, eval_tokens, features, chose })
}

pub fn tell_tokens(
    train: &Encoded,
    eval: Option<&Encoded>,
    plan: &Plan,
    console: &mut Console,
) -> Result<()> {
    let lengths = train.lengths();
    let padding = padding_share(&lengths, &epoch_order(&lengths, plan.batch_size, plan.seed, 0));
    let cut = train.n_truncated + eval.map_or(0, |eval| eval.n_truncated);
    let cut = match cut {
        0 => "no row cut".to_string(),
        n => format!("{} rows cut at {}", count(n as u64), plan.max_length),
    };
    console.tell(&format!(
        "tokens: {} in {} rows, {:.1} % padding, {cut}",
        count(train.tokens.len() as u64),
        count(train.rows() as u64),
        100.0 * padding,
    ))?;
    console.event(&json!({
        "event": "tokens", "rows": train.rows(), "tokens": train.tokens.len(), "padding": padding,
        "truncated": train.n_truncated,
    }));
    job::tell_remarks(plan, (plan.total_steps(&lengths), plan.steps_per_epoch(&lengths)), console)
}

/// Mean and standard deviation (n − 1) over seeds.
fn summarise(job: &Job, seeds: &[u64], runs: &[Ended], console: &mut Console) -> Result<()> {
    let scores: Vec<&Scores> = runs.iter().filter_map(|run| run.release.scores.as_ref()).collect();
    let accuracy: Vec<f64> = scores.iter().filter_map(|scores| scores.accuracy).collect();
    let mut results = json!({
        "event": "finished", "output": job.output, "seeds": seeds, "metrics": {}, "accuracy": accuracy,
        "train_seconds": runs.iter().map(|run| run.train_seconds).sum::<f64>(), "peak_rss_mib": peak_rss_mib(),
    });
    let selected = match job.plan.select_by {
        SelectBy::Accuracy => Vec::new(),
        metric => scores.iter().filter_map(|scores| metric.of(scores)).collect(),
    };
    let name = serde_json::to_value(job.plan.select_by)?;
    let mut said = Vec::new();
    for (name, values) in [("accuracy", accuracy), (name.as_str().unwrap_or("selected"), selected)]
    {
        let Some((mean, sd)) = mean_and_sd(&values) else { continue };
        results["metrics"][name] = json!(mean);
        results[format!("{name}_mean")] = json!(mean);
        results[format!("{name}_sd")] = json!(sd);
        said.push(format!("{name} {mean:.4} ± {sd:.4}"));
    }
    write_json(&job.output.join("all_results.json"), &results)?;
    if !said.is_empty() {
        console.tell(&format!("{} seeds: {}", seeds.len(), said.join("  ")))?;
    }
    console.event(&results);
    Ok(())
}

fn mean_and_sd(values: &[f64]) -> Option<(f64, f64)> {
    let n = values.len() as f64;
    if values.is_empty() {
        return None;
    }
    let mean = values.iter().sum::<f64>() / n;
    let sum = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
    Some((mean, (sum / (n - 1.0).max(1.0)).sqrt()))
}
