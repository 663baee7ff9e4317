//! How an update is trained: one closed enum, written as one line, `distil:lambda=0.5,temperature=2`.
//!
//! Formulas are in `loss.rs` and `weights.rs`, sources with them. λ always weights the teacher.

use lowchurn_data::Kind;
use serde::{Deserialize, Serialize};

use crate::Lambda;

pub(crate) mod line;

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Method {
    /// Labels only. With `label_smoothing` in the plan, the baseline of that name.
    Retrain,
    /// (1−λ)·CE to the label + λ·a divergence to the teacher.
    Distil { lambda: Lambda, temperature: f64, divergence: Divergence, rows: TeacherRows },
    /// λ·teacher + (1−λ)·label where the teacher is right, the plain label where it is wrong.
    Anchor { lambda: Lambda },
    /// As Anchor, but the label weighs only η where the teacher is wrong (RCP, Fard et al. 2016); smoothed:
    /// η·((1−λ)·label + λ/K).
    AnchorRcp { lambda: Lambda, eta: f64, is_smoothed: bool },
    /// Distillation with weight α + β on the rows in focus and α on the others (positive-congruent training).
    Focal { lambda: Lambda, temperature: f64, alpha: f64, beta: f64, focus: Focus },
    /// λ·mean over classes of max(|z_s − z_t| − margin, 0)^power (ELODI).
    Inhibition { lambda: Lambda, margin: f64, power: f64 },
    /// Rows mixed after the embedding layer, shares from Beta(α, α).
    Mixup { alpha: f64 },
    /// Bi-tempered logistic loss.
    BiTempered { t1: f64, t2: f64 },
    /// CE − β·H(p): pushes confidence down (Pereyra et al. 2017).
    ConfidencePenalty { beta: f64 },
    /// (1−α)·CE + α·H(p): pushes confidence up (Bhojanapalli et al. 2021).
    EntropyMinimisation { alpha: f64 },
    /// Two students, CE each plus β·(KL both ways), β rising over `warmup` updates; the first is kept. Where both start
    /// from the same head (a warm start), it is their dropout that tells them apart.
    CoDistil { beta: f64, warmup: u64 },
    /// Starts from shrink·old + perturb·fresh weights, labels only.
    ShrinkPerturb { shrink: f64, perturb: f64 },
    /// + strength/2·‖θ − θ_old‖².
    L2ToOld { strength: f64 },
    /// + strength/2·Σ F(θ − θ_old)², F the old model's Fisher information from `rows` rows.
    Ewc { strength: f64, rows: usize },
    /// In each update a share p of the weights stands at its old value.
    Mixout { p: f64 },
    /// (1−α)·label + α·(β/K + (1−β)·shares of the labels of the k rows whose logits under the teacher are nearest): k-NN label
    /// smoothing. The teacher's logits say who is near and nothing else.
    KnnSmoothing { alpha: f64, beta: f64, k: usize },
    /// What a teacher shows besides its logits and nothing else: no labels, and no head in what is released.
    TaskAgnostic,
}

/// What the teacher's term measures, per row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Divergence {
    /// T²·KL(teacher^T ‖ student^T).
    Kl,
    /// T²·KL(student^T ‖ teacher^T).
    ReverseKl,
    /// T²·Jensen–Shannon with halves.
    JensenShannon,
    /// ½‖z_s − z_t‖².
    LogitMse,
    /// CE to (1−λ)·label + λ·teacher: the churn paper's form, at T = 1 only.
    MixedLabel,
    /// KL between z-scored logits (Sun et al. 2024); more than two classes.
    Standardised,
    /// Decoupled KD with α = 1, β = 8 (Zhao et al. 2022); more than two classes.
    Decoupled,
}

/// The rows on which the teacher is followed; the others learn from their label alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TeacherRows {
    All,
    /// Those on which the teacher's cross-entropy is lower than the student's.
    Better,
    /// Those that the old model was trained on.
    Old,
}

/// The rows that focal distillation weighs more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Focus {
    All,
    OldRight,
    NewWrong,
    NegativeFlip,
}

/// What besides labels a method needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    pub teacher: bool,
    /// The old model's weights, of the same shapes.
    pub old_weights: bool,
    /// Which rows the old model was trained on.
    pub old_rows: bool,
    /// Held-out rows with the old model's predictions.
    pub buffer: bool,
    /// A teacher's states, for there is nothing else to learn from.
    pub states: bool,
}

pub const METHODS: [&str; 17] = [
    "retrain",
    "distil",
    "anchor",
    "anchor-rcp",
    "focal",
    "inhibition",
    "mixup",
    "bi-tempered",
    "confidence-penalty",
    "entropy-minimisation",
    "co-distil",
    "shrink-perturb",
    "l2-old",
    "ewc",
    "mixout",
    "knn-smoothing",
    "task-agnostic",
];

