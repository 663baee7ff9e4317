//! Old and new side by side: accuracy, calibration, worst class, and what happened to the scores.

use super::table::{Cell, Head, Order, count, difference, markup, none, number, rate, table, text};
use crate::format::{self, escape, rows};
use crate::{Calibration, Report, plot};

pub(super) fn side_by_side(report: &Report) -> String {
    let heads = [
        Head::Text("measure"),
        Head::Number("old"),
        Head::Number("new"),
        Head::Number("difference"),
    ];
    let comparison = &report.comparison;
    let all = &comparison.all;
    let mut lines: Vec<Vec<Cell>> = Vec::new();
    if all.accuracy_old.is_some() || all.accuracy_new.is_some() {
        let gain = all.accuracy_gain.as_ref();
        let gain = gain.map_or(none(), |gain| {
            let range = format::signed_range(&gain.interval);
            markup(format!("{}<small>{range}</small>", format::points(gain.value)))
        });
        let right = comparison.answers.right();
        lines.push(vec![text(&right), rate(&all.accuracy_old), rate(&all.accuracy_new), gain]);
    }
    for (name, old, new) in comparison.answers.scores() {
        let plain =
            |value: Option<f64>| value.map_or(none(), |value| number(value, format!("{value:.4}")));
        let moved = change(old, new)
            .map_or(none(), |moved| number(moved, format!("{moved:+.4}").replace('-', "−")));
        lines.push(vec![text(name), plain(old), plain(new), moved]);
    }
    let worst = [&comparison.worst_class_old, &comparison.worst_class_new];
    if worst.iter().any(|worst| worst.is_some()) {
        let named = |worst: &Option<(String, f64)>| {
            worst.as_ref().map_or(none(), |(label, recall)| {
                number(
                    *recall,
                    format!("{} ({})", format::percent(*recall), format::cut(label, 40)),
                )
            })
        };
        let [old, new] = worst.map(|worst| worst.as_ref().map(|(_, recall)| *recall));
        lines.push(vec![
            text("recall of the worst class"),
            named(worst[0]),
            named(worst[1]),
            difference(change(old, new)),
        ]);
    }
    if let Some(worst) = &comparison.worst_classes {
        let plain = |value: Option<f64>| {
            value.map_or(none(), |value| number(value, format::percent(value)))
        };
        if let Some(k) = worst.k {
            let (old, new) = (worst.mean_recall_old, worst.mean_recall_new);
            let name = format!("mean recall of the {k} worst classes");
            lines.push(vec![text(&name), plain(old), plain(new), difference(change(old, new))]);
        }
        if let Some((label, nfr)) = &worst.nfr {
            let named = format!("{} ({})", format::percent(*nfr), format::cut(label, 40));
            lines.push(vec![text("highest NFR of a class"), none(), number(*nfr, named), none()]);
        }
    }
    if let Some(soft) = &comparison.soft {
        let sides = [&soft.calibration_old, &soft.calibration_new];
        for (name, of) in [
            ("ECE, 15 bins (lower is better)", ece as fn(&Calibration) -> f64),
            ("Brier score (lower is better)", brier),
        ] {
            let [old, new] = sides.map(|side| side.as_ref().map(of));
            if old.is_some() || new.is_some() {
                let plain = |value: Option<f64>| {
                    value.map_or(none(), |value| number(value, format!("{value:.4}")))
                };
                let moved = change(old, new).map_or(none(), |moved| {
                    number(moved, format!("{moved:+.4}").replace('-', "−"))
                });
                lines.push(vec![text(name), plain(old), plain(new), moved]);
            }
        }
    }
    if lines.is_empty() {
        return "<p class=\"note\">No row has a true label and no file has scores, so only changes can be counted.</p>\n".to_string();
    }
    table("Old and new model on the same rows", &heads, &lines, Order::Fixed)
}

fn ece(calibration: &Calibration) -> f64 {
    calibration.ece
}

fn brier(calibration: &Calibration) -> f64 {
    calibration.brier
}

fn change(old: Option<f64>, new: Option<f64>) -> Option<f64> {
    Some(new? - old?)
}

/// How far scores moved, thresholds they crossed, and whether they can be believed.
pub(super) fn scores(report: &Report) -> String {
    let Some(soft) = &report.comparison.soft else { return String::new() };
    let mut out = format!(
        "<p>Over {rows}, scores moved by a total variation of {tv} in the mean; KL(old ‖ new) is {kl} nats.</p>\n",
        rows = rows(soft.rows),
        tv = format::number(Some(soft.total_variation)),
        kl = format::number(Some(soft.kl_old_new)),
    );
    if soft.kl_floored > 0 {
        out.push_str(&format!(
            "<p class=\"note\">{} had a new score of 0 where the old one wasn't; for KL, it counts as 10⁻¹².</p>\n",
            rows(soft.kl_floored)
        ));
    }
    out.push_str("<div class=\"pair\">\n");
    if soft.shift.iter().any(|rows| *rows > 0) {
        out.push_str(&format!(
            "<figure>{}<figcaption>How much less or more sure the new model is of what the old one said.</figcaption></figure>\n",
            plot::shift(&soft.shift)
        ));
    }
    if soft.calibration_old.is_some() || soft.calibration_new.is_some() {
        out.push_str(&format!(
            "<figure>{}<figcaption><span class=\"key old\"></span>old <span class=\"key new\"></span>new. On the diagonal, a score of 80% is right four times in five. Larger dots hold more rows.</figcaption></figure>\n",
            plot::reliability(soft.calibration_old.as_ref(), soft.calibration_new.as_ref())
        ));
    }
    out.push_str("</div>\n");
    if !soft.crossings.is_empty() {
        let heads = [
            Head::Text("class"),
            Head::Number("threshold"),
            Head::Number("rows that rose above"),
            Head::Number("rows that fell below"),
        ];
        let lines: Vec<Vec<Cell>> = soft
            .crossings
            .iter()
            .map(|crossing| {
                vec![
                    text(&crossing.label),
                    number(crossing.threshold, escape(&crossing.threshold.to_string())),
                    count(crossing.up),
                    count(crossing.down),
                ]
            })
            .collect();
        out.push_str(&table(
            "Rows whose score crossed a threshold",
            &heads,
            &lines,
            Order::Sortable,
        ));
    }
    out
}
