//! Students made of a checkpoint: what stays is what was there, and what can't be made is said.

use std::fs;
use std::path::Path;

use candle_core::Device;
use lowchurn_models::{
    Classifier, Config, Cut, Details, Head, LayerAttention, LoadReport, Mode, ModelType, Sizes,
    cut, has_weights, resized,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Checkpoint, distance, input, numbers};

const CPU: Device = Device::Cpu;

fn golden() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/bert_tiny"))
}

fn open(dir: &Path) -> Classifier {
    Classifier::open(dir, Head::FromCheckpoint, &CPU).unwrap().0
}

fn values(model: &Classifier, name: &str) -> Vec<f32> {
    model.params.0[name].flatten_all().unwrap().to_vec1().unwrap()
}

fn of(layers: Option<&[usize]>, words: Option<&[u32]>) -> lowchurn_models::Result<TempDir> {
    let dir = TempDir::new().unwrap();
    let what = Cut { layers: layers.map(<[usize]>::to_vec), words: words.map(<[u32]>::to_vec) };
    cut(golden(), &what, dir.path())?;
    Ok(dir)
}

#[test]
fn chosen_layers_and_words_stay_as_they_were() {
    let old = open(golden());
    let dir = of(Some(&[1]), Some(&[0, 2, 3, 50])).unwrap();
    let new = open(dir.path());
    assert_eq!((new.config.layers, new.config.vocab_size, new.labels()), (1, 4, old.labels()));
    for (name, tensor) in new.params.tensors() {
        let old_name = name.replace("layer.0.", "layer.1.");
        let whole = values(&old, &old_name);
        let expected = match name.ends_with("word_embeddings.weight") {
            true => {
                [0, 2, 3, 50].iter().flat_map(|row| &whole[row * 32..][..32]).copied().collect()
            }
            false => whole,
        };
        assert_eq!(tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap(), expected, "{name}");
    }
    assert_eq!(new.params.0.len(), old.params.0.len() - 16);
}

#[test]
fn a_student_of_everything_is_the_model() {
    let dir = of(None, None).unwrap();
    assert_eq!(
        open(dir.path()).params.fingerprint().unwrap(),
        open(golden()).params.fingerprint().unwrap()
    );
}

#[test]
fn layers_that_are_not_there_are_refused() {
    let said = |layers: &[usize]| of(Some(layers), None).map(|_| ()).unwrap_err().to_string();
    assert_eq!(said(&[0, 2]), "there is no layer 2: the model has 2, from 0 to 1");
    assert_eq!(said(&[]), "a student needs at least one layer");
    assert_eq!(said(&[0, 0]), "a layer is named twice: 0,0");
    let error = of(None, Some(&[1, 100])).unwrap_err().to_string();
    assert_eq!(error, "the table of words has 100 rows, but the vocabulary has an id 100");
}

#[test]
fn another_size_is_a_config_without_weights() {
    let dir = TempDir::new().unwrap();
    let sizes = Sizes { hidden: Some(8), heads: Some(2), layers: Some(3), ..Sizes::default() };
    resized(golden(), &sizes, Some(&[0, 1, 2]), dir.path()).unwrap();
    let config = Config::open(dir.path()).unwrap();
    assert_eq!((config.hidden_size, config.heads, config.layers, config.vocab_size), (8, 2, 3, 3));
    assert!(config.labels.is_empty() && !has_weights(dir.path()));
    let fresh = |seed: f64| {
        let mut at = seed;
        let mut normal = || {
            at += 1.0;
            at.sin()
        };
        let labels = vec!["a".into(), "b".into()];
        Classifier::fresh(Config::open(dir.path()).unwrap(), labels, &mut normal, &CPU).unwrap()
    };
    let model = fresh(1.0);
    assert_eq!(values(&model, "bert.embeddings.LayerNorm.weight"), [1.0; 8]);
    assert_eq!(values(&model, "classifier.bias"), [0.0; 2]);
    assert!(values(&model, "bert.pooler.dense.weight").iter().all(|x| x.abs() <= 0.2 && *x != 0.0));
    assert_eq!(model.params.fingerprint().unwrap(), fresh(1.0).params.fingerprint().unwrap());
    assert_ne!(model.params.fingerprint().unwrap(), fresh(2.0).params.fingerprint().unwrap());

    let odd = Sizes { hidden: Some(9), heads: Some(2), ..Sizes::default() };
    let to = TempDir::new().unwrap();
    let error = resized(golden(), &odd, None, to.path()).unwrap_err().to_string();
    assert!(
        error.ends_with("key \"num_attention_heads\" is 2, expected a divisor of hidden_size, 9"),
        "{error}"
    );
    assert!(fs::read_dir(to.path()).unwrap().next().is_none());
}

