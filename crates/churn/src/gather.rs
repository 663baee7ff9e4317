//! Rows of a prediction file, one at a time → `Predicted`, checked.
//!
//! Refuses ids that are there twice, scores that aren't probabilities, predictions without a score, and true classes in
//! another spelling than the model's: each would be counted as churn or as an error that isn't one.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use lowchurn_data::error::{At, Error as DataError, Place, nearest};
use lowchurn_data::labels::whole;

use crate::label_names::{is_respelt, sorted};
use crate::predicted::first_highest;
use crate::{Error, Predicted, Result};

/// Scores of a row may miss 1 by this much: files are rounded.
const SUM_TOLERANCE: f64 = 1e-3;

const UNLABELLED: u32 = u32::MAX;

/// One row as it was read; used again for the next.
#[derive(Default)]
pub(crate) struct Row {
    pub id: String,
    /// Empty where the file has none.
    pub prediction: String,
    pub gold: String,
    /// (K,), by the classes of `Gather`; not-a-number where the row has none.
    pub scores: Vec<f64>,
    /// The first score that isn't a number: its class, and what stands there.
    pub bad_score: Option<(String, String)>,
}

impl Row {
    pub fn clear(&mut self) {
        self.id.clear();
        self.prediction.clear();
        self.gold.clear();
        self.scores.clear();
        self.bad_score = None;
    }
}

/// Whose the scores are.
pub(crate) struct Classes {
    /// (K,). With `Open`, those that were given for a list.
    pub names: Vec<String>,
    pub shape: Shape,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The file has no scores.
    None,
    /// One column a class.
    Columns,
    /// In one column; the first row will say how.
    Open,
    Object,
    /// A list whose classes were named.
    List,
    /// A list of which only the numbers 0, 1, … are known.
    Numbered,
}

pub(crate) struct Gather<'p> {
    pub path: &'p Path,
    pub classes: Classes,
    /// For messages; `None` where the file has no such column.
    pub id_column: Option<String>,
    pub prediction_column: Option<String>,
    pub gold_column: Option<String>,
    ids: Vec<String>,
    places: Vec<u32>,
    is_rows: bool,
    words: Vec<String>,
    word_of: HashMap<String, u32>,
    predicted: Vec<u32>,
    gold: Vec<u32>,
    scores: Vec<f32>,
}

