//! Models that are loaded, and sequences of them: wasi-nn's graphs and execution contexts.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, RwLock};
use std::thread;

use tokio::sync::oneshot;
use wafer_engine::{Folder, Gguf, Model, Quantize};

use crate::engine::{Engine, Native, Shape};
use crate::error::{Error, Result};
use crate::output::Output;
use crate::prefix::Tenant;
use crate::scheduler::{Id, Limits, Scheduler, Stats, Step};
use crate::worker::{Command, work};

/// How a model is loaded and computed.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Threads that compute.
    pub threads: usize,
    /// What floats become.
    pub quantize: Option<Quantize>,
    /// Bounds of the scheduler.
    pub limits: Limits,
}

/// A loaded model. A clone is the same model; it is freed with the last of its clones and contexts.
#[derive(Debug, Clone)]
pub struct Graph(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    commands: Sender<Command>,
    shape: Shape,
    next: AtomicU64,
}

impl Graph {
    /// Loads a GGUF file or a Hugging Face folder. `progress` is told the bytes read, and all there are.
    ///
    /// # Errors
    /// [`Error::Failed`] if it cannot be read, or is no model that the engine computes; [`Error::Invalid`] if the
    /// memory cannot hold a single sequence.
    pub fn load(path: &Path, options: &Options, progress: &mut dyn FnMut(u64, u64)) -> Result<Self> {
        let model = if path.is_dir() {
            let folder = Folder::open(path);
            folder.and_then(|mut folder| Model::load_folder(&mut folder, options.quantize, progress))
        } else {
            let file = File::open(path);
            let file = file.map_err(|error| Error::Failed(format!("{}: {error}", path.display())))?;
            let gguf = Gguf::open(BufReader::new(file));
            gguf.and_then(|mut gguf| Model::load_with(&mut gguf, options.quantize, progress))
        };
        let model = model.map_err(|error| Error::Failed(format!("{}: {error}", path.display())))?;
        Self::new(Native::new(model, options.threads), options.limits)
    }

    /// Starts the thread that computes.
    pub(crate) fn new(engine: impl Engine + Send + 'static, limits: Limits) -> Result<Self> {
        let scheduler = Scheduler::new(engine, limits)?;
        let shape = scheduler.shape();
        let (commands, received) = mpsc::channel();
        let worker = thread::Builder::new().name("engine".to_owned());
        let started = worker.spawn(move || work(scheduler, &received));
        started.map_err(|error| Error::Failed(format!("cannot start a thread: {error}")))?;
        Ok(Self(Arc::new(Shared { commands, shape, next: AtomicU64::new(0) })))
    }

    /// The model's sizes.
    pub fn shape(&self) -> Shape {
        self.0.shape
    }

    /// A new sequence, whose prefixes are shared with those of the same tenant only.
    pub fn context(&self, tenant: Tenant) -> Context {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.0.tell(Command::Open { id, tenant });
        Context { graph: self.0.clone(), id }
    }

    /// What the scheduler has done so far.
    ///
    /// # Errors
    /// [`Error::Failed`] if its thread has stopped.
    pub async fn stats(&self) -> Result<Stats> {
        let (answer, stats) = oneshot::channel();
        self.0.tell(Command::Stats(answer));
        stats.await.map_err(|_closed| stopped())
    }
}

impl Shared {
    /// If the thread has stopped, whoever waits for an answer notices.
    fn tell(&self, command: Command) {
        if self.commands.send(command).is_err() {
            tracing::error!("the engine's thread has stopped");
        }
    }
}

fn stopped() -> Error {
    Error::Failed("the engine's thread has stopped".to_owned())
}

/// A sequence with its KV cache. Dropping it frees the cache, also in the middle of a compute.
#[derive(Debug)]
pub struct Context {
    graph: Arc<Shared>,
    id: Id,
}

impl Context {
    /// Computes a step together with those of all other sequences. Dropped before it is done, it is computed all the
    /// same unless the context is dropped too.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn compute(&mut self, step: Step) -> Result<Output> {
        self.submit(step).await.unwrap_or_else(|_closed| Err(stopped()))
    }

    /// As [`compute`](Self::compute), for threads that may be blocked.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Panics
    /// In an asynchronous task.
    pub fn compute_blocking(&mut self, step: Step) -> Result<Output> {
        self.submit(step).blocking_recv().unwrap_or_else(|_closed| Err(stopped()))
    }

    fn submit(&mut self, step: Step) -> oneshot::Receiver<Result<Output>> {
        let (answer, output) = oneshot::channel();
        // Who asked may be gone.
        let reply = Box::new(move |result| drop(answer.send(result)));
        self.graph.tell(Command::Submit { id: self.id, step, reply });
        output
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.graph.tell(Command::Close { id: self.id });
    }
}

/// The models of a process by name, shared by all who compute.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<RwLock<HashMap<String, Graph>>>);

impl Registry {
    /// The model of this name.
    pub fn get(&self, name: &str) -> Option<Graph> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(name).cloned()
    }

    /// Whether no model is known.
    pub fn is_empty(&self) -> bool {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).is_empty()
    }

    /// Makes a model known; another of the same name is forgotten, and freed when nobody uses it.
    pub fn insert(&self, name: impl Into<String>, graph: Graph) {
        self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner).insert(name.into(), graph);
    }

    /// Forgets a model; it is freed when nobody uses it.
    pub fn remove(&self, name: &str) {
        self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner).remove(name);
    }
}
