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
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use tokio::task::JoinHandle;
use wasmtime_wasi_http::Error;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::answer::{RequestId, Stopped};

/// The requests that wait for a guest or have one.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    count: AtomicUsize,
    closed: AtomicBool,
}

impl InFlight {
    /// One more, for as long as the returned place lives.
    pub(crate) fn enter(all: &Arc<Self>) -> Place {
        all.count.fetch_add(1, Ordering::Relaxed);
        Place(all.clone())
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// From now on it is the server that stops guests, not their clients.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }
}

/// One request among those in flight.
#[derive(Debug)]
pub(crate) struct Place(Arc<InFlight>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A guest at work for a request. Dropping it before the response is complete stops the guest.
#[derive(Debug)]
pub(crate) struct Running {
    id: RequestId,
    task: JoinHandle<Result<(), Stopped>>,
    place: Place,
    released: bool,
}

impl Running {
    /// `task` is the guest.
    pub(crate) fn new(id: RequestId, task: JoinHandle<Result<(), Stopped>>, place: Place) -> Self {
        Running { id, task, place, released: false }
    }

    /// Nobody waits for the guest any more, and it may go on to its own end.
    pub(crate) fn release(&mut self) {
        self.released = true;
    }

    /// Waits for the guest's end.
    pub(crate) async fn outcome(&mut self) -> Result<(), Stopped> {
        std::future::poll_fn(|context| self.poll_outcome(context)).await
    }

    /// To be asked until it is ready, not again.
    fn poll_outcome(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        let joined = ready!(Pin::new(&mut self.task).poll(context));
        self.release();
        Poll::Ready(joined.unwrap_or_else(|error| {
            tracing::error!(request_id = %self.id, "the guest's task ended: {error}");
            Err(Stopped::Failed)
        }))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.released || self.task.is_finished() {
            return;
        }
        self.task.abort();
        let closed = self.place.0.closed.load(Ordering::Relaxed);
        let reason = if closed { "the server stops" } else { "client went away" };
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
        if bodiless || inner.is_end_stream() || left == Some(0) {
            running.release();
        }
        GuestBody { inner, running, left, ended: false }
    }

    /// hyper reads no further than to the announced length, so the end is noticed here.
    fn count(&mut self, bytes: usize) {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(bytes as u64);
            if *left == 0 {
                self.running.release();
            }
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
                Err(_) => self.running.release(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http_body_util::BodyExt;
    use std::collections::VecDeque;

    /// A body of pieces that are there already.
    struct Pieces(VecDeque<&'static str>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece.into()))))
        }
    }

    /// A response `ab` whose guest ends as given, or never.
    fn response(
        ending: Option<Result<(), Stopped>>,
        length: Option<&'static str>,
        bodiless: bool,
    ) -> GuestBody {
        let task = tokio::spawn(async move {
            match ending {
                Some(ending) => ending,
                None => std::future::pending().await,
            }
        });
        let mut headers = HeaderMap::new();
        if let Some(length) = length {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static(length));
        }
        let running = Running::new(RequestId(0), task, InFlight::enter(&Arc::default()));
        GuestBody::new(Pieces(["a", "b"].into()).boxed_unsync(), &headers, bodiless, running)
    }

    #[tokio::test]
    async fn a_body_ends_as_its_guest_does() {
        for (ending, whole) in [(Ok(()), true), (Err(Stopped::Failed), false), (Err(Stopped::TooSlow), false)]
        {
            let collected = response(Some(ending), None, false).collect().await;
            assert_eq!(collected.is_ok(), whole, "{ending:?}");
        }
    }

    #[tokio::test]
    async fn a_guest_is_stopped_when_its_body_is_dropped_before_the_end() {
        for (length, bodiless, read, stopped) in [
            (None, false, 0, true),
            (None, false, 2, true),
            (Some("2"), false, 1, true),
            (Some("2"), false, 2, false),
            (Some("0"), false, 0, false),
            (None, true, 0, false),
        ] {
            let mut body = response(None, length, bodiless);
            for _ in 0..read {
                body.frame().await;
            }
            let guest = body.running.task.abort_handle();
            drop(body);
            tokio::task::yield_now().await;
            assert_eq!(guest.is_finished(), stopped, "{length:?} {bodiless} {read}");
        }
    }

    #[test]
    fn requests_in_flight_are_counted() {
        let all = Arc::default();
        let places = [InFlight::enter(&all), InFlight::enter(&all)];
        assert_eq!(all.count(), 2);
        drop(places);
        assert_eq!(all.count(), 0);
    }
}
