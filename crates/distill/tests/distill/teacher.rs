//! What a run takes from tables: several teachers as one row of logits, labels by name, soft labels.

use std::fs;
use std::sync::atomic::AtomicBool;

use lowchurn_data::{TextEncoder, encode};
use lowchurn_distill::{
    Combine, Fingerprint, Scoring, Table, Teacher, predict, table_file_name, write_soft_labels,
};
use lowchurn_models::{Classifier, Head};
use tempfile::TempDir;

use crate::table::{message, model_folder, of, owned, table, texts};
use crate::{CPU, distance};

#[test]
fn ensembles_in_closed_form() {
    let ln = |p: &[f64]| p.iter().map(|p| p.ln() as f32).collect::<Vec<_>>();
    let tables = [
        table("a", &["no", "yes"], &ln(&[0.9, 0.1])),
        table("b", &["yes", "no"], &ln(&[0.7, 0.3])),
    ];
    let check = |tables: &[Table], combine, logits: &[f64], p: &[f64], said: &str| {
        let teacher = of(tables, &["0"], &["no", "yes"], combine).unwrap();
        let expected: Vec<f32> = logits.iter().map(|&z| z as f32).collect();
        assert!(distance(&teacher.logits, &expected) < 1e-6, "{:?}", teacher.logits);
        let found: Vec<f32> = teacher.probabilities(0, 1.0).iter().map(|&p| p as f32).collect();
        let p: Vec<f32> = p.iter().map(|&p| p as f32).collect();
        assert!(distance(&found, &p) < 1e-6, "{found:?}");
        assert_eq!(teacher.said, [said]);
    };
    check(
        &tables,
        Combine::Probabilities,
        &[0.6f64.ln(), 0.4f64.ln()],
        &[0.6, 0.4],
        "mean of the probabilities of a, b",
    );
    // √(0.9·0.3) against √(0.1·0.7).
    let (no, yes) = (0.27f64.sqrt(), 0.07f64.sqrt());
    check(
        &tables,
        Combine::Logits,
        &[no.ln(), yes.ln()],
        &[no / (no + yes), yes / (no + yes)],
        "mean of the logits of a, b",
    );
    // One teacher is left as it is: its logits aren't shifted.
    let one = table("a", &["no", "yes"], &[3.0, 1.0]);
    let e2 = 2f64.exp();
    let p = [e2 / (e2 + 1.0), 1.0 / (e2 + 1.0)];
    check(&[one], Combine::Probabilities, &[3.0, 1.0], &p, "scores of a");
}

#[test]
fn logits_stay_finite() {
    let most = f32::MAX;
    for combine in [Combine::Probabilities, Combine::Logits] {
        let tables = [
            table("a", &["no", "yes"], &[most, -most]),
            table("b", &["no", "yes"], &[most, -most]),
        ];
        let teacher = of(&tables, &["0"], &["no", "yes"], combine).unwrap();
        assert!(teacher.logits.iter().all(|z| z.is_finite()), "{:?}", teacher.logits);
        assert_eq!((teacher.predicted(0), teacher.probabilities(0, 1.0)), (0, vec![1.0, 0.0]));
    }
}

