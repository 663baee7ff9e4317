//! How a run ends and what it keeps: learning, the best weights, patience, the counts of updates, evaluations and saves.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use lowchurn_data::{BatchSize, epoch_order};
use lowchurn_distill::{
    Event, Finished, LogEntry, Outcome, Plan, Release, SelectBy, evaluate, finished, predict,
};
use lowchurn_models::{Classifier, Head};

use crate::{CPU, Toy, checkpoints, names, toy_rows};

#[test]
fn training_trains() {
    let mut toy = Toy::with(|plan| {
        plan.epochs = 8;
        plan.batch_size = BatchSize::Rows(16);
        plan.learning_rate = 3e-3;
        plan.dropout = Some(0.1);
    });
    (toy.train, toy.eval) = (toy_rows(600, 1), Some(toy_rows(200, 2)));
    let (outcome, _, state) = toy.finish();
    let Outcome::Finished(release) = outcome else { panic!("{outcome:?}") };
    assert_eq!(release.scores.unwrap().accuracy, Some(1.0));
    let losses: Vec<f64> = state
        .progress
        .log
        .iter()
        .filter_map(|entry| match entry {
            LogEntry::Train { loss, .. } => Some(*loss),
            LogEntry::Eval { .. } => None,
        })
        .collect();
    assert!(losses[0] > 0.3 && losses[losses.len() - 1] < 0.05, "{losses:?}");
}

#[derive(Debug, Default, PartialEq)]
struct Steps {
    done: u64,
    logged: Vec<u64>,
    evaluated: Vec<u64>,
    saved: Vec<u64>,
}

fn steps(events: &[Event]) -> Steps {
    let mut steps = Steps::default();
    for event in events {
        match event {
            Event::Stepped { step, .. } => steps.done = *step,
            Event::Logged(LogEntry::Train { step, .. }) => steps.logged.push(*step),
            Event::Evaluated { step, .. } => steps.evaluated.push(*step),
            Event::Saved { step, .. } => steps.saved.push(*step),
            _ => {}
        }
    }
    steps
}

/// 22 rows: batches of 4 4 4 4 4 2.
#[test]
fn which_updates_log_evaluate_and_save() {
    let check =
        |change: fn(&mut Plan), done: u64, logged: &[u64], evaluated: &[u64], saved: &[u64]| {
            let toy = Toy::with(change);
            let (_, events, state) = toy.finish();
            let (logged, evaluated, saved) = (logged.into(), evaluated.into(), saved.into());
            assert_eq!(steps(&events), Steps { done, logged, evaluated, saved });
            assert_eq!(state.step, done);
        };
    check(|_| {}, 6, &[2, 4, 6], &[6], &[6]);
    check(|p| p.epochs = 2, 12, &[2, 4, 6, 8, 10, 12], &[6, 12], &[6, 12]);
    check(|p| p.logging_steps = 50, 6, &[6], &[6], &[6]);
    check(|p| (p.eval_steps, p.save_steps) = (4, 3), 6, &[2, 4, 6], &[4, 6], &[3, 4, 6]);
    check(|p| p.eval_steps = 100, 6, &[2, 4, 6], &[6], &[6]);
    check(|p| p.max_steps = Some(1), 1, &[1], &[1], &[1]);
    // Beyond the epochs, and within one.
    check(|p| p.max_steps = Some(8), 8, &[2, 4, 6, 8], &[6, 8], &[6, 8]);
    check(|p| (p.epochs, p.max_steps) = (9, Some(4)), 4, &[2, 4], &[4], &[4]);
    check(|p| (p.epochs, p.max_steps) = (0, Some(2)), 2, &[2], &[2], &[2]);
    // Two updates of four batches and of two.
    check(|p| p.accumulation = 4, 2, &[2], &[2], &[2]);
    check(|p| (p.accumulation, p.epochs) = (100, 3), 3, &[2, 3], &[1, 2, 3], &[1, 2, 3]);
}

