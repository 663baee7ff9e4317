//! How a student's confidence deviates from its teacher's: a picture, the slopes and what to do.

use super::table::{Cell, Head, Order, count, markup, none, number, table, text};
use crate::format::{self, escape, rate};
use crate::{ClassGaps, Directions, Fit, Interval, Part, Report, RowsOf, plot};

pub(super) fn diagnosis(report: &Report) -> String {
    let Some(diagnosis) = &report.diagnosis else { return String::new() };
    let mut out = format!(
        "<p>Old is the teacher, new the student. {}</p>\n<div class=\"pair\">\n",
        escape(&diagnosis.advice)
    );
    for part in &diagnosis.parts {
        out.push_str(&format!(
            "<figure>{}<figcaption>{}: <bdi>{}</bdi>.</figcaption></figure>\n",
            plot::deviation(part),
            name(part),
            escape(&part.data),
        ));
    }
    out.push_str("</div>\n");
    for part in &diagnosis.parts {
        out.push_str(&format!(
            "<p>{}.</p>\n<p class=\"note\">Right: teacher {}, student {}. They agree on {}. Spearman’s ρ {}; the fitted line meets y = x at {}.</p>\n",
            escape(&part.said),
            rate(&part.teacher_accuracy),
            rate(&part.student_accuracy),
            rate(&part.agreement),
            format::number(part.spearman),
            format::number(part.crossing).replace('-', "−"),
        ));
        out.push_str(&slopes(part, diagnosis.quantile));
        if let Some(gaps) = &part.class_gaps {
            out.push_str(&classes(part, gaps));
        }
    }
    if let Some(directions) = &diagnosis.directions {
        out.push_str(&ways(directions));
    }
    out
}

fn ways(directions: &Directions) -> String {
    let mut out = format!("<p>Directions: {}.</p>\n", escape(&directions.said));
    if let Some(last) = directions.layers.last() {
        out.push_str(&format!(
            "<div class=\"pair\">\n<figure>{}<figcaption>How far the weights of <bdi>{}</bdi> went from where they started, along the first two eigenvectors of what they read, by checkpoint. <span class=\"key old\"></span>teacher <span class=\"key new\"></span>student.</figcaption></figure>\n</div>\n",
            plot::ways(last),
            escape(&last.name)
        ));
    }
    let heads = [
        Head::Text("weights"),
        Head::Number("λ₁ of their inputs"),
        Head::Number("λ₂"),
        Head::Number("teacher’s way over the student’s, mean over the others"),
        Head::Number("along v₂"),
    ];
    let lines: Vec<Vec<Cell>> = directions
        .layers
        .iter()
        .map(|layer| {
            vec![
                text(&layer.name),
                known(layer.eigenvalues.first().copied()),
                known(layer.eigenvalues.get(1).copied()),
                known(layer.ratio),
                known(layer.ratios.first().copied().flatten()),
            ]
        })
        .collect();
    out + &table("Ways at equal progress along the first direction", &heads, &lines, Order::Fixed)
}

fn classes(part: &Part, gaps: &ClassGaps) -> String {
    let heads = [
        Head::Text("class"),
        Head::Number("rows"),
        Head::Number("teacher’s mean score"),
        Head::Number("normalised calibration error"),
        Head::Number("the same by chance"),
        Head::Number("p"),
    ];
    let lines: Vec<Vec<Cell>> = gaps
        .classes
        .iter()
        .map(|class| {
            vec![
                text(&class.label),
                count(class.rows),
                known(Some(class.mean_score)),
                known(class.gap),
                known(class.by_chance),
                class.p.map_or(none(), |p| number(p, format::p_value(p))),
            ]
        })
        .collect();
    let title = format!("The teacher’s scores by class, {}", name(part).to_lowercase());
    format!(
        "<p>Scores by class: {}.</p>\n{}",
        escape(&gaps.said),
        table(&title, &heads, &lines, Order::Sortable)
    )
}

fn name(part: &Part) -> &'static str {
    match part.rows_of {
        RowsOf::Test => "Test rows",
        RowsOf::Train => "Training rows",
    }
}

/// With three decimals, where there is one.
fn known(value: Option<f64>) -> Cell {
    value.map_or(none(), |value| number(value, format::number(Some(value))))
}

fn slopes(part: &Part, quantile: f64) -> String {
    let heads = [
        Head::Text("rows by the teacher's confidence"),
        Head::Number("rows"),
        Head::Number("from"),
        Head::Number("to"),
        Head::Number("slope"),
        Head::Number("mean y − x"),
    ];
    let (low, high) = (100.0 * quantile, 100.0 * (1.0 - quantile));
    let mut fits = vec![
        ("all".to_string(), &part.all),
        (format!("lowest {low:.0}%"), &part.low),
        (format!("highest {high:.0}%"), &part.high),
    ];
    let quarters = part.quarters.iter().enumerate();
    fits.extend(quarters.map(|(at, fit)| (format!("quarter {}", at + 1), fit)));
    let lines: Vec<Vec<Cell>> = fits.iter().map(|(name, fit)| cells(name, fit)).collect();
    table(
        &format!("Slopes of student on teacher, {}", name(part).to_lowercase()),
        &heads,
        &lines,
        Order::Fixed,
    )
}

fn cells(name: &str, fit: &Fit) -> Vec<Cell> {
    let plain = |value: f64| number(value, format!("{value:.2}").replace('-', "−"));
    let with = |value: f64, interval: &Option<Interval>, digits: usize| {
        let shown = |x: f64| format!("{x:.digits$}").replace('-', "−");
        let interval = interval.map_or("no interval".to_string(), |interval| {
            format!("{} to {}", shown(interval.low), shown(interval.high))
        });
        markup(format!("{}<small>{interval}</small>", shown(value)))
    };
    vec![
        text(name),
        count(fit.rows),
        plain(fit.from),
        plain(fit.to),
        fit.line.map_or(none(), |line| with(line.slope, &line.interval, 3)),
        with(fit.mean_deviation, &fit.mean_interval, 2),
    ]
}
