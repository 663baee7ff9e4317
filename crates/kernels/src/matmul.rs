//! Matrix products of f32 slices, through the gemm crate or our own instructions, and what the machine can do in them.

use std::time::Instant;

use gemm::Parallelism;

use crate::bf16::{Packed, matmul_bf16};
use crate::single;

/// A matrix inside a slice: element (r, c) lies at `start + r·row_stride + c·column_stride`.
#[derive(Clone, Copy)]
pub struct View {
    pub rows: usize,
    pub columns: usize,
    pub start: usize,
    pub row_stride: usize,
    pub column_stride: usize,
}

impl View {
    /// A whole matrix, rows one after the other.
    pub fn rows_of(rows: usize, columns: usize) -> View {
        View { rows, columns, start: 0, row_stride: columns, column_stride: 1 }
    }

    pub fn t(self) -> View {
        View {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// One past the last element that it reaches; `None` where that number can't be.
    fn end(&self) -> Option<usize> {
        let last = |n: usize, stride: usize| n.saturating_sub(1).checked_mul(stride);
        let rows = last(self.rows, self.row_stride)?;
        let columns = last(self.columns, self.column_stride)?;
        self.start.checked_add(rows)?.checked_add(columns)?.checked_add(1)
    }

    pub(crate) fn fits(&self, length: usize) -> bool {
        self.end().is_some_and(|end| end <= length)
    }

    /// Whether no two of its elements are the same: one stride steps over the whole of the other dimension.
    fn is_distinct(&self) -> bool {
        let over = |long: usize, n: usize, short: usize| {
            short >= 1 && n.checked_mul(short).is_some_and(|reach| long >= reach)
        };
        over(self.row_stride, self.columns, self.column_stride)
            || over(self.column_stride, self.rows, self.row_stride)
    }
}

/// What happens to the numbers that lie in the result before the product.
#[derive(Clone, Copy, PartialEq)]
pub enum Onto {
    Overwrite,
    Add,
}

/// Who works on one product.
#[derive(Clone, Copy)]
pub enum Threads {
    /// This thread: the caller runs several products side by side.
    One,
    All,
}

/// y (R, C) = a (R, I) · b (I, C), or added onto y. The order of a sum doesn't depend on the number of threads.
#[expect(clippy::too_many_arguments, reason = "three operands, each a slice and its view")]
pub fn matmul(
    y: &mut [f32],
    y_view: View,
    onto: Onto,
    a: &[f32],
    a_view: View,
    b: &[f32],
    b_view: View,
    threads: Threads,
) {
    match threads {
        Threads::All if single::is_faster(y_view, a_view, b_view) => {
            single::matmul_single(y, y_view, onto, (a, a_view), (b, b_view));
        }
        _ => matmul_gemm(y, y_view, onto, a, a_view, b, b_view, threads),
    }
}

/// The same through the gemm crate: for all shapes, views and processors.
#[expect(unsafe_code, reason = "gemm takes pointers")]
#[expect(clippy::too_many_arguments, reason = "three operands, each a slice and its view")]
pub fn matmul_gemm(
    y: &mut [f32],
    y_view: View,
    onto: Onto,
    a: &[f32],
    a_view: View,
    b: &[f32],
    b_view: View,
    threads: Threads,
) {
    assert!(y_view.rows == a_view.rows && y_view.columns == b_view.columns);
    assert!(a_view.columns == b_view.rows);
    if y_view.rows == 0 || y_view.columns == 0 {
        return;
    }
    assert!(a_view.columns > 0, "a product over nothing");
    assert!(y_view.fits(y.len()) && a_view.fits(a.len()) && b_view.fits(b.len()));
    assert!(y_view.is_distinct());
    let parallelism = match threads {
        Threads::One => Parallelism::None,
        Threads::All => Parallelism::Rayon(0),
    };
    // SAFETY: all elements that the three views reach lie inside their slices (asserted above), y is borrowed
    // mutably and so apart from a and b, and its elements don't overlap.
    unsafe {
        gemm::gemm(
            y_view.rows,
            y_view.columns,
            a_view.columns,
            y.as_mut_ptr().add(y_view.start),
            y_view.column_stride as isize,
            y_view.row_stride as isize,
            onto == Onto::Add,
            a.as_ptr().add(a_view.start),
            a_view.column_stride as isize,
            a_view.row_stride as isize,
            b.as_ptr().add(b_view.start),
            b_view.column_stride as isize,
            b_view.row_stride as isize,
            1f32,
            1f32,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// The instruction set that products run on here.
pub fn matrix_path() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if has!("avx512f") {
            return "AVX-512";
        }
        if has!("avx2") && has!("fma") {
            return "AVX2";
        }
        return "SSE2";
    }
    #[cfg(target_arch = "aarch64")]
    return "NEON";
    #[allow(unreachable_code)]
    "portable"
}

/// GFLOP/s of an (n, n)·(n, n) product on all threads: the best of `repeats`.
pub fn matrix_rate(n: usize, repeats: usize) -> f64 {
    let view = View::rows_of(n, n);
    rate(n, repeats, |y, a, b| {
        matmul(y, view, Onto::Overwrite, a, view, b, view, Threads::All);
    })
}

/// The same in bf16, rounding and laying out both operands included, as most products of a training step have it.
pub fn matrix_rate_bf16(n: usize, repeats: usize) -> f64 {
    let view = View::rows_of(n, n);
    rate(n, repeats, |y, a, b| {
        matmul_bf16(y, Onto::Overwrite, &Packed::left(a, view), &Packed::right(b, view));
    })
}

fn rate(n: usize, repeats: usize, product: impl Fn(&mut [f32], &[f32], &[f32])) -> f64 {
    let a = vec![0.5f32; n * n];
    let b = vec![0.25f32; n * n];
    let mut y = vec![0f32; n * n];
    let mut best = f64::INFINITY;
    for _ in 0..repeats.max(1) {
        let start = Instant::now();
        product(&mut y, &a, &b);
        best = best.min(start.elapsed().as_secs_f64());
    }
    2.0 * (n as f64).powi(3) / best / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(y_view: View, a_view: View) {
        let (mut y, a, b) = (vec![0f32; 4], vec![1f32; 4], vec![1f32; 4]);
        matmul(&mut y, y_view, Onto::Overwrite, &a, a_view, &b, View::rows_of(2, 2), Threads::One);
        assert_eq!(y, [2.0; 4]);
    }

    #[test]
    fn a_view_within_its_slice() {
        product(View::rows_of(2, 2), View::rows_of(2, 2));
        product(View::rows_of(2, 2).t(), View::rows_of(2, 2).t());
    }

    #[test]
    fn rates_are_numbers() {
        for rate in [matrix_rate(64, 2), matrix_rate_bf16(64, 2)] {
            assert!(rate.is_finite() && rate > 0.0, "{rate}");
        }
    }

    #[test]
    #[should_panic(expected = "is_distinct")]
    fn a_result_over_itself_is_refused() {
        product(
            View { row_stride: 0, column_stride: 0, ..View::rows_of(2, 2) },
            View::rows_of(2, 2),
        );
    }

    #[test]
    #[should_panic(expected = "fits")]
    fn a_view_beyond_its_slice_is_refused() {
        product(View::rows_of(2, 2), View { start: 1, ..View::rows_of(2, 2) });
    }

    #[test]
    #[should_panic(expected = "fits")]
    fn a_view_beyond_all_numbers_is_refused() {
        product(View::rows_of(2, 2), View { row_stride: usize::MAX, ..View::rows_of(2, 2) });
    }
}
