//! `distil`: a student learns from labels and from larger teachers, which score every row once from its raw text with their
//! own tokenizer. Otherwise a fine-tuning like any other.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use lowchurn_data::{Kind, parse_map};
use lowchurn_distill::{
    Combine, Divergence, Lambda, METHODS, Method, Plan, check_teacher, write_soft_labels,
};
use lowchurn_models::Config;
use serde_json::json;

use crate::args::{Distil, Ensemble, Finetune};
use crate::console::Console;
use crate::failure::{INTERRUPTED, Usage};
use crate::finetune::{self, Followed, Ready};
use crate::found::{self, Teachers};
use crate::job::{self, Verb};
use crate::progress::count;
use crate::settings::Settings;
use crate::training::WeightsFrom;
use crate::{agnostic, base, dry_run, kinds, output, probe, settings, shows, signals, steering};

pub fn distil(args: &Distil, console: &mut Console) -> Result<u8> {
    signals::listen()?;
    match args.generations {
        1 => one(args, console),
        n => generations(args, n, console),
    }
}

/// Repeated self-distillation: the first student follows the teachers, each further one the student before it, all from the same
/// start. Each is an ordinary run in a folder of its own, so what is finished is passed over.
fn generations(args: &Distil, n: u32, console: &mut Console) -> Result<u8> {
    let what = [
        ("--seeds", args.run.seeds > 1),
        ("--emit-soft-labels", args.emit_soft_labels.is_some()),
        ("--task-agnostic", args.task_agnostic),
    ];
    if let Some((flag, _)) = what.iter().find(|(_, is_set)| *is_set) {
        return Err(Usage(format!(
            "--generations {n} with {flag}: one student a generation is the next one's teacher; leave one of them out"
        ))
        .into());
    }
    let Some(output) = &args.run.output else {
        return Err(Usage(format!(
            "--generations {n}: where to? Name the folder of all generations with --output DIR"
        ))
        .into());
    };
    let mut generation = args.clone();
    for at in 1..=n {
        let folder = output.join(format!("generation-{at}"));
        generation.run.output = Some(folder.clone());
        console.tell(&format!("generation {at} of {n}: {}", generation.teacher.join(", ")))?;
        // There is no teacher yet to rehearse with.
        if args.run.dry_run && at > 1 {
            console.tell(&format!("output: {}", folder.display()))?;
        } else {
            let code = one(&generation, console)?;
            if code != 0 {
                return Ok(code);
            }
        }
        generation.teacher = vec![folder.display().to_string()];
        generation.label_map = None;
    }
    Ok(0)
}

fn one(args: &Distil, console: &mut Console) -> Result<u8> {
    let started = Instant::now();
    let run = run_of(args)?;
    if args.task_agnostic {
        return agnostic::distil(args, &run, started, console);
    }
    let verb = Verb {
        base_flag: base_flag(args),
        example: "lowchurn distil sst2 --teacher DIR",
        lowest: Settings { method: Some("distil".into()), ..Settings::default() },
    };
    let mut job = job::open(&run, &verb, console)?;
    if run.output.is_none() {
        job.output = Path::new("runs").join(format!("{}-student", job.data.name));
    }
    refuse_alone(&job.plan)?;
    let soft = match &args.emit_soft_labels {
        Some(path) => {
            output::check_file("--emit-soft-labels", path)?;
            Some(lambda_and_temperature(&job.plan)?)
        }
        None => None,
    };
    let map = args.label_map.as_deref().map(parse_map).transpose()?.unwrap_or_default();
    let teachers = args
        .teacher
        .iter()
        .map(|name| base::find("--teacher", name))
        .collect::<Result<Vec<_>>>()?;
    found::refuse_several(&job.plan, &args.teacher)?;
    if run.dry_run {
        for (name, teacher) in args.teacher.iter().zip(&teachers) {
            if teacher.hub_id().is_none() {
                let folder = teacher.folder(&job.hub, console)?;
                if job.base.hub_id().is_none() {
                    let student = Config::open(&job.base.folder(&job.hub, console)?)?;
                    check_teacher(job.plan.variance_reduction, &Config::open(&folder)?, &student)?;
                }
                found::open_model(&found::describe(name, folder)?, &job.compute)?;
            }
        }
        return dry_run::tell(&mut job, &run, |_, folder| Ok(WeightsFrom::of(folder)), console);
    }
    output::check(&job.output)?;
    let student = Config::open(&job.base.folder(&job.hub, console)?)?;
    for teacher in &teachers {
        let folder = teacher.folder(&job.hub, console)?;
        output::refuse_foreign(&job.output, &folder)?;
        check_teacher(job.plan.variance_reduction, &Config::open(&folder)?, &student)?;
    }
    let mut ready = finetune::prepare(&mut job, &args.unlabelled, console)?;
    ready.weights = WeightsFrom::of(&ready.base_folder);
    let asked = Teachers {
        deployed: None,
        names: &args.teacher,
        combine: match args.ensemble {
            Ensemble::Probabilities => Combine::Probabilities,
            Ensemble::Logits => Combine::Logits,
        },
        map: &map,
        tables: &args.tables,
    };
    let train = &ready.rows.train;
    if args.emit_soft_labels.is_some() {
        kinds::refuse_other(Kind::of(&train.examples), "--emit-soft-labels")?;
    }
    let Some((teacher, mut named)) =
        found::teacher(&asked, train, &job.hub, &job.compute, console)?
    else {
        return Ok(INTERRUPTED);
    };
    let shows = shows::shows(
        &args.teacher,
        train,
        &ready.train_tokens,
        &student,
        &job,
        &args.tables,
        console,
    )?;
    let Some(shows) = shows else { return Ok(INTERRUPTED) };
    let weights = found::teacher_weights(
        &job.plan,
        &args.teacher,
        train.labels.names(),
        &job.hub,
        &job.compute,
        console,
    )?;
    for key in &shows.keys {
        named.1 = format!("{} {key}", named.1);
    }
    let features = probe::features(&ready, &job, &args.tables, console)?;
    let Some(features) = features else { return Ok(INTERRUPTED) };
    ready.features = features;
    let followed = Followed { teacher, shows, weights, named };
    if let (Some(path), Some(soft)) = (&args.emit_soft_labels, soft) {
        return emit(path, soft, &ready, &followed, console);
    }
    let Some(steered) =
        steering::of_run(&job, &ready.rows, &ready.base_folder, Some(&asked), console)?
    else {
        return Ok(INTERRUPTED);
    };
    finetune::train(&job, &run, &ready, Some(&followed), &steered, started, console)
}

