//! `POST /v1/chat/completions`: OpenAI's chat completions.
//!
//! Beyond OpenAI's parameters: `top_k`, `min_p`, `repetition_penalty`, and `chat_template_kwargs`, the
//! arguments that some models' templates know (`{"enable_thinking": false}`).

use http::Request;
use serde_json::{Value, json};

use super::error::Refusal;
use super::fields::{Fields, wrong};
use super::options::{Options, bookkeeping, include_usage};
use super::run::{Choice, Format, Scored, fingerprint, finish_reason, reply, start, usage_json};
use super::sse::Events;
use super::{Context, Reply, probabilities};
use crate::generate::{MaxTokens, Usage};
use crate::preset::Preset;
use crate::service::{Prompt, Service};
use crate::template::Message;

pub(super) fn answer<'s>(
    request: &Request<Vec<u8>>,
    context: &Context<'_, 's>,
) -> Result<Reply<'s>, Refusal> {
    let mut body = Fields::parse(request.body())?;
    let preset = context.service()?.preset();
    let messages = messages(body.required("messages")?)?;
    let mut options = Options::read(&mut body, preset)?;
    options.read_choices(&mut body, "n")?;
    options.logprobs = probabilities::of_chat(&mut body)?;
    let include_usage = include_usage(&mut body, options.stream)?;
    let max_tokens = max_tokens(&mut body, preset)?;
    let arguments = body.optional("chat_template_kwargs", "an object")?.unwrap_or_default();
    bookkeeping(&mut body)?;
    unsupported(&mut body)?;
    body.finish()?;
    let prompt = [Prompt::Chat(messages, arguments)];
    let started = start(&prompt, &options, max_tokens, context)
        .map_err(|refusal| refusal.renamed("prompt", "messages"))?;
    let service = context.service()?;
    let format = Chat {
        id: format!("chatcmpl-{:016x}", context.platform().random()),
        created: context.platform().seconds(),
        fingerprint: fingerprint(context)?,
        service,
        include_usage,
    };
    Ok(reply(started, format, options.stream, context))
}

/// The newer name, or the older one, or what is preset.
fn max_tokens(body: &mut Fields, preset: &Preset) -> Result<Option<MaxTokens>, Refusal> {
    let limit = |name, tokens| MaxTokens { name, tokens, with_prompt: false, strict: true };
    match (body.count("max_completion_tokens")?, body.count("max_tokens")?) {
        (Some(_), Some(_)) => Err(Refusal::parameter(
            "max_tokens",
            "max_tokens and max_completion_tokens mean the same, only one may be given",
        )),
        (Some(tokens), None) => Ok(Some(limit("max_completion_tokens", tokens))),
        (None, Some(tokens)) => Ok(Some(limit("max_tokens", tokens))),
        (None, None) => {
            Ok(preset.max_tokens.map(|tokens| MaxTokens { strict: false, ..limit("max_tokens", tokens) }))
        }
    }
}

/// What OpenAI's API has and this one does not, each with the values that ask for nothing.
fn unsupported(body: &mut Fields) -> Result<(), Refusal> {
    let parameters = [
        ("tools", json!([[]])),
        ("tool_choice", json!(["none", "auto"])),
        ("parallel_tool_calls", json!([true, false])),
        ("functions", json!([[]])),
        ("function_call", json!(["none", "auto"])),
        ("response_format", json!([{"type": "text"}])),
        ("modalities", json!([["text"]])),
        ("audio", json!([])),
        ("prediction", json!([])),
        ("reasoning_effort", json!([])),
        ("verbosity", json!([])),
        ("web_search_options", json!([])),
        ("moderation", json!([])),
        ("service_tier", json!(["auto", "default"])),
        ("store", json!([false])),
    ];
    parameters.iter().try_for_each(|(key, neutral)| body.unsupported(key, neutral))
}

fn messages(value: Value) -> Result<Vec<Message>, Refusal> {
    let Value::Array(values) = value else { return Err(wrong("messages", &value, "an array of messages")) };
    let indexed = values.into_iter().enumerate();
    indexed.map(|(index, value)| message(value, &format!("messages[{index}]"))).collect()
}

