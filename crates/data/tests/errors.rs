//! What messy files do: each mistake has one message, and here is its full text.

use std::path::Path;
use std::sync::Arc;

use lowchurn_data::columns::{Columns, Labels};
use lowchurn_data::{Dataset, Kind, LabelSet, Request, Split, read};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use proptest::prelude::*;

fn request(label_names: &[&str]) -> Request {
    let names: Vec<String> = label_names.iter().map(|name| (*name).to_owned()).collect();
    Request {
        columns: Columns::default(),
        labels: Labels::Required,
        label_set: (!names.is_empty()).then(|| LabelSet::new(names).unwrap()),
        kind: None,
    }
}

fn with_id(column: &str) -> Request {
    let mut request = request(&[]);
    request.columns.id = Some(column.to_owned());
    request
}

fn read_file(path: &Path, request: &Request) -> Result<Split, String> {
    let dataset = Dataset::of_files(&[path.to_owned()]).map_err(|error| error.to_string())?;
    read(&dataset, &dataset.splits[0].name, request).map_err(|error| error.to_string())
}

/// Rows as `id|text|pair?|label?`, or the message with the path shortened to the file's name.
fn outcome(name: &str, content: &[u8], request: &Request) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    match read_file(&path, request) {
        Err(message) => message.replace(&path.display().to_string(), name),
        Ok(split) => {
            let row = |row: &lowchurn_data::Example| {
                let label = row.label.map_or("-", |label| &split.labels.names()[label as usize]);
                format!("{}|{}|{label}", row.id, row.text)
            };
            split.examples.iter().map(row).collect::<Vec<_>>().join(" ")
        }
    }
}

/// The outcome of a text file must be the same for both line endings, but for the line breaks within a text.
fn check_endings(name: &str, content: &[u8], request: &Request, expected: &str) {
    assert_eq!(outcome(name, content, request), expected);
    if !content.contains(&b'\r') {
        let mut windows = Vec::new();
        for byte in content {
            windows.extend_from_slice(if *byte == b'\n' {
                b"\r\n"
            } else {
                std::slice::from_ref(byte)
            });
        }
        let expected = expected.replace('\n', "\r\n");
        assert_eq!(outcome(name, &windows, request), expected, "with \\r\\n");
    }
}

