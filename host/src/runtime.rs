//! Components under wasmtime: compiled once, instantiated afresh for every request.
//!
//! A guest gets the model's directory read-only, a clock, random numbers, log lines and the models of its runtime (`nn`); no sockets,
//! no outgoing HTTP, no other files. It cannot starve others: every few milliseconds it gives its
//! thread back (epochs). It cannot take more memory than its limit. When its future is dropped, it is
//! gone. What it computes is unknown here: this module moves requests, prompts and text as they are.
//!
//! Without a model directory the component is expected to carry its model.

#[cfg(feature = "compiler")]
mod bare;
#[cfg(feature = "compiler")]
mod code;
mod engine;
mod network;
mod state;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use std::fmt::Display;
use tokio::sync::oneshot;
use wasmtime::component::{Component, InstancePre, Linker, ResourceAny};
use wasmtime::{Engine, Store};
use wasmtime_wasi::WasiCtx;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::bindings::{Proxy, ProxyIndices};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

#[cfg(feature = "compiler")]
use crate::cache::Cache;
#[cfg(feature = "compiler")]
use crate::model::Mount;
use crate::nn::{self, Models};
use crate::output::Output;
use crate::report::WithHint;
use crate::trap::Trap;

use bindings::generator::{Error, Event, ModelInfo, Options, Prompt};

#[cfg(feature = "compiler")]
pub(crate) use bare::linker as bare_linker;
#[cfg(feature = "compiler")]
pub(crate) use code::Compiled;
#[cfg(feature = "compiler")]
pub(crate) use engine::foreign;
pub(crate) use engine::{engine, executor, pooled};
pub(crate) use state::State;

/// What components for Spin export, and no others.
const SPIN_HANDLER: &str = "wasi:http/handler@0.3.0";

/// The types of wit/wafer.wit; those of WASI are wasmtime's own.
pub(crate) mod bindings {
    mod generated {
        wasmtime::component::bindgen!({
            path: "../wit",
            world: "model",
            exports: { default: async },
            require_store_data_send: true,
            with: {
                "wasi": wasmtime_wasi::p2::bindings,
            },
        });
    }

    pub(crate) use generated::exports::wafer::inference::generator;
    pub(crate) use generated::{Model, ModelIndices};
}

/// A compiled component, ready to be instantiated.
pub(crate) struct Runtime {
    pre: InstancePre<State>,
    exports: bindings::ModelIndices,
    http: Option<ProxyIndices>,
    /// Where a component without a model finds one.
    #[cfg(feature = "compiler")]
    model: Option<Mount>,
    models: Models,
    memory: u64,
}

impl Runtime {
    /// Compiles a component that finds its model at `model`; every instance may use `memory` bytes.
    #[cfg(feature = "compiler")]
    pub(crate) fn new(wasm: &[u8], model: Mount, memory: u64) -> anyhow::Result<Self> {
        let engine = engine()?;
        let component = compile(&engine, wasm)?;
        Ok(Runtime { model: Some(model), ..Self::of(&component, memory)? })
    }

    /// Of a component that is compiled and carries its model.
    pub(crate) fn of(component: &Component, memory: u64) -> anyhow::Result<Self> {
        let linker = linker(component.engine())?;
        let portable = || -> wasmtime::Result<Self> {
            let pre = linker.instantiate_pre(component)?;
            let (exports, http) = (bindings::ModelIndices::new(&pre)?, Some(ProxyIndices::new(&pre)?));
            Ok(Runtime {
                pre,
                exports,
                http,
                #[cfg(feature = "compiler")]
                model: None,
                models: Models::default(),
                memory,
            })
        };
        let portable = portable()
            .map_err(anyhow::Error::from)
            .context("the component is not of world wafer:inference/portable");
        match component.get_export_index(None, SPIN_HANDLER) {
            Some(_) => portable.hint("it was made for Spin, which runs it with `spin up`"),
            None => portable,
        }
    }

    /// Of a component of any world that carries its model, which answers calls, but no HTTP.
    #[cfg(feature = "compiler")]
    pub(crate) fn of_model(component: &Component, memory: u64) -> anyhow::Result<Self> {
        let linker = bare_linker(component)?;
        let of = || -> wasmtime::Result<Self> {
            let pre = linker.instantiate_pre(component)?;
            let exports = bindings::ModelIndices::new(&pre)?;
            Ok(Runtime { pre, exports, http: None, model: None, models: Models::default(), memory })
        };
        of().map_err(anyhow::Error::from).context("the component has no model of wafer")
    }

    /// The same with models that its instances compute through wasi-nn.
    #[must_use]
    pub(crate) fn with_models(self, models: Models) -> Self {
        Runtime { models, ..self }
    }

