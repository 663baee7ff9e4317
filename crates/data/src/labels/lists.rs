//! Lists of labels, before anything is made of their entries.

use super::{RawValues, json_names};
use crate::error::{At, Error, Result};
use crate::table::Cells;

/// The row of each entry, for messages.
pub fn rows_of(lengths: &[Option<usize>]) -> Vec<usize> {
    let rows = lengths.iter().enumerate();
    rows.flat_map(|(row, length)| std::iter::repeat_n(row, length.unwrap_or(0))).collect()
}

/// A 0 or 1 for each label would be read as the labels 0 and 1.
pub fn refuse_one_hot(values: &RawValues, at: &dyn Fn(usize) -> At, column: &str) -> Result<()> {
    let RawValues::Lists { lengths, entries } = values else { return Ok(()) };
    let bit = |entry: usize| match &**entries {
        RawValues::Integers(values) => match values.get(entry) {
            Some(Some(value @ (0 | 1))) => Some(*value == 1),
            _ => None,
        },
        RawValues::Names(values) => match values.get(entry).and_then(Option::as_deref) {
            Some("1" | "true") => Some(true),
            Some("0" | "false") => Some(false),
            _ => None,
        },
        RawValues::Lists { .. } | RawValues::Numbers(_) => None,
    };
    let mut first = 0;
    for length in lengths.iter().flatten() {
        // Two may be the two labels 0 and 1, and a label that is there several times counts once.
        let bits: Option<Vec<bool>> = (first..first + length).map(bit).collect();
        if *length > 2 && bits.is_some_and(|bits| bits.contains(&false)) {
            return Err(Error::OneHot { at: at(first), column: column.to_owned() });
        }
        first += length;
    }
    Ok(())
}

/// Lists in cells of text: `["a", "b"]` as JSON has it, else names between commas. A number is a list of one.
pub fn split_lists(at: &dyn Fn(usize) -> At, cells: Cells, column: &str) -> Result<Cells> {
    let Cells::Text(cells) = cells else {
        let one = |has: bool| has.then_some(1);
        return Ok(match cells {
            Cells::Integers(cells) => Cells::Lists {
                lengths: cells.iter().map(|cell| one(cell.is_some())).collect(),
                entries: Box::new(Cells::Integers(
                    cells.into_iter().filter(Option::is_some).collect(),
                )),
            },
            Cells::Floats(cells) => Cells::Lists {
                lengths: cells.iter().map(|cell| one(cell.is_some())).collect(),
                entries: Box::new(Cells::Floats(
                    cells.into_iter().filter(Option::is_some).collect(),
                )),
            },
            other => other,
        });
    };
    let (mut lengths, mut entries) = (Vec::with_capacity(cells.len()), Vec::new());
    for (row, cell) in cells.into_iter().enumerate() {
        let Some(text) = cell.as_deref().map(str::trim).filter(|text| !text.is_empty()) else {
            lengths.push(None);
            continue;
        };
        let bad =
            || Error::NotAList { at: at(row), column: column.to_owned(), value: text.to_owned() };
        let names = match text.starts_with('[') {
            true => json_names(text).ok_or_else(bad)?,
            false => text.split(',').map(|name| name.trim().to_owned()).collect(),
        };
        lengths.push(Some(names.len()));
        entries.extend(names.into_iter().map(Some));
    }
    Ok(Cells::Lists { lengths, entries: Box::new(Cells::Text(entries)) })
}
