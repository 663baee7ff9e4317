//! Learning rate by step: the three schedules that are in common use, as transformers' `get_scheduler` defines them.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Down to 0 in a straight line.
    Linear,
    /// Down to 0 along half a cosine.
    Cosine,
    Constant,
}

impl Schedule {
    /// What the peak rate is multiplied by in update `step` (0 for the first) of `total`, after a straight
    /// warm-up from 0 over `warmup` steps. The first update of a warm-up has rate 0, as in transformers.
    pub fn factor(self, step: u64, warmup: u64, total: u64) -> f64 {
        if step < warmup {
            return step as f64 / warmup as f64;
        }
        let length = total.saturating_sub(warmup).max(1) as f64;
        let done = (step - warmup) as f64 / length;
        match self {
            // Not 1 − done: a warm-up as long as the run ends at 0.
            Schedule::Linear => total.saturating_sub(step) as f64 / length,
            Schedule::Cosine => (0.5 * (1.0 + (PI * done).cos())).max(0.0),
            Schedule::Constant => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Case {
        schedule: String,
        warmup_steps: u64,
        steps: u64,
        learning_rate: f64,
        rates: Vec<f64>,
        rate_after: f64,
    }

    /// tests/golden/make.py, from `transformers.get_scheduler`.
    #[test]
    fn equals_transformers() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/schedule.json");
        let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert!(cases.len() > 5);
        for case in cases {
            let schedule = match case.schedule.as_str() {
                "linear" => Schedule::Linear,
                "cosine" => Schedule::Cosine,
                _ => Schedule::Constant,
            };
            for (step, &expected) in case.rates.iter().chain([&case.rate_after]).enumerate() {
                let rate = case.learning_rate
                    * schedule.factor(step as u64, case.warmup_steps, case.steps);
                let close = (rate - expected).abs() <= 1e-12 * case.learning_rate;
                assert!(close, "{schedule:?} step {step}: {rate} {expected}");
            }
        }
    }
}
