//! `post-shift` from outside: what it says of a shift, what it leaves out and refuses, and that its result is a model.

#[path = "util/long_tail.rs"]
mod long_tail;
mod util;

use std::fs;

use long_tail::{WORDS, eval, lab, rows, train, worst};
use serde_json::{Value, json};
use util::Done;

#[test]
fn a_post_shift_is_a_model_like_any_other() {
    let lab = lab();
    train(&lab, "model", "");
    let shift =
        "post-shift $T/model --data $T/data --split validation --trained-on $T/data/train.jsonl";
    let before = worst(&lab, "model", "validation");
    let done = lab.ok(&format!("--json {shift} --output $T/shifted"));
    let said: Value = serde_json::from_str(done.out.lines().last().unwrap()).unwrap();
    let after = worst(&lab, "shifted", "validation");
    assert!(after > before, "{before} {after}");
    // The folder predicts what was told of it.
    let errors = said["errors_after"].as_array().unwrap().iter().map(|e| e.as_f64().unwrap());
    assert!((1.0 - errors.fold(0.0, f64::max) - after).abs() < 1e-9);
    assert!(
        (said["bias"].as_array().unwrap().iter().map(|b| b.as_f64().unwrap()).sum::<f64>()).abs()
            < 1e-9
    );
    // Which rows the numbers are of, and that accuracy may pay for it, stands beside them.
    let measured = |done: &Done| {
        let events = done.json();
        events.into_iter().find(|event| event["event"] == "measured").unwrap()
    };
    let fitted = measured(&done);
    assert_eq!((&fitted["is_fitted"], &fitted["data"]), (&json!(true), &json!("data:validation")));
    assert!((fitted["after"]["worst_recall"].as_f64().unwrap() - after).abs() < 1e-9);
    assert!(
        done.err.contains("which it is fitted on, so that it looks better than elsewhere"),
        "{}",
        done.err
    );
    // Rows that it is fitted on are none of those that it isn't.
    let both = lab.text("data/validation.jsonl") + &lab.text("data/test.jsonl");
    let n = lab.lines("data/validation.jsonl").len();
    lab.write("both.jsonl", both.replace("\"id\": \"", "\"id\": \"b"));
    let mixed = lab.ok(&format!("{shift} --holdout $T/both.jsonl --output $T/mixed"));
    assert!(mixed.err.contains(&format!("{n} of ")), "{}", mixed.err);
    assert!(mixed.err.contains("have a text that the shift is fitted on; they are left out"));
    let same =
        lab.run(&format!("{shift} --holdout $T/data/validation.jsonl --output $T/same")).expect(2);
    assert!(
        same.error().starts_with("--holdout: ") && same.error().ends_with("; name others"),
        "{}",
        same.err
    );
    let held = lab.ok(&format!("--json {shift} --holdout $T/data/test.jsonl --output $T/measured"));
    assert!(held.err.contains("which it isn't fitted on:\n  as it is: accuracy "), "{}", held.err);
    let held_said = held.err.clone();
    let held = measured(&held);
    assert_eq!(held["is_fitted"], json!(false));
    let accuracy = |model| eval(&lab, model, "test")["metrics"]["accuracy"].as_f64().unwrap();
    for (model, key) in [("model", "before"), ("measured", "after")] {
        assert!(
            (held[key]["accuracy"].as_f64().unwrap() - accuracy(model)).abs() < 1e-9,
            "{model}"
        );
        let recall = worst(&lab, model, "test");
        assert!((held[key]["worst_recall"].as_f64().unwrap() - recall).abs() < 1e-9, "{model}");
    }
    // What those that are served notice.
    let says = |model: &str| {
        let data = "--data $T/data --split test";
        lab.ok(&format!("predict --model $T/{model} {data} --output $T/{model}.jsonl"));
        let said = |row: &Value| row["label"].as_str().unwrap().to_string();
        lab.lines(&format!("{model}.jsonl")).iter().map(said).collect::<Vec<_>>()
    };
    let (old, new) = (says("model"), says("measured"));
    let changed = old.iter().zip(&new).filter(|(old, new)| old != new).count() as f64;
    assert!((held["cost"]["churn"].as_f64().unwrap() - changed / old.len() as f64).abs() < 1e-9);
    let labels: Vec<String> = lab
        .lines("data/test.jsonl")
        .iter()
        .map(|row| row["label"].as_str().unwrap().to_string())
        .collect();
    let nfr = |class: Option<&str>| {
        let rows = (0..labels.len()).filter(|row| class.is_none_or(|name| labels[*row] == name));
        let lost =
            rows.clone().filter(|row| old[*row] == labels[*row] && new[*row] != labels[*row]);
        lost.count() as f64 / rows.count() as f64
    };
    let cost = |key: &str| held["cost"][key].as_f64().unwrap();
    assert!((cost("nfr") - nfr(None)).abs() < 1e-9);
    let worst = WORDS.map(|(name, _)| nfr(Some(name)));
    assert!((cost("worst_class_nfr") - worst.into_iter().fold(0.0, f64::max)).abs() < 1e-9);
    let of_worst = format!(", at most {:.2} % of a class: ", 100.0 * cost("worst_class_nfr"));
    assert!(cost("nfr") == 0.0 || held_said.contains(&of_worst), "{of_worst}: {held_said}");
    let manifest = lab.json("shifted/manifest.json");
    assert_eq!(manifest["post_shift"]["bias"], said["bias"]);
    assert!(manifest["files"]["model.safetensors"].as_str().unwrap().len() == 64);
    // It takes the place of another model, so it isn't published unseen.
    let unseen = lab.run("publish $T/shifted --to me/shifted --dry-run --license mit").expect(2);
    let said = "$T/shifted: it was made from $T/model, and there is no report.json that says how close to it it is";
    assert!(unseen.error().starts_with(said), "{}", unseen.err);
    let tree = lab.tree("shifted");
    let again = lab.ok(&format!("{shift} --output $T/shifted"));
    assert!(again.out.contains("is finished") || again.err.contains("is finished"));
    assert!(lab.tree("shifted") == tree);
    // It is measured again without being made again.
    let again = lab.ok(&format!("--json {shift} --holdout $T/data/test.jsonl --output $T/shifted"));
    assert_eq!(measured(&again)["after"], held["after"]);
    assert!(lab.tree("shifted") == tree);
    let other = lab.run(&format!("{shift} --max-length 8 --output $T/shifted")).expect(2);
    assert!(other.err.contains("holds another post-shift"), "{}", other.err);
    // The rows that it is fitted on certify nothing of it.
    let compare = "compare $T/model $T/shifted --nearest 0 --max-churn 90% --output $T/c";
    let done = lab.ok(&format!("{compare} --data $T/data --split validation"));
    assert!(
        done.err.contains(
            " rows chose the shift of $T/shifted, so they can fail it and certify nothing"
        ),
        "{}",
        done.err
    );
    assert_eq!(lab.json("c/report.json")["certificate"]["verdict"], "INCONCLUSIVE");
    let other = lab.run(&format!("{shift} --objective balanced --output $T/shifted"));
    assert_eq!(other.code, Some(2));
    assert!(other.err.contains("holds another post-shift"), "{}", other.err);
    lab.ok(&format!("{shift} --objective balanced --output $T/shifted --fresh"));
    // It may be updated as any model.
    lab.ok(
        "update --base $T/shifted --new $T/new.jsonl --holdout $T/hold.jsonl --tables $T/tables --max-steps 2 --interpolate none \
         --output $T/next",
    );
}

