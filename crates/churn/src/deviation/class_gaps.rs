//! Whether a teacher's scores of each class are right: an estimate, from rows and their true classes, of the normalised calibration
//! error in the bound on what a robust student loses by learning from them (Wang et al. 2023, "Robust distillation for worst-class
//! performance"; papers.md §7.6).

use lowchurn_data::Rng;
use serde::{Deserialize, Serialize};

use crate::Pair;
use crate::format::{number, p_value, rows};

/// The errors of all classes of a teacher, over the rows with a true class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassGaps {
    pub classes: Vec<ClassGap>,
    /// The class whose error is furthest above what chance gives, in standard deviations of chance.
    pub worst: String,
    pub gap: f64,
    pub by_chance: f64,
    /// That any class would be as far above, if every class's scores were right but for a factor.
    pub p: f64,
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
    /// The mean of as many rows drawn by their scores.
    pub by_chance: Option<f64>,
}

/// Of scores, equal in width; few classes have rows for more.
const BINS: usize = 15;
const DRAWS: usize = 399;

/// Σ_b |n_b/n − s_b/s| for the true rows n_b and the sums of scores s_b of one class in bins b: how far its scores, over their own
/// mean, are from the truth's, E_x |η_y/π_y − p_y/π^t_y| where η and p are those of a bin. From 0 to 2; `None` where either sums to 0.
fn class_gap(rows: &[f64], scores: &[f64]) -> Option<f64> {
    let (n, s) = (rows.iter().sum::<f64>(), scores.iter().sum::<f64>());
    let distance = rows.iter().zip(scores).map(|(of, told)| (of / n - told / s).abs()).sum();
    (n > 0.0 && s > 0.0).then_some(distance)
}

/// Of the old side, the teacher. `None` without scores, without a true class, or where no class has an error.
///
/// Scores that are right have an error too, the larger the fewer rows a class has. So each is set against that of as many rows
/// drawn in proportion to the class's scores, where η_y/π_y = p_y/π^t_y. What differs inside a bin is hidden: the estimate is one from
/// below but for its noise, and a small error is no proof.
pub(super) fn class_gaps(pair: &Pair, confidence: f64) -> Option<ClassGaps> {
    let k = pair.labels.len();
    let bin = |score: f32| ((score * BINS as f32) as usize).min(BINS - 1);
    let (mut judged, mut of, mut told) = (0, vec![[0.0; BINS]; k], vec![[0.0; BINS]; k]);
    for (row, gold) in pair.old_scores.as_ref()?.chunks_exact(k).zip(&pair.gold) {
        let Some(gold) = gold.map(|gold| gold as usize) else { continue };
        judged += 1;
        of[gold][bin(row[gold])] += 1.0;
        row.iter().enumerate().for_each(|(class, p)| told[class][bin(*p)] += f64::from(*p));
    }
    let mut rng = Rng::stream(0, "class gaps", 0);
    let drawn: Vec<Option<Drawn>> =
        of.iter().zip(&told).map(|(of, told)| Drawn::of(of, told, &mut rng)).collect();
    let above = |at: usize| drawn.iter().flatten().map(|of| of.above[at]).fold(f64::MIN, f64::max);
    let (worst, found) =
        drawn.iter().enumerate().filter_map(|(class, of)| Some((class, of.as_ref()?))).reduce(
            |top, next| if next.1.above[DRAWS] > top.1.above[DRAWS] { next } else { top },
        )?;
    let as_far = (0..=DRAWS).filter(|at| above(*at) >= found.above[DRAWS]).count();
    let p = as_far as f64 / (DRAWS + 1) as f64;

    let classes = pair.labels.iter().enumerate().map(|(class, label)| ClassGap {
        label: label.clone(),
        rows: of[class].iter().sum::<f64>() as u64,
        mean_score: told[class].iter().sum::<f64>() / f64::from(judged),
        gap: drawn[class].as_ref().map(|of| of.gap),
        by_chance: drawn[class].as_ref().map(|of| of.by_chance),
    });
    let classes: Vec<ClassGap> = classes.collect();
    let said = said(&classes[worst], found, p, confidence);
    let (gap, by_chance) = (found.gap, found.by_chance);
    Some(ClassGaps { worst: pair.labels[worst].clone(), gap, by_chance, p, said, classes })
}

/// The error of a class, and those of rows that its scores are right for but for a factor.
struct Drawn {
    gap: f64,
    by_chance: f64,
    /// In standard deviations over the mean of the draws: each draw, and the class itself as the last.
    above: Vec<f64>,
}

impl Drawn {
    fn of(rows: &[f64], scores: &[f64], rng: &mut Rng) -> Option<Drawn> {
        let gap = class_gap(rows, scores)?;
        let n = rows.iter().sum::<f64>() as usize;
        let mut gaps: Vec<f64> = (0..DRAWS)
            .filter_map(|_| {
                let mut drawn = [0.0; BINS];
                (0..n).for_each(|_| drawn[draw(scores, rng)] += 1.0);
                class_gap(&drawn, scores)
            })
            .collect();
        let by_chance = gaps.iter().sum::<f64>() / DRAWS as f64;
        let squares = gaps.iter().map(|gap| (gap - by_chance).powi(2)).sum::<f64>();
        let deviation = (squares / (DRAWS - 1) as f64).sqrt();
        gaps.push(gap);
        // All scores in one bin leave nothing to chance, and no error.
        let above = gaps.iter().map(|gap| (gap - by_chance) / deviation.max(1e-12)).collect();
        Some(Drawn { gap, by_chance, above })
    }
}

