//! The rows that a model has seen, as its run's record names them, read again.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use anyhow::Result;
use lowchurn_data::{
    Columns, Example, LabelSet, Labels, NewClasses, Split, labelled, stratified_cut,
};
use lowchurn_distill::finished_provenance;
use lowchurn_hub::Hub;

use crate::console::Console;
use crate::data::{self, CUT_SEED, Wishes};
use crate::failure::Usage;
use crate::found::Found;
use crate::reader::{Part, Reader, unique};
use crate::rows::{settings_of, text};
use crate::settings::{Settings, Source};

/// What a run writes down of the rows that its model has seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// Of the first run, whose held-out rows are cut off in the data's own order of the classes.
    pub data: Option<Source>,
    /// Of the updates since, the earliest first.
    pub new: Vec<Source>,
    /// What the weights have learnt besides, and isn't read again to be trained on. Texts alone, since labels may be another model's.
    pub seen: Vec<Source>,
    /// Models whose rows it has learnt and that don't say which: no successor's record is whole.
    pub unrecorded: Vec<String>,
}

/// One source, read again.
pub struct Earlier {
    pub seen: Part,
    /// What an update held out of its new rows. The first run's are left out for good: its best checkpoint was chosen by them.
    pub held_out: Option<Part>,
}

impl Record {
    /// Of a model's folder; empty where it isn't one of ours.
    pub fn read(folder: &Path) -> Result<Record> {
        Ok(Record::of(&settings_of(folder)?))
    }

    pub fn of(run: &Settings) -> Record {
        let s = run.clone();
        let data = s.data.map(|data| Source {
            data,
            split: s.train_split,
            text_column: s.text_column,
            pair_column: s.pair_column,
            label_column: s.label_column,
            id_column: s.id_column,
            label_map: s.label_map,
            sha256: s.data_sha256,
            held_out_fraction: s.eval_fraction.filter(|_| s.eval_split.is_none()),
        });
        Record {
            data,
            new: s.new.unwrap_or_default(),
            seen: s.seen.unwrap_or_default(),
            unrecorded: s.unrecorded.unwrap_or_default(),
        }
    }

    /// A record for each source.
    fn one_by_one(self) -> Vec<Record> {
        let data = self.data.map(|data| Record { data: Some(data), ..Record::default() });
        let new = self.new.into_iter().map(|new| Record { new: vec![new], ..Record::default() });
        let seen =
            self.seen.into_iter().map(|seen| Record { seen: vec![seen], ..Record::default() });
        data.into_iter().chain(new).chain(seen).collect()
    }

    /// Whether there is nothing to train on again.
    pub fn is_empty(&self) -> bool {
        self.data.is_none() && self.new.is_empty()
    }

    /// Of a run that starts from these weights and trains on none of their rows.
    pub fn left_behind(self) -> Record {
        // Held-out rows chose a checkpoint or a model between, so they are seen too. The hash is of labels as well.
        let whole = |source| Source { held_out_fraction: None, sha256: None, ..source };
        let learnt = self.data.into_iter().chain(self.new).map(whole);
        let seen = self.seen.into_iter().chain(learnt).collect();
        Record { seen, unrecorded: self.unrecorded, ..Record::default() }
    }

    /// Puts what a run's weights had learnt before it into the run's settings.
    pub fn behind(self, settings: &mut Settings) {
        settings.seen = (!self.seen.is_empty()).then_some(self.seen);
        settings.unrecorded = (!self.unrecorded.is_empty()).then_some(self.unrecorded);
    }

    /// [`Record::of`] gives it back.
    pub fn onto(&self, settings: &Settings) -> Settings {
        let data = self.data.clone().unwrap_or_default();
        Settings {
            data: self.data.as_ref().map(|data| data.data.clone()),
            train_split: data.split,
            text_column: data.text_column,
            pair_column: data.pair_column,
            label_column: data.label_column,
            id_column: data.id_column,
            label_map: data.label_map,
            data_sha256: data.sha256,
            eval_split: data.held_out_fraction.is_none().then(|| "none".into()),
            eval_fraction: data.held_out_fraction,
            new: (!self.new.is_empty()).then(|| self.new.clone()),
            seen: (!self.seen.is_empty()).then(|| self.seen.clone()),
            unrecorded: (!self.unrecorded.is_empty()).then(|| self.unrecorded.clone()),
            ..settings.clone()
        }
    }
}

