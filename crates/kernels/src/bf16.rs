//! Matrix products of operands rounded to bf16, with sums in f32: on AMX, on AVX-512-BF16, or portably.
//!
//! An operand is rounded and laid out once ([`Packed`]) and can then be multiplied many times; the result stays f32.
//! Numbers below 2⁻¹²⁶ count as zero, as they do in the processor's own bf16 instructions.

pub(crate) mod amx;
pub(crate) mod avx512;
mod pack;
mod portable;

use std::ops::Range;
use std::sync::OnceLock;

use rayon::prelude::*;

use crate::buffers::Buffer;
use crate::matmul::{Onto, View};

/// Rows of a left tile, columns of a right one.
const SIDE: usize = 16;
/// Elements of the inner dimension in a tile.
const DEPTH: usize = 32;
/// Words of a tile, each a pair of bf16 with the earlier one in the low half.
const TILE: usize = SIDE * DEPTH / 2;
/// Rows or columns of a panel, which is two tiles wide: y is worked on in squares of this size.
const PANEL: usize = 2 * SIDE;
/// Words of a panel's two tiles side by side.
const STEP: usize = 2 * TILE;
/// Steps of one pass at most. A panel this long is 96 KiB and lies in the second cache; shorter passes would keep it in the
/// first, but cost more in reading and writing y again (10 % at I = 1,536).
const MOST_STEPS: usize = 48;
/// An operand below this many bytes stays in the second cache while the other passes by.
const SMALL_BYTES: usize = 1 << 20;
const CACHE_LINE: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Side {
    /// Panels of 32 rows; a tile is 16 rows of 16 words along I.
    Left,
    /// Panels of 32 columns; a tile is 16 pairs along I of 16 words, one a column.
    Right,
}

/// An operand rounded to bf16 (to nearest, ties to even) and laid out in tiles of 1 KiB, padded with zeros.
pub struct Packed {
    /// Panel after panel, along I two tiles after two tiles, from `start` on: a square reads memory in its order.
    memory: Buffer,
    /// Where the first cache line begins: a tile's row that lies across two costs two loads.
    start: usize,
    side: Side,
    /// R of a left operand, C of a right one.
    outer: usize,
    /// I.
    inner: usize,
}

impl Packed {
    /// An (R, I) operand to multiply from the left. Panics unless `view` lies within `x`, has both sizes at least one, and
    /// has neighbours in one of its directions.
    pub fn left(x: &[f32], view: View) -> Packed {
        Packed::of(x, view, Side::Left, Rounding::here())
    }

    /// An (I, C) operand to multiply from the right. Panics as [`Packed::left`] does.
    pub fn right(x: &[f32], view: View) -> Packed {
        Packed::of(x, view.t(), Side::Right, Rounding::here())
    }

    /// `view` is (R, I) or (C, I).
    fn of(x: &[f32], view: View, side: Side, rounding: Rounding) -> Packed {
        let (outer, inner) = (view.rows, view.columns);
        assert!(outer > 0 && inner > 0, "an operand over nothing");
        assert!(view.fits(x.len()) && (view.row_stride == 1 || view.column_stride == 1));
        let n_words = outer.div_ceil(PANEL) * inner.div_ceil(DEPTH) * STEP;
        let memory = Buffer::of(n_words + CACHE_LINE / 4);
        let start = memory.as_ptr().align_offset(CACHE_LINE).min(CACHE_LINE / 4);
        let mut packed = Packed { memory, start, side, outer, inner };
        pack::pack(packed.words_mut(), x, view, side, rounding);
        packed
    }

    fn n_panels(&self) -> usize {
        self.outer.div_ceil(PANEL)
    }

    /// Steps of two tiles in a panel.
    fn n_steps(&self) -> usize {
        self.inner.div_ceil(DEPTH)
    }

    fn n_words(&self) -> usize {
        self.n_panels() * self.n_steps() * STEP
    }

