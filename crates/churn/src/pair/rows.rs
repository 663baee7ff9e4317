//! Rows of two models by their ids: those that both have, and those of one alone.

use std::collections::HashMap;

use crate::{Error, Predicted, Result};

pub(super) struct Rows {
    /// (row in old, row in new).
    pub both: Vec<(u32, u32)>,
    pub only_old: Vec<u32>,
    pub only_new: Vec<u32>,
}

pub(super) fn align_rows(old: &Predicted, new: &Predicted) -> Result<Rows> {
    if old.ids == new.ids {
        let both = (0..old.rows() as u32).map(|row| (row, row)).collect();
        return Ok(Rows { both, only_old: Vec::new(), only_new: Vec::new() });
    }
    let mut place: HashMap<&str, u32> = HashMap::with_capacity(new.rows());
    for (row, id) in new.ids.iter().enumerate() {
        if let Some(first) = place.insert(id, row as u32) {
            return Err(twice(new, id, first as usize, row));
        }
    }
    let mut rows = Rows { both: Vec::new(), only_old: Vec::new(), only_new: Vec::new() };
    let mut taken: Vec<Option<u32>> = vec![None; new.rows()];
    for (row, id) in old.ids.iter().enumerate() {
        let Some(in_new) = place.get(id.as_str()).copied() else {
            rows.only_old.push(row as u32);
            continue;
        };
        if let Some(first) = taken[in_new as usize].replace(row as u32) {
            return Err(twice(old, id, first as usize, row));
        }
        rows.both.push((row as u32, in_new));
    }
    let free = taken.iter().enumerate().filter(|(_, taken)| taken.is_none());
    rows.only_new = free.map(|(row, _)| row as u32).collect();
    Ok(rows)
}

fn twice(side: &Predicted, id: &str, first: usize, second: usize) -> Error {
    Error::IdTwice { name: side.name.clone(), id: id.to_owned(), first, second }
}

pub(super) fn no_common_row(old: &Predicted, new: &Predicted) -> Error {
    Error::NoCommonRow {
        old_name: old.name.clone(),
        new_name: new.name.clone(),
        old_id: old.ids.first().cloned().unwrap_or_default(),
        new_id: new.ids.first().cloned().unwrap_or_default(),
    }
}

pub(super) fn rows_differ(old: &Predicted, new: &Predicted, rows: &Rows) -> Error {
    let first = |side: &Predicted, rows: &[u32]| {
        rows.iter().take(3).map(|row| side.ids[*row as usize].clone()).collect()
    };
    Error::RowsDiffer {
        old_name: old.name.clone(),
        new_name: new.name.clone(),
        only_old: rows.only_old.len(),
        only_new: rows.only_new.len(),
        old_ids: first(old, &rows.only_old),
        new_ids: first(new, &rows.only_new),
    }
}
