//! The crate against the local hub, faults included. Skipped, and said so, where that isn't present.
mod local_hub;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use local_hub::LocalHub;
use lowchurn_hub::{Digest, Error, Event, Hub, Kind, Listing, Origin, RemoteFile, Repo};

const TRAIN: &str = "sst2/train-00000-of-00001.parquet";
const VALIDATION: &str = "sst2/validation-00000-of-00001.parquet";
const README: &str = "README.md";

fn hub(endpoint: &str, home: &Path, more: &[(&str, &str)]) -> Hub {
    let home = home.to_str().unwrap();
    let mut vars = vec![("HF_ENDPOINT", endpoint), ("HF_HOME", home)];
    vars.extend(more);
    Hub::from_vars(&|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string()))
        .unwrap()
}

fn glue() -> Repo {
    Repo::parse(Kind::Dataset, "nyu-mll/glue").unwrap()
}

fn names(paths: &[&str]) -> Vec<String> {
    paths.iter().map(|path| path.to_string()).collect()
}

fn get(hub: &Hub, repo: &Repo, paths: &[&str]) -> (Listing, PathBuf, Vec<String>) {
    let mut events = Vec::new();
    let listing = hub.list(repo, &mut |event| events.push(format!("{event:?}"))).unwrap();
    let folder = hub
        .fetch(repo, &listing, &names(paths), &mut |event| match event {
            Event::Bytes { .. } => {}
            event => events.push(format!("{event:?}")),
        })
        .unwrap();
    (listing, folder, events)
}

fn same_bytes(folder: &Path, repo: &str, path: &str) {
    let served = local_hub::folder().join("datasets").join(repo).join(path);
    let (ours, theirs) =
        (std::fs::read(folder.join(path)).unwrap(), std::fs::read(served).unwrap());
    assert!(ours == theirs, "{path}: {} bytes, served {}", ours.len(), theirs.len());
}

#[test]
fn lists_fetches_and_does_not_fetch_again() {
    let Some(server) = LocalHub::start(&[], &[]) else { return };
    let home = tempfile::tempdir().unwrap();
    let hub = hub(&server.endpoint, home.path(), &[]);
    let (listing, folder, events) = get(&hub, &glue(), &[README, TRAIN, VALIDATION]);
    assert_eq!(listing.origin, Origin::Hub);
    assert_eq!(listing.file(TRAIN).unwrap().size, 3_110_468);
    assert!(matches!(listing.file(TRAIN).unwrap().digest, Some(Digest::Sha256(_))));
    assert!(matches!(listing.file(README).unwrap().digest, Some(Digest::Git(_))));
    for path in [README, TRAIN, VALIDATION] {
        same_bytes(&folder, "nyu-mll/glue", path);
    }
    assert_eq!(events.iter().filter(|e| e.starts_with("Done")).count(), 3);
    assert_eq!(server.requests("/resolve/"), 3);

    // The layout that the Python clients read.
    let repo_dir = home.path().join("hub/datasets--nyu-mll--glue");
    assert_eq!(std::fs::read_to_string(repo_dir.join("refs/main")).unwrap(), listing.commit);
    assert_eq!(folder, repo_dir.join("snapshots").join(&listing.commit));
    let sha = listing.file(TRAIN).unwrap().digest.as_ref().unwrap().hex().to_owned();
    assert!(repo_dir.join("blobs").join(&sha).is_file());
    #[cfg(unix)]
    assert_eq!(
        std::fs::read_link(folder.join(TRAIN)).unwrap(),
        Path::new("../../../blobs").join(&sha)
    );

    let (_, again, events) = get(&hub, &glue(), &[README, TRAIN, VALIDATION]);
    assert_eq!((again, events), (folder.clone(), vec![]));
    assert_eq!(server.requests("/resolve/"), 3, "the second run downloads nothing");
    assert_eq!(server.requests("/"), 3 + 2 * 2, "two questions a listing, one request a file");
    let at_commit = glue().at(&listing.commit).unwrap();
    let (there, again, _) = get(&hub, &at_commit, &[README, TRAIN, VALIDATION]);
    assert_eq!((there.files, again), (listing.files.clone(), folder.clone()));
    assert_eq!(server.requests("/"), 3 + 2 * 2, "a commit never changes: nothing is asked");

    // Without links in the snapshot the blobs serve; a blob of the wrong size doesn't.
    std::fs::remove_file(folder.join(TRAIN)).unwrap();
    std::fs::remove_file(folder.join(README)).unwrap();
    std::fs::write(repo_dir.join("blobs").join(&sha), b"an error page").unwrap();
    get(&hub, &glue(), &[README, TRAIN]);
    same_bytes(&folder, "nyu-mll/glue", TRAIN);
    same_bytes(&folder, "nyu-mll/glue", README);
    assert_eq!(server.requests("/resolve/"), 4);
}

