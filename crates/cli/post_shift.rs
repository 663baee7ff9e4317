//! `post-shift`: a trained model's logits on labelled rows → one number a class that helps the worst one → a model folder.
//!
//! Trains nothing. The numbers go into the head's bias, so that nothing else is needed to serve the model. On the rows that they
//! were fitted on they look better than on others, so it is told which rows a number is of.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::Device;
use lowchurn_data::{Example, Kind, LabelSet, Labels};
use lowchurn_distill::{
    Base, Rescaling, Shift, ShiftTo, fit_shift, prior, sha256_of_file, write_file, write_json,
};
use lowchurn_models::{Classifier, Head, save};
use serde_json::{Value, json};

use crate::args::{PostShift, ShiftBase, ShiftFor};
use crate::chosen::Chosen;
use crate::console::Console;
use crate::data;
use crate::eval::{Asked, Scored, chosen_split, score, wishes};
use crate::failure::Usage;
use crate::progress::{count, printable};
use crate::repair::{model_files, other_model};
use crate::rows::{Text, text};
use crate::settings::{self, Settings};
use crate::{base, found, kinds, output, places, seen};

pub fn post_shift(args: &PostShift, console: &mut Console) -> Result<u8> {
    let to = shift_to(args)?;
    let hub = places::hub()?;
    let folder = base::find("", &args.model)?.folder(&hub, console)?;
    let output = args.output.clone().unwrap_or_else(|| default_output(&args.model));
    output::check(&output)?;
    output::refuse_foreign(&output, &folder)?;
    let mut asked = Asked {
        model: &args.model,
        data: &args.data,
        split: args.split.as_deref(),
        labels: Labels::Required,
        scoring: &args.scoring,
        threshold: None,
        label_map: None,
        output: Some(&output),
    };
    let mut scored = score(&asked, console)?;
    kinds::refuse_other(scored.outputs.kind, "post-shift")?;
    let made_from = json!({
        "model": { "name": args.model, "sha256": base::sha256(&folder)? },
        "data": { "name": scored.split.name, "sha256": scored.split.sha256 },
        "max_length": args.scoring.max_length,
        "to": format!("{to:?}"),
        "bf16": args.scoring.bf16,
    });
    let model = found::describe(&args.model, folder.clone())?;
    let train = seen::train_of(&model, &hub, &mut Vec::new(), console);
    let trained = train.as_ref().map(seen::texts).unwrap_or_default();
    let was_trained = format!("{} was trained on", args.model);
    leave_out("--data", &mut scored, &trained, &was_trained, console)?;
    let (shares, shares_from) = shares(args, &scored, console)?;
    let made_from = with(made_from, "trained_on", shares_from);
    let there = if args.fresh { None } else { done(&output, &made_from)? };
    let is_done = there.is_some();
    if is_done && args.holdout.is_none() {
        console.tell(&format!("{} is finished; --fresh starts over", output.display()))?;
        return Ok(0);
    }
    let labels: Vec<Option<u32>> = scored.split.examples.iter().map(|row| row.label).collect();
    let shift = match there {
        Some(shift) => shift,
        None => fit_shift(&scored.predictions.logits, &labels, &scored.labels, &shares, to)
            .with_context(|| fitted_on(args))?,
    };
    let held = match &args.holdout {
        Some(data) => {
            (asked.data, asked.split) = (data, None);
            let mut held = score(&asked, console)?;
            leave_out("--holdout", &mut held, &trained, &was_trained, console)?;
            let fitted = scored.split.examples.iter().filter(|row| row.label.is_some());
            let fitted = fitted.map(text).collect();
            leave_out("--holdout", &mut held, &fitted, "the shift is fitted on", console)?;
            Some(held)
        }
        None => None,
    };
    tell(&scored, held.as_ref(), &shift, console)?;
    if is_done {
        console.tell(&format!("{} was finished: its shift is measured", output.display()))?;
        return Ok(0);
    }
    if args.fresh {
        output::start_over(&output)?;
    }
    write(&folder, &shift, &made_from, &scored, &output)?;
    console.tell(&format!("shifted model: {}", output.display()))?;
    console.event(&json!({
        "event": "finished", "output": output, "labels": scored.labels, "bias": shift.rescaling.bias,
        "errors_before": shift.errors_before, "errors_after": shift.errors_after, "round": shift.round,
    }));
    Ok(0)
}

fn with(mut object: Value, key: &str, value: Value) -> Value {
    object[key] = value;
    object
}

