//! What a run is held against besides its labels: what is asked for is needed, reaches the right rows and classes, and a run
//! of other guides is another run.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use lowchurn_data::Encoded;
use lowchurn_distill::{
    Buffer, Event, Guides, Method, Plan, Provenance, Run, State, Teacher, ascend, finished,
    sha256_of_file, step, train,
};
use serde_json::{Value, json};

use crate::methods::{Lesson, edit, reports, teacher_of};
use crate::{
    CPU, Toy, batch, copy_folder, encoded, golden_state, names, numbers, plan, toy_rows, toy_state,
    values,
};

#[test]
fn what_a_method_needs_is_asked_for() {
    let check = |method: &str, take: &dyn Fn(&mut Lesson), message: &str| {
        let mut lesson = Lesson::of(method, |_| {});
        take(&mut lesson);
        assert_eq!(lesson.refusal(), message);
        assert!(!lesson.toy.run_dir().exists(), "something was written");
    };
    let teacher = |lesson: &mut Lesson| lesson.teacher = None;
    for method in ["distil", "anchor", "anchor-rcp", "focal", "inhibition", "knn-smoothing"] {
        check(method, &teacher, &format!("method {method} needs a teacher"));
    }
    let weights = |lesson: &mut Lesson| lesson.old_weights = None;
    for method in ["shrink-perturb", "l2-old", "ewc", "mixout"] {
        check(method, &weights, &format!("method {method} needs the old model's weights"));
    }
    let marks = "method distil needs to know which rows the old model has seen";
    check("distil:rows=old", &|lesson| lesson.is_old = None, marks);
    check("distil:rows=old", &|lesson| lesson.is_old = Some(vec![true; 21]), marks);
    let held = "method distil needs held-out rows to measure churn on";
    check("distil:lambda=churn<=0.02", &|lesson| lesson.buffer = None, held);
    let nothing = Buffer { rows: encoded(&[]), old: Vec::new() };
    let nothing = std::cell::Cell::new(Some(nothing));
    check("distil:lambda=churn<=0.02", &|lesson| lesson.buffer = nothing.take(), held);
    check(
        "ewc",
        &|lesson| lesson.old_weights.as_mut().unwrap().fisher = None,
        "the pull by Fisher information needs that of the old model; make it first",
    );
    let shape = |found: usize| {
        format!("the teacher has {found} logits, but the run has 22 rows of 2 classes")
    };
    check("distil", &|lesson| lesson.teacher.as_mut().unwrap().logits.truncate(43), &shape(43));
    check("distil", &|lesson| lesson.teacher.as_mut().unwrap().known.push(true), &shape(44));
    // A plain run looks at none of it.
    let mut plain = Lesson::of("retrain", |_| {});
    plain.teacher = None;
    plain.finish();
}

/// A warm start gives both the same head: without dropout they would be one.
#[test]
fn students_that_nothing_tells_apart_are_refused() {
    let outcome = |p: f64| {
        let lesson = Lesson::of("co-distil", |plan| plan.dropout = Some(p));
        let mut state = toy_state(7).with_peer(toy_state(7).model).unwrap();
        let run = Run {
            provenance: &lesson.toy.provenance,
            train: &lesson.toy.train,
            eval: None,
            guides: lesson.guides(),
            dir: &lesson.toy.run_dir(),
            tokenizer_from: &lesson.toy.dir.path().join("base"),
        };
        train(&run, &mut state, &AtomicBool::new(false), &mut |_| {}).map_err(|e| e.to_string())
    };
    assert_eq!(
        outcome(0.0).unwrap_err(),
        "co-distil: both students start from the same weights, and without dropout they stay the same; set dropout above \
         0, or start cold, where each has a head of its own"
    );
    assert!(outcome(0.1).is_ok());
}

#[test]
fn two_students_are_needed_for_co_distillation() {
    let lesson = Lesson::of("co-distil", |_| {});
    let (outcome, _) = lesson.toy.go(&AtomicBool::new(false), &mut |_| {});
    assert_eq!(lesson.toy.text(outcome), "method co-distil needs a second student");
}

