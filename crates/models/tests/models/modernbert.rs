//! ModernBERT: its config, its checkpoints, and PyTorch's logits, gradients and losses.

use std::collections::{BTreeMap, HashMap};
use std::fs;

use candle_core::{DType, Tensor};
use lowchurn_kernels::{AdamW, Keys, Moments, adamw, backward};
use lowchurn_models::{
    Classifier, Config, Cut, Depth, Details, Head, Input, LayerAttention, Mode, ModelType, Pooling,
    depth, is_decayed, save,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{CPU, Checkpoint, distance, golden, numbers};

const FORMS: [&str; 2] = ["modernbert_cls", "modernbert_mean"];

fn expected(form: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(golden().join(format!("{form}.safetensors")), &CPU).unwrap()
}

fn batch(expected: &HashMap<String, Tensor>) -> Input {
    let u32s = |name: &str| expected[name].to_dtype(DType::U32).unwrap();
    let ids = u32s("input_ids").flatten_all().unwrap().to_vec1::<u32>().unwrap();
    let lengths: Vec<u32> = u32s("attention_mask").sum(1).unwrap().to_vec1().unwrap();
    let width = expected["input_ids"].dim(1).unwrap();
    // Its texts have no types, whatever a tokenizer says.
    Input::new(&ids, &vec![1; ids.len()], &lengths, width, &CPU).unwrap()
}

fn loss(model: &Classifier, expected: &HashMap<String, Tensor>) -> Tensor {
    let logits = model.forward(&batch(expected), Mode::Train(&mut Keys::new(1))).unwrap();
    candle_nn::loss::cross_entropy(&logits, &expected["labels"]).unwrap()
}

#[test]
fn logits_are_those_of_pytorch() {
    for form in FORMS {
        let (model, report) = Checkpoint::of(form).open().unwrap();
        assert_eq!((report.fresh, report.unused), (vec![], vec![]));
        let expected = expected(form);
        let logits = model.forward(&batch(&expected), Mode::Eval).unwrap();
        let distance = distance(&logits, &expected["logits"]);
        assert!(distance < 1e-4, "{form}: {distance}");
    }
}

#[test]
fn gradients_are_those_of_pytorch() {
    for form in FORMS {
        let expected = expected(form);
        let (model, _) = Checkpoint::of(form).open().unwrap();
        let mut grads = backward(&loss(&model, &expected)).unwrap();
        for (name, var) in &model.params.0 {
            let found = grads.remove(var).unwrap().unwrap_or_else(|| panic!("{form}: {name}"));
            let (found, expected) =
                (found.to_tensor().unwrap(), &expected[&format!("grad.{name}")]);
            let largest = numbers(expected).into_iter().map(f32::abs).fold(0.0, f32::max);
            let distance = distance(&found, expected);
            assert!(distance < 1e-3 * largest, "{form}: {name}: {distance} of {largest}");
        }
        let n_golden = expected.keys().filter(|name| name.starts_with("grad.")).count();
        assert_eq!(model.params.0.len(), n_golden);
    }
}

#[test]
fn ten_steps_of_adamw_are_those_of_pytorch() {
    for form in FORMS {
        let text = fs::read(golden().join(format!("{form}.json"))).unwrap();
        let golden: Value = serde_json::from_slice(&text).unwrap();
        let expected = expected(form);
        let (model, _) = Checkpoint::of(form).open().unwrap();
        let mut moments: BTreeMap<String, Moments> = BTreeMap::new();
        for (step, golden) in golden["losses"].as_array().unwrap().iter().enumerate() {
            let loss = loss(&model, &expected);
            let (found, golden) =
                (loss.to_scalar::<f32>().unwrap(), golden.as_f64().unwrap() as f32);
            assert!((found - golden).abs() < 1e-4, "{form}, step {step}: {found}, {golden}");
            let mut grads = backward(&loss).unwrap();
            for (name, var) in &model.params.0 {
                let grad = grads.remove(var).unwrap().unwrap().to_tensor().unwrap();
                let moments =
                    moments.entry(name.clone()).or_insert_with(|| Moments::zeros(var).unwrap());
                let update = AdamW {
                    learning_rate: 1e-3,
                    beta1: 0.9,
                    beta2: 0.999,
                    epsilon: 1e-8,
                    weight_decay: if is_decayed(var) { 0.01 } else { 0.0 },
                    step: step as u64 + 1,
                    gradient_scale: 1.0,
                };
                adamw(var, &grad, moments, &update).unwrap();
            }
        }
    }
}

/// Neither the other texts of a batch nor a wider one change what is said of a text.
#[test]
fn padding_does_not_change_logits() {
    for form in FORMS {
        let (model, _) = Checkpoint::of(form).open().unwrap();
        let of = |rows: &[&[u32]], width| {
            model.forward(&crate::input(rows, width), Mode::Eval).unwrap().get(0).unwrap()
        };
        let text: Vec<u32> = (1..30).collect();
        let alone = of(&[&text], 29);
        let among = of(&[&text, &[4; 90], &[7, 8]], 96);
        assert!(distance(&alone, &among) < 1e-5, "{form}");
    }
}

/// With dropout, the same stream drops the same, another one something else, and each site takes part.
#[test]
fn dropout_has_its_places() {
    let expected = expected("modernbert_cls");
    let (mut model, _) = Checkpoint::of("modernbert_cls").open().unwrap();
    let plain = model.forward(&batch(&expected), Mode::Eval).unwrap();
    for site in 0..3 {
        let of = |at: usize| if at == site { 0.3 } else { 0.0 };
        (model.config.hidden_dropout, model.config.attention_dropout) = (of(0), of(1));
        model.config.classifier_dropout = of(2);
        let seeded =
            |seed| model.forward(&batch(&expected), Mode::Train(&mut Keys::new(seed))).unwrap();
        assert_eq!(distance(&seeded(1), &seeded(1)), 0.0);
        assert!(distance(&seeded(1), &seeded(2)) > 1e-3, "{site}");
        assert!(distance(&seeded(1), &plain) > 1e-3, "{site}");
    }
}

/// The same network on tensors made from the variables, which goes through the operations one by one.
#[test]
fn other_tensors_give_the_same() {
    for form in FORMS {
        let expected = expected(form);
        let (model, _) = Checkpoint::of(form).open().unwrap();
        let doubled = model
            .params
            .tensors()
            .map(|(name, x)| (name.to_string(), ((x * 2.0).unwrap() * 0.5).unwrap()));
        let doubled: BTreeMap<String, Tensor> = doubled.collect();
        let logits = model
            .forward_with(&doubled, &batch(&expected), Mode::Train(&mut Keys::new(1)))
            .unwrap();
        assert!(distance(&logits, &expected["logits"]) < 1e-4, "{form}");
        let loss = candle_nn::loss::cross_entropy(&logits, &expected["labels"]).unwrap();
        let mut grads = backward(&loss).unwrap();
        for (name, var) in &model.params.0 {
            let found = grads.remove(var).unwrap().unwrap_or_else(|| panic!("{form}: {name}"));
            let expected = &expected[&format!("grad.{name}")];
            let largest = numbers(expected).into_iter().map(f32::abs).fold(0.0, f32::max);
            let distance = distance(&found.to_tensor().unwrap(), expected);
            assert!(distance < 1e-3 * largest, "{form}: {name}: {distance} of {largest}");
        }
    }
}

/// A masked language model as published: the layers in front of its decoder become ours, the decoder is left.
#[test]
fn a_base_checkpoint_gets_a_head() {
    let mut base = Checkpoint::of("modernbert_cls");
    base.tensors.retain(|name, _| !name.starts_with("classifier."));
    base.tensors.insert("decoder.bias".into(), Tensor::zeros(50, DType::F32, &CPU).unwrap());
    let (model, report) = base.open_fresh().unwrap();
    assert_eq!(report.fresh, ["classifier.bias", "classifier.weight"]);
    assert_eq!(report.unused, ["decoder.bias"]);
    assert_eq!(model.labels(), ["ham", "spam"]);
    // The encoder alone, as `ModernBertModel` saves it.
    base.tensors.retain(|name, _| name.starts_with("model."));
    base.rename(|name| name.replacen("model.", "", 1));
    let (model, report) = base.open_fresh().unwrap();
    assert_eq!(
        report.fresh,
        ["classifier.bias", "classifier.weight", "head.dense.weight", "head.norm.weight"]
    );
    assert_eq!(numbers(&model.params.0["head.norm.weight"]), [1.0; 16]);
}

#[test]
fn a_saved_model_is_the_same_again() {
    for form in FORMS {
        let dir = Checkpoint::of(form).write();
        let (model, _) = Checkpoint::of(form).open().unwrap();
        let before = fs::read(dir.path().join("model.safetensors")).unwrap();
        save(dir.path(), &model.config, &model.params, dir.path()).unwrap();
        let config: Value =
            serde_json::from_slice(&fs::read(dir.path().join("config.json")).unwrap()).unwrap();
        assert_eq!(config, Checkpoint::of(form).config);
        let [before, after] = [before, fs::read(dir.path().join("model.safetensors")).unwrap()]
            .map(|bytes| candle_core::safetensors::load_buffer(&bytes, &CPU).unwrap());
        assert_eq!(before.len(), after.len());
        for (name, tensor) in before {
            assert_eq!(distance(&tensor, &after[&name]), 0.0, "{name}");
        }
    }
}

#[test]
fn depths() {
    let (model, _) = Checkpoint::of("modernbert_mean").open().unwrap();
    let check = |name: &str, expected: Depth| {
        assert!(model.params.0.contains_key(name), "{name}");
        assert_eq!(depth(&model.config, name), expected, "{name}");
    };
    check("model.embeddings.tok_embeddings.weight", Depth::Embedding);
    check("model.embeddings.norm.weight", Depth::Embedding);
    check("model.layers.0.attn.Wqkv.weight", Depth::Layer(0));
    check("model.layers.2.mlp_norm.weight", Depth::Layer(2));
    check("model.final_norm.weight", Depth::Layer(2));
    check("head.dense.bias", Depth::Head);
    check("head.norm.weight", Depth::Head);
    check("classifier.bias", Depth::Head);
}

fn parse(form: &str, changes: &[(&str, Value)]) -> Result<Config, String> {
    let mut config = Checkpoint::of(form).config;
    for (key, value) in changes {
        config[key] = value.clone();
    }
    Config::parse(config.as_object().unwrap().clone(), "config.json".as_ref())
        .map_err(|error| error.to_string())
}

#[test]
fn fields_are_read() {
    use LayerAttention::{Global, Local};
    let modern = |form: &str| {
        let config = parse(form, &[("mlp_dropout", json!(0.1)), ("embedding_dropout", json!(0.1))]);
        let config = config.unwrap();
        assert_eq!((config.model_type, config.type_vocab_size), (ModelType::ModernBert, 0));
        assert_eq!((config.hidden_dropout, config.attention_dropout), (0.1, 0.0));
        assert_eq!((config.max_positions, config.classifier_dropout), (96, 0.0));
        match config.details {
            Details::ModernBert(modern) => (modern, config.layer_norm_eps),
            other => panic!("{other:?}"),
        }
    };
    let (old, eps) = modern("modernbert_cls");
    assert_eq!(old.attention, [Global, Local, Local, Global]);
    assert_eq!((old.reach, old.global_theta, old.local_theta, eps), (4, 500.0, 50.0, 1e-5));
    assert_eq!(old.pooling, Pooling::First);
    let (new, eps) = modern("modernbert_mean");
    assert_eq!(new.attention, [Local, Global, Local]);
    assert_eq!((new.reach, new.global_theta, new.local_theta, eps), (4, 2000.0, 300.0, 1e-3));
    assert_eq!(new.pooling, Pooling::Mean);
}

#[test]
fn refusals() {
    let check = |key: &str, value: Value, expected: &str| {
        let shown = value.to_string();
        let found = parse("modernbert_mean", &[(key, value)]).unwrap_err();
        assert_eq!(found, format!("config.json: key {expected}"), "{key} = {shown}");
    };
    check(
        "norm_bias",
        json!(true),
        r#""norm_bias" is true, expected false, the only form supported"#,
    );
    check(
        "mlp_bias",
        json!(true),
        r#""mlp_bias" is true, expected false, the only form supported"#,
    );
    check(
        "attention_bias",
        json!(true),
        r#""attention_bias" is true, expected false, the only form supported"#,
    );
    check(
        "num_attention_heads",
        json!(16),
        r#""num_attention_heads" is 16, expected an even number of channels in each head of 16 in all"#,
    );
    check(
        "embedding_dropout",
        json!(0.5),
        r#""embedding_dropout" is 0.5, expected the same as mlp_dropout, 0"#,
    );
    check(
        "classifier_pooling",
        json!("max"),
        r#""classifier_pooling" is "max", expected cls or mean"#,
    );
    check("classifier_bias", json!(1), r#""classifier_bias" is 1, expected true or false"#);
    check(
        "layer_types",
        json!(["full_attention"]),
        r#""layer_types" is ["full_attention"], expected 3 times full_attention or sliding_attention, one a layer"#,
    );
    check(
        "layer_types",
        json!(["full_attention", "full_attention", "linear_attention"]),
        r#""layer_types" is "linear_attention", expected full_attention or sliding_attention"#,
    );
    check(
        "rope_scaling",
        json!({"factor": 2}),
        r#""rope_scaling" is {"factor":2}, expected nothing: only plain rotary positions are supported"#,
    );
    check(
        "local_rope_theta",
        Value::Null,
        r#""local_rope_theta" is null, expected a number, such as 10000.0"#,
    );
    check(
        "rope_parameters",
        json!({"rope_theta": 10.0}),
        r#""rope_parameters" is {"rope_theta":10.0}, expected objects by the names full_attention and sliding_attention"#,
    );
    check(
        "rope_parameters",
        json!({"full_attention": {"rope_type": "yarn"}}),
        r#""rope_type" is "yarn", expected "default", the only form supported"#,
    );
    check(
        "rope_parameters",
        json!({"sliding_attention": {"rope_theta": 0.5}}),
        r#""rope_theta" is 0.5, expected a number from 1 to 1000000000000000"#,
    );
    let found = parse("modernbert_cls", &[("global_attn_every_n_layers", json!(0))]).unwrap_err();
    let expected = r#"config.json: key "global_attn_every_n_layers" is 0, expected a whole number from 1 to 16777216"#;
    assert_eq!(found, expected);
}

#[test]
fn a_checkpoint_without_a_part_is_refused() {
    let mut broken = Checkpoint::of("modernbert_cls");
    broken.tensors.remove("model.layers.1.attn_norm.weight");
    let found = broken.open().err().unwrap().to_string();
    assert!(found.contains("model.layers.1.attn_norm.weight"), "{found}");
}

/// Whichever way the config says it, a layer that stays attends as it did; and the lowest stays the lowest.
#[test]
fn a_student_keeps_its_layers_kinds() {
    use LayerAttention::{Global, Local};
    let cut = |form: &str, layers: &[usize]| {
        let (from, to) = (Checkpoint::of(form).write(), TempDir::new().unwrap());
        let what = Cut { layers: Some(layers.to_vec()), words: None };
        lowchurn_models::cut(from.path(), &what, to.path()).map_err(|error| error.to_string())?;
        let (model, _) = Classifier::open(to.path(), Head::FromCheckpoint, &CPU).unwrap();
        match model.config.details {
            Details::ModernBert(modern) => Ok(modern.attention),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(cut("modernbert_cls", &[0, 3, 1]), Ok(vec![Global, Global, Local]));
    assert_eq!(cut("modernbert_mean", &[0, 2]), Ok(vec![Local, Local]));
    let found: Result<_, String> = cut("modernbert_cls", &[1, 2]);
    let expected = "layer 0 has no norm in front and no other can take its place, so it comes first, not layer 1";
    assert!(found.as_ref().is_err_and(|found| found.contains(expected)), "{found:?}");
}
