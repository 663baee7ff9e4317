//! The rows of an update: those the deployed model was trained on, new ones, unlabelled ones, and held-out ones, with the
//! labels of all brought to the deployed model's.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result};
use lowchurn_data::alignment::refuse_unused;
use lowchurn_data::{
    Columns, Error as DataError, Example, LabelSet, Labels, NewClasses, Split, parse_map,
};
use lowchurn_hub::Hub;

use crate::args::Deployed;
use crate::console::Console;
use crate::data::{self, Wishes};
use crate::earlier::{self, Earlier, Record, source_of};
use crate::failure::Usage;
use crate::found::Found;
use crate::progress::count;
use crate::reader::{Part, Reader, unique};
use crate::seen;
use crate::settings::{self, Settings, Source};
use crate::slices::Slices;
use crate::steering::GROUP_BY;

/// Old rows first, then new, then unlabelled; ids are unique.
pub struct UpdateRows {
    pub train: Split,
    pub n_old: usize,
    pub n_new: usize,
    pub n_unlabelled: usize,
    /// Never trained on. May have unlabelled rows.
    pub holdout: Split,
    /// The first so many of them are like those that the deployed model was made for.
    pub n_old_holdout: usize,
    /// Held-out rows that were left out because their text is or was trained on.
    pub n_dropped: usize,
    /// Columns to slice the held-out rows by.
    pub holdout_columns: Vec<(String, Vec<String>)>,
    /// Values of the column that the objective groups by: of the rows to train on, and of the held-out ones.
    pub groups: Option<(Vec<String>, Vec<String>)>,
    /// What was done to the labels, for people and the report.
    pub alignment: Vec<String>,
    /// What isn't known of the deployed model's training, its rows and where they were cut; a certificate rests on it.
    pub unknown: Vec<String>,
    /// What the next update has to read again.
    pub record: Record,
    /// And what follows a teacher now, where the method has one.
    pub followed: Vec<Source>,
}

/// What becomes of held-out rows whose text is trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedTexts {
    /// Nothing may be certified by them: on rows that both models have learnt, too little changes.
    Dropped,
    /// A sweep certifies nothing, and its points stay comparable with those that are there.
    Kept,
}

impl UpdateRows {
    /// (N,) whether the deployed model was trained on the row.
    pub fn is_old(&self) -> Vec<bool> {
        (0..self.train.examples.len()).map(|row| row < self.n_old).collect()
    }
}

/// What `run.toml` says of the deployed model; nothing where it isn't one of ours.
pub fn settings_of(base: &Path) -> Result<Settings> {
    let path = base.join("run.toml");
    if path.is_file() { settings::read_plan(&path) } else { Ok(Settings::default()) }
}

