//! Certificates for machines: exit codes, JUnit that a parser reads, Markdown that nothing breaks out of.

mod fixture;
mod problem;

use lowchurn_churn::{
    Budget, Candidate, Certificate, Check, Flips, Golden, Measurements, Verdict, certify,
    exit_code, flat_metrics, gate_markdown, junit, walk, withhold_pass,
};
use roxmltree::{Document, Node};

const NASTY: &str = "a<b>&\"c' | `d`\n]]> \u{0}\u{1b}\u{fffe} <script>alert(1)</script> é 🦀";

fn flips(rows: u64, negative: u64) -> Flips {
    problem::flips(rows, negative, 0, 0)
}

/// A PASS, an INCONCLUSIVE and a FAIL.
fn certificate() -> Certificate {
    let budget = Budget {
        max_churn: Some(0.05),
        max_nfr: None,
        max_slice_nfr: Some(0.02),
        max_class_nfr: None,
        min_accuracy_gain: None,
        golden: Vec::new(),
        confidence: 0.95,
    };
    let slice = |name: &str, rows, negative| (name.to_owned(), flips(rows, negative));
    let slices = vec![slice(NASTY, 900, 12), slice("bad", 900, 60), slice("small", 5, 0)];
    certify(&budget, &Measurements { all: flips(5000, 72), slices, ..Measurements::default() })
        .unwrap()
}

fn children<'a>(node: Node<'a, 'a>, name: &'static str) -> Vec<Node<'a, 'a>> {
    node.children().filter(|child| child.has_tag_name(name)).collect()
}

#[test]
fn exit_codes_are_the_documented_ones() {
    let found = [Verdict::Pass, Verdict::Fail, Verdict::Inconclusive].map(exit_code);
    assert_eq!(found, [0, 10, 11]);
}

#[test]
fn junit_is_xml_with_a_case_a_check() {
    let made = certificate();
    let text = junit(&made, NASTY);
    let document = Document::parse(&text).unwrap();
    let suites = document.root_element();
    assert!(suites.has_tag_name("testsuites"));
    let suite = children(suites, "testsuite")[0];
    for (name, expected) in [("tests", "3"), ("failures", "1"), ("errors", "0"), ("skipped", "1")] {
        assert_eq!(suite.attribute(name), Some(expected), "{name}");
        assert_eq!(suites.attribute(name), Some(expected), "{name}");
    }
    let cases = children(suite, "testcase");
    let names: Vec<&str> = cases.iter().map(|case| case.attribute("name").unwrap()).collect();
    // What XML can't hold is replaced; a line end in an attribute is a blank to every parser.
    let shown = "a<b>&\"c' | `d` ]]> \u{fffd}\u{fffd}\u{fffd} <script>alert(1)</script> é 🦀";
    assert_eq!(names, ["churn", &format!("nfr of {shown}"), "nfr of bad"]);
    assert_eq!(cases[0].attribute("classname"), Some(shown));
    assert_eq!(children(cases[0], "system-out")[0].text(), Some(made.checks[0].said.as_str()));
    let skipped = children(cases[1], "skipped")[0].attribute("message").unwrap();
    let needed = made.checks[1].rows_needed.unwrap();
    let (thousands, rest) = (needed / 1000, needed % 1000);
    let start = format!("INCONCLUSIVE; needs {thousands},{rest:03} rows: 12 of 900 rows");
    assert!(skipped.starts_with(&start), "{skipped}");
    let failure = children(cases[2], "failure")[0];
    assert_eq!(failure.attribute("message"), Some(made.checks[2].said.as_str()));
    assert_eq!(failure.text(), Some(made.checks[2].said.as_str()));
    let notes = children(suite, "system-out")[0].text().unwrap();
    assert_eq!(notes, format!("{}\n{}\n", made.correction, made.notes[0]));
}

#[test]
fn markdown_is_one_table_that_no_name_breaks() {
    let made = certificate();
    let text = gate_markdown(&made);
    assert!(text.starts_with("**FAIL**\n\n| check | verdict |"), "{text}");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
    assert_eq!(rows.len(), 5);
    for row in &rows {
        assert_eq!(row.matches('|').count(), 8, "{row}");
        assert!(!row.contains('`') && !row.contains("<script"), "{row}");
    }
    assert_eq!(rows[2], "| churn | PASS | 1.44% | ≤ 5.00% | 1.10% to 1.75% | 5,000 |  |");
    assert!(text.contains("3 limits") && text.contains("1 of 3 slices"), "{text}");
}

