//! Whether a file on disk is the one that was listed: its size, then its hash. Changes nothing.

use std::fs::File;
use std::path::Path;

use sha1::Digest as _;

use crate::cache;
use crate::error::{Error, Result};
use crate::listing::{Digest, RemoteFile};

/// What lies at a place where a file should be.
pub enum State {
    /// Also where the size is right and no hash is known.
    Right,
    /// Nothing, or something of another size.
    Absent,
    Damaged {
        found: Digest,
    },
}

pub fn state(place: &Path, file: &RemoteFile) -> Result<State> {
    if cache::size(place) != Some(file.size) {
        return Ok(State::Absent);
    }
    let Some(digest) = &file.digest else { return Ok(State::Right) };
    let found = hash(place, digest, file.size).map_err(Error::io(place))?;
    Ok(if found == *digest { State::Right } else { State::Damaged { found } })
}

/// Hash of a file in the way of `like`. Read back from the disk: that is what will be used.
pub fn hash(path: &Path, like: &Digest, size: u64) -> std::io::Result<Digest> {
    let mut file = File::open(path)?;
    Ok(match like {
        Digest::Sha256(_) => {
            let mut hasher = sha2::Sha256::new();
            std::io::copy(&mut file, &mut hasher)?;
            Digest::Sha256(format!("{:x}", hasher.finalize()))
        }
        Digest::Git(_) => {
            let mut hasher = sha1::Sha1::new();
            hasher.update(format!("blob {size}\0"));
            std::io::copy(&mut file, &mut hasher)?;
            Digest::Git(format!("{:x}", hasher.finalize()))
        }
    })
}
