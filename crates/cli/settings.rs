//! From what was typed to what is run: defaults, the base model's advice, a plan file, flags, each over the one before,
//! and where each value came from.

mod layers;
mod lines;
mod plan_file;
mod values;

use anyhow::{Context, Result};
use lowchurn_data::{BatchSize, Kind};
use lowchurn_distill::{
    Freeze, LORA_ALPHA, OptimizerName, Plan, Schedule, SelectBy, StateTerms, Threshold, TrainOnly,
    VarianceReduction, precision_if_set,
};
use lowchurn_kernels::Precision;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::failure::Usage;

pub use self::layers::{DEFAULT, Layers};
pub use self::lines::{method, objective};
pub use self::plan_file::read_plan;
use self::values::{
    parse_bf16, parse_kind, parse_optimizer, parse_schedule, parse_select_by, parse_threshold,
};

/// Everything a plan file and the command line may set. A `None` is not set; the run's `run.toml` has every value set.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Task or data set; on the command line it stands without a flag
    #[arg(skip)]
    pub data: Option<String>,

    /// Base checkpoint: a hub id (owner/name[@revision]), a folder, or a name from models/ [default: minilm-l6]
    #[arg(long, alias = "model_name_or_path", alias = "model-name-or-path", value_name = "ID|DIR")]
    pub model: Option<String>,

    /// Rows to train on, such as `train[:5000]` [default: train]
    #[arg(long, alias = "train_split", value_name = "SPLIT")]
    pub train_split: Option<String>,

    /// Rows to evaluate on; `none` for no evaluation [default: validation, else a cut of train]
    #[arg(long, alias = "eval_split", value_name = "SPLIT")]
    pub eval_split: Option<String>,

    /// Share of train that is cut off, by class, where there is no validation split [default: 0.1]
    #[arg(long, value_name = "SHARE")]
    pub eval_fraction: Option<f64>,

    /// Column that holds the text
    #[arg(long, alias = "text_column", value_name = "COLUMN")]
    pub text_column: Option<String>,

    /// Column that holds the second text of a pair
    #[arg(long, alias = "pair_column", value_name = "COLUMN")]
    pub pair_column: Option<String>,

    /// Column that holds the label
    #[arg(long, alias = "label_column", value_name = "COLUMN")]
    pub label_column: Option<String>,

    /// Column that holds the row's id
    #[arg(long, alias = "id_column", value_name = "COLUMN")]
    pub id_column: Option<String>,

    /// single_label_classification, multi_label_classification or regression [default: the task's, else as the label column says:
    /// lists are multi-label, fractions a regression]
    #[arg(long, alias = "problem_type", value_parser = parse_kind, value_name = "KIND")]
    pub problem_type: Option<Kind>,

    /// On the command line these six are [`crate::args::MethodFlags`]
    #[arg(skip)]
    pub method: Option<String>,
    #[arg(skip)]
    pub lambda: Option<String>,
    #[arg(skip)]
    pub temperature: Option<f64>,
    #[arg(skip)]
    pub objective: Option<String>,
    #[arg(skip)]
    pub worst_class_weight: Option<f64>,
    #[arg(skip)]
    pub group_by: Option<String>,

    /// Likewise [`crate::args::Distil`]'s
    #[arg(skip)]
    pub states: Option<StateTerms>,

    /// In an update's record: the deployed model, the rows that came after `data`, and what else it takes to read `data` again
    #[arg(skip)]
    pub base: Option<String>,
    #[arg(skip)]
    pub data_sha256: Option<String>,
    #[arg(skip)]
    pub label_map: Option<Vec<(String, String)>>,
    #[arg(skip)]
    pub new: Option<Vec<Source>>,
    /// Rows that it has learnt and that no later run reads to train on: those that followed a teacher alone, and those of the
    /// weights that it started from
    #[arg(skip)]
    #[serde(alias = "unlabelled")]
    pub seen: Option<Vec<Source>>,
    /// Models before it that had no record of their training rows
    #[arg(skip)]
    pub unrecorded: Option<Vec<String>>,

    /// auto, cpu, cuda[:N] or metal [default: auto]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,

    /// Matrix products in bf16, in training and in all scoring that this command does; sums and weights stay f32. In a plan
    /// precision = "bf16" [default: f32]
    #[arg(
        long = "bf16",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = parse_bf16,
        value_name = "BOOL"
    )]
    #[serde(with = "precision_if_set", default)]
    pub precision: Option<Precision>,

    /// Passes over the rows [default: 3]
    #[arg(long, alias = "num_train_epochs", alias = "num-train-epochs", value_name = "N")]
    pub epochs: Option<u32>,

    /// Stop after this many updates
    #[arg(long, alias = "max_steps", value_name = "N")]
    pub max_steps: Option<u64>,

    /// Rows of one forward pass in training; or `tokens:N`, as many as make at most N tokens, padding counted, where N is --max-length at
    /// least. Each update is a mean over its own rows, so long texts weigh more then [default: 32]
    #[arg(
        long,
        alias = "per_device_train_batch_size",
        alias = "batch_size",
        value_name = "N|tokens:N"
    )]
    pub batch_size: Option<BatchSize>,

    /// Forward passes behind one update [default: 1]
    #[arg(
        long,
        alias = "gradient_accumulation_steps",
        alias = "gradient-accumulation-steps",
        value_name = "N"
    )]
    pub accumulation: Option<usize>,

    /// Rows of one forward pass in evaluation [default: 64]
    #[arg(long, alias = "per_device_eval_batch_size", alias = "eval_batch_size", value_name = "N")]
    pub eval_batch_size: Option<usize>,

    /// Tokens a row is cut to [default: 128; of an update the base's]
    #[arg(
        long,
        alias = "max_seq_length",
        alias = "max_length",
        alias = "max-seq-length",
        value_name = "N"
    )]
    pub max_length: Option<usize>,

    /// adamw, or sgd: plain, without momentum; with it --schedule constant --max-grad-norm 0 is what theory speaks of [default: adamw]
    #[arg(long, alias = "optim", value_parser = parse_optimizer, value_name = "NAME")]
    pub optimizer: Option<OptimizerName>,

    /// Take the noise of a teacher's gradients off: none, kd, modified or unbiased (method distil), or svrg[:start=EPOCH,every=EPOCHS,
    /// lambda=SHARE] (method retrain; epochs count from 0, and start=2,every=2,lambda=1 where they aren't said) [default: none]
    #[arg(long, value_name = "NAME")]
    pub variance_reduction: Option<VarianceReduction>,

    /// Peak learning rate [default: 5e-5]
    #[arg(long, alias = "learning_rate", value_name = "RATE")]
    pub learning_rate: Option<f64>,

    /// linear, cosine or constant [default: linear]
    #[arg(long, alias = "lr_scheduler_type", alias = "lr-scheduler-type", value_parser = parse_schedule, value_name = "NAME")]
    pub schedule: Option<Schedule>,

    /// Updates of warm-up [default: 0]
    #[arg(long, alias = "warmup_steps", value_name = "N")]
    pub warmup_steps: Option<u64>,

    /// On matrices and tables, not on biases and norms [default: 0]
    #[arg(long, alias = "weight_decay", value_name = "SHARE")]
    pub weight_decay: Option<f64>,

    /// [default: 0.9]
    #[arg(long, alias = "adam_beta1", value_name = "SHARE")]
    pub beta1: Option<f64>,

    /// [default: 0.999]
    #[arg(long, alias = "adam_beta2", value_name = "SHARE")]
    pub beta2: Option<f64>,

    /// [default: 1e-8]
    #[arg(long, alias = "adam_epsilon", value_name = "NUMBER")]
    pub epsilon: Option<f64>,

    /// Global norm that gradients are clipped to; 0 for no clipping [default: 1]
    #[arg(long, alias = "max_grad_norm", value_name = "NORM")]
    pub max_grad_norm: Option<f64>,

    /// Share of each target that is spread over all classes [default: 0]
    #[arg(long, alias = "label_smoothing_factor", alias = "label_smoothing", value_name = "SHARE")]
    pub label_smoothing: Option<f64>,

    /// `balanced`, or weights of the classes that are named: `NAME=2,OTHER=0.5`. They weight the label's term; the loss is
    /// still divided by the number of rows
    #[arg(long, alias = "class_weights", value_name = "WEIGHTS")]
    pub class_weights: Option<String>,

    /// Of a multi-label model: the probability from which on a label holds, or `tuned` for each label's own, by F1 on the evaluation's
    /// rows [default: 0.5]
    #[arg(long, value_parser = parse_threshold, value_name = "SHARE|tuned")]
    pub threshold: Option<Threshold>,

    /// Dropout everywhere [default: as in the checkpoint's config]
    #[arg(long, value_name = "SHARE")]
    pub dropout: Option<f64>,

    /// Parts to leave as they are: `embeddings`, `layers:N` (the lowest N), `head`, several with commas [default: none]
    #[arg(long, value_name = "PARTS")]
    pub freeze: Option<Freeze>,

    /// `biases`: train all biases and the head, nothing else (BitFit). `last-layer`: a linear probe, see --probe
    #[arg(long, alias = "train_only", value_name = "WHAT")]
    pub train_only: Option<TrainOnly>,

    /// Learning rate of a layer as a share of that of the layer above; the head has the full rate [default: 1]
    #[arg(long, alias = "layer_decay", value_name = "SHARE")]
    pub layer_decay: Option<f64>,

    /// Train low-rank adapters of this rank, and the head, instead of all weights (LoRA, without dropout of its own)
    #[arg(long, alias = "lora_r", alias = "lora_rank", value_name = "N")]
    pub lora_rank: Option<usize>,

    /// The adapters' product is multiplied by alpha/rank [default: 8]
    #[arg(long, alias = "lora_alpha", value_name = "NUMBER")]
    pub lora_alpha: Option<f64>,

    /// Modules that get adapters, with commas [default: queries and values]
    #[arg(long, alias = "lora_targets", value_delimiter = ',', value_name = "MODULES")]
    pub lora_targets: Option<Vec<String>>,

    /// Start with a new head even where the base's has the classes of the data [default: keep it]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub fresh_head: Option<bool>,

    /// Start from new weights: the model is a folder with a config and a tokenizer alone [default: false]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub from_scratch: Option<bool>,

    /// Decides order, dropout and the new head [default: 42]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// Evaluate and save every N updates [default: 0, at the end of each epoch]
    #[arg(long, alias = "eval_steps", value_name = "N")]
    pub eval_steps: Option<u64>,

    /// Save every N updates between evaluations too [default: 500]
    #[arg(long, alias = "save_steps", value_name = "N")]
    pub save_steps: Option<u64>,

    /// Keep every checkpoint, and one of before the first update, for diagnose --directions [default: false]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub keep_checkpoints: Option<bool>,

    /// A line in metrics.jsonl every N updates [default: 50]
    #[arg(long, alias = "logging_steps", value_name = "N")]
    pub logging_steps: Option<u64>,

    /// Stop after this many evaluations in a row without a gain; 0 for never [default: 0]
    #[arg(long, value_name = "N")]
    pub patience: Option<u32>,

    /// What makes an evaluation the best: accuracy, f1, macro_f1, matthews, pearson, spearman, worst_class (with --group-by the worst
    /// group) or loss [default: the task's metric]; in an update what makes a candidate the best, accuracy or worst_class [default:
    /// accuracy]
    #[arg(long, alias = "metric_for_best_model", value_parser = parse_select_by, value_name = "METRIC")]
    pub select_by: Option<SelectBy>,
}

