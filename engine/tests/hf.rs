//! Hugging Face folders: every family against what transformers computes, quantisation at load, damaged files.

mod common;

use std::fs;
use std::path::Path;

use candle_core::Tensor;
use common::{argmax, greedy, testdata};
use serde::Deserialize;
use serde_json::{Value, json};
use wafer_engine::{Batch, Folder, Model, Quantize, Workspace};

fn load(path: &Path, quantize: Option<Quantize>) -> wafer_engine::Result<Model> {
    Model::load_folder(&mut Folder::open(path)?, quantize, &mut |_, _| {})
}

/// Logits of all tokens, row by row.
fn logits(model: &Model, tokens: &[u32]) -> Vec<Vec<f32>> {
    let (mut session, mut workspace) = (model.session(), Workspace::new(1));
    let mut batch = [Batch { session: &mut session, tokens, outputs: tokens.len() }];
    let logits = model.forward(&mut workspace, &mut batch).expect("a forward pass");
    logits.chunks(model.config().vocabulary).map(<[f32]>::to_vec).collect()
}

/// The largest difference, relative to the largest of the expected values.
fn distance(found: &[Vec<f32>], expected: &[Vec<f32>]) -> f32 {
    let largest = expected.iter().flatten().fold(0.0_f32, |m, v| m.max(v.abs()));
    let pairs = found.iter().flatten().zip(expected.iter().flatten());
    pairs.fold(0.0_f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

/// A model of ../shared/testdata/hf/tiny-random against the logits in `file`.
fn check(name: &str, file: &str, limit: f32) {
    let (Some(folder), Some(expected)) =
        (testdata(&format!("hf/tiny-random/{name}")), testdata("hf/tiny-random/expected.json"))
    else {
        return;
    };
    let expected: Value = serde_json::from_slice(&fs::read(expected).expect("a file")).expect("JSON");
    let ids = |value: &Value| -> Vec<u32> { serde_json::from_value(value.clone()).expect("token ids") };
    let prompt = ids(&expected["input_ids"]);
    let model = load(&folder, None).unwrap_or_else(|error| panic!("{name}: {error}"));

    let found = logits(&model, &prompt);
    let wanted = Tensor::read_npy(folder.join(file)).expect("expected logits");
    let wanted = wanted.flatten_to(wanted.rank() - 2).expect("rows").to_vec2::<f32>().expect("f32");
    let distance = distance(&found, &wanted);
    assert!(distance < limit, "{name}: logits differ by {distance:e}");
    for (row, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
        assert_eq!(argmax(found), argmax(wanted), "{name}: likeliest token after {row}");
    }
    if let Some(tokens) = expected["models"][name].get("greedy24").map(ids) {
        let found = greedy(&model, &mut Workspace::new(1), &prompt, tokens.len(), 7);
        assert_eq!(found, tokens, "{name}");
    }
}

#[test]
fn families_compute_what_transformers_computes() {
    let families =
        ["llama", "llama3-rope", "mistral", "qwen2", "qwen3", "gemma2", "phi3", "gpt2", "gpt_neox"];
    for name in families {
        check(name, "expected.npy", 1e-3);
    }
    for name in ["llama-f16", "llama-bf16"] {
        check(name, "logits_f32math.npy", 1e-3);
    }
}

#[test]
fn a_sharded_folder_is_one_model() {
    let (Some(shards), Some(whole)) =
        (testdata("hf/tiny-random/llama-sharded"), testdata("hf/tiny-random/llama"))
    else {
        return;
    };
    let [shards, whole] =
        [shards, whole].map(|folder| logits(&load(&folder, None).expect("a model"), &[1, 80]));
    assert_eq!(shards, whole);
}

#[derive(Deserialize)]
struct Greedy {
    prompt_ids: Vec<u32>,
    output_ids: Vec<u32>,
}

#[test]
fn trained_models_write_what_transformers_writes() {
    let Some(reference) = testdata("reference/hf_transformers.json") else { return };
    let reference: Value = serde_json::from_slice(&fs::read(reference).expect("a file")).expect("JSON");
    for (name, folder) in [("stories260K", "stories260K-hf"), ("TinyStories-656K", "TinyStories-656K")] {
        let Some(folder) = testdata(&format!("hf/{folder}")) else { return };
        let model = load(&folder, None).expect("a model");
        let cases: Vec<Greedy> =
            serde_json::from_value(reference["models"][name]["greedy"].clone()).expect("greedy texts");
        assert!(!cases.is_empty());
        for case in cases {
            let found = greedy(&model, &mut Workspace::new(1), &case.prompt_ids, case.output_ids.len(), 16);
            assert_eq!(found, case.output_ids, "{name} {:?}", case.prompt_ids);
        }
    }
}

/// Perplexity of the tokens under the model.
fn perplexity(model: &Model, tokens: &[u32]) -> f64 {
    let rows = logits(model, tokens);
    let losses = rows.iter().zip(&tokens[1..]).map(|(row, &next)| {
        let largest = row.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v));
        let total: f64 = row.iter().map(|&v| f64::from(v - largest).exp()).sum();
        total.ln() - f64::from(row[next as usize] - largest)
    });
    (losses.sum::<f64>() / (tokens.len() - 1) as f64).exp()
}

