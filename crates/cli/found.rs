//! A model as it lies on the disk, and its logits on rows: from its table, or computed.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use lowchurn_churn::Predicted;
use lowchurn_data::{Encoded, Example, Kind, Split, TextEncoder, encode};
use lowchurn_distill::{
    Combine, Event, Fingerprint, OldWeights, Outputs, Plan, Predictions, Scoring, Table, Teacher,
    TextVector, predict, sha256_of_model, table_file_name, teacher_key,
};
use lowchurn_hub::Hub;
use lowchurn_models::{
    Classifier, Config, Error as ModelError, Head, check_vocabulary, is_head, labels_of,
};

use crate::console::Console;
use crate::device::Compute;
use crate::failure::Usage;
use crate::kinds::Reading;
use crate::progress::{Status, count};
use crate::{base, kinds, served, shipped, signals};

/// A model as it lies on the disk.
#[derive(Clone)]
pub struct Found {
    pub name: String,
    pub folder: PathBuf,
    pub sha256: String,
    pub labels: Vec<String>,
    pub outputs: Outputs,
    pub max_length: usize,
    /// Tables are of these vectors instead of logits.
    pub vector: Option<TextVector>,
}

/// What a folder holds, checked as far as that goes without its weights.
pub fn describe(name: &str, folder: PathBuf) -> Result<Found> {
    let config = Config { labels: labels_of(&folder)?, ..Config::open(&folder)? };
    if config.labels.is_empty() {
        return Err(no_head(name));
    }
    let max_length = own_length(&folder, &config)?;
    let sha256 = sha256_of_model(&folder)?;
    let outputs = Outputs::of(&config).with_context(|| folder.display().to_string())?;
    let (name, labels) = (name.into(), config.labels);
    Ok(Found { name, sha256, labels, outputs, max_length, folder, vector: None })
}

/// Where texts are cut for a model: as in the run that made it, and of a model without a record where its tokenizer says; nowhere
/// beyond its positions.
///
/// Errors: a record that can't be read.
pub fn own_length(folder: &Path, config: &Config) -> Result<usize> {
    let path = folder.join("run.toml");
    let text = if path.is_file() { std::fs::read_to_string(&path) } else { Ok(String::new()) };
    let shown = || path.display().to_string();
    let run: toml::Table = text.with_context(shown)?.parse().with_context(shown)?;
    let length = run.get("max_length").and_then(toml::Value::as_integer);
    let recorded = length.and_then(|length| usize::try_from(length).ok());
    Ok(recorded.unwrap_or_else(|| served::longest(folder)).min(config.max_positions))
}

impl Found {
    /// A model whose vectors of texts are wanted; it needs no head.
    pub fn for_vectors(
        name: &str,
        folder: PathBuf,
        vector: TextVector,
        max_length: usize,
    ) -> Result<Found> {
        let config = Config::open(&folder)?;
        let labels = (0..config.hidden_size).map(|channel| channel.to_string()).collect();
        let max_length = max_length.min(config.max_positions);
        let (name, sha256) = (name.into(), sha256_of_model(&folder)?);
        let outputs = Outputs::default();
        Ok(Found { name, sha256, labels, outputs, max_length, folder, vector: Some(vector) })
    }
}

/// A model that is asked for states alone. What its last layer would be doesn't matter, and it may have none.
pub fn open_encoder(
    name: &str,
    folder: &Path,
    vector: TextVector,
    compute: &Compute,
) -> Result<Classifier> {
    let head = Head::Fresh { labels: vec!["none".into()], normal: &mut || 0.0 };
    let (mut model, report) = Classifier::open(folder, head, &compute.device)?;
    let made_up = report.fresh.iter().find(|name| !is_head(name));
    if let Some(made_up) = made_up.filter(|_| vector == TextVector::Pooled) {
        return Err(Usage(format!(
            "--teacher-vector pooled: {name} lacks {made_up}, which makes that vector; take mean or first"
        ))
        .into());
    }
    model.precision = compute.precision;
    Ok(model)
}

/// A folder's tokenizer, held against its model.
pub fn encoder_of(config: &Config, folder: &Path) -> Result<TextEncoder> {
    let encoder = TextEncoder::open(folder)?;
    check_vocabulary(config, encoder.vocab_size(), encoder.pad_id(), folder)?;
    Ok(encoder)
}

