//! What each mistake gets: the whole of stderr, the exit code, and nothing left behind.

mod util;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use util::{Done, Lab, Running, SMALL, skipped};

/// Holds stderr as a whole (`$T` is the folder of the test) and the exit code; nothing may be left in `$T/run`.
#[track_caller]
fn check(lab: &Lab, line: &str, code: i32, expected: &str) -> Done {
    let done = lab.run(line).expect(code);
    assert_eq!(done.err, format!("error: {expected}\n"), "stderr of: lowchurn {line}");
    assert!(!lab.path("run").exists(), "left behind by: lowchurn {line}");
    done
}

/// The small run with other words in the place of some of its own.
fn small(from: &str, to: &str) -> String {
    assert!(SMALL.contains(from), "{from}");
    format!("{} --output $T/run", SMALL.replace(from, to))
}

#[test]
fn names_with_typos() {
    let lab = Lab::new();
    let elsewhere = |word: &str| format!("(or owner/name of the hub, or a path such as ./{word})");
    check(
        &lab,
        &small("tickets", "tikets"),
        2,
        &format!("there is no task \"tikets\"; did you mean tickets? {}", elsewhere("tikets")),
    );
    check(
        &lab,
        &small("--model tiny", "--model tinny"),
        2,
        &format!("there is no model \"tinny\"; did you mean tiny? {}", elsewhere("tinny")),
    );
    check(
        &lab,
        &small("tickets", "SST2"),
        2,
        &format!("there is no task \"SST2\"; did you mean sst2? {}", elsewhere("SST2")),
    );
    check(
        &lab,
        &small("--model tiny", "--model runs/no-such-run"),
        2,
        "--model runs/no-such-run: there is no folder runs/no-such-run",
    );
    lab.write("many/seed-7/config.json", "{}");
    lab.write("half/checkpoint-12/config.json", "{}");
    check(
        &lab,
        &small("--model tiny", "--model $T/many"),
        2,
        "--model $T/many holds several seeds; take one of its models, such as $T/many/seed-7",
    );
    check(
        &lab,
        &small("--model tiny", "--model $T/half"),
        2,
        "--model $T/half is an unfinished run; take one of its models, such as $T/half/checkpoint-12",
    );
    check(
        &lab,
        &small("--model tiny", "--model $T/tiny"),
        2,
        "--model $T/tiny: there is no such folder",
    );
    check(
        &lab,
        &small("tickets", "$T/rows.csv"),
        2,
        "\"$T/rows.csv\" is neither a task name, nor owner/name[:config][@revision] of a hub dataset, \
         nor a file or folder that exists (there is no such file)",
    );
    check(
        &lab,
        &small("train[:40]", "trian"),
        2,
        "split \"trian\" isn't there (splits: later, train); did you mean \"train\"?",
    );
    check(
        &lab,
        &small("train[40:60]", "test"),
        2,
        "split \"test\" isn't there (splits: later, train)",
    );
    check(
        &lab,
        &small("train[:40]", "train[:40"),
        2,
        "\"train[:40\" isn't a split expression (a slice must end in ]; \
         expected such as train, train[:5000], train[10%:] or train[:10%]+validation)",
    );
    check(
        &lab,
        &small("train[:40]", "train[5000:]"),
        3,
        "\"train[5000:]\" selects no rows (split sizes: train 1500)",
    );
    check(&lab, "finetune", 2, "no data named; try: lowchurn finetune sst2");
    // Tasks and models of the repository are known elsewhere too, but don't lie there.
    let mut away = Lab::new();
    away.cwd = away.root().into();
    check(
        &away,
        "finetune tickets --model bert-tiny --output $T/run",
        2,
        "tickets lies in lowchurn's repository, in datasets/tickets, and that isn't below this folder; \
         run in the repository's root, or give the path of the files",
    );
}

