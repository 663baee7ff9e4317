//! What a forward pass promises, whatever the weights.

use candle_core::{DType, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config as PeerConfig};
use lowchurn_kernels::Keys;
use lowchurn_models::{Classifier, Error, Input, Mode};
use serde_json::json;

use crate::{CPU, Checkpoint, distance, input, numbers};

const ROWS: [&[u32]; 3] = [&[2, 17, 45, 99, 3], &[2, 3], &[2, 8, 8, 60, 61, 62, 63, 3]];

/// candle-transformers' encoder doesn't train, but its forward pass is sound.
#[test]
fn inference_equals_candle_transformers() {
    let tiny = Checkpoint::tiny();
    let peer_config: PeerConfig = serde_json::from_value(tiny.config.clone()).unwrap();
    let weights = VarBuilder::from_tensors(tiny.tensors.clone(), DType::F32, &CPU);
    let peer = BertModel::load(weights, &peer_config).unwrap();
    let batch = input(&ROWS, 9);
    let mask: Vec<u32> =
        ROWS.iter().flat_map(|row| (0..9).map(|t| u32::from(t < row.len()))).collect();
    let mask = Tensor::from_vec(mask, (3, 9), &CPU).unwrap();
    // Ours holds the tokens alone, the other wants padding.
    let pad = |rows: &Tensor| {
        let (mut padded, rows) = (vec![0u32; 3 * 9], rows.to_vec1::<u32>().unwrap());
        batch
            .sequences
            .places()
            .iter()
            .zip(rows)
            .for_each(|(&place, x)| padded[place as usize] = x);
        Tensor::from_vec(padded, (3, 9), &CPU).unwrap()
    };
    let hidden = peer.forward(&pad(&batch.ids), &pad(&batch.types), Some(&mask)).unwrap(); // (B, T, C)
    let dense = |x: &Tensor, name: &str| {
        let weight = tiny.tensors[&format!("{name}.weight")].t().unwrap();
        x.matmul(&weight).unwrap().broadcast_add(&tiny.tensors[&format!("{name}.bias")]).unwrap()
    };
    let first = hidden.narrow(1, 0, 1).unwrap().squeeze(1).unwrap().contiguous().unwrap();
    let pooled = dense(&first, "bert.pooler.dense").tanh().unwrap();
    let expected = dense(&pooled, "classifier");
    let distance = distance(&tiny_model().forward(&batch, Mode::Eval).unwrap(), &expected);
    assert!(distance < 1e-5, "{distance}");
}

#[test]
fn padding_does_not_change_logits() {
    let model = tiny_model();
    let alone: Vec<Tensor> =
        ROWS.iter().map(|row| logits(&model, &input(&[row], row.len()))).collect();
    let alone = Tensor::cat(&alone, 0).unwrap();
    for width in [8, 9, 16] {
        let distance = distance(&logits(&model, &input(&ROWS, width)), &alone);
        assert!(distance < 1e-6, "width {width}: {distance}");
    }
    // Nor does what stands in the padding.
    let other_padding = [2, 17, 45, 99, 3, 7, 7, 7];
    let other_padding = Input::new(&other_padding, &[1; 8], &[5], 8, &CPU).unwrap();
    let same_types = Input::new(&[2, 17, 45, 99, 3], &[1; 5], &[5], 5, &CPU).unwrap();
    let distance = distance(&logits(&model, &other_padding), &logits(&model, &same_types));
    assert!(distance < 1e-6, "{distance}");
}

#[test]
fn eval_is_untracked_and_follows_training() {
    let model = tiny_model();
    let batch = input(&ROWS, 8);
    let before = logits(&model, &batch);
    let grads = before.sum_all().unwrap().backward().unwrap();
    assert!(model.params.0.values().all(|var| grads.get(var).is_none()));
    let bias = &model.params.0["classifier.bias"];
    bias.set(&(bias.as_tensor() + 1.0).unwrap()).unwrap();
    assert!(distance(&logits(&model, &batch), &(before + 1.0).unwrap()) < 1e-6);
}

