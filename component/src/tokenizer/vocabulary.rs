//! The vocabulary: what is stored for each id, the bytes it stands for, and which id a piece has.
//!
//! 150,000 pieces as strings of their own would cost two allocations and three words each; here they lie end
//! to end in one arena, their bytes in a second, and the index from piece to id holds nothing but ids. How a
//! text is cut into pieces is for the models beside this module.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use hashbrown::HashTable;

use super::alphabet;
use crate::error::{Error, Result};

/// Entries a vocabulary may have; the largest in use have about 260,000.
pub(super) const MAX_ENTRIES: usize = 1 << 22;

/// Bytes a piece may have; the longest in use have a few hundred. It bounds what a look-up costs.
const MAX_PIECE: usize = 4096;

/// What a token is, after the token types of GGUF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text.
    Normal,
    /// Stands for what cannot be spelled.
    Unknown,
    /// Steers the model; never text.
    Control,
    /// Text that is one token wherever it occurs.
    UserDefined,
    /// A single byte, for what no other token spells.
    Byte,
}

impl Kind {
    /// Reads `tokenizer.ggml.token_type`. Unused and undefined tokens are spelled like normal ones.
    pub(super) fn from_gguf(number: i32) -> Self {
        match number {
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            6 => Self::Byte,
            _ => Self::Normal,
        }
    }
}

/// How stored pieces spell the text they stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Spelling {
    /// As it is.
    Plain,
    /// A space is written `▁`.
    Metaspace,
    /// Each byte is written as one character of a fixed alphabet ([`alphabet`]).
    ByteLevel,
    /// A piece inside a word begins with this mark; any other has a space before it.
    Continuation(String),
}

/// Byte strings end to end.
#[derive(Debug, Default)]
struct Arena {
    data: Vec<u8>,
    ends: Vec<u32>,
}

impl Arena {
    fn with_capacity(entries: usize, bytes: usize) -> Self {
        Self { data: Vec::with_capacity(bytes), ends: Vec::with_capacity(entries) }
    }

    /// Ends the entry made of all bytes added to `data` since the last end.
    fn end(&mut self) -> Result<()> {
        let end = u32::try_from(self.data.len()).map_err(|error| {
            Error::Model(format!("the vocabulary has {} bytes of text: {error}", self.data.len()))
        })?;
        self.ends.push(end);
        Ok(())
    }

    fn entry(&self, id: u32) -> Option<&[u8]> {
        let id = id as usize;
        let end = *self.ends.get(id)? as usize;
        let start = if id == 0 { 0 } else { *self.ends.get(id - 1)? as usize };
        self.data.get(start..end)
    }
}

/// All tokens of a model.
#[derive(Debug)]
pub(super) struct Vocabulary {
    pieces: Arena,
    bytes: Arena,
    kinds: Vec<Kind>,
    index: HashTable<u32>,
    hasher: RandomState,
    longest: usize,
    unknown: Option<u32>,
}

impl Vocabulary {
    /// Stores `pieces` (the id is the position; empty ones have no name) with their kinds.
    ///
    /// # Errors
    /// [`Error::Model`] for two pieces of the same text, for more than [`MAX_ENTRIES`], and if the counts of
    /// pieces and kinds differ.
    pub(super) fn new(pieces: &[&str], kinds: Vec<Kind>, spelling: &Spelling) -> Result<Self> {
        if pieces.len() > MAX_ENTRIES || pieces.len() != kinds.len() {
            return Err(Error::Model(format!(
                "{} tokens and {} token types: the counts have to be equal and at most {MAX_ENTRIES}",
                pieces.len(),
                kinds.len()
            )));
        }
        let total = pieces.iter().map(|piece| piece.len()).sum();
        let mut vocabulary = Self {
            pieces: Arena::with_capacity(pieces.len(), total),
            bytes: Arena::with_capacity(pieces.len(), total),
            kinds,
            index: HashTable::with_capacity(pieces.len()),
            hasher: RandomState::new(),
            longest: 0,
            unknown: None,
        };
        for (id, piece) in (0..).zip(pieces) {
            vocabulary.push(id, piece, spelling)?;
        }
        vocabulary.bytes.data.shrink_to_fit();
        Ok(vocabulary)
    }

