//! The attention half of an encoder block with its norm in front, no biases, and rotary positions, as ModernBERT has it
//! (Warner et al., 2412.13663, section 2.1).

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};

use crate::attention::{Attention, Window, attention, attention_in_window};
use crate::buffers::Buffer;
use crate::matmul::{Onto, View};
use crate::pre_norm::{PreNorm, add_dropped, dropped_gradient};
use crate::rotary::{Rotary, rotary};
use crate::{AttentionDropout, Precision, Sequences, add, affine, dropout_rows, linear};

/// x + dropout(output(attention(turned queries, turned keys, values))), all three from `together` of the norm of x.
#[derive(Clone, Debug)]
pub struct RotaryAttention {
    /// `None`: x goes in as it is.
    pub norm: Option<PreNorm>,
    pub together: Tensor, // (3·C, C): queries, then keys, then values
    pub output: Tensor,   // (C, C)
    pub heads: usize,
    pub reach: Reach,
    pub angles: Arc<Rotary>,
}

/// Whom a token attends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    All,
    /// Those at most so many places away.
    Within(usize),
}

/// What the way back needs, (N, C) each; queries and keys are turned.
#[derive(Clone)]
pub(crate) struct Saved {
    q: Buffer,
    k: Buffer,
    v: Buffer,
    attended: Buffer,
    pub(crate) y: Buffer, // what came out
}

impl RotaryAttention {
    pub(crate) fn parameters(&self) -> Vec<&Tensor> {
        let norm = self.norm.iter().map(|norm| &norm.weight);
        norm.chain([&self.together, &self.output]).collect()
    }

    /// Whether the parameters fit each other and rows of c channels.
    pub(crate) fn check(&self, c: usize, sequences: &Sequences) -> Result<()> {
        self.norm.as_ref().map_or(Ok(()), |norm| norm.check(c))?;
        if self.together.dims() != [3 * c, c] || self.output.dims() != [c, c] {
            let (together, output) = (self.together.dims(), self.output.dims());
            bail!("rotary attention: {c} channels through {together:?} and {output:?}");
        }
        if self.heads.checked_mul(self.angles.d()) != Some(c) {
            let (heads, d) = (self.heads, self.angles.d());
            bail!("rotary attention: {c} channels in {heads} heads, angles of heads of {d}");
        }
        self.angles.check(c, sequences)
    }

    /// The same from smaller operations: the slow twin, and the form for other devices and for weights that are made from
    /// variables.
    pub fn in_parts(
        &self,
        x: &Tensor,
        sequences: &Arc<Sequences>,
        dropped: AttentionDropout,
        precision: Precision,
    ) -> Result<Tensor> {
        let (_, c) = x.dims2()?;
        self.check(c, sequences)?;
        let normed = self.norm.as_ref().map_or_else(|| Ok(x.clone()), |norm| norm.of(x))?;
        let together = linear(&normed, &self.together, None, precision)?; // (N, 3·C)
        let part = |at: usize| together.narrow(1, at * c, c)?.contiguous();
        let q = rotary(&part(0)?, sequences, &self.angles)?; // (N, C)
        let k = rotary(&part(1)?, sequences, &self.angles)?;
        let (v, of_probabilities) = (part(2)?, dropped.probabilities);
        let attended = match self.reach {
            Reach::All => attention(&q, &k, &v, sequences, self.heads, of_probabilities)?,
            Reach::Within(reach) => {
                attention_in_window(&q, &k, &v, sequences, self.heads, reach, of_probabilities)?
            }
        };
        let y = linear(&attended, &self.output, None, precision)?;
        add(x, &dropout_rows(&y, sequences, dropped.output)?)
    }

