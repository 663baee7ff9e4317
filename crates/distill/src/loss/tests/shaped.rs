//! Losses as an objective shapes them: the papers' numbers, gradients against central differences of fourth order (h = 3e-5,
//! tolerance 1e-8, as in `gradients.rs`), and where shapes are the plain loss.

use lowchurn_data::Rng;
use serde_json::Value;

use super::assert_close;
use crate::Method;
use crate::loss::row::{Row, row_loss};
use crate::loss::shaped::{Shape, shaped_row_loss};
use crate::loss::term::Term;

/// A teacher that says p, as logits.
fn logits_of(p: &[f64]) -> Vec<f64> {
    p.iter().map(|p| p.ln()).collect()
}

fn row<'a>(
    logits: &'a [f64],
    teacher: (&'a [f64], &'a [bool]),
    label: Option<usize>,
    lambda: f64,
) -> Row<'a> {
    Row {
        logits,
        label,
        class_weight: &[],
        label_smoothing: 0.0,
        lambda,
        teacher: Some(teacher),
        is_old: false,
        partner: None,
    }
}

/// papers_examples.json, E3_margin_loss: loss, gradient, and Σ c·p·CE for contrast.
#[test]
fn the_margin_loss_of_the_papers() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/papers_examples.json");
    let all: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let case = &all["E3_margin_loss"];
    let numbers = |key: &str| -> Vec<f64> {
        case[key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    let (z, c, p) = (numbers("z"), numbers("c"), numbers("p"));
    let teacher = logits_of(&p);
    let row = row(&z, (&teacher, &[true; 3]), None, 1.0);
    let logs = Shape::Margins(c.iter().map(|c| c.ln()).collect());
    let mixed: Method = "distil:divergence=mixed-label".parse().unwrap();
    let found = shaped_row_loss(&mixed, &row, &logs);
    assert_close(&[found.value], &[case["loss"].as_f64().unwrap()], 1e-8, "E3 loss");
    assert_close(&found.gradient, &numbers("grad"), 1e-8, "E3 gradient");
    // c times 7: the same.
    let scaled = Shape::Margins(c.iter().map(|c| (7.0 * c).ln()).collect());
    let again = shaped_row_loss(&mixed, &row, &scaled);
    assert_close(&[again.value], &[found.value], 1e-12, "scaled");
    assert_close(&again.gradient, &found.gradient, 1e-12, "scaled");
    // Weights leave a term without z, Σ c·p·log p, out of the papers' number.
    let weighted = shaped_row_loss(&mixed, &row, &Shape::Classes(c.clone()));
    let entropy: f64 = c.iter().zip(&p).map(|(c, p)| c * p * p.ln()).sum();
    let expected = case["weighted_softmax_for_contrast"].as_f64().unwrap();
    assert_close(&[weighted.value - entropy], &[expected], 1e-8, "E3 weighted");
}

/// The margin loss has no gradient at softmax(z) ∝ c·p, whatever T its teacher's term has, and weights none at softmax(z/T) ∝ c·p with
/// the teacher's p at T.
#[test]
fn the_minimum_follows_the_gains() {
    let (p, c): ([f64; 3], [f64; 3]) = ([0.8, 0.15, 0.05], [0.4, 1.0, 2.5]);
    let gained: Vec<f64> = p.iter().zip(&c).map(|(p, c)| (p * c).ln() + 3.0).collect();
    let margins = Shape::Margins(c.iter().map(|c| c.ln()).collect());
    for t in [1.0, 4.0] {
        let times = |x: &[f64]| -> Vec<f64> { x.iter().map(|x| t * x).collect() };
        let method: Method = format!("distil:temperature={t}").parse().unwrap();
        let told = logits_of(&p);
        for (shape, z, teacher) in [
            (&margins, gained.clone(), told.clone()),
            (&Shape::Classes(c.to_vec()), times(&gained), times(&told)),
        ] {
            let row = row(&z, (&teacher, &[true; 3]), None, 1.0);
            let found = shaped_row_loss(&method, &row, shape).gradient;
            assert!(found.iter().all(|g| g.abs() < 1e-12), "T {t} {shape:?}: {found:?}");
        }
    }
}

struct Drawn {
    student: Vec<f64>,
    teacher: Vec<f64>,
    known: Vec<bool>,
    label: Option<usize>,
    numbers: Vec<f64>,
    lambda: f64,
}

fn drawn(seed: u64) -> Drawn {
    let mut rng = Rng::stream(seed, "shaped rows", 0);
    let classes = 2 + rng.below(5) as usize;
    let mut list = |low: f64, high: f64| -> Vec<f64> {
        (0..classes).map(|_| low + (high - low) * rng.uniform()).collect()
    };
    let (student, teacher, numbers) = (list(-2.0, 2.0), list(-2.0, 2.0), list(0.1, 3.0));
    Drawn {
        student,
        teacher,
        known: (0..classes).map(|_| seed.is_multiple_of(3) || rng.uniform() < 0.7).collect(),
        label: (!seed.is_multiple_of(5)).then(|| rng.below(classes as u64) as usize),
        numbers,
        lambda: rng.uniform(),
    }
}

#[test]
fn gradients_of_every_shape() {
    let methods = ["retrain", "distil", "distil:temperature=3", "distil:divergence=mixed-label"];
    type Make = fn(&[f64]) -> Shape;
    let shapes: [(&str, Make); 4] = [
        ("plain", |_| Shape::Plain),
        ("margins", |x| Shape::Margins(x.iter().map(|x| x.ln()).collect())),
        ("classes", |x| Shape::Classes(x.to_vec())),
        ("trust", |x| Shape::Trust(x.iter().map(|x| x / 3.0).collect())),
    ];
    for method in methods {
        let method: Method = method.parse().unwrap();
        for (name, make) in &shapes {
            let mut apart = 0.0f64;
            for seed in 0..100 {
                let d = drawn(seed);
                let shape = make(&d.numbers);
                let of = |logits: &[f64]| -> Term {
                    let row = row(logits, (&d.teacher, &d.known), d.label, d.lambda);
                    shaped_row_loss(&method, &row, &shape)
                };
                let found = of(&d.student);
                let h = 3e-5;
                let moved = |k: usize, by: f64| {
                    let mut logits = d.student.clone();
                    logits[k] += by;
                    of(&logits).value
                };
                let slope = |k: usize, h: f64| (moved(k, h) - moved(k, -h)) / (2.0 * h);
                let expected: Vec<f64> = (0..d.student.len())
                    .map(|k| (4.0 * slope(k, h) - slope(k, 2.0 * h)) / 3.0)
                    .collect();
                assert_close(&found.gradient, &expected, 1e-8, &format!("{method} {name} {seed}"));
                let row = row(&d.student, (&d.teacher, &d.known), d.label, d.lambda);
                let plain = row_loss(&method, &row);
                let far = plain.gradient.iter().zip(&found.gradient).map(|(a, b)| (a - b).abs());
                apart = far.fold(apart, f64::max);
            }
            // A shape that changed nothing would pass.
            let is_plain = *name == "plain" || (*name == "trust" && method == Method::Retrain);
            assert_eq!(apart == 0.0, is_plain, "{method} {name}: {apart}");
        }
    }
}

/// Gains of 1 are the plain loss, also with classes that the teacher doesn't know, rows without label and a temperature.
#[test]
fn gains_of_one_change_nothing() {
    for method in ["retrain", "distil:temperature=2", "distil:divergence=mixed-label"] {
        let parsed: Method = method.parse().unwrap();
        for seed in 0..50 {
            let d = drawn(seed);
            let row = row(&d.student, (&d.teacher, &d.known), d.label, d.lambda);
            let plain = row_loss(&parsed, &row);
            let n = d.student.len();
            for shape in [
                Shape::Margins(vec![0.0; n]),
                Shape::Classes(vec![1.0; n]),
                Shape::Trust(vec![1.0; n]),
            ] {
                let found = shaped_row_loss(&parsed, &row, &shape);
                // Cross-entropy and KL to a teacher differ by its entropy, which no gradient sees.
                assert_close(
                    &found.gradient,
                    &plain.gradient,
                    1e-12,
                    &format!("{method} {shape:?}"),
                );
                if method != "distil:divergence=mixed-label" {
                    assert_close(
                        &[found.value],
                        &[plain.value],
                        1e-12,
                        &format!("{method} {shape:?}"),
                    );
                }
            }
        }
    }
}
