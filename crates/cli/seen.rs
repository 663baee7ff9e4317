//! Rows that a model was trained on. The other one agrees with it there more than elsewhere, or less, so they certify nothing.

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
    or_unknown(earlier::trained_on(model, hub, console), model, notes, console).flatten()
}

/// `None` where reading failed, which is said and noted.
pub fn or_unknown<T>(
    read: Result<T>,
    model: &Found,
    notes: &mut Vec<String>,
    console: &mut Console,
) -> Option<T> {
    let tell = |error| {
        let said = format!(
            "{}: the rows that it was trained on can't be read, so whether these are among them isn't known",
            model.name
        );
        console.say(&format!("{said}: {error:#}"));
        notes.push(said);
    };
    read.map_err(tell).ok()
}

/// As it is said of rows that a model was trained on.
pub fn said(n: usize, of: usize, model: &str) -> String {
    let (n, of) = (count(n as u64), count(of as u64));
    format!("{n} of {of} rows have a text that {model} was trained on")
}

/// What is compared of the rows of a pair.
pub struct Unseen {
    /// Rows that neither side was trained on; where there are none, all of them.
    pub pair: Pair,
    /// The new side's, where they are known.
    pub train: Option<Split>,
    /// What the rows of the pair chose, where they are trained on.
    pub rows_chose: Option<String>,
    /// Of records that can't be read.
    pub notes: Vec<String>,
}

/// Takes the rows out that a side was trained on, as far as it is known.
pub fn leave_out(
    whole: &mut Pair,
    (old, new): (&Source, &Source),
    args: &Compare,
    facts: &Facts,
    hub: &Hub,
    console: &mut Console,
) -> Result<Unseen> {
    let mut notes = Vec::new();
    let train = training_rows(args, new, hub, &mut notes, console)?;
    let others: Vec<&Found> = new.model().into_iter().collect();
    let train_of_old =
        old.model().and_then(|old| train_of_old(old, &others, hub, &mut notes, console));
    whole.alignment.extend(notes.clone());
    let sides = [(args.new.as_str(), train.as_ref()), (&args.old, train_of_old.as_ref())];
    let (pair, rows_chose) = among(whole, &sides, facts, console);
    Ok(Unseen { pair, train, rows_chose, notes })
}

/// The rows that the new side was trained on: named, or where it is a model by its own record.
fn training_rows(
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

/// Likewise of the old side, where the new one's record doesn't name the same rows.
pub fn train_of_old(
    old: &Found,
    new: &[&Found],
    hub: &Hub,
    notes: &mut Vec<String>,
    console: &mut Console,
) -> Option<Split> {
    let is_named = |new: &&Found| earlier::names_all_of(&new.folder, &old.folder).unwrap_or(false);
    if new.iter().any(is_named) { None } else { train_of(old, hub, notes, console) }
}

/// The rows that neither side was trained on. Where there are none they are compared, and whose weights they chose is said.
fn among(
    whole: &Pair,
    sides: &[(&str, Option<&Split>)],
    facts: &Facts,
    console: &mut Console,
) -> (Pair, Option<String>) {
    let mut is_seen = vec![false; whole.rows()];
    let (mut lines, mut names) = (Vec::new(), Vec::new());
    for (name, train) in sides {
        let texts = train.map(texts).unwrap_or_default();
        let mut n = 0;
        for (is_seen, id) in is_seen.iter_mut().zip(&whole.ids) {
            let is_of_it = facts.example(id).is_some_and(|row| texts.contains(&rows::text(&row)));
            *is_seen |= is_of_it;
            n += usize::from(is_of_it);
        }
        if n > 0 {
            lines.push(said(n, whole.rows(), name));
            names.push(*name);
        }
    }
    if names.is_empty() {
        return (whole.clone(), None);
    }
    let others: Vec<u32> =
        (0..).zip(&is_seen).filter(|(_, is)| !**is).map(|(row, _)| row).collect();
    if others.is_empty() {
        for line in lines {
            console.say(&format!("{line}, so they can fail it and certify nothing"));
        }
        let was = if names.len() == 1 { "was" } else { "were" };
        let what = format!("the weights of {}, which {was} trained on them", names.join(" and "));
        return (whole.clone(), Some(what));
    }
    let mut pair = whole.subset(&others);
    for line in lines {
        console.say(&format!("{line}; they are left out"));
        pair.alignment.push(format!("{line}; they were left out"));
    }
    (pair, None)
}
