//! A task's manifest, `datasets/<task>.toml`: where its data is, which columns and splits it has, what it is judged by.
//!
//! Refuses unknown keys, with the name that was probably meant, and a metric that the kind of the task doesn't have.

use std::path::Path;

use toml::{Table, Value};

use crate::columns::Columns;
use crate::error::{Error, Result, nearest};
use crate::example::LabelSet;
use crate::kind::Kind;
use crate::metrics::Metric;
use crate::slice::SplitExpression;
use crate::source::{Source, is_repository_part};

/// A checked manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// The manifest's file name without its suffix.
    pub name: String,
    /// `Source::Hub`, or a folder or file next to the manifest.
    pub source: Source,
    pub columns: Columns,
    pub label_set: Option<LabelSet>,
    pub metric: Metric,
    /// `None`: as the label column says.
    pub kind: Option<Kind>,
    /// (our name, split expression of the source), by our name; empty: the source's own names.
    pub splits: Vec<(String, String)>,
    /// Share of train to cut off where there is no validation split.
    pub eval_fraction: Option<f64>,
}

const KEYS: [&str; 13] = [
    "hub",
    "files",
    "revision",
    "config",
    "text",
    "pair",
    "label",
    "id",
    "labels",
    "metric",
    "kind",
    "splits",
    "eval_fraction",
];
const METRICS: &str = "accuracy, f1, macro_f1, matthews, pearson or spearman";
const KINDS: [&str; 3] = ["classification", "regression", "multi_label"];

impl Task {
    pub fn read(path: &Path) -> Result<Task> {
        Task::parse(&std::fs::read_to_string(path).map_err(Error::read(path))?, path)
    }

    /// Checks a manifest's text; `path` names the task, and `files` are looked for next to it.
    pub fn parse(text: &str, path: &Path) -> Result<Task> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| Error::BadTask {
            path: path.to_owned(),
            line: error.span().map_or(1, |span| {
                1 + text.as_bytes()[..span.start.min(text.len())]
                    .iter()
                    .filter(|byte| **byte == b'\n')
                    .count()
            }),
            reason: error.message().to_owned(),
        })?;
        check(&Manifest { path, table: &table })
    }

    /// The source's expression for one of ours: `validation[:100]` where `validation = "dev"` is `dev[:100]`.
    pub fn expression(&self, wanted: &str) -> Result<String> {
        if self.splits.is_empty() {
            return Ok(wanted.to_owned());
        }
        let find = |name: &str| {
            self.splits
                .iter()
                .find(|(own, _)| own == name)
                .map(|(_, expression)| expression.as_str())
        };
        if let Some(expression) = find(wanted.trim()) {
            return Ok(expression.to_owned());
        }
        let mut parts = SplitExpression::parse(wanted)?.parts;
        for part in &mut parts {
            let names = || self.splits.iter().map(|(name, _)| name.as_str());
            let expression = find(&part.split).ok_or_else(|| Error::UnknownSplit {
                split: part.split.clone(),
                splits: names().map(str::to_owned).collect(),
                suggestion: nearest(&part.split, names()),
            })?;
            match SplitExpression::parse(expression)?.parts.as_slice() {
                [only] if only.from.is_none() && only.to.is_none() => {
                    part.split = only.split.clone()
                }
                _ => {
                    return Err(Error::BadSplitExpression {
                        expression: wanted.to_owned(),
                        reason: format!(
                            "{} of this task is {expression} already, which can't be cut further",
                            part.split
                        ),
                    });
                }
            }
        }
        Ok(parts.iter().map(ToString::to_string).collect::<Vec<_>>().join("+"))
    }
}

struct Manifest<'m> {
    path: &'m Path,
    table: &'m Table,
}

