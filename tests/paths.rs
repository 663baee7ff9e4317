//! Files and folders that are named on the command line: what is to be read and isn't there, and where results go.

mod util;

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::process::Command;
use std::thread;

use util::{Lab, SMALL, json_lines};

/// A report of two prediction files of four rows, and a model.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.write("old.csv", "id,label\n1,a\n2,b\n3,a\n4,b\n");
    lab.write("new.csv", "id,label\n1,a\n2,b\n3,b\n4,b\n");
    lab.ok("compare $T/old.csv $T/new.csv --max-churn 90% --output $T/made");
    lab
}

#[test]
fn a_file_that_is_not_there_is_usage_for_every_verb() {
    let lab = lab();
    lab.ok(&format!("{SMALL} --output $T/run"));
    for line in [
        "gate $T/none.json",
        "gate $T/run",
        "compare $T/none.csv $T/new.csv",
        "compare $T/old.csv $T/new.csv --data $T/none.csv",
        "eval --model $T/run --data $T/none.csv",
        "predict --model $T/run --data $T/none.csv",
        "finetune $T/none.csv --model tiny",
        "finetune tickets --plan $T/none.toml",
        "publish $T/run --to me/x --report $T/none.json --dry-run",
        "update --base $T/run --new $T/none.csv",
        "post-shift $T/run --data $T/none.csv",
        "diagnose --teacher $T/none.jsonl --student $T/none.jsonl",
    ] {
        let done = lab.run(line).expect(2);
        let said = done.error();
        assert!(said.contains("$T/none") || said.contains("$T/run/report.json"), "{line}: {said}");
    }
    let done = lab.run("gate $T/run").expect(2);
    assert_eq!(done.error(), "$T/run/report.json: there is no such file");
}

#[test]
fn gate_takes_the_folder_of_a_report() {
    let lab = lab();
    let of_file = lab.run("gate $T/made/report.json");
    let of_folder = lab.run("gate $T/made");
    assert_eq!((of_folder.code, &of_folder.out), (of_file.code, &of_file.out));
    assert!(of_folder.out.contains("churn: 1 of 4 rows changed"), "{}", of_folder.out);

    let done = lab.run("gate $T/made --output $T/no/such/gate.xml").expect(2);
    assert_eq!(done.error(), "--output $T/no/such/gate.xml: there is no folder $T/no");
    let code = of_folder.code.unwrap();
    lab.run("gate $T/made --output $T/checks/gate.txt").expect(code);
    assert_eq!(lab.text("checks/gate.txt"), of_folder.out);
}

/// Of the link the file behind it is written, also where that isn't there yet; a pipe's reader gets what is written, and the pipe
/// stays.
#[test]
fn links_and_pipes_are_written_through() {
    let lab = lab();
    lab.ok(&format!("{SMALL} --output $T/run"));
    let predict = "predict --model $T/run --data tickets --split train[:3] --output";
    lab.ok(&format!("{predict} $T/plain.jsonl"));
    let expected = lab.text("plain.jsonl");
    assert_eq!(json_lines(&expected).len(), 3);
    lab.write("kept/there.jsonl", "old");
    for target in ["kept/there.jsonl", "kept/not-yet.jsonl"] {
        let link = lab.path("link.jsonl");
        let _ = fs::remove_file(&link);
        symlink(target, &link).unwrap();
        lab.ok(&format!("{predict} $T/link.jsonl"));
        assert!(link.is_symlink(), "{target}");
        assert_eq!(lab.text(target), expected);
    }
    assert_eq!(lab.names("kept"), ["not-yet.jsonl", "there.jsonl"]);

    // What a process has open is its own to write to: others may have written there before.
    let log = lab.write("log", "before\n");
    let mut to_stdout = lab.command(&format!("{predict} /dev/stdout"));
    to_stdout.stdout(fs::OpenOptions::new().append(true).open(log).unwrap());
    assert!(to_stdout.status().unwrap().success());
    assert!(lab.text("log").starts_with(&format!("before\n{expected}")), "{}", lab.text("log"));

    let pipe = lab.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let read = || {
        let pipe = pipe.clone();
        thread::spawn(move || fs::read_to_string(pipe).unwrap())
    };
    let reader = read();
    lab.ok(&format!("{predict} $T/pipe"));
    assert_eq!(reader.join().unwrap(), expected);
    let reader = read();
    let code = lab.run("gate $T/made").code.unwrap();
    lab.run("gate $T/made --output $T/pipe").expect(code);
    assert!(reader.join().unwrap().contains("1 of 4 rows changed"));
    assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
}

