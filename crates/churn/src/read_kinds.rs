//! Prediction files whose answers are sets of labels or numbers → `Predicted`.
//!
//! Sets are read from the JSON lines that this program writes; numbers from those, and from any file with a column of them.

use std::collections::HashMap;
use std::path::Path;

use lowchurn_data::SetRow;
use lowchurn_data::error::{At, Error as DataError, Place};
use lowchurn_data::table::{self, Cells, Format, Wanted};

use crate::names::Names;
use crate::{Error, Predicted, Result};

/// What a file holds, by its columns alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holds {
    Classes,
    Sets,
    Values,
}

const VALUES: [&str; 6] = ["value", "prediction", "predicted", "pred", "y_pred", "score"];
const GOLDS: [&str; 6] = ["gold", "label", "target", "y_true", "truth", "actual"];

pub(crate) fn holds(path: &Path, columns: &[String], names: &Names) -> Result<Holds> {
    let has = |name: &str| columns.iter().any(|column| column == name);
    let is_json = Format::of(path)? == Format::JsonLines;
    let is_own = |keys: &[&str]| columns.iter().all(|column| keys.contains(&column.as_str()));
    Ok(match () {
        () if is_json && has("labels") && is_own(&["id", "labels", "gold", "scores", "logits"]) => {
            Holds::Sets
        }
        () if names.tolerance.is_some() => Holds::Values,
        () if has("value") && is_own(&["id", "value", "gold"]) => Holds::Values,
        () => Holds::Classes,
    })
}

/// Sets by the names of their labels, which are those of the first row's scores.
pub(crate) fn sets(path: &Path) -> Result<Predicted> {
    let (mut names, mut seen) = (Vec::<String>::new(), HashMap::<String, usize>::new());
    let (mut ids, mut gold, mut predicted) = (Vec::new(), Vec::new(), Vec::new());
    table::for_each_line(path, |line, text| -> Result<()> {
        let at = || At { path: path.to_owned(), place: Place::Line(line) };
        let bad = |reason: String| Error::BadRow { at: at(), reason, column: 1 };
        let row: SetRow = serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
        if names.is_empty() {
            names = row.scores.iter().map(|(name, _)| name.clone()).collect();
        }
        if !row.scores.iter().map(|(name, _)| name).eq(&names) {
            return Err(bad("its scores are of other labels than the first row's".into()));
        }
        let place = |label: &String| {
            let at = names.iter().position(|name| name == label);
            at.map(|at| at as u32).ok_or_else(|| bad(format!("label {label:?} has no score")))
        };
        let set = |labels: &[String]| -> Result<Vec<u32>> {
            let mut set = labels.iter().map(place).collect::<Result<Vec<u32>>>()?;
            set.sort_unstable();
            set.dedup();
            Ok(set)
        };
        predicted.push(set(&row.labels)?);
        gold.push(row.gold.as_deref().map(set).transpose()?);
        if let Some(first) = seen.insert(row.id.clone(), line) {
            return Err(twice(path, "id", row.id, Place::Line(first), at()));
        }
        ids.push(row.id);
        Ok(())
    })?;
    Predicted::from_sets(&path.display().to_string(), &names, ids, gold, predicted)
}

/// Numbers, by the columns named or by the names that they usually have.
pub(crate) fn values(path: &Path, columns: &[String], names: &Names) -> Result<Predicted> {
    let name = path.display().to_string();
    let Some(tolerance) = names.tolerance else { return Err(Error::ToleranceNeeded { name }) };
    let find = |known: &[&str]| {
        known
            .iter()
            .find(|name| columns.iter().any(|column| column == *name))
            .map(|name| name.to_string())
    };
    let id = names.id.clone().or_else(|| find(&["id"]));
    let id = match names.rows {
        crate::RowsBy::Position => None,
        crate::RowsBy::Id => Some(id.ok_or_else(|| Error::NoIdColumn {
            path: path.to_owned(),
            columns: columns.to_vec(),
        })?),
    };
    let value = names.prediction.clone().or_else(|| find(&VALUES));
    let value = value.ok_or_else(|| Error::NoPredictionColumn {
        path: path.to_owned(),
        columns: columns.to_vec(),
    })?;
    let gold = match names.gold.as_deref() {
        Some("none") => None,
        Some(name) => Some(name.to_owned()),
        None => find(&GOLDS).filter(|gold| *gold != value),
    };
    let mut wanted = vec![Wanted { role: "prediction", column: &value }];
    wanted.extend(gold.as_deref().map(|column| Wanted { role: "gold", column }));
    wanted.extend(id.as_deref().map(|column| Wanted { role: "id", column }));
    let mut found = table::read(path, &wanted)?;
    let ids = id.as_ref().and_then(|_| found.cells.pop());
    let golds = gold.as_ref().and_then(|_| found.cells.pop());
    let said = found.cells.pop();
    let numbers = |cells: Option<Cells>, column: &str| -> Result<Vec<Option<f32>>> {
        let shown = cells.map(lowchurn_data::read::shown).unwrap_or_default();
        let number = |(row, text): (usize, String)| match text.trim() {
            "" => Ok(None),
            text => match text.parse::<f32>() {
                Ok(value) if value.is_finite() => Ok(Some(value)),
                _ => Err(Error::Data(DataError::NotANumber {
                    at: found.at(row),
                    column: column.to_owned(),
                    value: format!("{text:?}"),
                })),
            },
        };
        shown.into_iter().enumerate().map(number).collect()
    };
    let predicted = numbers(said, &value)?
        .into_iter()
        .enumerate()
        .map(|(row, value)| value.ok_or_else(|| Error::NoPrediction { at: found.at(row) }))
        .collect::<Result<Vec<f32>>>()?;
    let gold = match golds {
        Some(cells) => numbers(Some(cells), gold.as_deref().unwrap_or_default())?,
        None => vec![None; predicted.len()],
    };
    let ids: Vec<String> = match ids {
        Some(cells) => lowchurn_data::read::shown(cells),
        None => (0..predicted.len()).map(|row| row.to_string()).collect(),
    };
    if ids.is_empty() {
        return Err(Error::NoRows { path: path.to_owned() });
    }
    let mut seen = HashMap::<&str, usize>::new();
    for (row, own) in ids.iter().enumerate() {
        if own.is_empty() {
            return Err(Error::NoId { at: found.at(row) });
        }
        if let Some(first) = seen.insert(own, row) {
            let column = id.as_deref().unwrap_or_default();
            return Err(twice(path, column, own.clone(), found.at(first).place, found.at(row)));
        }
    }
    Predicted::from_values(&name, ids, gold, predicted, tolerance)
}

fn twice(path: &Path, column: &str, id: String, first: Place, second: At) -> Error {
    let first = Box::new(At { path: path.to_owned(), place: first });
    Error::Data(DataError::DuplicateId {
        id,
        column: column.to_owned(),
        first,
        second: Box::new(second),
    })
}
