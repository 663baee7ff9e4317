//! `diagnose --gradients`: how noisy the student's gradients are on the rows, part by part, and what a teacher takes away of it.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use lowchurn_churn::{Cosines, GradientNoise, PartNoise, RowsOf, of_batches};
use lowchurn_data::{BatchSize, Example, epoch_order};
use lowchurn_distill::{
    Divergence, Event, Freeze, GradientReport, GroupNoise, Lambda, Measuring, Method, OldWeights,
    Plan, SelectBy, Teacher, TeacherRows, TrainOnly, caveats, gradient_noise, trained_names,
    write_json,
};
use serde_json::json;

use crate::console::Console;
use crate::device::Compute;
use crate::failure::Usage;
use crate::found::{Found, open_model, tokens_of};
use crate::progress::{Status, count, printable};
use crate::settings::Settings;
use crate::{rows, settings, signals};

/// The rows that are measured on.
pub struct On<'s> {
    pub rows_of: RowsOf,
    pub data: &'s str,
    /// With the student's classes.
    pub examples: &'s [Example],
    /// The teacher's logits (N·K) on them.
    pub teacher_says: &'s [f32],
}

/// Measures `n` batches of the student's own size at its own λ, of the weights that it was trained in, tells what was found, and writes
/// `gradients.json`. Where the teacher has the student's architecture its own gradients are measured too. `None` where it was
/// interrupted.
pub fn tell(
    (teacher, student): (&Found, &Found),
    on: &On,
    n: usize,
    compute: &Compute,
    output: &Path,
    console: &mut Console,
) -> Result<Option<GradientNoise>> {
    let before = rows::settings_of(&student.folder)?;
    if teacher.labels != student.labels {
        let (theirs, own) = (teacher.labels.join(", "), student.labels.join(", "));
        return Err(Usage(format!(
            "--gradients needs both models' classes in one order: the teacher's are {theirs}, the student's {own}"
        ))
        .into());
    }
    if let Some(row) = on.examples.iter().find(|row| row.label.is_none()) {
        return Err(Usage(format!(
            "--gradients: row {} has no label, and gradients are of labels",
            row.id
        ))
        .into());
    }
    let plan = settings::plan(&before, SelectBy::Loss)?;
    let model = open_model(student, compute)?;
    let trained = trained_names(&plan, &model.config)?;
    let tokens = tokens_of(student, &model.config, on.examples)?;
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
        logits: on.teacher_says.to_vec(),
        known: vec![true; teacher.labels.len()],
        said: Vec::new(),
    };
    let theirs = open_model(teacher, compute)?;
    let shapes = |params: &lowchurn_models::Params| -> Vec<(String, Vec<usize>)> {
        params.tensors().map(|(name, t)| (name.to_string(), t.dims().to_vec())).collect()
    };
    let is_alike = shapes(&theirs.params) == shapes(&model.params);
    let weights = is_alike.then(|| OldWeights::of(&theirs.params));
    let measuring = Measuring {
        student: &model,
        trained: &trained,
        teacher: &told,
        weights: weights.as_ref(),
        rows: &tokens,
        batches: &whole,
        lambda: lambda_of(&plan.method),
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
    let mut said: Vec<String> = left_out(&report, &plan).into_iter().collect();
    said.extend(caveats(&report, plan.optimizer));
    said.extend(of_training(&plan.method, &before));
    for line in lines(&report, on, is_alike).iter().chain(&said) {
        console.tell(&format!("gradients: {}", printable(line)))?;
    }
    let noise = noise(&report, on, said);
    let said = json!({
        "event": "gradients", "seconds": begun.elapsed().as_secs_f64(), "data": on.data, "rows_of": on.rows_of, "report": report,
        "caveats": noise.said,
    });
    std::fs::create_dir_all(output)?;
    write_json(&output.join("gradients.json"), &said)?;
    console.event(&said);
    Ok(Some(noise))
}

/// What of the student stood still, and isn't measured; and what is instead of low-rank factors.
fn left_out(report: &GradientReport, plan: &Plan) -> Option<String> {
    if report.numbers_left_out == 0 {
        return None;
    }
    let measured = report.groups.first().map_or(0, |all| all.numbers);
    let flags = [
        plan.train_only.map(|only| match only {
            TrainOnly::Biases => "train_only biases".to_string(),
            TrainOnly::LastLayer => "train_only last-layer".to_string(),
        }),
        (plan.freeze != Freeze::default()).then(|| format!("freeze {}", plan.freeze)),
        plan.lora_rank.map(|rank| format!("lora_rank {rank}")),
    ];
    let flags: Vec<String> = flags.into_iter().flatten().collect();
    let whole = match plan.lora_rank {
        Some(_) => "; matrices with adapters are measured whole, not by their factors",
        None => "",
    };
    Some(format!(
        "measured are the {} of {} weights that were trained (the student's run has {}){whole}",
        count(measured as u64),
        count((measured + report.numbers_left_out) as u64),
        flags.join(", ")
    ))
}

