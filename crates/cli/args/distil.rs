//! Flags of the verbs that make a small model of a large one: `distil` by a teacher, `student` to start from.

use std::path::PathBuf;

use lowchurn_distill::{StateTerms, TextVector, VectorLoss};
use serde::de::DeserializeOwned;

use super::{Ensemble, Finetune};

#[derive(clap::Args, Clone)]
#[command(allow_negative_numbers = true)]
pub struct Distil {
    /// Who is followed: a trained classifier with any tokenizer, as a folder or a hub id; several are an ensemble
    #[arg(long, value_name = "DIR|ID", required = true)]
    pub teacher: Vec<String>,

    /// How several teachers are one
    #[arg(long, value_enum, default_value_t = Ensemble::Probabilities)]
    pub ensemble: Ensemble,

    /// Rows without labels, which follow the teacher alone; may be given several times
    #[arg(long, value_name = "DATA")]
    pub unlabelled: Vec<String>,

    /// Names of labels that the teacher calls otherwise: `TEACHER=STUDENT,...`
    #[arg(long, value_name = "A=B,...")]
    pub label_map: Option<String>,

    /// Folder of the teacher's tables, which every run may share
    #[arg(long, value_name = "DIR", default_value = "runs/tables")]
    pub tables: PathBuf,

    /// Write the targets of the rows as JSON lines for other trainers, and stop
    #[arg(long, value_name = "FILE.jsonl")]
    pub emit_soft_labels: Option<PathBuf>,

    /// The student: a base checkpoint as --model takes it, or a folder with a config.json and a tokenizer and no weights, which
    /// starts from fresh ones; see lowchurn student
    #[arg(long, value_name = "DIR|ID", conflicts_with = "model")]
    pub student: Option<String>,

    /// Follow no labels and no logits, only what the weights below ask for, on texts of any kind; leaves a base checkpoint without
    /// a head, to be fine-tuned
    #[arg(long)]
    pub task_agnostic: bool,

    /// Texts for --task-agnostic; labels aren't read; may be given several times
    #[arg(long = "data", value_name = "DATA", requires = "task_agnostic")]
    pub texts: Vec<String>,

    /// Repeated self-distillation: so many students in turn, each the next one's teacher; their folders are DIR/generation-N
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub generations: u32,

    #[command(flatten)]
    pub states: StateFlags,

    #[command(flatten)]
    pub run: Finetune,
}

/// What of a teacher is followed besides its logits. The first three need one tokenizer for both and ask the teacher in every
/// update anew; the vector needs neither, and is kept in a table.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct StateFlags {
    /// Of hidden states, layer by layer, through a learned projection where widths differ (TinyBERT) [default: 0]
    #[arg(long, value_name = "WEIGHT")]
    pub hidden_weight: Option<f64>,

    /// Of attention scores, layer by layer, for as many heads (TinyBERT) [default: 0]
    #[arg(long, value_name = "WEIGHT")]
    pub attention_weight: Option<f64>,

    /// Of relations between tokens in the last layers, for any widths (MiniLMv2) [default: 0]
    #[arg(long, value_name = "WEIGHT")]
    pub relation_weight: Option<f64>,

    /// Heads of these relations, which must divide both widths [default: the teacher's heads]
    #[arg(long, value_name = "N")]
    pub relation_heads: Option<usize>,

    /// Of one vector a text, through a learned projection [default: 0]
    #[arg(long, value_name = "WEIGHT")]
    pub vector_weight: Option<f64>,

    /// How vectors are compared: cosine or mse [default: cosine]
    #[arg(long, value_name = "NAME", value_parser = named::<VectorLoss>("cosine or mse"))]
    pub vector_loss: Option<VectorLoss>,

    /// The teacher's vector: mean or first (of its last hidden states), or pooled (what its head reads) [default: mean]
    #[arg(long, value_name = "NAME", value_parser = named::<TextVector>("mean, first or pooled"))]
    pub teacher_vector: Option<TextVector>,

    /// The student's vector: mean, first or pooled [default: pooled]
    #[arg(long, value_name = "NAME", value_parser = named::<TextVector>("mean, first or pooled"))]
    pub student_vector: Option<TextVector>,
}

