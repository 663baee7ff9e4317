//! The report: one structure, written as JSON, Markdown and one HTML file that opens offline.
//!
//! The JSON is the record and has a committed schema (`schema/report-v1.schema.json`); the other two are views of it.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Certificate, Comparison, Diagnosis, Error, History, Point, Result};

/// The version of the JSON. A key may be added within a version; nothing is renamed or removed.
pub const SCHEMA: &str = "lowchurn.report.v1";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub schema: String,
    pub title: String,
    pub old: Side,
    pub new: Side,
    /// Where the rows are from, with their hash.
    pub data: String,
    pub data_sha256: Option<String>,
    pub rows: u64,
    /// What these rows chose, such as the share of the old weights; `None` where they chose nothing. Rows that chose look
    /// better than fresh ones and certify nothing.
    #[serde(default)]
    pub rows_chose: Option<String>,
    pub labels: Vec<String>,
    pub alignment: Vec<String>,
    pub certificate: Option<Certificate>,
    pub comparison: Comparison,
    /// Rows whose prediction changed, negative flips first; may be cut, `n_flips` says how many there are.
    pub flips: Vec<Flip>,
    pub n_flips: u64,
    /// Settings of a sweep on the same axes, where there was one.
    pub frontier: Vec<Point>,
    /// How the new side's confidence deviates from the old one's, where that was asked: old is the teacher, new the student.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnosis: Option<Diagnosis>,
    /// Releases from the oldest to the newest of both, where several were looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<History>,
    /// Lines `key: value` for audits: versions, hashes, plan, command.
    pub provenance: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Side {
    pub name: String,
    pub sha256: Option<String>,
    pub labels: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flip {
    pub id: String,
    pub text: Option<String>,
    pub gold: Option<String>,
    pub old: String,
    pub new: String,
    /// Score of the old model for its prediction, of the new model for its own.
    pub old_score: Option<f64>,
    pub new_score: Option<f64>,
    pub kind: FlipKind,
    /// Training rows nearest by the new model's pooled vector, the nearest first.
    pub nearest: Vec<Neighbour>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlipKind {
    Negative,
    Lateral,
    Positive,
    Unlabelled,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Neighbour {
    pub id: String,
    pub text: String,
    pub label: Option<String>,
    /// Cosine of the pooled vectors.
    pub similarity: f64,
}

impl Report {
    /// Pretty JSON with a newline at the end. A float that isn't a number becomes `null`, as JSON has no such thing.
    pub fn to_json(&self) -> String {
        let text = serde_json::to_string_pretty(self);
        // Strings, numbers and lists of them: there is no key that could fail.
        text.expect("a report has no maps with odd keys") + "\n"
    }

    /// The report in a file of this or an older program. Keys that aren't known are passed over.
    ///
    /// # Errors
    /// A file that can't be read or isn't JSON, another version of the schema, a key that is missing or has the wrong kind.
    pub fn read(path: &Path) -> Result<Report> {
        let bytes = fs::read(path)
            .map_err(|source| Error::ReportFile { path: path.to_path_buf(), source })?;
        Report::parse(&bytes, path)
    }

    /// [`Report::read`] of bytes; `path` is for messages.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Report> {
        let broken = |source| Error::ReportJson { path: path.to_path_buf(), source };
        // The version comes first: a report of tomorrow shall not be called a broken one of today.
        let value: Value = serde_json::from_slice(bytes).map_err(broken)?;
        let found = match value.get("schema") {
            Some(Value::String(found)) => found.clone(),
            Some(other) => other.to_string(),
            None => return Err(Error::NotAReport { path: path.to_path_buf() }),
        };
        if found != SCHEMA {
            return Err(Error::ReportSchema { path: path.to_path_buf(), found });
        }
        // From the bytes again and not from `value`: messages then name line and column.
        serde_json::from_slice(bytes).map_err(broken)
    }
}
