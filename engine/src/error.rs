//! What can go wrong in the engine, grouped by who must act: the file is at fault, or the caller.
//!
//! Nothing here speaks of HTTP; adapters decide what an error means to a client.

use std::io;

/// The result of everything fallible in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file could not be read.
    #[error("cannot read the model: {0}")]
    Io(#[from] io::Error),
    /// The file is not what it claims to be; the text names the value and the limit.
    #[error("invalid model file: {0}")]
    Format(String),
    /// The file is fine, but holds something that this engine does not implement.
    #[error("unsupported model: {0}")]
    Unsupported(String),
    /// The caller asked for something outside the model's limits.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    pub(crate) fn format(text: impl Into<String>) -> Self {
        Self::Format(text.into())
    }

    pub(crate) fn unsupported(text: impl Into<String>) -> Self {
        Self::Unsupported(text.into())
    }

    /// True if the model file is at fault rather than the caller.
    pub fn is_model(&self) -> bool {
        !matches!(self, Self::Invalid(_))
    }
}
