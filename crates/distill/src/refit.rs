//! Temperature and bias of a trained classifier, fitted again on held-out logits and folded into its head: z' = z/T + b.
//!
//! Pure numbers: no gradient goes through the network, and a fit takes less time than reading the logits. Refuses logits
//! that order the classes the wrong way round, which no temperature mends.

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};
use lowchurn_models::{Params, is_head};

use crate::loss::term::log_softmax;
use crate::{Error, Result};

/// What the rescaled probabilities are to come near to, for each of N rows.
#[derive(Clone, Copy, Debug)]
pub enum RefitTo<'t> {
    /// (N,) The loss is −log p(label); rows without a label don't count.
    Labels(&'t [Option<u32>]),
    /// (N·K) Probabilities, such as the old model's; the loss is the cross-entropy to them, which is KL and a constant.
    Probabilities(&'t [f64]),
}

/// z' = z/T + b, with Σ b = 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Rescaling {
    pub temperature: f64,
    /// (K,)
    pub bias: Vec<f64>,
}

/// Standard deviation of the normal prior of 1/T around 1 and of each b around 0.
const PRIOR_SD: f64 = 10.0;
const MAX_STEPS: usize = 200;

/// The T that minimises, over the rows, Σ loss(z/T) + (1/T − 1)²/200.
///
/// Temperature scaling, Guo et al. 2017 (1706.04599, section 4.2): convex in 1/T, solved by damped Newton. The second term,
/// a prior that weighs less than one row, keeps T above 0 where every row is right. Predictions stay as they are.
///
/// `logits` is (N·K). Errors: [`Error::Refit`] where there is no row to fit, a number isn't finite, or the best 1/T isn't
/// above 0; [`Error::LabelIndex`].
pub fn fit_temperature(logits: &[f32], classes: usize, to: RefitTo) -> Result<f64> {
    Ok(fit(logits, classes, to, false)?.temperature)
}

/// The T and b that minimise, over the rows, Σ loss(z/T + b) + ((1/T − 1)² + Σ b²)/200.
///
/// With labels vector scaling with one temperature (Guo et al. 2017, section 4.2); with an old model's probabilities its
/// way back to the old scores, which needs no labels. Convex in (1/T, b). The prior makes Σ b = 0, and keeps the bias of a
/// class that no row has finite. Predictions may change. Arguments and errors as of [`fit_temperature`].
pub fn fit_temperature_and_bias(logits: &[f32], classes: usize, to: RefitTo) -> Result<Rescaling> {
    fit(logits, classes, to, true)
}

/// Mean over the rows of −Σ q·log softmax(z/T + b), in nats, q one-hot for labels; `None` where no row counts.
pub fn rescaled_loss(
    logits: &[f32],
    classes: usize,
    to: RefitTo,
    rescaling: &Rescaling,
) -> Result<Option<f64>> {
    let rows = rows(logits, classes, to)?;
    let theta = theta_of(rescaling);
    let sum: f64 = rows.iter().map(|row| row.loss(&theta)).sum();
    Ok((!rows.is_empty()).then(|| sum / rows.len() as f64))
}

impl Rescaling {
    /// z/T + b of rows of logits (N·K).
    pub fn apply(&self, logits: &[f32]) -> Vec<f32> {
        let of_row = |row: &[f32]| -> Vec<f32> {
            let scaled = row.iter().zip(&self.bias);
            scaled.map(|(&z, b)| (f64::from(z) / self.temperature + b) as f32).collect()
        };
        logits.chunks_exact(self.bias.len().max(1)).flat_map(of_row).collect()
    }

    /// The parameters of a model that gives z/T + b where these give z: its head's weight / T, and its bias / T + b. The
    /// other tensors are shared, not copied.
    ///
    /// Errors: [`Error::Refit`] where the head has another number of classes or no bias.
    pub fn fold(&self, params: &Params) -> Result<Params> {
        let refuse = |reason: String| Err(Error::Refit { reason });
        let classes = self.bias.len();
        let mut folded: BTreeMap<String, Var> = params.0.clone();
        let mut has_bias = false;
        for (name, var) in params.0.iter().filter(|(name, _)| is_head(name)) {
            if var.dims().first() != Some(&classes) {
                let found = var.dims();
                return refuse(format!("{name} is {found:?}, but the fit has {classes} classes"));
            }
            let values: Vec<f32> = var.flatten_all()?.to_vec1()?;
            let per_class = values.len() / classes.max(1);
            let is_bias = var.rank() == 1;
            has_bias |= is_bias;
            let value = |(at, &value): (usize, &f32)| {
                let added = if is_bias { self.bias[at / per_class] } else { 0.0 };
                (f64::from(value) / self.temperature + added) as f32
            };
            let values: Vec<f32> = values.iter().enumerate().map(value).collect();
            let tensor = Tensor::from_vec(values, var.shape(), var.device())?;
            folded.insert(name.clone(), Var::from_tensor(&tensor)?);
        }
        if !has_bias {
            return refuse("the model's head has no bias to fold it into".into());
        }
        Ok(Params(folded))
    }
}

