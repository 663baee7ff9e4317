//! Exact binomial intervals and exact tests on paired flips.

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

/// A number with an interval from a bootstrap or another estimate.
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
