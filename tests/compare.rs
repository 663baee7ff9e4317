//! `compare` from end to end: prediction files of any stack without any model, models on rows, every mistake's
//! message and exit code, and the files that a report is.

#[path = "util/checked.rs"]
mod checked;
#[path = "util/two_files.rs"]
mod two_files;
mod util;

use std::fs;
use std::path::Path;

use checked::report;
use serde_json::Value;
use two_files::{check, file, lab};
use util::{Lab, repository};

#[test]
fn two_files_are_compared_without_a_model() {
    let lab = lab();
    let done =
        lab.ok("compare old.csv new.csv --slice channel --min-slice-rows 1 --threshold pos=0.5");
    for line in [
        "accuracy, old   90.00 % (55.50 to 99.75)",
        "churn           20.00 % (2.52 to 55.61), 2 rows",
        "negative flips  10.00 % (0.25 to 44.50), 1 row",
        "McNemar         p = 1.0000 exact, p = 1.0000 mid-p",
        "worst slice     channel = chat: churn 40.00 % (5.27 to 85.34), 5 rows",
        "report: compare-old-new/report.html (and report.json, report.md, flips.jsonl)",
    ] {
        assert!(done.out.contains(line), "{line}\n{}", done.out);
    }
    assert_eq!(
        lab.names("compare-old-new"),
        ["flips.jsonl", "report.html", "report.json", "report.md"]
    );
    let report = report(&lab, "compare-old-new");
    let crossing = &report["comparison"]["soft"]["crossings"][0];
    assert_eq!((crossing["up"].as_u64(), crossing["down"].as_u64()), (Some(2), Some(0)));
    let kinds: Vec<&str> = report["flips"]
        .as_array()
        .unwrap()
        .iter()
        .map(|flip| flip["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["negative", "positive"]);
    let first = &lab.lines("compare-old-new/flips.jsonl")[0];
    assert_eq!((first["id"].as_str(), first["new"].as_str()), (Some("1"), Some("pos")));
    let html = lab.text("compare-old-new/report.html");
    assert!(html.starts_with("<!DOCTYPE html>") && html.contains("old.csv → new.csv"));
    assert!(lab.text("compare-old-new/report.md").contains("not gated"));
}

/// The numbers are scikit-learn's; see tests/golden/make_comparison.py.
#[test]
fn every_format_gives_the_numbers_of_scikit_learn() {
    let golden: Value = serde_json::from_slice(
        &fs::read(repository().join("tests/golden/comparison.json")).unwrap(),
    )
    .unwrap();
    let lab = Lab::new();
    for (old, new) in [
        ("old.csv", "new.tsv"),
        ("old.jsonl", "new.tsv"),
        ("old.csv", "new.parquet"),
        ("old_objects.parquet", "new.parquet"),
    ] {
        let folder = "tests/golden/predictions";
        let done = lab
            .ok(&format!("compare {folder}/{old} {folder}/{new} --output $T/{old}-{new} --json"));
        let finished = done.json().pop().unwrap();
        assert_eq!(finished["event"], "finished");
        let is_near = |found: &Value, expected: &Value| {
            let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
            assert!((found - expected).abs() < 1e-6, "{old} {new}: {found} is not {expected}");
        };
        let metrics = &finished["metrics"];
        is_near(&metrics["churn"]["value"], &golden["churn"]);
        is_near(&metrics["flips"]["negative"], &golden["negative"]);
        is_near(&metrics["flips"]["positive"], &golden["positive"]);
        is_near(&metrics["accuracy_old"]["value"], &golden["old"]["accuracy"]);
        is_near(&metrics["accuracy_new"]["value"], &golden["new"]["accuracy"]);
        is_near(&finished["soft"]["total_variation"], &golden["total_variation"]);
        is_near(&finished["soft"]["calibration_new"]["brier"], &golden["new"]["brier"]);
        report(&lab, &format!("{old}-{new}"));
    }
}

#[test]
fn shards_give_the_report_of_the_whole() {
    let lab = lab();
    let text = lab.text("new.csv");
    let (head, rows) = text.split_once('\n').unwrap();
    for (number, part) in rows.lines().collect::<Vec<_>>().chunks(4).enumerate() {
        lab.write(&format!("shards/{number}.csv"), format!("{head}\n{}\n", part.join("\n")));
    }
    lab.write("shards/.hidden.csv", "x");
    lab.ok("compare old.csv new.csv --output whole --slice channel --min-slice-rows 1");
    lab.ok("compare old.csv shards --output parts --slice channel --min-slice-rows 1");
    let (whole, parts) = (report(&lab, "whole"), report(&lab, "parts"));
    assert_eq!(whole["comparison"], parts["comparison"]);
    assert_eq!(whole["flips"], parts["flips"]);
    check(
        &lab,
        "compare old.csv shards --output shards",
        2,
        "--output $T/shards is the folder that predictions are read from; choose another",
    );
}

#[test]
fn texts_classes_and_slices_come_from_the_data_by_id() {
    let lab = lab();
    let without = |text: String| -> String {
        let rows = text.lines().map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            format!("{},{},{}\n", cells[0], cells[3], cells[4])
        });
        rows.collect()
    };
    lab.write("bare-old.csv", without(lab.text("old.csv")));
    lab.write("bare-new.csv", without(lab.text("new.csv")));
    let row = |row: usize| {
        let label = if row >= 5 { "pos" } else { "neg" };
        let text = if row == 1 { "<script>alert(1)</script>" } else { "fine words" };
        format!(
            "{{\"id\": \"{row}\", \"text\": \"{text}\", \"label\": \"{label}\", \"day\": {}}}\n",
            row / 5
        )
    };
    lab.write("rows.jsonl", (0..10).rev().map(row).collect::<String>());
    lab.write("later.txt", "5\n6\n7\n8\n9\n");
    lab.ok(
        "compare bare-old.csv bare-new.csv --data rows.jsonl --slice day --keyword fine --min-slice-rows 1 \
         --new-rows later.txt --output out",
    );
    let report = report(&lab, "out");
    let all = &report["comparison"]["all"]["flips"];
    assert_eq!((all["labelled"].as_u64(), all["negative"].as_u64()), (Some(10), Some(1)));
    assert_eq!(report["comparison"]["new_rows"]["flips"]["positive"], 1);
    assert_eq!(report["comparison"]["old_rows"]["flips"]["negative"], 1);
    let slices = report["comparison"]["slices"].as_array().unwrap();
    for name in ["day = 0", "day = 1", "contains \"fine\"", "predicted = neg"] {
        assert!(slices.iter().any(|slice| slice["name"] == name), "{name}: {slices:?}");
    }
    let first = slices.iter().find(|slice| slice["name"] == "day = 0").unwrap();
    let flips = &first["measured"]["flips"];
    assert_eq!((&flips["rows"], &flips["negative"]), (&5.into(), &1.into()));
    assert_eq!(report["flips"][0]["text"], "<script>alert(1)</script>");
    assert!(!lab.text("out/report.html").contains("<script>alert"));
    assert!(report["data_sha256"].is_string());
}

