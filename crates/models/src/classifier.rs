//! A checkpoint folder → a classifier that gives logits.

use std::path::Path;

use candle_core::{Device, Tensor};

use crate::{Config, Input, Mode, Params, Result};

/// Where the classification head comes from.
pub enum Head<'n> {
    FromCheckpoint,
    /// Weight from N(0, `initializer_range`), bias zero; `normal` gives standard normal numbers.
    Fresh {
        labels: Vec<String>,
        normal: &'n mut dyn FnMut() -> f64,
    },
}

/// What loading had to make up, and what it left lying.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadReport {
    /// Parameters that got fresh values (canonical names).
    pub fresh: Vec<String>,
    /// Tensors of the checkpoint that nothing uses (names as in the file).
    pub unused: Vec<String>,
}

pub struct Classifier {
    pub config: Config,
    /// Train with `Var::set` or in place; a Var that is replaced here is not seen by `forward`.
    pub params: Params,
}

impl Classifier {
    pub fn open(_dir: &Path, _head: Head, _device: &Device) -> Result<(Classifier, LoadReport)> {
        Err(crate::Error::NotBuilt)
    }

    /// Logits (B, K). Eval works on detached views of the same storage: no graph, and it follows training.
    pub fn forward(&self, _input: &Input, _mode: Mode) -> Result<Tensor> {
        Err(crate::Error::NotBuilt)
    }

    pub fn labels(&self) -> &[String] {
        &self.config.labels
    }
}
