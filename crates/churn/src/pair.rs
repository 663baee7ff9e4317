//! Two models on the same rows: aligned by id, labels aligned by name.
//!
//! Refuses to guess: a label of the old model that the new one doesn't have, in this very spelling, stops unless it is mapped.

use lowchurn_data::error::nearest;

use crate::label_names::is_respelt;
use crate::predicted::length;
use crate::{Answers, Error, PairAnswers, Predicted, Result};

mod rows;
mod sets;
mod values;

use rows::{align_rows, no_common_row, rows_differ};

/// Columns of N rows that both models scored, in the old file's order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pair {
    pub old_name: String,
    pub new_name: String,
    /// The old model's classes in their order, then those that only the new one has, then those that are only true classes;
    /// indices below point here.
    pub labels: Vec<String>,
    /// `labels[..n_old_classes]` are known to the old model.
    pub n_old_classes: usize,
    pub ids: Vec<String>,
    pub old: Vec<u32>,
    pub new: Vec<u32>,
    pub gold: Vec<Option<u32>>,
    /// (N·K) over `labels`; 0 for classes that the old model doesn't know.
    pub old_scores: Option<Vec<f32>>,
    pub new_scores: Option<Vec<f32>>,
    /// What was done to the labels, a line each, for people and the report.
    pub alignment: Vec<String>,
    /// Rows on one side only, which are left out.
    pub n_only_old: u64,
    pub n_only_new: u64,
    /// Where an answer isn't one class a row.
    pub answers: PairAnswers,
}

/// What becomes of rows that only one side has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unmatched {
    #[default]
    Refuse,
    /// Left out and counted.
    Count,
}

impl Pair {
    /// Rows by id, labels by name.
    ///
    /// `label_map` holds (OLD, NEW): the old model's label on the left is the new model's on the right; several may go to one,
    /// whose score is then their sum. NAME=NAME keeps a label that the new model has no more. Labels of the new model alone are
    /// appended. The order of the labels plays no part.
    ///
    /// # Errors
    /// Where a label that the old model says isn't one of the new model's and isn't mapped, a row is on one side only and
    /// `unmatched` refuses that, no row is on both, or the true classes of a row disagree.
    pub fn align(
        old: &Predicted,
        new: &Predicted,
        label_map: &[(String, String)],
        unmatched: Unmatched,
    ) -> Result<Pair> {
        check_lengths(old)?;
        check_lengths(new)?;
        let (labels, sets) = match (&old.answers, &new.answers) {
            (Answers::Sets { .. }, Answers::Sets { .. }) => sets::align(old, new, label_map)?,
            (one, other) if one.kind() == other.kind() => {
                (align_labels(old, new, label_map)?, PairAnswers::Classes)
            }
            (one, other) => {
                return Err(Error::KindsDiffer {
                    old_name: old.name.clone(),
                    old: one.kind(),
                    new_name: new.name.clone(),
                    new: other.kind(),
                });
            }
        };
        let rows = align_rows(old, new)?;
        if rows.both.is_empty() {
            return Err(no_common_row(old, new));
        }
        if unmatched == Unmatched::Refuse && rows.only_old.len() + rows.only_new.len() > 0 {
            return Err(rows_differ(old, new, &rows));
        }
        let mut gold = Vec::with_capacity(rows.both.len());
        for (in_old, in_new) in &rows.both {
            let first = old.gold[*in_old as usize].map(|class| labels.of_old[class as usize]);
            let second = new.gold[*in_new as usize].map(|class| labels.of_new[class as usize]);
            if let (Some(first), Some(second)) = (first, second)
                && first != second
            {
                return Err(Error::GoldDisagrees {
                    id: old.ids[*in_old as usize].clone(),
                    old_name: old.name.clone(),
                    new_name: new.name.clone(),
                    old: labels.names[first as usize].clone(),
                    new: labels.names[second as usize].clone(),
                });
            }
            gold.push(first.or(second));
        }
        let answers = match sets {
            PairAnswers::Classes => values::of_rows(old, new, &rows.both)?,
            sets => sets,
        };
        let (of_old, of_new) = (|row: &(u32, u32)| row.0, |row: &(u32, u32)| row.1);
        let classes = labels.names.len();
        let mut alignment = labels.said;
        alignment.extend(old.notes.iter().map(|note| format!("{}: {note}", old.name)));
        alignment.extend(new.notes.iter().map(|note| format!("{}: {note}", new.name)));
        Ok(Pair {
            old_name: old.name.clone(),
            new_name: new.name.clone(),
            ids: rows.both.iter().map(|row| old.ids[row.0 as usize].clone()).collect(),
            old: classes_of(old, &labels.of_old, rows.both.iter().map(of_old)),
            new: classes_of(new, &labels.of_new, rows.both.iter().map(of_new)),
            gold,
            old_scores: scores_of(old, &labels.of_old, classes, rows.both.iter().map(of_old)),
            new_scores: scores_of(new, &labels.of_new, classes, rows.both.iter().map(of_new)),
            labels: labels.names,
            n_old_classes: labels.n_old,
            alignment,
            n_only_old: rows.only_old.len() as u64,
            n_only_new: rows.only_new.len() as u64,
            answers,
        })
    }

