//! Which columns are text, second text, label and id: as named, else guessed by the names that data sets use.
//!
//! A guess is made only where it is the only one; else the error lists the columns there are.

use std::path::Path;

use crate::error::{Error, Result};
use crate::features::{Feature, FeatureKind};
use crate::table::{Wanted, missing};

/// Columns by role. As a wish, `None` is "guess"; as a choice, "there is none".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    pub text: Option<String>,
    pub pair: Option<String>,
    /// `none` where labels may be absent: no label is read.
    pub label: Option<String>,
    /// Never guessed: a column called `id` isn't always one.
    pub id: Option<String>,
}

/// What the caller does with labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels {
    /// Training and evaluation: without a label column nothing can go on.
    Required,
    /// Prediction: a label is read as the gold label if there is a column for it; a column that is named must be there.
    IfPresent,
    /// As `IfPresent`, but the column named may be absent too: a manifest's column, which its unlabelled splits lack.
    IfColumnPresent,
    /// No label column is looked at.
    Ignored,
}

/// Pairs of names that go together, then single names, best first.
const PAIRS: [(&str, &str); 6] = [
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text1", "text2"),
    ("text_a", "text_b"),
];
const TEXTS: [&str; 9] = [
    "text",
    "sentence",
    "content",
    "review",
    "tweet",
    "question",
    "sentence1",
    "message",
    "premise",
];
const LABELS: [&str; 6] = ["label", "labels", "class", "target", "intent", "category"];

/// The columns to read from a file with these columns and features.
pub fn choose(
    path: &Path,
    columns: &[String],
    features: &[Feature],
    wish: &Columns,
    labels: Labels,
) -> Result<Columns> {
    let there = |role: &'static str, column: &Option<String>| match column {
        Some(column) if !columns.contains(column) => {
            Err(missing(path, columns, &Wanted { role, column }))
        }
        _ => Ok(column.clone()),
    };
    let (text, pair) = match (there("text", &wish.text)?, there("second text", &wish.pair)?) {
        (Some(text), pair) => (text, pair),
        (None, pair) => {
            let unclear = || Error::UnclearColumn {
                path: path.to_owned(),
                role: "text",
                columns: columns.to_vec(),
            };
            let (text, guessed) = guess_text(columns, features).ok_or_else(unclear)?;
            (text, pair.or(guessed))
        }
    };
    let optional = matches!(labels, Labels::IfPresent | Labels::IfColumnPresent);
    let label = match (labels, there("label", &wish.label)) {
        (Labels::Ignored, _) => None,
        _ if optional && wish.label.as_deref() == Some("none") => None,
        (Labels::IfColumnPresent, Err(_)) => None,
        (_, Err(error)) => return Err(error),
        (_, Ok(Some(label))) => Some(label),
        (_, Ok(None)) if optional => guess_label(columns, features, &text),
        (_, Ok(None)) => Some(guess_label(columns, features, &text).ok_or_else(|| {
            Error::UnclearColumn { path: path.to_owned(), role: "label", columns: columns.to_vec() }
        })?),
    };
    Ok(Columns { text: Some(text), pair, label, id: there("id", &wish.id)? })
}

fn guess_text(columns: &[String], features: &[Feature]) -> Option<(String, Option<String>)> {
    let find = |name: &str| columns.iter().find(|column| column.to_lowercase() == name).cloned();
    for (first, second) in PAIRS {
        if let (Some(first), Some(second)) = (find(first), find(second)) {
            return Some((first, Some(second)));
        }
    }
    let by_name = TEXTS.iter().find_map(|name| find(name));
    let by_kind = || only(columns, features, |kind| *kind == FeatureKind::Text);
    by_name.or_else(by_kind).map(|text| (text, None))
}

fn guess_label(columns: &[String], features: &[Feature], text: &str) -> Option<String> {
    let find = |name: &&str| {
        columns.iter().find(|column| column.to_lowercase() == **name && *column != text).cloned()
    };
    let is_class =
        |kind: &FeatureKind| matches!(kind, FeatureKind::Classes(_) | FeatureKind::ClassList(_));
    LABELS.iter().find_map(find).or_else(|| only(columns, features, is_class))
}

