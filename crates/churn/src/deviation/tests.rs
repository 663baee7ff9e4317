//! Deviations against the worked examples of the papers, and what is said of them.

use serde_json::Value;

use super::*;

fn papers(key: &str) -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/papers_examples.json");
    let all: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    all[key].clone()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn side(name: &str, labels: &[&str], gold: &[Option<u32>], logits: &[f32]) -> Logits {
    Logits {
        name: name.into(),
        labels: labels.iter().map(|label| label.to_string()).collect(),
        ids: (0..gold.len()).map(|row| format!("row-{row}")).collect(),
        gold: gold.to_vec(),
        logits: logits.to_vec(),
    }
}

/// Two classes: φ of the first is the difference of the logits.
fn binary(name: &str, phi: &[f64]) -> Logits {
    let logits: Vec<f32> = phi.iter().flat_map(|phi| [*phi as f32, 0.0]).collect();
    side(name, &["no", "yes"], &vec![Some(0); phi.len()], &logits)
}

fn of(x: &[f64], y: &[f64]) -> Part {
    let (pair, points) = deviations(&binary("t", x), &binary("s", y), &[]).unwrap();
    part((RowsOf::Test, "rows"), &pair, &points, 0.5, 0.95).unwrap()
}

/// papers_examples.json, D1.
#[test]
fn log_odds_are_those_of_the_papers() {
    let case = papers("D1_logit_transform");
    let (z, phi) = (numbers(&case["z"]), numbers(&case["phi"]));
    for (k, expected) in phi.iter().enumerate() {
        assert!((log_odds(&z, k) - expected).abs() < 6e-9);
    }
    // log(p/(1 − p)) is infinite here, in f32 and in f64.
    assert_eq!(log_odds(&[60.0, -20.0], 0), 80.0);
    assert_eq!(log_odds(&[60.0, -20.0], 1), -80.0);
}

/// papers_examples.json, D2; f32 logits leave seven digits.
#[test]
fn slopes_are_those_of_the_papers() {
    let case = papers("D2_exaggeration_slopes");
    // The teacher's own class of a negative φ would be the other one, so all is lifted: slopes stay, the crossing moves along.
    let lift = 10.0;
    let x: Vec<f64> = numbers(&case["X"]).iter().map(|x| x + lift).collect();
    let y: Vec<f64> = numbers(&case["Y"]).iter().map(|y| y + lift).collect();
    let found = of(&x, &y);
    let close = |found: f64, key: &str| {
        let expected = case[key].as_f64().unwrap();
        assert!((found - expected).abs() < 2e-6, "{key}: {found} {expected}");
    };
    let line = |fit: &Fit| fit.line.unwrap();
    close(line(&found.all).slope, "slope_all");
    close(line(&found.low).slope, "slope_low_half");
    close(line(&found.high).slope, "slope_high_half");
    close(line(&found.all).intercept - lift * (1.0 - line(&found.all).slope), "icpt_all");
    close(found.crossing.unwrap() - lift, "crossing_X_eq_Y");
    close(found.low.mean_deviation, "mean_dev_low");
    close(found.high.mean_deviation, "mean_dev_high");
    assert_eq!(found.finding, Finding::Exaggerates);
    assert!((found.spearman.unwrap() - 1.0).abs() < 1e-12);
    assert_eq!(found.quarters.iter().map(|fit| fit.rows).collect::<Vec<_>>(), [2; 4]);
}

