//! Which rows an update reads, by which columns, and what the next update reads again.

mod util;

use util::{Done, Lab};

const KINDS: [&str; 3] = ["account", "delivery", "payment"];

fn text(n: usize) -> String {
    format!("{} the {} number {n}", ["please", "hello", "today"][n / 3 % 3], KINDS[n % 3])
}

fn csv(head: &str, which: impl Iterator<Item = usize>, row: impl Fn(usize) -> String) -> String {
    let rows: String = which.map(|n| row(n) + "\n").collect();
    format!("{head}\n{rows}")
}

fn plain(which: impl Iterator<Item = usize>) -> String {
    csv("text,label", which, |n| format!("{},{}", text(n), KINDS[n % 3]))
}

/// `base` has seen 48 of 60 rows with columns of its own; new rows are called otherwise.
fn lab() -> Lab {
    let lab = Lab::new();
    let old = csv("idx,words,kind", 0..60, |n| format!("{n},{},{}", text(n), KINDS[n % 3]));
    lab.write("old.csv", old);
    lab.write("new.csv", plain(60..90));
    lab.write("held.csv", csv("text", 200..260, text));
    lab.ok(
        "finetune $T/old.csv --text-column words --label-column kind --id-column idx --eval-fraction 0.2 --model tiny \
         --batch-size 8 --max-length 16 --max-steps 2 --output $T/base",
    );
    lab
}

const UPDATE: &str = "update --tables $T/tables --max-steps 1 --method retrain --interpolate none";

#[track_caller]
fn says(done: &Done, line: &str) {
    let all = format!("{}{}", done.out, done.err);
    assert!(all.lines().any(|said| said == line), "{line:?} is not a line of\n{all}");
}

#[test]
fn every_source_is_read_by_its_own_columns() {
    let lab = lab();
    let done = lab.ok(&format!("{UPDATE} --base $T/base --new $T/new.csv --holdout $T/held.csv"));
    says(&done, "rows: 48 old, 30 new, 0 unlabelled; 60 held out");
    let run = lab.text("base-v2/run.toml");
    assert!(run.contains("text_column = \"words\"") && run.contains("[[new]]"), "{run}");

    lab.write("others.csv", plain(300..330));
    lab.ok("repair $T/base $T/base-v2 --fisher=4 --holdout $T/others.csv --alpha 0:1:0.5 --output $T/repaired");

    // Typed columns are of what is typed, and the next update needs none of them again.
    lab.write(
        "newer.csv",
        csv("no,body,topic", 90..120, |n| format!("{n},{},{}", text(n), KINDS[n % 3])),
    );
    lab.write("held-body.csv", csv("no,body", 200..260, |n| format!("{n},{}", text(n))));
    lab.write("columns.toml", "text_column = \"body\"\nid_column = \"no\"\n");
    let done = lab.ok(&format!(
        "{UPDATE} --base $T/base-v2 --new $T/newer.csv --label-column topic --plan $T/columns.toml \
         --holdout $T/held-body.csv"
    ));
    says(&done, "rows: 78 old, 30 new, 0 unlabelled; 60 held out");
    says(&done, "held-body:train: no label in column \"topic\"; measured without");
    lab.write("newest.csv", plain(120..150));
    let done =
        lab.ok(&format!("{UPDATE} --base $T/base-v3 --new $T/newest.csv --holdout $T/held.csv"));
    says(&done, "rows: 108 old, 30 new, 0 unlabelled; 60 held out");
}

