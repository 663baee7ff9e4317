//! The report: one structure, written as JSON, Markdown, JUnit and one HTML file that opens offline.

use serde::{Deserialize, Serialize};

use crate::{Certificate, Comparison, Point};

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
    pub labels: Vec<String>,
    pub alignment: Vec<String>,
    pub certificate: Option<Certificate>,
    pub comparison: Comparison,
    /// Rows whose prediction changed, negative flips first; may be cut, `n_flips` says how many there are.
    pub flips: Vec<Flip>,
    pub n_flips: u64,
    /// Settings of a sweep on the same axes, where there was one.
    pub frontier: Vec<Point>,
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
