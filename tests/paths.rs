//! Files and folders that are named on the command line: what is to be read and isn't there, and where results go.

mod util;

use util::Lab;

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
