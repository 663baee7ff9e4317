//! `distil` on the small problem of `util/words.rs`.

mod util;
#[path = "util/words.rs"]
mod words;

use serde_json::json;
use util::Lab;
use words::{LABELS, TRAIN, predicted, rows};

#[test]
fn a_student_follows_its_teacher() {
    let lab = Lab::new();
    lab.write("old.jsonl", rows(0, 300, false, true));
    lab.write("few.jsonl", rows(300, 24, false, true));
    lab.write("more.jsonl", rows(330, 200, false, false));
    lab.write("hold.jsonl", rows(600, 200, false, true));
    lab.ok(&format!(
        "finetune $T/old.jsonl --model tiny {TRAIN} --max-steps 70 --output $T/teacher"
    ));
    let student = format!(
        "$T/few.jsonl --model tiny {TRAIN} --max-steps 60 --learning-rate 1e-3 --tables $T/tables --teacher $T/teacher"
    );
    let line = format!("distil {student} --unlabelled $T/more.jsonl --output $T/student");
    let done = lab.ok(&line);
    // What it followed is in its record, with what it takes to know it again.
    assert!(lab.text("student/run.toml").contains("[[seen]]"));
    assert!(done.out.contains("teacher: scores of $T/teacher\n"), "{}", done.out);
    assert!(done.out.contains("distil:lambda=0.5,temperature=1,"), "{}", done.out);
    // 24 labels alone don't tell the words; the teacher's scores of unlabelled rows do.
    let (of_teacher, _) = predicted(&lab, "$T/teacher");
    let agrees = |run: &str| {
        let (found, _) = predicted(&lab, run);
        found.iter().filter(|(id, label)| of_teacher[*id] == **label).count()
    };
    let alone = format!(
        "finetune $T/few.jsonl --model tiny {TRAIN} --max-steps 60 --learning-rate 1e-3 --output $T/alone"
    );
    lab.ok(&alone);
    let (followed, alone) = (agrees("$T/student"), agrees("$T/alone"));
    assert!(followed > alone && followed > 190, "{followed} with a teacher, {alone} without");
    let provenance = &lab.json("student/manifest.json")["provenance"];
    assert_eq!(provenance["teacher"][0], lab.path("teacher").to_str().unwrap());
    assert!(
        provenance["train"].as_str().unwrap().contains("few:train + more:train"),
        "{provenance}"
    );

    let before = lab.tree("student");
    let done = lab.ok(&line);
    assert!(done.out.contains("$T/student is finished; --fresh starts over\n"), "{}", done.out);
    assert!(!done.err.contains("rows scored once"), "the table wasn't used: {}", done.err);
    assert!(lab.tree("student") == before);
    lab.ok(&format!("distil {student} --dry-run --output $T/student"));
    let other =
        lab.run(&format!("distil {student} --teacher $T/alone --output $T/student")).expect(2);
    assert!(other.error().contains("holds a run with another "), "{}", other.error());

    lab.ok(&format!(
        "distil {student} --lambda 0.8 --temperature 2 --emit-soft-labels $T/soft.jsonl"
    ));
    let soft = lab.lines("soft.jsonl");
    assert_eq!((soft.len(), &soft[0]["id"]), (24, &json!("r300")));
    let sum: f64 = LABELS.iter().map(|label| soft[0]["target"][*label].as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-6, "{}", soft[0]);
    assert!(soft[0]["target"][LABELS[0]].as_f64().unwrap() > 0.2, "{}", soft[0]);
    let refused =
        lab.run(&format!("distil {student} --method anchor --emit-soft-labels $T/x")).expect(2);
    assert!(refused.error().starts_with("--emit-soft-labels writes "), "{}", refused.error());
}

#[test]
fn each_method_has_its_verb() {
    let lab = Lab::new();
    lab.write("old.jsonl", rows(0, 60, false, true));
    let run = format!("$T/old.jsonl --model tiny {TRAIN} --max-steps 2");
    let said = |line: &str| lab.run(&format!("{line} --output $T/r")).expect(2).error().to_string();
    assert_eq!(
        said(&format!("finetune {run} --method distil")),
        "method distil follows a teacher, and finetune has none; use lowchurn distil --teacher DIR, or lowchurn update \
         --base DIR to follow a deployed model"
    );
    for (method, what) in [
        ("ewc", "the weights of a deployed model"),
        ("mixout", "the weights of a deployed model"),
        ("l2-old", "the weights of a deployed model"),
        ("shrink-perturb", "the weights of a deployed model"),
        ("distil:rows=old", "to know which rows a deployed model has seen"),
        ("distil:lambda=churn<=0.02", "held-out rows to measure churn on"),
    ] {
        let name = method.split(':').next().unwrap();
        for verb in ["finetune", "distil --teacher tiny"] {
            let text = said(&format!("{verb} {run} --method {method}"));
            let verb = verb.split(' ').next().unwrap();
            // A shell would read from a file there.
            let quote = if method.contains('<') { "'" } else { "" };
            let expected = format!(
                "method {name} needs {what}, and {verb} has none; use lowchurn update --base DIR --method {quote}{name}"
            );
            assert!(text.starts_with(&expected), "{text}");
        }
    }
    assert_eq!(
        said(&format!("distil --teacher tiny {run} --method retrain")),
        "method retrain doesn't follow a teacher; use lowchurn finetune, or one of distil, anchor, anchor-rcp, focal, \
         inhibition, knn-smoothing"
    );
    let bare = lab.run(&format!("distil --teacher tiny {run} --output $T/r")).expect(3);
    assert!(
        bare.error().starts_with("tiny has no classification head; train it first"),
        "{}",
        bare.error()
    );
    assert!(!lab.path("r").exists());
    // Two students need no teacher.
    lab.ok(&format!("finetune {run} --method co-distil:beta=0.5 --output $T/two"));
    assert!(lab.text("two/run.toml").contains("method = \"co-distil:beta=0.5,warmup=0\"\n"));
}