#[test]
fn messy_csv() {
    let check = |content: &[u8], expected: &str| {
        check_endings("x.csv", content, &request(&[]), expected);
    };
    check(b"text,label\ngood,pos\nbad,neg\n", "x-0|good|pos x-1|bad|neg");
    check(b"\xef\xbb\xbftext,label\r\ngood,pos\r\n\r\nbad,neg", "x-0|good|pos x-1|bad|neg");
    check(b" text , label\n\"a, \"\"b\"\"\nc\",pos\nbad,neg", "x-0|a, \"b\"\nc|pos x-1|bad|neg");
    check(b"text;label\ngood, very;pos\nbad;neg", "x-0|good, very|pos x-1|bad|neg");
    check(b",text,label\n0,good,pos\n1,,neg\n2,odd,", "x-0|good|pos x-1||neg x-2|odd|-");
    check(b"text,label\ngood,1.0\nbad,0.0\nodd,", "x-0|good|1 x-1|bad|0 x-2|odd|-");
    check(
        b"text,label\ngood,pos\nbad, very,neg\n",
        "x.csv:3: 3 cells where the header has 2 (a delimiter or line break in a cell without quotes?)",
    );
    check(
        b"text,label\n\"good\nstill\",pos\nbad\n",
        "x.csv:4: 1 cell where the header has 2 (a delimiter or line break in a cell without quotes?)",
    );
    check(
        b"text,label\ngood,pos\nbad,\"neg\nodd,neg\n",
        "x.csv:3: a quoted cell starts in this row and is never closed",
    );
    check(
        b"text,label\ngood,pos\nb\xe4d,neg\n",
        "x.csv:3: not utf-8 text (save it as utf-8; spreadsheets call it \"csv utf-8\")",
    );
    check(
        b"\xff\xfet\0e\0x\0t\0",
        "x.csv: utf-16 text (save it as utf-8; spreadsheets call it \"csv utf-8\")",
    );
    check(b"", "x.csv: no header and no rows in it");
    check(b"\n \n", "x.csv: no header and no rows in it");
    check(b"text,label\n", "x.csv: no rows in it; give a file that has some");
    check(
        b"text|label\ngood|pos\n",
        "x.csv: the header is a single cell, \"text|label\": cells are split at commas, semicolons or tabs (in .tsv at tabs); write the \
         file with one of these",
    );
    check(b"text,label\ngood,-1\nbad,1\nodd,\n", "x-0|good|-1 x-1|bad|1 x-2|odd|-");
    check(b"text,label\ngood,pos\n", "a label set needs at least two names, got pos");
    check(b"text,label,label\ngood,pos,neg\n", "x.csv: column \"label\" is there twice");
    check(
        b"good movie,positive\nbad movie,negative\n",
        "x.csv: can't tell which column is the text, name it (columns: good movie, positive)",
    );
    check(
        b"text,sentiment\ngood,pos\n",
        "x.csv: can't tell which column is the label, name it (columns: text, sentiment)",
    );
    check(b"text,label\ngood,4.5\nbad,worst\n", "x-0|good|4.5 x-1|bad|worst");
    let tsv = outcome(
        "x.tsv",
        b"sentence\tlabel\nsaid \"so\", twice\t1\nbad\t0\n",
        &request(&["neg", "pos"]),
    );
    assert_eq!(tsv, "x-0|said \"so\", twice|pos x-1|bad|neg");
}

#[test]
fn labels_outside_the_set() {
    let check = |content: &str, expected: &str| {
        let request = request(&["negative", "positive"]);
        check_endings("x.csv", content.as_bytes(), &request, expected);
    };
    check(
        "text,label\na,positive\nb,-1\n",
        "x.csv:3: column \"label\" holds \"-1\", which isn't one of the 2 labels negative, positive",
    );
    check(
        "text,label\na,positive\n\"b\nc\",positiv\n",
        "x.csv:3: column \"label\" holds \"positiv\", which isn't one of the 2 labels negative, positive; did you mean \"positive\"?",
    );
    check(
        "text,label\na,1\nb,2\n",
        "x.csv:3: column \"label\" holds 2, which is outside 0..2 of the labels negative, positive (-1 is unlabelled)",
    );
    check(
        "text,label\na,1\nb,-1\n",
        "x.csv:3: column \"label\" holds -1 beside other numbers, and the classes are negative, positive; leave the cell empty where a \
         row has no label, or say which class each number is: --label-map -1=NAME,...",
    );
    check("text,label\na,-1\nb,-1\n", "x-0|a|- x-1|b|-");
}