/// Each epoch sees each row once, with and without a remainder.
#[test]
fn an_epoch_is_every_row_once() {
    let check = |change: fn(&mut Plan), rows_of_updates: &[u64]| {
        let (_, events, state) = Toy::with(change).finish();
        let rows = |event: &Event| match event {
            Event::Stepped { report, .. } => Some(report.n_rows),
            _ => None,
        };
        let mut found: Vec<u64> = events.iter().filter_map(rows).collect();
        found.sort_unstable_by(|a, b| b.cmp(a));
        assert_eq!(found, rows_of_updates);
        let n_tokens = toy_rows(22, 1).tokens.len() as u64;
        assert_eq!(state.progress.n_tokens_seen, n_tokens);
    };
    check(|_| {}, &[4, 4, 4, 4, 4, 2]);
    check(|p| p.batch_size = BatchSize::Rows(11), &[11, 11]);
    check(|p| p.batch_size = BatchSize::Rows(100), &[22]);
    // Batches of 20 tokens, by themselves and in threes.
    let batches = epoch_order(&toy_rows(22, 1).lengths(), BatchSize::Tokens(20), 0, 0);
    let mut sizes: Vec<u64> = batches.iter().map(|batch| batch.len() as u64).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    check(|p| p.batch_size = BatchSize::Tokens(20), &sizes);
    let in_threes = |p: &mut Plan| (p.batch_size, p.accumulation) = (BatchSize::Tokens(20), 3);
    assert_eq!(Toy::with(in_threes).finish().2.step, batches.len().div_ceil(3) as u64);
    let (_, events, _) = Toy::with(|p| p.accumulation = 4).finish();
    let total: u64 = events
        .iter()
        .map(|event| if let Event::Stepped { report, .. } = event { report.n_rows } else { 0 })
        .sum();
    assert_eq!(total, 22);
}

/// Another order in each epoch, the same for the same seed.
#[test]
fn epochs_differ_in_order() {
    let n_tokens = |seed: u64| {
        let (_, events, _) = Toy::with(|p| (p.epochs, p.seed) = (3, seed)).finish();
        let tokens = |event: &Event| match event {
            Event::Stepped { report, .. } => Some(report.n_tokens),
            _ => None,
        };
        events.iter().filter_map(tokens).collect::<Vec<_>>()
    };
    let all = n_tokens(1);
    let epochs: Vec<_> = all.chunks(6).collect();
    assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2] && epochs[0] != epochs[2], "{all:?}");
    assert_eq!(n_tokens(1), all);
    assert_ne!(n_tokens(2), all);
}

/// A plan under which the first evaluations are better than the last: the learning rate is far too high.
fn overshooting() -> Toy {
    let mut toy = Toy::with(|plan| {
        plan.epochs = 6;
        plan.learning_rate = 0.03;
        plan.eval_steps = 3;
        plan.schedule = lowchurn_distill::Schedule::Constant;
    });
    toy.train = toy_rows(30, 1);
    toy
}

fn evaluations(events: &[Event]) -> BTreeMap<u64, lowchurn_distill::Scores> {
    let scores = |event: &Event| match event {
        Event::Evaluated { step, scores, .. } => Some((*step, scores.clone())),
        _ => None,
    };
    events.iter().filter_map(scores).collect()
}

#[test]
fn the_best_weights_are_released_not_the_last() {
    for select_by in [SelectBy::Accuracy, SelectBy::F1, SelectBy::Matthews, SelectBy::Loss] {
        let mut toy = overshooting();
        toy.provenance.plan.select_by = select_by;
        let (outcome, events, state) = toy.finish();
        let Outcome::Finished(release) = outcome else { panic!("{outcome:?}") };
        let all = evaluations(&events);
        let value = |scores: &lowchurn_distill::Scores| {
            let value = select_by.of(scores).unwrap();
            if select_by == SelectBy::Loss { -value } else { value }
        };
        let highest = all.values().map(value).fold(f64::NEG_INFINITY, f64::max);
        let (&first, best) = all.iter().find(|(_, scores)| value(scores) == highest).unwrap();
        assert_eq!(release, Release { step: first, scores: Some(best.clone()) });
        assert!(
            first < state.step,
            "{}: the last is the best, so nothing is shown",
            select_by.name()
        );

        // What was released is the model of that step: it scores the same.
        let (model, _) = Classifier::open(&toy.run_dir(), Head::FromCheckpoint, &CPU).unwrap();
        let rows = toy.eval.as_ref().unwrap();
        let predictions = predict(&model, rows, 5, &CPU, &mut |_| {}).unwrap();
        assert_eq!(&evaluate(&predictions, &rows.labels).unwrap(), best);
        assert_eq!(model.params.fingerprint().unwrap(), state.model.params.fingerprint().unwrap());
    }
}

