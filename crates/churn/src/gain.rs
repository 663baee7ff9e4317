//! The interval of an accuracy gain, for people; what a certificate rests on is [`crate::gain_bounds`], which is never too narrow.

use std::f64::consts::{FRAC_2_SQRT_PI, SQRT_2};

use crate::Interval;

/// Halvings of an interval: to the last bit of numbers between −1 and 1.
const HALVINGS: u32 = 60;

/// Two-sided score interval of accuracy_new − accuracy_old = (positive − negative) / of on paired rows: every difference Δ that
/// isn't rejected by (positive − negative − n·Δ)² > z²·n·(2q + Δ − Δ²), with q the likeliest share of negative flips at that Δ, the
/// larger root of 2n·q² + ((2n − positive + negative)·Δ − positive − negative)·q − negative·Δ·(1 − Δ) = 0 (Tango 1998, Statistics
/// in Medicine 17). Near its confidence where flips are few too: of n rows without one it is ±z²/(n + z²).
///
/// −1 to 1 for `of` = 0.
pub fn gain_interval(negative: u64, positive: u64, of: u64, confidence: f64) -> Interval {
    let high = |negative, positive| highest(negative, positive, of, normal(confidence));
    Interval { low: -high(positive, negative), high: high(negative, positive), confidence }
}

fn highest(negative: u64, positive: u64, of: u64, z: f64) -> f64 {
    let (c, b, n) = (negative as f64, positive as f64, of as f64);
    let is_rejected = |delta: f64| {
        let (half, last) = ((2.0 * n - b + c) * delta - b - c, c * delta * (1.0 - delta));
        let q = ((half * half + 8.0 * n * last).max(0.0).sqrt() - half) / (4.0 * n);
        (b - c - n * delta).powi(2) > z * z * n * (2.0 * q + delta - delta * delta)
    };
    if of == 0 || !is_rejected(1.0) {
        return 1.0;
    }
    let (mut low, mut high) = ((b - c) / n, 1.0);
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if is_rejected(middle) { high = middle } else { low = middle }
    }
    low
}

/// z with P(|Z| ≤ z) = confidence for a standard normal Z.
fn normal(confidence: f64) -> f64 {
    // erf by its series, Σ 2ᵏ·x^(2k+1) / (1·3·…·(2k+1)) times 2/√π·e^(−x²); all terms are positive.
    let within = |z: f64| {
        let x = z / SQRT_2;
        let (mut term, mut sum, mut k) = (x, 0.0, 0.0);
        while term > f64::EPSILON * sum {
            sum += term;
            k += 1.0;
            term *= 2.0 * x * x / (2.0 * k + 1.0);
        }
        FRAC_2_SQRT_PI * (-x * x).exp() * sum
    };
    let (mut low, mut high) = (0.0, 9.0);
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if within(middle) < confidence { low = middle } else { high = middle }
    }
    low
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// By maximising the likelihood and solving for the bounds, with scipy.
    #[test]
    fn intervals_are_those_of_the_score_test() {
        let golden = include_str!("../../../tests/golden/intervals.json");
        let golden: Value = serde_json::from_str(golden).unwrap();
        let rows = golden["gains"].as_array().unwrap();
        assert!(rows.len() > 20);
        for row in rows {
            let count = |key: &str| row[key].as_u64().unwrap();
            let confidence = row["confidence"].as_f64().unwrap();
            let found =
                gain_interval(count("negative"), count("positive"), count("of"), confidence);
            for (found, key) in [(found.low, "low"), (found.high, "high")] {
                let expected = row[key].as_f64().unwrap();
                // The likelihood's maximum is known to half of the digits.
                assert!((found - expected).abs() < 1e-6, "{row}: {key} {found}");
            }
        }
    }

    #[test]
    fn without_a_flip_it_has_a_closed_form() {
        let z = normal(0.95);
        assert!((z - 1.959_963_984_540_054).abs() < 1e-12, "{z}"); // scipy.stats.norm.ppf(0.975)
        for of in [1u64, 20, 500, 1_000_000] {
            let found = gain_interval(0, 0, of, 0.95);
            let expected = z * z / (of as f64 + z * z);
            assert!((found.high - expected).abs() < 1e-12, "{of}: {found:?}");
            assert_eq!(found.low, -found.high);
        }
        let none = gain_interval(0, 0, 0, 0.95);
        assert_eq!((none.low, none.high), (-1.0, 1.0));
        // All became right.
        assert_eq!(gain_interval(0, 9, 9, 0.95).high, 1.0);
    }

    /// Of very many rows it is that of the normal law: its standard error is √((PF + NF)/n − gain²)/√n.
    #[test]
    fn of_many_rows_it_is_as_wide_as_the_normal_law_has_it() {
        let found = gain_interval(30_000, 50_000, 1_000_000, 0.95);
        let error = ((0.08f64 - 0.02 * 0.02) / 1e6).sqrt();
        let width = (found.high - found.low) / (2.0 * 1.959_964 * error);
        assert!((width - 1.0).abs() < 1e-3, "{width}");
    }
}
