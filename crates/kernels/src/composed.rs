//! Every operation in candle's own differentiable primitives: the slow twin that defines what is meant,
//! and the form that runs on CUDA and Metal. candle's fused norm and softmax cut the graph without a word
//! and are not used here.

use candle_core::{D, DType, Result, Tensor};

use crate::{Dropout, Gelu};

/// x·Wᵀ + b. Shapes (.., I), (O, I), (O,) → (.., O).
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (o, i) = weight.dims2()?;
    let mut shape = x.dims().to_vec();
    let rows = x.elem_count() / i;
    // Flattened, because candle multiplies batches one by one and gets broadcast operands wrong.
    let y = x.contiguous()?.reshape((rows, i))?.matmul(&weight.t()?)?; // (N, O)
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

/// softmax(q·kᵀ/√(C/H), masked beyond each row's length)·v, a head at a time, with dropout on the probabilities.
/// Shapes (B, T, C) each → (B, T, C).
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    lengths: &[u32],
    heads: usize,
    dropped: Option<Dropout>,
) -> Result<Tensor> {
    let (b, t, c) = q.dims3()?;
    let split = |x: &Tensor| x.reshape((b, t, heads, c / heads))?.transpose(1, 2)?.contiguous();
    let (q, k, v) = (split(q)?, split(k)?, split(v)?); // (B, H, T, C/H)
    let scores = (q.matmul(&k.t()?)? / ((c / heads) as f64).sqrt())?; // (B, H, T, T)
    let scores = scores.broadcast_add(&mask(lengths, t, q.dtype(), q.device())?)?;
    let mut probabilities = candle_nn::ops::softmax(&scores, D::Minus1)?;
    if let Some(dropped) = dropped {
        probabilities = dropout(&probabilities, dropped)?;
    }
    probabilities.matmul(&v)?.transpose(1, 2)?.reshape((b, t, c))
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

/// Each element times 0 or 1/(1−p), chosen by key and flat index.
pub fn dropout(x: &Tensor, dropped: Dropout) -> Result<Tensor> {
    let n = x.elem_count() as u32;
    let factors: Vec<f32> = (0..n).map(|index| dropped.factor(index)).collect();
    x * Tensor::from_vec(factors, x.shape(), x.device())?.to_dtype(x.dtype())?
}
