//! A linear probe's features: the vectors that the last layer reads, worked out once a row and kept in a table as a teacher's are.

use std::path::{Path, PathBuf};

use anyhow::Result;
use lowchurn_data::Split;
use lowchurn_distill::{TextVector, TrainOnly, Vectors};
use lowchurn_models::{Classifier, Head, is_head};

use crate::console::Console;
use crate::device::Compute;
use crate::finetune::Ready;
use crate::found::{self, Found};
use crate::job::Job;
use crate::training::WeightsFrom;

/// Of the rows to train on, and of those to evaluate on.
#[derive(Default)]
pub struct Features {
    pub train: Option<Vectors>,
    pub eval: Option<Vectors>,
}

/// Beside the run's folder, where every run may share them.
pub fn tables_of(job: &Job) -> PathBuf {
    job.output.parent().unwrap_or(Path::new(".")).join("tables")
}

/// Nothing where more than the last layer is trained, and where a layer below it starts anew: then the vectors are another run's
/// with each seed, and the run makes its own. `None` where it was interrupted.
pub fn features(
    ready: &Ready,
    job: &Job,
    tables: &Path,
    console: &mut Console,
) -> Result<Option<Features>> {
    let is_probe = job.plan.train_only == Some(TrainOnly::LastLayer);
    let folder = &ready.base_folder;
    if !is_probe || ready.weights == WeightsFrom::Seed || !is_whole(folder, &job.compute)? {
        return Ok(Some(Features::default()));
    }
    let (name, kind) = (&job.base.name, TextVector::Pooled);
    let found = Found::for_vectors(name, folder.clone(), kind, job.plan.max_length)?;
    let mut of = |rows: &Split| -> Result<Option<Vectors>> {
        let table = found::table(&found, rows, tables, &job.compute, console)?;
        let ids: Vec<String> = rows.examples.iter().map(|row| row.id.clone()).collect();
        let Some(table) = table else { return Ok(None) };
        Ok(Some(table.vectors(&ids)?))
    };
    let Some(train) = of(&ready.rows.train)? else { return Ok(None) };
    let eval = match &ready.rows.eval {
        Some(rows) => match of(rows)? {
            Some(eval) => Some(eval),
            None => return Ok(None),
        },
        None => None,
    };
    console.tell(&format!(
        "probe: one vector a text of {name}, {} wide, kept in {}",
        train.width,
        tables.display()
    ))?;
    Ok(Some(Features { train: Some(train), eval }))
}

/// Whether all below the last layer comes from the checkpoint.
fn is_whole(folder: &Path, compute: &Compute) -> Result<bool> {
    let head = Head::Fresh { labels: vec!["none".into()], normal: &mut || 0.0 };
    let (_, report) = Classifier::open(folder, head, &compute.device)?;
    Ok(report.fresh.iter().all(|name| is_head(name)))
}
