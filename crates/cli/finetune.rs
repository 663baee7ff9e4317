//! `finetune`: settings → base checkpoint and data → inspection → tokens → training → the run's folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::Device;
use lowchurn_data::{
    Columns, Encoded, Rng, Split, TextEncoder, encode, epoch_order, inspect, labelled,
    padding_share,
};
use lowchurn_distill::{
    Outcome, Plan, Provenance, Release, Run, SelectBy, State, find_latest, finished, train,
    write_file, write_json,
};
use lowchurn_hub::Hub;
use lowchurn_models::{Classifier, Config, Head, check_vocabulary};
use serde_json::{Value, json};

use crate::args::Finetune;
use crate::base::{self, Base};
use crate::console::Console;
use crate::data::{self, Data, Wanted, Wishes};
use crate::failure::{INTERRUPTED, Usage};
use crate::machine::peak_rss_mib;
use crate::progress::{Status, count, scores_line};
use crate::record::{Record, as_json};
use crate::settings::{self, Layers, Settings};
use crate::{device, dry_run, output, places, signals};

const DEFAULT_MODEL: &str = "minilm-l6";

/// A run as asked for, with nothing fetched yet.
pub struct Job {
    pub layers: Layers,
    pub plan: Plan,
    pub base: Base,
    pub data: Data,
    pub wanted: Wanted,
    pub output: PathBuf,
    pub device: Device,
    pub hub: Hub,
}

/// A finished run of one seed.
struct Ended {
    release: Release,
    train_seconds: f64,
}

/// Everything read and tokenised.
struct Ready {
    base_folder: PathBuf,
    train: Split,
    eval: Option<Split>,
    train_tokens: Encoded,
    eval_tokens: Option<Encoded>,
}

pub fn finetune(args: &Finetune, console: &mut Console) -> Result<u8> {
    let started = Instant::now();
    signals::listen()?;
    let job = job(args, console)?;
    if args.dry_run {
        let source = job.layers.settings.data.clone().unwrap_or_default();
        return dry_run::tell(&job, &source, console);
    }
    output::check(&job.output)?;
    let ready = prepare(&job, console)?;
    let seeds: Vec<u64> =
        (0..u64::from(args.seeds)).map(|n| job.plan.seed.saturating_add(n)).collect();
    let mut ended = Vec::new();
    for &seed in &seeds {
        let output = match seeds.len() {
            1 => job.output.clone(),
            _ => job.output.join(format!("seed-{seed}")),
        };
        let plan = Plan { seed, ..job.plan.clone() };
        match run(&job, &ready, plan, &output, args, started, console)? {
            Some(run) => ended.push(run),
            None => return Ok(INTERRUPTED),
        }
    }
    if seeds.len() > 1 {
        summarise(&job, &seeds, &ended, console)?;
    }
    Ok(0)
}

/// Reads the layers of settings and finds what they name.
fn job(args: &Finetune, console: &mut Console) -> Result<Job> {
    let hub = places::hub()?;
    let plan_file = match &args.plan {
        Some(path) => settings::read_plan(path)?,
        None => Settings::default(),
    };
    let flags = Settings { data: args.data.clone(), ..args.settings.clone() };
    let origin = args.plan.as_ref().map_or(String::new(), |path| path.display().to_string());
    let typed = Layers::default().over(&plan_file, &origin)?.over(&flags, "flag")?.settings;
    let base = base::find(typed.model.as_deref().unwrap_or(DEFAULT_MODEL))?;
    let layers = Layers::default()
        .over(&base.advice, &base.advised_by)?
        .over(&plan_file, &origin)?
        .over(&flags, "flag")?;
    let settings = &layers.settings;
    let Some(source) = &settings.data else {
        return Err(Usage("no data named; try: lowchurn finetune sst2".into()).into());
    };
    // Before the hub is asked; which metric it will be doesn't matter for that.
    let checked = settings::plan(settings, SelectBy::Accuracy)?;
    if checked.patience > 0 && settings.eval_split.as_deref() == Some("none") {
        return Err(Usage("patience needs an evaluation, but eval_split is none".into()).into());
    }
    let device = device::open(settings.device.as_deref().unwrap_or("auto"))?;
    let data = data::open(source, &hub, console)?;
    let plan = settings::plan(settings, data.metric().into())?;
    let wanted = wanted(settings, &data);
    let output = args.output.clone().unwrap_or_else(|| Path::new("runs").join(&data.name));
    Ok(Job { plan, base, wanted, output, device, hub, data, layers })
}

fn wanted(settings: &Settings, data: &Data) -> Wanted {
    let s = settings.clone();
    Wanted {
        train: s.train_split.or(data.split.clone()).unwrap_or_else(|| first_split(data)),
        eval: s.eval_split,
        eval_fraction: s.eval_fraction,
        wishes: Wishes {
            columns: Columns {
                text: s.text_column,
                pair: s.pair_column,
                label: s.label_column,
                id: s.id_column,
            },
        },
    }
}

