//! A checkpoint folder → a classifier that gives logits. What to do with the logits is not its business.

use std::path::Path;

use candle_core::{Device, Tensor, Var};

use crate::bert::Bert;
use crate::load::{Head, LoadReport, load};
use crate::{Config, Error, Input, Mode, ModelType, Params, Result};

/// A model with its parameters.
pub struct Classifier {
    /// Its dropout may be changed at any time; its sizes are those of `params`.
    pub config: Config,
    /// Train with `Var::set` or in place: a Var that is replaced here is not seen by `forward`.
    pub params: Params,
    tracked: Arch,
    // candle has no switch for the graph: evaluation needs its own views of the same storage.
    detached: Arch,
}

/// One variant a file of this crate.
enum Arch {
    Bert(Bert),
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
        let tracked = Arch::new(&config, &params, |var| var.as_tensor().clone())?;
        let detached = Arch::new(&config, &params, Var::as_detached_tensor)?;
        Ok(Classifier { config, params, tracked, detached })
    }

    /// Logits (B, K). Eval builds no graph and follows training.
    pub fn forward(&self, input: &Input, mode: Mode) -> Result<Tensor> {
        input.check(&self.config)?;
        let arch = match mode {
            Mode::Eval => &self.detached,
            Mode::Train(_) => &self.tracked,
        };
        match arch {
            Arch::Bert(bert) => bert.forward(&self.config, input, mode),
        }
    }

    /// Class names in the order of the logits.
    pub fn labels(&self) -> &[String] {
        &self.config.labels
    }
}

impl Arch {
    fn new(config: &Config, params: &Params, view: fn(&Var) -> Tensor) -> Result<Arch> {
        let named = |name: &str| match params.0.get(name) {
            Some(var) => Ok(view(var)),
            None => Err(Error::NoParameter { name: name.into() }),
        };
        match config.model_type {
            ModelType::Bert => Ok(Arch::Bert(Bert::new(config, &named)?)),
        }
    }
}
