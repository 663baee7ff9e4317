//! Losses on what a model shows besides its logits: hidden states, attention scores, relations between tokens, and one vector
//! a text. Each is one number a row, as every loss; the division is the step's.
//!
//! Terms on tokens hold a teacher's states against the student's token by token, so both need the same tokens; the teacher is
//! asked in every update anew, for its states are too many to keep. A vector a text needs neither, and is kept in a table.

pub(crate) mod known;
mod losses;
mod relation;
#[cfg(test)]
mod tests;
mod vectors;

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{Device, Result as TensorResult, Tensor, Var};
use lowchurn_data::{Encoded, Rng};
use lowchurn_kernels::mean_of_texts;
use lowchurn_models::{Config, Params, States, Wanted};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};
use known::texts_of;

pub(crate) use losses::Followed;
pub use vectors::Vectors;
pub(crate) use vectors::text_vectors;

/// How much each term weighs beside the labels' and the logits'; 0 is off.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StateTerms {
    /// Mean square of the differences between hidden states: embeddings, and each layer of the student with the teacher's that
    /// stands as high. Through a learned projection where widths differ. TinyBERT (Jiao et al. 2020, 1909.10351).
    pub hidden_weight: f64,
    /// Mean square of the differences between attention scores before softmax, layer by layer. TinyBERT.
    pub attention_weight: f64,
    /// KL between relations of queries, of keys and of values in the last layers. MiniLMv2 (Wang et al. 2021, 2012.15828).
    pub relation_weight: f64,
    /// Heads that channels are split into for relations; `None`: the teacher's attention heads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relation_heads: Option<usize>,
    /// Between one vector a text of the teacher and a learned projection of the student's.
    pub vector_weight: f64,
    pub vector_loss: VectorLoss,
    pub teacher_vector: TextVector,
    pub student_vector: TextVector,
}

impl Default for StateTerms {
    fn default() -> StateTerms {
        StateTerms {
            hidden_weight: 0.0,
            attention_weight: 0.0,
            relation_weight: 0.0,
            relation_heads: None,
            vector_weight: 0.0,
            vector_loss: VectorLoss::Cosine,
            teacher_vector: TextVector::Mean,
            student_vector: TextVector::Pooled,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VectorLoss {
    /// 1 − cos(a, b).
    Cosine,
    /// The mean over channels of (a − b)².
    Mse,
}

/// The vector that stands for a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextVector {
    /// The mean of the last hidden states.
    Mean,
    /// The first token's last hidden state.
    First,
    /// What the head reads.
    Pooled,
}

impl TextVector {
    pub fn name(self) -> &'static str {
        match self {
            TextVector::Mean => "mean",
            TextVector::First => "first",
            TextVector::Pooled => "pooled",
        }
    }

    /// What a forward pass must keep for it.
    pub fn wanted(self, layers: usize) -> Wanted {
        let hidden = match self {
            TextVector::Mean | TextVector::First => BTreeSet::from([layers]),
            TextVector::Pooled => BTreeSet::new(),
        };
        Wanted { hidden, ..Wanted::default() }
    }

    /// (B, C) of a pass that kept it, with its graph.
    pub fn of(self, states: &States, layers: usize) -> Result<Tensor> {
        if self == TextVector::Pooled {
            return Ok(states.pooled.clone());
        }
        let (hidden, sequences) = (kept(&states.hidden, layers)?, &states.sequences); // (N, C)
        if self == TextVector::Mean {
            return Ok(mean_of_texts(hidden, sequences)?);
        }
        let starts: Vec<u32> = texts_of(sequences).iter().map(|&(start, _)| start as u32).collect();
        let b = starts.len();
        Ok(hidden.index_select(&Tensor::from_vec(starts, b, hidden.device())?, 0)?)
    }
}

impl StateTerms {
    /// Refuses numbers that can't be run.
    pub fn check(self) -> Result<StateTerms> {
        let weights = [
            ("hidden_weight", self.hidden_weight),
            ("attention_weight", self.attention_weight),
            ("relation_weight", self.relation_weight),
            ("vector_weight", self.vector_weight),
        ];
        for (key, weight) in weights {
            if !(weight.is_finite() && weight >= 0.0) {
                let expected = "0 or a positive number";
                return Err(Error::PlanValue { key, value: weight.to_string(), expected });
            }
        }
        if weights.iter().all(|(_, weight)| *weight == 0.0) {
            let (key, value) = ("states", "without a weight".into());
            let expected = "a hidden, attention, relation or vector weight above 0";
            return Err(Error::PlanValue { key, value, expected });
        }
        if self.relation_heads == Some(0) {
            let key = "relation_heads";
            return Err(Error::PlanValue { key, value: "0".into(), expected: "at least 1" });
        }
        Ok(self)
    }

    /// Whether teacher and student are held together token by token.
    pub fn is_on_tokens(&self) -> bool {
        self.hidden_weight > 0.0 || self.attention_weight > 0.0 || self.relation_weight > 0.0
    }

