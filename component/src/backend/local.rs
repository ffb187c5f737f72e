//! The engine inside this component: the forward pass in WebAssembly.

use std::cell::RefCell;
use std::io::{Read, Seek};

use wafer_engine::{Batch, Gguf, Model, Session, Workspace};

use super::{Backend, Sequence};
use crate::error::{Error, Result};

/// A model and the buffers of its forward passes, which run one at a time.
#[derive(Debug)]
pub struct Local {
    model: Model,
    workspace: RefCell<Workspace>,
}

impl Local {
    /// Loads the model of a GGUF file.
    ///
    /// # Errors
    /// [`Error::Model`] for a file that is broken or not supported.
    pub fn load<R: Read + Seek>(gguf: &mut Gguf<R>) -> Result<Self> {
        // One thread: WebAssembly has no other, and native builds of this crate are for tests.
        Ok(Self { model: Model::load(gguf)?, workspace: RefCell::new(Workspace::new(1)) })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }
}

impl Backend for Local {
    fn vocabulary_size(&self) -> usize {
        self.model.config().vocabulary
    }

    fn context_length(&self) -> usize {
        self.model.config().context
    }

    fn start(&self) -> Result<Box<dyn Sequence + '_>> {
        Ok(Box::new(LocalSequence { local: self, session: self.model.session(), logits: Vec::new() }))
    }
}

struct LocalSequence<'a> {
    local: &'a Local,
    session: Session,
    /// The last logits: the workspace is shared with other sequences, so they are copied out of it.
    logits: Vec<f32>,
}

impl Sequence for LocalSequence<'_> {
    fn position(&self) -> usize {
        self.session.position()
    }

    fn truncate(&mut self, position: usize) {
        self.session.truncate(position);
    }

    fn forward(&mut self, tokens: &[u32], outputs: usize) -> Result<&[f32]> {
        let mut workspace = self.local.workspace.borrow_mut();
        let mut batch = [Batch { session: &mut self.session, tokens, outputs }];
        let logits = self.local.model.forward(&mut workspace, &mut batch);
        // The generation loop keeps within the model's limits; if it did not, that is a bug here.
        let logits = logits.map_err(|error| Error::Backend(error.to_string()))?;
        self.logits.clear();
        self.logits.extend_from_slice(logits);
        Ok(&self.logits)
    }
}
