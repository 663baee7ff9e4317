//! Whose mistakes count how much: every row's the same, every class's the same, or those of the class that is worst off. One
//! closed enum, written as one line, `robust:weight=0.5,step=0.1`.
//!
//! With L_y the mean loss of class y and π its share of the rows, an objective is Σ w_y·L_y: standard w = π, balanced w = 1/K,
//! robust w = (1 − a)·b + a·λ, where b is one of the former and λ is raised where held-out rows go wrong (papers.md §7.2, §7.5;
//! Wang et al. 2022, 2206.06479). What reaches a row are the gains c = w/π.

use std::fmt;
use std::str::FromStr;

use lowchurn_data::Kind;
use lowchurn_data::error::nearest;
use serde::{Deserialize, Serialize};

use crate::method::line::{Keys, name_of};
use crate::{Divergence, Method, TeacherRows};

mod shares;
mod steering;
mod weights;

pub use shares::{Groups, Shares};
pub use steering::{Steering, steering_rows};
pub(crate) use weights::losses_of_shifted;
pub use weights::{bounded, class_losses, gains, predicted_with, prior, raise, robust_weights};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Objective {
    /// The mean over rows, as everywhere else.
    #[default]
    Standard,
    /// The mean over classes, or over groups, of their mean losses.
    Balanced {
        form: Form,
        group_by: Option<String>,
    },
    Robust(Robust),
    /// A margin by class from the teacher's own: c_y = exp(−scale·m_y), m_y the mean over rows of class y of what the teacher
    /// gives their class above its next best. After the idea of Lukasik et al. 2021 (papers.md §7.8); the form is ours.
    AdaMargin {
        scale: f64,
    },
    /// λ of the rows of class y becomes λ·max(0, m_y). After the same; the form is ours.
    AdaAlpha,
}

/// w = (1 − a)·b + a·λ.
#[derive(Clone, Debug, PartialEq)]
pub struct Robust {
    /// a: 0 is b alone, 1 the worst class alone.
    pub weight: f64,
    pub base: Base,
    pub form: Form,
    /// γ in λ ← λ·exp(γ·R), renormalised.
    pub step: f64,
    /// The largest of λ over the smallest, at most. Written where it is another than 100.
    pub ratio: f64,
    /// Updates between two such.
    pub every: u64,
    /// R is weighted by these.
    pub labels: SteeredBy,
    /// What R is the mean of.
    pub loss: ClassLoss,
    /// Held-out rows that are asked at most, of each class or group the same number as far as they go.
    pub rows: usize,
    /// A column whose values are the groups, in place of the classes.
    pub group_by: Option<String>,
}

/// b of the trade-off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    Balanced,
    Standard,
}

