//! Products and layouts 32 columns at a time, for whoever goes on with them while they are in a cache: a whole matrix in between
//! is written to memory and read again, by each layout anew.
//!
//! A panel is N+ rows of 32 numbers one after the other, N+ being N rounded up to whole panels.

use rayon::prelude::*;

use super::{
    DEPTH, From, PANEL, Packed, Path, Product, Result, Rounding, SIDE, STEP, Side, Square, TILE,
    amx, avx512, matmul_on, pack, passes,
};
use crate::affine::rows_of_a_sum;
use crate::buffers::Buffer;
use crate::lanes::wide;
use crate::matmul::View;

/// A gradient dy (N, O) as the way back needs it.
pub(crate) struct Gradient {
    /// For dx = dy·W.
    pub left: Packed,
    /// dyᵀ, for dW = dyᵀ·x.
    pub across: Packed,
    /// Of its rows, (O,).
    pub sums: Vec<f32>,
}

/// Numbers of all panels of an (N, F) matrix.
pub(crate) fn panels_len(n: usize, f: usize) -> usize {
    f.div_ceil(PANEL) * panel_len(n)
}

fn panel_len(n: usize) -> usize {
    n.next_multiple_of(PANEL) * PANEL
}

/// A right operand (I, C) in f32. 32 columns at a time are rounded and laid out by the thread that multiplies with them, so that
/// they don't go through memory in between; the next ones are fetched meanwhile.
#[derive(Clone, Copy)]
pub(crate) struct Weight<'x> {
    pub x: &'x [f32],
    pub view: View,
}

impl Weight<'_> {
    fn n_panels(self) -> usize {
        self.view.columns.div_ceil(PANEL)
    }

    fn start(self, at: usize) -> usize {
        self.view.start + at * PANEL * self.view.column_stride
    }

    fn panel(self, at: usize) -> Packed {
        let columns = PANEL.min(self.view.columns - at * PANEL);
        Packed::right(self.x, View { start: self.start(at), columns, ..self.view })
    }

    /// Asks for one of `parts` parts of a panel.
    fn fetch(self, at: usize, part: usize, parts: usize) {
        if at >= self.n_panels() {
            return;
        }
        let (start, n_lines) = (self.start(at), self.view.rows * PANEL / LINE);
        let share = n_lines.div_ceil(parts);
        for line in part * share..((part + 1) * share).min(n_lines) {
            let place = match self.view.column_stride {
                1 => line / 2 * self.view.row_stride + line % 2 * LINE,
                _ => line * LINE,
            };
            avx512::fetch_far(self.x, start + place);
        }
    }
}

/// Numbers of a cache line.
const LINE: usize = 16;
/// A left operand of more bytes doesn't stay in the second cache while all panels of the right one pass by.
const MOST_BYTES: usize = 3 << 19;

/// y (R, C) = left (R, I) · right (I, C), as [`super::matmul_on`] does it.
pub(super) fn matmul(path: Path, y: &mut [f32], from: From, left: &Packed, right: Weight) {
    if left.n_words() * 4 > MOST_BYTES {
        return matmul_on(path, y, from, left, &Packed::right(right.x, right.view));
    }
    assert!(!matches!(from, From::Row(row) if row.len() != right.view.columns));
    assert!(left.side == Side::Left && left.inner == right.view.rows);
    assert!(y.len() == left.outer * right.view.columns);
    let y = Result { start: y.as_mut_ptr(), columns: right.view.columns };
    (0..right.n_panels()).into_par_iter().for_each(|at| {
        let panel = right.panel(at);
        let _tiles = (path == Path::Amx).then(amx::Tiles::configure);
        let product = Product { path, left, right: &panel, first: at * PANEL, from, y };
        for row in 0..left.n_panels() {
            passes(left.n_steps()).for_each(|steps| product.square(row, 0, &steps));
            right.fetch(at + 1, row, left.n_panels());
        }
    });
}

