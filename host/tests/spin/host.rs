//! A host with Spin's settings, made of the same parts as Spin: wasmtime's `ProxyHandler` keeps instances and
//! hands them requests.
//!
//! WASI 0.2 components get an instance per request; those of 0.3 up to 16 requests at once and 128 in all.
//! Variables and key-value stores are maps. There are no sockets: requests and responses are handed over in memory.

#[path = "../../src/runtime/network.rs"]
mod network;

use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use wasmtime::component::{
    Component, ComponentType, GuestTaskId, Lift, Linker, Lower, Resource, ResourceTable, ResourceType,
};
use wasmtime::{Config, Engine, Store, StoreContextMut};
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::handler::{
    HandlerState, Instance, ProxyHandler, ProxyPre, Request, Response, ShouldAccept, WorkerExpiration,
    WorkerState, WorkerStatus,
};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use network::NoNetwork;

/// Requests that one instance of a WASI 0.3 component answers at once, and in its life.
const CONCURRENT: usize = 16;
const IN_ALL: usize = 128;

type Shared = Arc<Mutex<HashMap<String, Vec<u8>>>>;

/// What an app's manifest says.
#[derive(Clone, Default)]
pub(crate) struct App {
    /// The folder that the component sees as /models.
    pub(crate) models: Option<PathBuf>,
    pub(crate) variables: HashMap<String, String>,
    /// The store called default.
    pub(crate) store: Shared,
    /// Instances that were made.
    pub(crate) instances: Arc<AtomicUsize>,
}

/// Compiles a component, for an engine that all tests share.
pub(crate) fn compile(component: &[u8]) -> Component {
    static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
        let mut config = Config::new();
        config.wasm_component_model_async(true);
        Engine::new(&config).expect("an engine")
    });
    Component::new(&ENGINE, component).expect("a component")
}

/// A component that is being served.
pub(crate) struct Server {
    handler: ProxyHandler<Served>,
    pub(crate) app: App,
}

impl Server {
    pub(crate) fn start(component: &Component, app: App) -> Self {
        let engine = component.engine().clone();
        let mut linker: Linker<State> = Linker::new(&engine);
        let mut linked = || -> wasmtime::Result<()> {
            wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
            wasmtime_wasi::p3::add_to_linker(&mut linker)?;
            wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
            wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
            spin(&mut linker)
        };
        linked().expect("all interfaces can be linked");
        let pre = linker.instantiate_pre(component).expect("all imports are there");
        let newer = wasmtime_wasi_http::p3::bindings::ServicePre::new(pre.clone()).map(ProxyPre::P3);
        let pre = newer.or_else(|_| wasmtime_wasi_http::p2::bindings::ProxyPre::new(pre).map(ProxyPre::P2));
        let pre = pre.expect("a handler of HTTP requests");
        Self { handler: ProxyHandler::new(Served { engine, pre, app: app.clone() }), app }
    }

    /// Sends a request; a GET if there is no body.
    pub(crate) async fn send(&self, path: &str, headers: &[(&str, &str)], body: Option<String>) -> Response {
        let method = if body.is_some() { "POST" } else { "GET" };
        let mut request = http::Request::builder().method(method).uri(format!("http://localhost{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(Bytes::from(body.unwrap_or_default())).map_err(|never| match never {});
        let request: Request = request.body(body.boxed_unsync()).expect("a request");
        self.handler.handle((), request).await.expect("a response")
    }
}

struct Served {
    engine: Engine,
    pre: ProxyPre<State>,
    app: App,
}

impl HandlerState for Served {
    type StoreData = State;
    type WorkerExpiration = Never;
    type WorkerState = Reuse;

    async fn instantiate(&self) -> wasmtime::Result<Instance<State, Never, Reuse>> {
        self.app.instances.fetch_add(1, Ordering::Relaxed);
        let mut wasi = WasiCtx::builder();
        wasi.inherit_stderr();
        if let Some(models) = &self.app.models {
            wasi.preopened_dir(models, "/models", FsPerms::ReadOnly)?;
        }
        let state = State {
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            no_network: NoNetwork,
            table: ResourceTable::new(),
            app: self.app.clone(),
        };
        let mut store = Store::new(&self.engine, state);
        let proxy = self.pre.instantiate_async(&mut store).await?;
        let state = match self.pre {
            ProxyPre::P2(_) => Reuse { concurrent: 1, in_all: 1 },
            ProxyPre::P3(_) => Reuse { concurrent: CONCURRENT, in_all: IN_ALL },
        };
        Ok(Instance { store, proxy, view: State::http, expiration: Never, state })
    }
}

/// Instances are not given up while the test runs.
struct Never;

impl WorkerExpiration for Never {
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>, _: WorkerStatus, _: Instant) -> Poll<()> {
        Poll::Pending
    }
}

struct Reuse {
    concurrent: usize,
    in_all: usize,
}

impl WorkerState for Reuse {
    type StoreData = State;
    type RequestData = ();