#[test]
fn goes_on_after_a_cut() {
    let Some(server) = LocalHub::start(&["cut:100000"], &[]) else { return };
    let home = tempfile::tempdir().unwrap();
    let (_, folder, events) =
        get(&hub(&server.endpoint, home.path(), &[]), &glue(), &[TRAIN, VALIDATION]);
    same_bytes(&folder, "nyu-mll/glue", TRAIN);
    same_bytes(&folder, "nyu-mll/glue", VALIDATION);
    let cuts: Vec<_> = events.iter().filter(|e| e.starts_with("Retrying")).collect();
    assert_eq!(cuts.len(), 1, "{events:#?}");
    // 200 for each first request, 206 for what was left of the long file.
    assert_eq!(server.requests("/resolve/"), 3);
    assert_eq!(server.requests("\" 206 "), 1);
}

#[test]
fn goes_on_from_the_leftover_of_an_earlier_run() {
    let Some(server) = LocalHub::start(&[], &[]) else { return };
    let served =
        std::fs::read(local_hub::folder().join("datasets/nyu-mll/glue").join(TRAIN)).unwrap();
    let size = served.len();
    // (leftover, requests, answered with a part)
    let longer = [served.as_slice(), b"and more"].concat();
    let rows: &[(&[u8], usize, usize)] = &[
        (&served[..size / 2], 1, 1),
        (&served, 0, 0),
        (&longer, 1, 0),
        // Wrong bytes: found out at the end, then once more from the start.
        (&[7; 100_000], 2, 1),
    ];
    for (row, (leftover, requests, parts)) in rows.iter().enumerate() {
        let home = tempfile::tempdir().unwrap();
        let hub = hub(&server.endpoint, home.path(), &[]);
        let listing = hub.list(&glue(), &mut |_| ()).unwrap();
        let sha = listing.file(TRAIN).unwrap().digest.as_ref().unwrap().hex();
        let blobs = home.path().join("hub/datasets--nyu-mll--glue/blobs");
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(blobs.join(format!("{sha}.incomplete")), leftover).unwrap();
        let before = (server.requests("/resolve/"), server.requests("\" 206 "));
        let folder = hub.fetch(&glue(), &listing, &names(&[TRAIN]), &mut |_| ()).unwrap();
        same_bytes(&folder, "nyu-mll/glue", TRAIN);
        let after = (server.requests("/resolve/"), server.requests("\" 206 "));
        assert_eq!((after.0 - before.0, after.1 - before.1), (*requests, *parts), "row {row}");
        assert_eq!(
            std::fs::read_dir(&blobs).unwrap().count(),
            1,
            "row {row}: the blob alone is left"
        );
    }
}

#[test]
fn waits_for_a_busy_hub() {
    for (fault, reason, wait) in [
        ("503:3", "status 503", Duration::from_millis(500)),
        ("429:3", "status 429", Duration::from_secs(1)),
    ] {
        let Some(server) = LocalHub::start(&[fault], &[]) else { return };
        let home = tempfile::tempdir().unwrap();
        let hub = hub(&server.endpoint, home.path(), &[]);
        let listing = hub.list(&glue(), &mut |_| ()).unwrap();
        let mut seen = Vec::new();
        let wanted = names(&[README, TRAIN, VALIDATION]);
        let folder = hub
            .fetch(&glue(), &listing, &wanted, &mut |event| {
                if let Event::Retrying { what, reason, wait } = event {
                    seen.push((what.to_owned(), reason, wait));
                }
            })
            .unwrap();
        same_bytes(&folder, "nyu-mll/glue", TRAIN);
        assert_eq!(seen[0], (README.to_owned(), reason.to_owned(), wait), "{fault}");
    }
}

#[test]
fn wrong_bytes_are_refused_and_deleted() {
    let Some(server) = LocalHub::start(&["corrupt"], &[]) else { return };
    let home = tempfile::tempdir().unwrap();
    let hub = hub(&server.endpoint, home.path(), &[]);
    let repo = Repo::parse(Kind::Dataset, "stanfordnlp/imdb").unwrap();
    let path = "plain_text/test-00000-of-00001.parquet";
    let listing = hub.list(&repo, &mut |_| ()).unwrap();
    let error = hub.fetch(&repo, &listing, &names(&[README, path]), &mut |_| ()).unwrap_err();
    let Error::WrongHash { file, expected, found, .. } = &error else { panic!("{error}") };
    assert_eq!(file, path);
    assert_eq!(*expected, listing.file(path).unwrap().digest.as_ref().unwrap().to_string());
    assert!(found.starts_with("sha256 ") && found != expected);
    let repo_dir = home.path().join("hub/datasets--stanfordnlp--imdb");
    let blobs: Vec<_> = std::fs::read_dir(repo_dir.join("blobs")).unwrap().collect();
    assert_eq!(blobs.len(), 1, "only the README is left: {blobs:?}");
    assert!(!repo_dir.join("snapshots").join(&listing.commit).join(path).exists());
    assert!(
        !repo_dir.join("refs").exists(),
        "the revision isn't remembered before its files are right"
    );
}

