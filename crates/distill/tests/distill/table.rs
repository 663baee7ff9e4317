//! Tables of what a teacher says, on disk: what they hold, whose they are, kills, damage.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Tensor;
use lowchurn_data::{Encoded, Example, Rng, eval_order};
use lowchurn_distill::{
    Combine, Error, Fingerprint, Result, Scoring, Table, Teacher, predict, table_file_name,
};
use lowchurn_kernels::Precision;
use lowchurn_models::Classifier;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::{CPU, copy_folder, distance, encoded, golden_folder, golden_state, names, toy_rows};

pub fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}

fn colours() -> Vec<String> {
    owned(&["red", "green", "blue"])
}

/// Of no real folder.
fn fingerprint() -> Fingerprint {
    Fingerprint {
        name: "old".into(),
        format: 1,
        weights: "a".repeat(64),
        tokenizer: "b".repeat(64),
        max_length: 16,
        labels: colours(),
        rows: "c".repeat(64),
        precision: Precision::F32,
        vector: None,
    }
}

/// A table of one row a line of logits, with the ids "0", "1" and so on.
pub fn table(name: &str, labels: &[&str], logits: &[f32]) -> Table {
    let labels = owned(labels);
    let ids = (0..logits.len() / labels.len()).map(|row| row.to_string()).collect();
    let teacher = Fingerprint { name: name.into(), labels: labels.clone(), ..fingerprint() };
    Table { teacher, labels, ids, logits: logits.to_vec() }
}

pub fn of(tables: &[Table], ids: &[&str], student: &[&str], combine: Combine) -> Result<Teacher> {
    Teacher::of(tables, &owned(ids), &owned(student), &[], combine)
}

/// Builds with the golden model; five rows a batch.
fn build(path: &Path, rows: &Encoded, stop: &AtomicBool) -> Result<Option<Table>> {
    build_with(&golden_state().model, path, rows, stop, &mut |_| {})
}

fn build_with(
    model: &Classifier,
    path: &Path,
    rows: &Encoded,
    stop: &AtomicBool,
    on: &mut dyn FnMut(usize),
) -> Result<Option<Table>> {
    let fingerprint = &fingerprint();
    let scoring = Scoring { model, rows, fingerprint, batch_size: 5, device: &CPU };
    Table::build(path, &scoring, stop, on)
}

fn whole(rows: &Encoded) -> Table {
    let dir = TempDir::new().unwrap();
    build(&dir.path().join("t"), rows, &AtomicBool::new(false)).unwrap().unwrap()
}

pub fn message<T>(found: Result<T>, dir: &TempDir) -> String {
    let error: Error = found.err().expect("this should not have worked");
    error.to_string().replace(&dir.path().display().to_string(), "DIR")
}

#[test]
fn a_table_holds_what_predict_says() {
    let rows = toy_rows(23, 3);
    let expected = predict(&golden_state().model, &rows, 5, &CPU, &mut |_| {}).unwrap();
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("below/table.safetensors");
    let mut done = Vec::new();
    let stop = AtomicBool::new(false);
    let model = golden_state().model;
    let table = build_with(&model, &path, &rows, &stop, &mut |n| done.push(n)).unwrap().unwrap();
    assert_eq!((&table.logits, &table.ids), (&expected.logits, &rows.ids));
    assert_eq!(done, [5, 10, 15, 20, 23]);
    table.save(&path).unwrap();
    assert_eq!(names(path.parent().unwrap()), ["table.safetensors"]);
    assert_eq!(Table::open(&path, &fingerprint()).unwrap(), table);
    // What others read.
    let bytes = fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.tensor("logits").unwrap().shape(), [23, 3]);
}

