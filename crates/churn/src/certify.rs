//! A budget and counts on untouched rows → a certificate.

use std::collections::{BTreeSet, HashSet};

use crate::budget::{gain_bounds, is_certified, least_rows, rows_needed, rows_needed_of_gain};
use crate::format::{percent, points, rows as n_rows};
use crate::interval::{lower_bound, upper_bound};
use crate::{Budget, Certificate, Check, Error, Flips, Result, Sense, Verdict};

/// Counts on the certification rows, which nothing was chosen by.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measurements {
    pub all: Flips,
    /// By name, such as `airline = Delta`.
    pub slices: Vec<(String, Flips)>,
    /// By true class, see [`crate::class_flips`].
    pub classes: Vec<(String, Flips)>,
    pub golden: Golden,
}

/// The golden rows of a budget, looked up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Golden {
    pub asked: u64,
    /// Ids whose prediction changed.
    pub changed: Vec<String>,
    /// Ids that weren't found.
    pub missing: Vec<String>,
}

impl Golden {
    /// Looks up golden ids among rows that both models predicted.
    pub fn look_up(asked: &[String], ids: &[String], old: &[u32], new: &[u32]) -> Golden {
        let mut missing: BTreeSet<&str> = asked.iter().map(String::as_str).collect();
        let n_asked = missing.len() as u64;
        let mut changed = Vec::new();
        for ((id, old), new) in ids.iter().zip(old).zip(new) {
            if missing.remove(id.as_str()) && old != new {
                changed.push(id.clone());
            }
        }
        let missing = missing.into_iter().map(str::to_owned).collect();
        Golden { asked: n_asked, changed, missing }
    }
}

impl Golden {
    /// Without those of these ids.
    pub fn but(&self, ids: &HashSet<&str>) -> Golden {
        let is_other = |id: &&String| !ids.contains(id.as_str());
        Golden { changed: self.changed.iter().filter(is_other).cloned().collect(), ..self.clone() }
    }
}

/// The name of the check of golden rows.
pub(crate) const GOLDEN: &str = "golden rows";

/// Judges each limit of a budget on untouched rows.
///
/// A share passes if its one-sided exact upper bound is within the limit, fails if its lower bound is above it, and is
/// inconclusive between them (peers.md §2.3); a gain the other way round. Golden rows are counted, nothing is estimated.
///
/// What the confidence means: an update that breaks a limit gets PASS with probability at most 1 − confidence, and one
/// that keeps all limits gets FAIL with probability at most 1 − confidence. PASS claims that *all* limits hold, so each is
/// tested at the full error: whichever limit is broken, its own test must err (intersection–union test, Berger 1982). FAIL
/// claims that *one* is broken, and may err at any of them: each gets an equal part of the error (Bonferroni). To split
/// the error for PASS too, as peers.md §2.3 point 6 has it, would cost rows and gain no safety. Slices count as limits.
///
/// Errors: those of [`Budget::check`]; [`Error::GoldenMissing`].
pub fn certify(budget: &Budget, rows: &Measurements) -> Result<Certificate> {
    budget.check()?;
    let golden = golden_check(budget, &rows.golden)?;
    let (shares, notes) = shares(budget, rows);
    let n_limits = shares.len() + usize::from(budget.min_accuracy_gain.is_some());
    let confidence = budget.confidence;
    let levels = Levels { confidence, fail: 1.0 - (1.0 - confidence) / n_limits.max(1) as f64 };

    let mut checks: Vec<Check> = shares.iter().map(|share| share_check(share, &levels)).collect();
    checks.extend(budget.min_accuracy_gain.map(|floor| gain_check(floor, &rows.all, &levels)));
    checks.extend(golden);
    let verdict = verdict_of(&checks);
    let correction = correction(n_limits, &levels);
    let limits = Some(Budget { golden: Vec::new(), ..budget.clone() });
    Ok(Certificate { verdict, checks, confidence, correction, limits, notes, walked: Vec::new() })
}

