//! Two prediction files → a pair → a comparison, against what scikit-learn says of the same files.

use std::path::Path;

use lowchurn_churn::{
    Asked, Comparison, Error, Flips, Measured, Names, Pair, Predicted, SoftSums, Unmatched,
    compare, gain_interval, seed_floor,
};
use proptest::prelude::*;

fn strings(all: &[&str]) -> Vec<String> {
    all.iter().map(|one| (*one).to_owned()).collect()
}

fn map(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(old, new)| ((*old).to_owned(), (*new).to_owned())).collect()
}

// Predictions and true classes by name; `declared` as a file with scores has them.
fn said(name: &str, declared: &[&str], rows: &[(&str, &str, &str)]) -> Predicted {
    let mut labels = strings(declared);
    let mut place = |label: &str| {
        if !labels.iter().any(|known| known == label) {
            labels.push(label.to_owned());
        }
        labels.iter().position(|known| known == label).unwrap() as u32
    };
    let predicted = rows.iter().map(|row| place(row.1)).collect();
    let gold = rows.iter().map(|row| (!row.2.is_empty()).then(|| place(row.2))).collect();
    Predicted {
        name: name.to_owned(),
        n_declared: (!declared.is_empty()).then_some(declared.len()),
        labels,
        ids: rows.iter().map(|row| row.0.to_owned()).collect(),
        predicted,
        gold,
        ..Predicted::default()
    }
}

fn align(old: &Predicted, new: &Predicted, label_map: &[(&str, &str)]) -> Result<Pair, String> {
    Pair::align(old, new, &map(label_map), Unmatched::Refuse).map_err(|error| error.to_string())
}

// id>old/new/gold.
fn shown(pair: &Pair) -> String {
    let name = |class: u32| pair.labels[class as usize].as_str();
    let row = |row: usize| {
        let gold = pair.gold[row].map_or("-", name);
        format!("{}>{}/{}/{gold}", pair.ids[row], name(pair.old[row]), name(pair.new[row]))
    };
    (0..pair.rows()).map(row).collect::<Vec<_>>().join(" ")
}

#[test]
fn rows_are_aligned_by_id_and_labels_by_name() {
    let old =
        said("old", &["neg", "pos"], &[("1", "neg", "neg"), ("2", "pos", ""), ("3", "pos", "")]);
    let new =
        said("new", &["pos", "neg"], &[("3", "pos", "pos"), ("1", "pos", ""), ("2", "neg", "")]);
    let pair = align(&old, &new, &[]).unwrap();
    assert_eq!(shown(&pair), "1>neg/pos/neg 2>pos/neg/- 3>pos/pos/pos");
    assert_eq!((pair.labels.join(" "), pair.n_old_classes), ("neg pos".to_owned(), 2));
    assert_eq!(
        pair.alignment,
        [
            "labels of the old: neg, pos",
            "labels of the new: pos, neg",
            "aligned by name, whatever their order"
        ]
    );
    assert_eq!(
        align(&old, &old, &[]).unwrap().alignment,
        ["labels are the same on both sides: neg, pos"]
    );
    let fewer = pair.subset(&[2, 0, 9]);
    assert_eq!(shown(&fewer), "3>pos/pos/pos 1>neg/pos/neg");
}

#[test]
fn scores_follow_their_labels() {
    let side = |name: &str, labels: &[&str], scores: &[f32]| Predicted {
        scores: Some(scores.to_vec()),
        ..said(name, labels, &[("1", labels[0], ""), ("2", labels[1], "")])
    };
    let old = side("old", &["a", "b"], &[0.75, 0.25, 0.5, 0.5]);
    let new = side("new", &["b", "a", "c"], &[0.5, 0.25, 0.25, 0.125, 0.625, 0.25]);
    let pair = align(&old, &new, &[]).unwrap();
    assert_eq!(pair.labels, ["a", "b", "c"]);
    assert_eq!(pair.old_scores, Some(vec![0.75, 0.25, 0.0, 0.5, 0.5, 0.0]));
    assert_eq!(pair.new_scores, Some(vec![0.25, 0.5, 0.25, 0.625, 0.125, 0.25]));
    assert_eq!((pair.n_old_classes, pair.alignment.last().unwrap().as_str()), (2, "c is new"));
    assert_eq!(pair.subset(&[1]).new_scores, Some(vec![0.625, 0.125, 0.25]));
    // Two old labels become one: their scores add up.
    let merged = side("new", &["x", "y"], &[1.0, 0.0, 0.5, 0.5]);
    let pair = align(&old, &merged, &[("a", "x"), ("b", "x")]).unwrap();
    assert_eq!(shown(&pair), "1>x/x/- 2>x/y/-");
    assert_eq!(pair.old_scores, Some(vec![1.0, 0.0, 1.0, 0.0]));
    assert_eq!(
        pair.alignment,
        [
            "labels of the old: a, b",
            "labels of the new: x, y",
            "mapped: a is x now",
            "mapped: b is x now",
            "aligned by name, whatever their order",
            "y is new"
        ]
    );
}

