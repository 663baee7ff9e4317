//! All that changes while a run goes on. What it doesn't hold is a function of plan, data and the step.

use candle_core::Device;
use lowchurn_data::{Batch, Kind};
use lowchurn_models::{Classifier, Params};
use serde::{Deserialize, Serialize};

use crate::states::fresh_projections;
use crate::variance::Control;
use crate::{Optimizer, Plan, Result, Scores, SelectBy, Shown, StepReport, Trained};

pub struct State {
    /// After [`crate::step_deferring`] some rows of its table of words miss updates: [`State::settled`] lends it whole.
    pub model: Classifier,
    /// What of it learns.
    pub trained: Trained,
    pub optimizer: Optimizer,
    /// Updates done.
    pub step: u64,
    pub progress: Progress,
    /// Co-distillation's second student.
    pub peer: Option<Peer>,
    /// What is taken off the update's gradient, from where on the plan has it.
    pub control: Option<Control>,
    /// What leads a student's states to a teacher's, where the plan follows them.
    pub projections: Option<Projections>,
}

/// Saved with every checkpoint, and of no use once the student is trained.
pub struct Projections {
    pub params: Params,
    pub optimizer: Optimizer,
}

pub struct Peer {
    pub model: Classifier,
    pub trained: Trained,
    pub optimizer: Optimizer,
}

/// The part of the state that fits into a small file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    pub n_tokens_seen: u64,
    pub since_log: Sums,
    pub best: Option<Best>,
    /// Evaluations in a row that were no better than the best.
    pub n_evals_without_gain: u32,
    /// Whether `patience` ended the run.
    pub is_stopped_early: bool,
    pub log: Vec<LogEntry>,
    /// μ of a churn budget, see [`crate::Lambda`].
    #[serde(default)]
    pub multiplier: f64,
    /// (K,) or (G,) Logarithms of the weights of the worst classes or groups, see [`crate::Objective`]; nothing for even ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_weights: Vec<f64>,
    /// Updates done when the weights of the control were taken, see [`crate::VarianceReduction`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_at: Option<u64>,
}

/// Sums over the rows since the last line of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    pub loss_sum: f64,
    pub n_correct: u64,
    pub n_rows: u64,
    #[serde(default)]
    pub n_agreed: u64,
    #[serde(default)]
    pub n_unlabelled: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    pub step: u64,
    /// High is good: the loss has its sign turned.
    pub value: f64,
    pub scores: Scores,
    /// (K,) Of the evaluation, where the plan has them tuned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<Vec<f64>>,
}

/// A line of the log, with the keys of transformers' Trainer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LogEntry {
    Train {
        step: u64,
        epoch: f64,
        loss: f64,
        /// Of the rows with a label; a regression has none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        accuracy: Option<f64>,
        grad_norm: f64,
        learning_rate: f64,
        /// The teacher's weight, and the share of rows on which the student predicts what the teacher does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lambda: Option<f64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agreement: Option<f64>,
    },
    Eval {
        step: u64,
        epoch: f64,
        eval_loss: f64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        eval_accuracy: Option<f64>,
        eval_f1: Option<f64>,
        eval_matthews: Option<f64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        eval_macro_f1: Option<f64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        eval_pearson: Option<f64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        eval_spearman: Option<f64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        eval_worst_class: Option<f64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        eval_worst_group: Option<f64>,
    },
}

impl State {
    /// All of the model learns, unless [`State::train_parts`] says otherwise.
    pub fn new(model: Classifier) -> Result<State> {
        let (trained, optimizer) = (Trained::all(&model), Optimizer::zeros(&model.params)?);
        let progress = Progress::default();
        Ok(State {
            model,
            trained,
            optimizer,
            step: 0,
            progress,
            peer: None,
            control: None,
            projections: None,
        })
    }

    /// With a second student for co-distillation.
    pub fn with_peer(mut self, model: Classifier) -> Result<State> {
        let (trained, optimizer) = (Trained::all(&model), Optimizer::zeros(&model.params)?);
        self.peer = Some(Peer { model, trained, optimizer });
        Ok(self)
    }

    /// Of both students, what the plan says; to be called before the first update, since moments start anew.
    pub fn train_parts(&mut self, plan: &Plan) -> Result<()> {
        self.trained = Trained::of(plan, &mut self.model, 0)?;
        self.optimizer = Optimizer::of(plan, &self.trained.moved)?;
        if let Some(Peer { model, trained, optimizer }) = &mut self.peer {
            *trained = Trained::of(plan, model, 1)?;
            *optimizer = Optimizer::of(plan, &trained.moved)?;
        }
        Ok(())
    }

