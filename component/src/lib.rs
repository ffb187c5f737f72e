//! The generation logic of wafer, as one WASI component.
//!
//! From the inside out: [`backend`] computes logits, [`sampler`] chooses tokens, [`text`] releases what is
//! certain, [`generate`] is the loop around them; [`service`] is a loaded model, [`api`] its HTTP face. All of
//! that is plain Rust without I/O but for reading the model's file, and runs natively in tests. Only the
//! adapter, which exists on WebAssembly alone, names WASI.

#[cfg(target_family = "wasm")]
mod adapter;
pub mod api;
pub mod backend;
pub mod error;
#[cfg(test)]
mod fixture;
pub mod generate;
mod nearest;
pub mod platform;
pub mod preset;
pub mod sampler;
pub mod service;
pub mod template;
pub mod text;
pub mod tokenizer;
