//! The kinds of tasks, and what a row is trained to where that isn't one class.
//!
//! The names are those of `problem_type` in transformers' config.json, by which its models choose their loss.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, nearest};
use crate::example::Example;

/// What the outputs of a model say of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Kind {
    /// One class of K: cross-entropy.
    #[default]
    SingleLabel,
    /// Any of K labels, each by itself: binary cross-entropy.
    MultiLabel,
    /// One number: squared error.
    Regression,
}

/// As transformers calls it, as a manifest may call it, as people do.
const NAMES: [(Kind, &str, &str, &str); 3] = [
    (Kind::SingleLabel, "single_label_classification", "classification", "single-label"),
    (Kind::MultiLabel, "multi_label_classification", "multi_label", "multi-label"),
    (Kind::Regression, "regression", "regression", "regression"),
];

impl Kind {
    /// The name for config.json.
    pub fn problem_type(self) -> &'static str {
        match self {
            Kind::SingleLabel => NAMES[0].1,
            Kind::MultiLabel => NAMES[1].1,
            Kind::Regression => NAMES[2].1,
        }
    }

    /// The name for people.
    pub fn name(self) -> &'static str {
        match self {
            Kind::SingleLabel => NAMES[0].3,
            Kind::MultiLabel => NAMES[1].3,
            Kind::Regression => NAMES[2].3,
        }
    }

    /// Of these rows: the kind of the first target, single-label where no row has one.
    pub fn of(rows: &[Example]) -> Kind {
        match rows.iter().find_map(|row| row.target.as_ref()) {
            None => Kind::SingleLabel,
            Some(Target::Classes(_)) => Kind::MultiLabel,
            Some(Target::Value(_)) => Kind::Regression,
        }
    }
}

impl std::str::FromStr for Kind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Kind> {
        let is_it = |(_, one, other, _): &&(Kind, &str, &str, &str)| text == *one || text == *other;
        NAMES.iter().find(is_it).map(|(kind, ..)| *kind).ok_or_else(|| Error::UnknownKind {
            name: text.to_owned(),
            suggestion: nearest(text, NAMES.iter().flat_map(|(_, one, other, _)| [*one, *other])),
        })
    }
}

impl TryFrom<String> for Kind {
    type Error = Error;

    fn try_from(text: String) -> Result<Kind> {
        text.parse()
    }
}

impl From<Kind> for String {
    fn from(kind: Kind) -> String {
        kind.problem_type().to_owned()
    }
}

/// What a row of a multi-label or regression task is trained to.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// Indices of the labels that hold, ascending, each once; may be empty.
    Classes(Vec<u32>),
    Value(f32),
}

/// The targets of N rows; `None` where a row has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Targets {
    /// The labels beside them say it all.
    #[default]
    OneClass,
    Sets(Vec<Option<Vec<u32>>>),
    Values(Vec<Option<f32>>),
}

impl Targets {
    pub fn of(rows: &[Example]) -> Targets {
        match Kind::of(rows) {
            Kind::SingleLabel => Targets::OneClass,
            Kind::MultiLabel => Targets::Sets(rows.iter().map(Example::classes).collect()),
            Kind::Regression => Targets::Values(rows.iter().map(Example::value).collect()),
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Targets::OneClass => Kind::SingleLabel,
            Targets::Sets(_) => Kind::MultiLabel,
            Targets::Values(_) => Kind::Regression,
        }
    }

    /// Of sets of labels: ln(p/(1 − p)) for each of K labels, p = (n_k + ½)/(N + 1) with n_k of N rows having it, so that
    /// a label that none has, or every one, has a number too.
    pub fn log_odds(&self, labels: usize) -> Option<Vec<f64>> {
        let Targets::Sets(sets) = self else { return None };
        let (mut rows, mut counts) = (0f64, vec![0.5f64; labels]);
        for set in sets.iter().flatten() {
            rows += 1.0;
            for &label in set {
                if let Some(count) = counts.get_mut(label as usize) {
                    *count += 1.0;
                }
            }
        }
        Some(counts.iter().map(|count| (count / (rows + 1.0 - count)).ln()).collect())
    }

    /// Those of some rows, in their order; a row that isn't there has none.
    pub fn of_rows(&self, rows: &[u32]) -> Targets {
        match self {
            Targets::OneClass => Targets::OneClass,
            Targets::Sets(sets) => {
                let set = |row: &u32| sets.get(*row as usize).cloned().flatten();
                Targets::Sets(rows.iter().map(set).collect())
            }
            Targets::Values(values) => {
                let value = |row: &u32| values.get(*row as usize).copied().flatten();
                Targets::Values(rows.iter().map(value).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_called_as_transformers_does() {
        let check = |text: &str, expected: &str| {
            let got = text.parse::<Kind>().map(|kind| kind.problem_type().to_owned());
            assert_eq!(got.unwrap_or_else(|error| error.to_string()), expected);
        };
        check("single_label_classification", "single_label_classification");
        check("classification", "single_label_classification");
        check("multi_label", "multi_label_classification");
        check("regression", "regression");
        check(
            "multilabel",
            "unknown problem type \"multilabel\" (expected single_label_classification, multi_label_classification or \
             regression); did you mean \"multi_label\"?",
        );
        for (kind, ..) in NAMES {
            assert_eq!(kind.problem_type().parse::<Kind>().unwrap(), kind);
        }
    }

    #[test]
    fn targets_follow_the_rows() {
        let row = |label, target| Example {
            id: String::new(),
            text: String::new(),
            pair: None,
            label,
            target,
        };
        let sets = [row(None, None), row(Some(2), Some(Target::Classes(vec![2, 3])))];
        assert_eq!(Targets::of(&sets), Targets::Sets(vec![None, Some(vec![2, 3])]));
        let odds = Targets::of(&sets).log_odds(4).unwrap(); // p of ¼, ¼, ¾, ¾
        let expected = [-3f64.ln(), -3f64.ln(), 3f64.ln(), 3f64.ln()];
        assert!(
            odds.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-12)
        );
        let picked = Targets::of(&sets).of_rows(&[1, 1, 9]);
        assert_eq!(picked, Targets::Sets(vec![Some(vec![2, 3]), Some(vec![2, 3]), None]));
        let values = [row(Some(0), Some(Target::Value(0.5))), row(None, None)];
        assert_eq!(Targets::of(&values), Targets::Values(vec![Some(0.5), None]));
        assert_eq!(Targets::of(&values).log_odds(1), None);
        assert_eq!(Targets::of(&[row(Some(1), None)]), Targets::OneClass);
    }
}
