//! The same run gives the same bytes: stopped and gone on with, killed at any moment, on any number of threads.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use lowchurn_data::{BatchSize, Encoded};
use lowchurn_distill::{Event, Guides, Outcome, Plan, State, finished, step};
use lowchurn_kernels::Precision;
use lowchurn_models::{Classifier, Config, Head};
use serde_json::json;
use tempfile::TempDir;

use crate::{CPU, Toy, batch, checkpoints, copy_folder, encoded, golden_folder, names, plan};

/// Two epochs of six updates, in twos, with dropout, saving often.
fn toy() -> Toy {
    Toy::with(|plan| {
        plan.epochs = 2;
        plan.dropout = Some(0.2);
        plan.eval_steps = 3;
        plan.save_steps = 2;
        plan.weight_decay = 0.01;
        plan.warmup_steps = 2;
    })
}

fn in_bf16() -> Toy {
    let mut toy = toy();
    toy.provenance.plan.precision = Precision::Bf16;
    toy
}

fn fingerprint(state: &State) -> String {
    state.model.params.fingerprint().unwrap()
}

#[test]
fn two_and_two_steps_are_four() {
    let four = |plan: &mut Plan| {
        plan.max_steps = Some(4);
        plan.dropout = Some(0.2);
    };
    let straight = Toy::with(four);
    let (outcome, _, straight_state) = straight.finish();

    let broken = Toy::with(four);
    let stop = AtomicBool::new(false);
    let (first, state) = broken.go(&stop, &mut |event| {
        if matches!(event, Event::Stepped { step: 2, .. }) {
            stop.store(true, Ordering::Relaxed);
        }
    });
    assert_eq!(first.unwrap(), Outcome::Interrupted { step: 2 });
    assert_eq!(state.step, 2);
    assert_eq!(names(&broken.run_dir()), ["checkpoint-2"]);
    let (second, events, state) = broken.finish();
    assert!(matches!(events[0], Event::Resumed { step: 2, total: 4 }));

    assert_eq!(second, outcome);
    assert_eq!(fingerprint(&state), fingerprint(&straight_state));
    assert_eq!(broken.released(), straight.released());
    assert!(broken.released().contains_key("model.safetensors"));
}

/// Dropout and order do matter, or the tests here would show nothing.
#[test]
fn other_seeds_and_dropouts_are_other_bytes() {
    let bytes = |change: fn(&mut Plan)| {
        let mut toy = toy();
        change(&mut toy.provenance.plan);
        fingerprint(&toy.finish().2)
    };
    let plain = bytes(|_| {});
    assert_eq!(plain, bytes(|_| {}));
    assert_ne!(plain, bytes(|plan| plan.seed = 43));
    assert_ne!(plain, bytes(|plan| plan.dropout = Some(0.1)));
    assert_ne!(plain, bytes(|plan| plan.dropout = None));
    assert_ne!(plain, bytes(|plan| plan.precision = Precision::Bf16));
}

/// Copies of the run's folder are taken wherever something was written, and each is gone on with.
#[test]
fn killed_anywhere_it_ends_in_the_same_bytes() {
    killed_anywhere(toy);
}

#[test]
fn killed_anywhere_in_bf16() {
    killed_anywhere(in_bf16);
}

#[test]
fn killed_anywhere_in_batches_of_tokens() {
    killed_anywhere(|| {
        let mut toy = toy();
        toy.provenance.plan.batch_size = BatchSize::Tokens(40);
        toy
    });
}

fn killed_anywhere(toy: fn() -> Toy) {
    let straight = toy();
    let copies = TempDir::new().unwrap();
    let mut n_copies = 0;
    let (outcome, _) = straight.go(&AtomicBool::new(false), &mut |event| {
        let is_worth_it = matches!(event, Event::Saved { .. } | Event::Stepped { .. });
        if is_worth_it && straight.run_dir().exists() {
            copy_folder(&straight.run_dir(), &copies.path().join(n_copies.to_string()));
            n_copies += 1;
        }
    });
    let (outcome, expected) = (outcome.unwrap(), straight.released());
    assert!(n_copies > 15, "{n_copies}");
    for copy in 0..n_copies {
        let killed = toy();
        copy_folder(&copies.path().join(copy.to_string()), &killed.run_dir());
        // What a kill in the middle of a save, of a removal and of the release leaves.
        for half in [".checkpoint-5.partial", ".checkpoint-2.old.partial", ".release.partial"] {
            fs::create_dir(killed.run_dir().join(half)).unwrap();
            fs::write(killed.run_dir().join(half).join("model.safetensors"), "half").unwrap();
        }
        fs::write(killed.run_dir().join("model.safetensors"), "the release was half done").unwrap();
        let (found, events, _) = killed.finish();
        assert!(matches!(events[0], Event::Resumed { .. }), "{:?}", events[0]);
        assert_eq!(found, outcome);
        assert_eq!(killed.released(), expected, "from copy {copy}");
    }
}

