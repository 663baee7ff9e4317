//! How a model's outputs are read: what kind its task is and, where labels hold by themselves, from which probability on.
//!
//! Both stand in config.json and travel with the weights: `problem_type` as transformers has it, and `thresholds`, a key of
//! ours, which transformers passes over. A label that it doesn't name holds from 0.5 on.

use lowchurn_data::Kind;
use lowchurn_models::Config;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::loss::term::sigmoid;
use crate::{Error, Plan, Predictions, Result};

const PROBLEM_TYPE: &str = "problem_type";
const THRESHOLDS: &str = "thresholds";
const HALF: f64 = 0.5;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outputs {
    pub kind: Kind,
    /// (K,) of a multi-label model, each in (0, 1); else empty.
    pub thresholds: Vec<f64>,
}

/// From which probability on a label of a multi-label model holds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Threshold {
    /// The same for all labels, in (0, 1).
    Fixed(f64),
    /// Each label's by its F1 on the rows that the run is evaluated on.
    Tuned,
}

impl std::str::FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Threshold, String> {
        let inside = |value: &f64| *value > 0.0 && *value < 1.0;
        match text {
            "tuned" => Ok(Threshold::Tuned),
            _ => text.parse().ok().filter(inside).map(Threshold::Fixed).ok_or_else(|| {
                format!("threshold {text:?}: expected a number between 0 and 1, or \"tuned\"")
            }),
        }
    }
}

impl TryFrom<String> for Threshold {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Threshold, String> {
        text.parse()
    }
}

impl From<Threshold> for String {
    fn from(threshold: Threshold) -> String {
        match threshold {
            Threshold::Fixed(value) => value.to_string(),
            Threshold::Tuned => "tuned".into(),
        }
    }
}

impl Outputs {
    /// As config.json says. Where it names no `problem_type`, one output is a regression and several are one class a row, as
    /// transformers takes them.
    pub fn of(config: &Config) -> Result<Outputs> {
        let wrong = |key: &'static str, found: &Value, expected: &str| Error::Outputs {
            key,
            found: found.to_string(),
            expected: expected.into(),
        };
        let said = config.raw.get(PROBLEM_TYPE).filter(|value| !value.is_null());
        let kind = match (said, config.labels.len()) {
            (None, 1) => Kind::Regression,
            (None, _) => Kind::SingleLabel,
            (Some(said), _) => {
                said.as_str().and_then(|name| name.parse().ok()).ok_or_else(|| {
                    let expected =
                        "single_label_classification, multi_label_classification or regression";
                    wrong(PROBLEM_TYPE, said, expected)
                })?
            }
        };
        if kind == Kind::Regression && config.labels.len() > 1 {
            let found = Value::from(config.labels.len());
            return Err(wrong("id2label of a regression", &found, "one output"));
        }
        if kind != Kind::MultiLabel {
            return Ok(Outputs { kind, thresholds: Vec::new() });
        }
        let mut thresholds = vec![HALF; config.labels.len()];
        let given = match config.raw.get(THRESHOLDS) {
            None | Some(Value::Null) => return Ok(Outputs { kind, thresholds }),
            Some(Value::Object(given)) => given,
            Some(other) => return Err(wrong(THRESHOLDS, other, "an object of labels and numbers")),
        };
        for (name, value) in given {
            let number = value.as_f64().filter(|value| *value > 0.0 && *value < 1.0);
            let number =
                number.ok_or_else(|| wrong(THRESHOLDS, value, "a number between 0 and 1"))?;
            let label = config.labels.iter().position(|label| label == name);
            let label = label.ok_or_else(|| {
                wrong(
                    THRESHOLDS,
                    &Value::from(name.as_str()),
                    &format!("one of {}", config.labels.join(", ")),
                )
            })?;
            thresholds[label] = number;
        }
        Ok(Outputs { kind, thresholds })
    }

    /// All labels from the same probability on.
    pub fn with_threshold(self, threshold: f64) -> Outputs {
        let thresholds = vec![threshold; self.thresholds.len()];
        Outputs { thresholds, ..self }
    }

    /// Puts the kind alone into a config. What a save writes there anyway is left to it.
    pub fn write_kind(&self, config: &mut Config) {
        let is_there = config.raw.get(PROBLEM_TYPE).is_some_and(|value| !value.is_null());
        if is_there || self.kind != Kind::SingleLabel {
            config.raw.insert(PROBLEM_TYPE.into(), self.kind.problem_type().into());
        }
    }

    /// Puts kind and thresholds into a config. Thresholds of 0.5 are left out.
    pub fn write(&self, config: &mut Config) {
        self.write_kind(config);
        config.raw.shift_remove(THRESHOLDS);
        let named = config.labels.iter().zip(&self.thresholds);
        let named: Map<String, Value> =
            named.map(|(label, value)| (label.clone(), Value::from(*value))).collect();
        if self.thresholds.iter().any(|value| *value != HALF) {
            config.raw.insert(THRESHOLDS.into(), named.into());
        }
    }

    /// The labels of a row (K,) whose probability σ(z) is at least their threshold, ascending.
    pub fn labels_of(&self, logits: &[f32]) -> Vec<u32> {
        let holds =
            |(_, (z, threshold)): &(usize, (&f32, &f64))| sigmoid(f64::from(**z)) >= **threshold;
        let labels = logits.iter().zip(&self.thresholds).enumerate().filter(holds);
        labels.map(|(label, _)| label as u32).collect()
    }

    /// Refuses settings that mean nothing for this kind of task.
    pub fn check(&self, plan: &Plan, classes: usize) -> Result<()> {
        let (kind, refuse) = (self.kind.name(), |reason: String| Err(Error::Method { reason }));
        plan.method.check_kind(self.kind).map_err(|reason| Error::Method { reason })?;
        let has_weights = !plan.class_weight.is_empty();
        let checked = plan.objective.check(&plan.method, self.kind, has_weights);
        checked.map_err(|reason| Error::Objective { reason })?;
        if plan.select_by == crate::SelectBy::WorstClass && self.kind != Kind::SingleLabel {
            return refuse(format!(
                "select_by worst_class is for single-label tasks, and this is a {kind} one; take another metric"
            ));
        }
        if plan.label_smoothing > 0.0 && self.kind != Kind::SingleLabel {
            return refuse(format!(
                "label_smoothing is for single-label tasks, and this is a {kind} one; leave it out"
            ));
        }
        if plan.threshold.is_some() && self.kind != Kind::MultiLabel {
            return refuse(format!(
                "threshold is for multi-label tasks, and this is a {kind} one; leave it out"
            ));
        }
        match (plan.class_weight.len(), self.kind) {
            (0, _) => Ok(()),
            (_, Kind::Regression) => refuse(
                "class weights are for single-label and multi-label tasks, and this is a regression; leave them out"
                    .into(),
            ),
            (found, _) if found != classes => {
                refuse(format!("{found} class weights, but the model has {classes} classes"))
            }
            _ => Ok(()),
        }
    }
}

