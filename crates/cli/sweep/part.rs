//! What of the model a sweep's setting trains: `lora-rank=8,learning-rate=5e-4` as typed → settings over the others.

use anyhow::Result;
use lowchurn_data::error::nearest;

use crate::failure::Usage;
use crate::settings::Settings;

/// Everything, or what is left of it by settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Part {
    pub settings: Settings,
    /// As it is called in tables; empty for all of the model.
    pub said: String,
}

const KEYS: [&str; 7] = [
    "freeze",
    "train-only",
    "layer-decay",
    "lora-rank",
    "lora-alpha",
    "lora-targets",
    "learning-rate",
];

/// One part for each --trained, or the one that the other flags and the plan file say.
pub fn parts(typed: &[String], settings: &Settings) -> Result<Vec<Part>> {
    if typed.is_empty() {
        return Ok(vec![Part::default()]);
    }
    let s = settings;
    let other = [
        ("freeze", s.freeze.is_some()),
        ("train-only", s.train_only.is_some()),
        ("layer-decay", s.layer_decay.is_some()),
        ("lora-rank", s.lora_rank.is_some()),
        ("lora-alpha", s.lora_alpha.is_some()),
        ("lora-targets", s.lora_targets.is_some()),
    ];
    if let Some((key, _)) = other.iter().find(|(_, is_set)| *is_set) {
        return Err(Usage(format!(
            "--trained beside --{key}: say in each --trained what it trains, such as --trained {key}=…"
        ))
        .into());
    }
    typed.iter().map(|text| part(text)).collect()
}

/// Lists within a value have a plus, since settings have commas between them.
fn part(text: &str) -> Result<Part> {
    if text.trim() == "full" {
        return Ok(Part::default());
    }
    let bad = |said: String| Usage(format!("--trained {text}: {said}"));
    let mut settings = Settings::default();
    let mut said = Vec::new();
    for setting in text.split(',').map(str::trim) {
        let Some((key, value)) = setting.split_once('=') else {
            return Err(
                bad(format!("{setting:?} is no setting, expected full or KEY=VALUE")).into()
            );
        };
        let wrong = |expected: &str| bad(format!("{key} is {value:?}, expected {expected}"));
        let number = || value.parse::<f64>().map_err(|_| wrong("a number"));
        match key {
            "freeze" => settings.freeze = Some(value.parse().map_err(bad)?),
            "train-only" => settings.train_only = Some(value.parse().map_err(bad)?),
            "layer-decay" => settings.layer_decay = Some(number()?),
            "lora-rank" => {
                settings.lora_rank = Some(value.parse().map_err(|_| wrong("a whole number"))?);
            }
            "lora-alpha" => settings.lora_alpha = Some(number()?),
            "lora-targets" => {
                settings.lora_targets = Some(value.split('+').map(String::from).collect());
            }
            "learning-rate" => settings.learning_rate = Some(number()?),
            _ => {
                let near = nearest(key, KEYS).map(|near| format!("; did you mean {near}?"));
                let known = || format!("; it takes {}", KEYS.join(", "));
                return Err(
                    bad(format!("unknown setting {key}{}", near.unwrap_or_else(known))).into()
                );
            }
        }
        said.push(format!("{key} {value}"));
    }
    Ok(Part { settings, said: said.join(" ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_settings() {
        let typed = |text: &str| part(text).map_err(|error| error.to_string());
        assert_eq!(typed("full"), Ok(Part::default()));
        let found = typed("lora-rank=8,lora-targets=query+value, learning-rate=5e-4").unwrap();
        assert_eq!(found.said, "lora-rank 8 lora-targets query+value learning-rate 5e-4");
        let settings = found.settings;
        assert_eq!((settings.lora_rank, settings.learning_rate), (Some(8), Some(5e-4)));
        assert_eq!(settings.lora_targets, Some(vec!["query".into(), "value".into()]));
        let found = typed("freeze=embeddings+layers:3").unwrap().settings.freeze.unwrap();
        assert_eq!(found.to_string(), "embeddings,layers:3");
        let check = |text: &str, said: &str| {
            assert_eq!(typed(text).unwrap_err(), format!("--trained {text}: {said}"));
        };
        check("lora", "\"lora\" is no setting, expected full or KEY=VALUE");
        check("lora-rnk=8", "unknown setting lora-rnk; did you mean lora-rank?");
        check("zzz=8", &format!("unknown setting zzz; it takes {}", KEYS.join(", ")));
        check("lora-rank=many", "lora-rank is \"many\", expected a whole number");
        check("layer-decay=x", "layer-decay is \"x\", expected a number");
        check(
            "train-only=norms",
            "\"norms\" can't be trained alone; expected biases or last-layer",
        );
    }

    #[test]
    fn a_part_is_said_in_one_place() {
        let flags = Settings { lora_rank: Some(4), ..Settings::default() };
        assert_eq!(parts(&[], &flags).unwrap(), [Part::default()]);
        let said = parts(&["full".into()], &flags).unwrap_err().to_string();
        assert_eq!(
            said,
            "--trained beside --lora-rank: say in each --trained what it trains, such as --trained lora-rank=…"
        );
    }
}
