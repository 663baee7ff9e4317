//! What changed: rates with intervals for all, old and new rows, and which errors both models make.

use super::table::{Cell, Head, Order, markup, none, number, rate, table, text};
use crate::format::{self, count, p_value, percent, rows};
use crate::plot::{self, Bar};
use crate::{Certificate, Comparison, Measured, Rate, Report};

pub(super) fn changes(report: &Report) -> String {
    let comparison = &report.comparison;
    let splits = splits(comparison);
    let mut out = figure(report, &splits);
    out.push_str(&notes(comparison));
    out.push_str(&measures(&splits));
    out
}

fn splits(comparison: &Comparison) -> Vec<(&'static str, &Measured)> {
    let old = comparison.old_rows.as_ref().map(|measured| ("old rows", measured));
    let new = comparison.new_rows.as_ref().map(|measured| ("new rows", measured));
    [Some(("all rows", &comparison.all)), old, new].into_iter().flatten().collect()
}

fn limit(certificate: &Option<Certificate>, name: &str) -> Option<f64> {
    let checks = &certificate.as_ref()?.checks;
    checks.iter().find(|check| check.name == name).map(|check| check.limit)
}

fn figure(report: &Report, splits: &[(&'static str, &Measured)]) -> String {
    let all = &report.comparison.all;
    let mut bars = Vec::new();
    let mut add = |name: &str, rate: &Option<Rate>, limit| {
        bars.extend(rate.map(|rate| Bar { name: name.to_string(), rate, limit }));
    };
    add("churn", &all.churn, limit(&report.certificate, "churn"));
    for (split, measured) in &splits[1..] {
        add(&format!("churn of {split}"), &measured.churn, None);
    }
    add("negative flips", &all.nfr, limit(&report.certificate, "nfr"));
    add("positive flips", &all.pfr, None);
    add("lateral", &all.lateral, None);
    if bars.is_empty() {
        return String::new();
    }
    let floor = report.comparison.seed_floor.map(|floor| floor.value);
    let confidence = percent(bars[0].rate.interval.confidence).replace(".00%", "%");
    format!(
        "<figure>{}<figcaption>Points are shares of these rows, whiskers exact {confidence} intervals (Clopper–Pearson).</figcaption></figure>\n",
        plot::rates(&bars, floor)
    )
}

fn notes(comparison: &Comparison) -> String {
    let mut out = String::new();
    let flips = &comparison.all.flips;
    if flips.changed == 0 {
        out.push_str("<p>No prediction changed.</p>\n");
    }
    if let Some(floor) = &comparison.seed_floor {
        out.push_str(&format!(
            "<p>Seed floor: two runs that differ by their seed alone disagree on {} of the rows ({}). Churn around this is what training again costs anyway.</p>\n",
            percent(floor.value),
            format::range(&floor.interval)
        ));
    }
    if let Some(ratio) = comparison.churn_ratio {
        out.push_str(&format!(
            "<p>Churn is {} × that of a plain retrain.</p>\n",
            format::number(Some(ratio))
        ));
    }
    let unlabelled = flips.rows.saturating_sub(flips.labelled);
    if unlabelled > 0 {
        out.push_str(&format!(
            "<p>{} of {} have no true label: they count for churn, not for flips.</p>\n",
            count(unlabelled),
            rows(flips.rows)
        ));
    }
    if comparison.n_only_old + comparison.n_only_new > 0 {
        out.push_str(&format!(
            "<p>Left out: {} in the old file alone, {} in the new file alone.</p>\n",
            rows(comparison.n_only_old),
            rows(comparison.n_only_new)
        ));
    }
    out
}

/// A measure with how it is written and where it is found.
type Line = (&'static str, fn(&Measured) -> Cell);

const LINES: [Line; 15] = [
    ("rows", |of| super::table::count(of.flips.rows)),
    ("churn", |of| rate(&of.churn)),
    ("NFR, negative flips", |of| rate(&of.nfr)),
    ("PFR, positive flips", |of| rate(&of.pfr)),
    ("lateral, wrong to other wrong", |of| rate(&of.lateral)),
    ("accuracy, old", |of| rate(&of.accuracy_old)),
    ("accuracy, new", |of| rate(&of.accuracy_new)),
    ("accuracy gain", |of| {
        of.accuracy_gain.as_ref().map_or(none(), |gain| {
            markup(format!(
                "{}<small>{}</small>",
                format::points(gain.value),
                format::signed_range(&gain.interval)
            ))
        })
    }),
    ("NFI, share of new errors that are flips", |of| plain(of.nfi)),
    ("PFI, share of new rights that are flips", |of| plain(of.pfi)),
    ("relative NFR (1 = as if independent)", |of| plain(of.relative_nfr)),
    ("win–loss ratio, PFR ÷ NFR", |of| plain(of.win_loss)),
    ("BTC, old rights kept", |of| plain(of.btc)),
    ("BEC, new errors that are old", |of| plain(of.bec)),
    ("McNemar p, exact (mid-p)", |of| {
        of.mcnemar.map_or(none(), |test| {
            number(test.exact, format!("{} ({})", p_value(test.exact), p_value(test.mid)))
        })
    }),
];

fn plain(value: Option<f64>) -> Cell {
    value.map_or(none(), |value| number(value, format::number(Some(value))))
}

fn measures(splits: &[(&'static str, &Measured)]) -> String {
    let mut heads = vec![Head::Text("measure")];
    heads.extend(splits.iter().map(|(name, _)| Head::Number(name)));
    let lines: Vec<Vec<Cell>> = LINES
        .iter()
        .map(|(name, of)| {
            let mut cells = vec![text(name)];
            cells.extend(splits.iter().map(|(_, measured)| of(measured)));
            cells
        })
        .collect();
    table("Rates of change with intervals", &heads, &lines, Order::Fixed)
}

/// The 2×2 of right and wrong, and the five kinds of rows as one bar.
pub(super) fn overlap(report: &Report) -> String {
    let flips = &report.comparison.all.flips;
    if flips.labelled == 0 {
        return String::new();
    }
    let share = |rows: u64| rows as f64 / flips.labelled as f64;
    let kinds = [
        ("right", "both right", flips.both_right),
        ("positive", "positive flips", flips.positive),
        ("negative", "negative flips", flips.negative),
        ("lateral", "lateral", flips.lateral),
        ("wrong", "both wrong alike", flips.same_wrong),
    ];
    let bar: String = kinds
        .iter()
        .map(|(class, _, rows)| {
            format!("<span class=\"{class}\" style=\"flex-grow:{:.6}\"></span>", share(*rows))
        })
        .collect();
    let legend: String = kinds
        .iter()
        .map(|(class, name, rows)| {
            format!(
                "<li><span class=\"key {class}\"></span>{name} <b>{}</b> <small>{}</small></li>",
                count(*rows),
                percent(share(*rows))
            )
        })
        .collect();
    let cell =
        |rows: u64| number(rows as f64, format!("{} ({})", count(rows), percent(share(rows))));
    let heads = [Head::Text(""), Head::Number("new right"), Head::Number("new wrong")];
    let lines = [
        vec![text("old right"), cell(flips.both_right), cell(flips.negative)],
        vec![
            text("old wrong"),
            cell(flips.positive),
            cell(flips.lateral.saturating_add(flips.same_wrong)),
        ],
    ];
    format!(
        "<div class=\"stack\" aria-hidden=\"true\">{bar}</div>\n<ul class=\"legend\">{legend}</ul>\n{}",
        table("Labelled rows by right and wrong", &heads, &lines, Order::Fixed)
    )
}