    fn push(&mut self, id: u32, piece: &str, spelling: &Spelling) -> Result<()> {
        if piece.len() > MAX_PIECE {
            return Err(Error::Model(format!(
                "the token {id} of the vocabulary has {} bytes, the limit is {MAX_PIECE}",
                piece.len()
            )));
        }
        self.pieces.data.extend_from_slice(piece.as_bytes());
        self.pieces.end()?;
        let kind = self.kinds.get(id as usize).copied().unwrap_or(Kind::Normal);
        append_bytes(&mut self.bytes.data, piece, kind, spelling);
        self.bytes.end()?;
        self.longest = self.longest.max(piece.len());
        if piece.is_empty() {
            return Ok(());
        }
        if let Some(first) = self.id(piece) {
            return Err(Error::Model(format!(
                "the tokens {first} and {id} of the vocabulary are both {piece:?}"
            )));
        }
        let Self { pieces, index, hasher, .. } = self;
        let hash = |&id: &u32| hasher.hash_one(pieces.entry(id).unwrap_or_default());
        index.insert_unique(hash(&id), id, hash);
        Ok(())
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.kinds.len()
    }

    /// The piece as stored.
    pub(super) fn piece(&self, id: u32) -> Option<&str> {
        std::str::from_utf8(self.pieces.entry(id)?).ok()
    }

    /// The piece as stored, in bytes; empty for unknown ids.
    pub(super) fn raw(&self, id: u32) -> &[u8] {
        self.pieces.entry(id).unwrap_or_default()
    }

    /// The bytes of text that a token stands for; empty for control tokens and unknown ids.
    pub(super) fn bytes(&self, id: u32) -> &[u8] {
        self.bytes.entry(id).unwrap_or_default()
    }

    /// What the token is; `None` for ids outside the vocabulary.
    pub(super) fn kind(&self, id: u32) -> Option<Kind> {
        self.kinds.get(id as usize).copied()
    }

    /// The id of a piece, of whatever kind.
    pub(super) fn id(&self, piece: &str) -> Option<u32> {
        let piece = piece.as_bytes();
        let same = |&id: &u32| self.pieces.entry(id) == Some(piece);
        self.index.find(self.hasher.hash_one(piece), same).copied()
    }

    /// The id of a piece that text may become: a user who writes `</s>` does not end the sequence, and one
    /// who writes `<0x0A>` does not break the line.
    pub(super) fn text_id(&self, piece: &str) -> Option<u32> {
        if piece.len() > self.longest {
            return None;
        }
        self.id(piece).filter(|&id| self.is_text(id))
    }

    /// Whether plain text may become this token.
    pub(super) fn is_text(&self, id: u32) -> bool {
        matches!(self.kind(id), Some(Kind::Normal | Kind::UserDefined))
    }

    /// The ids of the 256 byte tokens, where there are any.
    pub(super) fn byte_ids(&self) -> Vec<Option<u32>> {
        (0..=u8::MAX).map(|byte| self.id(&format!("<0x{byte:02X}>"))).collect()
    }

    /// Names the token for what cannot be spelled.
    pub(super) fn set_unknown(&mut self, id: Option<u32>) {
        self.unknown = id;
    }

    /// The token for what cannot be spelled.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the character, if the vocabulary has no such token.
    pub(super) fn unknown(&self, character: char) -> Result<u32> {
        self.unknown.ok_or_else(|| {
            let code = u32::from(character);
            Error::Invalid(format!("the model's vocabulary cannot spell {character:?} (U+{code:04X})"))
        })
    }
}

/// Appends the bytes that a piece stands for in the middle of a text.
fn append_bytes(into: &mut Vec<u8>, piece: &str, kind: Kind, spelling: &Spelling) {
    match (kind, spelling) {
        (Kind::Control | Kind::Unknown, _) => {}
        (Kind::Byte, _) => match byte(piece) {
            Some(byte) => into.push(byte),
            None => into.extend_from_slice(piece.as_bytes()),
        },
        (Kind::Normal, Spelling::ByteLevel) => alphabet::decode(piece, into),
        (_, Spelling::Metaspace) => {
            for (index, part) in piece.split('▁').enumerate() {
                if index > 0 {
                    into.push(b' ');
                }
                into.extend_from_slice(part.as_bytes());
            }
        }
        (Kind::Normal, Spelling::Continuation(mark)) => match piece.strip_prefix(mark.as_str()) {
            Some(rest) => into.extend_from_slice(rest.as_bytes()),
            None => {
                into.push(b' ');
                into.extend_from_slice(piece.as_bytes());
            }
        },
        (Kind::Normal | Kind::UserDefined, _) => into.extend_from_slice(piece.as_bytes()),
    }
}

/// The byte that a piece of the form `<0xE2>` names.
pub(super) fn byte(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}
