//! RoBERTa's tokenizer out of its plain files: byte-level byte-pair encoding from vocab.json and merges.txt, as transformers
//! builds it where a folder has no tokenizer.json. Other families that use the same files have other special tokens; a
//! vocabulary without RoBERTa's is refused.

use std::path::Path;

use serde_json::Value;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{AddedToken, Model, Tokenizer};

use crate::error::{Error, Result};

const SPECIAL: [&str; 5] = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"];

pub(crate) fn byte_level(vocab: &Path, merges: &Path, config: &Value) -> Result<Tokenizer> {
    let bad = |reason: String| Error::BadTokenizer { path: vocab.to_owned(), reason };
    let text = |path: &Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| bad("its path isn't UTF-8".to_owned()))
    };
    let model = BPE::from_file(&text(vocab)?, &text(merges)?).build();
    let model = model.map_err(|error| bad(format!("with merges.txt: {error}")))?;
    let special = |token: &str| {
        let id = model.token_to_id(token);
        let id = id.ok_or_else(|| bad(format!("{token} isn't in the vocabulary")))?;
        Ok((token.to_owned(), id))
    };
    let (sep, cls) = (special("</s>")?, special("<s>")?);
    // The mask takes the blank before it along.
    let added: Vec<AddedToken> = SPECIAL
        .iter()
        .filter(|token| model.token_to_id(token).is_some())
        .map(|token| AddedToken::from(*token, true).lstrip(*token == "<mask>"))
        .collect();
    let has_prefix = config["add_prefix_space"].as_bool().unwrap_or(false);
    let processor =
        RobertaProcessing::new(sep, cls).trim_offsets(true).add_prefix_space(has_prefix);
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(has_prefix, true, true)));
    tokenizer.with_post_processor(Some(processor));
    tokenizer.add_special_tokens(added).map_err(|error| bad(error.to_string()))?;
    Ok(tokenizer)
}