/// A row's logits and what they are to become.
struct Row<'r> {
    logits: &'r [f32],
    target: Target<'r>,
}

enum Target<'r> {
    Class(usize),
    /// With their sum: of f32 it isn't 1 to the last digit, and over many rows that would shift all biases.
    Probabilities(&'r [f64], f64),
}

impl Row<'_> {
    /// (K,) log softmax(s·z + b), θ = (s, b).
    fn log_p(&self, theta: &[f64]) -> Vec<f64> {
        let z = self.logits.iter().zip(&theta[1..]);
        let scaled: Vec<f64> = z.map(|(&z, b)| theta[0] * f64::from(z) + b).collect();
        log_softmax(&scaled, 1.0)
    }

    fn q(&self, class: usize) -> f64 {
        match self.target {
            Target::Class(label) => f64::from(u8::from(label == class)),
            Target::Probabilities(q, sum) => q[class] / sum,
        }
    }

    fn loss(&self, theta: &[f64]) -> f64 {
        let log_p = self.log_p(theta);
        match self.target {
            Target::Class(label) => -log_p[label],
            // 0·log 0 is 0.
            Target::Probabilities(q, sum) => {
                let all = q.iter().zip(&log_p).filter(|(q, _)| **q > 0.0);
                -all.map(|(q, log_p)| q * log_p).sum::<f64>() / sum
            }
        }
    }
}

fn rows<'r>(logits: &'r [f32], classes: usize, to: RefitTo<'r>) -> Result<Vec<Row<'r>>> {
    let refuse = |reason: String| Err(Error::Refit { reason });
    let n = match to {
        RefitTo::Labels(labels) => labels.len(),
        RefitTo::Probabilities(q) => q.len() / classes.max(1),
    };
    if classes < 2 || logits.len() != n * classes {
        let found = logits.len();
        return refuse(format!(
            "{found} logits for {n} rows of {classes} classes, expected N·K and two classes"
        ));
    }
    let mut rows = Vec::new();
    for (row, logits) in logits.chunks_exact(classes).enumerate() {
        if let Some(value) = logits.iter().find(|z| !z.is_finite()) {
            return refuse(format!("row {row} has the logit {value}, expected a number"));
        }
        let target = match to {
            RefitTo::Labels(labels) => match labels[row] {
                None => continue,
                Some(label) if label as usize >= classes => {
                    return Err(Error::LabelIndex { row, label, classes });
                }
                Some(label) => Target::Class(label as usize),
            },
            RefitTo::Probabilities(all) => {
                let q = &all[row * classes..][..classes];
                let sum: f64 = q.iter().sum();
                if q.iter().any(|q| !(0.0..=1.0 + 1e-6).contains(q)) || (sum - 1.0).abs() > 1e-4 {
                    return refuse(format!(
                        "row {row} has the probabilities {q:?}, expected shares that sum to 1"
                    ));
                }
                Target::Probabilities(q, sum)
            }
        };
        rows.push(Row { logits, target });
    }
    Ok(rows)
}

fn theta_of(rescaling: &Rescaling) -> Vec<f64> {
    let scale = std::iter::once(1.0 / rescaling.temperature);
    scale.chain(rescaling.bias.iter().copied()).collect()
}

