//! `diagnose` from end to end: a teacher and the student that it made, their predictions as files, every mistake's message, and a
//! loss that is switched in the middle.

#[path = "util/checked.rs"]
mod checked;
mod util;

use checked::report;
use serde_json::{Value, json};
use util::{Lab, SMALL};

/// The teacher's logits, and a student's that are pushed away from 2 and surer than they were.
fn predictions(lab: &Lab, name: &str, rows: usize, slope: f64) {
    let line = |row: usize| {
        let sure = (row * 37 % 100) as f64 / 20.0;
        let z = slope * (sure - 2.0) + 2.0 + (row * 13 % 7) as f64 / 20.0;
        let p = 1.0 / (1.0 + (-z).exp());
        let said = if z >= 0.0 { "no" } else { "yes" };
        let scores = json!({ "no": p as f32, "yes": (1.0 - p) as f32 });
        json!({ "id": row.to_string(), "label": said, "gold": "no", "scores": scores, "logits": [z, 0.0] })
            .to_string()
            + "\n"
    };
    lab.write(name, (0..rows).map(line).collect::<String>());
}

#[test]
fn a_student_is_diagnosed_from_its_models_and_from_its_predictions() {
    let lab = Lab::new();
    let kept = "--keep-checkpoints --save-steps 2";
    lab.ok(&format!("{SMALL} {kept} --output $T/teacher"));
    let distil = SMALL.replacen("finetune", "distil", 1);
    let line =
        format!("{distil} {kept} --teacher $T/teacher --tables $T/tables --output $T/student");
    lab.ok(&format!("{line} --lambda 1 --temperature 2 --switch-at 50% --switch-to labels"));
    let plan = lab.text("student/run.toml");
    assert!(plan.contains("method = \"distil:lambda=1..0@50%,temperature=2,"), "{plan}");

    let pair = "--teacher $T/teacher --student $T/student";
    let rows = "--data tickets:train[40:140] --train-data tickets:train[:40]";
    let done = lab.ok(&format!("diagnose {pair} {rows} --directions 3"));
    assert_eq!(
        lab.names("student/diagnosis"),
        ["flips.jsonl", "report.html", "report.json", "report.md"]
    );
    let models = report(&lab, "student/diagnosis");
    let parts = models["diagnosis"]["parts"].as_array().unwrap();
    assert_eq!((&parts[0]["rows"], &parts[0]["rows_of"]), (&json!(100), &json!("test")));
    assert_eq!((&parts[1]["rows"], &parts[1]["rows_of"]), (&json!(40), &json!("train")));
    let gaps = [0, 1].map(|part| &parts[part]["class_gaps"]);
    let labels = |of: &Value| of.as_array().unwrap().len();
    assert_eq!(labels(&gaps[0]["classes"]), labels(&models["labels"]));
    let [of_test, of_train] = gaps.map(|gaps| &gaps["said"]);
    let advice = &models["diagnosis"]["advice"];
    for said in [&parts[0]["said"], &parts[1]["said"], of_test, of_train, advice] {
        assert!(done.out.contains(said.as_str().unwrap()), "{said}\n{}", done.out);
    }
    let page = lab.text("student/diagnosis/report.html");
    assert!(
        page.contains("id=\"deviations\"") && page.contains("Old is the teacher, new the student")
    );

    // Of every checkpoint; the run itself left one before the first update.
    let directions = &models["diagnosis"]["directions"];
    assert_eq!(directions["teacher_steps"], json!([0, 2, 4, 5, 6])); // 5 ends an epoch
    let names: Vec<&Value> =
        directions["layers"].as_array().unwrap().iter().map(|layer| &layer["name"]).collect();
    assert_eq!(names, ["layer 0", "layer 1", "head"]);
    let head = &directions["layers"][2];
    assert_eq!(head["teacher"][0], json!([0.0, 0.0, 0.0]));
    let way = |step: usize| head["student"][step][0].as_f64().unwrap();
    assert!(0.0 < way(1) && way(1) < way(4));
    assert!(
        done.out.contains("directions: at equal progress along the first direction"),
        "{}",
        done.out
    );

    let switch = models["diagnosis"]["switch"]["said"].as_str().unwrap();
    let said = "the student's loss was switched after 50% of its updates, from λ 1 to λ 0; at update 2, before that, the slope is ";
    assert!(switch.starts_with(said), "{switch}");
    assert!(done.out.contains(&format!("switch: {switch}")), "{}", done.out);
    assert!(models["diagnosis"]["switch"]["kept"][1]["line"]["slope"].is_f64());
    let done = lab.ok(&format!(
        "diagnose {pair} --data tickets:train[40:60] --directions 300 --output $T/many"
    ));
    let many = report(&lab, "many");
    let used =
        many["diagnosis"]["directions"]["layers"][0]["eigenvalues"].as_array().unwrap().len();
    let said = format!(
        "; of the 300 directions asked for there are {used}; 20 rows span at most as many of the head's {used} directions, and the \
         others are anyone's: give more rows, or ask for fewer"
    );
    assert!(used < 300 && done.out.contains(&said), "{used} {}", done.out);

    // The same from files, to the last digit.
    for name in ["teacher", "student"] {
        for (rows, part) in [("train[40:140]", "test"), ("train[:40]", "train")] {
            lab.ok(&format!(
                "predict --model $T/{name} --data tickets:{rows} --logits --output $T/{name}-{part}.jsonl"
            ));
        }
    }
    lab.ok(
        "diagnose --teacher $T/teacher-test.jsonl --student $T/student-test.jsonl --teacher-train $T/teacher-train.jsonl \
         --student-train $T/student-train.jsonl --output $T/files",
    );
    let files = report(&lab, "files");
    // A file and a model, with the rows that the model is to be scored on.
    lab.ok(
        "diagnose --teacher $T/teacher-test.jsonl --student $T/student --data tickets:train[40:140] --train-data tickets:train[:40] \
         --teacher-train $T/teacher-train.jsonl --output $T/mixed",
    );
    let mixed = report(&lab, "mixed");
    for (at, part) in files["diagnosis"]["parts"].as_array().unwrap().iter().enumerate() {
        assert_eq!(part["all"], mixed["diagnosis"]["parts"][at]["all"], "part {at}");
    }
    for (part, other) in parts.iter().zip(files["diagnosis"]["parts"].as_array().unwrap()) {
        for key in [
            "all",
            "low",
            "high",
            "quarters",
            "points",
            "finding",
            "teacher_accuracy",
            "class_gaps",
        ] {
            assert_eq!(part[key], other[key], "{key}");
        }
    }
    // A model is its own student: the slope is 1.
    let line = "diagnose --teacher $T/teacher --student $T/teacher --data tickets:train[40:60] --output $T/same";
    lab.ok(line);
    let same = report(&lab, "same");
    let part = &same["diagnosis"]["parts"][0];
    let slope = part["all"]["line"]["slope"].as_f64().unwrap();
    assert!((slope - 1.0).abs() < 1e-12, "{slope}");
    assert_eq!(part["finding"], "alike");
    assert!(part["said"].as_str().unwrap().ends_with("; the two say the same of every row"));
}