    /// Makes the projections that a plan's terms need, the same for the same plan and sizes; nothing where they are there.
    pub fn project(&mut self, plan: &Plan, shown: &Shown) -> Result<()> {
        let Some(terms) = plan.states.filter(|_| self.projections.is_none()) else { return Ok(()) };
        let teacher_width = shown.model.map_or(0, |model| model.config.hidden_size);
        let vector_width = shown.vectors.map_or(0, |vectors| vectors.width);
        let shapes = terms.projections(&self.model.config, teacher_width, vector_width);
        let params = fresh_projections(shapes, plan.seed, &self.device())?;
        let optimizer = Optimizer::of(plan, &params)?;
        self.projections = Some(Projections { params, optimizer });
        Ok(())
    }

    /// Brings the words that these batches hold up to date, in both students.
    pub fn catch_up(&mut self, batches: &[Batch]) -> Result<()> {
        let tokens: Vec<u32> = batches.iter().flat_map(|batch| &batch.tokens).copied().collect();
        self.optimizer.catch_up(&self.trained.moved, &tokens)?;
        match &mut self.peer {
            Some(peer) => peer.optimizer.catch_up(&peer.trained.moved, &tokens),
            None => Ok(()),
        }
    }

    /// Brings everything up to date; costs nothing where it is.
    pub fn settle(&mut self) -> Result<()> {
        self.optimizer.settle(&self.trained.moved)?;
        match &mut self.peer {
            Some(peer) => peer.optimizer.settle(&peer.trained.moved),
            None => Ok(()),
        }
    }

    /// The model as all updates so far have made it.
    pub fn settled(&mut self) -> Result<&Classifier> {
        self.settle()?;
        Ok(&self.model)
    }

    pub fn device(&self) -> Device {
        self.model.params.0.values().next().map_or(Device::Cpu, |var| var.device().clone())
    }
}

impl Progress {
    pub fn record(&mut self, means: &StepReport) {
        self.n_tokens_seen += means.n_tokens;
        self.since_log.loss_sum += means.loss_sum;
        self.since_log.n_correct += means.n_correct;
        self.since_log.n_rows += means.n_rows;
        self.since_log.n_agreed += means.n_agreed;
        self.since_log.n_unlabelled += means.n_unlabelled;
    }

    /// Closes the sums into a line of the log.
    pub fn log_training(&mut self, step: u64, epoch: f64, means: &StepReport) -> LogEntry {
        let sums = std::mem::take(&mut self.since_log);
        let n = sums.n_rows.max(1) as f64;
        let n_labelled = sums.n_rows.saturating_sub(sums.n_unlabelled).max(1) as f64;
        // Numbers are neither right nor agreed on.
        let is_counted = means.kind != Kind::Regression;
        let entry = LogEntry::Train {
            step,
            epoch,
            loss: sums.loss_sum / n,
            accuracy: is_counted.then_some(sums.n_correct as f64 / n_labelled),
            grad_norm: means.gradient_norm,
            learning_rate: means.learning_rate,
            lambda: means.lambda,
            agreement: means.lambda.filter(|_| is_counted).map(|_| sums.n_agreed as f64 / n),
        };
        self.log.push(entry.clone());
        entry
    }

    /// Whether this evaluation is the best so far. The first of equals stays the best.
    pub fn log_evaluation(
        &mut self,
        step: u64,
        epoch: f64,
        scores: &Scores,
        thresholds: Option<Vec<f64>>,
        plan: &Plan,
    ) -> (LogEntry, bool) {
        let value = selected(scores, plan.select_by);
        let is_best = self.best.as_ref().is_none_or(|best| value > best.value);
        if is_best {
            self.best = Some(Best { step, value, scores: scores.clone(), thresholds });
            self.n_evals_without_gain = 0;
        } else {
            self.n_evals_without_gain += 1;
        }
        let entry = LogEntry::Eval {
            step,
            epoch,
            eval_loss: scores.loss,
            eval_accuracy: scores.accuracy,
            eval_f1: scores.f1,
            eval_matthews: scores.matthews,
            eval_macro_f1: scores.macro_f1,
            eval_pearson: scores.pearson,
            eval_spearman: scores.spearman,
            eval_worst_class: scores.worst_class,
            eval_worst_group: scores.worst_group().map(|(_, accuracy)| accuracy),
        };
        self.log.push(entry.clone());
        (entry, is_best)
    }
}

/// The number that is to be high. A metric that isn't defined on these rows loses to any that is.
fn selected(scores: &Scores, by: SelectBy) -> f64 {
    match (by, by.of(scores)) {
        (SelectBy::Loss, Some(loss)) => -loss,
        (_, Some(value)) => value,
        (_, None) => -2.0, // not −∞, which JSON doesn't have
    }
}
