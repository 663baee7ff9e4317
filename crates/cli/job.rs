//! What a run is: from flags, plan and advice to what is trained on what. Fetches and reads, but computes and writes
//! nothing, so that a dry run can go the same way.

use std::path::{Path, PathBuf};

use anyhow::Result;
use candle_core::Device;
use lowchurn_data::{Columns, Kind, LabelSet, Labels, NewClasses, Split, TextEncoder, labelled};
use lowchurn_distill::{Outputs, Plan, Provenance, SelectBy, TrainOnly, check_trained, remarks};
use lowchurn_hub::Hub;
use lowchurn_models::{Classifier, Config, Head, check_vocabulary};
use serde_json::{Map, Value, json};

use crate::args::Finetune;
use crate::base::{self, Base};
use crate::console::Console;
use crate::data::{self, Data, EvalChoice, Wanted, Wishes};
use crate::device::Compute;
use crate::earlier::source_of;
use crate::failure::Usage;
use crate::places;
use crate::reader::{Part, Reader, unique};
use crate::settings::{self, DEFAULT, Layers, Settings, Source};
use crate::signals::quoted;
use crate::training::HeadOf;

const DEFAULT_MODEL: &str = "minilm-l6";

/// A run as asked for, with nothing fetched yet.
pub struct Job {
    pub layers: Layers,
    pub plan: Plan,
    pub base: Base,
    pub data: Data,
    pub wanted: Wanted,
    pub output: PathBuf,
    pub compute: Compute,
    pub hub: Hub,
}

/// Rows to train on and to judge by, and where the head comes from, which decides the order of their labels.
pub struct Rows {
    pub train: Split,
    pub eval: Option<Split>,
    pub head: HeadOf,
}

/// What a verb that trains on labelled rows is without any flag.
pub struct Verb {
    /// The flag that its base checkpoint is typed with.
    pub base_flag: &'static str,
    /// A whole command, for whoever named no data.
    pub example: &'static str,
    /// Below all other settings.
    pub lowest: Settings,
}

/// Reads the layers of settings and finds what they name.
pub fn open(args: &Finetune, verb: &Verb, console: &mut Console) -> Result<Job> {
    let hub = places::hub()?;
    let plan_file = match &args.plan {
        Some(path) => settings::read_plan(path)?,
        None => Settings::default(),
    };
    if let (Some(path), true) = (&args.plan, plan_file.base.is_some() || plan_file.new.is_some()) {
        let said = "an update's record is no plan of finetune or distil; run update again with the flags that it had";
        return Err(Usage(format!("{}: {said}", path.display())).into());
    }
    let mut flags = Settings { data: args.data.clone(), ..args.method.onto(&args.settings)? };
    if args.probe {
        flags.train_only = Some(TrainOnly::LastLayer);
    }
    let origin = args.plan.as_ref().map_or(String::new(), |path| path.display().to_string());
    let typed = Layers::default().over(&plan_file, &origin)?.over(&flags, "flag")?.settings;
    let base = base::find(verb.base_flag, typed.model.as_deref().unwrap_or(DEFAULT_MODEL))?;
    let layers = Layers::default()
        .over(&verb.lowest, "default")?
        .over(&base.advice, &base.advised_by)?
        .over(&plan_file, &origin)?
        .over(&flags, "flag")?;
    let settings = &layers.settings;
    let Some(source) = &settings.data else {
        return Err(Usage(format!("no data named; try: {}", verb.example)).into());
    };
    // Before the hub is asked; which metric it will be doesn't matter for that.
    let checked = settings::plan(settings, SelectBy::Accuracy)?;
    let is_judged = settings.eval_split.as_deref() != Some("none");
    if checked.patience > 0 && !is_judged {
        return Err(Usage("patience needs an evaluation, but eval_split is none".into()).into());
    }
    if checked.objective.robust().is_some() && !is_judged {
        let said = "objective robust finds its worst class on the rows of the evaluation, and there is none; give an --eval-split";
        return Err(Usage(said.into()).into());
    }
    let device = settings.device.as_deref().unwrap_or("auto");
    let compute = Compute::open(device, checked.precision, console)?;
    let data = data::open(source, &hub, console)?;
    let plan = settings::plan(settings, data.metric().into())?;
    let wanted = wanted(settings, &data);
    let output = args.output.clone().unwrap_or_else(|| Path::new("runs").join(&data.name));
    Ok(Job { plan, base, wanted, output, compute, hub, data, layers })
}

fn wanted(settings: &Settings, data: &Data) -> Wanted {
    let s = settings.clone();
    Wanted {
        train: s.train_split.or(data.split.clone()).unwrap_or_else(|| first_split(data)),
        eval: s.eval_split,
        eval_fraction: s.eval_fraction,
        wishes: Wishes {
            columns: Columns {
                text: s.text_column,
                pair: s.pair_column,
                label: s.label_column,
                id: s.id_column,
            },
            kind: s.problem_type,
        },
    }
}

