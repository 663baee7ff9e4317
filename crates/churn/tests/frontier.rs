//! Settings on the axes churn and accuracy, against the papers' worked numbers and closed forms.

use lowchurn_churn::{
    Mean, Point, RunPoint, churn_at_cold_accuracy, cost_curves, paired_difference, points,
};
use proptest::prelude::*;
use serde_json::Value;

fn run(method: &str, setting: &str, seed: u64, accuracy: f64, churn: f64) -> RunPoint {
    let (method, init, setting) = (method.to_owned(), "cold".to_owned(), setting.to_owned());
    RunPoint { method, init, setting, seed, members: Vec::new(), accuracy, churn, nfr: churn / 4.0 }
}

fn golden() -> Value {
    serde_json::from_str(include_str!("../../../tests/golden/papers_examples.json")).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-12, "{found}, expected {expected}");
}

#[test]
fn churn_at_cold_accuracy_is_that_of_the_papers() {
    let golden = &golden()["C6_churn_at_cold_accuracy"];
    let (cold, answer) = (&golden["cold"], &golden["answer"]);
    let mut runs = vec![run("retrain", "", 0, number(&cold["acc"]), number(&cold["churn"]))];
    for given in golden["runs"].as_array().unwrap() {
        let setting = given["h"].as_str().unwrap();
        runs.push(run("distil", setting, 0, number(&given["acc"]), number(&given["churn"])));
    }
    runs.push(run("anchor", "a 0.5", 0, 0.879, 0.01));
    let points = points(&runs);
    let found = churn_at_cold_accuracy(&runs, &points, &points[0]);
    let names: Vec<&str> = found.iter().map(|at| at.method.as_str()).collect();
    assert_eq!(names, ["retrain", "distil", "anchor"]);
    let attained = found[1].attained.as_ref().unwrap();
    assert_eq!(attained.setting, answer["h"].as_str().unwrap());
    near(attained.churn.value, number(&answer["churn"]));
    assert_eq!(found[0].attained.as_ref(), Some(&points[0]), "a cold retrain attains itself");
    assert_eq!(found[2].attained, None, "less accurate is not attained, whatever its churn");
}

#[test]
fn seeds_make_means_and_errors_and_missing_ones_are_told() {
    let twice = run("distil", "λ 0.5", 1, 0.86, 0.07);
    let runs = [
        run("retrain", "", 1, 0.86, 0.09),
        run("retrain", "", 2, 0.88, 0.10),
        run("retrain", "", 3, 0.87, 0.11),
        twice.clone(),
        run("distil", "λ 0.5", 3, 0.88, 0.08),
        twice,
        run("distil", "λ 0.9", 2, 0.85, 0.03),
    ];
    let points = points(&runs);
    assert_eq!(points.len(), 3);
    let [retrain, half, most] = &points[..] else { panic!() };
    near(retrain.accuracy.value, 0.87);
    // s = 0.01 of three, over √3.
    near(retrain.accuracy.standard_error.unwrap(), 0.01 / 3f64.sqrt());
    near(retrain.nfr.value, 0.025);
    assert_eq!(
        (retrain.seeds.as_slice(), retrain.missing_seeds.as_slice()),
        (&[1, 2, 3][..], &[][..])
    );
    assert_eq!((half.seeds.as_slice(), half.missing_seeds.as_slice()), (&[1, 3][..], &[2][..]));
    near(half.churn.value, 0.075);
    assert_eq!(most.churn.standard_error, None);

    let paired = paired_difference(&runs, half, retrain).unwrap();
    assert_eq!(paired.seeds, [1, 3]);
    // 0.00 and 0.01; −0.02 and −0.03.
    near(paired.accuracy.value, 0.005);
    near(paired.accuracy.standard_error.unwrap(), 0.005);
    near(paired.churn.value, -0.025);
    assert_eq!(paired_difference(&runs, half, most), None, "no seed in common");
    assert_eq!(Mean::of(&[]), None);
}

/// Cold has 88 and 86 %, so 87 % in the mean; a setting that was dropped after the first seed has 87.5 % there.
#[test]
fn what_lacks_a_seed_is_held_against_nothing_of_other_seeds() {
    let runs = [
        run("retrain", "", 1, 0.88, 0.10),
        run("retrain", "", 2, 0.86, 0.12),
        run("distil", "λ 0.5", 1, 0.88, 0.08),
        run("distil", "λ 0.5", 2, 0.86, 0.10),
        run("anchor", "dropped", 1, 0.875, 0.05),
    ];
    let points = points(&runs);
    let found = churn_at_cold_accuracy(&runs, &points, &points[0]);
    let attained = |at: usize| found[at].attained.as_ref().map(|point| point.setting.as_str());
    assert_eq!((attained(1), attained(2)), (Some("λ 0.5"), None));
    assert_eq!(on_frontier(&points), ["λ 0.5"]);
    let curves = cost_curves(&points, 2);
    let names: Vec<&str> = curves.iter().map(|curve| curve.method.as_str()).collect();
    assert_eq!(names, ["retrain", "distil", ""]);
    near(curves[2].costs[0].1, 0.09);
}

