//! What can go wrong between a hub id and a folder. Every variant means exit code 4 to the binary, but for
//! ids, revisions and names of files, which are slips in what the user typed; see [`Error::exit_code`].
//! No variant carries the token.

use std::io;
use std::path::{Path, PathBuf};

use crate::repo::{Kind, Repo};

pub type Result<T> = std::result::Result<T, Error>;

/// The three ways out where the network doesn't help.
const WAYS_OUT: &str = "three ways out: a cache (fill it where there is a network, point HF_HOME at it, set \
HF_HUB_OFFLINE=1), a mirror (HF_ENDPOINT=https://...), or local files (give a folder instead of the id)";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "\"{id}\" is not a {kind} id: {why}; expected owner/name, as in the address on the hub"
    )]
    BadId { kind: Kind, id: String, why: &'static str },

    #[error(
        "\"{revision}\" is not a revision of {id}: {why}; expected a branch, a tag or a commit"
    )]
    BadRevision { id: String, revision: String, why: &'static str },

    #[error("{name} is not usable: {why}; expected {expected}")]
    BadVariable { name: &'static str, why: &'static str, expected: &'static str },

    #[error(
        "no place for downloads: neither HF_HOME, HF_HUB_CACHE, XDG_CACHE_HOME nor HOME is set; set HF_HOME to a folder"
    )]
    NoCache,

    #[error("{repo}: the hub at {endpoint} can't be reached ({reason}), and the cache {} doesn't hold {}; {WAYS_OUT}",
        cache.display(), file.as_deref().unwrap_or("it"))]
    Unreachable {
        repo: Box<Repo>,
        endpoint: String,
        reason: String,
        file: Option<Box<str>>,
        cache: PathBuf,
    },

    #[error("{repo}: HF_HUB_OFFLINE is set, and the cache {} doesn't hold {}; unset HF_HUB_OFFLINE, or: {WAYS_OUT}",
        cache.display(), file.as_deref().unwrap_or("it"))]
    Offline { repo: Box<Repo>, file: Option<String>, cache: PathBuf },

    #[error(
        "{repo}: the hub at {endpoint} answers {status} again and again; try later, or: {WAYS_OUT}"
    )]
    Busy { repo: Box<Repo>, endpoint: String, status: u16 },

    #[error("{repo}: not found at {endpoint} (404); check owner and name, and that it is a {} there; \
        a private repository looks the same without a token that may read it (HF_TOKEN)", repo.kind())]
    NoRepo { repo: Box<Repo>, endpoint: String },

    #[error("{repo}: {} has no revision \"{}\" at {endpoint} (404); check the branch, tag or commit, or leave it out for main",
        repo.id(), repo.revision())]
    NoRevision { repo: Box<Repo>, endpoint: String },

    #[error("{repo}: no file \"{file}\"; there are {count}{}", nearest.as_ref().map(|name| format!(", the nearest name is \"{name}\"")).unwrap_or_default())]
    NoFile { repo: Box<Repo>, file: String, count: usize, nearest: Option<String> },

    #[error("{repo}: the hub at {endpoint} wants a token ({status}): the repository is gated or private, or the id is wrong; \
        check the id, ask for access at {endpoint}/{}, then set HF_TOKEN", repo.address())]
    NeedsToken { repo: Box<Repo>, endpoint: String, status: u16 },

    #[error("{repo}: the hub at {endpoint} refuses the token ({status}); check that it is valid ({endpoint}/settings/tokens), \
        that it may read this repository, and that access was granted at {endpoint}/{}", repo.address())]
    TokenRefused { repo: Box<Repo>, endpoint: String, status: u16 },

    #[error("{repo}: {url} answers {status}, expected 200; check HF_ENDPOINT")]
    Status { repo: Box<Repo>, url: String, status: u16 },

    #[error("{repo}: {url} doesn't answer as a hub does: {why}; check HF_ENDPOINT")]
    BadReply { repo: Box<Repo>, url: String, why: String },

    #[error("{repo}: the hub names the file {path:?}, which is refused: {why}")]
    BadPath { repo: Box<Repo>, path: String, why: &'static str },

    #[error(
        "{repo}: {file}: {found} bytes arrive, expected {expected}; nothing was kept, try again or use another HF_ENDPOINT"
    )]
    WrongSize { repo: Box<Repo>, file: String, expected: u64, found: u64 },

    #[error(
        "{repo}: {file}: wrong content, expected {expected}, found {found}; the bytes were deleted, try again or use another HF_ENDPOINT"
    )]
    WrongHash { repo: Box<Repo>, file: String, expected: String, found: String },

    #[error("{repo}: {file}: wrong content in the cache, expected {expected}, found {found}, and HF_HUB_OFFLINE is set; \
        unset it to fetch the file again, or put a right one at {}", path.display())]
    Damaged { repo: Box<Repo>, file: String, expected: String, found: String, path: Box<Path> },

    #[error("{repo}: {} is not a listing of the hub: {why}; delete it, then try again where the hub can be reached", path.display())]
    BadKept { repo: Box<Repo>, path: PathBuf, why: String },

    #[error(
        "{repo}: {file}: the download broke off at {have} of {size} bytes ({reason}); run the same command again, it goes on from there"
    )]
    BrokenOff { repo: Box<Repo>, file: String, have: u64, size: u64, reason: String },

    #[error(
        "{repo}: publishing needs a token, and there is none; make one that may write at {endpoint}/settings/tokens, \
        then set HF_TOKEN or write it to the file token in HF_HOME"
    )]
    NoToken { repo: Box<Repo>, endpoint: String },

    #[error("{repo}: HF_HUB_OFFLINE is set, so nothing can be published; unset it")]
    OfflineUpload { repo: Box<Repo> },

    #[error(
        "{repo}: a commit can't be written to; name a branch after the @, or leave it out for main"
    )]
    CommitIsFixed { repo: Box<Repo> },

    #[error(
        "{repo}: the hub at {endpoint} refuses {what} with {status}{said}; check that the token is valid and may write \
        to this owner's repositories: {endpoint}/settings/tokens"
    )]
    WriteRefused {
        repo: Box<Repo>,
        endpoint: String,
        what: String,
        status: u16,
        /// The hub's words, in brackets.
        said: String,
    },

    #[error(
        "{repo}: the hub at {endpoint} refuses {what} with {status}{said}; nothing was published"
    )]
    UploadRefused { repo: Box<Repo>, endpoint: String, what: String, status: u16, said: String },

    #[error(
        "{repo}: the hub at {endpoint} sends {what} on to another address ({status}), and nothing is sent there; if the \
        repository was renamed, give its new name"
    )]
    SentOn { repo: Box<Repo>, endpoint: String, what: String, status: u16 },

    #[error(
        "{repo}: the hub at {endpoint} answers {what} with {status} again and again; run the same command later, it goes \
        on from what is there"
    )]
    UploadBusy { repo: Box<Repo>, endpoint: String, what: String, status: u16 },

    #[error(
        "{repo}: the line to {endpoint} broke at {what} ({reason}); run the same command again, it goes on from what is \
        there"
    )]
    UploadBroken { repo: Box<Repo>, endpoint: String, what: String, reason: String },

    #[error(
        "{repo}: somebody else has written to it meanwhile (it was at {expected}); nothing was published; look at what is \
        there now, then run the same command again"
    )]
    Moved { repo: Box<Repo>, expected: String },

    #[error(
        "{repo}: its .gitignore leaves out {file}; take that line away, or nothing can be published whole"
    )]
    Ignored { repo: Box<Repo>, file: String },

    #[error(
        "{repo}: the hub wants {size} bytes inside the commit, and at most {limit} are sent so; it doesn't take large files \
        the way hubs do"
    )]
    InlineTooLarge { repo: Box<Repo>, size: u64, limit: u64 },

    #[error(
        "{repo}: {file} at {commit} isn't what was sent: expected sha256 {expected}, found sha256 {found}; publish again, and look \
        at what lies between here and the hub"
    )]
    NotAsSent { repo: Box<Repo>, file: String, commit: String, expected: String, found: String },

    #[error("{path:?} can't be published: {why}")]
    UploadPath { path: String, why: &'static str },

    #[error("{}: it holds the token that would publish it; take it out, and make a new token if it was ever shown", path.display())]
    HoldsToken { path: PathBuf },

    #[error("{}: it changed while it was being published, so nothing was; wait until nobody writes to it, then run the same \
        command again", path.display())]
    Changed { path: PathBuf },

    #[error("{}: can't be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },

    #[error("{}: {source}; check space and rights, or set HF_HOME to another folder", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl Error {
    /// Exit code for the binary: 2 for an id or revision that can't be one, 4 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::BadId { .. }
            | Error::BadRevision { .. }
            | Error::CommitIsFixed { .. }
            | Error::UploadPath { .. } => 2,
            _ => 4,
        }
    }

    pub(crate) fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Unreadable { path, source }
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io { path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let repo = Repo::parse(Kind::Model, "a/b@v1").unwrap().boxed();
        let repo = || repo.clone();
        let hub = || "https://hub".to_owned();
        let file = || "w.bin".to_owned();
        let url = || "https://hub/x".to_owned();
        let cache = || PathBuf::from("/c");
        let ways = "three ways out: a cache (fill it where there is a network, point HF_HOME at it, set \
                    HF_HUB_OFFLINE=1), a mirror (HF_ENDPOINT=https://...), or local files (give a folder instead of the id)";
        let check = |error: Error, code: u8, expected: &str| {
            assert_eq!(error.to_string(), expected.replace("WAYS", ways));
            assert_eq!(error.exit_code(), code, "{error}");
        };
        check(
            Error::BadId {
                kind: Kind::Model,
                id: "a/b/c".into(),
                why: "it has more than one slash",
            },
            2,
            "\"a/b/c\" is not a model id: it has more than one slash; expected owner/name, as in the address on the hub",
        );
        check(
            Error::BadRevision {
                id: "a/b".into(),
                revision: "..".into(),
                why: "it leaves its folder",
            },
            2,
            "\"..\" is not a revision of a/b: it leaves its folder; expected a branch, a tag or a commit",
        );
        check(
            Error::Unreachable {
                repo: repo(),
                endpoint: hub(),
                reason: "host not found".into(),
                file: None,
                cache: cache(),
            },
            4,
            "model a/b@v1: the hub at https://hub can't be reached (host not found), and the cache /c doesn't hold it; WAYS",
        );
        check(
            Error::Unreachable {
                repo: repo(),
                endpoint: hub(),
                reason: "host not found".into(),
                file: Some("w.bin".into()),
                cache: cache(),
            },
            4,
            "model a/b@v1: the hub at https://hub can't be reached (host not found), and the cache /c doesn't hold w.bin; WAYS",
        );
        check(
            Error::Offline { repo: repo(), file: Some(file()), cache: cache() },
            4,
            "model a/b@v1: HF_HUB_OFFLINE is set, and the cache /c doesn't hold w.bin; unset HF_HUB_OFFLINE, or: WAYS",
        );
        check(
            Error::Busy { repo: repo(), endpoint: hub(), status: 503 },
            4,
            "model a/b@v1: the hub at https://hub answers 503 again and again; try later, or: WAYS",
        );
        check(
            Error::NoRepo { repo: repo(), endpoint: hub() },
            4,
            "model a/b@v1: not found at https://hub (404); check owner and name, and that it is a model there; \
             a private repository looks the same without a token that may read it (HF_TOKEN)",
        );
        check(
            Error::NoRevision { repo: repo(), endpoint: hub() },
            4,
            "model a/b@v1: a/b has no revision \"v1\" at https://hub (404); check the branch, tag or commit, or leave it out for main",
        );
        check(
            Error::NoFile { repo: repo(), file: file(), count: 0, nearest: None },
            4,
            "model a/b@v1: no file \"w.bin\"; there are 0",
        );
        check(
            Error::NeedsToken { repo: repo(), endpoint: hub(), status: 401 },
            4,
            "model a/b@v1: the hub at https://hub wants a token (401): the repository is gated or private, or the id is wrong; \
             check the id, ask for access at https://hub/a/b, then set HF_TOKEN",
        );
        check(
            Error::TokenRefused { repo: repo(), endpoint: hub(), status: 403 },
            4,
            "model a/b@v1: the hub at https://hub refuses the token (403); check that it is valid (https://hub/settings/tokens), \
             that it may read this repository, and that access was granted at https://hub/a/b",
        );
        check(
            Error::Status { repo: repo(), url: url(), status: 302 },
            4,
            "model a/b@v1: https://hub/x answers 302, expected 200; check HF_ENDPOINT",
        );
        check(
            Error::WrongSize { repo: repo(), file: file(), expected: 5, found: 6 },
            4,
            "model a/b@v1: w.bin: 6 bytes arrive, expected 5; nothing was kept, try again or use another HF_ENDPOINT",
        );
        check(
            Error::WrongHash {
                repo: repo(),
                file: file(),
                expected: "sha256 aa".into(),
                found: "sha256 bb".into(),
            },
            4,
            "model a/b@v1: w.bin: wrong content, expected sha256 aa, found sha256 bb; \
             the bytes were deleted, try again or use another HF_ENDPOINT",
        );
        check(
            Error::Damaged {
                repo: repo(),
                file: file(),
                expected: "sha256 aa".into(),
                found: "sha256 bb".into(),
                path: Path::new("/c/w.bin").into(),
            },
            4,
            "model a/b@v1: w.bin: wrong content in the cache, expected sha256 aa, found sha256 bb, and HF_HUB_OFFLINE is set; \
             unset it to fetch the file again, or put a right one at /c/w.bin",
        );
        check(
            Error::BadKept { repo: repo(), path: "/c/x.json".into(), why: "it is empty".into() },
            4,
            "model a/b@v1: /c/x.json is not a listing of the hub: it is empty; \
             delete it, then try again where the hub can be reached",
        );
        check(
            Error::BrokenOff {
                repo: repo(),
                file: file(),
                have: 3,
                size: 5,
                reason: "io: reset".into(),
            },
            4,
            "model a/b@v1: w.bin: the download broke off at 3 of 5 bytes (io: reset); \
             run the same command again, it goes on from there",
        );
        check(
            Error::NoToken { repo: repo(), endpoint: hub() },
            4,
            "model a/b@v1: publishing needs a token, and there is none; make one that may write at https://hub/settings/tokens, \
             then set HF_TOKEN or write it to the file token in HF_HOME",
        );
        check(
            Error::OfflineUpload { repo: repo() },
            4,
            "model a/b@v1: HF_HUB_OFFLINE is set, so nothing can be published; unset it",
        );
        check(
            Error::CommitIsFixed { repo: repo() },
            2,
            "model a/b@v1: a commit can't be written to; name a branch after the @, or leave it out for main",
        );
        let (what, said) = (|| "the commit".to_owned(), || " (\"no\")".to_owned());
        check(
            Error::WriteRefused {
                repo: repo(),
                endpoint: hub(),
                what: what(),
                status: 403,
                said: said(),
            },
            4,
            "model a/b@v1: the hub at https://hub refuses the commit with 403 (\"no\"); check that the token is valid and may write \
             to this owner's repositories: https://hub/settings/tokens",
        );
        check(
            Error::UploadRefused {
                repo: repo(),
                endpoint: hub(),
                what: what(),
                status: 400,
                said: said(),
            },
            4,
            "model a/b@v1: the hub at https://hub refuses the commit with 400 (\"no\"); nothing was published",
        );
        check(
            Error::SentOn { repo: repo(), endpoint: hub(), what: what(), status: 307 },
            4,
            "model a/b@v1: the hub at https://hub sends the commit on to another address (307), and nothing is sent there; \
             if the repository was renamed, give its new name",
        );
        check(
            Error::UploadBusy { repo: repo(), endpoint: hub(), what: what(), status: 503 },
            4,
            "model a/b@v1: the hub at https://hub answers the commit with 503 again and again; run the same command later, \
             it goes on from what is there",
        );
        check(
            Error::UploadBroken {
                repo: repo(),
                endpoint: hub(),
                what: what(),
                reason: "io: reset".into(),
            },
            4,
            "model a/b@v1: the line to https://hub broke at the commit (io: reset); run the same command again, \
             it goes on from what is there",
        );
        check(
            Error::Moved { repo: repo(), expected: "aa".into() },
            4,
            "model a/b@v1: somebody else has written to it meanwhile (it was at aa); nothing was published; look at what is \
             there now, then run the same command again",
        );
        check(
            Error::Ignored { repo: repo(), file: file() },
            4,
            "model a/b@v1: its .gitignore leaves out w.bin; take that line away, or nothing can be published whole",
        );
        check(
            Error::InlineTooLarge { repo: repo(), size: 9, limit: 5 },
            4,
            "model a/b@v1: the hub wants 9 bytes inside the commit, and at most 5 are sent so; \
             it doesn't take large files the way hubs do",
        );
        check(
            Error::NotAsSent {
                repo: repo(),
                file: file(),
                commit: "cc".into(),
                expected: "aa".into(),
                found: "bb".into(),
            },
            4,
            "model a/b@v1: w.bin at cc isn't what was sent: expected sha256 aa, found sha256 bb; publish again, and look \
             at what lies between here and the hub",
        );
        check(
            Error::UploadPath { path: "../x".into(), why: "it is git's own" },
            2,
            "\"../x\" can't be published: it is git's own",
        );
        check(
            Error::HoldsToken { path: "/r/run.toml".into() },
            4,
            "/r/run.toml: it holds the token that would publish it; take it out, and make a new token if it was ever shown",
        );
        check(
            Error::Changed { path: "/r/w.bin".into() },
            4,
            "/r/w.bin: it changed while it was being published, so nothing was; wait until nobody writes to it, \
             then run the same command again",
        );
        check(
            Error::Unreadable { path: "/r/w.bin".into(), source: io::Error::other("denied") },
            4,
            "/r/w.bin: can't be read: denied",
        );
        check(
            Error::Io { path: "/c/blobs".into(), source: io::Error::other("no space left") },
            4,
            "/c/blobs: no space left; check space and rights, or set HF_HOME to another folder",
        );
    }
}
