//! Rows of a split: from files, a split expression and the columns wanted, to examples with labels and ids.
//!
//! Ids. A row's number counts from 0 through all files of its split, before any slice is taken, so that an id is the same
//! whatever slice is read. In a data set with splits (hub, folder) an id is `train-12`, or `train-<value>` with an id
//! column, since such columns often restart in each split (GLUE's `idx`). For files given by name it is the id column's
//! value as it stands, else the first file's name and the row's number (`rows-12`). An id column with a repeated or empty
//! value is an error that names the rows.
//!
//! Refuses splits and labels that aren't there, a selection without rows, and labels of another kind than the task's.

use std::collections::{HashMap, HashSet};

use crate::columns::{self, Columns, Labels};
use crate::dataset::{Dataset, Ids, SplitPaths};
use crate::error::{Error, Result, nearest};
use crate::example::{Example, LabelSet, Split};
use crate::features::{FeatureKind, kind_of};
use crate::kind::Kind;
use crate::labels::{self, Integers, RawLabels};
use crate::slice::SplitExpression;
use crate::table::{self, Cells, Table, Wanted};

/// What to read from a data set.
#[derive(Clone, Debug)]
pub struct Request {
    pub columns: Columns,
    pub labels: Labels,
    /// The label set, from a task or from the split read before: values outside it are errors. Else it is found in the data.
    pub label_set: Option<LabelSet>,
    /// Of the task or the model. Else the column says: lists are multi-label, fractions a regression.
    pub kind: Option<Kind>,
}

/// Reads the rows that `expression` selects, such as `train` or `train[:5000]`.
pub fn read(dataset: &Dataset, expression: &str, request: &Request) -> Result<Split> {
    let expression = SplitExpression::parse(expression)?;
    let mut splits: Vec<&SplitPaths> = Vec::new();
    for part in &expression.parts {
        let split = find_split(dataset, &part.split)?;
        if !splits.iter().any(|known| known.name == split.name) {
            splits.push(split);
        }
    }
    let load = |kind: Option<Kind>| -> Result<Vec<Loaded>> {
        let files =
            splits.iter().flat_map(|split| split.files.iter().map(move |path| (split, path)));
        files.map(|(split, path)| load_file(dataset, split, path, request, kind)).collect()
    };
    let mut loaded = load(request.kind)?;
    if loaded.iter().all(|file| file.texts.is_empty()) {
        let paths = loaded.iter().map(|file| file.table.path.display().to_string());
        return Err(Error::NoRows { paths: paths.collect() });
    }
    // One shard may hold whole numbers where another shows that they are values.
    let kinds: Vec<Kind> =
        loaded.iter().filter_map(|file| Some(file.labels.as_ref()?.kind())).collect();
    if let Some(kind) = kinds.iter().find(|kind| **kind != Kind::SingleLabel)
        && kinds.iter().any(|other| other != kind)
    {
        loaded = load(Some(*kind))?;
    }
    let (label_set, integers) = label_set(dataset, &loaded, request)?;
    let mut rows: HashMap<&str, Vec<Example>> = HashMap::new();
    for split in &splits {
        let own: Vec<Loaded> = loaded.extract_if(.., |file| file.split == split.name).collect();
        rows.insert(&split.name, examples(dataset, own, &label_set, &integers)?);
    }
    let sizes: Vec<(&str, usize)> =
        splits.iter().map(|split| (&split.name[..], rows[&split.name[..]].len())).collect();
    let mut selected = Vec::new();
    for part in &expression.parts {
        let Some(own) = rows.get_mut(part.split.as_str()) else { continue };
        let range = part.range(own.len());
        match expression.parts.len() {
            // A large split lies in memory once.
            1 => selected.extend(own.drain(range)),
            _ => selected.extend_from_slice(&own[range]),
        }
    }
    if selected.is_empty() {
        let sizes = sizes.iter().map(|(name, n)| format!("{name} {n}"));
        return Err(Error::EmptySplit {
            expression: expression.text.clone(),
            sizes: sizes.collect(),
        });
    }
    if expression.parts.len() > 1 {
        let mut seen = HashSet::new();
        if let Some(twice) = selected.iter().find(|row| !seen.insert(row.id.as_str())) {
            return Err(Error::RowTwice {
                expression: expression.text.clone(),
                id: twice.id.clone(),
            });
        }
    }
    Ok(Split::new(&expression.text, selected, label_set))
}

