//! A label column to class indices.
//!
//! Where the column has class names (card, footer), its integers are indices. Else its values are names: text as it
//! stands without the blanks around it, integers as their digits. Null and empty cells are unlabelled. So is -1 where class
//! names come from a card, a footer, a manifest or a model and none of them is "-1"; where the values make the names
//! themselves, -1 is a class like any other (sentiment as -1, 0, 1). Refuses values outside the label set, and scores.

use std::collections::BTreeSet;

use crate::error::{Error, Result, nearest};
use crate::example::LabelSet;
use crate::table::{Cells, Table};

/// Labels of one file as found.
pub struct RawLabels {
    pub column: String,
    pub values: RawValues,
}

pub enum RawValues {
    Integers(Vec<Option<i64>>),
    Names(Vec<Option<String>>),
}

/// What an integer in the label column means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Integers {
    /// An index into the class names of the card or footer; here is the class of each, from `align`.
    Indices(Vec<u32>),
    /// Its digits are a label's name if all of the column's are; else an index.
    NamesFirst,
}

/// Takes the label column of a table: integers also from text cells and floats that are whole, as pandas writes them.
pub fn raw(table: &Table, cells: Cells, column: &str) -> Result<RawLabels> {
    let score = |row: usize, value: String| Error::Regression {
        at: table.at(row),
        column: column.to_owned(),
        value,
    };
    let values = match cells {
        Cells::Integers(cells) => RawValues::Integers(cells),
        Cells::Floats(cells) => {
            let whole = |(row, cell): (usize, Option<f64>)| match cell {
                Some(value) if value.is_nan() => Ok(None),
                Some(value) if value.fract() == 0.0 && value.abs() < 1e15 => Ok(Some(value as i64)),
                Some(value) => Err(score(row, value.to_string())),
                None => Ok(None),
            };
            RawValues::Integers(cells.into_iter().enumerate().map(whole).collect::<Result<_>>()?)
        }
        Cells::Text(cells) => {
            let trim = |cell: Option<String>| {
                cell.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
            };
            let names: Vec<Option<String>> = cells.into_iter().map(trim).collect();
            let number =
                |name: &str| name.parse::<f64>().ok().filter(|value: &f64| value.is_finite());
            let is_score = |name: &String| number(name).is_some_and(|value| value.fract() != 0.0);
            if names.iter().flatten().all(|name| whole(name).is_some()) {
                RawValues::Integers(
                    names.iter().map(|name| name.as_deref().and_then(whole)).collect(),
                )
            } else if names.iter().flatten().all(|name| number(name).is_some())
                && let Some(first) =
                    names.iter().position(|name| name.as_ref().is_some_and(is_score))
            {
                return Err(score(first, names[first].clone().unwrap_or_default()));
            } else {
                RawValues::Names(names)
            }
        }
    };
    Ok(RawLabels { column: column.to_owned(), values })
}

// "3" and "3.0" but not "03" or "+3", which may be codes.
fn whole(name: &str) -> Option<i64> {
    let digits = name.strip_suffix(".0").unwrap_or(name);
    digits.parse::<i64>().ok().filter(|value| value.to_string() == digits)
}

/// The label set that the values themselves make: names sorted, numbers by size. `None` where nothing is labelled.
pub fn derive(all: &[&RawLabels]) -> Result<Option<LabelSet>> {
    let (mut integers, mut names) = (BTreeSet::<i64>::new(), BTreeSet::<&str>::new());
    let mut mixed = false;
    for raw in all {
        match &raw.values {
            RawValues::Integers(values) => {
                integers.extend(values.iter().flatten());
            }
            RawValues::Names(values) => {
                mixed |= values.iter().any(Option::is_some);
                names.extend(values.iter().flatten().map(String::as_str));
            }
        }
    }
    // One shard of a text column may hold only digits: then they are names like the others.
    let set: Vec<String> = if mixed {
        let digits: Vec<String> = integers.iter().map(ToString::to_string).collect();
        let both: BTreeSet<&str> =
            names.into_iter().chain(digits.iter().map(String::as_str)).collect();
        both.into_iter().map(str::to_owned).collect()
    } else {
        integers.iter().map(ToString::to_string).collect()
    };
    if set.is_empty() { Ok(None) } else { LabelSet::new(set).map(Some) }
}

