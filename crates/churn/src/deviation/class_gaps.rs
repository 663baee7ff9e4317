//! Whether a teacher's scores of each class are right: the normalised calibration error that bounds what a robust student loses
//! by learning from them (Wang et al. 2023, "Robust distillation for worst-class performance"; papers.md §7.6).

use lowchurn_data::Rng;
use serde::{Deserialize, Serialize};

use crate::format::{number, rows};
use crate::{Interval, Pair};

/// The errors of all classes of a teacher, over the rows with a true class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassGaps {
    pub classes: Vec<ClassGap>,
    /// The class with the largest error, and that error.
    pub worst: String,
    pub gap: f64,
    /// Where the largest error would lie if the scores were right: over labels drawn from the scores themselves.
    pub by_chance: Interval,
    /// In words.
    pub said: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassGap {
    pub label: String,
    /// Rows of this true class.
    pub rows: u64,
    /// The teacher's mean score of it.
    pub mean_score: f64,
    /// `None` for a class that no row is of, or that the teacher never scores.
    pub gap: Option<f64>,
    /// The mean over labels drawn from the scores.
    pub by_chance: Option<f64>,
}

/// Of scores, equal in width; few classes have rows for more.
const BINS: usize = 15;
const DRAWS: usize = 400;

/// Σ_b |n_b/n − s_b/s| for the true rows n_b and the sums of scores s_b of one class in bins b: how far its scores, over their own
/// mean, are from the truth's, E_x |η_y/π_y − p_y/π^t_y| where η and p are those of a bin. From 0 to 2; `None` where either sums to 0.
pub fn class_gap(rows: &[f64], scores: &[f64]) -> Option<f64> {
    let (n, s) = (rows.iter().sum::<f64>(), scores.iter().sum::<f64>());
    let distance = rows.iter().zip(scores).map(|(of, told)| (of / n - told / s).abs()).sum();
    (n > 0.0 && s > 0.0).then_some(distance)
}

/// Of the old side, the teacher. `None` without scores, without a true class, or where no class has an error.
///
/// Scores that are right have an error too, the larger the fewer rows a class has, so the largest one is set against those of
/// labels drawn from the scores. A bin's mean hides what differs inside it: a small error is no proof.
pub(super) fn class_gaps(pair: &Pair, confidence: f64) -> Option<ClassGaps> {
    let k = pair.labels.len();
    let scores = pair.old_scores.as_ref()?;
    let judged: Vec<(&[f32], usize)> = scores
        .chunks_exact(k)
        .zip(&pair.gold)
        .filter_map(|(row, gold)| Some((row, (*gold)? as usize)))
        .collect();
    let bin = |score: f32| ((score * BINS as f32) as usize).min(BINS - 1);
    let mut told = vec![[0.0; BINS]; k];
    for (row, _) in &judged {
        row.iter().enumerate().for_each(|(class, p)| told[class][bin(*p)] += f64::from(*p));
    }
    let gaps = |label_of: &mut dyn FnMut(&[f32], usize) -> usize| -> Vec<Option<f64>> {
        let mut of = vec![[0.0; BINS]; k];
        for (row, gold) in &judged {
            let class = label_of(row, *gold);
            of[class][bin(row[class])] += 1.0;
        }
        of.iter().zip(&told).map(|(of, told)| class_gap(of, told)).collect()
    };
    let found = gaps(&mut |_, gold| gold);
    let (at, gap) = largest(&found)?;

    let mut rng = Rng::stream(0, "class gaps", 0);
    let draws: Vec<Vec<Option<f64>>> =
        (0..DRAWS).map(|_| gaps(&mut |row, _| draw(row, &mut rng))).collect();
    let mut highest: Vec<f64> = draws.iter().filter_map(|draw| Some(largest(draw)?.1)).collect();
    highest.sort_by(f64::total_cmp);
    let end = |share: f64| {
        highest.get((share * highest.len().saturating_sub(1) as f64).round() as usize).copied()
    };
    let by_chance = Interval {
        low: end((1.0 - confidence) / 2.0)?,
        high: end((1.0 + confidence) / 2.0)?,
        confidence,
    };
    let classes = pair.labels.iter().enumerate().map(|(class, label)| {
        let drawn: Vec<f64> = draws.iter().filter_map(|draw| draw[class]).collect();
        ClassGap {
            label: label.clone(),
            rows: judged.iter().filter(|(_, gold)| *gold == class).count() as u64,
            mean_score: told[class].iter().sum::<f64>() / judged.len() as f64,
            gap: found[class],
            by_chance: (!drawn.is_empty()).then(|| drawn.iter().sum::<f64>() / drawn.len() as f64),
        }
    });
    let classes: Vec<ClassGap> = classes.collect();
    let said = said(&classes[at], gap, &by_chance);
    Some(ClassGaps { worst: pair.labels[at].clone(), gap, by_chance, said, classes })
}

fn largest(gaps: &[Option<f64>]) -> Option<(usize, f64)> {
    let known = gaps.iter().enumerate().filter_map(|(class, gap)| Some((class, (*gap)?)));
    known.reduce(|top, next| if next.1 > top.1 { next } else { top })
}

/// A class drawn from its scores; the last one with a score takes what rounding leaves.
fn draw(scores: &[f32], rng: &mut Rng) -> usize {
    let total: f64 = scores.iter().map(|p| f64::from(*p)).sum();
    let mut left = rng.uniform() * total;
    let mut last = 0;
    for (class, p) in scores.iter().enumerate().filter(|(_, p)| **p > 0.0) {
        left -= f64::from(*p);
        last = class;
        if left < 0.0 {
            break;
        }
    }
    last
}

