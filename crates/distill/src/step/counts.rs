//! What a batch of an update gets right, and where it says what its teacher says. No gradient comes of it.

use candle_core::D;
use lowchurn_data::Targets;

use super::Seen;
use crate::{Result, Teacher};

/// Rows that are right, and rows on which the student says what the teacher says.
pub(super) fn counts_of(
    seen: &Seen,
    labels: &[Option<u32>],
    targets: &Targets,
    followed: Option<&Teacher>,
) -> Result<(u64, u64)> {
    let rows = &seen.batch.rows;
    let (n_correct, n_agreed) = match targets {
        Targets::OneClass => {
            let predicted = seen.logits.argmax(D::Minus1)?.to_vec1::<u32>()?;
            let is_right = |(a, b): &(&u32, &Option<u32>)| **b == Some(**a);
            let agreed = followed.map(|teacher| {
                let agrees = |(a, row): &(&u32, &u32)| **a == teacher.predicted(**row as usize);
                predicted.iter().zip(rows).filter(agrees).count()
            });
            (predicted.iter().zip(labels).filter(is_right).count(), agreed)
        }
        Targets::Sets(sets) => {
            let predicted: Vec<Vec<u32>> =
                seen.logits.to_vec2::<f32>()?.iter().map(|z| likely(z)).collect();
            let is_right = |(a, b): &(&Vec<u32>, &Option<Vec<u32>>)| b.as_ref() == Some(*a);
            let agreed = followed.map(|teacher| {
                let told = |row: &u32| likely(teacher.logits_of(*row as usize));
                predicted.iter().zip(rows).filter(|(a, row)| **a == told(row)).count()
            });
            (predicted.iter().zip(sets).filter(is_right).count(), agreed)
        }
        Targets::Values(_) => (0, None),
    };
    Ok((n_correct as u64, n_agreed.unwrap_or(0) as u64))
}

/// The labels that are likelier than not.
fn likely(logits: &[f32]) -> Vec<u32> {
    let labels = logits.iter().enumerate().filter(|(_, z)| **z >= 0.0);
    labels.map(|(label, _)| label as u32).collect()
}
