//! Nothing in a checkpoint folder can panic, whatever its bytes.

use std::fs;

use lowchurn_models::{Classifier, Head};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{CPU, Checkpoint, golden, message};

/// A file with this header length, header text and as many bytes of data.
fn file(header_length: u64, header: &str, n_data: usize) -> Vec<u8> {
    let mut bytes = header_length.to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + n_data, 0);
    bytes
}

fn open(name: &str, bytes: &[u8]) -> (TempDir, lowchurn_models::Result<()>) {
    let dir = Checkpoint::tiny().write();
    fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    fs::write(dir.path().join(name), bytes).unwrap();
    let result = Classifier::open(dir.path(), Head::FromCheckpoint, &CPU).map(|_| ());
    (dir, result)
}

#[test]
fn lying_headers_are_errors() {
    let check = |header_length: Option<u64>, tensor: Value, n_data: usize, expected: &str| {
        let header = json!({ "classifier.bias": tensor }).to_string();
        let length = header_length.unwrap_or(header.len() as u64);
        let (dir, result) = open("model.safetensors", &file(length, &header, n_data));
        let expected = format!(
            "DIR/model.safetensors: not a sound safetensors file: {expected}; fetch it again"
        );
        assert_eq!(message(&dir, result), expected);
    };
    let sound = || json!({ "dtype": "F32", "shape": [3], "data_offsets": [0, 12] });
    check(Some(u64::MAX), sound(), 12, "header too large");
    check(Some(99_999_999), sound(), 12, "invalid header length");
    check(
        Some(3),
        sound(),
        12,
        "invalid JSON in header: EOF while parsing a string at line 1 column 3",
    );
    check(None, sound(), 11, "incomplete metadata, file not fully covered");
    check(None, sound(), 13, "incomplete metadata, file not fully covered");
    check(
        None,
        json!({ "dtype": "F32", "shape": [3], "data_offsets": [4, 16] }),
        16,
        "invalid offset for tensor `classifier.bias`",
    );
    check(
        None,
        json!({ "dtype": "F32", "shape": [3], "data_offsets": [12, 0] }),
        12,
        "invalid offset for tensor `classifier.bias`",
    );
    check(
        None,
        json!({ "dtype": "F32", "shape": [u64::MAX, 2], "data_offsets": [0, 12] }),
        12,
        "overflow computing buffer size from shape and/or element type",
    );
    check(
        None,
        json!({ "dtype": "F32", "shape": [4], "data_offsets": [0, 12] }),
        12,
        "invalid shape, data type, or offset for tensor",
    );
}

#[test]
fn many_rows_of_nothing_cost_nothing() {
    let mut tiny = Checkpoint::tiny();
    tiny.config["id2label"] = Value::Null;
    tiny.config["label2id"] = Value::Null;
    let dir = tiny.write();
    let header = json!({ "classifier.weight": {
        "dtype": "F32", "shape": [1u64 << 50, 0], "data_offsets": [0, 0]
    } });
    let header = header.to_string();
    fs::write(dir.path().join("model.safetensors"), file(header.len() as u64, &header, 0)).unwrap();
    let found = message(&dir, Classifier::open(dir.path(), Head::FromCheckpoint, &CPU));
    let expected = "classifier.weight is [1125899906842624, 0], expected [2, 32]";
    assert!(found.ends_with(expected), "{found}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0..4usize) {
        let names =
            ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "config.json"];
        prop_assert!(open(names[kind], &bytes).1.is_err());
    }

    #[test]
    fn damaged_safetensors_never_panic(at in any::<prop::sample::Index>(), value: u8, cut in 0..3usize) {
        damaged("model.safetensors", golden().join("bert_tiny/model.safetensors"), at, value, cut, 6000);
    }

    #[test]
    fn damaged_pickles_never_panic(at in any::<prop::sample::Index>(), value: u8, cut in 0..3usize) {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pickle/pytorch_model.bin");
        damaged("pytorch_model.bin", fixture.into(), at, value, cut, usize::MAX);
    }
}

/// Tuples of another length than their readers expect.
#[test]
fn wrong_tuples_in_a_pickle_never_panic() {
    const TUPLES: [u8; 5] = [b')', b't', 0x85, 0x86, 0x87]; // of none, of all since a mark, of one, two, three
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pickle/pytorch_model.bin");
    let bytes = fs::read(fixture).unwrap();
    let mut n_described = 0;
    for at in (0..bytes.len()).filter(|&at| TUPLES.contains(&bytes[at])) {
        for other in TUPLES {
            let mut damaged = bytes.clone();
            damaged[at] = other;
            let error = open("pytorch_model.bin", &damaged).1.err().map(|error| error.to_string());
            n_described +=
                usize::from(error.is_some_and(|error| error.contains("described wrongly")));
        }
    }
    assert!(n_described > 0, "no damage reached candle's assumption: the guard may go");
}

/// One byte of the head changed, or the file cut off there. Both may still be sound by luck.
fn damaged(
    name: &str,
    from: std::path::PathBuf,
    at: prop::sample::Index,
    value: u8,
    cut: usize,
    head: usize,
) {
    let mut bytes = fs::read(from).unwrap();
    let at = at.index(bytes.len().min(head));
    if cut == 0 {
        bytes.truncate(at)
    } else {
        bytes[at] = value
    }
    let _ = open(name, &bytes);
}
