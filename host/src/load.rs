//! Loading a model before anything depends on it, with a sign of life for the one who waits.

use anyhow::Context;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use std::time::Duration;

use crate::embedded;
use crate::model::Mount;
use crate::runtime::bindings::generator::ModelInfo;
use crate::runtime::{Guest, Runtime};

/// A spinner on stderr while it lives; nothing where stderr is not a terminal.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Starts to turn.
    pub(crate) fn start(mount: &Mount) -> Self {
        let size = mount.size.map(|size| format!(" ({})", HumanBytes(size))).unwrap_or_default();
        let spinner = ProgressBar::new_spinner().with_message(format!("loading {}{size}", mount.name));
        // The template is a constant; should it ever be wrong, the default looks fine too.
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
            spinner.set_style(style);
        }
        spinner.enable_steady_tick(Duration::from_millis(100));
        Progress(spinner)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A model at work.
pub(crate) struct Loaded {
    /// Makes further instances; each loads the model again, until models are baked into the
    /// component's memory.
    pub(crate) runtime: Runtime,
    /// The instance that the model was loaded in.
    pub(crate) guest: Guest,
    pub(crate) model: ModelInfo,
}

/// Compiles the embedded component and loads the model in an instance of its own, so that a bad model
/// ends the start-up, not a request.
pub(crate) async fn load(mount: Mount, memory: u64) -> anyhow::Result<Loaded> {
    let name = mount.name.clone();
    let runtime = Runtime::new(embedded::COMPONENT, Some(mount), memory)?;
    let mut guest = runtime.instantiate(&"start-up").await?;
    let model = guest.model().await.with_context(|| format!("cannot load {name}"))?;
    Ok(Loaded { runtime, guest, model })
}
