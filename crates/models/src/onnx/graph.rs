//! A graph of ONNX operators in the making: nodes in the order in which they run, and the constants and parameters that they
//! read. A value is known by its name; shapes are nowhere written but in constants, inputs and the output.

use super::proto;

/// The name of what a node or a constant gives.
pub(crate) type Name = String;

/// Nodes and what they read.
#[derive(Default)]
pub(crate) struct Graph {
    /// NodeProto messages.
    pub(crate) nodes: Vec<Vec<u8>>,
    pub(crate) constants: Vec<Constant>,
}

/// A tensor that is stored with the graph.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Constant {
    pub(crate) name: Name,
    pub(crate) numbers: Numbers,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Numbers {
    Ints {
        shape: Vec<usize>,
        values: Vec<i64>,
    },
    Floats {
        shape: Vec<usize>,
        values: Vec<f32>,
    },
    /// The parameter of this name; its numbers are read when the file is written.
    Parameter(String),
    /// The same with rows for columns: (O, I) is stored as (I, O), which is what `MatMul` takes on its right.
    Transposed(String),
}

/// A setting of a node.
pub(crate) enum Attribute<'a> {
    Int(&'static str, i64),
    Ints(&'static str, &'a [i64]),
    Float(&'static str, f32),
}

impl Graph {
    /// Adds a node with one output and gives the output's name.
    pub(crate) fn node(&mut self, op: &str, inputs: &[&str], attributes: &[Attribute]) -> Name {
        let output = format!("{op}_{}", self.nodes.len());
        self.named_node(op, inputs, attributes, &output);
        output
    }

    /// NodeProto: input = 1, output = 2, name = 3, op_type = 4, attribute = 5.
    pub(crate) fn named_node(
        &mut self,
        op: &str,
        inputs: &[&str],
        attributes: &[Attribute],
        output: &str,
    ) {
        let mut node = Vec::new();
        inputs.iter().for_each(|input| proto::bytes(&mut node, 1, input.as_bytes()));
        proto::bytes(&mut node, 2, output.as_bytes());
        proto::bytes(&mut node, 3, output.as_bytes());
        proto::bytes(&mut node, 4, op.as_bytes());
        for attribute in attributes {
            proto::bytes(&mut node, 5, &attribute.encoded());
        }
        self.nodes.push(node);
    }

    pub(crate) fn parameter(&mut self, name: &str) -> Name {
        self.constant(name.into(), Numbers::Parameter(name.into()))
    }

    pub(crate) fn transposed(&mut self, name: &str) -> Name {
        self.constant(format!("{name}.T"), Numbers::Transposed(name.into()))
    }

    pub(crate) fn ints(&mut self, shape: &[usize], values: &[i64]) -> Name {
        self.unnamed(Numbers::Ints { shape: shape.into(), values: values.into() })
    }

    pub(crate) fn floats(&mut self, shape: &[usize], values: &[f32]) -> Name {
        self.unnamed(Numbers::Floats { shape: shape.into(), values: values.into() })
    }

    pub(crate) fn int(&mut self, value: i64) -> Name {
        self.ints(&[], &[value])
    }

    pub(crate) fn float(&mut self, value: f32) -> Name {
        self.floats(&[], &[value])
    }

    /// Equal constants are one.
    fn unnamed(&mut self, numbers: Numbers) -> Name {
        match self.constants.iter().find(|constant| constant.numbers == numbers) {
            Some(constant) => constant.name.clone(),
            None => self.constant(format!("constant_{}", self.constants.len()), numbers),
        }
    }

    fn constant(&mut self, name: Name, numbers: Numbers) -> Name {
        if !self.constants.iter().any(|constant| constant.name == name) {
            self.constants.push(Constant { name: name.clone(), numbers });
        }
        name
    }
}

impl Attribute<'_> {
    /// AttributeProto: name = 1, f = 2, i = 3, ints = 8, type = 20 (FLOAT 1, INT 2, INTS 7).
    fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Attribute::Int(name, value) => {
                proto::bytes(&mut out, 1, name.as_bytes());
                proto::int(&mut out, 3, *value);
                proto::int(&mut out, 20, 2);
            }
            Attribute::Ints(name, values) => {
                proto::bytes(&mut out, 1, name.as_bytes());
                values.iter().for_each(|&value| proto::int(&mut out, 8, value));
                proto::int(&mut out, 20, 7);
            }
            Attribute::Float(name, value) => {
                proto::bytes(&mut out, 1, name.as_bytes());
                proto::float(&mut out, 2, *value);
                proto::int(&mut out, 20, 1);
            }
        }
        out
    }
}
