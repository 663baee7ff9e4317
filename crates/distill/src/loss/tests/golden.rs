//! Against the worked numbers of the papers (tests/golden/papers_examples.json, made in f64 by papers_examples.py beside it).
//!
//! Logits go in as f32, so 2e-7 of a number is the most to hope for.

use lowchurn_data::Targets;
use serde_json::Value;

use super::{Case, assert_close, losses};
use crate::loss::{Against, co_distil_rows, term};

const TOLERANCE: f64 = 3e-7;

fn golden(key: &str) -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/papers_examples.json");
    let all: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(all[key].is_object(), "{key}");
    all[key].clone()
}

fn list(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(number).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value}"))
}

fn rows(value: &Value) -> Vec<Vec<f64>> {
    value.as_array().unwrap().iter().map(list).collect()
}

fn labels(value: &Value) -> Vec<Option<u32>> {
    value.as_array().unwrap().iter().map(|label| Some(label.as_u64().unwrap() as u32)).collect()
}

/// One row with a teacher; λ = 1, where the label counts nothing.
fn one_row(student: Vec<f64>, teacher: Vec<f64>, label: u32) -> Case {
    Case {
        students: vec![student],
        teachers: vec![teacher],
        labels: vec![Some(label)],
        lambda: 1.0,
        ..Case::default()
    }
}

fn three() -> Case {
    one_row(vec![1.0, 0.5, -0.5], vec![2.0, 1.0, 0.1], 1)
}

fn check(method: &str, case: &Case, value: &Value, what: &str) {
    assert_close(&losses(method, case).0, &[number(value)], TOLERANCE, what);
}

fn check_gradient(method: &str, case: &Case, gradient: &Value, what: &str) {
    assert_close(&losses(method, case).1[0], &list(gradient), TOLERANCE, what);
}

#[test]
fn kl_at_three_temperatures() {
    for temperature in [1, 2, 4] {
        let key = format!("B1_kd_T{temperature}");
        let method = format!("distil:temperature={temperature}");
        let expected = golden(&key);
        check(&method, &three(), &expected["T2KL"], &key);
        check_gradient(&method, &three(), &expected["grad_T2KL"], &key);
    }
    let expected = golden("B2_highT_limit");
    check("distil:temperature=100", &three(), &expected["T2KL_at_T100"], "B2");
    check(
        "distil:temperature=4",
        &Case { lambda: 0.9, ..three() },
        &golden("B4_hinton_T4_lam0.9")["loss"],
        "B4",
    );
}

#[test]
fn mixed_label_in_both_forms() {
    let expected = golden("B3_mixed_label");
    let case = Case { lambda: 0.7, ..three() };
    let mixed = "distil:divergence=mixed-label";
    check(mixed, &case, &expected["loss_CE_form"], "CE form");
    check("distil", &case, &expected["loss_KL_form"], "KL form");
    check_gradient(mixed, &case, &expected["grad"], "CE form");
    check_gradient("distil", &case, &expected["grad"], "KL form");
}

/// The target that a gradient s·p − q speaks of.
#[test]
fn targets() {
    let expected = golden("C7_targets");
    let g: Vec<f64> = list(&expected["g"]).iter().map(|g| g.ln()).collect();
    let check = |method: &str, label: u32, lambda: f64, smoothing: f64, key: &str| {
        let z = vec![1.0, 0.5, -0.5];
        let p = term::exp(&term::log_softmax(&z, 1.0));
        let case = Case { lambda, smoothing, ..one_row(z, g.clone(), label) };
        let target = list(&expected[key]);
        let mass: f64 = target.iter().sum();
        let found: Vec<f64> =
            losses(method, &case).1[0].iter().zip(&p).map(|(g, p)| mass * p - g).collect();
        assert_close(&found, &target, TOLERANCE, key);
    };
    check("distil:divergence=mixed-label", 1, 0.6, 0.0, "distill_lam_0_6_y1");
    check("anchor", 1, 0.5, 0.0, "anchor_correct_alpha_0_5_y1");
    check("anchor-rcp:eta=0.5", 1, 0.5, 0.0, "anchor_correct_alpha_0_5_y1");
    check("anchor-rcp:eta=0.5", 2, 0.5, 0.0, "anchor_wrong_eta_0_5_y2");
    let smoothed = "anchor_wrong_smoothed_eta_0_5_alpha_0_5_y2";
    check("anchor-rcp:eta=0.5,smoothed=true", 2, 0.5, 0.0, smoothed);
    check("retrain", 1, 0.0, 0.1, "label_smoothing_0_1_y1");
    // The neighbours' labels are 0.4, 0.4, 0.2 there; here stands what `train` makes of them, β/K + (1 − β)·nn.
    let near: Vec<f64> = [0.4f64, 0.4, 0.2].iter().map(|nn| (0.2 / 3.0 + 0.8 * nn).ln()).collect();
    let z = vec![1.0, 0.5, -0.5];
    let p = term::exp(&term::log_softmax(&z, 1.0));
    let case = Case { lambda: 0.5, ..one_row(z, near, 1) };
    let found = losses("knn-smoothing:alpha=0.5,beta=0.2", &case).1;
    let found: Vec<f64> = found[0].iter().zip(&p).map(|(g, p)| p - g).collect();
    assert_close(&found, &list(&expected["knn_smoothing_a_0_5_b_0_2_y1_knn"]), TOLERANCE, "k-NN");
}

