//! The loop: order → update → log → evaluate → checkpoint. Where a batch comes from is a function of plan and step alone,
//! so a run that is resumed does what the run that was killed would have done.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use lowchurn_data::{Batch, Encoded, Targets, collate, epoch_order, first_largest};
use lowchurn_kernels::{awake, sum_of_squares};

use crate::checkpoint::{self, remove_checkpoints};
use crate::eval::{accuracy_by_group, predict_from};
use crate::release::withdraw;
use crate::states::text_vectors;
use crate::teacher::in_place_of;
use crate::variance::{check_control, renew_control};
use crate::{
    Error, Guides, Lambda, LogEntry, Outputs, Plan, Provenance, Release, Result, Scores, State,
    StepReport, TextVector, Threshold, TrainOnly, Vectors, ascend, bounded, check,
    evaluate_targets, predict, raise, release, step_deferring, tuned_thresholds, worst_classes,
};

/// What a run is given; nothing of it changes.
pub struct Run<'r> {
    pub provenance: &'r Provenance,
    pub train: &'r Encoded,
    pub eval: Option<&'r Encoded>,
    pub guides: Guides<'r>,
    /// The run's folder.
    pub dir: &'r Path,
    /// Where the tokenizer's files are copied from.
    pub tokenizer_from: &'r Path,
}

#[derive(Clone, Debug)]
pub enum Event {
    Resumed {
        step: u64,
        total: u64,
    },
    Stepped {
        step: u64,
        total: u64,
        report: StepReport,
    },
    Logged(LogEntry),
    /// Churn on held-out rows, and the weight of the teacher from here on.
    Churned {
        step: u64,
        churn: f64,
        lambda: f64,
    },
    /// A look at held-out rows: each class or group, and which of them is worst off.
    Steered {
        step: u64,
        worst: usize,
        all: Vec<Steered>,
    },
    Evaluating {
        done: usize,
        rows: usize,
    },
    Evaluated {
        step: u64,
        scores: Scores,
        is_best: bool,
    },
    Saved {
        step: u64,
        path: PathBuf,
    },
    StoppedEarly {
        step: u64,
        n_evals: u32,
    },
}

/// A class or group as a look at held-out rows left it.
#[derive(Clone, Debug, PartialEq)]
pub struct Steered {
    pub name: String,
    /// The mean over its rows.
    pub loss: f64,
    /// From here on.
    pub weight: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Finished(Release),
    /// A checkpoint of this step is there; the same run goes on from it.
    Interrupted {
        step: u64,
    },
}

