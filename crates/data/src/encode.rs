//! Texts to token ids: the tokenizer of a model folder, and all rows of a split in one flat buffer.
//!
//! The result doesn't depend on the number of threads. Refuses a maximum length that leaves no room for text. Never pads:
//! that is the batch's business.

use std::path::Path;

use rayon::prelude::*;
use serde_json::Value;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{
    AddedToken, Encoding, PostProcessor, Tokenizer, TruncationDirection, TruncationParams,
    TruncationStrategy,
};

use crate::byte_level::byte_level;
use crate::error::{Error, Result};
use crate::example::Example;
use crate::kind::Targets;

/// A model's tokenizer with padding switched off.
pub struct TextEncoder {
    pub(crate) tokenizer: Tokenizer,
    pad_id: u32,
    vocab_size: usize,
}

impl TextEncoder {
    /// Reads `tokenizer.json` of a model folder, or builds what it would hold: BERT's WordPiece from `vocab.txt` (with
    /// `do_lower_case`, `strip_accents` and `tokenize_chinese_chars` of `tokenizer_config.json`), RoBERTa's byte-level BPE from
    /// `vocab.json` and `merges.txt` (with `add_prefix_space`).
    pub fn open(dir: &Path) -> Result<TextEncoder> {
        let config = json_of(&dir.join(CONFIG))?;
        let tokenizer = match form(dir)? {
            Form::Json => {
                let path = dir.join("tokenizer.json");
                Tokenizer::from_file(&path)
                    .map_err(|error| Error::BadTokenizer { path, reason: error.to_string() })?
            }
            Form::WordPiece => bert_of_vocab(&dir.join("vocab.txt"), &config)?,
            Form::BytePairs => {
                byte_level(&dir.join("vocab.json"), &dir.join("merges.txt"), &config)?
            }
        };
        let vocab_size = tokenizer.get_vocab(true).values().max().map_or(0, |id| *id as usize + 1);
        Ok(TextEncoder { pad_id: pad_id(&tokenizer, &config), tokenizer, vocab_size })
    }

    /// Highest token id + 1: the least number of rows an embedding needs.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// What padded positions hold: the configured pad token, else `[PAD]` or `<pad>`, else 0. Models are given lengths, so
    /// that no result depends on it.
    pub fn pad_id(&self) -> u32 {
        self.pad_id
    }

    /// Special tokens around a single text or a pair.
    fn added(&self, pair: Pair) -> usize {
        self.tokenizer
            .get_post_processor()
            .map_or(0, |processor| processor.added_tokens(pair == Pair::Yes))
    }
}

/// The files of a model folder that [`TextEncoder::open`] reads.
pub fn tokenizer_files(dir: &Path) -> Result<Vec<&'static str>> {
    let mut files = match form(dir)? {
        Form::Json => vec!["tokenizer.json"],
        Form::WordPiece => vec!["vocab.txt"],
        Form::BytePairs => vec!["vocab.json", "merges.txt"],
    };
    files.extend(dir.join(CONFIG).is_file().then_some(CONFIG));
    Ok(files)
}

const CONFIG: &str = "tokenizer_config.json";

/// How a folder holds its tokenizer.
enum Form {
    Json,
    WordPiece,
    BytePairs,
}