impl<'p> Gather<'p> {
    pub fn new(path: &'p Path) -> Gather<'p> {
        Gather {
            path,
            classes: Classes { names: Vec::new(), shape: Shape::None },
            id_column: None,
            prediction_column: None,
            gold_column: None,
            ids: Vec::new(),
            places: Vec::new(),
            is_rows: false,
            words: Vec::new(),
            word_of: HashMap::new(),
            predicted: Vec::new(),
            gold: Vec::new(),
            scores: Vec::new(),
        }
    }

    pub fn push(&mut self, row: &Row, place: Place) -> Result<()> {
        let path = self.path;
        let at = || At { path: path.to_owned(), place };
        match self.id_column {
            Some(_) if row.id.is_empty() => return Err(Error::NoId { at: at() }),
            Some(_) => self.ids.push(row.id.clone()),
            None => self.ids.push(self.ids.len().to_string()),
        }
        if self.classes.shape != Shape::None {
            check_scores(row, &self.classes.names, &at)?;
            self.scores.extend(row.scores.iter().map(|score| *score as f32));
        }
        let prediction = row.prediction.trim();
        if self.prediction_column.is_some() && prediction.is_empty() {
            return Err(Error::NoPrediction { at: at() });
        }
        let gold = row.gold.trim();
        let gold = if gold.is_empty() { UNLABELLED } else { self.word(gold) };
        self.gold.push(gold);
        if self.prediction_column.is_some() {
            let word = self.word(prediction);
            self.predicted.push(word);
        }
        let (number, is_row) = match place {
            Place::Line(line) => (line, false),
            Place::Row(row) => (row, true),
        };
        self.places.push(u32::try_from(number).unwrap_or(u32::MAX));
        self.is_rows = is_row;
        Ok(())
    }

    // Names are few, so each is kept once.
    fn word(&mut self, text: &str) -> u32 {
        if let Some(word) = self.word_of.get(text) {
            return *word;
        }
        let word = self.words.len() as u32;
        self.words.push(text.to_owned());
        self.word_of.insert(text.to_owned(), word);
        word
    }

    fn at(&self, row: usize) -> At {
        let number = self.places.get(row).map_or(0, |place| *place as usize);
        let place = if self.is_rows { Place::Row(number) } else { Place::Line(number) };
        At { path: self.path.to_owned(), place }
    }

    pub fn finish(mut self, name: String) -> Result<Predicted> {
        if self.ids.is_empty() {
            return Err(Error::NoRows { path: self.path.to_owned() });
        }
        self.check_ids()?;
        self.write_whole_numbers_alike();
        let mut notes = Vec::new();
        let predictions: BTreeSet<u32> = self.predicted.iter().copied().collect();
        let mut golds: BTreeSet<u32> =
            self.gold.iter().copied().filter(|word| *word != UNLABELLED).collect();
        self.check_numbers(&predictions, &golds)?;
        self.drop_minus_one(&predictions, &mut golds, &mut notes);
        let names = |words: &BTreeSet<u32>| -> Vec<String> {
            words.iter().map(|word| self.words[*word as usize].clone()).collect()
        };
        let (predictions, golds) = (names(&predictions), names(&golds));
        if self.classes.shape == Shape::Numbered {
            self.check_numbered(&predictions, &golds)?;
        }
        let own =
            if self.classes.shape == Shape::None { &predictions } else { &self.classes.names };
        self.check_spelling(own, &golds)?;
        let foreign = !golds.is_empty() && !golds.iter().any(|gold| own.contains(gold));
        if foreign && self.classes.shape != Shape::None {
            let labels = self.classes.names.clone();
            return Err(Error::GoldForeign { path: self.path.to_owned(), golds, labels });
        }
        if foreign {
            notes.push("no predicted class is ever the true one: are they named alike?".to_owned());
        }
        let labels = match self.classes.shape {
            Shape::None => sorted(predictions.iter().chain(&golds)),
            _ => {
                self.check_predictions(&predictions)?;
                let only_true = golds.iter().filter(|gold| !self.classes.names.contains(gold));
                self.classes.names.iter().cloned().chain(sorted(only_true)).collect()
            }
        };
        Ok(self.predicted(name, labels, notes))
    }

    fn predicted(self, name: String, labels: Vec<String>, mut notes: Vec<String>) -> Predicted {
        let place: HashMap<&str, u32> =
            labels.iter().enumerate().map(|(at, label)| (label.as_str(), at as u32)).collect();
        let index: Vec<u32> = self
            .words
            .iter()
            .map(|word| place.get(word.as_str()).copied().unwrap_or_default())
            .collect();
        let known = self.classes.names.len();
        let has_scores = self.classes.shape != Shape::None;
        let predicted: Vec<u32> = match &self.prediction_column {
            Some(_) => self.predicted.iter().map(|word| index[*word as usize]).collect(),
            None => self.scores.chunks_exact(known).map(|row| first_highest(row) as u32).collect(),
        };
        if has_scores {
            let is_other =
                |(row, class): &(&[f32], &u32)| row[first_highest(row)] > row[**class as usize];
            let others = self.scores.chunks_exact(known).zip(&predicted).filter(is_other).count();
            if others > 0 {
                notes.push(format!(
                    "predictions that aren't the class of the highest score: {others}"
                ));
            }
        }
        if predicted.len() > 1 && predicted.iter().all(|class| *class == predicted[0]) {
            notes.push(format!("only {:?} is ever predicted", labels[predicted[0] as usize]));
        }
        let gold = self
            .gold
            .iter()
            .map(|word| (*word != UNLABELLED).then(|| index[*word as usize]))
            .collect();
        let scores = has_scores.then(|| widened(self.scores, known, labels.len()));
        Predicted {
            name,
            n_declared: has_scores.then_some(known),
            labels,
            ids: self.ids,
            predicted,
            gold,
            scores,
            notes,
            ..Predicted::default()
        }
    }

    fn check_ids(&self) -> Result<()> {
        let Some(column) = &self.id_column else { return Ok(()) };
        let mut seen: HashMap<&str, usize> = HashMap::with_capacity(self.ids.len());
        for (row, id) in self.ids.iter().enumerate() {
            if let Some(first) = seen.insert(id, row) {
                return Err(Error::Data(DataError::DuplicateId {
                    id: id.clone(),
                    column: column.clone(),
                    first: Box::new(self.at(first)),
                    second: Box::new(self.at(row)),
                }));
            }
        }
        Ok(())
    }

    // pandas writes 1 as 1.0 once a cell of the column is empty: where all names are whole numbers, they are written alike.
    fn write_whole_numbers_alike(&mut self) {
        let all: Option<Vec<i64>> =
            self.words.iter().chain(&self.classes.names).map(|name| whole(name)).collect();
        if all.is_none() || self.words.is_empty() {
            return;
        }
        let digits = |name: &String| whole(name).map_or_else(|| name.clone(), |n| n.to_string());
        self.classes.names = self.classes.names.iter().map(digits).collect();
        let old = std::mem::take(&mut self.words);
        self.word_of.clear();
        let moved: Vec<u32> = old.iter().map(|name| self.word(&digits(name))).collect();
        for word in self.predicted.iter_mut().chain(&mut self.gold) {
            if *word != UNLABELLED {
                *word = moved[*word as usize];
            }
        }
    }

    // A column of scores taken for one of classes would make a label of each value.
    fn check_numbers(&self, predictions: &BTreeSet<u32>, golds: &BTreeSet<u32>) -> Result<()> {
        for (words, rows, column) in [
            (predictions, &self.predicted, &self.prediction_column),
            (golds, &self.gold, &self.gold_column),
        ] {
            let number = |word: &u32| {
                let name = &self.words[*word as usize];
                name.parse::<f64>().ok().filter(|_| !self.classes.names.contains(name))
            };
            let numbers: Option<Vec<f64>> = words.iter().map(number).collect();
            let is_score = |word: &u32| number(word).is_some_and(|value| value.fract() != 0.0);
            if numbers.is_some_and(|numbers| numbers.iter().any(|value| value.fract() != 0.0))
                && let Some(row) =
                    rows.iter().position(|word| *word != UNLABELLED && is_score(word))
            {
                return Err(Error::NotAClass {
                    at: self.at(row),
                    column: column.clone().unwrap_or_default(),
                    value: self.words[rows[row] as usize].clone(),
                });
            }
        }
        Ok(())
    }

    // -1 is how the hub's data sets write "unlabelled". It is a class where the model has it, or other rows' values make it one.
    fn drop_minus_one(
        &mut self,
        predictions: &BTreeSet<u32>,
        golds: &mut BTreeSet<u32>,
        notes: &mut Vec<String>,
    ) {
        let Some(minus) = self.word_of.get("-1").copied() else { return };
        let is_class =
            predictions.contains(&minus) || self.classes.names.iter().any(|name| name == "-1");
        let is_alone = golds.len() == 1;
        if is_class || !golds.contains(&minus) || !(is_alone || self.classes.shape != Shape::None) {
            return;
        }
        golds.remove(&minus);
        let dropped = self.gold.iter_mut().filter(|word| **word == minus);
        let count = dropped.map(|word| *word = UNLABELLED).count();
        notes.push(format!("rows with the true class -1, which count as unlabelled: {count}"));
    }

    fn check_numbered(&self, predictions: &[String], golds: &[String]) -> Result<()> {
        let mut seen = predictions.iter().chain(golds).peekable();
        if seen.peek().is_none() || seen.any(|name| !self.classes.names.contains(name)) {
            return Err(Error::ScoresWithoutNames { path: self.path.to_owned() });
        }
        Ok(())
    }

    fn check_spelling(&self, own: &[String], golds: &[String]) -> Result<()> {
        for gold in golds.iter().filter(|gold| !own.contains(gold)) {
            let Some(label) = own.iter().find(|label| is_respelt(label, gold)) else { continue };
            let word = self.word_of.get(gold).copied().unwrap_or_default();
            let row = self.gold.iter().position(|other| *other == word).unwrap_or_default();
            let (gold, label) = (gold.clone(), label.clone());
            return Err(Error::GoldCase { at: self.at(row), gold, label });
        }
        Ok(())
    }

    fn check_predictions(&self, predictions: &[String]) -> Result<()> {
        let Some(lost) = predictions.iter().find(|name| !self.classes.names.contains(name)) else {
            return Ok(());
        };
        let word = self.word_of.get(lost).copied().unwrap_or_default();
        let row = self.predicted.iter().position(|other| *other == word).unwrap_or_default();
        Err(Error::PredictedWithoutScore {
            at: self.at(row),
            prediction: lost.clone(),
            known: self.classes.names.clone(),
            suggestion: nearest(lost, self.classes.names.iter().map(String::as_str)),
        })
    }
}

fn check_scores(row: &Row, classes: &[String], at: &dyn Fn() -> At) -> Result<()> {
    let bad = |label: String, found: String, may_be_logit: bool| {
        Err(Error::BadScore { at: at(), label, found, may_be_logit })
    };
    if let Some((label, found)) = &row.bad_score {
        return bad(label.clone(), found.clone(), false);
    }
    if row.scores.len() != classes.len() {
        let (found, expected) = (row.scores.len(), classes.len());
        return Err(Error::ScoreCount { at: at(), found, expected });
    }
    let mut sum = 0.0;
    for (score, label) in row.scores.iter().zip(classes) {
        if score.is_nan() {
            return Err(Error::NoScore { at: at(), label: label.clone() });
        }
        if !(0.0..=1.0 + SUM_TOLERANCE).contains(score) {
            return bad(label.clone(), score.to_string(), score.is_finite());
        }
        sum += score;
    }
    match (sum - 1.0).abs() <= SUM_TOLERANCE {
        true => Ok(()),
        false => Err(Error::ScoreSum { at: at(), sum }),
    }
}

// (N, known) to (N, wide), zeros behind.
fn widened(scores: Vec<f32>, known: usize, wide: usize) -> Vec<f32> {
    if known == wide {
        return scores;
    }
    let mut all = Vec::with_capacity(scores.len() / known * wide);
    for row in scores.chunks_exact(known) {
        all.extend_from_slice(row);
        all.resize(all.len() + wide - known, 0.0);
    }
    all
}
