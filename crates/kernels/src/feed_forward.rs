//! The feed-forward half of an encoder block as one operation: two linear layers with the activation between them, dropout,
//! residual, norm. As an operation of its own it needs no graph inside, keeps two tensors for the way back and hands all
//! gradients over.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::affine::{Affine, column_sums};
use crate::buffers::Buffer;
use crate::activation::Activation;
use crate::host::{BLOCK, host, is_fused, output, slice};
use crate::matmul::{Onto, View};
use crate::residual_norm::{self, Norm};
use crate::{Dropout, Precision, Sequences, add, dropout_rows, fused, layer_norm, linear};

#[derive(Clone, Debug)]
pub struct FeedForward {
    pub inner: Affine, // C → F
    pub outer: Affine, // F → C
    pub norm: Affine,
    pub eps: f64,
    pub activation: Activation,
}

/// norm(x + dropout(outer(activation(inner(x))))), (N, C) → (N, C). Vaswani et al., 1706.03762, section 3.3, with the norm
/// after the sum.
pub fn feed_forward(
    x: &Tensor,
    sequences: &Arc<Sequences>,
    layer: &FeedForward,
    dropped: Option<Dropout>,
    precision: Precision,
) -> Result<Tensor> {
    let parameters = layer.parameters();
    if !is_fused(x) || !fused::can_hand_over(&parameters) {
        return layer.in_parts(x, sequences, dropped, precision);
    }
    let (n, c) = x.dims2()?;
    let ((f, c_in), outer) = (layer.inner.dims()?, layer.outer.dims()?);
    if c != c_in || outer != (c, f) || layer.norm.weight.dims() != [c] || layer.norm.bias.dims() != [c] {
        bail!("feed forward: {c} channels through {:?} and {outer:?}", (f, c_in));
    }
    if n != sequences.rows() {
        bail!("feed forward: {n} rows, {} of sequences", sequences.rows());
    }
    let dropped = dropped.filter(|dropped| dropped.p > 0.0);
    let saved = Mutex::new(None);
    let op = Op { layer: layer.clone(), sequences: sequences.clone(), dropped, precision, saved };
    fused::apply(&x.contiguous()?, &parameters, op)
}

impl FeedForward {
    fn parameters(&self) -> [&Tensor; 6] {
        let FeedForward { inner, outer, norm, .. } = self;
        [&inner.weight, &inner.bias, &outer.weight, &outer.bias, &norm.weight, &norm.bias]
    }

    /// The same from smaller operations: the slow twin, and the form for other devices and for weights that are made from
    /// variables.
    pub fn in_parts(
        &self,
        x: &Tensor,
        sequences: &Arc<Sequences>,
        dropped: Option<Dropout>,
        precision: Precision,
    ) -> Result<Tensor> {
        let inner = linear(x, &self.inner.weight, Some(&self.inner.bias), precision)?; // (N, F)
        let inner = self.activation.of(&inner)?;
        let y = linear(&inner, &self.outer.weight, Some(&self.outer.bias), precision)?; // (N, C)
        let h = add(x, &dropout_rows(&y, sequences, dropped)?)?;
        layer_norm(&h, &self.norm.weight, &self.norm.bias, self.eps)
    }
}

struct Op {
    layer: FeedForward,
    sequences: Arc<Sequences>,
    dropped: Option<Dropout>,
    precision: Precision,
    saved: Mutex<Option<Saved>>,
}

struct Saved {
    inner: Buffer, // (N, F) before the activation
    h: Buffer,     // (N, C) before the norm
}

impl CustomOp2 for Op {
    fn name(&self) -> &'static str {
        "feed_forward"
    }

    fn cpu_fwd(&self, x: &CpuStorage, x_layout: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let Op { layer, precision, .. } = self;
        let x = slice(x, x_layout)?;
        let (n, c) = x_layout.shape().dims2()?;
        let (f, _) = layer.inner.dims()?;
        let inner = layer.inner.forward(*precision, &precision.left(x, View::rows_of(n, c)), n)?;
        let mut active = Buffer::of(n * f);
        active
            .par_chunks_mut(BLOCK)
            .zip(inner.par_chunks(BLOCK))
            .for_each(|(active, inner)| layer.activation.block(inner, active));
        let mut h = layer.outer.forward(*precision, &precision.left(&active, View::rows_of(n, f)), n)?;
        let (weight, bias) = (host(&layer.norm.weight)?, host(&layer.norm.bias)?);
        let norm = Norm { weight: &weight, bias: &bias, eps: layer.eps as f32 };
        let mut y = vec![0f32; n * c];
        residual_norm::forward(&mut h, x, norm, &self.sequences, self.dropped, &mut y);
        *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = Some(Saved { inner, h });
        Ok(output(y, x_layout.shape()))
    }

    /// With a the activation, u = inner(x), h = x + M∘outer(a(u)): dh from the norm, dy = M∘dh, du = (dy·W₂)∘a'(u),
    /// dW₂ = dyᵀ·a(u), dW₁ = duᵀ·x, dx = dh + du·W₁.
    fn bwd(&self, x: &Tensor, _: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let Op { layer, precision, .. } = self;
        let Some(Saved { inner, h }) = self.saved.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            bail!("feed forward: a second backward pass over the same graph")
        };
        let grad = grad.contiguous()?;
        let (values, grad) = (host(x)?, host(&grad)?);
        let (n, c) = x.dims2()?;
        let (f, _) = layer.inner.dims()?;
        let (of_c, of_f) = (View::rows_of(n, c), View::rows_of(n, f));

        let weight = host(&layer.norm.weight)?;
        let norm = Norm { weight: &weight, bias: &[], eps: layer.eps as f32 };
        let (mut dx, mut dy) = (vec![0f32; n * c], Buffer::of(n * c));
        let sums = residual_norm::backward(&h, &grad, norm, &self.sequences, self.dropped, &mut dx, &mut dy);
        let (of_norm, douter_bias) = sums.split_at(2 * c);
        layer.norm.hand_over_norm(of_norm)?;

        let (mut du, mut active) = (Buffer::of(n * f), Buffer::of(n * f));
        layer.outer.input_gradient(*precision, &precision.left(&dy, of_c), Onto::Overwrite, &mut du)?;
        du.par_chunks_mut(BLOCK)
            .zip(inner.par_chunks(BLOCK).zip(active.par_chunks_mut(BLOCK)))
            .for_each(|(du, (inner, active))| layer.activation.backward_block(inner, du, active));
        layer.outer.hand_over(*precision, &dy, &precision.right(&active, of_f), douter_bias)?;

        layer.inner.hand_over(*precision, &du, &precision.right(&values, of_c), &column_sums(&du, f))?;
        if x.track_op() {
            layer.inner.input_gradient(*precision, &precision.left(&du, of_f), Onto::Add, &mut dx)?;
        }
        fused::gradients(x, dx)
    }
}
