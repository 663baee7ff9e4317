//! `sweep`: settings × seeds over one teacher table → a point each on the axes churn and accuracy → the frontier.
//!
//! A point is a folder with `point.json` and its predictions; one that is there is not computed again. So a sweep resumes
//! point by point, shards of it are folders, and merging is reading.

mod dry_run;
mod ensemble;
mod part;
mod setting;

use std::fs;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lowchurn_churn::{Pair, Predicted, RunPoint, Unmatched};
use lowchurn_distill::{Plan, PrecisionName, sha256_of_model, write_file, write_json};
use lowchurn_kernels::Precision;
use serde_json::{Value, json};

use self::setting::{Setting, settings};
use crate::args::{Deployed, Init, Sweep};
use crate::between::Line;
use crate::console::Console;
use crate::failure::{INTERRUPTED, Usage};
use crate::grid;
use crate::points::{
    PointFile, is_same, read_point, read_points, refuse_other_rows, write_predictions,
};
use crate::rows::SharedTexts;
use crate::settings::Settings;
use crate::updating::{self, Updating, starts_fresh};
use crate::{base, kinds, output, recipe, signals, sweep_report, update_record};

pub fn sweep(args: &Sweep, console: &mut Console) -> Result<u8> {
    signals::listen()?;
    if !args.merge.is_empty() {
        let output = output_of(args)?;
        output::check(&output)?;
        return finish(args, &output, &args.merge, console);
    }
    let typed = recipe::typed(&args.deployed, &args.deployed.settings)?;
    if typed.select_by.is_some() {
        let said = "--select-by chooses among an update's candidates, and a sweep shows all of its points; leave it out";
        return Err(Usage(said.into()).into());
    }
    let settings = settings(args, &typed)?;
    let shares = grid::grid("--interpolate", &args.interpolate, (0.0, 1.0))?;
    let shard = args.shard.as_deref().map(shard).transpose()?;
    if shard.is_some() && args.drop_dominated {
        return Err(Usage(
            "--drop-dominated with --shard: a shard doesn't see the points that dominate; leave one of them out"
                .into(),
        )
        .into());
    }
    ensemble::check(args, &settings)?;
    if !settings.iter().any(Setting::needs_encoder) {
        recipe::refuse_encoder(&typed)?;
    }
    let output = output_of(args)?;
    output::check(&output)?;
    let first = typed.seed.unwrap_or(42);
    if args.dry_run {
        return dry_run::tell(args, &typed, &settings, shard, (&output, first), console);
    }
    fs::create_dir_all(&output)?;
    let mut at = 0;
    for n in 0..u64::from(args.seeds) {
        let seed = first.saturating_add(n);
        let mut opened: Option<Updating> = None;
        for setting in &settings {
            at += 1;
            if shard.is_some_and(|(i, of)| at % of != i % of) {
                continue;
            }
            if args.drop_dominated && n > 0 && is_dominated(&output, setting, first)? {
                console.say(&format!(
                    "{}: dominated after the first seed, left out",
                    setting.folder()
                ));
                continue;
            }
            let updating = match &mut opened {
                Some(updating) => updating,
                None => match open(args, &typed, seed, console)? {
                    Some(updating) => {
                        refuse_other_rows(&output, &rows_of(&updating), seed)?;
                        sweep_report::keep_old(&output, &updating, seed)?;
                        opened.insert(updating)
                    }
                    None => return Ok(INTERRUPTED),
                },
            };
            if !point(args, updating, setting, seed, &shares, &output, console)? {
                return Ok(INTERRUPTED);
            }
            if let (true, Some(updating)) = (setting.is_plain_retrain(), &opened) {
                ensemble::points(args, updating, setting, (first, n + 1), &output, console)?;
            }
        }
    }
    finish(args, &output, std::slice::from_ref(&output), console)
}

/// Beside the base's folder; below `runs` where that is elsewhere.
fn output_of(args: &Sweep) -> Result<PathBuf> {
    if let Some(output) = &args.output {
        return Ok(output.clone());
    }
    let base = args.deployed.base.replace("{seed}", "all");
    if base.is_empty() {
        return Err(Usage("--merge: where to? Name a folder with --output DIR".into()).into());
    }
    // The base of a seed is in the folder that all of them are in.
    let is_here = Path::new(&args.deployed.base).parent().is_some_and(Path::is_dir);
    let is_many = base != args.deployed.base;
    let folder = if is_many && is_here { base } else { update_record::beside(&base) };
    Ok(PathBuf::from(format!("{folder}-sweep")))
}

