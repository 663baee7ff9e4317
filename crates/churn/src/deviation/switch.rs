//! A loss that was switched in the middle of a run, and what became of the slope after it.

use serde::{Deserialize, Serialize};

use super::Fit;
use super::words::with_interval;

/// One run, so what differs before and after is what the rest of the training did, whatever the loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Switch {
    /// As it was typed: an update, or a share of all of them.
    pub at: String,
    /// λ before and after.
    pub before: f64,
    pub after: f64,
    /// The last checkpoint of before the switch, where one was kept, and all test rows by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<(u64, Fit)>,
    /// In words.
    pub said: String,
}

/// `last` is the student as it is.
pub fn switch_said(
    at: &str,
    (before, after): (f64, f64),
    kept: Option<&(u64, Fit)>,
    last: &Fit,
) -> String {
    let of = |fit: &Fit| {
        let slope = fit.line.as_ref().map_or("none".to_string(), with_interval);
        let mean = format!("{:+.2}", fit.mean_deviation).replace('-', "−");
        format!("the slope is {slope} and the mean y − x {mean}")
    };
    let switched =
        format!("the student's loss was switched {}, from λ {before} to λ {after}", when(at));
    match kept {
        Some((step, fit)) => format!(
            "{switched}; at update {step}, before that, {}; at the end {}; one run, so no interval of what it did",
            of(fit),
            of(last)
        ),
        None => format!(
            "{switched}; what that did isn't known, since the run kept no checkpoint of before it (--keep-checkpoints)"
        ),
    }
}

/// Of a run whose weights are of an update before the switch, of so many: a shorter run, or an earlier one was the best.
pub fn switch_ahead_said(
    at: &str,
    (before, after): (f64, f64),
    (step, total): (u64, u64),
) -> String {
    format!(
        "the student's loss was to be switched {}, from λ {before} to λ {after}, and its weights are of update {step} of {total}, before \
         that",
        when(at)
    )
}

fn when(at: &str) -> String {
    match at.ends_with('%') {
        true => format!("after {at} of its updates"),
        false => format!("after {at} updates"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slope::Line;

    #[test]
    fn a_switch_is_told_with_what_became_of_the_slope() {
        let fit = |slope: f64, mean_deviation: f64| Fit {
            rows: 9,
            from: 0.0,
            to: 1.0,
            line: Some(Line { slope, intercept: 0.0, interval: None }),
            mean_deviation,
            mean_interval: None,
        };
        let last = fit(1.25, -0.5);
        let kept = (30, fit(1.1, 0.25));
        assert_eq!(
            switch_said("50%", (1.0, 0.0), Some(&kept), &last),
            "the student's loss was switched after 50% of its updates, from λ 1 to λ 0; at update 30, before that, the slope is 1.100 \
             (no interval) and the mean y − x +0.25; at the end the slope is 1.250 (no interval) and the mean y − x −0.50; one run, so \
             no interval of what it did"
        );
        assert_eq!(
            switch_said("200", (0.0, 0.5), None, &last),
            "the student's loss was switched after 200 updates, from λ 0 to λ 0.5; what that did isn't known, since the run kept no \
             checkpoint of before it (--keep-checkpoints)"
        );
        assert_eq!(
            switch_ahead_said("75%", (1.0, 0.0), (20, 40)),
            "the student's loss was to be switched after 75% of its updates, from λ 1 to λ 0, and its weights are of update 20 of 40, \
             before that"
        );
    }
}
