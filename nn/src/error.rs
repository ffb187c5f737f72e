//! What can go wrong with a compute.

/// Result of a compute.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a compute was not done. The sequence is as it was before, unless the error says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The inputs make no sense: the guest is at fault.
    #[error("{0}")]
    Invalid(String),
    /// It waited too long for memory, or too many others wait: to be tried again later.
    #[error("{0}")]
    Busy(String),
    /// The engine failed, or has stopped.
    #[error("{0}")]
    Failed(String),
}
