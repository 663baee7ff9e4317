//! Every operation in candle's own differentiable primitives: the slow twin that defines what is meant,
//! and the form that runs on CUDA and Metal. candle's fused norm and softmax cut the graph without a word
//! and are not used here.

mod modern;

use candle_core::{D, DType, Result, Tensor};

use crate::{Buckets, Dropout, Gelu, Precision, RelativeBias, Sequences};

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
            // Results and gradients come out in bf16 too: candle has no such product with sums in f32.
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
    if is_half(x) {
        let [x, weight, bias] = [widened(x)?, widened(weight)?, widened(bias)?];
        return layer_norm(&x, &weight, &bias, eps)?.to_dtype(DType::F16);
    }
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = centred.broadcast_div(&(variance + eps)?.sqrt()?)?;
    normed.broadcast_mul(weight)?.broadcast_add(bias)
}

/// Numbers of 16 bits whose squares and sums are made in f32, as whoever serves such models does.
fn is_half(x: &Tensor) -> bool {
    x.dtype() == DType::F16
}

fn widened(x: &Tensor) -> Result<Tensor> {
    if is_half(x) { x.to_dtype(DType::F32) } else { Ok(x.clone()) }
}

/// tanh of every element, any shape. Has no fused form: it works on one token a row.
pub fn tanh(x: &Tensor) -> Result<Tensor> {
    x.tanh()
}

/// max(x, 0) of every element, any shape; its derivative at 0 is 0, and what is no number stays none, of which candle's has neither.
/// Has no fused form: few checkpoints use it.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    x.le(0.0)?.where_cond(&x.zeros_like()?, x)
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
    let [q, k, v] = of_heads([q, k, v], sequences, heads)?; // (B, H, T, C/H)
    let scores = (q.matmul(&k.t()?)? / (q.dim(3)? as f64).sqrt())?; // (B, H, T, T)
    attend(&scores, &v, sequences, dropped)
}

/// The same with a number of a table for each head and distance added to the scaled scores; see [`RelativeBias`].
pub fn attention_with_bias(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    sequences: &Sequences,
    heads: usize,
    bias: &RelativeBias,
    dropped: Option<Dropout>,
) -> Result<Tensor> {
    let t = sequences.width();
    let [q, k, v] = of_heads([q, k, v], sequences, heads)?; // (B, H, T, C/H)
    let scores = (q.matmul(&k.t()?)? / (q.dim(3)? as f64).sqrt())?; // (B, H, T, T)
    let bias = bias.table.index_select(&bias.buckets.of_pairs(t, q.device())?, 0)?; // (T·T, H)
    let bias = bias.reshape((1, t, t, heads))?.permute((0, 3, 1, 2))?;
    attend(&scores.broadcast_add(&bias)?, &v, sequences, dropped)
}

/// Disentangled attention with the keys and the queries of all rows of the table, (R, C) each; see [`crate::Disentangled`].
#[expect(clippy::too_many_arguments, reason = "three operands, and how")]
pub fn disentangled_attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    sequences: &Sequences,
    heads: usize,
    terms: [Option<&Tensor>; 2],
    buckets: Buckets,
    dropped: Option<Dropout>,
) -> Result<Tensor> {
    let (b, t) = (sequences.lengths().len(), sequences.width());
    let [q, k, v] = of_heads([q, k, v], sequences, heads)?; // (B, H, T, D)
    let d = q.dim(3)?;
    let rows = buckets.of_pairs(t, q.device())?.reshape((1, 1, t, t))?;
    let products = |x: &Tensor, term: &Tensor, rows: &Tensor| -> Result<Tensor> {
        let r = term.dim(0)?;
        let term = term.reshape((1, r, heads, d))?.permute((0, 2, 3, 1))?;
        let all = x.matmul(&term.expand((b, heads, d, r))?.contiguous()?)?; // (B, H, T, R)
        all.gather(&rows.expand((b, heads, t, t))?.contiguous()?, 3)
    };
    let mut scores = q.matmul(&k.t()?)?; // (B, H, T, T)
    let [keys, queries] = terms;
    if let Some(keys) = keys {
        scores = (scores + products(&q, keys, &rows)?)?;
    }
    if let Some(queries) = queries {
        // A row for each key: its pairs are those of the queries turned over.
        scores = (scores + products(&k, queries, &rows.t()?)?.t()?)?;
    }
    let n_products = 1 + terms.iter().flatten().count();
    attend(&(scores / ((d * n_products) as f64).sqrt())?, &v, sequences, dropped)
}

/// (N, C) each → (B, H, T, C/H).
fn of_heads(x: [&Tensor; 3], sequences: &Sequences, heads: usize) -> Result<[Tensor; 3]> {
    let (b, t) = (sequences.lengths().len(), sequences.width());
    let of = |x: &Tensor| {
        let c = x.dim(1)?;
        unpack(x, sequences)?.reshape((b, t, heads, c / heads))?.transpose(1, 2)?.contiguous()
    };
    Ok([of(x[0])?, of(x[1])?, of(x[2])?])
}

/// Softmax of the scores (B, H, T, T) of each text, dropout, and values (B, H, T, C/H) → (N, C).
fn attend(
    scores: &Tensor,
    v: &Tensor,
    sequences: &Sequences,
    dropped: Option<Dropout>,
) -> Result<Tensor> {
    let (b, heads, t, d) = v.dims4()?;
    let scores = widened(scores)?;
    let scores =
        scores.broadcast_add(&mask(sequences.lengths(), t, scores.dtype(), scores.device())?)?;
    let mut probabilities = candle_nn::ops::softmax(&scores, D::Minus1)?.to_dtype(v.dtype())?;
    if let Some(dropped) = dropped {
        probabilities = dropout(&probabilities, dropped)?;
    }
    let y = probabilities.matmul(v)?.transpose(1, 2)?.reshape((b * t, heads * d))?;
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
