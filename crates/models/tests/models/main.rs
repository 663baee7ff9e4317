//! The crate from outside. `Checkpoint` is a folder to be edited: most tests change one thing in a sound one.

mod adapter;
mod architectures;
mod config;
mod deberta;
mod forward;
mod golden;
mod load;
mod malformed;
mod modernbert;
mod onnx;
mod onnx_run;
mod save;
mod served;
mod serving;
mod student;
mod updating;

use std::{collections::HashMap, fs, path::PathBuf};

use candle_core::{Device, Tensor};
use lowchurn_models::{Classifier, Error, Head, Input, LoadReport, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const CPU: Device = Device::Cpu;

/// What PyTorch made; see the README there.
pub fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

pub struct Checkpoint {
    pub config: Value,
    pub tensors: HashMap<String, Tensor>,
}

impl Checkpoint {
    /// The golden model: 2 layers, hidden 32, vocabulary 100, 16 positions, labels red, green, blue.
    pub fn tiny() -> Checkpoint {
        Checkpoint::of("bert_tiny")
    }

    /// A folder of the golden numbers.
    pub fn of(name: &str) -> Checkpoint {
        let dir = golden().join(name);
        let config = fs::read(dir.join("config.json")).unwrap();
        Checkpoint {
            config: serde_json::from_slice(&config).unwrap(),
            tensors: candle_core::safetensors::load(dir.join("model.safetensors"), &CPU).unwrap(),
        }
    }

    /// The same without pooler, head and labels, under the names of a base model.
    pub fn tiny_base() -> Checkpoint {
        let mut tiny = Checkpoint::tiny();
        tiny.tensors.retain(|name, _| !name.starts_with("classifier") && !name.contains("pooler"));
        tiny.rename(|name| name.strip_prefix("bert.").unwrap_or(name).into());
        tiny.config["id2label"] = Value::Null;
        tiny.config["label2id"] = Value::Null;
        tiny.config["architectures"] = json!(["BertModel"]);
        tiny
    }

    pub fn rename(&mut self, new: impl Fn(&str) -> String) {
        self.tensors = self.tensors.drain().map(|(name, tensor)| (new(&name), tensor)).collect();
    }

    pub fn write(&self) -> TempDir {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("config.json"), self.config.to_string()).unwrap();
        let path = dir.path().join("model.safetensors");
        safetensors::serialize_to_file(&self.tensors, None, &path).unwrap();
        fs::write(dir.path().join("vocab.txt"), "[PAD]\nred\r\n").unwrap();
        dir
    }

    pub fn open(&self) -> Result<(Classifier, LoadReport)> {
        Classifier::open(self.write().path(), Head::FromCheckpoint, &CPU)
    }

    /// With a new head of two classes; all "normal" numbers are 1.
    pub fn open_fresh(&self) -> Result<(Classifier, LoadReport)> {
        open_fresh(self.write(), &["ham", "spam"])
    }
}

pub fn open_fresh(dir: TempDir, labels: &[&str]) -> Result<(Classifier, LoadReport)> {
    let labels = labels.iter().map(|label| label.to_string()).collect();
    let head = Head::Fresh { labels, normal: &mut || 1.0 };
    Classifier::open(dir.path(), head, &CPU)
}

/// Rows of these tokens, padded with id 0 to `width`; the second half of each row has type 1.
pub fn input(rows: &[&[u32]], width: usize) -> Input {
    let mut tokens = vec![0; rows.len() * width];
    let mut types = tokens.clone();
    for (n, row) in rows.iter().enumerate() {
        tokens[n * width..][..row.len()].copy_from_slice(row);
        types[n * width + row.len() / 2..n * width + row.len()].fill(1);
    }
    let lengths: Vec<u32> = rows.iter().map(|row| row.len() as u32).collect();
    Input::new(&tokens, &types, &lengths, width, &CPU).unwrap()
}

/// The error's whole text, with the folder's changing name taken out.
pub fn message<T>(dir: &TempDir, result: Result<T>) -> String {
    let error: Error = result.err().expect("this should not have worked");
    error.to_string().replace(&dir.path().display().to_string(), "DIR")
}

pub fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest difference.
pub fn distance(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    numbers(a).iter().zip(numbers(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}
