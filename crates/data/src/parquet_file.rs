//! Columns of a parquet file, row groups in parallel, only the columns asked for.
//!
//! Reads text (also as plain byte arrays), integers, floats and booleans, nulls included. Refuses nested columns.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use parquet::basic::Type as Physical;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type,
};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};
use rayon::prelude::*;

use crate::error::{At, Error, Place, Result};
use crate::features;
use crate::table::{Cells, Head, Table, Wanted, list_in, positions};

/// Top-level columns, and the features that Hugging Face `datasets` wrote into the footer.
pub fn head(path: &Path) -> Result<Head> {
    guarded(path, || {
        let reader = open(path)?;
        let meta = reader.metadata().file_metadata();
        let footer = meta.key_value_metadata().and_then(|pairs| {
            pairs
                .iter()
                .find(|pair| pair.key == "huggingface")
                .and_then(|pair| pair.value.as_deref())
        });
        Ok(Head {
            columns: top_columns(meta.schema_descr()),
            features: footer.map(features::of_footer).unwrap_or_default(),
        })
    })
}

pub fn read(path: &Path, wanted: &[Wanted<'_>]) -> Result<Table> {
    guarded(path, || read_unguarded(path, wanted))
}

fn read_unguarded(path: &Path, wanted: &[Wanted<'_>]) -> Result<Table> {
    let reader = open(path)?;
    let schema = reader.metadata().file_metadata().schema_descr();
    let columns = top_columns(schema);
    positions(path, &columns, wanted)?;
    let leaves: Vec<usize> =
        wanted.iter().map(|wanted| leaf(path, schema, wanted)).collect::<Result<_>>()?;
    check_offsets(path, &reader)?;
    let mut first_rows = vec![0usize];
    for group in reader.metadata().row_groups() {
        let rows =
            usize::try_from(group.num_rows()).map_err(|_| broken(path, "negative row count"))?;
        first_rows.push(first_rows[first_rows.len() - 1].saturating_add(rows));
    }
    // Clones of one open file share its position, so threads would read each other's pages: each opens the file itself.
    let groups: Vec<usize> = (0..reader.num_row_groups()).collect();
    let run = groups.len().div_ceil(rayon::current_num_threads()).max(1);
    let parts: Vec<Vec<Vec<Cells>>> = groups
        .par_chunks(run)
        .map(|groups| {
            let own = open(path)?;
            let read_group = |group: &usize| {
                let (first, rows) =
                    (first_rows[*group], first_rows[group + 1] - first_rows[*group]);
                leaves
                    .iter()
                    .map(|leaf| read_column(path, &own, *group, *leaf, first, rows))
                    .collect()
            };
            groups.iter().map(read_group).collect::<Result<Vec<Vec<Cells>>>>()
        })
        .collect::<Result<_>>()?;
    let mut whole: Vec<Cells> =
        leaves.iter().map(|leaf| empty_like(&schema.column(*leaf))).collect();
    for part in parts.into_iter().flatten() {
        for (own, more) in whole.iter_mut().zip(part) {
            append(own, more);
        }
    }
    Ok(Table { path: path.to_owned(), cells: whole, lines: Vec::new() })
}

fn open(path: &Path) -> Result<SerializedFileReader<File>> {
    let file = File::open(path).map_err(Error::read(path))?;
    SerializedFileReader::new(file).map_err(|error| bad(path, &error))
}

// The parquet crate checks much, but not all, of what a broken file can claim; what it asserts on must not end the program.
fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(broken(path, "the pages contradict each other")))
}

// What the crate would panic on first: a footer that sends it outside the file.
fn check_offsets(path: &Path, reader: &SerializedFileReader<File>) -> Result<()> {
    let length = std::fs::metadata(path).map_err(Error::read(path))?.len();
    for chunk in reader.metadata().row_groups().iter().flat_map(|group| group.columns()) {
        let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
        let inside = u64::try_from(start).ok().zip(u64::try_from(chunk.compressed_size()).ok());
        let end = inside.and_then(|(start, size)| start.checked_add(size));
        if chunk.data_page_offset() < 0 || end.is_none_or(|end| end > length) {
            return Err(broken(path, "the footer points outside the file"));
        }
    }
    Ok(())
}

fn bad(path: &Path, error: &ParquetError) -> Error {
    let text = error.to_string();
    broken(
        path,
        text.trim_start_matches("Parquet error: ")
            .trim_start_matches("EOF: ")
            .trim_start_matches("External: "),
    )
}

fn broken(path: &Path, reason: &str) -> Error {
    Error::BadParquet { path: path.to_owned(), reason: reason.to_owned() }
}

fn top_columns(schema: &SchemaDescriptor) -> Vec<String> {
    schema.root_schema().get_fields().iter().map(|field| field.name().to_owned()).collect()
}