impl StateFlags {
    /// The settings with what these say laid over a plan's terms, or over none.
    pub fn onto(&self, plan: Option<StateTerms>) -> Option<StateTerms> {
        let StateFlags {
            hidden_weight,
            attention_weight,
            relation_weight,
            relation_heads,
            vector_weight,
            vector_loss,
            teacher_vector,
            student_vector,
        } = *self;
        let numbers = [hidden_weight, attention_weight, relation_weight, vector_weight];
        let is_set = numbers.iter().any(Option::is_some)
            || relation_heads.is_some()
            || vector_loss.is_some()
            || teacher_vector.is_some()
            || student_vector.is_some();
        let terms = plan.or(is_set.then(StateTerms::default))?;
        Some(StateTerms {
            hidden_weight: hidden_weight.unwrap_or(terms.hidden_weight),
            attention_weight: attention_weight.unwrap_or(terms.attention_weight),
            relation_weight: relation_weight.unwrap_or(terms.relation_weight),
            relation_heads: relation_heads.or(terms.relation_heads),
            vector_weight: vector_weight.unwrap_or(terms.vector_weight),
            vector_loss: vector_loss.unwrap_or(terms.vector_loss),
            teacher_vector: teacher_vector.unwrap_or(terms.teacher_vector),
            student_vector: student_vector.unwrap_or(terms.student_vector),
        })
    }
}

/// A parser of an enum's names in files.
fn named<T: DeserializeOwned + Clone + Send + Sync + 'static>(
    expected: &'static str,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| serde_json::from_value(text.into()).map_err(|_| format!("expected {expected}"))
}

#[derive(clap::Args)]
pub struct Student {
    /// What it is made from: a folder in the hub's layout, a hub id, a name from models/
    #[arg(value_name = "MODEL")]
    pub model: String,

    /// The layers that it takes over, from 0, such as 0,2,4
    #[arg(long, value_delimiter = ',', value_name = "N,...", conflicts_with = "layers")]
    pub init_layers: Vec<usize>,

    /// So many layers, evenly from the lowest; with another width or depth than the model's, so many fresh ones
    #[arg(long, value_name = "N")]
    pub layers: Option<usize>,

    /// So many word pieces: those that the texts of --data use most; for WordPiece tokenizers
    #[arg(long, value_name = "N", requires = "texts")]
    pub vocabulary: Option<usize>,

    /// Texts to count word pieces in; labels aren't read; may be given several times
    #[arg(long = "data", id = "texts", value_name = "DATA")]
    pub texts: Vec<String>,

    /// Another width. This and the next three leave a folder without weights, and distil --student makes fresh ones
    #[arg(long, value_name = "N", conflicts_with = "init_layers")]
    pub width: Option<usize>,

    /// So many attention heads
    #[arg(long, value_name = "N", conflicts_with = "init_layers")]
    pub heads: Option<usize>,

    /// Another width of the feed-forward layers
    #[arg(long, value_name = "N", conflicts_with = "init_layers")]
    pub intermediate: Option<usize>,

    /// Tokens that a text may have
    #[arg(long, value_name = "N", conflicts_with = "init_layers")]
    pub positions: Option<usize>,

    /// Folder of the student
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_laid_over_a_plans_terms() {
        let none = StateFlags::default();
        assert_eq!(none.onto(None), None);
        let plan = StateTerms { hidden_weight: 2.0, ..StateTerms::default() };
        assert_eq!(none.onto(Some(plan)), Some(plan));
        let flags = StateFlags { vector_weight: Some(1.0), ..none };
        let both = flags.onto(Some(plan)).unwrap();
        assert_eq!((both.hidden_weight, both.vector_weight), (2.0, 1.0));
        assert_eq!(flags.onto(None).unwrap().hidden_weight, 0.0);
    }
}
