//! The snapshot: a component is started, prepared, and written down with what is in its memory.
//!
//! `wasmtime-wizer` adds exports that show memories and globals, and later writes a component with what
//! they showed in place of its initial data. While it prepares, the guest sees the model's directory, a clock
//! that stands still and numbers that are not random: the same model gives the same bytes.

use anyhow::{Context, bail};
use bytesize::ByteSize;
use std::time::Duration;
use wasmtime::component::{Instance, Lift, WasmList};
use wasmtime::{Engine, Store};
use wasmtime_wasi::random::Deterministic;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx};
use wasmtime_wizer::{ComponentContext, ComponentInstanceState, Wizer};

use crate::model::Mount;
use crate::nn::Models;
use crate::output::Output;
use crate::runtime::bindings::Model;
use crate::runtime::bindings::generator::{Error, ModelInfo};
use crate::runtime::{State, bare_linker, compile, explain, store};

/// The export that loads the model.
const PREPARE: &str = "prepare";
/// Memory of the guest while it prepares, bytes: all that 32 bits can address.
const MEMORY: u64 = 4 << 30;
/// What it may have taken when it is prepared, bytes: looking at a memory needs a page of it, which there would
/// not be at the limit.
const LARGEST_SNAPSHOT: u64 = MEMORY - (1 << 20);

/// A guest that has its model in memory.
pub(super) struct Prepared<'w> {
    wizer: Wizer,
    context: ComponentContext<'w>,
    guest: Inspected,
    pub(super) model: ModelInfo,
}

/// Starts the component and lets it load its model. `variables` is the guest's whole environment beside
/// the model's place.
pub(super) async fn prepare<'w>(
    engine: &Engine,
    component: &'w [u8],
    mount: &Mount,
    variables: &[(&str, &str)],
    models: &Models,
) -> anyhow::Result<Prepared<'w>> {
    let mut wizer = Wizer::new();
    wizer.init_func(PREPARE).keep_init_func(true);
    let (context, instrumented) = wizer
        .instrument_component(component)
        .map_err(anyhow::Error::from)
        .context("the component cannot be baked")?;
    let compiled = compile(engine, &instrumented)?;

    let stderr = Output::new("stderr", &PREPARE);
    let mut store =
        store(engine, State::new(wasi(mount, variables, stderr.clone())?, models.clone(), MEMORY, stderr));
    // The snapshot's bytes count as one call of the guest.
    store.set_hostcall_fuel(usize::MAX);
    let mut guest = match bare_linker(&compiled)?.instantiate_async(&mut store, &compiled).await {
        Ok(instance) => Inspected { store, instance },
        Err(error) => return Err(explain(&store, error).into()),
    };
    let model = guest.prepare().await?;
    let taken = guest.store.data().memory.granted;
    if taken > LARGEST_SNAPSHOT {
        bail!(
            "the model took {} of memory while it was loaded, at most {} can be baked",
            ByteSize(taken),
            ByteSize(LARGEST_SNAPSHOT)
        );
    }
    Ok(Prepared { wizer, context, guest, model })
}

impl Prepared<'_> {
    /// The component with its memory as data.
    pub(super) async fn write(mut self) -> anyhow::Result<Vec<u8>> {
        let written = self.wizer.snapshot_component(&self.context, &mut self.guest).await;
        written.map_err(anyhow::Error::from).context("cannot write the snapshot")
    }
}

fn wasi(mount: &Mount, variables: &[(&str, &str)], stderr: Output) -> anyhow::Result<WasiCtx> {
    let mut wasi = WasiCtx::builder();
    wasi.stdout(Output::new("stdout", &PREPARE))
        .stderr(stderr)
        .allow_blocking_current_thread(true)
        .envs(variables)
        .wall_clock(Stopped)
        .monotonic_clock(Stopped)
        .secure_random(Deterministic::new(vec![0]))
        .insecure_random(Deterministic::new(vec![0]))
        .insecure_random_seed(0);
    mount.show(&mut wasi)?;
    Ok(wasi.build())
}

/// A guest whose memory and globals can be seen.
struct Inspected {
    store: Store<State>,
    instance: Instance,
}

impl Inspected {
    async fn prepare(&mut self) -> anyhow::Result<ModelInfo> {
        let exports = Model::new(&mut self.store, &self.instance)
            .map_err(anyhow::Error::from)
            .context("the component has no model of wafer")?;
        if let Err(error) = exports.call_prepare(&mut self.store).await {
            return Err(explain(&self.store, error).into());
        }
        match exports.wafer_inference_generator().call_model(&mut self.store).await {
            Ok(Ok(model)) => Ok(model),
            Ok(Err(Error::Invalid(text) | Error::Failed(text))) => Err(anyhow::Error::msg(text)),
            Err(error) => Err(explain(&self.store, error).into()),
        }
    }

    /// Calls one of the exports that were added, which can fail only for want of memory: a page that
    /// the answer is written to.
    async fn see<R: Lift + Send + Sync + 'static>(&mut self, instance: &str, function: &str) -> R {
        let call = async {
            let index = self.instance.get_export_index(&mut self.store, None, instance);
            let index = self.instance.get_export_index(&mut self.store, index.as_ref(), function);
            let index = index.ok_or_else(|| wasmtime::Error::msg("an export is missing"))?;
            let function = self.instance.get_typed_func::<(), (R,)>(&mut self.store, index)?;
            function.call_async(&mut self.store, ()).await
        };
        match call.await {
            Ok((value,)) => value,
            Err(error) => panic!("cannot look into the prepared component: {error:#}"),
        }
    }
}

impl ComponentInstanceState for Inspected {
    async fn call_func_ret_list_u8(
        &mut self,
        instance: &str,
        function: &str,
        contents: impl FnOnce(&[u8]) + Send,
    ) {
        let list: WasmList<u8> = self.see(instance, function).await;
        contents(list.as_le_slice(&self.store));
    }

    async fn call_func_ret_s32(&mut self, instance: &str, function: &str) -> i32 {
        self.see(instance, function).await
    }

    async fn call_func_ret_s64(&mut self, instance: &str, function: &str) -> i64 {
        self.see(instance, function).await
    }

    async fn call_func_ret_f32(&mut self, instance: &str, function: &str) -> u32 {
        self.see::<f32>(instance, function).await.to_bits()
    }

    async fn call_func_ret_f64(&mut self, instance: &str, function: &str) -> u64 {
        self.see::<f64>(instance, function).await.to_bits()
    }
}

/// A clock that stands still, at the beginning of its time: what is baked must not depend on when.
struct Stopped;

impl HostWallClock for Stopped {
    fn resolution(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

impl HostMonotonicClock for Stopped {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        0
    }
}