impl Method {
    pub fn name(&self) -> &'static str {
        match self {
            Method::Retrain => "retrain",
            Method::Distil { .. } => "distil",
            Method::Anchor { .. } => "anchor",
            Method::AnchorRcp { .. } => "anchor-rcp",
            Method::Focal { .. } => "focal",
            Method::Inhibition { .. } => "inhibition",
            Method::Mixup { .. } => "mixup",
            Method::BiTempered { .. } => "bi-tempered",
            Method::ConfidencePenalty { .. } => "confidence-penalty",
            Method::EntropyMinimisation { .. } => "entropy-minimisation",
            Method::CoDistil { .. } => "co-distil",
            Method::ShrinkPerturb { .. } => "shrink-perturb",
            Method::L2ToOld { .. } => "l2-old",
            Method::Ewc { .. } => "ewc",
            Method::Mixout { .. } => "mixout",
            Method::KnnSmoothing { .. } => "knn-smoothing",
            Method::TaskAgnostic => "task-agnostic",
        }
    }

    /// λ's schedule, where the method has a teacher; the weight of the neighbours, where these take its place.
    pub fn lambda(&self) -> Option<Lambda> {
        match *self {
            Method::Distil { lambda, .. }
            | Method::Anchor { lambda }
            | Method::AnchorRcp { lambda, .. }
            | Method::Focal { lambda, .. }
            | Method::Inhibition { lambda, .. } => Some(lambda),
            Method::KnnSmoothing { alpha, .. } => Some(Lambda::Constant(alpha)),
            _ => None,
        }
    }

    pub fn needs(&self) -> Needs {
        let old_weights = matches!(
            self,
            Method::ShrinkPerturb { .. }
                | Method::L2ToOld { .. }
                | Method::Ewc { .. }
                | Method::Mixout { .. }
        );
        Needs {
            teacher: self.lambda().is_some(),
            old_weights,
            old_rows: matches!(self, Method::Distil { rows: TeacherRows::Old, .. }),
            buffer: matches!(self.lambda(), Some(Lambda::Budget { .. })),
            states: matches!(self, Method::TaskAgnostic),
        }
    }

    /// Whether it changes what the layers below the last one make of a row, in an update.
    pub fn changes_vectors(&self) -> bool {
        matches!(self, Method::Mixup { .. } | Method::Mixout { .. } | Method::CoDistil { .. })
    }

    /// Refuses a method that has no meaning for a kind of task, and says for which it has and which the kind has.
    ///
    /// The teacher's term of labels that hold by themselves is binary, and of a number the squared error: see `loss/kinds.rs`.
    /// What compares classes of one row (decoupling, standardising, mixing, predictions that are right) needs one class a row.
    pub fn check_kind(&self, kind: Kind) -> Result<(), String> {
        let all = matches!(
            self,
            Method::Retrain
                | Method::ShrinkPerturb { .. }
                | Method::L2ToOld { .. }
                | Method::Mixout { .. }
        );
        let (is_known, are_for, known) = match (kind, *self) {
            (Kind::SingleLabel, _) => return Ok(()),
            (Kind::MultiLabel, Method::Distil { divergence, .. }) => {
                let known = [Divergence::Kl, Divergence::LogitMse, Divergence::MixedLabel];
                if !known.contains(&divergence) {
                    return Err("distil: of a multi-label task divergence may be kl (binary, a label by itself), logit-mse or \
                                mixed-label; the others are for single-label tasks"
                        .into());
                }
                (true, "", "")
            }
            (Kind::Regression, Method::Distil { temperature, divergence, .. }) => {
                if !matches!(divergence, Divergence::Kl | Divergence::LogitMse)
                    || temperature != 1.0
                {
                    return Err("distil: of a regression the teacher's term is the squared error; divergence and temperature \
                                are for single-label and multi-label tasks, leave them out"
                        .into());
                }
                (true, "", "")
            }
            (Kind::MultiLabel, Method::Inhibition { .. }) => (true, "", ""),
            (Kind::Regression, Method::Inhibition { .. }) => {
                (false, "single-label and multi-label", FOR_REGRESSION)
            }
            (Kind::MultiLabel, _) => (all, "single-label", FOR_MULTI_LABEL),
            (Kind::Regression, _) => (all, "single-label", FOR_REGRESSION),
        };
        let (name, this) = (self.name(), kind.name());
        if !is_known {
            return Err(format!(
                "method {name} is for {are_for} tasks, and this is a {this} one; methods for it: {known}"
            ));
        }
        match self.lambda() {
            Some(Lambda::Budget { .. }) => Err(format!(
                "{name}: λ by a churn budget is for single-label tasks, and this is a {this} one; give a number as λ"
            )),
            _ => Ok(()),
        }
    }

    /// Refuses what can't work with K classes, and says why.
    pub fn check(&self, classes: usize) -> Result<(), String> {
        match self {
            Method::Distil { divergence: Divergence::Standardised, .. } if classes == 2 => Err(
                "divergence=standardised can't work with two classes: every pair of logits standardises to \
                 ±0.7071, so the teacher's confidence is erased; use kl"
                    .into(),
            ),
            Method::Distil { divergence: Divergence::Decoupled, .. } if classes == 2 => Err(
                "divergence=decoupled is plain kl with two classes: there is no second wrong class; use kl".into(),
            ),
            _ => Ok(()),
        }
    }
}

