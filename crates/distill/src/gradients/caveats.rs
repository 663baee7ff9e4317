//! What measured gradients don't say of a training.

use crate::OptimizerName;
use crate::gradients::GradientReport;

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
            "the model isn't linear: distillation's gradient and the teacher's own have a cosine of {middle:.3} in the median batch"
        ));
    }
    if report.batches < 30 {
        said.push(format!(
            "{} batches are few; variances of fewer than 30 are rough",
            report.batches
        ));
    }
    let all = report.groups.first();
    if let Some(centred) = all.and_then(|all| all.lambda_hat_centred)
        && !(0.0..=1.0).contains(&centred)
    {
        said.push(format!("λ̂ is {centred:.2}, outside 0 to 1: no weight of a teacher"));
    }
    said.push(
        "λ̂ makes the gradient calm and knows nothing of where it leads: a teacher away from the optimum pulls there (for least squares \
         the error is (1 − λ)²·V + λ²·D², and the best λ V/(V + D²))"
            .to_string(),
    );
    said
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
        let noise = Noise { student: 2.0, teacher: 1.0, product: 1.5, ..Noise::default() };
        let report = |batches, cosines: Vec<f64>| GradientReport {
            batches,
            rows: 8 * batches,
            lambda: 0.5,
            groups: vec![noise.of_group("all".into(), 3, 0.5)],
            own: Vec::new(),
            own_batches: 0,
            label_cosines: vec![1.0; batches],
            cosines,
        };
        let few = caveats(&report(4, vec![0.5, 0.9, 0.8]), OptimizerName::AdamW);
        assert!(few[0].starts_with("AdamW divides a gradient by its own size"), "{few:?}");
        assert!(few[1].contains("a cosine of 0.800 in the median batch"), "{few:?}");
        assert!(few[2].starts_with("4 batches are few"), "{few:?}");
        assert!(few[3].starts_with("λ̂ is 1.50, outside 0 to 1"), "{few:?}");
        let many = caveats(&report(40, vec![1.0]), OptimizerName::Sgd);
        assert_eq!(many.len(), 2, "{many:?}");
        assert!(many[1].contains("V/(V + D²)"), "{many:?}");
    }
}