/// After each save only the newest and the best are left.
#[test]
fn checkpoints_that_are_kept() {
    let toy = overshooting();
    let (mut best, mut latest, mut n_kept_two) = (None, None, 0);
    let (outcome, _) = toy.go(&AtomicBool::new(false), &mut |event| match event {
        Event::Evaluated { step, is_best: true, .. } => best = Some(step),
        Event::Saved { step, path } => {
            assert_eq!(path, toy.run_dir().join(format!("checkpoint-{step}")));
            assert!(path.join("manifest.json").is_file());
            latest = Some(step);
        }
        Event::Stepped { .. } if latest.is_some() => {
            let mut expected =
                [latest, best].map(|step| format!("checkpoint-{}", step.unwrap())).to_vec();
            expected.sort();
            expected.dedup();
            n_kept_two += usize::from(expected.len() == 2);
            assert_eq!(names(&toy.run_dir()), expected);
        }
        _ => {}
    });
    outcome.unwrap();
    assert!(n_kept_two > 3);
    assert_eq!(checkpoints(&toy.run_dir()), Vec::<String>::new());
    assert_eq!(
        names(&toy.run_dir()),
        [
            "config.json",
            "eval_results.json",
            "manifest.json",
            "model.safetensors",
            "trainer_state.json",
            "vocab.txt"
        ]
    );
}

#[test]
fn patience_ends_a_run_that_gets_no_better() {
    let mut toy = overshooting();
    toy.provenance.plan.patience = 2;
    let (outcome, events, state) = toy.finish();
    let Outcome::Finished(release) = outcome else { panic!("{outcome:?}") };
    let total = toy.provenance.plan.total_steps(&[5; 30]);
    assert!(state.step < total && state.progress.is_stopped_early);
    assert_eq!(state.step, release.step + 2 * 3);
    let stopped = |event: &&Event| matches!(event, Event::StoppedEarly { .. });
    let stops: Vec<_> = events.iter().filter(stopped).collect();
    assert!(
        matches!(stops[..], [Event::StoppedEarly { step, n_evals: 2 }] if *step == state.step),
        "{stops:?}"
    );

    // Killed after its last checkpoint, it goes on to the release, not to more updates.
    let mut killed = overshooting();
    killed.provenance.plan.patience = 2;
    let last = state.step;
    let copy = tempfile::TempDir::new().unwrap();
    let (_, _) = killed.go(&AtomicBool::new(false), &mut |event| {
        if matches!(event, Event::Saved { step, .. } if step == last) {
            crate::copy_folder(&killed.run_dir(), copy.path());
        }
    });
    std::fs::remove_dir_all(killed.run_dir()).unwrap();
    crate::copy_folder(copy.path(), &killed.run_dir());
    let (_, events, _) = killed.finish();
    assert!(matches!(events[..], [Event::Resumed { .. }]), "{events:?}");
    assert_eq!(killed.released(), toy.released());
}

#[test]
fn without_evaluation_the_last_weights_are_released() {
    let mut toy = overshooting();
    toy.eval = None;
    let (outcome, events, state) = toy.finish();
    assert_eq!(outcome, Outcome::Finished(Release { step: state.step, scores: None }));
    assert_eq!(steps(&events).evaluated, Vec::<u64>::new());
    assert_eq!(steps(&events).saved, (1..=16).map(|n| n * 3).collect::<Vec<u64>>());
}

#[test]
fn a_finished_run_says_so() {
    let toy = Toy::plain();
    assert_eq!(finished(&toy.run_dir(), &toy.provenance).unwrap(), None);
    let (outcome, _, _) = toy.finish();
    let Outcome::Finished(release) = outcome else { panic!("{outcome:?}") };
    let provenance = toy.provenance.clone();
    let expected = Some(Finished { release, provenance });
    assert_eq!(finished(&toy.run_dir(), &toy.provenance).unwrap(), expected);
    // What others write beside it is no business of the manifest.
    std::fs::write(toy.run_dir().join("metrics.jsonl"), "{}").unwrap();
    assert_eq!(finished(&toy.run_dir(), &toy.provenance).unwrap(), expected);

    // Started over with another plan and stopped: the old word doesn't stand in the way of going on.
    let mut toy = toy;
    toy.provenance.plan.seed = 1;
    let stop = AtomicBool::new(true);
    assert_eq!(toy.go(&stop, &mut |_| {}).0.unwrap(), Outcome::Interrupted { step: 1 });
    assert_eq!(finished(&toy.run_dir(), &toy.provenance).unwrap(), None);
    toy.finish();
    assert!(finished(&toy.run_dir(), &toy.provenance).unwrap().is_some());
}
