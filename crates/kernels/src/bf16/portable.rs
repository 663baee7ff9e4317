//! The slow twin: plain Rust on the same tiles.

use std::ops::Range;

use super::{DEPTH, PANEL, SQUARE, Square, TILE};
use crate::lanes::wide;
use crate::matmul::Onto;

/// 32 × 32 elements of y, one row of one panel at a time.
///
/// # Safety
/// 32 rows of 32 elements lie at `square.y`, `square.y_stride` apart, and nobody else has them.
#[expect(unsafe_code, reason = "y is shared out among threads")]
pub unsafe fn multiply(square: &Square) {
    for r in 0..SQUARE {
        // SAFETY: by this function's own condition.
        let row =
            unsafe { std::slice::from_raw_parts_mut(square.y.add(r * square.y_stride), SQUARE) };
        if square.onto == Onto::Overwrite {
            row.fill(0.0);
        }
        let (sums, _) = row.as_chunks_mut::<PANEL>();
        for (sums, right) in sums.iter_mut().zip(square.right) {
            add_row(sums, square.left[r / PANEL], r % PANEL, right);
        }
    }
}

wide! {
/// sums (16) += row `r` of the left panel · the right panel.
fn add_row(sums: &mut [f32; PANEL], left: &[u32], r: usize, right: &[u32]) {
    const PAIRS: usize = DEPTH / 2;
    for (left, right) in left.chunks_exact(TILE).zip(right.chunks_exact(TILE)) {
        let row: Range<usize> = r * PAIRS..(r + 1) * PAIRS;
        for (&a, b) in left[row].iter().zip(right.chunks_exact(PANEL)) {
            for (sum, &b) in sums.iter_mut().zip(b) {
                *sum += first(a) * first(b);
                *sum += second(a) * second(b);
            }
        }
    }
}
}

#[inline(always)]
fn first(word: u32) -> f32 {
    f32::from_bits(word << 16)
}

#[inline(always)]
fn second(word: u32) -> f32 {
    f32::from_bits(word & 0xffff_0000)
}
