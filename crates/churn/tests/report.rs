//! The report as JSON, Markdown and HTML: what it says, what it refuses, and that no text of the data gets out of its place.

mod fixture;

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use fixture::schema::faults;
use fixture::{NASTY, failed, flips, full, inconclusive, minimal, nasty};
use lowchurn_churn::{
    Asked, Budget, Candidate, Golden, Measurements, Pair, Predicted, Report, RunPoint, SCHEMA,
    Unmatched, compare, html, markdown, points, seed_floor, walk,
};
use lowchurn_data::Rng;
use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

fn schema() -> Value {
    serde_json::from_str(include_str!("../schema/report-v1.schema.json")).unwrap()
}

fn all() -> [(&'static str, Report); 5] {
    [
        ("full", full()),
        ("minimal", minimal()),
        ("failed", failed()),
        ("inconclusive", inconclusive()),
        ("nasty", nasty()),
    ]
}

/// The report with one value replaced, or taken out where there is no new one.
fn damaged(path: &str, new: Option<Value>) -> Value {
    let mut value: Value = serde_json::from_str(&full().to_json()).unwrap();
    match new {
        Some(new) => *value.pointer_mut(path).unwrap() = new,
        None => {
            let (parent, key) = path.rsplit_once('/').unwrap();
            let parent = value.pointer_mut(parent).unwrap().as_object_mut().unwrap();
            parent.remove(key).unwrap();
        }
    }
    value
}

const DAMAGES: [(&str, Option<&str>); 14] = [
    ("/schema", None),
    ("/schema", Some("\"lowchurn.report.v2\"")),
    ("/comparison", None),
    ("/comparison/all/flips/negative", Some("-1")),
    ("/comparison/all/flips/negative", Some("1.5")),
    ("/comparison/all/churn/value", Some("4.08")),
    ("/comparison/all/churn/of", Some("0")),
    ("/comparison/soft/calibration_old/bins/0", Some("[1, 2]")),
    ("/comparison/worst_class_old", Some("[\"neutral\"]")),
    ("/certificate/verdict", Some("\"pass\"")),
    ("/certificate/checks/0/sense", Some("\"below\"")),
    ("/flips/0/kind", Some("\"Negative\"")),
    ("/flips/0/nearest", None),
    ("/frontier/0/seeds", Some("3")),
];

#[test]
fn reports_are_what_the_schema_says() {
    for (name, report) in all() {
        let value: Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(faults(&schema(), &value, true), Vec::<String>::new(), "{name}");
    }
}

/// Two models on 1,200 rows of three classes; the new one is right where the old one was, but for some.
fn predicted(name: &str, moved: f64, with_gold: bool) -> Predicted {
    let (mut ids, mut gold, mut predicted, mut scores) = (vec![], vec![], vec![], vec![]);
    let mut rows = Rng::stream(7, "rows", 0);
    let mut moves = Rng::stream(7, name, 0);
    for row in 0..1_200 {
        let (label, said) = (rows.below(3) as u32, rows.below(3) as u32);
        let old = if rows.uniform() < 0.8 { label } else { said };
        let class = if moves.uniform() < moved { moves.below(3) as u32 } else { old };
        let top = 0.4 + 0.55 * moves.uniform() as f32;
        scores.extend((0..3).map(|k| if k == class { top } else { (1.0 - top) / 2.0 }));
        ids.push(format!("row-{row}"));
        gold.push((with_gold && row % 10 > 0).then_some(label));
        predicted.push(class);
    }
    Predicted {
        name: name.to_string(),
        labels: ["low", "middle", "high"].map(str::to_string).to_vec(),
        ids,
        gold,
        predicted,
        scores: Some(scores),
        ..Predicted::default()
    }
}

/// What the fixtures say by hand, said by the functions that measure.
fn measured() -> Report {
    let (old, new) = (predicted("old", 0.0, true), predicted("new", 0.05, true));
    let pair = Pair::align(&old, &new, &[], Unmatched::Refuse).unwrap();
    let texts: Vec<String> =
        pair.ids.iter().map(|id| format!("the text of {id}, with a refund")).collect();
    let shops: Vec<String> = (0..texts.len()).map(|row| format!("shop {}", row % 4)).collect();
    let is_new_row: Vec<bool> = (0..texts.len()).map(|row| row > 800).collect();
    let runs = [predicted("a", 0.06, true), predicted("b", 0.06, true)];
    let comparison = compare(
        &pair,
        &Asked {
            thresholds: &[("high".to_string(), 0.5)],
            is_new_row: Some(&is_new_row),
            slice_columns: &[("shop".to_string(), shops)],
            texts: Some(&texts),
            keywords: &["refund".to_string()],
            retrain_churn: Some(0.09),
            seed_floor: seed_floor(&runs, None, 0.95).unwrap(),
            ..Asked::default()
        },
    )
    .unwrap();
    let flips = comparison.all.flips;
    let slices = comparison.slices.iter().map(|slice| (slice.name.clone(), slice.measured.flips));
    let rows = Measurements {
        all: flips,
        slices: slices.collect(),
        golden: Golden::default(),
        ..Measurements::default()
    };
    let candidate = |name: &str| Candidate {
        name: name.to_string(),
        calibration: Measurements { all: flips, ..Measurements::default() },
        certification: rows.clone(),
        merit: None,
    };
    let budget = Budget {
        max_churn: Some(0.06),
        max_nfr: Some(0.04),
        max_slice_nfr: Some(0.2),
        max_class_nfr: None,
        min_accuracy_gain: Some(-0.05),
        golden: Vec::new(),
        confidence: 0.95,
    };
    let (_, certificate) = walk(&[candidate("one"), candidate("two")], &budget).unwrap();
    let runs: Vec<RunPoint> = (0..6)
        .map(|n| RunPoint {
            method: "distil".to_string(),
            init: "warm".to_string(),
            setting: format!("λ 0.{}", n / 2),
            seed: n % 2,
            accuracy: 0.8 + n as f64 / 100.0,
            churn: 0.02 + n as f64 / 100.0,
            nfr: 0.01,
            ..RunPoint::default()
        })
        .collect();
    Report {
        rows: pair.rows() as u64,
        labels: pair.labels.clone(),
        alignment: pair.alignment.clone(),
        certificate: Some(certificate),
        comparison,
        frontier: points(&runs),
        diagnosis: None,
        ..minimal()
    }
}

#[test]
fn a_measured_report_is_what_the_schema_says_and_is_shown_whole() {
    let report = measured();
    let value: Value = serde_json::from_str(&report.to_json()).unwrap();
    assert_eq!(faults(&schema(), &value, true), Vec::<String>::new());
    assert!(Report::parse(report.to_json().as_bytes(), Path::new("r.json")).unwrap() == report);
    let page = html(&report);
    for id in [
        "sides",
        "changes",
        "overlap",
        "from-to",
        "classes",
        "slices",
        "scores",
        "frontier",
        "candidates",
    ] {
        assert!(page.contains(&format!("<section id=\"{id}\">")), "{id}");
    }
    for there in [
        "shop = shop",
        "Holm",
        "seed floor",
        "accuracy gain",
        "≥ −5.00 points",
        "have no true label",
    ] {
        assert!(page.contains(there), "{there}");
    }
    assert!(markdown(&report).lines().count() < 60);
}

/// A slice may be called after anything; only a floor is in points.
#[test]
fn units_follow_the_sense_of_a_check() {
    let mut report = full();
    let checks = &mut report.certificate.as_mut().unwrap().checks;
    let share = checks.iter().position(|check| check.name.starts_with("nfr")).unwrap();
    checks[share].name = "nfr of topic = weight gain".to_string();
    checks[share].limit = 0.0125;
    assert!(html(&report).contains("≤ 1.25%"), "a share");
    assert!(markdown(&report).contains("| nfr of topic = weight gain | PASS | ≤ 1.25% |"));
}

#[test]
fn rows_that_chose_are_told_of() {
    let said = "These rows chose the share of the old weights: fresh rows will look worse, and no limit is certified on these.";
    for text in [html(&minimal()), markdown(&minimal())] {
        assert!(text.contains(said), "{text}");
    }
    for text in [html(&full()), markdown(&full())] {
        assert!(!text.contains("These rows chose"), "{text}");
    }
}

#[test]
fn damaged_reports_are_not() {
    for (path, new) in DAMAGES {
        let value = damaged(path, new.map(|new| serde_json::from_str(new).unwrap()));
        assert!(!faults(&schema(), &value, false).is_empty(), "{path} {new:?}");
    }
}

/// The same with somebody else's validator, so that ours isn't believed on its own word.
#[test]
fn another_validator_agrees() {
    let script = "import json, sys, jsonschema\n\
        schema, *values = [json.loads(line) for line in sys.stdin]\n\
        validator = jsonschema.Draft202012Validator\n\
        validator.check_schema(schema)\n\
        print(''.join('01'[validator(schema).is_valid(value)] for value in values))";
    let python = |arguments: &[&str]| {
        let mut command = Command::new("python3");
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn()
    };
    let has_it = python(&["-c", "import jsonschema"]).and_then(|mut child| child.wait());
    if !has_it.is_ok_and(|status| status.success()) {
        let _ = writeln!(io::stderr(), "skipped: python3 with jsonschema isn't here");
        return;
    }
    let mut values: Vec<Value> = vec![schema()];
    values
        .extend(all().map(|(_, report)| serde_json::from_str::<Value>(&report.to_json()).unwrap()));
    values.extend(
        DAMAGES.map(|(path, new)| damaged(path, new.map(|new| serde_json::from_str(new).unwrap()))),
    );
    let lines: String = values.iter().map(|value| format!("{value}\n")).collect();
    let mut child = python(&["-c", script]).unwrap();
    Write::write_all(&mut child.stdin.take().unwrap(), lines.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let expected = "1".repeat(all().len()) + &"0".repeat(DAMAGES.len());
    assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), expected);
}

