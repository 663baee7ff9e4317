//! A pair → everything that is said about it, split into all, old and new rows, and slices.

use serde::{Deserialize, Serialize};

use crate::{Estimate, Flips, McNemar, Rate, Soft};

/// One set of rows, measured. What isn't defined (nothing labelled, a division by nothing) is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    pub flips: Flips,
    pub churn: Option<Rate>,
    pub nfr: Option<Rate>,
    pub pfr: Option<Rate>,
    pub lateral: Option<Rate>,
    pub accuracy_old: Option<Rate>,
    pub accuracy_new: Option<Rate>,
    /// accuracy_new − accuracy_old, paired bootstrap over rows.
    pub accuracy_gain: Option<Estimate>,
    pub nfi: Option<f64>,
    pub pfi: Option<f64>,
    pub relative_nfr: Option<f64>,
    pub win_loss: Option<f64>,
    pub btc: Option<f64>,
    pub bec: Option<f64>,
    pub mcnemar: Option<McNemar>,
}

/// A named subset of rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// Such as `airline = Delta`, `predicted = positive`, `length 0–10 words`, `contains "refund"`.
    pub name: String,
    /// What the slices of one kind have in common: `airline`, `predicted`, `length`, `keyword`.
    pub kind: String,
    pub measured: Measured,
    /// Two-sided p of "this slice's churn is that of the other rows", corrected over all slices (Holm).
    pub p_corrected: Option<f64>,
}

/// Rows of one true class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OfClass {
    pub label: String,
    pub flips: Flips,
    pub recall_old: Option<f64>,
    pub recall_new: Option<f64>,
    pub nfr: Option<Rate>,
}

/// Rows that went from one prediction to another, the diagonal included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FromTo {
    pub from: String,
    pub to: String,
    pub rows: u64,
    pub negative: u64,
    pub positive: u64,
}

/// All that a comparison of two models says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    pub all: Measured,
    pub old_rows: Option<Measured>,
    pub new_rows: Option<Measured>,
    pub soft: Option<Soft>,
    pub classes: Vec<OfClass>,
    /// Lowest recall of a class, by name.
    pub worst_class_old: Option<(String, f64)>,
    pub worst_class_new: Option<(String, f64)>,
    /// Worst churn first, those with few rows last.
    pub slices: Vec<Slice>,
    pub from_to: Vec<FromTo>,
    /// churn ÷ churn of a plain retrain, where one was given.
    pub churn_ratio: Option<f64>,
    /// Churn between runs that differ by their seed only, where such were given.
    pub seed_floor: Option<Rate>,
    /// Rows on one side only, which don't count.
    pub n_only_old: u64,
    pub n_only_new: u64,
}
