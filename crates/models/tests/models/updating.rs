//! What updating a model needs of the network: mixed rows, pooled vectors, heads that grow, and other tensors in its place.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Tensor};
use lowchurn_kernels::{Keys, backward};
use lowchurn_models::{Classifier, Head, Input, Mix, Mode, save};
use proptest::prelude::*;
use serde_json::Value;
use tempfile::TempDir;

use crate::{CPU, Checkpoint, distance, golden, input, message, numbers};

const ROWS: [&[u32]; 3] = [&[2, 17, 45, 99, 3], &[2, 3], &[2, 8, 8, 60, 61, 62, 63, 3]];

#[test]
fn mixed_rows_are_those_of_pytorch() {
    let (batch, expected) = (load("bert_tiny"), load("updating"));
    let model = tiny_model();
    let logits = model.forward(&mixed(&batch, &expected), Mode::Train(&mut Keys::new(1))).unwrap();
    let apart = distance(&logits, &expected["mix.logits"]);
    assert!(apart < 1e-5, "{apart}");

    let loss = candle_nn::loss::cross_entropy(&logits, &batch["labels"]).unwrap();
    let mut grads = backward(&loss).unwrap();
    let mut n_checked = 0;
    for (name, expected) in &expected {
        let Some(name) = name.strip_prefix("mix.grad.") else { continue };
        let found = grads.remove(&model.params.0[name]).unwrap().unwrap().to_tensor().unwrap();
        let largest = numbers(expected).into_iter().map(f32::abs).fold(0.0, f32::max);
        let apart = distance(&found, expected);
        assert!(apart / largest < 1e-4, "{name}: {apart} of {largest}");
        n_checked += 1;
    }
    assert_eq!(n_checked, 5);
}

#[test]
fn pooled_vectors_are_those_of_pytorch_and_lead_to_the_logits() {
    let model = tiny_model();
    let batch = plain(&load("bert_tiny"));
    let (logits, pooled) = model.pooled(&batch).unwrap();
    assert!(distance(&pooled, &load("updating")["pooled"]) < 1e-5);
    assert_eq!(numbers(&logits), numbers(&model.forward(&batch, Mode::Eval).unwrap()));
    assert!(!pooled.track_op());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Mixed with itself, with a share of all, or with a share of nothing: a row stays one row, however long the other is,
    /// and what stands in the padding stays without effect.
    #[test]
    fn trivial_mixtures_are_plain_rows(
        others in prop::collection::vec(0u32..3, 3), shares in prop::collection::vec(0f32..=1.0, 3), pad in 0u32..100,
    ) {
        let model = tiny_model();
        let plain = model.forward(&input(&ROWS, 8), Mode::Eval).unwrap(); // (B, K)
        let check = |partner: &[u32], share: &[f32], expected: &Tensor| {
            let mut batch = padded_with(pad);
            batch.mix = Some(Mix { partner: partner.to_vec(), share: share.to_vec() });
            distance(&model.forward(&batch, Mode::Eval).unwrap(), expected)
        };
        prop_assert!(check(&[0, 1, 2], &shares, &plain) < 1e-5);
        prop_assert!(check(&others, &[1.0; 3], &plain) < 1e-6);
        let partners = Tensor::new(&others[..], &CPU).unwrap();
        prop_assert!(check(&others, &[0.0; 3], &plain.index_select(&partners, 0).unwrap()) < 1e-6);
        let mut batch = input(&ROWS, 8);
        batch.mix = Some(Mix { partner: others.clone(), share: shares.clone() });
        let mixed = model.forward(&batch, Mode::Eval).unwrap();
        prop_assert!(check(&others, &shares, &mixed) < 1e-6);
    }
}