#[test]
fn labels_that_only_the_old_knows_stop_unless_mapped() {
    let rows = [("1", "Neg", ""), ("2", "pos", "")];
    let check = |old: &[&str], new: &[&str], label_map: &[(&str, &str)], expected: &str| {
        let old = said("old", old, &rows);
        let new_rows = if new.contains(&"neg") {
            [("1", "neg", ""), ("2", "pos", "")]
        } else {
            [("1", "pos", ""); 2]
        };
        let new_rows = if new.is_empty() {
            [("1", "pos", ""), ("2", "pos", "")]
        } else {
            [new_rows[0], ("2", "pos", "")]
        };
        let got = align(&old, &said("new", new, &new_rows), label_map);
        assert_eq!(got.map_or_else(|message| message, |pair| shown(&pair)), expected);
    };
    check(
        &["Neg", "pos"],
        &["neg", "pos"],
        &[],
        "old has labels that new doesn't: Neg (its labels: neg, pos); say what became of them with --label-map Neg=neg",
    );
    check(&["Neg", "pos"], &["neg", "pos"], &[("Neg", "neg")], "1>neg/neg/- 2>pos/pos/-");
    check(
        &["Neg", "pos", "x"],
        &["neg", "pos"],
        &[],
        "old has labels that new doesn't: Neg, x (its labels: neg, pos); say what became of them with --label-map Neg=neg,x=NEW",
    );
    check(&["Neg", "pos"], &["pos", "a,b"], &[("Neg", "Neg")], "1>Neg/pos/- 2>pos/pos/-");
    check(
        &["Neg", "pos"],
        &["neg", "pos"],
        &[("Neg", "negg")],
        "the label map names \"negg\", which isn't a label of new (labels: neg, pos); did you mean \"neg\"?",
    );
    check(
        &["Neg", "pos"],
        &["neg", "pos"],
        &[("Negg", "neg")],
        "the label map names \"Negg\", which isn't a label of old (labels: Neg, pos); did you mean \"Neg\"?",
    );
    check(
        &["Neg", "pos"],
        &["neg", "pos"],
        &[("Neg", "neg"), ("Neg", "pos")],
        "the label map gives \"Neg\" two new names, \"neg\" and \"pos\"",
    );
    // Without scores only the labels that occur are seen: one that the new model never says needn't be gone.
    check(&[], &[], &[], "1>Neg/pos/- 2>pos/pos/-");
    let old = said("old", &[], &[("1", "a", ""), ("2", "b,c", "")]);
    let renamed = said("new", &[], &[("1", "a", ""), ("2", "b,d", "")]);
    assert_eq!(
        align(&old, &renamed, &[]).unwrap_err(),
        "old has labels that new doesn't: b,c (its labels: a, b,d); say what became of them with --label-map b\\,c=b\\,d"
    );
    let respelt = said("new", &[], &[("1", "a", ""), ("2", "B,C", "")]);
    assert!(align(&old, &respelt, &[]).unwrap_err().contains("--label-map b\\,c=B\\,C"));
}

#[test]
fn classes_that_are_only_true_ones_are_nobodys() {
    let old = said("old", &["a", "b"], &[("1", "a", "c"), ("2", "b", "b")]);
    let new = said("new", &["a", "b"], &[("1", "b", ""), ("2", "b", "")]);
    let pair = align(&old, &new, &[]).unwrap();
    assert_eq!((pair.labels.join(" "), pair.n_old_classes), ("a b c".to_owned(), 2));
    assert_eq!(pair.alignment.last().unwrap(), "c is a true class that neither model knows");
    let flips = Flips::of(&pair.old, &pair.new, &pair.gold);
    assert_eq!((flips.lateral, flips.both_right), (1, 1));
}

