//! Multi-label and regression tasks from outside: trained, scored, distilled, updated, compared, and what is refused of them.

mod util;

use serde_json::{Value, json};
use util::Lab;

const WORDS: [(&str, [&str; 3]); 3] = [
    ("refund", ["refund", "money", "invoice"]),
    ("delivery", ["parcel", "courier", "doorstep"]),
    ("account", ["password", "login", "profile"]),
];
const FILLERS: [&str; 5] = ["please", "thank you", "hello", "what now", "today"];

/// Row `n` has the labels whose words it holds: none, one or two.
fn labels(n: usize) -> Vec<&'static str> {
    (0..3).filter(|at| ((n % 7) >> at) & 1 == 1).map(|at| WORDS[at].0).collect()
}

fn text(n: usize) -> String {
    let words: Vec<&str> =
        (0..3).filter(|at| ((n % 7) >> at) & 1 == 1).map(|at| WORDS[at].1[n / 7 % 3]).collect();
    format!("{} {} {} {n}", FILLERS[n % 5], words.join(" and "), FILLERS[n / 2 % 5])
}

fn sets(which: std::ops::Range<usize>) -> String {
    let row = |n: usize| {
        format!("{}\n", json!({ "id": format!("r{n}"), "text": text(n), "labels": labels(n) }))
    };
    which.map(row).collect()
}

/// The number is how many of the words are there, and a half.
fn numbers(which: std::ops::Range<usize>) -> String {
    let rows = which.map(|n| format!("r{n},{},{}\n", text(n), labels(n).len() as f64 + 0.5));
    format!("id,text,score\n{}", rows.collect::<String>())
}

const TINY: &str =
    "--model tiny --batch-size 8 --max-length 24 --learning-rate 2e-3 --logging-steps 20";

/// A folder with rows and a model of each kind.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.write("sets.jsonl", sets(0..112));
    lab.write("sets-eval.jsonl", sets(300..356));
    lab.write("numbers.csv", numbers(0..112));
    lab.write("numbers-eval.csv", numbers(300..356));
    lab
}

fn finetune(lab: &Lab, data: &str, output: &str, more: &str) {
    lab.ok(&format!(
        "finetune $T/{data} {TINY} --label-column {} --eval-split train[:40] --max-steps 80 --output $T/{output} {more}",
        if data.starts_with("sets") { "labels" } else { "score" }
    ));
}

fn finished(lab: &Lab, line: &str) -> Value {
    let done = lab.ok(&format!("{line} --json"));
    done.json().pop().unwrap()
}

/// Before anything is learnt, every text is told the labels' shares, but for what the drawn weights of the head add.
#[test]
fn a_new_head_for_sets_starts_at_the_labels_shares() {
    let lab = lab();
    // Of 120 rows 12, 48 and 96, so that none is told the share of another.
    let of_row = |n: usize| {
        let has = [n.is_multiple_of(10), n % 5 < 2, n % 5 < 4];
        WORDS
            .iter()
            .zip(has)
            .filter(|(_, has)| *has)
            .map(|((name, _), _)| *name)
            .collect::<Vec<_>>()
    };
    let row = |n: usize| {
        format!("{}\n", json!({ "id": format!("r{n}"), "text": text(n), "labels": of_row(n) }))
    };
    lab.write("sets.jsonl", (0..120).map(row).collect::<String>());
    lab.ok(
        "finetune $T/sets.jsonl --model tiny --max-length 24 --label-column labels --eval-split none --max-steps 1 --learning-rate \
         1e-12 --output $T/m",
    );
    lab.ok(
        "predict --model $T/m --data $T/sets-eval.jsonl --label-column labels --output $T/m.jsonl",
    );
    for ((name, _), share) in WORDS.iter().zip([0.1, 0.4, 0.8]) {
        for row in lab.lines("m.jsonl") {
            let score = row["scores"][*name].as_f64().unwrap();
            assert!((score - share).abs() < 0.1, "{name}: {score}, {share} of the rows have it");
        }
    }
}

/// The verdict is of the rows that the report counts, and turns where the limit does.
fn judged_by_its_flips(lab: &Lab, report: &Value) {
    let (check, flips) =
        (&report["certificate"]["checks"][0], &report["comparison"]["all"]["flips"]);
    assert_eq!((&check["count"], &check["of"]), (&flips["changed"], &flips["rows"]));
    let (count, of) = (check["count"].as_u64().unwrap(), check["of"].as_u64().unwrap());
    assert!(of > 150 && count > 0 && check["verdict"] == "PASS", "{check}");
    // (1 − 0.0001)²⁰⁰ is 0.98: one changed row of so few is beyond a limit of one in ten thousand.
    lab.run("gate $T/new/report.json --max-churn 0.01%").expect(10);
}

