//! Every method on the toy problem: it learns, its λ reaches the loss, and a stopped run ends in the bytes of a straight one.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Var;
use lowchurn_data::Encoded;
use lowchurn_distill::{
    Buffer, Divergence, Event, Guides, METHODS, Method, OldWeights, Outcome, Plan, Result, Run,
    State, StepReport, Teacher, evaluate, finished, fisher, predict, shrink_perturb, step, train,
};
use lowchurn_kernels::Precision;
use lowchurn_models::{Classifier, Params};
use tempfile::TempDir;

use crate::{
    CPU, GO, Toy, batch, copy_folder, distance, names, numbers, plan, toy_rows, toy_state, values,
};

/// A toy run by a method, with all that the method asks for. The old model is one that learnt the toy's first ten rows.
pub struct Lesson {
    pub toy: Toy,
    pub teacher: Option<Teacher>,
    pub old_weights: Option<OldWeights>,
    pub teacher_weights: Option<OldWeights>,
    pub is_old: Option<Vec<bool>>,
    pub buffer: Option<Buffer>,
}

impl Lesson {
    pub fn of(method: &str, change: impl FnOnce(&mut Plan)) -> Lesson {
        let method: Method = method.parse().unwrap();
        let toy = Toy::with(|plan| {
            plan.method = method;
            change(plan);
        });
        let old = old_model();
        let needs = method.needs();
        let n = toy.train.rows();
        let held = toy_rows(9, 5);
        let predicted = |rows: &Encoded| {
            let found = predict(&old, rows, 5, &CPU, &mut |_| {}).unwrap();
            (0..found.rows()).map(|row| found.predicted(row)).collect()
        };
        let weights = || {
            let copy = OldWeights::copy_of(&old.params).unwrap();
            let fisher = fisher(&old, &toy_rows(10, 1), 10, 0, &CPU, &GO, &mut |_| {}).unwrap();
            OldWeights { fisher, ..copy }
        };
        Lesson {
            teacher: needs.teacher.then(|| teacher_of(&old, &toy.train)),
            old_weights: needs.old_weights.then(weights),
            teacher_weights: toy
                .provenance
                .plan
                .variance_reduction
                .needs_teacher_weights()
                .then(|| OldWeights::copy_of(&old.params).unwrap()),
            is_old: needs.old_rows.then(|| (0..n).map(|row| row < 10).collect()),
            buffer: needs.buffer.then(|| Buffer { old: predicted(&held), rows: held }),
            toy,
        }
    }

    pub fn guides(&self) -> Guides<'_> {
        Guides {
            teacher: self.teacher.as_ref(),
            old_weights: self.old_weights.as_ref(),
            teacher_weights: self.teacher_weights.as_ref(),
            is_old: self.is_old.as_deref(),
            buffer: self.buffer.as_ref(),
            ..Guides::default()
        }
    }

    /// A cold start; with the second student, or mixed with the old weights, where the method is of that kind.
    pub fn state(&self) -> State {
        let state = toy_state(self.toy.head_seed);
        match self.toy.provenance.plan.method {
            Method::CoDistil { .. } => state.with_peer(toy_state(70).model).unwrap(),
            Method::ShrinkPerturb { shrink, perturb } => {
                let (old, config) = (old_model(), state.model.config.clone());
                let mixed = shrink_perturb(&old.params, &state.model.params, shrink, perturb);
                State::new(Classifier::new(config, mixed.unwrap()).unwrap()).unwrap()
            }
            _ => state,
        }
    }

    /// One call of `train` on a state made anew, as a new process would.
    pub fn go(&self, stop: &AtomicBool, on: &mut dyn FnMut(Event)) -> (Result<Outcome>, State) {
        let mut state = self.state();
        let run = Run {
            provenance: &self.toy.provenance,
            train: &self.toy.train,
            eval: self.toy.eval.as_ref(),
            guides: self.guides(),
            dir: &self.toy.run_dir(),
            tokenizer_from: &self.toy.dir.path().join("base"),
        };
        (train(&run, &mut state, stop, on), state)
    }

    /// Undisturbed to the end.
    pub fn finish(&self) -> (Outcome, Vec<Event>, State) {
        let mut events = Vec::new();
        let (outcome, state) = self.go(&AtomicBool::new(false), &mut |event| events.push(event));
        (outcome.unwrap(), events, state)
    }

    /// Stopped after an update.
    pub fn stop_after(&self, at: u64) {
        let stop = AtomicBool::new(false);
        let (outcome, _) = self.go(&stop, &mut |event| {
            if matches!(event, Event::Stepped { step, .. } if step == at) {
                stop.store(true, Ordering::Relaxed);
            }
        });
        assert_eq!(outcome.unwrap(), Outcome::Interrupted { step: at });
    }

    pub fn refusal(&self) -> String {
        let (outcome, _) = self.go(&AtomicBool::new(false), &mut |_| {});
        self.toy.text(outcome)
    }
}

