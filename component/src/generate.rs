//! The decoding loop: an iterator of events.
//!
//! It does no I/O and knows nothing of HTTP or WASI. Every step of [`Generation::next`] is one forward pass:
//! a chunk of the prompt, or one token. Between two steps the caller may write, yield to others, or drop the
//! generation, which cancels it and frees its KV cache. Prompt and output are counted apart and never mixed.

use xxhash_rust::xxh3::Xxh3;

use crate::backend::{Backend, Sequence};
use crate::error::{Error, Result};
use crate::logprobs::Logprobs;
use crate::sampler::{Sampler, Sampling};
use crate::text::{Gate, Released};
use crate::tokenizer::Tokenizer;

/// Prompt tokens per forward pass: enough for a matrix product to pay, few enough to be interrupted often.
pub const CHUNK: usize = 128;
/// Stop strings of one request at most.
pub const MAX_STOPS: usize = 16;
/// Bytes of one stop string at most.
pub const MAX_STOP_BYTES: usize = 256;

/// What to continue, and how.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Token ids, with BOS where the model wants one.
    pub prompt: Vec<u32>,
    /// How long the output may become; none is until the context's end.
    pub max_tokens: Option<MaxTokens>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The text ends before the first of these to be completed.
    pub stop: Vec<String>,
    /// Whether every token comes with its probability, and with how many of the most likely ones.
    pub logprobs: Option<usize>,
    /// Whether [`Ending::logits_digest`] is wanted.
    pub digest_logits: bool,
}

/// A limit to the output's length.
#[derive(Debug, Clone, Copy)]
pub struct MaxTokens {
    /// What the caller calls it, for errors.
    pub name: &'static str,
    /// The number of tokens.
    pub tokens: u64,
    /// Whether the prompt's tokens count too.
    pub with_prompt: bool,
    /// Whether a limit beyond the context's end is refused, or means the context's end.
    pub strict: bool,
}

/// What a step of a generation yields.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A part of the prompt was computed, but not all of it yet.
    Prefill {
        /// Prompt tokens computed.
        done: usize,
        /// Prompt tokens in all.
        total: usize,
    },
    /// A token was generated.
    Token {
        /// Its id.
        id: u32,
        /// The text it made certain, see [`Gate`]; empty while that is held back.
        text: String,
        /// How likely it was, where that is wanted.
        logprobs: Option<Logprobs>,
    },
    /// The last event.
    Finished(Ending),
}

/// How a generation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// Why.
    pub reason: Reason,
    /// Tokens used.
    pub usage: Usage,
    /// XXH3 (64 bits) of all logits that tokens were chosen from, in order, each as four bytes, the lowest first. It
    /// tells whether two generations were equal to the last bit; on one engine they have to be, wherever it runs.
    pub logits_digest: Option<u64>,
}

/// Why a generation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The model generated a token that ends its text.
    End,
    /// A stop string was completed: this one. It is not part of the text.
    Stop(String),
    /// As many tokens were generated as the caller allows.
    MaxTokens,
    /// The context is full.
    Context,
}

/// Tokens used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt, with BOS and those of the chat template.
    pub prompt_tokens: usize,
    /// Tokens generated: every one that the model computed, with the one that ended the text and those of a
    /// stop string.
    pub completion_tokens: usize,
}

/// A running generation.
pub struct Generation<'m> {
    backend: &'m dyn Backend,
    tokenizer: &'m Tokenizer,
    /// None before the first step and after the last: an unused generation costs no KV cache.
    sequence: Option<Box<dyn Sequence + 'm>>,
    prompt: Vec<u32>,
    /// Prompt tokens computed.
    prefilled: usize,
    /// The newest token, which is not in the KV cache yet.
    last: Option<u32>,
    generated: usize,
    /// The output is a text of its own and has not begun yet.
    opening: bool,
    limit: usize,
    /// What it means to reach `limit`.
    limit_reason: Reason,
    stop: Vec<String>,
    gate: Gate,
    sampler: Sampler,
    logprobs: Option<usize>,
    /// The digest so far, where one is wanted.
    digest: Option<Box<Xxh3>>,
    /// Whether the KV cache outlives the last token, see [`keep_cache`](Self::keep_cache).
    keeps: bool,
    state: State,
}

enum State {
    Running,
    Ended(Ending),
    Over,
}

