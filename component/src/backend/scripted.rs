//! A backend whose logits are a function of the tokens so far. For tests of everything above the seam.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::{Backend, Sequence, shared};
use crate::error::Result;

/// The logits that follow some tokens, or an error.
type Next = dyn Fn(&[u32]) -> Result<Vec<f32>>;

/// What was asked of the backend.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Sequences that were started and not dropped yet.
    pub(crate) alive: Cell<usize>,
    /// Every forward pass: number of tokens, number of outputs.
    pub(crate) forwards: RefCell<Vec<(usize, usize)>>,
}

/// See the module.
pub(crate) struct Scripted {
    vocabulary: usize,
    context: usize,
    next: Box<Next>,
    kept: Vec<u32>,
    pub(crate) record: Rc<Record>,
}

impl Scripted {
    /// A backend with `next` as its model.
    pub(crate) fn new(
        vocabulary: usize,
        context: usize,
        next: impl Fn(&[u32]) -> Result<Vec<f32>> + 'static,
    ) -> Self {
        Self { vocabulary, context, next: Box::new(next), kept: Vec::new(), record: Rc::default() }
    }

    /// A backend that is sure of what follows: after a token of `chain` the next one there, after any other
    /// the first.
    pub(crate) fn chain(vocabulary: usize, context: usize, chain: &[u32]) -> Self {
        let chain = chain.to_vec();
        Self::new(vocabulary, context, move |before| {
            let last = before.last().and_then(|last| chain.iter().position(|token| token == last));
            let next = chain[last.map_or(0, |last| (last + 1) % chain.len())];
            let mut logits = vec![0.0; vocabulary];
            logits[next as usize] = 100.0;
            Ok(logits)
        })
    }
}

impl Backend for Scripted {
    fn vocabulary_size(&self) -> usize {
        self.vocabulary
    }

    fn context_length(&self) -> usize {
        self.context
    }

    fn start(&self, prompt: &[u32]) -> Result<Box<dyn Sequence + '_>> {
        self.record.alive.set(self.record.alive.get() + 1);
        let tokens = self.kept[..shared(&self.kept, prompt)].to_vec();
        let cached = tokens.len();
        Ok(Box::new(Script { backend: self, tokens, cached, logits: Vec::new() }))
    }

    fn keep(&mut self, tokens: &[u32]) -> Result<()> {
        self.kept = tokens.to_vec();
        Ok(())
    }
}

struct Script<'b> {
    backend: &'b Scripted,
    tokens: Vec<u32>,
    cached: usize,
    logits: Vec<f32>,
}

impl Sequence for Script<'_> {
    fn position(&self) -> usize {
        self.tokens.len()
    }

    fn truncate(&mut self, position: usize) {
        self.tokens.truncate(position);
    }

    fn cached(&self) -> usize {
        self.cached
    }

    fn forward(&mut self, tokens: &[u32], outputs: usize) -> Result<&[f32]> {
        self.backend.record.forwards.borrow_mut().push((tokens.len(), outputs));
        self.logits.clear();
        for (index, &token) in tokens.iter().enumerate() {
            self.tokens.push(token);
            if index + outputs >= tokens.len() {
                self.logits.extend((self.backend.next)(&self.tokens)?);
            }
        }
        assert!(self.tokens.len() <= self.backend.context, "beyond the context");
        Ok(&self.logits)
    }
}

impl Drop for Script<'_> {
    fn drop(&mut self) {
        self.backend.record.alive.set(self.backend.record.alive.get() - 1);
    }
}
