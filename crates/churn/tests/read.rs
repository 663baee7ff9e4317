//! Prediction files of every kind, good and bad.

use std::path::{Path, PathBuf};

use lowchurn_churn::{Names, Predicted, RowsBy};
use proptest::prelude::*;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// What was read, in a line; or the message without the folder.
    fn shown(&self, name: &str, text: &str, names: &Names) -> String {
        let path = self.write(name, text.as_bytes());
        match Predicted::read(&path, names) {
            Ok(read) => shown(&read),
            Err(error) => error.to_string().replace(&format!("{}/", self.0.path().display()), ""),
        }
    }
}

// id>predicted/gold for each row, behind the labels; then the first row's scores and the notes.
fn shown(read: &Predicted) -> String {
    let row = |row: usize| {
        let gold = read.gold[row].map_or("-", |class| &read.labels[class as usize]);
        format!("{}>{}/{gold}", read.ids[row], read.labels[read.predicted[row] as usize])
    };
    let rows: Vec<String> = (0..read.rows()).map(row).collect();
    let scores = read
        .scores
        .as_ref()
        .map_or(String::new(), |all| format!(" | {:?}", &all[..read.labels.len()]));
    let notes: String = read.notes.iter().map(|note| format!(" | {note}")).collect();
    format!("{} | {}{scores}{notes}", read.labels.join(" "), rows.join(" "))
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/predictions").join(name)
}

