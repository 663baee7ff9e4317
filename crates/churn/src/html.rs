//! The report as one HTML file that opens offline: no server, no network, no library.
//!
//! A function a section, each from the report alone; a section without anything to say is left out. All is there without
//! the script, which only sorts, filters and pages tables. The page forbids itself every other source and script.

use crate::Report;
use crate::format::{escape, rows, short_hash};

mod behaviour;
mod changes;
mod diagnosis;
mod flips;
mod history;
mod provenance;
mod sides;
mod sweep;
mod table;
mod verdict;

pub(crate) use verdict::{amount, bounds, limit, rows_chose, sentence};

const STYLE: &str = include_str!("report/report.css");
const SCRIPT: &str = include_str!("report/report.js");
/// Of [`SCRIPT`], so that no other script runs, whatever a text of the data might hold. A test holds the two together.
const SCRIPT_SHA256: &str = "sha256-R4i72hkl2napPVa5gZSuhp3jQyMNcCA9Cuyi+8xdjpE=";

/// The whole page. Every text of the data is escaped.
pub fn html(report: &Report) -> String {
    let sections = [
        ("sides", "Old and new", sides::side_by_side(report)),
        ("changes", "What changed", changes::changes(report)),
        ("overlap", "Which errors both make", changes::overlap(report)),
        ("flips", "Changed rows", flips::flips(report)),
        ("history", "Releases", history::history(report)),
        ("from-to", "From which class to which", behaviour::from_to(report)),
        ("classes", "By true class", behaviour::classes(report)),
        ("labels", "By label", behaviour::labels(report)),
        ("slices", "Slices, worst first", behaviour::slices(report)),
        ("scores", "Scores", sides::scores(report)),
        ("deviations", "Student and teacher", diagnosis::diagnosis(report)),
        ("frontier", "Accuracy against churn", sweep::frontier(report)),
        ("candidates", "Candidates walked", sweep::candidates(report)),
        ("words", "Words", provenance::words()),
        ("provenance", "Provenance", provenance::provenance(report)),
    ];
    let present = || sections.iter().filter(|(_, _, body)| !body.is_empty());
    let links: String =
        present().map(|(id, title, _)| format!("<a href=\"#{id}\">{title}</a>\n")).collect();
    let bodies: String = present()
        .map(|(id, title, body)| {
            format!("<section id=\"{id}\">\n<h2>{title}</h2>\n{body}</section>\n")
        })
        .collect();
    format!(
        "{head}<body>\n<a class=\"skip\" href=\"#main\">To the verdict</a>\n{top}<main id=\"main\">\n{verdict}<nav aria-label=\"Sections\">\n{links}</nav>\n{bodies}</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n",
        head = head(report),
        top = top(report),
        verdict = verdict::verdict(report),
    )
}

fn head(report: &Report) -> String {
    let policy = format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src '{SCRIPT_SHA256}'; base-uri 'none'; form-action 'none'"
    );
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"generator\" content=\"lowchurn\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n",
        title = escape(&report.title),
    )
}

fn top(report: &Report) -> String {
    let side = |word: &str, side: &crate::Side| {
        let hash = side
            .sha256
            .as_deref()
            .map(|hash| format!(" <code>{}</code>", escape(&short_hash(hash))));
        format!(
            "<div><dt>{word}</dt><dd><bdi>{}</bdi>{}</dd></div>",
            escape(&side.name),
            hash.unwrap_or_default()
        )
    };
    format!(
        "<header>\n<h1 dir=\"auto\">{title}</h1>\n<dl class=\"facts\">{old}{new}<div><dt>rows</dt><dd><bdi>{data}</bdi>, {rows}</dd></div></dl>\n</header>\n",
        title = escape(&report.title),
        old = side("old", &report.old),
        new = side("new", &report.new),
        data = escape(&report.data),
        rows = rows(report.rows),
    )
}
