//! `update` and `sweep` as a user runs them, on a problem that the shipped encoder learns in a second: three classes, each
//! told by its own words. From some day on, what the driver did is a matter of the account.

mod util;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::{Value, json};
use util::{Done, Lab};

const WORDS: [(&str, [&str; 3]); 3] = [
    ("delivery", ["courier", "parcel", "driver"]),
    ("payment", ["invoice", "refund", "charged"]),
    ("account", ["password", "login", "profile"]),
];
const FILLERS: [&str; 6] =
    ["please help", "thank you", "what now", "is that normal", "hello", "today"];

/// Row `n`; every third is of the same class.
fn text(n: usize) -> String {
    let word = WORDS[n % 3].1[n / 3 % 3];
    format!("{} the {word} {} {}", FILLERS[n * 5 % 6], FILLERS[n * 7 / 2 % 6], 100 + n)
}

fn old_label(n: usize) -> &'static str {
    WORDS[n % 3].0
}

/// The rule of new rows.
fn new_label(n: usize) -> &'static str {
    if is_drivers(n) { "account" } else { old_label(n) }
}

fn is_drivers(n: usize) -> bool {
    n % 9 == 6
}

fn rows(which: impl Iterator<Item = usize>, label: impl Fn(usize) -> Option<String>) -> String {
    let row = |n: usize| {
        let mut row = json!({ "id": format!("r-{n}"), "text": text(n) });
        if let Some(label) = label(n) {
            row["label"] = json!(label);
        }
        format!("{row}\n")
    };
    which.map(row).collect()
}

fn with(label: fn(usize) -> &'static str) -> impl Fn(usize) -> Option<String> {
    move |n| Some(label(n).to_string())
}

/// The files of a model that has learnt the old rule from 60 rows.
fn trained() -> &'static BTreeMap<String, Vec<u8>> {
    static TRAINED: OnceLock<BTreeMap<String, Vec<u8>>> = OnceLock::new();
    TRAINED.get_or_init(|| {
        let lab = Lab::new();
        lab.write("old.jsonl", rows(0..60, with(old_label)));
        lab.ok(
            "finetune $T/old.jsonl --model tiny --eval-split none --batch-size 8 --max-length 16 --max-steps 40 \
             --learning-rate 1e-3 --output $T/shop",
        );
        let files = lab.names("shop").into_iter().filter(|name| !name.ends_with('/'));
        files.map(|name| (name.clone(), lab.read(&format!("shop/{name}")))).collect()
    })
}

/// A folder with the deployed model `shop`, its rows, new ones by the old rule (`new`) and by the new one (`changed`), and
/// 200 held-out ones of each rule.
fn deployed() -> Lab {
    let lab = Lab::new();
    lab.write("old.jsonl", rows(0..60, with(old_label)));
    lab.write("new.jsonl", rows(60..120, with(old_label)));
    lab.write("changed.jsonl", rows(600..780, with(new_label)));
    lab.write("held.jsonl", rows(200..400, with(old_label)));
    lab.write("held-changed.jsonl", rows(200..400, with(new_label)));
    for (name, bytes) in trained() {
        lab.write(&format!("shop/{name}"), bytes);
    }
    let settings = lab.text("shop/run.toml");
    let old = settings.lines().find(|line| line.starts_with("data = ")).unwrap();
    let here = format!("data = \"{}\"", lab.path("old.jsonl").display());
    lab.write("shop/run.toml", settings.replace(old, &here));
    lab
}

/// Six updates of a warm distillation, and the trained model alone.
const UPDATE: &str = "update --base $T/shop --tables $T/tables --max-steps 6 --interpolate none";

/// A retrain long enough to take the new rule over.
const RETRAIN: &str = "update --base $T/shop --tables $T/tables --method retrain --old none --max-steps 120 --learning-rate 1e-3 \
     --interpolate none --new $T/changed.jsonl --holdout $T/held-changed.jsonl";

fn report(lab: &Lab, run: &str) -> Value {
    lab.json(&format!("{run}/report.json"))
}

fn provenance(report: &Value, key: &str) -> String {
    let all = report["provenance"].as_array().unwrap();
    let found = all.iter().find(|pair| pair[0] == key);
    found.unwrap_or_else(|| panic!("{key} in {all:?}"))[1].as_str().unwrap().to_string()
}

#[track_caller]
fn says(done: &Done, line: &str) {
    let all = format!("{}{}", done.out, done.err);
    assert!(all.lines().any(|said| said == line), "{line:?} is not a line of\n{all}");
}

#[test]
fn an_update_is_an_ordinary_run_and_the_base_of_the_next() {
    let lab = deployed();
    let done = lab.ok(&format!("{UPDATE} --new $T/new.jsonl --holdout $T/held.jsonl"));
    says(&done, "rows: 60 old, 60 new, 0 unlabelled; 200 held out");
    for name in ["model.safetensors", "manifest.json", "run.toml", "report.html", "report.md"] {
        assert!(lab.path("shop-v2").join(name).is_file(), "{name}");
    }
    let settings = lab.text("shop-v2/run.toml");
    assert!(settings.contains("method = \"distil:lambda=0.5,"), "{settings}");
    let manifest = lab.json("shop-v2/manifest.json");
    assert_eq!(
        manifest["provenance"]["old"][0],
        "$T/shop".replace("$T", lab.root().to_str().unwrap())
    );
    assert!(lab.json("shop-v2/config.json")["id2label"]["0"] == "account");

    let eval = lab.ok("eval --model $T/shop-v2 --data $T/held.jsonl --json");
    let accuracy = eval.json().last().unwrap()["metrics"]["accuracy"].as_f64().unwrap();
    let percent = format!("accuracy {:.2} %", 100.0 * accuracy);
    assert!(done.out.contains(&percent), "{percent}\n{}", done.out);

    lab.write("newer.jsonl", rows(150..180, with(old_label)));
    let done = lab.ok(
        "update --base $T/shop-v2 --tables $T/tables --max-steps 6 --interpolate none --new $T/newer.jsonl \
         --holdout $T/held.jsonl",
    );
    says(&done, "rows: 120 old, 30 new, 0 unlabelled; 200 held out");
    let settings = lab.text("shop-v3/run.toml");
    let path = |name: &str| lab.path(name).display().to_string();
    let run: toml::Table = settings.parse().unwrap();
    let new: Vec<&str> =
        run["new"].as_array().unwrap().iter().map(|new| new["data"].as_str().unwrap()).collect();
    assert_eq!(new, [path("new.jsonl"), path("newer.jsonl")]);
    assert_eq!(run["data"].as_str(), Some(path("old.jsonl").as_str()));
}

