//! Objectives in a run: they steer by held-out rows, their weights are in the checkpoint, a stopped run ends in the bytes of a
//! straight one, and the class that is worst off gains.

use std::sync::atomic::AtomicBool;

use lowchurn_data::Encoded;
use lowchurn_distill::{
    Event, Groups, Guides, Outcome, Plan, Run, SelectBy, State, Steering, Teacher, predict, raise,
    step, train, worst_classes,
};
use serde_json::Value;

use crate::methods::{Lesson, teacher_of};
use crate::{CPU, Toy, batch, copy_folder, encoded, plan, toy_rows, toy_state, values};

/// A toy run with what its objective needs.
struct Lessons {
    lesson: Lesson,
    steering: Option<Steering>,
    groups: Option<Groups>,
}

impl Lessons {
    fn of(objective: &str, method: &str, change: impl FnOnce(&mut Plan)) -> Lessons {
        let lesson = Lesson::of(method, |plan| {
            plan.objective = objective.parse().unwrap();
            change(plan);
        });
        let by_group = lesson.toy.provenance.plan.objective.group_by().is_some();
        let held = toy_rows(12, 5);
        let groups = |n: usize| -> Vec<u32> { (0..n as u32).map(|row| row % 3 / 2).collect() };
        Lessons {
            groups: by_group.then(|| Groups {
                names: vec!["x".into(), "y".into()],
                of_row: groups(lesson.toy.train.rows()),
                of_eval: Vec::new(),
            }),
            steering: Some(Steering {
                teacher: lesson.teacher.as_ref().map(|_| teacher_of(&toy_state(3).model, &held)),
                groups: by_group.then(|| groups(held.rows())),
                rows: held,
            }),
            lesson,
        }
    }

    fn go(
        &self,
        stop: &AtomicBool,
        on: &mut dyn FnMut(Event),
    ) -> (lowchurn_distill::Result<Outcome>, State) {
        let mut state = self.lesson.state();
        let toy = &self.lesson.toy;
        let run = Run {
            provenance: &toy.provenance,
            train: &toy.train,
            eval: toy.eval.as_ref(),
            guides: Guides {
                steering: self.steering.as_ref(),
                groups: self.groups.as_ref(),
                ..self.lesson.guides()
            },
            dir: &toy.run_dir(),
            tokenizer_from: &toy.dir.path().join("base"),
        };
        (train(&run, &mut state, stop, on), state)
    }

    fn finish(&self) -> (Outcome, Vec<Event>, State) {
        let mut events = Vec::new();
        let (outcome, state) = self.go(&AtomicBool::new(false), &mut |event| events.push(event));
        (outcome.unwrap(), events, state)
    }

    fn refusal(&self) -> String {
        let (outcome, _) = self.go(&AtomicBool::new(false), &mut |_| {});
        self.lesson.toy.text(outcome)
    }
}

fn with_saves(plan: &mut Plan) {
    plan.epochs = 2;
    plan.dropout = Some(0.2);
    plan.eval_steps = 3;
    plan.save_steps = 2;
}

const STEERED: [(&str, &str); 6] = [
    ("robust:every=2,step=1", "retrain"),
    (
        "robust:every=3,step=0.5,labels=teacher,loss=cross-entropy,weight=0.5",
        "distil:lambda=0.9..0.1",
    ),
    ("robust:every=2,form=weights,base=standard", "distil"),
    ("robust:every=2,group-by=channel", "retrain"),
    ("balanced", "distil"),
    ("ada-alpha", "distil"),
];

#[test]
fn one_update_at_a_time_whatever_the_objective() {
    for (objective, method) in STEERED {
        let straight = Lessons::of(objective, method, with_saves);
        let (outcome, _, _) = straight.finish();
        let broken = Lessons::of(objective, method, with_saves);
        let stop = AtomicBool::new(true);
        for at in 1..12 {
            let (found, _) = broken.go(&stop, &mut |_| {});
            assert_eq!(found.unwrap(), Outcome::Interrupted { step: at }, "{objective}");
        }
        assert_eq!(broken.go(&stop, &mut |_| {}).0.unwrap(), outcome, "{objective}");
        let (a, b) = (broken.lesson.toy.released(), straight.lesson.toy.released());
        assert!(a == b, "{objective}: other bytes");
    }
}

