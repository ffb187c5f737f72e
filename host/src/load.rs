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

use crate::config::{Code, Model, Setup};
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
        #[cfg(feature = "compiler")]
        Kind::Component(path) => compile::component(&engine, path, code, &progress)?,
        #[cfg(feature = "compiler")]
        Kind::Model => compile::baked(&engine, model, setup, code, &progress).await?,
        #[cfg(not(feature = "compiler"))]
        Kind::Component(_) | Kind::Model => no_compiler(model)?,
    };
    drop(progress);
    let runtime = Runtime::of(&component, memory)?;
    let mut guest = runtime.instantiate(&"start-up").await?;
    let loaded = guest.model().await.context("cannot load the model");
    let model = match kind {
        Kind::Model => loaded?,
        _ => loaded.hint("a component has to be baked with a model: wafer bake MODEL -o APP.wasm")?,
    };
    Ok(Loaded { runtime, guest, model })
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
