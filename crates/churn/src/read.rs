//! A prediction file → `Predicted`: the columns are chosen from the head, then rows stream through `Gather`.
//!
//! Only ids, classes and scores are kept. Text columns are passed over.

use std::path::Path;

use lowchurn_data::error::{At, Error as DataError, Place};
use lowchurn_data::table::{self, Cells, Format, Nested, Wanted};
use serde::de::DeserializeSeed;

use crate::gather::{Classes, Gather, Row, Shape};
use crate::json_row::{Field, RowSeed, ScoresSeed};
use crate::names::{Names, Roles, ScoreColumns, choose};
use crate::read_kinds::{self, Holds, holds};
use crate::{Error, Predicted, Result};

pub(crate) fn read(path: &Path, names: &Names) -> Result<Predicted> {
    let format = Format::of(path)?;
    let columns = table::head(path)?.columns;
    match holds(path, &columns, names)? {
        Holds::Classes => {}
        Holds::Sets => return read_kinds::sets(path),
        Holds::Values => return read_kinds::values(path, &columns, names),
    }
    let roles = choose(path, &columns, names)?;
    let mut gather = gather(path, &columns, &roles, names);
    match format {
        Format::JsonLines => read_json(&mut gather, &columns, &roles)?,
        Format::Parquet => read_parquet(&mut gather, &columns, &roles)?,
        Format::Csv | Format::Tsv => read_delimited(&mut gather, &roles)?,
    }
    gather.finish(path.display().to_string())
}

fn gather<'p>(path: &'p Path, columns: &[String], roles: &Roles, names: &Names) -> Gather<'p> {
    let mut gather = Gather::new(path);
    let column = |at: Option<usize>| at.and_then(|at| columns.get(at).cloned());
    gather.id_column = column(roles.id);
    gather.prediction_column = column(roles.prediction);
    gather.gold_column = column(roles.gold);
    gather.classes = match &roles.scores {
        ScoreColumns::None => Classes { names: Vec::new(), shape: Shape::None },
        ScoreColumns::Each(each) => {
            let names = each.iter().map(|(_, class)| class.clone()).collect();
            Classes { names, shape: Shape::Columns }
        }
        ScoreColumns::Packed(_) => Classes { names: names.labels.clone(), shape: Shape::Open },
    };
    gather
}

fn read_json(gather: &mut Gather<'_>, columns: &[String], roles: &Roles) -> Result<()> {
    let fields = fields(columns.len(), roles);
    let (path, mut row) = (gather.path, Row::default());
    table::for_each_line(path, |line, text| -> Result<()> {
        row.clear();
        if let ScoreColumns::Each(each) = &roles.scores {
            row.scores.resize(each.len(), f64::NAN);
        }
        let mut json = serde_json::Deserializer::from_str(text);
        let classes = &mut gather.classes;
        RowSeed { columns, fields: &fields, classes, row: &mut row }
            .deserialize(&mut json)
            .and_then(|()| json.end())
            .map_err(|error| bad_line(path, line, &error))?;
        gather.push(&row, Place::Line(line))
    })
}

// JSON that is no object, or an object that is no prediction.
fn bad_line(path: &Path, line: usize, error: &serde_json::Error) -> Error {
    if !error.is_data() {
        return table::bad_json(path, line, error).into();
    }
    let at = At { path: path.to_owned(), place: Place::Line(line) };
    Error::BadRow { at, reason: reason(error), column: error.column() }
}

// serde_json counts lines within what it was given.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text).to_owned()
}

fn fields(columns: usize, roles: &Roles) -> Vec<Field> {
    let mut fields = vec![Field::Other; columns];
    let mut set = |at: Option<usize>, field: Field| {
        if let Some(place) = at.and_then(|at| fields.get_mut(at)) {
            *place = field;
        }
    };
    set(roles.id, Field::Id);
    set(roles.prediction, Field::Prediction);
    set(roles.gold, Field::Gold);
    match &roles.scores {
        ScoreColumns::None => {}
        ScoreColumns::Each(each) => {
            each.iter()
                .enumerate()
                .for_each(|(class, (at, _))| set(Some(*at), Field::Score(class)));
        }
        ScoreColumns::Packed(at) => set(Some(*at), Field::Packed),
    }
    fields
}

fn read_delimited(gather: &mut Gather<'_>, roles: &Roles) -> Result<()> {
    let (path, mut row) = (gather.path, Row::default());
    table::for_each_row(path, |line, record| -> Result<()> {
        row.clear();
        let place = Place::Line(line);
        let text = |at: usize| {
            std::str::from_utf8(record.get(at).unwrap_or_default())
                .map_err(|_| DataError::NotUtf8 { at: At { path: path.to_owned(), place } })
        };
        for (at, cell) in [
            (roles.id, &mut row.id),
            (roles.prediction, &mut row.prediction),
            (roles.gold, &mut row.gold),
        ] {
            if let Some(at) = at {
                cell.push_str(text(at)?);
            }
        }
        match &roles.scores {
            ScoreColumns::None => {}
            ScoreColumns::Each(each) => {
                for (at, class) in each {
                    score_of_text(&mut row, class, text(*at)?);
                }
            }
            ScoreColumns::Packed(at) => {
                unpack(&mut gather.classes, &mut row, text(*at)?, path, place)?;
            }
        }
        gather.push(&row, place)
    })
}

// An empty cell is a score that is missing.
fn score_of_text(row: &mut Row, class: &str, text: &str) {
    let score = match text.trim() {
        "" => f64::NAN,
        text => match text.parse::<f64>() {
            Ok(score) if !score.is_nan() => score,
            _ => {
                row.bad_score.get_or_insert_with(|| (class.to_owned(), format!("{text:?}")));
                0.0
            }
        },
    };
    row.scores.push(score);
}

