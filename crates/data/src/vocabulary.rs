//! Fewer word pieces: those of a WordPiece vocabulary that some texts need, and the tokenizer's files with these alone.
//!
//! Knows no weights: which rows of a table of words stay is told by their old ids. Refuses other kinds of vocabulary.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::{Map, Value};
use tokenizers::Tokenizer;

use crate::encode::TextEncoder;
use crate::error::{Error, Result};

/// A vocabulary with fewer pieces.
#[derive(Clone, Debug, PartialEq)]
pub struct Trimmed {
    /// The old ids of the pieces that stay; a piece's place is its new id.
    pub kept: Vec<u32>,
    /// Names and contents of the new tokenizer's files.
    pub files: Vec<(String, Vec<u8>)>,
}

/// A fifth of what is too much goes before the others are counted again.
const PRUNED_AT_ONCE: usize = 5;
const PREFIX: &str = "##";

struct Piece {
    text: String,
    id: u32,
    /// A special token, a character of ASCII, or a letter or digit as a continuation: these stay whatever the texts say.
    is_needed: bool,
}

/// The `size` pieces that the texts use most, special tokens and ASCII characters besides.
///
/// The rarest go first; then the words are split anew, and the pieces that took over are counted again, until `size` are left:
/// by one count alone, beginnings and endings would go that only rare words need. A character is counted wherever a text has
/// it, for any word may come down to its characters. Of equals the higher id goes first.
pub fn trim_vocabulary(dir: &Path, texts: &[&str], size: usize) -> Result<Trimmed> {
    let encoder = TextEncoder::open(dir)?;
    let (path, json, pieces) = pieces_of(dir)?;
    let refuse = |reason: String| Err(Error::Vocabulary { path: path.clone(), reason });
    let n_needed = pieces.iter().filter(|piece| piece.is_needed).count();
    if size >= pieces.len() {
        let n = pieces.len();
        return refuse(format!("it has {n} pieces, and {size} were asked for; ask for fewer"));
    }
    if size < n_needed {
        return refuse(format!(
            "special tokens and ASCII characters alone are {n_needed} pieces, and {size} were asked for; ask for more"
        ));
    }
    let words = count_words(&encoder.tokenizer, texts)?;
    if words.is_empty() {
        return refuse("the texts have no word that it knows; give other texts".into());
    }
    let kept = kept_pieces(&pieces, &words, size);
    let new_ids: HashMap<u32, u32> =
        kept.iter().enumerate().map(|(new, &old)| (old, new as u32)).collect();
    let lines: String = (kept.iter())
        .filter_map(|id| pieces.binary_search_by_key(id, |piece| piece.id).ok())
        .map(|at| format!("{}\n", pieces[at].text))
        .collect();
    let mut files = vec![("vocab.txt".to_string(), lines.into_bytes())];
    if let Some(mut json) = json {
        renumber(&mut json, &new_ids);
        files.push(("tokenizer.json".into(), format!("{json:#}\n").into_bytes()));
    }
    for name in ["tokenizer_config.json", "special_tokens_map.json"] {
        let from = dir.join(name);
        if !from.is_file() {
            continue;
        }
        let mut value = read_json(&from)?;
        if let Some(decoder) = value.get_mut("added_tokens_decoder").and_then(Value::as_object_mut)
        {
            *decoder = renumbered_keys(decoder, &new_ids);
        }
        files.push((name.into(), format!("{value:#}\n").into_bytes()));
    }
    Ok(Trimmed { kept, files })
}

/// The file that the pieces are from, its JSON where it is one, and the pieces in the order of their ids.
fn pieces_of(dir: &Path) -> Result<(PathBuf, Option<Value>, Vec<Piece>)> {
    let path = dir.join("tokenizer.json");
    let (path, json, ids, special) = if path.is_file() {
        let json = read_json(&path)?;
        let kind = json["model"]["type"].as_str().unwrap_or("none");
        let vocab = json["model"]["vocab"].as_object().filter(|_| kind == "WordPiece");
        let Some(vocab) = vocab else {
            let reason = format!(
                "its model is {kind}, and only a WordPiece vocabulary can be trimmed; leave --vocabulary out"
            );
            return Err(Error::Vocabulary { path, reason });
        };
        let ids: Vec<(String, u32)> = (vocab.iter())
            .filter_map(|(text, id)| Some((text.clone(), u32::try_from(id.as_u64()?).ok()?)))
            .collect();
        let added = json["added_tokens"].as_array().map_or(&[][..], Vec::as_slice);
        let contents = added.iter().filter_map(|token| token["content"].as_str());
        let special: BTreeSet<String> = contents.map(str::to_string).collect();
        if let Some(outside) = special.iter().find(|token| !vocab.contains_key(*token)) {
            let reason = format!(
                "its added token {outside:?} stands outside the vocabulary, which can't be trimmed then; leave --vocabulary out"
            );
            return Err(Error::Vocabulary { path, reason });
        }
        (path, Some(json), ids, special)
    } else {
        let path = dir.join("vocab.txt");
        let text = std::fs::read_to_string(&path).map_err(Error::read(&path))?;
        let lines = text.lines().enumerate();
        let ids = lines.map(|(id, line)| (line.to_string(), id as u32)).collect();
        (path, None, ids, BTreeSet::new())
    };
    let usual = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    // Punctuation is a word of its own, and continues none.
    let is_ascii = |text: &str| match (parts_of(text), text.len()) {
        ((true, _), 1) => text.bytes().all(|byte| byte.is_ascii_graphic()),
        ((false, stem), _) if stem.len() == 1 => {
            stem.bytes().all(|byte| byte.is_ascii_alphanumeric())
        }
        _ => false,
    };
    let mut pieces: Vec<Piece> = (ids.into_iter())
        .map(|(text, id)| Piece {
            is_needed: special.contains(&text) || usual.contains(&text.as_str()) || is_ascii(&text),
            text,
            id,
        })
        .collect();
    pieces.sort_by_key(|piece| piece.id);
    Ok((path, json, pieces))
}

