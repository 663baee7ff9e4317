//! What `update` and `sweep` share: the deployed model, the rows, the teacher's table, and one training from them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use lowchurn_churn::Predicted;
use lowchurn_data::{Encoded, Example, TextEncoder, encode, parse_map};
use lowchurn_distill::{
    Combine, Guides, Method, OldWeights, Plan, Predictions, Provenance, SelectBy, Teacher,
    check_trained, sha256_of_model,
};
use lowchurn_hub::Hub;
use lowchurn_models::{Classifier, Config, check_vocabulary};

use crate::args::{Deployed, Ensemble, Init};
use crate::certification::calibration_rows;
use crate::chosen::Chosen;
use crate::console::Console;
use crate::device::Compute;
use crate::failure::Usage;
use crate::found::{
    Found, Teachers, describe, logits, open_model, predicted, table, teacher, teacher_weights,
    tokens_of,
};
use crate::progress::count;
use crate::rows::{self, SharedTexts, UpdateRows};
use crate::settings::{self, Layers, Settings};
use crate::training::{self, Ended, HeadOf, Start, Training, WeightsFrom};
use crate::{base, information, job, kinds, places, recipe, steering};

/// Everything that trainings from one deployed model have in common.
pub struct Updating {
    pub hub: Hub,
    pub compute: Compute,
    pub layers: Layers,
    pub old: Found,
    /// The encoder with which a cold start begins, as the user or the base's run names it.
    pub encoder: Option<String>,
    pub rows: UpdateRows,
    /// The part of the held-out rows that may be looked at while choosing; the rest is for certification.
    pub is_calibration: Vec<bool>,
    /// Nothing before [`Updating::score_old`].
    pub old_on_holdout: Predicted,
    teacher: Option<(Teacher, (String, String))>,
    teachers: Vec<String>,
    /// The hash of each teacher, where --teacher names them.
    pub teacher_hashes: Vec<String>,
    pub combine: Combine,
    pub map: Vec<(String, String)>,
    /// Of a regression.
    pub tolerance: Option<f64>,
    pub tables: PathBuf,
    /// Where texts are cut for a base whose record doesn't say.
    pub unrecorded_length: Option<usize>,
    tokens: BTreeMap<(PathBuf, usize, bool), Encoded>,
}

/// Whether a method starts from the encoder, whatever `--init` says.
pub fn starts_fresh(method: &Method) -> bool {
    matches!(method, Method::ShrinkPerturb { .. })
}

/// Finds the base, reads and aligns all rows. Scores nothing.
pub fn read(
    args: &Deployed,
    typed: &Settings,
    shared: SharedTexts,
    console: &mut Console,
) -> Result<Updating> {
    let hub = places::hub()?;
    let found = base::find("--base", &args.base)?;
    let folder = found.folder(&hub, console)?;
    let before = rows::settings_of(&folder)?;
    // Which methods are trained is the verb's to say.
    let typed = Settings { method: None, lambda: None, temperature: None, ..typed.clone() };
    let mut old = describe(&args.base, folder)?;
    let (layers, length_said) =
        recipe::layers(&args.base, &typed, &before, &mut old, &hub, console)?;
    let checked = Settings { variance_reduction: None, ..layers.settings.clone() }; // of no method yet
    let precision = settings::plan(&checked, SelectBy::Accuracy)?.precision;
    let device = layers.settings.device.as_deref().unwrap_or("auto");
    let compute = Compute::open(device, precision, console)?;
    let tolerance = kinds::tolerance(old.outputs.kind, args.tolerance)?;
    let mut rows = rows::read(args, &layers.settings, (&old, &before), shared, &hub, console)?;
    let unrecorded_length = length_said.is_some().then_some(old.max_length);
    rows.unknown.extend(length_said);
    let new = &rows.train.examples[rows.n_old..rows.n_old + rows.n_new];
    console.tell(&format!(
        "rows: {} old, {} new{}, {} unlabelled; {} held out{}",
        count(rows.n_old as u64),
        count(rows.n_new as u64),
        rows::without_label(new),
        count(rows.n_unlabelled as u64),
        count(rows.holdout.examples.len() as u64),
        rows::without_label(&rows.holdout.examples),
    ))?;
    for line in &rows.alignment {
        console.tell(&format!("labels: {line}"))?;
    }
    let map = args.label_map.as_deref().map(parse_map).transpose()?.unwrap_or_default();
    let teachers =
        if args.teacher.is_empty() { vec![args.base.clone()] } else { args.teacher.clone() };
    let hash = |name: &String| -> Result<String> {
        Ok(sha256_of_model(&base::find("--teacher", name)?.folder(&hub, console)?)?)
    };
    let teacher_hashes = args.teacher.iter().map(hash).collect::<Result<_>>()?;
    let combine = match args.ensemble {
        Ensemble::Probabilities => Combine::Probabilities,
        Ensemble::Logits => Combine::Logits,
    };
    let encoder = layers.settings.model.clone().or(before.model.clone());
    let is_calibration = calibration_rows(&rows.holdout.examples);
    let tables = args.tables.clone();
    Ok(Updating {
        hub,
        compute,
        layers,
        old,
        encoder,
        rows,
        is_calibration,
        old_on_holdout: Predicted::default(),
        teacher: None,
        teachers,
        teacher_hashes,
        combine,
        map,
        tolerance,
        tables,
        unrecorded_length,
        tokens: BTreeMap::new(),
    })
}

