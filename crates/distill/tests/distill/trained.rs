//! Parts of a model: what stands still, what moves as PyTorch moves it, and what is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use candle_core::Tensor;
use lowchurn_data::{Encoded, collate};
use lowchurn_distill::{
    Event, Guides, Plan, SelectBy, State, cross_entropy_rows, one_hot, step, step_deferring,
};
use lowchurn_kernels::{Keys, backward};
use lowchurn_models::{Classifier, Head, Input, Mode};
use tempfile::TempDir;

use crate::methods::Lesson;
use crate::resume::wide;
use crate::{
    CPU, Toy, batch, copy_folder, distance, golden_folder, golden_rows, golden_state, numbers,
    plan, toy_rows, toy_state, values,
};

fn frozen(plan: &mut Plan) {
    plan.freeze = "embeddings,layers:1".parse().unwrap();
}

fn biases(plan: &mut Plan) {
    plan.train_only = Some("biases".parse().unwrap());
}

pub fn lora(plan: &mut Plan) {
    (plan.lora_rank, plan.lora_alpha) = (Some(2), Some(6.0));
}

pub fn lora_above(plan: &mut Plan) {
    lora(plan);
    frozen(plan);
    plan.lora_targets = Some(vec!["key".into(), "intermediate.dense".into()]);
}

fn decayed(plan: &mut Plan) {
    plan.layer_decay = 0.8;
}

pub type Change = fn(&mut Plan);

const PARTS: [(&str, Change); 5] = [
    ("frozen", frozen),
    ("biases", biases),
    ("lora", lora),
    ("lora above", lora_above),
    ("decay", decayed),
];

fn golden(name: &str) -> std::collections::HashMap<String, Tensor> {
    candle_core::safetensors::load(golden_folder().join(name), &CPU).unwrap()
}

/// Of loss and gradient norm, relative, and of a weight after ten updates of at most 1e-3 each; as for the whole model.
const TOLERANCE: f64 = 5e-5;
const WEIGHT_TOLERANCE: f32 = 3e-6;

#[test]
fn ten_steps_of_parts_are_those_of_pytorch() {
    let (expected, rows) = (golden("trained.safetensors"), golden_rows());
    let all: Vec<u32> = (0..rows.rows() as u32).collect();
    for (what, change) in
        [("lora", lora as Change), ("decay", decayed), ("biases", biases), ("frozen", frozen)]
    {
        let mut plan = Plan {
            learning_rate: 1e-3,
            weight_decay: 0.01,
            ..Plan::default_with(SelectBy::Accuracy)
        };
        change(&mut plan);
        let mut state = golden_state();
        state.train_parts(&plan).unwrap();
        let find = |start: &str| {
            let start = format!("{what}.{start}.");
            let found = expected.iter().filter_map(move |(name, tensor)| {
                Some((name.strip_prefix(&start)?.to_string(), tensor))
            });
            found.collect::<BTreeMap<String, &Tensor>>()
        };
        for (name, start) in find("start") {
            state.trained.moved.0[&name].set(start).unwrap();
        }
        let (losses, norms) = (
            expected[&format!("{what}.losses")].to_vec1::<f64>().unwrap(),
            expected[&format!("{what}.norms")].to_vec1::<f64>().unwrap(),
        );
        for (at, (loss, norm)) in losses.iter().zip(norms).enumerate() {
            let micro = [batch(&rows, &all)];
            let report =
                step(&mut state, &plan, &rows, &Guides::default(), &micro, 10, &CPU).unwrap();
            let mean = report.loss_sum / report.n_rows as f64;
            assert!((mean / loss - 1.0).abs() < TOLERANCE, "{what} {at}: {mean} {loss}");
            let found = report.gradient_norm;
            assert!((found / norm - 1.0).abs() < TOLERANCE, "{what} {at}: {found} {norm}");
        }
        let last = find("final");
        assert!(last.len() >= 7, "{what}: {}", last.len());
        for (name, expected) in last {
            let found = match state.trained.moved.0.get(&name) {
                Some(var) => numbers(var),
                None => numbers(&state.model.params.0[&name]),
            };
            let apart = distance(&found, &numbers(expected));
            assert!(apart < WEIGHT_TOLERANCE, "{what}, {name}: {apart}");
        }
    }
}

