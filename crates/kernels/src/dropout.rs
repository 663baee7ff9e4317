//! Dropout without a stored mask: the backward pass draws the same mask from the same key.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::host::{BLOCK, host, is_fused, output, slice, tensor};
use crate::{Dropout, Sequences, composed, lanes::wide};

/// Each element times 0 or 1/(1−p), chosen by key and flat index. Any shape, at most 2³² elements.
pub fn dropout(x: &Tensor, dropped: Dropout) -> Result<Tensor> {
    if !(0.0..1.0).contains(&dropped.p) {
        bail!("dropout: p is {}, expected a number in [0, 1)", dropped.p);
    }
    if x.elem_count() > u32::MAX as usize {
        bail!("dropout: {} elements, at most {} can be indexed", x.elem_count(), u32::MAX);
    }
    if dropped.p == 0.0 {
        return Ok(x.clone());
    }
    if !is_fused(x) {
        return composed::dropout(x, dropped);
    }
    x.contiguous()?.apply_op1(dropped)
}

/// Dropout of a batch's token rows (N, C), the same elements in either layout of the texts: counted as in (B, T, C).
pub fn dropout_rows(
    x: &Tensor,
    sequences: &Arc<Sequences>,
    dropped: Option<Dropout>,
) -> Result<Tensor> {
    let Some(dropped) = dropped.filter(|dropped| dropped.p > 0.0) else { return Ok(x.clone()) };
    let (n, _) = x.dims2()?;
    if n != sequences.rows() {
        bail!("dropout: {n} rows, {} of sequences", sequences.rows());
    }
    if !is_fused(x) {
        return composed::dropout_rows(x, sequences, dropped);
    }
    x.contiguous()?.apply_op1(OfRows { sequences: sequences.clone(), dropped })
}

struct OfRows {
    sequences: Arc<Sequences>,
    dropped: Dropout,
}

impl OfRows {
    fn masked(&self, x: &[f32]) -> Vec<f32> {
        let mut y = vec![0f32; x.len()];
        let c = x.len() / self.sequences.rows().max(1);
        let rows = y.par_chunks_mut(c.max(1)).zip(x.par_chunks(c.max(1)));
        rows.zip(self.sequences.places()).for_each(|((y, x), place)| {
            mask_block(x, self.dropped, place.wrapping_mul(c as u32), y);
        });
        y
    }
}

impl CustomOp1 for OfRows {
    fn name(&self) -> &'static str {
        "dropout_rows"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(output(self.masked(slice(x, layout)?), layout.shape()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        Ok(Some(tensor(self.masked(&host(&grad)?), x)?))
    }
}

fn masked(x: &[f32], dropped: Dropout) -> Vec<f32> {
    let mut y = vec![0f32; x.len()];
    y.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK)).enumerate().for_each(|(block, (y, x))| {
        mask_block(x, dropped, (block * BLOCK) as u32, y);
    });
    y
}

impl CustomOp1 for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(output(masked(slice(x, layout)?, *self), layout.shape()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        Ok(Some(tensor(masked(&host(&grad)?, *self), x)?))
    }
}

wide! {
pub(crate) fn mask_block(x: &[f32], dropped: Dropout, first: u32, y: &mut [f32]) {
    for (i, (y, &x)) in y.iter_mut().zip(x).enumerate() {
        *y = x * dropped.factor(first.wrapping_add(i as u32));
    }
}
}
