//! The one place where errors become HTTP.
//!
//! What the caller can mend is said in full, as OpenAI's error object. What the caller cannot is told with a
//! request id only; the detail goes to the log under the same id.

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use serde_json::{Value, json};

use super::{BODY_LIMIT, Reply};
use crate::error::Error;
use crate::platform::Platform;

/// What a host or a proxy calls a request, if it does.
const REQUEST_ID: &str = "x-request-id";
/// Bytes of such a name at most; longer ones are not ours to log.
const MAX_REQUEST_ID: usize = 64;

/// What a client is told to wait when there is no room for its request, seconds: about as long as a short answer takes.
const RETRY_SECONDS: u32 = 2;

/// Where the server's faults are reported: to the log in full, to the client by the request's id.
#[derive(Clone)]
pub(super) struct Report<'s> {
    request: String,
    pub(super) platform: &'s dyn Platform,
}

impl<'s> Report<'s> {
    /// The id is the one that the request came with, or a new one.
    pub(super) fn new(headers: &HeaderMap, platform: &'s dyn Platform) -> Self {
        let plain = |id: &&str| {
            (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(plain);
        let request = given.map_or_else(|| format!("req-{:016x}", platform.random()), str::to_owned);
        Self { request, platform }
    }

    /// What is told of an error.
    pub(super) fn refusal(&self, error: Error) -> Refusal {
        let (status, what) = match error {
            Error::Invalid(message) => return Refusal::request(message),
            Error::Parameter { name, message } => return Refusal::parameter(name, message),
            Error::NotFound(message) => {
                let refusal = Refusal::new(StatusCode::NOT_FOUND, message);
                return Refusal { param: Some("model".into()), code: Some("model_not_found"), ..refusal };
            }
            Error::Busy(message) => {
                self.log(&message);
                return Refusal::busy(message);
            }
            Error::Model(_) => (StatusCode::SERVICE_UNAVAILABLE, "the model is not available"),
            Error::Backend(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the model failed"),
        };
        self.log(&error.to_string());
        Refusal::new(status, format!("{what}, see the server's log for request {}", self.request))
    }

    /// What is told of a server that is not set up as its operator meant.
    pub(super) fn misconfigured(&self, problem: &str) -> Refusal {
        self.log(problem);
        Refusal::misconfigured(&self.request)
    }

    /// Tells the operator.
    pub(super) fn log(&self, error: &str) {
        self.platform.log(&format!("error: {}: {error}", self.request));
    }
}

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
    /// After how many seconds it can be tried again.
    retry: Option<u32>,
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None, allow: None, retry: None }
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

    /// A request without the key that it needs, or with another.
    pub(super) fn unauthorized() -> Self {
        let message = "the API key is missing or wrong, send it as 'Authorization: Bearer KEY'";
        Self { code: Some("invalid_api_key"), ..Self::new(StatusCode::UNAUTHORIZED, message) }
    }

    /// A server that is not set up to answer; the detail is for its log.
    pub(super) fn misconfigured(id: &str) -> Self {
        let message = format!("the server is not set up, see its log for request {id}");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// A request that there is no room for now.
    fn busy(message: String) -> Self {
        let code = Some("server_busy");
        Self { code, retry: Some(RETRY_SECONDS), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message) }
    }

    /// A body beyond the limit.
    pub(super) fn too_large() -> Self {
        let message = format!("the body is larger than the limit of {BODY_LIMIT} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message)
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
    pub(super) fn response(self) -> Response<Vec<u8>> {
        let mut response = super::response(self.status, &self.body());
        if let Some(allow) = self.allow {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(seconds) = self.retry {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }

    /// The response as a reply.
    pub(super) fn reply<'s>(self) -> Reply<'s> {
        Reply::Full(self.response())
    }
}
