//! CUDA says what the CPU says: logits, gradients and the losses of ten updates of the encoder that ships, in f32 and without
//! dropout. `just gpu-check` runs it; on a machine without a card it says that it is skipped.
#![cfg(feature = "cuda")]

use std::io::{self, Write};
use std::path::Path;

use candle_core::{Device, Tensor};
use lowchurn_data::{
    Batch, Columns, Dataset, Encoded, Labels, Request, Rng, TextEncoder, collate, encode, read,
};
use lowchurn_distill::{Guides, Plan, SelectBy, State, step};
use lowchurn_kernels::{Keys, backward};
use lowchurn_models::{Classifier, Head, Input, Mode};

/// Relative to the largest number of the CPU's tensor: sums run in another order there.
const LOGITS: f32 = 1e-4;
const GRADIENTS: f32 = 1e-3;
const LOSSES: f64 = 1e-4;

fn card() -> Option<Device> {
    match Device::new_cuda(0) {
        Ok(device) => Some(device),
        Err(error) => {
            let _ = writeln!(io::stderr(), "skipped: no CUDA device here ({error})");
            None
        }
    }
}

fn model(device: &Device) -> Classifier {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny");
    let mut rng = Rng::stream(1, "head", 0);
    let labels = vec!["no".to_string(), "yes".to_string()];
    let head = Head::Fresh { labels, normal: &mut || rng.normal() };
    let mut model = Classifier::open(&dir, head, device).unwrap().0;
    (model.config.hidden_dropout, model.config.attention_dropout) = (0.0, 0.0);
    model.config.classifier_dropout = 0.0;
    model
}

/// Batches of 32 tickets, labelled by turns.
fn rows() -> (Encoded, Vec<Batch>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let columns =
        Columns { text: Some("text".into()), label: Some("label".into()), ..Columns::default() };
    let request = Request { columns, labels: Labels::Required, label_set: None, kind: None };
    let dataset = Dataset::of_folder(&root.join("datasets/tickets"), None).unwrap();
    let mut split = read(&dataset, "train", &request).unwrap();
    split.examples.truncate(320);
    let encoder = TextEncoder::open(&root.join("models/tiny")).unwrap();
    let mut rows = encode(&encoder, &split.examples, 64).unwrap();
    rows.labels.iter_mut().enumerate().for_each(|(row, label)| *label = Some(row as u32 % 2));
    let order: Vec<u32> = (0..320).collect();
    let batches = order.chunks(32).map(|part| collate(&rows, part, 0)).collect();
    (rows, batches)
}

fn numbers(x: &Tensor) -> Vec<f32> {
    x.to_device(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_close(what: &str, found: &Tensor, expected: &Tensor, tolerance: f32) {
    let (found, expected) = (numbers(found), numbers(expected));
    let scale = expected.iter().fold(1e-4f32, |a, x| a.max(x.abs()));
    let apart = found.iter().zip(&expected).fold(0f32, |a, (x, y)| a.max((x - y).abs()));
    assert!(apart / scale < tolerance, "{what}: {apart} apart, of {scale}");
}

#[test]
fn logits_and_gradients_are_those_of_the_cpu() {
    let Some(card) = card() else { return };
    let (_, batches) = rows();
    let run = |device: &Device| {
        let (model, batch) = (model(device), &batches[0]);
        let input =
            Input::new(&batch.tokens, &batch.types, &batch.lengths, batch.width, device).unwrap();
        let logits = model.forward(&input, Mode::Train(&mut Keys::new(1))).unwrap();
        let mut found = backward(&logits.sqr().unwrap().sum_all().unwrap()).unwrap();
        let mut of = |var| found.remove(var).unwrap().unwrap().to_tensor().unwrap();
        let gradients: Vec<(String, Tensor)> =
            model.params.tensors().map(|(name, var)| (name.to_string(), of(var))).collect();
        (logits, gradients)
    };
    let ((logits, found), (expected_logits, expected)) = (run(&card), run(&Device::Cpu));
    assert_close("logits", &logits, &expected_logits, LOGITS);
    for ((name, found), (_, expected)) in found.iter().zip(&expected) {
        // A key bias has no gradient in theory, and what is found is rounding.
        if !name.ends_with("key.bias") {
            assert_close(name, found, expected, GRADIENTS);
        }
    }
}

#[test]
fn losses_of_ten_updates_are_those_of_the_cpu() {
    let Some(card) = card() else { return };
    let (rows, batches) = rows();
    let plan = Plan { learning_rate: 1e-4, ..Plan::default_with(SelectBy::Accuracy) };
    let run = |device: &Device| -> Vec<f64> {
        let mut state = State::new(model(device)).unwrap();
        let mut loss_of = |batch: &Batch| {
            let batch = std::slice::from_ref(batch);
            step(&mut state, &plan, &rows, &Guides::default(), batch, 10, device).unwrap().loss_sum
        };
        batches.iter().map(&mut loss_of).collect()
    };
    for (at, (found, expected)) in run(&card).iter().zip(run(&Device::Cpu)).enumerate() {
        assert!((found / expected - 1.0).abs() < LOSSES, "update {at}: {found} and {expected}");
    }
}
