//! A run that is stopped at any moment, politely or not, and started again by the same command ends in the same bytes.
#![allow(clippy::print_stdout)] // the seed of random moments must be known

mod util;

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use util::{Lab, Running};

/// Forty updates with a checkpoint every three, evaluations in between that write too, and dropout, which has to go on
/// where it was.
const LINE: &str = "finetune tickets --model tiny --train-split train[:200] --eval-split train[200:230] \
                    --batch-size 8 --max-length 16 --max-steps 40 --save-steps 3 --eval-steps 7 --logging-steps 1 \
                    --dropout 0.1 --output $T/run";

/// The weights, and what is logged of each update, of a run that nobody stops.
fn uninterrupted() -> (Vec<u8>, Vec<Value>) {
    let lab = Lab::new();
    lab.ok(LINE);
    (lab.read("run/model.safetensors"), updates(&lab))
}

/// The lines of metrics.jsonl about updates, without the time of day.
fn updates(lab: &Lab) -> Vec<Value> {
    let mut lines = lab.lines("run/metrics.jsonl");
    for line in &mut lines {
        line.as_object_mut().unwrap().shift_remove("time").expect("the time of day");
    }
    lines
}

/// The folder of a finished run, whatever happened on the way.
fn check_end(lab: &Lab, (weights, lines): &(Vec<u8>, Vec<Value>)) {
    assert!(lab.read("run/model.safetensors") == *weights, "other weights than without a stop");
    assert_eq!(updates(lab), *lines, "metrics.jsonl tells of other updates, or of some twice");
    assert!(lab.json("run/all_results.json")["metrics"]["accuracy"].is_number());
    for name in lab.names("run") {
        assert!(
            !name.contains("partial") && !name.starts_with("checkpoint"),
            "{name} is left over"
        );
    }
    let log = lab.json("run/trainer_state.json")["log_history"].as_array().unwrap().len();
    assert_eq!(log, lines.len());
}

/// Numbers that look random, from a seed (Marsaglia's xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

#[test]
fn killed_at_random_moments() {
    let seed = std::env::var("LOWCHURN_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = seed.unwrap_or_else(clock) | 1;
    println!("LOWCHURN_TEST_SEED={seed} repeats these moments, as far as moments can be repeated");
    let mut random = Random(seed);
    let whole = uninterrupted();
    let lab = Lab::new();
    let mut kills = 0;
    let done = loop {
        let mut running = lab.start(LINE);
        // Moments are counted from the first sign of training, and the more kills, the later: it has to end.
        if kills < 12 && running.until(&lab.path("run/run.toml")) {
            thread::sleep(Duration::from_micros(random.below(100_000 + 60_000 * kills)));
            running.kill();
        }
        let done = running.wait();
        match done.code {
            None => kills += 1,
            Some(_) => break done.expect(0),
        }
    };
    println!("{kills} kills");
    assert!(kills > 0 && done.out.contains("accuracy"), "{}", done.out);
    check_end(&lab, &whole);
    // And now it is finished.
    assert!(lab.ok(LINE).out.contains("is finished"));
}

#[test]
fn killed_in_the_middle_of_a_save() {
    let whole = uninterrupted();
    let lab = Lab::new();
    let mut kills = 0;
    for name in
        [".checkpoint-3.partial", ".checkpoint-14.partial", "checkpoint-21", ".release.partial"]
    {
        let mut running = lab.start(LINE);
        // Where a save was over before it was seen, the run has ended and nothing is lost but the point of it.
        if running.until(&lab.path("run").join(name)) {
            running.kill();
            assert_eq!(running.wait().code, None);
            kills += 1;
        } else {
            running.wait().expect(0);
        }
    }
    assert!(kills > 0, "no kill landed");
    lab.ok(LINE);
    check_end(&lab, &whole);
}

#[test]
fn a_closed_terminal_does_not_stop_what_nohup_started() {
    let lab = Lab::new();
    let inner = lab.command(LINE);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]);
    command.arg(inner.get_program()).args(inner.get_args());
    command.env_clear().envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(&lab.cwd);
    let mut running = Running::of(command, LINE, lab.root());
    assert!(running.until(&lab.path("run/checkpoint-3")), "over before the signal");
    running.signal("HUP");
    let done = running.wait().expect(0);
    assert!(done.err.contains("step 40/40"), "{}", done.err);
}

#[test]
fn killed_right_after_the_release() {
    let whole = uninterrupted();
    let lab = Lab::new();
    let mut running = lab.start(LINE);
    if running.until(&lab.path("run/manifest.json")) {
        running.kill();
    }
    running.wait();
    // That may have come too late to leave anything, so it is left by hand too.
    lab.write("run/.release.partial/config.json", "{}");
    lab.write("run/checkpoint-39/manifest.json", lab.read("run/manifest.json"));
    let _ = std::fs::remove_file(lab.path("run/all_results.json"));
    assert!(lab.ok(LINE).out.contains("is finished"));
    check_end(&lab, &whole);
}

