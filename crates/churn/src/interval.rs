//! Exact binomial intervals and exact tests on paired flips.
//!
//! The binomial probabilities are made here: the incomplete beta function of `statrs` 0.19.1 stops after 140 terms whether
//! or not it has converged, and is wrong by 2 % at a million rows. A certificate can't rest on that.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
    pub confidence: f64,
}

/// A share with its count and its exact (Clopper–Pearson) interval. `of` is never 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    pub value: f64,
    pub count: u64,
    pub of: u64,
    pub interval: Interval,
}

/// A number with an interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    pub value: f64,
    pub interval: Interval,
}

/// Two-sided p-values of "negative and positive flips are equally likely"; both are 1 where nothing discords.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct McNemar {
    pub exact: f64,
    pub mid: f64,
}

impl Rate {
    /// count / of with its two-sided interval; `None` for `of` = 0.
    pub fn new(count: u64, of: u64, confidence: f64) -> Option<Rate> {
        let interval = clopper_pearson(count, of, confidence);
        (of > 0).then(|| Rate { value: count as f64 / of as f64, count, of, interval })
    }
}

/// Two-sided exact interval: both one-sided bounds at error (1 − confidence) / 2 (Clopper and Pearson 1934).
pub fn clopper_pearson(count: u64, of: u64, confidence: f64) -> Interval {
    let one_sided = (1.0 + confidence) / 2.0;
    let (low, high) = (lower_bound(count, of, one_sided), upper_bound(count, of, one_sided));
    Interval { low, high, confidence }
}

/// One-sided exact upper bound of a share: the p with P(X ≤ count | of, p) = 1 − confidence.
///
/// 1 where count = of, also for 0 of 0. Right to 14 digits. A confidence that isn't below 1 gives 1.
pub fn upper_bound(count: u64, of: u64, confidence: f64) -> f64 {
    let error = 1.0 - confidence;
    if count >= of || error.is_nan() || error <= 0.0 {
        return 1.0;
    }
    let (x, n) = (count as f64, of as f64);
    let slope = |p: f64| -(n - x) / (1.0 - p) * probability(count, of, p);
    solve(error, Tail { value: |p| at_most(count, of, p), slope, is_rising: false }, x / n)
}

/// One-sided exact lower bound of a share: the p with P(X ≥ count | of, p) = 1 − confidence.
///
/// 0 where count = 0. Right to 14 digits. A confidence that isn't below 1 gives 0.
pub fn lower_bound(count: u64, of: u64, confidence: f64) -> f64 {
    let error = 1.0 - confidence;
    if count == 0 || of == 0 || error.is_nan() || error <= 0.0 {
        return 0.0;
    }
    let count = count.min(of);
    let (x, n) = (count as f64, of as f64);
    let slope = |p: f64| x / p * probability(count, of, p);
    solve(error, Tail { value: |p| at_least(count, of, p), slope, is_rising: true }, x / n)
}

/// Exact: 2·P(X ≤ min | negative + positive, ½), at most 1; mid-p: that less P(X = min) (papers.md §3; Lancaster 1961).
pub fn mcnemar(negative: u64, positive: u64) -> McNemar {
    let (few, discordant) = (negative.min(positive), negative + positive);
    if negative == positive {
        return McNemar { exact: 1.0, mid: 1.0 };
    }
    let twice = 2.0 * at_most(few, discordant, 0.5);
    McNemar { exact: twice.min(1.0), mid: (twice - probability(few, discordant, 0.5)).min(1.0) }
}

/// P(X ≤ count) for X binomial over `of` trials with probability `p`. Costs about 8·√(of·p·(1−p)) steps.
pub(crate) fn at_most(count: u64, of: u64, p: f64) -> f64 {
    if count >= of {
        1.0
    } else if (count as f64) < of as f64 * p {
        tail_down(count, of, p)
    } else {
        1.0 - tail_up(count + 1, of, p)
    }
}

/// P(X ≥ count); see [`at_most`].
pub(crate) fn at_least(count: u64, of: u64, p: f64) -> f64 {
    if count == 0 {
        1.0
    } else if count as f64 > of as f64 * p {
        tail_up(count, of, p)
    } else {
        1.0 - tail_down(count - 1, of, p)
    }
}

