//! `repair` on the small problem of `util/words.rs`.

mod util;
#[path = "util/words.rs"]
mod words;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use util::Lab;
use words::{ENDS, OPENINGS, TRAIN, predicted, rows};

/// An old model, a new one trained from it on later rows, and held-out rows of the new rule, with labels and without.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.write("old.jsonl", rows(0, 300, false, true));
    lab.write("new.jsonl", rows(300, 300, true, true));
    lab.write("hold.jsonl", rows(600, 400, true, true));
    lab.write("bare.jsonl", rows(600, 400, true, false));
    lab.ok(&format!("finetune $T/old.jsonl --model tiny {TRAIN} --max-steps 70 --output $T/old"));
    lab.ok(&from_old("$T/new", 7));
    lab
}

fn from_old(output: &str, seed: u32) -> String {
    format!(
        "finetune $T/new.jsonl --model $T/old {TRAIN} --max-steps 60 --learning-rate 5e-4 --seed {seed} --output {output}"
    )
}

fn point<'c>(curve: &'c Value, name: &str) -> &'c Value {
    let points = curve["points"].as_array().unwrap();
    points
        .iter()
        .find(|point| point["name"] == name)
        .unwrap_or_else(|| panic!("no {name}: {curve}"))
}

#[test]
fn the_curve_leads_from_the_new_model_to_the_old_one() {
    let lab = lab();
    let line =
        "repair $T/old $T/new --holdout $T/hold.jsonl --alpha 0:1:0.1 --fisher=16 --output $T/r";
    let done = lab.ok(line);
    let curve = lab.json("r/curve.json");
    let (old, _) = predicted(&lab, "$T/old");
    let (new, _) = predicted(&lab, "$T/new");
    let changed = old.iter().filter(|(id, label)| new[*id] != **label).count();
    assert!(changed > 10, "the problem is too easy: {changed} changed");
    let counted = |name: &str| point(&curve, name)["flips"]["changed"].as_u64().unwrap();
    assert_eq!((counted("α 0"), counted("α 1")), (changed as u64, 0));
    // Plain and by Fisher information, whose ends are the same.
    assert_eq!(curve["points"].as_array().unwrap().len(), 11 + 9);
    assert_eq!(curve["measured_rows"], 400);

    // The choice is the largest α of its kind that keeps the new model's accuracy, and below 1.
    let chosen = point(&curve, curve["chosen"].as_str().unwrap());
    let of_new = point(&curve, "α 0")["accuracy"].as_f64().unwrap();
    let keeps = |point: &&Value| point["accuracy"].as_f64().unwrap() >= of_new;
    let alpha = |point: &Value| point["alpha"].as_f64().unwrap();
    let kind = |point: &&Value| point["is_fisher"] == chosen["is_fisher"] && point["alpha"] != 1.0;
    let all = curve["points"].as_array().unwrap().iter().filter(kind).filter(keeps);
    assert_eq!(alpha(chosen), all.map(alpha).fold(0.0, f64::max));
    assert!(alpha(chosen) > 0.0);
    assert!(
        done.out.contains("the largest α whose accuracy on these rows isn't below"),
        "{}",
        done.out
    );

    let names = [
        ".lock",
        "chose.json",
        "config.json",
        "curve.json",
        "flips.jsonl",
        "manifest.json",
        "model.safetensors",
        "report.html",
        "report.json",
        "report.md",
        "run.toml",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    ];
    assert_eq!(lab.names("r"), names);
    assert!(lab.read("r/run.toml") == lab.read("new/run.toml"));
    // What was measured is what the written weights do.
    let (repaired, _) = predicted(&lab, "$T/r");
    let changed = old.iter().filter(|(id, label)| repaired[*id] != **label).count() as u64;
    assert_eq!(chosen["flips"]["changed"], changed);
    assert_eq!(lab.lines("r/flips.jsonl").len() as u64, changed);
    let manifest = lab.json("r/manifest.json");
    assert_eq!(manifest["repair"]["made_from"]["old"]["name"], lab.path("old").to_str().unwrap());
    assert_eq!(manifest["files"]["model.safetensors"].as_str().map(str::len), Some(64));

    // All of the new weights are the new model's file.
    let done = lab.ok("repair $T/old $T/new --holdout $T/hold.jsonl --alpha 0 --output $T/same");
    assert!(done.out.contains("; that is the new model itself\n"), "{}", done.out);
    assert!(lab.read("same/model.safetensors") == lab.read("new/model.safetensors"));

    // Again: nothing to do. Otherwise: refused, and everything left as it is.
    let before = lab.tree("r");
    let done = lab.ok(line);
    assert!(done.out.contains("$T/r is finished; --fresh starts over\n"), "{}", done.out);
    let refused = lab.run(&format!("{line} --refit temperature")).expect(2);
    assert_eq!(
        refused.error(),
        "$T/r holds a repair with another refit; choose another --output, or --fresh to start over here"
    );
    let refused = lab.run("repair $T/old $T/new --holdout $T/hold.jsonl --output $T/old").expect(2);
    assert!(refused.error().contains("the base model lies in $T/old"), "{}", refused.error());
    assert!(lab.tree("r") == before);
    // Killed before its manifest: the same goes on, another one doesn't.
    fs::remove_file(lab.path("r/manifest.json")).unwrap();
    let refused = lab.run(&format!("{line} --refit temperature")).expect(2);
    assert_eq!(
        refused.error(),
        "$T/r holds a model without a manifest; choose another --output, or --fresh to start over here"
    );
    lab.ok(line);
    assert!(lab.tree("r") == before);
    lab.ok(&format!("{line} --refit temperature --fresh"));
    assert!(lab.json("r/curve.json")["points"][0]["temperature"].is_f64());

    // A training doesn't go on in the folder of a repair.
    let refused = lab.run(&from_old("$T/r", 7));
    assert_ne!(refused.code, Some(0), "{}", refused.out);

    // Several new models are averaged first.
    lab.ok(&from_old("$T/other", 8));
    lab.ok("repair $T/old $T/new $T/other --holdout $T/hold.jsonl --alpha 0,0.1 --output $T/soup");
    let curve = lab.json("soup/curve.json");
    assert_eq!(curve["made_from"]["new"].as_array().unwrap().len(), 2);
    assert!(lab.read("soup/model.safetensors") != lab.read("new/model.safetensors"));
}