#[test]
fn rows_that_differ() {
    let old = said(
        "old",
        &[],
        &[("1", "a", "a"), ("2", "b", "b"), ("3", "a", "a"), ("5", "a", "a"), ("6", "a", "a")],
    );
    let new = said("new", &[], &[("2", "b", "b"), ("4", "a", "a")]);
    assert_eq!(
        align(&old, &new, &[]).unwrap_err(),
        "old and new hold different rows: 4 only in the old (1, 3, 5), 1 only in the new (4); predict the same rows with both, or \
         compare those in both with --allow-partial"
    );
    let pair = Pair::align(&old, &new, &[], Unmatched::Count).unwrap();
    assert_eq!((shown(&pair).as_str(), pair.n_only_old, pair.n_only_new), ("2>b/b/b", 4, 1));
    let other = said("new", &[], &[("x", "b", "")]);
    for unmatched in [Unmatched::Count, Unmatched::Refuse] {
        let error = Pair::align(&old, &other, &[], unmatched).unwrap_err();
        assert_eq!(
            error.to_string(),
            "old and new have no row in common (ids such as \"1\" and \"x\"); both need the ids of the same data"
        );
    }
    let judged = said(
        "new",
        &[],
        &[("2", "b", "a"), ("1", "a", "a"), ("3", "a", ""), ("5", "a", ""), ("6", "a", "")],
    );
    assert_eq!(
        align(&old, &judged, &[]).unwrap_err(),
        "row \"2\": the true class is \"b\" in old and \"a\" in new; both must be judged by the same"
    );
    let twice = said("new", &[], &[("2", "b", ""), ("1", "b", ""), ("2", "b", "")]);
    assert_eq!(
        align(&old, &twice, &[]).unwrap_err(),
        "new: id \"2\" is there twice, in rows 0 and 2 (from 0); ids must be unique"
    );
    let short = Predicted { predicted: vec![0], ..old.clone() };
    assert_eq!(
        align(&short, &new, &[]).unwrap_err(),
        "old: predictions: 1 of them for 5 rows or classes"
    );
}

fn golden(name: &str) -> Predicted {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/predictions");
    Predicted::read(&folder.join(name), &Names::default()).unwrap()
}

#[test]
fn two_files_of_scikit_learn_need_no_model() {
    let text = include_str!("../../../tests/golden/comparison.json");
    let expected: serde_json::Value = serde_json::from_str(text).unwrap();
    let near = |got: f64, expected: &serde_json::Value, tolerance: f64| {
        let expected = expected.as_f64().unwrap();
        assert!((got - expected).abs() <= tolerance, "{got} is not {expected}");
    };
    for (old, new) in [("old.csv", "new.tsv"), ("old.jsonl", "new.parquet")] {
        let pair = align(&golden(old), &golden(new), &[]).unwrap();
        let said = compare(&pair, &Asked::default()).unwrap();
        assert_eq!(said.all.flips.negative, expected["negative"].as_u64().unwrap());
        assert_eq!(said.all.flips.positive, expected["positive"].as_u64().unwrap());
        near(said.all.churn.unwrap().value, &expected["churn"], 1e-12);
        near(said.all.accuracy_old.unwrap().value, &expected["old"]["accuracy"], 1e-12);
        near(said.all.accuracy_new.unwrap().value, &expected["new"]["accuracy"], 1e-12);
        // Scores are kept in f32, 6e-8 of each.
        let soft = said.soft.unwrap();
        near(soft.total_variation, &expected["total_variation"], 1e-6);
        near(soft.kl_old_new, &expected["kl_old_new"], 1e-6);
        for (side, calibration) in [("old", soft.calibration_old), ("new", soft.calibration_new)] {
            near(calibration.as_ref().unwrap().brier, &expected[side]["brier"], 1e-6);
            near(calibration.unwrap().ece, &expected[side]["ece"], 1e-6);
        }
        for class in &said.classes {
            near(class.recall_old.unwrap(), &expected["old"]["recall"][&class.label], 1e-12);
            near(class.recall_new.unwrap(), &expected["new"]["recall"][&class.label], 1e-12);
        }
        assert_eq!(said.from_to.iter().map(|cell| cell.rows).sum::<u64>(), 300);
        for cell in &said.from_to {
            assert_eq!(cell.rows, expected["from_to"][&cell.from][&cell.to].as_u64().unwrap());
        }
    }
}

