//! How a side of a comparison is computed: as it was trained, or as servers compute what is published.
//!
//! text-embeddings-inference runs f16, takes the tanh form for `gelu`, and cuts texts where the tokenizer says, not where training
//! did: each of them changes predictions that the release itself did not.

use std::path::Path;

use anyhow::Result;
use lowchurn_models::{Config, GeluForm, Numbers, Numerics};

use crate::args::Compare;
use crate::failure::Usage;

/// The parts of serving that are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form {
    pub numerics: Numerics,
    pub length: Length,
}

/// Where texts are cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Length {
    #[default]
    AsTrained,
    /// `model_max_length` of tokenizer_config.json, at most the model's positions.
    OfTokenizer,
    Tokens(usize),
}

const EXPECTED: &str =
    "expected trained, served, or some of f16, tanh-gelu, length, length=N with commas between";

/// How both sides are computed.
pub fn forms(args: &Compare) -> Result<(Form, Form)> {
    let of = |own: Option<Form>| own.or(args.both_as).unwrap_or_default();
    let forms = (of(args.old_as), of(args.new_as));
    let is_half = |form: Form| form.numerics.numbers == Numbers::F16;
    if args.scoring.bf16 && (is_half(forms.0) || is_half(forms.1)) {
        return Err(Usage("--bf16 and f16: a model is computed in one of them".into()).into());
    }
    Ok(forms)
}

/// `served` is all three at once.
pub fn form(text: &str) -> std::result::Result<Form, String> {
    let mut form = Form::default();
    if text == "trained" {
        return Ok(form);
    }
    for part in text.split(',').map(str::trim) {
        match part.split_once('=') {
            None if part == "f16" => form.numerics.numbers = Numbers::F16,
            None if part == "tanh-gelu" => form.numerics.gelu = GeluForm::Tanh,
            None if part == "length" => form.length = Length::OfTokenizer,
            None if part == "served" => {
                form.numerics = Numerics { numbers: Numbers::F16, gelu: GeluForm::Tanh };
                form.length = Length::OfTokenizer;
            }
            Some(("length", n)) => match n.parse() {
                Ok(n) if n > 0 => form.length = Length::Tokens(n),
                _ => return Err(format!("{part}: expected a number of tokens; {EXPECTED}")),
            },
            _ => return Err(EXPECTED.into()),
        }
    }
    Ok(form)
}

impl Form {
    /// What is said of it in a report, for a model that is cut at `tokens`; nothing of one as trained.
    pub fn words(self, tokens: usize) -> Option<String> {
        let parts = [
            (self.numerics.numbers == Numbers::F16).then(|| "f16".to_string()),
            (self.numerics.gelu == GeluForm::Tanh).then(|| "tanh-GELU".to_string()),
            (self.length != Length::AsTrained).then(|| format!("{tokens} tokens")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }

    /// Where texts are cut, if not where training cut them.
    pub fn tokens(self, folder: &Path, config: &Config) -> Option<usize> {
        match self.length {
            Length::AsTrained => None,
            Length::Tokens(n) => Some(n),
            Length::OfTokenizer => Some(longest(folder).min(config.max_positions)),
        }
    }
}

/// `model_max_length`; files that say nothing have a number beyond all texts, or none.
pub fn longest(folder: &Path) -> usize {
    let text = std::fs::read(folder.join("tokenizer_config.json")).unwrap_or_default();
    let config: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    let length = config.get("model_max_length").and_then(serde_json::Value::as_f64);
    length.filter(|length| *length >= 1.0).map_or(usize::MAX, |length| length as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let check = |text: &str, words: Option<&str>| {
            assert_eq!(form(text).unwrap().words(512).as_deref(), words, "{text}");
        };
        check("trained", None);
        check("served", Some("f16, tanh-GELU, 512 tokens"));
        check("f16", Some("f16"));
        check("tanh-gelu, length=512", Some("tanh-GELU, 512 tokens"));
        check("length", Some("512 tokens"));
        assert_eq!(form("served,length=64").unwrap().length, Length::Tokens(64));
        for text in ["", "int8", "trained,f16", "f16=1", "served;f16"] {
            assert_eq!(form(text), Err(EXPECTED.into()), "{text}");
        }
        for text in ["length=0", "length=x", "length="] {
            let said = format!("{text}: expected a number of tokens; {EXPECTED}");
            assert_eq!(form(text), Err(said), "{text}");
        }
    }

    #[test]
    fn where_the_tokenizer_cuts() {
        let folder = tempfile::TempDir::new().unwrap();
        let check = |text: &str, expected: usize| {
            std::fs::write(folder.path().join("tokenizer_config.json"), text).unwrap();
            assert_eq!(longest(folder.path()), expected, "{text}");
        };
        check("{\"model_max_length\": 512}", 512);
        check("{\"model_max_length\": 1000000000000000019884624838656}", usize::MAX);
        for nothing in
            ["{}", "{\"model_max_length\": null}", "{\"model_max_length\": -1}", "no JSON"]
        {
            check(nothing, usize::MAX);
        }
        std::fs::remove_file(folder.path().join("tokenizer_config.json")).unwrap();
        assert_eq!(longest(folder.path()), usize::MAX);
    }
}