#[test]
fn without_a_hub() {
    let home = tempfile::tempdir().unwrap();
    let dead = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let cache = home.path().join("hub");
    let ways = "three ways out: a cache (fill it where there is a network, point HF_HOME at it, set \
                HF_HUB_OFFLINE=1), a mirror (HF_ENDPOINT=https://...), or local files (give a folder instead of the id)";
    let error = hub(&dead, home.path(), &[]).list(&glue(), &mut |_| ()).unwrap_err();
    let Error::Unreachable { reason, .. } = &error else { panic!("{error}") };
    assert!(reason.to_lowercase().contains("refused"), "{reason}");
    assert_eq!(
        error.to_string(),
        format!(
            "dataset nyu-mll/glue: the hub at {dead} can't be reached ({reason}), \
             and the cache {} doesn't hold it; {ways}",
            cache.display()
        )
    );
    assert_eq!(error.exit_code(), 4);
    let off = [("HF_HUB_OFFLINE", "yes")];
    let error = hub(&dead, home.path(), &off).list(&glue(), &mut |_| ()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "dataset nyu-mll/glue: HF_HUB_OFFLINE is set, and the cache {} doesn't hold it; \
             unset HF_HUB_OFFLINE, or: {ways}",
            cache.display()
        )
    );

    let Some(server) = LocalHub::start(&[], &[]) else { return };
    let (listing, folder, _) =
        get(&hub(&server.endpoint, home.path(), &[]), &glue(), &[README, VALIDATION]);
    drop(server);
    let at_commit =
        Repo::parse(Kind::Dataset, &format!("nyu-mll/glue@{}", listing.commit)).unwrap();
    for more in [&off[..], &[]] {
        for repo in [&glue(), &at_commit] {
            let (cached, again, _) =
                get(&hub(&dead, home.path(), more), repo, &[README, VALIDATION]);
            assert_eq!(
                (cached.origin, &cached.commit, &again),
                (Origin::Cache, &listing.commit, &folder)
            );
            assert_eq!(cached.files, listing.files, "the hub's listing was kept");
        }
    }
    // A part of a repository isn't taken for the whole: what isn't there is named.
    for (more, reason) in [(&off[..], "HF_HUB_OFFLINE is set"), (&[], "can't be reached")] {
        let hub = hub(&dead, home.path(), more);
        let cached = hub.list(&glue(), &mut |_| ()).unwrap();
        let error = hub.fetch(&glue(), &cached, &names(&[README, TRAIN]), &mut |_| ()).unwrap_err();
        let held = format!("the cache {} doesn't hold {TRAIN}; ", cache.display());
        let text = error.to_string();
        assert!(text.contains(reason) && text.contains(&held), "{text}");
        assert_eq!(error.exit_code(), 4);
    }
    // Python keeps no listing: then the files that are there are all that is known.
    std::fs::remove_dir_all(cache.join("datasets--nyu-mll--glue/.lowchurn")).unwrap();
    let (cached, ..) = get(&hub(&dead, home.path(), &off), &glue(), &[README, VALIDATION]);
    let is_held = |f: &&RemoteFile| [README, VALIDATION].contains(&f.path.as_str());
    let held: Vec<_> = listing.files.iter().filter(is_held).cloned().collect();
    assert_eq!(cached.files, held, "the same sizes and hashes");
}

