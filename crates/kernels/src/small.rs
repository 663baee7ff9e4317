//! Products of small matrices on one thread, as attention has them: a head's queries by its keys. A general product spends
//! more on its dispatch and packing than these cost.

/// Numbers that one load takes; widths are rounded up to it.
pub use crate::lanes::LANES;
use crate::matmul::Onto;

/// n, rounded up to whole vectors.
pub fn padded(n: usize) -> usize {
    n.next_multiple_of(LANES)
}

/// A matrix that is read a number at a time: element (r, c) lies at r·row + c·column.
#[derive(Clone, Copy)]
pub struct Strided<'x> {
    pub x: &'x [f32],
    pub row: usize,
    pub column: usize,
}

/// `to` (d, n+) becomes the transpose of n rows of d numbers in `from`, `stride` apart; n is rounded up to whole vectors, with
/// zeros.
pub fn transpose(from: &[f32], stride: usize, n: usize, d: usize, to: &mut [f32]) {
    assert!(n == 0 || d == 0 || (n - 1) * stride + d <= from.len());
    assert!(to.len() >= d * padded(n));
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") {
        avx512::transpose(from, stride, n, d, to);
        return;
    }
    by_columns(from, stride, n, d, to);
}

/// The slow twin.
fn by_columns(from: &[f32], stride: usize, n: usize, d: usize, to: &mut [f32]) {
    for (column, to) in to.chunks_exact_mut(padded(n)).take(d).enumerate() {
        for (row, to) in to[..n].iter_mut().enumerate() {
            *to = from[row * stride + column];
        }
        to[n..].fill(0.0);
    }
}

/// y (m, n) = a (m, k) · b (k, n). y and b have rows of `n`, a multiple of [`LANES`].
pub fn small(y: &mut [f32], a: Strided, b: &[f32], m: usize, k: usize, n: usize) {
    small_onto(y, Onto::Overwrite, a, b, n, [m, k, n]);
}

/// The same for rows of b that lie `b_row` apart, perhaps one over the other; overwrites y or adds to it.
pub fn small_onto(
    y: &mut [f32],
    onto: Onto,
    a: Strided,
    b: &[f32],
    b_row: usize,
    [m, k, n]: [usize; 3],
) {
    assert!(n.is_multiple_of(LANES) && y.len() >= m * n);
    assert!(k == 0 || (k - 1) * b_row + n <= b.len());
    assert!(m == 0 || k == 0 || (m - 1) * a.row + (k - 1) * a.column < a.x.len());
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") {
        avx512::small(y, onto, a, b, b_row, [m, k, n]);
        return;
    }
    by_rows(y, onto, a, b, b_row, [m, k, n]);
}

/// The slow twin, and what runs without AVX-512: a row of y is a sum of rows of b.
fn by_rows(y: &mut [f32], onto: Onto, a: Strided, b: &[f32], b_row: usize, [m, k, n]: [usize; 3]) {
    for (i, y) in y.chunks_exact_mut(n).take(m).enumerate() {
        if onto == Onto::Overwrite {
            y.fill(0.0);
        }
        for p in 0..k {
            add_times(y, a.x[i * a.row + p * a.column], &b[p * b_row..][..n]);
        }
    }
}

