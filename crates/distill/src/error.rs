//! What can go wrong in a run, with what is needed to mend it.

use std::io;
use std::path::PathBuf;

use lowchurn_data::BatchSize;
use thiserror::Error;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, Error)]
pub enum Error {
    #[error("{}: {found} checkpoints are kept there, and the way of a run needs one of before its first update and later ones; train it with --keep-checkpoints --save-steps 20", run.display())]
    NoCheckpoints { run: PathBuf, found: usize },
    #[error("{}: no {name} as the run's start has it, with {width} inputs; both runs must be of one architecture and size", path.display())]
    OtherWeights { path: PathBuf, name: String, width: usize },
    #[error("{key} is {value}, expected {expected}")]
    PlanValue { key: &'static str, value: String, expected: &'static str },
    #[error("batch_size {batch_size}: {reason}")]
    BatchSize { batch_size: BatchSize, reason: String },

    #[error(
        "the {what} is not a number at step {step}; try a lower learning rate or a lower max_grad_norm, \
         with --fresh or in another output folder; the last checkpoint before it is kept"
    )]
    NotFinite { what: &'static str, step: u64 },

    #[error("row {id}: the logits are not finite numbers; the model's weights are damaged")]
    NotFiniteLogits { id: String },

    #[error(
        "no gradient reaches {}; training would leave it as it is without a word", names.join(", ")
    )]
    NoGradient { names: Vec<String> },

    #[error(
        "freeze is layers:{asked}, expected at most layers:{there}: so many layers of its own has this model"
    )]
    FreezeLayers { asked: usize, there: usize },

    #[error("freeze is {freeze}, which is all of the model; leave something to train")]
    AllFrozen { freeze: String },

    #[error(
        "train_only is biases, but below the head this model has none; use freeze or lora_rank"
    )]
    NoBiases,

    #[error(
        "lora_targets is {}, and all of these stand in the {layers} layers that freeze leaves as they are; freeze fewer layers",
        targets.join(",")
    )]
    TargetsFrozen { targets: Vec<String>, layers: usize },

    #[error("lora_rank is {rank}, expected at most {}: {name} is {shape:?}", shape.0.min(shape.1))]
    Rank { rank: usize, name: String, shape: (usize, usize) },

    #[error("row {id} has no label, and training needs one; leave unlabelled rows out")]
    Unlabelled { id: String },

    #[error("row {row}: label {label}, but the model has {classes} classes")]
    LabelIndex { row: usize, label: u32, classes: usize },

    #[error("row {id} has no token; leave empty texts out")]
    EmptyRow { id: String },

    #[error("method {method} needs {what}")]
    MethodNeeds { method: &'static str, what: &'static str },

    #[error(
        "λ {schedule} is {value:.6} in update {step} of {total}, expected a number from 0 to 1; start lower, take a smaller \
         factor, or multiply less often"
    )]
    LambdaRange { schedule: String, value: f64, step: u64, total: u64 },

    #[error(
        "variance reduction {name} takes the gradient of the teacher's weights, so the teacher must be of the student's \
         architecture, sizes and classes: {reason}; with kd its logits are enough"
    )]
    OtherArchitecture { name: String, reason: String },

    #[error("{reason}")]
    Reduction { reason: String },

    #[error("{reason}")]
    Method { reason: String },

    #[error("{reason}")]
    Objective { reason: String },

    #[error("the teacher has {found} logits, but the run has {rows} rows of {classes} classes")]
    TeacherShape { found: usize, rows: usize, classes: usize },

    #[error("config.json: {key} is {found}, expected {expected}")]
    Outputs { key: &'static str, found: String, expected: String },

    #[error(
        "the model is for {model} tasks, but the rows are of a {rows} one; give rows of the model's kind, or a new head for them"
    )]
    OtherKind { model: &'static str, rows: &'static str },

    #[error("no labelled row to evaluate on")]
    NothingToEvaluate,

    #[error("no row to train on")]
    NothingToTrainOn,

    #[error(
        "{}: {reason}; remove the folder of this checkpoint to go on from the one before, \
         or from the start where there is none", path.display()
    )]
    Moments { path: PathBuf, reason: String },

    #[error(
        "{}: {reason}; remove the folder of this checkpoint to go on from the one before, \
         or from the start where there is none", path.display()
    )]
    Checkpoint { path: PathBuf, reason: String },

    #[error(
        "{}: {reason}; it belongs to the best weights so far, those of step {step}: \
         put it back, or --fresh to start over here", path.display()
    )]
    Best { path: PathBuf, step: u64, reason: String },

    #[error(
        "{}: {reason}; the finished run here was changed: put the file back, or --fresh to train it again",
        path.display()
    )]
    Release { path: PathBuf, reason: String },

    #[error(
        "{} holds a run with another {what}: {found}, now {expected}; \
         choose another output folder, or --fresh to start over here", path.display()
    )]
    OtherRun { path: PathBuf, what: String, found: String, expected: String },

    #[error("{}: the base model lies here and would be overwritten; choose another output folder", path.display())]
    OverBase { path: PathBuf },

    #[error("{}", different_tensors(a, only_a, b, only_b))]
    WeightNames { a: String, only_a: Vec<String>, b: String, only_b: Vec<String> },

    #[error(
        "{name} is {a_shape:?} in {a} and {b_shape:?} in {b}; weights are combined where shapes are the same, \
         or where the new head has more classes"
    )]
    WeightShape { name: String, a: String, a_shape: Vec<usize>, b: String, b_shape: Vec<usize> },

    #[error("a soup is the mean of models, and there is none; give at least one")]
    EmptySoup,

    #[error("the pull by Fisher information needs that of the old model; make it first")]
    NoFisher,

    #[error("no row to take Fisher information from")]
    NoFisherRows,

    #[error(
        "the Fisher information of {n_rows} rows is zero or no number everywhere: the model is too sure of them; \
         take more rows"
    )]
    FlatFisher { n_rows: usize },

    #[error(
        "the Fisher information of {name} holds {value}, expected finite numbers of at least 0"
    )]
    FisherValue { name: String, value: f32 },

    #[error("{}: {reason}; remove it to have the Fisher information made again", path.display())]
    FisherFile { path: PathBuf, reason: String },

    #[error("temperature and bias can't be fitted: {reason}")]
    Refit { reason: String },

    #[error("{}: can't be written: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },

    #[error("{}: can't be read: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },

    #[error(transparent)]
    Data(#[from] lowchurn_data::Error),

    #[error(transparent)]
    Models(#[from] lowchurn_models::Error),

    #[error(transparent)]
    Tensor(#[from] candle_core::Error),

    // Teachers.
    #[error("{reason}")]
    States { reason: String },

    #[error(
        "teacher and student read different tokens: row {id} is {student} tokens to the student and {teacher} to the teacher; \
         hidden, attention and relation weights need one tokenizer, so leave them out and take --vector-weight, which doesn't"
    )]
    OtherTokens { id: String, student: usize, teacher: usize },

    #[error("{}: {reason}; delete this file, and the teacher scores the rows again", path.display())]
    Table { path: PathBuf, reason: String },

    #[error(
        "{} holds the scores of another teacher or of other rows ({difference}); \
         name another file, or delete this one to score the rows again", path.display()
    )]
    OtherTable { path: PathBuf, difference: String },

    #[error("{}: another process is scoring these rows; wait until it is done", path.display())]
    TableInWork { path: PathBuf },

    #[error(
        "the model has the labels {}, but its fingerprint says {}; open the model and take its fingerprint again",
        model.join(", "), fingerprint.join(", ")
    )]
    OtherTeacher { model: Vec<String>, fingerprint: Vec<String> },

    #[error(
        "the model's matrix products are in {model}, but its fingerprint says {fingerprint}; set both to the same"
    )]
    OtherPrecision { model: &'static str, fingerprint: &'static str },

    #[error(
        "row id {id} is there twice, and a teacher's scores are kept by id; give each row an id of its own"
    )]
    ScoredTwice { id: String },

    #[error("row {id} was not scored by teacher {teacher}; score the rows of this run")]
    NotScored { id: String, teacher: String },

    #[error("no teacher is given, and this needs at least one")]
    NoTeacher,

    #[error(
        "teachers that are one must know the same classes: {first} knows {}, {second} knows {}; leave one of them out",
        first_knows.join(", "), second_knows.join(", ")
    )]
    TeacherClasses {
        first: String,
        first_knows: Vec<String>,
        second: String,
        second_knows: Vec<String>,
    },
}

fn different_tensors(a: &str, only_a: &[String], b: &str, only_b: &[String]) -> String {
    // Another architecture differs in hundreds of names; a few say enough.
    let some = |names: &[String]| match names.len() {
        0 => "nothing".to_string(),
        n @ 1..=3 => names[..n].join(", "),
        n => format!("{} and {} more", names[..3].join(", "), n - 3),
    };
    format!(
        "{a} and {b} are of different architectures or sizes: only {a} has {}; only {b} has {}",
        some(only_a),
        some(only_b)
    )
}
