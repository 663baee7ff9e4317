//! Counts of gold against predicted classes, and the numbers made from them.
//!
//! A metric is a function of counts, so that shards add up before anything is divided. Without data it is `None`, never
//! not-a-number. Those of sets of labels are in `label_counts`, those of numbers in `correlation`.

use std::ops::AddAssign;

use crate::error::{Error, Result, nearest};
use crate::kind::Kind;

/// What a task is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Right rows over rows.
    Accuracy,
    /// K = 2: 2·tp / (2·tp + fp + fn) of class 1, as in GLUE. K > 2: mean of the classes' own, over classes that occur in
    /// gold or predictions (scikit-learn's `macro`). A class never predicted rightly counts 0. Of multi-label tasks: over all
    /// labels together (`micro`).
    F1,
    /// Of multi-label tasks: the mean of all labels' own (scikit-learn's `macro`).
    MacroF1,
    /// Matthews correlation, for K classes (Gorodkin 2004): (c·s − Σ p·t) / √((s² − Σ p²)(s² − Σ t²)); 0 where one side is constant.
    Matthews,
    /// Of regressions: the correlation of predicted with true numbers, and that of their ranks.
    Pearson,
    Spearman,
}

const METRICS: [(&str, Metric); 6] = [
    ("accuracy", Metric::Accuracy),
    ("f1", Metric::F1),
    ("macro_f1", Metric::MacroF1),
    ("matthews", Metric::Matthews),
    ("pearson", Metric::Pearson),
    ("spearman", Metric::Spearman),
];

impl std::str::FromStr for Metric {
    type Err = Error;

    fn from_str(name: &str) -> Result<Metric> {
        METRICS.iter().find(|(known, _)| *known == name).map(|(_, metric)| *metric).ok_or_else(
            || Error::UnknownMetric {
                name: name.to_owned(),
                suggestion: nearest(name, METRICS.iter().map(|(known, _)| *known)),
            },
        )
    }
}

impl Metric {
    pub fn name(self) -> &'static str {
        match self {
            Metric::Accuracy => "accuracy",
            Metric::F1 => "f1",
            Metric::MacroF1 => "macro_f1",
            Metric::Matthews => "matthews",
            Metric::Pearson => "pearson",
            Metric::Spearman => "spearman",
        }
    }

    /// What a task of this kind is judged by where nothing else is said.
    pub fn default_of(kind: Kind) -> Metric {
        match kind {
            Kind::SingleLabel => Metric::Accuracy,
            Kind::MultiLabel => Metric::F1,
            Kind::Regression => Metric::Pearson,
        }
    }

    /// The metric itself, where tasks of this kind have it.
    pub fn check(self, kind: Kind) -> Result<Metric> {
        let (known, expected): (&[Metric], &str) = match kind {
            Kind::SingleLabel => {
                (&[Metric::Accuracy, Metric::F1, Metric::Matthews], "accuracy, f1 or matthews")
            }
            Kind::MultiLabel => {
                (&[Metric::F1, Metric::MacroF1, Metric::Accuracy], "f1, macro_f1 or accuracy")
            }
            Kind::Regression => (&[Metric::Pearson, Metric::Spearman], "pearson or spearman"),
        };
        match known.contains(&self) {
            true => Ok(self),
            false => Err(Error::MetricOfKind { metric: self.name(), kind: kind.name(), expected }),
        }
    }

    /// The metric of these counts; `None` without rows, and for what counts of one class a row don't say.
    pub fn of(self, counts: &Confusion) -> Option<f64> {
        let total = counts.total();
        if total == 0 {
            return None;
        }
        Some(match self {
            Metric::MacroF1 | Metric::Pearson | Metric::Spearman => return None,
            Metric::Accuracy => counts.correct() as f64 / total as f64,
            Metric::F1 if counts.classes == 2 => f1_of_class(counts, 1).unwrap_or(0.0),
            Metric::F1 => {
                let each: Vec<f64> =
                    (0..counts.classes).filter_map(|class| f1_of_class(counts, class)).collect();
                each.iter().sum::<f64>() / each.len() as f64
            }
            Metric::Matthews => matthews(counts),
        })
    }
}

/// K×K counts, row gold, column predicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    /// K.
    pub classes: usize,
    /// (K·K), row-major: `counts[gold · K + predicted]`.
    pub counts: Vec<u64>,
}

impl Confusion {
    pub fn new(classes: usize) -> Confusion {
        Confusion { classes, counts: vec![0; classes * classes] }
    }

    /// Counts one row. Panics on a class outside `0..K`: labels are checked where they are read.
    pub fn record(&mut self, gold: u32, predicted: u32) {
        let (gold, predicted) = (gold as usize, predicted as usize);
        assert!(gold < self.classes && predicted < self.classes, "class outside the label set");
        self.counts[gold * self.classes + predicted] += 1;
    }

    pub fn count(&self, gold: usize, predicted: usize) -> u64 {
        self.counts[gold * self.classes + predicted]
    }

    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub fn correct(&self) -> u64 {
        (0..self.classes).map(|class| self.count(class, class)).sum()
    }

