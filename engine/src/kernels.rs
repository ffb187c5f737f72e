//! Matrices in the forms the processors like, and the arithmetic on them.
//!
//! A [`Matrix`] is packed once, at load, from ggml's formats into panels of [`LANES`] rows whose elements are
//! interleaved, so that one SIMD lane is one row and no sum ever crosses lanes. Activations are quantised to
//! 8 bits per block of [`BLOCK`] columns; dot products within a block are integers, hence exact, and blocks
//! are added in order. [`scalar`] is the specification: every other kernel gives the same bits.

mod activations;
mod attention;
mod block;
mod float;
pub mod ggml;
#[cfg(target_arch = "wasm32")]
mod interleave;
mod isa;
mod matmul;
mod matrix;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pack;
mod scalar;
#[cfg(target_arch = "wasm32")]
mod wasm;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use activations::Activations;
pub use attention::{Attention, Pages, Query, attend};
pub(crate) use attention::{MAX_HEAD, MAX_QUERIES, PAGE, head_stride};
pub use block::{BLOCK, LANES};
pub(crate) use float::softcap;
pub use float::{exp, gelu, gelu_erf, half_row, layer_norm, rms_norm, silu};
pub use isa::Isa;
pub use matmul::{Part, matmul};
pub use matrix::{Form, Matrix};
