//! Everything that can go wrong between a path on disk and a batch, with the data a reader needs to mend it.
//!
//! Messages are lower case, name file, row, column and value where there are such, and say what was expected or what to do.
//! Lines count from 1 as editors do; rows of parquet files count from 0 as generated ids do.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::alignment::{entry, said_of_near};

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// Where a value was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    pub path: PathBuf,
    pub place: Place,
}

/// A line of a text file (from 1), or a row of a parquet file (from 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Line(usize),
    Row(usize),
}

impl fmt::Display for At {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Line(line) => write!(out, "{}:{line}", self.path.display()),
            Place::Row(row) => write!(out, "{}: row {row}", self.path.display()),
        }
    }
}

/// Whose labels are being brought to those of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelSide {
    /// The data of an update, to the classes of the model.
    Data,
    /// A teacher, to the classes of its student.
    Teacher,
}

impl LabelSide {
    pub(crate) fn whose(self) -> &'static str {
        match self {
            LabelSide::Data => "the data",
            LabelSide::Teacher => "the teacher",
        }
    }

    pub(crate) fn owner(self) -> &'static str {
        match self {
            LabelSide::Data => "the model",
            LabelSide::Teacher => "the student",
        }
    }
}

/// One variant a kind of mistake; the binary maps all of them to exit code 3.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // Sources, task manifests, repository layouts.
    #[error("{}: can't be read ({source})", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error(
        "{}: can't tell the format from the suffix {suffix:?} (expected .parquet, .csv, .tsv, or .jsonl, .ndjson or .json with one object a line)",
        path.display()
    )]
    UnsupportedSuffix { path: PathBuf, suffix: String },
    #[error(
        "{text:?} is neither a task name, nor owner/name[:config][@revision] of a hub dataset, nor a file or folder that exists ({reason})"
    )]
    BadSource { text: String, reason: &'static str },
    #[error("{text:?} is a folder here: write ./{text}")]
    FolderWord { text: String },
    #[error("{}:{line}: {reason}", path.display())]
    BadTask { path: PathBuf, line: usize, reason: String },
    #[error("{}: {what} ({source})", path.display())]
    InTask { path: PathBuf, what: String, source: Box<Error> },
    #[error("{}: unknown key {key:?} (known: {}){}", path.display(), list(known), hint(suggestion))]
    UnknownTaskKey { path: PathBuf, key: String, known: Vec<String>, suggestion: Option<String> },
    #[error("{}: {key} is missing ({expected})", path.display())]
    MissingTaskKey { path: PathBuf, key: &'static str, expected: &'static str },
    #[error("{}: {key} is {value:?} (expected {expected}){}", path.display(), hint(suggestion))]
    BadTaskValue {
        path: PathBuf,
        key: &'static str,
        value: String,
        expected: &'static str,
        suggestion: Option<String>,
    },
    #[error("README.md:{line}: the front matter can't be read ({reason})")]
    BadCard { line: usize, reason: String },
    #[error("config {config:?} isn't there (configs: {}){}", list(configs), hint(suggestion))]
    UnknownConfig { config: String, configs: Vec<String>, suggestion: Option<String> },
    #[error("the dataset has several configs, name one of: {}", list(configs))]
    ConfigNeeded { configs: Vec<String> },
    #[error(
        "config {config:?}: nothing in the repository matches {pattern:?}, which README.md gives for split {split:?}"
    )]
    NothingMatches { config: String, split: String, pattern: String },

    #[error(
        "split {split} has {found} of {expected} files like {like}; fetch the others (a cache may hold only some)"
    )]
    MissingShards { split: String, found: usize, expected: usize, like: String },
    #[error(
        "no parquet, csv, tsv or json lines file here; for a dataset of the hub try the revision refs/convert/parquet"
    )]
    NoDataFiles,

    // Split expressions.
    #[error(
        "{expression:?} isn't a split expression ({reason}; expected such as train, train[:5000], train[10%:] or train[:10%]+validation)"
    )]
    BadSplitExpression { expression: String, reason: String },
    #[error("split {split:?} isn't there (splits: {}){}", list(splits), hint(suggestion))]
    UnknownSplit { split: String, splits: Vec<String>, suggestion: Option<String> },
    #[error("{expression:?} selects no rows (split sizes: {})", list(sizes))]
    EmptySplit { expression: String, sizes: Vec<String> },
    #[error("{expression:?} selects row {id:?} twice; parts that are added must not overlap")]
    RowTwice { expression: String, id: String },
    #[error("a held-out fraction of {fraction} isn't between 0 and 1")]
    BadFraction { fraction: f64 },
    #[error(
        "a cut of {fraction} of {} leaves one side empty; name an evaluation split or another fraction",
        counted(*rows, "labelled row")
    )]
    CutTooSmall { fraction: f64, rows: usize },

    // Files.
    #[error("{}: broken or truncated parquet ({reason}); fetch or write it again", path.display())]
    BadParquet { path: PathBuf, reason: String },
    #[error(
        "{}: compressed in a way that isn't read here ({codec}); write it with snappy, zstd or no compression",
        path.display()
    )]
    Codec { path: PathBuf, codec: String },
    #[error("{}: column {column:?} is {found}, not text or a number", path.display())]
    UnreadableColumn { path: PathBuf, column: String, found: String },
    #[error(
        "{}:{line}: {} where the header has {expected} (a delimiter or line break in a cell without quotes?)",
        path.display(),
        counted(*found, "cell")
    )]
    Ragged { path: PathBuf, line: usize, found: usize, expected: usize },
    #[error(
        "{}: the header is a single cell, {header:?}: cells are split at commas, semicolons or tabs (in .tsv at tabs); write the file with one of these",
        path.display()
    )]
    OtherDelimiter { path: PathBuf, header: String },
    #[error("{}:{line}: a quoted cell starts in this row and is never closed", path.display())]
    OpenQuote { path: PathBuf, line: usize },
    #[error(
        "{}:{line}: a quoted cell that starts in this row has line breaks, and goes on behind a quote; write quotes inside a cell \
         twice, and cells that begin with one in quotes",
        path.display()
    )]
    StrayQuote { path: PathBuf, line: usize },
    #[error("{}: no header and no rows in it", path.display())]
    EmptyFile { path: PathBuf },
    #[error("{}: no rows in it; give a file that has some", list(paths))]
    NoRows { paths: Vec<String> },
    #[error("{at}: not utf-8 text (save it as utf-8; spreadsheets call it \"csv utf-8\")")]
    NotUtf8 { at: At },
    #[error("{}: utf-16 text (save it as utf-8; spreadsheets call it \"csv utf-8\")", path.display())]
    Utf16 { path: PathBuf },
    #[error("{}:{line}: not a json object ({reason})", path.display())]
    BadJson { path: PathBuf, line: usize, reason: String },
    #[error(
        "{}:{line}: over {most} different keys down to here (expected rows with the same keys; where ids are keys, make them values)",
        path.display()
    )]
    ManyKeys { path: PathBuf, line: usize, most: usize },
    #[error("{}: one large json value (expected one object a line; jq -c '.[]' makes that of a list)", path.display())]
    JsonNotLines { path: PathBuf },

    // Columns and values.
    #[error("{}: column {column:?} is there twice", path.display())]
    DuplicateColumn { path: PathBuf, column: String },
    #[error("{}: no {role} column {column:?} (columns: {}){}", path.display(), list(columns), hint(suggestion))]
    MissingColumn {
        path: PathBuf,
        role: &'static str,
        column: String,
        columns: Vec<String>,
        suggestion: Option<String>,
    },
    #[error("{}: can't tell which column is the {role}, name it (columns: {})", path.display(), list(columns))]
    UnclearColumn { path: PathBuf, role: &'static str, columns: Vec<String> },
    #[error("{at}: column {column:?} holds {value}, not text")]
    NotText { at: At, column: String, value: String },
    #[error("{at}: column {column:?} holds {value:?}, which isn't one of the {} labels {}{}", labels.len(), list(labels), hint(suggestion))]
    UnknownLabel {
        at: Box<At>,
        column: String,
        value: String,
        labels: Vec<String>,
        suggestion: Option<String>,
    },
    #[error("{at}: column {column:?} holds {value}, which is outside 0..{} of the labels {} (-1 is unlabelled)", labels.len(), list(labels))]
    LabelOutOfRange { at: At, column: String, value: i64, labels: Vec<String> },
    #[error(
        "{at}: column {column:?} holds {value}, a number and not a class; give --problem-type regression, or another label column"
    )]
    NotAClass { at: At, column: String, value: String },
    #[error(
        "{at}: column {column:?} holds {value}, not a finite number; leave the cell empty where a row has no value"
    )]
    NotANumber { at: At, column: String, value: String },
    #[error(
        "{}: column {column:?} holds lists, but this is a {kind} task; give --problem-type multi_label_classification, or another label column",
        path.display()
    )]
    Lists { path: PathBuf, column: String, kind: &'static str },
    #[error(
        "{at}: column {column:?} holds {value:?}, which is no list of labels; write names with commas between, or a JSON list"
    )]
    NotAList { at: At, column: String, value: String },
    #[error(
        "{at}: column {column:?} holds a list with an empty entry or -1; leave it out of the list"
    )]
    EmptyEntry { at: At, column: String },
    #[error(
        "{at}: column {column:?} holds a 0 or 1 for each label; expected a list of the labels that the row has"
    )]
    OneHot { at: At, column: String },
    #[error(
        "{at}: column {column:?} holds -1 beside other numbers, and the classes are {}; leave the cell empty where a row has no label, or \
         say which class each number is: --label-map -1=NAME,...",
        list(labels)
    )]
    MinusOne { at: At, column: String, labels: Vec<String> },
    #[error(
        "the labels given ({}) aren't the labels of the data ({}): {}the names must be the same, their order may differ",
        list(given),
        list(found),
        differences(given, found)
    )]
    LabelsDisagree { given: Vec<String>, found: Vec<String> },
    #[error("{}: column {column:?} has no labelled row, so the classes are unknown; give rows that have labels, or name another label column", path.display())]
    NoLabels { path: PathBuf, column: String },
    #[error(
        "{second}: id {id:?} of column {column:?} is there twice, first at {first}; ids must be unique"
    )]
    DuplicateId { id: String, column: String, first: Box<At>, second: Box<At> },
    #[error("{at}: id column {column:?} is empty; every row needs an id, or leave the column out")]
    EmptyId { at: At, column: String },

    #[error("a label set needs at least two names, got {}", list(names))]
    TooFewLabels { names: Vec<String> },
    #[error("label {index} has an empty name")]
    EmptyLabelName { index: usize },
    #[error("label name {name:?} is there twice, at {first} and {second}")]
    DuplicateLabelName { name: String, first: usize, second: usize },

    // Tokens.
    #[error(
        "{}: no tokenizer here (expected tokenizer.json, or vocab.txt of a bert model, or vocab.json and merges.txt of a \
         roberta model)",
        dir.display()
    )]
    NoTokenizer { dir: PathBuf },
    #[error(
        "{}: a sentencepiece model alone can't be read; tokenizer.json is needed beside it, and Python makes it: \
         transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
        path.display()
    )]
    SentencePiece { path: PathBuf },
    #[error("{}: isn't a tokenizer ({reason})", path.display())]
    BadTokenizer { path: PathBuf, reason: String },
    #[error("{}: {reason}", path.display())]
    Vocabulary { path: PathBuf, reason: String },
    #[error(
        "max length {max_length} is too small: this tokenizer adds {} to {to}, so at least {least} are needed",
        counted(*added, "special token")
    )]
    MaxLengthTooSmall { max_length: usize, added: usize, to: &'static str, least: usize },
    #[error("row {id:?}: the tokenizer failed ({reason})")]
    Tokenize { id: String, reason: String },

    // Kinds, metrics and predictions.
    #[error(
        "unknown problem type {name:?} (expected single_label_classification, multi_label_classification or regression){}",
        hint(suggestion)
    )]
    UnknownKind { name: String, suggestion: Option<String> },
    #[error(
        "unknown metric {name:?} (expected accuracy, f1, macro_f1, matthews, pearson or spearman){}",
        hint(suggestion)
    )]
    UnknownMetric { name: String, suggestion: Option<String> },
    #[error("metric {metric} isn't one of a {kind} task (expected {expected})")]
    MetricOfKind { metric: &'static str, kind: &'static str, expected: &'static str },
    #[error("{}:{line}: isn't a prediction ({reason})", path.display())]
    BadPrediction { path: PathBuf, line: usize, reason: String },
    #[error("{}:{second}: id {id:?} is there twice, first in line {first}", path.display())]
    DuplicatePrediction { path: PathBuf, id: String, first: usize, second: usize },
    #[error("prediction {id:?}: {what} of label {label:?} is {value}, not a finite number")]
    NotFinite { id: String, what: &'static str, label: String, value: f32 },
    #[error("a prediction can't be written ({source})")]
    Write { source: std::io::Error },

    // Two label sets.
    #[error("{}", said_of_near(*side, near))]
    NearLabels {
        side: LabelSide,
        /// (theirs, ours or another of theirs); at least one.
        near: Vec<(String, String)>,
    },
    #[error(
        "the data has labels that the model lacks: {} (the model's: {}); --allow-new-classes makes classes of them, --label-map \"{}\" gives one another name",
        list(new), list(old), entry(new.first().map_or("", String::as_str), "LABEL")
    )]
    NewLabels { new: Vec<String>, old: Vec<String> },
    #[error(
        "one side counts its labels where the other names them: {} has {}, {} {}; say which is which, perhaps --label-map \"{suggestion}\" (a guess by order: look at some rows first)",
        side.whose(), list(theirs), side.owner(), list(ours)
    )]
    NumbersForNames { side: LabelSide, theirs: Vec<String>, ours: Vec<String>, suggestion: String },
    #[error(
        "the teacher has classes that the student lacks: {} (the student's: {}); say which they are with --label-map \"{}\", or take a teacher of the same task",
        list(extra), list(student), entry(extra.first().map_or("", String::as_str), "LABEL")
    )]
    TeacherLabels { extra: Vec<String>, student: Vec<String> },
    #[error(
        "the teacher's classes {first:?} and {second:?} would both be the student's {student:?}; map each to a class of its own"
    )]
    TeacherLabelTwice { first: String, second: String, student: String },
    #[error("label map {entry:?}: {reason}")]
    BadLabelMap { entry: String, reason: String },
}

