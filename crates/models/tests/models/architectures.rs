//! Every architecture held to PyTorch with eager attention: logits and the gradient of every parameter of a tiny random
//! checkpoint, and what is common to all of them. What `make_architectures.py` adds is tested without a word here.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::PathBuf;

use candle_core::{DType, Tensor};
use lowchurn_kernels::{Activation, Gelu, Keys, backward};
use lowchurn_models::{
    Classifier, Config, Depth, Details, Groups, Head, Input, LoadReport, Mode, ModelType,
    check_vocabulary, depth, is_head, save,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{CPU, Checkpoint, distance, golden, message, numbers};

/// Absolute, of a logit; 1.3e-6 was reached.
const OF_LOGITS: f32 = 1e-4;
/// Of the largest number in a parameter's gradient; 3.2e-6 was reached.
const OF_GRADIENTS: f32 = 1e-3;

/// The golden checkpoints, in name order.
fn names() -> Vec<String> {
    let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|end| end == "json"));
    let mut names: Vec<String> =
        files.map(|path| path.file_stem().unwrap().to_str().unwrap().into()).collect();
    names.sort();
    names
}

fn folder() -> PathBuf {
    golden().join("architectures")
}

fn checkpoint(name: &str) -> Checkpoint {
    Checkpoint::of(&format!("architectures/{name}"))
}

fn open(name: &str) -> Classifier {
    let (model, report) =
        Classifier::open(&folder().join(name), Head::FromCheckpoint, &CPU).unwrap();
    assert_eq!(report, LoadReport::default(), "{name}");
    model
}

fn expected(name: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(folder().join(format!("{name}.safetensors")), &CPU).unwrap()
}

/// The batch with these ids.
fn batch(expected: &HashMap<String, Tensor>, ids: &str) -> Input {
    let u32s = |name: &str| expected[name].to_dtype(DType::U32).unwrap();
    let flat = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1::<u32>().unwrap();
    let (ids, mask) = (u32s(ids), u32s("attention_mask"));
    let width = ids.dim(1).unwrap();
    // Those that the model doesn't look at are 1, as a tokenizer for pairs may have them.
    let types = match expected.contains_key("token_type_ids") {
        true => u32s("token_type_ids"),
        false => ids.ones_like().unwrap(),
    };
    let lengths = mask.sum(1).unwrap().to_vec1().unwrap();
    Input::new(&flat(ids), &flat(types), &lengths, width, &CPU).unwrap()
}

#[test]
fn there_is_a_checkpoint_of_each() {
    let found: BTreeSet<&str> =
        names().iter().map(|name| open(name).config.model_type.name()).collect();
    // These have files of their own.
    let others = ["bert", "modernbert"];
    let all: BTreeSet<&str> = ModelType::ALL.map(ModelType::name).into();
    let missing: Vec<&&str> =
        all.difference(&found).filter(|name| !others.contains(name)).collect();
    assert_eq!(missing, [&""; 0]);
}

#[test]
fn logits_are_those_of_pytorch() {
    for name in names() {
        let (expected, model) = (expected(&name), open(&name));
        for (ids, logits) in [("input_ids", "logits"), ("within.input_ids", "within.logits")] {
            let found = model.forward(&batch(&expected, ids), Mode::Eval).unwrap();
            let distance = distance(&found, &expected[logits]);
            assert!(distance < OF_LOGITS, "{name}, {logits}: {distance}");
        }
        let both = distance(&expected["logits"], &expected["within.logits"]);
        assert!(both > 1e-2, "{name}: another token changes nothing");
    }
}

#[test]
fn gradients_are_those_of_pytorch() {
    for name in names() {
        let (expected, model) = (expected(&name), open(&name));
        let input = batch(&expected, "input_ids");
        let logits = model.forward(&input, Mode::Train(&mut Keys::new(1))).unwrap();
        let loss = candle_nn::loss::cross_entropy(&logits, &expected["labels"]).unwrap();
        let mut grads = backward(&loss).unwrap();
        let mut n_checked = 0;
        for (parameter, var) in &model.params.0 {
            let found = grads.remove(var).unwrap();
            let found = found.unwrap_or_else(|| panic!("{name}: {parameter} has no gradient"));
            let expected = &expected[&format!("grad.{parameter}")];
            let largest = numbers(expected).into_iter().map(f32::abs).fold(0.0, f32::max);
            let distance = distance(&found.to_tensor().unwrap(), expected);
            if is_constant(&model.config, parameter) {
                assert!(distance < 1e-6, "{name}, {parameter}: {distance}");
                continue;
            }
            assert!(largest > 1e-4, "{name}, {parameter}: nothing to compare with");
            let error = distance / largest;
            assert!(error < OF_GRADIENTS, "{name}, {parameter}: {distance} of {largest}");
            n_checked += 1;
        }
        let n_constants =
            model.params.names().filter(|name| is_constant(&model.config, name)).count();
        let n_expected = expected.keys().filter(|name| name.starts_with("grad.")).count();
        assert_eq!(n_checked, n_expected - n_constants, "{name}");
    }
}

