//! An update that is interrupted, killed while it is written, or asked for in the folder of another.

#[path = "util/deployed.rs"]
mod deployed;
mod util;

use std::fs;
use std::path::Path;

use deployed::*;
use util::Lab;

/// Two updates that were started at once are given one name: the second one must not write what it was asked for over the first's.
#[test]
fn a_folder_in_which_another_update_is_at_work_is_left_alone() {
    let lab = deployed();
    let line = "update --base $T/shop --tables $T/tables --max-steps 2 --interpolate none --new $T/new.jsonl --holdout $T/held.jsonl \
                --output $T/next";
    fs::create_dir(lab.path("next")).unwrap();
    let held = fs::File::create(lab.path("next/.lock")).unwrap();
    held.lock().unwrap();
    let refused = lab.run(line).expect(2);
    assert_eq!(refused.error(), "$T/next: another run is at work in this folder");
    assert_eq!(lab.names("next"), [".lock"]);
    held.unlock().unwrap();
    lab.ok(line);
}

/// SIGINT while the table is made and while it trains: the same command ends in the bytes of a straight run.
#[test]
fn interrupted_and_gone_on_with() {
    let many = rows(1000..4000, with(old_label));
    let line = "update --base $T/shop --tables $T/tables --max-steps 60 --save-steps 5 --interpolate 0.5 --batch-size 8 \
                --new $T/many.jsonl --holdout $T/held.jsonl --max-churn 90%";
    let straight = deployed();
    straight.write("many.jsonl", &many);
    straight.ok(line);
    let weights = straight.read("shop-v2/model.safetensors");

    let lab = deployed();
    lab.write("many.jsonl", &many);
    // The held-out rows' table comes first, then that of the training rows.
    let mut running = lab.start(line);
    let tables = lab.path("tables");
    let is_begun = || {
        let names = fs::read_dir(&tables).into_iter().flatten().flatten();
        let names: Vec<String> =
            names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.len() > 1 && names.iter().any(|name| !name.ends_with(".safetensors"))
    };
    while !is_begun() && running.until_not(&lab.path("shop-v2/candidates")) {}
    running.signal("INT");
    let done = running.wait().expect(130);
    assert!(done.err.contains("go on with the same command: "), "{}", done.err);
    assert!(!lab.path("shop-v2/model.safetensors").exists());

    let mut running = lab.start(line);
    let candidates = lab.path("shop-v2/candidates");
    let is_saved = |root: &Path| {
        let runs = fs::read_dir(root).into_iter().flatten().flatten();
        runs.flat_map(|run| fs::read_dir(run.path()))
            .flatten()
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("checkpoint-"))
    };
    while !is_saved(&candidates) && running.until_not(&lab.path("shop-v2/model.safetensors")) {}
    running.signal("INT");
    let done = running.wait().expect(130);
    assert!(done.err.contains("stopped after update "), "{}", done.err);

    lab.ok(line);
    assert!(lab.read("shop-v2/model.safetensors") == weights, "other bytes than without a stop");
    let (a, b) = (report(&lab, "shop-v2"), report(&straight, "shop-v2"));
    assert_eq!(a["certificate"], b["certificate"]);
}

/// SIGKILL while the update is written, candidates finished: the same command writes it whole.
#[test]
fn killed_while_the_update_is_written() {
    let straight = deployed();
    let line = format!("{UPDATE} --new $T/new.jsonl --holdout $T/held.jsonl");
    straight.ok(&line);
    for at in ["shop-v2/run.toml", "shop-v2/.release.partial", "shop-v2/manifest.json"] {
        let lab = deployed();
        let mut running = lab.start(&line);
        if running.until(&lab.path(at)) {
            running.kill();
        }
        running.wait();
        // That may have come too late to leave anything, so half of a release is left by hand too.
        lab.write("shop-v2/.release.partial/config.json", "{}");
        let _ = fs::remove_file(lab.path("shop-v2/report.json"));
        lab.ok(&line);
        for name in ["model.safetensors", "config.json", "eval_results.json"] {
            let name = format!("shop-v2/{name}");
            assert!(lab.read(&name) == straight.read(&name), "{at}: {name}");
        }
        assert!(!lab.path("shop-v2/.release.partial").exists());
        let flips = |lab: &Lab| report(lab, "shop-v2")["comparison"].clone();
        assert_eq!(flips(&lab), flips(&straight), "{at}");
    }
}

