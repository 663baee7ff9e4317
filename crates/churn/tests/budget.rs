//! Budgets: how many rows they take, what is refused, and what certificates say.

mod problem;

use lowchurn_churn::{
    Budget, Certificate, Check, Error, Flips, Golden, Judged, Measurements, Sense, Verdict,
    certify, certify_again, gain_bounds, is_certified, least_rows, mcnemar, rows_needed,
    rows_needed_of_gain, upper_bound,
};
use problem::{budget, churn_budget, flips, measured, sliced, unlabelled};
use proptest::prelude::*;

fn only_check(budget: &Budget, rows: &Measurements) -> Check {
    let made = certify(budget, rows).unwrap();
    assert_eq!(made.checks.len(), 1);
    assert_eq!(made.verdict, made.checks[0].verdict);
    made.checks[0].clone()
}

#[test]
fn the_largest_certified_flips_are_those_of_the_table() {
    // peers.md §2.3, one-sided 95 %.
    let table = [
        (500, [1, 4, 16]),
        (872, [3, 10, 32]),
        (1_821, [11, 26, 75]),
        (5_000, [38, 83, 224]),
        (10_000, [83, 176, 463]),
        (25_000, [223, 463, 1_193]),
    ];
    for (rows, flips) in table {
        for (budget, expected) in [0.01, 0.02, 0.05].into_iter().zip(flips) {
            let is_certified = |count| is_certified(count, rows, budget, 0.95);
            let found = (is_certified(expected), is_certified(expected + 1));
            assert_eq!(found, (true, false), "{rows} rows, budget {budget}");
            // The same from the other side: the bound.
            assert!(upper_bound(expected, rows, 0.95) <= budget);
            assert!(upper_bound(expected + 1, rows, 0.95) > budget);
        }
    }
    for (budget, rows) in [(0.01, 299), (0.02, 149), (0.05, 59)] {
        assert_eq!(least_rows(budget, 0.95), rows);
        assert!(is_certified(0, rows, budget, 0.95) && !is_certified(1, rows, budget, 0.95));
        assert!(!is_certified(0, rows - 1, budget, 0.95));
    }
    assert_eq!(least_rows(0.0, 0.95), u64::MAX);
    assert!(!is_certified(0, 0, 0.02, 0.95));
}

#[test]
fn rows_needed_are_the_least_that_certify_at_the_observed_rate() {
    let mut n_needed = 0;
    for of in [40, 100, 333, 872] {
        for count in 0..12 {
            for budget in [0.02, 0.05, 0.2] {
                let found = rows_needed(count, of, budget, 0.95);
                let is_enough = |n: &u64| is_certified((count * n).div_ceil(of), *n, budget, 0.95);
                let expected = (of..20_000).find(is_enough);
                if expected.is_some() || found.is_some_and(|found| found < 20_000) {
                    assert_eq!(found, expected, "{count} of {of}, budget {budget}");
                    n_needed += 1;
                }
            }
        }
    }
    assert!(n_needed > 60, "{n_needed}");
    for (count, of) in [(20, 1000), (30, 1000), (3, 3)] {
        assert_eq!(rows_needed(count, of, 0.02, 0.95), None, "at or above the budget");
    }
    assert_eq!(rows_needed(0, 0, 0.02, 0.95), Some(149));
    assert_eq!(rows_needed(1_999_999, 100_000_000, 0.02, 0.95), None, "too near to it");
}

