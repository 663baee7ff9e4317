//! Students that follow a teacher's states: PyTorch's numbers, resumes, what is kept and what is refused.

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{Tensor, Var};
use lowchurn_data::Encoded;
use lowchurn_distill::{
    Event, Fingerprint, Guides, Method, Optimizer, Outcome, Plan, Run, Scoring, SelectBy, Shown,
    State, StateTerms, Table, TextVector, VectorLoss, Vectors, step, train,
};
use lowchurn_kernels::Precision;
use lowchurn_models::{Classifier, Head, Input, Mode, Wanted};
use serde_json::Value;

use crate::{
    CPU, GO, Toy, batch, distance, golden_folder, golden_rows, golden_state, names, numbers,
    toy_rows,
};

pub fn student() -> Classifier {
    let dir = golden_folder().join("bert_student");
    Classifier::open(&dir, Head::FromCheckpoint, &CPU).unwrap().0
}

/// A table of one vector a text, as a run has it.
pub fn vectors(model: &Classifier, rows: &Encoded, vector: TextVector) -> Vectors {
    let dir = tempfile::tempdir().unwrap();
    let c = model.config.hidden_size;
    let fingerprint = Fingerprint {
        name: "teacher".into(),
        format: 1,
        weights: "w".into(),
        tokenizer: "t".into(),
        max_length: 16,
        labels: (0..c).map(|channel| channel.to_string()).collect(),
        rows: "r".into(),
        precision: Precision::F32,
        vector: Some(vector),
    };
    let scoring = Scoring { model, rows, fingerprint: &fingerprint, batch_size: 4, device: &CPU };
    let path = dir.path().join("table.safetensors");
    let table = Table::open_or_build(&path, &scoring, &GO, &mut |_| {}).unwrap().unwrap();
    assert_eq!(Table::open(&path, &fingerprint).unwrap(), table);
    let other = Fingerprint { vector: Some(TextVector::First), ..fingerprint.clone() };
    assert!(Table::open(&path, &other).unwrap_err().to_string().contains("vector: "));
    table.vectors(&rows.ids).unwrap()
}

/// Layer by layer, and the mean of the last one, against transformers' `output_hidden_states` and the layers' own outputs.
#[test]
fn states_are_those_of_pytorch() {
    let bytes = fs::read(golden_folder().join("states.safetensors")).unwrap();
    let golden = candle_core::safetensors::load_buffer(&bytes, &CPU).unwrap();
    let rows = golden_rows();
    let model = golden_state().model;
    let all: Vec<u32> = (0..rows.rows() as u32).collect();
    let b = batch(&rows, &all);
    let input = Input::new(&b.tokens, &b.types, &b.lengths, b.width, &CPU).unwrap();
    let wanted = Wanted { hidden: [0, 1, 2].into(), attention: [0, 1].into() };
    let states = model.forward_states(&input, Mode::Eval, &wanted).unwrap();
    let check = |name: &str, found: &Tensor| {
        let expected = &golden[&format!("teacher.{name}")];
        let mut worst = 0f32;
        for row in 0..rows.rows() {
            let (start, n) = (rows.offsets[row], rows.length(row));
            let expected = expected.get(row).unwrap().narrow(0, 0, n).unwrap();
            let found = found.narrow(0, start, n).unwrap();
            worst = worst.max(distance(&numbers(&found), &numbers(&expected)));
        }
        assert!(worst < 1e-5, "{name}: {worst}");
    };
    for (at, hidden) in &states.hidden {
        check(&format!("hidden.{at}"), hidden);
    }
    for (layer, attended) in &states.attention {
        check(&format!("query.{layer}"), &attended.query);
        check(&format!("key.{layer}"), &attended.key);
        check(&format!("value.{layer}"), &attended.value);
    }
    assert_eq!((states.hidden.len(), states.attention.len()), (3, 2));
    assert!(distance(&numbers(&states.pooled), &numbers(&golden["teacher.pooled"])) < 1e-5);
    // To look changes nothing but the order of sums: who doesn't, has only the rows of the last layer that the head reads.
    let logits = numbers(&model.forward(&input, Mode::Eval).unwrap());
    assert!(distance(&numbers(&states.logits), &logits) < 1e-6);

    let means = vectors(&model, &rows, TextVector::Mean);
    assert_eq!(means.width, 32);
    for row in 0..rows.rows() {
        let hidden = golden["teacher.hidden.2"].get(row).unwrap();
        let mean = hidden.narrow(0, 0, rows.length(row)).unwrap().mean(0).unwrap();
        assert!(distance(means.of(row), &numbers(&mean)) < 1e-5);
    }
}

pub fn golden_terms() -> StateTerms {
    StateTerms {
        hidden_weight: 0.8,
        attention_weight: 0.5,
        relation_weight: 2.0,
        relation_heads: Some(4),
        vector_weight: 1.5,
        vector_loss: VectorLoss::Cosine,
        teacher_vector: TextVector::Mean,
        student_vector: TextVector::Pooled,
    }
}

