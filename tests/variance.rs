//! Control variates, probes and generations from the command line: the flags reach the run, and what can't be is refused.

mod util;

use std::fs;

use util::{Lab, SMALL};

const ROWS: &str = "--train-split train[:40] --eval-split train[40:60] --batch-size 8 --max-length 32 --max-steps 6 --logging-steps 2";

#[test]
fn a_probe_scores_its_rows_once_and_moves_the_last_layer() {
    let lab = Lab::new();
    let probe = |seed: u64| {
        lab.run(&format!("{SMALL} --probe --optimizer sgd --learning-rate 0.1 --seed {seed} --output $T/run-{seed}"))
    };
    let first = probe(1);
    assert_eq!(first.code, Some(0), "{}", first.err);
    assert!(first.err.contains("40 rows scored once"), "{}", first.err);
    let plan = fs::read_to_string(lab.path("run-1/run.toml")).unwrap();
    assert!(plan.contains("train_only = \"last-layer\"") && plan.contains("optimizer = \"sgd\""));
    let second = probe(2);
    assert_eq!(second.code, Some(0), "{}", second.err);
    assert!(!second.err.contains("scored once"), "{}", second.err);
    assert_eq!(fs::read_dir(lab.path("tables")).unwrap().count(), 2); // of train and of eval
    let again = lab.run("eval --model $T/run-1 --data tickets --split train[40:60]");
    assert_eq!(again.code, Some(0), "{}", again.err);

    // What a probe trains is linear in its weights, so a teacher's gradient through it is the teacher's own.
    let done = lab.run(
        "diagnose --teacher $T/run-1 --student $T/run-2 --data tickets:train[40:60] --gradients 2 --output $T/diagnosis",
    );
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(
        done.out.contains("gradients: 2 batches, 16 test rows of tickets:train[40:60]; "),
        "{}",
        done.out
    );
    assert!(done.out.contains("2 of the batches: cosine 1.000 in the median"), "{}", done.out);
    assert!(done.out.contains("report.md, flips.jsonl, gradients.json)"), "{}", done.out);
    assert!(!done.out.contains("isn't linear"), "{}", done.out);
    let report: serde_json::Value =
        serde_json::from_slice(&fs::read(lab.path("diagnosis/report.json")).unwrap()).unwrap();
    let noise = &report["diagnosis"]["gradients"];
    let names: Vec<&str> = noise["parts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| part["name"].as_str().unwrap())
        .collect();
    assert_eq!((names, &noise["rows"]), (vec!["all", "head"], &16.into()));
    let measured = "weights that were trained (the student";
    for name in ["report.html", "report.md"] {
        let text = fs::read_to_string(lab.path("diagnosis").join(name)).unwrap();
        assert!(text.contains(measured) && text.contains("radients of the student"), "{name}");
    }
}

#[test]
fn controls_and_generations_run_and_are_measured() {
    let lab = Lab::new();
    let ok = |line: &str| {
        let done = lab.run(line);
        assert_eq!(done.code, Some(0), "{line}: {}", done.err);
        done
    };
    ok(&format!("{SMALL} --output $T/old"));
    for reduction in ["modified", "unbiased"] {
        ok(&format!(
            "distil tickets --student $T/old --teacher $T/old --tables $T/tables {ROWS} --variance-reduction {reduction} \
             --lambda 0.8..0.2~cosine --output $T/{reduction}"
        ));
    }
    ok(&format!("{SMALL} --variance-reduction svrg:start=0,every=1 --output $T/svrg"));
    ok(&format!(
        "distil tickets --student tiny --teacher $T/old --tables $T/tables {ROWS} --generations 2 --output $T/born"
    ));
    let plan = fs::read_to_string(lab.path("born/generation-2/manifest.json")).unwrap();
    assert!(plan.contains("born/generation-1"), "{plan}");
    ok(
        "diagnose --teacher $T/old --student $T/born/generation-2 --data tickets:train[40:60] --train-data tickets:train[:40] \
         --gradients 4 --max-length 32 --output $T/diagnosis",
    );
    let said = fs::read(lab.path("diagnosis/gradients.json")).unwrap();
    let said: serde_json::Value = serde_json::from_slice(&said).unwrap();
    assert_eq!(said["report"]["batches"], 4);
    assert_eq!(said["report"]["groups"][0]["group"], "all");
    assert_eq!(said["report"]["own_batches"], 2);
    assert_eq!(said["report"]["cosines"].as_array().unwrap().len(), 2);
    assert_eq!(said["report"]["label_cosines"].as_array().unwrap().len(), 4);
    let caveats = said["caveats"].to_string();
    assert!(
        caveats.contains("AdamW divides") && caveats.contains("4 batches are few"),
        "{caveats}"
    );
    assert!(caveats.contains("the teacher's own gradients are of 2 batches alone"), "{caveats}");
    assert_eq!((&said["rows_of"], &said["data"]), (&"train".into(), &"tickets:train[:40]".into()));
}

#[test]
fn what_cannot_be_is_refused() {
    let lab = Lab::new();
    let done = lab.run(&format!("{SMALL} --output $T/old"));
    assert_eq!(done.code, Some(0), "{}", done.err);
    let done = lab.run("student tiny --layers 1 --output $T/shallow");
    assert_eq!(done.code, Some(0), "{}", done.err);
    let distil = |flags: &str| {
        format!("distil tickets --teacher $T/old --tables $T/tables {ROWS} --output $T/no {flags}")
    };
    let check = |line: &str, code: i32, expected: &str| {
        let done = lab.run(line);
        assert!(
            done.code == Some(code) && done.err.contains(expected),
            "{line}: {:?} {}",
            done.code,
            done.err
        );
    };
    check(
        &distil("--student $T/shallow --variance-reduction unbiased"),
        3,
        "variance reduction unbiased takes the gradient of the teacher's weights, so the teacher must be of the student's architecture, \
         sizes and classes: the student has no bert.encoder.layer.1.",
    );
    check(
        &distil("--student tiny --teacher $T/old --variance-reduction modified"),
        2,
        "variance reduction modified takes the gradients of one teacher, and 2 are named; leave the others out",
    );
    check(
        &distil("--student tiny --teacher $T/old --variance-reduction modified --dry-run"),
        2,
        "variance reduction modified takes the gradients of one teacher, and 2 are named; leave the others out",
    );
    check(
        &distil("--student tiny --variance-reduction saga"),
        2,
        "\"saga\" is no variance reduction; expected none, kd, ",
    );
    check(
        &distil("--student tiny --variance-reduction svrg:every=0"),
        2,
        "svrg: every is \"0\", expected at least 1 epoch",
    );
    check(
        &distil("--student tiny --variance-reduction svrg"),
        2,
        "its control is the student's own snapshot; take modified or unbiased with a teacher",
    );
    check(
        &distil("--student tiny --lambda 0.9*1.2@2"),
        2,
        "λ 0.9*1.2@2 is 1.080000 in update 3 of 6, expected a number from 0 to 1",
    );
    check(
        &distil("--student tiny --generations 2 --seeds 2"),
        2,
        "--generations 2 with --seeds: one student a generation is the next one's teacher; leave one of them out",
    );
    check(&format!("{SMALL} --optimizer adam --output $T/no"), 2, "expected adamw or sgd");
    check(
        "diagnose --teacher $T/old --student $T/old --data tickets:train[:60] --gradients 9 --max-length 32 --output $T/no",
        2,
        "--gradients 9: 20 rows are 2 whole batches of 8; expected from 2 to 2",
    );
}
