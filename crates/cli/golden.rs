//! Rows whose prediction must not change: `--golden FILE`, with texts of its own or with ids of held-out rows.

use std::path::Path;

use anyhow::Result;
use lowchurn_data::{Columns, Error as DataError, LabelSet, Labels, Split};
use lowchurn_hub::Hub;

use crate::console::Console;
use crate::data::{self, Wishes};
use crate::failure::Usage;

pub enum GoldenRows {
    /// Ids to be found among the held-out rows.
    Ids(Vec<String>),
    /// Rows of their own, which both models are asked.
    Rows(Box<Split>),
}

/// A file with a text column is rows; one without is ids, in its column `id` or its only one.
pub fn read(
    path: &Path,
    labels: &[String],
    hub: &Hub,
    console: &mut Console,
) -> Result<GoldenRows> {
    let name = path.display().to_string();
    let data = data::open(&name, hub, console)?;
    let split = data.split_names().first().cloned().unwrap_or_else(|| "train".into());
    let labels = LabelSet::new(labels.to_vec())?;
    let mut read = |columns: Columns| {
        data.read(&split, &Wishes { columns }, Labels::Ignored, Some(&labels), hub, console)
    };
    let rows = match read(Columns::default()) {
        Ok(rows) => GoldenRows::Rows(Box::new(rows)),
        Err(error) => {
            let Some(column) = column_of_ids(&error) else { return Err(error) };
            let rows = read(Columns { text: Some(column), ..Columns::default() })?;
            GoldenRows::Ids(rows.examples.into_iter().map(|row| row.text).collect())
        }
    };
    let is_empty = match &rows {
        GoldenRows::Ids(ids) => ids.is_empty(),
        GoldenRows::Rows(rows) => rows.examples.is_empty(),
    };
    if is_empty {
        return Err(Usage(format!("--golden {name}: no row in it")).into());
    }
    Ok(rows)
}

/// Where the rows have no text.
fn column_of_ids(error: &anyhow::Error) -> Option<String> {
    let found = error.downcast_ref::<DataError>();
    let Some(DataError::UnclearColumn { role: "text", columns, .. }) = found else { return None };
    match &columns[..] {
        [only] => Some(only.clone()),
        _ => columns.iter().find(|column| *column == "id").cloned(),
    }
}
