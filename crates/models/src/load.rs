//! A checkpoint's tensors → parameters by their canonical names. Strict: what is missing, left over or of another shape
//! is listed by name in one error, and only a new head (and what stands between it and the encoder) may start from fresh values.

use std::{collections::BTreeMap, path::Path};

use candle_core::{Device, Tensor, Var};

use crate::architecture::{depth, role, shapes};
use crate::error::{Misfit, Misshaped};
use crate::layout::{Depth, Role};
use crate::weights::{Entry, Weights};
use crate::{Config, Error, Params, Result, is_head};

/// Where the classification head comes from.
pub enum Head<'n> {
    /// The checkpoint's own, with the labels of its config (`LABEL_0` and so on where it names none).
    FromCheckpoint,
    /// Weight from N(0, `initializer_range`), bias zero; `normal` gives standard normal numbers. What the checkpoint lacks
    /// between encoder and head, such as a pooler, is made the same way, a norm's weight as ones.
    Fresh { labels: Vec<String>, normal: &'n mut dyn FnMut() -> f64 },
    /// The checkpoint's own with rows added for new classes, made as those of a fresh head. `labels` are the checkpoint's,
    /// in their order, then the new ones.
    Grown { labels: Vec<String>, normal: &'n mut dyn FnMut() -> f64 },
}

/// What loading had to make up, and what it left lying.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadReport {
    /// Parameters that got fresh values (canonical names).
    pub fresh: Vec<String>,
    /// Parameters that kept their rows and got fresh ones for new classes (canonical names).
    pub grown: Vec<String>,
    /// Tensors of the checkpoint that nothing uses (names as in the file).
    pub unused: Vec<String>,
}

/// Reads the parameters of the model in `dir`; `config` gets the labels of the head.
pub(crate) fn load(
    dir: &Path,
    config: &mut Config,
    head: Head,
    device: &Device,
) -> Result<(Params, LoadReport)> {
    let weights = Weights::open(dir)?;
    let mut report = LoadReport::default();
    let mut found = by_parameter(&weights, config, &mut report)?;
    let mut normal = None;
    let mut growth = None;
    match head {
        Head::FromCheckpoint => name_labels(config, &found),
        Head::Fresh { labels, normal: source } => {
            // What the file has for the old classes is of no use to the new ones.
            found.retain(|name, entry| {
                let is_old_head = is_head(name);
                if is_old_head {
                    report.unused.push(entry.name.clone());
                }
                !is_old_head
            });
            set_labels(config, labels)?;
            normal = Some(source);
        }
        Head::Grown { labels, normal: source } => {
            name_labels(config, &found);
            if !labels.starts_with(&config.labels) {
                let (path, old) = (weights.path, config.labels.clone());
                return Err(Error::GrownLabels { path, old, new: labels });
            }
            growth = Some((labels, source));
        }
    }
    report.unused.sort();

    let expected: BTreeMap<_, _> = shapes(config).into_iter().collect();
    let mut misfit = misfit(&expected, &found);
    // What a base model may lack.
    let may_be_fresh = |name: &str| depth(config, name) == Depth::Head;
    if normal.is_some() {
        report.fresh = misfit.missing.extract_if(.., |name| may_be_fresh(name)).collect();
    } else if misfit.missing.iter().any(|name| is_head(name))
        && misfit.missing.iter().all(|name| may_be_fresh(name))
        && misfit.surplus.is_empty()
        && misfit.misshaped.is_empty()
    {
        return Err(Error::NoHead { path: weights.path, missing: misfit.missing });
    }
    if !misfit.is_empty() {
        misfit.key = contradicted(config, &misfit);
        return Err(Error::Misfit { path: weights.path, misfit: misfit.into() });
    }

    let mut params = BTreeMap::new();
    for (name, shape) in expected {
        let var = match (found.get(&name), &mut normal) {
            (Some(entry), _) => Var::from_vec(weights.read(entry)?, shape, device)?,
            (None, Some(normal)) => fresh(&name, &shape, config.initializer_range, normal, device)?,
            (None, None) => continue, // unreachable: what is missing was an error above
        };
        params.insert(name, var);
    }
    if let Some((labels, normal)) = growth {
        set_labels(config, labels)?;
        report.grown = grow(&mut params, config, normal, device)?;
    }
    Ok((Params(params), report))
}

