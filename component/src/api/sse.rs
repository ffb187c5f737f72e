//! Frames of server-sent events.
//!
//! Format: <https://html.spec.whatwg.org/multipage/server-sent-events.html>. JSON has no line breaks, so every
//! event is one `data:` line.

use serde_json::Value;

/// What OpenAI's streams end with.
pub(super) const DONE: &[u8] = b"data: [DONE]\n\n";

/// An event.
pub(super) fn data(value: &Value) -> Vec<u8> {
    format!("data: {value}\n\n").into_bytes()
}

/// An error after the stream began: the status is sent already. The last event, no `[DONE]` follows.
pub(super) fn error(value: &Value) -> Vec<u8> {
    format!("event: error\ndata: {value}\n\n").into_bytes()
}

/// A line that clients skip; it keeps the connection alive, and shows whether anybody listens.
pub(super) fn comment(text: &str) -> Vec<u8> {
    format!(": {text}\n\n").into_bytes()
}
