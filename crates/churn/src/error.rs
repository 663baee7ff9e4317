//! What can go wrong, with everything a reader needs to mend it.

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Data(#[from] lowchurn_data::Error),
}

pub type Result<T> = std::result::Result<T, Error>;
