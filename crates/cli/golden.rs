//! Rows whose prediction must not change: `--golden FILE`, with texts of its own or with ids of held-out rows.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::Result;
use lowchurn_churn::Error as ChurnError;
use lowchurn_data::table::{self, Format};
use lowchurn_data::{Columns, Error as DataError, Example, LabelSet, Labels, Split};
use lowchurn_hub::Hub;

use crate::console::Console;
use crate::data::{self, Wishes};
use crate::failure::Usage;
use crate::{facts, slices};

pub enum GoldenRows {
    /// Ids to be found among the held-out rows.
    Ids(Vec<String>),
    /// Rows of their own, which both models are asked.
    Rows(Box<Split>),
}

impl GoldenRows {
    /// Of what they hold: their file may change under its name.
    pub fn sha256(&self, labels: &LabelSet) -> String {
        let row = |id: &String| Example {
            id: id.clone(),
            text: String::new(),
            pair: None,
            label: None,
            target: None,
        };
        match self {
            GoldenRows::Ids(ids) => {
                Split::new("golden", ids.iter().map(row).collect(), labels.clone()).sha256
            }
            GoldenRows::Rows(rows) => rows.sha256.clone(),
        }
    }
}

/// A file with a text column is rows; any other one is ids, as everywhere: one a line, a column of them, or the only column.
/// `columns` are those of the run's other rows; labels are not looked at.
pub fn read(
    path: &Path,
    labels: &[String],
    columns: &Columns,
    hub: &Hub,
    console: &mut Console,
) -> Result<GoldenRows> {
    let name = path.display().to_string();
    let id_column = columns.id.as_deref();
    if !is_table(path) {
        return ids(&name, id_column, hub, console);
    }
    let data = data::open(&name, hub, console)?;
    let split = data.split_names().first().cloned().unwrap_or_else(|| "train".into());
    let labels = LabelSet::of_outputs(labels.to_vec())?;
    let wishes =
        Wishes { columns: Columns { label: None, ..columns.clone() }, ..Wishes::default() };
    match data.read(&split, &wishes, Labels::Ignored, Some(&labels), hub, console) {
        Ok(rows) if rows.examples.is_empty() => {
            Err(Usage(format!("--golden {name}: no row in it")).into())
        }
        Ok(rows) => Ok(GoldenRows::Rows(Box::new(rows))),
        Err(error) if has_no_text(&error) => ids(&name, id_column, hub, console),
        Err(error) => Err(error),
    }
}

fn ids(
    name: &str,
    id_column: Option<&str>,
    hub: &Hub,
    console: &mut Console,
) -> Result<GoldenRows> {
    let mut ids: Vec<String> =
        slices::ids("--golden", name, id_column, hub, console)?.into_iter().collect();
    ids.sort();
    Ok(GoldenRows::Ids(ids))
}

fn is_table(path: &Path) -> bool {
    let suffix = path.extension().map(|suffix| suffix.to_string_lossy().into_owned());
    suffix.is_some_and(|suffix| Format::of_suffix(&suffix).is_some())
}

fn has_no_text(error: &anyhow::Error) -> bool {
    let found = error.chain().find_map(|cause| cause.downcast_ref::<DataError>());
    matches!(
        found,
        Some(
            DataError::UnclearColumn { role: "text", .. }
                | DataError::MissingColumn { role: "text", .. }
        )
    )
}

/// Whether the file has texts, which whoever looks golden rows up by their ids doesn't ask the models about.
pub fn has_texts(path: &Path, text_column: Option<&str>) -> bool {
    let Some(head) = is_table(path).then(|| table::head(path).ok()).flatten() else { return false };
    let is_text = |column: &str| match text_column {
        Some(asked) => column == asked,
        None => facts::TEXTS.contains(&column),
    };
    head.columns.len() > 1 && head.columns.iter().any(|column| is_text(column))
}

/// Golden rows as the held-out ones are called. Whether all are there the certificate would say too, but after everything was
/// scored or trained.
pub fn among(golden: Option<GoldenRows>, holdout: &Split) -> Result<Option<GoldenRows>> {
    let Some(GoldenRows::Ids(ids)) = golden else { return Ok(golden) };
    let known: Vec<&str> = holdout.examples.iter().map(|row| row.id.as_str()).collect();
    Ok(Some(GoldenRows::Ids(ids_among(&ids, &known, &holdout.name)?)))
}

/// These ids as the rows of `data` have them. In a data set with splits an id is its split's name and what the id column says;
/// a list may have the latter alone, where that is one row.
pub fn ids_among(golden: &[String], known: &[&str], data: &str) -> Result<Vec<String>> {
    let all: HashSet<&str> = known.iter().copied().collect();
    // No split has a hyphen in its name.
    let own = |id: &&str| id.split_once('-').is_some_and(|(split, _)| has_split(data, split));
    let mut by_own: HashMap<&str, Vec<&str>> = HashMap::new();
    for id in known.iter().copied().filter(own) {
        by_own.entry(id.split_once('-').map_or(id, |(_, own)| own)).or_default().push(id);
    }
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for id in golden {
        match (all.contains(id.as_str()), by_own.get(id.as_str()).map(Vec::as_slice)) {
            (true, _) => found.push(id.clone()),
            (false, Some([only])) => found.push(only.to_string()),
            (false, Some([first, second, ..])) => {
                return Err(Usage(format!(
                    "golden row {id} may be {first} or {second} of the data; write which with its split"
                ))
                .into());
            }
            (false, _) => missing.push(id),
        }
    }
    if missing.is_empty() {
        return Ok(found);
    }
    let first = missing.iter().take(3).map(|id| id.to_string()).collect();
    let like = known.first().map(|id| id.to_string());
    Err(ChurnError::GoldenMissing { first, missing: missing.len(), like }.into())
}

/// Whether rows called `tickets:train[:10]+later` are of this split among others.
fn has_split(data: &str, split: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    data.match_indices(split).any(|(at, _)| {
        let (before, after) = (&data[..at], &data[at + split.len()..]);
        before.ends_with([':', '+']) && !after.starts_with(is_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_golden_id_may_lack_its_split() {
        let check = |golden: &str, known: &[&str], data: &str, expected: Result<&str, &str>| {
            let found = ids_among(&[golden.to_string()], known, data);
            let found = found.map(|ids| ids.join(" ")).map_err(|error| error.to_string());
            assert_eq!(found, expected.map(str::to_string).map_err(str::to_string), "{golden}");
        };
        let later = ["later-t-1", "later-t-2"];
        check("later-t-1", &later, "tickets:later[:9]", Ok("later-t-1"));
        check("t-1", &later, "tickets:later[:9]", Ok("later-t-1"));
        check("t-1", &later, "a:train + tickets:later", Ok("later-t-1"));
        let missing = |id: &str, like: &str| {
            format!(
                "1 golden row isn't in the data ({id}), whose ids are like {like}; add it there, give texts where they are trained on, or take it off the golden list"
            )
        };
        check("1", &later, "tickets:later", Err(&missing("1", "later-t-1")));
        check("t-1", &later, "tickets:latest", Err(&missing("t-1", "later-t-1")));
        // Of a file the name stands before the row's number, not before an id.
        check("1", &["rows-1"], "rows:train", Err(&missing("1", "rows-1")));
        check(
            "7",
            &["train-7", "test-7"],
            "x:train+test",
            Err("golden row 7 may be train-7 or test-7 of the data; write which with its split"),
        );
    }
}
