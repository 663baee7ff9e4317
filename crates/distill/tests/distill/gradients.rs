//! One update: who gets a gradient, what padding, accumulation and threads must not change, and what stops it.

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};
use lowchurn_data::{BatchSize, Encoded, collate};
use lowchurn_distill::{
    Error, Grads, Guides, Plan, State, cross_entropy_rows, one_hot, step, step_deferring,
};
use lowchurn_kernels::{Gradient, Keys};
use lowchurn_models::{Input, Mode, Params};
use proptest::prelude::*;

use crate::{CPU, batch, distance, encoded, golden_state, numbers, plan, toy_rows, values};

/// Logits and the gradients of the summed loss.
fn backward(state: &State, rows: &Encoded, which: &[u32], extra_width: usize) -> (Vec<f32>, Grads) {
    let mut batch = collate(rows, which, 0);
    if extra_width > 0 {
        // The same rows in a batch that is wider than the widest of them, with another id in the padding.
        let width = batch.width + extra_width;
        let widen = |old: &[u32], fill: u32| -> Vec<u32> {
            let rows = old.chunks(batch.width);
            rows.flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(fill, extra_width)))
                .collect()
        };
        (batch.tokens, batch.types, batch.width) =
            (widen(&batch.tokens, 57), widen(&batch.types, 1), width);
    }
    let input = Input::new(&batch.tokens, &batch.types, &batch.lengths, batch.width, &CPU).unwrap();
    let mut keys = Keys::new(1);
    let logits = state.model.forward(&input, Mode::Train(&mut keys)).unwrap();
    let labels: Vec<u32> = which.iter().map(|&row| rows.labels[row as usize].unwrap()).collect();
    let targets = one_hot(&labels, logits.dim(1).unwrap(), 0.0, &CPU).unwrap();
    let loss = cross_entropy_rows(&logits, &targets).unwrap().sum_all().unwrap();
    let mut grads = Grads::default();
    grads.add(&state.model.params, &mut lowchurn_kernels::backward(&loss).unwrap()).unwrap();
    (numbers(&logits), grads)
}

fn gradients(grads: &Grads) -> BTreeMap<String, Vec<f32>> {
    grads.0.iter().map(|(name, grad)| (name.clone(), numbers(&grad.to_tensor().unwrap()))).collect()
}

/// Largest difference relative to the largest number of each tensor; key biases, which are rounding noise, absolutely.
fn apart(a: &Grads, b: &Grads) -> f32 {
    let (a, b) = (gradients(a), gradients(b));
    assert!(a.keys().eq(b.keys()));
    let mut worst = 0f32;
    for (name, a) in &a {
        let largest = a.iter().map(|x| x.abs()).fold(0.0, f32::max);
        let scale = if name.ends_with("key.bias") { 1.0 } else { largest };
        worst = worst.max(distance(a, &b[name]) / scale);
    }
    worst
}

/// With the reason: no parameter but these may stand still.
const MAY_STAND: [(&str, &str); 1] =
    [("attention.self.key.bias", "a constant added to all keys cancels in softmax")];

#[test]
fn every_parameter_gets_a_gradient_and_moves() {
    let rows = toy_rows(8, 3);
    let mut state = golden_state();
    let (_, grads) = backward(&state, &rows, &[0, 1, 2, 3], 0);
    let all: Vec<&str> = state.model.params.names().collect();
    assert_eq!(grads.0.keys().collect::<Vec<_>>(), all);
    assert_eq!(grads.missing(&state.model.params).unwrap(), Vec::<String>::new());

    let before = values(&state.model.params);
    let plan = Plan { weight_decay: 0.0, ..plan() };
    step(&mut state, &plan, &rows, &Guides::default(), &[batch(&rows, &[0, 1, 2, 3])], 10, &CPU)
        .unwrap();
    for (name, after) in values(&state.model.params) {
        if MAY_STAND.iter().any(|(suffix, _)| name.ends_with(suffix)) {
            continue;
        }
        assert!(distance(&before[&name], &after) > 0.0, "{name} did not move");
    }
}

#[test]
fn what_training_cannot_reach_stops_it() {
    let rows = toy_rows(4, 3);
    let check = |replaced: &[&str]| {
        let mut state = golden_state();
        for &name in replaced {
            let var = Var::from_tensor(&state.model.params.0[name].copy().unwrap()).unwrap();
            state.model.params.0.insert(name.into(), var);
        }
        let before = state.model.params.fingerprint().unwrap();
        let result = step(
            &mut state,
            &plan(),
            &rows,
            &Guides::default(),
            &[batch(&rows, &[0, 1])],
            10,
            &CPU,
        );
        assert!(matches!(&result, Err(Error::NoGradient { names }) if names == replaced));
        assert_eq!((state.step, state.model.params.fingerprint().unwrap()), (0, before));
        result.unwrap_err().to_string()
    };
    assert_eq!(
        check(&["bert.pooler.dense.weight"]),
        "no gradient reaches bert.pooler.dense.weight; training would leave it as it is without a word"
    );
    check(&["bert.encoder.layer.1.attention.output.LayerNorm.weight", "classifier.bias"]);
}

