//! A teacher's logits of every row on disk, keyed by row id, with the fingerprint of what they depend on.
//!
//! A file is one safetensors: `logits` f32 (N, K), `ids` u8 with all ids in one piece, `id_ends` u64 (N,) where each ends,
//! and the fingerprint with a hash over everything in the metadata. Nothing of it is believed unchecked.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Device;
use lowchurn_data::{Encoded, eval_order};
use lowchurn_models::Classifier;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Fingerprint;
use super::scored::{Scored, remove_scored};
use crate::precision::PrecisionName;
use crate::states::text_vectors;
use crate::{Error, Result, Vectors, files, predict};

const METADATA: &str = "lowchurn_teacher";

/// A teacher's logits of every row.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    pub teacher: Fingerprint,
    /// (K) The teacher's, in the order of its logits.
    pub labels: Vec<String>,
    /// (N) Each once.
    pub ids: Vec<String>,
    /// (N·K)
    pub logits: Vec<f32>,
}

/// What a table is made from. The rows are encoded by the teacher's own tokenizer.
pub struct Scoring<'a> {
    pub model: &'a Classifier,
    pub rows: &'a Encoded,
    pub fingerprint: &'a Fingerprint,
    pub batch_size: usize,
    pub device: &'a Device,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    fingerprint: Fingerprint,
    sha256: String,
}

/// One name for each fingerprint, so that tables of other settings lie side by side.
pub fn table_file_name(fingerprint: &Fingerprint) -> String {
    format!("teacher-{}.safetensors", &fingerprint.sha256()[..16])
}

impl Table {
    /// The table at `path`, made and saved there if it isn't yet. `None` if `stop` came first: what is scored by then lies
    /// beside `path`, and the next call goes on from there. `on` is told how many rows are done.
    pub fn open_or_build(
        path: &Path,
        scoring: &Scoring,
        stop: &AtomicBool,
        on: &mut dyn FnMut(usize),
    ) -> Result<Option<Table>> {
        if path.exists() {
            return Table::open(path, scoring.fingerprint).map(Some);
        }
        let Some(table) = Table::build(path, scoring, stop, on)? else { return Ok(None) };
        table.save(path)?;
        Ok(Some(table))
    }

    /// Scores every row in evaluation mode, from the longest to the shortest, and appends each batch to the unfinished file
    /// beside `path`. Stopped and called again it ends in the same bytes as in one go. The file stays until `save`.
    pub fn build(
        path: &Path,
        scoring: &Scoring,
        stop: &AtomicBool,
        on: &mut dyn FnMut(usize),
    ) -> Result<Option<Table>> {
        let Scoring { model, rows, fingerprint, batch_size, device } = *scoring;
        if fingerprint.vector.is_none() && model.labels() != fingerprint.labels {
            let (model, fingerprint) = (model.labels().to_vec(), fingerprint.labels.clone());
            return Err(Error::OtherTeacher { model, fingerprint });
        }
        if model.precision != fingerprint.precision {
            let [model, fingerprint] =
                [model.precision, fingerprint.precision].map(PrecisionName::of);
            return Err(Error::OtherPrecision { model, fingerprint });
        }
        refuse_ids_twice(&rows.ids)?;
        let classes = fingerprint.labels.len();
        let order = eval_order(&rows.lengths(), batch_size);
        let widths: Vec<usize> = order.iter().map(|batch| batch.len() * classes).collect();
        let (mut scored, found) = Scored::open(path, fingerprint, batch_size, &widths)?;
        let mut logits = vec![0f32; rows.rows() * classes]; // (N·K)
        let mut n_done = 0;
        let mut found = found.into_iter();
        for batch in &order {
            let values = match found.next() {
                Some(values) => values,
                None if stop.load(Ordering::Relaxed) => return Ok(None),
                None => {
                    let rows = picked(rows, batch);
                    let values = match fingerprint.vector {
                        None => predict(model, &rows, batch_size, device, &mut |_| {})?.logits,
                        Some(vector) => text_vectors(model, &rows, batch_size, vector, device)?,
                    };
                    scored.append(&values)?;
                    values
                }
            };
            for (&row, values) in batch.iter().zip(values.chunks_exact(classes)) {
                logits[row as usize * classes..][..classes].copy_from_slice(values);
            }
            n_done += batch.len();
            on(n_done);
        }
        let (teacher, labels) = (fingerprint.clone(), fingerprint.labels.clone());
        Ok(Some(Table { teacher, labels, ids: rows.ids.clone(), logits }))
    }

