//! Rotary position embedding: each pair of a head's channels is turned by an angle that grows with the token's place, so that a
//! query's product with a key depends on their distance alone. Su et al., 2104.09864, in the form with halves for pairs:
//! channel i of D turns with channel i + D/2.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::host::{host, is_fused, output, slice, tensor};
use crate::lanes::wide;
use crate::residual_norm::block_of_rows;
use crate::{Sequences, composed};

/// The angles of T places and the pairs of one head of D channels.
#[derive(Debug)]
pub struct Rotary {
    d: usize,
    cos: Vec<f32>, // (T, D/2)
    sin: Vec<f32>, // (T, D/2)
}

/// Which way to turn. Backwards undoes forwards, and is what gradients need.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Turn {
    Forwards,
    Backwards,
}

impl Rotary {
    /// Angle of pair i at place p: p·θ^(−2i/D). The frequency and the angle are rounded to f32 as PyTorch's are: at place
    /// 8000 that is worth half a thousandth of a radian.
    pub fn new(theta: f64, d: usize, t: usize) -> Result<Rotary> {
        let frequencies = Rotary::frequencies(theta, d)?;
        let angles = (0..t).flat_map(|place| frequencies.iter().map(move |f| place as f32 * f));
        let (sin, cos) = angles.map(|angle| f64::from(angle).sin_cos()).map(to_f32).unzip();
        Ok(Rotary { d, cos, sin })
    }

    /// θ^(−2i/D) of each pair i, (D/2,).
    pub fn frequencies(theta: f64, d: usize) -> Result<Vec<f32>> {
        if d == 0 || !d.is_multiple_of(2) {
            bail!("rotary: {d} channels of a head don't go in pairs");
        }
        let power = |i: usize| theta.powf(f64::from((2 * i) as f32 / d as f32)) as f32;
        Ok((0..d / 2).map(|i| 1.0 / power(i)).collect())
    }

    /// D.
    pub fn d(&self) -> usize {
        self.d
    }

    /// T.
    pub fn places(&self) -> usize {
        self.cos.len() / (self.d / 2)
    }

    /// Cosines and sines, (T, D/2) each.
    pub(crate) fn tables(&self) -> (&[f32], &[f32]) {
        (&self.cos, &self.sin)
    }

    pub(crate) fn check(&self, c: usize, sequences: &Sequences) -> Result<()> {
        if !c.is_multiple_of(self.d) || sequences.width() > self.places() {
            let (d, t, width) = (self.d, self.places(), sequences.width());
            bail!("rotary: {c} channels and {width} places, angles of heads of {d} and {t} places");
        }
        Ok(())
    }
}

fn to_f32((sin, cos): (f64, f64)) -> (f32, f32) {
    (sin as f32, cos as f32)
}

/// Every head of every row turned by the angles of its place. (N, C) → (N, C).
pub fn rotary(x: &Tensor, sequences: &Arc<Sequences>, angles: &Arc<Rotary>) -> Result<Tensor> {
    let (n, c) = x.dims2()?;
    angles.check(c, sequences)?;
    if n != sequences.rows() {
        bail!("rotary: {n} rows, {} of sequences", sequences.rows());
    }
    if !is_fused(x) {
        return composed::rotary(x, sequences, angles);
    }
    x.contiguous()?.apply_op1(Op { sequences: sequences.clone(), angles: angles.clone() })
}

struct Op {
    sequences: Arc<Sequences>,
    angles: Arc<Rotary>,
}

impl Op {
    fn turned(&self, x: &[f32], turn: Turn) -> Vec<f32> {
        let mut y = vec![0f32; x.len()];
        let c = x.len() / self.sequences.rows().max(1);
        let rows = y.par_chunks_mut(c.max(1)).zip(x.par_chunks(c.max(1)));
        rows.zip(self.sequences.places()).for_each(|((y, x), &place)| {
            self.angles.turn_row(place as usize % self.sequences.width(), turn, x, y);
        });
        y
    }
}

impl CustomOp1 for Op {
    fn name(&self) -> &'static str {
        "rotary"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(output(self.turned(slice(x, layout)?, Turn::Forwards), layout.shape()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        Ok(Some(tensor(self.turned(&host(&grad)?, Turn::Backwards), x)?))
    }
}

impl Rotary {
    fn turn_row(&self, place: usize, turn: Turn, x: &[f32], y: &mut [f32]) {
        let half = self.d / 2;
        let (cos, sin) = (&self.cos[place * half..][..half], &self.sin[place * half..][..half]);
        turn_heads(x, cos, sin, if turn == Turn::Forwards { 1.0 } else { -1.0 }, y);
    }

