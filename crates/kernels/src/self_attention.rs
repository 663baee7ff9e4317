//! The attention half of an encoder block as one operation: queries, keys and values, attention, the output layer, dropout,
//! residual, norm.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use crate::affine::{Affine, column_sums};
use crate::attention::{Attention, attention};
use crate::buffers::Buffer;
use crate::host::{host, is_fused, output, slice};
use crate::matmul::{Onto, View};
use crate::residual_norm::{self, Norm};
use crate::{Dropout, Precision, Sequences, add, dropout_rows, fused, layer_norm, linear};

#[derive(Clone, Debug)]
pub struct SelfAttention {
    pub query: Affine,  // C → C, as are the next three
    pub key: Affine,
    pub value: Affine,
    pub output: Affine,
    pub norm: Affine,
    pub eps: f64,
    pub heads: usize,
}

/// What dropout does in an attention half.
#[derive(Clone, Copy, Debug, Default)]
pub struct AttentionDropout {
    pub probabilities: Option<Dropout>,
    pub output: Option<Dropout>,
}

/// norm(x + dropout(output(attention(query(x), key(x), value(x))))), (N, C) → (N, C).
/// Vaswani et al., 1706.03762, section 3.2, with the norm after the sum.
pub fn self_attention(
    x: &Tensor,
    sequences: &Arc<Sequences>,
    layer: &SelfAttention,
    dropped: AttentionDropout,
    precision: Precision,
) -> Result<Tensor> {
    let parameters = layer.parameters();
    if !is_fused(x) || !fused::can_hand_over(&parameters) {
        return layer.in_parts(x, sequences, dropped, precision);
    }
    let (n, c) = x.dims2()?;
    for linear in [&layer.query, &layer.key, &layer.value, &layer.output] {
        if linear.dims()? != (c, c) {
            bail!("self attention: {c} channels through {:?}", linear.weight.dims());
        }
    }
    if layer.norm.weight.dims() != [c] || layer.norm.bias.dims() != [c] || n != sequences.rows() {
        bail!("self attention: {n} rows of {c} channels, {} rows of sequences", sequences.rows());
    }
    let op = Op {
        attention: Attention::new(sequences, c, layer.heads, dropped.probabilities)?,
        layer: layer.clone(),
        sequences: sequences.clone(),
        dropped: dropped.output.filter(|dropped| dropped.p > 0.0),
        precision,
        saved: Mutex::new(None),
    };
    fused::apply(&x.contiguous()?, &parameters, op)
}

impl SelfAttention {
    fn parameters(&self) -> [&Tensor; 10] {
        let SelfAttention { query: q, key: k, value: v, output: o, norm, .. } = self;
        [
            &q.weight,
            &q.bias,
            &k.weight,
            &k.bias,
            &v.weight,
            &v.bias,
            &o.weight,
            &o.bias,
            &norm.weight,
            &norm.bias,
        ]
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
        let of = |affine: &Affine, x: &Tensor| linear(x, &affine.weight, Some(&affine.bias), precision);
        let (q, k, v) = (of(&self.query, x)?, of(&self.key, x)?, of(&self.value, x)?); // (N, C)
        let attended = attention(&q, &k, &v, sequences, self.heads, dropped.probabilities)?;
        let y = of(&self.output, &attended)?;
        let h = add(x, &dropout_rows(&y, sequences, dropped.output)?)?;
        layer_norm(&h, &self.norm.weight, &self.norm.bias, self.eps)
    }
}

struct Op {
    attention: Attention,
    layer: SelfAttention,
    sequences: Arc<Sequences>,
    dropped: Option<Dropout>,
    precision: Precision,
    saved: Mutex<Option<Saved>>,
}

/// (N, C) each.
struct Saved {
    q: Buffer,
    k: Buffer,
    v: Buffer,
    attended: Buffer,
    h: Buffer, // before the norm
}

impl CustomOp2 for Op {
    fn name(&self) -> &'static str {
        "self_attention"
    }

    fn cpu_fwd(&self, x: &CpuStorage, x_layout: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let Op { layer, precision, .. } = self;
        let x = slice(x, x_layout)?;
        let (n, c) = x_layout.shape().dims2()?;
        let rows = View::rows_of(n, c);
        let left = precision.left(x, rows);
        let of = |affine: &Affine| affine.forward(*precision, &left, n);
        let (q, k, v) = (of(&layer.query)?, of(&layer.key)?, of(&layer.value)?);
        let mut attended = Buffer::of(n * c);
        self.attention.forward(&q, &k, &v, &mut attended);
        let mut h = layer.output.forward(*precision, &precision.left(&attended, rows), n)?;
        let (weight, bias) = (host(&layer.norm.weight)?, host(&layer.norm.bias)?);
        let norm = Norm { weight: &weight, bias: &bias, eps: layer.eps as f32 };
        let mut y = vec![0f32; n * c];
        residual_norm::forward(&mut h, x, norm, &self.sequences, self.dropped, &mut y);
        *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = Some(Saved { q, k, v, attended, h });
        Ok(output(y, x_layout.shape()))
    }

    /// With h = x + M∘output(attended): dh from the norm, dy = M∘dh, dattended = dy·W, dq, dk, dv from attention, and
    /// dx = dh + dq·Wq + dk·Wk + dv·Wv.
    fn bwd(&self, x: &Tensor, _: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let Op { layer, precision, .. } = self;
        let Some(saved) = self.saved.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            bail!("self attention: a second backward pass over the same graph")
        };
        let grad = grad.contiguous()?;
        let (values, grad) = (host(x)?, host(&grad)?);
        let (n, c) = x.dims2()?;
        let rows = View::rows_of(n, c);

        let weight = host(&layer.norm.weight)?;
        let norm = Norm { weight: &weight, bias: &[], eps: layer.eps as f32 };
        let (mut dx, mut dy) = (vec![0f32; n * c], Buffer::of(n * c));
        let sums =
            residual_norm::backward(&saved.h, &grad, norm, &self.sequences, self.dropped, &mut dx, &mut dy);
        let (of_norm, doutput_bias) = sums.split_at(2 * c);
        layer.norm.hand_over_norm(of_norm)?;

        let mut dattended = Buffer::of(n * c);
        layer.output.input_gradient(*precision, &precision.left(&dy, rows), Onto::Overwrite, &mut dattended)?;
        layer.output.hand_over(*precision, &dy, &precision.right(&saved.attended, rows), doutput_bias)?;

        let new = || Buffer::of(n * c);
        let (mut dq, mut dk, mut dv) = (new(), new(), new());
        let Saved { q, k, v, .. } = &saved;
        self.attention.backward(q, k, v, &dattended, &mut dq, &mut dk, &mut dv);
        let right = precision.right(&values, rows);
        for (affine, dy) in [(&layer.query, &dq), (&layer.key, &dk), (&layer.value, &dv)] {
            affine.hand_over(*precision, dy, &right, &column_sums(dy, c))?;
            if x.track_op() {
                affine.input_gradient(*precision, &precision.left(dy, rows), Onto::Add, &mut dx)?;
            }
        }
        fused::gradients(x, dx)
    }
}
