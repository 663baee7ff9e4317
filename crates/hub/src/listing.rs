//! The hub's answers about a repository → [`Listing`]. Pure: text in, checked listing out. Refuses paths that
//! leave their folder, digests that aren't digests, and replies that aren't a hub's.

use std::fmt;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::repo::{Repo, check_path, is_commit, is_hex};

/// The files of a repository at one commit, in the order of their paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    pub commit: String,
    pub files: Vec<RemoteFile>,
    pub origin: Origin,
}

/// Who answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Hub,
    /// The hub wasn't asked or didn't answer: its last listing of this commit, whose files need not be here, or,
    /// where none was kept, the files that lie in the cache.
    Cache,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    /// Relative, with `/`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// `None` only where a cache without links can't tell.
    pub digest: Option<Digest>,
}

/// Hash of a file's content; its hex digits are the name of the blob in the cache, as in Python's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Digest {
    /// SHA-1 of `blob SIZE\0` and the content: regular files.
    Git(String),
    /// SHA-256 of the content: large files.
    Sha256(String),
}

impl Digest {
    /// By its length: 40 hex digits are git's, 64 are SHA-256.
    pub fn from_hex(hex: &str) -> Option<Digest> {
        match hex {
            _ if is_hex(hex, 40) => Some(Digest::Git(hex.to_owned())),
            _ if is_hex(hex, 64) => Some(Digest::Sha256(hex.to_owned())),
            _ => None,
        }
    }

    pub fn hex(&self) -> &str {
        match self {
            Digest::Git(hex) | Digest::Sha256(hex) => hex,
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Digest::Git(hex) => write!(f, "git sha1 {hex}"),
            Digest::Sha256(hex) => write!(f, "sha256 {hex}"),
        }
    }
}

impl Listing {
    pub fn file(&self, path: &str) -> Option<&RemoteFile> {
        self.files.iter().find(|file| file.path == path)
    }
}

/// The `sha` of a reply to `/api/KIND/ID/revision/REV`.
pub(crate) fn read_commit(repo: &Repo, url: &str, text: &str) -> Result<String> {
    #[derive(Deserialize)]
    struct Info {
        sha: String,
    }
    let bad = |why: String| Error::BadReply { repo: repo.boxed(), url: url.to_owned(), why };
    let info: Info = serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
    match is_commit(&info.sha) {
        true => Ok(info.sha),
        false => Err(bad(format!("{:?} is not a commit", info.sha))),
    }
}

/// The files of one page of `/api/KIND/ID/tree/REV?recursive=true`; folders are left out.
pub(crate) fn read_tree(repo: &Repo, url: &str, text: &str) -> Result<Vec<RemoteFile>> {
    #[derive(Deserialize)]
    struct Entry {
        r#type: String,
        path: String,
        #[serde(default)]
        size: u64,
        #[serde(default)]
        oid: String,
        lfs: Option<Lfs>,
    }
    #[derive(Deserialize)]
    struct Lfs {
        oid: String,
        size: u64,
    }
    let bad = |why: String| Error::BadReply { repo: repo.boxed(), url: url.to_owned(), why };
    let entries: Vec<Entry> = serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
    let mut files = Vec::with_capacity(entries.len());
    for entry in entries.into_iter().filter(|entry| entry.r#type == "file") {
        if let Err(why) = check_path(&entry.path) {
            return Err(Error::BadPath { repo: repo.boxed(), path: entry.path, why });
        }
        let (size, digest) = match &entry.lfs {
            Some(lfs) if is_hex(&lfs.oid, 64) => (lfs.size, Digest::Sha256(lfs.oid.clone())),
            None if is_hex(&entry.oid, 40) => (entry.size, Digest::Git(entry.oid)),
            _ => return Err(bad(format!("no usable hash for {:?}", entry.path))),
        };
        files.push(RemoteFile { path: entry.path, size, digest: Some(digest) });
    }
    Ok(files)
}

/// The query of the next page in a Link header. Only the query: the rest of the address stays ours, so that a
/// reply can't send the token elsewhere and a mirror isn't left for the hub it mirrors.
pub(crate) fn next_page(link: &str) -> Option<&str> {
    link.split('<').find_map(|part| {
        let (address, rest) = part.split_once('>')?;
        let (_, query) = address.split_once('?')?;
        rest.contains("rel=\"next\"").then_some(query)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::repo::Kind;

    const OID: &str = "0123456789012345678901234567890123456789";

    fn repo() -> Repo {
        Repo::parse(Kind::Dataset, "a/b").unwrap()
    }

    #[test]
    fn trees() {
        let sha = "ab".repeat(32);
        let check = |text: String, expected: std::result::Result<&[(&str, u64, &str)], &str>| match (
            read_tree(&repo(), "URL", &text),
            expected,
        ) {
            (Ok(files), Ok(rows)) => {
                let got: Vec<_> = files
                    .iter()
                    .map(|f| (f.path.as_str(), f.size, f.digest.as_ref().unwrap().hex()))
                    .collect();
                assert_eq!(got, rows);
            }
            (Err(error), Err(message)) => assert_eq!(error.to_string(), message),
            (got, _) => panic!("{text}: {got:?}"),
        };
        let file =
            |path: &str| format!(r#"{{"type":"file","path":"{path}","size":5,"oid":"{OID}"}}"#);
        let folder = r#"{"type":"directory","path":"d","oid":"x","size":0}"#;
        let large = format!(
            r#"{{"type":"file","path":"d/w","size":9,"oid":"{OID}","lfs":{{"oid":"{sha}","size":7,"pointerSize":1}},"xetHash":"x"}}"#
        );
        check("[]".into(), Ok(&[]));
        check(format!("[{folder},{},{large}]", file("f")), Ok(&[("f", 5, OID), ("d/w", 7, &sha)]));
        check(
            format!("[{}]", file("../f")),
            Err(
                "dataset a/b: the hub names the file \"../f\", which is refused: it leaves its folder, or has an empty part",
            ),
        );
        check(
            r#"[{"type":"file","path":"f","size":5,"oid":"../../x"}]"#.into(),
            Err(
                "dataset a/b: URL doesn't answer as a hub does: no usable hash for \"f\"; check HF_ENDPOINT",
            ),
        );
        check(
            "<html>".into(),
            Err(
                "dataset a/b: URL doesn't answer as a hub does: expected value at line 1 column 1; check HF_ENDPOINT",
            ),
        );
    }

    #[test]
    fn commits() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(read_commit(&repo(), "URL", text).ok().as_deref(), expected, "{text}");
        };
        check(&format!(r#"{{"sha":"{OID}","siblings":[]}}"#), Some(OID));
        check(r#"{"sha":"../../x"}"#, None);
        check(r#"{"sha":null}"#, None);
        check("{}", None);
    }

    #[test]
    fn pages() {
        let check =
            |link: &str, expected: Option<&str>| assert_eq!(next_page(link), expected, "{link}");
        check(
            r#"<https://h/api/x?recursive=true&cursor=a%3D>; rel="next""#,
            Some("recursive=true&cursor=a%3D"),
        );
        check(r#"<https://h/x?p=1>; rel="prev", <https://h/x?p=3>; rel="next""#, Some("p=3"));
        check(r#"<https://h/x>; rel="next""#, None);
        check("", None);
        check("<<>?", None);
    }

    proptest! {
        #[test]
        fn never_panics(text in ".*") {
            let _ = read_tree(&repo(), "URL", &text);
            let _ = read_commit(&repo(), "URL", &text);
            let _ = next_page(&text);
            let _ = Digest::from_hex(&text);
        }
    }
}
