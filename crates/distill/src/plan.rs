//! The settings of a run, resolved and checked. What a user typed becomes this once; only this is run and saved.

use lowchurn_data::{BatchSize, Metric, batches_per_epoch};
use lowchurn_kernels::Precision;
use serde::{Deserialize, Serialize};

use crate::precision::{PrecisionName, is_f32};
use crate::remarks::refuse_idle;
use crate::trained::LORA_ALPHA;
use crate::{
    Error, Freeze, Method, Objective, OptimizerName, Result, Schedule, Scores, StateTerms,
    Threshold, TrainOnly, VarianceReduction,
};

/// Everything that decides the bytes of the trained weights, given base checkpoint and data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    #[serde(default = "retrain", skip_serializing_if = "is_retrain")]
    pub method: Method,
    /// Whose mistakes count how much.
    #[serde(default, skip_serializing_if = "Objective::is_standard")]
    pub objective: Objective,
    /// What is taken off the update's gradient to make it calmer.
    #[serde(default, skip_serializing_if = "VarianceReduction::is_none")]
    pub variance_reduction: VarianceReduction,
    #[serde(default, skip_serializing_if = "OptimizerName::is_adamw")]
    pub optimizer: OptimizerName,
    pub epochs: u32,
    /// Stops after this many updates, whatever `epochs` says, and shapes the schedule.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_steps: Option<u64>,
    /// Of one forward pass.
    pub batch_size: BatchSize,
    /// Forward passes behind one update.
    pub accumulation: usize,
    pub eval_batch_size: usize,
    /// Tokens a row is cut to.
    pub max_length: usize,
    pub learning_rate: f64,
    pub schedule: Schedule,
    pub warmup_steps: u64,
    /// On matrices and tables only, not on biases and norms.
    pub weight_decay: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    /// Gradients are clipped to this global norm; 0 leaves them alone.
    pub max_grad_norm: f64,
    /// The share of each target spread evenly over the classes.
    pub label_smoothing: f64,
    /// (K,) See [`crate::Against::class_weight`].
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub class_weight: Vec<f64>,
    /// Of a multi-label model; `None`: the base's own, else 0.5.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub threshold: Option<Threshold>,
    /// What of a teacher is followed besides its logits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub states: Option<StateTerms>,
    /// In place of the dropout of the checkpoint's config, everywhere; `train` sees to it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dropout: Option<f64>,
    /// Of the encoder's matrix products, in training and in its evaluations; `train` sees to it.
    // Left out where it is f32, as plans of before there was a choice have it.
    #[serde(with = "PrecisionName", skip_serializing_if = "is_f32", default)]
    pub precision: Precision,
    /// Parts that stand still. To this and the next five `train` sees.
    #[serde(skip_serializing_if = "Freeze::is_nothing", default)]
    pub freeze: Freeze,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub train_only: Option<TrainOnly>,
    /// Each layer learns at this share of the rate of the one above it, the highest of that of the head.
    #[serde(skip_serializing_if = "is_one", default = "one")]
    pub layer_decay: f64,
    /// With a rank, matrices have low-rank adapters, and besides them the head alone is trained.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lora_rank: Option<usize>,
    /// The adapters' product is multiplied by alpha/rank.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lora_alpha: Option<f64>,
    /// Modules that get an adapter; `None` means those that are usual for the architecture.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lora_targets: Option<Vec<String>>,
    pub seed: u64,
    /// Evaluates and saves every n updates; 0 means at the end of each epoch.
    pub eval_steps: u64,
    /// Saves every n updates between evaluations too; 0 means only with evaluations.
    pub save_steps: u64,
    /// Every checkpoint stays, also one of before the first update and also when the run is done.
    #[serde(default, skip_serializing_if = "is_false")]
    pub keep_checkpoints: bool,
    pub logging_steps: u64,
    /// Stops after this many evaluations in a row without a better one; 0 means never.
    pub patience: u32,
    pub select_by: SelectBy,
}

/// Tokens of a batch at most; 256 times as many as anybody's.
const MOST_TOKENS: usize = 1 << 24;

// Plans of before there were methods are read and written as they were.
fn retrain() -> Method {
    Method::Retrain
}

fn is_false(x: &bool) -> bool {
    !x
}

fn is_retrain(method: &Method) -> bool {
    *method == Method::Retrain
}

fn one() -> f64 {
    1.0
}

