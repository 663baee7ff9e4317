//! Directions against numpy, and the theory: gradient descent on least squares, where a student's spectrum is its teacher's,
//! exaggerated.

use lowchurn_data::Rng;
use serde_json::Value;

use super::*;

fn golden(file: &str) -> Value {
    let path = format!("{}/../../tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

#[test]
fn directions_are_those_of_numpy() {
    let golden = golden("deviation.json");
    let cases = golden["eigen"].as_array().unwrap();
    assert_eq!(cases.len(), 3);
    for case in cases {
        let width = case["width"].as_u64().unwrap() as usize;
        let features: Vec<f32> = numbers(&case["features"]).iter().map(|x| *x as f32).collect();
        let rows = (features.len() / width) as f64;
        let mut moment = vec![0.0; width * width];
        add_second_moment(&mut moment, &features, width);
        moment.iter_mut().for_each(|x| *x /= rows);
        let found = eigen(&moment, width);
        let close = |found: &[f64], key: &str, within: f64| {
            for (found, expected) in found.iter().zip(numbers(&case[key])) {
                assert!((found - expected).abs() < within, "{key}: {found} {expected}");
            }
        };
        // Features are rounded to f32 here and not there.
        close(&found.values, "values", 1e-6);
        if rows as usize > width {
            close(&along(&numbers(&case["weight"]), &found, width), "along", 1e-5);
        }
        assert_eq!(found, eigen(&moment, width));
        // V·A·Vᵀ is the diagonal, and V·Vᵀ one.
        let row = |k: usize| &found.vectors[k * width..(k + 1) * width];
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        for k in 0..width {
            let image: Vec<f64> =
                moment.chunks_exact(width).map(|line| dot(line, row(k))).collect();
            for j in 0..width {
                let one = f64::from(u8::from(j == k));
                assert!((dot(row(j), row(k)) - one).abs() < 1e-12);
                assert!((dot(row(j), &image) - one * found.values[k]).abs() < 1e-12);
            }
        }
    }
}

#[test]
fn odd_matrices_end() {
    assert_eq!(eigen(&[], 0), Eigen { values: vec![], vectors: vec![] });
    assert_eq!(eigen(&[3.0], 1), Eigen { values: vec![3.0], vectors: vec![1.0] });
    assert_eq!(eigen(&[0.0; 9], 3).values, [0.0; 3]);
    assert_eq!(eigen(&[f64::NAN; 4], 2).values.len(), 2);
    // A C·C of 1: one direction holds everything.
    let ones = eigen(&[1.0; 16], 4);
    assert!((ones.values[0] - 4.0).abs() < 1e-12 && ones.values[1].abs() < 1e-12);
    assert!(ones.vectors[..4].iter().all(|x| (x - 0.5).abs() < 1e-12));
}

#[test]
fn ways_are_matched_on_straight_lines() {
    let teacher = [[0.0, 0.0], [1.0, 1.0], [2.0, 3.0]];
    let student = [[0.0, 0.0], [3.0, 1.5]];
    let found = matched(&teacher, &student, 1.0).unwrap();
    assert_eq!(found, Matched { first: 2.0, teacher: 3.0, student: 1.0 });
    assert_eq!(found.ratio(), Some(3.0));
    let half = matched(&teacher, &student, 0.5).unwrap();
    assert_eq!(half, Matched { first: 1.0, teacher: 1.0, student: 0.5 });
    // The same run, and one that comes back.
    let back = [[0.0, 0.0], [2.0, 1.0], [1.0, 5.0]];
    assert_eq!(
        matched(&back, &back, 0.75).unwrap(),
        Matched { first: 1.5, teacher: 0.75, student: 0.75 }
    );
    for (one, other) in [
        (&teacher[..], &[][..]),
        (&teacher[..1], &teacher[..]),
        (&[[0.0, 0.0], [0.0, 1.0]][..], &teacher[..]),
    ] {
        assert_eq!(matched(one, other, 1.0), None);
    }
    assert_eq!(Matched { first: 1.0, teacher: 1.0, student: 0.0 }.ratio(), None);
}

// The sandbox (papers.md 6.5): least squares from zero by gradient descent with step e. Along direction k of the inputs what is
// fitted is the target times 1 − (1 − e·s_k²)^steps; a student that is trained on a teacher's fit has the product of both.

/// Rows (N·d) with fewer rows than columns, so that every target can be fitted, and a target (N,).
fn problem(rows: usize, width: usize) -> (Vec<f64>, Vec<f64>) {
    let mut rng = Rng::stream(5, "sandbox", 0);
    let x = (0..rows * width).map(|at| rng.normal() * 0.6f64.powi((at % width) as i32)).collect();
    (x, (0..rows).map(|_| rng.normal()).collect())
}

/// What gradient descent on ½‖Xw − y‖² has fitted, X·w (N,), after each of so many steps, by running it.
fn descended(x: &[f64], y: &[f64], step: f64, steps: usize) -> Vec<Vec<f64>> {
    let width = x.len() / y.len();
    let mut w = vec![0.0; width];
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let fitted = |w: &[f64]| -> Vec<f64> { x.chunks_exact(width).map(|row| dot(row, w)).collect() };
    (0..steps)
        .map(|_| {
            let left: Vec<f64> = fitted(&w).iter().zip(y).map(|(f, y)| f - y).collect();
            for (row, left) in x.chunks_exact(width).zip(&left) {
                w.iter_mut().zip(row).for_each(|(w, x)| *w -= step * left * x);
            }
            fitted(&w)
        })
        .collect()
}

/// u_k of the rows' Gram matrix X·Xᵀ (N·N), with s_k².
fn directions_of_rows(x: &[f64], rows: usize) -> Eigen {
    let width = x.len() / rows;
    let row = |at: usize| &x[at * width..(at + 1) * width];
    let gram: Vec<f64> = (0..rows * rows)
        .map(|at| row(at / rows).iter().zip(row(at % rows)).map(|(a, b)| a * b).sum())
        .collect();
    eigen(&gram, rows)
}

/// How much of the target is fitted along each direction.
fn factors(eigen: &Eigen, fitted: &[f64], y: &[f64]) -> Vec<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    eigen.vectors.chunks_exact(y.len()).map(|u| dot(u, fitted) / dot(u, y)).collect()
}

#[test]
fn a_students_spectrum_exaggerates_its_teachers() {
    let (rows, width) = (6, 9);
    let (x, y) = problem(rows, width);
    let eigen = directions_of_rows(&x, rows);
    let step = 0.5 / eigen.values[0];
    let filter = |steps: usize| -> Vec<f64> {
        eigen.values.iter().map(|s| 1.0 - (1.0 - step * s).powi(steps as i32)).collect()
    };
    let close = |found: &[f64], expected: &[f64]| {
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        }
    };
    let of_labels = descended(&x, &y, step, 400);
    for (steps, mixed) in [(3, 1.0), (20, 1.0), (60, 0.4)] {
        let told = &of_labels[39]; // the teacher had 40 steps
        close(&factors(&eigen, told, &y), &filter(40));
        let target: Vec<f64> =
            told.iter().zip(&y).map(|(t, y)| mixed * t + (1.0 - mixed) * y).collect();
        let says = &descended(&x, &target, step, steps)[steps - 1];
        let student = factors(&eigen, says, &y);
        // With the labels mixed in the factor is (1 − λ) + λ·teacher, times the student's own.
        let product: Vec<f64> = filter(steps)
            .iter()
            .zip(filter(40))
            .map(|(own, told)| own * ((1.0 - mixed) + mixed * told))
            .collect();
        close(&student, &product);
    }
    // At the same progress along the first direction a run on labels has gone farther along each other one.
    let way = |runs: &[Vec<f64>], k: usize| -> Vec<[f64; 2]> {
        let at = runs.iter().map(|fitted| factors(&eigen, fitted, &y));
        [[0.0; 2]].into_iter().chain(at.map(|f| [f[0], f[k]])).collect()
    };
    let of_teacher = descended(&x, &of_labels[39], step, 400);
    for k in 1..rows {
        for share in [0.25, 0.5, 0.75, 0.95] {
            let found = matched(&way(&of_labels, k), &way(&of_teacher, k), share).unwrap();
            assert!(found.ratio().unwrap() > 1.0 + 1e-6, "{k} {share}: {found:?}");
        }
    }
}