/// Reads everything, aligns it with the deployed model's labels, and says what it found. `settings` are those of all
/// trainings, `before` the deployed model's own run.
///
/// Columns that they name are of the sources that are typed: what the model was trained on is read as its record says.
pub fn read(
    args: &Deployed,
    settings: &Settings,
    (model, before): (&Found, &Settings),
    shared: SharedTexts,
    hub: &Hub,
    console: &mut Console,
) -> Result<UpdateRows> {
    let mut reader = Reader {
        wishes: Wishes { kind: Some(model.outputs.kind), ..wishes(settings) },
        labels: model.labels.clone(),
        map: args.label_map.as_deref().map(parse_map).transpose()?.unwrap_or_default(),
        new_classes: match args.allow_new_classes {
            true => NewClasses::Allowed,
            false => NewClasses::Refused,
        },
        said: Vec::new(),
        seen: Vec::new(),
        hub,
    };
    let mut record = Record::of(before);
    if record == Record::default() && args.old.as_deref() == Some("none") {
        record.unrecorded.push(model.name.clone());
    }
    let mut unknown = Vec::new();
    record.unrecorded.iter().for_each(|name| seen::without_record(name, &mut unknown, console));
    let earlier = old_rows(args, &mut record, model, &mut reader, console)?;
    let (old, held_before): (Vec<Part>, Vec<Option<Part>>) =
        earlier.into_iter().map(|earlier| (earlier.seen, earlier.held_out)).unzip();
    let behind = earlier::read_seen(&mut record, model, &reader, console);
    let behind = seen::or_unknown(behind, model, &mut unknown, console).unwrap_or_default();
    let n_before = record.new.len();
    let mut new = Vec::new();
    for data in &args.new {
        let part = reader.read(data, None, "train", Labels::Required, console)?;
        record.new.push(source_of(&part, &reader.labels)?);
        new.push(part);
    }
    let (mut unlabelled, mut followed) = (Vec::new(), Vec::new());
    for data in &args.unlabelled {
        let part = reader.read(data, None, "train", Labels::Ignored, console)?;
        followed.push(source_of(&part, &reader.labels)?);
        unlabelled.push(part);
    }
    let cut_new = (&mut new[..], &mut record.new[n_before..]);
    let mut held = held_rows(args, settings, cut_new, &mut reader, console)?;
    let n_old_parts = usize::from(args.old_holdout.is_some());
    // A teacher of another origin may have use for an entry that no data has.
    if args.teacher.is_empty() {
        let seen: Vec<&[String]> = reader.seen.iter().map(Vec::as_slice).collect();
        refuse_unused(&reader.map, &seen)?;
    }
    let released = released(held_before, &held, &mut record, console);
    let new: Vec<Part> = released.into_iter().chain(new).collect();
    let labels = LabelSet::of_outputs(reader.labels.clone())?;
    let rows_of = |parts: &[Part]| parts.iter().map(|part| part.examples.len()).sum::<usize>();
    let (n_old, n_new) = (rows_of(&old), rows_of(&new));
    say_twice(&old, &new, &args.base, console);
    let names: Vec<&str> = old.iter().chain(&new).map(|part| part.name.as_str()).collect();
    let name = names.join(" + ");
    let parts: Vec<Part> = old.into_iter().chain(new).chain(unlabelled).collect();
    let labelled = parts.iter().flat_map(|part| &part.examples).filter(|row| row.label.is_some());
    if labelled.count() == 0 {
        return Err(Usage(format!("{name}: no row has a label; updates learn from labels")).into());
    }
    let group_by: Vec<String> =
        settings::objective(settings)?.group_by().map(str::to_string).into_iter().collect();
    let of_train = columns(&parts, &group_by, GROUP_BY, hub, console)?;
    let examples = unique(parts);
    let n_unlabelled = examples.len() - n_old - n_new;
    let train = Split::new(&name, examples, labels.clone());
    let n_dropped = leave_out_shared(&mut held, &train, &behind, shared, console)?;
    let n_old_holdout = rows_of(&held[..n_old_parts]);
    // Whoever trains for groups wants to see them.
    let mut slices = args.slice.clone();
    slices.extend(group_by.iter().filter(|column| !args.slice.contains(column)).cloned());
    let holdout_columns = columns(&held, &slices, "slice", hub, console)?;
    let of_held = columns(&held, &group_by, GROUP_BY, hub, console)?;
    let values = |all: Vec<(String, Vec<String>)>| all.into_iter().next().map(|(_, all)| all);
    let groups = values(of_train).zip(values(of_held));
    let held_name: Vec<String> = held.iter().map(|part| part.name.clone()).collect();
    let holdout = Split::new(&held_name.join(" + "), unique(held), labels);
    Ok(UpdateRows {
        train,
        n_old,
        n_new,
        n_unlabelled,
        holdout,
        n_old_holdout,
        n_dropped,
        holdout_columns,
        groups,
        alignment: reader.said,
        unknown,
        record,
        followed,
    })
}