#[test]
fn messy_json_lines() {
    let check = |content: &[u8], expected: &str| {
        assert_eq!(outcome("x.jsonl", content, &request(&[])), expected)
    };
    check(b"{\"text\": \"a\", \"label\": -1}\n{\"text\": \"b\", \"label\": 1}", "x-0|a|-1 x-1|b|1");
    check(
        br#"{"text": "a", "label": "y"}
{"label": "n", "text": "b"}

{"text": "c"}"#,
        "x-0|a|y x-1|b|n x-2|c|-",
    );
    // A hash for an id keeps its digits, as f64 has sixteen of them.
    let hashes = b"{\"key\": 12345678901234567890, \"text\": \"a\", \"label\": 0}\n{\"key\": 7, \"text\": \"b\", \"label\": 1}";
    assert_eq!(outcome("x.jsonl", hashes, &with_id("key")), "12345678901234567890|a|0 7|b|1");
    check(
        b"{\"text\": \"a\", \"label\": true}\n{\"text\": \"b\", \"label\": false}",
        "x-0|a|true x-1|b|false",
    );
    check(
        b"{\"text\": \"a\", \"label\": 1}\n{\"text\": \"b\", \"label\": \"x\"}",
        "x-0|a|1 x-1|b|x",
    );
    check(
        b"{\"text\": \"a\", \"label\": 1}\n{\"text\": \"b\", \"label\": 0\n",
        "x.jsonl:2: not a json object (EOF while parsing an object, column 24)",
    );
    check(
        b"{\"text\": \"a\", \"label\": 1}\n7\n",
        "x.jsonl:2: not a json object (invalid type: integer `7`, expected a map, column 1)",
    );
    check(
        b"{\"text\": \"a\", \"label\": 1}\n{\"text\": \"\xff\", \"label\": 0}\n",
        "x.jsonl:2: not utf-8 text (save it as utf-8; spreadsheets call it \"csv utf-8\")",
    );
    let whole = "x.jsonl: one large json value (expected one object a line; jq -c '.[]' makes that of a list)";
    check(b"[\n{\"text\": \"a\"}\n]", whole);
    check(b"{\n\"text\": \"a\"\n}", whole);
    check(b"", "x.jsonl: no header and no rows in it");
    check(
        b"{\"text\": 5, \"label\": 1}\n{\"text\": \"b\", \"label\": 0}",
        "x.jsonl:1: column \"text\" holds 5, not text",
    );
    check(
        b"{\"text\": 5, \"label\": 1}\n{\"text\": 6, \"label\": 0}",
        "x.jsonl:1: column \"text\" holds 5, not text",
    );
    check(b"{\"text\": {}, \"label\": 1}", "x.jsonl:1: column \"text\" holds an object, not text");
    check(
        b"{\"text\": \"a\", \"label\": [1, [2]]}",
        "x.jsonl: column \"label\" is a list, not text or a number",
    );
    check(
        b"{\"text\": [\"a\"], \"label\": 1}",
        "x.jsonl: column \"text\" is a list, not text or a number",
    );
    check(
        b"{\"txt\": \"a\", \"label\": 1}",
        "x.jsonl: can't tell which column is the text, name it (columns: txt, label)",
    );
}