fn no_head(name: &str) -> anyhow::Error {
    anyhow!(
        "{name} has no classification head; train it first: lowchurn finetune DATA --model {name}"
    )
}

pub fn open_model(found: &Found, compute: &Compute) -> Result<Classifier> {
    let opened = Classifier::open(&found.folder, Head::FromCheckpoint, &compute.device);
    let (mut model, _) = opened.map_err(|error| match error {
        ModelError::NoHead { .. } => no_head(&found.name),
        error => error.into(),
    })?;
    model.precision = compute.precision;
    Ok(model)
}

pub fn tokens_of(found: &Found, config: &Config, examples: &[Example]) -> Result<Encoded> {
    let encoder = encoder_of(config, &found.folder)?;
    Ok(encode(&encoder, examples, found.max_length)?)
}

/// A model's logits on the rows of a split, from its table where there is one. `None` where it was interrupted.
pub fn table(
    found: &Found,
    split: &Split,
    tables: &Path,
    compute: &Compute,
    console: &mut Console,
) -> Result<Option<Table>> {
    let fingerprint = fingerprint(found, split, compute)?;
    let path = tables.join(table_file_name(&fingerprint));
    if path.exists() {
        let mut table = Table::open(&path, &fingerprint)?;
        // The same weights may have been scored under another name.
        table.teacher.name.clone_from(&found.name);
        return Ok(Some(table));
    }
    std::fs::create_dir_all(tables)?;
    match shipped::completed(found, split, (&path, &fingerprint), compute, console)? {
        Some(shipped::Done::Whole(table)) => Ok(Some(*table)),
        Some(shipped::Done::Interrupted) => Ok(None),
        None => built(found, split, tables, compute, console),
    }
}

/// What the table of these rows depends on.
fn fingerprint(found: &Found, split: &Split, compute: &Compute) -> Result<Fingerprint> {
    let Found { name, folder, labels, max_length, .. } = found;
    Ok(Fingerprint {
        precision: compute.precision,
        vector: found.vector,
        ..Fingerprint::of(name, folder, labels, *max_length, &split.examples)?
    })
}

/// The same, whatever the model brings along.
pub fn built(
    found: &Found,
    split: &Split,
    tables: &Path,
    compute: &Compute,
    console: &mut Console,
) -> Result<Option<Table>> {
    let Found { name, folder, .. } = found;
    let (fingerprint, device) = (fingerprint(found, split, compute)?, &compute.device);
    let (path, fingerprint) = (tables.join(table_file_name(&fingerprint)), &fingerprint);
    signals::work_begins();
    let model = match found.vector {
        Some(vector) => open_encoder(name, folder, vector, compute)?,
        None => open_model(found, compute)?,
    };
    let rows = tokens_of(found, &model.config, &split.examples)?;
    let (cut, length) = (count(rows.n_truncated as u64), found.max_length);
    let scoring = Scoring { model: &model, rows: &rows, fingerprint, batch_size: 64, device };
    let (start, n) = (Instant::now(), rows.rows());
    let mut status = Status::new();
    status.evaluating = "scoring";
    let table = Table::open_or_build(&path, &scoring, &signals::STOP, &mut |done| {
        let event = Event::Evaluating { done, rows: n };
        status.show(&event, start.elapsed(), &console.terminal, &mut console.err);
    });
    status.end(&mut console.err);
    let table = table?;
    if table.is_none() {
        console.say(&format!(
            "{name} on {}: stopped, what is scored is kept; go on with the same command: {}",
            split.name,
            signals::command_that_goes_on(),
        ));
    } else {
        let rate = n as f64 / start.elapsed().as_secs_f64();
        let (n, of) = (count(n as u64), &split.name);
        let cut = if rows.n_truncated > 0 {
            format!(", {cut} of them cut at {length} tokens")
        } else {
            String::new()
        };
        console.say(&format!("{name} on {of}: {n} rows scored once{cut}, {rate:.0} rows/s"));
    }
    Ok(table)
}

/// Logits as answers on the rows of `split`, beside the true ones.
pub fn predicted(
    found: &Found,
    split: &Split,
    labels: &[String],
    tolerance: Option<f64>,
    logits: &[f32],
) -> Result<Predicted> {
    let reading = Reading { outputs: &found.outputs, labels, rows: split, tolerance };
    kinds::answers(&found.name, &reading, logits)
}

