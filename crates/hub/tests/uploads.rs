//! Publishing: against the local hub with each of its faults (skipped, and said so, where that isn't present), and against
//! hubs made of a closure that refuse, lie, lose answers, or send the token's bearer elsewhere.
mod local_hub;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use local_hub::LocalHub;
use lowchurn_hub::{
    Access, Change, Committed, Error, Event, Hub, Kind, LocalFile, Origin, Prepared, Repo, Target,
};

const TOKEN: &str = "hf_test";
const SECRET: &str = "hf_secret_0123456789";
const COMMIT: &str = "00000000000000000000000000000000000000aa";
const NEXT: &str = "00000000000000000000000000000000000000bb";

/// A file of a repository as it lies there.
fn sent_file(server: &LocalHub, repo: &str, path: &str) -> Option<Vec<u8>> {
    fs::read(server.path(repo, path)).ok()
}

fn hub(endpoint: &str, home: &Path, token: &str) -> Hub {
    let vars =
        [("HF_ENDPOINT", endpoint), ("HF_HOME", home.to_str().unwrap()), ("HF_TOKEN", token)];
    Hub::from_vars(&|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string()))
        .unwrap()
}

fn model(id: &str) -> Repo {
    Repo::parse(Kind::Model, id).unwrap()
}

/// A small and a large file, with bytes that repeat nowhere.
fn files(dir: &Path, seed: u64) -> Vec<LocalFile> {
    let mut x = seed;
    let mut next = || {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (x >> 56) as u8
    };
    let large: Vec<u8> = (0..300_000).map(|_| next()).collect();
    let put = |path: &str, bytes: &[u8]| {
        let place = dir.join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(&place, bytes).unwrap();
        LocalFile { path: path.into(), place }
    };
    vec![
        put("README.md", format!("# {seed}\n").as_bytes()),
        put("sub/a b.json", b"{}"),
        put("model.safetensors", &large),
    ]
}

fn change<'c>(files: &'c [Prepared], removed: &'c [String]) -> Change<'c> {
    Change { files, removed, summary: "s", description: "d", target: Target::Branch }
}

fn publish(
    hub: &Hub,
    repo: &Repo,
    files: &[LocalFile],
    on: &mut dyn FnMut(Event),
) -> Result<Committed, Error> {
    let prepared = hub.prepare(files)?;
    let there = hub.open_for_writing(repo, Access::Public, on)?;
    let committed = hub.commit(repo, &there, &change(&prepared, &[]), on)?;
    hub.verify(repo, &committed, &prepared, on)?;
    Ok(committed)
}

#[test]
fn what_was_sent_comes_back_under_every_fault() {
    let faults: [&[&str]; 6] =
        [&[], &["503:4"], &["429:5"], &["cut:100000"], &["slow:60"], &["503:3", "cut:70000"]];
    for faults in faults {
        let Some(server) = LocalHub::start(faults, &[]) else { return };
        let home = tempfile::tempdir().unwrap();
        let hub = hub(&server.endpoint, home.path(), TOKEN);
        let (repo, mine) = (model("me/x"), files(home.path(), 1));
        let mut retries = 0;
        let first = publish(&hub, &repo, &mine, &mut |event| {
            retries += usize::from(matches!(event, Event::Retrying { .. }));
        });
        let first = first.unwrap_or_else(|error| panic!("{faults:?}: {error}"));
        assert_eq!(first.n_sent, 3, "{faults:?}");
        let is_slow_alone = faults.is_empty() || faults == ["slow:60"];
        assert_eq!(retries == 0, is_slow_alone, "{faults:?}: {retries} retries");
        for file in &mine {
            let sent = fs::read(&file.place).unwrap();
            assert!(
                sent_file(&server, "me/x", &file.path) == Some(sent),
                "{faults:?}: {}",
                file.path
            );
        }
        // Again: nothing is sent, and it is the same commit.
        let again = publish(&hub, &repo, &mine, &mut |_| ()).unwrap();
        assert_eq!((again.n_sent, &again.commit), (0, &first.commit), "{faults:?}");
        // The published id is read back as any other.
        let listing = hub.list(&repo, &mut |_| ()).unwrap();
        assert_eq!(listing.origin, Origin::Hub);
        let wanted = vec!["model.safetensors".to_owned()];
        let folder = hub.fetch(&repo, &listing, &wanted, &mut |_| ()).unwrap();
        let sent = fs::read(&mine[2].place).unwrap();
        assert!(fs::read(folder.join("model.safetensors")).unwrap() == sent, "{faults:?}");
    }
}