#[test]
fn a_cold_start_begins_at_the_encoder() {
    let lab = deployed();
    let line =
        UPDATE.replace("--interpolate none", "--interpolate 0.5 --init cold --max-churn 90%");
    let done = lab.run(&format!("{line} --new $T/new.jsonl --holdout $T/held.jsonl")).expect(0);
    says(
        &done,
        "no models between old and new: a cold start's weights don't lie on one line with the old ones",
    );
    assert_eq!(provenance(&report(&lab, "shop-v2"), "start"), "cold");
    let manifest = lab.json("shop-v2/manifest.json");
    assert_eq!(manifest["provenance"]["base"], "tiny");
    assert!(manifest["provenance"].get("share_of_old").is_none());
}

/// The shipped encoder, with its first so many positions alone.
fn write_short_encoder(lab: &Lab, name: &str, positions: u64) {
    lab.copy("models/tiny", name);
    let weights = lab.read(&format!("{name}/model.safetensors"));
    let (length, rest) = weights.split_first_chunk().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut header: Value = serde_json::from_slice(header).unwrap();
    header.as_object_mut().unwrap().shift_remove("__metadata__");
    let mut cut = Vec::new();
    for (name, tensor) in header.as_object_mut().unwrap() {
        let at = |i: usize| tensor["data_offsets"][i].as_u64().unwrap() as usize;
        let mut bytes = data.get(at(0)..at(1)).unwrap();
        if name.contains("position_embeddings") {
            let row = bytes.len() / tensor["shape"][0].as_u64().unwrap() as usize;
            bytes = &bytes[..row * positions as usize];
            tensor["shape"][0] = json!(positions);
        }
        tensor["data_offsets"] = json!([cut.len(), cut.len() + bytes.len()]);
        cut.extend(bytes);
    }
    let header = header.to_string().into_bytes();
    let length = (header.len() as u64).to_le_bytes();
    lab.write(&format!("{name}/model.safetensors"), [&length[..], &header, &cut].concat());
    let mut config = lab.json(&format!("{name}/config.json"));
    config["max_position_embeddings"] = json!(positions);
    lab.write(&format!("{name}/config.json"), config.to_string());
}

/// A cold start may be of other sizes than the deployed model; what needs the deployed weights is refused then.
#[test]
fn another_encoder_takes_over() {
    let lab = deployed();
    write_short_encoder(&lab, "short", 8);
    let line =
        format!("{UPDATE} --new $T/new.jsonl --holdout $T/held.jsonl --init cold --model $T/short");
    let done = lab.run(&line).expect(2);
    assert_eq!(done.error(), "--max-length 16: the model reads at most 8 tokens");
    // Held-out rows on which churn is watched are longer than that.
    let line = format!("{line} --max-length 8");
    lab.ok(&format!("{line} --lambda churn<=0.02@2"));
    assert_eq!(lab.json("shop-v2/config.json")["max_position_embeddings"], 8);
    lab.ok("eval --model $T/shop-v2 --data $T/held.jsonl");
    let done = lab.run(&format!("{line} --method l2-old --output $T/x")).expect(3);
    assert!(done.error().contains("position_embeddings"), "{}", done.error());
    // The next update starts from it, warm or cold.
    for init in ["warm", "cold"] {
        lab.ok(&format!(
            "update --base $T/shop-v2 --tables $T/tables --max-steps 2 --new $T/new.jsonl --holdout $T/held.jsonl \
             --interpolate 0.5 --init {init} --output $T/{init}"
        ));
        assert_eq!(lab.json(&format!("{init}/config.json"))["max_position_embeddings"], 8);
    }
}

/// The three verdicts on the same model, and what the gate makes of the report.
#[test]
fn verdicts_are_exit_codes() {
    let lab = deployed();
    // One word of nine changes its class: about a ninth of 148 rows.
    for (limit, verdict, code) in
        [("30%", "PASS", 0), ("14%", "INCONCLUSIVE", 11), ("3%", "FAIL", 10)]
    {
        let line = format!("{RETRAIN} --max-churn {limit} --output $T/{verdict}");
        let done = lab.run(&line).expect(code);
        says(&done, verdict);
        let report = report(&lab, verdict);
        let certificate = &report["certificate"];
        assert_eq!(certificate["verdict"], verdict);
        let check = &certificate["checks"][0];
        assert_eq!((&check["name"], &check["of"]), (&json!("churn"), &json!(148)));
        let churn = check["observed"].as_f64().unwrap();
        assert!((0.08..0.15).contains(&churn), "{churn}");
        assert_eq!(check["rows_needed"].is_u64(), verdict == "INCONCLUSIVE", "{check}");
        lab.run(&format!("gate $T/{verdict}/report.json")).expect(code);
        // Finished, it says the same again.
        let done = lab.run(&line).expect(code);
        says(&done, &format!("$T/{verdict} is finished; --fresh starts over"));
        says(&done, verdict);
    }
    // The gain is on the rows whose rule changed.
    let done = lab.run(&format!("{RETRAIN} --max-churn 30% --min-accuracy-gain 1%")).expect(0);
    says(&done, "PASS");
    let done = lab.run(&format!("{RETRAIN} --max-churn 30% --min-accuracy-gain 50%")).expect(10);
    says(&done, "FAIL");
}

