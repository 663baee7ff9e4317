//! Gradients with a control taken off, on whole models: a snapshot's first step, the same bytes across kills and threads, what is
//! measured of them, and what is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;

use candle_core::{Tensor, Var};
use lowchurn_data::{BatchSize, Encoded};
use lowchurn_distill::{
    Event, Guides, Measuring, Method, OldWeights, OptimizerName, Outcome, Plan, Schedule, SelectBy,
    State, Teacher, TrainOnly, VarianceReduction, gradient_noise, predict, renew_control, step,
    trained_names,
};
use lowchurn_models::{Classifier, Params};
use tempfile::TempDir;

use crate::methods::{Lesson, old_model, teacher_of};
use crate::{CPU, batch, copy_folder, distance, numbers, values};

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
    let trained: BTreeSet<String> = student.params.names().map(str::to_string).collect();
    let measuring = Measuring {
        student: &student,
        trained: &trained,
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

/// A probe is linear in what it trains: of that the teacher's gradient through the student is the teacher's own, though the whole
/// model's isn't.
#[test]
fn of_a_probe_both_of_a_teachers_gradients_are_one() {
    let lesson = Lesson::of("distil:lambda=0.3", |_| {});
    let rows = &lesson.toy.train;
    let old = old_model();
    let student = clone(&old.params);
    for end in ["weight", "bias"] {
        let var = &student.params.0[&format!("classifier.{end}")];
        var.set(&(var.as_tensor() * 0.5).unwrap()).unwrap();
    }
    let weights = OldWeights::copy_of(&old.params).unwrap();
    let plan = Plan { train_only: Some(TrainOnly::LastLayer), ..crate::plan() };
    let last = trained_names(&plan, &student.config).unwrap();
    let batches: Vec<Vec<u32>> = vec![vec![0, 4, 9], vec![2, 3, 8], vec![7, 1, 5]];
    let teacher = teacher_of(&old, rows);
    let measuring = Measuring {
        student: &student,
        trained: &last,
        teacher: &teacher,
        weights: Some(&weights),
        rows,
        batches: &batches,
        lambda: 0.3,
        device: &CPU,
    };
    let report = gradient_noise(&measuring, &mut |_| true).unwrap().unwrap();
    assert!(
        report.cosines.iter().all(|cosine| (cosine - 1.0).abs() < 1e-6),
        "{:?}",
        report.cosines
    );
    let names: Vec<&str> = report.groups.iter().map(|group| group.group.as_str()).collect();
    assert_eq!(names, ["all", "head"]);
    let of = |names: &BTreeSet<String>| -> usize {
        names.iter().map(|name| student.params.0[name].elem_count()).sum()
    };
    let all: BTreeSet<String> = student.params.names().map(str::to_string).collect();
    assert_eq!(report.groups[0].numbers, of(&last));
    assert_eq!(report.numbers_left_out, of(&all) - of(&last));
    let (through, own) = (&report.groups[0].noise, &report.own[0].noise);
    assert!(through.teacher > 0.0 && own.teacher > 0.0);
    let whole = Measuring { trained: &all, ..measuring };
    let report = gradient_noise(&whole, &mut |_| true).unwrap().unwrap();
    assert_eq!(report.numbers_left_out, 0);
    assert!(report.cosines.iter().any(|cosine| *cosine < 0.999), "{:?}", report.cosines);
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