#[test]
fn sets_of_labels_from_rows_to_a_certified_update() {
    let lab = lab();
    finetune(&lab, "sets.jsonl", "old", "--threshold tuned");
    let config = lab.json("old/config.json");
    assert_eq!(config["problem_type"], "multi_label_classification");
    assert_eq!(config["id2label"]["0"], "account");
    let results = lab.json("old/eval_results.json");
    assert!(results["scores"]["f1"].as_f64().unwrap() > 0.6, "{results}");
    assert!(results["scores"]["macro_f1"].is_number() && results["scores"]["accuracy"].is_number());
    let tuned = config["thresholds"].as_object().cloned().unwrap_or_default();
    assert!(tuned.values().all(|value| (0.0..1.0).contains(&value.as_f64().unwrap())));

    // What is stored with the model is what it is scored with.
    let on = "--data $T/sets.jsonl --split train[:40] --label-column labels";
    let scored = finished(&lab, &format!("eval --model $T/old {on}"));
    assert_eq!(scored["metrics"]["f1"], results["scores"]["f1"]);
    let high = finished(&lab, &format!("eval --model $T/old {on} --threshold 0.999999"));
    assert!(high["metrics"]["f1"].as_f64() <= scored["metrics"]["f1"].as_f64());

    lab.ok("predict --model $T/old --data $T/sets-eval.jsonl --label-column labels --output $T/old.jsonl --logits");
    let rows = lab.lines("old.jsonl");
    assert_eq!(rows.len(), 56);
    for row in &rows {
        let scores = row["scores"].as_object().unwrap();
        assert_eq!(scores.len(), 3);
        let threshold = |name: &str| tuned.get(name).and_then(Value::as_f64).unwrap_or(0.5);
        let said: Vec<Value> = scores
            .iter()
            .filter(|(name, p)| p.as_f64().unwrap() >= threshold(name))
            .map(|(name, _)| json!(name))
            .collect();
        assert_eq!(row["labels"], json!(said));
        assert!(row["gold"].is_array() && row["logits"].as_array().unwrap().len() == 3);
    }

    let update = "update --base $T/old --old $T/sets.jsonl --new $T/sets-eval.jsonl --label-column labels --holdout \
                  $T/held.jsonl --method distil:lambda=0.5,temperature=2 --max-steps 20 --max-churn 95% --tables $T/tables \
                  --interpolate none --output $T/new";
    lab.write("held.jsonl", sets(1000..1300));
    lab.ok(update);
    let report = lab.json("new/report.json");
    judged_by_its_flips(&lab, &report);
    assert_eq!(report["comparison"]["answers"]["kind"], "sets");
    assert_eq!(report["comparison"]["answers"]["labels"].as_array().unwrap().len(), 3);
    assert!(report["comparison"]["answers"]["micro_f1_new"].is_number());
    assert!(lab.text("new/report.html").contains("whole set right"));
    assert!(lab.text("new/report.md").contains("micro F1"));
    let config = lab.json("new/config.json");
    assert_eq!(config["problem_type"], "multi_label_classification");
    assert_eq!(config["thresholds"].as_object().cloned().unwrap_or_default(), tuned);

    // The same by files of predictions, without models.
    lab.ok("predict --model $T/new --data $T/sets-eval.jsonl --label-column labels --output $T/new.jsonl");
    lab.ok("compare $T/old.jsonl $T/new.jsonl --output $T/files");
    lab.ok(
        "compare $T/old $T/new --data $T/sets-eval.jsonl --label-column labels --output $T/models",
    );
    let flips = |folder: &str| {
        lab.json(&format!("{folder}/report.json"))["comparison"]["all"]["flips"].clone()
    };
    assert_eq!(flips("files"), flips("models"));
    let gate = lab.run("gate $T/files/report.json --max-churn 99%");
    assert_eq!(gate.code, Some(0), "{}", gate.err);
}

