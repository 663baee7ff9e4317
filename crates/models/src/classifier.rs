//! A checkpoint folder → a classifier that gives logits. What to do with the logits is not its business.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use candle_core::{Device, Tensor};
use lowchurn_kernels::{self as kernels, Precision};

use crate::architecture::Arch;
use crate::load::{Head, LoadReport, fresh_params, load};
use crate::params::is_head;
use crate::{Config, Error, Input, Mode, Params, Result, States, Wanted};

/// A model with its parameters.
pub struct Classifier {
    /// Its dropout may be changed at any time; its sizes are those of `params`.
    pub config: Config,
    /// Train with `Var::set` or in place: a Var that is replaced here is not seen by `forward`.
    pub params: Params,
    /// What matrix products are made of; may be changed at any time. Parameters are f32 either way.
    pub precision: Precision,
    tracked: Arch,
    // candle has no switch for the graph: evaluation needs its own views of the same storage.
    detached: Arch,
}

impl Classifier {
    /// Opens config.json and the weights of a folder in the hub's layout.
    pub fn open(dir: &Path, head: Head, device: &Device) -> Result<(Classifier, LoadReport)> {
        let mut config = Config::open(dir)?;
        let (params, report) = load(dir, &mut config, head, device)?;
        Ok((Classifier::new(config, params)?, report))
    }

    /// Puts a model together from parameters that fit the config.
    pub fn new(config: Config, params: Params) -> Result<Classifier> {
        let var = |name: &str| params.0.get(name).ok_or_else(|| no_parameter(name));
        let tracked = Arch::new(&config, &|name| Ok(var(name)?.as_tensor().clone()))?;
        let detached = Arch::new(&config, &|name| Ok(var(name)?.as_detached_tensor()))?;
        Ok(Classifier { config, params, precision: Precision::F32, tracked, detached })
    }

    /// From here on these parameters alone have gradients, and below the lowest of them nothing is computed backwards. A name
    /// that the model lacks is an error.
    pub fn train_only(&mut self, names: &BTreeSet<String>) -> Result<()> {
        if let Some(name) = names.iter().find(|name| !self.params.0.contains_key(*name)) {
            return Err(no_parameter(name));
        }
        let view = |name: &str| {
            let var = self.params.0.get(name).ok_or_else(|| no_parameter(name))?;
            Ok(match names.contains(name) {
                true => var.as_tensor().clone(),
                false => var.as_detached_tensor(),
            })
        };
        self.tracked = Arch::new(&self.config, &view)?;
        Ok(())
    }

    /// A model with new weights only, from what a config says: matrices and tables from N(0, `initializer_range`), norms 1,
    /// biases 0; `normal` gives standard normal numbers, in the order of names.
    pub fn fresh(
        mut config: Config,
        labels: Vec<String>,
        normal: &mut dyn FnMut() -> f64,
        device: &Device,
    ) -> Result<Classifier> {
        let params = fresh_params(&mut config, labels, normal, device)?;
        Classifier::new(config, params)
    }

    /// Logits (B, K). Eval builds no graph and follows training.
    pub fn forward(&self, input: &Input, mode: Mode) -> Result<Tensor> {
        Ok(self.forward_states(input, mode, &Wanted::default())?.logits)
    }

    /// The same and what is wanted of the way there, with a graph in training.
    pub fn forward_states(&self, input: &Input, mode: Mode, wanted: &Wanted) -> Result<States> {
        let arch = match mode {
            Mode::Eval => &self.detached,
            Mode::Train(_) => &self.tracked,
        };
        arch.forward(&self.config, input, mode, self.precision, wanted)
    }

    /// Logits (B, K) and the vectors (B, C) that the head turns into them; in eval mode, without a graph.
    pub fn pooled(&self, input: &Input) -> Result<(Tensor, Tensor)> {
        let states = self.forward_states(input, Mode::Eval, &Wanted::default())?;
        Ok((states.logits, states.pooled))
    }

    /// Logits (B, K) of the same network on other tensors, by the names and in the shapes of `params`.
    ///
    /// The mode decides dropout alone: the graph is the one that the tensors carry. Tensors made from the variables lead
    /// gradients to them; the variables themselves in [`Mode::Eval`] are gradients without dropout.
    pub fn forward_with(
        &self,
        tensors: &BTreeMap<String, Tensor>,
        input: &Input,
        mode: Mode,
    ) -> Result<Tensor> {
        for (name, var) in &self.params.0 {
            let tensor = tensors.get(name).ok_or_else(|| no_parameter(name))?;
            if tensor.dims() != var.dims() {
                let (found, expected) = (tensor.dims().to_vec(), var.dims().to_vec());
                return Err(Error::ParameterShape { name: name.clone(), found, expected });
            }
        }
        let named = |name: &str| tensors.get(name).cloned().ok_or_else(|| no_parameter(name));
        let (arch, wanted) = (Arch::new(&self.config, &named)?, Wanted::default());
        Ok(arch.forward(&self.config, input, mode, self.precision, &wanted)?.logits)
    }

    /// Logits (B, K) of vectors (B, C) that the last layer reads, by that layer alone and without dropout: its weight and bias are
    /// those of `tensors`, and the graph is the one that they carry.
    pub fn last_layer(tensors: &BTreeMap<String, Tensor>, pooled: &Tensor) -> Result<Tensor> {
        let of = |end: &str| tensors.iter().find(|(name, _)| is_head(name) && name.ends_with(end));
        let (_, weight) = of(".weight").ok_or_else(|| no_parameter("classifier.weight"))?;
        let bias = of(".bias").map(|(_, bias)| bias);
        Ok(kernels::linear(pooled, weight, bias, Precision::F32)?)
    }

    /// Class names in the order of the logits.
    pub fn labels(&self) -> &[String] {
        &self.config.labels
    }
}

fn no_parameter(name: &str) -> Error {
    Error::NoParameter { name: name.into() }
}
