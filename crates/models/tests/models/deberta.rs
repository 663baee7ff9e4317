//! What DeBERTa's config and checkpoints may say, and what is refused. That it computes what PyTorch does is held in
//! `architectures.rs`.

use candle_core::{DType, Tensor};
use lowchurn_kernels::{Activation, Buckets, Gelu};
use lowchurn_models::{Config, Deberta, Details, Mode, RelativeTerms};
use serde_json::{Value, json};

use crate::{CPU, Checkpoint, distance, message};

fn v3() -> Checkpoint {
    Checkpoint::of("architectures/deberta_v3")
}

/// The config with some keys changed.
fn parse(changes: &[(&str, Value)]) -> Result<Config, String> {
    let mut checkpoint = v3();
    for (key, value) in changes {
        checkpoint.config[*key] = value.clone();
    }
    let dir = checkpoint.write();
    match Config::open(dir.path()) {
        Ok(config) => Ok(config),
        error => Err(message(&dir, error)),
    }
}

fn details(changes: &[(&str, Value)]) -> Deberta {
    match parse(changes).unwrap().details {
        Details::DebertaV2(details) => details,
        other => panic!("{other:?}"),
    }
}

#[test]
fn keys_mean_what_they_mean_in_transformers() {
    let usual = details(&[]);
    let terms = RelativeTerms {
        buckets: Buckets::Centred { span: 8, farthest: Some(40) },
        is_normed: true,
        is_shared: true,
        has_keys: true,
        has_queries: true,
    };
    let expected = Deberta {
        has_positions: false,
        terms: Some(terms),
        pooler_dropout: 0.0,
        pooler_activation: Activation::Gelu(Gelu::Erf),
    };
    assert_eq!(usual, expected);
    let check = |changes: &[(&str, Value)], expected: RelativeTerms| {
        assert_eq!(details(changes).terms, Some(expected), "{changes:?}");
    };
    check(&[("pos_att_type", json!("p2c|c2p"))], terms);
    check(&[("pos_att_type", json!("C2P"))], RelativeTerms { has_queries: false, ..terms });
    check(&[("pos_att_type", json!(["p2c"]))], RelativeTerms { has_keys: false, ..terms });
    check(&[("norm_rel_ebd", json!("none"))], RelativeTerms { is_normed: false, ..terms });
    check(&[("share_att_key", Value::Null)], RelativeTerms { is_shared: false, ..terms });
    let of =
        |span, farthest| RelativeTerms { buckets: Buckets::Centred { span, farthest }, ..terms };
    check(&[("max_relative_positions", json!(30))], of(8, Some(30)));
    check(&[("position_buckets", json!(-1))], of(40, None));
    let both = [("position_buckets", Value::Null), ("max_relative_positions", json!(12))];
    check(&both, of(12, None));

    let none = [
        ("relative_attention", json!(false)),
        ("pos_att_type", json!([])),
        ("norm_rel_ebd", json!("none")),
        ("position_biased_input", Value::Null),
        ("pooler_dropout", json!(0.25)),
        ("pooler_hidden_act", json!("gelu_new")),
    ];
    let expected = Deberta {
        has_positions: true,
        terms: None,
        pooler_dropout: 0.25,
        pooler_activation: Activation::Gelu(Gelu::Tanh),
    };
    assert_eq!(details(&none), expected);
    assert_eq!(parse(&[("cls_dropout", json!(0.5))]).unwrap().classifier_dropout, 0.5);
    assert_eq!(parse(&[("hidden_dropout_prob", json!(0.3))]).unwrap().classifier_dropout, 0.3);
    assert_eq!(parse(&[]).unwrap().embedding_size, 32);
}

/// As deberta-v3-small has it on the hub, with text for a list and numbers below 1 for nothing.
#[test]
fn a_published_config() {
    let published = json!({
        "model_type": "deberta-v2",
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": 768,
        "initializer_range": 0.02,
        "intermediate_size": 3072,
        "max_position_embeddings": 512,
        "relative_attention": true,
        "position_buckets": 256,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": true,
        "pos_att_type": "p2c|c2p",
        "layer_norm_eps": 1e-7,
        "max_relative_positions": -1,
        "position_biased_input": false,
        "num_attention_heads": 12,
        "num_hidden_layers": 6,
        "type_vocab_size": 0,
        "vocab_size": 128100
    });
    let raw = published.as_object().unwrap().clone();
    let config = Config::parse(raw, "config.json".as_ref()).unwrap();
    let terms = RelativeTerms {
        buckets: Buckets::Centred { span: 256, farthest: Some(512) },
        is_normed: true,
        is_shared: true,
        has_keys: true,
        has_queries: true,
    };
    let Details::DebertaV2(Deberta { has_positions: false, terms: found, .. }) = config.details
    else {
        panic!("{:?}", config.details)
    };
    assert_eq!(found, Some(terms));
    assert_eq!(
        (config.type_vocab_size, config.pad_token_id, config.classifier_dropout),
        (0, 0, 0.1)
    );
}

