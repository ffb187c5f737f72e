//! The one place where errors become HTTP.
//!
//! What the caller can mend is said in full, as OpenAI's error object. What the caller cannot is told with a
//! request id only; the detail goes to the log under the same id.

use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};

use super::{BODY_LIMIT, Reply};
use crate::error::Error;
use crate::platform::Platform;

/// A request that is not answered as asked.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    message: String,
    /// The parameter at fault.
    param: Option<String>,
    code: Option<&'static str>,
    /// The methods that the path knows, for 405.
    allow: Option<&'static str>,
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None, allow: None }
    }

    /// A request that makes no sense as a whole.
    pub(super) fn request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// A parameter with a value that cannot be taken.
    pub(super) fn parameter(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(name.into()), ..Self::request(message) }
    }

    /// A parameter of OpenAI's API that is known, but not implemented.
    pub(super) fn unsupported(name: &str) -> Self {
        let message = format!("parameter '{name}' is not supported yet");
        Self { code: Some("unsupported_parameter"), ..Self::parameter(name, message) }
    }

    /// A value of OpenAI's API that is known, but not implemented.
    pub(super) fn unsupported_value(name: &str, value: &str) -> Self {
        let message = format!("the value '{value}' of parameter '{name}' is not supported yet");
        Self { code: Some("unsupported_value"), ..Self::parameter(name, message) }
    }

    /// A parameter that this endpoint does not know; `nearest` is one that it does.
    pub(super) fn unknown(name: &str, nearest: Option<&str>) -> Self {
        let hint = nearest.map(|known| format!(", did you mean '{known}'?")).unwrap_or_default();
        let message = format!("unknown parameter '{name}'{hint}");
        Self { code: Some("unknown_parameter"), ..Self::parameter(name, message) }
    }

    /// A path that is not there.
    pub(super) fn path(path: &str, known: &[&str]) -> Self {
        let message = format!("unknown path '{path}', known are {}", known.join(", "));
        Self { code: Some("unknown_path"), ..Self::new(StatusCode::NOT_FOUND, message) }
    }

    /// A method that the path does not have.
    pub(super) fn method(method: &Method, path: &str, allow: &'static str) -> Self {
        let message = format!("{path} does not take {method}, it takes {allow}");
        Self { allow: Some(allow), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, message) }
    }

    /// A body beyond the limit.
    pub(super) fn too_large() -> Self {
        let message = format!("the body is larger than the limit of {BODY_LIMIT} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    /// What is told of an error. The detail of one that is not the caller's goes to the log.
    pub(super) fn of(error: Error, platform: &dyn Platform) -> Self {
        let (status, what) = match error {
            Error::Invalid(message) => return Self::request(message),
            Error::Parameter { name, message } => return Self::parameter(name, message),
            Error::NotFound(message) => {
                let refusal = Self::new(StatusCode::NOT_FOUND, message);
                return Self { param: Some("model".into()), code: Some("model_not_found"), ..refusal };
            }
            Error::Model(_) => (StatusCode::SERVICE_UNAVAILABLE, "the model is not available"),
            Error::Backend(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the model failed"),
        };
        let request = format!("req-{:016x}", platform.random());
        platform.log(&format!("error: {request}: {error}"));
        Self::new(status, format!("{what}, see the server's log for request {request}"))
    }

    /// The same refusal, with the parameter `from` called `to`, as this endpoint does.
    pub(super) fn renamed(mut self, from: &str, to: &str) -> Self {
        if self.param.as_deref() == Some(from) {
            self.param = Some(to.into());
        }
        self
    }

    /// OpenAI's error object.
    pub(super) fn body(&self) -> Value {
        let kind = if self.status.is_server_error() { "server_error" } else { "invalid_request_error" };
        json!({"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}})
    }

    /// The response.
    pub(super) fn reply<'s>(self) -> Reply<'s> {
        let mut response = super::response(self.status, &self.body());
        if let Some(allow) = self.allow {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        Reply::Full(response)
    }
}
