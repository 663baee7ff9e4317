//! A parameter's gradient: whole, or only those rows of a table that a batch read. The rows of a vocabulary that a batch
//! leaves out are most of it, and their zeros would be written, read for the norm, and read again for the update.

use candle_core::{Device, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::adamw::{squares, squares_block, sum_of_squares};
use crate::buffers::Buffer;
use crate::host::{BLOCK, host, is_fused};
use crate::lanes::{LANES, sum_of_pairs, total, wide};

/// A parameter's gradient.
#[derive(Clone, Debug)]
pub enum Gradient {
    Whole(Tensor),
    /// In f32 on the host, in memory that comes back with the next step.
    Host(Host),
    Rows(Rows),
}

/// All of a parameter's gradient.
#[derive(Clone, Debug)]
pub struct Host {
    values: Buffer,
    shape: Shape,
    /// Σ g², made while the numbers were still in a cache.
    squares: f64,
}

/// Rows of a table's gradient, in f32 on the host; all others are zero.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Sorted, distinct and below V.
    ids: Vec<u32>,
    /// (n, C), none of them −0: so they add up to what the table's own numbers would.
    values: Vec<f32>,
    /// (V, C) of the table.
    shape: (usize, usize),
}

impl Gradient {
    /// The sum of two gradients of one parameter. Rows and rows stay rows, and every number is that of the whole tensors.
    /// Other shapes are an error.
    pub fn plus(self, other: Gradient) -> Result<Gradient> {
        match (self, other) {
            (Gradient::Rows(a), Gradient::Rows(b)) => Ok(Gradient::Rows(a.plus(&b)?)),
            (Gradient::Host(a), Gradient::Host(b)) => Ok(Gradient::Host(a.plus(&b)?)),
            (a, b) => Ok(Gradient::Whole((a.to_tensor()? + b.to_tensor()?)?)),
        }
    }

    /// Σ g² in a fixed order: the same bytes for rows as for the tensor that they stand for, and for any number of threads.
    pub fn sum_of_squares(&self) -> Result<f64> {
        match self {
            Gradient::Whole(tensor) => sum_of_squares(tensor),
            Gradient::Host(host) => Ok(host.squares),
            Gradient::Rows(rows) => Ok(rows.sum_of_squares()),
        }
    }

    /// Σ a·b with another gradient of the same parameter, in a fixed order.
    pub fn dot(&self, other: &Gradient) -> Result<f64> {
        match (self, other) {
            (Gradient::Host(a), Gradient::Host(b)) if a.shape == b.shape => {
                Ok(products(&a.values, &b.values))
            }
            (Gradient::Rows(a), Gradient::Rows(b)) if a.shape == b.shape => Ok(a.dot(b)),
            (a, b) => dot_of_tensors(&a.to_tensor()?, &b.to_tensor()?),
        }
    }

    /// Whether there is nothing but zeros. Not by the sum of squares, where small numbers underflow.
    pub fn is_zero(&self) -> Result<bool> {
        match self {
            Gradient::Whole(tensor) => {
                Ok(tensor.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()? == 0.0)
            }
            Gradient::Host(host) => Ok(host.values.iter().all(|&x| x == 0.0)),
            Gradient::Rows(rows) => Ok(rows.values.iter().all(|&x| x == 0.0)),
        }
    }

    /// As long as the parameter; the very tensor where it is whole.
    pub fn to_tensor(&self) -> Result<Tensor> {
        match self {
            Gradient::Whole(tensor) => Ok(tensor.clone()),
            Gradient::Host(host) => Tensor::from_slice(&host.values, &host.shape, &Device::Cpu),
            Gradient::Rows(rows) => rows.to_tensor(),
        }
    }
}

impl Host {
    pub(crate) fn new(values: Buffer, shape: &Shape) -> Host {
        debug_assert!(values.len() == shape.elem_count());
        let squares = squares(&values);
        Host { values, shape: shape.clone(), squares }
    }

    pub fn values(&self) -> &[f32] {
        &self.values
    }

    pub fn dims(&self) -> &[usize] {
        self.shape.dims()
    }

    fn plus(mut self, other: &Host) -> Result<Host> {
        if self.shape != other.shape {
            bail!("gradients of a parameter: {:?} and {:?}", self.shape, other.shape);
        }
        let blocks = self.values.par_chunks_mut(BLOCK).zip(other.values.par_chunks(BLOCK));
        // The squares of a block while it is in a cache; the sums are those of `squares`.
        let sums: Vec<f32> = blocks
            .map(|(sum, x)| {
                sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
                squares_block(sum)
            })
            .collect();
        self.squares = sums.into_iter().map(f64::from).sum();
        Ok(self)
    }
}

