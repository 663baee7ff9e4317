//! `post-shift`: a trained model's logits on labelled rows → one number a class that helps the worst one → a model folder.
//!
//! Trains nothing. The numbers go into the head's bias, so that nothing else is needed to serve the model. On the rows that they
//! were fitted on they look better than on others, so it is told which rows a number is of.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::Device;
use lowchurn_data::{Example, Kind, LabelSet, Labels};
use lowchurn_distill::{
    Base, Shift, ShiftTo, fit_shift, prior, sha256_of_file, write_file, write_json,
};
use lowchurn_models::{Classifier, Head, save};
use serde_json::{Value, json};

use crate::args::{PostShift, ShiftBase, ShiftFor};
use crate::console::Console;
use crate::data;
use crate::eval::{Asked, Scored, chosen_split, score, wishes};
use crate::failure::Usage;
use crate::progress::{count, printable};
use crate::repair::{model_files, other_model};
use crate::rows::text;
use crate::settings::{self, Settings};
use crate::{base, kinds, output, places, seen};

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
    let scored = score(&asked, console)?;
    kinds::refuse_other(scored.outputs.kind, "post-shift")?;
    let (shares, shares_sha256) = shares(args, &scored, console)?;
    let made_from = json!({
        "model": { "name": args.model, "sha256": base::sha256(&folder)? },
        "data": { "name": scored.split.name, "sha256": scored.split.sha256 },
        "trained_on": { "name": args.trained_on, "sha256": shares_sha256 },
        "to": format!("{to:?}"),
        "bf16": args.scoring.bf16,
    });
    if !args.fresh && is_done(&output, &made_from)? {
        let does = if args.holdout.is_some() { "measures again" } else { "starts over" };
        console.tell(&format!("{} is finished; --fresh {does}", output.display()))?;
        return Ok(0);
    }
    let labels: Vec<Option<u32>> = scored.split.examples.iter().map(|row| row.label).collect();
    let shift = fit_shift(&scored.predictions.logits, &labels, &scored.labels, &shares, to)?;
    let held = match &args.holdout {
        Some(data) => {
            (asked.data, asked.split) = (data, None);
            Some(leave_out_fitted(score(&asked, console)?, &scored, console)?)
        }
        None => None,
    };
    tell(&scored, held.as_ref(), &shift, console)?;
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

fn shift_to(args: &PostShift) -> Result<ShiftTo> {
    let refuse = |what: String| Err(Usage(what).into());
    let weight = args.worst_class_weight;
    if !(0.0..=1.0).contains(&weight) {
        return refuse(format!("--worst-class-weight {weight}: expected a number from 0 to 1"));
    }
    if !(args.step > 0.0 && args.step.is_finite()) {
        return refuse(format!("--step {}: expected a number above 0", args.step));
    }
    Ok(match args.objective {
        ShiftFor::Balanced => ShiftTo::Balanced,
        ShiftFor::Robust => ShiftTo::Robust {
            weight,
            base: match args.base {
                ShiftBase::Balanced => Base::Balanced,
                ShiftBase::Standard => Base::Standard,
            },
            step: args.step,
            rounds: args.rounds,
        },
    })
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

/// (K,) of the rows that the model was trained on, where they are named, and the hash of those rows.
fn shares(
    args: &PostShift,
    scored: &Scored,
    console: &mut Console,
) -> Result<(Vec<f64>, Option<String>)> {
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
    Ok((prior(&counts), sha256))
}

/// Takes the labels of rows away whose text the shift is fitted on: they don't count.
fn leave_out_fitted(mut held: Scored, fitted: &Scored, console: &mut Console) -> Result<Scored> {
    let texts = seen::texts(&fitted.split);
    let is_fitted = |row: &Example| row.label.is_some() && texts.contains(&text(row));
    let of = held.split.examples.iter().filter(|row| row.label.is_some()).count();
    let n = held.split.examples.iter().filter(|row| is_fitted(row)).count();
    let said = format!(
        "{} of {} rows of {} have a text that the shift is fitted on",
        count(n as u64),
        count(of as u64),
        held.split.name
    );
    if n > 0 && n == of {
        return Err(Usage(format!("--holdout: {said}; name others")).into());
    }
    if n > 0 {
        console.say(&format!("{said}; they are left out"));
    }
    for row in &mut held.split.examples {
        if is_fitted(row) {
            row.label = None;
        }
    }
    Ok(held)
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
    console.event(&event);
    if shift.rescaling.bias.iter().all(|bias| *bias == 0.0) {
        console.tell("  no shift is better than none; the model stays as it is")?;
    }
    Ok(())
}

/// How rows fare, all together and by class.
struct Recalls<'s> {
    accuracy: f64,
    worst: (&'s str, f64),
    mean: f64,
}

/// Of the labelled rows, with `bias` (K,) on their logits; `None` where no row has a label.
fn recalls<'s>(scored: &'s Scored, bias: &[f64]) -> Option<Recalls<'s>> {
    let mut counts = vec![(0u64, 0u64); bias.len()]; // right, all
    for (row, example) in scored.split.examples.iter().enumerate() {
        let Some(label) = example.label else { continue };
        let shifted =
            |class: usize| f64::from(scored.predictions.logits_of(row)[class]) + bias[class];
        let says = (0..bias.len()).fold(0, |a, b| if shifted(b) > shifted(a) { b } else { a });
        if let Some((right, all)) = counts.get_mut(label as usize) {
            *right += u64::from(says == label as usize);
            *all += 1;
        }
    }
    let seen = counts.iter().zip(&scored.labels).filter(|((_, all), _)| *all > 0);
    let of: Vec<(&str, f64)> =
        seen.map(|((right, all), name)| (name.as_str(), *right as f64 / *all as f64)).collect();
    let (right, all) = counts.iter().fold((0, 0), |sum, n| (sum.0 + n.0, sum.1 + n.1));
    Some(Recalls {
        accuracy: right as f64 / all as f64,
        worst: of.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1))?,
        mean: of.iter().map(|(_, recall)| recall).sum::<f64>() / of.len() as f64,
    })
}

/// Whether this very shift is in the folder; another model there is an error.
fn is_done(output: &Path, made_from: &Value) -> Result<bool> {
    let path = output.join("manifest.json");
    if !path.exists() {
        // What a shift that was stopped while it wrote has left begins anew.
        return match output.join("config.json").exists()
            && begun(output).as_ref() != Some(made_from)
        {
            true => Err(other_model(output, "a model without a manifest")),
            false => Ok(false),
        };
    }
    let text = fs::read(&path).with_context(|| path.display().to_string())?;
    let there: Value = serde_json::from_slice(&text).unwrap_or_default();
    match there.get("post_shift").and_then(|shift| shift.get("made_from")) {
        None => Err(other_model(output, "a model that no post-shift made")),
        Some(found) if found == made_from => Ok(true),
        Some(_) => Err(other_model(output, "another post-shift")),
    }
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
