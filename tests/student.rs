//! `student` and `distil` with a teacher's states, from outside: small models of large ones, and what can't be asked for.

mod util;

use std::fmt::Write as _;

use util::Lab;

/// Rows of two kinds of words; labels as names.
fn rows(from: usize, n: usize) -> String {
    let words = [["late", "parcel", "courier"], ["refund", "money", "invoice"]];
    let mut lines = String::new();
    for row in from..from + n {
        let kind = row % 2;
        let word = words[kind][row / 2 % 3];
        let _ = writeln!(
            lines,
            "{{\"id\": \"r{row}\", \"text\": \"the {word} is my trouble number {}\", \"label\": \"{}\"}}",
            row % 7,
            ["delivery", "payment"][kind]
        );
    }
    lines
}

const TRAIN: &str = "--batch-size 8 --max-length 24 --eval-split none --learning-rate 1e-3";

#[test]
fn a_student_of_some_layers_and_words_follows_its_teacher() {
    let lab = Lab::new();
    lab.write("rows.jsonl", rows(0, 64));
    lab.ok(&format!(
        "finetune $T/rows.jsonl --model tiny {TRAIN} --max-steps 12 --output $T/teacher"
    ));
    let done = lab.ok("student $T/teacher --layers 1 --output $T/start");
    assert!(
        done.out.contains("$T/start: of $T/teacher, layers 0 of 2, 128 wide, "),
        "{}",
        done.out
    );
    // What the weights have learnt goes with them, and makes no run of the folder.
    let learnt = lab.text("start/run.toml");
    assert!(learnt.contains("[[seen]]") && learnt.contains("rows.jsonl"), "{learnt}");
    let over = format!("finetune $T/rows.jsonl --model tiny {TRAIN} --output $T/start");
    let refused = lab.run(&over).expect(2);
    assert_eq!(refused.error(), "$T/start holds a model that is no run's; choose another --output");
    let line = format!(
        "distil $T/rows.jsonl --teacher $T/teacher --student $T/start {TRAIN} --max-steps 6 --hidden-weight 1 --attention-weight 0.1 \
         --relation-weight 1 --relation-heads 8 --vector-weight 1 --tables $T/tables --output $T/small"
    );
    let done = lab.ok(&line);
    assert!(done.out.contains("is asked for its states in every update"), "{}", done.out);
    assert!(
        done.out.contains("teacher: one vector a text of $T/teacher (mean), 128 wide\n"),
        "{}",
        done.out
    );
    let plan = lab.text("small/run.toml");
    assert!(plan.contains("[states]\n") && plan.contains("relation_heads = 8\n"), "{plan}");
    assert_eq!(lab.json("small/config.json")["num_hidden_layers"], 1);
    let provenance = &lab.json("small/manifest.json")["provenance"];
    assert_eq!(provenance["teacher"][0], lab.path("teacher").to_str().unwrap());
    assert!(!lab.path("small/projections.safetensors").exists());
    // The same command finds the run finished; other weights are another run.
    assert!(lab.ok(&line).out.contains("is finished"));
    let other = lab.run(&line.replace("--hidden-weight 1", "--hidden-weight 2")).expect(2);
    assert!(other.error().contains("holds a run with another states: "), "{}", other.error());
    // What was made is a model as any other.
    lab.ok("eval --model $T/small --data $T/rows.jsonl --split train");
}

#[test]
fn a_small_encoder_comes_of_texts_alone() {
    let lab = Lab::new();
    lab.write("rows.jsonl", rows(0, 96));
    lab.write("texts.csv", "text\nthe parcel is late\nwhere is my money\nthe courier lost it\n");
    let made = "student tiny --width 32 --heads 4 --layers 1 --intermediate 64 --vocabulary 200 --data $T/rows.jsonl --data $T/texts.csv \
                --output $T/start";
    let done = lab.ok(made);
    assert!(done.out.contains("1 layers, 32 wide, 200 of "), "{}", done.out);
    assert!(done.out.contains("no weights: distil --student makes fresh ones"), "{}", done.out);
    assert!(!lab.path("start/model.safetensors").exists());
    assert_eq!(lab.text("start/vocab.txt").lines().count(), 200);
    let line = "distil --task-agnostic --teacher tiny --student $T/start --data $T/rows.jsonl --data $T/texts.csv --vector-weight 1 \
                --batch-size 8 --max-length 24 --max-steps 10 --learning-rate 1e-3 --tables $T/tables --output $T/base";
    let done = lab.ok(line);
    assert!(done.out.contains("has no weights: all parameters are new"), "{}", done.out);
    assert_eq!(lab.json("base/config.json")["architectures"][0], "BertModel");
    let tree = lab.tree("base");
    assert!(lab.ok(line).out.contains("is finished"));
    assert!(lab.tree("base") == tree);
    // All texts are in its record, and what is trained from it knows them.
    let count = |run: &str, what: &str| lab.text(&format!("{run}/run.toml")).matches(what).count();
    assert_eq!((count("base", "[[seen]]"), count("base", "texts.csv")), (1, 1));
    lab.ok(&format!(
        "finetune $T/rows.jsonl --model $T/base {TRAIN} --max-steps 2 --output $T/run"
    ));
    assert_eq!((count("run", "[[seen]]"), count("run", "texts.csv")), (2, 1));
    // As a student with labels, too; a model without a head teaches no logits.
    let headless = lab
        .run(&format!(
            "distil $T/rows.jsonl --teacher tiny --student $T/start {TRAIN} --output $T/x"
        ))
        .expect(3);
    assert!(headless.error().contains("tiny has no classification head"), "{}", headless.error());
    lab.ok(&format!("distil $T/rows.jsonl --teacher $T/run --student $T/start {TRAIN} --max-steps 2 --tables $T/tables --output $T/y"));
}

