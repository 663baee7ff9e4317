//! The numbers of an objective, each a function of numbers: shares of classes, mean losses of classes, their weights, gains.

use lowchurn_data::first_largest;

use super::ClassLoss;
use crate::loss::term::log_softmax;

/// π: masses over their sum. All 0 where there is none.
pub fn prior(mass: &[f64]) -> Vec<f64> {
    let sum: f64 = mass.iter().sum();
    mass.iter().map(|m| if sum > 0.0 { m / sum } else { 0.0 }).collect()
}

/// R_j = Σ_x q_j(x)·loss(j, f(x)) / Σ_x q_j(x), (K,); `None` for a class without any mass (papers.md §7.2, §7.5).
///
/// `logits` and `targets` are (N·K); a row of targets is a distribution, one-hot or a teacher's.
pub fn class_losses(
    logits: &[f32],
    targets: &[f64],
    classes: usize,
    loss: ClassLoss,
) -> Vec<Option<f64>> {
    let (mut sums, mut masses) = (vec![0.0; classes], vec![0.0; classes]);
    let rows = logits.chunks_exact(classes.max(1)).zip(targets.chunks_exact(classes.max(1)));
    for (logits, target) in rows {
        let losses = losses_of_row(logits, loss);
        for class in 0..classes {
            sums[class] += target[class] * losses[class];
            masses[class] += target[class];
        }
    }
    let mean = |(sum, mass): (&f64, &f64)| (*mass > 0.0).then(|| sum / mass);
    sums.iter().zip(&masses).map(mean).collect()
}

/// (K,) What a row would cost if each class were the true one.
pub(super) fn losses_of_row(logits: &[f32], loss: ClassLoss) -> Vec<f64> {
    let best = first_largest(logits.len(), |class| logits[class]);
    match loss {
        ClassLoss::ZeroOne => {
            (0..logits.len()).map(|class| f64::from(u8::from(class != best))).collect()
        }
        ClassLoss::CrossEntropy => {
            let logits: Vec<f64> = logits.iter().map(|&z| f64::from(z)).collect();
            log_softmax(&logits, 1.0).iter().map(|log_p| -log_p).collect()
        }
    }
}

/// The class of a row where `bias` (K,) is added to its logits (K,): in f32, as the head adds it that the bias is folded into.
pub fn predicted_with(logits: &[f32], bias: &[f64]) -> usize {
    first_largest(logits.len().min(bias.len()), |class| logits[class] + bias[class] as f32)
}

/// (K,) The share of wrong rows of each class where `bias` (K,) is added to the logits (N·K); 0 of a class without rows.
pub fn losses_of_shifted(logits: &[f32], labels: &[Option<u32>], bias: &[f64]) -> Vec<f64> {
    let classes = bias.len();
    let (mut wrong, mut rows) = (vec![0.0; classes], vec![0.0; classes]);
    for (logits, label) in logits.chunks_exact(classes.max(1)).zip(labels) {
        let Some(label) = label.map(|label| label as usize) else { continue };
        let said = predicted_with(logits, bias);
        rows[label] += 1.0;
        wrong[label] += f64::from(u8::from(said != label));
    }
    wrong.iter().zip(&rows).map(|(wrong, n)| if *n > 0.0 { wrong / n } else { 0.0 }).collect()
}

/// Exponentiated gradient: λ_j ← λ_j·exp(γ·R_j) / Σ, as logarithms in and out (papers.md §7.5). Adding a number to all R
/// changes nothing.
pub fn raise(log_weights: &[f64], losses: &[f64], step: f64) -> Vec<f64> {
    let raised: Vec<f64> =
        log_weights.iter().zip(losses).map(|(log, loss)| log + step * loss).collect();
    log_softmax(&raised, 1.0)
}

/// No weight below the largest over `ratio`: log λ_j ← max(log λ_j, max_k log λ_k − ln ratio), over their sum. Without it the weight of a
/// class that goes right shrinks on and on; when the class is then forgotten, it takes as many rounds until that shows.
pub fn bounded(log_weights: &[f64], ratio: f64) -> Vec<f64> {
    let least = log_weights.iter().copied().fold(f64::NEG_INFINITY, f64::max) - ratio.ln();
    if log_weights.iter().all(|log| *log >= least) {
        return log_weights.to_vec(); // to the last bit
    }
    log_softmax(&log_weights.iter().map(|log| log.max(least)).collect::<Vec<f64>>(), 1.0)
}

/// w = (1 − a)·b + a·λ.
pub fn robust_weights(base: &[f64], worst: &[f64], weight: f64) -> Vec<f64> {
    base.iter().zip(worst).map(|(b, l)| (1.0 - weight) * b + weight * l).collect()
}

