//! Objectives from outside, on a small problem with a long tail.

#[path = "util/long_tail.rs"]
mod long_tail;
mod util;

use long_tail::*;
use serde_json::Value;

#[test]
fn a_robust_run_keeps_its_objective_and_its_worst_class() {
    let lab = lab();
    let plain = train(&lab, "standard", "");
    assert!(
        !plain.out.contains("worst") && !plain.err.contains("worst"),
        "{}{}",
        plain.out,
        plain.err
    );
    let flags =
        "--objective robust:every=4,step=0.5 --worst-class-weight 0.75 --select-by worst_class";
    let done = train(&lab, "robust", flags);
    let steers = "objective robust: 120 of 120 held-out rows steer, fewest of delivery: 40";
    assert!(done.out.contains(steers), "{}", done.out);
    assert!(done.err.contains("worst off on held-out rows is "), "{}", done.err);
    // The number that it selects by stands in each line, and all weights in the log.
    let scores = &lab.json("robust/eval_results.json")["scores"];
    let selected = format!("worst class {:.2}%", 100.0 * scores["worst_class"].as_f64().unwrap());
    assert!(done.out.contains(&format!("{selected} (update ")), "{selected}: {}", done.out);
    assert!(done.err.contains(&format!("{selected}  best so far")), "{selected}: {}", done.err);
    let looks: Vec<Value> = lab
        .lines("robust/metrics.jsonl")
        .into_iter()
        .filter(|line| line.get("weights").is_some())
        .collect();
    let steps: Vec<u64> = looks.iter().map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [4, 8, 12, 16, 20]);
    for look in &looks {
        let of = |key: &str| -> Vec<(String, f64)> {
            let all = look[key].as_object().unwrap().iter();
            all.map(|(name, value)| (name.clone(), value.as_f64().unwrap())).collect()
        };
        let names: Vec<String> = of("weights").into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["delivery", "payment", "returns"]);
        assert_eq!(of("losses").len(), 3);
        assert!((of("weights").iter().map(|(_, weight)| weight).sum::<f64>() - 1.0).abs() < 1e-9);
    }
    let (standard, robust) = (worst(&lab, "standard", "test"), worst(&lab, "robust", "test"));
    assert!(robust > standard + 0.1, "{standard} {robust}");
    let line = "robust:weight=0.75,base=balanced,form=margin,step=0.5,every=4,labels=one-hot,loss=zero-one,rows=1000";
    let plan = lab.text("robust/run.toml");
    assert!(plan.contains(&format!("objective = \"{line}\"")), "{plan}");
    assert!(!plan.contains("worst_class_weight"), "{plan}");
    let manifest = lab.json("robust/manifest.json");
    assert_eq!(manifest["provenance"]["plan"]["objective"], line);
    assert!(manifest["provenance"]["buffer"][1].as_str().unwrap().len() == 64);
    let state = lab.json("robust/trainer_state.json");
    assert_eq!(state["lowchurn"]["log_weights"].as_array().unwrap().len(), 3);
    // The resolved plan is the same run; another objective is another.
    let again = lab.ok("finetune --plan $T/robust/run.toml --output $T/robust");
    assert!(
        again.err.contains("is finished") || again.out.contains("is finished"),
        "{}",
        again.out
    );
    let plain = TRAIN.replace("--tables $T/tables", "");
    let other =
        lab.run(&format!("finetune $T/data {plain} --output $T/robust --objective balanced"));
    assert_eq!(other.code, Some(2), "{}", other.err);
    assert!(other.err.contains("holds a run with another objective"), "{}", other.err);
    // A plain run says nothing of objectives.
    assert!(!lab.text("standard/run.toml").contains("objective"));
    // What the worst class is stands in its results all the same.
    assert!(lab.json("standard/eval_results.json")["scores"]["worst_class"].is_number());
    let said = lab.ok("eval --model $T/robust --data $T/data --split test").out;
    assert!(said.contains("worst class: "), "{said}");
}

/// The student of a standard teacher, steered by the teacher's labels; and one by groups of rows.
#[test]
fn students_have_objectives_too() {
    let lab = lab();
    train(&lab, "teacher", "");
    let distil = |output: &str, flags: &str| {
        lab.ok(&format!("distil $T/data {TRAIN} --teacher $T/teacher --output $T/{output} {flags}"))
    };
    distil("plain", "--lambda 0.5");
    distil("robust", "--lambda 0.5 --objective robust:every=4,step=1");
    let (plain, robust) = (worst(&lab, "plain", "test"), worst(&lab, "robust", "test"));
    assert!(robust > plain + 0.1, "{plain} {robust}");
    let done = distil("steered", "--objective robust:every=4,labels=teacher,loss=cross-entropy");
    assert!(done.out.contains("120 of 120 held-out rows steer"), "{}", done.out);
    let done = distil("grouped", "--objective robust:every=4 --group-by shop");
    assert!(
        done.err.contains("worst off on held-out rows is north")
            || done.err.contains("worst off on held-out rows is south"),
        "{}",
        done.err
    );
    assert!(done.out.contains("  worst group "), "{}", done.out);
    let groups = &lab.json("grouped/eval_results.json")["scores"]["groups"];
    assert!(groups["north"].is_number() && groups["south"].is_number(), "{groups}");
    distil("margins", "--objective ada-margin");
}