#[test]
fn the_bound_of_a_gain_covers_for_every_rate_of_flips() {
    // P(bound > true gain) summed over all outcomes of 40 rows, exactly: at most the error, wherever the truth lies.
    let (n, error): (u64, f64) = (40, 0.1);
    let log_factorial: Vec<f64> = (0..=n).map(|m| (1..=m).map(|i| (i as f64).ln()).sum()).collect();
    let mut lows = Vec::new();
    for a in 0..=n {
        for b in 0..=n - a {
            lows.push((a, b, gain_bounds(a, b, n, 1.0 - error).low));
        }
    }
    let grid = [0.0, 0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.7];
    let mut worst: f64 = 0.0;
    for negative in grid {
        for positive in grid.into_iter().filter(|positive| negative + positive <= 1.0) {
            let rest: f64 = 1.0 - negative - positive;
            let part = |p: f64, count: u64| if count == 0 { 0.0 } else { count as f64 * p.ln() };
            let misses = lows.iter().filter(|(_, _, low)| *low > positive - negative + 1e-12);
            let missed: f64 = misses
                .map(|&(a, b, _)| {
                    let c = n - a - b;
                    let ways = log_factorial[n as usize]
                        - log_factorial[a as usize]
                        - log_factorial[b as usize]
                        - log_factorial[c as usize];
                    (ways + part(negative, a) + part(positive, b) + part(rest, c)).exp()
                })
                .sum();
            assert!(missed <= error, "negative {negative}, positive {positive}: {missed}");
            worst = worst.max(missed);
        }
    }
    // Not so wide that it says nothing.
    assert!(worst > error / 3.0, "{worst}");
}

#[test]
fn a_gain_above_zero_is_what_mcnemar_says() {
    for (negative, positive) in [(2, 9), (0, 4), (0, 5), (10, 22), (150, 190), (150, 180)] {
        let low = gain_bounds(negative, positive, 10_000, 0.95).low;
        // One-sided at 9/10 of the error; the other tenth is for the discordant rows.
        let is_significant = mcnemar(negative, positive).exact / 2.0 <= 0.045;
        assert_eq!(low >= 0.0, is_significant, "{negative} {positive}: {low}");
    }
    // Nothing discords: no gain and no loss above what could hide, 1 − (error / 10)^(1/n).
    let none = gain_bounds(0, 0, 1000, 0.95);
    assert!((none.high - (1.0 - 0.005f64.powf(1e-3))).abs() < 1e-12, "{none:?}");
    assert_eq!(none.low, -none.high);
}

#[test]
fn rows_needed_of_a_gain_are_enough_and_hardly_more() {
    for (negative, positive, of, floor) in [(10, 20, 1000, 0.0), (20, 20, 1000, -0.01)] {
        let needed = rows_needed_of_gain(negative, positive, of, floor, 0.95).unwrap();
        let low =
            |rows: u64| gain_bounds(negative * rows / of, positive * rows / of, rows, 0.95).low;
        assert!(needed > of && low(needed) >= floor && low(needed * 9 / 10) < floor, "{needed}");
    }
    assert_eq!(rows_needed_of_gain(20, 20, 1000, 0.0, 0.95), None);
    assert_eq!(rows_needed_of_gain(0, 20, 1000, 0.0, 0.95), Some(1000));
}

#[test]
fn budgets_that_make_no_sense_are_refused_with_what_to_do() {
    let check = |budget: Budget, expected: &str| {
        assert_eq!(budget.check().unwrap_err().to_string(), expected);
    };
    check(
        budget(),
        "the budget limits nothing; give --max-churn, --max-nfr, --max-slice-nfr, --min-accuracy-gain or --golden",
    );
    check(
        churn_budget(2.0),
        "max churn is 2; expected a share above 0 and below 1, such as 2% or 0.02",
    );
    check(
        churn_budget(1.0),
        "max churn is 1; expected a share above 0 and below 1, such as 2% or 0.02",
    );
    check(
        Budget { max_nfr: Some(0.0), ..budget() },
        "max nfr is 0; expected a share above 0 and below 1, such as 2% or 0.02 (no number of rows proves that nothing \
         will ever change; rows that must not change can be given with --golden)",
    );
    check(
        Budget { max_slice_nfr: Some(f64::NAN), ..budget() },
        "max slice nfr is NaN; expected a share above 0 and below 1, such as 2% or 0.02",
    );
    check(
        Budget { min_accuracy_gain: Some(1.0), ..budget() },
        "min accuracy gain is 1; expected a difference between -1 and 1, such as -0.5% or 0",
    );
    for confidence in [0.5, 1.0, 95.0, f64::NAN] {
        check(
            Budget { confidence, ..churn_budget(0.02) },
            &format!(
                "confidence is {confidence}; expected a share above 0.5 and below 1, such as 0.95"
            ),
        );
    }
    // What is refused is never judged.
    assert!(matches!(
        certify(&churn_budget(2.0), &measured(flips(10, 0, 0, 0))),
        Err(Error::BudgetShare { .. })
    ));
}