fn message(value: Value, path: &str) -> Result<Message, Refusal> {
    let mut fields = Fields::nested(value, path)?;
    let role = fields.required("role")?;
    let Value::String(mut role) = role else { return Err(wrong(&fields.name("role"), &role, "a string")) };
    // OpenAI's newer name for the same thing; templates know the older one.
    if role == "developer" {
        role = "system".into();
    }
    let tool_calls = fields.take("tool_calls");
    let content = match fields.take("content") {
        Some(content) => Some(text(content, &fields.name("content"))?),
        None if tool_calls.is_some() => None,
        None => {
            let name = fields.name("content");
            return Err(Refusal::parameter(&name, format!("parameter '{name}' is required")));
        }
    };
    let message = Message {
        role,
        content,
        reasoning_content: fields.string("reasoning_content")?,
        name: fields.string("name")?,
        tool_calls,
        tool_call_id: fields.string("tool_call_id")?,
    };
    for key in ["refusal", "audio", "function_call", "annotations"] {
        fields.unsupported(key, &json!([[]]))?;
    }
    fields.finish()?;
    Ok(message)
}

/// A message's content: a string, or parts of type `text`, which are put together as they are.
fn text(content: Value, path: &str) -> Result<String, Refusal> {
    let parts = match content {
        Value::String(text) => return Ok(text),
        Value::Array(parts) => parts,
        other => return Err(wrong(path, &other, "a string or an array of parts")),
    };
    let mut all = String::new();
    for (index, part) in parts.into_iter().enumerate() {
        let path = format!("{path}[{index}]");
        let mut fields = Fields::nested(part, &path)?;
        match fields.required("type")?.as_str() {
            Some("text") => all.push_str(&fields.string("text")?.unwrap_or_default()),
            Some(kind) => return Err(Refusal::unsupported_value(&fields.name("type"), kind)),
            None => return Err(Refusal::parameter(&path, format!("the type of '{path}' is not a string"))),
        }
        fields.finish()?;
    }
    Ok(all)
}

/// `chat.completion` and `chat.completion.chunk`.
struct Chat<'s> {
    id: String,
    created: u64,
    fingerprint: String,
    service: &'s Service,
    include_usage: bool,
}

impl Chat<'_> {
    fn object(&self, kind: &str, choices: &Value) -> Value {
        json!({
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.service.about().id,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        })
    }

    fn chunk(&self, choices: &Value, usage: Option<Usage>) -> Value {
        let mut chunk = self.object("chat.completion.chunk", choices);
        // On request every chunk has the key; only the last one has a value there.
        if self.include_usage {
            chunk["usage"] = usage.map_or(Value::Null, usage_json);
        }
        chunk
    }

    fn delta(&self, index: usize, delta: &Value, tokens: &[Scored], finish_reason: Option<&str>) -> Value {
        let logprobs = probabilities::chat(self.service.tokenizer(), tokens);
        let choice =
            json!({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason});
        self.chunk(&json!([choice]), None)
    }
}

impl Format for Chat<'_> {
    fn whole(&self, choices: &[Choice], usage: Usage) -> Value {
        let choice = |(index, choice): (usize, &Choice)| {
            json!({
                "index": index,
                "message": {"role": "assistant", "content": choice.text, "refusal": null},
                "logprobs": probabilities::chat(self.service.tokenizer(), &choice.tokens),
                "finish_reason": finish_reason(&choice.ending.reason),
            })
        };
        let choices = choices.iter().enumerate().map(choice).collect();
        let mut object = self.object("chat.completion", &choices);
        object["usage"] = usage_json(usage);
        object
    }

    fn opening(&mut self, index: usize, events: &mut Events) {
        events.data(&self.delta(index, &json!({"role": "assistant", "content": ""}), &[], None));
    }

    fn text(&mut self, index: usize, text: &str, tokens: &[Scored], events: &mut Events) {
        events.data(&self.delta(index, &json!({"content": text}), tokens, None));
    }

    fn ending(&mut self, index: usize, choice: &Choice, tokens: &[Scored], events: &mut Events) {
        let reason = finish_reason(&choice.ending.reason);
        events.data(&self.delta(index, &json!({}), tokens, Some(reason)));
    }

    fn closing(&mut self, usage: Usage, events: &mut Events) {
        if self.include_usage {
            events.data(&self.chunk(&json!([]), Some(usage)));
        }
        events.done();
    }

    fn shape(&self) -> String {
        String::new()
    }
}
