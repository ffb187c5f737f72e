//! What the app's manifest sets: defaults of requests, an API key, a store for answers.
//!
//! Variables are read at an instance's first request. A value that makes no sense is answered with an error at every
//! request, /health among them, and never ignored.

use std::cell::RefCell;
use std::rc::Rc;

use sha2::{Digest, Sha256};
use spin_sdk::variables;
use subtle::ConstantTimeEq;
use wafer_component::adapter;
use wafer_component::error::Error;
use wafer_component::service::Service;

use crate::cache::Cache;

/// `name=value,…`: what requests get that do not say otherwise.
const DEFAULTS: &str = "defaults";
/// The key that requests must bring; empty if none is needed.
const API_KEY: &str = "api_key";
/// The label of the key-value store for answers; empty if none are kept.
const CACHE: &str = "cache";
/// What anybody may ask, as those do who watch whether a server is well.
const OPEN_PATHS: [&str; 2] = ["/health", "/livez"];

thread_local! {
    /// Read once in an instance. A failure is not remembered.
    static SETTINGS: RefCell<Option<Rc<Settings>>> = const { RefCell::new(None) };
}

/// The settings of this instance.
pub(crate) struct Settings {
    defaults: Option<String>,
    /// The digest of the key: digests are of one length, so that comparing them tells nothing of the key's.
    key: Option<[u8; 32]>,
    pub(crate) cache: Option<Cache>,
}

impl Settings {
    /// The settings; an error is for the operator.
    pub(crate) async fn current() -> Result<Rc<Self>, String> {
        if let Some(settings) = SETTINGS.with_borrow(Clone::clone) {
            return Ok(settings);
        }
        let key = variable(API_KEY).await?;
        let cache = match variable(CACHE).await? {
            Some(label) => Some(Cache::open(label).await?),
            None => None,
        };
        let key = key.map(|key| Sha256::digest(key).into());
        let settings = Rc::new(Self { defaults: variable(DEFAULTS).await?, key, cache });
        SETTINGS.set(Some(Rc::clone(&settings)));
        Ok(settings)
    }

    /// The loaded model, with the defaults.
    pub(crate) fn service(&self) -> Result<&'static Service, Error> {
        let service = adapter::service()?;
        if let Some(defaults) = &self.defaults {
            service.overrule(defaults)?;
        }
        Ok(service)
    }

    /// Whether a request may be answered.
    pub(crate) fn admit(&self, request: &http::Request<Vec<u8>>) -> bool {
        let Some(key) = &self.key else { return true };
        if OPEN_PATHS.contains(&request.uri().path()) {
            return true;
        }
        let given = request.headers().get(http::header::AUTHORIZATION).map(|value| value.as_bytes());
        let given = given.and_then(|value| {
            let (scheme, token) = value.split_at_checked(b"Bearer ".len())?;
            scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
        });
        given.is_some_and(|token| Sha256::digest(token).as_slice().ct_eq(key).into())
    }
}

/// A variable's value; none if it is empty or the component does not have it.
async fn variable(name: &str) -> Result<Option<String>, String> {
    match variables::get(name).await {
        Ok(value) => Ok(Some(value.trim().to_owned()).filter(|value| !value.is_empty())),
        Err(variables::Error::Undefined(_)) => Ok(None),
        Err(error) => Err(format!("the variable '{name}' cannot be read: {error}")),
    }
}
