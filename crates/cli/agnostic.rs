//! `distil --task-agnostic`: a student of a teacher's states on texts of any kind → a base checkpoint without a head.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use lowchurn_data::{LabelSet, Labels, NewClasses, Split, encode};
use lowchurn_distill::{Guides, Provenance};

use crate::args::{Distil, Finetune};
use crate::chosen::Chosen;
use crate::console::Console;
use crate::earlier::{Record, learnt_by, source_of};
use crate::failure::{INTERRUPTED, Usage};
use crate::job::{self, Job, Rows, Verb};
use crate::reader::{Part, Reader, unique};
use crate::settings::{self, Settings, Source};
use crate::training::{self, HeadOf, Start, Training, WeightsFrom};
use crate::{distil, finetune, output, shows};

/// A head that nothing trains and that is not kept.
const CLASSES: [&str; 2] = ["LABEL_0", "LABEL_1"];

pub fn distil(
    args: &Distil,
    run: &Finetune,
    started: Instant,
    console: &mut Console,
) -> Result<u8> {
    let sources: Vec<String> =
        run.data.iter().chain(&args.texts).chain(&args.unlabelled).cloned().collect();
    let Some(first) = sources.first().cloned() else {
        return Err(Usage(
            "no texts named; try: lowchurn distil --task-agnostic --data sst2 …".into(),
        )
        .into());
    };
    let s = &run.settings;
    let meaningless = [
        ("--seeds", run.seeds > 1),
        ("--emit-soft-labels", args.emit_soft_labels.is_some()),
        ("--label-map", args.label_map.is_some()),
        ("--dry-run", run.dry_run),
        ("--probe", run.probe),
        ("--train-split", s.train_split.is_some()),
        ("--eval-split", s.eval_split.is_some()),
        ("--eval-fraction", s.eval_fraction.is_some()),
        ("--patience", s.patience.is_some()),
        ("--select-by", s.select_by.is_some()),
        ("--problem-type", s.problem_type.is_some()),
        ("--class-weights", s.class_weights.is_some()),
        ("--threshold", s.threshold.is_some()),
        ("--fresh-head", s.fresh_head.is_some()),
    ];
    if let Some((flag, _)) = meaningless.iter().find(|(_, is_set)| *is_set) {
        return Err(
            Usage(format!("{flag} has no meaning with --task-agnostic; leave it out")).into()
        );
    }
    let run = Finetune { data: Some(first), ..run.clone() };
    let verb = Verb {
        base_flag: distil::base_flag(args),
        example: "lowchurn distil --task-agnostic --data sst2 …",
        lowest: Settings { eval_split: Some("none".into()), ..Settings::default() },
    };
    let mut job = job::open(&run, &verb, console)?;
    if run.output.is_none() {
        job.output = Path::new("runs").join(format!("{}-base", job.data.name));
    }
    if job.plan.states.is_none() {
        return Err(Usage(
            "--task-agnostic follows no logits, so say what it follows: --vector-weight, --hidden-weight, --attention-weight or \
             --relation-weight"
                .into(),
        )
        .into());
    }
    output::check(&job.output)?;
    let folder = job.base.folder(&job.hub, console)?;
    let (config, encoder) = job::open_base(&job, &folder)?;
    job::tell_settings(&job, console)?;
    let (rows, read) = texts(&sources, &job, console)?;
    let weights = WeightsFrom::of(&folder);
    let mut learnt = match weights {
        WeightsFrom::Folder => learnt_by(&folder)?,
        WeightsFrom::Seed => Record::default(),
    };
    // The first is the run's data.
    learnt.seen.extend(read.into_iter().skip(1));
    learnt.behind(&mut job.layers.settings);
    let tokens = encode(&encoder, &rows.train.examples, job.plan.max_length)?;
    finetune::tell_tokens(&tokens, None, &job.plan, console)?;
    let Some(shows) =
        shows::shows(&args.teacher, &rows.train, &tokens, &config, &job, &args.tables, console)?
    else {
        return Ok(INTERRUPTED);
    };
    let plan = job.plan.clone();
    let training = Training {
        start: Start {
            folder: folder.clone(),
            labels: rows.train.labels.names().to_vec(),
            head: rows.head,
            weights,
        },
        provenance: Provenance {
            teacher: Some((args.teacher.join(", "), shows.keys.join(" "))),
            ..job::provenance(&job, &folder, &rows, plan.clone())?
        },
        settings: settings::resolved(&job::settled(&job), &plan)?,
        chose: Chosen::default(),
        output: &job.output,
        train: &tokens,
        eval: None,
        guides: Guides { shown: shows.lend(), ..Guides::default() },
        device: &job.compute.device,
        is_fresh: run.fresh,
    };
    match training::run(&training, started, console)? {
        Some(_) => Ok(0),
        None => Ok(INTERRUPTED),
    }
}

/// The texts of all sources, and what it takes to read each again; rows that hold the same text count as often as they are there.
fn texts(sources: &[String], job: &Job, console: &mut Console) -> Result<(Rows, Vec<Source>)> {
    let labels: Vec<String> = CLASSES.iter().map(|name| name.to_string()).collect();
    let mut reader = Reader {
        wishes: job.wanted.wishes.clone(),
        labels: labels.clone(),
        map: Vec::new(),
        new_classes: NewClasses::Refused,
        said: Vec::new(),
        seen: Vec::new(),
        hub: &job.hub,
    };
    let mut parts: Vec<Part> = Vec::new();
    for source in sources {
        parts.push(reader.read(source, None, "train", Labels::Ignored, console)?);
    }
    let read = parts.iter().map(|part| source_of(part, &labels)).collect::<Result<_>>()?;
    let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
    let name = names.join(" + ");
    let train = Split::new(&name, unique(parts), LabelSet::new(labels)?);
    Ok((Rows { train, eval: None, head: HeadOf::Seed }, read))
}
