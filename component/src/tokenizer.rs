//! Text to token ids and back, by the rules a model was trained with.
//!
//! A GGUF file names its vocabulary and rules in its metadata; they run on models of our own over one compact
//! vocabulary (a quarter of the memory that the crate `tokenizers` takes for it), and llama.cpp's ids are the
//! measure. A Hugging Face folder describes a pipeline in its tokenizer.json, which that crate runs. Chat
//! templates are not known here, only special tokens.

mod alphabet;
mod bpe;
mod charsmap;
mod gguf;
mod json;
mod merge;
mod names;
mod pre;
mod prefixes;
mod spm;
mod unigram;
mod vocabulary;
mod wordpiece;

use wafer_engine::gguf::Metadata;

use self::bpe::Bpe;
use self::json::Pipeline;
use self::names::{Fragment, Names};
use self::spm::Spm;
use self::unigram::Unigram;
use self::vocabulary::{Kind, Vocabulary};
use self::wordpiece::WordPiece;
use crate::error::Result;

/// A model's tokenizer: its vocabulary and the rules that spell a text in it.
#[derive(Debug)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    method: Method,
    /// What goes before and after a text that is complete.
    prefix: Vec<u32>,
    suffix: Vec<u32>,
    bos: Option<u32>,
    eos: Option<u32>,
    /// Sorted.
    ends: Vec<u32>,
}

/// Who runs the rules.
#[derive(Debug)]
enum Method {
    /// This module: names are cut out, the rest is spelled by a model.
    Own { names: Names, model: Model },
    /// The crate `tokenizers`.
    Pipeline(Box<Pipeline>),
}

#[derive(Debug)]
enum Model {
    Spm(Spm),
    Bpe(Bpe),
    WordPiece(WordPiece),
    Unigram(Unigram),
}

impl Tokenizer {
    /// Builds the tokenizer that a GGUF file describes.
    ///
    /// # Errors
    /// [`Error::Model`](crate::error::Error::Model), naming the key, for metadata that is missing,
    /// contradicts itself or names a kind of tokenizer that is not known.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self> {
        gguf::read(metadata)
    }

    /// Builds the tokenizer of a Hugging Face folder from its tokenizer.json and, for the names of BOS and
    /// EOS, its tokenizer_config.json.
    ///
    /// # Errors
    /// [`Error::Model`](crate::error::Error::Model) for files that cannot be read or contradict each other.
    pub fn from_json(tokenizer_json: &[u8], tokenizer_config: Option<&[u8]>) -> Result<Self> {
        json::read(tokenizer_json, tokenizer_config)
    }

    /// Names more tokens that end a generation; ids beyond the vocabulary are none.
    pub fn add_ends(&mut self, ids: &[u32]) {
        self.ends.extend(ids.iter().filter(|&&id| (id as usize) < self.vocabulary.len()));
        self.ends.sort_unstable();
        self.ends.dedup();
    }

    fn assemble(
        vocabulary: Vocabulary,
        method: Method,
        prefix: Vec<u32>,
        suffix: Vec<u32>,
        bos: Option<u32>,
        eos: Option<u32>,
        mut ends: Vec<u32>,
    ) -> Self {
        ends.sort_unstable();
        ends.dedup();
        Self { vocabulary, method, prefix, suffix, bos, eos, ends }
    }

    /// Spells `text` in tokens. `special`: names of special tokens in the text become those tokens; otherwise
    /// they are text like any other. `bos`: the text is complete, so BOS (and EOS, CLS, SEP) go with it where
    /// the model's rules want them.
    ///
    /// A character that the vocabulary cannot spell becomes the unknown token.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::error::Error::Invalid) naming the character, if there is no unknown token.
    pub fn encode(&self, text: &str, special: bool, bos: bool) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        if bos {
            ids.extend(&self.prefix);
        }
        match &self.method {
            Method::Pipeline(pipeline) => pipeline.encode(text, special, &mut ids)?,
            Method::Own { names, model } => {
                let mut first = true;
                for fragment in names.split(text, special) {
                    match fragment {
                        Fragment::Token(id) => ids.push(id),
                        Fragment::Text(text) => model.encode(&self.vocabulary, text, first, &mut ids)?,
                    }
                    first = matches!(fragment, Fragment::Token(_));
                }
            }
        }
        if bos {
            ids.extend(&self.suffix);
        }
        Ok(ids)
    }

    /// Shortens a complete text, as [`encode`](Self::encode) gives it, to `limit` tokens: its last ones go, what stands
    /// behind a text stays.
    pub fn truncate(&self, ids: &mut Vec<u32>, limit: usize) {
        if ids.len() > limit {
            let suffix = if ids.ends_with(&self.suffix) { self.suffix.as_slice() } else { &[] };
            ids.truncate(limit.saturating_sub(suffix.len()));
            ids.extend(suffix.iter().take(limit));
        }
    }

    /// Spells a rendered chat template: special tokens by name, and BOS before it where the model wants one
    /// and the template has not written it. Nothing goes behind it: the answer does.
    ///
    /// # Errors
    /// Those of [`Tokenizer::encode`].
    pub fn encode_chat(&self, rendered: &str) -> Result<Vec<u32>> {
        let mut ids = self.encode(rendered, true, false)?;
        if !ids.starts_with(&self.prefix) {
            ids.splice(..0, self.prefix.iter().copied());
        }
        Ok(ids)
    }

    /// The bytes a token stands for in the middle of a text; none for control tokens and unknown ids. They
    /// may be part of a character.
    pub fn bytes(&self, id: u32) -> &[u8] {
        self.vocabulary.bytes(id)
    }

    /// The vocabulary's entry as stored.
    pub fn piece(&self, id: u32) -> Option<&str> {
        self.vocabulary.piece(id)
    }

    /// The text of `ids`; invalid UTF-8 becomes U+FFFD. A space that a model puts before a text is kept.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.bytes(id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The id of a vocabulary entry.
    pub fn id(&self, piece: &str) -> Option<u32> {
        self.vocabulary.id(piece)
    }

    /// Number of entries.
    pub fn vocabulary_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether the token ends a generation: EOS, the ends of turn and message that the file names, and those
    /// known by their name.
    pub fn is_end(&self, id: u32) -> bool {
        self.ends.binary_search(&id).is_ok()
    }

    /// Whether the token is a control token rather than text.
    pub fn is_special(&self, id: u32) -> bool {
        matches!(self.vocabulary.kind(id), Some(Kind::Control | Kind::Unknown))
    }
}

impl Model {
    fn encode(&self, vocabulary: &Vocabulary, text: &str, first: bool, into: &mut Vec<u32>) -> Result<()> {
        match self {
            Self::Spm(model) => model.encode(vocabulary, text, first, into),
            Self::Bpe(model) => model.encode(vocabulary, text, into),
            Self::WordPiece(model) => model.encode(vocabulary, text, into),
            Self::Unigram(model) => model.encode(vocabulary, text, into),
        }
    }
}
