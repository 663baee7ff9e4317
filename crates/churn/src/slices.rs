//! Named subsets of rows: by the values of a column, by the old model's prediction, by length, by keyword; and the exact test
//! of whether a subset changes as much as the other rows do.

use std::collections::{BTreeMap, HashMap};

use crate::{Flips, Pair, PairAnswers};

/// Rows that are cut into slices in one way.
pub(crate) struct Cut {
    pub kind: String,
    pub names: Vec<String>,
    /// The slice of each row; `u32::MAX` for none.
    pub of_row: Vec<u32>,
}

const NONE: u32 = u32::MAX;

/// Slices by length: so many, with about as many rows in each.
const LENGTH_BINS: usize = 4;

pub(crate) fn by_column(column: &str, values: &[String]) -> Cut {
    let (mut names, mut place) = (Vec::new(), HashMap::new());
    let of_row = values.iter().map(|value| {
        *place.entry(value.as_str()).or_insert_with(|| {
            let shown = if value.is_empty() { "(empty)" } else { value };
            names.push(format!("{column} = {shown}"));
            names.len() as u32 - 1
        })
    });
    let of_row = of_row.collect();
    Cut { kind: column.to_owned(), names, of_row }
}

pub(crate) fn by_prediction(pair: &Pair) -> Cut {
    let names: Vec<String> = match pair.answers {
        PairAnswers::Values { .. } => Vec::new(),
        _ => pair.labels.iter().map(|label| format!("predicted = {label}")).collect(),
    };
    Cut { kind: "predicted".to_owned(), names, of_row: pair.old.clone() }
}

/// By words, as blanks cut them, in bins with about as many rows in each.
pub(crate) fn by_length(texts: &[String]) -> Cut {
    let words: Vec<usize> = texts.iter().map(|text| text.split_whitespace().count()).collect();
    let mut sorted = words.clone();
    sorted.sort_unstable();
    let mut ends: Vec<usize> = (1..=LENGTH_BINS)
        .filter_map(|bin| sorted.get((bin * sorted.len() / LENGTH_BINS).saturating_sub(1)).copied())
        .collect();
    ends.dedup();
    let mut first = sorted.first().copied().unwrap_or_default();
    let mut names = Vec::new();
    for end in &ends {
        names.push(match first == *end {
            true => format!("length {end} words"),
            false => format!("length {first}–{end} words"),
        });
        let after = sorted.partition_point(|words| words <= end);
        first = sorted.get(after).copied().unwrap_or_default();
    }
    let of_row = words.iter().map(|words| ends.partition_point(|end| end < words) as u32).collect();
    Cut { kind: "length".to_owned(), names, of_row }
}

/// Rows that contain it, whatever the case; one cut a keyword, because a row may hold several.
pub(crate) fn by_keyword(texts: &[String], keywords: &[String]) -> Vec<Cut> {
    let lower: Vec<String> = keywords.iter().map(|keyword| keyword.to_lowercase()).collect();
    let mut of_rows: Vec<Vec<u32>> = vec![Vec::with_capacity(texts.len()); keywords.len()];
    for text in texts {
        let text = text.to_lowercase();
        for (of_row, keyword) in of_rows.iter_mut().zip(&lower) {
            of_row.push(if text.contains(keyword) { 0 } else { NONE });
        }
    }
    let cut = |(keyword, of_row): (&String, Vec<u32>)| Cut {
        kind: "keyword".to_owned(),
        names: vec![format!("contains {keyword:?}")],
        of_row,
    };
    keywords.iter().zip(of_rows).map(cut).collect()
}

