//! Settings on the axes churn and accuracy, and the candidates that the budget walked.

use super::table::{Cell, Head, Order, markup, none, share, table, text};
use super::verdict::badge;
use crate::format::{escape, percent};
use crate::plot::{self, series_names};
use crate::{Mean, Point, Report, Step};

pub(super) fn frontier(report: &Report) -> String {
    if report.frontier.is_empty() {
        return String::new();
    }
    let floor = report.comparison.seed_floor.map(|floor| floor.value);
    let limit = report.certificate.as_ref().and_then(|certificate| {
        certificate.checks.iter().find(|check| check.name == "churn").map(|check| check.limit)
    });
    let legend: String = series_names(&report.frontier)
        .iter()
        .enumerate()
        .map(|(n, name)| format!("<li>{}<bdi>{}</bdi></li>", plot::swatch(n), escape(name)))
        .collect();
    let heads = [
        Head::Text("method"),
        Head::Text("start"),
        Head::Text("setting"),
        Head::Number("seeds"),
        Head::Number("accuracy"),
        Head::Number("churn"),
        Head::Number("NFR"),
        Head::Text("frontier"),
    ];
    let line = |point: &Point| {
        vec![
            text(&point.method),
            text(&point.init),
            text(&point.setting),
            seeds(point),
            mean(&point.accuracy),
            mean(&point.churn),
            mean(&point.nfr),
            text(if point.is_on_frontier { "yes" } else { "" }),
        ]
    };
    let lines: Vec<Vec<Cell>> = report.frontier.iter().map(line).collect();
    format!(
        "<figure class=\"wide\">{}<figcaption><ul class=\"legend\">{legend}</ul>Left and up is better. Crosses are one standard error over seeds; the broad grey line is the frontier, where no setting has both less churn and more accuracy.</figcaption></figure>\n<details><summary>The numbers behind the plot</summary>{}</details>\n",
        plot::frontier(&report.frontier, floor, limit),
        table("Settings with their means over seeds", &heads, &lines, Order::Sortable)
    )
}

/// How many, and which of the other settings' are missing: then means aren't over the same runs.
fn seeds(point: &Point) -> Cell {
    let missing: Vec<String> = point.missing_seeds.iter().map(u64::to_string).collect();
    let missing = match missing.is_empty() {
        true => String::new(),
        false => format!("<small>without {}</small>", missing.join(", ")),
    };
    let found = point.seeds.len();
    markup(format!("{found}{missing}")).keyed(found as f64)
}

fn mean(mean: &Mean) -> Cell {
    let error = mean.standard_error.filter(|error| error.is_finite());
    let error = error.map(|error| format!("<small>± {:.2}</small>", error * 100.0));
    markup(format!("{}{}", percent(mean.value), error.unwrap_or_default())).keyed(mean.value)
}

pub(super) fn candidates(report: &Report) -> String {
    let walked = report.certificate.as_ref().map_or(&[][..], |certificate| &certificate.walked);
    if walked.is_empty() {
        return String::new();
    }
    let heads = [
        Head::Text("candidate"),
        Head::Number("churn, calibration"),
        Head::Number("accuracy, calibration"),
        Head::Text("certified"),
        Head::Text("chosen"),
    ];
    let line = |step: &Step| {
        vec![
            text(&step.name),
            share(Some(step.calibration_churn)),
            share(step.calibration_accuracy),
            step.certified.map_or(text("not reached"), badge),
            if step.is_chosen { markup("<b>chosen</b>".to_string()) } else { none() },
        ]
    };
    let lines: Vec<Vec<Cell>> = walked.iter().map(line).collect();
    format!(
        "<p>From the one whose calibration rows leave least doubt of the budget on; the walk stops at the first that can't be certified on rows that took no part in choosing.</p>\n{}",
        table("Candidates from safest to boldest", &heads, &lines, Order::Fixed)
    )
}