/// A place drawn by its share; the last one with a share takes what rounding leaves.
fn draw(shares: &[f64], rng: &mut Rng) -> usize {
    let mut left = rng.uniform() * shares.iter().sum::<f64>();
    let mut last = 0;
    for (at, share) in shares.iter().enumerate().filter(|(_, share)| **share > 0.0) {
        left -= share;
        last = at;
        if left < 0.0 {
            break;
        }
    }
    last
}

fn said(worst: &ClassGap, found: &Drawn, p: f64, confidence: f64) -> String {
    let of = format!(
        "{} ({}): normalised calibration error {}, by chance {}, p {}",
        worst.label,
        rows(worst.rows),
        number(Some(found.gap)),
        number(Some(found.by_chance)),
        p_value(p),
    );
    if p <= 1.0 - confidence {
        format!(
            "the teacher's scores are furthest off for {of}; a robust student learns that error, so give the teacher more rows of this \
             class"
        )
    } else {
        format!("no class's scores are off by more than chance makes; furthest is {of}")
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

    const NAMES: [&str; 3] = ["a", "b", "rare"];

    /// Three classes, the last one rare, and labels that are drawn from the scores.
    fn drawn(rows: usize, seed: u64) -> (Vec<f32>, Vec<u32>) {
        let mut rng = Rng::stream(seed, "class gaps of a test", 0);
        let (mut scores, mut gold) = (Vec::new(), Vec::new());
        for _ in 0..rows {
            let rare = 0.2 * rng.uniform();
            let first = (1.0 - rare) * rng.uniform();
            let row = [first, 1.0 - rare - first, rare];
            gold.push(draw(&row, &mut rng) as u32);
            scores.extend(row.map(|p| p as f32));
        }
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

    /// Scores that are right, or too high by one factor for a class, are called off in one set of rows of twenty. 400 sets make 20;
    /// less than 7 or more than 36 have a probability below 0.001 by the binomial.
    #[test]
    fn scores_that_are_right_are_rarely_called_off() {
        for factor in [1.0, 4.0] {
            let off = (0..400).filter(|seed| {
                let (mut scores, gold) = drawn(150, *seed);
                scores.iter_mut().skip(2).step_by(3).for_each(|p| *p *= factor);
                class_gaps(&pair(&NAMES, &scores, &gold), 0.95).unwrap().p <= 0.05
            });
            let off = off.count();
            assert!((7..=36).contains(&off), "factor {factor}: {off} of 400");
        }
    }

    #[test]
    fn a_class_whose_scores_are_off_is_named_unless_bins_hide_it() {
        let (mut scores, gold) = drawn(3000, 7);
        let right = class_gaps(&pair(&NAMES, &scores, &gold), 0.95).unwrap();
        let words = "no class's scores are off by more than chance makes; furthest is ";
        assert!(right.said.starts_with(words) && right.p > 0.05, "{right:?}");
        // Half of what the two share each: nearly all in one bin, whose mean is right.
        for row in scores.chunks_exact_mut(3) {
            let even = (row[0] + row[1]) / 2.0;
            (row[0], row[1]) = (even, even);
        }
        let hidden = class_gaps(&pair(&NAMES, &scores, &gold), 0.95).unwrap();
        assert!(hidden.p > 0.05, "{hidden:?}");
        for (row, gold) in scores.chunks_exact_mut(3).zip(&gold) {
            row.copy_from_slice(if *gold == 2 { &[0.5, 0.49, 0.01] } else { &[0.45, 0.45, 0.1] });
        }
        let off = class_gaps(&pair(&NAMES, &scores, &gold), 0.95).unwrap();
        assert_eq!((off.worst.as_str(), off.p), ("rare", 0.0025));
        // 1 − s_0/s in the lower bin and as much in the other.
        let of = |gold: f64, other: f64| 2.0 * (1.0 - gold / (gold + other));
        let (n, rest) = (off.classes[2].rows as f64, 3000.0 - off.classes[2].rows as f64);
        assert!((off.gap - of(0.01 * n, 0.1 * rest)).abs() < 1e-6, "{}", off.gap);
        let words = format!(
            "the teacher's scores are furthest off for rare ({n} rows): normalised calibration error {:.3}, by chance {:.3}, p 0.0025; a \
             robust student learns that error, so give the teacher more rows of this class",
            off.gap, off.by_chance
        );
        assert_eq!(off.said, words);
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
        // All rows in one bin: no error, and nothing that chance could make.
        let even = class_gaps(&pair(&["a", "b"], &[0.5; 8], &[0, 0, 0, 1]), 0.95).unwrap();
        assert_eq!((even.gap, even.p), (0.0, 1.0));
    }
}
