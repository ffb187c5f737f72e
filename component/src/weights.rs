//! The tensors of a Hugging Face folder, for models that are written with candle.
//!
//! candle's models ask for tensors by the names that their own family has in transformers. A folder may put a prefix
//! before all of them, and a related family may call some of them otherwise: that is data here. A tensor is read
//! when it is asked for, widened to 32 bits, and checked against the shape that the configuration calls for before
//! anything is allocated for it.

use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::var_builder::{SimpleBackend, VarBuilder};
use candle_nn::{Init, Linear};
use wafer_engine::Folder;

use crate::error::Error;

/// How a folder's names come out of those that are asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    /// What may stand before all of them; the first that fits.
    pub(crate) prefixes: &'static [&'static str],
    /// Parts to replace, in this order, and what by.
    pub(crate) parts: &'static [(&'static str, &'static str)],
}

/// A folder's tensors.
pub(crate) struct Weights<'f> {
    /// candle's interface wants something that threads could share; there is only one.
    folder: Mutex<&'f mut Folder>,
    names: Names,
}

impl<'f> Weights<'f> {
    pub(crate) fn new(folder: &'f mut Folder, names: Names) -> Self {
        Self { folder: Mutex::new(folder), names }
    }

    /// A tensor of this shape.
    pub(crate) fn tensor(&self, name: &str, expected: &[usize]) -> Result<Tensor> {
        let mut folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = self.place(&folder, name) else {
            candle_core::bail!("tensor {} is missing", self.renamed(name))
        };
        let found = folder.shape(&place).unwrap_or_default();
        if found != expected {
            candle_core::bail!(
                "tensor {place} has the shape {found:?}, the model's sizes call for {expected:?}"
            )
        }
        let values = folder.floats(&place).map_err(candle_core::Error::msg)?.unwrap_or_default();
        Tensor::from_vec(values, expected, &Device::Cpu)
    }

    /// The dimensions of a tensor; `None` if there is none of that name.
    pub(crate) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        folder.shape(&self.place(&folder, name)?).map(<[usize]>::to_vec)
    }

    /// A matrix `[outputs, inputs]` with a bias.
    pub(crate) fn linear(&self, name: &str, inputs: usize, outputs: usize) -> Result<Linear> {
        let weight = self.tensor(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = self.tensor(&format!("{name}.bias"), &[outputs])?;
        Ok(Linear::new(weight, Some(bias)))
    }

    fn renamed(&self, name: &str) -> String {
        self.names.parts.iter().fold(name.to_owned(), |name, (part, by)| name.replace(part, by))
    }

    fn place(&self, folder: &Folder, name: &str) -> Option<String> {
        let name = self.renamed(name);
        let mut places = self.names.prefixes.iter().map(|prefix| format!("{prefix}{name}"));
        places.find(|place| folder.shape(place).is_some())
    }
}

/// Makes one of candle's models from a source of tensors.
pub(crate) fn builder<'a>(source: impl SimpleBackend + 'a) -> VarBuilder<'a> {
    VarBuilder::from_backend(Box::new(source), DType::F32, Device::Cpu)
}

impl SimpleBackend for &Weights<'_> {
    fn get(&self, shape: Shape, name: &str, _: Init, _: DType, _: &Device) -> Result<Tensor> {
        self.tensor(name, shape.dims())
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        let shape = self.shape(name).unwrap_or_default();
        self.tensor(name, &shape)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.shape(name).is_some()
    }
}

/// What went wrong while a model was made: its files are at fault.
pub(crate) fn broken(error: candle_core::Error) -> Error {
    Error::Model(error.to_string())
}

/// What went wrong while a model computed.
pub(crate) fn failed(error: candle_core::Error) -> Error {
    Error::Backend(error.to_string())
}

/// How many tokens attention may take at once, so that its scores (a number for every head and pair of tokens) keep
/// within 256 MiB. A configuration may promise anything.
pub(crate) fn attention_limit(heads: usize) -> usize {
    const SCORES: usize = 1 << 26;
    (SCORES / heads.max(1)).isqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_has_a_bound() {
        for (heads, tokens) in [(0, 8192), (1, 8192), (12, 2364), (64, 1024), (usize::MAX, 0)] {
            assert_eq!(attention_limit(heads), tokens, "{heads} heads");
        }
    }
}
