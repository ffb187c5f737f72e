//! Encoder-decoders (T5) behind the seam: the prompt goes to the encoder, the output starts with a token of its own.
//!
//! To the loop it looks like any sequence: it is given the prompt, and the logits after the prompt's last token are
//! those of the output's first. An encoder reads its prompt as a whole, so tokens are collected until the prompt is
//! complete; then it is encoded and the decoder takes its start token, which no one outside sees or counts. The encoder
//! is candle's; why the decoder is not stands in [`decoder`].

mod decoder;
mod settings;

use std::cell::RefCell;

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::Init;
use candle_nn::var_builder::SimpleBackend;
use candle_transformers::models::t5::T5EncoderModel;
use wafer_engine::Folder;

use self::decoder::{Decoder, State};
pub(crate) use self::settings::FAMILIES;
use self::settings::Settings;
use super::{Backend, Sequence};
use crate::error::{Error, Result};
use crate::weights::{self, Names, Weights, attention_limit, broken, failed};

/// What the embeddings may be called; the first is T5's own name.
const EMBEDDINGS: [&str; 3] = ["shared", "encoder.embed_tokens", "decoder.embed_tokens"];

/// A loaded encoder-decoder.
pub(crate) struct Seq2Seq {
    /// candle's keeps room for a cache, which an encoder has no use for.
    encoder: RefCell<T5EncoderModel>,
    decoder: Decoder,
    vocabulary: usize,
    context: usize,
    start: u32,
}

impl Seq2Seq {
    /// Loads the model of a Hugging Face folder.
    ///
    /// # Errors
    /// [`Error::Model`] for what is broken, missing, or not supported.
    pub(crate) fn load(folder: &mut Folder) -> Result<Self> {
        let settings = Settings::read(folder.config())?;
        let weights = Weights::new(folder, Names { prefixes: &[""], parts: &[] });
        let named = EMBEDDINGS.map(|name| format!("{name}.weight"));
        let name = named.iter().find(|name| weights.shape(name).is_some()).unwrap_or(&named[0]);
        let tokens = weights.tensor(name, &[settings.vocab_size, settings.d_model]).map_err(broken)?;
        let source = Shared { weights: &weights, tokens: &tokens };
        let encoder = T5EncoderModel::load(weights::builder(source), &settings.encoder()?);
        Ok(Self {
            encoder: RefCell::new(encoder.map_err(broken)?),
            decoder: Decoder::load(&weights, &settings, tokens.clone()).map_err(broken)?,
            vocabulary: settings.vocab_size,
            // Positions are relative and have no end, attention's memory has one.
            context: attention_limit(settings.num_heads),
            start: settings.start(),
        })
    }

    /// Reads a prompt and takes in the start token; returns what logits are made of as well.
    fn read(&self, prompt: &[u32]) -> candle_core::Result<(State, Tensor)> {
        let ids = Tensor::new(prompt, &Device::Cpu)?.unsqueeze(0)?;
        let encoded = self.encoder.borrow_mut().forward(&ids)?.squeeze(0)?;
        let mut state = self.decoder.start(&encoded)?;
        let hidden = self.decoder.step(&mut state, self.start)?;
        Ok((state, hidden))
    }
}

impl Backend for Seq2Seq {
    fn vocabulary_size(&self) -> usize {
        self.vocabulary
    }

    fn context_length(&self) -> usize {
        self.context
    }

    fn is_continuation(&self) -> bool {
        false
    }

    fn start(&self, prompt: &[u32]) -> Result<Box<dyn Sequence + '_>> {
        let (length, logits) = (prompt.len(), Vec::new());
        Ok(Box::new(Translation { model: self, length, prompt: Vec::new(), output: None, logits }))
    }

    fn keep(&mut self, _tokens: &[u32]) -> Result<()> {
        Err(Error::Model(
            "an encoder-decoder reads a prompt as a whole, no part of it can be computed in advance".into(),
        ))
    }
}

/// A prompt and the output that follows it.
struct Translation<'m> {
    model: &'m Seq2Seq,
    /// Tokens of the whole prompt.
    length: usize,
    /// Those that have come.
    prompt: Vec<u32>,
    /// None until the prompt is complete.
    output: Option<State>,
    logits: Vec<f32>,
}

impl Translation<'_> {
    /// Takes a token in; returns what its logits are made of, which tokens inside a prompt have none of.
    fn step(
        &self,
        prompt: &mut Vec<u32>,
        output: &mut Option<State>,
        token: u32,
    ) -> candle_core::Result<Option<Tensor>> {
        if let Some(state) = output {
            return self.model.decoder.step(state, token).map(Some);
        }
        prompt.push(token);
        if prompt.len() < self.length {
            return Ok(None);
        }
        let (state, hidden) = self.model.read(prompt)?;
        *output = Some(state);
        Ok(Some(hidden))
    }
}

impl Sequence for Translation<'_> {
    fn position(&self) -> usize {
        // The start token is not one of the sequence's.
        self.prompt.len() + self.output.as_ref().map_or(0, |state| state.length - 1)
    }

    fn truncate(&mut self, position: usize) {
        if position >= self.position() {
            return;
        }
        match &mut self.output {
            Some(state) if position >= self.length => state.length = position - self.length + 1,
            _ => {
                self.output = None;
                self.prompt.truncate(position);
            }
        }
    }

    fn cached(&self) -> usize {
        0
    }

    fn forward(&mut self, tokens: &[u32], outputs: usize) -> Result<&[f32]> {
        let (mut prompt, mut output) = (self.prompt.clone(), self.output.clone());
        let mut logits = Vec::new();
        for (index, &token) in tokens.iter().enumerate() {
            let hidden = self.step(&mut prompt, &mut output, token).map_err(failed)?;
            if index + outputs < tokens.len() {
                continue;
            }
            let Some(hidden) = hidden else {
                let text = "logits inside the prompt of an encoder-decoder, which has none there";
                return Err(Error::Backend(text.into()));
            };
            logits.extend(self.model.decoder.logits(&hidden).map_err(failed)?);
        }
        (self.prompt, self.output, self.logits) = (prompt, output, logits);
        Ok(&self.logits)
    }
}

/// A folder's tensors for the encoder, which shares the embeddings.
struct Shared<'w, 'f> {
    weights: &'w Weights<'f>,
    tokens: &'w Tensor,
}

impl SimpleBackend for Shared<'_, '_> {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        init: Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        if name == "shared.weight" {
            return Ok(self.tokens.clone());
        }
        self.weights.get(shape, name, init, dtype, device)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        self.weights.get_unchecked(name, dtype, device)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        name == "shared.weight" || self.weights.contains_tensor(name)
    }
}

#[cfg(test)]
mod tests;
