//! Where it changed: from class to class, by true class, by slice.

use super::table::{self, Cell, Head, Order, difference, markup, number, rate, share, text};
use crate::format::{NONE, count, escape, p_value, percent, range};
use crate::{FromTo, OfAnswers, OfClass, OfLabel, Report, Slice};

/// A matrix of more classes can't be read.
const CLASSES_IN_MATRIX: usize = 16;
const PAIRS_SHOWN: usize = 30;
const SLICES_SHOWN: usize = 200;

pub(super) fn from_to(report: &Report) -> String {
    let pairs = &report.comparison.from_to;
    if pairs.is_empty() {
        return String::new();
    }
    let mut moved: Vec<&FromTo> =
        pairs.iter().filter(|pair| pair.from != pair.to && pair.rows > 0).collect();
    moved.sort_by_key(|pair| std::cmp::Reverse(pair.rows));
    if moved.is_empty() {
        return "<p>No prediction changed its class.</p>\n".to_string();
    }
    let labels: Vec<&str> = report
        .labels
        .iter()
        .map(String::as_str)
        .filter(|label| {
            pairs.iter().any(|pair| pair.rows > 0 && (pair.from == **label || pair.to == **label))
        })
        .collect();
    let matrix =
        if labels.len() <= CLASSES_IN_MATRIX { matrix(&labels, pairs) } else { String::new() };
    let left_out = moved.len().saturating_sub(PAIRS_SHOWN);
    let heads = [
        Head::Text("from (old)"),
        Head::Text("to (new)"),
        Head::Number("rows"),
        Head::Number("negative"),
        Head::Number("positive"),
    ];
    let lines: Vec<Vec<Cell>> = moved
        .iter()
        .take(PAIRS_SHOWN)
        .map(|pair| {
            vec![
                text(&pair.from),
                text(&pair.to),
                table::count(pair.rows),
                table::count(pair.negative),
                table::count(pair.positive),
            ]
        })
        .collect();
    let mut out = matrix
        + &table::table(
            "Changed predictions by old and new class",
            &heads,
            &lines,
            Order::Sortable,
        );
    if left_out > 0 {
        out.push_str(&format!("<p class=\"note\">The {PAIRS_SHOWN} pairs with most rows; report.json has {left_out} more.</p>\n"));
    }
    out
}

/// Old classes down, new ones across; the heat is that of changed rows alone, or the diagonal would hide them.
fn matrix(labels: &[&str], pairs: &[FromTo]) -> String {
    let hottest = pairs
        .iter()
        .filter(|pair| pair.from != pair.to)
        .map(|pair| pair.rows)
        .max()
        .unwrap_or(0)
        .max(1);
    let mut head = String::from("<th scope=\"col\"><small>old ↓ new →</small></th>");
    for label in labels {
        head.push_str(&format!("<th scope=\"col\" class=\"n\"><bdi>{}</bdi></th>", escape(label)));
    }
    let mut body = String::new();
    for from in labels {
        body.push_str(&format!("<tr><th scope=\"row\"><bdi>{}</bdi></th>", escape(from)));
        for to in labels {
            let found = pairs.iter().find(|pair| pair.from == *from && pair.to == *to);
            let rows = found.map_or(0, |pair| pair.rows);
            if from == to {
                body.push_str(&format!("<td class=\"n same\">{}</td>", count(rows)));
                continue;
            }
            let title = found.map_or(String::new(), |pair| {
                format!(
                    "{} negative, {} positive flips",
                    count(pair.negative),
                    count(pair.positive)
                )
            });
            let heat = rows as f64 / hottest as f64;
            body.push_str(&format!(
                "<td class=\"n heat\" style=\"--heat:{heat:.3}\" title=\"{title}\">{}</td>",
                count(rows)
            ));
        }
        body.push_str("</tr>\n");
    }
    format!(
        "<div class=\"scroll\" role=\"region\" aria-label=\"Matrix from old to new class\" tabindex=\"0\"><table class=\"matrix\"><caption>Rows from old class to new class</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n"
    )
}

