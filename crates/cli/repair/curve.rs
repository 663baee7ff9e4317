//! Every model between two, on the held-out rows: its scores, re-fitted where asked for, and what they flip.

use std::collections::HashSet;

use anyhow::{Context, Result};
use lowchurn_churn::{Budget, Flips, Golden, Measurements, Pair, Predicted, Unmatched};
use lowchurn_data::alignment::refuse_unused;
use lowchurn_data::{Encoded, Example, LabelSet, Labels, Split};
use lowchurn_distill::{RefitTo, Rescaling, fit_temperature, fit_temperature_and_bias};
use serde::Serialize;

use super::models::{By, Models, Weights, between, reader, score, tops};
use crate::args::{Refit, Repair, Towards};
use crate::certification::{CALIBRATION_SHARE, calibration_rows};
use crate::chosen;
use crate::console::Console;
use crate::failure::Usage;
use crate::found;
use crate::golden::GoldenRows;
use crate::progress::count;
use crate::reader::unique;
use crate::rows::{Text, text};
use crate::seen;

/// A model that may be chosen, and what it does on the held-out rows.
pub struct Tried {
    pub alpha: f64,
    pub by: By,
    pub rescaling: Option<Rescaling>,
    /// (N·K), rescaled.
    pub logits: Vec<f32>,
    pub calibration: Measurements,
    /// On the rows that measure.
    pub measured: Flips,
    pub golden: Golden,
}

/// A point of `curve.json`.
#[derive(Serialize)]
pub struct CurvePoint<'t> {
    pub name: String,
    pub alpha: f64,
    pub is_fisher: bool,
    pub temperature: Option<f64>,
    pub bias: Option<&'t [f64]>,
    pub accuracy: Option<f64>,
    pub churn: Option<f64>,
    pub nfr: Option<f64>,
    pub flips: &'t Flips,
}

/// Held-out rows, and what each is for.
pub struct Holdout {
    pub split: Split,
    pub alignment: Vec<String>,
    pub tokens: Encoded,
    /// What is fitted or ordered by; empty where nothing is.
    pub calibration: Vec<u32>,
    /// What is told of: all rows, or those that weren't looked at before.
    pub measuring: Vec<u32>,
    pub old: Predicted,
    /// Rows of their own, encoded, with the old model's predictions.
    pub golden: Option<(GoldenRows, Encoded, Vec<u32>)>,
}

/// Held-out rows with the new model's labels, what was done to them, and what isn't known of the rows that the models were trained on.
pub fn rows_of(
    args: &Repair,
    models: &Models,
    budget: Option<&Budget>,
    console: &mut Console,
) -> Result<(Split, Vec<String>, Vec<String>)> {
    let labels = &models.new[0].labels;
    let mut reader = reader(args, models)?;
    let mut part = reader.read(&args.holdout, None, "validation", Labels::IfPresent, console)?;
    let seen: Vec<&[String]> = reader.seen.iter().map(Vec::as_slice).collect();
    refuse_unused(&reader.map, &seen)?;
    for line in &reader.said {
        console.tell(&format!("labels: {line}"))?;
    }
    let mut said = std::mem::take(&mut reader.said);
    let (hub, old) = (&models.hub, &models.old);
    let (mut read, mut unknown) = (Vec::new(), Vec::new());
    for model in &models.new {
        let train = seen::train_of(model, hub, &mut unknown, console);
        read.extend(train.is_some().then_some(model));
        leave_out_seen(&mut part.examples, train.as_ref(), &model.name, &mut said, console)?;
    }
    let train = seen::train_of_old(old, &read, hub, &mut unknown, console);
    leave_out_seen(&mut part.examples, train.as_ref(), &old.name, &mut said, console)?;
    if budget.is_some() {
        leave_out_chosen(&mut part.examples, models, &mut said, console)?;
    }
    let name = part.name.clone();
    let split = Split::new(&name, unique(vec![part]), LabelSet::new(labels.clone())?);
    let labelled = |row: &&Example| row.label.is_some();
    let n_labelled = split.examples.iter().filter(labelled).count();
    if split.examples.is_empty() {
        return Err(Usage(format!("--holdout {}: no row in it", args.holdout)).into());
    }
    if n_labelled == 0 && budget.is_none() {
        return Err(Usage(format!(
            "{name}: no row has a label, so the new model's accuracy can't be kept; give labels, or a budget that needs \
             none: --max-churn 2%"
        ))
        .into());
    }
    if n_labelled == 0 && args.refit != Refit::None && args.towards == Towards::Labels {
        let said = "no row has a label to re-fit by; give labels, or --towards old";
        return Err(Usage(format!("{name}: {said}")).into());
    }
    if let Some(budget) = budget {
        let is_calibration = calibration_rows(&split.examples);
        let rest = split.examples.iter().zip(&is_calibration).filter(|(_, is)| !**is);
        let rest: Vec<&Example> = rest.map(|(row, _)| row).collect();
        let n_labelled = rest.iter().copied().filter(|row| row.label.is_some()).count();
        budget.check_rows(rest.len() as u64, n_labelled as u64, 1.0 - CALIBRATION_SHARE)?;
        if let Some(remark) = budget.remark_rows(n_labelled as u64) {
            console.say(&remark);
        }
    }
    said.extend(unknown.iter().cloned());
    Ok((split, said, unknown))
}

