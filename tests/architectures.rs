//! The whole job with every architecture, as a user would do it: from a checkpoint that a family's own tokenizer lies beside
//! to a run, its predictions, and its successor.

mod util;

use std::fs;

use serde_json::{Value, json};
use util::{Lab, repository};

const FOLDER: &str = "tests/golden/architectures";
const ROWS: &str = "--train-split train[:40] --eval-split train[40:60] --batch-size 8 --max-length 32 --max-steps 4";

fn names() -> Vec<String> {
    let entries = fs::read_dir(repository().join(FOLDER)).unwrap().map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.path().join("tokenizer.json").is_file());
    let mut names: Vec<String> =
        folders.map(|entry| entry.file_name().to_str().unwrap().into()).collect();
    names.sort();
    assert!(names.len() >= 8, "{names:?}");
    names
}

#[test]
fn every_architecture_is_fine_tuned_and_predicts() {
    for name in names() {
        let lab = Lab::new();
        let base = format!("{FOLDER}/{name}");
        lab.ok(&format!("finetune tickets --model {base} --output $T/run {ROWS}"));
        let config = lab.json("run/config.json");
        let of_base: Value = serde_json::from_slice(
            &fs::read(repository().join(&base).join("config.json")).unwrap(),
        )
        .unwrap();
        for key in ["model_type", "architectures", "vocab_size", "pad_token_id"] {
            assert_eq!(config[key], of_base[key], "{name}, {key}");
        }
        assert_eq!(config["id2label"]["5"], json!("warranty"), "{name}");
        let predict =
            "predict --model $T/run --data tickets --split train[60:70] --output $T/rows.jsonl";
        lab.ok(predict);
        assert_eq!(lab.lines("rows.jsonl").len(), 10, "{name}");
    }
}

/// A teacher of another family with another tokenizer.
#[test]
fn one_family_teaches_another() {
    let lab = Lab::new();
    lab.ok(&format!("finetune tickets --model {FOLDER}/roberta --output $T/teacher {ROWS}"));
    let student = format!("--model {FOLDER}/distilbert --output $T/student {ROWS}");
    lab.ok(&format!("distil tickets --teacher $T/teacher {student}"));
    assert_eq!(lab.json("student/config.json")["model_type"], json!("distilbert"));
}

#[test]
fn what_does_not_fit_is_said() {
    let lab = Lab::new();
    let fails = |line: &str, code: i32, expected: &str| {
        let done = lab.run(line);
        assert_eq!(done.code, Some(code), "{line}: {}", done.err);
        assert!(done.err.contains(expected), "{line}: {}", done.err);
    };
    let copy = |from: &str, to: &str| {
        lab.copy(&format!("{FOLDER}/{from}"), to);
    };
    let with = |model: &str| format!("finetune tickets --model {model} --output $T/run {ROWS}");
    let too_long = ROWS.replace("--max-length 32", "--max-length 41");
    fails(
        &format!("finetune tickets --model {FOLDER}/roberta --output $T/run {too_long}"),
        2,
        "--max-length 41: tests/golden/architectures/roberta reads at most 40 tokens",
    );

    // Both vocabularies are smaller than the embedding by as little: no size would show it.
    copy("roberta", "mixed");
    let tokenizer = repository().join(FOLDER).join("electra/tokenizer.json");
    fs::copy(tokenizer, lab.path("mixed/tokenizer.json")).unwrap();
    let config = repository().join(FOLDER).join("electra/tokenizer_config.json");
    fs::copy(config, lab.path("mixed/tokenizer_config.json")).unwrap();
    fails(
        &with("$T/mixed"),
        3,
        "the tokenizer is another family's: its padding token has the id 0, the model's has 1 (config.json, pad_token_id); \
         take the tokenizer that was published with this model",
    );

    copy("albert", "pieces");
    fs::remove_file(lab.path("pieces/tokenizer.json")).unwrap();
    lab.write("pieces/spiece.model", "");
    fails(
        &with("$T/pieces"),
        3,
        "pieces/spiece.model: a sentencepiece model alone can't be read; tokenizer.json is needed beside it, and Python makes \
         it: transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
    );

    copy("electra", "other");
    let mut config = lab.json("other/config.json");
    config["model_type"] = json!("convbert");
    lab.write("other/config.json", config.to_string());
    fails(
        &with("$T/other"),
        3,
        "model_type \"convbert\" is not supported; the nearest that is: \"bert\", so take a base model of that type",
    );
}