// Σ_{i ≤ count} P(X = i). Right for count < of·p, where each term is smaller than the one before.
fn tail_down(count: u64, of: u64, p: f64) -> f64 {
    let mut term = probability(count, of, p);
    let (mut sum, odds) = (term, (1.0 - p) / p);
    for i in (1..=count).rev() {
        term *= i as f64 / (of - i + 1) as f64 * odds;
        sum += term;
        if term <= sum * 1e-17 {
            break;
        }
    }
    sum
}

// Σ_{i ≥ count} P(X = i). Right for count > of·p.
fn tail_up(count: u64, of: u64, p: f64) -> f64 {
    let mut term = probability(count, of, p);
    let (mut sum, odds) = (term, p / (1.0 - p));
    for i in count..of {
        term *= (of - i) as f64 / (i + 1) as f64 * odds;
        sum += term;
        if term <= sum * 1e-17 {
            break;
        }
    }
    sum
}

/// P(X = count), by the saddle point: differences of large logarithms would cost seven digits at a million rows
/// (Loader 2000, "Fast and accurate computation of binomial probabilities").
fn probability(count: u64, of: u64, p: f64) -> f64 {
    if p <= 0.0 || p >= 1.0 {
        let is_sure = count == if p <= 0.0 { 0 } else { of };
        return if is_sure { 1.0 } else { 0.0 };
    }
    let (x, n) = (count as f64, of as f64);
    if count == 0 {
        return (n * (-p).ln_1p()).exp();
    }
    if count == of {
        return (n * p.ln()).exp();
    }
    let rest = n - x;
    let stirling = stirling_rest(n) - stirling_rest(x) - stirling_rest(rest);
    let log = stirling - deviance(x, n * p) - deviance(rest, n * (1.0 - p));
    log.exp() * (n / (2.0 * PI * x * rest)).sqrt()
}

// ln n! − (½ ln 2πn + n ln n − n); the product is exact up to 15.
fn stirling_rest(n: f64) -> f64 {
    if n <= 15.0 {
        let factorial: f64 = (1..=n as u64).map(|i| i as f64).product();
        return factorial.ln() - (0.5 * (2.0 * PI * n).ln() + n * n.ln() - n);
    }
    let square = n * n;
    let series = 1.0 / 1260.0 - (1.0 / 1680.0 - 1.0 / (1188.0 * square)) / square;
    (1.0 / 12.0 - (1.0 / 360.0 - series / square) / square) / n
}

// x ln(x/mean) + mean − x, by a series where the two are near and the plain form would cancel.
fn deviance(x: f64, mean: f64) -> f64 {
    let difference = x - mean;
    if difference.abs() >= 0.1 * (x + mean) {
        return x * (x / mean).ln() + mean - x;
    }
    let v = difference / (x + mean);
    let (mut sum, mut power) = (difference * v, 2.0 * x * v);
    for j in 1..100 {
        power *= v * v;
        let next = sum + power / f64::from(2 * j + 1);
        if next == sum {
            break;
        }
        sum = next;
    }
    sum
}

/// A binomial tail as a function of p, with its derivative.
struct Tail<Value, Slope> {
    value: Value,
    slope: Slope,
    is_rising: bool,
}