#[test]
fn what_an_update_held_out_is_not_seen() {
    let lab = lab();
    lab.write("more.csv", plain(90..150));
    // A fifth of each, by class, not of the last alone.
    let line = format!("{UPDATE} --base $T/base --new $T/new.csv --new $T/more.csv");
    let done = lab.ok(&line);
    says(&done, "rows: 48 old, 72 new, 0 unlabelled; 18 held out");
    lab.write("newest.csv", plain(150..180));
    let line = format!("{UPDATE} --base $T/base-v2 --new $T/newest.csv");
    let done = lab.ok(&format!("{line} --holdout $T/held.csv"));
    says(&done, "20 % of new:train: 6 rows, held out then, are new rows now");
    says(&done, "rows: 120 old, 48 new, 0 unlabelled; 60 held out");
    // Some of them are to measure again: they stay out of training, here and later.
    let done = lab.ok(&format!("{line} --holdout $T/new.csv --output $T/again"));
    says(&done, "rows: 120 old, 42 new, 0 unlabelled; 6 held out");
    says(&done, "24 of 30 held-out rows have a text that is trained on too; they are left out");
    lab.write("last.csv", plain(300..330));
    let line = format!("{UPDATE} --new $T/last.csv --holdout $T/held.csv");
    says(
        &lab.ok(&format!("{line} --base $T/base-v3")),
        "rows: 168 old, 30 new, 0 unlabelled; 60 held out",
    );
    says(
        &lab.ok(&format!("{line} --base $T/again")),
        "rows: 162 old, 36 new, 0 unlabelled; 60 held out",
    );
}

/// The old weights know rows that they are no longer trained on: those measure nothing, here or later.
#[test]
fn what_the_old_weights_have_seen_is_not_forgotten() {
    let lab = lab();
    lab.write("mixed.csv", plain((0..60).chain(200..260)));
    let line = format!("{UPDATE} --base $T/base --new $T/new.csv --holdout $T/mixed.csv");
    // The cut of the first run is left out too: it chose the checkpoint.
    let expected =
        "60 of 120 held-out rows have a text that is or was trained on; they are left out";
    let done = lab.ok(&format!("{line} --old none"));
    says(&done, expected);
    says(&done, "rows: 0 old, 30 new, 0 unlabelled; 60 held out");
    says(&lab.ok(&format!("{line} --old $T/new.csv --output $T/other")), expected);
    lab.ok(&format!("{line} --old none --init cold --output $T/cold"));
    lab.ok("finetune $T/new.csv --model $T/base --eval-split none --max-steps 1 --output $T/tuned");
    let compared = |old: &str, new: &str| {
        let files = "--data $T/mixed.csv --nearest 0 --output $T/c";
        let done = lab.ok(&format!("compare $T/{old} $T/{new} {files}"));
        let said = done.err.lines().filter(|line| line.contains("was trained on"));
        said.map(str::to_string).collect::<Vec<_>>()
    };
    let of = |n, model| {
        format!("{n} of 120 rows have a text that $T/{model} was trained on; they are left out")
    };
    for model in ["base-v2", "other", "tuned"] {
        assert_eq!(compared("base", model), [of(60, model)]);
    }
    // New weights have seen none of them, but the old ones have, and their own cut not.
    assert_eq!(compared("base", "cold"), [of(48, "base")]);
    // An update later it is still known.
    lab.write("newer.csv", plain(90..120));
    let line = format!("{UPDATE} --new $T/newer.csv --holdout $T/held.csv --old none");
    lab.ok(&format!("{line} --base $T/base-v2"));
    assert_eq!(compared("base-v2", "base-v3"), [of(60, "base-v3")]);

    std::fs::remove_file(lab.path("old.csv")).unwrap();
    let done = lab.ok(&format!("{line} --base $T/base --output $T/blind"));
    let said = "$T/base: rows that it was trained on can't be read, so whether these are among them isn't known";
    assert!(done.err.contains(said), "{}", done.err);
    let report = lab.json("blind/report.json");
    assert!(report["alignment"].to_string().contains("isn't known"), "{report}");
}

