//! λ, the teacher's weight, by step: target (1−λ)·label + λ·teacher. λ = μ/(1+μ) where μ is a Lagrange multiplier.

use std::f64::consts::PI;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// Written `0.5`, `0.9..0.1`, `0.9..0.1~cosine`, `1..0@200`, `1..0@50%`, `0.7*0.9@100`, `0.7*1.047@100<=0.9`, `churn<=2%` or `churn<=0.02~5@25`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Lambda {
    Constant(f64),
    /// From the first update to the last in a straight line.
    Linear {
        from: f64,
        to: f64,
    },
    /// From the first update to the last along half a cosine.
    Cosine {
        from: f64,
        to: f64,
    },
    /// Multiplied by `factor` every so many updates, up to `most`: the code of Safaryan et al. 2023 (papers.md 8.3) has 0.9, and 1.047
    /// up to 0.9 or 1, an epoch each.
    Geometric {
        from: f64,
        factor: f64,
        every: u64,
        most: Option<f64>,
    },
    /// One value before a moment, another from it on. From 1 to 0 it is a loss switched from the teacher to the labels, from
    /// 0 to 1 the other way (papers.md 6.7).
    Switch {
        before: f64,
        after: f64,
        at: Moment,
    },
    /// By dual ascent: every so many updates μ ← max(0, μ + rate·(churn − max_churn)), with the churn measured on
    /// held-out rows (papers.md 5.5; TFCO's proxy constraints).
    Budget {
        max_churn: f64,
        rate: f64,
        every: u64,
    },
}

/// When in a run: written `200` or `50%`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Moment {
    /// Before this update, 0 for the first.
    Step(u64),
    /// After this share of all updates, rounded to the nearest one.
    Share(f64),
}

impl Moment {
    /// Whether it lies before update `step` of `total`.
    pub fn is_past(self, step: u64, total: u64) -> bool {
        match self {
            Moment::Step(at) => step >= at,
            Moment::Share(share) => step >= (share * total as f64).round() as u64,
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Moment::Step(step) => write!(out, "{step}"),
            // As it was typed: 0.29·100 isn't quite 29.
            Moment::Share(share) => write!(out, "{}%", (share * 1e8).round() / 1e6),
        }
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Moment, String> {
        let bad = || {
            format!(
                "{text:?} is no moment of a run; expected an update such as 200, or a share of all such as 50%"
            )
        };
        match text.trim().strip_suffix('%') {
            Some(share) => {
                let share = share.trim().parse::<f64>().ok().filter(|x| (0.0..=100.0).contains(x));
                share.map(|share| Moment::Share(share / 100.0)).ok_or_else(bad)
            }
            None => text.trim().parse().map(Moment::Step).map_err(|_| bad()),
        }
    }
}

impl Lambda {
    /// λ in update `step` (0 for the first) of `total`; `multiplier` is the dual variable so far.
    pub fn at(self, step: u64, total: u64, multiplier: f64) -> f64 {
        match self {
            Lambda::Constant(value) => value,
            Lambda::Linear { from, to } => {
                let last = total.saturating_sub(1).max(1) as f64;
                from + (to - from) * (step as f64 / last).min(1.0)
            }
            Lambda::Cosine { from, to } => {
                let last = total.saturating_sub(1).max(1) as f64;
                let done = (step as f64 / last).min(1.0);
                to + (from - to) * 0.5 * (1.0 + (PI * done).cos())
            }
            Lambda::Geometric { from, factor, every, most } => {
                let grown = from * factor.powf((step / every.max(1)) as f64);
                most.map_or(grown, |most| grown.min(most))
            }
            Lambda::Switch { after, at, .. } if at.is_past(step, total) => after,
            Lambda::Switch { before, .. } => before,
            Lambda::Budget { .. } => multiplier / (1.0 + multiplier),
        }
    }

    /// Refuses a schedule that leaves [0, 1] within `total` updates, and names the first value and update. Only a factor can: what
    /// lies between two shares is one.
    pub fn check(self, total: u64) -> crate::Result<()> {
        let Lambda::Geometric { every, .. } = self else { return Ok(()) };
        let jumps = (0..total).step_by(usize::try_from(every.max(1)).unwrap_or(usize::MAX));
        for step in jumps {
            let value = self.at(step, total, 0.0);
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::LambdaRange {
                    schedule: self.to_string(),
                    value,
                    step: step + 1,
                    total,
                });
            }
        }
        Ok(())
    }

    /// Whether the teacher never weighs anything.
    pub fn is_zero(self) -> bool {
        match self {
            Lambda::Constant(value) => value == 0.0,
            Lambda::Linear { from, to } | Lambda::Cosine { from, to } => from == 0.0 && to == 0.0,
            Lambda::Geometric { from, .. } => from == 0.0,
            Lambda::Switch { before, after, .. } => before == 0.0 && after == 0.0,
            Lambda::Budget { .. } => false,
        }
    }
}

