//! A plan file → settings. Unknown keys and values of another type are refused in words that say what to write.

use std::path::Path;

use anyhow::Result;
use lowchurn_data::error::nearest;

use super::{Settings, fields};
use crate::failure::Usage;

/// Reads a plan file. Unknown keys are refused, with the nearest known one.
pub fn read_plan(path: &Path) -> Result<Settings> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Usage(format!("{}: can't be read: {error}", path.display())))?;
    parse_plan(&text, path)
}

pub(super) fn parse_plan(text: &str, path: &Path) -> Result<Settings> {
    let bad = |error: toml::de::Error| {
        let before = &text[..error.span().map_or(0, |span| span.start)];
        let (line, path) = (before.matches('\n').count(), path.display());
        let key = text.lines().nth(line).and_then(|line| Some(line.split_once('=')?.0.trim()));
        let value = text.lines().nth(line).and_then(|line| Some(line.split_once('=')?.1.trim()));
        let is_word = |value: &str| value.starts_with(|c: char| c.is_alphabetic());
        let said = match (key, value) {
            (Some(key), Some(word)) if is_word(word) && !["true", "false"].contains(&word) => {
                format!("put text in quotes: {key} = {word:?}")
            }
            (Some(key), _) => format!("{key}: {}", in_plain_words(error.message())),
            (None, _) => error.message().to_string(),
        };
        Usage(format!("{path}:{}: {said}", line + 1))
    };
    let table: toml::Table = text.parse().map_err(bad)?;
    let known = fields(&Settings::default())?;
    for key in table.keys() {
        if !known.contains_key(key) {
            let near =
                by_another_name(key).or_else(|| nearest(key, known.keys().map(String::as_str)));
            let hint = match near {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("known: {}", known.keys().cloned().collect::<Vec<_>>().join(", ")),
            };
            let path = path.display();
            return Err(Usage(format!("{path}: unknown key {key:?}; {hint}")).into());
        }
    }
    Ok(toml::from_str(text).map_err(bad)?)
}

/// The parser speaks of types; people don't.
fn in_plain_words(message: &str) -> String {
    let Some((found, expected)) = ["invalid type: ", "invalid value: "]
        .iter()
        .find_map(|said| message.strip_prefix(said)?.split_once(", expected "))
    else {
        return message.to_string();
    };
    let expected = match expected {
        "u32" | "u64" | "usize" | "i64" => "a whole number",
        "f64" => "a number",
        "a string" => "text in quotes",
        "a boolean" => "true or false",
        other => other,
    };
    let found = found.replace("floating point", "number").replace("integer", "number");
    format!("expected {expected}, found {}", found.replace("string", "text").replace('`', ""))
}

/// The key for what transformers or a flag calls it.
fn by_another_name(key: &str) -> Option<String> {
    let wanted = key.to_lowercase().replace('-', "_");
    if wanted == "lr" {
        return Some("learning_rate".into());
    }
    let flags = <Settings as clap::Args>::augment_args(clap::Command::new("plan"));
    let is_wanted = |name: &str| name.replace('-', "_") == wanted;
    let found = flags.get_arguments().find(|flag| {
        let names = flag.get_all_aliases().unwrap_or_default();
        let long = flag.get_long().into_iter();
        is_wanted(flag.get_id().as_str()) || long.chain(names).any(is_wanted)
    });
    found.map(|flag| flag.get_id().to_string())
}
