//! The tensors of a folder by GGUF's names, packed as they are read.

use std::ops::Range;

use super::names::{self, Layout};
use super::{Folder, Tensor};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::kernels::{Form, Matrix, ggml};
use crate::load::{CHUNK_BYTES, Progress, Quantize, Source, finite};

/// Where the same tensor may be: alone, as part of a model with a head, or of one that also sees.
const PREFIXES: [&str; 3] = ["", "transformer.", "language_model."];

/// Gives the tensors of a [`Folder`].
pub(crate) struct FolderSource<'a> {
    folder: &'a mut Folder,
    architecture: String,
    head_dim: usize,
    /// The embedding is the output matrix too, whatever else the folder has.
    tied: bool,
    quantize: Option<Quantize>,
    progress: Progress<'a>,
    done: u64,
    total: u64,
    buffer: Vec<u8>,
}

impl<'a> FolderSource<'a> {
    pub(crate) fn new(
        folder: &'a mut Folder,
        config: &Config,
        tied: bool,
        quantize: Option<Quantize>,
        progress: Progress<'a>,
    ) -> Self {
        let total = folder.tensors.values().map(Tensor::bytes).sum();
        let (architecture, head_dim) = (config.architecture.clone(), config.head_dim);
        Self { folder, architecture, head_dim, tied, quantize, progress, done: 0, total, buffer: Vec::new() }
    }

    /// The tensor that is called `name` in a GGUF file.
    fn find(&self, name: &str) -> Option<(Tensor, Layout, bool)> {
        let find = |name: &str| {
            let place = names::place(&self.architecture, name)?;
            let tensor = PREFIXES
                .iter()
                .find_map(|prefix| self.folder.tensors.get(&format!("{prefix}{}", place.name)))?;
            Some((tensor.clone(), place.layout, place.plus_one))
        };
        match name {
            "output.weight" if self.tied => None,
            // Some checkpoints with tied matrices keep the other one of the two.
            "token_embd.weight" => find(name).or_else(|| find("output.weight")),
            _ => find(name),
        }
    }

    /// Number of rows of the embedding.
    pub(crate) fn vocabulary(&self) -> Result<usize> {
        let (tensor, ..) = self
            .find("token_embd.weight")
            .ok_or_else(|| Error::format("the folder has no token embedding"))?;
        Ok(tensor.shape.first().copied().unwrap_or(0))
    }

    /// Calls `row` with the raw bytes of the tensor's rows in `order`, in pieces of bounded size.
    fn rows(
        &mut self,
        tensor: &Tensor,
        order: impl Iterator<Item = Range<usize>>,
        mut row: impl FnMut(&[u8]),
    ) -> Result<()> {
        let row_bytes = tensor.bytes() / tensor.shape[0].max(1) as u64;
        let at_once = usize::try_from(CHUNK_BYTES / row_bytes.max(1)).unwrap_or(1).max(1);
        for Range { mut start, end } in order {
            while start < end {
                let count = at_once.min(end - start);
                self.buffer.resize(count * row_bytes as usize, 0);
                self.folder.read(tensor, start as u64 * row_bytes, &mut self.buffer)?;
                self.buffer.chunks_exact(row_bytes as usize).for_each(&mut row);
                start += count;
                self.done += count as u64 * row_bytes;
                (self.progress)(self.done, self.total);
            }
        }
        Ok(())
    }

    /// Calls `row` with the columns of the tensor. It is read as a whole: its columns are scattered in it.
    fn columns(&mut self, tensor: &Tensor, mut row: impl FnMut(&[u8])) -> Result<()> {
        let (inputs, outputs) = (tensor.shape[0], tensor.shape[1]);
        let width = tensor.dtype.type_size();
        let mut whole = vec![0; inputs * outputs * width];
        self.folder.read(tensor, 0, &mut whole)?;
        self.buffer.resize(inputs * width, 0);
        for output in 0..outputs {
            for (to, from) in self.buffer.chunks_exact_mut(width).zip(whole.chunks_exact(outputs * width)) {
                to.copy_from_slice(&from[output * width..][..width]);
            }
            row(&self.buffer);
        }
        self.done += whole.len() as u64;
        (self.progress)(self.done, self.total);
        Ok(())
    }

    /// The order in which rows are wanted: all queries, all keys, all values.
    fn order(&self, layout: Layout, rows: usize) -> Vec<Range<usize>> {
        let whole = 0..rows;
        if layout != Layout::HeadByHead {
            return Vec::from([whole]);
        }
        let (length, heads) = (self.head_dim, rows / (3 * self.head_dim));
        let part = |part: usize| {
            (0..heads).map(move |head| {
                let start = (3 * head + part) * length;
                start..start + length
            })
        };
        (0..3).flat_map(part).collect()
    }
}

impl Source for FolderSource<'_> {
    fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<Option<Matrix>> {
        let Some((tensor, layout, _)) = self.find(name) else { return Ok(None) };
        let expected = if layout == Layout::Transposed { [columns, rows] } else { [rows, columns] };
        if tensor.shape != expected {
            return Err(misshapen(name, &tensor, &expected));
        }
        let form = Quantize::form(self.quantize, Form::of(tensor.dtype), name, columns);
        let mut matrix = Matrix::new(form, rows, columns)?;
        let push = |raw: &[u8]| matrix.push(tensor.dtype, raw);
        if layout == Layout::Transposed {
            self.columns(&tensor, push)?;
        } else {
            let order = self.order(layout, rows);
            self.rows(&tensor, order.into_iter(), push)?;
        }
        Ok(Some(matrix))
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Option<Vec<f32>>> {
        let Some((tensor, layout, plus_one)) = self.find(name) else { return Ok(None) };
        if tensor.shape != [length] {
            return Err(misshapen(name, &tensor, &[length]));
        }
        let mut values = Vec::with_capacity(length);
        let order = self.order(layout, length);
        let dtype = tensor.dtype;
        self.rows(&tensor, order.into_iter(), |raw| {
            let mut value = [0.0];
            ggml::dequantize(dtype, raw, &mut value);
            values.push(if plus_one { value[0] + 1.0 } else { value[0] });
        })?;
        finite(name, values).map(Some)
    }
}

fn misshapen(name: &str, tensor: &Tensor, expected: &[usize]) -> Error {
    let shape = &tensor.shape;
    Error::format(format!("tensor {name} has the shape {shape:?}, the model's sizes call for {expected:?}"))
}
