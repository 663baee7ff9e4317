//! The rows of an update: those the deployed model was trained on, new ones, unlabelled ones, and held-out ones, with the
//! labels of all brought to the deployed model's.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use lowchurn_data::alignment::{entries_for, refuse_unused};
use lowchurn_data::{
    Alignment, Columns, Error as DataError, Example, LabelSet, Labels, NewClasses, Split,
    align_update, parse_map, stratified_cut,
};
use lowchurn_hub::Hub;

use crate::args::Deployed;
use crate::console::Console;
use crate::data::{self, CUT_SEED, Wishes};
use crate::failure::Usage;
use crate::settings::{self, Settings};
use crate::slices::Slices;

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
    /// Columns to slice the held-out rows by.
    pub holdout_columns: Vec<(String, Vec<String>)>,
    /// What was done to the labels, for people and the report.
    pub alignment: Vec<String>,
    /// What the next update has to read again.
    pub record: Record,
}

#[derive(Clone, Debug, Default)]
pub struct Record {
    pub data: Option<String>,
    pub train_split: Option<String>,
    /// Of the first run's rows, held out by the same cut every time.
    pub eval_fraction: Option<f64>,
    pub new: Vec<String>,
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

/// Reads everything, aligns it with `old_labels`, and says what it found.
pub fn read(
    args: &Deployed,
    before: &Settings,
    old_labels: &[String],
    hub: &Hub,
    console: &mut Console,
) -> Result<UpdateRows> {
    let map = args.label_map.as_deref().map(parse_map).transpose()?.unwrap_or_default();
    let new_classes =
        if args.allow_new_classes { NewClasses::Allowed } else { NewClasses::Refused };
    let mut reader = Reader {
        wishes: wishes(before, &args.settings),
        labels: old_labels.to_vec(),
        map,
        new_classes,
        said: Vec::new(),
        seen: Vec::new(),
        hub,
    };
    let record = record(args, before)?;
    let mut old = Vec::new();
    if let Some(data) = &record.data {
        let rows =
            reader.read(data, record.train_split.as_deref(), "train", Labels::Required, console);
        let mut rows = rows.context(
            "the rows that the base was trained on; --old names others, --old none leaves them out",
        )?;
        // What was cut off for its evaluation it hasn't seen.
        if let Some(fraction) = record.eval_fraction {
            let examples = std::mem::take(&mut rows.examples);
            let labels = LabelSet::new(reader.labels.clone())?;
            let (seen, _) =
                stratified_cut(&Split::new(&rows.name, examples, labels), fraction, CUT_SEED)?;
            rows.examples = seen.examples;
            rows.name = format!("{} without its {:.0} % cut", rows.name, 100.0 * fraction);
        }
        old.push(rows);
    }
    let n_before = record.new.len() - args.new.len();
    let mut new = Vec::new();
    for (at, data) in record.new.iter().enumerate() {
        let rows = reader.read(data, None, "train", Labels::Required, console)?;
        if at < n_before { old.push(rows) } else { new.push(rows) }
    }
    let mut unlabelled = Vec::new();
    for data in &args.unlabelled {
        unlabelled.push(reader.read(data, None, "train", Labels::Ignored, console)?);
    }
    let holdout = match &args.holdout {
        Some(data) => reader.read(data, None, "validation", Labels::IfPresent, console)?,
        None => cut(&mut new, &reader, args.holdout_fraction)?,
    };
    // A teacher of another origin may have use for an entry that no data has.
    if args.teacher.is_empty() {
        let seen: Vec<&[String]> = reader.seen.iter().map(Vec::as_slice).collect();
        refuse_unused(&reader.map, &seen)?;
    }
    let mut held = Vec::new();
    if let Some(data) = &args.old_holdout {
        held.push(reader.read(data, None, "validation", Labels::IfPresent, console)?);
    }
    let n_old_holdout = held.first().map_or(0, |part: &Part| part.examples.len());
    held.push(holdout);
    let labels = LabelSet::new(reader.labels.clone())?;
    let count = |parts: &[Part]| parts.iter().map(|part| part.examples.len()).sum::<usize>();
    let (n_old, n_new) = (count(&old), count(&new));
    let names: Vec<&str> = old.iter().chain(&new).map(|part| part.name.as_str()).collect();
    let name = names.join(" + ");
    let parts: Vec<Part> = old.into_iter().chain(new).chain(unlabelled).collect();
    let labelled = parts.iter().flat_map(|part| &part.examples).filter(|row| row.label.is_some());
    if labelled.count() == 0 {
        return Err(Usage(format!("{name}: no row has a label; updates learn from labels")).into());
    }
    let examples = unique(parts);
    let n_unlabelled = examples.len() - n_old - n_new;
    let train = Split::new(&name, examples, labels.clone());
    let holdout_columns = columns(&held, &args.slice, hub, console)?;
    let held_name: Vec<String> = held.iter().map(|part| part.name.clone()).collect();
    let holdout = Split::new(&held_name.join(" + "), unique(held), labels);
    let shared = shared_texts(&train, &holdout);
    if shared > 0 {
        console.say(&format!(
            "{shared} of {} held-out rows have a text that is trained on too; churn there is too low",
            holdout.examples.len()
        ));
    }
    Ok(UpdateRows {
        train,
        n_old,
        n_new,
        n_unlabelled,
        holdout,
        n_old_holdout,
        holdout_columns,
        alignment: reader.said,
        record,
    })
}

/// Rows of one source, their labels aligned already.
#[derive(Default)]
pub struct Part {
    pub name: String,
    pub examples: Vec<Example>,
    /// What they were read from, with the ids of all of its rows.
    pub source: String,
    pub split: String,
    pub ids: Vec<String>,
}

/// Reads sources one after the other, each aligned with the labels so far.
pub struct Reader<'r> {
    pub wishes: Wishes,
    /// Grows by new classes as they come.
    pub labels: Vec<String>,
    pub map: Vec<(String, String)>,
    pub new_classes: NewClasses,
    pub said: Vec<String>,
    /// Label names of every source that named them otherwise.
    pub seen: Vec<Vec<String>>,
    pub hub: &'r Hub,
}