#[test]
fn a_teacher_drops_nothing() {
    let rows = toy_rows(9, 4);
    let dir = TempDir::new().unwrap();
    let mut model = golden_state().model;
    model.config.hidden_dropout = 0.5;
    model.config.attention_dropout = 0.5;
    model.config.classifier_dropout = 0.5;
    for name in ["one", "two"] {
        let path = dir.path().join(name);
        let stop = AtomicBool::new(false);
        let table = build_with(&model, &path, &rows, &stop, &mut |_| {}).unwrap().unwrap();
        assert_eq!(table, whole(&rows));
    }
}

/// The rows of `all` in another order.
fn reordered(all: &Encoded, order: &[u32]) -> Encoded {
    let row = |&row: &u32| (all.tokens_of(row as usize).to_vec(), all.labels[row as usize]);
    let mut rows = encoded(&order.iter().map(row).collect::<Vec<_>>());
    rows.ids = order.iter().map(|&row| all.ids[row as usize].clone()).collect();
    rows
}

#[test]
fn rows_are_found_by_id() {
    let rows = toy_rows(40, 5);
    let student = colours();
    let mut order: Vec<u32> = (0..40).collect();
    Rng::stream(1, "order", 0).shuffle(&mut order);
    let shuffled = reordered(&rows, &order);
    let teacher = |table: Table, ids: &[String]| {
        Teacher::of(&[table], ids, &student, &[], Combine::Logits).unwrap()
    };
    let plain = teacher(whole(&rows), &rows.ids);
    let asked_otherwise = teacher(whole(&rows), &shuffled.ids);
    let built_otherwise = teacher(whole(&shuffled), &rows.ids);
    for (at, &row) in order.iter().enumerate() {
        assert_eq!(asked_otherwise.logits_of(at), plain.logits_of(row as usize));
        assert_eq!(asked_otherwise.predicted(at), plain.predicted(row as usize));
    }
    // Other batches, other padding: the same but for rounding.
    assert!(distance(&built_otherwise.logits, &plain.logits) < 1e-5);
    assert_ne!(whole(&rows).logits, whole(&shuffled).logits);
    // Some of the rows, some twice.
    let few = teacher(whole(&rows), &owned(&["row-7", "row-3", "row-7"]));
    assert_eq!(few.logits_of(2), plain.logits_of(7));
    assert_eq!(few.logits_of(1), plain.logits_of(3));
}

#[test]
fn interrupted_anywhere_it_ends_in_the_same_bytes() {
    let rows = toy_rows(23, 6);
    let expected = {
        let dir = TempDir::new().unwrap();
        whole(&rows).save(&dir.path().join("t")).unwrap();
        fs::read(dir.path().join("t")).unwrap()
    };
    let mut sizes = Vec::new();
    for n_batches in 0..5 {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("t");
        let stop = AtomicBool::new(n_batches == 0);
        let model = golden_state().model;
        let stopped = build_with(&model, &path, &rows, &stop, &mut |done| {
            if done >= n_batches * 5 {
                stop.store(true, Ordering::Relaxed);
            }
        });
        assert!(stopped.unwrap().is_none(), "{n_batches}");
        assert_eq!(names(dir.path()), ["t.rows.partial"]);
        sizes.push(fs::metadata(dir.path().join("t.rows.partial")).unwrap().len());
        let scoring = Scoring {
            model: &model,
            rows: &rows,
            fingerprint: &fingerprint(),
            batch_size: 5,
            device: &CPU,
        };
        let on = &mut |_| {};
        let table = Table::open_or_build(&path, &scoring, &AtomicBool::new(false), on).unwrap();
        assert_eq!(fs::read(&path).unwrap(), expected, "{n_batches}");
        assert_eq!(names(dir.path()), ["t"]);
        // Now it is there, no row is scored again: not even a stop in advance is noticed.
        let again = Table::open_or_build(&path, &scoring, &AtomicBool::new(true), on).unwrap();
        assert!(again.is_some() && again == table);
    }
    // A stop is heeded before the next batch: five rows of three logits and a hash.
    assert!(sizes.windows(2).all(|two| two[1] - two[0] == 5 * 3 * 4 + 32), "{sizes:?}");
}