impl Updating {
    /// Lets the base score the held-out rows. `None` where it was interrupted.
    pub fn score_old(&mut self, console: &mut Console) -> Result<Option<()>> {
        let (old, holdout) = (&self.old, &self.rows.holdout);
        let table = table(old, holdout, &self.tables, &self.compute, console)?;
        let Some(table) = table else { return Ok(None) };
        self.old_on_holdout =
            predicted(old, holdout, &table.labels, self.tolerance, &table.logits)?;
        Ok(Some(()))
    }

    /// The plan of one training.
    pub fn plan(
        &self,
        method: Method,
        label_smoothing: Option<f64>,
        seed: Option<u64>,
    ) -> Result<Plan> {
        self.plan_with(&Settings::default(), method, label_smoothing, seed)
    }

    /// The same with settings over all others.
    pub fn plan_with(
        &self,
        upper: &Settings,
        method: Method,
        label_smoothing: Option<f64>,
        seed: Option<u64>,
    ) -> Result<Plan> {
        let s = self.layers.clone().over(upper, "typed")?.settings;
        let settings = Settings {
            method: Some(method.to_string()),
            lambda: None,
            temperature: None,
            label_smoothing: label_smoothing.or(s.label_smoothing),
            seed: seed.or(s.seed),
            ..s
        };
        let mut plan = settings::plan(&settings, SelectBy::Accuracy)?;
        check_trained(&plan, &Config::open(&self.old.folder)?)?;
        let (train, kind) = (&self.rows.train, self.old.outputs.kind);
        plan.method.check(train.labels.len()).map_err(Usage)?;
        kinds::settle_update(&mut plan, settings.class_weights.as_deref(), train, kind)?;
        Ok(plan)
    }

    /// A new model of the held-out rows.
    pub fn score(&self, folder: &Path, name: &str, console: &mut Console) -> Result<Predicted> {
        let found = describe(name, folder.to_path_buf())?;
        let model = open_model(&found, &self.compute)?;
        let tokens = tokens_of(&found, &model.config, &self.rows.holdout.examples)?;
        let logits = self.logits(&model, &tokens, console)?.logits;
        predicted(&found, &self.rows.holdout, &found.labels, self.tolerance, &logits)
    }

    pub fn logits(
        &self,
        model: &Classifier,
        tokens: &Encoded,
        console: &mut Console,
    ) -> Result<Predictions> {
        logits(model, tokens, &self.compute, console)
    }

