//! Terms of distance in attention's scores, a text and a head at a time, forwards and backwards.
//!
//! A strip of 16 tokens meets n + 15 distances in a text of n. Side by side, its products with what stands for them are rows of
//! scores, each one place further than the row before; products with other distances are never made.

use rayon::prelude::*;

use crate::buffers::Buffer;
use crate::lanes::wide;
use crate::matmul::Onto;
use crate::relation::Distances;
use crate::small::{LANES, Strided, padded, small_onto, transpose};

/// What is added to the scores of a batch T wide, by distance, of which there are W = 2·T − 1.
#[derive(Default)]
pub(crate) struct Terms {
    pub bias: Option<Bias>,
    /// For products with each query.
    pub keys: Option<ByDistance>,
    /// For products with each key.
    pub queries: Option<ByDistance>,
}

/// The gradients of [`Terms`] by distance, from some texts.
pub(crate) struct Sums {
    pub bias: Option<Buffer>,    // (H, W+)
    pub keys: Option<Buffer>,    // (H, W, D+)
    pub queries: Option<Buffer>, // (H, W, D+)
}

/// A number for each head and distance, to be added before scores are multiplied by their scale.
pub(crate) struct Bias {
    values: Buffer, // (H, W+)
    t: usize,
}

/// D channels for each head and distance.
pub(crate) struct ByDistance {
    along: Along,
    right: Buffer,  // (H, W, D+), to be multiplied from the right
    across: Buffer, // (H, D, W+), and a vector more
    d: usize,
    t: usize,
}

/// Which tokens the products of a term are made with, and so where a strip of them lies in the scores.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Along {
    /// Queries; distances go from −(T − 1) up.
    Rows,
    /// Keys; distances go from T − 1 down.
    Columns,
}

/// Room for a strip.
pub(crate) struct Strips {
    strip: Buffer,    // (16, (T + 15)+)
    block: Buffer,    // (16, T+) or (T, 16)
    pub rows: Buffer, // (n, D+) a head's queries or keys
}

/// Some tokens of a text of n and the distances that they have to all of it.
#[derive(Clone, Copy)]
struct Strip {
    start: usize,
    m: usize,
    /// Where its distances begin among those of the batch.
    first: usize,
    n_distances: usize,
}

fn strips(n: usize, t: usize) -> impl Iterator<Item = Strip> {
    (0..n).step_by(LANES).map(move |start| {
        let m = LANES.min(n - start);
        Strip { start, m, first: t - start - m, n_distances: n - 1 + m }
    })
}

/// Numbers in a row of [`Bias`]: a text's last row of scores reads whole vectors.
fn bias_row(t: usize) -> usize {
    padded(2 * t - 1) + LANES
}

impl Terms {
    pub fn is_empty(&self) -> bool {
        self.bias.is_none() && self.keys.is_none() && self.queries.is_none()
    }

    /// Products that make up a score, that of query and key included.
    pub fn n_products(&self) -> usize {
        1 + usize::from(self.keys.is_some()) + usize::from(self.queries.is_some())
    }

    pub fn strips(&self, t: usize, d: usize) -> Strips {
        let t = if self.keys.is_some() || self.queries.is_some() { t } else { 0 };
        Strips {
            strip: Buffer::of(LANES * padded(t + LANES - 1)),
            block: Buffer::of(LANES * padded(t)),
            rows: Buffer::of(t * padded(d)),
        }
    }

    /// Sums over no texts.
    pub fn sums(&self) -> Sums {
        let zeros = |n: usize| {
            let mut sums = Buffer::of(n);
            sums.fill(0.0);
            sums
        };
        let like = |terms: &ByDistance| zeros(terms.right.len());
        Sums {
            bias: self.bias.as_ref().map(|bias| zeros(bias.values.len())),
            keys: self.keys.as_ref().map(like),
            queries: self.queries.as_ref().map(like),
        }
    }

