//! Losses on logits. Each returns one number a row; the division is the step's.

use candle_core::{D, DType, Device, Tensor};
use lowchurn_kernels::log_softmax;

use crate::Result;

/// −Σₖ target·log softmax(logits), per row. Shapes (B, K), (B, K) → (B,).
///
/// Targets are distributions: one-hot, smoothed, or a teacher's.
pub fn cross_entropy_rows(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let log_p = log_softmax(logits)?; // (B, K)
    Ok((log_p * targets)?.sum(D::Minus1)?.neg()?)
}

/// 1 − s on the label and s/K on every class, as in transformers and PyTorch (Szegedy et al., 1512.00567, section 7).
/// Shapes (B,) → (B, K).
pub fn one_hot(labels: &[u32], classes: usize, smoothing: f64, device: &Device) -> Result<Tensor> {
    let low = smoothing / classes as f64;
    let mut targets = vec![low as f32; labels.len() * classes];
    for (row, &label) in targets.chunks_exact_mut(classes).zip(labels) {
        if let Some(target) = row.get_mut(label as usize) {
            *target = (1.0 - smoothing + low) as f32;
        }
    }
    Ok(Tensor::from_vec(targets, (labels.len(), classes), device)?.to_dtype(DType::F32)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;

    #[derive(serde::Deserialize)]
    struct Case {
        loss: String,
        #[serde(default)]
        labels: Vec<serde_json::Value>,
        #[serde(default)]
        label_smoothing: f64,
        logits: Vec<Vec<f64>>,
        rows: Vec<f64>,
        mean_gradient: Vec<Vec<f64>>,
    }

    /// tests/golden/make.py, from PyTorch in f64.
    #[test]
    fn equals_pytorch() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/losses.json");
        let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let mut n_checked = 0;
        for case in cases.iter().filter(|case| case.loss == "cross_entropy") {
            let (n, k) = (case.logits.len(), case.logits[0].len());
            let logits: Vec<f32> = case.logits.iter().flatten().map(|&x| x as f32).collect();
            let logits = Var::from_vec(logits, (n, k), &Device::Cpu).unwrap();
            let labels: Vec<u32> =
                case.labels.iter().map(|label| label.as_u64().unwrap() as u32).collect();
            let targets = one_hot(&labels, k, case.label_smoothing, &Device::Cpu).unwrap();
            let rows = cross_entropy_rows(&logits, &targets).unwrap();
            let grads = rows.mean_all().unwrap().backward().unwrap();
            let close = |a: f32, b: f64| (f64::from(a) - b).abs() < 2e-6 * (1.0 + b.abs());
            for (a, &b) in rows.to_vec1::<f32>().unwrap().iter().zip(&case.rows) {
                assert!(close(*a, b), "{a} {b}");
            }
            let grad = grads.get(&logits).unwrap().to_vec2::<f32>().unwrap();
            for (a, &b) in grad.iter().flatten().zip(case.mean_gradient.iter().flatten()) {
                assert!(close(*a, b), "{a} {b}");
            }
            n_checked += 1;
        }
        assert!(n_checked >= 2);
    }
}