/// Weights that were damaged must not end in an answer.
#[test]
fn what_is_no_number_anywhere_reaches_the_logits() {
    for name in names() {
        let (model, input) = (open(&name), batch(&expected(&name), "input_ids"));
        for (parameter, var) in &model.params.0 {
            let sound = var.copy().unwrap();
            var.set(&var.affine(0.0, f64::NAN).unwrap()).unwrap();
            let logits = numbers(&model.forward(&input, Mode::Eval).unwrap());
            assert!(logits.iter().any(|x| x.is_nan()), "{name}: {parameter}");
            var.set(&sound).unwrap();
        }
        // Scores that are too large for f32 are no even attention to all.
        let ends =
            ["query.weight", "q_lin.weight", "attn.q.weight", "query_proj.weight", "Wqkv.weight"];
        let of_queries = |name: &&String| ends.iter().any(|end| name.ends_with(end));
        let queries = model.params.0.keys().find(of_queries);
        let var = &model.params.0[queries.unwrap_or_else(|| panic!("{name}: no queries"))];
        var.set(&var.affine(1e30, 0.0).unwrap().affine(1e30, 0.0).unwrap()).unwrap();
        let logits = numbers(&model.forward(&input, Mode::Eval).unwrap());
        assert!(logits.iter().any(|x| !x.is_finite()), "{name}");
    }
}

/// A constant added to all keys cancels in softmax, so the gradient of what is nothing else is rounding noise. Of DeBERTa's
/// terms the positions' queries alone are multiplied with keys token by token; without them nothing feels the bias of keys, nor
/// that of the norm in front of the positions' keys.
fn is_constant(config: &Config, name: &str) -> bool {
    let is_felt = match &config.details {
        Details::DebertaV2(details) => details.terms.is_some_and(|terms| terms.has_queries),
        _ => true,
    };
    let always =
        ["self.key.bias", "k_lin.bias", "attn.k.bias", "attention.key.bias", "pos_key_proj.bias"];
    let unfelt = ["self.key_proj.bias", "deberta.encoder.LayerNorm.bias"];
    always.iter().any(|end| name.ends_with(end))
        || !is_felt && unfelt.iter().any(|end| name.ends_with(end))
}

#[test]
fn padding_does_not_change_logits() {
    for name in names() {
        let model = open(&name);
        let rows: [&[u32]; 3] = [&[5, 17, 45, 99, 6], &[7, 8], &[9, 10, 11, 60, 61, 62, 63, 12]];
        let logits =
            |rows: &[&[u32]], width| model.forward(&crate::input(rows, width), Mode::Eval).unwrap();
        let alone: Vec<Tensor> = rows.iter().map(|row| logits(&[row], row.len())).collect();
        let alone = Tensor::cat(&alone, 0).unwrap();
        for width in [8, 9, model.config.max_positions.min(40)] {
            let distance = distance(&logits(&rows, width), &alone);
            assert!(distance < 2e-6, "{name}, width {width}: {distance}");
        }
    }
}

#[test]
fn one_token_more_than_there_are_positions_is_refused() {
    let check = |name: &str, tail: &str| {
        let model = open(name);
        let most = model.config.max_positions;
        assert_eq!(most, 40, "{name}");
        let row = |length: usize| crate::input(&[&vec![5; length]], length);
        model.forward(&row(most), Mode::Eval).unwrap();
        let error = model.forward(&row(most + 1), Mode::Eval).unwrap_err().to_string();
        let expected = format!(
            "the batch is 41 tokens wide, but the model has 40 positions (config.json, max_position_embeddings{tail}); \
             truncate the texts to 40"
        );
        assert_eq!(error, expected, "{name}");
    };
    check("distilbert", "");
    check("albert", "");
    check("roberta", ", less 2 up to the padding token's");
}