/// The run's flags with what stands among the verb's own.
fn run_of(args: &Distil) -> Result<Finetune> {
    let mut run = args.run.clone();
    let planned = match &run.plan {
        Some(path) => settings::read_plan(path)?.states,
        None => None,
    };
    run.settings.states = args.states.onto(planned);
    if let Some(student) = &args.student {
        run.settings.model = Some(student.clone());
    }
    if args.task_agnostic {
        run.method.method = Some("task-agnostic".into());
    }
    Ok(run)
}

/// The student may be typed as either.
pub fn base_flag(args: &Distil) -> &'static str {
    if args.student.is_some() { "--student" } else { "--model" }
}

/// Methods that have no use for a teacher, or that need more than one.
fn refuse_alone(plan: &Plan) -> Result<()> {
    job::refuse_deployed(plan, "distil")?;
    if plan.method.needs().teacher {
        return Ok(());
    }
    let is_guided = |name: &&&str| name.parse::<Method>().is_ok_and(|m| m.needs().teacher);
    let guided: Vec<&str> = METHODS.iter().filter(is_guided).copied().collect();
    Err(Usage(format!(
        "method {} doesn't follow a teacher; use lowchurn finetune, or one of {}",
        plan.method.name(),
        guided.join(", ")
    ))
    .into())
}

/// Of the targets, which are of one kind: (1 − λ)·label + λ·teacher.
fn lambda_and_temperature(plan: &Plan) -> Result<(f64, f64)> {
    match plan.method {
        Method::Distil {
            lambda: Lambda::Constant(lambda),
            temperature,
            divergence: Divergence::Kl | Divergence::MixedLabel,
            ..
        } => Ok((lambda, temperature)),
        _ => Err(Usage(format!(
            "--emit-soft-labels writes (1−λ)·label + λ·teacher, which isn't what {} trains on; use --method distil with \
             one number as --lambda",
            plan.method
        ))
        .into()),
    }
}

fn emit(
    path: &Path,
    (lambda, temperature): (f64, f64),
    ready: &Ready,
    Followed { teacher, .. }: &Followed,
    console: &mut Console,
) -> Result<u8> {
    let train = &ready.rows.train;
    let ids: Vec<String> = train.examples.iter().map(|row| row.id.clone()).collect();
    let labels: Vec<Option<u32>> = train.examples.iter().map(|row| row.label).collect();
    output::make_folder(path)?;
    write_soft_labels(path, teacher, &ids, &labels, train.labels.names(), lambda, temperature)?;
    let n = ids.len();
    console.tell(&format!(
        "{}: targets of {} rows, λ {lambda}, temperature {temperature}",
        path.display(),
        count(n as u64)
    ))?;
    console.event(&json!({ "event": "soft_labels", "output": path, "rows": n }));
    Ok(0)
}