#[test]
fn a_refit_lowers_the_loss() {
    let lab = lab();
    let (new, before) = predicted(&lab, "$T/new");
    lab.ok(
        "repair $T/old $T/new --holdout $T/hold.jsonl --alpha 0 --refit temperature --output $T/t",
    );
    let (same, after) = predicted(&lab, "$T/t");
    assert!(after < before, "{after} is not below {before}");
    assert!(same == new, "a temperature changes no prediction");
    let curve = lab.json("t/curve.json");
    let n = |key: &str| curve[key].as_u64().unwrap();
    assert_eq!(n("measured_rows") + n("calibration_rows"), 400);
    assert!(n("calibration_rows") > 80 && n("calibration_rows") < 160, "{curve}");

    // Half way to the old model, fitted to the labels, then back to the old scores, which needs no label.
    let half = "repair $T/old $T/new --alpha 0.4 --max-churn 50% --holdout";
    lab.ok(&format!("{half} $T/hold.jsonl --output $T/half"));
    lab.ok(&format!("{half} $T/hold.jsonl --refit bias --output $T/b"));
    assert!(predicted(&lab, "$T/b").1 < predicted(&lab, "$T/half").1);
    lab.ok(&format!("{half} $T/bare.jsonl --refit bias --towards old --output $T/back"));
    let bias = |run: &str| lab.json(&format!("{run}/manifest.json"))["repair"]["bias"].clone();
    let sum =
        |bias: Value| -> f64 { bias.as_array().unwrap().iter().map(|b| b.as_f64().unwrap()).sum() };
    assert!(sum(bias("b")).abs() < 1e-6 && sum(bias("back")).abs() < 1e-6);
    assert!(lab.json("back/curve.json")["points"][0]["accuracy"].is_null());
}

#[test]
fn a_budget_decides_by_rows_that_nothing_was_chosen_by() {
    let lab = lab();
    let line = "repair $T/old $T/new --holdout $T/bare.jsonl --alpha 0:1:0.2";
    let done = lab.ok(&format!("{line} --max-churn 40% --output $T/pass"));
    assert!(done.out.contains("PASS"), "{}", done.out);
    let curve = lab.json("pass/curve.json");
    assert_eq!(curve["certificate"]["verdict"], "PASS");
    let walked = curve["certificate"]["walked"].as_array().unwrap();
    assert_eq!(walked.len(), 5, "all of the old weights is no update: {walked:?}");
    assert_eq!(lab.json("pass/report.json")["certificate"]["verdict"], "PASS");
    assert_eq!(lab.run("gate $T/pass/report.json").code, Some(0));

    // The new model alone changes more than this.
    let tight = "repair $T/old $T/new --holdout $T/bare.jsonl --alpha 0 --max-churn 2%";
    let done = lab.run(&format!("{tight} --output $T/fail")).expect(10);
    assert!(done.out.contains("none is certified; this is the safest one"), "{}", done.out);
    assert_eq!(lab.run("gate $T/fail/report.json").code, Some(10));
    // The verdict stays where there is nothing to do.
    lab.run(&format!("{tight} --output $T/fail")).expect(10);

    let never = lab.run(&format!("{line} --max-churn 0.1% --output $T/none")).expect(2);
    let expected = "max churn 0.1% with confidence 0.95 can't be certified by 280 rows, ";
    assert!(never.error().starts_with(expected), "{}", never.error());
    lab.write("golden.csv", "id\nr600\nr603\n");
    let done = lab.run(&format!("{line} --golden $T/golden.csv --output $T/golden"));
    assert!(done.out.contains("golden rows"), "{}\n{}", done.out, done.err);
    assert!(!lab.path("none").exists());
    // Other rows under the same name are another repair.
    lab.write("golden.csv", "id\nr600\nr606\n");
    let refused = lab.run(&format!("{line} --golden $T/golden.csv --output $T/golden")).expect(2);
    assert!(
        refused.error().contains("holds a repair with another budget; "),
        "{}",
        refused.error()
    );
}

