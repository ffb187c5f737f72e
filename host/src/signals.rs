//! The operating system's requests to stop: SIGTERM and SIGINT (Ctrl-C).
//!
//! Once something listens for a signal, the process no longer dies of it by itself; the listener
//! decides. Signals are kept while nobody waits, so none is lost between two waits.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for requests to stop the process.
pub(crate) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// Starts listening for both signals.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        Ok(Stop {
            terminate: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
            interrupt: interrupts()?,
        })
    }

    /// The name of the next signal.
    pub(crate) async fn received(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Starts listening for Ctrl-C alone.
pub(crate) fn interrupts() -> anyhow::Result<Signal> {
    signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")
}