/// One step of dual ascent on the multiplier of `churn ≤ max_churn`.
pub fn ascend(multiplier: f64, churn: f64, max_churn: f64, rate: f64) -> f64 {
    (multiplier + rate * (churn - max_churn)).max(0.0)
}

impl fmt::Display for Lambda {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lambda::Constant(value) => write!(out, "{value}"),
            Lambda::Linear { from, to } => write!(out, "{from}..{to}"),
            Lambda::Cosine { from, to } => write!(out, "{from}..{to}~cosine"),
            Lambda::Geometric { from, factor, every, most } => {
                write!(out, "{from}*{factor}@{every}")?;
                most.map_or(Ok(()), |most| write!(out, "<={most}"))
            }
            Lambda::Switch { before, after, at } => write!(out, "{before}..{after}@{at}"),
            Lambda::Budget { max_churn, rate, every } => {
                write!(out, "churn<={max_churn}~{rate}@{every}")
            }
        }
    }
}

const EXPECTED: &str = "expected a number from 0 to 1, FROM..TO[~cosine], BEFORE..AFTER@STEP, BEFORE..AFTER@SHARE%, FROM*FACTOR@UPDATES[<=MOST] or churn<=LIMIT[~RATE][@EVERY]";

impl FromStr for Lambda {
    type Err = String;

    fn from_str(text: &str) -> Result<Lambda, String> {
        let bad = || format!("λ is {text:?}, {EXPECTED}");
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|x| x.is_finite());
        let share = |text: &str| match number(text) {
            Some(value) if (0.0..=1.0).contains(&value) => Ok(value),
            _ => Err(bad()),
        };
        let count = |text: &str| text.trim().parse::<u64>().map_err(|_| bad());
        if let Some(limit) = text.trim().strip_prefix("churn<=") {
            let (limit, every) = limit.split_once('@').unwrap_or((limit, "25"));
            let (limit, rate) = limit.split_once('~').unwrap_or((limit, "5"));
            let rate = number(rate).filter(|rate| *rate > 0.0).ok_or_else(bad)?;
            let every = count(every).ok().filter(|every| *every > 0).ok_or_else(bad)?;
            let max_churn = match limit.strip_suffix('%') {
                Some(percent) => number(percent).map(|percent| percent / 100.0),
                None => number(limit),
            };
            let max_churn =
                max_churn.filter(|limit| (0.0..=1.0).contains(limit)).ok_or_else(bad)?;
            return Ok(Lambda::Budget { max_churn, rate, every });
        }
        if let Some((from, factor)) = text.split_once('*') {
            let (factor, every) = factor.split_once('@').ok_or_else(bad)?;
            let (every, most) = match every.split_once("<=") {
                Some((every, most)) => (every, Some(share(most)?)),
                None => (every, None),
            };
            let factor = number(factor).filter(|factor| *factor > 0.0).ok_or_else(bad)?;
            let every = count(every).ok().filter(|every| *every > 0).ok_or_else(bad)?;
            let from = share(from)?;
            return match most {
                Some(most) if most < from => Err(bad()),
                most => Ok(Lambda::Geometric { from, factor, every, most }),
            };
        }
        let Some((from, to)) = text.split_once("..") else {
            return share(text).map(Lambda::Constant);
        };
        if let Some(to) = to.strip_suffix("~cosine") {
            return Ok(Lambda::Cosine { from: share(from)?, to: share(to)? });
        }
        match to.split_once('@') {
            None => Ok(Lambda::Linear { from: share(from)?, to: share(to)? }),
            Some((to, at)) => {
                let at = at.parse().map_err(|_| bad())?;
                Ok(Lambda::Switch { before: share(from)?, after: share(to)?, at })
            }
        }
    }
}

impl TryFrom<String> for Lambda {
    type Error = String;

    fn try_from(text: String) -> Result<Lambda, String> {
        text.parse()
    }
}