/// The golden checkpoints of all families, by their folders' names.
fn families() -> Vec<(String, Checkpoint)> {
    let folders = fs::read_dir(crate::golden().join("architectures")).unwrap();
    let folders = folders.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let names = folders.map(|path| path.file_name().unwrap().to_str().unwrap().to_string());
    let mut names: Vec<String> = names.map(|name| format!("architectures/{name}")).collect();
    names.extend(["bert_tiny", "modernbert_cls", "modernbert_mean"].map(String::from));
    names.sort();
    assert!(names.len() >= 15, "{names:?}");
    let of = |name: String| (name.clone(), Checkpoint::of(&name));
    names.into_iter().map(of).collect()
}

fn cut_of(checkpoint: &Checkpoint, what: &Cut) -> (Classifier, TempDir) {
    let (from, to) = (checkpoint.write(), TempDir::new().unwrap());
    cut(from.path(), what, to.path()).unwrap();
    let (model, report) = Classifier::open(to.path(), Head::FromCheckpoint, &CPU).unwrap();
    assert_eq!(report, LoadReport::default(), "nothing is new, nothing is left over");
    (model, to)
}

const ROWS: [&[u32]; 3] = [&[5, 17, 45, 49, 6], &[7, 8], &[9, 10, 11, 40, 41, 42, 43, 12]];

#[test]
fn with_all_its_layers_a_student_of_any_family_says_what_its_teacher_says() {
    for (name, checkpoint) in families() {
        let (teacher, _) = checkpoint.open().unwrap();
        let logits = |model: &Classifier, rows: &[&[u32]]| {
            model.forward(&input(rows, 8), Mode::Eval).unwrap()
        };
        let expected = logits(&teacher, &ROWS);
        let all = (0..teacher.config.layers).collect();
        let (student, _) = cut_of(&checkpoint, &Cut { layers: Some(all), words: None });
        assert_eq!(numbers(&logits(&student, &ROWS)), numbers(&expected), "{name}");

        // The special tokens and the words of these texts stay, under new ids.
        let mut words: Vec<u32> = (0..5).chain(ROWS.concat()).collect();
        words.sort_unstable();
        words.dedup();
        let new_id = |old: &u32| words.binary_search(old).unwrap() as u32;
        let renamed: Vec<Vec<u32>> =
            ROWS.iter().map(|row| row.iter().map(new_id).collect()).collect();
        let renamed: Vec<&[u32]> = renamed.iter().map(Vec::as_slice).collect();
        let (student, dir) = cut_of(&checkpoint, &Cut { layers: None, words: Some(words.clone()) });
        assert_eq!(student.config.vocab_size, words.len(), "{name}");
        assert_eq!(numbers(&logits(&student, &renamed)), numbers(&expected), "{name}");
        let config: Value =
            serde_json::from_slice(&fs::read(dir.path().join("config.json")).unwrap()).unwrap();
        for key in ["model_type", "architectures", "id2label", "pad_token_id"] {
            assert_eq!(config[key], checkpoint.config[key], "{name}, {key}");
        }
    }
}

/// What of the teacher a parameter of the student's is, where layer `new` of it is layer `old` of the teacher's.
fn in_teacher(name: &str, layers: &[usize]) -> String {
    for mark in [".layer.", ".layers."] {
        let Some((before, behind)) = name.split_once(mark) else { continue };
        let (layer, rest) = behind.split_once('.').unwrap();
        return format!("{before}{mark}{}.{rest}", layers[layer.parse::<usize>().unwrap()]);
    }
    name.into()
}