/// With the lab's folder as messages have it.
fn plain(lab: &Lab, value: &Value) -> String {
    value.to_string().replace(&lab.root().display().to_string(), "$T")
}

#[test]
fn rows_that_a_side_was_trained_on_are_told_apart() {
    let lab = Lab::new();
    lab.ok(&format!("{SMALL} --output $T/teacher"));
    let distil = SMALL.replacen("finetune", "distil", 1);
    lab.ok(&format!("{distil} --teacher $T/teacher --tables $T/tables --output $T/student"));
    let pair = "diagnose --teacher $T/teacher --student $T/student --output $T/out";
    let check = |rows: &str, said: &str, expected: &[(&str, u64)]| {
        let done = lab.ok(&format!("{pair} {rows}"));
        assert!(done.err.contains(said), "{rows}: {}", done.err);
        let report = report(&lab, "out");
        let parts = report["diagnosis"]["parts"].as_array().unwrap();
        let found: Vec<(&str, u64)> = parts
            .iter()
            .map(|part| (part["rows_of"].as_str().unwrap(), part["rows"].as_u64().unwrap()))
            .collect();
        assert_eq!(found, expected, "{rows}");
        let notes = plain(&lab, &report["alignment"]);
        assert!(notes.contains(said), "{rows}: {notes}");
    };
    let seen =
        |n: u64, of: u64| format!("{n} of {of} rows have a text that $T/student was trained on");
    check(
        "--data tickets:train[20:60]",
        &format!("tickets:train[20:60]: {}; they are left out", seen(20, 40)),
        &[("test", 20)],
    );
    check(
        "--data tickets:train[:40]",
        &format!("{}; no row is new to both, so these are called training rows", seen(40, 40)),
        &[("train", 40)],
    );
    check(
        "--data tickets:train[40:60] --train-data tickets:train[30:50]",
        &format!("tickets:train[30:50]: {}; the others are left out", seen(10, 20)),
        &[("test", 20), ("train", 10)],
    );
    let refused = |rows: &str, said: &str| {
        let done = lab.run(&format!("{pair} {rows}")).expect(2);
        assert_eq!(done.error(), said, "{rows}");
    };
    refused(
        "--data tickets:train[:40] --train-data tickets:train[:40]",
        "--train-data: tickets:train[:40] has the texts of --data; name the rows that the student was trained on, or leave it out",
    );
    refused(
        "--data tickets:train[40:60] --train-data tickets:train[60:80]",
        "on the training rows: no row of tickets:train[60:80] has a text that $T/student was trained on, which is \
         tickets:train[:40]; name those, or leave it out",
    );
}

