//! Ten updates as PyTorch does them: losses, gradient norms, learning rates, and every weight afterwards.

use std::fs;

use lowchurn_data::Encoded;
use lowchurn_distill::{Guides, Plan, SelectBy, step};
use serde_json::Value;

use crate::{CPU, batch, distance, golden_folder, golden_state, numbers};

/// Of the loss and of the gradient norm, relative; 9e-6 was reached.
const TOLERANCE: f64 = 5e-5;
/// Of a weight after ten updates of at most 1e-3 each; 4e-7 was reached.
const WEIGHT_TOLERANCE: f32 = 3e-6;

#[test]
fn ten_steps_are_those_of_pytorch() {
    let read = |name: &str| fs::read(golden_folder().join(name)).unwrap();
    let expected: Value = serde_json::from_slice(&read("bert_tiny.json")).unwrap();
    let tensors =
        candle_core::safetensors::load_buffer(&read("bert_tiny.safetensors"), &CPU).unwrap();
    let integers = |name: &str| tensors[name].to_vec2::<i64>().unwrap_or_else(|_| panic!("{name}"));
    let (ids, mask) = (integers("input_ids"), integers("attention_mask"));
    let types = integers("token_type_ids");
    let labels = tensors["labels"].to_vec1::<i64>().unwrap();

    let mut rows = Encoded { offsets: vec![0], ..Encoded::default() };
    for row in 0..ids.len() {
        let length = mask[row].iter().sum::<i64>() as usize;
        rows.tokens.extend(ids[row][..length].iter().map(|&id| id as u32));
        rows.types.extend(types[row][..length].iter().map(|&kind| kind as u8));
        rows.offsets.push(rows.tokens.len());
        rows.ids.push(row.to_string());
        rows.labels.push(Some(labels[row] as u32));
    }
    let settings = &expected["optimizer"];
    let number = |key: &str| settings[key].as_f64().unwrap();
    let plan = Plan {
        learning_rate: number("learning_rate"),
        weight_decay: number("weight_decay"),
        max_grad_norm: number("max_norm"),
        ..Plan::default_with(SelectBy::Accuracy)
    };
    let steps = expected["steps"].as_array().unwrap();
    let total = steps.len() as u64;
    let mut state = golden_state();
    let all: Vec<u32> = (0..ids.len() as u32).collect();

    let mut worst = 0f64;
    for (at, expected) in steps.iter().enumerate() {
        let report =
            step(&mut state, &plan, &rows, &Guides::default(), &[batch(&rows, &all)], total, &CPU)
                .unwrap();
        let mut check = |what: &str, found: f64, tolerance: f64| {
            let expected = expected[what].as_f64().unwrap();
            let error = (found - expected).abs() / expected.abs();
            worst = worst.max(error);
            assert!(error <= tolerance, "step {at}, {what}: {found}, expected {expected}");
        };
        check("loss", report.loss_sum / report.n_rows as f64, TOLERANCE);
        check("gradient_norm", report.gradient_norm, TOLERANCE);
        check("learning_rate", report.learning_rate, 1e-15);
        let n_tokens = mask.iter().flatten().sum::<i64>() as u64;
        assert_eq!((report.n_rows, report.n_tokens), (5, n_tokens));
    }
    assert_eq!(state.step, 10);

    let (mut n_checked, mut furthest) = (0, 0f32);
    for (name, tensor) in state.model.params.tensors() {
        let expected = numbers(&tensors[&format!("final.{name}")]);
        let distance = distance(&numbers(tensor), &expected);
        if name.ends_with("attention.self.key.bias") {
            // No gradient but rounding noise, which AdamW scales up to the learning rate.
            assert!(distance < 5.5e-3, "{name}: {distance}");
            continue;
        }
        assert!(distance < WEIGHT_TOLERANCE, "{name}: {distance}");
        (n_checked, furthest) = (n_checked + 1, furthest.max(distance));
    }
    assert_eq!(n_checked, tensors.keys().filter(|name| name.starts_with("final.")).count() - 2);
    assert!(worst > 0.0 && furthest > 0.0, "compared with itself?");
}
