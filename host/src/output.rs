//! What a guest writes to stdout and stderr becomes log lines, marked with the request's id.
//!
//! The last line on stderr is kept: after a trap it is the guest's own account of the reason.

use bytes::Bytes;
use std::fmt::Display;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// A line that does not end is cut here, bytes.
const LONGEST_LINE: usize = 4096;
/// What a guest may write at once, bytes.
const WRITE_BUDGET: usize = 64 * 1024;

/// One of a guest's two output streams. Clones write to the same stream.
#[derive(Clone)]
pub(crate) struct Output {
    lines: Arc<Mutex<Lines>>,
}

struct Lines {
    request: String,
    stream: &'static str,
    unfinished: Vec<u8>,
    last: Option<String>,
}

impl Output {
    /// A stream (`stdout` or `stderr`) of the guest that works for `request`.
    pub(crate) fn new(stream: &'static str, request: &impl Display) -> Self {
        Output {
            lines: Arc::new(Mutex::new(Lines {
                request: request.to_string(),
                stream,
                unfinished: Vec::new(),
                last: None,
            })),
        }
    }

    /// The last line that says something; Rust's advice about backtraces does not.
    pub(crate) fn last_line(&self) -> Option<String> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.end_line();
        lines.last.clone()
    }

    fn write(&self, bytes: &[u8]) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            lines.add(piece);
        }
    }
}

impl Lines {
    /// Adds a piece that has a line's end at its own end, or none.
    fn add(&mut self, piece: &[u8]) {
        for part in piece.chunks(LONGEST_LINE) {
            self.unfinished.extend_from_slice(part);
            if part.ends_with(b"\n") || self.unfinished.len() >= LONGEST_LINE {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.unfinished).trim_end().to_owned();
        self.unfinished.clear();
        if line.is_empty() {
            return;
        }
        tracing::info!(target: "guest", request_id = self.request, stream = self.stream, "{line}");
        if !line.starts_with("note: ") {
            self.last = Some(line);
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.end_line();
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    /// Logging never blocks, so the stream needs none of the buffering of the default.
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl AsyncWrite for Output {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.write(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[async_trait::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        Output::write(self, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BUDGET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_the_last_that_says_something() {
        let long = "x".repeat(LONGEST_LINE);
        for (writes, expected) in [
            (vec![], None),
            (vec!["\n\n"], None),
            (vec!["one\ntwo\n"], Some("two")),
            (vec!["o", "ne\r\n", "\n"], Some("one")),
            (vec!["no line end"], Some("no line end")),
            (vec!["boom\nnote: run with RUST_BACKTRACE\n"], Some("boom")),
            (vec![&long, "y"], Some("y")),
        ] {
            let output = Output::new("stderr", &"test");
            for write in &writes {
                output.write(write.as_bytes());
            }
            assert_eq!(output.last_line().as_deref(), expected, "{writes:?}");
        }
    }
}