/// Counts by the values of columns, in the order of the names: the slices that a budget's limit on slices is for, however few
/// rows they have. Slices by prediction, length or keyword describe and promise nothing.
pub fn column_slices(pair: &Pair, columns: &[(String, Vec<String>)]) -> Vec<(String, Flips)> {
    let mut all: BTreeMap<String, Flips> = BTreeMap::new();
    for (column, values) in columns {
        let cut = by_column(column, values);
        for (row, slice) in cut.of_row.iter().enumerate() {
            let Some(name) = cut.names.get(*slice as usize) else { continue };
            let flips = all.entry(name.clone()).or_default();
            flips.count(pair.judged(row));
        }
    }
    all.into_iter().collect()
}

/// Fisher's exact test, two-sided: the probability, with all margins as they are, of a table that is as unlikely as
/// [[a, b], [c, d]] or more so (Fisher 1935; ties within 10⁻⁷, as scipy has it).
pub fn fisher_exact(a: u64, b: u64, c: u64, d: u64) -> f64 {
    let (row, column, all) = (a + b, a + c, a + b + c + d);
    let (least, most) = ((row + column).saturating_sub(all), row.min(column));
    // Weights relative to the mode: its own probability cancels.
    let mode = ((row + 1) as f64 * (column + 1) as f64 / (all + 2) as f64) as u64;
    let mode = mode.clamp(least, most);
    let up = |x: u64| {
        (row - x) as f64 * (column - x) as f64
            / ((x + 1) as f64 * (all + x + 1 - row - column) as f64)
    };
    let walk = |is_up: bool| {
        let (mut weights, mut weight, mut x) = (Vec::new(), 1.0f64, mode);
        while if is_up { x < most } else { x > least } {
            weight = if is_up { weight * up(x) } else { weight / up(x - 1) };
            x = if is_up { x + 1 } else { x - 1 };
            weights.push((x, weight));
            // Past what was seen, so far from the mode that the rest can't be told from nothing.
            if weight < 1e-300 {
                break;
            }
        }
        weights
    };
    let weights: Vec<(u64, f64)> =
        walk(false).into_iter().chain([(mode, 1.0)]).chain(walk(true)).collect();
    let seen = weights.iter().find(|(x, _)| *x == a).map_or(0.0, |(_, weight)| *weight);
    let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
    let extreme: f64 =
        weights.iter().map(|(_, weight)| *weight).filter(|w| *w <= seen * (1.0 + 1e-7)).sum();
    (extreme / total).min(1.0)
}

