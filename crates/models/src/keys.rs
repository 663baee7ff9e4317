//! Typed reading of a config.json's keys. Believes no value: each is of its type and within its range, or an error that
//! names file, key, what was found and what was expected.

use std::{collections::BTreeMap, ops::RangeInclusive, path::Path};

use lowchurn_kernels::{Activation, Gelu};
use serde_json::{Map, Value};

use crate::config::label2id;
use crate::{Error, ModelType, Result};

/// Wide enough for any encoder, narrow enough that no product of two can overflow.
pub(crate) const SIZES: RangeInclusive<u64> = 1..=1 << 24;
/// Each layer is sixteen names, so this one bounds memory.
pub(crate) const LAYERS: RangeInclusive<u64> = 1..=1024;
pub(crate) const POSITIVE: RangeInclusive<f64> = f64::MIN_POSITIVE..=1.0;

/// A config.json; the path is for messages only.
pub(crate) struct Keys<'a> {
    pub(crate) path: &'a Path,
    pub(crate) raw: &'a Map<String, Value>,
}

impl Keys<'_> {
    /// Null means the same as a missing key, as it does in transformers.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.raw.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn wrong(&self, key: &str, found: &dyn std::fmt::Display, expected: &str) -> Error {
        Error::Key {
            path: self.path.into(),
            key: key.into(),
            found: found.to_string(),
            expected: expected.into(),
        }
    }

    /// Checkpoints of 2018 and 2019 have no model_type. RoBERTa's tensors look like BERT's, so a guess needs a reason.
    pub(crate) fn model_type(&self) -> Result<ModelType> {
        let class = self.get("architectures").and_then(|list| list.get(0)?.as_str());
        let such_as = |nearest: ModelType| format!("such as {:?}", nearest.name());
        let missing = |nearest: ModelType| {
            let expected = format!("the name of an architecture, {}", such_as(nearest));
            self.wrong("model_type", &"missing", &expected)
        };
        match (self.get("model_type"), class) {
            (Some(Value::String(name)), _) => {
                ModelType::of_name(name).ok_or_else(|| Error::Architecture {
                    path: self.path.into(),
                    found: name.clone(),
                    nearest: ModelType::nearest(name).name(),
                })
            }
            (Some(other), _) => {
                let expected = format!("text, {}", such_as(ModelType::Bert));
                Err(self.wrong("model_type", other, &expected))
            }
            (None, Some(class)) => {
                ModelType::of_class(class).ok_or_else(|| missing(ModelType::nearest(class)))
            }
            (None, None) => Err(missing(ModelType::Bert)),
        }
    }

    /// A key that changes what the same weights compute; only the usual value is built.
    pub(crate) fn only(&self, key: &str, usual: Value) -> Result<()> {
        match self.get(key).filter(|found| **found != usual) {
            Some(found) => {
                Err(self.wrong(key, found, &format!("{usual}, the only form supported")))
            }
            None => Ok(()),
        }
    }

    pub(crate) fn size(&self, key: &str, range: RangeInclusive<u64>) -> Result<usize> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let value = self.get(key).ok_or_else(|| self.wrong(key, &"missing", &expected))?;
        match value.as_u64().filter(|n| range.contains(n)) {
            Some(n) => Ok(n as usize),
            None => Err(self.wrong(key, value, &expected)),
        }
    }

    pub(crate) fn size_or(
        &self,
        key: &str,
        range: RangeInclusive<u64>,
        default: usize,
    ) -> Result<usize> {
        if self.get(key).is_some() { self.size(key, range) } else { Ok(default) }
    }

    pub(crate) fn number(
        &self,
        key: &str,
        range: RangeInclusive<f64>,
        default: f64,
    ) -> Result<f64> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let number = value.as_f64().filter(|x| range.contains(x));
        let expected = format!("a number from {} to {}", range.start(), range.end());
        let expected = if range == POSITIVE { "a number above 0, at most 1" } else { &expected };
        number.ok_or_else(|| self.wrong(key, value, expected))
    }

    pub(crate) fn dropout(&self, key: &str, default: f32) -> Result<f32> {
        let p = self.number(key, 0.0..=1.0, f64::from(default))? as f32;
        if p < 1.0 { Ok(p) } else { Err(self.wrong(key, &p, "a probability below 1")) }
    }

    pub(crate) fn activation(&self, key: &str, default: Activation) -> Result<Activation> {
        match self.get(key).map(|value| (value.as_str(), value)) {
            None => Ok(default),
            Some((Some("gelu"), _)) => Ok(Activation::Gelu(Gelu::Erf)),
            Some((Some("gelu_new" | "gelu_pytorch_tanh"), _)) => Ok(Activation::Gelu(Gelu::Tanh)),
            Some((Some("relu"), _)) => Ok(Activation::Relu),
            Some((_, other)) => {
                Err(self.wrong(key, other, "gelu, gelu_new, gelu_pytorch_tanh or relu"))
            }
        }
    }

    pub(crate) fn labels(&self) -> Result<Vec<String>> {
        let Some(value) = self.get("id2label") else { return Ok(Vec::new()) };
        let wrong = |expected: &str| self.wrong("id2label", value, expected);
        let by_id = value.as_object().ok_or_else(|| wrong("an object from ids to class names"))?;
        let mut ordered = BTreeMap::new();
        for (id, name) in by_id {
            let (Ok(id), Some(name)) = (id.parse::<usize>(), name.as_str()) else {
                return Err(wrong("an object from ids to class names"));
            };
            ordered.insert(id, name.to_string());
        }
        if ordered.len() != by_id.len() || !ordered.keys().copied().eq(0..ordered.len()) {
            return Err(wrong("the ids 0, 1, 2 and so on without a gap"));
        }
        let labels: Vec<String> = ordered.into_values().collect();
        let ids = label2id(&labels);
        if ids.len() != labels.len() {
            return Err(wrong("a different name for each id"));
        }
        if let Some(found) = self.get("label2id").filter(|found| **found != Value::from(ids)) {
            return Err(self.wrong(
                "label2id",
                found,
                &format!("the inverse of id2label, {value}"),
            ));
        }
        if let Some(found) = self.get("num_labels").filter(|found| **found != labels.len()) {
            let expected = format!("{}, the number of labels in id2label", labels.len());
            return Err(self.wrong("num_labels", found, &expected));
        }
        Ok(labels)
    }
}
