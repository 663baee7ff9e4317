//! A diagnosis in words: what the slopes say, and what to do about it.

use super::{Finding, Fit, MATTERS, Part, RowsOf, Taught, Temperature, Training};
use crate::format::{count, percent};
use crate::slope::Line;

/// A mean that differs from 0 by less is no finding: it moves a probability by 2.5 points at most.
const SHIFTS: f64 = 0.1;
/// Of the student's training rows; from here on a teacher is said to have fitted its labels.
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
        Finding::Undecided => return format!("{slope}; {}", undecided(&line)),
        Finding::Alike => return format!("{slope}; {}", alike(&part.all)),
        Finding::Exaggerates => "exaggerates",
        Finding::Softens => "softens",
    };
    let how = how(part, quantile);
    format!("{slope}; the student {of} the teacher's confidence{how}")
}

fn undecided(line: &Line) -> &'static str {
    match line.interval {
        None => "too few rows to say more",
        Some(interval) if interval.low > 1.0 || interval.high < 1.0 => {
            "that isn't 1, and more rows would say whether it is far enough from it to matter"
        }
        Some(_) => "the interval holds 1, so these rows don't say whether the student exaggerates",
    }
}

fn alike(all: &Fit) -> String {
    if is_same(all) {
        return "the two say the same of every row".into();
    }
    let near = format!("no further from 1 than {MATTERS}, which doesn't matter");
    match shift(all) {
        Shift::Up => format!("{near}, but the student is surer in the mean ({})", mean(all)),
        Shift::Down => format!("{near}, but the student is less sure in the mean ({})", mean(all)),
        Shift::No => format!("{near}: the student is as sure as the teacher"),
    }
}

/// No row deviates: a model beside itself.
fn is_same(all: &Fit) -> bool {
    all.mean_interval.is_some_and(|interval| interval.low == 0.0 && interval.high == 0.0)
}

/// Which half the slope comes from, with how much.
fn how(part: &Part, quantile: f64) -> String {
    let (low, high) =
        (format!("{:.0} %", 100.0 * quantile), format!("{:.0} %", 100.0 * (1.0 - quantile)));
    let of_low =
        |words: &str| format!("{words}{} in the mean of the lowest {low})", mean(&part.low));
    let of_high =
        |words: &str| format!("{words}{} in the mean of the highest {high})", mean(&part.high));
    let said: Vec<String> = match part.finding {
        Finding::Exaggerates => [
            is_under(part).then(|| {
                of_low("less sure where the teacher is unsure (low-confidence underfitting, ")
            }),
            is_over(part)
                .then(|| of_high("surer where the teacher is sure (high-confidence overfitting, ")),
        ],
        _ => [
            (shift(&part.high) == Shift::Down)
                .then(|| of_high("less sure where the teacher is sure (")),
            (shift(&part.low) == Shift::Up).then(|| of_low("surer where it is unsure (")),
        ],
    }
    .into_iter()
    .flatten()
    .collect();
    if said.is_empty() { String::new() } else { format!(": it is {}", said.join(" and ")) }
}

fn mean(fit: &Fit) -> String {
    format!("{:+.2}", fit.mean_deviation).replace('-', "−")
}

#[derive(PartialEq)]
enum Shift {
    Up,
    Down,
    No,
}

/// Which way the student deviates in the mean, by more than chance and by enough.
fn shift(fit: &Fit) -> Shift {
    match fit.mean_interval {
        Some(interval) if interval.low > 0.0 && fit.mean_deviation > SHIFTS => Shift::Up,
        Some(interval) if interval.high < 0.0 && fit.mean_deviation < -SHIFTS => Shift::Down,
        _ => Shift::No,
    }
}

fn is_under(part: &Part) -> bool {
    shift(&part.low) == Shift::Down
}

fn is_over(part: &Part) -> bool {
    shift(&part.high) == Shift::Up
}

pub(super) fn with_interval(line: &Line) -> String {
    let slope = |x: f64| format!("{x:.3}").replace('-', "−");
    match line.interval {
        Some(interval) => {
            format!("{} ({} to {})", slope(line.slope), slope(interval.low), slope(interval.high))
        }
        None => format!("{} (no interval)", slope(line.slope)),
    }
}