/// The golden model moved a little, so that its logits are others.
fn other_model() -> Classifier {
    let model = golden_state().model;
    let var = &model.params.0["classifier.bias"];
    var.set(&Tensor::new(&[1f32, 2.0, 3.0], &CPU).unwrap()).unwrap();
    model
}

/// Scores 3 of 5 batches with one model and the rest with another: what was kept shows in the logits.
#[test]
fn what_was_scored_is_kept_and_what_was_torn_is_not() {
    let rows = toy_rows(23, 6);
    let order = eval_order(&rows.lengths(), 5);
    let dir = TempDir::new().unwrap();
    let (path, partial) = (dir.path().join("t"), dir.path().join("t.rows.partial"));
    let stop = AtomicBool::new(false);
    let stopped = build_with(&golden_state().model, &path, &rows, &stop, &mut |done| {
        stop.store(done >= 15, Ordering::Relaxed);
    });
    assert!(stopped.unwrap().is_none());
    let bytes = fs::read(&partial).unwrap();
    let (first, second) = (whole(&rows), {
        let path = dir.path().join("other");
        let stop = AtomicBool::new(false);
        build_with(&other_model(), &path, &rows, &stop, &mut |_| {}).unwrap().unwrap()
    });
    let record = 5 * 3 * 4 + 32;
    let header = bytes.len() - 3 * record;
    let check = |bytes: &[u8], batch_size: usize, n_kept: usize| {
        fs::write(&partial, bytes).unwrap();
        let scoring = Scoring {
            model: &other_model(),
            rows: &rows,
            fingerprint: &fingerprint(),
            batch_size,
            device: &CPU,
        };
        let table = Table::build(&path, &scoring, &AtomicBool::new(false), &mut |_| {});
        let table = table.unwrap().unwrap();
        for (number, batch) in order.iter().enumerate() {
            let expected = if number < n_kept { &first } else { &second };
            for &row in batch {
                let (found, expected) =
                    (table.logits_of(row as usize), expected.logits_of(row as usize));
                assert!(distance(found, expected) < 1e-5, "{} bytes: {number}", bytes.len());
            }
        }
        let n_batches = 23usize.div_ceil(batch_size);
        let expected = header + 23 * 3 * 4 + n_batches * 32;
        assert_eq!(fs::metadata(&partial).unwrap().len() as usize, expected);
    };
    check(&bytes, 5, 3);
    check(&bytes, 4, 0); // other batches
    for cut in [1, 33, record - 1] {
        check(&bytes[..bytes.len() - cut], 5, 2);
    }
    check(&bytes[..header + record], 5, 1);
    check(&bytes[..header], 5, 0);
    check(&bytes[..header / 2], 5, 0);
    check(&[], 5, 0);
    check(b"something else\nwith lines", 5, 0);
    let flipped = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 4;
        bytes
    };
    check(&flipped(3), 5, 0);
    check(&flipped(header), 5, 0);
    check(&flipped(header + record + 7), 5, 1);
    check(&flipped(bytes.len() - 1), 5, 2);
    let swapped = [&bytes[..header], &bytes[header + record..], &bytes[header..header + record]];
    check(&swapped.concat(), 5, 0);
    check(&[&bytes[..], &[7; 500]].concat(), 5, 3);
}

#[test]
fn two_at_once_are_refused() {
    let dir = TempDir::new().unwrap();
    let file = fs::File::create(dir.path().join("t.rows.partial")).unwrap();
    file.lock().unwrap();
    let found = build(&dir.path().join("t"), &toy_rows(3, 1), &AtomicBool::new(false));
    assert_eq!(
        message(found, &dir),
        "DIR/t.rows.partial: another process is scoring these rows; wait until it is done"
    );
}

