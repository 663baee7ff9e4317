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

/// What the way back needs, (N, C) each.
pub(crate) struct Saved {
    q: Buffer,
    k: Buffer,
    v: Buffer,
    attended: Buffer,
    pub(crate) h: Buffer, // before the norm
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

    /// y = norm(x + dropout(output(attention(query(x), key(x), value(x))))), (N, C) each.
    pub(crate) fn forward(
        &self,
        x: &[f32],
        sequences: &Arc<Sequences>,
        dropped: AttentionDropout,
        precision: Precision,
        y: &mut [f32],
    ) -> Result<Saved> {
        let n = sequences.rows();
        let (c, _) = self.query.dims()?;
        let rows = View::rows_of(n, c);
        let left = precision.left(x, rows);
        let of = |affine: &Affine| affine.forward(precision, &left, n);
        let (q, k, v) = (of(&self.query)?, of(&self.key)?, of(&self.value)?);
        drop(left);
        let mut attended = Buffer::of(n * c);
        let attention = Attention::new(sequences, c, self.heads, dropped.probabilities)?;
        let related = self.related(c, sequences.width(), dropped.relation, precision);
        let projected = self.relation.project(related)?;
        let attention = attention.with(self.relation.terms(&projected, related)?);
        attention.forward(&q, &k, &v, &mut attended);
        let mut h = self.output.forward(precision, &precision.left(&attended, rows), n)?;
        let (weight, bias) = (host(&self.norm.weight)?, host(&self.norm.bias)?);
        let norm = Norm { weight: &weight, bias: &bias, eps: self.eps as f32 };
        residual_norm::forward(&mut h, x, norm, sequences, dropped.output, y);
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
        dropped: AttentionDropout,
        precision: Precision,
        wants_dx: bool,
        dx: &mut [f32],
    ) -> Result<()> {
        let Saved { q, k, v, attended, h, projected } = saved;
        let n = sequences.rows();
        let (c, _) = self.query.dims()?;
        let rows = View::rows_of(n, c);

        let weight = host(&self.norm.weight)?;
        let norm = Norm { weight: &weight, bias: &[], eps: self.eps as f32 };
        let mut dy = Buffer::of(n * c);
        let sums = residual_norm::backward(&h, grad, norm, sequences, dropped.output, dx, &mut dy);
        let (of_norm, doutput_bias) = sums.split_at(2 * c);
        self.norm.hand_over_norm(of_norm)?;

        let mut dattended = Buffer::of(n * c);
        self.output.input_gradient(
            precision,
            &precision.left(&dy, rows),
            Onto::Overwrite,
            &mut dattended,
        )?;
        self.output.hand_over(precision, &dy, &precision.right(&attended, rows), doutput_bias)?;

        let new = || Buffer::of(n * c);
        let (mut dq, mut dk, mut dv) = (new(), new(), new());
        let attention = Attention::new(sequences, c, self.heads, dropped.probabilities)?;
        let related = self.related(c, sequences.width(), dropped.relation, precision);
        let attention = attention.with(self.relation.terms(&projected, related)?);
        let sums = attention.backward(&q, &k, &v, &dattended, &mut dq, &mut dk, &mut dv);
        self.relation.backward(&sums, related)?;
        let right = precision.right(x, rows);
        for (affine, dy) in [(&self.query, &dq), (&self.key, &dk), (&self.value, &dv)] {
            affine.hand_over(precision, dy, &right, &column_sums(dy, c))?;
            if wants_dx {
                affine.input_gradient(precision, &precision.left(dy, rows), Onto::Add, dx)?;
            }
        }
        Ok(())
    }
}
