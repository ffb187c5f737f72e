//! SentencePiece BPE: merges whose order is given by the scores of the pieces they make.
//!
//! There is no list of merges: two neighbours may be joined whenever the joined text is in the vocabulary,
//! the best-scored first. A character that no merge reached and that is no piece is spelled in byte tokens,
//! or is unknown. This is what llama.cpp does with `tokenizer.ggml.model = llama`.

use std::cmp::Ordering;

use super::merge::{Merger, NONE, Symbol};
use super::vocabulary::Vocabulary;
use crate::error::{Error, Result};

/// The rules of one SentencePiece BPE model.
#[derive(Debug)]
pub(super) struct Spm {
    scores: Vec<f32>,
    byte_ids: Vec<Option<u32>>,
    space_prefix: bool,
}

/// A score as a priority: totally ordered, with −0 equal to 0.
#[derive(Debug, Clone, Copy)]
struct Score(f32);

impl Ord for Score {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.0 + 0.0).total_cmp(&(other.0 + 0.0))
    }
}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Score {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Score {}

impl Spm {
    /// `scores` has one entry per token; `space_prefix` puts a space before a text.
    pub(super) fn new(vocabulary: &Vocabulary, scores: Vec<f32>, space_prefix: bool) -> Self {
        Self { scores, byte_ids: vocabulary.byte_ids(), space_prefix }
    }

    /// Appends the tokens of `text`. `first`: nothing or a special token comes before it.
    pub(super) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        first: bool,
        into: &mut Vec<u32>,
    ) -> Result<()> {
        let mut spelled = String::with_capacity(text.len() + text.len() / 2);
        if first && self.space_prefix {
            spelled.push('▁');
        }
        spelled.extend(text.chars().map(|character| if character == ' ' { '▁' } else { character }));
        if spelled.len() >= NONE as usize {
            return Err(Error::Invalid(format!("a text of {} bytes is too long", text.len())));
        }

        let id = |start: u32, length: u32| {
            let (start, length) = (start as usize, length as usize);
            vocabulary.text_id(spelled.get(start..start + length)?)
        };
        let mut merger = Merger::new();
        merger.start(spelled.char_indices().map(|(start, character)| {
            let length = character.len_utf8() as u32;
            (length, id(start as u32, length).unwrap_or(NONE))
        }));
        merger.run(|left, right| {
            let id = id(left.start, left.length + right.length)?;
            Some((Score(self.scores.get(id as usize).copied().unwrap_or_default()), id))
        });

        let mut after_unknown = false;
        for Symbol { start, length, id, .. } in merger.symbols() {
            let start = start as usize;
            let piece = spelled.get(start..start + length as usize).unwrap_or_default();
            let known = id != NONE || self.spell_in_bytes(piece, into);
            if id != NONE {
                into.push(id);
            } else if !known && !after_unknown {
                // A run of unknown characters is one token, as SentencePiece has it.
                into.push(vocabulary.unknown(piece.chars().next().unwrap_or_default())?);
            }
            after_unknown = !known;
        }
        Ok(())
    }

    /// Appends a byte token for each byte, or nothing at all if one is missing.
    fn spell_in_bytes(&self, piece: &str, into: &mut Vec<u32>) -> bool {
        let length = into.len();
        for byte in piece.bytes() {
            match self.byte_ids.get(usize::from(byte)) {
                Some(&Some(id)) => into.push(id),
                _ => {
                    into.truncate(length);
                    return false;
                }
            }
        }
        true
    }
}
