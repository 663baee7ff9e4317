//! Several releases of one model on the same rows: churn of each against every earlier one, and the rows that changed more than
//! once. Two updates within their budgets may undo each other, which no comparison of two models shows.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::{Error, Flips, Pair, Predicted, Rate, Result, Unmatched};

/// Releases from the oldest to the newest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct History {
    pub releases: Vec<Release>,
    /// Each release against every earlier one: the newer in order, then the older.
    pub since: Vec<Since>,
    /// Rows that changed twice or more, most changes first; may be cut, `n_flip_flops` says how many there are.
    pub flip_flops: Vec<FlipFlop>,
    pub n_flip_flops: u64,
    /// Of those, rows whose newest answer is the oldest one again.
    pub n_back: u64,
    pub rows: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Release {
    pub name: String,
    /// `None` where no row has a label.
    pub accuracy: Option<Rate>,
}

/// What changed from one release to a later one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Since {
    /// Places in `releases`.
    pub old: usize,
    pub new: usize,
    pub churn: Option<Rate>,
    pub nfr: Option<Rate>,
    pub flips: Flips,
}

/// A row whose answer changed at two steps or more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlipFlop {
    pub id: String,
    pub text: Option<String>,
    pub gold: Option<String>,
    /// The answer of each release.
    pub said: Vec<String>,
    pub changes: u64,
}

/// `all` are predictions of the same rows, the oldest release first; true classes are taken from the older side of each pair,
/// or from the newer. Rows with an id of `left_out` count for nothing, such as those that a release was trained on.
///
/// # Errors
/// Fewer than two releases, and all that [`Pair::align`] refuses.
pub fn history(all: &[Predicted], left_out: &HashSet<&str>, confidence: f64) -> Result<History> {
    if all.len() < 2 {
        return Err(Error::OneRelease { found: all.len() });
    }
    if !(confidence > 0.5 && confidence < 1.0) {
        return Err(Error::ConfidenceOutside { confidence });
    }
    let align = |old: usize, new: usize| -> Result<Pair> {
        let pair = Pair::align(&all[old], &all[new], &[], Unmatched::Refuse)?;
        let counts = |row: &u32| !left_out.contains(pair.ids[*row as usize].as_str());
        let rows: Vec<u32> = (0..pair.rows() as u32).filter(counts).collect();
        Ok(pair.subset(&rows))
    };
    let (mut releases, mut since): (Vec<Release>, _) = (Vec::new(), Vec::new());
    let mut seen: HashMap<String, FlipFlop> = HashMap::new();
    let mut order = Vec::new();
    for new in 1..all.len() {
        for old in 0..new {
            let pair = align(old, new)?;
            let mut flips = Flips::default();
            (0..pair.rows()).for_each(|row| flips.count(pair.judged(row)));
            let of_labelled = |count| Rate::new(count, flips.labelled, confidence);
            let release = |at: usize, right: u64| Release {
                name: all[at].name.clone(),
                accuracy: of_labelled(right),
            };
            if old == 0 && new == 1 {
                releases.push(release(0, flips.right_old()));
                order.clone_from(&pair.ids);
            }
            if old + 1 == new {
                releases.push(release(new, flips.right_new()));
                (0..pair.rows()).for_each(|row| follow(&mut seen, &pair, row));
            }
            since.push(Since {
                old,
                new,
                churn: Rate::new(flips.changed, flips.rows, confidence),
                nfr: of_labelled(flips.negative),
                flips,
            });
        }
    }
    let rows = order.len() as u64;
    let mut flip_flops: Vec<FlipFlop> =
        order.iter().filter_map(|id| seen.remove(id)).filter(|row| row.changes >= 2).collect();
    flip_flops.sort_by_key(|row| std::cmp::Reverse(row.changes)); // stable: rows keep their order
    let is_back = |row: &&FlipFlop| row.said.first() == row.said.last();
    Ok(History {
        n_flip_flops: flip_flops.len() as u64,
        n_back: flip_flops.iter().filter(is_back).count() as u64,
        releases,
        since,
        flip_flops,
        rows,
    })
}