#[test]
fn files_that_cannot_be_read() {
    let lab = Lab::new();
    let train = |name: &str, content: &[u8], flags: &str, code: i32, expected: &str| {
        lab.write(name, content);
        let line =
            format!("finetune $T/{name} --model tiny --max-length 16 --output $T/run {flags}");
        check(&lab, &line, code, expected);
    };
    let rows = b"text,label\na,x\nb,y\n";
    train(
        "ragged.csv",
        b"text,label\na,x\nb,y,z\n",
        "",
        3,
        "$T/ragged.csv:3: 3 cells where the header has 2 (a delimiter or line break in a cell without quotes?)",
    );
    train(
        "quote.csv",
        b"text,label\na,x\nb,\"y\n",
        "",
        3,
        "$T/quote.csv:3: a quoted cell starts in this row and is never closed",
    );
    train(
        "latin.csv",
        b"text,label\na,x\ncaf\xe9,y\n",
        "",
        3,
        "$T/latin.csv:3: not utf-8 text (save it as utf-8; spreadsheets call it \"csv utf-8\")",
    );
    train("empty.csv", b"", "", 3, "$T/empty.csv: no header and no rows in it");
    train(
        "bad.jsonl",
        b"{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": \"b\", \"label\": oops}\n",
        "",
        3,
        "$T/bad.jsonl:2: not a json object (expected value, column 24)",
    );
    train(
        "list.json",
        b"[{\"text\": \"a\", \"label\": \"x\"}]\n",
        "",
        3,
        "$T/list.json: one large json value (expected one object a line; jq -c '.[]' makes that of a list)",
    );
    train(
        "rows.xlsx",
        rows,
        "",
        3,
        "$T/rows.xlsx: can't tell the format from the suffix \"xlsx\" (expected .parquet, .csv, .tsv, or .jsonl, .ndjson or .json with one object a line)",
    );
    let parquet = util::parquet::texts_and_labels(&[("a", "x"), ("b", "y")]);
    train(
        "cut.parquet",
        &parquet[..parquet.len() / 2],
        "",
        3,
        "$T/cut.parquet: broken or truncated parquet (Invalid Parquet file. Corrupt footer); fetch or write it again",
    );
    train(
        "noise.parquet",
        &[7; 100],
        "",
        3,
        "$T/noise.parquet: broken or truncated parquet (Invalid Parquet file. Corrupt footer); fetch or write it again",
    );

    train(
        "typo.csv",
        b"text,lable\na,x\nb,y\n",
        "",
        3,
        "$T/typo.csv: can't tell which column is the label, name it (columns: text, lable): --label-column NAME",
    );
    train(
        "what.csv",
        b"a,label\na,x\nb,y\n",
        "",
        3,
        "$T/what.csv: can't tell which column is the text, name it (columns: a, label): --text-column NAME",
    );
    train(
        "rows.csv",
        rows,
        "--label-column lable",
        3,
        "$T/rows.csv: no label column \"lable\" (columns: text, label); did you mean \"label\"?",
    );
    train(
        "rows.csv",
        rows,
        "--text-column txt",
        3,
        "$T/rows.csv: no text column \"txt\" (columns: text, label); did you mean \"text\"?",
    );
    train(
        "rows.csv",
        rows,
        "--id-column key",
        3,
        "$T/rows.csv: no id column \"key\" (columns: text, label)",
    );
    train(
        "ids.csv",
        b"key,text,label\n1,a,x\n2,b,y\n1,c,x\n",
        "--id-column key",
        3,
        "$T/ids.csv:4: id \"1\" of column \"key\" is there twice, first at $T/ids.csv:2; ids must be unique",
    );
    train(
        "one.csv",
        b"text,label\na,x\nb,x\n",
        "",
        3,
        "one:train: a label set needs at least two names, got x",
    );
    train(
        "few.csv",
        rows,
        "",
        3,
        "a cut of 0.1 of 2 labelled rows leaves one side empty; name an evaluation split or another fraction",
    );

    lab.write("set/train.csv", "text,label\na,x\nb,y\n");
    lab.write("set/validation.csv", "text,label\na,x\nb,z\n");
    check(
        &lab,
        "finetune $T/set --model tiny --output $T/run",
        3,
        "$T/set/validation.csv:3: column \"label\" holds \"z\", which isn't one of the 2 labels x, y",
    );
    // A dry run is stopped by the same mistakes.
    check(
        &lab,
        "finetune $T/ragged.csv --model tiny --output $T/run --dry-run",
        3,
        "$T/ragged.csv:3: 3 cells where the header has 2 (a delimiter or line break in a cell without quotes?)",
    );
    let dry = format!("{} --dry-run", small("train[:40]", "trian"));
    check(
        &lab,
        &dry,
        2,
        "split \"trian\" isn't there (splits: later, train); did you mean \"train\"?",
    );
}

