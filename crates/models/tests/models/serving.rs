//! What text-embeddings-inference 1.9 demands of a classifier's folder, by its source: names of the head's tensors, both label
//! maps, a class that ends in Classification, positions; held against what is saved and what is recast for a release.

use std::fs;

use candle_core::DType;
use lowchurn_models::{Classifier, Head, NumberFormat, recast, save};
use serde_json::Value;
use tempfile::TempDir;

use crate::{CPU, Checkpoint, golden, message};

/// (folder of the golden numbers, prefix of the encoder, the head's tensors)
const SERVED: [(&str, &str, &[&str]); 5] = [
    ("bert_tiny", "bert.", &["bert.pooler.dense", "classifier"]),
    ("architectures/roberta", "roberta.", &["classifier.dense", "classifier.out_proj"]),
    ("architectures/xlm_roberta", "roberta.", &["classifier.dense", "classifier.out_proj"]),
    ("architectures/camembert", "roberta.", &["classifier.dense", "classifier.out_proj"]),
    ("architectures/distilbert", "distilbert.", &["pre_classifier", "classifier"]),
];

fn saved(name: &str) -> TempDir {
    let (from, dir) = (golden().join(name), TempDir::new().unwrap());
    let (model, _) = Classifier::open(&from, Head::FromCheckpoint, &CPU).unwrap();
    let tokenizer = match from.join("tokenizer.json").is_file() {
        true => from,
        false => golden().join("architectures/roberta"),
    };
    save(dir.path(), &model.config, &model.params, &tokenizer).unwrap();
    dir
}

#[test]
fn saved_classifiers_are_what_its_servers_read() {
    for (name, prefix, head) in SERVED {
        let dir = saved(name);
        let text = fs::read(dir.path().join("config.json")).unwrap();
        let config: Value = serde_json::from_slice(&text).unwrap();
        let class = config["architectures"][0].as_str().unwrap();
        assert!(class.ends_with("Classification"), "{name}: {class}");
        assert!(config["model_type"].is_string(), "{name}");
        assert!(config["max_position_embeddings"].is_u64(), "{name}");
        let (labels, ids) = (config["id2label"].as_object(), config["label2id"].as_object());
        let (labels, ids) = (labels.unwrap(), ids.unwrap());
        assert_eq!(labels.len(), ids.len(), "{name}");
        for (n, (id, label)) in labels.iter().enumerate() {
            assert_eq!(*id, n.to_string(), "{name}");
            assert_eq!(ids[label.as_str().unwrap()], n, "{name}");
        }
        assert!(dir.path().join("tokenizer.json").is_file(), "{name}");
        let path = dir.path().join("model.safetensors");
        let tensors = candle_core::safetensors::load(path, &CPU).unwrap();
        for module in head {
            for part in ["weight", "bias"] {
                assert!(
                    tensors.contains_key(&format!("{module}.{part}")),
                    "{name}: {module}.{part}"
                );
            }
        }
        let last = &tensors[&format!("{}.weight", head[1])];
        assert_eq!(last.dims()[0], labels.len(), "{name}");
        let odd: Vec<&String> = tensors
            .keys()
            .filter(|key| !key.starts_with(prefix) && !head.iter().any(|h| key.starts_with(h)))
            .collect();
        assert!(odd.is_empty(), "{name}: {odd:?}");
        let old = |key: &&String| {
            key.ends_with("gamma") || key.ends_with("beta") || key.ends_with("position_ids")
        };
        assert_eq!(tensors.keys().find(old), None, "{name}");
    }
}

#[test]
fn recast_weights_are_the_nearest_and_keep_their_names() {
    let dir = saved("bert_tiny");
    let path = dir.path().join("out.safetensors");
    let own = candle_core::safetensors::load(dir.path().join("model.safetensors"), &CPU).unwrap();
    let metadata = [("format", "pt"), ("made of", "a \"b\"\nc")];
    let formats = [
        (NumberFormat::F32, DType::F32),
        (NumberFormat::F16, DType::F16),
        (NumberFormat::Bf16, DType::BF16),
    ];
    for (format, dtype) in formats {
        let first = recast(dir.path(), &path, format, &metadata).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(recast(dir.path(), &path, format, &metadata).unwrap(), first);
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        assert_eq!(length % 8, 0, "readers map the numbers");
        let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        assert_eq!(header["__metadata__"]["made of"], "a \"b\"\nc");
        let found = candle_core::safetensors::load(&path, &CPU).unwrap();
        assert_eq!(found.len(), own.len());
        for (name, tensor) in &own {
            // candle rounds to nearest, ties to even.
            let expected = tensor.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap();
            assert_eq!(found[name].dtype(), dtype, "{name}");
            let found = found[name].to_dtype(DType::F32).unwrap();
            let flat = |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(flat(&found), flat(&expected), "{name}");
        }
    }
}

#[test]
fn what_f16_cannot_hold_is_refused() {
    let mut tiny = Checkpoint::tiny();
    let name = "classifier.bias";
    let tensor = tiny.tensors[name].affine(0.0, 70_000.0).unwrap();
    tiny.tensors.insert(name.into(), tensor);
    let dir = tiny.write();
    let to = dir.path().join("out.safetensors");
    assert_eq!(
        message(&dir, recast(dir.path(), &to, NumberFormat::F16, &[])),
        "DIR: classifier.bias holds 70000, which float16 can't; publish it as f32, or as bf16, which has the range"
    );
    assert!(!to.exists());
    recast(dir.path(), &to, NumberFormat::Bf16, &[]).unwrap();
}