#[test]
fn what_is_the_same_or_has_one_class_is_no_trouble() {
    let lab = lab();
    lab.write("copy.csv", lab.text("old.csv"));
    let done = lab.ok("compare old.csv copy.csv");
    assert!(done.out.contains("both sides are the same, by their hashes"), "{}", done.out);
    assert!(done.out.contains("churn           0.00 %"), "{}", done.out);
    let same = report(&lab, "compare-old-copy");
    assert_eq!((same["n_flips"].as_u64(), &same["flips"]), (Some(0), &Value::Array(Vec::new())));
    assert!(lab.text("compare-old-copy/report.html").contains("No prediction changed"));

    lab.write("steer.csv", "id,y_true,y_pred\n1,\u{1b}[31m,\u{1b}[31m\n");
    let done = lab.ok("compare steer.csv steer.csv --output steer --min-slice-rows 1");
    assert!(done.out.contains("\u{fffd}[31m") && !done.out.contains('\u{1b}'), "{}", done.out);

    lab.write("one.csv", "id,y_true,y_pred\n1,a,a\n2,a,a\n");
    lab.write("two.csv", "id,y_true,y_pred\n2,a,a\n1,a,a\n");
    lab.ok("compare one.csv two.csv --output one");
    assert_eq!(report(&lab, "one")["labels"], serde_json::json!(["a"]));
    lab.write("rows.csv", "id,text,label\n1,x,a\n2,y,a\n");
    lab.ok("compare one.csv two.csv --data rows.csv --output rows");
    lab.write("bare.csv", "id,text\n1,x\n2,y\n");
    lab.ok("compare one.csv two.csv --data bare.csv --output bare");
}

#[test]
fn a_retrain_and_other_seeds_put_churn_into_proportion() {
    let lab = lab();
    lab.write("retrain.csv", file(|row| row < 4));
    let done =
        lab.ok("compare old.csv new.csv --retrain retrain.csv --seed-run old.csv --output out");
    let out = report(&lab, "out");
    // Rows 0 to 3 and 5 to 8 of the retrain differ from the old model's.
    assert_eq!(out["comparison"]["churn_ratio"].as_f64(), Some(0.2 / 0.8), "{}", done.out);
    assert_eq!(out["comparison"]["seed_floor"]["value"].as_f64(), Some(0.2));
}