#[test]
fn too_few_rows_are_refused_before_training() {
    let check = |budget: &Budget, rows, labelled, expected: &str| {
        assert_eq!(budget.check_rows(rows, labelled, 1.0).unwrap_err().to_string(), expected);
    };
    let strict = churn_budget(0.02);
    check(
        &strict,
        148,
        148,
        "max churn 2% with confidence 0.95 can't be certified by 148 rows, however they come out; hold out 149 rows or \
         more, or loosen the limit",
    );
    strict.check_rows(149, 0, 1.0).unwrap();
    // Where a part of the held-out rows only chooses, as many as certify aren't enough.
    assert_eq!(
        strict.check_rows(112, 112, 0.7).unwrap_err().to_string(),
        "max churn 2% with confidence 0.95 can't be certified by 112 rows, however they come out; it takes 149, and of those \
         held out some only choose: hold out about 233, or loosen the limit"
    );
    let labelled = Budget { max_nfr: Some(0.01), ..budget() };
    check(
        &labelled,
        10_000,
        298,
        "max nfr 1% with confidence 0.95 can't be certified by 298 labelled rows, however they come out; hold out 299 \
         labelled rows or more, or loosen the limit",
    );
    labelled.check_rows(299, 299, 1.0).unwrap();
    let tiny = churn_budget(1e-9);
    check(
        &tiny,
        1000,
        0,
        "max churn 0.0000001% with confidence 0.95 can't be certified by 1000 rows, however they come out; no number \
         of rows would do, so loosen the limit",
    );
    // All four better: the share of positive flips is 0.045^(1/4) = 0.46 at least, which is below a half; of five it isn't.
    let gain = Budget { min_accuracy_gain: Some(-0.01), ..budget() };
    check(
        &gain,
        1000,
        4,
        "min accuracy gain -1% with confidence 0.95 can't be certified by 4 labelled rows, however they come out; hold \
         out 5 labelled rows or more, or loosen the limit",
    );
    gain.check_rows(5, 5, 1.0).unwrap();
    assert_eq!(only_check(&gain, &measured(flips(5, 0, 5, 0))).verdict, Verdict::Pass);
    assert_eq!(only_check(&gain, &measured(flips(4, 0, 4, 0))).verdict, Verdict::Inconclusive);
    // Where nothing changes: ln(0.005) / ln(0.99) = 527.2, for no row may discord, and a tenth of the error is for that.
    assert_eq!(
        gain.remark_rows(527).unwrap(),
        "min accuracy gain -1%: 527 labelled rows certify it only where accuracy rises; where nothing changes it takes 528"
    );
    assert_eq!(gain.remark_rows(528), None);
    assert_eq!(only_check(&gain, &measured(flips(528, 0, 0, 0))).verdict, Verdict::Pass);
    assert_eq!(only_check(&gain, &measured(flips(527, 0, 0, 0))).verdict, Verdict::Inconclusive);
    let none = Budget { min_accuracy_gain: Some(0.0), ..budget() };
    assert_eq!(none.remark_rows(1), None);
}

