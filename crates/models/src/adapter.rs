//! A folder with an adapter, as PEFT writes and reads it: adapter_config.json names the base and says how the factors are
//! scaled, adapter_model.safetensors has the factors and the modules that were trained whole. Refuses adapters of other kinds,
//! which would load and compute something else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use candle_core::{Device, Tensor, Var};
use safetensors::SafeTensors;
use serde_json::{Map, Value, json};

use crate::lora::module;
use crate::save::{config_text, write_text};
use crate::{
    Classifier, Config, Error, Head, Params, Result, Stored, adapted, is_head, read_safetensors,
    write_safetensors,
};

pub const ADAPTER_CONFIG: &str = "adapter_config.json";
pub const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";

const PREFIX: &str = "base_model.model.";
const BASE_HASH: &str = "base_sha256";

/// What a folder with an adapter says besides its tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterBase {
    /// A hub id or a folder.
    pub name: String,
    /// Of a hub id.
    pub revision: Option<String>,
    /// Over the base's weights, config and tokenizer; adapters of other programs have none.
    pub sha256: Option<String>,
}

/// What is trained, for the files.
pub struct AdapterFiles<'a> {
    pub base: &'a AdapterBase,
    pub rank: usize,
    pub alpha: f64,
    /// Names of modules, as `target_modules`.
    pub targets: Vec<String>,
    /// A (r, I) and B (O, r) by the name of their matrix.
    pub factors: Vec<(&'a str, &'a Tensor, &'a Tensor)>,
    /// What is kept as a whole, by the parameter's name: the head, with what stands before it.
    pub whole: Vec<(&'a str, &'a Tensor)>,
}

/// Writes both files, and config.json, which keeps the names of the classes; gives the SHA-256 of the weights.
pub fn save_adapter(dir: &Path, config: &Config, files: &AdapterFiles) -> Result<String> {
    fs::create_dir_all(dir).map_err(|source| Error::Write { path: dir.into(), source })?;
    let mut named: BTreeMap<String, &Tensor> = BTreeMap::new();
    for &(name, a, b) in &files.factors {
        let module = module(name).unwrap_or(name);
        named.insert(format!("{PREFIX}{module}.lora_A.weight"), a);
        named.insert(format!("{PREFIX}{module}.lora_B.weight"), b);
    }
    named.extend(files.whole.iter().map(|&(name, tensor)| (format!("{PREFIX}{name}"), tensor)));
    let mut metadata = vec![("format", "pt")];
    metadata.extend(files.base.sha256.as_deref().map(|hash| (BASE_HASH, hash)));
    let tensors = named.iter().map(|(name, tensor)| (name.as_str(), *tensor));
    let sha256 = write_safetensors(&dir.join(ADAPTER_WEIGHTS), tensors, &metadata)?;
    write_text(&dir.join(ADAPTER_CONFIG), &format!("{:#}\n", published(files)))?;
    write_text(&dir.join("config.json"), &config_text(config))?;
    Ok(sha256)
}

/// The keys of PEFT's `LoraConfig` that decide anything.
fn published(files: &AdapterFiles) -> Value {
    let alpha = match files.alpha {
        alpha if alpha.fract() == 0.0 && alpha.abs() < 1e15 => json!(alpha as i64),
        alpha => json!(alpha),
    };
    let first = files.factors.first().map(|(name, ..)| *name).unwrap_or_default();
    let names = files.whole.iter().map(|(name, _)| top_module(name, first));
    let kept: BTreeSet<&str> = names.collect();
    json!({
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "auto_mapping": null,
        "base_model_name_or_path": files.base.name,
        "revision": files.base.revision,
        "inference_mode": true,
        "r": files.rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "target_modules": files.targets,
        "modules_to_save": kept,
        "bias": "none",
        "fan_in_fan_out": false,
        "init_lora_weights": true,
        "use_rslora": false,
        "use_dora": false,
        "layers_to_transform": null,
        "layers_pattern": null,
        "rank_pattern": {},
        "alpha_pattern": {},
    })
}

/// `classifier` of `classifier.weight`, `pooler` of `bert.pooler.dense.weight`: the first part of the name behind that of the
/// encoder, which is known by a name from inside it.
fn top_module<'n>(name: &'n str, inside: &str) -> &'n str {
    let encoder = inside.split('.').next().unwrap_or_default();
    let below = name.strip_prefix(encoder).and_then(|rest| rest.strip_prefix('.'));
    below.unwrap_or(name).split('.').next().unwrap_or(name)
}

