//! From a generation to a response: whole, or as server-sent events.
//!
//! Endpoints differ only in how they write things down, which is their [`Format`]. A response with several
//! choices (one per prompt) computes one after the other.

use std::iter::Enumerate;
use std::vec::IntoIter;

use serde_json::{Value, json};

use super::error::{Refusal, Report};
use super::options::Options;
use super::{Context, Reply, sse};
use crate::error::Error;
use crate::generate::{Ending, Event, Generation, MaxTokens, Reason, Request, Usage};
use crate::platform::Platform;
use crate::service::Prompt;

/// A finished choice.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) text: String,
    pub(super) ending: Ending,
}

/// How an endpoint writes its response.
pub(super) trait Format {
    /// The whole response; `usage` is that of all choices together.
    fn whole(&self, choices: &[Choice], usage: Usage) -> Value;
    /// What a choice's stream begins with.
    fn opening(&self, _index: usize) -> Option<Value> {
        None
    }
    /// A piece of a choice's text.
    fn text(&self, index: usize, text: &str) -> Value;
    /// What a choice's stream ends with.
    fn ending(&self, index: usize, choice: &Choice) -> Value;
    /// What the stream ends with.
    fn closing(&self, _usage: Usage) -> Option<Value> {
        None
    }
}

/// OpenAI's words for why a generation ended.
pub(super) fn finish_reason(reason: &Reason) -> &'static str {
    match reason {
        Reason::End | Reason::Stop(_) => "stop",
        Reason::MaxTokens | Reason::Context => "length",
    }
}

/// OpenAI's usage object.
pub(super) fn usage_json(usage: Usage) -> Value {
    let Usage { prompt_tokens, completion_tokens } = usage;
    json!({
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    })
}

/// Answers with `generations`, one per choice.
pub(super) fn reply<'s>(
    generations: Vec<Generation<'s>>,
    format: impl Format + 's,
    stream: bool,
    context: &Context<'_, 's>,
) -> Result<Reply<'s>, Refusal> {
    if stream {
        let events = Stream {
            waiting: generations.into_iter().enumerate(),
            current: None,
            usage: Usage::default(),
            format: Box::new(format),
            report: context.report.clone(),
            over: false,
        };
        return Ok(Reply::Stream(Box::new(events)));
    }
    let mut choices = Vec::new();
    for generation in generations {
        choices
            .push(complete(generation, context.platform()).map_err(|error| context.report.refusal(error))?);
    }
    let usage = choices.iter().fold(Usage::default(), |usage, choice| sum(usage, choice.ending.usage));
    Ok(super::json(&format.whole(&choices, usage)))
}

/// Starts one generation per prompt. The same checks for all endpoints, before anything is computed.
pub(super) fn start<'s>(
    prompts: &[Prompt],
    options: &Options,
    max_tokens: Option<MaxTokens>,
    context: &Context<'_, 's>,
) -> Result<Vec<Generation<'s>>, Refusal> {
    let service = context.service()?;
    let refuse = |error| context.report.refusal(error);
    service.check_model(options.model.as_deref()).map_err(refuse)?;
    let random = context.platform().random();
    let one = |(index, prompt): (usize, &Prompt)| {
        service.generate(Request {
            prompt: service.encode(prompt)?,
            max_tokens,
            sampling: options.sampling(index, random),
            stop: options.stop.clone(),
            digest_logits: false,
        })
    };
    prompts.iter().enumerate().map(one).collect::<Result<_, _>>().map_err(refuse)
}

/// Computes a choice to its end.
fn complete(generation: Generation<'_>, platform: &dyn Platform) -> Result<Choice, Error> {
    let mut text = String::new();
    for event in generation {
        match event? {
            Event::Prefill { .. } => {}
            Event::Token { text: released, .. } => text.push_str(&released),
            Event::Finished(ending) => return Ok(Choice { text, ending }),
        }
        platform.pause();
    }
    Err(Error::Backend("a generation ended without saying why".into()))
}

fn sum(a: Usage, b: Usage) -> Usage {
    Usage {
        prompt_tokens: a.prompt_tokens + b.prompt_tokens,
        completion_tokens: a.completion_tokens + b.completion_tokens,
    }
}

/// The choice that a stream is at.
struct Current<'s> {
    index: usize,
    generation: Generation<'s>,
    text: String,
}

/// A response as server-sent events, computed as it is read. Dropping it cancels what is left.
struct Stream<'s> {
    waiting: Enumerate<IntoIter<Generation<'s>>>,
    current: Option<Current<'s>>,
    usage: Usage,
    format: Box<dyn Format + 's>,
    report: Report<'s>,
    over: bool,
}

impl Stream<'_> {
    /// One step of the current choice, as bytes; empty if it released no text.
    fn step(&mut self) -> Vec<u8> {
        let Some(current) = &mut self.current else { return self.turn() };
        self.report.platform.pause();
        match current.generation.next() {
            Some(Ok(Event::Prefill { done, total })) => sse::comment(&format!("prefill {done}/{total}")),
            Some(Ok(Event::Token { text, .. })) if text.is_empty() => Vec::new(),
            Some(Ok(Event::Token { text, .. })) => {
                current.text.push_str(&text);
                sse::data(&self.format.text(current.index, &text))
            }
            Some(Ok(Event::Finished(ending))) => {
                self.usage = sum(self.usage, ending.usage);
                let choice = Choice { text: std::mem::take(&mut current.text), ending };
                sse::data(&self.format.ending(current.index, &choice))
            }
            Some(Err(error)) => {
                self.over = true;
                sse::error(&self.report.refusal(error).body())
            }
            None => self.turn(),
        }
    }

    /// Goes on to the next choice, or to the end.
    fn turn(&mut self) -> Vec<u8> {
        if let Some((index, generation)) = self.waiting.next() {
            self.current = Some(Current { index, generation, text: String::new() });
            return self.format.opening(index).map(|opening| sse::data(&opening)).unwrap_or_default();
        }
        self.over = true;
        let closing = self.format.closing(self.usage);
        let mut bytes = closing.map(|closing| sse::data(&closing)).unwrap_or_default();
        bytes.extend_from_slice(sse::DONE);
        bytes
    }
}

impl Iterator for Stream<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.over {
            let bytes = self.step();
            if !bytes.is_empty() {
                return Some(bytes);
            }
        }
        None
    }
}
