//! Temperature and bias against scipy, against identities, and folded into a real head.

use std::fs;

use lowchurn_distill::{
    RefitTo, Rescaling, fit_temperature, fit_temperature_and_bias, predict, rescaled_loss,
};
use lowchurn_models::{Classifier, Config};
use proptest::prelude::*;
use serde_json::Value;

use crate::{CPU, golden_folder, golden_state, numbers, toy_rows};

/// Of T, b and the loss, relative to what is above 1. scipy's optimizers stop at a gradient of 1e-9.
const TOLERANCE: f64 = 2e-6;

fn near(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= TOLERANCE * expected.abs().max(1.0)
}

fn doubles(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

#[test]
fn fits_are_those_of_scipy() {
    let text = fs::read(golden_folder().join("refit.json")).unwrap();
    let cases: Value = serde_json::from_slice(&text).unwrap();
    for (name, case) in cases.as_object().unwrap() {
        let classes = case["classes"].as_u64().unwrap() as usize;
        let logits: Vec<f32> = doubles(&case["logits"]).iter().map(|z| *z as f32).collect();
        let labels: Vec<Option<u32>> =
            doubles(&case["labels"]).iter().map(|label| Some(*label as u32)).collect();
        let old = doubles(&case["old"]);
        let plain = Rescaling { temperature: 1.0, bias: vec![0.0; classes] };
        let to_labels = RefitTo::Labels(&labels);
        let before = rescaled_loss(&logits, classes, to_labels, &plain).unwrap().unwrap();
        assert!(near(before, case["loss"].as_f64().unwrap()), "{name}");
        for (to, suffix) in [(to_labels, ""), (RefitTo::Probabilities(&old), "_to_old")] {
            let expected = &case[format!("temperature{suffix}")];
            let temperature = fit_temperature(&logits, classes, to).unwrap();
            assert!(near(temperature, expected["temperature"].as_f64().unwrap()), "{name}{suffix}");
            let found = Rescaling { temperature, ..plain.clone() };
            let loss = rescaled_loss(&logits, classes, to, &found).unwrap().unwrap();
            assert!(near(loss, expected["loss"].as_f64().unwrap()), "{name}{suffix}");

            let expected = &case[format!("with_bias{suffix}")];
            let found = fit_temperature_and_bias(&logits, classes, to).unwrap();
            let t = expected["temperature"].as_f64().unwrap();
            assert!(near(found.temperature, t), "{name}{suffix}: {found:?}, not {expected}");
            for (found, expected) in found.bias.iter().zip(doubles(&expected["bias"])) {
                assert!(near(*found, expected), "{name}{suffix}: {found}, not {expected}");
            }
            let loss = rescaled_loss(&logits, classes, to, &found).unwrap().unwrap();
            assert!(near(loss, expected["loss"].as_f64().unwrap()), "{name}{suffix}");
        }
    }
}

#[test]
fn old_scores_come_back_where_only_scale_and_bias_were_changed() {
    let logits = [1.5f32, -0.5, 0.25, -1.0, 2.0, 0.5, 0.0, 0.75, -2.0, 0.5, 0.5, -1.0];
    let hundred: Vec<f32> = logits.iter().copied().cycle().take(1200).collect();
    let was = Rescaling { temperature: 2.5, bias: vec![0.4, -0.1, -0.3] };
    let old: Vec<f64> = was.apply(&hundred).chunks(3).flat_map(softmax).collect();
    let found = fit_temperature_and_bias(&hundred, 3, RefitTo::Probabilities(&old)).unwrap();
    // Not to the last digit: the prior pulls towards T = 1 and b = 0 with the weight of a hundredth of a row.
    assert!((found.temperature - 2.5).abs() < 0.01, "{found:?}");
    assert!(found.bias.iter().sum::<f64>().abs() < 1e-8, "{found:?}");
    // As they come from a file: each a little off.
    let rounded: Vec<f64> = old.iter().map(|p| f64::from(*p as f32)).collect();
    let again = fit_temperature_and_bias(&hundred, 3, RefitTo::Probabilities(&rounded)).unwrap();
    assert!(again.bias.iter().sum::<f64>().abs() < 1e-8, "{again:?}");
    let all = found.bias.iter().zip(&was.bias);
    assert!(all.into_iter().all(|(a, b)| (a - b).abs() < 0.01), "{found:?}");
}

fn softmax(row: &[f32]) -> Vec<f64> {
    let exp: Vec<f64> = row.iter().map(|z| f64::from(*z).exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.iter().map(|x| x / sum).collect()
}

#[test]
fn a_folded_head_gives_the_rescaled_logits() {
    let state = golden_state();
    let rows = toy_rows(6, 1);
    let logits = |model: &Classifier| predict(model, &rows, 2, &CPU, &mut |_| {}).unwrap().logits;
    let rescaling = Rescaling { temperature: 1.7, bias: vec![0.5, -0.25, -0.25] };
    let expected = rescaling.apply(&logits(&state.model));
    let folded = rescaling.fold(&state.model.params).unwrap();
    let config: Config = state.model.config.clone();
    let found = logits(&Classifier::new(config, folded.clone()).unwrap());
    let apart = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart < 1e-6, "{apart}");
    assert!(found != logits(&state.model));
    // The given model stays as it is, and so do all tensors below the head.
    let changed: Vec<&str> = state
        .model
        .params
        .tensors()
        .zip(folded.tensors())
        .filter(|((_, a), (_, b))| numbers(a) != numbers(b))
        .map(|((name, _), _)| name)
        .collect();
    assert_eq!(changed, ["classifier.bias", "classifier.weight"]);

    let other = Rescaling { temperature: 1.0, bias: vec![0.0; 4] };
    let said = other.fold(&state.model.params).unwrap_err().to_string();
    assert_eq!(
        said,
        "temperature and bias can't be fitted: classifier.bias is [3], but the fit has 4 classes"
    );
}

#[test]
fn what_cant_be_fitted_is_said() {
    let said = |logits: &[f32], to: RefitTo| {
        let error = fit_temperature(logits, 2, to).unwrap_err().to_string();
        error.strip_prefix("temperature and bias can't be fitted: ").unwrap_or(&error).to_string()
    };
    let labels = [Some(0), Some(1)];
    assert_eq!(
        said(&[0.0, 1.0], RefitTo::Labels(&labels)),
        "2 logits for 2 rows of 2 classes, expected N·K and two classes"
    );
    assert_eq!(
        said(&[0.0, 1.0, f32::NAN, 0.0], RefitTo::Labels(&labels)),
        "row 1 has the logit NaN, expected a number"
    );
    assert_eq!(
        said(&[0.0; 4], RefitTo::Labels(&[None, None])),
        "no row to fit a temperature on; give rows with labels"
    );
    assert_eq!(
        said(&[0.0; 4], RefitTo::Labels(&[Some(0), Some(2)])),
        "row 1: label 2, but the model has 2 classes"
    );
    assert_eq!(
        said(&[0.0; 2], RefitTo::Probabilities(&[0.5, 0.4])),
        "row 0 has the probabilities [0.5, 0.4], expected shares that sum to 1"
    );
    let wrong: Vec<f32> = [5.0, 0.0, 0.0, 5.0].repeat(50);
    let labels: Vec<Option<u32>> = [Some(1), Some(0)].repeat(50);
    let text = said(&wrong, RefitTo::Labels(&labels));
    assert!(text.starts_with("the best 1/T is -"), "{text}");
    assert!(text.contains("the logits order these rows' classes the wrong way round"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A fit never loses, more freedom never loses against less, predictions survive a temperature, and Σ b = 0.
    #[test]
    fn more_freedom_fits_no_worse(
        (classes, logits, labels) in (2usize..6).prop_flat_map(|k| (
            Just(k),
            prop::collection::vec(-8f32..8.0, 30 * k),
            prop::collection::vec(0..k as u32, 30),
        )),
    ) {
        let labels: Vec<Option<u32>> = labels.into_iter().map(Some).collect();
        let to = RefitTo::Labels(&labels);
        let score = |rescaling: &Rescaling| {
            let n = 30.0;
            let scale = 1.0 / rescaling.temperature;
            let squares: f64 = rescaling.bias.iter().map(|b| b * b).sum();
            n * rescaled_loss(&logits, classes, to, rescaling).unwrap().unwrap()
                + ((scale - 1.0).powi(2) + squares) / 200.0
        };
        let plain = Rescaling { temperature: 1.0, bias: vec![0.0; classes] };
        // Labels at random are often best fitted by a negative 1/T, which is refused.
        let Ok(temperature) = fit_temperature(&logits, classes, to) else { return Ok(()) };
        let scaled = Rescaling { temperature, ..plain.clone() };
        prop_assert!(score(&scaled) <= score(&plain) + 1e-9);
        let top = |row: &[f32]| (0..row.len()).fold(0, |a, b| if row[b] > row[a] { b } else { a });
        // Rounded to f32, two logits may become equal; where they are apart their order stays.
        let (before, after) = (logits.chunks(classes), scaled.apply(&logits));
        for (before, after) in before.zip(after.chunks(classes)) {
            prop_assert!(after[top(before)] >= after[top(after)]);
        }
        let Ok(both) = fit_temperature_and_bias(&logits, classes, to) else { return Ok(()) };
        prop_assert!(score(&both) <= score(&scaled) + 1e-9);
        prop_assert!(both.bias.iter().sum::<f64>().abs() < 1e-6);
    }
}