#[test]
fn new_classes_come_from_the_new_model() {
    let lab = lab();
    let with_accounts = |start: usize| {
        let account = |row: usize| {
            let text = format!("{} password {} {}", OPENINGS[row % 7], ENDS[row % 5], start + row);
            format!("{}\n", json!({ "id": format!("a{row}"), "text": text, "label": "account" }))
        };
        rows(start, 150, true, true) + &(0..60).map(account).collect::<String>()
    };
    lab.write("grown.jsonl", with_accounts(300));
    let update = "update --base $T/old --new $T/grown.jsonl --holdout $T/hold.jsonl --allow-new-classes --method retrain \
                  --interpolate none --learning-rate 5e-4 --max-steps 60 --batch-size 16 --max-length 16 \
                  --tables $T/tables --output $T/grown";
    lab.ok(update);
    lab.write("hold4.jsonl", with_accounts(600));
    let line = "repair $T/old $T/grown --holdout $T/hold4.jsonl --alpha 0,0.1,1";
    lab.ok(&format!("{line} --output $T/r"));
    let labels = &lab.json("r/config.json")["id2label"];
    assert_eq!(labels["3"], "account");
    // Re-fitted towards old scores the new class keeps its place beside the old ones.
    lab.ok(&format!("{line} --refit bias --towards old --max-churn 90% --output $T/b"));
    let bias = &lab.json("b/manifest.json")["repair"]["bias"];
    assert_eq!((bias.as_array().unwrap().len(), &bias[3]), (4, &json!(0.0)));
}

/// Nor do rows that the new model was trained on measure it.
#[test]
fn rows_that_were_trained_on_are_left_out() {
    let lab = lab();
    let line = "repair $T/old $T/new --alpha 0:1:0.5 --output $T/r";
    let done = lab.run(&format!("{line} --holdout $T/new.jsonl")).expect(2);
    assert_eq!(
        done.error(),
        "300 of 300 rows have a text that $T/new was trained on, so nothing can be measured on them; give others with --holdout"
    );
    lab.write("some.jsonl", rows(500, 300, true, true));
    let done = lab.ok(&format!("{line} --holdout $T/some.jsonl"));
    let said = "100 of 300 rows have a text that $T/new was trained on; they are left out";
    assert!(done.err.contains(said), "{}", done.err);
    assert_eq!(lab.json("r/curve.json")["measured_rows"], 200);
    // Nor those that it was started from: they are in its weights.
    lab.write("before.jsonl", rows(280, 20, false, true) + &rows(600, 400, true, true));
    let done = lab.ok(&format!("{line} --fresh --holdout $T/before.jsonl"));
    let said = "20 of 420 rows have a text that $T/new was trained on; they are left out";
    assert!(done.err.contains(said), "{}", done.err);
}