    /// Writes the table beside its place, flushes and renames it, and removes the unfinished file that it was made from.
    pub fn save(&self, path: &Path) -> Result<()> {
        let ends = self.ids.iter().scan(0u64, |end, id| {
            *end += id.len() as u64;
            Some(*end)
        });
        let id_ends: Vec<u8> = ends.flat_map(u64::to_le_bytes).collect();
        let ids = self.ids.concat();
        let logits: Vec<u8> = self.logits.iter().flat_map(|z| z.to_le_bytes()).collect();
        let raw = Raw { logits: &logits, ids: ids.as_bytes(), id_ends: &id_ends };
        let unfit = |error: &dyn std::fmt::Display| Error::Write {
            path: path.into(),
            source: std::io::Error::other(error.to_string()),
        };
        let metadata =
            Metadata { fingerprint: self.teacher.clone(), sha256: raw.sha256(&self.teacher) };
        let metadata = serde_json::to_string(&metadata).map_err(|error| unfit(&error))?;
        let view =
            |dtype, shape, data| TensorView::new(dtype, shape, data).map_err(|error| unfit(&error));
        let (n, k) = (self.ids.len(), self.labels.len());
        let tensors = BTreeMap::from([
            ("logits", view(Dtype::F32, vec![n, k], raw.logits)?),
            ("ids", view(Dtype::U8, vec![raw.ids.len()], raw.ids)?),
            ("id_ends", view(Dtype::U64, vec![n], raw.id_ends)?),
        ]);
        // One key: the order of a map with more would change from run to run, and with it the bytes.
        let metadata = HashMap::from([(METADATA.to_string(), metadata)]);
        let bytes =
            safetensors::serialize(tensors, Some(metadata)).map_err(|error| unfit(&error))?;
        files::write(path, &bytes)?;
        files::sync_folder(path.parent().unwrap_or(Path::new(".")));
        remove_scored(path);
        Ok(())
    }

    /// Reads a table and checks that it is whole; whose and of which rows is for its fingerprint to say.
    pub fn open_any(path: &Path) -> Result<Table> {
        let bytes = fs::read(path).map_err(|source| Error::Read { path: path.into(), source })?;
        parsed(&bytes).map_err(|reason| Error::Table { path: path.into(), reason })
    }

    /// Reads a table and checks all of it, then that it is the one expected.
    pub fn open(path: &Path, expected: &Fingerprint) -> Result<Table> {
        let table = Table::open_any(path)?;
        match table.teacher.differs(expected) {
            None => Ok(table),
            Some(difference) => Err(Error::OtherTable { path: path.into(), difference }),
        }
    }

    /// The numbers of the given rows, each found by its id, as vectors.
    pub fn vectors(&self, row_ids: &[String]) -> Result<Vectors> {
        let places = super::places(self, row_ids)?;
        let values = places.into_iter().flat_map(|at| self.logits_of(at)).copied().collect();
        Ok(Vectors { width: self.labels.len(), values })
    }

    /// (K,)
    pub fn logits_of(&self, row: usize) -> &[f32] {
        &self.logits[row * self.labels.len()..][..self.labels.len()]
    }
}

/// The tensors' bytes, little-endian.
struct Raw<'a> {
    logits: &'a [u8],
    ids: &'a [u8],
    id_ends: &'a [u8],
}

impl Raw<'_> {
    // The fingerprint is hashed with its name: what is shown to people must be sound as well.
    fn sha256(&self, fingerprint: &Fingerprint) -> String {
        let mut hash = Sha256::new();
        for part in [fingerprint.name.as_bytes(), fingerprint.sha256().as_bytes(), self.ids] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update(self.id_ends);
        hash.update(self.logits);
        files::hex(&hash.finalize())
    }
}