/// A model's logits on encoded rows.
pub fn logits(
    model: &Classifier,
    tokens: &Encoded,
    compute: &Compute,
    console: &mut Console,
) -> Result<Predictions> {
    let (start, rows) = (Instant::now(), tokens.rows());
    let mut status = Status::new();
    status.evaluating = "scoring";
    let found = predict(model, tokens, 64, &compute.device, &mut |done| {
        let event = Event::Evaluating { done, rows };
        status.show(&event, start.elapsed(), &console.terminal, &mut console.err);
    });
    status.end(&mut console.err);
    Ok(found?)
}

/// Who is followed, as the user named them.
pub struct Teachers<'t> {
    pub names: &'t [String],
    pub combine: Combine,
    pub map: &'t [(String, String)],
    pub tables: &'t Path,
    /// The deployed model, where there is one: a teacher of its name is cut where it is.
    pub deployed: Option<&'t Found>,
}

/// What the teachers say on the rows of a split, with their names and the names of their tables. `None` where it was
/// interrupted.
pub fn teacher(
    asked: &Teachers,
    split: &Split,
    hub: &Hub,
    compute: &Compute,
    console: &mut Console,
) -> Result<Option<(Teacher, (String, String))>> {
    let kind = Kind::of(&split.examples);
    if kind != Kind::SingleLabel && asked.names.len() > 1 && asked.combine != Combine::Logits {
        return Err(Usage(format!(
            "several teachers of a {} task: their logits are what can be averaged, say so with --ensemble logits",
            kind.name()
        ))
        .into());
    }
    let (mut tables, mut fingerprints) = (Vec::new(), Vec::new());
    for name in asked.names {
        let base = base::find("--teacher", name)?;
        let folder = base.folder(hub, console)?;
        shipped::fetch(&base, hub, console)?;
        let found = match asked.deployed.filter(|deployed| deployed.name == *name) {
            Some(deployed) => deployed.clone(),
            None => describe(name, folder)?,
        };
        kinds::refuse_other_teacher(name, found.outputs.kind, kind)?;
        let Some(table) = table(&found, split, asked.tables, compute, console)? else {
            return Ok(None);
        };
        fingerprints.push(table_file_name(&table.teacher));
        tables.push(table);
    }
    let ids: Vec<String> = split.examples.iter().map(|row| row.id.clone()).collect();
    let labels = split.labels.names();
    let teacher = Teacher::of(&tables, &ids, labels, asked.map, asked.combine)?;
    for line in &teacher.said {
        console.tell(&format!("teacher: {line}"))?;
    }
    let name = asked.names.join(", ");
    let key = teacher_key(&fingerprints, asked.combine, asked.map);
    Ok(Some((teacher, (name, key))))
}

/// Refuses several teachers where a plan asks more of one than its logits, which alone have a mean.
pub fn refuse_several(plan: &Plan, names: &[String]) -> Result<()> {
    let reduction = plan.variance_reduction;
    let what = match (reduction.needs_teacher_weights(), plan.states) {
        (true, _) => format!("variance reduction {reduction} takes the gradients of"),
        (false, Some(_)) => "hidden, attention, relation and vector weights follow".into(),
        (false, None) => return Ok(()),
    };
    match names.len() {
        1 => Ok(()),
        n => {
            let said = format!("{what} one teacher, and {n} are named; leave the others out");
            Err(Usage(said).into())
        }
    }
}

/// The weights of the one teacher, where a plan takes its gradients; its classes have to be the student's, in their order. Whether
/// their shapes fit is seen when training starts.
pub fn teacher_weights(
    plan: &Plan,
    names: &[String],
    labels: &[String],
    hub: &Hub,
    compute: &Compute,
    console: &mut Console,
) -> Result<Option<OldWeights>> {
    refuse_several(plan, names)?;
    let reduction = plan.variance_reduction;
    let ([name], true) = (names, reduction.needs_teacher_weights()) else { return Ok(None) };
    let found = describe(name, base::find("--teacher", name)?.folder(hub, console)?)?;
    if found.labels != labels {
        let (theirs, own) = (found.labels.join(", "), labels.join(", "));
        return Err(Usage(format!(
            "variance reduction {reduction} needs the teacher's classes in the student's order: those of {name} are {theirs}, the \
             student's {own}; with kd its logits are enough"
        ))
        .into());
    }
    Ok(Some(OldWeights::copy_of(&open_model(&found, compute)?.params)?))
}