/// Other columns of the rows that `expression` selects, as text and in the order of [`read`]: one list a column. Null and
/// empty cells are empty text; integers of a column with class names are those names.
///
/// Errors: as [`read`]; a column that isn't there, with the nearest name.
pub fn read_columns(
    dataset: &Dataset,
    expression: &str,
    columns: &[String],
    role: &'static str,
) -> Result<Vec<Vec<String>>> {
    let expression = SplitExpression::parse(expression)?;
    let wanted: Vec<Wanted> = columns.iter().map(|column| Wanted { role, column }).collect();
    let mut selected = vec![Vec::new(); columns.len()];
    for part in &expression.parts {
        let mut own: Vec<Vec<String>> = vec![Vec::new(); columns.len()];
        for path in &find_split(dataset, &part.split)?.files {
            let cells = table::read(path, &wanted)?.cells;
            for ((own, cells), column) in own.iter_mut().zip(cells).zip(columns) {
                let cells = shown(cells).into_iter();
                match kind_of(&dataset.features, column) {
                    Some(FeatureKind::Classes(names)) => {
                        own.extend(cells.map(|cell| class_name(cell, names)))
                    }
                    _ => own.extend(cells),
                }
            }
        }
        for (selected, own) in selected.iter_mut().zip(own) {
            selected.extend_from_slice(&own[part.range(own.len())]);
        }
    }
    Ok(selected)
}

fn class_name(cell: String, names: &[String]) -> String {
    let name = cell.parse::<usize>().ok().and_then(|class| names.get(class)).cloned();
    name.unwrap_or(cell)
}

/// Cells as text; empty where there is nothing.
pub fn shown(cells: Cells) -> Vec<String> {
    as_text(cells).into_iter().map(Option::unwrap_or_default).collect()
}

fn find_split<'d>(dataset: &'d Dataset, name: &str) -> Result<&'d SplitPaths> {
    dataset.splits.iter().find(|split| split.name == name).ok_or_else(|| Error::UnknownSplit {
        split: name.to_owned(),
        splits: dataset.split_names(),
        suggestion: nearest(name, dataset.splits.iter().map(|split| split.name.as_str())),
    })
}

// One file: texts, pairs, ids as they are in it, labels not yet indices.
struct Loaded {
    split: String,
    table: Table,
    texts: Vec<String>,
    pairs: Option<Vec<String>>,
    labels: Option<RawLabels>,
    ids: Option<(String, Vec<Option<String>>)>,
}

fn load_file(
    dataset: &Dataset,
    split: &SplitPaths,
    path: &std::path::Path,
    request: &Request,
    kind: Option<Kind>,
) -> Result<Loaded> {
    let names = table::head(path)?.columns;
    let chosen =
        columns::choose(path, &names, &dataset.features, &request.columns, request.labels)?;
    let described = chosen.label.as_ref().and_then(|label| kind_of(&dataset.features, label));
    let kind = kind.or(match described {
        Some(FeatureKind::Float) => Some(Kind::Regression),
        _ => None,
    });
    let roles = [
        ("text", &chosen.text),
        ("second text", &chosen.pair),
        ("label", &chosen.label),
        ("id", &chosen.id),
    ];
    let wanted: Vec<Wanted> = roles
        .into_iter()
        .filter_map(|(role, column)| Some(Wanted { role, column: column.as_deref()? }))
        .collect();
    let mut table = table::read(path, &wanted)?;
    let mut cells = std::mem::take(&mut table.cells).into_iter();
    let mut next =
        |column: &Option<String>| column.clone().zip(column.as_ref().and_then(|_| cells.next()));
    let [text, pair, label, id] =
        [&chosen.text, &chosen.pair, &chosen.label, &chosen.id].map(&mut next);
    let texts = match text {
        Some((column, cells)) => texts(&table, &column, cells)?,
        None => Vec::new(),
    };
    Ok(Loaded {
        split: split.name.clone(),
        texts,
        pairs: pair.map(|(column, cells)| self::texts(&table, &column, cells)).transpose()?,
        labels: label
            .map(|(column, cells)| labels::raw(&table, cells, &column, kind))
            .transpose()?,
        ids: id.map(|(column, cells)| (column, as_text(cells))),
        table,
    })
}