/// For each class name of the data its index in the set given; both must hold the same names, in whatever order.
pub fn align(given: &LabelSet, found: &[String]) -> Result<Vec<u32>> {
    let aligned: Option<Vec<u32>> = found.iter().map(|name| given.index_of(name)).collect();
    match aligned {
        Some(aligned) if aligned.len() == given.len() => Ok(aligned),
        _ => Err(Error::LabelsDisagree { given: given.names().to_vec(), found: found.to_vec() }),
    }
}

/// Class index of each row of one table.
pub fn indices(
    table: &Table,
    raw: &RawLabels,
    labels: &LabelSet,
    integers: &Integers,
) -> Result<Vec<Option<u32>>> {
    match &raw.values {
        RawValues::Names(values) => {
            let index = |(row, value): (usize, &Option<String>)| match value {
                None => Ok(None),
                Some(name) => match labels.index_of(name) {
                    Some(index) => Ok(Some(index)),
                    None => Err(unknown(table, row, &raw.column, name, labels)),
                },
            };
            values.iter().enumerate().map(index).collect()
        }
        RawValues::Integers(values) => {
            let named = |value: &i64| labels.index_of(&value.to_string());
            // Decided by the label set alone, never by the values of one file: a stray value must be an error, not a
            // reason to read all others as indices.
            let are_names = *integers == Integers::NamesFirst
                && labels.names().iter().any(|name| name.parse::<i64>().is_ok());
            let class = |index: u32| match integers {
                Integers::Indices(classes) => classes.get(index as usize).copied().unwrap_or(index),
                Integers::NamesFirst => index,
            };
            let index = |(row, value): (usize, &Option<i64>)| match value {
                None => Ok(None),
                Some(-1) if !are_names || named(&-1).is_none() => Ok(None),
                Some(value) if are_names => match named(value) {
                    Some(index) => Ok(Some(index)),
                    None => Err(unknown(table, row, &raw.column, &value.to_string(), labels)),
                },
                Some(value) => match u32::try_from(*value) {
                    Ok(index) if (index as usize) < labels.len() => Ok(Some(class(index))),
                    _ => Err(Error::LabelOutOfRange {
                        at: table.at(row),
                        column: raw.column.clone(),
                        value: *value,
                        labels: labels.names().to_vec(),
                    }),
                },
            };
            values.iter().enumerate().map(index).collect()
        }
    }
}

