//! `diagnose --gradients`: how noisy the student's gradients are on the rows, part by part, and what a teacher takes away of it.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use lowchurn_data::{BatchSize, Encoded, encode, epoch_order};
use lowchurn_distill::{
    Divergence, Event, GradientReport, Lambda, Measuring, Method, OldWeights, SelectBy, Teacher,
    caveats, gradient_noise, trained_names, write_json,
};
use serde_json::json;

use crate::console::Console;
use crate::device::Compute;
use crate::failure::Usage;
use crate::found::{Found, encoder_of, open_model};
use crate::progress::Status;
use crate::{rows, signals};

/// A model, and its logits (N·K) on the rows.
pub struct Side<'s> {
    pub model: &'s Found,
    pub logits: &'s [f32],
}

/// Measures `n` batches of the student's own size at its own λ, tells what was found, and writes `gradients.json`. Where the
/// teacher has the student's architecture its own gradients are measured too. `None` where it was interrupted.
pub fn tell(
    (teacher, student): (&Side, &Side),
    examples: &[lowchurn_data::Example],
    n: usize,
    compute: &Compute,
    output: &Path,
    console: &mut Console,
) -> Result<Option<()>> {
    let before = rows::settings_of(&student.model.folder)?;
    if teacher.model.labels != student.model.labels {
        let (theirs, own) = (teacher.model.labels.join(", "), student.model.labels.join(", "));
        return Err(Usage(format!(
            "--gradients needs both models' classes in one order: the teacher's are {theirs}, the student's {own}"
        ))
        .into());
    }
    if let Some(row) = examples.iter().find(|row| row.label.is_none()) {
        return Err(Usage(format!(
            "--gradients: row {} has no label, and gradients are of labels",
            row.id
        ))
        .into());
    }
    let plan = crate::settings::plan(&before, SelectBy::Loss)?;
    let model = open_model(student.model, compute)?;
    let trained = trained_names(&plan, &model.config)?;
    let encoder = encoder_of(&model.config, &student.model.folder)?;
    let tokens: Encoded = encode(&encoder, examples, student.model.max_length)?;
    // Only batches of as many rows are as noisy as each other.
    let size = before.batch_size.and_then(BatchSize::rows).unwrap_or(32);
    let (seed, rows_of) = (before.seed.unwrap_or(42), BatchSize::Rows(size));
    let order = epoch_order(&tokens.lengths(), rows_of, seed, 0);
    let mut whole: Vec<Vec<u32>> = order.into_iter().filter(|batch| batch.len() == size).collect();
    if n < 2 || whole.len() < n {
        let (there, rows) = (whole.len(), tokens.rows());
        return Err(Usage(format!(
            "--gradients {n}: {rows} rows are {there} whole batches of {size}; expected from 2 to {there}"
        ))
        .into());
    }
    whole.truncate(n);
    let told = Teacher {
        logits: teacher.logits.to_vec(),
        known: vec![true; teacher.model.labels.len()],
        said: Vec::new(),
    };
    let theirs = open_model(teacher.model, compute)?;
    let shapes = |params: &lowchurn_models::Params| -> Vec<(String, Vec<usize>)> {
        params.tensors().map(|(name, t)| (name.to_string(), t.dims().to_vec())).collect()
    };
    let is_alike = shapes(&theirs.params) == shapes(&model.params);
    let weights = is_alike.then(|| OldWeights::of(&theirs.params));
    let method = crate::settings::method(&before)?;
    let measuring = Measuring {
        student: &model,
        trained: &trained,
        teacher: &told,
        weights: weights.as_ref(),
        rows: &tokens,
        batches: &whole,
        lambda: lambda_of(&method),
        device: &compute.device,
    };
    let begun = Instant::now();
    let mut status = Status::new();
    status.evaluating = "gradients";
    signals::work_begins();
    let report = gradient_noise(&measuring, &mut |done| {
        let event = Event::Evaluating { done, rows: n };
        status.show(&event, begun.elapsed(), &console.terminal, &mut console.err);
        !signals::STOP.load(std::sync::atomic::Ordering::Relaxed)
    });
    status.end(&mut console.err);
    let Some(report) = report? else { return Ok(None) };
    let mut caveats = caveats(&report, before.optimizer.unwrap_or_default());
    caveats.extend(of_training(&method, before.objective.as_deref()));
    for line in lines(&report, is_alike).iter().chain(&caveats) {
        console.tell(&format!("gradients: {line}"))?;
    }
    let said = json!({
        "event": "gradients", "seconds": begun.elapsed().as_secs_f64(), "report": report, "caveats": caveats,
    });
    std::fs::create_dir_all(output)?;
    write_json(&output.join("gradients.json"), &said)?;
    console.event(&said);
    Ok(Some(()))
}

