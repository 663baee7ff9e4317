//! Held to PyTorch: logits and the gradient of every parameter.

use std::collections::HashMap;

use candle_core::{DType, Tensor};
use lowchurn_kernels::Keys;
use lowchurn_kernels::backward;
use lowchurn_models::{Classifier, Input, Mode};
use serde_json::json;

use crate::{CPU, Checkpoint, distance, golden, numbers};

#[test]
fn logits_are_those_of_pytorch() {
    let expected = expected();
    for (act, name) in [
        ("gelu", "logits"),
        ("gelu_new", "logits_gelu_new"),
        ("gelu_pytorch_tanh", "logits_gelu_new"),
    ] {
        let mut tiny = Checkpoint::tiny();
        tiny.config["hidden_act"] = json!(act);
        let (model, _) = tiny.open().unwrap();
        let logits = model.forward(&batch(&expected), Mode::Eval).unwrap();
        let distance = distance(&logits, &expected[name]);
        assert!(distance < 1e-5, "{act}: {distance}");
    }
}

/// Key biases are left out: a constant added to all keys cancels in softmax, so theirs is rounding noise.
#[test]
fn gradients_are_those_of_pytorch() {
    let expected = expected();
    let (model, _) = Checkpoint::tiny().open().unwrap();
    let mut grads = backward(&loss(&model, &expected)).unwrap();
    let mut n_checked = 0;
    for (name, var) in &model.params.0 {
        let found = grads.remove(var).unwrap().unwrap_or_else(|| panic!("{name} has no gradient"));
        let found = &found.to_tensor().unwrap();
        let expected = &expected[&format!("grad.{name}")];
        let largest = numbers(expected).into_iter().map(f32::abs).fold(0.0, f32::max);
        let distance = distance(found, expected);
        if name.ends_with("attention.self.key.bias") {
            assert!(distance < 1e-6, "{name}: {distance}");
        } else {
            assert!(distance / largest < 1e-4, "{name}: {distance} of {largest}");
            n_checked += 1;
        }
    }
    assert_eq!(n_checked, 41 - 2);
}

/// Every parameter trains. candle's fused norm and softmax cut the graph without a word, and the loss falls all the same.
#[test]
fn every_parameter_gets_a_gradient_and_moves() {
    let (model, _) = Checkpoint::tiny().open().unwrap();
    let mut grads = backward(&loss(&model, &expected())).unwrap();
    for (name, var) in &model.params.0 {
        let grad = grads.remove(var).unwrap().unwrap_or_else(|| panic!("{name} has no gradient"));
        let grad = grad.to_tensor().unwrap();
        let before = var.copy().unwrap();
        var.set(&(var.as_tensor() - (grad * 0.1).unwrap()).unwrap()).unwrap();
        let moved = distance(&before, var);
        assert!(
            moved > 1e-5 || name.ends_with("attention.self.key.bias"),
            "{name} moved by {moved}"
        );
    }
}

fn expected() -> HashMap<String, Tensor> {
    candle_core::safetensors::load(golden().join("bert_tiny.safetensors"), &CPU).unwrap()
}

pub fn batch(expected: &HashMap<String, Tensor>) -> Input {
    let u32s = |name: &str| expected[name].to_dtype(DType::U32).unwrap();
    let flat = |name: &str| u32s(name).flatten_all().unwrap().to_vec1::<u32>().unwrap();
    let lengths: Vec<u32> = u32s("attention_mask").sum(1).unwrap().to_vec1().unwrap();
    Input::new(&flat("input_ids"), &flat("token_type_ids"), &lengths, 12, &CPU).unwrap()
}

fn loss(model: &Classifier, expected: &HashMap<String, Tensor>) -> Tensor {
    let logits = model.forward(&batch(expected), Mode::Train(&mut Keys::new(1))).unwrap();
    candle_nn::loss::cross_entropy(&logits, &expected["labels"]).unwrap()
}
