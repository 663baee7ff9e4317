//! What a config.json may say, and the whole text of each refusal.

use std::fs;

use lowchurn_kernels::{Activation, Gelu};
use lowchurn_models::{Config, ModelType, check_vocabulary};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Checkpoint, message};

#[test]
fn fields_are_read() {
    let config = parse("classifier_dropout", json!(0.25)).unwrap();
    assert_eq!(config.model_type, ModelType::Bert);
    assert_eq!(
        (config.vocab_size, config.hidden_size, config.layers, config.heads),
        (100, 32, 2, 4)
    );
    assert_eq!(
        (config.intermediate_size, config.max_positions, config.type_vocab_size),
        (64, 16, 2)
    );
    assert_eq!(
        (config.layer_norm_eps, config.initializer_range, config.pad_token_id),
        (1e-12, 0.02, 0)
    );
    assert_eq!(
        (config.hidden_dropout, config.attention_dropout, config.classifier_dropout),
        (0.0, 0.0, 0.25)
    );
    assert_eq!(config.activation, Activation::Gelu(Gelu::Erf));
    assert_eq!(config.labels, ["red", "green", "blue"]);
    assert_eq!(config.raw["transformers_version"], "5.23.0");
}

#[test]
fn what_a_published_config_leaves_out_has_its_usual_value() {
    let mut config = Checkpoint::tiny().config;
    let keep = [
        "model_type",
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
    ];
    config.as_object_mut().unwrap().retain(|key, _| keep.contains(&key.as_str()));
    let config =
        Config::parse(config.as_object().unwrap().clone(), "config.json".as_ref()).unwrap();
    assert_eq!(
        (config.type_vocab_size, config.layer_norm_eps, config.initializer_range),
        (2, 1e-12, 0.02)
    );
    assert_eq!(
        (config.hidden_dropout, config.attention_dropout, config.classifier_dropout),
        (0.1, 0.1, 0.1)
    );
    assert_eq!(config.labels, [""; 0]);
}

#[test]
fn classifier_dropout_falls_back_to_hidden_dropout() {
    let config = parse("hidden_dropout_prob", json!(0.3)).unwrap();
    assert_eq!(config.classifier_dropout, 0.3);
}

#[test]
fn a_missing_model_type_needs_another_sign() {
    assert_eq!(parse("model_type", Value::Null).unwrap().model_type, ModelType::Bert);
    let mut tiny = Checkpoint::tiny();
    tiny.config["model_type"] = Value::Null;
    tiny.config["architectures"] = json!(["RobertaForMaskedLM"]);
    assert_eq!(Config::open(tiny.write().path()).unwrap().model_type, ModelType::Roberta);
}

#[test]
fn refusals() {
    let check = |key: &str, value: Value, expected: &str| {
        let shown = value.to_string();
        let found = parse(key, value).unwrap_err();
        assert_eq!(found, format!("DIR/config.json: {expected}"), "{key} = {shown}");
    };
    let whole = "expected a whole number from 1 to 16777216";
    for key in [
        "vocab_size",
        "hidden_size",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
    ] {
        check(key, Value::Null, &format!("key \"{key}\" is missing, {whole}"));
        check(key, json!(0), &format!("key \"{key}\" is 0, {whole}"));
        check(key, json!(-3), &format!("key \"{key}\" is -3, {whole}"));
        check(key, json!(1e30), &format!("key \"{key}\" is 1e+30, {whole}"));
        check(key, json!("32"), &format!("key \"{key}\" is \"32\", {whole}"));
    }
    check(
        "num_hidden_layers",
        json!(1_000_000_000),
        "key \"num_hidden_layers\" is 1000000000, expected a whole number from 1 to 1024",
    );
    check(
        "num_attention_heads",
        json!(5),
        "key \"num_attention_heads\" is 5, expected a divisor of hidden_size, 32",
    );
    check(
        "pad_token_id",
        json!(100),
        "key \"pad_token_id\" is 100, expected an id below vocab_size, 100",
    );
    check(
        "hidden_act",
        json!("swish"),
        "key \"hidden_act\" is \"swish\", expected gelu, gelu_new, gelu_pytorch_tanh or relu",
    );
    check(
        "hidden_dropout_prob",
        json!(1.5),
        "key \"hidden_dropout_prob\" is 1.5, expected a number from 0 to 1",
    );
    check(
        "attention_probs_dropout_prob",
        json!(1),
        "key \"attention_probs_dropout_prob\" is 1, expected a probability below 1",
    );
    check(
        "layer_norm_eps",
        json!(0),
        "key \"layer_norm_eps\" is 0, expected a number above 0, at most 1",
    );
    check(
        "position_embedding_type",
        json!("relative_key"),
        "key \"position_embedding_type\" is \"relative_key\", expected \"absolute\", the only form supported",
    );
    check(
        "is_decoder",
        json!(true),
        "key \"is_decoder\" is true, expected false, the only form supported",
    );
    check(
        "model_type",
        json!("nomic_bert"),
        "model_type \"nomic_bert\" is not supported; the nearest that is: \"bert\", so take a base model of that type",
    );
    check(
        "model_type",
        json!("roberta-prelayernorm"),
        "model_type \"roberta-prelayernorm\" is not supported; the nearest that is: \"roberta\", \
         so take a base model of that type",
    );
    check("model_type", json!(7), "key \"model_type\" is 7, expected text, such as \"bert\"");
}

