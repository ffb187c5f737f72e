//! A loaded model with all that serves it: tokenizer, template, backend.
//!
//! Built once and never changed; every request works on what it borrows from here. How to reach it (a static,
//! a snapshot) and how to speak to it (HTTP, WIT) is for the adapters.

mod system;

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde_json::{Map, Value};
use wafer_engine::Gguf;

use crate::backend::Backend;
use crate::backend::local::Local;
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

    /// Loads the model at `path`: a GGUF file, or a directory with exactly one. Its id is `id`, or the file's
    /// name without `.gguf`.
    ///
    /// # Errors
    /// [`Error::Model`] if there is no such file, or not exactly one, or it is no model that we can load.
    pub fn load(path: &Path, id: Option<String>) -> Result<Self> {
        let path = locate(path)?;
        let named = |error: Error| match error {
            Error::Model(text) => Error::Model(format!("{}: {text}", path.display())),
            other => other,
        };
        let file = File::open(&path).map_err(|error| unreadable(&path, &error))?;
        let created = created(&file);
        let mut gguf = Gguf::open(BufReader::new(file)).map_err(|error| named(error.into()))?;
        let tokenizer = Tokenizer::from_gguf(gguf.metadata()).map_err(named)?;
        let template = Template::from_gguf(gguf.metadata(), &tokenizer).map_err(named)?;
        let architecture = gguf.metadata().architecture().map_err(|error| named(error.into()))?.to_owned();
        let backend = Box::new(Local::load(&mut gguf).map_err(named)?);
        let stem = || path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let id = id.or_else(stem).unwrap_or_default();
        Self::new(About { id, architecture, created }, tokenizer, template, backend)
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

/// The one GGUF file that `path` means.
fn locate(path: &Path) -> Result<PathBuf> {
    let metadata = path.metadata().map_err(|error| unreadable(path, &error))?;
    if !metadata.is_dir() {
        return Ok(path.to_owned());
    }
    let mut found = Vec::new();
    for entry in path.read_dir().map_err(|error| unreadable(path, &error))? {
        let file = entry.map_err(|error| unreadable(path, &error))?.path();
        if file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
            found.push(file);
        }
    }
    found.sort();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Error::Model(format!("no .gguf file in {}", path.display()))),
        [first, second, ..] => Err(Error::Model(format!(
            "{} .gguf files in {} ({}, {}, …), MODEL_PATH must name one",
            found.len(),
            path.display(),
            name(first),
            name(second)
        ))),
    }
}

/// When a file was written, in seconds since 1970; 0 where the platform does not say.
fn created(file: &File) -> u64 {
    let modified = file.metadata().and_then(|metadata| metadata.modified()).ok();
    modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_secs())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::Model(format!(
        "cannot read {}: {error}; MODEL_PATH names a .gguf file or its directory",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The error of loading `path` inside a directory that holds `files`.
    fn check(files: &[(&str, &str)], path: &str, expected: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(folder.path().join(name), content).unwrap();
        }
        let Err(error) = Service::load(&folder.path().join(path), None) else {
            panic!("{files:?} was loaded as a model");
        };
        assert!(matches!(error, Error::Model(_)), "{error:?}");
        let error = error.to_string();
        for part in expected {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
    }

    #[test]
    fn files_that_are_no_model_are_named() {
        check(&[], "missing.gguf", &["missing.gguf", "MODEL_PATH"]);
        check(&[], "", &["no .gguf file"]);
        check(&[("a.txt", "x")], "", &["no .gguf file"]);
        check(&[("b.gguf", "x"), ("a.GGUF", "x")], "", &["2 .gguf files", "a.GGUF, b.gguf"]);
        check(&[("a.gguf", "Dear reader")], "", &["a.gguf", "not a GGUF file"]);
        check(&[("a.gguf", "Dear reader")], "a.gguf", &["a.gguf", "not a GGUF file"]);
        check(&[("a.gguf", "")], "a.gguf", &["a.gguf"]);
    }
}
