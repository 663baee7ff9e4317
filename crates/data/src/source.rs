//! Where data comes from, from what a user types: a task name, a dataset of the hub, a folder, a file.
//!
//! Looks at the disk only to tell a folder from a hub id. Refuses what is none of these; fetches nothing.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::table::Format;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `sst2`: a manifest `datasets/sst2.toml`, which the caller finds and gives to `Task::read`.
    Task {
        name: String,
    },
    /// `owner/name[:config][@revision]`; `None` is the repository's own default.
    Hub {
        id: String,
        config: Option<String>,
        revision: Option<String>,
    },
    /// Laid out as a repository of the hub is.
    Folder(PathBuf),
    Files(Vec<PathBuf>),
}

impl Source {
    /// A source, and the split that is named with it: `tickets:later[:100]`, `rows.csv:train[:100]`, `./rows:validation`.
    ///
    /// A path that exists is that path, also with a split behind a colon; then a word is a task, and `owner/name` a dataset of the
    /// hub, whose colon stands before a config. A bare word is always a task, also where a folder of that name lies about: write
    /// `./word` for the folder.
    pub fn parse(text: &str) -> Result<(Source, Option<String>)> {
        if let Some(source) = Source::on_path(text)? {
            return Ok((source, None));
        }
        for (at, _) in text.match_indices(':') {
            let (path, split) = (&text[..at], &text[at + 1..]);
            if let (false, Some(source)) = (split.is_empty(), Source::on_path(path)?) {
                return Ok((source, Some(split.to_owned())));
            }
        }
        let bad = |reason| Error::BadSource { text: text.to_owned(), reason };
        if Path::new(text).extension().is_some_and(is_data_suffix) {
            return Err(bad("there is no such file"));
        }
        if text.starts_with(['/', '.', '~']) || text.contains('\\') {
            return Err(bad("there is no such file or folder"));
        }
        let Some((owner, rest)) = text.split_once('/') else {
            let (name, split) = split_off(text, ':');
            let kinds = "a task name has letters, digits, - and _ only";
            return match is_word(name) && split.is_none_or(|split| !split.is_empty()) {
                true => Ok((Source::Task { name: name.to_owned() }, split.map(str::to_owned))),
                false => Err(on_disk(text).unwrap_or_else(|| bad(kinds))),
            };
        };
        let (rest, revision) = split_off(rest, '@');
        let (name, config) = split_off(rest, ':');
        if !is_repository_part(owner) || !is_repository_part(name) {
            return Err(bad("owner and name have letters, digits, ., - and _ only"));
        }
        if config.is_some_and(str::is_empty)
            || revision.is_some_and(|revision| !is_revision(revision))
        {
            return Err(bad("config or revision is empty or odd"));
        }
        let source = Source::Hub {
            id: format!("{owner}/{name}"),
            config: config.map(str::to_owned),
            revision: revision.map(str::to_owned),
        };
        Ok((source, None))
    }

    fn on_path(text: &str) -> Result<Option<Source>> {
        let path = Path::new(text);
        let looks_like_path =
            text.contains(['/', '\\']) || path.extension().is_some_and(is_data_suffix);
        if looks_like_path && path.is_dir() {
            return Ok(Some(Source::Folder(path.to_owned())));
        }
        if looks_like_path && path.is_file() {
            Format::of(path)?;
            return Ok(Some(Source::Files(vec![path.to_owned()])));
        }
        Ok(None)
    }
}

/// What to do about a word that stands for no task, yet is a folder or file here; `None` where it is neither.
///
/// For callers that found no task of the name `Source::parse` gave them.
pub fn on_disk(text: &str) -> Option<Error> {
    let path = Path::new(text);
    match path.is_dir() {
        true => Some(Error::FolderWord { text: text.to_owned() }),
        false => path.is_file().then(|| Format::of(path).err()).flatten(),
    }
}

fn split_off(text: &str, mark: char) -> (&str, Option<&str>) {
    text.split_once(mark).map_or((text, None), |(before, after)| (before, Some(after)))
}

fn is_data_suffix(suffix: &std::ffi::OsStr) -> bool {
    suffix.to_str().is_some_and(|suffix| Format::of_suffix(suffix).is_some())
}