#[test]
fn quantisation_at_load_costs_little() {
    let (Some(folder), Some(reference)) =
        (testdata("hf/TinyStories-656K"), testdata("reference/llamacpp/TinyStories-656K-f32.json"))
    else {
        return;
    };
    let reference: Value = serde_json::from_slice(&fs::read(reference).expect("a file")).expect("JSON");
    let tokens: Vec<u32> = serde_json::from_value(reference["ppl"]["ids"].clone()).expect("token ids");
    let tokens = &tokens[..tokens.len().min(512)];
    let plain = perplexity(&load(&folder, None).expect("a model"), tokens);
    for (name, limit) in [("q8_0", 1.01), ("q4_k", 1.10), ("q4_0", 1.15)] {
        let model = load(&folder, Some(name.parse().expect("a known name"))).expect("a model");
        let ratio = perplexity(&model, tokens) / plain;
        eprintln!("{name}: {ratio:.4} of {plain:.3}");
        assert!(ratio < limit, "{name}: perplexity is {ratio} times that of the floats");
    }
}

/// A folder of one layer in `path`, with `changes` to its config.json.
fn write(path: &Path, changes: &[(&str, Value)]) {
    let mut config = json!({
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2,
        "num_hidden_layers": 1, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": true,
    });
    for (key, value) in changes {
        config[*key] = value.clone();
    }
    fs::write(path.join("config.json"), config.to_string()).expect("it can be written");
    let mut shapes =
        vec![("model.embed_tokens".to_owned(), vec![40, 32]), ("model.norm".to_owned(), vec![32])];
    for part in ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"] {
        shapes.push((format!("model.layers.0.{part}"), vec![32, 32]));
    }
    for part in ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"] {
        shapes.push((format!("model.layers.0.{part}"), vec![32, 32]));
    }
    for part in ["input_layernorm", "post_attention_layernorm"] {
        shapes.push((format!("model.layers.0.{part}"), vec![32]));
    }
    let (mut header, mut data) = (json!({}), Vec::new());
    for (name, shape) in shapes {
        let start = data.len();
        let count: usize = shape.iter().product();
        data.extend((0..count).flat_map(|i| ((i * 37 % 11) as f32 / 11.0 - 0.5).to_le_bytes()));
        header[format!("{name}.weight")] =
            json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
    }
    fs::write(path.join("model.safetensors"), safetensors(&header, &data)).expect("it can be written");
}

