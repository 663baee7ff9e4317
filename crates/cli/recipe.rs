//! The settings of an update: those of the deployed model's own run, a plan file's, and what is typed.

use anyhow::Result;

use crate::args::Deployed;
use crate::failure::Usage;
use crate::settings::{self, Layers, Settings};

/// The plan file with what was typed over it. A method that is typed brings its own λ and temperature.
pub fn typed(args: &Deployed, flags: &Settings) -> Result<Settings> {
    if args.base.is_empty() {
        return Err(Usage("which model is deployed? Name it with --base DIR|ID".into()).into());
    }
    refuse_foreign(flags, "")?;
    let Some(path) = &args.plan else { return Ok(flags.clone()) };
    let mut plan = settings::read_plan(path)?;
    let origin = path.display().to_string();
    refuse_foreign(&plan, &format!("{origin}: "))?;
    if flags.method.is_some() {
        (plan.lambda, plan.temperature) = (None, None);
    }
    Ok(Layers::default().over(&plan, &origin)?.over(flags, "flag")?.settings)
}

/// Settings of a fine-tuning that mean nothing here, typed or in a plan file.
fn refuse_foreign(settings: &Settings, origin: &str) -> Result<()> {
    let s = settings;
    let foreign = [
        ("data", s.data.is_some() || s.data_sha256.is_some()),
        ("base", s.base.is_some()),
        ("new", s.new.is_some()),
        ("label-map", s.label_map.is_some()),
        ("train-split", s.train_split.is_some()),
        ("eval-split", s.eval_split.is_some()),
        ("eval-fraction", s.eval_fraction.is_some()),
        ("fresh-head", s.fresh_head.is_some()),
        ("patience", s.patience.is_some()),
    ];
    let Some((name, _)) = foreign.iter().find(|(_, is_set)| *is_set) else { return Ok(()) };
    let name = match origin {
        "" => format!("--{name}"),
        _ => format!("{origin}{}", name.replace('-', "_")),
    };
    Err(Usage(format!(
        "{name} is for finetune; an update's rows are --old, --new and --holdout, and held-out rows choose nothing \
         while it trains"
    ))
    .into())
}

/// The settings of the base's own run that its next one takes over. Not its precision: what is certified is measured in f32
/// unless this very update says otherwise.
pub fn recipe_of(before: &Settings) -> Settings {
    Settings {
        epochs: before.epochs,
        batch_size: before.batch_size,
        accumulation: before.accumulation,
        eval_batch_size: before.eval_batch_size,
        max_length: before.max_length,
        learning_rate: before.learning_rate,
        schedule: before.schedule,
        weight_decay: before.weight_decay,
        beta1: before.beta1,
        beta2: before.beta2,
        epsilon: before.epsilon,
        max_grad_norm: before.max_grad_norm,
        dropout: before.dropout,
        ..Settings::default()
    }
}