#[test]
fn files_that_do_not_fit() {
    let lab = lab();
    let (old, new) = (lab.text("old.csv"), lab.text("new.csv"));
    let lines: Vec<&str> = new.lines().collect();
    let but = |name: &str, from: &str, to: &str| {
        assert!(new.contains(from), "{from}");
        lab.write(name, new.replacen(from, to, 1));
    };
    lab.write("short.csv", lines[..9].join("\n"));
    lab.write("twice.csv", format!("{new}{}\n", lines[3]));
    lab.write("other.csv", old.replace("pos", "positive"));
    lab.write("case.csv", new.replace("pos", "Pos"));
    but("text.csv", "0.9,0.1", "0.9,high");
    but("sum.csv", "0.9,0.1", "0.9,0.3");
    but("logit.csv", "0.9,0.1", "-2.5,3.5");
    but("blank.csv", "\n4,", "\n,");
    but("gold.csv", "\n4,neg", "\n4,pos");
    lab.write("empty.csv", "");
    lab.write("head.csv", format!("{}\n", lines[0]));
    lab.write("strange.csv", "a,b\n1,2\n");
    let compare = |other: &str, expected: &str| {
        check(&lab, &format!("compare old.csv {other} --output out"), 3, expected);
    };
    compare(
        "short.csv",
        "old.csv and short.csv hold different rows: 2 only in the old (8, 9), 0 only in the new (none); predict the same \
         rows with both, or compare those in both with --allow-partial",
    );
    compare(
        "twice.csv",
        "twice.csv:12: id \"2\" of column \"id\" is there twice, first at twice.csv:4; ids must be unique",
    );
    compare(
        "other.csv",
        "old.csv has labels that other.csv doesn't: pos (its labels: neg, positive); say what became of them with \
         --label-map pos=positive",
    );
    compare(
        "case.csv",
        "old.csv has labels that case.csv doesn't: pos (its labels: neg, Pos); say what became of them with --label-map \
         pos=Pos",
    );
    compare(
        "text.csv",
        "text.csv:2: the score of \"pos\" is \"high\", not a probability between 0 and 1",
    );
    compare(
        "sum.csv",
        "sum.csv:2: the scores sum to 1.2000, not to 1 (within 0.001); logits must be passed through softmax first, and \
         scores of independent classes divided by their sum",
    );
    compare(
        "logit.csv",
        "logit.csv:2: the score of \"neg\" is -2.5, not a probability between 0 and 1 (logits must be passed through \
         softmax first)",
    );
    compare("blank.csv", "blank.csv:6: the id is empty; every row needs one");
    compare(
        "gold.csv",
        "row \"4\": the true class is \"neg\" in old.csv and \"pos\" in gold.csv; both must be judged by the same",
    );
    compare("empty.csv", "empty.csv: no header and no rows in it");
    compare("head.csv", "head.csv: no rows in it");
    compare(
        "strange.csv",
        "strange.csv: no id column (columns: a, b); name it with --id-column, or, where both files hold the same rows in \
         the same order, ask for --by-position",
    );
    lab.ok("compare old.csv short.csv --allow-partial --output partial");
    assert_eq!(report(&lab, "partial")["comparison"]["n_only_old"], 2);
    lab.ok("compare old.csv other.csv --label-map pos=positive --output mapped");
    assert_eq!(report(&lab, "mapped")["comparison"]["all"]["flips"]["changed"], 0);
}

