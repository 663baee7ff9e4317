//! Held-out rows of an update: which may be looked at and which certify, whether they are enough, and the choice by them.

use std::collections::{HashMap, HashSet};

use anyhow::Result;
use lowchurn_churn::{
    Budget, Candidate, Certificate, Measurements, Pair, class_flips_of, column_slices, walk,
};
use lowchurn_data::{Example, Rng};
use lowchurn_distill::{Method, SelectBy};

use crate::chosen;
use crate::console::Console;
use crate::failure::Usage;
use crate::rows;
use crate::steering::is_steered;
use crate::update::Trial;
use crate::updating::Updating;

/// Of held-out rows.
pub const CALIBRATION_SHARE: f64 = 0.3;

/// (N,) which held-out rows may be looked at while choosing. A row's text decides, so that it is on the same side for every verb,
/// seed and method, wherever it stands in its file and whatever was left out before it. Of rows that share a text each is drawn by
/// itself: were they on one side, a frequent text that calibrates could never count against a certificate.
pub fn calibration_rows(rows: &[Example]) -> Vec<bool> {
    let mut streams: HashMap<rows::Text, Rng> = HashMap::new();
    let of_text = |(text, pair): rows::Text| {
        let of_pair = Rng::stream(0, pair, 0).next_u64();
        let of_both = Rng::stream(0, text, of_pair).next_u64();
        Rng::stream(0, "calibration rows", of_both)
    };
    let mut draw = |row| {
        let text = rows::text(row);
        streams.entry(text).or_insert_with(|| of_text(text)).uniform()
    };
    rows.iter().map(|row| draw(row) < CALIBRATION_SHARE).collect()
}

/// Whether calibration rows take part in the update: they order candidates, or steer the training.
pub fn looks_at_rows(updating: &Updating, budget: Option<&Budget>, methods: &[Method]) -> bool {
    budget.is_some()
        || methods.len() > 1
        || is_steered(updating)
        || methods.iter().any(|method| method.needs().buffer)
}

/// Held-out rows that nothing is chosen by.
pub fn certification_rows(updating: &Updating) -> Vec<usize> {
    (0..updating.is_calibration.len()).filter(|&row| !updating.is_calibration[row]).collect()
}

/// What would be known after training too. `is_cut`: they are cut off the new rows.
pub fn refuse_few_rows(
    updating: &Updating,
    budget: Option<&Budget>,
    methods: &[Method],
    is_cut: bool,
    console: &mut Console,
) -> Result<()> {
    let holdout = &updating.rows.holdout;
    let rows = certification_rows(updating);
    let (n, n_certification) = (holdout.examples.len(), rows.len());
    if looks_at_rows(updating, budget, methods) && (n_certification == 0 || n_certification == n) {
        return Err(Usage(format!(
            "{}: {n} held-out rows are too few to be split into some to choose by and some to certify on; hold out more",
            holdout.name
        ))
        .into());
    }
    let Some(budget) = budget else { return Ok(()) };
    // The best that can come: nothing flips.
    let unchanged = Pair {
        old: vec![0; n_certification],
        new: vec![0; n_certification],
        gold: rows.iter().map(|&row| holdout.examples[row].label).collect(),
        ..Pair::default()
    };
    let n_labelled = unchanged.gold.iter().flatten().count() as u64;
    let checked = budget.check_rows(n_certification as u64, n_labelled, 1.0 - CALIBRATION_SHARE);
    checked.map_err(|error| match is_cut {
        true => Usage(format!(
            "{error}; --holdout DATA names others, --holdout-fraction cuts more of the new ones"
        )),
        false => Usage(error.to_string()),
    })?;
    if let Some(remark) = budget.remark_rows(n_labelled) {
        console.say(&remark);
    }
    let slices = column_slices(&unchanged, &rows_of(&updating.rows.holdout_columns, &rows));
    let labelled = slices.into_iter().map(|(name, flips)| (name, flips.labelled));
    budget.check_slices(&labelled.collect::<Vec<_>>())?;
    let names = holdout.labels.names();
    let of_class = |class: usize| {
        let is_its = |row: &&usize| {
            let row = &holdout.examples[**row];
            row.classes()
                .or(row.label.map(|label| vec![label]))
                .is_some_and(|all| all.contains(&(class as u32)))
        };
        (format!("class = {}", names[class]), rows.iter().filter(is_its).count() as u64)
    };
    Ok(budget.check_classes(&(0..names.len()).map(of_class).collect::<Vec<_>>())?)
}

