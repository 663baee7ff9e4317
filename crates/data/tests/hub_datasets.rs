//! Real data sets in the hub's layout: each is listed, laid out and read; rows and classes are as published.
//!
//! Needs the folder `shared/hub` beside the checkout (or `LOWCHURN_HUB_DIR`) and says so where it isn't there.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use lowchurn_data::columns::{Columns, Labels};
use lowchurn_data::inspect::{inspect, lines};
use lowchurn_data::{
    BatchSize, Dataset, Error, Example, Kind, Request, Source, Split, Task, TextEncoder, encode,
    epoch_order, eval_order, padding_share, read, read_columns,
};

fn datasets() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/hub");
    let folder =
        std::env::var_os("LOWCHURN_HUB_DIR").map_or_else(beside, PathBuf::from).join("datasets");
    said(folder.is_dir(), "../shared/hub is not here").then_some(folder)
}

fn minilm() -> Option<TextEncoder> {
    let cache = std::env::var_os("LOCAL_HUB_CACHE").map(PathBuf::from);
    let cache = cache
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/local-hub")))?;
    let folder = cache.join("models/sentence-transformers/all-MiniLM-L6-v2");
    said(folder.is_dir(), "the MiniLM tokenizer is not here")
        .then(|| TextEncoder::open(&folder).unwrap())
}

fn said(there: bool, message: &str) -> bool {
    if !there {
        let _ = writeln!(io::stderr(), "skipped: {message}");
    }
    there
}

#[allow(clippy::print_stderr, reason = "what was measured is shown with --nocapture")]
fn show(line: &str) {
    eprintln!("{line}");
}

fn took(what: &str, since: Instant) {
    show(&format!("{what}: {:.0} ms", since.elapsed().as_secs_f64() * 1e3));
}

fn request(text: &str, label: &str) -> Request {
    let named = |name: &str| (!name.is_empty()).then(|| name.to_owned());
    let columns = Columns { text: named(text), label: named(label), ..Columns::default() };
    Request { columns, labels: Labels::Required, label_set: None, kind: None }
}

fn split(id: &str, config: Option<&str>, name: &str) -> Option<Split> {
    let dataset = Dataset::of_folder(&datasets()?.join(id), config).unwrap();
    Some(read(&dataset, name, &request("", "")).unwrap())
}