fn is_one(x: &f64) -> bool {
    *x == 1.0
}

/// What makes one evaluation better than another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SelectBy {
    Accuracy,
    F1,
    Matthews,
    MacroF1,
    Pearson,
    Spearman,
    /// The lowest recall of a class; where the objective groups rows, the lowest accuracy of a group.
    WorstClass,
    Loss,
}

impl SelectBy {
    /// The number in question, as it is reported; `None` where it isn't defined.
    pub fn of(self, scores: &Scores) -> Option<f64> {
        match self {
            SelectBy::Accuracy => scores.accuracy,
            SelectBy::F1 => scores.f1,
            SelectBy::Matthews => scores.matthews,
            SelectBy::MacroF1 => scores.macro_f1,
            SelectBy::Pearson => scores.pearson,
            SelectBy::Spearman => scores.spearman,
            SelectBy::WorstClass => scores.worst(),
            SelectBy::Loss => Some(scores.loss),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            SelectBy::Accuracy => "accuracy",
            SelectBy::F1 => "f1",
            SelectBy::Matthews => "matthews",
            SelectBy::MacroF1 => "macro_f1",
            SelectBy::Pearson => "pearson",
            SelectBy::Spearman => "spearman",
            SelectBy::WorstClass => "worst_class",
            SelectBy::Loss => "loss",
        }
    }
}

impl Plan {
    /// Whether it was asked for the class or group that is worst off.
    pub fn is_of_classes(&self) -> bool {
        self.select_by == SelectBy::WorstClass || !self.objective.is_standard()
    }
}

impl From<Metric> for SelectBy {
    fn from(metric: Metric) -> SelectBy {
        match metric {
            Metric::Accuracy => SelectBy::Accuracy,
            Metric::F1 => SelectBy::F1,
            Metric::Matthews => SelectBy::Matthews,
            Metric::MacroF1 => SelectBy::MacroF1,
            Metric::Pearson => SelectBy::Pearson,
            Metric::Spearman => SelectBy::Spearman,
        }
    }
}

impl Plan {
    /// Refuses numbers that can't be run, and settings that do nothing in any run, before any weight is read.
    pub fn check(self) -> Result<Plan> {
        self.check_values()?;
        refuse_idle(&self)?;
        Ok(self)
    }

    /// Numbers that can't be run; [`crate::train`] refuses them too.
    pub(crate) fn check_values(&self) -> Result<()> {
        let refuse = |key: &'static str, value: String, expected: &'static str| {
            Err(Error::PlanValue { key, value, expected })
        };
        // The kernels count in f32, where 0.99999999 is 1.
        let share = |x: f64| (0.0..1.0).contains(&x) && (x as f32) < 1.0;
        let sizes = [
            ("batch_size", self.batch_size.rows().unwrap_or(1)),
            ("accumulation", self.accumulation),
            ("eval_batch_size", self.eval_batch_size),
        ];
        for (key, value) in sizes {
            if value == 0 {
                return refuse(key, value.to_string(), "at least 1");
            }
        }
        if self.epochs == 0 && self.max_steps.is_none() {
            return refuse("epochs", "0".into(), "at least 1, or max_steps");
        }
        if self.max_steps == Some(0) {
            return refuse("max_steps", "0".into(), "at least 1");
        }
        if self.max_length < 3 {
            return refuse("max_length", self.max_length.to_string(), "at least 3");
        }
        if let BatchSize::Tokens(n) = self.batch_size {
            self.check_tokens(n)?;
        }
        if self.logging_steps == 0 {
            return refuse("logging_steps", "0".into(), "at least 1");
        }
        if !(self.learning_rate > 0.0 && self.learning_rate < 1.0) {
            let value = self.learning_rate.to_string();
            return refuse("learning_rate", value, "a number above 0 and below 1");
        }
        for (key, value) in [
            ("beta1", self.beta1),
            ("beta2", self.beta2),
            ("label_smoothing", self.label_smoothing),
            ("dropout", self.dropout.unwrap_or(0.0)),
            ("weight_decay", self.weight_decay),
        ] {
            if !share(value) {
                return refuse(key, value.to_string(), "a number from 0 up to, not with, 1");
            }
        }
        if let Some(weight) = self.class_weight.iter().find(|w| !(w.is_finite() && **w > 0.0)) {
            return refuse("class_weight", weight.to_string(), "a number above 0 for each class");
        }
        // With 0 (in f32), a weight that never had a gradient would become 0/0.
        if !(self.epsilon < 1.0 && self.epsilon as f32 > 0.0) {
            let value = self.epsilon.to_string();
            return refuse("epsilon", value, "a number above 1e-45 and below 1");
        }
        if !(self.max_grad_norm.is_finite() && self.max_grad_norm >= 0.0) {
            let value = self.max_grad_norm.to_string();
            return refuse("max_grad_norm", value, "0 or a positive number");
        }
        self.variance_reduction.check(self)?;
        self.check_trained_part()?;
        self.states.map(StateTerms::check).transpose()?;
        Ok(())
    }

