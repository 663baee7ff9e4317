//! The held-out rows on which a robust objective finds the class that is worst off. Rows that certify are never among them.

use candle_core::Device;
use lowchurn_data::{Encoded, Rng};
use lowchurn_models::Classifier;

use super::weights::{class_losses, losses_of_row};
use super::{Groups, Robust, SteeredBy};
use crate::{Error, Predictions, Result, Teacher, predict};

/// Nothing of it changes while a run goes on.
#[derive(Clone, Debug)]
pub struct Steering {
    pub rows: Encoded,
    /// Of the same rows; where its labels steer.
    pub teacher: Option<Teacher>,
    /// (N,) Places among the groups' names, where a column makes the groups.
    pub groups: Option<Vec<u32>>,
}

/// At most `most` of the rows: the same number of each class or group, as far as theirs go, and the same ones in every run.
/// Rows without a label are left out where labels steer.
pub fn steering_rows(
    labels: &[Option<u32>],
    groups: Option<&[u32]>,
    by: SteeredBy,
    most: usize,
) -> Vec<usize> {
    let bucket = |row: usize| match (groups, labels[row]) {
        (_, None) if by == SteeredBy::OneHot => None,
        (Some(groups), _) => Some(groups[row] as usize),
        (None, label) => Some(label.map_or(0, |label| label as usize + 1)),
    };
    let buckets: Vec<Option<usize>> = (0..labels.len()).map(bucket).collect();
    let n = buckets.iter().flatten().max().map_or(0, |last| last + 1);
    let n_used = (0..n).filter(|at| buckets.contains(&Some(*at))).count();
    let quota = (most / n_used.max(1)).max(1);
    let mut order: Vec<u32> = (0..labels.len() as u32).collect();
    Rng::stream(0, "steering rows", 0).shuffle(&mut order);
    let mut taken = vec![0; n];
    let mut is_first = |row: &usize| {
        let Some(bucket) = buckets[*row] else { return false };
        taken[bucket] += 1;
        taken[bucket] <= quota
    };
    let order = order.into_iter().map(|row| row as usize);
    let mut rows: Vec<usize> = order.filter(|row| is_first(row)).collect();
    rows.sort_unstable();
    rows
}

impl Steering {
    /// Whether every class, or every group, can be measured. `labels` are the student's.
    ///
    /// # Errors
    /// [`Error::Objective`] with the first class or group that no row is of.
    pub fn check(&self, robust: &Robust, labels: &[String], groups: Option<&Groups>) -> Result<()> {
        let refuse = |reason: String| Err(Error::Objective { reason });
        let n = self.rows.rows();
        let is_whole = match &self.teacher {
            Some(teacher) => {
                teacher.known.len() == labels.len() && teacher.logits.len() == n * labels.len()
            }
            None => robust.labels == SteeredBy::OneHot,
        };
        if !is_whole {
            return refuse(
                "objective robust: labels=teacher needs the teacher's scores of the held-out rows"
                    .into(),
            );
        }
        let (targets, classes) = (self.targets(robust, labels.len()), labels.len());
        if let (Some(column), Some(groups)) = (&robust.group_by, groups) {
            let of_row = self.groups.as_deref().unwrap_or_default();
            let has = |at: usize| of_row.iter().any(|group| *group as usize == at);
            return match (0..groups.names.len()).find(|at| !has(*at)) {
                Some(at) => refuse(format!(
                    "objective robust: no held-out row has {column} = {:?}, so it can't be measured; hold out rows of it, or take \
                     its rows out of training",
                    groups.names[at]
                )),
                None => Ok(()),
            };
        }
        let mass = |class: usize| targets.iter().skip(class).step_by(classes).sum::<f64>();
        let Some(class) = (0..classes).find(|class| mass(*class) <= 0.0) else { return Ok(()) };
        let name = &labels[class];
        match robust.labels {
            SteeredBy::OneHot => refuse(format!(
                "objective robust: no held-out row has the label {name:?}, so this class can't be measured; hold out rows of it"
            )),
            SteeredBy::Teacher => refuse(format!(
                "objective robust: the teacher doesn't know the label {name:?}, so its labels can't measure this class; take \
                 labels=one-hot"
            )),
        }
    }

    /// The mean loss of each class (K,), or of each group (G,), under a model as it is.
    pub fn losses(
        &self,
        robust: &Robust,
        model: &Classifier,
        batch_size: usize,
        device: &Device,
    ) -> Result<Vec<f64>> {
        let found = predict(model, &self.rows, batch_size, device, &mut |_| {})?;
        Ok(self.losses_of(robust, &found))
    }

    fn losses_of(&self, robust: &Robust, found: &Predictions) -> Vec<f64> {
        let targets = self.targets(robust, found.classes);
        let Some(groups) = &self.groups else {
            let losses = class_losses(&found.logits, &targets, found.classes, robust.loss);
            return losses.into_iter().map(Option::unwrap_or_default).collect();
        };
        let n = groups.iter().max().map_or(0, |last| *last as usize + 1);
        let (mut sums, mut masses) = (vec![0.0; n], vec![0.0; n]);
        for (row, group) in groups.iter().enumerate() {
            let losses = losses_of_row(found.logits_of(row), robust.loss);
            let target = &targets[row * found.classes..][..found.classes];
            sums[*group as usize] += losses.iter().zip(target).map(|(l, q)| l * q).sum::<f64>();
            masses[*group as usize] += target.iter().sum::<f64>();
        }
        sums.iter().zip(&masses).map(|(sum, n)| if *n > 0.0 { sum / n } else { 0.0 }).collect()
    }