#[test]
fn a_polite_stop_saves_and_says_how_to_go_on() {
    let whole = uninterrupted();
    for signal in ["TERM", "INT"] {
        let lab = Lab::new();
        let mut running = lab.start(LINE);
        assert!(
            running.until(&lab.path("run/checkpoint-6")),
            "{signal}: over before it could be stopped"
        );
        running.signal(signal);
        let done = running.wait().expect(130);
        let words: Vec<&str> = done.err.lines().last().unwrap().split(' ').collect();
        let ["stopped", "after", "update", step, "of", "40,", "saved", "in", "$T/run;", rest @ ..] =
            &words[..]
        else {
            panic!("{}", done.err);
        };
        let step: u64 = step.parse().unwrap();
        assert!((6..40).contains(&step), "{step}");
        let command = rest.join(" ");
        let (_, command) = command.split_once("go on with the same command: ").expect(&command);
        let expected = LINE
            .replace("train[:200]", "'train[:200]'")
            .replace("train[200:230]", "'train[200:230]'");
        assert_eq!(
            command.split_once(' ').unwrap().1,
            expected.split_whitespace().collect::<Vec<_>>().join(" ")
        );
        assert!(lab.path(&format!("run/checkpoint-{step}/manifest.json")).is_file());

        // A stopped run is not a finished one, and another plan doesn't go on with it, nor harm it.
        let before = lab.tree("run");
        let refused = lab.run(&LINE.replace("--dropout 0.1", "--dropout 0.2")).expect(2);
        let expected = format!(
            "$T/run/checkpoint-{step} holds a run with another dropout: 0.1, now 0.2; \
             choose another output folder, or --fresh to start over here"
        );
        assert_eq!(refused.error(), expected);
        assert!(lab.tree("run") == before, "a run was harmed by another plan");

        let done = lab.ok(LINE);
        assert!(done.err.contains(&format!("going on from step {step} of 40")), "{}", done.err);
        check_end(&lab, &whole);
    }
}

#[test]
fn a_stop_during_preparation_leaves_nothing_to_explain() {
    let lab = Lab::new();
    let running = lab.start(LINE);
    running.signal("TERM");
    let done = running.wait();
    // Before the handler is there, the signal itself ends the program.
    assert!(matches!(done.code, None | Some(130)), "{:?} {}", done.code, done.err);
    lab.ok(LINE);
}

#[test]
fn machines_are_told_of_a_stop() {
    let lab = Lab::new();
    let line = format!("{LINE} --json --fresh");
    let mut running = lab.start(&line);
    assert!(running.until(&lab.path("run/checkpoint-3")));
    running.signal("TERM");
    let done = running.wait().expect(130);
    let last = done.json().pop().unwrap();
    assert_eq!(last["event"], "interrupted");
    assert!(last["step"].as_u64().unwrap() >= 3);
    // The command that goes on must not start over.
    assert!(done.err.contains("--json") && !done.err.contains("--fresh"), "{}", done.err);
    let events = lab.ok(&line.replace(" --fresh", "")).json();
    let resumed = events.iter().find(|event| event["event"] == "resumed").unwrap();
    assert_eq!(resumed["step"], last["step"]);
    let steps: BTreeSet<u64> = events
        .iter()
        .filter(|e| e["event"] == "step")
        .map(|e| e["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, (last["step"].as_u64().unwrap() + 1..=40).collect());
}

#[test]
fn a_folder_is_one_process_at_a_time() {
    let lab = Lab::new();
    let mut first = lab.start(LINE);
    assert!(first.until(&lab.path("run/checkpoint-3")));
    let second = lab.run(LINE);
    let (first, second) = (first.wait().expect(0), second);
    if !second.out.contains("is finished") {
        let second = second.expect(2);
        assert_eq!(second.error(), "$T/run: another run is at work in this folder");
    }
    assert!(first.err.contains("step 40/40"), "{}", first.err);
}

#[test]
fn seeds_go_on_where_they_were() {
    let line = format!("{LINE} --seeds 2").replace("--max-steps 40", "--max-steps 10");
    let whole = Lab::new();
    whole.ok(&line);
    let lab = Lab::new();
    let mut running = lab.start(&line);
    assert!(running.until(&lab.path("run/seed-43/checkpoint-3")));
    running.signal("INT");
    running.wait().expect(130);
    let done = lab.ok(&line);
    assert!(done.out.contains("$T/run/seed-42 is finished"), "{}", done.out);
    for seed in ["seed-42", "seed-43"] {
        let name = format!("run/{seed}/model.safetensors");
        assert!(lab.read(&name) == whole.read(&name), "{name}");
    }
}
