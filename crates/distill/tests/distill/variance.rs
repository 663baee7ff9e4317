//! Gradients with a control taken off: the papers' identity and stationary errors, the exact law of least squares along a path,
//! a snapshot's first step, the same bytes across kills and threads, and what is refused.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use candle_core::{Tensor, Var};
use lowchurn_data::{BatchSize, Encoded, Rng, Targets};
use lowchurn_distill::{
    Event, Guides, Measuring, Method, OldWeights, OptimizerName, Outcome, Plan, Schedule, SelectBy,
    State, Teacher, TrainOnly, VarianceReduction, Vectors, gradient_noise, predict, renew_control,
    step,
};
use lowchurn_models::{Classifier, Head, Params};
use serde_json::Value;
use tempfile::TempDir;

use crate::methods::{Lesson, old_model, teacher_of};
use crate::{CPU, batch, copy_folder, distance, encoded, golden_folder, numbers, values};

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

    fn with(&self, method: &str, reduction: &str) -> Plan {
        let (method, variance_reduction) = (method.parse().unwrap(), reduction.parse().unwrap());
        Plan { method, variance_reduction, ..self.plan.clone() }.check().unwrap()
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

fn sgd(plan: &mut Plan) {
    plan.optimizer = OptimizerName::Sgd;
    (plan.learning_rate, plan.max_grad_norm) = (0.05, 0.0);
    plan.schedule = Schedule::Constant;
    plan.dropout = Some(0.0);
}

/// What one plain update from these weights takes off them.
fn taken_off(start: &Params, rows: &Encoded, which: &[u32]) -> BTreeMap<String, Vec<f32>> {
    let mut plan = crate::plan();
    sgd(&mut plan);
    let mut state = State::new(clone(start)).unwrap();
    state.train_parts(&plan).unwrap();
    let micro = [batch(rows, which)];
    step(&mut state, &plan, rows, &Guides::default(), &micro, 1, &CPU).unwrap();
    less(&values(start), &values(&state.model.params))
}

fn less(
    a: &BTreeMap<String, Vec<f32>>,
    b: &BTreeMap<String, Vec<f32>>,
) -> BTreeMap<String, Vec<f32>> {
    let one = |(name, a): (&String, &Vec<f32>)| {
        (name.clone(), a.iter().zip(&b[name]).map(|(a, b)| a - b).collect())
    };
    a.iter().map(one).collect()
}

fn clone(params: &Params) -> Classifier {
    let copy = |(name, var): (&String, &Var)| {
        (name.clone(), Var::from_tensor(&var.as_tensor().copy().unwrap()).unwrap())
    };
    let mut config = old_model().config.clone();
    (config.hidden_dropout, config.attention_dropout, config.classifier_dropout) = (0.0, 0.0, 0.0);
    Classifier::new(config, Params(params.0.iter().map(copy).collect())).unwrap()
}

/// On the whole encoder an update is the sum of plain updates at both weights: −g(x) + λ·g(θ), and −λ·∇f(θ) with the correction.
#[test]
fn a_control_is_the_gradient_at_the_teachers_weights() {
    for reduction in ["modified", "unbiased"] {
        let lesson = Lesson::of("distil:lambda=0.4", |plan| {
            sgd(plan);
            plan.variance_reduction = reduction.parse().unwrap();
        });
        let plan = &lesson.toy.provenance.plan;
        let rows = &lesson.toy.train;
        let start = lesson.state().model.params;
        let mut state = State::new(clone(&start)).unwrap();
        state.train_parts(plan).unwrap();
        let guides = lesson.guides();
        renew_control(plan, &guides, rows, 6, &mut state).unwrap();
        let which = [3, 8, 1];
        step(&mut state, plan, rows, &guides, &[batch(rows, &which)], 1, &CPU).unwrap();
        let found = less(&values(&start), &values(&state.model.params));
        let (own, of_teacher) =
            (taken_off(&start, rows, &which), taken_off(&old_model().params, rows, &which));
        let every: Vec<u32> = (0..rows.rows() as u32).collect();
        let full = taken_off(&old_model().params, rows, &every);
        let corrected = if reduction == "unbiased" { 0.4 } else { 0.0 };
        for (name, found) in found {
            let both = own[&name].iter().zip(&of_teacher[&name]).zip(&full[&name]);
            let expected: Vec<f32> =
                both.map(|((own, control), full)| own - 0.4 * control + corrected * full).collect();
            assert!(distance(&found, &expected) < 2e-6, "{reduction} {name}");
        }
    }
}

/// At the snapshot itself student and control are the same, so with λ = 1 the update is the full gradient's.
#[test]
fn the_first_update_after_a_snapshot_is_the_full_gradients() {
    let lesson = Lesson::of("retrain", |plan| {
        sgd(plan);
        plan.variance_reduction = "svrg:start=0,every=1".parse().unwrap();
    });
    let (plan, rows) = (&lesson.toy.provenance.plan, &lesson.toy.train);
    let start = lesson.state().model.params;
    let mut state = State::new(clone(&start)).unwrap();
    state.train_parts(plan).unwrap();
    renew_control(plan, &lesson.guides(), rows, 6, &mut state).unwrap();
    step(&mut state, plan, rows, &lesson.guides(), &[batch(rows, &[5, 2])], 1, &CPU).unwrap();
    let every: Vec<u32> = (0..rows.rows() as u32).collect();
    let expected = taken_off(&start, rows, &every);
    for (name, found) in less(&values(&start), &values(&state.model.params)) {
        assert!(distance(&found, &expected[&name]) < 2e-6, "{name}");
    }
    // Another update is not: the control is of the snapshot, the student has moved on.
    let moved = values(&state.model.params);
    step(&mut state, plan, rows, &lesson.guides(), &[batch(rows, &[0])], 1, &CPU).unwrap();
    let next = less(&moved, &values(&state.model.params));
    assert!(next.iter().any(|(name, found)| distance(found, &expected[name]) > 1e-4));
}

/// Two epochs with dropout and saves in between; the full encoder by AdamW and by SGD, and the last layer.
const RESUMED: [(&str, &str, bool); 5] = [
    ("distil:lambda=0.9..0.1~cosine", "modified", false),
    ("distil:lambda=0.5", "unbiased", false),
    ("distil:lambda=0.7*0.9@3", "unbiased", true),
    ("retrain", "svrg:start=1,every=1", true),
    ("retrain", "svrg:start=0,every=1,lambda=0.5", false),
];

fn lesson((method, reduction, is_probe): (&str, &str, bool)) -> Lesson {
    let mut lesson = Lesson::of(method, |plan| {
        plan.variance_reduction = reduction.parse().unwrap();
        (plan.epochs, plan.dropout) = (3, Some(0.2));
        (plan.eval_steps, plan.save_steps) = (3, 2);
        if is_probe {
            sgd(plan);
            plan.train_only = Some(TrainOnly::LastLayer);
        }
    });
    if is_probe && lesson.teacher_weights.is_some() {
        // A probe of the student's own encoder.
        let (own, old) = (lesson.state().model.params, old_model().params);
        let mut weights = OldWeights::copy_of(&own).unwrap();
        for name in ["classifier.weight", "classifier.bias"] {
            weights.params.insert(name.into(), old.0[name].as_tensor().copy().unwrap());
        }
        lesson.teacher_weights = Some(weights);
    }
    lesson
}

#[test]
fn killed_anywhere_it_ends_in_the_same_bytes() {
    for case in RESUMED {
        let straight = lesson(case);
        let copies = TempDir::new().unwrap();
        let mut n_copies = 0;
        let (outcome, _) = straight.go(&AtomicBool::new(false), &mut |event| {
            let is_worth_it = matches!(event, Event::Saved { .. } | Event::Stepped { .. });
            if is_worth_it && straight.toy.run_dir().exists() {
                copy_folder(&straight.toy.run_dir(), &copies.path().join(n_copies.to_string()));
                n_copies += 1;
            }
        });
        let (outcome, expected) = (outcome.unwrap(), straight.toy.released());
        assert!(n_copies > 15, "{n_copies}");
        for copy in (0..n_copies).step_by(2) {
            let killed = lesson(case);
            copy_folder(&copies.path().join(copy.to_string()), &killed.toy.run_dir());
            assert_eq!(killed.finish().0, outcome, "{case:?} from copy {copy}");
            assert!(killed.toy.released() == expected, "{case:?} from copy {copy}: other bytes");
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bytes_of_a_control() {
    for case in RESUMED {
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let lesson = lesson(case);
                lesson.finish();
                lesson.toy.released()
            })
        };
        let one = on(1);
        assert!(on(2) == one && on(3) == one, "{case:?}");
    }
}

/// A control that changed nothing would pass the tests above; and kd is the method by another name.
#[test]
fn reductions_are_not_the_plain_run() {
    let weights = |method: &str, reduction: &str| {
        let lesson = Lesson::of(method, |plan| {
            plan.epochs = 2;
            plan.variance_reduction = reduction.parse().unwrap();
        });
        values(&lesson.finish().2.model.params)
    };
    let distil = weights("distil", "none");
    assert_eq!(weights("distil", "kd"), distil);
    let (modified, unbiased) = (weights("distil", "modified"), weights("distil", "unbiased"));
    assert!(modified != distil && unbiased != distil && modified != unbiased);
    let plain = weights("retrain", "none");
    assert_eq!(weights("retrain", "svrg:start=2"), plain);
    assert_ne!(weights("retrain", "svrg:start=1"), plain);
    assert_eq!(weights("retrain", "svrg:start=0,lambda=0"), plain);
}

/// Vectors made once are those of the encoder: the same weights as with a forward pass each time, nothing else moves, and the
/// finished model predicts what the run said.
#[test]
fn a_probe_moves_the_last_layer_alone() {
    let lesson = Lesson::of("retrain", |plan| {
        (plan.epochs, plan.batch_size) = (3, BatchSize::Rows(4));
        plan.train_only = Some(TrainOnly::LastLayer);
        plan.dropout = Some(0.0);
        plan.optimizer = OptimizerName::Sgd;
        plan.learning_rate = 0.3;
        plan.select_by = SelectBy::Loss;
    });
    let before = values(&lesson.state().model.params);
    let (outcome, events, state) = lesson.finish();
    for (name, found) in values(&state.model.params) {
        let is_last = name.starts_with("classifier.");
        assert_eq!(found != before[&name], is_last, "{name}");
    }
    let Outcome::Finished(release) = outcome else { panic!("interrupted") };
    let eval = lesson.toy.eval.as_ref().unwrap();
    let found = predict(&state.model, eval, 5, &CPU, &mut |_| {}).unwrap();
    let scores = lowchurn_distill::evaluate(&found, &eval.labels).unwrap();
    assert!((scores.loss - release.scores.unwrap().loss).abs() < 1e-6);

    // The same updates through the encoder.
    let plan = &lesson.toy.provenance.plan;
    let mut slow = lesson.state();
    slow.train_parts(plan).unwrap();
    let lengths = lesson.toy.train.lengths();
    for epoch in 0..3 {
        for rows in lowchurn_data::epoch_order(&lengths, plan.batch_size, plan.seed, epoch) {
            let micro = [batch(&lesson.toy.train, &rows)];
            step(&mut slow, plan, &lesson.toy.train, &Guides::default(), &micro, 18, &CPU).unwrap();
        }
    }
    let last = lesson.go(&AtomicBool::new(false), &mut |_| {}).1; // the best weights, which are the last
    let steps = events.iter().filter(|event| matches!(event, Event::Stepped { .. })).count();
    assert_eq!((steps, release.step), (18, 18));
    for name in ["classifier.weight", "classifier.bias"] {
        let (fast, slow) = (&last.model.params.0[name], &slow.model.params.0[name]);
        assert!(distance(&numbers(fast), &numbers(slow)) < 1e-5, "{name}");
    }
}

/// What is measured are the gradients that updates take: of the labels, of distillation at a λ, and of the labels at the teacher's
/// weights. ‖a − λ·b‖² of a batch follows from the products, and a plain update of distillation has it.
#[test]
fn measured_gradients_are_those_of_updates() {
    let lesson = Lesson::of("distil:lambda=0.3", |_| {});
    let rows = &lesson.toy.train;
    let (student, old) = (clone(&lesson.state().model.params), old_model());
    let weights = OldWeights::copy_of(&old.params).unwrap();
    let teacher = lesson.teacher.as_ref().unwrap();
    let batches: Vec<Vec<u32>> = vec![vec![0, 4, 9], vec![2, 3], vec![7, 1, 5, 6]];
    let measuring = Measuring {
        student: &student,
        teacher,
        weights: Some(&weights),
        rows,
        batches: &batches,
        lambda: 0.3,
        device: &CPU,
    };
    let report = gradient_noise(&measuring, &mut |_| true).unwrap().unwrap();
    // The teacher's own gradients are of the first batch and the third.
    assert_eq!((report.batches, report.rows, report.label_cosines.len()), (3, 9, 3));
    assert_eq!((report.own_batches, report.cosines.len()), (2, 2));
    let squares = |plan: &Plan, start: &Params, which: &[u32]| -> f64 {
        let mut state = State::new(clone(start)).unwrap();
        state.train_parts(plan).unwrap();
        let guides = Guides { teacher: Some(teacher), ..Guides::default() };
        let micro = [batch(rows, which)];
        step(&mut state, plan, rows, &guides, &micro, 1, &CPU).unwrap().gradient_norm.powi(2)
    };
    let mut plain = crate::plan();
    sgd(&mut plain);
    let distil = Plan { method: "distil:lambda=0.3".parse().unwrap(), ..plain.clone() };
    let mean = |of: &dyn Fn(&[u32]) -> f64| batches.iter().map(|b| of(b)).sum::<f64>() / 3.0;
    let close = |found: f64, expected: f64| {
        assert!((found / expected - 1.0).abs() < 1e-4, "{found} {expected}");
    };
    let (all, own) = (&report.groups[0].noise, &report.own[0].noise);
    close(all.student, mean(&|which| squares(&plain, &student.params, which)));
    let mean_of_own = |params: &Params| {
        [0, 2].iter().map(|at| squares(&plain, params, &batches[*at])).sum::<f64>() / 2.0
    };
    close(own.student, mean_of_own(&student.params));
    close(own.teacher, mean_of_own(&old.params));
    for (cosine, which) in report.label_cosines.iter().zip(&batches) {
        let (a, kd) =
            (squares(&plain, &student.params, which), squares(&distil, &student.params, which));
        let alone = Plan { method: "distil:lambda=1".parse().unwrap(), ..plain.clone() };
        let told = squares(&alone, &student.params, which); // ‖a − b‖²
        // With s = ⟨a, b⟩ and q = ‖b‖²: kd = a − 2λ·s + λ²·q and told = a − 2·s + q.
        let s = (kd - a - 0.09 * (told - a)) / (0.18 - 0.6);
        let expected = (a - 0.3 * s) / (a * kd).sqrt();
        assert!((cosine - expected).abs() < 1e-3, "{cosine} {expected}");
    }
    let kd = all.student - 0.6 * all.product + 0.09 * all.teacher;
    close(kd, mean(&|which| squares(&distil, &student.params, which)));

    // Parts add up to the whole, from below.
    let names: Vec<&str> = report.groups.iter().map(|group| group.group.as_str()).collect();
    assert_eq!(names, ["all", "embeddings", "layer 0", "layer 1", "head"]);
    let parts = report.groups[1..].iter().map(|group| group.noise.student).sum::<f64>();
    close(parts, all.student);
    assert!(report.cosines.iter().all(|cosine| (-1.0..1.0).contains(cosine)));

    // The student as its own teacher: both kinds are one, and at the best λ nothing is left.
    let own = OldWeights::copy_of(&student.params).unwrap();
    let told = teacher_of(&student, rows);
    let itself = Measuring { teacher: &told, weights: Some(&own), ..measuring };
    let report = gradient_noise(&itself, &mut |_| true).unwrap().unwrap();
    assert!(report.cosines.iter().all(|cosine| (cosine - 1.0).abs() < 1e-4));
    for group in report.groups.iter().chain(&report.own) {
        assert!((group.lambda_hat_centred.unwrap() - 1.0).abs() < 1e-3, "{group:?}");
        assert!(group.predicted_ratio.unwrap() < 1e-3, "{group:?}");
        assert!((group.measured_ratio.unwrap() - 0.49).abs() < 1e-3, "{group:?}"); // (1 − 0.3)²
    }
    assert!(gradient_noise(&itself, &mut |done| done < 2).unwrap().is_none());

    let said =
        |measuring: Measuring| gradient_noise(&measuring, &mut |_| true).unwrap_err().to_string();
    let one = &batches[..1];
    assert_eq!(
        said(Measuring { batches: one, ..itself }),
        "gradients need at least two batches, and there are 1"
    );
    assert_eq!(
        said(Measuring { lambda: 1.5, ..itself }),
        "λ is 1.5, expected a number from 0 to 1"
    );
    let unsure = Teacher { known: vec![true, false], ..told.clone() };
    assert_eq!(
        said(Measuring { teacher: &unsure, ..itself }),
        "gradients: the teacher doesn't know the student's class \"yes\"; take one that was trained on all of them"
    );
    let mut other = own.clone();
    other.params.remove("bert.pooler.dense.bias");
    assert_eq!(
        said(Measuring { weights: Some(&other), ..itself }),
        "the teacher's own gradients: its bert.pooler.dense.bias is missing or of another shape, so it isn't of the student's \
         architecture"
    );
}

#[test]
fn what_cannot_be_controlled_is_refused() {
    let set =
        |plan: &mut Plan, reduction: &str| plan.variance_reduction = reduction.parse().unwrap();
    let refused = "variance reduction unbiased takes the gradient of the teacher's weights, so the teacher must be of the student's \
                   architecture, sizes and classes: ";
    let instead = "; with kd its logits are enough";
    let said = |change: &dyn Fn(&mut Lesson)| {
        let mut lesson = Lesson::of("distil", |plan| set(plan, "unbiased"));
        change(&mut lesson);
        let said = lesson.refusal();
        assert!(!lesson.toy.run_dir().exists());
        said
    };
    let teacher = |lesson: &mut Lesson, change: &dyn Fn(&mut BTreeMap<String, Tensor>)| {
        change(&mut lesson.teacher_weights.as_mut().unwrap().params)
    };
    let name = "bert.encoder.layer.0.attention.self.query.bias";
    assert_eq!(
        said(&|lesson| teacher(lesson, &|all| drop(all.remove(name)))),
        format!("{refused}it has no {name}{instead}")
    );
    let wide = |all: &mut BTreeMap<String, Tensor>| {
        let grown = all["classifier.weight"].pad_with_zeros(0, 0, 1).unwrap();
        all.insert("classifier.weight".into(), grown);
    };
    assert_eq!(
        said(&|lesson| teacher(lesson, &wide)),
        format!("{refused}its classifier.weight has shape [3, 32], the student's [2, 32]{instead}")
    );
    let more = |all: &mut BTreeMap<String, Tensor>| {
        let bias = all[name].clone();
        all.insert("more.bias".into(), bias);
    };
    assert_eq!(
        said(&|lesson| teacher(lesson, &more)),
        format!("{refused}the student has no more.bias{instead}")
    );
    assert_eq!(
        said(&|lesson| lesson.teacher_weights = None),
        "method distil needs the teacher's weights for its variance reduction"
    );
    assert_eq!(
        said(&|lesson| lesson.toy.train.labels[2] = None),
        "row row-2 has no label, and training needs one; leave unlabelled rows out"
    );
    assert_eq!(
        said(&|lesson| lesson.toy.provenance.plan.train_only = Some(TrainOnly::LastLayer)),
        format!(
            "{refused}the last layer alone is trained, and the teacher's bert.embeddings.LayerNorm.bias isn't the student's: it has \
             to be a probe of the same encoder{instead}"
        )
    );
    let late = Lesson::of("distil:lambda=0.9*1.2@2", |_| {});
    assert_eq!(
        late.refusal(),
        "λ 0.9*1.2@2 is 1.080000 in update 3 of 6, expected a number from 0 to 1; start lower, take a smaller factor, or multiply \
         less often"
    );
    assert_eq!(VarianceReduction::default(), VarianceReduction::None);
    assert_eq!("distil".parse::<Method>().unwrap().name(), "distil");
}
