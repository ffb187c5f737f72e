//! A model on the native engine: its weights here, its generation logic in a component beside it.

use anyhow::Context;
use bytesize::ByteSize;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;
use wafer_nn::{Graph, Limits, Options};

use crate::report::WithHint;

/// How long a request waits for memory before it is told to come back later.
const PATIENCE: Duration = Duration::from_secs(30);
/// Requests that wait for it at once.
const QUEUE: usize = 256;

/// How the native engine computes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Native {
    pub(crate) threads: NonZeroUsize,
    /// Bytes of KV cache of all sequences of a model together.
    pub(crate) kv_memory: u64,
}

impl Native {
    /// Loads the weights of the model at `path`; `name` is what messages call it.
    pub(crate) async fn load(
        self,
        path: PathBuf,
        name: &str,
        quantize: Option<&str>,
    ) -> anyhow::Result<Graph> {
        let quantize = quantize.map(str::parse).transpose()?;
        let limits = Limits { kv_bytes: self.kv_memory, patience: PATIENCE, queue: QUEUE };
        let options = Options { threads: self.threads.get(), quantize, limits };
        let load = tokio::task::spawn_blocking(move || Graph::load(&path, &options, &mut |_, _| {}));
        let loaded = load.await.context("loading the model broke off")?;
        let hint = || {
            format!(
                "--kv-memory is {}; a longer cache takes more, a model with a shorter context less",
                ByteSize(self.kv_memory)
            )
        };
        match loaded {
            Err(error @ wafer_nn::Error::Invalid(_)) => {
                Err(error).with_context(|| format!("cannot load {name}")).hint(hint())
            }
            loaded => loaded.with_context(|| format!("cannot load {name}")),
        }
    }
}
