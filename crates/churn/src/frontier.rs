//! Methods and their settings on the axes churn and accuracy: frontier, churn at cold accuracy, cost curve.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// One run of one setting and seed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunPoint {
    /// `retrain`, `distil`, `interpolate`, …
    pub method: String,
    /// `cold`, `warm` or empty.
    pub init: String,
    /// The rest that tells settings of a method apart: `λ 0.5 T 1`.
    pub setting: String,
    pub seed: u64,
    /// Of an ensemble the seeds of its models, of which `seed` is the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<u64>,
    pub accuracy: f64,
    pub churn: f64,
    pub nfr: f64,
}

/// Mean and standard error (n − 1) over seeds; the error is `None` for one seed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    pub value: f64,
    pub standard_error: Option<f64>,
}

/// One setting over its seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    pub method: String,
    pub init: String,
    pub setting: String,
    pub seeds: Vec<u64>,
    /// Seeds that other settings have and this one hasn't: its mean isn't over the same runs, so it is on no frontier and no curve,
    /// and attains nothing. An ensemble has the seeds of its models.
    #[serde(default)]
    pub missing_seeds: Vec<u64>,
    pub accuracy: Mean,
    pub churn: Mean,
    pub nfr: Mean,
    pub is_on_frontier: bool,
}

/// A setting less a baseline, run by run of equal seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairedDifference {
    /// The seeds that both have.
    pub seeds: Vec<u64>,
    pub accuracy: Mean,
    pub churn: Mean,
    pub nfr: Mean,
}

/// Lowest churn of a method among settings that are as accurate as a cold retrain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChurnAtAccuracy {
    pub method: String,
    pub init: String,
    /// The setting that attains it; `None` where no setting is accurate enough.
    pub attained: Option<Point>,
}

/// What a method costs at each weight a, at its best setting for that weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CostCurve {
    /// Empty for the lower envelope of all methods.
    pub method: String,
    pub init: String,
    /// (a, a·error + (1 − a)·churn), a from 0 to 1.
    pub costs: Vec<(f64, f64)>,
}

impl RunPoint {
    pub fn seeds(&self) -> &[u64] {
        match self.members.is_empty() {
            true => std::slice::from_ref(&self.seed),
            false => &self.members,
        }
    }
}

impl Point {
    /// Whether a run is one of its seeds'.
    pub fn has(&self, run: &RunPoint) -> bool {
        (&self.method, &self.init, &self.setting) == (&run.method, &run.init, &run.setting)
    }
}

impl Mean {
    /// Mean and s / √n of the values, s with n − 1; `None` of no values.
    pub fn of(values: &[f64]) -> Option<Mean> {
        let n = values.len() as f64;
        if values.is_empty() {
            return None;
        }
        let value = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|x| (x - value).powi(2)).sum();
        let standard_error = (values.len() > 1).then(|| (squares / (n - 1.0) / n).sqrt());
        Some(Mean { value, standard_error })
    }
}

/// Runs grouped by method, init and setting, in the order in which these come first; the frontier is marked.
///
/// A run that is listed twice in all its numbers (shards that overlap) counts once. The frontier: sorted by churn, those
/// with an accuracy above all before (papers.md §5.7), among those that have all seeds.
pub fn points(runs: &[RunPoint]) -> Vec<Point> {
    let mut groups: Vec<Vec<&RunPoint>> = Vec::new();
    for run in runs {
        match groups.iter_mut().find(|group| is_same_setting(group[0], run)) {
            Some(group) if group.contains(&run) => {}
            Some(group) => group.push(run),
            None => groups.push(vec![run]),
        }
    }
    let all_seeds: BTreeSet<u64> = runs.iter().flat_map(RunPoint::seeds).copied().collect();
    let mut points: Vec<Point> =
        groups.iter().filter_map(|group| point(group, &all_seeds)).collect();
    mark_frontier(&mut points);
    points
}

fn is_same_setting(a: &RunPoint, b: &RunPoint) -> bool {
    (&a.method, &a.init, &a.setting) == (&b.method, &b.init, &b.setting)
}

fn point(group: &[&RunPoint], all_seeds: &BTreeSet<u64>) -> Option<Point> {
    let first = group.first()?;
    let mean =
        |of: fn(&RunPoint) -> f64| Mean::of(&group.iter().map(|run| of(run)).collect::<Vec<f64>>());
    let seeds: BTreeSet<u64> = group.iter().flat_map(|run| run.seeds()).copied().collect();
    Some(Point {
        method: first.method.clone(),
        init: first.init.clone(),
        setting: first.setting.clone(),
        missing_seeds: all_seeds.difference(&seeds).copied().collect(),
        seeds: seeds.into_iter().collect(),
        accuracy: mean(|run| run.accuracy)?,
        churn: mean(|run| run.churn)?,
        nfr: mean(|run| run.nfr)?,
        is_on_frontier: false,
    })
}

