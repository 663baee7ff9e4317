//! AdamW over named parameters with visible moments, or plain SGD, and clipping by the global norm.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;
use lowchurn_kernels::{
    AdamW, Gradient, Gradients, Moments, Sgd, adamw, adamw_on_host, adamw_rows, catch_up, settle,
    sgd,
};
use lowchurn_models::{Params, Stored, Values, is_decayed, read_safetensors, write_safetensors};

use serde::{Deserialize, Serialize};

use crate::{Error, Plan, Result, Trained};

/// Gradients by parameter name, in name order.
#[derive(Clone, Default)]
pub struct Grads(pub BTreeMap<String, Gradient>);

impl Grads {
    /// Takes the parameters' gradients out of what `backward` found and adds them to what is there.
    pub fn add(&mut self, params: &Params, gradients: &mut Gradients) -> Result<()> {
        for (name, tensor) in params.tensors() {
            let Some(grad) = gradients.remove(tensor)? else { continue };
            let sum = match self.0.remove(name) {
                Some(sum) => sum.plus(grad)?,
                None => grad,
            };
            self.0.insert(name.to_string(), sum);
        }
        Ok(())
    }

    /// Adds gradients of the same parameters.
    pub fn merge(&mut self, others: Grads) -> Result<()> {
        for (name, grad) in others.0 {
            let sum = match self.0.remove(&name) {
                Some(sum) => sum.plus(grad)?,
                None => grad,
            };
            self.0.insert(name, sum);
        }
        Ok(())
    }

    /// √Σ g² over all gradients, summed in name order.
    pub fn norm(&self) -> Result<f64> {
        let mut sum = 0.0;
        for grad in self.0.values() {
            sum += grad.sum_of_squares()?;
        }
        Ok(sum.sqrt())
    }

    /// Parameters that training can't move: no gradient, or nothing but zeros while others have more.
    ///
    /// Zeros everywhere are a model that is sure of every row of the batch, and no fault.
    /// A key bias shifts all scores of a query alike and so has none in theory; rounding decides, and it is passed over.
    pub fn missing(&self, params: &Params) -> Result<Vec<String>> {
        let (mut missing, mut zero) = (Vec::new(), Vec::new());
        let mut is_any_moved = false;
        for name in params.names().filter(|name| !is_key_bias(name)) {
            match self.0.get(name) {
                None => missing.push(name.to_string()),
                Some(_) if DEBERTAS_CONSTANTS.iter().any(|end| name.ends_with(end)) => {}
                Some(grad) if grad.is_zero()? => zero.push(name.to_string()),
                Some(_) => is_any_moved = true,
            }
        }
        if is_any_moved {
            missing.append(&mut zero);
            missing.sort();
        }
        Ok(missing)
    }

    /// Parameters that no gradient leads to, whatever the numbers.
    pub fn absent(&self, params: &Params) -> Vec<String> {
        let names = params.names().filter(|name| !is_key_bias(name) && !self.0.contains_key(*name));
        names.map(String::from).collect()
    }
}

/// The keys' bias, and that of the norm of the table which keys of positions are made of: where DeBERTa has no term of the
/// positions' queries, they are such constants too; else they are felt. They have a gradient either way.
const DEBERTAS_CONSTANTS: [&str; 2] = ["self.key_proj.bias", "deberta.encoder.LayerNorm.bias"];

/// A constant added to all keys cancels in softmax. By the names that the architectures have for it; DeBERTa's keys of positions
/// as well.
fn is_key_bias(name: &str) -> bool {
    ["self.key.bias", "k_lin.bias", "attn.k.bias", "attention.key.bias", "pos_key_proj.bias"]
        .iter()
        .any(|end| name.ends_with(end))
}

/// min(1, max norm/(norm + 1e-6)), as PyTorch's `clip_grad_norm_`; 1 where there is no limit.
pub fn clip_factor(norm: f64, max_norm: f64) -> f64 {
    if max_norm == 0.0 { 1.0 } else { (max_norm / (norm + 1e-6)).min(1.0) }
}

/// A table of which a batch reads few rows.
fn is_of_words(name: &str) -> bool {
    name.ends_with(".word_embeddings.weight") || name.ends_with(".tok_embeddings.weight")
}

/// What moves the parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerName {
    #[default]
    AdamW,
    /// Without momentum and without state.
    Sgd,
}

impl OptimizerName {
    pub fn is_adamw(&self) -> bool {
        *self == OptimizerName::AdamW
    }
}

/// A moment pair for each parameter; none where the optimizer has no state.
pub struct Optimizer {
    pub moments: BTreeMap<String, Moments>,
}

impl Optimizer {
    pub fn zeros(params: &Params) -> Result<Optimizer> {
        let zeros =
            |(name, tensor): (&str, &Tensor)| Ok((name.to_string(), Moments::zeros(tensor)?));
        Ok(Optimizer { moments: params.tensors().map(zeros).collect::<Result<_>>()? })
    }

