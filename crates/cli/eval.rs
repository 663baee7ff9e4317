//! `eval` and what it shares with `predict`: a model on the rows of a split.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, anyhow};
use lowchurn_data::alignment::refuse_unused;
use lowchurn_data::{
    Columns, Kind, LabelSet, Labels, NewClasses, Split, Targets, TextEncoder, encode, parse_map,
};
use lowchurn_distill::{
    Event, Outputs, Predictions, WorstClasses, evaluate_targets, predict, worst_classes,
};
use lowchurn_hub::Hub;
use lowchurn_models::{Classifier, Error as ModelError, Head, check_vocabulary};
use serde_json::json;

use crate::args::{Eval, Scoring};
use crate::console::Console;
use crate::data::Wishes;
use crate::device::{self, Compute};
use crate::failure::Usage;
use crate::found::own_length;
use crate::machine::peak_rss_mib;
use crate::progress::{Status, count, printable, scores_line};
use crate::reader::{Reader, numbers_as_places};
use crate::{base, data, output, places};

/// Rows with the logits of a model.
pub struct Scored {
    pub split: Split,
    pub predictions: Predictions,
    pub labels: Vec<String>,
    pub outputs: Outputs,
    /// Rows that were cut at the greatest length.
    pub n_truncated: usize,
    /// Of the forward passes alone.
    pub seconds: f64,
}

pub fn eval(args: Eval, console: &mut Console) -> Result<u8> {
    let asked = Asked {
        model: &args.model,
        data: &args.data,
        split: args.split.as_deref(),
        labels: Labels::Required,
        scoring: &args.scoring,
        threshold: args.threshold,
        label_map: args.label_map.as_deref(),
        output: None,
    };
    let scored = score(&asked, console)?;
    let gold: Vec<Option<u32>> = scored.split.examples.iter().map(|row| row.label).collect();
    let targets = Targets::of(&scored.split.examples);
    let scores = evaluate_targets(&scored.predictions, &gold, &targets, &scored.outputs)?;
    console.tell(&format!(
        "{} on {}: {}, {} rows{}, {:.0} rows/s",
        args.model,
        scored.split.name,
        scores_line(&scores),
        count(scores.rows),
        match gold.len() as u64 - scores.rows {
            0 => String::new(),
            n => format!(" ({} without a label left out)", count(n)),
        },
        gold.len() as f64 / scored.seconds,
    ))?;
    let mut event = json!({
        "event": "finished", "metrics": scores, "model": args.model, "data": scored.split.name,
        "truncated": scored.n_truncated, "eval_seconds": scored.seconds, "peak_rss_mib": peak_rss_mib(),
    });
    if scored.outputs.kind == Kind::SingleLabel
        && let Some(worst) = worst_classes(&scored.predictions, &gold, args.worst_k as usize)?
    {
        let name = &scored.labels[worst.class as usize];
        console.tell(&worst_line(&worst, name))?;
        event["worst_class"] = json!({
            "label": name, "recall": worst.recall, "k": worst.k, "mean_of_worst": worst.mean_of_worst,
        });
    }
    console.event(&event);
    Ok(0)
}

fn worst_line(worst: &WorstClasses, name: &str) -> String {
    let WorstClasses { recall, mean_of_worst, k, .. } = worst;
    let mean = mean_of_worst
        .map_or(String::new(), |mean| format!("; mean of the {k} worst {:.2} %", 100.0 * mean));
    format!("worst class: {}, recall {:.2} %{mean}", printable(name), 100.0 * recall)
}

/// What is to be scored, as the user named it.
pub struct Asked<'a> {
    pub model: &'a str,
    pub data: &'a str,
    pub split: Option<&'a str>,
    pub labels: Labels,
    pub scoring: &'a Scoring,
    /// In place of the model's own.
    pub threshold: Option<f64>,
    /// Names that the data has for the model's labels, as typed.
    pub label_map: Option<&'a str>,
    /// Where rows will be written: not over what they are made from.
    pub output: Option<&'a Path>,
}

