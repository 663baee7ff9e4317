//! How noisy the gradients of a student are, batch by batch, and how much of that a teacher takes away (papers.md 8.5).
//!
//! Of a batch, a = ∇ of the mean cross-entropy to labels at the student's weights, b the teacher's part of distillation's gradient:
//! its residual through the student, J(x)ᵀ(p(θ) − y). Distillation at weight λ and T = 1 descends a − λ·b. Both are taken without
//! dropout. Where the teacher has the student's architecture, its own gradient J(θ)ᵀ(p(θ) − y) can be measured beside it; the two
//! are the same for a linear model, and the cosine says how far they are apart for another. Only what was trained is measured: a
//! linear probe is linear, whatever stands still below it.
//!
//! A batch costs one forward pass and two backward ones, where training has one of each and the optimizer's; the teacher's own
//! gradients a pass of both kinds more, so they are taken of every sixteenth batch. `just bench` says what that is in updates.

mod caveats;

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{Device, Tensor};
use lowchurn_data::{Encoded, collate};
use lowchurn_kernels::{Gradients, awake, backward, backward_keeping};
use lowchurn_models::{Classifier, Depth, Input, Mode, Params, depth};
use serde::{Deserialize, Serialize};

use crate::check::check_gradients;
use crate::loss::term::log_softmax;
use crate::variance::label_losses;
use crate::{Error, Grads, OldWeights, Plan, Result, SelectBy, Teacher};

pub use caveats::caveats;

/// Means over batches of products of two gradients a and b.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    /// E‖a‖², ‖E a‖².
    pub student: f64,
    pub student_of_mean: f64,
    /// E‖b‖², ‖E b‖².
    pub teacher: f64,
    pub teacher_of_mean: f64,
    /// E⟨a, b⟩, ⟨E a, E b⟩.
    pub product: f64,
    pub product_of_means: f64,
}

/// One part of the model, with what follows from its products.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupNoise {
    /// `all`, `embeddings`, `layer N` or `head`.
    pub group: String,
    pub numbers: usize,
    #[serde(flatten)]
    pub noise: Noise,
    /// E‖a − E a‖².
    pub variance: f64,
    /// λ that makes E‖a − λ·b‖² least, and E‖a − λ·b − E(a − λ·b)‖²; `None` where b is zero.
    pub lambda_hat: Option<f64>,
    pub lambda_hat_centred: Option<f64>,
    /// Squared correlations of a and b, of which the first is not centred.
    pub rho2: Option<f64>,
    pub rho2_centred: Option<f64>,
    /// Of the variance, what is left at the best λ, 1 − ρ² centred, and at the λ in use.
    pub predicted_ratio: Option<f64>,
    pub measured_ratio: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GradientReport {
    pub batches: usize,
    pub rows: usize,
    /// In use.
    pub lambda: f64,
    /// Weights of the student that aren't measured.
    pub numbers_left_out: usize,
    /// With the teacher's residual through the student.
    pub groups: Vec<GroupNoise>,
    /// With the teacher's own gradients, over `own_batches` of the batches; nothing where it has another architecture.
    pub own: Vec<GroupNoise>,
    pub own_batches: usize,
    /// (own_batches,) between a − λ·b of both kinds, over the whole model.
    pub cosines: Vec<f64>,
    /// (batches,) between the labels' gradient a and distillation's a − λ·b, over the whole model.
    pub label_cosines: Vec<f64>,
}

/// What is measured on.
#[derive(Clone, Copy)]
pub struct Measuring<'m> {
    pub student: &'m Classifier,
    /// Its parameters that were trained, by name; see [`crate::trained_names`].
    pub trained: &'m BTreeSet<String>,
    /// With its logits on the rows.
    pub teacher: &'m Teacher,
    /// For its own gradients.
    pub weights: Option<&'m OldWeights>,
    pub rows: &'m Encoded,
    /// Rows of each batch.
    pub batches: &'m [Vec<u32>],
    pub lambda: f64,
    pub device: &'m Device,
}

impl Noise {
    pub fn variance(&self) -> f64 {
        self.student - self.student_of_mean
    }

    fn teacher_variance(&self) -> f64 {
        self.teacher - self.teacher_of_mean
    }

