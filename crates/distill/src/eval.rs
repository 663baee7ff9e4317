//! A model on a split: logits of every row, and the numbers made from them. The model is in eval mode; no graph is built.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use lowchurn_data::{
    Confusion, Encoded, LabelCounts, Metric, Targets, collate, correlation, eval_order,
    first_largest,
};
use lowchurn_kernels::awake;
use lowchurn_models::{Classifier, Input, Mode, is_head};
use serde::{Deserialize, Serialize};

use crate::loss::term::{log_sum_exp, sigmoid, softplus};
use crate::{Error, Groups, Outputs, Result, Vectors};

/// Logits of every row of a split, in its order.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictions {
    pub classes: usize,
    /// (N·K), row-major.
    pub logits: Vec<f32>,
}

/// What an evaluation says, over the labelled rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    pub rows: u64,
    /// Mean cross-entropy in nats; of sets of labels the mean over labels of the binary one; of numbers the squared error.
    pub loss: f64,
    /// Of sets of labels the share of rows whose set is the true one; a regression has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// 0 where it isn't defined, see [`Metric`].
    pub f1: Option<f64>,
    pub matthews: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub macro_f1: Option<f64>,
    /// Of a regression; `None` where one side is constant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pearson: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spearman: Option<f64>,
    /// The lowest recall of a class that has rows, of three classes or more, or where it is asked for; see [`worst_classes`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst_class: Option<f64>,
    /// The accuracy of each group that has rows, where the objective groups them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, f64>,
}

impl Scores {
    /// The group with the lowest accuracy; the first of equals.
    pub fn worst_group(&self) -> Option<(&str, f64)> {
        let each = self.groups.iter().map(|(name, accuracy)| (name.as_str(), *accuracy));
        each.reduce(|a, b| if b.1 < a.1 { b } else { a })
    }

    /// Of the worst group where there are groups, else of the worst class.
    pub fn worst(&self) -> Option<f64> {
        self.worst_group().map(|(_, accuracy)| accuracy).or(self.worst_class)
    }
}

/// The classes that are worst off, by recall.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorstClasses {
    /// The first of equals.
    pub class: u32,
    pub recall: f64,
    /// Mean recall of the k worst classes; `None` where no more than k have rows.
    pub mean_of_worst: Option<f64>,
    pub k: usize,
}

impl Predictions {
    pub fn rows(&self) -> usize {
        self.logits.len() / self.classes.max(1)
    }

    pub fn logits_of(&self, row: usize) -> &[f32] {
        &self.logits[row * self.classes..][..self.classes]
    }

    /// The class of the largest logit; the first of equals.
    pub fn predicted(&self, row: usize) -> u32 {
        let logits = self.logits_of(row);
        first_largest(logits.len(), |class| logits[class]) as u32
    }

    /// σ of each of a row's logits: the probability of each label by itself.
    pub fn label_probabilities(&self, row: usize) -> Vec<f32> {
        self.logits_of(row).iter().map(|&z| sigmoid(f64::from(z)) as f32).collect()
    }

    /// softmax of a row's logits.
    pub fn probabilities(&self, row: usize) -> Vec<f32> {
        let logits = self.logits_of(row);
        let log_sum = log_sum_exp(logits.iter().map(|&z| f64::from(z)));
        logits.iter().map(|&z| (f64::from(z) - log_sum).exp() as f32).collect()
    }
}

/// Logits of every row; `on` is told how many rows are done.
///
/// # Errors
/// [`Error::NotFiniteLogits`] with the row's id; [`Error::Models`] of rows that the model can't read, such as longer ones than
/// it has positions.
pub fn predict(
    model: &Classifier,
    rows: &Encoded,
    batch_size: usize,
    device: &Device,
    on: &mut dyn FnMut(usize),
) -> Result<Predictions> {
    let classes = model.labels().len();
    let mut logits = vec![0f32; rows.rows() * classes];
    let mut n_done = 0;
    for order in eval_order(&rows.lengths(), batch_size) {
        let batch = collate(rows, &order, model.config.pad_token_id);
        let input = Input::new(&batch.tokens, &batch.types, &batch.lengths, batch.width, device)?;
        let found = awake(|| model.forward(&input, Mode::Eval))?.flatten_all()?; // (B·K)
        let found = found.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        for (&row, found) in order.iter().zip(found.chunks_exact(classes)) {
            if found.iter().any(|x| !x.is_finite()) {
                let id = rows.ids.get(row as usize).cloned().unwrap_or_default();
                return Err(Error::NotFiniteLogits { id });
            }
            logits[row as usize * classes..][..classes].copy_from_slice(found);
        }
        n_done += order.len();
        on(n_done);
    }
    Ok(Predictions { classes, logits })
}

