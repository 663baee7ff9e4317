//! Rows of scores to probabilities, back, and what dropout leaves of them: whole vectors at a time.

use crate::Dropout;
use crate::lanes::{LANES, exp, largest, total, wide};
use crate::small::padded;

/// What numbers of a row's last vector may be at most: anything, and not a number, as long as they are of the n, and next to nothing
/// behind them, whatever stands there. A table, because a vector that is made of conditions is stored in pieces, and reading it waits for all of them.
static MOST: [f32; 2 * LANES - 1] = {
    let mut most = [f32::MIN; 2 * LANES - 1];
    let mut lane = 0;
    while lane < LANES {
        most[lane] = f32::INFINITY;
        lane += 1;
    }
    most
};

wide! {
/// Each row of n scores, times the scale, to probabilities. All work is on whole vectors, by name: rows are as short as one, and
/// a loop over numbers would do them one by one. What stands beyond the n is made so small that it changes no sum.
pub(super) fn softmax_rows(x: &mut [f32], n: usize, scale: f32) {
    let Some(most) = MOST[LANES - 1 - (n - 1) % LANES..].first_chunk() else { return };
    for row in x.chunks_exact_mut(padded(n)) {
        softmax(row.as_chunks_mut().0, most, scale);
    }
}
}

/// One row of whole vectors, of which the last counts as `most` at most.
#[inline(always)]
pub(super) fn softmax(vectors: &mut [[f32; LANES]], most: &[f32; LANES], scale: f32) {
    let Some((last, whole)) = vectors.split_last_mut() else { return };
    let mut scores = [0f32; LANES];
    for lane in 0..LANES {
        scores[lane] = if most[lane] < f32::INFINITY { most[lane] } else { last[lane] };
    }
    let mut highest = scores;
    for x in whole.iter() {
        for lane in 0..LANES {
            highest[lane] = if x[lane] > highest[lane] { x[lane] } else { highest[lane] };
        }
    }
    let highest = largest(highest) * scale;
    // What is next to nothing is nothing: e⁻⁸⁷ over a sum is below the smallest normal number, and arithmetic with such numbers takes
    // a hundred times as long, here, under dropout and on the way back. What is no number stays none: damaged weights must be seen.
    let power = |x: f32| if x == f32::MIN { 0.0 } else { exp(x * scale - highest) };
    let mut sums = [0f32; LANES];
    for x in whole.iter_mut() {
        for lane in 0..LANES {
            x[lane] = power(x[lane]);
            sums[lane] += x[lane];
        }
    }
    let mut powers = [0f32; LANES];
    for lane in 0..LANES {
        powers[lane] = power(scores[lane]);
        sums[lane] += powers[lane];
    }
    let inverse = 1.0 / total(sums);
    for x in whole.as_flattened_mut() {
        *x *= inverse;
    }
    for lane in 0..LANES {
        last[lane] = powers[lane] * inverse;
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
        for (p, dp) in p.as_flattened().iter().zip(dp.as_flattened_mut()) {
            *dp = p * (*dp - dot) * scale;
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
