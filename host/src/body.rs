//! A response's body while its guest runs, and the guest's end when nobody reads the body any more.
//!
//! Two things follow from a body being tied to its guest. When hyper drops the body before its end,
//! the client went away, and the guest is stopped at once. And when the guest closes the body, its
//! end is waited for: a trap then breaks the connection off, instead of making half an answer look
//! like a whole one.

use bytes::Bytes;
use http::{HeaderMap, header};
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::task::JoinHandle;
use wasmtime_wasi_http::Error;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::answer::{Counted, RequestId, Stopped};

/// A guest at work for a request. Dropping it before the response is complete stops the guest.
pub(crate) struct Running {
    id: RequestId,
    task: JoinHandle<Result<(), Stopped>>,
    counted: Counted,
    complete: bool,
}

impl Running {
    /// `task` is the guest.
    pub(crate) fn new(id: RequestId, task: JoinHandle<Result<(), Stopped>>, counted: Counted) -> Self {
        Running { id, task, counted, complete: false }
    }

    /// Waits for the guest's end.
    pub(crate) async fn outcome(&mut self) -> Result<(), Stopped> {
        std::future::poll_fn(|context| self.poll_outcome(context)).await
    }

    /// To be asked until it is ready, not again.
    fn poll_outcome(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        let joined = ready!(Pin::new(&mut self.task).poll(context));
        self.complete = true;
        Poll::Ready(joined.unwrap_or_else(|error| {
            tracing::error!(request_id = %self.id, "the guest's task ended: {error}");
            Err(Stopped::Failed)
        }))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.complete || self.task.is_finished() {
            return;
        }
        self.task.abort();
        let reason = if self.counted.is_closed() { "the server stops" } else { "client went away" };
        tracing::info!(request_id = %self.id, "generation cancelled: {reason}");
    }
}

/// What the guest writes, as the body of a response.
pub(crate) struct GuestBody {
    inner: HyperOutgoingBody,
    running: Running,
    /// Bytes that are still to come, where the head of the response says how many there are.
    left: Option<u64>,
    ended: bool,
}

impl GuestBody {
    /// `bodiless` says that the request's method allows no body, so that none will be read.
    pub(crate) fn new(
        inner: HyperOutgoingBody,
        headers: &HeaderMap,
        bodiless: bool,
        mut running: Running,
    ) -> Self {
        let left = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        running.complete = bodiless || inner.is_end_stream() || left == Some(0);
        GuestBody { inner, running, left, ended: false }
    }

    /// hyper reads no further than to the announced length, so the end is noticed here.
    fn count(&mut self, bytes: usize) {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(bytes as u64);
            self.running.complete = *left == 0;
        }
    }
}

impl Body for GuestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(frame) = ready!(Pin::new(&mut self.inner).poll_frame(context)) {
            match frame.as_ref().map(|frame| frame.data_ref().map(Bytes::len)) {
                Ok(Some(bytes)) => self.count(bytes),
                Ok(None) => {}
                // The guest gave its body up; how it goes on is its own affair.
                Err(_) => self.running.complete = true,
            }
            return Poll::Ready(Some(frame));
        }
        let outcome = ready!(self.running.poll_outcome(context));
        self.ended = true;
        Poll::Ready(match outcome {
            Ok(()) => None,
            Err(_) => Some(Err(Error::HttpResponseIncomplete)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