/// An update on all rows of a batch, and the weights before and after it.
fn moved(
    mut state: State,
    method: &str,
    rows: &Encoded,
    teacher: &Teacher,
) -> (BTreeMap<String, Vec<f32>>, BTreeMap<String, Vec<f32>>) {
    let plan = Plan { method: method.parse().unwrap(), ..plan() };
    let guides = Guides { teacher: Some(teacher), ..Guides::default() };
    let which: Vec<u32> = (0..rows.rows() as u32).collect();
    let before = values(&state.model.params);
    let report = step(&mut state, &plan, rows, &guides, &[batch(rows, &which)], 10, &CPU).unwrap();
    assert_eq!(report.n_rows, rows.rows() as u64);
    (before, values(&state.model.params))
}

fn unlabelled(n: usize) -> Encoded {
    let mut rows = toy_rows(n, 6);
    rows.labels.fill(None);
    rows
}

#[test]
fn unlabelled_rows_move_the_model_only_through_the_teacher() {
    let rows = unlabelled(8);
    let teacher =
        Teacher { logits: [2.0, -1.0].repeat(8), known: vec![true, true], said: Vec::new() };
    let still = ["distil:lambda=0", "anchor:lambda=0", "focal:lambda=0", "distil:lambda=0..1"];
    for method in still {
        let (before, after) = moved(toy_state(7), method, &rows, &teacher);
        assert!(before == after, "{method} moved the weights");
    }
    for method in ["distil:lambda=0.5", "anchor:lambda=0.5", "inhibition", "distil:rows=old"] {
        let (before, after) = match method {
            "distil:rows=old" => {
                let lesson = Plan { method: method.parse().unwrap(), ..plan() };
                let is_old = [false; 8];
                let guides =
                    Guides { teacher: Some(&teacher), is_old: Some(&is_old), ..Guides::default() };
                let mut state = toy_state(7);
                let before = values(&state.model.params);
                let which: Vec<u32> = (0..8).collect();
                step(&mut state, &lesson, &rows, &guides, &[batch(&rows, &which)], 10, &CPU)
                    .unwrap();
                (before, values(&state.model.params))
            }
            _ => moved(toy_state(7), method, &rows, &teacher),
        };
        assert!(before != after, "{method} moved nothing");
    }
    // Where the teacher says what the student says, KL has no gradient: steps of Adam are of the size of the rate 1e-3
    // wherever there is one.
    let itself = teacher_of(&toy_state(7).model, &rows);
    let mut state = toy_state(7);
    let lesson = Plan { method: "distil:lambda=1".parse().unwrap(), ..plan() };
    let guides = Guides { teacher: Some(&itself), ..Guides::default() };
    let which: Vec<u32> = (0..8).collect();
    let report =
        step(&mut state, &lesson, &rows, &guides, &[batch(&rows, &which)], 10, &CPU).unwrap();
    assert!(report.gradient_norm < 1e-6, "{}", report.gradient_norm);
    assert!(report.loss_sum.abs() < 1e-6 && report.n_agreed == 8);
}

/// Labelled and unlabelled rows in one run: no row without a label is refused where there is a teacher.
#[test]
fn a_run_with_unlabelled_rows_learns() {
    let mut lesson = Lesson::of("distil:lambda=0.5", |plan| {
        (plan.epochs, plan.logging_steps) = (2, 12);
    });
    for row in (0..22).step_by(3) {
        lesson.toy.train.labels[row] = None;
    }
    let (_, events, state) = lesson.finish();
    let seen = reports(&events);
    assert_eq!(seen.iter().map(|report| report.n_rows).sum::<u64>(), 44);
    assert_eq!(seen.iter().map(|report| report.n_unlabelled).sum::<u64>(), 16);
    // What can't be right isn't counted as wrong.
    let (correct, labelled) = seen.iter().fold((0, 0), |(correct, labelled), report| {
        (correct + report.n_correct, labelled + report.n_rows - report.n_unlabelled)
    });
    let logged = serde_json::to_value(&state.progress.log).unwrap();
    let lines = logged.as_array().unwrap().iter().filter(|line| line.get("loss").is_some());
    let accuracy: Vec<f64> = lines.map(|line| line["accuracy"].as_f64().unwrap()).collect();
    assert_eq!(accuracy, [correct as f64 / labelled as f64], "one line at the end");
    let mut plain = Toy::plain();
    plain.train.labels[4] = None;
    assert_eq!(
        plain.refusal(),
        "row row-4 has no label, and training needs one; leave unlabelled rows out"
    );
}

