//! Which releases `publish` lets out, and what they bring along: the gate, rounded weights, their history, their teacher's table and an
//! ONNX file. Skipped, and said so, where `../shared/hub` isn't.

#[path = "../crates/hub/tests/local_hub/mod.rs"]
mod local_hub;
mod publishing;
mod util;

use publishing::*;
use serde_json::Value;
use util::SMALL;

#[test]
fn the_gate_decides_and_force_is_written_down() {
    let Some(server) = start(&[]) else { return };
    let lab = lab_of(&server, TOKEN);
    finetuned(&lab);
    let rows = "--new tickets:later[:40] --holdout tickets:later[1000:1200] --max-steps 30 --learning-rate 1e-2 \
                --interpolate none --method retrain --tables $T/tables";
    lab.ok(&format!("update --base $T/run {rows} --output $T/next"));
    let done = lab.run("publish $T/next --to me/next").expect(2);
    assert!(done.error().contains(
        "its report has no verdict, for no limit was set; set one now, such as --max-churn 2%"
    ));
    // FAIL is 10 and INCONCLUSIVE 11, as at the gate.
    let done = lab.run("publish $T/next --to me/next --max-churn 2%").expect(10);
    assert!(
        done.out.contains("refused: the gate didn't pass; --force publishes it all the same"),
        "{}",
        done.out
    );
    let churn =
        lab.json("next/report.json")["comparison"]["all"]["churn"]["value"].as_f64().unwrap();
    let near = format!("publish $T/next --to me/next --max-churn {}", churn + 0.001);
    lab.run(&near).expect(11);
    assert!(sent_names(&server, "me/next").is_empty() && !lab.path("next/release").exists());
    let forced = lab.ok("publish $T/next --to me/next --max-churn 2% --force");
    assert!(forced.out.contains("published all the same, as --force says"), "{}", forced.out);
    let card = sent_text(&server, "me/next", "README.md");
    assert!(
        card.contains(
            "**The gate did not pass; this release was published all the same, by `--force`.**"
        ),
        "{card}"
    );
    let manifest: Value =
        serde_json::from_str(&sent_text(&server, "me/next", "manifest.json")).unwrap();
    assert_eq!(manifest["release"]["gate"], "FAIL");
    assert_eq!(manifest["release"]["is_forced"], true);
    // An update is scored by its report alone.
    let results: Value =
        serde_json::from_str(&sent_text(&server, "me/next", "eval_results.json")).unwrap();
    let report = lab.json("next/report.json");
    assert_eq!(results["report"]["rows"], report["data"]);
    for (n, name) in ["accuracy_new", "churn", "nfr"].into_iter().enumerate() {
        let measured = &results["report"]["metrics"][n];
        let all = &report["comparison"]["all"][name];
        assert_eq!(measured["value"], all["value"], "{measured}");
        assert_eq!(measured["args"]["high"], all["interval"]["high"], "{measured}");
    }
    lab.ok("publish $T/next --to me/next --force");
    assert!(
        sent_text(&server, "me/next", "README.md")
            .contains("published without a gate, by `--force`")
    );
    lab.ok("publish $T/next --to me/next --max-churn 99%");
    assert!(!sent_text(&server, "me/next", "README.md").contains("--force"));

    // Without its report nobody knows how close to the old one it is.
    let report = lab.read("next/report.json");
    std::fs::remove_file(lab.path("next/report.json")).unwrap();
    let done = lab.run("publish $T/next --to me/next").expect(2);
    let said =
        "it was made from $T/run, and there is no report.json that says how close to it it is";
    assert!(done.error().contains(said), "{}", done.err);
    let done = lab.ok("publish $T/next --to me/next --force --dry-run");
    assert!(done.out.contains("gate: no limit was set; published all the same"), "{}", done.out);
    lab.write("next/report.json", report);

    // A report of another model is none.
    lab.ok("compare $T/next $T/run --data tickets:later[:60] --output $T/cmp");
    let done = lab
        .run("publish $T/next --to me/next --report $T/cmp/report.json --max-churn 99%")
        .expect(3);
    assert!(done.error().contains("it is of another model: $T/run"), "{}", done.err);
}

