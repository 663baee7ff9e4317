//! TensorBoard event files: numbers over steps, nothing else. Reads no event file, and doesn't know the clock.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use lowchurn_distill::LogEntry;

use crate::machine;

/// One file, open for appending. Each record is one write to the system, so a killed run loses at most the last.
pub struct EventFile {
    file: File,
}

impl EventFile {
    /// A new file in `dir`, beside those of earlier runs: TensorBoard reads them all as one.
    /// `wall_time` in seconds since 1970.
    pub fn create(dir: &Path, wall_time: f64) -> io::Result<EventFile> {
        std::fs::create_dir_all(dir)?;
        let host = machine::host_name().unwrap_or_else(|| "lowchurn".to_owned());
        let name =
            format!("events.out.tfevents.{}.{host}.{}", wall_time as u64, std::process::id());
        let file = create_first_free(dir, &name)?;
        let mut events = EventFile { file };
        events.record(event(wall_time, 0, VERSION, b"brain.Event:2"))?;
        Ok(events)
    }

    pub fn scalar(&mut self, wall_time: f64, step: u64, tag: &str, value: f32) -> io::Result<()> {
        let mut point = Vec::new();
        put_bytes(&mut point, TAG, tag.as_bytes());
        point.extend([SIMPLE_VALUE]);
        point.extend(value.to_le_bytes());
        let mut summary = Vec::new();
        put_bytes(&mut summary, VALUE, &point);
        self.record(event(wall_time, step, SUMMARY, &summary))
    }

    /// A line of the log, under the tags of transformers' Trainer.
    pub fn log(&mut self, wall_time: f64, entry: &LogEntry) -> io::Result<()> {
        let (step, scalars) = scalars(entry);
        scalars
            .into_iter()
            .try_for_each(|(tag, value)| self.scalar(wall_time, step, tag, value as f32))
    }

    /// After a resume: what earlier files say about `step` and later steps no longer holds.
    pub fn restart(&mut self, wall_time: f64, step: u64) -> io::Result<()> {
        self.record(event(wall_time, step, SESSION_LOG, &[STATUS, START]))
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    /// length u64, its checksum, data, its checksum; all little endian, as TensorFlow frames records.
    fn record(&mut self, data: Vec<u8>) -> io::Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let mut framed = Vec::with_capacity(data.len() + 16);
        framed.extend(length);
        framed.extend(checksum(&length).to_le_bytes());
        framed.extend(&data);
        framed.extend(checksum(&data).to_le_bytes());
        self.file.write_all(&framed)
    }
}

/// Tags and values of a line of the log. A score that isn't defined leaves no point.
pub fn scalars(entry: &LogEntry) -> (u64, Vec<(&'static str, f64)>) {
    match *entry {
        LogEntry::Train {
            step,
            epoch,
            loss,
            accuracy,
            grad_norm,
            learning_rate,
            lambda,
            agreement,
        } => {
            let mut points = vec![("train/loss", loss)];
            points.extend(accuracy.map(|value| ("train/accuracy", value)));
            points.extend([
                ("train/grad_norm", grad_norm),
                ("train/learning_rate", learning_rate),
                ("train/epoch", epoch),
            ]);
            points.extend(lambda.map(|value| ("train/lambda", value)));
            points.extend(agreement.map(|value| ("train/agreement", value)));
            (step, points)
        }
        LogEntry::Eval {
            step,
            epoch: _,
            eval_loss,
            eval_accuracy,
            eval_f1,
            eval_matthews,
            eval_macro_f1,
            eval_pearson,
            eval_spearman,
            eval_worst_class,
            eval_worst_group,
        } => {
            let mut points = vec![("eval/loss", eval_loss)];
            points.extend(eval_accuracy.map(|value| ("eval/accuracy", value)));
            points.extend(eval_f1.map(|value| ("eval/f1", value)));
            points.extend(eval_matthews.map(|value| ("eval/matthews", value)));
            points.extend(eval_macro_f1.map(|value| ("eval/macro_f1", value)));
            points.extend(eval_pearson.map(|value| ("eval/pearson", value)));
            points.extend(eval_spearman.map(|value| ("eval/spearman", value)));
            points.extend(eval_worst_class.map(|value| ("eval/worst_class", value)));
            points.extend(eval_worst_group.map(|value| ("eval/worst_group", value)));
            (step, points)
        }
    }
}

/// The last part of a name is a counter, for files of one process in one second.
fn create_first_free(dir: &Path, name: &str) -> io::Result<File> {
    let mut n = 0;
    loop {
        match File::create_new(dir.join(format!("{name}.{n}"))) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => n += 1,
            made => return made,
        }
    }
}

