//! The feed-forward half of an encoder block: two linear layers with the activation between them, dropout, residual, norm.

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use crate::activation::Activation;
use crate::affine::{Affine, column_sums};
use crate::buffers::Buffer;
use crate::host::{BLOCK, host};
use crate::matmul::{Onto, View};
use crate::residual_norm::{self, Norm};
use crate::{Dropout, Precision, Sequences, add, dropout_rows, layer_norm, linear};

#[derive(Clone, Debug)]
pub struct FeedForward {
    pub inner: Affine, // C → F
    pub outer: Affine, // F → C
    pub norm: Affine,
    pub eps: f64,
    pub activation: Activation,
}

/// What the way back needs.
#[derive(Clone)]
pub(crate) struct Saved {
    inner: Buffer,        // (N, F) before the activation
    pub(crate) h: Buffer, // (N, C) before the norm
}

impl FeedForward {
    pub(crate) fn parameters(&self) -> Vec<&Tensor> {
        let FeedForward { inner, outer, norm, .. } = self;
        [inner, outer, norm].iter().flat_map(|affine| [&affine.weight, &affine.bias]).collect()
    }

    /// Whether the parameters fit each other and rows of c channels.
    pub(crate) fn check(&self, c: usize) -> Result<()> {
        let ((f, c_in), outer) = (self.inner.dims()?, self.outer.dims()?);
        if c != c_in
            || outer != (c, f)
            || self.norm.weight.dims() != [c]
            || self.norm.bias.dims() != [c]
        {
            bail!("feed forward: {c} channels through {:?} and {outer:?}", (f, c_in));
        }
        Ok(())
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

    /// y = norm(x + dropout(outer(activation(inner(x))))), (N, C) each.
    pub(crate) fn forward(
        &self,
        x: &[f32],
        sequences: &Sequences,
        dropped: Option<Dropout>,
        precision: Precision,
        y: &mut [f32],
    ) -> Result<Saved> {
        let n = sequences.rows();
        let (f, c) = self.inner.dims()?;
        let inner = self.inner.forward(precision, &precision.left(x, View::rows_of(n, c)), n)?;
        let mut active = Buffer::of(n * f);
        active
            .par_chunks_mut(BLOCK)
            .zip(inner.par_chunks(BLOCK))
            .for_each(|(active, inner)| self.activation.block(inner, active));
        let mut h =
            self.outer.forward(precision, &precision.left(&active, View::rows_of(n, f)), n)?;
        let (weight, bias) = (host(&self.norm.weight)?, host(&self.norm.bias)?);
        let norm = Norm { weight: &weight, bias: &bias, eps: self.eps as f32 };
        residual_norm::forward(&mut h, x, norm, sequences, dropped, y);
        Ok(Saved { inner, h })
    }

    /// With a the activation, u = inner(x), h = x + M∘outer(a(u)): dh from the norm, dy = M∘dh, du = (dy·W₂)∘a'(u),
    /// dW₂ = dyᵀ·a(u), dW₁ = duᵀ·x, dx = dh + du·W₁. Without `wants_dx`, what it leaves in dx is of no use.
    #[expect(clippy::too_many_arguments, reason = "what came in, what comes back, and how")]
    pub(crate) fn backward(
        &self,
        saved: Saved,
        x: &[f32],
        grad: &[f32],
        sequences: &Sequences,
        dropped: Option<Dropout>,
        precision: Precision,
        wants_dx: bool,
        dx: &mut [f32],
    ) -> Result<()> {
        let Saved { inner, h } = saved;
        let n = sequences.rows();
        let (f, c) = self.inner.dims()?;
        let (of_c, of_f) = (View::rows_of(n, c), View::rows_of(n, f));

        let weight = host(&self.norm.weight)?;
        let norm = Norm { weight: &weight, bias: &[], eps: self.eps as f32 };
        let mut dy = Buffer::of(n * c);
        let sums = residual_norm::backward(&h, grad, norm, sequences, dropped, dx, &mut dy);
        let (of_norm, douter_bias) = sums.split_at(2 * c);
        self.norm.hand_over_norm(of_norm)?;

        let (mut du, mut active) = (Buffer::of(n * f), Buffer::of(n * f));
        self.outer.input_gradient(
            precision,
            &precision.left(&dy, of_c),
            Onto::Overwrite,
            &mut du,
        )?;
        du.par_chunks_mut(BLOCK)
            .zip(inner.par_chunks(BLOCK).zip(active.par_chunks_mut(BLOCK)))
            .for_each(|(du, (inner, active))| self.activation.backward_block(inner, du, active));
        self.outer.hand_over(precision, &dy, &precision.right(&active, of_f), douter_bias)?;

        self.inner.hand_over(precision, &du, &precision.right(x, of_c), &column_sums(&du, f))?;
        if wants_dx {
            self.inner.input_gradient(precision, &precision.left(&du, of_f), Onto::Add, dx)?;
        }
        Ok(())
    }
}