/// Zeros in one parameter are a fault, zeros in all are a model that is sure of its rows.
#[test]
fn zeros_are_missing_only_beside_others() {
    let var = |n: usize| Var::zeros(n, candle_core::DType::F32, &CPU).unwrap();
    let key_biases =
        ["x.attention.self.key.bias", "x.k_lin.bias", "x.attn.k.bias", "x.attention.key.bias"];
    let names = ["a", "b", "c"].into_iter().chain(key_biases);
    let params = Params(names.map(|name| (name.to_string(), var(2))).collect());
    let check = |grads: &[(&str, [f32; 2])], missing: &[&str]| {
        let tensor = |&(name, values): &(&str, [f32; 2])| {
            (name.to_string(), Gradient::Whole(Tensor::new(&values, &CPU).unwrap()))
        };
        let grads = Grads(grads.iter().map(tensor).collect());
        assert_eq!(grads.missing(&params).unwrap(), missing);
        let absent: Vec<&str> =
            ["a", "b", "c"].into_iter().filter(|name| !grads.0.contains_key(*name)).collect();
        assert_eq!(grads.absent(&params), absent);
    };
    let some = [0.0, -1.0];
    check(&[("a", some), ("b", some), ("c", some)], &[]);
    check(&[("a", some), ("c", some)], &["b"]);
    check(&[("a", some), ("b", [0.0; 2])], &["b", "c"]);
    check(&[("a", some), ("b", [1e-30, 0.0]), ("c", some)], &[]);
    check(&[("a", [0.0; 2]), ("b", [0.0; 2]), ("c", [0.0; 2])], &[]);
    check(&[("a", [0.0; 2]), ("b", [0.0; 2])], &["c"]);
    check(&[], &["a", "b", "c"]);
    // DeBERTa's have a gradient whatever its terms are, and without the positions' queries nothing but rounding in it.
    let names = ["a", "x.attention.self.key_proj.bias", "deberta.encoder.LayerNorm.bias"];
    let params = Params(names.map(|name| (name.to_string(), var(2))).into());
    let missing = |constants: Option<[f32; 2]>| {
        let of = |name: &str| if name == "a" { Some(some) } else { constants };
        let tensor = |name: &str| {
            let values = of(name)?;
            Some((name.to_string(), Gradient::Whole(Tensor::new(&values, &CPU).unwrap())))
        };
        Grads(names.iter().filter_map(|name| tensor(name)).collect()).missing(&params).unwrap()
    };
    assert_eq!(missing(Some([0.0; 2])), Vec::<String>::new());
    assert_eq!(missing(None), [names[2], names[1]]);
}

#[test]
fn padding_changes_neither_logits_nor_gradients() {
    let state = golden_state();
    let rows = toy_rows(6, 5);
    let order = lowchurn_data::eval_order(&rows.lengths(), 6).concat();
    let (logits, grads) = backward(&state, &rows, &order, 0);
    // Alone, each row has no padding at all, and the gradient of a sum is the sum of the gradients.
    let (mut alone, mut sum) = (Vec::new(), Grads::default());
    for &row in &order {
        let (logits, own) = backward(&state, &rows, &[row], 0);
        alone.extend(logits);
        for (name, grad) in own.0 {
            let grad = match sum.0.remove(&name) {
                Some(sum) => sum.plus(grad).unwrap(),
                None => grad,
            };
            sum.0.insert(name, grad);
        }
    }
    assert!(distance(&logits, &alone) < 1e-5, "{}", distance(&logits, &alone));
    assert!(apart(&grads, &sum) < 1e-5, "{}", apart(&grads, &sum));

    let (wider, wider_grads) = backward(&state, &rows, &order[3..], 2);
    let (narrow, narrow_grads) = backward(&state, &rows, &order[3..], 0);
    assert!(distance(&narrow, &wider) < 1e-5, "{}", distance(&narrow, &wider));
    assert!(apart(&narrow_grads, &wider_grads) < 1e-5);
}

