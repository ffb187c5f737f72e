//! GGUF files, versions 2 and 3: typed access to the metadata and bounds-checked access to the tensors.
//!
//! candle's reader does the parsing. Before it sees a byte, [`bounds`] walks the header without allocating
//! and checks every count and length against the size of the file, so that a hostile file costs an error
//! rather than memory; after it, [`Gguf::open`] checks every tensor's extent. Data is read by [`Gguf::read`],
//! piece by piece, by whoever wants a tensor.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>

mod bounds;
mod metadata;

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};

use candle_core::quantized::gguf_file::{Content, VersionedMagic};
pub use candle_core::quantized::{GgmlDType, gguf_file::Value};

pub use self::metadata::Metadata;
use crate::error::{Error, Result};

/// Where a tensor lies in its file, and how it is stored.
#[derive(Debug, Clone)]
pub struct TensorInfo {
    /// Storage type of the elements (a ggml type).
    pub dtype: GgmlDType,
    /// Dimensions, outermost first: a matrix is `[rows, columns]`, a row is contiguous.
    pub shape: Vec<usize>,
    /// Position of the first byte, from the start of the file.
    pub offset: u64,
    /// Size in bytes.
    pub bytes: u64,
}

impl TensorInfo {
    /// Number of rows: the product of all dimensions but the last.
    pub fn rows(&self) -> usize {
        self.shape[..self.shape.len().saturating_sub(1)].iter().product()
    }

    /// Elements in a row: the last dimension; 1 for a scalar.
    pub fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }
}

/// An open GGUF file: its metadata, its table of tensors, and the reader to take their data from.
#[derive(Debug)]
pub struct Gguf<R> {
    reader: R,
    metadata: Metadata,
    tensors: BTreeMap<String, TensorInfo>,
}

impl<R: Read + Seek> Gguf<R> {
    /// Reads and checks the header: metadata and the table of tensors. No tensor data is read.
    ///
    /// # Errors
    /// [`Error::Io`] from the reader, [`Error::Format`] for a file that is not GGUF, is truncated or lies about
    /// a size, [`Error::Unsupported`] for version 1 and for unknown tensor types.
    pub fn open(mut reader: R) -> Result<Self> {
        let size = reader.seek(SeekFrom::End(0))?;
        reader.rewind()?;
        bounds::check(&mut reader, size)?;
        reader.rewind()?;
        let content = Content::read(&mut reader).map_err(|error| Error::format(error.to_string()))?;
        if content.magic == VersionedMagic::GgufV1 {
            return Err(Error::unsupported("GGUF version 1, convert the file to version 3"));
        }
        let mut tensors = BTreeMap::new();
        for (name, info) in content.tensor_infos {
            let shape = info.shape.dims().to_vec();
            let tensor =
                extent(&name, info.ggml_dtype, shape, content.tensor_data_offset, info.offset, size)?;
            tensors.insert(name, tensor);
        }
        Ok(Self { reader, metadata: Metadata::new(content.metadata), tensors })
    }

    /// Reads part of a tensor's data: `into.len()` bytes from byte `start` of the tensor on.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Format`] if the range is outside the tensor.
    pub fn read(&mut self, tensor: &TensorInfo, start: u64, into: &mut [u8]) -> Result<()> {
        let end = start.checked_add(into.len() as u64);
        if end.is_none_or(|end| end > tensor.bytes) {
            return Err(Error::format(format!(
                "{} bytes at {start} are outside a tensor of {} bytes",
                into.len(),
                tensor.bytes
            )));
        }
        self.reader.seek(SeekFrom::Start(tensor.offset + start))?;
        Ok(self.reader.read_exact(into)?)
    }
}

impl<R> Gguf<R> {
    /// The metadata: key and value pairs.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors by name, in alphabetical order.
    pub fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }
}

/// Checks one entry of the tensor table against the file's `size`.
fn extent(
    name: &str,
    dtype: GgmlDType,
    shape: Vec<usize>,
    data: u64,
    offset: u64,
    size: u64,
) -> Result<TensorInfo> {
    let elements = shape.iter().try_fold(1_u64, |n, &d| n.checked_mul(d as u64)).filter(|&n| n > 0);
    let Some(elements) = elements else {
        return Err(Error::format(format!("tensor {name} has the shape {shape:?}")));
    };
    let block = dtype.block_size() as u64;
    let columns = shape.last().copied().unwrap_or(1) as u64;
    if !columns.is_multiple_of(block) {
        return Err(Error::format(format!(
            "tensor {name} of type {dtype:?} has rows of {columns} elements, not a multiple of {block}"
        )));
    }
    let bytes = (elements / block).checked_mul(dtype.type_size() as u64);
    let start = data.checked_add(offset);
    let end = bytes.zip(start).and_then(|(bytes, start)| start.checked_add(bytes));
    match (start, bytes, end) {
        (Some(offset), Some(bytes), Some(end)) if end <= size => {
            Ok(TensorInfo { dtype, shape, offset, bytes })
        }
        _ => Err(Error::format(format!(
            "tensor {name} ({elements} elements of {dtype:?} at offset {offset}) lies outside the file of {size} bytes"
        ))),
    }
}
