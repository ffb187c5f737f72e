//! The vocabulary: byte-level byte-pair encoding, trained on the stories.
//!
//! GPT-2's splitting of words and its alphabet of bytes, so that GGUF's `gpt2` tokenizer with the
//! `gpt-2` splitter reproduces it. All 256 bytes are tokens: no text is unknown.

use anyhow::{Context, Result, anyhow};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, Tokenizer,
    TokenizerBuilder,
};

/// Separates documents while training; never generated.
pub(crate) const SEPARATOR: &str = "<|endoftext|>";
/// Opens a turn of a conversation; its role and a line break follow.
pub(crate) const START_OF_TURN: &str = "<|im_start|>";
/// Ends a turn, and a plain story as well: the model's only end mark.
pub(crate) const END_OF_TURN: &str = "<|im_end|>";
/// The marks in the order of their ids, which start at 0.
pub(crate) const SPECIALS: [&str; 3] = [SEPARATOR, START_OF_TURN, END_OF_TURN];
/// Tokens in the vocabulary, the marks included; a multiple of 32.
pub(crate) const VOCABULARY: usize = 1024;

/// A vocabulary with its tokenizer.
pub(crate) struct Vocabulary {
    tokenizer: Tokenizer,
    /// Tokens by id, in GPT-2's alphabet of bytes.
    pub(crate) tokens: Vec<String>,
    /// Merges, the most important first: two tokens with a space between them.
    pub(crate) merges: Vec<String>,
}

impl Vocabulary {
    /// Learns the merges from texts that hold no marks.
    pub(crate) fn train<'a>(texts: impl Iterator<Item = &'a str> + Send) -> Result<Self> {
        let mut trainer = BpeTrainer::builder()
            .vocab_size(VOCABULARY)
            .show_progress(false)
            .special_tokens(SPECIALS.map(|mark| AddedToken::from(mark, true)).to_vec())
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let mut tokenizer = TokenizerBuilder::<
            BPE,
            NormalizerWrapper,
            PreTokenizerWrapper,
            PostProcessorWrapper,
            DecoderWrapper,
        >::new()
        .with_model(BPE::default())
        .with_normalizer(None)
        .with_pre_tokenizer(Some(ByteLevel::new(false, false, true).into()))
        .with_post_processor(None)
        .with_decoder(Some(ByteLevel::default().into()))
        .build()
        .map_err(|error| anyhow!(error))?;
        tokenizer.train(&mut trainer, texts).map_err(|error| anyhow!(error))?;
        let json = tokenizer.to_string(false).map_err(|error| anyhow!(error))?;
        Self::new(json.parse::<Tokenizer>().map_err(|error| anyhow!(error))?, &json)
    }

    /// Reads tokens and merges out of the tokenizer's serialised form, which alone shows both.
    fn new(tokenizer: Tokenizer, json: &str) -> Result<Self> {
        let json: serde_json::Value = serde_json::from_str(json).context("reading the tokenizer")?;
        let merges = json["model"]["merges"]
            .as_array()
            .context("the tokenizer has no merges")?
            .iter()
            .map(|merge| match merge {
                serde_json::Value::String(merge) => Some(merge.clone()),
                pair => Some(format!("{} {}", pair[0].as_str()?, pair[1].as_str()?)),
            })
            .collect::<Option<_>>()
            .context("a merge is no pair of tokens")?;
        let tokens = (0..tokenizer.get_vocab_size(true) as u32)
            .map(|id| tokenizer.id_to_token(id).with_context(|| format!("id {id} has no token")))
            .collect::<Result<_>>()?;
        Ok(Self { tokenizer, tokens, merges })
    }

    /// The ids of a text; marks in it become their single ids.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.tokenizer.encode_fast(text, false).map_err(|error| anyhow!(error))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of ids, without marks.
    pub(crate) fn decode(&self, ids: &[u32]) -> Result<String> {
        self.tokenizer.decode(ids, true).map_err(|error| anyhow!(error))
    }

    /// The id of one of [`SPECIALS`].
    pub(crate) fn special(&self, mark: &str) -> Result<u32> {
        self.tokenizer.token_to_id(mark).with_context(|| format!("the vocabulary lacks {mark}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary() -> Vocabulary {
        let texts: Vec<String> = (0..200).map(|n| format!("The cat number {n} ran home.")).collect();
        Vocabulary::train(texts.iter().map(String::as_str)).expect("training succeeds")
    }

    #[test]
    fn any_text_survives() {
        let vocabulary = vocabulary();
        for text in ["The cat ran home.", "Größe 🐈\n\ttabs  and\u{0} bytes", "", " ", "{\"json\": [1]}"]
        {
            let ids = vocabulary.encode(text).expect("encodes");
            assert_eq!(vocabulary.decode(&ids).expect("decodes"), text);
        }
    }

    #[test]
    fn marks_are_single_ids() {
        let vocabulary = vocabulary();
        for (id, mark) in SPECIALS.iter().enumerate() {
            assert_eq!(vocabulary.special(mark).expect("known"), id as u32);
            assert_eq!(vocabulary.encode(mark).expect("encodes"), [id as u32]);
        }
    }

    #[test]
    fn training_is_deterministic() {
        let (first, second) = (vocabulary(), vocabulary());
        assert_eq!((first.tokens, first.merges), (second.tokens, second.merges));
    }
}