/// `train`, or the only split there is: a file called `dev.csv` is all that was given.
fn first_split(data: &Data) -> String {
    match data.split_names().as_slice() {
        [only] => only.clone(),
        _ => "train".into(),
    }
}

/// Refuses methods that need a deployed model: its weights, its rows, or its predictions of held-out rows.
pub fn refuse_deployed(plan: &Plan, verb: &str) -> Result<()> {
    let (method, needs) = (plan.method.name(), plan.method.needs());
    let what = match () {
        () if needs.old_weights => "the weights of a deployed model",
        () if needs.old_rows => "to know which rows a deployed model has seen",
        () if needs.buffer => "held-out rows to measure churn on",
        () => return Ok(()),
    };
    Err(Usage(format!(
        "method {method} needs {what}, and {verb} has none; use lowchurn update --base DIR --method {}",
        quoted(&plan.method.to_string())
    ))
    .into())
}

/// Each seed's plan and folder.
pub fn plans(job: &Job, args: &Finetune) -> Vec<(Plan, PathBuf)> {
    let of = |n: u64| {
        let seed = job.plan.seed.saturating_add(n);
        let output = match args.seeds {
            1 => job.output.clone(),
            _ => job.output.join(format!("seed-{seed}")),
        };
        (Plan { seed, ..job.plan.clone() }, output)
    };
    (0..u64::from(args.seeds)).map(of).collect()
}

/// Config and tokenizer of the base, held against each other and against the plan.
pub fn open_base(job: &Job, folder: &Path) -> Result<(Config, TextEncoder)> {
    let encoder = TextEncoder::open(folder)?;
    let config = Config::open(folder)?;
    check_vocabulary(&config, encoder.vocab_size(), encoder.pad_id(), folder)?;
    check_trained(&job.plan, &config)?;
    let (length, most) = (job.plan.max_length, config.max_positions);
    if length > most {
        let name = &job.base.name;
        return Err(
            Usage(format!("--max-length {length}: {name} reads at most {most} tokens")).into()
        );
    }
    Ok((config, encoder))
}

/// Reads the rows. Where the base knows the same classes by name, its order of them and its head are kept.
pub fn rows(
    data: &Data,
    job: &Job,
    (folder, base): (&Path, &Config),
    hub: &Hub,
    console: &mut Console,
) -> Result<Rows> {
    let (train, eval) = data.train_and_eval(&job.wanted, hub, console)?;
    let (known, found) = (&base.labels, train.labels.names());
    let is_named = !known.is_empty() && known.iter().any(|name| !name.starts_with("LABEL_"));
    let is_same = known.len() == found.len() && known.iter().all(|name| found.contains(name));
    let name = &job.base.name;
    let is_same = is_same && Outputs::of(base)?.kind == Kind::of(&train.examples);
    if !is_named || job.layers.settings.fresh_head == Some(true) {
        return Ok(Rows { train, eval, head: HeadOf::Seed });
    }
    if !is_same {
        let (known, found) = (known.join(", "), found.join(", "));
        console.tell(&format!(
            "{name}: its labels ({known}) aren't the data's ({found}), so the head starts anew"
        ))?;
        return Ok(Rows { train, eval, head: HeadOf::Seed });
    }
    // Class names without a head are a leftover in an encoder's config.
    let opened = Classifier::open(folder, Head::FromCheckpoint, &Device::Cpu);
    if matches!(opened, Err(lowchurn_models::Error::NoHead { .. })) {
        return Ok(Rows { train, eval, head: HeadOf::Seed });
    }
    let order = LabelSet::new(known.clone())?;
    console.tell(&format!("head and label order of {name} kept; --fresh-head starts anew"))?;
    let eval = eval.map(|eval| in_order(eval, &order));
    Ok(Rows { train: in_order(train, &order), eval, head: HeadOf::Base })
}

/// The same rows with their label indices in another order of the same names.
fn in_order(split: Split, order: &LabelSet) -> Split {
    let to: Vec<Option<u32>> =
        split.labels.names().iter().map(|name| order.index_of(name)).collect();
    let mut examples = split.examples;
    for row in &mut examples {
        row.with_classes(|label| *to.get(label as usize)?);
    }
    Split::new(&split.name, examples, order.clone())
}

impl Rows {
    /// The rows that have a label; an error where training has none.
    pub fn labelled(self) -> Result<Rows> {
        let (train, eval) = (labelled(self.train), self.eval.map(labelled));
        if train.examples.is_empty() {
            let (name, path) = (&train.name, "give another --train-split or --label-column");
            return Err(Usage(format!("{name}: no row has a label; {path}")).into());
        }
        Ok(Rows { train, eval, head: self.head })
    }

