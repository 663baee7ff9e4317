//! Sets of labels and numbers against PyTorch (tests/golden/kinds.json, by make_kinds.py), and what holds for any of them.

use candle_core::Device;
use lowchurn_data::{Kind, Targets};
use proptest::prelude::*;
use serde::Deserialize;

use super::{Case, assert_close, losses, numbers, var};
use crate::Method;
use crate::loss::kinds::{Sided, set_loss, value_loss};
use crate::loss::{Against, TeacherLogits, row_losses};

#[derive(Deserialize)]
struct Golden {
    name: String,
    kind: Kind,
    method: String,
    logits: Vec<Vec<f64>>,
    #[serde(default)]
    sets: Vec<Vec<u32>>,
    #[serde(default)]
    values: Vec<f32>,
    #[serde(default)]
    teacher: Vec<Vec<f32>>,
    #[serde(default)]
    weights: Vec<f64>,
    rows: Vec<f64>,
    gradient: Vec<Vec<f64>>,
}

impl Golden {
    fn targets(&self) -> Targets {
        match self.kind {
            Kind::Regression => Targets::Values(self.values.iter().copied().map(Some).collect()),
            _ => Targets::Sets(self.sets.iter().cloned().map(Some).collect()),
        }
    }
}

#[test]
fn equals_pytorch() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/kinds.json");
    let all: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases: Vec<Golden> = serde_json::from_value(all["losses"].clone()).unwrap();
    assert!(cases.len() >= 8);
    for case in cases {
        let k = case.logits[0].len();
        let flat: Vec<f32> = case.teacher.iter().flatten().copied().collect();
        let known = vec![true; k];
        let teacher = TeacherLogits { logits: &flat, known: &known };
        let against = Against {
            labels: &vec![Some(0); case.logits.len()],
            targets: &case.targets(),
            class_weight: &case.weights,
            label_smoothing: 0.0,
            lambda: 0.6,
            teacher: (!flat.is_empty()).then_some(teacher),
            is_old: None,
            mix: None,
        };
        let logits = var(&case.logits);
        let method: Method = case.method.parse().unwrap();
        let rows = row_losses(&method, logits.as_tensor(), &against).unwrap();
        let grads = rows.sum_all().unwrap().backward().unwrap();
        assert_close(&numbers(&rows).remove(0), &case.rows, 2e-6, &case.name);
        let gradient = numbers(grads.get(&logits).unwrap());
        for (found, expected) in gradient.iter().zip(&case.gradient) {
            assert_close(found, expected, 2e-6, &case.name);
        }
    }
}

fn set_of(bits: u32, k: usize) -> Vec<u32> {
    (0..k as u32).filter(|label| bits >> label & 1 == 1).collect()
}

proptest! {
    /// The slope of every term is what finite differences say.
    #[test]
    fn gradients_are_slopes(
        z in prop::collection::vec(-4.0..4.0f64, 3), t in prop::collection::vec(-4.0..4.0f64, 3), bits in 0u32..8,
        lambda in 0.0..1.0f64, unknown in 0usize..4,
    ) {
        let known: Vec<bool> = (0..3).map(|k| k != unknown).collect();
        let set = set_of(bits, 3);
        let methods = [
            "retrain", "distil", "distil:temperature=3", "distil:divergence=logit-mse", "distil:divergence=mixed-label",
            "inhibition:margin=0.25,power=2",
        ];
        let h = 1e-5;
        for method in methods {
            let method: Method = method.parse().unwrap();
            let at = |z: &[f64]| {
                let teacher = Some((&t[..], &known[..]));
                let row = Sided { logits: z, lambda, teacher, is_old: true, weights: &[2.0, 1.0, 0.5] };
                set_loss(&method, &row, Some(&set))
            };
            let found = at(&z);
            for k in 0..3 {
                let moved = |by: f64| { let mut z = z.clone(); z[k] += by; at(&z).value };
                let slope = (moved(h) - moved(-h)) / (2.0 * h);
                prop_assert!((slope - found.gradient[k]).abs() < 1e-6 * (1.0 + slope.abs()), "{method} {slope}");
            }
        }
        for method in ["retrain", "distil"] {
            let method: Method = method.parse().unwrap();
            let at = |z: f64| {
                let row = Sided {
                    logits: &[z], lambda, teacher: Some((&t[..1], &[true])), is_old: true, weights: &[],
                };
                value_loss(&method, &row, Some(t[1]))
            };
            let slope = (at(z[0] + h).value - at(z[0] - h).value) / (2.0 * h);
            prop_assert!((slope - at(z[0]).gradient[0]).abs() < 1e-6 * (1.0 + slope.abs()));
        }
    }

    /// A student that says what its teacher says has nothing to learn from it; a row without a label has nothing else.
    #[test]
    fn the_teacher_is_followed_label_by_label(
        z in prop::collection::vec(-6.0..6.0f64, 4), bits in 0u32..16, lambda in 0.0..1.0f64, unknown in 0usize..4,
    ) {
        let known: Vec<bool> = (0..4).map(|k| k != unknown).collect();
        let set = set_of(bits, 4);
        let row = Sided { logits: &z, lambda, teacher: Some((&z, &known)), is_old: true, weights: &[] };
        let (plain, distil): (Method, Method) = ("retrain".parse().unwrap(), "distil".parse().unwrap());
        let label = set_loss(&plain, &row, Some(&set));
        let both = set_loss(&distil, &row, Some(&set));
        let unlabelled = set_loss(&distil, &row, None);
        for k in 0..4 {
            let weight = if k == unknown { 1.0 } else { 1.0 - lambda };
            prop_assert!((both.gradient[k] - weight * label.gradient[k]).abs() < 1e-12);
            prop_assert!(unlabelled.gradient[k].abs() < 1e-12);
        }
    }
}

