//! Columns of a JSON-lines file: one object a line.
//!
//! Refuses lines that aren't an object, a file that is one large value, and one with a new key in row after row. A key that a
//! row doesn't have is a null there; a key that no row has is a missing column. Blank lines are passed over.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::error::{At, Error, Place, Result};
use crate::table::{Cells, Head, Table, Wanted, list_in, missing};

/// Different keys of one file. Readers look each key up among all of them, and where ids are keys there is one a row.
const MOST_KEYS: usize = 10_000;

/// The keys of all rows, in order of appearance: the first rows may be those without labels. Values are passed over unread.
pub fn head(path: &Path) -> Result<Head> {
    let mut keys = Keys::default();
    for_each_line(path, |line, text| {
        let mut json = serde_json::Deserializer::from_str(text);
        let read = keys.deserialize(&mut json).and_then(|()| json.end());
        read.map_err(|error| bad_json(path, line, &error))?;
        if keys.in_order.len() > MOST_KEYS {
            return Err(Error::ManyKeys { path: path.to_owned(), line, most: MOST_KEYS });
        }
        Ok(())
    })?;
    Ok(Head { columns: keys.in_order, features: Vec::new() })
}

pub fn read(path: &Path, wanted: &[Wanted<'_>]) -> Result<Table> {
    let mut found: Vec<Vec<Value>> = vec![Vec::new(); wanted.len()];
    let mut present = vec![false; wanted.len()];
    let mut lines = Vec::new();
    for_each_row(path, |line, mut row| {
        for ((cells, present), wanted) in found.iter_mut().zip(&mut present).zip(wanted) {
            let cell = row.get_mut(wanted.column).map(Value::take);
            *present |= cell.is_some();
            cells.push(cell.unwrap_or_default());
        }
        lines.push(u32::try_from(line).unwrap_or(u32::MAX));
        Ok(())
    })?;
    if let Some((_, wanted)) = present.iter().zip(wanted).find(|(present, _)| !**present) {
        return Err(missing(path, &head(path)?.columns, wanted));
    }
    let cells = found
        .into_iter()
        .zip(wanted)
        .map(|(values, wanted)| column(path, wanted, values, &lines))
        .collect::<Result<_>>()?;
    Ok(Table { path: path.to_owned(), cells, lines })
}

#[derive(Default)]
struct Keys {
    in_order: Vec<String>,
    seen: HashSet<String>,
}

impl<'de> DeserializeSeed<'de> for &mut Keys {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> std::result::Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Keys {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a map")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> std::result::Result<(), M::Error> {
        let mut at = 0;
        while map.next_key_seed(Key { keys: &mut *self, at })?.is_some() {
            map.next_value::<IgnoredAny>()?;
            at += 1;
        }
        Ok(())
    }
}

// Copies a key only where it is new, and looks it up only where it isn't at its usual place: rows mostly have one order.
struct Key<'k> {
    keys: &'k mut Keys,
    at: usize,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> std::result::Result<(), D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> std::result::Result<(), E> {
        let Key { keys, at } = self;
        let is_usual = keys.in_order.get(at).is_some_and(|usual| usual == key);
        if !is_usual && !keys.seen.contains(key) {
            keys.seen.insert(key.to_owned());
            keys.in_order.push(key.to_owned());
        }
        Ok(())
    }
}

// Calls `visit` with line number and object.
fn for_each_row(
    path: &Path,
    mut visit: impl FnMut(usize, Map<String, Value>) -> Result<()>,
) -> Result<()> {
    for_each_line(path, |line, text| {
        let row = serde_json::from_str(text).map_err(|error| bad_json(path, line, &error))?;
        visit(line, row)
    })
}

