//! The crate against hubs that answer oddly: refusals, lies about length, ranges not understood, addresses that
//! lead elsewhere. A hub here is a closure on a loopback port.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use lowchurn_hub::{Error, Hub, Kind, Repo};

const COMMIT: &str = "00000000000000000000000000000000000000aa";
/// git's hash of `hello\n`.
const HELLO: &str = "ce013625030ba8dba906f756967f9e9ca394464a";

/// Status line and headers without the empty line, and the body.
type Reply = (String, Vec<u8>);

struct Asked {
    path: String,
    head: String,
}

/// Serves until the test's process ends; each connection carries one request. The list is of all requests' heads.
fn serve(answer: impl Fn(&Asked) -> Reply + Send + 'static) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = String::new();
            let mut lines = BufReader::new(&stream);
            while lines.read_line(&mut head).unwrap_or(0) > 2 {}
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let head = head.to_lowercase();
            seen.lock().unwrap().push(head.clone());
            let (top, body) = answer(&Asked { path, head });
            let _ = write!(stream, "HTTP/1.1 {top}\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(&body);
        }
    });
    (endpoint, heads)
}

fn ok(body: &str) -> Reply {
    (format!("200 OK\r\nContent-Length: {}", body.len()), body.into())
}

/// A repository with the one file `f` of 6 bytes, `hello\n`; `file` answers for its content.
fn one_file(ask: &Asked, file: impl Fn(&Asked) -> Reply) -> Reply {
    match ask.path.as_str() {
        path if path.contains("/revision/") => ok(&format!(r#"{{"sha":"{COMMIT}"}}"#)),
        path if path.contains("/tree/") => {
            ok(&format!(r#"[{{"type":"file","path":"f","size":6,"oid":"{HELLO}"}}]"#))
        }
        _ => file(ask),
    }
}

fn hub(endpoint: &str, home: &Path, token: &str) -> Hub {
    let vars =
        [("HF_ENDPOINT", endpoint), ("HF_HOME", home.to_str().unwrap()), ("HF_TOKEN", token)];
    Hub::from_vars(&|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string()))
        .unwrap()
}

fn repo() -> Repo {
    Repo::parse(Kind::Model, "bert").unwrap()
}

fn fetch(hub: &Hub) -> Result<String, Error> {
    let listing = hub.list(&repo(), &mut |_| ())?;
    let folder = hub.fetch(&repo(), &listing, &["f".to_owned()], &mut |_| ())?;
    Ok(fs::read_to_string(folder.join("f")).unwrap())
}

/// What lies under the cache, but for locks and the kept listing.
fn left(home: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![home.join("hub/models--bert")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true if entry.file_name() == ".lowchurn" => {}
                true => folders.push(entry.path()),
                false => found.push(entry.file_name().into_string().unwrap()),
            }
        }
    }
    found.sort();
    found
}

#[test]
fn lists_that_are_refused() {
    let check = |status: &'static str, body: &'static str, token: &str, expected: &str| {
        let (endpoint, heads) =
            serve(move |_| (format!("{status}\r\nContent-Length: {}", body.len()), body.into()));
        let home = tempfile::tempdir().unwrap();
        let error = hub(&endpoint, home.path(), token).list(&repo(), &mut |_| ()).unwrap_err();
        assert_eq!(
            error.to_string().replace(&endpoint, "HUB").split(';').next().unwrap(),
            expected
        );
        assert!(!format!("{error} {error:?}").contains("hf_secret"), "{error:?}");
        assert_eq!(error.exit_code(), 4);
        heads.lock().unwrap().len()
    };
    let sent = check(
        "401 Unauthorized",
        "",
        "",
        "model bert: the hub at HUB wants a token (401): the repository is gated or private, or the id is wrong",
    );
    assert_eq!(sent, 1, "no use in asking again");
    check(
        "403 Forbidden",
        "",
        "",
        "model bert: the hub at HUB wants a token (403): the repository is gated or private, or the id is wrong",
    );
    check(
        "401 Unauthorized",
        "",
        "hf_secret",
        "model bert: the hub at HUB refuses the token (401)",
    );
    check("403 Forbidden", "", "hf_secret", "model bert: the hub at HUB refuses the token (403)");
    check("404 Not Found", "", "hf_secret", "model bert: not found at HUB (404)");
    check(
        "400 Bad Request",
        "",
        "",
        "model bert: HUB/api/models/bert/revision/main answers 400, expected 200",
    );
    check(
        "200 OK",
        "<html>",
        "",
        "model bert: HUB/api/models/bert/revision/main doesn't answer as a hub does: expected value at line 1 column 1",
    );
    check(
        "200 OK",
        r#"{"sha":"../../../x"}"#,
        "",
        "model bert: HUB/api/models/bert/revision/main doesn't answer as a hub does: \"../../../x\" is not a commit",
    );
    let sent = check(
        "503 Busy\r\nRetry-After: 0",
        "",
        "",
        "model bert: the hub at HUB answers 503 again and again",
    );
    assert_eq!(sent, 5, "bounded");
}

#[test]
fn bodies() {
    let check = |file: fn(&Asked) -> Reply,
                 leftover: Option<&str>,
                 expected: Result<&str, &str>,
                 kept: &[&str]| {
        let (endpoint, _) = serve(move |ask| one_file(ask, file));
        let home = tempfile::tempdir().unwrap();
        if let Some(text) = leftover {
            let blobs = home.path().join("hub/models--bert/blobs");
            fs::create_dir_all(&blobs).unwrap();
            fs::write(blobs.join(format!("{HELLO}.incomplete")), text).unwrap();
        }
        let got = fetch(&hub(&endpoint, home.path(), ""));
        match (got, expected) {
            (Ok(text), Ok(expected)) => assert_eq!(text, expected),
            (Err(error), Err(expected)) => {
                assert_eq!(
                    error.to_string().replace(&endpoint, "HUB").split(';').next().unwrap(),
                    expected
                );
            }
            (got, expected) => panic!("{got:?}, expected {expected:?}"),
        }
        assert_eq!(left(home.path()), kept);
    };
    let whole: &[&str] = &[HELLO, "f", "main"];
    check(|_| ok("hello\n"), None, Ok("hello\n"), whole);
    // No length told.
    check(|_| ("200 OK".into(), "hello\n".into()), None, Ok("hello\n"), whole);
    // The range isn't understood: the whole file comes, and replaces the leftover.
    check(|_| ok("hello\n"), Some("hel"), Ok("hello\n"), whole);
    // Another range than asked for.
    check(
        |ask| match ask.head.contains("range: bytes=") {
            true => (
                "206 Part\r\nContent-Range: bytes 0-5/6\r\nContent-Length: 6".into(),
                "hello\n".into(),
            ),
            false => ok("hello\n"),
        },
        Some("hel"),
        Ok("hello\n"),
        whole,
    );
    check(
        |ask| match ask.head.contains("range: bytes=") {
            true => ("416 Range\r\nContent-Length: 0".into(), vec![]),
            false => ok("hello\n"),
        },
        Some("hel"),
        Ok("hello\n"),
        whole,
    );
    check(|_| ok("hello"), None, Err("model bert: f: 5 bytes arrive, expected 6"), &[]);
    check(
        |_| ok("<html>sign in</html>"),
        None,
        Err("model bert: f: 20 bytes arrive, expected 6"),
        &[],
    );
    check(
        |_| ("200 OK".into(), vec![b'x'; 9]),
        None,
        Err("model bert: f: 9 bytes arrive, expected 6"),
        &[],
    );
    check(
        |_| ok("jello\n"),
        None,
        Err(
            "model bert: f: wrong content, expected git sha1 ce013625030ba8dba906f756967f9e9ca394464a, \
             found git sha1 da643281e874ed4c68c6a5d2217d24f48f575b12",
        ),
        &[],
    );
    check(
        |_| ("404 No\r\nContent-Length: 0".into(), vec![]),
        None,
        Err(
            "model bert: HUB/bert/resolve/00000000000000000000000000000000000000aa/f answers 404, expected 200",
        ),
        &[&format!("{HELLO}.incomplete")],
    );
}

#[test]
fn the_token_stays_with_the_hub() {
    let (elsewhere, foreign) = serve(|_| ok("hello\n"));
    // First on to a path of the same hub, as for a renamed repository, then to another one.
    let (endpoint, own) = serve(move |ask| {
        one_file(ask, |ask| {
            let next = match ask.path.as_str() {
                "/renamed" => format!("{elsewhere}/blob"),
                _ => "/renamed".to_owned(),
            };
            (format!("302 Found\r\nLocation: {next}\r\nContent-Length: 0"), vec![])
        })
    });
    let home = tempfile::tempdir().unwrap();
    let hub = hub(&endpoint, home.path(), "hf_secret");
    assert_eq!(fetch(&hub).unwrap(), "hello\n");
    let own = own.lock().unwrap();
    assert_eq!(own.len(), 4);
    assert!(own.iter().all(|head| head.contains("authorization: bearer hf_secret")));
    let foreign = foreign.lock().unwrap();
    assert_eq!(foreign.len(), 1);
    assert!(!foreign[0].contains("hf_secret"), "{}", foreign[0]);
    assert!(!format!("{hub:?}").contains("hf_secret"));
}

#[test]
fn a_circle_of_addresses_ends() {
    let (endpoint, heads) =
        serve(|_| ("302 Found\r\nLocation: /x\r\nContent-Length: 0".into(), vec![]));
    let home = tempfile::tempdir().unwrap();
    let error = hub(&endpoint, home.path(), "").list(&repo(), &mut |_| ()).unwrap_err();
    assert_eq!(
        error.to_string().replace(&endpoint, "HUB"),
        "model bert: HUB/api/models/bert/revision/main doesn't answer as a hub does: \
         it sends on more than 10 times; check HF_ENDPOINT"
    );
    assert_eq!(heads.lock().unwrap().len(), 10);
}

#[test]
fn pages_are_followed_on_the_same_hub() {
    let entry = |name: &str| {
        ok(&format!(r#"[{{"type":"file","path":"{name}","size":6,"oid":"{HELLO}"}}]"#))
    };
    let (endpoint, _) = serve(move |ask| match ask.path.as_str() {
        path if path.contains("/revision/") => ok(&format!(r#"{{"sha":"{COMMIT}"}}"#)),
        path if path.ends_with("?recursive=true&cursor=b") => entry("a"),
        path if path.ends_with("?recursive=true") => {
            let (top, body) = entry("b");
            let link = "<http://elsewhere.invalid/api/models/bert/tree/x?recursive=true&cursor=b>";
            (format!("{top}\r\nLink: {link}; rel=\"next\""), body)
        }
        _ => ("500 Odd\r\nContent-Length: 0".into(), vec![]),
    });
    let home = tempfile::tempdir().unwrap();
    let listing = hub(&endpoint, home.path(), "").list(&repo(), &mut |_| ()).unwrap();
    let names: Vec<_> = listing.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!((listing.commit.as_str(), names), (COMMIT, vec!["a", "b"]));
}

#[test]
fn a_listing_made_by_hand_is_checked_too() {
    let (endpoint, _) = serve(|ask| one_file(ask, |_| ok("hello\n")));
    let home = tempfile::tempdir().unwrap();
    let hub = hub(&endpoint, home.path(), "");
    let mut listing = hub.list(&repo(), &mut |_| ()).unwrap();
    listing.files[0].path = "../../../../escaped".into();
    let error =
        hub.fetch(&repo(), &listing, &["../../../../escaped".to_owned()], &mut |_| ()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "model bert: the hub names the file \"../../../../escaped\", which is refused: it leaves its folder, or has an empty part"
    );
    assert!(left(home.path()).is_empty());
}

fn offline(home: &Path) -> Hub {
    let vars = [("HF_HOME", home.to_str().unwrap()), ("HF_HUB_OFFLINE", "1")];
    Hub::from_vars(&|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string()))
        .unwrap()
}

#[test]
fn kept_listings_are_not_believed_unchecked() {
    let (endpoint, _) = serve(|ask| one_file(ask, |_| ok("hello\n")));
    let home = tempfile::tempdir().unwrap();
    let online = hub(&endpoint, home.path(), "");
    assert_eq!(fetch(&online).unwrap(), "hello\n");
    let path = home.path().join(format!("hub/models--bert/.lowchurn/{COMMIT}.json"));
    let written = fs::read_to_string(&path).unwrap();
    assert_eq!(
        written,
        format!(r#"{{"commit":"{COMMIT}","files":[{{"path":"f","size":6,"digest":"{HELLO}"}}]}}"#)
    );
    let check = |text: &[u8], why: &str| {
        fs::write(&path, text).unwrap();
        let error = fetch(&offline(home.path())).unwrap_err();
        let expected = format!("model bert: {} is not a listing of the hub: ", path.display());
        let got = error.to_string();
        assert!(got.starts_with(&expected) && got.contains(why), "{got}");
        assert_eq!(error.exit_code(), 4);
        // With the hub it isn't read, and replaced.
        assert_eq!(fetch(&online).unwrap(), "hello\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), written);
        assert_eq!(fetch(&offline(home.path())).unwrap(), "hello\n");
    };
    check(written.replace(r#""f""#, r#""../../../../../x""#).as_bytes(), "it leaves its folder");
    check(written.replace(HELLO, "../../x").as_bytes(), "no usable hash for \"f\"");
    check(written.replace("00aa", "00ab").as_bytes(), "it is of commit");
    check(&written.as_bytes()[..50], "EOF");
    check(b"", "EOF");
    check(b"\xff", "UTF-8");

    // A folder stands where the listing would: nothing is kept, and nothing fails.
    fs::remove_file(&path).unwrap();
    fs::remove_dir(path.parent().unwrap()).unwrap();
    fs::write(path.parent().unwrap(), "").unwrap();
    assert_eq!(fetch(&online).unwrap(), "hello\n");
}
