//! A diagnosis in words: what the slopes say, and what to do about it.

use super::{Finding, Fit, Part, RowsOf};
use crate::format::{count, percent};
use crate::slope::Line;

/// A slope that differs from 1 by less than this is called slight.
const SLIGHT: f64 = 0.05;
/// Of the rows that it was trained on; from here on a teacher is said to have fitted its labels.
const FITTED: f64 = 0.99;

/// Words of one part.
pub(super) fn said(part: &Part, quantile: f64) -> String {
    let name = match part.rows_of {
        RowsOf::Test => "test",
        RowsOf::Train => "training",
    };
    let start =
        format!("{} {name} {}", count(part.rows), if part.rows == 1 { "row" } else { "rows" });
    let Some(line) = part.all.line else {
        return match part.rows {
            0 | 1 => format!("{start}: too few for a slope"),
            _ => {
                format!("{start}: the teacher is equally sure of all of them, so there is no slope")
            }
        };
    };
    let slope = format!("{start}: slope {}", with_interval(&line));
    let of = match part.finding {
        Finding::NoSlope => return slope,
        Finding::Undecided if line.interval.is_none() => {
            return format!("{slope}; too few rows to say more");
        }
        Finding::Undecided => {
            return format!(
                "{slope}; the interval holds 1, so these rows don't say whether the student exaggerates"
            );
        }
        Finding::Exaggerates => "exaggerates",
        Finding::Softens => "softens",
    };
    let slightly = if (line.slope - 1.0).abs() < SLIGHT { " slightly" } else { "" };
    let how = match part.finding {
        Finding::Exaggerates => exaggerated(part, quantile),
        _ => ": it is more even, less sure where the teacher is sure or surer where it is unsure"
            .into(),
    };
    format!("{slope}; the student{slightly} {of} the teacher's confidence{how}")
}

fn exaggerated(part: &Part, quantile: f64) -> String {
    let mean = |fit: &Fit| format!("{:+.2}", fit.mean_deviation).replace('-', "−");
    let (low, high) =
        (format!("{:.0} %", 100.0 * quantile), format!("{:.0} %", 100.0 * (1.0 - quantile)));
    let under = format!(
        "less sure where the teacher is unsure (low-confidence underfitting, {} in the mean of the lowest {low})",
        mean(&part.low)
    );
    let over = format!(
        "surer where the teacher is sure (high-confidence overfitting, {} in the mean of the highest {high})",
        mean(&part.high)
    );
    match (is_under(part), is_over(part)) {
        (true, true) => format!(": it is {under} and {over}"),
        (true, false) => format!(": it is {under}"),
        (false, true) => format!(": it is {over}"),
        (false, false) => String::new(),
    }
}

fn is_under(part: &Part) -> bool {
    part.low.mean_interval.is_some_and(|interval| interval.high < 0.0)
}

fn is_over(part: &Part) -> bool {
    part.high.mean_interval.is_some_and(|interval| interval.low > 0.0)
}

fn with_interval(line: &Line) -> String {
    let slope = |x: f64| format!("{x:.3}").replace('-', "−");
    match line.interval {
        Some(interval) => {
            format!("{} ({} to {})", slope(line.slope), slope(interval.low), slope(interval.high))
        }
        None => format!("{} (no interval)", slope(line.slope)),
    }
}

/// What to do, by the first part, and by how well the teacher knows the rows that it was trained on. Measured, as far as that goes, in
/// experiments/deviations: a higher T and longer training bring y nearer to x, while the slope of a higher T is the steeper one.
pub(super) fn advice(parts: &[Part]) -> String {
    let Some(first) = parts.first() else { return String::new() };
    let train = parts.iter().find(|part| part.rows_of == RowsOf::Train);
    let what = match first.finding {
        Finding::NoSlope => {
            return "Nothing can be said of these rows; take others, or more.".into();
        }
        Finding::Undecided => {
            return "These rows give no reason to change how the student is trained; more rows would narrow the interval.".into();
        }
        Finding::Softens => "To follow the teacher more closely, train the student longer.",
        Finding::Exaggerates => match (is_under(first), is_over(first)) {
            (true, false) => {
                "To follow the teacher where it is unsure, raise T or train the student longer."
            }
            (false, true) => {
                "To follow the teacher where it is sure, raise T or stop the student earlier."
            }
            _ => "To follow the teacher more closely, raise T.",
        },
    };
    let worth = match (first.teacher_accuracy, first.student_accuracy) {
        (Some(teacher), Some(student)) => {
            let (is, so) = match student.count.cmp(&teacher.count) {
                std::cmp::Ordering::Less => ("less", "so the deviation isn't for the better"),
                std::cmp::Ordering::Equal => ("as", "so the deviation costs no accuracy here"),
                std::cmp::Ordering::Greater => {
                    ("more", "so where accuracy is the aim and churn isn't, leave it")
                }
            };
            let than = if is == "as" { "as" } else { "than" };
            format!(
                " The student is {is} often right {than} the teacher ({} and {}), {so}.",
                percent(student.value),
                percent(teacher.value)
            )
        }
        _ => String::new(),
    };
    // A teacher that doesn't fit its labels can't tell them to the student either.
    let labels = match train.and_then(|part| part.teacher_accuracy) {
        Some(rate) if rate.value < FITTED => format!(
            " Of the rows that it was trained on the teacher has {} right, so labels may add what it doesn't know: for accuracy try a \
             lower λ, or finish on them (--switch-at 75% --switch-to labels).",
            percent(rate.value)
        ),
        _ => String::new(),
    };
    format!("{what}{worth}{labels}")
}
