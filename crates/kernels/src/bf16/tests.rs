//! The three paths against each other and against f64, packing against plain rounding.

use std::io::{self, Write};

use super::*;

/// The paths that this machine has; one that it lacks is named as skipped.
fn paths() -> Vec<Path> {
    let found =
        [(Path::Amx, amx::is_here()), (Path::Avx512, avx512::is_here()), (Path::Portable, true)];
    for (path, _) in found.iter().filter(|(_, is_here)| !is_here) {
        skipped(*path);
    }
    found.into_iter().filter_map(|(path, is_here)| is_here.then_some(path)).collect()
}

fn skipped(path: Path) {
    let _ = writeln!(io::stderr(), "skipped: this machine has no {path:?}");
}

fn roundings() -> Vec<Rounding> {
    if avx512::is_here() {
        return vec![Rounding::Avx512, Rounding::Portable];
    }
    skipped(Path::Avx512);
    vec![Rounding::Portable]
}

/// Numbers of both signs and several sizes that bf16 can't hold.
fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next() * (3.0 * next()).exp()).collect()
}

/// The nearest bf16 found by distances, as a number.
fn nearest(x: f32) -> f32 {
    if x.is_nan() || x.is_infinite() {
        return x;
    }
    if x.abs() < f32::MIN_POSITIVE {
        return 0f32.copysign(x);
    }
    let below = f32::from_bits(x.to_bits() & 0xffff_0000);
    let next = (x.to_bits() & 0xffff_0000).wrapping_add(0x1_0000);
    // Beyond the largest bf16 the next step would be 2¹²⁸, which f64 can hold.
    let next_up = f64::from(f32::from_bits(next).abs()).min(2f64.powi(128)).copysign(x.into());
    let (down, up) = ((f64::from(x) - f64::from(below)).abs(), (next_up - f64::from(x)).abs());
    let is_even = (below.to_bits() >> 16) & 1 == 0;
    if down < up || down == up && is_even { below } else { f32::from_bits(next) }
}

/// All bf16 with bits behind them that lie at, beside and far from a tie.
fn every_case() -> Vec<f32> {
    let low = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
    (0..=0xffffu32).flat_map(|high| low.map(|low| f32::from_bits(high << 16 | low))).collect()
}

#[test]
fn rounding_is_to_the_nearest_and_ties_to_even() {
    for x in every_case() {
        let (found, expected) = (f32::from_bits(pack::rounded(x) << 16), nearest(x));
        let is_same =
            if x.is_nan() { found.is_nan() } else { found.to_bits() == expected.to_bits() };
        assert!(is_same, "{:08x}: {found} for {expected}", x.to_bits());
    }
}

/// Element (outer, inner) of a packed operand, by the definition of the layout.
fn unpacked(packed: &Packed, outer: usize, inner: usize) -> u16 {
    let step = outer / PANEL * packed.n_steps() + inner / DEPTH;
    let tile = step * STEP + outer % PANEL / SIDE * TILE;
    let pair = inner % DEPTH / 2;
    let word = match packed.side {
        Side::Left => packed.words()[tile + outer % SIDE * SIDE + pair],
        Side::Right => packed.words()[tile + pair * SIDE + outer % SIDE],
    };
    (word >> (inner % 2 * 16)) as u16
}

#[test]
fn both_roundings_lay_out_the_same_bytes_from_every_view() {
    let special = every_case();
    for (outer, inner) in [(1, 1), (16, 32), (17, 33), (15, 31), (70, 70), (5, 64), (290, 1311)] {
        let (x, start) = (&special[3000..], 11);
        let (along, across) = (View::rows_of(outer, inner), View::rows_of(inner, outer).t());
        let apart = View { row_stride: inner + 5, ..along };
        for view in [along, across, apart, View { column_stride: outer + 3, ..across }] {
            let view = View { start, ..view };
            let reached =
                start + (outer - 1) * view.row_stride + (inner - 1) * view.column_stride + 1;
            for side in [Side::Left, Side::Right] {
                let all = roundings();
                let packed = all.iter().map(|&r| Packed::of(&x[..reached], view, side, r));
                let packed: Vec<Packed> = packed.collect();
                for outer_at in 0..outer.next_multiple_of(PANEL) {
                    for inner_at in 0..inner.next_multiple_of(DEPTH) {
                        let at = start + outer_at * view.row_stride + inner_at * view.column_stride;
                        let is_inside = outer_at < outer && inner_at < inner;
                        let expected = if is_inside { pack::rounded(x[at]) as u16 } else { 0 };
                        for packed in &packed {
                            let found = unpacked(packed, outer_at, inner_at);
                            assert_eq!(found, expected, "{side:?} {outer_at} {inner_at}");
                        }
                    }
                }
            }
        }
    }
}

struct Case {
    rows: usize,
    inner: usize,
    columns: usize,
    is_left_turned: bool,
    is_right_turned: bool,
    onto: Onto,
}

