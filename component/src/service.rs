//! A loaded model with all that serves it: tokenizer, template, backend or encoder.
//!
//! Built once and never changed; every request works on what it borrows from here. How to reach it (a static,
//! a snapshot) and how to speak to it (HTTP, WIT) is for the adapters.

mod decoder;
mod encode;
mod load;
mod system;

pub use encode::{Classification, Embedding, Input, TooLong};

use std::cell::OnceCell;

use serde_json::{Map, Value};
use xxhash_rust::xxh3::Xxh3;

use crate::backend::Backend;
use crate::encoder::Encoder;
use crate::error::{Error, Result};
use crate::generate::{Event, Generation, MaxTokens, Request};
use crate::preset::Preset;
use crate::template::{Message, Template};
use crate::tokenizer::Tokenizer;

/// What to continue.
#[derive(Debug, Clone)]
pub enum Prompt {
    /// Text; names of special tokens in it become those tokens.
    Text(String),
    /// A conversation, and the template's own arguments.
    Chat(Vec<Message>, Map<String, Value>),
    /// Token ids, used as they are.
    Tokens(Vec<u32>),
}

/// What is told about a model.
#[derive(Debug, Clone)]
pub struct About {
    /// The id that requests name it by.
    pub id: String,
    /// The architecture as GGUF spells it.
    pub architecture: String,
    /// When its file was written, in seconds since 1970; 0 if that is not known.
    pub created: u64,
}

/// What computes.
enum Model {
    /// Tokens in, logits out.
    Generator(Box<dyn Backend>),
    /// A text in, a vector or labels out.
    #[cfg_attr(not(feature = "candle"), expect(dead_code, reason = "candle is what makes encoders"))]
    Encoder(Box<dyn Encoder>),
}

/// A loaded model.
pub struct Service {
    about: About,
    tokenizer: Tokenizer,
    template: Template,
    model: Model,
    preset: Preset,
    /// What takes the place of `preset`, where an instance is set up anew.
    overruled: OnceCell<Preset>,
    /// See [`digest`](Self::digest).
    digest: OnceCell<u64>,
}

impl Service {
    /// Puts a service together that generates text.
    ///
    /// # Errors
    /// [`Error::Model`] if the tokenizer has tokens that the backend does not know.
    pub fn new(
        about: About,
        tokenizer: Tokenizer,
        template: Template,
        backend: Box<dyn Backend>,
    ) -> Result<Self> {
        Self::assemble(about, tokenizer, template, Model::Generator(backend))
    }

    fn assemble(about: About, tokenizer: Tokenizer, template: Template, model: Model) -> Result<Self> {
        let (preset, overruled, digest) = (Preset::default(), OnceCell::new(), OnceCell::new());
        let service = Self { about, tokenizer, template, model, preset, overruled, digest };
        let (tokens, known) = (service.tokenizer.vocabulary_size(), service.vocabulary_size());
        if tokens > known {
            return Err(Error::Model(format!("the tokenizer has {tokens} tokens, the model only {known}")));
        }
        Ok(service)
    }

    /// The same without the date of its file.
    #[must_use]
    pub fn undated(mut self) -> Self {
        self.about.created = 0;
        self
    }

    /// What requests get that do not say otherwise.
    pub fn preset(&self) -> &Preset {
        self.overruled.get().unwrap_or(&self.preset)
    }

    /// Replaces defaults by others, a list like `temperature=0.7,max_tokens=200`; only the first call counts.
    ///
    /// # Errors
    /// As [`Preset::new`].
    pub fn overrule(&self, defaults: &str) -> Result<()> {
        if self.overruled.get().is_none() {
            // Set by now only if parsing asked for the preset, which it does not.
            let _ = self.overruled.set(self.preset.clone().with(defaults)?);
        }
        Ok(())
    }

    /// What is told about the model.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Number of token ids.
    pub fn vocabulary_size(&self) -> usize {
        match &self.model {
            Model::Generator(backend) => backend.vocabulary_size(),
            Model::Encoder(encoder) => encoder.vocabulary_size(),
        }
    }

    /// Tokens at most: prompt and output together, or those of one text for an encoder.
    pub fn context_length(&self) -> usize {
        match &self.model {
            Model::Generator(backend) => backend.context_length(),
            Model::Encoder(encoder) => encoder.context_length(),
        }
    }