/// Holm's step-down correction (Holm 1979): controls the chance of any false alarm among all that are given, whatever their
/// dependence. What has no p keeps none.
pub fn holm(values: &[Option<f64>]) -> Vec<Option<f64>> {
    let mut order: Vec<(usize, f64)> =
        values.iter().enumerate().filter_map(|(at, p)| p.map(|p| (at, p))).collect();
    order.sort_by(|one, other| one.1.total_cmp(&other.1));
    let (mut corrected, mut most, tests) = (vec![None; values.len()], 0.0f64, order.len());
    for (rank, (at, p)) in order.into_iter().enumerate() {
        most = most.max(p * (tests - rank) as f64).min(1.0);
        corrected[at] = Some(most);
    }
    corrected
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fisher_is_that_of_scipy() {
        let text = include_str!("../../../tests/golden/comparison.json");
        let all: serde_json::Value = serde_json::from_str(text).unwrap();
        for case in all["fisher"].as_array().unwrap() {
            let [a, b, c, d] = std::array::from_fn(|at| case["table"][at].as_u64().unwrap());
            let (got, expected) = (fisher_exact(a, b, c, d), case["p"].as_f64().unwrap());
            assert!(
                (got - expected).abs() <= 1e-8 * expected,
                "{a} {b} {c} {d}: {got}, {expected}"
            );
        }
        assert_eq!(fisher_exact(0, 0, 3, 5), 1.0);
        assert_eq!(fisher_exact(0, 0, 0, 0), 1.0);
        let far = fisher_exact(500_000, 0, 0, 500_000);
        assert!((0.0..1e-200).contains(&far), "{far}");
    }

    #[test]
    fn holm_by_hand() {
        // Smallest × 4, next × 3, … and never below the one before.
        let got = holm(&[Some(0.01), None, Some(0.04), Some(0.03), Some(0.005)]);
        let expected = [Some(0.03), None, Some(0.06), Some(0.06), Some(0.02)];
        for (got, expected) in got.iter().zip(expected) {
            assert_eq!(got.is_some(), expected.is_some());
            assert!((got.unwrap_or(0.0) - expected.unwrap_or(0.0)).abs() < 1e-15);
        }
        assert_eq!(holm(&[Some(0.7), Some(0.9)]), [Some(1.0), Some(1.0)]);
        assert_eq!(holm(&[]), []);
    }

    fn shown(cut: &Cut) -> String {
        let row = |slice: &u32| cut.names.get(*slice as usize).map_or("-", String::as_str);
        cut.of_row.iter().map(row).collect::<Vec<_>>().join(" | ")
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn cuts_have_names_for_people() {
        let column = by_column("airline", &texts(&["Delta", "", "Delta", "United"]));
        assert_eq!(
            shown(&column),
            "airline = Delta | airline = (empty) | airline = Delta | airline = United"
        );
        let lengths =
            by_length(&texts(&["a", "a b c", "a b", "a b c d e", "", "a b", "a b", "x y z w"]));
        assert_eq!(
            shown(&lengths),
            "length 0–1 words | length 3 words | length 2 words | length 4–5 words | length 0–1 words | length 2 words | length \
             2 words | length 4–5 words"
        );
        assert_eq!(shown(&by_length(&texts(&["one", "two"]))), "length 1 words | length 1 words");
        assert_eq!(shown(&by_length(&[])), "");
        let keywords = by_keyword(
            &texts(&["A REFUND!", "no", "Späte Erstattung"]),
            &texts(&["refund", "SPÄTE"]),
        );
        assert_eq!(shown(&keywords[0]), "contains \"refund\" | - | -");
        assert_eq!(shown(&keywords[1]), "- | - | contains \"SPÄTE\"");
    }

    #[test]
    fn slices_of_a_budget_are_those_of_columns_small_ones_too() {
        let pair = Pair {
            labels: texts(&["a", "b"]),
            ids: texts(&["1", "2", "3"]),
            old: vec![0, 1, 0],
            new: vec![1, 1, 0],
            gold: vec![Some(0), Some(1), None],
            ..Pair::default()
        };
        let columns = [("shop".to_owned(), texts(&["north", "", "north"]))];
        let found = column_slices(&pair, &columns);
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["shop = (empty)", "shop = north"]);
        assert_eq!((found[1].1.rows, found[1].1.labelled, found[1].1.negative), (2, 1, 1));
        assert_eq!(column_slices(&pair, &[]), []);
    }

    proptest! {
        #[test]
        fn fisher_is_a_probability_and_symmetric(a in 0u64..200, b in 0u64..200, c in 0u64..200, d in 0u64..200) {
            let p = fisher_exact(a, b, c, d);
            prop_assert!(p > 0.0 && p <= 1.0);
            for other in [fisher_exact(c, d, a, b), fisher_exact(b, a, d, c), fisher_exact(a, c, b, d)] {
                prop_assert!((p - other).abs() <= 1e-9, "{} {}", p, other);
            }
        }

        #[test]
        fn every_row_has_one_length(lengths in prop::collection::vec(0usize..40, 1..200)) {
            let texts: Vec<String> = lengths.iter().map(|words| "w ".repeat(*words)).collect();
            let cut = by_length(&texts);
            prop_assert!(cut.names.len() <= LENGTH_BINS);
            for (slice, words) in cut.of_row.iter().zip(&lengths) {
                let name = &cut.names[*slice as usize];
                let span: Vec<usize> = name["length ".len()..name.len() - " words".len()]
                    .split('–').map(|end| end.parse().unwrap()).collect();
                prop_assert!(span[0] <= *words && words <= span.last().unwrap(), "{} has {}", name, words);
            }
        }
    }
}
