//! A model as others compute it once it is published: numbers of 16 bits, another form of GELU. Nothing of it is trained or saved.

use candle_core::{DType, Var};
use lowchurn_kernels::{Activation, Gelu};

use crate::{Classifier, Params, Result};

/// What differs from training where a model is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numerics {
    pub numbers: Numbers,
    pub gelu: GeluForm,
}

/// What weights and activations are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numbers {
    #[default]
    F32,
    /// Both rounded to f16; sums of products, norms and softmax in f32, as on a GPU. What is above 65,504 becomes infinite.
    F16,
}

/// How GELU is computed within the encoder's layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GeluForm {
    #[default]
    AsTrained,
    /// The approximation by tanh (Hendrycks and Gimpel, 1606.08415), whatever the config says.
    Tanh,
}

impl Classifier {
    /// The same model as it is served. Logits come in the type of its numbers.
    pub fn served(self, numerics: Numerics) -> Result<Classifier> {
        let Classifier { mut config, params, precision, .. } = self;
        if let (GeluForm::Tanh, Activation::Gelu(_)) = (numerics.gelu, config.activation) {
            config.activation = Activation::Gelu(Gelu::Tanh);
        }
        let rounded = |(name, var): (String, Var)| {
            let var = match numerics.numbers {
                Numbers::F32 => var,
                // Slices of 16 bits leave the fused operations, so each of them is candle's own.
                Numbers::F16 => Var::from_tensor(&var.as_detached_tensor().to_dtype(DType::F16)?)?,
            };
            Ok((name, var))
        };
        let params = Params(params.0.into_iter().map(rounded).collect::<Result<_>>()?);
        let mut served = Classifier::new(config, params)?;
        served.precision = precision;
        Ok(served)
    }
}
