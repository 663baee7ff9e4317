//! Everything that can go wrong between a checkpoint folder and logits.

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    #[error("not built yet")]
    NotBuilt,
}
