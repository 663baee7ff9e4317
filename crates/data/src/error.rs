//! Everything that can go wrong between a path on disk and a batch, with the data a reader needs to mend it.
//!
//! Messages are lower case, name file, row, column and value where there are such, and end with what to do.

use std::path::PathBuf;

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// One variant a kind of mistake; the binary maps all of them to exit code 3.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("{}: can't be read ({source})", path.display())]
    Read { path: PathBuf, source: std::io::Error },

    #[error("a label set needs at least two names, got {count}")]
    TooFewLabels { count: usize },
    #[error("label {index} has an empty name")]
    EmptyLabelName { index: usize },
    #[error("label name {name:?} is there twice, at {first} and {second}")]
    DuplicateLabelName { name: String, first: usize, second: usize },

    #[error("{}: no tokenizer here (expected tokenizer.json, or vocab.txt of a bert model)", dir.display())]
    NoTokenizer { dir: PathBuf },
    #[error("{}: isn't a tokenizer ({reason})", path.display())]
    BadTokenizer { path: PathBuf, reason: String },
    #[error(
        "max length {max_length} is too small: this tokenizer adds {added} special tokens, so at least {least} are needed"
    )]
    MaxLengthTooSmall { max_length: usize, added: usize, least: usize },
    #[error("row {id:?}: the tokenizer failed ({reason})")]
    Tokenize { id: String, reason: String },

    #[error("unknown metric {name:?} (expected accuracy, f1 or matthews){}", hint(suggestion))]
    UnknownMetric { name: String, suggestion: Option<String> },

    #[error("{}:{line}: isn't a prediction ({reason})", path.display())]
    BadPrediction { path: PathBuf, line: usize, reason: String },
    #[error("{}:{second}: id {id:?} is there twice, first in line {first}", path.display())]
    DuplicatePrediction { path: PathBuf, id: String, first: usize, second: usize },
    #[error("prediction {id:?}: {what} of label {label:?} is {value}, not a finite number")]
    NotFinite { id: String, what: String, label: String, value: f32 },
    #[error("a prediction can't be written ({source})")]
    Write { source: std::io::Error },
}

fn hint(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map_or_else(String::new, |name| format!("; did you mean {name:?}?"))
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
