//! From a Hugging Face folder's tokenizer.json (and tokenizer_config.json) to a tokenizer.
//!
//! The file describes a pipeline of the crate `tokenizers`, which runs it as it is; only decoding is done
//! here, token by token, since a stream of tokens is printed as it comes. The file's own rules for BOS and
//! the like are run once, around a single placeholder, to see what goes before and after a text.

use serde::Deserialize;
use tokenizers::{
    AddedVocabulary, DecoderWrapper, Encoding, Model as _, OffsetReferential, OffsetType, PostProcessor,
    PreTokenizer, Token,
};

use super::names;
use super::vocabulary::{self, Kind, MAX_ENTRIES, Spelling, Vocabulary};
use super::{Method, Tokenizer};
use crate::error::{Error, Result};

/// A pipeline of the crate `tokenizers`.
#[derive(Debug)]
pub(super) struct Pipeline {
    tokenizer: tokenizers::Tokenizer,
    /// The added tokens without those that only `special` texts may name.
    plain: AddedVocabulary,
}

/// The part of tokenizer_config.json that concerns ids.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    bos_token: Option<Name>,
    eos_token: Option<Name>,
    add_bos_token: Option<bool>,
    add_eos_token: Option<bool>,
}

/// A token's name, written as a string or as an object with a `content`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Name {
    Text(String),
    Token { content: String },
}

impl Name {
    fn as_str(&self) -> &str {
        match self {
            Self::Text(name) | Self::Token { content: name } => name,
        }
    }
}

pub(super) fn read(tokenizer_json: &[u8], tokenizer_config: Option<&[u8]>) -> Result<Tokenizer> {
    let tokenizer = tokenizers::Tokenizer::from_bytes(tokenizer_json)
        .map_err(|error| Error::Model(format!("tokenizer.json cannot be read: {error}")))?;
    let config: Config = match tokenizer_config {
        Some(config) => serde_json::from_slice(config)
            .map_err(|error| Error::Model(format!("tokenizer_config.json cannot be read: {error}")))?,
        None => Config::default(),
    };
    let vocabulary = vocabulary(&tokenizer)?;
    let named = |name: &Option<Name>, key: &str| -> Result<Option<u32>> {
        let Some(name) = name.as_ref().map(Name::as_str) else { return Ok(None) };
        let missing = || Error::Model(format!("{key} is {name:?}, which is not in the vocabulary"));
        vocabulary.id(name).ok_or_else(missing).map(Some)
    };
    let (mut prefix, mut suffix) = surroundings(&tokenizer)?;
    let bos = named(&config.bos_token, "bos_token")?.or(prefix.first().copied());
    let eos = named(&config.eos_token, "eos_token")?.or(suffix.last().copied());
    apply(config.add_bos_token, bos, &mut prefix);
    apply(config.add_eos_token, eos, &mut suffix);

    let mut ends = names::ends(|name| vocabulary.id(name));
    ends.extend(eos);
    let mut plain = tokenizer.get_added_vocabulary().clone();
    plain.set_encode_special_tokens(true);
    let pipeline = Method::Pipeline(Box::new(Pipeline { tokenizer, plain }));
    Ok(Tokenizer::assemble(vocabulary, pipeline, prefix, suffix, bos, eos, ends))
}

/// Lets a flag of the configuration overrule whether `token` goes with a text.
fn apply(wanted: Option<bool>, token: Option<u32>, around: &mut Vec<u32>) {
    let Some((wanted, token)) = wanted.zip(token) else { return };
    if !wanted {
        around.retain(|&id| id != token);
    } else if !around.contains(&token) {
        around.push(token);
    }
}

/// The ids that the file's rules put before and after a text.
fn surroundings(tokenizer: &tokenizers::Tokenizer) -> Result<(Vec<u32>, Vec<u32>)> {
    const PLACEHOLDER: u32 = u32::MAX;
    let Some(rules) = tokenizer.get_post_processor() else { return Ok((Vec::new(), Vec::new())) };
    let text = Encoding::from_tokens(vec![Token::new(PLACEHOLDER, "x".into(), (0, 1))], 0);
    let all = rules
        .process(text, None, true)
        .map_err(|error| Error::Model(format!("tokenizer.json has a post-processor that fails: {error}")))?;
    let mut parts = all.get_ids().split(|&id| id == PLACEHOLDER).map(<[u32]>::to_vec);
    Ok((parts.next().unwrap_or_default(), parts.next().unwrap_or_default()))
}

fn vocabulary(tokenizer: &tokenizers::Tokenizer) -> Result<Vocabulary> {
    let by_piece = tokenizer.get_vocab(true);
    let size = by_piece.values().max().map_or(0, |&id| id as usize + 1);
    if size > MAX_ENTRIES {
        return Err(Error::Model(format!(
            "tokenizer.json has the id {}, the limit is {MAX_ENTRIES}",
            size - 1
        )));
    }
    let spelling = spelling(tokenizer.get_decoder());
    let added = tokenizer.get_added_vocabulary().get_added_tokens_decoder();
    let mut pieces = vec![""; size];
    let mut kinds = vec![Kind::Normal; size];
    for (piece, &id) in &by_piece {
        let (Some(entry), Some(kind)) = (pieces.get_mut(id as usize), kinds.get_mut(id as usize)) else {
            continue;
        };
        *entry = piece;
        *kind = match added.get(&id) {
            Some(token) if token.special => Kind::Control,
            Some(_) if names::is_end(piece) => Kind::Control,
            Some(_) => Kind::UserDefined,
            None if spelling == Spelling::Metaspace && vocabulary::byte(piece).is_some() => Kind::Byte,
            None => Kind::Normal,
        };
    }
    Vocabulary::new(&pieces, kinds, &spelling)
}

/// How pieces spell text, from the decoder that would join them.
fn spelling(decoder: Option<&DecoderWrapper>) -> Spelling {
    match decoder {
        Some(DecoderWrapper::ByteLevel(_)) => Spelling::ByteLevel,
        Some(DecoderWrapper::WordPiece(decoder)) => Spelling::Continuation(decoder.prefix.clone()),
        Some(DecoderWrapper::Metaspace(_) | DecoderWrapper::Replace(_) | DecoderWrapper::ByteFallback(_)) => {
            Spelling::Metaspace
        }
        Some(DecoderWrapper::Sequence(sequence)) => {
            let all = sequence.get_decoders().iter().map(|decoder| spelling(Some(decoder)));
            all.into_iter().find(|spelling| *spelling != Spelling::Plain).unwrap_or(Spelling::Plain)
        }
        _ => Spelling::Plain,
    }
}

impl Pipeline {
    /// Appends the tokens of `text`.
    pub(super) fn encode(&self, text: &str, special: bool, into: &mut Vec<u32>) -> Result<()> {
        let failed =
            |error: tokenizers::Error| Error::Invalid(format!("the text cannot be tokenized: {error}"));
        let added = if special { self.tokenizer.get_added_vocabulary() } else { &self.plain };
        let mut pieces = added.extract_and_normalize(self.tokenizer.get_normalizer(), text);
        if let Some(pre_tokenizer) = self.tokenizer.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pieces).map_err(failed)?;
        }
        let model = self.tokenizer.get_model();
        pieces.tokenize(|piece| model.tokenize(piece.get())).map_err(failed)?;
        for (_, _, tokens) in pieces.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            into.extend(tokens.iter().flatten().map(|token| token.id));
        }
        Ok(())
    }
}