impl Rows {
    /// `ids` sorted, distinct and below V; `values` (n, C) without −0.
    pub(crate) fn new(ids: Vec<u32>, values: Vec<f32>, shape: (usize, usize)) -> Rows {
        debug_assert!(ids.is_sorted_by(|a, b| a < b) && values.len() == ids.len() * shape.1);
        Rows { ids, values, shape }
    }

    /// Sorted and distinct.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// (V, C) of the table.
    pub fn shape(&self) -> (usize, usize) {
        self.shape
    }

    /// Each row (C,) with its id, in the order of ids.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[f32])> {
        self.ids.iter().copied().zip(self.values.chunks_exact(self.shape.1.max(1)))
    }

    /// A merge by id.
    fn plus(&self, other: &Rows) -> Result<Rows> {
        if self.shape != other.shape {
            bail!("gradients of a table: {:?} and {:?}", self.shape, other.shape);
        }
        let (mut ids, mut values) = (Vec::new(), Vec::new());
        let (mut a, mut b) = (self.iter().peekable(), other.iter().peekable());
        loop {
            let order = match (a.peek(), b.peek()) {
                (None, None) => return Ok(Rows { ids, values, shape: self.shape }),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((a, _)), Some((b, _))) => a.cmp(b),
            };
            let (from_a, from_b) = (
                order.is_le().then(|| a.next()).flatten(),
                order.is_ge().then(|| b.next()).flatten(),
            );
            match (from_a, from_b) {
                (Some((id, a)), Some((_, b))) => {
                    ids.push(id);
                    values.extend(a.iter().zip(b).map(|(a, b)| a + b));
                }
                (Some((id, row)), None) | (None, Some((id, row))) => {
                    ids.push(id);
                    values.extend_from_slice(row);
                }
                (None, None) => {}
            }
        }
    }

    /// The blocks and lanes are those of the whole tensor, where zeros change no sum.
    fn sum_of_squares(&self) -> f64 {
        let c = self.shape.1;
        let (mut sum, mut block, mut lanes) = (0f64, 0, [0f32; LANES]);
        for (id, mut row) in self.iter() {
            let mut at = id as usize * c;
            while !row.is_empty() {
                if at / BLOCK != block {
                    sum += f64::from(total(lanes));
                    (block, lanes) = (at / BLOCK, [0.0; LANES]);
                }
                let (piece, rest) = row.split_at(row.len().min(BLOCK - at % BLOCK));
                add_squares(&mut lanes, at % LANES, piece);
                (row, at) = (rest, at + piece.len());
            }
        }
        sum + f64::from(total(lanes))
    }

    /// Over the rows that both have; all others are zero in one of them.
    fn dot(&self, other: &Rows) -> f64 {
        let mut theirs = other.iter().peekable();
        let of_row = |(id, row): (u32, &[f32])| {
            while theirs.next_if(|(other, _)| *other < id).is_some() {}
            theirs.next_if(|(other, _)| *other == id).map_or(0.0, |(_, other)| products(row, other))
        };
        self.iter().map(of_row).sum()
    }

    pub fn to_tensor(&self) -> Result<Tensor> {
        let (v, c) = self.shape;
        let mut whole = vec![0f32; v * c];
        for (id, row) in self.iter() {
            whole[id as usize * c..][..c].copy_from_slice(row);
        }
        Tensor::from_vec(whole, (v, c), &Device::Cpu)
    }
}

fn dot_of_tensors(a: &Tensor, b: &Tensor) -> Result<f64> {
    if a.shape() != b.shape() {
        bail!("gradients of a parameter: {:?} and {:?}", a.shape(), b.shape());
    }
    if !is_fused(a) {
        return Ok(f64::from((a.detach() * b.detach())?.sum_all()?.to_scalar::<f32>()?));
    }
    let (a, b) = (a.contiguous()?, b.contiguous()?);
    Ok(products(&host(&a)?, &host(&b)?))
}

/// Σ a·b: f32 inside a block, f64 across blocks.
fn products(a: &[f32], b: &[f32]) -> f64 {
    let blocks: Vec<f32> =
        a.par_chunks(BLOCK).zip(b.par_chunks(BLOCK)).map(|(a, b)| products_block(a, b)).collect();
    blocks.into_iter().map(f64::from).sum()
}

wide! {
fn products_block(a: &[f32], b: &[f32]) -> f32 {
    sum_of_pairs(a, b, |a, b| a * b)
}
}

