//! Columns of a CSV or TSV file with a header line.
//!
//! Refuses rows with another number of cells than the header, quotes that are never closed or join rows, and text that isn't UTF-8: each
//! of them would move text or labels to other rows in silence. Refuses a header of one cell with a `|` in it, a delimiter that
//! isn't read. Blank lines are passed over. A byte-order mark is dropped.

use std::path::Path;

use csv::ByteRecord;

use crate::error::{At, Error, Place, Result};
use crate::table::{Cells, Head, Table, Wanted, positions};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delimiter {
    Tab,
    /// A comma, or, where the header line has none, a semicolon or a tab if it has that.
    Sniffed,
}

pub fn head(path: &Path, delimiter: Delimiter) -> Result<Head> {
    let bytes = load(path)?;
    let columns = header(path, &mut reader(&bytes, delimiter), &mut Lines::of(&bytes, delimiter))?;
    Ok(Head { columns, features: Vec::new() })
}

pub fn read(path: &Path, wanted: &[Wanted<'_>], delimiter: Delimiter) -> Result<Table> {
    let bytes = load(path)?;
    let mut reader = reader(&bytes, delimiter);
    let mut starts = Lines::of(&bytes, delimiter);
    let columns = header(path, &mut reader, &mut starts)?;
    let wanted = positions(path, &columns, wanted)?;
    let mut cells: Vec<Vec<Option<String>>> = vec![Vec::new(); wanted.len()];
    let (mut lines, mut record) = (Vec::new(), ByteRecord::new());
    while let Some(line) = next(path, &mut reader, &mut record, &mut starts, &columns)? {
        for (cells, at) in cells.iter_mut().zip(&wanted) {
            let cell = record.get(*at).unwrap_or_default();
            let place = Place::Line(line);
            let text = std::str::from_utf8(cell)
                .map_err(|_| Error::NotUtf8 { at: At { path: path.to_owned(), place } })?;
            cells.push((!text.is_empty()).then(|| text.to_owned()));
        }
        lines.push(u32::try_from(line).unwrap_or(u32::MAX));
    }
    Ok(Table { path: path.to_owned(), cells: cells.into_iter().map(Cells::Text).collect(), lines })
}

/// Calls `visit` with the line and the cells of each row, header aside, without keeping them. As strict as `read`.
pub fn for_each_row<E: From<Error>>(
    path: &Path,
    delimiter: Delimiter,
    mut visit: impl FnMut(usize, &ByteRecord) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let bytes = load(path)?;
    let mut reader = reader(&bytes, delimiter);
    let mut starts = Lines::of(&bytes, delimiter);
    let columns = header(path, &mut reader, &mut starts)?;
    let mut record = ByteRecord::new();
    while let Some(line) = next(path, &mut reader, &mut record, &mut starts, &columns)? {
        visit(line, &record)?;
    }
    Ok(())
}

// Whole, because line numbers, the open-quote check and the sniffing all want to look back; data sets of texts fit.
fn load(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = std::fs::read(path).map_err(Error::read(path))?;
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(Error::Utf16 { path: path.to_owned() });
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    if bytes.trim_ascii().is_empty() {
        return Err(Error::EmptyFile { path: path.to_owned() });
    }
    Ok(bytes)
}

fn delimiter_of(bytes: &[u8], delimiter: Delimiter) -> u8 {
    let header = bytes
        .split(|byte| *byte == b'\n')
        .find(|line| !line.trim_ascii().is_empty())
        .unwrap_or_default();
    match delimiter {
        Delimiter::Tab => b'\t',
        Delimiter::Sniffed => {
            *b",;\t".iter().find(|candidate| header.contains(candidate)).unwrap_or(&b',')
        }
    }
}

fn reader(bytes: &[u8], delimiter: Delimiter) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new()
        .delimiter(delimiter_of(bytes, delimiter))
        .has_headers(false)
        .flexible(true)
        .from_reader(bytes)
}

/// Where rows start. The csv crate's own count is taken before the `\n` of the `\r\n` above a row, and before blank lines.
struct Lines<'b> {
    bytes: &'b [u8],
    /// The first byte of the row that was read last, and its line.
    at: usize,
    line: usize,
    delimiter: u8,
}

