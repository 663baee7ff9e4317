//! What a person should know of the data before training on it: balance, empty and repeated texts, conflicts, leaks.
//!
//! Counts only; mends nothing. Texts are compared without the blanks at their ends.

use std::collections::HashMap;

use crate::example::{Example, LabelSet, Split};

/// Counts over one training split, and what it shares with an evaluation split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    pub split: String,
    pub rows: usize,
    /// (label name, rows), in label order.
    pub classes: Vec<(String, usize)>,
    pub unlabelled: usize,
    /// Rows whose text (for a pair: both texts) is empty or blank.
    pub empty_texts: usize,
    /// Rows that repeat the text and the label of an earlier row.
    pub duplicates: usize,
    /// Rows that repeat the text of an earlier row, whatever the label.
    pub repeated_texts: usize,
    /// Distinct texts that carry more than one label.
    pub conflicting_texts: usize,
    /// Rows that such texts have in all.
    pub conflicting_rows: usize,
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
    let mut labels_of: HashMap<(&str, &str), Vec<Option<u32>>> =
        HashMap::with_capacity(split.examples.len());
    for row in &split.examples {
        if let Some(label) = row.label {
            classes[label as usize].1 += 1;
        }
        labels_of.entry(key(row)).or_default().push(row.label);
    }
    let (mut duplicates, mut conflicting_texts, mut conflicting_rows) = (0, 0, 0);
    for labels in labels_of.values_mut().filter(|labels| labels.len() > 1) {
        let rows = labels.len();
        labels.sort_unstable();
        labels.dedup();
        duplicates += rows - labels.len();
        if labels.iter().flatten().count() > 1 {
            conflicting_texts += 1;
            conflicting_rows += rows;
        }
    }
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
        unlabelled: split.examples.iter().filter(|row| row.label.is_none()).count(),
        empty_texts: split.examples.iter().filter(|row| is_empty(row)).count(),
        duplicates,
        repeated_texts: split.examples.len() - labels_of.len(),
        conflicting_texts,
        conflicting_rows,
        classes,
        shared,
    }
}

fn key(row: &Example) -> (&str, &str) {
    (row.text.trim(), row.pair.as_deref().unwrap_or("").trim())
}

fn is_empty(row: &Example) -> bool {
    key(row) == ("", "")
}

const MOST_CLASSES: usize = 12;

/// Lines of text to print; what is as it should be is left out.
pub fn fmt(inspection: &Inspection) -> Vec<String> {
    let rows = |count: usize| {
        if count == 1 { "1 row".to_owned() } else { format!("{} rows", grouped(count)) }
    };
    let labelled = inspection.rows - inspection.unlabelled;
    let mut lines = vec![format!(
        "{}: {}, {} classes",
        inspection.split,
        rows(inspection.rows),
        inspection.classes.len()
    )];
    let share =
        |count: usize| if labelled == 0 { 0.0 } else { 100.0 * count as f64 / labelled as f64 };
    if inspection.classes.len() <= MOST_CLASSES {
        let width =
            inspection.classes.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (name, count) in &inspection.classes {
            lines.push(format!(
                "  {name:width$}  {:>9}  {:>5.1} %",
                grouped(*count),
                share(*count)
            ));
        }
    } else if let (Some(least), Some(most)) = (
        inspection.classes.iter().min_by_key(|(_, count)| *count),
        inspection.classes.iter().max_by_key(|(_, count)| *count),
    ) {
        lines.push(format!(
            "  from {} ({}) to {} ({})",
            rows(least.1),
            least.0,
            rows(most.1),
            most.0
        ));
    }
    let mut note = |count: usize, text: String| {
        if count > 0 {
            lines.push(text);
        }
    };
    let without: Vec<&str> = inspection
        .classes
        .iter()
        .filter(|(_, count)| *count == 0)
        .map(|(name, _)| name.as_str())
        .collect();
    note(without.len().min(labelled), format!("  without a row: {}", shortened(&without)));
    note(
        inspection.unlabelled,
        format!("  unlabelled: {}, left out of training", rows(inspection.unlabelled)),
    );
    note(inspection.empty_texts, format!("  empty text: {}", rows(inspection.empty_texts)));
    note(
        inspection.duplicates,
        format!("  repeated (same text, same label): {}", rows(inspection.duplicates)),
    );
    note(
        inspection.conflicting_texts,
        format!(
            "  conflicting labels: {} in {}",
            if inspection.conflicting_texts == 1 {
                "1 text".to_owned()
            } else {
                format!("{} texts", grouped(inspection.conflicting_texts))
            },
            rows(inspection.conflicting_rows)
        ),
    );
    if let Some(shared) = &inspection.shared {
        note(
            shared.rows,
            format!(
                "  in {} too: {} of its {}",
                shared.eval_split,
                grouped(shared.rows),
                rows(shared.eval_rows)
            ),
        );
    }
    lines
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

/// The set of labels that occur, for comparing a split with a model's head.
pub fn occurring(split: &Split) -> Vec<String> {
    let set: &LabelSet = &split.labels;
    let mut seen = vec![false; set.len()];
    split.examples.iter().filter_map(|row| row.label).for_each(|label| seen[label as usize] = true);
    set.names().iter().zip(seen).filter(|(_, seen)| *seen).map(|(name, _)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(name: &str, rows: &[(&str, Option<u32>)]) -> Split {
        let labels = LabelSet::new(["neg", "neutral", "pos"].map(str::to_owned).to_vec()).unwrap();
        let example = |(at, (text, label)): (usize, &(&str, Option<u32>))| Example {
            id: format!("{name}-{at}"),
            text: (*text).to_owned(),
            pair: None,
            label: *label,
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
            ],
        );
        let eval = split(
            "validation",
            &[("bad", Some(0)), ("new", Some(2)), ("", Some(0)), ("good", Some(2))],
        );
        let found = inspect(&train, Some(&eval));
        assert_eq!(
            fmt(&found),
            [
                "train: 8 rows, 3 classes",
                "  neg              4   66.7 %",
                "  neutral          0    0.0 %",
                "  pos              2   33.3 %",
                "  without a row: neutral",
                "  unlabelled: 2 rows, left out of training",
                "  empty text: 2 rows",
                "  repeated (same text, same label): 1 row",
                "  conflicting labels: 1 text in 3 rows",
                "  in validation too: 2 of its 4 rows",
            ]
        );
        assert_eq!(found.repeated_texts, 4);
        assert_eq!(occurring(&train), ["neg", "pos"]);
    }

    #[test]
    fn clean_data_is_short() {
        let train = split("train", &[("a", Some(0)), ("b", Some(1)), ("c", Some(2))]);
        assert_eq!(fmt(&inspect(&train, Some(&split("test", &[("d", Some(0))])))).len(), 4);
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(fmt(&inspect(&split("none", &[]), None))[0], "none: 0 rows, 3 classes");
    }
}