/// The classes' shares are those of the rows that the model was trained on, and even rows to fit on say nothing of them.
#[test]
fn shares_are_of_the_rows_that_were_trained_on() {
    let lab = lab();
    train(&lab, "model", "");
    let bias = |output: &str| lab.json(&format!("{output}/shift.json"))["bias"].clone();
    let shift = "post-shift $T/model --data $T/data --split validation --objective balanced";
    let named = lab.ok(&format!("{shift} --trained-on $T/data/train.jsonl --output $T/named"));
    assert!(named.out.contains("shares of the classes: of train:train\n"), "{}", named.out);
    let own = lab.ok(&format!("{shift} --output $T/own"));
    let said = "shares of the classes: of rows that $T/model was trained on\n";
    assert!(own.out.contains(said), "{}", own.out);
    assert_eq!(bias("own"), bias("named"));
    // A record of numbers that aren't one a class is no shift.
    let record = lab.text("own/manifest.json");
    let mut other: Value = serde_json::from_str(&record).unwrap();
    for key in ["bias", "errors_before", "errors_after"] {
        other["post_shift"][key] = json!([0.1, 0.2, 0.3, 0.1, 0.1]);
    }
    lab.write("own/manifest.json", other.to_string());
    let again = format!("{shift} --holdout $T/data/test.jsonl --output $T/own");
    let broken = lab.run(&again).expect(3);
    assert!(
        broken.error().ends_with("its numbers aren't one a class, of 3; --fresh starts over here"),
        "{}",
        broken.error()
    );
    lab.write("own/manifest.json", record);
    lab.ok(&again);
    // Rows that can't be read any more aren't guessed at.
    let run = lab.text("model/run.toml");
    lab.write(
        "model/run.toml",
        run.replace("$T/data", "$T/gone")
            .replace(lab.path("data").to_str().unwrap(), lab.path("gone").to_str().unwrap()),
    );
    let gone = lab.run(&format!("{shift} --output $T/guessed")).expect(2);
    assert_eq!(
        gone.error(),
        "$T/model: the rows that it was trained on tell the classes' shares, and can't be read; name some with such shares: \
         --trained-on"
    );
    lab.write("model/run.toml", run);
    // Of a model that says nothing of its rows, those to fit on are all there is.
    fs::remove_file(lab.path("model/run.toml")).unwrap();
    let unknown = lab.ok(&format!("{shift} --output $T/unknown"));
    assert!(
        unknown.out.contains(
            "shares of the classes: of data:validation, since nothing says which rows $T/model was trained on; --trained-on does\n"
        ),
        "{}",
        unknown.out
    );
    assert!(unknown.out.contains("the classes' shares are even, so there is nothing to shift by"));
    assert_eq!(bias("unknown"), json!([0.0, 0.0, 0.0]));
}

