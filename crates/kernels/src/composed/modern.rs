//! The slow twins of rotary positions, windows and pooling by the mean.

use candle_core::{Result, Tensor};

use super::{attend, of_heads, widened};
use crate::{Dropout, Rotary, Sequences};

/// Every head of every row turned by the angles of its place. (N, C) → (N, C).
pub fn rotary(x: &Tensor, sequences: &Sequences, angles: &Rotary) -> Result<Tensor> {
    let ((n, c), d, t) = (x.dims2()?, angles.d(), sequences.width());
    let half = d / 2;
    let (cos, sin) = angles.tables();
    let of_rows = |table: &[f32]| {
        let rows = sequences.places().iter().map(|&place| place as usize % t);
        let flat: Vec<f32> =
            rows.flat_map(|place| table[place * half..][..half].to_vec()).collect();
        Tensor::from_vec(flat, (n, 1, half), x.device())?.to_dtype(x.dtype())
    };
    let (cos, sin) = (of_rows(cos)?, of_rows(sin)?);
    let heads = x.reshape((n, c / d, d))?; // (N, H, D)
    let (x_1, x_2) = (heads.narrow(2, 0, half)?, heads.narrow(2, half, half)?);
    let y_1 = (x_1.broadcast_mul(&cos)? - x_2.broadcast_mul(&sin)?)?;
    let y_2 = (x_2.broadcast_mul(&cos)? + x_1.broadcast_mul(&sin)?)?;
    Tensor::cat(&[y_1, y_2], 2)?.reshape((n, c))
}

/// softmax(q·kᵀ/√(C/H))·v within each text, over the keys at most `reach` places from the query. (N, C) each → (N, C).
pub fn attention_in_window(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    sequences: &Sequences,
    heads: usize,
    reach: usize,
    dropped: Option<Dropout>,
) -> Result<Tensor> {
    let (t, c) = (sequences.width(), q.dim(1)?);
    let [q, k, v] = of_heads([q, k, v], sequences, heads)?; // (B, H, T, C/H)
    let scores = (q.matmul(&k.t()?)? / ((c / heads) as f64).sqrt())?; // (B, H, T, T)
    let scores = widened(&scores)?;
    let far = |query: usize, key: usize| if query.abs_diff(key) > reach { -1e9f32 } else { 0.0 };
    let far: Vec<f32> = (0..t * t).map(|at| far(at / t, at % t)).collect();
    let far = Tensor::from_vec(far, (1, 1, t, t), q.device())?.to_dtype(scores.dtype())?;
    attend(&scores.broadcast_add(&far)?, &v, sequences, dropped)
}

/// Mean over a text's tokens, rows of padding left out: a product with a matrix of 1/length. (N, C) → (B, C).
pub fn mean_of_texts(x: &Tensor, sequences: &Sequences) -> Result<Tensor> {
    let (b, n) = (sequences.lengths().len(), sequences.rows());
    let mut shares = vec![0f32; b * n];
    for (text, (&start, &length)) in sequences.starts().iter().zip(sequences.lengths()).enumerate()
    {
        shares[text * n + start..][..length as usize].fill(1.0 / length as f32);
    }
    Tensor::from_vec(shares, (b, n), x.device())?.to_dtype(x.dtype())?.matmul(&x.contiguous()?)
}