#[test]
fn rows_that_do_not_fit() {
    let lab = lab();
    lab.write("rows.csv", "id,text,label\n0,x,neg\n1,y,pos\n");
    lab.write("foreign.csv", "id,text,label\na,x,neg\nb,y,pos\n");
    let numbers = |label: &str| -> String {
        let rows = (0..10).map(|row| format!("{row},some text,{label}{}\n", row % 2));
        "id,text,label\n".to_string() + &rows.collect::<String>()
    };
    lab.write("numbers.csv", numbers(""));
    let compare = |flags: &str, expected: &str| {
        check(&lab, &format!("compare old.csv new.csv --output out {flags}"), 3, expected);
    };
    compare(
        "--data rows.csv --label-column none",
        "rows:train doesn't have 8 of the rows that were predicted (2, 3, 4); give the data that they are of, or leave \
         them out with --allow-partial",
    );
    compare(
        "--data rows.csv",
        "row \"1\": the true class is \"neg\" in old.csv and \"pos\" in rows:train; both must be judged by the same",
    );
    compare(
        "--data foreign.csv",
        "foreign:train has no row with the id of a prediction (ids such as \"a\" and 0, 1, 2); both need the same ids",
    );
    compare(
        "--data numbers.csv",
        "numbers:train: none of its classes (0, 1) is a class of old.csv (neg, pos); write them with the model's names",
    );
    compare(
        "--data rows.csv --slice tetx",
        "rows.csv: no slice column \"tetx\" (columns: id, text, label); did you mean \"text\"?",
    );
    compare(
        "--slice chanel",
        "no slice column \"chanel\" in the prediction files (columns: channel, id, proba_neg, proba_pos, y_pred, y_true), \
         and no --data to find it in; did you mean \"channel\"?",
    );
    lab.write("ids.txt", "x\ny\n");
    compare(
        "--new-rows ids.txt",
        "--new-rows ids.txt: none of its ids (such as \"x\") is a row that is compared (such as \"0\")",
    );
    compare(
        "--golden ids.txt",
        "2 golden rows aren't in the data (the first: x, y), whose ids are like 0; add them there, give texts where they are trained on, or take them off the golden list",
    );
    lab.write("few.csv", lab.text("new.csv").lines().take(4).collect::<Vec<_>>().join("\n"));
    compare(
        "--retrain few.csv",
        "--retrain few.csv: 3 of 10 compared rows are in it; all are needed",
    );
}

#[test]
fn wishes_that_can_not_be_met() {
    let lab = lab();
    let compare = |line: &str, expected: &str| {
        check(&lab, &format!("compare {line} --output out"), 2, expected);
    };
    compare("old.csv nwe.csv", "nwe.csv: there is no such file");
    compare("old.csv runs/none", "runs/none: there is no folder runs/none");
    compare(
        "old.csv new.csv --keyword refund",
        "--keyword: there are no texts to find it in; name the rows with --data, or the column of a prediction file with \
         --text-column",
    );
    compare("old.csv new.csv --split train", "--split train: of which data? Name it with --data");
    compare(
        "old.csv new.csv --by-position --id-column id",
        "--by-position and --id-column: rows are told apart by one of them",
    );
    compare(
        "old.csv new.csv --threshold posi=0.5",
        "a threshold for \"posi\", which isn't a label (labels: neg, pos); did you mean \"pos\"?",
    );
    compare(
        "old.csv new.csv --label-map poss=pos",
        "the label map names \"poss\", which isn't a label of old.csv (labels: neg, pos); did you mean \"pos\"?",
    );
    compare(
        "old.csv new.csv --max-churn 0",
        "max churn is 0; expected a share above 0 and below 1, such as 2% or 0.02 (no number of rows proves that nothing \
         will ever change; rows that must not change can be given with --golden)",
    );
    compare(
        "old.csv new.csv --confidence 40%",
        "a confidence of 0.4; expected one between 0.5 and 1, such as 0.95",
    );
    let done = lab.run("compare old.csv new.csv --threshold pos=1").expect(2);
    let expected = "expected LABEL=SCORE with a score between 0 and 1, such as spam=0.5";
    assert!(done.err.contains(expected), "{}", done.err);
}

