//! Rows of a table by id; the backward pass adds rows into a table of zeros.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::backward::hand_over;
use crate::composed;
use crate::host::{host, is_fused, output, slice, tensor};

/// Rows of the table by id. (V, C), (B, T) of u32 → (B, T, C). An id outside the table is an error.
pub fn embedding(table: &Tensor, ids: &Tensor) -> Result<Tensor> {
    if !is_fused(table) {
        return composed::embedding(table, ids);
    }
    let (b, t) = ids.dims2()?;
    let (v, _) = table.dims2()?;
    let ids = ids.flatten_all()?.to_vec1::<u32>()?;
    if let Some(id) = ids.iter().find(|&&id| id as usize >= v) {
        bail!("embedding: id {id} in a table of {v} rows");
    }
    table.contiguous()?.apply_op1(Embedding { ids, b, t })
}

struct Embedding {
    ids: Vec<u32>,
    b: usize,
    t: usize,
}

impl CustomOp1 for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn cpu_fwd(&self, table: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, c) = layout.shape().dims2()?;
        let table = slice(table, layout)?;
        let mut y = Vec::with_capacity(self.ids.len() * c);
        for &id in &self.ids {
            y.extend_from_slice(&table[id as usize * c..][..c]);
        }
        Ok(output(y, &Shape::from((self.b, self.t, c))))
    }

    fn bwd(&self, table: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (v, c) = table.dims2()?;
        let grad = grad.contiguous()?;
        let grad = host(&grad)?;
        let grad: &[f32] = &grad;
        // Sorted by id and, within an id, by position: each table row is one thread's, summed in a fixed order.
        let mut places: Vec<(u32, u32)> =
            self.ids.iter().enumerate().map(|(place, &id)| (id, place as u32)).collect();
        places.sort_unstable();
        let sums: Vec<(u32, Vec<f32>)> = places
            .par_chunk_by(|a, b| a.0 == b.0)
            .map(|run| {
                let mut sum = vec![0f32; c];
                for &(_, place) in run {
                    let row = &grad[place as usize * c..][..c];
                    sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += x);
                }
                (run[0].0, sum)
            })
            .collect();
        let mut dtable = vec![0f32; v * c];
        for (id, sum) in sums {
            dtable[id as usize * c..][..c].copy_from_slice(&sum);
        }
        hand_over(table, tensor(dtable, table)?)
    }
}