impl Error {
    pub(crate) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Read { path: path.to_owned(), source }
    }
}

/// The known name nearest to a mistyped one, if any is near enough to be worth offering.
pub fn nearest<'n>(wrong: &str, known: impl IntoIterator<Item = &'n str>) -> Option<String> {
    let wrong = wrong.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&wrong, &name.to_lowercase()), name))
        .filter(|(near, _)| *near > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name.to_owned())
}

pub(crate) const LISTED: usize = 20;

// Long lists (150 intents) are cut: a message is read in a terminal.
fn list(names: &[String]) -> String {
    match names.len() {
        0 => "none".to_owned(),
        n if n <= LISTED => names.join(", "),
        n => format!("{}, … ({n} in all)", names[..LISTED].join(", ")),
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn differences(given: &[String], found: &[String]) -> String {
    let without = |names: &[String], others: &[String]| -> Vec<String> {
        names.iter().filter(|name| !others.contains(name)).cloned().collect()
    };
    let (lacking, extra) = (without(given, found), without(found, given));
    let mut text = String::new();
    if !lacking.is_empty() {
        text += &format!("not in the data: {}; ", list(&lacking));
    }
    if !extra.is_empty() {
        text += &format!("not given: {}; ", list(&extra));
    }
    let lower = |names: &[String]| names.iter().map(|name| name.to_lowercase()).collect::<Vec<_>>();
    let extra = lower(&extra);
    if lower(&lacking).iter().any(|name| extra.contains(name)) {
        text += "some differ in case only; ";
    }
    text
}

fn hint(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map_or_else(String::new, |name| format!("; did you mean {name:?}?"))
}
