//! `finetune` on what ships with the repository: what it leaves, and that the same command is the same bytes.

mod util;

use serde_json::{Value, json};
use util::{Lab, SMALL, is_peak_rss, json_lines, repository};

#[test]
fn a_run_leaves_a_folder_in_the_hubs_layout() {
    let lab = Lab::new();
    let done = lab.ok(&format!("{SMALL} --save-steps 2 --output $T/run"));
    assert!(done.out.contains("$T/run: accuracy "), "{}", done.out);
    let names = [
        ".lock",
        "all_results.json",
        "chose.json",
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
    assert!(all["train_seconds"].as_f64().unwrap() > 0.0 && is_peak_rss(&all["peak_rss_mib"]));
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
    assert!(!done.err.contains("step 6/6"), "{}", done.err);
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
    assert!(last["train_seconds"].as_f64().unwrap() > 0.0 && is_peak_rss(&last["peak_rss_mib"]));
    assert_eq!(lab.json("runs/all_results.json")["seeds"], json!([42, 43]));

    // A seed among several is the run of that seed alone.
    lab.ok(&format!("{SMALL} --seed 43 --output $T/alone"));
    assert!(lab.read("alone/model.safetensors") == lab.read("runs/seed-43/model.safetensors"));
    assert!(
        lab.run(&format!("{SMALL} --seeds 0 --output $T/none")).expect(2).err.contains("--seeds")
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
    let plan: Vec<&str> = done.out.lines().filter(|line| line.starts_with("plan: ")).collect();
    // What was asked for is read first.
    let [asked @ .., defaults] = &plan[..] else { panic!("{}", done.out) };
    let mut asked = asked.to_vec();
    asked.sort_unstable();
    let expected = [
        "plan: epochs 8, learning_rate 0.001 (models/tiny.toml)",
        "plan: max_steps 2, batch_size 4, max_length 16 ($T/plan.toml)",
        "plan: seed 8 (flag)",
    ];
    assert_eq!(asked, expected);
    assert!(
        defaults.contains("warmup_steps 0, ") && defaults.ends_with(" (default)"),
        "{defaults}"
    );
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
    assert!(done.out.contains("batch_size \"tokens:64\""), "{}", done.out);
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
