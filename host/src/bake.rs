//! `wafer bake`: a model and the component become one file that starts with its model in memory.
//!
//! The component is started once, loads the model, and is written down with its memory as it is then
//! (`snapshot`). Nothing is left to read at run time, and what it would have been read with is no longer
//! imported (`seal`). The same inputs give the same bytes. Files appear whole under their names or not at all.

mod seal;
mod size;
mod snapshot;

use anyhow::{Context, bail};
use bytesize::ByteSize;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tempfile::NamedTempFile;
use wasmtime::Engine;

use crate::config::{Bake, Setup, Target, World};
use crate::facts::Facts;
use crate::load::{self, Progress};
use crate::model::Mount;
use crate::nn::Models;
use crate::report::WithHint;
use crate::runtime::{self, Compiled, Runtime, executor};
use crate::signals::Stop;

/// What is made of the same inputs changes with this program's version, and with this number: it goes up when
/// baking changes within one.
pub(crate) const REVISION: &str = concat!(env!("CARGO_PKG_VERSION"), "+1");

/// A component with its model.
pub(crate) struct Baked {
    pub(crate) wasm: Vec<u8>,
    pub(crate) facts: Facts,
}

/// Bakes the model at `mount` into `component`, which computes with `models` if it was built for that.
pub(crate) async fn baked(
    engine: &Engine,
    component: &[u8],
    mount: &Mount,
    setup: &Setup,
    models: &Models,
    progress: &Progress,
) -> anyhow::Result<Baked> {
    // Weights that the host keeps are not in the component.
    let weights_bytes = match models.registry.is_empty() {
        true => size::weights(mount, setup.quantize.as_deref())?,
        false => None,
    };
    size::check(weights_bytes.unwrap_or(0), component.len() as u64)?;
    let prepared = snapshot::prepare(engine, component, mount, &setup.variables(), models).await?;
    let facts = Facts {
        id: prepared.model.id.clone(),
        architecture: prepared.model.architecture.clone(),
        context_length: prepared.model.context_length,
        vocabulary_size: prepared.model.vocabulary_size,
        weights_bytes,
        defaults: setup.defaults.clone(),
        system: setup.system.clone(),
        wafer: env!("CARGO_PKG_VERSION").to_owned(),
    };
    progress.phase("packing");
    let mut wasm = seal::seal(prepared.write().await?).context("cannot take away the imports of no use")?;
    size::check_baked(wasm.len())?;
    facts.append(&mut wasm)?;
    Ok(Baked { wasm, facts })
}

/// Bakes, and writes what was asked for.
pub(crate) fn bake(config: Bake) -> anyhow::Result<()> {
    executor("bake")?.block_on(async {
        let mut stop = Stop::listen()?;
        let work = tokio::spawn(work(config));
        tokio::select! {
            done = work => done.context("baking broke off")?,
            // Files without a name yet are deleted when the work is dropped, with its threads.
            signal = stop.received() => bail!("{signal}: stopped, nothing was written"),
        }
    })
}

async fn work(config: Bake) -> anyhow::Result<()> {
    let started = Instant::now();
    refuse_components(&config)?;
    let mount = Mount::new(&config.model)?;
    let progress = Progress::start(&mount);
    let engine = runtime::engine()?;
    let (setup, models) = match config.world {
        World::Accelerated => {
            let (id, models) = load::models(&mount, &config.setup, config.native).await?;
            (Setup { name: Some(id), ..config.setup.clone() }, models)
        }
        World::Portable | World::Spin => (config.setup.clone(), Models::default()),
    };
    let Baked { wasm, facts } =
        baked(&engine, config.world.component(&mount), &mount, &setup, &models, &progress)
            .await
            .with_context(|| format!("cannot bake {}", mount.name))?;

    progress.phase("writing");
    let mut files = vec![Written::new(config.output.clone(), &wasm)?];
    let code = match &config.compile {
        Some(target) => {
            progress.phase("compiling");
            let code = match target {
                Target::Host => Compiled::new(&engine, &wasm),
                Target::Other(triple) => Compiled::new(&runtime::foreign(triple)?, &wasm),
            }?;
            files.push(Written::new(target.file(&config.output), code.as_bytes())?);
            (*target == Target::Host).then_some(code)
        }
        None => None,
    };
    if config.check {
        progress.phase("checking");
        let code = code.map_or_else(|| Compiled::new(&engine, &wasm), Ok)?;
        let runtime = Runtime::of_model(&code.load(&engine)?, config.instance_memory)?.with_models(models);
        let mut guest = runtime.instantiate(&"check").await?;
        guest.probe().await.context("the baked component does not work")?;
    }
    // A signal ends the work where it waits: here at the latest.
    tokio::task::yield_now().await;
    drop(progress);
    for file in files {
        eprintln!("{}", file.keep()?);
    }
    let weights = facts.weights_bytes.map(|bytes| format!(", {} of it weights", exact(bytes)));
    eprintln!(
        "{} ({}, context {}) is {}{}, baked in {:.1} s",
        facts.id,
        facts.architecture,
        facts.context_length,
        exact(wasm.len() as u64),
        weights.unwrap_or_default(),
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// A size for people and for those who compute with it.
fn exact(bytes: u64) -> String {
    format!("{} ({bytes} bytes)", ByteSize(bytes))
}

/// What is baked already cannot be baked again.
fn refuse_components(config: &Bake) -> anyhow::Result<()> {
    let crate::config::Model::Path(path) = &config.model else { return Ok(()) };
    if !crate::model::is_webassembly(path) {
        return Ok(());
    }
    let name = path.display();
    let bytes = fs::read(path).with_context(|| format!("cannot read {name}"))?;
    let refused = || -> anyhow::Result<()> {
        match Facts::find(&bytes) {
            Some(facts) => bail!("{name} is a component with the model {} baked into it", facts.id),
            None => bail!("{name} is WebAssembly, not a model"),
        }
    };
    refused().hint("name a model, a .gguf file; the component is part of this program")
}

/// A file that is complete, but does not have its name yet.
struct Written {
    file: NamedTempFile,
    path: PathBuf,
}

impl Written {
    fn new(path: PathBuf, bytes: &[u8]) -> anyhow::Result<Self> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let written = || -> std::io::Result<NamedTempFile> {
            let mut file = tempfile::Builder::new().prefix(".wafer-").tempfile_in(directory)?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            Ok(file)
        };
        let size = bytes.len() as u64;
        let file =
            written().with_context(|| format!("cannot write {} ({})", path.display(), ByteSize(size)))?;
        Ok(Written { file, path })
    }

    /// Gives the file its name, and returns a line that says so.
    fn keep(self) -> anyhow::Result<String> {
        use std::os::unix::fs::PermissionsExt;
        let name = self.path.display().to_string();
        let size = self.file.as_file().metadata().map(|metadata| metadata.len());
        // Temporary files are closed to others, which results need not be.
        let mode = fs::Permissions::from_mode(0o644);
        self.file.as_file().set_permissions(mode).with_context(|| format!("cannot open {name} to others"))?;
        self.file.persist(&self.path).with_context(|| format!("cannot write {name}"))?;
        Ok(format!("wrote {name}, {}", exact(size.unwrap_or_default())))
    }
}