/// c = w/π. A class without a share has none: whoever asks has refused it before.
pub fn gains(weights: &[f64], prior: &[f64]) -> Vec<f64> {
    weights.iter().zip(prior).map(|(w, share)| w / share).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::loss::term::log_softmax;

    fn papers(key: &str) -> Value {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/papers_examples.json");
        let all: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        all[key].clone()
    }

    fn numbers(value: &Value) -> Vec<f64> {
        value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    }

    /// The vectors have nine significant digits.
    fn close(found: &[f64], expected: &[f64], what: &str) {
        assert_eq!(found.len(), expected.len(), "{what}");
        let is_close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-8 * (1.0 + b.abs());
        assert!(found.iter().zip(expected).all(is_close), "{what}: {found:?} {expected:?}");
    }

    fn one_hot(label: usize) -> Vec<f64> {
        (0..3).map(|k| f64::from(u8::from(k == label))).collect()
    }

    // The rows of E1 in papers_examples.py.
    const LABELS: [usize; 6] = [0, 0, 0, 1, 1, 2];
    const LOGITS: [[f64; 3]; 6] = [
        [2.0, 0.5, -1.0],
        [1.0, 1.2, 0.0],
        [0.5, 0.1, 0.2],
        [0.3, 1.5, -0.2],
        [1.1, 0.4, 0.1],
        [0.8, 0.2, 0.9],
    ];
    const TEACHER: [[f64; 3]; 6] = [
        [0.8, 0.15, 0.05],
        [0.5, 0.4, 0.1],
        [0.6, 0.2, 0.2],
        [0.2, 0.7, 0.1],
        [0.45, 0.4, 0.15],
        [0.3, 0.1, 0.6],
    ];

    #[test]
    fn objectives_of_six_rows() {
        let logits: Vec<f32> = LOGITS.iter().flatten().map(|&z| z as f32).collect();
        let labels: Vec<f64> = LABELS.iter().flat_map(|&label| one_hot(label)).collect();
        let teacher: Vec<f64> = TEACHER.iter().flatten().copied().collect();
        for (key, targets) in [("E1_objectives_onehot", labels), ("E1_objectives_teacher", teacher)]
        {
            let expected = papers(key);
            let mass: Vec<f64> = (0..3).map(|k| targets.iter().skip(k).step_by(3).sum()).collect();
            let prior = prior(&mass);
            close(&prior, &numbers(&expected["prior"]), key);
            let losses = class_losses(&logits, &targets, 3, ClassLoss::CrossEntropy);
            let losses: Vec<f64> = losses.into_iter().map(Option::unwrap).collect();
            // Of f32 logits: 1e-7 of a logit.
            let expected_losses = numbers(&expected["class_loss"]);
            let far = losses.iter().zip(&expected_losses).map(|(a, b)| (a - b).abs());
            assert!(far.fold(0.0, f64::max) < 1e-7, "{key}: {losses:?}");
            let even = [1.0 / 3.0; 3];
            let worst = (0..3).max_by(|a, b| losses[*a].total_cmp(&losses[*b])).unwrap();
            let of =
                |weights: &[f64]| -> f64 { weights.iter().zip(&losses).map(|(w, l)| w * l).sum() };
            let half = robust_weights(&even, &one_hot(worst), 0.5);
            for (name, found) in [
                ("L_std", of(&prior)),
                ("L_bal", of(&even)),
                ("L_rob", of(&one_hot(worst))),
                ("L_tdf_alpha_0_5", of(&half)),
            ] {
                assert!((found - expected[name].as_f64().unwrap()).abs() < 1e-7, "{key} {name}");
            }
        }
    }

    #[test]
    fn exponentiated_gradient() {
        let case = papers("E2_eg_updates_gamma_0.5");
        let losses = numbers(&case["class_loss"]);
        let mut log_weights = vec![(1.0f64 / 3.0).ln(); 3];
        for expected in case["lambda_trace"].as_array().unwrap() {
            let found: Vec<f64> = log_weights.iter().map(|log| log.exp()).collect();
            close(&found, &numbers(expected), "λ");
            log_weights = raise(&log_weights, &losses, 0.5);
        }
    }

    /// 0.9, 0.09 and 0.01 with at most 10 to 1: the last becomes 0.09, and all are over 1.08.
    #[test]
    fn weights_stay_within_a_ratio() {
        let found = bounded(&[0.9f64.ln(), 0.09f64.ln(), 0.01f64.ln()], 10.0);
        let found: Vec<f64> = found.iter().map(|log| log.exp()).collect();
        close(&found, &[0.9 / 1.08, 0.09 / 1.08, 0.09 / 1.08], "bounded");
    }

    /// A class goes right for a hundred rounds and wrong from then on, its neighbour the other way round: within a ratio of 100 it
    /// weighs more again after as many rounds as the ratio allows, and without one after as many as it went right.
    #[test]
    fn a_bounded_weight_comes_back() {
        let rounds_until_back = |ratio: f64| {
            let even = vec![0.5f64.ln(); 2];
            let of = |logs: &[f64], losses: [f64; 2]| bounded(&raise(logs, &losses, 0.5), ratio);
            let mut logs = (0..100).fold(even, |logs, _| of(&logs, [0.0, 1.0]));
            (1..).find(|_| {
                logs = of(&logs, [1.0, 0.0]);
                logs[0] > logs[1]
            })
        };
        assert_eq!(rounds_until_back(100.0), Some(10)); // ln 100 = 4.6 is nine steps of 0.5 and a bit
        assert_eq!(rounds_until_back(f64::INFINITY).map(|n| n >= 100), Some(true));
    }

    #[test]
    fn rules_of_bayes() {
        let case = papers("E4_bayes_rules");
        let (eta, share, lambda) =
            (numbers(&case["eta"]), numbers(&case["prior"]), numbers(&case["lam"]));
        let scores = |weights: &[f64]| -> Vec<f64> {
            gains(weights, &share).iter().zip(&eta).map(|(c, eta)| c * eta).collect()
        };
        close(&scores(&[1.0; 3]), &numbers(&case["bal_scores"]), "balanced");
        close(&scores(&lambda), &numbers(&case["rob_scores"]), "robust");
        let both = robust_weights(&[1.0 / 3.0; 3], &lambda, 0.5);
        close(&scores(&both), &numbers(&case["tdf_scores"]), "trade-off");
        close(&scores(&share), &eta, "standard");
        let case = papers("E5_teacher_types");
        let balanced = prior(&scores(&[1.0; 3]));
        close(&balanced, &numbers(&case["balanced_teacher"]), "a balanced teacher");
        let undone: Vec<f64> = balanced.iter().zip(&share).map(|(p, share)| p * share).collect();
        close(&prior(&undone), &numbers(&case["undo_balance"]), "undone");
    }

    /// E7: an exact student of two cells, softmax(f) ∝ c·p; E8: where the loop ends, all classes cost the same.
    #[test]
    fn the_loop_evens_out_the_classes() {
        let case = papers("E7_primal_dual_exact_student");
        let mass = numbers(&case["cell_mass"]);
        let cells: Vec<Vec<f64>> =
            case["teacher_cells"].as_array().unwrap().iter().map(numbers).collect();
        let share = numbers(&case["prior"]);
        // The best student under these weights, and its class losses, teacher-labelled.
        let losses = |lambda: &[f64]| -> Vec<f64> {
            let c = gains(lambda, &share);
            let student: Vec<Vec<f64>> = cells
                .iter()
                .map(|cell| prior(&cell.iter().zip(&c).map(|(p, c)| p * c).collect::<Vec<_>>()))
                .collect();
            let of = |class: usize| -> f64 {
                let rows = cells.iter().zip(&student).zip(&mass);
                rows.map(|((p, f), m)| m * p[class] * -f[class].ln()).sum::<f64>() / share[class]
            };
            (0..3).map(of).collect()
        };
        let exp = |logs: &[f64]| -> Vec<f64> { logs.iter().map(|log| log.exp()).collect() };
        let start = || vec![(1.0f64 / 3.0).ln(); 3];
        let mut log_weights = start();
        for step in case["steps"].as_array().unwrap() {
            let lambda = exp(&log_weights);
            close(&lambda, &numbers(&step["lam"]), "λ");
            let found = losses(&lambda);
            close(&found, &numbers(&step["class_loss"]), "losses");
            log_weights = raise(&log_weights, &found, 1.0);
        }
        let mut log_weights = start();
        for _ in 0..4000 {
            log_weights = raise(&log_weights, &losses(&exp(&log_weights)), 0.05);
        }
        let limit = papers("E8_primal_dual_limit");
        close(&exp(&log_weights), &numbers(&limit["lam"]), "limit");
        close(&losses(&exp(&log_weights)), &numbers(&limit["class_loss"]), "evened");
    }

    #[test]
    fn classes_without_mass_have_no_loss() {
        let found = class_losses(&[1.0, 2.0], &[1.0, 0.0], 2, ClassLoss::ZeroOne);
        assert_eq!(found, [Some(1.0), None]);
        assert_eq!(prior(&[0.0, 0.0]), [0.0, 0.0]);
    }

    proptest! {
        /// Weights stay a distribution, whatever is added to all losses, and however large they are.
        #[test]
        fn weights_are_a_distribution(
            losses in prop::collection::vec(0.0f64..5.0, 2..8),
            shift in -100.0f64..100.0,
            step in 0.01f64..50.0,
        ) {
            let even = vec![-(losses.len() as f64).ln(); losses.len()];
            let found = raise(&even, &losses, step);
            let sum: f64 = found.iter().map(|log| log.exp()).sum();
            prop_assert!((sum - 1.0).abs() < 1e-9);
            let shifted: Vec<f64> = losses.iter().map(|loss| loss + shift).collect();
            let other = raise(&even, &shifted, step);
            prop_assert!(found.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-7));
            prop_assert!(log_softmax(&found, 1.0).iter().zip(&found).all(|(a, b)| (a - b).abs() < 1e-9));
            let kept = bounded(&found, 20.0);
            let (most, least) = (kept.iter().copied().fold(f64::MIN, f64::max), kept.iter().copied().fold(f64::MAX, f64::min));
            prop_assert!(most - least <= 20.0f64.ln() + 1e-9);
            prop_assert!((kept.iter().map(|log| log.exp()).sum::<f64>() - 1.0).abs() < 1e-9);
            prop_assert_eq!(bounded(&kept, 20.0 * (1.0 + 1e-6)), kept);
            prop_assert_eq!(bounded(&found, f64::INFINITY), found);
        }
    }
}
