//! Logs go to stderr, as text for people or as one JSON object per line for collectors.
//!
//! What is logged is decided where it happens. The guests' own lines have the target `guest`.

use anyhow::Context;
use std::io::{IsTerminal, stderr};
use tracing_subscriber::EnvFilter;

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// One line of text per event.
    Human,
    /// One JSON object per event.
    Json,
}

/// Starts logging; `filter` is in the syntax of RUST_LOG (`info`, `wafer=debug,guest=warn`, …).
pub(crate) fn start(format: Format, filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::builder()
        .parse(filter)
        .with_context(|| format!("log level {filter:?} is not understood"))?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    match format {
        Format::Human => logs.with_ansi(stderr().is_terminal()).init(),
        Format::Json => logs.json().flatten_event(true).init(),
    }
    Ok(())
}
