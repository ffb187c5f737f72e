//! SentencePiece's compiled normalisation rules: which strings are replaced by which.
//!
//! The format is a double-array trie of 32-bit units (its length in bytes first, little-endian) and then the
//! replacements, each ended by a zero byte. A unit holds in bits 0–7 and 31 the label that leads to it, in
//! bit 8 whether a rule ends there, and from bit 10 on (times 256 with bit 9) the offset to its children; a
//! rule's unit holds the replacement's position instead. Everything is checked where it is used: the map may
//! be anything.
//!
//! Format: <https://github.com/google/sentencepiece/blob/master/src/normalizer.h>

use std::borrow::Cow;

use crate::error::{Error, Result};

/// Replacements; the default replaces nothing.
#[derive(Debug, Default)]
pub(super) struct Charsmap {
    trie: Vec<u32>,
    replacements: String,
}

impl Charsmap {
    /// Reads the value of `tokenizer.ggml.precompiled_charsmap`.
    pub(super) fn new(map: &[u8]) -> Result<Self> {
        let wrong = |what: String| Error::Model(format!("tokenizer.ggml.precompiled_charsmap {what}"));
        let Some((size, rest)) = map.split_first_chunk() else {
            return Err(wrong(format!("has {} bytes", map.len())));
        };
        let size = u32::from_le_bytes(*size) as usize;
        let Some((trie, replacements)) = rest.split_at_checked(size) else {
            return Err(wrong(format!("claims a trie of {size} bytes in {}", rest.len())));
        };
        let (units, _) = trie.as_chunks();
        let trie = units.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
        let replacements = std::str::from_utf8(replacements)
            .map_err(|error| wrong(format!("has replacements that are not text: {error}")))?;
        Ok(Self { trie, replacements: replacements.to_owned() })
    }

    /// Replaces the longest match at each place, from the left.
    pub(super) fn apply<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.trie.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut normal = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let used = match self.longest(rest.as_bytes()) {
                Some((length, replacement)) => {
                    normal.push_str(replacement);
                    rest.ceil_char_boundary(length)
                }
                None => {
                    normal.push(first);
                    first.len_utf8()
                }
            };
            rest = rest.get(used..).unwrap_or_default();
        }
        Cow::Owned(normal)
    }

    /// Length and replacement of the longest rule that `text` begins with.
    fn longest(&self, text: &[u8]) -> Option<(usize, &str)> {
        let mut found = None;
        let mut node = offset(*self.trie.first()?);
        for (index, &byte) in text.iter().enumerate() {
            node ^= usize::from(byte);
            let Some(&unit) = self.trie.get(node) else { break };
            if byte == 0 || unit & (1 << 31 | 0xFF) != u32::from(byte) {
                break;
            }
            node ^= offset(unit);
            if unit & 1 << 8 != 0 {
                found = self.trie.get(node).map(|value| (index + 1, (value & !(1 << 31)) as usize));
            }
        }
        let (length, start) = found?;
        Some((length, self.replacements.get(start..)?.split('\0').next()?))
    }
}

fn offset(unit: u32) -> usize {
    ((unit >> 10) << ((unit & 1 << 9) >> 6)) as usize
}
