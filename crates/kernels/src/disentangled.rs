//! The terms of a relation from its parameters, and the parameters' gradients from the terms': the part of disentangled
//! attention that is done once a batch, on the rows of the table that the batch's distances read.

use candle_core::Result;

use crate::affine::{Affine, column_sums};
use crate::buffers::Buffer;
use crate::dropout::mask_block;
use crate::fused::hand_over;
use crate::host::host;
use crate::layer_norm::{norm_rows, norm_rows_backward};
use crate::matmul::{Onto, View};
use crate::relation::{Disentangled, Distances, Relation};
use crate::relative::{Along, Bias, ByDistance, Sums, Terms, fold};
use crate::residual_norm::Norm;
use crate::{Dropout, Precision};

/// Keys and queries of the rows that a batch's distances read, (R, C) each.
#[derive(Clone)]
pub(crate) struct Projected {
    keys: Option<Buffer>,
    queries: Option<Buffer>,
}

/// What the terms of a batch are made by.
#[derive(Clone, Copy)]
pub(crate) struct Related {
    /// T.
    pub width: usize,
    pub c: usize,
    pub heads: usize,
    pub eps: f64,
    pub dropped: Option<Dropout>,
    pub precision: Precision,
}

impl Relation {
    pub(crate) fn project(&self, how: Related) -> Result<Projected> {
        let Relation::Disentangled(terms) = self else {
            return Ok(Projected { keys: None, queries: None });
        };
        let distances = Distances::within(how.width, terms.buckets);
        let rows = terms.embedded(&distances, how)?;
        let view = View::rows_of(distances.n_rows, how.c);
        let left = how.precision.left(&rows, view);
        let of = |affine: &Affine| affine.forward(how.precision, &left, distances.n_rows);
        Ok(Projected {
            keys: terms.key.as_ref().map(of).transpose()?,
            queries: terms.query.as_ref().map(of).transpose()?,
        })
    }

    pub(crate) fn terms(&self, projected: &Projected, how: Related) -> Result<Terms> {
        let heads = how.heads;
        match self {
            Relation::None => Ok(Terms::default()),
            Relation::Bias(bias) => {
                let distances = Distances::within(how.width, bias.buckets);
                let values = Bias::new(&host(&bias.table)?, &distances, heads, bias_scale(how));
                Ok(Terms { bias: Some(values), ..Terms::default() })
            }
            Relation::Disentangled(terms) => {
                let distances = Distances::within(how.width, terms.buckets);
                let of = |rows: &Option<Buffer>, along| {
                    rows.as_ref().map(|rows| ByDistance::new(rows, &distances, heads, along))
                };
                let keys = of(&projected.keys, Along::Rows);
                let queries = of(&projected.queries, Along::Columns);
                Ok(Terms { bias: None, keys, queries })
            }
        }
    }

    /// Hands over the gradients of all parameters; `sums` of groups of texts, in their order.
    pub(crate) fn backward(&self, sums: &[Sums], how: Related) -> Result<()> {
        match self {
            Relation::None => Ok(()),
            Relation::Bias(bias) if !bias.table.is_variable() => Ok(()),
            Relation::Bias(bias) => {
                let distances = Distances::within(how.width, bias.buckets);
                let groups: Vec<&Buffer> = sums.iter().filter_map(|s| s.bias.as_ref()).collect();
                let mut table = Buffer::of(bias.table.elem_count());
                table.fill(0.0);
                Bias::fold(&groups, &distances, how.heads, bias_scale(how), &mut table);
                hand_over(&bias.table, table)
            }
            Relation::Disentangled(terms) => terms.backward(sums, how),
        }
    }
}

/// What scores with a bias are multiplied by.
fn bias_scale(how: Related) -> f32 {
    1.0 / ((how.c / how.heads) as f32).sqrt()
}

impl Disentangled {
    /// The rows that are read after norm and dropout, (R, C).
    fn embedded(&self, distances: &Distances, how: Related) -> Result<Buffer> {
        let table = host(&self.table)?;
        let rows = &table[distances.first * how.c..][..distances.n_rows * how.c];
        let mut normed = Buffer::of(rows.len());
        match &self.norm {
            Some(norm) => {
                let (weight, bias) = (host(&norm.weight)?, host(&norm.bias)?);
                let norm = Norm { weight: &weight, bias: &bias, eps: how.eps as f32 };
                norm_rows(rows, norm, &mut normed);
            }
            None => normed.copy_from_slice(rows),
        }
        Ok(dropped(normed, distances, how))
    }

    /// With E the rows that are read, M∘norm(E) = x: dW = dkeysᵀ·x and so on, dx = dkeys·W + dqueries·W', dE from the norm.
    fn backward(&self, sums: &[Sums], how: Related) -> Result<()> {
        let distances = Distances::within(how.width, self.buckets);
        let x = self.embedded(&distances, how)?;
        let view = View::rows_of(distances.n_rows, how.c);
        let right = how.precision.right(&x, view);
        let mut dx = Buffer::of(x.len());
        dx.fill(0.0);
        let keys = (&self.key, Along::Rows, sums.iter().filter_map(|s| s.keys.as_ref()).collect());
        let queries =
            (&self.query, Along::Columns, sums.iter().filter_map(|s| s.queries.as_ref()).collect());
        for (affine, along, groups) in [keys, queries] {
            let groups: Vec<&Buffer> = groups;
            let Some(affine) = affine else { continue };
            let dy = fold(&groups, &distances, how.heads, how.c, along);
            affine.hand_over(how.precision, &dy, &right, &column_sums(&dy, how.c))?;
            if self.has_trained_rows() {
                affine.input_gradient(
                    how.precision,
                    &how.precision.left(&dy, view),
                    Onto::Add,
                    &mut dx,
                )?;
            }
        }
        if !self.has_trained_rows() {
            return Ok(());
        }
        let dx = dropped(dx, &distances, how);
        let first = distances.first * how.c;
        let rows = first..first + dx.len();
        let de = match &self.norm {
            Some(norm) => {
                let (table, weight) = (host(&self.table)?, host(&norm.weight)?);
                let mut de = Buffer::of(dx.len());
                let sums =
                    norm_rows_backward(&table[rows.clone()], &weight, &dx, how.eps as f32, &mut de);
                norm.hand_over_norm(&sums)?;
                de
            }
            None => dx,
        };
        if self.table.is_variable() {
            let mut table = Buffer::of(self.table.elem_count());
            table.fill(0.0);
            table[rows].copy_from_slice(&de);
            hand_over(&self.table, table)?;
        }
        Ok(())
    }

    /// Whether anything below the projections is trained.
    fn has_trained_rows(&self) -> bool {
        let of_norm = self.norm.iter().flat_map(|norm| [&norm.weight, &norm.bias]);
        of_norm.chain([&self.table]).any(|parameter| parameter.is_variable())
    }
}

/// Dropout counts by an element's place in the whole table, so that it doesn't depend on the batch.
fn dropped(x: Buffer, distances: &Distances, how: Related) -> Buffer {
    let Some(dropped) = how.dropped.filter(|dropped| dropped.p > 0.0) else { return x };
    let mut y = Buffer::of(x.len());
    mask_block(&x, dropped, (distances.first * how.c) as u32, &mut y);
    y
}
