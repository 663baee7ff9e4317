//! Attention over short sequences, a batch row at a time: scores, softmax, dropout and values of a head stay in cache.
//! The backward pass computes the probabilities again instead of storing them.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::host::{host, is_fused, output, slice, tensor};
use crate::lanes::{exp, max, sum_by, wide};
use crate::matmul::{Onto, Threads, View, matmul};
use crate::{Dropout, composed};

/// softmax(q·kᵀ/√(C/H), keys beyond a row's length masked)·v, a head at a time, with dropout on the probabilities.
/// q, k, v (B, T, C), lengths (B,) → (B, T, C). Vaswani et al., 1706.03762, section 3.2.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    lengths: &[u32],
    heads: usize,
    dropped: Option<Dropout>,
) -> Result<Tensor> {
    let (b, t, c) = q.dims3()?;
    if k.dims() != q.dims() || v.dims() != q.dims() || lengths.len() != b {
        bail!(
            "attention: shapes {:?}, {:?}, {:?}, {} lengths",
            q.dims(),
            k.dims(),
            v.dims(),
            lengths.len()
        );
    }
    if heads == 0 || c % heads != 0 {
        bail!("attention: {c} channels don't divide into {heads} heads");
    }
    if let Some(length) = lengths.iter().find(|&&length| length == 0 || length as usize > t) {
        bail!("attention: a row of length {length} in a batch {t} wide");
    }
    if b * heads * t * t > u32::MAX as usize {
        bail!("attention: {b} rows of {heads} heads and {t} tokens are too many for one batch");
    }
    let dropped = dropped.filter(|dropped| dropped.p > 0.0);
    if !is_fused(q) {
        return composed::attention(q, k, v, lengths, heads, dropped);
    }
    let op = Attention { lengths: lengths.to_vec(), t, c, heads, dropped };
    q.contiguous()?.apply_op3(&k.contiguous()?, &v.contiguous()?, op)
}

struct Attention {
    lengths: Vec<u32>,
    t: usize,
    c: usize,
    heads: usize,
    dropped: Option<Dropout>,
}

/// Room for one head: probabilities and their gradients, (T, length) each.
struct Scratch {
    p: Vec<f32>,
    kept: Vec<f32>,
    dp: Vec<f32>,
}

impl Attention {
    fn scratch(&self) -> Scratch {
        let n = self.t * self.t;
        Scratch { p: vec![0.0; n], kept: vec![0.0; n], dp: vec![0.0; n] }
    }

    /// Head `h` of a batch row: its channels of the first `tokens` tokens, (tokens, C/H).
    fn head(&self, h: usize, tokens: usize) -> View {
        let d = self.c / self.heads;
        View { rows: tokens, columns: d, start: h * d, row_stride: self.c, column_stride: 1 }
    }

    /// Index of the first probability of query 0 of a head, as if all of (B, H, T, T) were there.
    fn first_index(&self, row: usize, h: usize) -> usize {
        (row * self.heads + h) * self.t * self.t
    }

    /// Fills `p` with the probabilities (T, length) and `kept` with what dropout leaves of them.
    fn probabilities(&self, row: usize, h: usize, q: &[f32], k: &[f32], s: &mut Scratch) {
        let length = self.lengths[row] as usize;
        let scores = View::rows_of(self.t, length);
        let (qv, kv) = (self.head(h, self.t), self.head(h, length));
        matmul(&mut s.p, scores, Onto::Overwrite, q, qv, k, kv.t(), Threads::One);
        let scale = 1.0 / ((self.c / self.heads) as f32).sqrt();
        softmax_rows(&mut s.p[..self.t * length], length, scale);
        if let Some(dropped) = self.dropped {
            let n = self.t * length;
            drop_rows(
                &s.p[..n],
                dropped,
                self.first_index(row, h),
                self.t,
                length,
                &mut s.kept[..n],
            );
        }
    }

