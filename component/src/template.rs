//! Chat templates: messages to one prompt.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wafer_engine::gguf::Metadata;

use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

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
#[derive(Debug)]
pub struct Template {}

impl Template {
    /// The template of a GGUF file, or a default that fits its vocabulary.
    pub fn from_gguf(_metadata: &Metadata, _tokenizer: &Tokenizer) -> Result<Self> {
        Err(Error::Model("no template yet".into()))
    }

    /// Compiles a Jinja template; `bos` and `eos` are the texts of those tokens.
    pub fn new(_source: &str, _bos: &str, _eos: &str) -> Result<Self> {
        Err(Error::Model("no template yet".into()))
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        ""
    }

    /// Whether the model brought no template of its own.
    pub fn is_default(&self) -> bool {
        false
    }

    /// Renders a conversation.
    pub fn render(
        &self,
        _messages: &[Message],
        _tools: Option<&Value>,
        _generation_prompt: bool,
        _kwargs: &Map<String, Value>,
    ) -> Result<String> {
        Err(Error::Model("no template yet".into()))
    }
}