/// What it takes to read a part again.
pub fn source_of(part: &Part, labels: &[String]) -> Result<Source> {
    let columns = part.columns.clone();
    Ok(Source {
        data: part.source.clone(),
        // `tickets:later` names its split itself.
        split: None,
        text_column: columns.text,
        pair_column: columns.pair,
        label_column: columns.label,
        id_column: columns.id,
        label_map: (!part.map.is_empty()).then(|| part.map.clone()),
        sha256: Some(fingerprint(&part.examples, labels)?),
        held_out_fraction: None,
    })
}

/// What the weights of a folder have learnt: a run's, or those of a smaller model that was made of one.
pub fn learnt_by(folder: &Path) -> Result<Record> {
    Ok(Record::read(folder)?.left_behind())
}

/// Whether one model's record has all rows of the other's, which names some.
pub fn names_all_of(folder: &Path, other: &Path) -> Result<bool> {
    let read = |folder: &Path| -> Result<(Vec<Source>, Vec<String>)> {
        let Record { data, new, seen, unrecorded } = Record::read(folder)?;
        Ok((data.into_iter().chain(new).chain(seen).collect(), unrecorded))
    };
    let (named, unrecorded) = read(folder)?;
    let (others, others_unrecorded) = read(other)?;
    let is_named = |source: &Source| named.iter().any(|named| has_all_of(named, source));
    let is_said = |model: &String| unrecorded.contains(model);
    Ok(!others.is_empty() && others.iter().all(is_named) && others_unrecorded.iter().all(is_said))
}

/// Whose file is another one since, that is told where it is read.
fn has_all_of(source: &Source, other: &Source) -> bool {
    let plain =
        |source: &Source| Source { sha256: None, held_out_fraction: None, ..source.clone() };
    let cut = source.held_out_fraction;
    plain(source) == plain(other) && (cut.is_none() || cut == other.held_out_fraction)
}

/// The rows that a model was trained on, as far as they can still be read, and why others can't.
pub struct TrainedOn {
    pub rows: Split,
    pub unread: Vec<anyhow::Error>,
}

impl TrainedOn {
    /// All of them.
    ///
    /// Errors: the first that kept rows from being read.
    pub fn whole(self) -> Result<Split> {
        match self.unread.into_iter().next() {
            Some(error) => Err(error),
            None => Ok(self.rows),
        }
    }
}

/// The rows that a model was trained on, in the order in which the next update reads them; `None` where its folder doesn't say. Each
/// source is read by itself: what became of one says nothing of the others.
///
/// Errors: a record that can't be read.
pub fn trained_on(model: &Found, hub: &Hub, console: &mut Console) -> Result<Option<TrainedOn>> {
    let record = Record::read(&model.folder)?;
    if record == Record::default() {
        return Ok(None);
    }
    let mut reader = Reader {
        wishes: Wishes { kind: Some(model.outputs.kind), ..Wishes::default() },
        labels: model.labels.clone(),
        map: Vec::new(),
        new_classes: NewClasses::Refused,
        said: Vec::new(),
        seen: Vec::new(),
        hub,
    };
    let (mut parts, mut unread) = (Vec::new(), Vec::new());
    for mut source in record.one_by_one() {
        let read = read(&mut source, model, &mut reader, console).and_then(|labelled| {
            let labelled = labelled.into_iter().map(|earlier| earlier.seen);
            Ok(labelled.chain(read_seen(&mut source, model, &reader, console)?).collect::<Vec<_>>())
        });
        match read {
            Ok(read) => parts.extend(read),
            Err(error) => unread.push(error),
        }
    }
    // Rows that chose a checkpoint are among those that it was trained on by another name.
    let mut met = HashSet::new();
    for part in &mut parts {
        let is_first = |row: &Example| {
            let (text, pair) = text(row);
            let is_labelled = row.label.is_some() || row.target.is_some();
            met.insert((text.to_string(), pair.to_string())) || is_labelled
        };
        part.examples.retain(is_first);
    }
    let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
    let name = names.join(" + ");
    let labels = LabelSet::of_outputs(model.labels.clone())?;
    Ok(Some(TrainedOn { rows: Split::new(&name, unique(parts), labels), unread }))
}