    /// Rows for the tokenizer of the model in `folder`.
    pub fn tokens_for(&self, folder: &Path, examples: &[Example]) -> Result<Encoded> {
        let found = describe("", folder.to_path_buf())?;
        tokens_of(&found, &Config::open(folder)?, examples)
    }

    /// Trains one model into `output`. `None` where it was interrupted.
    pub fn train(
        &mut self,
        plan: &Plan,
        init: Init,
        output: &Path,
        console: &mut Console,
    ) -> Result<Option<Ended>> {
        let started = Instant::now();
        let needs = plan.method.needs();
        let start = self.start(plan, init, console)?;
        if needs.teacher && self.teacher.is_none() {
            self.teacher = self.read_teacher(console)?;
            if self.teacher.is_none() {
                return Ok(None);
            }
        }
        if !needs.teacher && self.rows.n_unlabelled > 0 {
            let (method, n) = (plan.method.name(), count(self.rows.n_unlabelled as u64));
            console.say(&format!("{method} follows no teacher: {n} unlabelled rows are left out"));
        }
        let key = (start.folder.clone(), plan.max_length, needs.teacher);
        let train = match self.tokens.remove(&key) {
            Some(tokens) => tokens,
            None => self.train_tokens(&start, plan)?,
        };
        let lengths = train.lengths();
        let length = (plan.total_steps(&lengths), plan.steps_per_epoch(&lengths));
        job::tell_remarks(plan, length, console)?;
        let old_weights = match needs.old_weights {
            true => match self.old_weights(plan, console)? {
                Some(found) => Some(found),
                None => return Ok(None),
            },
            false => None,
        };
        let (hub, labels) = (&self.hub, self.rows.train.labels.names());
        let teacher_weights =
            teacher_weights(plan, &self.teachers, labels, hub, &self.compute, console)?;
        let is_old = self.rows.is_old();
        let buffer = match needs.buffer {
            true => Some(steering::buffer(self, &start.folder, plan)?),
            false => None,
        };
        let Some(steered) = steering::of_update(self, plan, &start.folder, console)? else {
            return Ok(None);
        };
        let held = &self.rows.holdout;
        let holdout = needs.buffer.then(|| (held.name.clone(), held.sha256.clone()));
        let teacher = self.teacher.as_ref().filter(|_| needs.teacher);
        let (from, how) = match start.head {
            HeadOf::Seed => (self.encoder.as_deref().unwrap_or_default(), ""),
            HeadOf::Base | HeadOf::Grown => (&self.old.name[..], "+head"),
        };
        let base = base::find("--model", from)?;
        let is_ewc = matches!(plan.method, Method::Ewc { .. }); // whose Fisher information is of old rows
        let old_named =
            |is_used: bool| is_used.then(|| (self.old.name.clone(), self.old.sha256.clone()));
        let device = &self.compute.device;
        let made = Provenance::of(plan.clone(), &start.folder, &self.rows.train, None, device)?;
        let provenance = Provenance {
            base: base.origin(&start.folder),
            base_sha256: made.base_sha256 + how,
            old: old_named(needs.old_weights),
            teacher: teacher.map(|(_, named)| named.clone()),
            old_rows: (needs.old_rows || is_ewc).then_some(self.rows.n_old),
            buffer: steered.named.clone().or(holdout),
            ..made
        };
        let settings = self.settings(plan, init)?;
        let is_steered = buffer.is_some() || steered.steering.is_some();
        let training = Training {
            settings,
            chose: Chosen::new("the weights", &held.examples, |row| {
                is_steered && self.is_calibration[row]
            }),
            provenance,
            start,
            output,
            train: &train,
            eval: None,
            guides: Guides {
                teacher: teacher.map(|(teacher, _)| teacher),
                old_weights: old_weights.as_ref(),
                is_old: needs.old_rows.then_some(&is_old[..]),
                buffer: buffer.as_ref(),
                steering: steered.steering.as_ref(),
                groups: steered.groups.as_ref(),
                teacher_weights: teacher_weights.as_ref(),
                ..Guides::default()
            },
            device: &self.compute.device,
            is_fresh: false, // a verb that starts over removes the folder itself
        };
        let ended = training::run(&training, started, console);
        self.tokens.insert(key, train);
        ended
    }