#[test]
fn what_is_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    for (name, report) in all() {
        fs::write(&path, report.to_json()).unwrap();
        let back = Report::read(&path).unwrap();
        // Line by line first: a whole report is no message that anybody can read.
        for (back, written) in back.to_json().lines().zip(report.to_json().lines()) {
            assert_eq!(back, written, "{name}");
        }
        assert!(back == report, "{name}");
    }
}

#[test]
fn keys_of_later_programs_are_passed_over_and_empty_ones_may_be_missing() {
    let mut value: Value = serde_json::from_str(&minimal().to_json()).unwrap();
    value["colour"] = json!({"deep": [1, 2]});
    value["comparison"]["all"]["entropy"] = json!(0.5);
    let text = strip(value).to_string();
    assert!(!text.contains("null"));
    assert_eq!(Report::parse(text.as_bytes(), Path::new("r.json")).unwrap(), minimal());
}

/// Without the keys that hold null.
fn strip(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, strip(value)))
            .collect(),
        Value::Array(list) => list.into_iter().map(strip).collect(),
        other => other,
    }
}

#[test]
fn what_is_no_report_is_refused() {
    let check = |text: &str, expected: &str| {
        let error = Report::parse(text.as_bytes(), Path::new("old/report.json")).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    check(
        "{\"schema\": \"lowchurn.report.v9\", \"rows\": \"many\"}",
        "old/report.json: a report of version \"lowchurn.report.v9\", and this program knows \"lowchurn.report.v1\" alone; read it with the program that wrote it, or make it again with this one",
    );
    check(
        "{\"rows\": 3}",
        "old/report.json: no key \"schema\", so this is no report of lowchurn; expected the report.json that `lowchurn compare` or `lowchurn update` writes",
    );
    check(
        "{\"schema\": \"lowchurn.rep",
        "old/report.json: not a report that can be read: EOF while parsing a string at line 1 column 24; was it cut or edited by hand? Make it again with `lowchurn compare`",
    );
    check(
        &full()
            .to_json()
            .replace("\"rows\": 4000,\n  \"rows_chose\"", "\"rows\": \"all\",\n  \"rows_chose\""),
        "old/report.json: not a report that can be read: invalid type: string \"all\", expected u64 at line 24 column 15; was it cut or edited by hand? Make it again with `lowchurn compare`",
    );
    let error = Report::read(Path::new("no/such/report.json")).unwrap_err().to_string();
    assert!(error.starts_with("no/such/report.json: can't be read ("), "{error}");
}

#[test]
fn markdown_is_short_and_each_row_has_its_cells() {
    let mut long = nasty();
    let slices = long.comparison.slices.clone();
    long.comparison.slices = slices.iter().cycle().take(500).cloned().collect();
    if let Some(certificate) = &mut long.certificate {
        certificate.checks = certificate.checks.iter().cycle().take(300).cloned().collect();
    }
    for (name, report) in all().into_iter().chain([("long", long)]) {
        let text = markdown(&report);
        assert!(text.lines().count() < 60, "{name}: {} lines", text.lines().count());
        let mut cells = None;
        for line in text.lines() {
            let bars = line.matches('|').count();
            match cells {
                Some(cells) if bars > 0 => assert_eq!(bars, cells, "{name}: {line}"),
                _ => cells = (bars > 0).then_some(bars),
            }
        }
        for tag in text.split('<').skip(1) {
            let is_ours = ["code>", "/code>", "details>", "/details>", "summary>", "/summary>"]
                .iter()
                .any(|known| tag.starts_with(known));
            assert!(is_ours, "{name}: <{tag}");
        }
    }
}

#[test]
fn markdown_says_what_must_be_known() {
    let check = |report: &Report, expected: &[&str]| {
        let text = markdown(report);
        for line in expected {
            assert!(text.contains(line), "{line}\n{text}");
        }
    };
    check(
        &full(),
        &[
            "### lowchurn: PASS\n\nAll 3 limits hold at 95% confidence.\n",
            "| churn | PASS | ≤ 5.00% | 4.08% | 3.57–4.64% | 163 of 4,000 |\n",
            "| accuracy gain | +1.68 points (+1.08 to +2.27) |\n",
            "| airline = Delta | 552 | 7.25% (5.08–9.41%) | 2.54% |\n",
            "10 of 41 negative flips",
        ],
    );
    check(&failed(), &["### lowchurn: FAIL\n\nBroken at 95% confidence: churn.\n"]);
    check(
        &inconclusive(),
        &[
            "Too few rows to tell at 95% confidence: nfr. 1,120 rows more would decide, 5,120 in all, if they behave like these.",
        ],
    );
    let mut many = failed();
    if let Some(certificate) = &mut many.certificate {
        certificate.checks = vec![certificate.checks[0].clone(); 30];
    }
    check(
        &many,
        &[
            "Broken at 95% confidence: churn, churn, churn, churn and 26 more.\n",
            "21 more checks are in report.json.",
        ],
    );
    check(&minimal(), &["### lowchurn: not gated", "No prediction changed."]);
}

#[test]
fn html_says_what_must_be_known_and_leaves_out_what_it_has_not() {
    let check = |report: &Report, there: &[&str], not_there: &[&str]| {
        let page = html(report);
        for text in there {
            assert!(page.contains(text), "missing: {text}");
        }
        for text in not_there {
            assert!(!page.contains(text), "there: {text}");
        }
    };
    let sections = [
        "sides",
        "changes",
        "overlap",
        "flips",
        "from-to",
        "classes",
        "slices",
        "scores",
        "frontier",
        "candidates",
        "provenance",
    ]
    .map(|id| format!("<section id=\"{id}\">"));
    check(
        &full(),
        &sections.each_ref().map(String::as_str),
        &["NOT GATED", "No prediction changed"],
    );
    check(
        &full(),
        &[
            ">PASS</h2>",
            "seed floor 5.10%",
            "limit 1.50%",
            "budget 5.00%",
            "2 slices have fewer rows",
        ],
        &[],
    );
    check(&failed(), &[">FAIL</h2>"], &[]);
    check(&inconclusive(), &[">INCONCLUSIVE</h2>", "5,120"], &[]);
    check(
        &minimal(),
        &[">NOT GATED</h2>", "No prediction changed.", "No row has a true label"],
        &[
            "id=\"overlap\"",
            "id=\"frontier\"",
            "id=\"scores\"",
            "id=\"flip-table\"",
            "id=\"candidates\"",
        ],
    );
}

#[test]
fn html_refers_to_nothing_outside_and_holds_no_raw_text() {
    for (name, report) in all() {
        let page = html(&report);
        for reference in
            ["http:", "https:", "//", "url(", "@import", "<link", "<iframe", " src=\"", "<base"]
        {
            // Comments of the script are ours, and a nasty text may say anything as text.
            let page = page.split("<script>").next().unwrap();
            assert!(name == "nasty" || !page.contains(reference), "{name}: {reference}");
        }
        assert_eq!(page.matches("<script").count(), 1, "{name}");
        for text in NASTY.iter().filter(|text| text.contains('<')) {
            assert!(!page.contains(text), "{name}: {text}");
        }
        assert!(!page.contains("<img") && !page.contains("<h1>out"), "{name}");
    }
}

/// A page that may run one script is safe only while the hash is that of this script.
#[test]
fn the_script_is_the_one_that_the_page_allows() {
    let script = include_str!("../src/report/report.js");
    let hash = format!("'sha256-{}'", base64(&Sha256::digest(script.as_bytes())));
    let page = html(&full());
    assert!(page.contains(&format!("<script>{script}</script>")));
    assert!(page.contains(&hash), "put {hash} into html.rs");
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - three.len()));
        for n in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * n) & 63) as usize] as char;
            out.push(if n <= three.len() { letter } else { '=' });
        }
    }
    out
}