/// Still to the byte, without gradient and without moments; everything else has both, and moves.
#[test]
fn what_stands_still_is_as_it_was_and_the_rest_moves() {
    let check = |change: Change, moves: &dyn Fn(&str) -> bool| {
        let toy = Toy::with(|plan| {
            change(plan);
            (plan.weight_decay, plan.max_steps) = (0.1, Some(3));
        });
        let before = values(&toy_state(toy.head_seed).model.params);
        let (_, _, state) = toy.finish();
        for (name, after) in values(&state.model.params) {
            let is_same =
                after.iter().map(|x| x.to_bits()).eq(before[&name].iter().map(|x| x.to_bits()));
            let is_key = name.ends_with("attention.self.key.bias");
            assert!(is_same != moves(&name) || (is_key && moves(&name)), "{name}");
        }
        let moments: BTreeSet<&String> = state.optimizer.moments.keys().collect();
        assert_eq!(moments, state.trained.moved.0.keys().collect());

        let rows = toy_rows(4, 3);
        let (_, mut found) = loss_and_gradients(&state, &rows);
        for (name, var) in &state.model.params.0 {
            assert_eq!(found.remove(var).unwrap().is_some(), moves(name), "{name}");
        }
    };
    let is_head = |name: &str| name.starts_with("classifier.") || name.starts_with("bert.pooler.");
    let is_above = |name: &str| is_head(name) || name.starts_with("bert.encoder.layer.1.");
    check(frozen, &is_above);
    check(biases, &|name| is_head(name) || name.ends_with(".bias"));
    check(lora, &|name| {
        is_head(name) || name.ends_with(".query.weight") || name.ends_with(".value.weight")
    });
    check(lora_above, &|name| {
        let is_target =
            name.ends_with(".key.weight") || name.ends_with("intermediate.dense.weight");
        is_head(name) || (is_above(name) && is_target)
    });
    check(|plan| plan.freeze = "head,layers:2".parse().unwrap(), &|name| {
        name.starts_with("bert.embeddings.")
    });
    check(decayed, &|_| true);
}

pub fn loss_and_gradients(state: &State, rows: &Encoded) -> (Tensor, lowchurn_kernels::Gradients) {
    let which: Vec<u32> = (0..rows.rows() as u32).collect();
    let batch = collate(rows, &which, 0);
    let input = Input::new(&batch.tokens, &batch.types, &batch.lengths, batch.width, &CPU).unwrap();
    let logits = state.model.forward(&input, Mode::Train(&mut Keys::new(1))).unwrap();
    let loss = loss_of(&logits, rows);
    let found = backward(&loss).unwrap();
    (loss, found)
}

pub fn loss_of(logits: &Tensor, rows: &Encoded) -> Tensor {
    let labels: Vec<u32> = rows.labels.iter().map(|label| label.unwrap()).collect();
    let targets = one_hot(&labels, logits.dim(1).unwrap(), 0.0, &CPU).unwrap();
    cross_entropy_rows(logits, &targets).unwrap().sum_all().unwrap()
}

/// A table of words that stands still waits for nothing, and a batch may hold any of its words.
#[test]
fn frozen_words_have_nothing_to_catch_up() {
    let rows = toy_rows(12, 4);
    let plan = Plan { freeze: "embeddings".parse().unwrap(), weight_decay: 0.1, ..plan() };
    let run = |is_deferring: bool| {
        let mut state = golden_state();
        state.train_parts(&plan).unwrap();
        for at in 0..6 {
            let step = if is_deferring { step_deferring } else { step };
            let micro = [batch(&rows, &[at, at + 6])];
            step(&mut state, &plan, &rows, &Guides::default(), &micro, 10, &CPU).unwrap();
        }
        state.model.params.fingerprint().unwrap()
    };
    assert_eq!(run(true), run(false));
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        match entry.path().is_dir() {
            true => all
                .extend(files(&entry.path()).into_iter().map(|(n, b)| (format!("{name}/{n}"), b))),
            false => drop(all.insert(name, fs::read(entry.path()).unwrap())),
        }
    }
    all
}

