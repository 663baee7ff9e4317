//! The mean churn of runs that differ by their seed, on the same rows: how far off it may be, over seeds and rows together.

use crate::slope::student_t;
use crate::{Error, Estimate, Interval, Pair, Result};

/// Mean churn over S runs on the same N rows, with an interval for other seeds and other rows.
///
/// half² = t²(S − 1)·s²/S + t²(N − 1)·r²/N, s² the variance of the runs' churn, r² that of the rows' share of runs in which they
/// change. A t for each part holds the confidence however few runs there are and whichever part is the larger (Banerjee 1960, for
/// the sum of two means); the percentile bootstrap over two runs covers half of what it says. `None` of fewer than two runs or
/// rows: one run says nothing of other seeds.
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
    if s < 2 || n < 2 {
        return Ok(None);
    }
    let changed = |row: usize| runs.iter().filter(|run| run.judged(row).is_changed).count();
    let of_rows: Vec<f64> = (0..n).map(|row| changed(row) as f64 / s as f64).collect();
    let of_runs: Vec<f64> = runs.iter().map(|run| run.flips().changed as f64 / n as f64).collect();
    let value = of_runs.iter().sum::<f64>() / s as f64;
    let half = (part(&of_runs, value, confidence) + part(&of_rows, value, confidence)).sqrt();
    let (low, high) = ((value - half).max(0.0), (value + half).min(1.0));
    Ok(Some(Estimate { value, interval: Interval { low, high, confidence } }))
}

/// t²·s²/n of values around their mean.
fn part(values: &[f64], mean: f64, confidence: f64) -> f64 {
    let n = values.len() as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    student_t(values.len() as u64 - 1, confidence).powi(2) * squares / (n - 1.0) / n
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

    #[test]
    fn by_hand() {
        // Churn of 0.1, 0.2 and 0.3: s = 0.1, t of 2 degrees 4.3027; rows change in 3, 2, 1 or none of the three runs.
        let runs = [first_of_ten(1), first_of_ten(2), first_of_ten(3)];
        let found = churn_of_runs(&runs, 0.95).unwrap().unwrap();
        let rows: f64 =
            [1.0, 2.0 / 3.0, 1.0 / 3.0].iter().map(|m: &f64| 100.0 * (m - 0.2).powi(2)).sum();
        let r2 = (rows + 700.0 * 0.04) / 999.0;
        let half = (4.302_65f64.powi(2) * 0.01 / 3.0 + 1.962_34f64.powi(2) * r2 / 1000.0).sqrt();
        assert!((found.value - 0.2).abs() < 1e-12);
        assert!((found.interval.high - 0.2 - half).abs() < 1e-5, "{:?} {half}", found.interval);
        assert_eq!(found.interval.low, 0.0, "no churn is below 0");
        assert_eq!(churn_of_runs(&runs[..1], 0.95).unwrap(), None);
        assert_eq!(churn_of_runs(&[], 0.95).unwrap(), None);
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
        for (runs, spread) in [(2u32, 0.3), (3, 0.3), (5, 0.3), (2, 0.0), (5, 0.0)] {
            let missed = |i: &u64| {
                let mut rng = Rng::stream(5, "sweeps", *i);
                // A row's own churn, uniform up to a fifth; a seed's takes more or less of it, a tenth in the mean.
                let own: Vec<f64> = (0..rows).map(|_| 0.2 * rng.uniform()).collect();
                let of_seed: Vec<Pair> = (0..runs)
                    .map(|_| {
                        let by = 1.0 + spread * rng.normal();
                        run(own.iter().map(|p| rng.uniform() < p * by).collect::<Vec<_>>())
                    })
                    .collect();
                let interval = churn_of_runs(&of_seed, 0.95).unwrap().unwrap().interval;
                !(interval.low..=interval.high).contains(&0.1)
            };
            let n = (0..1000).filter(missed).count();
            // 50 are allowed, and 50 of a thousand come out as up to 70 in 998 of a thousand draws.
            assert!(n <= 70, "{runs} runs that differ by {spread}: {n} of 1000 missed");
        }
    }
}