    /// Adds all terms to the scores `p` (n, n+) of head h, of which q and k (n, D) are the queries and keys.
    pub fn add_scores(
        &self,
        h: usize,
        n: usize,
        q: Strided,
        k: Strided,
        s: &mut Strips,
        p: &mut [f32],
    ) {
        if let Some(bias) = &self.bias {
            let row = bias_row(bias.t);
            // The last query's row of distances, and before it one place further for each query.
            add_shifted(p, &bias.values[h * row + bias.t - n..], n, 0, padded(n));
        }
        if let Some(keys) = &self.keys {
            keys.add_scores(h, n, q, s, p);
        }
        if let Some(queries) = &self.queries {
            queries.add_scores(h, n, k, s, p);
        }
    }
}

impl Bias {
    /// From a table (R, H) whose numbers belong to scores after their scale.
    pub fn new(table: &[f32], distances: &Distances, heads: usize, scale: f32) -> Bias {
        let t = distances.row_of.len().div_ceil(2);
        let row = bias_row(t);
        let mut values = Buffer::of(heads * row);
        for (h, values) in values.chunks_exact_mut(row).enumerate() {
            let (values, rest) = values.split_at_mut(distances.row_of.len());
            for (value, at) in values.iter_mut().zip(&distances.row_of) {
                *value = table[(distances.first + at) * heads + h] / scale;
            }
            rest.fill(0.0);
        }
        Bias { values, t }
    }

    /// Adds the gradient of the scores `ds` (n, n+) of head h to `sums`.
    pub fn backward(&self, h: usize, n: usize, ds: &[f32], sums: &mut [f32]) {
        let sums = &mut sums[h * bias_row(self.t)..];
        for (query, ds) in ds.chunks_exact(padded(n)).take(n).enumerate() {
            let sums = &mut sums[self.t - 1 - query..][..n];
            sums.iter_mut().zip(ds).for_each(|(sum, ds)| *sum += ds);
        }
    }

    /// The gradient of the table's rows (R, H), group after group.
    pub fn fold(
        groups: &[&Buffer],
        distances: &Distances,
        heads: usize,
        scale: f32,
        table: &mut [f32],
    ) {
        let row = bias_row(distances.row_of.len().div_ceil(2));
        for (at, &of_table) in distances.row_of.iter().enumerate() {
            let table = &mut table[(distances.first + of_table) * heads..][..heads];
            for (h, sum) in table.iter_mut().enumerate() {
                groups.iter().for_each(|group| *sum += group[h * row + at]);
            }
        }
        table.iter_mut().for_each(|sum| *sum /= scale);
    }
}

impl ByDistance {
    /// From the rows (R, C) that the distances read.
    pub fn new(rows: &[f32], distances: &Distances, heads: usize, along: Along) -> ByDistance {
        let c = rows.len() / distances.n_rows;
        let (w, d) = (distances.row_of.len(), c / heads);
        let (wide, long) = (padded(d), padded(w));
        let (mut right, mut across) =
            (Buffer::of(heads * w * wide), Buffer::of(heads * d * long + LANES));
        across[heads * d * long..].fill(0.0);
        let of_heads = right.par_chunks_mut(w * wide).zip(across.par_chunks_mut(d * long));
        of_heads.enumerate().for_each(|(h, (right, across))| {
            for (at, to) in right.chunks_exact_mut(wide).enumerate() {
                let row = distances.row_of[along.at(at, w)];
                to[..d].copy_from_slice(&rows[row * c + h * d..][..d]);
                to[d..].fill(0.0);
            }
            transpose(right, wide, w, d, across);
        });
        ByDistance { along, right, across, d, t: w.div_ceil(2) }
    }

    /// W.
    fn w(&self) -> usize {
        2 * self.t - 1
    }

    /// Adds x_r·term(distance) to each score, x (n, D) the queries or keys of head h.
    fn add_scores(&self, h: usize, n: usize, x: Strided, s: &mut Strips, p: &mut [f32]) {
        let (long, row) = (padded(n), padded(self.w()));
        for Strip { start, m, first, n_distances } in strips(n, self.t) {
            let wide = padded(n_distances);
            let x = Strided { x: &x.x[start * x.row..], ..x };
            let across = &self.across[h * self.d * row + first..];
            small_onto(&mut s.strip, Onto::Overwrite, x, across, row, [m, self.d, wide]);
            match self.along {
                Along::Rows => add_shifted(&mut p[start * long..], &s.strip, m, wide, long),
                Along::Columns => {
                    // Rows that are shifted by one each are rows that lie one closer.
                    transpose(&s.strip[m - 1..m * wide], wide - 1, m, n, &mut s.block);
                    add_columns(&mut p[start..], &s.block, n, long);
                }
            }
        }
    }