const FOR_MULTI_LABEL: &str = "retrain, distil, inhibition, shrink-perturb, l2-old, mixout";
const FOR_REGRESSION: &str = "retrain, distil, shrink-perturb, l2-old, mixout";

impl TryFrom<String> for Method {
    type Error = String;

    fn try_from(text: String) -> Result<Method, String> {
        text.parse()
    }
}

impl From<Method> for String {
    fn from(method: Method) -> String {
        method.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_written_and_read_back() {
        for name in METHODS {
            let method: Method = name.parse().unwrap();
            assert_eq!(method.name(), name);
            assert_eq!(method.to_string().parse::<Method>().unwrap(), method);
        }
        let text = "distil:lambda=1..0@200,temperature=2,divergence=js,rows=better";
        assert_eq!(text.parse::<Method>().unwrap().to_string(), text);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let said = |text: &str| text.parse::<Method>().unwrap_err();
        assert_eq!(said("distill"), "unknown method \"distill\"; did you mean distil?");
        assert!(said("zzz").starts_with("unknown method \"zzz\"; known: retrain, distil, "));
        assert_eq!(said("distil:lamda=0.5"), "distil: unknown setting lamda; did you mean lambda?");
        assert_eq!(said("retrain:x=1"), "retrain: unknown setting x; it takes none");
        assert_eq!(said("mixup:zz=1"), "mixup: unknown setting zz; it takes alpha");
        assert_eq!(said("distil:0.5"), "distil: \"0.5\" is no setting, expected KEY=VALUE");
        assert_eq!(said("mixup:alpha=1,alpha=2"), "mixup: alpha is set twice");
        assert_eq!(said("mixup:alpha=0"), "mixup: alpha is \"0\", expected a number above 0");
        assert_eq!(
            said("distil:temperature=-1"),
            "distil: temperature is \"-1\", expected a number above 0"
        );
        assert_eq!(
            said("distil:temperature=2,divergence=mixed-label"),
            "distil: temperature is 2, but mixed-label is exact at temperature 1 only; use kl"
        );
        assert_eq!(
            said("distil:temperature=2,divergence=logit-mse"),
            "distil: temperature is 2, but logit-mse compares logits as they are; leave it out"
        );
        assert!(said("distil:divergence=x").ends_with(
            "expected kl, reverse-kl, js, logit-mse, mixed-label, standardised, decoupled"
        ));
        assert!(said("distil:lambda=1.5").starts_with("distil: λ is \"1.5\", expected"));
    }

    #[test]
    fn methods_are_for_kinds() {
        let check = |text: &str, kind, expected: &str| {
            let found = text.parse::<Method>().unwrap().check_kind(kind);
            assert_eq!(found.err().unwrap_or_default(), expected, "{text}");
        };
        for name in METHODS {
            check(name, Kind::SingleLabel, "");
            let is_known = |known: &str| known.split(", ").any(|known| known == name);
            let found = |kind| name.parse::<Method>().unwrap().check_kind(kind).is_ok();
            assert_eq!(found(Kind::MultiLabel), is_known(FOR_MULTI_LABEL), "{name}");
            assert_eq!(found(Kind::Regression), is_known(FOR_REGRESSION), "{name}");
        }
        check(
            "focal",
            Kind::MultiLabel,
            "method focal is for single-label tasks, and this is a multi-label one; methods for it: retrain, distil, inhibition, \
             shrink-perturb, l2-old, mixout",
        );
        check(
            "inhibition",
            Kind::Regression,
            "method inhibition is for single-label and multi-label tasks, and this is a regression one; methods for it: retrain, \
             distil, shrink-perturb, l2-old, mixout",
        );
        check("distil:divergence=logit-mse", Kind::MultiLabel, "");
        check(
            "distil:divergence=js",
            Kind::MultiLabel,
            "distil: of a multi-label task divergence may be kl (binary, a label by itself), logit-mse or mixed-label; the others \
             are for single-label tasks",
        );
        check(
            "distil:temperature=2",
            Kind::Regression,
            "distil: of a regression the teacher's term is the squared error; divergence and temperature are for single-label and \
             multi-label tasks, leave them out",
        );
        check(
            "distil:lambda=churn<=0.02",
            Kind::MultiLabel,
            "distil: λ by a churn budget is for single-label tasks, and this is a multi-label one; give a number as λ",
        );
    }

    #[test]
    fn two_classes_break_some() {
        let check = |text: &str, classes| text.parse::<Method>().unwrap().check(classes);
        assert!(check("distil:divergence=standardised", 2).unwrap_err().contains("±0.7071"));
        assert!(check("distil:divergence=decoupled", 2).unwrap_err().contains("plain kl"));
        assert!(check("distil:divergence=standardised", 3).is_ok());
    }
}