#[test]
fn what_cannot_be_made_is_said() {
    let lab = Lab::new();
    lab.write("rows.jsonl", rows(0, 32));
    lab.write("empty.csv", "text\n");
    let said = |line: &str, code: i32| lab.run(line).expect(code).error().to_string();
    assert_eq!(
        said("student tiny --output $T/s", 2),
        "nothing to make smaller; give --init-layers, --layers, --vocabulary or --width"
    );
    assert_eq!(
        said("student tiny --layers 3 --output $T/s", 2),
        "--layers 3: tiny has 2 layers; ask for 1 to 2"
    );
    assert!(
        said("student tiny --init-layers 0,2 --output $T/s", 3)
            .ends_with("there is no layer 2: the model has 2, from 0 to 1")
    );
    assert!(
        said("student tiny --vocabulary 20 --data $T/rows.jsonl --output $T/s", 3)
            .contains("special tokens and ASCII characters alone are ")
    );
    assert!(
        said("student tiny --vocabulary 99999 --data $T/rows.jsonl --output $T/s", 3)
            .contains("pieces, and 99999 were asked for")
    );
    lab.copy("models/tiny", "mine");
    assert_eq!(
        said("student tiny --layers 1 --output $T/mine", 2),
        "$T/mine holds a model; choose another --output"
    );

    let agnostic = "distil --task-agnostic --teacher tiny --model tiny --max-steps 1 --max-length 24 --output $T/r";
    assert!(
        said(agnostic, 2)
            .starts_with("no texts named; try: lowchurn distil --task-agnostic --data")
    );
    let texts = format!("{agnostic} --data $T/rows.jsonl");
    assert!(
        said(&texts, 2).starts_with(
            "--task-agnostic follows no logits, so say what it follows: --vector-weight"
        )
    );
    assert_eq!(
        said(&format!("{texts} --relation-weight 1 --relation-heads 5"), 3),
        "the student is 128 wide, which 5 relation heads don't divide; give --relation-heads that divide 128 and 128"
    );
    assert_eq!(
        said(&format!("{texts} --vector-weight 1 --teacher minilm-l6"), 2),
        "hidden, attention, relation and vector weights follow one teacher, and 2 are named; leave the others out"
    );
    assert_eq!(
        said("finetune $T/rows.jsonl --model tiny --method task-agnostic --output $T/r", 2),
        "task-agnostic, and weights of hidden states, attention, relations and vectors, follow a teacher, and finetune has none; use \
         lowchurn distil --teacher DIR"
    );
    // Other words, other tokens.
    lab.ok("student tiny --vocabulary 150 --data $T/rows.jsonl --output $T/few");
    let other = "distil --task-agnostic --teacher tiny --student $T/few --data tickets --hidden-weight 1 --max-length 24 --output $T/r";
    let other = said(other, 3);
    assert!(other.starts_with("teacher and student read different tokens: row "), "{other}");
    assert!(!lab.path("r/run.toml").exists());
}

/// What has no weights starts from the seed's where that is asked for, in its updates from the encoder too, and each seed has others.
#[test]
fn a_model_is_trained_from_scratch_where_that_is_asked_for() {
    let lab = Lab::new();
    lab.write("rows.jsonl", rows(0, 48));
    // Texts come again after 42 rows; those of an update mustn't.
    lab.write("new.jsonl", rows(48, 24).replace("number", "new number"));
    lab.write("held.jsonl", rows(72, 24).replace("number", "other number"));
    let small = "--width 32 --heads 4 --layers 1 --intermediate 64 --vocabulary 200";
    lab.ok(&format!("student tiny {small} --data $T/rows.jsonl --output $T/start"));
    let line = format!("finetune $T/rows.jsonl --model $T/start {TRAIN} --max-steps 4");
    let refused = lab.run(&format!("{line} --output $T/x")).expect(3);
    assert!(refused.error().contains("start: no weights here: looked for "), "{}", refused.error());
    let done = lab.ok(&format!("{line} --from-scratch --seeds 2 --output $T/runs"));
    assert_eq!(done.out.matches("start has no weights: all parameters are new").count(), 2);
    assert!(
        lab.read("runs/seed-42/model.safetensors") != lab.read("runs/seed-43/model.safetensors")
    );
    lab.ok(&format!("{line} --from-scratch --output $T/again"));
    assert!(lab.read("runs/seed-42/model.safetensors") == lab.read("again/model.safetensors"));

    let update = "update --base $T/again --new $T/new.jsonl --holdout $T/held.jsonl --method retrain --interpolate none \
                  --max-steps 2 --tables $T/tables";
    let done = lab.ok(&format!("{update} --init cold --output $T/cold"));
    assert!(done.out.contains("start has no weights: all parameters are new"), "{}", done.out);
    let done = lab.ok(&format!("{update} --init warm --output $T/warm"));
    assert!(!done.out.contains("has no weights"), "{}", done.out);

    let line = line.replace("$T/start", "tiny");
    let refused = lab.run(&format!("{line} --from-scratch --output $T/y")).expect(2);
    let expected = "tiny has some; take --from-scratch=false, or copy its config.json and tokenizer into a folder of their own";
    assert!(refused.error().starts_with("from-scratch starts from new weights, and "));
    assert!(refused.error().ends_with(expected), "{}", refused.error());
}
