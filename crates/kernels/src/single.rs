//! Large matrix products of f32 on AVX-512, for operands that have neighbours in one of their directions.
//!
//! The left operand is read where it lies; the right one is laid out a panel at a time by the thread that needs it, into
//! memory that stays in its second cache, while the lines of the next panel are on their way.

mod avx512;

use std::ops::Range;

use rayon::prelude::*;

use crate::buffers::Buffer;
use crate::matmul::{Onto, View};

/// Rows of a tile. Eight lines of a left operand fit into the first cache however far its rows are apart; 14 don't where that
/// is a multiple of 4 KiB.
const ROWS: usize = 8;
/// Columns of a tile and of a right panel: the sums of 8 · 48 elements of y stay in registers.
const COLUMNS: usize = 48;
/// Elements of the inner dimension in one pass at most: a right panel of 72 KiB.
const MOST_INNER: usize = 384;
/// Tiles below each other in one job at most: 448 · 384 numbers of the left operand are 672 KiB of the second cache.
const MOST_TILES: usize = 56;
/// Panels of one job at most.
const MOST_PANELS: usize = 8;
/// Numbers in a cache line.
const LINE: usize = 16;

/// Smaller products are left to gemm; measured from 32 rows on.
const LEAST_ROWS: usize = 32;
const LEAST_COLUMNS: usize = 192;
const LEAST_INNER: usize = 64;

use avx512::is_here;

/// An operand as (outer, I), where outer is R of a left one and C of a right one.
#[derive(Clone, Copy)]
struct Operand<'x> {
    x: &'x [f32],
    view: View,
}

impl<'x> Operand<'x> {
    /// `n_outer` rows or columns, and the elements of one pass.
    fn part(&self, outer: usize, n_outer: usize, pass: &Range<usize>) -> Part<'x> {
        let View { row_stride, column_stride, .. } = self.view;
        let is_along = column_stride == 1;
        Part {
            x: &self.x[self.view.start + outer * row_stride + pass.start * column_stride..],
            stride: if is_along { row_stride } else { column_stride },
            is_along,
            n_outer: n_outer.min(self.view.rows - outer),
            n_inner: pass.len(),
        }
    }
}

/// What of an operand goes into one tile or panel.
#[derive(Clone, Copy)]
pub struct Part<'x> {
    /// From the first element on.
    pub x: &'x [f32],
    /// Elements between neighbours in the direction without stride 1.
    pub stride: usize,
    /// Whether the inner dimension has stride 1.
    pub is_along: bool,
    pub n_outer: usize,
    pub n_inner: usize,
}

impl Part<'_> {
    /// Asks for the `share`th of `n_shares` of its cache lines.
    fn prefetch(&self, share: usize, n_shares: usize) {
        let (n_far, n_near) =
            if self.is_along { (self.n_outer, self.n_inner) } else { (self.n_inner, self.n_outer) };
        let n_lines = n_near.div_ceil(LINE);
        let each = (n_far * n_lines).div_ceil(n_shares);
        for at in (share * each)..((share + 1) * each).min(n_far * n_lines) {
            avx512::prefetch(self.x, at / n_lines * self.stride + at % n_lines * LINE);
        }
    }

    /// Whether every element that it has lies inside its slice.
    pub fn fits(&self) -> bool {
        let (n_far, n_near) =
            if self.is_along { (self.n_outer, self.n_inner) } else { (self.n_inner, self.n_outer) };
        n_far > 0 && n_near > 0 && (n_far - 1) * self.stride + n_near <= self.x.len()
    }
}

/// Up to 8 rows and 48 columns of y, and what they are made of.
pub struct Tile<'a> {
    pub left: Part<'a>,
    pub right: &'a [f32], // (I, 48)
    pub y: *mut f32,
    pub y_stride: usize,
    pub n_columns: usize,
    /// `Overwrite` reads nothing of y.
    pub onto: Onto,
}

/// Passes along I, all about as long.
fn passes(inner: usize) -> impl Iterator<Item = Range<usize>> {
    let most = inner.div_ceil(inner.div_ceil(MOST_INNER)).next_multiple_of(LINE);
    (0..inner).step_by(most).map(move |start| start..(start + most).min(inner))
}

struct Product<'a> {
    left: Operand<'a>,
    right: Operand<'a>,
    onto: Onto,
    y: *mut f32,
    y_stride: usize,
}

#[expect(unsafe_code, reason = "threads write into one y")]
// SAFETY: jobs share out the tiles of y, so that each element belongs to one thread.
unsafe impl Sync for Product<'_> {}

