//! Which columns of a prediction file are what: as named, else found by the names that other tools write.
//!
//! A guess is made only where it is the only one; else the error lists the columns and says how to name them.

use std::path::Path;

use lowchurn_data::error::{Error as DataError, nearest};

use crate::{Error, Result};

/// Names of columns, where the guess should not be trusted. `None` is "find it".
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Names {
    pub id: Option<String>,
    pub prediction: Option<String>,
    /// `none` reads no true classes.
    pub gold: Option<String>,
    /// A column that holds an object or list of scores, or the start of the names of columns that hold one each (`prob_`).
    /// `none` reads no scores.
    pub scores: Option<String>,
    /// The classes of scores that stand in a list, in its order.
    pub labels: Vec<String>,
    pub rows: RowsBy,
    /// The file's answers are numbers, and two that are no further apart are the same.
    pub tolerance: Option<f64>,
}

/// What tells that two rows of two files are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowsBy {
    #[default]
    Id,
    /// The number of the row, from 0: both files must hold the same rows in the same order. Only where it was asked for.
    Position,
}

/// Places of columns, as chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Roles {
    /// `None`: by position.
    pub id: Option<usize>,
    pub prediction: Option<usize>,
    pub gold: Option<usize>,
    pub scores: ScoreColumns,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ScoreColumns {
    None,
    /// One column a class: its place, and the class.
    Each(Vec<(usize, String)>),
    /// An object or a list in one column.
    Packed(usize),
}

// Best first for ids, where a second candidate does no harm; of the others only one may be there.
const IDS: [&str; 13] = [
    "id",
    "row_id",
    "rowid",
    "example_id",
    "sample_id",
    "text_id",
    "doc_id",
    "guid",
    "uid",
    "uuid",
    "idx",
    "index",
    "key",
];
const PREDICTIONS: [&str; 11] = [
    "prediction",
    "predicted",
    "pred",
    "preds",
    "predictions",
    "y_pred",
    "y_hat",
    "yhat",
    "predicted_label",
    "predicted_class",
    "pred_label",
];
const GOLDS: [&str; 13] = [
    "gold",
    "gold_label",
    "target",
    "y_true",
    "true_label",
    "true_class",
    "true",
    "truth",
    "ground_truth",
    "actual",
    "expected",
    "reference",
    "y",
];
const PACKED: [&str; 4] = ["scores", "probabilities", "probs", "proba"];
const PREFIXES: [&str; 6] = ["score_", "scores_", "prob_", "proba_", "probability_", "p_"];
/// The keys of the prediction files that this program writes; `label` is the prediction there.
const OWN: [&str; 5] = ["id", "label", "gold", "scores", "logits"];

/// The columns to read.
pub(crate) fn choose(path: &Path, columns: &[String], names: &Names) -> Result<Roles> {
    let id = match (&names.id, names.rows) {
        (Some(name), _) => Some(named(path, columns, "id", name)?),
        (None, RowsBy::Position) => None,
        (None, RowsBy::Id) => Some(all_of(columns, &IDS).first().copied().ok_or_else(|| {
            Error::NoIdColumn { path: path.to_owned(), columns: columns.to_vec() }
        })?),
    };
    let scores = choose_scores(path, columns, names)?;
    let mut prediction = match &names.prediction {
        Some(name) => Some(named(path, columns, "prediction", name)?),
        None => guessed(path, columns, "prediction", &PREDICTIONS)?,
    };
    let mut gold = match names.gold.as_deref() {
        Some("none") => None,
        Some(name) => Some(named(path, columns, "gold", name)?),
        None => guessed(path, columns, "gold", &GOLDS)?,
    };
    // A column called `label` is the one of the two that has no column of its own.
    let taken = [id, prediction, gold];
    let label =
        all_of(columns, &["label"]).first().copied().filter(|at| !taken.contains(&Some(*at)));
    if let Some(label) = label {
        let is_own = columns.iter().all(|column| OWN.contains(&column.as_str()));
        match (prediction, gold) {
            (Some(_), None) if names.gold.is_none() => gold = Some(label),
            (None, Some(_)) => prediction = Some(label),
            (None, None) if is_own || scores == ScoreColumns::None || names.gold.is_some() => {
                prediction = Some(label);
            }
            (None, None) => {
                return Err(Error::LabelOrGold {
                    path: path.to_owned(),
                    column: columns.get(label).cloned().unwrap_or_default(),
                });
            }
            _ => {}
        }
    }
    if prediction.is_none() && scores == ScoreColumns::None {
        return Err(Error::NoPredictionColumn { path: path.to_owned(), columns: columns.to_vec() });
    }
    let roles = Roles { id, prediction, gold, scores };
    match roles.places().iter().find_map(|at| twice(columns, *at)) {
        Some(column) => Err(DataError::DuplicateColumn { path: path.to_owned(), column }.into()),
        None => Ok(roles),
    }
}