/// The rows behind a refusal of the fit.
fn fitted_on(args: &PostShift) -> String {
    match &args.trained_on {
        None => format!("--data {}", args.data),
        Some(shares) => format!("--data {}, --trained-on {shares}", args.data),
    }
}

fn shift_to(args: &PostShift) -> Result<ShiftTo> {
    let refuse = |what: String| Err(Usage(what).into());
    if args.objective == ShiftFor::Balanced {
        let typed = [
            ("--worst-class-weight", args.worst_class_weight.is_some()),
            ("--base", args.base.is_some()),
            ("--step", args.step.is_some()),
            ("--rounds", args.rounds.is_some()),
        ];
        return match typed.iter().find(|(_, is_typed)| *is_typed) {
            None => Ok(ShiftTo::Balanced),
            Some((flag, _)) => refuse(format!(
                "{flag} is of the search for the worst class, and --objective balanced searches nothing; leave one of them out"
            )),
        };
    }
    let weight = args.worst_class_weight.unwrap_or(1.0);
    let step = args.step.unwrap_or(0.1);
    if !(step > 0.0 && step.is_finite()) {
        return refuse(format!("--step {step}: expected a number above 0"));
    }
    let rounds = args.rounds.unwrap_or(500);
    if rounds == 0 {
        return refuse("--rounds 0: expected at least 1".into());
    }
    let base = match args.base {
        Some(ShiftBase::Standard) => Base::Standard,
        Some(ShiftBase::Balanced) | None => Base::Balanced,
    };
    Ok(ShiftTo::Robust { weight, base, step, rounds })
}

fn default_output(model: &str) -> PathBuf {
    let model = model.trim_end_matches('/');
    match Path::new(model).is_dir() {
        true => PathBuf::from(format!("{model}-shifted")),
        false => {
            Path::new("runs").join(format!("{}-shifted", model.rsplit('/').next().unwrap_or(model)))
        }
    }
}

/// (K,) of the rows that the model was trained on, where they are named, and what they are.
fn shares(args: &PostShift, scored: &Scored, console: &mut Console) -> Result<(Vec<f64>, Value)> {
    let (split, sha256) = match &args.trained_on {
        None => (scored.split.clone(), None),
        Some(text) => {
            let hub = places::hub()?;
            let data = data::open(text, &hub, console)?;
            let names = data.split_names();
            let default = names.iter().any(|name| name == "train").then_some("train");
            let split = chosen_split(data.split.as_deref().or(default), &data)?;
            let wishes = wishes(&args.scoring, Kind::SingleLabel);
            let known = LabelSet::of_outputs(scored.labels.clone())?;
            let rows = data.read(&split, &wishes, Labels::Required, Some(&known), &hub, console)?;
            let sha256 = rows.sha256.clone();
            (rows, Some(sha256))
        }
    };
    let mut counts = vec![0.0; scored.labels.len()];
    for label in split.examples.iter().filter_map(|row| row.label) {
        if let Some(count) = counts.get_mut(label as usize) {
            *count += 1.0;
        }
    }
    Ok((prior(&counts), json!({ "name": args.trained_on, "sha256": sha256 })))
}

/// Takes the labels of rows with these texts away: they don't count.
fn leave_out(
    flag: &str,
    scored: &mut Scored,
    texts: &HashSet<Text>,
    what: &str,
    console: &mut Console,
) -> Result<()> {
    let is_known = |row: &Example| row.label.is_some() && texts.contains(&text(row));
    let rows = &mut scored.split.examples;
    let of = rows.iter().filter(|row| row.label.is_some()).count();
    let n = rows.iter().filter(|row| is_known(row)).count();
    let (some, all) = (count(n as u64), count(of as u64));
    let said = format!("{some} of {all} rows of {} have a text that {what}", scored.split.name);
    if n > 0 && n == of {
        return Err(Usage(format!("{flag}: {said}; name others")).into());
    }
    if n > 0 {
        console.say(&format!("{said}; they are left out"));
    }
    for row in rows {
        if is_known(row) {
            row.label = None;
        }
    }
    Ok(())
}