/// `y` (N+, 32) becomes columns 32·at.. of left (N, I) · right (I, C), plus those of `row` (C,).
pub(crate) fn times_panel(
    left: &Packed,
    right: Weight,
    at: usize,
    row: Option<&[f32]>,
    y: &mut [f32],
) {
    assert!(left.side == Side::Left && left.inner == right.view.rows);
    assert!(y.len() == panel_len(left.outer));
    let panel = right.panel(at);
    let mut begin = [0f32; PANEL];
    if let Some(row) = row {
        begin[..panel.outer].copy_from_slice(&row[at * PANEL..][..panel.outer]);
    }
    let path = Path::here();
    let _tiles = (path == Path::Amx).then(amx::Tiles::configure);
    let steps = 0..left.n_steps();
    for (row_at, y) in y.chunks_exact_mut(PANEL * PANEL).enumerate() {
        let (left_panel, right_panel) = (left.panel(row_at, &steps), panel.panel(0, &steps));
        let from = row.map(|_| (begin.as_ptr(), 0));
        let y = y.as_mut_ptr();
        path.multiply(&Square { left: left_panel, right: right_panel, y, y_stride: PANEL, from });
        right.fetch(at + 1, row_at, left.n_panels());
    }
}

impl Packed {
    /// The (N, F) operand to multiply from the left whose columns `make` writes panel by panel, from panels of `of`, which it may
    /// change. It gets the panel's number, that of `of`, and room.
    pub(crate) fn left_of_panels(
        (n, f): (usize, usize),
        of: &mut [f32],
        make: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
    ) -> Packed {
        let mut packed = Packed::unwritten(Side::Left, n, f);
        let stripes = packed.stripes_mut().into_par_iter();
        stripes.zip(of.par_chunks_mut(panel_len(n))).enumerate().for_each(|(at, (stripe, of))| {
            let mut panel = Buffer::of(panel_len(n));
            make(at, of, &mut panel);
            write_along(stripe, &panel, PANEL, n, PANEL.min(f - at * PANEL));
        });
        packed
    }

    /// The words of each panel, in their order.
    fn panels_mut(&mut self) -> rayon::slice::ChunksExactMut<'_, u32> {
        let n_steps = self.n_steps();
        self.words_mut().par_chunks_exact_mut(n_steps * STEP)
    }

    /// The words of each 32 elements along I, through all panels.
    fn stripes_mut(&mut self) -> Vec<Vec<&mut [u32]>> {
        let n_steps = self.n_steps();
        let mut stripes: Vec<_> =
            (0..n_steps).map(|_| Vec::with_capacity(self.n_panels())).collect();
        for (at, step) in self.words_mut().chunks_exact_mut(STEP).enumerate() {
            stripes[at % n_steps].push(step);
        }
        stripes
    }
}

impl Gradient {
    /// Of numbers in rows, (N, O).
    pub(crate) fn of_rows(dy: &[f32], o: usize) -> Gradient {
        let n = dy.len() / o;
        let nothing = vec![(); o.div_ceil(PANEL)];
        Gradient::of_stripes((n, o), nothing, |at, (), left, across| {
            let (x, width) = (&dy[at * PANEL..], PANEL.min(o - at * PANEL));
            write_along(left, x, o, n, width);
            write_across(across, Side::Left, x, o, n, width);
            sums_of_rows(x, o, n, width, rows_of_a_sum(o))
        })
    }

