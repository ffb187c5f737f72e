//! The key and value pairs of a GGUF file, read by type.
//!
//! Every getter comes in two forms: `u32(key)` for what must be there, `opt_u32(key)` for what may be.
//! Integers are accepted in any width that holds the value, as writers differ.

use std::collections::HashMap;

use candle_core::quantized::gguf_file::Value;

use crate::error::{Error, Result};

/// Metadata of a GGUF file.
#[derive(Debug, Default)]
pub struct Metadata(HashMap<String, Value>);

impl Metadata {
    /// Wraps pairs that were read or made elsewhere.
    pub fn new(pairs: HashMap<String, Value>) -> Self {
        Self(pairs)
    }

    /// The raw value.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// All keys, in no particular order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The model's architecture as GGUF names it (`llama`, `qwen2`, …).
    pub fn architecture(&self) -> Result<&str> {
        self.str("general.architecture")
    }

    /// A string that must be there.
    pub fn str(&self, key: &str) -> Result<&str> {
        self.opt_str(key)?.ok_or_else(|| missing(key))
    }

    /// A string that may be there.
    pub fn opt_str(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string", |value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// An unsigned integer that must be there.
    pub fn u32(&self, key: &str) -> Result<u32> {
        self.opt_u32(key)?.ok_or_else(|| missing(key))
    }

    /// An unsigned integer that may be there.
    pub fn opt_u32(&self, key: &str) -> Result<Option<u32>> {
        self.typed(key, "an unsigned 32-bit integer", |value| integer(value)?.try_into().ok())
    }

    /// A float that must be there.
    pub fn f32(&self, key: &str) -> Result<f32> {
        self.opt_f32(key)?.ok_or_else(|| missing(key))
    }

    /// A float that may be there.
    pub fn opt_f32(&self, key: &str) -> Result<Option<f32>> {
        self.typed(key, "a number", |value| match *value {
            Value::F32(x) => Some(x),
            Value::F64(x) => Some(x as f32),
            _ => None,
        })
    }

    /// A flag that may be there.
    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "a boolean", |value| match *value {
            Value::Bool(flag) => Some(flag),
            _ => None,
        })
    }

    /// An array of strings that may be there.
    pub fn opt_strings(&self, key: &str) -> Result<Option<Vec<&str>>> {
        self.array(key, "an array of strings", |value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// An array of floats that may be there.
    pub fn opt_f32s(&self, key: &str) -> Result<Option<Vec<f32>>> {
        self.array(key, "an array of floats", |value| match *value {
            Value::F32(x) => Some(x),
            _ => None,
        })
    }

    /// An array of integers that may be there.
    pub fn opt_i32s(&self, key: &str) -> Result<Option<Vec<i32>>> {
        self.array(key, "an array of 32-bit integers", |value| integer(value)?.try_into().ok())
    }

    /// An array of flags that may be there.
    pub fn opt_bools(&self, key: &str) -> Result<Option<Vec<bool>>> {
        self.array(key, "an array of booleans", |value| match *value {
            Value::Bool(flag) => Some(flag),
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        kind: &str,
        cast: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.0.get(key) else { return Ok(None) };
        let wrong = || Error::format(format!("metadata {key} is not {kind} but {:?}", value.value_type()));
        cast(value).map(Some).ok_or_else(wrong)
    }

    fn array<'a, T>(
        &'a self,
        key: &str,
        kind: &str,
        cast: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        self.typed(key, kind, |value| match value {
            Value::Array(values) => values.iter().map(&cast).collect::<Option<Vec<T>>>(),
            _ => None,
        })
    }
}

fn missing(key: &str) -> Error {
    Error::format(format!("metadata {key} is missing"))
}

fn integer(value: &Value) -> Option<i64> {
    Some(match *value {
        Value::U8(x) => x.into(),
        Value::I8(x) => x.into(),
        Value::U16(x) => x.into(),
        Value::I16(x) => x.into(),
        Value::U32(x) => x.into(),
        Value::I32(x) => x.into(),
        Value::U64(x) => x.try_into().ok()?,
        Value::I64(x) => x,
        _ => return None,
    })
}
