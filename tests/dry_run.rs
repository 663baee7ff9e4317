//! `--dry-run`: what it says is what would be done, and what stops the run stops it too.

#[path = "util/deployed.rs"]
mod deployed;
mod util;

use std::fs;

use deployed::*;
use util::{Lab, SMALL};

/// The run and its rehearsal end in the same words.
#[track_caller]
fn refused(lab: &Lab, line: &str, code: i32, expected: &str) {
    for flags in ["--dry-run", ""] {
        let done = lab.run(&format!("{line} {flags}")).expect(code);
        assert!(done.error().contains(expected), "{line} {flags}: {}", done.error());
    }
}

#[test]
fn a_finetuning_that_would_be_refused_is() {
    let lab = Lab::new();
    let line = format!("{SMALL} --output $T/run");
    refused(
        &lab,
        &format!("{line} --class-weights refund=2"),
        2,
        "class weights: \"refund\" isn't a label",
    );
    refused(&lab, &format!("{line} --select-by pearson"), 2, "pearson");
    assert!(!lab.path("run").exists());
    let base = lab.copy("models/tiny", "base");
    halve(&base.join("model.safetensors"));
    let broken = line.replace("--model tiny", "--model $T/base");
    refused(&lab, &broken, 3, "base/model.safetensors: not a sound safetensors file");
    fs::remove_file(base.join("model.safetensors")).unwrap();
    refused(&lab, &broken, 3, "base: no weights here: looked for model.safetensors");
    lab.ok(&format!("{broken} --from-scratch --dry-run"));
}

/// What a run would find out when it has read its rows and its teacher, and before it has made a folder.
#[test]
fn what_a_training_would_refuse_is_refused_without_it() {
    let lab = Lab::new();
    lab.ok(&format!("{SMALL} --output $T/old"));
    lab.ok("student tiny --layers 1 --output $T/shallow");
    let line = format!("{SMALL} --output $T/run");
    refused(
        &lab,
        &format!("{line} --objective robust --group-by airline"),
        3,
        "no group-by column \"airline\"",
    );
    refused(
        &lab,
        &format!("{} --objective robust", line.replace("train[40:60]", "none")),
        2,
        "objective robust finds its worst class on the rows of the evaluation, and there is none; give an --eval-split",
    );
    refused(
        &lab,
        &format!("{line} --switch-at 5 --switch-to labels"),
        2,
        "--switch-at 5, or --lambda 1..0@5, says how much a teacher weighs, and method retrain has no λ; ",
    );
    let distil = line
        .replace("finetune", "distil")
        .replace("--model", "--teacher $T/old --tables $T/tables --student");
    refused(
        &lab,
        &format!("{distil} --lambda 0.9*1.2@2"),
        2,
        "λ 0.9*1.2@2 is 1.080000 in update 3 of 6, expected a number from 0 to 1",
    );
    refused(
        &lab,
        &format!("{distil} --lambda 0 --variance-reduction unbiased"),
        2,
        "variance reduction unbiased takes λ times the gradient at the teacher's weights off, and λ is 0: ",
    );
    refused(
        &lab,
        &format!(
            "{} --variance-reduction unbiased",
            distil.replace("--student tiny", "--student $T/shallow")
        ),
        3,
        "variance reduction unbiased takes the gradient of the teacher's weights, so the teacher must be of the student's architecture, \
         sizes and classes: the student has no bert.encoder.layer.1.",
    );
    // Two students of one start, refused by the training itself.
    let twins = line.replace("--model tiny", "--model $T/old");
    let done = lab.run(&format!("{twins} --method co-distil --dropout 0")).expect(3);
    assert!(
        done.error().starts_with("co-distil: both students start from the same weights"),
        "{}",
        done.err
    );
    assert!(!lab.path("run").exists());
}

#[test]
fn what_can_not_take_effect_is_said_before_and_after() {
    let lab = Lab::new();
    lab.ok(&format!("{SMALL} --output $T/old"));
    let check = |line: &str, expected: &str| {
        for flags in ["--dry-run", ""] {
            let done = lab.ok(&format!("{line} {flags}"));
            assert!(done.err.contains(expected), "{line} {flags}: {}", done.err);
        }
    };
    let line = format!("{SMALL} --output $T/run");
    let never = "takes its first snapshot before epoch 2, counted from 0, and the run has 2: nothing is taken off; ";
    check(&format!("{line} --variance-reduction svrg"), never);
    let distil = line
        .replace("finetune", "distil")
        .replace("--model", "--teacher $T/old --tables $T/tables --student");
    check(
        &format!("{distil} --switch-at 500 --switch-to labels --fresh"),
        "λ 1..0@500 doesn't switch in 6 updates: it is 1 in all of them; ",
    );
    check(
        &format!(
            "{} --variance-reduction modified --fresh",
            distil.replace("--student tiny", "--student $T/old")
        ),
        "variance reduction modified: its theory is of plain SGD at a constant rate, and this run has AdamW, a linear schedule, clipped \
         gradients; ",
    );
    let plain = lab.ok(&format!("{SMALL} --output $T/plain --dry-run"));
    assert_eq!(plain.err, "");
}