fn mark_frontier(points: &mut [Point]) {
    let is_whole = |&at: &usize| points[at].missing_seeds.is_empty();
    let mut order: Vec<usize> = (0..points.len()).filter(is_whole).collect();
    order.sort_by(|&a, &b| {
        let (a, b) = (&points[a], &points[b]);
        let by_churn = a.churn.value.total_cmp(&b.churn.value);
        by_churn.then(b.accuracy.value.total_cmp(&a.accuracy.value))
    });
    let mut best = f64::NEG_INFINITY;
    for i in order {
        let accuracy = points[i].accuracy.value;
        points[i].is_on_frontier = accuracy > best && points[i].churn.value.is_finite();
        if points[i].is_on_frontier {
            best = accuracy;
        }
    }
}

/// Mean ± s.e. of setting − baseline over the seeds that both ran with; `None` where they share none. An ensemble is held against the
/// mean of the baseline's runs with its models' seeds.
///
/// Runs of one seed share data and order, so that their difference varies less than the two means do.
pub fn paired_difference(
    runs: &[RunPoint],
    setting: &Point,
    baseline: &Point,
) -> Option<PairedDifference> {
    let of_baseline: Vec<&RunPoint> = runs.iter().filter(|run| baseline.has(run)).collect();
    let mut pairs: Vec<(&RunPoint, Vec<&RunPoint>)> = Vec::new();
    for &seed in &setting.seeds {
        let Some(run) = runs.iter().find(|run| setting.has(run) && run.seed == seed) else {
            continue;
        };
        let with = |seed: &u64| of_baseline.iter().find(|other| other.seed == *seed).copied();
        pairs.extend(
            run.seeds().iter().map(with).collect::<Option<Vec<_>>>().map(|with| (run, with)),
        );
    }
    let mean = |value: fn(&RunPoint) -> f64| {
        let of_all =
            |old: &[&RunPoint]| old.iter().map(|run| value(run)).sum::<f64>() / old.len() as f64;
        Mean::of(&pairs.iter().map(|(new, old)| value(new) - of_all(old)).collect::<Vec<f64>>())
    };
    Some(PairedDifference {
        seeds: pairs.iter().map(|(run, _)| run.seed).collect(),
        accuracy: mean(|run| run.accuracy)?,
        churn: mean(|run| run.churn)?,
        nfr: mean(|run| run.nfr)?,
    })
}

/// For each method and init: among settings whose accuracy is at least that of the cold retrain, in the mean over the same seeds,
/// the one with the lowest mean churn (papers.md §5.7; "not attained" is `None`, never the nearest).
///
/// Settings are chosen by the means that are reported, so the lowest of many is a little too low; choose on other rows
/// where that matters.
pub fn churn_at_cold_accuracy(
    runs: &[RunPoint],
    points: &[Point],
    cold: &Point,
) -> Vec<ChurnAtAccuracy> {
    // Shares of rows are equal up to their rounding.
    let is_as_accurate = |point: &&Point| {
        paired_difference(runs, point, cold).is_some_and(|gain| gain.accuracy.value > -1e-12)
    };
    let methods = methods(points);
    let made = methods.into_iter().map(|(method, init)| {
        let attained = of_method(points, method, init)
            .filter(|point| point.missing_seeds.is_empty())
            .filter(is_as_accurate)
            .min_by(|a, b| a.churn.value.total_cmp(&b.churn.value));
        let (method, init) = (method.to_owned(), init.to_owned());
        ChurnAtAccuracy { method, init, attained: attained.cloned() }
    });
    made.collect()
}

/// cost(a) = a·(1 − accuracy) + (1 − a)·churn at a = 0, 1/steps, … 1; a method and init is taken at its best setting for each
/// a. The last curve, without a name, is the lower envelope of all (papers.md §5.7).
pub fn cost_curves(points: &[Point], steps: usize) -> Vec<CostCurve> {
    let whole = |point: &&Point| point.missing_seeds.is_empty();
    let curve = |method: &str, init: &str, of: &[&Point]| {
        let costs = (0..=steps.max(1)).map(|i| {
            let a = i as f64 / steps.max(1) as f64;
            let cost = |p: &&Point| a * (1.0 - p.accuracy.value) + (1.0 - a) * p.churn.value;
            (a, of.iter().map(cost).fold(f64::INFINITY, f64::min))
        });
        CostCurve { method: method.to_owned(), init: init.to_owned(), costs: costs.collect() }
    };
    let methods = methods(points);
    let of_methods = methods.into_iter().filter_map(|(method, init)| {
        let of: Vec<&Point> = of_method(points, method, init).filter(whole).collect();
        (!of.is_empty()).then(|| curve(method, init, &of))
    });
    let all: Vec<&Point> = points.iter().filter(whole).collect();
    let envelope = (!all.is_empty()).then(|| curve("", "", &all));
    of_methods.chain(envelope).collect()
}

// Method and init, in the order in which they come first.
fn methods(points: &[Point]) -> Vec<(&str, &str)> {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for point in points {
        let name = (point.method.as_str(), point.init.as_str());
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}

fn of_method<'a>(
    points: &'a [Point],
    method: &'a str,
    init: &'a str,
) -> impl Iterator<Item = &'a Point> {
    points.iter().filter(move |point| point.method == method && point.init == init)
}