#[test]
fn rows_of_a_class_that_a_side_lacks_are_left_out() {
    let lab = Lab::new();
    lab.ok(&format!("{SMALL} --output $T/all"));
    let row = |id: usize, label: &str| {
        json!({ "id": format!("r{id}"), "text": format!("about my order, number {id}"), "label": label })
            .to_string()
            + "\n"
    };
    let rows = |labels: &[&str], n: usize| -> String {
        (0..n).map(|id| row(id, labels[id % labels.len()])).collect()
    };
    lab.write("two.jsonl", rows(&["payment", "returns"], 24));
    lab.ok(
        "finetune $T/two.jsonl --model tiny --eval-split none --batch-size 8 --max-length 32 --max-steps 3 --output $T/two",
    );
    let new = |labels: &[&str]| rows(labels, 12).replace("about", "it is about");
    lab.write("new.jsonl", new(&["payment", "warranty", "returns"]));
    lab.write("lacking.jsonl", new(&["warranty"]));
    lab.write("odd.jsonl", new(&["payment", "Returns"]));
    let pair = "diagnose --teacher $T/two --student $T/all --output $T/out";
    let done = lab.ok(&format!("{pair} --data $T/new.jsonl"));
    let said = "4 of 12 rows are of a class that $T/two lacks (warranty); they are left out";
    assert!(done.err.contains(said), "{}", done.err);
    let report = report(&lab, "out");
    assert_eq!(report["diagnosis"]["parts"][0]["rows"], 8);
    assert!(plain(&lab, &report["alignment"]).contains(said));
    let check = |line: &str, said: &str| {
        let done = lab.run(line).expect(3);
        assert!(done.error().contains(said), "{}", done.error());
    };
    check(
        &format!("{pair} --data $T/lacking.jsonl"),
        ": no row has a class that both models know; $T/two lacks warranty; give rows of other classes, or say what its own became with \
         --label-map",
    );
    check(
        &format!("{pair} --data $T/odd.jsonl"),
        ": Returns is no class of $T/two (payment, returns) nor of $T/all (",
    );
    check(
        "diagnose --teacher $T/all --student $T/two --output $T/out --data $T/new.jsonl",
        "$T/all has labels that $T/two doesn't: ",
    );
}

#[test]
fn exaggeration_is_named() {
    let mut lab = Lab::new();
    lab.cwd = lab.root().to_path_buf();
    predictions(&lab, "t.jsonl", 200, 1.0);
    predictions(&lab, "s.jsonl", 200, 1.5);
    let done = lab.ok("diagnose --teacher t.jsonl --student s.jsonl --json");
    let last: Value = serde_json::from_str(done.out.lines().last().unwrap()).unwrap();
    assert_eq!(last["parts"][0]["finding"], "exaggerates");
    assert!(lab.path("diagnose-t-s/report.html").exists());
    let refused = lab.run("gate diagnose-t-s/report.json --max-churn 99%").expect(2);
    assert!(
        refused.error().starts_with("diagnose-t-s/report.json: a report of diagnose, "),
        "{}",
        refused.err
    );
    let done = lab.ok("diagnose --teacher t.jsonl --student s.jsonl --quantile 0.25");
    for words in [
        "200 test rows: slope 1.498 (1.493 to 1.502)",
        "the student exaggerates the teacher's confidence: it is less sure where the teacher is unsure (low-confidence underfitting, −",
        "in the mean of the lowest 25 %) and surer where the teacher is sure (high-confidence overfitting, +",
        "lowest 25 %          50",
        "what to do: To follow the teacher more closely, raise T. The student is less often right than the teacher",
        "report: diagnose-t-s/report.html (and report.json, report.md, flips.jsonl)",
    ] {
        assert!(done.out.contains(words), "{words}\n{}", done.out);
    }
    predictions(&lab, "t2.jsonl", 2, 1.0);
    predictions(&lab, "s2.jsonl", 2, 1.5);
    let done = lab.ok("diagnose --teacher t2.jsonl --student s2.jsonl");
    assert!(done.out.contains("(no interval); too few rows to say more"), "{}", done.out);
}

