//! GGUF files of every family against llama.cpp.
//!
//! The models are little and drawn, so their files are made here, and only what llama.cpp computes with them is kept,
//! in `references.json`: the logits after a prompt and the greedy tokens. `WAFER_WRITE_GGUF=DIR cargo test -p
//! wafer-engine --test families` writes the files and the prompt for it, and `record.cpp` records anew.

#[path = "../common/mod.rs"]
mod common;
mod file;
mod models;

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

use candle_core::quantized::GgmlDType;
use common::{forward, greedy};
use file::{Entry, Tiny, VOCABULARY};
use models::{GEMMA3, LLAMA, MODELS, PHI3_Q8};
use serde::Deserialize;
use wafer_engine::{Gguf, Model, Quantize, Result, Workspace};

#[derive(Deserialize)]
struct References {
    /// The version of llama.cpp.
    #[allow(dead_code, reason = "for the reader")]
    by: String,
    prompt: Vec<u32>,
    models: BTreeMap<String, Reference>,
}

/// What llama.cpp computed with a model.
#[derive(Deserialize)]
struct Reference {
    /// After the prompt.
    logits: Vec<f32>,
    /// The likeliest tokens after it.
    greedy: Vec<u32>,
}

/// Longer than the windows, and than two pages of the cache.
fn prompt() -> Vec<u32> {
    (0..72).map(|i| (i * i * 7 + i * 31 + 5) % VOCABULARY as u32).collect()
}

fn references() -> BTreeMap<String, Reference> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families/references.json");
    let text = std::fs::read_to_string(path).expect("the references");
    let references: References = serde_json::from_str(&text).expect("the references' format");
    assert_eq!(references.prompt, prompt(), "the references are for another prompt");
    references.models
}

fn load(tiny: &Tiny, quantize: Option<Quantize>) -> Result<Model> {
    Model::load_with(&mut Gguf::open(Cursor::new(tiny.bytes()))?, quantize, &mut |_, _| {})
}

/// The largest difference, relative to the largest of the expected values.
fn distance(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    found.iter().zip(expected).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

/// What is wrong with a model, if anything is. Activations are quantised where weights are, and every
/// implementation does that its own way: then only the logits are compared, and less closely.
fn check(tiny: &Tiny, quantize: Option<Quantize>, reference: &Reference) -> std::result::Result<(), String> {
    let model = load(tiny, quantize).map_err(|error| error.to_string())?;
    let mut workspace = Workspace::new(1);
    let is_float = tiny.dtype == GgmlDType::F32 && quantize.is_none();
    let limit = if is_float { 1e-3 } else { 0.04 };
    let logits = forward(&model, &mut workspace, &mut model.session(), &prompt());
    let distance = distance(&logits, &reference.logits);
    if distance > limit {
        return Err(format!("logits differ by {distance:.1e}"));
    }
    let tokens = greedy(&model, &mut workspace, &prompt(), reference.greedy.len(), 7);
    match tokens == reference.greedy || !is_float {
        true => Ok(()),
        false => Err(format!("{tokens:?} instead of {:?}", reference.greedy)),
    }
}

#[test]
fn families_compute_what_llama_cpp_computes() {
    let references = references();
    let failures: Vec<String> = MODELS
        .iter()
        .filter_map(|tiny| {
            let error = check(tiny, None, references.get(tiny.name)?).err()?;
            Some(format!("{}: {error}", tiny.name))
        })
        .collect();
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(MODELS.iter().all(|tiny| references.contains_key(tiny.name)), "every model has a reference");
}

/// Rows that are not whole blocks stay as they are.
#[test]
fn odd_rows_can_be_quantised_at_load() {
    let floats = Tiny { dtype: GgmlDType::F32, ..PHI3_Q8 };
    let reference = &references()[PHI3_Q8.name];
    assert_eq!(check(&floats, Some(Quantize::Q8_0), reference), Ok(()));
}

#[test]
fn what_is_not_computed_is_refused() {
    let check = |tiny: Tiny, entries: &'static [(&'static str, Entry)], expected: &str| {
        let error = load(&Tiny { entries, ..tiny }, None).expect_err(expected).to_string();
        assert!(error.contains(expected), "{entries:?}: {error}");
    };
    let window = &[
        ("attention.key_length", Entry::Size(32)),
        ("attention.sliding_window", Entry::Size(8)),
        ("attention.sliding_window_pattern", Entry::Flags(&[true, false])),
    ];
    check(GEMMA3, window, "2 windows in gemma3.attention.sliding_window_pattern for 7 layers");
    check(LLAMA, &[("attention.value_length", Entry::Size(8))], "values of length 8 with keys of length 16");
    check(LLAMA, &[("rope.scaling.type", Entry::Text("magic"))], "rope scaling \"magic\"");
    let yarn = &[("rope.scaling.type", Entry::Text("yarn")), ("rope.scaling.factor", Entry::Number(4.0))];
    check(LLAMA, yarn, "llama.rope.scaling.original_context_length is missing");
}

/// Writes the files for llama.cpp where the environment names a folder.
#[test]
fn files_are_written_for_llama_cpp() {
    let Some(folder) = std::env::var_os("WAFER_WRITE_GGUF") else { return };
    let folder = Path::new(&folder);
    for tiny in MODELS {
        std::fs::write(folder.join(format!("{}.gguf", tiny.name)), tiny.bytes()).expect("a file");
    }
    let prompt: Vec<String> = prompt().iter().map(u32::to_string).collect();
    std::fs::write(folder.join("prompt.txt"), prompt.join(" ")).expect("a file");
    let names: Vec<&str> = MODELS.iter().map(|tiny| tiny.name).collect();
    eprintln!("record {} VERSION {} > references.json", folder.display(), names.join(" "));
}
