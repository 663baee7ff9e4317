//! Answers that aren't one class a row: sets of labels, and numbers.
//!
//! A set is a class of its own: it changed if any label did, and it is right if all are. So whatever counts classes counts sets.
//! Two numbers are the same answer if they are no further apart than the tolerance; that isn't transitive, so a row's flip is
//! judged by itself (`Judged`). A negative flip was within the tolerance of the truth and isn't any more.

use std::collections::{BTreeSet, HashMap};

use lowchurn_data::{LabelCounts, correlation};
use serde::{Deserialize, Serialize};

use crate::predicted::length;
use crate::{Error, Flips, Pair, Predicted, Rate, Result};

/// What stands behind the classes of one model.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Answers {
    #[default]
    Classes,
    /// `Predicted::labels` are sets: of each the places of its members among these names (K), ascending.
    Sets { names: Vec<String>, members: Vec<Vec<u32>> },
    /// (N,) each. Further apart than the tolerance is another answer.
    Values { predicted: Vec<f32>, gold: Vec<Option<f32>>, tolerance: f64 },
}

/// What stands behind the classes of a pair.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum PairAnswers {
    #[default]
    Classes,
    /// As [`Answers::Sets`], of `Pair::labels`.
    Sets {
        names: Vec<String>,
        members: Vec<Vec<u32>>,
    },
    Values {
        old: Vec<f32>,
        new: Vec<f32>,
        gold: Vec<Option<f32>>,
        tolerance: f64,
    },
}

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    pub is_changed: bool,
    /// Whether the old and the new answer are right, where the truth is known.
    pub is_right: Option<(bool, bool)>,
}

impl Judged {
    /// Whether a reader wants to see it: the answer or its being right changed.
    pub fn is_flip(self) -> bool {
        self.is_changed || self.is_right.is_some_and(|(old, new)| old != new)
    }
}

impl Answers {
    pub fn kind(&self) -> &'static str {
        match self {
            Answers::Classes => "one class",
            Answers::Sets { .. } => "a set of labels",
            Answers::Values { .. } => "a number",
        }
    }
}

impl Predicted {
    /// Sets of labels, as places among `names` (K), ascending and each once. `gold` and `predicted` have N entries.
    ///
    /// # Errors
    /// Where the lists differ in length, or a place is outside the names.
    pub fn from_sets(
        name: &str,
        names: &[String],
        ids: Vec<String>,
        gold: Vec<Option<Vec<u32>>>,
        predicted: Vec<Vec<u32>>,
    ) -> Result<Predicted> {
        length("sets of true labels", gold.len(), ids.len())?;
        length("sets of labels", predicted.len(), ids.len())?;
        let all = predicted.iter().chain(gold.iter().flatten());
        if let Some(class) = all.clone().flatten().find(|label| **label as usize >= names.len()) {
            let (name, class, classes) = (name.to_owned(), *class, names.len());
            return Err(Error::ClassOutside { name, class, classes });
        }
        let members: Vec<Vec<u32>> =
            all.cloned().collect::<BTreeSet<Vec<u32>>>().into_iter().collect();
        let place: HashMap<&[u32], u32> =
            members.iter().enumerate().map(|(at, set)| (&set[..], at as u32)).collect();
        let at = |set: &Vec<u32>| place.get(&set[..]).copied().unwrap_or_default();
        let (predicted, gold) = (
            predicted.iter().map(at).collect(),
            gold.iter().map(|set| set.as_ref().map(at)).collect(),
        );
        let labels = members.iter().map(|set| set_name(names, set)).collect();
        let answers = Answers::Sets { names: names.to_vec(), members };
        Ok(Predicted {
            name: name.to_owned(),
            labels,
            ids,
            predicted,
            gold,
            answers,
            ..Predicted::default()
        })
    }

    /// Numbers. `gold` and `predicted` have N entries.
    ///
    /// # Errors
    /// Where the lists differ in length, a number isn't finite, or the tolerance is no number of at least 0.
    pub fn from_values(
        name: &str,
        ids: Vec<String>,
        gold: Vec<Option<f32>>,
        predicted: Vec<f32>,
        tolerance: f64,
    ) -> Result<Predicted> {
        length("true numbers", gold.len(), ids.len())?;
        length("numbers", predicted.len(), ids.len())?;
        check_tolerance(tolerance)?;
        let all = predicted.iter().map(|value| Some(*value)).zip(&ids);
        let bad = all.chain(gold.iter().copied().zip(&ids));
        if let Some((Some(value), id)) =
            bad.into_iter().find(|(value, _)| value.is_some_and(|value| !value.is_finite()))
        {
            return Err(Error::NotANumber { name: name.to_owned(), id: id.clone(), value });
        }
        Ok(Predicted {
            name: name.to_owned(),
            labels: vec![VALUE.to_owned()],
            predicted: vec![0; ids.len()],
            ids,
            gold: gold.iter().map(|value| value.map(|_| 0)).collect(),
            answers: Answers::Values { predicted, gold, tolerance },
            ..Predicted::default()
        })
    }