impl<'m> Generation<'m> {
    /// Checks the request; nothing is computed yet.
    ///
    /// # Errors
    /// [`Error::Parameter`] naming the first value that is outside its limits.
    pub fn new(backend: &'m dyn Backend, tokenizer: &'m Tokenizer, request: Request) -> Result<Self> {
        let Request { prompt, max_tokens, sampling, stop, logprobs, digest_logits } = request;
        sampling.check(backend.vocabulary_size())?;
        check_stop(&stop)?;
        check_prompt(&prompt, backend)?;
        let (limit, limit_reason) = limit(prompt.len(), backend.context_length(), max_tokens)?;
        let sampler = Sampler::new(sampling, &prompt);
        let gate = Gate::new(stop.clone());
        Ok(Self {
            backend,
            tokenizer,
            sequence: None,
            prompt,
            prefilled: 0,
            last: None,
            generated: 0,
            opening: !backend.is_continuation(),
            limit,
            limit_reason,
            stop,
            gate,
            sampler,
            logprobs,
            digest: digest_logits.then(Box::default),
            keeps: false,
            state: State::Running,
        })
    }

    /// Tokens used so far.
    pub fn usage(&self) -> Usage {
        Usage { prompt_tokens: self.prompt.len(), completion_tokens: self.generated }
    }

    /// Keeps the KV cache when the last token was generated, so that another generation can
    /// [`take it over`](Self::take_over).
    pub fn keep_cache(&mut self) {
        self.keeps = true;
    }

    /// Goes on from the KV cache of `other`, if that has the same prompt, which need not be computed again then.
    pub fn take_over(&mut self, other: &mut Self) {
        let Some(mut sequence) = other.sequence.take().filter(|_| other.prompt == self.prompt) else {
            return;
        };
        // The prompt's last token is computed anew: its logits are wanted.
        sequence.truncate(self.prompt.len().saturating_sub(1));
        self.prefilled = sequence.position();
        self.sequence = Some(sequence);
    }

    /// Says what the next step computes, so that [`pass`](Self::pass) can do it together with the steps of other
    /// generations. After the end it does nothing.
    pub fn announce(&mut self) {
        if !matches!(self.state, State::Running) {
            return;
        }
        // If a sequence cannot be started, the step will say why.
        if let Ok(sequence) = started(&mut self.sequence, self.backend, &self.prompt, &mut self.prefilled) {
            let (input, outputs) = input(self.last.as_ref(), &self.prompt, self.prefilled);
            sequence.announce(input, outputs);
        }
    }

    /// False while passes have something left to compute of the step that was announced.
    pub fn is_computed(&self) -> bool {
        self.sequence.as_ref().is_none_or(|sequence| sequence.is_computed())
    }

    /// Computes the announced steps of this and other generations, or parts of them, in one forward pass.
    pub fn pass(&self) {
        self.backend.pass();
    }

    /// One forward pass, and what follows from it.
    fn step(&mut self) -> Result<(Event, Option<Reason>)> {
        let sequence = started(&mut self.sequence, self.backend, &self.prompt, &mut self.prefilled)?;
        let (input, outputs) = input(self.last.as_ref(), &self.prompt, self.prefilled);
        if outputs == 0 {
            sequence.forward(input, 0)?;
            self.prefilled += input.len();
            return Ok((Event::Prefill { done: self.prefilled, total: self.prompt.len() }, None));
        }
        let logits = sequence.forward(input, outputs)?;
        if let Some(digest) = &mut self.digest {
            logits.iter().for_each(|logit| digest.update(&logit.to_le_bytes()));
        }
        let id = self.sampler.sample(logits)?;
        let logprobs = self.logprobs.map(|top| Logprobs::new(logits, id, top));
        self.last = Some(id);
        self.generated += 1;
        let (text, reason) = self.release(id);
        Ok((Event::Token { id, text, logprobs }, reason))
    }