/// What a run was trained on is read again as the kind that it was, though its cells look like another's: whole numbers are no
/// classes, and sets in cells are no names. So the next update finds its rows, and a comparison leaves them out.
#[test]
fn a_record_is_read_again_as_what_it_was() {
    let lab = Lab::new();
    let ratings = |which: std::ops::Range<usize>| -> String {
        let rows = which.map(|n| format!("r{n},{},{}\n", text(n), 1 + labels(n).len()));
        format!("id,text,score\n{}", rows.collect::<String>())
    };
    let cells = |which: std::ops::Range<usize>| -> String {
        // An empty cell is no set, but no label: such rows were left out when it was trained, and are again.
        let rows = which.map(|n| format!("r{n},{},\"{}\"\n", text(n), labels(n).join(",")));
        format!("id,text,labels\n{}", rows.collect::<String>())
    };
    lab.write("ratings.csv", ratings(0..64));
    lab.write("ratings-new.csv", ratings(300..332));
    lab.write("sets.csv", cells(0..64));
    let labelled = cells(300..332).replace(",\"\"\n", ",refund\n");
    lab.write("sets-new.csv", labelled);
    for (name, column, kind, more) in [
        ("ratings", "score", "regression", "--tolerance 0.25"),
        ("sets", "labels", "multi_label_classification", ""),
    ] {
        lab.ok(&format!(
            "finetune $T/{name}.csv {TINY} --label-column {column} --problem-type {kind} --max-steps 4 --output $T/{name}"
        ));
        let steps = "--method retrain --max-steps 2 --interpolate none --tables $T/tables";
        for (base, next) in
            [(name.to_string(), format!("{name}-v2")), (format!("{name}-v2"), format!("{name}-v3"))]
        {
            let done = lab.ok(&format!(
                "update --base $T/{base} --new $T/{name}-new.csv --label-column {column} {steps} {more} --output $T/{next}"
            ));
            assert!(!done.out.contains("rows: 0 old, "), "{}", done.out);
        }
        let done = lab.ok(&format!(
            "compare $T/{name} $T/{name}-v2 --data $T/{name}.csv --label-column {column} {more} --output $T/seen"
        ));
        let said = format!(" rows have a text that $T/{name}-v2 was trained on");
        assert!(done.err.contains(&said), "{}", done.err);
    }
    // A label that came with an update is one that the model before never says.
    lab.write("grown.jsonl", sets(400..440).replace("\"account\"", "\"voucher\""));
    lab.ok(
        "update --base $T/sets --old none --new $T/grown.jsonl --label-column labels --allow-new-classes --method retrain --max-steps 2 \
         --interpolate none --tables $T/tables --output $T/grown",
    );
    lab.write("held.jsonl", sets(500..560).replace("\"account\"", "\"voucher\""));
    lab.ok(
        "compare $T/sets $T/grown --data $T/held.jsonl --label-column labels --output $T/by-both",
    );
}

#[test]
fn numbers_from_rows_to_a_certified_update() {
    let lab = lab();
    finetune(&lab, "numbers.csv", "old", "");
    let config = lab.json("old/config.json");
    assert_eq!(config["problem_type"], "regression");
    assert_eq!(
        (&config["id2label"], &config["label2id"]),
        (&json!({ "0": "LABEL_0" }), &json!({ "LABEL_0": 0 }))
    );
    let results = lab.json("old/eval_results.json");
    assert!(results["scores"]["pearson"].as_f64().unwrap() > 0.6, "{results}");
    assert!(results["scores"].get("accuracy").is_none());
    lab.ok("predict --model $T/old --data $T/numbers-eval.csv --label-column score --output $T/old.jsonl");
    let rows = lab.lines("old.jsonl");
    assert!(rows.iter().all(|row| row["value"].is_number() && row["gold"].is_number()));

    lab.write("held.csv", numbers(1000..1300));
    let update = "update --base $T/old --old $T/numbers.csv --new $T/numbers-eval.csv --label-column score --holdout \
                  $T/held.csv --method distil:lambda=0.5 --max-steps 20 --max-churn 95% --tables $T/tables --interpolate none \
                  --output $T/new";
    lab.ok(&format!("{update} --tolerance 0.25"));
    let report = lab.json("new/report.json");
    judged_by_its_flips(&lab, &report);
    assert_eq!(report["comparison"]["answers"]["kind"], "values");
    assert_eq!(report["comparison"]["answers"]["tolerance"], 0.25);
    assert!(lab.text("new/report.html").contains("within 0.25 of the truth"));
    let error = lab.run(update).expect(2).error().to_string();
    assert!(
        error.starts_with("the model is a regression") && error.ends_with("--tolerance 0.25"),
        "{error}"
    );

    lab.ok("predict --model $T/new --data $T/numbers-eval.csv --label-column score --output $T/new.jsonl");
    lab.ok("compare $T/old.jsonl $T/new.jsonl --tolerance 0.25 --output $T/files");
    lab.ok("compare $T/old $T/new --data $T/numbers-eval.csv --label-column score --tolerance 0.25 --output $T/models");
    let flips = |folder: &str| {
        lab.json(&format!("{folder}/report.json"))["comparison"]["all"]["flips"].clone()
    };
    assert_eq!(flips("files"), flips("models"));
    let error = lab
        .run("compare $T/old.jsonl $T/new.jsonl --output $T/files")
        .expect(2)
        .error()
        .to_string();
    assert!(error.contains("--tolerance 0.25"), "{error}");
}

