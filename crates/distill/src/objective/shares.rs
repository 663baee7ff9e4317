//! What an objective knows of the rows before the first update, and the shape that it gives their losses in one of them.

use lowchurn_data::Encoded;

use super::weights::{gains, prior, robust_weights};
use super::{Base, Form, Objective};
use crate::loss::Shape;
use crate::{Error, Guides, Method, Plan, Result, Teacher};

/// The group of each row, where a column makes the groups.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Groups {
    pub names: Vec<String>,
    /// (N,)
    pub of_row: Vec<u32>,
    /// Of each row to evaluate on; `None` of one whose group no row to train on is of. Empty without an evaluation.
    pub of_eval: Vec<Option<u32>>,
}

/// Sums over the rows to train on.
#[derive(Clone, Debug, PartialEq)]
pub struct Shares {
    /// (K,) Rows with each label, or (G,) of each group.
    of_labels: Vec<f64>,
    /// (K,) What the teacher gives each class, for weights at the method's temperature. A row whose label it doesn't know counts for its
    /// label. Empty without a teacher, and of groups.
    of_teacher: Vec<f64>,
    /// (K,) Mean over the rows of each class of what the teacher gives it above its next best, from −1 to 1.
    margins: Vec<f64>,
}

/// Where a target's sum over all rows is a smaller part than this of all of them, 1/π is no number to learn with.
const LEAST_SHARE: f64 = 1e-12;

impl Shares {
    /// `None` of the standard objective. `labels` are the student's.
    ///
    /// # Errors
    /// [`Error::Objective`] where a class has no labelled row to train on, or a share of zero at the teacher, where a group
    /// has no row, and where groups are asked for and not given.
    pub fn of(
        plan: &Plan,
        rows: &Encoded,
        guides: &Guides,
        labels: &[String],
    ) -> Result<Option<Shares>> {
        let objective = &plan.objective;
        if objective.is_standard() {
            return Ok(None);
        }
        let name = objective.name();
        let refuse = |reason: String| Err(Error::Objective { reason });
        if let Some(column) = objective.group_by() {
            let Some(groups) = guides.groups.filter(|groups| groups.of_row.len() == rows.rows())
            else {
                return refuse(format!(
                    "objective {name} groups rows by {column:?}, and the rows have no such values"
                ));
            };
            let of_labels = counts(groups.of_row.iter().copied(), groups.names.len());
            if let Some(at) = of_labels.iter().position(|n| *n == 0.0) {
                return refuse(format!(
                    "objective {name}: no row to train on has {column} = {:?}, so its share is zero; leave its held-out rows \
                     out, or add rows to train on",
                    groups.names[at]
                ));
            }
            let (of_teacher, margins) = (Vec::new(), Vec::new());
            return Ok(Some(Shares { of_labels, of_teacher, margins }));
        }
        let of_labels = counts(rows.labels.iter().copied().flatten(), labels.len());
        if let Some(at) = of_labels.iter().position(|n| *n == 0.0) {
            return refuse(format!(
                "objective {name}: no row to train on has the label {:?}, so the share of this class is zero; add rows of it, \
                 or take objective standard",
                labels[at]
            ));
        }
        // Weights stand at the terms of a target, which T tempers; margins stand in the logits, where labels' and teacher's minima are
        // at softmax(z) ∝ c·p with p at T = 1.
        let temperature = match (plan.method, plan.objective.form()) {
            (Method::Distil { temperature, .. }, Some(Form::Weights)) => temperature,
            _ => 1.0,
        };
        let Some(teacher) = guides.teacher.filter(|_| plan.method.needs().teacher) else {
            return Ok(Some(Shares { of_labels, of_teacher: Vec::new(), margins: Vec::new() }));
        };
        let of_teacher = told(teacher, rows, temperature);
        let least = LEAST_SHARE * rows.rows() as f64;
        // Where gains divide by it.
        if plan.objective.form().is_some()
            && let Some(at) = of_teacher.iter().position(|mass| *mass <= least)
        {
            return refuse(format!(
                "objective {name}: the teacher gives the label {:?} no share of any row; take a teacher that knows it, or objective \
                 standard",
                labels[at]
            ));
        }
        let margins = margins(teacher, rows, &of_labels);
        Ok(Some(Shares { of_labels, of_teacher, margins }))
    }

