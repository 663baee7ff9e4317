//! The parts that encoders share, each with its weights. All arithmetic is in the kernels crate; nothing here is
//! specific to an architecture.

use candle_core::Tensor;
use lowchurn_kernels as kernels;

use crate::{Activation, Mode, Result};

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

pub(crate) fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    Ok(match activation {
        Activation::Gelu(kind) => kernels::gelu(x, kind)?,
        Activation::Relu => kernels::relu(x)?,
    })
}
