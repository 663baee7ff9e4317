//! A label column to what rows are trained to: class indices, sets of them, or numbers.
//!
//! Where the column has class names (card, footer), its integers are indices. Else its values are names: text as it
//! stands without the blanks around it, integers as their digits. Null and empty cells are unlabelled. So is -1 where class
//! names come from a card or a footer, or from a manifest or a model and the column has nothing else; beside other numbers it could be
//! a class, so it is refused there. Where the values make the names themselves, -1 is a class like any other (sentiment as -1, 0, 1). Refuses values outside the label set.
//!
//! Lists are sets of labels, and columns of fractions are numbers, unless the kind of the task is given: then what doesn't
//! fit it is refused.

mod lists;

use std::collections::BTreeSet;

use self::lists::{refuse_one_hot, rows_of, split_lists};
use crate::error::{At, Error, Result, nearest};
use crate::example::LabelSet;
use crate::kind::{Kind, Target};
use crate::table::{Cells, Table};

/// Labels of one file as found.
pub struct RawLabels {
    pub column: String,
    pub values: RawValues,
}

pub enum RawValues {
    Integers(Vec<Option<i64>>),
    Names(Vec<Option<String>>),
    /// Multi-label: how many entries each row has, and the entries of all rows.
    Lists {
        lengths: Vec<Option<usize>>,
        entries: Box<RawValues>,
    },
    /// Regression.
    Numbers(Vec<Option<f32>>),
}

impl RawLabels {
    pub fn kind(&self) -> Kind {
        match self.values {
            RawValues::Lists { .. } => Kind::MultiLabel,
            RawValues::Numbers(_) => Kind::Regression,
            RawValues::Integers(_) | RawValues::Names(_) => Kind::SingleLabel,
        }
    }
}

/// What an integer in the label column means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Integers {
    /// An index into the class names of the card or footer; here is the class of each, from `align`.
    Indices(Vec<u32>),
    /// Its digits are a label's name if all of the column's are; else an index.
    NamesFirst,
}

/// Takes the label column of a table: integers also from text cells and floats that are whole, as pandas writes them. `kind`
/// is the task's, where it is known; else lists and fractions say what they are.
pub fn raw(table: &Table, cells: Cells, column: &str, kind: Option<Kind>) -> Result<RawLabels> {
    let at = |row: usize| table.at(row);
    let values = match (cells, kind) {
        (cells @ Cells::Lists { .. }, None | Some(Kind::MultiLabel)) => {
            listed(table, cells, column)?
        }
        (Cells::Lists { .. }, Some(kind)) => {
            let (path, column) = (table.path.clone(), column.to_owned());
            return Err(Error::Lists { path, column, kind: kind.name() });
        }
        (cells, Some(Kind::MultiLabel)) => listed(table, split_lists(&at, cells, column)?, column)?,
        (cells, Some(Kind::Regression)) => RawValues::Numbers(numbers(&at, cells, column)?),
        (cells, None) if has_fractions(&cells) => RawValues::Numbers(numbers(&at, cells, column)?),
        (cells, _) => classes(&at, cells, column)?,
    };
    Ok(RawLabels { column: column.to_owned(), values })
}

fn number(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|value| value.is_finite())
}

/// Whether all are numbers, and not all of them whole.
fn has_fractions(cells: &Cells) -> bool {
    match cells {
        // Not-a-number is a missing one, as pandas writes it.
        Cells::Floats(cells) => {
            cells.iter().flatten().any(|value| value.is_finite() && value.fract() != 0.0)
        }
        Cells::Text(cells) => {
            let filled =
                || cells.iter().flatten().map(|text| text.trim()).filter(|t| !t.is_empty());
            filled().all(|text| number(text).is_some())
                && filled().any(|text| number(text).is_some_and(|value| value.fract() != 0.0))
        }
        Cells::Integers(_) | Cells::Lists { .. } => false,
    }
}

/// One class a row. Where no kind was given, fractions have been taken for numbers before.
fn classes(at: &dyn Fn(usize) -> At, cells: Cells, column: &str) -> Result<RawValues> {
    let score = |row: usize, value: String| Error::NotAClass {
        at: at(row),
        column: column.to_owned(),
        value,
    };
    Ok(match cells {
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
        Cells::Lists { lengths, entries } => {
            RawValues::Lists { lengths, entries: Box::new(classes(at, *entries, column)?) }
        }
    })
}

