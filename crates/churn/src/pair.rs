//! Two models on the same rows: aligned by id, labels aligned by name.

/// Columns of N rows that both models scored, in the old file's order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pair {
    pub old_name: String,
    pub new_name: String,
    /// The new model's classes, the old ones first and in their order; indices below point here.
    pub labels: Vec<String>,
    /// `labels[..n_old_classes]` are known to the old model.
    pub n_old_classes: usize,
    pub ids: Vec<String>,
    pub old: Vec<u32>,
    pub new: Vec<u32>,
    pub gold: Vec<Option<u32>>,
    /// (N·K) over `labels`; 0 for classes that the old model doesn't know.
    pub old_scores: Option<Vec<f32>>,
    pub new_scores: Option<Vec<f32>>,
    /// What was done to the labels, a line each, for people and the report.
    pub alignment: Vec<String>,
}
