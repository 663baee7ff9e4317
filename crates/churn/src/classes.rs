//! Rows by their true class: recall of both models, flips, and the classes that are worst off.

use serde::{Deserialize, Serialize};

use crate::{Flips, Pair, PairAnswers, Rate};

/// Rows of one true class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OfClass {
    pub label: String,
    pub flips: Flips,
    pub recall_old: Option<f64>,
    pub recall_new: Option<f64>,
    pub nfr: Option<Rate>,
}

/// The classes that are worst off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorstClasses {
    /// The highest NFR of a class, by name, the first of equals.
    pub nfr: Option<(String, f64)>,
    /// Of how many: 5, where at least ten classes have rows.
    pub k: Option<u64>,
    /// Mean of the k lowest recalls of a model.
    pub mean_recall_old: Option<f64>,
    pub mean_recall_new: Option<f64>,
}

/// Of so many worst classes the mean is told, where there are twice as many at least.
const WORST: usize = 5;

impl WorstClasses {
    /// `None` without a class that has rows.
    pub(crate) fn of(classes: &[OfClass]) -> Option<WorstClasses> {
        let rates = classes.iter().filter_map(|class| Some((&class.label, class.nfr?.value)));
        let highest = rates.reduce(|one, other| if other.1 > one.1 { other } else { one });
        let mean = |recall: fn(&OfClass) -> Option<f64>| {
            let mut all: Vec<f64> = classes.iter().filter_map(recall).collect();
            all.sort_by(f64::total_cmp);
            (all.len() >= 2 * WORST).then(|| all[..WORST].iter().sum::<f64>() / WORST as f64)
        };
        let (old, new) = (mean(|class| class.recall_old), mean(|class| class.recall_new));
        (!classes.is_empty()).then(|| WorstClasses {
            nfr: highest.map(|(label, value)| (label.clone(), value)),
            k: old.or(new).map(|_| WORST as u64),
            mean_recall_old: old,
            mean_recall_new: new,
        })
    }
}

/// The flips of each true class by name, as a budget's limit on classes is judged: `class = NAME`.
pub fn class_flips(classes: &[OfClass]) -> Vec<(String, Flips)> {
    classes.iter().map(|class| (format!("class = {}", class.label), class.flips)).collect()
}

/// [`class_flips`] of a pair.
pub fn class_flips_of(pair: &Pair, confidence: f64) -> Vec<(String, Flips)> {
    class_flips(&classes(pair, confidence))
}

/// One for each class that has rows; none of a regression. Of sets of labels a row counts for each of its labels.
pub(crate) fn classes(pair: &Pair, confidence: f64) -> Vec<OfClass> {
    if let PairAnswers::Sets { names, members } = &pair.answers {
        return labels(pair, names, members, confidence);
    }
    if matches!(pair.answers, PairAnswers::Values { .. }) {
        return Vec::new();
    }
    let mut flips = vec![Flips::default(); pair.labels.len()];
    for ((old, new), gold) in pair.old.iter().zip(&pair.new).zip(&pair.gold) {
        if let Some(gold) = gold {
            flips[*gold as usize].add(*old, *new, Some(*gold));
        }
    }
    let class = |(label, flips): (&String, Flips)| OfClass {
        label: label.clone(),
        recall_old: flips.accuracy_old(),
        recall_new: flips.accuracy_new(),
        nfr: Rate::new(flips.negative, flips.labelled, confidence),
        flips,
    };
    let with_rows = |(_, flips): &(&String, Flips)| flips.rows > 0;
    pair.labels.iter().zip(flips).filter(with_rows).map(class).collect()
}

// Rows that have a label: whether it was said to hold. A row counts for each of its labels.
fn labels(pair: &Pair, names: &[String], members: &[Vec<u32>], confidence: f64) -> Vec<OfClass> {
    let has = |class: u32, label: usize| members[class as usize].contains(&(label as u32));
    let class = |(label, name): (usize, &String)| {
        let mut flips = Flips::default();
        for row in 0..pair.rows() {
            if pair.gold[row].is_some_and(|gold| has(gold, label)) {
                let said = [pair.old[row], pair.new[row]].map(|class| u32::from(has(class, label)));
                flips.add(said[0], said[1], Some(1));
            }
        }
        OfClass {
            label: name.clone(),
            recall_old: flips.accuracy_old(),
            recall_new: flips.accuracy_new(),
            nfr: Rate::new(flips.negative, flips.labelled, confidence),
            flips,
        }
    };
    names.iter().enumerate().map(class).filter(|class| class.flips.rows > 0).collect()
}

/// The lowest recall and its class, the first of equals.
pub(crate) fn worst(
    classes: &[OfClass],
    recall: fn(&OfClass) -> Option<f64>,
) -> Option<(String, f64)> {
    let known = classes.iter().filter_map(|class| recall(class).map(|value| (class, value)));
    let worst = known.min_by(|one, other| one.1.total_cmp(&other.1));
    worst.map(|(class, value)| (class.label.clone(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(label: &str, counts: [u64; 4]) -> OfClass {
        let [both_right, negative, positive, same_wrong] = counts;
        let labelled = counts.iter().sum();
        let flips = Flips {
            rows: labelled,
            changed: negative + positive,
            labelled,
            both_right,
            negative,
            positive,
            lateral: 0,
            same_wrong,
        };
        OfClass {
            label: label.into(),
            recall_old: flips.accuracy_old(),
            recall_new: flips.accuracy_new(),
            nfr: Rate::new(negative, labelled, 0.95),
            flips,
        }
    }

    #[test]
    fn the_worst_are_told() {
        let few = [class("a", [8, 1, 0, 1]), class("b", [5, 2, 1, 2]), class("c", [6, 2, 2, 0])];
        let found = WorstClasses::of(&few).unwrap();
        assert_eq!(found.nfr, Some(("b".into(), 0.2)));
        assert_eq!((found.k, found.mean_recall_old), (None, None));
        assert_eq!(WorstClasses::of(&[]), None);
        // Old recalls 0, 0.1, …, 0.9; new ones all 0.9 or more, by one wrong row of ten.
        let many: Vec<OfClass> = (0..10).map(|n| class(&n.to_string(), [n, 0, 9 - n, 1])).collect();
        let found = WorstClasses::of(&many).unwrap();
        assert_eq!(found.k, Some(5));
        assert!((found.mean_recall_old.unwrap() - 0.2).abs() < 1e-12);
        assert!((found.mean_recall_new.unwrap() - 0.9).abs() < 1e-12);
        assert_eq!(class_flips(&few)[1], ("class = b".into(), few[1].flips));
    }
}