    /// The true sets, by the names of their labels, where the side has none of its own; a label that only the other side has becomes one
    /// that this side never says. Of another kind of answers: as it is.
    ///
    /// # Errors
    /// Where neither side has a label.
    pub fn with_gold_sets(
        self,
        gold: &[Option<Vec<String>>],
        other: &Answers,
    ) -> Result<Predicted> {
        let Answers::Sets { names, members } = &self.answers else { return Ok(self) };
        let others = if let Answers::Sets { names, .. } = other { &names[..] } else { &[] };
        let is_needed = |label: &&String| {
            !names.contains(label) && gold.iter().flatten().flatten().any(|found| found == *label)
        };
        let names: Vec<String> =
            names.iter().chain(others.iter().filter(is_needed)).cloned().collect();
        let place = |label: &String| {
            let at = names.iter().position(|name| name == label);
            at.map(|at| at as u32).ok_or_else(|| Error::LabelUnknown {
                name: self.name.clone(),
                label: label.clone(),
                known: names.clone(),
            })
        };
        let given = |set: &Vec<String>| -> Result<Vec<u32>> {
            let mut set = set.iter().map(place).collect::<Result<Vec<u32>>>()?;
            set.sort_unstable();
            set.dedup();
            Ok(set)
        };
        let own =
            |class: &Option<u32>| class.and_then(|class| members.get(class as usize).cloned());
        let joined = self.gold.iter().zip(gold).map(|(class, set)| match own(class) {
            Some(own) => Ok(Some(own)),
            None => set.as_ref().map(given).transpose(),
        });
        let gold = joined.collect::<Result<Vec<_>>>()?;
        let predicted = self.predicted.iter().map(|class| members[*class as usize].clone());
        let made =
            Predicted::from_sets(&self.name, &names, self.ids.clone(), gold, predicted.collect())?;
        Ok(Predicted { notes: self.notes, ..made })
    }

    /// The true numbers, where the side has none of its own. Of another kind of answers: as it is.
    pub fn with_gold_values(mut self, given: &[Option<f32>]) -> Predicted {
        if let Answers::Values { gold, .. } = &mut self.answers {
            for (own, given) in gold.iter_mut().zip(given) {
                *own = own.or(*given);
            }
            self.gold = gold.iter().map(|value| value.map(|_| 0)).collect();
        }
        self
    }
}

const VALUE: &str = "value";

pub(crate) fn check_tolerance(tolerance: f64) -> Result<()> {
    match tolerance.is_finite() && tolerance >= 0.0 {
        true => Ok(()),
        false => Err(Error::Tolerance { tolerance }),
    }
}

/// As it stands in reports: `anger + joy`.
pub(crate) fn set_name(names: &[String], members: &[u32]) -> String {
    let named: Vec<&str> =
        members.iter().filter_map(|at| names.get(*at as usize).map(String::as_str)).collect();
    if named.is_empty() { "(no label)".to_owned() } else { named.join(" + ") }
}

impl Pair {
    /// What became of a row. Two numbers count as the same up to the tolerance, also a truth and an answer.
    pub fn judged(&self, row: usize) -> Judged {
        if let PairAnswers::Values { old, new, gold, tolerance } = &self.answers {
            // f32 numbers that are apart by the tolerance in decimals may be so by a hair more in binary.
            let slack = tolerance * (1.0 + 1e-6);
            let is_same = |a: f32, b: f32| (f64::from(a) - f64::from(b)).abs() <= slack;
            let (old, new) = (old[row], new[row]);
            let is_right = gold[row].map(|gold| (is_same(old, gold), is_same(new, gold)));
            return Judged { is_changed: !is_same(old, new), is_right };
        }
        let (old, new) = (self.old[row], self.new[row]);
        Judged {
            is_changed: old != new,
            is_right: self.gold[row].map(|gold| (old == gold, new == gold)),
        }
    }

    /// The counts of all rows.
    pub fn flips(&self) -> Flips {
        self.flips_of(0..self.rows())
    }

    /// The counts of some rows.
    pub fn flips_of(&self, rows: impl Iterator<Item = usize>) -> Flips {
        let mut flips = Flips::default();
        rows.for_each(|row| flips.count(self.judged(row)));
        flips
    }

    /// Old and new answers as classes: equal where the answer is the same.
    pub fn answers_as_classes(&self) -> (Vec<u32>, Vec<u32>) {
        match self.answers {
            PairAnswers::Classes | PairAnswers::Sets { .. } => (self.old.clone(), self.new.clone()),
            PairAnswers::Values { .. } => {
                let new = (0..self.rows()).map(|row| u32::from(self.judged(row).is_changed));
                (vec![0; self.rows()], new.collect())
            }
        }
    }

    /// Old answer, new answer and truth of a row, for people.
    pub fn said(&self, row: usize) -> (String, String, Option<String>) {
        if let PairAnswers::Values { old, new, gold, .. } = &self.answers {
            let shown = |value: f32| format!("{value:.4}");
            return (shown(old[row]), shown(new[row]), gold[row].map(shown));
        }
        let name = |class: u32| self.labels[class as usize].clone();
        (name(self.old[row]), name(self.new[row]), self.gold[row].map(name))
    }
}

