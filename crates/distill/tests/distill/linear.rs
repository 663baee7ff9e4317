//! Linear problems, where the theory of controls is exact: the papers' identity, stationary errors, bound and best λ, and the law of least
//! squares along a path.

use candle_core::Tensor;
use lowchurn_data::{BatchSize, Encoded, Rng, Targets};
use lowchurn_distill::{
    Guides, OldWeights, OptimizerName, Plan, Schedule, SelectBy, State, Teacher, TrainOnly,
    Vectors, renew_control, step,
};
use lowchurn_models::{Classifier, Head};
use serde_json::Value;

use crate::{CPU, batch, encoded, golden_folder};

const WIDTH: usize = 32;

fn example(name: &str) -> Value {
    let path = golden_folder().join("papers_examples.json");
    let mut all: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    all[name].take()
}

fn row_of(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn matrix_of(value: &Value) -> Vec<Vec<f64>> {
    value.as_array().unwrap().iter().map(row_of).collect()
}

/// A linear problem as a run: features in the first channels of the vectors, and no encoder in the way.
struct Linear {
    rows: Encoded,
    features: Vectors,
    plan: Plan,
    classes: usize,
}

impl Linear {
    fn new(features: &[Vec<f64>], targets: Targets, labels: Vec<Option<u32>>, rate: f64) -> Linear {
        let classes = match targets {
            Targets::Values(_) => 1,
            _ => 3,
        };
        let tokens: Vec<_> = labels.iter().map(|label| (vec![2u32, 20, 3], *label)).collect();
        let rows = Encoded { targets, ..encoded(&tokens) };
        let mut values = vec![0f32; features.len() * WIDTH];
        for (row, x) in features.iter().enumerate() {
            x.iter().enumerate().for_each(|(c, x)| values[row * WIDTH + c] = *x as f32);
        }
        let plan = Plan {
            train_only: Some(TrainOnly::LastLayer),
            optimizer: OptimizerName::Sgd,
            learning_rate: rate,
            schedule: Schedule::Constant,
            max_grad_norm: 0.0,
            batch_size: BatchSize::Rows(1),
            max_length: 16,
            ..Plan::default_with(SelectBy::Loss)
        };
        Linear { rows, features: Vectors { width: WIDTH, values }, plan, classes }
    }

    /// The golden encoder with a last layer of these weights (K, C) and no bias.
    fn model(&self, weights: &[Vec<f64>]) -> Classifier {
        let labels = (0..self.classes).map(|k| format!("class-{k}")).collect();
        let head = Head::Fresh { labels, normal: &mut || 0.0 };
        let model = Classifier::open(&golden_folder().join("bert_tiny"), head, &CPU).unwrap().0;
        let mut values = vec![0f32; self.classes * WIDTH];
        for (k, row) in weights.iter().enumerate() {
            row.iter().enumerate().for_each(|(c, w)| values[k * WIDTH + c] = *w as f32);
        }
        let weight = Tensor::from_vec(values, (self.classes, WIDTH), &CPU).unwrap();
        model.params.0["classifier.weight"].set(&weight).unwrap();
        model
    }

    /// Not checked: at λ = 0, where a plan with a reduction is refused, the numbers are known too.
    fn with(&self, method: &str, reduction: &str) -> Plan {
        let (method, variance_reduction) = (method.parse().unwrap(), reduction.parse().unwrap());
        Plan { method, variance_reduction, ..self.plan.clone() }
    }

    /// The logits of a teacher of these weights on all rows.
    fn teacher(&self, weights: &[Vec<f64>]) -> Teacher {
        let of = |x: &[f32], w: &Vec<f64>| -> f32 {
            x.iter().zip(w).map(|(x, w)| f64::from(*x) * w).sum::<f64>() as f32
        };
        let rows = self.features.values.chunks_exact(WIDTH);
        let logits = rows.flat_map(|x| weights.iter().map(move |w| of(x, w))).collect();
        Teacher { logits, known: vec![true; self.classes], said: Vec::new() }
    }

    /// A state ready for `step`.
    fn state(&self, plan: &Plan, weights: &[Vec<f64>]) -> State {
        let mut state = State::new(self.model(weights)).unwrap();
        state.train_parts(plan).unwrap();
        state
    }

    fn steps(&self, plan: &Plan, teacher: &[Vec<f64>], state: &mut State, order: &[u32]) {
        let of_teacher = OldWeights::copy_of(&self.model(teacher).params).unwrap();
        let table = self.teacher(teacher);
        let guides = Guides {
            teacher: Some(&table),
            teacher_weights: Some(&of_teacher),
            features: Some(&self.features),
            ..Guides::default()
        };
        for &row in order {
            renew_control(plan, &guides, &self.rows, self.rows.rows() as u64, state).unwrap();
            let micro = [batch(&self.rows, &[row])];
            step(state, plan, &self.rows, &guides, &micro, order.len() as u64, &CPU).unwrap();
        }
    }
}

/// (K, c) of the last layer.
fn weights(state: &State, channels: usize) -> Vec<Vec<f64>> {
    let all = state.model.params.0["classifier.weight"].to_vec2::<f32>().unwrap();
    all.iter().map(|row| row[..channels].iter().map(|&w| f64::from(w)).collect()).collect()
}

/// papers_examples.json, F1: for softmax on linear logits the gradient of distillation is the student's less λ times the teacher's,
/// row by row; both ways of taking it give the file's numbers, and so does a plain step at either's weights.
#[test]
fn distillation_is_a_control_variate_for_a_linear_model() {
    let case = example("F1_linear_identity");
    let labels = row_of(&case["labels"]).iter().map(|&label| Some(label as u32)).collect();
    let rate = 0.5;
    let linear = Linear::new(&matrix_of(&case["A"]), Targets::OneClass, labels, rate);
    let (student, teacher) = (matrix_of(&case["W"]), matrix_of(&case["theta"]));
    let method = format!("distil:lambda={}", case["lam"]);
    let cases = [
        ("retrain", "none", &student, "g_student"),
        ("retrain", "none", &teacher, "g_teacher"),
        (&*method, "kd", &student, "g_kd"),
        (&*method, "modified", &student, "g_kd"),
    ];
    for (method, reduction, start, expected) in cases {
        let plan = linear.with(method, reduction);
        for (row, expected) in matrix_of(&case[expected]).iter().enumerate() {
            let mut state = linear.state(&plan, start);
            linear.steps(&plan, &teacher, &mut state, &[row as u32]);
            let moved = weights(&state, 2);
            let pairs = start.iter().flatten().zip(moved.iter().flatten());
            for ((before, after), expected) in pairs.zip(expected) {
                let found = (before - after) / rate;
                assert!(
                    (found - expected).abs() < 2e-6,
                    "{method} {reduction} {row}: {found} {expected}"
                );
            }
        }
    }
}

/// papers_examples.json, F3, F5 and F6: least squares of one weight on four rows.
struct OneWeight {
    linear: Linear,
    best: f64,
    gamma: f64,
}

impl OneWeight {
    fn new() -> OneWeight {
        let case = example("F3_stationary_mse_1d");
        let (a, b) = (row_of(&case["a"]), row_of(&case["b"]));
        let (best, gamma) = (case["x_star"].as_f64().unwrap(), case["gamma"].as_f64().unwrap());
        let features: Vec<Vec<f64>> = a.iter().map(|a| vec![*a]).collect();
        let targets = Targets::Values(b.iter().map(|b| Some(*b as f32)).collect());
        // The file's loss has a half before the square, a regression's has none.
        let linear = Linear::new(&features, targets, vec![Some(0); 4], gamma / 2.0);
        OneWeight { linear, best, gamma }
    }

    /// x after one update on a row.
    fn after(&self, plan: &Plan, theta: f64, x: f64, row: u32) -> f64 {
        let mut state = self.linear.state(plan, &[vec![x]]);
        self.linear.steps(plan, &[vec![theta]], &mut state, &[row]);
        weights(&state, 1)[0][0]
    }

    /// E(x − x*)² at stationarity: each update is x ← α·x + β for its row, which two steps show, and from α and β of the four rows
    /// the rest follows.
    fn error(&self, method: &str, reduction: &str, theta: f64) -> f64 {
        let plan = self.linear.with(method, reduction);
        let affine = |row: u32| {
            let at = |x: f64| self.after(&plan, theta, x, row);
            (at(1.0) - at(0.0), at(0.0))
        };
        let maps: Vec<(f64, f64)> = (0..4).map(affine).collect();
        let mean = |of: &dyn Fn(&(f64, f64)) -> f64| maps.iter().map(of).sum::<f64>() / 4.0;
        let first = mean(&|m| m.1) / (1.0 - mean(&|m| m.0));
        let second = (2.0 * mean(&|m| m.0 * m.1) * first + mean(&|m| m.1 * m.1))
            / (1.0 - mean(&|m| m.0 * m.0));
        second - 2.0 * self.best * first + self.best * self.best
    }

    /// ∇f of each row at x, by plain steps.
    fn gradients(&self, x: f64) -> Vec<f64> {
        let plan = self.linear.with("retrain", "none");
        (0..4).map(|row| (x - self.after(&plan, 0.0, x, row)) / self.gamma).collect()
    }
}

#[test]
fn stationary_errors_are_those_of_the_papers() {
    let (case, one) = (example("F3_stationary_mse_1d"), OneWeight::new());
    for row in case["table"].as_array().unwrap() {
        let theta = one.best
            + match row["teacher"].as_str().unwrap() {
                "teacher at optimum" => 0.0,
                "teacher off by 0.3" => 0.3,
                _ => 1.5,
            };
        let method = format!("distil:lambda={}", row["lam"]);
        for (reduction, key) in
            [("kd", "mse_biased"), ("modified", "mse_biased"), ("unbiased", "mse_unbiased")]
        {
            let (found, expected) =
                (one.error(&method, reduction, theta), row[key].as_f64().unwrap());
            assert!((found - expected).abs() < 2e-6, "{reduction} {row}: {found}");
        }
    }
}

/// F5: the bound of papers.md 8.4 from the gradients that the program's own steps have, its best λ, and what SGD has there; the bound
/// holds, and its best λ may be a little worse than none.
#[test]
fn the_bound_is_that_of_the_papers() {
    let (case, one) = (example("F5_bound_and_lam_star"), OneWeight::new());
    let mu = case["mu"].as_f64().unwrap();
    let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / 4.0;
    let at_best = one.gradients(one.best);
    for row in case["rows"].as_array().unwrap() {
        let number = |key: &str| row[key].as_f64().unwrap();
        let theirs = one.gradients(number("theta"));
        let noise = mean(&mut at_best.iter().map(|a| a * a));
        let common = mean(&mut at_best.iter().zip(&theirs).map(|(a, b)| a * b));
        let of_mean = mean(&mut theirs.iter().copied()).powi(2);
        let of_teacher = mean(&mut theirs.iter().map(|b| b * b)) + of_mean / (one.gamma * mu);
        let bound = |lambda: f64| {
            4.0 * one.gamma / mu * (noise - 2.0 * lambda * common + lambda * lambda * of_teacher)
        };
        let best = common / of_teacher;
        assert!((best - number("lam_star")).abs() < 1e-4, "{row}: {best}");
        for (lambda, of_bound, of_error) in
            [(0.0, "bound_at_0", "mse_at_0"), (best, "bound_at_lam_star", "mse_at_lam_star")]
        {
            assert!((bound(lambda) - number(of_bound)).abs() < 1e-5, "{row}: {}", bound(lambda));
            let method = format!("distil:lambda={}", lambda.clamp(0.0, 1.0));
            let found = one.error(&method, "kd", number("theta"));
            assert!((found - number(of_error)).abs() < 2e-6, "{row} {lambda}: {found}");
            assert!(found <= bound(lambda) + 2e-6, "{row}: {found} over {}", bound(lambda));
        }
    }
}

/// F6: V/(V + D²) is the best λ, and V·D²/(V + D²) what is left there.
#[test]
fn the_best_weight_of_a_teacher_is_that_of_the_papers() {
    let (case, one) = (example("F6_exact_least_squares"), OneWeight::new());
    let v = one.error("retrain", "none", 0.0);
    assert!((v - case["V"].as_f64().unwrap()).abs() < 2e-6, "{v}");
    for row in case["rows"].as_array().unwrap() {
        let number = |key: &str| row[key].as_f64().unwrap();
        let (d2, best) = (number("D2"), number("lam_opt"));
        assert!((v / (v + d2) - best).abs() < 2e-4, "{row}: {}", v / (v + d2));
        let at =
            |lambda: f64| one.error(&format!("distil:lambda={lambda}"), "kd", one.best + d2.sqrt());
        assert!((at(best) - number("mse_opt")).abs() < 2e-6, "{row}: {}", at(best));
        for beside in [best + 0.1, best - 0.1] {
            assert!(!(0.0..=1.0).contains(&beside) || at(beside) > at(best), "{row} {beside}");
        }
    }
}

/// papers.md 8.4: with squared loss the path is x = λ·θ + (1 − λ)·u at every step, u the plain path of the same order that starts at
/// (x₀ − λ·θ)/(1 − λ). So the error at stationarity is (1 − λ)²·V + λ²·D².
#[test]
fn least_squares_go_along_the_plain_path() {
    let mut rng = Rng::stream(4, "least squares", 0);
    let channels = 5;
    let mut normal = |n: usize| -> Vec<f64> { (0..n).map(|_| rng.normal()).collect() };
    let features: Vec<Vec<f64>> = (0..12).map(|_| normal(channels)).collect();
    let targets = normal(12).iter().map(|y| Some(*y as f32)).collect();
    let (start, theta) = (normal(channels), normal(channels));
    let linear = Linear::new(&features, Targets::Values(targets), vec![Some(0); 12], 0.02);
    let order: Vec<u32> = (0..300u32).map(|n| (n * 7 + n / 12) % 12).collect();
    // The bias is one more channel: its feature is 1, and it starts and is taught at 0.
    for lambda in [0.25, 0.6, 0.9] {
        let method = format!("distil:lambda={lambda}");
        let plain = linear.with("retrain", "none");
        let u = start.iter().zip(&theta).map(|(x, t)| (x - lambda * t) / (1.0 - lambda)).collect();
        let mut along = linear.state(&plain, &[u]);
        linear.steps(&plain, std::slice::from_ref(&theta), &mut along, &order);
        let expected: Vec<f64> = weights(&along, channels)[0]
            .iter()
            .zip(&theta)
            .map(|(u, t)| lambda * t + (1.0 - lambda) * u)
            .collect();
        for reduction in ["kd", "modified"] {
            let plan = linear.with(&method, reduction);
            let mut state = linear.state(&plan, std::slice::from_ref(&start));
            linear.steps(&plan, std::slice::from_ref(&theta), &mut state, &order);
            for (found, expected) in weights(&state, channels)[0].iter().zip(&expected) {
                assert!(
                    (found - expected).abs() < 2e-5,
                    "{lambda} {reduction}: {found} {expected}"
                );
            }
        }
    }
}