    fn covariance(&self) -> f64 {
        self.product - self.product_of_means
    }

    /// E⟨a, b⟩/E‖b‖².
    pub fn lambda_hat(&self) -> Option<f64> {
        ratio(self.product, self.teacher)
    }

    pub fn lambda_hat_centred(&self) -> Option<f64> {
        ratio(self.covariance(), self.teacher_variance())
    }

    /// E⟨a, b⟩²/(E‖a‖²·E‖b‖²).
    pub fn rho2(&self) -> Option<f64> {
        ratio(self.product.powi(2), self.student * self.teacher)
    }

    pub fn rho2_centred(&self) -> Option<f64> {
        ratio(self.covariance().powi(2), self.variance() * self.teacher_variance())
    }

    /// E‖a − λ·b − E(a − λ·b)‖².
    pub fn variance_at(&self, lambda: f64) -> f64 {
        self.variance() - 2.0 * lambda * self.covariance()
            + lambda * lambda * self.teacher_variance()
    }

    fn of_group(self, group: String, numbers: usize, lambda: f64) -> GroupNoise {
        let rho2_centred = self.rho2_centred();
        GroupNoise {
            group,
            numbers,
            noise: self,
            variance: self.variance(),
            lambda_hat: self.lambda_hat(),
            lambda_hat_centred: self.lambda_hat_centred(),
            rho2: self.rho2(),
            rho2_centred,
            predicted_ratio: rho2_centred.map(|rho2| 1.0 - rho2),
            measured_ratio: ratio(self.variance_at(lambda), self.variance()),
        }
    }
}

fn ratio(a: f64, b: f64) -> Option<f64> {
    (b > 0.0).then(|| a / b)
}

/// ⟨a, a⟩, ⟨b, b⟩ and ⟨a, b⟩.
#[derive(Clone, Copy, Default)]
struct Products {
    aa: f64,
    bb: f64,
    ab: f64,
}

impl Products {
    fn add(&mut self, x: Products) {
        *self = Products { aa: self.aa + x.aa, bb: self.bb + x.bb, ab: self.ab + x.ab };
    }

    /// Between a and a − λ·b; 1 where one of them is zero.
    fn cosine_to_distillation(self, lambda: f64) -> f64 {
        let Products { aa, ab, .. } = self;
        cosine(aa - lambda * ab, aa, self.of_distillation(lambda), aa)
    }

    /// ‖a − λ·b‖².
    fn of_distillation(self, lambda: f64) -> f64 {
        self.aa - 2.0 * lambda * self.ab + lambda * lambda * self.bb
    }

    /// Between a − λ·b and a − λ·c, of which `own` are the products of a and c, and `bc` is ⟨b, c⟩.
    fn cosine_to_own(self, own: Products, bc: f64, lambda: f64) -> f64 {
        let between = self.aa - lambda * (self.ab + own.ab) + lambda * lambda * bc;
        cosine(between, self.of_distillation(lambda), own.of_distillation(lambda), self.aa)
    }
}

/// ⟨x, y⟩/(‖x‖·‖y‖) from ⟨x, y⟩, ‖x‖² and ‖y‖²; 1 where one of them is zero. Products of gradients are of f32, so what is left of
/// numbers of the size `of` below its rounding is no direction.
fn cosine(xy: f64, xx: f64, yy: f64, of: f64) -> f64 {
    let least = 1e-9 * of;
    if xx > least && yy > least { xy / (xx * yy).sqrt() } else { 1.0 }
}

/// Sums over batches, part by part.
#[derive(Default)]
struct Sums {
    batches: usize,
    /// Σ a and Σ b.
    a: Grads,
    b: Grads,
    products: BTreeMap<String, Products>,
}

impl Sums {
    /// The products over the whole model.
    fn add(&mut self, a: Grads, b: Grads) -> Result<Products> {
        let mut all = Products::default();
        for (name, a) in &a.0 {
            let Some(b) = b.0.get(name) else { continue };
            let products =
                Products { aa: a.sum_of_squares()?, bb: b.sum_of_squares()?, ab: a.dot(b)? };
            self.products.entry(name.clone()).or_default().add(products);
            all.add(products);
        }
        self.batches += 1;
        self.a.merge(a)?;
        self.b.merge(b)?;
        Ok(all)
    }