#[test]
fn dropout_comes_from_the_keys_alone() {
    let batch = input(&ROWS, 8);
    let train = |model: &Classifier, seed| {
        let logits = model.forward(&batch, Mode::Train(&mut Keys::new(seed))).unwrap();
        numbers(&logits)
    };
    // The golden model drops nothing, so training and evaluation are one.
    let mut model = tiny_model();
    let kept = numbers(&logits(&model, &batch));
    assert_eq!(train(&model, 1), kept);
    for site in 0..3 {
        model.config.hidden_dropout = [0.5, 0.0, 0.0][site];
        model.config.attention_dropout = [0.0, 0.5, 0.0][site];
        model.config.classifier_dropout = [0.0, 0.0, 0.5][site];
        assert_eq!(train(&model, 1), train(&model, 1));
        assert_ne!(train(&model, 1), train(&model, 2));
        assert_ne!(train(&model, 1), kept);
        assert_eq!(numbers(&logits(&model, &batch)), kept);
    }
}

/// One key a site, in use or not: embeddings, three a layer, the head.
#[test]
fn each_dropout_site_takes_one_key() {
    let (mut used, mut counted) = (Keys::new(5), Keys::new(5));
    tiny_model().forward(&input(&ROWS, 8), Mode::Train(&mut used)).unwrap();
    (0..1 + 3 * 2 + 1).for_each(|_| _ = counted.next());
    assert_eq!(used.next(), counted.next());
}

#[test]
fn relu_is_an_activation_too() {
    let mut tiny = Checkpoint::tiny();
    tiny.config["hidden_act"] = json!("relu");
    let (relu, _) = tiny.open().unwrap();
    let batch = input(&ROWS, 8);
    assert!(distance(&logits(&relu, &batch), &logits(&tiny_model(), &batch)) > 1e-3);
}

#[test]
fn bad_batches_are_named() {
    let check = |batch: Result<Input, Error>, expected: &str| {
        let model = tiny_model();
        let result = batch.and_then(|batch| model.forward(&batch, Mode::Eval));
        assert_eq!(result.unwrap_err().to_string(), expected);
    };
    let new = |tokens: &[u32], types: &[u32], lengths: &[u32], width: usize| {
        Input::new(tokens, types, lengths, width, &CPU)
    };
    check(
        new(&[1; 17], &[0; 17], &[17], 17),
        "the batch is 17 tokens wide, but the model has 16 positions (config.json, max_position_embeddings); \
         truncate the texts to 16",
    );
    check(
        new(&[1, 2, 3, 4, 100, 5], &[0; 6], &[3, 3], 3),
        "row 1, token 1 of the batch: id 100 is outside the model's vocabulary of 100; \
         the tokenizer doesn't belong to this model",
    );
    check(
        new(&[1; 6], &[0, 0, 2, 0, 0, 0], &[3, 3], 3),
        "row 0, token 2 of the batch: type 2 is outside the model's 2 token types",
    );
    check(new(&[1; 6], &[0; 6], &[3, 4], 3), "row 1 of the batch has length 4, expected 1 to 3");
    check(new(&[1; 6], &[0; 6], &[0, 3], 3), "row 0 of the batch has length 0, expected 1 to 3");
    check(
        new(&[1; 5], &[0; 6], &[3, 3], 3),
        "a batch of 2 rows, 3 wide, needs 6 tokens and as many types; found 5 and 6",
    );
    check(
        new(&[], &[], &[], 3),
        "a batch of 0 rows, 3 wide, needs 0 tokens and as many types; found 0 and 0",
    );
}

fn tiny_model() -> Classifier {
    Checkpoint::tiny().open().unwrap().0
}

fn logits(model: &Classifier, input: &Input) -> Tensor {
    model.forward(input, Mode::Eval).unwrap()
}
