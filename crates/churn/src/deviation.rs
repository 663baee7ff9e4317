//! How a student's confidence deviates from its teacher's: the scatter of φ(teacher) against φ(student), its slopes, and what
//! to do about it (Nagarajan et al. 2023, "On student-teacher deviations in distillation").
//!
//! Speaks of rows of one class each; what a set of labels or a number would deviate by isn't defined here.

use std::collections::HashMap;

use lowchurn_data::{Rng, correlation, first_largest};
use serde::{Deserialize, Serialize};

use crate::interval::mcnemar;
use crate::slope::{Line, line, mean_of};
use crate::{Error, Interval, Pair, Predicted, Rate, Result, Unmatched};

mod class_gaps;
mod directions;
mod gradients;
mod switch;
mod training;
mod words;

pub(crate) use class_gaps::p_shown;
pub use class_gaps::{ClassGap, ClassGaps};
pub use directions::{Directions, Layer, directions_said, geometric_mean};
pub use gradients::{Cosines, GradientNoise, PartNoise, of_batches};
pub use switch::{Switch, switch_ahead_said, switch_said};
pub use training::{Taught, Temperature, Training};

/// What one model says of N rows, before softmax: probabilities in f32 are 1 where logits still differ.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logits {
    /// For messages and the report.
    pub name: String,
    /// (K,)
    pub labels: Vec<String>,
    /// (N,)
    pub ids: Vec<String>,
    /// (N,)
    pub gold: Vec<Option<u32>>,
    /// (N·K), row-major.
    pub logits: Vec<f32>,
}

/// (x, y) a row: φ of the class that the teacher predicts, as the teacher and as the student sees it.
pub type Points = Vec<[f64; 2]>;

/// Everything that is said of a student and its teacher.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// The share of rows, from the least sure of the teacher's, that is called low.
    pub quantile: f64,
    pub parts: Vec<Part>,
    /// What to do, in words.
    pub advice: String,
    /// Which way the weights went, where that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directions: Option<Directions>,
    /// How noisy the student's gradients are, where that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gradients: Option<GradientNoise>,
    /// Of a student whose loss was switched in the middle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch: Option<Switch>,
}

/// Whether the student was trained on the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowsOf {
    Test,
    Train,
}

/// One set of rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    pub rows_of: RowsOf,
    pub data: String,
    pub rows: u64,
    pub teacher_accuracy: Option<Rate>,
    pub student_accuracy: Option<Rate>,
    /// Mid-p of McNemar's test of the two: how often rows tell them so far apart that are right equally often. `None` without true
    /// classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy_p: Option<f64>,
    /// Share of rows on which both predict the same class.
    pub agreement: Option<Rate>,
    pub all: Fit,
    pub low: Fit,
    pub high: Fit,
    /// Four parts of as many rows, from the teacher's least sure.
    pub quarters: Vec<Fit>,
    /// Where the fitted line meets y = x, if that is among the rows.
    pub crossing: Option<f64>,
    pub spearman: Option<f64>,
    pub finding: Finding,
    /// The same in words.
    pub said: String,
    /// How right the teacher's scores of each class are; `None` without true classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_gaps: Option<ClassGaps>,
    /// A sample of the rows, for the picture.
    pub points: Points,
}

/// A straight line through the rows of a range of the teacher's confidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    pub rows: u64,
    /// φ(teacher) of the least and the most sure row.
    pub from: f64,
    pub to: f64,
    /// `None` for fewer than two rows, and where the teacher is equally sure of all.
    pub line: Option<Line>,
    /// Mean of y − x.
    pub mean_deviation: f64,
    pub mean_interval: Option<Interval>,
}

/// What the slope over all rows says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// The interval lies above 1 and the slope far enough from it to matter: the student is less sure where the teacher is unsure,
    /// or surer where it is sure.
    Exaggerates,
    /// Likewise below 1.
    Softens,
    /// The interval holds no slope that is far enough from 1 to matter.
    Alike,
    /// The interval holds 1 and slopes that would matter, or there is none.
    Undecided,
    /// There is no slope.
    NoSlope,
}

/// A slope as near to 1 as this is no finding, however sure: of five seeds of one student the standard deviation is 0.02 to
/// 0.15 (experiments/deviations), and five of log-odds away, from a half to 99.3 %, it is a quarter of one.
const MATTERS: f64 = 0.05;