#[test]
fn mixtures_that_cannot_be_are_named() {
    let check = |partner: &[u32], share: &[f32], expected: &str| {
        let mut batch = input(&ROWS, 8);
        batch.mix = Some(Mix { partner: partner.to_vec(), share: share.to_vec() });
        let error = tiny_model().forward(&batch, Mode::Eval).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    check(
        &[0, 1],
        &[0.5; 3],
        "mixing a batch of 3 rows needs as many partners and shares; found 2 and 3",
    );
    check(
        &[0, 1, 2],
        &[0.5; 2],
        "mixing a batch of 3 rows needs as many partners and shares; found 3 and 2",
    );
    check(&[0, 3, 1], &[0.5; 3], "row 1 of the batch is mixed with row 3, but there are 3 rows");
    check(
        &[0, 1, 2],
        &[0.5, 1.0, 1.25],
        "row 2 of the batch has a share of 1.25 in its mixture, expected 0 to 1",
    );
    check(
        &[0, 1, 2],
        &[f32::NAN, 1.0, 1.0],
        "row 0 of the batch has a share of NaN in its mixture, expected 0 to 1",
    );
}

#[test]
fn a_grown_head_keeps_its_rows() {
    let tiny = Checkpoint::tiny();
    let (old, _) = tiny.open().unwrap();
    let dir = tiny.write();
    let (model, report) = grown(&dir, &["red", "green", "blue", "white", "black"]).unwrap();
    assert_eq!(report.grown, ["classifier.bias", "classifier.weight"]);
    assert_eq!((report.fresh.len(), report.unused.len()), (0, 0));
    assert_eq!(model.labels(), ["red", "green", "blue", "white", "black"]);
    // initializer_range is 0.02 and all "normal" numbers are 1.
    for (name, fresh) in
        [("classifier.weight", [0.02; 64].as_slice()), ("classifier.bias", &[0.0; 2])]
    {
        let (old, new) = (numbers(&old.params.0[name]), numbers(&model.params.0[name]));
        assert_eq!(new, [&old[..], fresh].concat(), "{name}");
    }
    let logits = |model: &Classifier| model.forward(&input(&ROWS, 8), Mode::Eval).unwrap();
    let first = logits(&model).narrow(1, 0, 3).unwrap();
    assert!(distance(&first.contiguous().unwrap(), &logits(&old)) < 1e-6);
    let mut grads = backward(&logits(&model).sum_all().unwrap()).unwrap();
    assert!(grads.remove(&model.params.0["classifier.weight"]).unwrap().is_none()); // eval, no graph

    // What is saved is a model of five classes for anybody.
    let saved = TempDir::new().unwrap();
    save(saved.path(), &model.config, &model.params, dir.path()).unwrap();
    let (again, _) = Classifier::open(saved.path(), Head::FromCheckpoint, &CPU).unwrap();
    assert_eq!(again.labels(), model.labels());
    assert_eq!(again.params.fingerprint().unwrap(), model.params.fingerprint().unwrap());
}

#[test]
fn a_head_grows_by_nothing_or_is_refused() {
    let tiny = Checkpoint::tiny();
    let (model, report) = grown(&tiny.write(), &["red", "green", "blue"]).unwrap();
    assert_eq!(report, Default::default());
    assert_eq!(
        model.params.fingerprint().unwrap(),
        tiny.open().unwrap().0.params.fingerprint().unwrap()
    );
    let check = |tiny: &Checkpoint, labels: &[&str], expected: &str| {
        let dir = tiny.write();
        assert_eq!(message(&dir, grown(&dir, labels)), expected);
    };
    check(
        &tiny,
        &["red", "blue", "green", "white"],
        "DIR/model.safetensors: a grown head keeps the classes of the checkpoint, in their order, and adds new ones \
         behind; the checkpoint has [\"red\", \"green\", \"blue\"], asked for were [\"red\", \"blue\", \"green\", \"white\"]",
    );
    check(
        &tiny,
        &["red"],
        "DIR/model.safetensors: a grown head keeps the classes of the checkpoint, in their order, and adds new ones \
         behind; the checkpoint has [\"red\", \"green\", \"blue\"], asked for were [\"red\"]",
    );
    check(
        &tiny,
        &["red", "green", "blue", "red"],
        "a new head needs at least one class name and no name twice; found [\"red\", \"green\", \"blue\", \"red\"]",
    );
    let mut headless = Checkpoint::tiny();
    headless.tensors.retain(|name, _| !name.starts_with("classifier"));
    check(
        &headless,
        &["red", "green", "blue", "white"],
        "DIR/model.safetensors: this model has no classification head (missing: classifier.bias, classifier.weight); \
         train it with new class names first",
    );
    let mut unnamed = Checkpoint::tiny();
    (unnamed.config["id2label"], unnamed.config["label2id"]) = (Value::Null, Value::Null);
    let (model, _) = grown(&unnamed.write(), &["LABEL_0", "LABEL_1", "LABEL_2", "new"]).unwrap();
    assert_eq!(model.params.0["classifier.bias"].dims(), [4]);
}

/// The variables themselves in eval mode: a graph without dropout. Tensors made from them: gradients go through.
#[test]
fn other_tensors_in_the_models_place() {
    let mut model = tiny_model();
    let batch = input(&ROWS, 8);
    model.config.hidden_dropout = 0.5;
    let tensors: BTreeMap<String, Tensor> =
        model.params.tensors().map(|(name, var)| (name.to_string(), var.clone())).collect();
    let plain = model.forward(&batch, Mode::Eval).unwrap();
    let tracked = model.forward_with(&tensors, &batch, Mode::Eval).unwrap();
    assert_eq!(numbers(&tracked), numbers(&plain));
    assert!(tracked.track_op() && !plain.track_op());
    let train =
        |seed| model.forward_with(&tensors, &batch, Mode::Train(&mut Keys::new(seed))).unwrap();
    let own = model.forward(&batch, Mode::Train(&mut Keys::new(3))).unwrap();
    assert_eq!(numbers(&train(3)), numbers(&own));

    let doubled = |model: &Classifier| -> BTreeMap<String, Tensor> {
        let double = |(name, var): (&str, &Tensor)| (name.to_string(), (var * 2.0).unwrap());
        model.params.tensors().map(double).collect()
    };
    let of_doubles = model.forward_with(&doubled(&model), &batch, Mode::Eval).unwrap();
    let mut through = backward(&of_doubles.sum_all().unwrap()).unwrap();
    for var in model.params.0.values() {
        var.set(&(var.as_tensor() * 2.0).unwrap()).unwrap();
    }
    let directly = model.forward_with(&tensors, &batch, Mode::Eval).unwrap(); // still the variables
    // One is the fused form and the other is not: as close as twins are.
    let scale = numbers(&directly).iter().fold(0f32, |a, x| a.max(x.abs()));
    assert!(distance(&of_doubles, &directly) < 3e-6 * scale);
    let mut direct = backward(&directly.sum_all().unwrap()).unwrap();
    for (name, var) in &model.params.0 {
        let of = |all: &mut lowchurn_kernels::Gradients| {
            all.remove(var).unwrap().unwrap().to_tensor().unwrap()
        };
        let (through, direct) = (of(&mut through), of(&mut direct));
        let twice = (direct * 2.0).unwrap();
        let largest = numbers(&twice).into_iter().map(f32::abs).fold(1e-3, f32::max);
        // A key bias has none in theory: what is found is rounding beside gradients of order one.
        let largest = if name.ends_with("key.bias") { 1.0 } else { largest };
        assert!(distance(&through, &twice) / largest < 1e-4, "{name}");
    }
}

#[test]
fn other_tensors_that_do_not_fit_are_named() {
    let model = tiny_model();
    let check = |change: fn(&mut BTreeMap<String, Tensor>), expected: &str| {
        let own = model.params.tensors().map(|(name, var)| (name.to_string(), var.clone()));
        let mut tensors = own.collect();
        change(&mut tensors);
        let error = model.forward_with(&tensors, &input(&ROWS, 8), Mode::Eval).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    check(
        |tensors| _ = tensors.remove("bert.pooler.dense.bias"),
        "the parameters lack \"bert.pooler.dense.bias\", which the model needs",
    );
    check(
        |tensors| {
            let short = Tensor::zeros(31, DType::F32, &CPU).unwrap();
            tensors.insert("bert.pooler.dense.bias".into(), short);
        },
        "the tensor given for \"bert.pooler.dense.bias\" is [31], expected [32] as in the model",
    );
}

fn tiny_model() -> Classifier {
    Checkpoint::tiny().open().unwrap().0
}

/// With new rows whose "normal" numbers are all 1.
fn grown(
    dir: &TempDir,
    labels: &[&str],
) -> lowchurn_models::Result<(Classifier, lowchurn_models::LoadReport)> {
    let labels = labels.iter().map(|label| label.to_string()).collect();
    Classifier::open(dir.path(), Head::Grown { labels, normal: &mut || 1.0 }, &CPU)
}

fn load(name: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(golden().join(format!("{name}.safetensors")), &CPU).unwrap()
}

fn plain(batch: &HashMap<String, Tensor>) -> Input {
    let lengths = flat(&batch["attention_mask"].sum(1).unwrap());
    let (tokens, types) = (flat(&batch["input_ids"]), flat(&batch["token_type_ids"]));
    Input::new(&tokens, &types, &lengths, 12, &CPU).unwrap()
}

fn mixed(batch: &HashMap<String, Tensor>, expected: &HashMap<String, Tensor>) -> Input {
    let mut input = plain(batch);
    let share = numbers(&expected["mix.share"]);
    input.mix = Some(Mix { partner: flat(&expected["mix.partner"]), share });
    input
}

fn flat(tensor: &Tensor) -> Vec<u32> {
    tensor.to_dtype(DType::U32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The rows in a batch that is wider than the widest of them, with this id in the padding.
fn padded_with(pad: u32) -> Input {
    let mut tokens = vec![pad; 3 * 10];
    let mut types = vec![1; 3 * 10];
    for (n, row) in ROWS.iter().enumerate() {
        tokens[n * 10..][..row.len()].copy_from_slice(row);
        types[n * 10..][..row.len() / 2].fill(0);
    }
    Input::new(&tokens, &types, &[5, 2, 8], 10, &CPU).unwrap()
}
