//! Baking and compiling at first use, and finding in the cache what was made then.

use anyhow::Context;
use std::fs;
use std::path::Path;
use wasmtime::Engine;
use wasmtime::component::Component;

use super::Progress;
use crate::bake;
use crate::cache::{Cache, Digest};
use crate::config::{Code, Model, Setup};
use crate::embedded;
use crate::model::Mount;
use crate::nn::Models;
use crate::runtime::{self, Compiled};

/// A component, compiled now or at an earlier start.
pub(super) fn component(
    engine: &Engine,
    path: &Path,
    code: &Code,
    progress: &Progress,
) -> anyhow::Result<Component> {
    let name = path.display().to_string();
    let unreadable = || format!("cannot read {name}");
    let compiling = || progress.phase(format!("compiling {name}, once"));
    let Some(cache) = cache(code) else {
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

/// What is baked.
#[derive(Clone, Copy)]
pub(super) struct Bake<'b> {
    pub(super) component: &'b [u8],
    pub(super) mount: &'b Mount,
    pub(super) setup: &'b Setup,
    /// What it computes through wasi-nn.
    pub(super) models: &'b Models,
}

/// A model, baked and compiled now or at an earlier start.
pub(super) async fn baked(
    engine: &Engine,
    model: &Model,
    what: &Bake<'_>,
    code: &Code,
    progress: &Progress,
) -> anyhow::Result<Component> {
    let Bake { component, mount, setup, models } = *what;
    let bake = async || {
        progress.phase(format!("baking {}, once", mount.name));
        // An engine of its own: the pool's places are for instances of what is made here.
        let baked = bake::baked(&runtime::engine()?, component, mount, setup, models, progress).await;
        let baked = baked.with_context(|| format!("cannot load {}", mount.name))?;
        progress.phase(format!("compiling {}, once", mount.name));
        anyhow::Ok(baked.wasm)
    };
    let Some(cache) = cache(code) else {
        return Compiled::new(engine, &bake().await?)?.load(engine);
    };
    let content = content(model, mount, &cache).with_context(|| format!("cannot read {}", mount.name))?;
    let key = Digest::of_parts(&[
        b"model",
        bake::REVISION.as_bytes(),
        Digest::of_settings(engine).as_bytes(),
        Digest::of(component).as_bytes(),
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

/// The cache, or a line in the log that says why there is none.
fn cache(code: &Code) -> Option<Cache> {
    Cache::open(code.cache_size)
        .inspect_err(|error| tracing::info!("nothing is cached, every start bakes and compiles: {error:#}"))
        .ok()
}