impl Roles {
    /// The columns that are read: id, prediction and gold, then those of the scores.
    pub fn places(&self) -> Vec<usize> {
        let mut places: Vec<usize> =
            [self.id, self.prediction, self.gold].into_iter().flatten().collect();
        match &self.scores {
            ScoreColumns::None => {}
            ScoreColumns::Each(each) => places.extend(each.iter().map(|(at, _)| *at)),
            ScoreColumns::Packed(at) => places.push(*at),
        }
        places
    }
}

fn twice(columns: &[String], at: usize) -> Option<String> {
    let name = columns.get(at)?;
    (columns.iter().filter(|column| *column == name).count() > 1).then(|| name.clone())
}

fn choose_scores(path: &Path, columns: &[String], names: &Names) -> Result<ScoreColumns> {
    match names.scores.as_deref() {
        Some("none") => Ok(ScoreColumns::None),
        Some(name) => match columns.iter().position(|column| column == name) {
            Some(at) => Ok(ScoreColumns::Packed(at)),
            None => match with_prefix(columns, name) {
                each if each.is_empty() => Err(missing(path, columns, "score", name)),
                each => Ok(ScoreColumns::Each(each)),
            },
        },
        None => {
            if let [only] = all_of(columns, &PACKED)[..] {
                return Ok(ScoreColumns::Packed(only));
            }
            // One column alone, such as p_value or score_threshold, isn't a distribution over classes.
            let each = PREFIXES.iter().map(|prefix| with_prefix(columns, prefix));
            Ok(each
                .into_iter()
                .find(|each| each.len() > 1)
                .map_or(ScoreColumns::None, ScoreColumns::Each))
        }
    }
}

fn with_prefix(columns: &[String], prefix: &str) -> Vec<(usize, String)> {
    let class = |(at, column): (usize, &String)| {
        let start = column.get(..prefix.len())?;
        let class = column.get(prefix.len()..)?;
        (start.eq_ignore_ascii_case(prefix) && !class.is_empty()).then(|| (at, class.to_owned()))
    };
    columns.iter().enumerate().filter_map(class).collect()
}

// Places of the columns with these names, in the order of the names.
fn all_of(columns: &[String], names: &[&str]) -> Vec<usize> {
    let places =
        |name: &&str| columns.iter().position(|column| column.trim().eq_ignore_ascii_case(name));
    names.iter().filter_map(places).collect()
}

fn guessed(
    path: &Path,
    columns: &[String],
    role: &'static str,
    names: &[&str],
) -> Result<Option<usize>> {
    match all_of(columns, names)[..] {
        [] => Ok(None),
        [only] => Ok(Some(only)),
        ref several => Err(Error::SeveralColumns {
            path: path.to_owned(),
            role,
            found: several.iter().filter_map(|at| columns.get(*at).cloned()).collect(),
        }),
    }
}

fn named(path: &Path, columns: &[String], role: &'static str, name: &str) -> Result<usize> {
    columns
        .iter()
        .position(|column| column == name)
        .ok_or_else(|| missing(path, columns, role, name))
}

fn missing(path: &Path, columns: &[String], role: &'static str, name: &str) -> Error {
    Error::Data(DataError::MissingColumn {
        path: path.to_owned(),
        role,
        column: name.to_owned(),
        columns: columns.to_vec(),
        suggestion: nearest(name, columns.iter().map(String::as_str)),
    })
}
