//! A deployed model, its rows and new ones, of a problem that the shipped encoder learns in a second: three classes, each told
//! by its own words. From some day on, what the driver did is a matter of the account.
#![allow(dead_code, reason = "not every test file asks for all of it")]

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::util::{Done, Lab};

pub const WORDS: [(&str, [&str; 3]); 3] = [
    ("delivery", ["courier", "parcel", "driver"]),
    ("payment", ["invoice", "refund", "charged"]),
    ("account", ["password", "login", "profile"]),
];
pub const FILLERS: [&str; 6] =
    ["please help", "thank you", "what now", "is that normal", "hello", "today"];

/// Row `n`; every third is of the same class.
pub fn text(n: usize) -> String {
    let word = WORDS[n % 3].1[n / 3 % 3];
    format!("{} the {word} {} {}", FILLERS[n * 5 % 6], FILLERS[n * 7 / 2 % 6], 100 + n)
}

pub fn old_label(n: usize) -> &'static str {
    WORDS[n % 3].0
}

/// The rule of new rows.
pub fn new_label(n: usize) -> &'static str {
    if is_drivers(n) { "account" } else { old_label(n) }
}

pub fn is_drivers(n: usize) -> bool {
    n % 9 == 6
}

pub fn rows(which: impl Iterator<Item = usize>, label: impl Fn(usize) -> Option<String>) -> String {
    let row = |n: usize| {
        let mut row = json!({ "id": format!("r-{n}"), "text": text(n) });
        if let Some(label) = label(n) {
            row["label"] = json!(label);
        }
        format!("{row}\n")
    };
    which.map(row).collect()
}

pub fn with(label: fn(usize) -> &'static str) -> impl Fn(usize) -> Option<String> {
    move |n| Some(label(n).to_string())
}

/// The files of a model that has learnt the old rule from 60 rows.
pub fn trained() -> &'static BTreeMap<String, Vec<u8>> {
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
pub fn deployed() -> Lab {
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
pub const UPDATE: &str =
    "update --base $T/shop --tables $T/tables --max-steps 6 --interpolate none";

/// A retrain long enough to take the new rule over.
pub const RETRAIN: &str = "update --base $T/shop --tables $T/tables --method retrain --old none --max-steps 120 --learning-rate 1e-3 \
     --interpolate none --new $T/changed.jsonl --holdout $T/held-changed.jsonl";

pub fn report(lab: &Lab, run: &str) -> Value {
    lab.json(&format!("{run}/report.json"))
}

pub fn provenance(report: &Value, key: &str) -> String {
    let all = report["provenance"].as_array().unwrap();
    let found = all.iter().find(|pair| pair[0] == key);
    found.unwrap_or_else(|| panic!("{key} in {all:?}"))[1].as_str().unwrap().to_string()
}

#[track_caller]
pub fn says(done: &Done, line: &str) {
    let all = format!("{}{}", done.out, done.err);
    assert!(all.lines().any(|said| said == line), "{line:?} is not a line of\n{all}");
}