/// As counted with pandas: rows of each airline.
#[test]
fn a_further_column_has_the_values_that_pandas_counts() {
    let Some(root) = datasets() else { return };
    let folder = root.join("osanseviero/twitter-airline-sentiment");
    let dataset = Dataset::of_folder(&folder, None).unwrap();
    let found = read_columns(&dataset, "train", &["airline".to_owned()], "slice").unwrap();
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    found[0].iter().for_each(|airline| *counts.entry(airline).or_default() += 1);
    let expected = [
        ("American", 2759),
        ("Delta", 2222),
        ("Southwest", 2420),
        ("US Airways", 2913),
        ("United", 3822),
        ("Virgin America", 504),
    ];
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn rows_and_classes_are_as_published() {
    let Some(root) = datasets() else { return };
    // Columns are left empty where the guess must find them.
    let check = |id: &str,
                 config: &str,
                 text: &str,
                 label: &str,
                 sizes: &[(&str, usize)],
                 classes: usize,
                 first: &str| {
        let config = (!config.is_empty()).then_some(config);
        let dataset = Dataset::of_folder(&root.join(id), config).unwrap();
        let names: Vec<&str> = sizes.iter().map(|(name, _)| *name).collect();
        assert_eq!(dataset.split_names(), names, "{id}");
        let mut given = request(text, label);
        for (name, rows) in sizes {
            let split =
                read(&dataset, name, &given).unwrap_or_else(|error| panic!("{id} {name}: {error}"));
            assert_eq!(split.examples.len(), *rows, "{id} {name}");
            assert_eq!(split.labels.len(), classes, "{id} {name}");
            assert_eq!(split.labels.names()[0], first, "{id} {name}");
            assert_eq!(split.examples[0].id, format!("{name}-0"));
            assert_eq!(split.examples[0].pair.is_some(), matches!(config, Some("mrpc" | "wnli")));
            given.label_set = Some(split.labels);
        }
    };
    let three =
        |train, validation, test| [("train", train), ("validation", validation), ("test", test)];
    check("stanfordnlp/sst2", "", "", "", &three(67_349, 872, 1_821), 2, "negative");
    check("nyu-mll/glue", "sst2", "", "", &three(67_349, 872, 1_821), 2, "negative");
    check("nyu-mll/glue", "cola", "", "", &three(8_551, 1_043, 1_063), 2, "unacceptable");
    check("nyu-mll/glue", "mrpc", "", "", &three(3_668, 408, 1_725), 2, "not_equivalent");
    check("nyu-mll/glue", "wnli", "", "", &three(635, 71, 146), 2, "not_entailment");
    check("fancyzhx/ag_news", "", "", "", &[("test", 7_600)], 4, "World");
    check("local-subset/ag_news_20k", "", "", "", &[("train", 20_000)], 4, "World");
    check("stanfordnlp/imdb", "", "", "", &[("train", 25_000), ("test", 25_000)], 2, "neg");
    check(
        "cornell-movie-review-data/rotten_tomatoes",
        "",
        "",
        "",
        &three(8_530, 1_066, 1_066),
        2,
        "neg",
    );
    check("CogComp/trec", "", "", "coarse_label", &[("train", 5_452), ("test", 500)], 6, "ABBR");
    check("CogComp/trec", "", "", "fine_label", &[("train", 5_452), ("test", 500)], 50, "ABBR:abb");
    check(
        "PolyAI/banking77",
        "",
        "",
        "",
        &[("train", 10_003), ("test", 3_080)],
        77,
        "activate_my_card",
    );
    for (config, rows) in [("small", 7_600), ("plus", 15_250), ("imbalanced", 10_625)] {
        check(
            "clinc/clinc_oos",
            config,
            "",
            "",
            &three(rows, 3_100, 5_500),
            151,
            "restaurant_reviews",
        );
    }
    check("tdavidson/hate_speech_offensive", "", "", "", &[("train", 24_783)], 3, "hate speech");
    check("ucirvine/sms_spam", "", "", "", &[("train", 5_574)], 2, "ham");
    let airline = "osanseviero/twitter-airline-sentiment";
    check(airline, "", "", "airline_sentiment", &[("train", 14_640)], 3, "negative");
    check("Paul/hatecheck", "", "test_case", "label_gold", &[("test", 3_728)], 2, "hateful");
}

#[test]
fn every_shipped_manifest_reads_its_data() {
    let Some(root) = datasets() else { return };
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets");
    for entry in std::fs::read_dir(manifests).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|suffix| suffix != "toml") {
            continue;
        }
        let task = Task::read(&path).unwrap_or_else(|error| panic!("{error}"));
        let dataset = match &task.source {
            Source::Hub { id, config, .. } => Dataset::of_folder(&root.join(id), config.as_deref()),
            Source::Folder(folder) => Dataset::of_folder(folder, None),
            Source::Files(files) => Dataset::of_files(files),
            Source::Task { .. } => panic!("a manifest can't name a task"),
        }
        .unwrap_or_else(|error| panic!("{}: {error}", task.name));
        let request = Request {
            columns: task.columns.clone(),
            labels: Labels::Required,
            label_set: task.label_set.clone(),
            kind: task.kind,
        };
        for (name, expression) in &task.splits {
            match read(&dataset, expression, &request) {
                Ok(split) => {
                    assert!(!split.examples.is_empty());
                    assert_eq!(Kind::of(&split.examples), task.kind.unwrap(), "{}", task.name);
                }
                // The local copy of AG News has its test split only.
                Err(Error::UnknownSplit { .. }) if task.name == "ag_news" => {}
                Err(error) => panic!("{} {name}: {error}", task.name),
            }
        }
    }
}