/// Files whose first rows are unlabelled, or single texts, are the rule where traffic comes first.
#[test]
fn a_key_of_json_lines_may_come_late() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.jsonl");
    let read = |early: &str, late: &str, labels: Labels| {
        let rows = format!("{}{late}\n", format!("{early}\n").repeat(150));
        std::fs::write(&path, rows).unwrap();
        let request = Request { labels, ..request(&["no", "yes"]) };
        read_file(&path, &request).unwrap().examples.remove(150)
    };
    for labels in [Labels::Required, Labels::IfPresent, Labels::IfColumnPresent] {
        let row = read(r#"{"text": "a"}"#, r#"{"text": "b", "label": "yes"}"#, labels);
        assert_eq!((row.text.as_str(), row.label), ("b", Some(1)), "{labels:?}");
    }
    let (early, late) = (r#"{"question": "a"}"#, r#"{"question": "b", "sentence": "c"}"#);
    assert_eq!(read(early, late, Labels::IfPresent).pair.as_deref(), Some("c"));
}

#[test]
fn ids_as_keys_are_refused() {
    let row = |row: usize| format!("{{\"text\": \"a\", \"label\": 1, \"row-{row}\": 1}}\n");
    let rows: String = (0..20_000).map(row).collect();
    assert_eq!(
        outcome("x.jsonl", rows.as_bytes(), &request(&[])),
        "x.jsonl:9999: over 10000 different keys down to here (expected rows with the same keys; where ids are keys, make them values)"
    );
}

/// Whether the labels are known or not, and whatever is asked of them.
#[test]
fn files_without_rows_are_named() {
    let unlabelled = Request { labels: Labels::Ignored, ..request(&["no", "yes"]) };
    for request in [request(&[]), request(&["no", "yes"]), unlabelled] {
        let content = parquet(&[], &[], None);
        for (name, content) in [("x.csv", &b"text,label\n"[..]), ("x.parquet", &content)] {
            let expected = format!("{name}: no rows in it; give a file that has some");
            assert_eq!(outcome(name, content, &request), expected);
        }
    }
}

#[test]
fn ids() {
    let check = |content: &str, request: &Request, expected: &str| {
        check_endings("x.csv", content.as_bytes(), request, expected);
    };
    check("key,text,label\nk7,a,y\nk3,b,n\n", &with_id("key"), "k7|a|y k3|b|n");
    check(
        "key,text,label\nk7,a,y\nk3,b,n\nk7,c,n\n",
        &with_id("key"),
        "x.csv:4: id \"k7\" of column \"key\" is there twice, first at x.csv:2; ids must be unique",
    );
    check(
        "key,text,label\nk7,a,y\n,b,n\n",
        &with_id("key"),
        "x.csv:3: id column \"key\" is empty; every row needs an id, or leave the column out",
    );
    check(
        "text,label\na,y\nb,n\n",
        &with_id("kee"),
        "x.csv: no id column \"kee\" (columns: text, label)",
    );
}

#[test]
fn splits_and_files() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| std::fs::write(dir.path().join(name), content).unwrap();
    write("train.csv", "id,text,label\n1,a,x\n2,b,y\n3,c,y\n");
    write("dev.csv", "id,text,label\n1,d,y\n");
    let dataset = Dataset::of_folder(dir.path(), None).unwrap();
    let check = |expression: &str, request: &Request, expected: &str| {
        let got = match read(&dataset, expression, request) {
            Ok(split) => split
                .examples
                .iter()
                .map(|row| format!("{}|{}", row.id, row.text))
                .collect::<Vec<_>>()
                .join(" "),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expected, "{expression}");
    };
    let set = request(&["x", "y"]);
    check("train", &set, "train-0|a train-1|b train-2|c");
    check("train[1:]+validation", &set, "train-1|b train-2|c validation-0|d");
    check("train[1:]+validation", &with_id("id"), "train-2|b train-3|c validation-1|d");
    check("train[-1:]", &request(&[]), "train-2|c");
    check(
        "trian",
        &set,
        "split \"trian\" isn't there (splits: train, validation); did you mean \"train\"?",
    );
    check("train[3:]", &set, "\"train[3:]\" selects no rows (split sizes: train 3)");
    check(
        "train[:2]+train[1:]",
        &set,
        "\"train[:2]+train[1:]\" selects row \"train-1\" twice; parts that are added must not overlap",
    );
    let files = Dataset::of_files(&[dir.path().join("dev.csv")]).unwrap();
    assert_eq!(files.split_names(), ["validation"]);
    let message = |path: &Path| match Dataset::of_files(&[path.to_owned()])
        .and_then(|files| read(&files, "train", &set))
    {
        Ok(_) => String::new(),
        Err(error) => error.to_string().replace(&path.display().to_string(), "PATH"),
    };
    assert_eq!(
        message(&dir.path().join("none.csv")),
        "PATH: can't be read (No such file or directory (os error 2))"
    );
    assert_eq!(
        message(&dir.path().join("none.parquet")),
        "PATH: can't be read (No such file or directory (os error 2))"
    );
    assert_eq!(
        message(&dir.path().join("x.csv.gz")),
        "PATH: can't tell the format from the suffix \"gz\" (expected .parquet, .csv, .tsv, or .jsonl, .ndjson or .json with one object a line)"
    );
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(
        Dataset::of_folder(empty.path(), None).unwrap_err().to_string(),
        "no parquet, csv, tsv or json lines file here; for a dataset of the hub try the revision refs/convert/parquet"
    );
}

