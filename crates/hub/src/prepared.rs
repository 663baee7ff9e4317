//! Files on the disk → what will be sent: sizes and hashes, worked out in one pass without holding a file in memory.
//! Refuses names that would leave the repository, links, and a file that has the token in it. Knows no network.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;

use sha1::Digest as _;

use crate::error::{Error, Result};
use crate::listing::{Digest, RemoteFile};
use crate::repo::check_path;
use crate::settings::Token;

const CHUNK: usize = 128 << 10;
/// What the hub sees of a file before it says how to send it.
const SAMPLE: usize = 512;

/// A file to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalFile {
    /// In the repository, with `/`.
    pub path: String,
    /// On the disk.
    pub place: PathBuf,
}

/// A file as it was when it was read; what is sent later must be the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    pub path: String,
    pub place: PathBuf,
    /// Bytes.
    pub size: u64,
    pub sha256: String,
    /// git's hash, by which the hub knows small files.
    pub git_sha1: String,
    pub(crate) sample: Vec<u8>,
}

impl Prepared {
    /// Whether the hub has these bytes under this name.
    pub fn is(&self, remote: &RemoteFile) -> bool {
        let is_digest = match &remote.digest {
            Some(Digest::Git(hex)) => *hex == self.git_sha1,
            Some(Digest::Sha256(hex)) => *hex == self.sha256,
            None => false,
        };
        remote.path == self.path && is_digest
    }
}

/// Reads every file once.
///
/// # Errors
/// A name that leaves the repository or comes twice, what isn't a plain file, a file that holds the token, one that
/// changes while it is read.
pub(crate) fn prepare(files: &[LocalFile], token: Option<&Token>) -> Result<Vec<Prepared>> {
    let mut names = BTreeSet::new();
    for LocalFile { path, .. } in files {
        let why = match check_path(path) {
            Err(why) => why,
            Ok(()) if path.contains('\\') => "it has '\\', which leaves its folder on Windows",
            Ok(()) if path.split('/').any(|part| part == ".git") => "it is git's own",
            Ok(()) if !names.insert(path) => "two files have it",
            Ok(()) => continue,
        };
        return Err(Error::UploadPath { path: path.clone(), why });
    }
    files.iter().map(|file| read(file, token)).collect()
}

fn read(file: &LocalFile, token: Option<&Token>) -> Result<Prepared> {
    let LocalFile { path, place } = file;
    // Not through a link: it may lead out of the folder that was meant to be published.
    let meta = fs::symlink_metadata(place).map_err(Error::unreadable(place))?;
    if !meta.is_file() {
        return Err(Error::UploadPath { path: path.clone(), why: "it is no plain file" });
    }
    let size = meta.len();
    let mut source = File::open(place).map_err(Error::unreadable(place))?;
    let (mut sha256, mut sha1) = (sha2::Sha256::new(), sha1::Sha1::new());
    sha1.update(format!("blob {size}\0"));
    let keep = token.map_or(0, |token| token.len().saturating_sub(1));
    // The end of the chunk before stays in front: a token may lie across two.
    let mut seen: Vec<u8> = Vec::with_capacity(CHUNK + keep);
    let (mut chunk, mut sample, mut found) = (vec![0; CHUNK], Vec::new(), 0u64);
    loop {
        let n = source.read(&mut chunk).map_err(Error::unreadable(place))?;
        if n == 0 {
            break;
        }
        let bytes = &chunk[..n];
        found += n as u64;
        sha256.update(bytes);
        sha1.update(bytes);
        sample.extend(bytes.iter().take(SAMPLE - sample.len().min(SAMPLE)));
        if let Some(token) = token {
            seen.extend(bytes);
            if token.is_in(&seen) {
                return Err(Error::HoldsToken { path: place.clone() });
            }
            seen.drain(..seen.len().saturating_sub(keep));
        }
    }
    if found != size {
        return Err(Error::Changed { path: place.clone() });
    }
    let (sha256, git_sha1) = (format!("{:x}", sha256.finalize()), format!("{:x}", sha1.finalize()));
    Ok(Prepared { path: path.clone(), place: place.clone(), size, sha256, git_sha1, sample })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(place: &std::path::Path, path: &str) -> LocalFile {
        LocalFile { path: path.into(), place: place.into() }
    }

    #[test]
    fn hashes_are_gits_and_sha256() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("f");
        fs::write(&place, "hello\n").unwrap();
        let found = prepare(&[local(&place, "a/f")], None).unwrap().remove(0);
        // `git hash-object` and `sha256sum` of the same bytes.
        assert_eq!(found.git_sha1, "ce013625030ba8dba906f756967f9e9ca394464a");
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        assert_eq!((found.sha256.as_str(), found.size, found.sample.len()), (sha256, 6, 6));
        let remote = |digest| RemoteFile { path: "a/f".into(), size: 6, digest: Some(digest) };
        assert!(found.is(&remote(Digest::Sha256(sha256.into()))));
        assert!(found.is(&remote(Digest::Git(found.git_sha1.clone()))));
        assert!(!found.is(&remote(Digest::Git("0".repeat(40)))));
    }

    #[test]
    fn names_that_leave_and_files_that_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("f");
        fs::write(&place, "x").unwrap();
        let check = |files: &[LocalFile], expected: &str| {
            let error = prepare(files, None).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!(error.exit_code(), 2, "{error}");
        };
        let leaves = "it leaves its folder, or has an empty part";
        check(&[local(&place, "../f")], leaves);
        check(&[local(&place, "a/../../f")], leaves);
        check(&[local(&place, "/etc/passwd")], leaves);
        check(&[local(&place, "a\\..\\f")], "leaves its folder on Windows");
        check(&[local(&place, ".git/config")], "it is git's own");
        check(&[local(&place, "f"), local(&place, "f")], "two files have it");
        check(&[local(dir.path(), "d")], "it is no plain file");
        #[cfg(unix)]
        {
            let link = dir.path().join("link");
            std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
            check(&[local(&link, "link")], "it is no plain file");
        }
    }

    #[test]
    fn a_token_is_found_wherever_it_lies() {
        let dir = tempfile::tempdir().unwrap();
        let token = Token::parse("hf_secret_of_mine").unwrap();
        for at in [0, 5, CHUNK - 9, CHUNK - 1, CHUNK, 2 * CHUNK + 77] {
            let place = dir.path().join(at.to_string());
            let mut bytes = vec![b'h'; at];
            bytes.extend(b"hf_secret_of_mine and more");
            fs::write(&place, &bytes).unwrap();
            let files = [local(&place, "f")];
            let error = prepare(&files, Some(&token)).unwrap_err().to_string();
            assert!(error.contains("holds the token") && !error.contains("hf_"), "{error}");
            assert_eq!(prepare(&files, None).unwrap()[0].size, bytes.len() as u64);
        }
    }
}