/// Goes on from the newest checkpoint, or from the start, to the end of the plan, or until `stop` is set. `state` holds the
/// weights that the run starts from, also where it goes on: adapters are added to them.
///
/// Whether the run is finished already is for [`crate::finished`] to say: from here on it isn't.
///
/// # Errors
/// Before the first update, of rows: [`Error::NothingToTrainOn`], [`Error::NothingToEvaluate`], [`Error::Unlabelled`],
/// [`Error::EmptyRow`], [`Error::LabelIndex`], [`Error::OtherKind`]; of what the plan asks for: [`Error::Method`],
/// [`Error::MethodNeeds`], [`Error::TeacherShape`], [`Error::Objective`], [`Error::States`], [`Error::Reduction`],
/// [`Error::OtherArchitecture`], [`Error::LambdaRange`], [`Error::Outputs`], those of [`crate::check_trained`]; of the folder:
/// [`Error::OverBase`], [`Error::OtherRun`], those of a checkpoint that is gone on from. On the way [`Error::NoGradient`],
/// [`Error::NotFinite`], [`Error::NotFiniteLogits`] and [`Error::Write`].
pub fn train(
    run: &Run,
    state: &mut State,
    stop: &AtomicBool,
    on: &mut dyn FnMut(Event),
) -> Result<Outcome> {
    let plan = &run.provenance.plan;
    let shares = check(run, state)?;
    let models =
        std::iter::once(&mut state.model).chain(state.peer.iter_mut().map(|p| &mut p.model));
    for model in models {
        model.precision = plan.precision;
        if let Some(p) = plan.dropout {
            model.config.set_dropout(p as f32);
        }
    }
    state.train_parts(plan)?;
    state.project(plan, &run.guides.shown)?;
    let made = features_of(run, state)?;
    let near = in_place_of(run.guides.teacher, &plan.method, &run.train.labels)?;
    let guides = Guides { neighbours: near.as_ref(), ..with_features(run, made.as_ref()) };
    check_control(plan, &guides, run.train, state)?; // again, of the part that is trained
    let lengths = run.train.lengths();
    let (per_epoch, total) = (plan.steps_per_epoch(&lengths), plan.total_steps(&lengths));
    let device = state.device();
    if let Some((path, manifest)) = checkpoint::find_latest(run.dir, run.provenance)? {
        checkpoint::load(run.dir, &path, &manifest, plan, &guides, state)?;
        on(Event::Resumed { step: state.step, total });
    }
    withdraw(run.dir)?;
    let guides = Guides { shares: shares.as_ref(), ..guides };
    if plan.keep_checkpoints && state.step == 0 {
        save_now(run, state, total, 0.0, on)?; // where the run starts
    }
    let mut order = (u64::MAX, Vec::new());
    while state.step < total && !state.progress.is_stopped_early {
        let epoch = state.step / per_epoch;
        if order.0 != epoch {
            order = (epoch, epoch_order(&lengths, plan.batch_size, plan.seed, epoch));
        }
        let micro = batches(plan, run.train, &order.1, state.step % per_epoch, state);
        watch_churn(run, state, total, on)?;
        watch_classes(run, state, on)?;
        renew_control(plan, &guides, run.train, per_epoch, state)?;
        let report =
            awake(|| step_deferring(state, plan, run.train, &guides, &micro, total, &device))?;
        state.progress.record(&report);
        on(Event::Stepped { step: state.step, total, report });

        let at = state.step;
        let epoch = at as f64 / per_epoch as f64;
        let is_last = at == total;
        let is_epoch_end = at.is_multiple_of(per_epoch);
        let every = |n: u64| n > 0 && at.is_multiple_of(n);
        if every(plan.logging_steps) || is_last {
            on(Event::Logged(state.progress.log_training(at, epoch, &report)));
        }
        let evaluates = is_last || every(plan.eval_steps) || (plan.eval_steps == 0 && is_epoch_end);
        if let (true, Some(rows)) = (evaluates, run.eval) {
            evaluate_now(plan, rows, &guides, state, epoch, on)?;
        }
        let is_stopping = stop.load(Ordering::Relaxed);
        if evaluates || every(plan.save_steps) || is_stopping {
            save_now(run, state, total, epoch, on)?;
        }
        if is_stopping && !is_last {
            return Ok(Outcome::Interrupted { step: at });
        }
    }
    let epoch = state.step as f64 / per_epoch as f64;
    state.settle()?;
    let done = release(run.dir, state, run.provenance, run.tokenizer_from, total, epoch)?;
    Ok(Outcome::Finished(done))
}

/// What the last layer reads of each row, to train on and to evaluate on, where it alone is trained and nobody has them yet.
type Features = (Option<Vectors>, Option<Vectors>);

/// Costs one forward pass of each row.
fn features_of(run: &Run, state: &State) -> Result<Option<Features>> {
    let plan = &run.provenance.plan;
    if plan.train_only != Some(TrainOnly::LastLayer) {
        return Ok(None);
    }
    let of = |rows: &Encoded| -> Result<Vectors> {
        let (size, kind, device) = (plan.eval_batch_size, TextVector::Pooled, state.device());
        let values = text_vectors(&state.model, rows, size, kind, &device)?;
        Ok(Vectors { width: state.model.config.hidden_size, values })
    };
    let train = if run.guides.features.is_none() { Some(of(run.train)?) } else { None };
    let eval = match (run.eval, run.guides.eval_features) {
        (Some(rows), None) => Some(of(rows)?),
        _ => None,
    };
    Ok(Some((train, eval)))
}

/// The run's guides with them.
fn with_features<'r>(run: &Run<'r>, made: Option<&'r Features>) -> Guides<'r> {
    let Some((train, eval)) = made else {
        return Guides { features: None, eval_features: None, ..run.guides };
    };
    Guides {
        features: run.guides.features.or(train.as_ref()),
        eval_features: run.guides.eval_features.or(eval.as_ref()),
        ..run.guides
    }
}

/// The batches behind update `index` of an epoch.
fn batches(
    plan: &Plan,
    rows: &Encoded,
    order: &[Vec<u32>],
    index: u64,
    state: &State,
) -> Vec<Batch> {
    let first = index as usize * plan.accumulation;
    let last = order.len().min(first + plan.accumulation);
    let pad = state.model.config.pad_token_id;
    order[first..last].iter().map(|rows_of_batch| collate(rows, rows_of_batch, pad)).collect()
}