#[test]
fn label_refusals() {
    let check = |id2label: Value, label2id: Value, expected: &str| {
        let mut tiny = Checkpoint::tiny();
        tiny.config["id2label"] = id2label;
        tiny.config["label2id"] = label2id;
        let dir = tiny.write();
        let found = message(&dir, Config::open(dir.path()));
        assert_eq!(found, format!("DIR/config.json: {expected}"));
    };
    check(
        json!({"0": "a", "2": "b"}),
        Value::Null,
        r#"key "id2label" is {"0":"a","2":"b"}, expected the ids 0, 1, 2 and so on without a gap"#,
    );
    check(
        json!({"0": "a", "00": "b"}),
        Value::Null,
        r#"key "id2label" is {"0":"a","00":"b"}, expected the ids 0, 1, 2 and so on without a gap"#,
    );
    check(
        json!({"0": "a", "1": 7}),
        Value::Null,
        r#"key "id2label" is {"0":"a","1":7}, expected an object from ids to class names"#,
    );
    check(
        json!({"0": "a", "1": "a"}),
        Value::Null,
        r#"key "id2label" is {"0":"a","1":"a"}, expected a different name for each id"#,
    );
    check(
        json!({"0": "a", "1": "b"}),
        json!({"a": 1, "b": 0}),
        r#"key "label2id" is {"a":1,"b":0}, expected the inverse of id2label, {"0":"a","1":"b"}"#,
    );
    let mut tiny = Checkpoint::tiny();
    tiny.config["num_labels"] = json!(2);
    let dir = tiny.write();
    assert_eq!(
        message(&dir, Config::open(dir.path())),
        "DIR/config.json: key \"num_labels\" is 2, expected 3, the number of labels in id2label"
    );
}

#[test]
fn no_model_type_and_no_class_is_refused() {
    for (classes, nearest) in [
        (Value::Null, "bert"),
        (json!(["FlaubertModel"]), "bert"),
        (json!(["MegatronElectraModel"]), "electra"),
    ] {
        let mut tiny = Checkpoint::tiny();
        tiny.config["model_type"] = Value::Null;
        tiny.config["architectures"] = classes;
        let dir = tiny.write();
        assert_eq!(
            message(&dir, Config::open(dir.path())),
            format!(
                "DIR/config.json: key \"model_type\" is missing, expected the name of an architecture, such as {nearest:?}"
            )
        );
    }
}

#[test]
fn files_that_are_no_config() {
    let dir = TempDir::new().unwrap();
    let open = || message(&dir, Config::open(dir.path()));
    assert_eq!(open(), "DIR/config.json: can't be read: No such file or directory (os error 2)");
    fs::write(dir.path().join("config.json"), "[1]").unwrap();
    assert_eq!(
        open(),
        "DIR/config.json: not the JSON that was expected: invalid type: sequence, expected a map at line 1 column 0"
    );
    fs::write(dir.path().join("config.json"), "{\"a\": ").unwrap();
    assert_eq!(
        open(),
        "DIR/config.json: not the JSON that was expected: EOF while parsing a value at line 1 column 6"
    );
}

#[test]
fn tokenizers_that_do_not_fit() {
    let mut tiny = Checkpoint::tiny();
    tiny.config["vocab_size"] = json!(30522);
    let dir = tiny.write();
    let config = Config::open(dir.path()).unwrap();
    let check = |size: usize| check_vocabulary(&config, size, 7, dir.path());
    assert!(check(30522).is_ok());
    assert!(check(30522 - 1000).is_ok());
    assert_eq!(
        message(&dir, check(119547)),
        "DIR: the tokenizer is larger than the model: 119547 tokens, but the embedding has 30522 rows \
         (config.json, vocab_size); take the tokenizer that was published with this model"
    );
    assert_eq!(
        message(&dir, check(28996)),
        "DIR: the model is larger than the tokenizer: the embedding has 30522 rows (config.json, vocab_size), \
         but there are only 28996 tokens; take the tokenizer that was published with this model"
    );
}

/// The golden config with one key changed, or the message.
fn parse(key: &str, value: Value) -> Result<Config, String> {
    let mut tiny = Checkpoint::tiny();
    tiny.config[key] = value;
    let dir = tiny.write();
    match Config::open(dir.path()) {
        Ok(config) => Ok(config),
        refused => Err(message(&dir, refused)),
    }
}