/// Nor do rows that chose the new model's checkpoint certify it, though they may order what lies between.
#[test]
fn rows_that_chose_the_new_model_dont_certify_the_repair() {
    let lab = lab();
    let train = TRAIN.replace("--eval-split none", "--eval-split validation --eval-steps 20");
    fs::create_dir(lab.path("data")).unwrap();
    lab.write("data/train.jsonl", rows(300, 300, true, true));
    lab.write("data/validation.jsonl", rows(600, 200, true, true));
    lab.ok(&format!(
        "finetune $T/data --model $T/old {train} --max-steps 60 --output $T/new --fresh"
    ));
    let line = "repair $T/old $T/new --alpha 0:1:0.5 --output $T/r";
    let done =
        lab.run(&format!("{line} --max-churn 90% --holdout $T/data/validation.jsonl")).expect(2);
    let said = " certification rows chose the checkpoint of $T/new, so nothing can be certified on them; give others with --holdout";
    assert!(done.error().ends_with(said), "{}", done.err);
    // Without a budget nothing is certified, and they measure. All of them chose then, whatever was fitted by some.
    lab.ok(&format!("{line} --holdout $T/data/validation.jsonl"));
    assert_eq!(lab.json("r/curve.json")["measured_rows"], 200);
    lab.ok(&format!("{line} --fresh --refit bias --holdout $T/hold.jsonl"));
    let done = lab
        .ok("compare $T/old $T/r --data $T/hold.jsonl --nearest 0 --max-churn 90% --output $T/c");
    assert!(
        done.err.contains(
            "400 of 400 rows chose the share of the old weights of $T/r, so they can fail it"
        ),
        "{}",
        done.err
    );
    let done = lab.ok(&format!("{line} --fresh --max-churn 90% --holdout $T/hold.jsonl"));
    assert!(
        done.err.contains(" certification rows chose the checkpoint of $T/new; they are left out"),
        "{}",
        done.err
    );
    let curve = lab.json("r/curve.json");
    let n = |key: &str| curve[key].as_u64().unwrap();
    assert!(n("measured_rows") < 200 && n("calibration_rows") > 80, "{curve}");
}

#[test]
fn what_cant_be_repaired_is_said() {
    let lab = Lab::new();
    lab.write("old.jsonl", rows(0, 60, false, true));
    lab.write("hold.jsonl", rows(600, 60, true, true));
    lab.write("bare.jsonl", rows(600, 60, true, false));
    let short = format!("finetune $T/old.jsonl {TRAIN} --max-steps 1");
    lab.ok(&format!("{short} --model tiny --output $T/old"));
    lab.ok(&format!("{short} --model $T/old --output $T/new"));
    let said =
        |line: &str| lab.run(&format!("repair {line} --output $T/r")).expect(2).error().to_string();
    let hold = "--holdout $T/hold.jsonl";
    assert_eq!(
        said(&format!("$T/old $T/old {hold}")),
        "$T/old and $T/old are the same model; there is nothing between"
    );
    assert_eq!(
        said(&format!("$T/old $T/new {hold} --alpha 1")),
        "--alpha 1: expected at least one share below 1: all of the old weights is the old model"
    );
    assert!(
        said(&format!("$T/old $T/new {hold} --alpha 0:2:1"))
            .contains("is not a number from 0 to 1")
    );
    assert_eq!(
        said("$T/old $T/new --holdout $T/bare.jsonl"),
        "bare:train: no row has a label, so the new model's accuracy can't be kept; give labels, or a budget that needs \
         none: --max-churn 2%"
    );
    assert_eq!(
        said("$T/old $T/new --holdout $T/bare.jsonl --max-churn 20% --refit bias"),
        "bare:train: no row has a label to re-fit by; give labels, or --towards old"
    );
    assert_eq!(
        said(&format!("$T/old $T/new {hold} --max-slice-nfr 2%")),
        "--max-slice-nfr: repair knows no slices; use compare"
    );

    // The same words in another order, and other labels.
    let change = |name: &str, file: &str, from: &str, to: &str| {
        copy_run(&lab, "new", name);
        let path = format!("{name}/{file}");
        let text = lab.text(&path);
        assert!(text.contains(from), "{text}");
        lab.write(&path, text.replace(from, to));
    };
    change("other", "tokenizer.json", "\"money\"", "\"monye\"");
    assert_eq!(
        said(&format!("$T/old $T/other {hold}")),
        "$T/old and $T/other have different tokenizers, so there is no model between them; repair needs a model that was \
         trained from $T/old: lowchurn update --base $T/old"
    );
    change("renamed", "config.json", "delivery", "shipping");
    let text = said(&format!("$T/old $T/renamed {hold}"));
    assert!(text.starts_with("$T/old has the labels "), "{text}");
    assert!(
        text.contains("weights are combined where the new model's labels begin with"),
        "{text}"
    );
    copy_run(&lab, "old", "foreign");
    fs::remove_file(lab.path("foreign/run.toml")).unwrap();
    assert_eq!(
        said(&format!("$T/foreign $T/new {hold} --fisher")),
        "$T/foreign doesn't say which rows it was trained on; name some like them with --fisher-data DATA"
    );
    assert!(!lab.path("r").exists());
}

/// A folder's files, for a model that differs from a run's in one of them.
fn copy_run(lab: &Lab, from: &str, to: &str) {
    for (path, bytes) in lab.tree(from) {
        let below: &Path = path.strip_prefix(lab.path(from)).unwrap();
        lab.write(&format!("{to}/{}", below.display()), bytes);
    }
}
