//! What becomes of a model behind its training, from outside: exports.

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
