//! One side of a comparison: a model that is scored on rows, or predictions of any stack as a file or a folder of shards.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use lowchurn_churn::{Answers, Names, Predicted, RowsBy};
use lowchurn_data::table::{self, Format, Wanted};
use lowchurn_data::{Error as DataError, Example, Kind, LabelSet, Split};
use lowchurn_distill::{Event, predict, sha256_of_files};
use lowchurn_hub::Hub;
use lowchurn_models::Config;

use crate::args::{Compare, Scoring};
use crate::console::Console;
use crate::device::Compute;
use crate::failure::Usage;
use crate::found::{self, Found};
use crate::progress::{Status, count};
use crate::served::{Form, Length};
use crate::{base, kinds};

/// What a name stands for, before anything is scored or read.
pub enum Source {
    Model(Found, Form),
    /// One file, or the shards of a folder in the order of their names.
    Files {
        name: String,
        paths: Vec<PathBuf>,
        sha256: String,
    },
}

impl Source {
    pub fn sha256(&self) -> &str {
        match self {
            Source::Model(found, _) => &found.sha256,
            Source::Files { sha256, .. } => sha256,
        }
    }

    pub fn model(&self) -> Option<&Found> {
        match self {
            Source::Model(found, _) => Some(found),
            Source::Files { .. } => None,
        }
    }

    /// How a model is computed and where it cuts; nothing of files.
    pub fn form(&self) -> Option<(Form, usize)> {
        match self {
            Source::Model(found, form) => Some((*form, found.max_length)),
            Source::Files { .. } => None,
        }
    }

    /// The same in words, where that isn't as trained.
    pub fn served(&self) -> Option<String> {
        self.form().and_then(|(form, tokens)| form.words(tokens))
    }

    pub fn files(&self) -> &[PathBuf] {
        match self {
            Source::Model(..) => &[],
            Source::Files { paths, .. } => paths,
        }
    }
}

const SHARDS: [&str; 5] = ["csv", "tsv", "jsonl", "ndjson", "parquet"];

/// A file is predictions; so is a folder that holds files of rows and no config.json. Everything else names a model.
pub fn find(
    text: &str,
    scoring: &Scoring,
    form: Form,
    hub: &Hub,
    console: &mut Console,
) -> Result<Source> {
    let path = Path::new(text);
    let suffix =
        |path: &Path| path.extension().map(|suffix| suffix.to_string_lossy().to_lowercase());
    let is_shard = |path: &Path| suffix(path).is_some_and(|suffix| SHARDS.contains(&&*suffix));
    let paths = match (path.is_file(), path.is_dir()) {
        (true, _) => {
            Format::of(path)?;
            vec![path.to_path_buf()]
        }
        (_, true) if !path.join("config.json").exists() => {
            let entries =
                std::fs::read_dir(path).with_context(|| format!("{text}: can't be read"))?;
            let paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
            let mut paths = paths.with_context(|| format!("{text}: can't be read"))?;
            let is_hidden = |path: &Path| {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
            };
            paths.retain(|path| path.is_file() && is_shard(path) && !is_hidden(path));
            // A run that isn't finished, or one of several seeds, holds its log.
            paths.retain(|path| path.file_name().is_some_and(|name| name != "metrics.jsonl"));
            paths.sort();
            paths
        }
        _ if suffix(path).is_some_and(|suffix| Format::of_suffix(&suffix).is_some()) => {
            return Err(Usage(format!("{text}: there is no such file")).into());
        }
        _ => Vec::new(),
    };
    if !paths.is_empty() {
        if form != Form::default() {
            return Err(Usage(format!(
                "{text}: these are predictions already; how they were computed can't be changed"
            ))
            .into());
        }
        let sha256 = sha256_of_files(&paths)?;
        return Ok(Source::Files { name: text.into(), paths, sha256 });
    }
    let folder = base::find("", text)?.folder(hub, console)?;
    let mut found = found::describe(text, folder)?;
    let config = Config::open(&found.folder)?;
    let served = form.tokens(&found.folder, &config);
    let asked = match form.length {
        Length::Tokens(n) => Some(("length=", n)),
        _ => scoring.max_length.map(|n| ("--max-length ", n)),
    };
    match asked {
        Some((flag, n)) if n > config.max_positions => {
            let most = config.max_positions;
            return Err(Usage(format!("{flag}{n}: {text} reads at most {most} tokens")).into());
        }
        Some((_, n)) => found.max_length = n,
        None => found.max_length = served.unwrap_or(found.max_length),
    }
    Ok(Source::Model(found, form))
}

