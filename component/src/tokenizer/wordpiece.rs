//! WordPiece, for BERT-type models: words, each spelled by the longest pieces from its start on.
//!
//! GGUF stores a piece that begins a word with `▁` before it, and one inside a word as it is; so a word is
//! looked up as `▁word`. A word that cannot be spelled to its end is the unknown token as a whole.
//! Normalising and cutting into words is BERT's, from the crate `tokenizers`.

use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};

use super::prefixes::Prefixes;
use super::vocabulary::Vocabulary;
use crate::error::{Error, Result};

/// The rules of one WordPiece model.
#[derive(Debug)]
pub(super) struct WordPiece {
    normalizer: BertNormalizer,
    prefixes: Prefixes,
}

impl WordPiece {
    /// `lowercase` also takes accents off, unless `strip_accents` says otherwise.
    pub(super) fn new(vocabulary: &Vocabulary, lowercase: bool, strip_accents: Option<bool>) -> Self {
        let normalizer = BertNormalizer::new(true, true, strip_accents, lowercase);
        Self { normalizer, prefixes: Prefixes::new(vocabulary) }
    }

    /// Appends the tokens of `text`.
    pub(super) fn encode(&self, vocabulary: &Vocabulary, text: &str, into: &mut Vec<u32>) -> Result<()> {
        let failed =
            |error: tokenizers::Error| Error::Invalid(format!("the text cannot be normalised: {error}"));
        let mut normalized = NormalizedString::from(text);
        self.normalizer.normalize(&mut normalized).map_err(failed)?;
        let mut words = PreTokenizedString::from(normalized);
        BertPreTokenizer.pre_tokenize(&mut words).map_err(failed)?;
        for (word, _, _) in words.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            let before = into.len();
            if !spell(vocabulary, &self.prefixes, &format!("▁{word}"), into) {
                into.truncate(before);
                into.push(vocabulary.unknown(word.chars().next().unwrap_or_default())?);
            }
        }
        Ok(())
    }
}

/// Appends the longest pieces of `word`, from its start on; false if they do not reach its end.
fn spell(vocabulary: &Vocabulary, prefixes: &Prefixes, word: &str, into: &mut Vec<u32>) -> bool {
    let mut rest = word.as_bytes();
    while !rest.is_empty() {
        let mut longest = None;
        prefixes.of(vocabulary, rest, |length, id| longest = Some((length, id)));
        let Some((length, id)) = longest else { return false };
        into.push(id);
        rest = rest.get(length..).unwrap_or_default();
    }
    true
}