fn said(worst: &ClassGap, gap: f64, by_chance: &Interval) -> String {
    let start = format!(
        "the teacher's scores are furthest off for {} ({}): normalised calibration error {}",
        worst.label,
        rows(worst.rows),
        number(Some(gap)),
    );
    let chance = format!("{} to {}", number(Some(by_chance.low)), number(Some(by_chance.high)));
    if gap > by_chance.high {
        format!(
            "{start}, more than scores that are right would have ({chance}); a robust student learns that error, so train the teacher \
             on more rows of this class, or with --objective balanced"
        )
    } else {
        format!("{start}, no more than scores that are right would have ({chance})")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Rows with these scores; a true class of K or more is none.
    fn pair(labels: &[&str], scores: &[f32], gold: &[u32]) -> Pair {
        let k = labels.len();
        Pair {
            labels: labels.iter().map(|label| label.to_string()).collect(),
            n_old_classes: k,
            gold: gold.iter().map(|gold| ((*gold as usize) < k).then_some(*gold)).collect(),
            old_scores: Some(scores.to_vec()),
            ..Pair::default()
        }
    }

    /// Three classes, the last one rare, and labels that are drawn from the scores.
    fn drawn(rows: usize, seed: u64) -> (Vec<f32>, Vec<u32>) {
        let mut rng = Rng::stream(seed, "class gaps of a test", 0);
        let scores: Vec<f32> = (0..rows)
            .flat_map(|_| {
                let rare = 0.2 * rng.uniform();
                let first = (1.0 - rare) * rng.uniform();
                [first, 1.0 - rare - first, rare].map(|p| p as f32)
            })
            .collect();
        let gold = scores.chunks_exact(3).map(|row| draw(row, &mut rng) as u32).collect();
        (scores, gold)
    }

    /// papers_examples.json, E9: two cells of rows, whose truth and scores are given.
    #[test]
    fn gaps_are_those_of_the_papers() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/papers_examples.json");
        let all: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let case = &all["E9_teacher_calibration_gap"];
        let of = |key: &str, class: usize| {
            [(0, 0.6), (1, 0.4)].map(|(cell, mass)| mass * case[key][cell][class].as_f64().unwrap())
        };
        for class in 0..3 {
            let found = class_gap(&of("eta", class), &of("teacher", class)).unwrap();
            let expected = case["per_class"][class].as_f64().unwrap();
            assert!((found - expected).abs() < 1e-8, "{class}: {found} {expected}");
        }
        assert_eq!(class_gap(&[1.0, 3.0], &[0.5, 1.5]), Some(0.0));
        assert_eq!(class_gap(&[0.0, 3.0], &[0.5, 0.0]), Some(2.0));
        assert_eq!((class_gap(&[0.0], &[0.5]), class_gap(&[1.0], &[0.0])), (None, None));
    }

    /// Scores that are right are said to be off in 1 of 40 sets of rows: the interval's upper end is at 97.5 %.
    #[test]
    fn scores_that_are_right_are_rarely_called_off() {
        let (mut off, sets) = (0, 400);
        for seed in 0..sets {
            let (scores, gold) = drawn(150, seed);
            let found = class_gaps(&pair(&["a", "b", "rare"], &scores, &gold), 0.95).unwrap();
            off += u32::from(found.gap > found.by_chance.high);
        }
        // Ten are expected; 20 or more have a probability of 0.003 by the binomial.
        assert!((1..20).contains(&off), "{off} of {sets}");
    }

    #[test]
    fn a_class_whose_scores_are_off_is_named_unless_bins_hide_it() {
        let (mut scores, gold) = drawn(3000, 7);
        let right = class_gaps(&pair(&["a", "b", "rare"], &scores, &gold), 0.95).unwrap();
        assert!(right.said.contains("no more than scores that are right would have"), "{right:?}");
        for row in scores.chunks_exact_mut(3) {
            let even = (row[0] + row[1]) / 2.0;
            (row[0], row[1]) = (even, even);
        }
        let off = class_gaps(&pair(&["a", "b", "rare"], &scores, &gold), 0.95).unwrap();
        // All in one bin or two: the bins hide it. What a sharper teacher does is seen.
        assert!(off.gap < off.by_chance.high, "{off:?}");
        for (row, gold) in scores.chunks_exact_mut(3).zip(&gold) {
            row.copy_from_slice(if *gold == 2 { &[0.5, 0.49, 0.01] } else { &[0.45, 0.45, 0.1] });
        }
        let off = class_gaps(&pair(&["a", "b", "rare"], &scores, &gold), 0.95).unwrap();
        assert_eq!(off.worst, "rare");
        assert!(off.gap > 1.5 && off.gap > off.by_chance.high);
        let rows = off.classes[2].rows;
        assert!(
            off.said.starts_with(&format!(
                "the teacher's scores are furthest off for rare ({rows} rows): normalised calibration error {:.3}, more than",
                off.gap
            )),
            "{}",
            off.said
        );
        assert!(off.said.ends_with("or with --objective balanced"), "{}", off.said);
    }

    #[test]
    fn where_nothing_is_known_nothing_is_said() {
        let labels = ["a", "b", "never"];
        let scores = [0.5, 0.5, 0.0, 0.25, 0.75, 0.0];
        let found = class_gaps(&pair(&labels, &scores, &[0, 1]), 0.95).unwrap();
        assert_eq!((found.classes[2].gap, found.classes[2].by_chance), (None, None));
        assert_eq!((found.classes[0].rows, found.classes[0].mean_score), (1, 0.375));
        assert_eq!(class_gaps(&pair(&labels, &scores, &[9, 9]), 0.95), None);
        let silent = Pair { old_scores: None, ..pair(&labels, &scores, &[0, 1]) };
        assert_eq!(class_gaps(&silent, 0.95), None);
    }
}
