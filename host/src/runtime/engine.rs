//! wasmtime's settings, the same for every command, so that what one compiled another can load.
//!
//! Servers take instances from a pool: memories are mapped once, and after a request only the pages that
//! it wrote are put back (`PAGEMAP_SCAN`, Linux 6.7). The pages of a baked model that were only read
//! stay mapped, so that the next request does not fault them in again.

use anyhow::Context;
use std::num::NonZeroU32;
use std::thread;
use std::time::Duration;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

/// How long a guest runs before others get its thread.
const TIME_SLICE: Duration = Duration::from_millis(5);
/// All that 32 bits can address, bytes.
const LARGEST_MEMORY: usize = 4 << 30;
/// Written pages that a place in the pool keeps for its next guest, bytes. What a request of ordinary
/// length writes (its KV cache, mostly); the rest of a longer one's is given back to the system.
const KEPT_PAGES: usize = 64 << 20;
/// Core modules of one component, and their tables: a baked one has three from the linker, two of stubs, and two
/// tables.
const MODULES: u32 = 8;

/// Engines for instances that are made one at a time.
pub(crate) fn engine() -> anyhow::Result<Engine> {
    start(&settings())
}

/// An engine with room for `instances` at once, or one like [`engine`] where the system cannot do that.
pub(crate) fn pooled(instances: NonZeroU32) -> anyhow::Result<Engine> {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(instances.get())
        .total_memories(instances.get())
        .total_stacks(instances.get())
        .total_core_instances(instances.get().saturating_mul(MODULES))
        .total_tables(instances.get().saturating_mul(MODULES))
        .max_memory_size(LARGEST_MEMORY)
        .table_keep_resident(64 << 10);
    let pooled = |pool: &PoolingAllocationConfig| {
        let mut settings = settings();
        settings.allocation_strategy(InstanceAllocationStrategy::Pooling(pool.clone()));
        start(&settings)
    };
    let mut scanning = pool.clone();
    // Without a scan, what is kept would be overwritten whole after each request: worse than nothing.
    scanning.pagemap_scan(Enabled::Yes).linear_memory_keep_resident(KEPT_PAGES);
    pooled(&scanning)
        .or_else(|error| {
            tracing::info!("pages of weights are not kept from one request to the next: {error:#}");
            pooled(&pool)
        })
        .or_else(|error| {
            tracing::info!("instances are not pooled: {error:#}");
            engine()
        })
}

/// An engine that compiles for another processor or system, with no more than every one of its kind has.
#[cfg(feature = "compiler")]
pub(crate) fn foreign(triple: &str) -> anyhow::Result<Engine> {
    let mut settings = settings();
    settings
        .target(triple)
        .map_err(anyhow::Error::from)
        .with_context(|| format!("{triple} is not a target that this program compiles for"))?;
    Engine::new(&settings).map_err(anyhow::Error::from).context("cannot set up the compiler")
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

fn settings() -> Config {
    let mut settings = Config::new();
    settings
        .epoch_interruption(true)
        // A memory that is not half full is still mapped instead of copied: it is at most the limit of a
        // module's size.
        .memory_guaranteed_dense_image_size(1 << 30);
    settings
}

fn start(settings: &Config) -> anyhow::Result<Engine> {
    let engine = Engine::new(settings).map_err(anyhow::Error::from).context("cannot set up WebAssembly")?;
    end_time_slices(&engine)?;
    Ok(engine)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_of_any_size_give_an_engine() {
        for instances in [1, 19, u32::MAX] {
            let instances = NonZeroU32::new(instances).expect("not zero");
            assert!(pooled(instances).is_ok(), "{instances}");
        }
    }

    #[cfg(feature = "compiler")]
    #[test]
    fn code_of_a_single_engine_runs_in_a_pooled_one() {
        let (single, pooled) = (engine().expect("an engine"), pooled(NonZeroU32::MIN).expect("an engine"));
        let hash = |engine: &Engine| {
            use std::hash::{DefaultHasher, Hash, Hasher};
            let mut hasher = DefaultHasher::new();
            engine.precompile_compatibility_hash().hash(&mut hasher);
            hasher.finish()
        };
        assert_eq!(hash(&single), hash(&pooled));
    }
}
