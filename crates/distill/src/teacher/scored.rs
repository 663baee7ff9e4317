//! The batches that an unfinished table has already: a file beside the table's place that only grows. Each batch has its
//! hash, so a write that was torn costs that batch and nothing before it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::Fingerprint;
use crate::{Error, Result};

const HASH: usize = 32;

/// The file, locked and open at its end.
pub(crate) struct Scored {
    path: PathBuf,
    file: File,
    n_batches: u64,
}

impl Scored {
    /// Opens the file and gives the batches in it; `widths` says how many numbers each batch has. What was begun with
    /// another teacher, other rows or another batch size is thrown away.
    pub(crate) fn open(
        table: &Path,
        fingerprint: &Fingerprint,
        batch_size: usize,
        widths: &[usize],
    ) -> Result<(Scored, Vec<Vec<f32>>)> {
        let path = path_of(table);
        let fail = |source: io::Error| Error::Write { path: path.clone(), source };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(fail)?;
        }
        let options =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
        let mut file = options.open(&path).map_err(fail)?;
        // Some network disks know no locks. Two writers then spoil each other's batches, which the hashes show.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(Error::TableInWork { path });
        }
        let header = header(fingerprint, batch_size);
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(fail)?;
        let batches = match bytes.strip_prefix(&header[..]) {
            Some(rest) => batches(rest, widths),
            None => Vec::new(),
        };
        let n_numbers: usize = widths[..batches.len()].iter().sum();
        let end = header.len() + n_numbers * 4 + batches.len() * HASH;
        let mut begin = || -> io::Result<()> {
            if !bytes.starts_with(&header) {
                file.set_len(0)?;
                file.seek(SeekFrom::Start(0))?;
                file.write_all(&header)?;
            }
            file.set_len(end as u64)?;
            file.seek(SeekFrom::Start(end as u64))?;
            Ok(())
        };
        begin().map_err(fail)?;
        let n_batches = batches.len() as u64;
        Ok((Scored { path, file, n_batches }, batches))
    }

    /// Not flushed to the disk: after a power cut the hashes say how far the file can be believed.
    pub(crate) fn append(&mut self, values: &[f32]) -> Result<()> {
        let bytes: Vec<u8> = values.iter().flat_map(|z| z.to_le_bytes()).collect();
        let record = [&bytes[..], &hash(self.n_batches, &bytes)[..]].concat();
        let written = self.file.write_all(&record);
        written.map_err(|source| Error::Write { path: self.path.clone(), source })?;
        self.n_batches += 1;
        Ok(())
    }
}

/// Once the table is saved, its unfinished form is of no use; one that can't be removed does no harm.
pub(crate) fn remove_scored(table: &Path) {
    let _ = fs::remove_file(path_of(table));
}

// Not `.partial` alone: that is what a table being written is called.
fn path_of(table: &Path) -> PathBuf {
    let mut path = table.as_os_str().to_owned();
    path.push(".rows.partial");
    path.into()
}

fn header(fingerprint: &Fingerprint, batch_size: usize) -> Vec<u8> {
    format!("lowchurn teacher rows {} {batch_size}\n", fingerprint.sha256()).into_bytes()
}

// With its number, so that a batch at another's place isn't taken for it.
fn hash(number: u64, bytes: &[u8]) -> [u8; HASH] {
    Sha256::new().chain_update(number.to_le_bytes()).chain_update(bytes).finalize().into()
}

/// The whole batches from the start, up to the first that isn't sound.
fn batches(mut bytes: &[u8], widths: &[usize]) -> Vec<Vec<f32>> {
    let mut batches = Vec::new();
    for (number, width) in (0u64..).zip(widths) {
        let Some((values, rest)) = bytes.split_at_checked(width * 4) else { break };
        let Some((found, rest)) = rest.split_at_checked(HASH) else { break };
        if found != hash(number, values) {
            break;
        }
        batches.push(values.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect());
        bytes = rest;
    }
    batches
}
