//! Walks over candidates: where they begin, where they end, what is chosen and what is refused.

mod problem;

use std::collections::HashSet;

use lowchurn_churn::{Budget, Candidate, Flips, Golden, Measurements, Verdict, walk};
use problem::{budget, churn_budget, flips, measured, sliced, unlabelled};

fn candidate(name: &str, calibration: Flips, certification: Flips) -> Candidate {
    let (calibration, certification) = (measured(calibration), measured(certification));
    Candidate { name: name.to_owned(), calibration, certification, ..Candidate::default() }
}

fn sliced_candidate(
    name: &str,
    calibration: Measurements,
    certification: Measurements,
) -> Candidate {
    Candidate { name: name.to_owned(), calibration, certification, ..Candidate::default() }
}

/// The name of the candidate that a walk begins with.
fn begins_with(candidates: &[Candidate], asked: &Budget) -> String {
    walk(candidates, asked).unwrap().1.walked[0].name.clone()
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
    let of = |name, negative, merit| Candidate {
        merit: Some(merit),
        ..candidate(name, flips(1000, negative, 4, 0), unlabelled(5000, 10))
    };
    // By accuracy on calibration rows it would be the second, and by safety too.
    let candidates = [of("accurate", 2, 0.6), of("most accurate", 0, 0.5), of("asked for", 6, 0.7)];
    assert_eq!(walk(&candidates, &churn_budget(0.02)).unwrap().0, Some(2));
    let even = [of("bolder", 6, 0.7), of("safer", 2, 0.7)];
    assert_eq!(walk(&even, &churn_budget(0.02)).unwrap().0, Some(1));
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

#[test]
fn a_step_says_its_calibration_rows_and_whether_it_is_chosen() {
    let half_labelled = Flips {
        rows: 1000,
        changed: 20,
        labelled: 500,
        both_right: 470,
        negative: 4,
        positive: 6,
        same_wrong: 20,
        ..Flips::default()
    };
    let candidates = [
        candidate("bold", half_labelled, flips(5000, 0, 60, 0)),
        candidate("safe", flips(1000, 1, 5, 0), flips(5000, 0, 10, 0)),
    ];
    let (chosen, made) = walk(&candidates, &churn_budget(0.02)).unwrap();
    let steps: Vec<(&str, f64, Option<f64>, bool)> = made
        .walked
        .iter()
        .map(|step| {
            let name = step.name.as_str();
            (name, step.calibration_churn, step.calibration_accuracy, step.is_chosen)
        })
        .collect();
    // 476 of the 500 labelled rows are right.
    assert_eq!(chosen, Some(1));
    assert_eq!(
        steps,
        [("safe", 0.006, Some(0.999), true), ("bold", 0.02, Some(476.0 / 500.0), false)]
    );
}

#[test]
fn without_labels_on_one_side_the_bolder_of_those_that_pass_is_chosen() {
    let passes = unlabelled(5000, 10);
    let candidates = [
        candidate("labelled", flips(1000, 0, 1, 0), passes),
        candidate("unlabelled", unlabelled(1000, 9), passes),
    ];
    assert_eq!(walk(&candidates, &churn_budget(0.02)).unwrap().0, Some(1));
}

#[test]
fn a_limit_on_negative_flips_orders_by_them() {
    let asked = Budget { max_nfr: Some(0.01), ..churn_budget(0.1) };
    let candidates = [
        candidate("changes few, breaks nine", flips(1000, 9, 0, 0), flips(2500, 22, 0, 0)),
        candidate("changes more, breaks one", flips(1000, 1, 20, 0), flips(2500, 2, 50, 0)),
    ];
    assert_eq!(begins_with(&candidates, &asked), "changes more, breaks one");
    assert_eq!(walk(&candidates, &asked).unwrap().0, Some(1));
}

/// Of unlabelled rows nobody knows how many flips are negative.
#[test]
fn a_limit_on_negative_flips_puts_unlabelled_calibration_last() {
    let asked = Budget { max_nfr: Some(0.01), ..budget() };
    let passes = flips(3000, 0, 0, 0);
    let candidates = [
        candidate("unlabelled", unlabelled(1000, 1), passes),
        candidate("labelled", flips(1000, 2, 5, 0), passes),
    ];
    assert_eq!(begins_with(&candidates, &asked), "labelled");
}

/// `bold` breaks a twentieth of slice y; the slices of the two halves, and of the candidates, come in any order.
#[test]
fn a_limit_on_slices_orders_by_each_of_them() {
    let (good, bad) = (|n| flips(n, 0, 0, 0), |n: u64| flips(n, n / 20, 0, 0));
    let all = |changed| (flips(1000, 0, changed, 0), flips(2500, 0, 5 * changed / 2, 0));
    let ((few, few_later), (many, many_later)) = (all(5), all(30));
    let asked = Budget { max_slice_nfr: Some(0.03), ..churn_budget(0.1) };
    let candidates = [
        sliced_candidate(
            "bold",
            sliced(few, &[("x", good(300)), ("y", bad(300))]),
            sliced(few_later, &[("y", bad(700)), ("x", good(700))]),
        ),
        sliced_candidate(
            "mild",
            sliced(many, &[("x", good(300)), ("y", good(300))]),
            sliced(many_later, &[("y", good(700)), ("x", good(700))]),
        ),
    ];
    assert_eq!(begins_with(&candidates, &asked), "mild");
    assert_eq!(walk(&candidates, &asked).unwrap().0, Some(1));
    // The worst slice counts, not the first: of x alone `bold` is the better one.
    let mut candidates = candidates;
    candidates[1].calibration = sliced(many, &[("x", flips(300, 1, 0, 0)), ("y", good(300))]);
    assert_eq!(begins_with(&candidates, &Budget { max_churn: None, ..asked }), "mild");
}

#[test]
fn slices_too_small_to_be_judged_order_nothing() {
    let asked = Budget { max_slice_nfr: Some(0.03), ..churn_budget(0.1) };
    let slices = |broken| [("big", flips(700, 0, 0, 0)), ("tiny", flips(20, broken, 0, 0))];
    let of = |name, changed, broken| {
        let later = sliced(flips(2500, 0, 2 * changed, 0), &slices(broken));
        sliced_candidate(name, sliced(flips(1000, 0, changed, 0), &slices(broken)), later)
    };
    assert_eq!(begins_with(&[of("safe", 5, 2), of("bold", 30, 0)], &asked), "safe");
}
