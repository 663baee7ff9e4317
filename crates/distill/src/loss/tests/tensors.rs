//! A batch through tensors: rows of several kinds, and what is refused.

use candle_core::{DType, Device};
use lowchurn_data::Targets;

use super::{Against, Case, Method, assert_close, losses, numbers, try_losses, var};
use crate::loss::co_distil_rows;

fn batch() -> Case {
    Case {
        students: vec![vec![0.3, -1.0, 0.7], vec![1.5, 0.2, 0.1], vec![-0.4, 0.6, 0.5]],
        teachers: vec![vec![1.0, 0.0, -1.0], vec![0.1, 2.0, 0.3], vec![0.5, 0.4, 0.1]],
        labels: vec![Some(0), None, Some(2)],
        lambda: 0.4,
        ..Case::default()
    }
}

/// Each row's loss and gradient are those that it has alone.
#[test]
fn rows_are_independent() {
    let (rows, gradients) = losses("distil:temperature=2", &batch());
    for at in 0..3 {
        let alone = Case {
            students: vec![batch().students[at].clone()],
            teachers: vec![batch().teachers[at].clone()],
            labels: vec![batch().labels[at]],
            ..batch()
        };
        let (row, gradient) = losses("distil:temperature=2", &alone);
        assert_eq!((row[0], &gradient[0]), (rows[at], &gradients[at]));
    }
}

/// The step divides the sum; other weights on rows must reach the gradients too.
#[test]
fn a_weight_on_a_row_weighs_its_gradient() {
    let case = batch();
    let (_, plain) = losses("distil", &case);
    let logits = var(&case.students);
    let rows = try_losses(&"distil".parse().unwrap(), logits.as_tensor(), &case).unwrap();
    let weights = candle_core::Tensor::new(&[2.0f32, 0.0, -1.0], &Device::Cpu).unwrap();
    let grads = (rows * weights).unwrap().sum_all().unwrap().backward().unwrap();
    let found = numbers(grads.get(&logits).unwrap());
    for (at, weight) in [2.0, 0.0, -1.0].into_iter().enumerate() {
        let expected: Vec<f64> = plain[at].iter().map(|g| g * weight).collect();
        assert_close(&found[at], &expected, 1e-7, "weighted");
    }
}

#[test]
fn partners_and_old_rows_are_those_of_the_row() {
    let case = Case {
        labels: vec![Some(0), Some(1), Some(2)],
        mix: Some((vec![2, 0, 1], vec![0.9, 0.5, 0.0])),
        is_old: vec![true, false, true],
        ..batch()
    };
    let relabelled = |labels: [u32; 3]| {
        let labels = labels.map(Some).to_vec();
        losses("retrain", &Case { labels, ..case.clone() }).0
    };
    let (own, partners) = (relabelled([0, 1, 2]), relabelled([2, 0, 1]));
    let expected: Vec<f64> = [0.9, 0.5, 0.0]
        .iter()
        .zip(own.iter().zip(&partners))
        .map(|(share, (own, partner))| share * own + (1.0 - share) * partner)
        .collect();
    assert_close(&losses("mixup", &case).0, &expected, 2e-7, "mixup");

    let (old, all) = (losses("distil:rows=old", &case).0, losses("distil", &case).0);
    assert_eq!(old, [all[0], own[1], all[2]]);
}

#[test]
fn both_students_are_pulled() {
    let (a, b) = (vec![vec![0.3, -1.0, 0.7]], vec![vec![1.5, 0.2, 0.1]]);
    let against = Against {
        labels: &[Some(1)],
        targets: &Targets::OneClass,
        class_weight: &[],
        label_smoothing: 0.1,
        lambda: 0.0,
        teacher: None,
        is_old: None,
        mix: None,
    };
    let value = |a: &[Vec<f64>], b: &[Vec<f64>]| {
        let rows = co_distil_rows(var(a).as_tensor(), var(b).as_tensor(), &against, 0.7).unwrap();
        numbers(&rows)[0][0]
    };
    let (one, two) = (var(&a), var(&b));
    let rows = co_distil_rows(&one, &two, &against, 0.7).unwrap();
    let grads = rows.sum_all().unwrap().backward().unwrap();
    // f32 values: h = 1/64 leaves 2e-5 of rounding and 5e-5 of curvature.
    let h = 1.0 / 64.0;
    for k in 0..3 {
        let moved = |rows: &[Vec<f64>], by: f64| {
            let mut rows = rows.to_vec();
            rows[0][k] += by;
            rows
        };
        let of_one = (value(&moved(&a, h), &b) - value(&moved(&a, -h), &b)) / (2.0 * h);
        let of_two = (value(&a, &moved(&b, h)) - value(&a, &moved(&b, -h))) / (2.0 * h);
        assert_close(&[numbers(grads.get(&one).unwrap())[0][k]], &[of_one], 1e-4, "first");
        assert_close(&[numbers(grads.get(&two).unwrap())[0][k]], &[of_two], 1e-4, "second");
    }
}