/// Three classes, of which the teacher knows the first two.
#[test]
fn a_new_class_gets_no_gradient_from_the_teacher() {
    let teacher = |logit_of_new: f32| Teacher {
        logits: [1.5, -0.5, logit_of_new].repeat(8),
        known: vec![true, true, false],
        said: Vec::new(),
    };
    let head = |all: &BTreeMap<String, Vec<f32>>| {
        let weight = &all["classifier.weight"];
        let width = weight.len() / 3;
        (weight[..width].to_vec(), weight[2 * width..].to_vec(), all["classifier.bias"].clone())
    };
    let methods = [
        "distil:lambda=1",
        "distil:lambda=1,divergence=reverse-kl,temperature=3",
        "distil:lambda=1,divergence=js",
        "distil:lambda=1,divergence=logit-mse",
        "distil:lambda=1,divergence=mixed-label",
        "anchor:lambda=1",
        "focal:lambda=1",
        "inhibition:lambda=1",
    ];
    for method in methods {
        let rows = unlabelled(8);
        let (before, after) = moved(golden_state(), method, &rows, &teacher(0.0));
        let ((known, new, bias), (known_after, new_after, bias_after)) =
            (head(&before), head(&after));
        assert_ne!(known, known_after, "{method}: known classes did not move");
        assert_eq!(new, new_after, "{method}: the new class moved");
        assert_eq!(bias[2], bias_after[2], "{method}: the new class's bias moved");
        // What stands in the place of the unknown logit doesn't matter.
        let (_, otherwise) = moved(golden_state(), method, &rows, &teacher(50.0));
        assert!(after == otherwise, "{method}: an unknown logit was read");
    }
    // A row of the new class learns from its label alone, with weight 1 whatever λ is.
    let mut rows = toy_rows(8, 6);
    rows.labels.fill(Some(2));
    let (_, plain) = moved(golden_state(), "retrain", &rows, &teacher(0.0));
    let (_, distilled) = moved(golden_state(), "distil:lambda=0.9", &rows, &teacher(0.0));
    assert!(plain == distilled);
}

/// A buffer on which every prediction has changed: μ grows by rate·(1 − limit), to the last bit.
#[test]
fn the_multiplier_rises_above_the_limit() {
    let mut lesson = Lesson::of("distil:lambda=churn<=0.25~2@2", |plan| plan.epochs = 2);
    lesson.buffer.as_mut().unwrap().old.fill(9);
    let (_, events, state) = lesson.finish();
    let mut expected = 0.0;
    for (at, report) in reports(&events).iter().enumerate() {
        if at > 0 && at % 2 == 0 {
            expected += 2.0 * 0.75;
        }
        assert_eq!(report.lambda, Some(expected / (1.0 + expected)), "update {}", at + 1);
    }
    assert_eq!(state.progress.multiplier, 7.5);
}

/// Old predictions and teacher are the labels: a cold student disagrees with them at first and agrees in the end.
#[test]
fn the_multiplier_falls_below_the_limit() {
    let mut lesson = Lesson::of("distil:lambda=churn<=0.2~3@1", |plan| {
        (plan.epochs, plan.learning_rate) = (10, 5e-3);
    });
    let labels: Vec<u32> = lesson.toy.train.labels.iter().map(|label| label.unwrap()).collect();
    let logits = labels.iter().flat_map(|&label| [[2.0, -2.0], [-2.0, 2.0]][label as usize]);
    lesson.teacher.as_mut().unwrap().logits = logits.collect();
    lesson.buffer = Some(Buffer { rows: lesson.toy.train.clone(), old: labels });
    lesson.toy.eval = None;
    let (_, events, _) = lesson.finish();
    let (mut multiplier, mut n_up, mut n_down) = (0.0, 0, 0);
    for (at, event) in events.iter().enumerate() {
        let Event::Churned { step, churn, lambda } = *event else { continue };
        let next = ascend(multiplier, churn, 0.2, 3.0);
        n_up += usize::from(next > multiplier && churn > 0.2);
        n_down += usize::from(next < multiplier && churn < 0.2);
        assert_eq!(next > multiplier, churn > 0.2);
        multiplier = next;
        assert_eq!(lambda, multiplier / (1.0 + multiplier));
        // Right before the update that it steers.
        let Some(Event::Stepped { step: stepped, report, .. }) = events.get(at + 1) else {
            panic!("{:?} follows", events.get(at + 1))
        };
        assert_eq!((*stepped, report.lambda), (step + 1, Some(lambda)));
    }
    assert!(n_up > 0 && n_down > 0, "{n_up} up, {n_down} down");
}