impl From<Lambda> for String {
    fn from(lambda: Lambda) -> String {
        lambda.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read() {
        for text in [
            "0",
            "0.5",
            "1",
            "0.9..0.1",
            "0.9..0.1~cosine",
            "1..0@200",
            "0..1@29%",
            "1..0@12.5%",
            "0.7*0.9@100",
            "0.7*1.047@100<=0.9",
            "churn<=0.02~5@25",
        ] {
            assert_eq!(text.parse::<Lambda>().unwrap().to_string(), text);
        }
        assert_eq!("churn<=0.02".parse::<Lambda>().unwrap().to_string(), "churn<=0.02~5@25");
        assert_eq!("churn<=2%@10".parse::<Lambda>().unwrap().to_string(), "churn<=0.02~5@10");
        for text in [
            "",
            "1.1",
            "-0.1",
            "NaN",
            "0..2",
            "1..0@x",
            "0.5..0~sine",
            "0.7*0.9",
            "0.7*0@5",
            "0.7*0.9@0",
            "0.7*1.047@5<=1.1",
            "0.7*1.047@5<=0.6",
            "0.7*1.047@5<=",
            "1.2*0.9@5",
            "1..0@101%",
            "1..0@-1%",
            "1..0@NaN%",
            "1..0@%",
            "churn<=0.02~0",
            "churn<=2",
            "churn<=200%",
            "churn<=0.1@0",
        ] {
            let said = text.parse::<Lambda>().unwrap_err();
            assert_eq!(said, format!("λ is {text:?}, {EXPECTED}"));
        }
    }

    #[test]
    fn by_step() {
        let at = |text: &str, step| text.parse::<Lambda>().unwrap().at(step, 11, 1.5);
        assert_eq!(at("0.3", 7), 0.3);
        assert_eq!((at("1..0", 0), at("1..0", 5), at("1..0", 10)), (1.0, 0.5, 0.0));
        assert_eq!((at("1..0@4", 3), at("1..0@4", 4)), (1.0, 0.0));
        // Half a cosine: cos 0 = 1, cos 60° = ½ after a third of the way, cos 90° = 0, cos 180° = −1.
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        close(at("1..0.2~cosine", 0), 1.0);
        close("1..0~cosine".parse::<Lambda>().unwrap().at(3, 10, 0.0), 0.75);
        close(at("1..0.2~cosine", 5), 0.6);
        close(at("1..0.2~cosine", 10), 0.2);
        close(at("0.7*0.9@4", 3), 0.7);
        close(at("0.7*0.9@4", 4), 0.63);
        close(at("0.7*0.9@4", 9), 0.567);
        close(at("0.7*1.1@4<=0.8", 4), 0.77);
        close(at("0.7*1.1@4<=0.8", 9), 0.8); // 0.847 without
        // Of 11 updates: 5.5 is 6, and 0 and 100 are the ends.
        assert_eq!((at("1..0@50%", 5), at("1..0@50%", 6)), (1.0, 0.0));
        assert_eq!((at("0..1@0%", 0), at("0..1@100%", 10)), (1.0, 0.0));
        assert_eq!(at("churn<=0.1", 0), 0.6);
    }

    #[test]
    fn a_schedule_that_leaves_the_range_is_refused_with_value_and_update() {
        let check = |text: &str, total| text.parse::<Lambda>().unwrap().check(total);
        for text in
            ["0.5", "0.9..0.1", "1..0@3", "0..1~cosine", "0.7*0.9@1", "churn<=0.1", "0.7*1.2@1<=1"]
        {
            assert!(check(text, 1000).is_ok(), "{text}");
        }
        // 0.7·1.2² = 1.008, from the 21st update on.
        assert!(check("0.7*1.2@10", 20).is_ok());
        assert_eq!(
            check("0.7*1.2@10", 21).unwrap_err().to_string(),
            "λ 0.7*1.2@10 is 1.008000 in update 21 of 21, expected a number from 0 to 1; start lower, take a smaller factor, or \
             multiply less often"
        );
    }

    /// papers_examples.json, C4_dual_ascent: the multiplier by the churn that was measured.
    #[test]
    fn dual_ascent_is_that_of_the_papers() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/papers_examples.json");
        let all: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let case = &all["C4_dual_ascent"];
        let steps = case["trace"].as_array().unwrap();
        assert!(steps.len() > 4);
        let mut multiplier = 0.0;
        for step in steps {
            let close = |a: f64, key: &str| (a - step[key].as_f64().unwrap()).abs() < 1e-8;
            assert!(close(multiplier, "mu"), "{multiplier} {step}");
            let lambda = Lambda::Budget { max_churn: 0.02, rate: 5.0, every: 1 };
            assert!(close(lambda.at(0, 1, multiplier), "lam"), "{multiplier} {step}");
            multiplier = ascend(multiplier, step["churn"].as_f64().unwrap(), 0.02, 5.0);
        }
    }
}
