//! Checkpoints as they are found on the hub, and the whole text of each refusal.

use std::{
    collections::HashMap,
    env, fs,
    io::{self, Write},
    path::PathBuf,
};

use candle_core::{DType, Tensor};
use lowchurn_models::{
    Classifier, Head, Mode, labels_of, read_params_into, weight_files, write_safetensors,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{CPU, Checkpoint, distance, input, message, numbers, open_fresh};

const HEAD: [&str; 2] = ["classifier.bias", "classifier.weight"];
const POOLER: [&str; 2] = ["bert.pooler.dense.bias", "bert.pooler.dense.weight"];

#[test]
fn names_are_taken_as_they_come() {
    let reference = Checkpoint::tiny().open().unwrap().0;
    let check = |change: fn(&str) -> String, unused: &[&str]| {
        let mut tiny = Checkpoint::tiny();
        tiny.rename(change);
        let (model, report) = tiny.open().unwrap();
        assert_eq!((report.fresh, report.unused), (vec![], strings(unused)));
        assert_eq!(model.params.fingerprint().unwrap(), reference.params.fingerprint().unwrap());
        assert!(model.params.names().eq(reference.params.names()));
    };
    check(|name| name.into(), &[]);
    check(|name| name.strip_prefix("bert.").unwrap_or(name).into(), &[]);
    check(
        |name| {
            name.replace("LayerNorm.weight", "LayerNorm.gamma")
                .replace("LayerNorm.bias", "LayerNorm.beta")
        },
        &[],
    );
}

#[test]
fn other_heads_are_listed_and_constants_are_not() {
    let mut tiny = Checkpoint::tiny();
    let extra = Tensor::zeros(3, DType::F32, &CPU).unwrap();
    for name in ["cls.predictions.bias", "cls.seq_relationship.bias"] {
        tiny.tensors.insert(name.into(), extra.clone());
    }
    let positions = Tensor::zeros((1, 16), DType::I64, &CPU).unwrap();
    tiny.tensors.insert("bert.embeddings.position_ids".into(), positions);
    let (_, report) = tiny.open().unwrap();
    assert_eq!(report.unused, ["cls.predictions.bias", "cls.seq_relationship.bias"]);
}

#[test]
fn a_new_head_and_pooler_are_fresh() {
    let (model, report) = Checkpoint::tiny_base().open_fresh().unwrap();
    assert_eq!(report.fresh, [POOLER, HEAD].concat());
    assert_eq!(report.unused, [""; 0]);
    assert_eq!(model.labels(), ["ham", "spam"]);
    assert_eq!(model.params.0["classifier.weight"].dims(), [2, 32]);
    // initializer_range is 0.02 and all "normal" numbers are 1.
    assert_eq!(numbers(&model.params.0["classifier.weight"]), [0.02; 64]);
    assert_eq!(numbers(&model.params.0["bert.pooler.dense.weight"]), [0.02; 1024]);
    assert_eq!(numbers(&model.params.0["classifier.bias"]), [0.0; 2]);
}

#[test]
fn a_new_head_replaces_an_old_one() {
    let (model, report) = Checkpoint::tiny().open_fresh().unwrap();
    assert_eq!((report.fresh, report.unused), (strings(&HEAD), strings(&HEAD)));
    assert_eq!(model.labels(), ["ham", "spam"]);
    assert!(!model.config.raw.contains_key("problem_type"));
    let logits = model.forward(&input(&[&[2, 3]], 2), Mode::Eval).unwrap();
    assert_eq!(logits.dims(), [1, 2]);
}

#[test]
fn a_head_without_names_gets_the_usual_ones() {
    let mut tiny = Checkpoint::tiny();
    tiny.config["id2label"] = Value::Null;
    tiny.config["label2id"] = Value::Null;
    assert_eq!(tiny.open().unwrap().0.labels(), ["LABEL_0", "LABEL_1", "LABEL_2"]);
    assert_eq!(labels_of(tiny.write().path()).unwrap(), ["LABEL_0", "LABEL_1", "LABEL_2"]);
    assert!(labels_of(Checkpoint::tiny_base().write().path()).unwrap().is_empty());
}

#[test]
fn narrow_and_wide_numbers_become_f32() {
    let reference = Checkpoint::tiny();
    for (dtype, tolerance) in [(DType::F16, 1e-3), (DType::BF16, 1e-2), (DType::F64, 0.0)] {
        let mut tiny = Checkpoint::tiny();
        for tensor in tiny.tensors.values_mut() {
            *tensor = tensor.to_dtype(dtype).unwrap();
        }
        let (model, _) = tiny.open().unwrap();
        for (name, tensor) in model.params.tensors() {
            assert_eq!(tensor.dtype(), DType::F32);
            let distance = distance(tensor, &reference.tensors[name]);
            assert!(distance <= tolerance, "{dtype:?} {name}: {distance}");
        }
    }
}

#[test]
fn shards_are_put_together() {
    let (dir, _) = sharded(|_| ());
    let (model, _) = Classifier::open(dir.path(), Head::FromCheckpoint, &CPU).unwrap();
    let whole = Checkpoint::tiny().open().unwrap().0;
    assert_eq!(model.params.fingerprint().unwrap(), whole.params.fingerprint().unwrap());
}

#[test]
fn weight_files_are_those_that_are_opened() {
    let shard = |n: usize| format!("model-0000{n}-of-00002.safetensors");
    let (dir, _) = sharded(|index| {
        let names = index["weight_map"].as_object_mut().unwrap().values_mut();
        names.for_each(|name| *name = json!(name.as_str().unwrap().replace("model-", "part-")));
    });
    for n in [1, 2] {
        let part = shard(n).replace("model-", "part-");
        fs::rename(dir.path().join(shard(n)), dir.path().join(part)).unwrap();
    }
    Classifier::open(dir.path(), Head::FromCheckpoint, &CPU).unwrap();
    let (index, one, two) = (
        "model.safetensors.index.json",
        "part-00001-of-00002.safetensors",
        "part-00002-of-00002.safetensors",
    );
    assert_eq!(weight_files(dir.path()).unwrap(), [index, one, two]);
    fs::write(dir.path().join("model-3.safetensors"), "of something else").unwrap();
    assert_eq!(weight_files(dir.path()).unwrap(), [index, one, two]);
    assert_eq!(weight_files(Checkpoint::tiny().write().path()).unwrap(), ["model.safetensors"]);
}

#[test]
fn shard_refusals() {
    for name in
        ["../a.safetensors", "/etc/passwd", "sub/a.safetensors", "..", ".", "", "a\\b", "a/"]
    {
        let (dir, _) = sharded(|index| index["weight_map"]["classifier.bias"] = json!(name));
        assert_eq!(
            message(&dir, Classifier::open(dir.path(), Head::FromCheckpoint, &CPU)),
            format!(
                "DIR/model.safetensors.index.json: shard {name:?} is not the name of a file in the same folder"
            )
        );
    }
    let check = |change: fn(&mut Value), expected: &str| {
        let (dir, _) = sharded(change);
        assert_eq!(
            message(&dir, Classifier::open(dir.path(), Head::FromCheckpoint, &CPU)),
            expected
        );
    };
    check(
        |index| index["weight_map"]["classifier.bias"] = json!("c.safetensors"),
        "DIR/c.safetensors: can't be read: No such file or directory (os error 2)",
    );
    check(
        |index| index["weight_map"]["absent.bias"] = json!("model-00001-of-00002.safetensors"),
        "DIR/model.safetensors.index.json: says that \"absent.bias\" is in \"model-00001-of-00002.safetensors\", \
         but it is not there; fetch both again",
    );
    check(
        |index| index["weight_map"] = json!(1),
        "DIR/model.safetensors.index.json: not the JSON that was expected: invalid type: integer `1`, \
         expected a map at line 1 column 29",
    );
}

/// The fixture has a column-major tensor, as converts from TensorFlow do.
#[test]
fn a_pickle_is_read_where_there_is_nothing_else() {
    let fixture = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/pickle");
    let (model, report) = Classifier::open(&fixture, Head::FromCheckpoint, &CPU).unwrap();
    assert_eq!((report.fresh, report.unused), (vec![], vec![]));
    let expected: HashMap<String, Tensor> =
        candle_core::safetensors::load(fixture.join("same.safetensors"), &CPU).unwrap();
    assert_eq!(model.params.0.len(), expected.len());
    for (name, tensor) in model.params.tensors() {
        assert_eq!(numbers(tensor), numbers(&expected[name]), "{name}");
    }
    assert_eq!(model.labels(), ["LABEL_0", "LABEL_1"]);
}

#[test]
fn misfits_are_listed_by_name() {
    let mut tiny = Checkpoint::tiny();
    tiny.tensors.remove("bert.encoder.layer.1.output.dense.bias");
    tiny.tensors.remove("bert.embeddings.LayerNorm.weight");
    let odd = Tensor::zeros((2, 3), DType::F32, &CPU).unwrap();
    tiny.tensors.insert("bert.encoder.layer.2.output.dense.bias".into(), odd.clone());
    tiny.tensors.insert("unheard_of.bias".into(), odd.clone());
    tiny.tensors.insert("bert.embeddings.word_embeddings.weight".into(), odd.clone());
    tiny.tensors.insert("classifier.weight".into(), odd);
    let dir = tiny.write();
    let expected = "DIR/model.safetensors: the tensors don't fit the model: \
         missing: bert.embeddings.LayerNorm.weight, bert.encoder.layer.1.output.dense.bias; \
         not known: bert.encoder.layer.2.output.dense.bias, unheard_of.bias; \
         wrong shape: bert.embeddings.word_embeddings.weight is [2, 3], expected [100, 32], \
         classifier.weight is [2, 3], expected [3, 32]";
    assert_eq!(message(&dir, Classifier::open(dir.path(), Head::FromCheckpoint, &CPU)), expected);
}

#[test]
fn refusals() {
    let check = |change: fn(&mut Checkpoint), expected: &str| {
        let mut tiny = Checkpoint::tiny();
        change(&mut tiny);
        let dir = tiny.write();
        assert_eq!(
            message(&dir, Classifier::open(dir.path(), Head::FromCheckpoint, &CPU)),
            expected
        );
    };
    check(
        |tiny| *tiny = Checkpoint::tiny_base(),
        "DIR/model.safetensors: this model has no classification head (missing: bert.pooler.dense.bias, \
         bert.pooler.dense.weight, classifier.bias, classifier.weight); train it with new class names first",
    );
    check(
        |tiny| tiny.tensors.retain(|name, _| !name.contains("pooler")),
        "DIR/model.safetensors: the tensors don't fit the model: \
         missing: bert.pooler.dense.bias, bert.pooler.dense.weight",
    );
    check(
        |tiny| {
            let twin = tiny.tensors["bert.pooler.dense.bias"].clone();
            tiny.tensors.insert("pooler.dense.bias".into(), twin);
        },
        "DIR/model.safetensors: \"bert.pooler.dense.bias\" and \"pooler.dense.bias\" are the same parameter, \
         bert.pooler.dense.bias",
    );
    check(
        |tiny| {
            let whole = Tensor::zeros(3, DType::I64, &CPU).unwrap();
            tiny.tensors.insert("classifier.bias".into(), whole);
        },
        "DIR/model.safetensors: \"classifier.bias\" holds I64, \
         expected floating-point numbers (F32, F16, BF16 or F64)",
    );
}

#[test]
fn bad_new_heads() {
    for labels in [&[][..], &["a", "b", "a"]] {
        let error = open_fresh(Checkpoint::tiny_base().write(), labels).err().unwrap();
        let expected =
            format!("a new head needs at least one class name and no name twice; found {labels:?}");
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn folders_without_sound_weights() {
    let dir = Checkpoint::tiny().write();
    let open = || message(&dir, Classifier::open(dir.path(), Head::FromCheckpoint, &CPU));
    let file = dir.path().join("model.safetensors");
    fs::write(&file, "version https://git-lfs.github.com/spec/v1\n").unwrap();
    assert_eq!(
        open(),
        "DIR/model.safetensors: not a sound safetensors file: header too large; fetch it again"
    );
    fs::write(&file, "").unwrap();
    assert_eq!(
        open(),
        "DIR/model.safetensors: not a sound safetensors file: header too small; fetch it again"
    );
    fs::remove_file(&file).unwrap();
    assert_eq!(
        open(),
        "DIR: no weights here: looked for model.safetensors, model.safetensors.index.json, pytorch_model.bin"
    );
    fs::write(dir.path().join("pytorch_model.bin"), "no archive").unwrap();
    let found = open();
    assert!(
        found.starts_with("DIR/pytorch_model.bin: not a PyTorch file that can be read: "),
        "{found}"
    );
    assert!(found.ends_with("; convert it to safetensors"), "{found}");
}

#[test]
fn parameters_come_back_from_a_file() {
    let (model, _) = Checkpoint::tiny().open().unwrap();
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("params.safetensors");
    write_safetensors(&path, model.params.tensors(), &[]).unwrap();
    let before = model.params.fingerprint().unwrap();
    for var in model.params.0.values() {
        var.set(&var.zeros_like().unwrap()).unwrap();
    }
    let zero = model.params.fingerprint().unwrap();
    assert_ne!(zero, before);
    read_params_into(&model.params, &path).unwrap();
    assert_eq!(model.params.fingerprint().unwrap(), before);

    let some = model.params.tensors().skip(1);
    write_safetensors(&path, some, &[]).unwrap();
    for var in model.params.0.values() {
        var.set(&var.zeros_like().unwrap()).unwrap();
    }
    assert_eq!(
        message(&dir, read_params_into(&model.params, &path)),
        "DIR/params.safetensors: the tensors don't fit the model: missing: bert.embeddings.LayerNorm.bias"
    );
    assert_eq!(model.params.fingerprint().unwrap(), zero);
}

#[test]
fn a_real_base_model_opens_with_a_new_head() {
    let home = env::var("HOME").unwrap_or_default();
    let dir =
        PathBuf::from(home).join(".cache/local-hub/models/sentence-transformers/all-MiniLM-L6-v2");
    if !dir.exists() {
        let _ = writeln!(io::stderr(), "skipped: all-MiniLM-L6-v2 is not in ~/.cache/local-hub");
        return;
    }
    let labels = vec!["negative".to_string(), "positive".to_string()];
    let head = Head::Fresh { labels, normal: &mut || 0.5 };
    let (model, report) = Classifier::open(&dir, head, &CPU).unwrap();
    assert_eq!((report.fresh, report.unused), (strings(&HEAD), vec![]));
    let n_numbers: usize = model.params.tensors().map(|(_, tensor)| tensor.elem_count()).sum();
    assert_eq!(n_numbers, 22_713_216 + 2 * 384 + 2);
    let logits = model.forward(&input(&[&[101, 2307, 3185, 102], &[101, 102]], 4), Mode::Eval);
    assert!(numbers(&logits.unwrap()).iter().all(|x| x.is_finite()));
}

/// The golden model in two shards, with its index changed.
fn sharded(change: impl Fn(&mut Value)) -> (TempDir, Value) {
    let tiny = Checkpoint::tiny();
    let dir = tiny.write();
    fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    let mut index = json!({ "metadata": {}, "weight_map": {} });
    let mut shards = [HashMap::new(), HashMap::new()];
    for (n, (name, tensor)) in tiny.tensors.into_iter().enumerate() {
        index["weight_map"][&name] = json!(format!("model-0000{}-of-00002.safetensors", n % 2 + 1));
        shards[n % 2].insert(name, tensor);
    }
    for (n, shard) in shards.iter().enumerate() {
        let path = dir.path().join(format!("model-0000{}-of-00002.safetensors", n + 1));
        safetensors::serialize_to_file(shard, None, &path).unwrap();
    }
    change(&mut index);
    fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    (dir, index)
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}
