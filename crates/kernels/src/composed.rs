//! Every operation in candle's own differentiable primitives: the slow twin that defines what is meant,
//! and the form that runs on CUDA and Metal. candle's fused norm and softmax cut the graph without a word
//! and are not used here.

mod modern;

use candle_core::{D, DType, Result, Tensor};

use crate::{Dropout, Gelu, Precision, Sequences};

pub use modern::{attention_in_window, mean_of_texts, rotary};

/// x·Wᵀ + b. Shapes (.., I), (O, I), (O,) → (.., O).
pub fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    precision: Precision,
) -> Result<Tensor> {
    let (o, i) = weight.dims2()?;
    let mut shape = x.dims().to_vec();
    let rows = x.elem_count() / i;
    // Flattened, because candle multiplies batches one by one and gets broadcast operands wrong.
    let x = x.contiguous()?.reshape((rows, i))?;
    let y = match precision {
        Precision::F32 => x.matmul(&weight.t()?)?, // (N, O)
        Precision::Bf16 => {
            let (x, weight) = (x.to_dtype(DType::BF16)?, weight.to_dtype(DType::BF16)?);
            x.matmul(&weight.t()?)?.to_dtype(DType::F32)?
        }
    };
    let y = match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    };
    if let Some(last) = shape.last_mut() {
        *last = o;
    }
    y.reshape(shape)
}

/// (x − mean)/√(variance + eps)·weight + bias over the last dimension. (.., C), (C,), (C,) → (.., C).
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = centred.broadcast_div(&(variance + eps)?.sqrt()?)?;
    normed.broadcast_mul(weight)?.broadcast_add(bias)
}

/// tanh of every element, any shape. Has no fused form: it works on one token a row.
pub fn tanh(x: &Tensor) -> Result<Tensor> {
    x.tanh()
}

/// max(x, 0) of every element, any shape. Has no fused form: few checkpoints use it.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    x.relu()
}

/// log softmax over the last dimension, (B, K) → (B, K). Has no fused form: K is small.
pub fn log_softmax(x: &Tensor) -> Result<Tensor> {
    candle_nn::ops::log_softmax(x, D::Minus1)
}

/// a + b of the same shape.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a + b
}

pub fn gelu(x: &Tensor, kind: Gelu) -> Result<Tensor> {
    match kind {
        Gelu::Erf => x.gelu_erf(),
        Gelu::Tanh => x.gelu(),
    }
}

/// Rows of the table by id. (V, C), (..) → (.., C).
pub fn embedding(table: &Tensor, ids: &Tensor) -> Result<Tensor> {
    let shape = [ids.dims(), &[table.dim(1)?]].concat();
    table.index_select(&ids.flatten_all()?, 0)?.reshape(shape)
}

/// softmax(q·kᵀ/√(C/H))·v within each text, a head at a time, with dropout on the probabilities. (N, C) each → (N, C).
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    sequences: &Sequences,
    heads: usize,
    dropped: Option<Dropout>,
) -> Result<Tensor> {
    let (b, t) = (sequences.lengths().len(), sequences.width());
    let (_, c) = q.dims2()?;
    let of_all = |x: &Tensor| {
        unpack(x, sequences)?.reshape((b, t, heads, c / heads))?.transpose(1, 2)?.contiguous()
    };
    let (q, k, v) = (of_all(q)?, of_all(k)?, of_all(v)?); // (B, H, T, C/H)
    let scores = (q.matmul(&k.t()?)? / ((c / heads) as f64).sqrt())?; // (B, H, T, T)
    let scores = scores.broadcast_add(&mask(sequences.lengths(), t, q.dtype(), q.device())?)?;
    let mut probabilities = candle_nn::ops::softmax(&scores, D::Minus1)?;
    if let Some(dropped) = dropped {
        probabilities = dropout(&probabilities, dropped)?;
    }
    let y = probabilities.matmul(&v)?.transpose(1, 2)?.reshape((b * t, c))?;
    if !sequences.is_packed() {
        return Ok(y);
    }
    y.index_select(&Tensor::new(sequences.places(), y.device())?, 0)
}

/// (N, C) → (B·T, C). Padding repeats the first row: it is masked or not looked at.
fn unpack(x: &Tensor, sequences: &Sequences) -> Result<Tensor> {
    if !sequences.is_packed() {
        return x.contiguous();
    }
    let mut rows = vec![0u32; sequences.lengths().len() * sequences.width()];
    for (row, &place) in sequences.places().iter().enumerate() {
        rows[place as usize] = row as u32;
    }
    x.contiguous()?.index_select(&Tensor::new(rows, x.device())?, 0)
}

/// Additive mask (B, 1, 1, T): 0 on real tokens, a large finite negative number elsewhere
/// (minus infinity would turn a fully masked row into NaN).
fn mask(lengths: &[u32], t: usize, dtype: DType, device: &candle_core::Device) -> Result<Tensor> {
    let flat: Vec<f32> = lengths
        .iter()
        .flat_map(|&length| (0..t).map(move |s| if s < length as usize { 0.0 } else { -1e9 }))
        .collect();
    Tensor::from_vec(flat, (lengths.len(), 1, 1, t), device)?.to_dtype(dtype)
}

/// Each element times 0 or 1/(1−p), chosen by key and by its index in (B, T, C).
pub fn dropout_rows(x: &Tensor, sequences: &Sequences, dropped: Dropout) -> Result<Tensor> {
    let c = x.dim(1)? as u32;
    let of_row = |&place: &u32| {
        (0..c).map(move |channel| dropped.factor(place.wrapping_mul(c).wrapping_add(channel)))
    };
    let factors: Vec<f32> = sequences.places().iter().flat_map(of_row).collect();
    x * Tensor::from_vec(factors, x.shape(), x.device())?.to_dtype(x.dtype())?
}

/// Each element times 0 or 1/(1−p), chosen by key and flat index.
pub fn dropout(x: &Tensor, dropped: Dropout) -> Result<Tensor> {
    let n = x.elem_count() as u32;
    let factors: Vec<f32> = (0..n).map(|index| dropped.factor(index)).collect();
    x * Tensor::from_vec(factors, x.shape(), x.device())?.to_dtype(x.dtype())?
}
