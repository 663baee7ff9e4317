//! Post-shifting: one number a class is added to the logits of a trained model, so that the classes that are worst off are
//! predicted more often: argmax_y z_y + log v_y (papers.md §7.7). Nothing is trained; the shift folds into the head's bias.
//!
//! Refuses classes without a row to fit on and shares of zero.

use crate::objective::losses_of_shifted;
use crate::{Base, Error, Rescaling, Result, gains, raise, robust_weights};

/// Whom the shift is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ShiftTo {
    /// The mean over classes: v = 1/π, with nothing to fit.
    Balanced,
    /// v = w/π with w = (1 − a)·b + a·λ, λ by exponentiated gradient on the classes' errors; the best of all rounds is taken.
    Robust { weight: f64, base: Base, step: f64, rounds: usize },
}

/// A shift and what it does on the rows that it was fitted on, where it looks better than elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Shift {
    /// T = 1 and log v with Σ = 0.
    pub rescaling: Rescaling,
    /// (K,) The share of wrong rows of each class, without and with it.
    pub errors_before: Vec<f64>,
    pub errors_after: Vec<f64>,
    /// The round that it is of; `None` where no round was better than no shift at all, and of the balanced one.
    pub round: Option<usize>,
}

/// The shift for rows with labels; `logits` is (N·K), `prior` (K,) the shares of the classes among the rows that the model
/// was trained on.
///
/// # Errors
/// [`Error::Objective`] where a class has no row or no share; [`Error::LabelIndex`].
pub fn fit_shift(
    logits: &[f32],
    labels: &[Option<u32>],
    names: &[String],
    prior: &[f64],
    to: ShiftTo,
) -> Result<Shift> {
    let classes = names.len();
    check(logits.len(), labels, names, prior)?;
    let errors = |bias: &[f64]| losses_of_shifted(logits, labels, bias);
    let log_of = |weights: &[f64]| -> Vec<f64> {
        centred(gains(weights, prior).iter().map(|v| v.max(f64::MIN_POSITIVE).ln()).collect())
    };
    let even = vec![1.0 / classes as f64; classes];
    let errors_before = errors(&vec![0.0; classes]);
    let of = |bias: Vec<f64>, errors_after: Vec<f64>, round: Option<usize>| Shift {
        rescaling: Rescaling { temperature: 1.0, bias },
        errors_before: errors_before.clone(),
        errors_after,
        round,
    };
    let ShiftTo::Robust { weight, base, step, rounds } = to else {
        let bias = log_of(&even);
        let after = errors(&bias);
        return Ok(of(bias, after, None));
    };
    let base = match base {
        Base::Balanced => even.clone(),
        Base::Standard => prior.to_vec(),
    };
    let cost = |errors: &[f64]| {
        let mean: f64 = base.iter().zip(errors).map(|(b, e)| b * e).sum();
        (1.0 - weight) * mean + weight * errors.iter().copied().fold(0.0, f64::max)
    };
    let mut best = of(vec![0.0; classes], errors_before.clone(), None);
    let mut log_weights: Vec<f64> = even.iter().map(|share| share.ln()).collect();
    for round in 1..=rounds {
        let worst: Vec<f64> = log_weights.iter().map(|log| log.exp()).collect();
        let bias = log_of(&robust_weights(&base, &worst, weight));
        let found = errors(&bias);
        log_weights = raise(&log_weights, &found, step);
        if cost(&found) < cost(&best.errors_after) {
            best = of(bias, found, Some(round));
        }
    }
    Ok(best)
}

/// Refuses classes without a row or a share.
fn check(n_logits: usize, labels: &[Option<u32>], names: &[String], prior: &[f64]) -> Result<()> {
    let classes = names.len();
    let refuse = |reason: String| Err(Error::Objective { reason });
    if prior.len() != classes || n_logits != labels.len() * classes {
        let found = (n_logits, prior.len());
        return refuse(format!(
            "{found:?} logits and shares for {classes} classes, expected N·K and K"
        ));
    }
    if let Some(at) = prior.iter().position(|share| share.is_nan() || *share <= 0.0) {
        return refuse(format!(
            "post-shift: no row of those that tell the classes' shares has the label {:?}, so its share is zero; add rows of it",
            names[at]
        ));
    }
    let mut counts = vec![0u64; classes];
    for (row, label) in labels.iter().enumerate() {
        let Some(label) = *label else { continue };
        let Some(count) = counts.get_mut(label as usize) else {
            return Err(Error::LabelIndex { row, label, classes });
        };
        *count += 1;
    }
    if let Some(at) = counts.iter().position(|count| *count == 0) {
        return refuse(format!(
            "post-shift: no row has the label {:?}, so its errors can't be measured; add rows of it",
            names[at]
        ));
    }
    Ok(())
}

