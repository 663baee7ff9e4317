//! Attention within a window, as Beltagy et al. have it (2004.05150, section 3.1): a token looks at those at most `reach` places
//! from it. A text's queries go in blocks, each against the keys that some of them reach, so that the cost grows with the
//! window and not with the text.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::Attention;
use super::softmax::{drop_rows, softmax, softmax_backward_rows};
use crate::buffers::Buffer;
use crate::host::{host, is_fused, output, slice, tensor};
use crate::lanes::{LANES, wide};
use crate::small::{Strided, padded, small};
use crate::{Dropout, Sequences, composed};

/// Queries of a block: with a reach of 64 they meet 192 keys, and their scores stay in the second cache.
const QUERIES: usize = 64;

/// softmax(q·kᵀ/√(C/H))·v within each text, over the keys at most `reach` places from the query, a head at a time, with dropout
/// on the probabilities. q, k, v (N, C) → (N, C). Rows of padding come out as zeros or as anything finite.
pub fn attention_in_window(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    sequences: &Arc<Sequences>,
    heads: usize,
    reach: usize,
    dropped: Option<Dropout>,
) -> Result<Tensor> {
    let (n, c) = q.dims2()?;
    if k.dims() != q.dims() || v.dims() != q.dims() || sequences.rows() != n {
        let rows = sequences.rows();
        bail!("attention: shapes {:?}, {:?}, {:?}, {rows} rows", q.dims(), k.dims(), v.dims());
    }
    let op = Window::new(sequences, c, heads, reach, dropped)?;
    if !is_fused(q) {
        return composed::attention_in_window(q, k, v, sequences, heads, reach, op.on.dropped);
    }
    q.contiguous()?.apply_op3(&k.contiguous()?, &v.contiguous()?, op)
}

pub(crate) struct Window {
    on: Attention,
    reach: usize,
}

/// Some queries of a text and the keys that any of them reaches.
struct Block {
    queries: Range<usize>,
    keys: Range<usize>,
}

/// Room for one block of m queries and n keys, and one head of D channels.
struct Scratch {
    p: Buffer,      // (m, n+) probabilities
    kept: Buffer,   // (m, n+) what dropout leaves of them
    dp: Buffer,     // (m, n+) their gradient
    across: Buffer, // (D, n+) keys or values, transposed
    right: Buffer,  // (n, D+) an operand with whole vectors
    found: Buffer,  // (n, D+) a result
}

impl Window {
    pub(crate) fn new(
        sequences: &Arc<Sequences>,
        c: usize,
        heads: usize,
        reach: usize,
        dropped: Option<Dropout>,
    ) -> Result<Window> {
        // A reach beyond the text is the text; so no sum of places overflows.
        let reach = reach.min(sequences.width());
        Ok(Window { on: Attention::new(sequences, c, heads, dropped)?, reach })
    }

    /// A text of two reaches goes at once: in blocks, each would meet nearly all keys, laid out anew.
    fn blocks(&self, n: usize) -> impl Iterator<Item = Block> + use<> {
        let reach = self.reach;
        let each = if n <= 2 * reach { n } else { QUERIES };
        (0..n).step_by(each).map(move |first| {
            let queries = first..(first + each).min(n);
            Block { keys: first.saturating_sub(reach)..(queries.end + reach).min(n), queries }
        })
    }

    fn scratch(&self) -> Scratch {
        let (width, d) = (self.on.sequences.width(), self.on.d());
        let m = width.min(QUERIES.max(2 * self.reach));
        let n = width.min(QUERIES + 2 * self.reach);
        let scores = || Buffer::of(m * padded(n));
        Scratch {
            p: scores(),
            kept: scores(),
            dp: scores(),
            across: Buffer::of(d * padded(n)),
            right: Buffer::of(n * padded(d)),
            found: Buffer::of(n * padded(d)),
        }
    }

    fn drop(&self, text: usize, h: usize, block: &Block, x: &mut [f32]) {
        let Some(dropped) = self.on.dropped else { return };
        let t = self.on.sequences.width();
        let first = self.on.first_index(text, h) + block.queries.start * t + block.keys.start;
        drop_rows(x, dropped, first, t, block.keys.len());
    }

    /// Fills `p` with the probabilities (m, n+) and `kept` with what dropout leaves of them, from all of a text's rows.
    fn probabilities(
        &self,
        text: usize,
        h: usize,
        block: &Block,
        q: &[f32],
        k: &[f32],
        s: &mut Scratch,
    ) {
        let (on, c) = (&self.on, self.on.c);
        let (m, n) = (block.queries.len(), block.keys.len());
        on.load_across(&k[block.keys.start * c..], h, n, &mut s.across);
        let q = on.head(&q[block.queries.start * c..], h);
        let p = &mut s.p[..m * padded(n)];
        small(p, q, &s.across, m, on.d(), padded(n));
        softmax_in_window(p, block, self.reach, 1.0 / (on.d() as f32).sqrt());
        if on.dropped.is_some() {
            let kept = &mut s.kept[..m * padded(n)];
            kept.copy_from_slice(p);
            self.drop(text, h, block, kept);
        }
    }

