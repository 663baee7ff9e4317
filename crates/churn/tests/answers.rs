//! Answers that are sets of labels or numbers: what counts as churn and as a negative flip, files of them, and what is refused.

use std::path::PathBuf;

use lowchurn_churn::{
    Answers, Asked, Budget, Flips, Measurements, Names, OfAnswers, Pair, Predicted, Unmatched,
    certify, compare,
};
use proptest::prelude::*;

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}

fn ids(n: usize) -> Vec<String> {
    (0..n).map(|row| format!("r{row}")).collect()
}

fn sets(name: &str, labels: &[&str], gold: &[Option<&[u32]>], said: &[&[u32]]) -> Predicted {
    let gold: Vec<Option<Vec<u32>>> = gold.iter().map(|set| set.map(<[u32]>::to_vec)).collect();
    let said = said.iter().map(|set| set.to_vec()).collect();
    Predicted::from_sets(name, &names(labels), ids(gold_len(&gold)), gold, said).unwrap()
}

fn gold_len(gold: &[Option<Vec<u32>>]) -> usize {
    gold.len()
}

fn values(name: &str, gold: &[Option<f32>], said: &[f32], tolerance: f64) -> Predicted {
    Predicted::from_values(name, ids(said.len()), gold.to_vec(), said.to_vec(), tolerance).unwrap()
}

fn pair(old: &Predicted, new: &Predicted) -> Pair {
    Pair::align(old, new, &[], Unmatched::Refuse).unwrap()
}

#[test]
fn a_set_is_right_as_a_whole_and_changes_with_any_label() {
    let gold: [Option<&[u32]>; 5] = [Some(&[0, 1]), Some(&[0, 1]), Some(&[2]), Some(&[]), None];
    let old = sets("old", &["a", "b", "c"], &gold, &[&[0, 1], &[0], &[2], &[], &[1]]);
    // The new model has its labels in another order: c, a, b.
    let new_gold: [Option<&[u32]>; 5] = [Some(&[1, 2]), Some(&[1, 2]), Some(&[0]), Some(&[]), None];
    let new = sets("new", &["c", "a", "b"], &new_gold, &[&[1], &[1, 2], &[0], &[0], &[2]]);
    let pair = pair(&old, &new);
    let expected = Flips {
        rows: 5,
        changed: 3,
        labelled: 4,
        both_right: 1,
        negative: 2,
        positive: 1,
        lateral: 0,
        same_wrong: 0,
    };
    assert_eq!(pair.flips(), expected);
    assert_eq!(pair.said(0), ("a + b".into(), "a".into(), Some("a + b".into())));
    assert_eq!(pair.said(3), ("(no label)".into(), "c".into(), Some("(no label)".into())));
    let found = compare(&pair, &Asked::default()).unwrap();
    let OfAnswers::Sets { labels, micro_f1_old, micro_f1_new, .. } = &found.answers else {
        panic!()
    };
    // By hand: old has 4 hits of 4 said and 5 true, new 4 hits of 5 said and 5 true.
    assert_eq!((*micro_f1_old, *micro_f1_new), (Some(8.0 / 9.0), Some(0.8)));
    let of = |label: &str| labels.iter().find(|of| of.label == label).unwrap();
    let kinds = |label: &str| {
        let flips = of(label).flips;
        (flips.changed, flips.negative, flips.positive)
    };
    assert_eq!((kinds("a"), kinds("b"), kinds("c")), ((0, 0, 0), (2, 1, 1), (1, 1, 0)));
    let recall = |label: &str| {
        let class = found.classes.iter().find(|class| class.label == label).unwrap();
        (class.recall_old.unwrap(), class.recall_new.unwrap())
    };
    assert_eq!((recall("a"), recall("b"), recall("c")), ((1.0, 1.0), (0.5, 0.5), (1.0, 1.0)));
    let subset = pair.subset(&[0, 4]);
    assert_eq!((subset.flips().changed, subset.flips().negative), (1, 1));
}

