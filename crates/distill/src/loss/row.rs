//! A method's loss for one row: which terms, with which weights. The terms are in `term.rs`, `divergence.rs` and `bi_tempered.rs`.

use lowchurn_data::first_largest;

use super::bi_tempered::bi_tempered;
use super::divergence::{
    decoupled, inhibition, jensen_shannon, kl, logit_mse, reverse_kl, soft_cross_entropy,
    standardised,
};
use super::term::{Term, cross_entropy, entropy, smoothed};
use crate::{Divergence, Focus, Method, TeacherRows};

/// One row and what it is held against. Indices are checked before.
pub struct Row<'a> {
    /// (K,)
    pub logits: &'a [f64],
    pub label: Option<usize>,
    /// (K,), or empty for 1 each.
    pub class_weight: &'a [f64],
    pub label_smoothing: f64,
    pub lambda: f64,
    /// The teacher's logits (K,), and which classes it knows (K,).
    pub teacher: Option<(&'a [f64], &'a [bool])>,
    pub is_old: bool,
    /// Mixup: the partner's label, and the share that this row keeps.
    pub partner: Option<(usize, f64)>,
}

/// The row's loss under a method. λ weights the teacher, 1 − λ the label; a row without label has the teacher's term alone, weighted λ as ever.
pub fn row_loss(method: &Method, row: &Row) -> Term {
    let label = labelled(row);
    match *method {
        Method::Distil { temperature, divergence, rows, .. } => match known(row) {
            Some(known) if is_followed(rows, row, &known) => {
                let term = diverged(divergence, temperature, &known);
                blend(row.lambda, label, known.spread(term))
            }
            _ => label,
        },
        Method::Anchor { .. } => match known(row) {
            Some(known) if known.is_right() => anchored(row.lambda, label, &known),
            _ => label,
        },
        Method::AnchorRcp { eta, is_smoothed, .. } => match known(row) {
            Some(known) if known.is_right() => anchored(row.lambda, label, &known),
            Some(_) if is_smoothed => {
                let uniform = vec![1.0 / row.logits.len() as f64; row.logits.len()];
                blend(row.lambda, label, cross_entropy(row.logits, &uniform)).times(eta)
            }
            Some(_) => label.times(eta),
            None => label,
        },
        Method::Focal { temperature, alpha, beta, focus, .. } => match known(row) {
            Some(known) => {
                let weight = if is_in_focus(focus, row, &known) { alpha + beta } else { alpha };
                let term = kl(&known.student, &known.teacher, temperature).times(weight);
                blend(row.lambda, label, known.spread(term))
            }
            None => label,
        },
        Method::Inhibition { margin, power, .. } => match known(row) {
            Some(known) => {
                let term = inhibition(&known.student, &known.teacher, margin, power);
                blend(row.lambda, label, known.spread(term))
            }
            None => label,
        },
        Method::KnnSmoothing { .. } => match known(row) {
            Some(known) => anchored(row.lambda, label, &known),
            None => label,
        },
        Method::Mixup { .. } => match row.partner {
            Some((partner, share)) => {
                let other = Row { label: Some(partner), ..*row };
                label.times(share).plus(&labelled(&other).times(1.0 - share))
            }
            None => label,
        },
        Method::BiTempered { t1, t2 } => match row.label {
            Some(y) => {
                let target = smoothed(y, row.logits.len(), row.label_smoothing);
                bi_tempered(row.logits, &target, t1, t2).times(weight_of(row, y))
            }
            None => label,
        },
        Method::ConfidencePenalty { beta } => label.plus(&entropy(row.logits).times(-beta)),
        Method::EntropyMinimisation { alpha } => blend(alpha, label, entropy(row.logits)),
        Method::Retrain
        | Method::CoDistil { .. }
        | Method::ShrinkPerturb { .. }
        | Method::L2ToOld { .. }
        | Method::Ewc { .. }
        | Method::Mixout { .. }
        | Method::TaskAgnostic => label,
    }
}

pub fn predicted(logits: &[f64]) -> usize {
    first_largest(logits.len(), |class| logits[class])
}

