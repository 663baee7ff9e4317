//! One update: forward, one loss a row, one division, backward, clip, AdamW. A function of state and batches.

use candle_core::{D, Device};
use lowchurn_data::{Batch, Encoded, Rng};
use lowchurn_kernels::{Keys, backward};
use lowchurn_models::{Input, Mode};

use crate::loss::{cross_entropy_rows, one_hot};
use crate::{Error, Grads, Plan, Result, State, clip_factor};

/// What an update saw, as sums over its rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepReport {
    pub loss_sum: f64,
    pub n_correct: u64,
    pub n_rows: u64,
    /// Real tokens, padding left out.
    pub n_tokens: u64,
    pub learning_rate: f64,
    /// Before clipping.
    pub gradient_norm: f64,
}

/// One optimizer update of `total`; `micro` are the batches accumulated into it.
pub fn step(
    state: &mut State,
    plan: &Plan,
    rows: &Encoded,
    micro: &[Batch],
    total: u64,
    device: &Device,
) -> Result<StepReport> {
    let mut keys = Keys::new(Rng::stream(plan.seed, "dropout", state.step).next_u64());
    let n: usize = micro.iter().map(|batch| batch.rows.len()).sum(); // the only divisor of a loss in the program
    let mut means = StepReport { n_rows: n as u64, ..StepReport::default() };
    let mut grads = Grads::default();
    for batch in micro {
        let labels = labels_of(rows, batch, state.model.labels().len())?;
        let input = Input::new(&batch.tokens, &batch.types, &batch.lengths, batch.width, device)?;
        let logits = state.model.forward(&input, Mode::Train(&mut keys))?; // (B, K)
        let targets = one_hot(&labels, logits.dim(1)?, plan.label_smoothing, device)?; // (B, K)
        let losses = cross_entropy_rows(&logits, &targets)?; // (B,)
        let loss = losses.sum_all()?;
        means.loss_sum += f64::from(loss.to_scalar::<f32>()?); // waits for the device
        let predicted = logits.argmax(D::Minus1)?.to_vec1::<u32>()?;
        means.n_correct += predicted.iter().zip(&labels).filter(|(a, b)| a == b).count() as u64;
        means.n_tokens += batch.lengths.iter().map(|&length| u64::from(length)).sum::<u64>();
        if !means.loss_sum.is_finite() {
            return Err(Error::NotFinite { what: "loss", step: state.step + 1 });
        }
        grads.add(&state.model.params, backward(&(loss / n as f64)?)?)?;
    }
    means.gradient_norm = grads.norm()?;
    if !means.gradient_norm.is_finite() {
        return Err(Error::NotFinite { what: "gradient norm", step: state.step + 1 });
    }
    if state.step == 0 {
        let names = grads.missing(&state.model.params)?;
        if !names.is_empty() {
            return Err(Error::NoGradient { names });
        }
    }
    means.learning_rate = plan.learning_rate_at(state.step, total);
    let scale = clip_factor(means.gradient_norm, plan.max_grad_norm);
    let (params, rate) = (&state.model.params, means.learning_rate);
    state.optimizer.apply(params, &grads, plan, state.step, rate, scale)?;
    state.step += 1;
    Ok(means)
}

fn labels_of(rows: &Encoded, batch: &Batch, classes: usize) -> Result<Vec<u32>> {
    let label = |&row: &u32| {
        let row = row as usize;
        match rows.labels.get(row).copied().flatten() {
            Some(label) if label as usize >= classes => {
                Err(Error::LabelIndex { row, label, classes })
            }
            Some(label) => Ok(label),
            None => Err(Error::Unlabelled { id: rows.ids.get(row).cloned().unwrap_or_default() }),
        }
    };
    batch.rows.iter().map(label).collect()
}