#[test]
fn rows_are_found_by_id_and_classes_by_name() {
    let teacher = side("t", &["a", "b", "c"], &[Some(0), Some(2)], &[2.0, 1.0, 0.0, 0.0, 1.0, 3.0]);
    let mut student =
        side("s", &["c", "a", "d", "b"], &[None; 2], &[0.5, 3.0, 9.0, 1.5, 1.0, 2.0, 9.0, 4.0]);
    student.ids.reverse(); // its first row is the teacher's second
    let (pair, points) = deviations(&teacher, &student, &[]).unwrap();
    assert_eq!(pair.ids, ["row-0", "row-1"]);
    // d is unknown to the teacher and plays no part in φ.
    let expected = [
        [log_odds(&[2.0, 1.0, 0.0], 0), log_odds(&[2.0, 4.0, 1.0], 0)],
        [log_odds(&[0.0, 1.0, 3.0], 2), log_odds(&[3.0, 1.5, 0.5], 2)],
    ];
    assert_eq!(points, expected);
    // Two of the teacher's classes are one of the student's: their probabilities are added.
    let student = side("s", &["ab", "c"], &[None; 2], &[1.0, 0.0, 0.0, 2.0]);
    let map = [("a".to_string(), "ab".to_string()), ("b".to_string(), "ab".to_string())];
    let (_, points) = deviations(&teacher, &student, &map).unwrap();
    let merged = (2f64.exp() + 1f64.exp()).ln();
    assert!((points[0][0] - merged).abs() < 1e-12 && points[0][1] == 1.0);
}

#[test]
fn what_cannot_be_diagnosed_says_why() {
    let teacher = side("t", &["a", "b"], &[None; 2], &[2.0, 1.0, 0.0, 1.0]);
    let said = |student: &Logits, map: &[(&str, &str)]| {
        let map: Vec<(String, String)> =
            map.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
        deviations(&teacher, student, &map).unwrap_err().to_string()
    };
    let other = side("s", &["x", "y"], &[None; 2], &[0.0; 4]);
    assert_eq!(
        said(&other, &[]),
        "t has labels that s doesn't: a, b (its labels: x, y); say what became of them with --label-map a=NEW,b=NEW"
    );
    let fewer = side("s", &["a", "x"], &[None; 2], &[0.0; 4]);
    assert_eq!(said(&fewer, &[("b", "b")]), "s doesn't have the label \"b\" (labels: a, x)");
    let one = [("a", "x"), ("b", "x")];
    assert_eq!(
        said(&fewer, &one),
        "t tells fewer than two classes apart (a, b), and how sure a model is of the only one says nothing"
    );
    let same = side("s", &["a", "b"], &[None; 2], &[0.0, f32::NAN, 0.0, 0.0]);
    assert!(said(&same, &[]).contains("row-0"), "{}", said(&same, &[]));
    let mut rows = side("s", &["a", "b"], &[None; 2], &[0.0; 4]);
    rows.ids[1] = "another".into();
    assert!(said(&rows, &[]).starts_with("t and s hold different rows: 1 only in the old (row-1)"));
    let (pair, points) = deviations(&teacher, &teacher.clone(), &[]).unwrap();
    let of = |quantile, confidence| {
        part((RowsOf::Test, ""), &pair, &points, quantile, confidence).unwrap_err().to_string()
    };
    assert_eq!(of(1.0, 0.95), "a quantile of 1; expected a share between 0 and 1, such as 0.5");
    assert!(of(0.5, 1.0).starts_with("a confidence of 1; expected"));
}

#[test]
fn too_few_rows_and_constant_logits_say_so() {
    let check = |x: &[f64], y: &[f64], finding, words: &str| {
        let found = of(x, y);
        assert_eq!((found.finding, found.said.as_str()), (finding, words));
    };
    check(&[2.0], &[3.0], Finding::NoSlope, "1 test row: too few for a slope");
    check(
        &[2.0, 3.0],
        &[3.0, 5.0],
        Finding::Undecided,
        "2 test rows: slope 2.000 (no interval); too few rows to say more",
    );
    check(
        &[1.0, 2.0, 3.0],
        &[0.9, 3.2, 4.0],
        Finding::Undecided,
        "3 test rows: slope 1.550 (−11.927 to 15.027); the interval holds 1, so these rows don't say whether the student exaggerates",
    );
    check(
        &[2.0; 5],
        &[1.0, 2.0, 3.0, 4.0, 5.0],
        Finding::NoSlope,
        "5 test rows: the teacher is equally sure of all of them, so there is no slope",
    );
    check(
        &[1.0, 2.0, 3.0, 4.0],
        &[2.5; 4],
        Finding::Softens,
        "4 test rows: slope 0.000 (0.000 to 0.000); the student softens the teacher's confidence",
    );
    assert_eq!(of(&[2.0], &[3.0]).crossing, None);
    // The same line: it crosses nowhere, and the same model deviates from itself by nothing.
    let same = of(&[1.0, 2.0, 4.0], &[1.0, 2.0, 4.0]);
    assert_eq!((same.crossing, same.all.mean_deviation, same.finding), (None, 0.0, Finding::Alike));
    assert!(same.said.ends_with("; the two say the same of every row"), "{}", same.said);
    let advice = diagnosis(vec![same], 0.5, &Training::default()).advice;
    assert_eq!(advice, "These rows give no reason to change how the student is trained.");
    // y = 0.9·x + 1 meets y = x at 10, where no row is.
    let far = of(&[1.0, 2.0, 4.0, 5.0], &[1.9, 2.8, 4.6, 5.5]);
    assert_eq!((far.crossing, far.finding), (None, Finding::Softens));
}