#[test]
fn what_can_not_be_shifted_is_said() {
    let lab = lab();
    lab.write("narrow/validation.jsonl", rows(1000, [9, 9, 0]));
    let check = |line: &str, code: i32, message: &str| {
        let done = lab.run(line);
        assert_eq!(done.code, Some(code), "{line}: {}", done.err);
        assert!(done.err.contains(message), "{line}: {}", done.err);
    };
    train(&lab, "model", "");
    check(
        "post-shift $T/model --data $T/data --split validation --trained-on $T/narrow/validation.jsonl --output $T/x",
        3,
        "--data $T/data, --trained-on $T/narrow/validation.jsonl: post-shift: no row of those that tell the classes' shares has the \
         label \"payment\"",
    );
    check(
        "post-shift $T/model --data $T/narrow/validation.jsonl --output $T/x",
        3,
        "--data $T/narrow/validation.jsonl, shares of the rows that $T/model was trained on: post-shift: no row has the label \"payment\", so its errors can't be measured",
    );
    check(
        "post-shift $T/model --data $T/data --split test --worst-class-weight 2 --output $T/x",
        2,
        "invalid value '2' for '--worst-class-weight <SHARE>': expected a share such as 2% or 0.02",
    );
    check(
        "post-shift $T/model --data $T/data --split test --step 0 --output $T/x",
        2,
        "--step 0: expected a number above 0",
    );
    check(
        "post-shift $T/model --data $T/data --split test --rounds 0 --output $T/x",
        2,
        "--rounds 0: expected at least 1",
    );
    check(
        "post-shift $T/model --data $T/data --split test --objective balanced --base standard --output $T/x",
        2,
        "--base is of the search for the worst class, and --objective balanced searches nothing; leave one of them out",
    );
    check(
        "post-shift $T/model --data $T/data/train.jsonl --output $T/x",
        2,
        "rows of train:train have a text that $T/model was trained on; name others",
    );
    assert!(!lab.path("x").exists());
}
