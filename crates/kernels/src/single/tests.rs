//! Products of [`super`] against f64 and against gemm, in every shape and view.

use std::io::{self, Write};

use super::*;
use crate::matmul::{Threads, matmul, matmul_gemm};

fn is_skipped() -> bool {
    if !is_here() {
        let _ = writeln!(io::stderr(), "skipped: this machine has no AVX-512");
    }
    !is_here()
}

/// Numbers of both signs and several sizes.
fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next() * (3.0 * next()).exp()).collect()
}

/// Both ways to lie in memory, from `start` on and with `gap` numbers between lines.
fn view(rows: usize, columns: usize, is_turned: bool, start: usize, gap: usize) -> View {
    let lines =
        |rows, columns| View { start, row_stride: columns + gap, ..View::rows_of(rows, columns) };
    if is_turned { lines(columns, rows).t() } else { lines(rows, columns) }
}

fn at(view: View, r: usize, c: usize) -> usize {
    view.start + r * view.row_stride + c * view.column_stride
}

fn reach(view: View) -> usize {
    at(view, view.rows - 1, view.columns - 1) + 1
}

/// Own products and gemm's lie within (I + 4)·2⁻²⁴·1.01·(|y₀| + Σ|a·b|) of the exact sum: a sum of I products in any order, each
/// added with one rounding or two, is rounded at most I + 3 times on its way to y.
fn check((rows, inner, columns): (usize, usize, usize), kind: usize) {
    let onto = if kind & 4 == 4 { Onto::Add } else { Onto::Overwrite };
    let gap = if kind & 8 == 8 { 5 } else { 0 };
    let a_view = view(rows, inner, kind & 1 == 1, 3, gap);
    let b_view = view(inner, columns, kind & 2 == 2, 1, gap);
    let y_view = view(rows, columns, false, 2, gap);
    // No number more than the views reach: whoever reads or writes beyond is caught by a bound or by what lies between lines.
    let (a, b, before) =
        (numbers(reach(a_view), 1), numbers(reach(b_view), 2), numbers(reach(y_view), 3));
    let start = match onto {
        Onto::Add => before.clone(),
        Onto::Overwrite => vec![f32::NAN; before.len()],
    };
    let (mut own, mut slow) = (start.clone(), start.clone());
    matmul_single(&mut own, y_view, onto, (&a, a_view), (&b, b_view));
    matmul_gemm(&mut slow, y_view, onto, &a, a_view, &b, b_view, Threads::One);
    let mut is_inside = vec![false; start.len()];
    for r in 0..rows {
        for c in 0..columns {
            let i = at(y_view, r, c);
            is_inside[i] = true;
            let y0 = if onto == Onto::Add { f64::from(before[i]) } else { 0.0 };
            let (mut sum, mut size) = (y0, y0.abs());
            for k in 0..inner {
                let product = f64::from(a[at(a_view, r, k)]) * f64::from(b[at(b_view, k, c)]);
                (sum, size) = (sum + product, size + product.abs());
            }
            let bound = (inner + 4) as f64 * 2f64.powi(-24) * 1.01 * size;
            for (name, found) in [("own", own[i]), ("gemm", slow[i])] {
                assert!(
                    (f64::from(found) - sum).abs() <= bound,
                    "{name} {rows}·{inner}·{columns} kind {kind} at ({r}, {c}): {found} for {sum} ± {bound}"
                );
            }
        }
    }
    for (i, is_inside) in is_inside.into_iter().enumerate() {
        assert!(
            is_inside || own[i].to_bits() == start[i].to_bits(),
            "written between rows, at {i}"
        );
    }
}

#[test]
fn a_product_is_exact_but_for_the_rounding_of_its_sums_and_so_is_its_twin() {
    if is_skipped() {
        return;
    }
    for n in 1..=70 {
        for kind in [n % 16, (n * 7 + 3) % 16] {
            check((n, (n * 37) % 70 + 1, (n * 53) % 70 + 1), kind);
        }
    }
    // More than one pass, panel, job of rows, job of columns; each in some of the sixteen kinds.
    for (n, size) in [(430, 384, 98), (9, 1570, 49), (47, 800, 145), (1, 2000, 1), (460, 17, 400)]
        .into_iter()
        .enumerate()
    {
        for kind in [n, n + 5, n + 10] {
            check(size, kind);
        }
    }
}