fn read_json(path: &Path) -> Result<Value> {
    let bytes = std::fs::read(path).map_err(Error::read(path))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::BadTokenizer { path: path.to_owned(), reason: error.to_string() })
}

/// How often the texts have each word. A word is what the tokenizer made of it, its pieces put together again.
fn count_words(tokenizer: &Tokenizer, texts: &[&str]) -> Result<BTreeMap<String, u64>> {
    let mut tokenizer = tokenizer.clone();
    let fail =
        |error: tokenizers::Error| Error::Tokenize { id: String::new(), reason: error.to_string() };
    tokenizer.with_truncation(None).map_err(fail)?;
    tokenizer.with_padding(None);
    let count = |texts: &[&str]| -> Result<BTreeMap<String, u64>> {
        let mut words = BTreeMap::new();
        for text in texts {
            let encoding = tokenizer.encode_fast(*text, false).map_err(fail)?;
            let mut word = String::new();
            for &id in encoding.get_ids() {
                let piece = tokenizer.id_to_token(id).unwrap_or_default();
                match piece.strip_prefix(PREFIX).filter(|rest| !rest.is_empty() && !word.is_empty())
                {
                    Some(rest) => word.push_str(rest),
                    None => {
                        add(&mut words, std::mem::replace(&mut word, piece), 1);
                    }
                }
            }
            add(&mut words, word, 1);
        }
        Ok(words)
    };
    let parts = texts.par_chunks(1024).map(count).collect::<Result<Vec<_>>>()?;
    let mut all = BTreeMap::new();
    for (word, n) in parts.into_iter().flatten() {
        add(&mut all, word, n);
    }
    all.remove("[UNK]");
    Ok(all)
}

fn add(words: &mut BTreeMap<String, u64>, word: String, n: u64) {
    if !word.is_empty() {
        *words.entry(word).or_default() += n;
    }
}

/// Old ids of the pieces that stay, in their order.
fn kept_pieces(pieces: &[Piece], words: &BTreeMap<String, u64>, size: usize) -> Vec<u32> {
    let mut characters = HashMap::new();
    for (word, n) in words {
        for (at, character) in word.chars().enumerate() {
            *characters.entry((at == 0, character)).or_insert(0) += n;
        }
    }
    let mut alive: Vec<&Piece> = pieces.iter().collect();
    while alive.len() > size {
        let mut used = count_pieces(&alive, words);
        for (piece, used) in alive.iter().zip(&mut used) {
            let (is_start, stem) = parts_of(&piece.text);
            let mut letters = stem.chars();
            if let (Some(only), None) = (letters.next(), letters.next()) {
                *used = *characters.get(&(is_start, only)).unwrap_or(&0);
            }
        }
        let n_gone = (alive.len() - size).div_ceil(PRUNED_AT_ONCE);
        let mut rarest: Vec<usize> = (0..alive.len()).filter(|&at| !alive[at].is_needed).collect();
        rarest.sort_by_key(|&at| (used[at], std::cmp::Reverse(alive[at].id)));
        let gone: BTreeSet<usize> = rarest.into_iter().take(n_gone).collect();
        let left = alive.iter().enumerate().filter(|(at, _)| !gone.contains(at));
        alive = left.map(|(_, piece)| *piece).collect();
    }
    alive.iter().map(|piece| piece.id).collect()
}

/// Whether a piece starts a word, and its letters.
fn parts_of(text: &str) -> (bool, &str) {
    match text.strip_prefix(PREFIX).filter(|stem| !stem.is_empty()) {
        Some(stem) => (false, stem),
        None => (true, text),
    }
}

