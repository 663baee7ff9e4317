//! A small problem with a long tail: a word decides the class, and one class has few rows.
#![allow(dead_code, reason = "each target uses its part")]

use std::fs;

use serde_json::{Value, json};

use crate::util::{Done, Lab};

pub const WORDS: [(&str, [&str; 3]); 3] = [
    ("delivery", ["late", "courier", "parcel"]),
    ("returns", ["refund", "return", "swap"]),
    ("payment", ["charged", "invoice", "card"]),
];
pub const OPENINGS: [&str; 5] = ["hello", "please help", "hi there", "it is about", "urgent"];
pub const ENDS: [&str; 4] = ["today", "thanks", "for my order", "once more"];

/// So many rows of each class, with a shop; ids and texts from `start` on.
pub fn rows(start: usize, counts: [usize; 3]) -> String {
    let line = |class: usize, n: usize| {
        let at = start + n;
        let (label, words) = WORDS[class];
        let text = format!("{} {} {} {at}", OPENINGS[at * 3 % 5], words[at % 3], ENDS[at % 4]);
        let shop = ["north", "south"][at / 3 % 2];
        json!({ "id": format!("{label}-{at}"), "text": text, "label": label, "shop": shop })
    };
    let all = (0..3).flat_map(|class| (0..counts[class]).map(move |n| (class, n)));
    all.map(|(class, n)| format!("{}\n", line(class, n))).collect()
}

pub const TRAIN: &str = "--model tiny --batch-size 16 --max-length 16 --dropout 0 --learning-rate 5e-4 --max-steps 24 \
                     --eval-steps 1000 --tables $T/tables";

/// `data` has a long tail to train on and even rows to evaluate on; `new` and `hold` are for updates.
pub fn lab() -> Lab {
    let lab = Lab::new();
    fs::create_dir(lab.path("data")).unwrap();
    lab.write("data/train.jsonl", rows(0, [150, 60, 6]));
    lab.write("data/validation.jsonl", rows(1000, [40, 40, 40]));
    lab.write("data/test.jsonl", rows(2000, [40, 40, 40]));
    lab.write("new.jsonl", rows(3000, [90, 40, 4]));
    lab.write("hold.jsonl", rows(4000, [110, 110, 110]));
    lab
}

pub fn train(lab: &Lab, output: &str, flags: &str) -> Done {
    let plain = TRAIN.replace("--tables $T/tables", "");
    lab.ok(&format!("finetune $T/data {plain} --output $T/{output} {flags}"))
}

/// What `eval --json` says at its end.
pub fn eval(lab: &Lab, model: &str, split: &str) -> Value {
    let done = lab.ok(&format!("--json eval --model $T/{model} --data $T/data --split {split}"));
    serde_json::from_str(done.out.lines().last().unwrap()).unwrap()
}

pub fn worst(lab: &Lab, model: &str, split: &str) -> f64 {
    eval(lab, model, split)["worst_class"]["recall"].as_f64().unwrap()
}