    /// Of what `make` writes panel by panel, and beside it another (N, O) matrix, to multiply from the right. It gets the panel's
    /// number, that panel of `of`, and room for both.
    pub(crate) fn of_panels(
        (n, o): (usize, usize),
        of: &[f32],
        make: impl Fn(usize, &[f32], &mut [f32], &mut [f32]) + Sync,
    ) -> (Gradient, Packed) {
        let mut right = Packed::unwritten(Side::Right, o, n);
        let beside = right.panels_mut().zip(of.par_chunks(panel_len(n))).collect();
        let gradient = Gradient::of_stripes((n, o), beside, |at, (beside, of), left, across| {
            let (mut dy, mut x) = (Buffer::of(panel_len(n)), Buffer::of(panel_len(n)));
            make(at, of, &mut dy, &mut x);
            let width = PANEL.min(o - at * PANEL);
            write_along(left, &dy, PANEL, n, width);
            write_across(across, Side::Left, &dy, PANEL, n, width);
            write_across(beside, Side::Right, &x, PANEL, n, width);
            sums_of_rows(&dy, PANEL, n, width, rows_of_a_sum(o))
        });
        (gradient, right)
    }

    /// `write` makes what each 32 columns of dy are in both layouts, and gives their sums.
    fn of_stripes<T: Send>(
        (n, o): (usize, usize),
        beside: Vec<T>,
        write: impl Fn(usize, T, Vec<&mut [u32]>, &mut [u32]) -> Vec<f32> + Sync,
    ) -> Gradient {
        let mut left = Packed::unwritten(Side::Left, n, o);
        let mut across = Packed::unwritten(Side::Left, o, n);
        let all = left.stripes_mut().into_par_iter().zip(across.panels_mut()).zip(beside);
        let sums: Vec<Vec<f32>> = all
            .enumerate()
            .map(|(at, ((left, across), beside))| write(at, beside, left, across))
            .collect();
        Gradient { left, across, sums: sums.concat() }
    }
}

/// `width` columns of n rows `stride` apart, whose rows are rows of a left operand, into its steps.
fn write_along(stripe: Vec<&mut [u32]>, x: &[f32], stride: usize, n: usize, width: usize) {
    for (panel, step) in stripe.into_iter().enumerate() {
        let first = panel * PANEL;
        for (half, tile) in step.chunks_exact_mut(TILE).enumerate() {
            let row = first + half * SIDE;
            let n_outer = SIDE.min(n.saturating_sub(row));
            write_tile(
                tile,
                Side::Left,
                true,
                &x[(row * stride).min(x.len())..],
                stride,
                n_outer,
                width,
            );
        }
    }
}

/// The same columns into a panel of an operand whose I are the rows.
fn write_across(panel: &mut [u32], side: Side, x: &[f32], stride: usize, n: usize, width: usize) {
    for (step, words) in panel.chunks_exact_mut(STEP).enumerate() {
        let row = step * DEPTH;
        for (half, tile) in words.chunks_exact_mut(TILE).enumerate() {
            let n_outer = SIDE.min(width.saturating_sub(half * SIDE));
            let start = (row * stride + half * SIDE).min(x.len());
            write_tile(tile, side, false, &x[start..], stride, n_outer, DEPTH.min(n - row));
        }
    }
}

/// One tile, from its first number on.
fn write_tile(
    tile: &mut [u32],
    side: Side,
    is_along: bool,
    x: &[f32],
    stride: usize,
    n_outer: usize,
    n_inner: usize,
) {
    if let Some(tile) = tile.as_chunks_mut::<SIDE>().0.first_chunk_mut::<SIDE>() {
        pack::write(
            tile,
            side,
            is_along,
            pack::Part { x, stride, n_outer, n_inner },
            Rounding::here(),
        );
    }
}

/// Sums over n rows, block by block as [`crate::affine::column_sums`] does it.
fn sums_of_rows(x: &[f32], stride: usize, n: usize, width: usize, block: usize) -> Vec<f32> {
    let mut sums = vec![0f32; width];
    for first in (0..n).step_by(block) {
        let mut partial = [0f32; PANEL];
        add_rows(&x[first * stride..], stride, block.min(n - first), &mut partial[..width]);
        sums.iter_mut().zip(partial).for_each(|(sum, x)| *sum += x);
    }
    sums
}

wide! {
fn add_rows(x: &[f32], stride: usize, n: usize, sums: &mut [f32]) {
    for row in x.chunks(stride).take(n) {
        sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += x);
    }
}
}
