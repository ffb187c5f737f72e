//! GGUF files of every family against llama.cpp, and folders of the families that nothing else covers.
//!
//! The models are little and drawn, so their files are made here, and only what llama.cpp computes with them is kept,
//! in `references.json`: the logits after a prompt and the greedy tokens. `WAFER_WRITE_GGUF=DIR cargo test -p
//! wafer-engine --test families` writes the files and the prompt for it, and `record.cpp` records anew.

#[path = "../common/mod.rs"]
mod common;
mod file;
mod folder;
mod models;

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

use candle_core::quantized::GgmlDType;
use common::{forward, greedy};
use file::{Entry, Tiny, VOCABULARY};
use models::{GEMMA3, LLAMA, MODELS, PHI3_Q8, SMOLLM3};
use serde::Deserialize;
use serde_json::{Value, json};
use wafer_engine::{Folder, Gguf, Model, Quantize, Result, Workspace};

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
fn check(model: Result<Model>, is_float: bool, reference: &Reference) -> std::result::Result<(), String> {
    let model = model.map_err(|error| error.to_string())?;
    let mut workspace = Workspace::new(1);
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
            let is_float = tiny.dtype == GgmlDType::F32;
            let error = check(load(tiny, None), is_float, references.get(tiny.name)?).err()?;
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
    assert_eq!(check(load(&floats, Some(Quantize::Q8_0)), false, reference), Ok(()));
}

/// Transformers' form of the models gives llama.cpp's results.
#[test]
fn folders_hold_the_same_models() {
    let references = references();
    let check_folder = |tiny: &Tiny, own: Value| {
        let mut config = json!({
            "hidden_size": tiny.dim, "intermediate_size": tiny.hidden, "num_hidden_layers": tiny.layers,
            "num_attention_heads": tiny.heads, "num_key_value_heads": tiny.kv_heads, "head_dim": tiny.head_dim,
            "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
        });
        for (key, value) in own.as_object().expect("settings") {
            config[key] = value.clone();
        }
        let path = tempfile::tempdir().expect("a folder");
        folder::write(tiny, &config, path.path());
        let model = Folder::open(path.path())
            .and_then(|mut folder| Model::load_folder(&mut folder, None, &mut |_, _| {}));
        assert_eq!(check(model, true, &references[tiny.name]), Ok(()), "{}", tiny.name);
    };
    check_folder(
        &GEMMA3,
        json!({
            "model_type": "gemma3_text", "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 32,
            "sliding_window": 8, "rope_theta": 1e6, "rope_local_base_freq": 1e4,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        }),
    );
    check_folder(
        &SMOLLM3,
        json!({
            "model_type": "smollm3", "hidden_act": "silu", "rope_theta": 5e4, "use_sliding_window": false,
            "no_rope_layers": [1, 1, 1, 0, 1], "no_rope_layer_interval": 4,
        }),
    );
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