#[test]
fn a_slope_as_near_to_1_as_makes_no_difference_is_no_finding() {
    let check = |push: f64, shift: f64, words: &str| {
        let (x, y) = pushed(push, shift);
        let found = of(&x, &y);
        assert_eq!(found.finding, Finding::Alike, "{}", found.said);
        let line = found.all.line.unwrap();
        let low = line.interval.unwrap().low;
        assert!(low > 1.0, "sure as it is: {}", found.said);
        assert!(found.said.ends_with(words), "{}", found.said);
    };
    let near = "no further from 1 than 0.05, which doesn't matter";
    check(0.02, 0.0, &format!("{near}: the student is as sure as the teacher"));
    check(0.02, 1.0, &format!("{near}, but the student is surer in the mean (+1.00)"));
    check(0.02, -1.0, &format!("{near}, but the student is less sure in the mean (−1.00)"));
    // Surely above 1; but whether far enough the rows don't say.
    let (x, y) = pushed(0.049, 0.0);
    let said = of(&x, &y).said;
    assert!(
        said.ends_with("more rows would say whether it is far enough from it to matter"),
        "{said}"
    );
}

/// y = x + push·(x − 3) + little noise, over φ of 0 to 6.
fn pushed(push: f64, shift: f64) -> (Vec<f64>, Vec<f64>) {
    let x: Vec<f64> = (0..400).map(|row| 0.01 + 6.0 * row as f64 / 400.0).collect();
    let y = x.iter().enumerate().map(|(row, x)| {
        x + shift + push * (x - 3.0) + 0.05 * f64::from((row * 7 % 11) as u32) - 0.25
    });
    let y = y.collect();
    (x, y)
}

#[test]
fn exaggeration_is_named_and_advised_on() {
    let check = |push: f64, shift: f64, words: &[&str], advice: &str| {
        let (x, y) = pushed(push, shift);
        let found = of(&x, &y);
        for words in words {
            assert!(found.said.contains(words), "{}", found.said);
        }
        let said = diagnosis(vec![found], 0.5, &Training::default()).advice;
        assert!(said.starts_with(advice), "{said}");
    };
    let (under, over) = ("low-confidence underfitting, −", "high-confidence overfitting, +");
    check(
        0.3,
        0.0,
        &["the student exaggerates", under, over],
        "To follow the teacher more closely, raise T.",
    );
    check(0.3, -1.0, &[under], "To follow the teacher where it is unsure, raise T or train");
    check(0.3, 1.0, &[over], "To follow the teacher where it is sure, raise T or stop");
    let closer = "To follow the teacher more closely, train the student longer.";
    let (less, more) = ("less sure where the teacher is sure (−", "surer where it is unsure (+");
    check(
        -0.3,
        0.0,
        &["the student softens the teacher's confidence: it is less", less, more],
        closer,
    );
    check(-0.3, 1.0, &["confidence: it is surer where it is unsure (+1.4"], closer);
    check(-0.3, -1.0, &["confidence: it is less sure where the teacher is sure (−1.4"], closer);
    let advice_on = |part: Part| diagnosis(vec![part], 0.5, &Training::default()).advice;
    let nothing = advice_on(of(&[1.0], &[2.0]));
    assert_eq!(nothing, "Nothing can be said of these rows; take others, or more.");
    let few = advice_on(of(&[1.0, 2.0], &[2.0, 2.0]));
    assert!(few.starts_with("These rows give no reason to change"), "{few}");
}