/// Every cut is an error; a flipped bit is one too, or changes nothing that is read.
#[test]
fn damaged_tables_never_panic_and_are_never_believed() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("t");
    let table = table("old", &["red", "green", "blue"], &[1.0, -2.0, 0.5, 0.0, 4.0, 1e-3]);
    table.save(&path).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!(Table::open(&path, &table.teacher).unwrap(), table);
    let end = "; delete this file, and the teacher scores the rows again";
    for length in 0..bytes.len() {
        fs::write(&path, &bytes[..length]).unwrap();
        let said = message(Table::open(&path, &table.teacher), &dir);
        assert!(said.starts_with("DIR/t: ") && said.ends_with(end), "{length}: {said}");
    }
    for at in 0..bytes.len() {
        for mask in [1, 2, 8, 32, 0x80, 0xff] {
            let mut bytes = bytes.clone();
            bytes[at] ^= mask;
            fs::write(&path, bytes).unwrap();
            match Table::open(&path, &table.teacher) {
                Ok(found) => assert_eq!(found, table, "byte {at}"),
                Err(Error::Table { .. }) => {}
                // The fingerprint in the header is covered by the hash too.
                Err(error) => panic!("byte {at}: {error}"),
            }
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), header in ".{0,100}") {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("t");
        let with_header =
            [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes].concat();
        for bytes in [bytes, with_header] {
            fs::write(&path, bytes).unwrap();
            let is_refused = matches!(Table::open(&path, &fingerprint()), Err(Error::Table { .. }));
            prop_assert!(is_refused);
        }
    }

    /// Whatever a table holds comes back bit by bit.
    #[test]
    fn tables_come_back(
        ids in prop::collection::btree_set(".{0,8}", 0..9), name in ".{0,9}", x in prop::num::f32::NORMAL | prop::num::f32::ZERO,
    ) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("t");
        let ids: Vec<String> = ids.into_iter().collect();
        let logits = (0..ids.len() * 3).map(|at| if at % 2 == 0 { x } else { at as f32 }).collect();
        let teacher = Fingerprint { name, ..fingerprint() };
        let table = Table { teacher, labels: colours(), ids, logits };
        table.save(&path).unwrap();
        let back = Table::open(&path, &fingerprint()).unwrap();
        prop_assert_eq!(&back, &table);
        back.save(&dir.path().join("again")).unwrap();
        prop_assert_eq!(fs::read(&path).unwrap(), fs::read(dir.path().join("again")).unwrap());
    }

    /// The mean of the probabilities comes back as softmax at T = 1, for logits of any size.
    #[test]
    fn an_ensemble_of_probabilities_is_their_mean(
        logits in prop::collection::vec(-60f32..60.0, 9), shift in -1e3f32..1e3,
    ) {
        let tables: Vec<Table> = logits
            .chunks(3)
            .map(|z| table("t", &["red", "green", "blue"], &[z[0] + shift, z[1] + shift, z[2] + shift]))
            .collect();
        let student = ["red", "green", "blue"];
        let alone: Vec<Vec<f64>> = tables
            .iter()
            .map(|table| {
                let teacher = of(std::slice::from_ref(table), &["0"], &student, Combine::Logits);
                teacher.unwrap().probabilities(0, 1.0)
            })
            .collect();
        let together = of(&tables, &["0"], &student, Combine::Probabilities).unwrap();
        for (class, p) in together.probabilities(0, 1.0).into_iter().enumerate() {
            let mean = alone.iter().map(|p| p[class]).sum::<f64>() / 3.0;
            // f32 logits of size 1e2 keep five digits of a probability.
            prop_assert!((p - mean).abs() < 1e-5, "{} {}", p, mean);
        }
    }
}

