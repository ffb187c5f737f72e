//! `logprobs` as OpenAI writes them: one way in chats, another in completions.
//!
//! Every generated token is listed but the one that ends a text, whose text is empty.

use serde_json::{Map, Value, json};

use super::error::Refusal;
use super::fields::Fields;
use super::run::Scored;
use crate::logprobs::Logprobs;
use crate::tokenizer::Tokenizer;

/// Alternatives per token at most, in chats and in completions.
const MAX_CHAT: u64 = 20;
const MAX_COMPLETION: u64 = 5;
/// What OpenAI writes for the logarithm of zero, which JSON cannot.
const NEVER: f32 = -9999.0;

/// `logprobs` and `top_logprobs` of a chat: how many alternatives are wanted, if any probabilities are.
pub(super) fn of_chat(body: &mut Fields) -> Result<Option<usize>, Refusal> {
    let wanted = body.flag("logprobs")?;
    match body.count("top_logprobs")? {
        Some(top) if !wanted && top > 0 => {
            let message = "parameter 'top_logprobs' needs 'logprobs' to be true";
            Err(Refusal::parameter("top_logprobs", message))
        }
        top => alternatives("top_logprobs", top.unwrap_or(0), MAX_CHAT).map(|top| wanted.then_some(top)),
    }
}

/// `logprobs` of a completion: how many alternatives are wanted, if any probabilities are.
pub(super) fn of_completion(body: &mut Fields) -> Result<Option<usize>, Refusal> {
    let top = body.count("logprobs")?;
    top.map(|top| alternatives("logprobs", top, MAX_COMPLETION)).transpose()
}

fn alternatives(name: &str, count: u64, limit: u64) -> Result<usize, Refusal> {
    match usize::try_from(count) {
        Ok(top) if count <= limit => Ok(top),
        _ => Err(Refusal::parameter(name, format!("{name} is {count}, the limit is {limit}"))),
    }
}

/// A chat's `logprobs`; null if none are wanted.
pub(super) fn chat(tokenizer: &Tokenizer, tokens: &[Scored]) -> Value {
    if tokens.is_empty() {
        return Value::Null;
    }
    let content: Vec<Value> = tokens.iter().filter_map(|token| entry(tokenizer, token)).collect();
    json!({"content": content, "refusal": null})
}

fn entry(tokenizer: &Tokenizer, token: &Scored) -> Option<Value> {
    if tokenizer.is_end(token.id) {
        return None;
    }
    let one = |id: u32, logprob: f32| {
        let bytes = tokenizer.bytes(id);
        let bytes = if bytes.is_empty() { Value::Null } else { json!(bytes) };
        json!({"token": text(tokenizer, id), "logprob": finite(logprob), "bytes": bytes})
    };
    let Logprobs { chosen, top } = &token.logprobs;
    let mut entry = one(token.id, *chosen);
    entry["top_logprobs"] = top.iter().map(|&(id, logprob)| one(id, logprob)).collect();
    Some(entry)
}

/// A completion's `logprobs`; null if none are wanted. `offset` is where the first token begins, in characters of the
/// text, and moves on to where the next one will.
pub(super) fn completion(tokenizer: &Tokenizer, tokens: &[Scored], offset: &mut usize) -> Value {
    if tokens.is_empty() {
        return Value::Null;
    }
    let (mut texts, mut chosen, mut tops, mut offsets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for token in tokens.iter().filter(|token| !tokenizer.is_end(token.id)) {
        texts.push(text(tokenizer, token.id));
        chosen.push(finite(token.logprobs.chosen));
        let top = token.logprobs.top.iter();
        tops.push(
            top.map(|&(id, logprob)| (text(tokenizer, id), json!(finite(logprob)))).collect::<Map<_, _>>(),
        );
        offsets.push(*offset);
        *offset += characters(tokenizer.bytes(token.id));
    }
    json!({"tokens": texts, "token_logprobs": chosen, "top_logprobs": tops, "text_offset": offsets})
}

/// A token's text; that of a control token is its name, that of a part of a character its bytes.
fn text(tokenizer: &Tokenizer, id: u32) -> String {
    let bytes = tokenizer.bytes(id);
    if bytes.is_empty() {
        return tokenizer.piece(id).unwrap_or_default().to_owned();
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold("bytes:".to_owned(), |text, byte| text + &format!("\\x{byte:02x}")),
    }
}

/// Characters that begin in these bytes, which may be a part of some.
pub(super) fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte & 0xC0 != 0x80).count()
}

fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { NEVER }
}