/// What is said of answers that aren't one class a row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum OfAnswers {
    #[default]
    Classes,
    /// Right is the whole set. F1 as scikit-learn has it, 0 for a label that never occurs.
    Sets {
        micro_f1_old: Option<f64>,
        micro_f1_new: Option<f64>,
        macro_f1_old: Option<f64>,
        macro_f1_new: Option<f64>,
        labels: Vec<OfLabel>,
    },
    /// Right is within the tolerance of the truth.
    Values {
        tolerance: f64,
        pearson_old: Option<f64>,
        pearson_new: Option<f64>,
        spearman_old: Option<f64>,
        spearman_new: Option<f64>,
        squared_error_old: Option<f64>,
        squared_error_new: Option<f64>,
    },
}

/// One label by itself, over all rows: whether it is said to hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OfLabel {
    pub label: String,
    pub flips: Flips,
    pub churn: Option<Rate>,
    pub nfr: Option<Rate>,
    pub f1_old: Option<f64>,
    pub f1_new: Option<f64>,
}

impl OfAnswers {
    pub fn is_classes(&self) -> bool {
        *self == OfAnswers::Classes
    }

    /// What `accuracy` is the share of.
    pub fn right(&self) -> String {
        match self {
            OfAnswers::Classes => "accuracy".to_owned(),
            OfAnswers::Sets { .. } => "whole set right".to_owned(),
            OfAnswers::Values { tolerance, .. } => format!("within {tolerance} of the truth"),
        }
    }

    /// Scores besides the share that is right: name, old, new.
    pub fn scores(&self) -> Vec<(&'static str, Option<f64>, Option<f64>)> {
        match *self {
            OfAnswers::Classes => Vec::new(),
            OfAnswers::Sets { micro_f1_old, micro_f1_new, macro_f1_old, macro_f1_new, .. } => vec![
                ("micro F1", micro_f1_old, micro_f1_new),
                ("macro F1", macro_f1_old, macro_f1_new),
            ],
            OfAnswers::Values {
                pearson_old,
                pearson_new,
                spearman_old,
                spearman_new,
                squared_error_old,
                squared_error_new,
                ..
            } => vec![
                ("Pearson", pearson_old, pearson_new),
                ("Spearman", spearman_old, spearman_new),
                ("mean squared error", squared_error_old, squared_error_new),
            ],
        }
    }

    pub(crate) fn of(pair: &Pair, confidence: f64) -> OfAnswers {
        match &pair.answers {
            PairAnswers::Classes => OfAnswers::Classes,
            PairAnswers::Sets { names, members } => of_sets(pair, names, members, confidence),
            PairAnswers::Values { old, new, gold, tolerance } => {
                let against = |said: &[f32]| {
                    let rows = said.iter().zip(gold);
                    let known = rows.filter_map(|(x, y)| Some((f64::from(*x), f64::from((*y)?))));
                    let (said, gold): (Vec<f64>, Vec<f64>) = known.unzip();
                    correlation(&said, &gold)
                };
                let (old, new) = (against(old), against(new));
                OfAnswers::Values {
                    tolerance: *tolerance,
                    pearson_old: old.and_then(|old| old.pearson),
                    pearson_new: new.and_then(|new| new.pearson),
                    spearman_old: old.and_then(|old| old.spearman),
                    spearman_new: new.and_then(|new| new.spearman),
                    squared_error_old: old.map(|old| old.squared_error),
                    squared_error_new: new.map(|new| new.squared_error),
                }
            }
        }
    }
}

fn of_sets(pair: &Pair, names: &[String], members: &[Vec<u32>], confidence: f64) -> OfAnswers {
    let counts = |said: &[u32]| {
        let mut counts = LabelCounts::new(names.len());
        for (said, gold) in said.iter().zip(&pair.gold) {
            if let Some(gold) = gold {
                counts.record(&members[*gold as usize], &members[*said as usize]);
            }
        }
        counts
    };
    let (old, new) = (counts(&pair.old), counts(&pair.new));
    let label = |(at, name): (usize, &String)| {
        let holds = |class: u32| u32::from(members[class as usize].contains(&(at as u32)));
        let mut flips = Flips::default();
        for row in 0..pair.rows() {
            flips.add(holds(pair.old[row]), holds(pair.new[row]), pair.gold[row].map(holds));
        }
        OfLabel {
            label: name.clone(),
            churn: Rate::new(flips.changed, flips.rows, confidence),
            nfr: Rate::new(flips.negative, flips.labelled, confidence),
            f1_old: (flips.labelled > 0).then(|| old.f1_of(at)),
            f1_new: (flips.labelled > 0).then(|| new.f1_of(at)),
            flips,
        }
    };
    OfAnswers::Sets {
        micro_f1_old: old.micro_f1(),
        micro_f1_new: new.micro_f1(),
        macro_f1_old: old.macro_f1(),
        macro_f1_new: new.macro_f1(),
        labels: names.iter().enumerate().map(label).collect(),
    }
}