    fn should_accept_request(&self, concurrent: usize, in_all: usize) -> ShouldAccept {
        if in_all >= self.in_all {
            ShouldAccept::Never
        } else if concurrent >= self.concurrent {
            ShouldAccept::No
        } else {
            ShouldAccept::Yes
        }
    }

    fn on_request_start(
        &self,
        _: StoreContextMut<'_, State>,
        (): (),
        _: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + Sync>> {
        Box::pin(std::future::pending())
    }

    fn drop(&self, _: Store<State>, result: wasmtime::Result<()>) {
        if let Err(error) = result {
            eprintln!("an instance failed: {error:?}");
        }
    }
}

struct State {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    no_network: NoNetwork,
    table: ResourceTable,
    app: App,
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

/// `spin:variables/variables.error`.
#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum VariableError {
    #[component(name = "invalid-name")]
    InvalidName(String),
    #[component(name = "undefined")]
    Undefined(String),
    #[component(name = "provider")]
    Provider(String),
    #[component(name = "other")]
    Other(String),
}

/// `spin:key-value/key-value.error`.
#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum StoreError {
    #[component(name = "store-table-full")]
    TableFull,
    #[component(name = "no-such-store")]
    NoSuchStore,
    #[component(name = "access-denied")]
    AccessDenied,
    #[component(name = "other")]
    Other(String),
}

/// `spin:key-value/key-value.store`: there is one.
struct KeyValues;

/// Spin's own interfaces, as far as the component uses them.
fn spin(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut variables = linker.instance("spin:variables/variables@3.0.0")?;
    variables.func_wrap_concurrent("get", |accessor, (name,): (String,)| {
        Box::pin(async move {
            let found = accessor.with(|mut access| access.get().app.variables.get(&name).cloned());
            Ok((found.ok_or(VariableError::Undefined(name)),))
        })
    })?;
    let mut stores = linker.instance("spin:key-value/key-value@3.0.0")?;
    stores.resource("store", ResourceType::host::<KeyValues>(), |mut store, representation| {
        store.data_mut().table.delete(Resource::<KeyValues>::new_own(representation))?;
        Ok(())
    })?;
    stores.func_wrap_concurrent("[static]store.open", |accessor, (label,): (String,)| {
        Box::pin(async move {
            if label != "default" {
                return Ok((Err(StoreError::NoSuchStore),));
            }
            let store = accessor.with(|mut access| access.get().table.push(KeyValues))?;
            Ok((Ok(store),))
        })
    })?;
    type Get = (Resource<KeyValues>, String);
    stores.func_wrap_concurrent("[method]store.get", |accessor, (_, key): Get| {
        Box::pin(async move {
            let shared = accessor.with(|mut access| access.get().app.store.clone());
            let found = shared.lock().expect("no panic").get(&key).cloned();
            Ok((Ok::<_, StoreError>(found),))
        })
    })?;
    type Set = (Resource<KeyValues>, String, Vec<u8>);
    stores.func_wrap_concurrent("[method]store.set", |accessor, (_, key, value): Set| {
        Box::pin(async move {
            let shared = accessor.with(|mut access| access.get().app.store.clone());
            shared.lock().expect("no panic").insert(key, value);
            Ok((Ok::<(), StoreError>(()),))
        })
    })?;
    Ok(())
}
