//! Losses on logits. Each returns one number a row; the division is the step's.
//!
//! Logits are few, B·K numbers, so a loss and its gradient are worked out on the host in f64, each row by itself with the formulas of
//! `loss/*.rs`, and come back to the device as one tensor: no chain of small tensor operations, and no f32 cancellation in T²·KL.

mod bi_tempered;
mod divergence;
mod row;
mod term;

use candle_core::{D, DType, Device, Tensor};
use lowchurn_kernels::log_softmax;

use crate::{Error, Method, Result};
use row::{Row, labelled, row_loss};
use term::Term;

/// What the rows of one batch are held against.
#[derive(Clone, Copy)]
pub struct Against<'a> {
    /// (B,); `None` is unlabelled: only the teacher's term counts.
    pub labels: &'a [Option<u32>],
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
            row_loss(method, &row)
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
    let (one, two) = (on_host(a)?, on_host(b)?);
    check_length("the second student's logits", two.len(), n * k)?;
    check(&Method::CoDistil { beta, warmup: 0 }, against, n, k)?;
    let terms: Vec<(Term, Term)> = (0..n)
        .map(|at| {
            let (one, two) = (row_of(against, &one, &[], at, k), row_of(against, &two, &[], at, k));
            let pull = |a: &Row, b: &Row| {
                // KL(pₐ ‖ p_b) goes into a's value and KL(p_b ‖ pₐ) into b's; the gradient of a has both.
                let to = divergence::reverse_kl(a.logits, b.logits, 1.0).times(beta);
                let from = divergence::kl(a.logits, b.logits, 1.0).times(beta);
                let both = to.clone().plus(&from);
                labelled(a).plus(&Term { value: to.value, gradient: both.gradient })
            };
            (pull(&one, &two), pull(&two, &one))
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
        label_smoothing: against.label_smoothing,
        lambda: against.lambda,
        teacher: against
            .teacher
            .filter(|_| !teachers.is_empty())
            .map(|t| (&teachers[of_row], t.known)),
        is_old: against.is_old.is_some_and(|is_old| is_old[at]),
        partner: against.mix.and_then(partner),
    }
}

/// Lengths, labels and whether everything is there that the method uses.
fn check(method: &Method, against: &Against, b: usize, k: usize) -> Result<()> {
    let needs = method.needs();
    check_length("labels", against.labels.len(), b)?;
    for (row, label) in against.labels.iter().enumerate() {
        match *label {
            Some(label) if label as usize >= k => {
                return Err(Error::LabelIndex { row, label, classes: k });
            }
            None if !needs.teacher => {
                return Err(Error::Unlabelled { id: format!("{row} of its batch") });
            }
            _ => {}
        }
    }
    if needs.teacher {
        let Some(teacher) = against.teacher else { return refused(method, "the teacher's logits") };
        check_length("the teacher's logits", teacher.logits.len(), b * k)?;
        check_length("the classes that the teacher may know", teacher.known.len(), k)?;
    }
    if needs.old_rows {
        let Some(is_old) = against.is_old else { return refused(method, "which rows are old") };
        check_length("marks of old rows", is_old.len(), b)?;
    }
    if matches!(method, Method::Mixup { .. }) {
        let Some((partners, shares)) = against.mix else { return refused(method, "partners") };
        check_length("mixup's partners", partners.len(), b)?;
        check_length("mixup's shares", shares.len(), b)?;
        let last = partners.iter().max().map_or(0, |&partner| partner as usize + 1);
        check_length("rows that partners point at", b.max(last), b)?;
    }
    Ok(())
}

fn check_length(what: &str, found: usize, expected: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(candle_core::Error::Msg(format!("{what}: {found}, expected {expected}")).into())
}

fn refused(method: &Method, what: &str) -> Result<()> {
    Err(candle_core::Error::Msg(format!("method {} needs {what}", method.name())).into())
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
    use super::*;
    use candle_core::Var;

    #[derive(serde::Deserialize)]
    struct Case {
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
        let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
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