/// Numbers that f32 holds; empty cells are unlabelled, what isn't finite is refused.
fn numbers(at: &dyn Fn(usize) -> At, cells: Cells, column: &str) -> Result<Vec<Option<f32>>> {
    let bad = |row: usize, value: &dyn std::fmt::Display| {
        let value = value.to_string();
        Error::NotANumber { at: at(row), column: column.to_owned(), value }
    };
    let checked = |(row, value): (usize, Option<f64>)| match value {
        Some(value) if !(value as f32).is_finite() => Err(bad(row, &value)),
        value => Ok(value.map(|value| value as f32)),
    };
    match cells {
        Cells::Integers(cells) => {
            let cells = cells.into_iter().map(|cell| cell.map(|value| value as f64));
            cells.enumerate().map(checked).collect()
        }
        Cells::Floats(cells) => cells.into_iter().enumerate().map(checked).collect(),
        Cells::Text(cells) => {
            let value = |(row, cell): (usize, Option<String>)| match cell
                .as_deref()
                .map(str::trim)
                .filter(|text| !text.is_empty())
            {
                None => Ok(None),
                Some(text) => match text.parse::<f64>() {
                    Ok(value) => checked((row, Some(value))),
                    Err(_) => Err(bad(row, &format!("{text:?}"))),
                },
            };
            cells.into_iter().enumerate().map(value).collect()
        }
        Cells::Lists { .. } => Err(bad(0, &"a list")),
    }
}

fn listed(table: &Table, cells: Cells, column: &str) -> Result<RawValues> {
    let rows = match &cells {
        Cells::Lists { lengths, .. } => rows_of(lengths),
        _ => Vec::new(),
    };
    let at = |entry: usize| table.at(rows.get(entry).copied().unwrap_or(0));
    let entries = classes(&at, cells, column)?;
    refuse_one_hot(&entries, &at, column)?;
    Ok(entries)
}

