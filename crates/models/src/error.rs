//! Everything that can go wrong between a checkpoint folder and logits.

use std::{fmt, io, path::PathBuf};

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: can't be read: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: can't be written: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error(
        "{}: {name} holds {value}, which {format} can't; publish it as f32, or as bf16, which has the range",
        path.display()
    )]
    Overflow { path: PathBuf, name: String, value: f32, format: &'static str },
    #[error("{}: not the JSON that was expected: {source}", path.display())]
    Json { path: PathBuf, source: serde_json::Error },

    #[error("{}: key \"{key}\" is {found}, expected {expected}", path.display())]
    Key { path: PathBuf, key: String, found: String, expected: String },
    #[error(
        "{}: model_type {found:?} is not supported; the nearest that is: {nearest:?}, so take a base model of that type",
        path.display()
    )]
    Architecture { path: PathBuf, found: String, nearest: &'static str },
    #[error(
        "{}: the tokenizer is larger than the model: {tokenizer} tokens, but the embedding has {embedding} rows \
         (config.json, vocab_size); take the tokenizer that was published with this model",
        dir.display()
    )]
    TokenizerTooLarge { dir: PathBuf, tokenizer: usize, embedding: usize },
    #[error(
        "{}: the model is larger than the tokenizer: the embedding has {embedding} rows (config.json, vocab_size), \
         but there are only {tokenizer} tokens; take the tokenizer that was published with this model",
        dir.display()
    )]
    TokenizerTooSmall { dir: PathBuf, tokenizer: usize, embedding: usize },

    #[error(
        "{}: the tokenizer is another family's: its padding token has the id {tokenizer}, the model's has {model} \
         (config.json, pad_token_id); take the tokenizer that was published with this model",
        dir.display()
    )]
    TokenizerPadding { dir: PathBuf, tokenizer: u32, model: u32 },

    #[error(
        "{}: no weights here: looked for model.safetensors, model.safetensors.index.json, pytorch_model.bin",
        dir.display()
    )]
    NoWeights { dir: PathBuf },
    #[error("{}: not a sound safetensors file: {source}; fetch it again", path.display())]
    Safetensors { path: PathBuf, source: safetensors::SafeTensorError },
    #[error("{}: not a PyTorch file that can be read: {reason}; convert it to safetensors", path.display())]
    Pickle { path: PathBuf, reason: String },
    #[error("{}: shard {shard:?} is not the name of a file in the same folder", path.display())]
    ShardName { path: PathBuf, shard: String },
    #[error("{}: says that {tensor:?} is in {shard:?}, but it is not there; fetch both again", path.display())]
    ShardContent { path: PathBuf, tensor: String, shard: String },
    #[error("{}: {first:?} and {second:?} are the same parameter, {name}", path.display())]
    Duplicate { path: PathBuf, name: String, first: String, second: String },
    #[error("{}: {name:?} holds {dtype}, expected floating-point numbers (F32, F16, BF16 or F64)", path.display())]
    Dtype { path: PathBuf, name: String, dtype: String },
    #[error("{}: the tensors don't fit the model:{}", path.display(), misfit)]
    Misfit { path: PathBuf, misfit: Box<Misfit> },
    #[error(
        "{}: this model has no classification head (missing: {}); train it with new class names first",
        path.display(), missing.join(", ")
    )]
    NoHead { path: PathBuf, missing: Vec<String> },
    #[error("a new head needs at least one class name and no name twice; found {labels:?}")]
    HeadLabels { labels: Vec<String> },
    #[error(
        "{}: a grown head keeps the classes of the checkpoint, in their order, and adds new ones behind; \
         the checkpoint has {old:?}, asked for were {new:?}",
        path.display()
    )]
    GrownLabels { path: PathBuf, old: Vec<String>, new: Vec<String> },
    #[error("the parameters lack {name:?}, which the model needs")]
    NoParameter { name: String },
    #[error("the tensor given for {name:?} is {found:?}, expected {expected:?} as in the model")]
    ParameterShape { name: String, found: Vec<usize>, expected: Vec<usize> },
    #[error(
        "no module of the layers is called {target:?}; there are {}", known.join(", ")
    )]
    NoTarget { target: String, known: Vec<String> },
    #[error("{}: this adapter can't be merged: {reason}", path.display())]
    Adapter { path: PathBuf, reason: String },
    #[error("{}: no tokenizer to save with the model: neither tokenizer.json nor vocab.txt is here", dir.display())]
    NoTokenizer { dir: PathBuf },
    #[error("tensor {name:?} can't be saved: it is {dtype}, expected F32")]
    SaveDtype { name: String, dtype: String },

    #[error(
        "a batch of {rows} rows, {width} wide, needs {} tokens and as many types; found {tokens} and {types}",
        rows * width
    )]
    BatchSize { rows: usize, width: usize, tokens: usize, types: usize },
    #[error("row {row} of the batch has length {length}, expected 1 to {width}")]
    BatchLength { row: usize, length: u32, width: usize },
    #[error(
        "the batch is {width} tokens wide, but the model has {max_positions} positions \
         (config.json, max_position_embeddings{}); truncate the texts to {max_positions}",
        less(*first_position)
    )]
    TooLong { width: usize, max_positions: usize, first_position: usize },
    #[error(
        "row {row}, token {column} of the batch: id {id} is outside the model's vocabulary of {vocab_size}; \
         the tokenizer doesn't belong to this model"
    )]
    TokenId { row: usize, column: usize, id: u32, vocab_size: usize },
    #[error(
        "row {row}, token {column} of the batch: type {id} is outside the model's {type_vocab_size} token types"
    )]
    TokenType { row: usize, column: usize, id: u32, type_vocab_size: usize },
    #[error(
        "mixing a batch of {rows} rows needs as many partners and shares; found {partners} and {shares}"
    )]
    MixSize { rows: usize, partners: usize, shares: usize },
    #[error("row {row} of the batch is mixed with row {partner}, but there are {rows} rows")]
    MixPartner { row: usize, partner: u32, rows: usize },
    #[error("row {row} of the batch has a share of {share} in its mixture, expected 0 to 1")]
    MixShare { row: usize, share: f32 },

    #[error("layer {asked} was asked for, but the model has {layers}")]
    NoLayer { asked: usize, layers: usize },
    #[error(
        "this architecture shows no queries, keys and values of a layer; leave attention and relation weights out"
    )]
    NoAttentionStates,
    #[error("{reason}")]
    Student { reason: String },

    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// What positions before a text's first take off the table.
