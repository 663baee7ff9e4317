//! `eval` and `predict` on what ships with the repository: the same numbers as training had, in the order and by the names of the rows.

mod util;

use std::io::Read;
use std::process::Stdio;

use serde_json::{Value, json};
use util::{Lab, SMALL, json_lines};

#[test]
fn evaluation_repeats_what_training_said() {
    let lab = Lab::new();
    lab.ok(&format!("{} --output $T/run", SMALL.replace("--max-steps 6", "--max-steps 20")));
    let trained = lab.json("run/eval_results.json");
    let eval = |flags: &str| {
        let done = lab
            .ok(&format!("eval --model $T/run --data tickets --split train[40:60] --json {flags}"));
        done.json().pop().unwrap()["metrics"].clone()
    };
    assert_eq!(eval(""), trained["scores"]);
    for flags in ["--batch-size 1", "--batch-size 7", "--batch-size 1000"] {
        let found = eval(flags);
        assert_eq!(found["accuracy"], trained["scores"]["accuracy"], "{flags}");
        let loss = |scores: &Value| scores["loss"].as_f64().unwrap();
        assert!((loss(&found) - loss(&trained["scores"])).abs() < 1e-5, "{flags}");
    }
    // The split can stand with the data.
    let done = lab.ok("eval --model $T/run --data tickets:train[40:60]");
    let accuracy = 100.0 * trained["scores"]["accuracy"].as_f64().unwrap();
    let expected = format!("$T/run on tickets:train[40:60]: accuracy {accuracy:.2}%");
    assert!(done.out.starts_with(&expected), "{expected}\n{}", done.out);

    let done = lab
        .run("eval --model $T/run --data tickets --split train[40:60] --max-length 100000")
        .expect(2);
    assert_eq!(done.error(), "--max-length 100000: $T/run reads at most 128 tokens");
}

const ROWS: [(&str, &str); 4] = [
    ("Where is my parcel? It should have come, \"they said\", on Monday", "delivery"),
    ("I was charged twice", "payment"),
    ("can't log in\nany more", "account"),
    ("", "returns"),
];

fn csv() -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let row =
        |(n, (text, label)): (usize, &(&str, &str))| format!("r{n},{},{label}\n", quoted(text));
    format!("key,text,label\n{}", ROWS.iter().enumerate().map(row).collect::<String>())
}

fn jsonl() -> String {
    let row = |(n, (text, label)): (usize, &(&str, &str))| {
        format!("{}\n", json!({ "key": format!("r{n}"), "text": text, "label": label }))
    };
    ROWS.iter().enumerate().map(row).collect()
}