/// Refused before a model is trained, with the rows that it would take.
#[test]
fn a_budget_that_no_rows_here_can_certify() {
    let lab = deployed();
    let done = lab.run(&format!("{RETRAIN} --max-churn 1%")).expect(2);
    assert_eq!(
        done.error(),
        "max churn 0.01 with confidence 0.95 can't be certified by 148 rows, however they come out; hold out 299 \
         rows or more, or loosen the limit"
    );
    assert!(!lab.path("shop-v2").exists());
    lab.write("held-changed.jsonl", rows(200..400, |_| None));
    let done = lab.run(&format!("{RETRAIN} --max-nfr 5%")).expect(2);
    assert_eq!(
        done.error(),
        "max nfr 0.05 with confidence 0.95 can't be certified by 0 labelled rows, however they come out; hold out \
         59 labelled rows or more, or loosen the limit"
    );
    // Churn takes no labels.
    lab.run(&format!("{RETRAIN} --max-churn 30%")).expect(0);
    for (flags, said) in [
        ("--max-churn 0%", "max churn is 0"),
        ("--max-churn 30% --confidence 0.4", "0.4"),
        ("--max-churn 130%", "expected a share such as 2% or 0.02"),
    ] {
        let done = lab.run(&format!("{RETRAIN} {flags}")).expect(2);
        assert!(done.error().contains(said), "{}", done.error());
    }
}

#[test]
fn with_a_budget_the_walk_goes_back_to_the_old_weights() {
    let lab = deployed();
    let line = RETRAIN.replace("--interpolate none", "--interpolate 0:1:0.25");
    let done = lab.run(&format!("{line} --max-churn 6%")).expect(0);
    let report = report(&lab, "shop-v2");
    let walked = report["certificate"]["walked"].as_array().unwrap();
    assert_eq!(walked.len(), 4, "all of the old weights is no candidate");
    let chosen: Vec<&Value> = walked.iter().filter(|step| step["is_chosen"] == true).collect();
    assert_eq!(chosen.len(), 1);
    assert!(chosen[0]["name"].as_str().unwrap().contains("of the old weights"), "{chosen:?}");
    let churn: Vec<f64> =
        walked.iter().map(|step| step["calibration_churn"].as_f64().unwrap()).collect();
    assert!(churn.is_sorted(), "{churn:?}");
    let share = lab.json("shop-v2/manifest.json")["provenance"]["share_of_old"].as_f64().unwrap();
    assert!(share > 0.0 && share < 1.0);
    // The released weights are those that were certified.
    lab.ok("predict --model $T/shop-v2 --data $T/held-changed.jsonl --output $T/p.jsonl");
    lab.ok("predict --model $T/shop --data $T/held-changed.jsonl --output $T/q.jsonl");
    let labels = |name: &str| -> Vec<Value> {
        lab.lines(name).into_iter().map(|row| row["label"].clone()).collect()
    };
    let changed = labels("p.jsonl").iter().zip(labels("q.jsonl")).filter(|(a, b)| *a != b).count();
    assert!(
        done.out.contains(&format!("churn {:.2} %", changed as f64 / 2.0)),
        "{changed}\n{}",
        done.out
    );
}

#[test]
fn golden_rows_must_not_flip() {
    let lab = deployed();
    let ids = |which: &dyn Fn(usize) -> bool| -> String {
        let found = (200..400).filter(|&n| which(n)).take(5);
        found.map(|n| format!("{{\"id\": \"r-{n}\"}}\n")).collect()
    };
    lab.write("drivers.jsonl", ids(&is_drivers));
    lab.write("others.jsonl", ids(&|n| !is_drivers(n)));
    lab.write("missing.jsonl", "{\"id\": \"r-200\"}\n{\"id\": \"nowhere\"}\n");
    lab.write("text.jsonl", rows((500..540).filter(|&n| is_drivers(n)), |_| None));
    lab.write("others-text.jsonl", rows((500..540).filter(|&n| !is_drivers(n)), |_| None));
    let check = |golden: &str, code: i32, said: &str| {
        let done = lab.run(&format!("{RETRAIN} --golden $T/{golden}.jsonl")).expect(code);
        assert!(done.out.contains(said), "{golden}: {said}\n{}", done.out);
    };
    check("others", 0, "none of 5 golden rows changed");
    check("drivers", 10, "5 of 5 golden rows changed: r-");
    check("others-text", 0, "golden rows changed");
    check("text", 10, "golden rows changed: r-");
    // Said before anything is trained.
    let done =
        lab.run(&format!("{RETRAIN} --golden $T/missing.jsonl --output $T/missing")).expect(3);
    assert_eq!(
        done.error(),
        "1 golden rows aren't in the data (the first: nowhere); add them to it, or take them off the golden list"
    );
    assert!(!lab.path("missing").exists());
    lab.write("none.jsonl", "");
    let done = lab.run(&format!("{RETRAIN} --golden $T/none.jsonl")).expect(3);
    assert_eq!(done.error(), "$T/none.jsonl: no header and no rows in it");
}

#[test]
fn labels_are_aligned_by_name() {
    let lab = deployed();
    let line = format!("{UPDATE} --holdout $T/held.jsonl");
    let recased = |n: usize| Some(old_label(n).replace("account", "Account"));
    lab.write("recased.jsonl", rows(60..120, recased));
    let done = lab.run(&format!("{line} --new $T/recased.jsonl")).expect(3);
    assert_eq!(
        done.error(),
        "recased:train: label \"Account\" of the data is close to \"account\" but not the same: --label-map \
         \"Account=account\" if they are one class, --label-map \"Account=Account\" if they are two"
    );
    lab.write(
        "shipping.jsonl",
        rows(60..120, |n| Some(old_label(n).replace("delivery", "shipping"))),
    );
    let done = lab.run(&format!("{line} --new $T/shipping.jsonl")).expect(3);
    assert_eq!(
        done.error(),
        "shipping:train: the data has labels that the model lacks: shipping (the model's: account, delivery, \
         payment); --allow-new-classes makes classes of them, --label-map \"shipping=LABEL\" gives one another name"
    );
    assert!(!lab.path("shop-v2").exists());
    let done = lab.ok(&format!("{line} --new $T/shipping.jsonl --label-map shipping=delivery"));
    says(&done, "labels: shipping (2) → delivery (1), by the label map");
    let mapped = lab.read("shop-v2/model.safetensors");
    // The same rows under the model's own names are the same training.
    lab.ok(&format!("{line} --new $T/new.jsonl --output $T/plain"));
    assert!(lab.read("plain/model.safetensors") == mapped);

    let done =
        lab.run(&format!("{line} --new $T/new.jsonl --label-map shiping=delivery")).expect(3);
    assert!(done.error().contains("shiping"), "{}", done.error());
}

