//! One vector a text: what a teacher's table holds, and how it is made.

use candle_core::Device;
use lowchurn_data::{Encoded, collate, eval_order};
use lowchurn_kernels::awake;
use lowchurn_models::{Classifier, Input, Mode};

use super::TextVector;
use crate::{Error, Result};

/// A vector of each row, in the order of the rows, in evaluation mode. (N·C)
pub(crate) fn text_vectors(
    model: &Classifier,
    rows: &Encoded,
    batch_size: usize,
    vector: TextVector,
    device: &Device,
) -> Result<Vec<f32>> {
    let (c, layers) = (model.config.hidden_size, model.config.layers);
    let mut all = vec![0f32; rows.rows() * c];
    for order in eval_order(&rows.lengths(), batch_size) {
        let batch = collate(rows, &order, model.config.pad_token_id);
        let input = Input::new(&batch.tokens, &batch.types, &batch.lengths, batch.width, device)?;
        let states = awake(|| model.forward_states(&input, Mode::Eval, &vector.wanted(layers)))?;
        let found = vector.of(&states, layers)?.flatten_all()?.to_vec1::<f32>()?; // (B·C)
        for (&row, found) in order.iter().zip(found.chunks_exact(c)) {
            if found.iter().any(|x| !x.is_finite()) {
                let id = rows.ids.get(row as usize).cloned().unwrap_or_default();
                return Err(Error::NotFiniteLogits { id });
            }
            all[row as usize * c..][..c].copy_from_slice(found);
        }
    }
    Ok(all)
}

/// One vector a text of a teacher, for the rows of a run in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Vectors {
    pub width: usize,
    /// (N·C)
    pub values: Vec<f32>,
}

impl Vectors {
    /// (C,)
    pub fn of(&self, row: usize) -> &[f32] {
        &self.values[row * self.width..][..self.width]
    }
}