/// As counted with pyarrow: labels in all, rows with more than one, the first rows.
#[test]
fn lists_of_labels_and_numbers_are_read_as_such() {
    let (Some(train), Some(test)) = (
        split("google-research-datasets/go_emotions", None, "train"),
        split("google-research-datasets/go_emotions", None, "test"),
    ) else {
        return;
    };
    let sets = |split: &Split| -> Vec<Vec<u32>> {
        split.examples.iter().map(|row| row.classes().unwrap()).collect()
    };
    let counted = |split: &Split| {
        let sets = sets(split);
        let (all, several) = (sets.iter().map(Vec::len), sets.iter().filter(|set| set.len() > 1));
        (sets.len(), all.sum::<usize>(), several.count())
    };
    assert_eq!(counted(&train), (43_410, 51_103, 7_102));
    assert_eq!(counted(&test), (5_427, 6_329, 837));
    assert_eq!((train.labels.len(), train.labels.index_of("neutral")), (28, Some(27)));
    let Some(stsb) = split("nyu-mll/glue", Some("stsb"), "train") else { return };
    let values: Vec<f32> = stsb.examples.iter().map(|row| row.value().unwrap()).collect();
    let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len() as f64;
    assert_eq!((values.len(), values[0], values[1]), (5_749, 5.0, 3.8));
    assert!((mean - 2.700_999_024).abs() < 1e-6, "{mean}");
    let folder = datasets().unwrap().join("nyu-mll/glue");
    let glue = Dataset::of_folder(&folder, None).unwrap_err().to_string();
    assert_eq!(glue, "the dataset has several configs, name one of: cola, mrpc, sst2, stsb, wnli");
}

#[test]
fn sst2_is_as_its_card_says() {
    let (Some(train), Some(validation), Some(test)) = (
        split("stanfordnlp/sst2", None, "train"),
        split("stanfordnlp/sst2", None, "validation"),
        split("stanfordnlp/sst2", None, "test"),
    ) else {
        return;
    };
    let found = inspect(&train, Some(&validation));
    assert_eq!((found.repeated_texts, found.conflicting_texts), (371, 5));
    assert_eq!((found.unlabelled, found.empty_texts), (0, 0));
    assert_eq!(inspect(&test, None).unlabelled, 1_821);
    for line in lines(&found) {
        show(&line);
    }
}

#[test]
fn other_cards_hold_too() {
    let Some(sms) = split("ucirvine/sms_spam", None, "train") else { return };
    let exact: std::collections::HashSet<&str> =
        sms.examples.iter().map(|row| row.text.as_str()).collect();
    assert_eq!(sms.examples.len() - exact.len(), 403);
    // Eleven more differ only in blanks at their ends, which no tokenizer sees.
    assert_eq!(inspect(&sms, None).repeated_texts, 414);
    assert_eq!(inspect(&sms, None).classes, [("ham".to_owned(), 4_827), ("spam".to_owned(), 747)]);
    let Some(root) = datasets() else { return };
    let airline =
        Dataset::of_folder(&root.join("osanseviero/twitter-airline-sentiment"), None).unwrap();
    let airline = read(&airline, "train", &request("text", "airline_sentiment")).unwrap();
    let found = inspect(&airline, None);
    let counts: Vec<usize> = found.classes.iter().map(|(_, count)| *count).collect();
    assert_eq!((counts, found.conflicting_texts), (vec![9_178, 3_099, 2_363], 25));
}

#[test]
fn sst2_reads_tokenises_and_batches_fast() {
    let (Some(root), Some(encoder)) = (datasets(), minilm()) else { return };
    let start = Instant::now();
    let dataset = Dataset::of_folder(&root.join("stanfordnlp/sst2"), None).unwrap();
    let train = read(&dataset, "train", &request("", "")).unwrap();
    took("read sst2 train", start);
    let start = Instant::now();
    let encoded = encode(&encoder, &train.examples, 128).unwrap();
    took("tokenise sst2 train", start);
    assert_eq!((encoded.rows(), encoded.n_truncated, encoder.vocab_size()), (67_349, 0, 30_522));
    let lengths = encoded.lengths();
    let start = Instant::now();
    let epoch = epoch_order(&lengths, BatchSize::Rows(32), 42, 0);
    took("order of an epoch", start);
    let (bucketed, sorted) =
        (padding_share(&lengths, &epoch), padding_share(&lengths, &eval_order(&lengths, 32)));
    let rows: Vec<u32> = (0..lengths.len() as u32).collect();
    let unsorted: Vec<Vec<u32>> = rows.chunks(32).map(<[u32]>::to_vec).collect();
    show(&format!(
        "padding: bucketed {bucketed:.4}, sorted {sorted:.4}, in file order {:.4}",
        padding_share(&lengths, &unsorted)
    ));
    assert!(bucketed < 0.05, "{bucketed}");
    assert!(sorted < bucketed);
}

