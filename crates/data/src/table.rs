//! Some columns of one data file, whatever its format.
//!
//! Only the columns asked for are decoded. Refuses formats it can't tell by the suffix; compressed text files are not read.

use std::path::{Path, PathBuf};

use crate::error::{At, Error, Place, Result, nearest};
use crate::features::Feature;
use crate::{delimited, json_lines, parquet_file};

pub use crate::json_lines::{bad_json, for_each_line};

/// The formats that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Parquet,
    Csv,
    Tsv,
    JsonLines,
}

impl Format {
    pub fn of_suffix(suffix: &str) -> Option<Format> {
        match suffix.to_ascii_lowercase().as_str() {
            "parquet" => Some(Format::Parquet),
            "csv" => Some(Format::Csv),
            "tsv" => Some(Format::Tsv),
            "jsonl" | "ndjson" | "json" => Some(Format::JsonLines),
            _ => None,
        }
    }

    pub fn of(path: &Path) -> Result<Format> {
        let suffix = path
            .extension()
            .map(|suffix| suffix.to_string_lossy().into_owned())
            .unwrap_or_default();
        Format::of_suffix(&suffix)
            .ok_or_else(|| Error::UnsupportedSuffix { path: path.to_owned(), suffix })
    }
}

/// What a file says of its columns before it is read.
#[derive(Clone, Debug, Default)]
pub struct Head {
    pub columns: Vec<String>,
    /// From a parquet footer; empty for text formats.
    pub features: Vec<Feature>,
}

/// The values of one column, `None` where null, absent, or an empty cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Cells {
    Text(Vec<Option<String>>),
    Integers(Vec<Option<i64>>),
    Floats(Vec<Option<f64>>),
    /// Of a label column: how many entries each row's list has, and the entries of all rows.
    Lists {
        lengths: Vec<Option<usize>>,
        entries: Box<Cells>,
    },
}

impl Cells {
    pub fn len(&self) -> usize {
        match self {
            Cells::Text(cells) => cells.len(),
            Cells::Integers(cells) => cells.len(),
            Cells::Floats(cells) => cells.len(),
            Cells::Lists { lengths, .. } => lengths.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The columns asked for, in the order in which they were asked for, all of the same length.
#[derive(Clone, Debug)]
pub struct Table {
    pub path: PathBuf,
    pub cells: Vec<Cells>,
    /// The line on which each row starts; empty for parquet, which has no lines.
    pub lines: Vec<u32>,
}

impl Table {
    pub fn rows(&self) -> usize {
        self.cells.first().map_or(0, Cells::len)
    }

    /// Where a row is, for a message.
    pub fn at(&self, row: usize) -> At {
        let place = self.lines.get(row).map_or(Place::Row(row), |line| Place::Line(*line as usize));
        At { path: self.path.clone(), place }
    }
}

/// Column names and features of a file.
pub fn head(path: &Path) -> Result<Head> {
    match Format::of(path)? {
        Format::Parquet => parquet_file::head(path),
        Format::Csv => delimited::head(path, delimited::Delimiter::Sniffed),
        Format::Tsv => delimited::head(path, delimited::Delimiter::Tab),
        Format::JsonLines => json_lines::head(path),
    }
}

/// A column to read and what it is for (`text`, `label`, ...), which is what a message calls it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'w> {
    pub role: &'static str,
    pub column: &'w str,
}

/// Reads these columns of a file.
pub fn read(path: &Path, wanted: &[Wanted<'_>]) -> Result<Table> {
    match Format::of(path)? {
        Format::Parquet => parquet_file::read(path, wanted),
        Format::Csv => delimited::read(path, wanted, delimited::Delimiter::Sniffed),
        Format::Tsv => delimited::read(path, wanted, delimited::Delimiter::Tab),
        Format::JsonLines => json_lines::read(path, wanted),
    }
}

/// Numbers that stand in an object or a list a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Nested {
    /// Name and cells of each field, all of the same length.
    Fields(Vec<(String, Vec<Option<f64>>)>),
    Lists(Vec<Vec<Option<f64>>>),
}

/// A column of a parquet file that holds objects or lists of numbers; `None` where it is flat, or the file of another format.
pub fn nested(path: &Path, wanted: &Wanted<'_>) -> Result<Option<Nested>> {
    match Format::of(path)? {
        Format::Parquet => parquet_file::nested(path, wanted),
        _ => Ok(None),
    }
}

/// Calls `visit` with the line and the cells of each row of a CSV or TSV file. For files of millions of rows, which `read`
/// would hold as text.
pub fn for_each_row<E: From<Error>>(
    path: &Path,
    visit: impl FnMut(usize, &csv::ByteRecord) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let delimiter = match Format::of(path)? {
        Format::Tsv => delimited::Delimiter::Tab,
        _ => delimited::Delimiter::Sniffed,
    };
    delimited::for_each_row(path, delimiter, visit)
}

/// Places of the wanted columns among those there are.
pub(crate) fn positions(
    path: &Path,
    columns: &[String],
    wanted: &[Wanted<'_>],
) -> Result<Vec<usize>> {
    wanted
        .iter()
        .map(|wanted| {
            let mut found =
                columns.iter().enumerate().filter(|(_, column)| *column == wanted.column);
            match (found.next(), found.next()) {
                (Some((at, _)), None) => Ok(at),
                (Some(_), Some(_)) => Err(Error::DuplicateColumn {
                    path: path.to_owned(),
                    column: wanted.column.to_owned(),
                }),
                (None, _) => Err(missing(path, columns, wanted)),
            }
        })
        .collect()
}

pub(crate) fn missing(path: &Path, columns: &[String], wanted: &Wanted<'_>) -> Error {
    Error::MissingColumn {
        path: path.to_owned(),
        role: wanted.role,
        column: wanted.column.to_owned(),
        columns: columns.to_vec(),
        suggestion: nearest(wanted.column, columns.iter().map(String::as_str)),
    }
}

pub(crate) fn list_in(path: &Path, wanted: &Wanted<'_>) -> Error {
    let (path, column) = (path.to_owned(), wanted.column.to_owned());
    Error::UnreadableColumn { path, column, found: "a list".to_owned() }
}
