//! Attention a text at a time: scores, softmax, dropout and values of a head stay in cache. The backward pass computes the
//! probabilities again instead of storing them.

mod softmax;
mod window;

use std::ops::Range;
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::buffers::Buffer;
use crate::host::{host, is_fused, output, slice, tensor};
use crate::relative::{Strips, Sums, Terms};
use crate::small::{Strided, padded, small, transpose};
use crate::{Dropout, Sequences, composed};

use softmax::{drop_rows, softmax_backward_rows, softmax_rows};
pub(crate) use window::Window;
pub use window::attention_in_window;

/// softmax(q·kᵀ/√(C/H))·v within each text, a head at a time, with dropout on the probabilities.
/// q, k, v (N, C) → (N, C). Vaswani et al., 1706.03762, section 3.2. Rows of padding come out as zeros or as anything finite.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    sequences: &Arc<Sequences>,
    heads: usize,
    dropped: Option<Dropout>,
) -> Result<Tensor> {
    let (n, c) = q.dims2()?;
    if k.dims() != q.dims() || v.dims() != q.dims() || sequences.rows() != n {
        let rows = sequences.rows();
        bail!("attention: shapes {:?}, {:?}, {:?}, {rows} rows", q.dims(), k.dims(), v.dims());
    }
    let op = Attention::new(sequences, c, heads, dropped)?;
    if !is_fused(q) {
        return composed::attention(q, k, v, sequences, heads, op.dropped);
    }
    q.contiguous()?.apply_op3(&k.contiguous()?, &v.contiguous()?, op)
}

/// What attention is done on: the texts of a batch, C channels in H heads.
pub(crate) struct Attention {
    sequences: Arc<Sequences>,
    /// The tokens that attend: all of the texts', or each one's first.
    queries: Arc<Sequences>,
    c: usize,
    heads: usize,
    dropped: Option<Dropout>,
    terms: Terms,
}

/// Groups of texts at most whose terms' gradients are summed side by side. Fixed, because their borders decide the order of
/// sums; few, because each has sums of its own.
const GROUPS: usize = 8;

/// Room for one head of D channels and a text of n tokens; (.., n+) and (.., D+) are rounded up to whole vectors.
struct Scratch {
    p: Buffer,      // (n, n+) probabilities
    kept: Buffer,   // (n, n+) what dropout leaves of them
    dp: Buffer,     // (n, n+) their gradient
    across: Buffer, // (D, n+) keys or values, transposed
    right: Buffer,  // (n, D+) an operand with whole vectors
    found: Buffer,  // (n, D+) a result
    strips: Strips,
}

impl Attention {
    pub(crate) fn new(
        sequences: &Arc<Sequences>,
        c: usize,
        heads: usize,
        dropped: Option<Dropout>,
    ) -> Result<Attention> {
        let (b, t) = (sequences.lengths().len(), sequences.width());
        if heads == 0 || !c.is_multiple_of(heads) {
            bail!("attention: {c} channels don't divide into {heads} heads");
        }
        let dropped = dropped.filter(|dropped| dropped.p > 0.0);
        let scores = [heads, t, t].iter().try_fold(b, |n, &by| n.checked_mul(by));
        // Dropout counts them in 32 bits.
        if dropped.is_some() && scores.is_none_or(|n| n > u32::MAX as usize) {
            bail!(
                "attention: {b} rows of {heads} heads and {t} tokens are too many for dropout in one batch"
            );
        }
        Ok(Attention {
            sequences: sequences.clone(),
            queries: sequences.clone(),
            c,
            heads,
            dropped,
            terms: Terms::default(),
        })
    }

    /// The same with terms of distance.
    pub(crate) fn with(self, terms: Terms) -> Attention {
        Attention { terms, ..self }
    }

    /// The same of these tokens: q and y have their rows. Terms of distance are for all tokens only.
    pub(crate) fn of_queries(self, queries: &Arc<Sequences>) -> Attention {
        Attention { queries: queries.clone(), ..self }
    }

    /// Channels of a head, D.
    fn d(&self) -> usize {
        self.c / self.heads
    }

    /// 1/√D, with terms 1/√(D·products).
    fn scale(&self) -> f32 {
        1.0 / ((self.d() * self.terms.n_products()) as f32).sqrt()
    }

    fn scratch(&self) -> Scratch {
        let (n, d) = (self.sequences.width(), self.d());
        let square = || Buffer::of(n * padded(n));
        Scratch {
            p: square(),
            kept: square(),
            dp: square(),
            across: Buffer::of(d * padded(n)),
            right: Buffer::of(n * padded(d)),
            found: Buffer::of(n * padded(d)),
            strips: self.terms.strips(n, d),
        }
    }

