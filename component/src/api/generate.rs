//! `POST /generate`: text in, text out.
//!
//! `max_length` counts prompt and new tokens, as in Hugging Face's pipelines, `max_new_tokens` new ones only.
//! The answer is the new text without the prompt. As a stream: `{"text": …}` for every piece of it, and the
//! whole answer at last.

use http::Request;
use serde_json::{Value, json};

use super::error::Refusal;
use super::fields::{Fields, wrong};
use super::options::Options;
use super::run::{Choice, Format, Scored, finish_reason, reply, start, usage_json};
use super::sse::Events;
use super::{Context, Reply};
use crate::generate::{MaxTokens, Usage};
use crate::preset::Preset;
use crate::service::Prompt;

/// New tokens where the request does not say, as in Hugging Face's pipelines.
const DEFAULT_NEW_TOKENS: u64 = 256;

pub(super) fn answer<'s>(
    request: &Request<Vec<u8>>,
    context: &Context<'_, 's>,
) -> Result<Reply<'s>, Refusal> {
    let mut body = Fields::parse(request.body())?;
    let preset = context.service()?.preset();
    let prompt = match body.required("prompt")? {
        Value::String(text) => [Prompt::Text(text)],
        other => return Err(wrong("prompt", &other, "a string")),
    };
    let options = Options::read(&mut body, preset)?;
    let max_tokens = max_tokens(&mut body, preset)?;
    body.finish()?;
    let started = start(&prompt, &options, Some(max_tokens), context)?;
    let format = Generate { model: context.service()?.about().id.clone() };
    Ok(reply(started, format, options.stream, context))
}

fn max_tokens(body: &mut Fields, preset: &Preset) -> Result<MaxTokens, Refusal> {
    let limit = |name, tokens, with_prompt| MaxTokens { name, tokens, with_prompt, strict: true };
    match (body.count("max_length")?, body.count("max_new_tokens")?) {
        (Some(_), Some(_)) => {
            let message = "max_length and max_new_tokens exclude each other";
            Err(Refusal::parameter("max_length", message))
        }
        (Some(tokens), None) => Ok(limit("max_length", tokens, true)),
        (None, Some(tokens)) => Ok(limit("max_new_tokens", tokens, false)),
        (None, None) => {
            let tokens = preset.max_tokens.unwrap_or(DEFAULT_NEW_TOKENS);
            Ok(MaxTokens { strict: false, ..limit("max_new_tokens", tokens, false) })
        }
    }
}

struct Generate {
    model: String,
}

impl Format for Generate {
    fn whole(&self, choices: &[Choice], usage: Usage) -> Value {
        let text: String = choices.iter().map(|choice| choice.text.as_str()).collect();
        let reason = choices.last().map(|choice| finish_reason(&choice.ending.reason));
        json!({
            "generated_text": text,
            "model": self.model,
            "finish_reason": reason,
            "usage": usage_json(usage),
        })
    }

    fn text(&mut self, _index: usize, text: &str, _tokens: &[Scored], events: &mut Events) {
        events.data(&json!({"text": text}));
    }

    fn ending(&mut self, _index: usize, choice: &Choice, _tokens: &[Scored], events: &mut Events) {
        events.data(&self.whole(std::slice::from_ref(choice), choice.ending.usage));
    }

    fn closing(&mut self, _usage: Usage, events: &mut Events) {
        events.done();
    }

    fn shape(&self) -> String {
        String::new()
    }
}
