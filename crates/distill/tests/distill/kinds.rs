//! Sets of labels and numbers through whole runs: what follows a teacher's states beside them, parts of models of every family,
//! kills and threads.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Tensor;
use lowchurn_data::{Encoded, Kind, Rng, Targets};
use lowchurn_distill::{
    Event, Guides, Outcome, Outputs, Plan, Run, SelectBy, Shown, State, StateTerms, Teacher,
    TextVector, step, train,
};
use lowchurn_models::{Classifier, Head, Input, Mode};

use crate::states::{golden_steps, golden_terms, set_projections, student, vectors};
use crate::trained::{families, plain_rows};
use crate::{
    CPU, GO, Toy, batch, copy_folder, distance, golden_folder, golden_rows, golden_state, numbers,
    plan, toy_rows, values,
};

const KINDS: [Kind; 2] = [Kind::MultiLabel, Kind::Regression];

fn labels_of(kind: Kind) -> Vec<String> {
    let names: &[&str] = if kind == Kind::Regression { &["LABEL_0"] } else { &["a", "b", "c"] };
    names.iter().map(|name| name.to_string()).collect()
}

/// Rows with their class as a set that another label may be in too, or that is empty; or as a number.
fn of_kind(mut rows: Encoded, kind: Kind) -> Encoded {
    let class = |row: usize| rows.labels[row].unwrap();
    let set = |row: usize| match row % 4 {
        0 => vec![],
        1 => vec![class(row), 2],
        _ => vec![class(row)],
    };
    let all = 0..rows.rows();
    rows.targets = match kind {
        Kind::SingleLabel => Targets::OneClass,
        Kind::MultiLabel => Targets::Sets(all.map(|row| Some(set(row))).collect()),
        Kind::Regression => {
            rows.labels = vec![Some(0); rows.rows()];
            let value = |row: usize| 0.3 * row as f32 - 1.0;
            Targets::Values(all.map(|row| Some(value(row))).collect())
        }
    };
    rows
}

/// A model of a checkpoint with a new head for this kind.
fn model_of(folder: &std::path::Path, kind: Kind) -> Classifier {
    let mut rng = Rng::stream(7, "head", 0);
    let head = Head::Fresh { labels: labels_of(kind), normal: &mut || 10.0 * rng.normal() };
    let mut model = Classifier::open(folder, head, &CPU).unwrap().0;
    Outputs { kind, thresholds: Vec::new() }.write_kind(&mut model.config);
    model
}

