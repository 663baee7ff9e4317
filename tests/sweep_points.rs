//! A sweep goes on point by point: after a stop, in shards, over several seeds and bases, for every method.

#[path = "util/deployed.rs"]
mod deployed;
mod util;

use std::collections::BTreeMap;
use std::fs;

use deployed::*;
use serde_json::{Value, json};
use util::Lab;

/// Two methods, two seeds, one table.
const SWEEP: &str = "sweep --base $T/shop --tables $T/tables --new $T/changed.jsonl --holdout $T/held-changed.jsonl \
                     --max-steps 12 --learning-rate 1e-3 --method retrain --method distil --lambda 0.5,0.9 --init warm";

fn points(lab: &Lab, sweep: &str) -> Vec<Value> {
    lab.json(&format!("{sweep}/frontier.json"))["points"].as_array().unwrap().clone()
}

#[test]
fn a_sweep_goes_on_point_by_point() {
    let lab = deployed();
    let line = format!("{SWEEP} --interpolate 0.5 --seeds 2 --output $T/sweep");
    let done = lab.ok(&line);
    assert_eq!(done.err.matches("rows scored once").count(), 2, "{}", done.err);
    let frontier = lab.read("sweep/frontier.json");
    let all = points(&lab, "sweep");
    let name = |p: &Value| {
        let part = |key: &str| p[key].as_str().unwrap().to_string();
        format!("{} {} {}", part("method"), part("init"), part("setting")).trim().to_string()
    };
    let mut names: Vec<String> = all.iter().map(name).collect();
    names.sort();
    assert_eq!(
        names,
        ["distil warm λ 0.5", "distil warm λ 0.9", "interpolate warm α 0.5", "retrain warm"]
    );
    for point in &all {
        assert_eq!(point["seeds"], json!([42, 43]));
        for axis in ["accuracy", "churn", "nfr"] {
            let mean = point[axis]["value"].as_f64().unwrap();
            assert!((0.0..=1.0).contains(&mean), "{point}");
            assert!(point[axis]["standard_error"].as_f64().unwrap() >= 0.0, "{point}");
        }
    }
    assert!(all.iter().any(|point| point["is_on_frontier"] == true));
    let value = |wanted: &str, axis: &str| {
        all.iter().find(|p| name(p) == wanted).unwrap()[axis]["value"].as_f64().unwrap()
    };
    assert!(value("interpolate warm α 0.5", "churn") <= value("retrain warm", "churn"));
    // A point is what its predictions say.
    let point = lab.json("sweep/points/retrain-warm/seed-42/point.json");
    let rows = lab.lines("sweep/points/retrain-warm/seed-42/predictions.jsonl");
    let right = rows.iter().filter(|row| row["label"] == row["gold"]).count();
    assert_eq!(point["point"]["accuracy"], right as f64 / 200.0);
    assert!(!lab.path("sweep/points/retrain-warm/seed-42/model").exists());

    let before = lab.tree("sweep");
    let done = lab.ok(&line);
    assert!(!done.err.contains("step 12/12"), "a second run trained: {}", done.err);
    assert_eq!(lab.read("sweep/frontier.json"), frontier);
    assert!(lab.tree("sweep") == before);
    // One point gone is one point computed.
    fs::remove_dir_all(lab.path("sweep/points/distil-warm-l-0.9/seed-43")).unwrap();
    let done = lab.ok(&line);
    assert_eq!(done.err.matches("step 12/12").count(), 1, "{}", done.err);
    assert_eq!(lab.read("sweep/frontier.json"), frontier);

    // Points of other data, of another teacher, of other settings.
    let other =
        "holds a point of other data, models or settings; choose another --output or remove it";
    for (changed, what) in [
        (line.replace("$T/changed.jsonl", "$T/new.jsonl"), "training"),
        (line.replace("held-changed", "held"), "held-out"),
    ] {
        let done = lab.run(&changed).expect(2);
        let said = format!(" and this sweep have other {what} rows (");
        assert!(done.error().contains(&said), "{}", done.error());
    }
    let done = lab.run(&format!("{line} --batch-size 4")).expect(2);
    assert!(done.error().ends_with(other), "{}", done.error());
    lab.ok(&format!("{UPDATE} --new $T/new.jsonl --holdout $T/held.jsonl"));
    let done = lab.run(&format!("{line} --teacher $T/shop-v2")).expect(2);
    assert!(done.error().contains("distil-warm-l-0.5"), "{}", done.error());
    assert!(done.error().ends_with(other), "{}", done.error());
    assert_eq!(lab.read("sweep/frontier.json"), frontier);
}