/// The projections that PyTorch began with, and no moments.
pub fn set_projections(state: &mut State, golden: &HashMap<String, Tensor>) {
    let projections = state.projections.as_mut().unwrap();
    for (name, var) in &mut projections.params.0 {
        *var = Var::from_tensor(&golden[&format!("projection.{name}")]).unwrap();
    }
    projections.optimizer = Optimizer::zeros(&projections.params).unwrap();
}

/// Tensors before and after PyTorch's five updates, and their settings, losses and norms.
pub fn golden_steps() -> (HashMap<String, Tensor>, Value) {
    let bytes = fs::read(golden_folder().join("states.safetensors")).unwrap();
    let tensors = candle_core::safetensors::load_buffer(&bytes, &CPU).unwrap();
    let text = fs::read(golden_folder().join("states_steps.json")).unwrap();
    (tensors, serde_json::from_slice(&text).unwrap())
}

/// All terms beside the labels, for five updates: losses, norms, and every weight afterwards, that of the projections too.
#[test]
fn five_steps_with_all_terms_are_those_of_pytorch() {
    let (golden, expected) = golden_steps();
    let setting = |key: &str| expected["settings"][key].as_f64().unwrap();
    let (rows, teacher) = (golden_rows(), golden_state().model);
    let vectors = vectors(&teacher, &rows, TextVector::Mean);
    let plan = Plan {
        states: Some(golden_terms()),
        learning_rate: setting("learning_rate"),
        weight_decay: setting("weight_decay"),
        max_grad_norm: setting("max_norm"),
        ..Plan::default_with(SelectBy::Accuracy)
    };
    let shown = Shown { model: Some(&teacher), vectors: Some(&vectors) };
    let guides = Guides { shown, ..Guides::default() };
    let mut state = State::new(student()).unwrap();
    shown.check(&plan, &state.model.config, rows.rows()).unwrap();
    state.project(&plan, &shown).unwrap();
    let shapes: Vec<&str> = state.projections.as_ref().unwrap().params.names().collect();
    assert_eq!(shapes, ["hidden.bias", "hidden.weight", "vector.bias", "vector.weight"]);
    set_projections(&mut state, &golden);
    let all: Vec<u32> = (0..rows.rows() as u32).collect();
    let total = setting("total") as u64;
    for (at, expected) in expected["steps"].as_array().unwrap().iter().enumerate() {
        let report =
            step(&mut state, &plan, &rows, &guides, &[batch(&rows, &all)], total, &CPU).unwrap();
        let check = |what: &str, found: f64| {
            let expected = expected[what].as_f64().unwrap();
            let error = (found - expected).abs() / expected.abs();
            assert!(error < 5e-5, "step {at}, {what}: {found}, expected {expected}");
        };
        check("loss", report.loss_sum / report.n_rows as f64);
        check("norm", report.gradient_norm);
    }
    let projections = &state.projections.as_ref().unwrap().params;
    let mut n_checked = 0;
    for (name, found) in state.model.params.tensors().chain(projections.tensors()) {
        // Of the key's bias softmax knows nothing, but attention scores before it do.
        let expected = &golden[&format!("final.{name}")];
        let worst = distance(&numbers(found), &numbers(expected));
        assert!(worst < 5e-6, "{name}: {worst}");
        n_checked += 1;
    }
    assert_eq!(n_checked, golden.keys().filter(|name| name.starts_with("final.")).count());
}

/// A run on the toy, whose student is the golden model and whose teacher is that model with another head.
fn toy(method: Method) -> Toy {
    Toy::with(|plan| {
        plan.method = method;
        plan.dropout = Some(0.1);
        plan.states = Some(StateTerms { relation_heads: Some(8), ..golden_terms() });
    })
}

fn go(
    toy: &Toy,
    stop: &AtomicBool,
    on: &mut dyn FnMut(Event),
) -> lowchurn_distill::Result<(Outcome, State)> {
    let teacher = golden_state().model;
    let vectors = vectors(&teacher, &toy.train, TextVector::Mean);
    let mut state = crate::toy_state(toy.head_seed);
    let run = Run {
        provenance: &toy.provenance,
        train: &toy.train,
        eval: None,
        guides: Guides {
            shown: Shown { model: Some(&teacher), vectors: Some(&vectors) },
            ..Guides::default()
        },
        dir: &toy.run_dir(),
        tokenizer_from: &toy.dir.path().join("base"),
    };
    let outcome = train(&run, &mut state, stop, on)?;
    Ok((outcome, state))
}

