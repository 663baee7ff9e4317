//! What of a model an optimizer moves: everything, or what freezing, biases alone and low-rank adapters leave of it, and at
//! which share of the learning rate. What stands still has no gradient and no moments.
//!
//! A low-rank adapter (Hu et al. 2021, 2106.09685) is a reparametrisation at the update: the model keeps W' = W + s·B·A as an
//! ordinary matrix, so every fast path is as before, and the gradient of W' is led on to A and B. Other than PEFT's it has no
//! dropout of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use candle_core::{Tensor, Var};
use lowchurn_data::Rng;
use lowchurn_kernels::Gradient;
use lowchurn_models::{
    Classifier, Config, Depth, Matrix, Params, adapted, depth, is_head, matrices, parameter_shapes,
    read_params_into, usual_targets, write_safetensors,
};

use crate::{Error, Grads, Plan, Result, TrainOnly};

pub struct Trained {
    /// Parameters of the model that have a gradient.
    pub reached: Params,
    /// What the optimizer moves: these, but in place of a matrix with an adapter its two factors.
    pub moved: Params,
    /// By the name of the matrix.
    adapters: BTreeMap<String, Adapter>,
    /// Shares of the learning rate by name, where they aren't 1.
    rates: BTreeMap<String, f64>,
}

/// W' = W + scale·B·A of one matrix.
struct Adapter {
    base: Tensor, // W (O, I), a copy
    a: Var,       // (r, I)
    b: Var,       // (O, r)
    scale: f64,
}

/// Refuses what can't be trained of a model with this config.
///
/// # Errors
/// [`Error::FreezeLayers`] and [`Error::AllFrozen`]; of biases alone [`Error::NoBiases`]; of adapters
/// [`Error::TargetsFrozen`], [`Error::Rank`], and [`Error::Models`] where the model has no such module.
pub fn check_trained(plan: &Plan, config: &Config) -> Result<()> {
    names(plan, config).map(|_| ())
}

/// The parameters of a model that a plan trains. A matrix with an adapter is one of them, and its factors aren't.
///
/// # Errors
/// As [`check_trained`].
pub fn trained_names(plan: &Plan, config: &Config) -> Result<BTreeSet<String>> {
    Ok(names(plan, config)?.reached)
}

/// The names behind a plan's words.
struct Names {
    reached: BTreeSet<String>,
    adapted: Vec<Matrix>,
}

fn names(plan: &Plan, config: &Config) -> Result<Names> {
    let all = parameter_shapes(config).into_iter().map(|(name, _)| (depth(config, &name), name));
    let all: Vec<(Depth, String)> = all.collect();
    let freeze = plan.freeze;
    let there = n_layers(all.iter().map(|(depth, _)| *depth));
    if freeze.layers > there {
        return Err(Error::FreezeLayers { asked: freeze.layers, there });
    }
    let stands = |depth: Depth| match depth {
        Depth::Embedding => freeze.embeddings,
        Depth::Layer(n) => n < freeze.layers,
        Depth::Head => freeze.head,
    };
    let (mut reached, mut adapted) = (BTreeSet::new(), Vec::new());
    match (plan.train_only, plan.lora_rank) {
        (Some(TrainOnly::Biases), _) => {
            if !all.iter().any(|(depth, name)| *depth != Depth::Head && is_bias(name)) {
                return Err(Error::NoBiases);
            }
            let is_in = |(depth, name): &&(Depth, String)| *depth == Depth::Head || is_bias(name);
            let free = all.iter().filter(is_in).filter(|(depth, _)| !stands(*depth));
            reached.extend(free.map(|(_, name)| name.clone()));
        }
        (Some(TrainOnly::LastLayer), _) => {
            let last = all.iter().filter(|(_, name)| is_head(name) && !freeze.head);
            reached.extend(last.map(|(_, name)| name.clone()));
        }
        (None, Some(rank)) => {
            let targets = targets(plan, config);
            let matrices = matrices(config, &targets)?;
            adapted.extend(matrices.into_iter().filter(|m| !stands(depth(config, &m.name))));
            if adapted.is_empty() {
                return Err(Error::TargetsFrozen { targets, layers: freeze.layers });
            }
            for Matrix { name, shape } in &adapted {
                if rank > shape.0.min(shape.1) {
                    return Err(Error::Rank { rank, name: name.clone(), shape: *shape });
                }
            }
            reached.extend(adapted.iter().map(|matrix| matrix.name.clone()));
            let heads = all.iter().filter(|(depth, _)| *depth == Depth::Head && !freeze.head);
            reached.extend(heads.map(|(_, name)| name.clone()));
        }
        (None, None) => {
            let free = all.iter().filter(|(depth, _)| !stands(*depth));
            reached.extend(free.map(|(_, name)| name.clone()));
        }
    }
    if reached.is_empty() {
        return Err(Error::AllFrozen { freeze: freeze.to_string() });
    }
    Ok(Names { reached, adapted })
}