#[test]
fn fewer_layers_of_any_family_are_the_teachers() {
    for (name, checkpoint) in families() {
        let (teacher, _) = checkpoint.open().unwrap();
        let last = teacher.config.layers - 1;
        // ModernBERT's lowest layer has no norm, and ALBERT's are the same.
        let layers: Vec<usize> = match teacher.config.model_type {
            ModelType::ModernBert if last > 0 => vec![0, last],
            ModelType::Albert => (0..last.max(1)).map(|n| n * 2).collect(),
            _ => vec![last],
        };
        let layers: Vec<usize> = layers.into_iter().filter(|&layer| layer <= last).collect();
        let (student, _) = cut_of(&checkpoint, &Cut { layers: Some(layers.clone()), words: None });
        assert_eq!(student.config.layers, layers.len(), "{name}");
        let is_albert = student.config.model_type == ModelType::Albert;
        for (parameter, tensor) in student.params.tensors() {
            let of = if is_albert { parameter.into() } else { in_teacher(parameter, &layers) };
            let expected = &teacher.params.0[&of];
            assert_eq!(distance(tensor, expected), 0.0, "{name}, {parameter}");
        }
        let found = student.forward(&input(&ROWS, 8), Mode::Eval).unwrap();
        assert_eq!(found.dims(), [3, student.labels().len()], "{name}");
    }
}

#[test]
fn layers_of_another_group_are_refused() {
    let said = |layers: &[usize]| {
        let (from, to) = (Checkpoint::of("architectures/albert_groups").write(), TempDir::new());
        let what = Cut { layers: Some(layers.to_vec()), words: None };
        cut(from.path(), &what, to.unwrap().path()).map_err(|error| error.to_string())
    };
    let groups = |layers: &str, asked: &str| {
        Err(format!(
            "its layers share the weights of 2 groups: layers {layers} are of the groups {asked}, and a model of 2 layers would have \
             0,1; name layers of these groups"
        ))
    };
    assert_eq!(said(&[0, 2]), Ok(()));
    assert_eq!(said(&[1, 2]), Ok(()));
    assert_eq!(said(&[0, 1]), groups("0,1", "0,0"));
    assert_eq!(said(&[2, 0]), groups("2,0", "1,0"));
    let few = "its layers share the weights of 2 groups, so a student has at least 2 layers";
    assert_eq!(said(&[0]), Err(few.into()));
}

#[test]
fn every_family_in_another_size() {
    for (name, mut checkpoint) in families() {
        if name.contains("deberta") {
            // As the published ones have it.
            checkpoint.config["pooler_hidden_size"] = checkpoint.config["hidden_size"].clone();
        }
        let (from, to) = (checkpoint.write(), TempDir::new().unwrap());
        let old = Config::open(from.path()).unwrap();
        let sizes = Sizes {
            hidden: Some(8),
            layers: Some(4),
            heads: Some(2),
            intermediate: Some(12),
            positions: Some(20),
        };
        resized(from.path(), &sizes, None, to.path()).unwrap();
        let config = Config::open(to.path()).unwrap();
        let found = (config.hidden_size, config.layers, config.heads, config.intermediate_size);
        assert_eq!(found, (8, 4, 2, 12), "{name}");
        // As many tokens as were asked for, wherever positions begin.
        assert_eq!(
            (config.max_positions, config.first_position),
            (20, old.first_position),
            "{name}"
        );
        if let (Details::ModernBert(new), Details::ModernBert(old)) =
            (&config.details, &old.details)
        {
            let pattern: Vec<LayerAttention> =
                old.attention.iter().cycle().take(4).copied().collect();
            assert_eq!(new.attention, pattern, "{name}");
        }
        let labels = vec!["a".into(), "b".into()];
        let model = Classifier::fresh(config, labels, &mut || 0.5, &CPU).unwrap();
        let row: Vec<u32> = (0..20).map(|at| 5 + at).collect();
        let logits = model.forward(&input(&[&row], 20), Mode::Eval).unwrap();
        assert_eq!(logits.dims(), [1, 2], "{name}");
        let longer = model.forward(&input(&[&[5; 21]], 21), Mode::Eval);
        assert!(longer.is_err(), "{name}: a text of 21 tokens");
    }
}