#[test]
fn two_micro_batches_are_one_batch() {
    let rows = toy_rows(4, 6);
    // With so large an ε an update is close to proportional to its gradient; with 1e-8 it is little but its sign, and the
    // rounding of a tiny gradient would show as much as a large one.
    let plan = Plan { max_grad_norm: 0.0, epsilon: 0.1, ..plan() };
    let run = |micro: &[&[u32]]| {
        let mut state = golden_state();
        let micro: Vec<_> = micro.iter().map(|which| batch(&rows, which)).collect();
        let report = step(&mut state, &plan, &rows, &Guides::default(), &micro, 10, &CPU).unwrap();
        (report, state)
    };
    let (whole, whole_state) = run(&[&[0, 1, 2, 3]]);
    for micro in [&[&[0u32, 1][..], &[2, 3]][..], &[&[0, 1, 2], &[3]]] {
        let (parts, parts_state) = run(micro);
        assert_eq!((parts.n_rows, parts.n_tokens), (whole.n_rows, whole.n_tokens));
        assert_eq!(parts.n_correct, whole.n_correct);
        assert!((parts.loss_sum / whole.loss_sum - 1.0).abs() < 1e-6);
        assert!((parts.gradient_norm / whole.gradient_norm - 1.0).abs() < 1e-5);
        let (a, b) = (values(&whole_state.model.params), values(&parts_state.model.params));
        for (name, a) in &a {
            assert!(distance(a, &b[name]) < 2e-7, "{name}: {}", distance(a, &b[name]));
        }
    }
}

/// A batch of one row moves the weights as that row alone would, whatever the batch size of the plan is.
#[test]
fn a_short_batch_is_divided_by_its_own_rows() {
    let rows = toy_rows(4, 6);
    let norm = |which: &[u32]| {
        let mut state = golden_state();
        let plan = Plan { batch_size: BatchSize::Rows(32), accumulation: 8, ..plan() };
        let report =
            step(&mut state, &plan, &rows, &Guides::default(), &[batch(&rows, which)], 10, &CPU)
                .unwrap();
        (report.gradient_norm, report.n_rows)
    };
    let state = golden_state();
    for which in [&[2u32][..], &[0, 1, 2]] {
        let expected = backward(&state, &rows, which, 0).1.norm().unwrap() / which.len() as f64;
        let (found, n) = norm(which);
        assert!((found / expected - 1.0).abs() < 1e-5, "{found} {expected}");
        assert_eq!(n, which.len() as u64);
    }
}

/// What `step` does at once and what is put off until it is needed, by a later batch or at the end, are the same bytes.
#[test]
fn words_that_wait_end_in_the_same_bytes() {
    let rows = toy_rows(12, 4);
    for weight_decay in [0.0, 0.1] {
        let plan = Plan { weight_decay, ..plan() };
        let run = |is_deferring: bool| {
            let mut state = golden_state();
            for at in 0..10 {
                let micro = [batch(&rows, &[at % 12, at * 5 % 12]), batch(&rows, &[at * 7 % 12])];
                let step = if is_deferring { step_deferring } else { step };
                step(&mut state, &plan, &rows, &Guides::default(), &micro, 10, &CPU).unwrap();
            }
            state
        };
        let (at_once, mut deferred) = (run(false), run(true));
        let print = |state: &State| state.model.params.fingerprint().unwrap();
        assert_ne!(print(&deferred), print(&at_once), "nothing was put off");
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = deferred.optimizer.save(file.path(), &deferred.model.params);
        let said = refused.unwrap_err().to_string();
        let expected = "bert.embeddings.word_embeddings.weight has rows that miss updates; settle before saving";
        assert!(said.contains(expected), "{said}");
        let unknown = encoded(&[(vec![2, 100, 3], Some(0))]);
        let micro = [batch(&unknown, &[0])];
        let refused =
            step_deferring(&mut deferred, &plan, &unknown, &Guides::default(), &micro, 10, &CPU);
        let said = refused.unwrap_err().to_string();
        assert!(said.contains("vocabulary"), "{said}");
        assert_eq!(deferred.settled().unwrap().params.fingerprint().unwrap(), print(&at_once));
        let saved = |state: &State| {
            state.optimizer.save(file.path(), &state.model.params).unwrap();
            std::fs::read(file.path()).unwrap()
        };
        assert!(saved(&deferred) == saved(&at_once), "moments");
    }
}

#[test]
fn gradients_are_the_same_bytes_every_time() {
    let rows = toy_rows(6, 8);
    let all = [0, 1, 2, 3, 4, 5];
    let once = || gradients(&backward(&golden_state(), &rows, &all, 0).1);
    let bits = |grads: BTreeMap<String, Vec<f32>>| -> Vec<u32> {
        grads.into_values().flatten().map(f32::to_bits).collect()
    };
    let first = bits(once());
    assert!((0..5).all(|_| bits(once()) == first));
}