    /// The text that a new token makes certain, and why it is the last one, if it is.
    fn release(&mut self, id: u32) -> (String, Option<Reason>) {
        let end = self.tokenizer.is_end(id);
        let mut reason = end.then_some(Reason::End);
        let mut bytes = self.tokenizer.bytes(id);
        if self.opening && !bytes.is_empty() {
            // The space that separates a word from the one before belongs to no text's beginning.
            bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
            self.opening = false;
        }
        let mut released = if end { Released::default() } else { self.gate.push(bytes) };
        if reason.is_none() && self.generated == self.limit {
            reason = Some(self.limit_reason.clone());
        }
        if reason.is_some() && released.stop.is_none() {
            let rest = self.gate.finish();
            released.text.push_str(&rest.text);
            released.stop = rest.stop;
        }
        let stop = released.stop.and_then(|index| self.stop.get(index).cloned());
        (released.text, stop.map(Reason::Stop).or(reason))
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Event>;

    /// The next event; none after [`Event::Finished`] and after an error.
    fn next(&mut self) -> Option<Self::Item> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Running => {
                let step = self.step();
                match &step {
                    Ok((_, None)) => self.state = State::Running,
                    Ok((_, Some(reason))) => {
                        self.state = State::Ended(Ending {
                            reason: reason.clone(),
                            usage: self.usage(),
                            logits_digest: self.digest.take().map(|digest| digest.digest()),
                        });
                        if !self.keeps {
                            self.sequence = None;
                        }
                    }
                    Err(_) => self.sequence = None,
                }
                Some(step.map(|(event, _)| event))
            }
            State::Ended(ending) => Some(Ok(Event::Finished(ending))),
            State::Over => None,
        }
    }
}

/// The sequence of a generation, which its first step starts.
fn started<'s, 'm>(
    sequence: &'s mut Option<Box<dyn Sequence + 'm>>,
    backend: &'m dyn Backend,
    prompt: &[u32],
    prefilled: &mut usize,
) -> Result<&'s mut Box<dyn Sequence + 'm>> {
    match sequence {
        Some(sequence) => Ok(sequence),
        none => {
            let sequence = none.insert(backend.start(prompt)?);
            *prefilled = sequence.position();
            Ok(sequence)
        }
    }
}

/// What the next forward pass computes, and how many of its last tokens want logits: the newest token, or a
/// chunk of the prompt.
fn input<'i>(last: Option<&'i u32>, prompt: &'i [u32], prefilled: usize) -> (&'i [u32], usize) {
    match (last, &prompt[prefilled..]) {
        (Some(last), _) => (std::slice::from_ref(last), 1),
        (None, rest) if rest.len() > CHUNK => (&rest[..CHUNK], 0),
        (None, rest) => (rest, 1),
    }
}

fn check_stop(stop: &[String]) -> Result<()> {
    if stop.len() > MAX_STOPS {
        let text = format!("stop has {} strings, the limit is {MAX_STOPS}", stop.len());
        return Err(Error::parameter("stop", text));
    }
    match stop.iter().map(String::len).find(|length| !(1..=MAX_STOP_BYTES).contains(length)) {
        Some(length) => {
            let text = format!("stop has a string of {length} bytes, limits are 1 and {MAX_STOP_BYTES}");
            Err(Error::parameter("stop", text))
        }
        None => Ok(()),
    }
}

fn check_prompt(prompt: &[u32], backend: &dyn Backend) -> Result<()> {
    let (vocabulary, context) = (backend.vocabulary_size(), backend.context_length());
    if prompt.is_empty() {
        return Err(Error::parameter("prompt", "prompt is empty"));
    }
    if prompt.len() >= context {
        let room = if prompt.len() == context { ", which leaves no room for output" } else { "" };
        let text = format!("prompt is {} tokens, model limit is {context}{room}", prompt.len());
        return Err(Error::parameter("prompt", text));
    }
    match prompt.iter().find(|&&id| id as usize >= vocabulary) {
        Some(id) => {
            let text = format!("prompt has token {id}, the vocabulary has {vocabulary} tokens");
            Err(Error::parameter("prompt", text))
        }
        None => Ok(()),
    }
}

/// New tokens at most, and what it means to reach them. The prompt is shorter than the context.
fn limit(prompt: usize, context: usize, max: Option<MaxTokens>) -> Result<(usize, Reason)> {
    let room = context - prompt;
    let Some(MaxTokens { name, tokens, with_prompt, strict }) = max else {
        return Ok((room, Reason::Context));
    };
    let refuse = |text: String| Err(Error::parameter(name, text));
    if tokens == 0 {
        return refuse(format!("{name} is 0, it must be at least 1"));
    }
    let new = if with_prompt { tokens.saturating_sub(prompt as u64) } else { tokens };
    if new == 0 {
        return refuse(format!("{name} {tokens} leaves no room after a prompt of {prompt} tokens"));
    }
    match usize::try_from(new) {
        Ok(new) if new <= room => Ok((new, Reason::MaxTokens)),
        _ if strict => {
            let with = if with_prompt { String::new() } else { format!(" with a prompt of {prompt} tokens") };
            refuse(format!("{name} {tokens}{with} exceeds the context of {context} tokens"))
        }
        _ => Ok((room, Reason::Context)),
    }
}

#[cfg(test)]
mod tests;
