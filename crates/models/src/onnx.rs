//! A classifier → an ONNX file, as Optimum's export of a text classifier has it: opset 18, `input_ids`, `attention_mask` and,
//! where the model reads them, `token_type_ids`, (batch_size, sequence_length) of int64 each → `logits` (batch_size, K).
//!
//! The protobuf is written by hand (field numbers: onnx.proto3 of ONNX's IR version 8), and weights pass from the parameters
//! to the disk piece by piece. What a protobuf can't hold, more than 2 GiB, lies in a second file beside it.

mod attention;
mod deberta;
mod graph;
mod modernbert;
mod parts;
mod post_norm;
mod proto;

use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use sha2::{Digest, Sha256};

pub(crate) use deberta::deberta;
pub(crate) use graph::{Graph, Name};
pub(crate) use modernbert::modernbert;
pub(crate) use post_norm::post_norm;

use crate::architecture;
use crate::config::TokenTypes;
use crate::params::{for_each_piece, for_each_transposed, hex};
use crate::save::{Failure, write_beside};
use crate::{Config, Error, Params, Result};
use graph::{Constant, Numbers};

const IDS: &str = "input_ids";
const MASK: &str = "attention_mask";
const TYPES: &str = "token_type_ids";
const LOGITS: &str = "logits";

/// What Optimum takes where nothing is said; `LayerNormalization` is one operator since 17.
pub const ONNX_OPSET: i64 = 18;
/// The oldest that such an opset goes with.
const IR_VERSION: i64 = 8;
const FLOAT: i64 = 1;
const INT64: i64 = 7;

/// The most bytes of a protobuf.
const MOST: u64 = (1 << 31) - 1;

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Of the model's file, in hex.
    pub sha256: String,
    /// Of all that was written.
    pub bytes: u64,
    /// The weights' own file, where they have one.
    pub weights: Option<PathBuf>,
    /// Names of what the graph reads, in its order.
    pub inputs: Vec<&'static str>,
}

/// Writes the model as ONNX, beside `path` first, then renamed over it; `metadata` goes into the file's own.
///
/// # Errors
/// Parameters that the config's architecture lacks, a device that gives no numbers, a disk that takes none.
pub fn write_onnx(
    path: &Path,
    config: &Config,
    params: &Params,
    metadata: &[(&str, &str)],
) -> Result<Exported> {
    write_onnx_within(path, config, params, metadata, MOST)
}

/// The same with weights in a file of their own where the model's would have more than `most` bytes.
pub fn write_onnx_within(
    path: &Path,
    config: &Config,
    params: &Params,
    metadata: &[(&str, &str)],
    most: u64,
) -> Result<Exported> {
    let mut graph = Graph::default();
    let logits = architecture::graph(config, &mut graph)?;
    graph.named_node("Identity", &[&logits], &[], LOGITS);
    let stored: Vec<Stored> = graph
        .constants
        .iter()
        .map(|constant| Stored::new(constant, params))
        .collect::<Result<_>>()?;
    let whole = Parts::new(config, &graph, &stored, metadata, None);
    if whole.length() <= most {
        let sha256 = whole.write(path, params)?;
        return Ok(Exported {
            sha256,
            bytes: whole.length(),
            weights: None,
            inputs: inputs(config),
        });
    }
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push("_data");
    let weights = path.with_file_name(&name);
    write_beside(&weights, |file| {
        stored.iter().filter(|stored| stored.is_parameter()).try_for_each(|stored| {
            stored.for_each_piece(params, |bytes| Ok(file.write_all(bytes)?))
        })
    })?;
    let parts = Parts::new(config, &graph, &stored, metadata, Some(&name.to_string_lossy()));
    let sha256 = parts.write(path, params)?;
    let of_weights: u64 = stored.iter().filter(|s| s.is_parameter()).map(|s| s.bytes).sum();
    let bytes = parts.length() + of_weights;
    Ok(Exported { sha256, bytes, weights: Some(weights), inputs: inputs(config) })
}

/// Whether the graph asks for token types: wherever Optimum's does, also where all of them are the first.
pub(crate) fn has_types(config: &Config) -> bool {
    let types = architecture::dialect(config.model_type).token_types;
    config.type_vocab_size > 0 && matches!(types, TokenTypes::Read { .. })
}

