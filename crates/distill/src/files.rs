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
    let (place, is_special) = (behind_links(path), is_written_into(path));
    let mut partial = place.as_os_str().to_owned();
    partial.push(".partial");
    let write = || -> io::Result<()> {
        if is_special {
            let mut out = BufWriter::new(OpenOptions::new().append(true).open(path)?);
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

/// Whether a path is a pipe, a device or the like, or names one of a process's open files, whatever that is: `/dev/stdout` may be a
/// file that others append to.
pub fn is_written_into(path: &Path) -> bool {
    let is_of_system = ["/dev", "/proc"].iter().any(|root| path.starts_with(root));
    let is_other = |there: fs::Metadata| !there.is_file() && !there.is_dir();
    fs::metadata(path).is_ok_and(|there| is_of_system || is_other(there))
}

/// Where a path leads, also where nothing is there yet.
pub fn behind_links(path: &Path) -> PathBuf {
    let mut place = path.to_path_buf();
    // As many as the system follows; a ring of links fails where it is written.
    for _ in 0..40 {
        let Ok(to) = fs::read_link(&place) else { break };
        place = place.parent().unwrap_or(Path::new("")).join(to);
    }
    place
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
