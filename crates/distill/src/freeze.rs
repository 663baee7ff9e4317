//! Which parts of a model stand still while it is trained, and which alone move: the words of flags and plans.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Parts that stand still, written as `embeddings,layers:4`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Freeze {
    /// Tables of words, positions and types, with their norm.
    pub embeddings: bool,
    /// So many layers, from the lowest.
    pub layers: usize,
    /// The head, with what stands between it and the encoder.
    pub head: bool,
}

/// What alone moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrainOnly {
    /// Every bias, and the head as a whole: BitFit, Ben Zaken et al. 2022, 2106.10199.
    Biases,
    /// The last layer, a linear probe: everything below it is a fixed function, without dropout, worked out once a row.
    LastLayer,
}

impl TrainOnly {
    pub fn name(self) -> &'static str {
        match self {
            TrainOnly::Biases => "biases",
            TrainOnly::LastLayer => "last-layer",
        }
    }
}

impl Freeze {
    pub fn is_nothing(&self) -> bool {
        *self == Freeze::default()
    }
}

impl FromStr for Freeze {
    type Err = String;

    /// A plus parts as well as a comma: lists of settings have commas already.
    fn from_str(text: &str) -> Result<Freeze, String> {
        let mut freeze = Freeze::default();
        if text.trim() == "none" {
            return Ok(freeze);
        }
        for part in text.split([',', '+']).map(str::trim) {
            let layers = part.strip_prefix("layers:").map(|n| n.trim().parse::<usize>());
            match (part, layers) {
                ("embeddings", _) => freeze.embeddings = true,
                ("head", _) => freeze.head = true,
                (_, Some(Ok(n))) if n > 0 => freeze.layers = n,
                _ => {
                    return Err(format!(
                        "{part:?} is no part to freeze; expected embeddings, layers:N (the lowest N), head, several of \
                         them with commas, or none"
                    ));
                }
            }
        }
        Ok(freeze)
    }
}

impl fmt::Display for Freeze {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let layers = format!("layers:{}", self.layers);
        let parts = [
            (self.embeddings, "embeddings"),
            (self.layers > 0, layers.as_str()),
            (self.head, "head"),
        ];
        let parts: Vec<&str> =
            parts.iter().filter(|(is_in, _)| *is_in).map(|part| part.1).collect();
        match parts.is_empty() {
            true => f.write_str("none"),
            false => f.write_str(&parts.join(",")),
        }
    }
}

impl TryFrom<String> for Freeze {
    type Error = String;

    fn try_from(text: String) -> Result<Freeze, String> {
        text.parse()
    }
}

impl From<Freeze> for String {
    fn from(freeze: Freeze) -> String {
        freeze.to_string()
    }
}

impl FromStr for TrainOnly {
    type Err = String;

    fn from_str(text: &str) -> Result<TrainOnly, String> {
        match text {
            "biases" => Ok(TrainOnly::Biases),
            "last-layer" => Ok(TrainOnly::LastLayer),
            _ => Err(format!("{text:?} can't be trained alone; expected biases or last-layer")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_written_and_read_back() {
        let check = |text: &str, (embeddings, layers, head): (bool, usize, bool), written: &str| {
            let found: Freeze = text.parse().unwrap();
            assert_eq!(found, Freeze { embeddings, layers, head }, "{text}");
            assert_eq!(found.to_string(), written);
            assert_eq!(written.parse(), Ok(found));
        };
        check("embeddings,layers:4", (true, 4, false), "embeddings,layers:4");
        check("layers:2 + embeddings", (true, 2, false), "embeddings,layers:2");
        check("head", (false, 0, true), "head");
        check("none", (false, 0, false), "none");
    }

    #[test]
    fn other_words_are_refused() {
        let expected = "expected embeddings, layers:N (the lowest N), head, several of them with commas, or none";
        for (text, part) in [
            ("embedding", "embedding"),
            ("embeddings,,head", ""),
            ("layers:0", "layers:0"),
            ("layers:-1", "layers:-1"),
            ("layers", "layers"),
            ("none,head", "none"),
            ("", ""),
        ] {
            let said = text.parse::<Freeze>().unwrap_err();
            assert_eq!(said, format!("{part:?} is no part to freeze; {expected}"));
        }
        let said = "bias".parse::<TrainOnly>().unwrap_err();
        assert_eq!(said, "\"bias\" can't be trained alone; expected biases or last-layer");
        for part in [TrainOnly::Biases, TrainOnly::LastLayer] {
            assert_eq!(part.name().parse(), Ok(part));
            assert_eq!(serde_json::to_value(part).unwrap(), part.name());
        }
    }
}