/// Names of the file, bytes of the weights, config: what a save writes is what a load read.
#[test]
fn a_saved_model_is_the_same_again() {
    for name in names() {
        let (from, to) = (folder().join(&name), TempDir::new().unwrap());
        let model = open(&name);
        save(to.path(), &model.config, &model.params, &from).unwrap();
        let read = |dir: &std::path::Path, file: &str| fs::read(dir.join(file)).unwrap();
        let json = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap();
        assert_eq!(
            json(read(to.path(), "config.json")),
            json(read(&from, "config.json")),
            "{name}"
        );
        assert_eq!(read(to.path(), "tokenizer.json"), read(&from, "tokenizer.json"));
        let before = candle_core::safetensors::load(from.join("model.safetensors"), &CPU).unwrap();
        let after =
            candle_core::safetensors::load(to.path().join("model.safetensors"), &CPU).unwrap();
        assert_eq!(after.len(), before.len(), "{name}");
        for (parameter, tensor) in before {
            assert_eq!(numbers(&after[&parameter]), numbers(&tensor), "{name}, {parameter}");
        }
    }
}

/// The encoder alone, without the prefix and with another task's head, gets what is missing between it and the classes.
#[test]
fn a_base_model_gets_a_new_head() {
    let heads = [
        ("distilbert", "distilbert.", "vocab_projector.bias", 2),
        ("roberta", "roberta.", "lm_head.dense.bias", 2),
        ("xlm_roberta", "roberta.", "pooler.dense.bias", 2),
        ("camembert", "roberta.", "roberta.pooler.dense.bias", 2),
        ("electra", "electra.", "discriminator_predictions.dense.bias", 2),
        ("mpnet", "mpnet.", "lm_head.bias", 2),
        ("albert", "albert.", "sop_classifier.classifier.bias", 2),
        ("deberta_v3", "deberta.", "lm_predictions.lm_head.bias", 2),
        ("deberta_v2", "deberta.", "cls.predictions.bias", 2),
    ];
    for (name, prefix, other, n_between) in heads {
        let model = open(name);
        let mut base = checkpoint(name);
        base.tensors.retain(|name, _| depth(&model.config, name) != Depth::Head);
        base.rename(|name| name.strip_prefix(prefix).unwrap().into());
        base.tensors.insert(other.into(), Tensor::zeros(2, DType::F32, &CPU).unwrap());
        let (found, report) = base.open_fresh().unwrap();
        assert_eq!(report.unused, [other], "{name}");
        assert_eq!(report.fresh.len(), n_between + 2, "{name}: {:?}", report.fresh);
        assert_eq!(report.fresh.iter().filter(|name| is_head(name)).count(), 2, "{name}");
        assert_eq!(found.labels(), ["ham", "spam"]);
        for (parameter, tensor) in found.params.tensors() {
            if !report.fresh.iter().any(|fresh| fresh == parameter) {
                assert_eq!(numbers(tensor), numbers(&model.params.0[parameter]), "{parameter}");
            }
        }
        let error = base.open().err().unwrap().to_string();
        assert!(error.contains("this model has no classification head (missing: "), "{error}");
    }
}

/// Dropout stands where the original has it, and each site takes one key.
#[test]
fn each_dropout_site_takes_one_key() {
    // The embeddings; a layer's probabilities, attention's output, the feed-forward's; one or two of the head.
    let sites = [
        ("distilbert", 1 + 2 * 2 + 1),
        ("roberta", 1 + 3 * 2 + 2),
        ("xlm_roberta", 1 + 3 + 2),
        ("camembert", 1 + 3 + 2),
        ("electra", 1 + 3 * 2 + 2),
        ("mpnet", 1 + 3 * 2 + 2),
        ("albert", 1 + 2 * 4 + 1),
        ("albert_groups", 1 + 2 * 3 + 1),
        // Besides, each layer's on its table of positions.
        ("deberta_v3", 1 + 4 * 2 + 2),
        ("deberta_v2", 1 + 4 * 2 + 2),
        ("deberta_p2c", 1 + 4 + 2),
        ("deberta_c2p", 1 + 4 + 2),
        ("deberta_none", 1 + 3 + 2),
    ];
    for (name, n_sites) in sites {
        let mut model = open(name);
        let input = batch(&expected(name), "input_ids");
        let (mut used, mut counted) = (Keys::new(5), Keys::new(5));
        let plain = model.forward(&input, Mode::Train(&mut used)).unwrap();
        (0..n_sites).for_each(|_| _ = counted.next());
        assert_eq!(used.next(), counted.next(), "{name}");
        let config = &mut model.config;
        for dropout in [
            &mut config.hidden_dropout,
            &mut config.attention_dropout,
            &mut config.classifier_dropout,
        ] {
            assert_eq!(*dropout, 0.0);
            *dropout = 0.5;
        }
        let dropped = model.forward(&input, Mode::Train(&mut Keys::new(5))).unwrap();
        assert!(distance(&dropped, &plain) > 1e-3, "{name}");
        assert_eq!(numbers(&model.forward(&input, Mode::Eval).unwrap()), numbers(&plain), "{name}");
    }
}