/// Opens model and data, aligns labels by name, and runs the model over every row.
pub fn score(asked: &Asked, console: &mut Console) -> Result<Scored> {
    let Asked { model, labels, scoring, .. } = *asked;
    let hub = places::hub()?;
    let precision = device::precision(scoring.bf16);
    let Compute { device, .. } = Compute::open(&scoring.device, precision, console)?;
    if scoring.batch_size == 0 {
        return Err(Usage("--batch-size 0: expected at least 1".into()).into());
    }
    let model_folder = base::find("--model", model)?.folder(&hub, console)?;
    let opened = Classifier::open(&model_folder, Head::FromCheckpoint, &device);
    let (mut classifier, _) = opened.map_err(|error| match error {
        ModelError::NoHead { .. } => anyhow!(
            "{model} has no classification head; train it first: lowchurn finetune DATA --model {model}"
        ),
        error => error.into(),
    })?;
    classifier.precision = precision;
    let outputs = outputs(&classifier, asked)?;
    let label_set = LabelSet::of_outputs(classifier.labels().to_vec())?;
    let data = data::open(asked.data, &hub, console)?;
    if let Some(output) = asked.output {
        output::refuse_sources(output, &data.local_files(), &model_folder)?;
    }
    let all = data.split_names();
    let is_said = asked.split.is_some() || data.split.is_some() || all.len() == 1;
    let split = chosen_split(asked.split, &data)?;
    if !is_said {
        console.say(&format!(
            "{}: split {split} of {}; --split names another",
            data.name,
            all.join(", ")
        ));
    }
    let wishes = wishes(scoring, outputs.kind);
    let split = match asked.label_map {
        None => {
            let rows = data.read(&split, &wishes, labels, Some(&label_set), &hub, console)?;
            if labels != Labels::Ignored
                && let Some(said) =
                    numbers_as_places(&rows, (&data, &split), &wishes, &hub, console)
            {
                console.say(&format!("labels: {said}"));
            }
            rows
        }
        Some(map) => renamed(asked, map, (&split, wishes), label_set, &hub, console)?,
    };
    let encoder = TextEncoder::open(&model_folder)?;
    check_vocabulary(&classifier.config, encoder.vocab_size(), encoder.pad_id(), &model_folder)?;
    let most = classifier.config.max_positions;
    let max_length = match scoring.max_length {
        Some(asked) if asked > most => {
            return Err(Usage(format!(
                "--max-length {asked}: {model} reads at most {most} tokens"
            ))
            .into());
        }
        Some(asked) => asked,
        None => own_length(&model_folder, &classifier.config)?,
    };
    let tokens = encode(&encoder, &split.examples, max_length)?;
    if tokens.n_truncated > 0 {
        let n = count(tokens.n_truncated as u64);
        console.say(&format!("{n} of {} rows cut at {max_length} tokens", tokens.rows()));
    }
    let start = Instant::now();
    let mut status = Status::new();
    let rows = tokens.rows();
    let predictions = predict(&classifier, &tokens, scoring.batch_size, &device, &mut |done| {
        let event = Event::Evaluating { done, rows };
        status.show(&event, start.elapsed(), &console.terminal, &mut console.err);
    });
    status.end(&mut console.err);
    let predictions = predictions?;
    let seconds = start.elapsed().as_secs_f64();
    let labels = classifier.labels().to_vec();
    Ok(Scored { split, predictions, labels, outputs, n_truncated: tokens.n_truncated, seconds })
}

/// How rows are read whose columns may be named.
pub fn wishes(scoring: &Scoring, kind: Kind) -> Wishes {
    let columns = Columns {
        text: scoring.text_column.clone(),
        pair: scoring.pair_column.clone(),
        label: scoring.label_column.clone(),
        id: scoring.id_column.clone(),
    };
    Wishes { columns, kind: Some(kind) }
}

fn outputs(model: &Classifier, asked: &Asked) -> Result<Outputs> {
    let outputs = Outputs::of(&model.config)?;
    match (asked.threshold, outputs.kind) {
        (None, _) => Ok(outputs),
        (Some(value), _) if !(value > 0.0 && value < 1.0) => {
            Err(Usage(format!("--threshold {value}: expected a number between 0 and 1")).into())
        }
        (Some(value), Kind::MultiLabel) => Ok(outputs.with_threshold(value)),
        (Some(value), kind) => Err(Usage(format!(
            "--threshold {value} is for multi-label tasks, and {} is a {} model; leave it out",
            asked.model,
            kind.name()
        ))
        .into()),
    }
}

/// Rows whose labels are brought to the model's by a map.
fn renamed(
    asked: &Asked,
    map: &str,
    (split, wishes): (&str, Wishes),
    labels: LabelSet,
    hub: &Hub,
    console: &mut Console,
) -> Result<Split> {
    let mut reader = Reader {
        wishes,
        labels: labels.names().to_vec(),
        map: parse_map(map)?,
        new_classes: NewClasses::Refused,
        said: Vec::new(),
        seen: Vec::new(),
        hub,
    };
    let part = reader.read(asked.data, Some(split), split, asked.labels, console)?;
    let seen: Vec<&[String]> = reader.seen.iter().map(Vec::as_slice).collect();
    refuse_unused(&reader.map, &seen)?;
    for line in &reader.said {
        console.say(&format!("labels: {line}"));
    }
    Ok(Split::new(&part.name, part.examples, labels))
}

/// The split asked for; else the one named with the data; else validation, or the only one.
pub fn chosen_split(asked: Option<&str>, data: &data::Data) -> Result<String> {
    let names = data.split_names();
    let only = match names.as_slice() {
        [only] => Some(only.clone()),
        _ => names.iter().find(|name| *name == "validation").cloned(),
    };
    let chosen = asked.map(str::to_string).or(data.split.clone()).or(only);
    chosen.ok_or_else(|| {
        Usage(format!(
            "{} has several splits; say which with --split: {}",
            data.name,
            names.join(", ")
        ))
        .into()
    })
}
