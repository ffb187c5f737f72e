//! A JSON object that is read key by key, so that no key is ever ignored.
//!
//! Every key that an endpoint knows is taken by name; [`Fields::finish`] refuses what nobody took. A null
//! counts as absent, as in OpenAI's API. This replaces serde's `deny_unknown_fields`, which cannot be
//! combined with options that endpoints share, and knows no "known, but not supported yet".

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::Refusal;
use crate::nearest::nearest;

/// The keys of a request's body that were not read yet.
#[derive(Debug)]
pub(super) struct Fields {
    values: Map<String, Value>,
    known: Vec<&'static str>,
    /// Where the object lies in the body, for errors: empty, or `messages[0].`.
    path: String,
}

impl Fields {
    /// Parses a body.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Refusal> {
        if body.is_empty() {
            return Err(Refusal::request("the body is empty, a JSON object is expected"));
        }
        let text = std::str::from_utf8(body)
            .map_err(|error| Refusal::request(format!("the body is not UTF-8: {error}")))?;
        let value = serde_json::from_str(text)
            .map_err(|error| Refusal::request(format!("the body is not valid JSON: {error}")))?;
        match value {
            Value::Object(values) => Ok(Self { values, known: Vec::new(), path: String::new() }),
            other => {
                Err(Refusal::request(format!("the body is {}, a JSON object is expected", kind(&other))))
            }
        }
    }

    /// Reads an object inside the body; `path` says where it lies.
    pub(super) fn nested(value: Value, path: &str) -> Result<Self, Refusal> {
        match value {
            Value::Object(values) => Ok(Self { values, known: Vec::new(), path: format!("{path}.") }),
            other => Err(wrong(path, &other, "an object")),
        }
    }

    /// The full name of a key, for errors.
    pub(super) fn name(&self, key: &str) -> String {
        format!("{}{key}", self.path)
    }

    /// Takes a value of any type.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.values.shift_remove(key).filter(|value| !value.is_null())
    }

    /// Takes a value; `T`'s shape is given in words as `expected`.
    pub(super) fn optional<T: DeserializeOwned>(
        &mut self,
        key: &'static str,
        expected: &str,
    ) -> Result<Option<T>, Refusal> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match T::deserialize(&value) {
            Ok(typed) => Ok(Some(typed)),
            Err(_) => Err(wrong(&self.name(key), &value, expected)),
        }
    }

    pub(super) fn string(&mut self, key: &'static str) -> Result<Option<String>, Refusal> {
        self.optional(key, "a string")
    }

    pub(super) fn flag(&mut self, key: &'static str) -> Result<bool, Refusal> {
        Ok(self.optional(key, "a boolean")?.unwrap_or(false))
    }

    pub(super) fn number(&mut self, key: &'static str) -> Result<Option<f32>, Refusal> {
        self.optional(key, "a number")
    }

    pub(super) fn count(&mut self, key: &'static str) -> Result<Option<u64>, Refusal> {
        self.optional(key, "an integer of at least 0")
    }

    /// A value that must be there.
    pub(super) fn required(&mut self, key: &'static str) -> Result<Value, Refusal> {
        let name = self.name(key);
        self.take(key).ok_or_else(|| Refusal::parameter(&name, format!("parameter '{name}' is required")))
    }

    /// Refuses a parameter that is not supported, unless its value is in the array of those that ask for
    /// nothing.
    pub(super) fn unsupported(&mut self, key: &'static str, neutral: &Value) -> Result<(), Refusal> {
        match self.take(key) {
            Some(value) if !neutral.as_array().is_some_and(|neutral| neutral.contains(&value)) => {
                Err(Refusal::unsupported(&self.name(key)))
            }
            _ => Ok(()),
        }
    }

    /// Refuses the first key that nobody took.
    pub(super) fn finish(self) -> Result<(), Refusal> {
        let Some(key) = self.values.keys().next() else { return Ok(()) };
        let nearest = nearest(key, &self.known).map(|known| self.name(known));
        Err(Refusal::unknown(&self.name(key), nearest.as_deref()))
    }
}

/// A value of the wrong type.
pub(super) fn wrong(name: &str, value: &Value, expected: &str) -> Refusal {
    Refusal::parameter(name, format!("parameter '{name}' is {}, expected {expected}", kind(value)))
}

/// A value in words, short enough for an error.
fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.chars().count() > 40 => "a long string".into(),
        Value::String(text) => format!("the string {text:?}"),
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
    }
}
