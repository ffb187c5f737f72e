//! The seam between the generation logic and the forward pass: tokens in, logits out.
//!
//! Implementations: the engine inside this component (`local`), encoder-decoders written with candle (`seq2seq`) and
//! a script for tests (`scripted`); one that calls the host through wasi-nn comes with the world `accelerated`.
//! Nothing here knows texts or templates.

mod batch;
pub mod local;
#[cfg(test)]
pub(crate) mod scripted;
#[cfg(feature = "candle")]
pub(crate) mod seq2seq;

use crate::error::Result;

/// How many tokens of a prompt a sequence can take from kept ones. The last one is always computed, because
/// its logits are wanted.
fn shared(kept: &[u32], prompt: &[u32]) -> usize {
    let common = kept.iter().zip(prompt).take_while(|(kept, token)| kept == token).count();
    common.min(prompt.len().saturating_sub(1))
}

/// A loaded model: immutable, shared by all sequences.
pub trait Backend {
    /// Number of token ids, which is the length of a row of logits.
    fn vocabulary_size(&self) -> usize;

    /// Prompt and output tokens together that a sequence can hold.
    fn context_length(&self) -> usize;

    /// Whether the output goes on where the prompt ends. Otherwise it is a text of its own.
    fn is_continuation(&self) -> bool {
        true
    }

    /// A new sequence for a prompt. It may hold the prompt's beginning already, see
    /// [`position`](Sequence::position), but never all of it.
    ///
    /// # Errors
    /// [`Error::Backend`](crate::error::Error::Backend) where its memory cannot be had.
    fn start(&self, prompt: &[u32]) -> Result<Box<dyn Sequence + '_>>;

    /// Computes `tokens` once, so that sequences for prompts that begin with them, or with a part of them, need
    /// not. Replaces what was kept before. Ids must be below the vocabulary's size.
    ///
    /// # Errors
    /// [`Error::Backend`](crate::error::Error::Backend) if the computation fails,
    /// [`Error::Model`](crate::error::Error::Model) if this kind of model cannot do that.
    fn keep(&mut self, tokens: &[u32]) -> Result<()>;

    /// Frees what forward passes left behind for the next one.
    fn tidy(&mut self) {}

    /// Computes steps that sequences have announced, see [`Sequence::announce`], in one pass. What fails is left
    /// to [`Sequence::forward`], which can say why.
    fn pass(&self) {}
}

/// One sequence of tokens with its KV cache. Dropping it frees the cache.
pub trait Sequence {
    /// Number of tokens in the KV cache.
    fn position(&self) -> usize;

    /// Cuts the KV cache to its first `position` tokens; longer than the cache is no change.
    fn truncate(&mut self, position: usize);

    /// Appends `tokens` and returns the logits of the last `outputs` of them, `[outputs, vocabulary]` row by
    /// row. Ids must be below the vocabulary's size, and the position must stay within the context.
    ///
    /// # Errors
    /// [`Error::Backend`](crate::error::Error::Backend) if the computation fails; the position is then
    /// unchanged.
    fn forward(&mut self, tokens: &[u32], outputs: usize) -> Result<&[f32]>;

    /// Says what the next [`forward`](Self::forward) will be called with, so that [`Backend::pass`] can compute the
    /// steps of several sequences together. It is a hint: without a pass, `forward` computes as ever.
    fn announce(&mut self, _tokens: &[u32], _outputs: usize) {}

    /// False while passes have something left to compute of what was announced.
    fn is_computed(&self) -> bool {
        true
    }
}