#[test]
fn predictions_are_called_what_they_are() {
    let lab = Lab::new();
    lab.ok(&format!("{SMALL} --output $T/run"));
    let predict = "predict --model $T/run --data tickets --split train[:40] --output";
    for suffix in ["csv", "tsv", "parquet", "CSV"] {
        let done = lab.run(&format!("{predict} $T/p.{suffix}")).expect(2);
        let expected = format!(
            "--output $T/p.{suffix}: predictions are written as lines of JSON; call the file $T/p.jsonl"
        );
        assert_eq!(done.error(), expected);
    }
    assert!(lab.names("").iter().all(|name| !name.starts_with("p.")));
    lab.ok(&format!("{predict} $T/p.jsonl"));
    let done = lab.ok("compare $T/p.jsonl $T/p.jsonl --output $T/same");
    assert!(done.out.contains("churn           0.00 %"), "{}", done.out);
}

/// Not every verb calls a model by the same flag, and some by none.
#[test]
fn a_folder_that_is_not_there_is_named_as_it_was_typed() {
    let lab = Lab::new();
    lab.write("rows.csv", "text,label\nhello,a\nbye,b\n");
    for (line, expected) in [
        (
            "update --base runs/frist --new $T/rows.csv",
            "--base runs/frist: there is no folder runs/frist",
        ),
        (
            "sweep --base ./frist --new $T/rows.csv --output $T/x",
            "--base ./frist: there is no such folder",
        ),
        (
            "distil tickets --model tiny --teacher runs/nosuch --output $T/x",
            "--teacher runs/nosuch: there is no folder runs/nosuch",
        ),
        (
            "distil tickets --student runs/nosuch --teacher tiny --output $T/x",
            "--student runs/nosuch: there is no folder runs/nosuch",
        ),
        (
            "repair runs/nosuch tiny --holdout $T/rows.csv",
            "runs/nosuch: there is no folder runs/nosuch",
        ),
        ("export runs/nosuch --onnx $T/x.onnx", "runs/nosuch: there is no folder runs/nosuch"),
        (
            "eval --model runs/nosuch --data $T/rows.csv",
            "--model runs/nosuch: there is no folder runs/nosuch",
        ),
        ("finetune --model tiny", "no data named; try: lowchurn finetune sst2"),
        (
            "distil --model tiny --teacher tiny",
            "no data named; try: lowchurn distil sst2 --teacher DIR",
        ),
    ] {
        assert_eq!(lab.run(line).expect(2).error(), expected, "{line}");
    }
    lab.write("next/update.json", "[]");
    lab.write("next/candidates/distil-lambda-0.5/checkpoint-14/config.json", "{}");
    lab.write("next/candidates/distil-lambda-0.5/checkpoint-114/config.json", "{}");
    let expected = "--model $T/next is an unfinished update; take one of its models, such as \
                    $T/next/candidates/distil-lambda-0.5/checkpoint-114";
    assert_eq!(lab.run("eval --model $T/next --data tickets").expect(2).error(), expected);
    // A candidate that has been trained to its end comes before its checkpoints.
    lab.write("next/candidates/distil-lambda-0.5/config.json", "{}");
    let done = lab.run("compare $T/next tiny --data tickets").expect(2);
    let expected = "$T/next is an unfinished update; take one of its models, such as \
                    $T/next/candidates/distil-lambda-0.5";
    assert_eq!(done.error(), expected);
}