#[test]
fn new_classes_are_masked() {
    let table = table("old", &["red", "green", "blue"], &[1.0, -2.0, -3.0, -5.0, -7.0, -5.0]);
    let student = ["blue", "new", "green", "red"];
    let teacher = of(&[table], &["1", "0"], &student, Combine::Probabilities).unwrap();
    assert_eq!(teacher.known, [true, false, true, true]);
    assert_eq!(teacher.logits_of(1), [-3.0, 0.0, -2.0, 1.0]);
    assert_eq!(teacher.logits_of(0), [-5.0, 0.0, -7.0, -5.0]);
    // The masked 0 is larger than every known logit of row 0, and never wins; of equals the first does.
    assert_eq!((teacher.predicted(0), teacher.predicted(1)), (0, 3));
    let p = teacher.probabilities(0, 2.0);
    let e = (-1f64).exp();
    let expected = [1.0, 0.0, e, 1.0].map(|x| x / (2.0 + e));
    assert!(p.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{p:?}");
    assert_eq!(
        teacher.said,
        ["scores of old", "new: no class of the teacher's, masked out of its term"]
    );
}

#[test]
fn maps_reach_the_teacher_they_are_meant_for() {
    let tables =
        [table("a", &["n", "p"], &[1.0, 2.0]), table("b", &["LABEL_0", "LABEL_1"], &[5.0, 3.0])];
    let map = |text: &str| lowchurn_data::parse_map(text).unwrap();
    let of = |text: &str| {
        Teacher::of(&tables, &owned(&["0"]), &owned(&["p", "n"]), &map(text), Combine::Logits)
    };
    assert_eq!(of("LABEL_0=n,LABEL_1=p,Bad=n").unwrap().logits, [2.5, 3.0]);
    assert_eq!(
        of("LABEL_0=n,LABEL_l=p").unwrap_err().to_string(),
        "the teacher has classes that the student lacks: LABEL_1 (the student's: p, n); say which they are with --label-map \
         \"LABEL_1=LABEL\", or take a teacher of the same task"
    );
}

#[test]
fn teachers_that_are_refused() {
    let check = |tables: &[Table], ids: &[&str], student: &[&str], expected: &str| {
        let found = of(tables, ids, student, Combine::Probabilities);
        assert_eq!(found.unwrap_err().to_string(), expected);
    };
    let (two, three) =
        (table("v1", &["a", "b"], &[1.0, 2.0]), table("v2", &["a", "b", "c"], &[1.0, 2.0, 3.0]));
    check(&[], &["0"], &["a", "b"], "no teacher is given, and this needs at least one");
    check(
        std::slice::from_ref(&two),
        &["0", "x-17"],
        &["a", "b"],
        "row x-17 was not scored by teacher v1; score the rows of this run",
    );
    check(
        &[two, three],
        &["0"],
        &["a", "b", "c"],
        "teachers that are one must know the same classes: v1 knows a, b, v2 knows a, b, c; leave one of them out",
    );
}

/// The whole way of one teacher: raw texts, its own tokenizer, a table, a student with other classes.
#[test]
fn from_texts_to_targets() {
    let folder = model_folder();
    let rows = texts(|_| {});
    let (model, _) = Classifier::open(folder.path(), Head::FromCheckpoint, &CPU).unwrap();
    let tokens = encode(&TextEncoder::open(folder.path()).unwrap(), &rows, 16).unwrap();
    let fingerprint = &Fingerprint::of("old", folder.path(), model.labels(), 16, &rows).unwrap();
    let path = folder.path().join(table_file_name(fingerprint));
    let (model, rows, device) = (&model, &tokens, &CPU);
    let scoring = Scoring { model, rows, fingerprint, batch_size: 8, device };
    let stop = AtomicBool::new(false);
    let table = Table::open_or_build(&path, &scoring, &stop, &mut |_| {}).unwrap().unwrap();
    let ids = owned(&["2", "1"]);
    let student = owned(&["green", "red", "grey", "blue"]);
    let teacher = Teacher::of(&[table], &ids, &student, &[], Combine::Logits).unwrap();
    let expected = predict(model, &tokens, 8, &CPU, &mut |_| {}).unwrap();
    for (at, row) in [(0, 1), (1, 0)] {
        let &[red, green, blue] = expected.logits_of(row) else { panic!("three classes") };
        assert_eq!(teacher.logits_of(at), [green, red, 0.0, blue]);
    }
}

#[test]
fn soft_labels_for_other_trainers() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("soft.jsonl");
    let table =
        table("old", &["no", "yes"], &[0.8f32.ln(), 0.2f32.ln(), 0.5, 0.5, 3.0, 3.0, 0.0, 0.0]);
    let ids = owned(&["0", "1", "2", "3"]);
    let student = owned(&["no", "yes", "new \"\u{e9}\n"]);
    let teacher = Teacher::of(&[table], &ids, &student, &[], Combine::Logits).unwrap();
    let labels = [Some(1), Some(2), None, Some(0)];
    let write = |labels: &[Option<u32>], lambda, temperature| {
        write_soft_labels(&path, &teacher, &ids, labels, &student, lambda, temperature)
    };
    write(&labels, 0.5, 1.0).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = [[0.4, 0.6, 0.0], [0.0, 0.0, 1.0], [0.5, 0.5, 0.0], [0.75, 0.25, 0.0]];
    assert_eq!(lines.len(), 4);
    for ((line, id), expected) in lines.iter().zip(&ids).zip(expected) {
        assert_eq!(line["id"], **id);
        let target = line["target"].as_object().unwrap();
        assert_eq!(target.keys().collect::<Vec<_>>(), student.iter().collect::<Vec<_>>());
        for (p, expected) in target.values().zip(expected) {
            assert!((p.as_f64().unwrap() - expected).abs() < 1e-6, "{line}");
        }
    }
    // T = 2 takes the square root of the odds: 4 to 1 become 2 to 1.
    write(&labels, 1.0, 2.0).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert!((first["target"]["no"].as_f64().unwrap() - 2.0 / 3.0).abs() < 1e-6, "{first}");

    let check = |labels: &[Option<u32>], lambda, temperature, expected: &str| {
        assert_eq!(message(write(labels, lambda, temperature), &dir), expected);
    };
    check(&labels, 1.5, 1.0, "lambda is 1.5, expected a number from 0 to 1");
    check(&labels, f64::NAN, 1.0, "lambda is NaN, expected a number from 0 to 1");
    check(&labels, 0.5, 0.0, "temperature is 0, expected a number above 0");
    check(&[Some(3)], 0.5, 1.0, "row 0: label 3, but the model has 3 classes");
}
