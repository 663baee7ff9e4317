//! `post-shift`: a trained model's logits on labelled rows → one number a class that helps the worst one → a model folder.
//!
//! Trains nothing. The numbers go into the head's bias, so that nothing else is needed to serve the model. On the rows that they
//! were fitted on they look better than on others, so it is told which rows a number is of.

mod measured;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::Device;
use lowchurn_data::{Example, Kind, LabelSet, Labels, Split};
use lowchurn_distill::{
    Base, Rescaling, Shift, ShiftTo, fit_shift, prior, sha256_of_file, sha256_of_model, write_file,
    write_json,
};
use lowchurn_models::{Classifier, Head, save};
use serde_json::{Value, json};

use self::measured::tell;
use crate::args::{PostShift, ShiftBase, ShiftFor};
use crate::chosen::Chosen;
use crate::console::Console;
use crate::data;
use crate::earlier::{self, Record, TrainedOn};
use crate::eval::{Asked, Scored, chosen_split, score, wishes};
use crate::failure::Usage;
use crate::progress::count;
use crate::repair::{model_files, other_model};
use crate::rows::{Text, settings_of, text};
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
        "model": { "name": args.model, "sha256": sha256_of_model(&folder)? },
        "data": { "name": scored.split.name, "sha256": scored.split.sha256 },
        "max_length": args.scoring.max_length,
        "to": format!("{to:?}"),
        "bf16": args.scoring.bf16,
    });
    let model = found::describe(&args.model, folder.clone())?;
    let read = earlier::trained_on(&model, &hub, console);
    let read = read.and_then(|rows| rows.map(TrainedOn::whole).transpose());
    let train = seen::or_unknown(read, &model, &mut Vec::new(), console).flatten();
    let trained = train.as_ref().map(seen::texts).unwrap_or_default();
    if args.trained_on.is_none()
        && train.is_none()
        && !Record::of(&settings_of(&folder)?).is_empty()
    {
        return Err(Usage(format!(
            "{}: the rows that it was trained on tell the classes' shares, and can't be read; name some with such shares: \
             --trained-on",
            args.model
        ))
        .into());
    }
    let was_trained = format!("{} was trained on", args.model);
    leave_out("--data", &mut scored, &trained, &was_trained, console)?;
    let (shares, shares_from) = shares(args, &scored, train.as_ref(), console)?;
    let made_from = with(made_from, "trained_on", shares_from);
    let there = if args.fresh { None } else { done(&output, &made_from, scored.labels.len())? };
    let is_done = there.is_some();
    if is_done && args.holdout.is_none() {
        console.tell(&format!("{} is finished; --fresh starts over", output.display()))?;
        return Ok(0);
    }
    let labels: Vec<Option<u32>> = scored.split.examples.iter().map(|row| row.label).collect();
    let shift = match there {
        Some(shift) => shift,
        None => fit_shift(&scored.predictions.logits, &labels, &scored.labels, &shares, to)
            .with_context(|| fitted_on(args, train.as_ref().is_some_and(is_labelled)))?,
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
    tell(&scored, held.as_ref(), (to, &shift), console)?;
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
fn fitted_on(args: &PostShift, has_record: bool) -> String {
    match &args.trained_on {
        Some(shares) => format!("--data {}, --trained-on {shares}", args.data),
        None if has_record => {
            format!("--data {}, shares of the rows that {} was trained on", args.data, args.model)
        }
        None => format!("--data {}", args.data),
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

fn is_labelled(train: &Split) -> bool {
    train.examples.iter().any(|row| row.label.is_some())
}

/// (K,) of the rows that the model was trained on, and what they are: those that are named, else those of its own record, else the
/// rows to fit on.
fn shares(
    args: &PostShift,
    scored: &Scored,
    train: Option<&Split>,
    console: &mut Console,
) -> Result<(Vec<f64>, Value)> {
    let train = train.filter(|train| is_labelled(train));
    let (examples, sha256, said) = match (&args.trained_on, train) {
        (Some(text), _) => {
            let hub = places::hub()?;
            let data = data::open(text, &hub, console)?;
            let names = data.split_names();
            let default = names.iter().any(|name| name == "train").then_some("train");
            let split = chosen_split(data.split.as_deref().or(default), &data)?;
            let wishes = wishes(&args.scoring, Kind::SingleLabel);
            let known = LabelSet::of_outputs(scored.labels.clone())?;
            let rows = data.read(&split, &wishes, Labels::Required, Some(&known), &hub, console)?;
            (rows.examples, Some(rows.sha256), rows.name)
        }
        (None, Some(train)) => {
            let said = format!("rows that {} was trained on", args.model);
            (train.examples.clone(), Some(train.sha256.clone()), said)
        }
        (None, None) => {
            let said = format!(
                "{}, since nothing says which rows {} was trained on; --trained-on does",
                scored.split.name, args.model
            );
            (scored.split.examples.clone(), None, said)
        }
    };
    let mut counts = vec![0.0; scored.labels.len()];
    for label in examples.iter().filter_map(|row| row.label) {
        if let Some(count) = counts.get_mut(label as usize) {
            *count += 1.0;
        }
    }
    console.tell(&format!("shares of the classes: of {said}"))?;
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

/// This very shift, where it is in the folder; another model there is an error.
fn done(output: &Path, made_from: &Value, classes: usize) -> Result<Option<Shift>> {
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
    let all = [&shift.rescaling.bias, &shift.errors_before, &shift.errors_after];
    if all.iter().any(|of| of.len() != classes || of.iter().any(|x| !x.is_finite())) {
        anyhow::bail!(
            "{}: its numbers aren't one a class, of {classes}; --fresh starts over here",
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
    let examples = &scored.split.examples;
    let fitted = |row: usize| examples[row].label.is_some();
    Chosen::new("the shift", examples, fitted).with(&[folder])?.write(output)?;
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