impl Reader<'_> {
    pub fn read(
        &mut self,
        source: &str,
        split: Option<&str>,
        default: &str,
        labels: Labels,
        console: &mut Console,
    ) -> Result<Part> {
        let data = data::open(source, self.hub, console)?;
        let names = data.split_names();
        let first = match names.as_slice() {
            [only] => only.clone(),
            _ => default.to_string(),
        };
        let split = split.map(str::to_string).or(data.split.clone()).unwrap_or(first);
        let known = LabelSet::new(self.labels.clone())?;
        let mut read = |known: Option<&LabelSet>| {
            data.read(&split, &self.wishes, labels, known, self.hub, console)
        };
        // Rows that show the known classes are aligned by name; any others are looked at as they name themselves.
        let found = match if self.map.is_empty() { read(Some(&known)) } else { read(None) } {
            Ok(rows) if rows.labels == known => {
                return Ok(part(rows, source, split));
            }
            Ok(rows) => rows,
            // Rows of one class only don't make a label set of their own.
            Err(error) if is_of_labels(&error) => {
                let other = if self.map.is_empty() { read(None) } else { read(Some(&known)) };
                other.map_err(|own| if is_of_labels(&own) { error } else { own })?
            }
            Err(error) => return Err(error),
        };
        let names = found.labels.names();
        self.seen.push(names.to_vec());
        let aligned: Alignment =
            align_update(&self.labels, names, &entries_for(&self.map, names), self.new_classes)
                .with_context(|| found.name.clone())?;
        let mut found = part(found, source, split);
        for row in &mut found.examples {
            row.label = row.label.and_then(|label| aligned.of_data.get(label as usize).copied());
        }
        self.labels = aligned.labels;
        self.said.extend(aligned.said);
        Ok(found)
    }
}

fn part(rows: Split, source: &str, split: String) -> Part {
    let ids = rows.examples.iter().map(|row| row.id.clone()).collect();
    Part { name: rows.name, examples: rows.examples, source: source.into(), split, ids }
}

/// Values of the held-out rows in these columns of what they were read from.
fn columns(
    held: &[Part],
    wanted: &[String],
    hub: &Hub,
    console: &mut Console,
) -> Result<Vec<(String, Vec<String>)>> {
    let mut all: Vec<(String, Vec<String>)> =
        wanted.iter().map(|column| (column.clone(), Vec::new())).collect();
    for part in held.iter().filter(|_| !wanted.is_empty()) {
        let data = data::open(&part.source, hub, console)?;
        let values = data.read_columns(&part.split, wanted, hub, console)?;
        let values = wanted.iter().cloned().zip(values).collect();
        let slices = Slices::new(part.ids.iter().map(String::as_str), values);
        let ids: Vec<String> = part.examples.iter().map(|row| row.id.clone()).collect();
        for ((_, all), (_, found)) in all.iter_mut().zip(slices.of(&ids)) {
            all.extend(found);
        }
    }
    Ok(all)
}

