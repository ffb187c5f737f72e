//! Machine code as the compiler gave it.
//!
//! wasmtime runs code that it is handed without looking at it, so whoever loads some has to know where it is
//! from. What is in a [`Compiled`] was compiled by this process and has not left it. Files are another matter:
//! `cache` answers for its own, and the user for those that are named with `--trust`.

use anyhow::Context;
use wasmtime::Engine;
use wasmtime::component::Component;

/// A component's code, not loaded yet. There is no other way to make one than to compile.
pub(crate) struct Compiled(Vec<u8>);

impl Compiled {
    /// Compiles for `engine`, with all cores.
    pub(crate) fn new(engine: &Engine, wasm: &[u8]) -> anyhow::Result<Self> {
        let code = engine.precompile_component(wasm).map_err(anyhow::Error::from);
        code.map(Compiled).context("cannot compile the component")
    }

    /// What belongs into a .cwasm file.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Keeps the code in memory. `engine` is the one that it was compiled for, or has the same settings.
    #[expect(unsafe_code, reason = "the code is the compiler's own, see SAFETY")]
    pub(crate) fn load(&self, engine: &Engine) -> anyhow::Result<Component> {
        // SAFETY: these bytes come from `precompile_component` and could not be changed since. wasmtime checks
        // that they are for this engine.
        let component = unsafe { Component::deserialize(engine, &self.0) };
        component.map_err(anyhow::Error::from).context("cannot load the compiled component")
    }
}
