//! The Fisher information of a deployed model: read from its file, or taken row by row. Its file is named by the weights and
//! the rows, so that no other is ever opened; one that is damaged is an error, not a reason to work for minutes again.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use candle_core::{Device, Tensor};
use lowchurn_data::Example;
use lowchurn_distill::{Event, Fingerprint, fisher, load_fisher, save_fisher, table_file_name};
use lowchurn_models::Classifier;

use crate::console::Console;
use crate::found::{Found, tokens_of};
use crate::progress::{Status, count};
use crate::signals;

/// By parameter name.
pub type Information = BTreeMap<String, Tensor>;

/// Of `n_rows` of the examples, from its file in `tables` where it is there. `None` where it was interrupted.
pub fn read_or_take(
    old: &Found,
    model: &Classifier,
    examples: &[Example],
    n_rows: usize,
    tables: &Path,
    device: &Device,
    console: &mut Console,
) -> Result<Option<Information>> {
    let fingerprint = Fingerprint {
        precision: model.precision,
        ..Fingerprint::of(&old.name, &old.folder, &old.labels, old.max_length, examples)?
    };
    let rows = format!("{n_rows} of {}", table_file_name(&fingerprint));
    let hash = table_file_name(&fingerprint).replace("teacher-", "");
    let path = tables.join(format!("fisher-{n_rows}-{hash}"));
    if path.exists() {
        return Ok(Some(load_fisher(&path, &model.params, &rows)?));
    }
    let Some(found) = take(old, model, examples, n_rows, device, console)? else { return Ok(None) };
    std::fs::create_dir_all(tables)?;
    save_fisher(&path, &found, &model.params, &rows)?;
    Ok(Some(found))
}

/// A forward and a backward pass a row. `None` where it was interrupted.
pub fn take(
    old: &Found,
    model: &Classifier,
    examples: &[Example],
    n_rows: usize,
    device: &Device,
    console: &mut Console,
) -> Result<Option<Information>> {
    let tokens = tokens_of(old, &model.config, examples)?;
    let n = n_rows.min(examples.len());
    console.say(&format!("Fisher information of {} rows, one at a time", count(n as u64)));
    signals::work_begins();
    let start = Instant::now();
    let mut status = Status::new();
    status.evaluating = "Fisher information";
    let found = fisher(model, &tokens, n_rows, 0, device, &signals::STOP, &mut |done| {
        let event = Event::Evaluating { done, rows: n };
        status.show(&event, start.elapsed(), &console.terminal, &mut console.err);
    });
    status.end(&mut console.err);
    let found = found?;
    if found.is_none() {
        let command = signals::command_that_goes_on();
        console.say(&format!("stopped; the Fisher information begins anew with: {command}"));
    }
    Ok(found)
}
