//! Settings over settings: set values win, and where each came from is kept.

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use super::{Settings, fields};
use crate::failure::Usage;

/// The origin of values that no layer set.
pub const DEFAULT: &str = "default";

/// Settings with the name of the layer that each set value came from.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    pub settings: Settings,
    origins: Map<String, Value>,
}

impl Layers {
    /// Lays `upper` over what is there: its set values win.
    pub fn over(mut self, upper: &Settings, origin: &str) -> Result<Layers> {
        refuse_odd_numbers(upper)?;
        let mut values = fields(&self.settings)?;
        for (key, value) in fields(upper)?.into_iter().filter(|(_, value)| !value.is_null()) {
            self.origins.insert(key.clone(), origin.into());
            values.insert(key, value);
        }
        self.settings = serde_json::from_value(Value::Object(values))?;
        Ok(self)
    }

    pub fn origin(&self, key: &str) -> &str {
        self.origins.get(key).and_then(Value::as_str).unwrap_or(DEFAULT)
    }
}

/// Numbers that JSON and TOML can't say would be taken for values that aren't set, or be lost in `run.toml`.
fn refuse_odd_numbers(settings: &Settings) -> Result<()> {
    let most = i64::MAX as u64;
    if let Some(seed) = settings.seed.filter(|seed| *seed > most) {
        return Err(Usage(format!("seed is {seed}, expected at most {most}")).into());
    }
    let table = toml::Table::try_from(settings).context("settings as TOML")?;
    let odd = table.iter().find(|(_, value)| value.as_float().is_some_and(|x| !x.is_finite()));
    match odd {
        Some((key, value)) => Err(Usage(format!("{key} is {value}, expected a number")).into()),
        None => Ok(()),
    }
}