    /// Rows whose gold class this is.
    pub fn gold_total(&self, class: usize) -> u64 {
        (0..self.classes).map(|predicted| self.count(class, predicted)).sum()
    }

    /// Rows predicted to be of this class.
    pub fn predicted_total(&self, class: usize) -> u64 {
        (0..self.classes).map(|gold| self.count(gold, class)).sum()
    }
}

impl AddAssign<&Confusion> for Confusion {
    /// Merges the counts of another shard. Panics on another K.
    fn add_assign(&mut self, other: &Confusion) {
        assert_eq!(self.classes, other.classes, "confusions of different label sets");
        self.counts.iter_mut().zip(&other.counts).for_each(|(own, more)| *own += more);
    }
}

impl std::ops::Add for Confusion {
    type Output = Confusion;

    fn add(mut self, other: Confusion) -> Confusion {
        self += &other;
        self
    }
}

// None where the class occurs neither in gold nor in predictions.
fn f1_of_class(counts: &Confusion, class: usize) -> Option<f64> {
    let both = counts.gold_total(class) + counts.predicted_total(class);
    (both > 0).then(|| 2.0 * counts.count(class, class) as f64 / both as f64)
}

fn matthews(counts: &Confusion) -> f64 {
    let total = counts.total() as f64;
    let (mut gold_square, mut predicted_square, mut cross) = (0.0, 0.0, 0.0);
    for class in 0..counts.classes {
        let (gold, predicted) =
            (counts.gold_total(class) as f64, counts.predicted_total(class) as f64);
        gold_square += gold * gold;
        predicted_square += predicted * predicted;
        cross += gold * predicted;
    }
    let below = ((total * total - predicted_square) * (total * total - gold_square)).sqrt();
    if below == 0.0 { 0.0 } else { (counts.correct() as f64 * total - cross) / below }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn confusion(classes: usize, counts: &[u64]) -> Confusion {
        Confusion { classes, counts: counts.to_vec() }
    }

    #[test]
    fn worked_values() {
        // Expected values by scikit-learn 1.x: accuracy_score, f1_score(average binary or macro), matthews_corrcoef.
        let check = |classes, counts: &[u64], accuracy: f64, f1: f64, matthews: f64| {
            let counts = confusion(classes, counts);
            for (metric, expected) in
                [(Metric::Accuracy, accuracy), (Metric::F1, f1), (Metric::Matthews, matthews)]
            {
                let got = metric.of(&counts).unwrap();
                assert!(
                    (got - expected).abs() < 1e-12,
                    "{}: {got} is not {expected}",
                    metric.name()
                );
            }
        };
        check(2, &[5, 1, 2, 4], 0.75, 8.0 / 11.0, 18.0 / 1260f64.sqrt());
        check(2, &[3, 0, 2, 0], 0.6, 0.0, 0.0);
        check(2, &[0, 0, 0, 4], 1.0, 1.0, 0.0);
        check(3, &[2, 0, 0, 0, 1, 1, 0, 1, 3], 0.75, (1.0 + 0.5 + 0.75) / 3.0, 0.6);
        check(3, &[2, 0, 0, 1, 1, 0, 0, 0, 0], 0.75, (0.8 + 2.0 / 3.0) / 2.0, 4.0 / 48f64.sqrt());
    }

    #[test]
    fn nothing_is_none() {
        for (_, metric) in METRICS {
            assert_eq!(metric.of(&Confusion::new(3)), None);
            assert_eq!(metric.name().parse::<Metric>().unwrap(), metric);
        }
        let message = |name: &str| name.parse::<Metric>().unwrap_err().to_string();
        assert_eq!(
            message("acuracy"),
            r#"unknown metric "acuracy" (expected accuracy, f1, macro_f1, matthews, pearson or spearman); did you mean "accuracy"?"#
        );
        assert_eq!(
            message("loss"),
            r#"unknown metric "loss" (expected accuracy, f1, macro_f1, matthews, pearson or spearman)"#
        );
    }

    proptest! {
        #[test]
        fn shards_add_up(rows in prop::collection::vec((0u32..4, 0u32..4), 0..200), cut in 0usize..200) {
            let count = |rows: &[(u32, u32)]| {
                let mut counts = Confusion::new(4);
                rows.iter().for_each(|(gold, predicted)| counts.record(*gold, *predicted));
                counts
            };
            let cut = cut.min(rows.len());
            let whole = count(&rows);
            prop_assert_eq!(count(&rows[..cut]) + count(&rows[cut..]), whole.clone());
            for (_, metric) in METRICS {
                let value = metric.of(&whole);
                let is_of_classes = metric.check(Kind::SingleLabel).is_ok();
                prop_assert_eq!(value.is_none(), rows.is_empty() || !is_of_classes);
                prop_assert!(value.is_none_or(|value| (-1.0 - 1e-9..=1.0 + 1e-9).contains(&value)));
            }
        }
    }
}