/// Texts and labels in two row groups, with a footer that names the classes `neg` and `pos` where asked.
fn parquet(texts: &[&[u8]], labels: &[i64], footer: Option<&str>) -> Vec<u8> {
    let schema = "message schema { required binary text (UTF8); optional int64 label; }";
    let pair = |value: &str| {
        parquet::file::metadata::KeyValue::new("huggingface".to_owned(), value.to_owned())
    };
    let properties = WriterProperties::builder()
        .set_key_value_metadata(footer.map(|value| vec![pair(value)]))
        .build();
    let mut bytes = Vec::new();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties)).unwrap();
    for (texts, labels) in texts.chunks(2).zip(labels.chunks(2)) {
        let mut group = writer.next_row_group().unwrap();
        let texts: Vec<ByteArray> =
            texts.iter().map(|text| ByteArray::from(text.to_vec())).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&texts, None, None).unwrap();
        column.close().unwrap();
        // A label of -9 is written as a null.
        let levels: Vec<i16> = labels.iter().map(|label| i16::from(*label != -9)).collect();
        let labels: Vec<i64> = labels.iter().copied().filter(|label| *label != -9).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&labels, Some(&levels), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
    bytes
}

const FOOTER: &str = r#"{"info":{"features":{"text":{"dtype":"string","_type":"Value"},"label":{"names":["neg","pos"],"_type":"ClassLabel"}}}}"#;

/// Lists and fractions say what the task is; where that is known, they have to fit it.
#[test]
fn other_kinds_of_labels() {
    let targets = |name: &str, content: &[u8], kind: Option<Kind>| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        match read_file(&path, &Request { kind, ..request(&[]) }) {
            Err(message) => message.replace(&path.display().to_string(), name),
            Ok(split) => {
                let row = |row: &lowchurn_data::Example| match &row.target {
                    None => format!("{:?}", row.label),
                    Some(target) => format!("{target:?}"),
                };
                let rows: Vec<String> = split.examples.iter().map(row).collect();
                format!("{} | {}", split.labels.names().join(","), rows.join(" "))
            }
        }
    };
    let lists = br#"{"text": "a", "label": ["x", "y"]}
{"text": "b", "label": []}
{"text": "c", "label": null}
{"text": "d", "label": ["x", "z", "x"]}"#;
    let sets = "x,y,z | Classes([0, 1]) Classes([]) None Classes([0, 2])";
    assert_eq!(targets("x.jsonl", lists, None), sets);
    assert_eq!(targets("x.jsonl", lists, Some(Kind::MultiLabel)), sets);
    assert_eq!(
        targets("x.jsonl", lists, Some(Kind::SingleLabel)),
        "x.jsonl: column \"label\" holds lists, but this is a single-label task; give --problem-type \
         multi_label_classification, or another label column"
    );
    let one = br#"{"text": "a", "label": ["x"]}"#;
    assert_eq!(targets("x.jsonl", one, None), "a label set needs at least two names, got x");
    let numbers = b"text,label\na,1.5\nb,2\nc,\n";
    let values = "LABEL_0 | Value(1.5) Value(2.0) None";
    assert_eq!(targets("x.csv", numbers, None), values);
    assert_eq!(targets("x.csv", numbers, Some(Kind::Regression)), values);
    assert_eq!(
        targets("x.csv", numbers, Some(Kind::SingleLabel)),
        "x.csv:2: column \"label\" holds 1.5, a number and not a class; give --problem-type regression, or another label column"
    );
    let whole = b"text,label\na,1\nb,2\n";
    assert_eq!(targets("x.csv", whole, None), "1,2 | Some(0) Some(1)");
    assert_eq!(targets("x.csv", whole, Some(Kind::Regression)), "LABEL_0 | Value(1.0) Value(2.0)");
    assert_eq!(
        targets("x.csv", b"text,label\na,1\nb,nan\n", Some(Kind::Regression)),
        "x.csv:3: column \"label\" holds NaN, not a finite number; leave the cell empty where a row has no value"
    );
    assert_eq!(
        targets("x.csv", b"text,label\na,\"x,y\"\nb,y\n", Some(Kind::MultiLabel)),
        "x,y | Classes([0, 1]) Classes([1])"
    );
    // Lists of a parquet file, nulls and empty ones among them.
    let bytes = parquet_of_lists(&[Some(&[1, 0]), None, Some(&[]), Some(&[1])]);
    assert_eq!(
        targets("x.parquet", &bytes, None),
        "0,1 | Classes([0, 1]) None Classes([]) Classes([1])"
    );
    for end in 0..bytes.len() {
        let message = targets("x.parquet", &bytes[..end], None);
        assert!(
            message.starts_with("x.parquet: broken or truncated parquet ("),
            "{end}: {message}"
        );
    }
}