/// How often each piece is used when every word is split by longest match first; a word that can't be split uses none.
fn count_pieces(alive: &[&Piece], words: &BTreeMap<String, u64>) -> Vec<u64> {
    let at: HashMap<(bool, &str), usize> =
        alive.iter().enumerate().map(|(at, piece)| (parts_of(&piece.text), at)).collect();
    let longest = alive.iter().map(|piece| piece.text.len()).max().unwrap_or(0);
    let mut used = vec![0; alive.len()];
    let mut split = Vec::new();
    for (word, n) in words {
        split.clear();
        let mut start = 0;
        while start < word.len() {
            let ends = (start + 1..=word.len().min(start + longest)).rev();
            let piece = ends
                .filter(|&end| word.is_char_boundary(end))
                .find_map(|end| Some((end, *at.get(&(start == 0, &word[start..end]))?)));
            let Some((end, piece)) = piece else {
                split.clear();
                break;
            };
            split.push(piece);
            start = end;
        }
        split.iter().for_each(|&piece| used[piece] += n);
    }
    used
}

/// Brings every id in a tokenizer.json to the new numbering.
fn renumber(json: &mut Value, new_ids: &HashMap<u32, u32>) {
    if let Some(vocab) = json["model"]["vocab"].as_object_mut() {
        let mut kept: Vec<(String, u32)> = (vocab.iter())
            .filter_map(|(text, id)| Some((text.clone(), new_id(id, new_ids)?)))
            .collect();
        kept.sort_by_key(|(_, id)| *id);
        *vocab = kept.into_iter().map(|(text, id)| (text, Value::from(id))).collect();
    }
    for token in json["added_tokens"].as_array_mut().into_iter().flatten() {
        put(token.get_mut("id"), new_ids);
    }
    put(json["padding"].get_mut("pad_id"), new_ids);
    renumber_processor(&mut json["post_processor"], new_ids);
}

fn renumber_processor(processor: &mut Value, new_ids: &HashMap<u32, u32>) {
    for name in ["sep", "cls"] {
        put(processor.get_mut(name).and_then(|pair| pair.get_mut(1)), new_ids);
    }
    let tokens = processor.get_mut("special_tokens").and_then(Value::as_object_mut);
    for token in tokens.into_iter().flat_map(Map::values_mut) {
        for id in token.get_mut("ids").and_then(Value::as_array_mut).into_iter().flatten() {
            put(Some(id), new_ids);
        }
    }
    let parts = processor.get_mut("processors").and_then(Value::as_array_mut);
    parts.into_iter().flatten().for_each(|part| renumber_processor(part, new_ids));
}

fn new_id(id: &Value, new_ids: &HashMap<u32, u32>) -> Option<u32> {
    new_ids.get(&u32::try_from(id.as_u64()?).ok()?).copied()
}

fn put(id: Option<&mut Value>, new_ids: &HashMap<u32, u32>) {
    if let Some(id) = id
        && let Some(new) = new_id(id, new_ids)
    {
        *id = new.into();
    }
}