    /// A fresh instance. Its output is logged with the id of the request that it works for.
    pub(crate) async fn instantiate(&self, request: &impl Display) -> anyhow::Result<Guest> {
        let stderr = Output::new("stderr", request);
        let mut wasi = WasiCtx::builder();
        wasi.stdout(Output::new("stdout", request))
            .stderr(stderr.clone())
            // Guests have threads of their own, where waiting for the disk holds nobody up.
            .allow_blocking_current_thread(true);
        #[cfg(feature = "compiler")]
        if let Some(model) = &self.model {
            model.show(&mut wasi)?;
        }
        let mut store =
            store(self.pre.engine(), State::new(wasi.build(), self.models.clone(), self.memory, stderr));
        let instance = match self.pre.instantiate_async(&mut store).await {
            Ok(instance) => instance,
            Err(error) => return Err(explain(&store, error).into()),
        };
        let exports = self.exports.load(&mut store, &instance)?;
        let http = self.http.as_ref().map(|http| http.load(&mut store, &instance)).transpose()?;
        Ok(Guest { store, exports, http })
    }
}

/// Everything that a component may import.
pub(crate) fn linker(engine: &Engine) -> anyhow::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    nn::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// A store whose guest keeps to its limits.
pub(crate) fn store(engine: &Engine, state: State) -> Store<State> {
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.memory);
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);
    store
}

/// Compiles, or finds what was compiled before; a cache that cannot be used costs time only.
#[cfg(feature = "compiler")]
pub(crate) fn compile(engine: &Engine, wasm: &[u8]) -> anyhow::Result<Component> {
    match Cache::open(u64::MAX) {
        Ok(cache) => cache.compile(engine, "the component without a model", wasm),
        Err(error) => {
            tracing::debug!("compiled components are not cached: {error:#}");
            Compiled::new(engine, wasm)?.load(engine)
        }
    }
}

/// One instance of the component with all that belongs to it.
pub(crate) struct Guest {
    store: Store<State>,
    exports: bindings::Model,
    /// Absent where it was not asked for.
    http: Option<Proxy>,
}

/// A generation that runs in a [`Guest`].
#[derive(Clone, Copy)]
pub(crate) struct Generation(ResourceAny);

impl Guest {
    /// Answers an HTTP request: the head of the response goes to `response`, its body follows while
    /// the guest runs.
    pub(crate) async fn handle(
        &mut self,
        request: http::Request<Full<Bytes>>,
        response: oneshot::Sender<Result<http::Response<HyperOutgoingBody>, ErrorCode>>,
    ) -> anyhow::Result<()> {
        let mut http = self.store.data_mut().http();
        let request = http.new_incoming_request(Scheme::Http, request)?;
        let response = http.new_response_outparam(response)?;
        let handler = self.http.as_ref().context("the component takes no requests")?;
        handler
            .wasi_http_incoming_handler()
            .call_handle(&mut self.store, request, response)
            .await
            .map_err(|error| explain(&self.store, error).into())
    }

    /// Loads the model if that has not been done, and says what it is.
    pub(crate) async fn model(&mut self) -> anyhow::Result<ModelInfo> {
        let result = self.exports.wafer_inference_generator().call_model(&mut self.store).await;
        self.answer(result)
    }

    /// Lets the model compute as little as can be.
    #[cfg(feature = "compiler")]
    pub(crate) async fn probe(&mut self) -> anyhow::Result<()> {
        let result = self.exports.wafer_inference_generator().call_probe(&mut self.store).await;
        self.answer(result)
    }

    /// Starts a generation.
    pub(crate) async fn start(&mut self, prompt: &Prompt, options: &Options) -> anyhow::Result<Generation> {
        let result = self
            .exports
            .wafer_inference_generator()
            .generation()
            .call_start(&mut self.store, prompt, options)
            .await;
        self.answer(result).map(Generation)
    }

    /// The next event of a generation.
    pub(crate) async fn next(&mut self, generation: Generation) -> anyhow::Result<Option<Event>> {
        let result = self
            .exports
            .wafer_inference_generator()
            .generation()
            .call_next(&mut self.store, generation.0)
            .await;
        self.answer(result)
    }

    /// Ends a generation, finished or not, and frees what it holds.
    pub(crate) async fn end(&mut self, generation: Generation) -> anyhow::Result<()> {
        generation
            .0
            .resource_drop_async(&mut self.store)
            .await
            .map_err(|error| explain(&self.store, error).into())
    }

    /// One error for both: the guest refused, or it stopped.
    fn answer<T>(&self, result: wasmtime::Result<Result<T, Error>>) -> anyhow::Result<T> {
        match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Error::Invalid(text) | Error::Failed(text))) => Err(anyhow::Error::msg(text)),
            Err(error) => Err(explain(&self.store, error).into()),
        }
    }
}

/// Why a guest stopped, in the order of how much each account says.
pub(crate) fn explain(store: &Store<State>, error: wasmtime::Error) -> Trap {
    let state = store.data();
    Trap::new(
        error,
        state.memory.refused.map(|wanted| (wanted, state.memory.bytes)),
        state.stderr.last_line(),
    )
}
