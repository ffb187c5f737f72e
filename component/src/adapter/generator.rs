//! `wafer:inference/generator`: the decoding loop as a typed resource, for components composed with this one.

use std::cell::RefCell;

use super::bindings::exports::wafer::inference::generator::{
    Ending, Error, Event, FinishReason, Generation as GenerationHandle, Guest, GuestGeneration, ModelInfo,
    Options, Progress, Prompt, Token, Usage,
};
use super::{Adapter, Wasi, service};
use crate::generate::{self, MaxTokens, Reason, Request};
use crate::platform::Platform;
use crate::preset::Preset;
use crate::sampler::Sampling;
use crate::service;
use crate::template::Message;

/// A running generation; none after it was cancelled.
pub struct Generation(RefCell<Option<generate::Generation<'static>>>);

impl Guest for Adapter {
    type Generation = Generation;

    fn model() -> Result<ModelInfo, Error> {
        let service = service()?;
        Ok(ModelInfo {
            id: service.about().id.clone(),
            architecture: service.about().architecture.clone(),
            context_length: count(service.context_length()),
            vocabulary_size: count(service.vocabulary_size()),
        })
    }

    fn probe() -> Result<(), Error> {
        Ok(service()?.probe()?)
    }

    fn tokenize(text: String, special: bool) -> Result<Vec<u32>, Error> {
        Ok(service()?.tokenizer().encode(&text, special, true)?)
    }

    fn detokenize(tokens: Vec<u32>) -> Result<String, Error> {
        Ok(service()?.tokenizer().decode(&tokens))
    }
}

impl GuestGeneration for Generation {
    fn start(prompt: Prompt, options: Options) -> Result<GenerationHandle, Error> {
        let service = service()?;
        let prompt = match prompt {
            Prompt::Text(text) => service::Prompt::Text(text),
            Prompt::Chat(messages) => {
                let message = |message: super::bindings::exports::wafer::inference::generator::Message| {
                    Message { role: message.role, content: Some(message.content), ..Message::default() }
                };
                service::Prompt::Chat(messages.into_iter().map(message).collect(), serde_json::Map::new())
            }
            Prompt::Tokens(tokens) => service::Prompt::Tokens(tokens),
        };
        let request = Request { prompt: service.encode(&prompt)?, ..request(options, service.preset()) };
        let generation = service.generate(request)?;
        Ok(GenerationHandle::new(Generation(RefCell::new(Some(generation)))))
    }

    fn next(&self) -> Result<Option<Event>, Error> {
        let mut generation = self.0.borrow_mut();
        let Some(generation) = generation.as_mut() else { return Ok(None) };
        Ok(generation.next().transpose()?.map(Event::from))
    }

    fn cancel(&self) {
        self.0.take();
    }
}

/// The request without its prompt.
fn request(options: Options, preset: &Preset) -> Request {
    let default = &preset.sampling;
    let limit = |tokens| MaxTokens { name: "max-tokens", tokens, with_prompt: false, strict: true };
    let preset_limit = preset.max_tokens.map(|tokens| MaxTokens { strict: false, ..limit(tokens) });
    Request {
        prompt: Vec::new(),
        max_tokens: options.max_tokens.map(u64::from).map(limit).or(preset_limit),
        sampling: Sampling {
            temperature: options.temperature.unwrap_or(default.temperature),
            top_k: options.top_k.unwrap_or(default.top_k),
            top_p: options.top_p.unwrap_or(default.top_p),
            min_p: options.min_p.unwrap_or(default.min_p),
            repetition_penalty: options.repetition_penalty.unwrap_or(default.repetition_penalty),
            presence_penalty: options.presence_penalty.unwrap_or(default.presence_penalty),
            frequency_penalty: options.frequency_penalty.unwrap_or(default.frequency_penalty),
            logit_bias: options.logit_bias,
            seed: options.seed.unwrap_or_else(|| Wasi.random()),
        },
        stop: options.stop,
        logprobs: None,
        digest_logits: options.digest_logits,
    }
}

impl From<generate::Event> for Event {
    fn from(event: generate::Event) -> Self {
        match event {
            generate::Event::Prefill { done, total } => {
                Self::Prefill(Progress { done: count(done), total: count(total) })
            }
            generate::Event::Token { id, text, .. } => Self::Token(Token { id, text }),
            generate::Event::Finished(ending) => Self::Finished(Ending {
                reason: match ending.reason {
                    Reason::End | Reason::Stop(_) => FinishReason::Stop,
                    Reason::MaxTokens | Reason::Context => FinishReason::Length,
                },
                usage: Usage {
                    prompt_tokens: count(ending.usage.prompt_tokens),
                    completion_tokens: count(ending.usage.completion_tokens),
                },
                logits_digest: ending.logits_digest,
            }),
        }
    }
}

/// A number of tokens in the API's width, which is that of addresses on WebAssembly.
fn count(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}
