//! The generation logic of wafer, which all of its components share.
//!
//! From the inside out: [`backend`] computes logits, [`sampler`] chooses tokens, [`text`] releases what is
//! certain, [`generate`] is the loop around them; [`encoder`] turns texts into vectors or labels, without a loop;
//! [`service`] is a loaded model, [`api`] its HTTP face. All of
//! that is plain Rust without I/O but for reading the model's file, and runs natively in tests. Only the
//! adapter, which exists on WebAssembly alone, names WASI.

#[cfg(target_family = "wasm")]
pub mod adapter;
pub mod api;
pub mod backend;
pub mod encoder;
pub mod error;
#[cfg(test)]
mod fixture;
pub mod generate;
pub mod logprobs;
mod nearest;
pub mod platform;
pub mod preset;
pub mod sampler;
pub mod service;
pub mod template;
pub mod text;
pub mod tokenizer;
pub mod turn;
#[cfg(feature = "candle")]
mod weights;