/// As in states.rs, with the teacher's outputs and the labels of this kind in place of classes: losses and norms of five steps.
#[test]
fn five_steps_with_all_terms_are_those_of_pytorch_whatever_the_kind() {
    let (golden, expected) = golden_steps();
    let setting = |key: &str| expected["settings"][key].as_f64().unwrap();
    let model = golden_state().model;
    for kind in KINDS {
        let mut rows = golden_rows();
        let vectors = vectors(&model, &rows, TextVector::Mean);
        let classes: Vec<u32> = rows.labels.iter().map(|label| label.unwrap()).collect();
        let all = golden["teacher.logits"].to_vec2::<f32>().unwrap();
        let (steps, mut student, logits) = match kind {
            Kind::Regression => {
                let value = |class: &u32| Some(*class as f32 + 0.5);
                rows.targets = Targets::Values(classes.iter().map(value).collect());
                rows.labels = vec![Some(0); rows.rows()];
                let one = model_of(&golden_folder().join("bert_student"), kind);
                for name in ["classifier.weight", "classifier.bias"] {
                    let first = student().params.0[name].narrow(0, 0, 1).unwrap();
                    one.params.0[name].set(&first).unwrap();
                }
                ("values", one, all.iter().map(|row| row[0]).collect())
            }
            _ => {
                let others = |class: &u32| Some((0..3).filter(|k| k != class).collect());
                rows.targets = Targets::Sets(classes.iter().map(others).collect());
                ("sets", student(), all.concat())
            }
        };
        Outputs { kind, thresholds: Vec::new() }.write_kind(&mut student.config);
        let method = match kind {
            Kind::Regression => "distil:lambda=0.5", // of numbers there is no temperature
            _ => "distil:lambda=0.5,temperature=2",
        };
        let plan = Plan {
            method: method.parse().unwrap(),
            states: Some(golden_terms()),
            learning_rate: setting("learning_rate"),
            weight_decay: setting("weight_decay"),
            max_grad_norm: setting("max_norm"),
            ..Plan::default_with(SelectBy::Loss)
        };
        assert_eq!((&expected["lambda"], &expected["temperature"]), (&0.5.into(), &2.0.into()));
        let known = vec![true; student.labels().len()];
        let teacher = Teacher { logits, known, said: Vec::new() };
        let shown = Shown { model: Some(&model), vectors: Some(&vectors) };
        let guides = Guides { teacher: Some(&teacher), shown, ..Guides::default() };
        let mut state = State::new(student).unwrap();
        state.project(&plan, &shown).unwrap();
        set_projections(&mut state, &golden);
        let which: Vec<u32> = (0..rows.rows() as u32).collect();
        let total = setting("total") as u64;
        let expected = expected["kinds"][steps].as_array().unwrap();
        assert_eq!(expected.len(), 5);
        for (at, expected) in expected.iter().enumerate() {
            let micro = [batch(&rows, &which)];
            let report = step(&mut state, &plan, &rows, &guides, &micro, total, &CPU).unwrap();
            let check = |what: &str, found: f64| {
                let expected = expected[what].as_f64().unwrap();
                let error = (found - expected).abs() / expected.abs();
                assert!(error < 5e-5, "{steps}, step {at}, {what}: {found}, expected {expected}");
            };
            check("loss", report.loss_sum / report.n_rows as f64);
            check("norm", report.gradient_norm);
        }
    }
}

type Change = fn(&mut Plan);

const PARTS: [(&str, Change); 4] = [
    ("lora", |plan| plan.lora_rank = Some(2)),
    ("biases", |plan| plan.train_only = Some("biases".parse().unwrap())),
    ("frozen", |plan| plan.freeze = "embeddings".parse().unwrap()),
    ("decay", |plan| plan.layer_decay = 0.8),
];

/// Adapters, biases, freezing and decay for every family and kind: what is reached moves, the rest stands still to the bit, and
/// a matrix with an adapter is W + s·B·A.
#[test]
fn parts_of_every_family_for_every_kind() {
    let mut n_refused = 0;
    for kind in KINDS {
        let rows = of_kind(plain_rows(), kind);
        for (name, folder) in families() {
            for (what, change) in PARTS {
                let mut plan = Plan { learning_rate: 1e-2, ..plan() };
                change(&mut plan);
                let mut state = State::new(model_of(&folder, kind)).unwrap();
                let before = values(&state.model.params);
                if let Err(error) = state.train_parts(&plan) {
                    assert!(what == "biases" && name.starts_with("modernbert"), "{name}: {error}");
                    let expected = "train_only is biases, but below the head this model has none; use freeze or lora_rank";
                    assert_eq!(error.to_string(), expected);
                    n_refused += 1;
                    continue;
                }
                for _ in 0..2 {
                    let micro = [batch(&rows, &[0, 1, 2, 3])];
                    step(&mut state, &plan, &rows, &Guides::default(), &micro, 10, &CPU).unwrap();
                }
                let reached = &state.trained.reached.0;
                for (parameter, after) in values(&state.model.params) {
                    let is_same = after == before[&parameter];
                    // Whether a key's bias moves is rounding's to say.
                    let is_key = parameter.contains("k") && parameter.ends_with(".bias");
                    let is_reached = reached.contains_key(&parameter);
                    let where_ = format!("{name}, {what}, {kind:?}: {parameter}");
                    assert!(is_same != is_reached || (is_key && is_reached), "{where_}");
                }
                if what == "lora" {
                    unmerged_is_merged(&state, &before, &plan, &rows, &name);
                }
            }
        }
    }
    assert_eq!(n_refused, 2 * 3); // three checkpoints of ModernBERT
}

