//! What computes a decoder: the engine in this component, or the host's where the component was built for it.

use std::io::{Read, Seek};

use wafer_engine::{Folder, Gguf, Quantize};

use crate::backend::Backend;
use crate::error::Result;

#[cfg(not(all(target_family = "wasm", feature = "nn")))]
mod chosen {
    use super::*;
    use crate::backend::local::Local;

    /// The model of a GGUF file.
    pub(crate) fn of_gguf<R: Read + Seek>(
        gguf: &mut Gguf<R>,
        _id: &str,
        quantize: Option<Quantize>,
    ) -> Result<Box<dyn Backend>> {
        Ok(Box::new(Local::load(gguf, quantize)?))
    }

    /// The model of a Hugging Face folder.
    pub(crate) fn of_folder(
        folder: &mut Folder,
        _id: &str,
        quantize: Option<Quantize>,
    ) -> Result<Box<dyn Backend>> {
        Ok(Box::new(Local::load_folder(folder, quantize)?))
    }
}

#[cfg(all(target_family = "wasm", feature = "nn"))]
mod chosen {
    use super::*;
    use crate::backend::nn::Nn;

    /// The model that the host has of a GGUF file, under its id. How it is quantised is the host's business.
    pub(crate) fn of_gguf<R: Read + Seek>(
        gguf: &mut Gguf<R>,
        id: &str,
        _quantize: Option<Quantize>,
    ) -> Result<Box<dyn Backend>> {
        Ok(Box::new(Nn::new(id, &gguf.config()?)))
    }

    /// The model that the host has of a Hugging Face folder.
    pub(crate) fn of_folder(
        folder: &mut Folder,
        id: &str,
        _quantize: Option<Quantize>,
    ) -> Result<Box<dyn Backend>> {
        Ok(Box::new(Nn::new(id, &folder.blueprint()?)))
    }
}

pub(crate) use chosen::{of_folder, of_gguf};