    #[expect(unsafe_code, reason = "f32 seen as the bits that it is")]
    fn words(&self) -> &[u32] {
        let all = &self.memory[self.start..][..self.n_words()];
        // SAFETY: f32 and u32 have one size and alignment, and any bits are a number of either.
        unsafe { std::slice::from_raw_parts(all.as_ptr().cast(), all.len()) }
    }

    #[expect(unsafe_code, reason = "f32 seen as the bits that it is")]
    fn words_mut(&mut self) -> &mut [u32] {
        let n_words = self.n_words();
        let all = &mut self.memory[self.start..][..n_words];
        // SAFETY: as in `words`, and the borrow is as exclusive as that of `self`.
        unsafe { std::slice::from_raw_parts_mut(all.as_mut_ptr().cast(), all.len()) }
    }

    fn panel(&self, panel: usize, steps: &Range<usize>) -> &[u32] {
        let start = (panel * self.n_steps() + steps.start) * STEP;
        &self.words()[start..][..steps.len() * STEP]
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Rounding {
    Avx512,
    Portable,
}

impl Rounding {
    fn here() -> Rounding {
        if avx512::is_here() { Rounding::Avx512 } else { Rounding::Portable }
    }
}

/// What a product runs on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Path {
    Amx,
    Avx512,
    Portable,
}

impl Path {
    fn here() -> Path {
        static PATH: OnceLock<Path> = OnceLock::new();
        *PATH.get_or_init(|| match (amx::is_here(), avx512::is_here()) {
            (true, _) => Path::Amx,
            (false, true) => Path::Avx512,
            (false, false) => Path::Portable,
        })
    }
}

/// The instructions that [`matmul_bf16`] runs on here.
pub fn bf16_path() -> &'static str {
    match Path::here() {
        Path::Amx => "AMX-BF16",
        Path::Avx512 => "AVX-512-BF16",
        Path::Portable => "portable",
    }
}

/// y (R, C) = left (R, I) · right (I, C), or added onto y, which is row-major. Products are exact, sums are f32, and their
/// order is the same for any number of threads (it differs between kinds of processors). Panics where sizes don't match.
/// Where y doesn't begin on a cache line, or C is no multiple of 16, a product costs up to a fifth more.
pub fn matmul_bf16(y: &mut [f32], onto: Onto, left: &Packed, right: &Packed) {
    let from = if onto == Onto::Add { Sums::Y } else { Sums::Zeros };
    matmul_on(Path::here(), y, from, left, right);
}

/// The same with `row` (C,), a bias, added to each row of the product. It costs nothing: sums begin with it.
pub(crate) fn matmul_bf16_from(y: &mut [f32], row: &[f32], left: &Packed, right: &Packed) {
    matmul_on(Path::here(), y, Sums::Row(row), left, right);
}

/// What the sums begin with.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sums<'a> {
    Zeros,
    Y,
    /// (C,) for each row of y.
    Row(&'a [f32]),
}

fn matmul_on(path: Path, y: &mut [f32], from: Sums, left: &Packed, right: &Packed) {
    assert!(
        matches!(from, Sums::Zeros | Sums::Y)
            || matches!(from, Sums::Row(row) if row.len() == right.outer)
    );
    assert!(left.side == Side::Left && right.side == Side::Right && left.inner == right.inner);
    assert!(y.len() == left.outer * right.outer);
    let product = Product { path, left, right, from, y: y.as_mut_ptr() };
    // The larger operand is taken panel by panel, and each meets all of the smaller one.
    let by_rows = left.outer >= right.outer;
    let (large, small) = if by_rows { (left, right) } else { (right, left) };
    let n_threads = rayon::current_num_threads();
    let most = large.n_panels().div_ceil(n_threads);
    let step = if small.n_words() * 4 <= SMALL_BYTES { 1 } else { most.min(8) };
    let n_large = large.n_panels().div_ceil(step);
    let n_small = if n_large < n_threads { n_threads.min(small.n_panels()) } else { 1 };
    let small_step = small.n_panels().div_ceil(n_small);
    (0..n_large * n_small).into_par_iter().for_each(|job| {
        let (at, small_at) = (job / n_small * step, job % n_small * small_step);
        let large = at..(at + step).min(large.n_panels());
        let small = small_at..(small_at + small_step).min(small.n_panels());
        product.run(large, small, by_rows);
    });
}