#[test]
fn parameters_stand_where_they_stand() {
    let check = |name: &str, parameter: &str, expected: Depth| {
        let model = open(name);
        assert!(model.params.0.contains_key(parameter), "{name} has no {parameter}");
        assert_eq!(depth(&model.config, parameter), expected, "{name}, {parameter}");
    };
    use Depth::{Embedding, Layer};
    check("distilbert", "distilbert.embeddings.LayerNorm.bias", Embedding);
    check("distilbert", "distilbert.transformer.layer.1.ffn.lin1.bias", Layer(1));
    check("distilbert", "pre_classifier.weight", Depth::Head);
    check("roberta", "roberta.encoder.layer.0.output.dense.weight", Layer(0));
    check("roberta", "classifier.dense.bias", Depth::Head);
    check("roberta", "classifier.out_proj.bias", Depth::Head);
    check("electra", "electra.embeddings_project.weight", Embedding);
    check("albert", "albert.encoder.embedding_hidden_mapping_in.bias", Embedding);
    check("albert", "albert.encoder.albert_layer_groups.0.albert_layers.1.ffn.bias", Layer(0));
    check("albert", "albert.pooler.weight", Depth::Head);
    check("deberta_v3", "deberta.encoder.rel_embeddings.weight", Embedding);
    check("deberta_v3", "deberta.encoder.LayerNorm.bias", Embedding);
    check("deberta_v2", "deberta.embeddings.embed_proj.weight", Embedding);
    check("deberta_v2", "deberta.encoder.layer.1.attention.self.pos_query_proj.bias", Layer(1));
    check("deberta_v3", "pooler.dense.weight", Depth::Head);
    for name in names() {
        let model = open(&name);
        let config = &model.config;
        let of = |at| model.params.names().filter(move |name| depth(config, name) == at);
        assert_eq!(of(Depth::Head).filter(|name| is_head(name)).count(), 2, "{name}");
        assert!(of(Embedding).any(|name| name.contains("embeddings")), "{name}");
        let last = if name.starts_with("albert") { 0 } else { config.layers - 1 };
        assert!(of(Layer(last)).count() >= 6 && of(Layer(last + 1)).count() == 0, "{name}");
    }
}

#[test]
fn configs_say_what_each_has() {
    let config = |name: &str| open(name).config;
    let roberta = config("roberta");
    assert_eq!((roberta.first_position, roberta.max_positions, roberta.pad_token_id), (2, 40, 1));
    assert_eq!(roberta.type_vocab_size, 1);
    let distilbert = config("distilbert");
    assert_eq!((distilbert.first_position, distilbert.type_vocab_size), (0, 0));
    assert_eq!((distilbert.intermediate_size, distilbert.layer_norm_eps), (48, 1e-12));
    assert_eq!((config("electra").embedding_size, config("electra").hidden_size), (20, 32));
    assert_eq!(config("albert").activation, Activation::Gelu(Gelu::Tanh));
    let groups = |groups, inner| Details::Albert(Groups { groups, inner });
    assert_eq!(config("albert").details, groups(1, 2));
    assert_eq!(config("albert_groups").details, groups(2, 1));

    // What is left out means what the original means by it.
    let bare = |name: &str, gone: &[&str]| {
        let mut bare = checkpoint(name);
        gone.iter().for_each(|key| bare.config[key] = Value::Null);
        Config::open(bare.write().path()).unwrap()
    };
    let keys = ["dropout", "attention_dropout", "seq_classif_dropout", "activation"];
    let found = bare("distilbert", &keys);
    let dropouts = (found.hidden_dropout, found.attention_dropout, found.classifier_dropout);
    assert_eq!((dropouts, found.activation), ((0.1, 0.1, 0.2), Activation::Gelu(Gelu::Erf)));
    let shared = ["hidden_dropout_prob", "attention_probs_dropout_prob", "hidden_act"];
    let keys = [&shared[..], &["classifier_dropout_prob", "num_hidden_groups"]].concat();
    let found = bare("albert", &keys);
    let dropouts = (found.hidden_dropout, found.attention_dropout, found.classifier_dropout);
    assert_eq!((dropouts, found.details), ((0.0, 0.0, 0.1), groups(1, 2)));
    assert_eq!(bare("roberta", &["pad_token_id"]).first_position, 2);
    for name in ["roberta", "electra", "mpnet"] {
        let mut with = checkpoint(name);
        with.config["hidden_dropout_prob"] = json!(0.25);
        let found = Config::open(with.write().path()).unwrap();
        assert_eq!(found.classifier_dropout, 0.25, "{name}");
    }
}

