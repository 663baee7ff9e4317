//! Movement of scores: soft churn, threshold crossings, calibration. Sums that merge by addition.

use serde::{Deserialize, Serialize};

/// Scores of both models compared, as means over rows. KL in nats.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Soft {
    pub rows: u64,
    /// Mean ½‖p_old − p_new‖₁.
    pub total_variation: f64,
    /// Mean KL(p_old ‖ p_new).
    pub kl_old_new: f64,
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
    pub up: u64,
    pub down: u64,
}

/// Over labelled rows; the top class's confidence in 15 equal bins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    pub rows: u64,
    pub ece: f64,
    /// Mean Σₖ (pₖ − yₖ)².
    pub brier: f64,
    /// (rows, sum of confidence, rows that are right) a bin.
    pub bins: Vec<(u64, f64, u64)>,
}