// 400 rows, of which the first 100 are new, from Delta, long and about refunds, and change.
fn skewed() -> Pair {
    let rows = 400;
    Pair {
        labels: strings(&["neg", "pos"]),
        n_old_classes: 2,
        ids: (0..rows).map(|row| row.to_string()).collect(),
        old: (0..rows).map(|row| u32::from(row % 2 == 0)).collect(),
        new: (0..rows).map(|row| u32::from((row % 2 == 0) != (row < 50))).collect(),
        gold: (0..rows).map(|row| (row % 4 != 3).then_some(u32::from(row % 2 == 0))).collect(),
        ..Pair::default()
    }
}

#[test]
fn the_worst_slice_comes_first_and_small_ones_are_counted() {
    let pair = skewed();
    let airline = |row: usize| match row {
        0..3 => "Tiny",
        3..100 => "Delta",
        100..250 => "United",
        _ => "Southwest",
    };
    let columns = [("airline".to_owned(), (0..400).map(|row| airline(row).to_owned()).collect())];
    let texts: Vec<String> = (0..400)
        .map(|row| if row < 100 { "a refund or two words" } else { "no word" }.to_owned())
        .collect();
    let is_new: Vec<bool> = (0..400).map(|row| row < 100).collect();
    let asked = Asked {
        slice_columns: &columns,
        texts: Some(&texts),
        keywords: &strings(&["Refund", "absent"]),
        is_new_row: Some(&is_new),
        retrain_churn: Some(0.25),
        ..Asked::default()
    };
    let said = compare(&pair, &asked).unwrap();
    let names: Vec<&str> = said.slices.iter().map(|slice| slice.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "length 5 words",
            "contains \"Refund\"",
            "airline = Delta",
            "predicted = neg",
            "predicted = pos",
            "airline = United",
            "airline = Southwest",
            "length 2 words"
        ]
    );
    // Tiny changes in all of its 3 rows, which proves little.
    assert_eq!((said.n_small_slices, said.slices.len()), (1, 8));
    assert_eq!(
        said.slice_correction.as_deref(),
        Some("two-sided Fisher exact tests against the other rows, Holm over 8 slices")
    );
    let p = |name: &str| {
        said.slices.iter().find(|slice| slice.name == name).unwrap().p_corrected.unwrap()
    };
    assert!(p("length 5 words") < 1e-10 && p("predicted = neg") == 1.0);
    assert_eq!(said.old_rows.as_ref().unwrap().flips.changed, 0);
    assert_eq!(said.new_rows.as_ref().unwrap().flips.changed, 50);
    assert_eq!(said.churn_ratio, Some(0.5));
    let lengths: u64 =
        said.slices.iter().filter(|s| s.kind == "length").map(|s| s.measured.flips.rows).sum();
    assert_eq!(lengths, 400);
    let [first, last] = [&said.from_to[0], said.from_to.last().unwrap()];
    assert_eq!((first.from.as_str(), first.to.as_str(), first.rows), ("neg", "neg", 175));
    assert_eq!((last.from.as_str(), last.rows), ("pos", 175));
    assert_eq!((said.from_to[1].negative, said.from_to[1].positive), (13, 0));
    let json = serde_json::to_string(&said).unwrap();
    assert_eq!(serde_json::from_str::<Comparison>(&json).unwrap(), said);
}

#[test]
fn the_same_model_twice_has_no_churn_and_no_p() {
    let one = said("m", &["a", "b"], &[("1", "a", "a"), ("2", "a", "b"), ("3", "a", "a")]);
    let one = Predicted { scores: Some(vec![1.0, 0.0, 1.0, 0.0, 0.75, 0.25]), ..one };
    let pair = align(&one, &one, &[]).unwrap();
    let said = compare(&pair, &Asked { min_slice_rows: 1, ..Asked::default() }).unwrap();
    assert_eq!((said.all.flips.changed, said.all.churn.unwrap().value), (0, 0.0));
    assert_eq!((said.all.mcnemar.unwrap().exact, said.all.mcnemar.unwrap().mid), (1.0, 1.0));
    assert_eq!((said.all.win_loss, said.all.accuracy_gain.unwrap().value), (None, 0.0));
    let soft = said.soft.unwrap();
    assert_eq!((soft.total_variation, soft.kl_old_new, soft.shift[10]), (0.0, 0.0, 3));
    // One slice that is all rows: there is nothing to compare it with.
    assert_eq!(
        (said.slices.len(), said.slices[0].p_corrected, said.slice_correction),
        (1, None, None)
    );
    assert_eq!(said.worst_class_new, Some(("b".to_owned(), 0.0)));
    assert_eq!((said.old_rows, said.churn_ratio, said.seed_floor), (None, None, None));
}