#[test]
fn a_fetch_that_ends_halfway_is_no_whole_repository() {
    let Some(server) = LocalHub::start(&["corrupt"], &[]) else { return };
    let home = tempfile::tempdir().unwrap();
    let online = hub(&server.endpoint, home.path(), &[]);
    let repo = Repo::parse(Kind::Dataset, "stanfordnlp/imdb").unwrap();
    let wanted = names(&[README, "plain_text/test-00000-of-00001.parquet"]);
    let listing = online.list(&repo, &mut |_| ()).unwrap();
    online.fetch(&repo, &listing, &wanted, &mut |_| ()).unwrap_err();
    let at_commit =
        Repo::parse(Kind::Dataset, &format!("stanfordnlp/imdb@{}", listing.commit)).unwrap();
    let off = hub(&server.endpoint, home.path(), &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(off.list(&at_commit, &mut |_| ()).unwrap().files, listing.files);
}

#[test]
fn damage_in_the_cache_is_noticed() {
    let Some(server) = LocalHub::start(&[], &[]) else { return };
    let home = tempfile::tempdir().unwrap();
    let online = hub(&server.endpoint, home.path(), &[]);
    let off = hub(&server.endpoint, home.path(), &[("HF_HUB_OFFLINE", "1")]);
    let (listing, folder, _) = get(&online, &glue(), &[README, VALIDATION]);
    // A large file and a small one: both ways of hashing.
    for path in [README, VALIDATION] {
        let digest = listing.file(path).unwrap().digest.clone().unwrap();
        let blob = home.path().join("hub/datasets--nyu-mll--glue/blobs").join(digest.hex());
        let flip = || {
            let mut bytes = std::fs::read(&blob).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&blob, bytes).unwrap();
        };
        flip();
        let error = off.fetch(&glue(), &listing, &names(&[path]), &mut |_| ()).unwrap_err();
        let Error::Damaged { file, expected, path: place, .. } = &error else { panic!("{error}") };
        assert_eq!((file.as_str(), expected), (path, &digest.to_string()));
        assert_eq!(**place, *blob.canonicalize().unwrap());
        assert_eq!(error.exit_code(), 4);

        let before = server.requests("/resolve/");
        let (.., events) = get(&online, &glue(), &[README, VALIDATION]);
        same_bytes(&folder, "nyu-mll/glue", path);
        assert_eq!(server.requests("/resolve/") - before, 1);
        assert!(events[0].contains("its bytes in the cache are wrong"), "{events:#?}");
        let (.., events) = get(&online, &glue(), &[README, VALIDATION]);
        assert_eq!((events, server.requests("/resolve/") - before), (vec![], 1));

        // A blob that another snapshot brought is looked at too, and so is a copy that stands for a link.
        flip();
        std::fs::remove_file(folder.join(path)).unwrap();
        get(&online, &glue(), &[path]);
        same_bytes(&folder, "nyu-mll/glue", path);
        std::fs::remove_file(folder.join(path)).unwrap();
        std::fs::write(folder.join(path), vec![0; listing.file(path).unwrap().size as usize])
            .unwrap();
        get(&online, &glue(), &[path]);
        same_bytes(&folder, "nyu-mll/glue", path);
        assert_eq!(server.requests("/resolve/") - before, 2, "the blob was right");
    }
}

#[test]
fn what_is_not_there() {
    let Some(server) = LocalHub::start(&[], &[]) else { return };
    let home = tempfile::tempdir().unwrap();
    let hub = hub(&server.endpoint, home.path(), &[]);
    let check = |kind, text: &str, expected: &str| {
        let error = hub.list(&Repo::parse(kind, text).unwrap(), &mut |_| ()).unwrap_err();
        assert_eq!(
            error.to_string().split(';').next().unwrap(),
            expected.replace("HUB", &server.endpoint)
        );
    };
    check(Kind::Dataset, "nyu-mll/gleu", "dataset nyu-mll/gleu: not found at HUB (404)");
    check(Kind::Model, "nyu-mll/glue", "model nyu-mll/glue: not found at HUB (404)");
    check(
        Kind::Dataset,
        "nyu-mll/glue@v7",
        "dataset nyu-mll/glue@v7: nyu-mll/glue has no revision \"v7\" at HUB (404)",
    );
    let listing = hub.list(&glue(), &mut |_| ()).unwrap();
    let error = hub
        .fetch(&glue(), &listing, &names(&["sst2/validation.parquet"]), &mut |_| ())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "dataset nyu-mll/glue: no file \"sst2/validation.parquet\"; there are {}, the nearest name is \"{VALIDATION}\"",
            listing.files.len()
        )
    );
}

#[test]
fn reads_the_converted_branch() {
    let Some(server) = LocalHub::start(&[], &[]) else { return };
    let home = tempfile::tempdir().unwrap();
    let repo = Repo::parse(Kind::Dataset, "nyu-mll/glue@refs/convert/parquet").unwrap();
    let (listing, ..) = get(&hub(&server.endpoint, home.path(), &[]), &repo, &[VALIDATION]);
    let noted = home.path().join("hub/datasets--nyu-mll--glue/refs/refs/convert/parquet");
    assert_eq!(std::fs::read_to_string(noted).unwrap(), listing.commit);
    let off = hub(&server.endpoint, home.path(), &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(off.list(&repo, &mut |_| ()).unwrap().commit, listing.commit);
}

#[test]
fn two_share_a_cache() {
    let Some(server) = LocalHub::start(&["slow:20"], &[]) else { return };
    let home = tempfile::tempdir().unwrap();
    let runs: Vec<_> = (0..4)
        .map(|_| {
            let hub = hub(&server.endpoint, home.path(), &[]);
            thread::spawn(move || get(&hub, &glue(), &[TRAIN]).1)
        })
        .collect();
    for run in runs {
        same_bytes(&run.join().unwrap(), "nyu-mll/glue", TRAIN);
    }
    assert_eq!(server.requests("/resolve/"), 1, "one downloads, the others wait for it");
}
