//! From what the user named to a component with its model in memory, ready to be instantiated.
//!
//! A model is baked and compiled at its first use, a component compiled; both are found in the cache
//! afterwards. Compiled code runs outside of the sandbox's checks, so it comes from the cache, or from a file
//! that the user vouches for.

use anyhow::{Context, bail};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use std::fs::{self, File};
use std::io::Read;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wasmtime::component::Component;
use wasmtime::{Engine, Precompiled};

use crate::bake::{self, Setup};
use crate::cache::{Cache, Digest};
use crate::config::{Code, Model};
use crate::embedded;
use crate::model::Mount;
use crate::report::WithHint;
use crate::runtime::bindings::generator::ModelInfo;
use crate::runtime::{Compiled, Guest, Runtime, engine, pooled};

/// A spinner on stderr while it lives; nothing where stderr is not a terminal.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Starts to turn, for a model that is loaded.
    pub(crate) fn start(mount: &Mount) -> Self {
        let size = mount.size.map(|size| format!(" ({})", HumanBytes(size))).unwrap_or_default();
        Self::new(format!("loading {}{size}", mount.name))
    }

    fn new(text: String) -> Self {
        let spinner = ProgressBar::new_spinner().with_message(text);
        // The template is a constant; should it ever be wrong, the default looks fine too.
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
            spinner.set_style(style);
        }
        spinner.enable_steady_tick(Duration::from_millis(100));
        Progress(spinner)
    }

    /// Says what is being done now.
    pub(crate) fn phase(&self, text: impl Into<String>) {
        self.0.set_message(text.into());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A model at work.
pub(crate) struct Loaded {
    /// Makes further instances; none of them loads anything.
    pub(crate) runtime: Runtime,
    /// The first instance.
    pub(crate) guest: Guest,
    pub(crate) model: ModelInfo,
}

/// What a file is.
enum Kind {
    /// A model, or whatever the component makes of it.
    Model,
    /// WebAssembly.
    Component(PathBuf),
    /// WebAssembly, compiled.
    Compiled(PathBuf),
}

/// Loads `model`, set up as `setup` says; each instance may use `memory` bytes. `instances` may live at
/// once, none is one at a time.
pub(crate) async fn load(
    model: &Model,
    setup: &Setup,
    code: &Code,
    memory: u64,
    instances: Option<NonZeroU32>,
) -> anyhow::Result<Loaded> {
    let engine = match instances {
        Some(instances) => pooled(instances)?,
        None => engine()?,
    };
    let progress = Progress::new("loading".to_owned());
    let kind = kind(model);
    if let (Kind::Component(path) | Kind::Compiled(path), false) = (&kind, *setup == Setup::default()) {
        let refused: anyhow::Result<Loaded> =
            Err(anyhow::anyhow!("{} was set up when it was baked", path.display()));
        return refused.hint("bake it again with other --name, --defaults, --system or --quantize");
    }
    let component = match &kind {
        Kind::Compiled(path) => compiled(&engine, path, code.trust)?,
        Kind::Component(path) => component(&engine, path, cache(code).as_ref(), &progress)?,
        Kind::Model => baked(&engine, model, setup, cache(code).as_ref(), &progress).await?,
    };
    drop(progress);
    let runtime = Runtime::of(&component, None, memory)?;
    let mut guest = runtime.instantiate(&"start-up").await?;
    let loaded = guest.model().await.context("cannot load the model");
    let model = match kind {
        Kind::Model => loaded?,
        _ => loaded.hint("a component has to be baked with a model: wafer bake MODEL -o APP.wasm")?,
    };
    Ok(Loaded { runtime, guest, model })
}

/// The cache, or a line in the log that says why there is none.
fn cache(code: &Code) -> Option<Cache> {
    Cache::open(code.cache_size)
        .inspect_err(|error| tracing::info!("nothing is cached, every start bakes and compiles: {error:#}"))
        .ok()
}

/// By the first bytes, not by the name; what cannot be read is reported when it is loaded.
fn kind(model: &Model) -> Kind {
    let Model::Path(path) = model else { return Kind::Model };
    let mut magic = Vec::new();
    let read = File::open(path).and_then(|file| file.take(4).read_to_end(&mut magic));
    match (read, magic.as_slice()) {
        (Ok(_), b"\0asm") => Kind::Component(path.clone()),
        (Ok(_), b"\x7fELF") => Kind::Compiled(path.clone()),
        _ => Kind::Model,
    }
}

#[expect(unsafe_code, reason = "the user vouches for the file, see SAFETY")]
fn compiled(engine: &Engine, path: &Path, trust: bool) -> anyhow::Result<Component> {
    let name = path.display();
    if !trust {
        let refused: anyhow::Result<Component> =
            Err(anyhow::anyhow!("{name} is compiled code, which could do whatever this program can"));
        return refused.hint("use the .wasm that it was made from, or say --trust if you made it yourself");
    }
    match Engine::detect_precompiled_file(path) {
        Ok(Some(Precompiled::Component)) => {}
        Ok(_) => bail!("{name} is not a compiled component"),
        Err(error) => {
            return Err(anyhow::Error::from(error)).with_context(|| format!("cannot read {name}"));
        }
    }
    // SAFETY: the user says that this file is what wasmtime made of a component. wasmtime checks that it
    // was the same version with the same settings, for a processor like this one.
    unsafe { Component::deserialize_file(engine, path) }
        .map_err(anyhow::Error::from)
        .with_context(|| format!("{name} was not compiled by this wafer for this processor"))
        .hint("make it anew with wafer bake --compile, or use the .wasm that it was made from")
}

fn component(
    engine: &Engine,
    path: &Path,
    cache: Option<&Cache>,
    progress: &Progress,
) -> anyhow::Result<Component> {
    let name = path.display().to_string();
    let unreadable = || format!("cannot read {name}");
    let compiling = || progress.phase(format!("compiling {name}, once"));
    let Some(cache) = cache else {
        compiling();
        let wasm = fs::read(path).with_context(unreadable)?;
        return Compiled::new(engine, &wasm).with_context(|| name.clone())?.load(engine);
    };
    let content = cache.digest(path).with_context(unreadable)?;
    let key = Digest::of_parts(&[b"component", Digest::of_settings(engine).as_bytes(), content.as_bytes()]);
    if let Some(component) = cache.find(engine, &key) {
        return Ok(component);
    }
    compiling();
    let _lock = cache.lock(&key);
    if let Some(component) = cache.find(engine, &key) {
        return Ok(component);
    }
    let wasm = fs::read(path).with_context(unreadable)?;
    let code = Compiled::new(engine, &wasm).with_context(|| name.clone())?;
    cache.keep(engine, &key, &name, &code)
}

async fn baked(
    engine: &Engine,
    model: &Model,
    setup: &Setup,
    cache: Option<&Cache>,
    progress: &Progress,
) -> anyhow::Result<Component> {
    let mount = Mount::new(model)?;
    let bake = async || {
        progress.phase(format!("baking {}, once", mount.name));
        // An engine of its own: the pool's places are for instances of what is made here.
        let baked = bake::baked(&self::engine()?, embedded::COMPONENT, &mount, setup, progress).await;
        let baked = baked.with_context(|| format!("cannot load {}", mount.name))?;
        progress.phase(format!("compiling {}, once", mount.name));
        anyhow::Ok(baked.wasm)
    };
    let Some(cache) = cache else {
        return Compiled::new(engine, &bake().await?)?.load(engine);
    };
    let content = content(model, &mount, cache).with_context(|| format!("cannot read {}", mount.name))?;
    let key = Digest::of_parts(&[
        b"model",
        Digest::of_settings(engine).as_bytes(),
        Digest::of(embedded::COMPONENT).as_bytes(),
        content.as_bytes(),
        // The model is named after its file.
        mount.guest_path.as_bytes(),
        &serde_json::to_vec(&setup.variables())?,
    ]);
    if let Some(component) = cache.find(engine, &key) {
        return Ok(component);
    }
    // Waiting for another process must not hold up signals.
    let lock = {
        let cache = cache.clone();
        tokio::task::spawn_blocking(move || cache.lock(&key))
    };
    let _lock = lock.await?;
    if let Some(component) = cache.find(engine, &key) {
        return Ok(component);
    }
    cache.keep(engine, &key, &mount.name, &Compiled::new(engine, &bake().await?)?)
}

/// What the model is made of: the digest of its file, or of all files in its directory.
fn content(model: &Model, mount: &Mount, cache: &Cache) -> anyhow::Result<String> {
    match (model, mount.file()) {
        (Model::Demo, _) => Ok(Digest::of(embedded::DEMO_MODEL).to_string()),
        (Model::Path(_), Some(file)) => Ok(cache.digest(&file)?),
        (Model::Path(_), None) => {
            let mut files = Vec::new();
            for entry in fs::read_dir(&mount.directory)? {
                let entry = entry?;
                if entry.path().is_file() {
                    let digest = cache.digest(&entry.path())?;
                    files.push([entry.file_name().as_encoded_bytes(), digest.as_bytes()].concat());
                }
            }
            files.sort();
            let files: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
            Ok(Digest::of_parts(&files).to_string())
        }
    }
}
