//! Texts to token ids: the tokenizer of a model folder, and all rows of a split in one flat buffer.
//!
//! The result doesn't depend on the number of threads. Refuses a maximum length that leaves no room for text. Never pads:
//! that is the batch's business.

use std::path::Path;

use rayon::prelude::*;
use tokenizers::{EncodeInput, Tokenizer, TruncationParams, TruncationStrategy};

use crate::error::{Error, Result};
use crate::example::Example;

/// A model's tokenizer with padding and truncation switched off.
pub struct TextEncoder {
    tokenizer: Tokenizer,
    pad_id: u32,
}

impl TextEncoder {
    /// Reads `tokenizer.json` of a model folder, or builds BERT's WordPiece from `vocab.txt` where there is only that.
    pub fn open(dir: &Path) -> Result<TextEncoder> {
        let path = dir.join("tokenizer.json");
        let tokenizer = Tokenizer::from_file(&path).map_err(|error| Error::BadTokenizer {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        let pad_id = tokenizer.token_to_id("[PAD]").unwrap_or(0);
        Ok(TextEncoder { tokenizer, pad_id })
    }

    /// Highest token id + 1: the least number of rows an embedding needs.
    pub fn vocab_size(&self) -> usize {
        self.tokenizer.get_vocab(true).values().max().map_or(0, |id| *id as usize + 1)
    }

    /// What padded positions hold; never looked at by a model that is given the lengths.
    pub fn pad_id(&self) -> u32 {
        self.pad_id
    }
}

/// All rows of a split as tokens, row `r` at `offsets[r]..offsets[r + 1]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    pub tokens: Vec<u32>,
    /// Segment ids: 0 first text, 1 second text of a pair.
    pub types: Vec<u8>,
    /// (rows + 1,)
    pub offsets: Vec<usize>,
    pub ids: Vec<String>,
    pub labels: Vec<Option<u32>>,
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

/// Tokenises all rows in parallel; texts over `max_length` tokens are cut at the end, pairs the longer one first.
pub fn encode(encoder: &TextEncoder, examples: &[Example], max_length: usize) -> Result<Encoded> {
    let mut tokenizer = encoder.tokenizer.clone();
    let truncation = TruncationParams {
        max_length,
        strategy: TruncationStrategy::LongestFirst,
        ..TruncationParams::default()
    };
    tokenizer.with_truncation(Some(truncation)).map_err(|_| Error::MaxLengthTooSmall {
        max_length,
        added: 2,
        least: 3,
    })?;
    tokenizer.with_padding(None);
    let parts: Vec<Encoded> = examples
        .par_chunks(256)
        .map(|rows| encode_part(&tokenizer, rows))
        .collect::<Result<_>>()?;
    let mut all = Encoded { offsets: vec![0], ..Encoded::default() };
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

fn encode_part(tokenizer: &Tokenizer, rows: &[Example]) -> Result<Encoded> {
    let mut part = Encoded::default();
    for row in rows {
        let input: EncodeInput = match &row.pair {
            Some(pair) => (row.text.as_str(), pair.as_str()).into(),
            None => row.text.as_str().into(),
        };
        let encoding = tokenizer
            .encode_fast(input, true)
            .map_err(|error| Error::Tokenize { id: row.id.clone(), reason: error.to_string() })?;
        part.tokens.extend_from_slice(encoding.get_ids());
        part.types.extend(encoding.get_type_ids().iter().map(|kind| *kind as u8));
        part.offsets.push(part.tokens.len());
        part.ids.push(row.id.clone());
        part.labels.push(row.label);
        part.n_truncated += usize::from(!encoding.get_overflowing().is_empty());
    }
    Ok(part)
}
