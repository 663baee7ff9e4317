//! The JSON-lines file a set of predictions is: one row a line, `{"id", "label", "gold"?, "scores": {name: p}, "logits"?: [..]}`.
//!
//! Of a multi-label model `{"id", "labels": [..], "gold"?: [..], "scores", "logits"?}`, of a regression `{"id", "value", "gold"?}`.
//!
//! `label` and `gold` are names, never indices, so that files of models with different label orders can be compared.
//! Refuses numbers that aren't finite, repeated ids, and a label without a score.

use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::path::Path;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};
use crate::json_lines::for_each_line;

/// The rule of every prediction in the program: the class with the largest number, the first of equals; 0 of none.
pub fn first_largest<T: PartialOrd>(n: usize, of: impl Fn(usize) -> T) -> usize {
    (1..n).fold(0, |best, at| if of(at) > of(best) { at } else { best })
}

/// One prediction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredictionRow {
    pub id: String,
    /// The predicted label's name.
    pub label: String,
    /// The true label's name, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gold: Option<String>,
    /// Probability of each label, in label order (K,).
    #[serde(serialize_with = "write_scores", deserialize_with = "read_scores")]
    pub scores: Vec<(String, f32)>,
    /// In label order (K,).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logits: Option<Vec<f32>>,
}

/// One prediction of a multi-label model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetRow {
    pub id: String,
    /// Names of the labels that the model says hold.
    pub labels: Vec<String>,
    /// Names of those that do, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gold: Option<Vec<String>>,
    /// Probability of each label by itself, in label order (K,).
    #[serde(serialize_with = "write_scores", deserialize_with = "read_scores")]
    pub scores: Vec<(String, f32)>,
    /// In label order (K,).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logits: Option<Vec<f32>>,
}

/// One prediction of a regression.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValueRow {
    pub id: String,
    pub value: f32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gold: Option<f32>,
}

/// Writes one line of a multi-label model; its scores and logits are those of a [`PredictionRow`].
pub fn write_set_row(out: &mut dyn Write, row: &SetRow) -> Result<()> {
    check_finite(&row.id, &row.scores, row.logits.as_deref())?;
    write_line(out, row)
}

/// Writes one line of a regression.
pub fn write_value_row(out: &mut dyn Write, row: &ValueRow) -> Result<()> {
    match row.value.is_finite() {
        true => write_line(out, row),
        false => Err(Error::NotFinite {
            id: row.id.clone(),
            what: "the value",
            label: "LABEL_0".to_owned(),
            value: row.value,
        }),
    }
}

/// Writes one line. A number that isn't finite is an error: JSON has no word for it.
pub fn write_row(out: &mut dyn Write, row: &PredictionRow) -> Result<()> {
    check_finite(&row.id, &row.scores, row.logits.as_deref())?;
    write_line(out, row)
}

fn write_line(out: &mut dyn Write, row: &impl Serialize) -> Result<()> {
    serde_json::to_writer(&mut *out, row).map_err(|error| Error::Write { source: error.into() })?;
    out.write_all(b"\n").map_err(|source| Error::Write { source })
}

