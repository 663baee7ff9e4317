//! Rounds to bf16 and lays out in tiles.

use rayon::prelude::*;

use super::{DEPTH, PANEL, Rounding, SIDE, STEP, Side, TILE, avx512};
use crate::lanes::wide;
use crate::matmul::View;

/// Panels of one task: where x lies across, they share its cache lines and pages.
const PANELS: usize = 2;

/// A tile's words as they come out of x: in rows where I has stride 1, in pairs of I where the other dimension has it.
pub type Tile = [[u32; SIDE]; SIDE];

/// What of x goes into one tile.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    /// From the tile's first element on.
    pub x: &'a [f32],
    /// Elements between neighbours in the direction without stride 1.
    pub stride: usize,
    /// Valid rows or columns of the panel.
    pub n_outer: usize,
    /// Valid elements of I.
    pub n_inner: usize,
}

/// `view` is (outer, I). All of `words` is written.
pub fn pack(words: &mut [u32], x: &[f32], view: View, side: Side, rounding: Rounding) {
    let n_steps = view.columns.div_ceil(DEPTH);
    let is_along = view.column_stride == 1;
    let stride = if is_along { view.row_stride } else { view.column_stride };
    words.par_chunks_mut(PANELS * n_steps * STEP).enumerate().for_each(|(task, panels)| {
        for step in 0..n_steps {
            for at in 0..2 * panels.len() / (n_steps * STEP) {
                let word = (at / 2 * n_steps + step) * STEP + at % 2 * TILE;
                let (tile, _) = panels[word..][..TILE].as_chunks_mut::<SIDE>();
                let Some(tile) = tile.first_chunk_mut::<SIDE>() else { continue };
                let (outer, inner) = (task * PANELS * PANEL + at * SIDE, step * DEPTH);
                let n_outer = SIDE.min(view.rows.saturating_sub(outer));
                let n_inner = DEPTH.min(view.columns - inner);
                let start = view.start + outer * view.row_stride + inner * view.column_stride;
                let part = Part { x: x.get(start..).unwrap_or(&[]), stride, n_outer, n_inner };
                let is_turned = is_along != (side == Side::Left);
                match rounding {
                    Rounding::Avx512 => avx512::convert(tile, part, is_along, is_turned),
                    Rounding::Portable => convert(tile, part, is_along, is_turned),
                }
            }
        }
    });
}

wide! {
fn convert(tile: &mut Tile, part: Part<'_>, is_along: bool, is_turned: bool) {
    let at = |outer: usize, inner: usize| {
        if outer >= part.n_outer || inner >= part.n_inner {
            0
        } else if is_along {
            rounded(part.x[outer * part.stride + inner])
        } else {
            rounded(part.x[inner * part.stride + outer])
        }
    };
    for (row, words) in tile.iter_mut().enumerate() {
        for (column, word) in words.iter_mut().enumerate() {
            let (outer, pair) = if is_along != is_turned { (row, column) } else { (column, row) };
            *word = at(outer, 2 * pair) | at(outer, 2 * pair + 1) << 16;
        }
    }
}
}

/// The nearest bf16, the even one of two equally near; NaN stays NaN, and what is below 2⁻¹²⁶ becomes a zero of its sign.
#[inline(always)]
pub fn rounded(x: f32) -> u32 {
    let bits = x.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        bits >> 16 | 0x40
    } else if magnitude < 0x0080_0000 {
        bits >> 16 & 0x8000
    } else {
        (bits + 0x7fff + (bits >> 16 & 1)) >> 16
    }
}
