//! What closes each half of an encoder block: h = residual + dropout(y), then the norm of h. One visit to memory each way.

use rayon::prelude::*;

use crate::host::BLOCK;
use crate::lanes::wide;
use crate::layer_norm::{add_in_order, backward_row, forward_row};
use crate::{Dropout, Sequences};

/// Whole rows of c numbers to a block.
pub fn block_of_rows(c: usize) -> usize {
    BLOCK.div_ceil(c) * c
}

/// A norm's parameters, (C,) each.
#[derive(Clone, Copy)]
pub struct Norm<'x> {
    pub weight: &'x [f32],
    pub bias: &'x [f32],
    pub eps: f32,
}

/// `y` becomes residual + dropout(y), and `out` its norm. All (N, C).
pub fn forward(
    y: &mut [f32],
    residual: &[f32],
    norm: Norm,
    sequences: &Sequences,
    dropped: Option<Dropout>,
    out: &mut [f32],
) {
    let c = norm.weight.len();
    let block = block_of_rows(c);
    y.par_chunks_mut(block)
        .zip(residual.par_chunks(block).zip(out.par_chunks_mut(block)))
        .zip(sequences.places().par_chunks(block / c))
        .for_each(|((y, (residual, out)), places)| {
            forward_block(y, residual, norm, places, dropped, out)
        });
}

/// From the gradient of the norm: `dh`, that of h and so of the residual, and `dy`, that of y before dropout, with the sums
/// over rows of d weight, d bias and dy (the gradient of the bias behind y), (3·C).
pub fn backward(
    h: &[f32],
    grad: &[f32],
    norm: Norm,
    sequences: &Sequences,
    dropped: Option<Dropout>,
    dh: &mut [f32],
    dy: &mut [f32],
) -> Vec<f32> {
    let c = norm.weight.len();
    let block = block_of_rows(c);
    let partials = dh
        .par_chunks_mut(block)
        .zip(dy.par_chunks_mut(block))
        .zip(h.par_chunks(block).zip(grad.par_chunks(block)))
        .zip(sequences.places().par_chunks(block / c))
        .map(|(((dh, dy), (h, grad)), places)| {
            let mut sums = vec![0f32; 3 * c];
            backward_block(h, grad, norm, places, dropped, dh, dy, &mut sums);
            sums
        })
        .collect();
    add_in_order(partials, 3 * c)
}

wide! {
fn forward_block(
    y: &mut [f32], residual: &[f32], norm: Norm<'_>, places: &[u32], dropped: Option<Dropout>, out: &mut [f32],
) {
    let c = norm.weight.len();
    let rows = y.chunks_exact_mut(c).zip(residual.chunks_exact(c)).zip(out.chunks_exact_mut(c));
    for (((y, residual), out), &place) in rows.zip(places) {
        match dropped {
            Some(dropped) => {
                let first = place.wrapping_mul(c as u32);
                for (i, (y, &residual)) in y.iter_mut().zip(residual).enumerate() {
                    *y = residual + *y * dropped.factor(first.wrapping_add(i as u32));
                }
            }
            None => y.iter_mut().zip(residual).for_each(|(y, &residual)| *y += residual),
        }
        forward_row(y, norm.weight, norm.bias, norm.eps, out);
    }
}
}

wide! {
fn backward_block(
    h: &[f32], grad: &[f32], norm: Norm<'_>, places: &[u32], dropped: Option<Dropout>,
    dh: &mut [f32], dy: &mut [f32], sums: &mut [f32],
) {
    let c = norm.weight.len();
    let (of_norm, of_y) = sums.split_at_mut(2 * c);
    let rows = h.chunks_exact(c).zip(grad.chunks_exact(c)).zip(dh.chunks_exact_mut(c).zip(dy.chunks_exact_mut(c)));
    for (((h, grad), (dh, dy)), &place) in rows.zip(places) {
        backward_row(h, norm.weight, grad, norm.eps, dh, of_norm);
        let of_y = of_y.iter_mut();
        match dropped {
            Some(dropped) => {
                let first = place.wrapping_mul(c as u32);
                for (i, ((dy, &dh), of_y)) in dy.iter_mut().zip(&*dh).zip(of_y).enumerate() {
                    *dy = dh * dropped.factor(first.wrapping_add(i as u32));
                    *of_y += *dy;
                }
            }
            None => {
                for ((dy, &dh), of_y) in dy.iter_mut().zip(&*dh).zip(of_y) {
                    *dy = dh;
                    *of_y += dh;
                }
            }
        }
    }
}
}
