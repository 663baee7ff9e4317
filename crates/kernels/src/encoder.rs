//! Halves of encoder blocks, one after the other, as one operation. Inside it there is no graph: nothing is filled with zeros,
//! copied or added that the mathematics doesn't ask for, and all parameters' gradients are handed over.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use crate::backward;
use crate::buffers::Buffer;
use crate::host::{host, is_fused, output, slice};
use crate::layer_norm::norm_rows;
use crate::residual_norm::Norm;
use crate::{
    AttentionDropout, Dropout, FeedForward, GatedFeedForward, Precision, Relation, RotaryAttention,
    SelfAttention, Sequences, feed_forward, fused, gated_feed_forward, rotary_attention,
    self_attention,
};

/// Half of an encoder block and what dropout does in it. (N, C) → (N, C).
#[derive(Clone, Debug)]
pub enum Half {
    /// norm(x + dropout(output(attention(query(x), key(x), value(x))))). Vaswani et al., 1706.03762, section 3.2, with the
    /// norm after the sum.
    Attention(SelfAttention, AttentionDropout),
    /// norm(x + dropout(outer(activation(inner(x))))). The same, section 3.3.
    FeedForward(FeedForward, Option<Dropout>),
    /// x + dropout(output(attention(..norm(x)))) with rotary positions and no biases.
    RotaryAttention(RotaryAttention, AttentionDropout),
    /// x + outer(dropout(activation(a)·b)) with a and b from inner(norm(x)), without biases.
    GatedFeedForward(GatedFeedForward, Option<Dropout>),
    /// Each text's first row of `Attention`: (N, C) → (B, C).
    FirstAttention(SelfAttention, AttentionDropout),
    /// Each text's first row, (N, C) → (B, C).
    FirstRows,
}

/// The halves applied in their order, (N, C) → (N, C).
pub fn encoder(
    x: &Tensor,
    sequences: &Arc<Sequences>,
    halves: Vec<Half>,
    precision: Precision,
) -> Result<Tensor> {
    let (n, c) = x.dims2()?;
    if n != sequences.rows() {
        bail!("encoder: {n} rows, {} of sequences", sequences.rows());
    }
    let steps = steps(halves, sequences);
    let parameters: Vec<&Tensor> = steps.iter().flat_map(|step| step.half.parameters()).collect();
    if !is_fused(x) || !fused::can_hand_over(&parameters) {
        return steps
            .iter()
            .try_fold(x.clone(), |x, step| step.half.in_parts(&x, &step.of, precision));
    }
    for step in &steps {
        step.half.check(c, sequences)?;
    }
    let is_training = x.track_op() || parameters.iter().any(|parameter| parameter.is_variable());
    let anchor = fused::anchor(x, &parameters);
    let op = Encoder { steps, c, precision, is_training, saved: Mutex::new(Vec::new()) };
    x.contiguous()?.apply_op2(&anchor, op)
}

/// The first rows of what [`encoder`] gives, (N, C) → (B, C), without what the last block would do for the other rows: of
/// BERT's last block only keys and values are made for all of them.
pub fn encoder_of_first_rows(
    x: &Tensor,
    sequences: &Arc<Sequences>,
    mut halves: Vec<Half>,
    precision: Precision,
) -> Result<Tensor> {
    let row_by_row =
        halves.pop_if(|half| matches!(half, Half::FeedForward(..) | Half::GatedFeedForward(..)));
    match halves.pop() {
        Some(Half::Attention(half, dropped)) if matches!(half.relation, Relation::None) => {
            halves.push(Half::FirstAttention(half, dropped));
        }
        last => halves.extend(last.into_iter().chain([Half::FirstRows])),
    }
    halves.extend(row_by_row);
    encoder(x, sequences, halves, precision)
}

/// A half and the texts whose rows go in and come out.
struct Step {
    half: Half,
    of: Arc<Sequences>,
    to: Arc<Sequences>,
}

fn steps(halves: Vec<Half>, sequences: &Arc<Sequences>) -> Vec<Step> {
    let mut of = sequences.clone();
    let step = |half: Half| {
        let to = match half {
            Half::FirstAttention(..) | Half::FirstRows => Arc::new(of.first_rows()),
            _ => of.clone(),
        };
        Step { half, of: std::mem::replace(&mut of, to.clone()), to }
    };
    halves.into_iter().map(step).collect()
}