fn inputs(config: &Config) -> Vec<&'static str> {
    let types = has_types(config).then_some(TYPES);
    [IDS, MASK].into_iter().chain(types).collect()
}

/// A constant with what the file says of it.
struct Stored<'g> {
    constant: &'g Constant,
    shape: Vec<usize>,
    bytes: u64,
}

impl<'g> Stored<'g> {
    fn new(constant: &'g Constant, params: &Params) -> Result<Stored<'g>> {
        let shape = match &constant.numbers {
            Numbers::Ints { shape, .. } | Numbers::Floats { shape, .. } => shape.clone(),
            Numbers::Parameter(name) => dims(params, name)?,
            Numbers::Transposed(name) => dims(params, name)?.into_iter().rev().collect(),
        };
        let each = if matches!(constant.numbers, Numbers::Ints { .. }) { 8 } else { 4 };
        let bytes = each * shape.iter().map(|&n| n as u64).product::<u64>();
        Ok(Stored { constant, shape, bytes })
    }

    fn is_parameter(&self) -> bool {
        matches!(self.constant.numbers, Numbers::Parameter(_) | Numbers::Transposed(_))
    }

    /// Its numbers as little-endian bytes.
    fn for_each_piece(
        &self,
        params: &Params,
        mut take: impl FnMut(&[u8]) -> std::result::Result<(), Failure>,
    ) -> std::result::Result<(), Failure> {
        match &self.constant.numbers {
            Numbers::Ints { values, .. } => {
                take(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
            }
            Numbers::Floats { values, .. } => {
                take(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
            }
            Numbers::Parameter(name) => for_each_piece(name, &tensor(params, name)?, take),
            Numbers::Transposed(name) => for_each_transposed(name, &tensor(params, name)?, take),
        }
    }

    /// TensorProto without its numbers: dims = 1, data_type = 2, name = 8; or with where they lie: external_data = 13,
    /// data_location = 14 (EXTERNAL 1).
    fn header(&self, outside: Option<(&str, u64)>) -> Vec<u8> {
        let mut out = Vec::new();
        self.shape.iter().for_each(|&n| proto::int(&mut out, 1, n as i64));
        let is_ints = matches!(self.constant.numbers, Numbers::Ints { .. });
        proto::int(&mut out, 2, if is_ints { INT64 } else { FLOAT });
        proto::bytes(&mut out, 8, self.constant.name.as_bytes());
        if let Some((file, offset)) = outside {
            for (key, value) in [
                ("location", file.to_string()),
                ("offset", offset.to_string()),
                ("length", self.bytes.to_string()),
            ] {
                proto::bytes(&mut out, 13, &entry(key, &value));
            }
            proto::int(&mut out, 14, 1);
        } else {
            proto::announce(&mut out, 9, self.bytes); // raw_data = 9
        }
        out
    }
}

fn tensor(params: &Params, name: &str) -> Result<Tensor> {
    let var = params.0.get(name).ok_or_else(|| Error::NoParameter { name: name.into() })?;
    Ok(var.as_detached_tensor())
}

fn dims(params: &Params, name: &str) -> Result<Vec<usize>> {
    Ok(tensor(params, name)?.dims().to_vec())
}

/// The file as pieces of known length: a header, the tensors one after the other, the rest.
struct Parts<'g> {
    header: Vec<u8>,
    /// What stands before each tensor's numbers, and whether they follow.
    tensors: Vec<(Vec<u8>, &'g Stored<'g>, IsInside)>,
    rest: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq)]
enum IsInside {
    Yes,
    No,
}

impl<'g> Parts<'g> {
    /// `outside` is the file of the parameters, where they have one.
    fn new(
        config: &Config,
        graph: &Graph,
        stored: &'g [Stored<'g>],
        metadata: &[(&str, &str)],
        outside: Option<&str>,
    ) -> Parts<'g> {
        let mut offset = 0;
        let mut tensors = Vec::with_capacity(stored.len());
        for stored in stored {
            let place = outside.filter(|_| stored.is_parameter()).map(|file| (file, offset));
            let message = stored.header(place);
            let is_inside = if place.is_some() { IsInside::No } else { IsInside::Yes };
            let length = message.len() as u64 + if place.is_some() { 0 } else { stored.bytes };
            offset += if place.is_some() { stored.bytes } else { 0 };
            let mut before = Vec::new();
            proto::announce(&mut before, 5, length); // GraphProto.initializer = 5
            before.extend(message);
            tensors.push((before, stored, is_inside));
        }
        // GraphProto: node = 1, name = 2, input = 11, output = 12.
        let mut inner = Vec::new();
        graph.nodes.iter().for_each(|node| proto::bytes(&mut inner, 1, node));
        proto::bytes(&mut inner, 2, config.model_type.name().as_bytes());
        for name in inputs(config) {
            let axes = [Axis::Named("batch_size"), Axis::Named("sequence_length")];
            proto::bytes(&mut inner, 11, &value_info(name, INT64, &axes));
        }
        let axes = [Axis::Named("batch_size"), Axis::Fixed(config.labels.len())];
        proto::bytes(&mut inner, 12, &value_info(LOGITS, FLOAT, &axes));

