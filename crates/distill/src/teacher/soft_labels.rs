//! The mixed targets of a run as lines of JSON, for trainers of other people's.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::{Error, Result, Teacher, files};

/// Writes one line a row, `{"id": …, "target": {NAME: p, …}}`, with
///
/// target = (1−λ)·one-hot(label) + λ·softmax(z/T).
///
/// Cross-entropy to these targets is distillation itself at T = 1 (Jiang et al., 2106.02654, section 3); at another T the
/// factor T² of the two-term form can't be written into a target. A row without a label is the teacher's alone, one with a
/// label that the teacher doesn't know the label's alone. `ids` and `labels` are those of the teacher's rows (N,).
pub fn write_soft_labels(
    path: &Path,
    teacher: &Teacher,
    ids: &[String],
    labels: &[Option<u32>],
    student_labels: &[String],
    lambda: f64,
    temperature: f64,
) -> Result<()> {
    let refuse = |key, value: f64, expected| {
        Err(Error::PlanValue { key, value: value.to_string(), expected })
    };
    if !(0.0..=1.0).contains(&lambda) {
        return refuse("lambda", lambda, "a number from 0 to 1");
    }
    if !(temperature > 0.0 && temperature.is_finite()) {
        return refuse("temperature", temperature, "a number above 0");
    }
    let classes = student_labels.len();
    let mut text = Vec::new();
    for (row, (id, &label)) in ids.iter().zip(labels).enumerate() {
        let is_known = label.map(|label| teacher.known.get(label as usize) == Some(&true));
        let of_teacher = match is_known {
            None => 1.0,
            Some(true) => lambda,
            Some(false) => 0.0,
        };
        let mut target = teacher.probabilities(row, temperature); // (K,)
        target.iter_mut().for_each(|p| *p *= of_teacher);
        if let Some(label) = label {
            let Some(p) = target.get_mut(label as usize) else {
                return Err(Error::LabelIndex { row, label, classes });
            };
            *p += 1.0 - of_teacher;
        }
        let named = student_labels.iter().cloned().zip(target.into_iter().map(Value::from));
        let line = json!({ "id": id, "target": named.collect::<Map<_, _>>() });
        text.extend_from_slice(line.to_string().as_bytes());
        text.push(b'\n');
    }
    files::write(path, &text)
}
