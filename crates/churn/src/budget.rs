//! A churn budget: what is promised, and whether untouched rows certify it.

use serde::{Deserialize, Serialize};

/// What must hold of an update. Shares, not percent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    pub max_churn: Option<f64>,
    pub max_nfr: Option<f64>,
    /// On every slice with rows enough.
    pub max_slice_nfr: Option<f64>,
    /// accuracy_new − accuracy_old must not be certified to be below this.
    pub min_accuracy_gain: Option<f64>,
    /// Ids whose prediction must not change.
    pub golden: Vec<String>,
    /// Of the whole verdict; several limits share the error 1 − confidence.
    pub confidence: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Verdict {
    Pass,
    Fail,
    Inconclusive,
}

/// One limit, judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// `churn`, `nfr`, `nfr of airline = Delta`, `accuracy gain`, `golden rows`.
    pub name: String,
    pub limit: f64,
    pub observed: f64,
    pub count: u64,
    pub of: u64,
    /// One-sided exact bounds at this check's share of the error.
    pub low: f64,
    pub high: f64,
    pub confidence: f64,
    pub verdict: Verdict,
    /// Rows needed in all for a PASS at the observed rate, where inconclusive and reachable.
    pub rows_needed: Option<u64>,
    /// A sentence for people.
    pub said: String,
}

/// The verdict over all limits: FAIL if one fails, else INCONCLUSIVE if one is, else PASS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    pub verdict: Verdict,
    pub checks: Vec<Check>,
    pub confidence: f64,
    /// How the error was shared, for people.
    pub correction: String,
    /// The candidates that were walked, from safest to boldest, where there were several.
    pub walked: Vec<Step>,
}

/// A candidate on the way from safest to boldest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub name: String,
    pub calibration_churn: f64,
    pub calibration_accuracy: Option<f64>,
    /// `None` where the walk had stopped before it.
    pub certified: Option<Verdict>,
    pub is_chosen: bool,
}