/// Copies of the run's folder are taken wherever something was written or measured, and each is gone on with.
#[test]
fn killed_anywhere_the_weights_of_classes_are_there() {
    let (objective, method) = STEERED[0];
    let straight = Lessons::of(objective, method, with_saves);
    let copies = tempfile::TempDir::new().unwrap();
    let mut n_copies = 0;
    let (outcome, _) = straight.go(&AtomicBool::new(false), &mut |event| {
        let is_worth_it =
            matches!(event, Event::Saved { .. } | Event::Stepped { .. } | Event::Steered { .. });
        if is_worth_it && straight.lesson.toy.run_dir().exists() {
            copy_folder(&straight.lesson.toy.run_dir(), &copies.path().join(n_copies.to_string()));
            n_copies += 1;
        }
    });
    let (outcome, expected) = (outcome.unwrap(), straight.lesson.toy.released());
    assert!(n_copies > 15, "{n_copies}");
    for copy in 0..n_copies {
        let killed = Lessons::of(objective, method, with_saves);
        copy_folder(&copies.path().join(copy.to_string()), &killed.lesson.toy.run_dir());
        let (found, events, _) = killed.finish();
        assert!(matches!(events[0], Event::Resumed { .. }), "{:?}", events[0]);
        assert_eq!(found, outcome, "from copy {copy}");
        assert!(killed.lesson.toy.released() == expected, "from copy {copy}: other bytes");
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bytes_of_an_objective() {
    for (objective, method) in STEERED {
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let lesson = Lessons::of(objective, method, with_saves);
                lesson.finish();
                lesson.lesson.toy.released()
            })
        };
        let one = on(1);
        for threads in [2, 3] {
            assert!(on(threads) == one, "{objective}: {threads} threads give other bytes");
        }
    }
}

/// What the events say is what the papers' update makes of the losses, and it is what the checkpoint holds.
#[test]
fn weights_are_raised_where_held_out_rows_go_wrong() {
    let (objective, method) = ("robust:every=2,step=0.7", "retrain");
    let lessons = Lessons::of(objective, method, |plan| plan.epochs = 2);
    let (_, events, state) = lessons.finish();
    let mut logs = vec![0.5f64.ln(); 2];
    let mut steps = Vec::new();
    for event in &events {
        let Event::Steered { step, worst, all } = event else { continue };
        steps.push(*step);
        assert_eq!([&all[0].name, &all[1].name], ["no", "yes"]);
        let losses: Vec<f64> = all.iter().map(|one| one.loss).collect();
        assert_eq!(*worst, usize::from(losses[1] > losses[0]), "{all:?}");
        logs = raise(&logs, &losses, 0.7);
        for (one, log) in all.iter().zip(&logs) {
            assert!((one.weight - log.exp()).abs() < 1e-12, "{all:?} {logs:?}");
        }
    }
    assert_eq!(steps, [2, 4, 6, 8, 10]);
    let held = |log: (&f64, &f64)| (log.0 - log.1).abs() < 1e-12;
    assert!(state.progress.log_weights.iter().zip(&logs).all(held), "{logs:?}");
    let sum: f64 = state.progress.log_weights.iter().map(|log| log.exp()).sum();
    assert!((sum - 1.0).abs() < 1e-12);
    let text = std::fs::read(lessons.lesson.toy.run_dir().join("trainer_state.json")).unwrap();
    let saved: Value = serde_json::from_slice(&text).unwrap();
    let logs = serde_json::to_value(&state.progress.log_weights).unwrap();
    assert_eq!(saved["lowchurn"]["log_weights"], logs);
}