    /// Queries, keys and values side by side (N, 3·C) → each by itself (N, C), queries and keys turned. One visit to memory.
    pub(crate) fn split(
        &self,
        together: &[f32],
        sequences: &Sequences,
        [q, k, v]: [&mut [f32]; 3],
    ) {
        let c = q.len() / sequences.rows().max(1);
        let block = block_of_rows(c);
        q.par_chunks_mut(block)
            .zip(k.par_chunks_mut(block).zip(v.par_chunks_mut(block)))
            .zip(together.par_chunks(3 * block).zip(sequences.places().par_chunks(block / c)))
            .for_each(|((q, (k, v)), (together, places))| {
                let rows = q.chunks_exact_mut(c).zip(k.chunks_exact_mut(c));
                let rows = rows.zip(v.chunks_exact_mut(c)).zip(together.chunks_exact(3 * c));
                for ((((q, k), v), together), &place) in rows.zip(places) {
                    let place = place as usize % sequences.width();
                    self.turn_row(place, Turn::Forwards, &together[..c], q);
                    self.turn_row(place, Turn::Forwards, &together[c..2 * c], k);
                    v.copy_from_slice(&together[2 * c..]);
                }
            });
    }

    /// The gradient of what `split` took apart, from those of its parts: (N, C) each → (N, 3·C).
    pub(crate) fn join(
        &self,
        [dq, dk, dv]: [&[f32]; 3],
        sequences: &Sequences,
        together: &mut [f32],
    ) {
        let c = dq.len() / sequences.rows().max(1);
        let block = block_of_rows(c);
        together
            .par_chunks_mut(3 * block)
            .zip(dq.par_chunks(block).zip(dk.par_chunks(block).zip(dv.par_chunks(block))))
            .zip(sequences.places().par_chunks(block / c))
            .for_each(|((together, (dq, (dk, dv))), places)| {
                let rows = dq.chunks_exact(c).zip(dk.chunks_exact(c)).zip(dv.chunks_exact(c));
                let rows = rows.zip(together.chunks_exact_mut(3 * c)).zip(places);
                for ((((dq, dk), dv), together), &place) in rows {
                    let place = place as usize % sequences.width();
                    self.turn_row(place, Turn::Backwards, dq, &mut together[..c]);
                    self.turn_row(place, Turn::Backwards, dk, &mut together[c..2 * c]);
                    together[2 * c..].copy_from_slice(dv);
                }
            });
    }
}

wide! {
/// Heads of one row; `sign` −1 turns backwards.
fn turn_heads(x: &[f32], cos: &[f32], sin: &[f32], sign: f32, y: &mut [f32]) {
    let half = cos.len();
    for (x, y) in x.chunks_exact(2 * half).zip(y.chunks_exact_mut(2 * half)) {
        let ((x_1, x_2), (y_1, y_2)) = (x.split_at(half), y.split_at_mut(half));
        let pairs = y_1.iter_mut().zip(y_2).zip(x_1.iter().zip(x_2)).zip(cos.iter().zip(sin));
        for (((y_1, y_2), (&x_1, &x_2)), (&cos, &sin)) in pairs {
            *y_1 = x_1 * cos - x_2 * (sin * sign);
            *y_2 = x_2 * cos + x_1 * (sin * sign);
        }
    }
}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a query finds in a key depends on how far apart they are: the closed form that the method is made for.
    #[test]
    fn products_depend_on_distance_alone() {
        let angles = Rotary::new(10_000.0, 8, 40).unwrap();
        let (q, k): (Vec<f32>, Vec<f32>) =
            (0..8).map(|i| ((i as f32 * 0.7).sin(), (i as f32 * 1.3).cos())).unzip();
        let turned = |x: &[f32], place: usize| {
            let mut y = vec![0f32; 8];
            angles.turn_row(place, Turn::Forwards, x, &mut y);
            y
        };
        let product = |i: usize, j: usize| -> f32 {
            turned(&q, i).iter().zip(turned(&k, j)).map(|(a, b)| a * b).sum()
        };
        for place in [1, 7, 30] {
            assert!((product(3, 0) - product(place + 3, place)).abs() < 1e-5);
        }
        assert!((product(3, 0) - product(0, 3)).abs() > 1e-2);
        let mut back = vec![0f32; 8];
        angles.turn_row(9, Turn::Backwards, &turned(&q, 9), &mut back);
        assert!(back.iter().zip(&q).all(|(a, b)| (a - b).abs() < 1e-6));
    }

    #[test]
    fn heads_that_do_not_go_in_pairs_are_refused() {
        let error = Rotary::new(10_000.0, 5, 3).unwrap_err().to_string();
        assert!(error.contains("5 channels of a head don't go in pairs"), "{error}");
    }
}