/// An adapter as read, its numbers on the host.
struct Adapter {
    scale: f64,
    /// A and B by the name of their matrix.
    factors: BTreeMap<String, (Stored, Stored)>,
    whole: BTreeMap<String, Stored>,
}

/// Which base an adapter was made for. Reads no tensors' numbers.
pub fn adapter_base(dir: &Path) -> Result<AdapterBase> {
    let config = read_config(dir)?;
    let name = config.get("base_model_name_or_path").and_then(Value::as_str).unwrap_or_default();
    if name.is_empty() {
        return Err(wrong(dir, "base_model_name_or_path names no base model"));
    }
    let revision = config.get("revision").and_then(Value::as_str);
    let path = dir.join(ADAPTER_WEIGHTS);
    let bytes = fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
    let header = SafeTensors::read_metadata(&bytes);
    let (_, header) = header.map_err(|source| Error::Safetensors { path, source })?;
    let sha256 = header.metadata().as_ref().and_then(|all| all.get(BASE_HASH)).cloned();
    Ok(AdapterBase { name: name.into(), revision: revision.map(String::from), sha256 })
}

/// The model in `base` with the adapter in `dir` merged into it: W + scale·B·A in place of each matrix with factors, and the
/// modules that the adapter has as a whole.
pub fn open_adapted(base: &Path, dir: &Path, device: &Device) -> Result<Classifier> {
    let adapter = Adapter::read(dir)?;
    let labels = labels(base, dir, &adapter)?;
    let has_head = adapter.whole.keys().any(|name| is_head(name));
    let head = match has_head {
        true => Head::Fresh { labels, normal: &mut || 0.0 },
        false => Head::FromCheckpoint,
    };
    let (model, report) = Classifier::open(base, head, device)?;
    let lacking = report.fresh.iter().filter(|name| !adapter.whole.contains_key(*name));
    let lacking: Vec<&str> = lacking.map(String::as_str).collect();
    if !lacking.is_empty() {
        let names = lacking.join(", ");
        return Err(wrong(
            dir,
            &format!("neither it nor its base, {}, has {names}", base.display()),
        ));
    }
    adapter.merge_into(&model.params, dir)?;
    let config = with_own_words(model.config, dir)?;
    Classifier::new(config, model.params)
}

/// What the adapter's own config says of its labels and their kind, where they fit; all else is the base's, whose tensors these are.
fn with_own_words(config: Config, dir: &Path) -> Result<Config> {
    if !dir.join("config.json").exists() {
        return Ok(config);
    }
    let own = Config::open(dir)?;
    // Two classes without names are left out of a config.
    let has_names = own.labels.len() == config.labels.len();
    if !has_names && !own.labels.is_empty() {
        return Ok(config);
    }
    let (labels, mut raw) = (if has_names { own.labels } else { config.labels }, config.raw);
    let names: &[&str] = if has_names { &["id2label", "label2id"] } else { &[] };
    for key in names.iter().chain(&["problem_type", "thresholds"]) {
        match own.raw.get(*key) {
            Some(value) => raw.insert((*key).into(), value.clone()),
            None => raw.shift_remove(*key),
        };
    }
    Ok(Config { labels, raw, ..config })
}

/// The adapter's own, else the base's, where they are as many as the head has rows.
fn labels(base: &Path, dir: &Path, adapter: &Adapter) -> Result<Vec<String>> {
    let head = adapter.whole.iter().find(|(name, _)| is_head(name));
    let classes = head.and_then(|(_, stored)| stored.shape.first().copied()).unwrap_or(0);
    let own = dir.join("config.json").exists().then_some(dir);
    for folder in own.into_iter().chain([base]) {
        let labels = Config::open(folder)?.labels;
        if labels.len() == classes {
            return Ok(labels);
        }
    }
    Ok((0..classes).map(|id| format!("LABEL_{id}")).collect())
}

impl Adapter {
    fn read(dir: &Path) -> Result<Adapter> {
        let config = read_config(dir)?;
        let scale = scale(&config, dir)?;
        let (mut a, mut b, mut whole) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (name, stored) in read_safetensors(&dir.join(ADAPTER_WEIGHTS))? {
            let Some(name) = name.strip_prefix(PREFIX) else {
                return Err(wrong(dir, &format!("{name:?} doesn't start with {PREFIX:?}")));
            };
            // Older versions of PEFT left the wrapper's name in.
            let name = name.replace(".modules_to_save.", ".");
            if let Some(module) = name.strip_suffix(".lora_A.weight") {
                a.insert(format!("{module}.weight"), stored);
            } else if let Some(module) = name.strip_suffix(".lora_B.weight") {
                b.insert(format!("{module}.weight"), stored);
            } else if name.contains(".lora_") {
                return Err(wrong(dir, &format!("{name:?} is no factor of a linear layer")));
            } else {
                whole.insert(name, stored);
            }
        }
        let mut factors = BTreeMap::new();
        for (name, a) in a {
            let Some(b) = b.remove(&name) else {
                return Err(wrong(dir, &format!("{name} has lora_A but no lora_B")));
            };
            factors.insert(name, (a, b));
        }
        match b.keys().next() {
            Some(name) => Err(wrong(dir, &format!("{name} has lora_B but no lora_A"))),
            None => Ok(Adapter { scale, factors, whole }),
        }
    }