/// Stopped again and again after a single update, wherever that falls.
#[test]
fn one_update_at_a_time() {
    let straight = toy();
    let (outcome, _, _) = straight.finish();
    let broken = toy();
    let stop = AtomicBool::new(true);
    for at in 1..12 {
        let (found, _) = broken.go(&stop, &mut |_| {});
        assert_eq!(found.unwrap(), Outcome::Interrupted { step: at });
    }
    // The last update is not worth an interruption.
    assert_eq!(broken.go(&stop, &mut |_| {}).0.unwrap(), outcome);
    assert_eq!(broken.released(), straight.released());
}

#[test]
fn a_stop_during_evaluation_keeps_the_evaluation() {
    let straight = toy();
    straight.finish();
    let broken = toy();
    let stop = AtomicBool::new(false);
    let mut n_done = 0;
    let (found, state) = broken.go(&stop, &mut |event| {
        if let Event::Evaluating { done, .. } = event {
            n_done = done;
            stop.store(true, Ordering::Relaxed);
        }
    });
    assert_eq!((found.unwrap(), n_done), (Outcome::Interrupted { step: 3 }, 12));
    assert_eq!(state.progress.best.unwrap().step, 3);
    let (_, events, _) = broken.finish();
    let again = |event: &Event| matches!(event, Event::Evaluated { step: 3, .. });
    assert!(!events.iter().any(again));
    assert_eq!(broken.released(), straight.released());
}

/// Without its manifest a folder is not a checkpoint, and nobody's to remove.
#[test]
fn folders_of_others_are_ignored_and_stay() {
    let straight = toy();
    straight.finish();
    let toy = toy();
    let run = toy.run_dir();
    // One that is in the way of a checkpoint of this run, one that isn't, and names that are almost right.
    for name in ["checkpoint-4", "checkpoint-500", "checkpoint-", "checkpoint-+3", "checkpoint-04"]
    {
        fs::create_dir_all(run.join(name)).unwrap();
        fs::write(run.join(name).join("weights.bin"), name).unwrap();
    }
    fs::write(run.join("checkpoint-6"), "a file").unwrap();
    fs::write(run.join("notes.txt"), "mine").unwrap();
    let (_, events, _) = toy.finish();
    assert!(!matches!(events[0], Event::Resumed { .. }));
    assert_eq!(
        checkpoints(&run),
        [
            "checkpoint-",
            "checkpoint-+3",
            "checkpoint-04",
            "checkpoint-4.aside",
            "checkpoint-500",
            "checkpoint-6.aside"
        ]
    );
    assert_eq!(fs::read(run.join("checkpoint-4.aside/weights.bin")).unwrap(), b"checkpoint-4");
    assert_eq!(fs::read(run.join("checkpoint-6.aside")).unwrap(), b"a file");
    for (name, bytes) in straight.released() {
        assert_eq!(fs::read(run.join(&name)).unwrap(), bytes, "{name}");
    }
    assert_eq!(fs::read(run.join("notes.txt")).unwrap(), b"mine");
}

