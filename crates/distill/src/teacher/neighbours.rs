//! Labels smoothed by those of a row's neighbours (Bahri & Jiang 2021, "Locally Adaptive Label Smoothing for Predictive Churn";
//! papers.md 5.5 and 9.2): β/K + (1 − β)·nn_k, with nn_k the shares of the labels of the k rows whose logits are nearest.

use rayon::prelude::*;

use super::Teacher;
use crate::{Error, Method, Result};

/// What stands in the teacher's place where the method is k-NN label smoothing: each row's neighbours as logits; nothing for
/// other methods.
pub(crate) fn in_place_of(
    teacher: Option<&Teacher>,
    method: &Method,
    labels: &[Option<u32>],
) -> Result<Option<Teacher>> {
    match (*method, teacher) {
        (Method::KnnSmoothing { beta, k, .. }, Some(teacher)) => {
            neighbours(teacher, labels, k, beta).map(Some)
        }
        _ => Ok(None),
    }
}

/// log(β/K + (1 − β)·nn_k) of every row, so that softmax gives the shares back. The classes that the teacher doesn't know lie
/// at the same place for all rows; all classes are known to the neighbours.
///
/// Neighbours are rows with a label, by the Euclidean distance of the teacher's logits (N, K), a row itself among them and the
/// first of equally near ones first. Every row is held against all others: N²·K multiplications over all threads, for 20,000
/// rows of 4 classes a few seconds of one core.
///
/// # Errors
/// Where fewer than k rows have a label.
pub(crate) fn neighbours(
    teacher: &Teacher,
    labels: &[Option<u32>],
    k: usize,
    beta: f64,
) -> Result<Teacher> {
    let labelled: Vec<(usize, u32)> =
        labels.iter().enumerate().filter_map(|(row, label)| Some((row, (*label)?))).collect();
    if k > labelled.len() {
        return Err(Error::Method {
            reason: format!(
                "knn-smoothing: k is {k}, but {} rows have a label, a row itself among its neighbours; set k to {} or less",
                labelled.len(),
                labelled.len()
            ),
        });
    }
    let classes = teacher.known.len();
    let of_row = |row: usize| {
        let mut far: Vec<(f64, usize)> = labelled
            .iter()
            .enumerate()
            .map(|(at, &(other, _))| {
                (distance(teacher.logits_of(row), teacher.logits_of(other)), at)
            })
            .collect();
        far.select_nth_unstable_by(k - 1, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut counts = vec![0u32; classes];
        far[..k].iter().for_each(|&(_, at)| counts[labelled[at].1 as usize] += 1);
        let share = move |n: u32| beta / classes as f64 + (1.0 - beta) * f64::from(n) / k as f64;
        // A share of zero is the least logit that there is: softmax makes zero of it, and no 0·∞ comes up.
        counts.into_iter().map(move |n| share(n).ln().max(f64::from(f32::MIN)) as f32)
    };
    let logits = (0..labels.len()).into_par_iter().flat_map_iter(of_row).collect(); // (N·K)
    let said = vec![format!("labels of the {k} nearest rows in the {}", teacher.said.join(", "))];
    Ok(Teacher { logits, known: vec![true; classes], said })
}

/// The square of the Euclidean distance, which has the same order.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn teacher(logits: &[f32], classes: usize) -> Teacher {
        Teacher { logits: logits.to_vec(), known: vec![true; classes], said: vec!["t".into()] }
    }

    fn shares(found: &Teacher) -> Vec<Vec<f64>> {
        (0..found.logits.len() / found.known.len())
            .map(|row| found.probabilities(row, 1.0))
            .collect()
    }

    #[derive(serde::Deserialize)]
    struct Golden {
        k: usize,
        beta: f64,
        classes: usize,
        logits: Vec<f32>,
        labels: Vec<Option<u32>>,
        shares: Vec<Vec<f64>>,
    }

    /// tests/golden/make_neighbours.py, from scikit-learn; what is kept of a share is the f32 of its logarithm.
    #[test]
    fn equals_scikit_learn() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/neighbours.json");
        let cases: Vec<Golden> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert_eq!(cases.len(), 3);
        for case in cases {
            let teacher = teacher(&case.logits, case.classes);
            let found = shares(&neighbours(&teacher, &case.labels, case.k, case.beta).unwrap());
            assert_eq!(found.len(), case.shares.len());
            for (found, expected) in found.iter().flatten().zip(case.shares.iter().flatten()) {
                assert!((found - expected).abs() < 1e-6, "k {}: {found} {expected}", case.k);
            }
        }
    }

    /// Four rows at one place and one far off: of equals the first are taken, so that the last row of the place isn't even its
    /// own neighbour. A class without a neighbour has a share of zero, not of almost zero.
    #[test]
    fn of_equally_near_rows_the_first_count() {
        let teacher = teacher(&[1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, -9.0, 9.0], 2);
        let labels = [Some(0), Some(1), Some(0), Some(1), Some(1)];
        let found = shares(&neighbours(&teacher, &labels, 3, 0.0).unwrap());
        assert!((found[3][0] - 2.0 / 3.0).abs() < 1e-6, "{found:?}");
        assert_eq!(shares(&neighbours(&teacher, &labels, 1, 0.0).unwrap())[3], [1.0, 0.0]);
    }

    #[test]
    fn more_neighbours_than_labelled_rows_are_refused() {
        let teacher = teacher(&[0.0; 6], 2);
        let said = neighbours(&teacher, &[Some(0), None, Some(1)], 3, 0.5).unwrap_err().to_string();
        assert_eq!(
            said,
            "knn-smoothing: k is 3, but 2 rows have a label, a row itself among its neighbours; set k to 2 or less"
        );
    }
}
