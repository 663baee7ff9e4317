//! The slow twin: plain Rust on the same tiles.

use std::ops::Range;

use super::{DEPTH, PANEL, SIDE, STEP, Square, TILE};
use crate::lanes::wide;

/// 32 × 32 elements of y, half a row at a time.
///
/// # Safety
/// 32 rows of 32 elements lie at `square.y`, `square.y_stride` apart, and nobody else has them; as many lie at `square.from`.
#[expect(unsafe_code, reason = "y is shared out among threads")]
pub unsafe fn multiply(square: &Square) {
    for r in 0..PANEL {
        // SAFETY: by this function's own condition.
        let row =
            unsafe { std::slice::from_raw_parts_mut(square.y.add(r * square.y_stride), PANEL) };
        match square.from {
            None => row.fill(0.0),
            Some((from, _)) if std::ptr::eq(from, square.y) => {}
            // SAFETY: 32 rows of 32 elements lie there too, and y is none of them.
            Some((from, stride)) => unsafe {
                row.copy_from_slice(std::slice::from_raw_parts(from.add(r * stride), PANEL));
            },
        }
        let (sums, _) = row.as_chunks_mut::<SIDE>();
        for (sums, right) in sums.iter_mut().zip([0, TILE]) {
            add_row(sums, &square.left[r / SIDE * TILE..], r % SIDE, &square.right[right..]);
        }
    }
}

wide! {
/// sums (16) += row `r` of every other left tile · every other right tile.
fn add_row(sums: &mut [f32; SIDE], left: &[u32], r: usize, right: &[u32]) {
    const PAIRS: usize = DEPTH / 2;
    for (left, right) in left.chunks(STEP).zip(right.chunks(STEP)) {
        let row: Range<usize> = r * PAIRS..(r + 1) * PAIRS;
        for (&a, b) in left[row].iter().zip(right.chunks_exact(SIDE)) {
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