/// Merged into its base an adapter of either kind is the run's model, with its kind and thresholds.
#[test]
fn an_adapter_keeps_its_kind() {
    let lab = lab();
    for (data, more, kind) in [
        ("sets.jsonl", "--threshold 0.4", "multi_label_classification"),
        ("numbers.csv", "", "regression"),
    ] {
        let (column, run) = (if kind == "regression" { "score" } else { "labels" }, kind);
        finetune(&lab, data, run, &format!("--lora-rank 4 {more}"));
        let predict = |model: &str| {
            lab.ok(&format!(
                "predict --model {model} --data $T/{data} --split train[:20] --label-column {column} --logits --output $T/{kind}.jsonl"
            ));
            lab.read(&format!("{kind}.jsonl"))
        };
        assert!(predict(&format!("$T/{run}/adapter")) == predict(&format!("$T/{run}")), "{kind}");
        let merged = lab.names("hf/hub/.lowchurn-merged");
        let mut kinds = merged.iter().map(|name| {
            lab.json(&format!("hf/hub/.lowchurn-merged/{name}config.json"))["problem_type"].clone()
        });
        assert!(kinds.any(|found| found == kind), "{merged:?}");
    }
}

#[test]
fn a_student_learns_from_a_teacher_of_its_kind() {
    let lab = lab();
    finetune(&lab, "sets.jsonl", "sets", "");
    finetune(&lab, "numbers.csv", "numbers", "");
    let distil = |data: &str, column: &str, teacher: &str, more: &str| {
        format!(
            "distil $T/{data} {TINY} --label-column {column} --eval-split none --max-steps 10 --teacher $T/{teacher} --tables \
             $T/tables --output $T/student-{teacher} --fresh {more}"
        )
    };
    lab.ok(&distil("sets.jsonl", "labels", "sets", "--lambda 0.5 --temperature 2"));
    assert_eq!(lab.json("student-sets/config.json")["problem_type"], "multi_label_classification");
    lab.ok(&distil("numbers.csv", "score", "numbers", "--lambda 0.5"));
    assert_eq!(lab.json("student-numbers/config.json")["problem_type"], "regression");
    // What a teacher shows besides is of no kind.
    let states = "--lambda 0.5 --hidden-weight 1 --attention-weight 0.1 --relation-weight 1 --vector-weight 1";
    for (data, column, teacher) in
        [("sets.jsonl", "labels", "sets"), ("numbers.csv", "score", "numbers")]
    {
        let plain = lab.read(&format!("student-{teacher}/model.safetensors"));
        let line = distil(data, column, teacher, states);
        lab.ok(&line);
        let found = lab.read(&format!("student-{teacher}/model.safetensors"));
        assert!(found != plain, "{teacher}: the states change nothing");
        lab.ok(&line);
        assert!(lab.read(&format!("student-{teacher}/model.safetensors")) == found, "{teacher}");
    }
    let refused = |line: String, expected: &str| {
        let error =
            lab.run(&line).expect(2).error().replace(&lab.root().display().to_string(), "$T");
        assert_eq!(error, expected);
    };
    refused(
        distil("numbers.csv", "score", "sets", ""),
        "teacher $T/sets is a multi-label model, but the rows are of a regression task; take a teacher of the same kind",
    );
    refused(
        distil("sets.jsonl", "labels", "sets", "--method focal"),
        "method focal is for single-label tasks, and this is a multi-label one; methods for it: retrain, distil, inhibition, \
         shrink-perturb, l2-old, mixout",
    );
    refused(
        distil("numbers.csv", "score", "numbers", "--temperature 2"),
        "distil: of a regression the teacher's term is the squared error; divergence and temperature are for single-label and \
         multi-label tasks, leave them out",
    );
    refused(
        distil("sets.jsonl", "labels", "sets", "--emit-soft-labels $T/soft.jsonl"),
        "--emit-soft-labels is for single-label tasks, and the model is a multi-label one; lowchurn update and lowchurn compare \
         know all kinds",
    );
    refused(
        "compare $T/sets $T/numbers --data $T/sets.jsonl --label-column labels --output $T/c"
            .into(),
        "$T/sets is a multi-label model and $T/numbers a regression one; compare models of one kind of task",
    );
    refused(
        "repair $T/sets $T/student-sets --holdout $T/sets.jsonl --label-column labels".into(),
        "repair is for single-label tasks, and the model is a multi-label one; lowchurn update and lowchurn compare know all kinds",
    );
}

