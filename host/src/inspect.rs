//! `wafer inspect`: what is in a model or a component, without running it. A model is a file or a folder.
//!
//! The file's first bytes say which of the two it is, not its name. A component is parsed, never
//! compiled, so that a large one is answered at once.

mod folder;

use anyhow::{Context, bail};
use bytesize::ByteSize;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::File;
use std::io::{BufReader, Read, Seek, Write};
use std::path::Path;
use wafer_engine::gguf::{GgmlDType, Gguf, Metadata};
use wasmparser::{Chunk, Encoding, Parser, Payload};

use crate::facts::Facts;
use crate::report::WithHint;

/// Prints what is in the file.
pub(crate) fn inspect(path: &Path, json: bool) -> anyhow::Result<()> {
    let name = path.display();
    let unclear = || format!("cannot inspect {name}");
    let found = if path.is_dir() {
        Found::Model(folder::model(path).with_context(unclear)?)
    } else {
        let file = File::open(path).with_context(|| format!("cannot open {name}"))?;
        let size = file.metadata().with_context(|| format!("cannot read the size of {name}"))?.len();
        look(BufReader::new(file), size).with_context(unclear)?
    };
    let text = if json { serde_json::to_string_pretty(&found)? } else { found.to_text() };
    writeln!(std::io::stdout().lock(), "{text}").context("cannot write to stdout")
}

/// What a file can be.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Found {
    Model(Model),
    Component(Component),
}

/// A GGUF file or a Hugging Face folder. What it does not say is absent.
#[derive(Debug, Serialize)]
struct Model {
    architecture: Option<String>,
    name: Option<String>,
    /// Elements of all tensors.
    parameters: u64,
    /// Elements per storage type.
    quantisation: BTreeMap<String, u64>,
    context_length: Option<u64>,
    layers: Option<u64>,
    heads: Option<u64>,
    kv_heads: Option<u64>,
    embedding_length: Option<u64>,
    vocabulary_size: Option<u64>,
    tokenizer: Option<String>,
    chat_template: bool,
    tensors: usize,
    /// Bytes.
    size: u64,
}

/// A WebAssembly component.
#[derive(Debug, Serialize)]
struct Component {
    /// What it says of the model that is baked into it.
    model: Option<Facts>,
    imports: Vec<String>,
    exports: Vec<String>,
    /// Bytes.
    size: u64,
}

fn look(mut file: impl Read + Seek, size: u64) -> anyhow::Result<Found> {
    let mut magic = Vec::new();
    file.by_ref().take(4).read_to_end(&mut magic)?;
    file.rewind()?;
    if magic == b"\0asm" {
        return Ok(Found::Component(component(file, size)?));
    }
    if magic == b"\x7fELF" {
        bail!("it is compiled code, which says nothing of itself; look at the .wasm that it was made from");
    }
    let model = model(file, size);
    if magic == b"GGUF" {
        return Ok(Found::Model(model?));
    }
    Ok(Found::Model(model.hint("models are .gguf files, components are .wasm files")?))
}

fn model(file: impl Read + Seek, size: u64) -> anyhow::Result<Model> {
    let gguf = Gguf::open(file)?;
    let metadata = gguf.metadata();
    let architecture = text(metadata, "general.architecture");
    let number = |key: &str| {
        let architecture = architecture.as_deref()?;
        metadata.opt_u32(&format!("{architecture}.{key}")).ok().flatten().map(u64::from)
    };
    let quantisation = quantisation(gguf.tensors().values().map(|tensor| (tensor.dtype, &*tensor.shape)));
    let tokens = metadata.opt_strings("tokenizer.ggml.tokens").ok().flatten();
    Ok(Model {
        name: text(metadata, "general.name"),
        parameters: quantisation.values().sum(),
        quantisation,
        context_length: number("context_length"),
        layers: number("block_count"),
        heads: number("attention.head_count"),
        kv_heads: number("attention.head_count_kv"),
        embedding_length: number("embedding_length"),
        vocabulary_size: tokens.map(|tokens| tokens.len() as u64).or_else(|| number("vocab_size")),
        tokenizer: text(metadata, "tokenizer.ggml.model"),
        chat_template: metadata.get("tokenizer.chat_template").is_some(),
        tensors: gguf.tensors().len(),
        architecture,
        size,
    })
}

