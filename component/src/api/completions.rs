//! `POST /v1/completions`: OpenAI's text completions.
//!
//! Several prompts give several choices, in their order, and `usage` for all of them.

use http::Request;
use serde_json::{Value, json};

use super::error::Refusal;
use super::fields::{Fields, wrong};
use super::options::{Options, bookkeeping, include_usage};
use super::run::{Choice, Format, finish_reason, reply, start, usage_json};
use super::{Context, Reply};
use crate::generate::{MaxTokens, Usage};
use crate::service::Prompt;

/// Prompts of one request at most.
const MAX_PROMPTS: usize = 64;
/// New tokens where the request does not say, as OpenAI's.
const DEFAULT_MAX_TOKENS: u64 = 16;

pub(super) fn answer<'s>(
    request: &Request<Vec<u8>>,
    context: &Context<'_, 's>,
) -> Result<Reply<'s>, Refusal> {
    let mut body = Fields::parse(request.body())?;
    let preset = context.service()?.preset();
    let prompts = prompts(body.required("prompt")?)?;
    let options = Options::read(&mut body, preset)?;
    let include_usage = include_usage(&mut body, options.stream)?;
    let given = body.count("max_tokens")?;
    let max_tokens = MaxTokens {
        name: "max_tokens",
        tokens: given.or(preset.max_tokens).unwrap_or(DEFAULT_MAX_TOKENS),
        with_prompt: false,
        strict: given.is_some(),
    };
    bookkeeping(&mut body)?;
    let unsupported = [
        ("n", json!([1])),
        ("best_of", json!([1])),
        ("echo", json!([false])),
        ("logprobs", json!([])),
        ("suffix", json!([""])),
    ];
    unsupported.iter().try_for_each(|(key, neutral)| body.unsupported(key, neutral))?;
    body.finish()?;
    let started = start(&prompts, &options, Some(max_tokens), context)?;
    let format = Completion {
        id: format!("cmpl-{:016x}", context.platform().random()),
        created: context.platform().seconds(),
        model: context.service()?.about().id.clone(),
        include_usage,
    };
    Ok(reply(started, format, options.stream, context))
}

/// A text, texts, the token ids of a prompt, or those of several.
fn prompts(value: Value) -> Result<Vec<Prompt>, Refusal> {
    let expected = "a string, an array of strings, or token ids";
    let Value::Array(values) = value else {
        return prompt(&value).map(|prompt| vec![prompt]).ok_or_else(|| wrong("prompt", &value, expected));
    };
    if values.is_empty() {
        return Err(Refusal::parameter("prompt", "prompt is empty"));
    }
    if values.iter().all(Value::is_number) {
        let whole = Value::Array(values);
        return prompt(&whole).map(|prompt| vec![prompt]).ok_or_else(|| wrong("prompt", &whole, expected));
    }
    if values.len() > MAX_PROMPTS {
        let message = format!("prompt has {} texts, the limit is {MAX_PROMPTS}", values.len());
        return Err(Refusal::parameter("prompt", message));
    }
    let one = |(index, value): (usize, &Value)| {
        prompt(value).ok_or_else(|| wrong(&format!("prompt[{index}]"), value, "a string or token ids"))
    };
    values.iter().enumerate().map(one).collect()
}

/// One prompt: a text or token ids.
fn prompt(value: &Value) -> Option<Prompt> {
    match value {
        Value::String(text) => Some(Prompt::Text(text.clone())),
        Value::Array(ids) => {
            let ids = ids.iter().map(|id| id.as_u64()?.try_into().ok());
            ids.collect::<Option<_>>().map(Prompt::Tokens)
        }
        _ => None,
    }
}

/// `text_completion`, whole and in pieces.
struct Completion {
    id: String,
    created: u64,
    model: String,
    include_usage: bool,
}

impl Completion {
    fn object(&self, choices: &[Value]) -> Value {
        json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }

    fn chunk(&self, choices: &[Value], usage: Option<Usage>) -> Value {
        let mut chunk = self.object(choices);
        if self.include_usage {
            chunk["usage"] = usage.map_or(Value::Null, usage_json);
        }
        chunk
    }
}

fn choice(index: usize, text: &str, finish_reason: Option<&str>) -> Value {
    json!({"index": index, "text": text, "logprobs": null, "finish_reason": finish_reason})
}

impl Format for Completion {
    fn whole(&self, choices: &[Choice], usage: Usage) -> Value {
        let choices: Vec<Value> = (0..)
            .zip(choices)
            .map(|(index, done)| choice(index, &done.text, Some(finish_reason(&done.ending.reason))))
            .collect();
        let mut object = self.object(&choices);
        object["usage"] = usage_json(usage);
        object
    }

    fn text(&self, index: usize, text: &str) -> Value {
        self.chunk(&[choice(index, text, None)], None)
    }

    fn ending(&self, index: usize, done: &Choice) -> Value {
        self.chunk(&[choice(index, "", Some(finish_reason(&done.ending.reason)))], None)
    }

    fn closing(&self, usage: Usage) -> Option<Value> {
        self.include_usage.then(|| self.chunk(&[], Some(usage)))
    }
}