#[test]
fn what_is_asked_wrongly_is_refused() {
    let pair = skewed();
    let scored =
        Pair { old_scores: Some(vec![0.5; 800]), new_scores: Some(vec![0.5; 800]), ..pair.clone() };
    let check = |pair: &Pair, asked: Asked<'_>, expected: &str| {
        assert_eq!(compare(pair, &asked).unwrap_err().to_string(), expected);
    };
    let threshold = |label: &str, at: f64| [(label.to_owned(), at)];
    let plain = Asked::default();
    check(
        &pair,
        Asked { confidence: 95.0, ..plain },
        "a confidence of 95; expected one between 0.5 and 1, such as 0.95",
    );
    check(
        &pair,
        Asked { confidence: f64::NAN, ..plain },
        "a confidence of NaN; expected one between 0.5 and 1, such as 0.95",
    );
    check(
        &pair,
        Asked { is_new_row: Some(&[true]), ..plain },
        "marks of new rows: 1 of them for 400 rows or classes",
    );
    check(&pair, Asked { texts: Some(&[]), ..plain }, "texts: 0 of them for 400 rows or classes");
    check(
        &pair,
        Asked { keywords: &strings(&["a"]), ..plain },
        "texts to find keywords in: 0 of them for 400 rows or classes",
    );
    check(
        &pair,
        Asked { slice_columns: &[("x".to_owned(), vec![])], ..plain },
        "values of column \"x\": 0 of them for 400 rows or classes",
    );
    check(
        &Pair { old_name: "old.csv".to_owned(), ..pair.clone() },
        Asked { thresholds: &threshold("pos", 0.9), ..plain },
        "thresholds need scores, and old.csv has predictions alone",
    );
    check(
        &scored,
        Asked { thresholds: &threshold("poss", 0.9), ..plain },
        "a threshold for \"poss\", which isn't a label (labels: neg, pos); did you mean \"pos\"?",
    );
    for share in [90.0, 0.0, 1.0] {
        check(
            &scored,
            Asked { thresholds: &threshold("pos", share), ..plain },
            &format!("the threshold of \"pos\" is {share}; expected a share between 0 and 1"),
        );
    }
}

#[test]
fn rows_of_the_new_side_alone_are_told_and_counted() {
    let old = said("old", &["a"], &[("1", "a", ""), ("9", "a", "")]);
    let new = said("new", &["a"], &[("1", "a", ""), ("2", "a", ""), ("3", "a", "")]);
    let one =
        Predicted { ids: strings(&["1"]), predicted: vec![0], gold: vec![None], ..old.clone() };
    let refused = Pair::align(&one, &new, &[], Unmatched::Refuse);
    assert!(matches!(refused, Err(Error::RowsDiffer { only_old: 0, only_new: 2, .. })));
    let pair = Pair::align(&old, &new, &[], Unmatched::Count).unwrap();
    let found = compare(&pair, &Asked::default()).unwrap();
    assert_eq!((found.n_only_old, found.n_only_new), (1, 2));
}

#[test]
fn an_id_that_comes_twice_on_one_side_is_refused() {
    let twice = said("old", &["a"], &[("1", "a", ""), ("1", "a", "")]);
    let once = said("new", &["a"], &[("1", "a", ""), ("2", "a", "")]);
    let refused = Pair::align(&twice, &once, &[], Unmatched::Count);
    assert!(matches!(refused, Err(Error::IdTwice { .. })));
}

#[test]
fn scores_must_be_one_a_class_and_row() {
    let rows = [("1", "a", ""), ("2", "b", "")];
    let short = Predicted { scores: Some(vec![1.0]), ..said("m", &["a", "b"], &rows) };
    let refused = Pair::align(&short, &short, &[], Unmatched::Refuse);
    assert!(matches!(refused, Err(Error::Length { .. })));
}

