//! The changed rows: a table to search, filter and sort, with the training rows that are near.

use super::table::{Head, heading};
use crate::format::{NONE, count, cut, escape};
use crate::{Flip, FlipKind, Neighbour, Report};

/// More rows make a page of many megabytes; `report.json` has them.
const FLIPS_SHOWN: usize = 2_000;
/// Letters of a text that are shown at once, and letters that are there when it is unfolded.
const TEXT_SHOWN: usize = 320;
const TEXT_KEPT: usize = 2_000;

pub(super) fn flips(report: &Report) -> String {
    if report.flips.is_empty() {
        return match report.n_flips {
            0 => "<p>No prediction changed.</p>\n".to_string(),
            n => format!("<p>{} predictions changed; their rows weren't kept.</p>\n", count(n)),
        };
    }
    let shown = &report.flips[..report.flips.len().min(FLIPS_SHOWN)];
    let mut out = String::new();
    if (shown.len() as u64) < report.n_flips {
        out.push_str(&format!(
            "<p class=\"note\">Here are {} of {} changed rows, negative flips first; report.json lists {}, and flips.jsonl beside it all.</p>\n",
            count(shown.len() as u64),
            count(report.n_flips),
            count(report.flips.len() as u64)
        ));
    }
    let heads = [
        Head::Text("kind"),
        Head::Text("row"),
        Head::Text("true"),
        Head::Text("old"),
        Head::Number("score"),
        Head::Text("new"),
        Head::Number("score"),
    ];
    let heads: String = heads.into_iter().map(heading).collect();
    let rows: String = shown.iter().map(row).collect();
    out.push_str(&controls(shown));
    out.push_str(&format!(
        "<table id=\"flip-table\" class=\"sortable flips\"><caption>Rows whose prediction changed</caption>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody></table>\n"
    ));
    out.push_str("<p class=\"more\" hidden><button type=\"button\" data-more=\"100\">Show 100 more</button> <button type=\"button\" data-more=\"all\">Show all</button></p>\n");
    out
}

/// Hidden until the script is there to hear them.
fn controls(shown: &[Flip]) -> String {
    let kinds: Vec<&str> =
        [FlipKind::Negative, FlipKind::Lateral, FlipKind::Positive, FlipKind::Unlabelled]
            .into_iter()
            .filter(|kind| shown.iter().any(|flip| flip.kind == *kind))
            .map(name)
            .collect();
    let select = |id: &str, title: &str, values: &[&str]| {
        let options: String = values
            .iter()
            .map(|value| {
                format!(
                    "<option value=\"{0}\">{1}</option>",
                    escape(value),
                    escape(&cut(value, 40))
                )
            })
            .collect();
        format!(
            "<label>{title}<select id=\"{id}\"><option value=\"\">any</option>{options}</select></label>"
        )
    };
    format!(
        "<div class=\"controls\" role=\"search\" hidden>\n<label class=\"wide\">search<input id=\"flip-search\" type=\"search\" autocomplete=\"off\" spellcheck=\"false\"></label>\n{}\n{}\n{}\n<p id=\"flip-count\" role=\"status\"></p>\n</div>\n",
        select("flip-kind", "kind", &kinds),
        select("flip-old", "from", &values(shown, |flip| &flip.old)),
        select("flip-new", "to", &values(shown, |flip| &flip.new)),
    )
}

fn values(shown: &[Flip], of: fn(&Flip) -> &String) -> Vec<&str> {
    let mut found: Vec<&str> = shown.iter().map(|flip| of(flip).as_str()).collect();
    found.sort_unstable();
    found.dedup();
    found
}

pub(super) fn name(kind: FlipKind) -> &'static str {
    match kind {
        FlipKind::Negative => "negative",
        FlipKind::Lateral => "lateral",
        FlipKind::Positive => "positive",
        FlipKind::Unlabelled => "no label",
    }
}

fn row(flip: &Flip) -> String {
    let kind = name(flip.kind);
    let class = kind.replace(' ', "-");
    let cell = |label: &str, text: &str| {
        format!("<td data-label=\"{label}\" class=\"q\"><bdi>{}</bdi></td>", escape(text))
    };
    let score = |label: &str, score: Option<f64>| match score.filter(|score| score.is_finite()) {
        Some(score) => {
            format!("<td data-label=\"{label}\" class=\"n\" data-key=\"{score}\">{score:.3}</td>")
        }
        None => format!("<td data-label=\"{label}\" class=\"n\">{NONE}</td>"),
    };
    format!(
        "<tr data-kind=\"{kind}\" data-old=\"{old}\" data-new=\"{new}\"><td data-label=\"kind\" data-key=\"{order}\"><span class=\"kind {class}\">{kind}</span></td><th scope=\"row\" data-label=\"row\">{what}</th>{gold}{old_cell}{old_score}{new_cell}{new_score}</tr>\n",
        old = escape(&flip.old),
        new = escape(&flip.new),
        order = flip.kind as u8,
        what = what(flip),
        gold = cell("true", flip.gold.as_deref().unwrap_or(NONE)),
        old_cell = cell("old", &flip.old),
        old_score = score("old score", flip.old_score),
        new_cell = cell("new", &flip.new),
        new_score = score("new score", flip.new_score),
    )
}

/// Text first, since it is what people read; then the id and what is near.
fn what(flip: &Flip) -> String {
    let text = flip.text.as_deref().map(|text| match text.chars().count() {
        n if n <= TEXT_SHOWN => format!("<p class=\"text q\" dir=\"auto\">{}</p>", escape(text)),
        n => {
            let kept: String = text.chars().take(TEXT_KEPT).collect();
            let rest = match n.saturating_sub(TEXT_KEPT) {
                0 => String::new(),
                rest => format!(" <small>… {} more characters in report.json</small>", count(rest as u64)),
            };
            format!(
                "<details class=\"long\"><summary class=\"text\" dir=\"auto\">{}</summary><p class=\"text q\" dir=\"auto\">{}{rest}</p></details>",
                escape(&cut(text, TEXT_SHOWN)),
                escape(&kept)
            )
        }
    });
    let id = escape(&flip.id);
    let named = match text {
        Some(text) => format!("{text}<small class=\"q id\"><bdi>{id}</bdi></small>"),
        None => format!("<bdi class=\"q\">{id}</bdi>"),
    };
    named + &nearest(&flip.nearest)
}

fn nearest(rows: &[Neighbour]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let items: String = rows
        .iter()
        .map(|row| {
            let label = row.label.as_deref().map(|label| format!("<b><bdi>{}</bdi></b> ", escape(label)));
            format!(
                "<li>{}<span dir=\"auto\">{}</span> <small><bdi>{}</bdi>, cosine {:.3}</small></li>",
                label.unwrap_or_default(),
                escape(&cut(&row.text, TEXT_SHOWN)),
                escape(&row.id),
                row.similarity
            )
        })
        .collect();
    format!(
        "<details class=\"near\"><summary>nearest training rows ({})</summary><ol>{items}</ol></details>",
        rows.len()
    )
}