/// Misaligned, two of three rows would change.
#[test]
fn a_swapped_order_of_labels_changes_nothing() {
    let lab = deployed();
    let line = format!("{UPDATE} --holdout $T/held.jsonl");
    lab.ok(&format!("{line} --new $T/new.jsonl --output $T/plain"));
    // Rows of another class first: the order in which labels are met is another.
    let mut swapped: Vec<String> = lab.text("new.jsonl").lines().map(String::from).collect();
    swapped.reverse();
    lab.write("swapped.jsonl", swapped.join("\n"));
    let done = lab.ok(&format!("{line} --new $T/swapped.jsonl"));
    let flips = &report(&lab, "shop-v2")["comparison"]["all"]["flips"];
    let changed = flips["changed"].as_u64().unwrap_or_else(|| panic!("{flips}\n{}", done.out));
    assert!(changed < 20, "{changed} of 200 changed");
}

#[test]
fn new_classes_are_appended() {
    let lab = deployed();
    let is_voucher = |n: usize| n.is_multiple_of(4);
    let row = |n: usize| match is_voucher(n) {
        true => {
            json!({ "id": format!("r-{n}"), "text": format!("the voucher {n} please"), "label": "voucher" })
        }
        false => json!({ "id": format!("r-{n}"), "text": text(n), "label": old_label(n) }),
    };
    let lines =
        |which: std::ops::Range<usize>| which.map(|n| format!("{}\n", row(n))).collect::<String>();
    lab.write("vouchers.jsonl", lines(60..140));
    lab.write("held.jsonl", lines(200..300));
    let line = "update --base $T/shop --tables $T/tables --max-steps 120 --learning-rate 1e-3 --interpolate 0.5 \
                --new $T/vouchers.jsonl --holdout $T/held.jsonl --allow-new-classes";
    for (method, output) in
        [("distil", "one"), ("retrain", "two"), ("l2-old", "three"), ("mixout", "four")]
    {
        let done = lab.ok(&format!("{line} --method {method} --output $T/{output}"));
        says(&done, "labels: voucher (3) → new class 3");
        let config = lab.json(&format!("{output}/config.json"));
        assert_eq!(
            config["id2label"],
            json!({ "0": "account", "1": "delivery", "2": "payment", "3": "voucher" })
        );
        if method == "distil" {
            says(&done, "teacher: voucher: no class of the teacher's, masked out of its term");
        }
        let eval = lab.ok(&format!("eval --model $T/{output} --data $T/held.jsonl --json"));
        let accuracy = eval.json().last().unwrap()["metrics"]["accuracy"].as_f64().unwrap();
        assert!(method == "mixout" || accuracy > 0.9, "{method}: {accuracy}");
    }
    let report = report(&lab, "one");
    assert_eq!(report["new"]["labels"], json!(["account", "delivery", "payment", "voucher"]));
    assert_eq!(report["old"]["labels"], json!(["account", "delivery", "payment"]));
}

#[test]
fn unlabelled_rows_follow_the_teacher_alone() {
    let lab = deployed();
    lab.write("traffic.jsonl", rows(600..640, |_| None));
    let line = format!(
        "{UPDATE} --new $T/new.jsonl --holdout $T/held.jsonl --unlabelled $T/traffic.jsonl"
    );
    let done = lab.ok(&line);
    says(&done, "rows: 60 old, 60 new, 40 unlabelled; 200 held out");
    let done = lab.ok(&format!("{line} --method retrain --output $T/with"));
    says(&done, "retrain follows no teacher: 40 unlabelled rows are left out");
    let without =
        line.replace("--unlabelled $T/traffic.jsonl", "--method retrain --output $T/without");
    lab.ok(&without);
    assert!(lab.read("with/model.safetensors") == lab.read("without/model.safetensors"));
    // Labels that stand there are not looked at.
    lab.write("labelled.jsonl", rows(600..640, |_| Some("nonsense".into())));
    lab.ok(&line
        .replace("traffic", "labelled")
        .replace(UPDATE, &format!("{UPDATE} --output $T/labelled")));
    assert!(lab.read("labelled/model.safetensors") == lab.read("shop-v2/model.safetensors"));
}

#[test]
fn which_rows_are_old() {
    let lab = deployed();
    let line = "update --tables $T/tables --max-steps 2 --interpolate none --holdout $T/held.jsonl";
    let said = |flags: &str, counts: &str| {
        let done = lab.ok(&format!("{line} {flags}"));
        says(&done, &format!("rows: {counts} unlabelled; 200 held out"));
    };
    said("--base $T/shop --new $T/new.jsonl", "60 old, 60 new, 0");
    said("--base $T/shop --new $T/new.jsonl --old none --output $T/alone", "0 old, 60 new, 0");
    lab.write("newer.jsonl", rows(150..180, with(old_label)));
    // New rows of an update are old ones of the next; those named with --old are old, and no other.
    said("--base $T/shop-v2 --new $T/newer.jsonl", "120 old, 30 new, 0");
    said("--base $T/alone --new $T/newer.jsonl", "60 old, 30 new, 0");
    said("--base $T/shop-v2 --new $T/newer.jsonl --old none --output $T/x", "0 old, 30 new, 0");
    said(
        "--base $T/shop-v2 --new $T/newer.jsonl --old $T/old.jsonl --output $T/y",
        "60 old, 30 new, 0",
    );

    fs::remove_file(lab.path("shop/run.toml")).unwrap();
    let done =
        lab.run(&format!("{line} --base $T/shop --new $T/new.jsonl --output $T/z")).expect(2);
    assert_eq!(
        done.error(),
        "$T/shop: it doesn't say which rows it was trained on; name them with --old DATA, or --old none to train on \
         the new ones alone"
    );
    said("--base $T/shop --new $T/new.jsonl --old none --output $T/z", "0 old, 60 new, 0");
    let cold =
        format!("{line} --base $T/shop --new $T/new.jsonl --old none --init cold --output $T/cold");
    let done = lab.run(&cold).expect(2);
    assert_eq!(
        done.error(),
        "$T/shop doesn't say which encoder it was fine-tuned from; name it with --model, or start warm"
    );
    lab.ok(&format!("{cold} --model tiny"));
}

