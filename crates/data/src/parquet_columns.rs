//! Which columns of a parquet file there are, and which can be read.

use std::path::Path;

use parquet::basic::{ConvertedType, Type as Physical};
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};

use crate::error::{Error, Result};
use crate::table::{Cells, Wanted, list_in};

pub(crate) fn top_columns(schema: &SchemaDescriptor) -> Vec<String> {
    schema.root_schema().get_fields().iter().map(|field| field.name().to_owned()).collect()
}

// The leaf of a top-level column that isn't nested.
pub(crate) fn leaf(path: &Path, schema: &SchemaDescriptor, wanted: &Wanted<'_>) -> Result<usize> {
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
        Some((leaf, descr)) => refuse_decimals(path, wanted.column, &descr).map(|()| leaf),
        None => Err(unreadable("empty".to_owned())),
    }
}

// Their numbers stand there times a power of ten, as whole ones, or as bytes.
pub(crate) fn refuse_decimals(path: &Path, column: &str, descr: &ColumnDescriptor) -> Result<()> {
    match descr.converted_type() {
        ConvertedType::DECIMAL
            if descr.type_scale() != 0 || descr.physical_type() == Physical::BYTE_ARRAY =>
        {
            Err(Error::UnreadableColumn {
                path: path.to_owned(),
                column: column.to_owned(),
                found: "of decimals (cast them to double)".to_owned(),
            })
        }
        _ => Ok(()),
    }
}

/// Unsigned numbers stand as signed ones of as many bits. Those that are too large for an i64, such as hashes for ids, keep their digits.
pub(crate) fn unsigned(cells: Cells, descr: &ColumnDescriptor) -> Cells {
    match cells {
        Cells::Integers(cells)
            if descr.converted_type() == ConvertedType::UINT_64
                && cells.iter().flatten().any(|value| *value < 0) =>
        {
            let digits = |value: i64| (value as u64).to_string();
            Cells::Text(cells.into_iter().map(|cell| cell.map(digits)).collect())
        }
        cells => cells,
    }
}