#[test]
fn numbers_flip_by_the_tolerance() {
    let gold = [Some(1.0), Some(1.0), Some(1.0), Some(1.0), None, Some(2.0)];
    let old = values("old", &gold, &[1.0, 1.2, 1.0, 3.0, 0.0, 2.25], 0.25);
    let new = values("new", &gold, &[1.25, 1.3, 2.0, 1.1, 0.3, 2.0], 0.25);
    let pair = pair(&old, &new);
    // Row 1 didn't change, and yet left the tolerance of the truth: a negative flip without churn.
    let judged = pair.judged(1);
    assert_eq!((judged.is_changed, judged.is_right), (false, Some((true, false))));
    assert!(judged.is_flip());
    let expected = Flips {
        rows: 6,
        changed: 3,
        labelled: 5,
        both_right: 2,
        negative: 2,
        positive: 1,
        lateral: 0,
        same_wrong: 0,
    };
    assert_eq!(pair.flips(), expected);
    assert_eq!(pair.answers_as_classes(), (vec![0; 6], vec![0, 0, 1, 1, 1, 0]));
    assert_eq!(pair.subset(&[1, 4]).flips().changed, 1);
    let found = compare(&pair, &Asked::default()).unwrap();
    assert!(found.from_to.is_empty() && found.classes.is_empty() && found.soft.is_none());
    let OfAnswers::Values { tolerance, squared_error_old, .. } = found.answers else { panic!() };
    assert_eq!(tolerance, 0.25);
    let by_hand = (0.04 + 4.0 + 0.0625) / 5.0;
    assert!((squared_error_old.unwrap() - by_hand).abs() < 1e-6, "{squared_error_old:?}");
    assert_eq!(pair.said(3), ("3.0000".into(), "1.1000".into(), Some("1.0000".into())));
}

#[test]
fn labels_of_sets_are_aligned_by_name() {
    let (old, new) =
        (sets("m", &["a", "b"], &[None], &[&[0]]), sets("m", &["b", "a"], &[None], &[&[1]]));
    assert_eq!(pair(&old, &new).flips().changed, 0);
    let other = sets("m", &["b", "a"], &[None], &[&[0]]);
    assert_eq!(pair(&old, &other).flips().changed, 1);
}

#[test]
fn numbers_take_the_truth_of_the_side_that_has_it_and_rows_keep_it() {
    let old = values("old", &[None, None], &[1.0, 2.0], 0.1);
    let new = values("new", &[Some(1.0), Some(2.0)], &[1.0, 5.0], 0.1);
    let pair = pair(&old, &new);
    assert_eq!((pair.flips().labelled, pair.flips().negative), (2, 1));
    let second = pair.subset(&[1]);
    assert_eq!((second.said(0).2.as_deref(), second.flips().negative), (Some("2.0000"), 1));
}

/// |0.1 − 0.3| is more than 0.2 in f32, and not as the numbers are written.
#[test]
fn a_tolerance_is_of_numbers_as_they_are_written() {
    let (old, new) =
        (values("old", &[Some(0.1)], &[0.1], 0.2), values("new", &[Some(0.1)], &[0.3], 0.2));
    let flips = pair(&old, &new).flips();
    assert_eq!((flips.changed, flips.both_right), (0, 1));
}

#[test]
fn numbers_have_no_slices_by_prediction() {
    let side = values("m", &[None; 2], &[1.0, 2.0], 0.1);
    let asked = Asked { min_slice_rows: 1, ..Asked::default() };
    assert!(compare(&pair(&side, &side), &asked).unwrap().slices.is_empty());
}

#[test]
fn a_budget_is_certified_on_judged_rows() {
    let n = 2000;
    let gold: Vec<Option<f32>> = vec![Some(0.0); n];
    let old = vec![0.0; n];
    let new: Vec<f32> = (0..n).map(|row| if row % 200 == 0 { 1.0 } else { 0.1 }).collect();
    let pair = pair(&values("old", &gold, &old, 0.5), &values("new", &gold, &new, 0.5));
    let budget = |most| Budget {
        max_churn: Some(most),
        max_nfr: None,
        max_slice_nfr: None,
        max_class_nfr: None,
        min_accuracy_gain: None,
        golden: Vec::new(),
        confidence: 0.95,
    };
    let rows = Measurements { all: pair.flips(), ..Measurements::default() };
    assert_eq!(lowchurn_churn::exit_code(certify(&budget(0.02), &rows).unwrap().verdict), 0);
    assert_eq!(lowchurn_churn::exit_code(certify(&budget(0.002), &rows).unwrap().verdict), 10);
}