fn renumbered_keys(old: &Map<String, Value>, new_ids: &HashMap<u32, u32>) -> Map<String, Value> {
    let key = |key: &String| Some(new_ids.get(&key.parse().ok()?)?.to_string());
    old.iter().filter_map(|(id, token)| Some((key(id)?, token.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::encode;
    use crate::example::Example;

    const SPECIAL: &str = "[PAD]\n[unused0]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n";

    fn folder(pieces: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let letters: String = ('a'..='z').map(|c| format!("{c}\n##{c}\n")).collect();
        let vocabulary = format!("{SPECIAL}{letters}{}\n", pieces.join("\n"));
        std::fs::write(dir.path().join("vocab.txt"), vocabulary).unwrap();
        dir
    }

    fn lines(trimmed: &Trimmed) -> Vec<String> {
        let (_, text) = trimmed.files.iter().find(|(name, _)| name == "vocab.txt").unwrap();
        String::from_utf8(text.clone()).unwrap().lines().map(str::to_string).collect()
    }

    /// 57 pieces are needed: five special tokens, 26 letters twice.
    #[test]
    fn what_rare_words_are_made_of_outlives_them() {
        let dir = folder(&["##ing", "walking", "talking", "walk", "talk", "balk", "é", "the"]);
        let mut texts = vec!["the walk the talk"; 5];
        texts.extend(["walking", "talking", "balking"]);
        // All that end so are used once, and "##ing" too, until the first of them is gone.
        let trimmed = trim_vocabulary(dir.path(), &texts, 61).unwrap();
        assert_eq!(lines(&trimmed)[57..], ["##ing", "walk", "talk", "the"]);
        assert_eq!(trimmed.kept[..6], [0, 2, 3, 4, 5, 6]);
        assert!(trim_vocabulary(dir.path(), &texts, 61).unwrap() == trimmed);
    }

    #[test]
    fn a_trimmed_tokenizer_reads_as_the_old_one_where_it_can() {
        let dir = folder(&["##ing", "walking", "walk", "the"]);
        let texts = ["the walk the walk walking", "balking"];
        let trimmed = trim_vocabulary(dir.path(), &texts, 60).unwrap();
        let new = tempfile::tempdir().unwrap();
        for (name, content) in &trimmed.files {
            std::fs::write(new.path().join(name), content).unwrap();
        }
        let read = |dir: &Path, text: &str| {
            let row = Example {
                id: "1".into(),
                text: text.into(),
                pair: None,
                label: None,
                target: None,
            };
            encode(&TextEncoder::open(dir).unwrap(), &[row], 16).unwrap().tokens
        };
        let old_ids = |tokens: Vec<u32>| {
            tokens.iter().map(|&id| trimmed.kept[id as usize]).collect::<Vec<_>>()
        };
        assert_eq!(old_ids(read(new.path(), "the walk")), read(dir.path(), "the walk"));
        assert_eq!(read(new.path(), "walking").len(), 4, "walk, ##ing and two special tokens");
    }

    /// As published: ids in the vocabulary, in the added tokens, in the template and as keys.
    #[test]
    fn every_id_of_a_tokenizer_json_moves() {
        let dir = tempfile::tempdir().unwrap();
        let json = serde_json::json!({
            "version": "1.0", "truncation": null,
            "padding": {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": null,
                        "pad_id": 1, "pad_type_id": 0, "pad_token": "[PAD]"},
            "added_tokens": [
                {"id": 1, "content": "[PAD]", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
                {"id": 3, "content": "[CLS]", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
                {"id": 4, "content": "[SEP]", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
            "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
                "pair": [],
                "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [3], "tokens": ["[CLS]"]}, "[SEP]": {"id": "[SEP]", "ids": [4], "tokens": ["[SEP]"]}}},
            "decoder": null,
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
                "vocab": {"zebra": 0, "[PAD]": 1, "[UNK]": 2, "[CLS]": 3, "[SEP]": 4, "a": 5, "horse": 6}}
        });
        std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
        let config =
            r#"{"pad_token": "[PAD]", "added_tokens_decoder": {"1": {"content": "[PAD]"}}}"#;
        std::fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
        let trimmed = trim_vocabulary(dir.path(), &["a horse"], 6).unwrap();
        assert_eq!(trimmed.kept, [1, 2, 3, 4, 5, 6]);
        let new = tempfile::tempdir().unwrap();
        for (name, content) in &trimmed.files {
            std::fs::write(new.path().join(name), content).unwrap();
        }
        let encoder = TextEncoder::open(new.path()).unwrap();
        assert_eq!((encoder.vocab_size(), encoder.pad_id()), (6, 0));
        let row = Example {
            id: "1".into(),
            text: "a horse".into(),
            pair: None,
            label: None,
            target: None,
        };
        assert_eq!(encode(&encoder, &[row], 8).unwrap().tokens, [2, 4, 5, 3]);
        let read = |name: &str| read_json(&new.path().join(name)).unwrap();
        assert_eq!(read("tokenizer.json")["padding"]["pad_id"], 0);
        assert_eq!(read("tokenizer_config.json")["added_tokens_decoder"]["0"]["content"], "[PAD]");
    }

    #[test]
    fn what_cannot_be_trimmed() {
        let dir = folder(&["walk", "the"]);
        let path = dir.path().join("vocab.txt").display().to_string();
        let said = |texts: &[&str], size| {
            let error = trim_vocabulary(dir.path(), texts, size).unwrap_err().to_string();
            error.replace(&path, "VOCAB")
        };
        assert_eq!(
            said(&["the"], 60),
            "VOCAB: it has 60 pieces, and 60 were asked for; ask for fewer"
        );
        assert_eq!(
            said(&["the"], 9),
            "VOCAB: special tokens and ASCII characters alone are 57 pieces, and 9 were asked for; ask for more"
        );
        let none = "VOCAB: the texts have no word that it knows; give other texts";
        assert_eq!(said(&[], 58), none);
        assert_eq!(said(&["", "ж"], 58), none);
        let bpe = tempfile::tempdir().unwrap();
        let json = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": null, "post_processor": null, "decoder": null,
            "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}"#;
        std::fs::write(bpe.path().join("tokenizer.json"), json).unwrap();
        let error = trim_vocabulary(bpe.path(), &["a"], 1).unwrap_err().to_string();
        assert!(
            error.ends_with(
                "tokenizer.json: its model is BPE, and only a WordPiece vocabulary can be trimmed; leave --vocabulary out"
            ),
            "{error}"
        );
    }
}
