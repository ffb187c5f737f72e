//! `wasi:http/incoming-handler`: carries requests to the API and its replies back.
//!
//! A reply is written piece by piece as it is computed, and every piece is flushed. The first write that
//! fails means that nobody listens any more: the reply is dropped, which cancels the generation.

use ::http::{Request, Response};

use super::bindings::exports::wasi::http::incoming_handler::Guest;
use super::bindings::wasi::http::types::{
    Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use super::bindings::wasi::io::streams::{OutputStream, StreamError};
use super::{Adapter, Wasi, service};
use crate::api::{self, BODY_LIMIT};
use crate::platform::Platform;

/// Bytes that one `blocking-write-and-flush` may take, by its definition.
const WRITE_LIMIT: usize = 4096;
/// Bytes asked for by one read.
const READ_SIZE: u64 = 64 << 10;
/// Bytes of a body beyond the limit that are read and thrown away, so that a client that sends everything
/// before it listens hears why it was refused.
const DRAIN_LIMIT: usize = 64 << 20;

impl Guest for Adapter {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        let reply = match incoming(request) {
            Ok(request) => api::handle(&request, &service, &Wasi),
            Err(problem) => api::reject(&problem),
        };
        let (head, body) = reply.into_parts();
        let outgoing = match outgoing(&head) {
            Ok(response) => response,
            Err(problem) => return Wasi.log(&format!("error: {problem}")),
        };
        let Ok(sink) = outgoing.body() else { return Wasi.log("error: a response has no body") };
        ResponseOutparam::set(response_out, Ok(outgoing));
        match send(&sink, body) {
            // The host reports a failure here only if it found one of its own.
            Ok(()) => drop(OutgoingBody::finish(sink, None)),
            Err(StreamError::Closed) => Wasi.log("generation cancelled: client went away"),
            Err(StreamError::LastOperationFailed(error)) => {
                Wasi.log(&format!("generation cancelled: client went away: {}", error.to_debug_string()));
            }
        }
    }
}

/// The request as the API takes it; an error is for the client.
fn incoming(request: IncomingRequest) -> Result<Request<Vec<u8>>, String> {
    let method = method(&request.method());
    let uri = request.path_with_query().unwrap_or_else(|| "/".into());
    let body = body(&request)?;
    let mut builder = Request::builder().method(method.as_str()).uri(uri);
    for (name, value) in request.headers().entries() {
        builder = builder.header(name, value);
    }
    builder.body(body).map_err(|error| format!("the request cannot be understood: {error}"))
}

fn method(method: &Method) -> String {
    match method {
        Method::Get => "GET".into(),
        Method::Head => "HEAD".into(),
        Method::Post => "POST".into(),
        Method::Put => "PUT".into(),
        Method::Delete => "DELETE".into(),
        Method::Connect => "CONNECT".into(),
        Method::Options => "OPTIONS".into(),
        Method::Trace => "TRACE".into(),
        Method::Patch => "PATCH".into(),
        Method::Other(name) => name.clone(),
    }
}

/// Reads the body, up to one byte more than the limit: the API refuses that.
fn body(request: &IncomingRequest) -> Result<Vec<u8>, String> {
    let unreadable = || "the request's body cannot be read".to_owned();
    let incoming = request.consume().map_err(|()| unreadable())?;
    let stream = incoming.stream().map_err(|()| unreadable())?;
    let mut body = Vec::new();
    let mut read = 0;
    loop {
        match stream.blocking_read(READ_SIZE) {
            Ok(bytes) => {
                read += bytes.len();
                let room = (BODY_LIMIT + 1).saturating_sub(body.len());
                body.extend_from_slice(&bytes[..bytes.len().min(room)]);
                if read > DRAIN_LIMIT {
                    return Ok(body);
                }
            }
            Err(StreamError::Closed) => return Ok(body),
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(format!("{}: {}", unreadable(), error.to_debug_string()));
            }
        }
    }
}

fn outgoing(head: &Response<()>) -> Result<OutgoingResponse, String> {
    let entries: Vec<(String, Vec<u8>)> =
        head.headers().iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    let fields = Fields::from_list(&entries).map_err(|error| format!("a response's headers: {error}"))?;
    let response = OutgoingResponse::new(fields);
    let status = head.status().as_u16();
    response.set_status_code(status).map_err(|()| format!("the host refuses the status {status}"))?;
    Ok(response)
}

/// Writes and flushes every piece.
fn send(sink: &OutgoingBody, body: impl Iterator<Item = Vec<u8>>) -> Result<(), StreamError> {
    let stream: OutputStream = sink.write().map_err(|()| StreamError::Closed)?;
    for piece in body {
        for part in piece.chunks(WRITE_LIMIT) {
            stream.blocking_write_and_flush(part)?;
        }
    }
    Ok(())
}