/// FAIL if one fails, else INCONCLUSIVE if one is, else PASS.
pub fn verdict_of(checks: &[Check]) -> Verdict {
    let has = |verdict: Verdict| checks.iter().any(|check| check.verdict == verdict);
    match (has(Verdict::Fail), has(Verdict::Inconclusive)) {
        (true, _) => Verdict::Fail,
        (false, true) => Verdict::Inconclusive,
        (false, false) => Verdict::Pass,
    }
}

struct Levels {
    confidence: f64,
    /// Of each single limit's FAIL.
    fail: f64,
}

/// A share that may be at most its limit.
struct Share {
    name: String,
    /// What the counted rows did.
    did: &'static str,
    limit: f64,
    count: u64,
    of: u64,
}

fn shares(budget: &Budget, rows: &Measurements) -> (Vec<Share>, Vec<String>) {
    const CHANGED: &str = "changed";
    const BROKE: &str = "with a label were right and are wrong now";
    let (mut shares, mut notes) = (Vec::new(), Vec::new());
    let all = &rows.all;
    if let Some(limit) = budget.max_churn {
        let name = "churn".to_owned();
        shares.push(Share { name, did: CHANGED, limit, count: all.changed, of: all.rows });
    }
    if let Some(limit) = budget.max_nfr {
        let name = "nfr".to_owned();
        shares.push(Share { name, did: BROKE, limit, count: all.negative, of: all.labelled });
    }
    for (limit, what, parts) in [
        (budget.max_slice_nfr, "slices", &rows.slices),
        (budget.max_class_nfr, "classes", &rows.classes),
    ] {
        let Some(limit) = limit else { continue };
        // By size alone: to leave slices out by what is seen in them would bend the error.
        let least = least_rows(limit, budget.confidence);
        let (large, small): (Vec<_>, Vec<_>) =
            parts.iter().partition(|(_, flips)| flips.labelled >= least);
        if large.is_empty() {
            let name = format!("nfr of {what}");
            shares.push(Share { name, did: BROKE, limit, count: 0, of: 0 });
        }
        for (slice, flips) in large {
            let name = format!("nfr of {slice}");
            shares.push(Share {
                name,
                did: BROKE,
                limit,
                count: flips.negative,
                of: flips.labelled,
            });
        }
        if !small.is_empty() {
            notes.push(format!(
            "{} of {} {what} have fewer than {} with a label, too few to certify {} even where nothing flips; they aren't \
            judged",
            small.len(),
            parts.len(),
            n_rows(least),
            percent(limit)
        ));
        }
    }
    (shares, notes)
}

fn share_check(share: &Share, levels: &Levels) -> Check {
    let Share { name, did, limit, count, of } = share;
    let (limit, count, of) = (*limit, *count, *of);
    let low = lower_bound(count, of, levels.fail);
    let high = upper_bound(count, of, levels.confidence);
    let (verdict, rows_needed) = if is_certified(count, of, limit, levels.confidence) {
        (Verdict::Pass, None)
    } else if low > limit {
        (Verdict::Fail, None)
    } else {
        (Verdict::Inconclusive, rows_needed(count, of, limit, levels.confidence))
    };
    let observed = if of > 0 { count as f64 / of as f64 } else { 0.0 };
    let rest =
        rest_said(verdict, rows_needed, levels, &percent(low), &percent(high), Sense::AtMost);
    let said = format!(
        "{count} of {} {did} ({}), the limit is {}; {rest}",
        n_rows(of),
        if of > 0 { percent(observed) } else { "no rows to judge by".to_owned() },
        percent(limit),
    );
    let (confidence, fail_confidence) = (levels.confidence, levels.fail);
    let (name, sense) = (name.clone(), Sense::AtMost);
    Check {
        name,
        sense,
        limit,
        observed,
        count,
        of,
        low,
        high,
        confidence,
        fail_confidence,
        verdict,
        rows_needed,
        said,
    }
}

