//! Hugging Face folders: config.json and safetensors files, one or several.
//!
//! Headers are checked against the sizes of their files before anything is allocated for what they promise;
//! data is read by whoever wants a tensor. What the tensors of a family are called, and how they lie, is in
//! [`names`].
//!
//! Formats: <https://github.com/huggingface/safetensors>, transformers' `PretrainedConfig`.

mod names;
mod source;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use safetensors::tensor::{Dtype, Metadata};
use serde::Deserialize;
use serde_json::Value;

pub(crate) use self::source::FolderSource;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::gguf::GgmlDType;
use crate::kernels::ggml;
use crate::load::{CHUNK_BYTES, finite};

/// The largest config.json and index that are read, and the largest header of a safetensors file.
const MAX_JSON: u64 = 64 << 20;

/// Safetensors files of a folder at most.
const MAX_SHARDS: usize = 1000;

/// A tensor's place.
#[derive(Debug, Clone)]
struct Tensor {
    shard: usize,
    dtype: GgmlDType,
    /// Dimensions, outermost first.
    shape: Vec<usize>,
    /// Position of the first byte in the shard.
    offset: u64,
}

impl Tensor {
    fn bytes(&self) -> u64 {
        // The header was checked: the product is that of a range within the file.
        self.shape.iter().map(|&length| length as u64).product::<u64>() * self.dtype.type_size() as u64
    }
}

/// An open folder: its configuration, and where its tensors are.
#[derive(Debug)]
pub struct Folder {
    config: Value,
    shards: Vec<File>,
    tensors: BTreeMap<String, Tensor>,
}

/// model.safetensors.index.json.
#[derive(Deserialize)]
struct Index {
    /// Tensor to file.
    weight_map: BTreeMap<String, String>,
}

impl Folder {
    /// True if `path` is a directory with a config.json.
    pub fn is_one(path: &Path) -> bool {
        path.join("config.json").is_file()
    }

    /// Opens a folder with config.json and model.safetensors, or model.safetensors.index.json and the files
    /// that it names.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`] for files that are broken or lie about a size, [`Error::Unsupported`]
    /// for tensors of other types than f32, f16 and bf16. The text names the file.
    pub fn open(path: &Path) -> Result<Self> {
        let config = json(&path.join("config.json"))?;
        let mut folder = Self { config, shards: Vec::new(), tensors: BTreeMap::new() };
        let index = path.join("model.safetensors.index.json");
        if index.is_file() {
            let index: Index = json(&index)?;
            let mut files: Vec<&String> = index.weight_map.values().collect();
            files.sort();
            files.dedup();
            if files.len() > MAX_SHARDS {
                return Err(Error::format(format!("{} shards, the limit is {MAX_SHARDS}", files.len())));
            }
            for file in files {
                // A name with a path in it could lead anywhere.
                if file.contains(['/', '\\']) || file.starts_with('.') {
                    return Err(Error::format(format!(
                        "the index names {file:?}, which is no plain file name"
                    )));
                }
                folder.add(&path.join(file))?;
            }
            if let Some(name) = index.weight_map.keys().find(|name| !folder.tensors.contains_key(*name)) {
                return Err(Error::format(format!("tensor {name} is in the index, but in no file")));
            }
        } else {
            folder.add(&path.join("model.safetensors"))?;
        }
        Ok(folder)
    }

    /// The family as transformers spells it (`model_type`); `None` if the folder does not say.
    pub fn architecture(&self) -> Option<&str> {
        self.config.get("model_type")?.as_str()
    }

    /// The content of config.json.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// Whether the family is one of those that [`Model`](crate::Model) computes.
    pub fn is_decoder(&self) -> bool {
        self.architecture().is_some_and(|kind| Config::families().any(|family| family == kind))
    }

    /// The dimensions of a tensor, outermost first; `None` if there is none of that name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|tensor| tensor.shape.as_slice())
    }

    /// The elements of a tensor, widened to 32 bits; `None` if there is none of that name.
    ///
    /// # Errors
    /// [`Error::Io`] if they cannot be read, [`Error::Format`] if one of them is not finite.
    pub fn floats(&mut self, name: &str) -> Result<Option<Vec<f32>>> {
        let Some(tensor) = self.tensors.get(name).cloned() else { return Ok(None) };
        let width = tensor.dtype.type_size();
        let count = tensor.bytes() as usize / width;
        let mut values = vec![0.0; count];
        let mut raw = Vec::new();
        let mut done = 0;
        for piece in values.chunks_mut(CHUNK_BYTES as usize / width) {
            raw.resize(piece.len() * width, 0);
            self.read(&tensor, done, &mut raw)?;
            ggml::dequantize(tensor.dtype, &raw, piece);
            done += raw.len() as u64;
        }
        finite(name, values).map(Some)
    }

    /// Name, type and shape (outermost first) of every tensor.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, GgmlDType, &[usize])> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.dtype, tensor.shape.as_slice()))
    }

    /// Reads the header of a safetensors file.
    fn add(&mut self, path: &Path) -> Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let wrong = |text: String| Error::format(format!("{name}: {text}"));
        let mut file = File::open(path).map_err(|error| named(path, error))?;
        let size = file.seek(SeekFrom::End(0))?;
        file.rewind()?;
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(|error| named(path, error))?;
        let length = u64::from_le_bytes(length);
        if length > MAX_JSON || length > size - 8 {
            return Err(wrong(format!("a header of {length} bytes in a file of {size}")));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(|error| named(path, error))?;
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|error| wrong(format!("the header is wrong: {error}")))?;
        let start = 8 + length;
        if metadata.data_len() as u64 > size - start {
            let promised = metadata.data_len();
            return Err(wrong(format!("{promised} bytes of tensors, the file has {}", size - start)));
        }
        for (tensor, info) in metadata.tensors() {
            let dtype = match info.dtype {
                Dtype::F32 => GgmlDType::F32,
                Dtype::F16 => GgmlDType::F16,
                Dtype::BF16 => GgmlDType::BF16,
                // Masks and counters that some checkpoints carry are no weights; nobody asks for them.
                Dtype::BOOL | Dtype::U8 | Dtype::I64 | Dtype::I32 => continue,
                other => return Err(Error::unsupported(format!("tensor {tensor} of type {other:?}"))),
            };
            let offset = start + info.data_offsets.0 as u64;
            let place = Tensor { shard: self.shards.len(), dtype, shape: info.shape.clone(), offset };
            if self.tensors.insert(tensor.clone(), place).is_some() {
                return Err(wrong(format!("tensor {tensor} is in two files")));
            }
        }
        self.shards.push(file);
        Ok(())
    }

    /// Reads part of a tensor's data, from byte `start` of it on.
    fn read(&mut self, tensor: &Tensor, start: u64, into: &mut [u8]) -> Result<()> {
        let shard = &mut self.shards[tensor.shard];
        shard.seek(SeekFrom::Start(tensor.offset + start))?;
        Ok(shard.read_exact(into)?)
    }
}

/// Reads a JSON file.
fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let file = File::open(path).map_err(|error| named(path, error))?;
    let size = file.metadata()?.len();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if size > MAX_JSON {
        return Err(Error::format(format!("{name} has {size} bytes, the limit is {MAX_JSON}")));
    }
    serde_json::from_reader(std::io::BufReader::new(file.take(MAX_JSON)))
        .map_err(|error| Error::format(format!("{name}: {error}")))
}

/// An error that names its file.
fn named(path: &Path, error: std::io::Error) -> Error {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    std::io::Error::new(error.kind(), format!("{name}: {error}")).into()
}
