//! The Fisher information of weights, held to PyTorch, to a closed form and to finite differences; and its file.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Tensor;
use lowchurn_data::Encoded;
use lowchurn_distill::{Error, fisher, load_fisher, save_fisher};
use lowchurn_models::{Classifier, Mode, Params};
use tempfile::TempDir;

use crate::weights::{fingerprint, golden_model, golden_rows, input, params, tensors};
use crate::{CPU, GO, encoded, golden_folder, numbers, toy_rows};

#[test]
fn fisher_information_is_that_of_pytorch() {
    let path = golden_folder().join("updating.safetensors");
    let expected = candle_core::safetensors::load(path, &CPU).unwrap();
    let (model, rows) = (golden_model(), golden_rows());
    let found = fisher(&model, &rows, 100, 1, &CPU, &GO, &mut |_| {}).unwrap().unwrap();
    let mut n_checked = 0;
    for (name, expected) in &expected {
        let Some(name) = name.strip_prefix("fisher.") else { continue };
        let largest = numbers(expected).into_iter().fold(0.0, f32::max);
        let apart = crate::distance(&numbers(&found[name]), &numbers(expected));
        assert!(apart / largest < 2e-4, "{name}: {apart} of {largest}");
        n_checked += 1;
    }
    assert_eq!(n_checked, 5);
    let all: Vec<f32> = found.values().flat_map(numbers).collect();
    let mean = all.iter().map(|&f| f64::from(f)).sum::<f64>() / all.len() as f64;
    assert!((mean - 1.0).abs() < 1e-6, "{mean}");
    assert!(found.keys().map(String::as_str).eq(model.params.names()));
}

/// For a softmax head: the bias has (1[k = ŷ] − p_k)², the weight that times the squared pooled vector.
#[test]
fn fisher_information_of_the_head_has_a_closed_form() {
    let (mut model, rows) = (golden_model(), golden_rows());
    model.config.hidden_dropout = 0.5; // has no part in it
    let found = fisher(&model, &rows, 100, 1, &CPU, &GO, &mut |_| {}).unwrap().unwrap();
    let (mut bias, mut weight) = (vec![0f64; 3], vec![0f64; 3 * 32]);
    for row in 0..rows.rows() as u32 {
        let (logits, pooled) = model.pooled(&input(&rows, row)).unwrap();
        let (logits, pooled) = (numbers(&logits), numbers(&pooled));
        let sum: f64 = logits.iter().map(|&z| f64::from(z).exp()).sum();
        let best = (0..3).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
        for k in 0..3 {
            let gradient = f64::from(u8::from(k == best)) - f64::from(logits[k]).exp() / sum;
            bias[k] += gradient.powi(2);
            (0..32).for_each(|c| weight[k * 32 + c] += (gradient * f64::from(pooled[c])).powi(2));
        }
    }
    // The rescaling is one factor for all.
    let scale = f64::from(numbers(&found["classifier.bias"])[0]) / bias[0];
    for (name, expected) in [("classifier.bias", bias), ("classifier.weight", weight)] {
        for (found, expected) in numbers(&found[name]).into_iter().zip(expected) {
            let expected = expected * scale;
            assert!(
                (f64::from(found) - expected).abs() <= 1e-3 * expected + 1e-6,
                "{name}: {found} {expected}"
            );
        }
    }
}

#[test]
fn fisher_information_is_that_of_finite_differences() {
    let (model, rows) = (golden_model(), encoded(&[(vec![2, 17, 45, 99, 3], None)]));
    let found = fisher(&model, &rows, 1, 1, &CPU, &GO, &mut |_| {}).unwrap().unwrap();
    let logits = || numbers(&model.forward(&input(&rows, 0), Mode::Eval).unwrap());
    let before = logits();
    let best = (0..3).max_by(|&a, &b| before[a].total_cmp(&before[b])).unwrap();
    let log_p = || {
        let logits = logits();
        let sum: f64 = logits.iter().map(|&z| f64::from(z).exp()).sum();
        f64::from(logits[best]) - sum.ln()
    };
    let mut scale = None;
    for (name, at) in [
        ("classifier.bias", 0),
        ("bert.pooler.dense.bias", 3),
        ("bert.encoder.layer.0.output.LayerNorm.weight", 5),
        ("bert.embeddings.word_embeddings.weight", 17 * 32 + 2),
        ("bert.encoder.layer.1.attention.self.value.weight", 40),
    ] {
        let var = &model.params.0[name];
        let whole = numbers(var);
        let moved = |by: f32| {
            let mut values = whole.clone();
            values[at] += by;
            var.set(&Tensor::from_vec(values, var.shape(), &CPU).unwrap()).unwrap();
            log_p()
        };
        let slope = (moved(0.01) - moved(-0.01)) / 0.02;
        moved(0.0);
        let found = f64::from(numbers(&found[name])[at]);
        let scale = *scale.get_or_insert(found / slope.powi(2));
        let expected = scale * slope.powi(2);
        assert!((found - expected).abs() <= 0.03 * expected + 1e-3, "{name}: {found} {expected}");
    }
}