    /// `all` first, then each part from below.
    fn groups(&self, student: &Classifier, lambda: f64) -> Result<Vec<GroupNoise>> {
        let mut groups: BTreeMap<(Option<Depth>, String), (Noise, usize)> = BTreeMap::new();
        let n = self.batches as f64;
        for (name, products) in &self.products {
            let (a, b) = (&self.a.0[name], &self.b.0[name]);
            let numbers = student.params.0[name].elem_count();
            let at = depth(&student.config, name);
            let part = match at {
                Depth::Embedding => "embeddings".to_string(),
                Depth::Layer(layer) => format!("layer {layer}"),
                Depth::Head => "head".into(),
            };
            let of_means = (a.sum_of_squares()?, b.sum_of_squares()?, a.dot(b)?);
            for key in [(None, "all".to_string()), (Some(at), part)] {
                let (sum, n_numbers) = groups.entry(key).or_default();
                sum.student += products.aa / n;
                sum.teacher += products.bb / n;
                sum.product += products.ab / n;
                sum.student_of_mean += of_means.0 / (n * n);
                sum.teacher_of_mean += of_means.1 / (n * n);
                sum.product_of_means += of_means.2 / (n * n);
                *n_numbers += numbers;
            }
        }
        Ok(groups
            .into_iter()
            .map(|((_, name), (noise, numbers))| noise.of_group(name, numbers, lambda))
            .collect())
    }
}

fn dot(a: &Grads, b: &Grads) -> Result<f64> {
    let both = a.0.iter().filter_map(|(name, a)| Some((a, b.0.get(name)?)));
    both.map(|(a, b)| Ok(a.dot(b)?)).sum()
}

/// The teacher's own gradients are taken of each batch whose number divides by this: every sixteenth, and of two at least. With those
/// of every eighth a measured batch costs more than two updates on a machine that does other things, too.
fn own_every(batches: usize) -> usize {
    batches.div_ceil(2).clamp(1, 16)
}

/// Measures the gradients of each batch; `on` is told how many are done, and `false` from it stops. `None` where it stopped.
///
/// Refuses rows without a label, a teacher that doesn't know all classes, fewer than two batches, and weights of other shapes.
pub fn gradient_noise(
    measuring: &Measuring,
    on: &mut dyn FnMut(usize) -> bool,
) -> Result<Option<GradientReport>> {
    check_gradients(measuring)?;
    let &Measuring { student, trained, teacher, weights, rows, batches, lambda, device } =
        measuring;
    let plan = Plan::default_with(SelectBy::Loss);
    let theirs = weights.map(|weights| theirs(student, weights)).transpose()?;
    let measured = part_of(&student.params, trained);
    let of_theirs = theirs.as_ref().map(|theirs| part_of(theirs, trained));
    let (mut residual, mut own) = (Sums::default(), Sums::default());
    let (mut cosines, mut label_cosines) = (Vec::new(), Vec::new());
    for (n, batch) in batches.iter().enumerate() {
        let batch = collate(rows, batch, student.config.pad_token_id);
        let input = Input::new(&batch.tokens, &batch.types, &batch.lengths, batch.width, device)?;
        let size = batch.rows.len() as f64;
        let mean = |losses: Tensor| -> Result<Tensor> { Ok((losses.sum_all()? / size)?) };
        let logits_at = |params: &Params| -> Result<Tensor> {
            // Below the lowest part that was trained nothing is computed backwards.
            let tensors = params.0.iter().map(|(name, var)| match trained.contains(name) {
                true => (name.clone(), var.as_tensor().clone()),
                false => (name.clone(), var.as_detached_tensor()),
            });
            Ok(student.forward_with(&tensors.collect(), &input, Mode::Eval)?) // (B, K)
        };
        let of = |params: &Params, mut found: Gradients| -> Result<Grads> {
            let mut grads = Grads::default();
            grads.add(params, &mut found)?;
            Ok(grads)
        };
        awake(|| -> Result<()> {
            let logits = logits_at(&student.params)?; // (B, K)
            let labels = mean(label_losses(&plan, rows, &batch, &logits)?)?;
            let a = of(&measured, backward_keeping(&labels)?)?;
            let towards = residuals(teacher, rows, &batch.rows, device)?; // (B, K)
            let told = mean((&logits * &towards)?.sum(1)?)?;
            let b = of(&measured, backward(&told)?)?;
            let is_own = n.is_multiple_of(own_every(batches.len()));
            if let (Some(theirs), Some(measured)) = (&theirs, &of_theirs)
                && is_own
            {
                let labels = mean(label_losses(&plan, rows, &batch, &logits_at(theirs)?)?)?;
                let c = of(measured, backward(&labels)?)?;
                let (ab, bb, bc) = (dot(&a, &b)?, dot(&b, &b)?, dot(&b, &c)?);
                let with_own = own.add(a.clone(), c)?;
                let residual = Products { aa: with_own.aa, bb, ab };
                cosines.push(residual.cosine_to_own(with_own, bc, lambda));
            }
            label_cosines.push(residual.add(a, b)?.cosine_to_distillation(lambda));
            Ok(())
        })?;
        if !on(n + 1) {
            return Ok(None);
        }
    }
    Ok(Some(GradientReport {
        batches: batches.len(),
        rows: batches.iter().map(Vec::len).sum(),
        lambda,
        numbers_left_out: numbers(&student.params) - numbers(&measured),
        groups: residual.groups(student, lambda)?,
        own: own.groups(student, lambda)?,
        own_batches: own.batches,
        cosines,
        label_cosines,
    }))
}

