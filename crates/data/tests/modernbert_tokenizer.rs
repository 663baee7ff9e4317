//! A tokenizer.json as ModernBERT's, byte-level BPE with its own special tokens: the ids are those of the Python library.

use std::fs;
use std::path::{Path, PathBuf};

use lowchurn_data::{Example, TextEncoder, encode};
use serde_json::Value;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

#[test]
fn ids_are_those_of_the_tokenizers_library() {
    let text = fs::read(golden("modernbert_tokenizer_cases.json")).unwrap();
    let golden_cases: Value = serde_json::from_slice(&text).unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::copy(golden("modernbert_tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    let encoder = TextEncoder::open(dir.path()).unwrap();
    assert_eq!(encoder.vocab_size() as u64, golden_cases["vocabulary"].as_u64().unwrap());
    assert_eq!(encoder.pad_id(), 0);
    let cases = golden_cases["cases"].as_array().unwrap();
    let rows: Vec<Example> = cases
        .iter()
        .enumerate()
        .map(|(id, case)| Example {
            id: id.to_string(),
            text: case["text"].as_str().unwrap().into(),
            pair: case["pair"].as_str().map(str::to_string),
            label: None,
            target: None,
        })
        .collect();
    let encoded = encode(&encoder, &rows, 64).unwrap();
    for (row, case) in cases.iter().enumerate() {
        let ids: Vec<u64> = encoded.tokens_of(row).iter().map(|&id| u64::from(id)).collect();
        let expected: Vec<u64> =
            case["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
        assert_eq!(ids, expected, "{}", case["text"]);
    }
    assert_eq!(encoded.n_truncated, 0);
    let cut = encode(&encoder, &rows[..1], 4).unwrap();
    assert_eq!((cut.length(0), cut.n_truncated), (4, 1));
}
