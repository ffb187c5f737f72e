//! Frames of server-sent events.
//!
//! Format: <https://html.spec.whatwg.org/multipage/server-sent-events.html>. JSON has no line breaks, so every
//! event is one `data:` line.

use serde_json::Value;

/// Events that were written and not sent yet, as bytes.
#[derive(Debug, Default)]
pub(super) struct Events(Vec<u8>);

impl Events {
    /// An event.
    pub(super) fn data(&mut self, value: &Value) {
        self.write(&format!("data: {value}\n\n"));
    }

    /// What OpenAI's streams end with.
    pub(super) fn done(&mut self) {
        self.write("data: [DONE]\n\n");
    }

    /// An error after the stream began: the status is sent already. The last event, nothing follows.
    pub(super) fn error(&mut self, value: &Value) {
        self.write(&format!("event: error\ndata: {value}\n\n"));
    }

    /// A line that clients skip; it keeps the connection alive, and shows whether anybody listens.
    pub(super) fn comment(&mut self, text: &str) {
        self.write(&format!(": {text}\n\n"));
    }

    /// The bytes.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn write(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }
}