#[test]
fn new_rows_of_one_class() {
    let lab = deployed();
    lab.write("one.jsonl", rows((60..150).filter(|n| n % 3 == 1), with(old_label)));
    let done = lab.ok(&format!("{UPDATE} --new $T/one.jsonl"));
    says(&done, "rows: 60 old, 24 new, 0 unlabelled; 6 held out");
    assert_eq!(lab.json("shop-v2/config.json")["id2label"]["1"], "delivery");
}

/// A rate at which nothing moves: the update predicts what the old model predicts, and that is no error.
#[test]
fn old_and_new_the_same() {
    let lab = deployed();
    lab.ok(&format!(
        "{UPDATE} --new $T/new.jsonl --holdout $T/held.jsonl --learning-rate 1e-12 --max-churn 5% --max-nfr 5%"
    ));
    let report = report(&lab, "shop-v2");
    assert_eq!(report["certificate"]["verdict"], "PASS");
    assert_eq!(report["certificate"]["checks"][0]["count"], 0);
    assert!(lab.text("shop-v2/report.html").contains("</html>"));
    let done = lab.ok("compare $T/shop $T/shop --data $T/held.jsonl --output $T/same");
    says(&done, "churn           0.00 % (0.00 to 1.83), 0 rows");
    says(&done, "both sides are the same, by their hashes");
}

#[test]
fn a_table_is_scored_once() {
    let lab = deployed();
    let line = format!("{UPDATE} --new $T/new.jsonl --holdout $T/held.jsonl");
    let done = lab.ok(&line);
    assert_eq!(done.err.matches("rows scored once").count(), 2, "{}", done.err);
    let tables = lab.names("tables");
    assert_eq!(tables.len(), 2);
    let first = lab.tree("tables");
    let done = lab.ok(&format!("{line} --lambda 0.8 --output $T/other"));
    assert_eq!(done.err.matches("rows scored once").count(), 0, "{}", done.err);
    assert!(lab.tree("tables") == first, "a table was written again");

    let line = format!("{line} --fresh");
    // One table in the place of the other, and a damaged one.
    let (a, b) = (lab.path("tables").join(&tables[0]), lab.path("tables").join(&tables[1]));
    fs::copy(&a, &b).unwrap();
    let done = lab.run(&line).expect(3);
    assert!(
        done.error().contains("holds the scores of another teacher or of other rows ("),
        "{}",
        done.error()
    );
    let mut bytes = first[&b].clone();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&b, bytes).unwrap();
    let done = lab.run(&line).expect(3);
    assert!(done.error().contains("the file is damaged"), "{}", done.error());
    assert!(
        done.error().ends_with("delete this file, and the teacher scores the rows again"),
        "{}",
        done.error()
    );
    fs::remove_file(&b).unwrap();
    let done = lab.ok(&line);
    assert_eq!(done.err.matches("rows scored once").count(), 1, "{}", done.err);
    assert!(lab.tree("tables") == first, "the table came out otherwise");
}

/// The deployed model is never written over, nor a model that no run of ours made.
#[test]
fn models_of_others_are_not_written_over() {
    let lab = deployed();
    let before = lab.tree("shop");
    let line = format!("{UPDATE} --new $T/new.jsonl --holdout $T/held.jsonl");
    for flags in ["", "--fresh", "--dry-run"] {
        let done = lab.run(&format!("{line} --output $T/shop {flags}")).expect(2);
        assert_eq!(
            done.error(),
            "the base model lies in $T/shop, which this run would write; choose another --output"
        );
        assert!(lab.tree("shop") == before, "{flags}: the base was changed");
    }
    lab.copy("models/tiny", "theirs");
    let before = lab.tree("theirs");
    let done = lab.run(&format!("{line} --output $T/theirs")).expect(2);
    assert_eq!(done.error(), "$T/theirs holds a model that is no run's; choose another --output");
    assert!(lab.tree("theirs") == before);
}

#[test]
fn a_dry_run_trains_nothing() {
    let lab = deployed();
    let done = lab.ok(&format!(
        "{UPDATE} --new $T/new.jsonl --holdout $T/held.jsonl --lambda 0.3,0.6 --dry-run"
    ));
    assert_eq!(done.out.matches("would train distil:lambda=0.").count(), 2, "{}", done.out);
    assert!(!lab.path("shop-v2").exists());
}

#[test]
fn flags_that_mean_nothing_here() {
    let lab = deployed();
    for flag in ["--train-split train", "--eval-fraction 0.5", "--patience 2"] {
        let done = lab.run(&format!("{UPDATE} --new $T/new.jsonl {flag}")).expect(2);
        let name = flag.split(' ').next().unwrap();
        assert!(done.error().starts_with(&format!("{name} is for finetune; ")), "{}", done.error());
    }
    let done = lab.run(UPDATE).expect(2);
    assert_eq!(done.error(), "no rows to hold out; give new rows with --new, or --holdout DATA");
    let done = lab.run(&format!("{UPDATE} --new $T/new.jsonl --lambda 1.5")).expect(2);
    assert!(done.error().contains("1.5"), "{}", done.error());
}

/// SIGINT while the table is made and while it trains: the same command ends in the bytes of a straight run.
#[test]
fn interrupted_and_gone_on_with() {
    let many = rows(1000..4000, with(old_label));
    let line = "update --base $T/shop --tables $T/tables --max-steps 60 --save-steps 5 --interpolate 0.5 --batch-size 8 \
                --new $T/many.jsonl --holdout $T/held.jsonl --max-churn 90%";
    let straight = deployed();
    straight.write("many.jsonl", &many);
    straight.ok(line);
    let weights = straight.read("shop-v2/model.safetensors");

    let lab = deployed();
    lab.write("many.jsonl", &many);
    // The held-out rows' table comes first, then that of the training rows.
    let mut running = lab.start(line);
    let tables = lab.path("tables");
    let is_begun = || {
        let names = fs::read_dir(&tables).into_iter().flatten().flatten();
        let names: Vec<String> =
            names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.len() > 1 && names.iter().any(|name| !name.ends_with(".safetensors"))
    };
    while !is_begun() && running.until_not(&lab.path("shop-v2/candidates")) {}
    running.signal("INT");
    let done = running.wait().expect(130);
    assert!(done.err.contains("go on with the same command: "), "{}", done.err);
    assert!(!lab.path("shop-v2/model.safetensors").exists());

    let mut running = lab.start(line);
    let candidates = lab.path("shop-v2/candidates");
    let is_saved = |root: &Path| {
        let runs = fs::read_dir(root).into_iter().flatten().flatten();
        runs.flat_map(|run| fs::read_dir(run.path()))
            .flatten()
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("checkpoint-"))
    };
    while !is_saved(&candidates) && running.until_not(&lab.path("shop-v2/model.safetensors")) {}
    running.signal("INT");
    let done = running.wait().expect(130);
    assert!(done.err.contains("stopped after update "), "{}", done.err);

    lab.ok(line);
    assert!(lab.read("shop-v2/model.safetensors") == weights, "other bytes than without a stop");
    let (a, b) = (report(&lab, "shop-v2"), report(&straight, "shop-v2"));
    assert_eq!(a["certificate"], b["certificate"]);
}

