//! A student out of a checkpoint: some of its layers, some rows of its table of words, everything else as it is.
//!
//! Writes weights and config; the tokenizer's files are the caller's. Trains nothing and makes nothing up.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use candle_core::{Device, Tensor};
use serde_json::{Map, Value};

use crate::layout::Role;
use crate::save::write_text;
use crate::weights::Weights;
use crate::{
    Config, Details, Error, FORMAT_PT, ModelType, Result, albert, architecture, write_safetensors,
};

/// What of a checkpoint stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cut {
    /// The layers that stay, from 0, in their new order; `None`: all.
    pub layers: Option<Vec<usize>>,
    /// The old ids of the words that stay, in the order of their new ids; `None`: all.
    pub words: Option<Vec<u32>>,
}

/// Other sizes for a config; what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sizes {
    pub hidden: Option<usize>,
    pub layers: Option<usize>,
    pub heads: Option<usize>,
    pub intermediate: Option<usize>,
    pub positions: Option<usize>,
}

/// `count` layers of `of`, evenly from the lowest: for 3 of 6, 0, 2 and 4 (as DistilBERT took every other; Sanh et al. 2019,
/// 1910.01108).
pub fn spread_layers(count: usize, of: usize) -> Vec<usize> {
    (0..count).map(|at| at * of / count.max(1)).collect()
}

/// Writes the student's config.json and model.safetensors into `to`, from the checkpoint in `from`. Heads of other tasks are
/// left out, its own is kept.
pub fn cut(from: &Path, cut: &Cut, to: &Path) -> Result<()> {
    let config = Config::open(from)?;
    let layers = match &cut.layers {
        Some(layers) => layers.clone(),
        None => (0..config.layers).collect(),
    };
    check_layers(&config, &layers)?;
    let weights = Weights::open(from)?;
    let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
    for entry in weights.entries() {
        let Role::Parameter(name) = architecture::role(&config, &entry.name) else {
            continue;
        };
        let targets: Vec<String> = match layer_of(&name) {
            Some((at, before, behind)) => {
                let places = layers.iter().enumerate().filter(|(_, layer)| **layer == at);
                places.map(|(new, _)| format!("{before}{new}{behind}")).collect()
            }
            None => vec![name],
        };
        if targets.is_empty() {
            continue;
        }
        let tensor = Tensor::from_vec(weights.read(&entry)?, entry.shape.clone(), &Device::Cpu)?;
        for target in targets {
            let tensor = match &cut.words {
                Some(words) if is_table_of_words(&target) => picked(&tensor, words)?,
                _ => tensor.clone(),
            };
            tensors.insert(target, tensor);
        }
    }
    let mut raw = config.raw.clone();
    set(&mut raw, &LAYERS, layers.len());
    if let Details::ModernBert(modern) = &config.details {
        raw.insert("layer_types".into(), modern.layer_types(&layers));
    }
    if let Some(words) = &cut.words {
        set_vocabulary(&mut raw, words);
    }
    let path = to.join("model.safetensors");
    write_safetensors(
        &path,
        tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)),
        FORMAT_PT,
    )?;
    write_config(to, raw)
}

/// Writes a config.json of other sizes into `to` and no weights: a model that is to start from fresh ones.
pub fn resized(from: &Path, sizes: &Sizes, words: Option<&[u32]>, to: &Path) -> Result<()> {
    let old = Config::open(from)?;
    let mut raw = old.raw.clone();
    // The table has rows up to the padding token's beside those that texts use.
    let positions = sizes.positions.map(|positions| positions + old.first_position);
    let pairs: [(&[&str], Option<usize>); 5] = [
        (&["hidden_size", "dim"], sizes.hidden),
        (&LAYERS, sizes.layers),
        (&["num_attention_heads", "n_heads"], sizes.heads),
        (&["intermediate_size", "hidden_dim"], sizes.intermediate),
        (&["max_position_embeddings"], positions),
    ];
    for (keys, value) in pairs {
        if let Some(value) = value {
            set(&mut raw, keys, value);
        }
    }
    follow_sizes(&mut raw, &old, sizes);
    if let Some(words) = words {
        set_vocabulary(&mut raw, words);
    }
    for key in ["id2label", "label2id", "num_labels", "problem_type", "_name_or_path"] {
        raw.shift_remove(key);
    }
    // What the new sizes don't allow is said of the new file, before it is there.
    Config::parse(raw.clone(), &to.join("config.json"))?;
    write_config(to, raw)
}

/// Keys that say a size again, or something of each layer.
fn follow_sizes(raw: &mut Map<String, Value>, old: &Config, sizes: &Sizes) {
    for key in ["pooler_hidden_size", "embedding_size"] {
        let is_same = old.raw.get(key).is_some_and(|value| *value == old.hidden_size);
        if let (true, Some(hidden)) = (is_same, sizes.hidden) {
            raw.insert(key.into(), hidden.into());
        }
    }
    if raw.contains_key("attention_head_size") {
        let heads = sizes.heads.unwrap_or(old.heads).max(1);
        let head_size = sizes.hidden.unwrap_or(old.hidden_size) / heads;
        raw.insert("attention_head_size".into(), head_size.into());
    }
    if let (Details::ModernBert(modern), Some(layers)) = (&old.details, sizes.layers) {
        // The pattern from the lowest layer, and again where there are more of them.
        let pattern: Vec<usize> = (0..layers).map(|layer| layer % old.layers).collect();
        raw.insert("layer_types".into(), modern.layer_types(&pattern));
    }
}

