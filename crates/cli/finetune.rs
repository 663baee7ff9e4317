//! `finetune`: settings → base checkpoint and data → inspection → tokens → training → the run's folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::Device;
use lowchurn_data::{Encoded, Rng, encode, epoch_order, inspect, padding_share};
use lowchurn_distill::{
    Outcome, Plan, Release, Run, Scores, SelectBy, State, find_latest, finished, train, write_file,
    write_json,
};
use lowchurn_models::{Classifier, Head};
use serde_json::json;

use crate::args::Finetune;
use crate::console::Console;
use crate::failure::INTERRUPTED;
use crate::job::{self, HeadOf, Job, Rows};
use crate::machine::peak_rss_mib;
use crate::progress::{Status, count, scores_line};
use crate::record::{Record, as_json};
use crate::{dry_run, output, settings, signals};

/// A finished run of one seed.
struct Ended {
    release: Release,
    train_seconds: f64,
}

/// Everything read and tokenised.
struct Ready {
    base_folder: PathBuf,
    rows: Rows,
    train_tokens: Encoded,
    eval_tokens: Option<Encoded>,
}

pub fn finetune(args: &Finetune, console: &mut Console) -> Result<u8> {
    let mut started = Instant::now();
    signals::listen()?;
    let job = job::open(args, console)?;
    if args.dry_run {
        return dry_run::tell(&job, args, console);
    }
    output::check(&job.output)?;
    let ready = prepare(&job, console)?;
    let plans = job::plans(&job, args);
    let mut ended = Vec::new();
    for (plan, output) in plans.clone() {
        match run(&job, &ready, plan, &output, args, started, console)? {
            Some(run) => ended.push(run),
            None => return Ok(INTERRUPTED),
        }
        started = Instant::now();
    }
    if plans.len() > 1 {
        let seeds: Vec<u64> = plans.iter().map(|(plan, _)| plan.seed).collect();
        summarise(&job, &seeds, &ended, console)?;
    }
    Ok(0)
}

fn prepare(job: &Job, console: &mut Console) -> Result<Ready> {
    let base_folder = job.base.folder(&job.hub, console)?;
    let (config, encoder) = job::open_base(job, &base_folder)?;
    let rows = job::rows(&job.data, job, (&base_folder, &config), &job.hub, console)?;
    job::tell_settings(job, console)?;
    let inspection = inspect(&rows.train, rows.eval.as_ref());
    for line in inspect::fmt(&inspection) {
        console.tell(&line)?;
    }
    console.event(&json!({
        "event": "data", "train": rows.train.name, "rows": inspection.rows, "classes": inspection.classes,
        "unlabelled": inspection.unlabelled, "empty": inspection.empty_texts,
        "duplicates": inspection.duplicates, "conflicting_texts": inspection.conflicting_texts,
        "shared_with_eval": inspection.shared.map(|shared| shared.rows),
    }));
    let rows = rows.labelled()?;
    let length = job.plan.max_length;
    let train_tokens = encode(&encoder, &rows.train.examples, length)?;
    let eval_tokens =
        rows.eval.as_ref().map(|eval| encode(&encoder, &eval.examples, length)).transpose()?;
    tell_tokens(&train_tokens, eval_tokens.as_ref(), &job.plan, console)?;
    Ok(Ready { base_folder, rows, train_tokens, eval_tokens })
}

fn tell_tokens(
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
    Ok(())
}

