//! One HTTP request: from hyper to a fresh guest and back.
//!
//! The host reads the whole body first, so that a slow upload holds no guest; waits for a free slot;
//! starts the guest on the guests' threads; and passes the response on. It answers by itself only
//! where there is no guest to answer: too large, too slow, trapped. Bodies and paths are not looked
//! at: routes, models and prompts are the component's.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use serde_json::json;
use std::fmt::{self, Display};
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use wasmtime_wasi_http::Error as HttpError;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::body::{GuestBody, InFlight, Running};
use crate::config::Serve;
use crate::runtime::Runtime;
use crate::trap::Trap;

/// Largest request body that reaches a guest, bytes; the component's own limit is lower.
const LARGEST_BODY: usize = 64 << 20;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Requests without a body (health, models) that run at once. They do not wait behind generations.
pub(crate) const SHORT_REQUESTS: usize = 16;

const REQUEST_ID: &str = "x-request-id";

/// A response's body, from a guest or from the host.
pub(crate) type Body = UnsyncBoxBody<Bytes, HttpError>;

type Head = oneshot::Sender<Result<Response<HyperOutgoingBody>, ErrorCode>>;

/// What all requests share.
pub(crate) struct Server {
    runtime: Arc<Runtime>,
    guests: tokio::runtime::Handle,
    request_timeout: Duration,
    generations: Arc<Semaphore>,
    short: Arc<Semaphore>,
    in_flight: Arc<InFlight>,
    ids: RandomState,
    count: AtomicU64,
}

/// Marks the log lines and the response of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestId(pub(crate) u64);

impl Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "req-{:016x}", self.0)
    }
}

/// Why a guest's task ended without success. The log has the details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// The guest trapped, or could not be started.
    Failed,
    /// It ran into the request timeout.
    TooSlow,
}

/// An answer that the host gives by itself, in OpenAI's shape like the component's.
struct Refusal {
    status: StatusCode,
    kind: &'static str,
    message: String,
}

impl Server {
    /// `guests` runs the guests, `concurrency` generations at once.
    pub(crate) fn new(
        config: &Serve,
        concurrency: NonZeroUsize,
        runtime: Arc<Runtime>,
        guests: tokio::runtime::Handle,
    ) -> Self {
        Server {
            runtime,
            guests,
            request_timeout: config.request_timeout,
            generations: Arc::new(Semaphore::new(concurrency.get().min(Semaphore::MAX_PERMITS))),
            short: Arc::new(Semaphore::new(SHORT_REQUESTS)),
            in_flight: Arc::default(),
            ids: RandomState::new(),
            count: AtomicU64::new(0),
        }
    }

    /// The requests that are being answered.
    pub(crate) fn in_flight(&self) -> &InFlight {
        &self.in_flight
    }

    /// Answers a request, whatever happens.
    pub(crate) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let started = Instant::now();
        let id = RequestId(self.ids.hash_one(self.count.fetch_add(1, Ordering::Relaxed)));
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let mut response = match self.forward(request, id).await {
            Ok(response) => response,
            Err(refusal) => refusal.into_response(),
        };
        mark(response.headers_mut(), id);
        tracing::info!(
            request_id = %id,
            %method,
            path,
            status = response.status().as_u16(),
            seconds = started.elapsed().as_secs_f64(),
            "answered"
        );
        response
    }

    async fn forward(
        self: Arc<Self>,
        request: Request<Incoming>,
        id: RequestId,
    ) -> Result<Response<Body>, Refusal> {
        let request = complete(request, id).await?;
        let place = InFlight::enter(&self.in_flight);
        let (slots, bodiless) = match *request.method() {
            Method::HEAD => (&self.short, true),
            Method::GET | Method::OPTIONS => (&self.short, false),
            _ => (&self.generations, false),
        };
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return Err(Refusal::internal(id));
        };
        let (head, response) = oneshot::channel();
        let task = self.guests.spawn(self.clone().run(request, id, head, slot));
        let mut running = Running::new(id, task, place);
        match response.await {
            Ok(Ok(response)) => {
                let (parts, body) = response.into_parts();
                let body = GuestBody::new(body, &parts.headers, bodiless, running);
                Ok(Response::from_parts(parts, body.boxed_unsync()))
            }
            Ok(Err(code)) => {
                running.release();
                tracing::error!(request_id = %id, "the component gave an error for an answer: {code:?}");
                Err(Refusal::internal(id))
            }
            Err(_) => Err(match running.outcome().await {
                Err(Stopped::TooSlow) => Refusal::too_slow(self.request_timeout, id),
                Err(Stopped::Failed) => Refusal::internal(id),
                Ok(()) => {
                    tracing::error!(request_id = %id, "the component gave no answer");
                    Refusal::internal(id)
                }
            }),
        }
    }

    /// The life of a guest, on the guests' threads. Dropping it stops the guest.
    async fn run(
        self: Arc<Self>,
        request: Request<Full<Bytes>>,
        id: RequestId,
        head: Head,
        _slot: OwnedSemaphorePermit,
    ) -> Result<(), Stopped> {
        let work = async {
            let mut guest = self.runtime.instantiate(&id).await?;
            guest.handle(request, head).await
        };
        match tokio::time::timeout(self.request_timeout, work).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::error!(request_id = %id, "request failed: {error:#}");
                if let Some(trap) = error.downcast_ref::<Trap>() {
                    tracing::debug!(request_id = %id, "{}", trap.detail());
                }
                Err(Stopped::Failed)
            }
            Err(_) => {
                let limit = self.request_timeout.as_secs();
                tracing::warn!(request_id = %id, "request stopped: it took longer than {limit} s");
                Err(Stopped::TooSlow)
            }
        }
    }
}

