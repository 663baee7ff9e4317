//! How a student's confidence deviates from its teacher's: a picture, the slopes and what to do.

use super::table::{Cell, Head, Order, count, markup, none, number, table, text};
use crate::deviation::p_shown;
use crate::format::{self, escape, rate};
use crate::{
    ClassGaps, Directions, Fit, GradientNoise, Interval, Part, PartNoise, Report, RowsOf,
    of_batches, plot,
};

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
            name(part.rows_of),
            escape(&part.data),
        ));
    }
    out.push_str("</div>\n");
    for part in &diagnosis.parts {
        let crossing = part.crossing.map(|x| format!("{x:.3}").replace('-', "−"));
        let crossing = crossing.map(|x| format!("; the fitted line meets y = x at {x}"));
        out.push_str(&format!(
            "<p>{}.</p>\n<p class=\"note\">Right: teacher {}, student {}. They agree on {}. Spearman’s ρ {}{}.</p>\n",
            escape(&part.said),
            rate(&part.teacher_accuracy),
            rate(&part.student_accuracy),
            rate(&part.agreement),
            format::number(part.spearman),
            crossing.unwrap_or_default(),
        ));
        out.push_str(&slopes(part, diagnosis.quantile));
        if let Some(gaps) = &part.class_gaps {
            out.push_str(&classes(part, gaps));
        }
    }
    if let Some(switch) = &diagnosis.switch {
        out.push_str(&format!("<p>Switch: {}.</p>\n", escape(&switch.said)));
    }
    if let Some(directions) = &diagnosis.directions {
        out.push_str(&ways(directions));
    }
    if let Some(noise) = &diagnosis.gradients {
        out.push_str(&gradients(noise));
    }
    out
}

fn gradients(noise: &GradientNoise) -> String {
    let mut out = format!(
        "<p>Gradients of the student, over {} batches, {}, of the {} <bdi>{}</bdi>: a is the labels’, b the teacher’s part, and distillation descends a − λ·b, here at λ {}.</p>\n",
        format::count(noise.batches),
        format::rows(noise.rows),
        name(noise.rows_of).to_lowercase(),
        escape(&noise.data),
        noise.lambda,
    );
    out.push_str("<ul>\n");
    noise.said.iter().for_each(|said| out.push_str(&format!("<li>{}.</li>\n", escape(said))));
    out.push_str(&format!(
        "</ul>\n<div class=\"pair\">\n<figure>{}<figcaption>Batches by the cosine between two gradients. <span class=\"key new\"></span>the labels’ and distillation’s ({} batches) <span class=\"key old\"></span>distillation’s and the same with the teacher’s own ({}).</figcaption></figure>\n</div>\n",
        plot::cosines(&noise.label_cosines, &noise.cosines),
        format::count(noise.label_cosines.len() as u64),
        format::count(noise.cosines.len() as u64),
    ));
    let heads = [
        Head::Text("part"),
        Head::Number("weights"),
        Head::Number("variance of a"),
        Head::Number("E‖a‖²"),
        Head::Number("λ̂"),
        Head::Number("λ̂, centred"),
        Head::Number("ρ²"),
        Head::Number("variance left at λ"),
        Head::Number("and at the best"),
    ];
    let cells = |part: &PartNoise, name: &str, batches: u64| {
        let known = |value: Option<f64>| {
            value.map_or(none(), |value| number(value, of_batches(Some(value), batches)))
        };
        let small = |value: f64| number(value, format!("{value:.2e}").replace('-', "−"));
        vec![
            text(name),
            count(part.numbers),
            small(part.variance),
            small(part.square),
            known(part.lambda_hat),
            known(part.lambda_hat_centred),
            known(part.rho2_centred),
            known(part.left),
            known(part.left_at_best),
        ]
    };
    let mut lines: Vec<Vec<Cell>> =
        noise.parts.iter().map(|part| cells(part, &part.name, noise.batches)).collect();
    let own = noise.own.as_ref().map(|own| {
        cells(
            own,
            &format!("with the teacher’s own ({} batches)", noise.own_batches),
            noise.own_batches,
        )
    });
    lines.extend(own);
    out + &table("Noise of the student’s gradients", &heads, &lines, Order::Fixed)
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
                class.p.map_or(none(), |p| number(p, p_shown(Some(p)))),
            ]
        })
        .collect();
    let title = format!("The teacher’s scores by class, {}", name(part.rows_of).to_lowercase());
    format!(
        "<p>Scores by class: {}.</p>\n{}",
        escape(&gaps.said),
        table(&title, &heads, &lines, Order::Sortable)
    )
}

fn name(rows_of: RowsOf) -> &'static str {
    match rows_of {
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
        &format!("Slopes of student on teacher, {}", name(part.rows_of).to_lowercase()),
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
    if fit.rows == 0 {
        return vec![text(name), count(0), none(), none(), none(), none()];
    }
    vec![
        text(name),
        count(fit.rows),
        plain(fit.from),
        plain(fit.to),
        fit.line.map_or(none(), |line| with(line.slope, &line.interval, 3)),
        with(fit.mean_deviation, &fit.mean_interval, 2),
    ]
}
