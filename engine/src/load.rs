//! Where weights come from.
//!
//! A [`Source`] gives tensors by GGUF's names in their packed form; a file of another kind translates its own
//! names and layouts. Tensors are read and packed a few rows at a time, so that loading needs no second copy.

use std::io::{Read, Seek};

use crate::error::{Error, Result};
use crate::gguf::{Gguf, TensorInfo};
use crate::kernels::{BLOCK, Form, Matrix, ggml};

/// Bytes that are read at once, about.
pub(crate) const CHUNK_BYTES: u64 = 1 << 20;

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

/// What floats become as they are loaded; weights that are quantised already stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantize {
    /// 8 bits and a scale per 32 weights.
    Q8_0,
    /// 4 bits and a scale per 32 weights.
    Q4_0,
    /// 4 bits, a scale and an offset per 32 weights.
    Q4K,
}

impl Quantize {
    /// All of them, by the names that users know.
    pub const NAMES: [(&str, Self); 3] = [("q8_0", Self::Q8_0), ("q4_0", Self::Q4_0), ("q4_k", Self::Q4K)];

    /// The form of a matrix that a file keeps in the form `own`. Token embedding and output get 8 bits, as a
    /// token's probability is read off them directly; learned positions and rows that are not a multiple of
    /// 32 long stay as they are.
    pub(crate) fn form(wanted: Option<Self>, own: Form, name: &str, columns: usize) -> Form {
        let Some(wanted) = wanted else { return own };
        if own.is_quantized() || !columns.is_multiple_of(BLOCK) || name.starts_with("position_embd") {
            return own;
        }
        match wanted {
            _ if name.starts_with("token_embd") || name.starts_with("output") => Form::Q8,
            Self::Q8_0 => Form::Q8,
            Self::Q4_0 => Form::Q4,
            Self::Q4K => Form::Q4Offset,
        }
    }
}

impl std::str::FromStr for Quantize {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, quantize)| *quantize).ok_or_else(|| {
            Error::unsupported(format!(
                "quantisation {name:?}, known are {}",
                Self::NAMES.map(|n| n.0).join(", ")
            ))
        })
    }
}

/// How far a load has come: bytes read, and bytes in all.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// The tensors of a GGUF file.
pub(crate) struct GgufSource<'a, R> {
    gguf: &'a mut Gguf<R>,
    quantize: Option<Quantize>,
    progress: Progress<'a>,
    done: u64,
    total: u64,
    buffer: Vec<u8>,
}

impl<'a, R: Read + Seek> GgufSource<'a, R> {
    pub(crate) fn new(gguf: &'a mut Gguf<R>, quantize: Option<Quantize>, progress: Progress<'a>) -> Self {
        let total = gguf.tensors().values().map(|tensor| tensor.bytes).sum();
        Self { gguf, quantize, progress, done: 0, total, buffer: Vec::new() }
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
        let form = Quantize::form(self.quantize, Form::of(tensor.dtype), name, columns);
        let mut matrix = Matrix::new(form, rows, columns)?;
        self.rows(&tensor, |raw| matrix.push(tensor.dtype, raw))?;
        Ok(Some(matrix))
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Option<Vec<f32>>> {
        let Some(tensor) = self.find(name, 1, length)? else { return Ok(None) };
        let mut values = vec![0.0; length];
        self.rows(&tensor, |raw| ggml::dequantize(tensor.dtype, raw, &mut values))?;
        finite(name, values).map(Some)
    }
}

/// Refuses infinities and NaN.
pub(crate) fn finite(name: &str, values: Vec<f32>) -> Result<Vec<f32>> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(index) => Err(Error::format(format!("tensor {name} holds {} at {index}", values[index]))),
    }
}