/// Dual ascent: measures churn before every so many updates and moves the multiplier.
fn watch_churn(run: &Run, state: &mut State, total: u64, on: &mut dyn FnMut(Event)) -> Result<()> {
    let plan = &run.provenance.plan;
    let (Some(lambda @ Lambda::Budget { max_churn, rate, every }), Some(buffer)) =
        (plan.method.lambda(), run.guides.buffer)
    else {
        return Ok(());
    };
    // The start tells nothing: a cold head disagrees with everything, a warm one with nothing.
    if state.step == 0 || !state.step.is_multiple_of(every) {
        return Ok(());
    }
    let device = state.device();
    let churn = buffer.churn(state.settled()?, plan.eval_batch_size, &device)?;
    state.progress.multiplier = ascend(state.progress.multiplier, churn, max_churn, rate);
    let lambda = lambda.at(state.step, total, state.progress.multiplier);
    on(Event::Churned { step: state.step, churn, lambda });
    Ok(())
}

/// Exponentiated gradient: measures every class or group before every so many updates and moves their weights.
fn watch_classes(run: &Run, state: &mut State, on: &mut dyn FnMut(Event)) -> Result<()> {
    let plan = &run.provenance.plan;
    let (Some(robust), Some(steering)) = (plan.objective.robust(), run.guides.steering) else {
        return Ok(());
    };
    if state.step == 0 || !state.step.is_multiple_of(robust.every) {
        return Ok(());
    }
    let device = state.device();
    let losses = steering.losses(robust, state.settled()?, plan.eval_batch_size, &device)?;
    if state.progress.log_weights.len() != losses.len() {
        state.progress.log_weights = vec![-(losses.len() as f64).ln(); losses.len()];
    }
    let raised = raise(&state.progress.log_weights, &losses, robust.step);
    let weights = bounded(&raised, robust.ratio);
    let worst = first_largest(losses.len(), |at| losses[at]);
    let names = match run.guides.groups {
        Some(groups) => &groups.names,
        None => state.model.labels(),
    };
    let each = names.iter().zip(losses.iter().zip(&weights));
    let all =
        each.map(|(name, (&loss, log))| Steered { name: name.clone(), loss, weight: log.exp() });
    on(Event::Steered { step: state.step, worst, all: all.collect() });
    state.progress.log_weights = weights;
    Ok(())
}

fn evaluate_now(
    plan: &Plan,
    rows: &Encoded,
    guides: &Guides,
    state: &mut State,
    epoch: f64,
    on: &mut dyn FnMut(Event),
) -> Result<()> {
    let device = state.device();
    let n = rows.rows();
    let predictions = match guides.eval_features {
        Some(features) => predict_from(state.settled()?, features, &device)?,
        None => predict(state.settled()?, rows, plan.eval_batch_size, &device, &mut |done| {
            on(Event::Evaluating { done, rows: n });
        })?,
    };
    let mut outputs = Outputs::of(&state.model.config)?;
    let thresholds = match (plan.threshold, &rows.targets) {
        (Some(Threshold::Tuned), Targets::Sets(sets)) => Some(tuned_thresholds(&predictions, sets)),
        _ => None,
    };
    if let Some(thresholds) = &thresholds {
        outputs.thresholds.clone_from(thresholds);
    }
    let mut scores = evaluate_targets(&predictions, &rows.labels, &rows.targets, &outputs)?;
    if plan.is_of_classes() {
        scores.worst_class =
            worst_classes(&predictions, &rows.labels, 1)?.map(|worst| worst.recall);
    }
    if let Some(groups) = guides.groups {
        scores.groups = accuracy_by_group(&predictions, &rows.labels, groups);
    }
    let (entry, is_best) =
        state.progress.log_evaluation(state.step, epoch, &scores, thresholds, plan);
    on(Event::Logged(entry));
    on(Event::Evaluated { step: state.step, scores, is_best });
    let n_evals = state.progress.n_evals_without_gain;
    if plan.patience > 0 && n_evals >= plan.patience {
        state.progress.is_stopped_early = true;
        on(Event::StoppedEarly { step: state.step, n_evals });
    }
    Ok(())
}

/// Saves, then removes what neither a resume nor the release needs. Weights that aren't numbers are no checkpoint: they
/// would push out the good one.
fn save_now(
    run: &Run,
    state: &mut State,
    total: u64,
    epoch: f64,
    on: &mut dyn FnMut(Event),
) -> Result<()> {
    state.settle()?;
    for (_, weights) in state.model.params.tensors() {
        if !sum_of_squares(weights)?.is_finite() {
            return Err(Error::NotFinite { what: "norm of the weights", step: state.step });
        }
    }
    let path = checkpoint::save(run.dir, state, run.provenance, run.tokenizer_from, total, epoch)?;
    on(Event::Saved { step: state.step, path });
    if run.provenance.plan.keep_checkpoints {
        return Ok(());
    }
    let best = state.progress.best.as_ref().map_or(state.step, |best| best.step);
    remove_checkpoints(run.dir, &[state.step, best])
}