#[test]
fn the_next_release_replaces_and_removes_in_one_commit() {
    let Some(server) = LocalHub::start(&[], &[]) else { return };
    let home = tempfile::tempdir().unwrap();
    let hub = hub(&server.endpoint, home.path(), TOKEN);
    let repo = model("me/x");
    publish(&hub, &repo, &files(home.path(), 1), &mut |_| ()).unwrap();
    let second = &files(home.path(), 2)[..1];
    let prepared = hub.prepare(second).unwrap();
    let there = hub.open_for_writing(&repo, Access::Public, &mut |_| ()).unwrap();
    let removed = vec!["sub/a b.json".to_owned()];
    let done = hub.commit(&repo, &there, &change(&prepared, &removed), &mut |_| ()).unwrap();
    assert_eq!(done.n_sent, 1);
    let now = hub.list(&repo, &mut |_| ()).unwrap();
    let names: Vec<&str> = now.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(names, ["README.md", "model.safetensors"]);
    assert_eq!(sent_file(&server, "me/x", "README.md").unwrap(), b"# 2\n");
    // Upon a listing of before: somebody has written since, and nothing is covered up.
    let late = files(home.path(), 3);
    let prepared = hub.prepare(&late).unwrap();
    let error = hub.commit(&repo, &there, &change(&prepared, &[]), &mut |_| ()).unwrap_err();
    assert!(matches!(error, Error::Moved { .. }), "{error}");
    assert_eq!(sent_file(&server, "me/x", "README.md").unwrap(), b"# 2\n");
}

#[test]
fn tokens_that_are_none() {
    let Some(server) = LocalHub::start(&[], &[]) else { return };
    let home = tempfile::tempdir().unwrap();
    let mine = files(home.path(), 1);
    let check = |token: &str, expected: &str| {
        let hub = hub(&server.endpoint, home.path(), token);
        let error = publish(&hub, &model("me/x"), &mine, &mut |_| ()).unwrap_err();
        let said = error.to_string().replace(&server.endpoint, "HUB");
        assert!(said.starts_with(expected), "{said}");
        assert!(token.is_empty() || !format!("{said}{error:?}").contains(token), "{error:?}");
        assert_eq!(error.exit_code(), 4);
    };
    check(
        "",
        "model me/x: publishing needs a token, and there is none; make one that may write at HUB/settings/tokens",
    );
    check(
        "hf_wrong_token",
        "model me/x: the hub at HUB refuses the new repository with 401 (\"Invalid username or password.\"); check that the token",
    );
    assert!(sent_file(&server, "me/x", "README.md").is_none());
}

struct Asked {
    method: String,
    path: String,
    head: String,
    body: Vec<u8>,
}

/// Status line with headers, and the body; `None` breaks the line off.
type Answer = Option<(String, String)>;

/// Serves until the process of the test ends. Gives the endpoint and every request that came.
fn serve(
    answer: impl Fn(&Asked, &str) -> Answer + Send + 'static,
) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (log, own) = (seen.clone(), endpoint.clone());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut head, mut lines) = (String::new(), BufReader::new(&stream));
            while lines.read_line(&mut head).unwrap_or(0) > 2 {}
            let length = head.lines().find_map(|line| {
                line.to_lowercase().strip_prefix("content-length: ")?.trim().parse().ok()
            });
            let mut body = vec![0; length.unwrap_or(0)];
            let is_whole = lines.read_exact(&mut body).is_ok();
            let mut words = head.split(' ');
            let mut word = || words.next().unwrap_or_default().to_owned();
            let asked = Asked { method: word(), path: word(), head, body };
            let short = if is_whole { "" } else { " cut" };
            let text = String::from_utf8_lossy(&asked.body).into_owned();
            log.lock()
                .unwrap()
                .push(format!("{} {}{short}\n{}\n{text}", asked.method, asked.path, asked.head));
            if let Some((top, text)) = answer(&asked, &own) {
                let length = text.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 {top}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
                );
            }
        }
    });
    (endpoint, seen)
}

