//! Tokens that are recognised by name: special tokens inside a text, and those that end a generation.
//!
//! User-defined tokens are cut out of every text, control tokens only where the caller wants it, so that a
//! user cannot write one. Matching is leftmost, then longest. Which names end a generation follows llama.cpp,
//! because files often name fewer in their metadata than their templates use.

use aho_corasick::{AhoCorasick, MatchKind};

use super::vocabulary::{Kind, Vocabulary};
use crate::error::{Error, Result};

/// Names of tokens that end a generation wherever they are in a vocabulary.
const ENDS: &[&str] = &[
    "</s>",
    "<eos>",
    "[EOS]",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
    // Fill-in-the-middle: the text of this file is over.
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<reponame>",
    "<|file_sep|>",
];

/// Whether a token of this name ends a generation.
pub(super) fn is_end(name: &str) -> bool {
    ENDS.contains(&name)
}

/// The tokens of a vocabulary that end a generation by their name.
pub(super) fn ends(id: impl Fn(&str) -> Option<u32>) -> Vec<u32> {
    // In gpt-oss's format `<|end|>` ends a message, and a generation may go on with the next.
    let messages = id("<|return|>").is_some() && id("<|call|>").is_some();
    ENDS.iter().filter(|&&name| !(messages && name == "<|end|>")).filter_map(|name| id(name)).collect()
}

/// A piece of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fragment<'a> {
    Token(u32),
    Text(&'a str),
}

/// Finds the names of tokens in texts.
#[derive(Debug)]
pub(super) struct Names {
    user: Matcher,
    all: Matcher,
}

impl Names {
    /// `swallows` says which tokens take the white space behind them along.
    pub(super) fn new(vocabulary: &Vocabulary, swallows: impl Fn(&str) -> bool) -> Result<Self> {
        let of_kind = |kinds: &[Kind]| {
            let ids = (0..vocabulary.len() as u32)
                .filter(|&id| vocabulary.kind(id).is_some_and(|kind| kinds.contains(&kind)));
            Matcher::new(vocabulary, ids.collect(), &swallows)
        };
        let user = of_kind(&[Kind::UserDefined])?;
        Ok(Self { user, all: of_kind(&[Kind::UserDefined, Kind::Control, Kind::Unknown])? })
    }

    /// Cuts `text` at the names in it; at those of control tokens only if `special`. No fragment is empty.
    pub(super) fn split<'a>(&self, text: &'a str, special: bool) -> Vec<Fragment<'a>> {
        if special { self.all.split(text) } else { self.user.split(text) }
    }
}

#[derive(Debug)]
struct Matcher {
    automaton: AhoCorasick,
    /// For each pattern: the token, and whether it takes the white space behind it along.
    tokens: Vec<(u32, bool)>,
}

impl Matcher {
    fn new(vocabulary: &Vocabulary, ids: Vec<u32>, swallows: impl Fn(&str) -> bool) -> Result<Self> {
        let named: Vec<(u32, &str)> = ids
            .into_iter()
            .filter_map(|id| vocabulary.piece(id).filter(|piece| !piece.is_empty()).map(|piece| (id, piece)))
            .collect();
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(named.iter().map(|(_, piece)| piece))
            .map_err(|error| Error::Model(format!("{} special tokens are too many: {error}", named.len())))?;
        let tokens = named.into_iter().map(|(id, piece)| (id, swallows(piece))).collect();
        Ok(Self { automaton, tokens })
    }

    fn split<'a>(&self, text: &'a str) -> Vec<Fragment<'a>> {
        let mut fragments = Vec::new();
        let mut position = 0;
        // The position stays at a character's first byte: names are whole strings, and so is white space.
        let text_until = |fragments: &mut Vec<_>, start: usize, end: usize| {
            if let Some(part) = text.get(start..end).filter(|part| !part.is_empty()) {
                fragments.push(Fragment::Text(part));
            }
        };
        while let Some(found) = self.automaton.find(aho_corasick::Input::new(text).range(position..)) {
            let Some(&(id, swallow)) = self.tokens.get(found.pattern().as_usize()) else { break };
            text_until(&mut fragments, position, found.start());
            fragments.push(Fragment::Token(id));
            position = found.end();
            if swallow {
                let rest = text.get(position..).unwrap_or_default();
                position += rest.len() - rest.trim_ascii_start().len();
            }
        }
        text_until(&mut fragments, position, text.len());
        fragments
    }
}
