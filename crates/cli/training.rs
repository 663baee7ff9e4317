//! One run of training, whichever verb asks for it: weights to start from → loop → the run's folder.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use candle_core::{Device, Tensor, Var};
use lowchurn_data::{Encoded, Rng};
use lowchurn_distill::{
    Guides, Method, Outcome, Outputs, Plan, Provenance, Release, Run, State, Threshold, check,
    find_latest, finished, shrink_perturb, train, write_file, write_json,
};
use lowchurn_models::{Classifier, Config, Head, Params, has_weights, is_head};
use serde_json::json;

use crate::chosen::Chosen;
use crate::console::Console;
use crate::failure::Usage;
use crate::machine::peak_rss_mib;
use crate::progress::{Status, count, scores_line, worst_of};
use crate::record::{Record, as_json};
use crate::settings::{self, Settings};
use crate::{output, signals};

/// Everything of a run, read and tokenised.
pub struct Training<'t> {
    /// Holds the plan too.
    pub provenance: Provenance,
    /// For `run.toml`.
    pub settings: Settings,
    /// Rows that choose or steer.
    pub chose: Chosen,
    pub start: Start,
    pub output: &'t Path,
    pub train: &'t Encoded,
    pub eval: Option<&'t Encoded>,
    pub guides: Guides<'t>,
    pub device: &'t Device,
    pub is_fresh: bool,
}

/// The weights that a run starts from.
pub struct Start {
    pub folder: PathBuf,
    pub labels: Vec<String>,
    pub head: HeadOf,
    pub weights: WeightsFrom,
}

/// Where the other weights come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightsFrom {
    /// The folder's; that there are none is an error.
    Folder,
    /// The run's seed: the folder has a config and a tokenizer, and no weights.
    Seed,
}

impl WeightsFrom {
    /// For students, which may be no more than a config.
    pub fn of(folder: &Path) -> WeightsFrom {
        match has_weights(folder) {
            true => WeightsFrom::Folder,
            false => WeightsFrom::Seed,
        }
    }

