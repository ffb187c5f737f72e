//! What computes: the seam between the scheduler and the engine.
//!
//! The scheduler sees caches that are made of pages and a forward pass over a batch of them, nothing of weights
//! or kernels. Its tests run on a script instead of an engine.

use wafer_engine::{Batch, Model, Page, Session, Workspace};

use crate::error::{Error, Result};

/// The sizes that a scheduler works with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Number of token ids, which is the length of a row of logits.
    pub vocabulary: usize,
    /// Tokens of a sequence at most.
    pub context: usize,
    /// Tokens of a page of KV cache.
    pub page: usize,
    /// Bytes of a page.
    pub page_bytes: usize,
}

/// What one sequence contributes to a forward pass.
#[derive(Debug)]
pub(crate) struct Part<'a, C> {
    /// Its cache, which the tokens are appended to.
    pub(crate) cache: &'a mut C,
    /// At least one.
    pub(crate) tokens: &'a [u32],
    /// How many of the last tokens want logits.
    pub(crate) outputs: usize,
}

/// A model that computes batches.
pub(crate) trait Engine {
    /// The KV cache of one sequence.
    type Cache: Cache + Send;

    /// The sizes; they never change.
    fn shape(&self) -> Shape;

    /// An empty cache.
    fn cache(&self) -> Self::Cache;

    /// Appends tokens to caches and returns the logits of the parts' last `outputs` tokens, `[Σ outputs, vocabulary]`.
    ///
    /// # Errors
    /// [`Error::Failed`]; no cache has changed then.
    fn forward(&mut self, batch: &mut [Part<'_, Self::Cache>]) -> Result<&[f32]>;
}

/// The KV cache of one sequence, made of pages that can be shared.
pub(crate) trait Cache {
    /// A page. A clone is the same memory.
    type Page: Clone + Send;

    /// Number of tokens in it.
    fn position(&self) -> usize;
    /// Cuts it to its first `position` tokens.
    fn truncate(&mut self, position: usize);
    /// The page of this index.
    fn share(&self, index: usize) -> Option<Self::Page>;
    /// Continues with the first `count` tokens of a page; the cache ends where a page does.
    fn attach(&mut self, page: Self::Page, count: usize);
    /// Puts an equal page in the place of a full one.
    fn replace(&mut self, index: usize, page: Self::Page);
}

/// The engine itself.
#[derive(Debug)]
pub(crate) struct Native {
    model: Model,
    workspace: Workspace,
}

impl Native {
    pub(crate) fn new(model: Model, threads: usize) -> Self {
        Self { model, workspace: Workspace::new(threads) }
    }
}

impl Engine for Native {
    type Cache = Session;

    fn shape(&self) -> Shape {
        let config = self.model.config();
        Shape {
            vocabulary: config.vocabulary,
            context: config.context,
            page: Page::POSITIONS,
            page_bytes: self.model.page_bytes(),
        }
    }

    fn cache(&self) -> Session {
        self.model.session()
    }

    fn forward(&mut self, batch: &mut [Part<'_, Session>]) -> Result<&[f32]> {
        let mut batch: Vec<Batch<'_>> = batch
            .iter_mut()
            .map(|part| Batch { session: part.cache, tokens: part.tokens, outputs: part.outputs })
            .collect();
        let logits = self.model.forward(&mut self.workspace, &mut batch);
        logits.map_err(|error| Error::Failed(error.to_string()))
    }
}

impl Cache for Session {
    type Page = Page;

    fn position(&self) -> usize {
        Session::position(self)
    }

    fn truncate(&mut self, position: usize) {
        Session::truncate(self, position);
    }

    fn share(&self, index: usize) -> Option<Page> {
        Session::share(self, index)
    }

    fn attach(&mut self, page: Page, count: usize) {
        let attached = Session::attach(self, page, count);
        debug_assert!(attached, "the page fits");
    }

    fn replace(&mut self, index: usize, page: Page) {
        Session::replace(self, index, page);
    }
}