/// What is wrong, said so that it follows a path.
fn parsed(bytes: &[u8]) -> std::result::Result<Table, String> {
    let damaged = "the file is damaged";
    let (_, header) = SafeTensors::read_metadata(bytes)
        .map_err(|error| format!("no table of a teacher, or a damaged one ({error})"))?;
    let metadata = header.metadata().as_ref().and_then(|all| all.get(METADATA));
    let metadata = metadata.ok_or("a safetensors file, but no table of a teacher")?;
    let metadata: Metadata =
        serde_json::from_str(metadata).map_err(|error| format!("{damaged} ({error})"))?;
    let tensors =
        SafeTensors::deserialize(bytes).map_err(|error| format!("{damaged} ({error})"))?;
    let part = |name: &str, dtype: Dtype| match tensors.tensor(name) {
        Ok(tensor) if tensor.dtype() == dtype => Ok(tensor),
        Ok(tensor) => Err(format!("{name} holds {}, expected {dtype}", tensor.dtype())),
        Err(error) => Err(format!("{damaged} ({error})")),
    };
    let (logits, ids, id_ends) =
        (part("logits", Dtype::F32)?, part("ids", Dtype::U8)?, part("id_ends", Dtype::U64)?);
    let labels = metadata.fingerprint.labels.clone();
    let n = id_ends.shape().iter().product::<usize>();
    if logits.shape() != [n, labels.len()] {
        let (found, k) = (logits.shape(), labels.len());
        return Err(format!("logits of shape {found:?}, expected {:?}", [n, k]));
    }
    let raw = Raw { logits: logits.data(), ids: ids.data(), id_ends: id_ends.data() };
    let found = raw.sha256(&metadata.fingerprint);
    if found != metadata.sha256 {
        let expected = &metadata.sha256;
        return Err(format!(
            "{damaged}: its content has sha256 {found}, its header says {expected}"
        ));
    }
    let logits: Vec<f32> =
        raw.logits.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let ids = ids_of(&raw)?;
    if let Some(at) = logits.iter().position(|z| !z.is_finite()) {
        let id = ids.get(at / labels.len().max(1)).map_or("", String::as_str);
        return Err(format!("row {id} has a logit that is not a finite number"));
    }
    refuse_ids_twice(&ids).map_err(|error| error.to_string())?;
    Ok(Table { teacher: metadata.fingerprint, labels, ids, logits })
}

fn ids_of(raw: &Raw) -> std::result::Result<Vec<String>, String> {
    let mut start = 0;
    let mut ids = Vec::new();
    for end in raw.id_ends.as_chunks().0 {
        let end = usize::try_from(u64::from_le_bytes(*end)).unwrap_or(usize::MAX);
        let bytes = raw.ids.get(start..end).ok_or("the ends of the ids don't fit the ids")?;
        ids.push(String::from_utf8(bytes.to_vec()).map_err(|_| "an id is not utf-8")?);
        start = end;
    }
    match start == raw.ids.len() {
        true => Ok(ids),
        false => Err("the ends of the ids don't fit the ids".into()),
    }
}

fn refuse_ids_twice(ids: &[String]) -> Result<()> {
    let mut seen = HashSet::with_capacity(ids.len());
    match ids.iter().find(|id| !seen.insert(id.as_str())) {
        None => Ok(()),
        Some(id) => Err(Error::ScoredTwice { id: id.clone() }),
    }
}

/// Some rows as a split of their own.
fn picked(rows: &Encoded, which: &[u32]) -> Encoded {
    let mut part = Encoded { offsets: vec![0], ..Encoded::default() };
    for &row in which {
        let row = row as usize;
        part.tokens.extend(rows.tokens_of(row));
        part.types.extend(rows.types_of(row));
        part.offsets.push(part.tokens.len());
        part.ids.push(rows.ids[row].clone());
        part.labels.push(rows.labels[row]);
    }
    part
}