#[test]
fn a_true_class_in_another_case_is_another_class() {
    let old = said("old", &[], &[("1", "a", "a"), ("2", "a", "B")]);
    let new = said("new", &[], &[("1", "a", ""), ("2", "b", "")]);
    assert!(align(&old, &new, &[]).is_err());
}

/// `n` classes of ten rows; of class c, 9 − c are right on both sides.
#[test]
fn the_worst_classes_are_a_mean_from_ten_classes_on() {
    let worst = |n: usize| {
        let names: Vec<String> = (0..n).map(|class| class.to_string()).collect();
        let mut rows = Vec::new();
        for (class, row) in (0..n).flat_map(|class| (0..10).map(move |row| (class, row))) {
            let answer = if row < 9 - class as i64 { class } else { (class + 1) % n };
            rows.push((format!("{class}-{row}"), names[answer].as_str(), names[class].as_str()));
        }
        let rows: Vec<(&str, &str, &str)> =
            rows.iter().map(|(id, answer, gold)| (id.as_str(), *answer, *gold)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let side = said("m", &names, &rows);
        let pair = align(&side, &side, &[]).unwrap();
        compare(&pair, &Asked::default()).unwrap().worst_classes.unwrap()
    };
    assert_eq!((worst(9).k, worst(9).mean_recall_old), (None, None));
    // Recalls of the five worst of ten are 0.4, 0.3, 0.2, 0.1 and 0.
    assert!((worst(10).mean_recall_old.unwrap() - 0.2).abs() < 1e-12);
}

#[test]
fn each_side_has_its_own_worst_class() {
    // Recall of a: 1, then 0.5; of b: 0.5, then 1.
    let old = said(
        "old",
        &["a", "b"],
        &[("1", "a", "a"), ("2", "a", "a"), ("3", "b", "b"), ("4", "a", "b")],
    );
    let new =
        said("new", &["a", "b"], &[("1", "a", ""), ("2", "b", ""), ("3", "b", ""), ("4", "b", "")]);
    let found = compare(&align(&old, &new, &[]).unwrap(), &Asked::default()).unwrap();
    assert_eq!(found.worst_class_old, Some(("b".into(), 0.5)));
    assert_eq!(found.worst_class_new, Some(("a".into(), 0.5)));
}

#[test]
fn slices_by_prediction_go_by_the_old_one() {
    let side = |name: &str, says: [&str; 4]| {
        let rows: Vec<(&str, &str, &str)> =
            ["1", "2", "3", "4"].into_iter().zip(says).map(|(id, label)| (id, label, "")).collect();
        said(name, &["a", "b"], &rows)
    };
    let (old, new) = (side("old", ["a", "a", "a", "b"]), side("new", ["b", "a", "a", "b"]));
    let asked = Asked { min_slice_rows: 1, ..Asked::default() };
    let found = compare(&align(&old, &new, &[]).unwrap(), &asked).unwrap();
    let slices: Vec<(&str, u64, u64)> = found
        .slices
        .iter()
        .map(|slice| (slice.name.as_str(), slice.measured.flips.rows, slice.measured.flips.changed))
        .collect();
    assert_eq!(slices, [("predicted = a", 3, 1), ("predicted = b", 1, 0)]);
}

#[test]
fn churn_beside_a_retrain_without_any_has_no_ratio() {
    let (old, new) =
        (said("old", &["a", "b"], &[("1", "a", "")]), said("new", &["a", "b"], &[("1", "b", "")]));
    let asked = Asked { retrain_churn: Some(0.0), ..Asked::default() };
    let found = compare(&align(&old, &new, &[]).unwrap(), &asked).unwrap();
    assert_eq!(found.churn_ratio, None);
}

#[test]
fn the_interval_of_the_gain_is_that_of_the_flips() {
    let flips = Flips {
        rows: 1000,
        labelled: 1000,
        changed: 87,
        both_right: 913,
        negative: 30,
        positive: 50,
        lateral: 7,
        ..Flips::default()
    };
    let gain = Measured::of(flips, 0.95).accuracy_gain.unwrap();
    assert_eq!(gain.interval, gain_interval(30, 50, 1000, 0.95));
}

/// A share of the old side that the new one calls impossible, unless it is as good as impossible to both.
#[test]
fn divergences_from_scores_of_zero_are_counted() {
    let sums = |old: f32| {
        let side = |name, other: f32| Predicted {
            scores: Some(vec![1.0, other]),
            ..said(name, &["a", "b"], &[("1", "a", "")])
        };
        let pair = align(&side("old", old), &side("new", 0.0), &[]).unwrap();
        SoftSums::of(&pair, &[]).unwrap()
    };
    assert_eq!(sums(1e-13).mean(&[]).unwrap().kl_floored, 0);
    let mut both = sums(0.5);
    both.merge(&sums(0.5));
    assert_eq!(both.mean(&[]).unwrap().kl_floored, 2);
}

#[test]
fn the_seed_floor_is_the_mean_over_pairs_of_runs() {
    let run = |name: &str, says: [&str; 4]| {
        let rows: Vec<(&str, &str, &str)> =
            ["1", "2", "3", "4"].into_iter().zip(says).map(|(id, label)| (id, label, "")).collect();
        said(name, &["a", "b"], &rows)
    };
    let runs = [
        run("s1", ["a", "a", "a", "a"]),
        run("s2", ["a", "a", "a", "b"]),
        run("s3", ["b", "a", "b", "b"]),
    ];
    assert_eq!(seed_floor(&runs[..1], None, 0.95).unwrap(), None);
    let two = seed_floor(&runs[..2], None, 0.95).unwrap().unwrap();
    assert_eq!((two.value, two.count, two.of), (0.25, 1, 4));
    // Pairs differ in 1, 3 and 2 rows of 4.
    let three = seed_floor(&runs, None, 0.95).unwrap().unwrap();
    assert_eq!((three.value, three.count, three.of), (0.5, 2, 4));
    let ids: Vec<String> = runs[0].ids[2..].to_vec();
    let last = seed_floor(&runs, Some(&ids), 0.95).unwrap().unwrap();
    // Of the last two rows pairs differ in 1, 2 and 1.
    assert_eq!((last.value, last.of), (4.0 / 6.0, 2));
    let other = said("s4", &["a", "b"], &[("9", "a", "")]);
    assert!(seed_floor(&[runs[0].clone(), other], None, 0.95).is_err());
}

/// Old, new, true class, and the slice.
type Drawn = (u32, u32, Option<u32>, usize);

proptest! {
    #[test]
    fn slices_of_a_column_add_up_and_order_of_rows_is_nothing(
        rows in prop::collection::vec((0u32..3, 0u32..3, prop::option::of(0u32..3), 0usize..4), 1..120),
    ) {
        let names = ["a", "b", "c"];
        let say = |name: &str, pick: fn(&Drawn) -> u32, turn: bool| {
            let mut all: Vec<(String, &str, &str)> = rows.iter().enumerate().map(|(id, row)| {
                (id.to_string(), names[pick(row) as usize], row.2.map_or("", |gold| names[gold as usize]))
            }).collect();
            if turn {
                all.reverse();
            }
            let rows: Vec<(&str, &str, &str)> = all.iter().map(|(id, label, gold)| (id.as_str(), *label, *gold)).collect();
            said(name, if turn { &["c", "a", "b"] } else { &["a", "b", "c"] }, &rows)
        };
        let old = say("old", |row| row.0, false);
        let straight = align(&old, &say("new", |row| row.1, false), &[]).unwrap();
        let turned = align(&old, &say("new", |row| row.1, true), &[]).unwrap();
        prop_assert_eq!(shown(&straight), shown(&turned));
        let columns = [("c".to_owned(), rows.iter().map(|row| row.3.to_string()).collect())];
        let asked = Asked { slice_columns: &columns, min_slice_rows: 1, ..Asked::default() };
        let said = compare(&straight, &asked).unwrap();
        for kind in ["c", "predicted"] {
            let mut sum = Flips::default();
            said.slices.iter().filter(|slice| slice.kind == kind).for_each(|slice| sum += slice.measured.flips);
            prop_assert_eq!(sum, said.all.flips);
        }
        let mut of_classes = 0;
        said.classes.iter().for_each(|class| of_classes += class.flips.negative);
        prop_assert_eq!(of_classes, said.all.flips.negative);
        let lows: Vec<f64> = said.slices.iter().map(|slice| slice.measured.churn.unwrap().interval.low).collect();
        prop_assert!(lows.is_sorted_by(|one, other| one >= other));
    }
}
