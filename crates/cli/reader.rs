//! Reads one source after the other and brings their labels to a model's.

use std::collections::HashMap;

use anyhow::{Context, Result};
use lowchurn_data::alignment::entries_for;
use lowchurn_data::{
    Alignment, Columns, Error as DataError, Example, LabelSet, Labels, NewClasses, Split,
    align_update, stratified_cut,
};
use lowchurn_hub::Hub;

use crate::console::Console;
use crate::data::{self, CUT_SEED, Data, Wishes};

/// Rows of one source, their labels aligned already.
#[derive(Clone, Debug, Default)]
pub struct Part {
    pub name: String,
    pub examples: Vec<Example>,
    /// What they were read from, with the ids of all of its rows.
    pub source: String,
    pub split: String,
    pub ids: Vec<String>,
    /// As named, by the user or the task.
    pub columns: Columns,
    /// (DATA, LABEL): entries of the label map that named labels of this source.
    pub map: Vec<(String, String)>,
}

impl Part {
    /// What stays, and about `fraction` of each class. `labels` are the model's.
    pub fn cut(mut self, labels: &[String], fraction: f64) -> Result<(Part, Part), DataError> {
        let examples = std::mem::take(&mut self.examples);
        let rows = Split::new(&self.name, examples, LabelSet::of_outputs(labels.to_vec())?);
        let (kept, held) = stratified_cut(&rows, fraction, CUT_SEED)?;
        let name = format!("{} without its held-out part", self.name);
        let kept = Part { name, examples: kept.examples, ..self.clone() };
        let name = format!("{:.0} % of {}", 100.0 * fraction, self.name);
        Ok((kept, Part { name, examples: held.examples, ..self }))
    }
}

/// Reads sources one after the other, each aligned with the labels so far.
pub struct Reader<'r> {
    pub wishes: Wishes,
    /// Grows by new classes as they come.
    pub labels: Vec<String>,
    pub map: Vec<(String, String)>,
    pub new_classes: NewClasses,
    pub said: Vec<String>,
    /// Label names of every source that named them otherwise.
    pub seen: Vec<Vec<String>>,
    pub hub: &'r Hub,
}

impl Reader<'_> {
    pub fn read(
        &mut self,
        source: &str,
        split: Option<&str>,
        default: &str,
        labels: Labels,
        console: &mut Console,
    ) -> Result<Part> {
        let data = data::open(source, self.hub, console)?;
        let names = data.split_names();
        let first = match names.as_slice() {
            [only] => only.clone(),
            _ => default.to_string(),
        };
        let split = split.map(str::to_string).or(data.split.clone()).unwrap_or(first);
        let columns = data.columns(&self.wishes);
        let known = LabelSet::of_outputs(self.labels.clone())?;
        let mut read = |known: Option<&LabelSet>| {
            data.read(&split, &self.wishes, labels, known, self.hub, console)
        };
        // Rows that show the known classes are aligned by name; any others are looked at as they name themselves.
        let found = match if self.map.is_empty() { read(Some(&known)) } else { read(None) } {
            Ok(rows) if rows.labels == known => {
                let said =
                    numbers_as_places(&rows, (&data, &split), &self.wishes, self.hub, console);
                self.said.extend(said);
                return Ok(part(rows, source, split, columns));
            }
            Ok(rows) => rows,
            // Rows of one class, or without labels, don't make a label set of their own.
            Err(error) if is_of_labels(&error) => {
                let other = if self.map.is_empty() { read(None) } else { read(Some(&known)) };
                let may_be_new = !self.map.is_empty() || self.new_classes == NewClasses::Allowed;
                match (other, only_label(&error)) {
                    (Ok(rows), _) => rows,
                    (Err(own), of_first) if may_be_new && is_of_labels(&own) => {
                        let Some(name) = of_first.or(only_label(&own)) else { return Err(error) };
                        read(Some(&LabelSet::new(vec![name, NO_OTHER.into()])?))?
                    }
                    (Err(own), _) => return Err(if is_of_labels(&own) { error } else { own }),
                }
            }
            Err(error) => return Err(error),
        };
        let names = found.labels.names();
        let names = names.strip_suffix(&[NO_OTHER.to_string()]).unwrap_or(names);
        self.seen.push(names.to_vec());
        let map = entries_for(&self.map, names);
        let aligned: Alignment = align_update(&self.labels, names, &map, self.new_classes)
            .with_context(|| found.name.clone())?;
        let mut found = Part { map, ..part(found, source, split, columns) };
        for row in &mut found.examples {
            row.with_classes(|label| aligned.of_data.get(label as usize).copied());
        }
        self.labels = aligned.labels;
        self.said.extend(aligned.said);
        Ok(found)
    }
}

