//! Names: repository ids, revisions, paths, commits. Text from the user or the hub → checked names that can't
//! leave their folder. Knows no network and no disk.

use std::fmt;

use crate::error::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Model,
    Dataset,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Model => "model",
            Kind::Dataset => "dataset",
        })
    }
}

/// A repository at a revision. The fields are private because they are checked: made only by [`Repo::parse`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repo {
    kind: Kind,
    id: String,
    revision: String,
}

impl Repo {
    /// `owner/name`, or `name` alone for the oldest models, with `@revision` behind it or not (then `main`).
    /// The rules are those of `validate_repo_id` in huggingface_hub, held to ASCII.
    pub fn parse(kind: Kind, text: &str) -> Result<Repo> {
        let (id, revision) = text.split_once('@').unwrap_or((text, "main"));
        let bad = |why| Error::BadId { kind, id: id.to_owned(), why };
        let parts: Vec<&str> = id.split('/').collect();
        if parts.len() > 2 {
            return Err(bad("it has more than one slash"));
        }
        for part in parts {
            let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
            match part.as_bytes() {
                [] => return Err(bad("a part is empty")),
                bytes if 96 < bytes.len() => {
                    return Err(bad("a part is longer than 96 characters"));
                }
                bytes if !bytes.iter().all(|&b| word(b) || b == b'-' || b == b'.') => {
                    return Err(bad("only letters, digits, '-', '_' and '.' are allowed"));
                }
                [first, .., last] if !word(*first) || !word(*last) => {
                    return Err(bad("a part starts or ends with '-' or '.'"));
                }
                [one] if !word(*one) => return Err(bad("a part starts or ends with '-' or '.'")),
                _ => {}
            }
        }
        if id.contains("..") || id.contains("--") {
            return Err(bad("'..' and '--' are not allowed"));
        }
        if id.ends_with(".git") {
            return Err(bad("it ends in '.git'"));
        }
        if let Err(why) = check_revision(revision) {
            return Err(Error::BadRevision {
                id: id.to_owned(),
                revision: revision.to_owned(),
                why,
            });
        }
        Ok(Repo { kind, id: id.to_owned(), revision: revision.to_owned() })
    }

    /// The same repository at another revision.
    pub fn at(&self, revision: &str) -> Result<Repo> {
        Repo::parse(self.kind, &format!("{}@{revision}", self.id))
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// Not at a branch or tag, which move.
    pub fn is_at_commit(&self) -> bool {
        is_commit(&self.revision)
    }

    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// Path of its page behind the endpoint: `owner/name`, `datasets/owner/name`.
    pub fn address(&self) -> String {
        self.named().url()
    }

    /// For errors, which are returned by value and should stay small.
    pub(crate) fn boxed(&self) -> Box<Repo> {
        Box::new(self.clone())
    }

    /// The same repository in hf-hub's words, which know the names of folders and addresses.
    pub(crate) fn named(&self) -> hf_hub::Repo {
        let kind = match self.kind {
            Kind::Model => hf_hub::RepoType::Model,
            Kind::Dataset => hf_hub::RepoType::Dataset,
        };
        hf_hub::Repo::with_revision(self.id.clone(), kind, self.revision.clone())
    }
}

/// `model owner/name`, with `@revision` where it isn't main.
impl fmt::Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.revision.as_str() {
            "main" => write!(f, "{} {}", self.kind, self.id),
            revision => write!(f, "{} {}@{revision}", self.kind, self.id),
        }
    }
}

/// A full commit: 40 lower-case hex digits.
pub(crate) fn is_commit(text: &str) -> bool {
    is_hex(text, 40)
}

pub(crate) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Holds a path that the hub names inside its folder; the error says why not.
pub(crate) fn check_path(path: &str) -> std::result::Result<(), &'static str> {
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("it leaves its folder, or has an empty part");
    }
    if path.chars().any(char::is_control) {
        return Err("it has control characters");
    }
    if cfg!(windows) && path.contains(['\\', ':']) {
        return Err("it has '\\' or ':', which would leave its folder on Windows");
    }
    Ok(())
}