    /// (N·K) The labels that steer; of a row that has none, zeros.
    fn targets(&self, robust: &Robust, classes: usize) -> Vec<f64> {
        let of_row = |row: usize| -> Vec<f64> {
            match (&self.teacher, robust.labels, self.rows.labels[row]) {
                (Some(teacher), SteeredBy::Teacher, _) => teacher.probabilities(row, 1.0),
                (_, _, label) => (0..classes)
                    .map(|class| f64::from(u8::from(label == Some(class as u32))))
                    .collect(),
            }
        };
        (0..self.rows.rows()).flat_map(of_row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::shares::tests::rows;
    use super::*;
    use crate::Objective;

    #[test]
    fn each_class_has_its_rows() {
        let labels: Vec<Option<u32>> =
            (0..100).map(|row| if row < 90 { Some(0) } else { Some(1) }).collect();
        let found = steering_rows(&labels, None, SteeredBy::OneHot, 20);
        let of = |class: u32| found.iter().filter(|row| labels[**row] == Some(class)).count();
        assert_eq!((found.len(), of(0), of(1)), (20, 10, 10));
        assert!(found.is_sorted());
        // The small class has ten, and the other no more for it.
        let found = steering_rows(&labels, None, SteeredBy::OneHot, 60);
        assert_eq!(found.len(), 40);
        let unlabelled = vec![None; 8];
        assert!(steering_rows(&unlabelled, None, SteeredBy::OneHot, 20).is_empty());
        assert_eq!(steering_rows(&unlabelled, None, SteeredBy::Teacher, 5).len(), 5);
        let groups: Vec<u32> = (0..100).map(|row| row % 4).collect();
        let found = steering_rows(&labels, Some(&groups), SteeredBy::OneHot, 8);
        let of = |group: u32| found.iter().filter(|row| groups[**row] == group).count();
        assert_eq!([of(0), of(1), of(2), of(3)], [2; 4]);
    }

    fn robust(text: &str) -> Robust {
        text.parse::<Objective>().unwrap().robust().unwrap().clone()
    }

    fn steering(labels: &[Option<u32>]) -> Steering {
        Steering { rows: rows(labels), teacher: None, groups: None }
    }

    fn labels() -> Vec<String> {
        vec!["a".into(), "b".into()]
    }

    #[test]
    fn losses_by_class_by_teacher_and_by_group() {
        // Says a, a, b.
        let found = Predictions { classes: 2, logits: vec![1.0, 0.0, 2.0, 0.0, 0.0, 3.0] };
        let mut rows = steering(&[Some(0), Some(1), Some(1)]);
        assert_eq!(rows.losses_of(&robust("robust"), &found), [0.0, 0.5]);
        let logits = vec![0.0, 0.0, 0.0, 0.0, 3f32.ln(), 0.0];
        rows.teacher = Some(Teacher { logits, known: vec![true; 2], said: Vec::new() });
        // Shares of a 1/2, 1/2, 3/4, wrong on the last; of b 1/2, 1/2, 1/4, wrong on the first two.
        let by_teacher = rows.losses_of(&robust("robust:labels=teacher"), &found);
        assert!((by_teacher[0] - 0.75 / 1.75).abs() < 1e-7, "{by_teacher:?}");
        assert!((by_teacher[1] - 1.0 / 1.25).abs() < 1e-7, "{by_teacher:?}");
        rows.groups = Some(vec![1, 0, 1]);
        assert_eq!(rows.losses_of(&robust("robust:group-by=x"), &found), [1.0, 0.0]);
    }

    #[test]
    fn what_can_not_be_measured_is_refused() {
        let check = |steering: &Steering, text: &str, groups: Option<&Groups>, expected: &str| {
            let found = steering.check(&robust(text), &labels(), groups);
            assert_eq!(found.err().map(|error| error.to_string()).unwrap_or_default(), expected);
        };
        let mut rows = steering(&[Some(0), Some(0)]);
        check(
            &rows,
            "robust",
            None,
            "objective robust: no held-out row has the label \"b\", so this class can't be measured; hold out rows of it",
        );
        check(
            &rows,
            "robust:labels=teacher",
            None,
            "objective robust: labels=teacher needs the teacher's scores of the held-out rows",
        );
        let known = vec![true, false];
        rows.teacher = Some(Teacher { logits: vec![0.0; 4], known, said: Vec::new() });
        check(
            &rows,
            "robust:labels=teacher",
            None,
            "objective robust: the teacher doesn't know the label \"b\", so its labels can't measure this class; take \
             labels=one-hot",
        );
        rows.teacher = None;
        rows.groups = Some(vec![0, 0]);
        let groups =
            Groups { names: vec!["x".into(), "y".into()], of_row: vec![0, 1], of_eval: Vec::new() };
        check(
            &rows,
            "robust:group-by=airline",
            Some(&groups),
            "objective robust: no held-out row has airline = \"y\", so it can't be measured; hold out rows of it, or take its \
             rows out of training",
        );
        rows.groups = Some(vec![0, 1]);
        check(&rows, "robust:group-by=airline", Some(&groups), "");
        check(&steering(&[Some(0), Some(1)]), "robust", None, "");
    }
}