/// Not-a-number in any parameter. (Infinity can hide: tanh makes a 1 of an infinite pooler bias.)
#[test]
fn a_poisoned_weight_stops_the_run_before_it_spreads() {
    let rows = toy_rows(8, 9);
    for name in golden_state().model.params.names() {
        let mut state = golden_state();
        step(&mut state, &plan(), &rows, &Guides::default(), &[batch(&rows, &[0, 1])], 10, &CPU)
            .unwrap();
        let var = &state.model.params.0[name];
        let mut values = numbers(var);
        // A row of the word embeddings that is in the batch: the first token is always 2.
        let at = if name.ends_with("word_embeddings.weight") { 2 * 32 } else { 0 };
        values[at] = f32::NAN;
        var.set(&Tensor::from_vec(values, var.shape(), &CPU).unwrap()).unwrap();
        let before = state.model.params.fingerprint().unwrap();
        let result = step(
            &mut state,
            &plan(),
            &rows,
            &Guides::default(),
            &[batch(&rows, &[2, 3])],
            10,
            &CPU,
        );
        assert!(matches!(result, Err(Error::NotFinite { step: 2, .. })), "{name}: {result:?}");
        assert_eq!(state.model.params.fingerprint().unwrap(), before, "{name}");
    }
}

/// At a rate of next to nothing only the masks can change the loss.
#[test]
fn each_update_and_seed_drops_other_elements() {
    let rows = toy_rows(4, 3);
    let mut losses = Vec::new();
    for seed in [1, 2] {
        let mut state = golden_state();
        state.model.config.hidden_dropout = 0.5;
        let plan = Plan { learning_rate: 1e-30, seed, ..plan() };
        for _ in 0..3 {
            let micro = [batch(&rows, &[0, 1]), batch(&rows, &[0, 1])];
            losses.push(
                step(&mut state, &plan, &rows, &Guides::default(), &micro, 10, &CPU)
                    .unwrap()
                    .loss_sum,
            );
            let alone = step(&mut state, &plan, &rows, &Guides::default(), &micro[..1], 10, &CPU)
                .unwrap()
                .loss_sum;
            losses.push(2.0 * alone);
        }
    }
    let bits: std::collections::BTreeSet<u64> = losses.iter().map(|loss| loss.to_bits()).collect();
    assert_eq!(bits.len(), losses.len(), "{losses:?}");
}

#[test]
fn label_smoothing_reaches_the_loss() {
    let rows = toy_rows(4, 3);
    let which = [0, 1, 2];
    let (logits, _) = backward(&golden_state(), &rows, &which, 0);
    let logits = Tensor::from_vec(logits, (3, 3), &CPU).unwrap();
    let labels = which.map(|row: u32| rows.labels[row as usize].unwrap());
    for smoothing in [0.0, 0.3] {
        let targets = one_hot(&labels, 3, smoothing, &CPU).unwrap();
        let expected = cross_entropy_rows(&logits, &targets).unwrap().sum_all().unwrap();
        let plan = Plan { label_smoothing: smoothing, ..plan() };
        let batch = [batch(&rows, &which)];
        let found = step(&mut golden_state(), &plan, &rows, &Guides::default(), &batch, 10, &CPU)
            .unwrap()
            .loss_sum;
        let expected = f64::from(expected.to_scalar::<f32>().unwrap());
        assert!((found - expected).abs() < 1e-5, "{smoothing}: {found} {expected}");
    }
}

#[test]
fn a_label_that_the_model_lacks_is_refused() {
    let check = |label: Option<u32>, message: &str| {
        let rows = encoded(&[(vec![2, 10, 3], Some(0)), (vec![2, 11, 3], label)]);
        let mut state = golden_state();
        let result = step(
            &mut state,
            &plan(),
            &rows,
            &Guides::default(),
            &[batch(&rows, &[0, 1])],
            10,
            &CPU,
        );
        assert_eq!(result.unwrap_err().to_string(), message);
    };
    check(Some(3), "row 1: label 3, but the model has 3 classes");
    check(None, "row row-1 has no label, and training needs one; leave unlabelled rows out");
}

#[test]
fn clip_factors() {
    let check = |norm: f64, max: f64, factor: f64| {
        assert_eq!(lowchurn_distill::clip_factor(norm, max), factor, "{norm} {max}");
    };
    check(0.0, 1.0, 1.0);
    check(0.5, 1.0, 1.0);
    check(1.0, 1.0, 1.0 / (1.0 + 1e-6));
    check(4.0, 1.0, 1.0 / (4.0 + 1e-6));
    check(4.0, 2.0, 2.0 / (4.0 + 1e-6));
    check(1e30, 0.0, 1.0);
}

proptest! {
    #[test]
    fn a_clipped_norm_is_within_the_limit(norm in 0.0..1e12f64, max in 1e-6..1e3f64) {
        let factor = lowchurn_distill::clip_factor(norm, max);
        prop_assert!(factor > 0.0 && factor <= 1.0);
        prop_assert!(norm * factor <= max * (1.0 + 1e-15));
        prop_assert!(norm >= max - 1e-6 || factor == 1.0);
    }
}