/// `flips.jsonl` beside the shards of a side would be one more shard the next time.
pub fn refuse_shards(output: &Path, sources: &[&Source]) -> Result<()> {
    let Ok(output) = output.canonicalize() else { return Ok(()) };
    for path in sources.iter().flat_map(|source| source.files()) {
        let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
        let is_folder = sources.iter().any(|source| source.files().len() > 1);
        if is_folder && folder.as_ref() == Some(&output) {
            let output = output.display();
            return Err(Usage(format!(
                "--output {output} is the folder that predictions are read from; choose another"
            ))
            .into());
        }
    }
    Ok(())
}

/// The classes of all models; integers in the data are indices into those of the old one.
pub fn known(sources: &[&Source]) -> Result<Option<LabelSet>> {
    let mut names: Vec<String> = Vec::new();
    for found in sources.iter().filter_map(|source| source.model()) {
        let more = found.labels.iter().filter(|label| !names.contains(label));
        let more: Vec<String> = more.cloned().collect();
        names.extend(more);
    }
    Ok(if names.is_empty() { None } else { Some(LabelSet::of_outputs(names)?) })
}

/// The kind of the models, which is one. Files alone say by a tolerance that their numbers are no classes, and nothing else.
pub fn kind(sources: &[&Source], tolerance: Option<f64>) -> Result<Option<Kind>> {
    let mut models = sources.iter().filter_map(|source| source.model());
    let Some(first) = models.next() else { return Ok(tolerance.map(|_| Kind::Regression)) };
    let kind = first.outputs.kind;
    if let Some(other) = models.find(|other| other.outputs.kind != kind) {
        return Err(Usage(format!(
            "{} is a {} model and {} a {} one; compare models of one kind of task",
            first.name,
            kind.name(),
            other.name,
            other.outputs.kind.name()
        ))
        .into());
    }
    kinds::tolerance(kind, tolerance)?;
    Ok(Some(kind))
}

/// How the columns of prediction files are found.
pub fn names(args: &Compare) -> Names {
    Names {
        id: args.scoring.id_column.clone(),
        prediction: args.prediction_column.clone(),
        gold: args.gold_column.clone(),
        scores: args.score_column.clone(),
        labels: args.labels.clone(),
        rows: if args.by_position { RowsBy::Position } else { RowsBy::Id },
        tolerance: args.tolerance,
    }
}

/// What a side says. A model is asked about the examples, which have to be there then.
pub fn predicted(
    source: &Source,
    examples: &[Example],
    args: &Compare,
    compute: &Compute,
    console: &mut Console,
) -> Result<Predicted> {
    let (found, form) = match source {
        Source::Model(found, form) => (found, form),
        Source::Files { name, paths, .. } => return read(name, paths, &names(args)),
    };
    let model = found::open_model(found, compute)?.served(form.numerics)?;
    let tokens = found::tokens_of(found, &model.config, examples)?;
    if tokens.n_truncated > 0 {
        let n = count(tokens.n_truncated as u64);
        let (name, length) = (&found.name, found.max_length);
        console.say(&format!("{name}: {n} of {} rows cut at {length} tokens", tokens.rows()));
    }
    let (start, rows) = (Instant::now(), tokens.rows());
    let mut status = Status::new();
    status.evaluating = "scoring";
    let scored = predict(&model, &tokens, args.scoring.batch_size, &compute.device, &mut |done| {
        let event = Event::Evaluating { done, rows };
        status.show(&event, start.elapsed(), &console.terminal, &mut console.err);
    });
    status.end(&mut console.err);
    // The truth comes later, from the data, with its names.
    let bare = |row: &Example| Example { label: None, target: None, ..row.clone() };
    let rows = Split::new(
        "",
        examples.iter().map(bare).collect(),
        LabelSet::of_outputs(found.labels.clone())?,
    );
    found::predicted(found, &rows, &found.labels, args.tolerance, &scored?.logits)
}

