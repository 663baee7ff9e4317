//! The settings of an update: those of the deployed model's own run, a plan file's, and what is typed.

use anyhow::Result;
use lowchurn_distill::SelectBy;
use lowchurn_hub::Hub;
use lowchurn_models::Config;

use crate::args::Deployed;
use crate::base;
use crate::console::Console;
use crate::failure::Usage;
use crate::found::Found;
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
        ("seen", s.seen.is_some()),
        ("unrecorded", s.unrecorded.is_some()),
        ("label-map", s.label_map.is_some()),
        ("train-split", s.train_split.is_some()),
        ("eval-split", s.eval_split.is_some()),
        ("eval-fraction", s.eval_fraction.is_some()),
        ("fresh-head", s.fresh_head.is_some()),
        ("patience", s.patience.is_some()),
        ("problem-type", s.problem_type.is_some()),
    ];
    let Some((name, _)) = foreign.iter().find(|(_, is_set)| *is_set) else {
        return match s.select_by {
            None | Some(SelectBy::Accuracy | SelectBy::WorstClass) => Ok(()),
            Some(_) => Err(Usage(format!(
                "{origin}--select-by: held-out rows choose nothing while an update trains; among its candidates it chooses by accuracy \
                 or worst_class"
            ))
            .into()),
        };
    };
    let name = match origin {
        "" => format!("--{name}"),
        _ => format!("{origin}{}", name.replace('-', "_")),
    };
    Err(Usage(format!(
        "{name} is for finetune; an update's rows are --old, --new and --holdout, held-out rows choose nothing while it \
         trains, and the kind of task is the base's"
    ))
    .into())
}

/// Settings of the encoder that a cold start begins from, where nothing starts cold.
pub fn refuse_encoder(typed: &Settings) -> Result<()> {
    let flag = match (&typed.model, typed.from_scratch) {
        (Some(model), _) => format!("--model {model}"),
        (None, Some(_)) => "--from-scratch".into(),
        (None, None) => return Ok(()),
    };
    Err(Usage(format!(
        "{flag} is the encoder of a cold start, and here training starts from the weights of --base; add --init cold, or \
         leave it out"
    ))
    .into())
}

/// The settings of the base's own run that its next one takes over: also whose mistakes count how much, or a base that looks after
/// its worst class would have a successor that doesn't. Not its precision: what is certified is measured in f32 unless this very
/// update says otherwise. Not which part of it was trained, either, nor then the learning rate: that of adapters and biases is many
/// times that of all weights. Updates of warm-up are of that run's length.
fn recipe_of(before: &Settings) -> Settings {
    let is_of_all = before.lora_rank.is_none() && before.train_only.is_none();
    Settings {
        epochs: before.epochs,
        batch_size: before.batch_size,
        accumulation: before.accumulation,
        eval_batch_size: before.eval_batch_size,
        max_length: before.max_length,
        learning_rate: before.learning_rate.filter(|_| is_of_all),
        schedule: before.schedule,
        optimizer: before.optimizer.filter(|_| is_of_all),
        weight_decay: before.weight_decay,
        beta1: before.beta1,
        beta2: before.beta2,
        epsilon: before.epsilon,
        max_grad_norm: before.max_grad_norm,
        dropout: before.dropout,
        objective: before.objective.clone(),
        class_weights: before.class_weights.clone(),
        label_smoothing: before.label_smoothing,
        from_scratch: before.from_scratch,
        ..Settings::default()
    }
}

/// Without what is said anew: a flag of the objective takes the place of the base's, and weights of classes and an objective that
/// weighs them exclude each other.
fn without_typed(recipe: Settings, typed: &Settings) -> Settings {
    let replaced =
        [("weight=", typed.worst_class_weight.is_some()), ("group-by=", typed.group_by.is_some())];
    let stays = |part: &&str| !replaced.iter().any(|(key, is)| *is && part.starts_with(key));
    let objective = recipe.objective.as_deref().map(|line| match line.split_once(':') {
        None => line.to_string(),
        Some((name, rest)) => {
            let rest: Vec<&str> = rest.split(',').filter(stays).collect();
            if rest.is_empty() { name.to_string() } else { format!("{name}:{}", rest.join(",")) }
        }
    });
    Settings {
        objective: objective.filter(|_| typed.class_weights.is_none()),
        class_weights: recipe.class_weights.clone().filter(|_| typed.objective.is_none()),
        ..recipe
    }
}