/// `train`, or the only split there is: a file called `dev.csv` is all that was given.
fn first_split(data: &Data) -> String {
    match data.split_names().as_slice() {
        [only] => only.clone(),
        _ => "train".into(),
    }
}

fn prepare(job: &Job, console: &mut Console) -> Result<Ready> {
    let (train, eval) = job.data.train_and_eval(&job.wanted, &job.hub, console)?;
    let base_folder = job.base.folder(&job.hub, console)?;
    tell_settings(job, console)?;
    let inspection = inspect(&train, eval.as_ref());
    for line in inspect::fmt(&inspection) {
        console.tell(&line)?;
    }
    console.event(&json!({
        "event": "data", "train": train.name, "rows": inspection.rows, "classes": inspection.classes,
        "unlabelled": inspection.unlabelled, "empty": inspection.empty_texts,
        "duplicates": inspection.duplicates, "conflicting_texts": inspection.conflicting_texts,
        "shared_with_eval": inspection.shared.map(|shared| shared.rows),
    }));
    let (train, eval) = (labelled(&train), eval.as_ref().map(labelled));
    if train.examples.is_empty() {
        let (name, path) = (&train.name, "give another --train-split or --label-column");
        return Err(Usage(format!("{name}: no row has a label; {path}")).into());
    }
    let encoder = TextEncoder::open(&base_folder)?;
    let config = Config::open(&base_folder)?;
    check_vocabulary(&config, encoder.vocab_size(), &base_folder)?;
    let length = job.plan.max_length;
    if length > config.max_positions {
        let most = config.max_positions;
        return Err(Usage(format!(
            "--max-length {length}: {} reads at most {most} tokens",
            job.base.name
        ))
        .into());
    }
    let train_tokens = encode(&encoder, &train.examples, length)?;
    let eval_tokens =
        eval.as_ref().map(|eval| encode(&encoder, &eval.examples, length)).transpose()?;
    tell_tokens(&train_tokens, eval_tokens.as_ref(), &job.plan, console)?;
    Ok(Ready { base_folder, train, eval, train_tokens, eval_tokens })
}

/// Each value that decides the result, and where it is from.
fn tell_settings(job: &Job, console: &mut Console) -> Result<()> {
    let Value::Object(plan) = serde_json::to_value(&job.plan)? else { return Ok(()) };
    let show = |(key, value): (&String, &Value)| match job.layers.origin(key) {
        "default" => format!("{key} {value}"),
        origin => format!("{key} {value} ({origin})"),
    };
    let shown: Vec<String> = plan.iter().map(show).collect();
    console.tell(&format!("plan: {}", shown.join(", ")))?;
    console.event(&json!({ "event": "plan", "plan": plan, "base": job.base.name }));
    Ok(())
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
    let (train_split, eval_split) = (&ready.train, ready.eval.as_ref());
    let provenance = Provenance {
        base: job.base.name.clone(),
        base_sha256: base::sha256(&ready.base_folder)?,
        train: train_split.name.clone(),
        train_sha256: train_split.sha256.clone(),
        eval: eval_split.map_or_else(|| "none".into(), |eval| eval.name.clone()),
        eval_sha256: eval_split.map_or_else(String::new, |eval| eval.sha256.clone()),
        labels: train_split.labels.names().to_vec(),
        device: device::kind(&job.device).into(),
        lowchurn_version: env!("CARGO_PKG_VERSION").into(),
        plan: plan.clone(),
    };
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
    let settings = Settings { model: Some(job.base.name.clone()), ..job.layers.settings.clone() };
    let settings = settings::resolved(&settings, &plan)?;
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
    let labels = ready.train.labels.names().to_vec();
    let head = Head::Fresh { labels, normal: &mut || rng.normal() };
    let (mut model, report) = Classifier::open(&ready.base_folder, head, device)?;
    console.tell(&format!("new parameters: {}", report.fresh.join(", ")))?;
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
    let values: Vec<f64> =
        runs.iter().filter_map(|run| Some(run.release.scores.as_ref()?.accuracy)).collect();
    let n = values.len() as f64;
    let mean = (n > 0.0).then(|| values.iter().sum::<f64>() / n);
    let sum = mean.map(|mean| values.iter().map(|v| (v - mean).powi(2)).sum::<f64>());
    let sd = sum.map(|sum| (sum / (n - 1.0).max(1.0)).sqrt());
    let results = json!({
        "event": "finished", "output": job.output, "seeds": seeds, "metrics": { "accuracy": mean },
        "accuracy": values, "accuracy_mean": mean, "accuracy_sd": sd,
        "train_seconds": runs.iter().map(|run| run.train_seconds).sum::<f64>(), "peak_rss_mib": peak_rss_mib(),
    });
    write_json(&job.output.join("all_results.json"), &results)?;
    if let (Some(mean), Some(sd)) = (mean, sd) {
        console.tell(&format!("{} seeds: accuracy {mean:.4} ± {sd:.4}", seeds.len()))?;
    }
    console.event(&results);
    Ok(())
}
