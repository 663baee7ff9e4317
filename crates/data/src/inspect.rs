//! What a person should know of the data before training on it: balance, empty and repeated texts, conflicts, leaks.
//!
//! Counts, and the first ids of each kind; mends nothing. Texts are compared without the blanks at their ends.

use std::collections::{HashMap, HashSet};

use crate::example::{Example, Split};
use crate::kind::{Kind, Target};

/// Counts over one training split, and what it shares with an evaluation split. Lists of ids hold the first three.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspection {
    pub split: String,
    pub rows: usize,
    pub kind: Kind,
    /// (label name, rows), in label order.
    pub classes: Vec<(String, usize)>,
    /// Least, mean and greatest number of a regression.
    pub values: Option<[f64; 3]>,
    pub unlabelled: usize,
    pub unlabelled_ids: Vec<String>,
    /// Label names that are one name but for their case, in label order.
    pub same_but_for_case: Vec<String>,
    /// Rows whose text (for a pair: both texts) is empty or blank.
    pub empty_texts: usize,
    pub empty_ids: Vec<String>,
    /// Rows that repeat the text and the label of an earlier row.
    pub duplicates: usize,
    pub duplicate_ids: Vec<String>,
    /// Rows that repeat the text of an earlier row, whatever the label.
    pub repeated_texts: usize,
    /// Distinct texts that carry more than one label.
    pub conflicting_texts: usize,
    /// Rows that such texts have in all.
    pub conflicting_rows: usize,
    pub conflicting_ids: Vec<String>,
    pub shared: Option<Shared>,
}

/// Rows of the evaluation split whose text also occurs in training.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    pub eval_split: String,
    pub eval_rows: usize,
    pub rows: usize,
}

/// Looks at a split, and at what it shares with the split it will be judged on.
pub fn inspect(split: &Split, eval: Option<&Split>) -> Inspection {
    let mut classes: Vec<(String, usize)> =
        split.labels.names().iter().map(|name| (name.clone(), 0)).collect();
    let mut labels_of: HashMap<(&str, &str), HashSet<Option<Vec<u32>>>> =
        HashMap::with_capacity(split.examples.len());
    let mut repeated: Vec<&Example> = Vec::new();
    for row in &split.examples {
        let answer = answer(row);
        if row.value().is_none() {
            answer.iter().flatten().for_each(|label| classes[*label as usize].1 += 1);
        }
        if !labels_of.entry(key(row)).or_default().insert(answer) {
            repeated.push(row);
        }
    }
    let is_conflict = |labels: &HashSet<Option<Vec<u32>>>| labels.iter().flatten().count() > 1;
    let rows = |is: &dyn Fn(&Example) -> bool| -> Vec<&Example> {
        split.examples.iter().filter(|row| is(row)).collect()
    };
    let unlabelled = rows(&|row| row.label.is_none());
    let empty = rows(&is_empty);
    let conflicting = rows(&|row| labels_of.get(&key(row)).is_some_and(is_conflict));
    let shared = eval.map(|eval| Shared {
        eval_split: eval.name.clone(),
        eval_rows: eval.examples.len(),
        rows: eval
            .examples
            .iter()
            .filter(|row| !is_empty(row) && labels_of.contains_key(&key(row)))
            .count(),
    });
    Inspection {
        split: split.name.clone(),
        rows: split.examples.len(),
        kind: Kind::of(&split.examples),
        values: values(&split.examples),
        unlabelled: unlabelled.len(),
        unlabelled_ids: first_ids(&unlabelled),
        same_but_for_case: same_but_for_case(split.labels.names()),
        empty_texts: empty.len(),
        empty_ids: first_ids(&empty),
        duplicates: repeated.len(),
        duplicate_ids: first_ids(&repeated),
        repeated_texts: split.examples.len() - labels_of.len(),
        conflicting_texts: labels_of.values().filter(|labels| is_conflict(labels)).count(),
        conflicting_rows: conflicting.len(),
        conflicting_ids: first_ids(&conflicting),
        classes,
        shared,
    }
}