/// Elements per storage type of tensors with these shapes.
fn quantisation<'t>(tensors: impl Iterator<Item = (GgmlDType, &'t [usize])>) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (dtype, shape) in tensors {
        let elements: u64 = shape.iter().map(|n| *n as u64).product();
        *sums.entry(format!("{dtype:?}")).or_default() += elements;
    }
    sums
}

/// A string of the metadata; one of another type is as good as none here.
fn text(metadata: &Metadata, key: &str) -> Option<String> {
    metadata.opt_str(key).ok().flatten().map(str::to_owned)
}

/// Reads the outermost level only: what is nested is the component's own affair.
fn component(mut file: impl Read, size: u64) -> anyhow::Result<Component> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let model = Facts::find(&bytes);
    let mut component = Component { model, imports: Vec::new(), exports: Vec::new(), size };
    let mut parser = Parser::new(0);
    let mut rest = bytes.as_slice();
    loop {
        let (payload, read) = match parser.parse(rest, true)? {
            Chunk::Parsed { payload, consumed } => (payload, consumed),
            Chunk::NeedMoreData(_) => bail!("it ends in the middle"),
        };
        rest = rest.get(read..).unwrap_or_default();
        match payload {
            Payload::Version { encoding: Encoding::Module, .. } => {
                bail!("it is a WebAssembly module, not a component")
            }
            Payload::ComponentImportSection(section) => {
                for import in section {
                    component.imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    component.exports.push(export?.name.name.to_owned());
                }
            }
            Payload::ModuleSection { unchecked_range, .. }
            | Payload::ComponentSection { unchecked_range, .. } => {
                let nested = unchecked_range.end - unchecked_range.start;
                rest = rest.get(nested..).context("it ends in the middle")?;
            }
            Payload::End(_) => return Ok(component),
            _ => {}
        }
    }
}

impl Found {
    fn to_text(&self) -> String {
        match self {
            Found::Model(model) => model.to_text(),
            Found::Component(component) => component.to_text(),
        }
    }
}

impl Model {
    fn to_text(&self) -> String {
        let unknown = || "unknown".to_owned();
        let word = |value: &Option<String>| value.clone().unwrap_or_else(unknown);
        let number = |value: Option<u64>| value.map_or_else(unknown, |n| n.to_string());
        let types: Vec<String> =
            self.quantisation.iter().map(|(name, elements)| format!("{name} {elements}")).collect();
        let rows = [
            ("architecture", word(&self.architecture)),
            ("name", word(&self.name)),
            ("parameters", self.parameters.to_string()),
            ("quantisation", types.join(", ")),
            ("context", number(self.context_length)),
            ("layers", number(self.layers)),
            ("heads", format!("{} ({} for keys and values)", number(self.heads), number(self.kv_heads))),
            ("embedding", number(self.embedding_length)),
            ("vocabulary", number(self.vocabulary_size)),
            ("tokenizer", word(&self.tokenizer)),
            ("chat template", if self.chat_template { "yes" } else { "no" }.to_owned()),
            ("tensors", self.tensors.to_string()),
            ("size", ByteSize(self.size).to_string()),
        ];
        let lines: Vec<String> = rows.iter().map(|(name, value)| row(name, value)).collect();
        lines.join("\n")
    }
}

fn row(name: &str, value: impl Display) -> String {
    format!("{name:<14}{value}")
}

/// A baked model.
fn model_lines(facts: &Facts) -> Vec<String> {
    let mut lines = vec![
        row("model", &facts.id),
        row("architecture", &facts.architecture),
        row("context", facts.context_length),
        row("vocabulary", facts.vocabulary_size),
    ];
    lines.extend(facts.weights_bytes.map(|bytes| row("weights", ByteSize(bytes))));
    lines.extend(facts.defaults.iter().map(|defaults| row("defaults", defaults)));
    // On one line, whatever it holds.
    lines.extend(facts.system.iter().map(|system| row("system", format!("{system:?}"))));
    lines.push(row("baked by", format!("wafer {}", facts.wafer)));
    lines
}

impl Component {
    fn to_text(&self) -> String {
        let mut lines: Vec<String> = self.model.iter().flat_map(model_lines).collect();
        lines.push(row("size", ByteSize(self.size)));
        for (name, list) in [("exports", &self.exports), ("imports", &self.imports)] {
            lines.push(name.to_owned());
            lines.extend(list.iter().map(|item| format!("  {item}")));
        }
        lines.join("\n")
    }
}