/// The same from what the last layer reads of each row.
pub(crate) fn predict_from(
    model: &Classifier,
    features: &Vectors,
    device: &Device,
) -> Result<Predictions> {
    const ROWS: usize = 1024;
    let width = features.width.max(1);
    let tensors = model.params.tensors().map(|(name, tensor)| (name.to_string(), tensor.detach()));
    let tensors: BTreeMap<String, Tensor> = tensors.filter(|(name, _)| is_head(name)).collect();
    let mut logits = Vec::new();
    for values in features.values.chunks(ROWS * width) {
        let vectors = Tensor::from_slice(values, (values.len() / width, width), device)?; // (B, C)
        let found = awake(|| Classifier::last_layer(&tensors, &vectors))?; // (B, K)
        logits.extend(found.flatten_all()?.to_vec1::<f32>()?);
    }
    if logits.iter().any(|x| !x.is_finite()) {
        return Err(Error::NotFiniteLogits { id: "of a probe".into() });
    }
    Ok(Predictions { classes: model.labels().len(), logits })
}

/// Predictions against labels; rows without a label don't count.
///
/// # Errors
/// [`Error::LabelIndex`] of a label that the model lacks, [`Error::NothingToEvaluate`] where no row has one.
pub fn evaluate(predictions: &Predictions, labels: &[Option<u32>]) -> Result<Scores> {
    let mut counts = Confusion::new(predictions.classes);
    let mut loss_sum = 0.0;
    for (row, label) in labels.iter().enumerate() {
        let Some(label) = *label else { continue };
        let logits = predictions.logits_of(row);
        let Some(&logit) = logits.get(label as usize) else {
            return Err(Error::LabelIndex { row, label, classes: predictions.classes });
        };
        counts.record(label, predictions.predicted(row));
        loss_sum += log_sum_exp(logits.iter().map(|&z| f64::from(z))) - f64::from(logit);
    }
    let n = counts.total();
    let Some(accuracy) = Metric::Accuracy.of(&counts) else { return Err(Error::NothingToEvaluate) };
    Ok(Scores {
        rows: n,
        loss: loss_sum / n as f64,
        accuracy: Some(accuracy),
        f1: Metric::F1.of(&counts),
        matthews: Metric::Matthews.of(&counts),
        // Of two classes the other scores tell.
        worst_class: recalls(&counts)
            .first()
            .filter(|_| predictions.classes > 2)
            .map(|worst| worst.0),
        ..Scores::default()
    })
}

/// (recall, class), the worst first, of classes that have rows.
fn recalls(counts: &Confusion) -> Vec<(f64, u32)> {
    let recall = |class: usize| {
        let of = counts.gold_total(class);
        (of > 0).then(|| (counts.count(class, class) as f64 / of as f64, class as u32))
    };
    let mut recalls: Vec<(f64, u32)> = (0..counts.classes).filter_map(recall).collect();
    recalls.sort_by(|a, b| a.0.total_cmp(&b.0)); // stable: the first of equals stays first
    recalls
}

/// The worst classes of predictions against labels, among classes that have rows; `None` without any.
pub fn worst_classes(
    predictions: &Predictions,
    labels: &[Option<u32>],
    k: usize,
) -> Result<Option<WorstClasses>> {
    let mut counts = Confusion::new(predictions.classes);
    for (row, label) in labels.iter().enumerate() {
        let Some(label) = *label else { continue };
        if label as usize >= predictions.classes {
            return Err(Error::LabelIndex { row, label, classes: predictions.classes });
        }
        counts.record(label, predictions.predicted(row));
    }
    let recalls = recalls(&counts);
    let Some(&(recall, class)) = recalls.first() else { return Ok(None) };
    let mean = || recalls[..k].iter().map(|(recall, _)| recall).sum::<f64>() / k as f64;
    let mean_of_worst = (k > 0 && recalls.len() > k).then(mean);
    Ok(Some(WorstClasses { class, recall, mean_of_worst, k }))
}