fn is_word(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

/// The hub's own rule for owner and repository names.
pub(crate) fn is_repository_part(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty()
        && name.len() <= 96
        && name.chars().all(allowed)
        && !name.starts_with('.')
        && !name.contains("..")
}

fn is_revision(revision: &str) -> bool {
    is_repository_part(&revision.replace('/', "-")) && !revision.starts_with('/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sources() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rows.jsonl");
        std::fs::write(&file, "").unwrap();
        let hub = |id: &str, config: Option<&str>, revision: Option<&str>| Source::Hub {
            id: id.to_owned(),
            config: config.map(str::to_owned),
            revision: revision.map(str::to_owned),
        };
        let check_split = |text: &str, source: Source, split: Option<&str>| {
            let expected = (source, split.map(str::to_owned));
            assert_eq!(Source::parse(text).unwrap(), expected);
        };
        let check = |text: &str, expected: Source| check_split(text, expected, None);
        let sst2 = || Source::Task { name: "sst2".into() };
        check("sst2", sst2());
        check_split("sst2:validation[:10%]", sst2(), Some("validation[:10%]"));
        check("nyu-mll/glue", hub("nyu-mll/glue", None, None));
        check("nyu-mll/glue:sst2", hub("nyu-mll/glue", Some("sst2"), None));
        check("a/b:c@refs/convert/parquet", hub("a/b", Some("c"), Some("refs/convert/parquet")));
        check("a/b.c@v1.0", hub("a/b.c", None, Some("v1.0")));
        check(dir.path().to_str().unwrap(), Source::Folder(dir.path().to_owned()));
        check(file.to_str().unwrap(), Source::Files(vec![file.clone()]));
        let (folder, path) = (dir.path().display(), file.display());
        let (of_folder, of_file) =
            (Source::Folder(dir.path().to_owned()), Source::Files(vec![file.clone()]));
        check_split(&format!("{folder}:test"), of_folder, Some("test"));
        check_split(&format!("{path}:train[5:]"), of_file, Some("train[5:]"));
        let odd = dir.path().join("a:b.jsonl");
        std::fs::write(&odd, "").unwrap();
        check(odd.to_str().unwrap(), Source::Files(vec![odd.clone()]));
    }

    #[test]
    fn bad_sources() {
        let check = |text: &str, reason: &str| {
            let kinds = "is neither a task name, nor owner/name[:config][@revision] of a hub dataset, nor a file or folder that exists";
            assert_eq!(
                Source::parse(text).unwrap_err().to_string(),
                format!("{text:?} {kinds} ({reason})")
            );
        };
        check("rows.csv", "there is no such file");
        check("a/rows.csv", "there is no such file");
        check("./nowhere", "there is no such file or folder");
        check("", "a task name has letters, digits, - and _ only");
        check("sst 2", "a task name has letters, digits, - and _ only");
        check("sst2:", "a task name has letters, digits, - and _ only");
        check("a/b/c", "owner and name have letters, digits, ., - and _ only");
        check("a/..", "owner and name have letters, digits, ., - and _ only");
        check("a/b:", "config or revision is empty or odd");
        check("a/b@../x", "config or revision is empty or odd");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rows.xlsx");
        std::fs::write(&file, "").unwrap();
        let expected = "can't tell the format from the suffix \"xlsx\" (expected .parquet, .csv, .tsv, or .jsonl, .ndjson or .json with one object a line)";
        let message = Source::parse(file.to_str().unwrap()).unwrap_err().to_string();
        assert_eq!(message, format!("{}: {expected}", file.display()));
    }

    // Tests run in the crate's own folder, which has `src` and `Cargo.toml`.
    #[test]
    fn words_that_exist_say_what_to_do() {
        let check = |error: Option<Error>, expected: Option<&str>| {
            assert_eq!(error.map(|error| error.to_string()).as_deref(), expected);
        };
        let parsed = |text: &str| Source::parse(text).err();
        let suffix = "can't tell the format from the suffix \"toml\" (expected .parquet, .csv, .tsv, or .jsonl, .ndjson or .json with one object a line)";
        let suffix = format!("Cargo.toml: {suffix}");
        check(on_disk("src"), Some("\"src\" is a folder here: write ./src"));
        check(on_disk("nowhere"), None);
        check(on_disk("Cargo.toml"), Some(&suffix));
        check(parsed("src"), None);
        check(parsed("Cargo.toml"), Some(&suffix));
        let dir = tempfile::Builder::new().prefix("a b ").tempdir_in(".").unwrap();
        let name = dir.path().file_name().unwrap().to_str().unwrap();
        let expected = format!("{name:?} is a folder here: write ./{name}");
        check(parsed(name), Some(&expected));
        assert!(matches!(Source::parse(&format!("./{name}")), Ok((Source::Folder(_), None))));
    }

    proptest! {
        #[test]
        fn never_panics(text in ".*", near in "[a-z./:@~-]{0,20}") {
            let _ = Source::parse(&text);
            let _ = Source::parse(&near);
        }
    }
}
