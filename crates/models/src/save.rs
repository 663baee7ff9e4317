//! A classifier → the folder that `transformers` loads without a warning. Each file is written beside its place, flushed
//! to the disk and renamed, so that a reader never finds half of one.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
};

use candle_core::Tensor;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::config::label2id;
use crate::params::{for_each_piece, for_each_piece_of, hex};
use crate::student::is_table_of_words;
use crate::{Config, Error, Params, Result, is_head};

/// The metadata that tells readers whose names and layout a file follows.
pub const FORMAT_PT: &[(&str, &str)] = &[("format", "pt")];

/// What a tokenizer may consist of. Each of the first is one that [`save`] needs.
pub const TOKENIZER_FILES: [&str; 10] = [
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    // Nothing here reads these, but the tokenizers that transformers has beside tokenizer.json do.
    "spm.model",
    "spiece.model",
    "sentencepiece.bpe.model",
];

/// Writes model.safetensors, the tokenizer's files (byte for byte from `tokenizer_from`) and config.json into `dir`.
/// The config comes last: a folder without it is not a model. Other files in `dir` are left alone.
///
/// Gives the SHA-256 of model.safetensors, in hex.
pub fn save(dir: &Path, config: &Config, params: &Params, tokenizer_from: &Path) -> Result<String> {
    save_as(dir, published(config), params.tensors(), tokenizer_from)
}

/// The same without the last layer and its classes, and without the prefix that names have beside a head: a base checkpoint,
/// for whatever task comes.
pub fn save_base(
    dir: &Path,
    config: &Config,
    params: &Params,
    tokenizer_from: &Path,
) -> Result<String> {
    let mut raw = published(config);
    raw.insert("architectures".into(), json!([format!("{}Model", config.model_type.class())]));
    for key in ["id2label", "label2id", "num_labels", "problem_type"] {
        raw.shift_remove(key);
    }
    let prefix = params.names().find_map(prefix_of_encoder).unwrap_or_default();
    let encoder = params.tensors().filter(|(name, _)| !is_head(name));
    let encoder = encoder.map(|(name, tensor)| (name.strip_prefix(prefix).unwrap_or(name), tensor));
    save_as(dir, raw, encoder, tokenizer_from)
}

/// `bert.` of `bert.embeddings.word_embeddings.weight`.
fn prefix_of_encoder(name: &str) -> Option<&str> {
    name.find("embeddings.").filter(|_| is_table_of_words(name)).map(|at| &name[..at])
}

fn save_as<'t>(
    dir: &Path,
    raw: Map<String, Value>,
    tensors: impl Iterator<Item = (&'t str, &'t Tensor)>,
    tokenizer_from: &Path,
) -> Result<String> {
    tokenizer_files(tokenizer_from)?;
    fs::create_dir_all(dir).map_err(|source| Error::Write { path: dir.into(), source })?;
    let sha256 = write_safetensors(&dir.join("model.safetensors"), tensors, FORMAT_PT)?;
    copy_tokenizer(tokenizer_from, dir)?;
    write_text(&dir.join("config.json"), &format!("{:#}\n", Value::Object(raw)))?;
    Ok(sha256)
}

/// Copies a tokenizer's files byte for byte.
pub fn copy_tokenizer(from: &Path, to: &Path) -> Result<()> {
    for name in tokenizer_files(from)? {
        let path = from.join(name);
        let content = fs::read(&path).map_err(|source| Error::Read { path, source })?;
        write_beside(&to.join(name), |file| Ok(file.write_all(&content)?))?;
    }
    Ok(())
}

fn tokenizer_files(from: &Path) -> Result<Vec<&'static str>> {
    let is_there = |name: &&str| from.join(name).exists();
    let found: Vec<&str> = TOKENIZER_FILES.into_iter().filter(is_there).collect();
    match found.iter().any(|name| TOKENIZER_FILES[..3].contains(name)) {
        true => Ok(found),
        false => Err(Error::NoTokenizer { dir: from.into() }),
    }
}

/// Numbers for a file: a tensor's, or f32 numbers on the host with their shape.
#[derive(Clone, Copy, Debug)]
pub enum Values<'v> {
    Tensor(&'v Tensor),
    Host { values: &'v [f32], shape: &'v [usize] },
}

impl<'v> From<&'v Tensor> for Values<'v> {
    fn from(tensor: &'v Tensor) -> Values<'v> {
        Values::Tensor(tensor)
    }
}

impl Values<'_> {
    fn shape(&self) -> &[usize] {
        match self {
            Values::Tensor(tensor) => tensor.dims(),
            Values::Host { shape, .. } => shape,
        }
    }

    fn n(&self) -> usize {
        match self {
            Values::Tensor(tensor) => tensor.elem_count(),
            Values::Host { values, .. } => values.len(),
        }
    }
}