#[test]
fn anchor_right_and_wrong() {
    let expected = golden("C8_anchor_loss");
    let g: Vec<f64> = list(&golden("C7_targets")["g"]).iter().map(|g| g.ln()).collect();
    let z = list(&expected["z"]);
    let case = |label| Case { lambda: 0.5, ..one_row(z.clone(), g.clone(), label) };
    check("anchor", &case(1), &expected["correct"], "right");
    check("anchor-rcp:eta=0.5", &case(1), &expected["correct"], "right");
    check("anchor-rcp:eta=0.5", &case(2), &expected["wrong_eta_0_5"], "wrong");
}

#[test]
fn bi_tempered_loss_and_gradient() {
    for (t1, t2) in [("1.0", "1.0"), ("0.7", "1.0"), ("0.5", "2.0"), ("0.3", "4.0")] {
        let key = format!("C9_bitempered_t1_{t1}_t2_{t2}");
        let expected = golden(&key);
        let case = Case {
            students: vec![list(&expected["z"])],
            labels: vec![Some(expected["y"].as_u64().unwrap() as u32)],
            ..Case::default()
        };
        let method = format!("bi-tempered:t1={t1},t2={t2}");
        check(&method, &case, &expected["loss_converged"], &key);
        if ["0.7", "0.5"].contains(&t1) {
            let key = format!("H3_bitempered_grad_t1_{t1}_t2_{t2}");
            check_gradient(&method, &case, &golden(&key)["grad"], &key);
        }
    }
}

/// The two have opposite signs.
#[test]
fn confidence_down_and_up() {
    let expected = golden("C10_confidence_terms");
    let case = Case { teachers: vec![], labels: vec![Some(0)], ..three() };
    let down = &expected["pereyra_confidence_penalty_beta_0_1"];
    check("confidence-penalty:beta=0.1", &case, down, "down");
    let up = &expected["min_entropy_loss_alpha_0_1"];
    check("entropy-minimisation:alpha=0.1", &case, up, "up");
}

#[test]
fn co_distillation() {
    let expected = golden("C11_codistill_beta_0_5");
    let (a, b) = (super::var(&[vec![1.0, 0.5, -0.5]]), super::var(&[vec![0.2, 0.9, -0.1]]));
    let against = Against {
        labels: &[Some(0)],
        targets: &Targets::OneClass,
        class_weight: &[],
        label_smoothing: 0.0,
        lambda: 0.0,
        teacher: None,
        is_old: None,
        mix: None,
    };
    let at = |beta| super::numbers(&co_distil_rows(&a, &b, &against, beta).unwrap())[0][0];
    assert_close(&[at(0.5)], &[number(&expected["L"])], TOLERANCE, "C11");
    assert_close(&[at(1.5) - at(0.5)], &[number(&expected["sym_KL"])], TOLERANCE, "C11");
}

#[test]
fn focal_weights() {
    let expected = golden("G1_focal_distillation");
    let case = Case {
        students: rows(&expected["new"]),
        teachers: rows(&expected["old"]),
        labels: labels(&expected["y"]),
        lambda: 1.0,
        ..Case::default()
    };
    for (temperature, key) in [(1, "loss_KL_T1"), (100, "loss_KL_T100")] {
        let found = losses(&format!("focal:temperature={temperature}"), &case).0;
        let mean = found.iter().sum::<f64>() / found.len() as f64;
        assert_close(&[mean], &[number(&expected[key])], TOLERANCE, key);
    }
    let plain = losses("focal:beta=0", &case).0;
    let focal = losses("focal", &case).0;
    let weights: Vec<f64> = focal.iter().zip(&plain).map(|(a, b)| a / b).collect();
    assert_close(&weights, &list(&expected["weights_alpha1_beta5"]), 1e-6, "weights");
}

#[test]
fn inhibition_of_logit_differences() {
    let (expected, batch) = (golden("G2_LDI"), golden("G1_focal_distillation"));
    let case = Case {
        students: rows(&batch["new"]),
        teachers: rows(&batch["old"]),
        labels: labels(&batch["y"]),
        lambda: 1.0,
        ..Case::default()
    };
    for (margin, key) in [("0.5", "loss_margin_0_5_p2"), ("0", "loss_margin_0_p2")] {
        let found = losses(&format!("inhibition:margin={margin}"), &case).0;
        let mean = found.iter().sum::<f64>() / found.len() as f64;
        assert_close(&[mean], &[number(&expected[key])], TOLERANCE, key);
    }
}

