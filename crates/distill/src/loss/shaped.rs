//! What an objective does to a row's loss: margins between classes, weights of classes, or less trust in the teacher.

use super::divergence::weighted_kl;
use super::row::{Row, known, labelled, row_loss};
use super::term::Term;
use crate::Method;

/// The same for all rows of an update.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Shape {
    #[default]
    Plain,
    /// (K,) log c, taken from the logits inside the loss and nowhere else: the minimum of CE(p, softmax(z − log c)) is at
    /// softmax(z) ∝ c·p, so that a class with a large gain is lowered here and raised by the fit (papers.md §7.4).
    Margins(Vec<f64>),
    /// (K,) c: the loss is Σ c_y·p_y·CE(y) over the target's classes.
    Classes(Vec<f64>),
    /// (G,) c: the loss of a row of group g is multiplied by c_g. That is the step's to do, which knows the groups.
    Groups(Vec<f64>),
    /// (K,) λ of the rows of each class is multiplied by this.
    Trust(Vec<f64>),
}

/// [`row_loss`] of a shape, for the methods that [`crate::Objective::check`] lets through.
pub fn shaped_row_loss(method: &Method, row: &Row, shape: &Shape) -> Term {
    match shape {
        Shape::Plain | Shape::Groups(_) => row_loss(method, row),
        Shape::Margins(log_gains) => {
            // The shift doesn't depend on the logits, so the gradient is that of the shifted ones.
            let shifted: Vec<f64> =
                row.logits.iter().zip(log_gains).map(|(z, log)| z - log).collect();
            row_loss(method, &Row { logits: &shifted, ..*row })
        }
        Shape::Trust(trust) => {
            let lambda = row.lambda * row.label.map_or(1.0, |label| trust[label]);
            row_loss(method, &Row { lambda, ..*row })
        }
        Shape::Classes(gains) => {
            let label = labelled(row).times(row.label.map_or(1.0, |label| gains[label]));
            match (*method, known(row)) {
                (Method::Distil { temperature, .. }, Some(known)) => {
                    let gains: Vec<f64> = known.classes.iter().map(|&k| gains[k]).collect();
                    let told = weighted_kl(&known.student, &known.teacher, &gains, temperature);
                    label.times(1.0 - row.lambda).plus(&known.spread(told).times(row.lambda))
                }
                _ => label,
            }
        }
    }
}
