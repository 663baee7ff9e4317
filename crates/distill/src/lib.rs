//! Fine-tuning: a model, encoded rows and a plan → checkpoints, evaluation and predictions.
//!
//! The modules are listed in the order in which a run goes through them. Nothing here prints, exits, reads the environment
//! or the clock; progress leaves as [`Event`].

mod lambda;

mod method;

mod objective;

mod outputs;

mod freeze;

mod plan;

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

mod trained;

mod state;

mod provenance;

mod checkpoint;

mod release;

mod train;

mod error;
mod files;

pub use checkpoint::{ADAPTER, Manifest, find_latest, remove_checkpoints};
pub use error::{Error, Result};
pub use eval::{
    Predictions, Scores, WorstClasses, evaluate, evaluate_targets, predict, worst_classes,
};
pub use files::{
    sha256 as sha256_of_file, sha256_of_files, sha256_of_text, write as write_file, write_json,
};
pub use freeze::{Freeze, TrainOnly};
pub use guides::{Buffer, Guides, Shown};
pub use lambda::{Lambda, ascend};
pub use loss::{
    Against, Shape, TeacherLogits, co_distil_rows, cross_entropy_rows, one_hot, row_losses,
    shaped_losses,
};
pub use method::{Divergence, Focus, METHODS, Method, Needs, TeacherRows};
pub use objective::{
    Base, ClassLoss, Form, Groups, OBJECTIVES, Objective, Robust, Shares, SteeredBy, Steering,
    calibration_gap, class_losses, gains, prior, raise, robust_weights, steering_rows,
};
pub use optim::{Grads, Optimizer, OptimizerName, clip_factor};
pub use outputs::{Outputs, Threshold, sigmoid, tuned_thresholds};
pub use plan::{Plan, SelectBy};
pub use precision::{PrecisionName, precision_if_set};
pub use provenance::Provenance;
pub use refit::{RefitTo, Rescaling, fit_temperature, fit_temperature_and_bias, rescaled_loss};
pub use release::{Finished, Release, finished, finished_provenance, release};
pub use schedule::Schedule;
pub use shift::{Shift, ShiftTo, fit_shift};
pub use state::{LogEntry, Peer, Projections, State};
pub use states::{StateTerms, TextVector, VectorLoss, Vectors, check_same_tokens};
pub use step::{StepReport, step, step_deferring};
pub use teacher::{
    Combine, Fingerprint, Scoring, Table, Teacher, table_file_name, teacher_key, write_soft_labels,
};
pub use train::{Event, Outcome, Run, train};
pub use trained::{LORA_ALPHA, Trained, check_trained};
pub use variance::{Control, VarianceReduction, renew_control};
pub use weights::{
    OldWeights, Pull, add_pull, distance, fisher, interpolate, interpolate_fisher, load_fisher,
    mixout, save_fisher, shrink_perturb, soup,
};
