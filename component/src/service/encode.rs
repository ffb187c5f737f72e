//! Texts to vectors and to labels, with a model that is an encoder.
//!
//! All texts of a request are checked before anything is computed; then they are computed one by one as the iterator
//! is driven, so that a caller can stop between them.

use super::{Model, Service};
use crate::encoder::{Answer, Encoder, Label, Task};
use crate::error::{Error, Result};

/// What to do with a text that has more tokens than the model takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TooLong {
    /// It is an error.
    #[default]
    Refuse,
    /// Its end is left out; what belongs around a text stays.
    Truncate,
}

/// What to encode.
#[derive(Debug, Clone, Copy)]
pub enum Input<'t> {
    /// A text; names of special tokens in it are text.
    Text(&'t str),
    /// Token ids, used as they are.
    Tokens(&'t [u32]),
}

/// A text's vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    /// As long as the model's layers are wide.
    pub vector: Vec<f32>,
    /// Tokens that were computed.
    pub tokens: usize,
}

/// A text's labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Classification {
    /// All that the model knows, the surest first.
    pub labels: Vec<Label>,
    /// Tokens that were computed.
    pub tokens: usize,
}

impl Service {
    /// What kind of encoder the model is; none if it generates text.
    pub fn task(&self) -> Option<Task> {
        match &self.model {
            Model::Encoder(encoder) => Some(encoder.task()),
            Model::Generator(_) => None,
        }
    }

    /// The vectors of `inputs`, in their order.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a model that makes no vectors, [`Error::Parameter`] for a text without tokens or with too
    /// many; the iterator's items fail if the computation does.
    pub fn embed<'s>(
        &'s self,
        inputs: &[Input<'_>],
        too_long: TooLong,
    ) -> Result<impl ExactSizeIterator<Item = Result<Embedding>> + use<'s>> {
        let encoder = self.encoder(Task::Embed)?;
        let inputs = self.tokens(encoder, inputs, too_long)?;
        Ok(inputs.into_iter().map(move |tokens| match encoder.answer(&tokens)? {
            Answer::Vector(vector) => Ok(Embedding { vector, tokens: tokens.len() }),
            Answer::Labels(_) => Err(other(Task::Embed)),
        }))
    }

    /// The labels of `inputs`, in their order.
    ///
    /// # Errors
    /// As [`embed`](Self::embed), for a model that makes no labels.
    pub fn classify<'s>(
        &'s self,
        inputs: &[Input<'_>],
        too_long: TooLong,
    ) -> Result<impl ExactSizeIterator<Item = Result<Classification>> + use<'s>> {
        let encoder = self.encoder(Task::Classify)?;
        let inputs = self.tokens(encoder, inputs, too_long)?;
        Ok(inputs.into_iter().map(move |tokens| match encoder.answer(&tokens)? {
            Answer::Labels(labels) => Ok(Classification { labels, tokens: tokens.len() }),
            Answer::Vector(_) => Err(other(Task::Classify)),
        }))
    }

    /// The encoder, if it is for this task.
    fn encoder(&self, task: Task) -> Result<&dyn Encoder> {
        let architecture = &self.about.architecture;
        match &self.model {
            Model::Encoder(encoder) if encoder.task() == task => Ok(encoder.as_ref()),
            Model::Encoder(encoder) => {
                let own = encoder.task();
                Err(Error::Invalid(format!(
                    "this model of architecture {architecture} makes {own}, not {task}"
                )))
            }
            Model::Generator(_) => {
                Err(Error::Invalid(format!("architecture {architecture} generates text, it makes no {task}")))
            }
        }
    }

    /// The checked tokens of all inputs.
    fn tokens(
        &self,
        encoder: &dyn Encoder,
        inputs: &[Input<'_>],
        too_long: TooLong,
    ) -> Result<Vec<Vec<u32>>> {
        let limit = encoder.context_length();
        let tokens = |input: &Input<'_>| {
            let mut tokens = match input {
                Input::Text(text) => self.tokenizer.encode(text, false, true)?,
                Input::Tokens(tokens) => tokens.to_vec(),
            };
            if too_long == TooLong::Truncate {
                self.tokenizer.truncate(&mut tokens, limit);
            }
            encoder.check(&tokens)?;
            Ok(tokens)
        };
        inputs.iter().map(tokens).collect()
    }
}

/// An encoder that answers otherwise than it says.
fn other(task: Task) -> Error {
    Error::Backend(format!("the encoder did not make {task}"))
}
