//! Small files written beside their place and renamed over it, and hashes of files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, IntoInnerError, Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{Error, Result};

pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let fail = |source: io::Error| Error::Write { path: path.into(), source };
    let mut text = serde_json::to_string_pretty(value).map_err(|error| fail(error.into()))?;
    text.push('\n');
    write(path, text.as_bytes())
}

pub fn write(path: &Path, content: &[u8]) -> Result<()> {
    write_with(path, |out| out.write_all(content))
}

/// Beside its place first, so that a reader never finds half of it. Of a link the file behind it is replaced. What is no regular
/// file, such as a pipe, is written into: a file put in its place would reach nobody, and of a device it would be a loss.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let place = behind_links(path);
    let is_special = fs::metadata(&place).is_ok_and(|there| !there.is_file() && !there.is_dir());
    let mut partial = place.as_os_str().to_owned();
    partial.push(".partial");
    let write = || -> io::Result<()> {
        if is_special {
            let mut out = BufWriter::new(OpenOptions::new().write(true).open(&place)?);
            fill(&mut out)?;
            return out.flush();
        }
        let mut out = BufWriter::new(File::create(&partial)?);
        fill(&mut out)?;
        out.into_inner().map_err(IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&partial, &place)
    };
    write().map_err(|source| {
        if !is_special {
            let _ = fs::remove_file(&partial);
        }
        Error::Write { path: path.into(), source }
    })
}

/// Where a path leads, also where nothing is there yet.
fn behind_links(path: &Path) -> PathBuf {
    match (fs::canonicalize(path), fs::read_link(path)) {
        (Ok(place), Ok(_)) => place,
        (Err(_), Ok(to)) => path.parent().unwrap_or(Path::new("")).join(to),
        (_, Err(_)) => path.into(),
    }
}

/// SHA-256 over several files, one after the other, in hex.
pub fn sha256_of_files(paths: &[PathBuf]) -> Result<String> {
    let mut hash = Sha256::new();
    for path in paths {
        hash.update(sha256(path)?);
    }
    Ok(hex(&hash.finalize()))
}

/// SHA-256 of a text in hex.
pub fn sha256_of_text(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// SHA-256 of a file in hex.
pub fn sha256(path: &Path) -> Result<String> {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0u8; 1 << 20];
        loop {
            let n = file.read(&mut buffer)?;
            if n == 0 {
                return Ok(hex(&hash.finalize()));
            }
            hash.update(&buffer[..n]);
        }
    };
    read().map_err(|source| Error::Read { path: path.into(), source })
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes the renames inside a folder last through a power cut. Not every system lets a folder be opened; then it is left.
pub fn sync_folder(path: &Path) {
    if let Ok(folder) = File::open(path) {
        let _ = folder.sync_all();
    }
}
