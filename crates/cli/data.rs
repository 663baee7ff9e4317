//! From what names a data set to its splits: a task's manifest, a repository of the hub, a folder or files.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lowchurn_data::dataset::Ids;
use lowchurn_data::slice::SplitExpression;
use lowchurn_data::source::on_disk;
use lowchurn_data::{
    Columns, Dataset, Error as DataError, Kind as TaskKind, LabelSet, Labels, Layout, Metric,
    Request, Source, Split, Task, layout, read, read_columns, stratified_cut,
};
use lowchurn_hub::{Hub, Kind, Listing, Origin, Repo};

use crate::console::Console;
use crate::failure::Usage;
use crate::places::{self, tell_origin};

/// A data set whose splits are known, and whose files may still have to be fetched.
pub struct Data {
    /// For the run's folder: `sst2`, `glue`, `rows`.
    pub name: String,
    pub task: Option<Task>,
    /// Named with the data: `sst2:validation`, `rows.csv:train[:100]`.
    pub split: Option<String>,
    place: Place,
}

enum Place {
    Local(Dataset),
    Hub { repo: Repo, listing: Listing, layout: Layout },
}

/// What the user said about columns; `None` is the task's, else a guess.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    pub columns: Columns,
    /// Of the model, or as the user says; `None` is the task's, else as the label column says.
    pub kind: Option<TaskKind>,
}

pub fn open(text: &str, hub: &Hub, console: &mut Console) -> Result<Data> {
    let (source, split) = Source::parse(text)?;
    let (source, task) = match source {
        Source::Task { name } => {
            let manifest = places::task(&name)
                .map_err(|unknown| on_disk(&name).map_or(unknown, Into::into))?;
            let task = Task::parse(&manifest.text, &manifest.path)?;
            (task.source.clone(), Some(task))
        }
        source => (source, None),
    };
    let stem = |path: &PathBuf| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = match (&task, &source) {
        (Some(task), _) => Some(task.name.clone()),
        (None, Source::Hub { id, .. }) => id.split('/').next_back().map(str::to_string),
        (None, Source::Folder(path)) => path.canonicalize().ok().as_ref().and_then(stem),
        (None, Source::Files(paths)) => paths.first().and_then(stem),
        (None, Source::Task { .. }) => None,
    }
    .unwrap_or_else(|| "data".into());
    let place = match &source {
        Source::Hub { id, config, revision } => {
            of_hub(id, config.as_deref(), revision.as_deref(), hub, console)?
        }
        Source::Folder(path) => {
            let dataset = Dataset::of_folder(path, None)?;
            let others = dataset.other_formats(path)?;
            if !others.is_empty() {
                let (folder, others) = (path.display(), others.join(", "));
                console.say(&format!(
                    "{folder}: a data set is read in one format; not read: {others}; name files to read others"
                ));
            }
            Place::Local(dataset)
        }
        Source::Files(paths) => Place::Local(Dataset::of_files(paths)?),
        Source::Task { name, .. } => return Err(Usage(format!("{name}: a task of a task")).into()),
    };
    Ok(Data { name, task, split, place })
}

/// Lists a repository and lays it out by its card; where it holds scripts only, by the hub's own parquet branch.
fn of_hub(
    id: &str,
    config: Option<&str>,
    revision: Option<&str>,
    hub: &Hub,
    console: &mut Console,
) -> Result<Place> {
    let at = |revision: Option<&str>| match revision {
        Some(revision) => Repo::parse(Kind::Dataset, &format!("{id}@{revision}")),
        None => Repo::parse(Kind::Dataset, id),
    };
    let repo = at(revision)?;
    let listing = list(hub, &repo, console)?;
    let card = listing.file("README.md").map(|file| file.path.clone());
    let readme = match card {
        Some(card) => {
            let folder = fetch(hub, &repo, &listing, std::slice::from_ref(&card), console)?;
            Some(String::from_utf8_lossy(&std::fs::read(folder.join(card))?).into_owned())
        }
        None => None,
    };
    match layout(readme.as_deref(), &paths(&listing), config) {
        Ok(layout) => Ok(Place::Hub { repo, listing, layout }),
        Err(DataError::NoDataFiles) if revision.is_none_or(|revision| revision == "main") => {
            let repo = at(Some("refs/convert/parquet"))?;
            console.say(&format!("{id} has no data files of its own; reading {}", repo.revision()));
            let listing = list(hub, &repo, console)?;
            let layout = layout(None, &paths(&listing), config)?;
            Ok(Place::Hub { repo, listing, layout })
        }
        Err(error) => Err(error.into()),
    }
}

