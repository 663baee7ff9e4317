//! `update` as a user runs it: which rows, whose labels, what a budget does, what is refused.

#[path = "util/deployed.rs"]
mod deployed;
mod util;

use std::fs;

use deployed::*;
use serde_json::{Value, json};
use util::Lab;

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
    let refused = lab.run("finetune --plan $T/shop-v2/run.toml --output $T/x").expect(2);
    assert_eq!(
        refused.error(),
        "$T/shop-v2/run.toml: an update's record is no plan of finetune or distil; run update again with the flags that it had"
    );
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

/// Of any other stack's classifier both sides are cut alike, and its training rows aren't known.
#[test]
fn a_base_without_a_record() {
    let lab = deployed();
    fs::remove_file(lab.path("shop/run.toml")).unwrap();
    let config = lab.text("shop/tokenizer_config.json");
    assert_eq!(config.matches("\"model_max_length\": 128").count(), 1, "{config}");
    lab.write("shop/tokenizer_config.json", config.replace("_length\": 128", "_length\": 12"));
    let line =
        format!("{UPDATE} --old none --new $T/new.jsonl --holdout $T/held.jsonl --max-churn 60%");
    let root = lab.root().display().to_string();
    let updated = |flags: &str, name: &str, cut: &str, length: i64| {
        let done = lab.ok(&format!("{line} {flags} --output $T/{name}"));
        let run: toml::Table = lab.text(&format!("{name}/run.toml")).parse().unwrap();
        assert_eq!(run["max_length"].as_integer(), Some(length));
        let notes = report(&lab, name)["certificate"]["notes"].clone();
        let notes: Vec<&str> =
            notes.as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
        let rows = "$T/shop has no record of the rows that it was trained on, so whether these are among them isn't known";
        let cut = format!("$T/shop has no record of its training: its texts are cut at {cut}");
        for said in [rows.to_string(), cut] {
            says(&done, &said);
            assert!(notes.contains(&&said.replace("$T", &root)[..]), "{notes:?}");
        }
        done.err
    };
    let cut = "12 tokens, as its tokenizer and its positions allow, and its successor's there at most; --max-length sets another \
               length for both";
    updated("", "as-said", cut, 12);
    // A text has seven words or more.
    let cut = "6 tokens, as --max-length 6 asks; its tokenizer and its positions allow 12";
    let err = updated("--max-length 6", "typed", cut, 6);
    assert!(err.contains("200 rows scored once, 200 of them cut at 6 tokens"), "{err}");
    // Its successor may read more than it, from another encoder; from its own weights it can't.
    let done = lab.run(&format!("{line} --max-length 1000 --output $T/x")).expect(2);
    assert_eq!(done.error(), "--max-length 1000: the model reads at most 128 tokens");

    let done = lab.ok("compare $T/shop $T/as-said --data $T/held.jsonl --max-churn 60%");
    says(
        &done,
        "$T/shop has no record of the rows that it was trained on, so whether these are among them isn't known",
    );
    lab.ok(
        "repair $T/shop $T/as-said --holdout $T/held.jsonl --max-churn 60% --output $T/repaired",
    );
    let notes = report(&lab, "repaired")["certificate"]["notes"].to_string();
    assert_eq!(notes.matches("has no record of the rows").count(), 1, "{notes}");

    // The successor has a record, and it isn't whole.
    lab.write("newer.jsonl", rows(150..170, with(old_label)));
    let next = UPDATE.replace("$T/shop", "$T/as-said");
    lab.ok(&format!(
        "{next} --new $T/newer.jsonl --holdout $T/held.jsonl --max-churn 60% --output $T/next"
    ));
    let notes = report(&lab, "next")["certificate"]["notes"].to_string();
    assert_eq!(notes.matches("has no record of the rows").count(), 1, "{notes}");
}

/// A verdict of the model that was there would be taken for one of the new one.
#[test]
fn another_run_in_its_place_leaves_nothing_of_it() {
    let lab = deployed();
    lab.ok(&format!("{UPDATE} --new $T/new.jsonl --holdout $T/held.jsonl --output $T/there"));
    assert!(lab.path("there/report.html").is_file() && lab.path("there/candidates").is_dir());
    let line = "finetune $T/old.jsonl --model tiny --eval-split none --max-steps 1 --fresh --output $T/there";
    lab.ok(line);
    let left = lab.names("there");
    for name in ["report.html", "report.md", "flips.jsonl", "update.json", "candidates"] {
        assert!(!left.contains(&name.to_string()), "{left:?}");
    }
}

/// Tables may lie in the base's own folder: they are nothing of the model.
#[test]
fn tables_beside_the_weights_are_no_part_of_the_model() {
    let lab = deployed();
    let line = "update --base $T/shop --tables $T/shop --max-steps 2 --interpolate none --new $T/new.jsonl --holdout $T/held.jsonl";
    lab.ok(line);
    let again = lab.ok(line);
    assert!(
        again.out.contains("$T/shop-v2 is finished") || again.err.contains("is finished"),
        "{}",
        again.out
    );
    lab.write("shop/run.toml", "max_length = \n");
    let done = lab.run("eval --model $T/shop --data $T/held.jsonl").expect(3);
    assert!(done.error().starts_with("$T/shop/run.toml: "), "{}", done.err);
}