/// What the shift does, on rows that it wasn't fitted on where there are such.
fn tell(
    fitted: &Scored,
    held: Option<&Scored>,
    shift: &Shift,
    console: &mut Console,
) -> Result<()> {
    let which = match held {
        Some(_) => "which it isn't fitted on",
        None => {
            "which it is fitted on, so that it looks better than elsewhere; --holdout names others"
        }
    };
    let scored = held.unwrap_or(fitted);
    let n = scored.split.examples.iter().filter(|row| row.label.is_some()).count();
    console.tell(&format!("{}, {} rows, {which}:", scored.split.name, count(n as u64)))?;
    let none = vec![0.0; scored.labels.len()];
    let mut event = json!({ "event": "measured", "data": scored.split.name, "rows": n, "is_fitted": held.is_none() });
    for (what, key, bias) in
        [("as it is:", "before", &none), ("shifted:", "after", &shift.rescaling.bias)]
    {
        let Some(found) = recalls(scored, bias) else { break };
        console.tell(&format!(
            "  {what:<9} accuracy {:.2} %; worst class {}, recall {:.2} %; mean of the classes {:.2} %",
            100.0 * found.accuracy,
            printable(found.worst.0),
            100.0 * found.worst.1,
            100.0 * found.mean
        ))?;
        event[key] = json!({
            "accuracy": found.accuracy, "worst_class": found.worst.0, "worst_recall": found.worst.1, "mean_recall": found.mean,
        });
    }
    if let Some(cost) = cost(scored, &shift.rescaling.bias) {
        console.tell(&format!(
            "  its cost: churn {:.2} %, negative flips {:.2} %, most of them in {} ({:.2} % of its rows)",
            100.0 * cost.churn,
            100.0 * cost.nfr,
            printable(cost.worst.0),
            100.0 * cost.worst.1
        ))?;
        event["cost"] = json!({
            "churn": cost.churn, "nfr": cost.nfr, "worst_class": cost.worst.0, "worst_class_nfr": cost.worst.1,
        });
    }
    console.event(&event);
    if shift.rescaling.bias.iter().all(|bias| *bias == 0.0) {
        console.tell("  no shift is better than none; the model stays as it is")?;
    }
    Ok(())
}

/// The class of a row with `bias` (K,) on its logits, added as the folded head adds it.
fn says(scored: &Scored, row: usize, bias: &[f64]) -> usize {
    let logits = scored.predictions.logits_of(row);
    let shifted = |class: usize| logits[class] + bias[class] as f32;
    (0..bias.len()).fold(0, |a, b| if shifted(b) > shifted(a) { b } else { a })
}

/// How rows fare, all together and by class.
struct Recalls<'s> {
    accuracy: f64,
    worst: (&'s str, f64),
    mean: f64,
}

/// Of the labelled rows; `None` where no row has a label.
fn recalls<'s>(scored: &'s Scored, bias: &[f64]) -> Option<Recalls<'s>> {
    let of = shares_of_classes(scored, |row, label| says(scored, row, bias) == label);
    let (right, all) = of.iter().fold((0, 0), |sum, (_, n, all)| (sum.0 + n, sum.1 + all));
    let recalls: Vec<(&str, f64)> =
        of.iter().map(|(name, right, all)| (*name, *right as f64 / *all as f64)).collect();
    Some(Recalls {
        accuracy: right as f64 / all as f64,
        worst: recalls.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1))?,
        mean: recalls.iter().map(|(_, recall)| recall).sum::<f64>() / recalls.len() as f64,
    })
}

/// What changes for those that are served: by class the one that loses most of its rows.
struct Cost<'s> {
    churn: f64,
    nfr: f64,
    worst: (&'s str, f64),
}

/// Of the labelled rows; `None` where no row has a label.
fn cost<'s>(scored: &'s Scored, bias: &[f64]) -> Option<Cost<'s>> {
    let none = vec![0.0; bias.len()];
    let both = |row: usize| (says(scored, row, &none), says(scored, row, bias));
    let changed = shares_of_classes(scored, |row, _| both(row).0 != both(row).1);
    let lost = shares_of_classes(scored, |row, label| {
        let (old, new) = both(row);
        old == label && new != label
    });
    let all: u64 = lost.iter().map(|(.., all)| all).sum();
    let share =
        |of: &[(&str, u64, u64)]| of.iter().map(|(_, n, _)| n).sum::<u64>() as f64 / all as f64;
    let by_class = lost.iter().map(|(name, n, all)| (*name, *n as f64 / *all as f64));
    let worst = by_class.max_by(|a, b| a.1.total_cmp(&b.1))?;
    Some(Cost { churn: share(&changed), nfr: share(&lost), worst })
}

