//! A loaded model with all that serves it: tokenizer, template, backend.
//!
//! Built once and never changed; every request works on what it borrows from here. How to reach it (a static,
//! a snapshot) and how to speak to it (HTTP, WIT) is for the adapters.

mod load;
mod system;

use serde_json::{Map, Value};

use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::generate::{Generation, Request};
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

/// A loaded model.
pub struct Service {
    about: About,
    tokenizer: Tokenizer,
    template: Template,
    backend: Box<dyn Backend>,
    preset: Preset,
}

impl Service {
    /// Puts a service together.
    ///
    /// # Errors
    /// [`Error::Model`] if the tokenizer has tokens that the backend does not know.
    pub fn new(
        about: About,
        tokenizer: Tokenizer,
        template: Template,
        backend: Box<dyn Backend>,
    ) -> Result<Self> {
        let (tokens, logits) = (tokenizer.vocabulary_size(), backend.vocabulary_size());
        if tokens > logits {
            return Err(Error::Model(format!("the tokenizer has {tokens} tokens, the model only {logits}")));
        }
        Ok(Self { about, tokenizer, template, backend, preset: Preset::default() })
    }

    /// The same without the date of its file.
    #[must_use]
    pub fn undated(mut self) -> Self {
        self.about.created = 0;
        self
    }

    /// What requests get that do not say otherwise.
    pub fn preset(&self) -> &Preset {
        &self.preset
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
        self.backend.vocabulary_size()
    }

    /// Prompt and output tokens together, at most.
    pub fn context_length(&self) -> usize {
        self.backend.context_length()
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
                let messages = system::added(messages, self.preset.system.as_deref());
                let rendered = self.template.render(&messages, None, true, arguments)?;
                self.tokenizer.encode_chat(&rendered)
            }
            Prompt::Tokens(tokens) => Ok(tokens.clone()),
        }
    }

    /// Starts a generation.
    ///
    /// # Errors
    /// What [`Generation::new`] refuses.
    pub fn generate(&self, request: Request) -> Result<Generation<'_>> {
        Generation::new(self.backend.as_ref(), &self.tokenizer, request)
    }

    /// Generates one token, to see that it can be done.
    ///
    /// # Errors
    /// What the backend reports.
    pub fn probe(&self) -> Result<()> {
        let prompt = vec![self.tokenizer.bos().unwrap_or(0)];
        let request = Request { prompt, ..Request::default() };
        self.generate(request)?.next().transpose().map(|_| ())
    }
}
