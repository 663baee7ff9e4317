//! How predicted numbers go with the true ones: Pearson, Spearman, squared error.

/// Of N pairs. A correlation is `None` where one side is constant or there are fewer than two pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Correlation {
    pub rows: u64,
    /// Mean (predicted − true)².
    pub squared_error: f64,
    /// Σ (x − x̄)(y − ȳ) / √(Σ (x − x̄)² · Σ (y − ȳ)²), as scipy's `pearsonr`.
    pub pearson: Option<f64>,
    /// Pearson of the ranks, ties having the mean of theirs, as scipy's `spearmanr`.
    pub spearman: Option<f64>,
}

/// `None` without pairs. Of lists of different lengths the pairs that there are.
pub fn correlation(predicted: &[f64], gold: &[f64]) -> Option<Correlation> {
    let rows = predicted.len().min(gold.len());
    let (x, y) = (&predicted[..rows], &gold[..rows]);
    (rows > 0).then(|| Correlation {
        rows: rows as u64,
        squared_error: x.iter().zip(y).map(|(x, y)| (x - y).powi(2)).sum::<f64>() / rows as f64,
        pearson: pearson(x, y),
        spearman: pearson(&ranks(x), &ranks(y)),
    })
}

fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    let centred = |x: &[f64]| -> Vec<f64> {
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        x.iter().map(|x| x - mean).collect()
    };
    // Each is scaled by its own length first: a product of squares would overflow before the quotient does.
    let scaled = |x: &[f64]| -> Option<Vec<f64>> {
        let x = centred(x);
        let most = x.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
        let length = most * x.iter().map(|x| (x / most).powi(2)).sum::<f64>().sqrt();
        (length > 0.0 && length.is_finite()).then(|| x.iter().map(|x| x / length).collect())
    };
    if x.len() < 2 {
        return None;
    }
    let (x, y) = (scaled(x)?, scaled(y)?);
    Some(x.iter().zip(&y).map(|(x, y)| x * y).sum::<f64>().clamp(-1.0, 1.0))
}

/// Places in the sorted order, from 1; equal values have the mean of theirs.
fn ranks(x: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|a, b| x[*a].total_cmp(&x[*b]));
    let mut ranks = vec![0.0; x.len()];
    let mut first = 0;
    while first < order.len() {
        let ties = order[first..].iter().take_while(|at| x[**at] == x[order[first]]).count().max(1);
        let rank = first as f64 + (ties as f64 + 1.0) / 2.0;
        order[first..first + ties].iter().for_each(|at| ranks[*at] = rank);
        first += ties;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Case {
        predicted: Vec<f64>,
        gold: Vec<f64>,
        pearson: f64,
        spearman: f64,
        mse: f64,
    }

    #[test]
    fn equals_scipy() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/kinds.json");
        let all: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let cases: Vec<Case> = serde_json::from_value(all["regression_metrics"].clone()).unwrap();
        assert!(cases.len() >= 3);
        for case in cases {
            let got = correlation(&case.predicted, &case.gold).unwrap();
            assert!((got.pearson.unwrap() - case.pearson).abs() < 1e-12, "{got:?}");
            assert!((got.spearman.unwrap() - case.spearman).abs() < 1e-12, "{got:?}");
            assert!((got.squared_error - case.mse).abs() < 1e-12 * (1.0 + case.mse), "{got:?}");
        }
    }

    #[test]
    fn what_is_constant_has_no_correlation() {
        assert_eq!(correlation(&[], &[]), None);
        let check = |x: &[f64], y: &[f64]| {
            let found = correlation(x, y).unwrap();
            assert_eq!((found.pearson, found.spearman), (None, None), "{x:?} {y:?}");
        };
        check(&[1.0], &[2.0]);
        check(&[1.0, 1.0], &[2.0, 3.0]);
        check(&[1.0, 2.0], &[3.0, 3.0]);
        let far = correlation(&[1e200, 2e200, -1e200], &[1.0, 2.0, -1.0]).unwrap();
        assert!((far.pearson.unwrap() - 1.0).abs() < 1e-12);
    }
}
