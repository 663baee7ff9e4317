//! A seeded cut of one split into a training and an evaluation part with the same balance of classes.
//!
//! Rows with the same text always stay on the same side, so that the cut itself leaks nothing. Unlabelled rows stay in
//! training. Refuses a fraction outside (0, 1) and a cut that leaves a side without rows.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::example::{Example, Split};
use crate::rng::Rng;

/// (train, eval): about `fraction` of each class's rows go to eval, rows keep their order and ids.
///
/// Which rows depends on the order of the label set: who cuts the same rows again does so before they are brought to another
/// model's order.
pub fn stratified_cut(split: &Split, fraction: f64, seed: u64) -> Result<(Split, Split)> {
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(Error::BadFraction { fraction });
    }
    let mut to_eval = vec![false; split.examples.len()];
    for (class, groups) in groups_by_class(&split.examples, split.labels.len()).iter().enumerate() {
        let rows: usize = groups.iter().map(Vec::len).sum();
        let mut left = (fraction * rows as f64).round() as usize;
        let mut order: Vec<u32> = (0..groups.len() as u32).collect();
        Rng::stream(seed, "stratified cut", class as u64).shuffle(&mut order);
        for group in order.iter().map(|at| &groups[*at as usize]) {
            // A group that doesn't fit any more is passed over; smaller ones may follow.
            if group.len() <= left {
                left -= group.len();
                group.iter().for_each(|row| to_eval[*row] = true);
            }
        }
    }
    let side = |wanted: bool| -> Vec<Example> {
        split
            .examples
            .iter()
            .zip(&to_eval)
            .filter(|(_, eval)| **eval == wanted)
            .map(|(row, _)| row.clone())
            .collect()
    };
    let (train, eval) = (side(false), side(true));
    if train.is_empty() || eval.is_empty() {
        let rows = split.examples.iter().filter(|row| row.label.is_some()).count();
        return Err(Error::CutTooSmall { fraction, rows });
    }
    let part = |kind: &str, rows| {
        Split::new(&format!("{} ({kind} part)", split.name), rows, split.labels.clone())
    };
    Ok((part("train", train), part("eval", eval)))
}

// For each class the groups of rows with one text; a group counts for the class of its first labelled row.
fn groups_by_class(examples: &[Example], classes: usize) -> Vec<Vec<Vec<usize>>> {
    let mut group_of: HashMap<(&str, &str), usize> = HashMap::new();
    let mut groups: Vec<(Option<u32>, Vec<usize>)> = Vec::new();
    for (row, example) in examples.iter().enumerate() {
        let key = (example.text.trim(), example.pair.as_deref().unwrap_or("").trim());
        let group = *group_of.entry(key).or_insert_with(|| {
            groups.push((None, Vec::new()));
            groups.len() - 1
        });
        groups[group].0 = groups[group].0.or(example.label);
        groups[group].1.push(row);
    }
    let mut by_class = vec![Vec::new(); classes];
    for (label, rows) in groups {
        if let Some(label) = label {
            by_class[label as usize].push(rows);
        }
    }
    by_class
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example::LabelSet;

    fn split(rows: impl Iterator<Item = (String, Option<u32>)>) -> Split {
        let labels = LabelSet::new(vec!["a".to_owned(), "b".to_owned()]).unwrap();
        let example = |(at, (text, label))| Example {
            id: format!("train-{at}"),
            text,
            pair: None,
            label,
            target: None,
        };
        Split::new("train", rows.enumerate().map(example).collect(), labels)
    }

    #[test]
    fn balance_and_repeats_are_kept() {
        // 900 rows of a, 90 of b, 10 unlabelled; each tenth text is the one before it again.
        let whole = split((0..1000).map(|row| {
            let text = format!("text {}", if row % 10 == 1 { row - 1 } else { row });
            (
                text,
                if row < 900 {
                    Some(0)
                } else if row < 990 {
                    Some(1)
                } else {
                    None
                },
            )
        }));
        let (train, eval) = stratified_cut(&whole, 0.1, 7).unwrap();
        let count =
            |split: &Split, label| split.examples.iter().filter(|row| row.label == label).count();
        assert_eq!((count(&eval, Some(0)), count(&eval, Some(1)), count(&eval, None)), (90, 9, 0));
        assert_eq!(train.examples.len() + eval.examples.len(), 1000);
        let eval_texts: std::collections::HashSet<&str> =
            eval.examples.iter().map(|row| row.text.as_str()).collect();
        assert!(train.examples.iter().all(|row| !eval_texts.contains(row.text.as_str())));
        let again = stratified_cut(&whole, 0.1, 7).unwrap();
        assert_eq!(again.1.sha256, eval.sha256);
        assert_ne!(stratified_cut(&whole, 0.1, 8).unwrap().1.sha256, eval.sha256);
        assert_eq!(
            (train.name.as_str(), eval.name.as_str()),
            ("train (train part)", "train (eval part)")
        );
    }

    #[test]
    fn bad_cuts() {
        let four = split((0..4).map(|row| (row.to_string(), Some(row % 2))));
        let check = |fraction: f64, message: &str| {
            assert_eq!(stratified_cut(&four, fraction, 1).unwrap_err().to_string(), message);
        };
        check(0.0, "a held-out fraction of 0 isn't between 0 and 1");
        check(1.5, "a held-out fraction of 1.5 isn't between 0 and 1");
        check(f64::NAN, "a held-out fraction of NaN isn't between 0 and 1");
        check(
            0.01,
            "a cut of 0.01 of 4 labelled rows leaves one side empty; name an evaluation split or another fraction",
        );
    }
}