/// Trained on ten of the toy's rows, from another head. Once; each caller has a copy, as training moves variables in place.
pub fn old_model() -> Classifier {
    static TRAINED: OnceLock<Classifier> = OnceLock::new();
    let trained = TRAINED.get_or_init(|| {
        let mut toy = Toy::with(|plan| plan.epochs = 8);
        toy.train = toy_rows(10, 1);
        toy.head_seed = 3;
        toy.finish().2.model
    });
    let copy = |(name, var): (&String, &Var)| {
        (name.clone(), Var::from_tensor(&var.as_tensor().copy().unwrap()).unwrap())
    };
    let params = Params(trained.params.0.iter().map(copy).collect());
    Classifier::new(trained.config.clone(), params).unwrap()
}

pub fn teacher_of(model: &Classifier, rows: &Encoded) -> Teacher {
    let logits = predict(model, rows, 5, &CPU, &mut |_| {}).unwrap().logits;
    Teacher { logits, known: vec![true; model.labels().len()], said: Vec::new() }
}

pub fn reports(events: &[Event]) -> Vec<StepReport> {
    let report = |event: &Event| match event {
        Event::Stepped { report, .. } => Some(*report),
        _ => None,
    };
    events.iter().filter_map(report).collect()
}

/// Cross-entropy on the training rows, in evaluation mode.
fn loss(state: &State, rows: &Encoded) -> f64 {
    let found = predict(&state.model, rows, 5, &CPU, &mut |_| {}).unwrap();
    evaluate(&found, &rows.labels).unwrap().loss
}

/// Each method at its defaults, and what else it can be told.
fn all_methods() -> Vec<String> {
    let more = [
        "distil:divergence=reverse-kl,temperature=2",
        "distil:divergence=js",
        "distil:divergence=logit-mse",
        "distil:divergence=mixed-label",
        "distil:rows=better",
        "distil:rows=old",
        "distil:lambda=1..0",
        "distil:lambda=0..0.5@8",
        "distil:lambda=churn<=0.05~5@3",
        "anchor-rcp:smoothed=true",
        "focal:focus=all",
        "focal:focus=new-wrong",
        "focal:focus=negative-flip",
        "co-distil:warmup=5",
    ];
    // What follows no logits has its own tests, in states.rs.
    let of_logits = |text: &&&str| !text.parse::<Method>().unwrap().needs().states;
    METHODS.iter().chain(&more).filter(of_logits).map(|text| text.to_string()).collect()
}

#[test]
fn every_method_lowers_the_loss() {
    for method in all_methods() {
        let mut lesson = Lesson::of(&method, |plan| (plan.epochs, plan.learning_rate) = (6, 3e-3));
        lesson.toy.eval = None; // the last weights, not the best
        let before = loss(&lesson.state(), &lesson.toy.train);
        let (outcome, events, state) = lesson.finish();
        let after = loss(&state, &lesson.toy.train);
        assert!(after < 0.95 * before, "{method}: {before} → {after}");
        assert!(matches!(outcome, Outcome::Finished(_)));
        let has_teacher = lesson.teacher.is_some();
        for report in reports(&events) {
            assert!(report.loss_sum.is_finite() && report.gradient_norm > 0.0, "{method}");
            assert_eq!(report.lambda.is_some(), has_teacher, "{method}");
        }
        assert!(finished(&lesson.toy.run_dir(), &lesson.toy.provenance).unwrap().is_some());
    }
}

/// A loss that is switched at either end is the one loss or the other, to the bytes; in between it is neither.
#[test]
fn a_switched_loss_is_one_loss_and_then_the_other() {
    let trained = |lambda: &str| {
        let lesson = Lesson::of(&format!("distil:lambda={lambda}"), |_| {});
        values(&lesson.finish().2.model.params)
    };
    let (teacher, labels) = (trained("1"), trained("0"));
    for (lambda, expected) in [
        ("1..0@100%", &teacher),
        ("0..1@0%", &teacher),
        ("0..1@100%", &labels),
        ("1..0@0%", &labels),
    ] {
        assert!(trained(lambda) == *expected, "{lambda}");
    }
    let (late_labels, late_teacher) = (trained("1..0@50%"), trained("0..1@50%"));
    assert!(late_labels != teacher && late_labels != labels);
    assert!(late_teacher != teacher && late_teacher != labels && late_teacher != late_labels);
}

