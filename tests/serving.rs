//! What becomes of a model behind its training, from outside: exports, how it is served, and its
//! releases over time.

mod util;

use util::Lab;

/// A run of a few updates in `$T/run`.
fn trained() -> Lab {
    let lab = Lab::new();
    lab.ok(&format!("{} --output $T/run", util::SMALL));
    lab
}

#[test]
fn a_run_becomes_an_onnx_file() {
    let lab = trained();
    let before = lab.tree("run");
    let done = lab.ok("export $T/run --onnx");
    let said = "$T/run/onnx/model.onnx: bert, ";
    let inputs = ", opset 18, input_ids, attention_mask, token_type_ids → logits of ";
    assert!(done.out.starts_with(said) && done.out.contains(inputs), "{}", done.out);
    let file = lab.read("run/onnx/model.onnx");
    assert!(file.starts_with(b"\x08\x08\x12\x08lowchurn"));
    // All else stays, and the folder is still the run that it was.
    let mut after = lab.tree("run");
    after.retain(|path, _| !path.ends_with("onnx/model.onnx"));
    assert_eq!(after, before);
    assert!(lab.ok(&format!("{} --output $T/run", util::SMALL)).out.contains("is finished"));
    // The file is named with --onnx, and machines are told of it.
    let lines = lab.ok("--json export $T/run --onnx $T/other.onnx").json();
    let event = lines.last().unwrap();
    assert_eq!(event["bytes"], file.len());
    assert_eq!(event["inputs"][2], "token_type_ids");
    assert!(lab.read("other.onnx").starts_with(b"\x08\x08\x12\x08lowchurn"));
}

#[test]
fn what_cannot_be_exported_says_so() {
    let lab = Lab::new();
    let check = |line: &str, message: &str| {
        let done = lab.run(line).expect(2);
        assert_eq!(done.error(), message, "{line}");
    };
    check("export $T", "in which form? Give --onnx [FILE]");
    check(
        "export owner/name --onnx",
        "owner/name is no folder here; say where the file goes: --onnx FILE",
    );
    check("export owner/name --onnx $T", "--onnx $T is a folder; name a file in it");
    check(
        "export owner/name --onnx $T/model.pb",
        "--onnx $T/model.pb: the name of an ONNX file ends in .onnx",
    );
    let done = lab.run("export tiny --onnx $T/model.onnx");
    assert_eq!(
        done.error(),
        "tiny has no classification head; train it first: lowchurn finetune DATA --model tiny"
    );
    assert!(!lab.path("model.onnx").exists());
}

#[test]
fn serving_by_itself_is_compared() {
    let lab = trained();
    let rows = "--data tickets:train[60:140] --nearest 0";
    let line = format!("compare $T/run $T/run --new-as served {rows} --output $T/served");
    let done = lab.ok(&line);
    assert!(!done.out.contains("both sides are the same"), "{}", done.out);
    let report = lab.json("served/report.json");
    let run = lab.path("run");
    let served = format!("{} (f16, tanh-GELU, 128 tokens)", run.display());
    assert_eq!(report["old"]["name"], run.to_str().unwrap());
    assert_eq!(report["new"]["name"], served);
    let provenance = report["provenance"].as_array().unwrap();
    let line = serde_json::json!(["new computed as", "f16, tanh-GELU, 128 tokens"]);
    assert!(provenance.contains(&line), "{provenance:?}");
    // Rounding moves scores, if not many predictions.
    let moved = report["comparison"]["soft"]["total_variation"].as_f64().unwrap();
    assert!(moved > 0.0 && moved < 0.01, "{moved}");

    // Both sides served alike are the same again.
    let done = lab.ok(&format!("compare $T/run $T/run --as served {rows} --output $T/both"));
    assert!(done.out.contains("the same"), "{}", done.out);
    // Each part by itself, and a text cut short.
    for (form, words) in [("f16", "f16"), ("tanh-gelu", "tanh-GELU"), ("length=8", "8 tokens")] {
        lab.ok(&format!("compare $T/run $T/run --new-as {form} {rows} --output $T/part"));
        let name = format!("{} ({words})", run.display());
        assert_eq!(lab.json("part/report.json")["new"]["name"], name);
    }
}

#[test]
fn forms_that_cannot_be() {
    let lab = trained();
    lab.write("old.csv", "id,label\n1,a\n2,b\n");
    let check = |line: &str, message: &str| {
        let done = lab.run(line).expect(2);
        assert!(done.error().starts_with(message), "{line}: {}", done.error());
    };
    check(
        "compare $T/old.csv $T/old.csv --new-as f16",
        "$T/old.csv: these are predictions already; how they were computed can't be changed",
    );
    check(
        "compare $T/run $T/run --as f16 --bf16 --data tickets",
        "--bf16 and f16: a model is computed in one of them",
    );
    check(
        "compare $T/run $T/run --as length=4096 --data tickets",
        "length=4096: $T/run reads at most 128 tokens",
    );
    check(
        "compare $T/run $T/run --as int8 --data tickets",
        "invalid value 'int8' for '--as <FORM>': expected trained, served, or some of f16, tanh-gelu, length, length=N with \
         commas between",
    );
}