#[test]
fn rows_and_models_that_cannot_be_scored() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("t");
    let stop = AtomicBool::new(false);
    let mut rows = toy_rows(3, 1);
    rows.ids[2] = "row-0".into();
    assert_eq!(
        message(build(&path, &rows, &stop), &dir),
        "row id row-0 is there twice, and a teacher's scores are kept by id; give each row an id of its own"
    );
    let mut model = golden_state().model;
    model.precision = Precision::Bf16;
    assert_eq!(
        message(build_with(&model, &path, &toy_rows(3, 1), &stop, &mut |_| {}), &dir),
        "the model's matrix products are in bf16, but its fingerprint says f32; set both to the same"
    );
    let mut model = golden_state().model;
    model.config.labels = owned(&["green", "red", "blue"]);
    let found = build_with(&model, &path, &toy_rows(3, 1), &stop, &mut |_| {});
    assert_eq!(
        message(found, &dir),
        "the model has the labels green, red, blue, but its fingerprint says red, green, blue; open the model and take its \
         fingerprint again"
    );
    let model = golden_state().model;
    let var = &model.params.0["classifier.bias"];
    var.set(&Tensor::new(&[f32::NAN, 0.0, 0.0], &CPU).unwrap()).unwrap();
    let found = build_with(&model, &path, &toy_rows(1, 1), &stop, &mut |_| {});
    assert_eq!(
        message(found, &dir),
        "row row-0: the logits are not finite numbers; the model's weights are damaged"
    );
    // No row, no label: both are fine.
    assert!(whole(&encoded(&[])).logits.is_empty());
    assert_eq!(whole(&encoded(&[(vec![2, 10, 3], None)])).logits.len(), 3);
}

#[test]
fn files_that_are_no_tables() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("t");
    let end = "; delete this file, and the teacher scores the rows again";
    let check = |expected: &str| {
        let found = message(Table::open(&path, &fingerprint()), &dir);
        assert_eq!(found, format!("DIR/t: {expected}{end}"));
    };
    fs::write(&path, "id,label\n").unwrap();
    check("no table of a teacher, or a damaged one (header too large)");
    fs::copy(golden_folder().join("bert_tiny/model.safetensors"), &path).unwrap();
    check("a safetensors file, but no table of a teacher");
    let sound = table("old", &["red", "green", "blue"], &[0.0; 6]);
    Table { logits: vec![0.0, 1.0, 2.0, 3.0, f32::INFINITY, 5.0], ..sound.clone() }
        .save(&path)
        .unwrap();
    check("row 1 has a logit that is not a finite number");
    Table { ids: owned(&["7", "7"]), ..sound.clone() }.save(&path).unwrap();
    check(
        "row id 7 is there twice, and a teacher's scores are kept by id; give each row an id of its own",
    );

    // Tensors that lie about each other, below a header that fits them.
    sound.save(&path).unwrap();
    let bytes = fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let metadata: HashMap<String, String> = header.metadata().clone().unwrap();
    let write = |change: &str, dtype, shape: Vec<usize>| {
        let mut all: BTreeMap<&str, _> = BTreeMap::new();
        for name in ["logits", "ids", "id_ends"] {
            all.insert(name, tensors.tensor(name).unwrap());
        }
        let data = all[change].data();
        let changed = safetensors::tensor::TensorView::new(dtype, shape, data).unwrap();
        all.insert(change, changed);
        fs::write(&path, safetensors::serialize(all, Some(metadata.clone())).unwrap()).unwrap();
    };
    use safetensors::Dtype;
    write("logits", Dtype::F32, vec![3, 2]);
    check("logits of shape [3, 2], expected [2, 3]");
    write("logits", Dtype::I32, vec![2, 3]);
    check("logits holds I32, expected F32");
    write("id_ends", Dtype::U64, vec![2, 1]);
    assert!(Table::open(&path, &fingerprint()).is_ok());
    assert_eq!(
        message(Table::open(&dir.path().join("nowhere"), &fingerprint()), &dir),
        "DIR/nowhere: can't be read: No such file or directory (os error 2)"
    );
}

