//! SentencePiece unigram, for T5-type models: of all ways to spell a text, the one with the best sum of
//! scores.
//!
//! Each position of the normalised text keeps the best way to get there (Viterbi). A character that no piece
//! spells is unknown, at a score below every piece's; a run of them is one token. Normalising is replacing
//! the longest matches of [`Charsmap`] and writing spaces as `▁`.

use super::charsmap::Charsmap;
use super::prefixes::Prefixes;
use super::vocabulary::{Kind, Vocabulary};
use crate::error::{Error, Result};

/// How much less an unknown character is worth than the worst piece.
const UNKNOWN_PENALTY: f64 = 10.0;

/// The rules of one unigram model.
#[derive(Debug)]
pub(super) struct Unigram {
    scores: Vec<f32>,
    unknown_score: f64,
    prefixes: Prefixes,
    charsmap: Charsmap,
    space_prefix: bool,
    merge_spaces: bool,
}

/// The best way to a position: its score, where its last token begins, and that token (none: unknown).
#[derive(Debug, Clone, Copy)]
struct Way {
    score: f64,
    from: usize,
    id: Option<u32>,
}

impl Unigram {
    /// `scores` has one entry per token. `space_prefix` puts a space before a text; `merge_spaces` makes one
    /// of several and takes them off both ends.
    pub(super) fn new(
        vocabulary: &Vocabulary,
        scores: Vec<f32>,
        charsmap: Charsmap,
        space_prefix: bool,
        merge_spaces: bool,
    ) -> Self {
        let normal = (0..).zip(&scores).filter(|&(id, _)| vocabulary.kind(id) == Some(Kind::Normal));
        let worst = normal.map(|(_, &score)| f64::from(score)).fold(f64::INFINITY, f64::min);
        let unknown_score = if worst.is_finite() { worst } else { 0.0 } - UNKNOWN_PENALTY;
        let prefixes = Prefixes::new(vocabulary);
        Self { scores, unknown_score, prefixes, charsmap, space_prefix, merge_spaces }
    }

    /// Appends the tokens of `text`.
    pub(super) fn encode(&self, vocabulary: &Vocabulary, text: &str, into: &mut Vec<u32>) -> Result<()> {
        let text = self.normalize(text);
        let ways = self.ways(vocabulary, &text);
        let (start, mut end, mut after_unknown) = (into.len(), text.len(), false);
        while end > 0 {
            let Some(way) = ways.get(end).filter(|way| way.from < end) else {
                return Err(Error::Model(format!("the scores leave no way to spell a text of {end} bytes")));
            };
            if let Some(id) = way.id {
                into.push(id);
            } else if !after_unknown {
                let character = text.get(way.from..).and_then(|rest| rest.chars().next());
                into.push(vocabulary.unknown(character.unwrap_or_default())?);
            }
            after_unknown = way.id.is_none();
            end = way.from;
        }
        if let Some(found) = into.get_mut(start..) {
            found.reverse();
        }
        Ok(())
    }

    /// The best way to each position of the text.
    fn ways(&self, vocabulary: &Vocabulary, text: &str) -> Vec<Way> {
        let mut ways = vec![Way { score: f64::NEG_INFINITY, from: usize::MAX, id: None }; text.len() + 1];
        if let Some(first) = ways.first_mut() {
            first.score = 0.0;
        }
        for (from, character) in text.char_indices() {
            let before = ways.get(from).map_or(f64::NEG_INFINITY, |way| way.score);
            let mut try_way = |length: usize, id: Option<u32>, score: f64| {
                let score = before + score;
                if let Some(way) = ways.get_mut(from + length).filter(|way| score > way.score) {
                    *way = Way { score, from, id };
                }
            };
            let mut spelled = false;
            let rest = text.get(from..).unwrap_or_default();
            self.prefixes.of(vocabulary, rest.as_bytes(), |length, id| {
                spelled |= length == character.len_utf8();
                let score = match vocabulary.kind(id) {
                    Some(Kind::UserDefined) => 0.0,
                    _ => self.scores.get(id as usize).copied().map_or(0.0, f64::from),
                };
                try_way(length, Some(id), score);
            });
            if !spelled {
                try_way(character.len_utf8(), None, self.unknown_score);
            }
        }
        ways
    }

    fn normalize(&self, text: &str) -> String {
        let mut normal = String::with_capacity(text.len() + 8);
        let (mut in_word, mut prefixed) = (false, false);
        for character in self.charsmap.apply(text).chars() {
            if character == ' ' {
                in_word = false;
                if !self.merge_spaces {
                    normal.push('▁');
                }
                continue;
            }
            if !in_word && (self.merge_spaces || (self.space_prefix && !prefixed)) {
                normal.push('▁');
                prefixed = true;
            }
            in_word = true;
            normal.push(character);
        }
        normal
    }
}