#[test]
fn rows_that_changed_since_are_refused() {
    let lab = lab();
    lab.ok(&format!("{UPDATE} --base $T/base --new $T/new.csv --holdout $T/held.csv"));
    let (old, new) = (lab.text("old.csv"), lab.text("new.csv"));
    lab.write("newer.csv", plain(90..120));
    let line = format!("{UPDATE} --new $T/newer.csv --holdout $T/held.csv --output $T/next");
    let refused = |base: &str, rows: &str| {
        let done = lab.run(&format!("{line} --base $T/{base}")).expect(3);
        let (error, model) = (done.error(), format!("not the rows that $T/{base} was trained on"));
        let way = "the rows that the base was trained on; --old DATA names others, --old none leaves them out";
        assert!(error.starts_with(&format!("{way}: {rows}: {model} (sha256 ")), "{error}");
        assert!(error.ends_with("; put those back"), "{error}");
        assert!(!lab.path("next").exists());
    };
    lab.write("old.csv", old.replace("number 7,", "number seven,"));
    refused("base", "old:train without its 20 % cut");
    refused("base-v2", "old:train");
    lab.write("old.csv", &old);
    lab.write("new.csv", format!("{new}one more row,payment\n"));
    refused("base-v2", "new:train");
    lab.ok(&format!("{line} --base $T/base-v2 --old none"));
}

#[test]
fn held_out_rows_that_are_trained_on_are_left_out() {
    let lab = lab();
    lab.write("mixed.csv", plain((60..70).chain(200..220)));
    let line = format!("{UPDATE} --base $T/base --new $T/new.csv");
    let done = lab.ok(&format!("{line} --holdout $T/mixed.csv"));
    says(&done, "10 of 30 held-out rows have a text that is trained on too; they are left out");
    says(&done, "rows: 48 old, 30 new, 0 unlabelled; 20 held out");
    let report = lab.json("base-v2/report.json");
    assert_eq!(report["comparison"]["all"]["flips"]["rows"], 20);
    let done = lab.run(&format!("{line} --holdout $T/new.csv --output $T/x")).expect(2);
    assert!(done.error().starts_with(
        "30 of 30 held-out rows have a text that is trained on too, so nothing can be measured on them"
    ));
}

/// The rows of the first run are cut as it did, though its head has another order of the classes than its data.
#[test]
fn the_cut_of_the_first_run_does_not_depend_on_the_order_of_the_head() {
    let lab = Lab::new();
    let names = ["warranty", "product", "account", "payment", "returns", "delivery"];
    lab.write("first.csv", csv("text,label", 0..60, |n| format!("{},{}", text(n), names[n % 6])));
    let small = "--batch-size 8 --max-length 16 --max-steps 1";
    lab.ok(&format!(
        "finetune $T/first.csv --model tiny --eval-split none {small} --output $T/first"
    ));
    let done = lab.ok(&format!(
        "finetune tickets --model $T/first --train-split train[:100] {small} --output $T/base"
    ));
    assert!(done.out.contains("label order of $T/first kept"), "{}", done.out);
    let line = format!(
        "{UPDATE} --base $T/base --new tickets:train[100:120] --holdout tickets:later[:40]"
    );
    // That these are the rows is held against the hash in the manifest.
    says(&lab.ok(&line), "rows: 80 old, 20 new, 0 unlabelled; 40 held out");
}

#[test]
fn the_label_map_of_earlier_rows_is_kept() {
    let lab = lab();
    lab.write("shipping.csv", plain(60..90).replace(",delivery", ",shipping"));
    let line = format!("{UPDATE} --holdout $T/held.csv");
    lab.ok(&format!("{line} --base $T/base --new $T/shipping.csv --label-map shipping=delivery"));
    lab.write("newer.csv", plain(90..120));
    let done = lab.ok(&format!("{line} --base $T/base-v2 --new $T/newer.csv"));
    says(&done, "rows: 78 old, 30 new, 0 unlabelled; 60 held out");
}

#[test]
fn a_plan_file_sets_what_flags_set() {
    let lab = lab();
    lab.write("plan.toml", "method = \"anchor\"\nlambda = \"0.3\"\nmax_steps = 1\n");
    let line = "update --base $T/base --new $T/new.csv --holdout $T/held.csv --tables $T/tables --interpolate none";
    lab.ok(&format!("{line} --plan $T/plan.toml"));
    assert!(lab.text("base-v2/run.toml").contains("method = \"anchor:lambda=0.3"));
    // A method that is typed brings its own λ.
    lab.ok(&format!("{line} --plan $T/plan.toml --method retrain --output $T/retrained"));
    assert!(lab.text("retrained/run.toml").contains("method = \"retrain\""));
    for (key, text) in [("train_split", "\"train\""), ("patience", "2"), ("data", "\"x.csv\"")] {
        lab.write("foreign.toml", format!("{key} = {text}\n"));
        let done = lab.run(&format!("{line} --plan $T/foreign.toml")).expect(2);
        let expected =
            format!("$T/foreign.toml: {key} is for finetune; an update's rows are --old");
        assert!(done.error().starts_with(&expected), "{}", done.error());
        let sweep = line.replace("update", "sweep");
        lab.run(&format!("{sweep} --plan $T/foreign.toml --output $T/sweep")).expect(2);
    }
    let done = lab.run("update --new $T/new.csv").expect(2);
    assert_eq!(done.error(), "which model is deployed? Name it with --base DIR|ID");
}

