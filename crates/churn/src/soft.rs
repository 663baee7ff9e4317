//! Movement of scores: soft churn, threshold crossings, calibration. Sums that merge by addition.
//!
//! The sums are whole numbers (values times 2⁶⁴), so that shards merge to the same bits in whatever order.

use serde::{Deserialize, Serialize};

use crate::Pair;

/// Scores of both models compared, as means over rows. KL in nats.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Soft {
    pub rows: u64,
    /// Mean ½‖p_old − p_new‖₁.
    pub total_variation: f64,
    /// Mean KL(p_old ‖ p_new). A p_new below 10⁻¹² counts as 10⁻¹², so that files that round to 0 don't make it infinite.
    pub kl_old_new: f64,
    /// Rows in which that happened for a class with p_old above 10⁻¹².
    #[serde(default)]
    pub kl_floored: u64,
    pub crossings: Vec<Crossing>,
    pub calibration_old: Option<Calibration>,
    pub calibration_new: Option<Calibration>,
    /// Rows by p_new − p_old of the class the old model predicted, in 20 equal bins from −1 to 1.
    pub shift: Vec<u64>,
}

/// Rows whose score of `label` moved across `threshold`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Crossing {
    pub label: String,
    pub threshold: f64,
    /// From below to at least it.
    pub up: u64,
    /// From at least it to below.
    pub down: u64,
}

/// Over labelled rows; the predicted class's score in 15 equal bins, which are open on the left (Guo et al. 2017).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    pub rows: u64,
    /// Σ over bins of |sum of scores − rows that are right| / rows.
    pub ece: f64,
    /// Mean Σₖ (pₖ − yₖ)².
    pub brier: f64,
    /// (rows, sum of confidence, rows that are right) a bin.
    pub bins: Vec<(u64, f64, u64)>,
}

/// Below this a probability is taken for this in KL.
const FLOOR: f64 = 1e-12;
const SHIFT_BINS: usize = 20;
const CALIBRATION_BINS: usize = 15;

/// Sums over rows, before anything is divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoftSums {
    rows: u64,
    total_variation: i128,
    kl: i128,
    kl_floored: u64,
    /// (up, down) of each threshold.
    crossings: Vec<(u64, u64)>,
    old: CalibrationSums,
    new: CalibrationSums,
    shift: [u64; SHIFT_BINS],
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct CalibrationSums {
    rows: u64,
    brier: i128,
    /// (rows, sum of confidence, right).
    bins: [(u64, i128, u64); CALIBRATION_BINS],
}

impl SoftSums {
    /// Nothing yet; `thresholds` is how many there are.
    pub fn new(thresholds: usize) -> SoftSums {
        SoftSums {
            rows: 0,
            total_variation: 0,
            kl: 0,
            kl_floored: 0,
            crossings: vec![(0, 0); thresholds],
            old: CalibrationSums::default(),
            new: CalibrationSums::default(),
            shift: [0; SHIFT_BINS],
        }
    }

    /// The rows of a pair whose sides both have scores. A threshold is (class, score). `None` where a side has no scores.
    pub fn of(pair: &Pair, thresholds: &[(usize, f64)]) -> Option<SoftSums> {
        let (old, new) = (pair.old_scores.as_ref()?, pair.new_scores.as_ref()?);
        let classes = pair.labels.len().max(1);
        let mut sums = SoftSums::new(thresholds.len());
        for (row, (old, new)) in
            old.chunks_exact(classes).zip(new.chunks_exact(classes)).enumerate()
        {
            sums.add(old, new, [pair.old[row], pair.new[row]], pair.gold[row], thresholds);
        }
        Some(sums)
    }