/// A label that is new to the teacher says nothing of who knows better: its logit 0 there is no opinion.
#[test]
fn the_better_one_is_better_on_labels_that_both_know() {
    let method: Method = "distil:rows=better".parse().unwrap();
    let followed = |student: [f64; 2], known: [bool; 2]| {
        let (logits, teacher) = (&student[..], Some((&[2.0, 0.0][..], &known[..])));
        let row = Sided { logits, lambda: 0.5, teacher, is_old: false, weights: &[] };
        let alone = Sided { teacher: None, ..row };
        set_loss(&method, &row, Some(&[0, 1])) != set_loss(&method, &alone, Some(&[0, 1]))
    };
    // The student has learnt the new label well, and the old one worse than the teacher.
    assert!(followed([1.0, 5.0], [true, false]));
    assert!(!followed([1.0, 5.0], [true, true]));
    assert!(!followed([3.0, -5.0], [true, false]));
    assert!(followed([3.0, -5.0], [true, true]));
}

/// What isn't a number stays one that isn't, for the step to refuse.
#[test]
fn not_a_number_is_not_lost() {
    let method: Method = "distil".parse().unwrap();
    let row = |z: &'static [f64]| Sided {
        logits: z,
        lambda: 0.5,
        teacher: None,
        is_old: false,
        weights: &[],
    };
    assert!(set_loss(&method, &row(&[f64::NAN, 1.0]), Some(&[1])).value.is_nan());
    assert!(value_loss(&method, &row(&[f64::NAN]), Some(1.0)).value.is_nan());
    assert!(set_loss(&method, &row(&[1000.0, -1000.0]), Some(&[1])).value.is_finite());
}

/// A weight multiplies the label's term of its class alone, and the teacher's not at all.
#[test]
fn class_weights_weigh_the_label() {
    let case = Case {
        students: vec![vec![1.0, -1.0, 0.5], vec![0.0, 2.0, 0.5]],
        teachers: vec![vec![0.0, 1.0, 0.0], vec![3.0, 0.0, 1.0]],
        labels: vec![Some(0), Some(2)],
        lambda: 0.25,
        ..Case::default()
    };
    let label = losses("retrain", &case).0;
    let both = losses("distil", &case).0;
    let flat: Vec<f32> = case.teachers.iter().flatten().map(|z| *z as f32).collect();
    let logits = var(&case.students);
    let of = |method: &str, class_weight: &[f64]| {
        let against = Against {
            labels: &case.labels,
            targets: &Targets::OneClass,
            class_weight,
            label_smoothing: 0.0,
            lambda: 0.25,
            teacher: Some(TeacherLogits { logits: &flat, known: &[true; 3] }),
            is_old: None,
            mix: None,
        };
        numbers(&row_losses(&method.parse().unwrap(), logits.as_tensor(), &against).unwrap())
            .remove(0)
    };
    let weights = [3.0, 1.0, 0.5];
    let weighted = of("retrain", &weights);
    assert_close(&weighted, &[3.0 * label[0], 0.5 * label[1]], 1e-6, "label alone");
    let expected = [both[0] + 0.75 * 2.0 * label[0], both[1] - 0.75 * 0.5 * label[1]];
    assert_close(&of("distil", &weights), &expected, 1e-6, "with a teacher");
    let error = row_losses(
        &"retrain".parse().unwrap(),
        logits.as_tensor(),
        &Against {
            labels: &case.labels,
            targets: &Targets::OneClass,
            class_weight: &[1.0],
            label_smoothing: 0.0,
            lambda: 0.0,
            teacher: None,
            is_old: None,
            mix: None,
        },
    );
    assert_eq!(error.unwrap_err().to_string(), "class weights: 1, expected 3");
    assert!(matches!(logits.device(), Device::Cpu));
}