pub(super) fn classes(report: &Report) -> String {
    let classes = &report.comparison.classes;
    if classes.iter().all(|class| class.flips.rows == 0) {
        return String::new();
    }
    let heads = [
        Head::Text("true class"),
        Head::Number("rows"),
        Head::Number("recall, old"),
        Head::Number("recall, new"),
        Head::Number("difference"),
        Head::Number("changed"),
        Head::Number("negative"),
        Head::Number("positive"),
        Head::Number("NFR"),
    ];
    let line = |class: &OfClass| {
        let change = class.recall_old.zip(class.recall_new).map(|(old, new)| new - old);
        vec![
            text(&class.label),
            table::count(class.flips.rows),
            share(class.recall_old),
            share(class.recall_new),
            difference(change),
            table::count(class.flips.changed),
            table::count(class.flips.negative),
            table::count(class.flips.positive),
            rate(&class.nfr),
        ]
    };
    let lines: Vec<Vec<Cell>> = classes.iter().map(line).collect();
    table::table("Recall and flips by true class", &heads, &lines, Order::Sortable)
}

/// Each label of a multi-label task by itself.
pub(super) fn labels(report: &Report) -> String {
    let OfAnswers::Sets { labels, .. } = &report.comparison.answers else { return String::new() };
    let heads = [
        Head::Text("label"),
        Head::Number("churn"),
        Head::Number("negative"),
        Head::Number("positive"),
        Head::Number("NFR"),
        Head::Number("F1, old"),
        Head::Number("F1, new"),
    ];
    let score = |value: Option<f64>| {
        value.map_or(table::none(), |value| number(value, format!("{value:.4}")))
    };
    let line = |of: &OfLabel| {
        vec![
            text(&of.label),
            rate(&of.churn),
            table::count(of.flips.negative),
            table::count(of.flips.positive),
            rate(&of.nfr),
            score(of.f1_old),
            score(of.f1_new),
        ]
    };
    let lines: Vec<Vec<Cell>> = labels.iter().map(line).collect();
    table::table(
        "Whether each label is said to hold, over all rows",
        &heads,
        &lines,
        Order::Sortable,
    )
}

pub(super) fn slices(report: &Report) -> String {
    let slices = &report.comparison.slices;
    if slices.is_empty() {
        return String::new();
    }
    let heads = [
        Head::Text("slice"),
        Head::Number("rows"),
        Head::Number("churn"),
        Head::Number("NFR"),
        Head::Number("accuracy, old"),
        Head::Number("accuracy, new"),
        Head::Number("p, corrected"),
    ];
    let highest =
        slices.iter().filter_map(|slice| Some(slice.measured.churn?.value)).fold(0.01, f64::max);
    let line = |slice: &Slice| {
        let measured = &slice.measured;
        vec![
            text(&slice.name),
            table::count(measured.flips.rows),
            bar(slice, highest),
            rate(&measured.nfr),
            share(measured.accuracy_old.map(|rate| rate.value)),
            share(measured.accuracy_new.map(|rate| rate.value)),
            number(
                slice.p_corrected.unwrap_or(f64::NAN),
                slice.p_corrected.map_or(NONE.to_string(), p_value),
            ),
        ]
    };
    let lines: Vec<Vec<Cell>> = slices.iter().take(SLICES_SHOWN).map(line).collect();
    let mut out = table::table("Slices by churn", &heads, &lines, Order::Sortable);
    let mut notes = Vec::new();
    if slices.len() > SLICES_SHOWN {
        let all = count(slices.len() as u64);
        notes.push(format!(
            "Here are the worst {SLICES_SHOWN} of {all} slices; report.json has all."
        ));
    }
    if let Some(correction) = &report.comparison.slice_correction {
        notes.push(format!("p asks whether a slice churns like the other rows: {correction}."));
    }
    if report.comparison.n_small_slices > 0 {
        let small = count(report.comparison.n_small_slices);
        notes.push(format!("Slices left out for having too few rows: {small}."));
    }
    if !notes.is_empty() {
        out.push_str(&format!("<p class=\"note\">{}</p>\n", escape(&notes.join(" "))));
    }
    out
}

/// Churn with a bar behind it, the longest one that of the worst slice.
fn bar(slice: &Slice, highest: f64) -> Cell {
    let Some(churn) = slice.measured.churn else { return table::none() };
    let width = (churn.value / highest).clamp(0.0, 1.0);
    let html = format!(
        "<span class=\"bar\" style=\"--w:{width:.3}\"></span>{}<small>{}</small>",
        percent(churn.value),
        range(&churn.interval)
    );
    markup(html).keyed(churn.value)
}
