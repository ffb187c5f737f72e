//! Chat templates: a conversation to one prompt, as the model was trained to see it.
//!
//! Templates are Jinja, written for Python and transformers; minijinja runs them, [`python`] adds what they
//! expect beyond Jinja. They come with a model from anywhere, so [`screen`] bounds what they may ask of the
//! compiler and [`meter`] what of a rendering.
//! How the prompt becomes tokens is the tokenizer's part.

mod meter;
mod python;
mod screen;

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use minijinja::machinery::{self, CompiledTemplate, Instructions, TemplateConfig};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, ErrorKind};
use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wafer_engine::gguf::Metadata;

use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// For models without a template whose vocabulary has its tokens.
const CHATML: &str = "\
{% for message in messages %}\
{{ '<|im_start|>' + message.role + '\\n' + (message.content or '') + '<|im_end|>\\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// For models that know nothing of chats: a dialogue as people write it.
const PLAIN: &str = "\
{% for message in messages %}{% if message.role == 'system' %}{{ (message.content or '') + '\\n\\n' }}\
{% else %}{{ message.role | capitalize + ': ' + (message.content or '') + '\\n' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}";

/// One message of a conversation, with the keys that templates know from OpenAI's API.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool`, or whatever the template knows.
    pub role: String,
    /// The text; none (in templates) where an assistant's message consists of tool calls.
    #[serde(default)]
    pub content: Option<String>,
    /// What a reasoning model thought before this answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// The author's or the tool's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The calls an assistant made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Value>,
    /// The call that a tool's message answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

/// A compiled chat template.
pub struct Template {
    environment: Environment<'static>,
    /// Compiled code borrows its source. A template lives as long as its model, so the source is leaked.
    source: &'static str,
    code: Instructions<'static>,
    blocks: BTreeMap<&'static str, Instructions<'static>>,
    bos: String,
    eos: String,
    default: bool,
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Template")
            .field("source", &self.source)
            .field("default", &self.default)
            .finish_non_exhaustive()
    }
}

impl Template {
    /// The template of a GGUF file, chosen as by [`of_model`](Self::of_model).
    ///
    /// # Errors
    /// [`Error::Model`] for a template that does not compile or is too long.
    pub fn from_gguf(metadata: &Metadata, tokenizer: &Tokenizer) -> Result<Self> {
        Self::of_model(metadata.opt_str("tokenizer.chat_template")?, tokenizer)
    }