    fn merge_into(&self, params: &Params, dir: &Path) -> Result<()> {
        let var = |name: &str| {
            let found = params.0.get(name);
            found.ok_or_else(|| wrong(dir, &format!("its base has no {name}, which it changes")))
        };
        let misshapen = |name: &str, found: &[&[usize]], var: &Var| {
            wrong(dir, &format!("{name} is {:?} in its base, and here {found:?}", var.dims()))
        };
        for (name, (a, b)) in &self.factors {
            let var = var(name)?;
            let fits = matches!(
                (var.dims(), &a.shape[..], &b.shape[..]),
                (&[o, i], &[r, a_i], &[b_o, b_r]) if (r, a_i, b_o) == (b_r, i, o)
            );
            if !fits {
                return Err(misshapen(name, &[&a.shape, &b.shape], var));
            }
            let on_device = |stored: &Stored| {
                Tensor::from_slice(&stored.values, stored.shape.as_slice(), var.device())
            };
            let w = var.as_detached_tensor();
            var.set(&adapted(&w, &on_device(a)?, &on_device(b)?, self.scale)?)?;
        }
        for (name, stored) in &self.whole {
            let var = var(name)?;
            if var.dims() != stored.shape {
                return Err(misshapen(name, &[&stored.shape], var));
            }
            var.set(&Tensor::from_slice(&stored.values, stored.shape.as_slice(), var.device())?)?;
        }
        Ok(())
    }
}

fn read_config(dir: &Path) -> Result<Map<String, Value>> {
    let path = dir.join(ADAPTER_CONFIG);
    let text = fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
    serde_json::from_slice(&text).map_err(|source| Error::Json { path, source })
}

/// alpha/r, or alpha/√r (rank-stabilised, Kalajdzievski 2023, 2312.03732). Keys that would make something else of the same
/// tensors are refused.
fn scale(config: &Map<String, Value>, dir: &Path) -> Result<f64> {
    let path = dir.join(ADAPTER_CONFIG);
    let refuse = |key: &str, expected: &str| {
        let found = config.get(key).unwrap_or(&Value::Null).to_string();
        let (path, key, expected) = (path.clone(), key.into(), expected.into());
        Err(Error::Key { path, key, found, expected })
    };
    if config.get("peft_type") != Some(&json!("LORA")) {
        return refuse("peft_type", "\"LORA\", the only kind that is read");
    }
    for (key, usual) in [
        ("bias", json!("none")),
        ("fan_in_fan_out", json!(false)),
        ("use_dora", json!(false)),
        ("rank_pattern", json!({})),
        ("alpha_pattern", json!({})),
    ] {
        let is_usual = |found: &Value| found.is_null() || *found == usual;
        if !config.get(key).is_none_or(is_usual) {
            return refuse(key, &format!("{usual}, the only form that is read"));
        }
    }
    // Others change the base's own matrices when they are loaded.
    let harmless =
        [json!(true), json!(false), json!("gaussian"), json!("orthogonal"), json!("eva")];
    let how = config.get("init_lora_weights").filter(|how| !how.is_null());
    if how.is_some_and(|how| !harmless.contains(how)) {
        return refuse(
            "init_lora_weights",
            "true, false or one that leaves the base's matrices as they are",
        );
    }
    let number = |key: &str| config.get(key).and_then(Value::as_f64).filter(|x| x.is_finite());
    let Some(rank) = number("r").filter(|rank| *rank >= 1.0) else {
        return refuse("r", "the rank, at least 1");
    };
    let Some(alpha) = number("lora_alpha") else {
        return refuse("lora_alpha", "a number");
    };
    match config.get("use_rslora").and_then(Value::as_bool) {
        Some(true) => Ok(alpha / rank.sqrt()),
        _ => Ok(alpha / rank),
    }
}

fn wrong(dir: &Path, reason: &str) -> Error {
    Error::Adapter { path: dir.into(), reason: reason.into() }
}
