//! Walks over candidates: where they begin, where they end, what is chosen and what is refused.

mod problem;

use std::collections::HashSet;

use lowchurn_churn::{Budget, Candidate, Flips, Golden, Verdict, walk};
use problem::{churn_budget, flips, measured, unlabelled};

fn candidate(name: &str, calibration: Flips, certification: Flips) -> Candidate {
    let (calibration, certification) = (measured(calibration), measured(certification));
    Candidate { name: name.to_owned(), calibration, certification, ..Candidate::default() }
}

#[test]
fn a_walk_goes_from_safe_to_bold_and_takes_the_most_accurate_certified() {
    let candidates = [
        candidate("bold", flips(1000, 0, 90, 0), flips(5000, 0, 60, 0)),
        candidate("middle", flips(1000, 1, 17, 0), flips(5000, 20, 60, 0)),
        candidate("safe", flips(1000, 4, 1, 0), flips(5000, 0, 20, 0)),
        candidate("broken", flips(1000, 10, 10, 0), flips(5000, 0, 84, 0)),
    ];
    let (chosen, made) = walk(&candidates, &churn_budget(0.02)).unwrap();
    let steps: Vec<(&str, Option<Verdict>, bool)> = made
        .walked
        .iter()
        .map(|step| (step.name.as_str(), step.certified, step.is_chosen))
        .collect();
    // The bold one would pass, but stands behind one that doesn't.
    assert_eq!(
        steps,
        [
            ("safe", Some(Verdict::Pass), false),
            ("middle", Some(Verdict::Pass), true),
            ("broken", Some(Verdict::Inconclusive), false),
            ("bold", None, false)
        ]
    );
    assert_eq!((chosen, made.verdict, made.checks[0].count), (Some(1), Verdict::Pass, 80));
    assert_eq!(
        made.correction,
        "one limit, judged with 95% confidence; candidates were walked from safest to boldest up to the first without a \
         PASS, which costs no error (fixed-sequence testing)"
    );
}

/// Next to the old weights nothing is gained, and nothing can be proven to be.
#[test]
fn a_walk_with_a_floor_on_the_gain_begins_where_calibration_rows_prove_it_best() {
    let asked = Budget { min_accuracy_gain: Some(0.0), ..churn_budget(0.1) };
    let candidates = [
        candidate("0.9 of the old weights", flips(1000, 1, 2, 0), flips(2500, 2, 5, 0)),
        candidate("0.5 of the old weights", flips(1000, 10, 40, 0), flips(2500, 25, 100, 0)),
        candidate("new weights", flips(1000, 30, 75, 10), flips(2500, 70, 180, 20)),
    ];
    let (chosen, made) = walk(&candidates, &asked).unwrap();
    assert_eq!((chosen, made.verdict), (Some(1), Verdict::Pass));
    let names: Vec<&str> = made.walked.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["0.5 of the old weights", "0.9 of the old weights", "new weights"]);
    // A loss that is allowed is proven best there too: of 1,000 rows without a flip the bound is −0.5 points.
    let asked = Budget { min_accuracy_gain: Some(-0.002), ..asked };
    assert_eq!(walk(&candidates, &asked).unwrap().0, Some(1));
}