/// Calls `visit` with line number and text, less its line break, of each line that isn't blank. Never holds the file.
pub fn for_each_line<E: From<Error>>(
    path: &Path,
    mut visit: impl FnMut(usize, &str) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let mut file = BufReader::with_capacity(1 << 16, File::open(path).map_err(Error::read(path))?);
    let (mut line, mut rows) = (Vec::new(), 0);
    for number in 1.. {
        line.clear();
        if file.read_until(b'\n', &mut line).map_err(Error::read(path))? == 0 {
            break;
        }
        let bytes =
            if number == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line) } else { &line };
        if number == 1 && (bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff")) {
            return Err(Error::Utf16 { path: path.to_owned() }.into());
        }
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        let text = std::str::from_utf8(bytes).map_err(|_| Error::NotUtf8 {
            at: At { path: path.to_owned(), place: Place::Line(number) },
        })?;
        if rows == 0 && is_no_row(text) {
            return Err(Error::JsonNotLines { path: path.to_owned() }.into());
        }
        rows += 1;
        // With its break, a line that is cut short would end in column 0 of the next.
        visit(number, text.trim_end_matches(['\r', '\n']))?;
    }
    if rows == 0 { Err(Error::EmptyFile { path: path.to_owned() }.into()) } else { Ok(()) }
}

/// The error of a line that isn't what was expected of its JSON.
pub fn bad_json(path: &Path, line: usize, error: &serde_json::Error) -> Error {
    Error::BadJson { path: path.to_owned(), line, reason: reason(error) }
}

// A list, or an object that goes on in the next line.
fn is_no_row(first: &str) -> bool {
    matches!(first.trim(), "{" | "[") || first.trim_start().starts_with('[')
}

// serde_json counts lines within what it was given, which is always line 1 here.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    format!("{text}, column {}", error.column())
}

// The entries of all rows as one column. A value that is no list is a list of one.
fn lists(path: &Path, wanted: &Wanted<'_>, values: Vec<Value>, lines: &[u32]) -> Result<Cells> {
    let (mut lengths, mut entries, mut lines_of) = (Vec::new(), Vec::new(), Vec::new());
    for (value, line) in values.into_iter().zip(lines) {
        let list = match value {
            Value::Null => None,
            Value::Array(list) => Some(list),
            one => Some(vec![one]),
        };
        lengths.push(list.as_ref().map(Vec::len));
        for entry in list.into_iter().flatten() {
            if entry.is_array() {
                return Err(list_in(path, wanted));
            }
            entries.push(entry);
            lines_of.push(*line);
        }
    }
    let entries = Box::new(column(path, wanted, entries, &lines_of)?);
    Ok(Cells::Lists { lengths, entries })
}

// Text if any value is text; numbers in a column with text are an error later, where it is known what it is for.
fn column(path: &Path, wanted: &Wanted<'_>, values: Vec<Value>, lines: &[u32]) -> Result<Cells> {
    match values.iter().any(Value::is_array) {
        true if wanted.role == "label" => return lists(path, wanted, values, lines),
        true => return Err(list_in(path, wanted)),
        false => {}
    }
    let only = |kind: fn(&Value) -> bool| {
        values.iter().all(|value| value.is_null() || kind(value)) && values.iter().any(kind)
    };
    if only(Value::is_i64) {
        return Ok(Cells::Integers(values.iter().map(Value::as_i64).collect()));
    }
    // Floats would round a whole number that is larger, such as a hash for an id, and tell two of them alike.
    let is_whole = |value: &Value| value.is_i64() || value.is_u64();
    let is_text = matches!(wanted.role, "text" | "second text");
    if values.iter().all(|value| value.is_null() || is_whole(value)) && !is_text {
        let digits = |value: &Value| (!value.is_null()).then(|| value.to_string());
        return Ok(Cells::Text(values.iter().map(digits).collect()));
    }
    if only(Value::is_number) {
        return Ok(Cells::Floats(values.iter().map(Value::as_f64).collect()));
    }
    let text = |(value, line): (Value, &u32)| match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok((!text.is_empty()).then_some(text)),
        Value::Bool(value) => Ok(Some(value.to_string())),
        Value::Number(number) if wanted.role != "text" && wanted.role != "second text" => {
            Ok(Some(number.to_string()))
        }
        other => Err(Error::NotText {
            at: At { path: path.to_owned(), place: Place::Line(*line as usize) },
            column: wanted.column.to_owned(),
            value: if other.is_object() { "an object".to_owned() } else { other.to_string() },
        }),
    };
    Ok(Cells::Text(values.into_iter().zip(lines).map(text).collect::<Result<_>>()?))
}