fn check(manifest: &Manifest<'_>) -> Result<Task> {
    if let Some(key) = manifest.table.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(Error::UnknownTaskKey {
            path: manifest.path.to_owned(),
            key: key.clone(),
            known: KEYS.map(str::to_owned).to_vec(),
            suggestion: nearest(key, KEYS),
        });
    }
    let kind = kind(manifest)?;
    let splits = splits(manifest)?;
    let eval_fraction = eval_fraction(manifest, &splits)?;
    Ok(Task {
        name: manifest
            .path
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned())
            .unwrap_or_default(),
        source: source(manifest)?,
        columns: Columns {
            text: Some(manifest.required("text", "the column that holds the text")?),
            pair: manifest.string("pair")?,
            label: Some(manifest.required("label", "the column that holds the label")?),
            id: manifest.string("id")?,
        },
        label_set: label_set(manifest)?,
        metric: metric(manifest, kind)?,
        kind,
        splits,
        eval_fraction,
    })
}

fn kind(manifest: &Manifest<'_>) -> Result<Option<Kind>> {
    let Some(name) = manifest.string("kind")? else { return Ok(None) };
    name.parse().map(Some).map_err(|_| Error::BadTaskValue {
        path: manifest.path.to_owned(),
        key: "kind",
        value: name.clone(),
        expected: "classification, regression or multi_label",
        suggestion: nearest(&name, KINDS),
    })
}

fn source(manifest: &Manifest<'_>) -> Result<Source> {
    let (hub, files) = (manifest.string("hub")?, manifest.string("files")?);
    let (config, revision) = (manifest.string("config")?, manifest.string("revision")?);
    match (hub, files) {
        (Some(id), None) => match id.split_once('/') {
            Some((owner, name)) if is_repository_part(owner) && is_repository_part(name) => {
                Ok(Source::Hub { id, config, revision })
            }
            _ => Err(manifest.bad(
                "hub",
                &id,
                "owner/name of a dataset; config and revision have keys of their own",
            )),
        },
        (None, Some(files)) => {
            let path = manifest.path.parent().unwrap_or(Path::new("")).join(&files);
            match (path.is_dir(), path.is_file()) {
                (true, _) => Ok(Source::Folder(path)),
                (_, true) => Ok(Source::Files(vec![path])),
                _ => Err(manifest.bad("files", &files, "a folder or file next to this manifest")),
            }
        }
        (None, None) => Err(manifest.missing("hub", "or files: where the data is")),
        (Some(id), Some(_)) => Err(manifest.bad("hub", &id, "either hub or files, not both")),
    }
}

fn label_set(manifest: &Manifest<'_>) -> Result<Option<LabelSet>> {
    let Some(value) = manifest.table.get("labels") else {
        return Ok(None);
    };
    let names: Option<Vec<String>> = value
        .as_array()
        .and_then(|names| names.iter().map(|name| name.as_str().map(str::to_owned)).collect());
    let names =
        names.ok_or_else(|| manifest.bad("labels", &value.to_string(), "a list of names"))?;
    LabelSet::new(names).map(Some).map_err(|error| manifest.inside("labels", error))
}

fn metric(manifest: &Manifest<'_>, kind: Option<Kind>) -> Result<Metric> {
    let Some(name) = manifest.string("metric")? else {
        return Ok(Metric::default_of(kind.unwrap_or_default()));
    };
    let metric: Metric = name.parse().map_err(|error| match error {
        Error::UnknownMetric { suggestion, .. } => Error::BadTaskValue {
            path: manifest.path.to_owned(),
            key: "metric",
            value: name.clone(),
            expected: METRICS,
            suggestion,
        },
        other => other,
    })?;
    match kind {
        None => Ok(metric),
        Some(kind) => metric.check(kind).map_err(|error| manifest.inside("metric", error)),
    }
}

fn splits(manifest: &Manifest<'_>) -> Result<Vec<(String, String)>> {
    let Some(value) = manifest.table.get("splits") else {
        return Ok(Vec::new());
    };
    let table =
        value.as_table().ok_or_else(|| manifest.bad("splits", &value.to_string(), "a table"))?;
    let mut splits = Vec::new();
    for (name, value) in table {
        let expression = value.as_str().ok_or_else(|| {
            manifest.bad("splits", &value.to_string(), "split expressions in quotes")
        })?;
        SplitExpression::parse(expression)
            .map_err(|error| manifest.inside(&format!("split {name}"), error))?;
        splits.push((name.clone(), expression.to_owned()));
    }
    Ok(splits)
}

