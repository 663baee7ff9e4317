//! What lies in a checkpoint: keys that other tools know, and everything that the run needs, to the last bit.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::AtomicBool;

use lowchurn_distill::{Event, Optimizer, SelectBy, State, find_latest};
use lowchurn_kernels::Moments;
use lowchurn_models::read_params_into;
use serde_json::Value;

use crate::{Toy, toy_state};

fn json(path: &std::path::Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn trainer_state_has_the_keys_of_transformers() {
    let toy = Toy::with(|plan| {
        plan.epochs = 2;
        plan.select_by = SelectBy::Loss;
    });
    let (_, _, state) = toy.finish();
    let found = json(&toy.run_dir().join("trainer_state.json"));
    // transformers 5, TrainerState.
    for key in [
        "best_global_step",
        "best_metric",
        "best_model_checkpoint",
        "epoch",
        "eval_steps",
        "global_step",
        "is_hyper_param_search",
        "is_local_process_zero",
        "is_world_process_zero",
        "log_history",
        "logging_steps",
        "max_steps",
        "num_input_tokens_seen",
        "num_train_epochs",
        "save_steps",
        "stateful_callbacks",
        "train_batch_size",
        "trial_name",
        "trial_params",
    ] {
        assert!(found.get(key).is_some(), "{key}");
    }
    assert_eq!((&found["global_step"], &found["max_steps"]), (&12.into(), &12.into()));
    assert_eq!((&found["epoch"], &found["num_train_epochs"]), (&2.0.into(), &2.into()));
    let history = found["log_history"].as_array().unwrap();
    let keys = |entry: &Value| entry.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let set = |keys: &[&str]| keys.iter().map(|key| key.to_string()).collect::<BTreeSet<_>>();
    assert_eq!(
        keys(&history[0]),
        set(&["accuracy", "epoch", "grad_norm", "learning_rate", "loss", "step"])
    );
    let eval = history.iter().find(|entry| entry.get("eval_loss").is_some()).unwrap();
    assert_eq!(
        keys(eval),
        set(&["epoch", "eval_accuracy", "eval_f1", "eval_loss", "eval_matthews", "step"])
    );
    // The loss as it is reported, not with its sign turned.
    let best = state.progress.best.unwrap();
    assert_eq!(found["best_metric"].as_f64(), Some(best.scores.loss));
    assert_eq!(best.value, -best.scores.loss);
    assert_eq!(found["best_model_checkpoint"], format!("checkpoint-{}", best.step));
}

/// The moments' bits by name.
fn moments(optimizer: &Optimizer) -> Vec<(String, Vec<u32>, Vec<u32>)> {
    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect();
    let of = |(name, moments): (&String, &Moments)| match moments {
        Moments::Host { m, v, .. } => (name.clone(), bits(m), bits(v)),
        Moments::Device { .. } => panic!("{name} is not on the host"),
    };
    optimizer.moments.iter().map(of).collect()
}

#[test]
fn the_state_comes_back_to_the_last_bit() {
    let toy = Toy::with(|plan| {
        plan.dropout = Some(0.3);
        plan.logging_steps = 4;
        plan.eval_steps = 2;
        plan.learning_rate = 0.1 + 1e-17;
    });
    let stop = AtomicBool::new(false);
    let (_, saved) = toy.go(&stop, &mut |event| {
        if matches!(event, Event::Stepped { step: 3, .. }) {
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    });
    assert_eq!(saved.step, 3);
    assert!(saved.progress.since_log.n_rows > 0 && saved.progress.best.is_some());

    let mut state: State = toy_state(99);
    assert_ne!(
        state.model.params.fingerprint().unwrap(),
        saved.model.params.fingerprint().unwrap()
    );
    let (path, manifest) = find_latest(&toy.run_dir(), &toy.provenance).unwrap().unwrap();
    assert_eq!(manifest.provenance, toy.provenance);
    assert_eq!(manifest.step, 3);
    read_params_into(&state.model.params, &path.join("model.safetensors")).unwrap();
    assert_eq!(
        state.model.params.fingerprint().unwrap(),
        saved.model.params.fingerprint().unwrap()
    );
    state.optimizer =
        Optimizer::load(&path.join("optimizer.safetensors"), &state.model.params).unwrap();
    assert_eq!(moments(&state.optimizer), moments(&saved.optimizer));
    let progress = json(&path.join("trainer_state.json"))["lowchurn"].clone();
    let text = progress.to_string();
    assert_eq!(serde_json::to_string(&saved.progress).unwrap(), text);
}

/// A run that ends with nothing to do gives back what was saved.
#[test]
fn progress_is_read_as_it_was_written() {
    let toy = Toy::with(|plan| plan.eval_steps = 4);
    let copy = tempfile::TempDir::new().unwrap();
    let (_, first) = toy.go(&AtomicBool::new(false), &mut |event| {
        if matches!(event, Event::Saved { step: 6, .. }) {
            crate::copy_folder(&toy.run_dir(), copy.path());
        }
    });
    let again = Toy::with(|plan| plan.eval_steps = 4);
    crate::copy_folder(copy.path(), &again.run_dir());
    let (_, _, second) = again.finish();
    assert_eq!(second.progress, first.progress);
    assert_eq!(second.step, 6);
    assert_eq!(moments(&second.optimizer), moments(&first.optimizer));
}