/// |y − exact| ≤ (I + 4)·2⁻²⁴·1.01·(|y₀| + Σ|a·b|): products of two bf16 are exact in f32, and a sum of I of them in any
/// order rounds at most I + 3 times.
fn check(path: Path, case: &Case) {
    let Case { rows, inner, columns, onto, .. } = *case;
    let (a, b) = (numbers(rows * inner, 1), numbers(inner * columns, 2));
    let turned = |is_turned: bool, rows: usize, columns: usize| {
        if is_turned { View::rows_of(columns, rows).t() } else { View::rows_of(rows, columns) }
    };
    let a_view = turned(case.is_left_turned, rows, inner);
    let b_view = turned(case.is_right_turned, inner, columns);
    let before = numbers(rows * columns, 3);
    // What is overwritten must not be read.
    let mut y = if onto == Onto::Add { before.clone() } else { vec![f32::NAN; rows * columns] };
    let from = if onto == Onto::Add { Sums::Y } else { Sums::Zeros };
    matmul_on(path, &mut y, from, &Packed::left(&a, a_view), &Packed::right(&b, b_view));
    let rounded = |x: &[f32], view: View| -> Vec<f64> {
        let at =
            |i: usize| i / view.columns * view.row_stride + i % view.columns * view.column_stride;
        (0..view.rows * view.columns).map(|i| nearest(x[at(i)]).into()).collect()
    };
    let (a, b) = (rounded(&a, a_view), rounded(&b, b_view.t()));
    for (r, a) in a.chunks(inner).enumerate() {
        for (c, b) in b.chunks(inner).enumerate() {
            let y0 = if onto == Onto::Add { f64::from(before[r * columns + c]) } else { 0.0 };
            let products = a.iter().zip(b).map(|(a, b)| a * b);
            let (sum, size) = products.fold((y0, y0.abs()), |(s, t), p| (s + p, t + p.abs()));
            let bound = (inner + 4) as f64 * 2f64.powi(-24) * 1.01 * size;
            let found = f64::from(y[r * columns + c]);
            assert!(
                (found - sum).abs() <= bound,
                "{path:?} {rows}·{inner}·{columns} at ({r}, {c}): {found} for {sum} ± {bound}"
            );
        }
    }
}

#[test]
fn every_path_gives_the_exact_product_but_for_f32_sums() {
    let ragged = (1..=70).map(|n| (n, (n * 37) % 70 + 1, (n * 53) % 70 + 1));
    // More than one block of the inner dimension; more than 1 MiB of the smaller operand.
    let large = [(33, 1570, 47), (47, 3100, 33), (1, 2000, 1), (560, 1000, 530), (530, 1000, 560)];
    let sizes: Vec<_> = ragged.chain(large).collect();
    for path in paths() {
        for (n, &(rows, inner, columns)) in sizes.iter().enumerate() {
            // The four views in turn, and both ways onto y.
            let (is_left_turned, is_right_turned) = (n & 1 == 1, n & 2 == 2);
            let onto = if n & 4 == 4 { Onto::Add } else { Onto::Overwrite };
            check(path, &Case { rows, inner, columns, is_left_turned, is_right_turned, onto });
        }
    }
}

#[test]
fn a_product_is_the_same_bytes_for_any_number_of_threads() {
    for path in paths() {
        for (rows, inner, columns) in
            [(430, 384, 200), (70, 1600, 333), (10, 40, 500), (560, 1000, 530)]
        {
            let (a, b) = (numbers(rows * inner, 4), numbers(inner * columns, 5));
            let product = || {
                let left = Packed::left(&a, View::rows_of(rows, inner));
                let right = Packed::right(&b, View::rows_of(inner, columns));
                let mut y = numbers(rows * columns, 6);
                matmul_on(path, &mut y, Sums::Y, &left, &right);
                y.iter().map(|y| y.to_bits()).collect::<Vec<u32>>()
            };
            let by_threads = [1, 2, 3].map(|n| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build();
                pool.expect("a pool of three threads").install(product)
            });
            assert!(
                by_threads.iter().all(|y| *y == by_threads[0]),
                "{path:?} {rows}·{inner}·{columns}"
            );
        }
    }
}

#[test]
fn not_a_number_and_infinities_reach_the_result() {
    for path in paths() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut a = vec![1f32; 40];
            a[3] = value;
            let mut y = [0f32; 2];
            let left = Packed::left(&a, View::rows_of(2, 20));
            let right = Packed::right(&[1f32; 20], View::rows_of(20, 1));
            matmul_on(path, &mut y, Sums::Zeros, &left, &right);
            assert!(
                y[0].is_nan() == value.is_nan() && (value.is_nan() || y[0] == value),
                "{path:?}"
            );
            assert_eq!(y[1], 20.0, "{path:?}");
        }
    }
}

#[test]
#[should_panic(expected = "row_stride == 1")]
fn a_view_without_neighbours_is_refused() {
    Packed::left(&[0.0; 8], View { row_stride: 4, column_stride: 2, ..View::rows_of(2, 2) });
}

#[test]
#[should_panic(expected = "fits")]
fn a_view_beyond_its_slice_is_refused() {
    Packed::right(&[0.0; 8], View::rows_of(3, 3));
}

#[test]
#[should_panic(expected = "y.len()")]
fn a_result_of_another_size_is_refused() {
    let left = Packed::left(&[0.0; 4], View::rows_of(2, 2));
    let right = Packed::right(&[0.0; 4], View::rows_of(2, 2));
    matmul_bf16(&mut [0.0; 6], Onto::Overwrite, &left, &right);
}

/// Sums that begin with a row, as a bias, are those that begin with y where y holds that row.
#[test]
fn a_row_to_begin_with() {
    for path in paths() {
        for (rows, inner, columns) in [(1, 3, 2), (40, 70, 33), (64, 1600, 96), (33, 40, 64)] {
            let wave =
                |n: usize, s: f32| (0..n).map(|i| (i as f32 * s).sin()).collect::<Vec<f32>>();
            let (a, b, row) =
                (wave(rows * inner, 0.7), wave(inner * columns, 0.3), wave(columns, 0.9));
            let left = Packed::left(&a, View::rows_of(rows, inner));
            let right = Packed::right(&b, View::rows_of(inner, columns));
            let (mut found, mut expected) = (vec![f32::NAN; rows * columns], row.repeat(rows));
            matmul_on(path, &mut found, Sums::Row(&row), &left, &right);
            matmul_on(path, &mut expected, Sums::Y, &left, &right);
            assert!(found == expected, "{path:?} {rows} {inner} {columns}");
        }
    }
}