#[test]
fn killed_anywhere_it_ends_in_the_same_bytes() {
    for method in [Method::Retrain, Method::TaskAgnostic] {
        let whole = toy(method);
        go(&whole, &GO, &mut |_| {}).unwrap();
        let expected = whole.released();
        assert!(!expected.contains_key("projections.safetensors"), "{:?}", expected.keys());
        for at in [1, 3, 5] {
            let stopped = toy(method);
            let stop = AtomicBool::new(false);
            let (outcome, _) = go(&stopped, &stop, &mut |event| {
                if matches!(event, Event::Stepped { step, .. } if step == at) {
                    stop.store(true, Ordering::Relaxed);
                }
            })
            .unwrap();
            assert_eq!(outcome, Outcome::Interrupted { step: at });
            let kept = names(&stopped.run_dir().join(format!("checkpoint-{at}")));
            for name in ["projections.safetensors", "projections_optimizer.safetensors"] {
                assert!(kept.iter().any(|kept| kept == name), "{kept:?}");
            }
            go(&stopped, &GO, &mut |_| {}).unwrap();
            assert!(stopped.released() == expected, "stopped after {at}");
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let of = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let toy = toy(Method::Retrain);
        pool.install(|| go(&toy, &GO, &mut |_| {}).unwrap());
        toy.released()
    };
    let one = of(1);
    assert!(of(2) == one && of(3) == one);
}

/// Rows without labels are enough, the loss falls, and what is left is a base for whatever task comes.
#[test]
fn a_task_agnostic_run_leaves_a_base_checkpoint() {
    let mut toy = toy(Method::TaskAgnostic);
    toy.provenance.plan.epochs = 8;
    toy.train.labels = vec![None; toy.train.rows()];
    let mut losses = Vec::new();
    let (outcome, state) = go(&toy, &GO, &mut |event| {
        if let Event::Stepped { report, .. } = event {
            losses.push(report.loss_sum / report.n_rows as f64);
        }
    })
    .unwrap();
    assert!(matches!(outcome, Outcome::Finished(_)));
    let (first, last) =
        (losses[..6].iter().sum::<f64>(), losses[losses.len() - 6..].iter().sum::<f64>());
    assert!(last < 0.7 * first, "{losses:?}");
    let head = Head::FromCheckpoint;
    let error = Classifier::open(&toy.run_dir(), head, &CPU).err().unwrap().to_string();
    assert!(error.contains("this model has no classification head"), "{error}");
    let config: Value =
        serde_json::from_slice(&fs::read(toy.run_dir().join("config.json")).unwrap()).unwrap();
    assert_eq!(config["architectures"][0], "BertModel");
    assert!(config.get("id2label").is_none() && config.get("problem_type").is_none());
    let head = Head::Fresh { labels: vec!["a".into(), "b".into()], normal: &mut || 0.0 };
    let (model, report) = Classifier::open(&toy.run_dir(), head, &CPU).unwrap();
    assert_eq!(report.fresh, ["classifier.bias", "classifier.weight"]);
    let stored =
        lowchurn_models::read_safetensors(&toy.run_dir().join("model.safetensors")).unwrap();
    assert!(stored.contains_key("embeddings.word_embeddings.weight"), "{:?}", stored.keys());
    let name = "bert.embeddings.word_embeddings.weight";
    assert_eq!(
        numbers(model.params.0[name].as_tensor()),
        numbers(state.model.params.0[name].as_tensor())
    );
}

#[test]
fn what_cannot_follow_is_refused() {
    let teacher = golden_state().model;
    let rows = toy_rows(4, 1);
    let vectors = vectors(&teacher, &rows, TextVector::Mean);
    let config = &teacher.config;
    let said =
        |plan: &Plan, shown: Shown| shown.check(plan, config, 4).map_err(|error| error.to_string());
    let base = Plan::default_with(SelectBy::Accuracy);
    let all = Shown { model: Some(&teacher), vectors: Some(&vectors) };
    let plan =
        |method: &str, states| Plan { method: method.parse().unwrap(), states, ..base.clone() };
    assert_eq!(said(&base, Shown::default()), Ok(()));
    let terms = StateTerms { relation_heads: Some(8), ..golden_terms() };
    assert_eq!(said(&plan("task-agnostic", Some(terms)), all), Ok(()));
    assert_eq!(
        said(&plan("task-agnostic", None), all),
        Err("method task-agnostic follows no logits: give a hidden, attention, relation or vector weight".into())
    );
    assert_eq!(
        said(&plan("retrain", Some(terms)), Shown { model: None, ..all }),
        Err("hidden, attention and relation weights need a teacher to ask for its states, and there is none; use lowchurn \
             distil"
            .into())
    );
    assert_eq!(
        said(&plan("retrain", Some(terms)), Shown { vectors: None, ..all }),
        Err("a vector weight needs a teacher's vector of each row; use lowchurn distil".into())
    );
    assert_eq!(
        said(&plan("mixup", Some(terms)), all),
        Err("method mixup changes what a student reads or is, and no states of a teacher belong to that; take distil".into())
    );
}
