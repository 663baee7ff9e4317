//! Methods that act on weights, held to the papers' worked numbers, to PyTorch and to closed forms.

use std::collections::BTreeMap;
use std::fs;

use candle_core::{Tensor, Var};
use lowchurn_data::Encoded;
use lowchurn_distill::{
    Grads, OldWeights, Pull, Result, add_pull, distance, interpolate, interpolate_fisher, mixout,
    shrink_perturb, soup,
};
use lowchurn_kernels::{Dropout, Keys, backward};
use lowchurn_models::{Classifier, Head, Input, Mode, Params};
use proptest::prelude::*;
use serde_json::Value;

use crate::{CPU, golden_folder, numbers};

const NAMES: [&str; 3] = ["a.weight", "b.bias", "classifier.weight"];

#[test]
fn interpolation_is_that_of_the_papers() {
    let example = &papers()["G4_bcwi"];
    let [old, new, fisher] = ["old", "new", "fisher"].map(|key| pair(&example[key]));
    let alpha = example["alpha"].as_f64().unwrap();
    let (old, new) = (params(&[("w", &[2], &old)]), params(&[("w", &[2], &new)]));
    let fisher = tensors(&params(&[("w", &[2], &fisher)]));
    close(&interpolate(&old, &new, alpha).unwrap(), &pair(&example["plain"]), 1e-6);
    let weighted = interpolate_fisher(&old, &new, &fisher, alpha).unwrap();
    close(&weighted, &pair(&example["fisher_weighted"]), 1e-6);
}

#[test]
fn shrink_and_perturb_is_that_of_the_papers() {
    let example = &papers()["C12_shrink_perturb"];
    let [old, fresh] = ["theta_old", "theta_fresh"].map(|key| pair(&example[key]));
    let (old, fresh) = (params(&[("w", &[2], &old)]), params(&[("w", &[2], &fresh)]));
    let started = shrink_perturb(&old, &fresh, 0.4, 0.1).unwrap();
    close(&started, &pair(&example["shrink_0_4_perturb_0_1"]), 1e-6);
    let bytes = |params: &Params| params.fingerprint().unwrap();
    assert_eq!(bytes(&shrink_perturb(&old, &fresh, 1.0, 0.0).unwrap()), bytes(&old));
    assert_eq!(bytes(&shrink_perturb(&old, &fresh, 0.0, 1.0).unwrap()), bytes(&fresh));
}

/// Any f32 but NaN; zeros of both signs often.
fn number() -> impl Strategy<Value = f32> {
    prop_oneof![
        Just(0.0f32),
        Just(-0.0),
        -10f32..10.0,
        any::<f32>().prop_filter("NaN", |x| !x.is_nan())
    ]
}

proptest! {
    #[test]
    fn the_ends_are_the_models_themselves(
        old in prop::collection::vec(number(), 6), new in prop::collection::vec(number(), 6),
        information in prop::collection::vec(prop_oneof![Just(0f32), 0f32..9.0], 6),
    ) {
        let model = |values: &[f32]| params(&[("a", &[2, 2], &values[..4]), ("b", &[2], &values[4..])]);
        let (old, new, fisher) = (model(&old), model(&new), tensors(&model(&information)));
        let bytes = |params: &Params| params.fingerprint().unwrap();
        for (alpha, end) in [(0.0, &new), (1.0, &old)] {
            prop_assert_eq!(bytes(&interpolate(&old, &new, alpha).unwrap()), bytes(end));
            prop_assert_eq!(bytes(&interpolate_fisher(&old, &new, &fisher, alpha).unwrap()), bytes(end));
        }
        prop_assert_eq!(bytes(&soup(&[&old]).unwrap()), bytes(&old));
        prop_assert_eq!(distance(&old, &old).unwrap(), 0.0);
    }

    /// Every weight lies between the two, moves with α, and a constant Fisher information of 1 changes nothing.
    #[test]
    fn what_lies_between(
        old in prop::collection::vec(-10f32..10.0, 4), new in prop::collection::vec(-10f32..10.0, 4), alpha in 0.01f64..0.99,
    ) {
        let model = |values: &[f32]| params(&[("a", &[4], values)]);
        let ones = tensors(&model(&[1.0; 4]));
        let (old_model, new_model) = (model(&old), model(&new));
        let between = interpolate(&old_model, &new_model, alpha).unwrap();
        let weighted = interpolate_fisher(&old_model, &new_model, &ones, alpha).unwrap();
        let (a, b) = (numbers(&between.0["a"]), numbers(&weighted.0["a"]));
        for i in 0..4 {
            prop_assert!(a[i] >= old[i].min(new[i]) && a[i] <= old[i].max(new[i]));
            prop_assert!((a[i] - b[i]).abs() <= 1e-6);
        }
        let whole = distance(&old_model, &new_model).unwrap();
        prop_assert!((distance(&between, &new_model).unwrap() - alpha * whole).abs() <= 1e-5);
        prop_assert!((distance(&old_model, &between).unwrap() - (1.0 - alpha) * whole).abs() <= 1e-5);
        let mean = soup(&[&old_model, &new_model]).unwrap();
        let half = interpolate(&old_model, &new_model, 0.5).unwrap();
        prop_assert_eq!(mean.fingerprint().unwrap(), half.fingerprint().unwrap());
    }
}