#[test]
fn long_texts_are_cut_without_much_cost() {
    let (Some(test), Some(encoder)) = (split("stanfordnlp/imdb", None, "test[:5000]"), minilm())
    else {
        return;
    };
    let start = Instant::now();
    let encoded = encode(&encoder, &test.examples, 128).unwrap();
    took("tokenise 5,000 rows of imdb", start);
    show(&format!("cut: {} of {}", encoded.n_truncated, encoded.rows()));
    assert!(encoded.lengths().iter().all(|length| *length <= 128));
    assert_eq!(
        encoded.n_truncated,
        encode(&encoder, &test.examples, 100_000)
            .unwrap()
            .lengths()
            .iter()
            .filter(|length| **length > 128)
            .count()
    );
}

#[test]
fn every_format_gives_the_same_rows() {
    let Some(train) = split("stanfordnlp/sst2", None, "train") else { return };
    let dir = tempfile::tempdir().unwrap();
    let label = |row: &Example| train.labels.names()[row.label.unwrap() as usize].clone();
    for name in ["train.csv", "train.tsv", "train.jsonl"] {
        let path = dir.path().join(name);
        if name.ends_with("jsonl") {
            let line = |row: &Example| {
                serde_json::json!({"label": label(row), "text": row.text}).to_string() + "\n"
            };
            std::fs::write(&path, train.examples.iter().map(line).collect::<String>()).unwrap();
        } else {
            let delimiter = if name.ends_with("tsv") { b'\t' } else { b',' };
            let mut writer =
                csv::WriterBuilder::new().delimiter(delimiter).from_path(&path).unwrap();
            writer.write_record(["text", "label"]).unwrap();
            train
                .examples
                .iter()
                .for_each(|row| writer.write_record([&row.text, &label(row)]).unwrap());
            writer.flush().unwrap();
        }
        let start = Instant::now();
        let dataset = Dataset::of_folder(dir.path(), None).unwrap();
        let again = read(&dataset, "train", &request("", "")).unwrap();
        took(&format!("read {name}"), start);
        assert_eq!(again.sha256, train.sha256, "{name}");
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn tokens_are_those_of_the_reference() {
    let Some(encoder) = minilm() else { return };
    let row = |text: &str, pair: Option<&str>| Example {
        id: "1".to_owned(),
        text: text.to_owned(),
        pair: pair.map(str::to_owned),
        label: None,
        target: None,
    };
    // transformers: AutoTokenizer.from_pretrained("sentence-transformers/all-MiniLM-L6-v2")(text, pair, truncation=True, max_length=..)
    let check = |text: &str, pair: Option<&str>, max_length, tokens: &[u32], types: &[u8]| {
        let encoded = encode(&encoder, &[row(text, pair)], max_length).unwrap();
        assert_eq!((encoded.tokens_of(0), encoded.types_of(0)), (tokens, types), "{text}");
    };
    let zeros = [0; 20];
    let text = "hide new secretions from the parental units ";
    check(
        text,
        None,
        128,
        &[101, 5342, 2047, 3595, 8496, 2013, 1996, 18643, 3197, 102],
        &zeros[..10],
    );
    check(
        "Straße, naïve café — 東京! don't 🙂 <unk> [SEP]",
        None,
        128,
        &[
            101, 2358, 27807, 1010, 15743, 7668, 1517, 1879, 1755, 999, 2123, 1005, 1056, 100,
            1026, 4895, 2243, 1028, 102, 102,
        ],
        &zeros,
    );
    let text = "a long text which has to be cut somewhere in the middle";
    check(text, None, 8, &[101, 1037, 2146, 3793, 2029, 2038, 2000, 102], &zeros[..8]);
    check(
        "He said so.",
        Some("Did he say so, or not? I wonder."),
        10,
        &[101, 2002, 2056, 2061, 102, 2106, 2002, 2360, 2061, 102],
        &[0, 0, 0, 0, 0, 1, 1, 1, 1, 1],
    );
    check(
        "one two three four five six seven",
        Some("a b"),
        10,
        &[101, 2028, 2048, 2093, 2176, 2274, 102, 1037, 1038, 102],
        &[0, 0, 0, 0, 0, 0, 0, 1, 1, 1],
    );
}

#[test]
fn thread_count_changes_nothing() {
    let (Some(rows), Some(encoder)) = (split("nyu-mll/glue", Some("mrpc"), "train"), minilm())
    else {
        return;
    };
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| encode(&encoder, &rows.examples, 48).unwrap())
    };
    let one = with(1);
    assert_eq!(one, with(3));
    assert!(one.n_truncated > 0 && one.lengths().iter().all(|length| *length <= 48));
}
