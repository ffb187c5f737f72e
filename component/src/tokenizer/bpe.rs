//! Byte-level BPE: a list of merges in order of importance, over words cut out by a pre-tokenizer.
//!
//! A merge is a pair of tokens, its rank and the token it makes. They lie sorted by left token, so that
//! finding one is a search among the few that share it, and 280,000 of them take 3.4 MB.

use std::cmp::Reverse;

use super::alphabet;
use super::merge::{Merger, NONE};
use super::pre::Splitter;
use super::vocabulary::Vocabulary;
use crate::error::{Error, Result};

/// The rules of one byte-level BPE model.
#[derive(Debug)]
pub(super) struct Bpe {
    splitter: Splitter,
    merges: Merges,
    /// The token of each single byte.
    byte_ids: Vec<u32>,
}

impl Bpe {
    /// `merges` are lines of two pieces with a space between, the most important first.
    ///
    /// # Errors
    /// [`Error::Model`] for a merge that is not two pieces, or that names a token the vocabulary lacks.
    pub(super) fn new(vocabulary: &Vocabulary, merges: &[&str], splitter: Splitter) -> Result<Self> {
        let byte_id = |byte| {
            let id = vocabulary.text_id(alphabet::character(byte).encode_utf8(&mut [0; 4]));
            id.unwrap_or(NONE)
        };
        let merges = Merges::new(vocabulary, merges)?;
        Ok(Self { splitter, merges, byte_ids: (0..=u8::MAX).map(byte_id).collect() })
    }

    /// Appends the tokens of `text`.
    pub(super) fn encode(&self, vocabulary: &Vocabulary, text: &str, into: &mut Vec<u32>) -> Result<()> {
        if text.len() >= NONE as usize {
            return Err(Error::Invalid(format!("a text of {} bytes is too long", text.len())));
        }
        let mut merger = Merger::new();
        let mut spelled = String::new();
        self.splitter.split(text, &mut |word| {
            if self.splitter.whole_words {
                spelled.clear();
                alphabet::encode(word.as_bytes(), &mut spelled);
                if let Some(id) = vocabulary.text_id(&spelled) {
                    into.push(id);
                    return Ok(());
                }
            }
            merger.start(word.bytes().map(|byte| (1, self.byte_id(byte))));
            merger.run(|left, right| self.merges.find(left.id, right.id));
            for symbol in merger.symbols() {
                into.push(match symbol.id {
                    NONE => vocabulary.unknown(character_at(word, symbol.start as usize))?,
                    id => id,
                });
            }
            Ok(())
        })
    }

    fn byte_id(&self, byte: u8) -> u32 {
        self.byte_ids.get(usize::from(byte)).copied().unwrap_or(NONE)
    }
}

/// The character that the byte at `index` belongs to.
fn character_at(text: &str, index: usize) -> char {
    let start = text.floor_char_boundary(index);
    text.get(start..).and_then(|rest| rest.chars().next()).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// A merge, found through its left token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Merge {
    right: u32,
    rank: u32,
    id: u32,
}

/// All merges: those of the left token `i` are `merges[starts[i]..starts[i + 1]]`, sorted by right token.
#[derive(Debug)]
struct Merges {
    starts: Vec<u32>,
    merges: Vec<Merge>,
}

impl Merges {
    fn new(vocabulary: &Vocabulary, lines: &[&str]) -> Result<Self> {
        let mut joined = String::new();
        let mut pairs = Vec::with_capacity(lines.len());
        let mut starts = vec![0_u32; vocabulary.len() + 1];
        for (rank, line) in (0..).zip(lines) {
            let (left, right) = parse(line).ok_or_else(|| {
                Error::Model(format!("tokenizer.ggml.merges[{rank}] is {line:?}, not two pieces and a space"))
            })?;
            joined.clear();
            joined.push_str(left);
            joined.push_str(right);
            let find = |piece: &str| {
                vocabulary.id(piece).ok_or_else(|| {
                    Error::Model(format!(
                        "tokenizer.ggml.merges[{rank}] is {line:?}, but {piece:?} is not in the vocabulary"
                    ))
                })
            };
            let (left, right, id) = (find(left)?, find(right)?, find(&joined)?);
            // Text never becomes a control token, whatever a list of merges says.
            if vocabulary.is_text(id) {
                pairs.push((left, Merge { right, rank, id }));
                if let Some(count) = starts.get_mut(left as usize + 1) {
                    *count += 1;
                }
            }
        }
        pairs.sort_unstable();
        for index in 1..starts.len() {
            starts[index] += starts[index - 1];
        }
        Ok(Self { starts, merges: pairs.into_iter().map(|(_, merge)| merge).collect() })
    }

    /// The merge of two tokens: its priority (the lowest rank is best) and the token it makes.
    fn find(&self, left: u32, right: u32) -> Option<(Reverse<u32>, u32)> {
        let left = left as usize;
        let range = *self.starts.get(left)? as usize..*self.starts.get(left.checked_add(1)?)? as usize;
        let merges = self.merges.get(range)?;
        let first = merges.partition_point(|merge| merge.right < right);
        let merge = merges.get(first).filter(|merge| merge.right == right)?;
        Some((Reverse(merge.rank), merge.id))
    }
}

/// Cuts a merge in two; the first character belongs to the left piece even if it is a space.
fn parse(line: &str) -> Option<(&str, &str)> {
    let first = line.chars().next()?.len_utf8();
    let space = first + line.get(first..)?.find(' ')?;
    let (left, right) = (line.get(..space)?, line.get(space + 1..)?);
    (!right.is_empty()).then_some((left, right))
}