#[test]
fn a_sweep_merges_without_a_base() {
    let lab = Lab::new();
    let done = lab.run("sweep --merge $T/one $T/two").expect(2);
    assert_eq!(done.error(), "--merge: where to? Name a folder with --output DIR");
    let done = lab.run("sweep --merge $T/one $T/two --output $T/all").expect(2);
    assert_eq!(done.error(), "no point is there to put together");
}

#[test]
fn numbers_for_labels_are_said() {
    let lab = lab();
    let numbers = csv("text,label", 60..90, |n| format!("{},{}", text(n), n % 3));
    lab.write("numbers.csv", numbers);
    let done = lab.ok(&format!(
        "{UPDATE} --base $T/base --new $T/numbers.csv --holdout $T/held.csv --dry-run"
    ));
    says(
        &done,
        "labels: numbers:train: its labels are numbers, taken as places among the model's classes (0 is account, 1 is delivery, 2 is payment); \
         --label-map says otherwise",
    );
}

#[test]
fn what_of_a_folder_is_not_read_is_said() {
    let lab = lab();
    let eval = |data: &str| lab.ok(&format!("eval --model $T/base --data {data}"));
    lab.write("formats/one.csv", plain(60..90));
    lab.write("formats/two.tsv", plain(90..110).replace(',', "\t"));
    says(
        &eval("$T/formats"),
        "$T/formats: a data set is read in one format; not read: two.tsv; name files to read others",
    );
    lab.write("splits/train.csv", plain(60..90));
    let unlabelled = csv("text,label", 200..210, |n| format!("{},", text(n)));
    let unlabelled = unlabelled.strip_prefix("text,label\n").unwrap();
    lab.write("splits/validation.csv", plain(90..110) + unlabelled);
    let done = eval("$T/splits");
    says(&done, "splits: split validation of train, validation; --split names another");
    assert!(done.out.contains(", 20 rows (10 without a label left out), "), "{}", done.out);
    lab.write("numbers.csv", csv("text,label", 60..90, |n| format!("{},{}", text(n), n % 3)));
    let said = "labels: numbers:train: its labels are numbers, taken as places among the model's classes (0 is account, 1 is delivery, 2 is \
                payment); --label-map says otherwise";
    says(&eval("$T/numbers.csv"), said);
    says(&lab.ok("compare $T/base $T/base --data $T/numbers.csv"), said);
}

/// As of a task, and the next update reads the same rows again.
#[test]
fn a_file_may_be_read_in_part() {
    let lab = lab();
    let rows = "--new $T/new.csv:train[:20] --holdout $T/held.csv:train[10:]";
    let done = lab.ok(&format!("{UPDATE} --base $T/base {rows} --output $T/second"));
    says(&done, "rows: 48 old, 20 new, 0 unlabelled; 50 held out");
    let done = lab.ok(&format!(
        "{UPDATE} --base $T/second --new $T/new.csv:train[20:] --holdout $T/held.csv --output $T/third"
    ));
    says(&done, "rows: 68 old, 10 new, 0 unlabelled; 60 held out");
    let done = lab.ok("eval --model $T/third --data $T/new.csv:train[25:]");
    assert!(done.out.contains(", 5 rows, "), "{}", done.out);
    let done = lab.run("eval --model $T/third --data $T/new.csv:test").expect(2);
    let error = done.error();
    assert!(error.contains("\"test\"") && error.contains("train"), "{error}");
}
