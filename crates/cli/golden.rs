//! Rows whose prediction must not change: `--golden FILE`, with texts of its own or with ids of held-out rows.

use std::collections::HashSet;
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

/// The certificate would say it too, but after everything was scored or trained.
pub fn refuse_missing(golden: Option<&GoldenRows>, holdout: &Split) -> Result<()> {
    let Some(GoldenRows::Ids(golden)) = golden else { return Ok(()) };
    let ids: HashSet<&str> = holdout.examples.iter().map(|row| row.id.as_str()).collect();
    let missing: Vec<&String> = golden.iter().filter(|id| !ids.contains(id.as_str())).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let first = missing.iter().take(3).map(|id| id.to_string()).collect();
    Err(ChurnError::GoldenMissing { first, missing: missing.len() }.into())
}