/// 30 rows of "no" and 3 of "yes".
fn long_tail(seed: u64) -> Encoded {
    let all = toy_rows(200, seed);
    let of = |label: u32, n: usize| -> Vec<usize> {
        (0..all.rows()).filter(|row| all.labels[*row] == Some(label)).take(n).collect()
    };
    let rows: Vec<(Vec<u32>, Option<u32>)> = of(0, 30)
        .into_iter()
        .chain(of(1, 3))
        .map(|row| (all.tokens[all.offsets[row]..all.offsets[row + 1]].to_vec(), all.labels[row]))
        .collect();
    encoded(&rows)
}

/// The recall of the worst class on even rows, after training on ten times as many of the other one.
fn worst_recall(objective: &str) -> f64 {
    let mut lessons = Lessons::of(objective, "retrain", |plan| {
        (plan.epochs, plan.learning_rate) = (6, 2e-3);
    });
    lessons.lesson.toy.train = long_tail(1);
    lessons.lesson.toy.eval = None;
    lessons.steering.as_mut().unwrap().rows = toy_rows(60, 5);
    let (_, _, state) = lessons.finish();
    let rows = toy_rows(200, 9);
    let found = predict(&state.model, &rows, 20, &CPU, &mut |_| {}).unwrap();
    worst_classes(&found, &rows.labels, 1).unwrap().unwrap().recall
}

/// With steps of 0.3 the weights swing from class to class on so few rows, and one of the two is never learnt.
#[test]
fn the_worst_class_gains() {
    let standard = worst_recall("standard");
    for objective in ["balanced", "robust:every=3", "robust:every=3,weight=0.5"] {
        let found = worst_recall(objective);
        assert!(found > standard + 0.2, "{objective}: {found}, standard {standard}");
    }
}

/// With weight 0 on the worst class and the rows' own shares, a run is the standard one, to the byte of its weights.
#[test]
fn without_weight_on_the_worst_class_it_is_the_standard_run() {
    let of = |objective: &str, method: &str| {
        let lessons = Lessons::of(objective, method, |plan| plan.epochs = 2);
        values(&lessons.finish().2.model.params)
    };
    for method in ["retrain", "distil"] {
        let plain = of("standard", method);
        assert!(of("robust:weight=0,base=standard,every=2", method) == plain, "{method}");
        assert!(of("balanced", method) != plain, "{method}: balanced changed nothing");
    }
}

/// A group's gain multiplies its rows' losses: with gains 2 and 0.5 the gradient is that of the sums.
#[test]
fn groups_weigh_their_rows() {
    let rows = toy_rows(8, 6);
    let loss_of = |which: &[u32]| {
        let micro = [batch(&rows, which)];
        let report = step(&mut toy_state(7), &plan(), &rows, &Guides::default(), &micro, 10, &CPU);
        report.unwrap().loss_sum
    };
    // Groups of two rows and six: balanced gains are (1/2)/(1/4) and (1/2)/(3/4).
    let groups = Groups {
        names: vec!["x".into(), "y".into()],
        of_row: vec![0, 0, 1, 1, 1, 1, 1, 1],
        of_eval: Vec::new(),
    };
    let grouped = Plan { objective: "balanced:group-by=c".parse().unwrap(), ..plan() };
    let guides = Guides { groups: Some(&groups), ..Guides::default() };
    let shares =
        lowchurn_distill::Shares::of(&grouped, &rows, &guides, toy_state(7).model.labels())
            .unwrap();
    let guides = Guides { shares: shares.as_ref(), ..guides };
    let which: Vec<u32> = (0..8).collect();
    let micro = [batch(&rows, &which)];
    let report = step(&mut toy_state(7), &grouped, &rows, &guides, &micro, 10, &CPU).unwrap();
    let expected = 2.0 * loss_of(&which[..2]) + 2.0 / 3.0 * loss_of(&which[2..]);
    assert!((report.loss_sum - expected).abs() < 1e-5 * expected, "{}", report.loss_sum);
}