/// Not a number comes out as such; the step says so with its number.
#[test]
fn not_a_number_stays_one() {
    let methods = [
        "retrain",
        "distil:divergence=js",
        "distil:divergence=standardised",
        "inhibition",
        "bi-tempered",
        "confidence-penalty",
    ];
    for method in methods {
        for bad in [f64::NAN, f64::INFINITY] {
            let mut case = Case { labels: vec![Some(0); 3], ..batch() };
            case.students[1][2] = bad;
            let (rows, _) = losses(method, &case);
            assert!(!rows[1].is_finite() && rows[0].is_finite(), "{method}: {rows:?}");
        }
    }
}

#[test]
fn logits_in_bf16_have_gradients_in_bf16() {
    let case = Case { labels: vec![Some(0), Some(1), Some(2)], ..batch() };
    let logits = var(&case.students);
    let half = logits.to_dtype(DType::BF16).unwrap();
    let rows = try_losses(&"distil".parse().unwrap(), &half, &case).unwrap();
    assert_eq!(rows.dtype(), DType::F32);
    let grads = rows.sum_all().unwrap().backward().unwrap();
    let (_, expected) = losses("distil", &case);
    let found = numbers(grads.get(&logits).unwrap());
    assert_close(&found.concat(), &expected.concat(), 1e-2, "bf16 keeps 8 bits");
}

#[test]
fn what_is_missing_is_said() {
    let said = |method: &str, change: fn(&mut Case)| {
        let mut case = Case { labels: vec![Some(0), Some(1), Some(2)], ..batch() };
        change(&mut case);
        let method: Method = method.parse().unwrap();
        try_losses(&method, &var(&batch().students), &case).unwrap_err().to_string()
    };
    assert_eq!(
        said("retrain", |case| case.labels[1] = None),
        "row 1 of its batch has no label, and training needs one; leave unlabelled rows out"
    );
    assert_eq!(
        said("retrain", |case| case.labels[2] = Some(3)),
        "row 2: label 3, but the model has 3 classes"
    );
    assert_eq!(said("retrain", |case| case.labels.truncate(2)), "labels: 2, expected 3");
    assert_eq!(said("distil", |case| case.teachers.clear()), "method distil needs a teacher");
    assert_eq!(
        said("anchor", |case| case.teachers.truncate(2)),
        "the teacher's logits: 6, expected 9"
    );
    assert_eq!(
        said("focal", |case| case.known = vec![true; 2]),
        "the classes that the teacher may know: 2, expected 3"
    );
    assert_eq!(
        said("distil:rows=old", |_| {}),
        "method distil needs to know which rows the old model has seen"
    );
    assert_eq!(
        said("retrain", |case| case.is_old = vec![true]),
        "marks of old rows: 1, expected 3"
    );
    assert_eq!(said("mixup", |_| {}), "method mixup needs a partner for each row");
    assert_eq!(
        said("mixup", |case| case.mix = Some((vec![0, 1, 3], vec![0.5; 3]))),
        "rows that partners point at: 4, expected 3"
    );
    assert_eq!(
        said("mixup", |case| case.mix = Some((vec![0, 1, 2], vec![0.5; 2]))),
        "mixup's shares: 2, expected 3"
    );
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
    let (a, b) = (var(&[vec![0.0, 1.0]]), var(&[vec![0.0, 1.0, 2.0]]));
    assert_eq!(
        co_distil_rows(&a, &b, &against, 1.0).unwrap_err().to_string(),
        "the second student's classes: 3, expected 2"
    );
}
