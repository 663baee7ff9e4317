//! What a teacher's scores depend on. Two tables with one fingerprint hold the same numbers, but for the last bits between
//! kinds of devices and sizes of batches.

use std::path::Path;

use lowchurn_data::{Example, tokenizer_files};
use lowchurn_kernels::Precision;
use lowchurn_models::weight_files;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::precision::{PrecisionName, is_f32};
use crate::{Combine, Result, TextVector, files};

/// Of the files of tables and of unfinished ones: f32 logits, ids as bytes.
const FORMAT: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// As the user named the teacher. Not compared: a folder may be called in many ways.
    pub name: String,
    pub format: u32,
    /// SHA-256 over config.json and the weights.
    pub weights: String,
    /// SHA-256 over what makes the tokenizer.
    pub tokenizer: String,
    /// Tokens a row is cut to.
    pub max_length: usize,
    /// The teacher's, in the order of its logits.
    pub labels: Vec<String>,
    /// SHA-256 over ids and texts in their order; labels don't matter to a teacher.
    pub rows: String,
    /// Of the matrix products. Tables of before there was a choice are of f32, and keep their names.
    #[serde(with = "PrecisionName", skip_serializing_if = "is_f32", default)]
    pub precision: Precision,
    /// The table holds these vectors of the texts instead of logits, and `labels` are their channels' numbers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub vector: Option<TextVector>,
}

impl Fingerprint {
    /// Of the model in `folder`, reading `rows` cut to `max_length` tokens, with matrix products in f32.
    pub fn of(
        name: &str,
        folder: &Path,
        labels: &[String],
        max_length: usize,
        rows: &[Example],
    ) -> Result<Fingerprint> {
        // The files that the model is opened from, and no others: tables may lie beside them.
        let mut model = vec!["config.json".to_string()];
        model.extend(weight_files(folder)?);
        Ok(Fingerprint {
            name: name.into(),
            format: FORMAT,
            weights: sha256_of(folder, &model)?,
            tokenizer: sha256_of(folder, &tokenizer_files(folder)?)?,
            max_length,
            labels: labels.to_vec(),
            rows: sha256_of_rows(rows),
            precision: Precision::F32,
            vector: None,
        })
    }

    /// The first thing that differs, with what is in this one and in the other.
    pub fn differs(&self, other: &Fingerprint) -> Option<String> {
        let pairs = [
            ("format", self.format.to_string(), other.format.to_string()),
            ("weights", short(&self.weights), short(&other.weights)),
            ("tokenizer", short(&self.tokenizer), short(&other.tokenizer)),
            ("max length", self.max_length.to_string(), other.max_length.to_string()),
            ("labels", self.labels.join(", "), other.labels.join(", ")),
            ("rows", short(&self.rows), short(&other.rows)),
            (
                "precision",
                PrecisionName::of(self.precision).into(),
                PrecisionName::of(other.precision).into(),
            ),
            ("vector", shown(self.vector), shown(other.vector)),
        ];
        let is_same = self.compared() == other.compared();
        let first = pairs.into_iter().find(|(_, own, others)| own != others);
        match first {
            Some((what, own, others)) => Some(format!("{what}: {own}, now {others}")),
            // Hashes that agree in what is shown of them, or labels with a comma in a name.
            None if !is_same => Some(format!("{:?}, now {:?}", self.compared(), other.compared())),
            None => None,
        }
    }

    /// This without what isn't compared.
    pub(crate) fn compared(&self) -> Fingerprint {
        Fingerprint { name: String::new(), ..self.clone() }
    }

    /// SHA-256 over all that is compared.
    pub(crate) fn sha256(&self) -> String {
        let numbers = [u64::from(self.format), self.max_length as u64, self.labels.len() as u64];
        let mut hash = Sha256::new();
        numbers.iter().for_each(|number| hash.update(number.to_le_bytes()));
        let texts = [&self.weights, &self.tokenizer, &self.rows];
        texts.into_iter().chain(&self.labels).for_each(|text| field(&mut hash, text.as_bytes()));
        if self.precision != Precision::F32 {
            field(&mut hash, PrecisionName::of(self.precision).as_bytes());
        }
        if let Some(vector) = self.vector {
            field(&mut hash, format!("vector {}", vector.name()).as_bytes());
        }
        files::hex(&hash.finalize())
    }
}

/// What the numbers of a [`crate::Teacher`] depend on: its tables' file names, and how several are one and classes are named,
/// where that was said. The classes that it knows follow from these and the labels of the run.
pub fn teacher_key(tables: &[String], combine: Combine, map: &[(String, String)]) -> String {
    let how = match (tables, combine) {
        ([_], _) => "",
        (_, Combine::Probabilities) => "mean of probabilities",
        (_, Combine::Logits) => "mean of logits",
    };
    let tables = tables.join(" ");
    if how.is_empty() && map.is_empty() {
        return tables;
    }
    // Before the tables, for messages show no more than the beginning.
    let mut hash = Sha256::new();
    let mut map = map.to_vec();
    map.sort();
    let names = map.iter().flat_map(|(teacher, student)| [teacher.as_str(), student.as_str()]);
    [how, &tables].into_iter().chain(names).for_each(|text| field(&mut hash, text.as_bytes()));
    format!("{} {tables}", files::hex(&hash.finalize()))
}

fn shown(vector: Option<TextVector>) -> String {
    vector.map_or("none", TextVector::name).into()
}

fn short(hash: &str) -> String {
    hash.chars().take(12).collect()
}

// With its length, so that no two lists of fields feed the same bytes.
fn field(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

fn sha256_of_rows(rows: &[Example]) -> String {
    let mut hash = Sha256::new();
    for row in rows {
        field(&mut hash, row.id.as_bytes());
        field(&mut hash, row.text.as_bytes());
        hash.update([u8::from(row.pair.is_some())]);
        field(&mut hash, row.pair.as_deref().unwrap_or_default().as_bytes());
    }
    files::hex(&hash.finalize())
}

fn sha256_of<N: AsRef<str>>(folder: &Path, names: &[N]) -> Result<String> {
    let mut hash = Sha256::new();
    for name in names.iter().map(AsRef::as_ref) {
        field(&mut hash, name.as_bytes());
        field(&mut hash, files::sha256(&folder.join(name))?.as_bytes());
    }
    Ok(files::hex(&hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn teachers_that_say_other_things_have_other_keys() {
        let both = ["a", "b"].map(String::from);
        let one = &both[..1];
        let map = [("neg".to_string(), "negative".to_string())];
        // Runs of before have this one.
        assert_eq!(teacher_key(one, Combine::Probabilities, &[]), "a");
        assert_eq!(teacher_key(one, Combine::Logits, &[]), "a", "one teacher is taken as it is");
        let keys = [
            teacher_key(one, Combine::Probabilities, &[]),
            teacher_key(one, Combine::Probabilities, &map),
            teacher_key(&both, Combine::Probabilities, &[]),
            teacher_key(&both, Combine::Logits, &[]),
            teacher_key(&both, Combine::Logits, &map),
        ];
        let shown: std::collections::BTreeSet<String> = keys.iter().map(|key| short(key)).collect();
        assert_eq!(shown.len(), keys.len(), "{keys:?}");
    }
}