    /// What the run's `run.toml` says; the next update reads it.
    pub fn settings(&self, plan: &Plan, init: Init) -> Result<Settings> {
        let mut record = self.rows.record.clone();
        // New weights know nothing of what the old ones learnt.
        if init == Init::Cold && !starts_fresh(&plan.method) {
            record.seen.clear();
        }
        if plan.method.needs().teacher {
            record.seen.extend(self.rows.followed.clone());
        }
        let settings = Settings {
            base: Some(self.old.name.clone()),
            model: self.encoder.clone(),
            ..record.onto(&self.layers.settings)
        };
        settings::resolved(&settings, plan)
    }

    /// Where the weights come from. Shrink-and-perturb takes the old ones into a fresh start, whatever `init` says.
    pub fn start(&self, plan: &Plan, init: Init, console: &mut Console) -> Result<Start> {
        let labels = self.rows.train.labels.names().to_vec();
        if init == Init::Warm && !starts_fresh(&plan.method) {
            let head = if labels == self.old.labels { HeadOf::Base } else { HeadOf::Grown };
            let (folder, weights) = (self.old.folder.clone(), WeightsFrom::Folder);
            return Ok(Start { folder, labels, head, weights });
        }
        let Some(encoder) = &self.encoder else {
            return Err(Usage(format!(
                "{} doesn't say which encoder it was fine-tuned from; name it with --model, or start warm",
                self.old.name
            ))
            .into());
        };
        let folder = base::find("--model", encoder)?.folder(&self.hub, console)?;
        let weights = WeightsFrom::asked(&self.layers.settings, &folder)?;
        Ok(Start { folder, labels, head: HeadOf::Seed, weights })
    }

    pub fn train_tokens(&self, start: &Start, plan: &Plan) -> Result<Encoded> {
        let encoder = TextEncoder::open(&start.folder)?;
        let config = Config::open(&start.folder)?;
        check_vocabulary(&config, encoder.vocab_size(), encoder.pad_id(), &start.folder)?;
        if plan.max_length > config.max_positions {
            let (length, most) = (plan.max_length, config.max_positions);
            return Err(Usage(format!(
                "--max-length {length}: the model reads at most {most} tokens"
            ))
            .into());
        }
        let examples = &self.rows.train.examples;
        let n = match plan.method.needs().teacher {
            true => examples.len(),
            false => examples.len() - self.rows.n_unlabelled,
        };
        Ok(encode(&encoder, &examples[..n], plan.max_length)?)
    }

    pub fn asked_teachers(&self) -> Teachers<'_> {
        let (names, map, tables) = (&self.teachers, &self.map, &self.tables);
        Teachers { names, combine: self.combine, map, tables, deployed: Some(&self.old) }
    }

    fn read_teacher(&self, console: &mut Console) -> Result<Option<(Teacher, (String, String))>> {
        teacher(&self.asked_teachers(), &self.rows.train, &self.hub, &self.compute, console)
    }

    /// `None` where it was interrupted.
    fn old_weights(&self, plan: &Plan, console: &mut Console) -> Result<Option<OldWeights>> {
        let model = open_model(&self.old, &self.compute)?;
        let fisher = match plan.method {
            Method::Ewc { rows, .. } => {
                let examples = &self.rows.train.examples;
                let n = if self.rows.n_old > 0 { self.rows.n_old } else { examples.len() };
                let (old, tables) = (&self.old, &self.tables);
                let found = information::read_or_take(
                    old,
                    &model,
                    &examples[..n],
                    rows,
                    tables,
                    &self.compute.device,
                    console,
                )?;
                let Some(found) = found else { return Ok(None) };
                Some(found)
            }
            _ => None,
        };
        Ok(Some(OldWeights { fisher, ..OldWeights::of(&model.params) }))
    }
}