#[test]
fn kinds_must_be_the_same() {
    let set = sets("sets", &["a", "b"], &[None], &[&[0]]);
    let number = values("numbers", &[None], &[0.5], 0.1);
    let message = Pair::align(&set, &number, &[], Unmatched::Refuse).unwrap_err().to_string();
    assert_eq!(
        message,
        "sets answers with a set of labels a row, numbers with a number; compare models of one kind of task"
    );
    let other = sets("other", &["a", "c"], &[None], &[&[0]]);
    let message = Pair::align(&set, &other, &[], Unmatched::Refuse).unwrap_err().to_string();
    assert!(
        message.starts_with("sets has labels that other doesn't: b (its labels: a, c)"),
        "{message}"
    );
    let refused = |value: f32, tolerance: f64| {
        Predicted::from_values("x", ids(1), vec![None], vec![value], tolerance)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(refused(f32::NAN, 0.1), "x: row \"r0\" has NaN, not a finite number");
    assert_eq!(refused(1.0, -1.0), "a tolerance of -1; expected a number of at least 0");
    let disagree = values("other", &[Some(1.0)], &[0.5], 0.1);
    let message = Pair::align(
        &values("numbers", &[Some(2.0)], &[0.5], 0.1),
        &disagree,
        &[],
        Unmatched::Refuse,
    );
    assert!(message.unwrap_err().to_string().contains("\"r0\""));
}

fn file(dir: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn files_of_sets_and_numbers_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let sets = file(
        &dir,
        "sets.jsonl",
        "{\"id\":\"x\",\"labels\":[\"b\",\"a\"],\"gold\":[],\"scores\":{\"a\":0.9,\"b\":0.8}}\n\
         {\"id\":\"y\",\"labels\":[],\"scores\":{\"a\":0.1,\"b\":0.2}}\n",
    );
    let read = Predicted::read(&sets, &Names::default()).unwrap();
    let itself = pair(&read, &read);
    assert_eq!(itself.said(0), ("a + b".into(), "a + b".into(), Some("(no label)".into())));
    assert_eq!(itself.said(1).2, None);
    let message = |name: &str, text: &str, tolerance: Option<f64>| {
        let path = file(&dir, name, text);
        let names = Names { tolerance, ..Names::default() };
        let error = Predicted::read(&path, &names).unwrap_err().to_string();
        error.replace(&path.display().to_string(), name)
    };
    let unknown = "{\"id\":\"x\",\"labels\":[\"c\"],\"scores\":{\"a\":0.9,\"b\":0.8}}\n";
    assert!(message("unknown.jsonl", unknown, None).contains("label \"c\" has no score"));

    let own = "{\"id\":\"x\",\"value\":1.5,\"gold\":1.0}\n{\"id\":\"y\",\"value\":-2}\n";
    let path = file(&dir, "own.jsonl", own);
    let names = Names { tolerance: Some(0.5), ..Names::default() };
    let read = Predicted::read(&path, &names).unwrap();
    assert_eq!(
        pair(&read, &read).said(0),
        ("1.5000".into(), "1.5000".into(), Some("1.0000".into()))
    );
    assert_eq!(
        message("own.jsonl", own, None),
        "own.jsonl holds numbers, and no two are quite the same; say how far apart two may be to count as one answer: --tolerance \
         0.25"
    );
    let csv = file(&dir, "other.csv", "id,prediction,label\nx,1.25,1\ny,-2.5,\n");
    let other = Predicted::read(&csv, &names).unwrap();
    assert_eq!(pair(&read, &other).flips().changed, 0);
    assert_eq!(
        message("text.csv", "id,prediction\nx,good\n", Some(0.5)),
        "text.csv:2: column \"prediction\" holds \"good\", not a finite number; leave the cell empty where a row has no value"
    );
    assert!(message("twice.csv", "id,prediction\nx,1\nx,2\n", Some(0.5)).contains("there twice"));
    assert!(message("none.csv", "id,prediction\nx,\n", Some(0.5)).contains("none.csv:2"));
}

#[test]
fn the_truth_may_come_later() {
    let set = sets("m", &["a", "b"], &[None, None], &[&[0], &[1]]);
    let given = [Some(vec!["b".to_string(), "a".to_string()]), None];
    let with = set.clone().with_gold_sets(&given, &set.answers).unwrap();
    assert_eq!(pair(&with, &with).said(0).2.unwrap(), "a + b");
    let unknown = [Some(vec!["z".to_string()]), None];
    let message = set.clone().with_gold_sets(&unknown, &set.answers).unwrap_err().to_string();
    // A label that the other side alone has is one that this side never says.
    let grown = sets("n", &["a", "b", "z"], &[None, None], &[&[2], &[1]]);
    let old = set.with_gold_sets(&unknown, &grown.answers).unwrap();
    let new = grown.with_gold_sets(&unknown, &old.answers).unwrap();
    let flips = pair(&old, &new).flips();
    assert_eq!((flips.changed, flips.positive), (1, 1));
    assert_eq!(message, "m doesn't have the label \"z\" (labels: a, b)");
    let numbers = values("m", &[None, Some(1.0)], &[0.5, 1.0], 0.1);
    let with = numbers.with_gold_values(&[Some(0.5), Some(9.0)]);
    let flips = pair(&with, &with).flips();
    assert_eq!((flips.labelled, flips.both_right), (2, 2));
}

#[test]
fn a_truth_that_a_side_has_stays_and_adds_no_label() {
    let own = sets("m", &["a", "b"], &[Some(&[0])], &[&[0]]);
    let told = own.clone().with_gold_sets(&[Some(names(&["b"]))], &own.answers).unwrap();
    let Answers::Sets { names: labels, .. } = &told.answers else { panic!("sets") };
    assert_eq!(*labels, names(&["a", "b"]));
    assert_eq!(pair(&told, &told).said(0).2.as_deref(), Some("a"));
}

/// Of a, one of one; of b there is none, said or true, and its F1 is 0 as in scikit-learn.
#[test]
fn f1_of_labels_needs_a_truth() {
    let bare = sets("m", &["a", "b"], &[None], &[&[0]]);
    let of = |side: &Predicted| match compare(&pair(side, side), &Asked::default()).unwrap().answers
    {
        OfAnswers::Sets { macro_f1_old, labels, .. } => (macro_f1_old, labels),
        other => panic!("{other:?}"),
    };
    let (macro_f1, labels) = of(&bare);
    assert_eq!((macro_f1, labels[0].f1_old, labels[0].f1_new), (None, None, None));
    let told = bare.clone().with_gold_sets(&[Some(names(&["a"]))], &bare.answers).unwrap();
    let (macro_f1, labels) = of(&told);
    assert_eq!((macro_f1, labels.len()), (Some(0.5), 2));
}

#[test]
fn a_tolerance_without_end_is_refused() {
    let refused = Predicted::from_values("m", ids(1), vec![None], vec![1.0], f64::INFINITY);
    assert!(refused.is_err());
}

proptest! {
    /// Sets of one label each are classes: the same counts, whatever they are called.
    #[test]
    fn sets_of_one_are_classes(rows in prop::collection::vec((0u32..4, 0u32..4, prop::option::of(0u32..4)), 1..60)) {
        let labels = ["a", "b", "c", "d"];
        let one = |class: u32| vec![class];
        let gold: Vec<Option<Vec<u32>>> = rows.iter().map(|row| row.2.map(one)).collect();
        let said = |of: fn(&(u32, u32, Option<u32>)) -> u32| rows.iter().map(|row| one(of(row))).collect();
        let side = |name: &str, said: Vec<Vec<u32>>| {
            Predicted::from_sets(name, &names(&labels), ids(rows.len()), gold.clone(), said).unwrap()
        };
        let found = pair(&side("old", said(|row| row.0)), &side("new", said(|row| row.1))).flips();
        let mut expected = Flips::default();
        rows.iter().for_each(|(old, new, gold)| expected.add(*old, *new, *gold));
        prop_assert_eq!(found, expected);
    }

    /// Every row is of one kind, and without a tolerance numbers are as classes.
    #[test]
    fn numbers_without_tolerance_are_classes(rows in prop::collection::vec((0i8..4, 0i8..4, prop::option::of(0i8..4)), 1..60)) {
        let gold: Vec<Option<f32>> = rows.iter().map(|row| row.2.map(f32::from)).collect();
        let old: Vec<f32> = rows.iter().map(|row| f32::from(row.0)).collect();
        let new: Vec<f32> = rows.iter().map(|row| f32::from(row.1)).collect();
        let found = pair(&values("old", &gold, &old, 0.0), &values("new", &gold, &new, 0.0)).flips();
        let mut expected = Flips::default();
        for (old, new, gold) in &rows {
            expected.add(*old as u32, *new as u32, gold.map(|gold| gold as u32));
        }
        prop_assert_eq!(found, expected);
    }
}