/// Rows that a model was trained on neither measure it nor choose.
fn leave_out_seen(
    rows: &mut Vec<Example>,
    train: Option<&Split>,
    model: &str,
    notes: &mut Vec<String>,
    console: &mut Console,
) -> Result<()> {
    let texts = train.map(seen::texts).unwrap_or_default();
    let is_seen = |row: &Example| texts.contains(&text(row));
    let n = rows.iter().filter(|row| is_seen(row)).count();
    if n == 0 {
        return Ok(());
    }
    let said = seen::said(n, rows.len(), model);
    if n == rows.len() {
        return Err(Usage(format!(
            "{said}, so nothing can be measured on them; give others with --holdout"
        ))
        .into());
    }
    console.say(&format!("{said}; they are left out"));
    notes.push(format!("{said}; they were left out"));
    rows.retain(|row| !is_seen(row));
    Ok(())
}

/// Rows that chose a new model may calibrate, and don't certify.
fn leave_out_chosen(
    rows: &mut Vec<Example>,
    models: &Models,
    notes: &mut Vec<String>,
    console: &mut Console,
) -> Result<()> {
    for model in &models.new {
        let Some(chosen) = chosen::read(&model.folder)? else { continue };
        let (keys, is_calibration) = (chosen::keys(&*rows), calibration_rows(rows));
        let would =
            keys.iter().zip(&is_calibration).map(|(key, is)| !is && chosen.rows.contains(key));
        let would: Vec<bool> = would.collect();
        let n = would.iter().filter(|is| **is).count();
        let of = is_calibration.iter().filter(|is| !**is).count();
        if n == 0 {
            continue;
        }
        let said = format!(
            "{} of {} certification rows chose {} of {}",
            count(n as u64),
            count(of as u64),
            chosen.what,
            model.name
        );
        if n == of {
            return Err(Usage(format!(
                "{said}, so nothing can be certified on them; give others with --holdout"
            ))
            .into());
        }
        console.say(&format!("{said}; they are left out"));
        notes.push(format!("{said}; they were left out"));
        // With all rows of their texts, so that none of those changes sides.
        let those = rows.iter().zip(&would).filter(|(_, is)| **is);
        let texts: HashSet<Text> = those.map(|(row, _)| text(row)).collect();
        let stays: Vec<bool> = rows.iter().map(|row| !texts.contains(&text(row))).collect();
        let mut stays = stays.into_iter();
        rows.retain(|_| stays.next().unwrap_or(true));
    }
    Ok(())
}