    /// A model's own template; where it has none, ChatML if the vocabulary has its tokens, else a dialogue in
    /// plain text.
    ///
    /// # Errors
    /// [`Error::Model`] for a template that does not compile or is too long.
    pub fn of_model(source: Option<&str>, tokenizer: &Tokenizer) -> Result<Self> {
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.piece(id)).unwrap_or_default();
        let (bos, eos) = (text(tokenizer.bos()), text(tokenizer.eos()));
        if let Some(source) = source {
            return Self::new(source, bos, eos);
        }
        let chatml = tokenizer.id("<|im_start|>").is_some() && tokenizer.id("<|im_end|>").is_some();
        let source = if chatml { CHATML } else { PLAIN };
        Ok(Self { default: true, ..Self::new(source, bos, eos)? })
    }

    /// Compiles a Jinja template; `bos` and `eos` are the texts of those tokens.
    ///
    /// # Errors
    /// [`Error::Model`] for a template that does not compile or is too long.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self> {
        Self::with_clock(source, bos, eos, SystemTime::now)
    }

    /// The same with a clock of the caller's, for `strftime_now`.
    ///
    /// # Errors
    /// As for [`Template::new`].
    pub fn with_clock(
        source: &str,
        bos: &str,
        eos: &str,
        clock: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> Result<Self> {
        let wrong = |error: minijinja::Error| Error::Model(format!("the chat template is at fault: {error}"));
        let mut environment = Environment::new();
        meter::install(&mut environment);
        python::install(&mut environment, Arc::new(clock));

        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(wrong)?;
        screen::check(source, &syntax)?;
        let config =
            TemplateConfig { syntax_config: syntax, default_auto_escape: Arc::new(|_| AutoEscape::None) };
        let prepared: &'static str = Box::leak(without_generation(source).into_boxed_str());
        let compiled = CompiledTemplate::new("chat template", prepared, &config).map_err(wrong)?;
        Ok(Self {
            environment,
            source: prepared,
            code: meter::metered(&compiled.instructions),
            blocks: compiled.blocks.iter().map(|(&name, code)| (name, meter::metered(code))).collect(),
            bos: bos.to_owned(),
            eos: eos.to_owned(),
            default: false,
        })
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        self.source
    }

    /// Whether the model brought no template of its own.
    pub fn is_default(&self) -> bool {
        self.default
    }

    /// Renders a conversation. `tools` is the list of OpenAI's `tools`; `generation_prompt` opens the answer;
    /// `kwargs` are whatever else the template knows (`enable_thinking`, `documents`, …).
    ///
    /// # Errors
    /// [`Error::Invalid`] with the template's own words where it objects to the conversation, and where the
    /// conversation makes it fail; [`Error::Model`] where it calls what does not exist.
    pub fn render(
        &self,
        messages: &[Message],
        tools: Option<&Value>,
        generation_prompt: bool,
        kwargs: &Map<String, Value>,
    ) -> Result<String> {
        let mut variables: BTreeMap<&str, minijinja::Value> = BTreeMap::new();
        variables.insert("bos_token", self.bos.as_str().into());
        variables.insert("eos_token", self.eos.as_str().into());
        variables.insert("documents", ().into());
        variables.extend(kwargs.iter().map(|(key, value)| (key.as_str(), Serde(value).into())));
        variables.insert("messages", Serde(messages).into());
        variables.insert("tools", tools.map_or_else(|| ().into(), |tools| Serde(tools).into()));
        variables.insert("add_generation_prompt", generation_prompt.into());

        let mut text = String::new();
        let mut output = machinery::make_string_output(&mut text);
        let root = minijinja::Value::from_pairs(variables);
        machinery::eval(&self.environment, &self.code, root, &self.blocks, &mut output, AutoEscape::None)
            .map_err(failure)?;
        drop(output);
        if text.len() > meter::MAX_TEXT {
            let (length, limit) = (text.len(), meter::MAX_TEXT);
            return Err(Error::Invalid(format!(
                "the rendered conversation has {length} bytes, the limit is {limit}"
            )));
        }
        Ok(text)
    }
}

/// Whose fault it is that a template fails.
fn failure(error: minijinja::Error) -> Error {
    let mut cause = error.source();
    while let Some(source) = cause {
        if let Some(python::Raised(message)) = source.downcast_ref() {
            return Error::Invalid(message.clone());
        }
        cause = source.source();
    }
    match error.kind() {
        ErrorKind::UnknownFilter
        | ErrorKind::UnknownFunction
        | ErrorKind::UnknownTest
        | ErrorKind::SyntaxError => Error::Model(format!("the chat template is at fault: {error}")),
        _ => Error::Invalid(format!("the chat template cannot render this conversation: {error}")),
    }
}

/// Turns the tags of transformers' `generation` extension, which only mark where answers lie, into blocks
/// that Jinja knows.
fn without_generation(source: &str) -> String {
    static TAG: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"\{%([-+]?\s*)(end)?generation(\s*[-+]?)%\}").ok());
    let Some(tag) = TAG.as_ref() else { return source.to_owned() };
    tag.replace_all(source, |found: &regex::Captures| {
        let block = if found.get(2).is_some() { "endif" } else { "if true" };
        format!("{{%{}{block}{}%}}", &found[1], &found[3])
    })
    .into_owned()
}
