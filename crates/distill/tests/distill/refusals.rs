//! What a run refuses, and the whole text of what it says then.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Tensor;
use lowchurn_distill::{Error, Event, Guides, Provenance, Run, SelectBy, finished, train};
use lowchurn_kernels::Precision;

use crate::{CPU, Toy, encoded, names, numbers, toy_state};

/// A run stopped after `at` updates.
fn stopped(toy: Toy, at: u64) -> Toy {
    let stop = AtomicBool::new(false);
    let (outcome, _) = toy.go(&stop, &mut |event| {
        if matches!(event, Event::Stepped { step, .. } if step == at) {
            stop.store(true, Ordering::Relaxed);
        }
    });
    outcome.unwrap();
    toy
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() - 2;
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn sha256(path: &Path) -> String {
    // One file hashed as the crate does it.
    use sha2::{Digest, Sha256};
    Sha256::digest(fs::read(path).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
}

const MEND: &str = "remove the folder of this checkpoint to go on from the one before, or from the start where there is none";

#[test]
fn rows_that_cannot_be_trained_on() {
    let good = || (vec![2, 10, 3], Some(1));
    let check = |change: &dyn Fn(&mut Toy), message: &str| {
        let mut toy = Toy::plain();
        change(&mut toy);
        assert_eq!(toy.refusal(), message);
        assert!(!toy.run_dir().exists());
    };
    check(
        &|toy| toy.provenance.plan.eval_batch_size = 0,
        "eval_batch_size is 0, expected at least 1",
    );
    check(&|toy| toy.train = encoded(&[]), "no row to train on");
    check(
        &|toy| toy.train = encoded(&[good(), (vec![2, 3], None)]),
        "row row-1 has no label, and training needs one; leave unlabelled rows out",
    );
    check(
        &|toy| toy.train = encoded(&[good(), (vec![2, 3], Some(2))]),
        "row 1: label 2, but the model has 2 classes",
    );
    check(
        &|toy| toy.eval = Some(encoded(&[good(), (vec![2, 3], Some(7))])),
        "row 1: label 7, but the model has 2 classes",
    );
    check(&|toy| toy.eval = Some(encoded(&[(vec![2, 3], None)])), "no labelled row to evaluate on");
    check(&|toy| toy.eval = Some(encoded(&[])), "no labelled row to evaluate on");
    check(
        &|toy| toy.train = encoded(&[good(), (vec![], Some(0))]),
        "row row-1 has no token; leave empty texts out",
    );
    check(
        &|toy| toy.eval = Some(encoded(&[good(), (vec![5; 17], None)])),
        "the batch is 17 tokens wide, but the model has 16 positions (config.json, max_position_embeddings); \
         truncate the texts to 16",
    );
}

/// A save after a bad update once pushed out the last good checkpoint, and a bad last update was released.
#[test]
fn weights_that_are_no_numbers_are_not_saved() {
    let mut toy = Toy::with(|plan| plan.save_steps = 2);
    toy.eval = None;
    let mut state = toy_state(toy.head_seed);
    let view = toy_view(&state);
    let outcome = toy.go_with(&mut state, &AtomicBool::new(false), &mut |event| {
        if matches!(event, Event::Stepped { step: 4, .. }) {
            let var = &view.model.params.0["bert.pooler.dense.bias"];
            let nan = Tensor::full(f32::NAN, var.shape(), &CPU).unwrap();
            var.set(&nan).unwrap();
        }
    });
    let text = toy.text(outcome);
    assert!(text.starts_with("the norm of the weights is not a number at step 4;"), "{text}");
    assert_eq!(names(&toy.run_dir()), ["checkpoint-2"]);
}

#[test]
fn not_a_number_names_the_step_and_keeps_the_checkpoint() {
    let toy = stopped(Toy::plain(), 2);
    let mut state = toy_state(toy.head_seed);
    let poison = |state: &lowchurn_distill::State| {
        let var = &state.model.params.0["bert.pooler.dense.bias"];
        let mut values = numbers(var);
        values[3] = f32::NAN;
        var.set(&Tensor::from_vec(values, var.shape(), &CPU).unwrap()).unwrap();
    };
    // The checkpoint is sound, so the weights are poisoned through a second view of them once they are loaded.
    let view = toy_view(&state);
    let outcome = toy.go_with(&mut state, &AtomicBool::new(false), &mut |event| {
        if matches!(event, Event::Stepped { step: 4, .. }) {
            poison(&view);
        }
    });
    assert_eq!(
        toy.text(outcome),
        "the loss is not a number at step 5; try a lower learning rate or a lower max_grad_norm, \
         with --fresh or in another output folder; the last checkpoint before it is kept"
    );
    assert_eq!(names(&toy.run_dir()), ["checkpoint-2"]);
    let (_, events, _) = toy.finish();
    assert!(matches!(events[0], Event::Resumed { step: 2, .. }));
}

/// A state whose parameters are the very same tensors.
fn toy_view(state: &lowchurn_distill::State) -> lowchurn_distill::State {
    let mut view = toy_state(0);
    view.model.params = state.model.params.clone();
    view
}

#[test]
fn damaged_weights_stop_an_evaluation() {
    let toy = Toy::plain();
    let state = toy_state(1);
    let var = &state.model.params.0["classifier.bias"];
    var.set(&Tensor::new(&[0f32, f32::NAN], &CPU).unwrap()).unwrap();
    let rows = toy.eval.as_ref().unwrap();
    let longest = lowchurn_data::eval_order(&rows.lengths(), 1)[0][0];
    let found = lowchurn_distill::predict(&state.model, rows, 4, &CPU, &mut |_| {});
    let text = toy.text(found);
    let expected = format!(
        "row row-{longest}: the logits are not finite numbers; the model's weights are damaged"
    );
    assert_eq!(text, expected);
}

#[test]
fn checkpoints_of_another_run() {
    let toy = stopped(Toy::plain(), 2);
    let end = "choose another output folder, or --fresh to start over here";
    let check = |change: &dyn Fn(&mut Provenance), what: &str| {
        let mut other = Toy::plain();
        crate::copy_folder(&toy.run_dir(), &other.run_dir());
        change(&mut other.provenance);
        let expected = format!("DIR/run/checkpoint-2 holds a run with another {what}; {end}");
        assert_eq!(other.refusal(), expected);
        assert_eq!(names(&other.run_dir()), ["checkpoint-2"]);
    };
    check(&|p| p.plan.learning_rate = 2e-3, "learning_rate: 0.001, now 0.002");
    check(&|p| p.plan.select_by = SelectBy::Loss, r#"select_by: "accuracy", now "loss""#);
    check(&|p| p.plan.max_steps = Some(3), "max_steps: not set, now 3");
    check(&|p| p.plan.dropout = Some(0.1), "dropout: not set, now 0.1");
    check(&|p| p.plan.precision = Precision::Bf16, r#"precision: "f32", now "bf16""#);
    let hash = "9".repeat(64);
    check(
        &|p| (p.base, p.base_sha256) = ("me/other".into(), hash.clone()),
        "base checkpoint: golden/bert_tiny (bbbbbbbbbbbb), now me/other (999999999999)",
    );
    check(
        &|p| p.train_sha256 = hash.clone(),
        "training data: toy:train (111111111111), now toy:train (999999999999)",
    );
    check(
        &|p| p.eval_sha256 = "é".into(),
        "evaluation data: toy:eval (eeeeeeeeeeee), now toy:eval (é)",
    );
    check(&|p| p.device = "cuda".into(), "device: cpu, now cuda");
    check(&|p| p.labels.reverse(), "label set: no, yes, now yes, no");

    // The same data under another name, and a newer program, are the same run.
    let mut same = Toy::plain();
    crate::copy_folder(&toy.run_dir(), &same.run_dir());
    same.provenance.train = "a/copy".into();
    same.provenance.lowchurn_version = "9.0.0".into();
    assert!(matches!(same.finish().1[0], Event::Resumed { step: 2, .. }));
}

#[test]
fn a_checkpoint_with_a_flipped_byte() {
    for name in ["model.safetensors", "optimizer.safetensors", "trainer_state.json", "vocab.txt"] {
        let toy = stopped(Toy::plain(), 2);
        let path = toy.run_dir().join("checkpoint-2").join(name);
        let old = sha256(&path);
        flip(&path);
        let new = sha256(&path);
        assert_eq!(
            toy.refusal(),
            format!(
                "DIR/run/checkpoint-2/{name}: its sha256 is {new}, but the manifest says {old}; {MEND}"
            )
        );
        // What the message says works.
        fs::remove_dir_all(toy.run_dir().join("checkpoint-2")).unwrap();
        assert!(matches!(toy.finish().1[0], Event::Stepped { step: 1, .. }));
    }
}

#[test]
fn manifests_that_cannot_be_believed() {
    let check = |change: &dyn Fn(&Path), message: &str| {
        let toy = stopped(Toy::plain(), 2);
        change(&toy.run_dir().join("checkpoint-2"));
        assert_eq!(toy.refusal(), format!("DIR/run/checkpoint-2/{message}; {MEND}"));
    };
    let edit = |dir: &Path, edit: &dyn Fn(&mut serde_json::Value)| {
        let path = dir.join("manifest.json");
        let mut manifest = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        edit(&mut manifest);
        fs::write(path, manifest.to_string()).unwrap();
    };
    check(
        &|dir| fs::remove_file(dir.join("optimizer.safetensors")).unwrap(),
        "optimizer.safetensors: it is missing",
    );
    check(
        &|dir| {
            edit(dir, &|m| drop(m["files"].as_object_mut().unwrap().remove("model.safetensors")))
        },
        "model.safetensors: the manifest doesn't list it",
    );
    for name in ["../secret", "/etc/hostname", "..", "a/b", ""] {
        check(
            &|dir| edit(dir, &|m| m["files"][name] = "0".into()),
            &format!("manifest.json: {name:?} is not the name of a file in this folder"),
        );
    }
    check(
        &|dir| edit(dir, &|m| m["format"] = 2.into()),
        "manifest.json: format 2, this program reads 1",
    );
    check(
        &|dir| fs::write(dir.join("manifest.json"), "{").unwrap(),
        "manifest.json: EOF while parsing an object at line 1 column 1",
    );
    // Of another format nothing else is read.
    check(
        &|dir| fs::write(dir.join("manifest.json"), r#"{"format": 7, "runs": []}"#).unwrap(),
        "manifest.json: format 7, this program reads 1",
    );
    check(
        &|dir| fs::write(dir.join("manifest.json"), "[]").unwrap(),
        "manifest.json: format null, this program reads 1",
    );
    check(
        &|dir| edit(dir, &|m| drop(m.as_object_mut().unwrap().remove("step"))),
        "manifest.json: missing field `step`",
    );
}

/// Without the best weights the end of the run would be an error; better to hear of it at the start.
#[test]
fn best_weights_that_are_gone() {
    // Nothing is learnt at this rate: the first evaluation stays the best.
    let still = || Toy::with(|plan| (plan.learning_rate, plan.eval_steps) = (1e-12, 2));
    let check = |change: &dyn Fn(&Path), message: &str| {
        let toy = stopped(still(), 5);
        assert_eq!(names(&toy.run_dir()), ["checkpoint-2", "checkpoint-5"]);
        change(&toy.run_dir().join("checkpoint-2"));
        let end = "it belongs to the best weights so far, those of step 2: put it back, or --fresh to start over here";
        assert_eq!(toy.refusal(), format!("DIR/run/checkpoint-2/{message}; {end}"));
        assert!(toy.run_dir().join("checkpoint-5").exists());
    };
    check(&|dir| fs::remove_dir_all(dir).unwrap(), "manifest.json: it is missing");
    check(
        &|dir| fs::remove_file(dir.join("model.safetensors")).unwrap(),
        "model.safetensors: it is missing",
    );
    // Lost while the run goes on: the newest checkpoint stays.
    let toy = still();
    let (outcome, _) = toy.go(&AtomicBool::new(false), &mut |event| {
        if matches!(event, Event::Stepped { step: 5, .. }) {
            fs::remove_dir_all(toy.run_dir().join("checkpoint-2")).unwrap();
        }
    });
    assert!(matches!(outcome, Err(Error::Best { step: 2, .. })));
    assert_eq!(names(&toy.run_dir()), ["checkpoint-6"]);
    // And nothing is hurt by asking.
    let toy = stopped(still(), 5);
    toy.finish();
}

#[test]
fn a_finished_run_that_was_changed() {
    let mend = "the finished run here was changed: put the file back, or --fresh to train it again";
    let check = |change: &dyn Fn(&mut Toy), message: &str| {
        let mut toy = Toy::plain();
        toy.finish();
        change(&mut toy);
        assert_eq!(toy.text(finished(&toy.run_dir(), &toy.provenance)), message);
    };
    check(
        &|toy| fs::remove_file(toy.run_dir().join("model.safetensors")).unwrap(),
        &format!("DIR/run/model.safetensors: it is missing; {mend}"),
    );
    check(
        &|toy| fs::write(toy.run_dir().join("manifest.json"), "").unwrap(),
        &format!("DIR/run/manifest.json: EOF while parsing a value at line 1 column 0; {mend}"),
    );
    check(
        &|toy| toy.provenance.plan.seed = 1,
        "DIR/run holds a run with another seed: 42, now 1; choose another output folder, or --fresh to start over here",
    );
}

#[test]
fn moments_that_do_not_fit() {
    let toy = stopped(Toy::plain(), 2);
    let path = toy.run_dir().join("checkpoint-2/optimizer.safetensors");
    let params = toy_state(1).model.params;
    let check = |change: &dyn Fn(&mut lowchurn_models::Params), message: &str| {
        let mut params = lowchurn_models::Params(params.0.clone());
        change(&mut params);
        let found = lowchurn_distill::Optimizer::load(&path, &params);
        let expected = format!("DIR/run/checkpoint-2/optimizer.safetensors: {message}; {MEND}");
        assert_eq!(toy.text(found), expected);
    };
    let var = |shape: (usize, usize)| candle_core::Var::zeros(shape, candle_core::DType::F32, &CPU);
    check(
        &|params| drop(params.0.insert("extra".into(), var((1, 1)).unwrap())),
        "m.extra is missing",
    );
    check(
        &|params| drop(params.0.insert("classifier.weight".into(), var((3, 32)).unwrap())),
        "m.classifier.weight has shape [2, 32], expected [3, 32]",
    );
}

#[test]
fn files_that_cannot_be_written_or_read() {
    let toy = Toy::plain();
    fs::write(toy.run_dir(), "a file where the folder should be").unwrap();
    assert_eq!(toy.refusal(), "DIR/run: can't be read: Not a directory (os error 20)");
    let write = lowchurn_distill::write_file(&toy.run_dir().join("x"), b"");
    assert_eq!(toy.text(write), "DIR/run/x: can't be written: Not a directory (os error 20)");
}

#[test]
fn a_run_in_the_folder_of_its_base() {
    let toy = Toy::plain();
    let base = toy.dir.path().join("base");
    let run = Run {
        provenance: &toy.provenance,
        train: &toy.train,
        eval: None,
        guides: Guides::default(),
        dir: &base.join("../base"),
        tokenizer_from: &base,
    };
    let outcome = train(&run, &mut toy_state(1), &AtomicBool::new(false), &mut |_| {});
    assert_eq!(
        toy.text(outcome),
        "DIR/base/../base: the base model lies here and would be overwritten; choose another output folder"
    );
    assert_eq!(names(&base), ["vocab.txt"]);
}

/// A loss that is finite, of weights so large that the squares of its gradient are not.
#[test]
fn gradients_that_overflow() {
    let toy = Toy::plain();
    let mut state = toy_state(toy.head_seed);
    let var = &state.model.params.0["classifier.weight"];
    var.set(&(var.as_tensor() * 1e25).unwrap()).unwrap();
    let outcome = toy.go_with(&mut state, &AtomicBool::new(false), &mut |_| {});
    assert_eq!(
        toy.text(outcome),
        "the gradient norm is not a number at step 1; try a lower learning rate or a lower max_grad_norm, \
         with --fresh or in another output folder; the last checkpoint before it is kept"
    );
}

/// The messages that only pass on what another crate says.
#[test]
fn errors_of_others_are_passed_on() {
    let error = lowchurn_models::Error::NoTokenizer { dir: "x".into() };
    let text = error.to_string();
    assert_eq!(Error::from(error).to_string(), text);
    let error = Error::PlanValue { key: "epochs", value: "0".into(), expected: "at least 1" };
    assert_eq!(error.to_string(), "epochs is 0, expected at least 1");
}