fn unknown(table: &Table, row: usize, column: &str, name: &str, labels: &LabelSet) -> Error {
    Error::UnknownLabel {
        at: Box::new(table.at(row)),
        column: column.to_owned(),
        value: name.to_owned(),
        labels: labels.names().to_vec(),
        suggestion: nearest(name, labels.names().iter().map(String::as_str)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn table() -> Table {
        Table { path: PathBuf::from("x.csv"), cells: Vec::new(), lines: (2..100).collect() }
    }

    fn of(
        cells: &[&str],
        names: Option<&[&str]>,
        integers: Integers,
    ) -> std::result::Result<String, String> {
        let cell = |cell: &&str| (!cell.is_empty()).then(|| (*cell).to_owned());
        let cells = Cells::Text(cells.iter().map(cell).collect());
        let text = |error: Error| error.to_string();
        let raw = [raw(&table(), cells, "label").map_err(text)?];
        let set = match names {
            Some(names) => LabelSet::new(names.iter().map(|name| (*name).to_owned()).collect())
                .map_err(text)?,
            None => derive(&[&raw[0]]).map_err(text)?.ok_or("nothing labelled")?,
        };
        let indices = indices(&table(), &raw[0], &set, &integers).map_err(text)?;
        let shown: Vec<String> = indices
            .iter()
            .map(|index| index.map_or("-".to_owned(), |index| index.to_string()))
            .collect();
        Ok(format!("{} | {}", set.names().join(" "), shown.join(" ")))
    }

    #[test]
    fn labels_of_every_kind() {
        let check = |cells: &[&str], names: Option<&[&str]>, expected: &str| {
            let got = of(cells, names, Integers::NamesFirst);
            assert_eq!(got.unwrap_or_else(|message| message), expected);
        };
        let pos_neg = Some(&["neg", "pos"][..]);
        check(&["pos", "neg ", "", " pos"], None, "neg pos | 1 0 - 1");
        check(&["pos", "neg"], pos_neg, "neg pos | 1 0");
        check(&["1", "0", "-1", ""], pos_neg, "neg pos | 1 0 - -");
        check(&["1.0", "0.0", ""], pos_neg, "neg pos | 1 0 -");
        check(&["10", "2", "1", "-1"], None, "-1 1 2 10 | 3 2 1 0");
        check(&["-1", "0", "1", ""], None, "-1 0 1 | 0 1 2 -");
        check(&["1.0", "-1.0"], None, "-1 1 | 1 0");
        check(&["2", "1"], Some(&["1", "2"]), "1 2 | 1 0");
        check(&["1", "-1", "2"], Some(&["1", "2"]), "1 2 | 0 - 1");
        check(&["-1", "1", "0"], Some(&["-1", "0", "1"]), "-1 0 1 | 0 2 1");
        check(&["true", "false"], None, "false true | 1 0");
        check(&["02", "01", "1"], None, "01 02 1 | 1 0 2");
    }

    #[test]
    fn indices_stay_indices() {
        let got = of(&["1", "0", "-1"], Some(&["1", "2"]), Integers::Indices(vec![0, 1]));
        assert_eq!(got.unwrap(), "1 2 | 1 0 -");
        let got = of(&["1", "0", "-1"], Some(&["1", "2"]), Integers::Indices(vec![1, 0]));
        assert_eq!(got.unwrap(), "1 2 | 0 1 -");
    }

    #[test]
    fn class_names_are_aligned_by_name() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let check = |given: &[&str], found: &[&str], expected: &str| {
            let found: Vec<String> = names(found);
            let got = match align(&LabelSet::new(names(given)).unwrap(), &found) {
                Ok(classes) => format!("{classes:?}"),
                Err(error) => error.to_string(),
            };
            assert_eq!(got, expected);
        };
        check(&["neg", "pos"], &["neg", "pos"], "[0, 1]");
        check(&["a", "b", "c"], &["c", "a", "b"], "[2, 0, 1]");
        check(
            &["a", "b", "c"],
            &["b", "a", "d"],
            "the labels given (a, b, c) aren't the labels of the data (b, a, d): not in the data: c; not given: d; the names must be \
             the same, their order may differ",
        );
        check(
            &["a", "b", "c"],
            &["b", "a"],
            "the labels given (a, b, c) aren't the labels of the data (b, a): not in the data: c; the names must be the same, their \
             order may differ",
        );
        check(
            &["neg", "Pos"],
            &["pos", "neg"],
            "the labels given (neg, Pos) aren't the labels of the data (pos, neg): not in the data: Pos; not given: pos; some differ \
             in case only; the names must be the same, their order may differ",
        );
    }

    /// One stray value once shifted every label of its file by a class.
    #[test]
    fn a_stray_integer_is_an_error_where_integers_are_names() {
        let message = of(&["1", "0", "2"], Some(&["1", "2"]), Integers::NamesFirst).unwrap_err();
        assert!(message.contains("holds \"0\", which isn't one of the 2 labels 1, 2"), "{message}");
    }

    #[test]
    fn messages() {
        let check = |cells: &[&str], names: Option<&[&str]>, message: &str| {
            assert_eq!(of(cells, names, Integers::NamesFirst).unwrap_err(), message);
        };
        let pos_neg = Some(&["negative", "positive"][..]);
        check(
            &["negative", "positve"],
            pos_neg,
            r#"x.csv:3: column "label" holds "positve", which isn't one of the 2 labels negative, positive; did you mean "positive"?"#,
        );
        check(
            &["Positive"],
            pos_neg,
            r#"x.csv:2: column "label" holds "Positive", which isn't one of the 2 labels negative, positive; did you mean "positive"?"#,
        );
        check(
            &["0", "2"],
            pos_neg,
            r#"x.csv:3: column "label" holds 2, which is outside 0..2 of the labels negative, positive (-1 is unlabelled)"#,
        );
        check(
            &["5.0", "3.8"],
            None,
            r#"x.csv:3: column "label" holds 3.8, a score and not a class: regression tasks aren't supported yet"#,
        );
        check(&["", " "], None, "nothing labelled");
        check(&["", "-1"], None, "a label set needs at least two names, got -1");
        check(&["yes", "yes"], None, "a label set needs at least two names, got yes");
    }
}
