//! Counts of flips. They merge by addition, so shards merge exactly; every rate divides at the end.
//!
//! Sources of the definitions: churn, NFR, PFR (Fard et al. 2016; Yan et al. 2021), NFI and PFI (the share of the new model's errors
//! and of its right rows that flips make), BTC and BEC (Bansal et al. 2019; Srivastava et al. 2020).

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::Judged;

/// Sums over rows. `changed` counts all rows; the five kinds below it count labelled rows only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flips {
    pub rows: u64,
    /// Predictions that differ.
    pub changed: u64,
    pub labelled: u64,
    pub both_right: u64,
    /// Was right, now wrong: negative flips.
    pub negative: u64,
    /// Was wrong, now right: positive flips.
    pub positive: u64,
    /// Wrong before and after, differently.
    pub lateral: u64,
    /// Wrong before and after, in the same way.
    pub same_wrong: u64,
}

impl Flips {
    /// Counts one row. All classes are indices of one label set.
    pub fn add(&mut self, old: u32, new: u32, gold: Option<u32>) {
        let is_right = gold.map(|gold| (old == gold, new == gold));
        self.count(Judged { is_changed: old != new, is_right });
    }

    /// Counts one row whose answers have been judged.
    pub fn count(&mut self, row: Judged) {
        self.count_times(row, 1);
    }

    /// Counts so many rows of which the same became.
    pub fn count_times(&mut self, row: Judged, times: u64) {
        self.rows += times;
        self.changed += if row.is_changed { times } else { 0 };
        let Some((is_old_right, is_new_right)) = row.is_right else { return };
        self.labelled += times;
        let kind = match (is_old_right, is_new_right) {
            (true, true) => &mut self.both_right,
            (true, false) => &mut self.negative,
            (false, true) => &mut self.positive,
            (false, false) if row.is_changed => &mut self.lateral,
            (false, false) => &mut self.same_wrong,
        };
        *kind += times;
    }

    /// Counts these rows.
    pub fn of(old: &[u32], new: &[u32], gold: &[Option<u32>]) -> Flips {
        let mut flips = Flips::default();
        for ((old, new), gold) in old.iter().zip(new).zip(gold) {
            flips.add(*old, *new, *gold);
        }
        flips
    }

    pub fn right_old(&self) -> u64 {
        self.both_right + self.negative
    }

    pub fn right_new(&self) -> u64 {
        self.both_right + self.positive
    }

    pub fn wrong_new(&self) -> u64 {
        self.negative + self.lateral + self.same_wrong
    }

    /// Changed rows / rows. Needs no labels.
    pub fn churn(&self) -> Option<f64> {
        share(self.changed, self.rows)
    }

    /// Negative flips / labelled rows.
    pub fn nfr(&self) -> Option<f64> {
        share(self.negative, self.labelled)
    }

    /// Positive flips / labelled rows.
    pub fn pfr(&self) -> Option<f64> {
        share(self.positive, self.labelled)
    }

    /// Rows that went from one wrong class to another / labelled rows.
    pub fn lateral_rate(&self) -> Option<f64> {
        share(self.lateral, self.labelled)
    }

    pub fn accuracy_old(&self) -> Option<f64> {
        share(self.right_old(), self.labelled)
    }

    pub fn accuracy_new(&self) -> Option<f64> {
        share(self.right_new(), self.labelled)
    }

    /// accuracy_new − accuracy_old = PFR − NFR.
    pub fn accuracy_gain(&self) -> Option<f64> {
        (self.labelled > 0)
            .then(|| (self.positive as f64 - self.negative as f64) / self.labelled as f64)
    }

    /// Negative-flip impact: negative flips / errors of the new model. `None` where it makes none.
    pub fn nfi(&self) -> Option<f64> {
        share(self.negative, self.wrong_new())
    }

    /// Positive-flip impact: positive flips / right rows of the new model.
    pub fn pfi(&self) -> Option<f64> {
        share(self.positive, self.right_new())
    }

    /// NFR / (accuracy_old · error_new): 1 is what two models with independent errors would have.
    pub fn relative_nfr(&self) -> Option<f64> {
        let chance = self.accuracy_old()? * share(self.wrong_new(), self.labelled)?;
        (chance > 0.0).then(|| self.nfr().map(|nfr| nfr / chance)).flatten()
    }

    /// Positive / negative flips. `None` where no flip is negative: JSON has no infinity.
    pub fn win_loss(&self) -> Option<f64> {
        share(self.positive, self.negative)
    }

    /// Backward trust compatibility: both right / old right = 1 − NFR / accuracy_old.
    pub fn btc(&self) -> Option<f64> {
        share(self.both_right, self.right_old())
    }

    /// Backward error compatibility: both wrong / new wrong = 1 − NFI.
    pub fn bec(&self) -> Option<f64> {
        share(self.lateral + self.same_wrong, self.wrong_new())
    }
}

impl AddAssign for Flips {
    fn add_assign(&mut self, other: Flips) {
        self.rows += other.rows;
        self.changed += other.changed;
        self.labelled += other.labelled;
        self.both_right += other.both_right;
        self.negative += other.negative;
        self.positive += other.positive;
        self.lateral += other.lateral;
        self.same_wrong += other.same_wrong;
    }
}