/// Logits of the matrices that a run leaves against those of a graph with the factors beside the base.
fn unmerged_is_merged(
    state: &State,
    before: &BTreeMap<String, Vec<f32>>,
    plan: &Plan,
    rows: &Encoded,
    name: &str,
) {
    let params = &state.model.params;
    let mut tensors: BTreeMap<String, Tensor> =
        params.tensors().map(|(name, tensor)| (name.to_string(), tensor.detach())).collect();
    let scale = lowchurn_distill::LORA_ALPHA / plan.lora_rank.unwrap() as f64;
    let (mut n_factors, mut moved) = (0, 0f32);
    for (name, a, b) in state.trained.factors() {
        let base = Tensor::from_vec(before[name].clone(), params.0[name].shape(), &CPU).unwrap();
        let product = (b.as_tensor().matmul(a.as_tensor()).unwrap() * scale).unwrap();
        moved = moved.max(distance(&numbers(&product), &vec![0.0; product.elem_count()]));
        tensors.insert(name.into(), (base + product).unwrap());
        n_factors += 1;
    }
    assert!(n_factors > 0 && moved > 1e-3, "{name}: {n_factors} {moved}");
    let batch = batch(rows, &[0, 1, 2, 3]);
    let input = Input::new(&batch.tokens, &batch.types, &batch.lengths, batch.width, &CPU).unwrap();
    let merged = state.model.forward(&input, Mode::Eval).unwrap();
    let beside = state.model.forward_with(&tensors, &input, Mode::Eval).unwrap();
    let apart = distance(&numbers(&merged), &numbers(&beside));
    assert!(apart < 1e-5, "{name}: {apart}");
}

/// What all of ALBERT's layers share stands at one depth: it learns at one step below the head's rate, the tables at two.
#[test]
fn shared_layers_decay_once() {
    for (name, folder) in families().into_iter().filter(|(name, _)| name.starts_with("albert")) {
        let mut state = State::new(model_of(&folder, Kind::MultiLabel)).unwrap();
        state.train_parts(&Plan { layer_decay: 0.5, ..plan() }).unwrap();
        let mut seen = [0; 3];
        for parameter in state.model.params.names() {
            let (at, expected) = match parameter {
                p if p.contains("albert_layer_groups") => (1, 0.5),
                p if p.contains("embedding") => (2, 0.25),
                _ => (0, 1.0),
            };
            seen[at] += 1;
            assert_eq!(state.trained.rate(parameter), expected, "{name}: {parameter}");
        }
        assert!(seen.iter().all(|n| *n >= 4), "{name}: {seen:?}");
    }
}

/// A run of this kind, with what the plan's change adds.
fn toy(kind: Kind, change: Change) -> Toy {
    let mut toy = Toy::with(|plan| {
        (plan.dropout, plan.eval_steps, plan.save_steps) = (Some(0.1), 3, 2);
        plan.select_by =
            if kind == Kind::Regression { SelectBy::Pearson } else { SelectBy::MacroF1 };
        change(plan);
    });
    toy.train = of_kind(toy_rows(22, 1), kind);
    toy.eval = Some(of_kind(toy_rows(12, 2), kind));
    toy.provenance.labels = labels_of(kind);
    toy
}

fn with_states(plan: &mut Plan) {
    plan.method = "distil:lambda=0.5".parse().unwrap();
    plan.states = Some(StateTerms {
        hidden_weight: 1.0,
        attention_weight: 0.1,
        relation_weight: 1.0,
        vector_weight: 1.0,
        ..StateTerms::default()
    });
}

const RUNS: [(&str, Change); 4] = [
    ("plain", |_| {}),
    ("lora", |plan| plan.lora_rank = Some(2)),
    ("states", with_states),
    ("states of an adapter", |plan| {
        with_states(plan);
        plan.lora_rank = Some(2);
    }),
];