struct Product<'a> {
    path: Path,
    left: &'a Packed,
    right: &'a Packed,
    from: Sums<'a>,
    y: *mut f32,
}

#[expect(unsafe_code, reason = "threads write into one y")]
// SAFETY: jobs share out the squares of y, so that each element belongs to one thread.
unsafe impl Sync for Product<'_> {}

/// 32 rows and columns of a product: as many steps of a panel from either side.
pub(crate) struct Square<'a> {
    left: &'a [u32],
    right: &'a [u32],
    y: *mut f32,
    y_stride: usize,
    /// Where the sums begin, and how far its rows are apart (0 for one row that serves all); nowhere, with zeros.
    from: Option<(*const f32, usize)>,
}

impl Product<'_> {
    fn run(&self, large: Range<usize>, small: Range<usize>, by_rows: bool) {
        let _tiles = (self.path == Path::Amx).then(amx::Tiles::configure);
        let n_steps = self.left.n_steps();
        let most = n_steps.div_ceil(n_steps.div_ceil(MOST_STEPS));
        for start in (0..n_steps).step_by(most) {
            let steps = start..(start + most).min(n_steps);
            for at in large.clone() {
                for small_at in small.clone() {
                    let (row, column) = if by_rows { (at, small_at) } else { (small_at, at) };
                    self.square(row, column, &steps);
                }
            }
        }
    }

    #[expect(unsafe_code, reason = "threads write into one y")]
    fn square(&self, row: usize, column: usize, steps: &Range<usize>) {
        let from = if steps.start > 0 { Sums::Y } else { self.from };
        let (left, right) = (self.left.panel(row, steps), self.right.panel(column, steps));
        let (row, column) = (row * PANEL, column * PANEL);
        let n_rows = PANEL.min(self.left.outer - row);
        let n_columns = PANEL.min(self.right.outer - column);
        let y_stride = self.right.outer;
        // SAFETY: (row, column) is an element of y.
        let y = unsafe { self.y.add(row * y_stride + column) };
        if n_rows == PANEL && n_columns == PANEL {
            let from = match from {
                Sums::Zeros => None,
                Sums::Y => Some((y.cast_const(), y_stride)),
                Sums::Row(all) => Some((all[column..][..PANEL].as_ptr(), 0)),
            };
            self.multiply(&Square { left, right, y, y_stride, from });
            return;
        }
        let mut scratch = [0f32; PANEL * PANEL];
        let y_row = |r: usize| {
            // SAFETY: n_rows rows of n_columns lie inside y, and this thread alone has them.
            unsafe { std::slice::from_raw_parts_mut(y.add(r * y_stride), n_columns) }
        };
        for (r, to) in scratch.chunks_exact_mut(PANEL).take(n_rows).enumerate() {
            match from {
                Sums::Zeros => {}
                Sums::Y => to[..n_columns].copy_from_slice(y_row(r)),
                Sums::Row(all) => to[..n_columns].copy_from_slice(&all[column..][..n_columns]),
            }
        }
        let (y, y_stride) = (scratch.as_mut_ptr(), PANEL);
        let from = Some((y.cast_const(), y_stride));
        self.multiply(&Square { left, right, y, y_stride, from });
        for (r, row) in scratch.chunks_exact(PANEL).take(n_rows).enumerate() {
            y_row(r).copy_from_slice(&row[..n_columns]);
        }
    }

    #[expect(unsafe_code, reason = "instructions that not every processor has")]
    fn multiply(&self, square: &Square) {
        // SAFETY: 32 rows of 32 lie at `square.y`, for this thread alone, and at `square.from`; a path is taken only where it is there, and `run`
        // has configured AMX's tiles.
        unsafe {
            match self.path {
                Path::Amx => amx::multiply(square),
                Path::Avx512 => avx512::multiply(square),
                Path::Portable => portable::multiply(square),
            }
        }
    }
}

#[cfg(test)]
mod tests;
