//! The hub as a whole: list a repository, fetch files of it. Decides nothing about which files are wanted.
//! A file gets its final name only after status, size and hash are right; wrong bytes are deleted. What lies in the
//! cache is hashed each time it is fetched (some 0.2 s for 100 MB): other programs write there, and disks fail.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::http::{HeaderMap, StatusCode, header};

use crate::cache::{self, Folder};
use crate::error::{Error, Result};
use crate::http::{self, Failure, Retry};
use crate::listing::{self, Digest, Listing, Origin, RemoteFile};
use crate::repo::{Repo, check_path, percent};
use crate::settings::{Network, Settings};
use crate::state::{State, hash, state};

/// A page of the listing holds 1000 files, some 300 bytes each.
const PAGE_LIMIT: u64 = 64 << 20;
const PAGES_LIMIT: usize = 1000;
const CHUNK: usize = 128 << 10;
/// A try that brought this much doesn't count against the tries: a bad line still gets a large file through.
const GOOD_PIECE: u64 = 1 << 20;

/// What happens meanwhile. Sizes in bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'a> {
    /// `have` bytes are there from an earlier run.
    Started {
        file: &'a str,
        size: u64,
        have: u64,
    },
    Bytes {
        file: &'a str,
        have: u64,
    },
    /// Checked and in its place.
    Done {
        file: &'a str,
        size: u64,
    },
    /// A large file goes to the hub; its bytes follow as [`Event::Bytes`].
    Sending {
        file: &'a str,
        size: u64,
    },
    Sent {
        file: &'a str,
        size: u64,
    },
    /// Another process downloads the same file; waiting for it.
    Waiting {
        file: &'a str,
    },
    /// `what` is a file, or the listing.
    Retrying {
        what: &'a str,
        reason: String,
        wait: Duration,
    },
}

pub struct Hub {
    pub settings: Settings,
    pub(crate) agent: ureq::Agent,
}

// By hand: the agent and a proxy's address may hold passwords.
impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { endpoint, cache, token, network, .. } = &self.settings;
        write!(
            f,
            "Hub {{ endpoint: {endpoint:?}, cache: {cache:?}, token: {token:?}, network: {network:?} }}"
        )
    }
}

impl Hub {
    pub fn from_vars(var: &dyn Fn(&str) -> Option<String>) -> Result<Hub> {
        let settings = Settings::from_vars(var)?;
        Ok(Hub { agent: http::agent(&settings), settings })
    }

    /// The files at the repository's revision. Where the hub is off or doesn't answer, as the cache knows them; see
    /// [`Origin::Cache`]. A commit never changes: what the hub once listed of it isn't asked again.
    pub fn list(&self, repo: &Repo, on: &mut dyn FnMut(Event)) -> Result<Listing> {
        let folder = Folder::new(&self.settings.cache, repo);
        if repo.is_at_commit()
            && let Ok(Some(kept)) = folder.kept(repo, repo.revision())
        {
            return Ok(kept);
        }
        let cached = || folder.listing(repo);
        match self.settings.network {
            Network::Off => cached()?.ok_or_else(|| self.offline(repo, None)),
            Network::Allowed => match self.ask(repo, on) {
                Err(error @ (Error::Unreachable { .. } | Error::Busy { .. })) => {
                    cached()?.ok_or(error)
                }
                answer => answer,
            },
        }
    }

    /// Downloads what isn't there yet of `wanted` (paths of the listing), and answers with the snapshot's folder.
    pub fn fetch(
        &self,
        repo: &Repo,
        listing: &Listing,
        wanted: &[String],
        on: &mut dyn FnMut(Event),
    ) -> Result<PathBuf> {
        let folder = Folder::new(&self.settings.cache, repo);
        let snapshot = folder.snapshot(&listing.commit);
        // Before the first file: a fetch that ends halfway leaves a part that must not look like the whole.
        if listing.origin == Origin::Hub {
            folder.keep(listing);
        }
        for path in wanted {
            let Some(file) = listing.file(path) else { return Err(no_file(repo, listing, path)) };
            if let Err(why) = check_path(path) {
                return Err(Error::BadPath { repo: repo.boxed(), path: path.clone(), why });
            }
            let place = snapshot.join(path);
            let state = state(&place, file)?;
            match (state, &file.digest, self.settings.network) {
                (State::Right, ..) => {}
                (_, Some(digest), Network::Allowed) => {
                    self.download(repo, &listing.commit, file, digest, &folder, on)?
                }
                (State::Damaged { found }, Some(digest), Network::Off) => {
                    let (file, expected) = (path.clone(), digest.to_string());
                    return Err(Error::Damaged {
                        repo: repo.boxed(),
                        file,
                        expected,
                        found: found.to_string(),
                        path: fs::canonicalize(&place).unwrap_or(place).into(),
                    });
                }
                _ => return Err(self.offline(repo, Some(path.clone()))),
            }
        }
        if listing.origin == Origin::Hub {
            folder.remember(repo, &listing.commit)?;
        }
        Ok(snapshot)
    }

