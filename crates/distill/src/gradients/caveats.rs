//! What measured gradients don't say of a training.

use crate::OptimizerName;
use crate::gradients::{GradientReport, GroupNoise};

/// Variances of fewer batches are rough.
const FEW_BATCHES: usize = 30;
/// Of λ̂, as far as rounding goes and nobody cares: half of the second digit.
const ROUNDING: f64 = 0.005;

/// What λ̂ can't know of a training, as sentences; to be read before λ is set by it.
pub fn caveats(report: &GradientReport, optimizer: OptimizerName) -> Vec<String> {
    let mut said = Vec::new();
    if optimizer.is_adamw() {
        said.push(
            "AdamW divides a gradient by its own size, so a smaller gradient isn't a smaller update: the theory is of plain SGD"
                .to_string(),
        );
    }
    let middle = median(&report.cosines);
    if let Some(middle) = middle.filter(|cosine| *cosine < 0.99) {
        said.push(format!(
            "distillation's gradient and that with the teacher's own have a cosine of {middle:.3} in the median batch, so what was \
             trained isn't linear in its weights or reads other features than the teacher does, and the theory holds that far at most"
        ));
    }
    if report.batches < FEW_BATCHES {
        said.push(format!(
            "{} batches are few; variances of fewer than {FEW_BATCHES} are rough",
            report.batches
        ));
    }
    if (1..FEW_BATCHES).contains(&report.own_batches) && report.own_batches < report.batches {
        said.push(format!(
            "the teacher's own gradients are of {} batches alone, since each costs as much again, and as rough as that",
            report.own_batches
        ));
    }
    if let Some(said_of) = report.groups.first().and_then(|all| outside(all, report.batches)) {
        said.push(said_of);
    }
    said.push(
        "λ̂ makes the gradient calm and knows nothing of where it leads: a teacher away from the optimum pulls there (for least squares \
         the error is (1 − λ)²·V + λ²·D², and the best λ V/(V + D²))"
            .to_string(),
    );
    said
}

/// Where λ̂ is no weight by more than its error. With r = a − λ̂·b its variance over n batches is E⟨r, b⟩²/(n·(E‖b‖²)²), which is about
/// E‖r‖²/(n·E‖b‖²) = λ̂²·(1/ρ² − 1)/n at most.
fn outside(all: &GroupNoise, batches: usize) -> Option<String> {
    let (found, rho2) = (all.lambda_hat_centred?, all.rho2_centred?);
    let error =
        found.abs() * ((1.0 / rho2.max(f64::MIN_POSITIVE) - 1.0).max(0.0) / batches as f64).sqrt();
    let margin = (2.0 * error).max(ROUNDING);
    let is_outside = found < -margin || found > 1.0 + margin;
    is_outside.then(|| {
        format!("λ̂ is {found:.3}, outside 0 to 1 by more than its error: no weight of a teacher")
    })
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradients::Noise;

    #[test]
    fn caveats_are_said_where_they_hold() {
        // λ̂ 1.5 and ρ² 0.98.
        let noise = Noise { student: 2.3, teacher: 1.0, product: 1.5, ..Noise::default() };
        let report = |batches, cosines: Vec<f64>| GradientReport {
            batches,
            rows: 8 * batches,
            lambda: 0.5,
            groups: vec![noise.of_group("all".into(), 3, 0.5)],
            numbers_left_out: 0,
            own: Vec::new(),
            own_batches: cosines.len(),
            label_cosines: vec![1.0; batches],
            cosines,
        };
        let few = caveats(&report(4, vec![0.5, 0.9, 0.8]), OptimizerName::AdamW);
        assert!(few[0].starts_with("AdamW divides a gradient by its own size"), "{few:?}");
        assert!(few[1].contains("a cosine of 0.800 in the median batch"), "{few:?}");
        assert!(few[2].starts_with("4 batches are few"), "{few:?}");
        assert!(
            few[3].starts_with("the teacher's own gradients are of 3 batches alone"),
            "{few:?}"
        );
        assert!(few[4].starts_with("λ̂ is 1.500, outside 0 to 1 by more than its error"), "{few:?}");
        let many = caveats(&report(40, vec![1.0; 40]), OptimizerName::Sgd);
        assert_eq!(many.len(), 2, "{many:?}");
        assert!(many[1].contains("V/(V + D²)"), "{many:?}");
    }

    #[test]
    fn a_lambda_is_outside_by_more_than_its_error() {
        let check = |lambda: f64, rho2: f64, batches: usize, expected: bool| {
            // E‖b‖² = 1, E⟨a, b⟩ = λ̂ and ρ² = λ̂²/E‖a‖².
            let noise = Noise {
                student: lambda * lambda / rho2,
                teacher: 1.0,
                product: lambda,
                ..Noise::default()
            };
            let found = outside(&noise.of_group("all".into(), 3, 0.5), batches);
            assert_eq!(found.is_some(), expected, "{lambda} {rho2} {batches}: {found:?}");
        };
        check(1.001, 1.0, 8, false);
        check(1.01, 1.0, 8, true);
        // The error of 8 batches is 1.2·√(0.25/8) = 0.21, of 80 it is 0.067.
        check(1.2, 0.8, 8, false);
        check(1.2, 0.8, 80, true);
        check(-0.01, 0.001, 8, false);
        check(-0.5, 0.9, 80, true);
        check(0.5, 0.9, 80, false);
    }
}
