//! Paired bootstrap, over rows and over rows and seeds together (Efron and Tibshirani 1993, percentile interval).
//!
//! Rows of one kind are exchangeable, so counts of kinds are drawn (from the multinomial, exactly) and not rows: a million
//! rows cost what a thousand cost. The draws follow from the seed alone.

use std::collections::BTreeMap;

use lowchurn_data::Rng;

use crate::interval::probability;
use crate::{Error, Estimate, Flips, Interval, Judged, Pair, Result};

/// Resamples of each estimate.
const DRAWS: usize = 2000;

/// What can become of a row. A number may be right before and not after without having changed by more than the tolerance, so
/// that all ten are met.
const KINDS: [Judged; 10] = {
    const fn kind(is_changed: bool, is_right: Option<(bool, bool)>) -> Judged {
        Judged { is_changed, is_right }
    }
    [
        kind(false, None),
        kind(true, None),
        kind(false, Some((true, true))),
        kind(true, Some((true, true))),
        kind(false, Some((true, false))),
        kind(true, Some((true, false))),
        kind(false, Some((false, true))),
        kind(true, Some((false, true))),
        kind(false, Some((false, false))),
        kind(true, Some((false, false))),
    ]
};

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

/// The mean over runs that differ by their seed, each compared on the same rows. A draw takes as many runs as there are, and
/// as many rows as there are, both with replacement; a row that is drawn is drawn in all runs.
///
/// # Errors
/// Where the runs hold different rows.
pub fn bootstrap_runs(
    runs: &[Pair],
    statistic: fn(&Flips) -> Option<f64>,
    confidence: f64,
    seed: u64,
) -> Result<Option<Estimate>> {
    let Some(first) = runs.first() else { return Ok(None) };
    if let Some(other) = runs.iter().find(|run| run.ids != first.ids) {
        let (first, second) = (first.new_name.clone(), other.new_name.clone());
        return Err(Error::RunsDiffer { first, second });
    }
    // Rows that are of the same kind in every run are exchangeable.
    let mut patterns: BTreeMap<Vec<usize>, u64> = BTreeMap::new();
    for row in 0..first.rows() {
        let pattern = runs.iter().map(|run| kind(run.judged(row)));
        *patterns.entry(pattern.collect()).or_default() += 1;
    }
    let counts: Vec<u64> = patterns.values().copied().collect();
    let flips_of = |run: usize, counts: &[u64]| {
        let mut flips = Flips::default();
        for (pattern, count) in patterns.keys().zip(counts) {
            flips.count_times(KINDS[pattern[run]], *count);
        }
        flips
    };
    let mean = |chosen: &[usize], counts: &[u64]| -> Option<f64> {
        let values: Option<Vec<f64>> =
            chosen.iter().map(|run| statistic(&flips_of(*run, counts))).collect();
        values.map(|values| values.iter().sum::<f64>() / values.len() as f64)
    };
    let all: Vec<usize> = (0..runs.len()).collect();
    let Some(value) = mean(&all, &counts) else { return Ok(None) };
    let mut rng = Rng::stream(seed, "bootstrap runs", 0);
    let mut draws = Vec::with_capacity(DRAWS);
    for _ in 0..DRAWS {
        let chosen: Vec<usize> =
            all.iter().map(|_| rng.below(runs.len() as u64) as usize).collect();
        let counts = multinomial(&mut rng, first.rows() as u64, &counts);
        draws.extend(mean(&chosen, &counts));
    }
    Ok(Some(Estimate { value, interval: percentiles(draws, confidence) }))
}

/// A place among [`KINDS`].
fn kind(row: Judged) -> usize {
    KINDS.iter().position(|kind| *kind == row).unwrap_or_default()
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
    use super::*;
    use lowchurn_data::Rng;
    use proptest::prelude::*;

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

    fn run(changed: &[bool]) -> Pair {
        let rows = changed.len();
        Pair {
            labels: vec!["a".to_owned(), "b".to_owned()],
            ids: (0..rows).map(|row| row.to_string()).collect(),
            old: vec![0; rows],
            new: changed.iter().map(|changed| u32::from(*changed)).collect(),
            gold: vec![None; rows],
            ..Pair::default()
        }
    }

    #[test]
    fn seeds_that_differ_widen_the_interval() {
        // Two runs with churn 0.1 and 0.3 on 1,000 rows. Over rows alone the mean has a standard error of about 0.011; over
        // runs it is 0.1, 0.2 or 0.3, so that the interval reaches from about 0.1 to about 0.3.
        let first: Vec<bool> = (0..1000).map(|row| row % 10 == 0).collect();
        let second: Vec<bool> = (0..1000).map(|row| row % 10 < 3).collect();
        let both = [run(&first), run(&second)];
        let got = bootstrap_runs(&both, Flips::churn, 0.95, 3).unwrap().unwrap();
        assert!((got.value - 0.2).abs() < 1e-12);
        assert!(got.interval.low < 0.11 && got.interval.high > 0.29, "{:?}", got.interval);
        let alike = [run(&first), run(&first)];
        let narrow = bootstrap_runs(&alike, Flips::churn, 0.95, 3).unwrap().unwrap();
        let one = bootstrap_runs(&both[..1], Flips::churn, 0.95, 3).unwrap().unwrap();
        let width = |estimate: Estimate| estimate.interval.high - estimate.interval.low;
        assert!((width(narrow) - width(one)).abs() < 0.005);
        assert_eq!(bootstrap_runs(&[], Flips::churn, 0.95, 3).unwrap(), None);
        let error = bootstrap_runs(&[run(&first), run(&first[1..])], Flips::churn, 0.95, 3);
        assert_eq!(
            error.unwrap_err().to_string(),
            " and  can't be taken together: they hold different rows or labels"
        );
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
        /// Each row is of one kind, and kinds count as their rows do.
        #[test]
        fn kinds_and_back(rows in prop::collection::vec((any::<bool>(), prop::option::of(any::<(bool, bool)>())), 0..100)) {
            let (mut flips, mut of_kinds) = (Flips::default(), Flips::default());
            let mut counts = [0; KINDS.len()];
            for (is_changed, is_right) in rows {
                let row = Judged { is_changed, is_right };
                prop_assert_eq!(KINDS[kind(row)], row);
                flips.count(row);
                counts[kind(row)] += 1;
            }
            KINDS.iter().zip(counts).for_each(|(kind, count)| of_kinds.count_times(*kind, count));
            prop_assert_eq!(of_kinds, flips);
        }

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
