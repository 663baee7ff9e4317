//! The attention half of an encoder block: queries, keys and values, attention, the output layer, dropout, residual, norm.

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};

use crate::affine::{Affine, column_sums};
use crate::attention::Attention;
use crate::buffers::Buffer;
use crate::disentangled::{Projected, Related};
use crate::host::host;
use crate::matmul::{Onto, View};
use crate::residual_norm::{self, Norm};
use crate::{Dropout, Precision, Relation, Sequences, add, dropout_rows, layer_norm, linear};

#[derive(Clone, Debug)]
pub struct SelfAttention {
    pub query: Affine, // C → C, as are the next three
    pub key: Affine,
    pub value: Affine,
    pub output: Affine,
    pub norm: Affine,
    pub eps: f64,
    pub heads: usize,
    /// Terms of distance in the scores.
    pub relation: Relation,
}

/// What dropout does in an attention half.
#[derive(Clone, Copy, Debug, Default)]
pub struct AttentionDropout {
    pub probabilities: Option<Dropout>,
    pub output: Option<Dropout>,
    /// On the table of [`crate::Disentangled`], after its norm.
    pub relation: Option<Dropout>,
}

/// What the way back needs; M rows are asked for, all N or each text's first.
#[derive(Clone)]
pub(crate) struct Saved {
    q: Buffer,            // (M, C)
    k: Buffer,            // (N, C)
    v: Buffer,            // (N, C)
    attended: Buffer,     // (M, C)
    pub(crate) h: Buffer, // (M, C) before the norm
    projected: Projected, // (R, C)
}

impl SelfAttention {
    pub(crate) fn parameters(&self) -> Vec<&Tensor> {
        let SelfAttention { query, key, value, output, norm, relation, .. } = self;
        let all = [query, key, value, output, norm];
        let of_affine = all.into_iter().flat_map(|affine| [&affine.weight, &affine.bias]);
        of_affine.chain(relation.parameters()).collect()
    }

    /// Whether the parameters fit each other and rows of c channels.
    pub(crate) fn check(&self, c: usize) -> Result<()> {
        for linear in [&self.query, &self.key, &self.value, &self.output] {
            if linear.dims()? != (c, c) {
                bail!("self attention: {c} channels through {:?}", linear.weight.dims());
            }
        }
        if self.norm.weight.dims() != [c] || self.norm.bias.dims() != [c] {
            bail!("self attention: {c} channels and a norm of {:?}", self.norm.weight.dims());
        }
        self.relation.check(c, self.heads)
    }

    /// The same where only first rows are asked for.
    pub(crate) fn check_first(&self, c: usize) -> Result<()> {
        if !matches!(self.relation, Relation::None) {
            bail!("self attention: terms of distance need the queries of all rows");
        }
        self.check(c)
    }

    fn related(
        &self,
        c: usize,
        width: usize,
        dropped: Option<Dropout>,
        precision: Precision,
    ) -> Related {
        Related { width, c, heads: self.heads, eps: self.eps, dropped, precision }
    }

    /// The same from smaller operations: the slow twin, and the form for other devices and for weights that are made from
    /// variables.
    pub fn in_parts(
        &self,
        x: &Tensor,
        sequences: &Arc<Sequences>,
        dropped: AttentionDropout,
        precision: Precision,
    ) -> Result<Tensor> {
        let of =
            |affine: &Affine, x: &Tensor| linear(x, &affine.weight, Some(&affine.bias), precision);
        let (q, k, v) = (of(&self.query, x)?, of(&self.key, x)?, of(&self.value, x)?); // (N, C)
        let (heads, eps) = (self.heads, self.eps);
        let attended =
            self.relation.in_parts(&q, &k, &v, sequences, heads, eps, dropped, precision)?;
        let y = of(&self.output, &attended)?;
        let h = add(x, &dropout_rows(&y, sequences, dropped.output)?)?;
        layer_norm(&h, &self.norm.weight, &self.norm.bias, self.eps)
    }

