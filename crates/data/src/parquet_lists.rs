//! A column of a parquet file that holds a list a row: numbers or text, one level deep. Row groups one after the other.

use std::fs::File;
use std::path::Path;

use parquet::basic::Repetition;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::SchemaDescriptor;

use crate::error::{At, Error, Place, Result};
use crate::parquet_columns::refuse_decimals;
use crate::parquet_file::{bad, broken};
use crate::table::Cells;

/// The leaf of a column that holds lists; `None` where it is flat, an object, or nested deeper.
pub(crate) fn leaf(schema: &SchemaDescriptor, column: &str) -> Option<usize> {
    let is_own =
        |leaf: &usize| schema.column(*leaf).path().parts().first().is_some_and(|top| top == column);
    let mut leaves = (0..schema.num_columns()).filter(is_own);
    match (leaves.next(), leaves.next()) {
        (Some(leaf), None) if schema.column(leaf).max_rep_level() == 1 => Some(leaf),
        _ => None,
    }
}

/// All rows of the file. A list that is null is `None`, which isn't an empty one.
pub(crate) fn read(path: &Path, reader: &SerializedFileReader<File>, leaf: usize) -> Result<Cells> {
    let fail = |error: ParquetError| bad(path, &error);
    let mut lengths: Vec<Option<usize>> = Vec::new();
    let mut entries: Option<Cells> = None;
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).map_err(fail)?;
        let descr = group.metadata().column(leaf).column_descr_ptr();
        refuse_decimals(path, descr.path().parts().first().map_or("", String::as_str), &descr)?;
        let info = descr.self_type().get_basic_info();
        let is_optional = info.has_repetition() && info.repetition() == Repetition::OPTIONAL;
        let shape = Shape { most: descr.max_def_level(), is_optional };
        let rows = usize::try_from(group.metadata().num_rows())
            .map_err(|_| broken(path, "negative row count"))?;
        let first_row = lengths.len();
        let of_text = |cells: Vec<Option<parquet::data_type::ByteArray>>| {
            let text = |bytes: parquet::data_type::ByteArray| {
                let place = Place::Row(first_row);
                let text = std::str::from_utf8(bytes.data()).map(str::to_owned);
                text.map_err(|_| Error::NotUtf8 { at: At { path: path.to_owned(), place } })
            };
            let texts = cells.into_iter().map(|cell| cell.map(text).transpose());
            Ok::<_, Error>(Cells::Text(texts.collect::<Result<_>>()?))
        };
        let (found, cells) = match group.get_column_reader(leaf).map_err(fail)? {
            ColumnReader::Int32ColumnReader(column) => {
                let (found, cells) = lists::<Int32Type>(column, rows, shape).map_err(fail)?;
                let cells = cells.into_iter().map(|cell| cell.map(i64::from)).collect();
                (found, Cells::Integers(cells))
            }
            ColumnReader::Int64ColumnReader(column) => {
                let (found, cells) = lists::<Int64Type>(column, rows, shape).map_err(fail)?;
                (found, Cells::Integers(cells))
            }
            ColumnReader::FloatColumnReader(column) => {
                let (found, cells) = lists::<FloatType>(column, rows, shape).map_err(fail)?;
                let cells = cells.into_iter().map(|cell| cell.map(f64::from)).collect();
                (found, Cells::Floats(cells))
            }
            ColumnReader::DoubleColumnReader(column) => {
                let (found, cells) = lists::<DoubleType>(column, rows, shape).map_err(fail)?;
                (found, Cells::Floats(cells))
            }
            ColumnReader::ByteArrayColumnReader(column) => {
                let (found, cells) = lists::<ByteArrayType>(column, rows, shape).map_err(fail)?;
                (found, of_text(cells)?)
            }
            _ => {
                return Err(Error::UnreadableColumn {
                    path: path.to_owned(),
                    column: descr.path().parts().first().cloned().unwrap_or_default(),
                    found: "a list of neither text nor numbers".to_owned(),
                });
            }
        };
        if found.len() != rows {
            return Err(broken(path, &format!("{} of {rows} rows in a row group", found.len())));
        }
        lengths.extend(found);
        match (&mut entries, cells) {
            (None, cells) => entries = Some(cells),
            (Some(Cells::Integers(own)), Cells::Integers(more)) => own.extend(more),
            (Some(Cells::Floats(own)), Cells::Floats(more)) => own.extend(more),
            (Some(Cells::Text(own)), Cells::Text(more)) => own.extend(more),
            _ => return Err(broken(path, "column type changed within the file")),
        }
    }
    let entries = Box::new(entries.unwrap_or(Cells::Integers(Vec::new())));
    Ok(Cells::Lists { lengths, entries })
}

#[derive(Clone, Copy)]
struct Shape {
    /// The definition level of an entry that has a value.
    most: i16,
    /// Whether an entry may be null, one level below.
    is_optional: bool,
}

/// The length of each row's list, and the entries of all.
type Lists<T> = (Vec<Option<usize>>, Vec<Option<T>>);

fn lists<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    rows: usize,
    shape: Shape,
) -> parquet::errors::Result<Lists<T::T>> {
    let (mut defined, mut repeated, mut values) = (Vec::new(), Vec::new(), Vec::new());
    let mut left = rows;
    while left > 0 {
        let (records, _, _) = reader.read_records(
            left.min(4096),
            Some(&mut defined),
            Some(&mut repeated),
            &mut values,
        )?;
        if records == 0 {
            break;
        }
        left -= records;
    }
    let slot = shape.most - i16::from(shape.is_optional); // at least this: there is an entry
    let mut values = values.into_iter();
    let (mut lengths, mut entries) = (Vec::with_capacity(rows), Vec::new());
    for (defined, repeated) in defined.iter().zip(&repeated) {
        if *repeated == 0 {
            lengths.push((*defined >= slot - 1).then_some(0));
        }
        if *defined < slot {
            continue;
        }
        entries.push(if *defined == shape.most { values.next() } else { None });
        if let Some(Some(length)) = lengths.last_mut() {
            *length += 1;
        }
    }
    Ok((lengths, entries))
}