#[test]
fn two_models_are_scored_and_their_flips_have_training_rows_beside_them() {
    let lab = Lab::new();
    for (name, seed) in [("one", 1), ("two", 2)] {
        lab.ok(&format!(
            "finetune tickets --model tiny --train-split train[:200] --eval-split train[200:260] --batch-size 8 \
             --max-length 32 --epochs 4 --learning-rate 3e-3 --seed {seed} --output $T/{name}"
        ));
    }
    let data = "--data tickets --split train[300:450]";
    check(
        &lab,
        "compare $T/one $T/two",
        2,
        "$T/one is a model; say which rows to compare on with --data",
    );
    let done = lab.ok(&format!("compare $T/one $T/two {data} --slice channel --nearest 2"));
    assert!(done.out.contains("report: $T/two/compare/report.html"), "{}", done.out);
    let models = report(&lab, "two/compare");
    let flips = models["flips"].as_array().unwrap();
    assert!(!flips.is_empty(), "two seeds agree on everything");
    for flip in flips {
        let nearest = flip["nearest"].as_array().unwrap();
        let cosines: Vec<f64> =
            nearest.iter().map(|row| row["similarity"].as_f64().unwrap()).collect();
        assert_eq!(cosines.len(), 2);
        assert!(1.0 >= cosines[0] && cosines[0] >= cosines[1], "{cosines:?}");
        assert!(nearest[0]["label"].is_string() && flip["text"].is_string());
    }

    // The same from files that `predict` writes, in any mixture with models.
    for name in ["one", "two"] {
        lab.ok(&format!("predict --model $T/{name} {data} --output $T/{name}.jsonl"));
    }
    for (old, new) in [("one.jsonl", "two.jsonl"), ("one", "two.jsonl"), ("one.jsonl", "two")] {
        lab.ok(&format!(
            "compare $T/{old} $T/{new} {data} --slice channel --nearest 0 --output $T/out"
        ));
        let files = report(&lab, "out");
        assert_eq!(files["comparison"]["all"], models["comparison"]["all"], "{old} {new}");
        assert_eq!(files["comparison"]["slices"], models["comparison"]["slices"], "{old} {new}");
    }
    // Rows that the new model was trained on certify nothing, wherever its record names them.
    let seen = "compare $T/one $T/two --data tickets --nearest 0 --output $T/seen --max-churn 99%";
    let done = lab.ok(&format!("{seen} --split train[150:450]"));
    let said = "50 of 300 rows have a text that $T/two was trained on; they are left out";
    assert!(done.err.contains(said), "{}", done.err);
    let report_of_others = report(&lab, "seen");
    // Nor do those that chose its checkpoint.
    let said = "60 of 300 rows chose the checkpoint of $T/two; they are left out";
    assert!(done.err.contains(said), "{}", done.err);
    assert_eq!(report_of_others["rows"], 190);
    assert_eq!(report_of_others["certificate"]["verdict"], "PASS");
    // Named rows are read in the place of that record, and the old model's own is read then.
    lab.write("others.csv", "text,label\nnobody wrote this,returns\nnor this,payment\n");
    let done = lab.ok(&format!("{seen} --split train[150:450] --train $T/others.csv"));
    let said = "50 of 300 rows have a text that $T/one was trained on; they are left out";
    assert!(done.err.contains(said), "{}", done.err);
    let done = lab.ok(&format!("{seen} --split train[:200]"));
    let said = "200 of 200 rows have a text that $T/two was trained on, so they can fail it and certify nothing";
    assert!(done.err.contains(said), "{}", done.err);
    assert!(done.err.contains("for a verdict's exit code: lowchurn gate $T/seen/report.json"));
    assert_eq!(report(&lab, "seen")["certificate"]["verdict"], "INCONCLUSIVE");
    let done = lab.run("gate $T/seen/report.json").expect(11);
    assert_eq!(done.out.matches("these rows chose the weights of $T/two").count(), 1);
    lab.run("gate $T/seen/report.json --max-churn 98%").expect(11);
    let refused = lab
        .run("compare $T/one $T/two --data tickets --split train[150:450] --output $T/two")
        .expect(2);
    assert_eq!(
        refused.error(),
        "--output $T/two is a run's folder, whose own report this would write over; choose another, such as $T/two/compare"
    );
    // What can be read of a record counts where another source is gone.
    let run = lab.text("two/run.toml");
    lab.write(
        "two/run.toml",
        format!("{run}\n[[seen]]\ndata = \"$T/gone.csv\"\n")
            .replace("$T", lab.root().to_str().unwrap()),
    );
    let done = lab.ok(&format!("{seen} --split train[150:450]"));
    let said = "50 of 300 rows have a text that $T/two was trained on; they are left out";
    assert!(done.err.contains(said), "{}", done.err);
    assert!(done.err.contains("$T/two: rows that it was trained on can't be read"), "{}", done.err);
    lab.write("two/run.toml", run);
    // Where they were is gone: that is said, and nothing is known of them.
    for model in ["one", "two"] {
        let run = lab.text(&format!("{model}/run.toml"));
        lab.write(&format!("{model}/run.toml"), run.replace("train[:200]", "gone"));
    }
    let done = lab.ok(&format!("{seen} --split train[150:450]"));
    let said = "$T/two: rows that it was trained on can't be read, so whether these are among them isn't known: ";
    assert!(done.err.contains(said), "{}", done.err);
    let unknown = report(&lab, "seen");
    assert_eq!(unknown["rows"], 240);
    for place in [&unknown["alignment"], &unknown["certificate"]["notes"]] {
        assert!(place.to_string().contains("whether these are among them isn't known"), "{place}");
    }

    let same = lab.ok(&format!("compare $T/one $T/one {data} --output $T/same"));
    assert!(same.out.contains("both sides are the same, by their hashes"), "{}", same.out);
    assert_eq!(report(&lab, "same")["n_flips"], 0);
    assert!(Path::new(&lab.path("same/report.html")).is_file());
}