    // Scores are (K,) each; `predicted` by the old and by the new model.
    fn add(
        &mut self,
        old: &[f32],
        new: &[f32],
        predicted: [u32; 2],
        gold: Option<u32>,
        thresholds: &[(usize, f64)],
    ) {
        self.rows += 1;
        let (mut distance, mut kl, mut is_floored) = (0.0, 0.0, false);
        for (p, q) in old.iter().zip(new) {
            let (p, q) = (f64::from(*p), f64::from(*q));
            distance += (p - q).abs();
            if p > 0.0 && p != q {
                is_floored |= q < FLOOR && p >= FLOOR;
                kl += p * (p / q.max(FLOOR)).ln();
            }
        }
        self.total_variation += fixed(distance / 2.0);
        self.kl += fixed(kl);
        self.kl_floored += u64::from(is_floored);
        for ((class, threshold), (up, down)) in thresholds.iter().zip(&mut self.crossings) {
            let is_over = |scores: &[f32]| scores[*class] >= *threshold as f32;
            match (is_over(old), is_over(new)) {
                (false, true) => *up += 1,
                (true, false) => *down += 1,
                _ => {}
            }
        }
        let class = predicted[0] as usize;
        let moved = f64::from(new[class]) - f64::from(old[class]);
        let bin = ((moved + 1.0) * SHIFT_BINS as f64 / 2.0) as usize;
        self.shift[bin.min(SHIFT_BINS - 1)] += 1;
        if let Some(gold) = gold {
            self.old.add(old, predicted[0], gold);
            self.new.add(new, predicted[1], gold);
        }
    }

    /// Adds the sums of other rows, taken with the same thresholds.
    pub fn merge(&mut self, other: &SoftSums) {
        self.rows += other.rows;
        self.total_variation += other.total_variation;
        self.kl += other.kl;
        self.kl_floored += other.kl_floored;
        for (own, more) in self.crossings.iter_mut().zip(&other.crossings) {
            own.0 += more.0;
            own.1 += more.1;
        }
        self.old.merge(&other.old);
        self.new.merge(&other.new);
        self.shift.iter_mut().zip(&other.shift).for_each(|(own, more)| *own += more);
    }

    /// The means; `None` without rows. `thresholds` are (label, score), in the order they were summed in.
    pub fn mean(&self, thresholds: &[(String, f64)]) -> Option<Soft> {
        if self.rows == 0 {
            return None;
        }
        let crossing = |((label, threshold), (up, down)): (&(String, f64), &(u64, u64))| Crossing {
            label: label.clone(),
            threshold: *threshold,
            up: *up,
            down: *down,
        };
        Some(Soft {
            rows: self.rows,
            total_variation: float(self.total_variation) / self.rows as f64,
            // Rounding of scores can make the sum of a row negative by a hair.
            kl_old_new: (float(self.kl) / self.rows as f64).max(0.0),
            kl_floored: self.kl_floored,
            crossings: thresholds.iter().zip(&self.crossings).map(crossing).collect(),
            calibration_old: self.old.mean(),
            calibration_new: self.new.mean(),
            shift: self.shift.to_vec(),
        })
    }
}

impl CalibrationSums {
    fn add(&mut self, scores: &[f32], predicted: u32, gold: u32) {
        self.rows += 1;
        let squares = scores.iter().enumerate().map(|(class, p)| {
            let miss = f64::from(*p) - f64::from(u8::from(class == gold as usize));
            miss * miss
        });
        self.brier += fixed(squares.sum());
        let confidence = f64::from(scores[predicted as usize]);
        let above = (confidence * CALIBRATION_BINS as f64).ceil() as usize;
        let bin = &mut self.bins[above.clamp(1, CALIBRATION_BINS) - 1];
        bin.0 += 1;
        bin.1 += fixed(confidence);
        bin.2 += u64::from(predicted == gold);
    }

    fn merge(&mut self, other: &CalibrationSums) {
        self.rows += other.rows;
        self.brier += other.brier;
        for (own, more) in self.bins.iter_mut().zip(&other.bins) {
            own.0 += more.0;
            own.1 += more.1;
            own.2 += more.2;
        }
    }

    fn mean(&self) -> Option<Calibration> {
        if self.rows == 0 {
            return None;
        }
        let rows = self.rows as f64;
        let bins: Vec<(u64, f64, u64)> =
            self.bins.iter().map(|(rows, sum, right)| (*rows, float(*sum), *right)).collect();
        let gap = |(_, sum, right): &(u64, f64, u64)| (sum - *right as f64).abs();
        Some(Calibration {
            rows: self.rows,
            ece: bins.iter().map(gap).sum::<f64>() / rows,
            brier: float(self.brier) / rows,
            bins,
        })
    }
}