// The one column of this kind, if there is one and only one.
fn only(
    columns: &[String],
    features: &[Feature],
    is_kind: impl Fn(&FeatureKind) -> bool,
) -> Option<String> {
    let mut found =
        features.iter().filter(|feature| is_kind(&feature.kind) && columns.contains(&feature.name));
    match (found.next(), found.next()) {
        (Some(feature), None) => Some(feature.name.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(
        columns: &[&str],
        features: &[(&str, FeatureKind)],
        wish: Columns,
        labels: Labels,
    ) -> String {
        let columns: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
        let features: Vec<Feature> = features
            .iter()
            .map(|(name, kind)| Feature { name: (*name).to_owned(), kind: kind.clone() })
            .collect();
        match choose(Path::new("x.csv"), &columns, &features, &wish, labels) {
            Ok(found) => [found.text, found.pair, found.label, found.id]
                .map(|column| column.unwrap_or_else(|| "-".to_owned()))
                .join(" "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn guesses() {
        let check = |columns: &[&str], labels: Labels, expected: &str| {
            assert_eq!(choice(columns, &[], Columns::default(), labels), expected);
        };
        check(&["idx", "sentence", "label"], Labels::Required, "sentence - label -");
        check(
            &["sentence1", "sentence2", "label"],
            Labels::Required,
            "sentence1 sentence2 label -",
        );
        check(&["question", "sentence", "label"], Labels::Required, "question sentence label -");
        check(&["Text", "Class"], Labels::Required, "Text - Class -");
        check(
            &["premise", "hypothesis", "target"],
            Labels::Required,
            "premise hypothesis target -",
        );
        check(&["text", "other"], Labels::IfPresent, "text - - -");
        check(&["text", "label"], Labels::Ignored, "text - - -");
        check(
            &["text", "sentiment", "id"],
            Labels::Required,
            "x.csv: can't tell which column is the label, name it (columns: text, sentiment, id)",
        );
        check(
            &["I love it", "positive"],
            Labels::Required,
            "x.csv: can't tell which column is the text, name it (columns: I love it, positive)",
        );
    }

    #[test]
    fn features_help_where_names_do_not() {
        let classes = || FeatureKind::Classes(vec!["a".to_owned(), "b".to_owned()]);
        let check = |features: &[(&str, FeatureKind)], expected: &str| {
            let columns: Vec<&str> = features.iter().map(|(name, _)| *name).collect();
            assert_eq!(choice(&columns, features, Columns::default(), Labels::Required), expected);
        };
        check(&[("sms", FeatureKind::Text), ("kind", classes())], "sms - kind -");
        check(
            &[("text", FeatureKind::Text), ("coarse_label", classes()), ("fine_label", classes())],
            "x.csv: can't tell which column is the label, name it (columns: text, coarse_label, fine_label)",
        );
    }

    #[test]
    fn named_columns_must_be_there() {
        let wish = |text: &str, label: &str, id: Option<&str>| Columns {
            text: Some(text.to_owned()),
            pair: None,
            label: Some(label.to_owned()),
            id: id.map(str::to_owned),
        };
        let check = |wish: Columns, labels: Labels, expected: &str| {
            assert_eq!(choice(&["sms", "spam", "key"], &[], wish, labels), expected);
        };
        check(wish("sms", "spam", Some("key")), Labels::Required, "sms - spam key");
        check(
            wish("sms", "lable", None),
            Labels::Required,
            r#"x.csv: no label column "lable" (columns: sms, spam, key)"#,
        );
        let absent = r#"x.csv: no label column "lable" (columns: sms, spam, key)"#;
        check(wish("sms", "lable", None), Labels::IfPresent, absent);
        check(wish("sms", "lable", None), Labels::IfColumnPresent, "sms - - -");
        check(wish("sms", "spam", None), Labels::IfColumnPresent, "sms - spam -");
        check(wish("sms", "lable", None), Labels::Ignored, "sms - - -");
        check(wish("sms", "none", None), Labels::IfPresent, "sms - - -");
        check(wish("sms", "none", None), Labels::IfColumnPresent, "sms - - -");
        check(
            wish("sms", "none", None),
            Labels::Required,
            r#"x.csv: no label column "none" (columns: sms, spam, key)"#,
        );
        check(
            wish("smss", "spam", None),
            Labels::Required,
            r#"x.csv: no text column "smss" (columns: sms, spam, key); did you mean "sms"?"#,
        );
        check(
            wish("sms", "spam", Some("idx")),
            Labels::Required,
            r#"x.csv: no id column "idx" (columns: sms, spam, key)"#,
        );
    }
}