fn paths(listing: &Listing) -> Vec<String> {
    listing.files.iter().map(|file| file.path.clone()).collect()
}

fn list(hub: &Hub, repo: &Repo, console: &mut Console) -> Result<Listing> {
    let listing = hub.list(repo, &mut |event| console.hub(&event))?;
    tell_origin(&listing, repo, console);
    Ok(listing)
}

fn fetch(
    hub: &Hub,
    repo: &Repo,
    listing: &Listing,
    wanted: &[String],
    console: &mut Console,
) -> Result<PathBuf> {
    Ok(hub.fetch(repo, listing, wanted, &mut |event| console.hub(&event))?)
}

impl Data {
    pub fn split_names(&self) -> Vec<String> {
        match (&self.task, &self.place) {
            (Some(task), _) if !task.splits.is_empty() => {
                task.splits.iter().map(|(name, _)| name.clone()).collect()
            }
            (_, Place::Local(dataset)) => dataset.split_names(),
            (_, Place::Hub { layout, .. }) => {
                layout.splits.iter().map(|s| s.name.clone()).collect()
            }
        }
    }

    /// Files given by name, not a data set with splits.
    pub fn is_files(&self) -> bool {
        matches!(&self.place, Place::Local(dataset) if dataset.ids != Ids::BySplit)
    }

    /// The files that are here already because the user named them or their folder.
    pub fn local_files(&self) -> Vec<&Path> {
        let Place::Local(dataset) = &self.place else { return Vec::new() };
        dataset.splits.iter().flat_map(|split| &split.files).map(PathBuf::as_path).collect()
    }

    /// `owner/name@COMMIT` of a data set of the hub.
    pub fn origin(&self) -> Option<String> {
        let Place::Hub { repo, listing, .. } = &self.place else { return None };
        Some(format!("{}@{}", repo.id(), listing.commit))
    }

    pub fn metric(&self) -> Metric {
        self.task.as_ref().map_or(Metric::Accuracy, |task| task.metric)
    }

    /// Reads the rows of a split expression, fetching the files it needs and no others.
    ///
    /// In files given by name a column called `id` holds the ids, unless one is named; where it can't be, rows are
    /// numbered.
    pub fn read(
        &self,
        split: &str,
        wishes: &Wishes,
        labels: Labels,
        label_set: Option<&LabelSet>,
        hub: &Hub,
        console: &mut Console,
    ) -> Result<Split> {
        // A manifest may name a label column that unlabelled rows lack; a user who names one means it.
        let labels = match (labels, &wishes.columns.label) {
            (Labels::IfPresent, None) => Labels::IfColumnPresent,
            (labels, _) => labels,
        };
        let plain = Request {
            columns: self.columns(wishes),
            labels,
            kind: wishes.kind.or(self.task.as_ref().and_then(|task| task.kind)),
            label_set: label_set.or(self.task.as_ref().and_then(|t| t.label_set.as_ref())).cloned(),
        };
        let is_taken = plain.columns.text.as_deref() == Some("id");
        if !self.is_files() || plain.columns.id.is_some() || is_taken {
            return self.read_as(split, &plain, hub, console);
        }
        let columns = Columns { id: Some("id".into()), ..plain.columns.clone() };
        let by_id = self.read_as(split, &Request { columns, ..plain.clone() }, hub, console);
        let Err(error) = by_id else { return by_id };
        match error.downcast_ref::<DataError>() {
            Some(DataError::DuplicateId { .. } | DataError::EmptyId { .. }) => console
                .say(&format!("ids of column \"id\" can't be used ({error}); rows are numbered")),
            Some(DataError::MissingColumn { role: "id", .. }) => {}
            _ => return Err(error),
        }
        self.read_as(split, &plain, hub, console)
    }