// The leaf of a top-level column that isn't nested.
fn leaf(path: &Path, schema: &SchemaDescriptor, wanted: &Wanted<'_>) -> Result<usize> {
    let own = |leaf: &usize| {
        schema.column(*leaf).path().parts().first().is_some_and(|top| top == wanted.column)
    };
    let found = (0..schema.num_columns()).find(own).map(|leaf| (leaf, schema.column(leaf)));
    let unreadable = |found: String| Error::UnreadableColumn {
        path: path.to_owned(),
        column: wanted.column.to_owned(),
        found,
    };
    match found {
        Some((_, descr)) if descr.max_rep_level() > 0 => Err(list_in(path, wanted)),
        Some((_, descr)) if descr.path().parts().len() > 1 => {
            Err(unreadable("a struct".to_owned()))
        }
        Some((_, descr))
            if matches!(
                descr.physical_type(),
                Physical::INT96 | Physical::FIXED_LEN_BYTE_ARRAY
            ) =>
        {
            Err(unreadable(format!("of type {}", descr.physical_type())))
        }
        Some((leaf, _)) => Ok(leaf),
        None => Err(unreadable("empty".to_owned())),
    }
}

fn empty_like(descr: &ColumnDescriptor) -> Cells {
    match descr.physical_type() {
        Physical::INT32 | Physical::INT64 => Cells::Integers(Vec::new()),
        Physical::FLOAT | Physical::DOUBLE => Cells::Floats(Vec::new()),
        _ => Cells::Text(Vec::new()),
    }
}

fn append(own: &mut Cells, more: Cells) {
    match (own, more) {
        (Cells::Text(own), Cells::Text(more)) => own.extend(more),
        (Cells::Integers(own), Cells::Integers(more)) => own.extend(more),
        (Cells::Floats(own), Cells::Floats(more)) => own.extend(more),
        _ => {} // one schema, one type
    }
}

fn read_column(
    path: &Path,
    reader: &SerializedFileReader<File>,
    group: usize,
    leaf: usize,
    first_row: usize,
    rows: usize,
) -> Result<Cells> {
    let fail = |error: ParquetError| bad(path, &error);
    let column =
        reader.get_row_group(group).map_err(fail)?.get_column_reader(leaf).map_err(fail)?;
    let cells = match column {
        ColumnReader::ByteArrayColumnReader(column) => {
            let cells = values::<ByteArrayType>(column, rows).map_err(fail)?;
            let text = |(row, cell): (usize, Option<ByteArray>)| {
                let place = Place::Row(first_row + row);
                cell.map(|bytes| std::str::from_utf8(bytes.data()).map(str::to_owned))
                    .transpose()
                    .map_err(|_| Error::NotUtf8 { at: At { path: path.to_owned(), place } })
            };
            Cells::Text(cells.into_iter().enumerate().map(text).collect::<Result<_>>()?)
        }
        ColumnReader::BoolColumnReader(column) => {
            let cells = values::<BoolType>(column, rows).map_err(fail)?;
            Cells::Text(cells.into_iter().map(|cell| cell.map(|value| value.to_string())).collect())
        }
        ColumnReader::Int32ColumnReader(column) => {
            let cells = values::<Int32Type>(column, rows).map_err(fail)?;
            Cells::Integers(cells.into_iter().map(|cell| cell.map(i64::from)).collect())
        }
        ColumnReader::Int64ColumnReader(column) => {
            Cells::Integers(values::<Int64Type>(column, rows).map_err(fail)?)
        }
        ColumnReader::FloatColumnReader(column) => {
            let cells = values::<FloatType>(column, rows).map_err(fail)?;
            Cells::Floats(cells.into_iter().map(|cell| cell.map(f64::from)).collect())
        }
        ColumnReader::DoubleColumnReader(column) => {
            Cells::Floats(values::<DoubleType>(column, rows).map_err(fail)?)
        }
        _ => return Err(broken(path, "column type changed within the file")),
    };
    if cells.len() != rows {
        return Err(broken(path, &format!("row group {group} has {} of {rows} rows", cells.len())));
    }
    Ok(cells)
}

// All values of a flat column of one row group. A definition level of 0 is a null.
fn values<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    rows: usize,
) -> parquet::errors::Result<Vec<Option<T::T>>> {
    let (mut levels, mut found) = (Vec::new(), Vec::new());
    let mut left = rows;
    while left > 0 {
        let (records, _, _) =
            reader.read_records(left.min(4096), Some(&mut levels), None, &mut found)?;
        if records == 0 {
            break;
        }
        left -= records;
    }
    if levels.is_empty() {
        return Ok(found.into_iter().map(Some).collect());
    }
    let mut found = found.into_iter();
    Ok(levels.iter().map(|level| if *level > 0 { found.next() } else { None }).collect())
}
