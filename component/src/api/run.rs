//! From a generation to a response: whole, or as server-sent events.
//!
//! Endpoints differ only in how they write things down, which is their [`Format`]. A response with several
//! choices (one per prompt) computes one after the other. Responses advance by steps, so that whoever takes
//! them may do other things between two, see `turn`.

use std::iter::Enumerate;
use std::vec::IntoIter;

use http::{HeaderValue, Response, StatusCode, header};
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

/// Generations that were checked and not begun, one per choice.
pub(super) struct Started<'s> {
    generations: IntoIter<Generation<'s>>,
    /// What the answer depends on, if on nothing else.
    requests: Option<Vec<Request>>,
}

/// Answers with `started`.
pub(super) fn reply<'s>(
    started: Started<'s>,
    format: impl Format + 's,
    stream: bool,
    context: &Context<'_, 's>,
) -> Reply<'s> {
    let Started { generations, requests } = started;
    let (format, report) = (Box::new(format), context.report.clone());
    if stream {
        let waiting = generations.enumerate();
        let usage = Usage::default();
        return Reply::Stream(Stream { waiting, current: None, usage, format, report, over: false });
    }
    let choices = Vec::new();
    Reply::Whole(Whole { waiting: generations, current: None, choices, format, report, requests })
}

/// Starts one generation per prompt. The same checks for all endpoints, before anything is computed.
pub(super) fn start<'s>(
    prompts: &[Prompt],
    options: &Options,
    max_tokens: Option<MaxTokens>,
    context: &Context<'_, 's>,
) -> Result<Started<'s>, Refusal> {
    let service = context.service()?;
    let refuse = |error| context.report.refusal(error);
    service.check_model(options.model.as_deref()).map_err(refuse)?;
    let random = context.platform().random();
    let one = |(index, prompt): (usize, &Prompt)| {
        Ok(Request {
            prompt: service.encode(prompt)?,
            max_tokens,
            sampling: options.sampling(index, random),
            stop: options.stop.clone(),
            digest_logits: false,
        })
    };
    let requests: Vec<Request> =
        prompts.iter().enumerate().map(one).collect::<Result<_, Error>>().map_err(refuse)?;
    let kept = (options.is_deterministic() && !options.stream).then(|| requests.clone());
    let generations: Vec<Generation<'s>> = requests
        .into_iter()
        .map(|request| service.generate(request))
        .collect::<Result<_, _>>()
        .map_err(refuse)?;
    Ok(Started { generations: generations.into_iter(), requests: kept })
}

fn sum(a: Usage, b: Usage) -> Usage {
    Usage {
        prompt_tokens: a.prompt_tokens + b.prompt_tokens,
        completion_tokens: a.completion_tokens + b.completion_tokens,
    }
}

/// The choice that an answer is at.
struct Current<'s> {
    index: usize,
    generation: Generation<'s>,
    text: String,
}

/// A response that is computed before its first byte is sent. Dropping it cancels what is left.
pub struct Whole<'s> {
    waiting: IntoIter<Generation<'s>>,
    current: Option<Current<'s>>,
    choices: Vec<Choice>,
    format: Box<dyn Format + 's>,
    report: Report<'s>,
    requests: Option<Vec<Request>>,
}

impl<'s> Whole<'s> {
    /// One step: at most one forward pass. The response, if it was the last.
    pub fn step(&mut self) -> Option<Response<Vec<u8>>> {
        let Some(current) = &mut self.current else {
            let generation = self.waiting.next();
            let Some(generation) = generation else { return Some(self.response()) };
            self.current = Some(Current { index: self.choices.len(), generation, text: String::new() });
            return None;
        };
        let failed = |error| Some(self.report.refusal(error).response());
        match current.generation.next() {
            Some(Ok(Event::Prefill { .. })) => None,
            Some(Ok(Event::Token { text, .. })) => {
                current.text.push_str(&text);
                None
            }
            Some(Ok(Event::Finished(ending))) => {
                self.choices.push(Choice { text: std::mem::take(&mut current.text), ending });
                self.current = None;
                None
            }
            Some(Err(error)) => failed(error),
            None => failed(Error::Backend("a generation ended without saying why".into())),
        }
    }

    /// What decides the answer beside the model and the endpoint, as text; none if it is drawn at random.
    pub fn identity(&self) -> Option<String> {
        let mut requests = self.requests.clone()?;
        // Without a temperature nothing is drawn, and the seed is any.
        let greedy = requests.iter_mut().filter(|request| request.sampling.temperature == 0.0);
        greedy.for_each(|request| request.sampling.seed = 0);
        Some(format!("{requests:?}"))
    }

    /// The generation that the next step works at.
    pub fn generation(&mut self) -> Option<&mut Generation<'s>> {
        self.current.as_mut().map(|current| &mut current.generation)
    }

    pub(super) fn platform(&self) -> &'s dyn Platform {
        self.report.platform
    }

    fn response(&self) -> Response<Vec<u8>> {
        let add = |usage, choice: &Choice| sum(usage, choice.ending.usage);
        let usage = self.choices.iter().fold(Usage::default(), add);
        super::response(StatusCode::OK, &self.format.whole(&self.choices, usage))
    }
}

/// A response as server-sent events. Dropping it cancels what is left.
pub struct Stream<'s> {
    waiting: Enumerate<IntoIter<Generation<'s>>>,
    current: Option<Current<'s>>,
    usage: Usage,
    format: Box<dyn Format + 's>,
    report: Report<'s>,
    over: bool,
}

impl<'s> Stream<'s> {
    /// The response's head.
    pub fn head() -> Response<()> {
        let mut head = Response::new(());
        let headers = head.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        head
    }

    /// One step: at most one forward pass. A piece of the body, empty if the step released no text; none after the
    /// end.
    pub fn step(&mut self) -> Option<Vec<u8>> {
        if self.over {
            return None;
        }
        let Some(current) = &mut self.current else { return Some(self.turn()) };
        Some(match current.generation.next() {
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
        })
    }

    /// The generation that the next step works at.
    pub fn generation(&mut self) -> Option<&mut Generation<'s>> {
        self.current.as_mut().map(|current| &mut current.generation)
    }

    pub(super) fn platform(&self) -> &'s dyn Platform {
        self.report.platform
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