#[test]
fn churn_passes_fails_or_asks_for_rows_without_any_label() {
    let check = |changed, verdict, needed, said: &str| {
        let made = only_check(&churn_budget(0.02), &measured(unlabelled(5000, changed)));
        assert_eq!((made.verdict, made.rows_needed), (verdict, needed), "{changed}");
        assert_eq!((made.count, made.of, made.sense), (changed, 5000, Sense::AtMost));
        assert_eq!(made.said, said);
    };
    check(
        83,
        Verdict::Pass,
        None,
        "83 of 5,000 rows changed (1.66%), the limit is 2.00%; with 95% confidence it is at most 1.99%",
    );
    check(
        84,
        Verdict::Inconclusive,
        Some(5354),
        "84 of 5,000 rows changed (1.68%), the limit is 2.00%; 1.39% to 2.01% is possible; 5,354 rows in all would do at \
         this rate",
    );
    check(
        110,
        Verdict::Inconclusive,
        None,
        "110 of 5,000 rows changed (2.20%), the limit is 2.00%; 1.87% to 2.57% is possible; more rows won't do at this rate",
    );
    check(
        120,
        Verdict::Fail,
        None,
        "120 of 5,000 rows changed (2.40%), the limit is 2.00%; with 95% confidence it is at least 2.05%",
    );
}

#[test]
fn the_same_model_twice_passes_and_no_rows_at_all_are_inconclusive() {
    let everything = Budget {
        max_nfr: Some(0.01),
        max_slice_nfr: Some(0.05),
        min_accuracy_gain: Some(-0.01),
        ..churn_budget(0.02)
    };
    let slices = vec![("all of them".to_owned(), flips(1000, 0, 0, 0))];
    let same = Measurements { slices, ..measured(flips(1000, 0, 0, 0)) };
    assert_eq!(certify(&everything, &same).unwrap().verdict, Verdict::Pass);

    let empty = certify(&everything, &Measurements::default()).unwrap();
    assert_eq!(empty.verdict, Verdict::Inconclusive);
    for check in &empty.checks {
        assert_eq!(check.verdict, Verdict::Inconclusive, "{}", check.name);
        assert!(check.observed == 0.0 && check.of == 0 && check.rows_needed.is_some());
        assert!(check.said.contains("no rows to judge by"), "{}", check.said);
    }
    // Rows without labels certify churn and nothing else.
    let traffic = certify(&everything, &measured(unlabelled(1000, 0))).unwrap();
    assert_eq!(traffic.verdict, Verdict::Inconclusive);
    assert_eq!(traffic.checks[0].verdict, Verdict::Pass);
}

#[test]
fn several_limits_share_the_error_of_fail_and_not_of_pass() {
    let several = Budget { max_nfr: Some(0.02), ..churn_budget(0.02) };
    let made = certify(&several, &measured(flips(5000, 83, 0, 0))).unwrap();
    assert_eq!(made.verdict, Verdict::Pass, "each limit has the full error");
    assert_eq!((made.checks[0].confidence, made.checks[0].fail_confidence), (0.95, 0.975));
    assert_eq!(
        made.correction,
        "2 limits: PASS needs all of them, each with the full 95% confidence (intersection-union test); FAIL needs one, so \
         each gets 1/2 of the error, 97.5% confidence (Bonferroni)"
    );
    // 118 flips are a FAIL alone, and not among two.
    let alone = certify(&churn_budget(0.02), &measured(flips(5000, 0, 118, 0))).unwrap();
    assert_eq!(alone.verdict, Verdict::Fail);
    let among = certify(&several, &measured(flips(5000, 0, 118, 0))).unwrap();
    assert_eq!(among.verdict, Verdict::Inconclusive);
    // One FAIL is enough, whatever the others say.
    let failed = certify(&several, &measured(flips(5000, 0, 200, 0))).unwrap();
    let verdicts: Vec<Verdict> = failed.checks.iter().map(|check| check.verdict).collect();
    assert_eq!((failed.verdict, verdicts), (Verdict::Fail, vec![Verdict::Fail, Verdict::Pass]));
}