/// A method that changed nothing would pass every test of learning.
#[test]
fn methods_are_not_the_plain_retrain() {
    let bytes = |method: &str| Lesson::of(method, |_| {}).finish().2.model.params.fingerprint();
    let plain = bytes("retrain").unwrap();
    for method in all_methods().iter().filter(|method| *method != "retrain") {
        // At a churn budget λ is 0 until churn was measured; a switch is plain before its step.
        let is_late = method.contains("@8");
        assert_eq!(bytes(method).unwrap() == plain, is_late, "{method}");
    }
}

#[test]
fn a_teacher_without_weight_is_the_plain_retrain() {
    let plain = Lesson::of("retrain", |plan| plan.dropout = Some(0.2)).finish().2;
    let weightless = [
        "distil:lambda=0",
        "distil:lambda=0..0",
        "distil:lambda=0,divergence=js",
        "anchor:lambda=0",
        "focal:lambda=0",
        "inhibition:lambda=0",
        "knn-smoothing:alpha=0",
        "distil:lambda=churn<=1",
    ];
    for method in weightless {
        let lesson = Lesson::of(method, |plan| plan.dropout = Some(0.2));
        let state = lesson.finish().2;
        assert_eq!(values(&state.model.params), values(&plain.model.params), "{method}");
    }
}

