//! The models of a repair: found, held against each other, and every model between them.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use candle_core::Tensor;
use lowchurn_data::{Columns, Encoded, Example, Labels, NewClasses, parse_map};
use lowchurn_distill::{Fingerprint, Predictions, interpolate, interpolate_fisher, soup};
use lowchurn_hub::Hub;
use lowchurn_models::{Classifier, Params};

use crate::args::Repair;
use crate::console::Console;
use crate::data::Wishes;
use crate::device::{self, Compute};
use crate::earlier::{self, Record};
use crate::failure::Usage;
use crate::found::{self, Found};
use crate::reader::Reader;
use crate::rows;
use crate::{base, information, kinds, places};

/// The models as they lie on the disk.
pub struct Models {
    pub hub: Hub,
    pub compute: Compute,
    pub old: Found,
    /// At least one.
    pub new: Vec<Found>,
}

/// The weights, and what all models between need to be scored.
pub struct Weights {
    pub old: Classifier,
    /// The mean where there are several.
    pub new: Classifier,
    pub fisher: Option<BTreeMap<String, Tensor>>,
}

/// Finds all models and refuses what can't be put together, before any weights are read.
pub fn open_models(args: &Repair, console: &mut Console) -> Result<Models> {
    let hub = places::hub()?;
    let compute = Compute::open(&args.device, device::precision(args.bf16), console)?;
    let mut find = |name: &String| -> Result<Found> {
        let folder = base::find("", name)?.folder(&hub, console)?;
        found::describe(name, folder)
    };
    let old = find(&args.old)?;
    let new = args.new.iter().map(find).collect::<Result<Vec<_>>>()?;
    for found in new.iter().chain([&old]) {
        kinds::refuse_other(found.outputs.kind, "repair")?;
    }
    let tokenizer = |found: &Found| -> Result<String> {
        Ok(Fingerprint::of(&found.name, &found.folder, &found.labels, 1, &[])?.tokenizer)
    };
    let of_old = tokenizer(&old)?;
    for found in &new {
        let (a, b) = (&old.name, &found.name);
        if found.sha256 == old.sha256 {
            return Err(
                Usage(format!("{a} and {b} are the same model; there is nothing between")).into()
            );
        }
        if tokenizer(found)? != of_old {
            return Err(Usage(format!(
                "{a} and {b} have different tokenizers, so there is no model between them; repair needs a model that \
                 was trained from {a}: lowchurn update --base {a}"
            ))
            .into());
        }
        if found.labels.get(..old.labels.len()) != Some(&old.labels[..]) {
            return Err(Usage(format!(
                "{a} has the labels {}, but {b} has {}; weights are combined where the new model's labels begin with \
                 the old one's, in their order",
                old.labels.join(", "),
                found.labels.join(", ")
            ))
            .into());
        }
        if found.labels != new[0].labels {
            let (a, b) = (&new[0], found);
            return Err(Usage(format!(
                "{} has the labels {}, but {} has {}; weights are averaged where all have the same",
                a.name,
                a.labels.join(", "),
                b.name,
                b.labels.join(", ")
            ))
            .into());
        }
    }
    Ok(Models { hub, compute, old, new })
}

/// Reads all weights, averages the new ones, and takes the Fisher information where it is asked for.
pub fn weights(
    args: &Repair,
    models: &Models,
    fisher_rows: Option<&(usize, Vec<Example>)>,
    console: &mut Console,
) -> Result<Weights> {
    let old = found::open_model(&models.old, &models.compute)?;
    let new = models
        .new
        .iter()
        .map(|found| found::open_model(found, &models.compute))
        .collect::<Result<Vec<_>>>()?;
    let params: Vec<&Params> = new.iter().map(|model| &model.params).collect();
    let mean = match params[..] {
        [only] => only.clone(),
        _ => soup(&params)?,
    };
    let mut new = Classifier::new(new[0].config.clone(), mean)?;
    new.precision = models.compute.precision;
    // Refused now, not after the first pass.
    interpolate(&old.params, &new.params, 0.0)
        .with_context(|| format!("{} and {}", models.old.name, args.new.join(", ")))?;
    let Some((n_rows, examples)) = fisher_rows else {
        return Ok(Weights { old, new, fisher: None });
    };
    let device = &models.compute.device;
    let found = information::take(&models.old, &old, examples, *n_rows, device, console)?;
    let fisher = found.ok_or_else(|| anyhow!("interrupted"))?; // never: repair leaves signals as they are
    Ok(Weights { old, new, fisher: Some(fisher) })
}

/// Rows like those that the old model was trained on.
pub fn fisher_rows(args: &Repair, models: &Models, console: &mut Console) -> Result<Vec<Example>> {
    let record = Record::of(&rows::settings_of(&models.old.folder)?);
    let mut reader = reader(args, models)?;
    let (data, split) = match (&args.fisher_data, record.data) {
        (Some(data), _) => (data.clone(), None),
        (None, Some(source)) => {
            reader.wishes = earlier::wishes(&source);
            (source.data, source.split)
        }
        (None, None) => {
            return Err(Usage(format!(
                "{} doesn't say which rows it was trained on; name some like them with --fisher-data DATA",
                args.old
            ))
            .into());
        }
    };
    Ok(reader.read(&data, split.as_deref(), "train", Labels::Ignored, console)?.examples)
}

/// How a model between takes its share of the old weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The same of each weight.
    Share,
    /// More of those that matter to the old model.
    Fisher,
}

pub fn between(weights: &Weights, alpha: f64, by: By) -> Result<Classifier> {
    let (old, new) = (&weights.old.params, &weights.new.params);
    let params = match &weights.fisher {
        Some(fisher) if by == By::Fisher => interpolate_fisher(old, new, fisher, alpha)?,
        _ => interpolate(old, new, alpha)?,
    };
    let mut model = Classifier::new(weights.new.config.clone(), params)?;
    model.precision = weights.new.precision;
    Ok(model)
}

/// Of all rows that the user names.
pub fn columns(args: &Repair) -> Columns {
    Columns {
        text: args.text_column.clone(),
        pair: args.pair_column.clone(),
        label: args.label_column.clone(),
        id: args.id_column.clone(),
    }
}

pub fn reader<'m>(args: &Repair, models: &'m Models) -> Result<Reader<'m>> {
    Ok(Reader {
        wishes: Wishes { columns: columns(args), ..Wishes::default() },
        labels: models.new[0].labels.clone(),
        map: args.label_map.as_deref().map(parse_map).transpose()?.unwrap_or_default(),
        new_classes: NewClasses::Refused,
        said: Vec::new(),
        seen: Vec::new(),
        hub: &models.hub,
    })
}

/// (N·K)
pub fn score(
    model: &Classifier,
    tokens: &Encoded,
    models: &Models,
    console: &mut Console,
) -> Result<Vec<f32>> {
    if tokens.rows() == 0 {
        return Ok(Vec::new());
    }
    Ok(found::logits(model, tokens, &models.compute, console)?.logits)
}

pub fn tops(logits: &[f32], classes: usize) -> Vec<u32> {
    let predictions = Predictions { classes, logits: logits.to_vec() };
    (0..predictions.rows()).map(|row| predictions.predicted(row)).collect()
}
