//! Fine-tuning: a model, encoded rows and a plan → checkpoints, evaluation and predictions.
//!
//! The modules are listed in the order in which a run goes through them. Nothing here prints, exits, reads the environment
//! or the clock; progress leaves as [`Event`].
//!
//! A run from a folder in the hub's layout to another one, as `lowchurn finetune` makes it:
//!
//! ```
//! use std::sync::atomic::AtomicBool;
//!
//! use candle_core::Device;
//! use lowchurn_data::{BatchSize, Columns, Dataset, Labels, Request, Rng, TextEncoder, encode, read};
//! use lowchurn_distill::{Event, Guides, Outcome, Plan, Provenance, Run, SelectBy, State, train};
//! use lowchurn_models::{Classifier, Head};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (base, device) = ("../../models/tiny".as_ref(), Device::Cpu);
//! let request = Request { columns: Columns::default(), labels: Labels::Required, label_set: None, kind: None };
//! let data = Dataset::of_files(&["../../datasets/tickets/month-1.jsonl".into()])?;
//! let (train_rows, eval_rows) = (read(&data, "train[:200]", &request)?, read(&data, "train[200:300]", &request)?);
//! let encoder = TextEncoder::open(base)?;
//!
//! let batch_size = BatchSize::Rows(16);
//! let plan = Plan { learning_rate: 1e-3, batch_size, ..Plan::default_with(SelectBy::Accuracy) }.check()?;
//! let mut rng = Rng::stream(plan.seed, "head", 0);
//! let head = Head::Fresh { labels: train_rows.labels.names().to_vec(), normal: &mut || rng.normal() };
//! let mut state = State::new(Classifier::open(base, head, &device)?.0)?;
//!
//! # let folder = tempfile::tempdir()?;
//! # let output = folder.path().join("run");
//! # let output = output.as_path();
//! let run = Run {
//!     provenance: &Provenance::of(plan, base, &train_rows, Some(&eval_rows), &device)?,
//!     train: &encode(&encoder, &train_rows.examples, 64)?,
//!     eval: Some(&encode(&encoder, &eval_rows.examples, 64)?),
//!     guides: Guides::default(), // no teacher, no old weights
//!     dir: output,               // with checkpoints while it runs
//!     tokenizer_from: base,
//! };
//! let stop = AtomicBool::new(false); // set by a signal's handler: `train` saves and returns
//! let outcome = train(&run, &mut state, &stop, &mut |event| {
//!     if let Event::Evaluated { step, scores, .. } = event {
//!         println!("step {step}: loss {:.3}", scores.loss);
//!     }
//! })?;
//! let Outcome::Finished(release) = outcome else { return Ok(()) };
//! assert!(release.scores.is_some() && output.join("model.safetensors").is_file());
//! # Ok(())
//! # }
//! ```

mod lambda;

mod method;

mod objective;

mod outputs;

mod freeze;

mod plan;

mod remarks;

mod precision;

mod schedule;

mod guides;

mod loss;

mod states;

mod optim;

mod weights;

mod refit;

mod shift;

mod variance;

mod step;

mod eval;

mod teacher;

mod gradients;

mod trained;

mod state;

mod provenance;

mod checkpoint;

mod release;

mod spectrum;

mod directions;

mod check;

mod train;

mod error;
mod files;

pub use check::check;
pub use checkpoint::{ADAPTER, Manifest, find_latest, remove_checkpoints};
pub use directions::{Reading, Way, directions, last_before, readings, start_of, way};
pub use error::{Error, Result};
pub use eval::{
    Predictions, Scores, WorstClasses, evaluate, evaluate_targets, predict, worst_classes,
};
pub use files::{
    behind_links, is_written_into, sha256 as sha256_of_file, sha256_of_files, sha256_of_text,
    write as write_file, write_json, write_with,
};
pub use freeze::{Freeze, TrainOnly};
pub use gradients::{GradientReport, GroupNoise, Measuring, Noise, caveats, gradient_noise};
pub use guides::{Buffer, Guides, Shown};
pub use lambda::{Lambda, Moment, ascend};
pub use loss::{
    Against, Shape, TeacherLogits, co_distil_rows, cross_entropy_rows, one_hot, row_losses,
    shaped_losses,
};
pub use method::{Divergence, Focus, METHODS, Method, Needs, TeacherRows};
pub use objective::{
    Base, ClassLoss, Form, Groups, OBJECTIVES, Objective, Robust, Shares, SteeredBy, Steering,
    bounded, class_losses, gains, predicted_with, prior, raise, robust_weights, steering_rows,
};
pub use optim::{Grads, Optimizer, OptimizerName, clip_factor};
pub use outputs::{Outputs, Threshold, tuned_thresholds};
pub use plan::{Plan, SelectBy};
pub use precision::{PrecisionName, precision_if_set};
pub use provenance::{Provenance, device_kind, sha256_of_model};
pub use refit::{RefitTo, Rescaling, fit_temperature, fit_temperature_and_bias, rescaled_loss};
pub use release::{
    Finished, Release, finished, finished_provenance, kept_update, release, release_of,
};
pub use remarks::remarks;
pub use schedule::Schedule;
pub use shift::{Shift, ShiftTo, fit_shift};
pub use spectrum::{Eigen, Matched, add_second_moment, along, eigen, matched};
pub use state::{LogEntry, Peer, Projections, State};
pub use states::{StateTerms, TextVector, VectorLoss, Vectors, check_same_tokens};
pub use step::{StepReport, step, step_deferring};
pub use teacher::{
    Combine, Fingerprint, Scoring, Table, Teacher, table_file_name, teacher_key, write_soft_labels,
};
pub use train::{Event, Outcome, Run, Steered, train};
pub use trained::{LORA_ALPHA, Trained, check_trained, trained_names};
pub use variance::{Control, VarianceReduction, check_teacher, renew_control};
pub use weights::{
    OldWeights, Pull, add_pull, distance, fisher, interpolate, interpolate_fisher, load_fisher,
    mixout, save_fisher, shrink_perturb, soup,
};