/// The modules that get an adapter, as typed or as is usual for the architecture.
pub fn targets(plan: &Plan, config: &Config) -> Vec<String> {
    let usual = || usual_targets(config.model_type).iter().map(|name| name.to_string()).collect();
    plan.lora_targets.clone().unwrap_or_else(usual)
}

fn is_bias(name: &str) -> bool {
    name.ends_with(".bias")
}

/// Layers that are told apart; one where all share their weights.
fn n_layers(depths: impl Iterator<Item = Depth>) -> usize {
    let ends = depths.map(|depth| if let Depth::Layer(n) = depth { n + 1 } else { 0 });
    ends.max().unwrap_or(0)
}

/// decay^k, k = 0 for the head, 1 for the highest of n layers, n for the lowest, n + 1 for the embeddings. Howard and Ruder
/// 2018, 1801.06146 (discriminative fine-tuning); Clark et al. 2020, 2003.10555, take 0.8 and 0.9.
fn rate_at(depth: Depth, n_layers: usize, decay: f64) -> f64 {
    let below_the_top = match depth {
        Depth::Head => 0,
        Depth::Layer(n) => n_layers.saturating_sub(n),
        Depth::Embedding => n_layers + 1,
    };
    decay.powf(below_the_top as f64)
}

impl Trained {
    /// All of a model, at one rate.
    pub fn all(model: &Classifier) -> Trained {
        Trained::whole(&model.params)
    }

    /// The same of parameters that are no model's.
    pub(crate) fn whole(params: &Params) -> Trained {
        Trained {
            reached: params.clone(),
            moved: params.clone(),
            adapters: BTreeMap::new(),
            rates: BTreeMap::new(),
        }
    }

    /// What a plan says, and tells the model, from whose weights as they are now adapters start. `student` tells the adapters
    /// of two students apart.
    pub fn of(plan: &Plan, model: &mut Classifier, student: u64) -> Result<Trained> {
        let names = names(plan, &model.config)?;
        model.train_only(&names.reached)?;
        let is_reached = |(name, _): &(&String, &Var)| names.reached.contains(*name);
        let reached = model.params.0.iter().filter(is_reached);
        let reached: BTreeMap<String, Var> =
            reached.map(|(name, var)| (name.clone(), var.clone())).collect();
        let mut trained = Trained {
            moved: Params(reached.clone()),
            reached: Params(reached),
            adapters: BTreeMap::new(),
            rates: BTreeMap::new(),
        };
        if let (Some(rank), false) = (plan.lora_rank, names.adapted.is_empty()) {
            let scale = plan.lora_alpha.unwrap_or(LORA_ALPHA) / rank as f64;
            for (n, matrix) in names.adapted.iter().enumerate() {
                let mut rng = Rng::stream(plan.seed, "lora", student << 32 | n as u64);
                trained.add_adapter(matrix, rank, scale, &mut rng)?;
            }
        }
        if plan.layer_decay != 1.0 {
            trained.slow_down(plan.layer_decay, &model.config);
        }
        Ok(trained)
    }

    /// A uniform in ±1/√I (Kaiming's with a = √5, as PEFT draws it), B zero: W' starts as W.
    fn add_adapter(
        &mut self,
        matrix: &Matrix,
        rank: usize,
        scale: f64,
        rng: &mut Rng,
    ) -> Result<()> {
        let Some(var) = self.moved.0.remove(&matrix.name) else { return Ok(()) }; // it is reached
        let (o, i) = matrix.shape;
        let bound = 1.0 / (i as f64).sqrt();
        let a = (0..rank * i).map(|_| ((2.0 * rng.uniform() - 1.0) * bound) as f32).collect();
        let adapter = Adapter {
            base: var.copy()?.detach(),
            a: Var::from_vec::<_, f32>(a, (rank, i), var.device())?,
            b: Var::from_vec(vec![0f32; o * rank], (o, rank), var.device())?,
            scale,
        };
        let [of_a, of_b] = factor_names(&matrix.name);
        self.moved.0.insert(of_a, adapter.a.clone());
        self.moved.0.insert(of_b, adapter.b.clone());
        self.adapters.insert(matrix.name.clone(), adapter);
        Ok(())
    }

