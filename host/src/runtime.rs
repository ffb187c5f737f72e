//! Components under wasmtime: compiled once, instantiated afresh for every request.
//!
//! A guest gets the model's directory read-only, a clock, random numbers and log lines; no sockets,
//! no outgoing HTTP, no other files. It cannot starve others: every few milliseconds it gives its
//! thread back (epochs). It cannot take more memory than its limit. When its future is dropped, it is
//! gone. What it computes is unknown here: this module moves requests, prompts and text as they are.
//!
//! Without a model directory the component is expected to carry its model.

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use std::fmt::Display;
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;
use wasmtime::component::{Component, Linker, ResourceAny, ResourceTable};
use wasmtime::{Config, Engine, ResourceLimiter, Store};
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::{
    Error as HttpError, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use crate::cache::Cache;
use crate::model::{GUEST_DIRECTORY, Mount};
use crate::output::Output;
use crate::trap::Trap;

use bindings::generator::{Error, Event, ModelInfo, Options, Prompt};

/// How long a guest runs before others get its thread.
const TIME_SLICE: Duration = Duration::from_millis(5);

/// The types of wit/wafer.wit; those of WASI are wasmtime's own.
pub(crate) mod bindings {
    mod generated {
        wasmtime::component::bindgen!({
            path: "../wit",
            world: "portable",
            exports: { default: async },
            require_store_data_send: true,
            with: {
                "wasi:http": wasmtime_wasi_http::p2::bindings::http,
                "wasi": wasmtime_wasi::p2::bindings,
            },
        });
    }

    pub(crate) use generated::exports::wafer::inference::generator;
    pub(crate) use generated::{Portable, PortablePre};
}

/// A compiled component, ready to be instantiated.
pub(crate) struct Runtime {
    pre: bindings::PortablePre<State>,
    model: Option<Mount>,
    memory: u64,
}

impl Runtime {
    /// Compiles a component; every instance may use `memory` bytes.
    pub(crate) fn new(wasm: &[u8], model: Option<Mount>, memory: u64) -> anyhow::Result<Self> {
        let engine = Engine::new(Config::new().epoch_interruption(true))
            .map_err(anyhow::Error::from)
            .context("cannot set up WebAssembly")?;
        let component =
            compile(&engine, wasm).map_err(anyhow::Error::from).context("cannot compile the component")?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
        let pre = linker
            .instantiate_pre(&component)
            .and_then(bindings::PortablePre::new)
            .map_err(anyhow::Error::from)
            .context("the component is not of world wafer:inference/portable")?;
        end_time_slices(&engine)?;
        Ok(Runtime { pre, model, memory })
    }

    /// A fresh instance. Its output is logged with the id of the request that it works for.
    pub(crate) async fn instantiate(&self, request: &impl Display) -> anyhow::Result<Guest> {
        let stderr = Output::new("stderr", request);
        let mut wasi = WasiCtx::builder();
        wasi.stdout(Output::new("stdout", request))
            .stderr(stderr.clone())
            // Guests have threads of their own, where waiting for the disk holds nobody up.
            .allow_blocking_current_thread(true);
        if let Some(model) = &self.model {
            wasi.preopened_dir(&model.directory, GUEST_DIRECTORY, FsPerms::ReadOnly)
                .map_err(anyhow::Error::from)
                .with_context(|| format!("cannot open {}", model.directory.display()))?
                .env("MODEL_PATH", &model.guest_path);
        }
        let state = State {
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            no_network: NoNetwork,
            table: ResourceTable::new(),
            memory: MemoryLimit { bytes: self.memory, refused: None },
            stderr,
        };
        let mut store = Store::new(self.pre.engine(), state);
        store.limiter(|state| &mut state.memory);
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        match self.pre.instantiate_async(&mut store).await {
            Ok(exports) => Ok(Guest { store, exports }),
            Err(error) => Err(explain(&store, error).into()),
        }
    }
}

/// Compiles, or finds what was compiled before; a cache that cannot be used costs time only.
fn compile(engine: &Engine, wasm: &[u8]) -> wasmtime::Result<Component> {
    match Cache::open() {
        Ok(cache) => cache.compile(engine, wasm),
        Err(error) => {
            tracing::info!("compiled components are not cached: {error:#}");
            Component::new(engine, wasm)
        }
    }
}

/// Threads that run guests or serve them, named `name`.
///
/// Guests are tasks that use their whole time slice, so timers and sockets are looked at after every
/// task instead of, as tokio does by default, after 61 of them: 300 ms of guests.
pub(crate) fn executor(name: &str) -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .thread_name(name)
        .event_interval(1)
        .enable_all()
        .build()
        .context("cannot start threads")
}

/// Ends all guests' time slices at a steady pace, for as long as the engine is in use.
fn end_time_slices(engine: &Engine) -> anyhow::Result<()> {
    let engine = engine.weak();
    thread::Builder::new()
        .name("epochs".to_owned())
        .spawn(move || {
            while let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
                drop(engine);
                thread::sleep(TIME_SLICE);
            }
        })
        .context("cannot start a thread")?;
    Ok(())
}

/// One instance of the component with all that belongs to it.
pub(crate) struct Guest {
    store: Store<State>,
    exports: bindings::Portable,
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
        self.exports
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
fn explain(store: &Store<State>, error: wasmtime::Error) -> Trap {
    let state = store.data();
    Trap::new(
        error,
        state.memory.refused.map(|wanted| (wanted, state.memory.bytes)),
        state.stderr.last_line(),
    )
}

/// What a guest has.
struct State {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    no_network: NoNetwork,
    table: ResourceTable,
    memory: MemoryLimit,
    stderr: Output,
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

/// Refuses a guest's own requests.
struct NoNetwork;

type Sent = (http::Response<WasiBody>, Box<dyn Future<Output = Result<(), HttpError>> + Send>);

impl WasiHttpHooks for NoNetwork {
    fn send_request(
        &mut self,
        _: http::Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), HttpError>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent, HttpError>> + Send> {
        Box::new(std::future::ready(Err(HttpError::HttpRequestDenied)))
    }
}

/// Bounds linear memory and remembers what did not fit, so that the reason of a trap can be told.
struct MemoryLimit {
    bytes: u64,
    /// The size of memory that the guest wanted and did not get, bytes.
    refused: Option<u64>,
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let desired = desired as u64;
        let fits = desired <= self.bytes && maximum.is_none_or(|maximum| desired <= maximum as u64);
        if !fits {
            self.refused = Some(desired);
        }
        Ok(fits)
    }

    fn table_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(maximum.is_none_or(|maximum| desired <= maximum))
    }
}
