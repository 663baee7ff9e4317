//! The parts that encoders share, each with its weights. All arithmetic is in the kernels crate; nothing here is
//! specific to an architecture.

use std::sync::Arc;

use candle_core::Tensor;
use lowchurn_kernels::{self as kernels, Affine, Precision, Sequences};

use crate::{Input, Mode, Result};

/// Gives a layer its tensor by canonical name.
pub(crate) type Named<'a> = &'a dyn Fn(&str) -> Result<Tensor>;

/// The weight and bias of a linear layer or a norm.
pub(crate) fn affine(named: Named, prefix: &str) -> Result<Affine> {
    Ok(Affine {
        weight: named(&format!("{prefix}.weight"))?,
        bias: named(&format!("{prefix}.bias"))?,
    })
}

/// (.., I) → (.., O). For layers on one row a text, which are too small for another precision to matter.
pub(crate) fn linear(x: &Tensor, layer: &Affine) -> Result<Tensor> {
    Ok(kernels::linear(x, &layer.weight, Some(&layer.bias), Precision::F32)?)
}

/// One dropout site: always called in training, so that each site has its own key.
pub(crate) fn dropout(x: Tensor, p: f32, mode: &mut Mode) -> Result<Tensor> {
    match mode.dropout(p) {
        Some(dropout) => Ok(kernels::dropout(&x, dropout)?),
        None => Ok(x),
    }
}

/// Mixup of the embedding layer's output (Zhang et al. 2018, 1710.09412; for texts Guo et al. 2019, 1905.08941):
/// xᵢ ← shareᵢ·xᵢ + (1 − shareᵢ)·x of the partner, (N, C) → (N, C) of the texts as they are now.
///
/// A text has nothing beyond its own length.
pub(crate) fn mixed(x: Tensor, input: &Input) -> Result<(Tensor, Arc<Sequences>)> {
    let old = &input.sequences;
    let Some(mix) = &input.mix else { return Ok((x, old.clone())) };
    // A row with no share in the sum doesn't make it longer: a share of 1 is the plain row.
    let length_in = |share: f32, row: usize| if share > 0.0 { old.lengths()[row] } else { 0 };
    let lengths_of = |row: usize| {
        let (share, partner) = (mix.share[row], mix.partner[row] as usize);
        (length_in(share, row), length_in(1.0 - share, partner))
    };
    let (t, rows) = (old.width(), 0..old.lengths().len());
    let lengths: Vec<u32> = rows.map(lengths_of).map(|(own, other)| own.max(other)).collect();
    let new = match old.is_packed() {
        true => Sequences::packed(&lengths, t)?,
        false => Sequences::padded(&lengths, t)?,
    };
    let n = new.rows();
    let (mut own_rows, mut own) = (Vec::with_capacity(n), Vec::with_capacity(n)); // (N)
    let (mut other_rows, mut other) = (Vec::with_capacity(n), Vec::with_capacity(n)); // (N)
    for &place in new.places() {
        let (row, token) = (place as usize / t, place as usize % t);
        let (own_length, other_length) = lengths_of(row);
        let at = |is_there: bool, row: usize| {
            if is_there { (old.starts()[row] + token) as u32 } else { 0 }
        };
        let (is_own, is_other) = (token < own_length as usize, token < other_length as usize);
        own_rows.push(at(is_own, row));
        own.push(if is_own { mix.share[row] } else { 0.0 });
        other_rows.push(at(is_other, mix.partner[row] as usize));
        other.push(if is_other { 1.0 - mix.share[row] } else { 0.0 });
    }
    let part = |rows: Vec<u32>, shares: Vec<f32>| -> Result<Tensor> {
        let rows = Tensor::from_vec(rows, n, x.device())?;
        Ok(x.index_select(&rows, 0)?.broadcast_mul(&Tensor::from_vec(
            shares,
            (n, 1),
            x.device(),
        )?)?)
    };
    Ok((kernels::add(&part(own_rows, own)?, &part(other_rows, other)?)?, Arc::new(new)))
}
