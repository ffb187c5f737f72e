//! Loading a model before anything depends on it, with a sign of life for the one who waits.

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use crate::model::Mount;
use crate::runtime::Runtime;
use crate::runtime::bindings::generator::ModelInfo;

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

/// Loads the model in an instance of its own, so that a bad one ends the start-up, not a request.
///
/// The instance is not kept: every request loads the model again, until models are baked into the
/// component's memory.
pub(crate) async fn check(runtime: Arc<Runtime>) -> anyhow::Result<ModelInfo> {
    let mut guest = runtime.instantiate(&"start-up").await?;
    guest.model().await.with_context(|| format!("cannot load {}", runtime.model_name()))
}