#[test]
fn a_soup_is_the_mean() {
    let models = [[1.0, -2.0], [4.0, 0.5], [-2.0, 9.0]].map(|w| params(&[("w", &[2], &w)]));
    let mean = soup(&[&models[0], &models[1], &models[2]]).unwrap();
    close(&mean, &[1.0, 2.5], 0.0);
}

/// Two old classes, then two new ones: what the old model says nothing of is the new model's.
#[test]
fn rows_of_new_classes_are_the_new_models() {
    let old = params(&[("classifier.bias", &[2], &[1.0, 2.0]), ("w", &[1], &[1.0])]);
    let new = params(&[("classifier.bias", &[4], &[3.0, 6.0, 7.0, 8.0]), ("w", &[1], &[2.0])]);
    let ones = tensors(&params(&[("classifier.bias", &[2], &[1.0, 1.0]), ("w", &[1], &[1.0])]));
    let check = |found: Result<Params>, bias: [f32; 4]| {
        assert_eq!(numbers(&found.unwrap().0["classifier.bias"]), bias);
    };
    check(interpolate(&old, &new, 0.5), [2.0, 4.0, 7.0, 8.0]);
    check(interpolate(&old, &new, 1.0), [1.0, 2.0, 7.0, 8.0]);
    check(interpolate_fisher(&old, &new, &ones, 0.5), [2.0, 4.0, 7.0, 8.0]);
    check(interpolate_fisher(&old, &new, &ones, 1.0), [1.0, 2.0, 7.0, 8.0]);
    check(shrink_perturb(&old, &new, 0.5, 1.0), [3.5, 7.0, 7.0, 8.0]);
    assert_eq!(distance(&old, &new).unwrap(), (4f64 + 16.0 + 1.0).sqrt());
}

#[test]
fn models_that_do_not_fit_are_refused() {
    let check = |found: Result<Params>, expected: &str| {
        assert_eq!(found.unwrap_err().to_string(), expected);
    };
    let one = |name, n| params(&[(name, &[n], &vec![1.0; n])]);
    let many = |letter: &str| {
        let names: Vec<String> = (0..5).map(|n| format!("{letter}{n}")).collect();
        let tensors: Vec<_> =
            names.iter().map(|name| (&name[..], &[1usize][..], &[1f32][..])).collect();
        params(&tensors)
    };
    check(
        interpolate(&one("a", 2), &one("b", 2), 0.5),
        "the old model and the new model are of different architectures or sizes: \
         only the old model has a; only the new model has b",
    );
    check(
        interpolate(&many("a"), &Params(BTreeMap::new()), 0.5),
        "the old model and the new model are of different architectures or sizes: \
         only the old model has a0, a1, a2 and 2 more; only the new model has nothing",
    );
    check(
        interpolate(&one("a", 2), &one("a", 3), 0.5),
        "a is [2] in the old model and [3] in the new model; weights are combined where shapes are the same, \
         or where the new head has more classes",
    );
    check(
        shrink_perturb(&one("classifier.bias", 3), &one("classifier.bias", 2), 0.5, 0.5),
        "classifier.bias is [3] in the old model and [2] in the new model; weights are combined where shapes are the same, \
         or where the new head has more classes",
    );
    check(
        soup(&[&one("classifier.bias", 2), &one("classifier.bias", 2), &one("classifier.bias", 3)]),
        "classifier.bias is [2] in model 1 and [3] in model 3; weights are combined where shapes are the same, \
         or where the new head has more classes",
    );
    check(soup(&[]), "a soup is the mean of models, and there is none; give at least one");
    for alpha in [-0.1, 1.1, f64::NAN] {
        check(
            interpolate(&one("a", 2), &one("a", 2), alpha),
            &format!("alpha is {alpha}, expected a number from 0 to 1"),
        );
    }
    check(
        shrink_perturb(&one("a", 2), &one("a", 2), -1.0, 0.1),
        "shrink is -1, expected a number of at least 0",
    );
    check(
        shrink_perturb(&one("a", 2), &one("a", 2), 1.0, f64::INFINITY),
        "perturb is inf, expected a number of at least 0",
    );
    let weigh =
        |fisher: &Params| interpolate_fisher(&one("a", 2), &one("a", 2), &tensors(fisher), 0.5);
    check(
        weigh(&one("a", 3)),
        "a is [2] in the old model and [3] in the Fisher information; weights are combined where shapes are the same, \
         or where the new head has more classes",
    );
    for value in [-1.0, f32::NAN, f32::INFINITY] {
        check(
            weigh(&params(&[("a", &[2], &[0.0, value])])),
            &format!(
                "the Fisher information of a holds {value}, expected finite numbers of at least 0"
            ),
        );
    }
    assert!(distance(&one("a", 2), &one("a", 3)).is_err());
}

