//! The mean of each text's rows: pooling without a first token.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::host::{host, is_fused, output, slice, tensor};
use crate::small::add_times;
use crate::{Sequences, composed};

/// Mean over a text's tokens, rows of padding left out. (N, C) → (B, C).
pub fn mean_of_texts(x: &Tensor, sequences: &Arc<Sequences>) -> Result<Tensor> {
    let (n, _) = x.dims2()?;
    if n != sequences.rows() {
        bail!("mean: {n} rows, {} of sequences", sequences.rows());
    }
    if !is_fused(x) {
        return composed::mean_of_texts(x, sequences);
    }
    x.contiguous()?.apply_op1(Mean { sequences: sequences.clone() })
}

struct Mean {
    sequences: Arc<Sequences>,
}

impl CustomOp1 for Mean {
    fn name(&self) -> &'static str {
        "mean_of_texts"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, (_, c)) = (slice(x, layout)?, layout.shape().dims2()?);
        let texts = self.sequences.starts().iter().zip(self.sequences.lengths());
        let mut y = vec![0f32; self.sequences.lengths().len() * c];
        for (y, (&start, &length)) in y.chunks_exact_mut(c.max(1)).zip(texts) {
            for row in x[start * c..][..length as usize * c].chunks_exact(c) {
                add_times(y, 1.0, row);
            }
            y.iter_mut().for_each(|y| *y /= length as f32);
        }
        Ok(output(y, &Shape::from((self.sequences.lengths().len(), c))))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let (grad, (_, c)) = (host(&grad)?, x.dims2()?);
        let mut dx = vec![0f32; x.elem_count()];
        let texts = self.sequences.split(&mut dx, c).into_par_iter();
        texts.zip(self.sequences.lengths()).enumerate().for_each(|(text, (dx, &length))| {
            for dx in dx.chunks_exact_mut(c).take(length as usize) {
                add_times(dx, 1.0 / length as f32, &grad[text * c..][..c]);
            }
        });
        Ok(Some(tensor(dx, x)?))
    }
}
