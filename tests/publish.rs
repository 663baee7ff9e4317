//! `publish` from outside: a run to the local hub and back, what is refused, and that no output has the token in it. Skipped,
//! and said so, where `../shared/hub` isn't.

#[path = "../crates/hub/tests/local_hub/mod.rs"]
mod local_hub;
mod publishing;
mod util;

use std::fs;

use lowchurn_data::card::licenses;
use publishing::*;
use serde_json::Value;
use util::{Lab, SMALL};

#[test]
fn a_run_goes_there_and_its_id_is_a_model() {
    let Some(server) = start(&[]) else { return };
    let lab = lab_of(&server, TOKEN);
    finetuned(&lab);
    let shown = lab.ok("publish $T/run --to me/tickets --dry-run");
    assert!(sent_names(&server, "me/tickets").is_empty(), "a dry run sends nothing");
    let card = lab.text("run/release/README.md");
    assert!(shown.out.contains(&card), "{}", shown.out);
    let done = lab.ok("--json publish $T/run --to me/tickets").json();
    let names = sent_names(&server, "me/tickets");
    let expected = [
        "README.md",
        "all_results.json",
        // By it the rows that chose the checkpoint certify nothing of the published one either.
        "chose.json",
        "config.json",
        "eval_results.json",
        "manifest.json",
        "model.safetensors",
        "run.toml",
    ];
    assert!(expected.iter().all(|name| names.contains(&name.to_string())), "{names:?}");
    assert!(
        names.iter().any(|name| name.starts_with("runs/train/events.out.tfevents.")),
        "{names:?}"
    );
    let last = done.last().unwrap();
    assert_eq!(
        (last["files_sent"].as_u64(), last["forced"].as_bool()),
        (Some(names.len() as u64), Some(false))
    );
    as_its_servers_want(&lab, "run/release");

    // The same weights, with what they were made of beside them.
    let (own, there) =
        (lab.read("run/model.safetensors"), lab.read("run/release/model.safetensors"));
    let ((old, at), (new, start)) = (header(&own), header(&there));
    assert!(own[at..] == there[start..]);
    let made: Value =
        serde_json::from_str(new["__metadata__"]["lowchurn"].as_str().unwrap()).unwrap();
    let manifest = lab.json("run/manifest.json");
    assert_eq!(made["base_sha256"], manifest["provenance"]["base_sha256"]);
    assert_eq!(made["train_sha256"], manifest["provenance"]["train_sha256"]);
    assert_eq!(made["run_weights_sha256"], manifest["files"]["model.safetensors"]);
    assert_eq!(made["plan_sha256"].as_str().unwrap().len(), 64);
    assert!(old["__metadata__"].get("lowchurn").is_none());
    for key in ["base_sha256", "train_sha256", "plan_sha256", "run_weights_sha256"] {
        assert!(card.contains(made[key].as_str().unwrap()), "{key} in the card");
    }
    assert_eq!(licenses(&card).unwrap(), ["mit", "apache-2.0"]);
    assert!(card.contains("    - type: accuracy\n      name: Accuracy\n      value: 0."), "{card}");

    // Again: the same bytes, so nothing is sent.
    let again = lab.ok("publish $T/run --to me/tickets");
    assert!(again.out.contains("is there already, as it is here"), "{}", again.out);

    // Every verb takes the id where it takes a folder, and finds the run's length and rows by it.
    let eval = |model: &str| {
        let done = lab.ok(&format!("--json eval --model {model} --data tickets:later[:50]"));
        done.json().last().unwrap()["metrics"].clone()
    };
    assert_eq!(eval("me/tickets"), eval("$T/run"));
    let rows = "--new tickets:later[:40] --holdout tickets:later[1000:1200] --max-steps 4 --tables $T/tables";
    lab.run(&format!("update --base me/tickets {rows} --max-churn 90% --output $T/next")).expect(0);
    assert!(lab.text("next/run.toml").contains("base = \"me/tickets\""));
    let next = lab.ok("publish $T/next --to me/tickets");
    assert!(next.out.contains("gate: PASS"), "{}", next.out);
    let card = sent_text(&server, "me/tickets", "README.md");
    assert!(card.contains("base_model: me/tickets\n"), "{card}");
    assert!(card.contains("Churn vs me/tickets") && card.contains("PASS churn"), "{card}");
    assert_eq!(
        licenses(&card).unwrap(),
        ["mit", "apache-2.0"],
        "carried over from the card of the base"
    );
    // Of the first release what the second doesn't have is gone, in the same commit.
    let names = sent_names(&server, "me/tickets");
    assert!(names.contains(&"report.html".into()), "{names:?}");
    lab.ok("compare me/tickets $T/next --data tickets:later[:60] --output $T/cmp");

    // Texts of rows stay at home unless they are asked for.
    let report = lab.json("next/report.json");
    let mut texts =
        report["flips"].as_array().unwrap().iter().filter_map(|flip| flip["text"].as_str());
    let is_plain = |text: &&str| !text.contains(['"', '\\', '&', '<', '>', '\'', '\n']); // the same in JSON and in HTML
    let text = texts.rfind(is_plain).expect("the update changed a prediction");
    let published = ["report.json", "flips.jsonl", "report.html", "report.md"];
    for name in published {
        assert!(!sent_text(&server, "me/tickets", name).contains(text), "{name}");
    }
    lab.ok("publish $T/next --to me/tickets --with-texts");
    assert!(sent_text(&server, "me/tickets", "flips.jsonl").contains(text));
}