proptest! {
    /// The gradient is the derivative of the penalty, by central differences, which are exact for squares.
    #[test]
    fn a_pull_is_the_gradient_of_its_penalty(
        values in prop::collection::vec((-4f32..4.0, -4f32..4.0, 0f32..4.0), 9), strength in 0f64..4.0, at in 0usize..9,
    ) {
        let model = |values: Vec<f32>| {
            params(&[(NAMES[0], &[2, 2], &values[..4]), (NAMES[1], &[3], &values[4..7]), (NAMES[2], &[1, 2], &values[7..])])
        };
        let column = |pick: fn(&(f32, f32, f32)) -> f32| -> Vec<f32> { values.iter().map(pick).collect() };
        let old = OldWeights {
            fisher: Some(tensors(&model(column(|v| v.2)))),
            ..OldWeights::copy_of(&model(column(|v| v.1))).unwrap()
        };
        for pull in [Pull::L2 { strength }, Pull::Ewc { strength }] {
            let mut grads = Grads::default();
            add_pull(&mut grads, &model(column(|v| v.0)), &old, pull).unwrap();
            let flat = |grads: &Grads| -> Vec<f32> { grads.0.values().flat_map(|grad| numbers(&grad.to_tensor().unwrap())).collect() };
            let penalty = |by: f64| -> f64 {
                let of = |(row, &(p, old, f)): (usize, &(f32, f32, f32))| {
                    let f = if pull == (Pull::L2 { strength }) { 1.0 } else { f64::from(f) };
                    let by = if row == at { by } else { 0.0 };
                    strength / 2.0 * f * (f64::from(p) + by - f64::from(old)).powi(2)
                };
                values.iter().enumerate().map(of).sum()
            };
            let slope = (penalty(0.5) - penalty(-0.5)) / 1.0;
            prop_assert!((f64::from(flat(&grads)[at]) - slope).abs() <= 1e-3, "{} {slope}", flat(&grads)[at]);
            // A second call adds to what is there.
            add_pull(&mut grads, &model(column(|v| v.0)), &old, pull).unwrap();
            prop_assert!((f64::from(flat(&grads)[at]) - 2.0 * slope).abs() <= 2e-3);
        }
    }
}

#[test]
fn a_pull_leaves_new_classes_alone() {
    let old = params(&[("classifier.weight", &[1, 2], &[1.0, 2.0])]);
    let mut old = OldWeights::copy_of(&old).unwrap();
    let new = params(&[("classifier.weight", &[2, 2], &[2.0, 0.0, 7.0, 7.0])]);
    old.fisher = Some(tensors(&params(&[("classifier.weight", &[1, 2], &[3.0, 0.0])])));
    let check = |pull, gradient: [f32; 4]| {
        let mut grads = Grads::default();
        add_pull(&mut grads, &new, &old, pull).unwrap();
        assert_eq!(numbers(&grads.0["classifier.weight"].to_tensor().unwrap()), gradient);
    };
    check(Pull::L2 { strength: 0.5 }, [0.5, -1.0, 0.0, 0.0]);
    check(Pull::Ewc { strength: 2.0 }, [6.0, 0.0, 0.0, 0.0]);
}