fn read(name: &str, paths: &[PathBuf], names: &Names) -> Result<Predicted> {
    let shards: Vec<Predicted> =
        paths.iter().map(|path| Ok(Predicted::read(path, names)?)).collect::<Result<_>>()?;
    let mut shards = shards.into_iter();
    let Some(mut all) = shards.next() else { bail!("{name}: no rows in it") };
    for shard in shards {
        append(&mut all, shard, names.rows)?;
    }
    all.name = name.into();
    Ok(all)
}

/// Rows of a further shard, classes by name. Shards are of one model: all have scores of the same classes, or none has.
fn append(all: &mut Predicted, mut shard: Predicted, rows: RowsBy) -> Result<()> {
    if all.answers.kind() != shard.answers.kind() || all.answers != Answers::Classes {
        bail!(
            "{}: shards of {} a row can't be put together; write {} as one file",
            shard.name,
            all.answers.kind(),
            all.name
        );
    }
    let declared = |side: &Predicted| {
        let mut names = side.n_declared.map_or(Vec::new(), |n| side.labels[..n].to_vec());
        names.sort();
        names
    };
    if declared(all) != declared(&shard) {
        bail!(
            "{}: scores of {}, where {} has scores of {}; shards must be of one model",
            shard.name,
            listed(&declared(&shard)),
            all.name,
            listed(&declared(all))
        );
    }
    if rows == RowsBy::Position {
        shard.ids = (all.rows()..all.rows() + shard.rows()).map(|row| row.to_string()).collect();
    }
    let seen: std::collections::HashSet<&str> = all.ids.iter().map(String::as_str).collect();
    if let Some(id) = shard.ids.iter().find(|id| seen.contains(id.as_str())) {
        bail!(
            "{}: id {id:?} is there already, in {} or a shard after it; ids must be unique",
            shard.name,
            all.name
        );
    }
    let place = places(all, &shard.labels);
    widen(all);
    let (own, classes) = (shard.labels.len(), all.labels.len());
    if let (Some(to), Some(from)) = (&mut all.scores, &shard.scores) {
        let start = to.len();
        to.resize(start + shard.rows() * classes, 0.0);
        let to = to[start..].chunks_exact_mut(classes);
        for (to, from) in to.zip(from.chunks_exact(own)) {
            from.iter().zip(&place).for_each(|(score, place)| to[*place as usize] = *score);
        }
    }
    let at = |class: u32| place[class as usize];
    all.predicted.extend(shard.predicted.into_iter().map(at));
    all.gold.extend(shard.gold.into_iter().map(|gold| gold.map(at)));
    all.ids.extend(shard.ids);
    all.notes.extend(shard.notes);
    Ok(())
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "no classes".into() } else { names.join(", ") }
}

/// Where each of these names stands among a side's labels; unknown ones are appended.
fn places(side: &mut Predicted, names: &[String]) -> Vec<u32> {
    let mut place: HashMap<String, u32> =
        side.labels.iter().enumerate().map(|(at, name)| (name.clone(), at as u32)).collect();
    let mut at = |name: &String| {
        *place.entry(name.clone()).or_insert_with(|| {
            side.labels.push(name.clone());
            side.labels.len() as u32 - 1
        })
    };
    names.iter().map(&mut at).collect()
}

/// Scores (N·K) of a side whose labels have become more: 0 for the new ones.
fn widen(side: &mut Predicted) {
    let (rows, classes) = (side.rows(), side.labels.len());
    let Some(scores) = &mut side.scores else { return };
    let own = scores.len().checked_div(rows).unwrap_or(classes);
    if own < classes {
        let wider = scores
            .chunks_exact(own)
            .flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(0.0, classes - own)));
        *scores = wider.collect();
    }
}

