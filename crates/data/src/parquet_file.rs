//! Columns of a parquet file, row groups in parallel, only the columns asked for.
//!
//! Reads text (also as plain byte arrays), integers, floats and booleans, nulls included. Nested columns are read
//! where they hold numbers, one level deep, and a label column also where it holds lists (`parquet_lists`).

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use parquet::basic::{ConvertedType, Type as Physical};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type,
};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::ColumnDescriptor;
use rayon::prelude::*;

use crate::error::{At, Error, Place, Result};
use crate::features;
use crate::parquet_columns::{leaf, refuse_decimals, top_columns, unsigned};
use crate::parquet_lists;
use crate::table::{Cells, Head, Nested, Table, Wanted, positions};

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
    let list = |wanted: &Wanted<'_>| match wanted.role {
        "label" => parquet_lists::leaf(schema, wanted.column),
        _ => None,
    };
    if let Some((at, leaf)) = wanted.iter().enumerate().find_map(|(at, w)| Some((at, list(w)?))) {
        check_offsets(path, &reader)?;
        let lists = parquet_lists::read(path, &reader, leaf)?;
        let others = [&wanted[..at], &wanted[at + 1..]].concat();
        let mut table = read_unguarded(path, &others)?;
        table.cells.insert(at, lists);
        return Ok(table);
    }
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
    let whole = whole.into_iter().zip(&leaves);
    let cells = whole.map(|(cells, leaf)| unsigned(cells, &schema.column(*leaf))).collect();
    Ok(Table { path: path.to_owned(), cells, lines: Vec::new() })
}

/// Numbers of a column that holds an object or a list of them; `None` where it is flat. Not in parallel: it is read once.
pub fn nested(path: &Path, wanted: &Wanted<'_>) -> Result<Option<Nested>> {
    guarded(path, || nested_unguarded(path, wanted))
}

fn nested_unguarded(path: &Path, wanted: &Wanted<'_>) -> Result<Option<Nested>> {
    let reader = open(path)?;
    let schema = reader.metadata().file_metadata().schema_descr();
    positions(path, &top_columns(schema), std::slice::from_ref(wanted))?;
    let parts = |leaf: &usize| schema.column(*leaf).path().parts().to_vec();
    let leaves: Vec<usize> = (0..schema.num_columns())
        .filter(|leaf| parts(leaf).first().is_some_and(|top| top == wanted.column))
        .collect();
    let is_list = |leaf: &usize| schema.column(*leaf).max_rep_level() == 1;
    let is_field =
        |leaf: &usize| schema.column(*leaf).max_rep_level() == 0 && parts(leaf).len() == 2;
    check_offsets(path, &reader)?;
    match leaves.as_slice() {
        [flat] if parts(flat).len() == 1 => Ok(None),
        [list] if is_list(list) => {
            let mut rows: Vec<Vec<Option<f64>>> = Vec::new();
            for (is_start, cell) in numbers(path, &reader, wanted, *list)? {
                if is_start {
                    rows.push(Vec::new());
                }
                if let (Some(row), Some(cell)) = (rows.last_mut(), cell) {
                    row.push(cell);
                }
            }
            Ok(Some(Nested::Lists(rows)))
        }
        fields if fields.iter().all(is_field) => {
            let field = |leaf: &usize| -> Result<(String, Vec<Option<f64>>)> {
                let name = parts(leaf).pop().unwrap_or_default();
                let cells = numbers(path, &reader, wanted, *leaf)?;
                Ok((name, cells.into_iter().map(|(_, cell)| cell.flatten()).collect()))
            };
            let fields: Vec<_> = fields.iter().map(field).collect::<Result<_>>()?;
            let rows = fields.first().map_or(0, |(_, cells)| cells.len());
            if fields.iter().any(|(_, cells)| cells.len() != rows) {
                return Err(broken(path, "fields of one column differ in their rows"));
            }
            Ok(Some(Nested::Fields(fields)))
        }
        _ => Err(Error::UnreadableColumn {
            path: path.to_owned(),
            column: wanted.column.to_owned(),
            found: "nested in more than one level".to_owned(),
        }),
    }
}

// Of all row groups: whether a row starts here, and the number; `Some(None)` is a null, `None` a list without cells.
type Number = (bool, Option<Option<f64>>);

