//! Losses on logits. Each returns one number a row; the division is the step's.
//!
//! Logits are few, B·K numbers, so a loss and its gradient are worked out on the host in f64, each row by itself with the formulas of
//! `loss/*.rs`, and come back to the device as one tensor: no chain of small tensor operations, and no f32 cancellation in T²·KL.

mod bi_tempered;
mod divergence;
mod kinds;
pub(crate) mod row;
pub(crate) mod shaped;
pub(crate) mod term;

use candle_core::{D, DType, Device, Tensor};
use lowchurn_data::Targets;
use lowchurn_kernels::log_softmax;

use crate::{Error, Method, Result};
use kinds::{Sided, set_loss, value_loss};
use row::{Row, labelled};
use shaped::shaped_row_loss;
use term::Term;

pub use shaped::Shape;

/// What the rows of one batch are held against.
#[derive(Clone, Copy)]
pub struct Against<'a> {
    /// (B,); `None` is unlabelled: only the teacher's term counts.
    pub labels: &'a [Option<u32>],
    /// (B,) What the rows are trained to, where that isn't one class.
    pub targets: &'a Targets,
    /// (K,) What the label's term of a row of each class is multiplied by, in multi-label tasks that of a label that holds;
    /// empty: 1. The divisor stays the number of rows, whatever the weights.
    pub class_weight: &'a [f64],
    /// As `one_hot`'s, in every method's label term.
    pub label_smoothing: f64,
    /// λ in this update.
    pub lambda: f64,
    pub teacher: Option<TeacherLogits<'a>>,
    /// (B,) whether the old model was trained on the row; where the method asks for it.
    pub is_old: Option<&'a [bool]>,
    /// Mixup: each row's partner in the batch, and the share that the row itself keeps. (B,), (B,)
    pub mix: Option<(&'a [u32], &'a [f32])>,
}

/// The teacher's logits for the rows of one batch.
#[derive(Clone, Copy)]
pub struct TeacherLogits<'a> {
    /// (B·K), in the student's label order; of an unknown class anything.
    pub logits: &'a [f32],
    /// (K,) whether the teacher knows the class. The others are left out of its term: there the student's softmax is over the known ones.
    pub known: &'a [bool],
}

/// Loss of each row, (B, K) → (B,), with a graph.
///
/// With a teacher: (1 − λ)·CE(label) + λ·the teacher's term, in which T² is contained. A row that doesn't follow the teacher, and one
/// whose label the teacher doesn't know, has its CE with weight 1. Formulas with sources: `Method`, `Divergence` and `loss/*.rs`.
/// What pulls on weights instead of logits isn't here.
pub fn row_losses(method: &Method, logits: &Tensor, against: &Against) -> Result<Tensor> {
    shaped_losses(method, logits, against, &Shape::Plain)
}

/// [`row_losses`] as an objective shapes them; of one class a row.
pub fn shaped_losses(
    method: &Method,
    logits: &Tensor,
    against: &Against,
    shape: &Shape,
) -> Result<Tensor> {
    let (b, k) = logits.dims2()?;
    check(method, against, b, k)?;
    let students = on_host(logits)?;
    let teachers: Vec<f64> = against
        .teacher
        .map(|t| t.logits.iter().map(|&z| f64::from(z)).collect())
        .unwrap_or_default();
    let terms: Vec<Term> = (0..b)
        .map(|at| {
            let row = row_of(against, &students, &teachers, at, k);
            match against.targets {
                Targets::OneClass => shaped_row_loss(method, &row, shape),
                Targets::Sets(sets) => set_loss(method, &sided(&row), sets[at].as_deref()),
                Targets::Values(values) => {
                    value_loss(method, &sided(&row), values[at].map(f64::from))
                }
            }
        })
        .collect();
    let values = on_device(terms.iter().map(|term| term.value), logits.device())?; // (B,)
    let gradient = terms.iter().flat_map(|term| &term.gradient).copied();
    Ok((values + pull(logits, gradient)?)?)
}