fn is_suited(y: View, left: View, right: View) -> bool {
    let has_neighbours = |view: View| view.row_stride == 1 || view.column_stride == 1;
    y.column_stride == 1
        && y.row_stride >= y.columns
        && has_neighbours(left)
        && has_neighbours(right)
}

/// Whether [`matmul_single`] takes such a product and was measured to be ahead of gemm: x·Wᵀ, by 3 to 45 % at 430 rows
/// and 1.6 to 3.7 times as fast at 32 (LOG.md). Where the right operand's rows lie along C, as in dx = dy·W and dW = dyᵀ·x, gemm is
/// level or up to 10 % ahead.
pub fn is_faster(y: View, left: View, right: View) -> bool {
    let is_large = y.rows >= LEAST_ROWS && y.columns >= LEAST_COLUMNS && right.rows >= LEAST_INNER;
    is_large && right.row_stride == 1 && is_suited(y, left, right) && is_here()
}

/// y (R, C) = left (R, I) · right (I, C), or added onto y, on all threads. Each sum has the same order for any number of them.
/// Panics unless the processor has AVX-512, rows of y are contiguous and apart, both operands have neighbours in one of their
/// directions, and the views match each other and lie within their slices.
pub fn matmul_single(
    y: &mut [f32],
    y_view: View,
    onto: Onto,
    left: (&[f32], View),
    right: (&[f32], View),
) {
    assert!(is_here() && is_suited(y_view, left.1, right.1));
    assert!(
        y_view.rows == left.1.rows
            && y_view.columns == right.1.columns
            && left.1.columns == right.1.rows
    );
    assert!(y_view.fits(y.len()) && left.1.fits(left.0.len()) && right.1.fits(right.0.len()));
    assert!(y_view.rows > 0 && y_view.columns > 0 && left.1.columns > 0, "a product over nothing");
    let (left, right) =
        (Operand { x: left.0, view: left.1 }, Operand { x: right.0, view: right.1.t() });
    let y = y[y_view.start..].as_mut_ptr();
    let product = Product { left, right, onto, y, y_stride: y_view.row_stride };
    let (n_tiles, n_panels) = (left.view.rows.div_ceil(ROWS), right.view.rows.div_ceil(COLUMNS));
    let tiles = n_tiles.div_ceil(n_tiles.div_ceil(MOST_TILES));
    let panels = n_panels.div_ceil(2 * rayon::current_num_threads()).min(MOST_PANELS);
    let n_across = n_panels.div_ceil(panels);
    (0..n_tiles.div_ceil(tiles) * n_across).into_par_iter().with_max_len(1).for_each(|job| {
        let (tile, panel) = (job / n_across * tiles, job % n_across * panels);
        product.run(tile..(tile + tiles).min(n_tiles), panel..(panel + panels).min(n_panels));
    });
}

impl Product<'_> {
    fn run(&self, tiles: Range<usize>, panels: Range<usize>) {
        let inner = self.left.view.columns;
        let mut memory = Buffer::of(MOST_INNER.min(inner) * COLUMNS + LINE);
        let start = memory.as_ptr().align_offset(4 * LINE).min(LINE);
        let mut steps = passes(inner)
            .flat_map(|pass| panels.clone().map(move |panel| (panel, pass.clone())))
            .peekable();
        while let Some((panel, pass)) = steps.next() {
            let right = &mut memory[start..][..pass.len() * COLUMNS];
            avx512::pack(right, self.panel(panel, &pass));
            let next = steps.peek().map(|(panel, pass)| self.panel(*panel, pass));
            for tile in tiles.clone() {
                if let Some(next) = next {
                    next.prefetch(tile - tiles.start, tiles.len());
                }
                self.tile(tile, panel, &pass, right);
            }
        }
    }

    fn panel(&self, panel: usize, pass: &Range<usize>) -> Part<'_> {
        self.right.part(panel * COLUMNS, COLUMNS, pass)
    }

    #[expect(unsafe_code, reason = "threads write into one y")]
    fn tile(&self, tile: usize, panel: usize, pass: &Range<usize>, right: &[f32]) {
        let onto = if pass.start > 0 { Onto::Add } else { self.onto };
        let left = self.left.part(tile * ROWS, ROWS, pass);
        let n_columns = COLUMNS.min(self.right.view.rows - panel * COLUMNS);
        let y = self.y.wrapping_add(tile * ROWS * self.y_stride + panel * COLUMNS);
        // SAFETY: the tile lies inside y, for this thread alone, and `multiply` has asked for AVX-512.
        unsafe {
            avx512::multiply(&Tile { left, right, y, y_stride: self.y_stride, n_columns, onto })
        };
    }
}

#[cfg(test)]
mod tests;