/// A save that fails leaves the checkpoint before it, from which the run goes on.
#[test]
fn a_save_that_fails_costs_nothing_but_itself() {
    let straight = toy();
    straight.finish();
    let check = |spoil: fn(&Toy), mend: fn(&Toy), message: &str| {
        let toy = toy();
        let (failed, _) = toy.go(&AtomicBool::new(false), &mut |event| {
            if matches!(event, Event::Stepped { step: 5, .. }) {
                spoil(&toy);
            }
        });
        assert!(toy.text(failed).starts_with(message));
        assert!(checkpoints(&toy.run_dir()).contains(&"checkpoint-4".to_string()));
        assert!(!names(&toy.run_dir()).iter().any(|name| name.ends_with(".partial")));
        mend(&toy);
        let (_, events, _) = toy.finish();
        assert!(matches!(events[0], Event::Resumed { step: 4, .. }));
        let model = fs::read(toy.run_dir().join("model.safetensors")).unwrap();
        assert_eq!(model, straight.released()["model.safetensors"]);
    };
    check(
        |toy| fs::remove_file(toy.dir.path().join("base/vocab.txt")).unwrap(),
        |toy| {
            fs::write(toy.dir.path().join("base/vocab.txt"), "[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
                .unwrap()
        },
        "DIR/base: no tokenizer to save with the model: neither tokenizer.json nor vocab.txt is here",
    );
    check(
        |toy| {
            for name in ["checkpoint-6", "checkpoint-6.aside"] {
                fs::create_dir(toy.run_dir().join(name)).unwrap();
                fs::write(toy.run_dir().join(name).join("x"), "").unwrap();
            }
        },
        |toy| fs::remove_dir_all(toy.run_dir().join("checkpoint-6")).unwrap(),
        "DIR/run/checkpoint-6.aside: can't be written: ",
    );
}

/// The release is all or nothing, and the checkpoints stay until it is there.
#[test]
fn a_release_that_fails_keeps_the_checkpoints() {
    let straight = toy();
    straight.finish();
    let toy = toy();
    let in_the_way = toy.run_dir().join("eval_results.json");
    fs::create_dir_all(&in_the_way).unwrap();
    fs::write(in_the_way.join("x"), "").unwrap();
    assert_eq!(
        toy.refusal(),
        "DIR/run/eval_results.json: can't be written: Is a directory (os error 21)"
    );
    assert!(checkpoints(&toy.run_dir()).contains(&"checkpoint-12".to_string()));
    assert_eq!(finished(&toy.run_dir(), &toy.provenance).unwrap(), None);
    fs::remove_dir_all(in_the_way).unwrap();
    let (_, events, _) = toy.finish();
    assert!(!events.iter().any(|event| matches!(event, Event::Stepped { .. })));
    assert_eq!(toy.released(), straight.released());
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let on = |threads: usize, run: &(dyn Fn() -> String + Sync)| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(run)
    };
    let whole = |toy: Toy| {
        let fingerprint = fingerprint(&toy.finish().2);
        format!("{fingerprint} {:?}", toy.released())
    };
    let wide = |precision| {
        let (mut state, rows) = wide();
        state.model.precision = precision;
        let plan = Plan { dropout: Some(0.1), ..plan() };
        let which: Vec<u32> = (0..rows.rows() as u32).collect();
        for _ in 0..3 {
            step(&mut state, &plan, &rows, &Guides::default(), &[batch(&rows, &which)], 10, &CPU)
                .unwrap();
        }
        fingerprint(&state)
    };
    let runs: [&(dyn Fn() -> String + Sync); 4] =
        [&|| whole(toy()), &|| wide(Precision::F32), &|| whole(in_bf16()), &|| {
            wide(Precision::Bf16)
        }];
    for run in runs {
        let one = on(1, run);
        for threads in [2, 3] {
            assert!(on(threads, run) == one, "{threads} threads give other bytes");
        }
    }
}

/// Wide enough for every kernel to split its work: hidden 256, 40 rows of up to 100 tokens, 3,000 words.
pub fn wide() -> (State, Encoded) {
    let dir = golden_folder().join("bert_tiny");
    let mut config: serde_json::Value =
        serde_json::from_slice(&fs::read(dir.join("config.json")).unwrap()).unwrap();
    config["hidden_size"] = json!(256);
    config["intermediate_size"] = json!(512);
    config["vocab_size"] = json!(3000);
    config["max_position_embeddings"] = json!(128);
    for key in ["attention_probs_dropout_prob", "hidden_dropout_prob"] {
        config[key] = json!(0.1);
    }
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let config = Config::open(folder.path()).unwrap();
    let mut rng = lowchurn_data::Rng::stream(1, "wide", 0);
    let (small, _) = Classifier::open(&dir, Head::FromCheckpoint, &CPU).unwrap();
    let mut params = small.params.clone();
    for (name, var) in &mut params.0 {
        let grown = |size: usize| match size {
            32 => 256,
            64 => 512,
            100 => 3000,
            16 => 128,
            other => other,
        };
        let shape: Vec<usize> = var.dims().iter().map(|&size| grown(size)).collect();
        let n: usize = shape.iter().product();
        let is_norm = name.ends_with("LayerNorm.weight");
        let value = |normal: f64| if is_norm { 1.0 } else { (0.05 * normal) as f32 };
        let values: Vec<f32> = (0..n).map(|_| value(rng.normal())).collect();
        *var = candle_core::Var::from_vec(values, shape, &CPU).unwrap();
    }
    let rows: Vec<_> = (0..40)
        .map(|row| {
            let tokens = (0..20 + 2 * row).map(|_| rng.below(3000) as u32).collect();
            (tokens, Some(row as u32 % 3))
        })
        .collect();
    (State::new(Classifier::new(config, params).unwrap()).unwrap(), encoded(&rows))
}
