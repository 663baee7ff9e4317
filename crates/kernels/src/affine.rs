//! x·Wᵀ + b on slices, forwards and backwards: what `linear` and the halves of an encoder block are made of.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use crate::buffers::Buffer;
use crate::fused::hand_over;
use crate::host::{BLOCK, host};
use crate::lanes::wide;
use crate::layer_norm::add_in_order;
use crate::matmul::{Onto, View};
use crate::product::{Operand, Precision, product, product_from};

/// The parameters of x·Wᵀ + b, or of a norm.
#[derive(Clone, Debug)]
pub struct Affine {
    pub weight: Tensor, // (O, I), of a norm (C,)
    pub bias: Tensor,   // (O,), of a norm (C,)
}

impl Affine {
    /// (O, I) of a linear layer.
    pub(crate) fn dims(&self) -> Result<(usize, usize)> {
        let (o, i) = self.weight.dims2()?;
        if self.bias.dims() != [o] || o == 0 || i == 0 {
            bail!("linear: weight {:?} and bias {:?}", self.weight.dims(), self.bias.dims());
        }
        Ok((o, i))
    }

    /// Adds the bias of each column and x·Wᵀ to nothing: (N, I) → (N, O).
    pub(crate) fn forward(&self, precision: Precision, x: &Operand, n: usize) -> Result<Buffer> {
        let (o, i) = self.dims()?;
        let (weight, bias) = (host(&self.weight)?, host(&self.bias)?);
        let mut y = Buffer::of(n * o);
        product_from(&mut y, &bias, x, &precision.right(&weight, View::rows_of(o, i).t()));
        Ok(y)
    }

    /// Adds dy·W to `dx`, or overwrites it: (N, O) → (N, I).
    pub(crate) fn input_gradient(
        &self,
        precision: Precision,
        dy: &Operand,
        onto: Onto,
        dx: &mut [f32],
    ) -> Result<()> {
        self.dims()?;
        input_gradient(&self.weight, precision, dy, onto, dx)
    }

    /// Hands over dyᵀ·x as the gradient of the weight and `dbias` as that of the bias; what isn't trained costs nothing.
    pub(crate) fn hand_over(
        &self,
        precision: Precision,
        dy: &[f32],
        x: &Operand,
        dbias: &[f32],
    ) -> Result<()> {
        hand_over_product(&self.weight, precision, dy, x)?;
        if self.bias.is_variable() {
            hand_over(&self.bias, Buffer::from_slice(dbias))?;
        }
        Ok(())
    }

    /// Hands over both gradients of a norm, weight first.
    pub(crate) fn hand_over_norm(&self, sums: &[f32]) -> Result<()> {
        let (dweight, dbias) = sums.split_at(self.bias.elem_count());
        for (parameter, grad) in [(&self.weight, dweight), (&self.bias, dbias)] {
            if parameter.is_variable() {
                hand_over(parameter, Buffer::from_slice(grad))?;
            }
        }
        Ok(())
    }
}

/// x·Wᵀ of a weight (O, I) by itself: (N, I) → (N, O).
pub(crate) fn forward(
    weight: &Tensor,
    precision: Precision,
    x: &Operand,
    y: &mut [f32],
) -> Result<()> {
    let (o, i) = weight.dims2()?;
    let weight = host(weight)?;
    product(y, Onto::Overwrite, x, &precision.right(&weight, View::rows_of(o, i).t()));
    Ok(())
}

/// Adds dy·W to `dx`, or overwrites it: (N, O) → (N, I).
pub(crate) fn input_gradient(
    weight: &Tensor,
    precision: Precision,
    dy: &Operand,
    onto: Onto,
    dx: &mut [f32],
) -> Result<()> {
    let (o, i) = weight.dims2()?;
    let weight = host(weight)?;
    product(dx, onto, dy, &precision.right(&weight, View::rows_of(o, i)));
    Ok(())
}

/// Hands over dyᵀ·x as the gradient of a weight; of one that isn't trained it costs nothing.
pub(crate) fn hand_over_product(
    weight: &Tensor,
    precision: Precision,
    dy: &[f32],
    x: &Operand,
) -> Result<()> {
    if !weight.is_variable() {
        return Ok(());
    }
    let (o, i) = weight.dims2()?;
    let dy = precision.left(dy, View::rows_of(dy.len() / o, o).t());
    let mut dw = Buffer::of(o * i);
    product(&mut dw, Onto::Overwrite, &dy, x);
    hand_over(weight, dw)
}

/// Each row of y becomes `row`.
pub(crate) fn fill_rows(y: &mut [f32], row: &[f32]) {
    let block = (4 * BLOCK).div_ceil(row.len()) * row.len();
    y.par_chunks_mut(block)
        .for_each(|y| y.chunks_exact_mut(row.len()).for_each(|y| y.copy_from_slice(row)));
}

/// Sum over rows of a matrix with c columns.
pub(crate) fn column_sums(x: &[f32], c: usize) -> Vec<f32> {
    let block = (4 * BLOCK).div_ceil(c) * c;
    let partials = x
        .par_chunks(block)
        .map(|x| {
            let mut sums = vec![0f32; c];
            add_rows(x, &mut sums);
            sums
        })
        .collect();
    add_in_order(partials, c)
}

wide! {
fn add_rows(x: &[f32], sums: &mut [f32]) {
    for row in x.chunks_exact(sums.len()) {
        for (sum, &x) in sums.iter_mut().zip(row) {
            *sum += x;
        }
    }
}
}