    fn read_as(
        &self,
        split: &str,
        request: &Request,
        hub: &Hub,
        console: &mut Console,
    ) -> Result<Split> {
        let expression = self.expression(split)?;
        let dataset = self.dataset(&expression, hub, console)?;
        let mut rows = match read(&dataset, &expression, request) {
            // Not every error of the rows names a file.
            Err(error @ DataError::TooFewLabels { .. }) => {
                return Err(error).context(format!("{}:{split}", self.name));
            }
            read => read?,
        };
        rows.name = format!("{}:{split}", self.name);
        Ok(rows)
    }

    /// Other columns of the rows of a split, as text and in the order of [`Data::read`]; `role` is what they are asked for as.
    pub fn read_columns(
        &self,
        split: &str,
        columns: &[String],
        role: &'static str,
        hub: &Hub,
        console: &mut Console,
    ) -> Result<Vec<Vec<String>>> {
        let expression = self.expression(split)?;
        Ok(read_columns(&self.dataset(&expression, hub, console)?, &expression, columns, role)?)
    }

    /// The files that an expression needs, fetched where they aren't here yet.
    fn dataset(&self, expression: &str, hub: &Hub, console: &mut Console) -> Result<Dataset> {
        let (repo, listing, layout) = match &self.place {
            Place::Local(dataset) => return Ok(self.with_classes(dataset.clone())),
            Place::Hub { repo, listing, layout } => (repo, listing, layout),
        };
        let layout = match (only(layout, expression), listing.origin) {
            (Err(error), Origin::Cache) => {
                return Err(error.context(format!("{}, as far as the cache holds it", repo.id())));
            }
            (layout, _) => layout?,
        };
        let wanted: Vec<String> =
            layout.splits.iter().flat_map(|split| split.files.clone()).collect();
        let folder = fetch(hub, repo, listing, &wanted, console)?;
        Ok(self.with_classes(Dataset::of_layout(&layout, &folder)?))
    }

    /// Integers in a task's label column are indices into the task's names, whatever order the model has them in.
    fn with_classes(&self, dataset: Dataset) -> Dataset {
        let task = self.task.as_ref().map(|task| (&task.label_set, &task.columns.label));
        match task {
            Some((Some(names), Some(column))) => dataset.with_classes(column, names),
            _ => dataset,
        }
    }

    /// For a dry run: files with sizes in bytes that a split expression needs from the hub.
    pub fn remote_files(&self, split: &str) -> Result<Vec<(String, u64)>> {
        let Place::Hub { repo, listing, layout } = &self.place else { return Ok(Vec::new()) };
        let files =
            only(layout, &self.expression(split)?)?.splits.into_iter().flat_map(|s| s.files);
        let size = |path: &String| listing.file(path).map_or(0, |file| file.size);
        let size = |path: String| (format!("{} {path}", repo.id()), size(&path));
        Ok(files.map(size).collect())
    }

    /// For a dry run: how many rows the card promises to train on.
    pub fn promised_rows(&self, wanted: &Wanted) -> Result<Option<u64>> {
        let kept = match self.eval_choice(wanted) {
            EvalChoice::Cut(fraction) => 1.0 - fraction,
            EvalChoice::None | EvalChoice::Split(_) => 1.0,
        };
        let rows = self.promised_rows_of(&wanted.train)?;
        Ok(rows.map(|rows| (rows as f64 * kept).round() as u64))
    }