/// Newton's steps on θ = (1/T, b), each halved until the objective falls; the bias stays 0 where it isn't fitted.
fn fit(logits: &[f32], classes: usize, to: RefitTo, has_bias: bool) -> Result<Rescaling> {
    let rows = rows(logits, classes, to)?;
    if rows.is_empty() {
        let reason = "no row to fit a temperature on; give rows with labels".into();
        return Err(Error::Refit { reason });
    }
    let n_free = if has_bias { 1 + classes } else { 1 };
    let mut theta = vec![0.0; 1 + classes];
    theta[0] = 1.0;
    let mut value = objective(&rows, &theta);
    for _ in 0..MAX_STEPS {
        let (gradient, hessian) = derivatives(&rows, &theta, n_free);
        let step = solved(hessian, &gradient);
        // Twice what the step may gain; relative to the sum of losses, past what f64 can tell apart.
        let gain: f64 = step.iter().zip(&gradient).map(|(step, g)| step * g).sum();
        if gain <= 1e-14 * value.abs().max(1.0) {
            break;
        }
        let moved = |share: f64| -> Vec<f64> {
            let mut next = theta.clone();
            next.iter_mut().zip(&step).for_each(|(x, step)| *x -= share * step);
            next
        };
        let shares = (0..60).map(|n| 0.5f64.powi(n));
        let better = shares.map(moved).find_map(|next| {
            let found = objective(&rows, &next);
            (found < value).then_some((next, found))
        });
        let Some((next, found)) = better else { break };
        (theta, value) = (next, found);
    }
    if theta[0] <= 0.0 {
        let reason = format!(
            "the best 1/T is {:.3}: the logits order these rows' classes the wrong way round; check that the labels are \
             the model's, or leave the temperature as it is",
            theta[0]
        );
        return Err(Error::Refit { reason });
    }
    Ok(Rescaling { temperature: 1.0 / theta[0], bias: theta.split_off(1) })
}

fn objective(rows: &[Row], theta: &[f64]) -> f64 {
    let losses: f64 = rows.iter().map(|row| row.loss(theta)).sum();
    let prior: f64 = deviations(theta).map(|x| x * x).sum();
    losses + prior / (2.0 * PRIOR_SD * PRIOR_SD)
}

/// From the middle of the prior: 1/T = 1, b = 0.
fn deviations(theta: &[f64]) -> impl Iterator<Item = f64> {
    theta.iter().enumerate().map(|(at, x)| if at == 0 { x - 1.0 } else { *x })
}

/// Of the first `n` of (s, b). With x_k = (z_k, e_k) the gradient is Σ_k (p_k − q_k)·x_k and the Hessian Cov_p(x), summed
/// over rows.
fn derivatives(rows: &[Row], theta: &[f64], n: usize) -> (Vec<f64>, Vec<Vec<f64>>) {
    let weight = 1.0 / (PRIOR_SD * PRIOR_SD);
    let mut gradient: Vec<f64> = deviations(theta).take(n).map(|x| weight * x).collect();
    let mut hessian = vec![vec![0.0; n]; n];
    (0..n).for_each(|at| hessian[at][at] = weight);
    for row in rows {
        let p: Vec<f64> = row.log_p(theta).iter().map(|x| x.exp()).collect();
        let z = |class: usize| f64::from(row.logits[class]);
        let mean: f64 = p.iter().enumerate().map(|(class, p)| p * z(class)).sum();
        for (class, &p_class) in p.iter().enumerate() {
            let error = p_class - row.q(class);
            let from_mean = z(class) - mean;
            gradient[0] += error * z(class);
            hessian[0][0] += p_class * from_mean * from_mean;
            if n == 1 {
                continue;
            }
            gradient[1 + class] += error;
            hessian[0][1 + class] += p_class * from_mean;
            hessian[1 + class][0] += p_class * from_mean;
            for (other, p_other) in p.iter().enumerate() {
                let own = if other == class { p_class } else { 0.0 };
                hessian[1 + class][1 + other] += own - p_class * p_other;
            }
        }
    }
    (gradient, hessian)
}

/// The x of A·x = b, by Gauss; A is symmetric and, with the prior on its diagonal, positive definite.
fn solved(mut a: Vec<Vec<f64>>, b: &[f64]) -> Vec<f64> {
    let n = b.len();
    let mut x = b.to_vec();
    for at in 0..n {
        let pivot = a[at].clone();
        for row in at + 1..n {
            let factor = a[row][at] / pivot[at];
            (at..n).for_each(|column| a[row][column] -= factor * pivot[column]);
            x[row] -= factor * x[at];
        }
    }
    for at in (0..n).rev() {
        let rest: f64 = (at + 1..n).map(|column| a[at][column] * x[column]).sum();
        x[at] = (x[at] - rest) / a[at][at];
    }
    x
}
