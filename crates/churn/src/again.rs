//! The certificate of a report that is there, judged again: by other limits, or as of rows that chose the model.

use crate::certify::GOLDEN;
use crate::{Budget, Certificate, Measurements, Result, Verdict, certify, verdict_of};

/// The certificate of a report under other limits and another confidence: what isn't given stays as it was. Golden rows were
/// counted when it was made, and their check stays too.
///
/// Errors: those of [`certify`].
pub fn certify_again(
    own: Option<&Certificate>,
    given: &Budget,
    rows: &Measurements,
) -> Result<Certificate> {
    let counted = own.into_iter().flat_map(|own| &own.checks).filter(|check| check.name == GOLDEN);
    let limits = own.and_then(|own| own.limits.as_ref());
    let budget = limits.map_or(given.clone(), |own| given.over(own));
    let mut certificate = match own {
        // Golden rows alone: there is nothing that a bound is taken of.
        Some(own) if budget.is_empty() => own.clone(),
        _ => {
            let mut made = certify(&budget, rows)?;
            made.checks.extend(counted.cloned());
            // What was said of the rows stays; what was said of the limits before doesn't.
            let of_limits = match limits {
                Some(limits) if !limits.is_empty() => certify(limits, rows)?.notes,
                _ => Vec::new(),
            };
            let own = own.into_iter().flat_map(|own| &own.notes);
            let of_rows = own.filter(|note| !of_limits.contains(note));
            let new: Vec<String> =
                of_rows.filter(|note| !made.notes.contains(note)).cloned().collect();
            made.notes.extend(new);
            made
        }
    };
    certificate.verdict = verdict_of(&certificate.checks);
    Ok(certificate)
}

/// The certificate of rows that took part in choosing the model: a limit that they break is broken, but none is certified.
/// Each PASS becomes INCONCLUSIVE; golden rows are counted, not estimated, and stay.
pub fn withhold_pass(certificate: &Certificate, what: &str) -> Certificate {
    let mut certificate = certificate.clone();
    for check in &mut certificate.checks {
        let is_estimated = check.confidence < 1.0;
        if check.verdict == Verdict::Pass && is_estimated {
            check.verdict = Verdict::Inconclusive;
            check.said += "; but these rows chose the model, so they certify nothing";
        }
    }
    certificate.verdict = verdict_of(&certificate.checks);
    let note = format!(
        "these rows chose {what}; certify on rows that chose nothing: compare both models on fresh ones, or update with a budget"
    );
    if !certificate.notes.contains(&note) {
        certificate.notes.push(note);
    }
    certificate
}
