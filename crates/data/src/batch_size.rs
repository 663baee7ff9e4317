//! How large a batch is, as it is typed: `32`, or `tokens:4096`.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchSize {
    /// So many rows.
    Rows(usize),
    /// As many rows as make at most so many tokens, each counted with the padding up to the longest of them.
    Tokens(usize),
}

const EXPECTED: &str = "a whole number of rows, or tokens:N";
const TOKENS: &str = "tokens:";

impl BatchSize {
    /// The number of rows, where that is what was asked for.
    pub fn rows(self) -> Option<usize> {
        match self {
            BatchSize::Rows(n) => Some(n),
            BatchSize::Tokens(_) => None,
        }
    }

    /// Whether so many rows, none longer than `longest`, are a batch. One row always is.
    pub fn holds(self, rows: usize, longest: u32) -> bool {
        match self {
            BatchSize::Rows(n) => rows <= n.max(1),
            BatchSize::Tokens(n) => rows <= 1 || rows.saturating_mul(longest as usize) <= n,
        }
    }
}

impl fmt::Display for BatchSize {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            BatchSize::Rows(n) => write!(f, "{n}"),
            BatchSize::Tokens(n) => write!(f, "{TOKENS}{n}"),
        }
    }
}

impl FromStr for BatchSize {
    type Err = String;

    fn from_str(text: &str) -> Result<BatchSize, String> {
        let (number, of): (&str, fn(usize) -> BatchSize) = match text.strip_prefix(TOKENS) {
            Some(number) => (number, BatchSize::Tokens),
            None => (text, BatchSize::Rows),
        };
        match number.parse() {
            Ok(n) if !number.starts_with('+') => Ok(of(n)),
            _ => Err(format!("expected {EXPECTED}, found {text:?}")),
        }
    }
}

impl Serialize for BatchSize {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            BatchSize::Rows(n) => n.serialize(to),
            BatchSize::Tokens(_) => to.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for BatchSize {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<BatchSize, D::Error> {
        struct NumberOrText;
        impl Visitor<'_> for NumberOrText {
            type Value = BatchSize;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_u64<E: de::Error>(self, n: u64) -> Result<BatchSize, E> {
                let unexpected = |_| E::invalid_value(de::Unexpected::Unsigned(n), &self);
                usize::try_from(n).map(BatchSize::Rows).map_err(unexpected)
            }

            fn visit_i64<E: de::Error>(self, n: i64) -> Result<BatchSize, E> {
                match u64::try_from(n) {
                    Ok(n) => self.visit_u64(n),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Signed(n), &self)),
                }
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<BatchSize, E> {
                text.parse().map_err(E::custom)
            }
        }
        from.deserialize_any(NumberOrText)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_a_number_and_tokens_are_text() {
        for (typed, json, size) in [
            ("32", "32", BatchSize::Rows(32)),
            ("tokens:4096", "\"tokens:4096\"", BatchSize::Tokens(4096)),
        ] {
            assert_eq!(typed.parse(), Ok(size));
            assert_eq!(size.to_string(), typed);
            assert_eq!(serde_json::to_string(&size).unwrap(), json);
            assert_eq!(serde_json::from_str::<BatchSize>(json).unwrap(), size);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "-1", "1.5", "tokens:", "tokens:-1", "tokens: 8", "tokens:+8", "8 rows"] {
            let expected = format!("expected a whole number of rows, or tokens:N, found {text:?}");
            assert_eq!(text.parse::<BatchSize>(), Err(expected.clone()));
            let json = serde_json::to_string(text).unwrap();
            let error = serde_json::from_str::<BatchSize>(&json).unwrap_err();
            assert!(error.to_string().starts_with(&expected), "{error}");
        }
        for (json, found) in
            [("-1", "invalid value: integer `-1`"), ("1.5", "invalid type: floating point `1.5`")]
        {
            let error = serde_json::from_str::<BatchSize>(json).unwrap_err().to_string();
            let expected = format!("{found}, expected a whole number of rows, or tokens:N");
            assert!(error.starts_with(&expected), "{error}");
        }
    }

    #[test]
    fn one_row_is_a_batch_however_long() {
        let tokens = BatchSize::Tokens(10);
        assert!(tokens.holds(1, 11) && tokens.holds(2, 5) && !tokens.holds(3, 4));
        assert!(tokens.holds(100, 0) && !tokens.holds(usize::MAX, u32::MAX));
        let rows = BatchSize::Rows(2);
        assert!(rows.holds(2, u32::MAX) && !rows.holds(3, 0) && BatchSize::Rows(0).holds(1, 9));
    }
}
