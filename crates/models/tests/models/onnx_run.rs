//! A reader of ONNX files and an interpreter of the operators that this crate writes, over candle's tensors: slow, and made
//! from ONNX's documents alone, so that a file is held by something else than its writer.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::{D, DType, Tensor};

use crate::CPU;

/// A field of a protobuf message.
enum Field<'b> {
    Int(i64),
    Float(f32),
    Bytes(&'b [u8]),
}

struct Message<'b>(Vec<(u64, Field<'b>)>);

impl<'b> Message<'b> {
    fn read(mut bytes: &'b [u8]) -> Message<'b> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes);
            let field = match tag & 7 {
                0 => Field::Int(varint(&mut bytes) as i64),
                2 => {
                    let length = varint(&mut bytes) as usize;
                    let (value, rest) = bytes.split_at(length);
                    bytes = rest;
                    Field::Bytes(value)
                }
                5 => {
                    let (value, rest) = bytes.split_at(4);
                    bytes = rest;
                    Field::Float(f32::from_le_bytes(value.try_into().unwrap()))
                }
                other => panic!("wire type {other}"),
            };
            fields.push((tag >> 3, field));
        }
        Message(fields)
    }

    fn all_bytes(&self, number: u64) -> Vec<&'b [u8]> {
        let of = |(n, field): &(u64, Field<'b>)| match field {
            Field::Bytes(bytes) if *n == number => Some(*bytes),
            _ => None,
        };
        self.0.iter().filter_map(of).collect()
    }

    fn messages(&self, number: u64) -> Vec<Message<'b>> {
        self.all_bytes(number).into_iter().map(Message::read).collect()
    }

    fn texts(&self, number: u64) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        self.all_bytes(number).into_iter().map(text).collect()
    }

    fn text(&self, number: u64) -> String {
        self.texts(number).pop().unwrap_or_default()
    }

    fn ints(&self, number: u64) -> Vec<i64> {
        let of = |(n, field): &(u64, Field)| match field {
            Field::Int(value) if *n == number => Some(*value),
            _ => None,
        };
        self.0.iter().filter_map(of).collect()
    }

    fn int(&self, number: u64) -> i64 {
        self.ints(number).pop().unwrap()
    }

    fn float(&self, number: u64) -> f32 {
        let of = |(n, field): &(u64, Field)| match field {
            Field::Float(value) if *n == number => Some(*value),
            _ => None,
        };
        self.0.iter().find_map(of).unwrap()
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let (first, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            break;
        }
    }
    value
}

/// An input or output: its name, the number of its type, its axes as names or sizes.
pub type Port = (String, i64, Vec<String>);

pub struct Onnx {
    pub ir_version: i64,
    pub opset: i64,
    pub metadata: Vec<(String, String)>,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    pub constants: HashMap<String, Tensor>,
    pub nodes: Vec<Node>,
}

pub struct Node {
    pub op: String,
    pub inputs: Vec<String>,
    pub output: String,
    ints: HashMap<String, Vec<i64>>,
    floats: HashMap<String, f32>,
}

impl Onnx {
    pub fn read(path: &Path) -> Onnx {
        let bytes = fs::read(path).unwrap();
        let model = Message::read(&bytes);
        let graph = model.messages(7).pop().unwrap();
        let pair = |entry: &Message| (entry.text(1), entry.text(2));
        Onnx {
            ir_version: model.int(1),
            opset: model.messages(8)[0].int(2),
            metadata: model.messages(14).iter().map(pair).collect(),
            inputs: graph.messages(11).iter().map(port).collect(),
            outputs: graph.messages(12).iter().map(port).collect(),
            constants: graph.messages(5).iter().map(|tensor| constant(tensor, path)).collect(),
            nodes: graph.messages(1).iter().map(node).collect(),
        }
    }