/// Files of two classes often don't name them; the head is there all the same.
#[test]
fn a_head_whose_classes_have_no_names() {
    let lab = deployed();
    let mut config = lab.json("shop/config.json");
    for key in ["id2label", "label2id"] {
        config.as_object_mut().unwrap().remove(key);
    }
    lab.write("shop/config.json", config.to_string());
    lab.write("traffic.jsonl", rows(200..260, |_| None));
    lab.ok("export $T/shop --onnx");
    lab.ok("compare $T/shop $T/shop --new-as f16 --data $T/traffic.jsonl --output $T/forms");
    let named = "--label-map delivery=LABEL_0,payment=LABEL_1,account=LABEL_2";
    lab.ok(&format!("{UPDATE} --old none --new $T/new.jsonl --holdout $T/held.jsonl {named}"));
}

/// A base that looks after its worst class has a successor that does.
#[test]
fn whose_mistakes_count_is_taken_over() {
    let lab = deployed();
    lab.ok(
        "finetune $T/old.jsonl --model tiny --eval-split none --objective balanced --max-length 16 --max-steps 2 --output $T/even",
    );
    let line = UPDATE.replace("$T/shop ", "$T/even ");
    lab.ok(&format!("{line} --new $T/new.jsonl --holdout $T/held.jsonl"));
    assert!(
        lab.text("even-v2/run.toml").contains("objective = \"balanced"),
        "{}",
        lab.text("even-v2/run.toml")
    );
    lab.ok(&format!(
        "{line} --new $T/new.jsonl --holdout $T/held.jsonl --objective standard --output $T/plain"
    ));
    assert!(!lab.text("plain/run.toml").contains("balanced"));
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
    // Rows of the new class alone bring it too, or are what the map says.
    let of_one: String =
        (60..140).filter(|n| is_voucher(*n)).map(|n| format!("{}\n", row(n))).collect();
    lab.write("vouchers.jsonl", of_one);
    let line = line.replace("--max-steps 120", "--max-steps 2") + " --method retrain";
    let done = lab.ok(&format!("{line} --output $T/five"));
    says(&done, "labels: voucher (0) → new class 3");
    let mapped = line.replace("--allow-new-classes", "--label-map voucher=payment");
    lab.write("held.jsonl", rows(200..300, with(old_label)));
    lab.ok(&format!("{mapped} --output $T/six"));
    assert_eq!(lab.json("six/config.json")["id2label"].as_object().unwrap().len(), 3);
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
    // What followed the teacher has learnt to agree with it: it certifies nothing, where it was followed.
    lab.write("all.jsonl", lab.text("held.jsonl") + &lab.text("traffic.jsonl"));
    let said = "40 of 240 rows have a text that $T/shop-v2 was trained on; they are left out";
    for (model, expected) in [("shop-v2", true), ("with", false)] {
        let done = lab.ok(&format!(
            "compare $T/shop $T/{model} --data $T/all.jsonl --nearest 0 --output $T/c"
        ));
        assert_eq!(done.err.contains(said), expected, "{model}: {}", done.err);
        assert_eq!(report(&lab, "c")["rows"], if expected { 200 } else { 240 }, "{model}");
    }
    // It isn't read again to be trained on, and stays in the record.
    let next = line
        .replace("$T/shop ", "$T/shop-v2 ")
        .replace("--unlabelled $T/traffic.jsonl", "--output $T/next");
    says(&lab.ok(&next), "rows: 120 old, 60 new, 0 unlabelled; 200 held out");
    assert!(lab.text("next/run.toml").contains("traffic.jsonl"));
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
    let done = lab.ok(&format!(
        "{} --new $T/new.jsonl --holdout $T/held.jsonl --method retrain --epochs 2 --batch-size tokens:256 --dry-run",
        UPDATE.replace(" --max-steps 6", "")
    ));
    let (_, said) = done.out.split_once("would train retrain (warm) for ").unwrap();
    let (updates, rest) = said.split_once(' ').unwrap();
    // 120 rows of a dozen tokens, twice.
    assert!((6..24).contains(&updates.parse::<u32>().unwrap()), "{said}");
    assert_eq!(rest, "updates on 120 rows into $T/shop-v2\n");
    assert!(!lab.path("shop-v2").exists());
}

/// A file of new rows that grows from month to month has the old ones in it.
#[test]
fn new_rows_that_are_old_ones_are_told_of() {
    let lab = deployed();
    let line = format!("{UPDATE} --new $T/new.jsonl --holdout $T/held.jsonl --dry-run");
    assert!(!lab.ok(&line).err.contains("count twice"));
    let n_new = lab.lines("new.jsonl").len();
    lab.write("grown.jsonl", lab.text("old.jsonl") + &lab.text("new.jsonl"));
    let n_old = lab.lines("old.jsonl").len();
    let done = lab.ok(&line.replace("$T/new.jsonl", "$T/grown.jsonl"));
    let said = format!(
        "{n_old} of {} new rows have a text that $T/shop was trained on; they count twice now",
        n_old + n_new
    );
    says(&done, &said);
    // Labels that were put right since contradict those that the model's own rows still have.
    lab.write("corrected.jsonl", rows(0..60, with(|_| "account")));
    let n_other = (0..60).filter(|n| old_label(*n) != "account").count();
    let done = lab.ok(&line.replace("$T/new.jsonl", "$T/corrected.jsonl"));
    let said = format!(
        "60 of 60 new rows have a text that $T/shop was trained on; they count twice now, {n_other} of them with another label than \
         then, and both are learnt: take the old rows out where the new label is right"
    );
    says(&done, &said);
    lab.write("part.jsonl", rows(60..90, |n| (n < 80).then(|| old_label(n).into())));
    let done = lab.ok(&line.replace("$T/new.jsonl", "$T/part.jsonl"));
    says(&done, "rows: 60 old, 30 new (10 without a label), 0 unlabelled; 200 held out");
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
