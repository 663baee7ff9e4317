//! A variance reduction as one line of text, and back.

use std::fmt;
use std::str::FromStr;

use super::VarianceReduction;
use crate::method::line::Keys;

impl fmt::Display for VarianceReduction {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VarianceReduction::None => out.write_str("none"),
            VarianceReduction::Kd => out.write_str("kd"),
            VarianceReduction::Modified => out.write_str("modified"),
            VarianceReduction::Unbiased => out.write_str("unbiased"),
            VarianceReduction::Svrg { start, every, lambda } => {
                write!(out, "svrg:start={start},every={every},lambda={lambda}")
            }
        }
    }
}

pub(super) const EXPECTED: &str =
    "expected none, kd, modified, unbiased or svrg[:start=EPOCH,every=EPOCHS,lambda=SHARE]";

impl FromStr for VarianceReduction {
    type Err = String;

    fn from_str(text: &str) -> Result<VarianceReduction, String> {
        let mut k = Keys::of(text)?;
        let found = match k.method {
            "none" => VarianceReduction::None,
            "kd" => VarianceReduction::Kd,
            "modified" => VarianceReduction::Modified,
            "unbiased" => VarianceReduction::Unbiased,
            // The code's defaults (papers.md 8.3).
            "svrg" => VarianceReduction::Svrg {
                start: k.parsed("start", 2, "an epoch, 0 for the first", |_| true)?,
                every: k.parsed("every", 2, "at least 1 epoch", |n| *n > 0)?,
                lambda: k.share("lambda", 1.0)?,
            },
            _ => return Err(format!("{text:?} is no variance reduction; {EXPECTED}")),
        };
        k.end()?;
        Ok(found)
    }
}

impl TryFrom<String> for VarianceReduction {
    type Error = String;

    fn try_from(text: String) -> Result<VarianceReduction, String> {
        text.parse()
    }
}

impl From<VarianceReduction> for String {
    fn from(reduction: VarianceReduction) -> String {
        reduction.to_string()
    }
}
