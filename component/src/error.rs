//! What can go wrong in the component, grouped by who must act.
//!
//! The adapters and `api` map these to HTTP statuses and WIT errors, in one place each; nothing here knows of
//! either.

/// The result of everything fallible in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the generation logic.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request is at fault; the text is for the caller and names the value and the limit.
    #[error("{0}")]
    Invalid(String),
    /// One parameter of the request is at fault.
    #[error("{message}")]
    Parameter {
        /// Its name, as the caller wrote it.
        name: &'static str,
        /// For the caller; names the value and the limit.
        message: String,
    },
    /// The request names something that is not there (a model, a path).
    #[error("{0}")]
    NotFound(String),
    /// The model's files are at fault; the operator has to act.
    #[error("{0}")]
    Model(String),
    /// The backend has no room for the request now; it can be tried again later.
    #[error("{0}")]
    Busy(String),
    /// The backend failed while computing; the detail is for the log.
    #[error("{0}")]
    Backend(String),
}

impl Error {
    pub(crate) fn parameter(name: &'static str, message: impl Into<String>) -> Self {
        Self::Parameter { name, message: message.into() }
    }
}

impl From<wafer_engine::Error> for Error {
    fn from(error: wafer_engine::Error) -> Self {
        if error.is_model() { Self::Model(error.to_string()) } else { Self::Invalid(error.to_string()) }
    }
}