pub fn holdout(
    models: &Models,
    weights: &Weights,
    split: Split,
    alignment: Vec<String>,
    golden: Option<GoldenRows>,
    args: &Repair,
    console: &mut Console,
) -> Result<Holdout> {
    let n = split.examples.len() as u32;
    let is_calibration = calibration_rows(&split.examples);
    let is_split = args.refit != Refit::None || args.budget.is_set();
    let (calibration, rest): (Vec<u32>, Vec<u32>) =
        (0..n).partition(|row| is_calibration[*row as usize]);
    let (calibration, measuring) =
        if is_split { (calibration, rest) } else { (Vec::new(), (0..n).collect()) };
    if is_split && (calibration.is_empty() || measuring.is_empty()) {
        return Err(Usage(format!(
            "{}: {n} rows are too few to be split into some to fit on and some to measure on",
            split.name
        ))
        .into());
    }
    let old_tokens = found::tokens_of(&models.old, &weights.old.config, &split.examples)?;
    let old = score(&weights.old, &old_tokens, models, console)?;
    let old = found::predicted(&models.old, &split, &models.old.labels, None, &old)?;
    let golden = match golden {
        None => None,
        Some(rows) => {
            let examples = match &rows {
                GoldenRows::Ids(_) => Vec::new(),
                GoldenRows::Rows(rows) => rows.examples.clone(),
            };
            let tokens = found::tokens_of(&models.old, &weights.old.config, &examples)?;
            let logits = score(&weights.old, &tokens, models, console)?;
            let tops = tops(&logits, models.old.labels.len());
            Some((rows, found::tokens_of(&models.new[0], &weights.new.config, &examples)?, tops))
        }
    };
    let tokens = found::tokens_of(&models.new[0], &weights.new.config, &split.examples)?;
    Ok(Holdout { split, alignment, tokens, calibration, measuring, old, golden })
}

/// Every α once, plain and by Fisher information; the ends, which are the same in both, once.
pub fn try_all(
    args: &Repair,
    models: &Models,
    weights: &Weights,
    holdout: &Holdout,
    alphas: &[f64],
    console: &mut Console,
) -> Result<Vec<Tried>> {
    let plain = alphas.iter().map(|alpha| (*alpha, By::Share));
    let inner = alphas.iter().filter(|alpha| **alpha > 0.0 && **alpha < 1.0);
    let by_fisher = inner.filter(|_| weights.fisher.is_some()).map(|alpha| (*alpha, By::Fisher));
    let mut tried = Vec::new();
    for (alpha, by) in plain.chain(by_fisher) {
        let model = between(weights, alpha, by)?;
        let logits = score(&model, &holdout.tokens, models, console)?;
        let rescaling = rescaling(args, holdout, &logits).with_context(|| format!("α {alpha}"))?;
        let logits = rescaling.as_ref().map_or(logits.clone(), |found| found.apply(&logits));
        let pair = pair(models, holdout, &logits)?;
        let golden = match &holdout.golden {
            None => Golden::default(),
            Some((GoldenRows::Ids(ids), ..)) => {
                Golden::look_up(ids, &pair.ids, &pair.old, &pair.new)
            }
            Some((GoldenRows::Rows(rows), tokens, old)) => {
                let logits = score(&model, tokens, models, console)?;
                let logits = rescaling.as_ref().map_or(logits.clone(), |r| r.apply(&logits));
                let ids: Vec<String> = rows.examples.iter().map(|row| row.id.clone()).collect();
                Golden::look_up(&ids, &ids, old, &tops(&logits, weights.new.labels().len()))
            }
        };
        let flips = |rows: &[u32]| pair.subset(rows).flips();
        let measured = flips(&holdout.measuring);
        let ids = holdout.measuring.iter().map(|row| &pair.ids[*row as usize][..]).collect();
        let calibration = Measurements {
            all: flips(&holdout.calibration),
            golden: golden.but(&ids),
            ..Measurements::default()
        };
        tried.push(Tried { alpha, by, rescaling, logits, calibration, measured, golden });
    }
    Ok(tried)
}