/// One seed, from the newest checkpoint or from the start. `None` where it was interrupted.
fn run(
    job: &Job,
    ready: &Ready,
    plan: Plan,
    output: &Path,
    args: &Finetune,
    started: Instant,
    console: &mut Console,
) -> Result<Option<Ended>> {
    output::refuse_foreign(output, &ready.base_folder)?;
    fs::create_dir_all(output)
        .with_context(|| format!("{}: can't be written", output.display()))?;
    let _lock = output::lock(output)?;
    let provenance = job::provenance(job, &ready.base_folder, &ready.rows, plan.clone())?;
    let there = if args.fresh { None } else { finished(output, &provenance)? };
    if let Some(done) = there {
        console.tell(&format!("{} is finished; --fresh starts over", output.display()))?;
        tell_scores(&done.release, output, console)?;
        let results = json!({
            "event": "finished", "output": output, "metrics": done.release.scores, "train_seconds": 0.0,
            "peak_rss_mib": peak_rss_mib(), "already": true,
        });
        output::sweep(output, &results)?;
        console.event(&results);
        return Ok(Some(Ended { release: done.release, train_seconds: 0.0 }));
    }
    // Another run, or a base that can't be read, is refused before anything of the run that is here is changed.
    if !args.fresh {
        find_latest(output, &provenance)?;
    }
    let mut state = State::new(fresh_model(ready, &plan, &job.device, console)?)?;
    if args.fresh {
        output::start_over(output)?;
    }
    let settings = settings::resolved(&job::settled(job), &plan)?;
    write_file(&output.join("run.toml"), settings::to_toml(&settings)?.as_bytes())?;

    let mut record = Record::open(output)?;
    let setup_seconds = started.elapsed().as_secs_f64();
    let training = Instant::now();
    signals::training_begins();
    let mut status = Status::new();
    let mut failed = Ok(());
    let what = Run {
        provenance: &provenance,
        train: &ready.train_tokens,
        eval: ready.eval_tokens.as_ref(),
        dir: output,
        tokenizer_from: &ready.base_folder,
    };
    let outcome = train(&what, &mut state, &signals::STOP, &mut |event| {
        status.show(&event, training.elapsed(), &console.terminal, &mut console.err);
        console.event(&as_json(&event));
        if let Err(error) = record.take(&event) {
            // The run is worth more than its log, but the log's trouble is told.
            failed = Err(error);
        }
    });
    status.end(&mut console.err);
    let outcome = outcome?;
    failed?;
    let train_seconds = training.elapsed().as_secs_f64();
    let release = match outcome {
        Outcome::Interrupted { step } => {
            let total = plan.total_steps(ready.train_tokens.rows());
            console.say(&format!(
                "stopped after update {step} of {total}, saved in {}; go on with the same command: {}",
                output.display(),
                signals::command_that_goes_on(),
            ));
            console.event(&json!({ "event": "interrupted", "step": step, "output": output }));
            return Ok(None);
        }
        Outcome::Finished(release) => release,
    };
    let results = json!({
        "event": "finished",
        "output": output,
        "metrics": release.scores,
        "best_step": release.step,
        "seed": plan.seed,
        "setup_seconds": setup_seconds,
        "train_seconds": train_seconds,
        "train_rows_per_second": status.rows_done() as f64 / train_seconds,
        "peak_rss_mib": peak_rss_mib(),
    });
    write_json(&output.join("all_results.json"), &results)?;
    tell_scores(&release, output, console)?;
    console.event(&results);
    Ok(Some(Ended { release, train_seconds }))
}

fn fresh_model(
    ready: &Ready,
    plan: &Plan,
    device: &Device,
    console: &mut Console,
) -> Result<Classifier> {
    let mut rng = Rng::stream(plan.seed, "head", 0);
    let head = match ready.rows.head {
        HeadOf::Base => Head::FromCheckpoint,
        HeadOf::Seed => {
            let labels = ready.rows.train.labels.names().to_vec();
            Head::Fresh { labels, normal: &mut || rng.normal() }
        }
    };
    let (mut model, report) = Classifier::open(&ready.base_folder, head, device)?;
    if !report.fresh.is_empty() {
        console.tell(&format!("new parameters: {}", report.fresh.join(", ")))?;
    }
    if !report.unused.is_empty() {
        console.tell(&format!("not used of the checkpoint: {}", report.unused.join(", ")))?;
    }
    if let Some(p) = plan.dropout {
        let config = &mut model.config;
        (config.hidden_dropout, config.attention_dropout) = (p as f32, p as f32);
        config.classifier_dropout = p as f32;
    }
    Ok(model)
}

fn tell_scores(release: &Release, output: &Path, console: &mut Console) -> Result<()> {
    let scores = release.scores.as_ref().map_or("not evaluated".into(), scores_line);
    Ok(console.tell(&format!("{}: {scores} (update {})", output.display(), count(release.step)))?)
}

/// Mean and standard deviation (n − 1) over seeds.
fn summarise(job: &Job, seeds: &[u64], runs: &[Ended], console: &mut Console) -> Result<()> {
    let scores: Vec<&Scores> = runs.iter().filter_map(|run| run.release.scores.as_ref()).collect();
    let accuracy: Vec<f64> = scores.iter().map(|scores| scores.accuracy).collect();
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
