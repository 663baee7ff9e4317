//! ONNX files read back and run by a small interpreter, against PyTorch's logits of the golden batches. What onnxruntime says
//! of them is in `tests/golden/onnx.md`.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use lowchurn_models::{
    Classifier, Exported, Head, ModelType, ONNX_OPSET, write_onnx, write_onnx_within,
};
use serde_json::json;
use tempfile::TempDir;

use crate::onnx_run::Onnx;
use crate::{CPU, Checkpoint, distance, golden};

/// Absolute, of a logit; 1.5e-6 was reached.
const OF_LOGITS: f32 = 1e-4;

/// Every golden checkpoint that has a batch with logits of its own.
fn checkpoints() -> Vec<PathBuf> {
    let mut found = vec![golden().join("bert_tiny")];
    found.extend(["modernbert_cls", "modernbert_mean"].map(|name| golden().join(name)));
    let entries = fs::read_dir(golden().join("architectures")).unwrap();
    found.extend(entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()));
    found.retain(|path| path.with_extension("safetensors").exists());
    found.sort();
    found
}

fn open(folder: &Path) -> Classifier {
    Classifier::open(folder, Head::FromCheckpoint, &CPU).unwrap().0
}

fn exported(model: &Classifier) -> (Onnx, Exported, TempDir) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("model.onnx");
    let said = write_onnx(&path, &model.config, &model.params, &[("model", "tiny")]).unwrap();
    assert_eq!(said.bytes, fs::metadata(&path).unwrap().len());
    (Onnx::read(&path), said, dir)
}

/// The logits that the file gives for a golden batch.
fn logits(onnx: &Onnx, batch: &HashMap<String, Tensor>, ids: &str) -> Tensor {
    let of = |name: &str| match name {
        "input_ids" => batch[ids].clone(),
        name => batch[name].clone(),
    };
    let values: Vec<(&str, Tensor)> =
        onnx.inputs.iter().map(|(name, ..)| (name.as_str(), of(name))).collect();
    let values: Vec<(&str, &Tensor)> = values.iter().map(|(name, value)| (*name, value)).collect();
    onnx.run(&values).remove(0)
}

#[test]
fn logits_are_those_of_pytorch_for_every_architecture() {
    let mut types = BTreeSet::new();
    for folder in checkpoints() {
        let model = open(&folder);
        let (onnx, ..) = exported(&model);
        let batch =
            candle_core::safetensors::load(folder.with_extension("safetensors"), &CPU).unwrap();
        let cases = [("input_ids", "logits"), ("within.input_ids", "within.logits")];
        for (ids, expected) in cases.iter().filter(|(ids, _)| batch.contains_key(*ids)) {
            let distance = distance(&logits(&onnx, &batch, ids), &batch[*expected]);
            assert!(distance < OF_LOGITS, "{}, {expected}: {distance}", folder.display());
        }
        types.insert(model.config.model_type.name());
    }
    assert_eq!(types, ModelType::ALL.map(ModelType::name).into());
}

#[test]
fn the_other_gelu_is_kept() {
    let mut tiny = Checkpoint::tiny();
    tiny.config["hidden_act"] = json!("gelu_new");
    let (onnx, ..) = exported(&tiny.open().unwrap().0);
    let batch =
        candle_core::safetensors::load(golden().join("bert_tiny.safetensors"), &CPU).unwrap();
    let distance = distance(&logits(&onnx, &batch, "input_ids"), &batch["logits_gelu_new"]);
    assert!(distance < 1e-5, "{distance}");
}

#[test]
fn inputs_and_outputs_are_those_of_optimum() {
    let check = |folder: &str, inputs: &[&str]| {
        let model = open(&golden().join(folder));
        let (onnx, said, _dir) = exported(&model);
        assert_eq!(said.inputs, inputs, "{folder}");
        let axes: Vec<String> = ["batch_size", "sequence_length"].map(str::to_string).into();
        let ports: Vec<_> = inputs.iter().map(|name| (name.to_string(), 7, axes.clone())).collect();
        assert_eq!(onnx.inputs, ports, "{folder}");
        let classes = model.labels().len().to_string();
        let logits = ("logits".to_string(), 1, vec!["batch_size".to_string(), classes]);
        assert_eq!(onnx.outputs, [logits], "{folder}");
        assert_eq!((onnx.ir_version, onnx.opset), (8, ONNX_OPSET));
        assert_eq!(onnx.metadata, [("model".to_string(), "tiny".to_string())]);
    };
    let (two, three) =
        (["input_ids", "attention_mask"], ["input_ids", "attention_mask", "token_type_ids"]);
    check("bert_tiny", &three);
    for name in ["albert", "electra", "deberta_v2"] {
        check(&format!("architectures/{name}"), &three);
    }
    for name in
        ["distilbert", "roberta", "xlm_roberta", "camembert", "mpnet", "deberta_v3", "modernbert"]
    {
        check(&format!("architectures/{name}"), &two);
    }
}

/// Each parameter once, nothing that no node reads.
#[test]
fn every_parameter_is_stored_once() {
    for folder in checkpoints() {
        let model = open(&folder);
        let (onnx, ..) = exported(&model);
        let read: BTreeSet<&str> =
            onnx.nodes.iter().flat_map(|node| &node.inputs).map(String::as_str).collect();
        let stored: BTreeSet<&str> = onnx.constants.keys().map(String::as_str).collect();
        let unread: Vec<_> = stored.difference(&read).collect();
        assert!(unread.is_empty(), "{}: {unread:?}", folder.display());
        let parameters: BTreeSet<&str> = stored
            .iter()
            .filter(|name| !name.starts_with("constant_"))
            .map(|name| name.strip_suffix(".T").unwrap_or(name))
            .collect();
        assert_eq!(parameters, model.params.names().collect(), "{}", folder.display());
    }
}

#[test]
fn the_same_model_is_the_same_bytes() {
    let model = Checkpoint::tiny().open().unwrap().0;
    let ((_, first, _), (_, second, _)) = (exported(&model), exported(&model));
    assert_eq!(first, second);
}

/// What one file can't hold lies in a second one.
#[test]
fn weights_beside_the_file_are_the_same_model() {
    let model = Checkpoint::tiny().open().unwrap().0;
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("model.onnx");
    let said = write_onnx_within(&path, &model.config, &model.params, &[], 20_000).unwrap();
    let data = dir.path().join("model.onnx_data");
    assert_eq!(said.weights.as_ref(), Some(&data));
    let numbers: usize = model.params.tensors().map(|(_, tensor)| tensor.elem_count()).sum();
    assert_eq!(fs::metadata(&data).unwrap().len(), 4 * numbers as u64);
    let both = [&path, &data].map(|path| fs::metadata(path).unwrap().len());
    assert_eq!(said.bytes, both.iter().sum::<u64>());
    let batch =
        candle_core::safetensors::load(golden().join("bert_tiny.safetensors"), &CPU).unwrap();
    let distance = distance(&logits(&Onnx::read(&path), &batch, "input_ids"), &batch["logits"]);
    assert!(distance < 1e-5, "{distance}");
}

#[test]
fn what_cannot_be_written_says_so() {
    let mut model = Checkpoint::tiny().open().unwrap().0;
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("nowhere/model.onnx");
    let error = write_onnx(&path, &model.config, &model.params, &[]).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: ", path.display())), "{error}");
    model.params.0.remove("classifier.bias");
    let error = write_onnx(&path, &model.config, &model.params, &[]).unwrap_err().to_string();
    assert_eq!(error, "the parameters lack \"classifier.bias\", which the model needs");
}