/// The labels of the head in a folder: the config's, or where it names none and there is a head, those that transformers gives its
/// rows. None where there is no head.
pub fn labels_of(dir: &Path) -> Result<Vec<String>> {
    let mut config = Config::open(dir)?;
    if config.labels.is_empty() {
        let weights = Weights::open(dir)?;
        let found = by_parameter(&weights, &config, &mut LoadReport::default())?;
        if found.keys().any(|name| is_head(name)) {
            name_labels(&mut config, &found);
        }
    }
    Ok(config.labels)
}

/// New values for every parameter; `config` gets the labels.
pub(crate) fn fresh_params(
    config: &mut Config,
    labels: Vec<String>,
    normal: &mut dyn FnMut() -> f64,
    device: &Device,
) -> Result<Params> {
    set_labels(config, labels)?;
    let all: BTreeMap<_, _> = shapes(config).into_iter().collect();
    let range = config.initializer_range;
    let mut new = |(name, shape): (String, Vec<usize>)| {
        let var = fresh(&name, &shape, range, normal, device)?;
        Ok((name, var))
    };
    Ok(Params(all.into_iter().map(&mut new).collect::<Result<_>>()?))
}

/// Adds the rows that the head lacks for the config's labels; gives the names of what grew.
fn grow(
    params: &mut BTreeMap<String, Var>,
    config: &Config,
    normal: &mut dyn FnMut() -> f64,
    device: &Device,
) -> Result<Vec<String>> {
    let mut grown = Vec::new();
    for (name, mut shape) in BTreeMap::from_iter(shapes(config)) {
        let Some(old) = params.get(&name).filter(|old| old.dims() != shape) else { continue };
        shape[0] -= old.dim(0)?;
        let new = fresh(&name, &shape, config.initializer_range, normal, device)?;
        let both = Tensor::cat(&[&old.as_detached_tensor(), &new.as_detached_tensor()], 0)?;
        params.insert(name.clone(), Var::from_tensor(&both)?);
        grown.push(name);
    }
    Ok(grown)
}

/// Sets every parameter from a file of the same names and shapes, as [`crate::write_safetensors`] writes it.
/// A difference in names or shapes is an error and sets nothing.
pub fn read_params_into(params: &Params, path: &Path) -> Result<()> {
    let weights = Weights::open_file(path)?;
    let found = weights.entries().into_iter().map(|entry| (entry.name.clone(), entry)).collect();
    let expected =
        params.tensors().map(|(name, t)| (name.to_string(), t.dims().to_vec())).collect();
    let misfit = misfit(&expected, &found);
    if !misfit.is_empty() {
        return Err(Error::Misfit { path: weights.path, misfit: misfit.into() });
    }
    for entry in found.values() {
        if let Some(var) = params.0.get(&entry.name) {
            let values = weights.read(entry)?;
            var.set(&Tensor::from_vec(values, var.shape(), var.device())?)?;
        }
    }
    Ok(())
}

