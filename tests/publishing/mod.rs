//! A local hub to publish to, a small run to publish, and what has come of it there.
#![allow(dead_code, reason = "each target uses its part")]

use std::fs;

use serde_json::Value;

use crate::local_hub::LocalHub;
use crate::util::{Lab, SMALL};

pub const TOKEN: &str = "hf_test_0123456789abcdef";

pub fn start(faults: &[&str]) -> Option<LocalHub> {
    LocalHub::start(faults, &["--token", TOKEN])
}

/// The same places, with or without a token.
pub fn lab_of(server: &LocalHub, token: &str) -> Lab {
    Lab::new().set("HF_ENDPOINT", &server.endpoint).set("HF_TOKEN", token)
}

/// Names of a repository's files, sorted.
pub fn sent_names(server: &LocalHub, repo: &str) -> Vec<String> {
    let root = server.path(repo, "");
    let (mut found, mut folders) = (Vec::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path => found.push(path.strip_prefix(&root).unwrap().display().to_string()),
            }
        }
    }
    found.sort();
    found
}

pub fn sent_text(server: &LocalHub, repo: &str, name: &str) -> String {
    let path = server.path(repo, name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn put_by_another(server: &LocalHub, repo: &str, name: &str, content: &str) {
    let path = server.path(repo, name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

pub fn finetuned(lab: &Lab) {
    lab.ok(&format!("{SMALL} --output $T/run"));
}

/// What text-embeddings-inference 1.9 asks of a classifier's folder (peers: its source), for BERT.
pub fn as_its_servers_want(lab: &Lab, folder: &str) {
    let config = lab.json(&format!("{folder}/config.json"));
    let class = config["architectures"][0].as_str().unwrap();
    assert!(class.ends_with("Classification"), "{class}");
    let (names, ids) = (&config["id2label"], &config["label2id"]);
    let names = names.as_object().expect("id2label is fatal to leave out");
    assert_eq!(ids.as_object().unwrap().len(), names.len());
    for (n, (id, name)) in names.iter().enumerate() {
        assert_eq!(id, &n.to_string(), "contiguous, from 0, as strings");
        assert_eq!(ids[name.as_str().unwrap()], n, "the exact inverse");
    }
    assert!(config["max_position_embeddings"].is_u64() && config["model_type"].is_string());
    assert_eq!(config["problem_type"], "single_label_classification");
    assert!(lab.path(&format!("{folder}/tokenizer.json")).is_file());
    let (header, _) = header(&lab.read(&format!("{folder}/model.safetensors")));
    assert_eq!(header["__metadata__"]["format"], "pt");
    for name in ["bert.embeddings.word_embeddings.weight", "bert.pooler.dense.weight"] {
        assert!(header.get(name).is_some(), "{name}");
    }
    assert_eq!(header["classifier.weight"]["shape"][0], names.len());
    assert!(header.get("classifier.bias").is_some());
    let keys = header.as_object().unwrap().keys();
    let odd: Vec<&String> = keys
        .filter(|key| key.contains("gamma") || key.contains("beta") || key.contains("position_ids"))
        .collect();
    assert!(odd.is_empty(), "{odd:?}");
}

pub fn header(bytes: &[u8]) -> (Value, usize) {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..8 + length]).unwrap(), 8 + length)
}
