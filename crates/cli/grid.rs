//! Lists of numbers as typed: `0.2,0.5` or `0:1:0.1`.

use anyhow::Result;

use crate::failure::Usage;

const MOST: f64 = 10_000.0;

/// All values, each within the bounds; `none` is no value.
pub fn grid(flag: &str, text: &str, (low, high): (f64, f64)) -> Result<Vec<f64>> {
    let bad = |found: &str| {
        Usage(format!(
            "{flag} {text}: {found:?} is not a number from {low} to {high}; expected A,B,... or FROM:TO:STEP"
        ))
    };
    let number = |text: &str| match text.trim().parse::<f64>() {
        Ok(value) if (low..=high).contains(&value) => Ok(value),
        _ => Err(bad(text)),
    };
    if text == "none" {
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    for part in text.split(',') {
        let pieces: Vec<&str> = part.split(':').collect();
        let [from, to, step] = pieces[..] else {
            all.push(number(part)?);
            continue;
        };
        let (from, to) = (number(from)?, number(to)?);
        let step = match step.trim().parse::<f64>() {
            Ok(step) if step > 0.0 && step.is_finite() => step,
            _ => {
                return Err(Usage(format!(
                    "{flag} {text}: the step {step:?} isn't a number above 0"
                ))
                .into());
            }
        };
        if from > to {
            return Err(Usage(format!(
                "{flag} {text}: it ends below its start; expected FROM:TO:STEP"
            ))
            .into());
        }
        if (to - from) / step >= MOST {
            return Err(Usage(format!(
                "{flag} {text}: more than {MOST} values; take a larger step"
            ))
            .into());
        }
        let n = ((to - from) / step + 1e-9).floor() as u64;
        // Rounded, so that 3·0.1 is written 0.3.
        all.extend((0..=n).map(|i| ((from + i as f64 * step) * 1e9).round() / 1e9));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges() {
        let read = |text: &str| grid("--lambda", text, (0.0, 1.0)).map_err(|e| e.to_string());
        assert_eq!(read("0.2,0.5"), Ok(vec![0.2, 0.5]));
        assert_eq!(read("0:0.4:0.1"), Ok(vec![0.0, 0.1, 0.2, 0.3, 0.4]));
        assert_eq!(read("0:1:0.1").unwrap().len(), 11);
        assert_eq!(read("none"), Ok(vec![]));
        let said =
            "--lambda 0:2:1: \"2\" is not a number from 0 to 1; expected A,B,... or FROM:TO:STEP";
        assert_eq!(read("0:2:1"), Err(said.into()));
        for text in ["", "x", "0:1", "NaN"] {
            assert!(read(text).is_err(), "{text}");
        }
        for (text, said) in [
            ("0:1:0", "the step \"0\" isn't a number above 0"),
            ("0:1:-1", "the step \"-1\" isn't a number above 0"),
            ("1:0:0.1", "it ends below its start; expected FROM:TO:STEP"),
            ("0:1:1e-9", "more than 10000 values; take a larger step"),
        ] {
            assert_eq!(read(text), Err(format!("--lambda {text}: {said}")));
        }
        assert_eq!(read("0.5:0.5:0.1"), Ok(vec![0.5]));
    }
}