fn share(count: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| count as f64 / of as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // The vectors have nine significant digits.
    #[test]
    fn the_worked_example_of_the_papers() {
        let text = include_str!("../../../tests/golden/papers_examples.json");
        let all: serde_json::Value = serde_json::from_str(text).unwrap();
        let a1 = &all["A1_flip_metrics"];
        let column = |key: &str| -> Vec<u32> {
            a1[key].as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect()
        };
        let gold: Vec<Option<u32>> = column("y").into_iter().map(Some).collect();
        let flips = Flips::of(&column("old"), &column("new"), &gold);
        for (key, got) in [
            ("acc_old", flips.accuracy_old()),
            ("acc_new", flips.accuracy_new()),
            ("churn", flips.churn()),
            ("NFR", flips.nfr()),
            ("PFR", flips.pfr()),
            ("lateral", flips.lateral_rate()),
            ("NFI", flips.nfi()),
            ("PFI", flips.pfi()),
            ("rel_NFR", flips.relative_nfr()),
            ("win_loss_ratio", flips.win_loss()),
            ("BTC", flips.btc()),
            ("BEC", flips.bec()),
        ] {
            let expected = a1[key].as_f64().unwrap();
            assert!((expected - got.unwrap()).abs() < 1e-9, "{key}: {got:?} is not {expected}");
        }
    }

    #[test]
    fn what_divides_by_nothing_is_none() {
        let nothing = Flips::default();
        let unlabelled = Flips::of(&[0, 1], &[1, 1], &[None, None]);
        for flips in [nothing, unlabelled] {
            let all = [
                flips.nfr(),
                flips.pfr(),
                flips.lateral_rate(),
                flips.accuracy_old(),
                flips.accuracy_new(),
                flips.accuracy_gain(),
                flips.nfi(),
                flips.pfi(),
                flips.relative_nfr(),
                flips.win_loss(),
                flips.btc(),
                flips.bec(),
            ];
            assert_eq!(all, [None; 12]);
        }
        assert_eq!(nothing.churn(), None);
        assert_eq!(unlabelled.churn(), Some(0.5));
        let perfect = Flips::of(&[0, 1], &[0, 1], &[Some(0), Some(1)]);
        assert_eq!((perfect.nfi(), perfect.bec(), perfect.relative_nfr()), (None, None, None));
        assert_eq!((perfect.win_loss(), perfect.btc()), (None, Some(1.0)));
    }

    fn rows(classes: u32) -> impl Strategy<Value = Vec<(u32, u32, u32)>> {
        prop::collection::vec((0..classes, 0..classes, 0..classes), 1..300)
    }

    fn count(rows: &[(u32, u32, u32)], is_labelled: impl Fn(usize) -> bool) -> Flips {
        let mut flips = Flips::default();
        for (at, (old, new, gold)) in rows.iter().enumerate() {
            flips.add(*old, *new, is_labelled(at).then_some(*gold));
        }
        flips
    }

    proptest! {
        #[test]
        fn identities(classes in 2u32..6, rows in rows(6)) {
            let rows: Vec<_> = rows.into_iter().map(|(a, b, c)| (a % classes, b % classes, c % classes)).collect();
            let flips = count(&rows, |_| true);
            let (churn, nfr, pfr) = (flips.churn().unwrap(), flips.nfr().unwrap(), flips.pfr().unwrap());
            let lateral = flips.lateral_rate().unwrap();
            let gain = flips.accuracy_new().unwrap() - flips.accuracy_old().unwrap();
            let wrong_old = 1.0 - flips.accuracy_old().unwrap();
            let wrong_new = 1.0 - flips.accuracy_new().unwrap();
            prop_assert!((churn - (nfr + pfr + lateral)).abs() < 1e-12);
            prop_assert!((gain - (pfr - nfr)).abs() < 1e-12);
            prop_assert!((flips.accuracy_gain().unwrap() - gain).abs() < 1e-12);
            prop_assert!(churn >= gain.abs() - 1e-12);
            prop_assert!(churn <= wrong_old + wrong_new + 1e-12);
            if classes == 2 {
                prop_assert_eq!(flips.lateral, 0);
                prop_assert!((nfr - (churn - gain) / 2.0).abs() < 1e-12);
            }
            if let Some(btc) = flips.btc() {
                prop_assert!((btc - (1.0 - nfr / flips.accuracy_old().unwrap())).abs() < 1e-12);
            }
            if let (Some(bec), Some(nfi)) = (flips.bec(), flips.nfi()) {
                prop_assert!((bec - (1.0 - nfi)).abs() < 1e-12);
            }
            let kinds = flips.both_right + flips.negative + flips.positive + flips.lateral + flips.same_wrong;
            prop_assert_eq!(kinds, flips.labelled);
            prop_assert_eq!(flips.right_old() + flips.positive + flips.lateral + flips.same_wrong, flips.labelled);
            prop_assert_eq!(flips.right_new() + flips.wrong_new(), flips.labelled);
        }

        #[test]
        fn shards_add_up_to_the_whole(rows in rows(4), cut in 0usize..300, every in 1usize..4) {
            let cut = cut.min(rows.len());
            let whole = count(&rows, |at| at % every == 0);
            let mut first = count(&rows[..cut], |at| at % every == 0);
            let second = count(&rows[cut..], |at| (cut + at) % every == 0);
            first += second;
            prop_assert_eq!(first, whole);
        }

        #[test]
        fn swapping_the_models_swaps_wins_and_losses(rows in rows(4)) {
            let there = count(&rows, |_| true);
            let swapped: Vec<_> = rows.iter().map(|(old, new, gold)| (*new, *old, *gold)).collect();
            let back = count(&swapped, |_| true);
            prop_assert_eq!((there.changed, there.negative, there.positive), (back.changed, back.positive, back.negative));
            prop_assert_eq!((there.lateral, there.same_wrong, there.both_right), (back.lateral, back.same_wrong, back.both_right));
        }
    }
}