/// φ(p_k) = log(p_k/(1 − p_k)) = z_k − log Σ_{j≠k} exp(z_j) of logits (K,), K ≥ 2, in f64 and without ever forming p, which f32
/// can't tell from 1 at φ ≈ 16.6.
pub fn log_odds(logits: &[f64], k: usize) -> f64 {
    let others = || logits.iter().enumerate().filter(|(j, _)| *j != k).map(|(_, z)| *z);
    logits[k] - log_sum_exp(others())
}

fn log_sum_exp(logits: impl Iterator<Item = f64> + Clone) -> f64 {
    let highest = logits.clone().fold(f64::NEG_INFINITY, f64::max);
    highest + logits.map(|z| (z - highest).exp()).sum::<f64>().ln()
}

impl Logits {
    /// As answers, for a comparison.
    pub fn predicted(&self) -> Result<Predicted> {
        let Logits { name, labels, ids, gold, logits } = self;
        Predicted::from_logits(name, labels, ids.clone(), gold.clone(), logits)
    }
}

/// Rows by id, labels by name, and φ of both on each row, in the teacher's order.
///
/// Classes that only the student has play no part: its probabilities are those among the teacher's classes. Several classes of
/// the teacher that `label_map` gives one name are one, whose probability is their sum.
///
/// # Errors
/// As [`Pair::align`]; and where fewer than two classes are left to be told apart, or a class of the teacher's isn't one of the
/// student's, also where the map keeps it.
pub fn deviations(
    teacher: &Logits,
    student: &Logits,
    label_map: &[(String, String)],
) -> Result<(Pair, Points)> {
    let pair =
        Pair::align(&teacher.predicted()?, &student.predicted()?, label_map, Unmatched::Refuse)?;
    let renamed = |name: &String| {
        let entry = label_map.iter().find(|(old, _)| old == name);
        entry.map_or(name.clone(), |(_, new)| new.clone())
    };
    let mut of_teacher: Vec<(String, Vec<usize>)> = Vec::new();
    for (k, name) in teacher.labels.iter().enumerate() {
        let name = renamed(name);
        match of_teacher.iter_mut().find(|(known, _)| *known == name) {
            Some((_, classes)) => classes.push(k),
            None => of_teacher.push((name, vec![k])),
        }
    }
    if of_teacher.len() < 2 {
        return Err(Error::OneClass { name: teacher.name.clone(), labels: teacher.labels.clone() });
    }
    let mut of_student = Vec::with_capacity(of_teacher.len());
    for (label, _) in &of_teacher {
        let at = student.labels.iter().position(|name| name == label);
        of_student.push(at.ok_or_else(|| Error::LabelUnknown {
            name: student.name.clone(),
            label: label.clone(),
            known: student.labels.clone(),
        })?);
    }
    let row_of: HashMap<&str, usize> =
        student.ids.iter().enumerate().map(|(row, id)| (id.as_str(), row)).collect();
    let row = |side: &Logits, at: usize| -> Vec<f64> {
        let classes = side.labels.len();
        side.logits[at * classes..(at + 1) * classes].iter().map(|z| f64::from(*z)).collect()
    };
    let mut points = Vec::with_capacity(teacher.ids.len());
    for (at, id) in teacher.ids.iter().enumerate() {
        // Aligned above: both sides hold the same rows.
        let Some(other) = row_of.get(id.as_str()) else { continue };
        let (told, says) = (row(teacher, at), row(student, *other));
        let told: Vec<f64> =
            of_teacher.iter().map(|(_, of)| log_sum_exp(of.iter().map(|k| told[*k]))).collect();
        let says: Vec<f64> = of_student.iter().map(|k| says[*k]).collect();
        let k = first_largest(told.len(), |k| told[k]);
        points.push([log_odds(&told, k), log_odds(&says, k)]);
    }
    Ok((pair, points))
}

/// Points that a report holds; a scatter of more looks the same.
const SHOWN: usize = 1500;