    /// N.
    pub fn rows(&self) -> usize {
        self.ids.len()
    }

    /// These rows alone, in this order; rows that aren't there are left out.
    pub fn subset(&self, rows: &[u32]) -> Pair {
        let rows: Vec<usize> =
            rows.iter().map(|row| *row as usize).filter(|row| *row < self.rows()).collect();
        let classes = self.labels.len();
        let scores = |scores: &Option<Vec<f32>>| {
            scores.as_ref().map(|all| {
                rows.iter()
                    .flat_map(|row| &all[row * classes..(row + 1) * classes])
                    .copied()
                    .collect()
            })
        };
        Pair {
            old_name: self.old_name.clone(),
            new_name: self.new_name.clone(),
            labels: self.labels.clone(),
            n_old_classes: self.n_old_classes,
            ids: rows.iter().map(|row| self.ids[*row].clone()).collect(),
            old: rows.iter().map(|row| self.old[*row]).collect(),
            new: rows.iter().map(|row| self.new[*row]).collect(),
            gold: rows.iter().map(|row| self.gold[*row]).collect(),
            old_scores: scores(&self.old_scores),
            new_scores: scores(&self.new_scores),
            alignment: self.alignment.clone(),
            n_only_old: self.n_only_old,
            n_only_new: self.n_only_new,
            answers: values::subset(&self.answers, &rows),
        }
    }
}

fn check_lengths(side: &Predicted) -> Result<()> {
    let what = |what: &str| format!("{}: {what}", side.name);
    length(&what("predictions"), side.predicted.len(), side.rows())?;
    length(&what("true classes"), side.gold.len(), side.rows())?;
    let classes = side.labels.len();
    if let Some(scores) = &side.scores {
        length(&what("scores"), scores.len(), side.rows() * classes)?;
    }
    let all = side.predicted.iter().chain(side.gold.iter().flatten());
    match all.copied().find(|class| *class as usize >= classes) {
        None => Ok(()),
        Some(class) => Err(Error::ClassOutside { name: side.name.clone(), class, classes }),
    }
}

struct Labels {
    names: Vec<String>,
    n_old: usize,
    /// Places in `names` of each side's labels.
    of_old: Vec<u32>,
    of_new: Vec<u32>,
    said: Vec<String>,
}

fn align_labels(old: &Predicted, new: &Predicted, map: &[(String, String)]) -> Result<Labels> {
    check_map(old, map)?;
    let renamed: Vec<&String> = old
        .labels
        .iter()
        .map(|label| map.iter().find(|(from, _)| from == label).map_or(label, |(_, to)| to))
        .collect();
    let (old_known, new_known) = (known(old), known(new));
    check_old_labels(old, new, map, &renamed)?;
    let mut names: Vec<String> = Vec::new();
    let mut add = |label: &String| {
        let place = names.iter().position(|name| name == label).unwrap_or_else(|| {
            names.push(label.clone());
            names.len() - 1
        });
        place as u32
    };
    let mut of_old: Vec<u32> = renamed.iter().take(old_known).map(|label| add(label)).collect();
    let n_old = of_old.iter().max().map_or(0, |most| *most as usize + 1);
    let mut of_new: Vec<u32> = new.labels.iter().take(new_known).map(&mut add).collect();
    of_old.extend(renamed.iter().skip(old_known).map(|label| add(label)));
    of_new.extend(new.labels.iter().skip(new_known).map(add));
    let said = said(old, new, map, n_old, &names);
    Ok(Labels { names, n_old, of_old, of_new, said })
}

// How many of its labels are the model's own.
fn known(side: &Predicted) -> usize {
    side.n_declared.unwrap_or(side.labels.len()).min(side.labels.len())
}

fn check_map(old: &Predicted, map: &[(String, String)]) -> Result<()> {
    for (at, (from, to)) in map.iter().enumerate() {
        if !old.labels.contains(from) {
            return Err(Error::MapUnknown {
                label: from.clone(),
                name: old.name.clone(),
                known: old.labels.clone(),
                suggestion: nearest(from, old.labels.iter().map(String::as_str)),
            });
        }
        if let Some((_, first)) = map[..at].iter().find(|(other, _)| other == from) {
            let (label, first, second) = (from.clone(), first.clone(), to.clone());
            return Err(Error::MapTwice { label, first, second });
        }
    }
    Ok(())
}