    /// As a plan says it.
    pub fn of(plan: &Plan, params: &Params) -> Result<Optimizer> {
        match plan.optimizer {
            OptimizerName::AdamW => Optimizer::zeros(params),
            OptimizerName::Sgd => Ok(Optimizer { moments: BTreeMap::new() }),
        }
    }

    /// Moves what is trained by its gradient, at its share of the learning rate; what has no gradient stays as it is. Of the
    /// table of words only the gradient's rows move, the others by [`Optimizer::catch_up`] and [`Optimizer::settle`].
    pub fn apply(
        &mut self,
        trained: &Trained,
        grads: &Grads,
        plan: &Plan,
        step: u64,
        learning_rate: f64,
        gradient_scale: f64,
    ) -> Result<()> {
        for (name, var) in &trained.moved.0 {
            let Some(grad) = grads.0.get(name) else { continue };
            let weight_decay = if is_decayed(var) { plan.weight_decay } else { 0.0 };
            let learning_rate = learning_rate * trained.rate(name);
            if plan.optimizer == OptimizerName::Sgd {
                sgd(var, grad, &Sgd { learning_rate, weight_decay, gradient_scale })?;
                continue;
            }
            let Some(moments) = self.moments.get_mut(name) else { continue };
            let update = AdamW {
                learning_rate,
                beta1: plan.beta1,
                beta2: plan.beta2,
                epsilon: plan.epsilon,
                weight_decay,
                step: step + 1,
                gradient_scale,
            };
            match grad {
                Gradient::Whole(grad) => adamw(var, grad, moments, &update)?,
                Gradient::Host(grad) => adamw_on_host(var, grad.values(), moments, &update)?,
                Gradient::Rows(rows) => {
                    adamw_rows(var, rows, moments, &update)?;
                    // Positions and types are the same rows each time, and few.
                    if !is_of_words(name) {
                        settle(var, moments)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Brings the rows of these tokens up to date, before a forward pass reads them.
    pub fn catch_up(&mut self, params: &Params, tokens: &[u32]) -> Result<()> {
        for (name, moments) in self.moments.iter_mut().filter(|(name, _)| is_of_words(name)) {
            let Some(var) = params.0.get(name) else { continue };
            // A token that the table lacks is for the forward pass to refuse: it names the place.
            let n_words = var.dim(0)?;
            let tokens = tokens.iter().copied().filter(|&token| (token as usize) < n_words);
            catch_up(var, moments, &tokens.collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Brings all parameters and moments up to date, before anything else reads them.
    pub fn settle(&mut self, params: &Params) -> Result<()> {
        for (name, moments) in &mut self.moments {
            let Some(var) = params.0.get(name) else { continue };
            settle(var, moments)?;
        }
        Ok(())
    }

    /// Writes `m.NAME` and `v.NAME` for every parameter and gives the file's SHA-256. Refuses moments that aren't up to date.
    pub fn save(&self, path: &Path, params: &Params) -> Result<String> {
        let mut tensors = Vec::new();
        for (name, moments) in &self.moments {
            let Some(var) = params.0.get(name) else { continue };
            let (m, v) = match moments {
                Moments::Host { missed, .. } if !missed.is_none() => {
                    let reason = format!("{name} has rows that miss updates; settle before saving");
                    return Err(Error::Moments { path: path.into(), reason });
                }
                Moments::Host { m, v, .. } => {
                    let of = |values| Values::Host { values, shape: var.dims() };
                    (of(m), of(v))
                }
                Moments::Device { m, v } => (Values::Tensor(m), Values::Tensor(v)),
            };
            tensors.push((format!("m.{name}"), m));
            tensors.push((format!("v.{name}"), v));
        }
        Ok(write_safetensors(path, tensors.iter().map(|(name, t)| (name.as_str(), *t)), &[])?)
    }

    /// Reads what [`Optimizer::save`] wrote of these parameters. Moments that are missing or of another shape are errors.
    pub fn load(path: &Path, params: &Params) -> Result<Optimizer> {
        let wrong = |reason: String| Error::Moments { path: path.into(), reason };
        let mut found = read_safetensors(path)?;
        let mut moments = BTreeMap::new();
        for (name, var) in &params.0 {
            let mut take = |key: String| match found.remove(&key) {
                Some(Stored { shape, values }) if shape == var.dims() => Ok(values),
                Some(Stored { shape, .. }) => {
                    Err(wrong(format!("{key} has shape {shape:?}, expected {:?}", var.dims())))
                }
                None => Err(wrong(format!("{key} is missing"))),
            };
            let (m, v) = (take(format!("m.{name}"))?, take(format!("v.{name}"))?);
            let on_device = |values| Tensor::from_vec(values, var.shape(), var.device());
            let loaded = match Moments::zeros(var)? {
                Moments::Host { missed, .. } => Moments::Host { m, v, missed },
                Moments::Device { .. } => Moments::Device { m: on_device(m)?, v: on_device(v)? },
            };
            moments.insert(name.clone(), loaded);
        }
        Ok(Optimizer { moments })
    }
}