#[test]
fn gains_are_in_points_and_the_chosen_candidate_is_named() {
    let budget = Budget {
        max_churn: Some(0.05),
        max_nfr: None,
        max_slice_nfr: None,
        max_class_nfr: None,
        min_accuracy_gain: Some(-0.01),
        golden: Vec::new(),
        confidence: 0.95,
    };
    let candidate = |name: &str, negative| Candidate {
        name: name.to_owned(),
        calibration: Measurements { all: flips(1000, negative), ..Measurements::default() },
        certification: Measurements { all: flips(5000, negative), ..Measurements::default() },
        merit: None,
    };
    let (_, made) = walk(&[candidate("λ | 0.9", 2), candidate("λ 0.5", 900)], &budget).unwrap();
    let text = gate_markdown(&made);
    assert!(text.contains("| accuracy gain | PASS | −0.04 points | ≥ −1.00 points |"), "{text}");
    assert!(text.contains("λ &#124; 0.9 of 2 candidates"), "{text}");
    let (_, made) = walk(&[candidate("λ 0.5", 900)], &budget).unwrap();
    assert!(junit(&made, "gate").contains("none of 1 candidates was certified"));
}

/// The rows that chose a model can show that it breaks a limit, not that it keeps one.
#[test]
fn rows_that_chose_certify_nothing() {
    let check = |max_churn, golden: &[&str], expected: Verdict| {
        let budget = Budget {
            max_churn,
            max_nfr: None,
            max_slice_nfr: None,
            max_class_nfr: None,
            min_accuracy_gain: None,
            golden: golden.iter().map(|id| id.to_string()).collect(),
            confidence: 0.95,
        };
        let golden = Golden { asked: golden.len() as u64, ..Golden::default() };
        let rows = Measurements { all: flips(5000, 72), golden, ..Measurements::default() };
        let made = withhold_pass(&certify(&budget, &rows).unwrap(), "the share of the old weights");
        assert_eq!(made.verdict, expected, "{made:?}");
        let note = made.notes.last().unwrap();
        assert!(note.starts_with("these rows chose the share of the old weights; "), "{note}");
        made
    };
    let made = check(Some(0.05), &[], Verdict::Inconclusive);
    assert_eq!(made.checks[0].verdict, Verdict::Inconclusive);
    let said = &made.checks[0].said;
    assert!(said.ends_with("; but these rows chose the model, so they certify nothing"), "{said}");
    check(Some(0.005), &[], Verdict::Fail);
    check(None, &["a"], Verdict::Pass);
}

/// What MLflow takes as the name of a metric, and numbers alone.
#[test]
fn metrics_are_flat_names_and_numbers() {
    let report = fixture::full();
    let metrics = flat_metrics(&report, &certificate());
    let is_plain = |name: &String| name.chars().all(|c| c.is_alphanumeric() || c == '_');
    for (name, value) in &metrics {
        assert!(is_plain(name) && value.is_number(), "{name}: {value}");
    }
    let all = &report.comparison.all;
    assert_eq!(metrics["churn"], all.churn.unwrap().value);
    assert_eq!(metrics["nfr_high"], all.nfr.unwrap().interval.high);
    assert_eq!(metrics["accuracy_gain"], all.accuracy_gain.unwrap().value);
    assert_eq!(metrics["rows"], report.rows as f64);
    assert_eq!(
        (&metrics["verdict_pass"], &metrics["check_churn_pass"]),
        (&0.0.into(), &1.0.into())
    );
    assert_eq!(metrics["check_churn_limit"], 0.05);
    // Each check has its own numbers, whatever its class is called.
    let mut made = certificate();
    let check = made.checks[0].clone();
    let named =
        |(n, name): (usize, &str)| Check { name: name.into(), observed: n as f64, ..check.clone() };
    let names = ["NFR of class C", "NFR of class C++", "NFR of class C#", "NFR of class 退货"];
    made.checks = names.into_iter().enumerate().map(named).collect();
    let metrics = flat_metrics(&report, &made);
    for (n, name) in ["c", "c_2", "c_3", "退货"].into_iter().enumerate() {
        assert_eq!(metrics[&format!("check_nfr_of_class_{name}_observed")], n as f64);
    }
    // What isn't known isn't there.
    assert!(!flat_metrics(&fixture::minimal(), &certificate()).contains_key("accuracy_new"));
}