/// A colour that the style sheet doesn't turn into a variable would be lost on dark paper.
#[test]
fn every_colour_of_a_plot_has_its_variable() {
    let page = html(&full());
    let style = include_str!("../src/report/report.css");
    let mut seen = 0;
    for attribute in ["fill=\"#", "stroke=\"#"] {
        for part in page.split("<body>").nth(1).unwrap().split(attribute).skip(1) {
            let rule = format!("[{attribute}{}\"]", &part[..6]);
            assert!(style.contains(&rule), "{rule}");
            seen += 1;
        }
    }
    assert!(seen > 200, "{seen}");
}

#[test]
fn many_flips_are_cut_and_it_is_said() {
    let mut report = full();
    report.flips = flips(2_500);
    report.n_flips = 31_000;
    let page = html(&report);
    assert_eq!(page.matches("<tr data-kind=").count(), 2_000);
    assert!(page.contains(
        "Here are 2,000 of 31,000 changed rows, negative flips first; report.json lists 2,500, and flips.jsonl beside it all."
    ));
    report.flips.clear();
    let expected = "31,000 predictions changed; their rows weren't kept.";
    assert!(html(&report).contains(expected));
}

#[test]
fn long_texts_are_folded_and_cut() {
    let page = html(&nasty());
    assert!(page.contains("… 10,000 more characters in report.json"));
    assert!(!page.contains(&"&lt;b&gt;long&lt;/b&gt; ".repeat(400)));
}