#[test]
fn lambda_by_step_reaches_the_loss() {
    let lambdas = |method: &str| -> Vec<f64> {
        let (_, events, _) = Lesson::of(method, |_| {}).finish();
        reports(&events).iter().map(|report| report.lambda.unwrap()).collect()
    };
    let close = |found: Vec<f64>, expected: [f64; 6]| {
        assert_eq!(found.len(), 6);
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() < 1e-12, "{found:?} {expected:?}");
        }
    };
    close(lambdas("distil:lambda=0.3"), [0.3; 6]);
    close(lambdas("anchor:lambda=1..0"), [1.0, 0.8, 0.6, 0.4, 0.2, 0.0]);
    close(lambdas("focal:lambda=0.2..0.9@4"), [0.2, 0.2, 0.2, 0.2, 0.9, 0.9]);
    close(lambdas("distil:lambda=1..0@50%"), [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
    close(lambdas("anchor:lambda=0..1@75%"), [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]); // 4.5 is 5

    // In the first update the weights are the same, and the loss is a straight line in λ.
    let first = |lambda: f64| {
        let lesson = Lesson::of(&format!("distil:lambda={lambda},temperature=2"), |_| {});
        reports(&lesson.finish().1)[0].loss_sum
    };
    let (label, teacher) = (first(0.0), first(1.0));
    assert!((label - teacher).abs() > 0.1, "{label} {teacher}");
    for lambda in [0.25, 0.5, 0.9] {
        let expected = (1.0 - lambda) * label + lambda * teacher;
        assert!((first(lambda) - expected).abs() < 1e-5 * expected, "{lambda}");
    }
}

/// Rows on which student and teacher predict the same are counted, and logged as a share.
#[test]
fn agreement_is_counted() {
    let mut lesson = Lesson::of("distil", |plan| plan.logging_steps = 6);
    let itself = teacher_of(&lesson.state().model, &lesson.toy.train);
    let opposite = Teacher { logits: itself.logits.iter().map(|z| -z).collect(), ..itself.clone() };
    for (teacher, expected) in [(itself, 4), (opposite, 0)] {
        lesson.toy = Toy::with(|plan| *plan = lesson.toy.provenance.plan.clone());
        lesson.teacher = Some(teacher);
        let (_, events, state) = lesson.finish();
        let reports = reports(&events);
        assert_eq!((reports[0].n_agreed, reports[0].n_rows), (expected, 4));
        let log = serde_json::to_value(&state.progress.log[0]).unwrap();
        let agreed: u64 = reports.iter().map(|report| report.n_agreed).sum();
        assert_eq!(log["agreement"], agreed as f64 / 22.0);
        assert_eq!(log["lambda"], 0.5);
    }
}

/// What the start of a shrink-and-perturb run is, and that its old weights don't follow the training.
#[test]
fn shrink_and_perturb_starts_between() {
    let lesson = Lesson::of("shrink-perturb:shrink=0.4,perturb=0.1", |_| {});
    let (old, fresh, start) = (
        values(&old_model().params),
        values(&toy_state(lesson.toy.head_seed).model.params),
        values(&lesson.state().model.params),
    );
    for (name, start) in start {
        let expected: Vec<f32> = old[&name]
            .iter()
            .zip(&fresh[&name])
            .map(|(&old, &fresh)| (0.4 * f64::from(old) + 0.1 * f64::from(fresh)) as f32)
            .collect();
        assert!(distance(&start, &expected) <= 1e-6, "{name}");
    }
    lesson.finish();
    let weights = &lesson.old_weights.as_ref().unwrap().params;
    assert!(weights.iter().all(|(name, tensor)| numbers(tensor) == old[name]));
}

/// A pull holds the weights nearer to the old ones than no pull does, and mixout too.
#[test]
fn pulls_hold_the_weights() {
    let apart = |method: &str| {
        let lesson = Lesson::of(method, |plan| (plan.epochs, plan.max_grad_norm) = (4, 0.0));
        let mut state = State::new(old_model()).unwrap();
        let weights = values(&state.model.params);
        let which: Vec<u32> = (0..22).collect();
        let plan = &lesson.toy.provenance.plan;
        for _ in 0..20 {
            let micro = [batch(&lesson.toy.train, &which)];
            step(&mut state, plan, &lesson.toy.train, &lesson.guides(), &micro, 20, &CPU).unwrap();
        }
        let moved = values(&state.model.params);
        let squares = moved.iter().flat_map(|(name, now)| {
            now.iter().zip(&weights[name]).map(|(a, b)| f64::from(a - b).powi(2))
        });
        squares.sum::<f64>().sqrt()
    };
    let free = apart("retrain");
    for method in ["l2-old:strength=1", "ewc:strength=10000"] {
        let held = apart(method);
        assert!(held < 0.8 * free, "{method}: {held} {free}");
    }
}

/// At 0.95 most first masks hide all numbers of the head's bias, which then has no gradient but zeros.
#[test]
fn mixouts_first_mask_may_hide_a_small_tensor() {
    for seed in 0..8 {
        let lesson = Lesson::of("mixout:p=0.95", |plan| plan.seed = seed);
        let mut state = State::new(old_model()).unwrap();
        let (plan, rows) = (&lesson.toy.provenance.plan, &lesson.toy.train);
        let micro = [batch(rows, &[0, 1, 2, 3])];
        step(&mut state, plan, rows, &lesson.guides(), &micro, 20, &CPU).unwrap();
    }
}

/// Two epochs of six updates with dropout, a checkpoint every other one.
fn with_saves(plan: &mut Plan) {
    plan.epochs = 2;
    plan.dropout = Some(0.2);
    plan.eval_steps = 3;
    plan.save_steps = 2;
}

const RESUMED: [&str; 11] = [
    "distil:lambda=1..0@50%",
    "anchor:lambda=0..1@50%",
    "distil:lambda=0.9..0.1,temperature=2",
    "distil:lambda=churn<=0.02~5@2",
    "distil:rows=old",
    "mixup:alpha=1",
    "mixout:p=0.3",
    "co-distil:beta=1,warmup=4",
    "ewc:strength=1",
    "l2-old",
    "shrink-perturb",
];

#[test]
fn one_update_at_a_time_whatever_the_method() {
    for method in RESUMED {
        let straight = Lesson::of(method, with_saves);
        let (outcome, _, _) = straight.finish();
        let broken = Lesson::of(method, with_saves);
        let stop = AtomicBool::new(true);
        for at in 1..12 {
            let (found, _) = broken.go(&stop, &mut |_| {});
            assert_eq!(found.unwrap(), Outcome::Interrupted { step: at }, "{method}");
        }
        assert_eq!(broken.go(&stop, &mut |_| {}).0.unwrap(), outcome, "{method}");
        assert!(broken.toy.released() == straight.toy.released(), "{method}: other bytes");
    }
}

/// Copies of the run's folder are taken wherever something was written or measured, and each is gone on with.
#[test]
fn killed_anywhere_whatever_the_method() {
    let killed =
        ["distil:lambda=churn<=0.02~5@2", "distil:lambda=1..0@50%", "co-distil:beta=1,warmup=4"];
    for method in killed {
        let straight = Lesson::of(method, with_saves);
        let copies = TempDir::new().unwrap();
        let mut n_copies = 0;
        let (outcome, _) = straight.go(&AtomicBool::new(false), &mut |event| {
            let is_worth_it = matches!(
                event,
                Event::Saved { .. } | Event::Stepped { .. } | Event::Churned { .. }
            );
            if is_worth_it && straight.toy.run_dir().exists() {
                let copy = copies.path().join(n_copies.to_string());
                copy_folder(&straight.toy.run_dir(), &copy);
                n_copies += 1;
            }
        });
        let (outcome, expected) = (outcome.unwrap(), straight.toy.released());
        assert!(n_copies > 15, "{n_copies}");
        for copy in 0..n_copies {
            let killed = Lesson::of(method, with_saves);
            copy_folder(&copies.path().join(copy.to_string()), &killed.toy.run_dir());
            let (found, events, _) = killed.finish();
            assert!(matches!(events[0], Event::Resumed { .. }), "{:?}", events[0]);
            assert_eq!(found, outcome, "{method} from copy {copy}");
            assert!(killed.toy.released() == expected, "{method} from copy {copy}: other bytes");
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bytes_of_a_method() {
    let of =
        ["distil:lambda=churn<=0.02~5@2", "distil:lambda=0..1@50%", "co-distil", "mixout", "ewc"];
    for method in of {
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let lesson = Lesson::of(method, with_saves);
                lesson.finish();
                lesson.toy.released()
            })
        };
        let one = on(1);
        for threads in [2, 3] {
            assert!(on(threads) == one, "{method}: {threads} threads give other bytes");
        }
    }
}

/// Both students' weights and moments are in the checkpoint; the second one leaves no trace in the release.
#[test]
fn a_peer_is_saved_and_not_released() {
    let lesson = Lesson::of("co-distil", |_| {});
    lesson.stop_after(2);
    let saved = names(&lesson.toy.run_dir().join("checkpoint-2"));
    for name in ["peer.safetensors", "peer_optimizer.safetensors"] {
        assert!(saved.contains(&name.to_string()), "{saved:?}");
    }
    lesson.finish();
    assert!(!lesson.toy.released().keys().any(|name| name.contains("peer")));
}

#[test]
fn both_students_are_of_the_plans_precision() {
    for precision in [Precision::F32, Precision::Bf16] {
        let lesson = Lesson::of("co-distil", |plan| plan.precision = precision);
        let state = lesson.finish().2;
        let peer = state.peer.expect("a second student");
        assert_eq!((state.model.precision, peer.model.precision), (precision, precision));
    }
}

#[test]
fn a_damaged_peer_is_refused() {
    let lesson = || {
        let lesson = Lesson::of("co-distil", |_| {});
        lesson.stop_after(2);
        let folder = lesson.toy.run_dir().join("checkpoint-2");
        (lesson, folder)
    };
    let mend = "remove the folder of this checkpoint to go on from the one before, or from the start where there is none";
    for name in ["peer.safetensors", "peer_optimizer.safetensors"] {
        let (flipped, folder) = lesson();
        let mut bytes = fs::read(folder.join(name)).unwrap();
        let last = bytes.len() - 2;
        bytes[last] ^= 1;
        fs::write(folder.join(name), bytes).unwrap();
        let said = flipped.refusal();
        assert!(
            said.starts_with(&format!("DIR/run/checkpoint-2/{name}: its sha256 is ")),
            "{said}"
        );
        assert!(said.ends_with(mend), "{said}");

        let (gone, folder) = lesson();
        fs::remove_file(folder.join(name)).unwrap();
        assert_eq!(gone.refusal(), format!("DIR/run/checkpoint-2/{name}: it is missing; {mend}"));

        let (unlisted, folder) = lesson();
        edit(&folder.join("manifest.json"), &|manifest| {
            manifest["files"].as_object_mut().unwrap().remove(name);
        });
        assert_eq!(
            unlisted.refusal(),
            format!("DIR/run/checkpoint-2/{name}: the manifest doesn't list it; {mend}")
        );
    }
}

pub fn edit(path: &Path, change: &dyn Fn(&mut serde_json::Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

/// A divergence that two classes break is refused before anything is written.
#[test]
fn what_two_classes_break_is_refused() {
    for (name, divergence) in
        [("standardised", Divergence::Standardised), ("decoupled", Divergence::Decoupled)]
    {
        let lesson = Lesson::of(&format!("distil:divergence={name}"), |_| {});
        let Method::Distil { divergence: found, .. } = lesson.toy.provenance.plan.method else {
            panic!("{name} is no distillation")
        };
        assert_eq!(found, divergence);
        let said = lesson.refusal();
        assert!(said.starts_with(&format!("divergence={name} ")), "{said}");
        assert!(said.ends_with("; use kl"), "{said}");
        assert!(!lesson.toy.run_dir().exists());
    }
    assert_eq!(plan().method, Method::Retrain);
}
