//! What the binary carries, so that one file is enough: the components and the demo model.
//!
//! `build.rs` finds them. Nothing is interpreted here.

/// The component of world `wafer:inference/portable`.
pub(crate) static COMPONENT: &[u8] = include_bytes!(env!("WAFER_PORTABLE_WASM"));

/// The component of world `wafer:inference/accelerated`.
pub(crate) static ACCELERATED: &[u8] = include_bytes!(env!("WAFER_ACCELERATED_WASM"));

/// The component for Spin, of WASI 0.3.
pub(crate) static SPIN: &[u8] = include_bytes!(env!("WAFER_SPIN_WASM"));

/// The same with encoders and encoder-decoders.
pub(crate) static ENCODERS: &[u8] = include_bytes!(env!("WAFER_ENCODERS_WASM"));

/// The model that is served and run when none is named.
pub(crate) static DEMO_MODEL: &[u8] = include_bytes!(env!("WAFER_DEMO_GGUF"));