wide! {
/// Adds x² to the lanes, the first of them to `lane`.
fn add_squares(lanes: &mut [f32; LANES], lane: usize, x: &[f32]) {
    let (head, x) = x.split_at(x.len().min((LANES - lane) % LANES));
    head.iter().zip(&mut lanes[lane..]).for_each(|(x, sum)| *sum += x * x);
    let (whole, tail) = x.as_chunks::<LANES>();
    for chunk in whole {
        lanes.iter_mut().zip(chunk).for_each(|(sum, x)| *sum += x * x);
    }
    tail.iter().zip(lanes).for_each(|(x, sum)| *sum += x * x);
}
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A table's gradient from (id, row) pairs in any order.
    fn rows(v: usize, c: usize, picked: &[(u32, Vec<f32>)]) -> Rows {
        let sorted: std::collections::BTreeMap<_, _> =
            picked.iter().map(|(id, row)| (id % v as u32, &row[..c])).collect();
        let values = sorted.values().flat_map(|row| row.iter().copied()).collect();
        Rows::new(sorted.into_keys().collect(), values, (v, c))
    }

    fn bits(x: &Gradient) -> Vec<u32> {
        let flat = x.to_tensor().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        flat.iter().map(|x| x.to_bits()).collect()
    }

    /// Rows around the borders of blocks, with C that divides a block and C that doesn't.
    fn picked() -> impl Strategy<Value = Vec<(u32, Vec<f32>)>> {
        let row = prop::collection::vec((-2f32..2.0).prop_map(|x| x + 0.0), 384);
        prop::collection::vec((any::<u32>(), row), 0..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn rows_are_the_table_that_they_stand_for(
            a in picked(), b in picked(), v in 1usize..200, c in prop::sample::select(vec![1usize, 7, 33, 384]),
        ) {
            let whole = |rows: &Rows| Gradient::Whole(rows.to_tensor().unwrap());
            let (a, b) = (rows(v, c, &a), rows(v, c, &b));
            let squares = Gradient::Rows(a.clone()).sum_of_squares().unwrap();
            prop_assert_eq!(squares.to_bits(), whole(&a).sum_of_squares().unwrap().to_bits());
            let slow = whole(&a).plus(whole(&b)).unwrap();
            let on_host = |rows: &Rows| {
                let flat = rows.to_tensor().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
                let mut values = Buffer::of(flat.len());
                values.copy_from_slice(&flat);
                Gradient::Host(Host::new(values, &rows.shape.into()))
            };
            prop_assert_eq!(squares.to_bits(), on_host(&a).sum_of_squares().unwrap().to_bits());
            let sum = on_host(&a).plus(on_host(&b)).unwrap();
            prop_assert_eq!(bits(&sum), bits(&slow));
            prop_assert_eq!(sum.sum_of_squares().unwrap().to_bits(), slow.sum_of_squares().unwrap().to_bits());
            prop_assert_eq!(bits(&on_host(&a).plus(Gradient::Rows(b.clone())).unwrap()), bits(&slow));
            let fast = Gradient::Rows(a.clone()).plus(Gradient::Rows(b.clone())).unwrap();
            prop_assert_eq!(bits(&fast), bits(&slow));
            let numbers = |rows: &Rows| rows.to_tensor().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let pairs: Vec<f64> = numbers(&a).iter().zip(&numbers(&b)).map(|(a, b)| f64::from(*a) * f64::from(*b)).collect();
            let (exact, size) = (pairs.iter().sum::<f64>(), pairs.iter().map(|x| x.abs()).sum::<f64>());
            let in_rows = Gradient::Rows(a.clone());
            for (one, other) in [
                (&in_rows, &Gradient::Rows(b.clone())), (&on_host(&a), &on_host(&b)), (&whole(&a), &whole(&b)), (&in_rows, &on_host(&b)),
            ] {
                // f32 inside a block: 16 lanes of at most 1024 numbers.
                prop_assert!((one.dot(other).unwrap() - exact).abs() <= 1e-4 * size);
            }
            let Gradient::Rows(sum) = fast else { return Err(TestCaseError::fail("rows became a tensor")) };
            prop_assert!(sum.ids.is_sorted_by(|a, b| a < b));
            prop_assert_eq!(bits(&Gradient::Rows(a).plus(whole(&b)).unwrap()), bits(&slow));
        }
    }

    #[test]
    fn zeros_are_told_from_little() {
        let check = |values: [f32; 2], expected| {
            let rows = Gradient::Rows(Rows::new(vec![3], values.to_vec(), (5, 2)));
            assert_eq!(rows.is_zero().unwrap(), expected);
            let whole = Gradient::Whole(rows.to_tensor().unwrap());
            assert_eq!(whole.is_zero().unwrap(), expected);
        };
        check([0.0, 0.0], true);
        check([0.0, -1e-30], false);
    }

    #[test]
    fn tables_of_two_shapes_do_not_add() {
        let rows = |shape| Gradient::Rows(Rows::new(vec![0], vec![1.0; 2], shape));
        assert!(rows((5, 2)).dot(&rows((6, 2))).is_err());
        let error = rows((5, 2)).plus(rows((6, 2))).unwrap_err();
        assert!(error.to_string().contains("(5, 2) and (6, 2)"), "{error}");
    }
}