    /// Index of the first probability of a head, as if all of (B, H, T, T) were there.
    fn first_index(&self, text: usize, h: usize) -> usize {
        let t = self.sequences.width();
        (text * self.heads + h) * t * t
    }

    /// Head `h` of a text's rows, to be multiplied from the left.
    fn head<'x>(&self, x: &'x [f32], h: usize) -> Strided<'x> {
        Strided { x: &x[h * self.d()..], row: self.c, column: 1 }
    }

    /// Head `h` of n rows into `right`, (n, D+), to be multiplied from the right.
    fn load(&self, x: &[f32], h: usize, n: usize, right: &mut [f32]) {
        let (d, wide) = (self.d(), padded(self.d()));
        for (row, to) in right.chunks_exact_mut(wide).take(n).enumerate() {
            to[..d].copy_from_slice(&x[row * self.c + h * d..][..d]);
            to[d..].fill(0.0);
        }
    }

    /// Head `h` of n rows into `across`, (D, n+).
    fn load_across(&self, x: &[f32], h: usize, n: usize, across: &mut [f32]) {
        transpose(&x[h * self.d()..], self.c, n, self.d(), across);
    }

    /// Head `h` of n rows out of `found`, (n, D+).
    fn store(&self, found: &[f32], h: usize, n: usize, y: &mut [f32]) {
        let (d, wide) = (self.d(), padded(self.d()));
        for (row, from) in found.chunks_exact(wide).take(n).enumerate() {
            y[row * self.c + h * d..][..d].copy_from_slice(&from[..d]);
        }
    }

    /// A text's queries and tokens, m and n.
    fn lengths(&self, text: usize) -> (usize, usize) {
        (self.queries.lengths()[text] as usize, self.sequences.lengths()[text] as usize)
    }

    /// A text's rows of q or y, and of k or v.
    fn places(&self, text: usize) -> (Range<usize>, Range<usize>) {
        let of = |starts: &[usize]| starts[text] * self.c..starts[text + 1] * self.c;
        (of(self.queries.starts()), of(self.sequences.starts()))
    }

    /// Fills `p` with the probabilities (m, n+) and `kept` with what dropout leaves of them.
    fn probabilities(&self, text: usize, h: usize, q: &[f32], k: &[f32], s: &mut Scratch) {
        let (m, n) = self.lengths(text);
        let long = padded(n);
        self.load_across(k, h, n, &mut s.across);
        small(&mut s.p, self.head(q, h), &s.across, m, self.d(), long);
        self.terms.add_scores(h, n, self.head(q, h), self.head(k, h), &mut s.strips, &mut s.p);
        softmax_rows(&mut s.p[..m * long], n, self.scale());
        if let Some(dropped) = self.dropped {
            let (first, t) = (self.first_index(text, h), self.sequences.width());
            s.kept[..m * long].copy_from_slice(&s.p[..m * long]);
            drop_rows(&mut s.kept[..m * long], dropped, first, t, n);
        }
    }

    pub(crate) fn forward(&self, q: &[f32], k: &[f32], v: &[f32], y: &mut [f32]) {
        let texts = self.queries.split(y, self.c);
        texts.into_par_iter().enumerate().for_each_init(
            || self.scratch(),
            |s, (text, y)| {
                let (of_queries, of_tokens) = self.places(text);
                let (q, k, v) = (&q[of_queries], &k[of_tokens.clone()], &v[of_tokens]);
                let (m, n) = self.lengths(text);
                for h in 0..self.heads {
                    self.probabilities(text, h, q, k, s);
                    self.load(v, h, n, &mut s.right);
                    let kept = if self.dropped.is_some() { &s.kept } else { &s.p };
                    let kept = Strided { x: kept, row: padded(n), column: 1 };
                    small(&mut s.found, kept, &s.right, m, n, padded(self.d()));
                    self.store(&s.found, h, m, y);
                }
                y[m * self.c..].fill(0.0);
            },
        );
    }

    /// With P the probabilities, M the dropout factors, dY the gradient: dV = (P∘M)ᵀ·dY, dP = (dY·Vᵀ)∘M,
    /// dS = P∘(dP − rowsum(dP∘P))·scale, dQ = dS·K, dK = dSᵀ·Q. Writes all of dq, dk, dv; gives the gradients of the terms
    /// for groups of texts, in their order.
    #[expect(clippy::too_many_arguments, reason = "three operands, three gradients and theirs")]
    pub(crate) fn backward(
        &self,
        q: &[f32],
        k: &[f32],
        v: &[f32],
        dy: &[f32],
        dq: &mut [f32],
        dk: &mut [f32],
        dv: &mut [f32],
    ) -> Vec<Sums> {
        let split = |x| self.sequences.split(x, self.c).into_iter();
        let of_queries = self.queries.split(dq, self.c).into_iter();
        let texts = of_queries.zip(split(dk)).zip(split(dv)).enumerate();
        let mut texts: Vec<_> = texts.map(|(text, ((dq, dk), dv))| (text, [dq, dk, dv])).collect();
        let together = if self.terms.is_empty() { 1 } else { texts.len().div_ceil(GROUPS).max(1) };
        texts
            .par_chunks_mut(together)
            .map_init(
                || self.scratch(),
                |s, texts| {
                    let mut sums = self.terms.sums();
                    for (text, gradients) in texts {
                        let (queries, tokens) = self.places(*text);
                        let of_queries = [q, dy].map(|x| &x[queries.clone()]);
                        let [k, v] = [k, v].map(|x| &x[tokens.clone()]);
                        let operands = [of_queries[0], k, v, of_queries[1]];
                        self.backward_text(*text, operands, gradients, s, &mut sums);
                    }
                    sums
                },
            )
            .collect()
    }

    /// The same for one text.
    fn backward_text(
        &self,
        text: usize,
        [q, k, v, dy]: [&[f32]; 4],
        [dq, dk, dv]: &mut [&mut [f32]; 3],
        s: &mut Scratch,
        sums: &mut Sums,
    ) {
        let (m, n) = self.lengths(text);
        let (d, wide, long) = (self.d(), padded(self.d()), padded(n));
        for h in 0..self.heads {
            self.probabilities(text, h, q, k, s);
            let kept = if self.dropped.is_some() { &s.kept } else { &s.p };
            self.load(dy, h, m, &mut s.right);
            let turned = Strided { x: kept, row: 1, column: long };
            small(&mut s.found, turned, &s.right, n, m, wide);
            self.store(&s.found, h, n, dv);

            self.load_across(v, h, n, &mut s.across);
            small(&mut s.dp, self.head(dy, h), &s.across, m, d, long);
            if let Some(dropped) = self.dropped {
                let (first, t) = (self.first_index(text, h), self.sequences.width());
                drop_rows(&mut s.dp[..m * long], dropped, first, t, n);
            }
            softmax_backward_rows(&s.p[..m * long], &mut s.dp[..m * long], n, self.scale());
            if let (Some(bias), Some(sums)) = (&self.terms.bias, &mut sums.bias) {
                bias.backward(h, n, &s.dp, sums);
            }

            self.load(k, h, n, &mut s.right);
            let ds = Strided { x: &s.dp, row: long, column: 1 };
            small(&mut s.found, ds, &s.right, m, n, wide);
            if let (Some(keys), Some(sums)) = (&self.terms.keys, &mut sums.keys) {
                self.load(q, h, n, &mut s.strips.rows);
                keys.backward(h, n, &s.dp, &mut s.strips, &mut s.found, sums);
            }
            self.store(&s.found, h, m, dq);

            self.load(q, h, m, &mut s.right);
            let turned = Strided { x: &s.dp, row: 1, column: long };
            small(&mut s.found, turned, &s.right, n, m, wide);
            if let (Some(queries), Some(sums)) = (&self.terms.queries, &mut sums.queries) {
                self.load(k, h, n, &mut s.strips.rows);
                queries.backward(h, n, &s.dp, &mut s.strips, &mut s.found, sums);
            }
            self.store(&s.found, h, n, dk);
        }
        for (padding, length) in [(dq, m), (dk, n), (dv, n)] {
            padding[length * self.c..].fill(0.0);
        }
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
        let mut y = vec![0f32; q.len()];
        Attention::forward(self, q, k, v, &mut y);
        Ok(output(y, q_layout.shape()))
    }

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
        let new = || vec![0f32; qs.len()];
        let (mut dq, mut dk, mut dv) = (new(), new(), new());
        self.backward(&qs, &ks, &vs, &grad, &mut dq, &mut dk, &mut dv);
        Ok((Some(tensor(dq, q)?), Some(tensor(dk, k)?), Some(tensor(dv, v)?)))
    }
}