// JSON in a cell of another format.
fn unpack(
    classes: &mut Classes,
    row: &mut Row,
    text: &str,
    path: &Path,
    place: Place,
) -> Result<()> {
    let mut json = serde_json::Deserializer::from_str(text);
    ScoresSeed { classes, row }.deserialize(&mut json).and_then(|()| json.end()).map_err(|error| {
        let at = At { path: path.to_owned(), place };
        let mut shown: String = text.chars().take(40).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        Error::ScoresNotRead { at, found: shown, reason: reason(&error) }
    })
}

fn read_parquet(gather: &mut Gather<'_>, columns: &[String], roles: &Roles) -> Result<()> {
    let path = gather.path;
    let wanted = |at: usize, role: &'static str| {
        columns.get(at).map(|column| Wanted { role, column: column.as_str() })
    };
    let nested = match roles.scores {
        ScoreColumns::Packed(at) => match wanted(at, "score") {
            Some(wanted) => table::nested(path, &wanted)?,
            None => None,
        },
        _ => None,
    };
    if let Some(nested) = &nested {
        gather.classes = nested_classes(nested, std::mem::take(&mut gather.classes.names));
    }
    // A column may have two roles; it is read once.
    let mut places = roles.places();
    places.retain(|at| nested.is_none() || roles.scores != ScoreColumns::Packed(*at));
    places.sort_unstable();
    places.dedup();
    let role_of = |at: usize| match Some(at) {
        at if at == roles.id => "id",
        at if at == roles.prediction => "prediction",
        at if at == roles.gold => "gold",
        _ => "score",
    };
    let flat: Vec<Wanted<'_>> = places.iter().filter_map(|at| wanted(*at, role_of(*at))).collect();
    let table = table::read(path, &flat)?;
    let cells = |at: usize| {
        places.iter().position(|place| *place == at).and_then(|place| table.cells.get(place))
    };
    let rows = match &nested {
        Some(Nested::Lists(rows)) if flat.is_empty() => rows.len(),
        Some(Nested::Fields(fields)) if flat.is_empty() => fields.first().map_or(0, |f| f.1.len()),
        _ => table.rows(),
    };
    let mut row = Row::default();
    for number in 0..rows {
        row.clear();
        let place = Place::Row(number);
        for (at, text) in [
            (roles.id, &mut row.id),
            (roles.prediction, &mut row.prediction),
            (roles.gold, &mut row.gold),
        ] {
            if let Some(cells) = at.and_then(cells) {
                cell_text(cells, number, text);
            }
        }
        match (&roles.scores, &nested) {
            (ScoreColumns::None, _) => {}
            (ScoreColumns::Each(each), _) => {
                for (at, class) in each {
                    match cells(*at) {
                        Some(Cells::Text(cells)) => {
                            let text = cells.get(number).and_then(|cell| cell.as_deref());
                            score_of_text(&mut row, class, text.unwrap_or_default());
                        }
                        Some(cells) => row.scores.push(cell_number(cells, number)),
                        None => {}
                    }
                }
            }
            (ScoreColumns::Packed(_), Some(Nested::Fields(fields))) => {
                let cell = |cells: &Vec<Option<f64>>| cells.get(number).copied().flatten();
                row.scores.extend(fields.iter().map(|(_, cells)| cell(cells).unwrap_or(f64::NAN)));
            }
            (ScoreColumns::Packed(_), Some(Nested::Lists(rows))) => {
                let cells = rows.get(number).into_iter().flatten();
                row.scores.extend(cells.map(|cell| cell.unwrap_or(f64::NAN)));
            }
            (ScoreColumns::Packed(at), None) => {
                let mut text = String::new();
                if let Some(cells) = cells(*at) {
                    cell_text(cells, number, &mut text);
                }
                unpack(&mut gather.classes, &mut row, &text, path, place)?;
            }
        }
        gather.push(&row, place)?;
    }
    Ok(())
}

fn nested_classes(nested: &Nested, given: Vec<String>) -> Classes {
    match nested {
        Nested::Fields(fields) => Classes {
            names: fields.iter().map(|(name, _)| name.clone()).collect(),
            shape: Shape::Columns,
        },
        Nested::Lists(_) if !given.is_empty() => Classes { names: given, shape: Shape::List },
        Nested::Lists(rows) => {
            let classes = rows.first().map_or(0, Vec::len);
            let names = (0..classes).map(|class| class.to_string()).collect();
            Classes { names, shape: Shape::Numbered }
        }
    }
}

fn cell_text(cells: &Cells, row: usize, out: &mut String) {
    match cells {
        Cells::Text(cells) => {
            if let Some(Some(text)) = cells.get(row) {
                out.push_str(text);
            }
        }
        Cells::Integers(cells) => {
            if let Some(Some(number)) = cells.get(row) {
                out.push_str(&number.to_string());
            }
        }
        Cells::Floats(cells) => match cells.get(row) {
            Some(Some(number)) if !number.is_nan() => out.push_str(&number.to_string()),
            _ => {}
        },
        Cells::Lists { .. } => {}
    }
}

fn cell_number(cells: &Cells, row: usize) -> f64 {
    match cells {
        Cells::Integers(cells) => cells.get(row).copied().flatten().map_or(f64::NAN, |n| n as f64),
        Cells::Floats(cells) => cells.get(row).copied().flatten().unwrap_or(f64::NAN),
        Cells::Text(_) | Cells::Lists { .. } => f64::NAN,
    }
}