/// (name, rows for which it holds, rows) of each class that a labelled row has; it is asked of a row and its label.
fn shares_of_classes(
    scored: &Scored,
    holds: impl Fn(usize, usize) -> bool,
) -> Vec<(&str, u64, u64)> {
    let mut counts = vec![(0u64, 0u64); scored.labels.len()];
    for (row, example) in scored.split.examples.iter().enumerate() {
        let Some(label) = example.label.map(|label| label as usize) else { continue };
        if let Some((n, all)) = counts.get_mut(label) {
            *n += u64::from(holds(row, label));
            *all += 1;
        }
    }
    let met = scored.labels.iter().zip(counts).filter(|(_, (_, all))| *all > 0);
    met.map(|(name, (n, all))| (name.as_str(), n, all)).collect()
}

/// This very shift, where it is in the folder; another model there is an error.
fn done(output: &Path, made_from: &Value) -> Result<Option<Shift>> {
    let path = output.join("manifest.json");
    if !path.exists() {
        // What a shift that was stopped while it wrote has left begins anew.
        return match output.join("config.json").exists()
            && begun(output).as_ref() != Some(made_from)
        {
            true => Err(other_model(output, "a model without a manifest")),
            false => Ok(None),
        };
    }
    let text = fs::read(&path).with_context(|| path.display().to_string())?;
    let there: Value = serde_json::from_slice(&text).unwrap_or_default();
    let Some(record) = there.get("post_shift") else {
        return Err(other_model(output, "a model that no post-shift made"));
    };
    if record.get("made_from") != Some(made_from) {
        return Err(other_model(output, "another post-shift"));
    }
    let numbers = |key: &str| serde_json::from_value::<Vec<f64>>(record[key].clone());
    let of_record = || -> serde_json::Result<Shift> {
        Ok(Shift {
            rescaling: Rescaling { temperature: 1.0, bias: numbers("bias")? },
            errors_before: numbers("errors_before")?,
            errors_after: numbers("errors_after")?,
            round: serde_json::from_value(record["round"].clone())?,
        })
    };
    let shift =
        of_record().with_context(|| format!("{}: --fresh starts over here", path.display()))?;
    if shift.rescaling.bias.len() != shift.errors_before.len() {
        anyhow::bail!(
            "{}: its numbers aren't one a class; --fresh starts over here",
            path.display()
        );
    }
    Ok(Some(shift))
}

/// What the shift was made from whose record lies here: it is written before the model.
fn begun(output: &Path) -> Option<Value> {
    let mut record: Value = serde_json::from_slice(&fs::read(output.join(RECORD)).ok()?).ok()?;
    Some(record["made_from"].take())
}

const RECORD: &str = "shift.json";

/// The record, weights, config, tokenizer and `run.toml`, the manifest last.
fn write(
    folder: &Path,
    shift: &Shift,
    made_from: &Value,
    scored: &Scored,
    output: &Path,
) -> Result<()> {
    fs::create_dir_all(output)
        .with_context(|| format!("{}: can't be written", output.display()))?;
    let _lock = output::lock(output)?;
    let _ = fs::remove_file(output.join("manifest.json"));
    let record = json!({
        "made_from": made_from, "labels": scored.labels, "bias": shift.rescaling.bias, "round": shift.round,
        "errors_before": shift.errors_before, "errors_after": shift.errors_after,
    });
    write_json(&output.join(RECORD), &record)?;
    let model = Classifier::open(folder, Head::FromCheckpoint, &Device::Cpu)?.0;
    let params = shift.rescaling.fold(&model.params)?;
    save(output, &model.config, &params, folder)?;
    let fitted = scored.split.examples.iter().filter(|row| row.label.is_some());
    Chosen::new("the shift", fitted).with(&[folder])?.write(output)?;
    // What the next update reads: the rows, the length and the recipe of the model that this one is made of.
    let run = folder.join("run.toml");
    let text = match run.is_file() {
        true => fs::read(&run).with_context(|| run.display().to_string())?,
        false => settings::to_toml(&Settings::default())?.into_bytes(),
    };
    write_file(&output.join("run.toml"), &text)?;
    let mut files = serde_json::Map::new();
    for name in model_files(output)? {
        let sha256 = sha256_of_file(&output.join(&name))?;
        files.insert(name, sha256.into());
    }
    let manifest = json!({ "format": 1, "post_shift": record, "files": files });
    Ok(write_json(&output.join("manifest.json"), &manifest)?)
}