/// Churn is measured every so many updates, not before the first, and μ is in the checkpoint.
#[test]
fn the_multiplier_is_saved() {
    let lesson = Lesson::of("distil:lambda=churn<=0.25~2@2", |plan| plan.epochs = 2);
    let (_, events, _) = lesson.finish();
    let measured = |events: &[Event]| -> Vec<u64> {
        let step = |event: &Event| match event {
            Event::Churned { step, .. } => Some(*step),
            _ => None,
        };
        events.iter().filter_map(step).collect()
    };
    assert_eq!(measured(&events), [2, 4, 6, 8, 10]);

    let mut stopped = Lesson::of("distil:lambda=churn<=0.25~2@2", |plan| plan.epochs = 2);
    stopped.buffer.as_mut().unwrap().old.fill(9);
    stopped.stop_after(5);
    let path = stopped.toy.run_dir().join("checkpoint-5/trainer_state.json");
    let saved: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert_eq!(saved["lowchurn"]["multiplier"], 3.0);
    let (_, events, _) = stopped.finish();
    assert_eq!(measured(&events), [6, 8, 10]);
    let first = reports(&events)[0];
    assert_eq!(first.lambda, Some(3.0 / 4.0));
}

#[test]
fn plans_of_before_there_were_methods() {
    let mut written = serde_json::to_value(plan()).unwrap();
    assert!(written.get("method").is_none(), "{written}");
    assert_eq!(serde_json::from_value::<Plan>(written.clone()).unwrap(), plan());
    written["method"] = json!("distil:lambda=0.5");
    let found: Plan = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(found.method, "distil:lambda=0.5".parse::<Method>().unwrap());
    written["method"] = json!("distill");
    let said = serde_json::from_value::<Plan>(written).unwrap_err().to_string();
    assert!(said.contains("did you mean distil?"), "{said}");
}

/// Files as the program wrote them before there were methods, which is as it writes them still where none is used.
#[test]
fn runs_of_before_there_were_methods() {
    let toy = Toy::plain();
    let (outcome, _, _) = toy.finish();
    let manifest: Value =
        serde_json::from_slice(&fs::read(toy.run_dir().join("manifest.json")).unwrap()).unwrap();
    let provenance = manifest["provenance"].as_object().unwrap();
    for key in ["old", "teacher", "share_of_old", "buffer"] {
        assert!(!provenance.contains_key(key), "{key}");
    }
    assert!(provenance["plan"].get("method").is_none());
    let read: Provenance = serde_json::from_value(manifest["provenance"].clone()).unwrap();
    assert_eq!(read, toy.provenance);
    assert!(finished(&toy.run_dir(), &toy.provenance).unwrap().is_some());

    // A checkpoint without the numbers of methods is gone on with.
    let old = Lesson::of("retrain", |_| {});
    old.stop_after(3);
    let folder = old.toy.run_dir().join("checkpoint-3");
    rewrite(&folder, "trainer_state.json", &|state| {
        state["lowchurn"].as_object_mut().unwrap().remove("multiplier").unwrap();
        state["lowchurn"]["since_log"].as_object_mut().unwrap().remove("n_agreed").unwrap();
    });
    assert_eq!(old.finish().0, outcome);
    assert!(old.toy.released() == toy.released());
}