fn json_names(text: &str) -> Option<Vec<String>> {
    let entries: Vec<serde_json::Value> = serde_json::from_str(text).ok()?;
    let name = |entry: serde_json::Value| match entry {
        serde_json::Value::String(name) => Some(name),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    entries.into_iter().map(name).collect()
}

/// A name that is a whole number: "3" and "3.0" but not "03" or "+3", which may be codes.
pub fn whole(name: &str) -> Option<i64> {
    let digits = name.strip_suffix(".0").unwrap_or(name);
    digits.parse::<i64>().ok().filter(|value| value.to_string() == digits)
}

/// The label set that the values themselves make: names sorted, numbers by size. `None` where nothing is labelled.
pub fn derive(all: &[&RawLabels]) -> Result<Option<LabelSet>> {
    let (mut integers, mut names) = (BTreeSet::<i64>::new(), BTreeSet::<&str>::new());
    let mut mixed = false;
    for raw in all {
        let values = match &raw.values {
            RawValues::Lists { entries, .. } => entries.as_ref(),
            values => values,
        };
        match values {
            RawValues::Integers(values) => {
                integers.extend(values.iter().flatten());
            }
            RawValues::Names(values) => {
                mixed |= values.iter().any(Option::is_some);
                names.extend(values.iter().flatten().map(String::as_str));
            }
            RawValues::Lists { .. } | RawValues::Numbers(_) => {}
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

/// Label and target of each row of one table.
pub fn labelled(
    table: &Table,
    raw: &RawLabels,
    labels: &LabelSet,
    integers: &Integers,
) -> Result<Vec<(Option<u32>, Option<Target>)>> {
    let of = Meaning { column: &raw.column, labels, integers };
    match &raw.values {
        RawValues::Numbers(values) => {
            let row = |value: &Option<f32>| (value.map(|_| 0), value.map(Target::Value));
            Ok(values.iter().map(row).collect())
        }
        RawValues::Lists { lengths, entries } => {
            let rows = rows_of(lengths);
            let at = |entry: usize| table.at(rows.get(entry).copied().unwrap_or(0));
            let empty =
                |entry: usize| Error::EmptyEntry { at: at(entry), column: raw.column.clone() };
            let classes = match of.indices(&at, entries) {
                Err(Error::MinusOne { at, column, .. }) => {
                    return Err(Error::EmptyEntry { at, column });
                }
                classes => classes?,
            };
            if let Some(entry) = classes.iter().position(Option::is_none) {
                return Err(empty(entry));
            }
            let mut classes = classes.into_iter().flatten();
            let row = |length: &Option<usize>| {
                let mut set: Vec<u32> = classes.by_ref().take((*length)?).collect();
                set.sort_unstable();
                set.dedup();
                Some(set)
            };
            let first = |set: &Vec<u32>| set.first().copied().unwrap_or(0);
            let sets = lengths.iter().map(row).collect::<Vec<Option<Vec<u32>>>>().into_iter();
            Ok(sets.map(|set| (set.as_ref().map(first), set.map(Target::Classes))).collect())
        }
        values => {
            let classes = of.indices(&|row| table.at(row), values)?;
            Ok(classes.into_iter().map(|class| (class, None)).collect())
        }
    }
}

/// What names and integers of a column stand for.
struct Meaning<'m> {
    column: &'m str,
    labels: &'m LabelSet,
    integers: &'m Integers,
}

impl Meaning<'_> {
    fn indices(&self, at: &dyn Fn(usize) -> At, values: &RawValues) -> Result<Vec<Option<u32>>> {
        let (labels, integers) = (self.labels, self.integers);
        match values {
            RawValues::Names(values) => {
                let index = |(row, value): (usize, &Option<String>)| match value {
                    None => Ok(None),
                    Some(name) => match labels.index_of(name) {
                        Some(index) => Ok(Some(index)),
                        None => Err(self.unknown(at(row), name)),
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
                    Integers::Indices(classes) => {
                        classes.get(index as usize).copied().unwrap_or(index)
                    }
                    Integers::NamesFirst => index,
                };
                // Sentiment as -1, 0, 1 would lose its first class, and the others be taken for their neighbours.
                let is_own = *integers == Integers::NamesFirst && !are_names;
                let minus = values.iter().position(|value| *value == Some(-1));
                if let (true, Some(row)) = (is_own, minus)
                    && values.iter().flatten().any(|value| *value != -1)
                {
                    let (column, labels) = (self.column.to_owned(), labels.names().to_vec());
                    return Err(Error::MinusOne { at: at(row), column, labels });
                }
                let index = |(row, value): (usize, &Option<i64>)| match value {
                    None => Ok(None),
                    Some(-1) if !are_names || named(&-1).is_none() => Ok(None),
                    Some(value) if are_names => match named(value) {
                        Some(index) => Ok(Some(index)),
                        None => Err(self.unknown(at(row), &value.to_string())),
                    },
                    Some(value) => match u32::try_from(*value) {
                        Ok(index) if (index as usize) < labels.len() => Ok(Some(class(index))),
                        _ => Err(Error::LabelOutOfRange {
                            at: at(row),
                            column: self.column.to_owned(),
                            value: *value,
                            labels: labels.names().to_vec(),
                        }),
                    },
                };
                values.iter().enumerate().map(index).collect()
            }
            RawValues::Lists { .. } | RawValues::Numbers(_) => Ok(Vec::new()),
        }
    }

    fn unknown(&self, at: At, name: &str) -> Error {
        Error::UnknownLabel {
            at: Box::new(at),
            column: self.column.to_owned(),
            value: name.to_owned(),
            labels: self.labels.names().to_vec(),
            suggestion: nearest(name, self.labels.names().iter().map(String::as_str)),
        }
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
        let raw = [raw(&table(), cells, "label", Some(Kind::SingleLabel)).map_err(text)?];
        let set = match names {
            Some(names) => LabelSet::new(names.iter().map(|name| (*name).to_owned()).collect())
                .map_err(text)?,
            None => derive(&[&raw[0]]).map_err(text)?.ok_or("nothing labelled")?,
        };
        let rows = labelled(&table(), &raw[0], &set, &integers).map_err(text)?;
        let shown: Vec<String> = rows
            .iter()
            .map(|(index, _)| index.map_or("-".to_owned(), |index| index.to_string()))
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
        check(&["-1", "", "-1"], pos_neg, "neg pos | - - -");
        let own = "column \"label\" holds -1 beside other numbers, and the classes are neg, pos; leave the cell empty where a row has no \
                   label, or say which class each number is: --label-map -1=NAME,...";
        check(&["1", "0", "-1", ""], pos_neg, &format!("x.csv:4: {own}"));
        check(&["-1", "1"], pos_neg, &format!("x.csv:2: {own}"));
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
    fn a_number_for_each_label_is_refused() {
        let read = |lists: &[&[i64]]| {
            let lengths = lists.iter().map(|list| Some(list.len())).collect();
            let entries = lists.concat().into_iter().map(Some).collect();
            let cells = Cells::Lists { lengths, entries: Box::new(Cells::Integers(entries)) };
            raw(&table(), cells, "labels", None).map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(read(&[&[0, 1], &[1], &[], &[0, 1, 5]]), Ok(()));
        let said = "x.csv:3: column \"labels\" holds a 0 or 1 for each label; expected a list of the labels that the row has";
        assert_eq!(read(&[&[1], &[0, 1, 0]]), Err(said.into()));
        let text = Cells::Text(vec![Some("false,true,false".into())]);
        let error =
            raw(&table(), text, "labels", Some(Kind::MultiLabel)).err().unwrap().to_string();
        assert!(
            error.starts_with("x.csv:2: column \"labels\" holds a 0 or 1 for each label"),
            "{error}"
        );
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
            r#"x.csv:3: column "label" holds 3.8, a number and not a class; give --problem-type regression, or another label column"#,
        );
        check(&["", " "], None, "nothing labelled");
        check(&["", "-1"], None, "a label set needs at least two names, got -1");
        check(&["yes", "yes"], None, "a label set needs at least two names, got yes");
    }

    /// Label and target of each row, or the message.
    fn targets(cells: Cells, kind: Option<Kind>, names: &[&str]) -> String {
        let set = LabelSet::of_outputs(names.iter().map(|name| (*name).to_owned()).collect());
        let shown = |(label, target): &(Option<u32>, Option<Target>)| match (label, target) {
            (None, None) => "-".to_owned(),
            (Some(label), None) => label.to_string(),
            (Some(first), Some(Target::Classes(classes))) => {
                assert_eq!(*first, classes.first().copied().unwrap_or(0));
                format!("{classes:?}")
            }
            (Some(0), Some(Target::Value(value))) => format!("{value:?}"),
            other => format!("odd: {other:?}"),
        };
        let raw = match raw(&table(), cells, "label", kind) {
            Ok(raw) => raw,
            Err(error) => return error.to_string(),
        };
        match labelled(&table(), &raw, &set.unwrap(), &Integers::NamesFirst) {
            Ok(rows) => rows.iter().map(shown).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        }
    }

    fn text(cells: &[&str]) -> Cells {
        Cells::Text(cells.iter().map(|cell| Some((*cell).to_owned())).collect())
    }

    #[test]
    fn lists_are_sets_of_labels() {
        let lists = |lengths: &[Option<usize>], entries: &[i64]| Cells::Lists {
            lengths: lengths.to_vec(),
            entries: Box::new(Cells::Integers(entries.iter().copied().map(Some).collect())),
        };
        let abc = &["a", "b", "c"][..];
        let some = [Some(2), Some(0), None, Some(3)];
        let both = [None, Some(Kind::MultiLabel)];
        for kind in both {
            let cells = lists(&some, &[2, 0, 1, 1, 1]);
            assert_eq!(targets(cells, kind, abc), "[0, 2] [] - [1]");
        }
        assert_eq!(
            targets(lists(&[Some(1), Some(2)], &[1, 0, 3]), None, abc),
            r#"x.csv:3: column "label" holds 3, which is outside 0..3 of the labels a, b, c (-1 is unlabelled)"#
        );
        assert_eq!(
            targets(lists(&[Some(2)], &[1, -1]), None, abc),
            r#"x.csv:2: column "label" holds a list with an empty entry or -1; leave it out of the list"#
        );
        assert_eq!(
            targets(lists(&[Some(1)], &[1]), Some(Kind::Regression), abc),
            r#"x.csv: column "label" holds lists, but this is a regression task; give --problem-type multi_label_classification, or another label column"#
        );
    }

    #[test]
    fn lists_stand_in_cells_of_text() {
        let check = |cells: &[&str], expected: &str| {
            let got = targets(text(cells), Some(Kind::MultiLabel), &["joy", "love", "fear"]);
            assert_eq!(got, expected);
        };
        check(&["joy,fear", "love", "", r#"["fear", "joy"]"#, "[]"], "[0, 2] [1] - [0, 2] []");
        check(
            &["joy", "love,feer"],
            r#"x.csv:3: column "label" holds "feer", which isn't one of the 3 labels joy, love, fear; did you mean "fear"?"#,
        );
        check(
            &["['joy']"],
            r#"x.csv:2: column "label" holds "['joy']", which is no list of labels; write names with commas between, or a JSON list"#,
        );
    }

    #[test]
    fn fractions_are_numbers() {
        let check = |cells: &[&str], kind: Option<Kind>, expected: &str| {
            assert_eq!(targets(text(cells), kind, &["a"]), expected);
        };
        check(&["5.0", "3.8", ""], None, "5.0 3.8 -");
        check(&["5", "3", "-1"], Some(Kind::Regression), "5.0 3.0 -1.0");
        let refused = |value: &str| {
            format!(
                "x.csv:2: column \"label\" holds {value}, not a finite number; leave the cell empty where a row has no value"
            )
        };
        check(&["nan", "1.5"], Some(Kind::Regression), &refused("NaN"));
        check(&["inf"], Some(Kind::Regression), &refused("inf"));
        check(&["1e99"], Some(Kind::Regression), &refused(&1e99f64.to_string()));
        check(&["good"], Some(Kind::Regression), &refused("\"good\""));
        let floats = Cells::Floats(vec![Some(f64::NAN), Some(0.5)]);
        assert_eq!(targets(floats, None, &["a"]), refused("NaN"));
        // Whole floats are classes, as pandas writes them, unless the task says otherwise.
        let floats = || Cells::Floats(vec![Some(1.0), None, Some(0.0)]);
        assert_eq!(targets(floats(), None, &["a", "b"]), "1 - 0");
        assert_eq!(targets(floats(), Some(Kind::Regression), &["a"]), "1.0 - 0.0");
    }
}