#[test]
fn refusals() {
    let check = |changes: &[(&str, Value)], expected: &str| {
        let found = parse(changes).unwrap_err();
        assert_eq!(found, format!("DIR/config.json: key {expected}"), "{changes:?}");
    };
    check(
        &[("conv_kernel_size", json!(3))],
        "\"conv_kernel_size\" is 3, expected 0 or nothing: the convolution of deberta-v2-xlarge and -xxlarge isn't \
         supported; take a checkpoint without it, such as microsoft/deberta-v3-base",
    );
    check(
        &[("attention_head_size", json!(16))],
        "\"attention_head_size\" is 16, expected 8, the only form supported",
    );
    check(
        &[("pooler_hidden_size", json!(16))],
        "\"pooler_hidden_size\" is 16, expected 32, the only form supported",
    );
    check(
        &[("norm_rel_ebd", json!("rms_norm"))],
        "\"norm_rel_ebd\" is \"rms_norm\", expected none or layer_norm",
    );
    let types = "expected c2p, p2c or both, as a list or as \"p2c|c2p\"";
    for (value, shown) in [
        (json!(["p2p", "c2p"]), "[\"p2p\",\"c2p\"]"),
        (json!("c2p,p2c"), "\"c2p,p2c\""),
        (json!(2), "2"),
    ] {
        check(&[("pos_att_type", value)], &format!("\"pos_att_type\" is {shown}, {types}"));
    }
    let together = "expected c2p, p2c or both where relative_attention is true, else nothing and no norm_rel_ebd";
    check(&[("pos_att_type", json!([]))], &format!("\"pos_att_type\" is [], {together}"));
    check(
        &[("relative_attention", json!(false))],
        &format!("\"pos_att_type\" is [\"p2c\",\"c2p\"], {together}"),
    );
    check(
        &[("relative_attention", json!(false)), ("pos_att_type", Value::Null)],
        &format!("\"pos_att_type\" is null, {together}"),
    );
    check(
        &[("position_buckets", json!(1))],
        "\"position_buckets\" is 1, expected 2 or more, and less than twice max_relative_positions, 40, less 2",
    );
    check(
        &[("max_relative_positions", json!(5))],
        "\"position_buckets\" is 8, expected 2 or more, and less than twice max_relative_positions, 5, less 2",
    );
    check(
        &[("share_att_key", json!("yes"))],
        "\"share_att_key\" is \"yes\", expected true or false",
    );
}

/// v3 was published with a table of absolute positions that its model has no use for.
#[test]
fn absolute_positions_of_a_model_without_them_are_left_lying() {
    let positions = "deberta.embeddings.position_embeddings.weight";
    let mut checkpoint = v3();
    let (plain, _) = checkpoint.open().unwrap();
    checkpoint.tensors.insert(positions.into(), Tensor::ones((40, 32), DType::F32, &CPU).unwrap());
    let (model, report) = checkpoint.open().unwrap();
    assert_eq!(report.unused, [positions]);
    let input = crate::input(&[&[5, 17, 45, 99, 6], &[7, 8]], 5);
    let logits = model.forward(&input, Mode::Eval).unwrap();
    assert_eq!(distance(&logits, &plain.forward(&input, Mode::Eval).unwrap()), 0.0);
}

/// Without terms the model is BERT with another pooler; it runs, and its parameters are those that transformers has then.
#[test]
fn a_model_without_relative_positions() {
    let mut checkpoint = Checkpoint::of("architectures/deberta_v2");
    let is_relative = |name: &str| name.contains("rel_embeddings") || name.contains(".pos_");
    checkpoint.tensors.retain(|name, _| !is_relative(name));
    checkpoint.config["relative_attention"] = json!(false);
    checkpoint.config["pos_att_type"] = Value::Null;
    let (model, _) = checkpoint.open().unwrap();
    let logits = |row: &[u32]| model.forward(&crate::input(&[row], row.len()), Mode::Eval).unwrap();
    assert!(distance(&logits(&[5, 17, 45]), &logits(&[5, 45, 17])) > 1e-3);
}
