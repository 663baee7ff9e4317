//! The mean churn of runs that differ by their seed, on the same rows: how far off it may be, over seeds and rows together.

use crate::slope::student_t;
use crate::{Error, Estimate, Interval, Pair, Result, clopper_pearson};

/// Mean churn over S runs on the same N rows, with an interval for other seeds and other rows.
///
/// Each end is √(t²(S − 1)·s²/S + d²) from the mean, s² the variance of the runs' churn and d how far the exact interval of as many
/// changed rows among N reaches: that of one run, for the same rows may change in all of them. A t for the seeds' part holds the
/// confidence however few there are and whichever part is the larger (Banerjee 1960, for the sum of two means); the percentile
/// bootstrap over two runs covers half of what it says. `None` of fewer than two runs: one says nothing of other seeds.
///
/// # Errors
/// Where the runs hold different rows.
pub fn churn_of_runs(runs: &[Pair], confidence: f64) -> Result<Option<Estimate>> {
    let Some(first) = runs.first() else { return Ok(None) };
    if let Some(other) = runs.iter().find(|run| run.ids != first.ids) {
        let (first, second) = (first.new_name.clone(), other.new_name.clone());
        return Err(Error::RunsDiffer { first, second });
    }
    let (s, n) = (runs.len(), first.rows());
    if s < 2 || n == 0 {
        return Ok(None);
    }
    let of_runs: Vec<f64> = runs.iter().map(|run| run.flips().changed as f64 / n as f64).collect();
    let value = of_runs.iter().sum::<f64>() / s as f64;
    let squares: f64 = of_runs.iter().map(|churn| (churn - value).powi(2)).sum();
    let of_seeds =
        student_t(s as u64 - 1, confidence).powi(2) * squares / (s as f64 - 1.0) / s as f64;
    let changed: u64 = runs.iter().map(|run| run.flips().changed).sum(); // in a run on average between whole rows
    let exact = |rows: u64| clopper_pearson(rows, n as u64, confidence);
    let end = |of_rows: f64| (of_seeds + (of_rows - value).powi(2)).sqrt();
    let low = (value - end(exact(changed / s as u64).low)).max(0.0);
    let high = (value + end(exact(changed.div_ceil(s as u64)).high)).min(1.0);
    Ok(Some(Estimate { value, interval: Interval { low, high, confidence } }))
}

#[cfg(test)]
mod tests {
    use lowchurn_data::Rng;

    use super::*;

    fn run(changed: impl IntoIterator<Item = bool>) -> Pair {
        let new: Vec<u32> = changed.into_iter().map(u32::from).collect();
        Pair {
            labels: vec!["a".to_owned(), "b".to_owned()],
            ids: (0..new.len()).map(|row| row.to_string()).collect(),
            old: vec![0; new.len()],
            gold: vec![None; new.len()],
            new,
            ..Pair::default()
        }
    }

    fn first_of_ten(n: usize) -> Pair {
        run((0..1000).map(|row| row % 10 < n))
    }

    /// 100 and 101 of 1,000: s² = 0.5·10⁻⁶, t of one degree 12.7062; each end is as far from the mean as seeds and the rows of the
    /// run nearest to it say.
    #[test]
    fn two_runs_by_hand() {
        let first = |n: usize| run((0..1000).map(|row| row < n));
        let found = churn_of_runs(&[first(100), first(101)], 0.95).unwrap().unwrap();
        let (mean, seeds) = (0.1005, 12.706_204_736f64.powi(2) * 0.5e-6 / 2.0);
        let reach = |end: f64| (seeds + (end - mean).powi(2)).sqrt();
        let low = mean - reach(clopper_pearson(100, 1000, 0.95).low);
        let high = mean + reach(clopper_pearson(101, 1000, 0.95).high);
        assert!((found.interval.low - low).abs() < 1e-9);
        assert!((found.interval.high - high).abs() < 1e-9);
    }

    #[test]
    fn by_hand() {
        // Churn of 0.1, 0.2 and 0.3: s = 0.1, t of 2 degrees 4.3027; 200 of 1,000 rows are 0.2262 at most.
        let runs = [first_of_ten(1), first_of_ten(2), first_of_ten(3)];
        let found = churn_of_runs(&runs, 0.95).unwrap().unwrap();
        let of_rows = clopper_pearson(200, 1000, 0.95).high - 0.2;
        let half = (4.302_65f64.powi(2) * 0.01 / 3.0 + of_rows * of_rows).sqrt();
        assert!((found.value - 0.2).abs() < 1e-12);
        assert!((found.interval.high - 0.2 - half).abs() < 1e-5, "{:?} {half}", found.interval);
        assert_eq!(found.interval.low, 0.0, "no churn is below 0");
        assert_eq!(churn_of_runs(&runs[..1], 0.95).unwrap(), None);
        assert_eq!(churn_of_runs(&[], 0.95).unwrap(), None);
        // Runs that agree say no more of other rows than one does.
        let none = churn_of_runs(&[first_of_ten(0), first_of_ten(0)], 0.95).unwrap().unwrap();
        assert_eq!(none.interval, clopper_pearson(0, 1000, 0.95));
        let error = churn_of_runs(&[run([true]), run([true, false])], 0.95).unwrap_err();
        assert_eq!(
            error.to_string(),
            " and  can't be taken together: they hold different rows or labels"
        );
    }

    /// Of a thousand sweeps whose seeds and rows are drawn, at most the stated share misses the churn that they are drawn from.
    #[test]
    fn the_interval_holds_what_it_says_of_few_seeds() {
        let rows = 200;
        let cases = [0.1, 0.02, 0.01].into_iter().flat_map(|churn| {
            [(2u32, 0.3), (3, 0.3), (5, 0.3), (2, 0.0), (5, 0.0)]
                .map(|(runs, spread)| (churn, runs, spread))
        });
        for ((churn, runs, spread), is_shared) in
            cases.flat_map(|case| [(case, false), (case, true)])
        {
            let missed = |i: &u64| {
                let mut rng = Rng::stream(5, "sweeps", *i);
                // A row's own churn is uniform up to twice the mean, or it is a row that changes or not in every run; a seed's takes
                // more or less of it.
                let own: Vec<f64> = (0..rows)
                    .map(|_| match is_shared {
                        true => f64::from(u8::from(rng.uniform() < churn)),
                        false => 2.0 * churn * rng.uniform(),
                    })
                    .collect();
                let of_seed: Vec<Pair> = (0..runs)
                    .map(|_| {
                        let by = if is_shared { 1.0 } else { 1.0 + spread * rng.normal() };
                        run(own.iter().map(|p| rng.uniform() < p * by).collect::<Vec<_>>())
                    })
                    .collect();
                let interval = churn_of_runs(&of_seed, 0.95).unwrap().unwrap().interval;
                !(interval.low..=interval.high).contains(&churn)
            };
            let n = (0..1000).filter(missed).count();
            // 50 are allowed, and 50 of a thousand come out as up to 70 in 998 of a thousand draws.
            assert!(
                n <= 70,
                "churn {churn}, {runs} runs that differ by {spread}, {is_shared}: {n} of 1000 missed"
            );
        }
    }
}
