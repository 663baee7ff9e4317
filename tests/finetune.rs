//! The verbs on what ships with the repository: what they leave, what they say, and that the same command is the same bytes.

mod util;

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use util::{Lab, Running, SMALL, json_lines, repository};

#[test]
fn a_run_leaves_a_folder_in_the_hubs_layout() {
    let lab = Lab::new();
    let done = lab.ok(&format!("{SMALL} --save-steps 2 --output $T/run"));
    assert!(done.out.contains("$T/run: accuracy "), "{}", done.out);
    let names = [
        ".lock",
        "all_results.json",
        "config.json",
        "eval_results.json",
        "manifest.json",
        "metrics.jsonl",
        "model.safetensors",
        "run.toml",
        "tensorboard/",
        "tokenizer.json",
        "tokenizer_config.json",
        "trainer_state.json",
        "vocab.txt",
    ];
    assert_eq!(lab.names("run"), names);

    let config = lab.json("run/config.json");
    let labels = ["delivery", "returns", "payment", "account", "product", "warranty"];
    for (id, label) in labels.iter().enumerate() {
        assert_eq!(config["id2label"][id.to_string()], *label);
        assert_eq!(config["label2id"][*label], id);
    }
    assert_eq!(config["architectures"], json!(["BertForSequenceClassification"]));
    assert_eq!(config["problem_type"], "single_label_classification");
    for name in ["tokenizer.json", "tokenizer_config.json", "vocab.txt"] {
        let base = std::fs::read(repository().join("models/tiny").join(name)).unwrap();
        assert!(lab.read(&format!("run/{name}")) == base, "{name} differs from the base's");
    }
    let header = header(&lab.read("run/model.safetensors"));
    assert_eq!(header["__metadata__"], json!({ "format": "pt" }));
    assert_eq!(header["classifier.weight"]["shape"], json!([6, 128]));
    assert_eq!(header["bert.embeddings.word_embeddings.weight"]["dtype"], "F32");

    let lines = lab.lines("run/metrics.jsonl");
    let steps = |key: &str| -> Vec<u64> {
        lines
            .iter()
            .filter(|line| line.get(key).is_some())
            .map(|line| line["step"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(steps("loss"), [2, 4, 6]);
    // Forty rows are five batches of eight.
    assert_eq!(steps("eval_accuracy"), [5, 6]);
    let state = lab.json("run/trainer_state.json");
    assert_eq!((&state["global_step"], &state["max_steps"]), (&json!(6), &json!(6)));
    assert_eq!(state["log_history"].as_array().unwrap().len(), 5);
    let events = lab.names("run/tensorboard");
    assert!(events.len() == 1 && events[0].starts_with("events.out.tfevents."), "{events:?}");

    let scores = lab.json("run/eval_results.json");
    assert_eq!(scores["scores"]["rows"], 20);
    let all = lab.json("run/all_results.json");
    assert_eq!(all["metrics"], scores["scores"]);
    assert!(
        all["train_seconds"].as_f64().unwrap() > 0.0
            && all["peak_rss_mib"].as_f64().unwrap() > 10.0
    );
    let manifest = lab.json("run/manifest.json");
    let released = [
        "config.json",
        "eval_results.json",
        "model.safetensors",
        "trainer_state.json",
        "vocab.txt",
    ];
    for name in released {
        assert_eq!(manifest["files"][name].as_str().map(str::len), Some(64), "{name}");
    }
}

/// The header of a safetensors file.
fn header(bytes: &[u8]) -> Value {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    serde_json::from_slice(&bytes[8..8 + length]).unwrap()
}

#[test]
fn the_same_plan_is_the_same_bytes() {
    let lab = Lab::new();
    lab.ok(&format!("{SMALL} --output $T/first"));
    let weights = lab.read("first/model.safetensors");
    let check = |lab: &Lab, line: &str, folder: &str| {
        lab.ok(line);
        let found = lab.read(&format!("{folder}/model.safetensors"));
        assert!(found == weights, "other weights after: lowchurn {line}");
    };
    check(&lab, &format!("{SMALL} --output $T/second"), "second");
    check(&lab, "finetune --plan $T/first/run.toml --output $T/planned", "planned");
    let alone = Lab::new().set("RAYON_NUM_THREADS", "1");
    check(&alone, &format!("{SMALL} --output $T/alone"), "alone");
    // Another batch size in evaluation, or more logs and checkpoints, are other files but no other weights.
    check(&lab, &format!("{SMALL} --eval-batch-size 3 --save-steps 1 --output $T/third"), "third");

    lab.ok(&format!("{SMALL} --seed 43 --output $T/seed"));
    assert!(lab.read("seed/model.safetensors") != weights, "the seed changes nothing");
    assert_eq!(lab.text("first/run.toml"), lab.text("planned/run.toml"));
}

#[test]
fn a_finished_run_is_not_trained_again() {
    let lab = Lab::new();
    let line = format!("{SMALL} --output $T/run");
    lab.ok(&line);
    let before = lab.tree("run");
    let done = lab.ok(&line);
    assert!(done.out.contains("$T/run is finished; --fresh starts over\n"), "{}", done.out);
    assert!(done.out.contains("$T/run: accuracy "), "{}", done.out);
    assert!(!done.err.contains("step 1/6"), "{}", done.err);
    assert!(lab.tree("run") == before, "a finished run was changed");

    let refused = |flags: &str, what: &str| {
        let dry = lab.run(&format!("{line} {flags} --dry-run")).expect(2);
        let done = lab.run(&format!("{line} {flags}")).expect(2);
        assert_eq!(dry.error(), done.error(), "a dry run must fail where the run would");
        let rest = "; choose another output folder, or --fresh to start over here";
        assert_eq!(done.error(), format!("$T/run holds a run with another {what}{rest}"));
        assert!(lab.tree("run") == before, "the run that is there was changed by {flags}");
    };
    refused("--learning-rate 0.01", "learning_rate: 0.001, now 0.01");
    refused("--seed 1", "seed: 42, now 1");
    let other = lab.run(&line.replace("train[:40]", "train[:39]")).expect(2);
    assert!(
        other.error().contains("holds a run with another training data: tickets:train[:40] ("),
        "{}",
        other.error()
    );
    assert!(lab.tree("run") == before);

    lab.ok(&format!("{line} --learning-rate 0.01 --fresh"));
    assert!(lab.read("run/model.safetensors") != before[&lab.path("run/model.safetensors")]);
    assert!(lab.text("run/run.toml").contains("learning_rate = 0.01\n"));
    assert_eq!(lab.names("run/tensorboard").len(), 1);
    assert_eq!(lab.lines("run/metrics.jsonl").len(), 5);
}

#[test]
fn several_seeds_give_mean_and_deviation() {
    let lab = Lab::new();
    let done = lab.ok(&format!("{SMALL} --seeds 2 --json --output $T/runs"));
    let accuracy = |seed: u64| {
        let results = lab.json(&format!("runs/seed-{seed}/eval_results.json"));
        results["scores"]["accuracy"].as_f64().unwrap()
    };
    let (a, b) = (accuracy(42), accuracy(43));
    let (mean, sd) = ((a + b) / 2.0, (a - b).abs() / 2f64.sqrt());
    let expected = format!("2 seeds: accuracy {mean:.4} ± {sd:.4}");
    assert!(done.err.contains(&expected), "{expected}\n{}", done.err);

    let events = done.json();
    let last = events.last().unwrap();
    assert_eq!((&last["event"], &last["seeds"]), (&json!("finished"), &json!([42, 43])));
    assert!((last["metrics"]["accuracy"].as_f64().unwrap() - mean).abs() < 1e-12);
    assert!((last["accuracy_sd"].as_f64().unwrap() - sd).abs() < 1e-12);
    assert!(
        last["train_seconds"].as_f64().unwrap() > 0.0
            && last["peak_rss_mib"].as_f64().unwrap() > 10.0
    );
    assert_eq!(lab.json("runs/all_results.json")["seeds"], json!([42, 43]));

    // A seed among several is the run of that seed alone.
    lab.ok(&format!("{SMALL} --seed 43 --output $T/alone"));
    assert!(lab.read("alone/model.safetensors") == lab.read("runs/seed-43/model.safetensors"));
    assert!(
        lab.run(&format!("{SMALL} --seeds 0 --output $T/none")).expect(2).err.contains("--seeds")
    );
}

#[test]
fn machines_get_json_lines_alone() {
    let lab = Lab::new();
    let done = lab.ok(&format!("{SMALL} --json --output $T/run"));
    let events = done.json();
    let names: BTreeSet<&str> =
        events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    for name in ["plan", "data", "tokens", "step", "log", "evaluated", "saved", "finished"] {
        assert!(names.contains(name), "no event {name:?} in {names:?}");
    }
    let last = events.last().unwrap();
    assert_eq!(last["event"], "finished");
    assert_eq!(last["metrics"], lab.json("run/eval_results.json")["scores"]);
    assert_eq!(last["output"], "$T/run");
    assert!(
        last["train_seconds"].as_f64().unwrap() > 0.0
            && last["peak_rss_mib"].as_f64().unwrap() > 10.0
    );
    assert!(done.err.contains("accuracy"), "words for people go to stderr");

    let again = lab.ok(&format!("{SMALL} --json --output $T/run")).json();
    assert_eq!(again.last().unwrap()["event"], "finished");
    assert_eq!(again.last().unwrap()["metrics"], last["metrics"]);

    let typo = SMALL.replace("train[:40]", "nowhere");
    let failed = lab.run(&format!("{typo} --json --output $T/x")).expect(2);
    let last = failed.json().pop().unwrap();
    assert_eq!((&last["event"], &last["exit_code"]), (&json!("failed"), &json!(2)));
    assert_eq!(last["error"], failed.error());

    let line = "predict --model $T/run --data tickets --split train[40:60] --max-length 4 --json";
    let done = lab.ok(line);
    let lines = done.json();
    assert_eq!(lines.len(), 21);
    let last = lines.last().unwrap();
    assert_eq!((&last["event"], &last["rows"]), (&json!("finished"), &json!(20)));
    assert!(
        last["seconds"].as_f64().unwrap() > 0.0 && last["peak_rss_mib"].as_f64().unwrap() > 10.0
    );
    assert!(last["metrics"]["accuracy"].is_number());
    assert_eq!(done.err.lines().next(), Some("20 of 20 rows cut at 4 tokens"));
    let eval = lab.ok("eval --model $T/run --data tickets --split train[40:60] --json").json();
    assert_eq!(eval.len(), 1);
    assert_eq!(eval[0]["event"], "finished");
}

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

#[test]
fn a_runs_head_and_label_order_are_kept() {
    let lab = Lab::new();
    // By name the order would be another one: account, delivery, …
    lab.ok(&format!("{SMALL} --output $T/run"));
    let shipped = repository().join("datasets/tickets/month-1.jsonl");
    let shipped = std::fs::read_to_string(shipped).unwrap();
    lab.write("new.jsonl", shipped.lines().take(200).collect::<Vec<_>>().join("\n"));
    let flags =
        "--batch-size 8 --max-steps 1 --max-length 16 --eval-split none --learning-rate 1e-9";
    let line = format!("finetune $T/new.jsonl --model $T/run {flags}");
    let done = lab.ok(&format!("{line} --output $T/next"));
    let kept = "head and label order of $T/run kept; --fresh-head starts anew\n";
    assert!(done.out.contains(kept) && !done.out.contains("new parameters"), "{}", done.out);
    let labels = |run: &str| lab.json(&format!("{run}/config.json"))["id2label"].clone();
    assert_eq!(labels("next"), labels("run"));
    // After a step of next to nothing the new model is the old one.
    let eval = |run: &str| {
        // The same length for both: each was trained with its own.
        let line = format!(
            "eval --model $T/{run} --data tickets --split train[40:60] --max-length 16 --json"
        );
        lab.ok(&line).json().pop().unwrap()["metrics"]["loss"].as_f64().unwrap()
    };
    let (next, run) = (eval("next"), eval("run"));
    assert!((next - run).abs() < 1e-5, "{next} {run}");
    lab.ok("finetune --plan $T/next/run.toml --output $T/again");
    assert!(lab.read("again/model.safetensors") == lab.read("next/model.safetensors"));

    let fresh = lab.ok(&format!("{line} --fresh-head --output $T/fresh")).out;
    assert!(fresh.contains("new parameters: classifier.bias, classifier.weight\n"), "{fresh}");
    assert!(
        lab.run(&format!("{line} --fresh-head --output $T/next"))
            .expect(2)
            .error()
            .contains("another base checkpoint")
    );
    lab.write("other.csv", "text,label\na,x\nb,y\nc,x\nd,y\n");
    let other = lab.ok(&format!("finetune $T/other.csv --model $T/run {flags} --output $T/other"));
    let said = "$T/run: its labels (delivery, returns, payment, account, product, warranty) aren't the data's (x, y), \
                so the head starts anew\n";
    assert!(other.out.contains(said), "{}", other.out);
}

#[test]
fn local_files_are_trained_on() {
    let lab = Lab::new();
    let mut text = String::from("review,stars\n");
    for n in 0..20 {
        text += &format!(
            "it was {} for the {n}th time,{}\n",
            ["good", "bad"][n % 2],
            ["pos", "neg"][n % 2]
        );
    }
    lab.write("reviews.csv", &text);
    let flags = "--model tiny --batch-size 4 --max-steps 3 --max-length 16";
    let done =
        lab.ok(&format!("finetune $T/reviews.csv --label-column stars {flags} --output $T/run"));
    // A tenth is cut off by class: one row of each.
    assert!(
        done.out.contains("reviews:train without its 10 % cut: 18 rows, 2 classes\n"),
        "{}",
        done.out
    );
    assert_eq!(lab.json("run/eval_results.json")["scores"]["rows"], 2);
    assert_eq!(lab.json("run/config.json")["id2label"], json!({ "0": "neg", "1": "pos" }));

    // From anywhere, with the run in the folder that is the default.
    let mut away = Lab::new();
    away.cwd = away.root().into();
    away.write("reviews.csv", text.replace("stars", "label"));
    away.copy("models/tiny", "base");
    away.ok("finetune ./reviews.csv --model ./base --batch-size 4 --max-steps 1 --max-length 16 --eval-split none");
    assert!(away.path("runs/reviews/model.safetensors").is_file());
    assert_eq!(away.json("runs/reviews/eval_results.json")["scores"], Value::Null);
    away.ok("eval --model runs/reviews --data reviews.csv");

    let mut pairs = String::from("text1,text2,label\n");
    for n in 0..12 {
        pairs += &format!("a {n},{} {n},{}\n", ["a", "b"][n % 2], ["same", "other"][n % 2]);
    }
    lab.write("pairs.csv", pairs.as_bytes());
    lab.ok(&format!("finetune $T/pairs.csv {flags} --eval-fraction 0.2 --output $T/pairs"));
    let of_pairs = json_lines(&lab.ok("predict --model $T/pairs --data $T/pairs.csv --logits").out);
    lab.write("swapped.csv", pairs.replace("text1,text2", "text2,text1"));
    let swapped =
        json_lines(&lab.ok("predict --model $T/pairs --data $T/swapped.csv --logits").out);
    assert_eq!(of_pairs.len(), 12);
    assert_ne!(of_pairs[1]["logits"], swapped[1]["logits"], "the second text is not read");

    // A folder with files of both splits.
    lab.write("set/train.csv", text.replace("stars", "label"));
    lab.write("set/validation.csv", "review,label\nfine,pos\nawful,neg\nbad,neg\n");
    lab.ok(&format!("finetune $T/set {flags} --output $T/of-folder"));
    assert_eq!(lab.json("of-folder/eval_results.json")["scores"]["rows"], 3);
}

#[test]
fn rows_are_looked_at_before_they_are_trained_on() {
    let lab = Lab::new();
    let rows = [
        ("good", "pos"),
        ("bad", "neg"),
        ("good", "pos"),
        ("so so", "pos"),
        ("so so", "neg"),
        ("", "neg"),
        ("who knows", ""),
        ("fine", "pos"),
    ];
    let text: String = rows.iter().map(|(text, label)| format!("{text},{label}\n")).collect();
    lab.write("set/train.csv", format!("text,label\n{text}"));
    lab.write("set/validation.csv", "text,label\nfine,pos\nawful,neg\n");
    let line =
        "finetune $T/set --model tiny --batch-size 4 --max-steps 1 --max-length 8 --output $T/run";
    let done = lab.ok(line);
    for said in [
        "set:train: 8 rows, 2 classes\n",
        "unlabelled: 1 row, left out of training (train-6)\n",
        "empty text: 1 row (train-5)\n",
        "repeated (same text, same label): 1 row (train-2)\n",
        "conflicting labels: 1 text in 2 rows (train-3, train-4)\n",
        "in set:validation too: 1 of its 2 rows\n",
    ] {
        assert!(done.out.contains(said), "{said:?} isn't said in\n{}", done.out);
    }
    let json = lab.ok(&format!("{line} --fresh --json")).json();
    let data = json.iter().find(|event| event["event"] == "data").unwrap();
    assert_eq!(
        (&data["rows"], &data["unlabelled"], &data["shared_with_eval"]),
        (&json!(8), &json!(1), &json!(1))
    );
}

#[test]
fn flags_win_over_plans_and_plans_over_advice() {
    let lab = Lab::new();
    lab.write(
        "plan.toml",
        "data = \"tickets\"\nmodel = \"tiny\"\ntrain_split = \"train[:40]\"\neval_split = \"none\"\n\
         batch_size = 4\nmax_length = 16\nmax_steps = 2\nseed = 7\n",
    );
    let done = lab.ok("finetune --plan $T/plan.toml --seed 8 --output $T/run");
    let plan = done.out.lines().find(|line| line.starts_with("plan: ")).unwrap();
    for said in [
        "seed 8 (flag)",
        "batch_size 4 ($T/plan.toml)",
        "learning_rate 0.001 (models/tiny.toml)",
        "warmup_steps 0,",
    ] {
        assert!(plan.contains(said), "{said:?} isn't said in {plan}");
    }
    let resolved = lab.text("run/run.toml");
    for said in [
        "seed = 8\n",
        "batch_size = 4\n",
        "learning_rate = 0.001\n",
        "eval_split = \"none\"\n",
        "train_split = \"train[:40]\"\n",
        "text_column = \"text\"\n",
        "label_column = \"label\"\n",
    ] {
        assert!(resolved.contains(said), "{said:?} isn't in {resolved}");
    }
}

#[test]
fn batches_of_so_many_tokens() {
    let lab = Lab::new();
    let line = "finetune tickets --model tiny --train-split train[:40] --eval-split none --max-length 8 --epochs 2 \
                --batch-size tokens:64 --output $T/run";
    let dry = lab.ok(&format!("{line} --dry-run"));
    let said = "\nupdates: not known before tokenising, each of at most 64 tokens\n";
    assert!(dry.out.contains(said), "{}", dry.out);
    let done = lab.ok(line);
    assert!(done.out.contains("batch_size \"tokens:64\" (flag)"), "{}", done.out);
    assert!(lab.text("run/run.toml").contains("batch_size = \"tokens:64\"\n"));
    // All but one or two of these texts are cut at eight tokens, so that eight texts are a batch and nine never.
    assert!(done.out.contains("\ntokens: 318 in 40 rows"), "{}", done.out);
    let state: Value = serde_json::from_str(&lab.text("run/trainer_state.json")).unwrap();
    assert_eq!(state["global_step"], 2 * 5);
    assert_eq!(state["train_batch_size"], Value::Null);
    // A plan's tokens, and a flag's rows over them.
    let again = "finetune --plan $T/run/run.toml --output $T/again";
    lab.ok(again);
    let weights = |run: &str| std::fs::read(lab.path(run).join("model.safetensors")).unwrap();
    assert!(weights("run") == weights("again"));
    let rows = lab.ok("finetune --plan $T/run/run.toml --batch-size 8 --output $T/rows --dry-run");
    assert!(rows.out.contains("\nupdates: 10 of 8 rows\n"), "{}", rows.out);
}

#[test]
fn patience_ends_a_run_that_gains_nothing() {
    let lab = Lab::new();
    let line = format!(
        "{} --learning-rate 1e-12 --eval-steps 1 --patience 2 --output $T/run",
        SMALL.replace("--max-steps 6", "--max-steps 50")
    );
    let done = lab.ok(&line);
    assert!(
        done.err.contains("stopped early at step 3: 2 evaluations without a gain\n"),
        "{}",
        done.err
    );
    assert_eq!(lab.json("run/eval_results.json")["step"], 1);
    assert_eq!(lab.json("run/trainer_state.json")["global_step"], 3);
    assert!(lab.ok(&line).out.contains("is finished"));
}

#[test]
fn without_a_terminal_there_are_no_escape_codes() {
    let lab = Lab::new();
    let done = lab.ok(&format!("{SMALL} --output $T/run"));
    for text in [
        &done.out,
        &done.err,
        &lab.run("finetune --help").expect(0).out,
        &lab.run("finetun").expect(2).err,
    ] {
        assert!(!text.contains(['\x1b', '\r']), "{text:?}");
    }
}

#[test]
#[allow(clippy::print_stdout)] // a skipped test must say so
fn on_a_terminal_no_color_is_honoured() {
    if !Path::new("/usr/bin/script").exists() {
        return println!("skipped: script(1), which makes a terminal, is not here");
    }
    let on_terminal = |lab: &Lab| {
        let inner = lab.command(&format!("{SMALL} --output $T/run"));
        let mut words = vec![inner.get_program().to_str().unwrap().to_string()];
        words.extend(inner.get_args().map(|arg| format!("'{}'", arg.to_str().unwrap())));
        let mut command = Command::new("script");
        command.args(["-qec", &words.join(" "), "/dev/null"]).env_clear().current_dir(&lab.cwd);
        command
            .envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .stdin(Stdio::null());
        Running::of(command, "in a terminal", lab.root()).wait().expect(0).out
    };
    let colored = on_terminal(&Lab::new());
    assert!(colored.contains("\x1b[1m") && colored.contains("step 6/6"), "{colored:?}");
    let plain = on_terminal(&Lab::new().set("NO_COLOR", "1"));
    // Drawing over a line is not colour.
    let is_color = |code: &str| {
        code.split_once('m').is_some_and(|(n, _)| n.chars().all(|c| c.is_ascii_digit() || c == ';'))
    };
    assert!(!plain.split("\x1b[").skip(1).any(is_color), "{plain:?}");
    assert!(plain.contains("step 6/6"), "{plain:?}");
}

#[test]
fn completions_and_help() {
    let lab = Lab::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = lab.ok(&format!("completions {shell}")).out;
        assert!(script.contains("finetune") && script.contains("train-split"), "{shell}");
    }
    let help = lab.ok("--help").out;
    for verb in ["finetune", "eval", "predict", "doctor"] {
        assert!(help.contains(verb), "{help}");
    }
    assert_eq!(lab.ok("--version").out, format!("lowchurn {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn doctor_never_shows_a_token() {
    let secret = "hf_thisIsAVerySecretToken";
    let lab = Lab::new().set("HF_TOKEN", secret).set("HF_ENDPOINT", "http://127.0.0.1:9");
    for flags in ["", " --json"] {
        let done = lab.ok(&format!("doctor{flags}"));
        assert!(!done.out.contains(secret) && !done.err.contains(secret), "{}", done.out);
        assert!(done.out.contains("127.0.0.1:9"), "{}", done.out);
    }
    assert_eq!(lab.names(""), Vec::<String>::new(), "doctor left something behind");
}

#[test]
fn a_dry_run_writes_nothing() {
    let lab = Lab::new();
    let done = lab.ok(&format!("{SMALL} --dry-run --output $T/run"));
    assert!(done.out.contains("\nrows to train on: 40\n"), "{}", done.out);
    assert!(done.out.contains("\nupdates: 6 of 8 rows\n"), "{}", done.out);
    assert!(done.out.starts_with("plan: "), "{}", done.out);
    assert_eq!(lab.names(""), Vec::<String>::new());
    let json = lab.ok(&format!("{SMALL} --dry-run --json --output $T/run")).json();
    assert!(!json.is_empty());
    assert_eq!(lab.names(""), Vec::<String>::new());
}

#[test]
fn local_work_needs_no_home_and_no_hub() {
    let lab = Lab::new().set("HF_HUB_OFFLINE", "1");
    let line = format!("{SMALL} --output $T/run");
    let mut command = lab.command(&line);
    command.env_remove("HOME").env_remove("HF_HOME");
    Running::of(command, &line, lab.root()).wait().expect(0);
    let line = "predict --model $T/run --data tickets --split train[:1]";
    let mut command = lab.command(line);
    command.env_remove("HOME").env_remove("HF_HOME");
    Running::of(command, line, lab.root()).wait().expect(0);
}