const ONE: f64 = 18_446_744_073_709_551_616.0; // 2⁶⁴

fn fixed(value: f64) -> i128 {
    (value * ONE) as i128
}

fn float(sum: i128) -> f64 {
    sum as f64 / ONE
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair(old: &[[f32; 3]], new: &[[f32; 3]], gold: &[Option<u32>]) -> Pair {
        let top = |rows: &[[f32; 3]]| -> Vec<u32> {
            rows.iter().map(|row| crate::predicted::first_highest(row) as u32).collect()
        };
        Pair {
            labels: ["a", "b", "c"].map(str::to_owned).to_vec(),
            n_old_classes: 3,
            ids: (0..old.len()).map(|row| row.to_string()).collect(),
            old: top(old),
            new: top(new),
            gold: gold.to_vec(),
            old_scores: Some(old.concat()),
            new_scores: Some(new.concat()),
            ..Pair::default()
        }
    }

    fn near(got: f64, expected: f64, tolerance: f64) {
        assert!((got - expected).abs() <= tolerance, "{got} is not {expected}");
    }

    fn papers() -> (Vec<[f32; 3]>, Vec<[f32; 3]>, serde_json::Value) {
        let text = include_str!("../../../tests/golden/papers_examples.json");
        let all: serde_json::Value = serde_json::from_str(text).unwrap();
        let a2 = all["A2_soft_churn"].clone();
        let rows = |key: &str| {
            let number = |x: &serde_json::Value| x.as_f64().unwrap() as f32;
            let row = |row: &serde_json::Value| [number(&row[0]), number(&row[1]), number(&row[2])];
            a2[key].as_array().unwrap().iter().map(row).collect()
        };
        (rows("p_old"), rows("p_new"), a2)
    }

    #[test]
    fn the_worked_example_of_the_papers() {
        // Scores are f32: their rounding is 3e-8 a probability.
        let (old, new, a2) = papers();
        let pair = pair(&old, &new, &[None; 3]);
        let soft = SoftSums::of(&pair, &[]).unwrap().mean(&[]).unwrap();
        near(soft.total_variation, a2["mean_TV"].as_f64().unwrap(), 1e-7);
        near(soft.kl_old_new, a2["mean_KL_old_new"].as_f64().unwrap(), 1e-7);
        let churn = crate::Flips::of(&pair.old, &pair.new, &pair.gold).churn().unwrap();
        near(churn, a2["hard_churn"].as_f64().unwrap(), 1e-9);
        assert_eq!((soft.kl_floored, soft.calibration_old), (0, None));
    }

    #[test]
    fn zeros_of_a_rounded_file_are_not_infinite() {
        let pair = pair(&[[0.5, 0.5, 0.0]], &[[1.0, 0.0, 0.0]], &[None]);
        let soft = SoftSums::of(&pair, &[]).unwrap().mean(&[]).unwrap();
        // ½·ln(½) + ½·ln(½ / 10⁻¹²)
        near(soft.kl_old_new, 0.5 * 0.5f64.ln() + 0.5 * (0.5f64 / 1e-12).ln(), 1e-12);
        assert_eq!(soft.kl_floored, 1);
        near(soft.total_variation, 0.5, 0.0);
    }

    #[test]
    fn calibration_by_hand() {
        // Confidences .6 and .9 fall in bins 9 of (8/15, 9/15] and 14 of (13/15, 14/15].
        let old = [[0.9, 0.05, 0.05], [0.25, 0.5, 0.25], [0.25, 0.5, 0.25]];
        let pair = pair(&old, &old, &[Some(0), Some(0), Some(1)]);
        let soft = SoftSums::of(&pair, &[]).unwrap().mean(&[]).unwrap();
        let calibration = soft.calibration_old.unwrap();
        // |0.9 − 1| + |2·0.5 − 1|, over 3 rows.
        near(calibration.ece, 0.1 / 3.0, 1e-7);
        let brier = [0.01 + 2.0 * 0.0025, 0.5625 + 0.25 + 0.0625, 0.0625 + 0.25 + 0.0625];
        near(calibration.brier, brier.iter().sum::<f64>() / 3.0, 1e-7);
        assert_eq!((calibration.bins[7].0, calibration.bins[7].2), (2, 1));
        assert_eq!((calibration.bins[13].0, calibration.bins[13].2), (1, 1));
        assert_eq!(soft.shift.iter().enumerate().find(|(_, rows)| **rows > 0), Some((10, &3)));
    }

    #[test]
    fn crossings_go_up_and_down_and_the_threshold_itself_is_over() {
        let old = [[0.5, 0.5, 0.0], [0.25, 0.75, 0.0], [0.75, 0.25, 0.0], [1.0, 0.0, 0.0]];
        let new = [[0.25, 0.75, 0.0], [0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 1.0, 0.0]];
        let pair = pair(&old, &new, &[None; 4]);
        let soft = SoftSums::of(&pair, &[(0, 0.5), (1, 0.5)]).unwrap();
        let soft = soft.mean(&[("a".to_owned(), 0.5), ("b".to_owned(), 0.5)]).unwrap();
        let moved: Vec<(u64, u64)> = soft.crossings.iter().map(|c| (c.up, c.down)).collect();
        assert_eq!(moved, [(1, 2), (2, 0)]);
        assert_eq!((soft.shift[0], soft.shift[7], soft.shift[12]), (1, 3, 0));
        // f32 has no 0.9: the one next to it is below, and is 0.9 where it stands for it.
        let pair = self::pair(&[[0.9, 0.1, 0.0]], &[[0.91, 0.09, 0.0]], &[None]);
        let soft = SoftSums::of(&pair, &[(0, 0.9)]).unwrap();
        let soft = soft.mean(&[("a".to_owned(), 0.9)]).unwrap();
        assert_eq!((soft.crossings[0].up, soft.crossings[0].down), (0, 0));
    }

    fn scores() -> impl Strategy<Value = [f32; 3]> {
        (0.0f32..1.0, 0.0f32..1.0, 0.001f32..1.0).prop_map(|(a, b, c)| {
            let sum = a + b + c;
            [a / sum, b / sum, c / sum]
        })
    }

    proptest! {
        #[test]
        fn shards_merge_to_the_same_bits_in_any_order(
            rows in prop::collection::vec((scores(), scores(), prop::option::of(0u32..3)), 1..60),
            cut in 0usize..60,
        ) {
            let cut = cut.min(rows.len());
            let sums = |rows: &[([f32; 3], [f32; 3], Option<u32>)]| {
                let old: Vec<_> = rows.iter().map(|row| row.0).collect();
                let new: Vec<_> = rows.iter().map(|row| row.1).collect();
                let gold: Vec<_> = rows.iter().map(|row| row.2).collect();
                SoftSums::of(&pair(&old, &new, &gold), &[(1, 0.4)]).unwrap()
            };
            let whole = sums(&rows);
            let (mut first, mut second) = (sums(&rows[..cut]), sums(&rows[cut..]));
            let kept = first.clone();
            first.merge(&second);
            second.merge(&kept);
            prop_assert_eq!(&first, &whole);
            prop_assert_eq!(&second, &whole);
        }

        #[test]
        fn bounds_hold(rows in prop::collection::vec((scores(), scores(), 0u32..3), 1..60)) {
            let old: Vec<_> = rows.iter().map(|row| row.0).collect();
            let new: Vec<_> = rows.iter().map(|row| row.1).collect();
            let gold: Vec<_> = rows.iter().map(|row| Some(row.2)).collect();
            let soft = SoftSums::of(&pair(&old, &new, &gold), &[]).unwrap().mean(&[]).unwrap();
            prop_assert!((0.0..=1.0).contains(&soft.total_variation));
            // Pinsker, as means by Jensen: TV ≤ √(KL / 2).
            prop_assert!(soft.total_variation <= (soft.kl_old_new / 2.0).sqrt() + 1e-6);
            prop_assert_eq!(soft.shift.iter().sum::<u64>(), soft.rows);
            for side in [soft.calibration_old.unwrap(), soft.calibration_new.unwrap()] {
                prop_assert!((0.0..=1.0).contains(&side.ece) && (0.0..=2.0).contains(&side.brier));
                prop_assert_eq!(side.bins.iter().map(|bin| bin.0).sum::<u64>(), side.rows);
            }
        }
    }
}
