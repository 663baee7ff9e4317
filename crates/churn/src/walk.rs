//! Candidates → the best one that is certified, with one error for all of them.

use crate::budget::{doubt_of_gain, least_rows};
use crate::interval::at_most;
use crate::{Budget, Certificate, Error, Flips, Measurements, Result, Step, Verdict, certify};

/// One model that may become the update.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Candidate {
    pub name: String,
    /// On rows that candidates are ordered and chosen by, with those golden rows that certify nothing.
    pub calibration: Measurements,
    /// On other rows.
    pub certification: Measurements,
    /// What the best of those that pass has most of, on calibration rows; accuracy where it isn't said.
    pub merit: Option<f64>,
}

/// Walks candidates from the safest on while each is certified, and chooses among those that are: the best accuracy on calibration
/// rows, or what else is their merit, or without labels the last; the safer one of equals.
///
/// The safest is the one that would leave least doubt of the budget if certification rows came out as its calibration rows did: the
/// largest p-value of a limit's own test; of equals the one of least churn, and of those the first, so give them from the safest on.
/// One that changes a golden row stands behind all others. With a limit on churn alone that is the order of churn. With a floor on
/// the gain it isn't: next to the old weights nothing is gained, and a walk that began there would end there.
///
/// The order is fixed by rows that certify nothing, and the walk stops at the first candidate without a PASS: the first
/// that breaks a limit must be passed wrongly before another can be, so that all candidates together share one error and
/// none is split (fixed-sequence testing, Maurer et al. 1995; peers.md §2.3 point 3). Gives the chosen index and its
/// certificate; where none is certified, `None` and that of the safest.
///
/// Errors: [`Error::NoCandidates`], [`Error::NoCalibrationRows`], those of [`certify`].
pub fn walk(candidates: &[Candidate], budget: &Budget) -> Result<(Option<usize>, Certificate)> {
    if let Some(empty) = candidates.iter().find(|candidate| candidate.calibration.all.rows == 0) {
        return Err(Error::NoCalibrationRows { name: empty.name.clone() });
    }
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    let churn = |i: usize| calibration_churn(&candidates[i]);
    let doubts: Vec<f64> = candidates.iter().map(|one| doubt(budget, one)).collect();
    order.sort_by(|&a, &b| doubts[a].total_cmp(&doubts[b]).then(churn(a).total_cmp(&churn(b))));

    let mut certificates: Vec<(usize, Certificate)> = Vec::new();
    for &i in &order {
        let certificate = certify(budget, &candidates[i].certification)?;
        let is_certified = certificate.verdict == Verdict::Pass;
        certificates.push((i, certificate));
        if !is_certified {
            break;
        }
    }
    let verdicts: Vec<Verdict> = certificates.iter().map(|(_, made)| made.verdict).collect();
    let chosen = best(candidates, &order, &verdicts);
    let walked = order.iter().enumerate().map(|(n, &i)| Step {
        name: candidates[i].name.clone(),
        calibration_churn: churn(i),
        calibration_accuracy: candidates[i].calibration.all.accuracy_new(),
        certified: verdicts.get(n).copied(),
        is_chosen: chosen == Some(i),
    });
    let walked = walked.collect();
    let shown = chosen.or(order.first().copied());
    let found = certificates.into_iter().find(|(i, _)| Some(*i) == shown);
    let (_, mut certificate) = found.ok_or(Error::NoCandidates)?;
    certificate.walked = walked;
    if candidates.len() > 1 {
        certificate.correction += "; candidates were walked from safest to boldest up to the first without a PASS, which \
            costs no error (fixed-sequence testing)";
    }
    Ok((chosen, certificate))
}

/// The largest p-value of a limit, on as many rows as certify with the shares of calibration rows. Infinite where a golden row changes.
fn doubt(budget: &Budget, candidate: &Candidate) -> f64 {
    let Candidate { calibration: seen, certification: judged, .. } = candidate;
    if !seen.golden.changed.is_empty() {
        return f64::INFINITY;
    }
    let as_many = |count: u64, of: u64, judged: u64| {
        if of > 0 { (count as f64 * judged as f64 / of as f64).round() as u64 } else { judged }
    };
    let of_share =
        |limit: f64, count, of, judged| at_most(as_many(count, of, judged), judged, limit);
    let mut doubts = Vec::new();
    let (all, of_all) = (&seen.all, &judged.all);
    doubts
        .extend(budget.max_churn.map(|limit| of_share(limit, all.changed, all.rows, of_all.rows)));
    let of_nfr = |limit, seen: &Flips, judged: &Flips| {
        of_share(limit, seen.negative, seen.labelled, judged.labelled)
    };
    doubts.extend(budget.max_nfr.map(|limit| of_nfr(limit, all, of_all)));
    for (limit, seen, judged) in [
        (budget.max_slice_nfr, &seen.slices, &judged.slices),
        (budget.max_class_nfr, &seen.classes, &judged.classes),
    ] {
        let Some(limit) = limit else { continue };
        let least = least_rows(limit, budget.confidence);
        for (name, judged) in judged.iter().filter(|(_, judged)| judged.labelled >= least) {
            let seen = seen.iter().find(|(seen, _)| seen == name);
            doubts.extend(seen.map(|(_, seen)| of_nfr(limit, seen, judged)));
        }
    }
    doubts.extend(budget.min_accuracy_gain.map(|floor| {
        let count = |count| as_many(count, all.labelled, of_all.labelled);
        doubt_of_gain(count(all.negative), count(all.positive), of_all.labelled, floor)
    }));
    doubts.into_iter().fold(0.0, f64::max)
}

fn calibration_churn(candidate: &Candidate) -> f64 {
    candidate.calibration.all.changed as f64 / candidate.calibration.all.rows as f64
}

// Among those that passed, in the order of the walk: the first of the highest merit, or churn where labels are missing.
fn best(candidates: &[Candidate], order: &[usize], verdicts: &[Verdict]) -> Option<usize> {
    let is_labelled = candidates.iter().all(|candidate| candidate.calibration.all.labelled > 0);
    let mut best: Option<(usize, f64)> = None;
    let passed = order.iter().zip(verdicts).filter(|(_, verdict)| **verdict == Verdict::Pass);
    for (&i, _) in passed {
        let merit = candidates[i].merit.or(candidates[i].calibration.all.accuracy_new());
        let merit = merit.filter(|_| is_labelled);
        let value = merit.unwrap_or_else(|| calibration_churn(&candidates[i]));
        if best.is_none_or(|(_, best)| value > best) {
            best = Some((i, value));
        }
    }
    best.map(|(i, _)| i)
}