/// Losses of two students on the same rows: CE each + β·(KL(p₁ ‖ p₂) + KL(p₂ ‖ p₁)), both pulled (Bhojanapalli et al. 2021, co-distillation).
/// (B, K), (B, K) → (B,)
pub fn co_distil_rows(a: &Tensor, b: &Tensor, against: &Against, beta: f64) -> Result<Tensor> {
    let (n, k) = a.dims2()?;
    check_length("the second student's rows", b.dim(0)?, n)?;
    check_length("the second student's classes", b.dim(1)?, k)?;
    let against = &Against { teacher: None, ..*against };
    check(&Method::CoDistil { beta, warmup: 0 }, against, n, k)?;
    let (one, two) = (on_host(a)?, on_host(b)?);
    let terms: Vec<(Term, Term)> = (0..n)
        .map(|at| {
            let (one, two) = (row_of(against, &one, &[], at, k), row_of(against, &two, &[], at, k));
            let of_student = |this: &Row, other: &Row| {
                let to = divergence::reverse_kl(this.logits, other.logits, 1.0).times(beta);
                let from = divergence::kl(this.logits, other.logits, 1.0).times(beta);
                // Both move this student; the second's value is counted with the other student.
                labelled(this).plus(&to).plus(&Term { value: 0.0, ..from })
            };
            (of_student(&one, &two), of_student(&two, &one))
        })
        .collect();
    let values = on_device(terms.iter().map(|(one, two)| one.value + two.value), a.device())?; // (B,)
    let of_one = terms.iter().flat_map(|(one, _)| &one.gradient).copied();
    let of_two = terms.iter().flat_map(|(_, two)| &two.gradient).copied();
    Ok(((values + pull(a, of_one)?)? + pull(b, of_two)?)?)
}

/// Row `at` of a batch; `check` has seen the lengths.
fn row_of<'a>(
    against: &Against<'a>,
    students: &'a [f64],
    teachers: &'a [f64],
    at: usize,
    k: usize,
) -> Row<'a> {
    let of_row = at * k..(at + 1) * k;
    let partner = |(partners, shares): (&[u32], &[f32])| {
        let label = against.labels[partners[at] as usize]?;
        Some((label as usize, f64::from(shares[at])))
    };
    Row {
        logits: &students[of_row.clone()],
        label: against.labels[at].map(|label| label as usize),
        class_weight: against.class_weight,
        label_smoothing: against.label_smoothing,
        lambda: against.lambda,
        teacher: against.teacher.map(|teacher| (&teachers[of_row], teacher.known)),
        is_old: against.is_old.is_some_and(|is_old| is_old[at]),
        partner: against.mix.and_then(partner),
    }
}

/// A row without what only one class a row has.
fn sided<'a>(row: &Row<'a>) -> Sided<'a> {
    Sided {
        logits: row.logits,
        lambda: row.lambda,
        teacher: row.teacher,
        is_old: row.is_old,
        weights: row.class_weight,
    }
}

/// Lengths, labels and whether everything is there that the method uses.
fn check(method: &Method, against: &Against, b: usize, k: usize) -> Result<()> {
    let needs = method.needs();
    let missing = [
        (needs.teacher && against.teacher.is_none(), "a teacher"),
        (needs.old_rows && against.is_old.is_none(), "to know which rows the old model has seen"),
        (matches!(method, Method::Mixup { .. }) && against.mix.is_none(), "a partner for each row"),
    ];
    if let Some((_, what)) = missing.into_iter().find(|(is_missing, _)| *is_missing) {
        return Err(Error::MethodNeeds { method: method.name(), what });
    }
    method.check_kind(against.targets.kind()).map_err(|reason| Error::Method { reason })?;
    check_length("labels", against.labels.len(), b)?;
    check_targets(against, b, k)?;
    for (row, label) in against.labels.iter().enumerate() {
        match *label {
            Some(label) if label as usize >= k => {
                return Err(Error::LabelIndex { row, label, classes: k });
            }
            None if !needs.teacher && !needs.states => {
                return Err(Error::Unlabelled { id: format!("{row} of its batch") });
            }
            _ => {}
        }
    }
    if let Some(teacher) = against.teacher {
        check_length("the teacher's logits", teacher.logits.len(), b * k)?;
        check_length("the classes that the teacher may know", teacher.known.len(), k)?;
    }
    if let Some(is_old) = against.is_old {
        check_length("marks of old rows", is_old.len(), b)?;
    }
    if let Some((partners, shares)) = against.mix {
        check_length("mixup's partners", partners.len(), b)?;
        check_length("mixup's shares", shares.len(), b)?;
        let last = partners.iter().max().map_or(0, |&partner| partner as usize + 1);
        check_length("rows that partners point at", b.max(last), b)?;
    }
    Ok(())
}

