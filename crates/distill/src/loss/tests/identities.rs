//! What must hold for any logits.

use proptest::prelude::*;

use super::assert_close;
use crate::Method;
use crate::loss::bi_tempered::bi_tempered;
use crate::loss::divergence::{decoupled, kl};
use crate::loss::row::{Row, predicted, row_loss};
use crate::loss::term::{Term, dot, entropy, exp, log_softmax, log_sum_exp};

const WITH_TEACHER: [&str; 13] = [
    "distil",
    "distil:temperature=3",
    "distil:divergence=reverse-kl",
    "distil:divergence=js",
    "distil:divergence=logit-mse",
    "distil:divergence=mixed-label",
    "distil:divergence=standardised",
    "distil:divergence=decoupled",
    "distil:rows=better",
    "distil:rows=old",
    "anchor",
    "focal",
    "inhibition",
];

fn loss(method: &str, row: &Row) -> Term {
    row_loss(&method.parse::<Method>().unwrap(), row)
}

fn same(a: &Term, b: &Term, what: &str) {
    assert_close(&[a.value], &[b.value], 1e-12, what);
    assert_close(&a.gradient, &b.gradient, 1e-12, what);
}

/// Student, teacher, label, λ; three classes or more.
fn rows() -> impl Strategy<Value = (Vec<f64>, Vec<f64>, usize, f64)> {
    (3usize..7).prop_flat_map(|k| {
        let logits = || prop::collection::vec(-6.0f64..6.0, k);
        (logits(), logits(), 0..k, 0.0f64..=1.0)
    })
}

const ALL: [bool; 8] = [true; 8];

fn row<'a>(student: &'a [f64], teacher: &'a [f64], label: Option<usize>, lambda: f64) -> Row<'a> {
    Row {
        logits: student,
        label,
        class_weight: &[],
        label_smoothing: 0.0,
        lambda,
        teacher: Some((teacher, &ALL[..student.len()])),
        is_old: true,
        partner: None,
    }
}