#[test]
fn rounded_weights_are_measured_and_gated() {
    let Some(server) = start(&[]) else { return };
    let lab = lab_of(&server, TOKEN);
    finetuned(&lab);
    for (dtype, name, header_name) in [("f16", "float16", "F16"), ("bf16", "bfloat16", "BF16")] {
        let done = lab.ok(&format!(
            "--json publish $T/run --to me/{dtype} --dtype {dtype} --max-cast-churn 100%"
        ));
        let cast = done.json().last().unwrap()["cast"].clone();
        // The run's own evaluation rows, train[40:60].
        assert_eq!((cast["of"].as_u64(), cast["dtype"].as_str()), (Some(20), Some(name)));
        assert!(cast["largest_difference"].as_f64().unwrap() > 0.0, "{cast}");
        let (header, _) = header(&lab.read("run/release/model.safetensors"));
        assert_eq!(header["classifier.weight"]["dtype"], header_name);
        assert_eq!(lab.json("run/release/config.json")["dtype"], name);
        as_its_servers_want(&lab, "run/release");
        assert!(
            sent_text(&server, &format!("me/{dtype}"), "README.md")
                .contains(&format!("## Stored as {name}"))
        );
        lab.ok(&format!("eval --model me/{dtype} --data tickets:later[:20]"));
    }
    // On rows enough bf16 changes some of what this barely trained model says; the limit is what was observed, less a hair.
    let line = "publish $T/run --to me/more --dtype bf16 --data tickets:later";
    let done = lab.ok(&format!("--json {line} --max-cast-churn 100% --dry-run"));
    let cast = done.json().last().unwrap()["cast"].clone();
    let (changed, of) = (cast["changed"].as_f64().unwrap(), cast["of"].as_f64().unwrap());
    assert!(changed > 0.0, "{cast}");
    lab.ok(&format!("{line} --max-cast-churn {}", changed / of));
    let refused = lab.run(&format!("{line} --max-cast-churn {}", (changed - 0.5) / of)).expect(10);
    assert!(
        refused.out.contains("refused: publish as f32, or allow more with --max-cast-churn"),
        "{}",
        refused.out
    );
    // Without rows there is nothing to measure on.
    lab.ok(&format!(
        "{} --output $T/blind",
        SMALL.replace("--eval-split train[40:60]", "--eval-split none")
    ));
    let done = lab.run("publish $T/blind --to me/blind --dtype f16").expect(2);
    assert!(
        done.error()
            .contains("names no evaluation rows; name some with --data, labels aren't needed"),
        "{}",
        done.err
    );
    lab.ok("publish $T/blind --to me/blind");
}

/// The commit stands in the update's manifest, so a name that has moved on still leads back.
#[test]
fn a_published_release_knows_those_before_it() {
    let Some(server) = start(&[]) else { return };
    let lab = lab_of(&server, TOKEN);
    finetuned(&lab);
    lab.ok("publish $T/run --to me/first");
    lab.ok(
        "update --base me/first --new tickets:later[:40] --holdout tickets:later[1000:1100] --max-steps 4 --interpolate none \
         --tables $T/tables --output $T/next",
    );
    let old = lab.json("next/manifest.json")["provenance"]["old"][0].clone();
    let pinned = old.as_str().unwrap();
    let commit = pinned.strip_prefix("me/first@").unwrap();
    assert_eq!(commit.len(), 40, "{pinned}");
    lab.ok("publish $T/next --to me/next --force");
    let history = "history me/next --data tickets:later[:60] --output $T/history";
    let elsewhere = lab_of(&server, TOKEN);
    let done = elsewhere.ok(history);
    assert!(done.out.starts_with(&format!("1 {pinned}: right ")), "{}", done.out);
    assert!(done.out.contains("\n2 me/next: right "), "{}", done.out);

    // The local server keeps a repository's last commit alone; whoever has the earlier one still finds it.
    lab.ok("publish $T/next --to me/first --force");
    let done = elsewhere.ok(history);
    assert!(done.out.starts_with(&format!("1 {pinned}: right ")), "{}", done.out);
    let done = lab_of(&server, TOKEN).run(history).expect(2);
    let said = format!("me/next updates {pinned}, which isn't found as it was then");
    assert!(done.err.contains(&said) && done.err.contains("no earlier release"), "{}", done.err);
}