/// papers_examples.json, D3: gradient flow, one run's factors in closed form.
#[test]
fn filters_are_those_of_the_papers() {
    let papers = golden("papers_examples.json");
    let case = &papers["D3_eigen_filters"];
    let of = |key: &str| numbers(&case[key]);
    let one = |key: &str| case[key].as_f64().unwrap();
    let squares = of("sig2");
    let factor =
        |time: f64| -> Vec<f64> { squares.iter().map(|s| 1.0 - (-time * s).exp()).collect() };
    let close = |found: &[f64], key: &str, within: f64| {
        for (found, expected) in found.iter().zip(of(key)) {
            assert!((found - expected).abs() < within, "{key} {found} {expected}");
        }
    };
    let (teacher, own) = (factor(one("T_teacher")), factor(one("t_student")));
    close(&teacher, "teacher", 1e-9);
    let student: Vec<f64> = teacher.iter().zip(&own).map(|(a, b)| a * b).collect();
    close(&student, "student", 1e-9);
    close(&factor(one("matched_teacher_time")), "teacher_at_match", 1e-8);
    // As the tool does it, from checkpoints: fine ones, for between them it draws straight lines.
    let times = || (0..=5000).map(|at| at as f64 / 1000.0);
    let of_labels: Vec<[f64; 2]> = times().map(|t| [factor(t)[0], factor(t)[1]]).collect();
    let of_teacher: Vec<[f64; 2]> = times()
        .take_while(|t| *t <= one("t_student"))
        .map(|t| [factor(t)[0] * teacher[0], factor(t)[1] * teacher[1]])
        .collect();
    let found = matched(&of_labels, &of_teacher, 1.0).unwrap();
    assert!((found.ratio().unwrap() - one("exaggeration_ratio")).abs() < 1e-4, "{found:?}");
}