fn safetensors(header: &Value, data: &[u8]) -> Vec<u8> {
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

#[test]
fn what_cannot_be_loaded_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let check = |changes: &[(&str, Value)], expected: &str| {
        write(folder.path(), changes);
        let error = load(folder.path(), None).expect_err(expected).to_string();
        assert!(error.contains(expected), "{changes:?}: {error}");
    };
    check(&[("model_type", json!("rwkv"))], "\"rwkv\", known are llama, mistral");
    check(&[("hidden_size", json!(64))], "shape [40, 32]");
    check(&[("hidden_size", json!(-1))], "hidden_size is -1");
    check(&[("hidden_size", json!(u64::MAX))], "hidden size of 18446744073709551615");
    check(&[("hidden_size", json!(1_u64 << 40))], "embedding length is");
    check(&[("num_attention_heads", json!(0))], "0 heads");
    check(&[("num_hidden_layers", json!(2))], "blk.1.attn_q.weight is missing");
    check(&[("num_hidden_layers", json!(1_000_000_000))], "layers is 1000000000");
    check(&[("hidden_act", json!("relu2"))], "\"relu2\", known are silu");
    check(&[("rope_scaling", json!({"type": "magic", "factor": 2}))], "rope scaling \"magic\"");
    check(&[("rope_scaling", json!({"type": "linear"}))], "positive factor");
    check(&[("rope_theta", json!(-5))], "rope base is -5");
    check(&[("tie_word_embeddings", json!("yes"))], "true or false");
    check(
        &[("model_type", json!("qwen3")), ("sliding_window", json!(8)), ("layer_types", json!(["x", "y"]))],
        "2 layer_types for 1 layers",
    );
    write(folder.path(), &[]);
    assert!(load(folder.path(), None).is_ok());
    assert!("q5".parse::<Quantize>().is_err_and(|error| error.to_string().contains("q8_0, q4_0, q4_k")));
    for index in [json!({"weight_map": {"x": "../secret"}}), json!({"weight_map": {"x": "/etc/passwd"}})] {
        fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).expect("written");
        let error = load(folder.path(), None).expect_err("a path").to_string();
        assert!(error.contains("plain file name"), "{error}");
    }
}

#[test]
fn a_norm_that_is_not_finite_is_refused() {
    const NORM: &str = "model.layers.0.post_attention_layernorm.weight";
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), &[]);
    let path = folder.path().join("model.safetensors");
    let whole = fs::read(&path).expect("a file");
    let (length, rest) = whole.split_first_chunk().expect("a length");
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header: Value = serde_json::from_slice(header).expect("a header");
    let start = header[NORM]["data_offsets"][0].as_u64().expect("a number") as usize;
    for (dtype, value, expected) in [
        ("F32", &f32::NAN.to_le_bytes()[..], "NaN"),
        ("F16", &half::f16::NAN.to_le_bytes(), "NaN"),
        ("F16", &half::f16::NEG_INFINITY.to_le_bytes(), "-inf"),
        ("BF16", &half::bf16::INFINITY.to_le_bytes(), "inf"),
    ] {
        let data = [&data[..start], &value.repeat(32)].concat();
        let mut header = header.clone();
        header[NORM] = json!({"dtype": dtype, "shape": [32], "data_offsets": [start, data.len()]});
        fs::write(&path, safetensors(&header, &data)).expect("it can be written");
        let error = load(folder.path(), None).expect_err(expected).to_string();
        assert!(error.ends_with(&format!("blk.0.ffn_norm.weight holds {expected} at 0")), "{dtype}: {error}");
    }
}

/// Whatever the bytes are, loading ends in a model or an error.
#[test]
fn damaged_folders_end_in_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), &[]);
    for file in ["config.json", "model.safetensors"] {
        let path = folder.path().join(file);
        let good = fs::read(&path).expect("a file");
        let header = good.len().min(1400);
        for end in (0..header).step_by(7) {
            fs::write(&path, &good[..end]).expect("it can be written");
            assert!(load(folder.path(), None).is_err(), "{file} of {end} bytes");
        }
        let mut seed = 1_u32;
        for position in 0..header {
            let mut bytes = good.clone();
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            bytes[position] ^= (seed >> 24) as u8 | 1;
            fs::write(&path, &bytes).expect("it can be written");
            if let Ok(model) = load(folder.path(), None) {
                logits(&model, &[1]);
            }
        }
        fs::write(&path, &good).expect("it can be written");
    }
}