/// Every number of the report, by its path.
fn numbers(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Number(_) => found.push(at),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .for_each(|(n, value)| numbers(value, format!("{at}/{n}"), found)),
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| numbers(value, format!("{at}/{key}"), found))
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A report is a file from outside: whatever numbers it holds, it is shown or refused.
    #[test]
    fn odd_numbers_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(vec![
            json!(0), json!(u64::MAX), json!(1), json!(-1.0), json!(1e300), json!(-1e300), json!(1e-300), json!(2.0), json!(0.5),
        ])), 1..12),
        is_empty in any::<bool>(),
    ) {
        let mut report = full();
        report.flips.truncate(3);
        if is_empty {
            report.labels.clear();
            if let Some(soft) = &mut report.comparison.soft {
                soft.shift.truncate(1);
            }
        }
        let mut value: Value = serde_json::from_str(&report.to_json()).unwrap();
        let mut paths = Vec::new();
        numbers(&value, String::new(), &mut paths);
        for (place, number) in changes {
            *value.pointer_mut(&paths[place.index(paths.len())]).unwrap() = number;
        }
        if let Ok(report) = Report::parse(value.to_string().as_bytes(), Path::new("r.json")) {
            prop_assert!(html(&report).ends_with("</html>\n"));
            prop_assert!(markdown(&report).lines().count() < 60);
            prop_assert!(!html(&report).contains("NaN"));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..20_000) {
        let _ = Report::parse(&bytes, Path::new("r.json"));
        let text = full().to_json();
        let _ = Report::parse(&text.as_bytes()[..cut.min(text.len())], Path::new("r.json"));
    }

    /// No text can open a tag or leave an attribute, and none is lost.
    #[test]
    fn any_text_stays_text(text in "\\PC{0,40}") {
        let mut report = minimal();
        report.title = format!("<{text}\">'");
        let page = html(&report);
        let title = page.split("<title>").nth(1).unwrap().split("</title>").next().unwrap();
        prop_assert!(!title.contains(['<', '>', '"', '\'']));
        let back = title.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'").replace("&amp;", "&");
        prop_assert_eq!(back, report.title);
    }
}

#[test]
fn the_version_is_the_one_of_the_schema() {
    assert_eq!(schema()["properties"]["schema"]["const"], json!(SCHEMA));
}

#[test]
fn the_frontier_is_a_file_of_its_own() {
    let of = |method: &str, churn: f64| RunPoint {
        method: method.into(),
        init: "warm".into(),
        setting: String::new(),
        seed: 1,
        accuracy: 0.9,
        churn,
        nfr: 0.01,
        ..RunPoint::default()
    };
    let points = points(&[of("retrain", 0.1), of("a<b", 0.05)]);
    let svg = lowchurn_churn::frontier_svg(&points, Some(0.04));
    let read = roxmltree::Document::parse(&svg).unwrap();
    let texts: Vec<&str> = read.descendants().filter_map(|node| node.text()).collect();
    assert!(texts.contains(&"retrain, warm") && texts.contains(&"a<b, warm"), "{texts:?}");
    assert_eq!(read.root_element().tag_name().namespace(), Some("http://www.w3.org/2000/svg"));
}