#[test]
fn base_models_that_are_none() {
    let lab = Lab::new();
    let line = small("--model tiny", "--model $T/base");
    // A model as it ships, changed, and what is said of it.
    let model = |change: &dyn Fn(&Path), expected: &str| {
        let _ = fs::remove_dir_all(lab.path("base"));
        change(&lab.copy("models/tiny", "base"));
        let done = lab.run(&line).expect(3);
        assert_eq!(done.err, format!("error: {expected}\n"));
        // The folder is there by then, since it has to be locked, but there is nothing in it.
        let left: Vec<String> =
            if lab.path("run").exists() { lab.names("run") } else { Vec::new() };
        assert!(left.is_empty() || left == [".lock"], "{left:?} left behind by {expected}");
    };
    let config = |key: &'static str, value: Option<Value>| {
        move |dir: &Path| {
            let path = dir.join("config.json");
            let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            let map = config.as_object_mut().unwrap();
            match &value {
                Some(value) => map.insert(key.into(), value.clone()),
                None => map.shift_remove(key),
            };
            fs::write(&path, config.to_string()).unwrap();
        }
    };
    let weights = |change: &'static dyn Fn(&mut Vec<u8>)| {
        move |dir: &Path| {
            let path = dir.join("model.safetensors");
            let mut bytes = fs::read(&path).unwrap();
            change(&mut bytes);
            fs::write(&path, bytes).unwrap();
        }
    };
    let remove = |name: &'static str| move |dir: &Path| fs::remove_file(dir.join(name)).unwrap();

    model(
        &config("model_type", Some(json!("roberta-prelayernorm"))),
        "$T/base/config.json: model_type \"roberta-prelayernorm\" is not supported; the nearest that is: \"roberta\", so take a base \
         model of that type",
    );
    model(
        &config("vocab_size", None),
        "$T/base/config.json: key \"vocab_size\" is missing, expected a whole number from 1 to 16777216",
    );
    model(
        &config("vocab_size", Some(json!(2000))),
        "$T/base: the tokenizer is larger than the model: 4000 tokens, but the embedding has 2000 rows \
         (config.json, vocab_size); take the tokenizer that was published with this model",
    );
    model(
        &config("num_hidden_layers", Some(json!(1))),
        "$T/base/model.safetensors: the tensors don't fit the model: not known: encoder.layer.1.attention.output.LayerNorm.bias, \
         encoder.layer.1.attention.output.LayerNorm.weight, encoder.layer.1.attention.output.dense.bias and 13 more; \
         see num_hidden_layers in config.json, which is 1",
    );
    model(
        &config("max_position_embeddings", Some(json!(64))),
        "$T/base/model.safetensors: the tensors don't fit the model: wrong shape: \
         embeddings.position_embeddings.weight is [128, 128], expected [64, 128]; see max_position_embeddings in config.json, which is 64",
    );
    let _ = fs::remove_dir_all(lab.path("base"));
    config("hidden_size", Some(json!(144)))(&lab.copy("models/tiny", "base"));
    let done = lab.run(&line).expect(3);
    let said = done.error();
    assert!(said.ends_with(" more; see hidden_size in config.json, which is 144"), "{said}");
    assert_eq!(said.matches(" is [").count(), 3, "{said}");
    model(
        &remove("config.json"),
        "$T/base/config.json: can't be read: No such file or directory (os error 2)",
    );
    model(
        &remove("model.safetensors"),
        "$T/base: no weights here: looked for model.safetensors, model.safetensors.index.json, pytorch_model.bin",
    );
    model(
        &|dir| {
            ["tokenizer.json", "vocab.txt"]
                .iter()
                .for_each(|name| fs::remove_file(dir.join(name)).unwrap())
        },
        "$T/base: no tokenizer here (expected tokenizer.json, or vocab.txt of a bert model, or vocab.json and merges.txt of a roberta model)",
    );
    let unsound = |why: &str| {
        format!("$T/base/model.safetensors: not a sound safetensors file: {why}; fetch it again")
    };
    model(
        &weights(&|bytes| bytes.truncate(bytes.len() / 2)),
        &unsound("incomplete metadata, file not fully covered"),
    );
    model(&weights(&|bytes| bytes[..8].fill(255)), &unsound("header too large"));
    model(
        &weights(&|bytes| bytes[8] = b'!'),
        &unsound("invalid JSON in header: expected value at line 1 column 1"),
    );
    model(&weights(&|bytes| bytes.clear()), &unsound("header too small"));

    // The run that is in the folder outlives a --fresh that can't even start.
    let lab = Lab::new();
    lab.ok(&format!("{SMALL} --output $T/run"));
    let before = lab.tree("run");
    weights(&|bytes| bytes.clear())(&lab.copy("models/tiny", "base"));
    lab.run(&format!("{line} --fresh")).expect(3);
    assert!(lab.tree("run") == before);
    // A base has no head; a model that has none can't be scored.
    let lab = Lab::new();
    let headless =
        "tiny has no classification head; train it first: lowchurn finetune DATA --model tiny";
    check(&lab, "eval --model tiny --data tickets --split train[:10]", 3, headless);
    check(&lab, "predict --model tiny --data tickets --split train[:10]", 3, headless);
}