/// SIGKILL while the update is written, candidates finished: the same command writes it whole.
#[test]
fn killed_while_the_update_is_written() {
    let straight = deployed();
    let line = format!("{UPDATE} --new $T/new.jsonl --holdout $T/held.jsonl");
    straight.ok(&line);
    for at in ["shop-v2/run.toml", "shop-v2/.release.partial", "shop-v2/manifest.json"] {
        let lab = deployed();
        let mut running = lab.start(&line);
        if running.until(&lab.path(at)) {
            running.kill();
        }
        running.wait();
        // That may have come too late to leave anything, so half of a release is left by hand too.
        lab.write("shop-v2/.release.partial/config.json", "{}");
        let _ = fs::remove_file(lab.path("shop-v2/report.json"));
        lab.ok(&line);
        for name in ["model.safetensors", "config.json", "eval_results.json"] {
            let name = format!("shop-v2/{name}");
            assert!(lab.read(&name) == straight.read(&name), "{at}: {name}");
        }
        assert!(!lab.path("shop-v2/.release.partial").exists());
        let flips = |lab: &Lab| report(lab, "shop-v2")["comparison"].clone();
        assert_eq!(flips(&lab), flips(&straight), "{at}");
    }
}

/// The result of another update in the output folder is not written over, and its candidates are not taken for this one's.
#[test]
fn another_update_in_the_same_folder() {
    let lab = deployed();
    let named = format!("{UPDATE} --new $T/new.jsonl --holdout $T/held.jsonl --method retrain");
    lab.ok(&named);
    let before = lab.tree("shop-v2");
    let line = format!("{named} --output $T/shop-v2");
    let end = "; choose another output folder, or --fresh to start over here";
    for (flags, what) in [
        ("--seed 7", "seed: 42, now 7"),
        ("--init cold", "start: warm, now cold"),
        ("--old none", "training data: "),
        ("--old-holdout $T/old.jsonl --old none --new $T/old.jsonl", "training data: "),
        ("--max-churn 30%", "budget: none, now max-churn 0.3, confidence 0.95"),
        ("--lambda 0.5", ""),
    ] {
        let done = lab.run(&format!("{line} {flags}")).expect(2);
        if !what.is_empty() {
            let start = format!("$T/shop-v2 holds a run with another {what}");
            assert!(done.error().starts_with(&start), "{}", done.error());
            assert!(done.error().ends_with(end), "{}", done.error());
        }
        assert!(lab.tree("shop-v2") == before, "{flags}: something was changed");
    }
    let done = lab.ok(&line);
    says(&done, "$T/shop-v2 is finished; --fresh starts over");
    assert!(lab.tree("shop-v2") == before);
    // Without a name it goes where nothing lies.
    lab.ok(&format!("{named} --seed 7"));
    assert!(lab.path("shop-v3/model.safetensors").is_file());
    assert!(lab.tree("shop-v2") == before);
    lab.ok(&format!("{line} --seed 7 --fresh"));
    assert!(
        lab.read("shop-v2/model.safetensors") != before[&lab.path("shop-v2/model.safetensors")]
    );
    // The run that made the base is no update's result.
    lab.write("shop-old/run.toml", lab.read("shop/run.toml"));
    let done = lab.run(&format!("{named} --output $T/shop-old")).expect(2);
    assert_eq!(
        done.error(),
        "$T/shop-old holds a run that isn't this update's; choose another --output, or --fresh to start over here"
    );
}

#[test]
fn held_out_rows_of_both_kinds_are_told_apart() {
    let lab = deployed();
    lab.write("held-old.jsonl", rows(400..460, with(old_label)));
    let line = format!("{RETRAIN} --old-holdout $T/held-old.jsonl");
    let done = lab.ok(&line);
    says(&done, "rows: 0 old, 180 new, 0 unlabelled; 260 held out");
    let comparison = &report(&lab, "shop-v2")["comparison"];
    let flips = |part: &str, key: &str| comparison[part]["flips"][key].as_u64().unwrap();
    assert_eq!((flips("old_rows", "rows"), flips("new_rows", "rows")), (60, 200));
    for key in ["changed", "negative", "positive", "lateral", "both_right"] {
        assert_eq!(flips("old_rows", key) + flips("new_rows", key), flips("all", key), "{key}");
    }
    // By the old rule the change is wrong, by the new one right.
    assert!(flips("old_rows", "negative") > 0 && flips("old_rows", "positive") == 0);
    assert!(flips("new_rows", "positive") > 0);

    // Ids that both have are told apart.
    let done = lab.ok(&format!(
        "{UPDATE} --new $T/new.jsonl --holdout $T/held.jsonl --old-holdout $T/held.jsonl --output $T/twice"
    ));
    says(&done, "rows: 60 old, 60 new, 0 unlabelled; 400 held out");
}

