//! `POST /v1/completions`: OpenAI's text completions.
//!
//! Several prompts give several choices, `n` for each, in their order, and `usage` for all of them.

use http::Request;
use serde_json::{Value, json};

use super::error::Refusal;
use super::fields::{Fields, wrong};
use super::options::{Options, bookkeeping, include_usage};
use super::run::{Choice, Format, Scored, fingerprint, finish_reason, reply, start, usage_json};
use super::sse::Events;
use super::{Context, Reply, probabilities};
use crate::generate::{MaxTokens, Usage};
use crate::service::{Prompt, Service};

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
    let mut options = Options::read(&mut body, preset)?;
    options.read_choices(&mut body, "n")?;
    options.logprobs = probabilities::of_completion(&mut body)?;
    let include_usage = include_usage(&mut body, options.stream)?;
    let given = body.count("max_tokens")?;
    let max_tokens = MaxTokens {
        name: "max_tokens",
        tokens: given.or(preset.max_tokens).unwrap_or(DEFAULT_MAX_TOKENS),
        with_prompt: false,
        strict: given.is_some(),
    };
    bookkeeping(&mut body)?;
    let echo = echo(&mut body, &options)?;
    // More candidates than choices is a search, which this is not.
    body.unsupported("best_of", &json!([options.choices]))?;
    body.unsupported("suffix", &json!([""]))?;
    body.finish()?;
    let started = start(&prompts, &options, Some(max_tokens), context)?;
    let service = context.service()?;
    let format = Completion {
        id: format!("cmpl-{:016x}", context.platform().random()),
        created: context.platform().seconds(),
        fingerprint: fingerprint(context)?,
        service,
        include_usage,
        echo: echo.then(|| echoes(service, prompts, options.choices)),
        offset: 0,
    };
    Ok(reply(started, format, options.stream, context))
}

/// `echo`: whether the prompt is a part of the text.
fn echo(body: &mut Fields, options: &Options) -> Result<bool, Refusal> {
    let echo = body.flag("echo")?;
    if echo && options.logprobs.is_some() {
        let message =
            "'echo' together with 'logprobs' is not supported: the prompt's tokens have no probabilities";
        return Err(Refusal::parameter("echo", message));
    }
    Ok(echo)
}

/// The prompt's text for every choice.
fn echoes(service: &Service, prompts: Vec<Prompt>, choices: usize) -> Vec<String> {
    let text = |prompt| match prompt {
        Prompt::Text(text) => text,
        Prompt::Tokens(tokens) => service.tokenizer().decode(&tokens),
        Prompt::Chat(..) => String::new(),
    };
    prompts.into_iter().map(text).flat_map(|text| std::iter::repeat_n(text, choices)).collect()
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
struct Completion<'s> {
    id: String,
    created: u64,
    fingerprint: String,
    service: &'s Service,
    include_usage: bool,
    /// What stands before the text of each choice.
    echo: Option<Vec<String>>,
    /// Where the next token of a stream's choice begins, in characters of its text.
    offset: usize,
}

impl Completion<'_> {
    fn object(&self, choices: &[Value]) -> Value {
        json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.service.about().id,
            "system_fingerprint": self.fingerprint,
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

    fn echo(&self, index: usize) -> &str {
        self.echo.as_ref().and_then(|texts| texts.get(index)).map_or("", String::as_str)
    }

    fn piece(&mut self, index: usize, text: &str, tokens: &[Scored], reason: Option<&str>) -> Value {
        let logprobs = probabilities::completion(self.service.tokenizer(), tokens, &mut self.offset);
        self.chunk(&[choice(index, text, &logprobs, reason)], None)
    }
}

fn choice(index: usize, text: &str, logprobs: &Value, finish_reason: Option<&str>) -> Value {
    json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason})
}

impl Format for Completion<'_> {
    fn whole(&self, choices: &[Choice], usage: Usage) -> Value {
        let one = |(index, done): (usize, &Choice)| {
            let logprobs = probabilities::completion(self.service.tokenizer(), &done.tokens, &mut 0);
            let text = format!("{}{}", self.echo(index), done.text);
            choice(index, &text, &logprobs, Some(finish_reason(&done.ending.reason)))
        };
        let choices: Vec<Value> = choices.iter().enumerate().map(one).collect();
        let mut object = self.object(&choices);
        object["usage"] = usage_json(usage);
        object
    }

    fn opening(&mut self, index: usize, events: &mut Events) {
        self.offset = 0;
        if self.echo.is_some() {
            let text = self.echo(index).to_owned();
            events.data(&self.piece(index, &text, &[], None));
        }
    }

    fn text(&mut self, index: usize, text: &str, tokens: &[Scored], events: &mut Events) {
        events.data(&self.piece(index, text, tokens, None));
    }

    fn ending(&mut self, index: usize, done: &Choice, tokens: &[Scored], events: &mut Events) {
        events.data(&self.piece(index, "", tokens, Some(finish_reason(&done.ending.reason))));
    }

    fn closing(&mut self, usage: Usage, events: &mut Events) {
        if self.include_usage {
            events.data(&self.chunk(&[], Some(usage)));
        }
        events.done();
    }

    fn shape(&self) -> String {
        format!("{:?}", self.echo)
    }
}