#[test]
fn numbers_that_cannot_be() {
    let lab = Lab::new();
    let flag = |flag: &str, expected: &str| {
        check(&lab, &format!("finetune tickets --model tiny --output $T/run {flag}"), 2, expected);
    };
    flag("--learning-rate nan", "learning_rate is nan, expected a number");
    flag("--learning-rate inf", "learning_rate is inf, expected a number");
    flag("--learning-rate -0.5", "learning_rate is -0.5, expected a number above 0 and below 1");
    flag("--learning-rate 0", "learning_rate is 0, expected a number above 0 and below 1");
    flag("--batch-size 0", "batch_size is 0, expected at least 1");
    flag(
        "--batch-size tokens:127",
        "batch_size tokens:127: rows may have max_length = 128 tokens; take tokens:128 or more, or a lower max_length",
    );
    flag("--eval-batch-size 0", "eval_batch_size is 0, expected at least 1");
    flag("--max-steps 0", "max_steps is 0, expected at least 1");
    flag("--epochs 0", "epochs is 0, expected at least 1, or max_steps");
    flag("--dropout 1", "dropout is 1, expected a number from 0 up to, not with, 1");
    flag("--max-length 2", "max_length is 2, expected at least 3");
    flag("--max-length 600", "--max-length 600: tiny reads at most 128 tokens");
    flag("--eval-fraction 1.5", "a held-out fraction of 1.5 isn't between 0 and 1");
    flag(
        "--seed 18446744073709551615",
        "seed is 18446744073709551615, expected at most 9223372036854775807",
    );
    flag("--patience 2 --eval-split none", "patience needs an evaluation, but eval_split is none");
    // Before anybody asks the hub.
    check(&lab, "finetune sst2 --batch-size 0", 2, "batch_size is 0, expected at least 1");

    let refused = |line: &str, needle: &str| {
        let done = lab.run(line).expect(2);
        assert!(
            done.err.starts_with("error: ") && done.err.contains(needle),
            "{needle}\n{}",
            done.err
        );
        assert!(done.out.is_empty(), "{}", done.out);
    };
    refused("finetune tickets --lerning-rate 1", "a similar argument exists: '--learning-rate'");
    refused(
        "finetune tickets --learning-rate fast",
        "invalid value 'fast' for '--learning-rate <RATE>'",
    );
    refused("finetune tickets --schedule square", "expected linear, cosine or constant");
    refused(
        "finetune tickets --select-by acc",
        "expected accuracy, f1, macro_f1, matthews, pearson, spearman, worst_class or loss",
    );
    refused("finetune tickets --batch-size -1", "--batch-size");
    refused("finetune tickets --batch-size 8t", "expected a whole number of rows, or tokens:N");
    refused("finetun tickets", "finetune");
}

