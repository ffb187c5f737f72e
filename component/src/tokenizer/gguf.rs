//! From the metadata of a GGUF file (`tokenizer.ggml.*`) to a tokenizer.
//!
//! What a file does not say is filled in as llama.cpp does, per `tokenizer.ggml.model`. Errors name the key.

use wafer_engine::gguf::Metadata;

use super::bpe::Bpe;
use super::charsmap::Charsmap;
use super::names::{self, Names};
use super::pre::Splitter;
use super::spm::Spm;
use super::unigram::Unigram;
use super::vocabulary::{Kind, Spelling, Vocabulary};
use super::wordpiece::WordPiece;
use super::{Method, Model, Tokenizer};
use crate::error::{Error, Result};

/// The kinds of tokenizers, by `tokenizer.ggml.model`.
const MODELS: [&str; 4] = ["llama", "gpt2", "bert", "t5"];

/// What the kind of tokenizer says where the file does not.
struct Defaults {
    bos: Option<u32>,
    eos: Option<u32>,
    unknown: Option<u32>,
    add_bos: bool,
    add_eos: bool,
}

pub(super) fn read(metadata: &Metadata) -> Result<Tokenizer> {
    let model = metadata.str("tokenizer.ggml.model")?;
    let spelling = match model {
        "llama" | "t5" | "bert" => Spelling::Metaspace,
        "gpt2" => Spelling::ByteLevel,
        _ => {
            return Err(Error::Model(format!(
                "tokenizer.ggml.model is {model:?}, which is not one of: {}",
                MODELS.join(", ")
            )));
        }
    };
    let mut vocabulary = vocabulary(metadata, &spelling)?;
    let size = vocabulary.len();
    let splitter = match model {
        "gpt2" => Some(Splitter::named(metadata.opt_str("tokenizer.ggml.pre")?)?),
        _ => None,
    };
    let defaults = defaults(model, splitter.as_ref().is_some_and(|splitter| splitter.add_bos));
    let id = |key: &str, default: Option<u32>| special_id(metadata, key, default, size);

    vocabulary.set_unknown(id("unknown_token_id", defaults.unknown)?);
    let cls = if model == "bert" { id("cls_token_id", defaults.bos)? } else { defaults.bos };
    let bos = id("bos_token_id", cls)?;
    let eos = id("eos_token_id", defaults.eos)?;
    let add = |key: &str, default: bool, token: Option<u32>| -> Result<Vec<u32>> {
        let wanted = flag(metadata, key, default)?;
        match token {
            Some(id) if wanted => Ok(vec![id]),
            None if wanted => {
                Err(Error::Model(format!("tokenizer.ggml.{key} is on, but the token is not named")))
            }
            _ => Ok(Vec::new()),
        }
    };
    let prefix = add("add_bos_token", defaults.add_bos, bos)?;
    let suffix = match model {
        "bert" => {
            let separator = id("seperator_token_id", Some(102))?; // sic
            add("add_sep_token", true, separator)?
        }
        _ => add("add_eos_token", defaults.add_eos, eos)?,
    };

    let mut ends = names::ends(|name| vocabulary.id(name));
    ends.extend(eos);
    ends.extend(id("eot_token_id", None)?);
    ends.extend(id("eom_token_id", None)?);
    let names = Names::new(&vocabulary, swallows(metadata)?)?;
    let model = match splitter {
        Some(splitter) => Model::Bpe(bpe(metadata, &vocabulary, splitter)?),
        None => scored(metadata, model, &vocabulary)?,
    };
    Ok(Tokenizer::assemble(vocabulary, Method::Own { names, model }, prefix, suffix, bos, eos, ends))
}

fn defaults(model: &str, add_bos: bool) -> Defaults {
    let all = |bos, eos, unknown, add_bos, add_eos| Defaults { bos, eos, unknown, add_bos, add_eos };
    match model {
        "llama" => all(Some(1), Some(2), Some(0), true, false),
        "bert" => all(Some(101), None, Some(100), true, false),
        "t5" => all(None, Some(1), Some(2), false, true),
        _ => all(None, None, None, add_bos, false),
    }
}