    /// A row has to fit, and rows of batches of unlike numbers don't weigh alike, which objectives count on.
    fn check_tokens(&self, n: usize) -> Result<()> {
        let reason = if n < self.max_length {
            format!(
                "rows may have max_length = {0} tokens; take tokens:{0} or more, or a lower max_length",
                self.max_length
            )
        } else if n > MOST_TOKENS {
            format!("expected at most tokens:{MOST_TOKENS}")
        } else if !self.objective.is_standard() {
            let name = self.objective.name();
            format!("objective {name} weighs rows by their shares, and is for a number of rows")
        } else {
            return Ok(());
        };
        Err(Error::BatchSize { batch_size: self.batch_size, reason })
    }

    /// What can be said of freezing and adapters without a model; the rest is [`crate::check_trained`]'s.
    fn check_trained_part(&self) -> Result<()> {
        let refuse = |key: &'static str, value: String, expected: &'static str| {
            Err(Error::PlanValue { key, value, expected })
        };
        let decay = self.layer_decay;
        if !(decay > 0.0 && decay <= 1.0) {
            return refuse("layer_decay", decay.to_string(), "a number above 0, at most 1");
        }
        let alpha = self.lora_alpha.unwrap_or(LORA_ALPHA);
        if !(alpha > 0.0 && alpha.is_finite()) {
            return refuse("lora_alpha", alpha.to_string(), "a number above 0");
        }
        if self.train_only == Some(TrainOnly::LastLayer) {
            // The vectors that it reads are made once, and no update runs what is below.
            if self.method.changes_vectors() {
                let expected = "another one where the last layer alone is trained: this one changes what the layers below it make of a row";
                return refuse("method", self.method.to_string(), expected);
            }
            if self.states.is_some() {
                let expected = "more of the model where a teacher's states are followed: they are made below the last layer";
                return refuse("train_only", TrainOnly::LastLayer.name().into(), expected);
            }
        }
        match self.lora_rank {
            Some(0) => refuse("lora_rank", "0".into(), "at least 1"),
            Some(_) if self.train_only.is_some() => {
                let part = self.train_only.map_or("", TrainOnly::name);
                refuse("train_only", part.into(), "nothing beside lora_rank: take one of them")
            }
            Some(_) if matches!(self.method, Method::ShrinkPerturb { .. }) => refuse(
                "method",
                self.method.to_string(),
                "another one beside lora_rank: an adapter belongs to a base that can be named, and this one starts from \
                 a mixture",
            ),
            None if self.lora_alpha.is_some() => {
                refuse("lora_alpha", alpha.to_string(), "nothing without lora_rank")
            }
            None if self.lora_targets.is_some() => {
                let targets = self.lora_targets.iter().flatten().cloned().collect::<Vec<_>>();
                refuse("lora_targets", targets.join(","), "nothing without lora_rank")
            }
            _ => Ok(()),
        }
    }

    /// Updates in one pass over the rows: batches of batches, the last one short.
    pub fn steps_per_epoch(&self, lengths: &[u32]) -> u64 {
        self.updates_of(batches_per_epoch(lengths, self.batch_size))
    }

    fn updates_of(&self, batches: usize) -> u64 {
        batches.div_ceil(self.accumulation) as u64
    }

    pub fn total_steps(&self, lengths: &[u32]) -> u64 {
        self.max_steps.unwrap_or(u64::from(self.epochs) * self.steps_per_epoch(lengths))
    }

    /// Before anybody has counted tokens; `None` where it takes them.
    pub fn steps_per_epoch_of_rows(&self, rows: usize) -> Option<u64> {
        self.batch_size.rows().map(|size| self.updates_of(rows.div_ceil(size)))
    }