/// What a row is trained to, so that equal answers are equal: the labels that hold, or the bits of a number.
fn answer(row: &Example) -> Option<Vec<u32>> {
    match &row.target {
        Some(Target::Classes(classes)) => Some(classes.clone()),
        Some(Target::Value(value)) => Some(vec![value.to_bits()]),
        None => row.label.map(|label| vec![label]),
    }
}

fn values(rows: &[Example]) -> Option<[f64; 3]> {
    let values: Vec<f64> = rows.iter().filter_map(|row| row.value().map(f64::from)).collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let least = values.iter().copied().reduce(f64::min)?;
    let most = values.iter().copied().reduce(f64::max)?;
    Some([least, mean, most])
}

fn first_ids(rows: &[&Example]) -> Vec<String> {
    rows.iter().take(3).map(|row| row.id.clone()).collect()
}

fn same_but_for_case(names: &[String]) -> Vec<String> {
    let lower: Vec<String> = names.iter().map(|name| name.to_lowercase()).collect();
    let mut seen: HashMap<&str, usize> = HashMap::new();
    lower.iter().for_each(|name| *seen.entry(name).or_default() += 1);
    let pairs = names.iter().zip(&lower);
    pairs.filter(|(_, lower)| seen[lower.as_str()] > 1).map(|(name, _)| name.clone()).collect()
}

fn key(row: &Example) -> (&str, &str) {
    (row.text.trim(), row.pair.as_deref().unwrap_or("").trim())
}

fn is_empty(row: &Example) -> bool {
    key(row) == ("", "")
}

const MOST_CLASSES: usize = 12;

/// Lines of text to print; what is as it should be is left out.
pub fn lines(inspection: &Inspection) -> Vec<String> {
    let n_classes = inspection.classes.len();
    let what = match inspection.kind {
        Kind::SingleLabel => format!("{n_classes} classes"),
        Kind::MultiLabel => format!("{n_classes} labels, any of them a row"),
        Kind::Regression => "a number each".to_owned(),
    };
    let mut lines = vec![format!("{}: {}, {what}", inspection.split, rows(inspection.rows))];
    lines.extend(balance(inspection));
    lines.extend(notes(inspection));
    lines
}

// How many rows each class has, of many classes the ends alone; of numbers how they spread.
fn balance(inspection: &Inspection) -> Vec<String> {
    let classes = &inspection.classes;
    if let Some([least, mean, most]) = inspection.values {
        return vec![format!("  from {least:.3} to {most:.3}, {mean:.3} in the mean")];
    }
    if classes.len() <= MOST_CLASSES {
        let labelled = (inspection.rows - inspection.unlabelled).max(1) as f64;
        let width = classes.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let line = |(name, count): &(String, usize)| {
            let share = 100.0 * *count as f64 / labelled;
            format!("  {name:width$}  {:>9}  {share:>5.1} %", grouped(*count))
        };
        return classes.iter().map(line).collect();
    }
    let ends = (
        classes.iter().min_by_key(|(_, count)| *count),
        classes.iter().max_by_key(|(_, count)| *count),
    );
    match ends {
        (Some(least), Some(most)) => {
            vec![format!("  from {} ({}) to {} ({})", rows(least.1), least.0, rows(most.1), most.0)]
        }
        _ => Vec::new(),
    }
}

