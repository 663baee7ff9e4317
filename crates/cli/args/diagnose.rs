//! Flags of `diagnose`.

use std::path::PathBuf;

use super::Scoring;

#[derive(clap::Args)]
#[command(allow_negative_numbers = true)]
pub struct Diagnose {
    /// Who was followed: a folder in the hub's layout, a hub id, a name from models/; or its predictions with logits, as lowchurn
    /// predict --logits writes them
    #[arg(long, value_name = "DIR|ID|FILE.jsonl")]
    pub teacher: String,

    /// Who followed, or its predictions with logits
    #[arg(long, value_name = "DIR|ID|FILE.jsonl")]
    pub student: String,

    /// Rows that neither was trained on; models are scored on them. Those that one was trained on by its record are left out
    #[arg(long, value_name = "TASK|DATASET|FILE")]
    pub data: Option<String>,

    /// The split, such as `validation` or `train[:10%]`
    #[arg(long, value_name = "SPLIT")]
    pub split: Option<String>,

    /// Rows that the student was trained on, such as `sst2:train[:10000]`, for a second picture
    #[arg(long, value_name = "TASK|DATASET|FILE")]
    pub train_data: Option<String>,

    /// The same as predictions, where TEACHER is a file
    #[arg(long, value_name = "FILE.jsonl")]
    pub teacher_train: Option<String>,

    /// And where STUDENT is one
    #[arg(long, value_name = "FILE.jsonl")]
    pub student_train: Option<String>,

    /// The share of rows, from the teacher's least sure, whose slope is told apart as low
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    pub quantile: f64,

    /// Of the intervals
    #[arg(long, value_name = "SHARE", default_value_t = 0.95)]
    pub confidence: f64,

    /// What became of labels of the teacher: `TEACHER=STUDENT,...`
    #[arg(long, value_name = "A=B,...")]
    pub label_map: Option<String>,

    /// How far the weights of each layer went along so many eigendirections of what it reads, by the checkpoints of both runs
    /// (trained with --keep-checkpoints --save-steps 20)
    #[arg(long, value_name = "N")]
    pub directions: Option<usize>,

    /// How noisy the student's gradients are on the rows (of --train-data, where that is given), and what the teacher takes away of it,
    /// over so many batches of the rows that its own had (32 where those went by tokens), in the weights that it was trained in; each costs two passes, and a third where the teacher has the student's architecture
    #[arg(long, value_name = "N")]
    pub gradients: Option<usize>,

    /// Folder of the report [default: STUDENT/diagnosis where STUDENT is a run's folder, else diagnose-TEACHER-STUDENT]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,

    #[command(flatten)]
    pub scoring: Scoring,
}