/// `matmul` takes the fast path for layers of these sizes, and gives what its twin gives.
#[test]
fn layers_take_this_path_where_it_is_ahead() {
    let here = is_here();
    for (n, i, o, is_turned, expected) in [
        (430, 384, 1536, true, here),
        (32, 384, 384, true, here),
        (430, 384, 1536, false, false),
        (31, 384, 384, true, false),
        (430, 384, 2, true, false),
    ] {
        let (a, y) = (View::rows_of(n, i), View::rows_of(n, o));
        assert_eq!(is_faster(y, a, view(i, o, is_turned, 0, 0)), expected, "{n} {i} {o}");
        assert!(!is_faster(y.t(), view(o, i, false, 0, 0), a.t()), "a result in columns");
    }
    let (a, b, y_view) = (numbers(70 * 400, 1), numbers(400 * 200, 2), View::rows_of(70, 200));
    let (a_view, b_view) = (View::rows_of(70, 400), View::rows_of(200, 400).t());
    let (mut y, mut own) = (vec![0f32; 70 * 200], vec![0f32; 70 * 200]);
    matmul(&mut y, y_view, Onto::Overwrite, &a, a_view, &b, b_view, Threads::All);
    if here {
        matmul_single(&mut own, y_view, Onto::Overwrite, (&a, a_view), (&b, b_view));
        assert_eq!(y, own);
    }
}

#[test]
fn a_product_is_the_same_bytes_for_any_number_of_threads() {
    if is_skipped() {
        return;
    }
    for (rows, inner, columns) in
        [(430, 384, 200), (70, 1600, 333), (10, 40, 500), (560, 1000, 530)]
    {
        for kind in 0..4 {
            let (a_view, b_view) =
                (view(rows, inner, kind & 1 == 1, 0, 0), view(inner, columns, kind & 2 == 2, 0, 0));
            let (a, b) = (numbers(rows * inner, 4), numbers(inner * columns, 5));
            let product = || {
                let mut y = numbers(rows * columns, 6);
                matmul_single(
                    &mut y,
                    View::rows_of(rows, columns),
                    Onto::Add,
                    (&a, a_view),
                    (&b, b_view),
                );
                y.iter().map(|y| y.to_bits()).collect::<Vec<u32>>()
            };
            let by_threads = [1, 2, 3].map(|n| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build();
                pool.expect("a pool of three threads").install(product)
            });
            assert!(
                by_threads.iter().all(|y| *y == by_threads[0]),
                "{rows}·{inner}·{columns} kind {kind}"
            );
        }
    }
}

#[test]
fn not_a_number_and_infinities_reach_their_rows_only() {
    if is_skipped() {
        return;
    }
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut a = vec![1f32; 40];
        a[3] = value;
        let mut y = [0f32; 2];
        let views = (View::rows_of(2, 20), View::rows_of(20, 1));
        matmul_single(
            &mut y,
            View::rows_of(2, 1),
            Onto::Overwrite,
            (&a, views.0),
            (&[1f32; 20], views.1),
        );
        assert!(y[0].is_nan() == value.is_nan() && (value.is_nan() || y[0] == value));
        assert_eq!(y[1], 20.0);
    }
}

#[test]
fn views_beyond_their_slices_and_unsuited_ones_are_refused() {
    if is_skipped() {
        return;
    }
    let product = |n: usize, y_view: View, a_view: View, b_view: View| {
        let run = move || {
            let mut y = vec![0f32; n];
            matmul_single(&mut y, y_view, Onto::Add, (&[1.0; 4], a_view), (&[1.0; 4], b_view));
        };
        std::panic::catch_unwind(run).is_err()
    };
    let square = View::rows_of(2, 2);
    let wide = View { row_stride: usize::MAX, ..square };
    assert!(!product(4, square, square, square));
    assert!(product(3, square, square, square));
    assert!(product(4, square, View { start: 1, ..square }, square));
    assert!(product(4, square, square, wide));
    assert!(product(4, square.t(), square, square));
    assert!(product(4, View { row_stride: 1, ..square }, square, square));
    assert!(product(4, square, View { row_stride: 0, column_stride: 0, ..square }, square));
    assert!(product(4, square, View::rows_of(1, 2), square));
}