fn form(dir: &Path) -> Result<Form> {
    let is_there = |name: &str| dir.join(name).is_file();
    let sentencepiece = ["spm.model", "spiece.model", "sentencepiece.bpe.model"];
    match sentencepiece.into_iter().find(|name| is_there(name)) {
        _ if is_there("tokenizer.json") => Ok(Form::Json),
        _ if is_there("vocab.txt") => Ok(Form::WordPiece),
        _ if is_there("vocab.json") && is_there("merges.txt") => Ok(Form::BytePairs),
        Some(name) => Err(Error::SentencePiece { path: dir.join(name) }),
        None => Err(Error::NoTokenizer { dir: dir.to_owned() }),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pair {
    Yes,
    No,
}

// Null where there is no such file.
fn json_of(path: &Path) -> Result<Value> {
    if !path.is_file() {
        return Ok(Value::Null);
    }
    let text = std::fs::read(path).map_err(Error::read(path))?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::BadTokenizer { path: path.to_owned(), reason: error.to_string() })
}

fn pad_id(tokenizer: &Tokenizer, config: &Value) -> u32 {
    let named = &config["pad_token"];
    let configured = named.as_str().or_else(|| named["content"].as_str());
    let own = || tokenizer.get_padding().map(|padding| padding.pad_id);
    [configured, Some("[PAD]"), Some("<pad>")]
        .into_iter()
        .flatten()
        .find_map(|token| tokenizer.token_to_id(token))
        .or_else(own)
        .unwrap_or(0)
}

const BERT_TOKENS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

fn bert_of_vocab(path: &Path, config: &Value) -> Result<Tokenizer> {
    let bad = |reason: String| Error::BadTokenizer { path: path.to_owned(), reason };
    let bytes = std::fs::read(path).map_err(Error::read(path))?;
    let vocab = WordPiece::read_bytes(&bytes).map_err(|error| bad(error.to_string()))?;
    let special = |token: &str| {
        let id = vocab
            .get(token)
            .copied()
            .ok_or_else(|| bad(format!("{token} isn't in the vocabulary")))?;
        Ok((token.to_owned(), id))
    };
    let (sep, cls) = (special("[SEP]")?, special("[CLS]")?);
    special("[UNK]")?;
    let added: Vec<AddedToken> = BERT_TOKENS
        .iter()
        .filter(|token| vocab.contains_key(**token))
        .map(|token| AddedToken::from(*token, true))
        .collect();
    let flag = |key: &str, default: bool| config[key].as_bool().unwrap_or(default);
    let normalizer = BertNormalizer::new(
        true,
        flag("tokenize_chinese_chars", true),
        config["strip_accents"].as_bool(),
        flag("do_lower_case", true),
    );
    let model = WordPiece::builder()
        .vocab(vocab)
        .unk_token("[UNK]".to_owned())
        .build()
        .map_err(|error| bad(error.to_string()))?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_post_processor(Some(BertProcessing::new(sep, cls)));
    tokenizer.with_normalizer(Some(normalizer)).map_err(|error| bad(error.to_string()))?;
    tokenizer.add_special_tokens(added).map_err(|error| bad(error.to_string()))?;
    Ok(tokenizer)
}

/// All rows of a split as tokens, row `r` at `offsets[r]..offsets[r + 1]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Encoded {
    pub tokens: Vec<u32>,
    /// Segment ids: 0 first text, 1 second text of a pair, as the tokenizer gives them; some families have none and ignore them.
    pub types: Vec<u8>,
    /// (rows + 1,)
    pub offsets: Vec<usize>,
    pub ids: Vec<String>,
    pub labels: Vec<Option<u32>>,
    /// What the rows are trained to where that isn't one class.
    pub targets: Targets,
    /// Rows that were longer than the maximum length.
    pub n_truncated: usize,
}

impl Encoded {
    pub fn rows(&self) -> usize {
        self.ids.len()
    }

    pub fn length(&self, row: usize) -> usize {
        self.offsets[row + 1] - self.offsets[row]
    }

    /// (rows,), for `epoch_order` and `eval_order`.
    pub fn lengths(&self) -> Vec<u32> {
        (0..self.rows()).map(|row| self.length(row) as u32).collect()
    }

    pub fn tokens_of(&self, row: usize) -> &[u32] {
        &self.tokens[self.offsets[row]..self.offsets[row + 1]]
    }

    pub fn types_of(&self, row: usize) -> &[u8] {
        &self.types[self.offsets[row]..self.offsets[row + 1]]
    }
}

/// Tokenises all rows in parallel; rows over `max_length` tokens (special ones included) are cut at the end, of a pair the
/// longer text first.
pub fn encode(encoder: &TextEncoder, examples: &[Example], max_length: usize) -> Result<Encoded> {
    // The tokenizers crate subtracts without looking: too small a length would wrap around to no limit at all.
    for (kind, to, texts) in [(Pair::No, "a text", 1), (Pair::Yes, "a pair", 2)] {
        let added = encoder.added(kind);
        let occurs = examples.iter().any(|row| row.pair.is_some() == (kind == Pair::Yes));
        if occurs && max_length < added + texts {
            return Err(Error::MaxLengthTooSmall { max_length, added, to, least: added + texts });
        }
    }
    let mut tokenizer = encoder.tokenizer.clone();
    let truncation = TruncationParams {
        max_length: max_length.max(encoder.added(Pair::No) + 1),
        strategy: TruncationStrategy::LongestFirst,
        direction: TruncationDirection::Right,
        stride: 0,
    };
    tokenizer
        .with_truncation(Some(truncation))
        .map_err(|error| Error::Tokenize { id: String::new(), reason: error.to_string() })?;
    tokenizer.with_padding(None);
    let mut whole = tokenizer.clone();
    whole
        .with_truncation(None)
        .map_err(|error| Error::Tokenize { id: String::new(), reason: error.to_string() })?;
    let parts: Vec<Encoded> = examples
        .par_chunks(256)
        .map(|rows| encode_part(&tokenizer, &whole, rows))
        .collect::<Result<_>>()?;
    let targets = Targets::of(examples);
    let mut all = Encoded { offsets: vec![0], targets, ..Encoded::default() };
    for part in parts {
        let start = all.tokens.len();
        all.tokens.extend(part.tokens);
        all.types.extend(part.types);
        all.offsets.extend(part.offsets.iter().map(|end| start + end));
        all.ids.extend(part.ids);
        all.labels.extend(part.labels);
        all.n_truncated += part.n_truncated;
    }
    Ok(all)
}