fn check_old_labels(
    old: &Predicted,
    new: &Predicted,
    map: &[(String, String)],
    renamed: &[&String],
) -> Result<()> {
    let has = |name: &String| new.labels.contains(name);
    let mut is_said = vec![false; old.labels.len()];
    old.predicted.iter().for_each(|class| is_said[*class as usize] = true);
    is_said.iter_mut().take(old.n_declared.unwrap_or(0)).for_each(|is_said| *is_said = true);
    // Without scores a side shows only the labels that occur. Then a missing one is a rename only if there is one that it may
    // have become.
    let only_new: Vec<&String> =
        new.labels.iter().filter(|label| !renamed.contains(label)).collect();
    let may_be_renamed = new.n_declared.is_some() || !only_new.is_empty();
    let mut lost: Vec<(String, Option<String>)> = Vec::new();
    for ((label, to), is_said) in old.labels.iter().zip(renamed).zip(is_said) {
        let is_mapped = map.iter().any(|(from, _)| from == label);
        if has(to) || (is_mapped && *to == label) {
            continue;
        }
        if is_mapped {
            return Err(Error::MapUnknown {
                label: (*to).clone(),
                name: new.name.clone(),
                known: new.labels.clone(),
                suggestion: nearest(to, new.labels.iter().map(String::as_str)),
            });
        }
        let respelt = new.labels.iter().find(|other| is_respelt(other, label)).cloned();
        if respelt.is_some() || (is_said && may_be_renamed) {
            let near = || nearest(label, only_new.iter().map(|name| name.as_str()));
            lost.push((label.clone(), respelt.or_else(near)));
        }
    }
    match lost.is_empty() {
        true => Ok(()),
        false => Err(Error::LabelsOnlyOld {
            labels: lost.iter().map(|(label, _)| label.clone()).collect(),
            old_name: old.name.clone(),
            new_name: new.name.clone(),
            known: new.labels.clone(),
            map: lost.iter().map(as_typed).collect::<Vec<_>>().join(","),
        }),
    }
}

// An entry of --label-map, with a backslash before what has a meaning there.
fn as_typed((label, suggestion): &(String, Option<String>)) -> String {
    let escaped = |name: &str| -> String {
        let special = |letter: char| matches!(letter, ',' | '=' | '\\').then_some('\\');
        name.chars().flat_map(|letter| special(letter).into_iter().chain([letter])).collect()
    };
    format!("{}={}", escaped(label), suggestion.as_deref().map_or("NEW".to_owned(), escaped))
}

fn said(
    old: &Predicted,
    new: &Predicted,
    map: &[(String, String)],
    n_old: usize,
    names: &[String],
) -> Vec<String> {
    let (old_known, new_known) = (&old.labels[..known(old)], &new.labels[..known(new)]);
    let mut said = Vec::new();
    if map.is_empty() && old_known == new_known {
        said.push(format!("labels are the same on both sides: {}", names.join(", ")));
    } else {
        said.push(format!("labels of the old: {}", old_known.join(", ")));
        said.push(format!("labels of the new: {}", new_known.join(", ")));
        said.extend(map.iter().map(|(from, to)| format!("mapped: {from} is {to} now")));
        said.push("aligned by name, whatever their order".to_owned());
    }
    let is_known = |side: &[String], name: &String| side.contains(name);
    for (at, name) in names.iter().enumerate() {
        let line = match (at < n_old, is_known(new_known, name)) {
            (true, true) => continue,
            (true, false) if new.n_declared.is_none() => "never occurs on the new side",
            (true, false) => "isn't a label of the new any more",
            (false, true) => "is new",
            (false, false) => "is a true class that neither model knows",
        };
        said.push(format!("{name} {line}"));
    }
    said
}

fn classes_of(side: &Predicted, place: &[u32], rows: impl Iterator<Item = u32>) -> Vec<u32> {
    rows.map(|row| place[side.predicted[row as usize] as usize]).collect()
}

// (N, K of the side) to (N, K of the pair).
fn scores_of(
    side: &Predicted,
    place: &[u32],
    classes: usize,
    rows: impl ExactSizeIterator<Item = u32>,
) -> Option<Vec<f32>> {
    let own = side.labels.len();
    let from = side.scores.as_ref()?;
    let mut scores = vec![0f32; rows.len() * classes];
    for (to, row) in scores.chunks_exact_mut(classes).zip(rows) {
        let row = row as usize;
        for (score, place) in from[row * own..(row + 1) * own].iter().zip(place) {
            to[*place as usize] += score;
        }
    }
    Some(scores)
}