/// For an address: everything but unreserved characters and those in `keep` becomes %XX.
pub(crate) fn percent(text: &str, keep: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b if b.is_ascii_alphanumeric()
                || b"-._~".contains(&b)
                || keep.as_bytes().contains(&b) =>
            {
                out.push(b as char);
            }
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

/// Git's rules for a name, as far as they keep the address and `refs/REVISION` on disk safe.
fn check_revision(revision: &str) -> std::result::Result<(), &'static str> {
    check_path(revision)?;
    match revision.contains("..") || revision.contains([' ', '\\', ':', '~', '^', '?', '*', '[']) {
        true => Err("it has characters that git allows in no name"),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids() {
        let check = |text: &str, expected: std::result::Result<(&str, &str), &str>| match (
            Repo::parse(Kind::Model, text),
            expected,
        ) {
            (Ok(repo), Ok(pair)) => assert_eq!((repo.id(), repo.revision()), pair),
            (Err(Error::BadId { why, .. } | Error::BadRevision { why, .. }), Err(part)) => {
                assert!(why.contains(part), "{text}: {why}");
            }
            (got, expected) => panic!("{text}: {got:?}, expected {expected:?}"),
        };
        check("nyu-mll/glue", Ok(("nyu-mll/glue", "main")));
        check("bert-base-uncased", Ok(("bert-base-uncased", "main")));
        check("a/b", Ok(("a/b", "main")));
        check("_a/b_.c-1", Ok(("_a/b_.c-1", "main")));
        check("a/b@v1.0", Ok(("a/b", "v1.0")));
        check("a/b@refs/convert/parquet", Ok(("a/b", "refs/convert/parquet")));
        check(&"n".repeat(96), Ok((&"n".repeat(96), "main")));
        check(&"n".repeat(97), Err("longer than 96"));
        check("a/b/c", Err("more than one slash"));
        check("", Err("empty"));
        check("/b", Err("empty"));
        check("a/", Err("empty"));
        check("../b", Err("starts or ends"));
        check("a/..", Err("starts or ends"));
        check("a/.", Err("starts or ends"));
        check("-a/b", Err("starts or ends"));
        check("a/b.", Err("starts or ends"));
        check("a/b..c", Err("'..'"));
        check("a/b--c", Err("'..'"));
        check("a/b.git", Err(".git"));
        check("a/b c", Err("only letters"));
        check("a\\b", Err("only letters"));
        check("ä/b", Err("only letters"));
        check("a/b@", Err("empty part"));
        check("a/b@../x", Err("leaves its folder"));
        check("a/b@/etc", Err("leaves its folder"));
        check("a/b@x..y", Err("git allows"));
        check("a/b@x y", Err("git allows"));
        check("a/b@x\n", Err("control"));
    }

    #[test]
    fn paths() {
        let check =
            |path: &str, expected: bool| assert_eq!(check_path(path).is_ok(), expected, "{path:?}");
        check("README.md", true);
        check("data/train-00000-of-00001.parquet", true);
        check("a..b/...", true);
        check(".gitattributes", true);
        check("../x", false);
        check("a/../../x", false);
        check("/etc/passwd", false);
        check("a//b", false);
        check("./a", false);
        check("a/", false);
        check("", false);
        check("a\0b", false);
        check("C:\\x", !cfg!(windows));
    }

    #[test]
    fn addresses() {
        let model = Repo::parse(Kind::Model, "a/b").unwrap();
        let dataset = Repo::parse(Kind::Dataset, "a/b@refs/convert/parquet").unwrap();
        assert_eq!((model.address(), model.to_string()), ("a/b".into(), "model a/b".into()));
        assert_eq!(dataset.address(), "datasets/a/b");
        assert_eq!(dataset.to_string(), "dataset a/b@refs/convert/parquet");
        assert_eq!(percent("refs/convert/parquet", ""), "refs%2Fconvert%2Fparquet");
        assert_eq!(percent("a b/ü#?%.txt", "/"), "a%20b/%C3%BC%23%3F%25.txt");
    }

    proptest! {
        #[test]
        fn nothing_escapes(text in ".*") {
            if let Ok(repo) = Repo::parse(Kind::Dataset, &text) {
                let name = repo.named().folder_name();
                prop_assert!(!name.contains(['/', '\\']) && !name.contains(".."));
                prop_assert!(check_path(repo.revision()).is_ok());
            }
            if check_path(&text).is_ok() {
                let path = std::path::Path::new(&text);
                prop_assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
            }
        }
    }
}