    /// y = norm(x + dropout(output(attention(query(x), key(x), value(x))))): x (N, C), y (M, C), the rows of `asked`, which
    /// are all of `sequences` or each text's first.
    pub(crate) fn forward(
        &self,
        x: &[f32],
        sequences: &Arc<Sequences>,
        asked: &Arc<Sequences>,
        dropped: AttentionDropout,
        precision: Precision,
        y: &mut [f32],
    ) -> Result<Saved> {
        let (n, m) = (sequences.rows(), asked.rows());
        let (c, _) = self.query.dims()?;
        let left = precision.left(x, View::rows_of(n, c));
        let of = |affine: &Affine| affine.forward(precision, &left, n);
        let (k, v) = (of(&self.key)?, of(&self.value)?);
        let of_rows = View::rows_of(m, c);
        let first = first_rows(x, c, sequences, asked);
        let q = match &first {
            None => of(&self.query)?,
            Some(first) => self.query.forward(precision, &precision.left(first, of_rows), m)?,
        };
        drop(left);
        let mut attended = Buffer::of(m * c);
        let attention = Attention::new(sequences, c, self.heads, dropped.probabilities)?;
        let related = self.related(c, sequences.width(), dropped.relation, precision);
        let projected = self.relation.project(related)?;
        let attention = attention.with(self.relation.terms(&projected, related)?).of_queries(asked);
        attention.forward(&q, &k, &v, &mut attended);
        let mut h = self.output.forward(precision, &precision.left(&attended, of_rows), m)?;
        let (weight, bias) = (host(&self.norm.weight)?, host(&self.norm.bias)?);
        let norm = Norm { weight: &weight, bias: &bias, eps: self.eps as f32 };
        let residual = first.as_deref().unwrap_or(x);
        residual_norm::forward(&mut h, residual, norm, asked, dropped.output, y);
        Ok(Saved { q, k, v, attended, h, projected })
    }

    /// With h = x + M∘output(attended): dh from the norm, dy = M∘dh, dattended = dy·W, dq, dk, dv from attention, and
    /// dx = dh + dq·Wq + dk·Wk + dv·Wv. Without `wants_dx`, what it leaves in dx is of no use.
    #[expect(clippy::too_many_arguments, reason = "what came in, what comes back, and how")]
    pub(crate) fn backward(
        &self,
        saved: Saved,
        x: &[f32],
        grad: &[f32],
        sequences: &Arc<Sequences>,
        asked: &Arc<Sequences>,
        dropped: AttentionDropout,
        precision: Precision,
        wants_dx: bool,
        dx: &mut [f32],
    ) -> Result<()> {
        let Saved { q, k, v, attended, h, projected } = saved;
        let (n, m) = (sequences.rows(), asked.rows());
        let (c, _) = self.query.dims()?;
        let (rows, of_rows) = (View::rows_of(n, c), View::rows_of(m, c));
        let first = first_rows(x, c, sequences, asked);
        // Of the rows that are asked for: dx itself where these are all.
        let mut dfirst = first.as_ref().map(|_| Buffer::of(m * c));
        let dh = dfirst.as_deref_mut().unwrap_or(dx);

        let weight = host(&self.norm.weight)?;
        let norm = Norm { weight: &weight, bias: &[], eps: self.eps as f32 };
        let mut dy = Buffer::of(m * c);
        let sums = residual_norm::backward(&h, grad, norm, asked, dropped.output, dh, &mut dy);
        let (of_norm, doutput_bias) = sums.split_at(2 * c);
        self.norm.hand_over_norm(of_norm)?;

        let mut dattended = Buffer::of(m * c);
        self.output.input_gradient(
            precision,
            &precision.left(&dy, of_rows),
            Onto::Overwrite,
            &mut dattended,
        )?;
        self.output.hand_over(
            precision,
            &dy,
            &precision.right(&attended, of_rows),
            doutput_bias,
        )?;

        let (mut dq, mut dk, mut dv) = (Buffer::of(m * c), Buffer::of(n * c), Buffer::of(n * c));
        let attention = Attention::new(sequences, c, self.heads, dropped.probabilities)?;
        let related = self.related(c, sequences.width(), dropped.relation, precision);
        let attention = attention.with(self.relation.terms(&projected, related)?).of_queries(asked);
        let sums = attention.backward(&q, &k, &v, &dattended, &mut dq, &mut dk, &mut dv);
        self.relation.backward(&sums, related)?;

        let asked_x = precision.right(first.as_deref().unwrap_or(x), of_rows);
        self.query.hand_over(precision, &dq, &asked_x, &column_sums(&dq, c))?;
        if wants_dx {
            self.query.input_gradient(precision, &precision.left(&dq, of_rows), Onto::Add, dh)?;
        }
        if let Some(dfirst) = &dfirst {
            sequences.put_first_rows(dfirst, dx);
        }
        let right = match &first {
            None => asked_x,
            Some(_) => precision.right(x, rows),
        };
        for (affine, dy) in [(&self.key, &dk), (&self.value, &dv)] {
            affine.hand_over(precision, dy, &right, &column_sums(dy, c))?;
            if wants_dx {
                affine.input_gradient(precision, &precision.left(dy, rows), Onto::Add, dx)?;
            }
        }
        Ok(())
    }
}

/// Each text's first row of x (N, C), where not all rows are asked for.
fn first_rows(x: &[f32], c: usize, sequences: &Sequences, asked: &Sequences) -> Option<Buffer> {
    if asked.rows() == sequences.rows() {
        return None;
    }
    let mut first = Buffer::of(asked.rows() * c);
    sequences.take_first_rows(x, &mut first);
    Some(first)
}