fn check_finite(id: &str, scores: &[(String, f32)], logits: Option<&[f32]>) -> Result<()> {
    let not_finite = |what: &'static str, label: &str, value: f32| Error::NotFinite {
        id: id.to_owned(),
        what,
        label: label.to_owned(),
        value,
    };
    for (at, (label, score)) in scores.iter().enumerate() {
        if !score.is_finite() {
            return Err(not_finite("the score", label, *score));
        }
        match logits.and_then(|logits| logits.get(at)) {
            Some(logit) if !logit.is_finite() => {
                return Err(not_finite("the logit", label, *logit));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Reads a whole prediction file; lines that hold only blanks are passed over.
///
/// # Errors
/// Those of every file of JSON lines ([`Error::EmptyFile`], [`Error::Utf16`], …); [`Error::BadPrediction`] and
/// [`Error::DuplicatePrediction`] with the line.
pub fn read_predictions(path: &Path) -> Result<Vec<PredictionRow>> {
    let (mut rows, mut seen) = (Vec::new(), HashMap::new());
    for_each_line(path, |line, text| {
        let bad = |reason: String| Error::BadPrediction { path: path.to_owned(), line, reason };
        let row: PredictionRow =
            serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
        check(&row).map_err(bad)?;
        if let Some(first) = seen.insert(row.id.clone(), line) {
            let (path, id, second) = (path.to_owned(), row.id, line);
            return Err(Error::DuplicatePrediction { path, id, first, second });
        }
        rows.push(row);
        Ok(())
    })?;
    Ok(rows)
}

fn check(row: &PredictionRow) -> std::result::Result<(), String> {
    if !row.scores.iter().any(|(name, _)| *name == row.label) {
        return Err(format!("label {:?} has no score", row.label));
    }
    match &row.logits {
        Some(logits) if logits.len() != row.scores.len() => {
            Err(format!("{} logits for {} scores", logits.len(), row.scores.len()))
        }
        _ => Ok(()),
    }
}

fn write_scores<S: Serializer>(
    scores: &[(String, f32)],
    out: S,
) -> std::result::Result<S::Ok, S::Error> {
    out.collect_map(scores.iter().map(|(name, score)| (name, score)))
}

fn read_scores<'de, D: Deserializer<'de>>(
    from: D,
) -> std::result::Result<Vec<(String, f32)>, D::Error> {
    struct Scores;
    impl<'de> Visitor<'de> for Scores {
        type Value = Vec<(String, f32)>;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("an object of label names and scores")
        }

        fn visit_map<M: MapAccess<'de>>(
            self,
            mut map: M,
        ) -> std::result::Result<Self::Value, M::Error> {
            let mut scores: Vec<(String, f32)> = Vec::new();
            while let Some((name, score)) = map.next_entry::<String, f32>()? {
                if scores.iter().any(|(known, _)| *known == name) {
                    return Err(serde::de::Error::custom(format!("label {name:?} has two scores")));
                }
                scores.push((name, score));
            }
            Ok(scores)
        }
    }
    from.deserialize_map(Scores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equals_the_first_is_predicted() {
        let of = |x: &[f64]| first_largest(x.len(), |at| x[at]);
        assert_eq!((of(&[1.0, 3.0, 3.0]), of(&[]), of(&[-1.0, -2.0])), (1, 0, 0));
    }

    fn row(id: &str) -> PredictionRow {
        PredictionRow {
            id: id.to_owned(),
            label: "pos".to_owned(),
            gold: Some("neg".to_owned()),
            scores: vec![("pos".to_owned(), 0.75), ("neg".to_owned(), 0.25)],
            logits: Some(vec![1.5, 0.1]),
        }
    }

    #[test]
    fn a_row_comes_back_in_its_label_order() {
        let mut out = Vec::new();
        let bare = PredictionRow { gold: None, logits: None, ..row("ü\n2") };
        for row in [&row("1"), &bare] {
            write_row(&mut out, row).unwrap();
        }
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text.lines().next().unwrap(),
            r#"{"id":"1","label":"pos","gold":"neg","scores":{"pos":0.75,"neg":0.25},"logits":[1.5,0.1]}"#
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.jsonl");
        std::fs::write(&path, text).unwrap();
        assert_eq!(read_predictions(&path).unwrap(), [row("1"), bare.clone()]);
        let marked = [b"\xef\xbb\xbf", &std::fs::read(&path).unwrap()[..]].concat();
        std::fs::write(&path, marked).unwrap();
        assert_eq!(read_predictions(&path).unwrap(), [row("1"), bare]);
        std::fs::write(&path, b"\xff\xfe{\0").unwrap();
        let message = read_predictions(&path).unwrap_err().to_string();
        assert!(
            message
                .ends_with(": utf-16 text (save it as utf-8; spreadsheets call it \"csv utf-8\")")
        );
    }

    #[test]
    fn bad_lines_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.jsonl");
        let check = |text: &str, message: &str| {
            std::fs::write(&path, text).unwrap();
            let got = read_predictions(&path).unwrap_err().to_string();
            assert_eq!(got, format!("{}:{message}", path.display()));
        };
        let good = r#"{"id":"1","label":"a","scores":{"a":1}}"#;
        check(&format!("{good}\n\n{good}\n"), r#"3: id "1" is there twice, first in line 1"#);
        check(
            r#"{"id":"1","label":"b","scores":{"a":1}}"#,
            r#"1: isn't a prediction (label "b" has no score)"#,
        );
        check(
            r#"{"id":"1","label":"a","scores":{"a":1,"a":1}}"#,
            r#"1: isn't a prediction (label "a" has two scores at line 1 column 44)"#,
        );
        check(
            r#"{"id":"1","label":"a","scores":{"a":1},"logits":[]}"#,
            "1: isn't a prediction (0 logits for 1 scores)",
        );
        check(
            &format!("{good}\n{}", r#"{"id":"2","label":"a","scores":{"a":1},"logits":[1e39]}"#),
            "2: isn't a prediction (number out of range at line 1 column 53)",
        );
        check("{\"id\":\n", "1: isn't a prediction (EOF while parsing a value at line 1 column 6)");
    }

    #[test]
    fn not_a_number_is_not_written() {
        let mut bad = row("7");
        bad.logits = Some(vec![1.0, f32::NAN]);
        let message = write_row(&mut Vec::new(), &bad).unwrap_err().to_string();
        assert_eq!(
            message,
            r#"prediction "7": the logit of label "neg" is NaN, not a finite number"#
        );
    }
}
