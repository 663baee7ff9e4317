//! `publish` from outside: a run to the local hub and back, what is refused, and that no output has the token in it. Skipped,
//! and said so, where `../shared/hub` isn't.
#![allow(clippy::print_stdout)] // a skipped test must say so

#[path = "../crates/hub/tests/local_hub/mod.rs"]
mod local_hub;
mod util;

use std::fs;

use local_hub::LocalHub;
use lowchurn_data::card::licenses;
use serde_json::Value;
use util::{Lab, SMALL};

const TOKEN: &str = "hf_test_0123456789abcdef";

fn start(faults: &[&str]) -> Option<LocalHub> {
    LocalHub::start(faults, &["--token", TOKEN])
}

/// The same places, with or without a token.
fn lab_of(server: &LocalHub, token: &str) -> Lab {
    Lab::new().set("HF_ENDPOINT", &server.endpoint).set("HF_TOKEN", token)
}

/// Names of a repository's files, sorted.
fn sent_names(server: &LocalHub, repo: &str) -> Vec<String> {
    let root = server.path(repo, "");
    let (mut found, mut folders) = (Vec::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path => found.push(path.strip_prefix(&root).unwrap().display().to_string()),
            }
        }
    }
    found.sort();
    found
}

fn sent_text(server: &LocalHub, repo: &str, name: &str) -> String {
    let path = server.path(repo, name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn put_by_another(server: &LocalHub, repo: &str, name: &str, content: &str) {
    let path = server.path(repo, name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn finetuned(lab: &Lab) {
    lab.ok(&format!("{SMALL} --output $T/run"));
}

/// What text-embeddings-inference 1.9 asks of a classifier's folder (peers: its source), for BERT.
fn as_its_servers_want(lab: &Lab, folder: &str) {
    let config = lab.json(&format!("{folder}/config.json"));
    let class = config["architectures"][0].as_str().unwrap();
    assert!(class.ends_with("Classification"), "{class}");
    let (names, ids) = (&config["id2label"], &config["label2id"]);
    let names = names.as_object().expect("id2label is fatal to leave out");
    assert_eq!(ids.as_object().unwrap().len(), names.len());
    for (n, (id, name)) in names.iter().enumerate() {
        assert_eq!(id, &n.to_string(), "contiguous, from 0, as strings");
        assert_eq!(ids[name.as_str().unwrap()], n, "the exact inverse");
    }
    assert!(config["max_position_embeddings"].is_u64() && config["model_type"].is_string());
    assert_eq!(config["problem_type"], "single_label_classification");
    assert!(lab.path(&format!("{folder}/tokenizer.json")).is_file());
    let (header, _) = header(&lab.read(&format!("{folder}/model.safetensors")));
    assert_eq!(header["__metadata__"]["format"], "pt");
    for name in ["bert.embeddings.word_embeddings.weight", "bert.pooler.dense.weight"] {
        assert!(header.get(name).is_some(), "{name}");
    }
    assert_eq!(header["classifier.weight"]["shape"][0], names.len());
    assert!(header.get("classifier.bias").is_some());
    let keys = header.as_object().unwrap().keys();
    let odd: Vec<&String> = keys
        .filter(|key| key.contains("gamma") || key.contains("beta") || key.contains("position_ids"))
        .collect();
    assert!(odd.is_empty(), "{odd:?}");
}

fn header(bytes: &[u8]) -> (Value, usize) {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..8 + length]).unwrap(), 8 + length)
}

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
    let text = lab.json("next/report.json")["flips"][0]["text"].as_str().map(str::to_owned);
    let text = text.expect("the update changed a prediction");
    let published = ["report.json", "flips.jsonl", "report.html", "report.md"];
    for name in published {
        assert!(!sent_text(&server, "me/tickets", name).contains(&text), "{name}");
    }
    lab.ok("publish $T/next --to me/tickets --with-texts");
    assert!(sent_text(&server, "me/tickets", "flips.jsonl").contains(&text));
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
    check("publish $T/run --to me/x --report $T/nothing.json", 3, "$T/nothing.json");
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

#[test]
fn the_gate_decides_and_force_is_written_down() {
    let Some(server) = start(&[]) else { return };
    let lab = lab_of(&server, TOKEN);
    finetuned(&lab);
    let rows = "--new tickets:later[:40] --holdout tickets:later[1000:1200] --max-steps 30 --learning-rate 1e-2 \
                --interpolate none --method retrain --tables $T/tables";
    lab.ok(&format!("update --base $T/run {rows} --output $T/next"));
    let done = lab.run("publish $T/next --to me/next").expect(2);
    assert!(done.error().contains(
        "its report has no verdict, for no limit was set; set one now, such as --max-churn 2%"
    ));
    // FAIL is 10 and INCONCLUSIVE 11, as at the gate.
    let done = lab.run("publish $T/next --to me/next --max-churn 2%").expect(10);
    assert!(
        done.out.contains("refused: the gate didn't pass; --force publishes it all the same"),
        "{}",
        done.out
    );
    let churn =
        lab.json("next/report.json")["comparison"]["all"]["churn"]["value"].as_f64().unwrap();
    let near = format!("publish $T/next --to me/next --max-churn {}", churn + 0.001);
    lab.run(&near).expect(11);
    assert!(sent_names(&server, "me/next").is_empty() && !lab.path("next/release").exists());
    let forced = lab.ok("publish $T/next --to me/next --max-churn 2% --force");
    assert!(forced.out.contains("published all the same, as --force says"), "{}", forced.out);
    let card = sent_text(&server, "me/next", "README.md");
    assert!(
        card.contains(
            "**The gate did not pass; this release was published all the same, by `--force`.**"
        ),
        "{card}"
    );
    let manifest: Value =
        serde_json::from_str(&sent_text(&server, "me/next", "manifest.json")).unwrap();
    assert_eq!(manifest["release"]["gate"], "FAIL");
    assert_eq!(manifest["release"]["is_forced"], true);
    // An update is scored by its report alone.
    let results: Value =
        serde_json::from_str(&sent_text(&server, "me/next", "eval_results.json")).unwrap();
    let report = lab.json("next/report.json");
    assert_eq!(results["report"]["rows"], report["data"]);
    for (n, name) in ["accuracy_new", "churn", "nfr"].into_iter().enumerate() {
        let measured = &results["report"]["metrics"][n];
        let all = &report["comparison"]["all"][name];
        assert_eq!(measured["value"], all["value"], "{measured}");
        assert_eq!(measured["args"]["high"], all["interval"]["high"], "{measured}");
    }
    lab.ok("publish $T/next --to me/next --force");
    assert!(
        sent_text(&server, "me/next", "README.md")
            .contains("published without a gate, by `--force`")
    );
    lab.ok("publish $T/next --to me/next --max-churn 99%");
    assert!(!sent_text(&server, "me/next", "README.md").contains("--force"));

    // A report of another model is none.
    lab.ok("compare $T/next $T/run --data tickets:later[:60] --output $T/cmp");
    let done = lab
        .run("publish $T/next --to me/next --report $T/cmp/report.json --max-churn 99%")
        .expect(3);
    assert!(done.error().contains("it is of another model: $T/run"), "{}", done.err);
}

#[test]
fn rounded_weights_are_measured_and_gated() {
    let Some(server) = start(&[]) else { return };
    let lab = lab_of(&server, TOKEN);
    finetuned(&lab);
    for (dtype, name, header_name) in [("f16", "float16", "F16"), ("bf16", "bfloat16", "BF16")] {
        let done = lab.ok(&format!(
            "--json publish $T/run --to me/{dtype} --dtype {dtype} --max-cast-churn 100%"
        ));
        let cast = done.json().last().unwrap()["cast"].clone();
        // The run's own evaluation rows, train[40:60].
        assert_eq!((cast["of"].as_u64(), cast["dtype"].as_str()), (Some(20), Some(name)));
        assert!(cast["largest_difference"].as_f64().unwrap() > 0.0, "{cast}");
        let (header, _) = header(&lab.read("run/release/model.safetensors"));
        assert_eq!(header["classifier.weight"]["dtype"], header_name);
        assert_eq!(lab.json("run/release/config.json")["dtype"], name);
        as_its_servers_want(&lab, "run/release");
        assert!(
            sent_text(&server, &format!("me/{dtype}"), "README.md")
                .contains(&format!("## Stored as {name}"))
        );
        lab.ok(&format!("eval --model me/{dtype} --data tickets:later[:20]"));
    }
    // On rows enough bf16 changes some of what this barely trained model says; the limit is what was observed, less a hair.
    let line = "publish $T/run --to me/more --dtype bf16 --data tickets:later";
    let done = lab.ok(&format!("--json {line} --max-cast-churn 100% --dry-run"));
    let cast = done.json().last().unwrap()["cast"].clone();
    let (changed, of) = (cast["changed"].as_f64().unwrap(), cast["of"].as_f64().unwrap());
    assert!(changed > 0.0, "{cast}");
    lab.ok(&format!("{line} --max-cast-churn {}", changed / of));
    let refused = lab.run(&format!("{line} --max-cast-churn {}", (changed - 0.5) / of)).expect(10);
    assert!(
        refused.out.contains("refused: publish as f32, or allow more with --max-cast-churn"),
        "{}",
        refused.out
    );
    // Without rows there is nothing to measure on.
    lab.ok(&format!(
        "{} --output $T/blind",
        SMALL.replace("--eval-split train[40:60]", "--eval-split none")
    ));
    let done = lab.run("publish $T/blind --to me/blind --dtype f16").expect(2);
    assert!(
        done.error()
            .contains("names no evaluation rows; name some with --data, labels aren't needed"),
        "{}",
        done.err
    );
    lab.ok("publish $T/blind --to me/blind");
}

/// The commit stands in the update's manifest, so a name that has moved on still leads back.
#[test]
fn a_published_release_knows_those_before_it() {
    let Some(server) = start(&[]) else { return };
    let lab = lab_of(&server, TOKEN);
    finetuned(&lab);
    lab.ok("publish $T/run --to me/first");
    lab.ok(
        "update --base me/first --new tickets:later[:40] --holdout tickets:later[1000:1100] --max-steps 4 --interpolate none \
         --tables $T/tables --output $T/next",
    );
    let old = lab.json("next/manifest.json")["provenance"]["old"][0].clone();
    let pinned = old.as_str().unwrap();
    let commit = pinned.strip_prefix("me/first@").unwrap();
    assert_eq!(commit.len(), 40, "{pinned}");
    lab.ok("publish $T/next --to me/next --force");
    let history = "history me/next --data tickets:later[:60] --output $T/history";
    let elsewhere = lab_of(&server, TOKEN);
    let done = elsewhere.ok(history);
    assert!(done.out.starts_with(&format!("1 {pinned}: right ")), "{}", done.out);
    assert!(done.out.contains("\n2 me/next: right "), "{}", done.out);

    // The local server keeps a repository's last commit alone; whoever has the earlier one still finds it.
    lab.ok("publish $T/next --to me/first --force");
    let done = elsewhere.ok(history);
    assert!(done.out.starts_with(&format!("1 {pinned}: right ")), "{}", done.out);
    let done = lab_of(&server, TOKEN).run(history).expect(2);
    let said = format!("me/next updates {pinned}, which isn't found as it was then");
    assert!(done.err.contains(&said) && done.err.contains("no earlier release"), "{}", done.err);
}

/// What is scored once at publishing isn't scored again by who updates.
#[test]
fn the_next_update_starts_from_the_table_that_came_along() {
    let Some(server) = start(&[]) else { return };
    let lab = lab_of(&server, TOKEN);
    finetuned(&lab);
    lab.ok("publish $T/run --to me/with --with-table");
    lab.ok("publish $T/run --to me/without");
    let tables: Vec<String> = sent_names(&server, "me/with")
        .into_iter()
        .filter(|name| name.starts_with("teacher/"))
        .collect();
    assert_eq!(tables.len(), 1, "{tables:?}");
    assert!(!sent_names(&server, "me/without").iter().any(|name| name.starts_with("teacher/")));
    assert!(
        sent_text(&server, "me/with", "README.md").contains("`teacher/` holds this model's logits")
    );
    let update = |id: &str| {
        lab.ok(&format!(
            "update --base me/{id} --new tickets:later[:40] --holdout tickets:later[1000:1100] --max-steps 4 \
             --interpolate none --tables $T/{id} --output $T/from-{id}"
        ))
    };
    let (with, without) = (update("with"), update("without"));
    assert!(with.err.contains("it came with its scores of 40 rows"), "{}", with.err);
    assert!(with.err.contains("on the other rows of "), "{}", with.err);
    assert!(!without.err.contains("it came with"), "{}", without.err);
    assert_eq!(lab.names("with"), lab.names("without"), "one table for each set of rows");
    for name in lab.names("with") {
        let logits = |folder: &str| -> Vec<f32> {
            let bytes = lab.read(&format!("{folder}/{name}"));
            let (header, start) = header(&bytes);
            let at = |n: usize| header["logits"]["data_offsets"][n].as_u64().unwrap() as usize;
            let numbers = &bytes[start + at(0)..start + at(1)];
            numbers.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
        };
        let (with, without) = (logits("with"), logits("without"));
        assert_eq!(with.len(), without.len(), "{name}");
        // A row scored among others differs in its last bits: 1.5e-7 was seen.
        let far = with.iter().zip(&without).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far < 2e-6, "{name}: {far}");
    }
    // Rows of other texts aren't taken for those of the table.
    lab.write("old.csv", "id,text,label\n1,other,delivery\n2,words,returns\n");
    let other = lab.ok(
        "update --base me/with --old $T/old.csv --new tickets:later[:40] --holdout tickets:later[1000:1100] --max-steps 2 \
         --interpolate none --tables $T/other --output $T/from-other",
    );
    assert!(!other.err.contains("it came with"), "{}", other.err);
}