fn notes(inspection: &Inspection) -> Vec<String> {
    let mut lines = Vec::new();
    let mut note = |count: usize, text: String| {
        if count > 0 {
            lines.push(text);
        }
    };
    let with_ids = |count: usize, first: &[String]| format!("{}{}", rows(count), ids(first, count));
    let empty = inspection.classes.iter().filter(|(_, count)| *count == 0);
    let without: Vec<&str> = empty.map(|(name, _)| name.as_str()).collect();
    let n_without = if inspection.values.is_some() { 0 } else { without.len() };
    let labelled = inspection.rows - inspection.unlabelled;
    note(n_without.min(labelled), format!("  without a row: {}", shortened(&without)));
    let cased: Vec<&str> = inspection.same_but_for_case.iter().map(String::as_str).collect();
    note(cased.len(), format!("  labels that differ in case only: {}", shortened(&cased)));
    note(
        inspection.unlabelled,
        format!(
            "  unlabelled: {}, left out of training{}",
            rows(inspection.unlabelled),
            ids(&inspection.unlabelled_ids, inspection.unlabelled)
        ),
    );
    note(
        inspection.empty_texts,
        format!("  empty text: {}", with_ids(inspection.empty_texts, &inspection.empty_ids)),
    );
    note(
        inspection.duplicates,
        format!(
            "  repeated (same text, same label): {}",
            with_ids(inspection.duplicates, &inspection.duplicate_ids)
        ),
    );
    let texts = match inspection.conflicting_texts {
        1 => "1 text".to_owned(),
        count => format!("{} texts", grouped(count)),
    };
    note(
        inspection.conflicting_texts,
        format!(
            "  conflicting labels: {texts} in {}",
            with_ids(inspection.conflicting_rows, &inspection.conflicting_ids)
        ),
    );
    if let Some(shared) = &inspection.shared {
        let (split, of) = (&shared.eval_split, rows(shared.eval_rows));
        note(1, format!("  evaluated on: {split}, {of}"));
        note(shared.rows, format!("  in {split} too: {} of its {of}", grouped(shared.rows)));
    }
    lines
}

fn rows(count: usize) -> String {
    if count == 1 { "1 row".to_owned() } else { format!("{} rows", grouped(count)) }
}

fn ids(first: &[String], count: usize) -> String {
    match first {
        [] => String::new(),
        first if first.len() < count => format!(" ({}, …)", first.join(", ")),
        first => format!(" ({})", first.join(", ")),
    }
}

fn shortened(names: &[&str]) -> String {
    match names.len() {
        n if n <= MOST_CLASSES => names.join(", "),
        n => format!("{}, … ({n} in all)", names[..MOST_CLASSES].join(", ")),
    }
}

fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example::LabelSet;

    fn split(name: &str, rows: &[(&str, Option<u32>)]) -> Split {
        let labels = LabelSet::new(["neg", "neutral", "pos"].map(str::to_owned).to_vec()).unwrap();
        let example = |(at, (text, label)): (usize, &(&str, Option<u32>))| Example {
            id: format!("{name}-{at}"),
            text: (*text).to_owned(),
            pair: None,
            label: *label,
            target: None,
        };
        Split::new(name, rows.iter().enumerate().map(example).collect(), labels)
    }

    #[test]
    fn everything_is_counted() {
        let train = split(
            "train",
            &[
                ("good", Some(2)),
                ("good ", Some(2)),
                ("good", Some(0)),
                ("bad", Some(0)),
                ("", Some(0)),
                (" ", None),
                ("odd", None),
                ("odd", Some(0)),
                ("good", Some(2)),
            ],
        );
        let eval = split(
            "validation",
            &[("bad", Some(0)), ("new", Some(2)), ("", Some(0)), ("good", Some(2))],
        );
        let found = inspect(&train, Some(&eval));
        assert_eq!(
            lines(&found),
            [
                "train: 9 rows, 3 classes",
                "  neg              4   57.1 %",
                "  neutral          0    0.0 %",
                "  pos              3   42.9 %",
                "  without a row: neutral",
                "  unlabelled: 2 rows, left out of training (train-5, train-6)",
                "  empty text: 2 rows (train-4, train-5)",
                "  repeated (same text, same label): 2 rows (train-1, train-8)",
                "  conflicting labels: 1 text in 4 rows (train-0, train-1, train-2, …)",
                "  evaluated on: validation, 4 rows",
                "  in validation too: 2 of its 4 rows",
            ]
        );
        assert_eq!(found.repeated_texts, 5);
    }

    #[test]
    fn clean_data_is_short() {
        let train = split("train", &[("a", Some(0)), ("b", Some(1)), ("c", Some(2))]);
        assert_eq!(lines(&inspect(&train, Some(&split("test", &[("d", Some(0))])))).len(), 5);
        let names =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let cased = same_but_for_case(&names(&["Positive", "negative", "positive"]));
        assert_eq!(cased, ["Positive", "positive"]);
        let mut found = inspect(&train, None);
        found.same_but_for_case = cased;
        assert_eq!(lines(&found)[4], "  labels that differ in case only: Positive, positive");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(lines(&inspect(&split("none", &[]), None))[0], "none: 0 rows, 3 classes");
    }
}
