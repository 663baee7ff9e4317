//! What can go wrong, with everything a reader needs to mend it.

use std::path::PathBuf;

use lowchurn_data::error::At;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Data(#[from] lowchurn_data::Error),

    // Prediction files.
    #[error("{}: no id column (columns: {}); name it with --id-column, or, where both files hold the same rows in the same order, ask for --by-position", path.display(), list(columns))]
    NoIdColumn { path: PathBuf, columns: Vec<String> },
    #[error("{}: no prediction column and no scores (columns: {}); name one with --prediction-column or --score-column", path.display(), list(columns))]
    NoPredictionColumn { path: PathBuf, columns: Vec<String> },
    #[error("{}: several columns may be the {role} ({}); name the one with --{role}-column", path.display(), list(found))]
    SeveralColumns { path: PathBuf, role: &'static str, found: Vec<String> },
    #[error("{}: column {column:?} may be the prediction or the true class; say which with --prediction-column {column} or --gold-column {column}", path.display())]
    LabelOrGold { path: PathBuf, column: String },
    #[error("{}: no rows in it", path.display())]
    NoRows { path: PathBuf },
    #[error("{at}: {reason}, column {column}")]
    BadRow { at: At, reason: String, column: usize },
    #[error("{at}: the id is empty; every row needs one")]
    NoId { at: At },
    #[error("{at}: no prediction in this row")]
    NoPrediction { at: At },
    #[error(
        "{at}: column {column:?} holds {value}, a score and not a class; scores belong in columns such as prob_NAME, one a class"
    )]
    NotAClass { at: At, column: String, value: String },
    #[error("{at}: the score of {label:?} is {found}, not a probability between 0 and 1{}", if *may_be_logit { " (logits must be passed through softmax first)" } else { "" })]
    BadScore { at: At, label: String, found: String, may_be_logit: bool },
    #[error(
        "{at}: the scores sum to {sum:.4}, not to 1 (within 0.001); logits must be passed through softmax first, and scores of independent classes divided by their sum"
    )]
    ScoreSum { at: At, sum: f64 },
    #[error(
        "{at}: no score of {label:?}, which other rows have; every row needs the scores of all classes"
    )]
    NoScore { at: At, label: String },
    #[error("{at}: {found} scores where {expected} were expected")]
    ScoreCount { at: At, found: usize, expected: usize },
    #[error(
        "{at}: the scores are {found:?} ({reason}); expected json, an object of class names and numbers or a list of numbers"
    )]
    ScoresNotRead { at: At, found: String, reason: String },
    #[error("{}: the scores stand in a list, and nothing says whose they are; name the classes in its order with --labels", path.display())]
    ScoresWithoutNames { path: PathBuf },
    #[error(
        "{at}: {prediction:?} was predicted and has no score (classes with scores: {}){}",
        list(known),
        hint(suggestion)
    )]
    PredictedWithoutScore {
        at: At,
        prediction: String,
        known: Vec<String>,
        suggestion: Option<String>,
    },
    #[error(
        "{at}: the true class is {gold:?} and the model says {label:?}: the same but for case or blanks; write both alike"
    )]
    GoldCase { at: At, gold: String, label: String },
    #[error("{}: none of the true classes ({}) is a class of the model ({}); write them with the model's names", path.display(), list(golds), list(labels))]
    GoldForeign { path: PathBuf, golds: Vec<String>, labels: Vec<String> },
    #[error("{name}: true class {class} is outside 0..{classes}")]
    ClassOutside { name: String, class: u32, classes: usize },

    // Pairs.
    #[error(
        "{old_name} and {new_name} hold different rows: {only_old} only in the old ({}), {only_new} only in the new ({}); predict the same rows with both, or compare those in both with --allow-partial",
        list(old_ids),
        list(new_ids)
    )]
    RowsDiffer {
        old_name: String,
        new_name: String,
        only_old: usize,
        only_new: usize,
        /// The first three of each.
        old_ids: Vec<String>,
        new_ids: Vec<String>,
    },
    #[error(
        "{old_name} and {new_name} have no row in common (ids such as {old_id:?} and {new_id:?}); both need the ids of the same data"
    )]
    NoCommonRow { old_name: String, new_name: String, old_id: String, new_id: String },
    #[error(
        "{name}: id {id:?} is there twice, in rows {first} and {second} (from 0); ids must be unique"
    )]
    IdTwice { name: String, id: String, first: usize, second: usize },
    #[error(
        "row {id:?}: the true class is {old:?} in {old_name} and {new:?} in {new_name}; both must be judged by the same"
    )]
    GoldDisagrees { id: String, old_name: String, new_name: String, old: String, new: String },
    #[error(
        "{old_name} has labels that {new_name} doesn't: {} (its labels: {}); say what became of them with --label-map {map}",
        list(labels),
        list(known)
    )]
    LabelsOnlyOld {
        labels: Vec<String>,
        old_name: String,
        new_name: String,
        known: Vec<String>,
        /// As it is typed, the nearest names filled in.
        map: String,
    },
    #[error(
        "the label map names {label:?}, which isn't a label of {name} (labels: {}){}",
        list(known),
        hint(suggestion)
    )]
    MapUnknown { label: String, name: String, known: Vec<String>, suggestion: Option<String> },
    #[error("the label map gives {label:?} two new names, {first:?} and {second:?}")]
    MapTwice { label: String, first: String, second: String },

    // Answers that aren't one class a row.
    #[error(
        "{old_name} answers with {old} a row, {new_name} with {new}; compare models of one kind of task"
    )]
    KindsDiffer { old_name: String, old: &'static str, new_name: String, new: &'static str },
    #[error(
        "{name} holds numbers, and no two are quite the same; say how far apart two may be to count as one answer: --tolerance 0.25"
    )]
    ToleranceNeeded { name: String },
    #[error("a tolerance of {tolerance}; expected a number of at least 0")]
    Tolerance { tolerance: f64 },
    #[error("{name}: row {id:?} has {value}, not a finite number")]
    NotANumber { name: String, id: String, value: f32 },
    #[error("{name} doesn't have the label {label:?} (labels: {})", list(known))]
    LabelUnknown { name: String, label: String, known: Vec<String> },

    // Comparisons.
    #[error("{what}: {found} of them for {expected} rows or classes")]
    Length { what: String, found: usize, expected: usize },
    #[error(
        "a threshold for {label:?}, which isn't a label (labels: {}){}",
        list(known),
        hint(suggestion)
    )]
    ThresholdLabel { label: String, known: Vec<String>, suggestion: Option<String> },
    #[error("the threshold of {label:?} is {threshold}; expected a share between 0 and 1")]
    ThresholdOutside { label: String, threshold: f64 },
    #[error("thresholds need scores, and {name} has predictions alone")]
    ThresholdWithoutScores { name: String },
    #[error("a history needs two releases or more; found {found}")]
    OneRelease { found: usize },
    #[error("a confidence of {confidence}; expected one between 0.5 and 1, such as 0.95")]
    ConfidenceOutside { confidence: f64 },
    #[error(
        "{name} tells fewer than two classes apart ({}), and how sure a model is of the only one says nothing",
        list(labels)
    )]
    OneClass { name: String, labels: Vec<String> },
    #[error("a quantile of {quantile}; expected a share between 0 and 1, such as 0.5")]
    QuantileOutside { quantile: f64 },
    #[error("{first} and {second} can't be taken together: they hold different rows or labels")]
    RunsDiffer { first: String, second: String },

    // Reports.
    #[error("{}: can't be read ({source})", path.display())]
    ReportFile { path: PathBuf, source: std::io::Error },

    #[error("{}: not a report that can be read: {source}; was it cut or edited by hand? Make it again with `lowchurn compare`", path.display())]
    ReportJson { path: PathBuf, source: serde_json::Error },

    #[error("{}: no key \"schema\", so this is no report of lowchurn; expected the report.json that `lowchurn compare` or `lowchurn update` writes", path.display())]
    NotAReport { path: PathBuf },

    #[error("{}: a report of version {found:?}, and this program knows {:?} alone; read it with the program that wrote it, or make it again with this one", path.display(), crate::SCHEMA)]
    ReportSchema { path: PathBuf, found: String },

    // Budgets and candidates.
    #[error(
        "the budget limits nothing; give --max-churn, --max-nfr, --max-slice-nfr, --min-accuracy-gain or --golden"
    )]
    BudgetEmpty,

    #[error("{limit} is {value}; expected a share above 0 and below 1, such as 2% or 0.02{}", if *value == 0.0 { " (no number of rows proves that nothing will ever change; rows that must not change can be given with --golden)" } else { "" })]
    BudgetShare { limit: &'static str, value: f64 },

    #[error(
        "min accuracy gain is {value}; expected a difference between -1 and 1, such as -0.5% or 0"
    )]
    BudgetGain { value: f64 },

    #[error("confidence is {value}; expected a share above 0.5 and below 1, such as 0.95")]
    BudgetConfidence { value: f64 },

    #[error(
        "{limit} {} with confidence {confidence} can't be certified by {found} {kind}rows, however they come out; {}",
        as_typed(*value),
        match hold_out {
            None => "no number of rows would do, so loosen the limit".to_owned(),
            Some(n) if n == needed => format!("hold out {needed} {kind}rows or more, or loosen the limit"),
            Some(n) => format!(
                "it takes {needed}, and of those held out some only choose: hold out about {n}, or loosen the limit"
            ),
        }
    )]
    BudgetRows {
        limit: &'static str,
        value: f64,
        confidence: f64,
        /// `labelled ` where only such rows count.
        kind: &'static str,
        found: u64,
        needed: u64,
        /// How many held-out rows have so many that certify; `None` where no number would do.
        hold_out: Option<u64>,
    },

    #[error(
        "max slice nfr {} with confidence {confidence} can't be certified on any slice: it takes {needed} labelled rows \
        even where nothing flips, and the largest ({name}) has {found}; hold out more rows, name a coarser column, or loosen \
        the limit",
        as_typed(*value)
    )]
    BudgetSlices { value: f64, confidence: f64, name: String, found: u64, needed: u64 },

    #[error(
        "max class nfr {} with confidence {confidence} can't be certified on any class: it takes {needed} labelled rows \
        even where nothing flips, and the largest ({name}) has {found}; hold out more rows, or loosen the limit",
        as_typed(*value)
    )]
    BudgetClasses { value: f64, confidence: f64, name: String, found: u64, needed: u64 },

    #[error(
        "{}{}; add {} there, give texts where they are trained on, or take {} off the golden list",
        golden_missing(first, *missing),
        like.as_ref().map_or(String::new(), |id| format!(", whose ids are like {id}")),
        if *missing == 1 { "it" } else { "them" },
        if *missing == 1 { "it" } else { "them" }
    )]
    GoldenMissing {
        first: Vec<String>,
        missing: usize,
        /// An id that the data has, where it is known.
        like: Option<String>,
    },

    #[error("no candidate to certify; give at least one")]
    NoCandidates,

    #[error(
        "candidate {name:?} has no calibration rows; candidates are ordered by such rows, so hold some out"
    )]
    NoCalibrationRows { name: String },
}

pub type Result<T> = std::result::Result<T, Error>;

const LISTED: usize = 20;

// Long lists (150 intents) are cut: a message is read in a terminal.
fn list(names: &[String]) -> String {
    match names.len() {
        0 => "none".to_owned(),
        n if n <= LISTED => names.join(", "),
        n => format!("{}, … ({n} in all)", names[..LISTED].join(", ")),
    }
}

/// A limit as people type it: 2%, 0.25%.
pub(crate) fn as_typed(share: f64) -> String {
    let digits = format!("{:.8}", 100.0 * share);
    format!("{}%", digits.trim_end_matches('0').trim_end_matches('.'))
}

fn hint(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map_or_else(String::new, |name| format!("; did you mean {name:?}?"))
}

fn golden_missing(first: &[String], missing: usize) -> String {
    let first = first.join(", ");
    match missing {
        1 => format!("1 golden row isn't in the data ({first})"),
        n => format!("{n} golden rows aren't in the data (the first: {first})"),
    }
}
