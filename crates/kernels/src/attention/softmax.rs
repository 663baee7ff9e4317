//! Rows of scores to probabilities, back, and what dropout leaves of them: whole vectors at a time.

use crate::Dropout;
use crate::lanes::{LANES, exp, largest, total, wide};
use crate::small::padded;

wide! {
/// Each row of n scores, times the scale, to probabilities. All work is on whole vectors, by name: rows are as short as one, and
/// a loop over numbers would do them one by one. What stands beyond the n is made so small that it changes no sum.
pub(super) fn softmax_rows(x: &mut [f32], n: usize, scale: f32) {
    for row in x.chunks_exact_mut(padded(n)) {
        let (vectors, _) = row.as_chunks_mut::<LANES>();
        if let Some(last) = vectors.last_mut() {
            for (lane, x) in last.iter_mut().enumerate() {
                *x = if lane > (n - 1) % LANES { f32::MIN } else { *x };
            }
        }
        softmax(vectors, scale);
    }
}
}

/// One row of whole vectors.
#[inline(always)]
pub(super) fn softmax(vectors: &mut [[f32; LANES]], scale: f32) {
    let mut highest = [f32::MIN; LANES];
    for x in vectors.iter() {
        for lane in 0..LANES {
            highest[lane] = if x[lane] > highest[lane] { x[lane] } else { highest[lane] };
        }
    }
    let highest = largest(highest) * scale;
    let mut sums = [0f32; LANES];
    for x in vectors.iter_mut() {
        for lane in 0..LANES {
            x[lane] = exp((x[lane] * scale - highest).max(-100.0));
            sums[lane] += x[lane];
        }
    }
    let inverse = 1.0 / total(sums);
    for x in vectors {
        x.iter_mut().for_each(|x| *x *= inverse);
    }
}

wide! {
/// `dp` becomes the gradient of the scores before the scale. Beyond the n, `dp` is zero or times nothing.
pub(super) fn softmax_backward_rows(p: &[f32], dp: &mut [f32], n: usize, scale: f32) {
    for (p, dp) in p.chunks_exact(padded(n)).zip(dp.chunks_exact_mut(padded(n))) {
        let ((p, _), (dp, _)) = (p.as_chunks::<LANES>(), dp.as_chunks_mut::<LANES>());
        let mut sums = [0f32; LANES];
        for (p, dp) in p.iter().zip(dp.iter()) {
            for lane in 0..LANES {
                sums[lane] += p[lane] * dp[lane];
            }
        }
        let dot = total(sums);
        for (p, dp) in p.iter().zip(dp) {
            for lane in 0..LANES {
                dp[lane] = p[lane] * (dp[lane] - dot) * scale;
            }
        }
    }
}
}

wide! {
pub(super) fn drop_rows(x: &mut [f32], dropped: Dropout, first: usize, t: usize, n: usize) {
    for (query, x) in x.chunks_exact_mut(padded(n)).enumerate() {
        let first = (first + query * t) as u32;
        for (vector, x) in x.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let first = first.wrapping_add((vector * LANES) as u32);
            for (lane, x) in x.iter_mut().enumerate() {
                *x *= dropped.factor(first.wrapping_add(lane as u32));
            }
        }
    }
}
}