impl Lines<'_> {
    fn of(bytes: &[u8], delimiter: Delimiter) -> Lines<'_> {
        Lines { bytes, at: 0, line: 1, delimiter: delimiter_of(bytes, delimiter) }
    }

    // The csv crate gives the byte after the row above; rows come in order.
    fn go_to(&mut self, record: &ByteRecord) -> usize {
        let end = record.position().map_or(0, |position| position.byte() as usize);
        let rest = self.bytes.get(end..).unwrap_or_default();
        let start = end + rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let passed = self.bytes.get(self.at..start).unwrap_or_default();
        let ends_line = |(at, byte): &(usize, &u8)| match byte {
            b'\n' => true,
            b'\r' => self.bytes.get(self.at + at + 1) != Some(&b'\n'),
            _ => false,
        };
        self.line += passed.iter().enumerate().filter(ends_line).count();
        self.at = start;
        self.line
    }
}

fn header(
    path: &Path,
    reader: &mut csv::Reader<&[u8]>,
    starts: &mut Lines<'_>,
) -> Result<Vec<String>> {
    let mut record = ByteRecord::new();
    let place = Place::Line(next(path, reader, &mut record, starts, &[])?.unwrap_or(1));
    let name = |cell: &[u8]| {
        std::str::from_utf8(cell)
            .map(|name| name.trim().to_owned())
            .map_err(|_| Error::NotUtf8 { at: At { path: path.to_owned(), place } })
    };
    let columns: Vec<String> = record.iter().map(name).collect::<Result<_>>()?;
    match columns.as_slice() {
        [only] if only.contains('|') => {
            Err(Error::OtherDelimiter { path: path.to_owned(), header: only.clone() })
        }
        _ => Ok(columns),
    }
}

// The line on which the row starts; `None` at the end of the file.
fn next(
    path: &Path,
    reader: &mut csv::Reader<&[u8]>,
    record: &mut ByteRecord,
    starts: &mut Lines<'_>,
    columns: &[String],
) -> Result<Option<usize>> {
    let more = reader.read_byte_record(record).map_err(|error| Error::Read {
        path: path.to_owned(),
        source: std::io::Error::other(error),
    })?;
    if !more {
        return Ok(None);
    }
    let line = starts.go_to(record);
    let end = reader.position().byte() as usize;
    match quotes(starts.bytes.get(starts.at..end).unwrap_or_default(), starts.delimiter) {
        Quotes::Sound => {}
        Quotes::Open => return Err(Error::OpenQuote { path: path.to_owned(), line }),
        Quotes::Stray => return Err(Error::StrayQuote { path: path.to_owned(), line }),
    }
    if !columns.is_empty() && record.len() != columns.len() {
        let (found, expected) = (record.len(), columns.len());
        return Err(Error::Ragged { path: path.to_owned(), line, found, expected });
    }
    Ok(Some(line))
}

#[derive(Debug, PartialEq)]
enum Quotes {
    Sound,
    /// A quoted cell is open at the end, which is that of the file: the csv crate closes it there, and everything after the stray quote
    /// becomes one cell.
    Open,
    /// A quoted cell has line breaks and goes on behind its closing quote, which the csv crate takes for a part of it: so it joins rows
    /// whose texts have a quote at a start and one further on. On one line nothing is joined.
    Stray,
}