/// Writes f32 tensors in the given order, each name once; beside `path` first, then renamed over it. Gives the SHA-256 of the
/// file in hex: a manifest wants it, and here the bytes pass by anyway.
///
/// Not through the safetensors crate, whose metadata is a hash map (more than one entry would make the bytes differ from
/// run to run) and whose files only their owner may read.
pub fn write_safetensors<'t, V: Into<Values<'t>>>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'t str, V)>,
    metadata: &[(&str, &str)],
) -> Result<String> {
    let tensors: Vec<(&str, Values)> =
        tensors.into_iter().map(|(name, values)| (name, values.into())).collect();
    let infos = tensors.iter().map(|(name, values)| (*name, "F32", values.shape(), values.n() * 4));
    write_file(path, infos, metadata, |put| {
        for (name, values) in &tensors {
            match values {
                Values::Tensor(tensor) => for_each_piece(name, tensor, &mut *put)?,
                Values::Host { values, .. } => for_each_piece_of(values, &mut *put)?,
            }
        }
        Ok(())
    })
}

/// Takes the next bytes of a file.
pub(crate) type Put<'p> = dyn FnMut(&[u8]) -> std::result::Result<(), Failure> + 'p;

/// The same of tensors whose name, number format, shape and bytes are told before they are put, in this order.
pub(crate) fn write_file<'t>(
    path: &Path,
    tensors: impl Iterator<Item = (&'t str, &'t str, &'t [usize], usize)>,
    metadata: &[(&str, &str)],
    fill: impl FnOnce(&mut Put) -> std::result::Result<(), Failure>,
) -> Result<String> {
    let metadata: Map<_, _> =
        metadata.iter().map(|&(key, value)| (key.into(), value.into())).collect();
    let mut header = Map::from_iter([("__metadata__".to_owned(), Value::Object(metadata))]);
    let mut start = 0;
    for (name, dtype, shape, bytes) in tensors {
        let end = start + bytes;
        let info = json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] });
        header.insert(name.to_owned(), info);
        start = end;
    }
    let mut header = Value::Object(header).to_string();
    // Readers map the data as numbers, so it has to start at a multiple of eight.
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    let mut hash = Sha256::new();
    write_beside(path, |file| {
        let mut put = |bytes: &[u8]| {
            hash.update(bytes);
            file.write_all(bytes).map_err(Failure::from)
        };
        put(&(header.len() as u64).to_le_bytes())?;
        put(header.as_bytes())?;
        fill(&mut put)
    })?;
    Ok(hex(hash))
}

/// config.json as it is written.
pub(crate) fn config_text(config: &Config) -> String {
    format!("{:#}\n", Value::Object(published(config)))
}

/// Writes a text beside its place and renames it over it.
pub(crate) fn write_text(path: &Path, text: &str) -> Result<()> {
    write_beside(path, |file| Ok(file.write_all(text.as_bytes())?))
}

/// The config as published, with what this model is now: classes, architecture, number format.
fn published(config: &Config) -> Map<String, Value> {
    let mut raw = config.raw.clone();
    let class = format!("{}ForSequenceClassification", config.model_type.class());
    let id2label = config.labels.iter().enumerate();
    let id2label: Map<_, _> =
        id2label.map(|(id, label)| (id.to_string(), label.clone().into())).collect();
    raw.insert("architectures".into(), json!([class]));
    raw.insert("model_type".into(), config.model_type.name().into());
    raw.insert("id2label".into(), id2label.into());
    raw.insert("label2id".into(), label2id(&config.labels).into());
    if raw.get("problem_type").is_none_or(Value::is_null) {
        raw.insert("problem_type".into(), "single_label_classification".into());
    }
    // transformers 5 loads in the type that is written here, and what we write is f32.
    for key in ["dtype", "torch_dtype"] {
        if let Some(dtype) = raw.get_mut(key) {
            *dtype = "float32".into();
        }
    }
    raw
}

/// What went wrong while a file was being filled: the file itself, or what was to go into it.
pub(crate) enum Failure {
    Io(io::Error),
    Content(Error),
}

impl From<io::Error> for Failure {
    fn from(source: io::Error) -> Failure {
        Failure::Io(source)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Content(error)
    }
}

pub(crate) fn write_beside(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> std::result::Result<(), Failure>,
) -> Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let write = || -> std::result::Result<(), Failure> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&partial)?);
        fill(&mut file)?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        Ok(fs::rename(&partial, path)?)
    };
    write().map_err(|failure| {
        // The disk may be full: what was written is of no use, and the first error is the one to tell.
        let _ = fs::remove_file(&partial);
        match failure {
            Failure::Io(source) => Error::Write { path: path.into(), source },
            Failure::Content(error) => error,
        }
    })
}