/// What the deployed model was trained on, as it was named or by its own record; what isn't trained on again stays in `record`.
fn old_rows(
    args: &Deployed,
    record: &mut Record,
    model: &Found,
    reader: &mut Reader,
    console: &mut Console,
) -> Result<Vec<Earlier>> {
    let Some(data) = args.old.as_deref() else {
        if record.is_empty() {
            return Err(earlier::unnamed(&args.base));
        }
        return earlier::read(record, model, reader, console).context(
            "the rows that the base was trained on; --old DATA names others, --old none leaves them out",
        );
    };
    *record = std::mem::take(record).left_behind();
    if data == "none" {
        return Ok(Vec::new());
    }
    let seen = reader.read(data, None, "train", Labels::Required, console)?;
    record.data = Some(source_of(&seen, &reader.labels)?);
    Ok(vec![Earlier { seen, held_out: None }])
}

/// Those like the old rows first, where they are named; the others as named, or cut off the new rows.
fn held_rows(
    args: &Deployed,
    settings: &Settings,
    (new, sources): (&mut [Part], &mut [Source]),
    reader: &mut Reader,
    console: &mut Console,
) -> Result<Vec<Part>> {
    // A label column that was named for new rows may be absent here.
    let as_there = Labels::IfColumnPresent;
    let mut held = Vec::new();
    for data in args.old_holdout.iter().chain(&args.holdout) {
        held.push(reader.read(data, None, "validation", as_there, console)?);
    }
    if args.holdout.is_none() {
        held.extend(cut(new, sources, &reader.labels, args.holdout_fraction)?);
    }
    if let Some(column) = &settings.label_column {
        let is_unlabelled = |part: &&Part| part.examples.iter().all(|row| row.label.is_none());
        for part in held.iter().filter(is_unlabelled) {
            console.say(&format!("{}: no label in column {column:?}; measured without", part.name));
        }
    }
    Ok(held)
}

/// What an earlier update held out the model hasn't seen. It is trained on now, as new rows, unless it is to measure again.
fn released(
    held_before: Vec<Option<Part>>,
    held: &[Part],
    record: &mut Record,
    console: &mut Console,
) -> Vec<Part> {
    let n_first = usize::from(record.data.is_some());
    let measured: HashSet<Text> = held.iter().flat_map(|part| &part.examples).map(text).collect();
    let mut released = Vec::new();
    for (at, part) in held_before.into_iter().enumerate() {
        let Some(part) = part else { continue };
        if !part.examples.iter().any(|row| measured.contains(&text(row))) {
            let n = count(part.examples.len() as u64);
            console.say(&format!("{}: {n} rows, held out then, are new rows now", part.name));
            record.new[at - n_first].held_out_fraction = None;
            released.push(part);
        }
    }
    released
}

/// In brackets; nothing where all have one, or none.
pub fn without_label(rows: &[Example]) -> String {
    match rows.iter().filter(|row| row.label.is_none() && row.target.is_none()).count() {
        n if n == 0 || n == rows.len() => String::new(),
        n => format!(" ({} without a label)", count(n as u64)),
    }
}

fn say_twice(old: &[Part], new: &[Part], base: &str, console: &mut Console) {
    let all_old = old.iter().flat_map(|part| &part.examples);
    let known: HashMap<Text, Option<u32>> = all_old.map(|row| (text(row), row.label)).collect();
    let all = || new.iter().flat_map(|part| &part.examples);
    let twice = || all().filter_map(|row| Some((row.label?, *known.get(&text(row))?)));
    let n = all().filter(|row| known.contains_key(&text(row))).count();
    let n_other = twice().filter(|(now, then)| then.is_some_and(|then| then != *now)).count();
    if n > 0 {
        let other = match n_other {
            0 => String::new(),
            n => format!(
                ", {} of them with another label than then, and both are learnt: take the old rows out where the new label is right",
                count(n as u64)
            ),
        };
        console.say(&format!(
            "{} of {} new rows have a text that {base} was trained on; they count twice now{other}",
            count(n as u64),
            count(all().count() as u64),
        ));
    }
}