    /// Whether the two models can be held together, said before anything is trained.
    pub fn check_models(&self, student: &Config, teacher: &Config) -> Result<()> {
        if !self.is_on_tokens() {
            return Ok(());
        }
        let refuse = |reason: String| Err(Error::States { reason });
        let (m, n) = (student.layers, teacher.layers);
        if m > n {
            return refuse(format!(
                "the student has {m} layers and the teacher {n}, so some would have none to follow; take a deeper teacher, or \
                 --vector-weight alone"
            ));
        }
        if self.attention_weight > 0.0 && student.heads != teacher.heads {
            let (student, teacher) = (student.heads, teacher.heads);
            return refuse(format!(
                "attention scores are compared head by head, but the student has {student} heads and the teacher {teacher}; use \
                 --relation-weight, which needs no such thing"
            ));
        }
        if self.relation_weight > 0.0 {
            let heads = self.heads(teacher);
            for (whose, width) in
                [("student", student.hidden_size), ("teacher", teacher.hidden_size)]
            {
                if !width.is_multiple_of(heads) {
                    return refuse(format!(
                        "the {whose} is {width} wide, which {heads} relation heads don't divide; give --relation-heads that \
                         divide {} and {}",
                        student.hidden_size, teacher.hidden_size
                    ));
                }
            }
        }
        Ok(())
    }

    fn heads(&self, teacher: &Config) -> usize {
        self.relation_heads.unwrap_or(teacher.heads)
    }

    /// What the student's forward pass must keep.
    pub fn wanted_of_student(&self, student: &Config) -> Wanted {
        let layers = student.layers;
        let mut wanted = match self.vector_weight > 0.0 {
            true => self.student_vector.wanted(layers),
            false => Wanted::default(),
        };
        if self.hidden_weight > 0.0 {
            wanted.hidden.extend(0..=layers);
        }
        wanted.attention = self.layers_of_attention(student).collect();
        wanted
    }

    /// What the teacher's forward pass must keep.
    pub fn wanted_of_teacher(&self, student: &Config, teacher: &Config) -> Wanted {
        let mut wanted = Wanted::default();
        if self.hidden_weight > 0.0 {
            wanted.hidden.extend((0..=student.layers).map(|at| below(at, student, teacher)));
        }
        let followed = self.layers_of_attention(student).map(|at| followed(at, student, teacher));
        wanted.attention = followed.collect();
        wanted
    }

    fn layers_of_attention(&self, student: &Config) -> impl Iterator<Item = usize> + use<> {
        let last = student.layers.saturating_sub(1);
        let all = self.attention_weight > 0.0;
        let any = all || self.relation_weight > 0.0;
        (if all { 0 } else { last })..(if any { last + 1 } else { last })
    }

    /// Names and shapes of what is learnt besides the student and is thrown away with the run.
    pub fn projections(
        &self,
        student: &Config,
        teacher_width: usize,
        vector_width: usize,
    ) -> Vec<(String, Vec<usize>)> {
        let c = student.hidden_size;
        let mut shapes = Vec::new();
        let mut add = |name: &str, to: usize| {
            shapes.push((format!("{name}.bias"), vec![to]));
            shapes.push((format!("{name}.weight"), vec![to, c]));
        };
        if self.hidden_weight > 0.0 && teacher_width != c {
            add(HIDDEN, teacher_width);
        }
        if self.vector_weight > 0.0 {
            add(VECTOR, vector_width);
        }
        shapes
    }
}

const HIDDEN: &str = "hidden";
const VECTOR: &str = "vector";

/// The teacher's hidden states that a student's follow: those after the same share of its layers.
fn below(at: usize, student: &Config, teacher: &Config) -> usize {
    at * teacher.layers / student.layers.max(1)
}

/// The teacher's layer whose attention a student's layer follows: the one that ends at the same share.
fn followed(at: usize, student: &Config, teacher: &Config) -> usize {
    below(at + 1, student, teacher).saturating_sub(1)
}

fn kept<T>(all: &BTreeMap<usize, T>, at: usize) -> Result<&T> {
    all.get(&at).ok_or_else(|| Error::States {
        reason: format!("the forward pass kept nothing of layer {at}"),
    })
}

/// Weights N(0, 1/C), which keep a vector's length; biases 0.
pub(crate) fn fresh_projections(
    shapes: Vec<(String, Vec<usize>)>,
    seed: u64,
    device: &Device,
) -> Result<Params> {
    let mut rng = Rng::stream(seed, "projections", 0);
    let mut fresh = |(name, shape): (String, Vec<usize>)| {
        let n = shape.iter().product();
        let values: Vec<f32> = match shape[..] {
            [_, c] => (0..n).map(|_| (rng.normal() / (c as f64).sqrt()) as f32).collect(),
            _ => vec![0.0; n],
        };
        Ok((name, Var::from_vec(values, shape, device)?))
    };
    Ok(Params(shapes.into_iter().map(&mut fresh).collect::<TensorResult<_>>()?))
}

/// Refuses rows of which teacher and student read other tokens: their states couldn't be held together.
pub fn check_same_tokens(student: &Encoded, teacher: &Encoded) -> Result<()> {
    let differs = |row: &usize| student.tokens_of(*row) != teacher.tokens_of(*row);
    match (0..student.rows()).find(differs) {
        None => Ok(()),
        Some(row) => Err(Error::OtherTokens {
            id: student.ids[row].clone(),
            student: student.length(row),
            teacher: teacher.length(row),
        }),
    }
}
