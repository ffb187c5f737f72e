//! From what the user named to a component with its model in memory, ready to be instantiated.
//!
//! A model is baked and compiled at its first use, a component compiled; both are found in the cache
//! afterwards (`compile`). Compiled code runs outside of the sandbox's checks, so it comes from the cache, or from a
//! file that the user vouches for. That is all that a program without the feature `compiler` can run.

#[cfg(feature = "compiler")]
mod compile;

use anyhow::{Context, bail};
#[cfg(feature = "compiler")]
use indicatif::HumanBytes;
use indicatif::{ProgressBar, ProgressStyle};
use std::fs::File;
use std::io::Read;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wasmtime::component::Component;
use wasmtime::{Engine, Precompiled};

#[cfg(feature = "compiler")]
use crate::config::Compute;
use crate::config::{Code, Model, Setup};
#[cfg(feature = "compiler")]
use crate::embedded;
#[cfg(feature = "compiler")]
use crate::model::Mount;
#[cfg(feature = "compiler")]
use crate::native::Native;
use crate::nn::Models;
use crate::report::WithHint;
use crate::runtime::bindings::generator::ModelInfo;
use crate::runtime::{Guest, Runtime, engine, pooled};

/// A spinner on stderr while it lives; nothing where stderr is not a terminal.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Starts to turn, for a model that is loaded.
    #[cfg(feature = "compiler")]
    pub(crate) fn start(mount: &crate::model::Mount) -> Self {
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
    #[cfg(feature = "compiler")]
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

/// What to load, and how.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) model: Model,
    pub(crate) setup: Setup,
    #[cfg(feature = "compiler")]
    pub(crate) compute: Compute,
    pub(crate) code: Code,
    /// Bytes that each instance may use.
    pub(crate) memory: u64,
    /// Instances that may live at once; none is one at a time.
    pub(crate) instances: Option<NonZeroU32>,
}

/// Whether a model is computed by the native engine: if that was asked for, or it can.
///
/// # Errors
/// If it was asked for and cannot.
#[cfg(feature = "compiler")]
pub(crate) fn is_native(model: &Model, compute: &Compute) -> anyhow::Result<bool> {
    use crate::cli::Engine;
    let (name, can) = match model {
        Model::Demo => ("the demo model".to_owned(), true),
        Model::Path(path) => {
            let is_model = matches!(kind(model), Kind::Model);
            (path.display().to_string(), is_model && crate::model::is_decoder(path))
        }
    };
    match compute.engine {
        Some(Engine::Native) if !can => {
            let refused: anyhow::Result<bool> =
                Err(anyhow::anyhow!("{name} is nothing that the native engine computes"));
            refused.hint("use --engine wasm, or none")
        }
        Some(Engine::Wasm) => Ok(false),
        Some(Engine::Native) | None => Ok(can),
    }
}

/// Loads a model.
pub(crate) async fn load(wanted: Wanted) -> anyhow::Result<Loaded> {
    let Wanted { model, setup, code, memory, instances, .. } = &wanted;
    let engine = match instances {
        Some(instances) => pooled(*instances)?,
        None => engine()?,
    };
    let progress = Progress::new("loading".to_owned());
    let kind = kind(model);
    if let (Kind::Component(path) | Kind::Compiled(path), false) = (&kind, *setup == Setup::default()) {
        let refused: anyhow::Result<Loaded> =
            Err(anyhow::anyhow!("{} was set up when it was baked", path.display()));
        return refused.hint("bake it again with other --name, --defaults, --system or --quantize");
    }
    let (component, models) = match &kind {
        Kind::Compiled(path) => (compiled(&engine, path, code.trust)?, Models::default()),
        #[cfg(feature = "compiler")]
        Kind::Component(path) => (compile::component(&engine, path, code, &progress)?, Models::default()),
        #[cfg(feature = "compiler")]
        Kind::Model => with_model(&engine, &wanted, &progress).await?,
        #[cfg(not(feature = "compiler"))]
        Kind::Component(_) | Kind::Model => (no_compiler(model)?, Models::default()),
    };
    drop(progress);
    let runtime = Runtime::of(&component, *memory)?.with_models(models);
    let mut guest = runtime.instantiate(&"start-up").await?;
    let loaded = guest.model().await.context("cannot load the model");
    let model = match kind {
        Kind::Model => loaded?,
        _ => loaded.hint("a component has to be baked with a model: wafer bake MODEL -o APP.wasm")?,
    };
    Ok(Loaded { runtime, guest, model })
}

/// A model's generation logic, with its weights inside or on the native engine.
#[cfg(feature = "compiler")]
async fn with_model(
    engine: &Engine,
    wanted: &Wanted,
    progress: &Progress,
) -> anyhow::Result<(Component, Models)> {
    let mount = Mount::new(&wanted.model)?;
    let (component, setup, models) = if is_native(&wanted.model, &wanted.compute)? {
        progress.phase(format!("loading {}", mount.name));
        let (id, models) = models(&mount, &wanted.setup, wanted.compute.native).await?;
        (embedded::ACCELERATED, Setup { name: Some(id), ..wanted.setup.clone() }, models)
    } else {
        (mount.component(), wanted.setup.clone(), Models::default())
    };
    let bake = compile::Bake { component, mount: &mount, setup: &setup, models: &models };
    let component = compile::baked(engine, &wanted.model, &bake, &wanted.code, progress).await?;
    Ok((component, models))
}

/// A model on the native engine, and the id that its component knows it by.
#[cfg(feature = "compiler")]
pub(crate) async fn models(mount: &Mount, setup: &Setup, native: Native) -> anyhow::Result<(String, Models)> {
    let path = mount.weights().with_context(|| format!("{} is not one model", mount.name))?;
    // As the component names models: a folder's name may have dots that begin no extension.
    let stem = if path.is_dir() { path.file_name() } else { path.file_stem() };
    let stem = || stem.map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let id = setup.name.clone().unwrap_or_else(stem);
    let models = Models::default();
    models.registry.insert(&id, native.load(path, &mount.name, setup.quantize.as_deref()).await?);
    Ok((id, models))
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

/// What a program without a compiler says to everything that has to be compiled.
#[cfg(not(feature = "compiler"))]
fn no_compiler(model: &Model) -> anyhow::Result<Component> {
    let name = match model {
        Model::Demo => "the demo model".to_owned(),
        Model::Path(path) => path.display().to_string(),
    };
    let refused: anyhow::Result<Component> =
        Err(anyhow::anyhow!("{name} is not compiled, and this wafer was built without a compiler"));
    let hint = format!(
        "make an APP.cwasm with a wafer that has one: wafer bake MODEL -o APP.wasm --compile={}-unknown-linux-gnu",
        std::env::consts::ARCH
    );
    refused.hint(hint)
}
