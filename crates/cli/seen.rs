//! Rows that a model was trained on or chosen by. The other one agrees with it there more than elsewhere, or less, so they certify
//! nothing.

use std::collections::HashSet;

use anyhow::Result;
use lowchurn_churn::Pair;
use lowchurn_data::{Columns, Example, Split};
use lowchurn_hub::Hub;

use crate::args::Compare;
use crate::chosen;
use crate::console::Console;
use crate::data::Wishes;
use crate::earlier::Record;
use crate::facts::Facts;
use crate::failure::Usage;
use crate::found::Found;
use crate::progress::count;
use crate::rows::{Text, text};
use crate::sides::Source;
use crate::{earlier, nearest};

/// The texts of the rows that a model was trained on.
pub fn texts(train: &Split) -> HashSet<Text<'_>> {
    train.examples.iter().map(text).collect()
}

/// What the model's own record says it was trained on. Nobody asked for these rows, and what they were may be gone: then that is
/// said, and kept in `notes` for the report.
pub fn train_of(
    model: &Found,
    hub: &Hub,
    notes: &mut Vec<String>,
    console: &mut Console,
) -> Option<Split> {
    let Some(trained) =
        or_unknown(earlier::trained_on(model, hub, console), model, notes, console)?
    else {
        without_record(&model.name, notes, console);
        return None;
    };
    let of_before = or_unknown(Record::read(&model.folder), model, notes, console)?.unrecorded;
    of_before.iter().for_each(|name| without_record(name, notes, console));
    let is_some = !trained.rows.examples.is_empty() || trained.unread.is_empty();
    for error in trained.unread {
        or_unknown::<()>(Err(error), model, notes, console);
    }
    is_some.then_some(trained.rows)
}

/// Says and notes, once, that nothing tells the rows that a model was trained on.
pub fn without_record(model: &str, notes: &mut Vec<String>, console: &mut Console) {
    let said = format!(
        "{model} has no record of the rows that it was trained on, so whether these are among them isn't known"
    );
    if !notes.contains(&said) {
        console.say(&said);
        notes.push(said);
    }
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
            "{}: rows that it was trained on can't be read, so whether these are among them isn't known",
            model.name
        );
        console.say(&format!("{said}: {error:#}"));
        if !notes.contains(&said) {
            notes.push(said);
        }
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
    /// Rows that took no part in making either side; where there are none, all of them.
    pub pair: Pair,
    /// The new side's, where they are known.
    pub train: Option<Split>,
    /// What the rows of the pair chose, where all of them took part.
    pub rows_chose: Option<String>,
    /// What a verdict on these rows rests on: records that can't be read, texts that come more than once.
    pub notes: Vec<String>,
}

/// Takes the rows out that a side was trained on or chosen by, as far as it is known.
pub fn leave_out(
    whole: &mut Pair,
    (old, new): (&Source, &Source),
    args: &Compare,
    facts: &Facts,
    hub: &Hub,
    console: &mut Console,
) -> Result<Unseen> {
    let (mut notes, examples) = (Vec::new(), facts.examples_of(whole));
    if args.train.is_some() && examples.is_none() {
        let said = "--train leaves out rows by their text, and these have none; name them with --data, or the column of a prediction \
                    file with --text-column";
        return Err(Usage(said.into()).into());
    }
    let train = training_rows(args, new, hub, &mut notes, console)?;
    // What the new one's record names counts where it was read.
    let is_read = args.train.is_none() && train.is_some();
    let others: Vec<&Found> = new.model().into_iter().filter(|_| is_read).collect();
    // Two forms of one model have one record.
    let other_old = old.model().filter(|_| old.sha256() != new.sha256());
    let train_of_old =
        other_old.and_then(|old| train_of_old(old, &others, hub, &mut notes, console));
    whole.alignment.extend(notes.clone());
    let mut known = Vec::new();
    let examples = examples.unwrap_or_default();
    known.extend(trained(&examples, train.as_ref(), &args.new));
    known.extend(trained(&examples, train_of_old.as_ref(), &args.old));
    // Two forms of one model were chosen together.
    if let Some(model) = new.model().filter(|_| old.sha256() != new.sha256()) {
        known.extend(chosen_by(&examples, model)?);
    }
    let (pair, rows_chose) = among(whole, known, console);
    notes.extend(chosen::said_of_repeats(facts.examples_of(&pair).iter().flatten()));
    Ok(Unseen { pair, train, rows_chose, notes })
}