/// Each label's threshold (K,) by its F1 on these rows, the nearest to 0.5 of those that are as good; 0.5 where no row has the
/// label. On the very rows they were tuned on, scores are better than on others.
pub fn tuned_thresholds(predictions: &Predictions, sets: &[Option<Vec<u32>>]) -> Vec<f64> {
    let of = |label: usize| {
        let row = |(row, set): (usize, &Option<Vec<u32>>)| {
            let z = *predictions.logits_of(row).get(label)?;
            Some((sigmoid(f64::from(z)), set.as_ref()?.contains(&(label as u32))))
        };
        best_threshold(sets.iter().enumerate().take(predictions.rows()).filter_map(row).collect())
    };
    (0..predictions.classes).map(of).collect()
}

/// Of (probability, whether the label holds).
fn best_threshold(mut rows: Vec<(f64, bool)>) -> f64 {
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    let gold = rows.iter().filter(|(_, holds)| *holds).count() as u64;
    if gold == 0 {
        return HALF;
    }
    let f1 = |hits: u64, said: u64| 2.0 * hits as f64 / (gold + said) as f64;
    let above = rows.iter().filter(|(p, _)| *p >= HALF);
    let hits = above.clone().filter(|(_, holds)| *holds).count() as u64;
    let mut best = (f1(hits, above.count() as u64), HALF);
    let mut hits = 0;
    for (at, (p, holds)) in rows.iter().enumerate() {
        hits += u64::from(*holds);
        let next = rows.get(at + 1).map_or(0.0, |next| next.0);
        // Between two rows, so that neither hangs on the last bit of a sum.
        let threshold = (p + next) / 2.0;
        let found = f1(hits, at as u64 + 1);
        let is_between = next < threshold && threshold < *p && threshold < 1.0;
        let is_nearer = (threshold - HALF).abs() < (best.1 - HALF).abs();
        if is_between && (found > best.0 || (found == best.0 && is_nearer)) {
            best = (found, threshold);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(extra: Value, labels: &[&str]) -> Config {
        let mut raw = serde_json::json!({
            "model_type": "bert", "vocab_size": 20, "hidden_size": 4, "num_hidden_layers": 1,
            "num_attention_heads": 1, "intermediate_size": 4, "max_position_embeddings": 8,
        });
        let all = raw.as_object_mut().unwrap();
        all.extend(extra.as_object().unwrap().clone());
        let ids = labels.iter().enumerate();
        let ids: Map<String, Value> =
            ids.map(|(id, label)| (id.to_string(), Value::from(*label))).collect();
        all.insert("id2label".into(), ids.into());
        Config::parse(all.clone(), Path::new("config.json")).unwrap()
    }

    #[test]
    fn kind_and_thresholds_stand_in_the_config() {
        let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let check = |extra: &str, labels: &[&str], expected: &str| {
            let got = match Outputs::of(&config(json(extra), labels)) {
                Ok(found) => format!("{} {:?}", found.kind.name(), found.thresholds),
                Err(error) => error.to_string(),
            };
            assert_eq!(got, expected);
        };
        let ab = &["a", "b"][..];
        check("{}", ab, "single-label []");
        check("{}", &["LABEL_0"], "regression []");
        check(r#"{"problem_type": null}"#, ab, "single-label []");
        check(r#"{"problem_type": "regression"}"#, &["score"], "regression []");
        let multi =
            |rest: &str| format!(r#"{{"problem_type": "multi_label_classification"{rest}}}"#);
        check(&multi(""), ab, "multi-label [0.5, 0.5]");
        check(&multi(r#", "thresholds": {"b": 0.25}"#), ab, "multi-label [0.5, 0.25]");
        check(
            &multi(r#", "thresholds": {"b": 1}"#),
            ab,
            "config.json: thresholds is 1, expected a number between 0 and 1",
        );
        check(
            &multi(r#", "thresholds": {"c": 0.5}"#),
            ab,
            "config.json: thresholds is \"c\", expected one of a, b",
        );
        check(
            r#"{"problem_type": "ranking"}"#,
            ab,
            "config.json: problem_type is \"ranking\", expected single_label_classification, multi_label_classification or \
             regression",
        );
        check(
            r#"{"problem_type": "regression"}"#,
            ab,
            "config.json: id2label of a regression is 2, expected one output",
        );
        let mut of = config(json(&multi("")), ab);
        let outputs = Outputs { kind: Kind::MultiLabel, thresholds: vec![0.5, 0.125] };
        outputs.write(&mut of);
        assert_eq!(Outputs::of(&of).unwrap(), outputs);
        Outputs { thresholds: vec![0.5, 0.5], ..outputs }.write(&mut of);
        assert!(!of.raw.contains_key(THRESHOLDS));
    }

    #[test]
    fn thresholds_are_read_and_written() {
        let check = |text: &str, expected: std::result::Result<Threshold, &str>| {
            let got = text.parse::<Threshold>();
            assert_eq!(got.as_ref().copied().map_err(String::as_str), expected);
            if let Ok(threshold) = got {
                assert_eq!(String::from(threshold), text);
            }
        };
        check("0.3", Ok(Threshold::Fixed(0.3)));
        check("tuned", Ok(Threshold::Tuned));
        let message = "threshold \"1\": expected a number between 0 and 1, or \"tuned\"";
        check("1", Err(message));
        for text in ["0", "-0.5", "1.5", "NaN", "best"] {
            assert!(text.parse::<Threshold>().is_err(), "{text}");
        }
    }

    #[derive(Deserialize)]
    struct Case {
        gold: Vec<bool>,
        probability: Vec<f64>,
        best_f1: f64,
    }

    /// No threshold has a greater F1 by scikit-learn's curve of precision and recall.
    #[test]
    fn tuned_thresholds_have_the_greatest_f1() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/kinds.json");
        let all: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let cases: Vec<Case> = serde_json::from_value(all["thresholds"].clone()).unwrap();
        for case in cases {
            let rows = case.probability.iter().copied().zip(case.gold.iter().copied());
            let threshold = best_threshold(rows.clone().collect());
            assert!(threshold > 0.0 && threshold < 1.0);
            let (mut hits, mut said, mut gold) = (0.0, 0.0, 0.0);
            for (p, holds) in rows {
                said += f64::from(u8::from(p >= threshold));
                gold += f64::from(u8::from(holds));
                hits += f64::from(u8::from(holds && p >= threshold));
            }
            let f1 = if gold == 0.0 { 0.0 } else { 2.0 * hits / (said + gold) };
            assert!((f1 - case.best_f1).abs() < 1e-9, "{f1} {} at {threshold}", case.best_f1);
        }
        assert_eq!(best_threshold(vec![(0.9, true), (0.4, false)]), 0.5);
        assert_eq!(best_threshold(vec![(0.9, false), (0.4, false)]), 0.5);
    }
}
