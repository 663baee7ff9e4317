//! The stated error rates, by simulation: of a thousand updates that break a limit by a hair, at most 5 % may pass.
//!
//! Counts are whole numbers, so the chance of a wrong PASS is 4.0 to 4.4 % for the shares below, not 5: expect 40 to 44 of a
//! thousand, give or take 6 for the draw. Another seed can come out above 50 once in a while without anything being wrong.

mod problem;

use lowchurn_churn::{Budget, Candidate, Flips, Measured, Measurements, Verdict, certify, walk};
use lowchurn_data::Rng;
use problem::{budget, measured};

const UPDATES: u64 = 1000;
/// 5 % of them.
const ALLOWED: u64 = 50;
const ROWS: u64 = 5000;

/// Rows of which each flips on its own: right to wrong, wrong to right, wrong to wrong. Most don't flip, so the lengths of
/// their runs are drawn (geometric) and not the rows.
fn draw(rng: &mut Rng, rows: u64, negative: f64, positive: f64, lateral: f64) -> Flips {
    let changed = negative + positive + lateral;
    let mut flips = Flips { rows, labelled: rows, both_right: rows, ..Flips::default() };
    let mut row = 0.0;
    loop {
        row += ((1.0 - rng.uniform()).ln() / (-changed).ln_1p()).floor();
        if row >= rows as f64 {
            return flips;
        }
        let u = rng.uniform() * changed;
        let kind = match u {
            u if u < negative => &mut flips.negative,
            u if u < negative + positive => &mut flips.positive,
            _ => &mut flips.lateral,
        };
        *kind += 1;
        flips.changed += 1;
        flips.both_right -= 1;
        row += 1.0;
    }
}

/// How many of a thousand updates end with this verdict.
fn count(
    name: &str,
    budget: &Budget,
    verdict: Verdict,
    make: impl Fn(&mut Rng) -> Measurements,
) -> u64 {
    let ends = |i: &u64| {
        let rows = make(&mut Rng::stream(1, name, *i));
        certify(budget, &rows).unwrap().verdict == verdict
    };
    (0..UPDATES).filter(ends).count() as u64
}

#[test]
fn churn_just_above_the_budget_passes_in_five_of_a_hundred_at_most() {
    let asked = Budget { max_churn: Some(0.02), ..budget() };
    let pass = count("churn", &asked, Verdict::Pass, |rng| {
        measured(draw(rng, ROWS, 0.005, 0.01, 0.00501))
    });
    assert!((10..=ALLOWED).contains(&pass), "{pass}");
    // Far below, it passes; far above, it fails.
    let below =
        count("below", &asked, Verdict::Pass, |rng| measured(draw(rng, ROWS, 0.003, 0.008, 0.002)));
    assert!(below >= 950, "{below}");
    let above =
        count("above", &asked, Verdict::Fail, |rng| measured(draw(rng, ROWS, 0.01, 0.015, 0.005)));
    assert!(above >= 950, "{above}");
}

#[test]
fn a_walk_over_candidates_just_above_the_budget_passes_in_five_of_a_hundred_at_most() {
    let asked = Budget { max_churn: Some(0.02), ..budget() };
    let run = |name: &str, churns: &[f64]| {
        let pass = (0..UPDATES).filter(|i| {
            let mut rng = Rng::stream(2, name, *i);
            let candidates: Vec<Candidate> = churns
                .iter()
                .map(|churn| Candidate {
                    name: churn.to_string(),
                    calibration: measured(draw(&mut rng, 1000, 0.0, *churn, 0.0)),
                    certification: measured(draw(&mut rng, ROWS, 0.0, *churn, 0.0)),
                    merit: None,
                })
                .collect();
            let (chosen, _) = walk(&candidates, &asked).unwrap();
            chosen.is_some_and(|i| churns[i] > 0.02)
        });
        pass.count() as u64
    };
    let all_above = run("above", &[0.0201, 0.02011, 0.02012, 0.0202, 0.0203, 0.0204]);
    assert!((10..=ALLOWED).contains(&all_above), "{all_above}");
    // Some keep the budget; what is chosen breaks it as seldom.
    let mixed = run("mixed", &[0.008, 0.012, 0.0201, 0.0202, 0.0203]);
    assert!(mixed <= ALLOWED, "{mixed}");
    // Without the walk, the best of six would be passed far more often: the test can see what the order is good for.
    let best_of_six = (0..UPDATES).filter(|i| {
        let mut rng = Rng::stream(2, "best", *i);
        (0..6).any(|_| {
            let rows = measured(draw(&mut rng, ROWS, 0.0, 0.0201, 0.0));
            certify(&asked, &rows).unwrap().verdict == Verdict::Pass
        })
    });
    let best_of_six = best_of_six.count();
    assert!(best_of_six > 150, "{best_of_six}");
}

