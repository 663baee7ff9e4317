//! Paired bootstrap over rows (Efron and Tibshirani 1993, percentile interval).
//!
//! Rows of one kind are exchangeable, so counts of kinds are drawn (from the multinomial, exactly) and not rows: a million
//! rows cost what a thousand cost. The draws follow from the seed alone.

use lowchurn_data::Rng;

use crate::interval::probability;
use crate::{Estimate, Flips, Interval};

/// Resamples of each estimate.
const DRAWS: usize = 2000;

/// (PF − NF) / labelled rows with its percentile interval; pairs stay together, because a row is drawn with both predictions.
/// `None` without labels. Draws without any are left out.
pub fn bootstrap_gain(flips: &Flips, confidence: f64, seed: u64) -> Option<Estimate> {
    let value = flips.accuracy_gain()?;
    // The gain asks for no more of a row.
    let Flips { rows, labelled, negative, positive, .. } = *flips;
    let kinds = [negative, positive, labelled - negative - positive, rows - labelled];
    let mut rng = Rng::stream(seed, "bootstrap rows", 0);
    let draw = |_| match multinomial(&mut rng, rows, &kinds)[..] {
        [negative, positive, others, _] => {
            let labelled = negative + positive + others;
            Flips { labelled, negative, positive, ..Flips::default() }.accuracy_gain()
        }
        _ => None,
    };
    let draws = (0..DRAWS).filter_map(draw).collect();
    Some(Estimate { value, interval: percentiles(draws, confidence) })
}

// As many draws with replacement as `of`, counted by kind: each kind is binomial among what the kinds before it left.
fn multinomial(rng: &mut Rng, of: u64, counts: &[u64]) -> Vec<u64> {
    let (mut left, mut weight) = (of, counts.iter().sum::<u64>());
    let mut drawn = Vec::with_capacity(counts.len());
    for count in counts {
        let share = if weight == 0 { 0.0 } else { *count as f64 / weight as f64 };
        let here = binomial(rng, left, share);
        drawn.push(here);
        left -= here;
        weight -= count;
    }
    drawn
}

// By inversion from the mode outwards: some √(of·p·(1−p)) steps.
fn binomial(rng: &mut Rng, of: u64, p: f64) -> u64 {
    if of == 0 || p <= 0.0 {
        return 0;
    }
    if p >= 1.0 {
        return of;
    }
    let mode = (((of + 1) as f64 * p) as u64).min(of);
    let middle = probability(mode, of, p);
    let odds = p / (1.0 - p);
    let mut left = rng.uniform() - middle;
    let (mut low, mut high) = (mode, mode);
    let (mut below, mut above) = (middle, middle);
    while left >= 0.0 {
        let is_spent = below + above < f64::MIN_POSITIVE;
        if (low == 0 && high == of) || is_spent {
            return mode; // what rounding has left of the whole
        }
        if high < of {
            above *= (of - high) as f64 / (high + 1) as f64 * odds;
            high += 1;
            left -= above;
            if left < 0.0 {
                return high;
            }
        } else {
            above = 0.0;
        }
        if low > 0 {
            below *= low as f64 / (of - low + 1) as f64 / odds;
            low -= 1;
            left -= below;
            if left < 0.0 {
                return low;
            }
        } else {
            below = 0.0;
        }
    }
    mode
}

// Between the two order statistics around each place, as numpy does by default.
fn percentiles(mut draws: Vec<f64>, confidence: f64) -> Interval {
    draws.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = share * draws.len().saturating_sub(1) as f64;
        let (low, high) = (place.floor() as usize, place.ceil() as usize);
        match (draws.get(low), draws.get(high)) {
            (Some(low), Some(high)) => low + (high - low) * place.fract(),
            _ => 0.0,
        }
    };
    let tail = (1.0 - confidence) / 2.0;
    Interval { low: at(tail), high: at(1.0 - tail), confidence }
}

#[cfg(test)]
mod tests {
    use lowchurn_data::Rng;
    use proptest::prelude::*;

    use super::*;
    use crate::Judged;

