//! Adapters as PEFT lays them out: written, read back, merged; foreign and damaged ones refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use candle_core::Tensor;
use lowchurn_models::{
    AdapterBase, AdapterFiles, Classifier, Config, Depth, Error, Head, ModelType, adapted,
    adapter_base, depth, matrices, open_adapted, parameter_shapes, save_adapter, usual_targets,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{CPU, Checkpoint, golden, numbers};

const QUERY: &str = "bert.encoder.layer.0.attention.self.query.weight";

fn tiny() -> Classifier {
    Classifier::open(&golden().join("bert_tiny"), Head::FromCheckpoint, &CPU).unwrap().0
}

fn wave(shape: &[usize], k: f32) -> Tensor {
    let n: usize = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|i| (i as f32 * k).sin()).collect();
    Tensor::from_vec(values, shape, &CPU).unwrap()
}

/// An adapter of rank 2 and alpha 3 on one matrix of the golden model, with a head of its own.
fn write(dir: &Path) -> (Tensor, Tensor) {
    let (model, a, b) = (tiny(), wave(&[2, 32], 0.7), wave(&[32, 2], 0.3));
    let (head, bias) = (wave(&[3, 32], 0.2), wave(&[3], 0.9));
    let name = golden().join("bert_tiny").display().to_string();
    let files = AdapterFiles {
        base: &AdapterBase { name, revision: Some("main".into()), sha256: Some("5".repeat(64)) },
        rank: 2,
        alpha: 3.0,
        targets: vec!["query".into()],
        factors: vec![(QUERY, &a, &b)],
        whole: vec![("classifier.weight", &head), ("classifier.bias", &bias)],
    };
    save_adapter(dir, &model.config, &files).unwrap();
    (a, b)
}