pub fn texts(change: impl FnOnce(&mut Vec<Example>)) -> Vec<Example> {
    let row = |id: &str, text: &str| Example {
        id: id.into(),
        text: text.into(),
        pair: None,
        label: None,
        target: None,
    };
    let mut rows = vec![row("1", "so warm"), row("2", "so cold")];
    change(&mut rows);
    rows
}

/// A model's folder with a tokenizer.
pub fn model_folder() -> TempDir {
    let dir = TempDir::new().unwrap();
    copy_folder(&golden_folder().join("bert_tiny"), dir.path());
    fs::write(dir.path().join("vocab.txt"), "[PAD]\n[UNK]\n[CLS]\n[SEP]\nso\nwarm\ncold\n")
        .unwrap();
    dir
}

#[test]
fn another_teacher_or_other_rows_are_another_table() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("t");
    let of = |folder: &TempDir, max_length, rows: &[Example]| {
        Fingerprint::of("old", folder.path(), &colours(), max_length, rows).unwrap()
    };
    let first = of(&model_folder(), 16, &texts(|_| {}));
    let sound = Table { teacher: first.clone(), ..table("", &["red", "green", "blue"], &[0.0; 6]) };
    sound.save(&path).unwrap();
    assert!(Table::open(&path, &of(&model_folder(), 16, &texts(|_| {}))).is_ok());
    let renamed = Fingerprint { name: "runs/old".into(), ..first.clone() };
    assert!(Table::open(&path, &renamed).is_ok());
    assert_eq!(table_file_name(&renamed), table_file_name(&first));
    let labelled = of(&model_folder(), 16, &texts(|rows| rows[0].label = Some(1)));
    assert_eq!(first.differs(&labelled), None);

    let mut file_names = vec![table_file_name(&first)];
    let mut check = |other: &Fingerprint, difference: &str| {
        assert_eq!(
            message(Table::open(&path, other), &dir),
            format!(
                "DIR/t holds the scores of another teacher or of other rows ({difference}); name another file, or delete this \
                 one to score the rows again"
            )
        );
        file_names.push(table_file_name(other));
    };
    let rows = texts(|_| {});
    check(&of(&model_folder(), 15, &rows), "max length: 16, now 15");
    let short = |hash: &str| hash[..12].to_string();
    let changed = |name: &str, text: &str| {
        let folder = model_folder();
        fs::write(folder.path().join(name), text).unwrap();
        of(&folder, 16, &rows)
    };
    let tokenizers = [
        ("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\nso\ncold\nwarm\n"),
        ("tokenizer_config.json", r#"{"do_lower_case": false}"#),
        ("tokenizer.json", "{}"),
    ];
    for (name, text) in tokenizers {
        let other = changed(name, text);
        let (was, is) = (short(&first.tokenizer), short(&other.tokenizer));
        check(&other, &format!("tokenizer: {was}, now {is}"));
    }
    for (name, text) in [("config.json", "{}"), ("model.safetensors", "?")] {
        let other = changed(name, text);
        check(
            &other,
            &format!("weights: {}, now {}", short(&first.weights), short(&other.weights)),
        );
    }
    let changes: [fn(&mut Vec<Example>); 6] = [
        |rows| rows[0].text = "so warm ".into(),
        |rows| rows[1].id = "3".into(),
        |rows| rows[1].pair = Some(String::new()),
        |rows| rows.swap(0, 1),
        |rows| rows.truncate(1),
        |rows| (rows[0].id, rows[0].text) = ("1s".into(), "o warm".into()),
    ];
    for change in changes {
        let other = of(&model_folder(), 16, &texts(change));
        check(&other, &format!("rows: {}, now {}", short(&first.rows), short(&other.rows)));
    }
    let labels = owned(&["green", "red", "blue"]);
    check(
        &Fingerprint { labels, ..first.clone() },
        "labels: red, green, blue, now green, red, blue",
    );
    check(&Fingerprint { format: 2, ..first.clone() }, "format: 1, now 2");
    let rounded = Fingerprint { precision: Precision::Bf16, ..first.clone() };
    check(&rounded, "precision: f32, now bf16");
    let n = file_names.len();
    assert!(file_names.iter().all(|name| name.len() == "teacher-.safetensors".len() + 16));
    file_names.sort();
    file_names.dedup();
    assert_eq!(file_names.len(), n);
    // Alike in all that is shown.
    let other = Fingerprint { rows: format!("{}…", &first.rows[..20]), ..first.clone() };
    assert!(first.differs(&other).unwrap().contains(&first.rows));
    // A table kept in the model's own folder doesn't change the model.
    let folder = model_folder();
    sound.save(&folder.path().join(table_file_name(&first))).unwrap();
    assert_eq!(of(&folder, 16, &rows), first);
}