#[test]
fn configs_that_cannot_be() {
    let check = |name: &str, key: &str, value: Value, expected: &str| {
        let mut changed = checkpoint(name);
        changed.config[key] = value.clone();
        let dir = changed.write();
        let expected = format!("DIR/config.json: key \"{key}\" is {value}, expected {expected}");
        assert_eq!(message(&dir, Config::open(dir.path())), expected);
    };
    check("distilbert", "n_heads", json!(5), "a divisor of dim, 32");
    check("albert", "num_attention_heads", json!(3), "a divisor of hidden_size, 32");
    check("roberta", "max_position_embeddings", json!(2), "more than pad_token_id + 1, 2");
    check("mpnet", "pad_token_id", json!(0), "1, the only form supported");
    check("mpnet", "relative_attention_num_buckets", json!(64), "32, the only form supported");
    check("albert", "num_hidden_groups", json!(3), "a whole number from 1 to 2");
    check("albert", "inner_group_num", json!(0), "a whole number from 1 to 64");
    check("electra", "embedding_size", json!("20"), "a whole number from 1 to 16777216");
}

/// A tokenizer of nearly the same size, which no count would tell from the model's own.
#[test]
fn tokenizers_of_another_family_are_told_by_their_padding() {
    let check = |name: &str, pad_id: u32| {
        let dir = checkpoint(name).write();
        let config = Config::open(dir.path()).unwrap();
        let checked = check_vocabulary(&config, 92, pad_id, dir.path());
        if checked.is_ok() { String::new() } else { message(&dir, checked) }
    };
    let (bert, roberta) = (0, 1);
    let refused = |found: u32, own: u32| {
        format!(
            "DIR: the tokenizer is another family's: its padding token has the id {found}, the model's has {own} \
             (config.json, pad_token_id); take the tokenizer that was published with this model"
        )
    };
    assert_eq!(check("mpnet", roberta), "");
    assert_eq!(check("mpnet", bert), refused(0, 1));
    assert_eq!(check("electra", bert), "");
    assert_eq!(check("electra", roberta), refused(1, 0));
    // Where nobody says, only those are held to the usual one whose positions depend on it.
    for (name, is_fine) in [("electra", true), ("roberta", false)] {
        let mut silent = checkpoint(name);
        silent.config["pad_token_id"] = Value::Null;
        let dir = silent.write();
        let config = Config::open(dir.path()).unwrap();
        assert_eq!(check_vocabulary(&config, 92, 3, dir.path()).is_ok(), is_fine, "{name}");
    }
}

/// Where tables are as wide as layers there is nothing to project, as in ELECTRA's base size; ALBERT projects all the same.
#[test]
fn projections_are_where_the_original_has_them() {
    let n_projections = |name: &str| {
        let mut wide = checkpoint(name);
        wide.config["embedding_size"] = json!(32);
        let config = Config::open(wide.write().path()).unwrap();
        let shapes = lowchurn_models::parameter_shapes(&config);
        let projections = shapes.iter().filter(|(name, _)| {
            name.contains("embeddings_project") || name.contains("hidden_mapping")
        });
        projections.count()
    };
    assert_eq!((n_projections("electra"), n_projections("albert")), (0, 2));
}
