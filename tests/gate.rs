//! `gate` from end to end: the verdict of a report as exit code and in every format, and reports that have none.

#[path = "util/two_files.rs"]
mod two_files;
mod util;

use serde_json::Value;
use two_files::{check, lab};
use util::Lab;

#[test]
fn the_gate_says_the_verdict_by_its_exit_code() {
    let lab = Lab::new();
    let rows = |changed: usize| -> String {
        let row = |row: usize| format!("{row},a,{}\n", if row < changed { "b" } else { "a" });
        "id,gold,prediction\n".to_string() + &(0..400).map(row).collect::<String>()
    };
    lab.write("old.csv", rows(0));
    lab.write("new.csv", rows(4));
    lab.ok("compare $T/old.csv $T/new.csv --output $T/out --max-churn 5%");
    // 4 of 400: at most 2.27 % and at least 0.34 % with 95 % confidence each (Clopper and Pearson).
    for (limit, code, word) in [
        ("", 0, "PASS"),
        ("--max-churn 3%", 0, "PASS"),
        ("--max-churn 1.5%", 11, "INCONCLUSIVE"),
        ("--max-churn 0.2%", 10, "FAIL"),
        ("--max-nfr 0.2%", 10, "FAIL"),
        ("--min-accuracy-gain 0", 11, "INCONCLUSIVE"),
        ("--min-accuracy-gain 1%", 10, "FAIL"),
    ] {
        let done = lab.run(&format!("gate $T/out/report.json {limit}")).expect(code);
        assert_eq!(done.out.lines().next(), Some(word), "{limit}: {}", done.out);
    }
    let done = lab.run("gate $T/out/report.json --max-churn 0.2%").expect(10);
    assert_eq!(
        done.out,
        "FAIL\n  FAIL          churn: 4 of 400 rows changed (1.00%), the limit is 0.20%; with 95% confidence it is at least \
         0.34%\n  note: judged by the limits given now, and by the report's own where none was given in their place, from the counts in \
         the report\n"
    );
    // Limits that aren't given stay the report's own, and so does its confidence.
    lab.ok("compare $T/old.csv $T/new.csv --output $T/both --max-churn 5% --max-nfr 0.2%");
    let done = lab.run("gate $T/both/report.json --max-churn 3%").expect(10);
    assert!(
        done.out.contains("  PASS          churn: ") && done.out.contains("the limit is 3.00%")
    );
    assert!(done.out.contains("  FAIL          nfr: ") && done.out.contains("the limit is 0.20%"));
    lab.run("gate $T/both/report.json --max-nfr 3%").expect(0);
    // 4 of 400 are at most 3.65 % with confidence 0.999 and 6.36 % with 1 − 10⁻⁷ (Clopper and Pearson).
    lab.run("gate $T/out/report.json --confidence 0.999").expect(0);
    let done = lab.run("gate $T/out/report.json --confidence 0.9999999").expect(11);
    assert!(done.out.contains("INCONCLUSIVE  churn: "), "{}", done.out);
    let mut older = lab.json("out/report.json");
    older["certificate"].as_object_mut().unwrap().remove("limits").unwrap();
    lab.write("older.json", older.to_string());
    lab.run("gate $T/older.json --max-churn 3%").expect(0);
    assert_eq!(
        lab.run("gate $T/older.json --confidence 0.99").expect(2).error(),
        "$T/older.json: it was made before reports kept their limits; give them beside --confidence, such as --max-churn 2%"
    );
    // Golden rows were counted when the report was made.
    lab.write("golden.txt", "0\n");
    lab.ok(
        "compare $T/old.csv $T/new.csv --output $T/golden --max-churn 5% --golden $T/golden.txt",
    );
    let done = lab.run("gate $T/golden/report.json --max-churn 3%").expect(10);
    assert!(done.out.contains("1 of 1 golden rows changed: 0"), "{}", done.out);

    let done = lab.run("gate $T/out/report.json --max-churn 1.5% --json --format json").expect(11);
    let finished = done.json().pop().unwrap();
    assert_eq!(
        (&finished["verdict"], &finished["exit_code"]),
        (&"INCONCLUSIVE".into(), &11.into())
    );

    lab.ok("gate $T/out/report.json --format junit --output $T/gate.xml");
    let junit = lab.text("gate.xml");
    assert!(junit.starts_with("<?xml") && junit.contains("tests=\"1\" failures=\"0\""), "{junit}");
    let markdown = lab.ok("gate $T/out/report.json --format markdown").out;
    assert!(markdown.starts_with("**PASS**"), "{markdown}");
    let json: Value =
        serde_json::from_str(&lab.ok("gate $T/out/report.json --format json").out).unwrap();
    assert_eq!(json, lab.json("out/report.json")["certificate"]);
}

#[test]
fn reports_that_can_not_be_gated() {
    let lab = lab();
    lab.ok("compare old.csv new.csv --output made");
    check(
        &lab,
        "gate made/report.json",
        2,
        "made/report.json: there is no verdict in it, for no budget was given when it was made; give limits now, such as \
         --max-churn 2%",
    );
    check(
        &lab,
        "gate made/report.json --golden old.csv",
        2,
        "--golden: a report doesn't hold the ids of rows that didn't change; give it to compare or update",
    );
    let text = lab.text("made/report.json");
    lab.write("cut.json", &text[..text.len() / 2]);
    let cut = lab.run("gate cut.json").expect(3);
    assert!(cut.error().starts_with("cut.json: not a report that can be read: "), "{}", cut.err);
    lab.write("other.json", text.replacen("lowchurn.report.v1", "lowchurn.report.v9", 1));
    check(
        &lab,
        "gate other.json",
        3,
        "other.json: a report of version \"lowchurn.report.v9\", and this program knows \"lowchurn.report.v1\" alone; read \
         it with the program that wrote it, or make it again with this one",
    );
    lab.write("foreign.json", "{}");
    check(
        &lab,
        "gate foreign.json",
        3,
        "foreign.json: no key \"schema\", so this is no report of lowchurn; expected the report.json that `lowchurn \
         compare` or `lowchurn update` writes",
    );
    check(&lab, "gate none.json", 2, "none.json: there is no such file");
}