#[test]
fn devices_that_are_not_there() {
    let lab = Lab::new();
    let check = |name: &str, expected: &str| {
        check(
            &lab,
            &format!("finetune tickets --model tiny --output $T/run --device {name}"),
            2,
            expected,
        );
    };
    check("tpu", "--device tpu: expected auto, cpu, cuda, cuda:N or metal");
    let not_built = |name: &str| {
        format!(
            "--device {name} isn't in this build; build it with: \
             cargo build --release --features {name}, or use --device cpu"
        )
    };
    if cfg!(not(feature = "cuda")) {
        check("cuda", &not_built("cuda"));
        check("cuda:1", &not_built("cuda"));
    }
    if cfg!(not(feature = "metal")) {
        check("metal", &not_built("metal"));
    }
}

#[test]
fn plans_with_mistakes() {
    let lab = Lab::new();
    let plan = |text: &str, expected: &str| {
        lab.write("plan.toml", text);
        check(&lab, "finetune --plan $T/plan.toml --output $T/run", 2, expected);
    };
    plan(
        "data = \"tickets\"\nlearning_rat = 1e-5\n",
        "$T/plan.toml: unknown key \"learning_rat\"; did you mean \"learning_rate\"?",
    );
    plan(
        "data = \"tickets\"\nepochs = \"two\"\n",
        "$T/plan.toml:2: epochs: expected a whole number, found text \"two\"",
    );
    plan(
        "data = \"tickets\"\nmodel = tiny\n",
        "$T/plan.toml:2: put text in quotes: model = \"tiny\"",
    );
    for (theirs, ours) in [
        ("num_train_epochs", "epochs"),
        ("lr", "learning_rate"),
        ("per_device_train_batch_size", "batch_size"),
        ("Learning-Rate", "learning_rate"),
    ] {
        plan(
            &format!("{theirs} = 1\n"),
            &format!("$T/plan.toml: unknown key \"{theirs}\"; did you mean \"{ours}\"?"),
        );
    }
    plan("data = \"tickets\"\nlearning_rate = nan\n", "learning_rate is nan, expected a number");
    plan(
        "data = \"tickets\"\nmodel = \"tiny\"\nbatch_size = 0\n",
        "batch_size is 0, expected at least 1",
    );
    plan(
        "data = \"tickets\"\nbatch_size = \"two\"\n",
        "$T/plan.toml:2: batch_size: expected a whole number of rows, or tokens:N, found \"two\"",
    );
    plan(
        "data = \"tickets\"\nbatch_size = -1\n",
        "$T/plan.toml:2: batch_size: expected a whole number of rows, or tokens:N, found number -1",
    );
    plan(
        "data = \"tickets\"\nbatch_size = 1.5\n",
        "$T/plan.toml:2: batch_size: expected a whole number of rows, or tokens:N, found number 1.5",
    );
    plan("model = \"tiny\"\n", "no data named; try: lowchurn finetune sst2");
    check(
        &lab,
        "finetune --plan $T/none.toml",
        2,
        "$T/none.toml: can't be read: No such file or directory (os error 2)",
    );
}