fn check_targets(against: &Against, b: usize, k: usize) -> Result<()> {
    if !against.class_weight.is_empty() {
        check_length("class weights", against.class_weight.len(), k)?;
    }
    match against.targets {
        Targets::OneClass => Ok(()),
        Targets::Values(values) => {
            check_length("numbers to learn", values.len(), b)?;
            check_length("outputs of a regression", k, 1)
        }
        Targets::Sets(sets) => {
            check_length("sets of labels", sets.len(), b)?;
            let labels = |row: usize| sets[row].iter().flatten().map(move |label| (row, *label));
            match (0..b).flat_map(labels).find(|(_, label)| *label as usize >= k) {
                Some((row, label)) => Err(Error::LabelIndex { row, label, classes: k }),
                None => Ok(()),
            }
        }
    }
}

fn check_length(what: &str, found: usize, expected: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::Method { reason: format!("{what}: {found}, expected {expected}") })
}

fn on_host(logits: &Tensor) -> Result<Vec<f64>> {
    let flat = logits.detach().to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?; // waits for the device
    Ok(flat.into_iter().map(f64::from).collect())
}

/// (B,) zeros whose gradient with respect to the logits (B, K) is the given one: Σₖ logits·gradient, less its own value.
fn pull(logits: &Tensor, gradient: impl Iterator<Item = f64>) -> Result<Tensor> {
    let gradient: Vec<f32> = gradient.map(|g| g as f32).collect();
    let gradient = Tensor::from_vec(gradient, logits.shape(), logits.device())?; // (B, K)
    let sum = (logits.to_dtype(DType::F32)? * gradient)?.sum(D::Minus1)?; // (B,)
    Ok((&sum - sum.detach())?)
}

fn on_device(values: impl Iterator<Item = f64>, device: &Device) -> Result<Tensor> {
    let values: Vec<f32> = values.map(|value| value as f32).collect();
    let n = values.len();
    Ok(Tensor::from_vec(values, n, device)?)
}

/// −Σₖ target·log softmax(logits), per row. Shapes (B, K), (B, K) → (B,).
///
/// Targets are distributions: one-hot, smoothed, or a teacher's.
pub fn cross_entropy_rows(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let log_p = log_softmax(logits)?; // (B, K)
    Ok((log_p * targets)?.sum(D::Minus1)?.neg()?)
}

/// 1 − s on the label and s/K on every class, as in transformers and PyTorch (Szegedy et al., 1512.00567, section 7).
/// Shapes (B,) → (B, K).
pub fn one_hot(labels: &[u32], classes: usize, smoothing: f64, device: &Device) -> Result<Tensor> {
    let low = smoothing / classes as f64;
    let mut targets = vec![low as f32; labels.len() * classes];
    for (row, &label) in targets.chunks_exact_mut(classes).zip(labels) {
        if let Some(target) = row.get_mut(label as usize) {
            *target = (1.0 - smoothing + low) as f32;
        }
    }
    Ok(Tensor::from_vec(targets, (labels.len(), classes), device)?.to_dtype(DType::F32)?)
}

#[cfg(test)]
mod tests {
    mod golden;
    mod gradients;
    mod identities;
    mod kinds;
    mod shaped;
    mod tensors;

    use super::*;
    use candle_core::Var;

    /// A batch in f64; the lambda of the update, as that of a method is a schedule.
    #[derive(Clone, Default)]
    struct Case {
        students: Vec<Vec<f64>>,
        /// As many rows, or none.
        teachers: Vec<Vec<f64>>,
        labels: Vec<Option<u32>>,
        smoothing: f64,
        lambda: f64,
        /// Empty: all.
        known: Vec<bool>,
        is_old: Vec<bool>,
        mix: Option<(Vec<u32>, Vec<f32>)>,
    }

