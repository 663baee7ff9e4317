//! Losses of one row whose target isn't one class: a set of labels, each held against its own probability, or a number.
//!
//! Labels (transformers' `BCEWithLogitsLoss`, a mean over the K labels): with y 1 where the label holds and w its weight there,
//! w·y·log(1 + e^−z) + (1 − y)·log(1 + e^z). The teacher's term is taken label by label too, so that one that it doesn't know is
//! learnt from the row alone. Numbers (`MSELoss`): (z − y)², the teacher's term (z − z_t)².

use super::term::{Term, sigmoid, softplus};
use crate::{Divergence, Method, TeacherRows};

/// One row, and what it is held against besides its target.
pub struct Sided<'a> {
    /// (K,)
    pub logits: &'a [f64],
    pub lambda: f64,
    /// The teacher's logits (K,), and which labels it knows (K,).
    pub teacher: Option<(&'a [f64], &'a [bool])>,
    pub is_old: bool,
    /// (K,) of labels that hold; empty: 1.
    pub weights: &'a [f64],
}

/// A value and its derivative with respect to one logit.
#[derive(Clone, Copy)]
struct Point {
    value: f64,
    slope: f64,
}

impl Point {
    const ZERO: Point = Point { value: 0.0, slope: 0.0 };

    fn times(self, weight: f64) -> Point {
        Point { value: self.value * weight, slope: self.slope * weight }
    }

    fn plus(self, other: Point) -> Point {
        Point { value: self.value + other.value, slope: self.slope + other.slope }
    }
}

/// Of a row with a set of labels, ascending; `None` is unlabelled and follows the teacher alone, weighted λ.
pub fn set_loss(method: &Method, row: &Sided, set: Option<&[u32]>) -> Term {
    let mean = 1.0 / row.logits.len() as f64;
    let label = |k: usize, z: f64| match set {
        None => Point::ZERO,
        Some(set) if set.contains(&(k as u32)) => {
            let weight = row.weights.get(k).copied().unwrap_or(1.0);
            Point { value: softplus(-z), slope: sigmoid(z) - 1.0 }.times(weight * mean)
        }
        Some(_) => Point { value: softplus(z), slope: sigmoid(z) }.times(mean),
    };
    // Of the labels that the teacher knows: of the others it says nothing, and the student has learnt them from rows.
    let surprise = |logits: &[f64], known: &[bool]| -> f64 {
        let among = logits.iter().enumerate().filter(|(k, _)| known[*k]);
        among.map(|(k, z)| label(k, *z).value).sum()
    };
    let is_followed = |rows: TeacherRows, (teacher, known): (&[f64], &[bool])| match rows {
        _ if set.is_none() => true,
        TeacherRows::All => true,
        TeacherRows::Better => surprise(teacher, known) < surprise(row.logits, known),
        TeacherRows::Old => row.is_old,
    };
    let told = |k: usize, z: f64| -> Option<Point> {
        let known = row.teacher.filter(|(_, known)| known[k])?;
        let teacher = known.0;
        match *method {
            Method::Distil { temperature, divergence, rows, .. } if is_followed(rows, known) => {
                Some(match divergence {
                    Divergence::LogitMse => squared(z, teacher[k]).times(0.5),
                    Divergence::MixedLabel => towards(z, sigmoid(teacher[k])).times(mean),
                    _ => binary_kl(z, teacher[k], temperature).times(mean),
                })
            }
            Method::Inhibition { margin, power, .. } => {
                Some(inhibited(z, teacher[k], margin, power).times(mean))
            }
            _ => None,
        }
    };
    let point = |(k, z): (usize, &f64)| match told(k, *z) {
        Some(told) => label(k, *z).times(1.0 - row.lambda).plus(told.times(row.lambda)),
        None => label(k, *z),
    };
    let points: Vec<Point> = row.logits.iter().enumerate().map(point).collect();
    Term {
        value: points.iter().map(|point| point.value).sum(),
        gradient: points.iter().map(|point| point.slope).collect(),
    }
}

/// Of a row with a number; `None` is unlabelled and follows the teacher alone, weighted λ. One logit.
pub fn value_loss(method: &Method, row: &Sided, value: Option<f64>) -> Term {
    let z = row.logits[0];
    let label = value.map_or(Point::ZERO, |value| squared(z, value));
    let teacher = row.teacher.filter(|(_, known)| known[0]).map(|(teacher, _)| teacher[0]);
    let told = match (*method, teacher) {
        (Method::Distil { rows, .. }, Some(teacher)) => {
            let is_followed = match (rows, value) {
                (TeacherRows::All, _) | (_, None) => true,
                (TeacherRows::Better, Some(y)) => (teacher - y).abs() < (z - y).abs(),
                (TeacherRows::Old, _) => row.is_old,
            };
            is_followed.then(|| squared(z, teacher))
        }
        _ => None,
    };
    let point = match told {
        Some(told) => label.times(1.0 - row.lambda).plus(told.times(row.lambda)),
        None => label,
    };
    Term { value: point.value, gradient: vec![point.slope] }
}

/// (z − t)².
fn squared(z: f64, t: f64) -> Point {
    Point { value: (z - t) * (z - t), slope: 2.0 * (z - t) }
}

/// −q·log σ(z) − (1 − q)·log σ(−z).
fn towards(z: f64, q: f64) -> Point {
    Point { value: q * softplus(-z) + (1.0 - q) * softplus(z), slope: sigmoid(z) - q }
}

/// T²·KL(σ(t/T) ‖ σ(z/T)) of two coins; slope T·(σ(z/T) − σ(t/T)). T² as in `divergence`.
fn binary_kl(z: f64, t: f64, temperature: f64) -> Point {
    let (z, t) = (z / temperature, t / temperature);
    let q = sigmoid(t);
    // log σ(t) − log σ(z) = softplus(−z) − softplus(−t): no logarithm of a rounded zero.
    let value = q * (softplus(-z) - softplus(-t)) + (1.0 - q) * (softplus(z) - softplus(t));
    Point { value: value * temperature * temperature, slope: (sigmoid(z) - q) * temperature }
}

/// max(|z − t| − margin, 0)^power.
fn inhibited(z: f64, t: f64, margin: f64, power: f64) -> Point {
    let beyond = (z - t).abs() - margin;
    match beyond.is_nan() || beyond > 0.0 {
        true => Point {
            value: beyond.powf(power),
            slope: power * beyond.powf(power - 1.0) * (z - t).signum(),
        },
        false => Point::ZERO,
    }
}