    pub(crate) fn forward(&self, q: &[f32], k: &[f32], v: &[f32], y: &mut [f32]) {
        let (on, c) = (&self.on, self.on.c);
        let starts = on.sequences.starts();
        let texts = on.sequences.split(y, c);
        texts.into_par_iter().enumerate().for_each_init(
            || self.scratch(),
            |s, (text, y)| {
                let at = starts[text] * c..starts[text + 1] * c;
                let (q, k, v) = (&q[at.clone()], &k[at.clone()], &v[at]);
                let length = on.sequences.lengths()[text] as usize;
                for h in 0..on.heads {
                    for block in self.blocks(length) {
                        let (m, n) = (block.queries.len(), block.keys.len());
                        self.probabilities(text, h, &block, q, k, s);
                        on.load(&v[block.keys.start * c..], h, n, &mut s.right);
                        let kept = if on.dropped.is_some() { &s.kept } else { &s.p };
                        let kept = Strided { x: kept, row: padded(n), column: 1 };
                        small(&mut s.found, kept, &s.right, m, n, padded(on.d()));
                        on.store(&s.found, h, m, &mut y[block.queries.start * c..]);
                    }
                }
                y[length * c..].fill(0.0);
            },
        );
    }

    /// As `Attention::backward`, block after block: a key's gradient is the sum over the blocks that reach it, in their order.
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
    ) {
        let (on, c) = (&self.on, self.on.c);
        let starts = on.sequences.starts();
        let split = |x| on.sequences.split(x, c).into_par_iter();
        split(dq).zip(split(dk)).zip(split(dv)).enumerate().for_each_init(
            || self.scratch(),
            |s, (text, ((dq, dk), dv))| {
                let at = starts[text] * c..starts[text + 1] * c;
                let of_text = [&q[at.clone()], &k[at.clone()], &v[at.clone()], &dy[at]];
                let length = on.sequences.lengths()[text] as usize;
                for all in [&mut *dq, &mut *dk, &mut *dv] {
                    all.fill(0.0);
                }
                for h in 0..on.heads {
                    for block in self.blocks(length) {
                        let grads = [&mut *dq, &mut *dk, &mut *dv];
                        self.backward_block(text, h, &block, of_text, grads, s);
                    }
                }
            },
        );
    }

    /// `of_text` is q, k, v and dy, and `grads` dq, dk and dv: all rows of one text, (n, C) each.
    fn backward_block(
        &self,
        text: usize,
        h: usize,
        block: &Block,
        of_text: [&[f32]; 4],
        grads: [&mut [f32]; 3],
        s: &mut Scratch,
    ) {
        let (on, c, d) = (&self.on, self.on.c, self.on.d());
        let (m, n) = (block.queries.len(), block.keys.len());
        let (wide, long) = (padded(d), padded(n));
        let [q, k, v, dy] = of_text;
        let (of_queries, of_keys) = (block.queries.start * c, block.keys.start * c);
        self.probabilities(text, h, block, q, k, s);
        let (k, v) = (&k[of_keys..], &v[of_keys..]);
        let (q, dy) = (&q[of_queries..], &dy[of_queries..]);
        let [dq, dk, dv] = grads;

        let kept = if on.dropped.is_some() { &s.kept } else { &s.p };
        on.load(dy, h, m, &mut s.right);
        small(&mut s.found, Strided { x: kept, row: 1, column: long }, &s.right, n, m, wide);
        on.add_onto(&s.found, h, n, &mut dv[of_keys..]);

        on.load_across(v, h, n, &mut s.across);
        let dp = &mut s.dp[..m * long];
        small(dp, on.head(dy, h), &s.across, m, d, long);
        self.drop(text, h, block, dp);
        softmax_backward_rows(&s.p[..m * long], dp, n, 1.0 / (d as f32).sqrt());

        on.load(k, h, n, &mut s.right);
        small(&mut s.found, Strided { x: dp, row: long, column: 1 }, &s.right, m, n, wide);
        on.store(&s.found, h, m, &mut dq[of_queries..]);
        on.load(q, h, m, &mut s.right);
        small(&mut s.found, Strided { x: dp, row: 1, column: long }, &s.right, n, m, wide);
        on.add_onto(&s.found, h, n, &mut dk[of_keys..]);
    }
}

impl Attention {
    /// Adds head `h` of n rows in `found`, (n, D+), to y.
    fn add_onto(&self, found: &[f32], h: usize, n: usize, y: &mut [f32]) {
        let (d, wide) = (self.d(), padded(self.d()));
        for (row, from) in found.chunks_exact(wide).take(n).enumerate() {
            let to = &mut y[row * self.c + h * d..][..d];
            to.iter_mut().zip(from).for_each(|(to, &from)| *to += from);
        }
    }
}

impl CustomOp3 for Window {
    fn name(&self) -> &'static str {
        "attention_in_window"
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
        self.forward(q, k, v, &mut y);
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

wide! {
/// Each row of scores, times the scale, to probabilities of the keys within reach; zero for all others.
fn softmax_in_window(x: &mut [f32], block: &Block, reach: usize, scale: f32) {
    let n = block.keys.len();
    for (query, x) in block.queries.clone().zip(x.chunks_exact_mut(padded(n))) {
        let low = query.saturating_sub(reach) - block.keys.start;
        let high = (query + reach + 1).min(block.keys.end) - block.keys.start;
        let (first, end) = (low / LANES, high.div_ceil(LANES));
        x[first * LANES..low].fill(f32::MIN);
        x[high..end * LANES].fill(f32::MIN);
        softmax(&mut x.as_chunks_mut::<LANES>().0[first..end], &[f32::INFINITY; LANES], scale);
        // The smallest number of f32's exponent isn't nothing, and products read these.
        x[..low].fill(0.0);
        x[high..].fill(0.0);
    }
}
}