fn quotes(row: &[u8], delimiter: u8) -> Quotes {
    let (mut inside, mut at_start, mut crosses, mut at) = (false, true, false, 0);
    while at < row.len() {
        let byte = row[at];
        if inside {
            match (byte, row.get(at + 1)) {
                (b'"', Some(b'"')) => at += 1,
                (b'"', None | Some(b'\r' | b'\n')) => inside = false,
                (b'"', Some(next)) if *next == delimiter => inside = false,
                (b'"', Some(_)) if crosses => return Quotes::Stray,
                (b'"', Some(_)) => inside = false,
                (b'\r' | b'\n', _) => crosses = true,
                _ => {}
            }
        } else {
            inside = byte == b'"' && at_start;
            crosses = false;
            at_start = byte == delimiter || byte == b'\n' || byte == b'\r';
        }
        at += 1;
    }
    if inside { Quotes::Open } else { Quotes::Sound }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn open_and_stray_quotes_are_seen() {
        let check = |row: &str, expected: Quotes| {
            assert_eq!(quotes(row.as_bytes(), b','), expected, "{row}")
        };
        check("a,b\n", Quotes::Sound);
        check("\"a\",b\r\n", Quotes::Sound);
        check("\"a,b\n", Quotes::Open);
        check("a,\"b\nc", Quotes::Open);
        check("a,\"b \"\" c\"", Quotes::Sound);
        check("a,\"b \"\"", Quotes::Open);
        check("5\" pipe,b", Quotes::Sound);
        check("\"5\" pipe,b", Quotes::Sound);
        check("\"a\" ,b\n", Quotes::Sound);
        check("\"a\nb\" ,c\n", Quotes::Stray);
        check("\"start,1\n2,he said \"no\",0\n", Quotes::Stray);
        check("", Quotes::Sound);
    }

    /// Without the quotes they would be one row, of the first one's id and the second one's label.
    #[test]
    fn rows_that_stray_quotes_would_join_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.tsv");
        std::fs::write(
            &path,
            "id\ttext\tlabel\n0\tfine\t1\n1\t\"Unbalanced start\t1\n2\tHe said \"no\"\t0\n",
        )
        .unwrap();
        let wanted = [Wanted { role: "text", column: "text" }];
        let error = read(&path, &wanted, Delimiter::Tab).unwrap_err().to_string();
        let said = "x.tsv:3: a quoted cell that starts in this row has line breaks, and goes on behind a quote; write quotes inside a \
                    cell twice, and cells that begin with one in quotes";
        assert!(error.ends_with(said), "{error}");
    }

    #[test]
    fn rows_know_their_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.csv");
        let check = |content: &str, lines: &[u32]| {
            std::fs::write(&path, content).unwrap();
            let wanted = [Wanted { role: "text", column: "text" }];
            let table = read(&path, &wanted, Delimiter::Sniffed).unwrap();
            assert_eq!(table.lines, lines, "{content:?}");
        };
        let endings = |content: &str, lines: &[u32]| {
            check(content, lines);
            check(&content.replace('\n', "\r\n"), lines);
            check(&content.replace('\n', "\r"), lines);
        };
        endings("text\na\nb\n", &[2, 3]);
        endings("\n\ntext\n\na\n\n\nb", &[5, 8]);
        endings("text,x\n\"a\n\nb\",1\n\"\nc\",2\nd,3", &[2, 5, 7]);
        check("text\r\na\nb\r\n\r\nc", &[2, 3, 5]);
    }

    proptest! {
        #[test]
        fn well_formed_rows_come_back(rows in prop::collection::vec(("[a-z,;\"\t\n é]{0,12}", "[ab\"]{1,3}"), 1..12), tab: bool) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x.csv");
            let mut writer = csv::WriterBuilder::new().delimiter(if tab { b'\t' } else { b',' }).from_path(&path).unwrap();
            writer.write_record(["text", "label"]).unwrap();
            rows.iter().for_each(|(text, label)| writer.write_record([text, label]).unwrap());
            writer.flush().unwrap();
            let wanted = [Wanted { role: "label", column: "label" }, Wanted { role: "text", column: "text" }];
            let table = read(&path, &wanted, if tab { Delimiter::Tab } else { Delimiter::Sniffed }).unwrap();
            let some = |text: &String| (!text.is_empty()).then(|| text.clone());
            prop_assert_eq!(&table.cells[0], &Cells::Text(rows.iter().map(|row| some(&row.1)).collect()));
            prop_assert_eq!(&table.cells[1], &Cells::Text(rows.iter().map(|row| some(&row.0)).collect()));
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x.csv");
            std::fs::write(&path, [b"text,label\n", &bytes[..]].concat()).unwrap();
            let wanted = [Wanted { role: "text", column: "text" }];
            let _ = read(&path, &wanted, Delimiter::Sniffed);
            std::fs::write(&path, &bytes).unwrap();
            let _ = head(&path, Delimiter::Sniffed);
        }
    }
}
