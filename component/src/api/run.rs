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
use super::sse::Events;
use super::{Context, Reply};
use crate::error::Error;
use crate::generate::{Ending, Event, Generation, MaxTokens, Reason, Request, Usage};
use crate::logprobs::Logprobs;
use crate::platform::Platform;
use crate::service::Prompt;

/// Choices of one response at most.
pub(super) const MAX_CHOICES: usize = 128;

/// A token and its probability.
#[derive(Debug)]
pub(super) struct Scored {
    pub(super) id: u32,
    pub(super) logprobs: Logprobs,
}

/// A finished choice.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) text: String,
    /// All tokens, if their probabilities are wanted.
    pub(super) tokens: Vec<Scored>,
    pub(super) ending: Ending,
}

/// How an endpoint writes its response. Choices of a stream come one after the other.
pub(super) trait Format {
    /// The whole response; `usage` is that of all choices together.
    fn whole(&self, choices: &[Choice], usage: Usage) -> Value;
    /// What a choice's stream begins with.
    fn opening(&mut self, _index: usize, _events: &mut Events) {}
    /// A piece of a choice's text, with the tokens that are new since the last one, if their probabilities are wanted.
    fn text(&mut self, index: usize, text: &str, tokens: &[Scored], events: &mut Events);
    /// What a choice's stream ends with. `tokens` are those since the last piece of text.
    fn ending(&mut self, index: usize, choice: &Choice, tokens: &[Scored], events: &mut Events);
    /// What the stream ends with.
    fn closing(&mut self, usage: Usage, events: &mut Events);
    /// What the response depends on beside the tokens, as text.
    fn shape(&self) -> String;
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

/// What OpenAI calls the set-up that makes equal requests have equal answers: digests of component and model.
pub(super) fn fingerprint(context: &Context<'_, '_>) -> Result<String, Refusal> {
    let model = context.service()?.digest().map_err(|error| context.report.refusal(error))?;
    Ok(format!("fp_{}_{model:016x}", env!("WAFER_SOURCES")))
}

/// Generations that were checked and not begun, one per choice.
pub(super) struct Started<'s> {
    generations: IntoIter<Generation<'s>>,
    /// Choices per prompt.
    choices: usize,
    /// What the answer depends on, if on nothing else.
    identity: Option<String>,
}

/// Answers with `started`.
pub(super) fn reply<'s>(
    started: Started<'s>,
    format: impl Format + 's,
    stream: bool,
    context: &Context<'_, 's>,
) -> Reply<'s> {
    let Started { generations, choices, identity } = started;
    let identity = identity.map(|identity| identity + &format.shape());
    let run = Run { waiting: generations.enumerate(), choices, current: None, usage: Usage::default() };
    let (format, report) = (Box::new(format), context.report.clone());
    if stream {
        return Reply::Stream(Stream { run, pending: Vec::new(), format, report, over: false });
    }
    Reply::Whole(Whole { run, choices: Vec::new(), format, report, identity })
}

/// Starts the generations of every prompt. The same checks for all endpoints, before anything is computed.
pub(super) fn start<'s>(
    prompts: &[Prompt],
    options: &Options,
    max_tokens: Option<MaxTokens>,
    context: &Context<'_, 's>,
) -> Result<Started<'s>, Refusal> {
    let service = context.service()?;
    let refuse = |error| context.report.refusal(error);
    service.check_model(options.model.as_deref()).map_err(refuse)?;
    let total = prompts.len() * options.choices;
    if total > MAX_CHOICES {
        let message = format!(
            "{} prompts with {} choices each make {total} choices, the limit is {MAX_CHOICES}",
            prompts.len(),
            options.choices
        );
        return Err(Refusal::request(message));
    }
    let random = context.platform().random();
    let mut requests = Vec::with_capacity(total);
    for prompt in prompts {
        let prompt = service.encode(prompt).map_err(refuse)?;
        for _ in 0..options.choices {
            requests.push(Request {
                prompt: prompt.clone(),
                max_tokens,
                sampling: options.sampling(requests.len(), random),
                stop: options.stop.clone(),
                logprobs: options.logprobs,
                digest_logits: false,
            });
        }
    }
    let kept = options.is_deterministic() && !options.stream;
    let identity = kept.then(|| format!("{:?}{:?}", options.cache_salt, anonymous(&requests)));
    let generations: Vec<Generation<'s>> = requests
        .into_iter()
        .map(|request| service.generate(request))
        .collect::<Result<_, _>>()
        .map_err(refuse)?;
    Ok(Started { generations: generations.into_iter(), choices: options.choices, identity })
}

/// The requests without what makes no difference: where nothing is drawn, the seed is any.
fn anonymous(requests: &[Request]) -> Vec<Request> {
    let mut requests = requests.to_vec();
    let greedy = requests.iter_mut().filter(|request| request.sampling.temperature == 0.0);
    greedy.for_each(|request| request.sampling.seed = 0);
    requests
}

/// The choices of a response, computed one after the other.
struct Run<'s> {
    waiting: Enumerate<IntoIter<Generation<'s>>>,
    /// Choices per prompt, which share the KV cache of the prompt.
    choices: usize,
    current: Option<Current<'s>>,
    usage: Usage,
}

