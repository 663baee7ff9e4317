//! A method as one line: `distil:lambda=0.5,temperature=2`. What is written is read back to the same method.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use lowchurn_data::error::nearest;

use super::{Divergence, Focus, METHODS, Method, TeacherRows};
use crate::Lambda;

/// The keys of one written line, taken one by one; what is left at the end is unknown.
pub(crate) struct Keys<'t> {
    /// What stands before the colon.
    pub method: &'t str,
    values: BTreeMap<&'t str, &'t str>,
    known: Vec<&'static str>,
}

impl<'t> Keys<'t> {
    pub fn of(text: &'t str) -> Result<Keys<'t>, String> {
        let (method, settings) = text.trim().split_once(':').unwrap_or((text.trim(), ""));
        let mut values = BTreeMap::new();
        for setting in settings.split(',').map(str::trim).filter(|setting| !setting.is_empty()) {
            let Some((key, value)) = setting.split_once('=') else {
                return Err(format!("{method}: {setting:?} is no setting, expected KEY=VALUE"));
            };
            if values.insert(key.trim(), value.trim()).is_some() {
                return Err(format!("{method}: {key} is set twice"));
            }
        }
        Ok(Keys { method, values, known: Vec::new() })
    }

    /// A name, where it is set.
    pub fn text(&mut self, key: &'static str) -> Result<Option<String>, String> {
        self.known.push(key);
        match self.values.remove(key) {
            Some("") => {
                Err(format!("{}: {key} is \"\", expected the name of a column", self.method))
            }
            text => Ok(text.map(str::to_string)),
        }
    }

    pub fn parsed<T: FromStr>(
        &mut self,
        key: &'static str,
        default: T,
        expected: &str,
        is_good: impl Fn(&T) -> bool,
    ) -> Result<T, String> {
        self.known.push(key);
        let Some(text) = self.values.remove(key) else { return Ok(default) };
        match text.parse::<T>().ok().filter(is_good) {
            Some(value) => Ok(value),
            None => Err(format!("{}: {key} is {text:?}, expected {expected}", self.method)),
        }
    }

    fn lambda(&mut self) -> Result<Lambda, String> {
        self.known.push("lambda");
        match self.values.remove("lambda") {
            Some(text) => text.parse().map_err(|said| format!("{}: {said}", self.method)),
            None => Ok(Lambda::Constant(0.5)),
        }
    }

    pub fn share(&mut self, key: &'static str, default: f64) -> Result<f64, String> {
        self.parsed(key, default, "a number from 0 to 1", |x| (0.0..=1.0).contains(x))
    }

    pub fn positive(&mut self, key: &'static str, default: f64) -> Result<f64, String> {
        self.parsed(key, default, "a number above 0", |x| *x > 0.0 && x.is_finite())
    }

    pub fn not_negative(&mut self, key: &'static str, default: f64) -> Result<f64, String> {
        self.parsed(key, default, "0 or a number above 0", |x| *x >= 0.0 && x.is_finite())
    }

    pub fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        default: T,
        choices: &[(&'static str, T)],
    ) -> Result<T, String> {
        self.known.push(key);
        let Some(text) = self.values.remove(key) else { return Ok(default) };
        let found = choices.iter().find(|(name, _)| *name == text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            format!("{}: {key} is {text:?}, expected {}", self.method, names.join(", "))
        })
    }

    pub fn end(self) -> Result<(), String> {
        let Some(key) = self.values.keys().next() else { return Ok(()) };
        let hint = match nearest(key, self.known.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None if self.known.is_empty() => "it takes none".into(),
            None => format!("it takes {}", self.known.join(", ")),
        };
        Err(format!("{}: unknown setting {key}; {hint}", self.method))
    }
}

const DIVERGENCES: [(&str, Divergence); 7] = [
    ("kl", Divergence::Kl),
    ("reverse-kl", Divergence::ReverseKl),
    ("js", Divergence::JensenShannon),
    ("logit-mse", Divergence::LogitMse),
    ("mixed-label", Divergence::MixedLabel),
    ("standardised", Divergence::Standardised),
    ("decoupled", Divergence::Decoupled),
];
const TEACHER_ROWS: [(&str, TeacherRows); 3] =
    [("all", TeacherRows::All), ("better", TeacherRows::Better), ("old", TeacherRows::Old)];
const FOCI: [(&str, Focus); 4] = [
    ("all", Focus::All),
    ("old-right", Focus::OldRight),
    ("new-wrong", Focus::NewWrong),
    ("negative-flip", Focus::NegativeFlip),
];

/// What a choice is called in a line.
pub(crate) fn name_of<T: PartialEq>(choices: &[(&'static str, T)], value: &T) -> &'static str {
    choices.iter().find(|(_, choice)| choice == value).map_or("", |(name, _)| name)
}

impl FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> Result<Method, String> {
        let mut k = Keys::of(text)?;
        let is_temperature = |t: &f64| *t > 0.0 && t.is_finite();
        let found = match k.method {
            "retrain" => Method::Retrain,
            "distil" => {
                let lambda = k.lambda()?;
                let divergence = k.choice("divergence", Divergence::Kl, &DIVERGENCES)?;
                let default = if divergence == Divergence::Standardised { 2.0 } else { 1.0 };
                let temperature =
                    k.parsed("temperature", default, "a number above 0", is_temperature)?;
                if divergence == Divergence::MixedLabel && temperature != 1.0 {
                    return Err(format!(
                        "distil: temperature is {temperature}, but mixed-label is exact at temperature 1 only; use kl"
                    ));
                }
                if divergence == Divergence::LogitMse && temperature != 1.0 {
                    return Err(format!(
                        "distil: temperature is {temperature}, but logit-mse compares logits as they are; leave it out"
                    ));
                }
                let rows = k.choice("rows", TeacherRows::All, &TEACHER_ROWS)?;
                Method::Distil { lambda, temperature, divergence, rows }
            }
            "anchor" => Method::Anchor { lambda: k.lambda()? },
            "anchor-rcp" => Method::AnchorRcp {
                lambda: k.lambda()?,
                eta: k.share("eta", 0.5)?,
                is_smoothed: k.parsed("smoothed", false, "true or false", |_| true)?,
            },
            "focal" => Method::Focal {
                lambda: k.lambda()?,
                temperature: k.parsed("temperature", 1.0, "a number above 0", is_temperature)?,
                alpha: k.not_negative("alpha", 1.0)?,
                beta: k.not_negative("beta", 5.0)?,
                focus: k.choice("focus", Focus::OldRight, &FOCI)?,
            },
            "inhibition" => Method::Inhibition {
                lambda: k.lambda()?,
                margin: k.not_negative("margin", 0.5)?,
                power: k.parsed("power", 2.0, "a number from 1 up", |p| (1.0..=8.0).contains(p))?,
            },
            "mixup" => Method::Mixup { alpha: k.positive("alpha", 0.2)? },
            "bi-tempered" => Method::BiTempered {
                t1: k.parsed("t1", 0.7, "a number from 0 to 1", |t| (0.0..=1.0).contains(t))?,
                t2: k.parsed("t2", 2.0, "a number from 1 to 8", |t| (1.0..=8.0).contains(t))?,
            },
            "confidence-penalty" => Method::ConfidencePenalty { beta: k.positive("beta", 0.1)? },
            "entropy-minimisation" => {
                let is_good = |x: &f64| *x > 0.0 && *x < 1.0;
                let expected = "a number between 0 and 1";
                Method::EntropyMinimisation { alpha: k.parsed("alpha", 0.1, expected, is_good)? }
            }
            "co-distil" => Method::CoDistil {
                beta: k.positive("beta", 0.5)?,
                warmup: k.parsed("warmup", 0, "a number of updates", |_| true)?,
            },
            "shrink-perturb" => Method::ShrinkPerturb {
                shrink: k.share("shrink", 0.4)?,
                perturb: k.share("perturb", 0.1)?,
            },
            "l2-old" => Method::L2ToOld { strength: k.positive("strength", 0.01)? },
            "ewc" => Method::Ewc {
                strength: k.positive("strength", 0.01)?,
                rows: k.parsed("rows", 512, "at least 1 row", |n| *n > 0)?,
            },
            "mixout" => {
                // The kernels count in f32, where 0.99999999 is 1.
                let is_good = |p: &f64| *p > 0.0 && (*p as f32) < 1.0;
                Method::Mixout { p: k.parsed("p", 0.5, "a number between 0 and 1", is_good)? }
            }
            "knn-smoothing" => Method::KnnSmoothing {
                alpha: k.share("alpha", 0.5)?,
                beta: k.share("beta", 0.5)?,
                k: k.parsed("k", 10, "at least 1 row", |n| *n > 0)?,
            },
            "task-agnostic" => Method::TaskAgnostic,
            unknown => {
                let hint = match nearest(unknown, METHODS) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("known: {}", METHODS.join(", ")),
                };
                return Err(format!("unknown method {unknown:?}; {hint}"));
            }
        };
        k.end()?;
        Ok(found)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())?;
        match self {
            Method::Retrain | Method::TaskAgnostic => Ok(()),
            Method::Distil { lambda, temperature, divergence, rows } => {
                let (divergence, rows) =
                    (name_of(&DIVERGENCES, divergence), name_of(&TEACHER_ROWS, rows));
                write!(
                    out,
                    ":lambda={lambda},temperature={temperature},divergence={divergence},rows={rows}"
                )
            }
            Method::Anchor { lambda } => write!(out, ":lambda={lambda}"),
            Method::AnchorRcp { lambda, eta, is_smoothed } => {
                write!(out, ":lambda={lambda},eta={eta},smoothed={is_smoothed}")
            }
            Method::Focal { lambda, temperature, alpha, beta, focus } => {
                let focus = name_of(&FOCI, focus);
                write!(
                    out,
                    ":lambda={lambda},temperature={temperature},alpha={alpha},beta={beta},focus={focus}"
                )
            }
            Method::Inhibition { lambda, margin, power } => {
                write!(out, ":lambda={lambda},margin={margin},power={power}")
            }
            Method::Mixup { alpha } | Method::EntropyMinimisation { alpha } => {
                write!(out, ":alpha={alpha}")
            }
            Method::BiTempered { t1, t2 } => write!(out, ":t1={t1},t2={t2}"),
            Method::ConfidencePenalty { beta } => write!(out, ":beta={beta}"),
            Method::CoDistil { beta, warmup } => write!(out, ":beta={beta},warmup={warmup}"),
            Method::ShrinkPerturb { shrink, perturb } => {
                write!(out, ":shrink={shrink},perturb={perturb}")
            }
            Method::L2ToOld { strength } => write!(out, ":strength={strength}"),
            Method::Ewc { strength, rows } => write!(out, ":strength={strength},rows={rows}"),
            Method::Mixout { p } => write!(out, ":p={p}"),
            Method::KnnSmoothing { alpha, beta, k } => {
                write!(out, ":alpha={alpha},beta={beta},k={k}")
            }
        }
    }
}
