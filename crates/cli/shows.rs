//! What a teacher shows besides its logits: itself, to be asked in every update, or a table with one vector a text.

use std::path::Path;

use anyhow::Result;
use lowchurn_data::{Encoded, Split, encode};
use lowchurn_distill::{
    Shown, TextVector, Vectors, check_same_tokens, sha256_of_model, table_file_name,
};
use lowchurn_models::{Classifier, Config};

use crate::console::Console;
use crate::failure::Usage;
use crate::found::{self, Found};
use crate::job::Job;
use crate::{base, found::encoder_of};

/// Nothing of it where the plan follows no states.
#[derive(Default)]
pub struct Shows {
    pub model: Option<Classifier>,
    pub vectors: Option<Vectors>,
    /// What it depends on, for the run's record.
    pub keys: Vec<String>,
}

impl Shows {
    pub fn lend(&self) -> Shown<'_> {
        Shown { model: self.model.as_ref(), vectors: self.vectors.as_ref() }
    }
}

/// What the plan follows on the rows of a run; `tokens` and `student` are the student's. `None` where it was interrupted.
pub fn shows(
    names: &[String],
    rows: &Split,
    tokens: &Encoded,
    student: &Config,
    job: &Job,
    tables: &Path,
    console: &mut Console,
) -> Result<Option<Shows>> {
    found::refuse_several(&job.plan, names)?;
    let ([name], Some(terms)) = (names, job.plan.states) else {
        return Ok(Some(Shows::default()));
    };
    let folder = base::find("--teacher", name)?.folder(&job.hub, console)?;
    let mut shows = Shows::default();
    if terms.is_on_tokens() {
        let model = found::open_encoder(name, &folder, TextVector::Mean, &job.compute)?;
        terms.check_models(student, &model.config)?;
        let encoder = encoder_of(&model.config, &folder)?;
        let length = job.plan.max_length;
        if length > model.config.max_positions {
            let most = model.config.max_positions;
            return Err(Usage(format!(
                "--max-length {length}: {name} reads at most {most} tokens"
            ))
            .into());
        }
        check_same_tokens(tokens, &encode(&encoder, &rows.examples, length)?)?;
        console.tell(&format!(
            "teacher: {name} is asked for its states in every update, which costs a forward pass of its own each"
        ))?;
        shows.keys.push(sha256_of_model(&folder)?);
        shows.model = Some(model);
    }
    if terms.vector_weight > 0.0 {
        let found = Found::for_vectors(name, folder, terms.teacher_vector, job.plan.max_length)?;
        let table = found::table(&found, rows, tables, &job.compute, console)?;
        let Some(table) = table else { return Ok(None) };
        let kind = terms.teacher_vector.name();
        console.tell(&format!(
            "teacher: one vector a text of {name} ({kind}), {} wide",
            table.labels.len()
        ))?;
        shows.keys.push(table_file_name(&table.teacher));
        let ids: Vec<String> = rows.examples.iter().map(|row| row.id.clone()).collect();
        shows.vectors = Some(table.vectors(&ids)?);
    }
    Ok(Some(shows))
}