#[test]
fn uploads_end_complete_under_faults_and_no_output_has_the_token() {
    let mut said = String::new();
    let faults: [&[&str]; 4] = [&["503:3"], &["429:4"], &["cut:200000"], &["slow:50"]];
    let Some(plain) = start(&[]) else { return };
    let lab = lab_of(&plain, "");
    finetuned(&lab);
    let release = |name: &str| fs::read(lab.path("run/release").join(name)).unwrap();
    for faults in faults {
        let Some(server) = start(faults) else { return };
        let mut command = lab.command("publish $T/run --to me/x --private");
        command.env("HF_ENDPOINT", &server.endpoint).env("HF_TOKEN", TOKEN);
        let done = util::Running::of(command, "publish", lab.root()).wait().expect(0);
        said += &format!("{}{}", done.out, done.err);
        for name in sent_names(&server, "me/x") {
            let path = server.written.path().join("models/me/x").join(&name);
            assert!(fs::read(path).unwrap() == release(&name), "{faults:?}: {name}");
        }
        assert_eq!(sent_names(&server, "me/x"), server_names(&lab), "{faults:?}");
    }
    // A hub that is always busy, one that nobody is at, and a token that the hub doesn't know, as text and as JSON.
    let Some(busy) = start(&["503:1"]) else { return };
    let check = |line: &str, endpoint: &str, token: &str, expected: &str| {
        let mut command = lab.command(line);
        command.env("HF_ENDPOINT", endpoint).env("HF_TOKEN", token);
        let done = util::Running::of(command, line, lab.root()).wait().expect(4);
        assert!(done.error().contains(expected), "{}", done.err);
        format!("{}{}", done.out, done.err)
    };
    let line = "--json publish $T/run --to me/x";
    said +=
        &check(line, &busy.endpoint, TOKEN, "answers the new repository with 503 again and again");
    said += &check(line, "http://127.0.0.1:9", TOKEN, "the line to http://127.0.0.1:9 broke");
    let other = "hf_test_of_somebody_else";
    said += &check(line, &plain.endpoint, other, "refuses the new repository with 401");
    said += &check(line, &plain.endpoint, "", "publishing needs a token, and there is none");
    assert!(sent_names(&plain, "me/x").is_empty(), "nothing half-published");
    // From the file of the Python clients.
    lab.write("hf/token", format!("{TOKEN}\n"));
    let done = lab.ok("publish $T/run --to me/x");
    said += &format!("{}{}", done.out, done.err);
    let doctor = lab.run("doctor");
    said += &format!("{}{}", doctor.out, doctor.err);
    for secret in [TOKEN, other] {
        assert!(!said.contains(secret), "{said}");
        for (path, bytes) in lab.tree(".") {
            let has = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!has || path.ends_with("hf/token"), "{}", path.display());
        }
        for name in sent_names(&plain, "me/x") {
            let path = plain.written.path().join("models/me/x").join(&name);
            let bytes = fs::read(path).unwrap();
            assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{name}");
        }
    }
}

fn server_names(lab: &Lab) -> Vec<String> {
    let root = lab.path("run/release");
    let mut names: Vec<String> = lab
        .tree("run/release")
        .keys()
        .map(|path| path.strip_prefix(&root).unwrap().display().to_string())
        .collect();
    names.sort();
    names
}