    /// Frees the rows; names, labels and hashes stay.
    pub fn forget_texts(&mut self) {
        self.train.examples = Vec::new();
        if let Some(eval) = &mut self.eval {
            eval.examples = Vec::new();
        }
    }

    /// The same with rows of other sources behind those to train on, whose labels aren't read, and what it takes to read those again.
    pub fn with_unlabelled(
        self,
        sources: &[String],
        job: &Job,
        console: &mut Console,
    ) -> Result<(Rows, Vec<Source>)> {
        if sources.is_empty() {
            return Ok((self, Vec::new()));
        }
        let labels = self.train.labels.clone();
        let mut reader = Reader {
            wishes: job.wanted.wishes.clone(),
            labels: labels.names().to_vec(),
            map: Vec::new(),
            new_classes: NewClasses::Refused,
            said: Vec::new(),
            seen: Vec::new(),
            hub: &job.hub,
        };
        let mut parts =
            vec![Part { name: self.train.name, examples: self.train.examples, ..Part::default() }];
        let mut read = Vec::new();
        for source in sources {
            let part = reader.read(source, None, "train", Labels::Ignored, console)?;
            read.push(source_of(&part, labels.names())?);
            parts.push(part);
        }
        let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
        let name = names.join(" + ");
        Ok((Rows { train: Split::new(&name, unique(parts), labels), ..self }, read))
    }
}

/// What the weights will depend on. Names are for people; what is compared are the hashes.
pub fn provenance(job: &Job, base_folder: &Path, rows: &Rows, plan: Plan) -> Result<Provenance> {
    let device = &job.compute.device;
    let mut made = Provenance::of(plan, base_folder, &rows.train, rows.eval.as_ref(), device)?;
    made.base = job.base.origin(base_folder);
    // What of the base is used is part of what it is.
    if rows.head == HeadOf::Base {
        made.base.push_str(" with its head");
        made.base_sha256.push_str("+head");
    }
    if let Some(origin) = job.data.origin() {
        made.train.push_str(&format!(" ({origin})"));
        if rows.eval.is_some() {
            made.eval.push_str(&format!(" ({origin})"));
        }
    }
    Ok(made)
}

/// The settings with what was left to the data or the task filled in.
pub fn settled(job: &Job) -> Settings {
    let columns = job.data.columns(&job.wanted.wishes);
    let (eval_split, eval_fraction) = match job.data.eval_choice(&job.wanted) {
        EvalChoice::None => (Some("none".into()), None),
        EvalChoice::Split(split) => (Some(split), None),
        EvalChoice::Cut(fraction) => (None, Some(fraction)),
    };
    Settings {
        model: Some(job.base.name.clone()),
        train_split: Some(job.wanted.train.clone()),
        eval_split,
        eval_fraction,
        text_column: columns.text,
        pair_column: columns.pair,
        label_column: columns.label,
        id_column: columns.id,
        ..job.layers.settings.clone()
    }
}

/// Each value that decides the result, and where it is from.
pub fn tell_settings(job: &Job, console: &mut Console) -> Result<()> {
    tell_plan(&job.plan, &job.layers, &job.base.name, console)
}

/// What of a plan can't take effect in a run of so many updates, and so many an epoch; refuses a λ that leaves its range in it.
pub fn tell_remarks(
    plan: &Plan,
    (total, per_epoch): (u64, u64),
    console: &mut Console,
) -> Result<()> {
    if let Some(lambda) = plan.method.lambda() {
        lambda.check(total)?;
    }
    remarks(plan, total, per_epoch).iter().for_each(|line| console.say(line));
    Ok(())
}

pub fn tell_plan(plan: &Plan, layers: &Layers, base: &str, console: &mut Console) -> Result<()> {
    let Value::Object(plan) = serde_json::to_value(plan)? else { return Ok(()) };
    for (origin, values) in by_origin(&plan, layers) {
        console.tell(&format!("plan: {} ({origin})", values.join(", ")))?;
    }
    console.event(&json!({ "event": "plan", "plan": plan, "base": base }));
    Ok(())
}

/// The plan's values by where each is from, the defaults last: what was asked for is read first.
fn by_origin<'a>(plan: &Map<String, Value>, layers: &'a Layers) -> Vec<(&'a str, Vec<String>)> {
    let mut groups: Vec<(&str, Vec<String>)> = Vec::new();
    for (key, value) in plan {
        let (origin, shown) = (layers.origin(key), format!("{key} {value}"));
        match groups.iter_mut().find(|(name, _)| *name == origin) {
            Some((_, values)) => values.push(shown),
            None => groups.push((origin, vec![shown])),
        }
    }
    groups.sort_by_key(|(origin, _)| *origin == DEFAULT);
    groups
}