/// One part of a diagnosis from its rows. `quantile` is the share that is called low.
///
/// # Errors
/// A quantile or a confidence that isn't a share.
pub fn part(
    (rows_of, data): (RowsOf, &str),
    pair: &Pair,
    points: &[[f64; 2]],
    quantile: f64,
    confidence: f64,
) -> Result<Part> {
    if !(quantile > 0.0 && quantile < 1.0) {
        return Err(Error::QuantileOutside { quantile });
    }
    if !(confidence > 0.5 && confidence < 1.0) {
        return Err(Error::ConfidenceOutside { confidence });
    }
    let mut sorted = points.to_vec();
    sorted.sort_by(|a, b| a[0].total_cmp(&b[0])); // stable: of equals, the order of the rows
    let n = sorted.len();
    let cut = ((n as f64 * quantile).round() as usize).min(n);
    let fit = |from: usize, to: usize| fit(&sorted[from..to], confidence);
    let all = fit(0, n);
    let (x, y): (Vec<f64>, Vec<f64>) = sorted.iter().map(|p| (p[0], p[1])).unzip();
    let count = |of: &mut dyn Iterator<Item = bool>| {
        let (mut right, mut rows) = (0, 0);
        of.for_each(|is| {
            rows += 1;
            right += u64::from(is);
        });
        Rate::new(right, rows, confidence)
    };
    let judged = |said: &[u32]| {
        let of = said.iter().zip(&pair.gold).filter_map(|(said, gold)| Some(*said == (*gold)?));
        count(&mut of.into_iter())
    };
    let flips = pair.flips();
    let mut part = Part {
        rows_of,
        data: data.into(),
        rows: n as u64,
        teacher_accuracy: judged(&pair.old),
        student_accuracy: judged(&pair.new),
        accuracy_p: (flips.labelled > 0).then(|| mcnemar(flips.negative, flips.positive).mid),
        agreement: count(&mut pair.old.iter().zip(&pair.new).map(|(a, b)| a == b)),
        low: fit(0, cut),
        high: fit(cut, n),
        quarters: (0..4).map(|at| fit(n * at / 4, n * (at + 1) / 4)).collect(),
        crossing: all.line.and_then(crossing).filter(|x| (all.from..=all.to).contains(x)),
        spearman: correlation(&x, &y).and_then(|found| found.spearman),
        finding: finding(&all),
        all,
        said: String::new(),
        class_gaps: class_gaps::class_gaps(pair, confidence),
        points: sample(points),
    };
    part.said = words::said(&part, quantile);
    Ok(part)
}

/// All parts, those of the test first, with what to do about them.
pub fn diagnosis(parts: Vec<Part>, quantile: f64, training: &Training) -> Diagnosis {
    let advice = words::advice(&parts, training);
    Diagnosis { quantile, parts, advice, directions: None, gradients: None, switch: None }
}

fn fit(points: &[[f64; 2]], confidence: f64) -> Fit {
    let (x, y): (Vec<f64>, Vec<f64>) = points.iter().map(|p| (p[0], p[1])).unzip();
    let moved: Vec<f64> = points.iter().map(|p| p[1] - p[0]).collect();
    let (mean_deviation, mean_interval) = mean_of(&moved, confidence).unwrap_or_default();
    let end = |at: Option<&f64>| at.copied().unwrap_or_default();
    Fit {
        rows: points.len() as u64,
        from: end(x.first()),
        to: end(x.last()),
        line: line(&x, &y, confidence),
        mean_deviation,
        mean_interval,
    }
}

/// intercept + slope·x = x.
fn crossing(line: Line) -> Option<f64> {
    let x = line.intercept / (1.0 - line.slope);
    x.is_finite().then_some(x)
}

fn finding(all: &Fit) -> Finding {
    let Some(line) = all.line else { return Finding::NoSlope };
    match line.interval {
        Some(interval) if interval.low > 1.0 && line.slope > 1.0 + MATTERS => Finding::Exaggerates,
        Some(interval) if interval.high < 1.0 && line.slope < 1.0 - MATTERS => Finding::Softens,
        Some(interval) if interval.low >= 1.0 - MATTERS && interval.high <= 1.0 + MATTERS => {
            Finding::Alike
        }
        _ => Finding::Undecided,
    }
}

/// Some of the rows, in their order, the same ones of the same number; four digits are more than a picture shows.
fn sample(points: &[[f64; 2]]) -> Points {
    let mut rows: Vec<u32> = (0..points.len() as u32).collect();
    if rows.len() > SHOWN {
        Rng::stream(0, "deviation points", 0).shuffle(&mut rows);
        rows.truncate(SHOWN);
        rows.sort_unstable();
    }
    let short = |x: f64| (x * 1e4).round() / 1e4;
    rows.iter().map(|row| points[*row as usize].map(short)).collect()
}

#[cfg(test)]
mod tests;
