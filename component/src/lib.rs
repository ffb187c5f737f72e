//! The generation logic of wafer, as one WASI component.

pub mod backend;
pub mod error;
pub mod template;
pub mod tokenizer;