#[test]
fn what_an_objective_lacks_is_said() {
    let mut none = Lessons::of("robust", "retrain", |_| {});
    none.steering = None;
    let said = "objective robust needs held-out rows to find its worst class on";
    assert_eq!(none.refusal(), said);
    let mut one_class = Lessons::of("robust", "retrain", |_| {});
    one_class.steering.as_mut().unwrap().rows.labels.fill(Some(0));
    assert_eq!(
        one_class.refusal(),
        "objective robust: no held-out row has the label \"yes\", so this class can't be measured; hold out rows of it"
    );
    let mut untrained = Lessons::of("balanced", "retrain", |_| {});
    untrained.lesson.toy.train.labels.fill(Some(1));
    assert_eq!(
        untrained.refusal(),
        "objective balanced: no row to train on has the label \"no\", so the share of this class is zero; add rows of it, or \
         take objective standard"
    );
    let mixed = Lessons::of("balanced", "mixup", |_| {});
    assert!(mixed.refusal().starts_with("objective balanced doesn't go with method mixup; "));
    let mut blind = Lessons::of("robust:labels=teacher", "distil", |_| {});
    blind.steering.as_mut().unwrap().teacher =
        Some(Teacher { logits: vec![0.0; 24], known: vec![true, false], said: Vec::new() });
    assert!(blind.refusal().contains("the teacher doesn't know the label \"yes\""));
    assert!(!blind.lesson.toy.run_dir().exists(), "something was written");
}

/// Where rows are grouped, the group with the lowest accuracy decides, and all groups are in the scores.
#[test]
fn the_worst_group_can_select() {
    let mut lessons = Lessons::of("balanced:group-by=channel", "retrain", |plan| {
        (plan.epochs, plan.select_by) = (3, SelectBy::WorstClass);
    });
    let n = lessons.lesson.toy.eval.as_ref().unwrap().rows() as u32;
    lessons.groups.as_mut().unwrap().of_eval =
        (0..n).map(|row| (row > 0).then_some(row % 2)).collect();
    let (outcome, _, state) = lessons.finish();
    let log = serde_json::to_value(&state.progress.log).unwrap();
    let worst: Vec<f64> = log
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|line| line.get("eval_worst_group")?.as_f64())
        .collect();
    assert_eq!(worst.len(), 3);
    let Outcome::Finished(release) = outcome else { panic!("{outcome:?}") };
    let scores = release.scores.unwrap();
    let best = worst.iter().copied().fold(0.0, f64::max);
    assert_eq!((scores.groups.len(), scores.worst()), (2, Some(best)));
}

/// The lowest recall decides which evaluation is the best, and is in the log; a plain run of two classes says nothing of it.
#[test]
fn the_worst_class_can_select() {
    let logged = |toy: &Toy| -> Vec<Value> {
        let state = toy.finish().2;
        let log = serde_json::to_value(&state.progress.log).unwrap();
        log.as_array()
            .unwrap()
            .iter()
            .filter(|line| line.get("eval_loss").is_some())
            .cloned()
            .collect()
    };
    let plain = logged(&Toy::plain());
    assert!(plain.iter().all(|line| line.get("eval_worst_class").is_none()));
    let toy = Toy::with(|plan| {
        (plan.epochs, plan.select_by) = (4, SelectBy::WorstClass);
    });
    let (outcome, _, state) = toy.finish();
    let log = serde_json::to_value(&state.progress.log).unwrap();
    let worst: Vec<f64> = log
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|line| line.get("eval_worst_class")?.as_f64())
        .collect();
    assert_eq!(worst.len(), 4);
    let Outcome::Finished(release) = outcome else { panic!("{outcome:?}") };
    let best = worst.iter().copied().fold(0.0, f64::max);
    assert_eq!(release.scores.unwrap().worst_class, Some(best));
}