/// Reads all of a record's sources, in their order, with `reader`'s labels; fills in hashes that the record lacks.
///
/// Errors: as reading; rows that are no longer those that `model` was trained on.
pub fn read(
    record: &mut Record,
    model: &Found,
    reader: &mut Reader,
    console: &mut Console,
) -> Result<Vec<Earlier>> {
    let mut all = Vec::new();
    if let Some(source) = &mut record.data {
        let (mut part, said) = read_source(source, Labels::Required, model, reader, console)?;
        reader.said.extend(said);
        if let Some(fraction) = source.held_out_fraction {
            let seen = own_cut(source, &part, fraction, reader, console)?;
            part.examples.retain(|row| seen.contains(&row.id));
            part.name = format!("{} without its {:.0} % cut", part.name, 100.0 * fraction);
        }
        if record.new.is_empty() {
            check_first_run(&part, model)?;
        }
        // A first run, which names its split, was trained on those with a label alone; what an update was given as old rows is whole.
        if source.split.is_some() {
            part.examples.retain(|row| row.label.is_some());
        }
        all.push(Earlier { seen: part, held_out: None });
    }
    for source in &mut record.new {
        let (part, said) = read_source(source, Labels::Required, model, reader, console)?;
        reader.said.extend(said);
        all.push(match source.held_out_fraction {
            None => Earlier { seen: part, held_out: None },
            Some(fraction) => {
                let (seen, held_out) = part.cut(&reader.labels, fraction)?;
                Earlier { seen, held_out: Some(held_out) }
            }
        });
    }
    Ok(all)
}

/// What `model` has learnt and no run reads again to train on.
///
/// Errors: those of [`read`].
pub fn read_seen(
    record: &mut Record,
    model: &Found,
    reader: &Reader,
    console: &mut Console,
) -> Result<Vec<Part>> {
    let mut read = |source| Ok(read_source(source, Labels::Ignored, model, reader, console)?.0);
    record.seen.iter_mut().map(&mut read).collect()
}

/// By the source's own columns and label names, whatever was typed for new rows.
///
/// With what was done to its labels.
fn read_source(
    source: &mut Source,
    labels: Labels,
    model: &Found,
    reader: &Reader,
    console: &mut Console,
) -> Result<(Part, Vec<String>)> {
    let mut own = Reader {
        wishes: Wishes { kind: reader.wishes.kind, ..wishes(source) },
        labels: reader.labels.clone(),
        map: source.label_map.clone().unwrap_or_default(),
        new_classes: NewClasses::Refused,
        said: Vec::new(),
        seen: Vec::new(),
        hub: reader.hub,
    };
    let split = source.split.as_deref();
    let part = own.read(&source.data, split, "train", labels, console)?;
    let found = fingerprint(&part.examples, &reader.labels)?;
    match &source.sha256 {
        Some(recorded) if *recorded != found => {
            return Err(changed(&part.name, model, recorded, &found));
        }
        _ => source.sha256 = Some(found),
    }
    Ok((part, own.said))
}

/// Ids of the rows that were not cut off. The cut goes by the data's own order of the classes; the model's may be another.
fn own_cut(
    source: &Source,
    part: &Part,
    fraction: f64,
    reader: &Reader,
    console: &mut Console,
) -> Result<HashSet<String>> {
    let data = data::open(&source.data, reader.hub, console)?;
    let wishes = Wishes { kind: reader.wishes.kind, ..wishes(source) };
    let own = data.read(&part.split, &wishes, Labels::Required, None, reader.hub, console)?;
    let (seen, _) = stratified_cut(&own, fraction, CUT_SEED)?;
    Ok(seen.examples.into_iter().map(|row| row.id).collect())
}

/// Against the manifest of a fine-tuning. One that followed a teacher may have seen unlabelled rows, of which it says nothing.
fn check_first_run(part: &Part, model: &Found) -> Result<()> {
    let Ok(manifest) = finished_provenance(&model.folder) else { return Ok(()) };
    let is_plain = manifest.old.is_none() && manifest.teacher.is_none();
    if !is_plain || manifest.labels != model.labels {
        return Ok(());
    }
    let labels = LabelSet::of_outputs(model.labels.clone())?;
    let found = labelled(Split::new("", part.examples.clone(), labels)).sha256;
    match found == manifest.train_sha256 {
        true => Ok(()),
        false => Err(changed(&part.name, model, &manifest.train_sha256, &found)),
    }
}

fn changed(rows: &str, model: &Found, recorded: &str, found: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "{rows}: not the rows that {} was trained on (sha256 {recorded} then, {found} now); put those back",
        model.name
    )
}