/// Beside another limit a PASS has the whole error and a FAIL half of it: 0.95 and 0.975.
#[test]
fn a_gain_beside_another_limit_is_judged_by_its_own_bounds() {
    let asked = Budget { min_accuracy_gain: Some(0.0), ..churn_budget(0.1) };
    let gain = |negative, positive| {
        let made = certify(&asked, &measured(flips(1000, negative, positive, 0))).unwrap();
        (made.verdict, made.checks[1].clone())
    };
    let (verdict, check) = gain(20, 35);
    assert_eq!((verdict, check.confidence, check.fail_confidence), (Verdict::Pass, 0.95, 0.975));
    assert_eq!(check.low, gain_bounds(20, 35, 1000, 0.95).low);
    let (verdict, check) = gain(35, 20);
    assert_eq!(verdict, Verdict::Inconclusive);
    assert_eq!(check.high, gain_bounds(35, 20, 1000, 0.975).high);
    let (_, check) = gain(20, 30);
    let needed = rows_needed_of_gain(20, 30, 1000, 0.0, 0.95);
    assert_eq!((check.rows_needed, needed.is_some()), (needed, true));
}

#[test]
fn negative_flips_are_a_share_of_the_labelled_rows() {
    let rows = Flips {
        rows: 5000,
        labelled: 1000,
        changed: 15,
        negative: 15,
        both_right: 985,
        ..Flips::default()
    };
    let check = only_check(&Budget { max_nfr: Some(0.02), ..budget() }, &measured(rows));
    assert_eq!((check.of, check.observed), (1000, 0.015));
    assert_eq!(check.verdict, Verdict::Inconclusive); // of 5,000 rows it would be a PASS
}

#[test]
fn rows_that_a_limit_lacks_are_those_of_a_pass() {
    let asked = Budget { max_nfr: Some(0.02), ..churn_budget(0.02) };
    let made = certify(&asked, &measured(flips(1000, 0, 15, 0))).unwrap();
    assert_eq!(made.verdict, Verdict::Inconclusive);
    assert_eq!(made.checks[0].rows_needed, rows_needed(15, 1000, 0.02, 0.95));
}

/// 0.95^59 is just below 0.05, and 0.95^58 isn't.
#[test]
fn the_least_rows_that_can_be_certified_are_judged() {
    let asked = Budget { max_slice_nfr: Some(0.05), ..budget() };
    let of = |rows| sliced(Flips::default(), &[("x", flips(rows, 0, 0, 0))]);
    let made = certify(&asked, &of(59)).unwrap();
    assert_eq!((made.verdict, made.notes.len()), (Verdict::Pass, 0));
    assert_eq!(certify(&asked, &of(58)).unwrap().notes.len(), 1);
    let of_classes = Budget { max_class_nfr: Some(0.05), ..budget() };
    for asked in [asked, of_classes] {
        assert!(asked.check_rows(10_000, 58, 1.0).is_err());
        asked.check_rows(59, 59, 1.0).unwrap();
    }
}

#[test]
fn limits_given_anew_take_the_place_of_their_own_kind() {
    let own = Budget { max_slice_nfr: Some(0.1), max_class_nfr: Some(0.2), ..budget() };
    let other = Budget {
        max_slice_nfr: Some(0.3),
        max_class_nfr: Some(0.4),
        min_accuracy_gain: Some(-0.01),
        ..budget()
    };
    assert_eq!(own.over(&other), Budget { min_accuracy_gain: Some(-0.01), ..own.clone() });
}

/// Ten rows of 0.7 come out without a flip once in 35 times, so y has rows enough for the looser limit: no note of it stays.
#[test]
fn notes_of_a_report_that_is_judged_again_are_those_of_the_new_limits() {
    let rows =
        sliced(flips(110, 0, 0, 0), &[("x", flips(100, 0, 0, 0)), ("y", flips(10, 0, 0, 0))]);
    let own = certify(&Budget { max_slice_nfr: Some(0.05), ..budget() }, &rows).unwrap();
    assert_eq!(own.notes.len(), 1);
    let given = Budget { max_slice_nfr: Some(0.3), ..budget() };
    let again = certify_again(Some(&own), &given, &rows).unwrap();
    assert_eq!(again.notes, certify(&given, &rows).unwrap().notes);
}