#[test]
fn fisher_information_depends_on_seed_and_rows_alone() {
    let (model, rows) = (golden_model(), toy_rows(12, 3));
    let bytes = |n_rows, seed, threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut told = Vec::new();
        let made =
            pool.install(|| fisher(&model, &rows, n_rows, seed, &CPU, &GO, &mut |n| told.push(n)));
        assert_eq!(told, (1..=n_rows.min(12)).collect::<Vec<_>>());
        made.unwrap().unwrap().values().flat_map(numbers).map(f32::to_bits).collect::<Vec<_>>()
    };
    assert_eq!(bytes(4, 1, 1), bytes(4, 1, 3));
    assert_ne!(bytes(4, 1, 1), bytes(4, 2, 1));
    assert_ne!(bytes(4, 1, 1), bytes(5, 1, 1));
    assert_eq!(bytes(12, 1, 1), bytes(99, 2, 1)); // all rows, in their own order
}

#[test]
fn fisher_information_can_be_stopped() {
    let (stop, mut told) = (AtomicBool::new(false), Vec::new());
    let mut on = |n| {
        told.push(n);
        stop.store(n == 3, Ordering::Relaxed);
    };
    let found = fisher(&golden_model(), &toy_rows(12, 3), 9, 1, &CPU, &stop, &mut on);
    assert!(found.unwrap().is_none());
    assert_eq!(told, [1, 2, 3]);
}

#[test]
fn fisher_information_that_cannot_be_had() {
    let check = |model: &Classifier, rows: &Encoded, expected: &str| {
        let found = fisher(model, rows, 9, 1, &CPU, &GO, &mut |_| {});
        assert_eq!(found.unwrap_err().to_string(), expected);
    };
    let model = golden_model();
    check(&model, &encoded(&[]), "no row to take Fisher information from");
    check(
        &model,
        &encoded(&[(vec![2, 3], None), (vec![], None)]),
        "row row-1 has no token; leave empty texts out",
    );
    let bias = &model.params.0["classifier.bias"];
    bias.set(&Tensor::new(&[1000f32, 0.0, 0.0], &CPU).unwrap()).unwrap();
    check(
        &model,
        &encoded(&[(vec![2, 3], None)]),
        "the Fisher information of 1 rows is zero or no number everywhere: the model is too sure of them; take more rows",
    );
    bias.set(&Tensor::new(&[f32::NAN, 0.0, 0.0], &CPU).unwrap()).unwrap();
    check(
        &model,
        &encoded(&[(vec![2, 3], None)]),
        "row row-0: the logits are not finite numbers; the model's weights are damaged",
    );
}

#[test]
fn a_fisher_file_belongs_to_its_model_and_rows() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("fisher.safetensors");
    let model = params(&[("a", &[2], &[1.0, 2.0]), ("b", &[1, 1], &[3.0])]);
    let made = tensors(&params(&[("a", &[2], &[0.5, 1.5]), ("b", &[1, 1], &[1.0])]));
    save_fisher(&path, &made, &model, "12 rows, seed 1").unwrap();
    let loaded = load_fisher(&path, &model, "12 rows, seed 1").unwrap();
    assert_eq!(fingerprint(&loaded), fingerprint(&made));

    let check = |made: &BTreeMap<String, Tensor>, of: &Params, rows: &str, expected: &str| {
        save_fisher(&path, made, &model, "12 rows, seed 1").unwrap();
        let text = load_fisher(&path, of, rows).unwrap_err().to_string();
        assert_eq!(text.replace(&dir.path().display().to_string(), "DIR"), expected);
    };
    let other = params(&[("a", &[2], &[1.0, 2.5]), ("b", &[1, 1], &[3.0])]);
    let [of_model, of_other] = [&model, &other].map(|params| params.fingerprint().unwrap());
    check(
        &made,
        &other,
        "12 rows, seed 1",
        &format!(
            "DIR/fisher.safetensors: it was made for weights_sha256 {of_model}, now {of_other}; \
             remove it to have the Fisher information made again"
        ),
    );
    check(
        &made,
        &model,
        "12 rows, seed 2",
        "DIR/fisher.safetensors: it was made for rows 12 rows, seed 1, now 12 rows, seed 2; \
         remove it to have the Fisher information made again",
    );
    check(
        &tensors(&params(&[("a", &[2], &[0.5, 1.5])])),
        &model,
        "12 rows, seed 1",
        "the model and the Fisher information are of different architectures or sizes: \
         only the model has b; only the Fisher information has nothing",
    );
    check(
        &tensors(&params(&[("a", &[2], &[0.5, -1.5]), ("b", &[1, 1], &[1.0])])),
        &model,
        "12 rows, seed 1",
        "the Fisher information of a holds -1.5, expected finite numbers of at least 0",
    );
    // Any other safetensors file, no file, half a file.
    let golden = golden_folder().join("updating.safetensors");
    let text = load_fisher(&golden, &model, "").unwrap_err().to_string();
    assert!(text.contains("it was made for weights_sha256 nothing, now "), "{text}");
    assert!(matches!(load_fisher(&dir.path().join("none"), &model, ""), Err(Error::Read { .. })));
    let whole = fs::read(&path).unwrap();
    for n in [0, 7, 8, 40, whole.len() - 1] {
        fs::write(&path, &whole[..n]).unwrap();
        assert!(matches!(load_fisher(&path, &model, ""), Err(Error::FisherFile { .. })), "{n}");
    }
}