/// The accuracy of each group that rows with a label are of; rows without a group don't count.
pub(crate) fn accuracy_by_group(
    predictions: &Predictions,
    labels: &[Option<u32>],
    groups: &Groups,
) -> BTreeMap<String, f64> {
    let mut counts = vec![(0u64, 0u64); groups.names.len()];
    for (row, (label, group)) in labels.iter().zip(&groups.of_eval).enumerate() {
        let (Some(label), Some(group)) = (label, group) else { continue };
        let Some((right, n)) = counts.get_mut(*group as usize) else { continue };
        *right += u64::from(predictions.predicted(row) == *label);
        *n += 1;
    }
    let share = |(name, (right, n)): (&String, &(u64, u64))| {
        (*n > 0).then(|| (name.clone(), *right as f64 / *n as f64))
    };
    groups.names.iter().zip(&counts).filter_map(share).collect()
}

/// [`evaluate`] of rows of any kind, whose targets are those beside the labels. `outputs` are the model's.
pub fn evaluate_targets(
    predictions: &Predictions,
    labels: &[Option<u32>],
    targets: &Targets,
    outputs: &Outputs,
) -> Result<Scores> {
    if targets.kind() != outputs.kind && labels.iter().any(Option::is_some) {
        let (model, rows) = (outputs.kind.name(), targets.kind().name());
        return Err(Error::OtherKind { model, rows });
    }
    match targets {
        Targets::OneClass => evaluate(predictions, labels),
        Targets::Sets(sets) => evaluate_sets(predictions, sets, outputs),
        Targets::Values(values) => evaluate_values(predictions, values),
    }
}

fn evaluate_sets(
    predictions: &Predictions,
    sets: &[Option<Vec<u32>>],
    outputs: &Outputs,
) -> Result<Scores> {
    let classes = predictions.classes;
    let mut counts = LabelCounts::new(classes);
    let mut loss_sum = 0.0;
    for (row, set) in sets.iter().enumerate() {
        let Some(set) = set else { continue };
        if let Some(&label) = set.iter().find(|label| **label as usize >= classes) {
            return Err(Error::LabelIndex { row, label, classes });
        }
        let logits = predictions.logits_of(row);
        counts.record(set, &outputs.labels_of(logits));
        let nats = |(label, &z): (usize, &f32)| {
            softplus(f64::from(if set.contains(&(label as u32)) { -z } else { z }))
        };
        loss_sum += logits.iter().enumerate().map(nats).sum::<f64>() / classes as f64;
    }
    let accuracy = counts.subset_accuracy().ok_or(Error::NothingToEvaluate)?;
    Ok(Scores {
        rows: counts.rows,
        loss: loss_sum / counts.rows as f64,
        accuracy: Some(accuracy),
        f1: counts.micro_f1(),
        macro_f1: counts.macro_f1(),
        ..Scores::default()
    })
}

fn evaluate_values(predictions: &Predictions, values: &[Option<f32>]) -> Result<Scores> {
    let pair = |(row, value): (usize, &Option<f32>)| {
        Some((f64::from(*predictions.logits_of(row).first()?), f64::from((*value)?)))
    };
    let (said, gold): (Vec<f64>, Vec<f64>) = values.iter().enumerate().filter_map(pair).unzip();
    let found = correlation(&said, &gold).ok_or(Error::NothingToEvaluate)?;
    Ok(Scores {
        rows: found.rows,
        loss: found.squared_error,
        pearson: found.pearson,
        spearman: found.spearman,
        ..Scores::default()
    })
}

#[cfg(test)]
mod tests {
    use lowchurn_data::Kind;

    use super::*;

    #[test]
    fn scores_of_known_logits() {
        let p = Predictions { classes: 2, logits: vec![0.0, 0.0, 2.0, 0.0, 0.0, 3.0] };
        assert_eq!(p.predicted(0), 0);
        assert_eq!(p.probabilities(0), [0.5, 0.5]);
        let s = evaluate(&p, &[Some(0), Some(1), None]).unwrap();
        assert_eq!((s.rows, s.accuracy, s.worst_class), (2, Some(0.5), None));
        let expected = (2f64.ln() + (1.0 + (2f64).exp()).ln()) / 2.0;
        assert!((s.loss - expected).abs() < 1e-9, "{}", s.loss);
        assert!(matches!(evaluate(&p, &[None; 3]), Err(Error::NothingToEvaluate)));
        assert!(matches!(evaluate(&p, &[Some(2)]), Err(Error::LabelIndex { label: 2, .. })));
    }