/// Two teachers as one, each with a table of its own; what can't be one is refused.
#[test]
fn teachers_of_other_kinds() {
    let lab = deployed();
    let line = format!("{UPDATE} --new $T/new.jsonl --holdout $T/held.jsonl");
    lab.ok(&line);
    lab.ok(&format!("{line} --output $T/alone --lambda 0.9"));
    let both = format!("{line} --lambda 0.9 --teacher $T/shop --teacher $T/shop-v2");
    let done = lab.ok(&format!("{both} --output $T/both"));
    says(&done, "teacher: mean of the probabilities of $T/shop, $T/shop-v2");
    let done = lab.ok(&format!("{both} --ensemble logits --output $T/logits"));
    says(&done, "teacher: mean of the logits of $T/shop, $T/shop-v2");
    let weights = |run: &str| lab.read(&format!("{run}/model.safetensors"));
    assert!(weights("both") != weights("alone") && weights("both") != weights("logits"));
    let teacher = &lab.json("both/manifest.json")["provenance"]["teacher"];
    assert!(teacher[1].as_str().unwrap().matches("teacher-").count() == 2, "{teacher}");

    lab.write(
        "vouchers.jsonl",
        rows(60..120, |n| Some(old_label(n).replace("payment", "voucher"))),
    );
    lab.ok(&format!("{UPDATE} --new $T/vouchers.jsonl --allow-new-classes --output $T/four"));
    let done = lab.run(&format!("{line} --teacher $T/four --output $T/x")).expect(3);
    assert_eq!(
        done.error(),
        "the teacher has classes that the student lacks: voucher (the student's: account, delivery, payment); say \
         which they are with --label-map \"voucher=LABEL\", or take a teacher of the same task"
    );
    let done = lab.run(&format!("{line} --teacher tiny --output $T/x")).expect(3);
    assert!(done.error().starts_with("tiny has no classification head; "), "{}", done.error());
    assert!(!lab.path("x/model.safetensors").exists());
}

/// Two methods, two seeds, one table.
const SWEEP: &str = "sweep --base $T/shop --tables $T/tables --new $T/changed.jsonl --holdout $T/held-changed.jsonl \
                     --max-steps 12 --learning-rate 1e-3 --method retrain --method distil --lambda 0.5,0.9 --init warm";

fn points(lab: &Lab, sweep: &str) -> Vec<Value> {
    lab.json(&format!("{sweep}/frontier.json"))["points"].as_array().unwrap().clone()
}

#[test]
fn a_sweep_goes_on_point_by_point() {
    let lab = deployed();
    let line = format!("{SWEEP} --interpolate 0.5 --seeds 2 --output $T/sweep");
    let done = lab.ok(&line);
    assert_eq!(done.err.matches("rows scored once").count(), 2, "{}", done.err);
    let frontier = lab.read("sweep/frontier.json");
    let all = points(&lab, "sweep");
    let name = |p: &Value| {
        let part = |key: &str| p[key].as_str().unwrap().to_string();
        format!("{} {} {}", part("method"), part("init"), part("setting")).trim().to_string()
    };
    let mut names: Vec<String> = all.iter().map(name).collect();
    names.sort();
    assert_eq!(
        names,
        ["distil warm λ 0.5", "distil warm λ 0.9", "interpolate warm α 0.5", "retrain warm"]
    );
    for point in &all {
        assert_eq!(point["seeds"], json!([42, 43]));
        for axis in ["accuracy", "churn", "nfr"] {
            let mean = point[axis]["value"].as_f64().unwrap();
            assert!((0.0..=1.0).contains(&mean), "{point}");
            assert!(point[axis]["standard_error"].as_f64().unwrap() >= 0.0, "{point}");
        }
    }
    assert!(all.iter().any(|point| point["is_on_frontier"] == true));
    let value = |wanted: &str, axis: &str| {
        all.iter().find(|p| name(p) == wanted).unwrap()[axis]["value"].as_f64().unwrap()
    };
    assert!(value("interpolate warm α 0.5", "churn") <= value("retrain warm", "churn"));
    // A point is what its predictions say.
    let point = lab.json("sweep/points/retrain-warm/seed-42/point.json");
    let rows = lab.lines("sweep/points/retrain-warm/seed-42/predictions.jsonl");
    let right = rows.iter().filter(|row| row["label"] == row["gold"]).count();
    assert_eq!(point["point"]["accuracy"], right as f64 / 200.0);
    assert!(!lab.path("sweep/points/retrain-warm/seed-42/model").exists());

    let before = lab.tree("sweep");
    let done = lab.ok(&line);
    assert!(!done.err.contains("step 1/12"), "a second run trained: {}", done.err);
    assert_eq!(lab.read("sweep/frontier.json"), frontier);
    assert!(lab.tree("sweep") == before);
    // One point gone is one point computed.
    fs::remove_dir_all(lab.path("sweep/points/distil-warm-l-0.9/seed-43")).unwrap();
    let done = lab.ok(&line);
    assert_eq!(done.err.matches("step 1/12").count(), 1, "{}", done.err);
    assert_eq!(lab.read("sweep/frontier.json"), frontier);

    // Points of other data, of another teacher, of other settings.
    let other =
        "holds a point of other data, models or settings; choose another --output or remove it";
    for (changed, what) in [
        (line.replace("$T/changed.jsonl", "$T/new.jsonl"), "training"),
        (line.replace("held-changed", "held"), "held-out"),
    ] {
        let done = lab.run(&changed).expect(2);
        let said = format!(" and this sweep have other {what} rows (");
        assert!(done.error().contains(&said), "{}", done.error());
    }
    let done = lab.run(&format!("{line} --batch-size 4")).expect(2);
    assert!(done.error().ends_with(other), "{}", done.error());
    lab.ok(&format!("{UPDATE} --new $T/new.jsonl --holdout $T/held.jsonl"));
    let done = lab.run(&format!("{line} --teacher $T/shop-v2")).expect(2);
    assert!(done.error().contains("distil-warm-l-0.5"), "{}", done.error());
    assert!(done.error().ends_with(other), "{}", done.error());
    assert_eq!(lab.read("sweep/frontier.json"), frontier);
}

#[test]
fn a_sweep_that_is_stopped_goes_on() {
    let line = format!("{SWEEP} --interpolate 0.5 --save-steps 2 --output $T/sweep");
    let straight = deployed();
    straight.ok(&line);
    let lab = deployed();
    for (at, signal) in [
        ("sweep/points/retrain-warm/seed-42/model/checkpoint-4", "INT"),
        ("sweep/points/distil-warm-l-0.5/seed-42/model/checkpoint-6", "KILL"),
        ("sweep/points/distil-warm-l-0.9/seed-42/predictions.jsonl", "KILL"),
    ] {
        let mut running = lab.start(&line);
        if running.until(&lab.path(at)) {
            running.signal(signal);
            let done = running.wait();
            // A kill may come when everything is written.
            let expected = if signal == "INT" { [Some(130); 2] } else { [None, Some(0)] };
            assert!(expected.contains(&done.code), "{}", done.err);
        }
    }
    lab.ok(&line);
    assert_eq!(lab.json("sweep/frontier.json"), straight.json("sweep/frontier.json"));
}

