//! What was used, for audits, and what the words mean.

use crate::Report;
use crate::format::{count, escape};

const WORDS: [(&str, &str); 10] = [
    ("churn", "share of rows whose prediction changed, right or wrong; needs no labels"),
    (
        "negative flip",
        "the old model was right and the new one is wrong; NFR is their share of labelled rows",
    ),
    ("positive flip", "the old model was wrong and the new one is right; PFR is their share"),
    ("lateral", "wrong before, wrong in another way now; churn = NFR + PFR + lateral"),
    (
        "BTC, BEC",
        "backward trust compatibility: old rights that stay right; backward error compatibility: new errors that the old model made too",
    ),
    ("seed floor", "churn between two runs that differ by their seed alone"),
    ("ECE", "mean gap between confidence and share right, over 15 equal bins, weighted by rows"),
    (
        "Brier score",
        "mean over rows of the squared distance between scores and the true label, summed over classes",
    ),
    (
        "bounds",
        "one-sided exact binomial bounds; a limit holds when the bound on its far side is within it",
    ),
    ("INCONCLUSIVE", "these rows can neither certify the limit nor show that it is broken"),
];

pub(super) fn words() -> String {
    let words: String = WORDS
        .iter()
        .map(|(word, meaning)| format!("<div><dt>{word}</dt><dd>{meaning}</dd></div>"))
        .collect();
    format!(
        "<details><summary>What the measures mean</summary><dl class=\"list\">{words}</dl></details>\n"
    )
}

pub(super) fn provenance(report: &Report) -> String {
    let mut lines: Vec<(&str, String)> = Vec::new();
    for (word, side) in [("old", &report.old), ("new", &report.new)] {
        let hash = side.sha256.as_deref().map_or(String::new(), |hash| format!(", sha256 {hash}"));
        lines.push((word, format!("{}{hash}; labels: {}", side.name, side.labels.join(", "))));
    }
    let hash =
        report.data_sha256.as_deref().map_or(String::new(), |hash| format!(", sha256 {hash}"));
    lines.push(("data", format!("{}{hash}; rows: {}", report.data, count(report.rows))));
    lines.extend(report.alignment.iter().map(|line| ("labels", line.clone())));
    lines.push(("schema", report.schema.clone()));
    lines.extend(report.provenance.iter().map(|(key, value)| (key.as_str(), value.clone())));
    let lines: String = lines
        .iter()
        .map(|(key, value)| {
            format!("<div><dt>{}</dt><dd dir=\"auto\">{}</dd></div>", escape(key), escape(value))
        })
        .collect();
    format!("<dl class=\"list\">{lines}</dl>\n")
}
