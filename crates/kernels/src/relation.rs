//! What a score has besides the product of its query and key: terms of the distance between the two tokens. Which distances
//! share a row of a table is here as well; no arithmetic on scores is.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor, bail};

use crate::{
    Affine, AttentionDropout, Dropout, Precision, Sequences, composed, dropout, layer_norm, linear,
};

/// The form of attention's terms of distance.
#[derive(Clone, Debug, Default)]
pub enum Relation {
    #[default]
    None,
    Bias(RelativeBias),
    Disentangled(Disentangled),
}

/// A number for each head and bucket of distances, added to the scaled score: qᵢ·kⱼ/√D + table[bucket(j − i), h].
/// Raffel et al., 1910.10683, section 2.1; MPNet, Song et al., 2004.09297. One table may serve several layers.
#[derive(Clone, Debug)]
pub struct RelativeBias {
    pub table: Tensor, // (R, H)
    pub buckets: Buckets,
}

/// Disentangled attention: with e the table's row for j − i after its norm and dropout, the score is
/// (qᵢ·kⱼ + qᵢ·key(e) + query(e)·kⱼ)/√(D·(1 + terms)), terms counting those of the last two that are there.
/// He et al., 2006.03654, section 3.2, and 2111.09543, section 3. One table and one norm serve all layers.
#[derive(Clone, Debug)]
pub struct Disentangled {
    pub table: Tensor, // (2·span, C)
    /// Of the table's rows; its eps is that of the layer's own norm.
    pub norm: Option<Affine>, // (C,)
    /// Content to position, C → C. Layers that share it with their keys have the same variables here.
    pub key: Option<Affine>,
    /// Position to content, C → C; likewise with their queries.
    pub query: Option<Affine>,
    pub buckets: Buckets,
}

/// Distance j − i of a key j from its query i → row of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buckets {
    /// Half of the rows for keys ahead, half for the others: a quarter for single distances, a quarter for ever larger steps
    /// up to `farthest`. T5's, which MPNet has with 32 rows up to 128.
    BothSides { rows: usize, farthest: usize },
    /// Row span − (j − i), from 0 to 2·span − 1; beyond span/2, where `farthest` is given, ever larger steps that reach the span
    /// at that distance. DeBERTa's.
    Centred { span: usize, farthest: Option<usize> },
}

impl Buckets {
    /// Rows of the table.
    pub fn rows(self) -> usize {
        match self {
            Buckets::BothSides { rows, .. } => rows,
            Buckets::Centred { span, .. } => span.saturating_mul(2),
        }
    }

    /// The row for a distance. The logarithms are taken in f32 as in the originals, whose rounding decides at a step's edge.
    pub fn row(self, distance: i64) -> usize {
        let far = distance.unsigned_abs() as usize;
        match self {
            Buckets::BothSides { rows, farthest } => {
                let half = rows / 2;
                let exact = half / 2;
                let side = if distance > 0 { half } else { 0 };
                if far < exact {
                    return side + far;
                }
                let steps = (half - exact) as f32;
                let scale = (farthest as f64 / exact as f64).ln() as f32;
                let beyond = ((far as f32 / exact as f32).ln() / scale * steps) as usize;
                side + (exact + beyond).min(half - 1)
            }
            Buckets::Centred { span, farthest } => {
                let middle = span / 2;
                let bucket = match farthest.filter(|_| far > middle) {
                    Some(farthest) => {
                        let scale = ((farthest - 1) as f64 / middle as f64) as f32;
                        let share = (far as f32 / middle as f32).ln() / scale.ln();
                        (share * (middle - 1) as f32).ceil() as usize + middle
                    }
                    None => far,
                };
                let row = if distance > 0 { span.saturating_sub(bucket) } else { span + bucket };
                row.min(2 * span - 1)
            }
        }
    }

    /// Whether every distance has a row.
    pub fn check(self) -> Result<()> {
        let is_sound = match self {
            Buckets::BothSides { rows, farthest } => {
                rows >= 4 && rows.is_multiple_of(2) && farthest > rows / 4
            }
            Buckets::Centred { span, farthest: None } => span >= 1,
            Buckets::Centred { span, farthest: Some(farthest) } => {
                span >= 2 && farthest > span / 2 + 1
            }
        };
        if !is_sound {
            bail!("buckets of distances: {self:?}");
        }
        Ok(())
    }

    /// The rows for all pairs of T tokens, (T·T,), query after query.
    pub(crate) fn of_pairs(self, t: usize, device: &Device) -> Result<Tensor> {
        let t = t as i64;
        let rows = (0..t).flat_map(|i| (0..t).map(move |j| self.row(j - i) as u32));
        Tensor::from_iter(rows, device)
    }
}

/// The rows that a batch's distances read, of which there are W = 2·T − 1.
pub(crate) struct Distances {
    /// The lowest row.
    pub first: usize,
    /// From there on, those between included.
    pub n_rows: usize,
    /// (W,) for each distance, from −(T − 1) to T − 1, its row less the first.
    pub row_of: Vec<usize>,
}

impl Distances {
    pub fn within(t: usize, buckets: Buckets) -> Distances {
        let most = t as i64 - 1;
        let mut row_of: Vec<usize> = (-most..=most).map(|distance| buckets.row(distance)).collect();
        let first = row_of.iter().copied().min().unwrap_or(0);
        row_of.iter_mut().for_each(|row| *row -= first);
        let n_rows = row_of.iter().copied().max().map_or(0, |last| last + 1);
        Distances { first, n_rows, row_of }
    }
}