/// Rows that a model was trained on, with what it takes to read them again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    pub data: String,
    pub split: Option<String>,
    pub text_column: Option<String>,
    pub pair_column: Option<String>,
    pub label_column: Option<String>,
    pub id_column: Option<String>,
    /// (DATA, LABEL): names that the data has for the model's.
    pub label_map: Option<Vec<(String, String)>>,
    /// Of all of its rows, before any are held out.
    pub sha256: Option<String>,
    /// Cut off by class and not trained on.
    pub held_out_fraction: Option<f64>,
}

fn fields(settings: &Settings) -> Result<Map<String, Value>> {
    match serde_json::to_value(settings)? {
        Value::Object(fields) => Ok(fields),
        _ => Ok(Map::new()),
    }
}

/// The part of the settings that decides the trained bytes, with nothing left open.
pub fn plan(settings: &Settings, default_select_by: SelectBy) -> Result<Plan> {
    let d = Plan {
        save_steps: 500,
        ..Plan::default_with(settings.select_by.unwrap_or(default_select_by))
    };
    let s = settings;
    let plan = Plan {
        method: method(s)?,
        objective: objective(s)?,
        variance_reduction: s.variance_reduction.unwrap_or_default(),
        optimizer: s.optimizer.unwrap_or_default(),
        epochs: s.epochs.unwrap_or(d.epochs),
        max_steps: s.max_steps,
        batch_size: s.batch_size.unwrap_or(d.batch_size),
        accumulation: s.accumulation.unwrap_or(d.accumulation),
        eval_batch_size: s.eval_batch_size.unwrap_or(d.eval_batch_size),
        max_length: s.max_length.unwrap_or(d.max_length),
        learning_rate: s.learning_rate.unwrap_or(d.learning_rate),
        schedule: s.schedule.unwrap_or(d.schedule),
        warmup_steps: s.warmup_steps.unwrap_or(d.warmup_steps),
        weight_decay: s.weight_decay.unwrap_or(d.weight_decay),
        beta1: s.beta1.unwrap_or(d.beta1),
        beta2: s.beta2.unwrap_or(d.beta2),
        epsilon: s.epsilon.unwrap_or(d.epsilon),
        max_grad_norm: s.max_grad_norm.unwrap_or(d.max_grad_norm),
        label_smoothing: s.label_smoothing.unwrap_or(d.label_smoothing),
        states: s.states,
        class_weight: d.class_weight, // of the rows, see `kinds`
        threshold: s.threshold,
        dropout: s.dropout,
        precision: s.precision.unwrap_or(d.precision),
        freeze: s.freeze.unwrap_or_default(),
        train_only: s.train_only,
        layer_decay: s.layer_decay.unwrap_or(d.layer_decay),
        lora_rank: s.lora_rank,
        lora_alpha: s.lora_alpha.or(s.lora_rank.map(|_| LORA_ALPHA)),
        lora_targets: s.lora_targets.clone(),
        seed: s.seed.unwrap_or(d.seed),
        eval_steps: s.eval_steps.unwrap_or(d.eval_steps),
        save_steps: s.save_steps.unwrap_or(d.save_steps),
        keep_checkpoints: s.keep_checkpoints.unwrap_or(false),
        logging_steps: s.logging_steps.unwrap_or(d.logging_steps),
        patience: s.patience.unwrap_or(d.patience),
        select_by: d.select_by,
    };
    Ok(plan.check().map_err(|error| Usage(error.to_string()))?)
}