/// Changes a file of a checkpoint and its hash in the manifest.
fn rewrite(folder: &Path, name: &str, change: &dyn Fn(&mut Value)) {
    edit(&folder.join(name), change);
    let hash = sha256_of_file(&folder.join(name)).unwrap();
    edit(&folder.join("manifest.json"), &|manifest| manifest["files"][name] = json!(hash));
}

#[test]
fn runs_of_other_guides() {
    type Change = dyn Fn(&mut Provenance);
    let full = |provenance: &mut Provenance| {
        provenance.old = Some(("runs/v1".into(), "a".repeat(64)));
        provenance.teacher = Some(("big, small".into(), "teacher-c teacher-d".into()));
        provenance.buffer = Some(("rows.jsonl".into(), "f".repeat(64)));
    };
    let end = "choose another output folder, or --fresh to start over here";
    let check = |first: &Change, second: &Change, what: &str| {
        let mut begun = Lesson::of("distil", |_| {});
        first(&mut begun.toy.provenance);
        begun.stop_after(2);
        let mut other = Lesson::of("distil", |_| {});
        copy_folder(&begun.toy.run_dir(), &other.toy.run_dir());
        second(&mut other.toy.provenance);
        let expected = format!("DIR/run/checkpoint-2 holds a run with another {what}; {end}");
        assert_eq!(other.refusal(), expected);
        assert_eq!(names(&other.toy.run_dir()), ["checkpoint-2"]);
        // Finished, it is refused the same way.
        begun.finish();
        let found = finished(&begun.toy.run_dir(), &other.toy.provenance);
        let expected = format!("DIR/run holds a run with another {what}; {end}");
        assert_eq!(begun.toy.text(found), expected);
    };
    let with = |change: &'static dyn Fn(&mut Provenance)| {
        move |provenance: &mut Provenance| {
            full(provenance);
            change(provenance);
        }
    };
    check(
        &full,
        &with(&|p| p.old = Some(("runs/v1b".into(), "b".repeat(64)))),
        "old model: runs/v1 (aaaaaaaaaaaa), now runs/v1b (bbbbbbbbbbbb)",
    );
    check(
        &full,
        &with(&|p| p.teacher = Some(("big".into(), "teacher-c".into()))),
        "teacher: big, small (teacher-c te), now big (teacher-c)",
    );
    check(&full, &with(&|p| p.teacher = None), "teacher: big, small (teacher-c te), now none ()");
    check(&|_| {}, &full, "old model: none (), now runs/v1 (aaaaaaaaaaaa)");
    check(
        &full,
        &with(&|p| p.buffer = Some(("rows.jsonl".into(), "0".repeat(64)))),
        "held-out rows: rows.jsonl (ffffffffffff), now rows.jsonl (000000000000)",
    );
    check(&full, &with(&|p| p.old_rows = Some(3)), "number of old rows: not set, now 3");
    check(
        &full,
        &with(&|p| p.plan.method = "distil:lambda=0.9".parse().unwrap()),
        "method: \"distil:lambda=0.5,temperature=1,divergence=kl,rows=all\", now \
         \"distil:lambda=0.9,temperature=1,divergence=kl,rows=all\"",
    );
    // The same model under another name is the same.
    let mut begun = Lesson::of("distil", |_| {});
    full(&mut begun.toy.provenance);
    begun.stop_after(2);
    begun.toy.provenance.old = Some(("a copy".into(), "a".repeat(64)));
    assert!(matches!(begun.finish().1[0], Event::Resumed { step: 2, .. }));
}

/// Weights of a model that goes on training must not move under the pull of them.
#[test]
fn old_weights_stand_still() {
    for method in ["l2-old", "mixout", "ewc"] {
        let lesson = Lesson::of(method, |_| {});
        let before: Vec<Vec<f32>> =
            lesson.old_weights.as_ref().unwrap().params.values().map(numbers).collect();
        lesson.finish();
        let after: Vec<Vec<f32>> =
            lesson.old_weights.as_ref().unwrap().params.values().map(numbers).collect();
        assert!(before == after, "{method}");
    }
}