/// CE to the smoothed label, times the weight of its class; nothing where there is no label.
pub fn labelled(row: &Row) -> Term {
    let classes = row.logits.len();
    match row.label {
        Some(label) => {
            let target = smoothed(label, classes, row.label_smoothing);
            match row.class_weight.is_empty() {
                true => cross_entropy(row.logits, &target),
                false => cross_entropy(row.logits, &target).times(weight_of(row, label)),
            }
        }
        None => Term::zero(classes),
    }
}

fn weight_of(row: &Row, label: usize) -> f64 {
    row.class_weight.get(label).copied().unwrap_or(1.0)
}

/// (1 − λ)·a + λ·b.
fn blend(lambda: f64, a: Term, b: Term) -> Term {
    a.times(1.0 - lambda).plus(&b.times(lambda))
}

/// Student and teacher among the classes that the teacher knows.
pub struct Known {
    pub student: Vec<f64>,
    pub teacher: Vec<f64>,
    /// The label's place among them.
    label: Option<usize>,
    /// Their places among all.
    pub classes: Vec<usize>,
    n_classes: usize,
}

/// `None` where the teacher has nothing to say: there is none, it knows no class, or the row's label is a class new to it.
pub fn known(row: &Row) -> Option<Known> {
    let (teacher, is_known) = row.teacher?;
    let classes: Vec<usize> = (0..row.logits.len()).filter(|&k| is_known[k]).collect();
    let label = match row.label {
        Some(label) => Some(classes.iter().position(|&k| k == label)?),
        None => None,
    };
    if classes.is_empty() {
        return None;
    }
    let among = |logits: &[f64]| classes.iter().map(|&k| logits[k]).collect();
    let (student, teacher) = (among(row.logits), among(teacher));
    Some(Known { student, teacher, label, classes, n_classes: row.logits.len() })
}

impl Known {
    fn is_right(&self) -> bool {
        self.label.is_none_or(|label| predicted(&self.teacher) == label)
    }

    /// The term with a gradient over all classes; those unknown to the teacher get none.
    pub fn spread(&self, term: Term) -> Term {
        let mut gradient = vec![0.0; self.n_classes];
        for (&k, g) in self.classes.iter().zip(term.gradient) {
            gradient[k] = g;
        }
        Term { value: term.value, gradient }
    }
}

/// The target λ·teacher + (1 − λ)·label as two terms. They are the same loss, to the value, as CE is linear in its target; and in two
/// the teacher's can be held against the classes that it knows.
fn anchored(lambda: f64, label: Term, known: &Known) -> Term {
    blend(lambda, label, known.spread(soft_cross_entropy(&known.student, &known.teacher)))
}

fn diverged(divergence: Divergence, temperature: f64, known: &Known) -> Term {
    let (student, teacher) = (&known.student[..], &known.teacher[..]);
    match divergence {
        Divergence::Kl => kl(student, teacher, temperature),
        Divergence::ReverseKl => reverse_kl(student, teacher, temperature),
        Divergence::JensenShannon => jensen_shannon(student, teacher, temperature),
        Divergence::LogitMse => logit_mse(student, teacher),
        Divergence::MixedLabel => soft_cross_entropy(student, teacher),
        Divergence::Standardised => standardised(student, teacher, temperature),
        Divergence::Decoupled => {
            let target = known.label.unwrap_or_else(|| predicted(teacher));
            decoupled(student, teacher, temperature, target)
        }
    }
}

/// A row without label is always followed: it has nothing else to learn from.
fn is_followed(rows: TeacherRows, row: &Row, known: &Known) -> bool {
    let Some(label) = known.label else { return true };
    let surprise = |logits: &[f64]| -super::term::log_softmax(logits, 1.0)[label];
    match rows {
        TeacherRows::All => true,
        TeacherRows::Better => surprise(&known.teacher) < surprise(&known.student),
        TeacherRows::Old => row.is_old,
    }
}

/// A row without label is in no focus but that of all rows.
fn is_in_focus(focus: Focus, row: &Row, known: &Known) -> bool {
    let Some(label) = row.label else { return focus == Focus::All };
    let (is_old_right, is_new_right) = (known.is_right(), predicted(row.logits) == label);
    match focus {
        Focus::All => true,
        Focus::OldRight => is_old_right,
        Focus::NewWrong => !is_new_right,
        Focus::NegativeFlip => is_old_right && !is_new_right,
    }
}