#[test]
fn pulls_that_cannot_be() {
    let model = params(&[("a", &[2], &[1.0, 2.0])]);
    let check = |old: &OldWeights, pull, expected: &str| {
        let mut grads = Grads::default();
        let found = add_pull(&mut grads, &model, old, pull);
        assert_eq!((found.unwrap_err().to_string().as_str(), grads.0.len()), (expected, 0));
    };
    let old = OldWeights::copy_of(&model).unwrap();
    check(
        &old,
        Pull::Ewc { strength: 1.0 },
        "the pull by Fisher information needs that of the old model; make it first",
    );
    check(&old, Pull::L2 { strength: -1.0 }, "strength is -1, expected a number of at least 0");
    check(
        &OldWeights::copy_of(&params(&[("a", &[3], &[0.0; 3])])).unwrap(),
        Pull::L2 { strength: 1.0 },
        "a is [3] in the old model and [2] in the new model; weights are combined where shapes are the same, \
         or where the new head has more classes",
    );
    let fisher = Some(tensors(&params(&[("a", &[1], &[1.0])])));
    check(
        &OldWeights { fisher, ..old },
        Pull::Ewc { strength: 1.0 },
        "a is [2] in the old model and [1] in the Fisher information; weights are combined where shapes are the same, \
         or where the new head has more classes",
    );
}

/// A copy stays behind when training goes on.
#[test]
fn old_weights_do_not_follow() {
    let model = params(&[("a", &[2], &[1.0, 2.0])]);
    let old = OldWeights::copy_of(&model).unwrap();
    model.0["a"].set(&Tensor::new(&[5f32, 5.0], &CPU).unwrap()).unwrap();
    assert_eq!(numbers(&old.params["a"]), [1.0, 2.0]);
    assert!(!old.params["a"].track_op());
}

#[test]
fn mixout_is_its_formula_with_one_mask_row() {
    let (p, n) = (0.3f64, 7);
    let (w, old): (Vec<f32>, Vec<f32>) =
        (0..3 * n).map(|i| ((i as f32).sin(), (i as f32 * 0.7).cos())).unzip();
    let model = params(&[
        ("a.weight", &[3, n], &w),
        ("b.bias", &[n], &w[..n]),
        ("classifier.weight", &[3, n], &w),
    ]);
    let old_model = params(&[
        ("a.weight", &[3, n], &old),
        ("b.bias", &[n], &old[..n]),
        ("classifier.weight", &[2, n], &old[..2 * n]),
    ]);
    let old_weights = OldWeights::copy_of(&old_model).unwrap();
    let mixed = mixout(&model, &old_weights, p, &mut Keys::new(5)).unwrap();
    let mut keys = Keys::new(5);
    let (mut n_old, mut n_all) = (0, 0);
    for (name, var) in &model.0 {
        let dropped = Dropout { p: p as f32, key: keys.next() };
        let mixed_values = numbers(&mixed[name]);
        let old_values = numbers(&old_model.0[name]);
        let loss = mixed[name].sum_all().unwrap();
        let grad = backward(&loss).unwrap().remove(var).unwrap().unwrap();
        let grad = numbers(&grad.to_tensor().unwrap());
        for (i, &mixed) in mixed_values.iter().enumerate() {
            let Some(&old) = old_values.get(i) else {
                assert_eq!((mixed, grad[i]), (w[i], 1.0), "{name}: a new class stays as it is");
                continue;
            };
            let kept = if dropped.factor((i % n) as u32) > 0.0 { 1.0 } else { 0.0 };
            let (w, old) = (f64::from(w[i]), f64::from(old));
            let expected = (kept * w + (1.0 - kept) * old - p * old) / (1.0 - p);
            assert!((f64::from(mixed) - expected).abs() < 1e-6, "{name} {i}: {mixed} {expected}");
            assert!((f64::from(grad[i]) - kept / (1.0 - p)).abs() < 1e-6, "{name} {i}");
            n_old += usize::from(kept == 0.0);
            n_all += 1;
        }
    }
    assert!(0 < n_old && n_old < n_all, "{n_old} of {n_all}");
}