    #[test]
    fn draws_are_binomial() {
        // Against the probabilities themselves: chi-square over cells with 5 rows or more, degrees of freedom about 20; its
        // mean is that and 60 is beyond 1e-5.
        for (of, p) in [(1u64, 0.3), (20, 0.5), (100, 0.02), (100, 0.98), (1000, 0.4)] {
            let mut rng = Rng::stream(5, "binomial test", of);
            let n = 40_000usize;
            let mut seen = vec![0u64; of as usize + 1];
            (0..n).for_each(|_| seen[binomial(&mut rng, of, p) as usize] += 1);
            let (mut chi, mut cells) = (0.0, 0);
            for (count, seen) in seen.iter().enumerate() {
                let expected = n as f64 * probability(count as u64, of, p);
                if expected >= 5.0 {
                    chi += (*seen as f64 - expected).powi(2) / expected;
                    cells += 1;
                }
            }
            let limit = cells as f64 + 5.0 * (2.0 * cells as f64).sqrt() + 5.0;
            assert!(chi < limit, "binomial({of}, {p}): chi² {chi} over {cells} cells");
        }
        let mut rng = Rng::stream(1, "ends", 0);
        assert_eq!((binomial(&mut rng, 0, 0.5), binomial(&mut rng, 9, 0.0)), (0, 0));
        assert_eq!((binomial(&mut rng, 9, 1.0), binomial(&mut rng, 9, 2.0)), (9, 9));
    }

    fn flips(negative: u64, positive: u64, both_right: u64, same_wrong: u64) -> Flips {
        let labelled = negative + positive + both_right + same_wrong;
        let changed = negative + positive;
        Flips {
            rows: labelled,
            changed,
            labelled,
            both_right,
            negative,
            positive,
            lateral: 0,
            same_wrong,
        }
    }

    #[test]
    fn the_interval_of_the_gain_is_that_of_the_normal_law_where_rows_are_many() {
        // Variance of a row's gain: (NF + PF)/n − ((PF − NF)/n)². Percentiles of 2000 draws are good to about 3 % of it.
        let flips = flips(30_000, 50_000, 800_000, 120_000);
        let got = bootstrap_gain(&flips, 0.95, 7).unwrap();
        let error = ((0.08f64 - 0.02 * 0.02) / 1e6).sqrt();
        assert_eq!(got.value, 0.02);
        let low = (got.value - got.interval.low) / error;
        let high = (got.interval.high - got.value) / error;
        assert!((low - 1.96).abs() < 0.15 && (high - 1.96).abs() < 0.15, "{low} {high}");
    }

    #[test]
    fn the_seed_alone_decides() {
        let flips = flips(300, 900, 8000, 800);
        let draw = |seed| bootstrap_gain(&flips, 0.9, seed).unwrap();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1).interval, draw(2).interval);
        assert_eq!(bootstrap_gain(&Flips::default(), 0.9, 1), None);
        let same = bootstrap_gain(&self::flips(0, 0, 10, 0), 0.9, 1).unwrap();
        assert_eq!((same.value, same.interval.low, same.interval.high), (0.0, 0.0, 0.0));
    }

    /// Of numbers a row may leave the tolerance of the truth without having changed: 1 of 100 did, all others are right twice.
    #[test]
    fn a_flip_without_a_change_is_in_the_gain() {
        let mut flips = Flips::default();
        flips.count_times(Judged { is_changed: false, is_right: Some((true, false)) }, 1);
        flips.count_times(Judged { is_changed: false, is_right: Some((true, true)) }, 60);
        flips.count_times(Judged { is_changed: true, is_right: Some((true, true)) }, 39);
        let got = bootstrap_gain(&flips, 0.95, 7).unwrap();
        // Negative flips of a draw are nearly Poisson with mean 1: from none to three are 98 % of it.
        assert_eq!(got.value, -0.01);
        assert_eq!((got.interval.low, got.interval.high), (-0.03, 0.0));
    }

    proptest! {
        #[test]
        fn a_multinomial_draw_has_all_rows(counts in prop::collection::vec(0u64..2000, 1..8), seed in 0u64..1000) {
            let of = counts.iter().sum();
            let drawn = multinomial(&mut Rng::stream(seed, "m", 0), of, &counts);
            prop_assert_eq!(drawn.iter().sum::<u64>(), of);
            for (drawn, count) in drawn.iter().zip(&counts) {
                prop_assert!(*count > 0 || *drawn == 0);
            }
        }
    }
}