const LAYERS: [&str; 2] = ["num_hidden_layers", "n_layers"];

fn check_layers(config: &Config, layers: &[usize]) -> Result<()> {
    let refuse = |reason: String| Err(Error::Student { reason });
    let n = config.layers;
    if layers.is_empty() {
        return refuse("a student needs at least one layer".into());
    }
    if let Some(layer) = layers.iter().find(|layer| **layer >= n) {
        return refuse(format!(
            "there is no layer {layer}: the model has {n}, from 0 to {}",
            n - 1
        ));
    }
    if config.model_type == ModelType::ModernBert && layers[0] != 0 {
        let first = layers[0];
        return refuse(format!(
            "layer 0 has no norm in front and no other can take its place, so it comes first, not layer {first}"
        ));
    }
    let list =
        |numbers: &[usize]| numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    if layers.iter().collect::<BTreeSet<_>>().len() < layers.len() {
        return refuse(format!("a layer is named twice: {}", list(layers)));
    }
    if let Details::Albert(groups) = &config.details {
        if layers.len() < groups.groups {
            let groups = groups.groups;
            return refuse(format!(
                "its layers share the weights of {groups} groups, so a student has at least {groups} layers"
            ));
        }
        // Its config has a number of layers and no list, so groups can't be divided otherwise.
        let group_of = |count: usize| albert::group_of(groups, count);
        let (old, new) = (group_of(n), group_of(layers.len()));
        let asked: Vec<usize> = layers.iter().map(|&layer| old[layer]).collect();
        if asked != new {
            return refuse(format!(
                "its layers share the weights of {} groups: layers {} are of the groups {}, and a model of {} layers would \
                 have {}; name layers of these groups",
                groups.groups,
                list(layers),
                list(&asked),
                layers.len(),
                list(&new)
            ));
        }
    }
    Ok(())
}

/// The number of the layer that a parameter is in, and its name before and behind that.
fn layer_of(name: &str) -> Option<(usize, &str, &str)> {
    let marks = [".layer.", ".layers."];
    let (at, mark) = marks.iter().find_map(|mark| Some((name.find(mark)?, mark)))?;
    let start = at + mark.len();
    let end = start + name[start..].find('.')?;
    Some((name[start..end].parse().ok()?, &name[..start], &name[end..]))
}

pub(crate) fn is_table_of_words(name: &str) -> bool {
    name.ends_with(".word_embeddings.weight") || name.ends_with(".tok_embeddings.weight")
}

fn picked(table: &Tensor, words: &[u32]) -> Result<Tensor> {
    let n = table.dim(0)?;
    if let Some(id) = words.iter().find(|id| **id as usize >= n) {
        let reason = format!("the table of words has {n} rows, but the vocabulary has an id {id}");
        return Err(Error::Student { reason });
    }
    let words = Tensor::from_vec(words.to_vec(), words.len(), &Device::Cpu)?;
    Ok(table.index_select(&words, 0)?)
}

/// Sets the first of the keys that the config has, else the first.
fn set(raw: &mut Map<String, Value>, keys: &[&str], value: usize) {
    let key = keys.iter().find(|key| raw.contains_key(**key)).unwrap_or(&keys[0]);
    raw.insert(key.to_string(), value.into());
}

fn set_vocabulary(raw: &mut Map<String, Value>, words: &[u32]) {
    raw.insert("vocab_size".into(), words.len().into());
    for (key, value) in raw.iter_mut().filter(|(key, _)| key.ends_with("_token_id")) {
        let Some(old) = value.as_u64() else { continue };
        let new = words.iter().position(|id| u64::from(*id) == old);
        // Padding is never read; what else is gone was no token of this model's texts.
        *value = match (new, key.as_str()) {
            (Some(new), _) => new.into(),
            (None, "pad_token_id") => 0.into(),
            (None, _) => Value::Null,
        };
    }
}

fn write_config(to: &Path, raw: Map<String, Value>) -> Result<()> {
    let path = to.join("config.json");
    let text = format!("{:#}\n", Value::Object(raw));
    write_text(&path, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_spread_evenly() {
        assert_eq!(spread_layers(3, 6), [0, 2, 4]);
        assert_eq!(spread_layers(6, 12), [0, 2, 4, 6, 8, 10]);
        assert_eq!(spread_layers(2, 5), [0, 2]);
        assert_eq!(spread_layers(4, 4), [0, 1, 2, 3]);
    }

    #[test]
    fn the_number_of_a_layer() {
        let name = "bert.encoder.layer.11.output.dense.bias";
        assert_eq!(layer_of(name), Some((11, "bert.encoder.layer.", ".output.dense.bias")));
        assert_eq!(layer_of("model.layers.2.attn.Wqkv.weight").map(|(at, ..)| at), Some(2));
        assert_eq!(layer_of("bert.embeddings.LayerNorm.weight"), None);
    }
}
