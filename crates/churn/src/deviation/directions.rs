//! How far teacher and student have gone along the directions of what their layers read, side by side.

use serde::{Deserialize, Serialize};

/// A run each, so no interval: another seed goes another way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Directions {
    /// Updates of the checkpoints.
    pub teacher_steps: Vec<u64>,
    pub student_steps: Vec<u64>,
    pub layers: Vec<Layer>,
    /// In words.
    pub said: String,
}

/// ‖(W − W₀)·v_k‖ for v_1, v_2, …, the eigenvectors of the uncentred covariance of the layer's inputs, the largest eigenvalue first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    pub name: String,
    /// λ_k.
    pub eigenvalues: Vec<f64>,
    /// By checkpoint, by direction.
    pub teacher: Vec<Vec<f64>>,
    pub student: Vec<Vec<f64>>,
    /// For v_2, v_3, …: the teacher's way over the student's where both have gone equally far along v_1, at the farthest that both
    /// have reached. Above 1 the student keeps more to the first direction.
    pub ratios: Vec<Option<f64>>,
    /// The geometric mean of the ratios.
    pub ratio: Option<f64>,
}

/// The geometric mean of what is above 0.
pub fn geometric_mean(ratios: &[Option<f64>]) -> Option<f64> {
    let logs: Vec<f64> = ratios.iter().flatten().filter(|r| **r > 0.0).map(|r| r.ln()).collect();
    (!logs.is_empty()).then(|| (logs.iter().sum::<f64>() / logs.len() as f64).exp())
}

/// A ratio as near to 1 as this is shown as 1.00.
const SAME: f64 = 0.005;

/// In words, by how many of the layers are above 1.
pub fn directions_said(layers: &[Layer]) -> String {
    let ratios: Vec<f64> = layers.iter().filter_map(|layer| layer.ratio).collect();
    if ratios.is_empty() {
        return "no layer has gone along its first direction in both runs".into();
    }
    let n = ratios.iter().filter(|ratio| **ratio > 1.0 + SAME).count();
    let n_below = ratios.iter().filter(|ratio| **ratio < 1.0 - SAME).count();
    let all = ratios.len();
    let logs = ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / all as f64;
    let how = match (n, n_below) {
        (0, 0) => "both keep to the top directions alike",
        (n, _) if n == all => {
            "the student keeps more to the top directions, so gradient descent's bias to them is exaggerated"
        }
        (_, n) if n == all => "the student keeps less to the top directions than the teacher did",
        _ => "the layers don't agree",
    };
    format!(
        "at equal progress along the first direction the teacher's weights had gone {:.2} times as far along the others ({n} of {all} \
         layers above 1): {how}; one run each, so no interval",
        logs.exp()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_without_a_ratio_are_not_counted() {
        let layer = |ratio: Option<f64>| Layer {
            name: "l".into(),
            eigenvalues: Vec::new(),
            teacher: Vec::new(),
            student: Vec::new(),
            ratios: vec![ratio],
            ratio,
        };
        let said = directions_said(&[layer(Some(4.0)), layer(None)]);
        assert!(said.contains("4.00 times as far along the others (1 of 1"), "{said}");
    }

    #[test]
    fn ratios_are_put_into_words() {
        let layer = |ratio: Option<f64>| Layer {
            name: "head".into(),
            eigenvalues: vec![2.0, 1.0],
            teacher: Vec::new(),
            student: Vec::new(),
            ratios: vec![ratio],
            ratio,
        };
        let check = |ratios: &[Option<f64>], expected: &str| {
            let layers: Vec<Layer> = ratios.iter().map(|ratio| layer(*ratio)).collect();
            let said = directions_said(&layers);
            assert!(said.contains(expected), "{said}");
        };
        check(
            &[Some(2.0), Some(8.0)],
            "4.00 times as far along the others (2 of 2 layers above 1): the student keeps more",
        );
        check(
            &[Some(0.5), Some(0.5)],
            "0.50 times as far along the others (0 of 2 layers above 1): the student keeps less",
        );
        check(
            &[Some(1.0), Some(1.001)],
            "1.00 times as far along the others (0 of 2 layers above 1): both keep to the top directions alike",
        );
        check(&[Some(0.5), Some(1.0)], "(0 of 2 layers above 1): the layers don't agree");
        check(&[Some(0.5), Some(2.0), None], "(1 of 2 layers above 1): the layers don't agree");
        check(&[None], "no layer has gone along its first direction in both runs");
        assert_eq!(geometric_mean(&[Some(2.0), None, Some(0.5), Some(0.0)]), Some(1.0));
        assert_eq!(geometric_mean(&[None]), None);
    }
}
