//! Local files → one commit at the hub: the repository is made where it isn't there, large files go ahead, and a single
//! commit names everything or nothing. Decides nothing about which files are wanted or what may be written over.
//!
//! Safe to run again: what the hub has is not sent twice, and a commit whose answer got lost is recognised by what is
//! there. The commit names its parent, so nobody else's work is covered up.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;
use std::fs;
use std::io::Read;

use sha2::Digest as _;
use ureq::http::StatusCode;

use crate::error::{Error, Result};
use crate::fetch::{Event, Hub, range_start};
use crate::http::{self, Failure, Retry};
use crate::lfs;
use crate::listing::Listing;
use crate::prepared::{LocalFile, Prepared, prepare};
use crate::repo::{Kind, Repo, is_commit, percent};
use crate::send::Sender;
use crate::settings::Network;

/// Bytes inside a commit; hubs ask for small files alone that way.
const INLINE_LIMIT: u64 = 128 << 20;
/// Files of one question.
const BATCH: usize = 250;
const CHUNK: usize = 128 << 10;

/// Who may see a repository that is made; one that is there stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Public,
    Private,
}

/// Where a commit goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The repository's revision.
    Branch,
    /// A pull request to it.
    PullRequest,
}

/// What one commit does.
#[derive(Clone, Copy, Debug)]
pub struct Change<'c> {
    pub files: &'c [Prepared],
    /// Paths of the listing that go away.
    pub removed: &'c [String],
    pub summary: &'c str,
    pub description: &'c str,
    pub target: Target,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    pub commit: String,
    /// Where to read it back: the commit, or the pull request's revision.
    pub revision: String,
    pub pull_request: Option<String>,
    /// Files that weren't there in these bytes.
    pub n_sent: usize,
}

impl Hub {
    /// Hashes of what is to be published. Needs no network.
    pub fn prepare(&self, files: &[LocalFile]) -> Result<Vec<Prepared>> {
        prepare(files, self.settings.token.as_ref())
    }

    /// Makes the repository and the branch where they aren't there, and lists what is.
    pub fn open_for_writing(
        &self,
        repo: &Repo,
        access: Access,
        on: &mut dyn FnMut(Event),
    ) -> Result<Listing> {
        let sender = self.sender(repo)?;
        self.create(&sender, access, on)?;
        match self.ask(repo, on) {
            Err(Error::NoRevision { .. }) => {
                let url = format!(
                    "{}/api/{}s/{}/branch/{}",
                    self.settings.endpoint,
                    repo.kind(),
                    repo.id(),
                    percent(repo.revision(), "")
                );
                let what = format!("the new branch {}", repo.revision());
                let reply = http::persist(&what, on, |_| sender.post(&what, &url, &json!({})))?;
                if !reply.is_ok() && reply.status != StatusCode::CONFLICT {
                    return Err(sender.refused(&what, &reply));
                }
                self.ask(repo, on)
            }
            listing => listing,
        }
    }

