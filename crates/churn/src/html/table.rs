//! Tables: a caption for screen readers, a scope on each heading, keys to sort by.

use crate::Rate;
use crate::format::{self, escape};

/// A column's heading; numbers stand right.
#[derive(Clone, Copy)]
pub(super) enum Head {
    Text(&'static str),
    Number(&'static str),
}

/// Whether the order of the rows means something or is the reader's.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Order {
    Fixed,
    Sortable,
}

/// What stands in a cell, as HTML, and what it is sorted by where that isn't its text.
pub(super) struct Cell {
    html: String,
    key: Option<f64>,
}

impl Cell {
    pub(super) fn keyed(self, key: f64) -> Cell {
        Cell { key: key.is_finite().then_some(key), ..self }
    }
}

/// Text of the data or of ours, escaped; its direction is its own.
pub(super) fn text(text: &str) -> Cell {
    Cell { html: format!("<bdi>{}</bdi>", escape(text)), key: None }
}

/// HTML that was made here.
pub(super) fn markup(html: String) -> Cell {
    Cell { html, key: None }
}

pub(super) fn number(key: f64, shown: String) -> Cell {
    Cell { html: escape(&shown), key: key.is_finite().then_some(key) }
}

pub(super) fn count(value: u64) -> Cell {
    number(value as f64, format::count(value))
}

pub(super) fn share(value: Option<f64>) -> Cell {
    value.map_or(none(), |value| number(value, format::percent(value)))
}

/// A difference of shares with its sign.
pub(super) fn difference(value: Option<f64>) -> Cell {
    value.map_or(none(), |value| number(value, format::points(value)))
}

/// A share, with its interval small below it.
pub(super) fn rate(rate: &Option<Rate>) -> Cell {
    rate.as_ref().map_or(none(), |rate| Cell {
        html: format!(
            "{}<small>{}</small>",
            format::percent(rate.value),
            format::range(&rate.interval)
        ),
        key: Some(rate.value).filter(|key| key.is_finite()),
    })
}

pub(super) fn none() -> Cell {
    markup(format::NONE.to_string())
}

/// The first cell of a row is its heading.
pub(super) fn table(caption: &str, heads: &[Head], rows: &[Vec<Cell>], order: Order) -> String {
    let head: String = heads.iter().map(|head| heading(*head)).collect();
    let body: String = rows.iter().map(|cells| row(heads, cells)).collect();
    let class = if order == Order::Sortable { " class=\"sortable\"" } else { "" };
    let caption = escape(caption);
    format!(
        "<div class=\"scroll\" role=\"region\" aria-label=\"{caption}\" tabindex=\"0\"><table{class}><caption>{caption}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n"
    )
}

pub(super) fn heading(head: Head) -> String {
    match head {
        Head::Text(title) => format!("<th scope=\"col\">{title}</th>"),
        Head::Number(title) => format!("<th scope=\"col\" class=\"n\">{title}</th>"),
    }
}

fn row(heads: &[Head], cells: &[Cell]) -> String {
    let mut out = String::from("<tr>");
    for (n, (head, cell)) in heads.iter().zip(cells).enumerate() {
        let tag = if n == 0 { "th scope=\"row\"" } else { "td" };
        let class = if matches!(head, Head::Number(_)) { " class=\"n\"" } else { "" };
        let key = cell.key.map(|key| format!(" data-key=\"{key}\"")).unwrap_or_default();
        let close = if n == 0 { "th" } else { "td" };
        out.push_str(&format!("<{tag}{class}{key}>{}</{close}>", cell.html));
    }
    out + "</tr>\n"
}