#[test]
fn outputs_that_cannot_be_written() {
    let lab = Lab::new();
    lab.write("file", "precious");
    let refused = "can't be written: $T/file is a file; choose another --output";
    check(&lab, &format!("{SMALL} --output $T/file"), 2, &format!("$T/file: {refused}"));
    check(&lab, &format!("{SMALL} --output $T/file/run"), 2, &format!("$T/file/run: {refused}"));
    let dry = format!("{SMALL} --dry-run --output $T/file/run");
    check(&lab, &dry, 2, &format!("$T/file/run: {refused}"));
    assert_eq!(lab.text("file"), "precious");

    // A folder with a model that no run made: a base would be lost.
    lab.copy("models/tiny", "base");
    let before = lab.tree("base");
    let foreign = "$T/base holds a model that is no run's; choose another --output";
    check(&lab, &format!("{SMALL} --output $T/base"), 2, foreign);
    check(&lab, &format!("{SMALL} --output $T/base --fresh"), 2, foreign);
    let own = SMALL.replace("--model tiny", "--model $T/base");
    check(
        &lab,
        &format!("{own} --output $T/base"),
        2,
        "the base model lies in $T/base, which this run would write; choose another --output",
    );
    assert!(lab.tree("base") == before);

    // Somebody else's folder may lie there; it stays.
    lab.write("run/notes.txt", "mine");
    lab.write("run/checkpoint-9/weights", "mine too");
    lab.ok(&format!("{SMALL} --output $T/run"));
    lab.ok(&format!("{SMALL} --output $T/run --fresh"));
    assert_eq!(
        (lab.text("run/notes.txt"), lab.text("run/checkpoint-9/weights")),
        ("mine".into(), "mine too".into())
    );

    let predict = "predict --model $T/run --data tickets --split train[:2]";
    let line = format!("{predict} --output $T/file/p.jsonl");
    assert_eq!(lab.run(&line).expect(2).error(), format!("$T/file: {refused}"));
    let line = format!("{predict} --output $T/base");
    assert_eq!(lab.run(&line).expect(2).error(), "--output $T/base is a folder; name a file in it");

    // Nor over what the predictions are made from, nor into folders that nobody has.
    lab.write("rows.jsonl", "{\"text\":\"hello\",\"label\":\"delivery\"}\n");
    let predict = "predict --model $T/run --data $T/rows.jsonl --output";
    let before = lab.tree("");
    let refused = |output: &str, expected: &str| {
        let done = lab.run(&format!("{predict} {output}")).expect(2);
        assert_eq!(done.error(), format!("--output {output}{expected}"));
        assert!(lab.tree("") == before, "{output}");
    };
    let own = " is the file that the rows are read from; choose another";
    refused("$T/rows.jsonl", own);
    refused("$T/run/../rows.jsonl", own);
    refused("$T/run/config.json", " is a file of the model; choose another");
    refused("$T/no/such/p.jsonl", ": there is no folder $T/no");
    lab.ok(&format!("{predict} $T/run/p.jsonl"));

    let uid = Command::new("id").arg("-u").output().unwrap().stdout;
    if uid.starts_with(b"0") {
        return skipped("root may write into read-only folders");
    }
    fs::create_dir(lab.path("closed")).unwrap();
    Command::new("chmod").arg("555").arg(lab.path("closed")).status().unwrap();
    let lab = lab;
    let denied =
        "$T/closed/run: can't be written: Permission denied (os error 13); choose another --output";
    let done = lab.run(&format!("{SMALL} --output $T/closed/run")).expect(2);
    assert_eq!(done.error(), denied);
    Command::new("chmod").arg("755").arg(lab.path("closed")).status().unwrap();
}

/// Steps so wild that nothing stays a number: a squared gradient forgotten at once, and nothing added to its root.
const WILD: &str = "finetune tickets --model tiny --train-split train[:200] --eval-split none --batch-size 8 \
                    --max-length 16 --max-steps 200 --save-steps 1 --learning-rate 0.9 --beta2 0 --epsilon 1e-44";

#[test]
fn numbers_that_are_none_stop_the_run() {
    let lab = Lab::new();
    let done = lab.run(&format!("{WILD} --output $T/run")).expect(5);
    let message = done.error();
    let (what, rest) = message.split_once(" is not a number at step ").expect(message);
    let (step, rest) = rest.split_once(';').expect(message);
    assert!(
        [
            "the loss",
            "the gradient",
            "the gradient norm",
            "the global norm",
            "the norm of the weights"
        ]
        .contains(&what),
        "{message}"
    );
    assert_eq!(
        rest,
        " try a lower learning rate or a lower max_grad_norm, with --fresh or in another output folder; \
         the last checkpoint before it is kept"
    );
    let step: u64 = step.parse().unwrap();
    assert!(step > 1, "{message}");
    assert!(lab.path(&format!("run/checkpoint-{}/manifest.json", step - 1)).is_file());
    assert!(!lab.path("run/manifest.json").exists() && !lab.path("run/model.safetensors").exists());
    // The same command fails at the same place: it goes on from there and meets it again.
    assert_eq!(lab.run(&format!("{WILD} --output $T/run")).expect(5).error(), message);
    let json = lab.run(&format!("{WILD} --output $T/run --json")).expect(5).json();
    assert_eq!(json.last().unwrap()["exit_code"], 5);
}