fn ok(text: impl Into<String>) -> Answer {
    Some(("200 OK".into(), text.into()))
}

/// A hub that takes everything, with an empty repository; `.safetensors` go ahead of the commit.
fn plain(asked: &Asked, own: &str) -> Answer {
    let text = String::from_utf8_lossy(&asked.body);
    match asked.path.split('?').next().unwrap() {
        "/api/repos/create" => ok("{}"),
        path if path.contains("/revision/") => ok(format!(r#"{{"sha":"{COMMIT}"}}"#)),
        path if path.contains("/tree/") => ok("[]"),
        path if path.contains("/preupload/") => {
            let ask: serde_json::Value = serde_json::from_str(&text).unwrap();
            let way = |file: &serde_json::Value| {
                let path = file["path"].as_str().unwrap();
                let mode = if path.ends_with(".safetensors") { "lfs" } else { "regular" };
                format!(r#"{{"path":"{path}","uploadMode":"{mode}"}}"#)
            };
            let files: Vec<String> = ask["files"].as_array().unwrap().iter().map(way).collect();
            ok(format!(r#"{{"files":[{}]}}"#, files.join(",")))
        }
        path if path.ends_with("/objects/batch") => {
            let ask: serde_json::Value = serde_json::from_str(&text).unwrap();
            let oid = ask["objects"][0]["oid"].as_str().unwrap();
            ok(format!(
                r#"{{"objects":[{{"oid":"{oid}","actions":{{"upload":{{"href":"{own}/put"}}}}}}]}}"#
            ))
        }
        "/put" => ok(""),
        path if path.contains("/commit/") => ok(format!(r#"{{"commitOid":"{NEXT}"}}"#)),
        other => panic!("{other}"),
    }
}

/// What a commit through such a hub gives; words with the endpoint as HUB and the temporary folder as DIR.
fn commit_to(
    answer: impl Fn(&Asked, &str) -> Answer + Send + 'static,
    target: Target,
) -> (Result<Committed, String>, Vec<String>) {
    let (endpoint, seen) = serve(answer);
    let home = tempfile::tempdir().unwrap();
    let hub = hub(&endpoint, home.path(), SECRET);
    let repo = model("me/x");
    let mut events = Vec::new();
    let mut run = || {
        let prepared = hub.prepare(&files(home.path(), 1))?;
        let mut on = |event: Event| events.push(format!("{event:?}"));
        let there = hub.open_for_writing(&repo, Access::Private, &mut on)?;
        let change = Change { target, ..change(&prepared, &[]) };
        hub.commit(&repo, &there, &change, &mut on)
    };
    let done = run().map_err(|error| {
        assert!(!format!("{error} {error:?}").contains("hf_secret"), "{error:?}");
        error.to_string().replace(&endpoint, "HUB")
    });
    assert!(!events.concat().contains("hf_secret"), "{events:?}");
    (done, seen.lock().unwrap().clone())
}

fn said(answer: impl Fn(&Asked, &str) -> Answer + Send + 'static) -> String {
    let (done, seen) = commit_to(answer, Target::Branch);
    let commits = seen.iter().filter(|head| head.contains("/commit/")).count();
    let error = done.unwrap_err();
    assert!(commits <= 1 || error.contains("again and again"), "{commits} commits: {error}");
    error
}

#[test]
fn one_commit_names_everything() {
    let (done, seen) = commit_to(plain, Target::Branch);
    let done = done.unwrap();
    assert_eq!((done.commit.as_str(), done.revision.as_str(), done.n_sent), (NEXT, NEXT, 3));
    let create = seen.iter().find(|head| head.contains("/api/repos/create")).unwrap();
    assert!(create.contains(r#"{"name":"x","organization":"me","private":true}"#), "{create}");
    let put = seen.iter().find(|head| head.starts_with("PUT")).unwrap();
    assert!(put.to_lowercase().contains("content-length: 300000"));
    let commits: Vec<&String> = seen.iter().filter(|head| head.contains("/commit/")).collect();
    assert_eq!(commits.len(), 1);
    let lines: Vec<serde_json::Value> =
        commits[0].lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let keys: Vec<&str> = lines.iter().map(|line| line["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["header", "file", "file", "lfsFile"]);
    assert_eq!(lines[0]["value"]["parentCommit"], COMMIT);
    assert_eq!(lines[1]["value"]["content"], "IyAxCg==", "base64 of \"# 1\\n\"");
    assert_eq!(lines[3]["value"]["size"], 300_000);
}

#[test]
fn a_pull_request_is_asked_for_once() {
    let (done, seen) = commit_to(
        |asked, own| match asked.path.contains("/commit/") {
            true => ok(format!(
                r#"{{"commitOid":"{NEXT}","pullRequestUrl":"{own}/me/x/discussions/7"}}"#
            )),
            false => plain(asked, own),
        },
        Target::PullRequest,
    );
    let done = done.unwrap();
    assert_eq!(done.revision, "refs/pr/7");
    assert!(done.pull_request.unwrap().ends_with("/me/x/discussions/7"));
    assert!(seen.iter().any(|head| head.contains("/commit/main?create_pr=1")));
    assert!(seen.iter().any(|head| head.contains("/preupload/main?create_pr=1")));
    // An answer that got lost is not asked for again: there may be one already.
    let (done, seen) = commit_to(
        |asked, own| if asked.path.contains("/commit/") { None } else { plain(asked, own) },
        Target::PullRequest,
    );
    assert!(done.unwrap_err().contains("the line to HUB broke at the commit"));
    assert_eq!(seen.iter().filter(|head| head.contains("/commit/")).count(), 1);
}

#[test]
fn parts_are_sent_to_their_addresses_and_named_by_their_tags() {
    let (done, seen) = commit_to(
        |asked, own| {
            let text = String::from_utf8_lossy(&asked.body);
            if asked.path.ends_with("/objects/batch") {
                let ask: serde_json::Value = serde_json::from_str(&text).unwrap();
                let oid = ask["objects"][0]["oid"].as_str().unwrap();
                return ok(format!(
                    r#"{{"objects":[{{"oid":"{oid}","actions":{{"upload":{{"href":"{own}/done","header":
                    {{"chunk_size":"130000","1":"{own}/part1","2":"{own}/part2","3":"{own}/part3"}}}}}}}}]}}"#
                ));
            }
            match asked.path.as_str() {
                part if part.starts_with("/part") => {
                    Some((format!("200 OK\r\nETag: \"tag{}\"", &part[5..]), String::new()))
                }
                "/done" => ok(""),
                _ => plain(asked, own),
            }
        },
        Target::Branch,
    );
    done.unwrap();
    let lengths: Vec<String> = seen
        .iter()
        .filter(|head| head.starts_with("PUT"))
        .map(|head| {
            let lower = head.to_lowercase();
            let line = lower.lines().find(|line| line.starts_with("content-length")).unwrap();
            line["content-length: ".len()..].trim().to_owned()
        })
        .collect();
    assert_eq!(lengths, ["130000", "130000", "40000"]);
    let end = seen.iter().find(|head| head.starts_with("POST /done")).unwrap();
    assert!(
        end.contains(r#""parts":[{"partNumber":1,"etag":"\"tag1\""},{"partNumber":2,"#),
        "{end}"
    );
}

#[test]
fn refusals_say_what_to_do() {
    let check = |part: &'static str, status: &'static str, text: &'static str, expected: &str| {
        let error = said(move |asked, own| match asked.path.contains(part) {
            true => Some((status.to_owned(), text.to_owned())),
            false => plain(asked, own),
        });
        assert!(error.contains(expected), "{error}");
    };
    check(
        "/preupload/",
        "403 Forbidden",
        r#"{"error":"no rights for hf_secret_0123456789"}"#,
        "refuses the question how to send the files with 403 (\"no rights for (hidden)\"); check that the token is valid and may write",
    );
    check(
        "/api/repos/create",
        "400 Bad Request",
        r#"{"error":"Invalid name"}"#,
        "the hub at HUB refuses the new repository with 400 (\"Invalid name\"); nothing was published",
    );
    check("/commit/", "413 Too Large", "", "refuses the commit with 413; nothing was published");
    check(
        "/commit/",
        "307 Elsewhere\r\nLocation: http://127.0.0.1:9/x",
        "",
        "sends the commit on to another address (307)",
    );
    check(
        "/commit/",
        "409 Conflict",
        "",
        "somebody else has written to it meanwhile (it was at 0000",
    );
    check("/commit/", "412 Precondition", "", "nothing was published; look at what is there now");
    check(
        "/commit/",
        "503 Busy\r\nRetry-After: 0",
        "",
        "answers the commit with 503 again and again; run the same command later",
    );
    check("/commit/", "200 OK", r#"{"commitOid":"../x"}"#, "\"../x\" is not a commit");
    check("/preupload/", "200 OK", r#"{"files":[]}"#, "it says nothing of README.md");
    check("/preupload/", "200 OK", "<html>", "doesn't answer as a hub does");
    check(
        "/preupload/",
        "200 OK",
        r#"{"files":[{"path":"README.md","uploadMode":"regular","shouldIgnore":true}]}"#,
        "its .gitignore leaves out README.md",
    );
    check("/objects/batch", "200 OK", r#"{"objects":[]}"#, "it says nothing of ");
    check("/put", "403 Forbidden", "", "refuses model.safetensors with 403");
}

#[test]
fn a_commit_whose_answer_got_lost_is_recognised() {
    let is_done = Mutex::new(false);
    let tree = Mutex::new(String::from("[]"));
    let (done, seen) = commit_to(
        move |asked, own| match asked.path.as_str() {
            path if path.contains("/commit/") => {
                if *is_done.lock().unwrap() {
                    return Some(("412 Precondition Failed".into(), String::new()));
                }
                *is_done.lock().unwrap() = true;
                // git's hashes of the two small files, and the large one's from the commit.
                let text = String::from_utf8_lossy(&asked.body);
                let oid = text.split("\"oid\":\"").nth(1).unwrap().split('"').next().unwrap();
                *tree.lock().unwrap() = format!(
                    r#"[{{"type":"file","path":"README.md","size":4,"oid":"d654202c6425c1c2873fb6a605e19780c260e36e"}},
                        {{"type":"file","path":"sub/a b.json","size":2,"oid":"9e26dfeeb6e641a33dae4961196235bdb965b21b"}},
                        {{"type":"file","path":"model.safetensors","size":300000,"oid":"{COMMIT}","lfs":{{"oid":"{oid}","size":300000}}}}]"#
                );
                None
            }
            path if path.contains("/tree/") => ok(tree.lock().unwrap().clone()),
            _ => plain(asked, own),
        },
        Target::Branch,
    );
    let done = done.unwrap();
    assert_eq!((done.n_sent, done.commit.as_str()), (3, COMMIT));
    assert_eq!(seen.iter().filter(|head| head.contains("/commit/")).count(), 2);
}

#[test]
fn a_file_that_changes_on_its_way_stops_it() {
    for victim in ["model.safetensors", "README.md"] {
        let (endpoint, seen) = serve(plain);
        let home = tempfile::tempdir().unwrap();
        let hub = hub(&endpoint, home.path(), SECRET);
        let repo = model("me/x");
        let prepared = hub.prepare(&files(home.path(), 1)).unwrap();
        let there = hub.open_for_writing(&repo, Access::Public, &mut |_| ()).unwrap();
        let place = home.path().join(victim);
        let mut bytes = fs::read(&place).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&place, bytes).unwrap();
        let error = hub.commit(&repo, &there, &change(&prepared, &[]), &mut |_| ()).unwrap_err();
        let expected = format!("{}: it changed while it was being published", place.display());
        assert!(error.to_string().starts_with(&expected), "{error}");
        let seen = seen.lock().unwrap();
        assert!(!seen.iter().any(|head| head.contains("/commit/")), "{victim}");
    }
}

#[test]
fn behind_a_mirror_the_hubs_own_address_is_the_mirrors() {
    let (done, seen) = commit_to(
        |asked, own| match asked.path.as_str() {
            path if path.ends_with("/objects/batch") => {
                let text = String::from_utf8_lossy(&asked.body);
                let ask: serde_json::Value = serde_json::from_str(&text).unwrap();
                let oid = ask["objects"][0]["oid"].as_str().unwrap();
                ok(format!(
                    r#"{{"objects":[{{"oid":"{oid}","actions":{{"upload":{{"href":"{own}/put"}},
                    "verify":{{"href":"https://huggingface.co/me/x.git/verify"}}}}}}]}}"#
                ))
            }
            "/me/x.git/verify" => ok("{}"),
            _ => plain(asked, own),
        },
        Target::Branch,
    );
    done.unwrap();
    let verify = seen.iter().find(|head| head.contains("/me/x.git/verify")).unwrap();
    assert!(verify.contains(SECRET) && verify.contains(r#""size":300000"#), "{verify}");
}

#[test]
fn a_branch_that_is_not_there_is_made() {
    let is_made = Mutex::new(false);
    let (endpoint, seen) = serve(move |asked, own| match asked.path.as_str() {
        "/api/models/me/x/branch/next" => {
            *is_made.lock().unwrap() = true;
            ok("")
        }
        path if path.contains("/revision/next") && !*is_made.lock().unwrap() => {
            Some(("404 Not Found\r\nX-Error-Code: RevisionNotFound".into(), String::new()))
        }
        _ => plain(asked, own),
    });
    let home = tempfile::tempdir().unwrap();
    let hub = hub(&endpoint, home.path(), SECRET);
    let repo = model("me/x@next");
    let prepared = hub.prepare(&files(home.path(), 1)).unwrap();
    let there = hub.open_for_writing(&repo, Access::Public, &mut |_| ()).unwrap();
    hub.commit(&repo, &there, &change(&prepared, &[]), &mut |_| ()).unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen.iter().any(|head| head.starts_with("POST /api/models/me/x/commit/next")));
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let (other, elsewhere) = serve(|_, _| ok(""));
    let href = other.clone();
    let (done, seen) = commit_to(
        move |asked, own| match asked.path.ends_with("/objects/batch") {
            true => {
                let text = String::from_utf8_lossy(&asked.body);
                let ask: serde_json::Value = serde_json::from_str(&text).unwrap();
                let oid = ask["objects"][0]["oid"].as_str().unwrap();
                // A hub that even hands the token over for another host.
                ok(format!(
                    r#"{{"objects":[{{"oid":"{oid}","actions":{{
                        "upload":{{"href":"{href}/put","header":{{"Authorization":"Bearer {SECRET}","x-own":"1"}}}},
                        "verify":{{"href":"{href}/verify","header":{{"Authorization":"Bearer {SECRET}"}}}}}}}}]}}"#
                ))
            }
            false => plain(asked, own),
        },
        Target::Branch,
    );
    done.unwrap();
    let elsewhere = elsewhere.lock().unwrap();
    assert_eq!(elsewhere.len(), 2, "{elsewhere:?}");
    assert!(elsewhere[0].contains("x-own: 1"));
    let leak = elsewhere.iter().find(|head| head.contains("hf_secret"));
    assert!(leak.is_none(), "{leak:?}");
    let bearer = format!("Bearer {SECRET}");
    assert!(
        seen.iter().all(|head| head.matches(bearer.as_str()).count() == 1),
        "at home it is sent"
    );
}