    /// For what is no student: as the settings say. Weights that would be passed over are refused.
    pub fn asked(settings: &Settings, folder: &Path) -> Result<WeightsFrom> {
        match (settings.from_scratch.unwrap_or(false), has_weights(folder)) {
            (false, _) => Ok(WeightsFrom::Folder),
            (true, false) => Ok(WeightsFrom::Seed),
            (true, true) => Err(Usage(format!(
                "from-scratch starts from new weights, and {} has some; take --from-scratch=false, or copy its config.json and \
                 tokenizer into a folder of their own",
                folder.display()
            ))
            .into()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadOf {
    /// The checkpoint's, whose classes are those of the data.
    Base,
    /// The checkpoint's, with rows from the run's seed for new classes.
    Grown,
    /// A new one, from the run's seed.
    Seed,
}

/// A finished run of one seed.
pub struct Ended {
    pub release: Release,
    pub train_seconds: f64,
}

/// From the newest checkpoint or from the start. `None` where it was interrupted.
pub fn run(training: &Training, started: Instant, console: &mut Console) -> Result<Option<Ended>> {
    let Training { provenance, output, .. } = training;
    let plan = &provenance.plan;
    output::refuse_foreign(output, &training.start.folder)?;
    let what = Run {
        provenance,
        train: training.train,
        eval: training.eval,
        guides: training.guides,
        dir: output,
        tokenizer_from: &training.start.folder,
    };
    // What is refused leaves no folder behind.
    let started_early = match output.exists() {
        true => None,
        false => Some(start(training, &what, console)?),
    };
    let _lock = output::lock(output)?;
    let there = if training.is_fresh { None } else { finished(output, provenance)? };
    if let Some(done) = there {
        console.tell(&format!("{} is finished; --fresh starts over", output.display()))?;
        tell_scores(&done.release, plan, output, console)?;
        let results = json!({
            "event": "finished", "output": output, "metrics": done.release.scores, "train_seconds": 0.0,
            "peak_rss_mib": peak_rss_mib(), "already": true,
        });
        output::sweep(output, &results, plan.keep_checkpoints)?;
        training.chose.write(output)?; // of a program that didn't yet
        console.event(&results);
        return Ok(Some(Ended { release: done.release, train_seconds: 0.0 }));
    }
    // Another run, or a base that can't be read, is refused before anything of the run that is here is changed.
    if !training.is_fresh {
        find_latest(output, provenance)?;
    }
    let mut state = match started_early {
        Some(state) => state,
        None => start(training, &what, console)?,
    };
    if training.is_fresh {
        output::start_over(output)?;
    }
    write_file(&output.join("run.toml"), settings::to_toml(&training.settings)?.as_bytes())?;
    training.chose.write(output)?;

    let mut record = Record::open(output)?;
    let setup_seconds = started.elapsed().as_secs_f64();
    let begun = Instant::now();
    signals::work_begins();
    let mut status = Status::new();
    status.has_worst = plan.is_of_classes();
    let mut failed = Ok(());
    let outcome = train(&what, &mut state, &signals::STOP, &mut |event| {
        status.show(&event, begun.elapsed(), &console.terminal, &mut console.err);
        console.event(&as_json(&event));
        if let Err(error) = record.take(&event) {
            // The run is worth more than its log, but the log's trouble is told.
            failed = Err(error);
        }
    });
    status.end(&mut console.err);
    let outcome = outcome?;
    failed?;
    let train_seconds = begun.elapsed().as_secs_f64();
    let release = match outcome {
        Outcome::Interrupted { step } => {
            let total = plan.total_steps(&training.train.lengths());
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
    tell_scores(&release, plan, output, console)?;
    console.event(&results);
    Ok(Some(Ended { release, train_seconds }))
}

/// The state before the first update, of a run that nothing speaks against.
fn start(training: &Training, run: &Run, console: &mut Console) -> Result<State> {
    let plan = &training.provenance.plan;
    let model = model(training, 0, console)?;
    let model = match (plan.method, training.guides.old_weights) {
        (Method::ShrinkPerturb { shrink, perturb }, Some(old)) => {
            let var = |(name, old): (&String, &Tensor)| Ok((name.clone(), Var::from_tensor(old)?));
            let old = Params(old.params.iter().map(var).collect::<Result<_>>()?);
            let params = shrink_perturb(&old, &model.params, shrink, perturb)?;
            Classifier::new(model.config, params)?
        }
        _ => model,
    };
    let state = State::new(model)?;
    let state = match plan.method {
        Method::CoDistil { .. } => state.with_peer(self::model(training, 1, console)?)?,
        _ => state,
    };
    check(run, &state)?;
    Ok(state)
}

/// The start's weights; `index` tells the heads of two students apart.
fn model(training: &Training, index: u64, console: &mut Console) -> Result<Classifier> {
    let (plan, start) = (&training.provenance.plan, &training.start);
    let mut rng = Rng::stream(plan.seed, "head", index);
    let labels = start.labels.clone();
    if start.weights == WeightsFrom::Seed {
        console
            .tell(&format!("{} has no weights: all parameters are new", start.folder.display()))?;
        let config = Config::open(&start.folder)?;
        let mut model = Classifier::fresh(config, labels, &mut || rng.normal(), training.device)?;
        set_outputs(&mut model, training)?;
        set_prior(&model, training.train)?;
        set_dropout(&mut model, plan);
        return Ok(model);
    }
    let head = match start.head {
        HeadOf::Base => Head::FromCheckpoint,
        HeadOf::Grown => Head::Grown { labels, normal: &mut || rng.normal() },
        HeadOf::Seed => Head::Fresh { labels, normal: &mut || rng.normal() },
    };
    let (mut model, report) = Classifier::open(&start.folder, head, training.device)?;
    set_outputs(&mut model, training)?;
    if start.head == HeadOf::Seed {
        set_prior(&model, training.train)?;
    }
    if !report.fresh.is_empty() {
        console.tell(&format!("new parameters: {}", report.fresh.join(", ")))?;
    }
    let fresh: Vec<&str> = report.fresh.iter().chain(&report.grown).map(String::as_str).collect();
    if plan.freeze.head && !fresh.is_empty() {
        let (freeze, fresh) = (plan.freeze, fresh.join(", "));
        return Err(Usage(format!(
            "freeze is {freeze}, but {fresh} starts anew, and would stay as it was drawn; train the head"
        ))
        .into());
    }
    if !report.unused.is_empty() {
        console.tell(&format!("not used of the checkpoint: {}", report.unused.join(", ")))?;
    }
    set_dropout(&mut model, plan);
    Ok(model)
}

fn set_dropout(model: &mut Classifier, plan: &Plan) {
    let Some(p) = plan.dropout else { return };
    model.config.set_dropout(p as f32);
}

/// A new head for sets of labels says the labels' shares of the training rows to every text (Lin et al. 2017, 1708.02002,
/// section 3.3, with the shares for their constant). From zeros each label is as likely as not, the first updates push all of them
/// down alike, and small encoders were seen to stay at the shares for thousands of updates (LOG.md).
fn set_prior(model: &Classifier, train: &Encoded) -> Result<()> {
    let Some(odds) = train.targets.log_odds(model.labels().len()) else { return Ok(()) };
    let is_bias = |name: &str| is_head(name) && name.ends_with(".bias");
    if let Some((_, bias)) = model.params.0.iter().find(|(name, _)| is_bias(name)) {
        let odds: Vec<f32> = odds.iter().map(|&odds| odds as f32).collect();
        bias.set(&Tensor::from_vec(odds, bias.dims(), bias.device())?)?; // (K)
    }
    Ok(())
}

/// What the outputs stand for: the kind of the rows, and the plan's threshold or the one that the kept head has.
fn set_outputs(model: &mut Classifier, training: &Training) -> Result<()> {
    let config = &mut model.config;
    if training.start.head == HeadOf::Seed {
        config.raw.shift_remove("thresholds");
    }
    Outputs { kind: training.train.targets.kind(), thresholds: Vec::new() }.write_kind(config);
    let outputs = Outputs::of(config)?;
    match training.provenance.plan.threshold {
        Some(Threshold::Fixed(value)) => outputs.with_threshold(value).write(config),
        Some(Threshold::Tuned) | None => outputs.write(config),
    }
    Ok(())
}

fn tell_scores(release: &Release, plan: &Plan, output: &Path, console: &mut Console) -> Result<()> {
    let worst = |scores| if plan.is_of_classes() { worst_of(scores) } else { String::new() };
    let line = |scores| scores_line(scores) + &worst(scores);
    let scores = release.scores.as_ref().map_or("not evaluated".into(), line);
    Ok(console.tell(&format!("{}: {scores} (update {})", output.display(), count(release.step)))?)
}