#[test]
fn a_teacher_that_does_not_fit_its_rows_sends_to_the_labels() {
    let (x, y) = pushed(0.3, 0.0);
    let (teacher, student) = (binary("t", &x), binary("s", &y));
    let part_of = |rows_of, wrong: usize| {
        let mut teacher = teacher.clone();
        teacher.gold[..wrong].fill(Some(1));
        let student = Logits { gold: teacher.gold.clone(), ..student.clone() };
        let (pair, points) = deviations(&teacher, &student, &[]).unwrap();
        part((rows_of, "rows"), &pair, &points, 0.5, 0.95).unwrap()
    };
    let advice = |wrong| {
        let parts = vec![part_of(RowsOf::Test, 0), part_of(RowsOf::Train, wrong)];
        diagnosis(parts, 0.5, &Training::default()).advice
    };
    let said = "Of the student's training rows the teacher has 90.00% right, so labels may add what it doesn't know: for accuracy try \
                a lower λ, or finish on them (--switch-at 75% --switch-to labels).";
    assert!(advice(40).ends_with(said), "{}", advice(40));
    assert!(!advice(4).contains("labels"), "{}", advice(4));
    assert!(advice(4).starts_with("To follow the teacher more closely, raise T."), "{}", advice(4));
    // Of the low rows the student takes some for the other class.
    assert!(
        advice(0).contains("The student is less often right than the teacher"),
        "{}",
        advice(0)
    );
    // Where rows don't tell which of them is right more often, nothing follows from it.
    let told = part_of(RowsOf::Test, 0);
    assert!(told.accuracy_p.unwrap() < 0.05, "{told:?}");
    let unclear =
        diagnosis(vec![Part { accuracy_p: Some(0.38), ..told }], 0.5, &Training::default());
    let said_so =
        " of the rows, which don't tell which of them is right more often (McNemar's mid-p 0.38).";
    assert!(unclear.advice.ends_with(said_so), "{}", unclear.advice);
    let of_one = |last_lambda| {
        let taught = Taught::By { last_lambda, temperature: Temperature::Free };
        let training = Training { taught, ..Training::default() };
        let parts = vec![part_of(RowsOf::Test, 0), part_of(RowsOf::Train, 40)];
        diagnosis(parts, 0.5, &training).advice
    };
    assert!(of_one(Some(0.5)).ends_with(said) && of_one(None).ends_with(said));
    let finished = "the teacher has 90.00% right; what it doesn't know the student has from the labels, on which it finished.";
    assert!(of_one(Some(0.0)).ends_with(finished), "{}", of_one(Some(0.0)));
}

