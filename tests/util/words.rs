//! A small problem that the shipped encoder learns in a second: a word decides the class, and later one word changes its class.
#![allow(dead_code, reason = "each target uses its part")]

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::util::Lab;

pub const LABELS: [&str; 3] = ["returns", "delivery", "payment"];
pub const WORDS: [[&str; 4]; 3] = [
    ["refund", "return", "swap", "exchange"],
    ["late", "courier", "parcel", "tracking"],
    ["charged", "invoice", "card", "voucher"],
];
pub const OPENINGS: [&str; 7] =
    ["hello", "please help", "hi there", "it is about", "again", "dear team", "urgent"];
pub const ENDS: [&str; 5] = ["today", "thanks", "for my order", "of last week", "once more"];

/// Lines of JSON from row `start` on; with the new rule "exchange" is payment.
pub fn rows(start: usize, n: usize, is_new: bool, has_labels: bool) -> String {
    let line = |row: usize| {
        let class = row % 3;
        let word = (row / 3 * 7 + row / 36) % 4;
        let label = if is_new && class == 0 && word == 3 { 2 } else { class };
        // With its number, since rows that share a text with a training row don't measure.
        let text =
            format!("{} {} {} {row}", OPENINGS[row * 5 % 7], WORDS[class][word], ENDS[row * 3 % 5]);
        match has_labels {
            true => json!({ "id": format!("r{row}"), "text": text, "label": LABELS[label] }),
            false => json!({ "id": format!("r{row}"), "text": text }),
        }
    };
    (start..start + n).map(|row| format!("{}\n", line(row))).collect()
}

pub const TRAIN: &str = "--eval-split none --batch-size 16 --max-length 16 --dropout 0";

/// id → predicted label, and the mean of −log p(gold), from `predict`.
pub fn predicted(lab: &Lab, model: &str) -> (BTreeMap<String, String>, f64) {
    lab.ok(&format!("predict --model {model} --data $T/hold.jsonl --output $T/p.jsonl"));
    let lines = lab.lines("p.jsonl");
    let of_gold = |line: &Value| {
        let gold = line["gold"].as_str().unwrap();
        -line["scores"][gold].as_f64().unwrap().max(1e-12).ln()
    };
    let loss = lines.iter().map(of_gold).sum::<f64>() / lines.len() as f64;
    let text = |value: &Value| value.as_str().unwrap().to_string();
    (lines.iter().map(|line| (text(&line["id"]), text(&line["label"]))).collect(), loss)
}