    fn promised_rows_of(&self, split: &str) -> Result<Option<u64>> {
        let Place::Hub { layout, .. } = &self.place else { return Ok(None) };
        let mut sum = 0;
        for part in SplitExpression::parse(&self.expression(split)?)?.parts {
            let found = layout.splits.iter().find(|split| split.name == part.split);
            let Some(rows) = found.and_then(|split| split.rows) else { return Ok(None) };
            sum += part.range(rows as usize).len() as u64;
        }
        Ok(Some(sum))
    }

    fn expression(&self, split: &str) -> Result<String> {
        Ok(match &self.task {
            Some(task) => task.expression(split)?,
            None => split.to_string(),
        })
    }

    /// As the user named them, else as the task does; `None` is a guess.
    pub fn columns(&self, wishes: &Wishes) -> Columns {
        let own = self.task.as_ref().map_or_else(Columns::default, |task| task.columns.clone());
        let wish = wishes.columns.clone();
        Columns {
            text: wish.text.or(own.text),
            pair: wish.pair.or(own.pair),
            label: wish.label.or(own.label),
            id: wish.id.or(own.id),
        }
    }

    /// Training and evaluation rows: a split of its own, or a seeded cut of train, the same classes' share on both sides.
    ///
    /// The cut doesn't depend on the run's seed, so that several seeds are judged on the same rows.
    pub fn train_and_eval(
        &self,
        wanted: &Wanted,
        hub: &Hub,
        console: &mut Console,
    ) -> Result<(Split, Option<Split>)> {
        let train =
            self.read(&wanted.train, &wanted.wishes, Labels::Required, None, hub, console)?;
        let same = Wishes { kind: Some(TaskKind::of(&train.examples)), ..wanted.wishes.clone() };
        match self.eval_choice(wanted) {
            EvalChoice::None => Ok((train, None)),
            EvalChoice::Split(split) => {
                let labels = Some(&train.labels);
                let eval = self.read(&split, &same, Labels::Required, labels, hub, console)?;
                Ok((train, Some(eval)))
            }
            EvalChoice::Cut(fraction) => {
                let name = train.name.clone();
                let (mut train, mut eval) = stratified_cut(&train, fraction, CUT_SEED)?;
                train.name = format!("{name} without its {:.0} % cut", fraction * 100.0);
                eval.name = format!("{:.0} % of {name}", fraction * 100.0);
                Ok((train, Some(eval)))
            }
        }
    }

    pub fn eval_choice(&self, wanted: &Wanted) -> EvalChoice {
        match wanted.eval.as_deref() {
            Some("none") => EvalChoice::None,
            Some(split) => EvalChoice::Split(split.into()),
            None if self.split_names().iter().any(|name| name == "validation") => {
                EvalChoice::Split("validation".into())
            }
            None => {
                let own = self.task.as_ref().and_then(|task| task.eval_fraction);
                EvalChoice::Cut(wanted.eval_fraction.or(own).unwrap_or(0.1))
            }
        }
    }
}

pub const CUT_SEED: u64 = 0;

/// What a run trains and is judged on.
pub struct Wanted {
    pub train: String,
    pub eval: Option<String>,
    pub eval_fraction: Option<f64>,
    pub wishes: Wishes,
}

#[derive(Debug, PartialEq)]
pub enum EvalChoice {
    None,
    Split(String),
    Cut(f64),
}

/// The layout with only the splits that an expression names; all of them where it names one that isn't there, so that
/// the error can list what is.
fn only(layout: &Layout, expression: &str) -> Result<Layout> {
    let parts = SplitExpression::parse(expression)?.parts;
    let is_known = |name: &str| layout.splits.iter().any(|split| split.name == name);
    if let Some(part) = parts.iter().find(|part| !is_known(&part.split)) {
        let splits: Vec<String> = layout.splits.iter().map(|split| split.name.clone()).collect();
        let suggestion =
            lowchurn_data::error::nearest(&part.split, splits.iter().map(String::as_str));
        return Err(
            DataError::UnknownSplit { split: part.split.clone(), splits, suggestion }.into()
        );
    }
    let mut layout = layout.clone();
    layout.splits.retain(|split| parts.iter().any(|part| part.split == split.name));
    Ok(layout)
}
