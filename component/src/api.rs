//! The HTTP API: a request in, a response out, as bytes.
//!
//! No sockets and no WASI; the adapters bring requests and carry replies away. Every path is one module, and
//! [`routes`] is their table. Wire types stay inside: the rest of the component knows neither JSON nor status
//! codes. Whatever a request holds that is not supported is refused by name, see [`fields`].

mod chat;
mod completions;
mod error;
mod fields;
mod generate;
mod health;
mod models;
mod options;
mod probabilities;
mod run;
mod sse;
mod tokens;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use serde_json::Value;

use self::error::{Refusal, Report};
use crate::error::Error;
use crate::platform::Platform;
use crate::service::Service;

pub use self::run::{Stream, Whole};

/// Bytes of a request's body at most.
pub const BODY_LIMIT: usize = 16 << 20;
/// Bytes of a body that adapters read and throw away beyond that, so that a client that sends everything before it
/// listens hears why it was refused.
pub const DRAIN_LIMIT: usize = 64 << 20;

/// A response.
pub enum Reply<'s> {
    /// All of it.
    Full(Response<Vec<u8>>),
    /// One that is whole when its last step is taken.
    Whole(Whole<'s>),
    /// Server-sent events, computed step by step.
    Stream(Stream<'s>),
}

impl<'s> Reply<'s> {
    /// Splits the reply for an adapter that may block: the head, and the body in pieces, which are not empty and
    /// computed as they are read. To stop reading is to cancel.
    pub fn into_parts(self) -> (Response<()>, Box<dyn Iterator<Item = Vec<u8>> + 's>) {
        let response = match self {
            Self::Full(response) => response,
            Self::Whole(mut whole) => loop {
                whole.platform().pause();
                if let Some(response) = whole.step() {
                    break response;
                }
            },
            Self::Stream(mut stream) => {
                let pieces = std::iter::from_fn(move || {
                    stream.platform().pause();
                    stream.step()
                });
                return (Stream::head(), Box::new(pieces.filter(|piece| !piece.is_empty())));
            }
        };
        let (head, body) = split(response);
        (head, Box::new(std::iter::once(body)))
    }
}

/// A response's head, which says how long the body is, and its body.
pub fn split(response: Response<Vec<u8>>) -> (Response<()>, Vec<u8>) {
    let (mut parts, body) = response.into_parts();
    // A reply to HEAD has no body, but must not claim that there is none to GET.
    if !body.is_empty() {
        parts.headers.insert(header::CONTENT_LENGTH, body.len().into());
    }
    (Response::from_parts(parts, ()), body)
}

/// What every endpoint works with. The model is asked for only where it is needed: the first to ask may have
/// to wait for it to be loaded.
struct Context<'c, 's> {
    service: &'c dyn Fn() -> Result<&'s Service, Error>,
    report: Report<'s>,
}

impl<'s> Context<'_, 's> {
    fn service(&self) -> Result<&'s Service, Refusal> {
        (self.service)().map_err(|error| self.report.refusal(error))
    }

    fn platform(&self) -> &'s dyn Platform {
        self.report.platform
    }
}

type Endpoint = for<'s> fn(&Request<Vec<u8>>, &Context<'_, 's>) -> Result<Reply<'s>, Refusal>;

const POST: &str = "POST";
const GET: &str = "GET, HEAD";

/// The API's table of contents: path, methods, module. A path that ends in `{id}` takes any text there.
const ROUTES: [(&str, &str, Endpoint); 9] = [
    ("/generate", POST, generate::answer),
    ("/v1/chat/completions", POST, chat::answer),
    ("/v1/completions", POST, completions::answer),
    ("/v1/models", GET, models::list),
    ("/v1/models/{id}", GET, models::retrieve),
    ("/tokenize", POST, tokens::tokenize),
    ("/detokenize", POST, tokens::detokenize),
    ("/health", GET, health::health),
    ("/livez", GET, health::livez),
];

/// Answers a request. `service` is called when the model is needed, once.
pub fn handle<'s>(
    request: &Request<Vec<u8>>,
    service: &dyn Fn() -> Result<&'s Service, Error>,
    platform: &'s dyn Platform,
) -> Reply<'s> {
    let context = Context { service, report: Report::new(request.headers(), platform) };
    answer(request, &context).unwrap_or_else(Refusal::reply)
}

/// The answer to a request that lacks the key it needs.
pub fn unauthorized() -> Response<Vec<u8>> {
    Refusal::unauthorized().response()
}

/// The answer of a server whose operator has to act: `problem`, which is logged, says how.
pub fn misconfigured(headers: &HeaderMap, problem: &str, platform: &dyn Platform) -> Response<Vec<u8>> {
    Report::new(headers, platform).misconfigured(problem).response()
}

/// The answer to what is no HTTP request: `problem` says why.
pub fn reject(problem: &str) -> Response<Vec<u8>> {
    Refusal::request(problem).response()
}

/// The answer that was given before: `body` is that of an answer with status 200.
pub fn answered(body: Vec<u8>) -> Response<Vec<u8>> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn answer<'s>(request: &Request<Vec<u8>>, context: &Context<'_, 's>) -> Result<Reply<'s>, Refusal> {
    let path = request.uri().path();
    let Some((_, allow, endpoint)) = ROUTES.iter().find(|(pattern, ..)| matches(pattern, path)) else {
        let known: Vec<&str> = ROUTES.iter().map(|(pattern, ..)| *pattern).collect();
        return Err(Refusal::path(path, &known));
    };
    let method = request.method();
    if !allow.split(", ").any(|allowed| allowed == method.as_str()) {
        return Err(Refusal::method(method, path, allow));
    }
    if request.body().len() > BODY_LIMIT {
        return Err(Refusal::too_large());
    }
    let mut reply = endpoint(request, context)?;
    if let (&Method::HEAD, Reply::Full(response)) = (method, &mut reply) {
        response.body_mut().clear();
    }
    Ok(reply)
}

/// Whether a path is what a route's pattern means.
fn matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix("{id}") {
        Some(start) => path.strip_prefix(start).is_some_and(|id| !id.is_empty()),
        None => path == pattern,
    }
}

/// A JSON response.
fn response(status: StatusCode, body: &Value) -> Response<Vec<u8>> {
    let mut response = answered(body.to_string().into_bytes());
    *response.status_mut() = status;
    response
}

/// A JSON response with status 200.
fn json<'s>(body: &Value) -> Reply<'s> {
    Reply::Full(response(StatusCode::OK, body))
}

#[cfg(test)]
mod tests;
