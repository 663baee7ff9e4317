//! Releases over time: churn of each against every earlier one, and the rows that changed more than once.

use super::table::{Cell, Head, Order, count, markup, rate, table, text};
use crate::format::{escape, rows};
use crate::{FlipFlop, History, Report, Since};

/// Rows that the page shows.
const SHOWN: usize = 200;

pub(super) fn history(report: &Report) -> String {
    let Some(history) = &report.history else { return String::new() };
    let name = |at: usize| history.releases.get(at).map_or("", |release| release.name.as_str());
    let heads = [
        Head::Text("release"),
        Head::Text("against"),
        Head::Number("right"),
        Head::Number("churn"),
        Head::Number("NFR"),
        Head::Number("rows changed"),
    ];
    let line = |since: &Since| {
        let right = history.releases.get(since.new).and_then(|release| release.accuracy);
        vec![
            text(name(since.new)),
            text(name(since.old)),
            rate(&right),
            rate(&since.churn),
            rate(&since.nfr),
            count(since.flips.changed),
        ]
    };
    let lines: Vec<Vec<Cell>> = history.since.iter().map(line).collect();
    format!(
        "<p>From the oldest release to the newest, {}.</p>\n{}{}",
        rows(history.rows),
        table("Each release against every earlier one", &heads, &lines, Order::Sortable),
        flip_flops(history)
    )
}

fn flip_flops(history: &History) -> String {
    if history.n_flip_flops == 0 {
        return "<p>No row changed more than once.</p>\n".to_string();
    }
    let heads = [
        Head::Text("row"),
        Head::Text("true"),
        Head::Text("answers, oldest first"),
        Head::Number("changes"),
    ];
    let line = |row: &FlipFlop| {
        let said: Vec<String> =
            row.said.iter().map(|said| format!("<bdi>{}</bdi>", escape(said))).collect();
        vec![
            text(row.text.as_deref().unwrap_or(&row.id)),
            text(row.gold.as_deref().unwrap_or_default()),
            markup(said.join(" → ")),
            count(row.changes),
        ]
    };
    let lines: Vec<Vec<Cell>> = history.flip_flops.iter().take(SHOWN).map(line).collect();
    format!(
        "<p>{} changed twice or more, {} of them back to the oldest release's answer; {} shown.</p>\n{}",
        rows(history.n_flip_flops),
        crate::format::count(history.n_back),
        lines.len(),
        table("Flip-flops, most changes first", &heads, &lines, Order::Sortable)
    )
}