/// The bolder one gains more, and what it does to a class or to a golden row ends a walk that began with it.
#[test]
fn a_walk_begins_with_one_that_keeps_golden_rows_and_classes() {
    let both = || {
        [
            candidate("bold", flips(1000, 5, 60, 0), flips(2500, 12, 150, 0)),
            candidate("mild", flips(1000, 3, 30, 0), flips(2500, 8, 75, 0)),
        ]
    };
    let asked = Budget { min_accuracy_gain: Some(0.0), ..churn_budget(0.1) };
    let first = |candidates: &[Candidate], asked: &Budget| {
        let (chosen, made) = walk(candidates, asked).unwrap();
        (made.walked[0].name.clone(), chosen.map(|at| candidates[at].name.clone()))
    };
    let of = |name: &str| (name.to_owned(), Some(name.to_owned()));
    assert_eq!(first(&both(), &asked), of("mild")); // both are sure of the gain to nine digits, so churn decides

    let mut golden = both();
    for (candidate, changed) in golden.iter_mut().zip([&[][..], &["g-1"][..]]) {
        let changed = changed.iter().map(|id| (*id).to_owned()).collect();
        let rows = Golden { asked: 1, changed, missing: Vec::new() };
        (candidate.calibration.golden, candidate.certification.golden) = (rows.clone(), rows);
    }
    let with_golden = Budget { golden: vec!["g-1".into()], ..asked.clone() };
    assert_eq!(first(&golden, &with_golden).0, "bold");
    // A golden row that certifies orders nothing.
    let certifying = HashSet::from(["g-1"]);
    golden[1].calibration.golden = golden[1].calibration.golden.but(&certifying);
    assert_eq!(first(&golden, &with_golden).0, "mild");

    let mut classes = both();
    for (candidate, negative) in classes.iter_mut().zip([0, 15]) {
        candidate.calibration.classes = vec![("class = a".into(), flips(300, negative, 0, 0))];
        candidate.certification.classes =
            vec![("class = a".into(), flips(700, 2 * negative, 0, 0))];
    }
    let with_classes = Budget { max_class_nfr: Some(0.03), ..asked };
    assert_eq!(first(&classes, &with_classes), of("bold"));
}

#[test]
fn a_walk_takes_what_is_asked_for_of_those_that_pass() {
    let of = |name, positive, merit| Candidate {
        merit: Some(merit),
        ..candidate(name, flips(1000, 0, positive, 0), unlabelled(5000, 10))
    };
    let candidates = [of("even", 5, 0.7), of("accurate", 9, 0.2), of("bolder", 12, 0.7)];
    assert_eq!(walk(&candidates, &churn_budget(0.02)).unwrap().0, Some(0));
}

#[test]
fn a_walk_breaks_ties_for_the_safer_and_goes_by_churn_without_labels() {
    let passes = unlabelled(5000, 10);
    let equal = [
        candidate("bolder", flips(1000, 5, 15, 0), passes),
        candidate("safer", flips(1000, 0, 10, 5), passes),
    ];
    // Both right before and after plus positive: 995 and 995.
    assert_eq!(equal[0].calibration.all.accuracy_new(), equal[1].calibration.all.accuracy_new());
    assert_eq!(walk(&equal, &churn_budget(0.02)).unwrap().0, Some(1));
    let traffic = [
        candidate("boldest", unlabelled(1000, 9), passes),
        candidate("safest", unlabelled(1000, 1), passes),
        candidate("as bold", unlabelled(1000, 9), passes),
    ];
    assert_eq!(walk(&traffic, &churn_budget(0.02)).unwrap().0, Some(0));
}

#[test]
fn a_walk_without_a_pass_shows_the_safest() {
    let candidates = [
        candidate("bold", flips(1000, 0, 90, 0), flips(5000, 0, 10, 0)),
        candidate("safe", flips(1000, 0, 5, 0), flips(5000, 0, 300, 0)),
    ];
    let (chosen, made) = walk(&candidates, &churn_budget(0.02)).unwrap();
    assert_eq!((chosen, made.verdict, made.checks[0].count), (None, Verdict::Fail, 300));
    assert_eq!((made.walked[1].certified, made.walked[1].is_chosen), (None, false));
}

#[test]
fn walks_without_candidates_or_calibration_are_refused() {
    let check = |candidates: &[Candidate], expected: &str| {
        let error = walk(candidates, &churn_budget(0.02)).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    check(&[], "no candidate to certify; give at least one");
    check(
        &[candidate("λ 0.5", Flips::default(), flips(5000, 0, 0, 0))],
        "candidate \"λ 0.5\" has no calibration rows; candidates are ordered by such rows, so hold some out",
    );
}