/// Within five standard errors of the mean over 4,000 masks: the variance of a mixed weight is p/(1 − p)·(w − w_old)².
#[test]
fn mixout_is_the_weights_on_average() {
    let (w, old) = ([2.0, -1.0, 0.5], [1.0, 3.0, 0.5]);
    let model = params(&[("a", &[1, 3], &w)]);
    let old_weights = OldWeights::copy_of(&params(&[("a", &[1, 3], &old)])).unwrap();
    let n = 4000;
    for p in [0.1, 0.9] {
        let mut keys = Keys::new(1);
        let mut sums = [0f64; 3];
        for _ in 0..n {
            let mixed = mixout(&model, &old_weights, p, &mut keys).unwrap();
            sums.iter_mut().zip(numbers(&mixed["a"])).for_each(|(sum, x)| *sum += f64::from(x));
        }
        for i in 0..3 {
            let (w, old) = (f64::from(w[i]), f64::from(old[i]));
            let error = (p / (1.0 - p) / f64::from(n)).sqrt() * (w - old).abs();
            let mean = sums[i] / f64::from(n);
            assert!((mean - w).abs() <= 5.0 * error + 1e-6, "p {p}: {mean} {w} ± {error}");
        }
    }
}

#[test]
fn mixout_reaches_every_parameter_and_ends_at_the_variables() {
    let model = golden_model();
    let rows = golden_rows();
    let old = OldWeights::copy_of(&model.params).unwrap();
    for var in model.params.0.values() {
        var.set(&(var.as_tensor() * 1.1).unwrap()).unwrap();
    }
    let same = mixout(&model.params, &old, 0.0, &mut Keys::new(1)).unwrap();
    assert!(same.iter().all(|(name, tensor)| tensor.id() == model.params.0[name].id()));

    let logits = |tensors: &BTreeMap<String, Tensor>, seed| {
        let mode = Mode::Train(&mut Keys::new(seed));
        model.forward_with(tensors, &input(&rows, 0), mode).unwrap()
    };
    let mixed = mixout(&model.params, &old, 0.5, &mut Keys::new(2)).unwrap();
    let loss = logits(&mixed, 1).sqr().unwrap().sum_all().unwrap();
    let mut found = backward(&loss).unwrap();
    let mut take =
        |(name, var): (&String, &Var)| (name.clone(), found.remove(var).unwrap().unwrap());
    let grads = Grads(model.params.0.iter().map(&mut take).collect());
    assert_eq!(grads.missing(&model.params).unwrap(), Vec::<String>::new());

    // As many keys as tensors, whatever p is, so that what follows draws the same.
    let next = |p| {
        let mut keys = Keys::new(9);
        mixout(&model.params, &old, p, &mut keys).unwrap();
        keys.next()
    };
    assert_eq!(next(0.0), next(0.5));
    for p in [1.0, -0.1, f64::NAN] {
        let found = mixout(&model.params, &old, p, &mut Keys::new(1));
        let expected = format!("mixout is {p}, expected a number from 0 to below 1");
        assert_eq!(found.unwrap_err().to_string(), expected);
    }
}

fn papers() -> Value {
    let text = fs::read(golden_folder().join("papers_examples.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn pair(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

pub fn params(tensors: &[(&str, &[usize], &[f32])]) -> Params {
    let var = |&(name, shape, values): &(&str, &[usize], &[f32])| {
        (name.to_string(), Var::from_vec(values.to_vec(), shape, &CPU).unwrap())
    };
    Params(tensors.iter().map(var).collect())
}

pub fn tensors(params: &Params) -> BTreeMap<String, Tensor> {
    params.tensors().map(|(name, var)| (name.to_string(), var.detach())).collect()
}

pub fn fingerprint(tensors: &BTreeMap<String, Tensor>) -> String {
    let var =
        |(name, tensor): (&String, &Tensor)| (name.clone(), Var::from_tensor(tensor).unwrap());
    Params(tensors.iter().map(var).collect()).fingerprint().unwrap()
}

fn close(found: &Params, expected: &[f32], tolerance: f32) {
    let found: Vec<f32> = found.tensors().flat_map(|(_, tensor)| numbers(tensor)).collect();
    assert!(crate::distance(&found, expected) <= tolerance, "{found:?} {expected:?}");
}

pub fn golden_model() -> Classifier {
    let dir = golden_folder().join("bert_tiny");
    Classifier::open(&dir, Head::FromCheckpoint, &CPU).unwrap().0
}

/// The batch that PyTorch saw, without its labels.
pub fn golden_rows() -> Encoded {
    let mut rows = crate::golden_rows();
    rows.labels.fill(None);
    rows
}

pub fn input(rows: &Encoded, row: u32) -> Input {
    let batch = crate::batch(rows, &[row]);
    Input::new(&batch.tokens, &batch.types, &batch.lengths, batch.width, &CPU).unwrap()
}
