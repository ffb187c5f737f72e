//! Finding a model's files and loading it: a GGUF file, or a Hugging Face folder.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde_json::Value;
use wafer_engine::{Config, Folder, Gguf, Quantize};

use super::{About, Model, Service};
use crate::backend::local::Local;
use crate::encoder::Files;
use crate::error::{Error, Result};
use crate::template::Template;
use crate::tokenizer::Tokenizer;

/// The largest text file of a folder that is read, bytes; tokenizers are the largest.
const MAX_TEXT: u64 = 64 << 20;

impl Service {
    /// Loads the model at `path`: a GGUF file, a directory with exactly one, or a Hugging Face folder. Its id
    /// is `id`, or the name of the file (without `.gguf`) or folder. Weights that are floats are quantised if
    /// that is wanted.
    ///
    /// # Errors
    /// [`Error::Model`] if there is no such file, or not exactly one, or it is no model that we can load.
    pub fn load(path: &Path, id: Option<String>, quantize: Option<Quantize>) -> Result<Self> {
        let path = locate(path)?;
        // A folder's name may have dots that begin no extension, as in SmolLM2-1.7B.
        let stem = || if path.is_dir() { path.file_name() } else { path.file_stem() };
        let stem = || stem().map(|stem| stem.to_string_lossy().into_owned());
        let id = id.or_else(stem).unwrap_or_default();
        let is_folder = path.is_dir();
        forget();
        let loaded = if is_folder { folder(&path, id, quantize) } else { gguf(&path, id, quantize) };
        loaded.map(Self::digested).map_err(|error| match error {
            Error::Model(text) => Error::Model(format!("{}: {text}", path.display())),
            other => other,
        })
    }

    /// The same with its digest computed, so that a snapshot has it and no request waits for it.
    fn digested(mut self) -> Self {
        // A model that cannot compute is found by `probe`, which says why.
        let _ = self.digest();
        if let Model::Generator(backend) = &mut self.model {
            backend.tidy();
        }
        self
    }
}

fn gguf(path: &Path, id: String, quantize: Option<Quantize>) -> Result<Service> {
    let file = File::open(path).map_err(|error| Error::Model(format!("cannot be read: {error}")))?;
    let created = created(&file);
    forget();
    let mut gguf = Gguf::open(BufReader::new(file))?;
    let tokenizer = Tokenizer::from_gguf(gguf.metadata())?;
    let template = Template::from_gguf(gguf.metadata(), &tokenizer)?;
    let architecture = gguf.metadata().architecture()?.to_owned();
    let backend = Box::new(Local::load(&mut gguf, quantize)?);
    Service::new(About { id, architecture, created }, tokenizer, template, backend)
}

fn folder(path: &Path, id: String, quantize: Option<Quantize>) -> Result<Service> {
    let mut folder = Folder::open(path)?;
    let created = File::open(path.join("config.json")).map_or(0, |file| created(&file));
    forget();
    let needed = |name: &str| text(path, name)?.ok_or_else(|| Error::Model(format!("{name} is missing")));
    let settings = text(path, "tokenizer_config.json")?;
    let mut tokenizer = Tokenizer::from_json(&needed("tokenizer.json")?, settings.as_deref())?;
    // Models for chats end a turn with a token that is not always the tokenizer's EOS.
    tokenizer.add_ends(&ends(folder.config()));
    if let Some(generation) = json(path, "generation_config.json")? {
        tokenizer.add_ends(&ends(&generation));
    }
    let template = match text(path, "chat_template.jinja")? {
        Some(source) => {
            let source = String::from_utf8(source);
            Some(source.map_err(|error| Error::Model(format!("chat_template.jinja is no text: {error}")))?)
        }
        None => json(path, "tokenizer_config.json")?.and_then(|settings| template(&settings)),
    };
    let template = Template::of_model(template.as_deref(), &tokenizer)?;
    let architecture = folder.architecture().unwrap_or_default().to_owned();
    let model = model(&mut folder, quantize, &|name: &str| json(path, name))?;
    Service::assemble(About { id, architecture, created }, tokenizer, template, model)
}

/// The folder's model, by its family.
fn model(folder: &mut Folder, quantize: Option<Quantize>, files: Files<'_>) -> Result<Model> {
    let name = folder.architecture().unwrap_or_default().to_owned();
    if name.is_empty() || folder.is_decoder() {
        return Ok(Model::Generator(Box::new(Local::load_folder(folder, quantize)?)));
    }
    floats(&name, folder, quantize, files)
}

/// A model that the engine does not compute.
#[cfg(feature = "candle")]
fn floats(name: &str, folder: &mut Folder, quantize: Option<Quantize>, files: Files<'_>) -> Result<Model> {
    use crate::backend::seq2seq::{self, Seq2Seq};
    use crate::encoder::{bert::Bert, family};

    let encoder = family::find(name);
    let seq2seq = seq2seq::FAMILIES.contains(&name);
    if quantize.is_some() && (encoder.is_some() || seq2seq) {
        let text = format!("architecture {name} cannot be quantised, it computes with floats");
        return Err(Error::Model(text));
    }
    if let Some(family) = encoder {
        return Ok(Model::Encoder(Box::new(Bert::load(folder, family, files)?)));
    }
    if seq2seq {
        return Ok(Model::Generator(Box::new(Seq2Seq::load(folder)?)));
    }
    let known: Vec<&str> = Config::families().chain(family::names()).chain(seq2seq::FAMILIES).collect();
    Err(Error::Model(format!("architecture {name:?}, known are {}", known.join(", "))))
}