// The p where the tail is `error`: Newton's steps for its logarithm, halves of the bracket where a step leaves it. The logarithm
// is concave, so from the second step on all steps are on the safe side of the root. About 6 steps where halving takes 50.
fn solve(error: f64, tail: Tail<impl Fn(f64) -> f64, impl Fn(f64) -> f64>, start: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    let mut p = start;
    for _ in 0..200 {
        let value = (tail.value)(p);
        if (value < error) == tail.is_rising {
            low = p
        } else {
            high = p
        }
        let step = p - (value / error).ln() * value / (tail.slope)(p);
        // Not a number, where the tail underflows, is outside too.
        let next = if step > low && step < high { step } else { 0.5 * (low + high) };
        let is_found = (next - p).abs() <= 1e-14 * next;
        p = next;
        if is_found {
            break;
        }
    }
    p
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn golden(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    fn near(found: f64, expected: &Value, what: &str) {
        let expected = expected.as_f64().unwrap();
        let gap = (found - expected).abs();
        assert!(gap <= 1e-11 * expected.abs(), "{what}: {found:e}, expected {expected:e}");
    }

    #[test]
    fn bounds_are_those_of_scipy() {
        let golden = golden(include_str!("../../../tests/golden/intervals.json"));
        let rows = golden["bounds"].as_array().unwrap();
        assert!(rows.len() >= 100);
        for row in rows {
            let (count, of) = (row["count"].as_u64().unwrap(), row["of"].as_u64().unwrap());
            let confidence = row["confidence"].as_f64().unwrap();
            let what = format!("{count} of {of} at {confidence}");
            near(lower_bound(count, of, confidence), &row["lower"], &what);
            near(upper_bound(count, of, confidence), &row["upper"], &what);
            let both = clopper_pearson(count, of, 2.0 * confidence - 1.0);
            near(both.low, &row["lower"], &what);
            near(both.high, &row["upper"], &what);
        }
    }

    #[test]
    fn mcnemar_is_that_of_scipy_and_of_the_papers() {
        let golden_rows = golden(include_str!("../../../tests/golden/intervals.json"));
        for row in golden_rows["mcnemar"].as_array().unwrap() {
            let count = |key: &str| row[key].as_u64().unwrap();
            let found = mcnemar(count("negative"), count("positive"));
            near(found.exact, &row["exact"], &row.to_string());
            near(found.mid, &row["mid"], &row.to_string());
        }
        let papers = golden(include_str!("../../../tests/golden/papers_examples.json"));
        let paper = &papers["A3_mcnemar_exact"];
        let found = mcnemar(paper["NF"].as_u64().unwrap(), paper["PF"].as_u64().unwrap());
        near(found.exact, &paper["p_two_sided"], "A3");
        assert_eq!(mcnemar(0, 0), McNemar { exact: 1.0, mid: 1.0 });
    }

    #[test]
    fn nonsense_gives_bounds_that_say_nothing() {
        for confidence in [1.0, 2.0, f64::NAN] {
            assert_eq!(upper_bound(3, 10, confidence), 1.0);
            assert_eq!(lower_bound(3, 10, confidence), 0.0);
        }
        assert_eq!((lower_bound(0, 0, 0.95), upper_bound(0, 0, 0.95)), (0.0, 1.0));
        assert_eq!(Rate::new(0, 0, 0.95), None);
        for confidence in [0.0, -1.0] {
            assert!((0.0..=1.0).contains(&upper_bound(3, 10, confidence)));
            assert!((0.0..=1.0).contains(&lower_bound(3, 10, confidence)));
        }
    }

    proptest! {
        #[test]
        fn bounds_hold_the_share_and_tighten(of in 1u64..3000, part in 0.0..=1.0f64, confidence in 0.6..0.999f64) {
            let count = (part * of as f64) as u64;
            let share = count as f64 / of as f64;
            let (low, high) = (lower_bound(count, of, confidence), upper_bound(count, of, confidence));
            prop_assert!(0.0 <= low && low <= share && share <= high && high <= 1.0);
            // More flips: higher. More rows of the same flips: lower. More confidence: wider.
            if count < of {
                prop_assert!(upper_bound(count + 1, of, confidence) > high || high == 1.0);
                prop_assert!(lower_bound(count + 1, of, confidence) > low);
                prop_assert!(upper_bound(count, of + 1, confidence) < high);
            }
            let more = confidence + (1.0 - confidence) / 2.0;
            prop_assert!(upper_bound(count, of, more) >= high && lower_bound(count, of, more) <= low);
            // The mirror of a bound is the bound of the mirror.
            prop_assert!((lower_bound(of - count, of, confidence) - (1.0 - high)).abs() < 1e-12);
        }

        #[test]
        fn tails_add_to_one(of in 1u64..3000, part in 0.0..=1.0f64, p in 0.0..=1.0f64) {
            let count = ((part * of as f64) as u64).min(of - 1);
            prop_assert!((at_most(count, of, p) + at_least(count + 1, of, p) - 1.0).abs() < 1e-12);
        }
    }
}
