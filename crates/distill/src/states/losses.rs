//! The terms of a batch: states of student and teacher → one number a row.

use candle_core::{Result as TensorResult, Tensor};
use lowchurn_kernels::{Precision, linear};
use lowchurn_models::{Config, Params, States};

use super::known::{OfText, OnHost, in_parallel, known, put_in, single_rows, texts_of};
use super::relation::{attention_scores, dot, relation};
use super::{HIDDEN, StateTerms, VECTOR, VectorLoss, below, followed, kept};
use crate::{Error, Result};

/// What the losses of a batch are made from.
pub(crate) struct Followed<'f> {
    pub config: &'f Config,
    pub student: &'f States,
    /// The teacher's states of the same tokens, without a graph.
    pub teacher: Option<(&'f Config, &'f States)>,
    /// (B·C) the teacher's vectors of the same texts.
    pub vectors: Option<&'f [f32]>,
    pub projections: Option<&'f Params>,
}

impl StateTerms {
    /// Losses of the rows of a batch, weighted and added up. (B,)
    pub(crate) fn losses(&self, of: &Followed) -> Result<Tensor> {
        let mut terms: Vec<(f64, Tensor)> = Vec::new();
        if let Some((config, teacher)) = of.teacher {
            if self.hidden_weight > 0.0 {
                for at in 0..=of.config.layers {
                    let (ours, theirs) = (
                        kept(&of.student.hidden, at)?,
                        kept(&teacher.hidden, below(at, of.config, config))?,
                    );
                    let ours = projected(ours, HIDDEN, of.projections)?; // (N, C of the teacher)
                    let loss = mean_squares(&ours, theirs, &texts_of(&of.student.sequences))?;
                    terms.push((self.hidden_weight, loss));
                }
            }
            for at in self.layers_of_attention(of.config) {
                let (ours, theirs) = (
                    kept(&of.student.attention, at)?,
                    kept(&teacher.attention, followed(at, of.config, config))?,
                );
                let texts = texts_of(&of.student.sequences);
                if self.attention_weight > 0.0 {
                    let (q, k) = (OnHost::of(&ours.query, &texts)?, OnHost::of(&ours.key, &texts)?);
                    let (tq, tk) =
                        (OnHost::of(&theirs.query, &texts)?, OnHost::of(&theirs.key, &texts)?);
                    let heads = of.config.heads;
                    let found = in_parallel(texts.len(), |text| {
                        attention_scores(
                            (q.text(text), k.text(text)),
                            (tq.text(text), tk.text(text)),
                            heads,
                        )
                    });
                    let (of_queries, of_keys): (Vec<_>, Vec<_>) = found.into_iter().unzip();
                    terms.push((self.attention_weight, put_in(&ours.query, &texts, of_queries)?));
                    terms.push((self.attention_weight, put_in(&ours.key, &texts, of_keys)?));
                }
                if self.relation_weight > 0.0 && at + 1 == of.config.layers {
                    let heads = self.heads(config);
                    let pairs = [
                        (&ours.query, &theirs.query),
                        (&ours.key, &theirs.key),
                        (&ours.value, &theirs.value),
                    ];
                    for (ours, theirs) in pairs {
                        let (s, t) = (OnHost::of(ours, &texts)?, OnHost::of(theirs, &texts)?);
                        let loss = known(ours, &texts, |text| {
                            relation(s.text(text), t.text(text), heads)
                        })?;
                        terms.push((self.relation_weight / 3.0, loss));
                    }
                }
            }
        }
        if let Some(vectors) = of.vectors {
            let ours = self.student_vector.of(of.student, of.config.layers)?; // (B, C)
            let ours = projected(&ours, VECTOR, of.projections)?; // (B, C of the vectors)
            terms.push((self.vector_weight, self.vector_loss.rows(&ours, vectors)?));
        }
        let b = of.student.sequences.lengths().len();
        let mut sum = Tensor::zeros(b, candle_core::DType::F32, of.student.pooled.device())?;
        for (weight, term) in terms {
            sum = (sum + (term * weight)?)?;
        }
        Ok(sum)
    }
}

impl VectorLoss {
    /// Losses of vectors (B, C) against as many on the host, (B,).
    pub(crate) fn rows(self, ours: &Tensor, theirs: &[f32]) -> Result<Tensor> {
        let (b, c) = ours.dims2()?;
        if theirs.len() != b * c {
            let found = theirs.len();
            return Err(Error::States {
                reason: format!("{found} numbers of the teacher's vectors, expected {b} times {c}"),
            });
        }
        let texts = single_rows(b);
        let host = OnHost::of(ours, &texts)?;
        let loss = known(ours, &texts, |row| {
            let (a, b) = (host.text(row).x, &theirs[row * c..(row + 1) * c]);
            match self {
                VectorLoss::Cosine => cosine(a, b),
                VectorLoss::Mse => squares(a, b),
            }
        })?;
        Ok(loss)
    }
}

/// 1 − a·b/(‖a‖·‖b‖), by a. A vector of nothing is at a right angle to all and has no gradient.
fn cosine(a: &[f32], b: &[f32]) -> OfText {
    let (aa, bb, ab) = (f64::from(dot(a, a)), f64::from(dot(b, b)), f64::from(dot(a, b)));
    let norms = (aa * bb).sqrt();
    if norms == 0.0 {
        return OfText { value: 1.0, gradient: vec![0.0; a.len()] };
    }
    let cos = ab / norms;
    let by = |(&a, &b): (&f32, &f32)| (f64::from(a) * cos / aa - f64::from(b) / norms) as f32;
    OfText { value: 1.0 - cos, gradient: a.iter().zip(b).map(by).collect() }
}

/// The mean of (a − b)², by a.
fn squares(a: &[f32], b: &[f32]) -> OfText {
    let n = a.len().max(1) as f64;
    let mut value = 0.0;
    let gradient = a.iter().zip(b).map(|(&a, &b)| {
        let difference = f64::from(a) - f64::from(b);
        value += difference * difference;
        (2.0 * difference / n) as f32
    });
    let gradient = gradient.collect();
    OfText { value: value / n, gradient }
}

/// 1/(n·C)·Σ (ours − theirs)² of each text: (N, C), (N, C) → (B,).
pub(crate) fn mean_squares(
    ours: &Tensor,
    theirs: &Tensor,
    texts: &[(usize, usize)],
) -> Result<Tensor> {
    let (a, b) = (OnHost::of(ours, texts)?, OnHost::of(theirs, texts)?);
    Ok(known(ours, texts, |text| squares(a.text(text).x, b.text(text).x))?)
}

/// x·Wᵀ + b where there is such a projection, else x.
fn projected(x: &Tensor, name: &str, projections: Option<&Params>) -> TensorResult<Tensor> {
    let part = |part: &str| projections.and_then(|all| all.0.get(&format!("{name}.{part}")));
    match (part("weight"), part("bias")) {
        (Some(weight), Some(bias)) => linear(x, weight, Some(bias), Precision::F32),
        _ => Ok(x.clone()),
    }
}