fn numbers(
    path: &Path,
    reader: &SerializedFileReader<File>,
    wanted: &Wanted<'_>,
    leaf: usize,
) -> Result<Vec<Number>> {
    let fail = |error: ParquetError| bad(path, &error);
    let mut all = Vec::new();
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).map_err(fail)?;
        let descr = group.metadata().column(leaf).column_descr_ptr();
        refuse_decimals(path, wanted.column, &descr)?;
        let (most, is_list) = (descr.max_def_level(), descr.max_rep_level() > 0);
        let rows = usize::try_from(group.metadata().num_rows())
            .map_err(|_| broken(path, "negative row count"))?;
        let found = match group.get_column_reader(leaf).map_err(fail)? {
            ColumnReader::FloatColumnReader(column) => {
                levels::<FloatType>(column, rows, most, is_list, |value| f64::from(*value))
            }
            ColumnReader::DoubleColumnReader(column) => {
                levels::<DoubleType>(column, rows, most, is_list, |value| *value)
            }
            ColumnReader::Int32ColumnReader(column) => {
                levels::<Int32Type>(column, rows, most, is_list, |value| f64::from(*value))
            }
            ColumnReader::Int64ColumnReader(column) => {
                levels::<Int64Type>(column, rows, most, is_list, |value| *value as f64)
            }
            _ => {
                return Err(Error::UnreadableColumn {
                    path: path.to_owned(),
                    column: wanted.column.to_owned(),
                    found: "nested and not of numbers".to_owned(),
                });
            }
        };
        all.extend(found.map_err(fail)?);
    }
    Ok(all)
}

// A definition level of `most` is a value; one less, in a list, a null among the cells; less still, no cell.
fn levels<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    rows: usize,
    most: i16,
    is_list: bool,
    number: impl Fn(&T::T) -> f64,
) -> parquet::errors::Result<Vec<Number>> {
    let (mut defined, mut repeated, mut found) = (Vec::new(), Vec::new(), Vec::new());
    let mut left = rows;
    while left > 0 {
        let repeated = is_list.then_some(&mut repeated);
        let (records, _, _) =
            reader.read_records(left.min(4096), Some(&mut defined), repeated, &mut found)?;
        if records == 0 {
            break;
        }
        left -= records;
    }
    if most == 0 {
        return Ok(found.iter().map(|value| (true, Some(Some(number(value))))).collect());
    }
    let mut found = found.iter();
    let cell = |(at, level): (usize, &i16)| {
        let is_start = repeated.get(at).is_none_or(|level| *level == 0);
        let cell = match most - *level {
            0 => Some(found.next().map(&number)),
            1 if is_list => Some(None),
            _ if is_list => None,
            _ => Some(None),
        };
        (is_start, cell)
    };
    Ok(defined.iter().enumerate().map(cell).collect())
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

pub(crate) fn bad(path: &Path, error: &ParquetError) -> Error {
    let text = error.to_string();
    // As the parquet crate says of a codec that this build leaves out.
    if let Some((_, codec)) = text.split_once("Disabled feature at compile time: ") {
        return Error::Codec { path: path.to_owned(), codec: codec.to_owned() };
    }
    broken(
        path,
        text.trim_start_matches("Parquet error: ")
            .trim_start_matches("EOF: ")
            .trim_start_matches("External: "),
    )
}

pub(crate) fn broken(path: &Path, reason: &str) -> Error {
    Error::BadParquet { path: path.to_owned(), reason: reason.to_owned() }
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
    let rows_of = reader.get_row_group(group).map_err(fail)?;
    let kind = rows_of.metadata().column(leaf).column_descr().converted_type();
    let cells = match rows_of.get_column_reader(leaf).map_err(fail)? {
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
            let whole = |value: i32| match kind {
                ConvertedType::UINT_32 => i64::from(value as u32),
                _ => i64::from(value),
            };
            Cells::Integers(cells.into_iter().map(|cell| cell.map(whole)).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_codec_that_is_left_out_is_no_broken_file() {
        let error = ParquetError::General("Disabled feature at compile time: flate2".into());
        let said = "x.parquet: compressed in a way that isn't read here (flate2); write it with snappy, zstd or no compression";
        assert_eq!(bad(Path::new("x.parquet"), &error).to_string(), said);
    }
}