#[test]
fn shards_merge_to_the_whole() {
    let lab = deployed();
    let line = format!("{SWEEP} --interpolate none --seeds 1");
    lab.ok(&format!("{line} --output $T/whole"));
    for shard in [1, 2] {
        let done = lab.ok(&format!("{line} --shard {shard}/2 --output $T/part-{shard}"));
        assert!(done.out.contains("put shards together with --merge"), "{}", done.out);
        assert!(!lab.path(&format!("part-{shard}/frontier.json")).exists());
    }
    lab.ok(&format!("{line} --merge $T/part-1 $T/part-2 --output $T/merged"));
    assert_eq!(lab.json("merged/frontier.json"), lab.json("whole/frontier.json"));
    assert_eq!(points(&lab, "merged").len(), 3);
    for (shard, said) in [("0/2", "0/2"), ("3/2", "3/2"), ("x", "x")] {
        let done = lab.run(&format!("{line} --shard {shard} --output $T/bad")).expect(2);
        let expected = format!("--shard {said}: expected I/N with I from 1 to N, such as 1/3");
        assert_eq!(done.error(), expected);
    }
    // The same point with another result in two folders.
    let path = "part-2/points/distil-warm-l-0.5/seed-42/point.json";
    let mut point = lab.json(path);
    point["flips"]["changed"] = json!(1);
    lab.write("part-1/points/distil-warm-l-0.5/seed-42/point.json", lab.read(path));
    lab.write(path, point.to_string());
    let done = lab.run(&format!("{line} --merge $T/part-1 $T/part-2 --output $T/merged")).expect(2);
    assert!(done.error().contains("are the same point with other results"), "{}", done.error());
    let done = lab.run(&format!("{line} --merge $T/nowhere --output $T/empty")).expect(2);
    assert_eq!(done.error(), "no point is there to put together");
}

/// A setting that the first seed shows to be clearly worse in both is left out for the others, a retrain never.
#[test]
fn dominated_settings_are_dropped() {
    let lab = deployed();
    // Label smoothing of nearly all of the target learns nothing from a cold start.
    let line = "sweep --base $T/shop --tables $T/tables --new $T/new.jsonl --holdout $T/held.jsonl --max-steps 12 \
                --learning-rate 1e-3 --method retrain --smoothing 0.99 --init warm,cold --interpolate none --seeds 2 \
                --drop-dominated --output $T/sweep";
    let done = lab.ok(line);
    assert!(
        done.err.contains("label-smoothing-cold-a-0.99: dominated after the first seed, left out"),
        "{}",
        done.err
    );
    for (name, seeds) in
        [("retrain-warm", 2), ("retrain-cold", 2), ("label-smoothing-cold-a-0.99", 1)]
    {
        assert_eq!(lab.names(&format!("sweep/points/{name}")).len(), seeds, "{name}");
    }
}

/// Each method from the deployed weights and from the encoder: a point each, and no two are the same model. The learning rate is
/// such that three updates change predictions: a λ that follows a churn budget stays 0 until they do.
#[test]
fn every_method_from_either_start() {
    let lab = deployed();
    let methods = [
        "retrain",
        "distil",
        "distil:rows=old",
        "distil:lambda=churn<=0.02@1",
        "anchor",
        "anchor-rcp",
        "focal",
        "inhibition",
        "mixup",
        "bi-tempered",
        "confidence-penalty",
        "entropy-minimisation",
        "co-distil",
        "l2-old:strength=1",
        "ewc:rows=8,strength=100",
        "mixout",
    ];
    let flags: String = methods.iter().map(|method| format!(" --method {method}")).collect();
    lab.ok(&format!(
        "sweep --base $T/shop --tables $T/tables --new $T/changed.jsonl --holdout $T/held.jsonl --max-steps 3 \
         --learning-rate 5e-3 --interpolate none --init cold,warm --output $T/sweep --method shrink-perturb{flags}"
    ));
    let all = points(&lab, "sweep");
    assert_eq!(all.len(), 2 * methods.len() + 1, "shrink-perturb has a start of its own");
    let mut seen = BTreeMap::new();
    for setting in lab.names("sweep/points") {
        let rows = lab.text(&format!("sweep/points/{setting}seed-42/predictions.jsonl"));
        if let Some(other) = seen.insert(rows, setting.clone()) {
            panic!("{setting} and {other} predict the same to the last digit");
        }
    }
    // Fisher information is made once; the points of both starts share it.
    assert_eq!(lab.names("tables").iter().filter(|name| name.starts_with("fisher-")).count(), 1);
}

#[test]
fn each_seed_may_have_its_own_base() {
    let lab = deployed();
    for seed in [42, 43] {
        lab.ok(&format!(
            "update --base $T/shop --tables $T/tables --max-steps 2 --interpolate none --new $T/new.jsonl \
             --holdout $T/held.jsonl --seed {seed} --output $T/bases/seed-{seed}"
        ));
    }
    lab.ok(
        "sweep --base $T/bases/seed-{seed} --tables $T/tables --new $T/changed.jsonl --holdout $T/held-changed.jsonl \
         --max-steps 2 --method retrain --init warm --interpolate none --seeds 2 --output $T/sweep",
    );
    let old = |seed: u64| {
        let path = format!("sweep/points/retrain-warm/seed-{seed}/point.json");
        lab.json(&path)["made_from"]["old_sha256"].clone()
    };
    assert!(old(42).is_string() && old(42) != old(43));
}

#[test]
fn a_sweep_needs_labels_to_measure() {
    let lab = deployed();
    lab.write("held-changed.jsonl", rows(200..260, |_| None));
    let done = lab.run(&format!("{SWEEP} --interpolate none --output $T/sweep")).expect(2);
    assert!(
        done.error().ends_with("no row has a label; a sweep's axes are churn and accuracy"),
        "{}",
        done.error()
    );
    assert!(!done.err.contains("step 1/12"), "it was trained before that was said: {}", done.err);
}
