//! The cache on disk, as the Python clients lay it out: `KIND--owner--name/{blobs,refs,snapshots/COMMIT}`, blobs
//! named by their hash, snapshots made of relative links. One folder more is ours, `.lowchurn/COMMIT.json`: the hub's
//! listing of that commit, without which a part of a repository couldn't be told from the whole. It lies inside
//! `KIND--owner--name` because Python's scan passes over what it doesn't know there, but not beside it.
//! Knows no network; never checks a hash: who uses a file does.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Error, Result};
use crate::kept;
use crate::listing::{Digest, Listing, Origin, RemoteFile};
use crate::repo::{Repo, check_path, is_commit};

/// Of a kept listing; some 500,000 files.
const LISTING_LIMIT: u64 = 64 << 20;

/// The places of one repository.
pub struct Folder {
    root: PathBuf,
    layout: hf_hub::CacheRepo,
    locks: PathBuf,
}

impl Folder {
    pub fn new(cache: &Path, repo: &Repo) -> Folder {
        let named = repo.named();
        let name = named.folder_name();
        Folder {
            root: cache.join(&name),
            locks: cache.join(".locks").join(&name),
            layout: hf_hub::Cache::new(cache.to_path_buf()).repo(named),
        }
    }

    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.layout.blob_path(digest.hex())
    }

    /// Where an unfinished blob grows; Python's name for it, and a leftover of either side is gone on with.
    pub fn unfinished(&self, digest: &Digest) -> PathBuf {
        self.layout.blob_path(&format!("{}.incomplete", digest.hex()))
    }

    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.layout.pointer_path(commit)
    }

    /// The file that processes lock while they download this blob, the same as Python's.
    pub fn lock(&self, digest: &Digest) -> Result<File> {
        let path = self.locks.join(format!("{}.lock", digest.hex()));
        make_parent(&path)?;
        File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::io(&path))
    }

    /// What the cache knows of `repo`'s revision: the hub's listing where one was kept, else the files that are there.
    /// `None` where there is no snapshot of it.
    pub fn listing(&self, repo: &Repo) -> Result<Option<Listing>> {
        let commit = match is_commit(repo.revision()) {
            true => repo.revision().to_owned(),
            false => {
                let text = fs::read_to_string(self.reference(repo)).unwrap_or_default();
                text.trim().to_owned()
            }
        };
        let snapshot = self.snapshot(&commit);
        if !is_commit(&commit) || !snapshot.is_dir() {
            return Ok(None);
        }
        if let Some(listing) = self.kept(repo, &commit)? {
            return Ok(Some(listing));
        }
        let mut files = Vec::new();
        collect(&snapshot, "", &mut files).map_err(Error::io(&snapshot))?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Some(Listing { commit, files, origin: Origin::Cache }))
    }

    /// Notes which commit the revision stood for. Renamed into place: a reader never sees half a line.
    pub fn remember(&self, repo: &Repo, commit: &str) -> Result<()> {
        let path = self.reference(repo);
        if repo.revision() == commit
            || fs::read_to_string(&path).is_ok_and(|text| text.trim() == commit)
        {
            return Ok(());
        }
        self.write(&path, commit)
    }

    /// Keeps what the hub listed, for when it can't be asked. A cache that can't be written to is no error here: what
    /// needs to be written will say so.
    pub fn keep(&self, listing: &Listing) {
        let Some(text) = kept::to_text(listing) else { return };
        let path = self.kept_path(&listing.commit);
        let fits = (text.len() as u64) < LISTING_LIMIT;
        if fits && !fs::read_to_string(&path).is_ok_and(|there| there == text) {
            let _ = self.write(&path, &text);
        }
    }

    /// A listing that is there and can't be believed is an error: without it, a part would look like the whole.
    pub fn kept(&self, repo: &Repo, commit: &str) -> Result<Option<Listing>> {
        let path = self.kept_path(commit);
        let mut text = String::new();
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file
                .and_then(|file| file.take(LISTING_LIMIT).read_to_string(&mut text))
                .map_err(|error| error.to_string()),
        }
        .and_then(|_| kept::from_text(&text, commit))
        .map(Some)
        .map_err(|why| Error::BadKept { repo: repo.boxed(), path, why })
    }

    fn kept_path(&self, commit: &str) -> PathBuf {
        self.root.join(".lowchurn").join(format!("{commit}.json"))
    }

    /// Written beside and renamed, under a name of its own for each writer, so that no two rename the same file.
    fn write(&self, path: &Path, text: &str) -> Result<()> {
        static WRITERS: AtomicU32 = AtomicU32::new(0);
        make_parent(path)?;
        let writer = (std::process::id(), WRITERS.fetch_add(1, Ordering::Relaxed));
        let beside = self.root.join(format!("text-{}-{}.incomplete", writer.0, writer.1));
        fs::write(&beside, text).map_err(Error::io(&beside))?;
        fs::rename(&beside, path).map_err(|error| {
            let _ = fs::remove_file(&beside);
            Error::io(path)(error)
        })
    }

    /// Makes `path` of the snapshot stand for the blob: a link, or a copy where links can't be made. Renamed into
    /// place, so that one who reads a link that is already there doesn't miss it. Needs the blob's lock.
    pub fn link(&self, commit: &str, path: &str, digest: &Digest) -> Result<()> {
        let dest = self.snapshot(commit).join(path);
        make_parent(&dest)?;
        let beside = self.snapshot(commit).join(format!("{path}.incomplete"));
        if fs::symlink_metadata(&beside).is_ok() {
            fs::remove_file(&beside).map_err(Error::io(&beside))?;
        }
        let up = "../".repeat(2 + path.matches('/').count());
        if symlink(Path::new(&format!("{up}blobs/{}", digest.hex())), &beside).is_err() {
            fs::copy(self.blob(digest), &beside).map_err(Error::io(&beside))?;
        }
        fs::rename(&beside, &dest).map_err(Error::io(&dest))
    }

    /// Whether `path` of the snapshot leads to the blob, so that what is true of the one is true of the other.
    pub fn is_linked(&self, commit: &str, path: &str, digest: &Digest) -> bool {
        let dest = fs::canonicalize(self.snapshot(commit).join(path));
        let blob = fs::canonicalize(self.blob(digest));
        dest.is_ok_and(|dest| blob.is_ok_and(|blob| dest == blob))
    }

    fn reference(&self, repo: &Repo) -> PathBuf {
        self.root.join("refs").join(repo.revision())
    }
}

/// Bytes of the file that a path leads to; `None` where it leads to no file.
pub fn size(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().filter(|meta| meta.is_file()).map(|meta| meta.len())
}

pub fn make_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) => fs::create_dir_all(parent).map_err(Error::io(parent)),
        None => Ok(()),
    }
}

/// Links that lead nowhere and names that no hub could have given are left out.
fn collect(folder: &Path, prefix: &str, files: &mut Vec<RemoteFile>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = format!("{prefix}{name}");
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &format!("{path}/"), files)?;
        } else if let Some(size) = size(&entry.path())
            && check_path(&path).is_ok()
            && !path.ends_with(".incomplete")
        {
            let blob = fs::read_link(entry.path()).ok();
            let hex = blob.as_deref().and_then(|blob| blob.file_name()?.to_str());
            files.push(RemoteFile { path, size, digest: hex.and_then(Digest::from_hex) });
        }
    }
    Ok(())
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}