fn parquet_of_lists(rows: &[Option<&[i64]>]) -> Vec<u8> {
    let schema = "message schema { required binary text (UTF8); optional group label (LIST) { repeated group list { optional \
                  int64 element; } } }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let texts: Vec<ByteArray> = rows.iter().map(|_| "a".into()).collect();
    let (mut values, mut defined, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        match row {
            None => (defined.push(0), repeated.push(0)),
            Some([]) => (defined.push(1), repeated.push(0)),
            Some(list) => {
                defined.extend(list.iter().map(|_| 3));
                repeated.extend((0..list.len()).map(|at| i16::from(at > 0)));
                values.extend_from_slice(list);
                ((), ())
            }
        };
    }
    let mut bytes = Vec::new();
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&texts, None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&values, Some(&defined), Some(&repeated)).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    bytes
}

/// A text and a column of 64-bit numbers, as the schema calls them.
fn parquet_of_numbers(kind: &str, value: i64) -> Vec<u8> {
    let schema =
        format!("message schema {{ required binary text (UTF8); required int64 label {kind}; }}");
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let mut bytes = Vec::new();
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&["a".into(), "b".into()], None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&[value, 1], None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    bytes
}

/// A decimal's whole number is not its value, and the sign of an unsigned one is none.
#[test]
fn numbers_that_stand_for_others_are_read_or_refused() {
    let check = |kind: &str, value: i64, expected: &str| {
        assert_eq!(outcome("x.parquet", &parquet_of_numbers(kind, value), &request(&[])), expected);
    };
    check("", 5, "x-0|a|5 x-1|b|1");
    check("(UINT_64)", 5, "x-0|a|5 x-1|b|1");
    check(
        "(DECIMAL(10,2))",
        5,
        "x.parquet: column \"label\" is of decimals (cast them to double), not text or a number",
    );
    check("(DECIMAL(10,0))", 5, "x-0|a|5 x-1|b|1");
    check("(UINT_64)", -5, "x-0|a|18446744073709551611 x-1|b|1");
}