/// Of rows with their classes by name, whatever order the model has them in and how many more it got since.
pub fn fingerprint(rows: &[Example], labels: &[String]) -> Result<String> {
    let name = |label: u32| labels.get(label as usize).map(String::as_str);
    // Two more, since a label set has two names at least.
    let classes =
        rows.iter().filter_map(|row| row.classes().or(row.label.map(|label| vec![label])));
    let used: BTreeSet<&str> =
        classes.flatten().filter_map(name).chain(["(none)", "(no other)"]).collect();
    let used = LabelSet::new(used.into_iter().map(String::from).collect())?;
    let renamed = |row: &Example| {
        let mut row = row.clone();
        row.with_classes(|label| used.index_of(name(label)?));
        row
    };
    let rows = rows.iter().map(renamed).collect();
    Ok(Split::new("", rows, used.clone()).sha256)
}

/// The columns of a source.
pub fn wishes(source: &Source) -> Wishes {
    let s = source.clone();
    let columns = Columns {
        text: s.text_column,
        pair: s.pair_column,
        label: s.label_column,
        id: s.id_column,
    };
    Wishes { columns, kind: None }
}

/// A run's record was asked for, and says nothing.
pub fn unnamed(base: &str) -> anyhow::Error {
    Usage(format!(
        "{base}: it doesn't say which rows it was trained on; name them with --old DATA, or --old none to train on the \
         new ones alone"
    ))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowchurn_distill::SelectBy;

    use crate::settings;

    fn row(id: &str, label: Option<u32>) -> Example {
        Example { id: id.into(), text: "t".into(), pair: None, label, target: None }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_fingerprint_is_of_names() {
        let rows = [row("1", Some(0)), row("2", Some(1)), row("3", None)];
        let of = |labels: &[&str]| fingerprint(&rows, &names(labels)).unwrap();
        let swapped = [row("1", Some(1)), row("2", Some(0)), row("3", None)];
        assert_eq!(of(&["a", "b"]), fingerprint(&swapped, &names(&["b", "a"])).unwrap());
        assert_eq!(of(&["a", "b"]), of(&["a", "b", "new"]));
        assert_ne!(of(&["a", "b"]), of(&["b", "a"]));
        assert_ne!(of(&["a", "b"]), of(&["a", "c"]));
        // One class only, or none.
        assert_ne!(fingerprint(&rows[..1], &names(&["a", "b"])).unwrap(), of(&["a", "b"]));
        fingerprint(&rows[2..], &names(&["a", "b"])).unwrap();
    }

    #[test]
    fn what_was_cut_off_is_not_named() {
        let source = |held_out_fraction| Source {
            data: "a.csv".into(),
            held_out_fraction,
            ..Source::default()
        };
        let has = |a, b| has_all_of(&source(a), &source(b));
        assert!(has(None, None) && has(Some(0.2), Some(0.2)) && has(None, Some(0.2)));
        // The other was trained on the cut.
        assert!(!has(Some(0.2), None) && !has(Some(0.2), Some(0.1)));
        let other = Source { data: "b.csv".into(), ..source(None) };
        assert!(!has_all_of(&source(None), &other));
    }

    #[test]
    fn a_record_is_read_back_from_the_runs_file() {
        let source = |data: &str, held_out_fraction| Source {
            data: data.into(),
            text_column: Some("body".into()),
            label_map: Some(vec![("a,b".into(), "c=d".into())]),
            sha256: Some("1f".into()),
            held_out_fraction,
            ..Source::default()
        };
        let record = Record {
            data: Some(Source { split: Some("train[:9]".into()), ..source("old.csv", Some(0.2)) }),
            new: vec![source("new.csv", None), source("newer.csv", Some(0.1))],
            seen: vec![source("traffic.csv", None)],
            unrecorded: vec!["owner/model".into()],
        };
        let there = |record: &Record| {
            let settings = record.onto(&Settings::default());
            let plan = settings::plan(&settings, SelectBy::Accuracy).unwrap();
            let text = settings::to_toml(&settings::resolved(&settings, &plan).unwrap()).unwrap();
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("run.toml"), text).unwrap();
            Record::of(&settings::read_plan(&dir.path().join("run.toml")).unwrap())
        };
        assert_eq!(there(&record), record);
        assert_eq!(there(&Record::default()), Record::default());
        let whole = Record { data: Some(source("old.csv", None)), ..Record::default() };
        assert_eq!(there(&whole), whole);

        let behind = record.left_behind();
        let seen: Vec<&str> = behind.seen.iter().map(|source| source.data.as_str()).collect();
        assert_eq!(seen, ["traffic.csv", "old.csv", "new.csv", "newer.csv"]);
        assert!(behind.seen[1..].iter().all(|source| source.held_out_fraction.is_none()));
        assert!(behind.is_empty());
        assert_eq!(behind.unrecorded, ["owner/model"]);
    }
}