/// What is left of a run, without the name of the folder that its base lies in and the hash of the file with that name.
fn released(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = files(run);
    if all.remove("adapter/adapter_config.json").is_some() {
        all.remove("manifest.json").unwrap();
    }
    all
}

fn with_saves(plan: &mut Plan) {
    (plan.eval_steps, plan.save_steps, plan.weight_decay) = (3, 2, 0.01);
    plan.dropout = Some(0.1);
}

#[test]
fn killed_anywhere_it_ends_in_the_same_bytes_of_parts() {
    let lessons: Vec<(&str, Change)> = PARTS
        .into_iter()
        .map(|(_, change)| ("retrain", change))
        .chain([
            ("co-distil", lora as Change),
            ("mixout", lora),
            ("ewc", lora_above),
            ("l2-old", frozen),
        ])
        .collect();
    for (method, change) in lessons {
        let make = || {
            Lesson::of(method, |plan| {
                with_saves(plan);
                change(plan);
            })
        };
        let (straight, copies) = (make(), TempDir::new().unwrap());
        let mut n_copies = 0;
        let (outcome, _) = straight.go(&AtomicBool::new(false), &mut |event| {
            if matches!(event, Event::Saved { .. }) {
                copy_folder(&straight.toy.run_dir(), &copies.path().join(n_copies.to_string()));
                n_copies += 1;
            }
        });
        let (outcome, expected) = (outcome.unwrap(), released(&straight.toy.run_dir()));
        assert!(n_copies >= 4, "{n_copies}");
        for copy in 0..n_copies {
            let killed = make();
            copy_folder(&copies.path().join(copy.to_string()), &killed.toy.run_dir());
            let (found, events, _) = killed.finish();
            assert!(matches!(events[0], Event::Resumed { .. }), "{:?}", events[0]);
            assert_eq!(found, outcome);
            assert!(released(&killed.toy.run_dir()) == expected, "{method} from copy {copy}");
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bytes_of_parts() {
    for (what, change) in PARTS {
        let run = || {
            let (mut state, rows) = wide();
            let mut plan = Plan { dropout: Some(0.1), ..plan() };
            change(&mut plan);
            state.train_parts(&plan).unwrap();
            let which: Vec<u32> = (0..rows.rows() as u32).collect();
            for _ in 0..3 {
                let micro = [batch(&rows, &which)];
                step(&mut state, &plan, &rows, &Guides::default(), &micro, 10, &CPU).unwrap();
            }
            let moved = state.trained.moved.fingerprint().unwrap();
            format!("{} {moved}", state.model.params.fingerprint().unwrap())
        };
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(run)
        };
        let one = on(1);
        for threads in [2, 3] {
            assert!(on(threads) == one, "{what}: {threads} threads give other bytes");
        }
    }
}

/// Methods that read all weights act on the matrices that the model uses, and leave what stands still alone.
#[test]
fn pulls_and_mixtures_reach_factors_and_nothing_frozen() {
    let moved_by = |method: &str, change: Change| {
        let lesson = Lesson::of(method, |plan| {
            change(plan);
            plan.learning_rate = 1e-2;
        });
        let before = lesson.state().model.params;
        let (before, (_, _, state)) = (values(&before), lesson.finish());
        let old = lesson.old_weights.as_ref().map(|old| old.params.clone()).unwrap_or_default();
        let mut to_old = 0f32;
        for (name, after) in values(&state.model.params) {
            match state.trained.reached.0.contains_key(&name) {
                false => assert_eq!(after, before[&name], "{method}: {name}"),
                true => to_old += old.get(&name).map_or(0.0, |old| distance(&after, &numbers(old))),
            }
        }
        to_old
    };
    for change in [frozen as Change, lora, lora_above, biases] {
        let weak = moved_by("l2-old:strength=0.001", change);
        let strong = moved_by("l2-old:strength=100", change);
        assert!(strong < weak, "{strong} {weak}");
        moved_by("ewc", change);
        moved_by("mixout:p=0.5", change);
        moved_by("co-distil", change);
    }
}

#[test]
fn what_a_model_does_not_have_is_refused() {
    let check = |change: fn(&mut Plan), message: &str| {
        let toy = Toy::with(change);
        assert_eq!(toy.refusal(), message);
        assert!(!toy.run_dir().exists());
    };
    check(
        |plan| plan.freeze = "layers:3".parse().unwrap(),
        "freeze is layers:3, expected at most layers:2: so many layers of its own has this model",
    );
    check(
        |plan| plan.freeze = "embeddings,layers:2,head".parse().unwrap(),
        "freeze is embeddings,layers:2,head, which is all of the model; leave something to train",
    );
    check(
        |plan| {
            lora(plan);
            plan.lora_targets = Some(vec!["query".into(), "q_proj".into()]);
        },
        "no module of the layers is called \"q_proj\"; there are attention.output.dense, attention.self.key, \
         attention.self.query, attention.self.value, intermediate.dense, output.dense",
    );
    check(
        |plan| plan.lora_rank = Some(33),
        "lora_rank is 33, expected at most 32: bert.encoder.layer.0.attention.self.query.weight is (32, 32)",
    );
    check(
        |plan| {
            lora(plan);
            plan.freeze = "layers:2".parse().unwrap();
        },
        "lora_targets is query,value, and all of these stand in the 2 layers that freeze leaves as they are; freeze fewer \
         layers",
    );
}

/// The golden checkpoints of other families, by their folders' names.
pub fn families() -> Vec<(String, PathBuf)> {
    let folders = fs::read_dir(golden_folder().join("architectures")).unwrap();
    let folders =
        folders.map(|entry| entry.unwrap().path()).chain([golden_folder().join("modernbert_cls")]);
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let mut found: Vec<(String, PathBuf)> =
        folders.filter(|path| path.is_dir()).map(|path| (name(&path), path)).collect();
    found.sort();
    assert!(found.len() >= 8, "{}", found.len());
    found
}

fn family(path: &Path) -> Classifier {
    Classifier::open(path, Head::FromCheckpoint, &CPU).unwrap().0
}

/// Tokens that every family's table has, none of them padding.
pub fn plain_rows() -> Encoded {
    let row = |n: u32| ((0..6 + n).map(|at| 5 + (7 * at + n) % 20).collect(), Some(n % 2));
    crate::encoded(&(0..4).map(row).collect::<Vec<(Vec<u32>, Option<u32>)>>())
}

/// Every family's usual adapters, and its lowest layer frozen: what is not reached stands still, all that is reached moves.
#[test]
fn parts_of_every_family() {
    for change in [lora as Change, frozen] {
        for (name, path) in families() {
            let mut plan = Plan { learning_rate: 1e-2, ..plan() };
            change(&mut plan);
            let mut state = State::new(family(&path)).unwrap();
            state.train_parts(&plan).unwrap();
            let before = values(&state.model.params);
            let rows = plain_rows();
            for _ in 0..2 {
                let micro = [batch(&rows, &[0, 1, 2, 3])];
                step(&mut state, &plan, &rows, &Guides::default(), &micro, 10, &CPU).unwrap();
            }
            let reached = &state.trained.reached.0;
            assert!(
                reached.len() >= 4 && reached.len() < before.len(),
                "{name}: {}",
                reached.len()
            );
            for (parameter, after) in values(&state.model.params) {
                let is_same = after == before[&parameter];
                // Whether a key's bias moves is rounding's to say.
                let is_key = parameter.contains("k") && parameter.ends_with(".bias");
                let is_reached = reached.contains_key(&parameter);
                assert!(is_same != is_reached || (is_key && is_reached), "{name}: {parameter}");
            }
        }
    }
}

#[test]
fn what_a_family_does_not_have_is_refused() {
    let check = |of: &str, change: fn(&mut Plan), expected: &str| {
        let (_, path) = families().into_iter().find(|(name, _)| name == of).unwrap();
        let (mut model, mut plan) = (family(&path), plan());
        change(&mut plan);
        let said = lowchurn_distill::Trained::of(&plan, &mut model, 0).err().unwrap().to_string();
        assert_eq!(said, expected, "{of}");
    };
    check(
        "modernbert_cls",
        biases,
        "train_only is biases, but below the head this model has none; use freeze or lora_rank",
    );
    check(
        "albert",
        |plan| plan.freeze = "layers:2".parse().unwrap(),
        "freeze is layers:2, expected at most layers:1: so many layers of its own has this model",
    );
    check(
        "distilbert",
        |plan| {
            lora(plan);
            plan.lora_targets = Some(vec!["query".into()]);
        },
        "no module of the layers is called \"query\"; there are attention.k_lin, attention.out_lin, attention.q_lin, \
         attention.v_lin, ffn.lin1, ffn.lin2",
    );
    check(
        "modernbert_cls",
        |plan| {
            lora(plan);
            plan.lora_targets = Some(vec!["query".into()]);
        },
        "no module of the layers is called \"query\"; there are attn.Wo, attn.Wqkv, mlp.Wi, mlp.Wo",
    );
}

#[test]
fn another_part_is_another_run() {
    let toy = Toy::with(lora);
    toy.finish();
    let other = Toy { provenance: toy.provenance.clone(), ..Toy::with(lora) };
    let check = |change: fn(&mut Plan), message: &str| {
        let mut other = Toy { provenance: other.provenance.clone(), ..Toy::plain() };
        change(&mut other.provenance.plan);
        let found = lowchurn_distill::finished(&toy.run_dir(), &other.provenance);
        let said = toy.text(found);
        assert!(
            said.starts_with(&format!("DIR/run holds a run with another {message}; ")),
            "{said}"
        );
    };
    check(|plan| plan.lora_rank = Some(4), "lora_rank: 2, now 4");
    check(|plan| plan.lora_alpha = None, "lora_alpha: 6.0, now not set");
    check(frozen, "freeze: not set, now \"embeddings,layers:1\"");
    check(decayed, "layer_decay: not set, now 0.8");
}

#[test]
fn names_that_the_model_lacks_are_no_part_of_it() {
    let mut model = golden_state().model;
    let said = model.train_only(&BTreeSet::from(["bert.x".to_string()])).unwrap_err().to_string();
    assert_eq!(said, "the parameters lack \"bert.x\", which the model needs");
}

#[test]
fn rates_fall_from_the_top() {
    let mut state = golden_state();
    state.train_parts(&Plan { layer_decay: 0.5, ..plan() }).unwrap();
    let check = |name: &str, rate: f64| assert_eq!(state.trained.rate(name), rate, "{name}");
    check("classifier.weight", 1.0);
    check("bert.pooler.dense.bias", 1.0);
    check("bert.encoder.layer.1.output.dense.weight", 0.5);
    check("bert.encoder.layer.0.attention.self.key.bias", 0.25);
    check("bert.embeddings.word_embeddings.weight", 0.125);
    let mut state = golden_state();
    state.train_parts(&Plan { layer_decay: 0.5, lora_rank: Some(2), ..plan() }).unwrap();
    let name = "bert.encoder.layer.0.attention.self.query.lora_A.weight";
    assert!(state.trained.moved.0.contains_key(name));
    assert_eq!(state.trained.rate(name), 0.25);
}