#[test]
fn the_better_teacher_alone_is_followed() {
    let expected = golden("G3_old_better_distill");
    let case = Case {
        students: rows(&expected["new"]),
        teachers: rows(&expected["old"]),
        labels: labels(&expected["y"]),
        lambda: number(&expected["alpha"]),
        ..Case::default()
    };
    let found = losses("distil:temperature=2,rows=better", &case).0;
    let mean = found.iter().sum::<f64>() / found.len() as f64;
    assert_close(&[mean], &[number(&expected["per_example_form"])], TOLERANCE, "G3");
    let plain = losses("retrain", &case).0;
    let n_followed = found.iter().zip(&plain).filter(|(a, b)| a != b).count();
    assert_eq!(n_followed as u64, expected["n_teacher_better"].as_u64().unwrap());
}

#[test]
fn decoupled_and_standardised() {
    let expected = golden("G5_DKD");
    let target = expected["target"].as_u64().unwrap() as u32;
    let case = one_row(list(&expected["z_student"]), list(&expected["z_teacher"]), target);
    let decoupled = "distil:divergence=decoupled,temperature=4";
    check(decoupled, &case, &expected["loss_a1_b8_T2scaled"], "G5");
    check_gradient(decoupled, &case, &golden("H2_dkd_grad")["grad"], "H2");
    check("distil:divergence=standardised", &case, &golden("G6_logit_std")["loss_T2"], "G6");
}

#[test]
fn gradients_of_divergences() {
    let expected = golden("H1_grads");
    for (divergence, key) in [("kl", "forward_KL"), ("reverse-kl", "reverse_KL"), ("js", "JS")] {
        check_gradient(&format!("distil:divergence={divergence}"), &three(), &expected[key], key);
    }
    let found = term::entropy(&three().students[0]);
    assert_close(&found.gradient, &list(&expected["entropy"]), TOLERANCE, "entropy");
}

#[test]
fn four_cases_under_every_loss() {
    for key in ["I1_binary", "I2_three", "I3_four_teacher_right", "I4_four_teacher_wrong"] {
        let expected = golden(key);
        let label = expected["y"].as_u64().unwrap() as u32;
        let (z, t) = (list(&expected["z_student"]), list(&expected["z_teacher"]));
        let at = |lambda: f64| Case { lambda, ..one_row(z.clone(), t.clone(), label) };
        let said = |method: &str, lambda: f64, value: &Value| {
            check(method, &at(lambda), value, &format!("{key} {method}"));
        };
        said("retrain", 0.0, &expected["CE"]);
        for temperature in ["1", "2", "4", "10"] {
            let method = format!("distil:temperature={temperature}");
            said(&method, 1.0, &expected["T2KL"][temperature]);
        }
        said("distil:divergence=mixed-label", 1.0, &expected["soft_CE_T1"]);
        for lambda in ["0.1", "0.3", "0.5", "0.7", "0.9"] {
            let value = &expected["mixed"][lambda];
            said("distil:divergence=mixed-label", lambda.parse().unwrap(), value);
        }
        said("distil:temperature=2", 0.5, &expected["two_term_lam_0_5_T2"]);
        said("distil:divergence=reverse-kl", 1.0, &expected["reverse_KL"]);
        said("distil:divergence=js", 1.0, &expected["JS"]);
        said("distil:divergence=logit-mse", 1.0, &expected["half_logit_mse"]);
        said("anchor-rcp:eta=0.5", 0.5, &expected["anchor_a_0_5_eta_0_5"]);
        said("focal:temperature=2", 1.0, &expected["focal_T2"]);
        said("inhibition:margin=0", 1.0, &expected["LDI_0"]);
        said("inhibition:margin=0.5", 1.0, &expected["LDI_0_5"]);
        said("distil:divergence=decoupled,temperature=4", 1.0, &expected["DKD_a1_b8"]);
        said("distil:divergence=standardised", 1.0, &expected["logit_std_T2"]);
        said("entropy-minimisation:alpha=0.1", 0.0, &expected["min_entropy_0_1"]);
        said("confidence-penalty:beta=0.1", 0.0, &expected["pereyra_0_1"]);
        said("bi-tempered:t1=0.7,t2=1", 0.0, &expected["bitempered_0_7_1"]);
        // The paper's five rounds of the fixed point, against converged ones: 2e-6 apart in C9.
        let found = losses("bi-tempered:t1=0.5,t2=2", &at(0.0)).0;
        assert_close(&found, &[number(&expected["bitempered_0_5_2"])], 1e-5, key);
        let smoothed = Case { smoothing: 0.1, ..at(0.0) };
        check("retrain", &smoothed, &expected["label_smoothing_0_1"], key);

        let gradient = |method: &str, lambda: f64, value: &Value| {
            check_gradient(method, &at(lambda), value, &format!("{key} {method}"));
        };
        gradient("distil:temperature=2", 1.0, &expected["grad_T2KL_T2"]);
        gradient("distil:divergence=mixed-label", 0.5, &expected["grad_mixed_0_5"]);
        gradient("anchor-rcp:eta=0.5", 0.5, &expected["grad_anchor"]);
    }
}
