//! How noisy a student's gradients are, part by part, as a report shows it.

use serde::{Deserialize, Serialize};

use super::RowsOf;
use crate::format::NONE;

/// Of a batch, a is the gradient of the labels' loss and b the teacher's part of distillation's, which descends a − λ·b.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GradientNoise {
    pub rows_of: RowsOf,
    pub data: String,
    pub batches: u64,
    pub rows: u64,
    /// In use.
    pub lambda: f64,
    /// The whole first, then from below.
    pub parts: Vec<PartNoise>,
    /// The whole with the teacher's own gradients in place of b, over `own_batches` of the batches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<PartNoise>,
    pub own_batches: u64,
    /// Between a − λ·b of both kinds, by batch of those.
    pub cosines: Vec<f64>,
    /// Between a and a − λ·b, by batch.
    pub label_cosines: Vec<f64>,
    /// What the numbers don't say, in words.
    pub said: Vec<String>,
}

/// `None` where a or b is zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartNoise {
    pub name: String,
    /// Weights in it.
    pub numbers: u64,
    /// E‖a − E a‖² and E‖a‖².
    pub variance: f64,
    pub square: f64,
    /// λ that makes E‖a − λ·b‖² least, and the variance of a − λ·b.
    pub lambda_hat: Option<f64>,
    pub lambda_hat_centred: Option<f64>,
    pub rho2_centred: Option<f64>,
    /// Of the variance, what is left at λ, and what would be at the best one.
    pub left: Option<f64>,
    pub left_at_best: Option<f64>,
}

/// Least, median and most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cosines {
    pub least: f64,
    pub median: f64,
    pub most: f64,
}

/// With as many digits as a ratio of variances over so many batches carries.
pub fn of_batches(value: Option<f64>, batches: u64) -> String {
    let digits = match batches {
        0..8 => 1,
        8..30 => 2,
        _ => 3,
    };
    let value = value.filter(|value| value.is_finite());
    value.map_or(NONE.into(), |value| format!("{value:.digits$}").replace('-', "−"))
}

impl Cosines {
    pub fn of(values: &[f64]) -> Option<Cosines> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        Some(Cosines { least, median: *sorted.get(sorted.len() / 2)?, most })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_batches_have_few_digits() {
        let shown = [2, 7, 8, 29, 30].map(|batches| of_batches(Some(-0.70549), batches));
        assert_eq!(shown, ["−0.7", "−0.7", "−0.71", "−0.71", "−0.705"]);
        assert_eq!(
            (of_batches(None, 30), of_batches(Some(f64::NAN), 30)),
            ("–".into(), "–".into())
        );
    }

    #[test]
    fn cosines_are_summed_up() {
        let found = Cosines::of(&[0.5, -0.25, 1.0]).unwrap();
        assert_eq!((found.least, found.median, found.most), (-0.25, 0.5, 1.0));
        assert_eq!(Cosines::of(&[]), None);
    }
}