#[test]
fn rows_that_are_alike_are_counted_at_once() {
    let mut found = Flips::default();
    found.count_times(Judged { is_changed: true, is_right: Some((true, false)) }, 3);
    assert_eq!(found, flips(3, 3, 0, 0));
}

#[test]
fn slices_are_judged_each_and_small_ones_are_named() {
    let asked = Budget { max_slice_nfr: Some(0.05), ..budget() };
    let slice = |name: &str, flips| (name.to_owned(), flips);
    let slices = vec![
        slice("airline = Delta", flips(400, 4, 0, 0)),
        slice("airline = United", flips(400, 60, 0, 0)),
        slice("airline = Virgin", flips(58, 0, 0, 0)),
    ];
    let rows = Measurements { slices, ..measured(flips(858, 64, 0, 0)) };
    let made = certify(&asked, &rows).unwrap();
    let found: Vec<(&str, Verdict)> =
        made.checks.iter().map(|check| (check.name.as_str(), check.verdict)).collect();
    assert_eq!(
        found,
        [("nfr of airline = Delta", Verdict::Pass), ("nfr of airline = United", Verdict::Fail)]
    );
    assert_eq!(
        made.notes,
        [
            "1 of 3 slices have fewer than 59 rows with a label, too few to certify 5.00% even where nothing flips; they \
          aren't judged"
        ]
    );
    let small = Measurements { slices: rows.slices[2..].to_vec(), ..rows.clone() };
    let made = certify(&asked, &small).unwrap();
    assert_eq!((made.verdict, made.checks[0].rows_needed), (Verdict::Inconclusive, Some(59)));
}

#[test]
fn slices_too_small_for_their_limit_are_refused_before_training() {
    let asked = Budget { max_slice_nfr: Some(0.05), ..budget() };
    let sizes = |sizes: &[u64]| -> Vec<(String, u64)> {
        sizes.iter().enumerate().map(|(at, n)| (format!("shop = {at}"), *n)).collect()
    };
    asked.check_slices(&sizes(&[3, 59])).unwrap();
    let said = |slices: &[u64]| asked.check_slices(&sizes(slices)).unwrap_err().to_string();
    assert_eq!(
        said(&[3, 58]),
        "max slice nfr 5% with confidence 0.95 can't be certified on any slice: it takes 59 labelled rows even where \
         nothing flips, and the largest (shop = 1) has 58; hold out more rows, name a coarser column, or loosen the limit"
    );
    assert!(said(&[]).contains("the largest (none) has 0"));
    Budget { max_slice_nfr: None, ..budget() }.check_slices(&[]).unwrap();
}

/// Classes are judged as slices are, each by its own rows; the same counts give the same bounds.
#[test]
fn a_limit_on_classes_is_one_on_each_of_them() {
    let classes: Vec<(String, Flips)> = [
        ("class = a", flips(100, 0, 0, 0)),
        ("class = b", flips(60, 40, 0, 0)),
        ("class = c", flips(3, 0, 0, 0)),
    ]
    .map(|(name, flips)| (name.to_owned(), flips))
    .to_vec();
    let asked = Budget { max_class_nfr: Some(0.05), ..budget() };
    let by_class = Measurements { classes: classes.clone(), ..Measurements::default() };
    let made = certify(&asked, &by_class).unwrap();
    let named: Vec<&str> = made.checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(named, ["nfr of class = a", "nfr of class = b"]);
    assert_eq!((made.checks[0].verdict, made.checks[1].verdict), (Verdict::Pass, Verdict::Fail));
    assert_eq!(
        made.notes,
        [
            "1 of 3 classes have fewer than 59 rows with a label, too few to certify 5.00% even where nothing flips; they aren't judged"
        ]
    );
    let as_slices = Budget { max_slice_nfr: Some(0.05), ..budget() };
    let sliced = certify(&as_slices, &Measurements { slices: classes, ..Measurements::default() });
    assert_eq!(sliced.unwrap().checks, made.checks);
    let said = asked.check_classes(&[("class = a".into(), 58)]).unwrap_err().to_string();
    assert_eq!(
        said,
        "max class nfr 5% with confidence 0.95 can't be certified on any class: it takes 59 labelled rows even where nothing \
         flips, and the largest (class = a) has 58; hold out more rows, or loosen the limit"
    );
    asked.check_classes(&[("class = a".into(), 59)]).unwrap();
}