pub fn pair(models: &Models, holdout: &Holdout, logits: &[f32]) -> Result<Pair> {
    let name = models.new.iter().map(|found| found.name.as_str()).collect::<Vec<_>>().join(" + ");
    let ids = holdout.split.examples.iter().map(|row| row.id.clone()).collect();
    let gold = holdout.split.examples.iter().map(|row| row.label).collect();
    let new = Predicted::from_logits(&name, &models.new[0].labels, ids, gold, logits)?;
    Ok(Pair::align(&holdout.old, &new, &[], Unmatched::Refuse)?)
}

/// Temperature and bias of one model between, fitted on the calibration rows.
pub fn rescaling(args: &Repair, holdout: &Holdout, logits: &[f32]) -> Result<Option<Rescaling>> {
    if args.refit == Refit::None {
        return Ok(None);
    }
    let classes = holdout.split.labels.len();
    let n_old = holdout.old.labels.len();
    // Towards old scores only the old classes are compared: the old model has none for the others.
    let n_fitted = if args.towards == Towards::Old { n_old } else { classes };
    let row = |row: &u32| *row as usize;
    let fitted: Vec<f32> = holdout
        .calibration
        .iter()
        .flat_map(|at| logits[row(at) * classes..][..n_fitted].to_vec())
        .collect();
    let labels: Vec<Option<u32>> =
        holdout.calibration.iter().map(|at| holdout.split.examples[row(at)].label).collect();
    let scores = holdout.old.scores.as_deref().unwrap_or_default();
    let old: Vec<f64> = holdout
        .calibration
        .iter()
        .flat_map(|at| scores[row(at) * n_old..][..n_old].iter().map(|p| f64::from(*p)))
        .collect();
    let to = match args.towards {
        Towards::Labels => RefitTo::Labels(&labels),
        Towards::Old => RefitTo::Probabilities(&old),
    };
    let mut found = match args.refit {
        Refit::Bias => fit_temperature_and_bias(&fitted, n_fitted, to)?,
        _ => Rescaling {
            temperature: fit_temperature(&fitted, n_fitted, to)?,
            bias: vec![0.0; n_fitted],
        },
    };
    found.bias.resize(classes, 0.0);
    Ok(Some(found))
}

/// The new model as it is, on the rows that measure: what accuracy is held against.
pub fn plain_new(
    models: &Models,
    weights: &Weights,
    holdout: &Holdout,
    tried: &[Tried],
    console: &mut Console,
) -> Result<Flips> {
    if let Some(found) = tried.iter().find(|t| t.alpha == 0.0 && t.rescaling.is_none()) {
        return Ok(found.measured);
    }
    let logits = score(&weights.new, &holdout.tokens, models, console)?;
    Ok(pair(models, holdout, &logits)?.subset(&holdout.measuring).flips())
}

impl Tried {
    pub fn name(&self) -> String {
        let how = match self.by {
            By::Share => "",
            By::Fisher => " by Fisher information",
        };
        format!("α {}{how}", self.alpha)
    }

    pub fn line(&self) -> String {
        let rescaled = self
            .rescaling
            .as_ref()
            .map_or(String::new(), |found| format!("  temperature {:.3}", found.temperature));
        format!("{}: {}{rescaled}", self.name(), numbers(&self.measured))
    }
}

pub fn numbers(flips: &Flips) -> String {
    let percent =
        |share: Option<f64>| share.map_or("–".into(), |share| format!("{:.2} %", 100.0 * share));
    format!(
        "accuracy {}, churn {}, negative flips {}",
        percent(flips.accuracy_new()),
        percent(flips.churn()),
        percent(flips.nfr())
    )
}

pub fn curve_point(tried: &Tried) -> CurvePoint<'_> {
    CurvePoint {
        name: tried.name(),
        alpha: tried.alpha,
        is_fisher: tried.by == By::Fisher,
        temperature: tried.rescaling.as_ref().map(|found| found.temperature),
        bias: tried.rescaling.as_ref().map(|found| &found.bias[..]),
        accuracy: tried.measured.accuracy_new(),
        churn: tried.measured.churn(),
        nfr: tried.measured.nfr(),
        flips: &tried.measured,
    }
}
