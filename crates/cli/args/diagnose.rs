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

    /// Training rows as predictions of the teacher, where TEACHER is a file
    #[arg(long, value_name = "FILE.jsonl")]
    pub teacher_train: Option<String>,

    /// Training rows as predictions of the student, where STUDENT is a file
    #[arg(long, value_name = "FILE.jsonl")]
    pub student_train: Option<String>,

    /// The share of rows, from the teacher's least sure, whose slope is told apart as low
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    pub quantile: f64,

    /// Confidence of the intervals
    #[arg(long, value_name = "SHARE", default_value_t = 0.95)]
    pub confidence: f64,

    /// What became of labels of the teacher: `TEACHER=STUDENT,...`
    #[arg(long, value_name = "A=B,...")]
    pub label_map: Option<String>,

    /// How far the weights of each layer went along so many eigendirections of what it reads, by the checkpoints of both runs
    /// (trained with --keep-checkpoints --save-steps 20)
    #[arg(long, value_name = "N")]
    pub directions: Option<usize>,

    /// Measure the noise of the student's gradients over so many batches, and what the teacher takes away of it, in the weights that
    /// were trained. Batches are as large as the student's were (32 rows if those went by tokens), on --train-data where given; each
    /// costs a forward pass and two backward ones, and every sixteenth more where the teacher has the student's architecture
    #[arg(long, value_name = "N")]
    pub gradients: Option<usize>,

    /// Folder of the report [default: STUDENT/diagnosis where STUDENT is a run's folder, else diagnose-TEACHER-STUDENT]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,

    #[command(flatten)]
    pub scoring: Scoring,
}