    /// The values of all outputs.
    pub fn run(&self, inputs: &[(&str, &Tensor)]) -> Vec<Tensor> {
        let mut values = self.constants.clone();
        values.extend(inputs.iter().map(|(name, tensor)| (name.to_string(), (*tensor).clone())));
        for node in &self.nodes {
            let inputs: Vec<&Tensor> = node
                .inputs
                .iter()
                .map(|name| values.get(name).unwrap_or_else(|| panic!("{name} isn't there yet")))
                .collect();
            let value =
                node.run(&inputs).unwrap_or_else(|error| panic!("{}: {error}", node.output));
            assert!(values.insert(node.output.clone(), value).is_none(), "{} twice", node.output);
        }
        self.outputs.iter().map(|(name, ..)| values[name].clone()).collect()
    }
}

fn port(info: &Message) -> Port {
    let tensor = info.messages(2)[0].messages(1).pop().unwrap();
    let axis = |dimension: &Message| match dimension.text(2) {
        name if name.is_empty() => dimension.int(1).to_string(),
        name => name,
    };
    let axes = tensor.messages(2)[0].messages(1).iter().map(axis).collect();
    (info.text(1), tensor.int(1), axes)
}

fn constant(tensor: &Message, model: &Path) -> (String, Tensor) {
    let shape: Vec<usize> = tensor.ints(1).into_iter().map(|n| n as usize).collect();
    let outside: HashMap<String, String> =
        tensor.messages(13).iter().map(|entry| (entry.text(1), entry.text(2))).collect();
    let bytes = match outside.get("location") {
        Some(file) => {
            assert_eq!(tensor.int(14), 1);
            let (from, n): (usize, usize) =
                (outside["offset"].parse().unwrap(), outside["length"].parse().unwrap());
            fs::read(model.with_file_name(file)).unwrap()[from..][..n].to_vec()
        }
        None => tensor.all_bytes(9)[0].to_vec(),
    };
    let of = match tensor.int(2) {
        1 => DType::F32,
        7 => DType::I64,
        other => panic!("tensors of type {other}"),
    };
    (tensor.text(8), Tensor::from_raw_buffer(&bytes, of, &shape, &CPU).unwrap())
}

fn node(node: &Message) -> Node {
    let (mut ints, mut floats) = (HashMap::new(), HashMap::new());
    for attribute in node.messages(5) {
        let name = attribute.text(1);
        match attribute.int(20) {
            1 => drop(floats.insert(name, attribute.float(2))),
            2 => drop(ints.insert(name, attribute.ints(3))),
            7 => drop(ints.insert(name, attribute.ints(8))),
            other => panic!("attributes of type {other}"),
        }
    }
    let output = node.texts(2).pop().unwrap();
    Node { op: node.text(4), inputs: node.texts(1), output, ints, floats }
}