/// What to do, by the first part, by how well the teacher knows the rows that it was trained on, and by what is known of the training:
/// what can't be done or was done isn't advised.
pub(super) fn advice(parts: &[Part], training: &Training) -> String {
    let Some(first) = parts.first() else { return String::new() };
    let what = match first.finding {
        Finding::NoSlope => {
            return "Nothing can be said of these rows; take others, or more.".into();
        }
        Finding::Undecided => {
            return "These rows give no reason to change how the student is trained; more rows would narrow the interval.".into();
        }
        Finding::Alike => {
            return "These rows give no reason to change how the student is trained.".into();
        }
        Finding::Softens | Finding::Exaggerates => nearer(first, training),
    };
    format!("{what}{}{}", worth(first), labels(parts, training))
}

/// Measured, as far as that goes, in experiments/deviations: a higher T and longer training bring y nearer to x, while the slope of a
/// higher T is the steeper one.
fn nearer(part: &Part, training: &Training) -> String {
    let (t, held) = match &training.taught {
        Taught::Alone(method) => {
            return format!(
                "The student followed no teacher (method {method}), so neither T nor λ had a part in this; to bring it nearer, let it \
                 follow this one: lowchurn distil DATA --teacher TEACHER."
            );
        }
        Taught::By { temperature: Temperature::Held(why), .. } => (None, Some(why)),
        Taught::By { temperature: Temperature::Free, .. } | Taught::Unknown => {
            (Some("raise T"), None)
        }
    };
    let is_longer = training.student_epochs.zip(training.teacher_epochs).filter(|(s, t)| s > t);
    let longer = if is_longer.is_none() { Some("train the student longer") } else { None };
    let (place, ways) = match (part.finding, is_under(part), is_over(part)) {
        // A higher T makes the slope steeper, which is what lacks here.
        (Finding::Softens, ..) => ("more closely", [longer.or(t), None]),
        (_, true, false) => ("where it is unsure", [t, longer]),
        (_, false, true) => ("where it is sure", [t, Some("stop the student earlier")]),
        _ => ("more closely", [t, None]),
    };
    let mut ways: Vec<&str> = ways.into_iter().flatten().collect();
    let mut why = Vec::new();
    if ways.is_empty() {
        ways.extend(more_of_the_teacher(&training.taught));
        why.extend(held.cloned());
        why.extend(is_longer.map(|(student, teacher)| {
            format!("it was trained for {student} epochs, the teacher for {teacher}")
        }));
    }
    let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join("; ")) };
    match ways.is_empty() {
        true => format!(
            "Nothing is known here that would make the student follow the teacher {place}{why}."
        ),
        false => format!("To follow the teacher {place}, {}{why}.", ways.join(" or ")),
    }
}

fn more_of_the_teacher(taught: &Taught) -> Option<&'static str> {
    match taught {
        Taught::By { last_lambda: Some(last), .. } if *last == 0.0 => {
            Some("finish on the labels later")
        }
        Taught::By { last_lambda: Some(last), .. } if *last < 1.0 => Some("raise λ"),
        Taught::By { .. } | Taught::Unknown | Taught::Alone(_) => None,
    }
}

/// Whether the deviation is for the better, where rows tell.
fn worth(part: &Part) -> String {
    let (Some(teacher), Some(student), Some(p)) =
        (part.teacher_accuracy, part.student_accuracy, part.accuracy_p)
    else {
        return String::new();
    };
    let both = format!("{} and {}", percent(student.value), percent(teacher.value));
    if p > UNCLEAR {
        return format!(
            " Student and teacher are right in {both} of the rows, which don't tell which of them is right more often (McNemar's mid-p \
             {p:.2})."
        );
    }
    let (is, so) = match student.count > teacher.count {
        true => ("more", "so where accuracy is the aim and churn isn't, leave it"),
        false => ("less", "so the deviation isn't for the better"),
    };
    format!(" The student is {is} often right than the teacher ({both}), {so}.")
}

/// Rows tell no two models apart by chance more often than this.
const UNCLEAR: f64 = 0.05;

/// A teacher that doesn't fit its labels can't tell them to the student either.
fn labels(parts: &[Part], training: &Training) -> String {
    let train = parts.iter().find(|part| part.rows_of == RowsOf::Train);
    let rate = train.and_then(|part| part.teacher_accuracy).filter(|rate| rate.value < FITTED);
    let Some(rate) = rate else { return String::new() };
    let what = match &training.taught {
        Taught::Alone(_) => return String::new(),
        Taught::By { last_lambda: Some(last), .. } if *last == 0.0 => {
            "; what it doesn't know the student has from the labels, on which it finished"
        }
        Taught::By { .. } | Taught::Unknown => {
            ", so labels may add what it doesn't know: for accuracy try a lower λ, or finish on them (--switch-at 75% --switch-to labels)"
        }
    };
    format!(" Of the student's training rows the teacher has {} right{what}.", percent(rate.value))
}