/// One more step of a row.
fn follow(seen: &mut HashMap<String, FlipFlop>, pair: &Pair, row: usize) {
    let id = &pair.ids[row];
    let (old, new, gold) = pair.said(row);
    let at = seen.entry(id.clone()).or_insert_with(|| FlipFlop {
        id: id.clone(),
        text: None,
        gold,
        said: vec![old],
        changes: 0,
    });
    at.said.push(new);
    at.changes += u64::from(pair.judged(row).is_flip());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four rows of two classes; the true class of each is a.
    fn said(name: &str, classes: [u32; 4]) -> Predicted {
        Predicted {
            name: name.into(),
            labels: vec!["a".into(), "b".into()],
            n_declared: Some(2),
            ids: ["1", "2", "3", "4"].map(String::from).to_vec(),
            predicted: classes.to_vec(),
            gold: vec![Some(0); 4],
            ..Predicted::default()
        }
    }

    /// Counted by hand: row 1 never moves, row 2 goes and comes back, row 3 goes and stays, row 4 moves at each step.
    #[test]
    fn rows_that_change_twice_are_counted_over_steps() {
        let all = [
            said("1st", [0, 0, 0, 1]),
            said("2nd", [0, 1, 0, 0]),
            said("3rd", [0, 0, 1, 1]),
            said("4th", [0, 0, 1, 0]),
        ];
        let found = history(&all, &HashSet::new(), 0.95).unwrap();
        let changed = |old, new| {
            let at = found.since.iter().find(|since| (since.old, since.new) == (old, new));
            let flips = at.unwrap().flips;
            (flips.changed, flips.negative)
        };
        assert_eq!([changed(0, 1), changed(1, 2), changed(2, 3)], [(2, 1), (3, 2), (1, 0)]);
        assert_eq!([changed(0, 2), changed(0, 3), changed(1, 3)], [(1, 1), (2, 1), (2, 1)]);
        let right: Vec<f64> =
            found.releases.iter().map(|release| release.accuracy.unwrap().value).collect();
        assert_eq!(right, [0.75, 0.75, 0.5, 0.75]);
        let names: Vec<&str> = found.releases.iter().map(|release| release.name.as_str()).collect();
        assert_eq!(names, ["1st", "2nd", "3rd", "4th"]);
        let rows: Vec<(&str, u64)> =
            found.flip_flops.iter().map(|row| (row.id.as_str(), row.changes)).collect();
        assert_eq!(rows, [("4", 3), ("2", 2)]);
        assert_eq!(found.flip_flops[1].said, ["a", "b", "a", "a"]);
        assert_eq!(found.flip_flops[0].gold.as_deref(), Some("a"));
        assert_eq!((found.rows, found.n_flip_flops, found.n_back), (4, 2, 1));

        let found = history(&all, &HashSet::from(["4"]), 0.95).unwrap();
        let flips = found.since[0].flips;
        assert_eq!((found.rows, flips.rows, flips.changed, flips.negative), (3, 3, 1, 1));
        assert_eq!((found.n_flip_flops, found.n_back), (1, 1));
    }

    /// Rows are found by id and classes by name, whatever the order of either.
    #[test]
    fn the_order_of_rows_and_classes_plays_no_part() {
        let mut turned = said("2nd", [0, 1, 0, 0]);
        turned.labels.reverse();
        turned
            .predicted
            .iter_mut()
            .chain(turned.gold.iter_mut().flatten())
            .for_each(|class| *class = 1 - *class);
        turned.ids.reverse();
        turned.predicted.reverse();
        let all = [said("1st", [0, 0, 0, 1]), turned, said("3rd", [0, 0, 1, 1])];
        let plain =
            [said("1st", [0, 0, 0, 1]), said("2nd", [0, 1, 0, 0]), said("3rd", [0, 0, 1, 1])];
        assert_eq!(
            history(&all, &HashSet::new(), 0.95).unwrap(),
            history(&plain, &HashSet::new(), 0.95).unwrap()
        );
    }

    #[test]
    fn negative_flips_are_of_labelled_rows() {
        let all = [said("1st", [0, 0, 0, 1]), said("2nd", [1, 1, 0, 0])];
        let nfr = history(&all, &HashSet::new(), 0.95).unwrap().since[0].nfr.unwrap();
        assert_eq!((nfr.count, nfr.of), (2, 4));
    }

    /// Each within the tolerance of the one before, and right, wrong, right.
    #[test]
    fn a_number_flips_by_its_rightness_too() {
        let said = |value: f32| {
            Predicted::from_values("m", vec!["1".into()], vec![Some(1.0)], vec![value], 0.25)
        };
        let all = [1.2, 1.3, 1.2].map(|value| said(value).unwrap());
        let found = history(&all, &HashSet::new(), 0.95).unwrap();
        assert_eq!((found.n_flip_flops, found.since[0].flips.changed), (1, 0));
    }

    #[test]
    fn confidence_is_above_a_half() {
        let all = [said("1st", [0; 4]), said("2nd", [0; 4])];
        for confidence in [0.05, 0.5, 1.0] {
            let refused = history(&all, &HashSet::new(), confidence);
            assert!(matches!(refused, Err(Error::ConfidenceOutside { .. })));
        }
    }

    #[test]
    fn what_is_no_history() {
        let check = |all: &[Predicted], message: &str| {
            assert_eq!(history(all, &HashSet::new(), 0.95).unwrap_err().to_string(), message);
        };
        check(&[said("1st", [0; 4])], "a history needs two releases or more; found 1");
        let mut short = said("2nd", [0; 4]);
        short.ids.pop();
        short.predicted.pop();
        short.gold.pop();
        let error =
            history(&[said("1st", [0; 4]), short], &HashSet::new(), 0.95).unwrap_err().to_string();
        assert!(error.contains("2nd") && error.contains("1st"), "{error}");
    }
}
