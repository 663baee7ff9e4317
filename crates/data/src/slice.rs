//! Split expressions as Hugging Face `datasets` writes them: `train`, `train[:5000]`, `train[10%:]`, `train[:10%]+train[90%:]`.
//!
//! Refuses a slice that mixes rows and percent (which `datasets` reads as percent on both sides), percent beyond ±100, and
//! any rounding but its default, "closest".

use std::fmt;
use std::ops::Range;

use crate::error::{Error, Result};

/// Parts in the order in which their rows are put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitExpression {
    pub text: String,
    pub parts: Vec<Part>,
}

/// One split, or a run of its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub split: String,
    pub from: Option<Bound>,
    pub to: Option<Bound>,
}

/// Negative values count from the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    Row(i64),
    Percent(i64),
}

impl SplitExpression {
    pub fn parse(text: &str) -> Result<SplitExpression> {
        let bad =
            |reason: String| Error::BadSplitExpression { expression: text.to_owned(), reason };
        let parts = text
            .split('+')
            .map(|part| parse_part(part.trim()))
            .collect::<std::result::Result<_, _>>();
        Ok(SplitExpression { text: text.to_owned(), parts: parts.map_err(bad)? })
    }
}

impl Part {
    /// The rows of a split of `rows` rows; bounds outside are cut to it, an inverted range is empty.
    pub fn range(&self, rows: usize) -> Range<usize> {
        let from = self.from.map_or(0, |bound| bound.row(rows));
        let to = self.to.map_or(rows, |bound| bound.row(rows));
        from.min(to)..to
    }
}

impl Bound {
    // Percent are rounded to the nearest row, halves to the even one, as Python's round does.
    fn row(self, rows: usize) -> usize {
        let signed = match self {
            Bound::Row(row) => row,
            Bound::Percent(percent) => {
                (percent as f64 * rows as f64 / 100.0).round_ties_even() as i64
            }
        };
        let from_end = usize::try_from(signed.unsigned_abs()).unwrap_or(usize::MAX);
        if signed < 0 { rows.saturating_sub(from_end) } else { from_end.min(rows) }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = |bound: Option<Bound>| match bound {
            None => String::new(),
            Some(Bound::Row(row)) => row.to_string(),
            Some(Bound::Percent(percent)) => format!("{percent}%"),
        };
        match (self.from, self.to) {
            (None, None) => out.write_str(&self.split),
            (from, to) => write!(out, "{}[{}:{}]", self.split, bound(from), bound(to)),
        }
    }
}

fn parse_part(part: &str) -> std::result::Result<Part, String> {
    let (split, slice) = match part.split_once('[') {
        None => (part, None),
        Some((split, rest)) => {
            (split, Some(rest.strip_suffix(']').ok_or("a slice must end in ]")?))
        }
    };
    let named = |c: char| c.is_alphanumeric() || c == '_' || c == '.' || c == '-';
    if split.is_empty() {
        return Err("a split has no name".to_owned());
    }
    if let Some(odd) = split.chars().find(|c| !named(*c)) {
        return Err(format!("{odd:?} can't be in the name of a split"));
    }
    let Some(slice) = slice else {
        return Ok(Part { split: split.to_owned(), from: None, to: None });
    };
    let (from, to) = slice.split_once(':').ok_or("a slice needs a colon")?;
    let (from, to) = (parse_bound(from)?, parse_bound(to)?);
    match (from, to) {
        (Some(Bound::Row(_)), Some(Bound::Percent(_)))
        | (Some(Bound::Percent(_)), Some(Bound::Row(_))) => {
            Err("a slice is in rows or in percent, not both".to_owned())
        }
        _ => Ok(Part { split: split.to_owned(), from, to }),
    }
}

fn parse_bound(text: &str) -> std::result::Result<Option<Bound>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let (digits, percent) = text.strip_suffix('%').map_or((text, false), |digits| (digits, true));
    let plain = digits.replace('_', "");
    // A sign of + can't come here: it separates parts.
    let value: i64 = plain.parse().map_err(|_| format!("{text:?} isn't a whole number"))?;
    match percent {
        true if value.unsigned_abs() > 100 => Err(format!("{text:?} is beyond 100%")),
        true => Ok(Some(Bound::Percent(value))),
        false => Ok(Some(Bound::Row(value))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_those_of_datasets() {
        // As datasets.arrow_reader.ReadInstruction.from_spec(..).to_absolute(..) of Python gives them; an inverted range is empty there too.
        let check = |text: &str, rows: usize, expected: &[(usize, usize)]| {
            let parts = SplitExpression::parse(text).unwrap().parts;
            let ranges: Vec<_> = parts
                .iter()
                .map(|part| part.range(rows))
                .map(|range| (range.start, range.end))
                .collect();
            assert_eq!(ranges, expected, "{text} of {rows}");
        };
        check("train", 67_349, &[(0, 67_349)]);
        check("train[:5000]", 67_349, &[(0, 5000)]);
        check("train[:5_000]", 67_349, &[(0, 5000)]);
        check("train[10%:]", 67_349, &[(6735, 67_349)]);
        check("train[-500:]", 872, &[(372, 872)]);
        check("train[:-500]", 872, &[(0, 372)]);
        check("train[-10%:]", 872, &[(785, 872)]);
        check("train[:10%]+train[90%:]", 872, &[(0, 87), (785, 872)]);
        check("train[:50%]", 5, &[(0, 2)]);
        check("train[:50%]", 7, &[(0, 4)]);
        check("train[33%:66%]", 10, &[(3, 7)]);
        check("train[:99999]", 10, &[(0, 10)]);
        check("train[-99999:]", 10, &[(0, 10)]);
        check("train[:]", 10, &[(0, 10)]);
        check("train[5:2]", 10, &[(2, 2)]);
        check("a.b-c_1 + test[0:1]", 3, &[(0, 3), (0, 1)]);
        check("train[100%:]", 3, &[(3, 3)]);
    }

    #[test]
    fn bad_expressions_say_why() {
        let check = |text: &str, reason: &str| {
            let message = SplitExpression::parse(text).unwrap_err().to_string();
            let advice =
                "expected such as train, train[:5000], train[10%:] or train[:10%]+validation";
            assert_eq!(message, format!("{text:?} isn't a split expression ({reason}; {advice})"));
        };
        check("", "a split has no name");
        check("train+", "a split has no name");
        check("[:5]", "a split has no name");
        check("train[:5", "a slice must end in ]");
        check("train[5]", "a slice needs a colon");
        check("train[:x]", r#""x" isn't a whole number"#);
        check("train[:+5]", "a slice must end in ]");
        check("train[:5.5%]", r#""5.5%" isn't a whole number"#);
        check("train[:101%]", r#""101%" is beyond 100%"#);
        check("train[5:10%]", "a slice is in rows or in percent, not both");
        check("tra in", "' ' can't be in the name of a split");
        check("train[:5](closest)", "a slice must end in ]");
        check("train[:99999999999999999999]", r#""99999999999999999999" isn't a whole number"#);
    }

    proptest! {
        #[test]
        fn never_panics(text in ".*", near in r"[a-z]{0,5}\[?-?[0-9_]{0,22}%?:?-?[0-9]{0,22}%?\]?(\+[a-z]*)?", rows in 0usize..5000) {
            for text in [text, near] {
                if let Ok(expression) = SplitExpression::parse(&text) {
                    for part in expression.parts {
                        let range = part.range(rows);
                        prop_assert!(range.start <= range.end && range.end <= rows);
                        prop_assert_eq!(SplitExpression::parse(&part.to_string()).unwrap().parts, [part]);
                    }
                }
            }
        }
    }
}