impl Half {
    fn parameters(&self) -> Vec<&Tensor> {
        match self {
            Half::Attention(half, _) => half.parameters(),
            Half::FeedForward(half, _) => half.parameters(),
            Half::RotaryAttention(half, _) => half.parameters(),
            Half::GatedFeedForward(half, _) => half.parameters(),
            Half::FirstAttention(half, _) => half.parameters(),
            Half::FirstRows => Vec::new(),
        }
    }

    fn check(&self, c: usize, sequences: &Sequences) -> Result<()> {
        match self {
            Half::Attention(half, _) => half.check(c),
            Half::FeedForward(half, _) => half.check(c),
            Half::RotaryAttention(half, _) => half.check(c, sequences),
            Half::GatedFeedForward(half, _) => half.check(c),
            Half::FirstAttention(half, _) => half.check_first(c),
            Half::FirstRows => Ok(()),
        }
    }

    /// The same from smaller operations: the slow twin.
    pub fn in_parts(
        &self,
        x: &Tensor,
        sequences: &Arc<Sequences>,
        precision: Precision,
    ) -> Result<Tensor> {
        match self {
            Half::Attention(half, dropped) => half.in_parts(x, sequences, *dropped, precision),
            Half::FeedForward(half, dropped) => half.in_parts(x, sequences, *dropped, precision),
            Half::RotaryAttention(half, dropped) => {
                half.in_parts(x, sequences, *dropped, precision)
            }
            Half::GatedFeedForward(half, dropped) => {
                half.in_parts(x, sequences, *dropped, precision)
            }
            Half::FirstAttention(half, dropped) => {
                let y = half.in_parts(x, sequences, *dropped, precision)?;
                Half::FirstRows.in_parts(&y, sequences, precision)
            }
            Half::FirstRows => {
                let b = sequences.lengths().len();
                let starts: Vec<u32> =
                    sequences.starts().iter().take(b).map(|&start| start as u32).collect();
                x.index_select(&Tensor::from_vec(starts, b, x.device())?, 0)
            }
        }
    }

    /// What came out of it where that wasn't saved: the norm of what was.
    fn output(&self, saved: &Saved) -> Result<Option<Buffer>> {
        let (norm, eps, h) = match (self, saved) {
            (Half::Attention(half, _) | Half::FirstAttention(half, _), Saved::Attention(saved)) => {
                (&half.norm, half.eps, &saved.h)
            }
            (Half::FeedForward(half, _), Saved::FeedForward(saved)) => {
                (&half.norm, half.eps, &saved.h)
            }
            _ => return Ok(None),
        };
        let (weight, bias) = (host(&norm.weight)?, host(&norm.bias)?);
        let mut y = Buffer::of(h.len());
        norm_rows(h, Norm { weight: &weight, bias: &bias, eps: eps as f32 }, &mut y);
        Ok(Some(y))
    }

    fn is_trained(&self) -> bool {
        self.parameters().iter().any(|parameter| parameter.is_variable())
    }
}

struct Encoder {
    steps: Vec<Step>,
    c: usize,
    precision: Precision,
    /// Whether there is a way back.
    is_training: bool,
    /// For the way back. A half's input is made again from what the half below it saved.
    saved: Mutex<Vec<Saved>>,
}

#[derive(Clone)]
enum Saved {
    Attention(self_attention::Saved),
    FeedForward(feed_forward::Saved),
    RotaryAttention(rotary_attention::Saved),
    GatedFeedForward(gated_feed_forward::Saved),
    FirstRows(Buffer), // (B, C)
}

impl Saved {
    /// What came out of the half, where it was saved.
    fn output(&self) -> Option<&[f32]> {
        match self {
            Saved::Attention(_) | Saved::FeedForward(_) => None,
            Saved::RotaryAttention(saved) => Some(&saved.y),
            Saved::GatedFeedForward(saved) => Some(&saved.y),
            Saved::FirstRows(y) => Some(y),
        }
    }
}