fn is_of_labels(error: &anyhow::Error) -> bool {
    let found = error.chain().find_map(|cause| cause.downcast_ref::<DataError>());
    matches!(
        found,
        Some(
            DataError::UnknownLabel { .. }
                | DataError::LabelsDisagree { .. }
                | DataError::TooFewLabels { .. }
        )
    )
}

fn record(args: &Deployed, before: &Settings) -> Result<Record> {
    let mut record = match args.old.as_deref() {
        Some("none") => Record::default(),
        Some(data) => Record { data: Some(data.into()), ..Record::default() },
        None if before.data.is_some() || before.new.is_some() => Record {
            data: before.data.clone(),
            train_split: before.train_split.clone(),
            eval_fraction: before.eval_fraction.filter(|_| before.eval_split.is_none()),
            new: before.new.clone().unwrap_or_default(),
        },
        None => {
            return Err(Usage(format!(
                "{}: it doesn't say which rows it was trained on; name them with --old DATA, or --old none to \
                 train on the new ones alone",
                args.base
            ))
            .into());
        }
    };
    record.new.extend(args.new.iter().cloned());
    Ok(record)
}

/// The columns that the user names, else those of the base's own run.
fn wishes(before: &Settings, now: &Settings) -> Wishes {
    let pick = |now: &Option<String>, before: &Option<String>| now.clone().or(before.clone());
    Wishes {
        columns: Columns {
            text: pick(&now.text_column, &before.text_column),
            pair: pick(&now.pair_column, &before.pair_column),
            label: pick(&now.label_column, &before.label_column),
            id: pick(&now.id_column, &before.id_column),
        },
    }
}

/// Held-out rows from the new ones, by class; they leave training.
fn cut(new: &mut Vec<Part>, reader: &Reader, fraction: f64) -> Result<Part> {
    let Some(mut part) = new.pop() else {
        return Err(Usage(
            "no rows to hold out; give new rows with --new, or --holdout DATA".into(),
        )
        .into());
    };
    let examples = std::mem::take(&mut part.examples);
    let split = Split::new(&part.name, examples, LabelSet::new(reader.labels.clone())?);
    let (train, held) = stratified_cut(&split, fraction, CUT_SEED)?;
    let name = part.name.clone();
    let kept = format!("{name} without its held-out part");
    new.push(Part { name: kept, examples: train.examples, ..Part::default() });
    let name = format!("{:.0} % of {name}", 100.0 * fraction);
    Ok(Part { name, examples: held.examples, ..part })
}

/// All rows with ids that are unique: where two sources share one, those of the later source get its number before theirs.
pub fn unique(parts: Vec<Part>) -> Vec<Example> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let clashes = |seen: &HashMap<String, usize>, part: &Part| {
        part.examples.iter().any(|row| seen.contains_key(&row.id))
    };
    let mut all = Vec::new();
    for (at, mut part) in parts.into_iter().enumerate() {
        if clashes(&seen, &part) {
            part.examples.iter_mut().for_each(|row| row.id = format!("{}:{}", at + 1, row.id));
        }
        for row in part.examples {
            seen.insert(row.id.clone(), at);
            all.push(row);
        }
    }
    all
}

fn shared_texts(train: &Split, holdout: &Split) -> usize {
    let trained: std::collections::HashSet<(&str, Option<&str>)> =
        train.examples.iter().map(|row| (row.text.as_str(), row.pair.as_deref())).collect();
    let is_shared = |row: &&Example| trained.contains(&(row.text.as_str(), row.pair.as_deref()));
    holdout.examples.iter().filter(is_shared).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_two_sources_are_told_apart() {
        let part = |ids: &[&str]| Part {
            name: "x".into(),
            examples: ids
                .iter()
                .map(|id| Example { id: id.to_string(), text: "t".into(), pair: None, label: None })
                .collect(),
            ..Part::default()
        };
        let ids = |parts| unique(parts).into_iter().map(|row| row.id).collect::<Vec<_>>();
        assert_eq!(ids(vec![part(&["1", "2"]), part(&["3"])]), ["1", "2", "3"]);
        assert_eq!(ids(vec![part(&["1", "2"]), part(&["2", "3"])]), ["1", "2", "2:2", "2:3"]);
    }
}
