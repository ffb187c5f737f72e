//! What a guest has: its view of the system, and its limits.
//!
//! No outgoing HTTP. Memory is bounded, and what did not fit is remembered, so that the reason of a trap
//! can be told.

use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::network::NoNetwork;
use crate::nn::{Models, View};
use crate::output::Output;

/// The state of a store.
pub(crate) struct State {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    no_network: NoNetwork,
    table: ResourceTable,
    models: Models,
    pub(crate) memory: MemoryLimit,
    pub(crate) stderr: Output,
}

impl State {
    /// A guest with `memory` bytes at most, which may compute with `models`. `stderr` is the stream that `wasi` has.
    pub(crate) fn new(wasi: WasiCtx, models: Models, memory: u64, stderr: Output) -> Self {
        State {
            wasi,
            http: WasiHttpCtx::new(),
            no_network: NoNetwork,
            table: ResourceTable::new(),
            models,
            memory: MemoryLimit { bytes: memory, granted: 0, refused: None },
            stderr,
        }
    }

    /// What wasi-nn works on.
    pub(crate) fn nn(&mut self) -> View<'_> {
        View { models: &self.models, table: &mut self.table }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.no_network }
    }
}

/// Bounds linear memory.
pub(crate) struct MemoryLimit {
    pub(crate) bytes: u64,
    /// The size of the largest memory that there is, bytes.
    pub(crate) granted: u64,
    /// The size of memory that the guest wanted and did not get, bytes.
    pub(crate) refused: Option<u64>,
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let desired = desired as u64;
        let fits = desired <= self.bytes && maximum.is_none_or(|maximum| desired <= maximum as u64);
        if fits {
            self.granted = self.granted.max(desired);
        } else {
            self.refused = Some(desired);
        }
        Ok(fits)
    }

    fn table_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(maximum.is_none_or(|maximum| desired <= maximum))
    }
}
