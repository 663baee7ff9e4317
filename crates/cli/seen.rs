//! Rows that the new model was trained on: the deployed one agrees with it there more than elsewhere, so they certify nothing.

use std::collections::HashSet;

use anyhow::Result;
use lowchurn_churn::Pair;
use lowchurn_data::{Columns, Split};
use lowchurn_hub::Hub;

use crate::args::Compare;
use crate::console::Console;
use crate::data::Wishes;
use crate::facts::Facts;
use crate::found::Found;
use crate::progress::count;
use crate::sides::Source;
use crate::{earlier, nearest, rows};

/// The texts of the rows that a model was trained on.
pub fn texts(train: &Split) -> HashSet<rows::Text<'_>> {
    train.examples.iter().map(rows::text).collect()
}

/// What the model's own record says it was trained on. Nobody asked for these rows, and what they were may be gone: then that is
/// said, and kept in `notes` for the report.
pub fn train_of(
    model: &Found,
    hub: &Hub,
    notes: &mut Vec<String>,
    console: &mut Console,
) -> Option<Split> {
    earlier::trained_on(model, hub, console).unwrap_or_else(|error| {
        let said = format!(
            "{}: the rows that it was trained on can't be read, so whether these are among them isn't known",
            model.name
        );
        console.say(&format!("{said}: {error:#}"));
        notes.push(said);
        None
    })
}

/// As it is said of rows that a model was trained on.
pub fn said(n: usize, of: usize, model: &str) -> String {
    let (n, of) = (count(n as u64), count(of as u64));
    format!("{n} of {of} rows have a text that {model} was trained on")
}

/// The rows that the new side was trained on: named, or where it is a model by its own record.
pub fn training_rows(
    args: &Compare,
    new: &Source,
    hub: &Hub,
    notes: &mut Vec<String>,
    console: &mut Console,
) -> Result<Option<Split>> {
    let Some(found) = new.model() else { return Ok(None) };
    let Some(text) = &args.train else { return Ok(train_of(found, hub, notes, console)) };
    let scoring = &args.scoring;
    let columns = Columns {
        text: scoring.text_column.clone(),
        pair: scoring.pair_column.clone(),
        label: scoring.label_column.clone(),
        id: None,
    };
    let wishes = Wishes { columns, kind: Some(found.outputs.kind) };
    Ok(Some(nearest::read(text, &wishes, hub, console)?))
}

/// The rows that the new model wasn't trained on. Where it was trained on all of them they are compared, and what chose is said.
pub fn leave_out(
    whole: &Pair,
    train: Option<&Split>,
    facts: &Facts,
    args: &Compare,
    console: &mut Console,
) -> (Pair, Option<String>) {
    let texts = train.map(texts).unwrap_or_default();
    let is_seen = |row: &u32| {
        let row = facts.example(&whole.ids[*row as usize]);
        row.is_some_and(|row| texts.contains(&rows::text(&row)))
    };
    let others: Vec<u32> = (0..whole.rows() as u32).filter(|row| !is_seen(row)).collect();
    let n = whole.rows() - others.len();
    if n == 0 {
        return (whole.clone(), None);
    }
    let said = said(n, whole.rows(), &args.new);
    if others.is_empty() {
        console.say(&format!("{said}, so they can fail it and certify nothing"));
        return (
            whole.clone(),
            Some(format!("the weights of {}, which was trained on them", args.new)),
        );
    }
    console.say(&format!("{said}; they are left out"));
    let mut pair = whole.subset(&others);
    pair.alignment.push(format!("{said}; they were left out"));
    (pair, None)
}