/// The second name of rows of one class, since a label set has two at least.
const NO_OTHER: &str = "(no other)";

/// Of rows that have one label alone.
fn only_label(error: &anyhow::Error) -> Option<String> {
    match error.chain().find_map(|cause| cause.downcast_ref::<DataError>())? {
        DataError::TooFewLabels { names } => names.first().cloned(),
        _ => None,
    }
}

/// Numbers say nothing of names: what they are taken for is said, not assumed in silence. `None` where the rows name their classes.
pub fn numbers_as_places(
    rows: &Split,
    (data, split): (&Data, &str),
    wishes: &Wishes,
    hub: &Hub,
    console: &mut Console,
) -> Option<String> {
    let names = rows.labels.names();
    if names.iter().any(|name| is_number(name)) {
        return None;
    }
    let own = data.read(split, wishes, Labels::IfPresent, None, hub, console).ok()?;
    if !own.labels.names().iter().all(|name| is_number(name)) {
        return None;
    }
    let place = |number: &String| number.parse().ok().and_then(|at: usize| names.get(at));
    let pairs = own
        .labels
        .names()
        .iter()
        .filter_map(|number| Some(format!("{number} is {}", place(number)?)));
    let pairs: Vec<String> = pairs.collect();
    let name = &rows.name;
    Some(format!(
        "{name}: its labels are numbers, taken as places among the model's classes ({}); --label-map says otherwise",
        pairs.join(", ")
    ))
}

fn is_number(name: &str) -> bool {
    name.parse::<i64>().is_ok()
}

fn part(rows: Split, source: &str, split: String, columns: Columns) -> Part {
    let ids = rows.examples.iter().map(|row| row.id.clone()).collect();
    let (name, examples, source) = (rows.name, rows.examples, source.to_string());
    Part { name, examples, source, split, ids, columns, map: Vec::new() }
}

pub fn is_of_labels(error: &anyhow::Error) -> bool {
    let found = error.chain().find_map(|cause| cause.downcast_ref::<DataError>());
    matches!(
        found,
        Some(
            DataError::UnknownLabel { .. }
                | DataError::LabelsDisagree { .. }
                | DataError::TooFewLabels { .. }
                | DataError::NoLabels { .. }
        )
    )
}

/// All rows with ids that are unique: where two sources share one, those of the later source get its number before theirs.
pub fn unique(parts: Vec<Part>) -> Vec<Example> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let clashes = |seen: &HashMap<String, usize>, part: &Part| {
        part.examples.iter().any(|row| seen.contains_key(&row.id))
    };
    let mut all = Vec::new();
    for (at, mut part) in parts.into_iter().enumerate() {
        if clashes(&seen, &part) {
            part.examples.iter_mut().for_each(|row| row.id = format!("{}:{}", at + 1, row.id));
        }
        for row in part.examples {
            seen.insert(row.id.clone(), at);
            all.push(row);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_two_sources_are_told_apart() {
        let part = |ids: &[&str]| Part {
            name: "x".into(),
            examples: ids
                .iter()
                .map(|id| Example {
                    id: id.to_string(),
                    text: "t".into(),
                    pair: None,
                    label: None,
                    target: None,
                })
                .collect(),
            ..Part::default()
        };
        let ids = |parts| unique(parts).into_iter().map(|row| row.id).collect::<Vec<_>>();
        assert_eq!(ids(vec![part(&["1", "2"]), part(&["3"])]), ["1", "2", "3"]);
        assert_eq!(ids(vec![part(&["1", "2"]), part(&["2", "3"])]), ["1", "2", "2:2", "2:3"]);
    }
}
