//! Where weights come from.
//!
//! A [`Source`] gives tensors by GGUF's names in their packed form; a file of another kind translates its own
//! names and layouts. Tensors are read and packed a few rows at a time, so that loading needs no second copy.

use std::io::{Read, Seek};

use crate::error::{Error, Result};
use crate::gguf::{Gguf, TensorInfo};
use crate::kernels::{Form, Matrix, ggml};

/// Bytes that are read at once, about.
const CHUNK_BYTES: u64 = 1 << 20;

/// Gives tensors by GGUF's names.
pub(crate) trait Source {
    /// A matrix `[rows, columns]`; `None` if there is no such tensor.
    ///
    /// # Errors
    /// [`Error::Format`] if its shape is another.
    fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<Option<Matrix>>;

    /// A vector; `None` if there is no such tensor.
    ///
    /// # Errors
    /// [`Error::Format`] if its length is another.
    fn vector(&mut self, name: &str, length: usize) -> Result<Option<Vec<f32>>>;
}

/// How far a load has come: bytes read, and bytes in all.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// The tensors of a GGUF file.
pub(crate) struct GgufSource<'a, R> {
    gguf: &'a mut Gguf<R>,
    progress: Progress<'a>,
    done: u64,
    total: u64,
    buffer: Vec<u8>,
}

impl<'a, R: Read + Seek> GgufSource<'a, R> {
    pub(crate) fn new(gguf: &'a mut Gguf<R>, progress: Progress<'a>) -> Self {
        let total = gguf.tensors().values().map(|tensor| tensor.bytes).sum();
        Self { gguf, progress, done: 0, total, buffer: Vec::new() }
    }

    /// Calls `row` with the raw bytes of every row.
    fn rows(&mut self, tensor: &TensorInfo, mut row: impl FnMut(&[u8])) -> Result<()> {
        let rows = tensor.rows() as u64;
        let row_bytes = tensor.bytes / rows;
        let at_once = (CHUNK_BYTES / row_bytes.max(1)).clamp(1, rows);
        let mut first = 0;
        while first < rows {
            let count = at_once.min(rows - first);
            self.buffer.resize((count * row_bytes) as usize, 0);
            self.gguf.read(tensor, first * row_bytes, &mut self.buffer)?;
            self.buffer.chunks_exact(row_bytes as usize).for_each(&mut row);
            first += count;
            self.done += count * row_bytes;
            (self.progress)(self.done, self.total);
        }
        Ok(())
    }

    fn find(&self, name: &str, rows: usize, columns: usize) -> Result<Option<TensorInfo>> {
        let Some(tensor) = self.gguf.tensors().get(name) else { return Ok(None) };
        if (tensor.rows(), tensor.columns()) != (rows, columns) {
            return Err(Error::format(format!(
                "tensor {name} has the shape {:?}, the model's sizes call for [{rows}, {columns}]",
                tensor.shape
            )));
        }
        Ok(Some(tensor.clone()))
    }
}

impl<R: Read + Seek> Source for GgufSource<'_, R> {
    fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<Option<Matrix>> {
        let Some(tensor) = self.find(name, rows, columns)? else { return Ok(None) };
        let mut matrix = Matrix::new(Form::of(tensor.dtype), rows, columns)?;
        self.rows(&tensor, |raw| matrix.push(tensor.dtype, raw))?;
        Ok(Some(matrix))
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Option<Vec<f32>>> {
        let Some(tensor) = self.find(name, 1, length)? else { return Ok(None) };
        let mut values = vec![0.0; length];
        self.rows(&tensor, |raw| ggml::dequantize(tensor.dtype, raw, &mut values))?;
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(Some(values)),
            Some(index) => Err(Error::format(format!("tensor {name} holds {} at {index}", values[index]))),
        }
    }
}
