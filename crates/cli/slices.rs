//! Columns to slice by, and lists of ids: what is known of rows besides text and label.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result};
use lowchurn_data::error::nearest;
use lowchurn_data::read::shown;
use lowchurn_data::table::{self, Format, Wanted};
use lowchurn_data::{Columns, Example, LabelSet, Labels};
use lowchurn_hub::Hub;

use crate::console::Console;
use crate::data::{self, Data, Wishes};
use crate::eval::chosen_split;
use crate::failure::Usage;

/// Values of some columns, by the id of a row.
#[derive(Default)]
pub struct Slices {
    place: HashMap<String, usize>,
    /// (column, a value a row).
    columns: Vec<(String, Vec<String>)>,
}

/// These columns of a split whose rows have been read already.
pub fn read(
    data: &Data,
    split: &str,
    examples: &[Example],
    columns: &[String],
    hub: &Hub,
    console: &mut Console,
) -> Result<Slices> {
    if columns.is_empty() {
        return Ok(Slices::default());
    }
    let values = data.read_columns(split, columns, "slice", hub, console)?;
    let ids = examples.iter().map(|row| row.id.as_str());
    Ok(Slices::new(ids, columns.iter().cloned().zip(values).collect()))
}

impl Slices {
    pub fn new<'i>(
        ids: impl Iterator<Item = &'i str>,
        columns: Vec<(String, Vec<String>)>,
    ) -> Slices {
        let place = ids.enumerate().map(|(at, id)| (id.to_string(), at)).collect();
        Slices { place, columns }
    }

    /// The values of these rows, column by column; empty text for a row that isn't known.
    pub fn of(&self, ids: &[String]) -> Vec<(String, Vec<String>)> {
        let value = |values: &[String], id: &String| {
            let at = self.place.get(id)?;
            values.get(*at).cloned()
        };
        let column = |(name, values): &(String, Vec<String>)| {
            (name.clone(), ids.iter().map(|id| value(values, id).unwrap_or_default()).collect())
        };
        self.columns.iter().map(column).collect()
    }
}

const IDS: [&str; 5] = ["id", "row_id", "example_id", "key", "guid"];

/// A list of ids: a text file with one a line, the id column of a file of rows (its only column, where it has one), or the
/// rows of a data set.
pub fn ids(
    flag: &str,
    text: &str,
    id_column: Option<&str>,
    hub: &Hub,
    console: &mut Console,
) -> Result<HashSet<String>> {
    let path = Path::new(text);
    let is_rows = path
        .extension()
        .is_some_and(|suffix| Format::of_suffix(&suffix.to_string_lossy()).is_some());
    let found: HashSet<String> = match (path.is_file(), is_rows) {
        (true, false) => {
            let lines =
                std::fs::read_to_string(path).with_context(|| format!("{text}: can't be read"))?;
            lines
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .map(str::to_string)
                .collect()
        }
        (true, true) => column_of_ids(flag, path, id_column)?,
        (false, true) => {
            return Err(Usage(format!("{flag} {text}: there is no such file")).into());
        }
        (false, false) => {
            let data = data::open(text, hub, console)?;
            let split = chosen_split(None, &data)?;
            let columns = Columns { id: id_column.map(str::to_string), ..Columns::default() };
            let labels = LabelSet::new(vec!["0".into(), "1".into()])?; // none is read
            let wishes = Wishes { columns, ..Wishes::default() };
            let rows = data.read(&split, &wishes, Labels::Ignored, Some(&labels), hub, console)?;
            rows.examples.into_iter().map(|row| row.id).collect()
        }
    };
    match found.is_empty() {
        true => Err(Usage(format!("{flag} {text}: there is no id in it")).into()),
        false => Ok(found),
    }
}

fn column_of_ids(flag: &str, path: &Path, asked: Option<&str>) -> Result<HashSet<String>> {
    let columns = table::head(path)?.columns;
    let column = match (asked, columns.as_slice()) {
        (Some(asked), _) => asked.to_string(),
        (None, [only]) => only.clone(),
        (None, _) => match IDS.iter().find(|name| columns.iter().any(|column| column == *name)) {
            Some(name) => name.to_string(),
            None => {
                let near = nearest("id", columns.iter().map(String::as_str));
                let hint = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
                return Err(Usage(format!(
                    "{flag} {}: no id column (columns: {}); name it with --id-column{hint}",
                    path.display(),
                    columns.join(", ")
                ))
                .into());
            }
        },
    };
    let table = table::read(path, &[Wanted { role: "id", column: &column }])?;
    let ids = table.cells.into_iter().flat_map(shown);
    Ok(ids.filter(|id| !id.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_id_whatever_the_order() {
        let column = ("colour".to_string(), vec!["red".to_string(), "blue".to_string()]);
        let slices = Slices::new(["a", "b"].into_iter(), vec![column]);
        let of = |ids: &[&str]| slices.of(&ids.iter().map(|id| id.to_string()).collect::<Vec<_>>());
        let expected = vec!["blue".to_string(), String::new(), "red".to_string()];
        assert_eq!(of(&["b", "x", "a"]), [("colour".to_string(), expected)]);
    }
}