#[test]
fn messy_parquet() {
    let check = |bytes: &[u8], given: &[&str], expected: &str| {
        assert_eq!(outcome("x.parquet", bytes, &request(given)), expected);
    };
    let texts: [&[u8]; 3] = [b"a", b"b", b"c"];
    let good = parquet(&texts, &[1, -9, -1], Some(FOOTER));
    check(&good, &[], "x-0|a|pos x-1|b|- x-2|c|-");
    check(&good, &["neg", "pos"], "x-0|a|pos x-1|b|- x-2|c|-");
    check(
        &good,
        &["pos", "Neg"],
        "the labels given (pos, Neg) aren't the labels of the data (neg, pos): not in the data: Neg; not given: neg; some differ in case \
         only; the names must be the same, their order may differ",
    );
    // A model whose head has the classes in another order.
    check(&good, &["pos", "neg"], "x-0|a|pos x-1|b|- x-2|c|-");
    check(
        &parquet(&texts, &[1, 0, -1], Some(FOOTER)),
        &["pos", "neg"],
        "x-0|a|pos x-1|b|neg x-2|c|-",
    );
    check(&parquet(&texts, &[7, 9, 7], None), &[], "x-0|a|7 x-1|b|9 x-2|c|7");
    check(
        &parquet(&texts, &[0, 1, 2], Some(FOOTER)),
        &[],
        "x.parquet: row 2: column \"label\" holds 2, which is outside 0..2 of the labels neg, pos (-1 is unlabelled)",
    );
    check(
        &parquet(&[b"a", b"b", b"\xff"], &[0, 1, 1], Some(FOOTER)),
        &[],
        "x.parquet: row 2: not utf-8 text (save it as utf-8; spreadsheets call it \"csv utf-8\")",
    );
    check(
        &good[..good.len() - 1],
        &[],
        "x.parquet: broken or truncated parquet (Invalid Parquet file. Corrupt footer); fetch or write it again",
    );
    check(
        b"",
        &[],
        "x.parquet: broken or truncated parquet (Parquet file too small. Size is 0 but need 8); fetch or write it again",
    );
    check(
        b"<html>not found</html>",
        &[],
        "x.parquet: broken or truncated parquet (Invalid Parquet file. Corrupt footer); fetch or write it again",
    );
}

/// A manifest's names for an integer column, read for a model with the same classes in another order.
#[test]
fn names_of_a_manifest_are_aligned() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.csv");
    std::fs::write(&path, "text,label\na,1\nb,0\nc,-1\n").unwrap();
    let check = |manifest: &[&str], given: &[&str], expected: &str| {
        let names = LabelSet::new(manifest.iter().map(|name| (*name).to_owned()).collect());
        let dataset = Dataset::of_files(std::slice::from_ref(&path)).unwrap();
        let dataset = dataset.with_classes("label", &names.unwrap());
        let got = match read(&dataset, "train", &request(given)) {
            Err(error) => error.to_string(),
            Ok(split) => {
                let classes = split.examples.iter().map(|row| row.label.map_or(-1, i64::from));
                format!("{} {:?}", split.labels.names().join(" "), classes.collect::<Vec<_>>())
            }
        };
        assert_eq!(got, expected);
    };
    check(&["neg", "pos"], &[], "neg pos [1, 0, -1]");
    check(&["neg", "pos"], &["neg", "pos"], "neg pos [1, 0, -1]");
    check(&["neg", "pos"], &["pos", "neg"], "pos neg [0, 1, -1]");
    check(&["-1", "0", "1"], &["1", "0", "-1"], "1 0 -1 [0, 1, 2]");
    check(
        &["neg", "pos"],
        &["neg", "other"],
        "the labels given (neg, other) aren't the labels of the data (neg, pos): not in the data: other; not given: pos; the names must \
         be the same, their order may differ",
    );
}

#[test]
fn every_cut_of_a_parquet_file_is_refused() {
    let good = parquet(&[b"a", b"b", b"c"], &[0, 1, 1], Some(FOOTER));
    for end in 0..good.len() {
        let message = outcome("x.parquet", &good[..end], &request(&[]));
        assert!(
            message.starts_with("x.parquet: broken or truncated parquet ("),
            "{end}: {message}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn damaged_parquet_never_panics(at in any::<prop::sample::Index>(), flip in 1u8.., second in any::<prop::sample::Index>()) {
        let mut bytes = parquet(&[b"alpha", b"beta", b"gamma"], &[0, -9, 1], Some(FOOTER));
        let (at, second) = (at.index(bytes.len()), second.index(bytes.len()));
        bytes[at] ^= flip;
        bytes[second] = bytes[second].wrapping_add(flip);
        outcome("x.parquet", &bytes, &request(&[]));
    }
}