#[test]
fn what_cannot_be_diagnosed_says_why() {
    let mut lab = Lab::new();
    lab.cwd = lab.root().to_path_buf();
    predictions(&lab, "t.jsonl", 9, 1.0);
    predictions(&lab, "s.jsonl", 9, 1.5);
    predictions(&lab, "fewer.jsonl", 8, 1.5);
    let check = |line: &str, code: i32, expected: &str| {
        let done = lab.run(&format!("diagnose {line} --output out")).expect(code);
        assert_eq!(done.error(), expected, "stderr of: {line}");
        assert!(!lab.path("out").exists(), "left behind by: {line}");
    };
    lab.write("plain.csv", "id,label\n1,no\n");
    let row = |logits: &str| {
        format!("{{\"id\":\"0\",\"label\":\"no\",\"scores\":{{\"no\":1.0,\"yes\":0.0}}{logits}}}\n")
    };
    lab.write("bare.jsonl", row(""));
    lab.write("other.jsonl", row(",\"logits\":[1,0]").replace("yes", "maybe"));
    lab.write("gold.jsonl", row(",\"gold\":\"nein\",\"logits\":[1,0]"));
    lab.write(
        "both.jsonl",
        row(",\"logits\":[1,0]")
            + &row(",\"logits\":[1,0]").replace("yes", "maybe").replace("\"0\"", "\"1\""),
    );
    lab.write(
        "sets.jsonl",
        "{\"id\":\"0\",\"labels\":[\"no\"],\"scores\":{\"no\":1.0,\"yes\":0.0},\"logits\":[1,0]}\n",
    );
    let (t, s) = ("--teacher t.jsonl", "--student s.jsonl");
    check(
        &format!("{t} {s} --data tickets"),
        2,
        "--data tickets: both sides are predictions already, and no model is there to be scored on it; leave it out",
    );
    check(
        &format!("{t} {s} --quantile 0"),
        2,
        "a quantile of 0; expected a share between 0 and 1, such as 0.5",
    );
    check(
        &format!("{t} {s} --confidence 1"),
        2,
        "a confidence of 1; expected one between 0.5 and 1, such as 0.95",
    );
    check(
        &format!("{t} --student plain.csv"),
        3,
        "plain.csv: logits are read from JSON lines, as lowchurn predict --logits writes them",
    );
    check(
        &format!("{t} --student bare.jsonl"),
        3,
        "bare.jsonl: row \"0\" has no logits, and probabilities are too coarse to tell how sure a model is; write them with \
         lowchurn predict --logits",
    );
    check(
        "--teacher both.jsonl --student s.jsonl",
        3,
        "both.jsonl: row \"1\" has scores of no, maybe, and the rows before it of no, yes; a file is of one model",
    );
    check(
        "--teacher gold.jsonl --student s.jsonl",
        3,
        "gold.jsonl: row \"0\" has the true class \"nein\", which isn't one of the model's (no, yes)",
    );
    check(
        &format!("{t} --student other.jsonl"),
        3,
        "t.jsonl has labels that other.jsonl doesn't: yes (its labels: no, maybe); say what became of them with --label-map \
         yes=NEW",
    );
    check(
        &format!("{t} --student fewer.jsonl"),
        3,
        "t.jsonl and fewer.jsonl hold different rows: 1 only in the old (8), 0 only in the new (none); predict the same rows \
         with both, or compare those in both with --allow-partial",
    );
    let done = lab.run(&format!("diagnose {t} --student sets.jsonl")).expect(3);
    let said = "sets.jsonl:1: isn't a prediction (unknown field `labels`";
    assert!(done.error().starts_with(said), "{}", done.error());
    check(
        &format!("{t} {s} --teacher-train t.jsonl"),
        2,
        "s.jsonl is a file, so its predictions of the training rows are needed too: --student-train FILE.jsonl",
    );
    check(
        &format!("{t} {s} --train-data tickets"),
        2,
        "--train-data tickets: both sides are predictions already, and no model is there to be scored on it; leave it out",
    );
    check(
        &format!("{t} {s} --gradients 2"),
        2,
        "--gradients needs the folders of two models, not their predictions",
    );
}