/// Less its mean, which no prediction depends on.
fn centred(bias: Vec<f64>) -> Vec<f64> {
    let mean = bias.iter().sum::<f64>() / bias.len().max(1) as f64;
    bias.iter().map(|b| b - mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|class| format!("class {class}")).collect()
    }

    fn robust(weight: f64) -> ShiftTo {
        ShiftTo::Robust { weight, base: Base::Balanced, step: 0.5, rounds: 200 }
    }

    /// papers_examples.json, E6_post_shift: weights (0.4, 1, 2.5) turn class 0 into class 2.
    #[test]
    fn the_shift_of_the_papers() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/papers_examples.json");
        let all: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let case = &all["E6_post_shift"];
        let numbers = |key: &str| -> Vec<f64> {
            case[key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
        };
        let logits: Vec<f32> = numbers("logits").iter().map(|z| *z as f32).collect();
        // 1/π with these shares is proportional to the weights.
        let prior: Vec<f64> =
            crate::prior(&numbers("weights").iter().map(|v| 1.0 / v).collect::<Vec<_>>());
        let labels = [Some(0), Some(1), Some(2)];
        let found =
            fit_shift(&logits.repeat(3), &labels, &names(3), &prior, ShiftTo::Balanced).unwrap();
        assert_eq!(found.errors_before, [0.0, 1.0, 1.0]);
        assert_eq!(found.errors_after, [1.0, 1.0, 0.0]);
        let shifted = found.rescaling.apply(&logits);
        let expected = numbers("shifted");
        // All are shifted by one more number, which softmax doesn't see; f32.
        for class in 1..3 {
            let (found, expected) = (shifted[class] - shifted[0], expected[class] - expected[0]);
            assert!((f64::from(found) - expected).abs() < 1e-6, "{shifted:?}");
        }
        assert!(found.rescaling.bias.iter().sum::<f64>().abs() < 1e-12);
    }

    /// Two classes on a line, z₁ − z₀ = x: class 1 at −3, …, 1 and class 0 at −6, …, −1, so that no shift is right on all.
    /// The best threshold for the worse class lies between; no shift has all of class 0 and one of five of class 1.
    #[test]
    fn the_worst_class_gains() {
        let rows: Vec<(f32, u32)> =
            (-6..=-1).map(|x| (x as f32 - 0.5, 0)).chain((-3..=1).map(|x| (x as f32, 1))).collect();
        let logits: Vec<f32> = rows.iter().flat_map(|(x, _)| [0.0, *x]).collect();
        let labels: Vec<Option<u32>> = rows.iter().map(|(_, label)| Some(*label)).collect();
        let fit = |to| fit_shift(&logits, &labels, &names(2), &[0.5, 0.5], to).unwrap();
        let found = fit(robust(1.0));
        assert_eq!(found.errors_before, [0.0, 0.8]); // 0 is a tie, which the first class wins
        // The least worst error of any threshold, by trying all.
        let worst = |errors: &[f64]| errors.iter().copied().fold(0.0, f64::max);
        let least = (-40..40).map(|t| f64::from(t) * 0.25 + 0.1).map(|t| {
            let wrong = |class: u32| {
                let own: Vec<f32> =
                    rows.iter().filter(|row| row.1 == class).map(|row| row.0).collect();
                let miss = own.iter().filter(|x| (f64::from(**x) > t) != (class == 1)).count();
                miss as f64 / own.len() as f64
            };
            wrong(0).max(wrong(1))
        });
        let least = least.fold(1.0, f64::min);
        assert!((worst(&found.errors_after) - least).abs() < 1e-12, "{found:?} {least}");
        assert!(found.round.is_some());
        // Never worse than no shift by what is asked for.
        let none = ShiftTo::Robust { weight: 1.0, base: Base::Balanced, step: 0.5, rounds: 0 };
        assert_eq!(fit(none).rescaling.bias, [0.0, 0.0]);
    }

    #[test]
    fn what_can_not_be_fitted_is_refused() {
        let check = |labels: &[Option<u32>], prior: &[f64], expected: &str| {
            let logits = vec![0.0; labels.len() * 2];
            let found = fit_shift(&logits, labels, &names(2), prior, robust(1.0));
            assert_eq!(found.unwrap_err().to_string(), expected);
        };
        check(
            &[Some(0), None],
            &[0.5, 0.5],
            "post-shift: no row has the label \"class 1\", so its errors can't be measured; add rows of it",
        );
        check(
            &[Some(0), Some(1)],
            &[1.0, 0.0],
            "post-shift: no row of those that tell the classes' shares has the label \"class 1\", so its share is zero; add \
             rows of it",
        );
        check(&[Some(0), Some(2)], &[0.5, 0.5], "row 1: label 2, but the model has 2 classes");
        check(&[Some(0)], &[1.0], "(2, 1) logits and shares for 2 classes, expected N·K and K");
    }
}