    /// Brings `change` to the hub in one commit upon `there`, or none where nothing would change.
    ///
    /// # Errors
    /// [`Error::Moved`] where somebody else has written meanwhile, [`Error::Changed`] where a file has other bytes than
    /// when it was prepared; in both cases nothing is published.
    pub fn commit(
        &self,
        repo: &Repo,
        there: &Listing,
        change: &Change,
        on: &mut dyn FnMut(Event),
    ) -> Result<Committed> {
        let sender = self.sender(repo)?;
        let is_new = |file: &&Prepared| !there.file(&file.path).is_some_and(|at| file.is(at));
        let new: Vec<&Prepared> = change.files.iter().filter(is_new).collect();
        let done = |commit: &str| Committed {
            commit: commit.to_owned(),
            revision: commit.to_owned(),
            pull_request: None,
            n_sent: new.len(),
        };
        if new.is_empty() && change.removed.is_empty() {
            return Ok(done(&there.commit));
        }
        let query = match change.target {
            Target::Branch => "",
            // Who may only read may ask this way.
            Target::PullRequest => "?create_pr=1",
        };
        let large = self.large(&sender, &new, query, on)?;
        let of_size = |is_large: bool| {
            let pairs = new.iter().zip(&large).filter(move |(_, large)| **large == is_large);
            pairs.map(|(file, _)| *file).collect::<Vec<&Prepared>>()
        };
        let (large, small) = (of_size(true), of_size(false));
        lfs::upload(&sender, &large, on)?;
        let body = self.commit_body(&sender, there, change, &large, &small)?;
        let url = self.api(repo, "commit") + query;
        let sent = http::persist("the commit", on, |_| {
            let sent = sender.post_as("the commit", &url, "application/x-ndjson", &body);
            sent.map_err(|failure| match (change.target, &failure.error) {
                // The first one may have come through, and a second request would stand beside it.
                (Target::PullRequest, Error::UploadBroken { .. }) => {
                    Failure { retry: Retry::Never, ..failure }
                }
                _ => failure,
            })
        });
        let reply = match (sent, change.target) {
            (Ok(reply), _) if !matches!(reply.status, 409 | 412) => reply,
            (Err(error), Target::PullRequest) => return Err(error),
            // Moved, by us with an answer that got lost, or by somebody else.
            (sent, _) => {
                let now = self.ask(repo, on)?;
                let has = |file: &Prepared| now.file(&file.path).is_some_and(|at| file.is(at));
                let is_ours = change.files.iter().all(has)
                    && change.removed.iter().all(|path| now.file(path).is_none());
                return match sent {
                    _ if is_ours => Ok(done(&now.commit)),
                    Ok(_) => {
                        let expected = there.commit.clone();
                        Err(Error::Moved { repo: repo.boxed(), expected })
                    }
                    Err(error) => Err(error),
                };
            }
        };
        if !reply.is_ok() {
            return Err(sender.refused("the commit", &reply));
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Answer {
            commit_oid: String,
            pull_request_url: Option<String>,
        }
        let answer: Answer =
            serde_json::from_str(&reply.text).map_err(|error| sender.odd(&url, error))?;
        if !is_commit(&answer.commit_oid) {
            return Err(sender.odd(&url, format!("{:?} is not a commit", answer.commit_oid)));
        }
        let number = answer.pull_request_url.as_deref().and_then(|url| url.rsplit('/').next());
        let number = number.and_then(|number| number.parse::<u64>().ok());
        let revision = match (change.target, number) {
            (Target::PullRequest, Some(number)) => format!("refs/pr/{number}"),
            _ => answer.commit_oid.clone(),
        };
        let pull_request = answer.pull_request_url.filter(|_| change.target == Target::PullRequest);
        Ok(Committed { revision, pull_request, ..done(&answer.commit_oid) })
    }

    /// Downloads every file of the commit again and compares hashes. Nothing is kept.
    pub fn verify(
        &self,
        repo: &Repo,
        committed: &Committed,
        files: &[Prepared],
        on: &mut dyn FnMut(Event),
    ) -> Result<()> {
        let at = repo.at(&committed.revision)?;
        for file in files {
            let found = self.hash_of_remote(&at, file, on)?;
            if found != file.sha256 {
                return Err(Error::NotAsSent {
                    repo: repo.boxed(),
                    file: file.path.clone(),
                    commit: committed.commit.clone(),
                    expected: file.sha256.clone(),
                    found,
                });
            }
        }
        Ok(())
    }

    /// SHA-256 of what the hub gives for a file. A broken line is gone on with where it broke.
    fn hash_of_remote(
        &self,
        at: &Repo,
        file: &Prepared,
        on: &mut dyn FnMut(Event),
    ) -> Result<String> {
        let revision = percent(at.revision(), "");
        let name = percent(&file.path, "/");
        let url = format!("{}/{}/resolve/{revision}/{name}", self.settings.endpoint, at.address());
        let (mut hasher, mut have) = (sha2::Sha256::new(), 0u64);
        http::persist(&file.path, on, |_| {
            let before = have;
            let reply = http::get(&self.agent, &self.settings, at, Some(&file.path), &url, have);
            let mut reply = reply?;
            if reply.status() != StatusCode::PARTIAL_CONTENT
                || range_start(reply.headers()) != Some(have)
            {
                (hasher, have) = (sha2::Sha256::new(), 0);
            }
            let mut body = reply.body_mut().as_reader();
            let mut chunk = vec![0; CHUNK];
            let reason = loop {
                match body.read(&mut chunk) {
                    Ok(0) if have < file.size => break "the body ended early".to_owned(),
                    Ok(0) => return Ok(()),
                    Ok(n) => {
                        hasher.update(&chunk[..n]);
                        have += n as u64;
                        // What is too long has another hash; a body without an end must not go on forever.
                        if file.size < have {
                            return Ok(());
                        }
                    }
                    Err(error) => break error.to_string(),
                }
            };
            let (file, size) = (file.path.clone(), file.size);
            let error = Error::BrokenOff { repo: at.boxed(), file, have, size, reason };
            let retry = if before < have { Retry::Progressed } else { Retry::Later };
            Err(Failure { error, retry })
        })?;
        Ok(format!("{:x}", hasher.finalize()))
    }

    fn sender<'s>(&'s self, repo: &'s Repo) -> Result<Sender<'s>> {
        if self.settings.network == Network::Off {
            return Err(Error::OfflineUpload { repo: repo.boxed() });
        }
        if self.settings.token.is_none() {
            let endpoint = self.settings.endpoint.clone();
            return Err(Error::NoToken { repo: repo.boxed(), endpoint });
        }
        if is_commit(repo.revision()) {
            return Err(Error::CommitIsFixed { repo: repo.boxed() });
        }
        Ok(Sender { agent: &self.agent, settings: &self.settings, repo })
    }

    fn create(&self, sender: &Sender, access: Access, on: &mut dyn FnMut(Event)) -> Result<()> {
        let repo = sender.repo;
        let Some((owner, name)) = repo.id().split_once('/') else {
            let why = "a repository to write to has an owner";
            return Err(Error::BadId { kind: repo.kind(), id: repo.id().to_owned(), why });
        };
        let url = format!("{}/api/repos/create", self.settings.endpoint);
        let mut ask = json!({
            "name": name, "organization": owner, "private": access == Access::Private,
        });
        if repo.kind() == Kind::Dataset {
            ask["type"] = "dataset".into();
        }
        let what = "the new repository";
        let reply = http::persist(what, on, |_| sender.post(what, &url, &ask))?;
        match reply.status {
            // It is there.
            409 => Ok(()),
            // Who may write to a repository may not always make one.
            403 if self.ask(repo, on).is_ok() => Ok(()),
            _ if reply.is_ok() => Ok(()),
            _ => Err(sender.refused(what, &reply)),
        }
    }

    fn api(&self, repo: &Repo, action: &str) -> String {
        let (kind, revision) = (repo.kind(), percent(repo.revision(), ""));
        format!("{}/api/{kind}s/{}/{action}/{revision}", self.settings.endpoint, repo.id())
    }

    /// Whether the hub wants each file ahead of the commit.
    fn large(
        &self,
        sender: &Sender,
        files: &[&Prepared],
        query: &str,
        on: &mut dyn FnMut(Event),
    ) -> Result<Vec<bool>> {
        #[derive(Deserialize)]
        struct Answer {
            files: Vec<Way>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Way {
            path: String,
            upload_mode: String,
            #[serde(default)]
            should_ignore: bool,
        }
        let url = self.api(sender.repo, "preupload") + query;
        let what = "the question how to send the files";
        let mut large = Vec::with_capacity(files.len());
        for files in files.chunks(BATCH) {
            let sample = |file: &&Prepared| json!({ "path": file.path, "size": file.size, "sample": STANDARD.encode(&file.sample) });
            let ask = json!({ "files": files.iter().map(sample).collect::<Vec<_>>() });
            let reply = http::persist(what, on, |_| sender.post(what, &url, &ask))?;
            if !reply.is_ok() {
                return Err(sender.refused(what, &reply));
            }
            let answer: Answer =
                serde_json::from_str(&reply.text).map_err(|error| sender.odd(&url, error))?;
            for file in files {
                let way = answer.files.iter().find(|way| way.path == file.path);
                let Some(way) = way else {
                    return Err(sender.odd(&url, format!("it says nothing of {}", file.path)));
                };
                if way.should_ignore {
                    let file = file.path.clone();
                    return Err(Error::Ignored { repo: sender.repo.boxed(), file });
                }
                match way.upload_mode.as_str() {
                    "lfs" => large.push(true),
                    "regular" => large.push(false),
                    other => return Err(sender.odd(&url, format!("{other:?} is no way to send"))),
                }
            }
        }
        Ok(large)
    }

    /// Lines of JSON: the header, small files whole, large ones by their hash, and what goes away.
    fn commit_body(
        &self,
        sender: &Sender,
        there: &Listing,
        change: &Change,
        large: &[&Prepared],
        small: &[&Prepared],
    ) -> Result<Vec<u8>> {
        let size: u64 = small.iter().map(|file| file.size).sum();
        if INLINE_LIMIT < size {
            let (repo, limit) = (sender.repo.boxed(), INLINE_LIMIT);
            return Err(Error::InlineTooLarge { repo, size, limit });
        }
        let mut lines = vec![json!({ "key": "header", "value": {
            "summary": change.summary, "description": change.description, "parentCommit": there.commit,
        }})];
        for file in small {
            let bytes = fs::read(&file.place).map_err(Error::unreadable(&file.place))?;
            if format!("{:x}", sha2::Sha256::digest(&bytes)) != file.sha256 {
                return Err(Error::Changed { path: file.place.clone() });
            }
            let content = STANDARD.encode(bytes);
            lines.push(json!({ "key": "file", "value": {
                "path": file.path, "encoding": "base64", "content": content,
            }}));
        }
        for file in large {
            lines.push(json!({ "key": "lfsFile", "value": {
                "path": file.path, "algo": "sha256", "oid": file.sha256, "size": file.size,
            }}));
        }
        for path in change.removed {
            lines.push(json!({ "key": "deletedFile", "value": { "path": path } }));
        }
        let lines: String = lines.iter().map(|line| line.to_string() + "\n").collect();
        Ok(lines.into_bytes())
    }
}