/// What is scored once at publishing isn't scored again by who updates.
#[test]
fn the_next_update_starts_from_the_table_that_came_along() {
    let Some(server) = start(&[]) else { return };
    let lab = lab_of(&server, TOKEN);
    finetuned(&lab);
    lab.ok("publish $T/run --to me/with --with-table");
    lab.ok("publish $T/run --to me/without");
    let tables: Vec<String> = sent_names(&server, "me/with")
        .into_iter()
        .filter(|name| name.starts_with("teacher/"))
        .collect();
    assert_eq!(tables.len(), 1, "{tables:?}");
    assert!(!sent_names(&server, "me/without").iter().any(|name| name.starts_with("teacher/")));
    assert!(
        sent_text(&server, "me/with", "README.md").contains("`teacher/` holds this model's logits")
    );
    let update = |id: &str| {
        lab.ok(&format!(
            "update --base me/{id} --new tickets:later[:40] --holdout tickets:later[1000:1100] --max-steps 4 \
             --interpolate none --tables $T/{id} --output $T/from-{id}"
        ))
    };
    let (with, without) = (update("with"), update("without"));
    assert!(with.err.contains("it came with its scores of 40 rows"), "{}", with.err);
    assert!(with.err.contains("on the other rows of "), "{}", with.err);
    assert!(!without.err.contains("it came with"), "{}", without.err);
    assert_eq!(lab.names("with"), lab.names("without"), "one table for each set of rows");
    for name in lab.names("with") {
        let logits = |folder: &str| -> Vec<f32> {
            let bytes = lab.read(&format!("{folder}/{name}"));
            let (header, start) = header(&bytes);
            let at = |n: usize| header["logits"]["data_offsets"][n].as_u64().unwrap() as usize;
            let numbers = &bytes[start + at(0)..start + at(1)];
            numbers.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
        };
        let (with, without) = (logits("with"), logits("without"));
        assert_eq!(with.len(), without.len(), "{name}");
        // A row scored among others differs in its last bits: 1.5e-7 was seen.
        let far = with.iter().zip(&without).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far < 2e-6, "{name}: {far}");
    }
    // Rows of other texts aren't taken for those of the table.
    lab.write("old.csv", "id,text,label\n1,other,delivery\n2,words,returns\n");
    let other = lab.ok(
        "update --base me/with --old $T/old.csv --new tickets:later[:40] --holdout tickets:later[1000:1100] --max-steps 2 \
         --interpolate none --tables $T/other --output $T/from-other",
    );
    assert!(!other.err.contains("it came with"), "{}", other.err);
}

#[test]
fn an_onnx_file_goes_along_if_it_is_of_this_model() {
    let Some(server) = start(&[]) else { return };
    let lab = lab_of(&server, TOKEN);
    finetuned(&lab);
    lab.ok("export $T/run --onnx");
    lab.ok("publish $T/run --to me/x");
    assert!(sent_names(&server, "me/x").contains(&"onnx/model.onnx".into()));
    lab.write("run/onnx/model.onnx", "of another");
    let done = lab.run("publish $T/run --to me/x").expect(2);
    assert!(
        done.error().contains(
            "onnx/model.onnx: it is of another model; make it again with lowchurn export"
        ),
        "{}",
        done.err
    );
}

/// A student of a teacher of another family: the card, the manifest and a report that holds them together name both.
#[test]
fn a_students_card_and_report_name_its_teacher_too() {
    let Some(server) = start(&[]) else { return };
    let lab = lab_of(&server, TOKEN);
    let rows = "--train-split train[:40] --eval-split train[40:60] --batch-size 8 --max-length 32 --max-steps 4";
    let of_family = "--model tests/golden/architectures/roberta";
    lab.ok(&format!("finetune tickets {of_family} --output $T/teacher {rows}"));
    lab.ok(&format!(
        "distil tickets --teacher $T/teacher --student tiny --vector-weight 1 --tables $T/tables --output \
         $T/student {rows}"
    ));
    let teacher = lab.path("teacher").display().to_string();
    let provenance = &lab.json("student/manifest.json")["provenance"];
    assert_eq!(
        (provenance["base"].as_str(), provenance["teacher"][0].as_str()),
        (Some("tiny"), Some(&*teacher))
    );
    lab.ok("publish $T/student --to me/student --dry-run");
    let card = lab.text("student/release/README.md");
    let said = format!("The student started from `tiny` and followed the teacher `{teacher}`.\n");
    assert!(card.contains(&said), "{card}");
    assert!(card.contains("base_model: ") || card.contains("| `base` | `tiny` |"), "{card}");

    lab.ok("compare $T/teacher $T/student --data tickets --split train[60:90] --output $T/both");
    let report = lab.json("both/report.json");
    for (side, name) in [("old", "teacher"), ("new", "student")] {
        assert!(report[side]["name"].as_str().unwrap().ends_with(name), "{}", report[side]);
        assert!(
            lab.text("both/report.html").contains(name)
                && lab.text("both/report.md").contains(name)
        );
    }
}