    /// The backend of a model that generates text.
    fn backend(&self) -> Result<&dyn Backend> {
        match &self.model {
            Model::Generator(backend) => Ok(backend.as_ref()),
            Model::Encoder(encoder) => {
                let (architecture, makes) = (&self.about.architecture, encoder.task());
                Err(Error::Invalid(format!(
                    "architecture {architecture} makes {makes}, it generates no text"
                )))
            }
        }
    }

    /// Checks that a request means this model; one that names none does.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it names another.
    pub fn check_model(&self, name: Option<&str>) -> Result<()> {
        match name {
            Some(name) if name != self.about.id => Err(Error::NotFound(format!(
                "model '{name}' does not exist, available is '{}'",
                self.about.id
            ))),
            _ => Ok(()),
        }
    }

    /// Token ids of a prompt.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a prompt with nothing in it; what the tokenizer and the template refuse.
    pub fn encode(&self, prompt: &Prompt) -> Result<Vec<u32>> {
        match prompt {
            Prompt::Text(text) if text.is_empty() => Err(Error::parameter("prompt", "prompt is empty")),
            Prompt::Text(text) => self.tokenizer.encode(text, true, true),
            Prompt::Chat(messages, _) if messages.is_empty() => {
                Err(Error::parameter("messages", "messages is empty"))
            }
            Prompt::Chat(messages, arguments) => {
                let messages = system::added(messages, self.preset().system.as_deref());
                let rendered = self.template.render(&messages, None, true, arguments)?;
                if self.backend()?.is_continuation() {
                    self.tokenizer.encode_chat(&rendered)
                } else {
                    // The prompt is a text of its own, with the token that ends one.
                    self.tokenizer.encode(&rendered, true, true)
                }
            }
            Prompt::Tokens(tokens) => Ok(tokens.clone()),
        }
    }

    /// Starts a generation.
    ///
    /// # Errors
    /// What [`Generation::new`] refuses; [`Error::Invalid`] for a model that generates no text.
    pub fn generate(&self, request: Request) -> Result<Generation<'_>> {
        Generation::new(self.backend()?, &self.tokenizer, request)
    }

    /// What the model is known by: XXH3 (64 bits) of its architecture, vocabulary, chat template, and the logits of a
    /// first step. Computed once.
    ///
    /// # Errors
    /// What the backend reports; [`Error::Invalid`] for a model that generates no text.
    pub fn digest(&self) -> Result<u64> {
        if let Some(&digest) = self.digest.get() {
            return Ok(digest);
        }
        let mut digest = Xxh3::new();
        let tokens = (0..).take(self.tokenizer.vocabulary_size());
        let pieces = tokens.map(|id| self.tokenizer.piece(id).unwrap_or_default());
        for part in [self.about.architecture.as_str(), self.template.source()].into_iter().chain(pieces) {
            digest.update(&(part.len() as u64).to_le_bytes());
            digest.update(part.as_bytes());
        }
        digest.update(&self.first_step()?.to_le_bytes());
        Ok(*self.digest.get_or_init(|| digest.digest()))
    }

    /// Computes one token, or what an encoder makes of one, to see that it can be done.
    ///
    /// # Errors
    /// What the backend or the encoder reports.
    pub fn probe(&self) -> Result<()> {
        match &self.model {
            Model::Generator(_) => self.first_step().map(drop),
            Model::Encoder(encoder) => encoder.answer(&self.shortest()).map(drop),
        }
    }

    /// Generates one token from the shortest prompt; returns a digest of the logits.
    fn first_step(&self) -> Result<u64> {
        let limit = MaxTokens { name: "max_tokens", tokens: 1, with_prompt: false, strict: true };
        let (prompt, max_tokens) = (self.shortest(), Some(limit));
        let request = Request { prompt, max_tokens, digest_logits: true, ..Request::default() };
        let mut logits = None;
        for event in self.generate(request)? {
            if let Event::Finished(ending) = event? {
                logits = ending.logits_digest;
            }
        }
        logits.ok_or_else(|| Error::Backend("a generation ended without a digest".into()))
    }

    /// A prompt of one token, which every model takes.
    fn shortest(&self) -> Vec<u32> {
        vec![self.tokenizer.bos().unwrap_or(0)]
    }
}