/// The one weight that it was trained with; 0.5 where there is none, which [`of_training`] says.
fn lambda_of(method: &Method) -> f64 {
    match method.lambda() {
        Some(Lambda::Constant(lambda)) => lambda,
        _ => 0.5,
    }
}

/// Where the student was trained by something else than what is measured: cross-entropy with one weight λ, at T = 1.
fn of_training(method: &Method, objective: Option<&str>) -> Vec<String> {
    let mut said = Vec::new();
    match method.lambda() {
        Some(Lambda::Constant(_)) => {}
        Some(_) => {
            said.push("the student's λ changed while it was trained; shares are told at 0.5".into())
        }
        None => said.push(format!(
            "the student's method, {}, has no λ; shares are told at 0.5",
            method.name()
        )),
    }
    if let Method::Distil { temperature, divergence, .. } = method
        && (*temperature != 1.0 || *divergence != Divergence::Kl)
    {
        said.push("the student was trained at another T or with another divergence; measured is KL at T = 1".into());
    }
    if let Some(objective) = objective.filter(|objective| *objective != "standard") {
        said.push(format!(
            "the student was trained with the objective {objective}; measured is the mean over rows"
        ));
    }
    said
}

/// Part by part: the variance, the best λ, and what it leaves.
fn lines(report: &GradientReport, is_alike: bool) -> Vec<String> {
    let shown = |x: Option<f64>| x.map_or("–".into(), |x| format!("{x:.3}"));
    let mut lines = vec![format!(
        "{} batches, {} rows; left: the share of the variance at λ {}, measured, and at the best λ as ρ² predicts it",
        report.batches, report.rows, report.lambda
    )];
    for group in &report.groups {
        lines.push(format!(
            "{}: variance {:.3e} of E‖a‖² {:.3e}; λ̂ {} (centred {}), ρ² {}; left {} at λ {}, {} at the best",
            group.group,
            group.variance,
            group.noise.student,
            shown(group.lambda_hat),
            shown(group.lambda_hat_centred),
            shown(group.rho2_centred),
            shown(group.measured_ratio),
            report.lambda,
            shown(group.predicted_ratio),
        ));
    }
    match is_alike {
        true => lines.extend(report.own.first().map(|all| {
            format!(
                "with the teacher's own gradients, of {} of the batches: λ̂ {} (centred {}), ρ² {}; left {} at λ {}",
                report.own_batches,
                shown(all.lambda_hat),
                shown(all.lambda_hat_centred),
                shown(all.rho2_centred),
                shown(all.measured_ratio),
                report.lambda,
            )
        })),
        false => lines.push(
            "the teacher has another architecture: its residual through the student is what can be measured".into(),
        ),
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_student_was_trained_by_is_said() {
        let said = |method: &str, objective: Option<&str>| {
            of_training(&method.parse().unwrap(), objective)
        };
        assert_eq!(said("distil:lambda=0.3", Some("standard")), Vec::<String>::new());
        assert!(said("retrain", None)[0].contains("retrain, has no λ; shares are told at 0.5"));
        assert!(said("distil:lambda=0.9..0.1", None)[0].contains("λ changed"));
        assert!(said("distil:lambda=0.3,temperature=4", None)[0].contains("another T"));
        assert!(said("distil:lambda=0.3", Some("robust"))[0].contains("the objective robust"));
    }
}