#[test]
fn an_onnx_file_goes_along_if_it_is_of_this_model() {
    let Some(server) = start(&[]) else { return };
    let lab = lab_of(&server, TOKEN);
    finetuned(&lab);
    lab.ok("export $T/run --onnx");
    lab.ok("publish $T/run --to me/x");
    assert!(sent_names(&server, "me/x").contains(&"onnx/model.onnx".into()));
    lab.write("run/onnx/model.onnx", "of another");
    let done = lab.run("publish $T/run --to me/x").expect(2);
    assert!(
        done.error().contains(
            "onnx/model.onnx: it is of another model; make it again with lowchurn export"
        ),
        "{}",
        done.err
    );
}

/// A student of a teacher of another family: the card, the manifest and a report that holds them together name both.
#[test]
fn a_students_card_and_report_name_its_teacher_too() {
    let Some(server) = start(&[]) else { return };
    let lab = lab_of(&server, TOKEN);
    let rows = "--train-split train[:40] --eval-split train[40:60] --batch-size 8 --max-length 32 --max-steps 4";
    let of_family = "--model tests/golden/architectures/roberta";
    lab.ok(&format!("finetune tickets {of_family} --output $T/teacher {rows}"));
    lab.ok(&format!(
        "distil tickets --teacher $T/teacher --student tiny --vector-weight 1 --tables $T/tables --output \
         $T/student {rows}"
    ));
    let teacher = lab.path("teacher").display().to_string();
    let provenance = &lab.json("student/manifest.json")["provenance"];
    assert_eq!(
        (provenance["base"].as_str(), provenance["teacher"][0].as_str()),
        (Some("tiny"), Some(&*teacher))
    );
    lab.ok("publish $T/student --to me/student --dry-run");
    let card = lab.text("student/release/README.md");
    let said = format!("The student started from `tiny` and followed the teacher `{teacher}`.\n");
    assert!(card.contains(&said), "{card}");
    assert!(card.contains("base_model: ") || card.contains("| `base` | `tiny` |"), "{card}");

    lab.ok("compare $T/teacher $T/student --data tickets --split train[60:90] --output $T/both");
    let report = lab.json("both/report.json");
    for (side, name) in [("old", "teacher"), ("new", "student")] {
        assert!(report[side]["name"].as_str().unwrap().ends_with(name), "{}", report[side]);
        assert!(
            lab.text("both/report.html").contains(name)
                && lab.text("both/report.md").contains(name)
        );
    }
}
