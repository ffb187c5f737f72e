//! The decoder's maths: a model file in, tokens in, logits out.
//!
//! [`Config`] is a model's blueprint, [`Model`] its immutable weights, [`Session`] the mutable state of one
//! sequence (its KV cache). [`Model::forward`] takes a batch of sequences through the decoder.
//!
//! The crate compiles to native code and to WebAssembly. It reads models from files and does no other I/O; it knows no
//! tokens' texts, no templates, no HTTP. Its arithmetic has one result on every machine: integer dot
//! products, one order of summation, no fused multiply-add.

pub mod config;
mod error;
mod forward;
pub mod gguf;
pub mod hf;
pub mod kernels;
mod load;
mod model;
mod pool;
mod session;
mod size;

pub use config::Config;
pub use error::{Error, Result};
pub use forward::{Batch, Workspace};
pub use gguf::Gguf;
pub use hf::Folder;
pub use load::{Progress, Quantize};
pub use model::Model;
pub use pool::Pool;
pub use session::{Page, Session};