    /// π of the targets (1 − λ)·label + λ·teacher. (K,), or (G,) of groups.
    pub fn prior_at(&self, lambda: f64) -> Vec<f64> {
        if self.of_teacher.is_empty() {
            return prior(&self.of_labels);
        }
        let both = self.of_labels.iter().zip(&self.of_teacher);
        prior(&both.map(|(l, t)| (1.0 - lambda) * l + lambda * t).collect::<Vec<_>>())
    }

    /// What the objective does to the losses of an update with this λ; `log_weights` are those of the worst classes so far,
    /// nothing for even ones.
    pub fn shape(&self, objective: &Objective, log_weights: &[f64], lambda: f64) -> Shape {
        let n = self.of_labels.len();
        let even = || vec![1.0 / n as f64; n];
        let prior = self.prior_at(lambda);
        let (weights, form) = match objective {
            Objective::Standard => return Shape::Plain,
            Objective::AdaMargin { scale } => {
                return Shape::Margins(self.margins.iter().map(|m| -scale * m).collect());
            }
            Objective::AdaAlpha => {
                return Shape::Trust(self.margins.iter().map(|m| m.max(0.0)).collect());
            }
            Objective::Balanced { form, .. } => (even(), *form),
            Objective::Robust(robust) => {
                let base = match robust.base {
                    Base::Balanced => even(),
                    Base::Standard => prior.clone(),
                };
                let worst = match log_weights.len() == n {
                    true => log_weights.iter().map(|log| log.exp()).collect(),
                    false => even(),
                };
                (robust_weights(&base, &worst, robust.weight), robust.form)
            }
        };
        let gains = gains(&weights, &prior);
        match (objective.group_by(), form) {
            (Some(_), _) => Shape::Groups(gains),
            (None, Form::Weights) => Shape::Classes(gains),
            // A weight that has shrunk to nothing is no −∞ in the logits.
            (None, Form::Margin) => {
                Shape::Margins(gains.iter().map(|c| c.max(f64::MIN_POSITIVE).ln()).collect())
            }
        }
    }
}

fn counts(of_row: impl Iterator<Item = u32>, n: usize) -> Vec<f64> {
    let mut counts = vec![0.0; n];
    for at in of_row {
        if let Some(count) = counts.get_mut(at as usize) {
            *count += 1.0;
        }
    }
    counts
}

/// Σ over rows of what the teacher gives each class. (K,)
fn told(teacher: &Teacher, rows: &Encoded, temperature: f64) -> Vec<f64> {
    let mut sums = vec![0.0; teacher.known.len()];
    for (row, label) in rows.labels.iter().enumerate() {
        match label.map(|label| label as usize).filter(|label| !teacher.known[*label]) {
            Some(label) => sums[label] += 1.0,
            None => {
                let told = teacher.probabilities(row, temperature);
                sums.iter_mut().zip(told).for_each(|(sum, p)| *sum += p);
            }
        }
    }
    sums
}