fn edit(dir: &Path, change: &dyn Fn(&mut Value)) {
    let path = dir.join("adapter_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    fs::write(path, config.to_string()).unwrap();
}

fn open(dir: &TempDir) -> Result<Classifier, String> {
    let opened = open_adapted(&golden().join("bert_tiny"), dir.path(), &CPU);
    opened.map_err(|error: Error| {
        let text = error.to_string().replace(&dir.path().display().to_string(), "DIR");
        text.replace(&golden().display().to_string(), "GOLDEN")
    })
}

#[test]
fn an_adapter_is_written_and_merged() {
    let dir = TempDir::new().unwrap();
    let (a, b) = write(dir.path());
    let base = adapter_base(dir.path()).unwrap();
    assert_eq!((base.revision.as_deref(), base.sha256), (Some("main"), Some("5".repeat(64))));
    let model = open(&dir).unwrap();
    let expected = adapted(tiny().params.0[QUERY].as_tensor(), &a, &b, 1.5).unwrap();
    assert_eq!(numbers(&model.params.0[QUERY]), numbers(&expected));
    assert_eq!(numbers(&model.params.0["classifier.weight"]), numbers(&wave(&[3, 32], 0.2)));
    assert_eq!(model.labels(), ["red", "green", "blue"]);
    let same = |name: &str| numbers(&model.params.0[name]) == numbers(&tiny().params.0[name]);
    assert!(!same(QUERY) && !same("classifier.weight") && same("bert.pooler.dense.weight"));

    // By hand: 3/2·Σ B[o][r]·A[r][i], in f64.
    let at = |tensor: &Tensor, row: usize, column: usize| {
        f64::from(tensor.to_vec2::<f32>().unwrap()[row][column])
    };
    let product = |o, i| 1.5 * (at(&b, o, 0) * at(&a, 0, i) + at(&b, o, 1) * at(&a, 1, i));
    for (o, i) in [(0, 0), (3, 17), (31, 31)] {
        let expected = at(&tiny().params.0[QUERY], o, i) + product(o, i);
        assert!((at(&model.params.0[QUERY], o, i) - expected).abs() < 1e-6, "{o} {i}");
    }
}

#[test]
fn scales_of_both_kinds() {
    let check = |change: &dyn Fn(&mut Value), scale: f64| {
        let dir = TempDir::new().unwrap();
        let (a, b) = write(dir.path());
        edit(dir.path(), change);
        let expected = adapted(tiny().params.0[QUERY].as_tensor(), &a, &b, scale).unwrap();
        assert_eq!(numbers(&open(&dir).unwrap().params.0[QUERY]), numbers(&expected));
    };
    check(&|config| config["lora_alpha"] = json!(8), 4.0);
    check(&|config| config["use_rslora"] = json!(true), 3.0 / 2f64.sqrt());
    check(&|config| drop(config.as_object_mut().unwrap().remove("bias")), 1.5);
}

/// Without config.json, as PEFT writes it: labels are the base's where they fit.
#[test]
fn peft_keeps_no_labels() {
    let dir = TempDir::new().unwrap();
    write(dir.path());
    fs::remove_file(dir.path().join("config.json")).unwrap();
    assert_eq!(open(&dir).unwrap().labels(), ["red", "green", "blue"]);
    let base = Checkpoint::tiny_base().write();
    let said = open_adapted(base.path(), dir.path(), &CPU).err().unwrap().to_string();
    assert!(said.contains("neither it nor its base, "), "{said}");
    assert!(said.ends_with("has bert.pooler.dense.bias, bert.pooler.dense.weight"), "{said}");
}

/// An adapter's config may say less than the base's, or something else; labels alone are taken from it, where they fit the head.
#[test]
fn a_config_beside_an_adapter_says_labels_and_no_more() {
    let dir = TempDir::new().unwrap();
    write(dir.path());
    let with = |change: &dyn Fn(&mut Value)| {
        let mut config = Checkpoint::tiny().config;
        change(&mut config);
        fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        open(&dir).unwrap()
    };
    let bare = with(&|config| {
        (config["id2label"], config["label2id"]) = (Value::Null, Value::Null);
        config["problem_type"] = json!("multi_label_classification");
    });
    assert_eq!(bare.labels(), ["red", "green", "blue"]);
    assert_eq!(bare.config.raw["problem_type"], "multi_label_classification");
    let renamed = with(&|config| {
        config["id2label"] = json!({ "0": "a", "1": "b", "2": "c" });
        config["label2id"] = json!({ "a": 0, "b": 1, "c": 2 });
        config["num_attention_heads"] = json!(8);
        config["layer_norm_eps"] = json!(0.1);
    });
    assert_eq!(renamed.labels(), ["a", "b", "c"]);
    assert_eq!(renamed.config.raw["id2label"]["1"], "b");
    let (own, base) = (&renamed.config, tiny().config);
    assert_eq!((own.heads, own.layer_norm_eps), (base.heads, base.layer_norm_eps));
}

#[test]
fn other_kinds_are_refused() {
    let check = |change: &dyn Fn(&mut Value), message: &str| {
        let dir = TempDir::new().unwrap();
        write(dir.path());
        edit(dir.path(), change);
        assert_eq!(open(&dir).err().unwrap(), format!("DIR/adapter_config.json: key {message}"));
    };
    let kind = "\"peft_type\" is \"IA3\", expected \"LORA\", the only kind that is read";
    check(&|config| config["peft_type"] = json!("IA3"), kind);
    check(
        &|config| config["use_dora"] = json!(true),
        "\"use_dora\" is true, expected false, the only form that is read",
    );
    check(
        &|config| config["bias"] = json!("all"),
        "\"bias\" is \"all\", expected \"none\", the only form that is read",
    );
    check(
        &|config| config["rank_pattern"] = json!({ "query": 4 }),
        "\"rank_pattern\" is {\"query\":4}, expected {}, the only form that is read",
    );
    check(
        &|config| config["init_lora_weights"] = json!("pissa"),
        "\"init_lora_weights\" is \"pissa\", expected true, false or one that leaves the base's matrices as they are",
    );
    check(&|config| config["r"] = json!(0), "\"r\" is 0, expected the rank, at least 1");
    check(
        &|config| config["lora_alpha"] = json!("x"),
        "\"lora_alpha\" is \"x\", expected a number",
    );
}

#[test]
fn tensors_that_fit_nothing_are_refused() {
    let check = |change: &dyn Fn(&mut BTreeMap<String, Tensor>), message: &str| {
        let dir = TempDir::new().unwrap();
        write(dir.path());
        let path = dir.path().join("adapter_model.safetensors");
        let mut tensors: BTreeMap<String, Tensor> =
            candle_core::safetensors::load(&path, &CPU).unwrap().into_iter().collect();
        change(&mut tensors);
        safetensors::serialize_to_file(&tensors, None, &path).unwrap();
        assert_eq!(
            open(&dir).err().unwrap(),
            format!("DIR: this adapter can't be merged: {message}")
        );
    };
    let name = |part: &str| {
        format!("base_model.model.{}.{part}.weight", QUERY.trim_end_matches(".weight"))
    };
    check(
        &|tensors| drop(tensors.remove(&name("lora_B"))),
        &format!("{QUERY} has lora_A but no lora_B"),
    );
    check(
        &|tensors| drop(tensors.remove(&name("lora_A"))),
        &format!("{QUERY} has lora_B but no lora_A"),
    );
    check(
        &|tensors| drop(tensors.insert(name("lora_B"), wave(&[32, 3], 1.0))),
        &format!("{QUERY} is [32, 32] in its base, and here [[2, 32], [32, 3]]"),
    );
    check(
        &|tensors| drop(tensors.insert("classifier.weight".into(), wave(&[3, 32], 1.0))),
        "\"classifier.weight\" doesn't start with \"base_model.model.\"",
    );
    check(
        &|tensors| drop(tensors.insert("base_model.model.bert.x.weight".into(), wave(&[3], 1.0))),
        "its base has no bert.x.weight, which it changes",
    );
    check(
        &|tensors| {
            drop(tensors.insert("base_model.model.x.lora_embedding_A".into(), wave(&[3], 1.0)))
        },
        "\"x.lora_embedding_A\" is no factor of a linear layer",
    );
    check(
        &|tensors| {
            let (a, b) = (wave(&[2, 32], 1.0), wave(&[32, 2], 1.0));
            tensors.insert("base_model.model.bert.y.lora_A.weight".into(), a);
            tensors.insert("base_model.model.bert.y.lora_B.weight".into(), b);
        },
        "its base has no bert.y.weight, which it changes",
    );
}

/// Each architecture's usual targets are there, two in each layer, or one where queries and values are one module.
#[test]
fn usual_targets_of_every_architecture() {
    for model_type in ModelType::ALL {
        let mut config: BTreeMap<&str, Value> = BTreeMap::from([
            ("model_type", json!(model_type.name())),
            ("vocab_size", json!(50)),
            ("hidden_size", json!(8)),
            ("dim", json!(8)),
            ("embedding_size", json!(4)),
            ("num_hidden_layers", json!(3)),
            ("n_layers", json!(3)),
            ("num_attention_heads", json!(2)),
            ("n_heads", json!(2)),
            ("intermediate_size", json!(16)),
            ("hidden_dim", json!(16)),
            ("max_position_embeddings", json!(20)),
            ("pad_token_id", json!(1)),
        ]);
        config.extend(model_type_settings(model_type));
        let config = config.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
        let config = Config::parse(config, Path::new("config.json")).unwrap();
        let targets: Vec<String> =
            usual_targets(model_type).iter().map(|name| name.to_string()).collect();
        let found = matrices(&config, &targets).unwrap();
        let mut layers: Vec<Depth> = parameter_shapes(&config)
            .iter()
            .map(|(name, _)| depth(&config, name))
            .filter(|depth| matches!(depth, Depth::Layer(_)))
            .collect();
        layers.sort();
        layers.dedup();
        assert_eq!(found.len(), targets.len() * layers.len(), "{}", model_type.name());
        let refused = matrices(&config, &["embeddings".into()]).unwrap_err().to_string();
        let start = "no module of the layers is called \"embeddings\"; there are ";
        assert!(refused.starts_with(start), "{refused}");
        for target in targets {
            assert!(
                refused[start.len()..]
                    .split(", ")
                    .any(|known| { known == target || known.ends_with(&format!(".{target}")) }),
                "{target} in {refused}"
            );
        }
    }
}

/// What only some architectures' configs need.
fn model_type_settings(model_type: ModelType) -> Vec<(&'static str, Value)> {
    match model_type.name() {
        "deberta-v2" => {
            vec![("relative_attention", json!(true)), ("pos_att_type", json!(["p2c", "c2p"]))]
        }
        _ => Vec::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damaged_adapters_never_panic(at in any::<prop::sample::Index>(), byte: u8, is_config: bool) {
        let dir = TempDir::new().unwrap();
        write(dir.path());
        let name = if is_config { "adapter_config.json" } else { "adapter_model.safetensors" };
        let mut bytes = fs::read(dir.path().join(name)).unwrap();
        let at = at.index(bytes.len().min(1500));
        bytes[at] = byte;
        fs::write(dir.path().join(name), &bytes).unwrap();
        let _ = (open(&dir), adapter_base(dir.path()));
        bytes.truncate(at);
        fs::write(dir.path().join(name), &bytes).unwrap();
        let _ = (open(&dir), adapter_base(dir.path()));
    }
}
