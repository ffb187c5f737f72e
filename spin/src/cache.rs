//! Answers that are kept: the same question gets the same answer, if nothing about it was drawn at random.
//!
//! An answer's name is a digest of everything that decides it: the tokens of the prompt, the options, and the model,
//! known by the logits of its first step. So another model, or the same with another set-up, finds
//! nothing that is not its own. Stores of Spin forget nothing by themselves; that is left to the operator.

use sha2::{Digest, Sha256};
use spin_sdk::key_value::Store;
use wafer_component::adapter::Wasi;
use wafer_component::platform::Platform;
use wafer_component::service::Service;

/// Names begin with it; another one for another form of answers.
const PREFIX: &str = concat!("wafer-", env!("CARGO_PKG_VERSION"), "-");

/// A key-value store of answers.
pub(crate) struct Cache {
    label: String,
    store: Store,
}

impl Cache {
    /// Opens the store; an error is for the operator.
    pub(crate) async fn open(label: String) -> Result<Self, String> {
        match Store::open(&label).await {
            Ok(store) => Ok(Self { label, store }),
            Err(error) => Err(format!(
                "the key-value store '{label}' cannot be opened: {error}; \
                 hint: key_value_stores in the app's manifest has to list it"
            )),
        }
    }

    /// The name of the answer to what `identity` says, by the endpoint at `path`; none if the model does not work.
    pub(crate) fn name(service: &Service, path: &str, identity: &str) -> Option<String> {
        let model = service.digest().ok()?;
        let mut digest = Sha256::new();
        for part in
            [service.about().id.as_bytes(), &model.to_le_bytes(), path.as_bytes(), identity.as_bytes()]
        {
            // With its length in front, no part can pass for a part of its neighbour.
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        Some(digest.finalize().iter().fold(PREFIX.to_owned(), |name, byte| name + &format!("{byte:02x}")))
    }

    /// An answer that was kept. A store that fails is as good as one that has nothing.
    pub(crate) async fn find(&self, name: &str) -> Option<Vec<u8>> {
        self.store.get(name).await.unwrap_or_else(|error| {
            self.complain(&error);
            None
        })
    }

    /// Keeps an answer.
    pub(crate) async fn keep(&self, name: &str, answer: &[u8]) {
        if let Err(error) = self.store.set(name, answer).await {
            self.complain(&error);
        }
    }

    fn complain(&self, error: &impl std::fmt::Display) {
        Wasi.log(&format!("error: the key-value store '{}': {error}", self.label));
    }
}