    /// Likewise.
    pub fn total_steps_of_rows(&self, rows: usize) -> Option<u64> {
        let of_epochs = |steps| u64::from(self.epochs) * steps;
        self.max_steps.or_else(|| self.steps_per_epoch_of_rows(rows).map(of_epochs))
    }

    pub fn learning_rate_at(&self, step: u64, total: u64) -> f64 {
        self.learning_rate * self.schedule.factor(step, self.warmup_steps, total)
    }

    /// What transformers' run_glue would do, with evaluation each epoch and the best evaluation kept.
    pub fn default_with(select_by: SelectBy) -> Plan {
        Plan {
            method: Method::Retrain,
            objective: Objective::Standard,
            variance_reduction: VarianceReduction::None,
            optimizer: OptimizerName::AdamW,
            epochs: 3,
            max_steps: None,
            batch_size: BatchSize::Rows(32),
            accumulation: 1,
            eval_batch_size: 64,
            max_length: 128,
            learning_rate: 5e-5,
            schedule: Schedule::Linear,
            warmup_steps: 0,
            weight_decay: 0.0,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            max_grad_norm: 1.0,
            label_smoothing: 0.0,
            states: None,
            class_weight: Vec::new(),
            threshold: None,
            dropout: None,
            precision: Precision::F32,
            freeze: Freeze::default(),
            train_only: None,
            layer_decay: 1.0,
            lora_rank: None,
            lora_alpha: None,
            lora_targets: None,
            seed: 42,
            eval_steps: 0,
            save_steps: 0,
            keep_checkpoints: false,
            logging_steps: 50,
            patience: 0,
            select_by,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_numbers_are_refused() {
        let check = |change: fn(&mut Plan), message: &str| {
            let mut plan = Plan::default_with(SelectBy::Accuracy);
            change(&mut plan);
            assert_eq!(plan.check().unwrap_err().to_string(), message);
        };
        check(|p| p.batch_size = BatchSize::Rows(0), "batch_size is 0, expected at least 1");
        check(
            |p| p.batch_size = BatchSize::Tokens(127),
            "batch_size tokens:127: rows may have max_length = 128 tokens; take tokens:128 or more, or a lower max_length",
        );
        check(
            |p| (p.batch_size, p.max_length) = (BatchSize::Tokens(100), 0),
            "max_length is 0, expected at least 3",
        );
        check(
            |p| p.batch_size = BatchSize::Tokens(usize::MAX),
            "batch_size tokens:18446744073709551615: expected at most tokens:16777216",
        );
        check(
            |p| {
                p.batch_size = BatchSize::Tokens(512);
                p.objective = "balanced".parse().unwrap();
            },
            "batch_size tokens:512: objective balanced weighs rows by their shares, and is for a number of rows",
        );
        check(|p| p.epochs = 0, "epochs is 0, expected at least 1, or max_steps");
        check(|p| p.max_steps = Some(0), "max_steps is 0, expected at least 1");
        check(|p| p.max_length = 2, "max_length is 2, expected at least 3");
        check(|p| p.logging_steps = 0, "logging_steps is 0, expected at least 1");
        let expected = "learning_rate is NaN, expected a number above 0 and below 1";
        check(|p| p.learning_rate = f64::NAN, expected);
        check(
            |p| p.dropout = Some(1.0),
            "dropout is 1, expected a number from 0 up to, not with, 1",
        );
        check(|p| p.max_grad_norm = -1.0, "max_grad_norm is -1, expected 0 or a positive number");
        let expected = "beta2 is 0.99999999, expected a number from 0 up to, not with, 1";
        check(|p| p.beta2 = 0.999_999_99, expected);
        let expected = "class_weight is 0, expected a number above 0 for each class";
        check(|p| p.class_weight = vec![1.0, 0.0], expected);
        check(|p| p.epsilon = 0.0, "epsilon is 0, expected a number above 1e-45 and below 1");
        let expected = "layer_decay is 0, expected a number above 0, at most 1";
        check(|p| p.layer_decay = 0.0, expected);
        check(|p| p.layer_decay = 1.5, &expected.replace("is 0", "is 1.5"));
        check(|p| p.layer_decay = f64::NAN, &expected.replace("is 0", "is NaN"));
        check(|p| p.lora_rank = Some(0), "lora_rank is 0, expected at least 1");
        check(|p| p.lora_alpha = Some(8.0), "lora_alpha is 8, expected nothing without lora_rank");
        check(
            |p| p.lora_targets = Some(vec!["query".into(), "key".into()]),
            "lora_targets is query,key, expected nothing without lora_rank",
        );
        fn adapted(plan: &mut Plan) {
            plan.lora_rank = Some(4);
        }
        check(
            |p| {
                adapted(p);
                p.lora_alpha = Some(0.0);
            },
            "lora_alpha is 0, expected a number above 0",
        );
        check(
            |p| {
                adapted(p);
                p.train_only = Some(TrainOnly::Biases);
            },
            "train_only is biases, expected nothing beside lora_rank: take one of them",
        );
        check(
            |p| {
                adapted(p);
                p.method = "shrink-perturb".parse().unwrap();
            },
            "method is shrink-perturb:shrink=0.4,perturb=0.1, expected another one beside lora_rank: an adapter belongs \
             to a base that can be named, and this one starts from a mixture",
        );
        let probe = Plan {
            train_only: Some(TrainOnly::LastLayer),
            ..Plan::default_with(SelectBy::Accuracy)
        };
        for method in ["mixup:alpha=0.2", "mixout:p=0.5", "co-distil:beta=0.5,warmup=0"] {
            let plan = Plan { method: method.parse().unwrap(), ..probe.clone() };
            assert_eq!(
                plan.check().unwrap_err().to_string(),
                format!(
                    "method is {method}, expected another one where the last layer alone is trained: this one changes what the \
                     layers below it make of a row"
                )
            );
        }
        let states = Some(StateTerms { vector_weight: 1.0, ..StateTerms::default() });
        assert_eq!(
            Plan { states, ..probe }.check().unwrap_err().to_string(),
            "train_only is last-layer, expected more of the model where a teacher's states are followed: they are made below the \
             last layer"
        );
        assert!(Plan::default_with(SelectBy::Loss).check().is_ok());
    }

    #[test]
    fn plans_of_before_parts_could_stand_still_are_read_and_written_as_they_were() {
        let plan = Plan::default_with(SelectBy::Accuracy);
        let text = serde_json::to_string(&plan).unwrap();
        for key in ["freeze", "train_only", "layer_decay", "lora"] {
            assert!(!text.contains(key), "{key}: {text}");
        }
        let plan = Plan {
            freeze: "embeddings,layers:2".parse().unwrap(),
            layer_decay: 0.9,
            lora_rank: Some(4),
            lora_alpha: Some(16.0),
            lora_targets: Some(vec!["query".into()]),
            ..plan
        };
        let text = serde_json::to_string(&plan).unwrap();
        assert!(text.contains(r#""freeze":"embeddings,layers:2""#), "{text}");
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
        let biases = Plan { train_only: Some(TrainOnly::Biases), ..plan };
        let text = serde_json::to_string(&biases).unwrap();
        assert!(text.contains(r#""train_only":"biases""#), "{text}");
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), biases);
    }

    #[test]
    fn plans_of_before_there_was_a_precision_are_read_and_written_as_they_were() {
        let plan = Plan::default_with(SelectBy::Accuracy);
        let text = serde_json::to_string(&plan).unwrap();
        assert!(!text.contains("precision"), "{text}");
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
        let rounded = Plan { precision: Precision::Bf16, ..plan };
        let text = serde_json::to_string(&rounded).unwrap();
        assert!(text.contains(r#""precision":"bf16""#), "{text}");
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), rounded);
        let error = serde_json::from_str::<Plan>(&text.replace("bf16", "f16")).unwrap_err();
        let message = "unknown variant `f16`, expected `f32` or `bf16` at line 1 column ";
        assert!(error.to_string().starts_with(message), "{error}");
    }

    #[test]
    fn steps_count_short_batches() {
        let mut plan = Plan::default_with(SelectBy::Accuracy);
        let lengths = [7; 101];
        for size in [BatchSize::Rows(10), BatchSize::Tokens(76)] {
            plan = Plan { batch_size: size, accumulation: 1, max_steps: None, ..plan };
            assert_eq!(plan.steps_per_epoch(&lengths), 11);
            plan.accumulation = 4;
            assert_eq!((plan.steps_per_epoch(&lengths), plan.total_steps(&lengths)), (3, 9));
            assert_eq!(plan.total_steps_of_rows(101), size.rows().map(|_| 9));
            plan.max_steps = Some(5);
            assert_eq!(plan.total_steps(&lengths), 5);
            assert_eq!(plan.total_steps_of_rows(101), Some(5));
        }
    }
}
