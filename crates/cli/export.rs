//! `export`: a model in another program's form. What the tokenizer and the labels are is said by the folder's other files,
//! which those programs read too.

use std::path::{Path, PathBuf};

use anyhow::Result;
use candle_core::Device;
use lowchurn_kernels::Precision;
use lowchurn_models::{Config, Exported, ONNX_OPSET, write_onnx};
use serde_json::json;

use crate::args::Export;
use crate::console::Console;
use crate::device::Compute;
use crate::failure::Usage;
use crate::machine::peak_rss_mib;
use crate::{base, found, output, places};

pub fn export(args: &Export, console: &mut Console) -> Result<u8> {
    let Some(file) = &args.onnx else {
        return Err(Usage("in which form? Give --onnx [FILE]".into()).into());
    };
    let path = match file {
        Some(path) => path.clone(),
        None => beside(&args.model)?,
    };
    check(&path)?;
    let hub = places::hub()?;
    let folder = base::find("", &args.model)?.folder(&hub, console)?;
    let found = found::describe(&args.model, folder)?;
    let model =
        found::open_model(&found, &Compute { device: Device::Cpu, precision: Precision::F32 })?;
    output::make_folder(&path)?;
    let metadata = [("model", found.name.as_str()), ("model_sha256", &found.sha256)];
    let written = write_onnx(&path, &model.config, &model.params, &metadata)?;
    tell(&path, &model.config, &written, console)?;
    Ok(0)
}

/// DIR/onnx/model.onnx, where Optimum and the hub's ONNX models have it.
fn beside(model: &str) -> Result<PathBuf> {
    let folder = Path::new(model);
    if folder.is_dir() {
        return Ok(folder.join("onnx/model.onnx"));
    }
    let said = format!("{model} is no folder here; say where the file goes: --onnx FILE");
    Err(Usage(said).into())
}

/// Refuses a place that can't be written before the model is read.
fn check(path: &Path) -> Result<()> {
    let shown = path.display();
    if path.is_dir() {
        return Err(Usage(format!("--onnx {shown} is a folder; name a file in it")).into());
    }
    if path.extension().is_none_or(|suffix| suffix != "onnx") {
        return Err(Usage(format!("--onnx {shown}: the name of an ONNX file ends in .onnx")).into());
    }
    output::check(path.parent().unwrap_or(Path::new("")))
}

fn tell(path: &Path, config: &Config, written: &Exported, console: &mut Console) -> Result<()> {
    console.tell(&format!(
        "{}: {}, {:.1} MB, opset {ONNX_OPSET}, {} → logits of {} labels",
        path.display(),
        config.model_type.name(),
        written.bytes as f64 / 1e6,
        written.inputs.join(", "),
        config.labels.len(),
    ))?;
    if let Some(weights) = &written.weights {
        console.tell(&format!(
            "{}: its weights, more than the 2 GiB that one such file holds; keep both together",
            weights.display()
        ))?;
    }
    console.event(&json!({
        "event": "finished", "onnx": path, "sha256": written.sha256, "bytes": written.bytes, "weights": written.weights,
        "inputs": written.inputs, "opset": ONNX_OPSET, "peak_rss_mib": peak_rss_mib(),
    }));
    Ok(())
}
