//! Counts of true against predicted sets of labels, and the numbers made from them. Counts of shards add up.

use std::ops::AddAssign;

/// Sums over rows, for each of K labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelCounts {
    pub rows: u64,
    /// Rows whose predicted set is the true one.
    pub exact: u64,
    /// (K,) Rows that have the label and are said to.
    pub hits: Vec<u64>,
    /// (K,) Rows that have the label.
    pub gold: Vec<u64>,
    /// (K,) Rows that are said to have it.
    pub predicted: Vec<u64>,
}

impl LabelCounts {
    /// Nothing yet, of K labels.
    pub fn new(labels: usize) -> LabelCounts {
        let zeros = || vec![0; labels];
        LabelCounts { rows: 0, exact: 0, hits: zeros(), gold: zeros(), predicted: zeros() }
    }

    /// Counts one row. Sets are ascending, each label once. Panics on a label outside `0..K`: they are checked where they are
    /// read.
    pub fn record(&mut self, gold: &[u32], predicted: &[u32]) {
        self.rows += 1;
        self.exact += u64::from(gold == predicted);
        for label in gold {
            self.gold[*label as usize] += 1;
            self.hits[*label as usize] += u64::from(predicted.contains(label));
        }
        predicted.iter().for_each(|label| self.predicted[*label as usize] += 1);
    }

    /// Rows whose set is the true one / rows: scikit-learn's `accuracy_score` of sets. `None` without rows.
    pub fn subset_accuracy(&self) -> Option<f64> {
        (self.rows > 0).then(|| self.exact as f64 / self.rows as f64)
    }

    /// 2·Σ hits / Σ (gold + predicted): scikit-learn's `f1_score(average="micro")`. 0 where no label occurs; `None` without rows.
    pub fn micro_f1(&self) -> Option<f64> {
        let sum = |counts: &[u64]| counts.iter().sum::<u64>();
        (self.rows > 0).then(|| f1(sum(&self.hits), sum(&self.gold), sum(&self.predicted)))
    }

    /// The mean of F1 over all K labels, 0 for one that never occurs: scikit-learn's `f1_score(average="macro")`. `None` without
    /// rows.
    pub fn macro_f1(&self) -> Option<f64> {
        let labels = self.hits.len();
        let sum: f64 = (0..labels).map(|label| self.f1_of(label)).sum();
        (self.rows > 0 && labels > 0).then(|| sum / labels as f64)
    }

    /// F1 of one label; 0 where it never occurs.
    pub fn f1_of(&self, label: usize) -> f64 {
        f1(self.hits[label], self.gold[label], self.predicted[label])
    }
}

impl AddAssign<&LabelCounts> for LabelCounts {
    /// Adds the counts of another shard, of the same labels.
    fn add_assign(&mut self, other: &LabelCounts) {
        self.rows += other.rows;
        self.exact += other.exact;
        for (own, more) in [
            (&mut self.hits, &other.hits),
            (&mut self.gold, &other.gold),
            (&mut self.predicted, &other.predicted),
        ] {
            own.iter_mut().zip(more).for_each(|(own, more)| *own += more);
        }
    }
}

fn f1(hits: u64, gold: u64, predicted: u64) -> f64 {
    match gold + predicted {
        0 => 0.0,
        both => 2.0 * hits as f64 / both as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Case {
        labels: usize,
        gold: Vec<Vec<u32>>,
        predicted: Vec<Vec<u32>>,
        micro_f1: f64,
        macro_f1: f64,
        subset_accuracy: f64,
    }

    #[test]
    fn equals_scikit_learn() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/kinds.json");
        let all: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let cases: Vec<Case> = serde_json::from_value(all["multi_label_metrics"].clone()).unwrap();
        assert!(cases.len() >= 3);
        for case in cases {
            let (mut whole, mut shard) =
                (LabelCounts::new(case.labels), LabelCounts::new(case.labels));
            for (row, (gold, predicted)) in case.gold.iter().zip(&case.predicted).enumerate() {
                let counts = if row % 2 == 0 { &mut whole } else { &mut shard };
                counts.record(gold, predicted);
            }
            whole += &shard;
            let close = |got: Option<f64>, expected: f64| (got.unwrap() - expected).abs() < 1e-12;
            assert!(close(whole.micro_f1(), case.micro_f1), "{:?}", whole.micro_f1());
            assert!(close(whole.macro_f1(), case.macro_f1), "{:?}", whole.macro_f1());
            assert!(close(whole.subset_accuracy(), case.subset_accuracy));
        }
    }

    #[test]
    fn nothing_is_none() {
        let none = LabelCounts::new(3);
        assert_eq!((none.micro_f1(), none.macro_f1(), none.subset_accuracy()), (None, None, None));
    }
}