/// `whole` cuts nothing.
fn encode_part(tokenizer: &Tokenizer, whole: &Tokenizer, rows: &[Example]) -> Result<Encoded> {
    let mut part = Encoded::default();
    for row in rows {
        let encoding = match &row.pair {
            Some(pair) => encode_pair(tokenizer, whole, &row.text, pair),
            None => tokenizer.encode_fast(row.text.as_str(), true),
        };
        let encoding = encoding
            .map_err(|error| Error::Tokenize { id: row.id.clone(), reason: error.to_string() })?;
        part.tokens.extend_from_slice(encoding.get_ids());
        // No tokenizer has more than a handful of segments.
        part.types.extend(encoding.get_type_ids().iter().map(|kind| *kind as u8));
        part.offsets.push(part.tokens.len());
        part.ids.push(row.id.clone());
        part.labels.push(row.label);
        part.n_truncated += usize::from(!encoding.get_overflowing().is_empty());
    }
    Ok(part)
}

/// Both texts whole, then cut together. The tokenizers crate would stop in each once it had `max_length` tokens, and no longer
/// know which was longer: where the room is odd, the other one would get the last token.
fn encode_pair(
    tokenizer: &Tokenizer,
    whole: &Tokenizer,
    text: &str,
    pair: &str,
) -> tokenizers::Result<Encoding> {
    let first = whole.encode_fast(text, false)?;
    let mut second = whole.encode_fast(pair, false)?;
    second.set_type_ids(vec![1; second.len()]);
    tokenizer.post_process(first, Some(second), true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCAB: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n##c\nA\n";

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, text)| std::fs::write(dir.path().join(name), text).unwrap());
        dir
    }

    fn row(id: &str, text: &str, pair: Option<&str>) -> Example {
        Example {
            id: id.to_owned(),
            text: text.to_owned(),
            pair: pair.map(str::to_owned),
            label: None,
            target: None,
        }
    }

    #[test]
    fn wordpiece_from_a_vocabulary() {
        let dir = folder(&[("vocab.txt", VOCAB)]);
        let encoder = TextEncoder::open(dir.path()).unwrap();
        assert_eq!((encoder.vocab_size(), encoder.pad_id()), (9, 0));
        let check = |text: &str,
                     pair: Option<&str>,
                     max_length,
                     tokens: &[u32],
                     types: &[u8],
                     truncated| {
            let encoded = encode(&encoder, &[row("1", text, pair)], max_length).unwrap();
            assert_eq!((encoded.tokens_of(0), encoded.types_of(0)), (tokens, types), "{text}");
            assert_eq!(
                (encoded.n_truncated, encoded.rows(), encoded.length(0)),
                (truncated, 1, tokens.len())
            );
        };
        check("A bc", None, 10, &[2, 5, 6, 7, 3], &[0; 5], 0);
        check("", None, 10, &[2, 3], &[0; 2], 0);
        check("a b a b", None, 4, &[2, 5, 6, 3], &[0; 4], 1);
        check("a b", None, 4, &[2, 5, 6, 3], &[0; 4], 0);
        check("a [SEP] é", None, 9, &[2, 5, 3, 1, 3], &[0; 5], 0);
        check("a", Some("b b"), 9, &[2, 5, 3, 6, 6, 3], &[0, 0, 0, 1, 1, 1], 0);
        check("a", Some("b b b b"), 6, &[2, 5, 3, 6, 6, 3], &[0, 0, 0, 1, 1, 1], 1);
        check("a a a a", Some("b b b b"), 7, &[2, 5, 5, 3, 6, 6, 3], &[0, 0, 0, 0, 1, 1, 1], 1);
        // The odd token goes to the longer text, however long both are, and to the second where they are equal.
        let (ten, nine) = ("a ".repeat(10), "b ".repeat(9));
        let types = &[0, 0, 0, 0, 0, 1, 1, 1];
        check(&ten, Some(&nine), 8, &[2, 5, 5, 5, 3, 6, 6, 3], types, 1);
        let types = &[0, 0, 0, 0, 1, 1, 1, 1];
        check(
            &nine.replace('b', "a"),
            Some(&ten.replace('a', "b")),
            8,
            &[2, 5, 5, 3, 6, 6, 6, 3],
            types,
            1,
        );
        check(&ten, Some(&ten.replace('a', "b")), 8, &[2, 5, 5, 3, 6, 6, 6, 3], types, 1);
        let cased = folder(&[
            ("vocab.txt", VOCAB),
            ("tokenizer_config.json", r#"{"do_lower_case": false}"#),
        ]);
        let encoded =
            encode(&TextEncoder::open(cased.path()).unwrap(), &[row("1", "A a", None)], 8).unwrap();
        assert_eq!(encoded.tokens, [2, 8, 5, 3]);
        assert_eq!(encode(&encoder, &[], 8).unwrap().offsets, [0]);
    }

    /// Blanks are Ġ; 'lo' and 'low' are merged; 'é' is two bytes. There are no types.
    #[test]
    fn byte_pairs_from_a_vocabulary() {
        let vocab = r#"{"<s>":0,"<pad>":1,"</s>":2,"<unk>":3,"l":4,"o":5,"w":6,"lo":7,"low":8,"Ġ":9,"Ġlow":10,"Ã":11,"©":12,
                        "<mask>":13}"#;
        let merges = "#version: 0.2\nl o\nlo w\nĠ low\n";
        let files = [("vocab.json", vocab), ("merges.txt", merges)];
        let check = |dir: tempfile::TempDir, text: &str, pair: Option<&str>, tokens: &[u32]| {
            let encoder = TextEncoder::open(dir.path()).unwrap();
            assert_eq!((encoder.vocab_size(), encoder.pad_id()), (14, 1));
            let encoded = encode(&encoder, &[row("1", text, pair)], 9).unwrap();
            assert_eq!(
                (&encoded.tokens[..], encoded.types),
                (tokens, vec![0; tokens.len()]),
                "{text}"
            );
        };
        check(folder(&files), "low lo", None, &[0, 8, 9, 7, 2]);
        check(folder(&files), "é low <mask>", None, &[0, 11, 12, 10, 13, 2]);
        check(folder(&files), "low", Some("low low"), &[0, 8, 2, 2, 8, 10, 2]);
        let prefixed = ("tokenizer_config.json", r#"{"add_prefix_space": true}"#);
        check(folder(&[files[0], files[1], prefixed]), "low", None, &[0, 10, 2]);
        let dir = folder(&[files[0], files[1], prefixed]);
        let read = ["vocab.json", "merges.txt", "tokenizer_config.json"];
        assert_eq!(tokenizer_files(dir.path()).unwrap(), read);
    }

    #[test]
    fn bad_tokenizers() {
        let check = |files: &[(&str, &str)], message: &str| {
            let dir = folder(files);
            let got = TextEncoder::open(dir.path())
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default();
            assert_eq!(got, format!("{}{message}", dir.path().display()));
        };
        let none = ": no tokenizer here (expected tokenizer.json, or vocab.txt of a bert model, or vocab.json and \
                    merges.txt of a roberta model)";
        check(&[], none);
        check(&[("vocab.json", "{}")], none);
        for name in ["spm.model", "spiece.model", "sentencepiece.bpe.model"] {
            let message = "a sentencepiece model alone can't be read; tokenizer.json is needed beside it, and Python makes \
                           it: transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)";
            check(&[(name, "")], &format!("/{name}: {message}"));
        }
        check(
            &[("vocab.json", r#"{"a": 0, "<s>": 1}"#), ("merges.txt", "")],
            "/vocab.json: isn't a tokenizer (</s> isn't in the vocabulary)",
        );
        check(
            &[("tokenizer.json", "{}")],
            "/tokenizer.json: isn't a tokenizer (Model missing. at line 1 column 2)",
        );
        check(
            &[("vocab.txt", "a\n[CLS]\n")],
            "/vocab.txt: isn't a tokenizer ([SEP] isn't in the vocabulary)",
        );
        check(
            &[("vocab.txt", VOCAB), ("tokenizer_config.json", "{")],
            "/tokenizer_config.json: isn't a tokenizer (EOF while parsing an object at line 1 column 1)",
        );
    }

    #[test]
    fn too_small_a_length() {
        let dir = folder(&[("vocab.txt", VOCAB)]);
        let encoder = TextEncoder::open(dir.path()).unwrap();
        let check = |pair: Option<&str>, max_length, message: &str| {
            let got = encode(&encoder, &[row("1", "a", pair)], max_length)
                .map(|_| ())
                .map_err(|error| error.to_string());
            assert_eq!(got, if message.is_empty() { Ok(()) } else { Err(message.to_owned()) });
        };
        check(None, 3, "");
        check(
            None,
            2,
            "max length 2 is too small: this tokenizer adds 2 special tokens to a text, so at least 3 are needed",
        );
        check(
            None,
            0,
            "max length 0 is too small: this tokenizer adds 2 special tokens to a text, so at least 3 are needed",
        );
        check(Some("b"), 5, "");
        check(
            Some("b"),
            4,
            "max length 4 is too small: this tokenizer adds 3 special tokens to a pair, so at least 5 are needed",
        );
    }
}