/// Rows without a value are a group that has a name, and rows of a group that isn't trained on are told by its name.
#[test]
fn rows_without_a_group_are_counted_and_named() {
    let lab = lab();
    let without = |name: &str, from: &str, to: &str| {
        lab.write(name, lab.text(name).replacen(from, to, 20));
    };
    without("data/train.jsonl", ",\"shop\":\"north\"", "");
    without("data/validation.jsonl", ",\"shop\":\"south\"", "");
    lab.write(
        "data/validation.jsonl",
        lab.text("data/validation.jsonl").replacen("north", "west", 7),
    );
    let done = train(
        &lab,
        "grouped",
        "--objective robust:every=8 --group-by shop --select-by worst_class",
    );
    let expected = "group-by shop: 20 of 216 rows to train on and 20 of 120 held-out rows have no value; they are a group too, \
                    (none)";
    assert!(done.err.contains(expected), "{}", done.err);
    let expected =
        "7 held-out rows are of groups that no row to train on is of (west); they don't steer";
    assert!(done.err.contains(expected), "{}", done.err);
    assert!(
        done.out.contains("113 of 120 held-out rows steer, fewest of (none): 20"),
        "{}",
        done.out
    );
    let groups = lab.json("grouped/eval_results.json")["scores"]["groups"].clone();
    let names: Vec<&String> = groups.as_object().unwrap().keys().collect();
    assert_eq!(names, ["(none)", "north", "south"]);
    let worst = groups.as_object().unwrap().values().map(|share| share.as_f64().unwrap());
    let worst = format!("{:.2}% (update ", 100.0 * worst.fold(1.0, f64::min));
    assert!(done.out.contains(&worst), "{worst}: {}", done.out);
}

#[test]
fn what_hardly_steers_is_said() {
    let lab = lab();
    let done = train(&lab, "few", "--objective robust:rows=6,every=30");
    let few = "of so few rows each moves the loss of delivery by 50 points, so weights follow chance; hold out more of them, or let \
               more steer (rows=)";
    assert!(
        done.out.contains("6 of 120 held-out rows steer, fewest of delivery: 2"),
        "{}",
        done.out
    );
    assert!(done.err.contains(few), "{}", done.err);
    let never = "objective robust looks at held-out rows every 30 updates, and the run has 24: its weights stay even, as of \
                 objective balanced; take a lower every=, or more updates";
    assert!(done.err.contains(never), "{}", done.err);
    let plain = TRAIN.replace("--tables $T/tables", "");
    let rehearsed = lab.ok(&format!(
        "finetune $T/data {plain} --output $T/other --objective robust:rows=6,every=30 --dry-run"
    ));
    assert!(rehearsed.err.contains(never) && rehearsed.err.contains(few), "{}", rehearsed.err);
    assert!(!lab.path("other").exists());
}