#[test]
fn what_is_not_published() {
    let Some(server) = start(&[]) else { return };
    let lab = lab_of(&server, TOKEN);
    finetuned(&lab);
    let error = |line: &str, code: i32| lab.run(line).expect(code).error().to_string();
    let check = |line: &str, code: i32, expected: &str| {
        let found = error(line, code);
        assert!(found.contains(expected), "{line}: {found}");
    };
    check("publish $T/run --to tickets", 2, "--to tickets: expected owner/name");
    check("publish $T/run --to me/../x", 2, "it has more than one slash");
    check(
        "publish $T/run --to me/x@a --revision b",
        2,
        "it names a branch, and so does --revision; name one",
    );
    check("publish $T/run --to me/x --revision ../x", 2, "it leaves its folder");
    check(
        "publish models/tiny --to me/x",
        2,
        "models/tiny holds no finished run: there is no manifest.json in it",
    );
    check("publish $T/run --to me/x --license apache-2", 2, "did you mean apache-2.0?");
    check(
        "publish $T/run --to me/x --max-churn 2%",
        2,
        "there is no report.json to hold limits against",
    );
    check("publish $T/run --to me/x --report $T/nothing.json", 2, "$T/nothing.json");
    lab.write("card.md", "---\nlicense: [apache-2.0\n---\n# x\n");
    check(
        "publish $T/run --to me/x --card $T/card.md",
        2,
        "it has to be YAML between two lines ---",
    );
    lab.write("card.md", "# x\n");
    check("publish $T/run --to me/x --card $T/card.md", 2, "its front matter names no licence");
    lab.write("run/release/notes.txt", "mine");
    check("publish $T/run --to me/x", 2, "is in the way: publish writes the release there");
    assert_eq!(lab.text("run/release/notes.txt"), "mine");
    fs::remove_dir_all(lab.path("run/release")).unwrap();

    // A file that isn't the run's any more, and a manifest that points out of the folder.
    let config = lab.text("run/config.json");
    lab.write("run/config.json", config.replace("\"delivery\"", "\"deliveries\""));
    check("publish $T/run --to me/x", 3, "config.json: it isn't what the run wrote there (sha256 ");
    lab.write("run/config.json", &config);
    let manifest = lab.text("run/manifest.json");
    lab.write("run/manifest.json", manifest.replace("\"vocab.txt\"", "\"../vocab.txt\""));
    check("publish $T/run --to me/x", 3, "the name \"../vocab.txt\" leaves the folder");
    lab.write("run/manifest.json", &manifest);

    // No licence is made up.
    lab.copy("models/tiny", "base");
    fs::remove_file(lab.path("base/README.md")).unwrap();
    lab.ok(&format!("{} --output $T/bare", SMALL.replace("--model tiny", "--model $T/base")));
    check(
        "publish $T/bare --to me/x",
        2,
        "the licence isn't known: $T/base names none that the hub knows; say which one applies with --license",
    );
    lab.write("base/README.md", "---\nlicense: {\n---\n");
    check(
        "publish $T/bare --to me/x",
        3,
        "the licence of $T/base can't be read; name it with --license",
    );
    lab.write("base/README.md", "---\nlicense: cc-by-4.0\n---\n");
    lab.ok("publish $T/bare --to me/x --dry-run");
    assert_eq!(licenses(&lab.text("bare/release/README.md")).unwrap(), ["cc-by-4.0"]);
    lab.ok("publish $T/bare --to me/x --dry-run --license MIT");
    assert_eq!(licenses(&lab.text("bare/release/README.md")).unwrap(), ["mit"]);

    // What others put there stays, and so does a card that was written there.
    put_by_another(&server, "me/theirs", "pytorch_model.bin", "x");
    check(
        "publish $T/run --to me/theirs",
        2,
        "holds 1 files that lowchurn didn't publish (pytorch_model.bin, …)",
    );
    assert_eq!(sent_names(&server, "me/theirs"), ["pytorch_model.bin"]);
    lab.ok("publish $T/run --to me/theirs --force");
    assert_eq!(sent_text(&server, "me/theirs", "pytorch_model.bin"), "x");
    lab.ok("publish $T/run --to me/mine");
    put_by_another(&server, "me/mine", "README.md", "---\nlicense: mit\n---\nmy words\n");
    check(
        "publish $T/run --to me/mine",
        2,
        "its README.md was changed since it was published; keep it with --card FILE",
    );
    lab.write("mine.md", sent_text(&server, "me/mine", "README.md"));
    lab.ok("publish $T/run --to me/mine --card $T/mine.md");
    assert!(sent_text(&server, "me/mine", "README.md").ends_with("my words\n"));
    let forced = lab.ok("publish $T/run --to me/mine --force --create-pr");
    assert!(forced.out.contains("pull request: "), "{}", forced.out);
    assert!(!sent_text(&server, "me/mine", "README.md").contains("my words"));
}