/// How gains enter a row's loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// CE(target, softmax(z − log c)): what a network that fits every row still learns from (papers.md §7.4).
    Margin,
    /// Σ c_y·target_y·CE(y): group DRO's, for contrast (Sagawa et al. 2020).
    Weights,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SteeredBy {
    OneHot,
    Teacher,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassLoss {
    /// 1 where another class is predicted.
    ZeroOne,
    CrossEntropy,
}

/// So many classes as are told apart in practice can't all be forgotten for one, and a few are free to differ.
pub const RATIO: f64 = 100.0;

pub const OBJECTIVES: [&str; 5] = ["standard", "balanced", "robust", "ada-margin", "ada-alpha"];

const FORMS: [(&str, Form); 2] = [("margin", Form::Margin), ("weights", Form::Weights)];
const BASES: [(&str, Base); 2] = [("balanced", Base::Balanced), ("standard", Base::Standard)];
const LABELS: [(&str, SteeredBy); 2] =
    [("one-hot", SteeredBy::OneHot), ("teacher", SteeredBy::Teacher)];
const LOSSES: [(&str, ClassLoss); 2] =
    [("zero-one", ClassLoss::ZeroOne), ("cross-entropy", ClassLoss::CrossEntropy)];

impl Objective {
    pub fn is_standard(&self) -> bool {
        *self == Objective::Standard
    }

    pub fn name(&self) -> &'static str {
        match self {
            Objective::Standard => "standard",
            Objective::Balanced { .. } => "balanced",
            Objective::Robust(_) => "robust",
            Objective::AdaMargin { .. } => "ada-margin",
            Objective::AdaAlpha => "ada-alpha",
        }
    }

    pub fn robust(&self) -> Option<&Robust> {
        match self {
            Objective::Robust(robust) => Some(robust),
            _ => None,
        }
    }

    /// The column whose values are groups.
    pub fn group_by(&self) -> Option<&str> {
        match self {
            Objective::Balanced { group_by, .. } => group_by.as_deref(),
            Objective::Robust(robust) => robust.group_by.as_deref(),
            _ => None,
        }
    }

    /// How its gains enter; `None` where it has none.
    pub fn form(&self) -> Option<Form> {
        match self {
            Objective::Balanced { form, .. } => Some(*form),
            Objective::Robust(robust) => Some(robust.form),
            _ => None,
        }
    }

    /// Refuses what means nothing with a method or a kind of task, or with weights of classes of one's own.
    pub fn check(&self, method: &Method, kind: Kind, has_weights: bool) -> Result<(), String> {
        let name = self.name();
        if self.is_standard() {
            return Ok(());
        }
        if kind != Kind::SingleLabel {
            let kind = kind.name();
            return Err(format!(
                "objective {name} is for single-label tasks, and this is a {kind} one; leave it out"
            ));
        }
        if has_weights {
            return Err(format!(
                "objective {name} weighs the classes itself, and class weights are given too; leave one of them out"
            ));
        }
        let needs_teacher = matches!(self, Objective::AdaMargin { .. } | Objective::AdaAlpha)
            || self.robust().is_some_and(|robust| robust.labels == SteeredBy::Teacher);
        if needs_teacher && !method.needs().teacher {
            let what = match self {
                Objective::Robust(_) => "labels=teacher follows",
                _ => "is made from",
            };
            return Err(format!(
                "objective {name} {what} a teacher, and method {} has none; take distil",
                method.name()
            ));
        }
        match method {
            Method::Distil {
                divergence: Divergence::Kl | Divergence::MixedLabel,
                rows: TeacherRows::All,
                ..
            }
            | Method::Retrain
            | Method::ShrinkPerturb { .. }
            | Method::L2ToOld { .. }
            | Method::Ewc { .. }
            | Method::Mixout { .. } => Ok(()),
            Method::Distil { .. } => Err(format!(
                "objective {name} needs a target that is a distribution on every row: of distil, divergence kl or mixed-label \
                 with rows=all"
            )),
            _ => Err(format!(
                "objective {name} doesn't go with method {}; methods that do: retrain, distil, shrink-perturb, l2-old, ewc, \
                 mixout",
                method.name()
            )),
        }
    }
}

impl FromStr for Objective {
    type Err = String;

    fn from_str(text: &str) -> Result<Objective, String> {
        let mut k = Keys::of(text)?;
        let found = match k.method {
            "standard" => Objective::Standard,
            "balanced" => {
                let group_by = k.text("group-by")?;
                Objective::Balanced { form: form(&mut k, &group_by)?, group_by }
            }
            "robust" => {
                let group_by = k.text("group-by")?;
                Objective::Robust(Robust {
                    weight: k.share("weight", 1.0)?,
                    base: k.choice("base", Base::Balanced, &BASES)?,
                    form: form(&mut k, &group_by)?,
                    step: k.positive("step", 0.1)?,
                    ratio: k.parsed("ratio", RATIO, "a number from 1 on", |ratio| *ratio >= 1.0)?,
                    every: k.parsed("every", 50, "at least 1 update", |n| *n > 0)?,
                    labels: k.choice("labels", SteeredBy::OneHot, &LABELS)?,
                    loss: k.choice("loss", ClassLoss::ZeroOne, &LOSSES)?,
                    rows: k.parsed("rows", 1000, "at least 1 row", |n| *n > 0)?,
                    group_by,
                })
            }
            "ada-margin" => Objective::AdaMargin { scale: k.positive("scale", 1.0)? },
            "ada-alpha" => Objective::AdaAlpha,
            unknown => {
                let hint = match nearest(unknown, OBJECTIVES) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("known: {}", OBJECTIVES.join(", ")),
                };
                return Err(format!("unknown objective {unknown:?}; {hint}"));
            }
        };
        k.end()?;
        Ok(found)
    }
}

/// Of groups rows are weighed: a margin stands between classes.
fn form(k: &mut Keys, group_by: &Option<String>) -> Result<Form, String> {
    let default = if group_by.is_some() { Form::Weights } else { Form::Margin };
    match k.choice("form", default, &FORMS)? {
        Form::Margin if group_by.is_some() => Err(format!(
            "{}: form is \"margin\", but a margin stands between classes, and group-by makes groups of rows; take weights",
            k.method
        )),
        form => Ok(form),
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())?;
        match self {
            Objective::Standard | Objective::AdaAlpha => {}
            Objective::Balanced { form, .. } => write!(out, ":form={}", name_of(&FORMS, form))?,
            Objective::AdaMargin { scale } => write!(out, ":scale={scale}")?,
            Objective::Robust(Robust {
                weight,
                base,
                form,
                step,
                every,
                labels,
                loss,
                rows,
                ratio,
                ..
            }) => {
                write!(
                    out,
                    ":weight={weight},base={},form={},step={step},every={every},labels={},loss={},rows={rows}",
                    name_of(&BASES, base),
                    name_of(&FORMS, form),
                    name_of(&LABELS, labels),
                    name_of(&LOSSES, loss),
                )?;
                if *ratio != RATIO {
                    write!(out, ",ratio={ratio}")?;
                }
            }
        }
        match self.group_by() {
            Some(column) => write!(out, ",group-by={column}"),
            None => Ok(()),
        }
    }
}

