//! `POST /tokenize` and `/detokenize`: what the model makes of a text.
//!
//! The defaults are those of a prompt: names of special tokens become those tokens (`special`), and BOS is
//! added where the model wants it (`bos`).

use http::Request;
use serde_json::{Value, json};

use super::error::Refusal;
use super::fields::{Fields, wrong};
use super::{Context, Reply, json};

pub(super) fn tokenize<'s>(
    request: &Request<Vec<u8>>,
    context: &Context<'_, 's>,
) -> Result<Reply<'s>, Refusal> {
    let mut body = Fields::parse(request.body())?;
    let text = match body.required("text")? {
        Value::String(text) => text,
        other => return Err(wrong("text", &other, "a string")),
    };
    let model = body.string("model")?;
    let special = body.optional("special", "a boolean")?.unwrap_or(true);
    let bos = body.optional("bos", "a boolean")?.unwrap_or(true);
    body.finish()?;
    let service = context.service()?;
    let refuse = |error| context.report.refusal(error);
    service.check_model(model.as_deref()).map_err(refuse)?;
    let tokens = service.tokenizer().encode(&text, special, bos).map_err(refuse)?;
    let pieces: Vec<_> = tokens.iter().map(|&id| service.tokenizer().piece(id)).collect();
    Ok(json(&json!({"tokens": tokens, "pieces": pieces, "count": tokens.len()})))
}

pub(super) fn detokenize<'s>(
    request: &Request<Vec<u8>>,
    context: &Context<'_, 's>,
) -> Result<Reply<'s>, Refusal> {
    let mut body = Fields::parse(request.body())?;
    let expected = "an array of token ids";
    let tokens = body.required("tokens")?;
    let Some(tokens) = ids(&tokens) else { return Err(wrong("tokens", &tokens, expected)) };
    let model = body.string("model")?;
    body.finish()?;
    let service = context.service()?;
    let refuse = |error| context.report.refusal(error);
    service.check_model(model.as_deref()).map_err(refuse)?;
    let tokenizer = service.tokenizer();
    if let Some(id) = tokens.iter().find(|&&id| id as usize >= tokenizer.vocabulary_size()) {
        let limit = tokenizer.vocabulary_size();
        let message = format!("tokens has token {id}, the vocabulary has {limit} tokens");
        return Err(Refusal::parameter("tokens", message));
    }
    Ok(json(&json!({"text": tokenizer.decode(&tokens)})))
}

fn ids(value: &Value) -> Option<Vec<u32>> {
    value.as_array()?.iter().map(|id| id.as_u64()?.try_into().ok()).collect()
}