fn vocabulary(metadata: &Metadata, spelling: &Spelling) -> Result<Vocabulary> {
    let pieces = metadata
        .opt_strings("tokenizer.ggml.tokens")?
        .ok_or_else(|| Error::Model("metadata tokenizer.ggml.tokens is missing".into()))?;
    let mut kinds: Vec<Kind> = match metadata.opt_i32s("tokenizer.ggml.token_type")? {
        Some(numbers) => {
            same_count("token_type", numbers.len(), pieces.len())?;
            numbers.into_iter().map(Kind::from_gguf).collect()
        }
        None => vec![Kind::Normal; pieces.len()],
    };
    for (kind, piece) in kinds.iter_mut().zip(&pieces) {
        // Some files call them normal or user-defined, and then they would be printed.
        if names::is_end(piece) {
            *kind = Kind::Control;
        }
    }
    Vocabulary::new(&pieces, kinds, spelling)
}

fn bpe(metadata: &Metadata, vocabulary: &Vocabulary, splitter: Splitter) -> Result<Bpe> {
    let merges = metadata
        .opt_strings("tokenizer.ggml.merges")?
        .ok_or_else(|| Error::Model("metadata tokenizer.ggml.merges is missing".into()))?;
    Bpe::new(vocabulary, &merges, splitter)
}

/// The models without merges: those that go by scores, and WordPiece, which needs none.
fn scored(metadata: &Metadata, model: &str, vocabulary: &Vocabulary) -> Result<Model> {
    if model == "bert" {
        let lowercase = flag(metadata, "normalizer.lowercase", true)?;
        let strip_accents = metadata.opt_bool("tokenizer.ggml.normalizer.strip_accents")?;
        return Ok(Model::WordPiece(WordPiece::new(vocabulary, lowercase, strip_accents)));
    }
    let scores = match metadata.opt_f32s("tokenizer.ggml.scores")? {
        Some(scores) => {
            same_count("scores", scores.len(), vocabulary.len())?;
            scores
        }
        None => vec![0.0; vocabulary.len()],
    };
    if model == "llama" {
        let space_prefix = flag(metadata, "add_space_prefix", true)?;
        return Ok(Model::Spm(Spm::new(vocabulary, scores, space_prefix)));
    }
    let charsmap = match metadata.opt_i32s("tokenizer.ggml.precompiled_charsmap")? {
        Some(bytes) => Charsmap::new(&bytes.into_iter().map(|byte| byte as u8).collect::<Vec<_>>())?,
        None => Charsmap::default(),
    };
    let space_prefix = flag(metadata, "add_space_prefix", false)?;
    let merge_spaces = flag(metadata, "remove_extra_whitespaces", false)?;
    Ok(Model::Unigram(Unigram::new(vocabulary, scores, charsmap, space_prefix, merge_spaces)))
}

/// Which special tokens take the white space behind them along: GGUF cannot say it, so Phi-3 goes by its
/// name.
fn swallows(metadata: &Metadata) -> Result<impl Fn(&str) -> bool> {
    let name = metadata.opt_str("general.name")?.unwrap_or_default().to_lowercase();
    let phi3 = name.contains("phi-3") || name.contains("phi3");
    Ok(move |token: &str| phi3 && !matches!(token, "<unk>" | "<s>" | "<|endoftext|>"))
}

fn flag(metadata: &Metadata, key: &str, default: bool) -> Result<bool> {
    Ok(metadata.opt_bool(&format!("tokenizer.ggml.{key}"))?.unwrap_or(default))
}

/// A token's id from the metadata. `u32::MAX` is how some writers say that there is none.
fn special_id(metadata: &Metadata, key: &str, default: Option<u32>, size: usize) -> Result<Option<u32>> {
    let key = format!("tokenizer.ggml.{key}");
    let inside = |id: u32| (id as usize) < size;
    match metadata.opt_u32(&key)? {
        None => Ok(default.filter(|&id| inside(id))),
        Some(u32::MAX) => Ok(None),
        Some(id) if inside(id) => Ok(Some(id)),
        Some(id) => Err(Error::Model(format!("{key} is {id}, but the vocabulary has {size} tokens"))),
    }
}

fn same_count(key: &str, count: usize, tokens: usize) -> Result<()> {
    if count == tokens {
        return Ok(());
    }
    Err(Error::Model(format!("tokenizer.ggml.{key} has {count} entries for {tokens} tokens")))
}