/// The rows of the newest two of several releases that took no part in making any of them, and what they chose where there are no
/// others.
pub fn of_releases(
    releases: &[Source],
    whole: &mut Pair,
    facts: &Facts,
    hub: &Hub,
    console: &mut Console,
) -> Result<(Pair, Option<String>)> {
    let examples = facts.examples_of(whole).unwrap_or_default();
    let (mut known, mut read, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    for model in releases.iter().rev().filter_map(Source::model) {
        let train = train_of_old(model, &read, hub, &mut notes, console);
        known.extend(trained(&examples, train.as_ref(), &model.name));
        known.extend(chosen_by(&examples, model)?);
        read.extend(train.is_some().then_some(model));
    }
    whole.alignment.extend(notes);
    Ok(among(whole, known, console))
}

/// The rows that the new side was trained on: named, or where it is a model by its own record.
fn training_rows(
    args: &Compare,
    new: &Source,
    hub: &Hub,
    notes: &mut Vec<String>,
    console: &mut Console,
) -> Result<Option<Split>> {
    let Some(text) = &args.train else {
        return Ok(new.model().and_then(|found| train_of(found, hub, notes, console)));
    };
    let scoring = &args.scoring;
    let columns = Columns {
        text: scoring.text_column.clone(),
        pair: scoring.pair_column.clone(),
        label: scoring.label_column.clone(),
        id: None,
    };
    let wishes = Wishes { columns, kind: new.model().map(|found| found.outputs.kind) };
    Ok(Some(nearest::read(text, &wishes, hub, console)?))
}

/// Likewise of the old side, where no record of `new`, all of which were read, names the same rows.
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

/// Rows of a pair that took part in making a side.
struct Known {
    /// (N,)
    is_known: Vec<bool>,
    /// For people.
    said: String,
    /// What they chose.
    what: String,
}

fn trained(rows: &[Example], train: Option<&Split>, model: &str) -> Option<Known> {
    let texts = texts(train?);
    let is_known: Vec<bool> = rows.iter().map(|row| texts.contains(&text(row))).collect();
    let n = is_known.iter().filter(|is| **is).count();
    let said = said(n, rows.len(), model);
    let what = format!("the weights of {model}, which was trained on them");
    (n > 0).then_some(Known { is_known, said, what })
}

/// Rows by which the new side's checkpoint, its share of old weights or its like was chosen.
fn chosen_by(rows: &[Example], new: &Found) -> Result<Option<Known>> {
    let Some(chosen) = chosen::read(&new.folder)? else { return Ok(None) };
    let is_known: Vec<bool> =
        chosen::keys(rows).iter().map(|key| chosen.rows.contains(key)).collect();
    let n = is_known.iter().filter(|is| **is).count();
    let what = format!("{} of {}", chosen.what, new.name);
    let said = format!("{} of {} rows chose {what}", count(n as u64), count(rows.len() as u64));
    Ok((n > 0).then_some(Known { is_known, said, what }))
}

/// The rows that took no part. Where there are none all are compared, and what they chose is said.
fn among(whole: &Pair, known: Vec<Known>, console: &mut Console) -> (Pair, Option<String>) {
    if known.is_empty() {
        return (whole.clone(), None);
    }
    let is_known = |row: &u32| known.iter().any(|known| known.is_known[*row as usize]);
    let others: Vec<u32> = (0..whole.rows() as u32).filter(|row| !is_known(row)).collect();
    if others.is_empty() {
        for one in &known {
            console.say(&format!("{}, so they can fail it and certify nothing", one.said));
        }
        let what: Vec<String> = known.into_iter().map(|one| one.what).collect();
        return (whole.clone(), Some(what.join(", and ")));
    }
    let mut pair = whole.subset(&others);
    for one in known {
        console.say(&format!("{}; they are left out", one.said));
        pair.alignment.push(format!("{}; they were left out", one.said));
    }
    (pair, None)
}