impl Node {
    fn run(&self, x: &[&Tensor]) -> candle_core::Result<Tensor> {
        let int = |name: &str| self.ints[name][0];
        let axis = |name: &str, tensor: &Tensor| match int(name) {
            n if n < 0 => (tensor.rank() as i64 + n) as usize,
            n => n as usize,
        };
        match self.op.as_str() {
            "Identity" => Ok(x[0].clone()),
            "Add" => x[0].broadcast_add(x[1]),
            "Sub" => x[0].broadcast_sub(x[1]),
            "Mul" => x[0].broadcast_mul(x[1]),
            "Div" => x[0].broadcast_div(x[1]),
            "MatMul" => x[0].contiguous()?.broadcast_matmul(&x[1].contiguous()?),
            "Gemm" => {
                assert_eq!(int("transB"), 1);
                let y = x[0].matmul(&x[1].t()?)?;
                x.get(2).map_or(Ok(y.clone()), |bias| y.broadcast_add(bias))
            }
            "Relu" => x[0].relu(),
            "Tanh" => x[0].tanh(),
            "Erf" => x[0].erf(),
            "Cos" => x[0].cos(),
            "Sin" => x[0].sin(),
            "Abs" => x[0].abs(),
            "Softmax" => candle_nn::ops::softmax(x[0], axis("axis", x[0])),
            "LayerNormalization" => {
                assert_eq!(int("axis"), -1);
                let centred = x[0].broadcast_sub(&x[0].mean_keepdim(D::Minus1)?)?;
                let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
                let deviation = (variance + f64::from(self.floats["epsilon"]))?.sqrt()?;
                let y = centred.broadcast_div(&deviation)?.broadcast_mul(x[1])?;
                x.get(2).map_or(Ok(y.clone()), |bias| y.broadcast_add(bias))
            }
            "Transpose" => {
                let order: Vec<usize> = self.ints["perm"].iter().map(|&n| n as usize).collect();
                x[0].permute(order)?.contiguous()
            }
            "Reshape" => x[0].reshape(shape(x[0], x[1])?),
            "Unsqueeze" => {
                let axes = x[1].to_vec1::<i64>()?;
                axes.iter().try_fold(x[0].clone(), |x, &axis| x.unsqueeze(axis as usize))
            }
            "Shape" => {
                let dims: Vec<i64> = x[0].dims().iter().map(|&n| n as i64).collect();
                Tensor::new(dims, &CPU)
            }
            "Expand" => {
                let dims: Vec<usize> = x[1].to_vec1::<i64>()?.iter().map(|&n| n as usize).collect();
                x[0].broadcast_as(dims)?.contiguous()
            }
            "Concat" => Tensor::cat(x, axis("axis", x[0])),
            "Slice" => {
                let one =
                    |tensor: &Tensor| Ok::<_, candle_core::Error>(tensor.to_vec1::<i64>()?[0]);
                let at = match one(x[3])? {
                    n if n < 0 => (x[0].rank() as i64 + n) as usize,
                    n => n as usize,
                };
                let (from, to) = (one(x[1])? as usize, (one(x[2])? as usize).min(x[0].dim(at)?));
                x[0].narrow(at, from, to - from)?.contiguous()
            }
            "Gather" => {
                let at = axis("axis", x[0]);
                let picked = x[0].index_select(&x[1].flatten_all()?, at)?;
                let mut dims = x[0].dims().to_vec();
                dims.splice(at..=at, x[1].dims().iter().copied());
                picked.reshape(dims)
            }
            "GatherElements" => x[0].contiguous()?.gather(x[1], axis("axis", x[0])),
            "Range" => {
                let at = |n: usize| x[n].to_scalar::<i64>();
                Tensor::arange_step(at(0)?, at(1)?, at(2)?, &CPU)
            }
            "Equal" => x[0].broadcast_eq(x[1]),
            "Greater" => x[0].broadcast_gt(x[1]),
            "Not" => x[0].eq(&x[0].zeros_like()?),
            "Where" => {
                let dims = x[0].dims();
                x[0].where_cond(&x[1].broadcast_as(dims)?, &x[2].broadcast_as(dims)?)
            }
            "Cast" => x[0].to_dtype(match int("to") {
                1 => DType::F32,
                7 => DType::I64,
                other => panic!("cast to {other}"),
            }),
            "CumSum" => {
                assert_eq!((x[1].to_scalar::<i64>()?, int("exclusive")), (1, 0));
                let mut rows = x[0].to_vec2::<i64>()?;
                for row in &mut rows {
                    let mut sum = 0;
                    row.iter_mut().for_each(|n| {
                        sum += *n;
                        *n = sum;
                    });
                }
                Tensor::new(rows, &CPU)
            }
            "ReduceSum" => {
                assert_eq!(int("keepdims"), 0);
                x[0].sum(x[1].to_vec1::<i64>()?[0] as usize)
            }
            other => panic!("no such operator here: {other}"),
        }
    }
}

/// 0 keeps a size, −1 is what is left.
fn shape(x: &Tensor, asked: &Tensor) -> candle_core::Result<Vec<usize>> {
    let asked = asked.to_vec1::<i64>()?;
    let mut dims: Vec<usize> = asked
        .iter()
        .enumerate()
        .map(|(at, &n)| if n == 0 { x.dims()[at] } else { n.max(1) as usize })
        .collect();
    if let Some(at) = asked.iter().position(|&n| n == -1) {
        dims[at] = x.elem_count() / dims.iter().product::<usize>();
    }
    Ok(dims)
}