proptest! {
    #[test]
    fn two_terms_are_the_mixed_label((z, t, y, lambda) in rows()) {
        let row = row(&z, &t, Some(y), lambda);
        let (mixed, two) = (loss("distil:divergence=mixed-label", &row), loss("distil", &row));
        let difference = lambda * entropy(&t).value;
        assert_close(&[mixed.value], &[two.value + difference], 1e-12, "value");
        assert_close(&mixed.gradient, &two.gradient, 1e-12, "gradient");
        // One cross-entropy to one target, as the papers write it.
        let mut target: Vec<f64> = exp(&log_softmax(&t, 1.0)).iter().map(|q| lambda * q).collect();
        target[y] += 1.0 - lambda;
        assert_close(&[mixed.value], &[-dot(&target, &log_softmax(&z, 1.0))], 1e-12, "one target");
    }

    /// T²·KL → ‖centred z_s − centred z_t‖²/(2K).
    #[test]
    fn at_high_temperature_logits_are_matched((z, t, y, _) in rows()) {
        let found = loss("distil:temperature=100000", &row(&z, &t, Some(y), 1.0)).value;
        let n = z.len() as f64;
        let gap: Vec<f64> = z.iter().zip(&t).map(|(z, t)| z - t).collect();
        let mean = gap.iter().sum::<f64>() / n;
        let expected = gap.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / (2.0 * n);
        assert_close(&[found], &[expected], 1e-3, "limit");
    }

    #[test]
    fn without_lambda_it_is_retraining((z, t, y, _) in rows(), smoothing in 0.0f64..0.5) {
        let row = Row { label_smoothing: smoothing, ..row(&z, &t, Some(y), 0.0) };
        let plain = loss("retrain", &row);
        for method in WITH_TEACHER {
            prop_assert_eq!(&loss(method, &row), &plain, "{}", method);
        }
        for method in ["anchor-rcp:eta=1", "anchor-rcp:eta=1,smoothed=true"] {
            prop_assert_eq!(&loss(method, &row), &plain, "{}", method);
        }
    }

    #[test]
    fn at_lambda_one_labels_are_ignored((z, t, y, _) in rows(), other in 0usize..3) {
        for method in WITH_TEACHER {
            if method.contains("decoupled") || method.contains("better") || method == "anchor" || method == "focal" {
                continue; // these look at the label
            }
            let (one, two) = (row(&z, &t, Some(y), 1.0), row(&z, &t, Some(other), 1.0));
            prop_assert_eq!(loss(method, &one), loss(method, &two), "{}", method);
            prop_assert_eq!(loss(method, &one), loss(method, &row(&z, &t, None, 1.0)), "{}", method);
        }
        let (one, two) = (row(&z, &t, Some(y), 1.0), row(&z, &t, Some(other), 1.0));
        prop_assert_eq!(loss("focal:focus=all", &one), loss("focal:focus=all", &two));
    }

    /// λ weighs the teacher's term also where there is no label: λ times what it is at λ = 1.
    #[test]
    fn unlabelled_rows_have_the_teacher_alone((z, t, _, lambda) in rows()) {
        for method in WITH_TEACHER {
            let found = loss(method, &row(&z, &t, None, lambda));
            let whole = loss(method, &row(&z, &t, None, 1.0));
            same(&found, &whole.times(lambda), method);
        }
        // Old or not, better or not: it has nothing else to learn from.
        let other = Row { is_old: false, ..row(&z, &t, None, lambda) };
        same(&loss("distil:rows=old", &other), &loss("distil", &other), "old");
        same(&loss("distil:rows=better", &other), &loss("distil", &other), "better");
    }

    /// KL = KL(pairs) + (1 − b_t)·KL(rest), so the decoupled loss is KL with another weight on the rest.
    #[test]
    fn decoupled_parts_add_up_to_kl((z, t, y, _) in rows(), temperature in 0.5f64..8.0) {
        let without = |x: &[f64]| -> Vec<f64> {
            x.iter().enumerate().filter(|(k, _)| *k != y).map(|(_, x)| *x).collect()
        };
        let rest = kl(&without(&z), &without(&t), temperature).value;
        let sure = log_softmax(&t, temperature)[y].exp();
        let found = decoupled(&z, &t, temperature, y).value - 8.0 * rest + (1.0 - sure) * rest;
        let whole = kl(&z, &t, temperature).value;
        prop_assert!((found - whole).abs() < 1e-11 * (1.0 + rest * 8.0), "{found} {whole}");
    }

    /// Without the label, the decoupled target is what the teacher says.
    #[test]
    fn decoupled_without_label((z, t, _, _) in rows()) {
        let method = "distil:divergence=decoupled";
        let said = row(&z, &t, Some(predicted(&t)), 1.0);
        same(&loss(method, &row(&z, &t, None, 1.0)), &loss(method, &said), "target");
    }

    /// Classes that the teacher doesn't know: as if the student hadn't them, whatever the teacher's numbers for them are.
    #[test]
    fn unknown_classes_are_left_out((z, t, y, lambda) in rows(), new in -6.0f64..6.0) {
        let (mut grown_z, mut grown_t) = (z.clone(), t.clone());
        grown_z.insert(1, new);
        grown_t.insert(1, f64::NAN);
        let mut known = vec![true; grown_z.len()];
        known[1] = false;
        let moved = |y: usize| if y < 1 { y } else { y + 1 };
        for method in WITH_TEACHER {
            if method == "anchor" || method == "focal" || method.contains("better") {
                continue; // their decisions are tested below
            }
            let grown = Row {
                teacher: Some((&grown_t, &known)),
                ..row(&grown_z, &grown_t, Some(moved(y)), 1.0)
            };
            let mut found = loss(method, &grown);
            prop_assert_eq!(found.gradient.remove(1), 0.0);
            same(&found, &loss(method, &row(&z, &t, Some(y), 1.0)), method);
        }
        // The label's term is over all classes.
        let grown = Row {
            teacher: Some((&grown_t, &known)),
            ..row(&grown_z, &grown_t, Some(moved(y)), lambda)
        };
        let expected = (1.0 - lambda) * loss("retrain", &grown).value + lambda * kl(&z, &t, 1.0).value;
        assert_close(&[loss("distil", &grown).value], &[expected], 1e-12, "both terms");
        // A row of a new class has its label alone.
        for method in WITH_TEACHER.into_iter().chain(["anchor-rcp", "anchor-rcp:smoothed=true"]) {
            let new = Row { label: Some(1), ..grown };
            prop_assert_eq!(loss(method, &new), loss("retrain", &new), "{}", method);
        }
    }

    /// Adding a constant to all logits changes nothing where probabilities are compared.
    #[test]
    fn gradients_sum_to_zero((z, t, y, lambda) in rows(), smoothing in 0.0f64..0.5) {
        let row = Row { label_smoothing: smoothing, partner: Some((0, 0.3)), ..row(&z, &t, Some(y), lambda) };
        let others = [
            "retrain", "anchor-rcp", "anchor-rcp:smoothed=true", "mixup", "bi-tempered", "bi-tempered:t1=0.2,t2=6",
            "confidence-penalty", "entropy-minimisation", "knn-smoothing",
        ];
        for method in WITH_TEACHER.into_iter().chain(others) {
            if method.contains("logit-mse") || method == "inhibition" {
                continue; // these compare logits as they are
            }
            let sum: f64 = loss(method, &row).gradient.iter().sum();
            prop_assert!(sum.abs() < 1e-11, "{method}: {sum}");
        }
    }

    /// A student that is its teacher is left alone, and one that isn't is drawn nearer.
    #[test]
    fn the_teacher_pulls((z, t, y, _) in rows()) {
        for method in WITH_TEACHER {
            if method.contains("mixed-label") || method.contains("better") || method == "anchor" {
                continue; // cross-entropies, and rows that may not be followed
            }
            let still = loss(method, &row(&t, &t, Some(y), 1.0));
            prop_assert!(still.value.abs() < 1e-12, "{method}: {still:?}");
            assert_close(&still.gradient, &vec![0.0; t.len()], 1e-12, method);
            let before = loss(method, &row(&z, &t, Some(y), 1.0));
            prop_assert!(before.value >= 0.0, "{method}: {before:?}");
            let nearer: Vec<f64> = z.iter().zip(&before.gradient).map(|(z, g)| z - 1e-4 * g).collect();
            let after = loss(method, &row(&nearer, &t, Some(y), 1.0));
            prop_assert!(after.value <= before.value, "{method}: {before:?} {after:?}");
        }
    }

    #[test]
    fn smoothing_is_a_uniform_teacher((z, _, y, lambda) in rows()) {
        let uniform = vec![0.0; z.len()];
        let smoothed = Row { label_smoothing: lambda, ..row(&z, &uniform, Some(y), 0.0) };
        let taught = row(&z, &uniform, Some(y), lambda);
        same(&loss("retrain", &smoothed), &loss("distil:divergence=mixed-label", &taught), "uniform");
    }

    #[test]
    fn anchor_follows_where_the_teacher_is_right((z, t, y, lambda) in rows()) {
        let row = row(&z, &t, Some(y), lambda);
        let (mixed, plain) = (loss("distil:divergence=mixed-label", &row), loss("retrain", &row));
        let is_right = predicted(&t) == y;
        same(&loss("anchor", &row), if is_right { &mixed } else { &plain }, "anchor");
        let wrong = plain.clone().times(0.3);
        same(&loss("anchor-rcp:eta=0.3", &row), if is_right { &mixed } else { &wrong }, "rcp");
    }

    #[test]
    fn better_and_old_choose_rows((z, t, y, lambda) in rows(), is_old: bool) {
        let row = Row { is_old, ..row(&z, &t, Some(y), lambda) };
        let (whole, plain) = (loss("distil", &row), loss("retrain", &row));
        let is_better = log_softmax(&t, 1.0)[y] > log_softmax(&z, 1.0)[y];
        same(&loss("distil:rows=better", &row), if is_better { &whole } else { &plain }, "better");
        same(&loss("distil:rows=old", &row), if is_old { &whole } else { &plain }, "old");
    }

    #[test]
    fn focus_weighs_rows((z, t, y, lambda) in rows()) {
        let row = row(&z, &t, Some(y), lambda);
        let (old_right, new_right) = (predicted(&t) == y, predicted(&z) == y);
        let term = kl(&z, &t, 2.0);
        for (focus, is_in) in [
            ("all", true),
            ("old-right", old_right),
            ("new-wrong", !new_right),
            ("negative-flip", old_right && !new_right),
        ] {
            let weight = if is_in { 0.5 + 3.0 } else { 0.5 };
            let method = format!("focal:temperature=2,alpha=0.5,beta=3,focus={focus}");
            let expected =
                loss("retrain", &row).times(1.0 - lambda).plus(&term.clone().times(lambda * weight));
            same(&loss(&method, &row), &expected, &method);
        }
        let unlabelled = Row { label: None, ..row };
        let found = loss("focal:temperature=2,alpha=0.5,beta=3", &unlabelled);
        same(&found, &term.clone().times(lambda * 0.5), "no label, no focus");
    }

    /// One of the two lowers confidence and the other raises it.
    #[test]
    fn confidence_goes_down_or_up((z, t, y, _) in rows()) {
        let row = row(&z, &t, Some(y), 0.0);
        let (plain, rising) = (loss("retrain", &row), entropy(&z));
        let along = |method: &str, share: f64| {
            let found = loss(method, &row).plus(&plain.clone().times(-share));
            dot(&found.gradient, &rising.gradient) // descent goes the other way
        };
        prop_assert!(along("confidence-penalty:beta=0.2", 1.0) <= 0.0);
        prop_assert!(along("entropy-minimisation:alpha=0.2", 0.8) >= 0.0);
    }

    #[test]
    fn mixup_shares_labels((z, t, y, share) in rows(), other in 0usize..3) {
        let one = row(&z, &t, Some(y), 0.0);
        let two = Row { label: Some(other), ..one };
        let found = loss("mixup", &Row { partner: Some((other, share)), ..one });
        let expected = loss("retrain", &one).times(share).plus(&loss("retrain", &two).times(1.0 - share));
        same(&found, &expected, "mixup");
    }

    /// Whatever t2 and K: with t1 = 1 and an empty target the loss is Σ p.
    #[test]
    fn tempered_probabilities_sum_to_one(z in prop::collection::vec(-30.0f64..30.0, 1..150), t2 in 1.0f64..8.0) {
        let sum = bi_tempered(&z, &vec![0.0; z.len()], 1.0, t2).value;
        prop_assert!((sum - 1.0).abs() < 1e-9, "{sum}");
    }

    /// Sure models, far apart.
    #[test]
    fn extreme_logits_stay_finite((z, t, y, lambda) in rows(), scale in 1.0f64..1e4) {
        let far = |x: &[f64]| -> Vec<f64> { x.iter().map(|x| x * scale).collect() };
        let (z, t) = (far(&z), far(&t));
        let row = Row { partner: Some((0, 0.3)), ..row(&z, &t, Some(y), lambda) };
        let others =
            ["anchor-rcp", "mixup", "bi-tempered", "confidence-penalty", "entropy-minimisation", "knn-smoothing"];
        for method in WITH_TEACHER.into_iter().chain(others) {
            let found = loss(method, &row);
            prop_assert!(found.value.is_finite() && found.gradient.iter().all(|g| g.is_finite()), "{method}: {found:?}");
        }
    }
}

#[test]
fn sums_of_exponentials() {
    assert_eq!(log_sum_exp([1000.0, 1000.0].into_iter()), 1000.0 + 2f64.ln());
    assert_eq!(log_sum_exp(std::iter::empty()), f64::NEG_INFINITY);
}