/// Of the hashed bytes as they were before there was a choice, worked out by hashlib.
#[test]
fn tables_of_f32_keep_their_names_and_fields() {
    let plain = fingerprint();
    assert_eq!(table_file_name(&plain), "teacher-6895295f54a59cd5.safetensors");
    let text = serde_json::to_string(&plain).unwrap();
    assert!(!text.contains("precision"), "{text}");
    assert_eq!(serde_json::from_str::<Fingerprint>(&text).unwrap(), plain);
    let rounded = Fingerprint { precision: Precision::Bf16, ..plain };
    assert_eq!(table_file_name(&rounded), "teacher-278a7e915b12c9d4.safetensors");
    let text = serde_json::to_string(&rounded).unwrap();
    assert!(text.ends_with(r#","precision":"bf16"}"#), "{text}");
    assert_eq!(serde_json::from_str::<Fingerprint>(&text).unwrap(), rounded);
}

#[test]
fn folders_without_a_model() {
    let of = |folder: &TempDir| {
        message(Fingerprint::of("old", folder.path(), &colours(), 16, &[]), folder)
    };
    let missing = |name: &str| {
        let folder = model_folder();
        fs::remove_file(folder.path().join(name)).unwrap();
        of(&folder)
    };
    let lost = "can't be read: No such file or directory (os error 2)";
    assert_eq!(missing("config.json"), format!("DIR/config.json: {lost}"));
    assert_eq!(
        missing("model.safetensors"),
        "DIR: no weights here: looked for model.safetensors, model.safetensors.index.json, pytorch_model.bin"
    );
    assert_eq!(
        missing("vocab.txt"),
        "DIR: no tokenizer here (expected tokenizer.json, or vocab.txt of a bert model, or vocab.json and merges.txt of a roberta model)"
    );
}

#[test]
fn shards_are_part_of_the_weights() {
    let folder = model_folder();
    let path = |name: &str| folder.path().join(name);
    fs::remove_file(path("model.safetensors")).unwrap();
    let index = r#"{"weight_map": {"a": "part-1.safetensors", "b": "model-2.safetensors"}}"#;
    fs::write(path("model.safetensors.index.json"), index).unwrap();
    for name in ["part-1.safetensors", "model-2.safetensors"] {
        fs::write(path(name), "a").unwrap();
    }
    let of = || Fingerprint::of("old", folder.path(), &colours(), 16, &[]).unwrap().weights;
    let check = |name: &str, is_part: bool| {
        let before = of();
        fs::write(path(name), "b").unwrap();
        assert_eq!(of() != before, is_part, "{name}");
    };
    check("part-1.safetensors", true);
    check("model-2.safetensors", true);
    check("model-3.safetensors", false); // the index doesn't have it
    check("table.safetensors", false);
    let lost = path("part-1.safetensors");
    fs::remove_file(&lost).unwrap();
    let found = Fingerprint::of("old", folder.path(), &colours(), 16, &[]);
    assert_eq!(
        message(found, &folder),
        "DIR/part-1.safetensors: can't be read: No such file or directory (os error 2)"
    );
}