impl TryFrom<String> for Objective {
    type Error = String;

    fn try_from(text: String) -> Result<Objective, String> {
        text.parse()
    }
}

impl From<Objective> for String {
    fn from(objective: Objective) -> String {
        objective.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_objective_is_written_and_read_back() {
        for name in OBJECTIVES {
            let objective: Objective = name.parse().unwrap();
            assert_eq!(objective.name(), name);
            assert_eq!(objective.to_string().parse::<Objective>().unwrap(), objective);
        }
        let text = "robust:weight=0.5,base=standard,form=weights,step=1,every=7,labels=teacher,loss=cross-entropy,rows=90";
        assert_eq!(text.parse::<Objective>().unwrap().to_string(), text);
        let free = "robust:ratio=inf".parse::<Objective>().unwrap();
        assert!(free.to_string().ends_with("rows=1000,ratio=inf"), "{free}");
        assert_eq!(free.to_string().parse::<Objective>().unwrap(), free);
        let grouped = "balanced:group-by=air line".parse::<Objective>().unwrap();
        assert_eq!(grouped.to_string(), "balanced:form=weights,group-by=air line");
        assert_eq!(grouped.group_by(), Some("air line"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let said = |text: &str| text.parse::<Objective>().unwrap_err();
        assert_eq!(said("robost"), "unknown objective \"robost\"; did you mean robust?");
        assert_eq!(
            said("zzz"),
            "unknown objective \"zzz\"; known: standard, balanced, robust, ada-margin, ada-alpha"
        );
        assert_eq!(
            said("robust:weight=1.5"),
            "robust: weight is \"1.5\", expected a number from 0 to 1"
        );
        assert_eq!(said("robust:step=0"), "robust: step is \"0\", expected a number above 0");
        assert_eq!(
            said("robust:ratio=0.5"),
            "robust: ratio is \"0.5\", expected a number from 1 on"
        );
        assert_eq!(said("robust:every=0"), "robust: every is \"0\", expected at least 1 update");
        assert_eq!(said("robust:labels=x"), "robust: labels is \"x\", expected one-hot, teacher");
        assert_eq!(
            said("balanced:stp=1"),
            "balanced: unknown setting stp; it takes group-by, form"
        );
        assert_eq!(
            said("balanced:form=margin,group-by=airline"),
            "balanced: form is \"margin\", but a margin stands between classes, and group-by makes groups of rows; take weights"
        );
        assert_eq!(
            said("robust:group-by="),
            "robust: group-by is \"\", expected the name of a column"
        );
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let check = |objective: &str, method: &str, kind, has_weights, expected: &str| {
            let objective: Objective = objective.parse().unwrap();
            let found = objective.check(&method.parse().unwrap(), kind, has_weights);
            assert_eq!(found.err().unwrap_or_default(), expected, "{objective} {method}");
        };
        let single = Kind::SingleLabel;
        check("standard", "focal", Kind::Regression, true, "");
        for method in ["retrain", "distil", "distil:temperature=2", "ewc", "mixout", "l2-old"] {
            check("robust", method, single, false, "");
        }
        check("robust:labels=teacher", "distil", single, false, "");
        check(
            "robust",
            "retrain",
            Kind::MultiLabel,
            false,
            "objective robust is for single-label tasks, and this is a multi-label one; leave it out",
        );
        check(
            "balanced",
            "retrain",
            single,
            true,
            "objective balanced weighs the classes itself, and class weights are given too; leave one of them out",
        );
        check(
            "robust:labels=teacher",
            "retrain",
            single,
            false,
            "objective robust labels=teacher follows a teacher, and method retrain has none; take distil",
        );
        check(
            "ada-alpha",
            "retrain",
            single,
            false,
            "objective ada-alpha is made from a teacher, and method retrain has none; take distil",
        );
        check(
            "balanced",
            "distil:divergence=js",
            single,
            false,
            "objective balanced needs a target that is a distribution on every row: of distil, divergence kl or mixed-label \
             with rows=all",
        );
        check(
            "balanced",
            "mixup",
            single,
            false,
            "objective balanced doesn't go with method mixup; methods that do: retrain, distil, shrink-perturb, l2-old, ewc, \
             mixout",
        );
    }
}