fn less(first_position: usize) -> String {
    match first_position {
        0 => String::new(),
        n => format!(", less {n} up to the padding token's"),
    }
}

/// By name, all that stands between a checkpoint's tensors and the model's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Misfit {
    pub missing: Vec<String>,
    pub surplus: Vec<String>,
    pub misshaped: Vec<Misshaped>,
    /// The number in config.json that the weights contradict most, where it shows: its key and what it says.
    pub key: Option<(String, u64)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Misshaped {
    pub name: String,
    pub found: Vec<usize>,
    pub expected: Vec<usize>,
}

impl Misfit {
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.surplus.is_empty() && self.misshaped.is_empty()
    }
}

/// Names told of each; a wrong number in the config is wrong for all tensors.
const SHOWN: usize = 3;

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let shapes = self.misshaped.iter();
        let shapes =
            shapes.map(|m| format!("{} is {:?}, expected {:?}", m.name, m.found, m.expected));
        let parts = [
            ("missing", self.missing.clone()),
            ("not known", self.surplus.clone()),
            ("wrong shape", shapes.collect()),
        ];
        let said = |names: &[String]| match names.len().saturating_sub(SHOWN) {
            0 => names.join(", "),
            n => format!("{} and {n} more", names[..SHOWN].join(", ")),
        };
        let parts = parts.iter().filter(|(_, names)| !names.is_empty());
        let parts: Vec<_> =
            parts.map(|(what, names)| format!(" {what}: {}", said(names))).collect();
        f.write_str(&parts.join(";"))?;
        match &self.key {
            Some((key, value)) => write!(f, "; see {key} in config.json, which is {value}"),
            None => Ok(()),
        }
    }
}