#[test]
fn a_sweep_that_is_stopped_goes_on() {
    let line = format!("{SWEEP} --interpolate 0.5 --save-steps 2 --output $T/sweep");
    let straight = deployed();
    straight.ok(&line);
    let lab = deployed();
    for (at, signal) in [
        ("sweep/points/retrain-warm/seed-42/model/checkpoint-4", "INT"),
        ("sweep/points/distil-warm-l-0.5/seed-42/model/checkpoint-6", "KILL"),
        ("sweep/points/distil-warm-l-0.9/seed-42/predictions.jsonl", "KILL"),
    ] {
        let mut running = lab.start(&line);
        if running.until(&lab.path(at)) {
            running.signal(signal);
            let done = running.wait();
            // A kill may come when everything is written.
            let expected = if signal == "INT" { [Some(130); 2] } else { [None, Some(0)] };
            assert!(expected.contains(&done.code), "{}", done.err);
        }
    }
    lab.ok(&line);
    assert_eq!(lab.json("sweep/frontier.json"), straight.json("sweep/frontier.json"));
}

#[test]
fn shards_merge_to_the_whole() {
    let lab = deployed();
    let line = format!("{SWEEP} --interpolate none --seeds 1");
    lab.ok(&format!("{line} --output $T/whole"));
    for shard in [1, 2] {
        let done = lab.ok(&format!("{line} --shard {shard}/2 --output $T/part-{shard}"));
        assert!(done.out.contains("put shards together with --merge"), "{}", done.out);
        assert!(!lab.path(&format!("part-{shard}/frontier.json")).exists());
    }
    lab.ok(&format!("{line} --merge $T/part-1 $T/part-2 --output $T/merged"));
    assert_eq!(lab.json("merged/frontier.json"), lab.json("whole/frontier.json"));
    assert_eq!(points(&lab, "merged").len(), 3);
    for (shard, said) in [("0/2", "0/2"), ("3/2", "3/2"), ("x", "x")] {
        let done = lab.run(&format!("{line} --shard {shard} --output $T/bad")).expect(2);
        let expected = format!("--shard {said}: expected I/N with I from 1 to N, such as 1/3");
        assert_eq!(done.error(), expected);
    }
    // The same point with another result in two folders.
    let path = "part-2/points/distil-warm-l-0.5/seed-42/point.json";
    let mut point = lab.json(path);
    point["flips"]["changed"] = json!(1);
    lab.write("part-1/points/distil-warm-l-0.5/seed-42/point.json", lab.read(path));
    lab.write(path, point.to_string());
    let done = lab.run(&format!("{line} --merge $T/part-1 $T/part-2 --output $T/merged")).expect(2);
    assert!(done.error().contains("are the same point with other results"), "{}", done.error());
    let done = lab.run(&format!("{line} --merge $T/nowhere --output $T/empty")).expect(2);
    assert_eq!(done.error(), "no point is there to put together");
}

/// A setting that the first seed shows to be clearly worse in both is left out for the others, a retrain never.
#[test]
fn dominated_settings_are_dropped() {
    let lab = deployed();
    // Label smoothing of nearly all of the target learns nothing from a cold start.
    let line = "sweep --base $T/shop --tables $T/tables --new $T/new.jsonl --holdout $T/held.jsonl --max-steps 12 \
                --learning-rate 1e-3 --method retrain --smoothing 0.99 --init warm,cold --interpolate none --seeds 2 \
                --drop-dominated --output $T/sweep";
    let done = lab.ok(line);
    assert!(
        done.err.contains("label-smoothing-cold-a-0.99: dominated after the first seed, left out"),
        "{}",
        done.err
    );
    for (name, seeds) in
        [("retrain-warm", 2), ("retrain-cold", 2), ("label-smoothing-cold-a-0.99", 1)]
    {
        assert_eq!(lab.names(&format!("sweep/points/{name}")).len(), seeds, "{name}");
    }
}

/// Each method from the deployed weights and from the encoder: a point each, and no two are the same model. The learning rate is
/// such that three updates change predictions: a λ that follows a churn budget stays 0 until they do.
#[test]
fn every_method_from_either_start() {
    let lab = deployed();
    let methods = [
        "retrain",
        "distil",
        "distil:rows=old",
        "distil:lambda=churn<=0.02@1",
        "anchor",
        "anchor-rcp",
        "focal",
        "inhibition",
        "mixup",
        "bi-tempered",
        "confidence-penalty",
        "entropy-minimisation",
        "co-distil",
        "l2-old:strength=1",
        "ewc:rows=8,strength=100",
        "mixout",
        "knn-smoothing",
    ];
    let flags: String = methods.iter().map(|method| format!(" --method {method}")).collect();
    lab.ok(&format!(
        "sweep --base $T/shop --tables $T/tables --new $T/changed.jsonl --holdout $T/held.jsonl --max-steps 3 \
         --learning-rate 5e-3 --interpolate none --init cold,warm --output $T/sweep --method shrink-perturb{flags}"
    ));
    let all = points(&lab, "sweep");
    assert_eq!(all.len(), 2 * methods.len() + 1, "shrink-perturb has a start of its own");
    let mut seen = BTreeMap::new();
    for setting in lab.names("sweep/points") {
        let rows = lab.text(&format!("sweep/points/{setting}seed-42/predictions.jsonl"));
        if let Some(other) = seen.insert(rows, setting.clone()) {
            panic!("{setting} and {other} predict the same to the last digit");
        }
    }
    let table = lab.text("sweep/frontier.md");
    let said = "look better still: distil cold λ churn<=0.02~5@1; distil warm λ churn<=0.02~5@1.";
    assert!(table.contains(said), "{table}");
    // Fisher information is made once; the points of both starts share it.
    assert_eq!(lab.names("tables").iter().filter(|name| name.starts_with("fisher-")).count(), 1);
}