fn texts(table: &Table, column: &str, cells: Cells) -> Result<Vec<String>> {
    let not_text = |row: Option<usize>, value: Option<String>| Error::NotText {
        at: table.at(row.unwrap_or(0)),
        column: column.to_owned(),
        value: value.unwrap_or_default(),
    };
    match cells {
        Cells::Text(cells) => Ok(cells.into_iter().map(Option::unwrap_or_default).collect()),
        Cells::Integers(cells) if cells.iter().all(Option::is_none) => {
            Ok(vec![String::new(); cells.len()])
        }
        Cells::Integers(cells) => {
            let first = cells.iter().position(Option::is_some);
            Err(not_text(first, cells.iter().flatten().next().map(ToString::to_string)))
        }
        Cells::Floats(cells) => {
            let first = cells.iter().position(Option::is_some);
            Err(not_text(first, cells.iter().flatten().next().map(ToString::to_string)))
        }
        Cells::Lists { .. } => Err(not_text(None, Some("a list".to_owned()))),
    }
}

fn as_text(cells: Cells) -> Vec<Option<String>> {
    match cells {
        Cells::Text(cells) => cells,
        Cells::Integers(cells) => {
            cells.into_iter().map(|cell| cell.map(|value| value.to_string())).collect()
        }
        Cells::Floats(cells) => {
            cells.into_iter().map(|cell| cell.map(|value| value.to_string())).collect()
        }
        Cells::Lists { lengths, entries } => {
            let mut entries = as_text(*entries).into_iter();
            let mut joined = |length: usize| {
                let own: Vec<String> = entries.by_ref().take(length).flatten().collect();
                own.join(", ")
            };
            lengths.into_iter().map(|length| length.map(&mut joined)).collect()
        }
    }
}

// The label set given, or that of card or footer, or that of the values; where several speak they must hold the same names,
// and the order of the one given is that of the model's head.
fn label_set(
    dataset: &Dataset,
    loaded: &[Loaded],
    request: &Request,
) -> Result<(LabelSet, Integers)> {
    let raw =
        loaded.iter().find_map(|file| file.labels.as_ref().map(|raw| (&file.table.path, raw)));
    let classes = raw.and_then(|(_, raw)| match kind_of(&dataset.features, &raw.column) {
        Some(FeatureKind::Classes(names) | FeatureKind::ClassList(names)) => Some(names.clone()),
        _ => None,
    });
    if raw.is_some_and(|(_, raw)| raw.kind() == Kind::Regression) {
        let set = request.label_set.clone().unwrap_or_else(LabelSet::value);
        return Ok((set, Integers::NamesFirst));
    }
    match (&request.label_set, classes) {
        (Some(given), Some(found)) => {
            let classes = labels::align(given, LabelSet::new(found)?.names())?;
            Ok((given.clone(), Integers::Indices(classes)))
        }
        (Some(given), None) => Ok((given.clone(), Integers::NamesFirst)),
        (None, Some(found)) => {
            let set = LabelSet::new(found)?;
            let classes = labels::align(&set, set.names())?;
            Ok((set, Integers::Indices(classes)))
        }
        (None, None) => {
            let found: Vec<&RawLabels> =
                loaded.iter().filter_map(|file| file.labels.as_ref()).collect();
            let derived = labels::derive(&found)?;
            let set = derived.ok_or_else(|| Error::NoLabels {
                path: loaded.first().map(|file| file.table.path.clone()).unwrap_or_default(),
                column: raw.map_or("label", |(_, raw)| &raw.column).to_owned(),
            })?;
            Ok((set, Integers::NamesFirst))
        }
    }
}