impl Relation {
    pub(crate) fn parameters(&self) -> Vec<&Tensor> {
        match self {
            Relation::None => Vec::new(),
            Relation::Bias(bias) => vec![&bias.table],
            Relation::Disentangled(terms) => {
                let affine = [&terms.norm, &terms.key, &terms.query].into_iter().flatten();
                let of_affine = affine.flat_map(|affine| [&affine.weight, &affine.bias]);
                std::iter::once(&terms.table).chain(of_affine).collect()
            }
        }
    }

    /// Whether the parameters fit each other, rows of c channels, and H heads.
    pub(crate) fn check(&self, c: usize, heads: usize) -> Result<()> {
        let (table, buckets, columns) = match self {
            Relation::None => return Ok(()),
            Relation::Bias(bias) => (&bias.table, bias.buckets, heads),
            Relation::Disentangled(terms) => (&terms.table, terms.buckets, c),
        };
        buckets.check()?;
        if table.dims() != [buckets.rows(), columns] {
            bail!("relation: a table {:?} for {columns} columns of {buckets:?}", table.dims());
        }
        let Relation::Disentangled(Disentangled { norm, key, query, .. }) = self else {
            return Ok(());
        };
        for linear in [key, query].into_iter().flatten() {
            if linear.dims()? != (c, c) {
                bail!("relation: {c} channels through {:?}", linear.weight.dims());
            }
        }
        if let Some(norm) = norm
            && (norm.weight.dims() != [c] || norm.bias.dims() != [c])
        {
            bail!("relation: {c} channels and a norm of {:?}", norm.weight.dims());
        }
        Ok(())
    }

    /// Attention with these terms from smaller operations: (N, C) each → (N, C).
    #[expect(clippy::too_many_arguments, reason = "three operands, and how")]
    pub(crate) fn in_parts(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        sequences: &Arc<Sequences>,
        heads: usize,
        eps: f64,
        dropped: AttentionDropout,
        precision: Precision,
    ) -> Result<Tensor> {
        let of_probabilities = dropped.probabilities.filter(|dropped| dropped.p > 0.0);
        match self {
            Relation::None => crate::attention(q, k, v, sequences, heads, of_probabilities),
            Relation::Bias(bias) => {
                composed::attention_with_bias(q, k, v, sequences, heads, bias, of_probabilities)
            }
            Relation::Disentangled(terms) => {
                let buckets = terms.buckets;
                let (keys, queries) = terms.in_parts(eps, dropped.relation, precision)?;
                let terms = [keys.as_ref(), queries.as_ref()];
                composed::disentangled_attention(
                    q,
                    k,
                    v,
                    sequences,
                    heads,
                    terms,
                    buckets,
                    of_probabilities,
                )
            }
        }
    }
}

impl Disentangled {
    /// Keys and queries of all rows of the table, (2·span, C) each.
    fn in_parts(
        &self,
        eps: f64,
        dropped: Option<Dropout>,
        precision: Precision,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let rows = match &self.norm {
            Some(norm) => layer_norm(&self.table, &norm.weight, &norm.bias, eps)?,
            None => self.table.clone(),
        };
        let rows = match dropped {
            Some(dropped) => dropout(&rows, dropped)?,
            None => rows,
        };
        let of = |affine: &Affine| linear(&rows, &affine.weight, Some(&affine.bias), precision);
        Ok((self.key.as_ref().map(of).transpose()?, self.query.as_ref().map(of).transpose()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row that two signs of one distance share is the middle one alone.
    #[test]
    fn rows_of_near_distances() {
        let centred = Buckets::Centred { span: 8, farthest: None };
        assert_eq!(
            [-9, -8, -7, -1, 0, 1, 7, 8, 9].map(|d| centred.row(d)),
            [15, 15, 15, 9, 8, 7, 1, 0, 0]
        );
        let sides = Buckets::BothSides { rows: 32, farthest: 128 };
        assert_eq!([-8, -7, -1, 0, 1, 7, 8].map(|d| sides.row(d)), [8, 7, 1, 0, 17, 23, 24]);
        assert_eq!([-5000, 5000].map(|d| sides.row(d)), [15, 31]);
    }

    #[test]
    fn rows_of_a_batch() {
        let distances = Distances::within(3, Buckets::Centred { span: 8, farthest: Some(16) });
        assert_eq!((distances.first, distances.n_rows), (6, 5));
        assert_eq!(distances.row_of, [4, 3, 2, 1, 0]);
        let one = Distances::within(1, Buckets::Centred { span: 8, farthest: None });
        assert_eq!((one.first, one.n_rows, one.row_of), (8, 1, vec![0]));
    }

    #[test]
    fn buckets_that_cannot_be() {
        for buckets in [
            Buckets::BothSides { rows: 3, farthest: 128 },
            Buckets::BothSides { rows: 32, farthest: 8 },
            Buckets::Centred { span: 0, farthest: None },
            Buckets::Centred { span: 1, farthest: Some(64) },
            Buckets::Centred { span: 8, farthest: Some(5) },
        ] {
            let error = buckets.check().unwrap_err().to_string();
            assert!(error.contains("buckets of distances"), "{error}");
        }
    }
}