/// Three seeds are one ensemble of three and one of two; the mean of the members' probabilities is what it says. It trains nothing,
/// and is there once.
#[test]
fn ensembles_are_the_mean_of_retrains() {
    let lab = deployed();
    let line = "sweep --base $T/shop --tables $T/tables --new $T/changed.jsonl --holdout $T/held.jsonl --max-steps 6 \
                --learning-rate 1e-3 --method retrain --init cold --interpolate none --seeds 3 --ensemble-of 2,3 --output $T/sweep";
    lab.ok(line);
    assert_eq!(
        lab.names("sweep/points"),
        ["ensemble-cold-2/", "ensemble-cold-3/", "retrain-cold/"]
    );
    let lines = |name: &str| lab.lines(&format!("sweep/points/{name}/predictions.jsonl"));
    let members: Vec<Vec<Value>> =
        (42..45).map(|seed| lines(&format!("retrain-cold/seed-{seed}"))).collect();
    let mut n_changed = 0;
    for (size, point) in [(2, "ensemble-cold-2/seed-42"), (3, "ensemble-cold-3/seed-42")] {
        let found = lines(point);
        assert_eq!(found.len(), members[0].len());
        for (at, row) in found.iter().enumerate() {
            let scores = row["scores"].as_object().unwrap();
            for (class, score) in scores {
                let of = |member: &Vec<Value>| member[at]["scores"][class].as_f64().unwrap();
                let mean = members[..size].iter().map(of).sum::<f64>() / size as f64;
                assert!((score.as_f64().unwrap() - mean).abs() < 1e-5, "{row}");
            }
            let highest = scores.values().map(|score| score.as_f64().unwrap()).fold(0.0, f64::max);
            assert_eq!(scores[row["label"].as_str().unwrap()].as_f64(), Some(highest), "{row}");
            n_changed += usize::from(row["label"] != members[0][at]["label"]);
        }
    }
    assert!(n_changed > 0, "the ensembles say what their first members say");
    let done = lab.ok(line);
    assert!(
        !done.err.contains("step 6/6") && !done.out.contains("ensemble cold of 2 seed"),
        "{}",
        done.out
    );

    let check = |flags: &str, expected: &str| {
        let line = line.replace("--seeds 3 --ensemble-of 2,3", flags);
        assert_eq!(lab.run(&line).expect(2).error(), format!("--ensemble-of 3: {expected}"));
    };
    check("--ensemble-of 3", "so many retrains need as many seeds, found --seeds 1");
    check(
        "--seeds 3 --ensemble-of 3 --shard 1/2",
        "with --shard its retrains are in several folders; leave one of them out",
    );
    let line = line.replace("--ensemble-of 2,3", "--ensemble-of 3");
    let done = lab.run(&line.replace("--method retrain", "--method distil")).expect(2);
    assert_eq!(
        done.error(),
        "--ensemble-of 3: of retrains, and none is asked for; add --method retrain"
    );
    let done = lab.run(&line.replace("$T/shop", "$T/shop-{seed}")).expect(2);
    assert_eq!(
        done.error(),
        "--ensemble-of 3: each seed has a deployed model of its own, and an ensemble is held against one; name one --base"
    );
}

#[test]
fn each_seed_may_have_its_own_base() {
    let lab = deployed();
    for seed in [42, 43] {
        lab.ok(&format!(
            "update --base $T/shop --tables $T/tables --max-steps 2 --interpolate none --new $T/new.jsonl \
             --holdout $T/held.jsonl --seed {seed} --output $T/bases/seed-{seed}"
        ));
    }
    lab.ok(
        "sweep --base $T/bases/seed-{seed} --tables $T/tables --new $T/changed.jsonl --holdout $T/held-changed.jsonl \
         --max-steps 2 --method retrain --init warm --interpolate none --seeds 2 --output $T/sweep",
    );
    let old = |seed: u64| {
        let path = format!("sweep/points/retrain-warm/seed-{seed}/point.json");
        lab.json(&path)["made_from"]["old_sha256"].clone()
    };
    assert!(old(42).is_string() && old(42) != old(43));
}

#[test]
fn a_sweep_needs_labels_to_measure() {
    let lab = deployed();
    lab.write("held-changed.jsonl", rows(200..260, |_| None));
    let done = lab.run(&format!("{SWEEP} --interpolate none --output $T/sweep")).expect(2);
    assert!(
        done.error().ends_with("no row has a label; a sweep's axes are churn and accuracy"),
        "{}",
        done.error()
    );
    assert!(!done.err.contains("step 12/12"), "it was trained before that was said: {}", done.err);
}
