//! What is written is what transformers expects, and the same again when read and written once more.

use std::{collections::BTreeMap, fs, path::Path};

use candle_core::{DType, Tensor};
use lowchurn_models::{
    Classifier, FORMAT_PT, Head, Values, is_decayed, read_safetensors, save, write_safetensors,
};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::{CPU, Checkpoint, golden, message};

#[test]
fn save_and_open_again_gives_the_same_bytes() {
    let from = Checkpoint::tiny_base().write();
    let labels = vec!["ham".to_string(), "spam".to_string()];
    let head = Head::Fresh { labels, normal: &mut || 0.25 };
    let (model, _) = Classifier::open(from.path(), head, &CPU).unwrap();
    let (first, second) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    save(first.path(), &model.config, &model.params, from.path()).unwrap();
    let (again, report) = Classifier::open(first.path(), Head::FromCheckpoint, &CPU).unwrap();
    assert_eq!((report.fresh, report.unused), (vec![], vec![]));
    assert_eq!(again.labels(), ["ham", "spam"]);
    save(second.path(), &again.config, &again.params, first.path()).unwrap();
    let files = files(first.path());
    assert_eq!(files.keys().collect::<Vec<_>>(), ["config.json", "model.safetensors", "vocab.txt"]);
    assert_eq!(files, self::files(second.path()));
    assert_eq!(files["vocab.txt"], b"[PAD]\nred\r\n");
}

/// Saved over itself, a model of transformers keeps its config but for what is said of the file.
#[test]
fn a_published_model_keeps_its_config_and_weights() {
    let dir = Checkpoint::tiny().write();
    let (model, _) = Classifier::open(dir.path(), Head::FromCheckpoint, &CPU).unwrap();
    save(dir.path(), &model.config, &model.params, dir.path()).unwrap();
    let config: Value = serde_json::from_slice(&files(dir.path())["config.json"]).unwrap();
    assert_eq!(config, Checkpoint::tiny().config);
    let golden = fs::read(golden().join("bert_tiny/model.safetensors")).unwrap();
    let (found, expected) = (files(dir.path())["model.safetensors"].clone(), golden);
    let (found, expected) =
        (SafeTensors::deserialize(&found).unwrap(), SafeTensors::deserialize(&expected).unwrap());
    assert_eq!(found.len(), expected.len());
    for (name, view) in expected.iter() {
        assert_eq!(found.tensor(name).unwrap().data(), view.data(), "{name}");
    }
}

#[test]
fn the_config_says_what_was_saved() {
    let mut tiny = Checkpoint::tiny();
    tiny.config["dtype"] = json!("float16");
    tiny.config["a_key_we_do_not_know"] = json!([1, { "b": null }]);
    tiny.config["problem_type"] = json!("regression");
    let (model, _) = tiny.open_fresh().unwrap();
    let dir = TempDir::new().unwrap();
    save(dir.path(), &model.config, &model.params, tiny.write().path()).unwrap();
    let config: Value = serde_json::from_slice(&files(dir.path())["config.json"]).unwrap();
    for (key, expected) in [
        ("architectures", json!(["BertForSequenceClassification"])),
        ("model_type", json!("bert")),
        ("id2label", json!({ "0": "ham", "1": "spam" })),
        ("label2id", json!({ "ham": 0, "spam": 1 })),
        ("problem_type", json!("single_label_classification")),
        ("dtype", json!("float32")),
        ("a_key_we_do_not_know", json!([1, { "b": null }])),
        ("transformers_version", json!("5.23.0")),
        ("vocab_size", json!(100)),
    ] {
        assert_eq!(config[key], expected, "{key}");
    }
}

#[test]
fn the_file_is_sound_and_aligned() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("t.safetensors");
    let tensors = [
        ("b", Tensor::new(&[[1f32, 2.0], [3.0, 4.0]], &CPU).unwrap()),
        ("a", Tensor::new(&[0.5f32], &CPU).unwrap()),
    ];
    // A view that is not contiguous is written as it reads.
    let tensors = [tensors[0].1.t().unwrap(), tensors[1].1.clone()];
    write_safetensors(&path, [("b", &tensors[0]), ("a", &tensors[1])], FORMAT_PT).unwrap();
    let bytes = fs::read(&path).unwrap();
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header % 8, 0);
    assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
    let read = candle_core::safetensors::load(&path, &CPU).unwrap();
    assert_eq!(read["b"].to_vec2::<f32>().unwrap(), [[1.0, 3.0], [2.0, 4.0]]);
    assert_eq!(read["a"].to_vec1::<f32>().unwrap(), [0.5]);
}