#[test]
fn what_cannot_be_done_or_was_done_is_not_advised() {
    let alone = Taught::Alone("retrain".into());
    let by = |last_lambda: f64, held: Option<&str>| Taught::By {
        last_lambda: Some(last_lambda),
        temperature: held.map_or(Temperature::Free, |why| Temperature::Held(why.into())),
    };
    let held = Some("variance reduction unbiased holds T at 1");
    let check = |(push, shift): (f64, f64), taught: &Taught, epochs: (u32, u32), advice: &str| {
        let (x, y) = pushed(push, shift);
        let training = Training {
            taught: taught.clone(),
            student_epochs: Some(epochs.0),
            teacher_epochs: Some(epochs.1),
        };
        let said = diagnosis(vec![of(&x, &y)], 0.5, &training).advice;
        assert!(said.starts_with(advice), "{said}\nexpected: {advice}");
    };
    let (exaggerated, softened, under, over) = ((0.3, 0.0), (-0.3, 0.0), (0.3, -1.0), (0.3, 1.0));
    let nobody = "The student followed no teacher (method retrain), so neither T nor λ had a part in this; to bring it nearer, let it \
                  follow this one: lowchurn distil DATA --teacher TEACHER.";
    check(exaggerated, &alone, (3, 3), nobody);
    check(softened, &alone, (3, 3), nobody);
    let closely = "To follow the teacher more closely, ";
    check(exaggerated, &by(0.5, None), (3, 3), &format!("{closely}raise T."));
    let why = "(variance reduction unbiased holds T at 1)";
    check(exaggerated, &by(0.5, held), (3, 3), &format!("{closely}raise λ {why}."));
    check(
        exaggerated,
        &by(0.0, held),
        (3, 3),
        &format!("{closely}finish on the labels later {why}."),
    );
    check(
        exaggerated,
        &by(1.0, held),
        (3, 3),
        &format!(
            "Nothing is known here that would make the student follow the teacher more closely {why}."
        ),
    );
    check(
        under,
        &by(0.5, held),
        (3, 3),
        "To follow the teacher where it is unsure, train the student longer.",
    );
    check(under, &by(0.5, None), (9, 3), "To follow the teacher where it is unsure, raise T.");
    check(
        over,
        &by(0.5, held),
        (3, 3),
        "To follow the teacher where it is sure, stop the student earlier.",
    );
    check(softened, &by(0.5, None), (3, 3), &format!("{closely}train the student longer."));
    check(softened, &by(0.5, None), (9, 3), &format!("{closely}raise T."));
    let longer = "(variance reduction unbiased holds T at 1; it was trained for 9 epochs, the teacher for 3)";
    check(softened, &by(0.5, held), (9, 3), &format!("{closely}raise λ {longer}."));
}

#[test]
fn pictures_hold_a_sample() {
    let x: Vec<f64> = (0..4000).map(|row| 1.0 + row as f64 / 1000.0).collect();
    let found = of(&x, &x);
    assert_eq!((found.rows, found.points.len()), (4000, SHOWN));
    assert_eq!(found.points, of(&x, &x).points);
    assert!(found.points.windows(2).all(|two| two[0][0] < two[1][0]));
}

/// [`pushed`], of rows that all have this true class or none.
fn pushed_part(push: f64, shift: f64, gold: Option<u32>) -> Part {
    let (x, y) = pushed(push, shift);
    let of = |name: &str, phi: &[f64]| Logits { gold: vec![gold; phi.len()], ..binary(name, phi) };
    let (pair, points) = deviations(&of("t", &x), &of("s", &y), &[]).unwrap();
    part((RowsOf::Test, "rows"), &pair, &points, 0.5, 0.95).unwrap()
}

/// A slope is alike where its whole interval is within a twentieth of 1, also where it isn't 1.
#[test]
fn slopes_near_one_are_alike_and_others_undecided() {
    let near = pushed_part(-0.02, 0.0, Some(0));
    assert!(near.all.line.unwrap().interval.unwrap().high < 1.0);
    assert_eq!(near.finding, Finding::Alike, "{}", near.said);
    assert_eq!(pushed_part(-0.049, 0.0, Some(0)).finding, Finding::Undecided);
}

#[test]
fn without_true_classes_nothing_is_said_of_accuracy() {
    let unlabelled = pushed_part(0.02, 0.05, None);
    assert_eq!(unlabelled.accuracy_p, None);
    assert!(unlabelled.all.mean_interval.unwrap().low > 0.0);
    let said = &unlabelled.said;
    assert!(said.ends_with("the student is as sure as the teacher"), "{said}");
}

#[test]
fn gaps_of_classes_are_of_labelled_rows() {
    let logits = side("t", &["no", "yes"], &[Some(0), None], &[0.0; 4]);
    let (pair, points) = deviations(&logits, &logits, &[]).unwrap();
    let part = part((RowsOf::Test, ""), &pair, &points, 0.5, 0.95).unwrap();
    assert_eq!(part.class_gaps.unwrap().classes[0].mean_score, 0.5);
}