// Keys of protocol buffers: (field number << 3) | wire type; 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes.
const WALL_TIME: u8 = 1 << 3 | 1;
const STEP: u8 = 2 << 3;
const VERSION: u8 = 3 << 3 | 2;
const SUMMARY: u8 = 5 << 3 | 2;
const SESSION_LOG: u8 = 7 << 3 | 2;
const VALUE: u8 = 1 << 3 | 2; // in Summary
const TAG: u8 = 1 << 3 | 2; // in Summary.Value
const SIMPLE_VALUE: u8 = 2 << 3 | 5;
const STATUS: u8 = 1 << 3; // in SessionLog
const START: u8 = 1;

/// The message `Event`: when, at which step, and one field that says what.
fn event(wall_time: f64, step: u64, what: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![WALL_TIME];
    bytes.extend(wall_time.to_le_bytes());
    if step > 0 {
        bytes.push(STEP);
        put_varint(&mut bytes, step);
    }
    put_bytes(&mut bytes, what, content);
    bytes
}

fn put_bytes(out: &mut Vec<u8>, key: u8, content: &[u8]) {
    out.push(key);
    put_varint(out, content.len() as u64);
    out.extend(content);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value > 127 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}

/// CRC-32C, turned and shifted, so that a checksum of data that holds checksums stays sound.
fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_TIME: f64 = 1700000000.25;

    #[test]
    fn bytes_are_those_of_tensorboard() {
        let dir = tempfile::tempdir().unwrap();
        let mut events = EventFile::create(dir.path(), START_TIME).unwrap();
        for (after, step, tag, value) in [
            (1.0, 0, "train/loss", std::f32::consts::LN_2),
            (2.0, 1, "train/learning_rate", 5e-5),
            (3.0, 127, "train/grad_norm", 1.5),
            (4.0, 128, "train/accuracy", 0.0),
            (5.0, 2105, "eval/loss", f32::INFINITY),
            (6.0, 1 << 40, "eval/accuracy", -0.25),
        ] {
            events.scalar(START_TIME + after, step, tag, value).unwrap();
        }
        events.restart(START_TIME + 7.0, 2000).unwrap();
        events.flush().unwrap();
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/events.tfevents");
        let [name] = names_in(dir.path()).try_into().unwrap();
        let written = std::fs::read(dir.path().join(name)).unwrap();
        assert_eq!(written, std::fs::read(golden).unwrap());
    }

    fn names_in(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn names_are_tensorboards_and_never_taken() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("runs");
        let _both = [0, 1].map(|_| EventFile::create(&inner, START_TIME).unwrap());
        let names = names_in(&inner);
        assert_eq!(names.len(), 2);
        for (n, name) in names.iter().enumerate() {
            assert!(name.starts_with("events.out.tfevents.1700000000."), "{name}");
            assert!(name.ends_with(&format!(".{}.{n}", std::process::id())), "{name}");
        }
    }

    #[test]
    fn tags_of_log_lines() {
        let train = LogEntry::Train {
            step: 7,
            epoch: 0.5,
            loss: 1.0,
            accuracy: Some(0.75),
            grad_norm: 2.0,
            learning_rate: 1e-5,
            lambda: None,
            agreement: None,
        };
        let expected = vec![
            ("train/loss", 1.0),
            ("train/accuracy", 0.75),
            ("train/grad_norm", 2.0),
            ("train/learning_rate", 1e-5),
            ("train/epoch", 0.5),
        ];
        assert_eq!(scalars(&train), (7, expected));
        let eval = LogEntry::Eval {
            step: 8,
            epoch: 1.0,
            eval_loss: 0.5,
            eval_accuracy: Some(0.9),
            eval_f1: None,
            eval_matthews: Some(0.8),
            eval_macro_f1: None,
            eval_pearson: None,
            eval_spearman: None,
            eval_worst_class: None,
            eval_worst_group: None,
        };
        let expected = vec![("eval/loss", 0.5), ("eval/accuracy", 0.9), ("eval/matthews", 0.8)];
        assert_eq!(scalars(&eval), (8, expected));
    }
}