fn gain_check(floor: f64, all: &Flips, levels: &Levels) -> Check {
    let (negative, positive, of) = (all.negative, all.positive, all.labelled);
    let low = gain_bounds(negative, positive, of, levels.confidence).low;
    let high = gain_bounds(negative, positive, of, levels.fail).high;
    let (verdict, rows_needed) = if of > 0 && low >= floor {
        (Verdict::Pass, None)
    } else if high < floor {
        (Verdict::Fail, None)
    } else {
        let needed = rows_needed_of_gain(negative, positive, of, floor, levels.confidence);
        (Verdict::Inconclusive, needed)
    };
    let observed = all.accuracy_gain().unwrap_or(0.0);
    let rest = rest_said(verdict, rows_needed, levels, &points(low), &points(high), Sense::AtLeast);
    let said = format!(
        "{positive} of {} with a label became right and {negative} wrong ({}), the floor is {}; {rest}",
        n_rows(of),
        if of > 0 { points(observed) } else { "no rows to judge by".to_owned() },
        points(floor),
    );
    Check {
        name: "accuracy gain".to_owned(),
        sense: Sense::AtLeast,
        limit: floor,
        observed,
        count: negative + positive,
        of,
        low,
        high,
        confidence: levels.confidence,
        fail_confidence: levels.fail,
        verdict,
        rows_needed,
        said,
    }
}

fn golden_check(budget: &Budget, golden: &Golden) -> Result<Option<Check>> {
    if budget.golden.is_empty() {
        return Ok(None);
    }
    let missing = if golden.asked == 0 { &budget.golden } else { &golden.missing };
    if !missing.is_empty() {
        let first = missing.iter().take(3).cloned().collect();
        return Err(Error::GoldenMissing { first, missing: missing.len(), like: None });
    }
    let (count, of) = (golden.changed.len() as u64, golden.asked);
    let observed = count as f64 / of as f64;
    let shown: Vec<&str> = golden.changed.iter().take(10).map(String::as_str).collect();
    let said = match golden.changed.len() {
        0 => format!("none of {of} golden rows changed"),
        n if n > shown.len() => {
            format!("{n} of {of} golden rows changed: {}, …", shown.join(", "))
        }
        n => format!("{n} of {of} golden rows changed: {}", shown.join(", ")),
    };
    Ok(Some(Check {
        name: GOLDEN.to_owned(),
        sense: Sense::AtMost,
        limit: 0.0,
        observed,
        count,
        of,
        low: observed,
        high: observed,
        confidence: 1.0,
        fail_confidence: 1.0,
        verdict: if count == 0 { Verdict::Pass } else { Verdict::Fail },
        rows_needed: None,
        said,
    }))
}

fn rest_said(
    verdict: Verdict,
    rows_needed: Option<u64>,
    levels: &Levels,
    low: &str,
    high: &str,
    sense: Sense,
) -> String {
    let (at_most, at_least) = (format!("at most {high}"), format!("at least {low}"));
    let (good, bad) = match sense {
        Sense::AtMost => (at_most, at_least),
        Sense::AtLeast => (at_least, at_most),
    };
    let (sure, fail_sure) = (confidence_said(levels.confidence), confidence_said(levels.fail));
    match (verdict, rows_needed) {
        (Verdict::Pass, _) => format!("with {sure} confidence it is {good}"),
        (Verdict::Fail, _) => format!("with {fail_sure} confidence it is {bad}"),
        (Verdict::Inconclusive, Some(rows)) => {
            format!("{low} to {high} is possible; {} in all would do at this rate", n_rows(rows))
        }
        (Verdict::Inconclusive, None) => {
            format!("{low} to {high} is possible; more rows won't do at this rate")
        }
    }
}

fn correction(n_limits: usize, levels: &Levels) -> String {
    let (sure, fail_sure) = (confidence_said(levels.confidence), confidence_said(levels.fail));
    match n_limits {
        0 => "golden rows are counted, nothing is estimated".to_owned(),
        1 => format!("one limit, judged with {sure} confidence"),
        n => format!(
            "{n} limits: PASS needs all of them, each with the full {sure} confidence (intersection-union test); FAIL needs \
            one, so each gets 1/{n} of the error, {fail_sure} confidence (Bonferroni)"
        ),
    }
}

// `95%`, `97.5%`, `99.917%`.
fn confidence_said(confidence: f64) -> String {
    let digits = format!("{:.3}", confidence * 100.0);
    format!("{}%", digits.trim_end_matches('0').trim_end_matches('.'))
}
