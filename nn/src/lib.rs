//! wafer's engine behind wasi-nn: language models for WebAssembly guests, computed on the host.
//!
//! A guest loads a model by name ([`Registry`], [`Graph`]), opens an execution context for each of its sequences
//! ([`Context`]) and computes tokens to logits; `contract` says which tensors that takes. The sequences of all
//! guests of a process are computed together, their KV caches share the prefixes that they have in common
//! (of one tenant only), and the memory for that is bounded.
//!
//! A compute is asynchronous here: [`Context::compute`] holds no thread while the batch is computed. Embedders of
//! wasmtime have two ways to offer it to guests. The feature `wasmtime` brings a backend for
//! `wasmtime-wasi-nn`, whose bindings are synchronous: a guest that computes then blocks its thread. wafer's own
//! host has bindings that suspend the guest instead.
//!
//! Nothing here knows texts, templates or requests.

#[cfg(feature = "wasmtime")]
pub mod backend;
pub mod contract;
mod engine;
mod error;
mod graph;
mod output;
mod pace;
mod prefix;
mod scheduler;
mod worker;

pub use engine::Shape;
pub use error::{Error, Result};
pub use graph::{Context, Graph, Options, Registry};
pub use output::{Output, Rows};
pub use prefix::Tenant;
pub use scheduler::{Limits, Stats, Step};
