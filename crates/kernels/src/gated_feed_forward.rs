//! The feed-forward half of an encoder block with its norm in front, no biases, and a gate: x + outer(dropout(activation(a)·b)),
//! where a and b are the two halves of what the inner layer gives. Shazeer, 2002.05202, GEGLU where the
//! activation is GELU; as ModernBERT has it (Warner et al., 2412.13663, section 2.1).

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use crate::activation::Activation;
use crate::buffers::Buffer;
use crate::lanes::wide;
use crate::matmul::{Onto, View};
use crate::pre_norm::{PreNorm, add_dropped};
use crate::residual_norm::block_of_rows;
use crate::{Dropout, Precision, Sequences, add, affine, dropout_rows, linear};

/// x + outer(dropout(activation(a)·b)) with a and b side by side in inner(norm(x)).
#[derive(Clone, Debug)]
pub struct GatedFeedForward {
    pub norm: PreNorm,
    pub inner: Tensor, // (2·F, C): a, then b
    pub outer: Tensor, // (C, F)
    pub activation: Activation,
}

/// What the way back needs.
#[derive(Clone)]
pub(crate) struct Saved {
    inner: Buffer,        // (N, 2·F)
    pub(crate) y: Buffer, // (N, C), what came out
}

impl GatedFeedForward {
    pub(crate) fn parameters(&self) -> Vec<&Tensor> {
        vec![&self.norm.weight, &self.inner, &self.outer]
    }