    /// Loss of each row and its gradient, through the public function and candle's backward pass.
    fn losses(method: &str, case: &Case) -> (Vec<f64>, Vec<Vec<f64>>) {
        let method: Method = method.parse().unwrap();
        let logits = var(&case.students);
        let rows = try_losses(&method, logits.as_tensor(), case).unwrap();
        let grads = rows.sum_all().unwrap().backward().unwrap();
        (numbers(&rows).remove(0), numbers(grads.get(&logits).unwrap()))
    }

    fn try_losses(method: &Method, logits: &Tensor, case: &Case) -> Result<Tensor> {
        let flat: Vec<f32> = case.teachers.iter().flatten().map(|&z| z as f32).collect();
        let known = match case.known.is_empty() {
            true => vec![true; logits.dim(1)?],
            false => case.known.clone(),
        };
        let against = Against {
            labels: &case.labels,
            targets: &Targets::OneClass,
            class_weight: &[],
            label_smoothing: case.smoothing,
            lambda: case.lambda,
            teacher: match flat.is_empty() {
                true => None,
                false => Some(TeacherLogits { logits: &flat, known: &known }),
            },
            is_old: Some(&case.is_old[..]).filter(|is_old| !is_old.is_empty()),
            mix: case.mix.as_ref().map(|(partner, share)| (&partner[..], &share[..])),
        };
        row_losses(method, logits, &against)
    }

    fn var(rows: &[Vec<f64>]) -> Var {
        let flat: Vec<f32> = rows.iter().flatten().map(|&z| z as f32).collect();
        Var::from_vec(flat, (rows.len(), rows[0].len()), &Device::Cpu).unwrap()
    }

    /// As rows; a vector is one row.
    fn numbers(tensor: &Tensor) -> Vec<Vec<f64>> {
        let tensor = if tensor.rank() == 1 { tensor.unsqueeze(0).unwrap() } else { tensor.clone() };
        tensor.to_dtype(DType::F64).unwrap().to_vec2().unwrap()
    }

    /// Relative to the number, or absolute below 1.
    fn assert_close(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
        assert_eq!(found.len(), expected.len(), "{what}");
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{what}: {found:?} {expected:?}");
        }
    }

    #[derive(serde::Deserialize)]
    struct Torch {
        loss: String,
        #[serde(default)]
        labels: Vec<serde_json::Value>,
        #[serde(default)]
        label_smoothing: f64,
        logits: Vec<Vec<f64>>,
        rows: Vec<f64>,
        mean_gradient: Vec<Vec<f64>>,
    }

    /// tests/golden/make.py, from PyTorch in f64.
    #[test]
    fn equals_pytorch() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/losses.json");
        let cases: Vec<Torch> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let mut n_checked = 0;
        for case in cases.iter().filter(|case| case.loss == "cross_entropy") {
            let (n, k) = (case.logits.len(), case.logits[0].len());
            let logits: Vec<f32> = case.logits.iter().flatten().map(|&x| x as f32).collect();
            let logits = Var::from_vec(logits, (n, k), &Device::Cpu).unwrap();
            let labels: Vec<u32> =
                case.labels.iter().map(|label| label.as_u64().unwrap() as u32).collect();
            let targets = one_hot(&labels, k, case.label_smoothing, &Device::Cpu).unwrap();
            let rows = cross_entropy_rows(&logits, &targets).unwrap();
            let grads = rows.mean_all().unwrap().backward().unwrap();
            let close = |a: f32, b: f64| (f64::from(a) - b).abs() < 2e-6 * (1.0 + b.abs());
            for (a, &b) in rows.to_vec1::<f32>().unwrap().iter().zip(&case.rows) {
                assert!(close(*a, b), "{a} {b}");
            }
            let grad = grads.get(&logits).unwrap().to_vec2::<f32>().unwrap();
            for (a, &b) in grad.iter().flatten().zip(case.mean_gradient.iter().flatten()) {
                assert!(close(*a, b), "{a} {b}");
            }
            n_checked += 1;
        }
        assert!(n_checked >= 2);
    }
}