/// What isn't given stays as it was asked for then.
#[test]
fn a_report_is_judged_again_by_all_of_its_limits() {
    let asked = Budget { max_churn: Some(0.05), max_nfr: Some(0.02), ..budget() };
    let rows = measured(flips(380, 12, 0, 8));
    let own = certify(&asked, &rows).unwrap();
    assert_eq!(own.limits, Some(asked.clone()));
    let names = |made: &Certificate| -> Vec<(String, f64)> {
        made.checks.iter().map(|check| (check.name.clone(), check.limit)).collect()
    };
    let again = certify_again(Some(&own), &churn_budget(0.1), &rows).unwrap();
    assert_eq!(names(&again), [("churn".to_string(), 0.1), ("nfr".into(), 0.02)]);
    assert_eq!(certify_again(Some(&own), &asked, &rows).unwrap(), own);
    // What was said of the rows stays.
    let caveat = "these rows have answered before".to_string();
    let noted =
        Certificate { notes: [vec![caveat.clone()], own.notes.clone()].concat(), ..own.clone() };
    for budget in [churn_budget(0.1), asked.clone()] {
        let again = certify_again(Some(&noted), &budget, &rows).unwrap();
        assert_eq!(again.notes.iter().filter(|note| **note == caveat).count(), 1, "{again:?}");
    }
    // Another confidence judges the same limits.
    let sure = certify_again(Some(&own), &Budget { confidence: 0.999, ..budget() }, &rows).unwrap();
    assert_eq!((names(&sure), sure.confidence), (names(&own), 0.999));
    // Golden rows were counted then, and nothing can be looked up any more.
    let golden = Golden { asked: 2, changed: vec!["a".into()], missing: Vec::new() };
    let ids = vec!["a".to_string(), "b".into()];
    let held = Measurements { golden, ..rows.clone() };
    let of_golden = certify(&Budget { golden: ids.clone(), ..churn_budget(0.9) }, &held).unwrap();
    assert!(of_golden.limits.as_ref().is_some_and(|limits| limits.golden.is_empty()));
    let again = certify_again(Some(&of_golden), &churn_budget(0.8), &rows).unwrap();
    assert_eq!(names(&again), [("churn".to_string(), 0.8), ("golden rows".into(), 0.0)]);
    assert_eq!(again.verdict, Verdict::Fail);
    let alone = certify(&Budget { golden: ids, ..budget() }, &held).unwrap();
    let again =
        certify_again(Some(&alone), &Budget { confidence: 0.99, ..budget() }, &rows).unwrap();
    assert_eq!(again, alone);
    // A report of before limits were kept, and one without a verdict.
    let older = Certificate { limits: None, ..own };
    let again = certify_again(Some(&older), &churn_budget(0.1), &rows).unwrap();
    assert_eq!(names(&again), [("churn".to_string(), 0.1)]);
    assert_eq!(certify_again(None, &asked, &rows).unwrap(), certify(&asked, &rows).unwrap());
}