/// Values of rows in these columns of what they were read from.
fn columns(
    parts: &[Part],
    wanted: &[String],
    role: &'static str,
    hub: &Hub,
    console: &mut Console,
) -> Result<Vec<(String, Vec<String>)>> {
    let mut all: Vec<(String, Vec<String>)> =
        wanted.iter().map(|column| (column.clone(), Vec::new())).collect();
    for part in parts.iter().filter(|_| !wanted.is_empty()) {
        let data = data::open(&part.source, hub, console)?;
        let values = data.read_columns(&part.split, wanted, role, hub, console)?;
        let values = wanted.iter().cloned().zip(values).collect();
        let slices = Slices::new(part.ids.iter().map(String::as_str), values);
        let ids: Vec<String> = part.examples.iter().map(|row| row.id.clone()).collect();
        for ((_, all), (_, found)) in all.iter_mut().zip(slices.of(&ids)) {
            all.extend(found);
        }
    }
    Ok(all)
}

pub fn wishes(settings: &Settings) -> Wishes {
    let s = settings.clone();
    let columns = Columns {
        text: s.text_column,
        pair: s.pair_column,
        label: s.label_column,
        id: s.id_column,
    };
    Wishes { columns, kind: None }
}

/// Held-out rows from each of the new sources, by class; they leave training, and `sources` say so. A source that is too
/// small to be cut stays whole, unless all are.
fn cut(
    new: &mut [Part],
    sources: &mut [Source],
    labels: &[String],
    fraction: f64,
) -> Result<Vec<Part>> {
    let mut all = Vec::new();
    let mut too_small = None;
    for (part, source) in new.iter_mut().zip(sources) {
        match part.clone().cut(labels, fraction) {
            Ok((kept, held)) => {
                *part = kept;
                source.held_out_fraction = Some(fraction);
                all.push(held);
            }
            Err(error @ DataError::CutTooSmall { .. }) => too_small = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    match (all.is_empty(), too_small) {
        (false, _) => Ok(all),
        (true, Some(error)) => Err(error.into()),
        (true, None) => {
            let hint = "no rows to hold out; give new rows with --new, or --holdout DATA";
            Err(Usage(hint.into()).into())
        }
    }
}

pub type Text<'r> = (&'r str, &'r str);

/// As a cut tells texts apart.
pub fn text(row: &Example) -> Text<'_> {
    (row.text.trim(), row.pair.as_deref().unwrap_or("").trim())
}

/// The number of held-out rows that were left out.
fn leave_out_shared(
    held: &mut [Part],
    train: &Split,
    behind: &[Part],
    shared: SharedTexts,
    console: &mut Console,
) -> Result<usize> {
    let before = behind.iter().flat_map(|part| &part.examples);
    let trained: HashSet<Text> = train.examples.iter().chain(before).map(text).collect();
    let rows = |held: &[Part]| held.iter().map(|part| part.examples.len()).sum::<usize>();
    let of = rows(held);
    let is_shared = |row: &&Example| trained.contains(&text(row));
    let n: usize = held.iter().map(|part| part.examples.iter().filter(is_shared).count()).sum();
    if n == 0 {
        return Ok(0);
    }
    let what = if behind.is_empty() { "is trained on too" } else { "is or was trained on" };
    let said = format!("{n} of {of} held-out rows have a text that {what}");
    if shared == SharedTexts::Kept {
        console.say(&format!("{said}; churn there is too low"));
        return Ok(0);
    }
    if n == of {
        return Err(Usage(format!(
            "{said}, so nothing can be measured on them; give others with --holdout, or take them out of {}",
            train.name
        ))
        .into());
    }
    console.say(&format!("{said}; they are left out"));
    for part in held {
        part.examples.retain(|row| !trained.contains(&text(row)));
    }
    Ok(n)
}