#[test]
fn models_of_other_kinds_and_rows_that_are_not_named_are_refused() {
    let lab = Lab::new();
    lab.ok(&format!("{SMALL} --output $T/model"));
    let check = |line: &str, expected: &str| {
        let done = lab.run(line).expect(2);
        assert_eq!(done.error(), expected, "stderr of: {line}");
    };
    let model = "$T/model";
    check(
        "diagnose --teacher $T/model --student $T/model",
        &format!("{model} is a model; say which rows to score it on with --data"),
    );
    let pair = "diagnose --teacher $T/model --student $T/model --data tickets:train[:9]";
    check(&format!("{pair} --directions 1"), "--directions 1: expected at least 2");
    let done = lab.run(&format!("{pair} --directions 4")).expect(3);
    assert_eq!(
        done.error(),
        format!(
            "{model}: 0 checkpoints are kept there, and the way of a run needs one of before its first update and later ones; \
             train it with --keep-checkpoints --save-steps 20"
        )
    );
    predictions(&lab, "t.jsonl", 3, 1.0);
    check(
        "diagnose --teacher $T/t.jsonl --student $T/t.jsonl --directions 4 --output $T/out",
        "--directions needs the folders of two runs, not their predictions",
    );
    check(
        "diagnose --teacher $T/t.jsonl --student $T/t.jsonl --gradients 4 --output $T/out",
        "--gradients needs the folders of two models, not their predictions",
    );
    lab.copy(lab.path("model").to_str().unwrap(), "turned");
    let mut turned = lab.json("turned/config.json");
    let classes = turned["id2label"].as_object().unwrap().clone();
    let turned_to = |class: usize| classes[&(classes.len() - 1 - class).to_string()].clone();
    for class in 0..classes.len() {
        turned["id2label"][class.to_string()] = turned_to(class);
        turned["label2id"][turned_to(class).as_str().unwrap()] = json!(class);
    }
    lab.write("turned/config.json", turned.to_string());
    let done = lab
        .run("diagnose --teacher $T/model --student $T/turned --data tickets:train[:20] --gradients 2 --output $T/out")
        .expect(2);
    let said = done.error();
    assert!(
        said.starts_with("--gradients needs both models' classes in one order: the teacher's are "),
        "{said}"
    );
    check(
        "diagnose --teacher $T/model --student $T/model --data tickets:train[:9] --teacher-train $T/t.jsonl --student-train $T/t.jsonl",
        &format!(
            "{model} is a model; say which of its training rows to score it on with --train-data"
        ),
    );
    check(
        "diagnose --teacher $T/model --student $T/model --data tickets:train[:9] --train-data tickets:train[9:20] --teacher-train $T/t.jsonl",
        &format!("--teacher-train: {model} is a model, which is scored on --train-data"),
    );
    let config = lab.text("model/config.json");
    let kind = config.replacen('{', "{ \"problem_type\": \"multi_label_classification\",", 1);
    let kind = kind.replace("\"problem_type\": \"single_label_classification\"", "\"was\": \"\"");
    lab.write("model/config.json", kind);
    check(
        "diagnose --teacher $T/model --student $T/model --data tickets:train[:9]",
        "diagnose is for single-label tasks, and the model is a multi-label one; lowchurn update and lowchurn compare know \
         all kinds",
    );
}

#[test]
fn gradients_want_labels_and_directions_one_base() {
    let lab = Lab::new();
    let kept = "--keep-checkpoints --save-steps 2";
    lab.ok(&format!("{SMALL} {kept} --output $T/one"));
    let from_it = SMALL.replace("--model tiny", "--model $T/one");
    lab.ok(&format!("{from_it} {kept} --output $T/two"));
    let done = lab
        .run("diagnose --teacher $T/one --student $T/two --data tickets:train[:20] --directions 3 --output $T/out")
        .expect(2);
    let said = done.error();
    assert!(
        said.starts_with("--directions: $T/one and $T/two started from different weights (bert.")
            && said.ends_with("); directions are comparable only of one base"),
        "{said}"
    );
    let row = |id: usize, label: &str| {
        format!(
            "{{\"id\": \"r{id}\", \"text\": \"where is my parcel {id}\", \"label\": {label}}}\n"
        )
    };
    let class = lab.json("one/config.json")["id2label"]["0"].to_string();
    let mut rows: String = (0..20).map(|id| row(id, &class)).collect();
    rows += &row(20, "null");
    lab.write("rows.jsonl", rows);
    let done = lab
        .run("diagnose --teacher $T/one --student $T/one --data $T/rows.jsonl --gradients 2 --output $T/out")
        .expect(2);
    assert_eq!(done.error(), "--gradients: row r20 has no label, and gradients are of labels");
}
