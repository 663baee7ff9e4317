//! Students made of a checkpoint: what stays is what was there, and what can't be made is said.

use std::fs;
use std::path::Path;

use candle_core::Device;
use lowchurn_models::{Classifier, Config, Cut, Head, Sizes, cut, has_weights, resized};
use tempfile::TempDir;

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