/// The settings of all trainings from a deployed model. One without a record gets its length, and what is said of that is given.
pub fn layers(
    base: &str,
    typed: &Settings,
    before: &Settings,
    old: &mut Found,
    hub: &Hub,
    console: &mut Console,
) -> Result<(Layers, Option<String>)> {
    let most = match &typed.model {
        Some(encoder) => {
            Config::open(&base::find("--model", encoder)?.folder(hub, console)?)?.max_positions
        }
        None => old.max_length,
    };
    let length = Settings { max_length: Some(old.max_length.min(most)), ..Settings::default() };
    let layers = Layers::default()
        .over(&length, &format!("as {base} allows"))?
        .over(&without_typed(recipe_of(before), typed), &format!("{base}/run.toml"))?
        .over(typed, "typed")?;
    if before.max_length.is_some() {
        return Ok((layers, None));
    }
    let (length, said) = length_of_base(old, typed)?;
    old.max_length = length;
    console.say(&said);
    Ok((layers, Some(said)))
}

/// Where texts are cut for a base without a record: where `--max-length` says, else as its files do; nowhere beyond its positions.
/// What is said of it belongs to a certificate.
fn length_of_base(old: &Found, typed: &Settings) -> Result<(usize, String)> {
    let (name, own) = (&old.name, old.max_length);
    let Some(asked) = typed.max_length else {
        let said = format!(
            "{name} has no record of its training: its texts are cut at {own} tokens, as its tokenizer and its positions allow, and its \
             successor's there at most; --max-length sets another length for both"
        );
        return Ok((own, said));
    };
    let length = asked.min(Config::open(&old.folder)?.max_positions);
    let said = format!(
        "{name} has no record of its training: its texts are cut at {length} tokens, as --max-length {asked} asks; its tokenizer and its \
         positions allow {own}"
    );
    Ok((length, said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_takes_the_place_of_what_the_base_says() {
        let recipe = Settings {
            objective: Some("robust:weight=1,every=5,group-by=shop".into()),
            class_weights: Some("balanced".into()),
            ..Settings::default()
        };
        let with = |typed: Settings| {
            let left = without_typed(recipe.clone(), &typed);
            (left.objective.unwrap_or_default(), left.class_weights.unwrap_or_default())
        };
        let (line, balanced) =
            ("robust:weight=1,every=5,group-by=shop".to_string(), "balanced".to_string());
        assert_eq!(with(Settings::default()), (line, balanced.clone()));
        let weight = Settings { worst_class_weight: Some(0.5), ..Settings::default() };
        assert_eq!(with(weight), ("robust:every=5,group-by=shop".into(), balanced.clone()));
        let group = Settings { group_by: Some("city".into()), ..Settings::default() };
        assert_eq!(with(group), ("robust:weight=1,every=5".into(), balanced));
        let weights = Settings { class_weights: Some("a=2".into()), ..Settings::default() };
        assert_eq!(with(weights).0, "");
        let objective = Settings { objective: Some("balanced".into()), ..Settings::default() };
        assert_eq!(with(objective).1, "");
    }

    #[test]
    fn a_part_and_its_rate_are_not_taken_over() {
        let before = |lora_rank| Settings {
            lora_rank,
            learning_rate: Some(1e-3),
            epochs: Some(2),
            freeze: "layers:1".parse().ok(),
            ..Settings::default()
        };
        let taken = recipe_of(&before(None));
        assert_eq!((taken.learning_rate, taken.epochs, taken.freeze), (Some(1e-3), Some(2), None));
        let taken = recipe_of(&before(Some(8)));
        assert_eq!((taken.learning_rate, taken.epochs, taken.lora_rank), (None, Some(2), None));
        let robust = Settings {
            objective: Some("robust:every=5".into()),
            class_weights: Some("balanced".into()),
            label_smoothing: Some(0.1),
            ..Settings::default()
        };
        assert_eq!(recipe_of(&robust), robust);
    }
}
