//! The table that a published model brings along: its logits of the rows that it was trained on. What it covers needs no
//! scoring by the next update, whose table then differs in the last bits from one scored in one go (rows share batches). It is
//! believed only where weights, tokenizer, length, labels, ids and texts are those of now.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use lowchurn_data::{Example, Split};
use lowchurn_distill::{Fingerprint, Table, table_file_name};
use lowchurn_hub::Hub;

use crate::base::Base;
use crate::console::Console;
use crate::device::Compute;
use crate::found::{self, Found};
use crate::progress::count;

/// Of a release, beside its weights.
pub const FOLDER: &str = "teacher";

/// Fetches the tables of a model of the hub, beside its other files; nothing where it has none.
pub fn fetch(base: &Base, hub: &Hub, console: &mut Console) -> Result<()> {
    let is_table = |path: &str| path.starts_with("teacher/") && path.ends_with(".safetensors");
    base.fetch_more(is_table, hub, console)
}

/// The table of `split` from one that was shipped with the model, saved as `path`; the rows that it lacks are scored. `None`
/// where there is none that fits.
pub fn completed(
    found: &Found,
    split: &Split,
    (path, fingerprint): (&Path, &Fingerprint),
    compute: &Compute,
    console: &mut Console,
) -> Result<Option<Done>> {
    let Some((shipped, places)) = fitting(found, split, fingerprint)? else { return Ok(None) };
    let rest: Vec<Example> = split
        .examples
        .iter()
        .zip(&places)
        .filter(|(_, at)| at.is_none())
        .map(|(row, _)| row.clone())
        .collect();
    let n = count(shipped.ids.len() as u64);
    console.say(&format!("{} on {}: it came with its scores of {n} rows", found.name, split.name));
    let tables = path.parent().unwrap_or(Path::new("."));
    let name = format!("the other rows of {}", split.name);
    let rest = match rest.is_empty() {
        true => None,
        false => {
            let rest = Split::new(&name, rest, split.labels.clone());
            match found::built(found, &rest, tables, compute, console)? {
                Some(table) => Some(table),
                None => return Ok(Some(Done::Interrupted)),
            }
        }
    };
    let mut logits = Vec::with_capacity(split.examples.len() * shipped.labels.len());
    let mut n_rest = 0;
    for place in places {
        match (place, &rest) {
            (Some(at), _) => logits.extend(shipped.logits_of(at)),
            (None, Some(rest)) => {
                logits.extend(rest.logits_of(n_rest));
                n_rest += 1;
            }
            (None, None) => {}
        }
    }
    let ids = split.examples.iter().map(|row| row.id.clone()).collect();
    let table =
        Table { teacher: fingerprint.clone(), labels: fingerprint.labels.clone(), ids, logits };
    table.save(path)?;
    if let Some(rest) = rest {
        // Its rows are in the whole now.
        let _ = fs::remove_file(tables.join(table_file_name(&rest.teacher)));
    }
    Ok(Some(Done::Whole(Box::new(table))))
}

pub enum Done {
    Whole(Box<Table>),
    Interrupted,
}

/// The shipped table with the place in it of each row of the split.
fn fitting(
    found: &Found,
    split: &Split,
    wanted: &Fingerprint,
) -> Result<Option<(Table, Vec<Option<usize>>)>> {
    for path in tables_of(&found.folder) {
        let table = Table::open_any(&path)?;
        let by_id: HashMap<&str, &Example> =
            split.examples.iter().map(|row| (row.id.as_str(), row)).collect();
        let rows: Option<Vec<Example>> =
            table.ids.iter().map(|id| by_id.get(id.as_str()).map(|row| (*row).clone())).collect();
        let Some(rows) = rows else { continue };
        let of_rows =
            Fingerprint::of(&found.name, &found.folder, &found.labels, found.max_length, &rows)?;
        let expected =
            Fingerprint { precision: wanted.precision, vector: wanted.vector, ..of_rows };
        if table.teacher.differs(&expected).is_some() {
            continue;
        }
        let at: HashMap<&str, usize> =
            table.ids.iter().enumerate().map(|(at, id)| (id.as_str(), at)).collect();
        let places = split.examples.iter().map(|row| at.get(row.id.as_str()).copied()).collect();
        return Ok(Some((table, places)));
    }
    Ok(None)
}

fn tables_of(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join(FOLDER)).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|suffix| suffix == "safetensors"));
    paths.sort();
    paths
}
