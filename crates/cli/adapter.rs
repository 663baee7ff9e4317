//! A folder with an adapter → a folder with an ordinary model: the base that the adapter names, with the adapter merged into
//! it. Made once and kept in the hub's cache; nothing else in the program knows of adapters.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::Device;
use lowchurn_distill::{ADAPTER, sha256_of_files, sha256_of_model};
use lowchurn_hub::Hub;
use lowchurn_models::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapter_base, open_adapted, save};

use crate::base;
use crate::console::Console;
use crate::failure::Usage;

/// Whether a folder holds an adapter and no model.
pub fn is_adapter(folder: &Path) -> bool {
    let weights = ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"];
    let is_there = |name: &str| folder.join(name).exists();
    is_there(ADAPTER_CONFIG) && !weights.into_iter().any(is_there)
}

pub fn merged(folder: &Path, hub: &Hub, console: &mut Console) -> Result<PathBuf> {
    let shown = folder.display();
    let said = adapter_base(folder)?;
    let name = match &said.revision {
        Some(revision) => format!("{}@{revision}", said.name),
        None => said.name.clone(),
    };
    let asked = || format!("{shown}: its base model is {name}");
    let base =
        base::find("", &name).with_context(asked)?.own_folder(hub, console).with_context(asked)?;
    if is_adapter(&base) {
        return Err(
            Usage(format!("{}, which is an adapter too; merge that one first", asked())).into()
        );
    }
    let found = sha256_of_model(&base)?;
    if let Some(expected) = said.sha256.filter(|expected| *expected != found) {
        let [found, expected] =
            [found, expected].map(|hash| hash.chars().take(12).collect::<String>());
        return Err(Usage(format!(
            "{}, but it was trained on other weights or another tokenizer: {expected}, there is {found}; put the base back \
             that it was trained on",
            asked()
        ))
        .into());
    }
    let mut parts = vec![folder.join(ADAPTER_CONFIG), folder.join(ADAPTER_WEIGHTS)];
    parts.extend(Some(folder.join("config.json")).filter(|path| path.exists()));
    let key = format!("{}-{}", &sha256_of_files(&parts)?[..16], &found[..16]);
    let to = hub.settings.cache.join(".lowchurn-merged").join(key);
    // The config is written last.
    if !to.join("config.json").exists() {
        let model = open_adapted(&base, folder, &Device::Cpu)?;
        fs::create_dir_all(&to).with_context(|| format!("{}: can't be written", to.display()))?;
        // What a run says of itself says it of its adapter: how long its rows are, and which it has seen.
        let run = folder.with_file_name("run.toml");
        if folder.file_name().is_some_and(|name| name == ADAPTER) && run.is_file() {
            fs::copy(&run, to.join("run.toml"))?;
        }
        save(&to, &model.config, &model.params, &base)?;
    }
    console.tell(&format!("{shown}: merged into {name}, in {}", to.display()))?;
    Ok(to)
}
