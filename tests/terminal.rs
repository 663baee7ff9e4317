//! What a person at a terminal sees, what a machine gets instead, and what is never shown to either.

mod util;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;
use util::{Lab, Running, SMALL, is_peak_rss, skipped};

#[test]
fn machines_get_json_lines_alone() {
    let lab = Lab::new();
    let done = lab.ok(&format!("{SMALL} --json --output $T/run"));
    let events = done.json();
    let names: BTreeSet<&str> =
        events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    for name in ["plan", "data", "tokens", "step", "log", "evaluated", "saved", "finished"] {
        assert!(names.contains(name), "no event {name:?} in {names:?}");
    }
    let last = events.last().unwrap();
    assert_eq!(last["event"], "finished");
    assert_eq!(last["metrics"], lab.json("run/eval_results.json")["scores"]);
    assert_eq!(last["output"], "$T/run");
    assert!(last["train_seconds"].as_f64().unwrap() > 0.0 && is_peak_rss(&last["peak_rss_mib"]));
    assert!(done.err.contains("accuracy"), "words for people go to stderr");

    let again = lab.ok(&format!("{SMALL} --json --output $T/run")).json();
    assert_eq!(again.last().unwrap()["event"], "finished");
    assert_eq!(again.last().unwrap()["metrics"], last["metrics"]);

    let typo = SMALL.replace("train[:40]", "nowhere");
    let failed = lab.run(&format!("{typo} --json --output $T/x")).expect(2);
    let last = failed.json().pop().unwrap();
    assert_eq!((&last["event"], &last["exit_code"]), (&json!("failed"), &json!(2)));
    assert_eq!(last["error"], failed.error());

    let line = "predict --model $T/run --data tickets --split train[40:60] --max-length 4 --json";
    let done = lab.ok(line);
    let lines = done.json();
    assert_eq!(lines.len(), 21);
    let last = lines.last().unwrap();
    assert_eq!((&last["event"], &last["rows"]), (&json!("finished"), &json!(20)));
    assert!(last["seconds"].as_f64().unwrap() > 0.0 && is_peak_rss(&last["peak_rss_mib"]));
    assert!(last["metrics"]["accuracy"].is_number());
    assert_eq!(done.err.lines().next(), Some("20 of 20 rows cut at 4 tokens"));
    let eval = lab.ok("eval --model $T/run --data tickets --split train[40:60] --json").json();
    assert_eq!(eval.len(), 1);
    assert_eq!(eval[0]["event"], "finished");
}

#[test]
fn without_a_terminal_there_are_no_escape_codes() {
    let lab = Lab::new();
    let done = lab.ok(&format!("{SMALL} --output $T/run"));
    for text in [
        &done.out,
        &done.err,
        &lab.run("finetune --help").expect(0).out,
        &lab.run("finetun").expect(2).err,
    ] {
        assert!(!text.contains(['\x1b', '\r']), "{text:?}");
    }
}

/// What takes no ten seconds leaves no line of progress in a log, but for the last one of a training.
#[test]
fn without_a_terminal_short_work_leaves_few_lines() {
    let lab = Lab::new();
    let done = lab.ok(&format!("{SMALL} --output $T/run"));
    let progress = |text: &str| {
        let is = |line: &&str| line.contains("  elapsed ") || line.contains("ETA");
        text.lines().filter(is).map(str::to_string).collect::<Vec<_>>()
    };
    let said = progress(&done.err);
    assert!(said.len() == 1 && said[0].starts_with("step 6/6  100%"), "{said:?}");
    let done = lab.ok("compare $T/run $T/run --data tickets:train[:60] --output $T/compared");
    assert_eq!(progress(&done.err), Vec::<String>::new());
}

#[test]
fn on_a_terminal_no_color_is_honoured() {
    if !cfg!(target_os = "linux") || !Path::new("/usr/bin/script").exists() {
        return skipped("Linux's script(1), which makes a terminal, is not here");
    }
    let on_terminal = |lab: &Lab| {
        let inner = lab.command(&format!("{SMALL} --output $T/run"));
        let mut words = vec![inner.get_program().to_str().unwrap().to_string()];
        words.extend(inner.get_args().map(|arg| format!("'{}'", arg.to_str().unwrap())));
        let mut command = Command::new("script");
        command.args(["-qec", &words.join(" "), "/dev/null"]).env_clear().current_dir(&lab.cwd);
        command
            .envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .stdin(Stdio::null());
        Running::of(command, "in a terminal", lab.root()).wait().expect(0).out
    };
    let colored = on_terminal(&Lab::new());
    assert!(colored.contains("\x1b[1m") && colored.contains("step 6/6"), "{colored:?}");
    let plain = on_terminal(&Lab::new().set("NO_COLOR", "1"));
    // Drawing over a line is not colour.
    let is_color = |code: &str| {
        code.split_once('m').is_some_and(|(n, _)| n.chars().all(|c| c.is_ascii_digit() || c == ';'))
    };
    assert!(!plain.split("\x1b[").skip(1).any(is_color), "{plain:?}");
    assert!(plain.contains("step 6/6"), "{plain:?}");
}

#[test]
fn completions_and_help() {
    let lab = Lab::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = lab.ok(&format!("completions {shell}")).out;
        assert!(script.contains("finetune") && script.contains("train-split"), "{shell}");
    }
    let help = lab.ok("--help").out;
    for verb in ["finetune", "eval", "predict", "doctor"] {
        assert!(help.contains(verb), "{help}");
    }
    assert_eq!(lab.ok("--version").out, format!("lowchurn {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn doctor_never_shows_a_token() {
    let secret = "hf_thisIsAVerySecretToken";
    let lab = Lab::new().set("HF_TOKEN", secret).set("HF_ENDPOINT", "http://127.0.0.1:9");
    for flags in ["", " --json"] {
        let done = lab.ok(&format!("doctor{flags}"));
        assert!(!done.out.contains(secret) && !done.err.contains(secret), "{}", done.out);
        assert!(done.out.contains("127.0.0.1:9"), "{}", done.out);
    }
    assert_eq!(lab.names(""), Vec::<String>::new(), "doctor left something behind");
}

#[test]
fn local_work_needs_no_home_and_no_hub() {
    let lab = Lab::new().set("HF_HUB_OFFLINE", "1");
    let line = format!("{SMALL} --output $T/run");
    let mut command = lab.command(&line);
    command.env_remove("HOME").env_remove("HF_HOME");
    Running::of(command, &line, lab.root()).wait().expect(0);
    let line = "predict --model $T/run --data tickets --split train[:1]";
    let mut command = lab.command(line);
    command.env_remove("HOME").env_remove("HF_HOME");
    Running::of(command, line, lab.root()).wait().expect(0);
}