/// The deployed model may be another one for each seed: `runs/old/seed-{seed}`.
fn open(
    args: &Sweep,
    typed: &Settings,
    seed: u64,
    console: &mut Console,
) -> Result<Option<Updating>> {
    let mut updating = read(args, typed, seed, console)?;
    let scored = updating.score_old(console)?;
    Ok(scored.map(|()| updating))
}

/// The same before the base has scored a row.
fn read(args: &Sweep, typed: &Settings, seed: u64, console: &mut Console) -> Result<Updating> {
    let base = args.deployed.base.replace("{seed}", &seed.to_string());
    let deployed = Deployed { base, ..args.deployed.clone() };
    let updating = updating::read(&deployed, typed, SharedTexts::Kept, console)?;
    kinds::refuse_other(updating.old.outputs.kind, "sweep")?;
    let rows = &updating.rows.holdout;
    if rows.examples.iter().all(|row| row.label.is_none()) {
        let name = &rows.name;
        return Err(Usage(format!(
            "{name}: no row has a label; a sweep's axes are churn and accuracy"
        ))
        .into());
    }
    Ok(updating)
}

fn shard(text: &str) -> Result<(usize, usize)> {
    let parsed = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    match parsed {
        Some((i, n)) if 1 <= i && i <= n => Ok((i, n)),
        _ => {
            Err(Usage(format!("--shard {text}: expected I/N with I from 1 to N, such as 1/3"))
                .into())
        }
    }
}

/// Trains, scores and writes a point, and those between it and the old weights; passes over what is there. `false` where it
/// was interrupted.
fn point(
    args: &Sweep,
    updating: &mut Updating,
    setting: &Setting,
    seed: u64,
    shares: &[f64],
    output: &Path,
    console: &mut Console,
) -> Result<bool> {
    let upper = &setting.part.settings;
    let plan = updating.plan_with(upper, setting.method, setting.smoothing, Some(seed))?;
    let dir = place(output, &setting.folder(), seed);
    let made_from = made_from(updating, &plan, setting.init, console)?;
    // Points between the weights are of the plain retrain: that is what is deployed without any method.
    let is_line = setting.is_plain_retrain() && setting.init == Init::Warm;
    let between: Vec<f64> = shares.iter().copied().filter(|_| is_line).collect();
    let between_dir = |share: f64| place(output, &format!("interpolate-a-{share}"), seed);
    let mut missing = Vec::new();
    for &share in &between {
        if !is_done(&between_dir(share), &made_from)? {
            missing.push(share);
        }
    }
    if is_done(&dir, &made_from)? && missing.is_empty() {
        return Ok(true);
    }
    let model = dir.join("model");
    let Some(ended) = updating.train(&plan, setting.init, &model, console)? else {
        return Ok(false);
    };
    let name = format!("{} {}", setting.method_name(), setting.said());
    let new = updating.score(&model, name.trim(), console)?;
    let run = |method: String, init: &str, said: String| RunPoint {
        method,
        init: init.into(),
        setting: said,
        seed,
        ..RunPoint::default()
    };
    let point = run(setting.method_name(), setting.init_name(), setting.said());
    let seconds = ended.train_seconds;
    write_point(&dir, updating, new, point, &made_from, seconds, console)?;
    if !missing.is_empty() {
        let line = Line::open(updating, &model)?;
        for share in missing {
            let new = line.score(updating, share, console)?;
            let point = run("interpolate".into(), "warm", format!("α {share}"));
            write_point(&between_dir(share), updating, new, point, &made_from, 0.0, console)?;
        }
    }
    if !args.keep_models {
        fs::remove_dir_all(&model)
            .with_context(|| format!("{}: can't be removed", model.display()))?;
    }
    Ok(true)
}

/// Whether the point is there; another one in its place is an error.
fn is_done(dir: &Path, made_from: &Value) -> Result<bool> {
    match read_point(dir)? {
        Some(there) if is_same(&there.made_from, made_from) => Ok(true),
        Some(_) => Err(Usage(format!(
            "{} holds a point of other data, models or settings; choose another --output or remove it",
            dir.display()
        ))
        .into()),
        None => Ok(false),
    }
}

fn place(output: &Path, setting: &str, seed: u64) -> PathBuf {
    output.join("points").join(setting).join(format!("seed-{seed}"))
}