impl Encoder {
    fn forward(&self, step: &Step, x: &[f32], y: &mut [f32]) -> Result<Saved> {
        let (Step { half, of, to }, precision) = (step, self.precision);
        match half {
            Half::Attention(half, dropped) | Half::FirstAttention(half, dropped) => {
                half.forward(x, of, to, *dropped, precision, y).map(Saved::Attention)
            }
            Half::FeedForward(half, dropped) => {
                half.forward(x, of, *dropped, precision, y).map(Saved::FeedForward)
            }
            Half::RotaryAttention(half, dropped) => {
                half.forward(x, of, *dropped, precision, y).map(Saved::RotaryAttention)
            }
            Half::GatedFeedForward(half, dropped) => {
                half.forward(x, of, *dropped, precision, y).map(Saved::GatedFeedForward)
            }
            Half::FirstRows => {
                of.take_first_rows(x, y);
                Ok(Saved::FirstRows(Buffer::from_slice(y)))
            }
        }
    }

    fn backward(
        &self,
        step: &Step,
        saved: Saved,
        x: &[f32],
        grad: &[f32],
        wants_dx: bool,
        dx: &mut [f32],
    ) -> Result<()> {
        let (Step { half, of, to }, precision) = (step, self.precision);
        match (half, saved) {
            (
                Half::Attention(half, dropped) | Half::FirstAttention(half, dropped),
                Saved::Attention(saved),
            ) => half.backward(saved, x, grad, of, to, *dropped, precision, wants_dx, dx),
            (Half::FeedForward(half, dropped), Saved::FeedForward(saved)) => {
                half.backward(saved, x, grad, of, *dropped, precision, wants_dx, dx)
            }
            (Half::RotaryAttention(half, dropped), Saved::RotaryAttention(saved)) => {
                half.backward(saved, x, grad, of, *dropped, precision, wants_dx, dx)
            }
            (Half::GatedFeedForward(half, dropped), Saved::GatedFeedForward(saved)) => {
                half.backward(saved, x, grad, of, *dropped, precision, wants_dx, dx)
            }
            (Half::FirstRows, Saved::FirstRows(_)) => {
                of.put_first_rows(grad, dx);
                Ok(())
            }
            _ => bail!("encoder: what was saved belongs to another half"),
        }
    }
}

impl CustomOp2 for Encoder {
    fn name(&self) -> &'static str {
        "encoder"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = slice(x, x_layout)?;
        let mut all = Vec::with_capacity(self.steps.len());
        let mut input: Option<Buffer> = None;
        for step in &self.steps {
            let mut y = Buffer::of(step.to.rows() * self.c);
            let saved = self.forward(step, input.as_deref().unwrap_or(x), &mut y)?;
            input = Some(y);
            if self.is_training {
                all.push(saved);
            }
        }
        *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = all;
        let y = input.as_deref().unwrap_or(x).to_vec();
        let shape = Shape::from((y.len() / self.c, self.c));
        Ok(output(y, &shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        _: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = if backward::keeps() { saved.clone() } else { std::mem::take(&mut *saved) };
        drop(saved);
        if all.len() != self.steps.len() {
            bail!("encoder: a second backward pass over the same graph");
        }
        let grad = grad.contiguous()?;
        let (values, grad) = (host(x)?, host(&grad)?);
        // Below the lowest half that is trained there is nothing to do unless x itself wants its gradient.
        let lowest = if x.track_op() {
            Some(0)
        } else {
            self.steps.iter().position(|step| step.half.is_trained())
        };
        let mut below: Option<Buffer> = None;
        while let Some(saved) = all.pop() {
            let at = all.len();
            if lowest.is_none_or(|lowest| at < lowest) {
                break;
            }
            let wants_dx = x.track_op() || lowest.is_some_and(|lowest| at > lowest);
            let made = match all.last() {
                Some(saved) => self.steps[at - 1].half.output(saved)?,
                None => None,
            };
            let mut dx = Buffer::of(self.steps[at].of.rows() * self.c);
            let kept = all.last().and_then(Saved::output);
            let input = made.as_deref().or(kept).unwrap_or(&values);
            let above = below.as_deref().unwrap_or(&grad);
            self.backward(&self.steps[at], saved, input, above, wants_dx, &mut dx)?;
            below = Some(dx);
        }
        fused::gradients(x, below.as_deref().unwrap_or(&grad))
    }
}
