//! The differentiable tensor operations that candle lacks: fused on CPU in f32, composed from candle's own elsewhere.
//!
//! Every operation stands twice: in the file of its name as the fast form, and in [`composed`] as the slow, obvious form.
//! `tests/twins.rs` holds the two together, values and gradients. This crate knows no models and no files.

pub mod composed;
mod keys;

pub use composed::{add, attention, dropout, embedding, gelu, layer_norm, linear};
pub use keys::{Dropout, Keys};

/// Which of the two usual forms of GELU a model was trained with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gelu {
    /// x·Φ(x) with the exact normal distribution function (`gelu` in a published config).
    Erf,
    /// The tanh approximation (`gelu_new`, `gelu_pytorch_tanh`).
    Tanh,
}
