//! Predictions of one model, from a file of any stack or from memory.

/// What one model said about a set of rows. All columns have N entries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Predicted {
    /// For messages and the report: the file or the model.
    pub name: String,
    /// Class names; indices below point here.
    pub labels: Vec<String>,
    pub ids: Vec<String>,
    /// The class of the highest score; the first of equals.
    pub predicted: Vec<u32>,
    /// The true class, where it is known.
    pub gold: Vec<Option<u32>>,
    /// Probabilities (N·K), row-major, where the file has scores.
    pub scores: Option<Vec<f32>>,
}