    /// Recalls 1/2, 0, 1 by hand; the fourth class has no row.
    #[test]
    fn worst_classes_of_known_logits() {
        let said = [0usize, 1, 2, 2, 2];
        let logits =
            said.iter().flat_map(|&class| (0..4).map(move |k| f32::from(u8::from(k == class))));
        let p = Predictions { classes: 4, logits: logits.collect() };
        let labels = [Some(0), Some(0), Some(1), Some(2), Some(2)];
        let of = |labels: &[Option<u32>], k| worst_classes(&p, labels, k).unwrap();
        let found = of(&labels, 2).unwrap();
        assert_eq!((found.class, found.recall, found.mean_of_worst), (1, 0.0, Some(0.25)));
        assert_eq!(of(&labels, 3).unwrap().mean_of_worst, None);
        assert_eq!(evaluate(&p, &labels).unwrap().worst_class, Some(0.0));
        assert_eq!(of(&[None; 5], 2), None);
        assert!(worst_classes(&p, &[Some(4)], 2).is_err());
    }

    #[test]
    fn accuracy_of_known_groups() {
        let p = Predictions {
            classes: 2,
            logits: vec![1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0],
        };
        let labels = [Some(0), Some(1), Some(1), None, Some(0)];
        let groups = Groups {
            names: ["x", "y", "z"].map(str::to_string).to_vec(),
            of_row: Vec::new(),
            of_eval: vec![Some(0), Some(0), Some(1), Some(2), None],
        };
        let scores = Scores {
            worst_class: Some(0.25),
            groups: accuracy_by_group(&p, &labels, &groups),
            ..Scores::default()
        };
        let found: Vec<(&str, f64)> =
            scores.groups.iter().map(|(name, share)| (name.as_str(), *share)).collect();
        assert_eq!(found, [("x", 0.5), ("y", 1.0)]);
        assert_eq!((scores.worst_group(), scores.worst()), (Some(("x", 0.5)), Some(0.5)));
        assert_eq!(Scores { groups: BTreeMap::new(), ..scores }.worst(), Some(0.25));
    }

    #[test]
    fn scores_of_sets_and_numbers() {
        let p = Predictions { classes: 2, logits: vec![1.0, -1.0, 0.0, 3.0, -2.0, -2.0] };
        let sets = Targets::Sets(vec![Some(vec![0]), Some(vec![1]), None]);
        let labels = [Some(0), Some(1), None];
        let outputs = Outputs { kind: Kind::MultiLabel, thresholds: vec![0.5, 0.5] };
        let s = evaluate_targets(&p, &labels, &sets, &outputs).unwrap();
        // The second row is said to have both labels: σ(0) is at least 0.5.
        assert_eq!((s.rows, s.accuracy, s.f1), (2, Some(0.5), Some(0.8)));
        assert_eq!(s.macro_f1, Some((2.0 / 3.0 + 1.0) / 2.0));
        let nats = |z: f64| (1.0 + (-z).exp()).ln();
        let expected = (2.0 * nats(1.0) + 2f64.ln() + nats(3.0)) / 4.0;
        assert!((s.loss - expected).abs() < 1e-9, "{}", s.loss);
        let tuned = Outputs { thresholds: vec![0.6, 0.5], ..outputs.clone() };
        assert_eq!(evaluate_targets(&p, &labels, &sets, &tuned).unwrap().f1, Some(1.0));

        let p = Predictions { classes: 1, logits: vec![1.0, 2.0, 4.0] };
        let values = Targets::Values(vec![Some(1.0), None, Some(2.0)]);
        let labels = [Some(0), None, Some(0)];
        let regression = Outputs { kind: Kind::Regression, thresholds: vec![] };
        let s = evaluate_targets(&p, &labels, &values, &regression).unwrap();
        assert_eq!((s.rows, s.loss, s.accuracy, s.f1), (2, 2.0, None, None));
        assert!((s.pearson.unwrap() - 1.0).abs() < 1e-12);
        let error = evaluate_targets(&p, &labels, &values, &outputs).unwrap_err().to_string();
        let expected = "the model is for multi-label tasks, but the rows are of a regression one; give rows of the model's kind, \
                        or a new head for them";
        assert_eq!(error, expected);
        let none = Targets::Values(vec![None; 3]);
        let error = evaluate_targets(&p, &[None; 3], &none, &regression);
        assert!(matches!(error, Err(Error::NothingToEvaluate)));
    }
}