/// A run with a checkpoint, whose disk is full from then on.
fn on_a_full_disk(
    lab: &Lab,
    fill: impl FnOnce() -> Box<dyn FnOnce()>,
    full: impl Fn(&str) -> Running,
) {
    let line = format!(
        "{} --save-steps 2 --dropout 0.1 --output $T/disk/run",
        SMALL.replace("--max-steps 6", "--max-steps 400")
    );
    let mut first = lab.start(&line);
    assert!(first.until(&lab.path("disk/run/checkpoint-2")));
    first.signal("TERM");
    first.wait().expect(130);
    let kept: Vec<String> =
        lab.names("disk/run").into_iter().filter(|name| name.starts_with("checkpoint")).collect();
    let newest = lab.tree(&format!("disk/run/{}", kept.last().unwrap()));

    let make_room = fill();
    let done = full(&line).wait().expect(2);
    assert!(done.error().starts_with("$T/disk/run/.checkpoint-"), "{}", done.err);
    assert!(done.error().contains(": can't be written: "), "{}", done.err);
    let advice = "; make room there, or write elsewhere, and give the same command again";
    assert!(done.error().ends_with(advice), "{}", done.err);
    let left = lab.names("disk/run");
    assert!(left.iter().all(|name| !name.contains("partial")), "half-written: {left:?}");
    assert_eq!(
        lab.tree(&format!("disk/run/{}", kept.last().unwrap())),
        newest,
        "the earlier checkpoint is lost"
    );

    make_room();
    let mut again = lab.start(&line);
    let step: u64 =
        kept.last().unwrap().trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
    let next = lab.path(&format!("disk/run/checkpoint-{}", (step / 2 + 1) * 2));
    assert!(again.until(&next), "doesn't go on when there is room");
    again.signal("TERM");
    let done = again.wait().expect(130);
    assert!(done.err.contains(&format!("going on from step {step} of 400")), "{}", done.err);
}

#[test]
fn a_full_disk_costs_no_checkpoint() {
    let lab = Lab::new();
    let disk = lab.path("disk");
    fs::create_dir(&disk).unwrap();
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"])
        .arg(&disk)
        .output()
        .is_ok_and(|done| done.status.success());
    if !mount {
        return skipped("can't mount a tmpfs here");
    }
    struct Mounted<'p>(&'p Path);
    impl Drop for Mounted<'_> {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(self.0).status();
        }
    }
    let _mounted = Mounted(&disk);
    let ballast = disk.join("ballast");
    let fill = || {
        // All the room there is but for the small files of the beginning.
        let mut file = fs::File::create(&ballast).unwrap();
        while file.write_all(&[1; 1 << 16]).is_ok() {}
        let length = file.metadata().unwrap().len();
        file.set_len(length - (1 << 20)).unwrap();
        Box::new(move || fs::remove_file(&ballast).unwrap()) as Box<dyn FnOnce()>
    };
    on_a_full_disk(&lab, fill, |line| lab.start(line));
}

/// The same where nothing can be mounted: files may not grow beyond what the weights need less than.
#[test]
fn a_file_that_may_not_grow_costs_no_checkpoint() {
    let lab = Lab::new();
    fs::create_dir(lab.path("disk")).unwrap();
    let full = |line: &str| {
        let inner = lab.command(line);
        let mut command = Command::new("sh");
        // In blocks of 512 bytes, 2 MiB; the signal that goes with it is ignored, so that the write fails.
        command
            .args(["-c", "trap '' XFSZ; ulimit -f 4096; exec \"$0\" \"$@\""])
            .arg(inner.get_program())
            .args(inner.get_args());
        command.env_clear().envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(&lab.cwd);
        Running::of(command, line, lab.root())
    };
    on_a_full_disk(&lab, || Box::new(|| ()), full);
}
