//! Budgets and counts that tests of verdicts begin with.
#![allow(dead_code, reason = "each target uses its part")]

use lowchurn_churn::{Budget, Flips, Measurements};

/// Nothing is limited.
pub fn budget() -> Budget {
    Budget {
        max_churn: None,
        max_nfr: None,
        max_slice_nfr: None,
        max_class_nfr: None,
        min_accuracy_gain: None,
        golden: Vec::new(),
        confidence: 0.95,
    }
}

pub fn churn_budget(max_churn: f64) -> Budget {
    Budget { max_churn: Some(max_churn), ..budget() }
}

/// Labelled rows of which so many flip; the rest is right before and after.
pub fn flips(rows: u64, negative: u64, positive: u64, lateral: u64) -> Flips {
    let changed = negative + positive + lateral;
    let both_right = rows - changed;
    Flips {
        rows,
        changed,
        labelled: rows,
        both_right,
        negative,
        positive,
        lateral,
        ..Flips::default()
    }
}

pub fn unlabelled(rows: u64, changed: u64) -> Flips {
    Flips { rows, changed, ..Flips::default() }
}

pub fn measured(all: Flips) -> Measurements {
    Measurements { all, ..Measurements::default() }
}

/// Slices by name beside all rows.
pub fn sliced(all: Flips, slices: &[(&str, Flips)]) -> Measurements {
    let slices = slices.iter().map(|(name, flips)| (name.to_string(), *flips)).collect();
    Measurements { slices, ..measured(all) }
}