/// (K,); 0 of a class that the teacher doesn't know, which follows its labels alone anyway.
fn margins(teacher: &Teacher, rows: &Encoded, counts: &[f64]) -> Vec<f64> {
    let mut sums = vec![0.0; counts.len()];
    for (row, label) in rows.labels.iter().enumerate() {
        let Some(label) = label.map(|label| label as usize) else { continue };
        if !teacher.known[label] {
            continue;
        }
        let told = teacher.probabilities(row, 1.0);
        let others = told.iter().enumerate().filter(|(class, _)| *class != label);
        sums[label] += told[label] - others.map(|(_, p)| *p).fold(0.0, f64::max);
    }
    sums.iter().zip(counts).map(|(sum, n)| sum / n).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::SelectBy;
    use crate::loss::row::Row;
    use crate::loss::shaped::shaped_row_loss;

    /// Rows of one token each.
    pub fn rows(labels: &[Option<u32>]) -> Encoded {
        let n = labels.len();
        Encoded {
            tokens: vec![1; n],
            types: vec![0; n],
            offsets: (0..=n).collect(),
            ids: (0..n).map(|row| row.to_string()).collect(),
            labels: labels.to_vec(),
            ..Encoded::default()
        }
    }

    fn plan(objective: &str, method: &str) -> Plan {
        let (objective, method) = (objective.parse().unwrap(), method.parse().unwrap());
        Plan { objective, method, ..Plan::default_with(SelectBy::Accuracy) }
    }

    fn names() -> Vec<String> {
        ["a", "b", "c"].map(str::to_string).to_vec()
    }

    fn shares(
        objective: &str,
        method: &str,
        labels: &[Option<u32>],
        guides: &Guides,
    ) -> Result<Shares> {
        Shares::of(&plan(objective, method), &rows(labels), guides, &names()).map(Option::unwrap)
    }

    /// log of a teacher's rows as its logits.
    fn teacher(told: &[[f64; 3]], known: [bool; 3]) -> Teacher {
        let logits = told.iter().flatten().map(|p| p.ln() as f32).collect();
        Teacher { logits, known: known.to_vec(), said: Vec::new() }
    }

    fn close(found: &[f64], expected: &[f64]) {
        let near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-6;
        assert!(
            found.len() == expected.len() && found.iter().zip(expected).all(near),
            "{found:?} {expected:?}"
        );
    }

    #[test]
    fn shares_are_the_targets_own() {
        let labels = [Some(0), Some(0), Some(1), Some(2)];
        let plain = shares("balanced", "retrain", &labels, &Guides::default()).unwrap();
        close(&plain.prior_at(0.0), &[0.5, 0.25, 0.25]);
        let told = [[0.8, 0.1, 0.1], [0.4, 0.5, 0.1], [0.2, 0.6, 0.2], [0.2, 0.2, 0.6]];
        let told = teacher(&told, [true; 3]);
        let guides = Guides { teacher: Some(&told), ..Guides::default() };
        let both = shares("balanced", "distil", &labels, &guides).unwrap();
        close(&both.prior_at(0.0), &[0.5, 0.25, 0.25]);
        close(&both.prior_at(1.0), &[0.4, 0.35, 0.25]);
        close(&both.prior_at(0.5), &[0.45, 0.3, 0.25]);
        // Mean margins: (0.7 − 0.1)/2, 0.4, 0.4.
        let of = |text: &str| both.shape(&text.parse().unwrap(), &[], 0.5);
        let Shape::Trust(trust) = of("ada-alpha") else { panic!("another shape") };
        close(&trust, &[0.3, 0.4, 0.4]);
        let Shape::Margins(margins) = of("ada-margin:scale=2") else { panic!("another shape") };
        close(&margins, &[-0.6, -0.8, -0.8]);
        // A class that the teacher doesn't know counts by its label.
        let blind = teacher(&[[0.5, 0.5, 1.0]; 4], [true, true, false]);
        let guides = Guides { teacher: Some(&blind), ..Guides::default() };
        let found = shares("balanced", "distil", &labels, &guides).unwrap();
        close(&found.prior_at(1.0), &[0.375, 0.375, 0.25]);
    }

    /// Rows that tell nothing of their class, to labels and to a teacher: whatever T and λ, they are learnt as even classes.
    #[test]
    fn rows_that_tell_nothing_are_learnt_as_even() {
        let p = [0.8, 0.15, 0.05];
        let labels: Vec<Option<u32>> =
            (0..20).map(|row| Some(u32::from(row >= 16) + u32::from(row == 19))).collect();
        let told = teacher(&[p; 20], [true; 3]);
        let guides = Guides { teacher: Some(&told), ..Guides::default() };
        let logits = p.map(|p: f64| p.ln());
        for (objective, temperature, lambda) in [
            ("balanced", 1.0, 0.5),
            ("balanced", 4.0, 0.3),
            ("balanced", 4.0, 1.0),
            ("balanced:form=weights", 1.0, 0.5),
            ("balanced:form=weights", 4.0, 1.0),
        ] {
            let method = format!("distil:temperature={temperature}");
            let shape = shares(objective, &method, &labels, &guides).unwrap();
            let shape = shape.shape(&objective.parse().unwrap(), &[], lambda);
            let mut sum = [0.0; 3];
            for label in &labels {
                let row = Row {
                    logits: &[2.0; 3],
                    label: label.map(|label| label as usize),
                    class_weight: &[],
                    label_smoothing: 0.0,
                    lambda,
                    teacher: Some((&logits, &[true; 3])),
                    is_old: false,
                    partner: None,
                };
                let found = shaped_row_loss(&method.parse().unwrap(), &row, &shape).gradient;
                sum.iter_mut().zip(found).for_each(|(sum, g)| *sum += g);
            }
            // The teacher's logits are f32.
            assert!(
                sum.iter().all(|g| g.abs() < 1e-5),
                "{objective} T {temperature} λ {lambda}: {sum:?}"
            );
        }
    }

    /// a = 0 with the standard base is the standard objective; an even prior makes the balanced one standard.
    #[test]
    fn where_objectives_are_the_same() {
        let labels = [Some(0), Some(0), Some(1), Some(2)];
        let uneven = shares("balanced", "retrain", &labels, &Guides::default()).unwrap();
        let shape = |shares: &Shares, text: &str, logs: &[f64]| match shares.shape(
            &text.parse().unwrap(),
            logs,
            0.0,
        ) {
            Shape::Margins(values) | Shape::Classes(values) => values,
            _ => panic!("another shape"),
        };
        let logs = [0.7f64.ln(), 0.2f64.ln(), 0.1f64.ln()];
        close(&shape(&uneven, "robust:weight=0,base=standard", &logs), &[0.0; 3]);
        close(&shape(&uneven, "balanced:form=weights", &[]), &[2.0 / 3.0, 4.0 / 3.0, 4.0 / 3.0]);
        close(
            &shape(&uneven, "robust:weight=0,form=weights", &logs),
            &[2.0 / 3.0, 4.0 / 3.0, 4.0 / 3.0],
        );
        close(&shape(&uneven, "robust:weight=1,form=weights", &logs), &[1.4, 0.8, 0.4]);
        close(&shape(&uneven, "robust", &[]), &shape(&uneven, "balanced", &[]));
        let even = shares("balanced", "retrain", &[Some(0), Some(1), Some(2)], &Guides::default());
        close(&shape(&even.unwrap(), "balanced", &[]), &[0.0; 3]);
    }

    #[test]
    fn shares_of_zero_are_refused() {
        let check = |objective: &str,
                     method: &str,
                     labels: &[Option<u32>],
                     guides: &Guides,
                     expected: &str| {
            assert_eq!(
                shares(objective, method, labels, guides).unwrap_err().to_string(),
                expected
            );
        };
        let some = [Some(0), Some(1), None];
        check(
            "robust",
            "retrain",
            &some,
            &Guides::default(),
            "objective robust: no row to train on has the label \"c\", so the share of this class is zero; add rows of it, or \
             take objective standard",
        );
        let all = [Some(0), Some(1), Some(2)];
        let mut none = teacher(&[[0.5, 0.25, 0.25]; 3], [true; 3]);
        none.logits.iter_mut().skip(1).step_by(3).for_each(|z| *z = -1e4);
        let guides = Guides { teacher: Some(&none), ..Guides::default() };
        check(
            "balanced",
            "distil",
            &all,
            &guides,
            "objective balanced: the teacher gives the label \"b\" no share of any row; take a teacher that knows it, or objective \
             standard",
        );
        check(
            "balanced:group-by=airline",
            "retrain",
            &all,
            &Guides::default(),
            "objective balanced groups rows by \"airline\", and the rows have no such values",
        );
        let groups = Groups {
            names: vec!["x".into(), "y".into()],
            of_row: vec![0, 0, 0],
            of_eval: Vec::new(),
        };
        let guides = Guides { groups: Some(&groups), ..Guides::default() };
        check(
            "balanced:group-by=airline",
            "retrain",
            &all,
            &guides,
            "objective balanced: no row to train on has airline = \"y\", so its share is zero; leave its held-out rows out, or \
             add rows to train on",
        );
    }
}
