//! The verdict on top: what was promised, whether it holds, and what is missing to know.

use super::table::{Cell, Head, Order, markup, number, table, text};
use crate::format::{self, NONE, escape, percent, points};
use crate::{Certificate, Check, Interval, Report, Sense, Verdict};

/// Limits that a sentence names: there may be one a slice.
const NAMES_SHOWN: usize = 4;

/// The banner, the checks behind it, and the numbers everybody asks for first.
pub(super) fn verdict(report: &Report) -> String {
    let (class, word, sentence, checks) = match &report.certificate {
        Some(certificate) => (
            class(certificate.verdict),
            certificate.verdict.word(),
            sentence(certificate),
            checks(certificate),
        ),
        None => (
            "none",
            "NOT GATED",
            "No budget was given, so nothing was promised and nothing is judged.".to_string(),
            String::new(),
        ),
    };
    format!(
        "<section class=\"verdict {class}\" aria-labelledby=\"verdict\">\n<h2 id=\"verdict\">{word}</h2>\n<p>{}</p>\n{}{checks}</section>\n{}",
        escape(&sentence),
        rows_chose(report).map_or(String::new(), |said| format!("<p>{}</p>\n", escape(&said))),
        key_figures(report),
    )
}

fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Fail => "fail",
        Verdict::Inconclusive => "open",
    }
}

/// A word with its colour and its sign: colour is never alone.
pub(super) fn badge(verdict: Verdict) -> Cell {
    markup(format!("<span class=\"badge {}\">{}</span>", class(verdict), verdict.word()))
}

/// The verdict in a sentence, for the banner and for Markdown.
pub(crate) fn sentence(certificate: &Certificate) -> String {
    let named = |verdict: Verdict| {
        let checks = certificate.checks.iter().filter(|check| check.verdict == verdict);
        let names: Vec<&str> = checks.map(|check| check.name.as_str()).collect();
        let shown = names.iter().take(NAMES_SHOWN).copied().collect::<Vec<_>>().join(", ");
        match names.len().saturating_sub(NAMES_SHOWN) {
            0 => shown,
            more => format!("{shown} and {more} more"),
        }
    };
    let confidence = percent(certificate.confidence).replace(".00%", "%");
    match certificate.verdict {
        Verdict::Pass if certificate.checks.len() == 1 => {
            format!("The limit on {} holds at {confidence} confidence.", named(Verdict::Pass))
        }
        Verdict::Pass => {
            format!("All {} limits hold at {confidence} confidence.", certificate.checks.len())
        }
        Verdict::Fail => format!("Broken at {confidence} confidence: {}.", named(Verdict::Fail)),
        Verdict::Inconclusive => {
            let more = certificate.checks.iter().filter_map(|check| {
                let more = check.rows_needed?.checked_sub(check.of).filter(|more| *more > 0)?;
                Some((more, check))
            });
            let needed = match more.max_by_key(|(more, _)| *more) {
                Some((more, check)) => format!(
                    "{} more would decide, {} in all, if they behave like these",
                    format::rows(more),
                    format::count(check.of + more)
                ),
                None => "what was observed is too near to the limit for any number of rows that can be stated".to_string(),
            };
            format!(
                "Too few rows to tell at {confidence} confidence: {}. {needed}.",
                named(Verdict::Inconclusive)
            )
        }
    }
}

/// What a reader must know of rows that took part in choosing.
pub(crate) fn rows_chose(report: &Report) -> Option<String> {
    let what = report.rows_chose.as_ref()?;
    Some(format!(
        "These rows chose {what}: fresh rows will look worse, and no limit is certified on these."
    ))
}

/// The limit with the side that is allowed.
pub(crate) fn limit(check: &Check) -> String {
    let sign = match check.sense {
        Sense::AtMost => "≤",
        Sense::AtLeast => "≥",
    };
    format!("{sign} {}", amount(check, check.limit))
}

/// Both bounds, in the unit of the check.
pub(crate) fn bounds(check: &Check) -> String {
    let interval = Interval { low: check.low, high: check.high, confidence: check.confidence };
    match check.sense {
        Sense::AtLeast => format!("{} points", format::signed_range(&interval)),
        Sense::AtMost => format::range(&interval),
    }
}

/// What is at least something is a gain, a difference with a sign; the rest are shares.
pub(crate) fn amount(check: &Check, value: f64) -> String {
    match check.sense {
        Sense::AtLeast => points(value),
        Sense::AtMost => percent(value),
    }
}

fn checks(certificate: &Certificate) -> String {
    let heads = [
        Head::Text("check"),
        Head::Text("verdict"),
        Head::Number("limit"),
        Head::Number("observed"),
        Head::Number("rows"),
        Head::Number("bounds"),
        Head::Number("rows needed"),
    ];
    let rows: Vec<Vec<Cell>> = certificate
        .checks
        .iter()
        .map(|check| {
            vec![
                text(&check.name),
                badge(check.verdict),
                number(check.limit, limit(check)),
                number(check.observed, amount(check, check.observed)),
                number(
                    check.of as f64,
                    format!("{} of {}", format::count(check.count), format::count(check.of)),
                ),
                number(check.high, bounds(check)),
                number(
                    check.rows_needed.map_or(f64::NAN, |rows| rows as f64),
                    check.rows_needed.map_or(NONE.to_string(), format::count),
                ),
            ]
        })
        .collect();
    let table = table("Checks of the budget", &heads, &rows, Order::Fixed);
    // What a limit that holds says stands in its row; where one doesn't, the sentence has more, such as ids.
    let open = certificate.checks.iter().filter(|check| check.verdict != Verdict::Pass);
    let said: String = open.map(|check| format!("<li>{}</li>", escape(&check.said))).collect();
    let said = if said.is_empty() { said } else { format!("<ul class=\"said\">{said}</ul>\n") };
    let notes = [&certificate.correction].into_iter().chain(&certificate.notes);
    let notes: String =
        notes.map(|note| format!("<p class=\"note\">{}</p>\n", escape(note))).collect();
    table + &said + &notes
}

/// Four numbers with their intervals.
fn key_figures(report: &Report) -> String {
    let all = &report.comparison.all;
    let right = format!("{}, old → new", report.comparison.answers.right());
    let mut figures = Vec::new();
    if let (Some(old), Some(new)) = (&all.accuracy_old, &all.accuracy_new) {
        let shown = format!("{} → {}", percent(old.value), percent(new.value));
        let gain = all.accuracy_gain.as_ref();
        figures.push((
            right.as_str(),
            shown,
            gain.map_or(String::new(), |gain| {
                format!("{} ({})", points(gain.value), format::signed_range(&gain.interval))
            }),
        ));
    }
    for (name, rate) in [
        ("churn: predictions that changed", &all.churn),
        ("negative flips: right, now wrong", &all.nfr),
        ("positive flips: wrong, now right", &all.pfr),
    ] {
        if let Some(rate) = rate {
            let counts = format!(
                "{} of {}; {}",
                format::count(rate.count),
                format::count(rate.of),
                format::range(&rate.interval)
            );
            figures.push((name, percent(rate.value), counts));
        }
    }
    let figures: String = figures
        .iter()
        .map(|(name, shown, below)| {
            format!("<div><dt>{name}</dt><dd>{shown}<small>{below}</small></dd></div>")
        })
        .collect();
    format!("<dl class=\"figures\">{figures}</dl>\n")
}
