//! The decoder's maths: a model file in, tokens in, logits out.

mod error;
pub mod gguf;

pub use error::{Error, Result};
pub use gguf::Gguf;