/// A tensor's numbers on the host.
pub struct Stored {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// The tensors of a safetensors file, as [`crate::write_safetensors`] writes it, by their names.
pub fn read_safetensors(path: &Path) -> Result<BTreeMap<String, Stored>> {
    let weights = Weights::open_file(path)?;
    let read = |entry: Entry| {
        let values = weights.read(&entry)?;
        Ok((entry.name, Stored { shape: entry.shape, values }))
    };
    weights.entries().into_iter().map(read).collect()
}

/// The checkpoint's tensors by canonical name; what belongs to other heads goes to the report.
fn by_parameter(
    weights: &Weights,
    config: &Config,
    report: &mut LoadReport,
) -> Result<BTreeMap<String, Entry>> {
    let mut found: BTreeMap<String, Entry> = BTreeMap::new();
    for entry in weights.entries() {
        match role(config, &entry.name) {
            Role::Constant => {}
            Role::OtherHead => report.unused.push(entry.name),
            Role::Parameter(name) => {
                let second = entry.name.clone();
                if let Some(first) = found.insert(name.clone(), entry) {
                    let (path, first) = (weights.path.clone(), first.name);
                    return Err(Error::Duplicate { path, name, first, second });
                }
            }
        }
    }
    Ok(found)
}

fn misfit(expected: &BTreeMap<String, Vec<usize>>, found: &BTreeMap<String, Entry>) -> Misfit {
    let mut misfit = Misfit::default();
    for (name, expected) in expected {
        match found.get(name) {
            None => misfit.missing.push(name.clone()),
            Some(entry) if entry.shape != *expected => misfit.misshaped.push(Misshaped {
                name: entry.name.clone(),
                found: entry.shape.clone(),
                expected: expected.clone(),
            }),
            Some(_) => {}
        }
    }
    let surplus = found.iter().filter(|(name, _)| !expected.contains_key(*name));
    misfit.surplus = surplus.map(|(_, entry)| entry.name.clone()).collect();
    misfit
}

/// Where the config names no labels, the head's rows get the names that transformers gives them.
fn name_labels(config: &mut Config, found: &BTreeMap<String, Entry>) {
    if !config.labels.is_empty() {
        return;
    }
    // The row length is checked first: a shape of many rows of nothing would cost a name for each row.
    let head = found.iter().find(|(name, _)| is_head(name) && name.ends_with(".weight"));
    let classes = match head.map(|(_, entry)| &entry.shape[..]) {
        Some(&[rows, columns]) if columns == config.hidden_size => rows,
        _ => 2,
    };
    config.labels = (0..classes).map(|id| format!("LABEL_{id}")).collect();
}

/// Gives the config the labels of a new head, and takes away what was said of the old one.
fn set_labels(config: &mut Config, labels: Vec<String>) -> Result<()> {
    if labels.is_empty() || crate::config::label2id(&labels).len() != labels.len() {
        return Err(Error::HeadLabels { labels });
    }
    for key in ["id2label", "label2id", "num_labels", "problem_type"] {
        config.raw.shift_remove(key);
    }
    config.labels = labels;
    Ok(())
}

fn fresh(
    name: &str,
    shape: &[usize],
    range: f64,
    normal: &mut dyn FnMut() -> f64,
    device: &Device,
) -> Result<Var> {
    let n = shape.iter().product::<usize>();
    let values = match shape.len() {
        1 if name.ends_with(".weight") => vec![1.0; n], // a norm's
        1 => vec![0.0; n],
        _ => (0..n).map(|_| (normal() * range) as f32).collect(),
    };
    Ok(Var::from_vec::<_, f32>(values, shape, device)?)
}

/// The key of config.json to look at: the size that most tensors contradict where all of them are there, or the number of layers
/// where layers are missing or left over.
fn contradicted(config: &Config, misfit: &Misfit) -> Option<(String, u64)> {
    let key = |word: &str, value: u64| {
        let mut keys = config.raw.iter();
        keys.find(|(key, found)| key.contains(word) && found.as_u64() == Some(value))
            .map(|(key, _)| (key.clone(), value))
    };
    let mut votes: BTreeMap<usize, usize> = BTreeMap::new();
    for Misshaped { found, expected, .. } in &misfit.misshaped {
        for (_, &size) in found.iter().zip(expected).filter(|(found, size)| found != size) {
            *votes.entry(size).or_default() += 1;
        }
    }
    let are_all_there = misfit.missing.is_empty() && misfit.surplus.is_empty();
    if let Some((&size, _)) = votes.iter().max_by_key(|(_, votes)| **votes) {
        let mut words = ["size", "dim", "position"].into_iter().filter(|_| are_all_there);
        return words.find_map(|word| key(word, size as u64));
    }
    let mut names = misfit.missing.iter().chain(&misfit.surplus);
    let is_layers = names.all(|name| name.contains("layer.") || name.contains("layers."));
    if is_layers { key("layers", config.layers as u64) } else { None }
}
