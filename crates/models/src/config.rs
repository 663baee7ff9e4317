//! A published config.json → a checked, typed config.

use std::path::Path;

use lowchurn_kernels::Gelu;
use serde_json::{Map, Value};

use crate::Result;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    Gelu(Gelu),
    Relu,
}

/// A checked config.json of a supported architecture.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub model_type: String,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub intermediate_size: usize,
    pub max_positions: usize,
    pub type_vocab_size: usize,
    pub layer_norm_eps: f64,
    pub hidden_dropout: f32,
    pub attention_dropout: f32,
    /// Falls back to `hidden_dropout` where the file has null or nothing.
    pub classifier_dropout: f32,
    pub activation: Activation,
    pub pad_token_id: u32,
    pub initializer_range: f64,
    /// Class names in index order; empty where the file has no `id2label`.
    pub labels: Vec<String>,
    /// The file as published, written back on save.
    pub raw: Map<String, Value>,
}

impl Config {
    /// Reads and checks `dir/config.json`.
    pub fn open(_dir: &Path) -> Result<Config> {
        Err(crate::Error::NotBuilt)
    }
}

/// Refuses a tokenizer that can give ids the embedding doesn't have, or that is far from filling it.
pub fn check_vocabulary(_config: &Config, _tokenizer_vocab_size: usize, _dir: &Path) -> Result<()> {
    Err(crate::Error::NotBuilt)
}