/// With a budget the walk's choice, or where nothing is certified the safest; without one the best of the trained models on
/// calibration rows, the first of equals. The best is the most accurate, or with --select-by worst_class the one whose worst class
/// is.
pub fn choose(
    updating: &Updating,
    trials: &[Trial],
    budget: Option<&Budget>,
) -> Result<(usize, Option<Certificate>)> {
    let part = |trial: &Trial, is_wanted: bool| {
        let rows: Vec<u32> = (0..trial.pair.ids.len() as u32)
            .filter(|&row| updating.is_calibration[row as usize] == is_wanted)
            .collect();
        trial.pair.subset(&rows)
    };
    let flips = Pair::flips;
    let of_worst = updating.layers.settings.select_by == Some(SelectBy::WorstClass);
    let merit = |trial: &Trial| match of_worst {
        true => worst_recall(&part(trial, true)),
        false => flips(&part(trial, true)).accuracy_new(),
    };
    let Some(budget) = budget else {
        let merits: Vec<f64> = trials.iter().map(|trial| merit(trial).unwrap_or(0.0)).collect();
        let better = |a: &usize, b: &usize| merits[*a].total_cmp(&merits[*b]);
        let best = (0..trials.len()).rev().max_by(better); // of equals the last that is met
        return Ok((best.unwrap_or(0), None));
    };
    let certifying: Vec<usize> = certification_rows(updating);
    let looked_at: Vec<usize> =
        (0..updating.is_calibration.len()).filter(|&row| updating.is_calibration[row]).collect();
    let columns = &updating.rows.holdout_columns;
    let (columns, columns_looked_at) =
        (rows_of(columns, &certifying), rows_of(columns, &looked_at));
    let examples = &updating.rows.holdout.examples;
    let ids: HashSet<&str> = certifying.iter().map(|&row| &examples[row].id[..]).collect();
    let candidates: Vec<Candidate> = trials
        .iter()
        .map(|trial| {
            let measured = |rows: &Pair, columns: &Columns, golden| Measurements {
                all: rows.flips(),
                slices: column_slices(rows, columns),
                classes: class_flips_of(rows, budget.confidence),
                golden,
            };
            let golden = &trial.golden;
            Candidate {
                name: trial.name.clone(),
                calibration: measured(&part(trial, true), &columns_looked_at, golden.but(&ids)),
                certification: measured(&part(trial, false), &columns, golden.clone()),
                merit: merit(trial),
            }
        })
        .collect();
    let (chosen, mut certificate) = walk(&candidates, budget)?;
    if of_worst && candidates.len() > 1 {
        let said = "of the models that pass, the one is chosen whose worst class is most often right on calibration rows";
        certificate.notes.push(said.into());
    }
    let certifying = certifying.into_iter().map(|row| &examples[row]);
    certificate.notes.extend(chosen::said_of_repeats(certifying));
    certificate.notes.extend(updating.rows.unknown.iter().cloned());
    let safest = certificate.walked.first().map(|step| step.name.clone());
    let chosen =
        chosen.or_else(|| trials.iter().position(|trial| Some(&trial.name) == safest.as_ref()));
    Ok((chosen.unwrap_or(0), Some(certificate)))
}

/// The lowest share of a class's rows that the new model is right on; `None` where no row has a label.
fn worst_recall(pair: &Pair) -> Option<f64> {
    let mut counts = vec![(0u32, 0u32); pair.labels.len()];
    for (new, gold) in pair.new.iter().zip(&pair.gold) {
        let Some(gold) = gold else { continue };
        if let Some((right, all)) = counts.get_mut(*gold as usize) {
            *right += u32::from(new == gold);
            *all += 1;
        }
    }
    let met = counts.into_iter().filter(|(_, all)| *all > 0);
    met.map(|(right, all)| f64::from(right) / f64::from(all)).min_by(f64::total_cmp)
}

/// By name, a value a row.
type Columns = Vec<(String, Vec<String>)>;

/// Columns cut to some rows.
pub fn rows_of(columns: &[(String, Vec<String>)], rows: &[usize]) -> Columns {
    let cut = |values: &Vec<String>| rows.iter().map(|&row| values[row].clone()).collect();
    columns.iter().map(|(column, values)| (column.clone(), cut(values))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(n: usize) -> Vec<Example> {
        let row = |row: usize| Example {
            id: row.to_string(),
            text: format!("text {row}"),
            pair: None,
            label: None,
            target: None,
        };
        (0..n).map(row).collect()
    }

    /// What is left out before a row, and what it is called, doesn't move it to the other side.
    #[test]
    fn a_row_calibrates_by_its_text_alone() {
        let rows = rows(10_000);
        let all = calibration_rows(&rows);
        let n = all.iter().filter(|is| **is).count() as f64;
        // Binomial: a standard deviation is 46 rows.
        assert!((n - 3000.0).abs() < 4.0 * 46.0, "{n}");
        assert_eq!(calibration_rows(&rows[17..]), all[17..]);
        let renamed = Example { id: "other".into(), ..rows[5].clone() };
        assert_eq!(calibration_rows(&[renamed])[0], all[5]);
        // The second text counts, or all rows about one premise would be on one side.
        let pairs = rows.iter().map(|row| Example {
            text: "one".into(),
            pair: Some(row.text.clone()),
            ..row.clone()
        });
        let pairs = calibration_rows(&pairs.collect::<Vec<_>>());
        assert!(pairs.contains(&true) && pairs.contains(&false) && pairs != all);
    }

    #[test]
    fn the_worst_class_is_of_those_that_have_a_row() {
        let pair = |gold: &[Option<u32>]| Pair {
            labels: ["a", "b", "c"].map(String::from).to_vec(),
            new: vec![0, 1, 1, 0, 0],
            gold: gold.to_vec(),
            ..Pair::default()
        };
        let some = [Some(0), Some(1), Some(1), Some(1), None];
        assert_eq!(worst_recall(&pair(&some)), Some(2.0 / 3.0));
        assert_eq!(worst_recall(&pair(&[None; 5])), None);
    }

    /// A text that half of the traffic consists of is half of both parts.
    #[test]
    fn a_frequent_text_is_on_both_sides() {
        let mut rows = rows(4000);
        for row in rows.iter_mut().step_by(2) {
            row.text = "cancel my order".into();
        }
        let all = calibration_rows(&rows);
        let share = |wanted: bool| {
            let part = rows.iter().zip(&all).filter(|(_, is)| **is == wanted);
            let frequent: Vec<bool> = part.map(|(row, _)| row.text.starts_with("cancel")).collect();
            frequent.iter().filter(|is| **is).count() as f64 / frequent.len() as f64
        };
        // Binomial: standard deviations of 0.014 among 1,200 rows and 0.009 among 2,800.
        assert!((share(true) - 0.5).abs() < 0.056, "{}", share(true));
        assert!((share(false) - 0.5).abs() < 0.038, "{}", share(false));
    }
}
