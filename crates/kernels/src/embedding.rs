//! Rows of a table by id; the backward pass gives the gradient of those rows alone.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::backward::hand_over_rows;
use crate::composed;
use crate::gradient::Rows;
use crate::host::{host, is_fused, output, slice};

/// Rows of the table by id. (V, C), (..) of u32 → (.., C). An id outside the table is an error.
pub fn embedding(table: &Tensor, ids: &Tensor) -> Result<Tensor> {
    if !is_fused(table) {
        return composed::embedding(table, ids);
    }
    let (v, c) = table.dims2()?;
    let shape = Shape::from([ids.dims(), &[c]].concat());
    let ids = ids.flatten_all()?.to_vec1::<u32>()?;
    if let Some(id) = ids.iter().find(|&&id| id as usize >= v) {
        bail!("embedding: id {id} in a table of {v} rows");
    }
    table.contiguous()?.apply_op1(Embedding { ids, shape })
}

struct Embedding {
    ids: Vec<u32>,
    /// (.., C)
    shape: Shape,
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
        Ok(output(y, &self.shape))
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
        let runs: Vec<&[(u32, u32)]> = places.chunk_by(|a, b| a.0 == b.0).collect();
        let mut sums = vec![0f32; runs.len() * c];
        sums.par_chunks_mut(c.max(1)).zip(&runs).for_each(|(sum, run)| {
            for &(_, place) in *run {
                let row = &grad[place as usize * c..][..c];
                sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += x);
            }
        });
        let ids = runs.iter().map(|run| run[0].0).collect();
        hand_over_rows(table, Rows::new(ids, sums, (v, c)))
    }
}
