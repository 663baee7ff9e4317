//! Methods and their settings on the axes churn and accuracy: frontier, churn at cold accuracy, cost curve.

use serde::{Deserialize, Serialize};

/// One run of one setting and seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunPoint {
    /// `retrain`, `distil`, `interpolate`, …
    pub method: String,
    /// `cold`, `warm` or empty.
    pub init: String,
    /// The rest that tells settings of a method apart: `λ 0.5 T 1`.
    pub setting: String,
    pub seed: u64,
    pub accuracy: f64,
    pub churn: f64,
    pub nfr: f64,
}

/// Mean and standard error (n − 1) over seeds; the error is `None` for one seed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    pub value: f64,
    pub standard_error: Option<f64>,
}

/// One setting over its seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    pub method: String,
    pub init: String,
    pub setting: String,
    pub seeds: Vec<u64>,
    pub accuracy: Mean,
    pub churn: Mean,
    pub nfr: Mean,
    pub is_on_frontier: bool,
}
