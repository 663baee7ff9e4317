//! A certificate for machines and pull requests: exit code, JUnit, Markdown. (The JSON is serde's.)

use serde_json::{Map, Number, Value};

use crate::format::{count, escape, markdown_cell, percent, points, rows};
use crate::{Certificate, Check, Report, Sense, Verdict};

/// Exit code of the process: 0 pass, 10 fail, 11 inconclusive (peers.md §2.3 point 5).
pub fn exit_code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Pass => 0,
        Verdict::Fail => 10,
        Verdict::Inconclusive => 11,
    }
}

/// JUnit's XML, a test case a check: a failure where it fails, skipped where it is inconclusive.
pub fn junit(certificate: &Certificate, name: &str) -> String {
    let checks = &certificate.checks;
    let n = |verdict: Verdict| checks.iter().filter(|check| check.verdict == verdict).count();
    let counts = format!(
        "tests=\"{}\" failures=\"{}\" errors=\"0\" skipped=\"{}\"",
        checks.len(),
        n(Verdict::Fail),
        n(Verdict::Inconclusive)
    );
    let cases: String = checks.iter().map(|check| test_case(check, name)).collect();
    let notes = notes(certificate).iter().map(|note| xml(note) + "\n").collect::<String>();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {counts}>\n<testsuite name=\"{}\" {counts}>\n{cases}\
        <system-out>{notes}</system-out>\n</testsuite>\n</testsuites>\n",
        xml(name)
    )
}

/// The verdict and a table of the checks, for a pull request.
pub fn gate_markdown(certificate: &Certificate) -> String {
    let mut out = format!("**{}**\n\n", certificate.verdict.word());
    out += "| check | verdict | observed | limit | bounds | rows | rows needed |\n|---|---|---:|---:|---:|---:|---:|\n";
    for check in &certificate.checks {
        let (said, sign): (fn(f64) -> String, _) = match check.sense {
            Sense::AtMost => (percent, "≤"),
            Sense::AtLeast => (points, "≥"),
        };
        out += &format!(
            "| {} | {} | {} | {sign} {} | {} to {} | {} | {} |\n",
            markdown_cell(&check.name),
            check.verdict.word(),
            said(check.observed),
            said(check.limit),
            said(check.low),
            said(check.high),
            count(check.of),
            check.rows_needed.map_or(String::new(), count),
        );
    }
    for note in notes(certificate) {
        out += &format!("\n{}\n", markdown_cell(&note));
    }
    out
}

/// Numbers of a report by flat names, for trackers of experiments: a name has letters, digits and `_` alone, a value is a number
/// (MLflow's `log_metrics`, the `log` of Weights & Biases). What a report doesn't know is left out. `verdict_pass` is 1 or 0.
pub fn flat_metrics(report: &Report, certificate: &Certificate) -> Map<String, Value> {
    let mut out = Map::new();
    let mut put = |name: &str, value: f64| {
        // JSON has no NaN, and a tracker no use for one.
        if let Some(number) = Number::from_f64(value) {
            out.insert(name.into(), number.into());
        }
    };
    let all = &report.comparison.all;
    put("rows", report.rows as f64);
    put("flips", report.n_flips as f64);
    let rates = [
        ("churn", all.churn),
        ("nfr", all.nfr),
        ("pfr", all.pfr),
        ("accuracy_old", all.accuracy_old),
        ("accuracy_new", all.accuracy_new),
    ];
    let rates = rates.into_iter().filter_map(|(name, rate)| Some((name, rate?)));
    let gain = all.accuracy_gain.map(|gain| ("accuracy_gain", gain.value, gain.interval));
    for (name, value, interval) in
        rates.map(|(name, rate)| (name, rate.value, rate.interval)).chain(gain)
    {
        put(name, value);
        put(&format!("{name}_low"), interval.low);
        put(&format!("{name}_high"), interval.high);
    }
    for (name, check) in names(&certificate.checks).iter().zip(&certificate.checks) {
        put(&format!("check_{name}_observed"), check.observed);
        put(&format!("check_{name}_limit"), check.limit);
        put(&format!("check_{name}_pass"), f64::from(check.verdict == Verdict::Pass));
    }
    put("verdict_pass", f64::from(certificate.verdict == Verdict::Pass));
    out
}

/// Of each check its own: classes such as C, C++ and C# differ in what can't stand in a name, and get a number.
fn names(checks: &[Check]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for check in checks {
        let name = flat(&check.name);
        let mut own = name.clone();
        for n in 2.. {
            if !names.contains(&own) {
                break;
            }
            own = format!("{name}_{n}");
        }
        names.push(own);
    }
    names
}

/// Letters and digits of any script in small ones; everything else becomes one `_`.
fn flat(name: &str) -> String {
    let parts = name.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("_").to_lowercase()
}

fn notes(certificate: &Certificate) -> Vec<String> {
    let chosen = certificate.walked.iter().find(|step| step.is_chosen);
    let walked = (!certificate.walked.is_empty()).then(|| match chosen {
        Some(step) => format!("chosen: {} of {} candidates", step.name, certificate.walked.len()),
        None => format!("none of {} candidates was certified", certificate.walked.len()),
    });
    let notes = [certificate.correction.clone()].into_iter().chain(certificate.notes.clone());
    notes.chain(walked).collect()
}

fn test_case(check: &Check, name: &str) -> String {
    let head = format!("<testcase classname=\"{}\" name=\"{}\"", xml(name), xml(&check.name));
    let said = xml(&check.said);
    match check.verdict {
        Verdict::Pass => format!("{head}><system-out>{said}</system-out></testcase>\n"),
        Verdict::Fail => {
            format!(
                "{head}><failure type=\"FAIL\" message=\"{said}\">{said}</failure></testcase>\n"
            )
        }
        Verdict::Inconclusive => {
            let needed = check.rows_needed.map(|n| format!("; needs {}", rows(n)));
            let message = format!("INCONCLUSIVE{}: {said}", needed.unwrap_or_default());
            format!("{head}><skipped message=\"{message}\"/></testcase>\n")
        }
    }
}

// XML 1.0 forbids two code points that HTML bears.
fn xml(text: &str) -> String {
    escape(text).replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}")
}