/// The result of another update in the output folder is not written over, and its candidates are not taken for this one's.
#[test]
fn another_update_in_the_same_folder() {
    let lab = deployed();
    let named = format!("{UPDATE} --new $T/new.jsonl --holdout $T/held.jsonl --method retrain");
    lab.ok(&named);
    let before = lab.tree("shop-v2");
    let line = format!("{named} --output $T/shop-v2");
    let end = "; choose another output folder, or --fresh to start over here";
    for (flags, what) in [
        ("--seed 7", "seed: 42, now 7"),
        ("--init cold", "start: warm, now cold"),
        ("--old none", "training data: "),
        ("--old-holdout $T/old.jsonl --old none --new $T/old.jsonl", "training data: "),
        ("--lambda 0.5", ""),
    ] {
        let done = lab.run(&format!("{line} {flags}")).expect(2);
        if !what.is_empty() {
            let start = format!("$T/shop-v2 holds a run with another {what}");
            assert!(done.error().starts_with(&start), "{}", done.error());
            assert!(done.error().ends_with(end), "{}", done.error());
        }
        assert!(lab.tree("shop-v2") == before, "{flags}: something was changed");
    }
    let done = lab.run(&format!("{line} --max-churn 30%")).expect(2);
    assert_eq!(
        done.error(),
        "$T/shop-v2 holds an update with another budget: none, now max-churn 0.3, confidence 0.95; --choose-again chooses among its \
         trained models, --fresh trains them anew, or choose another --output"
    );
    assert!(lab.tree("shop-v2") == before);
    let done = lab.ok(&line);
    says(&done, "$T/shop-v2 is finished; --fresh starts over");
    assert!(lab.tree("shop-v2") == before);
    // Without a name it goes where nothing lies.
    lab.ok(&format!("{named} --seed 7"));
    assert!(lab.path("shop-v3/model.safetensors").is_file());
    assert!(lab.tree("shop-v2") == before);
    lab.ok(&format!("{line} --seed 7 --fresh"));
    assert!(
        lab.read("shop-v2/model.safetensors") != before[&lab.path("shop-v2/model.safetensors")]
    );
    // The run that made the base is no update's result.
    lab.write("shop-old/run.toml", lab.read("shop/run.toml"));
    let done = lab.run(&format!("{named} --output $T/shop-old")).expect(2);
    assert_eq!(
        done.error(),
        "$T/shop-old holds a run that isn't this update's; choose another --output, or --fresh to start over here"
    );
}

/// Another budget for the same trainings: nothing is trained twice, and the certificate says what these rows answered before.
#[test]
fn a_budget_that_is_moved_chooses_again() {
    let lab = deployed();
    let line = UPDATE.replace("--interpolate none", "--interpolate 0.5");
    let line = format!("{line} --new $T/new.jsonl --holdout $T/held.jsonl --method retrain");
    lab.run(&format!("{line} --max-churn 5%"));
    let first = report(&lab, "shop-v2")["certificate"].clone();
    let trained = lab.tree("shop-v2/candidates");
    let again = format!("{line} --max-churn 90% --choose-again");
    let done = lab.ok(&again);
    assert!(lab.tree("shop-v2/candidates") == trained, "trained again");
    assert!(!lab.path("shop-v3").exists());
    // Killed before the report of the new choice was there: the old one isn't told for it.
    let whole = report(&lab, "shop-v2");
    fs::remove_file(lab.path("shop-v2/report.json")).unwrap();
    lab.ok(&again.replace(" --choose-again", " --output $T/shop-v2"));
    assert_eq!(report(&lab, "shop-v2")["certificate"], whole["certificate"]);
    let moved = report(&lab, "shop-v2")["certificate"].clone();
    assert_eq!(moved["verdict"], "PASS", "{first} {moved}");
    let note = "these rows have answered before, to max-churn 0.05, confidence 0.95; whoever moves a limit until it is met errs more \
                often than the confidence says";
    assert!(moved["notes"].as_array().unwrap().iter().any(|found| found == note), "{moved}");
    says(&done, &format!("  note: {note}"));
    // It is the folder's update now, and a choice of before needs the same word.
    says(
        &lab.ok(&again.replace(" --choose-again", " --output $T/shop-v2")),
        "$T/shop-v2 is finished; --fresh starts over",
    );
    lab.run(&format!("{line} --max-churn 5% --output $T/shop-v2")).expect(2);
    // One that was never asked says the same of these models, but for the note.
    lab.ok(&format!("{line} --max-churn 90% --output $T/straight"));
    assert!(lab.read("straight/model.safetensors") == lab.read("shop-v2/model.safetensors"));
    assert_eq!(report(&lab, "straight")["certificate"]["checks"], moved["checks"]);
    // Another training is another run.
    let done = lab.run(&format!("{again} --seed 7 --output $T/shop-v2")).expect(2);
    assert!(
        done.error().starts_with("$T/shop-v2 holds a run with another seed"),
        "{}",
        done.error()
    );
}