crate::lanes::wide! {
/// y += factor · b, number by number.
pub fn add_times(y: &mut [f32], factor: f32, b: &[f32]) {
    for (y, &b) in y.iter_mut().zip(b) {
        *y += factor * b;
    }
}
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{LANES, Onto, Strided, padded};
    use crate::bf16::avx512::transposed;

    /// Rows of y in registers at a time, by two vectors of columns: 16 sums, enough to hide the latency of an addition.
    const ROWS: usize = 8;

    #[expect(unsafe_code, reason = "vector instructions")]
    pub fn small(
        y: &mut [f32],
        onto: Onto,
        a: Strided,
        b: &[f32],
        b_row: usize,
        sizes: [usize; 3],
    ) {
        let (y, x, b) = (y.as_mut_ptr(), a.x.as_ptr(), b.as_ptr());
        // SAFETY: the caller found AVX-512 and asserted that all of m, k, n lies inside the three slices.
        unsafe {
            match onto {
                Onto::Overwrite => blocks::<false>(y, x, a.row, a.column, b, b_row, sizes),
                Onto::Add => blocks::<true>(y, x, a.row, a.column, b, b_row, sizes),
            }
        }
    }

    #[expect(unsafe_code, reason = "vector instructions")]
    pub fn transpose(from: &[f32], stride: usize, n: usize, d: usize, to: &mut [f32]) {
        // SAFETY: the caller found AVX-512 and asserted that n rows of d lie in `from`, and d of whole vectors in `to`.
        unsafe { transposed_blocks(from.as_ptr(), stride, n, d, to.as_mut_ptr()) }
    }

    /// 16 rows by 16 columns at a time; a mask keeps from reading beyond the d columns.
    #[expect(unsafe_code, reason = "vector instructions")]
    #[target_feature(enable = "avx512f")]
    unsafe fn transposed_blocks(from: *const f32, stride: usize, n: usize, d: usize, to: *mut f32) {
        for column in (0..d).step_by(LANES) {
            let n_columns = (d - column).min(LANES);
            let mask = ((1u32 << n_columns) - 1) as __mmask16;
            for row in (0..n).step_by(LANES) {
                let mut block = [_mm512_setzero_si512(); LANES];
                for (at, line) in block.iter_mut().take(n - row).enumerate() {
                    // SAFETY: row + at < n, and no column under the mask is beyond d.
                    *line = unsafe {
                        _mm512_maskz_loadu_epi32(
                            mask,
                            from.add((row + at) * stride + column).cast(),
                        )
                    };
                }
                for (at, line) in transposed(block).iter().take(n_columns).enumerate() {
                    // SAFETY: column + at < d, and each row of `to` has whole vectors.
                    unsafe {
                        _mm512_storeu_si512(to.add((column + at) * padded(n) + row).cast(), *line)
                    };
                }
            }
        }
    }

    #[expect(unsafe_code, reason = "vector instructions")]
    #[target_feature(enable = "avx512f")]
    unsafe fn blocks<const ADD: bool>(
        y: *mut f32,
        a: *const f32,
        row: usize,
        column: usize,
        b: *const f32,
        b_row: usize,
        [m, k, n]: [usize; 3],
    ) {
        let mut i = 0;
        while i < m {
            let rows = (m - i).min(ROWS);
            let mut j = 0;
            while j < n {
                let vectors = ((n - j) / LANES).min(2);
                // SAFETY: row i of y and a, and column j of y and b, lie inside; `tile` stays within rows × vectors.
                unsafe {
                    let (y, a, b) = (y.add(i * n + j), a.add(i * row), b.add(j));
                    match (rows, vectors) {
                        (8, 2) => tile::<ADD, 8, 2>(y, a, row, column, b, b_row, [k, n]),
                        (8, _) => tile::<ADD, 8, 1>(y, a, row, column, b, b_row, [k, n]),
                        (4.., 2) => tile::<ADD, 4, 2>(y, a, row, column, b, b_row, [k, n]),
                        (4.., _) => tile::<ADD, 4, 1>(y, a, row, column, b, b_row, [k, n]),
                        (_, 2) => tile::<ADD, 1, 2>(y, a, row, column, b, b_row, [k, n]),
                        (_, _) => tile::<ADD, 1, 1>(y, a, row, column, b, b_row, [k, n]),
                    }
                }
                j += vectors * LANES;
            }
            i += match rows {
                8 => 8,
                4.. => 4,
                _ => 1,
            };
        }
    }

    /// y (M, 16·V) = a (M, k) · b (k, 16·V), or added to y; sums in registers.
    #[expect(unsafe_code, reason = "vector instructions")]
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn tile<const ADD: bool, const M: usize, const V: usize>(
        y: *mut f32,
        a: *const f32,
        row: usize,
        column: usize,
        b: *const f32,
        b_row: usize,
        [k, n]: [usize; 2],
    ) {
        let mut sums = [[_mm512_setzero_ps(); V]; M];
        if ADD {
            for (r, sums) in sums.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: rows below M and columns below 16·V are the caller's.
                    *sum = unsafe { _mm512_loadu_ps(y.add(r * n + v * LANES)) };
                }
            }
        }
        for p in 0..k {
            // SAFETY: rows below M, columns below 16·V and p below k are the caller's.
            unsafe {
                let mut vectors = [_mm512_setzero_ps(); V];
                for (v, vector) in vectors.iter_mut().enumerate() {
                    *vector = _mm512_loadu_ps(b.add(p * b_row + v * LANES));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let factor = _mm512_set1_ps(*a.add(r * row + p * column));
                    for (sum, vector) in sums.iter_mut().zip(vectors) {
                        *sum = _mm512_fmadd_ps(factor, vector, *sum);
                    }
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                // SAFETY: as above.
                unsafe { _mm512_storeu_ps(y.add(r * n + v * LANES), *sum) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_equals_its_twin_and_f64() {
        let wave = |n: usize, s: f32| (0..n).map(|i| (i as f32 * s).sin()).collect::<Vec<f32>>();
        for (m, k, n) in
            [(1, 1, 16), (3, 5, 32), (8, 32, 16), (13, 32, 48), (29, 7, 80), (16, 70, 64)]
        {
            let (a, b) = (wave(m * k, 0.7), wave(k * n, 0.3));
            for (row, column) in [(k, 1), (1, m)] {
                let a = Strided { x: &a, row, column };
                let (mut fast, mut slow) = (vec![9f32; m * n], vec![7f32; m * n]);
                small(&mut fast, a, &b, m, k, n);
                by_rows(&mut slow, Onto::Overwrite, a, &b, n, [m, k, n]);
                for i in 0..m {
                    for j in 0..n {
                        let term = |p: usize| {
                            f64::from(a.x[i * row + p * column]) * f64::from(b[p * n + j])
                        };
                        let exact: f64 = (0..k).map(term).sum();
                        let bound = 1e-6 * k as f64;
                        for y in [&fast, &slow] {
                            assert!((f64::from(y[i * n + j]) - exact).abs() < bound, "{m} {k} {n}");
                        }
                    }
                }
            }
        }
    }

    /// Rows of b that lie over each other, and what stood in y before.
    #[test]
    fn products_onto_what_is_there() {
        let wave = |n: usize, s: f32| (0..n).map(|i| (i as f32 * s).sin()).collect::<Vec<f32>>();
        for (m, k, n, b_row) in [(1, 1, 16, 16), (16, 32, 80, 5), (13, 7, 48, 96), (40, 16, 32, 1)]
        {
            let (a, b) = (wave(m * k, 0.7), wave((k - 1) * b_row + n, 0.3));
            let a = Strided { x: &a, row: k, column: 1 };
            let (mut fast, mut slow) = (wave(m * n, 0.1), wave(m * n, 0.1));
            small_onto(&mut fast, Onto::Add, a, &b, b_row, [m, k, n]);
            by_rows(&mut slow, Onto::Add, a, &b, b_row, [m, k, n]);
            for (at, (fast, slow)) in fast.iter().zip(&slow).enumerate() {
                let term = |p: usize| a.x[at / n * k + p] * b[p * b_row + at % n];
                let exact = (at as f32 * 0.1).sin() + (0..k).map(term).sum::<f32>();
                let bound = 2e-6 * k as f32;
                assert!(
                    (fast - exact).abs() < bound && (slow - exact).abs() < bound,
                    "{m} {k} {n}"
                );
            }
        }
    }

    #[test]
    fn a_transpose_equals_its_twin() {
        for (n, d, stride) in [(1, 1, 1), (13, 32, 40), (16, 16, 16), (35, 24, 384), (70, 5, 9)] {
            let from: Vec<f32> = (0..(n - 1) * stride + d).map(|i| i as f32).collect();
            let (mut fast, mut slow) = (vec![7f32; d * padded(n)], vec![9f32; d * padded(n)]);
            transpose(&from, stride, n, d, &mut fast);
            by_columns(&from, stride, n, d, &mut slow);
            assert_eq!(fast, slow, "{n} {d} {stride}");
            assert_eq!(fast[(d - 1) * padded(n) + n - 1], *from.last().unwrap());
        }
    }

    #[test]
    #[should_panic(expected = "a.x.len()")]
    fn an_operand_that_is_too_short_is_refused() {
        small(&mut [0.0; 32], Strided { x: &[0.0; 5], row: 3, column: 1 }, &[0.0; 48], 2, 3, 16);
    }
}
