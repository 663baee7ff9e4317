//! What can go wrong, with everything a reader needs to mend it.

use std::path::PathBuf;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Data(#[from] lowchurn_data::Error),
    // Reports.
    #[error("{}: can't be read ({source})", path.display())]
    ReportFile { path: PathBuf, source: std::io::Error },

    #[error("{}: not a report that can be read: {source}; was it cut or edited by hand? Make it again with `lowchurn compare`", path.display())]
    ReportJson { path: PathBuf, source: serde_json::Error },

    #[error("{}: no key \"schema\", so this is no report of lowchurn; expected the report.json that `lowchurn compare` or `lowchurn update` writes", path.display())]
    NotAReport { path: PathBuf },

    #[error("{}: a report of version {found:?}, and this program knows {:?} alone; read it with the program that wrote it, or make it again with this one", path.display(), crate::SCHEMA)]
    ReportSchema { path: PathBuf, found: String },
}

pub type Result<T> = std::result::Result<T, Error>;