/// Numbers are written piece by piece; these take several pieces and a rest, from a tensor, a view and a slice.
#[test]
fn a_file_in_pieces_is_the_file_as_a_whole() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("t.safetensors");
    let shape = [3, 70_001];
    let numbers: Vec<f32> = (0..3 * 70_001).map(|i| (i as f32 * 0.7).sin()).collect();
    let tensor = Tensor::from_slice(&numbers, &shape, &CPU).unwrap();
    let view = tensor.t().unwrap();
    let slice = Values::Host { values: &numbers, shape: &shape };
    let sha256 = write_safetensors(
        &path,
        [("t", (&tensor).into()), ("v", (&view).into()), ("s", slice)],
        &[],
    )
    .unwrap();
    let file = fs::read(&path).unwrap();
    let whole = |tensor: &Tensor| -> Vec<u8> {
        let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    };
    let data = [whole(&tensor), whole(&view), whole(&tensor)].concat();
    let (header, rest) = file.split_at(file.len() - data.len());
    assert!(rest == data, "the data differ");
    let (length, metadata) = SafeTensors::read_metadata(&file).unwrap();
    assert_eq!(header.len(), length + 8);
    assert_eq!(metadata.info("s").unwrap().shape, shape);
    let of_file: String = Sha256::digest(&file).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(sha256, of_file);
    let found = read_safetensors(&path).unwrap().remove("v").unwrap();
    assert_eq!(found.shape, [70_001, 3]);
    assert!(
        found.values == view.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
        "read back otherwise"
    );
}

#[test]
fn refusals_leave_nothing_behind() {
    let tiny = Checkpoint::tiny().write();
    let (model, _) = Classifier::open(tiny.path(), Head::FromCheckpoint, &CPU).unwrap();
    let dir = TempDir::new().unwrap();
    let empty = TempDir::new().unwrap();
    let out = dir.path().join("out");
    assert_eq!(
        message(&empty, save(&out, &model.config, &model.params, empty.path())),
        "DIR: no tokenizer to save with the model: neither tokenizer.json nor vocab.txt is here"
    );
    assert!(!out.exists());

    let whole = Tensor::new(&[1u32], &CPU).unwrap();
    let path = dir.path().join("t.safetensors");
    assert_eq!(
        message(&dir, write_safetensors(&path, [("n", &whole)], &[])),
        "tensor \"n\" can't be saved: it is U32, expected F32"
    );
    // A name that is taken by a folder: the file is written, but can't be put in its place.
    fs::create_dir(&path).unwrap();
    let sound = whole.to_dtype(DType::F32).unwrap();
    assert_eq!(
        message(&dir, write_safetensors(&path, [("n", &sound)], &[])),
        "DIR/t.safetensors: can't be written: Is a directory (os error 21)"
    );
    assert_eq!(files(dir.path()).len(), 0);

    fs::write(&out, "").unwrap();
    assert_eq!(
        message(&dir, save(&out, &model.config, &model.params, tiny.path())),
        "DIR/out: can't be written: File exists (os error 17)"
    );
}

/// What is on the disk stays as it was until the new file is whole.
#[test]
fn a_failed_save_keeps_the_old_file() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("t.safetensors");
    let (sound, whole) = (Tensor::new(&[1f32], &CPU).unwrap(), Tensor::new(&[1u32], &CPU).unwrap());
    write_safetensors(&path, [("a", &sound)], &[]).unwrap();
    let before = files(dir.path());
    write_safetensors(&path, [("a", &sound), ("n", &whole)], &[]).unwrap_err();
    assert_eq!(files(dir.path()), before);
}

#[test]
fn matrices_and_tables_decay() {
    let (model, _) = Checkpoint::tiny().open().unwrap();
    for (name, tensor) in model.params.tensors() {
        let is_plain = name.ends_with("bias") || name.contains("LayerNorm");
        assert_eq!(is_decayed(tensor), !is_plain, "{name}");
    }
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    files
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}