#[cfg(not(feature = "candle"))]
fn floats(name: &str, _: &mut Folder, _: Option<Quantize>, _: Files<'_>) -> Result<Model> {
    let known: Vec<&str> = Config::families().collect();
    Err(Error::Model(format!(
        "architecture {name:?}, known are {}; encoders and T5 need the component wafer-encoders.wasm",
        known.join(", ")
    )))
}

/// Leaves nothing of a file's times on the stack, where a snapshot is made.
fn forget() {
    #[cfg(target_family = "wasm")]
    crate::adapter::tidy::forget();
}

/// A file of the folder; `None` if there is none.
fn text(folder: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    let unreadable = |error: std::io::Error| Error::Model(format!("{name} cannot be read: {error}"));
    let path = folder.join(name);
    let is_file = path.is_file();
    forget();
    if !is_file {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_TEXT + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_TEXT {
        return Err(Error::Model(format!("{name} is larger than {MAX_TEXT} bytes")));
    }
    Ok(Some(bytes))
}

fn json(folder: &Path, name: &str) -> Result<Option<Value>> {
    let parse = |bytes: Vec<u8>| {
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::Model(format!("{name} cannot be read: {error}")))
    };
    text(folder, name)?.map(parse).transpose()
}

/// The ids under `eos_token_id`: one, or a list.
fn ends(config: &Value) -> Vec<u32> {
    let ids = match config.get("eos_token_id") {
        Some(Value::Array(ids)) => ids.as_slice(),
        Some(id) => std::slice::from_ref(id),
        None => &[],
    };
    ids.iter().filter_map(|id| u32::try_from(id.as_u64()?).ok()).collect()
}

/// The template in tokenizer_config.json: a text, or a list of named ones with a default among them.
fn template(settings: &Value) -> Option<String> {
    let found = match settings.get("chat_template")? {
        Value::Array(named) => {
            let default = named.iter().find(|one| one.get("name").is_some_and(|name| name == "default"));
            default?.get("template")?
        }
        one => one,
    };
    found.as_str().map(str::to_owned)
}

/// The file or folder that `path` means.
fn locate(path: &Path) -> Result<PathBuf> {
    let metadata = path.metadata().map_err(|error| unreadable(path, &error))?;
    if !metadata.is_dir() || Folder::is_one(path) {
        return Ok(path.to_owned());
    }
    let mut found = Vec::new();
    for entry in path.read_dir().map_err(|error| unreadable(path, &error))? {
        let file = entry.map_err(|error| unreadable(path, &error))?.path();
        if file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
            found.push(file);
        }
    }
    found.sort();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Error::Model(format!("no .gguf file and no config.json in {}", path.display()))),
        [first, second, ..] => Err(Error::Model(format!(
            "{} .gguf files in {} ({}, {}, …), MODEL_PATH must name one",
            found.len(),
            path.display(),
            name(first),
            name(second)
        ))),
    }
}

/// When a file was written, in seconds since 1970; 0 where the platform does not say.
fn created(file: &File) -> u64 {
    let modified = file.metadata().and_then(|metadata| metadata.modified()).ok();
    modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_secs())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::Model(format!(
        "cannot read {}: {error}; MODEL_PATH names a .gguf file, its directory, or a Hugging Face folder",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The error of loading `path` inside a directory that holds `files`.
    fn check(files: &[(&str, &str)], path: &str, expected: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(folder.path().join(name), content).unwrap();
        }
        let Err(error) = Service::load(&folder.path().join(path), None, None) else {
            panic!("{files:?} was loaded as a model");
        };
        assert!(matches!(error, Error::Model(_)), "{error:?}");
        let error = error.to_string();
        for part in expected {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
    }

    #[test]
    fn files_that_are_no_model_are_named() {
        check(&[], "missing.gguf", &["missing.gguf", "MODEL_PATH"]);
        check(&[], "", &["no .gguf file", "config.json"]);
        check(&[("config.json", "{}")], "", &["model.safetensors"]);
        check(&[("a.txt", "x")], "", &["no .gguf file"]);
        check(&[("b.gguf", "x"), ("a.GGUF", "x")], "", &["2 .gguf files", "a.GGUF, b.gguf"]);
        check(&[("a.gguf", "Dear reader")], "", &["a.gguf", "not a GGUF file"]);
        check(&[("a.gguf", "Dear reader")], "a.gguf", &["a.gguf", "not a GGUF file"]);
        check(&[("a.gguf", "")], "a.gguf", &["a.gguf"]);
    }
}
