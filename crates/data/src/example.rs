//! A row of text with its id and label, the ordered label set, and a split of such rows with its fingerprint.
//!
//! Refuses label sets with empty or repeated names. Knows nothing of files.

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::kind::Target;

/// One row: a text, or a pair of texts, with a label index into the split's label set.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Unique in its split and stable across reruns; `read` documents the rule.
    pub id: String,
    pub text: String,
    /// The second text of a pair task.
    pub pair: Option<String>,
    /// The class; `None`: unlabelled. A row with a `target` has its first label here, 0 for an empty set or a value: who asks
    /// whether a row is labelled, or cuts by class, needs no kind.
    pub label: Option<u32>,
    /// What a multi-label or regression row is trained to.
    pub target: Option<Target>,
}

impl Example {
    /// The labels that hold, where the row has such a set.
    pub fn classes(&self) -> Option<Vec<u32>> {
        match &self.target {
            Some(Target::Classes(classes)) => Some(classes.clone()),
            _ => None,
        }
    }

    /// The number, where the row has one.
    pub fn value(&self) -> Option<f32> {
        match self.target {
            Some(Target::Value(value)) => Some(value),
            _ => None,
        }
    }

    /// Gives each class the index that `to` says. A class that has none is left out of a set, and unlabels a row that has but
    /// one class.
    pub fn with_classes(&mut self, to: impl Fn(u32) -> Option<u32>) {
        match &mut self.target {
            Some(Target::Value(_)) => {}
            Some(Target::Classes(classes)) => {
                let mut moved: Vec<u32> = classes.iter().filter_map(|class| to(*class)).collect();
                moved.sort_unstable();
                moved.dedup();
                self.label = Some(moved.first().copied().unwrap_or(0));
                *classes = moved;
            }
            None => self.label = self.label.and_then(to),
        }
    }
}

/// Ordered class names. The index of a name is the class index of the model's head, so order is part of the identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelSet(Vec<String>);

impl LabelSet {
    /// Checks that there are at least two names, none empty, none twice.
    pub fn new(names: Vec<String>) -> Result<LabelSet> {
        if names.len() < 2 {
            return Err(Error::TooFewLabels { names });
        }
        if let Some(index) = names.iter().position(|name| name.trim().is_empty()) {
            return Err(Error::EmptyLabelName { index });
        }
        for (second, name) in names.iter().enumerate() {
            if let Some(first) = names[..second].iter().position(|earlier| earlier == name) {
                return Err(Error::DuplicateLabelName { name: name.clone(), first, second });
            }
        }
        Ok(LabelSet(names))
    }

    /// The outputs of a model, of which a regression has one.
    pub fn of_outputs(names: Vec<String>) -> Result<LabelSet> {
        match names.as_slice() {
            [only] if !only.trim().is_empty() => Ok(LabelSet(names)),
            _ => LabelSet::new(names),
        }
    }

    /// The one output of a regression, as transformers names it.
    pub fn value() -> LabelSet {
        LabelSet(vec!["LABEL_0".to_owned()])
    }

    /// The names in class order.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    #[allow(clippy::len_without_is_empty, reason = "a label set has at least one name")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The class index of a name; exact match, no change of case.
    pub fn index_of(&self, name: &str) -> Option<u32> {
        self.0.iter().position(|known| known == name).map(|index| index as u32)
    }
}

/// Rows of one split with the label set they index.
#[derive(Clone, Debug)]
pub struct Split {
    pub name: String,
    pub examples: Vec<Example>,
    pub labels: LabelSet,
    /// Lower-case hex over ids, texts, labels and label names; not over the name of the split.
    pub sha256: String,
}

impl Split {
    /// Bundles rows and label set and takes their fingerprint.
    pub fn new(name: &str, examples: Vec<Example>, labels: LabelSet) -> Split {
        let sha256 = fingerprint(&examples, &labels);
        Split { name: name.to_owned(), examples, labels, sha256 }
    }
}

/// The rows that have a label, in order: what training may see.
pub fn labelled(split: Split) -> Split {
    let rows = split.examples.into_iter().filter(|row| row.label.is_some()).collect();
    Split::new(&split.name, rows, split.labels)
}

// Each field carries its length, so that no two different splits feed the same bytes.
fn fingerprint(examples: &[Example], labels: &LabelSet) -> String {
    let mut hash = Sha256::new();
    let mut field = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    field(&(labels.len() as u64).to_le_bytes());
    labels.names().iter().for_each(|name| field(name.as_bytes()));
    for row in examples {
        field(row.id.as_bytes());
        field(row.text.as_bytes());
        match &row.pair {
            Some(pair) => field(pair.as_bytes()),
            None => field(&[]),
        }
        field(&[u8::from(row.pair.is_some())]);
        field(&row.label.map_or(-1, i64::from).to_le_bytes());
        // Rows of one class feed what they fed before there were other kinds.
        match &row.target {
            None => {}
            Some(Target::Value(value)) => {
                field(b"value");
                field(&value.to_le_bytes());
            }
            Some(Target::Classes(classes)) => {
                field(b"classes");
                field(&classes.iter().flat_map(|class| class.to_le_bytes()).collect::<Vec<u8>>());
            }
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn label_sets_are_checked() {
        let check = |given: &[&str], message: &str| {
            assert_eq!(LabelSet::new(names(given)).unwrap_err().to_string(), message);
        };
        check(&[], "a label set needs at least two names, got none");
        check(&["spam"], "a label set needs at least two names, got spam");
        check(&["spam", " "], "label 1 has an empty name");
        check(&["a", "b", "a"], r#"label name "a" is there twice, at 0 and 2"#);
        let set = LabelSet::new(names(&["no", "yes"])).unwrap();
        assert_eq!((set.index_of("yes"), set.index_of("Yes"), set.len()), (Some(1), None, 2));
    }

    #[test]
    fn the_fingerprint_sees_every_field() {
        let labels = LabelSet::new(names(&["a", "b"])).unwrap();
        let row = |id: &str, text: &str, pair: Option<&str>, label| Example {
            id: id.to_owned(),
            text: text.to_owned(),
            pair: pair.map(str::to_owned),
            label,
            target: None,
        };
        let of = |row| Split::new("train", vec![row], labels.clone()).sha256;
        let base = of(row("1", "x", None, Some(0)));
        assert_eq!(base.len(), 64);
        assert_eq!(base, of(row("1", "x", None, Some(0))));
        for other in [
            row("2", "x", None, Some(0)),
            row("1", "y", None, Some(0)),
            row("1", "x", Some(""), Some(0)),
            row("1", "x", None, Some(1)),
            row("1", "x", None, None),
            row("1x", "", None, Some(0)),
        ] {
            assert_ne!(base, of(other));
        }
        let with = |target| of(Example { target: Some(target), ..row("1", "x", None, Some(0)) });
        let all = [
            base.clone(),
            with(Target::Value(0.0)),
            with(Target::Value(1.0)),
            with(Target::Classes(vec![])),
            with(Target::Classes(vec![0])),
            with(Target::Classes(vec![0, 1])),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one), "{at}");
        }
    }
}