#[test]
fn a_file_with_the_token_in_it_is_not_published() {
    let home = tempfile::tempdir().unwrap();
    let hub = hub("http://127.0.0.1:9", home.path(), SECRET);
    let place = home.path().join("run.toml");
    fs::write(&place, format!("note = \"{SECRET}\"")).unwrap();
    let error = hub.prepare(&[LocalFile { path: "run.toml".into(), place }]).unwrap_err();
    assert!(error.to_string().contains("it holds the token that would publish it"), "{error}");
}

#[test]
fn what_cannot_be_written_to() {
    let home = tempfile::tempdir().unwrap();
    let hub = hub("http://127.0.0.1:9", home.path(), SECRET);
    let error = |repo: &str| {
        let opened = hub.open_for_writing(&model(repo), Access::Public, &mut |_| ());
        opened.unwrap_err()
    };
    assert_eq!(
        error(&format!("me/x@{COMMIT}")).to_string(),
        format!(
            "model me/x@{COMMIT}: a commit can't be written to; name a branch after the @, or leave it out for main"
        )
    );
    assert!(error("bert").to_string().contains("a repository to write to has an owner"));
    assert!(
        error("me/x")
            .to_string()
            .contains("the line to http://127.0.0.1:9 broke at the new repository")
    );
}