    /// Whether the parameters fit each other and rows of c channels.
    pub(crate) fn check(&self, c: usize) -> Result<()> {
        self.norm.check(c)?;
        let ((c_out, f), inner) = (self.outer.dims2()?, self.inner.dims2()?);
        if c_out != c || inner != (2 * f, c) || f == 0 {
            bail!("gated feed forward: {c} channels through {inner:?} and {:?}", (c_out, f));
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
        let (_, f) = self.outer.dims2()?;
        let inner = linear(&self.norm.of(x)?, &self.inner, None, precision)?; // (N, 2·F)
        let part = |at: usize| inner.narrow(1, at * f, f)?.contiguous();
        let gated = (self.activation.of(&part(0)?)? * part(1)?)?; // (N, F)
        let gated = dropout_rows(&gated, sequences, dropped)?;
        add(x, &linear(&gated, &self.outer, None, precision)?)
    }

    pub(crate) fn forward(
        &self,
        x: &[f32],
        sequences: &Sequences,
        dropped: Option<Dropout>,
        precision: Precision,
        y: &mut [f32],
    ) -> Result<Saved> {
        let (n, (c, f)) = (sequences.rows(), self.outer.dims2()?);
        let mut inner = Buffer::of(n * 2 * f);
        {
            let normed = self.norm.forward(x)?;
            let left = precision.left(&normed, View::rows_of(n, c));
            affine::forward(&self.inner, precision, &left, &mut inner)?;
        }
        let mut gated = Buffer::of(n * f);
        let (dropped, block) = (dropped.filter(|dropped| dropped.p > 0.0), block_of_rows(f));
        gated
            .par_chunks_mut(block)
            .zip(inner.par_chunks(2 * block).zip(sequences.places().par_chunks(block / f)))
            .for_each(|(gated, (inner, places))| {
                let rows = gated.chunks_exact_mut(f).zip(inner.chunks_exact(2 * f)).zip(places);
                for ((gated, inner), &place) in rows {
                    let (a, b) = inner.split_at(f);
                    self.activation.block(a, gated);
                    times(gated, b);
                    drop_row(gated, dropped, place.wrapping_mul(f as u32));
                }
            });
        let left = precision.left(&gated, View::rows_of(n, f));
        affine::forward(&self.outer, precision, &left, y)?;
        drop(left);
        add_dropped(y, x, sequences, None);
        Ok(Saved { inner, y: Buffer::from_slice(y) })
    }

    /// With u the activation, M the dropout factors, g = M∘u(a)∘b and y = x + g·W₂ᵀ: dg = (grad·W₂)∘M, da = dg∘b∘u'(a),
    /// db = dg∘u(a), dW₂ = gradᵀ·g, dW₁ = (da‖db)ᵀ·norm(x), dx = grad + what the norm makes of (da‖db)·W₁. Without
    /// `wants_dx`, what it leaves in dx is of no use.
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
        let Saved { inner, y } = saved;
        drop(y); // the half above has had it
        let (n, (c, f)) = (sequences.rows(), self.outer.dims2()?);
        let of_c = View::rows_of(n, c);

        let mut gated = Buffer::of(n * f); // its gradient until the activation is known
        affine::input_gradient(
            &self.outer,
            precision,
            &precision.left(grad, of_c),
            Onto::Overwrite,
            &mut gated,
        )?;
        let mut dinner = Buffer::of(n * 2 * f);
        let (dropped, block) = (dropped.filter(|dropped| dropped.p > 0.0), block_of_rows(f));
        gated
            .par_chunks_mut(block)
            .zip(inner.par_chunks(2 * block).zip(dinner.par_chunks_mut(2 * block)))
            .zip(sequences.places().par_chunks(block / f))
            .for_each(|((gated, (inner, dinner)), places)| {
                let rows = gated.chunks_exact_mut(f).zip(inner.chunks_exact(2 * f));
                for (((gated, inner), dinner), &place) in
                    rows.zip(dinner.chunks_exact_mut(2 * f)).zip(places)
                {
                    let first = place.wrapping_mul(f as u32);
                    drop_row(gated, dropped, first); // dg
                    let ((a, b), (da, db)) = (inner.split_at(f), dinner.split_at_mut(f));
                    product_of(gated, b, da);
                    self.activation.backward_block(a, da, db); // db is u(a)
                    both(b, gated, db);
                    drop_row(gated, dropped, first);
                }
            });
        let right = precision.right(&gated, View::rows_of(n, f));
        affine::hand_over_product(&self.outer, precision, grad, &right)?;
        drop(right);
        drop((gated, inner));

        if self.inner.is_variable() {
            let normed = self.norm.forward(x)?;
            let right = precision.right(&normed, of_c);
            affine::hand_over_product(&self.inner, precision, &dinner, &right)?;
        }
        if !wants_dx && !self.norm.weight.is_variable() {
            return Ok(());
        }
        let mut dnormed = Buffer::of(n * c);
        let left = precision.left(&dinner, View::rows_of(n, 2 * f));
        affine::input_gradient(&self.inner, precision, &left, Onto::Overwrite, &mut dnormed)?;
        drop(left);
        self.norm.backward(x, &dnormed, grad, dx)
    }
}

fn drop_row(x: &mut [f32], dropped: Option<Dropout>, first: u32) {
    if let Some(dropped) = dropped {
        drop_elements(x, dropped, first);
    }
}

wide! {
fn drop_elements(x: &mut [f32], dropped: Dropout, first: u32) {
    for (i, x) in x.iter_mut().enumerate() {
        *x *= dropped.factor(first.wrapping_add(i as u32));
    }
}
}

wide! {
fn times(x: &mut [f32], by: &[f32]) {
    x.iter_mut().zip(by).for_each(|(x, &by)| *x *= by);
}
}

wide! {
fn product_of(a: &[f32], b: &[f32], y: &mut [f32]) {
    for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
        *y = a * b;
    }
}
}

wide! {
/// From dg in `gated` and u(a) in `db`: `gated` becomes u(a)·b, `db` becomes dg·u(a).
fn both(b: &[f32], gated: &mut [f32], db: &mut [f32]) {
    for ((gated, db), &b) in gated.iter_mut().zip(db).zip(b) {
        let (dg, active) = (*gated, *db);
        *gated = active * b;
        *db = dg * active;
    }
}
}