// All rows of one split, whose files these are.
fn examples(
    dataset: &Dataset,
    files: Vec<Loaded>,
    set: &LabelSet,
    integers: &Integers,
) -> Result<Vec<Example>> {
    let mut rows = Vec::with_capacity(files.iter().map(|file| file.texts.len()).sum());
    let mut first_of: HashMap<String, (usize, usize)> = HashMap::new();
    let tables: Vec<Table> = files.iter().map(|file| file.table.clone()).collect();
    for (number, file) in files.into_iter().enumerate() {
        let mut labels = match &file.labels {
            Some(raw) => labels::labelled(&file.table, raw, set, integers)?.into_iter(),
            None => Vec::new().into_iter(),
        };
        let mut pairs = file.pairs.into_iter().flatten();
        let (id_column, ids) = file.ids.unzip();
        let mut ids = ids.into_iter().flatten();
        for (row, text) in file.texts.into_iter().enumerate() {
            let (pair, (label, target)) = (pairs.next(), labels.next().unwrap_or_default());
            let id = match (&id_column, ids.next().flatten()) {
                (None, _) => match &dataset.ids {
                    Ids::BySplit => format!("{}-{}", file.split, rows.len()),
                    Ids::Plain(stem) => format!("{stem}-{}", rows.len()),
                },
                (Some(column), None) => {
                    return Err(Error::EmptyId { at: file.table.at(row), column: column.clone() });
                }
                (Some(column), Some(value)) => {
                    if let Some((table, first)) = first_of.insert(value.clone(), (number, row)) {
                        let (first, second) =
                            (Box::new(tables[table].at(first)), Box::new(file.table.at(row)));
                        return Err(Error::DuplicateId {
                            id: value,
                            column: column.clone(),
                            first,
                            second,
                        });
                    }
                    match &dataset.ids {
                        Ids::BySplit => format!("{}-{value}", file.split),
                        Ids::Plain(_) => value,
                    }
                }
            };
            rows.push(Example { id, text, pair, label, target });
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn write(dir: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn further_columns_stand_in_the_order_of_the_rows() {
        let dir = tempfile::tempdir().unwrap();
        let first = write(&dir, "a.csv", "text,label,day,shop\nx,no,1,\ny,yes,2,west\n");
        let second = write(
            &dir,
            "b.jsonl",
            "{\"text\": \"z\", \"label\": \"no\", \"day\": 3, \"shop\": \"north\"}\n",
        );
        let dataset = Dataset::of_files(&[first, second]).unwrap();
        let columns = ["day".to_owned(), "shop".to_owned()];
        let check = |expression: &str, expected: [&[&str]; 2]| {
            let found = read_columns(&dataset, expression, &columns, "slice").unwrap();
            assert_eq!(found, expected);
            let request = Request {
                columns: Columns::default(),
                labels: Labels::Required,
                label_set: None,
                kind: None,
            };
            let rows = read(&dataset, expression, &request).unwrap().examples.len();
            assert_eq!(found[0].len(), rows, "{expression}");
        };
        check("train", [&["1", "2", "3"], &["", "west", "north"]]);
        check("train[1:]", [&["2", "3"], &["west", "north"]]);
        check("train[2:]+train[:2]", [&["3", "1", "2"], &["north", "", "west"]]);
        assert_eq!(
            read_columns(&dataset, "train", &[], "slice").unwrap(),
            Vec::<Vec<String>>::new()
        );
    }

    #[test]
    fn further_columns_must_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(&dir, "a.csv", "text,airline\nx,Delta\n");
        let dataset = Dataset::of_files(std::slice::from_ref(&path)).unwrap();
        let message = |column: &str| {
            read_columns(&dataset, "train", &[column.to_owned()], "slice").unwrap_err().to_string()
        };
        let expected =
            r#"no slice column "arline" (columns: text, airline); did you mean "airline"?"#;
        assert_eq!(message("arline"), format!("{}: {expected}", path.display()));
    }

    #[test]
    fn integers_of_a_column_with_class_names_are_those_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(&dir, "a.csv", "text,kind\nx,1\ny,0\nz,\nw,7\n");
        let names = LabelSet::new(vec!["bad".to_owned(), "good".to_owned()]).unwrap();
        let dataset = Dataset::of_files(&[path]).unwrap().with_classes("kind", &names);
        let found = read_columns(&dataset, "train", &["kind".to_owned()], "slice").unwrap();
        assert_eq!(found, [["good", "bad", "", "7"]]);
    }
}