#[test]
fn files_of_every_stack_are_read() {
    let folder = Folder::new();
    let check = |name: &str, text: &str, expected: &str| {
        assert_eq!(folder.shown(name, text, &Names::default()), expected, "{name}: {text}");
    };
    let own = r#"{"id":"1","label":"pos","gold":"neg","scores":{"pos":0.75,"neg":0.25},"logits":[1.5,0.1]}
{"id":"2","label":"neg","scores":{"pos":0.25,"neg":0.75}}"#;
    check("own.jsonl", own, "pos neg | 1>pos/neg 2>neg/- | [0.75, 0.25]");
    let unlabelled = r#"{"id":"1","label":"b","scores":{"a":0.25,"b":0.75}}"#;
    check("own.jsonl", unlabelled, "a b | 1>b/- | [0.25, 0.75]");
    check("a.csv", "id,prediction\n7,b\n8,a\n", "a b | 7>b/- 8>a/-");
    check("a.csv", "id,label\n7,b\n8,a\n", "a b | 7>b/- 8>a/-");
    check("a.csv", "ID,Label,Gold\n7,b,a\n8,a,\n", "a b | 7>b/a 8>a/-");
    check(
        "a.csv",
        "id,label,pred\n7,b,a\n8,a,a\n",
        "a b | 7>a/b 8>a/a | only \"a\" is ever predicted",
    );
    check(
        "sk.csv",
        "idx,y_true,prob_a,prob_b\n7,b,0.25,0.75\n8,b,.5,5e-1\n",
        "a b | 7>b/b 8>a/b | [0.25, 0.75]",
    );
    check("t.tsv", "row_id\ty_pred\ttarget\n1\tx\ty\n2\ty\ty\n", "x y | 1>x/y 2>y/y");
    check("s.csv", "id;pred\n1;x\n2;y\n", "x y | 1>x/- 2>y/-");
    check("q.csv", "id,text,pred\n1,\"a\nb,c\",x\n2,\"\"\"q\"\"\",y\n", "x y | 1>x/- 2>y/-");
    check("bom.csv", "\u{feff}id,pred\r\n1,x\r\n2,y\r\n", "x y | 1>x/- 2>y/-");
    // Numbers, as pandas writes them once a cell is empty.
    check("n.csv", "id,pred,gold\n1,10,2.0\n2,2,\n", "2 10 | 1>10/2 2>2/-");
    check(
        "n.jsonl",
        "{\"id\":1,\"pred\":1,\"gold\":0}\n{\"id\":2,\"pred\":0,\"gold\":null}",
        "0 1 | 1>1/0 2>0/-",
    );
    check(
        "b.jsonl",
        "{\"id\":1,\"pred\":true}\n{\"id\":2,\"pred\":false}",
        "false true | 1>true/- 2>false/-",
    );
    // Scores in one cell; the keys' order differs in the second row.
    check(
        "p.csv",
        "id,scores\n1,\"{\"\"a\"\": 0.25, \"\"b\"\": 0.75}\"\n2,\"{\"\"b\"\": 0, \"\"a\"\": 1}\"\n",
        "a b | 1>b/- 2>a/- | [0.25, 0.75]",
    );
    check("p.jsonl", r#"{"id":1,"pred":1,"proba":[0.25,0.75]}"#, "0 1 | 1>1/- | [0.25, 0.75]");
    // What is predicted needn't be the top class: somebody's threshold.
    check(
        "th.csv",
        "id,pred,prob_a,prob_b\n1,a,0.25,0.75\n2,b,0.25,0.75\n",
        "a b | 1>a/- 2>b/- | [0.25, 0.75] | predictions that aren't the class of the highest score: 1",
    );
    // A true class that the model doesn't know has no score.
    check(
        "g.csv",
        "id,gold,prob_a,prob_b\n1,c,0.25,0.75\n2,a,1,0\n",
        "a b c | 1>b/c 2>a/a | [0.25, 0.75, 0.0]",
    );
    check(
        "m.csv",
        "id,gold,prob_0,prob_1\n1,-1,0.25,0.75\n2,0,1,0\n",
        "0 1 | 1>1/- 2>0/0 | [0.25, 0.75] | rows with the true class -1, which count as unlabelled: 1",
    );
    check("m.csv", "id,pred,gold\n1,0,-1\n2,1,1\n", "-1 0 1 | 1>0/-1 2>1/1");
}

#[test]
fn a_key_that_comes_late_is_read() {
    // The first rows are unlabelled; the head of the file doesn't know of a gold label.
    let mut text = String::new();
    for row in 0..150 {
        text += &format!("{{\"id\":{row},\"pred\":\"{}\"}}\n", ["a", "b"][row % 2]);
    }
    text += "{\"id\":150,\"pred\":\"a\",\"gold\":\"b\"}\n";
    let folder = Folder::new();
    let path = folder.write("late.jsonl", text.as_bytes());
    let read = Predicted::read(&path, &Names::default()).unwrap();
    assert_eq!((read.rows(), read.gold[150], read.gold[0]), (151, Some(1), None));
}

#[test]
fn columns_can_be_named() {
    let folder = Folder::new();
    let some = |name: &str| Some(name.to_owned());
    let check = |text: &str, names: &Names, expected: &str| {
        assert_eq!(folder.shown("a.csv", text, names), expected);
    };
    let odd = "doc,says,is,s:a,s:b\n1,a,b,0.75,0.25\n2,b,b,0.25,0.75\n";
    let names = Names {
        id: some("doc"),
        prediction: some("says"),
        gold: some("is"),
        scores: some("s:"),
        ..Names::default()
    };
    check(odd, &names, "a b | 1>a/b 2>b/b | [0.75, 0.25]");
    let names = Names { gold: some("none"), ..Names::default() };
    check("id,pred,gold\n1,a,b\n2,b,b\n", &names, "a b | 1>a/- 2>b/-");
    let names = Names { scores: some("none"), ..Names::default() };
    check("id,pred,prob_a,prob_b\n1,a,7,7\n2,b,7,7\n", &names, "a b | 1>a/- 2>b/-");
    let names = Names { rows: RowsBy::Position, ..Names::default() };
    check("pred\na\nb\n", &names, "a b | 0>a/- 1>b/-");
    let names = Names { labels: vec!["neg".to_owned(), "pos".to_owned()], ..Names::default() };
    check("id,probs\n1,\"[0.25, 0.75]\"\n", &names, "neg pos | 1>pos/- | [0.25, 0.75]");
    let names = Names { prediction: some("label"), ..Names::default() };
    check("id,label,prob_a,prob_b\n1,a,1,0\n2,b,0,1\n", &names, "a b | 1>a/- 2>b/- | [1.0, 0.0]");
    let names = Names { gold: some("label"), ..Names::default() };
    check("id,label,prob_a,prob_b\n1,b,1,0\n", &names, "a b | 1>a/b | [1.0, 0.0]");
}

#[test]
fn columns_are_what_their_names_and_values_say() {
    let folder = Folder::new();
    let check = |name: &str, text: &str, names: &Names, expected: &str| {
        assert_eq!(folder.shown(name, text, names), expected);
    };
    let any = Names::default();
    // Class names that are numbers, with a −1 among them, are names.
    check(
        "a.csv",
        "id,gold,prob_-1,prob_0,prob_1\n1,-1,0.75,0.25,0\n2,1,0,0,1\n",
        &any,
        "-1 0 1 | 1>-1/-1 2>1/1 | [0.75, 0.25, 0.0]",
    );
    check("b.csv", "id,pred\n1, x \n2,x\n3,y\n", &any, "x y | 1>x/- 2>x/- 3>y/-");
    // A p-value is no score of a class, and a column without a class behind its prefix is none.
    check("c.csv", "id,pred,p_value\n1,x,0.03\n2,y,0.5\n", &any, "x y | 1>x/- 2>y/-");
    check("d.csv", "id,prob_a,prob_b,prob_\n1,0.25,0.75,0.5\n", &any, "a b | 1>b/- | [0.25, 0.75]");
    let no_gold = Names { gold: Some("none".into()), ..Names::default() };
    check("e.csv", "id,pred,label\n1,x,x\n2,y,x\n", &no_gold, "x y | 1>x/- 2>y/-");
    let below_zero = folder.write("f.csv", b"id,prob_a,prob_b\n1,-0.0005,1.0005\n");
    assert!(Predicted::read(&below_zero, &any).is_err());
}

#[test]
fn sets_and_numbers_have_ids_scores_and_truths_as_classes_have() {
    let folder = Folder::new();
    let row = |id: &str, scores: &str| {
        format!("{{\"id\":\"{id}\",\"labels\":[\"a\"],\"scores\":{{{scores}}}}}\n")
    };
    let (ab, ac) = ("\"a\":0.9,\"b\":0.8", "\"a\":0.9,\"c\":0.8");
    let any = Names::default();
    let others = folder.shown("a.jsonl", &(row("x", ab) + &row("y", ac)), &any);
    let said = "a.jsonl:2: its scores are of other labels than the first row's, column 1";
    assert_eq!(others, said);
    let twice = folder.shown("b.jsonl", &(row("x", ab) + &row("x", ab)), &any);
    assert!(twice.contains("twice"), "{twice}");
    let numbers = Names { tolerance: Some(0.5), ..Names::default() };
    let asked = Names { prediction: Some("label".into()), ..numbers.clone() };
    let read = |name: &str, text: &str, names: &Names| {
        Predicted::read(&folder.write(name, text.as_bytes()), names).unwrap()
    };
    assert_eq!(read("c.csv", "id,label\nx,1\n", &asked).gold, [None]);
    let no_gold = Names { gold: Some("none".into()), ..numbers };
    assert_eq!(read("d.csv", "id,prediction,gold\nx,1,2\n", &no_gold).gold, [None]);
}

#[test]
fn messages() {
    let folder = Folder::new();
    // All at once, for a changed word changes many.
    let wrong = std::cell::RefCell::new(Vec::new());
    let check = |name: &str, text: &str, expected: &str| {
        let got = folder.shown(name, text, &Names::default());
        if got != expected {
            wrong.borrow_mut().push(format!("got      {got}\nexpected {expected}"));
        }
    };
    check(
        "a.csv",
        "pred,text\na,b\n",
        "a.csv: no id column (columns: pred, text); name it with --id-column, or, where both files hold the same rows in the same order, ask for --by-position",
    );
    check(
        "a.csv",
        "id,text\n1,b\n",
        "a.csv: no prediction column and no scores (columns: id, text); name one with --prediction-column or --score-column",
    );
    check(
        "a.csv",
        "id,pred,y_hat\n1,a,b\n",
        "a.csv: several columns may be the prediction (pred, y_hat); name the one with --prediction-column",
    );
    check(
        "a.csv",
        "id,pred,gold,target\n1,a,b,c\n",
        "a.csv: several columns may be the gold (gold, target); name the one with --gold-column",
    );
    check(
        "a.csv",
        "id,label,prob_a,prob_b\n1,a,1,0\n",
        "a.csv: column \"label\" may be the prediction or the true class; say which with --prediction-column label or --gold-column label",
    );
    check("a.csv", "id,pred,pred\n1,a,b\n", "a.csv: column \"pred\" is there twice");
    check("a.csv", "id,pred\n", "a.csv: no rows in it");
    check("a.csv", "", "a.csv: no header and no rows in it");
    check("a.jsonl", "\n", "a.jsonl: no header and no rows in it");
    check("a.csv", "id,pred\n1,a\n,b\n", "a.csv:3: the id is empty; every row needs one");
    check("a.csv", "id,pred\n1,a\n2,\n", "a.csv:3: no prediction in this row");
    check(
        "a.csv",
        "id,pred\n1,a\n2,b\n1,a\n",
        "a.csv:4: id \"1\" of column \"id\" is there twice, first at a.csv:2; ids must be unique",
    );
    check(
        "a.jsonl",
        "{\"id\":1,\"pred\":\"a\"}\n{\"pred\":\"a\"}",
        "a.jsonl:2: the id is empty; every row needs one",
    );
    check(
        "a.csv",
        "id,pred\n1,0\n2,0.73\n",
        "a.csv:3: column \"pred\" holds 0.73, a score and not a class; scores belong in columns such as prob_NAME, one a class",
    );
    check(
        "a.csv",
        "id,pred,y\n1,0,0.5\n",
        "a.csv:2: column \"y\" holds 0.5, a score and not a class; scores belong in columns such as prob_NAME, one a class",
    );
    let scores = |row: &str| format!("id,prob_a,prob_b\n1,0.5,0.5\n2,{row}\n");
    check(
        "a.csv",
        &scores("x,0.5"),
        "a.csv:3: the score of \"a\" is \"x\", not a probability between 0 and 1",
    );
    check(
        "a.csv",
        &scores("0.5,nan"),
        "a.csv:3: the score of \"b\" is \"nan\", not a probability between 0 and 1",
    );
    check(
        "a.csv",
        &scores("inf,0"),
        "a.csv:3: the score of \"a\" is inf, not a probability between 0 and 1",
    );
    check(
        "a.csv",
        &scores("-1.2,2.2"),
        "a.csv:3: the score of \"a\" is -1.2, not a probability between 0 and 1 (logits must be passed through softmax first)",
    );
    check(
        "a.csv",
        &scores("1.5,0.5"),
        "a.csv:3: the score of \"a\" is 1.5, not a probability between 0 and 1 (logits must be passed through softmax first)",
    );
    check(
        "a.csv",
        &scores("0.5,0.502"),
        "a.csv:3: the scores sum to 1.0020, not to 1 (within 0.001); logits must be passed through softmax first, and scores of independent classes divided by their sum",
    );
    check("a.csv", &scores("0.5,0.5009"), "a b | 1>a/- 2>b/- | [0.5, 0.5]");
    check(
        "a.csv",
        &scores("1,"),
        "a.csv:3: no score of \"b\", which other rows have; every row needs the scores of all classes",
    );
    check(
        "a.jsonl",
        "{\"id\":1,\"scores\":{\"a\":1}}\n{\"id\":2,\"scores\":{\"a\":\"x\"}}",
        "a.jsonl:2: the score of \"a\" is \"x\", not a probability between 0 and 1",
    );
    check(
        "a.jsonl",
        "{\"id\":1,\"scores\":{\"a\":null}}",
        "a.jsonl:1: the score of \"a\" is null, not a probability between 0 and 1",
    );
    check(
        "a.jsonl",
        "{\"id\":1,\"scores\":{\"a\":1,\"b\":0}}\n{\"id\":2,\"scores\":{\"a\":1}}",
        "a.jsonl:2: no score of \"b\", which other rows have; every row needs the scores of all classes",
    );
    check(
        "a.jsonl",
        "{\"id\":1,\"scores\":{\"a\":1}}\n{\"id\":2,\"scores\":{\"b\":1}}",
        "a.jsonl:2: \"b\" has a score here, but not in the first row, column 21",
    );
    check(
        "a.jsonl",
        "{\"id\":1,\"scores\":{\"a\":1,\"a\":0}}",
        "a.jsonl:1: class \"a\" has two scores, column 27",
    );
    check(
        "a.jsonl",
        "{\"id\":1,\"scores\":{\"a\":1}}\n{\"id\":2,\"scores\":[1]}",
        "a.jsonl:2: scores in a list here, in an object in the first row, column 18",
    );
    check(
        "a.jsonl",
        "{\"id\":1,\"pred\":0,\"scores\":[1]}\n{\"id\":2,\"pred\":0,\"scores\":[0.5,0.5]}",
        "a.jsonl:2: 2 scores where 1 were expected",
    );
    check(
        "a.jsonl",
        "{\"id\":1,\"pred\":\"a\",\"scores\":[0.5,0.5]}",
        "a.jsonl: the scores stand in a list, and nothing says whose they are; name the classes in its order with --labels",
    );
    check(
        "a.csv",
        "id,scores\n1,{'a': 1}\n",
        "a.csv:2: the scores are \"{'a': 1}\" (key must be a string); expected json, an object of class names and numbers or a list of numbers",
    );
    check(
        "a.csv",
        "id,pred,prob_pos,prob_neg\n1,pos,1,0\n2,poss,1,0\n",
        "a.csv:3: \"poss\" was predicted and has no score (classes with scores: pos, neg); did you mean \"pos\"?",
    );
    check(
        "a.csv",
        "id,pred,gold\n1,a,a\n2,b, B\n",
        "a.csv:3: the true class is \"B\" and the model says \"b\": the same but for case or blanks; write both alike",
    );
    check(
        "a.csv",
        "id,gold,prob_neg,prob_pos\n1,1,0,1\n2,0,0,1\n",
        "a.csv: none of the true classes (1, 0) is a class of the model (neg, pos); write them with the model's names",
    );
    check(
        "a.csv",
        "id,pred\n1,\"a\n",
        "a.csv:2: a quoted cell starts in this row and is never closed",
    );
    check(
        "a.csv",
        "id,pred\n1,a,b\n",
        "a.csv:2: 3 cells where the header has 2 (a delimiter or line break in a cell without quotes?)",
    );
    check(
        "a.json",
        "[\n{}]",
        "a.json: one large json value (expected one object a line; jq -c '.[]' makes that of a list)",
    );
    check(
        "a.jsonl",
        "{\"id\":[1],\"pred\":1}",
        "a.jsonl:1: invalid type: sequence, expected text or a number, column 7",
    );
    check(
        "a.txt",
        "",
        "a.txt: can't tell the format from the suffix \"txt\" (expected .parquet, .csv, .tsv, or .jsonl, .ndjson or .json with one object a line)",
    );
    assert!(wrong.borrow().is_empty(), "{}", wrong.borrow().join("\n"));
    let names = Names { id: Some("row_idd".to_owned()), ..Names::default() };
    assert_eq!(
        folder.shown("a.csv", "row_ids,pred\n1,a\n", &names),
        "a.csv: no id column \"row_idd\" (columns: row_ids, pred); did you mean \"row_ids\"?"
    );
}

#[test]
fn scikit_learn_and_pandas_files_agree_with_each_other() {
    let read = |name: &str| Predicted::read(&golden(name), &Names::default()).unwrap();
    let (csv, jsonl) = (read("old.csv"), read("old.jsonl"));
    assert_eq!(csv.labels, ["one", "three", "two", "zero"]);
    assert_eq!((&csv.ids, &csv.predicted, &csv.gold), (&jsonl.ids, &jsonl.predicted, &jsonl.gold));
    assert_eq!(csv.scores, jsonl.scores);
    let objects = read("old_objects.parquet");
    assert_eq!(
        (&csv.labels, &csv.predicted, &csv.gold),
        (&objects.labels, &objects.predicted, &objects.gold)
    );
    assert_eq!(csv.scores, objects.scores);
    // A list has no names: numbers by themselves, or those that are given.
    let lists = read("old_lists.parquet");
    assert_eq!((lists.labels.join(" "), &lists.scores), ("0 1 2 3".to_owned(), &csv.scores));
    assert_eq!(lists.predicted, csv.predicted);
    let names = Names {
        labels: csv.labels.clone(),
        prediction: Some("pred".to_owned()),
        ..Names::default()
    };
    let error = Predicted::read(&golden("old_lists.parquet"), &names).unwrap_err().to_string();
    assert!(
        error.contains(
            "was predicted and has no score (classes with scores: one, three, two, zero)"
        ),
        "{error}"
    );
    let (tsv, parquet) = (read("new.tsv"), read("new.parquet"));
    assert_eq!(tsv.labels, ["two", "one", "zero", "three"]);
    assert_eq!(
        Predicted { name: String::new(), ..tsv },
        Predicted { name: String::new(), ..parquet }
    );
}

#[test]
fn logits_become_predictions() {
    let names = |names: &[&str]| -> Vec<String> { names.iter().map(|n| (*n).to_owned()).collect() };
    let labels = names(&["a", "b", "c"]);
    let logits = [1.0, 0.5, -0.5, 2.0, 2.0, 1000.0];
    let read =
        Predicted::from_logits("m", &labels, names(&["1", "2"]), vec![Some(2), None], &logits)
            .unwrap();
    assert_eq!((read.predicted, read.n_declared), (vec![0, 2], Some(3)));
    // torch.softmax(torch.tensor([1, .5, -.5]), 0)
    for (got, expected) in
        read.scores.unwrap().iter().zip([0.546_549, 0.331_499, 0.121_952, 0.0, 0.0, 1.0])
    {
        assert!((got - expected).abs() < 1e-6, "{got} is not {expected}");
    }
    let ties = Predicted::from_logits("m", &labels, names(&["1"]), vec![None], &[1.0, 3.0, 3.0]);
    assert_eq!(ties.unwrap().predicted, [1]);
    let fails = |gold: Vec<Option<u32>>, logits: &[f32]| {
        Predicted::from_logits("m", &labels, names(&["7"]), gold, logits).unwrap_err().to_string()
    };
    assert_eq!(fails(vec![None], &[1.0]), "logits: 1 of them for 3 rows or classes");
    assert_eq!(fails(vec![], &[1.0, 2.0, 3.0]), "gold labels: 0 of them for 1 rows or classes");
    assert_eq!(fails(vec![Some(3)], &[1.0, 2.0, 3.0]), "m: true class 3 is outside 0..3");
    assert_eq!(
        fails(vec![None], &[1.0, f32::NAN, 3.0]),
        "prediction \"7\": the logit of label \"b\" is NaN, not a finite number"
    );
}

fn never_panics(name: &str, bytes: &[u8]) {
    let folder = Folder::new();
    let path = folder.write(name, bytes);
    for rows in [RowsBy::Id, RowsBy::Position] {
        if let Ok(read) = Predicted::read(&path, &Names { rows, ..Names::default() }) {
            assert_eq!((read.predicted.len(), read.gold.len()), (read.rows(), read.rows()));
            assert!(read.predicted.iter().all(|class| (*class as usize) < read.labels.len()));
        }
    }
}

#[test]
fn files_cut_anywhere_never_panic() {
    for name in [
        "old.csv",
        "new.tsv",
        "old.jsonl",
        "new.parquet",
        "old_objects.parquet",
        "old_lists.parquet",
    ] {
        let bytes = std::fs::read(golden(name)).unwrap();
        for cut in (0..bytes.len()).step_by(bytes.len() / 60).chain(0..40) {
            never_panics(name, &bytes[..cut]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0usize..4) {
        never_panics(["a.csv", "a.tsv", "a.jsonl", "a.parquet"][kind], &bytes);
    }

    #[test]
    fn random_cells_never_panic(
        header in prop::collection::vec("(id|pred|gold|label|prob_a|prob_b|p_x|scores|x)", 1..6),
        cells in prop::collection::vec("(a|b|0.5|1|0|-1|1.0|nan||\\[0.5,0.5\\]|\\[1\\]|\"\\{\"\"a\"\":1\\}\")", 0..30),
    ) {
        let mut text = header.join(",") + "\n";
        for row in cells.chunks_exact(header.len()) {
            text += &(row.join(",") + "\n");
        }
        never_panics("a.csv", text.as_bytes());
    }

    #[test]
    fn random_objects_never_panic(
        rows in prop::collection::vec(
            prop::collection::vec(("(id|pred|gold|label|scores|prob_a|prob_b)", "(1|\"a\"|\"b\"|null|0.5|\\[0.5,0.5\\]|\\{\"a\":0.5,\"b\":0.5\\}|\\{\\}|\\[\\]|true)"), 0..5),
            0..6,
        ),
    ) {
        let row = |row: &Vec<(String, String)>| {
            let pairs: Vec<String> = row.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
            format!("{{{}}}\n", pairs.join(","))
        };
        let text: String = rows.iter().map(row).collect();
        never_panics("a.jsonl", text.as_bytes());
    }

    #[test]
    fn damaged_parquet_never_panics(kind in 0usize..3, share in 0f64..1.0, byte in any::<u8>(), span in 1usize..8) {
        let name = ["new.parquet", "old_objects.parquet", "old_lists.parquet"][kind];
        let mut bytes = std::fs::read(golden(name)).unwrap();
        let at = (share * bytes.len() as f64) as usize;
        let end = (at + span).min(bytes.len());
        bytes[at.min(end)..end].fill(byte);
        never_panics("a.parquet", &bytes);
    }
}
