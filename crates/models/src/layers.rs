//! The parts that encoders share, each with its weights. All arithmetic is in the kernels crate; nothing here is
//! specific to an architecture.

use std::borrow::Cow;

use candle_core::Tensor;
use lowchurn_kernels as kernels;

use crate::{Activation, Input, Mode, Result};

/// Gives a layer its tensor by canonical name.
pub(crate) type Named<'a> = &'a dyn Fn(&str) -> Result<Tensor>;

pub(crate) struct Linear {
    weight: Tensor, // (O, I)
    bias: Tensor,   // (O,)
}

pub(crate) struct LayerNorm {
    weight: Tensor, // (C,)
    bias: Tensor,   // (C,)
    eps: f64,
}

impl Linear {
    pub(crate) fn new(named: Named, prefix: &str) -> Result<Linear> {
        Ok(Linear {
            weight: named(&format!("{prefix}.weight"))?,
            bias: named(&format!("{prefix}.bias"))?,
        })
    }

    /// (.., I) → (.., O)
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(kernels::linear(x, &self.weight, Some(&self.bias))?)
    }
}

impl LayerNorm {
    pub(crate) fn new(named: Named, prefix: &str, eps: f64) -> Result<LayerNorm> {
        Ok(LayerNorm {
            weight: named(&format!("{prefix}.weight"))?,
            bias: named(&format!("{prefix}.bias"))?,
            eps,
        })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(kernels::layer_norm(x, &self.weight, &self.bias, self.eps)?)
    }
}

/// One dropout site: always called in training, so that each site has its own key.
pub(crate) fn dropout(x: Tensor, p: f32, mode: &mut Mode) -> Result<Tensor> {
    match mode.dropout(p) {
        Some(dropout) => Ok(kernels::dropout(&x, dropout)?),
        None => Ok(x),
    }
}

/// Mixup of the embedding layer's output (Zhang et al. 2018, 1710.09412; for texts Guo et al. 2019, 1905.08941):
/// xᵢ ← shareᵢ·xᵢ + (1 − shareᵢ)·x of the partner, (B, T, C) → (B, T, C), with the lengths that hold now.
///
/// A row is zero beyond its own length, so that what stands in the padding stays without effect.
pub(crate) fn mixed(x: Tensor, input: &Input) -> Result<(Tensor, Cow<'_, [u32]>)> {
    let Some(mix) = &input.mix else { return Ok((x, Cow::Borrowed(&input.lengths))) };
    let (b, t, _) = x.dims3()?;
    let (mut own, mut other) = (vec![0f32; b * t], vec![0f32; b * t]); // (B·T)
    let mut lengths = Vec::with_capacity(b);
    for (row, (&partner, &share)) in mix.partner.iter().zip(&mix.share).enumerate() {
        // A row with no share in the sum doesn't make it longer: a share of 1 is the plain row.
        let own_length = if share > 0.0 { input.lengths[row] } else { 0 };
        let other_length = if share < 1.0 { input.lengths[partner as usize] } else { 0 };
        own[row * t..][..own_length as usize].fill(share);
        other[row * t..][..other_length as usize].fill(1.0 - share);
        lengths.push(own_length.max(other_length));
    }
    let column = |shares| Tensor::from_vec(shares, (b, t, 1), x.device());
    let partners = Tensor::from_slice(&mix.partner, b, x.device())?;
    let own = x.broadcast_mul(&column(own)?)?;
    let other = x.index_select(&partners, 0)?.broadcast_mul(&column(other)?)?;
    Ok((kernels::add(&own, &other)?, Cow::Owned(lengths)))
}

pub(crate) fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    Ok(match activation {
        Activation::Gelu(kind) => kernels::gelu(x, kind)?,
        Activation::Relu => kernels::relu(x)?,
    })
}