/// Of two models, so it is held against the mean of their retrains, 87 and 11 %, and lacks the third seed alone.
#[test]
fn an_ensemble_takes_its_seeds_together() {
    let both = RunPoint { members: vec![1, 2], ..run("ensemble", "of 2", 1, 0.875, 0.06) };
    let runs = [run("retrain", "", 1, 0.88, 0.10), run("retrain", "", 2, 0.86, 0.12), both];
    let points = points(&runs);
    assert!(points[1].missing_seeds.is_empty());
    let gain = paired_difference(&runs, &points[1], &points[0]).unwrap();
    near(gain.accuracy.value, 0.005);
    near(gain.churn.value, -0.05);
    let found = churn_at_cold_accuracy(&runs, &points, &points[0]);
    assert_eq!(found[1].attained.as_ref(), Some(&points[1]));
    let third = [&runs[..], &[run("retrain", "", 3, 0.9, 0.1)]].concat();
    let of_three = lowchurn_churn::points(&third);
    assert_eq!(
        (of_three[1].seeds.as_slice(), of_three[1].missing_seeds.as_slice()),
        (&[1, 2][..], &[3][..])
    );
    // One of whose models there is no retrain has nothing to be held against.
    assert_eq!(paired_difference(&runs[1..], &points[1], &points[0]), None);
}

fn on_frontier(points: &[Point]) -> Vec<&str> {
    points.iter().filter(|p| p.is_on_frontier).map(|p| p.setting.as_str()).collect()
}

#[test]
fn the_frontier_holds_what_nothing_beats() {
    let runs = [
        run("m", "best", 0, 0.90, 0.10),
        run("m", "as good, more churn", 0, 0.90, 0.11),
        run("m", "beaten", 0, 0.85, 0.06),
        run("m", "middle", 0, 0.87, 0.05),
        run("m", "old", 0, 0.80, 0.0),
        run("m", "same churn as the old, worse", 0, 0.79, 0.0),
        run("m", "not a number", 0, f64::NAN, 0.01),
        run("m", "nor this", 0, 0.99, f64::NAN),
    ];
    assert_eq!(on_frontier(&points(&runs)), ["best", "middle", "old"]);
}

#[test]
fn of_two_with_the_same_churn_the_more_accurate_is_on_the_frontier() {
    let points = points(&[run("m", "worse", 0, 0.79, 0.0), run("m", "better", 0, 0.8, 0.0)]);
    assert_eq!(on_frontier(&points), ["better"]);
}

/// The retrain has two seeds, and by its first alone the anchor would be accurate enough.
#[test]
fn a_method_that_lacks_a_seed_attains_nothing() {
    let retrains = [run("retrain", "", 1, 0.88, 0.1), run("retrain", "", 2, 0.86, 0.12)];
    let runs = [&retrains[..], &[run("anchor", "one seed", 1, 0.89, 0.05)]].concat();
    let of_all = points(&runs);
    assert_eq!(churn_at_cold_accuracy(&runs, &of_all, &of_all[0])[1].attained, None);
}

#[test]
fn an_ensemble_is_paired_by_its_own_seed() {
    let both = RunPoint { members: vec![1, 2], ..run("ensemble", "of 2", 1, 0.875, 0.06) };
    let runs = [run("retrain", "", 1, 0.88, 0.1), run("retrain", "", 2, 0.86, 0.12), both];
    let of_all = points(&runs);
    let gain = paired_difference(&runs, &of_all[1], &of_all[0]).unwrap();
    assert_eq!((gain.seeds, gain.accuracy.standard_error), (vec![1], None));
}

#[test]
fn cost_curves_start_at_churn_end_at_error_and_the_last_is_below_all() {
    let runs = [
        run("retrain", "", 0, 0.88, 0.10),
        run("distil", "λ 0.5", 0, 0.87, 0.07),
        run("distil", "λ 0.9", 0, 0.84, 0.03),
    ];
    let curves = cost_curves(&points(&runs), 4);
    assert_eq!(curves.len(), 3);
    let [retrain, distil, envelope] = &curves[..] else { panic!() };
    let check = |curve: &lowchurn_churn::CostCurve, expected: [f64; 5]| {
        for (i, ((a, cost), expected)) in curve.costs.iter().zip(expected).enumerate() {
            near(*a, i as f64 / 4.0);
            near(*cost, expected);
        }
    };
    check(retrain, [0.10, 0.105, 0.11, 0.115, 0.12]);
    // λ 0.9: 0.03, 0.0625, 0.095, …; λ 0.5: …, 0.1, 0.115, 0.13.
    check(distil, [0.03, 0.0625, 0.095, 0.115, 0.13]);
    check(envelope, [0.03, 0.0625, 0.095, 0.115, 0.12]);
    assert_eq!((envelope.method.as_str(), envelope.costs.len()), ("", 5));
    assert!(cost_curves(&[], 4).is_empty());
}

fn some_runs() -> impl Strategy<Value = Vec<RunPoint>> {
    let one = (0usize..8, 0u64..3, 0.5..1.0f64, 0.0..0.2f64);
    let many = proptest::collection::vec(one, 1..40);
    many.prop_map(|given| {
        given.into_iter().map(|(s, seed, a, c)| run("m", &s.to_string(), seed, a, c)).collect()
    })
}

proptest! {
    #[test]
    fn a_point_is_on_the_frontier_exactly_if_none_is_as_good_both_ways(runs in some_runs()) {
        let points = points(&runs);
        for p in &points {
            let is_beaten = !p.missing_seeds.is_empty() || points.iter().any(|q| {
                q.setting != p.setting
                    && q.missing_seeds.is_empty()
                    && q.churn.value <= p.churn.value
                    && q.accuracy.value >= p.accuracy.value
            });
            prop_assert_eq!(p.is_on_frontier, !is_beaten, "{:?}", p);
        }
    }
}