    /// First the commit, then the files at that commit: a push in between changes nothing.
    pub(crate) fn ask(&self, repo: &Repo, on: &mut dyn FnMut(Event)) -> Result<Listing> {
        let kind = repo.kind();
        let base = format!("{}/api/{kind}s/{}", self.settings.endpoint, repo.id());
        let url = format!("{base}/revision/{}", percent(repo.revision(), ""));
        let commit = listing::read_commit(repo, &url, &self.page(repo, &url, on)?.0)?;
        let tree = format!("{base}/tree/{commit}");
        let (mut url, mut files) = (format!("{tree}?recursive=true"), Vec::new());
        for _ in 0..PAGES_LIMIT {
            let (text, next) = self.page(repo, &url, on)?;
            files.extend(listing::read_tree(repo, &url, &text)?);
            let Some(query) = next else {
                files.sort_by(|a, b| a.path.cmp(&b.path));
                return Ok(Listing { commit, files, origin: Origin::Hub });
            };
            url = format!("{tree}?{query}");
        }
        Err(Error::BadReply {
            repo: repo.boxed(),
            url,
            why: format!("more than {PAGES_LIMIT} pages of files"),
        })
    }

    /// One of the hub's own replies, and the query of the next page.
    fn page(
        &self,
        repo: &Repo,
        url: &str,
        on: &mut dyn FnMut(Event),
    ) -> Result<(String, Option<String>)> {
        http::persist("the list of files", on, |_| {
            let mut reply = http::get(&self.agent, &self.settings, repo, None, url, 0)?;
            let link = reply.headers().get(header::LINK).and_then(|value| value.to_str().ok());
            let next = link.and_then(listing::next_page).map(str::to_owned);
            let text = reply.body_mut().with_config().limit(PAGE_LIMIT).read_to_string();
            let broken = |error: ureq::Error| Failure {
                error: Error::BadReply {
                    repo: repo.boxed(),
                    url: url.to_owned(),
                    why: error.to_string(),
                },
                retry: Retry::Later,
            };
            Ok((text.map_err(broken)?, next))
        })
    }

    fn download(
        &self,
        repo: &Repo,
        commit: &str,
        file: &RemoteFile,
        digest: &Digest,
        folder: &Folder,
        on: &mut dyn FnMut(Event),
    ) -> Result<()> {
        let (blob, unfinished) = (folder.blob(digest), folder.unfinished(digest));
        cache::make_parent(&blob)?;
        let lock = folder.lock(digest)?;
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => {
                on(Event::Waiting { file: &file.path });
                lock.lock().map_err(Error::io(&blob))?;
            }
            // Some network disks know no locks. Two writers then spoil each other's bytes, which the hash shows.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        // Another process, or another commit, may have brought it meanwhile.
        let found = state(&blob, file)?;
        if !matches!(found, State::Right) {
            if matches!(found, State::Damaged { .. }) {
                fs::remove_file(&blob).map_err(Error::io(&blob))?;
                let reason = "its bytes in the cache are wrong".to_owned();
                on(Event::Retrying { what: &file.path, reason, wait: Duration::ZERO });
            }
            let mut leftover = cache::size(&unfinished).unwrap_or(0);
            on(Event::Started { file: &file.path, size: file.size, have: leftover });
            loop {
                http::persist(&file.path, on, |on| {
                    self.receive(repo, commit, file, &unfinished, on)
                })?;
                let found = hash(&unfinished, digest, file.size).map_err(Error::io(&unfinished))?;
                if found == *digest {
                    break;
                }
                fs::remove_file(&unfinished).map_err(Error::io(&unfinished))?;
                let (expected, found) = (digest.to_string(), found.to_string());
                let error = Error::WrongHash {
                    repo: repo.boxed(),
                    file: file.path.clone(),
                    expected,
                    found,
                };
                if leftover == 0 {
                    return Err(error);
                }
                // The bytes of the earlier run may be the wrong ones: once more, from the start.
                leftover = 0;
                let reason = "the bytes of an earlier run are wrong".to_owned();
                on(Event::Retrying { what: &file.path, reason, wait: Duration::ZERO });
            }
            fs::rename(&unfinished, &blob).map_err(Error::io(&blob))?;
            on(Event::Done { file: &file.path, size: file.size });
        }
        match folder.is_linked(commit, &file.path, digest) {
            true => Ok(()),
            false => folder.link(commit, &file.path, digest),
        }
    }

