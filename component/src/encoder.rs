//! Encoders: a text's tokens in, a vector or labels out. Nothing is generated.
//!
//! This is the seam; what computes is behind it, and only there if the feature `candle` is on: candle makes a component
//! half as large again, which one that generates text need not carry.

#[cfg(feature = "candle")]
pub(crate) mod bert;
#[cfg(feature = "candle")]
pub(crate) mod family;
#[cfg(feature = "candle")]
mod head;
#[cfg(feature = "candle")]
pub(crate) mod pooling;

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::error::Result;

/// Reads another JSON file of the model's folder; `None` if there is none.
pub(crate) type Files<'a> = &'a dyn Fn(&str) -> Result<Option<Value>>;

/// What an encoder makes of a text.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// A vector that means what the text means.
    Vector(Vec<f32>),
    /// All labels that the model knows, the surest first.
    Labels(Vec<Label>),
}

/// What kind of answers an encoder has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Vectors.
    Embed,
    /// Labels.
    Classify,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embed => "vectors",
            Self::Classify => "labels",
        })
    }
}

/// A label and how sure the model is of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Label {
    /// Its name in the model's configuration.
    pub label: String,
    /// 0 to 1.
    pub score: f32,
}

/// A loaded encoder.
pub trait Encoder {
    /// What kind of answers it has.
    fn task(&self) -> Task;

    /// Number of token ids.
    fn vocabulary_size(&self) -> usize;

    /// Tokens of one text at most, with those that belong around it.
    fn context_length(&self) -> usize;

    /// Computes what the model is for.
    ///
    /// # Errors
    /// What [`check`](Self::check) refuses; [`Error::Backend`](crate::error::Error::Backend) if the computation fails.
    fn answer(&self, tokens: &[u32]) -> Result<Answer>;

    /// Checks tokens before anything is computed.
    ///
    /// # Errors
    /// [`Error::Parameter`](crate::error::Error::Parameter) for no tokens, too many, or one that is unknown.
    fn check(&self, tokens: &[u32]) -> Result<()>;
}