/// Also where few rows flip, which is where a bootstrap's interval has no width; and no wider than it says where there are more.
#[test]
fn the_interval_of_a_gain_holds_the_true_one_as_often_as_it_says() {
    let misses = |name: &str, rows, negative, positive| {
        let is_missed = |i: &u64| {
            let flips = draw(&mut Rng::stream(4, name, *i), rows, negative, positive, 0.0);
            let interval = Measured::of(flips, 0.95).accuracy_gain.unwrap().interval;
            !(interval.low..=interval.high).contains(&(positive - negative))
        };
        (0..UPDATES).filter(is_missed).count() as u64
    };
    // A score interval may miss a little more often than it says where counts are few whole numbers: a standard deviation of the
    // count is 7, and 75 of a thousand are 3.6 of them.
    for (negative, positive) in [(0.0002, 0.0), (0.0002, 0.0004), (0.001, 0.001)] {
        let misses = misses("few", 1000, negative, positive);
        assert!(misses <= 75, "{negative} {positive}: {misses}");
    }
    let many = misses("many", 5000, 0.01, 0.03);
    assert!((25..=75).contains(&many), "{many}");
}

/// The order goes by two limits then, and by rows that certify nothing all the same.
#[test]
fn a_walk_over_candidates_below_the_floor_passes_in_five_of_a_hundred_at_most() {
    let asked = Budget { max_churn: Some(0.1), min_accuracy_gain: Some(0.01), ..budget() };
    let run = |name: &str, positives: &[f64]| {
        let chosen = (0..UPDATES).map(|i| {
            let mut rng = Rng::stream(3, name, i);
            let mut flips = |rows, positive| draw(&mut rng, rows, 0.01, positive, 0.005);
            let candidate = |positive: &f64| Candidate {
                name: positive.to_string(),
                calibration: measured(flips(2000, *positive)),
                certification: measured(flips(ROWS, *positive)),
                merit: None,
            };
            let candidates: Vec<Candidate> = positives.iter().map(candidate).collect();
            walk(&candidates, &asked).unwrap().0.map(|at| positives[at] - 0.01)
        });
        let gains: Vec<f64> = chosen.flatten().collect();
        let wrong = gains.iter().filter(|gain| **gain < 0.01).count() as u64;
        (wrong, gains.len() as u64 - wrong)
    };
    let (wrong, _) = run("below the floor", &[0.012, 0.015, 0.0199, 0.01995]);
    assert!((1..=ALLOWED).contains(&wrong), "{wrong}");
    // One is far above; it is found behind those that gain nothing.
    let (wrong, right) = run("one above", &[0.0101, 0.012, 0.015, 0.04]);
    assert!(wrong <= ALLOWED && right >= 950, "{wrong} {right}");
}

#[test]
fn one_broken_limit_among_kept_ones_passes_in_five_of_a_hundred_at_most() {
    let asked = Budget { max_churn: Some(0.03), max_nfr: Some(0.01), ..budget() };
    let pass =
        count("nfr", &asked, Verdict::Pass, |rng| measured(draw(rng, ROWS, 0.01005, 0.003, 0.0)));
    assert!((10..=ALLOWED).contains(&pass), "{pass}");
    let both =
        count("both", &asked, Verdict::Pass, |rng| measured(draw(rng, ROWS, 0.01005, 0.02, 0.0)));
    assert!(both <= pass, "{both}");
    let kept =
        count("kept", &asked, Verdict::Pass, |rng| measured(draw(rng, ROWS, 0.005, 0.01, 0.0)));
    assert!(kept >= 950, "{kept}");
}

#[test]
fn one_broken_slice_among_five_passes_in_five_of_a_hundred_at_most() {
    let asked = Budget { max_slice_nfr: Some(0.02), ..budget() };
    let slices = |rng: &mut Rng, rates: [f64; 5]| {
        let slices = rates.into_iter().enumerate();
        let slices: Vec<(String, Flips)> = slices
            .map(|(i, rate)| (format!("slice {i}"), draw(rng, 2000, rate, 0.0, 0.0)))
            .collect();
        Measurements { slices, ..Measurements::default() }
    };
    let broken = [0.005, 0.005, 0.0201, 0.005, 0.005];
    let pass = count("slices", &asked, Verdict::Pass, |rng| slices(rng, broken));
    assert!((10..=ALLOWED).contains(&pass), "{pass}");
    // Five slices just within the limit: each gets a fifth of the error of FAIL.
    let fail = count("within", &asked, Verdict::Fail, |rng| slices(rng, [0.0199; 5]));
    assert!((10..=ALLOWED).contains(&fail), "{fail}");
}

#[test]
fn a_gain_just_below_the_floor_passes_in_five_of_a_hundred_at_most() {
    for (name, floor, negative, positive) in
        [("loss", -0.01, 0.03, 0.0199), ("none", 0.0, 0.03, 0.0299), ("gain", 0.01, 0.02, 0.0299)]
    {
        let asked = Budget { min_accuracy_gain: Some(floor), ..budget() };
        let pass = count(name, &asked, Verdict::Pass, |rng| {
            measured(draw(rng, ROWS, negative, positive, 0.01))
        });
        assert!((5..=ALLOWED).contains(&pass), "{name}: {pass}");
        let above = count(name, &asked, Verdict::Pass, |rng| {
            measured(draw(rng, ROWS, negative, positive + 0.015, 0.0))
        });
        assert!(above >= 950, "{name}: {above}");
        let fail = count(name, &asked, Verdict::Fail, |rng| {
            measured(draw(rng, ROWS, negative, positive + 0.0002, 0.0))
        });
        assert!((5..=ALLOWED).contains(&fail), "{name}: {fail}");
    }
}