/// One call of `train` on a state made anew; the teacher is the golden model with another head.
fn go(toy: &Toy, kind: Kind, stop: &AtomicBool, on: &mut dyn FnMut(Event)) -> Outcome {
    let folder = golden_folder().join("bert_tiny");
    let shown = golden_state().model;
    let vectors = vectors(&shown, &toy.train, TextVector::Mean);
    let k = labels_of(kind).len();
    let logits = (0..toy.train.rows() * k).map(|at| (at % 5) as f32 - 2.0).collect();
    let teacher = Teacher { logits, known: vec![true; k], said: Vec::new() };
    let follows = toy.provenance.plan.states.is_some();
    let guides = Guides {
        teacher: follows.then_some(&teacher),
        shown: match follows {
            true => Shown { model: Some(&shown), vectors: Some(&vectors) },
            false => Shown::default(),
        },
        ..Guides::default()
    };
    let run = Run {
        provenance: &toy.provenance,
        train: &toy.train,
        eval: toy.eval.as_ref(),
        guides,
        dir: &toy.run_dir(),
        tokenizer_from: &toy.dir.path().join("base"),
    };
    let mut state = State::new(model_of(&folder, kind)).unwrap();
    train(&run, &mut state, stop, on).unwrap()
}

/// Without the config of an adapter, which names the folder that its base lies in, and the manifest with its hash.
fn released(toy: &Toy) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for name in crate::names(&toy.run_dir()) {
        let path = toy.run_dir().join(&name);
        match path.is_dir() {
            true => {
                let factors = path.join("adapter_model.safetensors");
                files.insert(name, fs::read(factors).unwrap());
            }
            false => drop(files.insert(name.clone(), fs::read(path).unwrap())),
        }
    }
    if files.contains_key("adapter") {
        files.remove("manifest.json").unwrap();
    }
    assert!(files.contains_key("model.safetensors"));
    files
}

#[test]
fn killed_anywhere_it_ends_in_the_same_bytes_of_every_kind() {
    for kind in KINDS {
        for (what, change) in RUNS {
            let straight = toy(kind, change);
            let copies = tempfile::tempdir().unwrap();
            let mut n_copies = 0;
            let outcome = go(&straight, kind, &GO, &mut |event| {
                if matches!(event, Event::Saved { .. }) {
                    let to = copies.path().join(n_copies.to_string());
                    copy_folder(&straight.run_dir(), &to);
                    n_copies += 1;
                }
            });
            let expected = released(&straight);
            assert!(n_copies >= 3, "{n_copies}");
            for copy in 0..n_copies {
                let killed = toy(kind, change);
                copy_folder(&copies.path().join(copy.to_string()), &killed.run_dir());
                let mut is_resumed = false;
                let found = go(&killed, kind, &GO, &mut |event| {
                    is_resumed |= matches!(event, Event::Resumed { .. });
                });
                assert!(is_resumed && found == outcome, "{kind:?}, {what}");
                assert!(released(&killed) == expected, "{kind:?}, {what} from copy {copy}");
            }
            // Asked to stop, it saves, and the same call goes on.
            let stopped = toy(kind, change);
            let stop = AtomicBool::new(false);
            let outcome = go(&stopped, kind, &stop, &mut |event| {
                if matches!(event, Event::Stepped { step: 3, .. }) {
                    stop.store(true, Ordering::Relaxed);
                }
            });
            assert_eq!(outcome, Outcome::Interrupted { step: 3 });
            go(&stopped, kind, &GO, &mut |_| {});
            assert!(released(&stopped) == expected, "{kind:?}, {what}");
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bytes_of_every_kind() {
    for kind in KINDS {
        for (what, change) in RUNS {
            let of = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let toy = toy(kind, change);
                pool.install(|| go(&toy, kind, &GO, &mut |_| {}));
                released(&toy)
            };
            let one = of(1);
            for threads in [2, 3] {
                assert!(of(threads) == one, "{kind:?}, {what}: {threads} threads");
            }
        }
    }
}