        // ModelProto: ir_version = 1, producer_name = 2, producer_version = 3, graph = 7, opset_import = 8, metadata_props = 14.
        let mut rest = Vec::new();
        let mut opset = Vec::new();
        proto::bytes(&mut opset, 1, b"");
        proto::int(&mut opset, 2, ONNX_OPSET);
        proto::bytes(&mut rest, 8, &opset);
        for (key, value) in metadata {
            proto::bytes(&mut rest, 14, &entry(key, value));
        }
        let mut header = Vec::new();
        proto::int(&mut header, 1, IR_VERSION);
        proto::bytes(&mut header, 2, b"lowchurn");
        proto::bytes(&mut header, 3, env!("CARGO_PKG_VERSION").as_bytes());
        let of_tensors: u64 = tensors.iter().map(length_of).sum();
        proto::announce(&mut header, 7, inner.len() as u64 + of_tensors);
        header.extend(inner);
        Parts { header, tensors, rest }
    }

    fn length(&self) -> u64 {
        let of_tensors: u64 = self.tensors.iter().map(length_of).sum();
        (self.header.len() + self.rest.len()) as u64 + of_tensors
    }

    /// Gives the SHA-256 of the file in hex.
    fn write(&self, path: &Path, params: &Params) -> Result<String> {
        let mut hash = Sha256::new();
        write_beside(path, |file| {
            let mut put = |bytes: &[u8]| {
                hash.update(bytes);
                file.write_all(bytes).map_err(Failure::from)
            };
            put(&self.header)?;
            for (before, stored, is_inside) in &self.tensors {
                put(before)?;
                if *is_inside == IsInside::Yes {
                    stored.for_each_piece(params, &mut put)?;
                }
            }
            put(&self.rest)
        })?;
        Ok(hex(hash))
    }
}

/// A tensor's bytes in the file.
fn length_of((before, stored, is_inside): &(Vec<u8>, &Stored, IsInside)) -> u64 {
    let inside = if *is_inside == IsInside::Yes { stored.bytes } else { 0 };
    before.len() as u64 + inside
}

enum Axis {
    Named(&'static str),
    Fixed(usize),
}

/// ValueInfoProto: name = 1, type = 2; TypeProto.tensor_type = 1; Tensor: elem_type = 1, shape = 2; TensorShapeProto.dim = 1;
/// Dimension: dim_value = 1, dim_param = 2.
fn value_info(name: &str, of: i64, axes: &[Axis]) -> Vec<u8> {
    let mut shape = Vec::new();
    for axis in axes {
        let mut dimension = Vec::new();
        match axis {
            Axis::Named(name) => proto::bytes(&mut dimension, 2, name.as_bytes()),
            Axis::Fixed(n) => proto::int(&mut dimension, 1, *n as i64),
        }
        proto::bytes(&mut shape, 1, &dimension);
    }
    let (mut tensor, mut kind, mut out) = (Vec::new(), Vec::new(), Vec::new());
    proto::int(&mut tensor, 1, of);
    proto::bytes(&mut tensor, 2, &shape);
    proto::bytes(&mut kind, 1, &tensor);
    proto::bytes(&mut out, 1, name.as_bytes());
    proto::bytes(&mut out, 2, &kind);
    out
}

/// StringStringEntryProto: key = 1, value = 2.
fn entry(key: &str, value: &str) -> Vec<u8> {
    let mut out = Vec::new();
    proto::bytes(&mut out, 1, key.as_bytes());
    proto::bytes(&mut out, 2, value.as_bytes());
    out
}