fn noise(report: &GradientReport, on: &On, said: Vec<String>) -> GradientNoise {
    let part = |group: &GroupNoise| PartNoise {
        name: group.group.clone(),
        numbers: group.numbers as u64,
        variance: group.variance,
        square: group.noise.student,
        lambda_hat: group.lambda_hat,
        lambda_hat_centred: group.lambda_hat_centred,
        rho2_centred: group.rho2_centred,
        left: group.measured_ratio,
        left_at_best: group.predicted_ratio,
    };
    GradientNoise {
        rows_of: on.rows_of,
        data: on.data.into(),
        batches: report.batches as u64,
        rows: report.rows as u64,
        lambda: report.lambda,
        parts: report.groups.iter().map(part).collect(),
        own: report.own.first().map(part),
        own_batches: report.own_batches as u64,
        cosines: report.cosines.clone(),
        label_cosines: report.label_cosines.clone(),
        said,
    }
}

/// The one weight that it was trained with; 0.5 where there is none, which [`of_training`] says.
fn lambda_of(method: &Method) -> f64 {
    match method.lambda() {
        Some(Lambda::Constant(lambda)) => lambda,
        _ => 0.5,
    }
}

/// Where the student was trained by something else than what is measured: (1 − λ)·label + λ·teacher on every row, with one λ, at T = 1.
fn of_training(method: &Method, before: &Settings) -> Vec<String> {
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
    let is_measured = match *method {
        Method::Distil { temperature, divergence, rows: TeacherRows::All, .. } => {
            temperature == 1.0 && matches!(divergence, Divergence::Kl | Divergence::MixedLabel)
        }
        _ => matches!(method, Method::Retrain | Method::ShrinkPerturb { .. }),
    };
    if !is_measured {
        said.push(format!(
            "the student was trained by {method}; measured is the plain mixture of label and teacher on every row, at T = 1"
        ));
    }
    let smoothing = before.label_smoothing.filter(|smoothing| *smoothing > 0.0);
    let others = [
        smoothing.map(|smoothing| format!("label_smoothing {smoothing}")),
        before.class_weights.as_ref().map(|_| "class_weights".to_string()),
    ];
    let others: Vec<String> = others.into_iter().flatten().collect();
    if !others.is_empty() {
        said.push(format!(
            "the student was trained with {}; measured are the labels as they are",
            others.join(" and ")
        ));
    }
    if let Some(objective) = before.objective.as_ref().filter(|name| *name != "standard") {
        said.push(format!(
            "the student was trained with the objective {objective}; measured is the mean over rows"
        ));
    }
    said
}

/// Part by part: the variance, the best λ, and what it leaves.
fn lines(report: &GradientReport, on: &On, is_alike: bool) -> Vec<String> {
    let shown = |x| of_batches(x, report.batches as u64);
    let rows_of = match on.rows_of {
        RowsOf::Test => "test",
        RowsOf::Train => "training",
    };
    let mut lines = vec![format!(
        "{} batches, {} {rows_of} rows of {}; left: the share of the variance at λ {}, measured, and at the best λ as ρ² predicts it",
        report.batches, report.rows, on.data, report.lambda
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
            let shown = |x| of_batches(x, report.own_batches as u64);
            format!(
                "with the teacher's own gradients, of {} of the batches: cosine {:.3} in the median; λ̂ {} (centred {}), ρ² {}; left {} at \
                 λ {}",
                report.own_batches,
                Cosines::of(&report.cosines).map_or(0.0, |found| found.median),
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
        let plain = Settings::default();
        let said = |method: &str| of_training(&method.parse().unwrap(), &plain);
        for measured in ["distil:lambda=0.3", "distil:lambda=0.3,divergence=mixed-label"] {
            assert_eq!(said(measured), Vec::<String>::new());
        }
        assert_eq!(
            said("retrain"),
            ["the student's method, retrain, has no λ; shares are told at 0.5"]
        );
        assert!(said("distil:lambda=0.9..0.1")[0].contains("λ changed"));
        for other in [
            "distil:lambda=0.3,temperature=4",
            "distil:lambda=0.3,rows=better",
            "anchor:lambda=0.3",
            "focal:lambda=0.3",
            "knn-smoothing:alpha=0.3,beta=0,k=10",
        ] {
            let found = said(other);
            assert!(
                found[0].starts_with(&format!(
                    "the student was trained by {}:",
                    other.split(':').next().unwrap()
                )),
                "{found:?}"
            );
            assert_eq!(found.len(), 1, "{found:?}");
        }
        assert!(
            said("mixup:alpha=0.2")[1].starts_with("the student was trained by mixup:alpha=0.2;")
        );
        let distil = "distil:lambda=0.3".parse().unwrap();
        let of = |settings: Settings| of_training(&distil, &settings);
        let smoothed = Settings {
            label_smoothing: Some(0.1),
            class_weights: Some("balanced".parse().unwrap()),
            ..Settings::default()
        };
        assert_eq!(
            of(smoothed),
            [
                "the student was trained with label_smoothing 0.1 and class_weights; measured are the labels as they are"
            ]
        );
        let robust = Settings { objective: Some("robust".into()), ..Settings::default() };
        assert!(of(robust)[0].contains("the objective robust"));
    }
}
