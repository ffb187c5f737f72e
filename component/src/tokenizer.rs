//! Text to token ids and back.

use wafer_engine::gguf::Metadata;

use crate::error::{Error, Result};

/// A model's tokenizer: its vocabulary and the rules that spell a text in it.
#[derive(Debug)]
pub struct Tokenizer {}

impl Tokenizer {
    /// Builds the tokenizer that a GGUF file describes.
    pub fn from_gguf(_metadata: &Metadata) -> Result<Self> {
        Err(Error::Model("no tokenizer yet".into()))
    }

    /// Builds a tokenizer from the files of a Hugging Face folder.
    pub fn from_json(_tokenizer_json: &[u8], _tokenizer_config: Option<&[u8]>) -> Result<Self> {
        Err(Error::Model("no tokenizer yet".into()))
    }

    /// Spells `text` in tokens. `special`: names of special tokens in the text become those tokens; `bos`: BOS
    /// and the like are added as the model's rules want.
    pub fn encode(&self, _text: &str, _special: bool, _bos: bool) -> Result<Vec<u32>> {
        Ok(Vec::new())
    }

    /// Spells a rendered chat template: special tokens by name, BOS unless the text has it already.
    pub fn encode_chat(&self, rendered: &str) -> Result<Vec<u32>> {
        self.encode(rendered, true, true)
    }

    /// The bytes a token stands for in the middle of a text; none for control tokens and unknown ids.
    pub fn bytes(&self, _id: u32) -> &[u8] {
        &[]
    }

    /// The vocabulary's entry as stored.
    pub fn piece(&self, _id: u32) -> Option<&str> {
        None
    }

    /// The text of `ids`; invalid UTF-8 becomes U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.bytes(id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The id of a vocabulary entry.
    pub fn id(&self, _piece: &str) -> Option<u32> {
        None
    }

    /// Number of entries.
    pub fn vocabulary_size(&self) -> usize {
        0
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        None
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        None
    }

    /// Whether the token ends a generation.
    pub fn is_end(&self, _id: u32) -> bool {
        false
    }

    /// Whether the token is a control token rather than text.
    pub fn is_special(&self, _id: u32) -> bool {
        false
    }
}