    /// One try to bring `unfinished` to its full size, from where it stands.
    fn receive(
        &self,
        repo: &Repo,
        commit: &str,
        file: &RemoteFile,
        unfinished: &Path,
        on: &mut dyn FnMut(Event),
    ) -> std::result::Result<(), Failure> {
        let io = || Error::io(unfinished);
        let mut out = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(unfinished)
            .map_err(io())?;
        let mut have = out.seek(SeekFrom::End(0)).map_err(io())?;
        if have == file.size {
            return Ok(());
        }
        if file.size < have {
            restart(&mut out, &mut have).map_err(io())?;
        }
        let url = format!(
            "{}/{}/resolve/{commit}/{}",
            self.settings.endpoint,
            repo.address(),
            percent(&file.path, "/")
        );
        let mut reply = http::get(&self.agent, &self.settings, repo, Some(&file.path), &url, have)?;
        match reply.status() {
            StatusCode::PARTIAL_CONTENT if range_start(reply.headers()) == Some(have) => {}
            // The range was not understood, and the whole file comes.
            StatusCode::OK => restart(&mut out, &mut have).map_err(io())?,
            status => {
                restart(&mut out, &mut have).map_err(io())?;
                let error = Error::Status { repo: repo.boxed(), url, status: status.as_u16() };
                return Err(Failure { error, retry: Retry::Later });
            }
        }
        let (start, expected) = (have, file.size);
        let wrong_size = |found: u64| {
            // Nothing of it is kept. That it can't be deleted is the smaller trouble: its size is checked anyhow.
            let _ = fs::remove_file(unfinished);
            Error::WrongSize { repo: repo.boxed(), file: file.path.clone(), expected, found }
        };
        if let Some(length) = reply.body().content_length()
            && start.saturating_add(length) != expected
        {
            return Err(wrong_size(start.saturating_add(length)).into());
        }
        let mut body = reply.body_mut().as_reader();
        let mut chunk = vec![0; CHUNK];
        let reason = loop {
            match body.read(&mut chunk) {
                Ok(0) if have == expected => {
                    // A name must not outlive a power cut that its bytes don't.
                    out.sync_all().map_err(io())?;
                    return Ok(());
                }
                Ok(0) => break "the body ended early".to_owned(),
                Ok(n) => {
                    have += n as u64;
                    if expected < have {
                        return Err(wrong_size(have).into());
                    }
                    out.write_all(&chunk[..n]).map_err(io())?;
                    on(Event::Bytes { file: &file.path, have });
                }
                Err(error) => break error.to_string(),
            }
        };
        let error = Error::BrokenOff {
            repo: repo.boxed(),
            file: file.path.clone(),
            have,
            size: expected,
            reason,
        };
        let retry = if GOOD_PIECE <= have - start { Retry::Progressed } else { Retry::Later };
        Err(Failure { error, retry })
    }

    fn offline(&self, repo: &Repo, file: Option<String>) -> Error {
        Error::Offline { repo: repo.boxed(), file, cache: self.settings.cache.clone() }
    }
}

fn restart(out: &mut File, have: &mut u64) -> std::io::Result<()> {
    *have = 0;
    out.set_len(0)?;
    out.seek(SeekFrom::Start(0)).map(|_| ())
}

/// First byte in `Content-Range: bytes FIRST-LAST/SIZE`.
pub(crate) fn range_start(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

/// The nearest name is the one that shares the longest beginning or end with what was asked for.
fn no_file(repo: &Repo, listing: &Listing, path: &str) -> Error {
    let shared = |name: &str| {
        let front = name.chars().zip(path.chars()).take_while(|(a, b)| a == b).count();
        let back = name.chars().rev().zip(path.chars().rev()).take_while(|(a, b)| a == b).count();
        front.max(back)
    };
    let nearest =
        listing.files.iter().max_by_key(|file| shared(&file.path)).map(|file| file.path.clone());
    Error::NoFile { repo: repo.boxed(), file: path.to_owned(), count: listing.files.len(), nearest }
}