/// Settings with the plan's values filled in: what `run.toml` says.
pub fn resolved(settings: &Settings, plan: &Plan) -> Result<Settings> {
    let mut values = fields(settings)?;
    let Value::Object(planned) = serde_json::to_value(plan)? else { return Ok(settings.clone()) };
    values.extend(planned);
    values.insert("method".into(), plan.method.to_string().into());
    // These follow from `class_weights` and the rows.
    values.remove("class_weight");
    // They stand in the method and in the objective now.
    for key in ["lambda", "temperature", "worst_class_weight", "group_by"] {
        values.remove(key);
    }
    Ok(serde_json::from_value(Value::Object(values))?)
}

pub fn to_toml(settings: &Settings) -> Result<String> {
    let head = match &settings.base {
        Some(_) => {
            "# What this update was made with; the next update reads here which rows the model has seen.\n"
        }
        None if settings.data.is_none()
            && (settings.seen.is_some() || settings.unrecorded.is_some()) =>
        {
            "# Rows that these weights have learnt.\n"
        }
        None => {
            "# The resolved plan of this run. Run it again with: lowchurn finetune --plan FILE\n"
        }
    };
    Ok(format!("{head}{}", toml::to_string(settings).context("settings as TOML")?))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::plan_file::parse_plan;
    use super::*;

    fn refusal(text: &str) -> String {
        parse_plan(text, Path::new("p.toml")).unwrap_err().to_string()
    }

    #[test]
    fn plans_are_read_strictly() {
        let plan =
            parse_plan("data = \"sst2\"\nepochs = 2\nschedule = \"cosine\"\n", Path::new("p.toml"));
        let plan = plan.unwrap();
        assert_eq!((plan.data.as_deref(), plan.epochs), (Some("sst2"), Some(2)));
        assert_eq!(plan.schedule, Some(Schedule::Cosine));
        let expected = "p.toml: unknown key \"learning_rat\"; did you mean \"learning_rate\"?";
        assert_eq!(refusal("learning_rat = 1\n"), expected);
        assert!(
            refusal("zzz = 1\n").starts_with("p.toml: unknown key \"zzz\"; known: data, model, ")
        );
        let wrong = refusal("data = \"x\"\nepochs = \"two\"\n");
        assert_eq!(wrong, "p.toml:2: epochs: expected a whole number, found text \"two\"");
        let wrong = refusal("data = \"x\"\nprecision = \"f16\"\n");
        assert_eq!(wrong, "p.toml:2: precision: unknown variant `f16`, expected `f32` or `bf16`");
        let wrong = refusal("bf16 = true\n");
        assert_eq!(wrong, "p.toml: unknown key \"bf16\"; did you mean \"precision\"?");
    }

    #[test]
    fn layers_remember_where_values_came_from() {
        let of = |epochs, seed| Settings { epochs, seed, ..Settings::default() };
        let layers = Layers::default()
            .over(&of(Some(1), Some(7)), "models/x.toml")
            .and_then(|layers| layers.over(&of(Some(5), None), "flag"))
            .unwrap();
        assert_eq!((layers.settings.epochs, layers.settings.seed), (Some(5), Some(7)));
        assert_eq!((layers.origin("epochs"), layers.origin("seed")), ("flag", "models/x.toml"));
        assert_eq!(layers.origin("dropout"), DEFAULT);
    }

    #[test]
    fn the_flag_wins_over_the_plan_either_way() {
        let typed = |precision| Settings { precision, ..Settings::default() };
        let check = |file: &str, flag: Option<Precision>, expected: Precision| {
            let file = parse_plan(file, Path::new("p.toml")).unwrap();
            let layers = Layers::default().over(&file, "p.toml").unwrap();
            let settings = layers.over(&typed(flag), "flag").unwrap().settings;
            assert_eq!(plan(&settings, SelectBy::Loss).unwrap().precision, expected);
        };
        check("", None, Precision::F32);
        check("", Some(Precision::Bf16), Precision::Bf16);
        check("precision = \"bf16\"", None, Precision::Bf16);
        check("precision = \"bf16\"", Some(Precision::F32), Precision::F32);
        check("precision = \"f32\"", None, Precision::F32);
    }

    #[test]
    fn the_resolved_plan_loads_back_to_itself() {
        let settings = Settings {
            data: Some("sst2".into()),
            dropout: Some(0.25),
            precision: Some(Precision::Bf16),
            freeze: "embeddings,layers:2".parse().ok(),
            layer_decay: Some(0.9),
            lora_rank: Some(4),
            lora_targets: Some(vec!["query".into()]),
            ..Settings::default()
        };
        let first = plan(&settings, SelectBy::Matthews).unwrap();
        let saved = resolved(&settings, &first).unwrap();
        let text = to_toml(&saved).unwrap();
        let back = parse_plan(&text, Path::new("run.toml")).unwrap();
        assert_eq!(back, saved);
        // The task's metric is in the file, so it needs no second telling.
        assert_eq!(plan(&back, SelectBy::Accuracy).unwrap(), first);
    }
}