    fn kept<'s>(&self, s: &'s Scratch) -> &'s [f32] {
        if self.dropped.is_some() { &s.kept } else { &s.p }
    }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (q, k, v) = (slice(q, q_layout)?, slice(k, k_layout)?, slice(v, v_layout)?);
        let size = self.t * self.c;
        let mut y = vec![0f32; q.len()];
        y.par_chunks_mut(size).enumerate().for_each_init(
            || self.scratch(),
            |s, (row, y)| {
                let at = row * size..(row + 1) * size;
                let (q, k, v) = (&q[at.clone()], &k[at.clone()], &v[at]);
                let length = self.lengths[row] as usize;
                for h in 0..self.heads {
                    self.probabilities(row, h, q, k, s);
                    let (p_view, v_view) = (View::rows_of(self.t, length), self.head(h, length));
                    let y_view = self.head(h, self.t);
                    let p = self.kept(s);
                    matmul(y, y_view, Onto::Overwrite, p, p_view, v, v_view, Threads::One);
                }
            },
        );
        Ok(output(y, q_layout.shape()))
    }

    /// With P the probabilities, M the dropout factors, dY the gradient: dV = (P∘M)ᵀ·dY, dP = (dY·Vᵀ)∘M,
    /// dS = P∘(dP − rowsum(dP∘P))/√(C/H), dQ = dS·K, dK = dSᵀ·Q.
    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (qs, ks, vs, grad) = (host(q)?, host(k)?, host(v)?, host(&grad)?);
        let (qs, ks, vs, grad): (&[f32], &[f32], &[f32], &[f32]) = (&qs, &ks, &vs, &grad);
        let size = self.t * self.c;
        let new = || vec![0f32; qs.len()];
        let (mut dq, mut dk, mut dv) = (new(), new(), new());
        let scale = 1.0 / ((self.c / self.heads) as f32).sqrt();
        dq.par_chunks_mut(size)
            .zip(dk.par_chunks_mut(size).zip(dv.par_chunks_mut(size)))
            .enumerate()
            .for_each_init(
                || self.scratch(),
                |s, (row, (dq, (dk, dv)))| {
                    let at = row * size..(row + 1) * size;
                    let (q, k) = (&qs[at.clone()], &ks[at.clone()]);
                    let (v, dy) = (&vs[at.clone()], &grad[at]);
                    let length = self.lengths[row] as usize;
                    let p_view = View::rows_of(self.t, length);
                    for h in 0..self.heads {
                        let (long, short) = (self.head(h, self.t), self.head(h, length));
                        self.probabilities(row, h, q, k, s);
                        let p = self.kept(s);
                        matmul(dv, short, Onto::Overwrite, p, p_view.t(), dy, long, Threads::One);
                        matmul(
                            &mut s.dp,
                            p_view,
                            Onto::Overwrite,
                            dy,
                            long,
                            v,
                            short.t(),
                            Threads::One,
                        );
                        let dp = &mut s.dp[..self.t * length];
                        if let Some(dropped) = self.dropped {
                            let first = self.first_index(row, h);
                            drop_rows_in_place(dp, dropped, first, self.t, length);
                        }
                        softmax_backward_rows(&s.p, dp, length, scale);
                        matmul(dq, long, Onto::Overwrite, &s.dp, p_view, k, short, Threads::One);
                        matmul(
                            dk,
                            short,
                            Onto::Overwrite,
                            &s.dp,
                            p_view.t(),
                            q,
                            long,
                            Threads::One,
                        );
                    }
                },
            );
        Ok((Some(tensor(dq, q)?), Some(tensor(dk, k)?), Some(tensor(dv, v)?)))
    }
}

wide! {
/// Each row of scores, times the scale, to probabilities.
fn softmax_rows(x: &mut [f32], length: usize, scale: f32) {
    for row in x.chunks_exact_mut(length) {
        let highest = max(row) * scale;
        for x in row.iter_mut() {
            *x = exp(*x * scale - highest);
        }
        let sum = sum_by(length, |i| row[i]);
        let inverse = 1.0 / sum;
        for x in row.iter_mut() {
            *x *= inverse;
        }
    }
}
}

wide! {
/// `dp` becomes the gradient of the scores before the scale.
fn softmax_backward_rows(p: &[f32], dp: &mut [f32], length: usize, scale: f32) {
    for (p, dp) in p.chunks_exact(length).zip(dp.chunks_exact_mut(length)) {
        let dot = sum_by(length, |i| p[i] * dp[i]);
        for (dp, &p) in dp.iter_mut().zip(p) {
            *dp = p * (*dp - dot) * scale;
        }
    }
}
}

wide! {
fn drop_rows(p: &[f32], dropped: Dropout, first: usize, t: usize, length: usize, kept: &mut [f32]) {
    for (query, (p, kept)) in p.chunks_exact(length).zip(kept.chunks_exact_mut(length)).enumerate() {
        let first = (first + query * t) as u32;
        for (i, (kept, &p)) in kept.iter_mut().zip(p).enumerate() {
            *kept = p * dropped.factor(first + i as u32);
        }
    }
}
}

wide! {
fn drop_rows_in_place(dp: &mut [f32], dropped: Dropout, first: usize, t: usize, length: usize) {
    for (query, dp) in dp.chunks_exact_mut(length).enumerate() {
        let first = (first + query * t) as u32;
        for (i, dp) in dp.iter_mut().enumerate() {
            *dp *= dropped.factor(first + i as u32);
        }
    }
}
}