fn eval_fraction(manifest: &Manifest<'_>, splits: &[(String, String)]) -> Result<Option<f64>> {
    const EXPECTED: &str = "a number between 0 and 1, and only where there is no validation split";
    let Some(value) = manifest.table.get("eval_fraction") else {
        return Ok(None);
    };
    let bad = || manifest.bad("eval_fraction", &value.to_string(), EXPECTED);
    let fraction =
        value.as_float().filter(|fraction| *fraction > 0.0 && *fraction < 1.0).ok_or_else(bad)?;
    if splits.iter().any(|(name, _)| name == "validation") {
        Err(bad())
    } else {
        Ok(Some(fraction))
    }
}

impl Manifest<'_> {
    fn string(&self, key: &'static str) -> Result<Option<String>> {
        match self.table.get(key) {
            None => Ok(None),
            Some(Value::String(text)) if !text.trim().is_empty() => Ok(Some(text.clone())),
            Some(Value::String(text)) => Err(self.bad(key, text, "a text that isn't empty")),
            Some(other) => Err(self.bad(key, &other.to_string(), "a text in quotes")),
        }
    }

    fn required(&self, key: &'static str, expected: &'static str) -> Result<String> {
        self.string(key)?.ok_or_else(|| self.missing(key, expected))
    }

    fn missing(&self, key: &'static str, expected: &'static str) -> Error {
        Error::MissingTaskKey { path: self.path.to_owned(), key, expected }
    }

    fn inside(&self, what: &str, source: Error) -> Error {
        Error::InTask {
            path: self.path.to_owned(),
            what: what.to_owned(),
            source: Box::new(source),
        }
    }

    fn bad(&self, key: &'static str, value: &str, expected: &'static str) -> Error {
        let (path, value) = (self.path.to_owned(), value.to_owned());
        Error::BadTaskValue { path, key, value, expected, suggestion: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> std::result::Result<Task, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("tickets")).unwrap();
        let path = dir.path().join("x.toml");
        std::fs::write(&path, text).unwrap();
        Task::read(&path)
            .map_err(|error| error.to_string().replace(&path.display().to_string(), "x.toml"))
    }

    const SST2: &str = r#"
        hub = "stanfordnlp/sst2"
        revision = "main"
        text = "sentence"
        label = "label"
        id = "idx"
        labels = ["negative", "positive"]
        metric = "accuracy"
        kind = "classification"
        [splits]
        train = "train"
        validation = "dev"
        small = "train[:10%]"
    "#;

    #[test]
    fn a_manifest() {
        let task = read(SST2).unwrap();
        assert_eq!(task.name, "x");
        let (id, revision) = ("stanfordnlp/sst2".to_owned(), Some("main".to_owned()));
        assert_eq!(task.source, Source::Hub { id, config: None, revision });
        assert_eq!(
            (task.columns.text.as_deref(), task.columns.id.as_deref()),
            (Some("sentence"), Some("idx"))
        );
        assert_eq!((task.metric, task.label_set.unwrap().len()), (Metric::Accuracy, 2));
        assert_eq!(task.kind, Some(Kind::SingleLabel));
        let multi =
            read("hub = \"a/b\"\ntext = \"t\"\nlabel = \"l\"\nkind = \"multi_label\"").unwrap();
        assert_eq!((multi.kind, multi.metric), (Some(Kind::MultiLabel), Metric::F1));
        let local =
            read("files = \"tickets\"\ntext = \"t\"\nlabel = \"l\"\neval_fraction = 0.1").unwrap();
        assert!(matches!(local.source, Source::Folder(path) if path.ends_with("tickets")));
        assert_eq!((local.eval_fraction, local.splits.len()), (Some(0.1), 0));
    }

    #[test]
    fn expressions_are_translated() {
        let task = read(SST2).unwrap();
        let check = |wanted: &str, expected: &str| {
            assert_eq!(task.expression(wanted).unwrap_or_else(|error| error.to_string()), expected);
        };
        check("train", "train");
        check("validation", "dev");
        check("small", "train[:10%]");
        check("validation[:100]+train[-5%:]", "dev[:100]+train[-5%:]");
        check("dev", "split \"dev\" isn't there (splits: small, train, validation)");
        check(
            "trian",
            "split \"trian\" isn't there (splits: small, train, validation); did you mean \"train\"?",
        );
        check(
            "small[:5]",
            "\"small[:5]\" isn't a split expression (small of this task is train[:10%] already, which can't be cut further; \
             expected such as train, train[:5000], train[10%:] or train[:10%]+validation)",
        );
    }

    #[test]
    fn bad_manifests() {
        let check = |text: &str, message: &str| assert_eq!(read(text).unwrap_err(), message);
        let with = |line: &str| format!("hub = \"a/b\"\ntext = \"t\"\nlabel = \"l\"\n{line}");
        check(
            &with("labls = []"),
            "x.toml: unknown key \"labls\" (known: hub, files, revision, config, text, pair, label, id, labels, metric, kind, \
             splits, eval_fraction); did you mean \"labels\"?",
        );
        check(
            &with("kind = \"regression\"\nmetric = \"f1\""),
            "x.toml: metric (metric f1 isn't one of a regression task (expected pearson or spearman))",
        );
        check(
            &with("kind = \"multi_label\"\nmetric = \"matthews\""),
            "x.toml: metric (metric matthews isn't one of a multi-label task (expected f1, macro_f1 or accuracy))",
        );
        check(
            &with("kind = \"classifcation\""),
            "x.toml: kind is \"classifcation\" (expected classification, regression or multi_label); did you mean \"classification\"?",
        );
        check(
            &with("metric = \"acc\""),
            "x.toml: metric is \"acc\" (expected accuracy, f1, macro_f1, matthews, pearson or spearman); did you mean \"accuracy\"?",
        );
        check(
            &with("metric = \"pearson\"\nkind = \"classification\""),
            "x.toml: metric (metric pearson isn't one of a single-label task (expected accuracy, f1 or matthews))",
        );
        check(
            &with("labels = [\"a\", \"a\"]"),
            "x.toml: labels (label name \"a\" is there twice, at 0 and 1)",
        );
        check(&with("labels = [1, 2]"), "x.toml: labels is \"[1, 2]\" (expected a list of names)");
        check(&with("pair = 3"), "x.toml: pair is \"3\" (expected a text in quotes)");
        check(
            "text = \"t\"\nlabel = \"l\"",
            "x.toml: hub is missing (or files: where the data is)",
        );
        check(
            "hub = \"a/b\"\nlabel = \"l\"",
            "x.toml: text is missing (the column that holds the text)",
        );
        check(
            "hub = \"a/b:c\"\ntext = \"t\"\nlabel = \"l\"",
            "x.toml: hub is \"a/b:c\" (expected owner/name of a dataset; config and revision have keys of their own)",
        );
        check(
            "files = \"tickts\"\ntext = \"t\"\nlabel = \"l\"",
            "x.toml: files is \"tickts\" (expected a folder or file next to this manifest)",
        );
        check(
            &with("eval_fraction = 0.1\n[splits]\nvalidation = \"dev\""),
            "x.toml: eval_fraction is \"0.1\" (expected a number between 0 and 1, and only where there is no validation split)",
        );
        check(
            &with("[splits]\ntrain = \"train[\""),
            "x.toml: split train (\"train[\" isn't a split expression (a slice must end in ]; expected such as train, train[:5000], \
             train[10%:] or train[:10%]+validation))",
        );
        check(
            "hub = \"a/b\"\ntext = ",
            "x.toml:2: string values must be quoted, expected literal string",
        );
    }

    proptest! {
        #[test]
        fn never_panics(text in ".*", line in "[a-z]{0,6} ?= ?[\"\\[{0-9.a-z]{0,8}") {
            let _ = read(&text);
            let _ = read(&format!("hub = \"a/b\"\ntext = \"t\"\nlabel = \"l\"\n{line}"));
        }
    }
}
