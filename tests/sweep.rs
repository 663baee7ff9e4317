//! What a sweep leaves beside its points: its report by slices and kinds of rows, and what it refuses.

mod util;

use std::fs;

use serde_json::json;
use util::Lab;

const KINDS: [&str; 3] = ["account", "delivery", "payment"];

fn rows(which: std::ops::Range<usize>) -> String {
    let row = |n: usize| {
        let text = format!("{} the {} number {n}", ["please", "hello"][n / 3 % 2], KINDS[n % 3]);
        let (label, shop) = (KINDS[n % 3], ["north", "south"][n % 2]);
        format!(
            "{}\n",
            json!({ "id": format!("r{n}"), "text": text, "label": label, "shop": shop })
        )
    };
    which.map(row).collect()
}

fn lab() -> Lab {
    let lab = Lab::new();
    for (name, which) in
        [("old", 0..60), ("new", 60..90), ("held", 200..300), ("held-old", 300..380)]
    {
        lab.write(&format!("{name}.jsonl"), rows(which));
    }
    lab.ok(
        "finetune $T/old.jsonl --eval-split none --model tiny --batch-size 8 --max-length 16 --max-steps 6 --output $T/base",
    );
    lab
}

const SWEEP: &str = "sweep --base $T/base --tables $T/tables --new $T/new.jsonl --holdout $T/held.jsonl --max-steps 2 \
                     --method retrain --method distil --init warm --interpolate none --seeds 2 --output $T/sweep";

#[test]
fn a_sweeps_report_has_slices_and_both_kinds_of_rows() {
    let lab = lab();
    let line = format!("{SWEEP} --old-holdout $T/held-old.jsonl");
    lab.ok(&line);
    let report = || lab.json("sweep/report.json");
    let shops = |report: &serde_json::Value| {
        let slices = report["comparison"]["slices"].as_array().unwrap().clone();
        let names = slices.iter().map(|slice| slice["name"].as_str().unwrap().to_string());
        names.filter(|name| name.starts_with("shop = ")).count()
    };
    assert_eq!(shops(&report()), 0);
    let n = |part: &str| report()["comparison"][part]["flips"]["rows"].as_u64();
    assert_eq!((n("old_rows"), n("new_rows")), (Some(80), Some(100)));
    assert!(report()["rows_chose"].is_string());

    // Nothing is trained for them: what the report says of rows is kept anew.
    let done = lab.ok(&format!("{line} --slice shop"));
    assert!(!done.err.contains("step 2/2"), "{}", done.err);
    assert_eq!(shops(&report()), 2);

    // What was measured is held against the retrain, seed by seed, and has an interval.
    let frontier = lab.json("sweep/frontier.json");
    let found = &frontier["differences"][0];
    assert_eq!(
        (&found["method"], &found["baseline"]["method"]),
        (&json!("distil"), &json!("retrain"))
    );
    assert_eq!(found["seeds"], json!([42, 43]));
    let intervals = frontier["churn_over_rows_and_seeds"].as_array().unwrap();
    assert_eq!(intervals.len(), frontier["points"].as_array().unwrap().len());
    for (interval, point) in intervals.iter().zip(frontier["points"].as_array().unwrap()) {
        let [value, mean] = [&interval["churn"]["value"], &point["churn"]["value"]];
        let apart = value.as_f64().unwrap() - mean.as_f64().unwrap();
        assert!(apart.abs() < 1e-12, "{interval} {point}");
    }
    let table = lab.text("sweep/frontier.md");
    assert!(
        table.contains("\nLess retrain warm, in points, over the seeds that both have:\n"),
        "{table}"
    );
    assert!(table.contains("Certify none of them on these rows"), "{table}");
}

#[test]
fn what_a_sweep_refuses() {
    let lab = lab();
    let line = format!("{SWEEP} --seeds 1").replace(" --seeds 2", "");
    let refused = lab.run(&format!("{line} --select-by worst_class")).expect(2);
    assert_eq!(
        refused.error(),
        "--select-by chooses among an update's candidates, and a sweep shows all of its points; leave it out"
    );
    let refused = lab.run(&format!("{line} --drop-dominated --shard 1/2")).expect(2);
    assert_eq!(
        refused.error(),
        "--drop-dominated with --shard: a shard doesn't see the points that dominate; leave one of them out"
    );
    assert!(!lab.path("sweep").exists());

    // Another encoder under the same name is another cold start; a point of before hashes were kept stays.
    lab.ok(
        "finetune $T/old.jsonl --eval-split none --model tiny --max-steps 1 --output $T/encoder",
    );
    let cold = format!("{line} --model $T/encoder").replace("--init warm", "--init cold");
    lab.ok(&cold);
    let point = "sweep/points/retrain-cold/seed-42/point.json";
    let mut made = lab.json(point);
    assert!(made["made_from"]["encoder_sha256"].is_string());
    lab.ok("finetune $T/old.jsonl --eval-split none --model tiny --max-steps 2 --output $T/encoder --fresh");
    let refused = lab.run(&cold).expect(2);
    let said =
        "holds a point of other data, models or settings; choose another --output or remove it";
    assert!(refused.error().ends_with(said), "{}", refused.error());
    made["made_from"].as_object_mut().unwrap().remove("encoder_sha256").unwrap();
    lab.write(point, made.to_string());
    fs::remove_dir_all(lab.path("sweep/points/distil-cold-l-0.5")).unwrap();
    lab.ok(&cold);
}