#[test]
fn an_update_may_be_robust_and_keep_a_budget() {
    let lab = lab();
    train(&lab, "base", "");
    let update = "update --base $T/base --new $T/new.jsonl --holdout $T/hold.jsonl --tables $T/tables --max-steps 30 \
                  --learning-rate 1e-4 --lambda 0.5 --objective robust:every=5 --interpolate none";
    let done = lab.run(&format!("{update} --max-churn 60% --max-class-nfr 60% --output $T/next"));
    assert_eq!(done.code, Some(0), "{} {}", done.out, done.err);
    let report = lab.json("next/report.json");
    let checks: Vec<&str> = report["certificate"]["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| check["name"].as_str().unwrap())
        .collect();
    let classes = ["delivery", "payment", "returns"].map(|name| format!("nfr of class = {name}"));
    assert_eq!(checks[0], "churn");
    assert!(classes.iter().all(|name| checks.contains(&name.as_str())), "{checks:?}");
    let provenance = report["provenance"].to_string();
    assert!(provenance.contains("calibration rows of "), "{provenance}");
    assert!(report["comparison"]["worst_classes"]["nfr"][1].is_number());
    // The choice among candidates may go by the worst class too.
    let line = update.replace("--interpolate none", "--interpolate 0,0.5 --select-by worst_class");
    let done = lab.run(&format!("{line} --max-churn 60% --output $T/even"));
    assert_eq!(done.code, Some(0), "{} {}", done.out, done.err);
    let note = "of the models that pass, the one is chosen whose worst class is most often right on calibration rows";
    assert!(done.out.contains(note), "{}", done.out);
    let done = lab.run(&line.replace("worst_class", "loss")).expect(2);
    let said = "--select-by: held-out rows choose nothing while an update trains; among its candidates it chooses by accuracy or \
                worst_class";
    assert_eq!(done.error(), said);
    // Without a budget the report is still on rows that steered nothing.
    lab.ok(&format!("{update} --output $T/free"));
    let free = lab.json("free/report.json");
    assert_eq!(free["rows"], report["rows"]);
    assert!(free["rows"].as_u64().unwrap() < 330, "{}", free["rows"]);
    // Groups are told apart in the report, and the next update asks for them too.
    let done = lab.ok(&format!("{update} --group-by shop --output $T/grouped"));
    assert!(done.out.contains(", objective robust: on all 330 held-out rows: "), "{}", done.out);
    let slices = lab.json("grouped/report.json")["comparison"]["slices"].to_string();
    assert!(slices.contains("north") && slices.contains("south"), "{slices}");
    lab.write("later.jsonl", rows(5000, [60, 30, 4]));
    lab.ok("update --base $T/grouped --new $T/later.jsonl --holdout $T/hold.jsonl --tables $T/tables --max-steps 5 --output $T/later");
    assert!(lab.text("later/run.toml").contains("group-by=shop"), "{}", lab.text("later/run.toml"));
    let late = update.replace("robust:every=5", "robust:every=30");
    for flags in ["--dry-run", ""] {
        let done = lab.ok(&format!("{late} --output $T/late {flags}"));
        let never =
            "objective robust looks at held-out rows every 30 updates, and the run has 30: ";
        assert!(done.err.contains(never), "{flags}: {}", done.err);
    }
}

#[test]
fn what_makes_no_sense_is_said() {
    let lab = lab();
    lab.write("narrow/train.jsonl", rows(0, [30, 30, 10]));
    lab.write("narrow/validation.jsonl", rows(1000, [9, 9, 0]));
    let check = |line: &str, code: i32, message: &str| {
        let done = lab.run(&line.replace("TRAIN", &TRAIN.replace("--tables $T/tables", "")));
        assert_eq!(done.code, Some(code), "{line}: {}", done.err);
        assert!(done.err.contains(message), "{line}: {}", done.err);
    };
    check(
        "finetune $T/data TRAIN --output $T/x --objective robust --eval-split none",
        2,
        "objective robust finds its worst class on the rows of the evaluation, and there is none; give an --eval-split",
    );
    check(
        "finetune $T/data TRAIN --output $T/x --worst-class-weight 0.5",
        2,
        "worst-class-weight and group-by say something of an objective, and none is set; take --objective robust",
    );
    check(
        "finetune $T/data TRAIN --output $T/x --objective robust:labels=teacher",
        2,
        "objective robust labels=teacher follows a teacher, and method retrain has none; take distil",
    );
    check(
        "finetune $T/data TRAIN --output $T/x --objective balanced --class-weights balanced",
        2,
        "objective balanced weighs the classes itself, and class weights are given too; leave one of them out",
    );
    check(
        "finetune $T/narrow TRAIN --output $T/x --objective robust",
        3,
        "objective robust: no held-out row has the label \"payment\", so this class can't be measured; hold out rows of it",
    );
    check(
        "finetune $T/data TRAIN --output $T/x --objective robust --group-by shp",
        3,
        "data/train.jsonl: no group-by column \"shp\" (columns: id, text, label, shop); did you mean \"shop\"?",
    );
    check(
        "finetune $T/data TRAIN --output $T/x --objective robust --group-by id",
        2,
        "group-by id: 216 groups for 216 rows to train on; name a column whose values are shared by many rows",
    );
    check(
        "finetune $T/data TRAIN --output $T/x --objective balanced --worst-class-weight 50%",
        2,
        "--worst-class-weight 0.5 is for objective robust, and the objective is balanced; leave it out, or take --objective robust",
    );
    train(&lab, "model", "");
    lab.write("more.jsonl", "{\"id\": \"m1\", \"text\": \"where is it\"}\n");
    check(
        "distil $T/data TRAIN --teacher $T/model --unlabelled $T/more.jsonl --objective robust --group-by shop --output $T/x",
        2,
        "row m1 isn't of the data that has the column; leave --unlabelled out",
    );
    check(
        "update --base $T/model --new $T/new.jsonl --holdout $T/hold.jsonl --max-class-nfr 2% --output $T/x",
        2,
        "max class nfr 2% with confidence 0.95 can't be certified on any class: it takes 149 labelled rows",
    );
    assert!(!lab.path("x").exists());
}
