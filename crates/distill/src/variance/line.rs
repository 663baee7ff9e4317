//! A variance reduction as one line of text, and back.

use std::fmt;
use std::str::FromStr;

use super::VarianceReduction;

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
        let bad = || format!("{text:?} is no variance reduction; {EXPECTED}");
        let settings = match text.trim() {
            "none" => return Ok(VarianceReduction::None),
            "kd" => return Ok(VarianceReduction::Kd),
            "modified" => return Ok(VarianceReduction::Modified),
            "unbiased" => return Ok(VarianceReduction::Unbiased),
            "svrg" => "",
            text => text.strip_prefix("svrg:").ok_or_else(bad)?,
        };
        // The code's defaults (papers.md 8.3).
        let (mut start, mut every, mut lambda) = (2, 2, 1.0);
        for setting in settings.split(',').filter(|setting| !setting.is_empty()) {
            let (key, value) = setting.split_once('=').ok_or_else(bad)?;
            let count = || value.trim().parse::<u64>().map_err(|_| bad());
            match key.trim() {
                "start" => start = count()?,
                "every" => every = count().ok().filter(|every| *every > 0).ok_or_else(bad)?,
                "lambda" => {
                    let value = value.trim().parse::<f64>().map_err(|_| bad())?;
                    lambda = Some(value).filter(|x| (0.0..=1.0).contains(x)).ok_or_else(bad)?;
                }
                _ => return Err(bad()),
            }
        }
        Ok(VarianceReduction::Svrg { start, every, lambda })
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
