//! The hub's last listing of a commit, as it is kept beside the snapshot: [`Listing`] ↔ JSON. Pure. What is read back
//! is checked as strictly as an answer of the hub; what wouldn't be believed when read back isn't written.

use serde::{Deserialize, Serialize};

use crate::listing::{Digest, Listing, Origin, RemoteFile};
use crate::repo::{check_path, is_commit};

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    commit: String,
    files: Vec<KeptFile>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct KeptFile {
    path: String,
    /// Bytes.
    size: u64,
    /// 40 hex digits are git's hash, 64 are SHA-256.
    digest: String,
}

/// `None` where [`from_text`] would refuse the result: a listing made by hand may hold anything.
pub fn to_text(listing: &Listing) -> Option<String> {
    let file = |file: &RemoteFile| {
        let digest = file.digest.as_ref()?.hex().to_owned();
        Some(KeptFile { path: file.path.clone(), size: file.size, digest })
    };
    let files = listing.files.iter().map(file).collect::<Option<Vec<_>>>()?;
    let text = serde_json::to_string(&Kept { commit: listing.commit.clone(), files }).ok()?;
    from_text(&text, &listing.commit).is_ok().then_some(text)
}

/// The listing of `commit`; the error says what is wrong with the text.
pub fn from_text(text: &str, commit: &str) -> Result<Listing, String> {
    let kept: Kept = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if !is_commit(&kept.commit) || kept.commit != commit {
        return Err(format!("it is of commit {:?}", kept.commit));
    }
    let mut files = Vec::with_capacity(kept.files.len());
    for KeptFile { path, size, digest } in kept.files {
        if let Err(why) = check_path(&path) {
            return Err(format!("the file {path:?} is refused: {why}"));
        }
        let Some(digest) = Digest::from_hex(&digest) else {
            return Err(format!("no usable hash for {path:?}"));
        };
        files.push(RemoteFile { path, size, digest: Some(digest) });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Listing { commit: kept.commit, files, origin: Origin::Cache })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COMMIT: &str = "00000000000000000000000000000000000000aa";

    fn text(path: &str, size: &str, digest: &str) -> String {
        format!(
            r#"{{"commit":"{COMMIT}","files":[{{"path":"{path}","size":{size},"digest":"{digest}"}}]}}"#
        )
    }

    #[test]
    fn what_is_refused() {
        let check =
            |text: &str, expected: Result<usize, &str>| match (from_text(text, COMMIT), expected) {
                (Ok(listing), Ok(n)) => {
                    assert_eq!((listing.files.len(), listing.origin), (n, Origin::Cache));
                }
                (Err(why), Err(part)) => assert!(why.contains(part), "{text}: {why}"),
                (got, _) => panic!("{text}: {got:?}"),
            };
        check(&text("a/b", "5", COMMIT), Ok(1));
        check(&text("a/b", "5", &"ab".repeat(32)), Ok(1));
        check(&text("../b", "5", COMMIT), Err("the file \"../b\" is refused: it leaves"));
        check(&text("/etc/passwd", "5", COMMIT), Err("is refused: it leaves"));
        check(&text("a", "5", "../../x"), Err("no usable hash for \"a\""));
        check(&text("a", "5", ""), Err("no usable hash for \"a\""));
        check(&text("a", "-5", COMMIT), Err("invalid value"));
        let other = text("a", "5", COMMIT).replace("aa\",\"files", "ab\",\"files");
        check(&other, Err("it is of commit \"00000000000000000000000000000000000000ab\""));
        check(&text("a", "5", COMMIT)[..60], Err("EOF"));
        check("", Err("EOF"));
    }

    #[test]
    fn there_and_back() {
        let mut listing = from_text(&text("a/b", "5", COMMIT), COMMIT).unwrap();
        assert_eq!(from_text(&to_text(&listing).unwrap(), COMMIT).unwrap(), listing);
        listing.files[0].path = "../b".into();
        assert_eq!(to_text(&listing), None);
        listing.files[0].path = "b".into();
        listing.commit = "../../x".into();
        assert_eq!(to_text(&listing), None);
    }

    proptest! {
        #[test]
        fn never_panics(text in ".*") {
            let _ = from_text(&text, COMMIT);
        }
    }
}