/// The choice that a response is at.
struct Current<'s> {
    index: usize,
    generation: Generation<'s>,
    text: String,
    tokens: Vec<Scored>,
    /// Done; kept for its KV cache.
    over: bool,
}

/// What a step of a run came to.
enum Step {
    /// The choice with this index begins.
    Began(usize),
    /// A part of a prompt was computed: tokens done, and in all.
    Prefill(usize, usize),
    /// A token was generated, with this text.
    Token(usize, String, Option<(u32, Logprobs)>),
    /// A choice is finished.
    Finished(usize, Choice),
    /// There is nothing left.
    Over,
}

impl<'s> Run<'s> {
    /// At most one forward pass.
    fn step(&mut self) -> Result<Step, Error> {
        let Some(current) = self.current.as_mut().filter(|current| !current.over) else {
            return Ok(self.turn());
        };
        let index = current.index;
        Ok(match current.generation.next().transpose()? {
            Some(Event::Prefill { done, total }) => Step::Prefill(done, total),
            Some(Event::Token { id, text, logprobs }) => {
                Step::Token(index, text, logprobs.map(|logprobs| (id, logprobs)))
            }
            Some(Event::Finished(ending)) => {
                current.over = true;
                let Usage { prompt_tokens, completion_tokens } = ending.usage;
                self.usage.completion_tokens += completion_tokens;
                if index % self.choices == 0 {
                    self.usage.prompt_tokens += prompt_tokens;
                }
                let (text, tokens) = (std::mem::take(&mut current.text), std::mem::take(&mut current.tokens));
                Step::Finished(index, Choice { text, tokens, ending })
            }
            None => return Err(Error::Backend("a generation ended without saying why".into())),
        })
    }

    /// Goes on to the next choice.
    fn turn(&mut self) -> Step {
        let before = self.current.take();
        let Some((index, mut generation)) = self.waiting.next() else { return Step::Over };
        if let Some(mut before) = before {
            generation.take_over(&mut before.generation);
        }
        if self.choices > 1 {
            generation.keep_cache();
        }
        let (text, tokens) = (String::new(), Vec::new());
        self.current = Some(Current { index, generation, text, tokens, over: false });
        Step::Began(index)
    }

    /// The generation that the next step works at.
    fn generation(&mut self) -> Option<&mut Generation<'s>> {
        self.current.as_mut().filter(|current| !current.over).map(|current| &mut current.generation)
    }
}

/// A response that is computed before its first byte is sent. Dropping it cancels what is left.
pub struct Whole<'s> {
    run: Run<'s>,
    choices: Vec<Choice>,
    format: Box<dyn Format + 's>,
    report: Report<'s>,
    identity: Option<String>,
}

impl<'s> Whole<'s> {
    /// One step: at most one forward pass. The response, if it was the last.
    pub fn step(&mut self) -> Option<Response<Vec<u8>>> {
        match self.run.step() {
            Ok(Step::Began(_) | Step::Prefill(..)) => None,
            Ok(Step::Token(_, text, scored)) => {
                let current = self.run.current.as_mut()?;
                current.text.push_str(&text);
                current.tokens.extend(scored.map(|(id, logprobs)| Scored { id, logprobs }));
                None
            }
            Ok(Step::Finished(_, choice)) => {
                self.choices.push(choice);
                None
            }
            Ok(Step::Over) => {
                Some(super::response(StatusCode::OK, &self.format.whole(&self.choices, self.run.usage)))
            }
            Err(error) => Some(self.report.refusal(error).response()),
        }
    }

    /// What decides the answer beside the model and the endpoint, as text; none if it is drawn at random.
    pub fn identity(&self) -> Option<String> {
        self.identity.clone()
    }

    /// The generation that the next step works at.
    pub fn generation(&mut self) -> Option<&mut Generation<'s>> {
        self.run.generation()
    }

    pub(super) fn platform(&self) -> &'s dyn Platform {
        self.report.platform
    }
}

/// A response as server-sent events. Dropping it cancels what is left.
pub struct Stream<'s> {
    run: Run<'s>,
    /// Tokens since the last piece of text.
    pending: Vec<Scored>,
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
        let mut events = Events::default();
        match self.run.step() {
            Ok(Step::Began(index)) => self.format.opening(index, &mut events),
            Ok(Step::Prefill(done, total)) => events.comment(&format!("prefill {done}/{total}")),
            Ok(Step::Token(index, text, scored)) => {
                self.pending.extend(scored.map(|(id, logprobs)| Scored { id, logprobs }));
                if !text.is_empty() {
                    if let Some(current) = &mut self.run.current {
                        current.text.push_str(&text);
                    }
                    self.format.text(index, &text, &std::mem::take(&mut self.pending), &mut events);
                }
            }
            Ok(Step::Finished(index, choice)) => {
                self.format.ending(index, &choice, &std::mem::take(&mut self.pending), &mut events);
            }
            Ok(Step::Over) => {
                self.over = true;
                self.format.closing(self.run.usage, &mut events);
            }
            Err(error) => {
                self.over = true;
                events.error(&self.report.refusal(error).body());
            }
        }
        Some(events.into_bytes())
    }

    /// The generation that the next step works at.
    pub fn generation(&mut self) -> Option<&mut Generation<'s>> {
        self.run.generation()
    }

    pub(super) fn platform(&self) -> &'s dyn Platform {
        self.report.platform
    }
}