/// True classes by name, where a side has none of its own; where it has, they must be the same.
pub fn with_gold(
    side: &mut Predicted,
    gold: &[Option<&str>],
    from: &str,
    label_map: &[(String, String)],
) -> Result<()> {
    let renamed = |name: &str| {
        label_map
            .iter()
            .find(|(old, _)| old == name)
            .map_or(name.to_string(), |(_, new)| new.clone())
    };
    for ((own, gold), id) in side.gold.iter().zip(gold).zip(&side.ids) {
        let (Some(own), Some(gold)) = (own, gold) else { continue };
        let own = &side.labels[*own as usize];
        if renamed(own) != renamed(gold) {
            bail!(
                "row {id:?}: the true class is {own:?} in {} and {gold:?} in {from}; both must be judged by the same",
                side.name
            );
        }
    }
    let names: Vec<String> = {
        let mut names: Vec<String> = gold.iter().flatten().map(|name| name.to_string()).collect();
        names.sort();
        names.dedup();
        names
    };
    let place: HashMap<&str, u32> = {
        let place = places(side, &names);
        names.iter().map(String::as_str).zip(place).collect()
    };
    widen(side);
    for (own, gold) in side.gold.iter_mut().zip(gold) {
        *own = own.or(gold.and_then(|gold| place.get(gold).copied()));
    }
    Ok(())
}

/// A column of prediction files, row by row; `None` where they have none of that name.
pub fn column(source: &Source, role: &'static str, name: &str) -> Result<Option<Vec<String>>> {
    let mut all = Vec::new();
    for path in source.files() {
        let table = match table::read(path, &[Wanted { role, column: name }]) {
            Err(DataError::MissingColumn { .. }) => return Ok(None),
            table => table?,
        };
        all.extend(table.cells.into_iter().flat_map(lowchurn_data::read::shown));
    }
    Ok((!all.is_empty()).then_some(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(name: &str, labels: &[&str], ids: &[&str], scores: &[f32]) -> Predicted {
        let labels: Vec<String> = labels.iter().map(|label| label.to_string()).collect();
        let width = labels.len();
        let top = |row: &[f32]| if row[0] >= row[1] { 0 } else { 1 };
        Predicted {
            name: name.into(),
            n_declared: Some(width),
            ids: ids.iter().map(|id| id.to_string()).collect(),
            predicted: scores.chunks_exact(width).map(top).collect(),
            gold: vec![None; ids.len()],
            scores: Some(scores.to_vec()),
            labels,
            ..Predicted::default()
        }
    }

    #[test]
    fn shards_are_put_together_by_the_names_of_classes() {
        let mut all = side("1", &["a", "b"], &["x"], &[0.75, 0.25]);
        append(&mut all, side("2", &["b", "a"], &["y"], &[0.875, 0.125]), RowsBy::Id).unwrap();
        assert_eq!(all.ids, ["x", "y"]);
        assert_eq!(all.predicted, [0, 1]);
        assert_eq!(all.scores, Some(vec![0.75, 0.25, 0.125, 0.875]));
        let error = append(&mut all, side("3", &["a", "c"], &["z"], &[0.5, 0.5]), RowsBy::Id);
        assert_eq!(
            error.unwrap_err().to_string(),
            "3: scores of a, c, where 1 has scores of a, b; shards must be of one model"
        );
        let error = append(&mut all, side("3", &["a", "b"], &["y"], &[0.5, 0.5]), RowsBy::Id);
        assert_eq!(
            error.unwrap_err().to_string(),
            "3: id \"y\" is there already, in 1 or a shard after it; ids must be unique"
        );
    }

    #[test]
    fn true_classes_of_the_data_join_those_of_the_file() {
        let mut all = side("p", &["a", "b"], &["x", "y"], &[0.75, 0.25, 0.5, 0.5]);
        with_gold(&mut all, &[Some("c"), None], "rows", &[]).unwrap();
        assert_eq!(all.labels, ["a", "b", "c"]);
        assert_eq!(all.gold, [Some(2), None]);
        assert_eq!(all.scores, Some(vec![0.75, 0.25, 0.0, 0.5, 0.5, 0.0]));
        let error = with_gold(&mut all, &[Some("a"), None], "rows", &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "row \"x\": the true class is \"c\" in p and \"a\" in rows; both must be judged by the same"
        );
        let map = [("c".to_string(), "a".to_string())];
        with_gold(&mut all, &[Some("a"), Some("b")], "rows", &map).unwrap();
        assert_eq!(all.gold, [Some(2), Some(1)]);
    }
}