/// Reads the request to its end and marks it with its id, which the component may tell its caller.
async fn complete(request: Request<Incoming>, id: RequestId) -> Result<Request<Full<Bytes>>, Refusal> {
    let (mut parts, body) = request.into_parts();
    let host = parts.headers.get(header::HOST);
    if parts.uri.authority().is_none() && host.is_none_or(|host| host.to_str().is_err()) {
        return Err(Refusal::caller(StatusCode::BAD_REQUEST, "the request names no host"));
    }
    mark(&mut parts.headers, id);
    let too_large = || {
        let message = format!("the request body is larger than {LARGEST_BODY} bytes");
        Refusal::caller(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    if body.size_hint().lower() > LARGEST_BODY as u64 {
        return Err(too_large());
    }
    let body = Limited::new(body, LARGEST_BODY).collect();
    match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => Ok(Request::from_parts(parts, Full::new(body.to_bytes()))),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => {
            Err(Refusal::caller(StatusCode::BAD_REQUEST, format!("the request body broke off: {error}")))
        }
        Err(_) => Err(Refusal::caller(
            StatusCode::REQUEST_TIMEOUT,
            format!("the request body took longer than {} s", BODY_TIMEOUT.as_secs()),
        )),
    }
}

fn mark(headers: &mut HeaderMap, id: RequestId) {
    if let Ok(value) = HeaderValue::try_from(id.to_string()) {
        headers.insert(REQUEST_ID, value);
    }
}

impl Refusal {
    /// The caller has to act.
    fn caller(status: StatusCode, message: impl Into<String>) -> Self {
        Refusal { status, kind: "invalid_request_error", message: message.into() }
    }

    /// The operator has to act, and finds the reason in the log.
    fn internal(id: RequestId) -> Self {
        Refusal {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            kind: "server_error",
            message: format!("internal error (request id {id})"),
        }
    }

    fn too_slow(limit: Duration, id: RequestId) -> Self {
        let seconds = limit.as_secs();
        Refusal {
            status: StatusCode::GATEWAY_TIMEOUT,
            kind: "server_error",
            message: format!("the request took longer than {seconds} s (request id {id})"),
        }
    }

    fn into_response(self) -> Response<Body> {
        let body = json!({"error": {
            "message": self.message,
            "type": self.kind,
            "param": null,
            "code": null,
        }});
        let body = Full::new(Bytes::from(body.to_string())).map_err(HttpError::from);
        let mut response = Response::new(body.boxed_unsync());
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Status, type and message of a refusal as a client sees it.
    async fn check(refusal: Refusal, status: u16, kind: &str, message: &str) {
        let response = refusal.into_response();
        assert_eq!(response.status().as_u16(), status);
        let body = response.into_body().collect().await.expect("it is complete");
        let body: serde_json::Value = serde_json::from_slice(&body.to_bytes()).expect("it is JSON");
        assert_eq!(body["error"]["type"], kind);
        assert_eq!(body["error"]["message"], message);
    }

    #[tokio::test]
    async fn refusals_have_the_shape_of_the_api() {
        let id = RequestId(0xab);
        check(Refusal::caller(StatusCode::BAD_REQUEST, "no"), 400, "invalid_request_error", "no").await;
        check(Refusal::internal(id), 500, "server_error", "internal error (request id req-00000000000000ab)")
            .await;
        check(
            Refusal::too_slow(Duration::from_secs(2), id),
            504,
            "server_error",
            "the request took longer than 2 s (request id req-00000000000000ab)",
        )
        .await;
    }
}
