//! The engine inside this component: the forward pass in WebAssembly.

use std::cell::RefCell;
use std::io::{Read, Seek};
use std::rc::Rc;

use wafer_engine::{Batch, Folder, Gguf, Model, Quantize, Session, Workspace};

use super::batch::{Queue, Slot};
use super::{Backend, Sequence, shared};
use crate::error::{Error, Result};
use crate::generate::CHUNK;

/// A model and the buffers of its forward passes, which run one at a time.
#[derive(Debug)]
pub struct Local {
    model: Model,
    workspace: RefCell<Workspace>,
    kept: Option<Kept>,
    queue: Queue,
}

/// The beginning of prompts to come, computed.
#[derive(Debug)]
struct Kept {
    tokens: Vec<u32>,
    /// Exactly these tokens; its pages are shared with the sequences that start from them.
    session: Session,
}

impl Local {
    /// Loads the model of a GGUF file.
    ///
    /// # Errors
    /// [`Error::Model`] for a file that is broken or not supported.
    pub fn load<R: Read + Seek>(gguf: &mut Gguf<R>, quantize: Option<Quantize>) -> Result<Self> {
        Ok(Self::new(Model::load_with(gguf, quantize, &mut |_, _| {})?))
    }

    /// Loads the model of a Hugging Face folder.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_folder(folder: &mut Folder, quantize: Option<Quantize>) -> Result<Self> {
        Ok(Self::new(Model::load_folder(folder, quantize, &mut |_, _| {})?))
    }

    fn new(model: Model) -> Self {
        // One thread: WebAssembly has no other, and native builds of this crate are for tests.
        Self { model, workspace: RefCell::new(Workspace::new(1)), kept: None, queue: Queue::default() }
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

    fn start(&self, prompt: &[u32]) -> Result<Box<dyn Sequence + '_>> {
        let session = match &self.kept {
            Some(kept) => {
                let mut session = kept.session.clone();
                session.truncate(shared(&kept.tokens, prompt));
                session
            }
            None => self.model.session(),
        };
        Ok(Box::new(LocalSequence { local: self, slot: Slot::new(session), logits: Vec::new() }))
    }

    fn keep(&mut self, tokens: &[u32]) -> Result<()> {
        // A workspace of its own: what a long prompt needs is freed here, not kept.
        let mut workspace = Workspace::new(1);
        let mut session = self.model.session();
        for chunk in tokens.chunks(CHUNK) {
            let mut batch = [Batch { session: &mut session, tokens: chunk, outputs: 0 }];
            let computed = self.model.forward(&mut workspace, &mut batch);
            computed.map_err(|error| Error::Backend(error.to_string()))?;
        }
        self.kept = Some(Kept { tokens: tokens.to_vec(), session });
        Ok(())
    }

    fn tidy(&mut self) {
        self.workspace = RefCell::new(Workspace::new(1));
    }

    fn pass(&self) {
        self.queue.pass(&self.model, &mut self.workspace.borrow_mut());
    }
}

struct LocalSequence<'a> {
    local: &'a Local,
    /// Shared with the queue of announced steps, which forgets it when the sequence is dropped.
    slot: Rc<RefCell<Slot>>,
    /// The last logits: the workspace is shared with other sequences, so they are copied out of it.
    logits: Vec<f32>,
}

impl Sequence for LocalSequence<'_> {
    fn position(&self) -> usize {
        self.slot.borrow().position()
    }

    fn truncate(&mut self, position: usize) {
        self.slot.borrow_mut().truncate(position);
    }

    fn forward(&mut self, tokens: &[u32], outputs: usize) -> Result<&[f32]> {
        let mut slot = self.slot.borrow_mut();
        let rest = slot.take(tokens, outputs, &mut self.logits);
        if !rest.is_empty() {
            let mut workspace = self.local.workspace.borrow_mut();
            let mut batch = [Batch { session: slot.session(), tokens: rest, outputs }];
            let logits = self.local.model.forward(&mut workspace, &mut batch);
            // The generation loop keeps within the model's limits; if it did not, that is a bug here.
            let logits = logits.map_err(|error| Error::Backend(error.to_string()))?;
            self.logits.clear();
            self.logits.extend_from_slice(logits);
        }
        Ok(&self.logits)
    }

    fn announce(&mut self, tokens: &[u32], outputs: usize) {
        self.local.queue.announce(&self.slot, tokens, outputs);
    }

    fn is_computed(&self) -> bool {
        self.slot.borrow().is_computed()
    }
}