#[test]
fn golden_rows_are_counted_and_a_missing_one_is_an_error() {
    let ids = |names: &[&str]| -> Vec<String> { names.iter().map(|s| (*s).to_owned()).collect() };
    let there = ids(&["a", "b", "c", "d"]);
    let (old, new) = ([0, 1, 1, 0], [0, 1, 0, 1]);
    let asked = |names: &[&str]| Budget { golden: ids(names), ..budget() };
    let judge = |names: &[&str]| {
        let golden = Golden::look_up(&ids(names), &there, &old, &new);
        certify(&asked(names), &Measurements { golden, ..Measurements::default() })
            .map_err(|error| error.to_string())
    };
    let kept = judge(&["a", "b", "a"]).unwrap();
    assert_eq!(kept.verdict, Verdict::Pass);
    assert_eq!(kept.checks[0].said, "none of 2 golden rows changed");
    assert_eq!(kept.correction, "golden rows are counted, nothing is estimated");
    let broken = judge(&["a", "c", "d"]).unwrap();
    assert_eq!(broken.verdict, Verdict::Fail);
    assert_eq!(broken.checks[0].said, "2 of 3 golden rows changed: c, d");
    assert_eq!(
        judge(&["a", "x", "y", "z", "w"]).unwrap_err(),
        "4 golden rows aren't in the data (the first: w, x, y); add them there, give texts where they are trained on, or take them off the golden list"
    );
    // Never looked up is missing, not passed.
    let forgotten = certify(&asked(&["a"]), &Measurements::default());
    assert!(matches!(forgotten, Err(Error::GoldenMissing { missing: 1, .. })));
    // They don't take error from the limits.
    let golden = Golden::look_up(&ids(&["a"]), &there, &old, &new);
    let both = Budget { golden: ids(&["a"]), ..churn_budget(0.02) };
    let rows = Measurements { golden, ..measured(unlabelled(5000, 120)) };
    let made = certify(&both, &rows).unwrap();
    assert_eq!((made.verdict, made.checks[0].fail_confidence), (Verdict::Fail, 0.95));
}

#[test]
fn certificates_survive_json_and_older_ones_are_read() {
    let made = certify(&churn_budget(0.02), &measured(flips(5000, 3, 5, 0))).unwrap();
    let mut json = serde_json::to_value(&made).unwrap();
    assert_eq!(serde_json::from_value::<Certificate>(json.clone()).unwrap(), made);
    assert_eq!(json["verdict"], "PASS");
    assert_eq!(json["checks"][0]["sense"], "at_most");
    json.as_object_mut().unwrap().remove("notes");
    assert_eq!(serde_json::from_value::<Certificate>(json).unwrap(), made);
}

proptest! {
    #[test]
    fn bounds_and_verdict_agree(rows in 1u64..20_000, part in 0.0..0.2f64, limit in 0.001..0.2f64) {
        let changed = (part * part * rows as f64) as u64;
        let made = only_check(&churn_budget(limit), &measured(unlabelled(rows, changed)));
        prop_assert!(made.low <= made.observed && made.observed <= made.high);
        let expected = match () {
            () if made.high <= limit => Verdict::Pass,
            () if made.low > limit => Verdict::Fail,
            () => Verdict::Inconclusive,
        };
        prop_assert_eq!(made.verdict, expected);
        if let Some(needed) = made.rows_needed {
            prop_assert!(needed > rows && is_certified((changed * needed).div_ceil(rows), needed, limit, 0.95));
        }
    }

    #[test]
    fn a_gain_lies_in_its_bounds_and_mirrors(n in 1u64..5000, a in 0.0..0.3f64, b in 0.0..0.3f64) {
        let (negative, positive) = ((a * n as f64) as u64, (b * n as f64) as u64);
        let gain = (positive as f64 - negative as f64) / n as f64;
        let bounds = gain_bounds(negative, positive, n, 0.95);
        prop_assert!(-1.0 <= bounds.low && bounds.low <= gain + 1e-12);
        prop_assert!(gain <= bounds.high + 1e-12 && bounds.high <= 1.0);
        let mirrored = gain_bounds(positive, negative, n, 0.95);
        prop_assert_eq!((mirrored.low, mirrored.high), (-bounds.high, -bounds.low));
    }
}