#[test]
fn predictions_keep_ids_order_and_numbers() {
    let lab = Lab::new();
    lab.ok(&format!("{SMALL} --output $T/run"));
    lab.write("rows.csv", csv());
    lab.write("rows.tsv", "key\ttext\tlabel\nr1\tI was charged twice\tpayment\n");
    lab.write("rows.jsonl", jsonl());
    lab.write("rows.parquet", util::parquet::texts_and_labels(&ROWS));
    let predict =
        |flags: &str| json_lines(&lab.ok(&format!("predict --model $T/run --logits {flags}")).out);
    let ids = |rows: &[Value]| -> Vec<String> {
        rows.iter().map(|row| row["id"].as_str().unwrap().to_string()).collect()
    };

    let from_csv = predict("--data $T/rows.csv --id-column key");
    assert_eq!(ids(&from_csv), ["r0", "r1", "r2", "r3"]);
    for (row, (_, gold)) in from_csv.iter().zip(ROWS) {
        let keys: Vec<&String> = row.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["id", "label", "gold", "scores", "logits"]);
        assert_eq!(row["gold"], gold);
        let names: Vec<&String> = row["scores"].as_object().unwrap().keys().collect();
        assert_eq!(names, ["delivery", "returns", "payment", "account", "product", "warranty"]);
        let scores: Vec<f64> =
            row["scores"].as_object().unwrap().values().map(|x| x.as_f64().unwrap()).collect();
        let logits: Vec<f64> =
            row["logits"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        assert!((scores.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{scores:?}");
        let sum: f64 = logits.iter().map(|x| x.exp()).sum();
        let best = (0..6).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
        assert_eq!(row["label"], names[best].as_str());
        for (score, logit) in scores.iter().zip(logits) {
            assert!((score - logit.exp() / sum).abs() < 1e-5, "{row}");
        }
    }
    // The same rows from another format are the same numbers.
    assert_eq!(predict("--data $T/rows.jsonl --id-column key"), from_csv);
    assert_eq!(predict("--data $T/rows.parquet --id-column key"), from_csv);
    let from_tsv = predict("--data $T/rows.tsv --id-column key");
    assert_eq!((from_tsv.len(), &from_tsv[0]["id"]), (1, &from_csv[1]["id"]));
    // In another batch only the last digits differ.
    let first = |row: &Value| row["logits"][0].as_f64().unwrap();
    assert!((first(&from_tsv[0]) - first(&from_csv[1])).abs() < 1e-5);
    // Without an id column a row is called after file and place.
    assert_eq!(ids(&predict("--data $T/rows.csv")), ["rows-0", "rows-1", "rows-2", "rows-3"]);
    assert_eq!(ids(&predict("--data $T/rows.csv --split train[2:]")), ["rows-2", "rows-3"]);
    let shipped = predict("--data tickets --split train[:3]");
    assert_eq!(ids(&shipped), ["train-t-000001", "train-t-000002", "train-t-000003"]);

    // Without labels there is no gold, and without --logits there are none.
    lab.write("plain.csv", "text\nhello\n");
    let plain = json_lines(&lab.ok("predict --model $T/run --data $T/plain.csv").out);
    assert!(plain[0].get("gold").is_none() && plain[0].get("logits").is_none());

    let done = lab.ok("predict --model $T/run --data $T/rows.csv --id-column key --logits --output $T/out/p.jsonl");
    assert_eq!(done.out, "$T/out/p.jsonl: 4 rows\n");
    assert_eq!(lab.lines("out/p.jsonl"), from_csv);
    assert_eq!(lab.names("out"), ["p.jsonl"]);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let lab = Lab::new();
    lab.ok(&format!("{SMALL} --output $T/run"));
    let closed_after = |line: &str, bytes: usize| {
        let mut child =
            lab.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = child.stdout.take().unwrap();
        out.read_exact(&mut vec![0; bytes]).unwrap();
        drop(out);
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (child.wait().unwrap().code(), said)
    };
    // 3,000 rows don't fit into a pipe.
    let predict =
        "predict --model $T/run --data tickets --split train+later --max-length 8 --logits";
    let (code, said) = closed_after(predict, 100);
    assert!(code == Some(0) && !said.contains("error"), "{code:?} {said}");
    assert_eq!(closed_after("completions bash", 1), (Some(0), String::new()));
    // `finetune | head` trains all the same: the run's folder is what counts.
    let (code, _) = closed_after(&format!("{SMALL} --output $T/piped"), 1);
    assert_eq!(code, Some(0));
    assert!(lab.read("piped/model.safetensors") == lab.read("run/model.safetensors"));
}

#[test]
fn a_column_called_id_is_used_where_it_can_be() {
    let lab = Lab::new();
    lab.ok(&format!("{SMALL} --output $T/run"));
    let check = |rows: &str, ids: [&str; 2], said: &str| {
        lab.write("rows.csv", rows);
        let done = lab.ok("predict --model $T/run --data $T/rows.csv");
        let found = json_lines(&done.out);
        assert_eq!((&found[0]["id"], &found[1]["id"]), (&json!(ids[0]), &json!(ids[1])));
        let words: Vec<&str> = done.err.lines().filter(|line| line.contains("id")).collect();
        assert_eq!(words.join("\n"), said);
    };
    check("id,text\na,hello\nb,there\n", ["a", "b"], "");
    check("key,text\na,hello\nb,there\n", ["rows-0", "rows-1"], "");
    check(
        "id,text\na,hello\na,there\n",
        ["rows-0", "rows-1"],
        "ids of column \"id\" can't be used ($T/rows.csv:3: id \"a\" of column \"id\" is there twice, \
         first at $T/rows.csv:2; ids must be unique); rows are numbered",
    );
}

/// Whoever writes labels otherwise says so once, and gets the scores of the model's own names.
#[test]
fn a_label_map_brings_names_to_the_models() {
    let lab = Lab::new();
    lab.ok(&format!("{SMALL} --output $T/run"));
    let rows = csv();
    lab.write("rows.csv", &rows);
    lab.write(
        "recased.csv",
        rows.replace(",delivery", ",Delivery").replace(",payment", ",Payment"),
    );
    let eval = |flags: &str| lab.run(&format!("eval --model $T/run --json {flags}"));
    let metrics = |flags: &str| eval(flags).expect(0).json().pop().unwrap()["metrics"].clone();
    let done = eval("--data $T/recased.csv").expect(3);
    assert!(done.error().contains("holds \"Delivery\""), "{}", done.error());
    let map = "--data $T/recased.csv --label-map Delivery=delivery,Payment=payment";
    assert_eq!(metrics(map), metrics("--data $T/rows.csv"));
    let done = eval("--data $T/recased.csv --label-map Delivery=delivery").expect(3);
    assert!(
        done.error().contains("\"Payment\" of the data is close to \"payment\""),
        "{}",
        done.error()
    );
    let done = eval(&format!("{map},Retuns=returns")).expect(3);
    assert!(
        done.error().contains("\"Retuns\" is a label of none of the files"),
        "{}",
        done.error()
    );

    let predict = |flags: &str| lab.ok(&format!("predict --model $T/run {flags}")).out;
    let mapped = json_lines(&predict(map));
    let golds: Vec<&str> = mapped.iter().map(|row| row["gold"].as_str().unwrap()).collect();
    assert_eq!(golds, ["delivery", "payment", "account", "returns"]);

    // The models have no such labels: it is the data that has.
    let done =
        lab.run("compare $T/run $T/run --data $T/recased.csv --output $T/compared").expect(3);
    assert_eq!(
        done.error(),
        "recased:train: some of its classes (Delivery, Payment) are no classes of $T/run (delivery, returns, payment, account, \
         product, warranty); write them with the model's names"
    );
}