#[test]
fn all_generations_are_rehearsed() {
    let lab = Lab::new();
    lab.ok(&format!("{SMALL} --output $T/old"));
    let line = SMALL.replace("finetune", "distil").replace("--model", "--teacher $T/old --student");
    let done = lab.ok(&format!("{line} --generations 3 --output $T/born --dry-run"));
    for said in [
        "generation 1 of 3: $T/old\n",
        "generation 3 of 3: $T/born/generation-2\noutput: $T/born/generation-3\n",
    ] {
        assert!(done.out.contains(said), "{said}: {}", done.out);
    }
    assert!(!lab.path("born").exists());
}

fn halve(path: &std::path::Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

#[test]
fn an_update_says_every_setting_and_opens_what_it_needs() {
    let lab = deployed();
    let line = format!("{UPDATE} --new $T/new.jsonl --holdout $T/held.jsonl --seed 7");
    let before = lab.tree("");
    let done = lab.ok(&format!("{line} --lambda 0.3,0.5 --dry-run"));
    assert!(lab.tree("") == before, "a dry run wrote something");
    let plans: Vec<&str> = done.out.lines().filter(|line| line.starts_with("plan: ")).collect();
    for (part, origin) in [
        ("learning_rate 0.001", "($T/shop/run.toml)"),
        ("max_steps 6", "(typed)"),
        ("seed 7", "(typed)"),
    ] {
        let lines: Vec<_> = plans.iter().filter(|line| line.ends_with(origin)).collect();
        let [line] = lines[..] else { panic!("{origin}: {plans:?}") };
        assert!(line.contains(part), "{part}: {line}");
    }
    let would: Vec<&str> = done.out.lines().filter(|line| line.starts_with("would")).collect();
    assert_eq!(would.len(), 2, "{would:?}");
    assert_eq!(
        would[0],
        "would train distil:lambda=0.3,temperature=1,divergence=kl,rows=all (warm) for 6 updates on 120 rows into $T/shop-v2"
    );
    // The run says the same of its settings.
    let run = lab.ok(&format!("{line} --lambda 0.3"));
    plans.iter().for_each(|plan| says(&run, plan));

    let line = format!("{line} --output $T/other");
    refused(
        &lab,
        &format!("{line} --model tiny"),
        2,
        "--model tiny is the encoder of a cold start",
    );
    refused(
        &lab,
        &format!("{line} --from-scratch"),
        2,
        "--from-scratch is the encoder of a cold start",
    );
    refused(
        &lab,
        &format!("{line} --select-by f1"),
        2,
        "--select-by: held-out rows choose nothing while an update trains",
    );
    refused(
        &lab,
        &format!("{line} --problem-type regression"),
        2,
        "--problem-type is for finetune; an update's rows are --old, --new and --holdout, held-out rows choose nothing while it \
         trains, and the kind of task is the base's",
    );
    halve(&lab.path("shop/model.safetensors"));
    refused(&lab, &line, 3, "shop/model.safetensors: not a sound safetensors file");
}

#[test]
fn a_sweep_lists_its_trainings() {
    let lab = deployed();
    let line = "sweep --base $T/shop --tables $T/tables --new $T/new.jsonl --holdout $T/held.jsonl --max-steps 2 --method retrain \
                --method distil --lambda 0.2,0.8 --init warm --interpolate none --output $T/sweep";
    let before = lab.tree("");
    let done = lab.ok(&format!("{line} --seeds 2 --dry-run"));
    assert!(lab.tree("") == before && !lab.path("sweep").exists(), "a dry run wrote something");
    let would: Vec<&str> = done.out.lines().filter(|line| line.starts_with("would")).collect();
    assert_eq!(would.len(), 6, "{would:?}");
    assert_eq!(
        would[1],
        "would train distil warm λ 0.2, seed 42 for 2 updates on 120 rows into $T/sweep/points/distil-warm-l-0.2/seed-42"
    );
    says(&done, "trainings: 6");
    let from_run = |line: &&str| line.ends_with("($T/shop/run.toml)");
    assert!(done.out.lines().find(from_run).unwrap().contains("learning_rate 0.001"));
    let sharded = lab.ok(&format!("{line} --seeds 2 --shard 1/3 --dry-run"));
    says(&sharded, "trainings: 2");

    lab.ok(line);
    says(
        &lab.ok(&format!("{line} --seeds 2 --dry-run")),
        "trainings: 3; 3 points are there already",
    );
    refused(
        &lab,
        &line.replace("--max-steps 2", "--max-steps 3"),
        2,
        "holds a point of other data, models or settings",
    );
    refused(
        &lab,
        &format!("{line} --model tiny"),
        2,
        "--model tiny is the encoder of a cold start",
    );
    halve(&lab.path("shop/model.safetensors"));
    let broken = line.replace("$T/sweep", "$T/other");
    refused(&lab, &broken, 3, "shop/model.safetensors: not a sound safetensors file");
}