    pub(crate) fn forward(
        &self,
        x: &[f32],
        sequences: &Arc<Sequences>,
        dropped: AttentionDropout,
        precision: Precision,
        y: &mut [f32],
    ) -> Result<Saved> {
        let (n, c) = (sequences.rows(), self.output.dim(0)?);
        let new = || Buffer::of(n * c);
        let (mut q, mut k, mut v, mut attended) = (new(), new(), new(), new());
        {
            let normed = self.norm.as_ref().map(|norm| norm.forward(x)).transpose()?;
            let left = precision.left(normed.as_deref().unwrap_or(x), View::rows_of(n, c));
            let mut together = Buffer::of(n * 3 * c);
            affine::forward(&self.together, precision, &left, &mut together)?;
            self.angles.split(&together, sequences, [&mut q, &mut k, &mut v]);
        }
        let of_probabilities = dropped.probabilities;
        match self.reach {
            Reach::All => Attention::new(sequences, c, self.heads, of_probabilities)?.forward(
                &q,
                &k,
                &v,
                &mut attended,
            ),
            Reach::Within(reach) => Window::new(sequences, c, self.heads, reach, of_probabilities)?
                .forward(&q, &k, &v, &mut attended),
        }
        let left = precision.left(&attended, View::rows_of(n, c));
        affine::forward(&self.output, precision, &left, y)?;
        drop(left);
        add_dropped(y, x, sequences, dropped.output);
        Ok(Saved { q, k, v, attended, y: Buffer::from_slice(y) })
    }

    /// With y = x + M∘output(attended): dy = M∘grad, dattended = dy·W, dq, dk, dv from attention, turned back, dnorm from them,
    /// and dx = grad + what the norm makes of it. Without `wants_dx`, what it leaves in dx is of no use.
    #[expect(clippy::too_many_arguments, reason = "what came in, what comes back, and how")]
    pub(crate) fn backward(
        &self,
        saved: Saved,
        x: &[f32],
        grad: &[f32],
        sequences: &Arc<Sequences>,
        dropped: AttentionDropout,
        precision: Precision,
        wants_dx: bool,
        dx: &mut [f32],
    ) -> Result<()> {
        let Saved { q, k, v, attended, y } = saved;
        drop(y); // the half above has had it
        let (n, c) = (sequences.rows(), self.output.dim(0)?);
        let rows = View::rows_of(n, c);
        let new = || Buffer::of(n * c);

        let mut dattended = new();
        {
            let dy = dropped_gradient(grad, sequences, dropped.output);
            let dy = dy.as_deref().unwrap_or(grad);
            let left = precision.left(dy, rows);
            affine::input_gradient(
                &self.output,
                precision,
                &left,
                Onto::Overwrite,
                &mut dattended,
            )?;
            affine::hand_over_product(
                &self.output,
                precision,
                dy,
                &precision.right(&attended, rows),
            )?;
        }
        drop(attended);
        let is_norm_trained = self.norm.as_ref().is_some_and(|norm| norm.weight.is_variable());
        if !wants_dx && !is_norm_trained && !self.together.is_variable() {
            return Ok(());
        }

        let mut dtogether = Buffer::of(n * 3 * c);
        {
            let (mut dq, mut dk, mut dv) = (new(), new(), new());
            let of_probabilities = dropped.probabilities;
            match self.reach {
                Reach::All => {
                    Attention::new(sequences, c, self.heads, of_probabilities)?
                        .backward(&q, &k, &v, &dattended, &mut dq, &mut dk, &mut dv);
                }
                Reach::Within(reach) => {
                    Window::new(sequences, c, self.heads, reach, of_probabilities)?
                        .backward(&q, &k, &v, &dattended, &mut dq, &mut dk, &mut dv)
                }
            }
            self.angles.join([&dq, &dk, &dv], sequences, &mut dtogether);
        }
        if self.together.is_variable() {
            let normed = self.norm.as_ref().map(|norm| norm.forward(x)).transpose()?;
            let right = precision.right(normed.as_deref().unwrap_or(x), rows);
            affine::hand_over_product(&self.together, precision, &dtogether, &right)?;
        }
        if !wants_dx && !is_norm_trained {
            return Ok(());
        }
        let left = precision.left(&dtogether, View::rows_of(n, 3 * c));
        match &self.norm {
            Some(norm) => {
                let mut dnormed = dattended;
                affine::input_gradient(
                    &self.together,
                    precision,
                    &left,
                    Onto::Overwrite,
                    &mut dnormed,
                )?;
                norm.backward(x, &dnormed, grad, dx)
            }
            None => {
                dx.copy_from_slice(grad);
                affine::input_gradient(&self.together, precision, &left, Onto::Add, dx)
            }
        }
    }
}
