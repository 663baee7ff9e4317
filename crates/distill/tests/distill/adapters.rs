//! Adapters: what their factors are led by, where they start, what they are called, and the model that they release.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::AtomicBool;

use candle_core::Tensor;
use lowchurn_data::collate;
use lowchurn_distill::{Event, Grads, Plan, State};
use lowchurn_kernels::backward;
use lowchurn_models::{
    Classifier, Head, Input, Mode, Params, adapter_base, open_adapted, read_params_into,
};

use crate::methods::Lesson;
use crate::trained::{Change, lora, lora_above, loss_and_gradients, loss_of};
use crate::{CPU, Toy, distance, golden_folder, golden_state, numbers, plan, toy_rows, toy_state};

/// Factors with numbers in them, as after some updates.
fn with_factors(change: Change) -> State {
    let mut plan = plan();
    change(&mut plan);
    let mut state = golden_state();
    state.train_parts(&plan).unwrap();
    let mut rng = lowchurn_data::Rng::stream(5, "factors", 0);
    for (_, _, b) in state.trained.factors() {
        let values: Vec<f32> = (0..b.elem_count()).map(|_| 0.1 * rng.normal() as f32).collect();
        b.set(&Tensor::from_vec(values, b.shape(), &CPU).unwrap()).unwrap();
    }
    state.trained.set_matrices().unwrap();
    state
}

/// The model with W + s·B·A made by candle's operations from the factors, so that it leads the gradients.
fn composed(state: &State, base: &Params, scale: f64) -> BTreeMap<String, Tensor> {
    let mut tensors: BTreeMap<String, Tensor> =
        base.tensors().map(|(name, tensor)| (name.to_string(), tensor.detach())).collect();
    for (name, a, b) in state.trained.factors() {
        let product = (b.as_tensor().matmul(a.as_tensor()).unwrap() * scale).unwrap();
        let w = base.0[name].as_detached_tensor();
        tensors.insert(name.into(), (w + product).unwrap());
    }
    tensors
}

#[test]
fn gradients_of_factors_are_those_of_the_composed_graph_and_of_differences() {
    let rows = toy_rows(4, 3);
    for (change, scale) in [(lora as Change, 3.0), (lora_above, 3.0)] {
        let (state, base) = (with_factors(change), golden_state().model.params);
        let (_, mut found) = loss_and_gradients(&state, &rows);
        let mut grads = Grads::default();
        grads.add(&state.trained.reached, &mut found).unwrap();
        state.trained.lead_to_factors(&mut grads).unwrap();
        assert_eq!(
            grads.0.keys().collect::<Vec<_>>(),
            state.trained.moved.0.keys().collect::<Vec<_>>()
        );

        let input = {
            let batch = collate(&rows, &[0, 1, 2, 3], 0);
            Input::new(&batch.tokens, &batch.types, &batch.lengths, batch.width, &CPU).unwrap()
        };
        let loss = || {
            let tensors = composed(&state, &base, scale);
            let logits = state.model.forward_with(&tensors, &input, Mode::Eval).unwrap();
            loss_of(&logits, &rows)
        };
        let mut slow = backward(&loss()).unwrap();
        for (name, a, b) in state.trained.factors() {
            let module = name.strip_suffix(".weight").unwrap();
            for (var, which) in [(a, "A"), (b, "B")] {
                let fast = &grads.0[&format!("{module}.lora_{which}.weight")];
                let fast = numbers(&fast.to_tensor().unwrap());
                let expected = slow.remove(var).unwrap().unwrap().to_tensor().unwrap();
                let expected = numbers(&expected);
                let largest = expected.iter().map(|x| x.abs()).fold(0.0, f32::max);
                assert!(largest > 1e-4, "{name} {which}: {largest}");
                let apart = distance(&fast, &expected) / largest;
                assert!(apart < 1e-5, "{name} {which}: {apart}");

                // Along the gradient itself the loss falls by its squared length.
                let step = 1e-2 / largest;
                let along: Vec<f32> = fast.iter().map(|g| g * step).collect();
                let along = Tensor::from_vec(along, var.shape(), &CPU).unwrap();
                let start = var.as_tensor().copy().unwrap().detach();
                let at = |sign: f64| {
                    var.set(&(&start + (&along * sign).unwrap()).unwrap()).unwrap();
                    f64::from(loss().to_scalar::<f32>().unwrap())
                };
                let slope = (at(1.0) - at(-1.0)) / 2.0;
                var.set(&start).unwrap();
                let expected: f64 = fast.iter().map(|&g| f64::from(g * g * step)).sum();
                assert!(
                    (slope / expected - 1.0).abs() < 0.02,
                    "{name} {which}: {slope} {expected}"
                );
            }
        }
    }
}