/// What all points of a seed share.
fn rows_of(updating: &Updating) -> Value {
    let mut all = json!({
        "old_sha256": updating.old.sha256,
        "train_sha256": updating.rows.train.sha256,
        "holdout_sha256": updating.rows.holdout.sha256,
    });
    // A record says it of all others, and is a part of the folder that the hash is of.
    if let Some(length) = updating.unrecorded_length {
        all["old_max_length"] = json!(length.to_string());
    }
    // Points of before there was a choice are of f32.
    if updating.compute.precision != Precision::F32 {
        all["precision"] = json!(PrecisionName::of(updating.compute.precision));
    }
    all
}

/// What a point depends on.
fn made_from(updating: &Updating, plan: &Plan, init: Init, console: &mut Console) -> Result<Value> {
    let mut all = rows_of(updating);
    all["plan"] = json!(plan);
    all["init"] = json!(init.name());
    if plan.method.needs().teacher && !updating.teacher_hashes.is_empty() {
        all["teachers_sha256"] = json!(updating.teacher_hashes);
        all["teachers_as_one"] = json!(format!("{:?}", updating.combine));
    }
    if plan.method.needs().teacher
        && !(updating.teacher_hashes.is_empty() && updating.map.is_empty())
    {
        all["teachers_labels"] = json!(updating.map);
    }
    let is_cold = init == Init::Cold || starts_fresh(&plan.method);
    if let (Some(encoder), true) = (&updating.layers.settings.model, init == Init::Cold) {
        all["encoder"] = json!(encoder);
    }
    if let (Some(encoder), true) = (&updating.encoder, is_cold) {
        let folder = base::find("--model", encoder)?.folder(&updating.hub, console)?;
        all["encoder_sha256"] = json!(sha256_of_model(&folder)?);
    }
    Ok(all)
}

/// Predictions first, the point last: a folder with a point is whole.
fn write_point(
    dir: &Path,
    updating: &Updating,
    new: Predicted,
    mut point: RunPoint,
    made_from: &Value,
    train_seconds: f64,
    console: &mut Console,
) -> Result<()> {
    fs::create_dir_all(dir)?;
    let mut lines = BufWriter::new(Vec::new());
    write_predictions(&new, &mut lines)?;
    let lines = lines.into_inner().map_err(|error| error.into_error())?;
    write_file(&dir.join("predictions.jsonl"), &lines)?;
    let pair = Pair::align(&updating.old_on_holdout, &new, &[], Unmatched::Refuse)?;
    let flips = pair.flips();
    point.accuracy = flips.accuracy_new().unwrap_or(0.0); // `open` has seen a label
    (point.churn, point.nfr) = (flips.churn().unwrap_or(0.0), flips.nfr().unwrap_or(0.0));
    console.tell(&format!(
        "{} {} {} seed {}: accuracy {:.2} % (old {:.2} %), churn {:.2} %, negative flips {:.2} %",
        point.method,
        point.init,
        point.setting,
        point.seed,
        100.0 * point.accuracy,
        100.0 * flips.accuracy_old().unwrap_or(f64::NAN),
        100.0 * point.churn,
        100.0 * point.nfr,
    ))?;
    let file = PointFile { point, flips, made_from: made_from.clone(), train_seconds };
    console.event(&json!({ "event": "point", "point": &file.point, "flips": &file.flips }));
    Ok(write_json(&dir.join("point.json"), &file)?)
}

/// Whether another setting of the first seed had at least 0.5 points more accuracy and at most its churn, or 0.5 points less
/// churn and at least its accuracy.
fn is_dominated(output: &Path, setting: &Setting, seed: u64) -> Result<bool> {
    let Some(own) = read_point(&place(output, &setting.folder(), seed))? else { return Ok(false) };
    // Retrains are what the others are held against.
    if setting.is_plain_retrain() {
        return Ok(false);
    }
    let points = read_points(&[output.to_path_buf()])?;
    let clearly = 0.005;
    Ok(points.iter().filter(|(_, file)| file.point.seed == seed).any(|(_, file)| {
        let (gain, saved) =
            (file.point.accuracy - own.point.accuracy, own.point.churn - file.point.churn);
        (gain >= clearly && saved >= 0.0) || (gain >= 0.0 && saved >= clearly)
    }))
}

fn finish(args: &Sweep, output: &Path, folders: &[PathBuf], console: &mut Console) -> Result<u8> {
    let points = read_points(folders)?;
    if points.is_empty() {
        return Err(Usage("no point is there to put together".into()).into());
    }
    if args.shard.is_some() {
        console.tell(&format!(
            "{}: {} points; put shards together with --merge",
            output.display(),
            points.len()
        ))?;
        return Ok(0);
    }
    sweep_report::write(output, &points, console)?;
    Ok(0)
}