    fn slow_down(&mut self, decay: f64, config: &Config) {
        let n = n_layers(parameter_shapes(config).iter().map(|(name, _)| depth(config, name)));
        for name in self.reached.names() {
            let rate = rate_at(depth(config, name), n, decay);
            let moved = match self.adapters.contains_key(name) {
                true => factor_names(name).to_vec(),
                false => vec![name.to_string()],
            };
            self.rates.extend(moved.into_iter().map(|name| (name, rate)));
        }
    }

    /// The share of the learning rate at which one of `moved` learns.
    pub fn rate(&self, name: &str) -> f64 {
        self.rates.get(name).copied().unwrap_or(1.0)
    }

    pub fn has_adapters(&self) -> bool {
        !self.adapters.is_empty()
    }

    /// Name, A and B of each matrix with an adapter.
    pub fn factors(&self) -> impl Iterator<Item = (&str, &Var, &Var)> {
        self.adapters.iter().map(|(name, adapter)| (name.as_str(), &adapter.a, &adapter.b))
    }

    /// Forgets gradients of what stands still, which a pull on all weights has.
    pub fn keep_reached(&self, grads: &mut Grads) {
        grads.0.retain(|name, _| self.reached.0.contains_key(name));
    }

    /// Tensors made from all variables, with those that stand still as they are.
    pub fn with_the_rest_still(
        &self,
        mut tensors: BTreeMap<String, Tensor>,
        params: &Params,
    ) -> BTreeMap<String, Tensor> {
        for (name, var) in params.0.iter().filter(|(name, _)| !self.reached.0.contains_key(*name)) {
            tensors.insert(name.clone(), var.as_detached_tensor());
        }
        tensors
    }

    /// In place of each dW' (O, I): dA = s·Bᵀ·dW' (r, I) and dB = s·dW'·Aᵀ (O, r).
    pub fn lead_to_factors(&self, grads: &mut Grads) -> Result<()> {
        for (name, Adapter { a, b, scale, .. }) in &self.adapters {
            let Some(grad) = grads.0.remove(name) else { continue };
            let grad = grad.to_tensor()?; // (O, I)
            let (a, b) = (a.as_detached_tensor(), b.as_detached_tensor());
            let of_a = (b.t()?.contiguous()?.matmul(&grad)? * *scale)?;
            let of_b = (grad.matmul(&a.t()?.contiguous()?)? * *scale)?;
            for (name, grad) in factor_names(name).into_iter().zip([of_a, of_b]) {
                grads.0.insert(name, Gradient::Whole(grad));
            }
        }
        Ok(())
    }

    /// Sets each matrix with an adapter again, after its factors moved.
    pub fn set_matrices(&self) -> Result<()> {
        for (name, Adapter { base, a, b, scale }) in &self.adapters {
            let Some(var) = self.reached.0.get(name) else { continue }; // it is reached
            let (a, b) = (a.as_detached_tensor(), b.as_detached_tensor());
            var.set(&adapted(base, &a, &b, *scale)?)?;
        }
        Ok(())
    }

    /// Writes the factors as they are; gives the file's SHA-256.
    pub fn save_factors(&self, path: &Path) -> Result<String> {
        let factors = self.factor_params();
        Ok(write_safetensors(path, factors.tensors(), &[])?)
    }

    /// Reads what [`Trained::save_factors`] wrote. The matrices are in the model's own file.
    pub fn load_factors(&self, path: &Path) -> Result<()> {
        Ok(read_params_into(&self.factor_params(), path)?)
    }

    fn factor_params(&self) -> Params {
        let named = |(name, a, b): (&str, &Var, &Var)| {
            factor_names(name).into_iter().zip([a.clone(), b.clone()]).collect::<Vec<_>>()
        };
        Params(self.factors().flat_map(named).collect())
    }
}

/// As PEFT's.
pub const LORA_ALPHA: f64 = 8.0;

/// What the factors of a matrix are called: `….query.lora_A.weight` and `….query.lora_B.weight`.
fn factor_names(matrix: &str) -> [String; 2] {
    let module = matrix.strip_suffix(".weight").unwrap_or(matrix);
    ["A", "B"].map(|factor| format!("{module}.lora_{factor}.weight"))
}
