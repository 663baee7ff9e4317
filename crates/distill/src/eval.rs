//! A model on a split: logits of every row, and the numbers made from them. The model is in eval mode; no graph is built.

use candle_core::Device;
use lowchurn_data::{Confusion, Encoded, Metric, collate, eval_order};
use lowchurn_kernels::awake;
use lowchurn_models::{Classifier, Input, Mode};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Logits of every row of a split, in its order.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictions {
    pub classes: usize,
    /// (N·K), row-major.
    pub logits: Vec<f32>,
}

/// What an evaluation says, over the labelled rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    pub rows: u64,
    /// Mean cross-entropy in nats.
    pub loss: f64,
    pub accuracy: f64,
    /// 0 where it isn't defined, see [`Metric`].
    pub f1: Option<f64>,
    pub matthews: Option<f64>,
}

impl Predictions {
    pub fn rows(&self) -> usize {
        self.logits.len() / self.classes.max(1)
    }

    pub fn logits_of(&self, row: usize) -> &[f32] {
        &self.logits[row * self.classes..][..self.classes]
    }

    /// The class of the largest logit; the first of equals.
    pub fn predicted(&self, row: usize) -> u32 {
        let logits = self.logits_of(row);
        let best = (0..logits.len()).fold(0, |a, b| if logits[b] > logits[a] { b } else { a });
        best as u32
    }

    /// softmax of a row's logits.
    pub fn probabilities(&self, row: usize) -> Vec<f32> {
        let logits = self.logits_of(row);
        let log_sum = log_sum_exp(logits);
        logits.iter().map(|&x| (f64::from(x) - log_sum).exp() as f32).collect()
    }
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    f64::from(max) + sum.ln()
}

/// Logits of every row; `on` is told how many rows are done.
pub fn predict(
    model: &Classifier,
    rows: &Encoded,
    batch_size: usize,
    device: &Device,
    on: &mut dyn FnMut(usize),
) -> Result<Predictions> {
    let classes = model.labels().len();
    let mut logits = vec![0f32; rows.rows() * classes];
    let mut n_done = 0;
    for order in eval_order(&rows.lengths(), batch_size) {
        let batch = collate(rows, &order, model.config.pad_token_id);
        let input = Input::new(&batch.tokens, &batch.types, &batch.lengths, batch.width, device)?;
        let found = awake(|| model.forward(&input, Mode::Eval))?.flatten_all()?.to_vec1::<f32>()?; // (B·K)
        for (&row, found) in order.iter().zip(found.chunks_exact(classes)) {
            if found.iter().any(|x| !x.is_finite()) {
                let id = rows.ids.get(row as usize).cloned().unwrap_or_default();
                return Err(Error::NotFiniteLogits { id });
            }
            logits[row as usize * classes..][..classes].copy_from_slice(found);
        }
        n_done += order.len();
        on(n_done);
    }
    Ok(Predictions { classes, logits })
}

/// Predictions against labels; rows without a label don't count.
pub fn evaluate(predictions: &Predictions, labels: &[Option<u32>]) -> Result<Scores> {
    let mut counts = Confusion::new(predictions.classes);
    let mut loss_sum = 0.0;
    for (row, label) in labels.iter().enumerate() {
        let Some(label) = *label else { continue };
        let logits = predictions.logits_of(row);
        let Some(&logit) = logits.get(label as usize) else {
            return Err(Error::LabelIndex { row, label, classes: predictions.classes });
        };
        counts.record(label, predictions.predicted(row));
        loss_sum += log_sum_exp(logits) - f64::from(logit);
    }
    let n = counts.total();
    let Some(accuracy) = Metric::Accuracy.of(&counts) else { return Err(Error::NothingToEvaluate) };
    Ok(Scores {
        rows: n,
        loss: loss_sum / n as f64,
        accuracy,
        f1: Metric::F1.of(&counts),
        matthews: Metric::Matthews.of(&counts),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_of_known_logits() {
        let p = Predictions { classes: 2, logits: vec![0.0, 0.0, 2.0, 0.0, 0.0, 3.0] };
        assert_eq!(p.predicted(0), 0);
        assert_eq!(p.probabilities(0), [0.5, 0.5]);
        let s = evaluate(&p, &[Some(0), Some(1), None]).unwrap();
        assert_eq!((s.rows, s.accuracy), (2, 0.5));
        let expected = (2f64.ln() + (1.0 + (2f64).exp()).ln()) / 2.0;
        assert!((s.loss - expected).abs() < 1e-9, "{}", s.loss);
        assert!(matches!(evaluate(&p, &[None; 3]), Err(Error::NothingToEvaluate)));
        assert!(matches!(evaluate(&p, &[Some(2)]), Err(Error::LabelIndex { label: 2, .. })));
    }
}