#[test]
fn what_means_nothing_for_a_kind_is_refused() {
    let lab = lab();
    let check = |data: &str, more: &str, code: i32, expected: &str| {
        let line = format!(
            "finetune $T/{data} {TINY} --eval-split none --max-steps 2 --output $T/run {more}"
        );
        let done = lab.run(&line).expect(code);
        assert_eq!(done.error(), expected, "{line}");
    };
    let sets = "--label-column labels";
    let numbers = "--label-column score";
    check(
        "sets.jsonl",
        &format!("{sets} --problem-type regression"),
        3,
        "$T/sets.jsonl: column \"labels\" holds lists, but this is a regression task; give --problem-type \
         multi_label_classification, or another label column",
    );
    check(
        "numbers.csv",
        &format!("{numbers} --problem-type single_label_classification"),
        3,
        "$T/numbers.csv:2: column \"score\" holds 0.5, a number and not a class; give --problem-type regression, or another label \
         column",
    );
    check(
        "numbers.csv",
        &format!("{numbers} --select-by f1"),
        2,
        "metric f1 isn't one of a regression task (expected pearson or spearman)",
    );
    check(
        "numbers.csv",
        &format!("{numbers} --class-weights balanced"),
        2,
        "class weights are for single-label and multi-label tasks, and this is a regression; leave them out",
    );
    check(
        "numbers.csv",
        &format!("{numbers} --threshold 0.3"),
        2,
        "threshold is for multi-label tasks, and this is a regression one; leave it out",
    );
    check(
        "sets.jsonl",
        &format!("{sets} --label-smoothing 0.1"),
        2,
        "label_smoothing is for single-label tasks, and this is a multi-label one; leave it out",
    );
    check(
        "sets.jsonl",
        &format!("{sets} --threshold tuned"),
        2,
        "threshold tuned: thresholds are tuned on the rows of the evaluation, and there is none; give a number, or an --eval-split",
    );
    lab.write(
        "one.jsonl",
        "{\"text\": \"a\", \"label\": [\"x\"]}\n{\"text\": \"b\", \"label\": []}\n",
    );
    check("one.jsonl", "", 3, "one:train: a label set needs at least two names, got x");
    lab.write("nan.csv", "text,score\na,0.5\nb,nan\n");
    check(
        "nan.csv",
        &format!("{numbers} --problem-type regression"),
        3,
        "$T/nan.csv:3: column \"score\" holds NaN, not a finite number; leave the cell empty where a row has no value",
    );
    finetune(&lab, "sets.jsonl", "model", "--class-weights refund=2");
    lab.write("other.jsonl", "{\"text\": \"a\", \"labels\": [\"refund\", \"parking\"]}\n");
    let on = "eval --model $T/model --data $T/other.jsonl --label-column labels";
    let error = lab.run(on).expect(3).error().to_string();
    assert_eq!(
        error,
        "$T/other.jsonl:1: column \"labels\" holds \"parking\", which isn't one of the 3 labels account, delivery, refund"
    );
    let on = "eval --model $T/model --data $T/sets.jsonl --label-column labels";
    let error = lab.run(&format!("{on} --threshold 1")).expect(2).error().to_string();
    assert_eq!(error, "--threshold 1: expected a number between 0 and 1");
}

/// Weights move the bytes; without them a run is as it was.
#[test]
fn class_weights_are_part_of_a_run() {
    let lab = Lab::new();
    let run = |output: &str, more: &str| {
        lab.ok(&format!("{} --output $T/{output} {more}", util::SMALL));
        lab.read(&format!("{output}/model.safetensors"))
    };
    let plain = run("plain", "");
    assert_ne!(plain, run("balanced", "--class-weights balanced"));
    let again = lab.ok("finetune --plan $T/balanced/run.toml --output $T/again");
    assert_eq!(again.code, Some(0));
    assert_eq!(lab.read("balanced/model.safetensors"), lab.read("again/model.safetensors"));
    assert!(lab.text("balanced/run.toml").contains("class_weights = \"balanced\""));
}