#[test]
fn a_release_knows_those_before_it() {
    let lab = Lab::new();
    lab.ok(&format!("{} --output $T/v1", util::SMALL));
    let update = "--new tickets:train[100:160] --holdout tickets:train[160:260] --max-steps 6 --batch-size 8 --interpolate none --tables $T/tables";
    lab.ok(&format!("update --base $T/v1 {update} --output $T/v2"));
    lab.ok(&format!("update --base $T/v2 {update} --seed 7 --output $T/v3"));
    let rows = "--data tickets:train[260:400]";
    let done = lab.ok(&format!("history $T/v3 {rows}"));
    let lines: Vec<&str> = done.out.lines().collect();
    assert!(lines[0].starts_with("1 $T/v1: right ") && !lines[0].contains("churn"), "{}", done.out);
    assert!(
        lines[1].starts_with("2 $T/v2: right ") && lines[1].ends_with("% from 1"),
        "{}",
        done.out
    );
    assert!(
        lines[2].starts_with("3 $T/v3: right ") && lines[2].contains(" % from 1, "),
        "{}",
        done.out
    );
    assert!(lines[3].starts_with("flip-flops: "), "{}", done.out);

    // What two models alone say of each other is the same.
    let report = lab.json("v3/history/report.json");
    let history = &report["history"];
    assert_eq!(history["since"].as_array().unwrap().len(), 3);
    for (at, (old, new)) in [("v1", "v2"), ("v1", "v3"), ("v2", "v3")].iter().enumerate() {
        lab.ok(&format!("compare $T/{old} $T/{new} {rows} --nearest 0 --output $T/two"));
        let two = lab.json("two/report.json");
        assert_eq!(history["since"][at]["flips"], two["comparison"]["all"]["flips"], "{old} {new}");
    }
    assert_eq!(report["n_flips"], history["since"][2]["flips"]["changed"]);
    assert!(lab.text("v3/history/report.html").contains("id=\"history\""));
    let refused = lab.run("gate $T/v3/history/report.json --max-churn 99%").expect(2);
    let said = "$T/v3/history/report.json: a report of history, among whose rows may be some that chose a model; for a verdict make one with \
                compare";
    assert_eq!(refused.error(), said);

    // Rows that a release was trained on, and rows that chose one, are left out.
    let wider = lab.ok("history $T/v3 --data tickets:train[100:400] --output $T/wider");
    assert!(
        wider
            .err
            .contains("60 of 300 rows have a text that $T/v3 was trained on; they are left out"),
        "{}",
        wider.err
    );
    lab.ok("compare $T/v1 $T/v2 --data tickets:train[100:400] --nearest 0 --output $T/two");
    let (wider, two) = (lab.json("wider/report.json"), lab.json("two/report.json"));
    assert_eq!(wider["history"]["since"][0]["flips"], two["comparison"]["all"]["flips"]);
    assert_eq!(wider["history"]["rows"], two["comparison"]["all"]["flips"]["rows"]);

    // The same from files of predictions, in an order that is said.
    for name in ["v1", "v2", "v3"] {
        lab.ok(&format!("predict --model $T/{name} {rows} --output $T/{name}.jsonl"));
    }
    lab.ok("history $T/v1.jsonl $T/v2.jsonl $T/v3.jsonl --output $T/files");
    let files = lab.json("files/report.json");
    assert_eq!(files["history"]["since"][1]["flips"], history["since"][1]["flips"]);
    assert_eq!(files["history"]["n_flip_flops"], history["n_flip_flops"]);

    // A folder that has moved is found beside the update, by its hash; one that has changed is not.
    std::fs::rename(lab.path("v1"), lab.path("first")).unwrap();
    let done = lab.ok(&format!("history $T/v3 {rows}"));
    assert!(done.out.starts_with("1 $T/first: right "), "{}", done.out);
    std::fs::remove_dir_all(lab.path("first")).unwrap();
    let done = lab.ok(&format!("history $T/v3 {rows}"));
    let said = "$T/v2 updates $T/v1, which isn't found as it was then; the history begins here";
    assert!(done.err.contains(said) && done.out.starts_with("1 $T/v2: "), "{}", done.err);
    let done = lab.run(&format!("history $T/v2 {rows}")).expect(2);
    let said = "$T/v2: no earlier release is known of it; name all of them, the oldest first";
    assert_eq!(done.error(), said);
}

#[test]
fn every_verb_has_a_man_page() {
    let lab = Lab::new();
    let done = lab.ok("man $T/man");
    let names = lab.names("man");
    assert!(done.out.starts_with(&format!("$T/man: {} pages", names.len())), "{}", done.out);
    let help = lab.ok("--help").out;
    let verbs = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let verbs = verbs.take_while(|line| !line.is_empty());
    let verbs = verbs.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let verbs: Vec<&str> = verbs.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(verbs.len() > 12, "{help}");
    for verb in verbs.into_iter().filter(|verb| *verb != "help") {
        let page = lab.text(&format!("man/lowchurn-{verb}.1"));
        assert!(page.contains(".SH SYNOPSIS") && page.contains(".SH OPTIONS"), "{verb}");
    }
    let page = lab.text("man/lowchurn-update.1");
    assert!(page.contains("max\\-churn"), "{page}");
    lab.write("file", "");
    let done = lab.run("man $T/file").expect(3);
    assert!(done.error().starts_with("$T/file: can't be written"), "{}", done.err);
}
