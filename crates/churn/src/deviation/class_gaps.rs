//! Whether a teacher's scores of each class are right: an estimate, from rows and their true classes, of the normalised calibration
//! error in the bound on what a robust student loses by learning from them (Wang et al. 2022, "Robust distillation for worst-class
//! performance"; papers.md §7.6).

use lowchurn_data::Rng;
use serde::{Deserialize, Serialize};

use crate::Pair;
use crate::format::{NONE, number, p_value, rows};

/// The errors of all classes of a teacher, over the rows with a true class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassGaps {
    pub classes: Vec<ClassGap>,
    /// Of the classes whose error is more than chance the one with the largest; without one, that with the lowest p.
    pub worst: String,
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
    /// The mean over true classes that are drawn from the scores.
    pub by_chance: Option<f64>,
    /// That any class would be as far above by chance, in standard deviations of chance, if every class's scores were right but for a
    /// factor.
    pub p: Option<f64>,
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

type Bins = [f64; BINS];

fn bin(score: f32) -> usize {
    ((score * BINS as f32) as usize).min(BINS - 1)
}

/// Of the old side, the teacher. `None` without scores, without a true class, or where no class has an error.
///
/// Scores that are right have an error too, the larger the fewer rows a class has. So each is set against those of true classes that
/// are drawn from the scores, each class's times π_y/π^t_y, so that η_y/π_y = p_y/π^t_y. What differs inside a bin is hidden: the
/// estimate is one from below but for its noise, and a small error is no proof. Costs N·[`DRAWS`] draws.
pub(super) fn class_gaps(pair: &Pair, confidence: f64) -> Option<ClassGaps> {
    let k = pair.labels.len();
    let judged: Vec<(&[f32], usize)> = pair
        .old_scores
        .as_ref()?
        .chunks_exact(k)
        .zip(&pair.gold)
        .filter_map(|(row, gold)| Some((row, (*gold)? as usize)))
        .collect();
    let (mut of, mut told) = (vec![[0.0; BINS]; k], vec![[0.0; BINS]; k]);
    for (row, gold) in &judged {
        of[*gold][bin(row[*gold])] += 1.0;
        row.iter().enumerate().for_each(|(class, p)| told[class][bin(*p)] += f64::from(*p));
    }
    let sum = |bins: &Bins| bins.iter().sum::<f64>();
    let factors: Vec<f64> = of
        .iter()
        .zip(&told)
        .map(|(of, told)| if sum(told) > 0.0 { sum(of) / sum(told) } else { 0.0 })
        .collect();

    let mut drawn = by_chance(&judged, &factors);
    drawn.push(of); // the rows as they are, as the last
    let found: Vec<Option<Found>> = (0..k)
        .map(|class| Found::of(drawn.iter().map(|draw| class_gap(&draw[class], &told[class]))))
        .collect();
    let highest: Vec<f64> = (0..DRAWS)
        .map(|at| {
            let above = found.iter().flatten().filter_map(|of| of.above[at]);
            above.fold(f64::MIN, f64::max)
        })
        .collect();
    let p_of = |above: f64| {
        let as_far = highest.iter().filter(|highest| **highest >= above).count();
        (as_far + 1) as f64 / (DRAWS + 1) as f64
    };
    let classes = pair.labels.iter().enumerate().map(|(class, label)| ClassGap {
        label: label.clone(),
        rows: sum(&drawn[DRAWS][class]) as u64,
        mean_score: sum(&told[class]) / judged.len() as f64,
        gap: found[class].as_ref().map(|of| of.gap),
        by_chance: found[class].as_ref().map(|of| of.by_chance),
        p: found[class].as_ref().and_then(|of| of.above[DRAWS]).map(p_of),
    });
    let classes: Vec<ClassGap> = classes.collect();
    let known = || classes.iter().filter_map(|class| Some((class, class.gap?, class.p?)));
    // No p is below that of being above all draws.
    let limit = (1.0 - confidence).max(1.0 / (DRAWS + 1) as f64);
    let off = known()
        .filter(|(.., p)| *p <= limit)
        .reduce(|top, next| if next.1 > top.1 { next } else { top });
    let (worst, ..) =
        off.or_else(|| known().reduce(|top, next| if next.2 < top.2 { next } else { top }))?;
    Some(ClassGaps { worst: worst.label.clone(), said: said(worst, off.is_some()), classes })
}

/// True rows by draw, class and bin where a row's class is drawn from its scores times the classes' factors.
fn by_chance(judged: &[(&[f32], usize)], factors: &[f64]) -> Vec<Vec<Bins>> {
    let k = factors.len();
    let mut drawn = vec![vec![[0.0; BINS]; k]; DRAWS];
    let (mut rng, mut sums) = (Rng::stream(0, "class gaps", 0), Vec::with_capacity(k));
    for (row, _) in judged {
        let mut total = 0.0;
        sums.clear();
        sums.extend(row.iter().zip(factors).map(|(p, factor)| {
            total += f64::from(*p) * factor;
            total
        }));
        for draw in drawn.iter_mut().filter(|_| total > 0.0) {
            let at = rng.uniform() * total;
            let class = sums.partition_point(|sum| *sum <= at).min(k - 1);
            draw[class][bin(row[class])] += 1.0;
        }
    }
    drawn
}

