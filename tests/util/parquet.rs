//! A small parquet file: `key`, `text` and `label`, all text.

use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

/// Rows of text and label; the keys are r0, r1, and so on.
pub fn texts_and_labels(rows: &[(&str, &str)]) -> Vec<u8> {
    let schema = "message schema { required binary key (UTF8); required binary text (UTF8); required binary label (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let keys = (0..rows.len()).map(|n| format!("r{n}")).collect();
    let texts = rows.iter().map(|(text, _)| text.to_string()).collect();
    let labels = rows.iter().map(|(_, label)| label.to_string()).collect();
    let columns: [Vec<String>; 3] = [keys, texts, labels];
    let mut bytes = Vec::new();
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for values in columns {
        let values: Vec<ByteArray> = values.iter().map(|value| value.as_str().into()).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
    bytes
}