fn part_of(params: &Params, names: &BTreeSet<String>) -> Params {
    let named = params.0.iter().filter(|(name, _)| names.contains(*name));
    Params(named.map(|(name, var)| (name.clone(), var.clone())).collect())
}

fn numbers(params: &Params) -> usize {
    params.0.values().map(|var| var.elem_count()).sum()
}

/// p(θ) − y of each row, (B, K): what it is multiplied by the logits' Jacobian to.
fn residuals(teacher: &Teacher, rows: &Encoded, which: &[u32], device: &Device) -> Result<Tensor> {
    let k = teacher.known.len();
    let mut values = Vec::with_capacity(which.len() * k);
    for &row in which {
        let logits: Vec<f64> =
            teacher.logits_of(row as usize).iter().map(|&z| f64::from(z)).collect();
        let label = rows.labels[row as usize];
        values.extend(log_softmax(&logits, 1.0).iter().enumerate().map(|(class, log_p)| {
            let y = if label == Some(class as u32) { 1.0 } else { 0.0 };
            (log_p.exp() - y) as f32
        }));
    }
    Ok(Tensor::from_vec(values, (which.len(), k), device)?)
}

/// The teacher's weights as variables, in the student's names and shapes.
fn theirs(student: &Classifier, weights: &OldWeights) -> Result<Params> {
    let mut all = BTreeMap::new();
    for (name, var) in &student.params.0 {
        let found = weights.params.get(name).filter(|tensor| tensor.dims() == var.dims());
        let Some(tensor) = found else {
            return Err(Error::Method {
                reason: format!(
                    "the teacher's own gradients: its {name} is missing or of another shape, so it isn't of the student's architecture"
                ),
            });
        };
        all.insert(name.clone(), candle_core::Var::from_tensor(&tensor.copy()?.detach())?);
    }
    Ok(Params(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// papers_examples.json, F1 and F2: the statistics of the three gradients of the linear example.
    #[test]
    fn statistics_are_those_of_the_papers() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/papers_examples.json");
        let all: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let rows = |key: &str| -> Vec<Vec<f64>> {
            serde_json::from_value(all["F1_linear_identity"][key].clone()).unwrap()
        };
        let (a, b) = (rows("g_student"), rows("g_teacher"));
        let n = a.len() as f64;
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let of = |a: &[Vec<f64>], b: &[Vec<f64>]| {
            a.iter().zip(b).map(|(a, b)| dot(a, b)).sum::<f64>() / n
        };
        let mean = |rows: &[Vec<f64>]| -> Vec<f64> {
            (0..rows[0].len()).map(|c| rows.iter().map(|row| row[c]).sum::<f64>() / n).collect()
        };
        let (mean_a, mean_b) = (mean(&a), mean(&b));
        let noise = Noise {
            student: of(&a, &a),
            student_of_mean: dot(&mean_a, &mean_a),
            teacher: of(&b, &b),
            teacher_of_mean: dot(&mean_b, &mean_b),
            product: of(&a, &b),
            product_of_means: dot(&mean_a, &mean_b),
        };
        let case = &all["F2_noise_stats"];
        let check = |found: f64, key: &str| {
            let expected = case[key].as_f64().unwrap();
            assert!((found - expected).abs() < 2e-8, "{key}: {found} {expected}");
        };
        check(noise.student, "E_gs2");
        check(noise.teacher, "E_gt2");
        check(noise.product, "E_gs_dot_gt");
        check(noise.teacher_of_mean, "full_grad_teacher_sq");
        check(noise.lambda_hat().unwrap(), "lam_star_second_moment");
        check(noise.rho2().unwrap(), "rho2");
        check(noise.student * (1.0 - noise.rho2().unwrap()), "min_second_moment");
        check(noise.variance(), "var_gs");
        check(noise.lambda_hat_centred().unwrap(), "lam_star_variance");
        let group = noise.of_group("all".into(), 6, noise.lambda_hat_centred().unwrap());
        check(noise.variance_at(noise.lambda_hat_centred().unwrap()), "min_variance");
        check(group.predicted_ratio.unwrap() * group.variance, "min_variance");
        // At the best λ what was measured is what was predicted.
        let (found, expected) = (group.measured_ratio.unwrap(), group.predicted_ratio.unwrap());
        assert!((found - expected).abs() < 1e-12, "{found} {expected}");
    }

    /// papers_examples.json, F4: w₂·tanh(w₁·a) with a squared loss. a is its own residual through the student, b the teacher's through
    /// the student and c the teacher's through itself.
    #[test]
    fn the_cosine_is_that_of_the_papers() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/papers_examples.json");
        let all: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let case = &all["F4_nonlinear_surrogate"];
        let number = |key: &str| case[key].as_f64().unwrap();
        let vector = |key: &str| -> Vec<f64> { serde_json::from_value(case[key].clone()).unwrap() };
        let (x, y, lambda) = (number("a"), number("y"), number("lam"));
        let at = |weights: &[f64]| {
            let inner = (weights[0] * x).tanh();
            let jacobian = [weights[1] * x * (1.0 - inner * inner), inner];
            (jacobian, weights[1] * inner - y)
        };
        let ((own_way, own), (teachers_way, theirs)) =
            (at(&vector("student")), at(&vector("teacher")));
        let times = |way: [f64; 2], residual: f64| way.map(|part| part * residual);
        let (a, b, c) = (times(own_way, own), times(own_way, theirs), times(teachers_way, theirs));
        for (towards, key) in [(b, "g_kd"), (c, "g_modified")] {
            for ((a, b), expected) in a.iter().zip(towards).zip(vector(key)) {
                assert!((a - lambda * b - expected).abs() < 1e-9, "{key}: {}", a - lambda * b);
            }
        }
        let dot = |a: [f64; 2], b: [f64; 2]| a[0] * b[0] + a[1] * b[1];
        let products = |b| Products { aa: dot(a, a), bb: dot(b, b), ab: dot(a, b) };
        let found = products(b).cosine_to_own(products(c), dot(b, c), lambda);
        assert!((found - number("cosine")).abs() < 1e-8, "{found}");
        assert_eq!(cosine(0.0, 0.0, 1.0, 1.0), 1.0);
        // a = (3, 4), b = (3, 0), λ = 1/2: a − λ·b = (1.5, 4).
        let products = Products { aa: 25.0, bb: 9.0, ab: 9.0 };
        let expected = 20.5 / (25.0f64 * 18.25).sqrt();
        assert!((products.cosine_to_distillation(0.5) - expected).abs() < 1e-12);
    }

    #[test]
    fn own_gradients_are_of_two_batches_at_least() {
        for n in 2..50 {
            let own = (0..n).filter(|at| at % own_every(n) == 0).count();
            assert!(own >= 2 && own <= n.div_ceil(16).max(2), "{own} of {n}");
        }
    }
}