/// B is zero and A uniform in ±1/√I, another for each matrix, student and seed; the model starts as its base.
#[test]
fn adapters_start_as_the_base() {
    let start = |seed: u64| {
        let plan = Plan { seed, lora_rank: Some(16), ..plan() };
        let mut state = golden_state().with_peer(golden_state().model).unwrap();
        state.train_parts(&plan).unwrap();
        state
    };
    let (state, other) = (start(1), start(2));
    assert_eq!(
        state.model.params.fingerprint().unwrap(),
        golden_state().model.params.fingerprint().unwrap()
    );
    let peer = state.peer.as_ref().unwrap();
    let mut all = BTreeSet::new();
    for (_, a, b) in
        [&state.trained, &other.trained, &peer.trained].iter().flat_map(|t| t.factors())
    {
        assert!(numbers(b).iter().all(|&x| x == 0.0));
        let a = numbers(a);
        let bound = 1.0 / 32f32.sqrt();
        assert!(a.iter().all(|x| x.abs() <= bound));
        let mean = a.iter().sum::<f32>() / 512.0;
        let variance = a.iter().map(|x| x * x).sum::<f32>() / 512.0;
        // Of the uniform distribution: 0 and bound²/3; five standard errors of 512 draws.
        assert!(mean.abs() < 5.0 * bound / (3.0 * 512f32).sqrt(), "{mean}");
        assert!((variance / (bound * bound / 3.0) - 1.0).abs() < 0.2, "{variance}");
        all.insert(a.iter().map(|x| x.to_bits()).collect::<Vec<u32>>());
    }
    assert_eq!(all.len(), 12, "every one is drawn anew");
}

/// A module's whole name or its end behind a dot.
#[test]
fn targets_are_names_of_modules() {
    let check = |targets: &[&str], expected: usize| {
        let plan = Plan {
            lora_rank: Some(2),
            lora_targets: Some(targets.iter().map(|name| name.to_string()).collect()),
            ..plan()
        };
        let mut state = golden_state();
        state.train_parts(&plan).unwrap();
        assert_eq!(state.trained.factors().count(), expected, "{targets:?}");
    };
    check(&["query"], 2);
    check(&["query", "attention.self.query"], 2);
    check(&["dense"], 6);
    check(&["output.dense"], 4);
    check(&["attention.output.dense"], 2);
    check(&["bert.encoder.layer.1.attention.self.key", "query"], 3);
}

/// The golden weights under a base's folder, as a fresh head leaves them.
fn base_folder(toy: &Toy) {
    let dir = toy.dir.path().join("base");
    for name in ["config.json", "model.safetensors"] {
        fs::copy(golden_folder().join("bert_tiny").join(name), dir.join(name)).unwrap();
    }
}

#[test]
fn an_adapter_on_its_base_is_the_released_model() {
    for change in [lora as Change, lora_above] {
        let toy = Toy::with(change);
        base_folder(&toy);
        let (_, _, state) = toy.finish();
        let (run, base) = (toy.run_dir(), toy.dir.path().join("base"));
        let adapter = run.join("adapter");
        let said = adapter_base(&adapter).unwrap();
        assert_eq!(said.name, base.display().to_string());
        assert_eq!((said.revision, said.sha256), (None, Some("b".repeat(64))));

        let merged = open_adapted(&base, &adapter, &CPU).unwrap();
        assert_eq!(merged.labels(), ["no", "yes"]);
        let head = Head::FromCheckpoint;
        let (released, _) = Classifier::open(&run, head, &CPU).unwrap();
        let print = |params: &Params| params.fingerprint().unwrap();
        assert_eq!(print(&merged.params), print(&released.params));
        assert_eq!(print(&merged.params), print(&state.model.params));
        // A run that doesn't end in its best weights has that one's factors.
        assert!(lowchurn_distill::finished(&run, &toy.provenance).unwrap().is_some());
    }
}

/// The best weights' factors are released, not the last ones.
#[test]
fn the_best_adapter_is_released() {
    let toy = Toy::with(|plan| {
        lora(plan);
        (plan.eval_steps, plan.learning_rate, plan.epochs) = (1, 0.05, 4);
        plan.schedule = lowchurn_distill::Schedule::Constant;
    });
    base_folder(&toy);
    let mut bytes = Vec::new();
    let (outcome, _) = toy.go(&AtomicBool::new(false), &mut |event| {
        if let Event::Saved { step, path } = event {
            bytes.push((step, fs::read(path.join("factors.safetensors")).unwrap()));
        }
    });
    let lowchurn_distill::Outcome::Finished(release) = outcome.unwrap() else { panic!("stopped") };
    assert!(release.step < bytes.last().unwrap().0, "the best is the last; the test shows nothing");
    let best = &bytes.iter().find(|(step, _)| *step == release.step).unwrap().1;
    let (a, b) = (
        safetensors::SafeTensors::deserialize(best).unwrap(),
        fs::read(toy.run_dir().join("adapter/adapter_model.safetensors")).unwrap(),
    );
    let b = safetensors::SafeTensors::deserialize(&b).unwrap();
    for name in a.names() {
        let released = b.tensor(&format!("base_model.model.{name}")).unwrap();
        assert_eq!(a.tensor(name).unwrap().data(), released.data(), "{name}");
    }
    let merged =
        open_adapted(&toy.dir.path().join("base"), &toy.run_dir().join("adapter"), &CPU).unwrap();
    let state = toy_state(1);
    read_params_into(&state.model.params, &toy.run_dir().join("model.safetensors")).unwrap();
    assert_eq!(merged.params.fingerprint().unwrap(), state.model.params.fingerprint().unwrap());
}

/// Half of a checkpoint with adapters is none.
#[test]
fn a_checkpoint_without_its_factors_is_refused() {
    let lesson = Lesson::of("retrain", lora);
    lesson.stop_after(2);
    let path = lesson.toy.run_dir().join("checkpoint-2/factors.safetensors");
    let mend = "remove the folder of this checkpoint to go on from the one before, or from the start where there is none";
    fs::remove_file(path).unwrap();
    let said = lesson.refusal();
    assert_eq!(said, format!("DIR/run/checkpoint-2/factors.safetensors: it is missing; {mend}"));
}