/// The error of a class, beside those of the draws.
struct Found {
    gap: f64,
    by_chance: f64,
    /// In standard deviations over the mean of the draws: each draw in which a row is of the class, and the class itself as the last.
    above: Vec<Option<f64>>,
}

impl Found {
    /// `gaps` of each draw and of the rows as they are.
    fn of(gaps: impl Iterator<Item = Option<f64>>) -> Option<Found> {
        let gaps: Vec<Option<f64>> = gaps.collect();
        let (last, draws) = gaps.split_last()?;
        let gap = (*last)?;
        let known: Vec<f64> = draws.iter().flatten().copied().collect();
        let n = known.len() as f64;
        let by_chance = if known.is_empty() { gap } else { known.iter().sum::<f64>() / n };
        let squares = known.iter().map(|gap| (gap - by_chance).powi(2)).sum::<f64>();
        // All scores in one bin leave nothing to chance, and no error.
        let deviation = (squares / (n - 1.0).max(1.0)).sqrt().max(1e-12);
        let above = gaps.iter().map(|gap| gap.map(|gap| (gap - by_chance) / deviation)).collect();
        Some(Found { gap, by_chance, above })
    }
}

/// A p from draws can't be lower than one of them all, and where it is that low it is a bound.
pub(crate) fn p_shown(p: Option<f64>) -> String {
    match p {
        None => NONE.to_string(),
        Some(p) if p <= 1.0 / (DRAWS + 1) as f64 => format!("≤ {}", p_value(p)),
        Some(p) => p_value(p),
    }
}

fn said(worst: &ClassGap, is_off: bool) -> String {
    let of = format!(
        "{} ({}): normalised calibration error {}, by chance {}, p {}",
        worst.label,
        rows(worst.rows),
        number(worst.gap),
        number(worst.by_chance),
        p_shown(worst.p),
    );
    if is_off {
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
            let at = rng.uniform();
            gold.push(if at < rare { 2 } else { u32::from(at >= rare + first) });
            scores.extend([first, 1.0 - rare - first, rare].map(|p| p as f32));
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

    /// Scores that are right, or too high by one factor for a class, are called off in one set of rows of twenty at most: the factors
    /// are those of the rows, which takes some chance away. Of 400 sets more than 30 would have a probability of 0.01.
    #[test]
    fn scores_that_are_right_are_rarely_called_off() {
        for factor in [1.0, 4.0] {
            let off = (0..400).filter(|seed| {
                let (mut scores, gold) = drawn(150, *seed);
                scores.iter_mut().skip(2).step_by(3).for_each(|p| *p *= factor);
                let found = class_gaps(&pair(&NAMES, &scores, &gold), 0.95).unwrap();
                found.said.starts_with("the teacher's scores are furthest off for ")
            });
            let off = off.count();
            assert!((1..=30).contains(&off), "factor {factor}: {off} of 400");
        }
    }

    #[test]
    fn a_class_whose_scores_are_off_is_named_unless_bins_hide_it() {
        let (mut scores, gold) = drawn(3000, 7);
        let right = class_gaps(&pair(&NAMES, &scores, &gold), 0.95).unwrap();
        let words = "no class's scores are off by more than chance makes; furthest is ";
        assert!(right.said.starts_with(words), "{right:?}");
        // Half of what the two share each: nearly all in one bin, whose mean is right.
        for row in scores.chunks_exact_mut(3) {
            let even = (row[0] + row[1]) / 2.0;
            (row[0], row[1]) = (even, even);
        }
        let hidden = class_gaps(&pair(&NAMES, &scores, &gold), 0.95).unwrap();
        assert!(hidden.said.starts_with(words), "{hidden:?}");
        for (row, gold) in scores.chunks_exact_mut(3).zip(&gold) {
            row.copy_from_slice(if *gold == 2 { &[0.5, 0.49, 0.01] } else { &[0.45, 0.45, 0.1] });
        }
        let off = class_gaps(&pair(&NAMES, &scores, &gold), 0.95).unwrap();
        let rare = &off.classes[2];
        assert_eq!((off.worst.as_str(), rare.p), ("rare", Some(0.0025)));
        // 399 draws tell nothing rarer than 1 in 400, so that is what a higher confidence is judged by.
        let surer = class_gaps(&pair(&NAMES, &scores, &gold), 0.999).unwrap();
        assert_eq!(surer.said, off.said);
        // 1 − s_0/s in the lower bin and as much in the other.
        let of = |gold: f64, other: f64| 2.0 * (1.0 - gold / (gold + other));
        let (n, rest) = (rare.rows as f64, 3000.0 - rare.rows as f64);
        let gap = rare.gap.unwrap();
        assert!((gap - of(0.01 * n, 0.1 * rest)).abs() < 1e-6, "{gap}");
        let words = format!(
            "the teacher's scores are furthest off for rare ({n} rows): normalised calibration error {:.3}, by chance {:.3}, p ≤ 0.0025; a \
             robust student learns that error, so give the teacher more rows of this class",
            gap,
            rare.by_chance.unwrap()
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
        assert_eq!((even.classes[0].gap, even.classes[0].p), (Some(0.0), Some(1.0)));
    }
}