    /// From the gradient of the scores `ds` (n, n+): adds that of the tokens whose products these are to `dx` (n, D+), and that
    /// of the terms to `sums`; `s.rows` holds the tokens.
    pub fn backward(
        &self,
        h: usize,
        n: usize,
        ds: &[f32],
        s: &mut Strips,
        dx: &mut [f32],
        sums: &mut [f32],
    ) {
        let (long, deep) = (padded(n), padded(self.d));
        let Strips { strip, block, rows } = s;
        for Strip { start, m, first, n_distances } in strips(n, self.t) {
            let wide = padded(n_distances);
            let ds = match self.along {
                Along::Rows => &ds[start * long..],
                Along::Columns => {
                    transpose(&ds[start..], long, n, m, block);
                    &block[..]
                }
            };
            let strip = &mut strip[..m * wide];
            strip.fill(0.0);
            for (row, ds) in ds.chunks_exact(long).take(m).enumerate() {
                strip[row * wide + m - 1 - row..][..n].copy_from_slice(&ds[..n]);
            }
            let at = (h * self.w() + first) * deep;
            let of_tokens = Strided { x: strip, row: wide, column: 1 };
            let of_terms = Strided { x: strip, row: 1, column: wide };
            let terms = &self.right[at..];
            let (dx, tokens) = (&mut dx[start * deep..], &rows[start * deep..]);
            small_onto(dx, Onto::Add, of_tokens, terms, deep, [m, n_distances, deep]);
            small_onto(&mut sums[at..], Onto::Add, of_terms, tokens, deep, [n_distances, m, deep]);
        }
    }
}

/// The gradient of the rows (R, C) that distances read: distance after distance, group after group.
pub(crate) fn fold(
    groups: &[&Buffer],
    distances: &Distances,
    heads: usize,
    c: usize,
    along: Along,
) -> Buffer {
    let (w, d) = (distances.row_of.len(), c / heads);
    let wide = padded(d);
    let mut rows = Buffer::of(distances.n_rows * c);
    rows.par_chunks_mut(c).enumerate().for_each(|(row, to)| {
        to.fill(0.0);
        let at = distances.row_of.iter().enumerate().filter(|(_, of)| **of == row);
        for at in at.map(|(at, _)| along.at(at, w)) {
            for (h, to) in to.chunks_exact_mut(d).enumerate() {
                for group in groups {
                    let from = &group[(h * w + at) * wide..][..d];
                    to.iter_mut().zip(from).for_each(|(sum, x)| *sum += x);
                }
            }
        }
    });
    rows
}

impl Along {
    /// Place of a distance in this order, and back.
    fn at(self, at: usize, w: usize) -> usize {
        match self {
            Along::Rows => at,
            Along::Columns => w - 1 - at,
        }
    }
}

wide! {
/// Adds to row r of m, `long` apart, the numbers from place r·wide + m − 1 − r on, whole vectors of them.
fn add_shifted(p: &mut [f32], strip: &[f32], m: usize, wide: usize, long: usize) {
    for (row, p) in p.chunks_exact_mut(long).take(m).enumerate() {
        let from = &strip[row * wide + m - 1 - row..][..long];
        for (p, from) in p.as_chunks_mut::<LANES>().0.iter_mut().zip(from.as_chunks::<LANES>().0) {
            for lane in 0..LANES {
                p[lane] += from[lane];
            }
        }
    }
}
}

wide! {
/// Adds a vector of `block` to the first of each of n rows.
fn add_columns(p: &mut [f32], block: &[f32], n: usize, long: usize) {
    for (p, from) in p.chunks_mut(long).zip(block.as_chunks::<LANES>().0).take(n) {
        for (p, from) in p.iter_mut().zip(from) {
            *p += from;
        }
    }
}
}
